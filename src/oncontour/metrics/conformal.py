"""A bound with a stated error rate from patients whose truth is known: split conformal, with the patient as the unit.

Slices of one patient are alike, patients are exchangeable. Of K patients, the k-th with n_k slices of scores s_ki, the offset is

    q = the smallest number with  sum_k sum_i [s_ki <= q] / (n_k (K + 1)) >= coverage

a quantile in which every patient weighs the same and one more patient, the new one, is taken as worse than all ("hierarchical": Lee, Barber
and Willett 2023, arXiv 2306.06342, HCP; after Dunn, Wasserman and Ramdas 2022). A slice drawn at random from a new patient has its score
at or below q with at least the stated probability. It is careful: up to 1 / K above it. "pooled" leaves the extra patient out: right on
average over many patients, without the promise for few.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oncontour.errors import InputError
from oncontour.metrics.stats import Interval, bootstrap_mean

Method = Literal["hierarchical", "pooled"]
_ROUNDING = 1e-12


def offset(scores: ArrayLike, patients: Sequence[Hashable], coverage: float = 0.9, method: Method = "hierarchical") -> float:
    """q of the module's words; ``inf`` where there are too few patients for the promise (below 9 for 90 %).

    For a lower bound on a DSC, ``scores`` are (predicted bound - true DSC) and the bound that holds is the predicted one minus q.
    Raises InputError for lengths that differ, NaN, or a coverage outside (0, 1).
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or len(s) != len(patients) or np.isnan(s).any():
        raise InputError(f"a score, no NaN, for each slice and the patient of each are needed, not {s.shape} and {len(patients)}")
    if not 0 < coverage < 1:
        raise InputError(f"a coverage lies between 0 and 1, not at {coverage}")
    if not len(s):
        return float("inf")
    of = _numbers(patients)
    slices = np.bincount(of)
    order = np.argsort(s, kind="stable")
    reached = np.cumsum(1.0 / slices[of][order]) / (len(slices) + (method == "hierarchical"))
    at = int(np.searchsorted(reached, coverage - _ROUNDING))
    return float(s[order[at]]) if at < len(s) else float("inf")


def covered(true: ArrayLike, lower: ArrayLike, patients: Sequence[Hashable], *, draws: int = 2000) -> Interval:
    """Part of slices whose true value is at or above its bound, averaged over patients, with an interval from resampling them.

    A bound of -inf (or NaN: none was given) covers; nothing there: NaN.
    """
    t, b = (np.asarray(v, dtype=np.float64) for v in (true, lower))
    if t.shape != b.shape or t.ndim != 1 or len(t) != len(patients):
        raise InputError(f"truth, bounds and patients must be equally long, not {t.shape}, {b.shape} and {len(patients)}")
    holds = ~(t < b)
    of = _numbers(patients)
    each = np.bincount(of, holds) / np.bincount(of)
    return bootstrap_mean(each, list(dict.fromkeys(patients)), draws=draws)


def _numbers(patients: Sequence[Hashable]) -> NDArray[np.intp]:
    """The patient of each slice as a number from 0, in order of arrival."""
    index = {name: n for n, name in enumerate(dict.fromkeys(patients))}
    return np.array([index[p] for p in patients], dtype=np.intp)
