"""Moving voxels between grids: exact where it can be, centred where it cannot, and nothing lost on the way."""

from __future__ import annotations

import pickle
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError
from oncontour.phantom import Box, Ellipsoid, HollowSphere, Sphere
from tests.core.test_geometry import SIGNED_AXES, rotation

few = settings(max_examples=30, deadline=None)
DTYPES = (bool, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64)
GRID = Geometry.regular((5, 6, 7), (3.0, 1.5, 0.7), (-10.0, 20.0, -300.0))


def noise(dtype: type, shape: tuple[int, ...] = (5, 6, 7), seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).uniform(0, 200, shape) - (100 if np.dtype(dtype).kind != "u" else 0)).astype(dtype)


def ramp(grid: Geometry, slope: tuple[float, float, float] = (1.7, -0.6, 2.3), dtype: type = np.float64) -> Volume:
    """A field that is linear in LPS millimetres."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return Volume((grid.points(voxels) @ slope).astype(dtype), grid)


def within(grid: Geometry, other: Geometry, margin: float = 0.0) -> np.ndarray:
    """Voxels of ``grid`` whose centres lie inside ``other``'s outermost centres, ``margin`` voxels from them."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    at = other.voxels(grid.points(voxels))
    return ((at >= margin - 1e-9) & (at <= np.array(other.shape) - 1 - margin + 1e-9)).all(axis=-1)


# ---- what is valid


def test_refuses_an_array_that_does_not_fit() -> None:
    for shape in ((6, 5, 7), (5, 6), (5, 6, 7, 1)):
        with pytest.raises(GeometryError, match=r"does not fit a grid of \(5, 6, 7\)"):
            Volume(np.zeros(shape), GRID)


def test_array_is_read_only_here_and_after_pickling() -> None:
    mine = noise(np.float32)
    volume = Volume(mine, GRID)
    for one in (volume, pickle.loads(pickle.dumps(volume))):
        with pytest.raises(ValueError, match="read-only"):
            one.array[0, 0, 0] = 1
    mine[0, 0, 0] = 7  # the caller's own array stays the caller's


def test_binary_counts_one_half_as_inside() -> None:
    grid = Geometry.regular((1, 1, 4))
    assert Volume(np.array([[[0, 0.49, 0.5, 1]]]), grid).binary().array.tolist() == [[[False, False, True, True]]]


def test_volume_cc_of_mask_and_coverage() -> None:
    assert Volume(np.ones(GRID.shape, bool), GRID).volume_cc == pytest.approx(5 * 6 * 7 * 3 * 1.5 * 0.7 / 1000)
    assert Volume(np.full(GRID.shape, 0.5, np.float16), GRID).volume_cc == pytest.approx(5 * 6 * 7 * 3 * 1.5 * 0.7 / 2000)


# ---- exact copies


@pytest.mark.parametrize("dtype", DTYPES)
def test_crop_and_pad_copy_bit_for_bit(dtype: type) -> None:
    volume = Volume(noise(dtype), GRID)
    part = volume.to(GRID.crop((1, 0, 2), (4, 6, 5)))
    assert part.array.dtype == dtype
    assert np.array_equal(part.array, volume.array[1:4, :, 2:5])
    wide = volume.to(GRID.pad((1, 2, 0), (0, 3, 4)), fill=1)
    assert np.array_equal(wide.to(GRID).array, volume.array)
    assert (wide.array[0] == 1).all()
    assert (wide.array[:, :2] == 1).all()
    assert (wide.array[..., -4:] == 1).all()


@pytest.mark.parametrize("axes", SIGNED_AXES, ids=str)
def test_all_orientations_copy_there_and_back(axes: np.ndarray) -> None:
    volume = Volume(noise(np.int16), Geometry.regular((5, 6, 7), (3, 1.5, 0.7), (-10, 20, -300), rotation((0.2, -0.3, 0.1))))
    there = volume.to(volume.geometry.reorient(axes @ volume.geometry.axes))
    assert sorted(there.array.ravel()) == sorted(volume.array.ravel())
    assert np.array_equal(there.to(volume.geometry).array, volume.array)


