"""How far predicted numbers lie from the true ones: error, correlation, Bland-Altman, and the spread to read an error beside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from oncontour.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """Predicted against true, over ``n`` values.

    ``mae`` and ``mae_sd``  mean and SD of the absolute error; ``rmse`` root of the mean squared error;
    ``pearson``, ``spearman``  correlation (NaN where either side does not vary);
    ``bias``, ``limits``  Bland-Altman: mean of predicted - true, and bias -+ 1.96 SD of that difference (Bland and Altman 1986);
    ``spread``  SD of the true values: what the error is to be read beside; ``constant_mae`` the error of the best single guess, the median.
    """

    n: int
    mae: float
    mae_sd: float
    rmse: float
    pearson: float
    spearman: float
    bias: float
    limits: tuple[float, float]
    spread: float
    constant_mae: float


def agreement(predicted: ArrayLike, true: ArrayLike) -> Agreement:
    """Compare two equally long lists; pairs with a NaN are left out. Nothing left: n is 0, all else NaN. Raises InputError."""
    p, t = (np.asarray(v, dtype=np.float64) for v in (predicted, true))
    if p.shape != t.shape or p.ndim != 1:
        raise InputError(f"predicted and true must be equally long lists, not {p.shape} and {t.shape}")
    known = ~(np.isnan(p) | np.isnan(t))
    p, t = p[known], t[known]
    if not len(p):
        nan = float("nan")
        return Agreement(0, nan, nan, nan, nan, nan, nan, (nan, nan), nan, nan)
    off = p - t
    wide = float(np.std(off, ddof=1)) if len(off) > 1 else float("nan")
    bias = float(off.mean())
    return Agreement(
        n=len(p),
        mae=float(np.abs(off).mean()),
        mae_sd=float(np.std(np.abs(off), ddof=1)) if len(off) > 1 else float("nan"),
        rmse=float(np.sqrt((off**2).mean())),
        pearson=_correlation(p, t),
        spearman=_correlation(stats.rankdata(p), stats.rankdata(t)),
        bias=bias,
        limits=(bias - 1.96 * wide, bias + 1.96 * wide),
        spread=float(np.std(t, ddof=1)) if len(t) > 1 else float("nan"),
        constant_mae=float(np.abs(t - np.median(t)).mean()),
    )


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # by the values: 0.1 less the mean of many 0.1 need not be 0
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else float("nan")
