"""Contours to voxels and back, against analytic solids (``phantom.shapes``) and figures a pencil can derive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, GeometryError, LimitError, StructureError
from oncontour.phantom.shapes import Box, Cylinder, Ellipsoid, HollowSphere, Solid, Sphere, Straw, Torus, keyhole
from oncontour.raster import fill, rasterise, trace

Floats = NDArray[np.float64]

# Planes lie at half millimetres: ends of cube, cylinder and straw lie half-way between two planes, as a contoured slab's do.
SOLIDS: dict[str, Solid] = {
    "sphere": Sphere((3.2, 1.7, 0.4), 24),
    "ellipsoid": Ellipsoid((-2.3, 4.1, 1.2), (26, 18, 22)),
    "cube": Box((0.3, -1.4, 0), (34, 34, 34)),
    "cylinder": Cylinder((1.1, 2.2, 0), 18, 40),
    "torus": Torus((0.4, 0.7, 0), 22, 11),
    "hollow": HollowSphere((1.3, -0.9, 0.2), 25, 14),
    "straw": Straw((0, 0, 0), 2.0, 60),
}
PLANES = np.arange(-40, 40) + 0.5


def dice(a: Volume, b: Volume) -> float:
    return float(2 * (a.array & b.array).sum() / (a.array.sum() + b.array.sum()))


def cube_of(size: int, spacing: float = 1.0) -> Geometry:
    """A cubic grid round the origin."""
    return Geometry.regular((size,) * 3, (spacing,) * 3, [-spacing * (size - 1) / 2] * 3)


def square(z: float, half: float = 5.0, x: float = 0.0, y: float = 0.0) -> Floats:
    return np.array([[x - half, y - half, z], [x + half, y - half, z], [x + half, y + half, z], [x - half, y + half, z]])


def moved(polygon: Floats, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Floats:
    return polygon + np.array([x, y, z])


def turned(degrees: tuple[float, float, float]) -> Floats:
    """Rotation about x, then y, then z."""
    out = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        out = step @ out
    return out


def area_mm2(polygon: Floats) -> float:
    return float(np.linalg.norm(np.cross(polygon, np.roll(polygon, -1, axis=0)).sum(axis=0)) / 2)


def volume_mm3(contours: Contours, slices: Slices) -> float:
    """Sum over the planes of polygon area (by XOR of nested loops) times the slab of the slice that the plane lies on."""
    total = 0.0
    slabs = np.diff(slices.slabs_mm, axis=1)[:, 0]
    offsets = np.array([polygon[0] @ slices.normal for polygon in contours])
    for at, thickness in zip(slices.offsets_mm, slabs, strict=True):
        here = [polygon for polygon, offset in zip(contours, offsets, strict=True) if abs(offset - at) < 1e-9]
        signed = sum(float(np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0) @ slices.normal) / 2 for p in here)
        total += abs(signed) * thickness
    return total


def slices_along(offsets: Floats, rotation: Floats | None = None, tilt_deg: float = 0.0, size: int = 60, pixel: float = 1.0) -> Slices:
    """Square slices round the axis of the stack, at ``offsets`` along its normal; ``tilt_deg`` shears the stack along the columns."""
    row, column, normal = (np.eye(3) if rotation is None else rotation).T
    shift = np.tan(np.deg2rad(tilt_deg)) * offsets
    corner = -(size - 1) / 2 * pixel
    origins = offsets[:, None] * normal + (corner + shift)[:, None] * column + corner * row
    return Slices(origins, row, column, (pixel, pixel), (size, size))


# ---- contours to voxels


@pytest.fixture(scope="module")
def full_size() -> Geometry:
    return Geometry.regular((200, 512, 512), (1, 1, 1), (-255.3, -255.7, -99.5))


@pytest.mark.parametrize("name", SOLIDS)
def test_analytic_solids_on_the_full_grid(name: str, full_size: Geometry) -> None:
    solid = SOLIDS[name]
    contours = solid.contours(np.arange(200) - 99.5)
    mask, truth = fill(contours, full_size), solid.mask(full_size)
    assert dice(mask, truth) >= (0.98 if name == "straw" else 0.995)
    low, high = full_size.voxels([[-50, -50, -50], [50, 50, 50]])  # the solids lie well within
    part = full_size.crop(low.astype(int), high.astype(int))
    assert rasterise(contours, part).volume_cc * 1000 == pytest.approx(solid.volume_mm3, rel=5e-3)
    if name != "straw":  # 2 mm in voxels of 1 mm: what half-covered voxels make of it is up to 3 %
        assert mask.volume_cc * 1000 == pytest.approx(solid.volume_mm3, rel=5e-3)


@pytest.mark.parametrize("name", SOLIDS)
def test_oblique_slices_on_their_grid(name: str) -> None:
    rotation = turned((20, -15, 30))
    contours = Contours(tuple(p @ rotation.T for p in SOLIDS[name].contours(PLANES)))
    upright = Geometry.regular((80, 72, 72), origin_mm=[-35.5, -35.5, -39.5])
    grid = Geometry.regular(upright.shape, origin_mm=rotation @ upright.origin_mm, axes=rotation.T[::-1])
    truth = Volume(SOLIDS[name].mask(upright).array, grid)  # turned with the grid
    assert dice(fill(contours, grid), truth) >= (0.98 if name == "straw" else 0.995)
    assert rasterise(contours, grid).volume_cc * 1000 == pytest.approx(SOLIDS[name].volume_mm3, rel=5e-3)


@pytest.mark.parametrize("name", ["sphere", "cube", "hollow"])
def test_onto_a_grid_that_is_oblique_to_the_planes(name: str) -> None:
    contours = SOLIDS[name].contours(PLANES)
    rotation = turned((10, 25, -5))
    grid = Geometry.regular((48, 48, 48), (1.5, 1.5, 1.5), rotation @ [-35, -35, -35], rotation.T[::-1])
    cover = rasterise(contours, grid)
    assert cover.volume_cc * 1000 == pytest.approx(SOLIDS[name].volume_mm3, rel=5e-3)
    assert dice(cover.binary(), SOLIDS[name].mask(grid)) >= 0.99  # the planes' own staircase is the difference


@pytest.mark.parametrize("spacing", [(3, 2.5, 2.5), (0.5, 0.7, 0.9), (4, 5, 5)])
@pytest.mark.parametrize("name", ["cube", "torus", "hollow"])
def test_straight_onto_finer_and_coarser_grids(name: str, spacing: tuple[float, float, float]) -> None:
    grid = Geometry.regular([int(80 / s) for s in spacing], spacing, [-40.1, -40.3, -40.7])
    cover = rasterise(SOLIDS[name].contours(PLANES), grid)
    assert cover.volume_cc * 1000 == pytest.approx(SOLIDS[name].volume_mm3, rel=5e-3)
    if spacing != (0.5, 0.7, 0.9):
        truth = SOLIDS[name].coverage(grid, sub=8).array
        assert float(np.abs(cover.array - truth).mean()) < 0.005


def test_sagittal_and_coronal_planes() -> None:
    ball, grid = Sphere((1.2, -3.1, 0.4), 20), cube_of(60)
    axial = Sphere((0.4, 1.2, -3.1), 20).contours(PLANES)
    for order, centre in (([2, 0, 1], (-3.1, 0.4, 1.2)), ([1, 2, 0], (1.2, -3.1, 0.4))):
        turned_contours = Contours(tuple(p[:, order] for p in axial))
        truth = Sphere((centre[0], centre[1], centre[2]), 20).mask(grid)
        assert dice(fill(turned_contours, grid), truth) >= 0.995
    assert dice(fill(Contours(tuple(p[:, [1, 2, 0]] for p in axial)), grid), ball.mask(grid)) >= 0.995


def test_area_is_exact_to_the_sub_pixel() -> None:
    grid = Geometry.regular((1, 6, 6), (2, 1, 1), (0, 0, 0))
    cover = rasterise(Contours((np.array([[0.75, 1.0, 0], [3.25, 1.0, 0], [3.25, 3.5, 0], [0.75, 3.5, 0]]),)), grid)
    expected = np.zeros((6, 6))
    expected[1:4, 1:4] = np.outer([0.5, 1, 1], [0.75, 1, 0.75])
    np.testing.assert_allclose(cover.array[0], expected, atol=1e-6)


def test_triangle_has_half_of_the_pixels_it_cuts() -> None:
    grid = Geometry.regular((1, 4, 4), (2, 1, 1), (0.5, 0.5, 0))
    cover = rasterise(Contours((np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]),)), grid)
    np.testing.assert_allclose(cover.array[0], np.tri(4)[::-1] - 0.5 * np.eye(4)[::-1], atol=1e-6)


def test_contours_beyond_the_grid_are_cut_at_its_edge() -> None:
    grid = cube_of(8)
    cover = rasterise(Contours(tuple(square(z, 50) for z in PLANES)), grid)
    assert (cover.array == 1).all()
    assert not rasterise(Contours((square(0, 2, x=500),)), grid).array.any()
    assert rasterise(Contours((square(0.5, 2, x=-4),)), grid).array.sum() == pytest.approx(2 * 4)


# ---- several polygons in a plane


def test_holes_by_xor_by_keyhole_and_islands_within() -> None:
    grid = Geometry.regular((1, 60, 60), (1, 1, 1), (-29.5, -29.5, 0))
    rings = [square(0, half) for half in (25, 15, 5)]
    expected = 50**2 - 30**2 + 10**2
    assert rasterise(Contours(tuple(rings)), grid).array.sum() == pytest.approx(expected)
    assert rasterise(Contours((rings[2][::-1], rings[0], rings[1])), grid).array.sum() == pytest.approx(expected)
    joined = keyhole(rings[0], rings[1])
    assert rasterise(Contours((joined, rings[2])), grid).array.sum() == pytest.approx(expected)


def test_overlapping_contours_combine_by_xor() -> None:
    grid = Geometry.regular((1, 40, 40), (1, 1, 1), (-19.5, -19.5, 0))
    both = Contours((square(0, 5), square(0, 5, x=4)))  # they share 6 x 10 mm
    assert rasterise(both, grid).array.sum() == pytest.approx(2 * 100 - 2 * 60)


def test_bow_tie_fills_both_wings() -> None:
    grid = Geometry.regular((1, 20, 20), (1, 1, 1), (-9.5, -9.5, 0))
    bow = np.array([[-8.0, -4, 0], [8, 4, 0], [8, -4, 0], [-8, 4, 0]])
    assert rasterise(Contours((bow,)), grid).array.sum() == pytest.approx(2 * 0.5 * 8 * 8)


@pytest.mark.parametrize("step", [0.5, 1.0, 4.0, 11.0])
def test_what_crosses_is_exact_however_coarse_the_voxels(step: float) -> None:
    """Two diamonds of half diagonal 6 whose centres are 6 apart share a square of area 18: 2 x 72 - 2 x 18. A pentagram drawn in one stroke
    is inside in its five points alone, not in the pentagon between them (even-odd); a figure of eight in both of its lobes."""
    grid = Geometry.regular((1, 60, 60), (1, step, step), (-29.5 * step + 0.13, -29.5 * step - 0.2, 0))
    diamond = np.array([[6.0, 0, 0], [0, 6, 0], [-6, 0, 0], [0, -6, 0]])

    def area(*polygons: Floats) -> float:
        return float(rasterise(Contours(polygons), grid).array.sum(dtype=np.float64)) * step**2

    assert area(diamond, moved(diamond, 6, 0)) == pytest.approx(108, rel=1e-5)
    assert area(diamond, moved(diamond, 6, 0)[::-1]) == pytest.approx(108, rel=1e-5)
    turn = np.pi / 2 + 4 * np.pi * np.arange(5) / 5
    star = np.stack([5 * np.cos(turn), 5 * np.sin(turn), 0 * turn], axis=1)
    inner, outer = 5 * np.cos(2 * np.pi / 5) / np.cos(np.pi / 5), 5.0
    points = 5 * inner * outer * np.sin(np.pi / 5) - 2.5 * inner**2 * np.sin(2 * np.pi / 5)
    assert area(star) == pytest.approx(points, rel=1e-5)
    eight = np.array([[-4.0, -3, 0], [4, 3, 0], [4, -3, 0], [-4, 3, 0]])
    assert area(eight) == pytest.approx(24, rel=1e-5)
    hole = np.array([[-3.5, -1, 0], [-2.5, -1, 0], [-2.5, 1, 0], [-3.5, 1, 0]])  # of 2 mm2, in the left lobe
    assert area(eight, hole, moved(eight[::-1], 0, 6)) == pytest.approx(24 - 2 + 24, rel=1e-5)


def test_a_stack_of_equal_figures_of_eight_on_oblique_slices_has_both_lobes() -> None:
    """The signed area of each is none, and so tells no plane that it lies in."""
    slices = slices_along(np.arange(-4.0, 5), turned((20, 30, 40)))
    eight = np.array([[-8.0, -4], [8, 4], [8, -4], [-8, 4]]) @ np.stack([slices.row, slices.column])
    drawn = Contours(tuple(eight + at * slices.normal for at in slices.offsets_mm), None, slices)
    grid = Geometry.regular((60, 60, 60), (0.5, 0.5, 0.5), (-14.75, -14.75, -14.75))
    assert rasterise(drawn, grid).volume_cc == pytest.approx(64 * 9 / 1000, rel=0.01)


def test_a_million_points_and_ten_thousand_outlines_in_each_other() -> None:
    """Both are filled, by their area: a circle, and every second of the walls between squares."""
    grid = Geometry.regular((1, 64, 64), (1, 8, 8), (-252, -252, 0))
    turn = 2 * np.pi * np.arange(1_000_000) / 1_000_000
    circle = np.stack([200 * np.cos(turn), 200 * np.sin(turn), 0 * turn], axis=1)
    assert rasterise(Contours((circle,)), grid).array.sum(dtype=np.float64) * 64 == pytest.approx(np.pi * 200**2, rel=1e-6)
    halves = 200 - 0.02 * np.arange(10_000)
    nested = Contours(tuple(square(0, half) for half in halves))
    walls = 4 * (halves[::2] ** 2 - halves[1::2] ** 2).sum()
    assert rasterise(nested, grid).array.sum(dtype=np.float64) * 64 == pytest.approx(walls, rel=1e-4)


def test_outlines_too_entangled_are_refused() -> None:
    """Each of 4000 lines there and back, nearly flat, crosses most of the others within a voxel."""
    rng = np.random.default_rng(5)
    ends = rng.uniform(0, 1, (8000, 1))
    scribble = np.concatenate([np.where(np.arange(8000)[:, None] % 2, -200.0, 200.0), ends, np.zeros((8000, 1))], axis=1)
    with pytest.raises(LimitError, match="1 outlines of one plane, of 8000 points, lie so thick over each other"):
        rasterise(Contours((scribble,)), Geometry.regular((1, 8, 8), (1, 50, 50), (-175, -175, 0)))


# ---- how far a plane reaches


def thickness(planes: list[float], slices: list[float] | None = None, slab_mm: float | None = None) -> list[tuple[float, float]]:
    """What z ranges a 10 mm square in each plane fills, to 0.25 mm."""
    stack = None if slices is None else slices_along(np.array(slices))
    grid = Geometry.regular((400, 1, 1), (0.25, 1, 1), (0, 0, -19.875))
    filled = fill(Contours(tuple(square(z) for z in planes)), grid, slices=stack, slab_mm=slab_mm).array[:, 0, 0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled.astype(int), [0]])))
    z = edges * 0.25 - 20
    return [(float(a), float(b)) for a, b in z.reshape(-1, 2)]


EVERY_3 = [float(z) for z in range(-18, 60, 3)]
EVERY_2 = [float(z) for z in range(-18, 60, 2)]
EVERY_1 = [float(z) for z in range(-18, 60)]
EVERY_5 = [float(z) for z in range(-15, 60, 5)]
EVERY_6 = [float(z) for z in range(-18, 60, 6)]
EVERY_10 = [float(z) for z in range(-20, 70, 10)]
UNEVEN = [float(z) for z in range(-18, 0)] + [float(z) for z in range(0, 60, 3)]


@pytest.mark.parametrize(
    ("planes", "slices", "expected"),
    [
        ([0, 3, 6], None, [(-1.5, 7.5)]),  # half a spacing beyond the ends
        ([0, 3.02, 6.0], None, [(-1.5, 7.5)]),
        ([0, 3, 6, 15, 18, 21], None, [(-1.5, 7.5), (13.5, 22.5)]),  # a gap is a gap
        ([0, 3, 9, 12], EVERY_3, [(-1.5, 4.5), (7.5, 13.5)]),  # one slice was left out on purpose
        ([0, 6, 12, 18], EVERY_3, [(-3, 21)]),  # every second slice was drawn
        ([0, 9, 18], EVERY_3, [(-4.5, 22.5)]),  # every third, 9 mm apart
        ([0, 10, 20], EVERY_5, [(-5, 25)]),  # every second, 10 mm apart
        ([0, 5, 10, 15], EVERY_1, [(-2.5, 17.5)]),  # every fifth of a fine CT
        ([0, 12, 24, 36], EVERY_3, [(-1.5, 1.5), (10.5, 13.5), (22.5, 25.5), (34.5, 37.5)]),  # every fourth, 12 mm apart: single slices
        ([0, 12, 24, 36], EVERY_6, [(-6, 42)]),  # every second, 12 mm apart, each over the next
        ([0, 15, 30], EVERY_5, [(-7.5, 37.5)]),  # every third, 15 mm apart
        ([-15, 15, 45], EVERY_3, [(-16.5, -13.5), (13.5, 16.5), (43.5, 46.5)]),  # the same as with unequal steps:
        ([-15, 15, 48], EVERY_3, [(-16.5, -13.5), (13.5, 16.5), (46.5, 49.5)]),
        ([-10, -5, 0, 15, 30], UNEVEN, [(-12.5, 1.5), (13.5, 16.5), (28.5, 31.5)]),  # every fifth: 5 mm apart, then 15
        ([6], EVERY_3, [(4.5, 7.5)]),  # a single plane has the slices' thickness
        ([-2, -1, 0, 3, 6], UNEVEN, [(-2.5, 7.5)]),  # each as thick as its slice
        ([-3, -2, -1, 0, 3, 6, 9], None, [(-3.5, 10.5)]),
        ([-1], UNEVEN, [(-1.5, -0.5)]),
        ([3], UNEVEN, [(1.5, 4.5)]),
        ([0], UNEVEN, [(-0.5, 1.5)]),
        ([0, 3, 4.5, 6], EVERY_3, [(-1.5, 7.5)]),  # a contour between the slices
        ([1.5, 4.5, 7.5], EVERY_3, [(0, 9)]),  # all of them between the slices
        ([n / 2 - 5.25 for n in range(22)], EVERY_10, [(-5.5, 5.5)]),  # drawn on another, finer series: two of them near a slice
        ([0, 30], None, [(-0.125, 0.125), (29.875, 30.125)]),  # nothing says how thick: the grid's own step
        ([10, 14, 20, 24, 30], EVERY_2, [(8, 33)]),  # every 5 mm, put onto slices of 2 mm: 5 times 5 mm
        ([10, 14, 20, 24], EVERY_2, [(8, 26)]),
        ([10, 12, 15, 17, 20, 22, 25], EVERY_1, [(9, 26.5)]),  # every 2.5 mm, put onto slices of 1 mm: 7 times 2.5 mm
        ([0, 2, 6, 8, 12, 14], EVERY_2, [(-1, 15)]),  # every 3 mm, put onto slices of 2 mm
        ([2, 3, 4, 6, 8, 10, 12, 14, 15, 16], EVERY_1, [(1.5, 16.5)]),  # every slice at the ends, every second between
        ([5, 6, 7, 9, 10, 11], EVERY_1, [(4.5, 7.5), (8.5, 11.5)]),  # every slice, one left out on purpose
        ([5, 6, 7, 8, 14, 15, 16, 17], EVERY_1, [(4.5, 8.5), (13.5, 17.5)]),
        ([0, 6], EVERY_3, [(-3, 9)]),  # two contours, a slice between
        ([0, 12], EVERY_3, [(-1.5, 1.5), (10.5, 13.5)]),  # too far apart
        ([10 + 2.5 * n for n in range(9)], EVERY_1, [(8.75, 31.25)]),  # contours of another series, every second on a slice: 9 times 2.5 mm
        ([10, 12.5, 15], EVERY_1, [(8.75, 16.25)]),
        ([12 + 3 * n for n in range(7)], EVERY_2, [(10.5, 31.5)]),
        ([10 + 1.5 * n for n in range(14)], EVERY_1, [(9.25, 30.25)]),
        ([10 + 5 * n for n in range(7)], EVERY_2, [(7.5, 42.5)]),
        ([0.5, 1.5, 3.5, 4.5, 6.5, 7.5], EVERY_1, [(0, 8)]),  # of another series of 1 mm, drawn every 1.5 mm
    ],
)
def test_slabs(planes: list[float], slices: list[float] | None, expected: list[tuple[float, float]]) -> None:
    found = thickness(planes, slices)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=0.126)


def test_a_thickness_that_is_given() -> None:
    assert thickness([0, 10], slab_mm=2) == [(-1, 1), (9, 11)]
    with pytest.raises(ConfigError, match="positive thickness"):
        thickness([0], slab_mm=0)


def test_noise_in_z_is_one_plane() -> None:
    grid = Geometry.regular((9, 20, 20), (3, 1, 1), (-9.5, -9.5, -12))
    noisy = Contours(tuple(square(3 * k + 1e-3 * n, 2, x=-5 + 5 * n) for k in range(-3, 3) for n in range(3)))
    assert rasterise(noisy, grid).array.sum() == pytest.approx(6 * 3 * 16, rel=1e-3)


def test_planes_rounded_to_a_tenth_of_a_millimetre_lie_on_their_slices() -> None:
    slices = slices_along(np.arange(-12, 12) * 1.25)
    rounded = [float(np.round(1.25 * k, 1)) for k in (0, 1, 2, 5, 6, 7)]
    grid = Geometry.regular((24, 1, 1), (1.25, 1, 1), (0, 0, -15))
    filled = fill(Contours(tuple(square(z) for z in rounded)), grid, slices=slices).array[:, 0, 0]
    assert np.flatnonzero(filled).tolist() == [12, 13, 14, 17, 18, 19]


@pytest.mark.parametrize("turned_grid", [False, True])
@pytest.mark.parametrize("slab_mm", [None, 3.0])
@pytest.mark.parametrize(("outline", "hole"), [(0, 0.04), (0, 0.06), (0.1, 0), (0.15, -0.15)])
def test_contours_of_one_slice_are_one_plane_however_they_were_rounded(
    outline: float, hole: float, slab_mm: float | None, turned_grid: bool
) -> None:
    """Planes up to 6 % of the spacing off lie on the slice; all contours of it combine by XOR, and none takes half of the slab."""
    rings = tuple(p for z in (3, 6, 9) for p in (square(z + outline, 15), square(z + hole, 5)))
    ring = Contours(rings, slices=slices_along(np.arange(5) * 3.0))
    axes = turned((0, 0, 0) if not turned_grid else (0, 20, 0)).T[::-1]
    grid = Geometry.regular((22, 44, 44), (1, 1, 1), np.array([0, 0, 6]) - axes.T @ [10.5, 21.5, 21.5], axes)
    assert rasterise(ring, grid, slab_mm=slab_mm).volume_cc == pytest.approx(3 * 3 * (30**2 - 10**2) / 1000, rel=5e-3)


SIX_SLICES = Geometry.regular((6, 40, 40), (3, 1, 1), (-19.5, -19.5, 0))


def ring_of(half: float, count: int, z: float) -> Floats:
    """A circle of ``count`` points."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([half * np.cos(angle), half * np.sin(angle), np.full(count, z)], axis=1)


