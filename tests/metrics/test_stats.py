import doctest
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as peer

from oncontour.errors import InputError
from oncontour.metrics import stats
from oncontour.metrics.stats import bootstrap_mean, holm, p_text, paired_t, smallest_p, wilcoxon

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Cross- minus self-fertilised maize, eighths of an inch: Darwin 1876, as analysed by Fisher (The Design of Experiments, 1935, ch. 3)."""
HAMILTON_1 = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
HAMILTON_2 = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
"""Depression scale before and after treatment: Hollander and Wolfe 1973, p. 29."""
ZEROS = [0] * 15


# ---- published numbers


def test_signed_rank_of_darwins_maize() -> None:
    test = wilcoxon(DARWIN, ZEROS)
    assert (test.n, test.statistic) == (15, 24)
    assert test.p == pytest.approx(0.04125976562, abs=1e-11)


def test_paired_t_of_darwins_maize() -> None:
    test = paired_t(DARWIN, ZEROS)
    assert test.statistic == pytest.approx(2.148, abs=5e-4)  # Fisher's t with 14 degrees of freedom
    assert test.p == pytest.approx(0.0497, abs=5e-5)


def test_signed_rank_of_the_depression_scale() -> None:
    test = wilcoxon(HAMILTON_1, HAMILTON_2)
    assert test.statistic == 5  # the other sum is 40
    assert test.p / 2 == pytest.approx(0.01953, abs=5e-6)  # published one-sided


def test_holm_from_a_pencil() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
    assert holm([0.01, np.nan])[0] == 0.01
    assert np.isnan(holm([0.01, np.nan])[1])


# ---- signed rank


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_exact_with_ties_is_every_pattern_of_signs(differences: list[int]) -> None:
    kept = [d for d in differences if d]
    ranks = peer.rankdata(np.abs(kept)) if kept else np.empty(0)
    up = ranks[np.array(kept) > 0].sum() if kept else 0.0
    sums = np.array([np.dot(signs, ranks) for signs in product((0, 1), repeat=len(kept))])
    expected = min(1.0, 2 * min((sums <= up + 1e-9).mean(), (sums >= up - 1e-9).mean()))
    assert wilcoxon(differences, [0] * len(differences)).p == pytest.approx(expected)


@pytest.mark.parametrize("n", [5, 15, 25, 50])
def test_agrees_with_scipy_without_ties(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
    expected = peer.wilcoxon(a, b, method="exact")
    assert wilcoxon(a, b).p == pytest.approx(expected.pvalue, rel=1e-9)
    assert wilcoxon(a, b).statistic == pytest.approx(expected.statistic)
    assert paired_t(a, b).p == pytest.approx(peer.ttest_rel(a, b).pvalue, rel=1e-9)


def test_large_n_goes_over_smoothly() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 1, 501), rng.normal(0, 1, 501)
    ranks = np.arange(1.0, 501)
    assert stats._normal_signed_rank(ranks, 55_000.0) == pytest.approx(stats._exact_signed_rank(ranks, 55_000.0), rel=0.02)
    assert wilcoxon(a, b).p == pytest.approx(peer.wilcoxon(a, b, method="asymptotic", correction=True).pvalue, rel=1e-6)


def test_zeros_dropped_or_by_pratt() -> None:
    a, b = [1.0, 2, 3, 4, 5], [1.0, 1, 1, 1, 6]
    assert wilcoxon(a, b).n == wilcoxon(a, b, zeros="pratt").n == 4
    # dropped: differences 1, 2, 3, -1 rank 1.5, 3, 4, 1.5. Pratt: zero takes rank 1, they rank 2.5, 4, 5, 2.5
    assert wilcoxon(a, b).statistic == 1.5
    assert wilcoxon(a, b, zeros="pratt").statistic == 2.5


def test_rounding_makes_no_difference_between_ties() -> None:
    assert wilcoxon([0.9, 0.8, 0.3], [0.8, 0.7, 0.4]).p == wilcoxon([1, 1, -1], [0, 0, 0]).p


def test_missed_structures_are_the_largest_difference_and_equal_to_each_other() -> None:
    test = wilcoxon([np.inf, 2, 3, np.inf], [1, 1, 1, np.inf])
    assert (test.n, test.statistic, test.p) == (3, 0, 0.25)
    assert np.isnan(paired_t([np.inf, 2], [1, 1]).p)


def test_nothing_to_test() -> None:
    assert wilcoxon([1, 2], [1, 2]).p == 1
    assert wilcoxon([np.nan], [1]).n == 0
    assert np.isnan(paired_t([1, 2], [0, 1]).p)  # no spread
    assert np.isnan(paired_t([5 / 6, 5 / 6 + 0.1, 0.9], [4 / 6, 4 / 6 + 0.1, 0.9 - 1 / 6]).p)  # none but that of rounding
    with pytest.raises(InputError, match="equally long"):
        wilcoxon([1, 2], [1])


# ---- what n allows


@pytest.mark.parametrize("n", [1, 2, 5, 6, 15])
def test_the_smallest_p_is_reached_and_not_passed(n: int) -> None:
    assert wilcoxon(np.arange(1, n + 1), np.zeros(n)).p == pytest.approx(smallest_p(n)) == pytest.approx(min(1, 2 / 2**n))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(1, 30))
def test_never_printed_below_what_n_allows(p: float, n: int) -> None:
    text = p_text(p, n)
    if text == "< 0.001":
        assert smallest_p(n) < 0.001
    else:
        assert float(text.split()[-1] if text.startswith(">") and "n" not in text else text.removeprefix(">= ").split()[0]) >= min(
            smallest_p(n), 0.999
        )


def test_p_in_words() -> None:
    assert p_text(0.04126) == "0.041"
    assert p_text(0.0625, 5) == "0.063"
    assert p_text(1e-9) == "< 0.001"
    assert p_text(0.99996) == "> 0.999"
    assert p_text(1) == "1.000"
    assert p_text(float("nan")) == "not testable"
    assert paired_t([1.0, 2.0, 3.01], [0.0, 1.0, 2.0]).text == ">= 0.250 (n allows no less)"
    assert doctest.testmod(stats).failed == 0


# ---- intervals


def test_bca_agrees_with_scipy() -> None:
    sample = np.random.default_rng(1).gamma(2, 1, 20)
    expected = peer.bootstrap((sample,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(0)).confidence_interval
    found = bootstrap_mean(sample, range(20), draws=20_000)
    assert found.mean == pytest.approx(sample.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert bootstrap_mean(sample, range(20)) == bootstrap_mean(sample, range(20))  # seeded


def test_patients_are_resampled_not_slices() -> None:
    """Ten equal slices a patient tell no more than one."""
    means = np.array([0.5, 0.7, 0.8, 0.9, 0.6])
    one = bootstrap_mean(means, range(5))
    ten = bootstrap_mean(np.repeat(means, 10), np.repeat(np.arange(5), 10).tolist())
    assert (ten.low, ten.high, ten.clusters) == pytest.approx((one.low, one.high, 5))


def test_mean_over_structures_when_one_is_rare() -> None:
    found = bootstrap_mean([1.0, 1.0, 0.0], ["a", "b", "a"], ["cord", "cord", "larynx"])
    assert found.mean == 0.5  # cord 1, larynx 0; not 2/3


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        found = bootstrap_mean(rng.normal(0.8, 0.1, 25), range(25), draws=500)
        hits += found.low <= 0.8 <= found.high
    assert 0.88 < hits / 200 < 0.99


def test_little_or_odd_data() -> None:
    assert np.isnan(bootstrap_mean([], []).mean)
    alone = bootstrap_mean([0.7], ["a"])
    assert alone.mean == 0.7
    assert np.isnan([alone.low, alone.high]).all()
    same = bootstrap_mean([0.5] * 4, range(4))
    assert (same.low, same.high) == (0.5, 0.5)
    assert bootstrap_mean([0.5, np.nan], ["a", "b"]).clusters == 1
    missed = bootstrap_mean([1.0, 2.0, np.inf, 3.0], range(4))
    assert (missed.mean, missed.high) == (np.inf, np.inf)
    with pytest.raises(InputError, match="equally long"):
        bootstrap_mean([1.0], ["a", "b"])


@pytest.mark.parametrize("values", [(13, 8, 7, 2), (13, 11, 7, 4), (1, 2, 7, 8, 13)])
def test_an_interval_does_not_hang_on_the_unit(values: tuple[int, ...]) -> None:
    """A draw of every patient once has the mean itself: in whole numbers and, but for rounding, in others."""
    whole = bootstrap_mean(values, range(len(values)))
    for unit in (0.7, 0.1):
        part = bootstrap_mean([v * unit for v in values], range(len(values)))
        assert (part.low / unit, part.high / unit) == pytest.approx((whole.low, whole.high))
