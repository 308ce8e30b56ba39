"""Discretisation, statistics, histograms, local peaks: numbers a pencil finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.radiomics.discretise import MAX_LEVELS, fixed_bin_number, fixed_bin_size
from oncontour.radiomics.extract import Settings, extract
from oncontour.radiomics.intensity import PEAK_RADIUS_MM, histogram, local_peaks, statistics, volume_histogram
from oncontour.radiomics.region import Region

# ---- grey levels


def test_fixed_bins_start_at_the_range_and_take_their_lower_end() -> None:
    assert fixed_bin_size(np.array([0.0, 0.99, 1.0, 2.5, 70.0]), 1.0, 0.0).tolist() == [1, 1, 2, 3, 71]
    assert fixed_bin_size(np.array([-500.0, -475.0, -475.5]), 25.0, -500.0).tolist() == [1, 2, 1]
    assert fixed_bin_size(np.array([3.0, 5.0, 4.9]), 2.0).tolist() == [1, 2, 1]
    assert fixed_bin_size(np.array([3.0]), 2.0, -np.inf).tolist() == [1]


def test_a_number_of_bins_puts_the_maximum_into_the_last() -> None:
    assert fixed_bin_number(np.array([0.0, 2.4, 2.5, 9.9, 10.0]), 4).tolist() == [1, 1, 2, 4, 4]
    assert fixed_bin_number(np.full(3, 7.0), 4).tolist() == [1, 1, 1]
    assert fixed_bin_number(np.empty(0), 4).tolist() == []


def test_bins_that_cannot_be_used() -> None:
    for width in (0.0, -1.0, np.nan):
        with pytest.raises(ConfigError, match="wider than 0"):
            fixed_bin_size(np.ones(2), width)
    with pytest.raises(ConfigError, match=r"7001 grey levels.*wider bin"):
        fixed_bin_size(np.array([0.0, 7000.0]), 1.0, 0.0)
    with pytest.raises(ConfigError, match="smallest value is -1"):
        fixed_bin_size(np.array([-1.0, 7.0]), 1.0, 0.0)
    for bins in (0, MAX_LEVELS + 1):
        with pytest.raises(ConfigError, match="number of bins"):
            fixed_bin_number(np.ones(2), bins)


# ---- statistics


def test_statistics_of_four() -> None:
    got = {name.removeprefix("stat_"): value for name, value in statistics(np.array([1.0, 2.0, 3.0, 6.0])).items()}
    want = {
        "mean": 3.0,
        "var": 3.5,
        "skew": 4.5 / 3.5**1.5,
        "kurt": (16 + 1 + 0 + 81) / 4 / 3.5**2 - 3,
        "median": 2.5,
        "min": 1.0,
        "p10": 1.3,
        "p90": 5.1,
        "max": 6.0,
        "iqr": 3.75 - 1.75,
        "range": 5.0,
        "mad": 1.5,
        "rmad": 0.5,
        "medad": (1.5 + 0.5 + 0.5 + 3.5) / 4,
        "cov": np.sqrt(3.5) / 3,
        "qcod": 2.0 / 5.5,
        "energy": 50.0,
        "rms": np.sqrt(12.5),
    }
    assert got == pytest.approx(want)


def test_statistics_that_are_not_defined() -> None:
    """Constant: skewness and kurtosis 0 by the manual; at 0 the two coefficients divide by nothing. No value: all NaN."""
    constant = statistics(np.full(5, 0.1))
    assert (constant["stat_var"], constant["stat_skew"], constant["stat_kurt"], constant["stat_cov"]) == (0, 0, 0, 0)
    zero = statistics(np.zeros(5))
    assert {name for name, value in zero.items() if np.isnan(value)} == {"stat_cov", "stat_qcod"}
    assert np.isnan([*statistics(np.empty(0)).values()]).all()


# ---- histograms


def test_histogram_counts_empty_levels_between() -> None:
    """Levels 2 (3 voxels), 3 (none), 4 (1): forward, central, backward gradients -3, -1, 1."""
    got = histogram(np.array([2, 2, 2, 4]))
    assert (got["ih_min_grad"], got["ih_min_grad_g"], got["ih_max_grad"], got["ih_max_grad_g"]) == (-3, 2, 1, 4)
    assert got["ih_entropy"] == pytest.approx(0.75 * np.log2(4 / 3) + 0.5)
    assert (got["ih_uniformity"], got["ih_mode"], got["ih_mean"]) == (0.625, 2, 2.5)
    assert len(got) == 23


def test_of_several_modes_the_nearest_to_the_mean() -> None:
    assert histogram(np.array([1, 1, 5, 5, 9]))["ih_mode"] == 5
    assert histogram(np.array([1, 1, 3, 3]))["ih_mode"] == 1


def test_histogram_of_one_level_and_of_none() -> None:
    one = histogram(np.array([3, 3]))
    assert (one["ih_max_grad"], one["ih_max_grad_g"], one["ih_min_grad"], one["ih_min_grad_g"]) == (0, 3, 0, 3)
    assert np.isnan([*histogram(np.empty(0, int)).values()]).all()


def test_volume_histogram_of_a_ramp() -> None:
    """0 to 100 Gy evenly: v10 is 90 %, i10 is 90 Gy, half a bin off; the area is a half."""
    got = volume_histogram(np.arange(0.05, 100, 0.1), (0.0, 100.0), 0.1)
    assert got["ivh_v10"] == pytest.approx(0.9, abs=1e-3)
    assert got["ivh_v90"] == pytest.approx(0.1, abs=1e-3)
    assert got["ivh_i10"] == pytest.approx(90, abs=0.06)
    assert got["ivh_i90"] == pytest.approx(10, abs=0.06)
    assert got["ivh_auc"] == pytest.approx(0.5, abs=1e-3)
    assert got["ivh_diff_i10_i90"] == pytest.approx(80, abs=0.1)


def test_volume_histogram_without_a_range_takes_that_of_the_values() -> None:
    assert volume_histogram(np.array([1.0, 1.0, 2.0, 6.0]), (-np.inf, np.inf), None)["ivh_v10"] == 0.5
    constant = volume_histogram(np.full(4, 5.0), (-np.inf, np.inf), 0.1)
    assert (constant["ivh_v10"], constant["ivh_v90"], constant["ivh_i90"]) == (1, 1, pytest.approx(5.15))
    assert np.isnan([*volume_histogram(np.empty(0), (0.0, 1.0), 0.1).values()]).all()


# ---- local intensity


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_peaks_as_spheres_counted_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(1.5, 5, 3))
    image = rng.normal(size=tuple(rng.integers(2, 9, 3)))
    image[rng.random(image.shape) < 0.1] = np.nan
    mask = (rng.random(image.shape) < 0.4) & np.isfinite(image)
    if not mask.any():
        return
    region = Region(image, mask, mask, Geometry.regular(image.shape, spacing))
    at = np.argwhere(np.isfinite(image)) * region.spacing_mm
    values = image[np.isfinite(image)]
    means = [values[np.linalg.norm(at - v * region.spacing_mm, axis=1) <= PEAK_RADIUS_MM].mean() for v in np.argwhere(mask)]
    got = local_peaks(region)
    assert got["loc_peak_glob"] == pytest.approx(max(means))
    assert got["loc_peak_loc"] == pytest.approx(means[int(image[mask].argmax())])


def test_the_sphere_holds_one_cc() -> None:
    assert 4 / 3 * np.pi * PEAK_RADIUS_MM**3 == pytest.approx(1000)


def test_peaks_of_nothing_known() -> None:
    image, mask = np.full((2, 2, 2), np.nan), np.ones((2, 2, 2), bool)
    got = local_peaks(Region(image, mask, np.zeros_like(mask), Geometry.regular((2, 2, 2))))
    assert np.isnan([*got.values()]).all()


def test_a_volume_histogram_of_a_number_of_bins_is_in_levels() -> None:
    """Ten values, one in each of ten bins: levels 1 to 10. At most 0.1 of them reach level 10, at most 0.9 level 2; nine reach the level
    at a tenth of the way (1.9, so 2), one that at nine tenths (9.1, so 10). An image of another unit has the same curve (IBSI 3.5)."""
    for scale in (1.0, 1000.0):
        grid = Geometry.regular((1, 1, 10))
        image = Volume(scale * np.arange(10.0).reshape(1, 1, 10), grid)
        found = extract(image, Volume(np.ones((1, 1, 10), bool), grid), Settings(bins=4, ivh_bins=10, families=("ivh",)))
        assert [found[f"ivh_{name}"] for name in ("v10", "v90", "i10", "i90")] == pytest.approx([0.9, 0.1, 10, 2])
    with pytest.raises(ConfigError, match=r"0\.1 and 10"):
        Settings(bins=4, ivh_width=0.1, ivh_bins=10)
