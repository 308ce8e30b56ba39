"""What is gained by looking at the least certain first: risk over coverage, and errors missed over slices reviewed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oncontour.errors import InputError

Floats = NDArray[np.float64]


def risk_coverage(confidence: ArrayLike, risk: ArrayLike) -> tuple[Floats, Floats]:
    """(coverage, selective risk), both (n,): mean ``risk`` of the most confident i / n, for i = 1 ... n.

    Equal confidences count as in random order: each has the mean risk of those it is tied with. Raises InputError for lengths, NaN, none.
    """
    c, r = _pair(confidence, risk)
    _, tied = np.unique(-c, return_inverse=True)
    mean = np.bincount(tied, r) / np.bincount(tied)
    ordered = mean[np.sort(tied)]
    count = np.arange(1, len(r) + 1)
    return count / len(r), np.cumsum(ordered) / count


def aurc(confidence: ArrayLike, risk: ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean selective risk over all coverages (Geifman and El-Yaniv 2017); small is good.

    ``risk`` of a slice is for example 1 - DSC. An order that says nothing has the mean risk.
    """
    return float(risk_coverage(confidence, risk)[1].mean())


def best_aurc(risk: ArrayLike) -> float:
    """The AURC of the true order, which no prediction can beat."""
    r = np.asarray(risk, dtype=np.float64)
    return aurc(-r, r)


@dataclass(frozen=True)
class Review:
    """At one ``threshold``: ``reviewed``, the part of slices a person looks at; ``missed``, the part of errors that nobody sees."""

    threshold: float
    reviewed: float
    missed: float
    errors: int
    slices: int


def review(score: ArrayLike, error: ArrayLike, threshold: float) -> Review:
    """What is looked at where ``score`` (a predicted DSC, a lower bound) lies below ``threshold``, and which errors (bool) pass unseen.

    No error: ``missed`` is NaN.
    """
    s, e = _pair(score, np.asarray(error, dtype=np.float64))
    seen, wrong = s < threshold, e > 0
    missed = float((wrong & ~seen).sum() / wrong.sum()) if wrong.any() else float("nan")
    return Review(threshold, float(seen.mean()), missed, int(wrong.sum()), len(s))


def found_early(score: ArrayLike, amount: ArrayLike, part: float = 0.2) -> float:
    """Which share of all ``amount`` (wrong area, say) the ``part`` of slices with the largest ``score`` holds, the last one in proportion.

    Equal scores count as in random order; an order that says nothing finds ``part``. ``found_early(amount, amount)`` is the best possible.
    Raises InputError where there is nothing to find.
    """
    s, a = _pair(score, amount)
    if not a.sum() > 0:
        raise InputError("no amount among the slices: there is nothing to find")
    _, tied = np.unique(-s, return_inverse=True)
    mean = np.bincount(tied, a) / np.bincount(tied)
    found = np.concatenate([[0.0], np.cumsum(mean[np.sort(tied)])])
    return float(np.interp(part * len(s), np.arange(len(found)), found) / a.sum())


def reviewed_until(score: ArrayLike, wrong: ArrayLike, part: float = 0.9) -> float:
    """Which part of the slices is looked at, the largest ``score`` first, until ``part`` of those that are ``wrong`` (bool) were seen.

    Equal scores count as in random order: those tied are looked at in proportion. Nothing wrong: NaN.
    """
    s, w = _pair(score, np.asarray(wrong, dtype=np.float64))
    if not w.sum():
        return float("nan")
    _, tied = np.unique(-s, return_inverse=True)
    mean = np.bincount(tied, w) / np.bincount(tied)
    seen = np.concatenate([[0.0], np.cumsum(mean[np.sort(tied)])])
    enough = part * w.sum()
    n = int(np.searchsorted(seen, enough - 1e-9))
    step = seen[n] - seen[n - 1]
    return float((n - 1 + (enough - seen[n - 1]) / step) / len(s))


def first_places(score: ArrayLike, runs: Sequence[Hashable], slices: ArrayLike, most: int = 5) -> list[int]:
    """Rows of the first ``most`` places by ``score``, the largest first: a slice (``slices``, an integer each) that lies next to one that
    was looked at, of the same ``runs`` (the structure of each), belongs to that one's place and opens none. Equal scores: by row.
    """
    s, k = _pair(score, slices)
    seen: set[tuple[Hashable, int]] = set()
    found: list[int] = []
    for row in np.argsort(-s, kind="stable").tolist():
        here = runs[row], int(k[row])
        if not seen & {(here[0], here[1] - 1), here, (here[0], here[1] + 1)}:
            found.append(row)
        seen.add(here)
        if len(found) == most:
            break
    return found


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    a, b = (np.asarray(v, dtype=np.float64) for v in (first, second))
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(f"two equally long lists with something in them are needed, not {a.shape} and {b.shape}")
    if np.isnan(a).any() or np.isnan(b).any():
        raise InputError("a value is NaN: leave out or rank last what has none")
    return a, b
