"""1,500 random structures through an RTSTRUCT; ``differential_masks`` says what and against what."""

from __future__ import annotations

import numpy as np
import pytest

from oncontour.io.dicom import rtstruct_read
from oncontour.raster import planes
from tests.fuzz import differential_masks
from tests.fuzz.differential_masks import _shares, check


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_masks_and_outlines_come_back_and_cover_what_the_samples_say(seed: int) -> None:
    assert check(seed, 500) == []


def test_the_samples_know_an_area() -> None:
    """A square of 4 pixels with a hole of one, and a figure of eight whose two triangles have half a pixel each."""
    square = np.array([[0.5, 0.5], [0.5, 2.5], [2.5, 2.5], [2.5, 0.5]])
    hole = np.array([[1, 1], [1, 2], [2, 2], [2, 1.0]])
    assert _shares([square, hole], (4, 4)).sum() == pytest.approx(3, abs=0.1)
    eight = np.array([[0, 0], [1, 2], [1, 0], [0, 2.0]])
    assert _shares([eight], (4, 4)).sum() == pytest.approx(1, abs=0.05)


def test_what_goes_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our masks taken for a person's are found by the round trip; those taken to be as thick as the slices of another series on that one;
    a filling that is half a pixel aside by the samples."""
    with monkeypatch.context() as changed:
        changed.setattr(planes, "stands_alone", lambda contours, slices: False)
        assert any("voxels became" in failure for failure in check(1, 120))
    with monkeypatch.context() as changed:
        changed.setattr(rtstruct_read, "marked_slices", lambda description, data, outlines, slices: slices)
        assert any("off its slabs" in failure for failure in check(1, 120))
    shares = differential_masks.sampled_shares
    monkeypatch.setattr(differential_masks, "sampled_shares", lambda *found: np.roll(shares(*found), 1, axis=2))
    assert any("more or less than the samples" in failure for failure in check(1, 10))
