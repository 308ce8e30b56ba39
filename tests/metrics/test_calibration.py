"""Agreement of predicted with true numbers, by pencil."""

import numpy as np
import pytest

from oncontour.errors import InputError
from oncontour.metrics.calibration import agreement


def test_by_pencil():
    """Errors +0.1, -0.1, +0.3, -0.1: MAE 0.15, RMSE sqrt(0.03), bias 0.05, SD of the differences sqrt(0.11 / 3)."""
    a = agreement([0.6, 0.6, 0.8, 0.8], [0.5, 0.7, 0.5, 0.9])
    assert a.n == 4
    assert a.mae == pytest.approx(0.15)
    assert a.mae_sd == pytest.approx(0.1)
    assert a.rmse == pytest.approx(np.sqrt(0.03))
    assert a.bias == pytest.approx(0.05)
    half = 1.96 * np.sqrt((0.0025 + 0.0225 + 0.0625 + 0.0225) / 3)
    assert a.limits == pytest.approx((0.05 - half, 0.05 + half))
    assert a.constant_mae == pytest.approx(0.15)
    assert a.spread == pytest.approx(np.std([0.5, 0.7, 0.5, 0.9], ddof=1))


def test_correlations_by_pencil():
    """Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8. A straight line has Pearson 1."""
    assert agreement([1, 2, 3, 4], [10, 30, 20, 40]).spearman == pytest.approx(0.8)
    assert agreement([1, 2, 3], [12, 14, 16]).pearson == pytest.approx(1)
    assert np.isnan(agreement([1, 1, 1], [1, 2, 3]).pearson)
    assert np.isnan(agreement([0.1, 0.1, 0.1], [0.2, 0.5, 0.9]).pearson)


def test_nan_is_left_out_and_nothing_is_nothing():
    assert agreement([0.5, np.nan], [0.5, 0.1]).n == 1
    assert agreement([np.nan], [0.1]).n == 0
    with pytest.raises(InputError, match="equally long"):
        agreement([1.0], [1.0, 2.0])