@pytest.mark.parametrize("slab_mm", [None, 3.0])
@pytest.mark.parametrize("again", [square(0.15, 15), square(0.15, 15, x=1), square(0.15, 14.6), square(0.06, 15)[[2, 1, 0, 3]]])
def test_outlines_drawn_twice_on_one_slice_do_not_erase_each_other(again: Floats, slab_mm: float | None) -> None:
    """A square of 30 mm on six slices, and the same again 0.06 to 0.15 mm beside the slice: as it was, moved by 1 mm, 0.4 mm smaller."""
    up = [np.array([0, 0, 3 * k]) for k in range(6)]
    twice = Contours(tuple(p + z for z in up for p in (square(0, 15), again)), slices=slices_along(np.arange(6) * 3.0))
    filled = fill(twice, SIX_SLICES, slab_mm=slab_mm).array.sum(axis=(1, 2))
    assert (filled >= 29 * 30).all()
    assert (filled <= 31 * 30).all()


def test_the_outline_drawn_twice_round_one_hole() -> None:
    slices = slices_along(np.arange(6) * 3.0)
    rings = Contours(tuple(square(3 * k + z, half) for k in range(6) for z in (0, 0.15) for half in (15, 5)), slices=slices)
    assert rasterise(rings, SIX_SLICES).volume_cc == pytest.approx(6 * 3 * (30**2 - 10**2) / 1000, rel=1e-3)