def test_flip_and_permute_against_numpy() -> None:
    volume = Volume(noise(np.float32), Geometry.regular((5, 6, 7)))
    lpi = volume.to(volume.geometry.reorient([(-1, 0, 0), (0, -1, 0), (0, 0, 1)]))  # k to right, j to anterior, i to superior
    assert np.array_equal(lpi.array, volume.array.transpose(2, 1, 0)[::-1, ::-1])


def test_same_grid_is_the_same_object() -> None:
    volume = Volume(noise(np.float32), GRID)
    assert volume.to(GRID) is volume


def test_a_grid_elsewhere_is_fill() -> None:
    volume = Volume(noise(np.float32), GRID)
    far = Geometry.regular((2, 2, 2), (1, 1, 1), (9000, 0, 0))
    turned = Geometry.regular((2, 2, 2), (1, 1, 1), (9000, 0, 0), rotation((0.3, 0.2, 0.1)))
    shifted = GRID.crop((100, 0, 0), (102, 6, 7))
    for grid in (far, turned, shifted):
        for nearest in (False, True):
            assert (volume.to(grid, fill=-5, nearest=nearest).array == -5).all()


# ---- no shift


@few
@given(st.tuples(*[st.floats(0.3, 5)] * 3))
def test_resampling_a_ramp_gives_the_ramp(spacing: tuple[float, float, float]) -> None:
    """No half-voxel shift: coarser or finer, the field is where it was (away from the edge, which the blur reaches)."""
    source = Geometry.regular((24, 26, 28), (2.0, 1.0, 1.3), (-20, 5, -300))
    target = source.resample(spacing)
    got = ramp(source).to(target).array
    margin = float(np.ceil(3 * max(1, *(t / s for t, s in zip(spacing, source.spacing_mm, strict=True)))))
    sure = within(target, source, margin)
    assert np.abs(got - ramp(target).array)[sure].max(initial=0) < 1e-6


