"""Deformations: x -> x + u(x) from fixed to moving, exact on affine and analytic fields on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.adapt.deformation import Deformation, rigid_fit
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError
from oncontour.phantom import Sphere
from tests.core.test_geometry import rotation

few = settings(max_examples=25, deadline=None)
GRID = Geometry.regular((9, 10, 11), (3.0, 2.0, 1.5), (-7.0, 12.0, -100.0))


def centres(grid: Geometry) -> np.ndarray:
    return grid.points(np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1))


def field(grid: Geometry, function: object, fixed: str = "daily", moving: str = "planning") -> Deformation:
    """A deformation whose u is ``function`` of LPS points (..., 3)."""
    u = function(centres(grid))  # type: ignore[operator]
    return Deformation(Volume(np.moveaxis(u, -1, 0).astype(np.float64), grid), fixed, moving)


def shift(mm: tuple[float, float, float], grid: Geometry = GRID) -> Deformation:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return Deformation.from_matrix(matrix, grid, "daily", "planning")


grids = st.builds(
    lambda axes, step, origin: Geometry.regular((8, 9, 10), step, origin, axes),
    st.tuples(*[st.floats(-3.2, 3.2)] * 3).map(rotation),
    st.tuples(*[st.floats(0.8, 4)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
)
small = st.tuples(*[st.floats(-0.25, 0.25)] * 9).map(lambda v: np.eye(3) + 0.5 * np.reshape(v, (3, 3)))
shifts = st.tuples(*[st.floats(-20, 20)] * 3)


def affine(linear: np.ndarray, move: tuple[float, ...]) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = linear, move
    return out


# ---- which way


turned = st.tuples(*[st.floats(-3.2, 3.2)] * 3).map(rotation)


@few
@given(turned, st.integers(0, 2**31), st.floats(0, 12))
def test_that_masks_are_looked_for_in_a_part_alone_changes_nothing(axes: np.ndarray, seed: int, rough_mm: float) -> None:
    """Any field, rough and folding ones too, on a grid that goes on beyond the field's: as the coverage of the whole grid has it."""
    rng = np.random.default_rng(seed)
    u = Deformation(Volume(rng.normal(0, rough_mm, (3, *GRID.shape)), GRID), "daily", "planning")
    moving = Geometry.regular((8, 9, 10), (2.5, 2.0, 3.0), GRID.centre_mm - 10, axes)
    low = rng.integers(0, 6, 3)
    inside = np.zeros(moving.shape, bool)
    inside[tuple(slice(a, a + 3) for a in low)] = True
    mask = Volume(inside, moving)
    target = GRID.pad((2, 3, 1), (1, 0, 4)).resample((2.0, 2.5, 2.0))
    coverage = u.warp(Volume(inside.astype(np.float64), moving), target).array
    assert np.array_equal(u.warp_masks({"m": mask}, target)["m"].array, coverage >= 0.5 - 1e-6)


def test_a_shift_by_pencil() -> None:
    """What lies at x of the daily image lies at x + 3 mm in the planning image: its contents come 3 mm towards smaller x."""
    spot = np.zeros(GRID.shape, np.float32)
    spot[4, 5, 7] = 1
    warped = shift((3.0, 0, 0)).warp(Volume(spot, GRID))  # 3 mm are two voxels of 1.5 mm along i
    assert np.argwhere(warped.array > 1e-6).tolist() == [[4, 5, 5]]
    assert warped.array[4, 5, 5] == pytest.approx(1)
    at_fixed, at_moving = GRID.points((4, 5, 5)), GRID.points((4, 5, 7))
    assert np.allclose(shift((3.0, 0, 0)).to_moving(at_fixed), at_moving)
    assert np.allclose(shift((3.0, 0, 0)).to_fixed(at_moving), at_fixed)


def test_image_mask_point_and_contour_agree_on_the_way() -> None:
    grid = Geometry.regular((24, 30, 30), (2.0, 1.5, 1.5), (-20, -20, -22))
    u = field(grid, lambda p: np.stack([4 + 0.05 * p[..., 1], 2 - 0.04 * p[..., 2], 0.03 * p[..., 0] - 1], axis=-1))
    ball = Sphere((2, 1, 0), 8).mask(grid)
    centre = u.to_fixed((2, 1, 0))
    for warped in (u.warp(ball).array, u.warp_masks({"ball": ball})["ball"].array.astype(float)):
        weight = warped[..., None] / warped.sum()
        assert np.linalg.norm((weight * centres(grid)).sum(axis=(0, 1, 2)) - centre) < 0.4  # voxels of 2 mm
    ring = np.array([[2 + 8 * np.cos(a), 1 + 8 * np.sin(a), 0] for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)])
    carried = u.carry(Contours((ring,), colour=(1, 2, 3)))
    assert carried.colour == (1, 2, 3)
    assert np.allclose(u.to_moving(carried.polygons[0]), ring, atol=0.01)
    assert np.linalg.norm(carried.polygons[0].mean(axis=0) - centre) < 0.05