@pytest.mark.parametrize(
    ("one", "other", "area_mm2"),
    [
        (square(0, 15), ring_of(8, 300, 0.1), 30**2 - np.pi * 8**2),  # a hole
        (ring_of(8, 300, 0), square(0.1, 15), 30**2 - np.pi * 8**2),  # the outline round it
        (square(0, 5, x=-8), square(0.1, 5, x=8), 2 * 10**2),  # beside each other
        (square(0, 5, x=-5), square(0.1, 5, x=5), 2 * 10**2),  # with an edge in common
        (square(0, 15), square(0.1, 12, x=3), 30**2 - 24**2),  # a hole that touches the outline
        (square(0, 15), square(0.1, 13), 30**2 - 26**2),  # a wall of 2 mm
        (square(0, 2), square(0.1, 1), 4**2 - 2**2),  # a small one
    ],
)
def test_what_lies_within_or_beside_on_one_slice_is_one_plane(one: Floats, other: Floats, area_mm2: float) -> None:
    up = [np.array([0, 0, 3 * k]) for k in range(6)]
    pairs = Contours(tuple(p + z for z in up for p in (one, other)), slices=slices_along(np.arange(6) * 3.0))
    assert rasterise(pairs, SIX_SLICES).volume_cc == pytest.approx(6 * 3 * area_mm2 / 1000, rel=5e-3)


