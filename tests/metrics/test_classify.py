"""AUC, sensitivity, specificity by pencil."""

import numpy as np
import pytest

from oncontour.errors import InputError
from oncontour.metrics.classify import auc, confusion


def test_auc_by_pencil():
    """Positives 0.8 and 0.4, negatives 0.5, 0.4, 0.1: of six pairs the first wins three, the second one and a half: 4.5 / 6."""
    assert auc([0.8, 0.4, 0.5, 0.4, 0.1], [True, True, False, False, False]) == pytest.approx(0.75)


def test_auc_of_a_perfect_a_reversed_and_a_silent_score():
    positive = [False, False, True, True]
    assert auc([1, 2, 3, 4], positive) == 1
    assert auc([4, 3, 2, 1], positive) == 0
    assert auc([5, 5, 5, 5], positive) == 0.5
    assert np.isnan(auc([1, 2], [True, True]))


def test_counts_by_pencil():
    seen = confusion([True, True, True, False, False, False, False], [True, True, False, True, False, False, False])
    assert (seen.true_positive, seen.false_positive, seen.true_negative, seen.false_negative) == (2, 1, 3, 1)
    assert seen.sensitivity == pytest.approx(2 / 3)
    assert seen.specificity == pytest.approx(3 / 4)
    assert seen.precision == pytest.approx(2 / 3)
    assert np.isnan(confusion([False], [False]).sensitivity)


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="equally long"):
        auc([1.0], [True, False])
    with pytest.raises(InputError, match="NaN"):
        auc([np.nan, 1.0], [True, False])
    with pytest.raises(InputError, match="equally long"):
        confusion([True], [True, False])