# ---- exact


@few
@given(grids, small, shifts)
def test_affine_maps_are_exact(grid: Geometry, linear: np.ndarray, move: tuple[float, ...]) -> None:
    middle = grid.centre_mm
    matrix = affine(linear, tuple(middle - linear @ middle + move))
    u = Deformation.from_matrix(matrix, grid, "daily", "planning")
    points = grid.points(np.random.default_rng(0).uniform(0, np.array(grid.shape) - 1, (50, 3)))
    expected = points @ linear.T + matrix[:3, 3]
    assert np.allclose(u.to_moving(points), expected, atol=1e-9)
    assert np.allclose(u.to_fixed(expected), points, atol=1e-6)
    assert np.allclose(u.jacobian().array, np.linalg.det(linear), atol=1e-9)
    assert np.allclose(u.affine_part, matrix, atol=1e-6)
    assert u.folding_percent() == 0


@few
@given(grids, grids, small, shifts)
def test_composition_of_affine_maps_is_their_product(one: Geometry, other: Geometry, linear: np.ndarray, move: tuple[float, ...]) -> None:
    a, b = affine(linear, move), affine(np.eye(3), move)
    first = Deformation.from_matrix(b, one, "daily", "planning")
    wide = Geometry.regular((3, 3, 3), (900, 900, 900), (-900, -900, -900))
    second = Deformation.from_matrix(a, wide, "planning", "first")
    points = one.points(np.random.default_rng(1).uniform(0, 7, (20, 3)))
    both = first.then(second)
    assert (both.fixed, both.moving) == ("daily", "first")
    assert np.allclose(both.to_moving(points), points @ (a @ b)[:3, :3].T + (a @ b)[:3, 3], atol=1e-6)


@few
@given(grids, small, shifts)
def test_a_matrix_after_a_map_is_exact_however_far_it_leads(grid: Geometry, linear: np.ndarray, move: tuple[float, ...]) -> None:
    first = shift((400.0, -300.0, 0.0), grid)  # far beyond the grid
    matrix = affine(linear, move)
    found = first.then_matrix(matrix, "aligned", grid)
    points = centres(grid)
    assert np.allclose(found.to_moving(points), first.to_moving(points) @ linear.T + move, atol=1e-6)
    assert (found.fixed, found.moving) == ("daily", "aligned")


@few
@given(grids, st.floats(-0.004, 0.004))
def test_quadratic_field_has_its_jacobian_and_inverse(grid: Geometry, bend: float) -> None:
    """u = b (x - c)^2 along x: det = 1 + 2 b (x - c), exact in central differences away from the edges, on any axes."""
    middle = grid.centre_mm
    u = field(grid, lambda p: np.stack([bend * (p[..., 0] - middle[0]) ** 2, 0 * p[..., 0], 0 * p[..., 0]], axis=-1))
    expected = 1 + 2 * bend * (centres(grid)[..., 0] - middle[0])
    assert np.allclose(u.jacobian().array[1:-1, 1:-1, 1:-1], expected[1:-1, 1:-1, 1:-1], atol=1e-9)
    inverse = u.inverse(grid)
    assert inverse.deformation.fixed == "planning"
    assert inverse.worst_error_mm < 0.01
    assert inverse.unsolved_percent == 0
    back = inverse.deformation.inconsistency_mm(u).array  # v is interpolated nowhere at its own voxels, u is
    assert np.nanmax(back) < 0.02