def test_outlines_drawn_twice_on_every_second_slice_bridge_those_between() -> None:
    assert thickness([0, 0.15, 6, 6.15, 12, 12.15], EVERY_3) == [(-3, 15)]


def test_far_contours_are_bridged_only_where_they_lie_over_each_other() -> None:
    """On every second slice of 6 mm: over each other with 6 of 10 mm; with an edge in common; the last two over each other."""
    grid = Geometry.regular((240, 1, 80), (0.25, 1, 1), (-9.5, 0, -19.875))
    stack = slices_along(np.arange(-24, 66, 6.0))

    def filled_mm(shift: list[float]) -> float:
        drawn = Contours(tuple(square(12.0 * n, x=x) for n, x in enumerate(shift)), slices=stack)
        return float(fill(drawn, grid).array.any(axis=(1, 2)).sum() * 0.25)

    assert filled_mm([0, 4, 8]) == pytest.approx(36)
    assert filled_mm([0, 10, 20]) == pytest.approx(3 * 6)
    assert filled_mm([0, 20, 20]) == pytest.approx(6 + 24)


def test_slices_between_contours_beside_each_other_stay_empty() -> None:
    """Slices of 3 mm, squares of 10 mm on two of them 6 mm apart: over each other by 1 mm they are one thing of 12 mm, beside each other
    with an edge in common two of 3 mm."""
    grid = Geometry.regular((240, 1, 80), (0.25, 1, 1), (-9.5, 0, -19.875))
    for x, filled_mm in ((9, 12), (10, 6)):
        drawn = Contours((square(0), square(6, x=x)), slices=slices_along(np.array(EVERY_3)))
        assert fill(drawn, grid).array.any(axis=(1, 2)).sum() * 0.25 == pytest.approx(filled_mm)


