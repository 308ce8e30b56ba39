"""Probabilities judged: by pencil, and by what must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.errors import InputError
from oncontour.metrics.probability import (
    Recalibration,
    brier,
    calibration,
    decision_curve,
    ece,
    logit,
    sigmoid,
)


def test_brier_and_ece_by_pencil():
    p, y = [0.1, 0.3, 0.6, 0.8], [0, 0, 1, 0]
    assert brier(p, y) == pytest.approx((0.01 + 0.09 + 0.16 + 0.64) / 4)
    assert ece(p, y, bins=2) == pytest.approx((2 * abs(0.2 - 0) + 2 * abs(0.7 - 0.5)) / 4)
    assert np.isnan(brier([], []))


def test_calibration_by_counting():
    """Two groups: of 100 at 0.2 there are 40 events, of 100 at 0.6 there are 70: slope and intercept solve two equations."""
    p = np.repeat([0.2, 0.6], 100)
    y = np.concatenate([np.arange(100) < 40, np.arange(100) < 70])
    slope = (np.log(0.7 / 0.3) - np.log(0.4 / 0.6)) / (np.log(0.6 / 0.4) - np.log(0.2 / 0.8))
    found = calibration(p, y)
    assert found.slope == pytest.approx(slope, abs=1e-6)
    assert (found.n, found.events) == (200, 110)
    assert sigmoid(found.intercept + logit(p)).mean() == pytest.approx(0.55), "in the large: as many events as predicted"
    again = Recalibration.fit(p, y)
    assert again([0.2, 0.6]) == pytest.approx([0.4, 0.7], abs=1e-6)
    assert calibration(again(p), y).slope == pytest.approx(1, abs=1e-5)
    assert Recalibration.fit(p, y, slope=False).slope == 1


def test_far_off_probabilities_are_brought_back():
    """Cubed probabilities: a plain Newton's step from slope 1 overshoots and never comes back."""
    rng = np.random.default_rng(0)
    risk = sigmoid(2 * rng.normal(size=300))
    had = rng.random(300) < risk
    again = Recalibration.fit(risk**3, had)
    assert brier(again(risk**3), had) < brier(risk**3, had) - 0.02
    assert calibration(again(risk**3), had).slope == pytest.approx(1, abs=1e-4)
    assert again(risk**3).mean() == pytest.approx(had.mean(), abs=1e-6)


def test_net_benefit_by_pencil():
    """At 0.25 odds are 1/3; flagged are three of four, two of them events."""
    (one,) = decision_curve([0.9, 0.5, 0.3, 0.1], [1, 1, 0, 0], thresholds=[0.25])
    assert one.model == pytest.approx((2 - 1 / 3) / 4)
    assert one.all == pytest.approx(0.5 - 0.5 / 3)
    with pytest.raises(InputError, match="between 0 and 1"):
        decision_curve([0.5], [1], thresholds=[1.0])


def test_one_class_or_no_spread_says_nothing():
    assert np.isnan(calibration([0.2, 0.3], [0, 0]).slope)
    assert Recalibration.fit([0.2, 0.3], [1, 1]) == Recalibration()
    assert Recalibration.fit([0.2, 0.8], [1, 0]).slope == 1, "a model that is upside down is not turned round"
    assert np.isnan(calibration([0.2, 0.2], [0, 1]).slope)
    separated = Recalibration.fit([0.2, 0.3, 0.7, 0.8], [0, 0, 1, 1])
    assert np.isfinite([separated.slope, separated.intercept]).all()


@pytest.mark.parametrize(
    ("p", "y", "says"), [([0.1], [0, 1], "equally long"), ([np.nan], [0], "NaN"), ([1.2], [0], "outside"), ([0.5], [2], "0 or 1")]
)
def test_what_cannot_be_judged_is_refused(p, y, says):
    with pytest.raises(InputError, match=says):
        brier(p, y)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=8, max_size=60))
def test_recalibration_keeps_ranks_and_meets_the_mean(pairs):
    p, y = (np.array(v, float) for v in zip(*pairs, strict=True))
    q = Recalibration.fit(p, y, slope=False)(p)
    assert (np.diff(q[np.argsort(p)]) >= -1e-12).all()
    if 0 < y.sum() < len(y):
        assert q.mean() == pytest.approx(y.mean(), abs=1e-4)