def test_warp_of_a_linear_image_under_an_affine_map_is_exact() -> None:
    moving = Geometry.regular((40, 40, 40), (2.0, 2.0, 2.0), (-40, -40, -40), rotation((0.1, 0.3, 0.2)))
    moving = Geometry(moving.shape, np.block([[moving.affine[:3, :3], (-moving.affine[:3, :3] @ np.full(3, 19.5))[:, None]], [0, 0, 0, 1]]))
    slope = np.array([1.7, -0.6, 2.3])
    image = Volume(centres(moving) @ slope, moving)
    fixed = Geometry.regular((9, 8, 7), (1.5, 2.5, 2.0), (-6, -9, -5))
    matrix = affine(rotation((0.1, 0, 0.15)) * 1.1, (3, -2, 1))
    expected = (centres(fixed) @ matrix[:3, :3].T + matrix[:3, 3]) @ slope
    coarse = Geometry.regular((4, 4, 4), (6, 8, 6), (-8, -12, -8))
    for grid in (fixed, coarse):  # the field may be coarser than the grid that is asked for
        warped = Deformation.from_matrix(matrix, grid, "daily", "planning").warp(image, fixed)
        assert warped.geometry == fixed
        assert np.allclose(warped.array, expected, atol=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_rough_field_is_read_between_its_voxels_as_at_any_point(order: tuple[int, int, int]) -> None:
    """Also on grids whose axes run along the field's in another order and way, and beyond its edge."""
    rough = Deformation(Volume(np.random.default_rng(3).normal(0, 2, (3, *GRID.shape)), GRID), "daily", "planning")
    axes = np.asarray(GRID.axes)[list(order)] * np.array([[-1], [1], [-1]])
    start = GRID.centre_mm - 14 * axes.sum(axis=0)
    grid = Geometry.regular((14, 20, 33), (2.1, 1.3, 0.9), start, axes)
    moving = Geometry.regular((3, 3, 3), (90.0, 90.0, 90.0), GRID.centre_mm - 90)
    slope = np.array([1.7, -0.6, 2.3])
    warped = rough.warp(Volume(centres(moving) @ slope, moving), grid)
    assert np.allclose(warped.array, rough.to_moving(centres(grid)) @ slope, atol=1e-9)


@pytest.mark.parametrize("slices", [1, 2, 8, 9, 17, 21])
def test_determinants_are_those_of_central_differences_in_every_slice(slices: int) -> None:
    grid = Geometry.regular((slices, 5, 6), (3.0, 2.0, 1.5), (0, 0, 0), rotation((0.4, -0.2, 0.3)))
    u = np.random.default_rng(slices).normal(0, 1, (3, *grid.shape))
    slope = np.zeros((*grid.shape, 3, 3)) + np.eye(3)
    for axis in range(3):
        if grid.shape[axis] > 1:
            slope += np.moveaxis(np.gradient(u, axis=axis + 1), 0, -1)[..., :, None] * grid.inverse[axis, :3]
    found = Deformation(Volume(u, grid), "daily", "planning").jacobian().array
    assert np.allclose(found, np.linalg.det(slope), atol=1e-9)


def test_beyond_the_moving_image_stands_fill() -> None:
    image = Volume(np.full(GRID.shape, 5.0, np.float32), GRID)
    warped = shift((3.0, 0, 0)).warp(image, fill=-1024)
    assert (warped.array[..., -2:] == -1024).all()
    assert (warped.array[..., :-2] == 5).all()


def test_identity_changes_nothing() -> None:
    u = Deformation.from_matrix(np.eye(4), GRID, "daily", "planning")
    image = Volume(np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32), GRID)
    mask = Volume(image.array > 0.5, GRID)
    assert np.allclose(u.warp(image).array, image.array, atol=1e-6)
    assert np.array_equal(u.warp_masks({"a": mask})["a"].array, mask.array)
    assert np.allclose(u.warp(Volume(np.stack([image.array, 2 * image.array]), GRID)).array[1], 2 * image.array, atol=1e-6)


def test_masks_are_warped_each_for_itself() -> None:
    """Halfway between label 0 and label 2 there is no label 1: two touching masks and an empty one keep their names and their borders."""
    left, right = np.zeros((2, *GRID.shape), bool)
    left[:, :, :5], right[:, :, 5:] = True, True
    masks = {"left": Volume(left, GRID), "right": Volume(right, GRID), "none": Volume(np.zeros(GRID.shape, bool), GRID)}
    warped = shift((0.6, 0, 0)).warp_masks(masks)  # less than half a voxel of 1.5 mm
    assert list(warped) == ["left", "right", "none"]
    assert np.array_equal(warped["left"].array, left)
    assert np.array_equal(warped["right"].array[..., :-1], right[..., :-1])
    assert not warped["none"].array.any()
    assert np.array_equal(shift((1.5, 0, 0)).warp_masks(masks)["left"].array[..., :-1], left[..., 1:])