def test_a_huge_contour_on_an_oblique_grid_takes_no_huge_memory() -> None:
    rotation = turned((10, 25, -5))
    grid = Geometry.regular((6, 6, 6), (1, 1, 1), rotation @ [-3, -3, -3], rotation.T[::-1])
    huge = Contours(tuple(square(z, 5e4) for z in PLANES[30:50]))
    assert (rasterise(huge, grid).array > 0.999).all()


def test_polygons_that_are_not_parallel_are_refused() -> None:
    with pytest.raises(StructureError, match="another plane"):
        rasterise(Contours((square(0, 20), square(0, 5)[:, [2, 0, 1]])), cube_of(8))


def test_nothing_makes_nothing() -> None:
    assert not rasterise(Contours(), cube_of(4)).array.any()
    assert len(trace(Volume(np.zeros((3, 4, 5), bool), Geometry.regular((3, 4, 5))))) == 0


# ---- voxels to contours


@settings(max_examples=30, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))), st.sampled_from(["xor", "keyhole"]))
def test_any_mask_comes_back_voxel_for_voxel(voxels: NDArray[np.bool_], holes: str) -> None:
    grid = Geometry.regular(voxels.shape, (3, 1.3, 0.9), (10, -20, 5.5))
    contours = trace(Volume(voxels, grid), holes=holes)  # type: ignore[arg-type]
    np.testing.assert_array_equal(fill(contours, grid).array, voxels)
    assert all(len(polygon) >= 3 for polygon in contours)


