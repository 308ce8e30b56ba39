"""AUC with DeLong's interval, two compared, and the threshold: by pencil, and against resampling."""

import numpy as np
import pytest

from oncontour.metrics.classify import auc, delong, paired_delong, youden


def test_delong_s_components_by_pencil():
    """Events at 1, 3, 4; none at 0, 2. Above: 0.5, 1, 1; below: 1, 2/3. Variance: var(above)/3 + var(below)/2."""
    score, had = [1, 3, 4, 0, 2], [1, 1, 1, 0, 0]
    found = delong(score, had)
    assert found.auc == pytest.approx(5 / 6)
    assert found.se**2 == pytest.approx(np.var([0.5, 1, 1], ddof=1) / 3 + np.var([1, 2 / 3], ddof=1) / 2)
    assert 0 < found.low < found.auc < found.high < 1


def test_the_interval_is_that_of_repeated_cohorts():
    """Normal scores a standard deviation apart, 60 and 90 patients: the spread of 2000 cohorts' AUCs is DeLong's standard error."""
    rng = np.random.default_rng(0)
    had = np.arange(150) < 60
    drawn = rng.normal(size=(2000, 150)) + had
    areas = np.array([auc(row, had) for row in drawn])
    assert np.mean([delong(row, had).se for row in drawn[:200]]) == pytest.approx(areas.std(), rel=0.06)
    inside = np.mean([d.low < areas.mean() < d.high for d in (delong(row, had) for row in drawn[:400])])
    assert 0.92 < inside < 0.98


def test_pairs_compared():
    rng = np.random.default_rng(1)
    had = np.arange(200) < 80
    good = rng.normal(size=200) + 1.5 * had
    poor = rng.normal(size=200) + 0.3 * had
    one = paired_delong(good, poor, had)
    assert one.difference == pytest.approx(auc(good, had) - auc(poor, had))
    assert one.low > 0
    assert one.p < 0.001
    same = paired_delong(good, 2 * good + 1, had)
    assert (same.difference, same.p) == (pytest.approx(0), 1.0)
    close = paired_delong(good, good + 0.05 * rng.normal(size=200), had)
    assert close.high - close.low < (delong(good, had).high - delong(good, had).low) / 3, "paired: what both share cancels"


def test_a_pair_by_pencil():
    """Second score: events at 2, 5, 1, none at 3, 0. Components above 0.5, 1, 0.5, below 1/3, 1; with the first's (see above) covariances
    of 1/24 and -1/9. Variance of the difference: 1/18 + 5/36 + 2 (1/9 / 2 - 1/24 / 3) = 5/18; z = (1/6) / sqrt(5/18) = 1 / sqrt(10).
    """
    found = paired_delong([1, 3, 4, 0, 2], [2, 5, 1, 3, 0], [1, 1, 1, 0, 0])
    assert found.difference == pytest.approx(5 / 6 - 2 / 3)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * np.sqrt(5 / 18), rel=1e-6)
    assert found.p == pytest.approx(0.75183, abs=1e-5), "two-sided at 0.316228 standard deviations"


def test_one_class_has_no_auc():
    assert np.isnan(delong([1, 2], [1, 1]).auc)
    assert np.isnan(paired_delong([1, 2], [2, 1], [0, 0]).difference)
    assert np.isnan(youden([1, 2], [0, 0]))


def test_youden_by_pencil():
    """At 2.5 one of two without is flagged and all with; at 4.5 nothing is gained."""
    assert youden([1, 2, 3, 5], [0, 0, 1, 1]) == 2.5
    assert youden([1, 4, 3, 5], [0, 0, 1, 1]) == 2.0
