"""How far predicted probabilities can be believed, and what a decision made with them is worth.

    one = calibration(p, y)          slope 1 and intercept 0 are perfect
    again = Recalibration.fit(p, y)  two numbers learned at a new hospital
    again(p_new)

``p`` are probabilities in [0, 1], ``y`` the outcomes (bool); what has no outcome is left out before. Raises InputError for lengths that
differ, probabilities outside [0, 1] or NaN. Where a figure does not exist (no patient, one class only) it is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oncontour.errors import InputError

Floats = NDArray[np.float64]
_EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 where their logit is taken."""
_STEPS = 100
_RIDGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """``slope`` below 1: too extreme; ``intercept`` (with the slope held at 1: calibration in the large) below 0: too high on average."""

    slope: float
    intercept: float
    n: int
    events: int


@dataclass(frozen=True)
class Benefit:
    """Net benefit at a threshold probability of the model, of treating all, and of treating none (0)."""

    threshold: float
    model: float
    all: float


def brier(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared distance between probability and outcome (Brier 1950): 0 is perfect. None: NaN."""
    q, t = _pair(p, y)
    return float(((q - t) ** 2).mean()) if len(q) else np.nan


def ece(p: ArrayLike, y: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: over bins of equally many patients, the mean distance between mean probability and part of events.

    *Differs* from Naeini 2015, whose bins are equally wide: in a small cohort most of those are empty.
    """
    q, t = _pair(p, y)
    if not len(q):
        return np.nan
    order = np.argsort(q, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(q[part].mean() - t[part].mean()) for part in parts) / len(q))


def calibration(p: ArrayLike, y: ArrayLike) -> Calibration:
    """Slope of a logistic regression of the outcome on logit(p), and the intercept with that slope held at 1 (Cox 1958)."""
    q, t = _pair(p, y)
    n, events = len(q), int(t.sum())
    if not 0 < events < n:
        return Calibration(np.nan, np.nan, n, events)
    z = logit(q)
    slope = _logistic(z, t)[1] if np.ptp(z) > 1e-9 else np.nan
    return Calibration(slope, _logistic(z, t, slope=1.0)[0], n, events)


def decision_curve(p: ArrayLike, y: ArrayLike, thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)) -> list[Benefit]:
    """Net benefit, true positives less false ones weighed by odds of the threshold, per patient (Vickers and Elkin 2006)."""
    q, t = _pair(p, y)
    out = []
    for at in thresholds:
        if not 0 < at < 1:
            raise InputError(f"a threshold probability lies between 0 and 1, not at {at}")
        odds, flagged = at / (1 - at), q >= at
        whole = float(t.mean() - (1 - t).mean() * odds) if len(t) else np.nan
        mine = float((t[flagged].sum() - (1 - t[flagged]).sum() * odds) / len(t)) if len(t) else np.nan
        out.append(Benefit(at, mine, whole))
    return out


@dataclass(frozen=True)
class Recalibration:
    """Probability -> sigmoid(intercept + slope * logit(probability)); the ranks, and so the AUC, stay."""

    intercept: float = 0.0
    slope: float = 1.0

    @classmethod
    def fit(cls, p: ArrayLike, y: ArrayLike, *, slope: bool = True) -> Recalibration:
        """Both numbers by maximum likelihood, or the intercept alone. One class only, or a slope that is not positive: nothing is changed
        (of the slope)."""
        q, t = _pair(p, y)
        if not 0 < t.sum() < len(t):
            return cls()
        z = logit(q)
        if slope and np.ptp(z) > 1e-9:
            at, steep = _logistic(z, t)
            if steep > 0:
                return cls(at, steep)
        return cls(_logistic(z, t, slope=1.0)[0], 1.0)

    def __call__(self, p: ArrayLike) -> Floats:
        return sigmoid(self.intercept + self.slope * logit(np.asarray(p, dtype=np.float64)))


def logit(p: ArrayLike) -> Floats:
    """log(p / (1 - p)), p kept a millionth from 0 and 1."""
    q = np.clip(np.asarray(p, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(q / (1 - q)))


def sigmoid(z: ArrayLike) -> Floats:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(z, dtype=np.float64))))


def _logistic(z: Floats, t: Floats, slope: float | None = None) -> tuple[float, float]:
    """Maximum likelihood (intercept, slope) of t on z by Newton's steps, halved until they help; a hair of ridge where classes separate."""
    at, steep = 0.0, 1.0 if slope is None else slope
    best = _cost(at, steep, z, t)
    for _ in range(_STEPS):
        q = sigmoid(at + steep * z)
        w = np.maximum(q * (1 - q), 1e-9)
        g = np.array([(t - q).sum(), (z * (t - q)).sum() - _RIDGE * steep])
        if slope is None:
            step = np.linalg.solve(np.array([[w.sum(), (w * z).sum()], [(w * z).sum(), (w * z * z).sum() + _RIDGE]]), g)
        else:
            step = np.array([g[0] / w.sum(), 0.0])
        while True:
            now = _cost(at + float(step[0]), steep + float(step[1]), z, t)
            if now <= best or np.abs(step).max() < 1e-10:
                break
            step = step / 2
        at, steep = at + float(step[0]), steep + float(step[1])
        best = min(best, now)
        if np.abs(step).max() < 1e-9:
            break
    return at, steep


def _cost(at: float, steep: float, z: Floats, t: Floats) -> float:
    """Cross-entropy, and the ridge."""
    x = at + steep * z
    return float((np.logaddexp(0, x) - t * x).sum() + _RIDGE / 2 * steep**2)


def _pair(p: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    q, t = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if q.shape != t.shape or q.ndim != 1:
        raise InputError(f"probabilities and outcomes must be equally long lists, not {q.shape} and {t.shape}")
    if np.isnan(q).any() or ((q < 0) | (q > 1)).any():
        raise InputError("a probability is NaN or outside 0 to 1")
    if not np.isin(t, (0, 1)).all():
        raise InputError("an outcome is 0 or 1: leave out what is not known")
    return q, t
