"""Which structure is the same organ of the other side."""

from __future__ import annotations

import pytest

from oncontour.sides import other_side, wants_left


@pytest.mark.parametrize(
    ("name", "other", "left"),
    [
        ("Parotid_L", "Parotid_R", True),
        ("Femur_Head_R", "Femur_Head_L", False),
        ("Lens_L_PRV", "Lens_R_PRV", True),
        ("Parotid_L_PRV05", "Parotid_R_PRV05", True),
        ("L_Lung", "", False),
        ("Larynx", "", False),
        ("", "", False),
    ],
)
def test_names_with_a_side(name: str, other: str, left: bool) -> None:
    assert (other_side(name), wants_left(name)) == (other, left)
