"""How well a number tells two kinds apart: area under the ROC curve, and what a threshold catches and lets go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

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


def _part(some: int, of: int) -> float:
    return some / of if of else float("nan")
