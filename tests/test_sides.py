"""Which structure is the same organ of the other side."""

from __future__ import annotations

import pytest

from oncontour.report.structures import expected_side
from oncontour.sides import other_side, side_of


@pytest.mark.parametrize(
    ("name", "other", "side"),
    [
        ("Parotid_L", "Parotid_R", "L"),
        ("Femur_Head_R", "Femur_Head_L", "R"),
        ("Lens_L_PRV", "Lens_R_PRV", "L"),
        ("Parotid_L_PRV05", "Parotid_R_PRV05", "L"),
        ("L_Lung", "", ""),
        ("L", "", ""),
        ("VB_L", "", ""),
        ("Larynx", "", ""),
        ("", "", ""),
    ],
)
def test_names_with_a_side(name: str, other: str, side: str) -> None:
    assert (other_side(name), side_of(name)) == (other, side)
    assert expected_side(name) == {"L": "left", "R": "right", "": ""}[side], "on the page, too"
    if other:
        assert (other_side(other), side_of(other)) == (name, {"L": "R", "R": "L"}[side])
