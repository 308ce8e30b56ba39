"""How well a number tells two kinds apart: AUC with its interval, two of them compared, and what a threshold catches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import expit

from oncontour.errors import InputError


@dataclass(frozen=True)
class Confusion:
    """Counts of a yes-no decision against the truth."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def sensitivity(self) -> float:
        """Part of the positives that were flagged. No positive: NaN."""
        return _part(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Part of the negatives that were left alone. No negative: NaN."""
        return _part(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """Part of the flagged that are positive (positive predictive value). Nothing flagged: NaN."""
        return _part(self.true_positive, self.true_positive + self.false_positive)


def confusion(flagged: ArrayLike, positive: ArrayLike) -> Confusion:
    """Count ``flagged`` (bool) against ``positive`` (bool). Raises InputError for lengths that differ."""
    f, p = (np.asarray(v, dtype=bool) for v in (flagged, positive))
    if f.shape != p.shape or f.ndim != 1:
        raise InputError(f"flags and truth must be equally long lists, not {f.shape} and {p.shape}")
    return Confusion(int((f & p).sum()), int((f & ~p).sum()), int((~f & ~p).sum()), int((~f & p).sum()))


def auc(score: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive has the higher ``score``, ties counting one half (Hanley and McNeil 1982).

    No positive, or no negative: NaN. Raises InputError for lengths that differ or a score that is NaN.
    """
    s, p = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    if s.shape != p.shape or s.ndim != 1:
        raise InputError(f"scores and truth must be equally long lists, not {s.shape} and {p.shape}")
    if np.isnan(s).any():
        raise InputError("a score is NaN: leave out or rank last what has none")
    n, m = int(p.sum()), int((~p).sum())
    if not n or not m:
        return float("nan")
    ranks: NDArray[np.float64] = stats.rankdata(s)
    return float((ranks[p].sum() - n * (n + 1) / 2) / (n * m))


@dataclass(frozen=True)
class AucInterval:
    """An AUC with DeLong's interval from ``low`` to ``high``; ``se`` its standard error. NaN where a class is missing."""

    auc: float
    low: float
    high: float
    se: float
    level: float = 0.95


@dataclass(frozen=True)
class AucDifference:
    """AUC of the first less that of the second on the same patients, its interval and two-sided ``p`` (DeLong)."""

    difference: float
    low: float
    high: float
    p: float
    level: float = 0.95


def delong(score: ArrayLike, positive: ArrayLike, *, level: float = 0.95) -> AucInterval:
    """The AUC with the interval of DeLong, DeLong and Clarke-Pearson (Biometrics 1988;44:837), taken on the logit scale so that it stays
    within 0 to 1. Patients count as independent: for virtual patients of one original see ``stats.bootstrap``. An AUC of 0 or 1: NaN.
    """
    area = auc(score, positive)
    if np.isnan(area):
        return AucInterval(area, np.nan, np.nan, np.nan, level)
    se = float(np.sqrt(_covariance([score], positive)[0, 0]))
    if not 0 < area < 1:
        return AucInterval(area, np.nan, np.nan, se, level)
    z, wide = np.log(area / (1 - area)), stats.norm.ppf((1 + level) / 2) * se / (area * (1 - area))
    low, high = (float(expit(z + sign * wide)) for sign in (-1, 1))
    return AucInterval(area, low, high, se, level)


def paired_delong(first: ArrayLike, second: ArrayLike, positive: ArrayLike, *, level: float = 0.95) -> AucDifference:
    """Two scores of the same patients compared (DeLong 1988). Where they rank all pairs alike: difference 0, p 1. One class only: NaN."""
    one, other = auc(first, positive), auc(second, positive)
    if np.isnan(one):
        return AucDifference(np.nan, np.nan, np.nan, np.nan, level)
    c = _covariance([first, second], positive)
    se = float(np.sqrt(max(c[0, 0] + c[1, 1] - 2 * c[0, 1], 0.0)))
    d = one - other
    if se < 1e-12:
        return AucDifference(d, d, d, 1.0 if abs(d) < 1e-12 else 0.0, level)
    wide = float(stats.norm.ppf((1 + level) / 2)) * se
    return AucDifference(d, d - wide, d + wide, float(2 * stats.norm.sf(abs(d) / se)), level)


def youden(score: ArrayLike, positive: ArrayLike) -> float:
    """The threshold (flagged at it and above) of the largest sensitivity + specificity (Youden 1950), half-way to the score below.

    To be taken from training patients. One class only: NaN.
    """
    s, p = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    if np.isnan(auc(s, p)):
        return float("nan")
    levels = np.unique(s)
    gains = [float((s[p] >= at).mean() - (s[~p] >= at).mean()) for at in levels]
    best = int(np.argmax(gains))
    return float(levels[best] if best == 0 else (levels[best] + levels[best - 1]) / 2)


def _covariance(scores: Sequence[ArrayLike], positive: ArrayLike) -> NDArray[np.float64]:
    """Covariance of the AUCs of ``scores`` by their structural components; 0 from a class of one."""
    p = np.asarray(positive, dtype=bool)
    n, m = int(p.sum()), int((~p).sum())
    above, below = np.empty((len(scores), n)), np.empty((len(scores), m))
    for row, score in enumerate(scores):
        s = np.asarray(score, dtype=np.float64)
        whole, own, other = stats.rankdata(s), stats.rankdata(s[p]), stats.rankdata(s[~p])
        above[row], below[row] = (whole[p] - own) / m, 1 - (whole[~p] - other) / n
    out = np.zeros((len(scores), len(scores)))
    for part in (above, below):
        if part.shape[1] > 1:
            out += np.atleast_2d(np.cov(part)) / part.shape[1]
    return out


def _part(some: int, of: int) -> float:
    return some / of if of else float("nan")
