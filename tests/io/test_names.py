"""Names as clinics write them, against the names of AAPM report TG-263 (2018)."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from oncontour.io.names import interpreted_type, to_tg263

OPENKBP = {
    "Brainstem": "Brainstem",
    "SpinalCord": "SpinalCord",
    "Parotid_R": "RightParotid",
    "Parotid_L": "LeftParotid",
    "Esophagus": "Esophagus",
    "Larynx": "Larynx",
    "Bone_Mandible": "Mandible",
    "PTV_5600": "PTV56",
    "PTV_6300": "PTV63",
    "PTV_7000": "PTV70",
}
"""TG-263 name -> name in the OpenKBP data set."""
ROWS = list(csv.DictReader(resources.files("oncontour.io").joinpath("tg263.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LeftParotid", "Parotid_L"),
        ("RightParotid", "Parotid_R"),
        ("Parotid Lt", "Parotid_L"),
        ("PAROTIS LINKS", "Parotid_L"),
        ("Parotis re.", "Parotid_R"),
        ("parotid_l", "Parotid_L"),
        ("PAROTIDL", "Parotid_L"),
        ("RParotid", "Parotid_R"),
        ("Lung-Left", "Lung_L"),
        ("Spinal-Cord", "SpinalCord"),
        ("Rückenmark", "SpinalCord"),
        ("Tronc cérébral", "Brainstem"),
        ("BRAIN STEM", "Brainstem"),
        ("Mandible", "Bone_Mandible"),
        ("Oesophagus", "Esophagus"),
        ("Femoral Head Rt", "Femur_Head_R"),
        ("kidney_right", "Kidney_R"),
        ("both lungs", "Lungs"),
        ("Lens", None),
        ("BODY", "External"),
        ("cord prv 5mm", "SpinalCord_PRV05"),
        ("Eye_R_PRV03", "Eye_R_PRV03"),
    ],
)
def test_organs(name: str, expected: str | None) -> None:
    assert to_tg263(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PTV70", "PTV_7000"),
        ("PTV 70 Gy", "PTV_7000"),
        ("ptv_59,4", "PTV_5940"),
        ("PTV5040cGy", "PTV_5040"),
        ("PTV_7000", "PTV_7000"),
        ("GTV-1", "GTV1"),
        ("GTVp", "GTVp"),
        ("GTVp2", "GTVp2"),
        ("CTV1 60", "CTV1_6000"),
        ("CTVn_High", "CTVn_High"),
        ("GTV", "GTV"),
        ("PTV12", None),  # twelve what?
        ("PTV70-2mm", None),
        ("PTV 70 L", None),
        ("PTVall", None),
    ],
)
def test_targets(name: str, expected: str | None) -> None:
    assert to_tg263(name) == expected


@pytest.mark.parametrize(
    "name", ["Parotid", "parotid l r", "Left Brainstem", "zParotid_L", "Parotid_L-PTV", "lung_upper_lobe_left", "", "dose 80[%]", "R", "L"]
)
def test_never_guesses(name: str) -> None:
    assert to_tg263(name) is None


@pytest.mark.parametrize(
    "name", ["Submandibular", "SUBMANDIBULAR", "parotider", "Lunger", "cochlear", "retinal", "Corneal", "fibular", "tibial", "cochleare"]
)
def test_an_ending_is_no_side(name: str) -> None:
    """The last letter of an adjective or of a plural (Danish lunger: both lungs) must not become a side of the patient."""
    assert to_tg263(name) is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_name_and_alias_leads_to_its_row(row: dict[str, str]) -> None:
    sides = ("_L", "_R") if row["paired"] == "yes" else ("",)
    for side in sides:
        assert to_tg263(row["name"] + side) == row["name"] + side
        for alias in filter(None, row["aliases"].split("|")):
            assert to_tg263(f"{alias} {side.strip('_')}".upper()) == row["name"] + side


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("L", "l left lt lft li links linke linker linkes gauche sin sinistra sx izq izquierda"),
        ("R", "r right rt rgt re rechts rechte rechter rechtes droit droite dex destra dx der derecha"),
    ],
)
def test_sides_never_swap(side: str, words: str) -> None:
    """English, German, French, Italian, Spanish; Latin sinister and dexter."""
    for organ in (row["name"] for row in ROWS if row["paired"] == "yes"):
        for word in words.split():
            for name in (f"{word} {organ}", f"{organ}-{word.upper()}", f"{word}_{organ}"):
                assert to_tg263(name) == f"{organ}_{side}", name


def test_names_of_openkbp() -> None:
    assert all(to_tg263(theirs) == name for name, theirs in OPENKBP.items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Parotid_L", "ORGAN"),
        ("PTV_7000", "PTV"),
        ("GTV1", "GTV"),
        ("ITV", "CTV"),
        ("External", "EXTERNAL"),
        ("SpinalCord_PRV05", "AVOIDANCE"),
        ("what is this", ""),
    ],
)
def test_interpreted_type(name: str, expected: str) -> None:
    assert interpreted_type(name) == expected
