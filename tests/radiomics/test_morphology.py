"""Shape and autocorrelation: solids a pencil knows, and all pairs counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from oncontour.core.geometry import Geometry
from oncontour.radiomics.mesh import area_and_volume, vertices
from oncontour.radiomics.morphology import (
    _outermost,
    _outline,
    _smallest_box,
    autocorrelation,
    ellipsoid_area,
    enclosing_ellipsoid,
    morphology,
    shape,
)
from oncontour.radiomics.region import Region

BOX = np.ones((7, 5, 9), bool)
MM = (3.0, 1.0, 2.0)


def ball(radius: float, spacing: tuple[float, float, float]) -> np.ndarray:
    reach = [int(radius / s) + 1 for s in spacing]
    k, j, i = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    return (k * spacing[0]) ** 2 + (j * spacing[1]) ** 2 + (i * spacing[2]) ** 2 <= radius**2


def test_one_voxel_is_an_octahedron() -> None:
    assert area_and_volume(np.ones((1, 1, 1), bool), (1, 1, 1)) == pytest.approx((np.sqrt(3), 1 / 6))
    assert area_and_volume(np.ones((1, 1, 1), bool), MM)[1] == pytest.approx(1.0)


def test_a_box_loses_its_edges_and_corners() -> None:
    """Edges lose a prism of 1/8 along their inner length, corners an eighth but 1/48."""
    area, volume = area_and_volume(BOX, (1, 1, 1))
    inner = [6, 4, 8]
    assert volume == pytest.approx(7 * 5 * 9 - sum(inner) * 4 / 8 - 8 * (1 / 8 - 1 / 48))
    flat = 2 * (6 * 4 + 4 * 8 + 8 * 6)
    assert area == pytest.approx(flat + sum(inner) * 4 * np.sqrt(0.5) + 8 * np.sqrt(3) / 8)


def test_the_surface_is_closed_and_does_not_depend_on_where_the_mask_lies() -> None:
    """Flux along each axis gives the same volume, and so does a shift: a hole in the surface would show in both."""
    mask = np.random.default_rng(1).random((6, 7, 5)) < 0.5
    area, volume = area_and_volume(mask, (1, 1, 1))
    shifted = np.zeros((9, 9, 9), bool)
    shifted[3:, 2:, 4:] = mask
    assert area_and_volume(shifted, (1, 1, 1)) == pytest.approx((area, volume))
    assert area_and_volume(~np.pad(~np.pad(mask, 1), 0), (1, 1, 1)) == pytest.approx((area, volume))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_a_ball(spacing: tuple[float, float, float]) -> None:
    got = shape(ball(20.0, spacing), spacing)
    assert got["morph_volume"] == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert got["morph_vol_approx"] == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert 40 <= got["morph_diam"] <= 40 + max(spacing) + 1e-9
    assert [got[f"morph_pca_{a}_axis"] for a in ("maj", "min", "least")] == pytest.approx([4 * 20 / np.sqrt(5)] * 3, rel=0.01)
    assert got["morph_pca_flatness"] == pytest.approx(1, abs=0.01)
    assert got["morph_vol_dens_mvee"] == pytest.approx((20 / (20 + max(spacing) / 2)) ** 3, abs=0.05)
    assert got["morph_vol_dens_conv_hull"] == pytest.approx(1, abs=0.06)


def test_a_box_in_its_boxes() -> None:
    """Its own bounding box, aligned and oriented, is the box of its surface; turned by 45 degrees only the oriented one fits."""
    got = shape(BOX, MM)
    sides = np.array([7, 5, 9]) * MM
    assert got["morph_vol_dens_aabb"] == pytest.approx(got["morph_volume"] / sides.prod())
    assert got["morph_vol_dens_ombb"] >= got["morph_vol_dens_aabb"] - 1e-9
    j, i = np.mgrid[:41, :41] - 20
    turned = np.broadcast_to((np.abs(j + i) <= 20) & (np.abs(j - i) <= 8), (10, 41, 41))
    got = shape(turned, (1, 1, 1))
    assert got["morph_vol_dens_aabb"] < 0.5
    assert got["morph_vol_dens_ombb"] == pytest.approx(1, abs=0.03)
    long, wide, high = 21 * np.sqrt(2) - np.sqrt(0.5), 9 * np.sqrt(2) - np.sqrt(0.5), 10
    box = 2 * (long * wide + wide * high + high * long)
    assert got["morph_area_dens_ombb"] == pytest.approx(got["morph_area_mesh"] / box, rel=0.02)


def test_enclosing_ellipsoids() -> None:
    """Round the corners of a box: sqrt(3) times its half sides. Round points on an ellipsoid, turned and moved: itself."""
    corners = np.array(np.meshgrid([-3, 3], [-2, 2], [-1, 1])).reshape(3, -1).T.astype(float)
    assert enclosing_ellipsoid(corners) == pytest.approx(np.sqrt(3) * np.array([3, 2, 1]), rel=1e-3)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert enclosing_ellipsoid(points * [5, 4, 2] @ turn + 7) == pytest.approx([5, 4, 2], rel=1e-3)


def test_area_of_ellipsoids() -> None:
    """A ball; and one of revolution with a = 2, b = c = 1, where the manual's series is 4 pi a b (1 + (1/e - e) atanh e) / 2: 17.34,
    while the true area is 21.48.
    """
    assert ellipsoid_area(3, 3, 3) == pytest.approx(36 * np.pi)
    e = np.sqrt(1 - 1 / 4)
    assert ellipsoid_area(2, 1, 1) == pytest.approx(8 * np.pi * (1 + (1 / e - e) * np.arctanh(e)) / 2, rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_hull_points_are_enough(seed: int) -> None:
    """Of all edges that the surface crosses, those kept have the same convex hull."""
    mask = np.random.default_rng(seed).random((4, 5, 3)) < 0.4
    mask[0, 0, 0] = True
    padded, found = np.pad(mask, 1), []
    for axis in range(3):
        crossed = np.argwhere(np.diff(padded.astype(np.int8), axis=axis) != 0) - 1.0
        crossed[:, axis] += 0.5
        found.append(crossed)
    every, kept = ConvexHull(np.concatenate(found)), ConvexHull(vertices(mask, (1, 1, 1)))
    assert (kept.volume, kept.area) == pytest.approx((every.volume, every.area))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_autocorrelation_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(3, 2, tuple(rng.integers(1, 6, 3)))
    mask = rng.random(image.shape) < 0.7
    spacing = tuple(rng.uniform(0.5, 3, 3))
    x, at = image[mask], np.argwhere(mask) * spacing
    if len(x) < 2:
        assert np.isnan(autocorrelation(image, mask, spacing)).all()
        return
    apart = squareform(pdist(at))
    weight = np.divide(1, apart, out=np.zeros_like(apart), where=apart > 0)
    d = x - x.mean()
    moran = len(x) / weight.sum() * (weight * np.outer(d, d)).sum() / (d @ d)
    geary = (len(x) - 1) / (2 * weight.sum()) * (weight * (x[:, None] - x) ** 2).sum() / (d @ d)
    assert autocorrelation(image, mask, spacing) == pytest.approx((moran, geary), rel=1e-9)


def region(image: np.ndarray, form: np.ndarray, kept: np.ndarray | None = None) -> Region:
    return Region(image.astype(float), form, form if kept is None else kept, Geometry.regular(image.shape, (2.0, 1.0, 1.0)))


def test_shift_of_the_centre() -> None:
    """Two voxels 2 mm apart, three times as bright above: a quarter of the way from the middle."""
    got = morphology(region(np.array([1.0, 3.0]).reshape(2, 1, 1), np.ones((2, 1, 1), bool)))
    assert got["morph_com"] == pytest.approx(0.5)
    assert got["morph_integ_int"] == pytest.approx(2 * got["morph_volume"])


@pytest.mark.parametrize("spacing", [(2.5, 1.17, 1.1), (1.0, 1.0, 1.0), (0.3, 7.0, 2.2)])
def test_what_is_flat_whatever_way_it_lies_has_no_ellipsoid(spacing: tuple[float, float, float]) -> None:
    pair, plane, line = np.zeros((2, 2, 2), bool), np.zeros((9, 9, 9), bool), np.zeros((6, 6, 6), bool)
    pair[0, 0, 0] = pair[1, 1, 1] = True
    k, j = np.indices((9, 9))
    plane[k, j, (k + j) // 2] = (k + j) % 2 == 0
    line[range(6), range(6), range(6)] = True
    for mask in (pair, plane, line):
        found = shape(mask, spacing)
        assert np.isnan([found["morph_vol_dens_aee"], found["morph_area_dens_aee"]]).all()


def test_what_is_not_defined() -> None:
    one = morphology(region(np.full((1, 1, 1), 5.0), np.ones((1, 1, 1), bool)))
    shapeless = {"pca_maj_axis", "pca_min_axis", "pca_least_axis", "pca_elongation", "pca_flatness", "vol_dens_aee", "area_dens_aee"}
    assert {n.removeprefix("morph_") for n, v in one.items() if np.isnan(v)} == shapeless | {"moran_i", "geary_c"}
    constant = morphology(region(np.full((3, 3, 3), 0.1), np.ones((3, 3, 3), bool)))
    assert {n for n, v in constant.items() if np.isnan(v)} == {"morph_moran_i", "morph_geary_c"}
    unknown = morphology(region(np.full((3, 3, 3), np.nan), np.ones((3, 3, 3), bool), np.zeros((3, 3, 3), bool)))
    assert {n for n, v in unknown.items() if np.isnan(v)} == {"morph_com", "morph_integ_int", "morph_moran_i", "morph_geary_c"}
    nothing = morphology(region(np.zeros((2, 2, 2)), np.zeros((2, 2, 2), bool)))
    assert len(nothing) == 29
    assert np.isnan([*nothing.values()]).all()


def test_an_outline_keeps_the_corners_of_a_column() -> None:
    """Corners that stand above each other, in any order and up to rounding; a point between them is none."""
    points = np.array([(0, 2), (0, 0), (1e-13, 1), (3, 1), (3, 0), (-1e-13, 1.5), (3, 2), (1.5, 1)])
    for seed in range(20):
        x, y = np.random.default_rng(seed).permutation(points).T.copy()
        order = np.empty(2 * len(x), np.int64)
        size = _outline(x, y, order)
        assert sorted((round(x[n]), round(y[n])) for n in order[:size]) == [(0, 0), (0, 2), (3, 0), (3, 2)]


@given(arrays(bool, (5, 6, 7), elements=st.sampled_from((False, False, True))).filter(lambda mask: mask.any()))
@settings(max_examples=40, deadline=None)
def test_the_outermost_points_have_the_same_hull(mask: NDArray[np.bool_]) -> None:
    points = vertices(mask, (3.0, 1.5, 1.0))
    whole, part = ConvexHull(points), ConvexHull(_outermost(points))
    assert part.volume == pytest.approx(whole.volume, rel=1e-12)
    assert {*map(tuple, whole.points[whole.vertices])} == {*map(tuple, part.points[part.vertices])}


@given(arrays(bool, (4, 5, 6), elements=st.sampled_from((False, False, True))).filter(lambda mask: mask.any()))
@settings(max_examples=40, deadline=None)
def test_the_smallest_box_by_outlines_is_that_of_all_corners(mask: NDArray[np.bool_]) -> None:
    """Every face's normal, turned in the plane by every pair of corners: none is smaller than what the outlines give."""
    hull = ConvexHull(vertices(mask, (3.0, 1.5, 1.0)))
    corners, least = hull.points[hull.vertices], np.inf
    for z in np.unique(np.round(hull.equations[:, :3], 6), axis=0):
        z = z / np.linalg.norm(z)
        x = np.cross(z, np.eye(3)[np.abs(z).argmin()])
        flat = corners @ np.stack([x, np.cross(z, x)]).T / np.linalg.norm(x)
        outline = flat[ConvexHull(flat).vertices]
        for edge in np.roll(outline, -1, axis=0) - outline:
            along = edge / np.linalg.norm(edge)
            sides = np.ptp(flat @ np.array([along, (-along[1], along[0])]).T, axis=0)
            least = min(least, sides.prod() * np.ptp(corners @ z))
    assert _smallest_box(hull).prod() == pytest.approx(least, rel=1e-6)