@few
@given(st.tuples(*[st.floats(-1.5, 1.5)] * 3), st.tuples(*[st.floats(0.8, 1.0)] * 3))
def test_oblique_ramp_gives_the_ramp(angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> None:
    source = Geometry.regular((20, 21, 22), (1.0, 1.0, 1.0), (-9, -10, -10), rotation((0.1, 0.2, 0.3)))
    axes = np.eye(3)[::-1] @ rotation(angles)
    target = Geometry.regular((10, 10, 10), spacing, source.centre_mm - np.array([4.5, 4.5, 4.5]) @ axes, axes)
    got = ramp(source).to(target).array
    sure = within(target, source, 4)
    assert sure.any()
    assert np.abs(got - ramp(target).array)[sure].max() < 1e-6


def test_centre_of_mass_stays_when_coarsened_and_refined() -> None:
    grid = Geometry.regular((40, 60, 60), (2.0, 1.0, 1.0), (-30, -30, -40))
    ball = Sphere((1.3, -2.1, 0.7), 14).coverage(grid)
    coarse = ball.to(grid.resample((5.0, 3.7, 2.9)))
    for volume in (ball, coarse, coarse.to(grid)):
        centre = volume.geometry.points(ndimage.center_of_mass(volume.array))
        assert np.abs(centre - (1.3, -2.1, 0.7)).max() < 0.02


def test_linear_matches_a_pencil() -> None:
    row = Volume(np.array([[[0.0, 10.0, 20.0, 40.0]]]), Geometry.regular((1, 1, 4)))
    fine = row.to(Geometry.regular((1, 1, 9), (1, 1, 0.5), (-0.5, 0, 0)), fill=-1)
    assert fine.array.ravel().tolist() == [0, 0, 5, 10, 15, 20, 30, 40, 40]  # the half voxel at either end holds the edge value
    wide = row.to(Geometry.regular((1, 1, 3), (1, 1, 0.5), (-1.1, 0, 0)), fill=-1)
    assert wide.array.ravel().tolist() == [-1, -1, 0]


def test_a_single_slice_of_a_coarse_grid_is_blurred_like_the_whole() -> None:
    source = Volume(noise(np.float32, (20, 20, 20)), Geometry.regular((20, 20, 20)))
    coarse = source.geometry.resample((4, 4, 4))
    whole = source.to(coarse).array
    for k in range(coarse.shape[0]):
        one = coarse.crop((k, 1, 1), (k + 1, 2, 2))
        assert np.allclose(source.to(one).array[0, 0, 0], whole[k, 1, 1], atol=1e-4)


def test_oblique_part_is_the_whole_cropped() -> None:
    source = Volume(noise(np.float32, (20, 20, 20)), Geometry.regular((20, 20, 20)))
    target = Geometry.regular((12, 12, 12), (1.9, 1.4, 1.2), (1, 2, 0), rotation((0.3, 0.2, 0.1)))
    part = target.crop((2, 3, 4), (6, 7, 9))
    assert np.allclose(source.to(part).array, source.to(target).to(part).array, atol=1e-4)


def test_coarsening_averages_instead_of_picking() -> None:
    stripes = Volume(np.tile(np.array([0.0, 100.0]), (16, 16, 8)), Geometry.regular((16, 16, 16)))
    inner = stripes.to(stripes.geometry.resample((4, 4, 4))).array[..., 1:-1]
    assert np.abs(inner - 50).max() < 1


def test_constants_stay_constant() -> None:
    for dtype in DTYPES:
        volume = Volume(np.ones(GRID.shape, dtype), GRID)
        for grid in (GRID.resample((4, 4, 4)), GRID.resample((0.9, 1.1, 0.3)).crop((1, 1, 1), (10, 4, 4))):
            got = volume.to(grid, fill=1)
            assert got.array.dtype == dtype
            assert np.abs(got.array.astype(float) - 1).max() < 1e-6


# ---- masks and labels


SOLIDS = (
    Sphere((0.4, -0.3, 0.2), 18),
    Ellipsoid((1, 2, -1), (25, 15, 12)),
    HollowSphere((0, 0, 0), 22, 10),
    Box((0.5, 0, 0), (31, 27, 33)),
)


@pytest.mark.parametrize("solid", SOLIDS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("spacing", [(3.0, 2.0, 2.0), (2.0, 4.0, 3.0)])
def test_coverage_and_masks_keep_their_volume_on_coarser_grids_and_back(solid: Sphere, spacing: tuple[float, float, float]) -> None:
    grid = Geometry.regular((60, 70, 70), (1.0, 1.0, 1.0), (-34.5, -34.5, -29.5))
    truth = solid.volume_mm3 / 1000
    coverage = solid.coverage(grid)
    coarse = coverage.to(grid.resample(spacing))
    assert coverage.volume_cc == pytest.approx(truth, rel=0.002)
    assert coarse.volume_cc == pytest.approx(truth, rel=0.005)
    assert coarse.to(grid).volume_cc == pytest.approx(truth, rel=0.01)
    if isinstance(solid, Box):
        return  # flat faces fall between voxels: a bool mask of a block is off by up to half a voxel on each, whoever resamples
    mask = coverage.binary()
    there = mask.to(grid.resample(spacing))
    assert there.array.dtype == bool
    assert there.volume_cc == pytest.approx(truth, rel=0.06)  # whole voxels of up to 4 mm
    home = there.to(grid)
    both = (home.array & mask.array).sum()
    assert 2 * both / (home.array.sum() + mask.array.sum()) > 0.94


def test_nearest_never_invents_a_label() -> None:
    labels = Volume(np.random.default_rng(0).choice([0, 3, 200], (9, 9, 9)).astype(np.uint8), Geometry.regular((9, 9, 9)))
    for grid in (labels.geometry.resample((2.1, 0.7, 1.3)), Geometry.regular((9, 9, 9), axes=rotation((0.3, 0.1, 0.2)))):
        assert set(np.unique(labels.to(grid, nearest=True).array)) <= {0, 3, 200}


def test_nearest_matches_a_pencil_and_ties_go_one_way() -> None:
    row = Volume(np.array([[[1, 2, 3, 4, 5, 6]]]), Geometry.regular((1, 1, 6)))
    half = Geometry.regular((1, 1, 3), (1, 1, 2), (0.5, 0, 0))
    assert row.to(half, nearest=True).array.ravel().tolist() == [1, 3, 5]
    slight = Geometry.regular((1, 1, 3), (1, 1, 2), (0.5 + 1e-9, 0, 0))
    assert row.to(slight, nearest=True).array.ravel().tolist() == [1, 3, 5]
    fine = Geometry.regular((1, 1, 12), (1, 1, 0.5), (-0.25, 0, 0))
    assert row.to(fine, nearest=True).array.ravel().tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_nearest_parallel_and_oblique_agree() -> None:
    labels = Volume(noise(np.int16, (9, 10, 11)), Geometry.regular((9, 10, 11), (2, 1, 1)))
    straight = Geometry.regular((8, 12, 9), (2.3, 0.8, 1.2), (-1.33, 0.21, 0.43))
    turned = Geometry(straight.shape, straight.affine @ np.block([[rotation((1e-4, 0, 0)), np.zeros((3, 1))], [np.zeros(3), 1]]))
    a, b = (labels.to(g, nearest=True, fill=-999).array for g in (straight, turned))
    assert (a == b).mean() > 0.99


def test_resampling_keeps_orientation_of_permuted_sources() -> None:
    """The answer does not depend on the order and direction in which the source happens to store its axes."""
    volume = Volume(noise(np.float32, (12, 14, 16)), Geometry.regular((12, 14, 16), (3, 1.5, 1.2), (-5, 3, 8)))
    target = volume.geometry.resample((2.2, 2.9, 0.9)).pad((1, 1, 1), (1, 1, 1))
    wanted = volume.to(target, fill=-7).array
    for order, signs in product(permutations(range(3)), ((1, 1, 1), (-1, 1, -1))):
        stored = volume.to(volume.geometry.reorient(np.eye(3)[list(order)] * np.array(signs)[:, None]))
        assert np.allclose(stored.to(target, fill=-7).array, wanted, atol=2e-3)


# ---- values


def test_channels_ride_along() -> None:
    array = noise(np.float32, (2, 3, 5, 6, 7))
    target = GRID.resample((2, 2, 2))
    got = Volume(array, GRID).to(target).array
    assert got.shape == (2, 3, *target.shape)
    assert np.array_equal(got[1, 2], Volume(array[1, 2], GRID).to(target).array)
    assert Volume(array, GRID).to(target, nearest=True).array.shape == (2, 3, *target.shape)
    turned = Geometry.regular((4, 4, 4), (1, 1, 1), GRID.origin_mm, rotation((0.2, 0.1, 0)))
    for nearest in (False, True):
        alone = Volume(array[1, 2], GRID).to(turned, nearest=nearest, fill=3).array
        assert np.array_equal(Volume(array, GRID).to(turned, nearest=nearest, fill=3).array[1, 2], alone)


def test_integers_are_rounded_and_stay_in_range() -> None:
    row = Volume(np.array([[[0, 255, 0, 3]]], np.uint8), Geometry.regular((1, 1, 4)))
    got = row.to(Geometry.regular((1, 1, 7), (1, 1, 0.5))).array
    assert got.dtype == np.uint8
    assert got.ravel().tolist() == [0, 128, 255, 128, 0, 2, 3]


def test_large_integers_and_float64_keep_their_digits() -> None:
    for dtype, value in ((np.int32, 2**31 - 1), (np.int64, 2**40 + 1), (np.float64, 1 / 3)):
        volume = Volume(np.full(GRID.shape, value, dtype), GRID)
        assert volume.to(GRID.resample((0.9, 1.1, 0.3))).array[4:8, 2:5, 2:8] == pytest.approx(value, rel=1e-15, abs=0)


def test_nan_stays_local_and_fill_may_be_nan() -> None:
    array = np.ones((5, 5, 5))
    array[2, 2, 2] = np.nan
    volume = Volume(array, Geometry.regular((5, 5, 5)))
    got = volume.to(Geometry.regular((9, 9, 9), (0.5, 0.5, 0.5))).array
    assert np.isnan(got).sum() == 27  # the voxel and its half-way neighbours, not voxels that weigh it with 0
    assert np.isnan(volume.to(volume.geometry.pad((1, 0, 0), (0, 0, 0)), fill=np.nan).array[0]).all()


@pytest.mark.parametrize("fill", [-1024, 256, 0.5, np.nan])
def test_a_fill_that_does_not_fit_is_refused(fill: float) -> None:
    volume = Volume(noise(np.uint8), GRID)
    with pytest.raises(GeometryError, match="is no value of uint8"):
        volume.to(GRID.pad((1, 1, 1), (0, 0, 0)), fill=fill)


def test_map_keeps_the_grid() -> None:
    assert Volume(noise(np.float32), GRID).map(np.abs).geometry == GRID
