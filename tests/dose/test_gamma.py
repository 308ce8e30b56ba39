"""Gamma against a pencil: shifted and scaled doses whose gamma is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.gamma import gamma
from oncontour.errors import ConfigError, DoseError

GRID = Geometry.regular((9, 10, 11), (2.5, 2.0, 3.0), (-14, -8, -9))


def slope(grid: Geometry, gradient: tuple[float, float, float], middle: float = 50.0) -> Volume:
    points = grid.points(np.stack(np.indices(grid.shape), axis=-1))
    return Volume((middle + points @ np.array(gradient)).astype(np.float32), grid)


def inner(values: np.ndarray) -> np.ndarray:
    """Away from the edges, where the search sees the dose on all sides."""
    return values[3:-3, 3:-3, 3:-3]


def test_a_dose_agrees_with_itself() -> None:
    dose = slope(GRID, (1, 0.5, 0))
    found = gamma(dose, dose)
    assert found.values.array.max() == 0
    assert (found.pass_percent, found.mean, found.points) == (100, 0, GRID.size)


@pytest.mark.parametrize("local", [False, True])
def test_dose_alone(local: bool) -> None:
    """Even doses of 50 and 51 Gy are 2 % apart: gamma 2/3 at 3 %, 2 at 1 %."""
    one, other = slope(GRID, (0, 0, 0)), slope(GRID, (0, 0, 0), 51)
    assert gamma(one, other, local=local).values.array == pytest.approx(2 / 3, rel=1e-5)
    assert gamma(one, other, dose_percent=1, local=local).values.array == pytest.approx(2, rel=1e-5)
    assert gamma(one, other, dose_percent=0.5, local=local).values.array == pytest.approx(2)  # no more than it is asked to tell


@pytest.mark.parametrize("gradient", [(2.0, 0, 0), (0, 0, -1.0), (0.8, -1.2, 0.6), (0.05, 0, 0)])
def test_dose_and_distance(gradient: tuple[float, float, float]) -> None:
    """Linear doses e Gy apart with a slope of g Gy/mm: the least of (x / d)^2 + ((e - g x) / D)^2 is e^2 / (D^2 + (g d)^2)."""
    one, other = slope(GRID, gradient), slope(GRID, gradient, 52.0)
    found = gamma(one, other, dose_percent=3, distance_mm=2, reference_gy=60, threshold_percent=0)
    expected = 2 / np.hypot(0.03 * 60, 2 * np.linalg.norm(gradient))
    assert inner(found.values.array) == pytest.approx(expected, rel=2e-3)


def test_each_dose_on_its_own_grid() -> None:
    finer = Geometry.regular((30, 30, 40), (1.1, 1.3, 1.2), (-20, -15, -15), [(0, 0, -1), (0, 1, 0), (1, 0, 0)])
    finer = Geometry.regular(finer.shape, (1.1, 1.3, 1.2), (-20, -15, 20), [(0, 0, -1), (0, 1, 0), (1, 0, 0)])
    found = gamma(slope(GRID, (0, 1, 0.5)), slope(finer, (0, 1, 0.5), 51), reference_gy=60, threshold_percent=0)
    assert inner(found.values.array) == pytest.approx(1 / np.hypot(1.8, 2 * np.sqrt(1.25)), rel=2e-3)


def test_local_is_of_the_dose_there() -> None:
    one = slope(GRID, (0, 0, 0), 10)
    raised = np.array(one.array)
    raised[4, 5, 5] = 50
    found = gamma(Volume(raised, GRID), Volume(raised * np.float32(1.03), GRID), local=True, threshold_percent=0)
    assert found.values.array[0, 0, 0] == pytest.approx(1, rel=1e-5)
    assert gamma(Volume(raised, GRID), Volume(raised * np.float32(1.03), GRID), threshold_percent=0).values.array[0, 0, 0] == pytest.approx(
        0.2, rel=1e-4
    )


def test_below_the_threshold_and_beyond_the_other_dose_nothing_is_judged() -> None:
    one = slope(GRID, (0, 0, 2.0))
    half = GRID.crop((0, 0, 0), (5, 10, 11))
    found = gamma(one, slope(half, (0, 0, 2.0)), threshold_percent=60)
    judged = ~np.isnan(found.values.array)
    assert not judged[one.array < 0.6 * one.array.max()].any()
    assert not judged[6:].any()
    assert judged[:5][one.array[:5] >= 0.6 * one.array.max()].all()
    assert found.pass_percent == 100


def test_refusals() -> None:
    dose = slope(GRID, (1, 0, 0))
    far = Volume(dose.array, Geometry.regular(GRID.shape, GRID.spacing_mm, (500, 0, 0)))
    with pytest.raises(DoseError, match="do not meet"):
        gamma(dose, far)
    for name in ("dose_percent", "distance_mm", "most"):
        with pytest.raises(ConfigError, match=f"{name} is positive, not 0"):
            gamma(dose, dose, **{name: 0})
    with pytest.raises(DoseError, match="must be positive, not 0"):
        gamma(Volume(np.zeros(GRID.shape), GRID), dose)
    with pytest.raises(DoseError, match="NaN"):
        gamma(dose, Volume(np.full(GRID.shape, np.nan), GRID))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_search_finds_no_worse_than_looking_everywhere(seed: int) -> None:
    """Against a brute search of every point of a fine net, on noise."""
    rng = np.random.default_rng(seed)
    grid = Geometry.regular((5, 5, 5), (3.0, 3.0, 3.0))
    one, other = (Volume(rng.uniform(10, 20, grid.shape).astype(np.float32), grid) for _ in range(2))
    found = gamma(one, other, dose_percent=10, distance_mm=3, threshold_percent=0, reference_gy=20).values.array[2, 2, 2]
    fine = Geometry.regular((49, 49, 49), (0.25,) * 3)
    dose = other.to(fine).array.astype(np.float64)
    points = fine.points(np.stack(np.indices(fine.shape), axis=-1))
    away = ((points - grid.points([2, 2, 2])) ** 2).sum(-1) / 9
    brute = min(np.sqrt((away + ((dose - float(one.array[2, 2, 2])) / 2) ** 2).min()), 2)
    assert brute - 0.1 <= found <= brute + 0.03  # the net of 0.25 mm may miss what the slope finds
