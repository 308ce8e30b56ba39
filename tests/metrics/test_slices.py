"""Slice by slice on a coarse grid: by pencil, and the same DSC as ``overlap``."""

import numpy as np
import pytest

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError
from oncontour.metrics.overlap import overlap
from oncontour.metrics.slices import slice_scores


def test_by_pencil():
    """A bar of 3 pixels of 2 mm moved by one: DSC 2 * 2 / 6; of each, one end pixel is 2 mm from the other: mean 4 / 6 mm."""
    truth, claim = np.zeros((4, 3, 8), bool), np.zeros((4, 3, 8), bool)
    truth[0, 1, 2:5], claim[0, 1, 3:6] = True, True
    truth[1, 1, 1] = True
    claim[2, 1, 1] = True
    dsc, apart = slice_scores(truth, claim, (5.0, 2.0))
    assert dsc[:3] == pytest.approx([2 / 3, 0, 0])
    assert np.isnan(dsc[3])
    assert apart[0] == pytest.approx(4 / 6)
    assert np.isnan(apart[1:]).all()


def test_filled_squares_are_measured_at_their_outlines():
    """Squares of 5 and 3 pixels about one middle, 1 mm: every outline pixel of the inner is 1 mm from the outer; of the 16 outer ones the 4
    corners are sqrt(2) away."""
    truth, claim = np.zeros((1, 9, 9), bool), np.zeros((1, 9, 9), bool)
    truth[0, 2:7, 2:7], claim[0, 3:6, 3:6] = True, True
    _, apart = slice_scores(truth, claim, (1.0, 1.0))
    assert apart[0] == pytest.approx((8 + 12 + 4 * np.sqrt(2)) / 24)


def test_the_same_dsc_as_overlap():
    rng = np.random.default_rng(0)
    a, b = rng.random((6, 20, 20)) < 0.3, rng.random((6, 20, 20)) < 0.3
    a[4], b[5] = False, False
    grid = Geometry.regular(a.shape)
    assert slice_scores(a, b, (1, 1))[0] == pytest.approx(overlap(Volume(a, grid), Volume(b, grid)).slice_dsc)


def test_shapes_must_agree():
    with pytest.raises(GeometryError, match="one shape"):
        slice_scores(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), bool), (1, 1))
