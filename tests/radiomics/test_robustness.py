"""Perturbations do what they say, and agreement is that of Shrout and Fleiss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.radiomics.extract import Settings, extract
from oncontour.radiomics.region import Processing, prepare
from oncontour.radiomics.robustness import Perturbation, agreements, draws, icc

JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Six targets rated by four judges: Shrout and Fleiss 1979, table 2."""
GRID = Geometry.regular((24, 40, 44), (2.0, 1.0, 1.0))
SETTINGS = Settings(Processing((2.0, 2.0, 2.0)), bins=16, families=("stat", "morph"))


def ball(centre: tuple[float, float, float], radius: float) -> Volume:
    at = GRID.points(np.moveaxis(np.indices(GRID.shape), 0, -1))
    return Volume(((at - centre) ** 2).sum(axis=-1) <= radius**2, GRID)


def image() -> Volume:
    at = GRID.points(np.moveaxis(np.indices(GRID.shape), 0, -1))
    return Volume(at @ np.array([1.0, 2.0, 3.0]), GRID)


# ---- agreement


def test_agreement_of_the_four_judges() -> None:
    """Table 4 there: ICC(1,1) = .17, ICC(3,1) = .71."""
    one, three = icc(JUDGES)
    assert round(one.value, 2) == 0.17
    assert round(three.value, 2) == 0.71


def test_agreement_by_pencil() -> None:
    """Patients 1 2 / 3 4 / 8 9: means 1.5, 3.5, 8.5; between 26, within 0.5; every second value is 1 more, so none is left for error."""
    one, three = icc([[1, 2], [3, 4], [8, 9]])
    assert one.value == pytest.approx((26 - 0.5) / (26 + 0.5))
    low, high = 52 / f.ppf(0.975, 2, 3), 52 * f.ppf(0.975, 3, 2)
    assert (one.low, one.high) == pytest.approx(((low - 1) / (low + 1), (high - 1) / (high + 1)))
    assert three.value == pytest.approx(1)


def test_agreement_of_nothing() -> None:
    for table in ([[1, 2]], [[1], [2]], [[5, 5], [5, 5]], [[1, np.nan], [2, 3]], [[0.1] * 5] * 7, [[1 / 3, 1 / 3 + 1e-16]] * 4):
        assert np.isnan([value for part in icc(table) for value in (part.value, part.low, part.high)]).all()
    assert icc([[1, 1], [2, 2], [np.nan, 0]])[0].value == 1
    with pytest.raises(ConfigError, match="patients and repetitions"):
        icc([1, 2, 3])


def test_agreements_by_feature() -> None:
    rows = [[{"a": x, "b": y} for x, y in zip(judged, judged[::-1], strict=True)] for judged in JUDGES]
    assert agreements(rows) == {"a": icc(JUDGES), "b": icc(np.array(JUDGES)[:, ::-1])}
    assert agreements([]) == {}


# ---- perturbations


def test_no_change_changes_nothing() -> None:
    mask = ball((22.0, 20.0, 23.0), 9.0)
    moved = Perturbation().apply(image(), mask, (2.0, 2.0, 2.0))
    assert extract(*moved[:2], SETTINGS, moved[2]) == extract(image(), mask, SETTINGS)


def test_a_shift_moves_the_grid_by_parts_of_its_voxels() -> None:
    mask = ball((22.0, 20.0, 23.0), 9.0)
    _, _, plain = Perturbation().apply(image(), mask, (2.0, 2.0, 2.0))
    _, _, grid = Perturbation(shift=(0.5, 0.25, -0.5)).apply(image(), mask, (2.0, 2.0, 2.0))
    off = plain.voxels(grid.origin_mm)
    assert off == pytest.approx([0.5, 0.25, -0.5])