@pytest.mark.parametrize("gone", [[1], [2], [1, 3], [1, 2], [1, 2, 4]])
@pytest.mark.parametrize("mirrored", [False, True])
def test_empty_slices_stay_empty(gone: list[int], mirrored: bool) -> None:
    """What lies between two contours is theirs only where no slice without contours is known to lie there."""
    voxels = np.ones((6, 3, 3), bool)
    voxels[gone] = False
    axes = np.eye(3)[::-1] * ([[-1.0], [1.0], [1.0]] if mirrored else 1.0)
    grid = Geometry.regular(voxels.shape, (3, 1.3, 0.9), (10, -20, 5.5), axes)
    np.testing.assert_array_equal(fill(trace(Volume(voxels, grid)), grid).array, voxels)


@pytest.mark.parametrize("held", [[5, 7, 9], [5, 8, 11], [2, 4, 6, 8, 10, 12], [3], [0, 13]])
def test_a_mask_on_every_second_or_third_slice_stays_there(held: list[int]) -> None:
    voxels = np.zeros((14, 7, 7), bool)
    voxels[held, 1:6, 1:6] = True
    grid = Geometry.regular(voxels.shape, (3, 1.3, 0.9), (10, -20, 5.5))
    back = fill(trace(Volume(voxels, grid)), grid)
    assert back.array.sum() == 25 * len(held)
    np.testing.assert_array_equal(back.array, voxels)


