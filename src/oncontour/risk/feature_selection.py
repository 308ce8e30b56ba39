"""Few features out of hundreds, chosen inside the training fold and nowhere else.

    chosen = select(table, names, y, groups, Selection())      the only call that sees outcomes
    x, notes = chosen.apply(other_table, names)                 standardised as the training patients say

Steps, each switchable: features that are not known of enough patients or that do not vary go; of two that rank patients alike the weaker
goes; then minimum redundancy, maximum relevance (Ding and Peng 2005), or LASSO, or both leave ``count``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from oncontour.errors import InputError
from oncontour.risk.baselines import lasso

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """How features are chosen."""

    method: Literal["mrmr", "lasso", "mrmr+lasso", "none"] = "mrmr"
    """after the first two steps; none keeps all that is left"""
    count: int = 15
    """so many at most"""
    correlation: float = 0.9
    """of two features whose rank correlation is larger, one goes; 1 keeps both"""
    variance: float = 1e-8
    """features whose variance over the squared mean of their absolute values is smaller go"""
    known: float = 0.95
    """features known (no NaN) of a smaller part of the training patients go"""


@dataclass(frozen=True)
class Chosen:
    """Features that were chosen, and how they are standardised: (value - centre) / scale, ``centre`` where the value is not known."""

    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    """step -> how many features went"""

    def apply(self, rows: Sequence[Mapping[str, float]]) -> tuple[Floats, list[str]]:
        """(n, f) float64 without NaN, and a sentence on each feature that was not known of somebody.

        Raises InputError where a row lacks one.
        """
        x = np.empty((len(rows), len(self.names)))
        notes = []
        for column, name in enumerate(self.names):
            absent = [row for row in rows if name not in row]
            if absent:
                raise InputError(
                    f"feature {name!r}, which the model needs, was not computed", hint="compute the features with its settings"
                )
            value = np.array([row[name] for row in rows], dtype=np.float64)
            unknown = ~np.isfinite(value)
            if unknown.any():
                notes.append(
                    f"feature {name} is not defined on {int(unknown.sum())} of {len(rows)}: the training patients' median stands in"
                )
            x[:, column] = (np.where(unknown, self.centre[column], value) - self.centre[column]) / self.scale[column]
        return np.clip(x, -8, 8), notes


def select(
    rows: Sequence[Mapping[str, float]],
    y: ArrayLike,
    groups: Sequence[Hashable],
    settings: Selection = Selection(),
    *,
    names: Sequence[str] = (),
) -> Chosen:
    """Features of the training patients' ``rows`` chosen by outcome ``y`` (0, 1). ``names`` restricts them; by default all of the first
    row. Raises InputError where no feature is left, or there is one class only.
    """
    t = np.asarray(y, dtype=np.float64)
    kept = list(names or (rows[0] if rows else ()))
    x = np.array([[row.get(name, np.nan) for name in kept] for row in rows], dtype=np.float64).reshape(len(rows), len(kept))
    x[~np.isfinite(x)] = np.nan
    dropped: dict[str, int] = {}

    def keep(mask: NDArray[np.bool_], step: str) -> None:
        nonlocal kept, x
        dropped[step] = int((~mask).sum())
        kept, x = [name for name, stays in zip(kept, mask, strict=True) if stays], x[:, mask]

    keep(np.isfinite(x).mean(axis=0) >= settings.known, "not known of enough patients")
    if not kept:
        raise InputError("no feature is known of enough patients", hint="look at the table of features: a structure may be missing")
    centre = np.nanmedian(x, axis=0)
    x = np.where(np.isfinite(x), x, centre)
    keep(x.var(axis=0) > settings.variance * np.maximum(np.abs(x).mean(axis=0) ** 2, 1e-12), "does not vary")
    if not kept:
        raise InputError("no feature varies between the patients")
    strength = relevance(x, t)
    keep(_uncorrelated(x, strength, settings.correlation), "another says the same")
    for step in settings.method.split("+") if settings.method != "none" else ():
        chosen = mrmr(x, t, settings.count) if step == "mrmr" else _by_lasso(x, t, groups, settings.count)
        mask = np.zeros(len(kept), bool)
        mask[chosen] = True
        keep(mask, step)
    middle, scale = np.median(x, axis=0), np.maximum(x.std(axis=0), 1e-12)
    return Chosen(tuple(kept), tuple(float(v) for v in middle), tuple(float(v) for v in scale), dropped)


def relevance(x: Floats, y: Floats) -> Floats:
    """(f,) how far each feature's AUC lies from one half, times two: 0 says nothing, 1 all. Raises InputError for one class only."""
    n, m = int(y.sum()), int((1 - y).sum())
    if not n or not m:
        raise InputError(f"all {len(y)} patients are {'with' if n else 'without'} the outcome: no feature can be chosen by it")
    ranks = stats.rankdata(x, axis=0)
    area = (ranks[y > 0].sum(axis=0) - n * (n + 1) / 2) / (n * m)
    return np.asarray(np.abs(2 * area - 1))


def mrmr(x: Floats, y: Floats, count: int) -> list[int]:
    """Columns chosen one by one: most relevant less the mean rank correlation with those chosen before (the difference form)."""
    strength, alike = relevance(x, y), _alike(x)
    chosen: list[int] = []
    left = list(range(x.shape[1]))
    while left and len(chosen) < count:
        gains = [strength[c] - (alike[c, chosen].mean() if chosen else 0.0) for c in left]
        chosen.append(left.pop(int(np.argmax(gains))))
    return chosen


def _by_lasso(x: Floats, y: Floats, groups: Sequence[Hashable], count: int) -> list[int]:
    spread = np.maximum(x.std(axis=0), 1e-12)
    weights = np.abs(lasso((x - x.mean(axis=0)) / spread, y, groups).weights)
    found = [int(c) for c in np.argsort(-weights, kind="stable")[:count] if weights[c] > 0]
    return found or [int(np.argmax(relevance(x, y)))]


def _uncorrelated(x: Floats, strength: Floats, limit: float) -> NDArray[np.bool_]:
    """The stronger of each pair above ``limit`` stays; ties go to the earlier."""
    keep = np.ones(x.shape[1], bool)
    if limit >= 1:
        return keep
    alike = _alike(x)
    for column in np.argsort(-strength, kind="stable"):
        if keep[column]:
            twins = (alike[column] > limit) & keep
            twins[column] = False
            keep[twins] = False
    return keep


def _alike(x: Floats) -> Floats:
    """Absolute Spearman correlation of every pair of columns."""
    ranks = stats.rankdata(x, axis=0)
    ranks = (ranks - ranks.mean(axis=0)) / np.maximum(ranks.std(axis=0), 1e-12)
    return np.asarray(np.abs(ranks.T @ ranks) / len(x))