def test_a_turn_is_round_the_structure_in_the_slice() -> None:
    """The middle of the structure keeps its place in the pattern of voxels; a ball in a ramp keeps its mean and its volume."""
    mask = ball((22.0, 20.0, 23.0), 9.0)
    _, _, plain = Perturbation().apply(image(), mask, (2.0, 2.0, 2.0))
    _, _, grid = Perturbation(angle_deg=30).apply(image(), mask, (2.0, 2.0, 2.0))
    middle = mask.geometry.points(np.argwhere(mask.array).mean(axis=0))
    assert (plain.voxels(middle) - grid.voxels(middle)) == pytest.approx(np.rint(plain.voxels(middle) - grid.voxels(middle)), abs=1e-6)
    assert grid.axes[0] == pytest.approx(plain.axes[0])
    assert float(grid.axes[1] @ plain.axes[1]) == pytest.approx(np.cos(np.pi / 6))
    turned, straight = extract(image(), mask, SETTINGS, grid), extract(image(), mask, SETTINGS)
    for name, close in (("stat_mean", 0.01), ("morph_volume", 0.1), ("stat_var", 0.1)):
        assert turned[name] == pytest.approx(straight[name], rel=close)


def test_noise_has_its_deviation_and_its_seed() -> None:
    mask = ball((22.0, 20.0, 23.0), 9.0)
    flat = Volume(np.zeros(GRID.shape), GRID)
    noisy, _, _ = Perturbation(noise_sd=2.0, seed=4).apply(flat, mask)
    assert prepare(noisy, mask, Processing()).values.std() == pytest.approx(2.0, rel=0.05)
    again, _, _ = Perturbation(noise_sd=2.0, seed=4).apply(flat, mask)
    other, _, _ = Perturbation(noise_sd=2.0, seed=5).apply(flat, mask)
    assert np.array_equal(noisy.array, again.array)
    assert not np.array_equal(noisy.array, other.array)


def test_noise_beside_a_structure_at_the_edge_leaves_no_hole() -> None:
    mask = ball((2.0, 2.0, 2.0), 9.0)
    noisy, _, _ = Perturbation(noise_sd=1.0).apply(image(), mask)
    region = prepare(noisy, mask, Processing())
    assert np.array_equal(region.intensity, region.morphological)


def test_a_contour_moves_by_its_deviation() -> None:
    """Volumes of a ball of 9 mm: a smooth move by 1 mm changes them, on the mean little, and no move changes them not at all.

    A ball that grows by 1 mm all over changes by 3 / 9 of its volume. Places on it that lie apart by an angle t move together with a
    covariance of exp(-(9 / 10)^2 (1 - cos t)), whose mean over the ball is (1 - exp(-1.62)) / 1.62 = 0.495: 3 / 9 * sqrt(0.495) = 0.234.
    """
    mask = ball((22.0, 20.0, 23.0), 9.0)

    def volume(change: Perturbation) -> float:
        _, moved, grid = change.apply(image(), mask, (1.0, 1.0, 1.0))
        return float(prepare(image(), moved, Processing((1.0, 1.0, 1.0)), grid).morphological.sum())

    plain = volume(Perturbation())
    moved = [volume(Perturbation(contour_mm=1.0, seed=n)) for n in range(40)]
    assert np.std(moved) / plain == pytest.approx(0.234, rel=0.25)
    assert np.mean(moved) == pytest.approx(plain, rel=0.2)
    assert volume(Perturbation(contour_mm=1e-6)) == pytest.approx(plain, rel=0.06)


def test_an_empty_mask_comes_back() -> None:
    nothing = Volume(np.zeros(GRID.shape, bool), GRID)
    _, same, _ = Perturbation(contour_mm=1.0, noise_sd=1.0, angle_deg=3.0).apply(image(), nothing)
    assert same is nothing


def test_draws() -> None:
    first = draws(5, 3, noise_sd=10.0)
    assert first == draws(5, 3, noise_sd=10.0) != draws(5, 4, noise_sd=10.0)
    assert [(d.shift, d.angle_deg, d.seed) for d in draws(5, 3, noise_sd=0.1)] == [(d.shift, d.angle_deg, d.seed) for d in first]
    assert max(abs(x) for d in first for x in d.shift) <= 0.5
    assert len({d.seed for d in first}) == 5
    with pytest.raises(ConfigError, match="at least once"):
        draws(0, 0, noise_sd=1.0)
    with pytest.raises(ConfigError, match="0 or more"):
        Perturbation(noise_sd=-1.0)