def test_every_pattern_of_4_by_4_comes_back() -> None:
    patterns = ((np.arange(65536)[:, None] >> np.arange(16)) & 1).astype(bool).reshape(256, 256, 4, 4)
    apart = np.zeros((256, 256, 5, 5), bool)
    apart[..., :4, :4] = patterns
    sheets = apart.reshape(64, 4, 256, 5, 5).transpose(0, 1, 3, 2, 4).reshape(64, 20, 1280)
    grid = Geometry.regular(sheets.shape)
    back = rasterise(trace(Volume(sheets, grid)), grid).array
    assert back[sheets].min() >= 0.54
    assert back[~sheets].max() <= 0.46


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_each_slice_has_the_area_of_its_pixels(density: float) -> None:
    voxels = np.random.default_rng(3).random((3, 40, 50)) < density
    grid = Geometry.regular(voxels.shape, (3, 1.5, 0.8))
    contours = trace(Volume(voxels, grid))
    for k in range(3):
        signed = sum(np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0)[2] / 2 for p in contours if p[0, 2] == 3 * k)
        assert abs(signed) == pytest.approx(voxels[k].sum() * 1.5 * 0.8, rel=1e-9)


def test_straight_edges_have_no_points_between() -> None:
    voxels = np.zeros((1, 30, 30), bool)
    voxels[0, 5:25, 5:25] = True
    (polygon,) = trace(Volume(voxels, Geometry.regular(voxels.shape)))
    assert len(polygon) == 8  # a square whose corners are cut once each


