"""Grids: exact conversions, no half-voxel shift, valid or refused."""

from __future__ import annotations

import pickle
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.errors import GeometryError

few = settings(max_examples=30, deadline=None)
sizes = st.tuples(*[st.integers(1, 9)] * 3)
steps = st.tuples(*[st.floats(0.2, 6)] * 3)
places = st.tuples(*[st.floats(-500, 500)] * 3)


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """A rotation from three Euler angles (radians)."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = (c, -s, s, c)
        out = turn @ out
    return out


turns = st.tuples(*[st.floats(-3.2, 3.2)] * 3).map(rotation)
grids = st.builds(Geometry.regular, sizes, steps, places, turns)
SIGNED_AXES = [np.eye(3)[list(p)] * np.array(s)[:, None] for p in permutations(range(3)) for s in product((1, -1), repeat=3)]


def test_default_axes_run_to_superior_posterior_left() -> None:
    grid = Geometry.regular((4, 5, 6), (3, 2, 1), (10, 20, 30))
    assert grid.points((0, 0, 0)).tolist() == [10, 20, 30]
    assert grid.points((1, 0, 0)).tolist() == [10, 20, 33]
    assert grid.points((0, 1, 0)).tolist() == [10, 22, 30]
    assert grid.points((0, 0, 1)).tolist() == [11, 20, 30]
    assert grid.spacing_mm == (3, 2, 1)
    assert grid.voxel_mm3 == 6
    assert grid.is_axial


@few
@given(grids)
def test_points_and_voxels_are_inverse(grid: Geometry) -> None:
    voxels = np.random.default_rng(0).uniform(-20, 20, (5, 4, 3))
    assert np.abs(grid.voxels(grid.points(voxels)) - voxels).max() < 1e-7


@few
@given(grids, st.tuples(*[st.integers(-3, 3)] * 3), st.tuples(*[st.integers(1, 6)] * 3))
def test_crop_keeps_every_centre_in_place(grid: Geometry, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    part = grid.crop(start, [a + n for a, n in zip(start, size, strict=True)])
    assert part.shape == size
    here = np.array([0, 1, 0])
    assert np.allclose(part.points(here), grid.points(here + start), atol=1e-9)
    assert np.allclose(part.axes, grid.axes)


@few
@given(grids, st.tuples(*[st.integers(0, 3)] * 6))
def test_pad_then_crop_is_the_same_grid(grid: Geometry, widths: tuple[int, ...]) -> None:
    before, after = widths[:3], widths[3:]
    padded = grid.pad(before, after)
    assert padded.crop(before, [b + n for b, n in zip(before, grid.shape, strict=True)]).same_grid(grid, 1e-6)


@few
@given(grids, steps)
def test_resample_keeps_the_middle_and_covers_the_box(grid: Geometry, spacing: tuple[float, float, float]) -> None:
    new = grid.resample(spacing)
    assert np.allclose(new.centre_mm, grid.centre_mm, atol=1e-9)
    assert np.allclose(new.spacing_mm, spacing)
    before = np.array(grid.shape) * grid.spacing_mm
    after = np.array(new.shape) * spacing
    assert (after >= before - 1e-5 * np.array(spacing)).all()
    assert (after < before + np.array(spacing)).all()


@few
@given(grids, st.sampled_from(SIGNED_AXES))
def test_reorient_turns_axes_and_keeps_the_voxels(grid: Geometry, axes: np.ndarray) -> None:
    new = grid.reorient(axes)
    assert sorted(new.shape) == sorted(grid.shape)
    assert np.trace(new.axes @ axes.T) > 0
    ends = np.sort(np.round(grid.corners_mm, 6).view([("", float)] * 3).ravel())
    assert np.allclose(
        np.sort(np.round(new.corners_mm, 6).view([("", float)] * 3).ravel()).view(float).reshape(-1, 3),
        ends.view(float).reshape(-1, 3),
        atol=1e-5,
    )


def test_reorient_knows_all_forty_eight_orientations() -> None:
    for axes in SIGNED_AXES:
        grid = Geometry.regular((3, 4, 5), (3, 2, 1), (1, 2, 3), axes)
        home = grid.reorient()
        assert np.array_equal(home.axes, np.eye(3)[::-1])
        assert home.reorient(axes).same_grid(grid, 1e-9)


def test_is_axial_sees_obliqueness() -> None:
    assert Geometry.regular((3, 3, 3), axes=SIGNED_AXES[0]).is_axial is False  # k runs along x
    assert not Geometry.regular((3, 3, 3), axes=np.eye(3)[::-1] @ rotation((0.01, 0, 0))).is_axial


def test_equality_hash_and_tolerance() -> None:
    one, aside = Geometry.regular((3, 3, 3)), Geometry.regular((3, 3, 3), origin_mm=(0, 0.051, 0))
    same, near = Geometry.regular((3, 3, 3)), Geometry.regular((3, 3, 3), origin_mm=(0, 0, 5e-4))
    assert one == same
    assert hash(one) == hash(same)
    assert one != near
    assert one.same_grid(near)
    assert not one.same_grid(near, 1e-4)
    assert not one.same_grid(aside)
    assert one.same_grid(Geometry.regular((3, 3, 3), origin_mm=(0, 0.049, 0)))
    assert not Geometry.regular((3, 3, 3), (0.2, 1, 1)).same_grid(Geometry.regular((3, 3, 3), (0.2, 1, 1), (0, 0.021, 0)))  # a tenth of 0.2
    assert not one.same_grid(Geometry.regular((3, 3, 4)))
    assert one != "grid"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Geometry.regular((20, 64, 63), (3, 1, 1)), "20x64x63 voxels (k, j, i) instead of 20x64x64"),
        (
            Geometry.regular((20, 64, 64), (3, 1, 1), (0, 0.0512, 7)),
            "voxels lie up to 7 mm apart, at most 0.05 mm count as rounding; the first at (0, 0.0512, 7) mm instead of (0, 0, 0)",
        ),
        (
            Geometry.regular((20, 64, 64), (3, 1, 1.000001 + 1e-3)),
            "voxels lie up to 0.06306 mm apart, at most 0.05 mm count as rounding; of 3 x 1 x 1.001 mm instead of 3 x 1 x 1",
        ),
        (
            Geometry.regular((20, 64, 64), (3, 1, 1), axes=np.eye(3)[::-1] @ rotation((0, 0, np.pi / 180))),
            "voxels lie up to 1.555 mm apart, at most 0.05 mm count as rounding; turned by 1 degrees",
        ),
        (
            Geometry.regular((20, 64, 64), (3, 1, 1), (0, 0, 57), np.eye(3)[::-1] * [[-1], [1], [1]]),
            "the same voxels, stored in another order",
        ),
        (Geometry.regular((20, 64, 64), (3, 1, 1), (3e-5, 0, 0)), ""),
    ],
    ids=["size", "place", "step", "turned", "order", "none"],
)
def test_what_differs_is_said_in_both_values(other: Geometry, says: str) -> None:
    """By pencil: the corner (63, 63) mm turned by 1 degree moves 63 sqrt 2 x 2 sin 0.5 degrees = 1.555 mm."""
    assert Geometry.regular((20, 64, 64), (3, 1, 1)).difference(other) == says


def test_voxels_of_a_grid_that_a_file_has_rounded_are_put_in_place() -> None:
    grid = Geometry.regular((20, 64, 64), (3, 1, 1))
    part = Geometry.regular((4, 10, 10), (3, 1, 1), (7.03, 5, 2.98))
    assert grid.in_place(part) == grid.crop((1, 5, 7), (5, 15, 17))
    assert grid.in_place(part.reorient(np.eye(3))) == grid.crop((1, 5, 7), (5, 15, 17)).reorient(np.eye(3))
    assert grid.in_place(Geometry.regular((4, 10, 10), (3, 1, 1), (7.06, 5, 3))) is None
    assert grid.in_place(Geometry.regular((4, 10, 10), (3, 1, 0.99), (7, 5, 3))) is None
    assert grid.in_place(Geometry.regular((4, 10, 10), (6, 1, 1), (7, 5, 3))) is None
    assert grid.in_place(Geometry.regular((4, 10, 10), (3, 1, 0.4), (7, 5, 3))) is None


def test_values_that_differ_late_are_printed_so_far() -> None:
    far = Geometry.regular((2, 2, 2), origin_mm=(1234.567, 0, 0))
    near = Geometry.regular((2, 2, 2), origin_mm=(1234.627, 0, 0))
    assert far.difference(near).endswith("the first at (1234.63, 0, 0) mm instead of (1234.57, 0, 0)")


def test_pickles_and_prints() -> None:
    grid = Geometry.regular((2, 3, 4), (3, 1, 1), (-1.25, 0, 7))
    assert pickle.loads(pickle.dumps(grid)) == grid
    assert str(grid) == "2x3x4 voxels (k, j, i) of 3 x 1 x 1 mm at (-1.25, 0.0, 7.0)"


def test_affine_cannot_be_changed_afterwards() -> None:
    mine = np.eye(4)
    grid = Geometry((2, 2, 2), mine)
    mine[0, 0] = 5
    assert grid.spacing_mm == (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(pickle.dumps(grid)).affine[0, 0] = 2


@pytest.mark.parametrize(
    ("shape", "affine", "says"),
    [
        ((0, 2, 2), np.eye(4), "three positive sizes"),
        ((2, 2), np.eye(4), "three positive sizes"),
        ((2, 2, 2.5), np.eye(4), "three positive sizes"),
        (("a", 2, 2), np.eye(4), "three positive sizes"),
        ((2, 2, np.nan), np.eye(4), "three positive sizes"),
        ((2, 2, 2), np.eye(3), "finite 4x4"),
        ((2, 2, 2), np.full((4, 4), np.nan), "finite 4x4"),
        ((2, 2, 2), "affine", "finite 4x4"),
        ((2, 2, 2), np.diag([1, 1, 0, 1]), "longer than nothing"),
        ((2, 2, 2), np.diag([np.inf, 1, 1, 1]), "finite"),
        ((2, 2, 2), np.diag([1, 1, 1, 2]), "last row"),
        ((2, 2, 2), np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "right angles"),
    ],
)
def test_refuses_what_is_no_grid(shape: object, affine: object, says: str) -> None:
    with pytest.raises(GeometryError, match=says):
        Geometry(shape, affine)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1), (np.nan, 1, 1), (np.inf, 1, 1), (-1, 1, 1), ("a", 1, 1), (1e-12, 1, 1)])
def test_resample_refuses_impossible_spacing(spacing: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError):
        Geometry.regular((3, 3, 3)).resample(spacing)


def test_regular_refuses_what_is_no_grid() -> None:
    for wrong in ({"spacing_mm": (1, 1)}, {"origin_mm": (0, 0)}, {"axes": np.eye(2)}, {"spacing_mm": (1, -1, 1)}):
        with pytest.raises(GeometryError):
            Geometry.regular((3, 3, 3), **wrong)


def test_crop_refuses_an_empty_grid() -> None:
    with pytest.raises(GeometryError):
        Geometry.regular((3, 3, 3)).crop((2, 0, 0), (2, 3, 3))
    with pytest.raises(GeometryError):
        Geometry.regular((3, 3, 3)).crop((0, 0), (3, 3))


def test_the_part_of_a_grid_around_points_by_pencil():
    """Voxels of 2 mm: points from 3 to 7 mm lie between voxels 1 and 4 of each axis; those outside leave the nearest voxel."""
    grid = Geometry.regular((10, 10, 10), (2.0, 2.0, 2.0))
    assert grid.around([[3, 3, 3], [7, 7, 7]]).same_grid(grid.crop((1, 1, 1), (5, 5, 5)))
    assert grid.around([[-50, 0, 0], [90, 18, 18]]).same_grid(grid)
    assert grid.around([[90, 90, 90]]).same_grid(grid.crop((9, 9, 9), (10, 10, 10)))
