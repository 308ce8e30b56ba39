"""Homogeneity and conformity of doses whose isodoses are balls."""

from __future__ import annotations

import numpy as np
import pytest

from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH, dvh
from oncontour.dose.indices import conformity, homogeneity, isodose_cc
from oncontour.errors import ConfigError, DoseError
from oncontour.phantom import Sphere

GRID = Geometry.regular((34, 34, 34), (2.0, 2.0, 2.0), (-33.3, -32.6, -33.1))


def cone_dose() -> Volume:
    """100 Gy in the middle, 3 Gy less a mm: the isodose of x Gy is a ball of (100 - x) / 3 mm."""
    points = GRID.points(np.stack(np.indices(GRID.shape), axis=-1))
    return Volume(np.maximum(100 - 3 * np.linalg.norm(points, axis=-1), 0).astype(np.float32), GRID)


def ball(radius: float, at: float = 0.0) -> Contours:
    return Sphere((at, 0.0, 0.0), radius).contours(np.arange(-40, 40.1, 0.2), 180)


def ball_cc(radius: float) -> float:
    return float(4 / 3 * np.pi * radius**3 / 1000)


def test_homogeneity() -> None:
    """Evenly from 40 to 60 Gy: D2% 59.6, D98% 40.4, D50% 50: 0.384."""
    one = DVH("PTV", np.array([40.0, 60.0]), np.array([1.0, 0.0]), 50.0)
    assert homogeneity(one) == pytest.approx(0.384)
    assert np.isnan(homogeneity(DVH("PTV", np.empty(0), np.empty(0), np.nan)))


def test_isodose_volume() -> None:
    dose = cone_dose()
    assert isodose_cc(dose, 70) == pytest.approx(ball_cc(10), rel=0.01)
    assert isodose_cc(dose, 40) == pytest.approx(ball_cc(20), rel=0.01)
    assert isodose_cc(dose, 101) == 0
    assert isodose_cc(Volume(np.full(GRID.shape, 2.0), GRID), 1) == pytest.approx(GRID.size * 8 / 1000)


def test_concentric_balls() -> None:
    """Isodose of 10 mm on a target of 10 mm is perfect; on one of 12 mm, Paddick is 1000 / 1728; half of 70 Gy is a ball of 65 / 3 mm."""
    dose = cone_dose()
    perfect = conformity(dose, dvh(dose, ball(10)), 70)
    assert (perfect.paddick, perfect.rtog, perfect.coverage) == pytest.approx((1, 1, 1), rel=0.025)
    small = conformity(dose, dvh(dose, ball(12)), 70)
    assert small.paddick == pytest.approx(1000 / 1728, rel=0.02)
    assert small.rtog == pytest.approx(1000 / 1728, rel=0.02)
    assert small.gradient == pytest.approx((6.5 / 3) ** 3, rel=0.02)


def test_the_right_size_in_the_wrong_place() -> None:
    """RTOG does not see it, Paddick does: two balls of 10 mm, 10 mm apart, share 5/16 of their volume."""
    dose = cone_dose()
    beside = conformity(dose, dvh(dose, ball(10, 10)), 70)
    assert beside.rtog == pytest.approx(1, rel=0.02)
    assert beside.paddick == pytest.approx((5 / 16) ** 2, rel=0.03)
    missed = conformity(dose, dvh(dose, ball(5, 25)), 99.9)
    assert missed.paddick == 0


def test_within_a_body() -> None:
    dose = cone_dose()
    half = Volume(GRID.points(np.stack(np.indices(GRID.shape), axis=-1))[..., 2] > 0, GRID)
    found = conformity(dose, dvh(dose, ball(10)), 70, within=half)
    assert found.isodose_cc == pytest.approx(ball_cc(10) / 2, rel=0.06)


def test_refusals() -> None:
    dose = cone_dose()
    with pytest.raises(ConfigError, match="positive, not 0"):
        conformity(dose, dvh(dose, ball(10)), 0)
    with pytest.raises(DoseError, match="negative"):
        isodose_cc(Volume(dose.array - 50, GRID), 10)
