"""Statistics with the patient as the unit: paired tests, Holm, and intervals that resample patients.

Slices, structures or visits of one patient are not independent, so nothing here counts them as if they were. A p-value is never printed
below the smallest one that the number of patients allows: with n paired patients a two-sided rank test cannot go below 2 / 2^n.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from oncontour.errors import InputError

Floats = NDArray[np.float64]
EXACT_UP_TO = 500
"""Patients up to which the signed-rank distribution is counted out; above, its normal approximation (with ties corrected) is used."""

_ROUNDING = 1e-11
"""Part of the largest that numbers may differ by and be the same."""


@dataclass(frozen=True)
class PairedTest:
    """``p`` of a two-sided paired test, ``statistic``, ``n`` pairs that entered, and ``floor``, the smallest p that n allows."""

    name: str
    n: int
    statistic: float
    p: float
    floor: float

    @property
    def text(self) -> str:
        return p_text(self.p, self.n)


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval from ``low`` to ``high``; ``clusters`` patients were resampled."""

    mean: float
    low: float
    high: float
    clusters: int
    level: float = 0.95


# ---- tests


def wilcoxon(first: ArrayLike, second: ArrayLike, zeros: Literal["drop", "pratt"] = "drop") -> PairedTest:
    """Wilcoxon's signed-rank test, two-sided: exact also with ties, for up to 500 patients, by counting out every pattern of signs.

    ``zeros``: pairs without difference are left out before ranking ("drop": Wilcoxon 1945, as SPSS and R do) or after it ("pratt",
    Pratt 1959); either way they do not count into ``n``. Two values that are equal, inf included (missed by both), differ by nothing;
    a pair with a NaN is left out. Nothing left: p is 1. ``statistic`` is the smaller of the two rank sums.
    """
    difference = _differences(first, second)
    if zeros == "drop":
        difference = difference[difference != 0]
    ranks = stats.rankdata(np.abs(difference))
    ranks, difference = ranks[difference != 0], difference[difference != 0]
    n = len(ranks)
    up, down = float(ranks[difference > 0].sum()), float(ranks[difference < 0].sum())
    p = _exact_signed_rank(ranks, up) if n <= EXACT_UP_TO else _normal_signed_rank(ranks, up)
    return PairedTest("signed rank", n, min(up, down), p, smallest_p(n))


