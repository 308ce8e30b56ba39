"""Risk-coverage and review curves by pencil."""

import numpy as np
import pytest

from oncontour.errors import InputError
from oncontour.metrics.risk_coverage import aurc, best_aurc, first_places, found_early, review, reviewed_until, risk_coverage


def test_aurc_by_pencil():
    """Confidence 0.9, 0.8, 0.1 with risks 0, 0.3, 0.6: running means 0, 0.15, 0.3, whose mean is 0.15."""
    coverage, risk = risk_coverage([0.1, 0.9, 0.8], [0.6, 0.0, 0.3])
    assert coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk == pytest.approx([0, 0.15, 0.3])
    assert aurc([0.1, 0.9, 0.8], [0.6, 0.0, 0.3]) == pytest.approx(0.15)
    assert best_aurc([0.6, 0.0, 0.3]) == pytest.approx(0.15)
    assert aurc([0.9, 0.1, 0.5], [0.6, 0.0, 0.3]) == pytest.approx((0.6 + 0.45 + 0.3) / 3)


def test_ties_count_as_in_random_order():
    risk = np.array([0.0, 1.0, 0.2, 0.4])
    assert aurc(np.ones(4), risk) == pytest.approx(risk.mean())
    assert aurc([1, 1, 0, 0], risk) == pytest.approx((0.5 + 0.5 + (1 + 0.3) / 3 + 0.4) / 4)


def test_review_by_pencil():
    """Of five slices two are looked at; of three errors one is among them."""
    seen = review([0.9, 0.6, 0.95, 0.7, 0.85], [False, True, True, False, True], 0.8)
    assert seen.reviewed == pytest.approx(0.4)
    assert seen.missed == pytest.approx(2 / 3)
    assert (seen.errors, seen.slices) == (3, 5)
    assert np.isnan(review([0.5], [False], 0.8).missed)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(InputError, match="NaN"):
        aurc([np.nan], [0.1])
    with pytest.raises(InputError, match="equally long"):
        aurc([], [])


def test_what_the_first_slices_hold_by_pencil():
    """Ten slices, 10 cm2 wrong in all. The two with the largest scores hold 4 and 1 of them; the best two 4 and 3."""
    amount = np.array([4.0, 1.0, 3.0, 2.0, 0, 0, 0, 0, 0, 0])
    score = np.array([9.0, 8.0, 1.0, 2.0, 0, 0, 0, 0, 0, 0])
    assert found_early(score, amount) == pytest.approx(0.5)
    assert found_early(amount, amount) == pytest.approx(0.7)
    assert found_early(score, amount, 0.05) == pytest.approx(0.2), "half of the first slice"
    assert found_early(score, amount, 1.0) == pytest.approx(1.0)
    assert found_early(np.ones(10), amount) == pytest.approx(0.2), "an order that says nothing"
    assert found_early([1, 1, 0, 0], [2.0, 0, 2.0, 0], 0.25) == pytest.approx(0.25), "of two alike the mean"
    with pytest.raises(InputError, match="nothing to find"):
        found_early(score, np.zeros(10))


def test_reviewed_until_by_pencil() -> None:
    """Four slices, the second and the fourth wrong: nine tenths of two is 1.8, reached 0.8 of the way through the fourth. Ties count in
    proportion: all four alike find half a slice each."""
    assert reviewed_until([4, 3, 2, 1], [0, 1, 0, 1], 0.9) == pytest.approx(3.8 / 4)
    assert reviewed_until([4, 3, 2, 1], [1, 1, 0, 0], 0.5) == pytest.approx(1 / 4)
    assert reviewed_until([1, 1, 1, 1], [1, 0, 0, 1], 0.9) == pytest.approx(0.9)
    assert np.isnan(reviewed_until([1, 2], [0, 0]))


def test_places_count_neighbours_once() -> None:
    """Slice 2 of A lies beside slice 1, and slice 3 beside slice 2, which was looked at; slice 3 of B is another organ's."""
    assert first_places([9, 8, 7, 6, 5], ["A", "A", "A", "B", "A"], [1, 2, 3, 3, 9], 3) == [0, 3, 4]
    assert first_places([1, 2], ["A", "A"], [1, 5]) == [1, 0]
