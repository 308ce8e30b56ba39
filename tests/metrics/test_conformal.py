"""The bound: offsets by pencil, and coverage of simulated patients within what chance allows."""

import numpy as np
import pytest

from oncontour.errors import InputError
from oncontour.metrics.conformal import covered, offset


def test_offsets_by_pencil():
    """Nine patients of one slice each, scores 1 to 9: the hierarchical 90 % quantile of ten (one is infinite) is 9, the pooled one 9 too
    (0.9 * 9 = 8.1); at 80 % they are 8 and 8 (7.2); with eight patients nothing holds at 90 %."""
    names = list("abcdefghi")
    scores = np.arange(1.0, 10)
    assert offset(scores, names, 0.9) == 9
    assert offset(scores, names, 0.8) == 8
    assert offset(scores, names, 0.8, "pooled") == 8
    assert offset(scores, names, 0.7, "pooled") == 7
    assert offset(scores[:8], names[:8], 0.9) == np.inf
    assert offset([], [], 0.9) == np.inf


def test_a_patient_with_many_slices_weighs_as_much_as_one_with_few():
    """Patient a has 100 slices of score 1, b to j one of score 0 each: a's slices are a tenth, so at 85 % pooled the offset is 0."""
    scores = [1.0] * 100 + [0.0] * 9
    patients = ["a"] * 100 + list("bcdefghij")
    assert offset(scores, patients, 0.85, "pooled") == 0
    assert offset(scores, ["same"] * 109, 0.85, "pooled") == 1


def test_coverage_of_new_patients_is_what_was_promised():
    """1200 times: 30 patients to calibrate on, each with its own level and number of slices, one slice of a new one. The hierarchical
    bound must hold at least as often as promised and at most 1 / 30 + 3 standard errors more."""
    rng = np.random.default_rng(1)
    hits, repeats, patients = 0, 1200, 30
    for _ in range(repeats):
        level = rng.normal(0, 1, patients + 1)
        count = rng.integers(1, 12, patients)
        scores = [level[n] + rng.normal(0, 0.7, count[n]) for n in range(patients)]
        q = offset(np.concatenate(scores), np.repeat(np.arange(patients), count).tolist(), 0.9)
        hits += level[-1] + rng.normal(0, 0.7) <= q
    error = np.sqrt(0.9 * 0.1 / repeats)
    assert 0.9 - 3 * error <= hits / repeats <= 0.9 + 1 / patients + 3 * error


def test_counting_slices_instead_of_patients_would_break_the_promise():
    """The patients with the most slices are the good ones here: a quantile over slices is too bold, the one over patients is not."""
    rng = np.random.default_rng(2)
    by_patient, by_slice, repeats = 0, 0, 300
    for _ in range(repeats):
        bad = rng.random(41) < 0.3
        count = np.where(bad[:-1], 2, 40)
        scores = [np.where(bad[n], 1.0, 0.0) + rng.normal(0, 0.1, count[n]) for n in range(40)]
        s = np.concatenate(scores)
        new = float(bad[-1]) + rng.normal(0, 0.1)
        by_patient += new <= offset(s, np.repeat(np.arange(40), count).tolist(), 0.9)
        by_slice += new <= np.quantile(s, 0.9)
    assert by_patient / repeats >= 0.9 - 3 * np.sqrt(0.09 / repeats)
    assert by_slice / repeats < 0.8


def test_coverage_is_averaged_over_patients():
    """Patient a: 1 of 2 slices, b: 1 of 1. Averaged over patients 0.75; NaN, no bound, covers."""
    held = covered([0.5, 0.5, 0.9], [0.6, 0.4, np.nan], ["a", "a", "b"])
    assert held.mean == pytest.approx(0.75)
    assert held.clusters == 2


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        offset([1.0], ["a"], 1.0)
    with pytest.raises(InputError, match="no NaN"):
        offset([np.nan], ["a"], 0.9)
    with pytest.raises(InputError, match="equally long"):
        covered([1.0], [1.0], [])