def paired_t(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Student's paired t-test, two-sided. Fewer than two pairs, a difference that is not finite, or no spread at all: NaN.

    ``floor`` is that of the signed-rank test: what n patients can show without believing in a normal distribution.
    """
    difference = _differences(first, second)
    n = len(difference)
    if n < 2 or not np.isfinite(difference).all():
        return PairedTest("paired t", n, np.nan, np.nan, smallest_p(n))
    spread = float(difference.std(ddof=1) / np.sqrt(n))
    if spread <= _ROUNDING * float(np.abs(difference).max()):
        return PairedTest("paired t", n, np.nan, np.nan, smallest_p(n))
    t = float(difference.mean()) / spread
    return PairedTest("paired t", n, t, float(2 * stats.t.sf(abs(t), n - 1)), smallest_p(n))


def smallest_p(n: int) -> float:
    """2 / 2^n, the smallest two-sided p that n paired patients allow; 1 for none and for one."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm (1979) for being tested together, in the given order; NaN stays NaN and counts for nothing."""
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return [float(v) for v in out]


def p_text(p: float, n: int | None = None) -> str:
    """``p`` for a table: three decimals, ``< 0.001`` only where ``n`` paired patients allow that, and never less than they allow.

    >>> p_text(0.0412), p_text(1e-7, 15), p_text(1e-7, 5)
    ('0.041', '< 0.001', '>= 0.063 (n allows no less)')
    """
    floor = 0.0 if n is None else smallest_p(n)
    if np.isnan(p):
        return "not testable"
    if max(p, floor) < 0.001:
        return "< 0.001"
    if p < floor * (1 - 1e-9):
        return f">= {np.ceil(floor * 1000) / 1000:.3f} (n allows no less)"
    shown = f"{p:.3f}"
    if float(shown) < floor:  # rounding must not go below it either
        shown = f"{np.ceil(floor * 1000) / 1000:.3f}"
    return "> 0.999" if 0.9995 <= p < 1 else shown


# ---- intervals


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` with an interval from resampling whole ``clusters`` (the patient of each value), BCa (Efron 1987).

    With ``groups`` (the structure of each value) it is the mean over groups of each group's mean, so that a structure drawn in few
    patients weighs as much as one drawn in all. For a paired difference pass the differences. The same seed gives the same interval.

    NaN values are left out. No value left: NaN. One cluster: no interval (NaN). An ``inf`` (a missed structure's distance) makes the mean
    inf and the interval that of plain percentiles, which may reach inf; inf and -inf together make NaN. Raises InputError for lengths that
    do not match.
    """
    sums, counts = _tables(values, clusters, groups)
    n = len(sums)
    if not n:
        return Interval(np.nan, np.nan, np.nan, 0, level)
    mean = float(_mean_of_means(np.ones((1, n)), sums, counts)[0])
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1, level)
    resampled = _mean_of_means(_draws(n, draws, seed), sums, counts)
    resampled = resampled[~np.isnan(resampled)]
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if np.isfinite(resampled).all() and np.isfinite(mean):
        low, high = np.quantile(resampled, _bca_tails(tails, resampled, mean, _mean_of_means(1 - np.eye(n), sums, counts)))
    else:
        low, high = np.quantile(resampled, tails, method="inverted_cdf")
    return Interval(mean, float(low), float(high), n, level)


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], clusters: Sequence[Hashable], *, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> Interval:
    """Any ``statistic`` of rows (given as indices) with a percentile interval from resampling whole ``clusters`` (the patient of each row).

    Draws for which the statistic is NaN (an AUC without positives) are left out. No row: NaN. One cluster: no interval (NaN).
    """
    rows: dict[Hashable, list[int]] = {}
    for n, cluster in enumerate(clusters):
        rows.setdefault(cluster, []).append(n)
    groups = [np.array(group, dtype=np.intp) for group in rows.values()]
    if not groups:
        return Interval(np.nan, np.nan, np.nan, 0, level)
    value = statistic(np.arange(len(clusters)))
    if len(groups) == 1:
        return Interval(value, np.nan, np.nan, 1, level)
    rng = np.random.default_rng(seed)
    picked = (rng.integers(len(groups), size=len(groups)) for _ in range(draws))
    drawn = np.array([statistic(np.concatenate([groups[n] for n in some])) for some in picked])
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if len(drawn) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), len(groups), level)


@lru_cache(maxsize=4)
def _draws(n: int, draws: int, seed: int) -> Floats:
    """(draws, n) how often each of n clusters is drawn; one table serves all numbers of an evaluation."""
    out = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    out.setflags(write=False)
    return out


def _tables(values: ArrayLike, clusters: Sequence[Hashable], groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and count of the values of each (cluster, group)."""
    v = np.asarray(values, dtype=np.float64)
    together = list(groups) if groups is not None else [None] * len(v)
    if v.ndim != 1 or not len(v) == len(clusters) == len(together):
        raise InputError(f"values, clusters and groups must be equally long, not {v.shape}, {len(clusters)} and {len(together)}")
    known = [int(n) for n in np.flatnonzero(~np.isnan(v))]
    row = {c: n for n, c in enumerate(dict.fromkeys(clusters[n] for n in known))}
    column = {g: n for n, g in enumerate(dict.fromkeys(together[n] for n in known))}
    sums, counts = np.zeros((len(row), len(column))), np.zeros((len(row), len(column)))
    for n in known:
        at = row[clusters[n]], column[together[n]]
        sums[at] += v[n]
        counts[at] += 1
    return sums, counts


def _mean_of_means(weights: Floats, sums: Floats, counts: Floats) -> Floats:
    """(draws,) mean over groups of (weighted sum / weighted count), for (draws, clusters) weights; a group nobody drawn has is left out."""
    infinite = np.isinf(sums)
    total = weights @ np.where(infinite, 0, sums)
    for sign in (np.inf, -np.inf) if infinite.any() else ():  # by hand, as 0 * inf would be NaN
        total = total + np.where(weights @ (sums == sign) > 0, sign, 0)
    count = weights @ counts
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    have = (count > 0).sum(axis=1)
    return np.asarray(np.divide(np.nansum(means, axis=1), have, out=np.full(len(means), np.nan), where=have > 0))


def _bca_tails(tails: Floats, resampled: Floats, mean: float, left_out: Floats) -> Floats:
    """The quantiles to read: corrected for bias and acceleration (Efron 1987); the plain ones where all values agree."""
    same = _ROUNDING * float(np.abs(resampled).max())  # a draw of everybody once has the mean itself, but for rounding
    below = (np.count_nonzero(resampled < mean - same) + np.count_nonzero(np.abs(resampled - mean) <= same) / 2) / len(resampled)
    away = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    spread = float((away**2).sum())
    if spread <= 1e-24 or not 0 < below < 1:
        return tails
    acceleration = float((away**3).sum()) / (6 * spread**1.5)
    bias = float(stats.norm.ppf(below))
    z = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)))


# ---- the signed-rank distribution


def _differences(first: ArrayLike, second: ArrayLike) -> Floats:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"a paired test needs two equally long lists, not {a.shape} and {b.shape}")
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    out = np.zeros(len(a))
    np.subtract(a, b, out=out, where=a != b)
    # differences that only rounding tells apart are ties: 0.9 - 0.8 and 0.8 - 0.7
    scale = float(np.abs(out[np.isfinite(out)]).max(initial=0))
    digits = 12 - int(np.floor(np.log10(scale))) if scale > 0 else 0
    return np.asarray(np.where(np.isfinite(out), np.round(out, min(max(digits, -300), 300)), out))


def _exact_signed_rank(ranks: Floats, up: float) -> float:
    """Two-sided p: every pattern of signs equally likely; sums of doubled ranks (whole numbers, ties or not) built up one by one."""
    doubled = np.rint(2 * ranks).astype(int)
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    reached = 0
    for rank in doubled:
        chance[rank : reached + rank + 1] += chance[: reached + 1].copy()
        chance[: reached + rank + 1] /= 2
        reached += rank
    at = round(2 * up)
    return float(min(1.0, 2 * min(chance[: at + 1].sum(), chance[at:].sum())))


def _normal_signed_rank(ranks: Floats, up: float) -> float:
    """Two-sided p by the normal approximation with continuity corrected; its variance is a quarter of the squared ranks, ties or not."""
    away = max(0.0, abs(up - ranks.sum() / 2) - 0.5)
    return float(min(1.0, 2 * stats.norm.sf(away / np.sqrt((ranks**2).sum() / 4))))
