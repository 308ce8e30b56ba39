"""From image and mask to region: grids, interpolation, what is kept, what is unknown; and the features of whole regions."""

from __future__ import annotations

import numpy as np
import pytest

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError
from oncontour.radiomics.extract import CT, DOSE, Settings, extract
from oncontour.radiomics.names import DIRECTED, split
from oncontour.radiomics.region import Processing, interpolate, prepare, resegment

GRID = Geometry.regular((10, 20, 30), (3.0, 1.0, 1.5), (-5.0, 2.0, 7.0))


def ramp(grid: Geometry) -> np.ndarray:
    """2 x - y + 3 z at every voxel of ``grid``."""
    at = grid.points(np.moveaxis(np.indices(grid.shape), 0, -1))
    return at @ np.array([2.0, -1.0, 3.0])


def block(grid: Geometry, start: tuple[int, int, int] = (2, 4, 6), stop: tuple[int, int, int] = (7, 15, 22)) -> Volume:
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Volume(mask, grid)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_a_ramp_stays_a_ramp_to_the_coarser_and_the_finer(kind: str) -> None:
    image = Volume(ramp(GRID), GRID)
    for spacing in ((2.0, 2.0, 2.0), (5.0, 3.0, 4.0), (1.0, 0.4, 0.7)):
        region = prepare(image, block(GRID), Processing(spacing, interpolation=kind))  # type: ignore[arg-type]
        assert region.values == pytest.approx(ramp(region.geometry)[region.intensity], abs=0.2 if kind == "cubic" else 1e-9)
        grid = GRID.resample(spacing)
        assert grid.voxels(region.geometry.origin_mm) == pytest.approx(np.rint(grid.voxels(region.geometry.origin_mm)), abs=1e-6)


def test_nothing_is_blurred() -> None:
    """Every other voxel 1: at every second voxel exactly, the values are picked, not averaged."""
    grid = Geometry.regular((1, 1, 41))
    image = Volume((np.arange(41) % 2).astype(float).reshape(grid.shape), grid)
    coarse = Geometry.regular((1, 1, 20), (1.0, 1.0, 2.0), (1.0, 0.0, 0.0))
    assert interpolate(image, coarse, "linear").tolist() == [[[1.0] * 20]]


def test_half_a_voxel_belongs() -> None:
    """A mask of two voxels of 2 mm on voxels of 1 mm: the voxel centres lie at a quarter and three quarters between."""
    grid = Geometry.regular((1, 1, 6), (1.0, 1.0, 2.0))
    mask = block(grid, (0, 0, 2), (1, 1, 4))
    region = prepare(Volume(np.zeros(grid.shape), grid), mask, Processing((1.0, 1.0, 1.0)))
    assert int(region.morphological.sum()) == 4
    assert region.geometry.points(np.argwhere(region.morphological))[:, 0].tolist() == [3.5, 4.5, 5.5, 6.5]


def test_whole_numbers() -> None:
    image = Volume(ramp(GRID), GRID)
    assert np.array_equal(
        prepare(image, block(GRID), Processing((2.0,) * 3, whole=True)).values,
        np.rint(prepare(image, block(GRID), Processing((2.0,) * 3)).values),
    )


