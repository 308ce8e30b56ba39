"""What the commands put beside contours: another set to compare with, clinical goals, a label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from oncontour.commands.assess import assess
from oncontour.commands.dvh import dvh
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError, InputError
from oncontour.io import write
from tests.report.test_report import BOXES, make

NAMES = ("Parotid_L", "Parotid_R", "Brainstem")
SHIPPED_GOALS = Path(__file__).parents[2] / "examples" / "goals-head-neck.yaml"


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """``ours`` with a dose that falls from 60 Gy by 1 Gy a voxel to the left, and ``theirs``: Parotid_L moved by a voxel, no other."""
    case = make({name: BOXES[name] for name in NAMES})
    i = np.arange(case.geometry.shape[2], dtype=np.float32)
    dose = Volume(np.broadcast_to(60 - i, case.geometry.shape).copy(), case.geometry)
    write(case.with_images({"dose": dose}), tmp_path / "ours", format="nifti")
    moved = Volume(np.roll(case.mask("Parotid_L").array, 1, axis=2), case.geometry)
    write(case.without_structures().with_masks({"Parotid_L": moved}), tmp_path / "theirs", format="nifti")
    return tmp_path


def test_contours_are_compared_with_others_and_the_page_has_both(patients: Path) -> None:
    found = assess(patients / "ours", patients / "ours", out=patients / "out", compare=patients / "theirs", label="Clinic 7", threads=1)
    record = json.loads((patients / "out" / "report.json").read_text())
    told = {row["name"]: row for row in record["structures"]}
    assert told["Parotid_L"]["dsc"] == pytest.approx(0.8)
    assert told["Parotid_L"]["hd95_mm"] == pytest.approx(2.0, abs=0.1)
    assert told["Brainstem"]["dsc"] is None
    assert record["label"] == "Clinic 7"
    page = (patients / "out" / "report.html").read_text()
    assert 'id="compared">' in page
    assert "Clinic 7" in page
    assert record["digest"] in page
    assert "HD95 mm" in str(found)


def test_what_cannot_be_compared_is_refused(patients: Path) -> None:
    other = make({"Larynx": BOXES["Brainstem"]})
    write(other, patients / "others", format="nifti")
    with pytest.raises(InputError, match="no contour to compare with: Larynx there, "):
        assess(patients / "ours", patients / "ours", out=patients / "out", compare=patients / "others", threads=1)
    small = make({"Parotid_L": BOXES["Parotid_L"]})
    grid = small.geometry.crop((0, 0, 0), (18, 40, 50))
    cut = {"ct": small.ct.to(grid)}, {"Parotid_L": small.mask("Parotid_L").to(grid)}
    write(type(small)("small", *cut), patients / "small", format="nifti")
    with pytest.raises(GeometryError, match="small"):
        assess(patients / "ours", patients / "ours", out=patients / "out", compare=patients / "small", threads=1)
    assert not (patients / "out").exists()


def test_goals_of_a_plan_on_the_screen_and_in_its_record(patients: Path) -> None:
    """Parotid_L at columns 35 to 39: 23 Gy on average. The brainstem reaches the last slice: its mean is not that of the whole."""
    goals = patients / "goals.yaml"
    goals.write_text("goals: [Parotid_L Dmean < 26 Gy, Parotid_R Dmean < 26 Gy, Brainstem Dmean < 40 Gy, Larynx Dmean < 44 Gy]")
    plan = dvh(patients / "ours", goals=goals, out=patients / "dvh")
    assert [one.verdict for one in plan.goals] == ["pass", "fail", "cannot be judged", "cannot be judged"]
    assert plan.goals[0].value == pytest.approx(23, abs=0.05)
    assert "Parotid_L Dmean < 26 Gy  23.00              pass" in str(plan)
    told = json.loads((patients / "dvh" / "dvh.json").read_text())["goals"]
    assert (told[1]["verdict"], told[3]["value"], told[3]["why"]) == ("fail", None, "there is no Larynx here")
    assert "reaches the first or last slice" in told[2]["why"]


def test_the_shipped_goals_can_be_judged(patients: Path) -> None:
    """60 less column 10 to 14: 48 Gy on average in Parotid_R, too much; of the others one is met, the rest are not there or cut."""
    plan = dvh(patients / "ours", goals=SHIPPED_GOALS)
    verdicts = {str(one.goal): one.verdict for one in plan.goals}
    assert (verdicts["Parotid_L Dmean < 25 Gy"], verdicts["Parotid_R Dmean < 25 Gy"]) == ("pass", "fail")
    assert verdicts["PTV_7000 V93% >= 99 %"] == verdicts["Larynx Dmax < 66 Gy"] == verdicts["Brainstem Dmax < 54 Gy"] == "cannot be judged"
