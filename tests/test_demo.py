"""The demo: a real patient, contoured as a clinic would, judged slice by slice, with DVHs, and told where to look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oncontour import demo, pipeline, report
from oncontour.io import read, write
from oncontour.io.cohort import Cohort
from oncontour.report.review import sentence, spots, strips

TARGETS = ("PTV_5600", "PTV_6300", "PTV_7000")


@pytest.fixture(scope="module")
def shown(data: Path, tmp_path_factory: pytest.TempPathFactory) -> demo.Shown:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONCONTOUR_DATA", str(data))
        return demo.demo(out=tmp_path_factory.mktemp("demo") / "out", source="data")


def test_it_ends_with_the_report_of_a_real_patient_and_says_where(shown: demo.Shown) -> None:
    said, page = str(shown), shown.result.out / "report.html"
    assert page.exists()
    assert str(page) in said.splitlines()[-1]
    assert sentence(strips(shown.result.case)) in said
    assert "oncontour train risk" in said, "it says how to get a risk model"
    assert "SIMULATED OUTCOMES" in said
    scores = [row.dsc for row in shown.result.rows if row.dsc is not None]
    assert len(scores) == len(demo.ORGANS)
    assert sum(scores) / len(scores) > 0.7
    assert 'id="review"' in page.read_text(encoding="utf-8")


def test_flagged_slices_stand_first(shown: demo.Shown) -> None:
    case = shown.result.case
    found = spots(strips(case))
    ranks = [spot.rank for spot in found]
    assert ranks == sorted(ranks, reverse=True)
    lines = [line for line in str(shown).splitlines() if line.startswith("  1. ")]
    assert len(lines) == 1
    assert found[0].name in lines[0]
    judged = case.scores["assess"]["structures"]
    assert [name for name, one in judged.items() if not one["scored"]] == ["Esophagus"]
    assert "Not scored: Esophagus: The model never saw Esophagus in training." in str(shown)


def test_it_shows_what_the_dose_gives(shown: demo.Shown, data: Path) -> None:
    told = json.loads((shown.result.out / "report.json").read_text(encoding="utf-8"))["dose"]
    assert set(told["structures"]) == {*demo.ORGANS, *TARGETS}
    truth = read(data / "openkbp" / "validation" / "pt_201")
    mask = truth.mask("PTV_7000")
    mean_gy = float(truth.images["dose"].to(mask.geometry).array[mask.array].mean())
    assert told["structures"]["PTV_7000"]["mean_gy"] == pytest.approx(mean_gy, rel=0.01)
    assert "D0.03cc" in str(shown)
    assert "<svg" in (shown.result.out / "report.html").read_text(encoding="utf-8")


def test_the_dose_of_another_real_patient_is_not_used(shown: demo.Shown, data: Path, tmp_path: Path) -> None:
    """The real CT with the RTDOSE of somebody else in its folder: contours as before, no DVH, and the sentence why."""
    dicom = shown.result.out.parent / "dicom"
    other = Cohort.open(data / "openkbp" / "validation")["pt_202"].without_structures()
    write(other, tmp_path / "other")
    (tmp_path / "mixed").mkdir()
    for path in [*dicom.glob("CT/*.dcm"), tmp_path / "other" / "RTDOSE.dcm"]:
        (tmp_path / "mixed" / path.name).write_bytes(path.read_bytes())
    came = pipeline._read(tmp_path / "mixed", None, None)
    dosed = pipeline.look_at_dose(shown.result.case, came)
    assert dosed.plan is None
    assert dosed.why == ("No DVH: RTDOSE of other images left out: RTDOSE.dcm.",)
    assert report.table(shown.result.rows)