def test_resegmentation_keeps_both_ends_and_then_leaves_out_what_is_far() -> None:
    image, inside = np.array([[[-1.0, 0.0, 1.0, 2.0, 3.0, 100.0, np.nan]]]), np.ones((1, 1, 7), bool)
    inside[0, 0, 2] = False
    assert resegment(image, inside, Processing(keep=(0.0, 3.0)))[0, 0].tolist() == [False, True, False, True, True, False, False]
    assert resegment(image, inside, Processing(keep=(None, None), outliers_sd=1.5))[0, 0].tolist() == [
        True,
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert not resegment(image, inside, Processing(keep=(200.0, None), outliers_sd=1.0)).any()


def test_beyond_the_image_is_unknown() -> None:
    """A mask that reaches half out of a smaller dose: its shape is whole, its intensity the known half."""
    dose = Volume(np.full((10, 20, 10), 50.0), GRID.crop((0, 0, 0), (10, 20, 10)))
    mask = block(GRID, (2, 4, 5), (7, 15, 15))
    for grid in (None, GRID):
        region = prepare(dose, mask, Processing(), grid)
        assert (int(region.morphological.sum()), int(region.intensity.sum())) == (5 * 11 * 10, 5 * 11 * 5)
        assert (region.values == 50).all()


def test_a_mask_on_another_grid_than_the_image() -> None:
    fine = Geometry.regular((30, 20, 45), (1.0, 1.0, 1.0), (-5.0, 2.0, 6.0))
    mask = Volume(np.ones((8, 8, 8), bool), fine.crop((10, 6, 20), (18, 14, 28)))
    region = prepare(Volume(ramp(GRID), GRID), mask, Processing((1.0, 1.0, 1.0)))
    assert region.morphological.sum() == pytest.approx(512, rel=0.1)


def test_empty_masks_and_images_with_channels() -> None:
    image = Volume(ramp(GRID), GRID)
    empty = prepare(image, Volume(np.zeros(GRID.shape, bool), GRID), Processing((2.0,) * 3))
    assert not empty.morphological.any()
    far = Volume(np.ones((4, 4, 4), bool), Geometry.regular((4, 4, 4), (2.0, 2.0, 2.0), (900.0, 0.0, 0.0)))
    away = prepare(image, far, Processing((2.0,) * 3))
    assert 36 <= away.morphological.sum() <= 100
    assert not away.intensity.any()
    with pytest.raises(InputError, match="three axes"):
        prepare(Volume(np.zeros((2, *GRID.shape)), GRID), block(GRID), Processing())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "three positive"),
        ({"keep": (5.0, 5.0)}, "rises"),
        ({"outliers_sd": 0.0}, "standard deviations"),
        ({"interpolation": "nearest"}, "linear or cubic"),
    ],
)
def test_processing_that_cannot_be(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Processing(**wrong)  # type: ignore[arg-type]


# ---- whole regions


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="either a bin width or a number"):
        Settings()
    with pytest.raises(ConfigError, match="either a bin width or a number"):
        Settings(bin_width=1.0, bins=8)
    with pytest.raises(ConfigError, match="there are morph, loc"):
        Settings(bins=8, families=("glcm",))
    with pytest.raises(ConfigError, match="there are 2D_avg"):
        Settings(bins=8, aggregations=())


def test_the_same_names_whatever_the_region() -> None:
    """Full, constant, of one voxel, unknown and empty regions give the same columns, each of them a name that can be said."""
    settings = Settings(Processing(keep=(0.0, None)), bin_width=1.0, ivh_width=0.1, aggregations=tuple(DIRECTED))
    image = Volume(np.random.default_rng(0).uniform(0, 60, GRID.shape), GRID)
    rows = [
        extract(image, block(GRID), settings),
        extract(image.map(np.ones_like), block(GRID), settings),
        extract(image, block(GRID, (2, 4, 6), (3, 5, 7)), settings),
        extract(image.map(lambda array: -1 - array), block(GRID), settings),
        extract(image, Volume(np.zeros(GRID.shape, bool), GRID), settings),
    ]
    assert len({tuple(row) for row in rows}) == 1
    assert all(split(name) for name in rows[0])
    assert np.isfinite([*rows[0].values()]).all()
    assert {name for name, value in rows[4].items() if not np.isnan(value)} == set()


def test_families_come_alone_as_they_come_together() -> None:
    image = Volume(np.random.default_rng(0).uniform(0, 60, GRID.shape), GRID)
    whole = extract(image, block(GRID), DOSE)
    for family in DOSE.families:
        alone = extract(image, block(GRID), Settings(DOSE.processing, bin_width=1.0, ivh_width=0.1, families=(family,)))
        assert alone == {name: value for name, value in whole.items() if name.split("_")[0] == family}


def test_dose_is_binned_from_zero_and_ct_from_minus_thousand() -> None:
    grid = Geometry.regular((4, 4, 4), (3.0, 3.0, 3.0))
    inside = Volume(np.ones(grid.shape, bool), grid)
    assert extract(Volume(np.full(grid.shape, 42.5), grid), inside, DOSE)["ih_mean"] == 43
    assert extract(Volume(np.full(grid.shape, 12.0), grid), inside, CT)["ih_mean"] == 1012 // 25 + 1
    assert np.isnan(extract(Volume(np.full(grid.shape, -1024.0), grid), inside, CT)["ih_mean"])
