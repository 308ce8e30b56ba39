"""Which outlines of a net count: those that its card knows it to draw."""

from __future__ import annotations

import numpy as np

from oncontour.adapt.choose import Measured, segmented
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume


def test_a_structure_that_a_net_does_not_segment_is_no_second_opinion() -> None:
    mask = Volume(np.ones((2, 2, 2), bool), Geometry.regular((2, 2, 2)))
    better = {"Larynx": Measured("propagated", 0.73, 0.002, 5), "Parotid_L": Measured("propagated", 0.847, 0.846, 10)}
    assert list(segmented({"Larynx": mask, "Parotid_L": mask, "Brainstem": mask}, better)) == ["Parotid_L", "Brainstem"]