@few
@given(st.integers(0, 1000), shifts)
def test_warped_masks_are_warped_coverage_cut_at_one_half(seed: int, move: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    mask = Volume(rng.random(GRID.shape) > 0.6, GRID)
    u = shift(tuple(0.3 * m for m in move))
    coverage = u.warp(mask).array
    clear = np.abs(coverage - 0.5) > 1e-4
    assert np.array_equal(u.warp_masks({"m": mask})["m"].array[clear], (coverage >= 0.5)[clear])


# ---- inverse, folding, consistency


def test_a_large_smooth_field_is_inverted() -> None:
    grid = Geometry.regular((20, 24, 24), (3.0, 2.5, 2.5), (-30, -30, -30))
    u = field(grid, lambda p: np.stack([12 * np.sin(p[..., 1] / 14), 9 * np.sin(p[..., 2] / 12), 35 + 6 * np.cos(p[..., 0] / 11)], axis=-1))
    there = Geometry.regular((20, 24, 24), (3.0, 2.5, 2.5), (-30, -30, 5))
    inverse = u.inverse(there)
    assert inverse.unsolved_percent == 0
    assert inverse.worst_error_mm <= 0.01
    assert 40 < inverse.covered_percent < 100
    apart = u.inconsistency_mm(inverse.deformation).array
    assert np.nanmean(apart) < 0.2  # v is interpolated between its voxels: its curvature there is what is left
    assert np.isnan(apart).any()


def test_folding_is_counted() -> None:
    u = field(
        GRID, lambda p: np.stack([-1.5 * (p[..., 0] - GRID.centre_mm[0]) * (p[..., 0] > GRID.centre_mm[0]), *[0 * p[..., 0]] * 2], axis=-1)
    )
    determinants = u.jacobian().array
    assert np.allclose(determinants[:, :, :5], 1)
    assert np.allclose(determinants[:, :, 6:], -0.5)
    assert u.folding_percent() == pytest.approx(100 * 5 / 11)
    half = np.zeros(GRID.shape, bool)
    half[:, :, :5] = True
    assert u.folding_percent(Volume(half, GRID)) == 0
    torn = Deformation(Volume(np.random.default_rng(0).normal(0, 40, (3, *GRID.shape)), GRID), "daily", "planning")
    assert 30 < torn.folding_percent() < 70
    with pytest.raises(GeometryError, match=r"points have no place in 'daily'.*Way out: the field folds"):
        torn.to_fixed(centres(GRID))


def test_rigid_part_is_the_rotation_that_was_put_in() -> None:
    matrix = affine(rotation((0.1, 0.05, 0)), (3, -2, 5))
    u = Deformation.from_matrix(matrix, GRID, "daily", "planning")
    assert np.allclose(u.rigid_part(), matrix, atol=1e-9)
    some = Volume(np.random.default_rng(0).random(GRID.shape) > 0.5, GRID)
    assert np.allclose(u.rigid_part(some), matrix, atol=1e-9)
    mirrored = np.random.default_rng(0).normal(size=(20, 3))
    assert np.linalg.det(rigid_fit(mirrored, mirrored * (-1, 1, 1))[:3, :3]) == pytest.approx(1)


# ---- what is refused


def test_what_is_no_deformation_is_refused() -> None:
    good = np.zeros((3, *GRID.shape))
    bad = good.copy()
    bad[1, 2, 3, 4] = np.nan
    for array, said in (
        (bad, r"not a number in 1 of 990 voxels.*deformation from 'daily' to 'planning'"),
        (good + 2e4, "reaches 2e\\+04 mm.*check that the field is in millimetres"),
        (good[:2], r"floats of \(3, k, j, i\)"),
        (good.astype(int), "floats of"),
    ):
        with pytest.raises(GeometryError, match=said):
            Deformation(Volume(array, GRID), "daily", "planning")
    with pytest.raises(GeometryError, match="names the image it starts from"):
        Deformation(Volume(good, GRID), "", "planning")


def test_the_wrong_way_is_refused() -> None:
    one = shift((1, 0, 0))
    with pytest.raises(GeometryError, match="starts from 'daily' cannot follow one that leads to 'planning'"):
        one.then(one)
    other = Deformation(one.displacement, "planning", "third")
    with pytest.raises(GeometryError, match="leads to 'third', not to 'daily'"):
        one.inconsistency_mm(other)


def test_matrices_that_no_body_can_follow_are_refused() -> None:
    for matrix, said in (
        (np.diag([-1, 1, 1, 1]), "determinant -1 mirrors"),
        (np.full((4, 4), np.nan), "finite 4x4"),
        (np.eye(3), "finite 4x4"),
    ):
        with pytest.raises(GeometryError, match=said):
            Deformation.from_matrix(matrix, GRID, "daily", "planning")
    elsewhere = Volume(np.ones((2, 2, 2), bool), Geometry.regular((2, 2, 2)))
    with pytest.raises(GeometryError, match="another grid than the deformation"):
        shift((1, 0, 0)).folding_percent(elsewhere)