def test_holes_are_polygons_of_their_own_or_keyholes() -> None:
    voxels = np.zeros((1, 20, 20), bool)
    voxels[0, 2:18, 2:18] = True
    voxels[0, 4:6, 4:6] = voxels[0, 4:6, 10:12] = voxels[0, 12, 12] = False
    voxels[0, 9:17, 3:9] = False
    voxels[0, 11:14, 5:7] = True  # an island in a hole
    mask = Volume(voxels, Geometry.regular(voxels.shape))
    assert len(trace(mask)) == 6
    assert len(trace(mask, holes="keyhole")) == 2


@pytest.mark.parametrize("radius", [40, 20, 10, 6, 4, 3])
@pytest.mark.parametrize("kind", ["even", "uneven", "oblique", "tilted", "tilted on an axial grid"])
def test_volume_of_spheres(kind: str, radius: float) -> None:
    reach = radius + 6.0
    even = np.arange(-np.ceil(reach), reach + 1)
    uneven = np.concatenate([np.arange(-np.ceil(reach), 0.0), np.arange(0.0, reach + 3, 3)])
    rotation = turned((20, -15, 30)) if kind == "oblique" else np.eye(3)
    tilt = turned((18, 0, 0)) if kind.startswith("tilted") else rotation
    slices = slices_along(even if kind == "even" else uneven, tilt, 18 if kind.startswith("tilted") else 0, size=int(2 * reach + 30))
    grid_axes = rotation if kind.endswith("axial grid") or kind == "oblique" else tilt
    size = int(2 * reach)
    grid = Geometry.regular((size,) * 3, origin_mm=grid_axes @ np.full(3, -(size - 1) / 2 + 0.25), axes=grid_axes.T[::-1])
    if kind != "tilted on an axial grid":  # the grid's own planes hold the slices
        grid = Geometry.regular(
            (size,) * 3, origin_mm=grid_axes @ np.array([0.3, 0.1, 0.0]) + grid_axes @ np.full(3, -size / 2.0), axes=grid_axes.T[::-1]
        )
    mask = Sphere((0.4, -0.3, 0.2), radius).mask(grid)
    contours = trace(mask, slices=slices)
    limit = 0.01 if radius == 3 else 0.005
    assert volume_mm3(contours, slices) == pytest.approx(mask.volume_cc * 1000, rel=limit)
    offsets = np.concatenate(contours.polygons) @ slices.normal
    assert np.abs(offsets[:, None] - slices.offsets_mm[None]).min(axis=1).max() < 1e-9


def test_uneven_slices_come_back_on_their_own_grid() -> None:
    offsets = np.array(UNEVEN)
    slices = slices_along(offsets)
    grid = Geometry.regular((76, 60, 60), (1, 1, 1), (-29.5, -29.5, -18))
    drawn = fill(Contours(tuple(p for z in offsets for p in Sphere((0, 0, 4), 15).contours_at(z)), slices=slices), grid)
    again = trace(drawn, slices=slices)
    np.testing.assert_array_equal(fill(again, grid).array, drawn.array)
    assert {p[0, 2] for p in again} <= set(offsets)


def test_rotated_storage_orders_trace_the_same() -> None:
    grid = cube_of(24)
    mask = Sphere((1, 2, 3), 7).mask(grid)
    other = mask.to(grid.reorient([[1, 0, 0], [0, 0, 1], [0, -1, 0]]))
    slices = slices_along(np.arange(24) - 11.5, size=24)
    assert volume_mm3(trace(other, slices=slices), slices) == pytest.approx(mask.volume_cc * 1000, rel=1e-9)
    np.testing.assert_array_equal(fill(trace(other, slices=slices), grid).array, mask.array)


def test_channels_are_refused() -> None:
    with pytest.raises(GeometryError, match="three axes"):
        trace(Volume(np.zeros((2, 3, 4, 5), bool), Geometry.regular((3, 4, 5))))


def test_slices_in_one_plane_are_refused() -> None:
    with pytest.raises(GeometryError, match="share the plane"):
        slices_along(np.array([0.0, 1.0, 1.0]))
