"""Small models that dosiomics is compared with: logistic regression with ridge or LASSO, and boosted trees; numpy in, probabilities out.

    model = lasso(x, y, groups)          penalty chosen by cross-validation inside, split by patient
    model.probability(x_new)

``x`` (n, f) are finite numbers, best standardised (``risk.feature_selection``); ``y`` (n,) 0 or 1, both present. *Differs* from
scikit-learn, which is no dependency: nothing but what the comparison needs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import InputError
from oncontour.metrics.probability import sigmoid

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
_STEPS = 400


class Model(Protocol):
    """What every learner gives."""

    def probability(self, x: Floats) -> Floats:
        """(n,) risk for (n, f)."""
        ...


Learner = Callable[[Floats, Floats, Sequence[Hashable]], Model]
"""(x, y, groups) -> Model; ``groups`` is the original patient of each row, for splits inside."""


@dataclass(frozen=True, eq=False)
class Linear:
    """sigmoid(``intercept`` + x @ ``weights``)."""

    intercept: float
    weights: Floats

    def probability(self, x: Floats) -> Floats:
        return sigmoid(self.intercept + x @ self.weights)


def logistic(x: Floats, y: Floats, *, l1: float = 0.0, l2: float = 1e-3) -> Linear:
    """Minimise mean cross-entropy + l1 |w|_1 + l2 / 2 |w|^2, intercept free: accelerated proximal gradient (Beck and Teboulle 2009)."""
    check(x, y)
    n, f = x.shape
    lipschitz = 0.25 * (float(np.linalg.norm(np.c_[np.ones(n), x], 2)) ** 2 / n) + l2
    rate = float(np.clip(y.mean(), 1e-3, 1 - 1e-3))
    w, b = np.zeros(f), float(np.log(rate / (1 - rate)))
    v, c, t = w.copy(), b, 1.0
    for _ in range(_STEPS):
        off = sigmoid(c + x @ v) - y
        new = v - (x.T @ off / n + l2 * v) / lipschitz
        new = np.sign(new) * np.maximum(np.abs(new) - l1 / lipschitz, 0)
        at = c - float(off.mean()) / lipschitz
        again = (1 + np.sqrt(1 + 4 * t * t)) / 2
        moved = max(float(np.abs(new - w).max(initial=0)), abs(at - b))
        v, c = new + (t - 1) / again * (new - w), at + (t - 1) / again * (at - b)
        w, b, t = new, at, again
        if moved < 1e-7:
            break
    return Linear(b, w)


def lasso(x: Floats, y: Floats, groups: Sequence[Hashable], *, folds: int = 4, steps: int = 12, seed: int = 0) -> Linear:
    """LASSO with the penalty of the least cross-validated deviance within one standard error (Friedman 2010): the sparser one."""
    check(x, y)
    most = float(np.abs(x.T @ (y - y.mean())).max(initial=1e-6)) / len(y)
    path = most * np.logspace(0, -2.5, steps)
    parts = grouped_folds(groups, folds, seed)
    losses = np.array([[_deviance(logistic(x[a], y[a], l1=l1), x[b], y[b]) for a, b in parts if _both(y[a]) and len(b)] for l1 in path])
    if not losses.size:
        return logistic(x, y, l1=float(path[len(path) // 2]))
    mean = losses.mean(axis=1)
    best = int(np.argmin(mean))
    limit = mean[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1]) if losses.shape[1] > 1 else mean[best]
    return logistic(x, y, l1=float(path[int(np.flatnonzero(mean <= limit)[0])]))


def ridge(x: Floats, y: Floats, groups: Sequence[Hashable], *, folds: int = 4, seed: int = 0) -> Linear:
    """Ridge with the penalty of the least cross-validated deviance."""
    check(x, y)
    path = (1e-3, 1e-2, 1e-1, 1.0)
    parts = [(a, b) for a, b in grouped_folds(groups, folds, seed) if _both(y[a]) and len(b)]
    losses = [sum(_deviance(logistic(x[a], y[a], l2=l2), x[b], y[b]) for a, b in parts) for l2 in path]
    return logistic(x, y, l2=path[int(np.argmin(losses))])


# ---- boosted trees


@dataclass(frozen=True, eq=False)
class _Tree:
    """A complete binary tree: ``feature`` and ``cut`` of the inner nodes level by level (right where x > cut), ``value`` of the leaves."""

    feature: NDArray[np.int64]
    cut: Floats
    value: Floats

    def __call__(self, x: Floats) -> Floats:
        node = np.zeros(len(x), np.int64)
        for _ in range(int(np.log2(len(self.value)))):
            node = 2 * node + 1 + (x[np.arange(len(x)), self.feature[node]] > self.cut[node])
        return np.asarray(self.value[node - len(self.feature)])


@dataclass(frozen=True, eq=False)
class Boosted:
    """A sum of small trees on the logit scale."""

    start: float
    trees: tuple[_Tree, ...]
    rate: float

    def probability(self, x: Floats) -> Floats:
        out = np.full(len(x), self.start)
        for tree in self.trees:
            out += self.rate * tree(x)
        return sigmoid(out)


def boosted(
    x: Floats,
    y: Floats,
    groups: Sequence[Hashable] = (),
    *,
    trees: int = 80,
    depth: int = 2,
    rate: float = 0.1,
    part: float = 0.7,
    bins: int = 24,
    penalty: float = 3.0,
    seed: int = 0,
) -> Boosted:
    """Gradient boosting with second-order leaves (Friedman 2001; Chen and Guestrin 2016); a tree sees ``part`` of rows and columns."""
    check(x, y)
    rng = np.random.default_rng(seed)
    edges = [np.unique(np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1])) for column in x.T]
    cells = np.stack([np.searchsorted(e, column, side="left") for e, column in zip(edges, x.T, strict=True)], axis=1)
    rate0 = float(np.clip(y.mean(), 1e-3, 1 - 1e-3))
    start = float(np.log(rate0 / (1 - rate0)))
    score, grown = np.full(len(y), start), []
    for _ in range(trees):
        q = sigmoid(score)
        rows = rng.choice(len(y), max(2, round(part * len(y))), replace=False)
        columns = np.sort(rng.choice(x.shape[1], max(1, round(part * x.shape[1])), replace=False))
        tree = _grow(cells[np.ix_(rows, columns)], columns, edges, (y - q)[rows], (q * (1 - q))[rows], depth, bins, penalty)
        score += rate * tree(x)
        grown.append(tree)
    return Boosted(start, tuple(grown), rate)


def _grow(
    cells: NDArray[np.int64],
    columns: Index,
    edges: Sequence[Floats],
    gradient: Floats,
    curvature: Floats,
    depth: int,
    bins: int,
    penalty: float,
) -> _Tree:
    inner = 2**depth - 1
    feature, cut = np.zeros(inner, np.int64), np.full(inner, np.inf)
    node = np.zeros(len(cells), np.int64)
    offset = np.arange(cells.shape[1]) * bins
    for at in range(inner):
        mine = np.flatnonzero(node == at)
        if len(mine) >= 2:
            flat = (cells[mine] + offset).ravel()
            many = cells.shape[1]
            g, h = (
                np.bincount(flat, np.repeat(v[mine], many), many * bins).reshape(many, bins).cumsum(axis=1) for v in (gradient, curvature)
            )
            whole_g, whole_h = g[0, -1], h[0, -1]
            gain = g**2 / (h + penalty) + (whole_g - g) ** 2 / (whole_h - h + penalty) - whole_g**2 / (whole_h + penalty)
            allowed = np.array([[b < len(edges[c]) for b in range(bins)] for c in columns])
            gain = np.where(allowed & (h > 0.5) & (whole_h - h > 0.5), gain, -np.inf)
            column, cell = np.unravel_index(int(np.argmax(gain)), gain.shape)
            if gain[column, cell] > 1e-9:
                feature[at], cut[at] = columns[column], edges[int(columns[column])][cell]
                node[mine] = 2 * at + 1 + (cells[mine, column] > cell)
                continue
        node[mine] = 2 * at + 1
    g, h = (np.bincount(node - inner, v, inner + 1) for v in (gradient, curvature))
    return _Tree(feature, cut, g / (h + penalty))


# ---- splits


def grouped_folds(groups: Sequence[Hashable], folds: int, seed: int = 0) -> list[tuple[Index, Index]]:
    """(rows to learn from, rows kept apart) ``folds`` times; rows of a group stay together. At most as many as groups."""
    names = list(dict.fromkeys(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[n]: position % max(1, min(folds, len(names))) for position, n in enumerate(order)}
    of = np.array([fold[g] for g in groups])
    return [(np.flatnonzero(of != f), np.flatnonzero(of == f)) for f in range(int(of.max(initial=-1)) + 1)]


def check(x: Floats, y: Floats) -> None:
    """Raises InputError where nothing can be learned: a shape that does not fit, a NaN, one class only."""
    if x.ndim != 2 or len(x) != len(y) or not len(y):
        raise InputError(f"features and outcomes must be equally long, not {x.shape} and {np.shape(y)}")
    if not np.isfinite(x).all():
        raise InputError(f"{int((~np.isfinite(x)).any(axis=0).sum())} features hold a NaN", hint="select features first: dose.select")
    if not _both(y):
        kind = "with" if y.sum() else "without"
        raise InputError(
            f"all {len(y)} patients are {kind} the outcome: there is nothing to tell apart", hint="add patients of the other kind"
        )


def _both(y: Floats) -> bool:
    return bool(0 < y.sum() < len(y))


def _deviance(model: Model, x: Floats, y: Floats) -> float:
    q = np.clip(model.probability(x), 1e-6, 1 - 1e-6)
    return float(-(y * np.log(q) + (1 - y) * np.log(1 - q)).mean())
