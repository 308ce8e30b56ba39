"""The demo: a real patient, or the mean patient, contoured as a clinic would, judged slice by slice, with DVHs, and told where to look."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from docs import write_demo_patient

from oncontour import report
from oncontour.commands import demo, demo_week, run_dose
from oncontour.commands import run as pipeline
from oncontour.core.case import Case
from oncontour.dose.goals import read_goals
from oncontour.errors import ConfigError, InputError, OncontourError, OutputError
from oncontour.io import read, write
from oncontour.io.cohort import Cohort
from oncontour.report.review import sentence, spots, strips

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("PTV_5600", "PTV_7000")


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
    (row,) = [row for row in write_demo_patient.read() if row.patient == demo.REAL]
    assert sum(scores) / len(scores) == pytest.approx(row.dsc, abs=0.02), "as the committed evaluation found"
    assert 'id="review"' in page.read_text(encoding="utf-8")


def test_the_patient_comes_again_a_simulated_week_later(shown: demo.Shown, dciodvfy: Callable[[Path], list[str]]) -> None:
    """The couch is found within what the simulated anatomy leaves open, and page, record and DICOM say that nobody was scanned again."""
    out = shown.result.out.parent / "week"
    page, record = ((out / "result" / name).read_text(encoding="utf-8") for name in ("report.html", "report.json"))
    assert str(out / "result" / "report.html") in str(shown)
    assert json.loads(record)["about"] == demo_week.ABOUT
    assert "SIMULATED" in page.split("<body>")[1][:300]
    told = json.loads(record)["adapt"]
    assert told["set_up"]["shift_mm"] == pytest.approx(demo_week.COUCH_MM, abs=4)
    assert {one["how"] for name, one in told["structures"].items() if name in TARGETS} == {"rigid"}
    for path in [next((out / "daily").rglob("*.dcm")), *(out / "result").glob("*.dcm")]:
        assert pydicom.dcmread(path).SyntheticData == "YES", path.name
        assert [line for line in dciodvfy(path) if "(0008,001c)" not in line] == [], path.name


def test_the_page_says_that_the_models_never_saw_this_patient(shown: demo.Shown) -> None:
    page, record = ((shown.result.out / name).read_text(encoding="utf-8") for name in ("report.html", "report.json"))
    about = json.loads(record)["about"]
    assert about == f"A public patient, {demo.REAL} of the validation set of OpenKBP: the models used here never learned from it."
    assert page.split("<body>")[1].lstrip().startswith(f'<p class="about" role="note">{about}</p>')


def test_the_real_patient_is_near_the_median_and_has_usual_voxels() -> None:
    table = write_demo_patient.read()
    assert len(table) == 33
    (row,) = [row for row in table if row.patient == demo.REAL]
    assert write_demo_patient.chosen(table) == row
    assert row.organs == len(demo.ORGANS)
    assert abs(row.dsc - statistics.median(one.dsc for one in table)) < 0.01
    assert row.pixel_mm < max(one.pixel_mm for one in table)


def test_flagged_slices_stand_first(shown: demo.Shown) -> None:
    case = shown.result.case
    found = spots(strips(case))
    ranks = [spot.rank for spot in found]
    assert ranks == sorted(ranks, reverse=True)
    lines = [line for line in str(shown).splitlines() if line.startswith("  1. ")]
    assert len(lines) == 1
    assert found[0].name in lines[0]
    judged = case.assessment.structures
    assert [name for name, one in judged.items() if not one.scored] == ["Esophagus"]
    assert "Not scored: Esophagus: The quality model hn-quality was not made for Esophagus." in str(shown)


def test_it_shows_what_the_dose_gives(shown: demo.Shown, data: Path) -> None:
    told = json.loads((shown.result.out / "report.json").read_text(encoding="utf-8"))["dose"]
    assert set(told["structures"]) == {*demo.ORGANS, *TARGETS}
    truth = read(data / "openkbp" / "validation" / demo.REAL)
    mask = truth.mask("PTV_7000")
    mean_gy = float(truth.images["dose"].to(mask.geometry).array[mask.array].mean())
    assert told["structures"]["PTV_7000"]["mean_gy"] == pytest.approx(mean_gy, rel=0.01)
    assert "D0.03cc" in str(shown)
    assert "<svg" in (shown.result.out / "report.html").read_text(encoding="utf-8")


def test_it_judges_the_dose_by_clinical_goals(shown: demo.Shown) -> None:
    assert demo.GOALS.read_bytes() == (ROOT / "examples" / "goals-head-neck.yaml").read_bytes(), "the package has a copy of the example"
    told = json.loads((shown.result.out / "report.json").read_text(encoding="utf-8"))["dose"]["goals"]
    assert [one["goal"] for one in told] == [str(goal) for goal in read_goals(demo.GOALS)]
    assert {one["verdict"] for one in told} >= {"pass", "fail"}
    assert "SpinalCord Dmax < 50 Gy" in str(shown)


def test_the_page_of_a_real_patient_opens_on_a_true_error(shown: demo.Shown, data: Path) -> None:
    """More than 1 cm2 of that contour is wrong, by the truth that no model saw, and the last lines say so."""
    first = shown.first
    assert first is not None
    assert first.wrong_cm2 > 1, first
    assert str(first) in str(shown)
    name, at = _opens_on(shown.result.out / "report.html")
    assert (name, at + 1) == (first.name, first.number)
    truth = read(data / "openkbp" / "validation" / demo.REAL)
    assert first.wrong_cm2 == pytest.approx(_wrong_cm2(shown.result.case, truth, name, at))


def _opens_on(page: Path) -> tuple[str, int]:
    """The structure and the slice (from 0) that a page opens on."""
    (words,) = re.findall(r'<script type="application/json" id="review">(.*?)</script>', page.read_text(encoding="utf-8"))
    first = json.loads(words)["spots"][0]
    return first["name"], first["at"]


def _wrong_cm2(drawn: Case, truth: Case, name: str, at: int) -> float:
    assert drawn.geometry.same_grid(truth.geometry)
    wrong = drawn.mask(name).array[at] ^ truth.mask(name).array[at]
    _, row_mm, column_mm = truth.geometry.spacing_mm
    return float(wrong.sum() * row_mm * column_mm / 100)


def test_the_dose_of_another_real_patient_is_not_used(shown: demo.Shown, data: Path, tmp_path: Path) -> None:
    """The real CT with the RTDOSE of somebody else in its folder: contours as before, no DVH, and the sentence why."""
    dicom = shown.result.out.parent / "dicom"
    other = Cohort.open(data / "openkbp" / "validation")["pt_202"].without_structures()
    write(other, tmp_path / "other")
    (tmp_path / "mixed").mkdir()
    for path in [*dicom.glob("CT/*.dcm"), tmp_path / "other" / "RTDOSE.dcm"]:
        (tmp_path / "mixed" / path.name).write_bytes(path.read_bytes())
    came = pipeline._read(tmp_path / "mixed", None, None)
    dosed = run_dose.look_at_dose(shown.result.case, came)
    assert dosed.plan is None
    assert dosed.why == ("No DVH: RTDOSE of other images left out: RTDOSE.dcm.",)
    assert report.table(shown.result.rows)


# ---- without data


@pytest.fixture(scope="module")
def without_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command says where there are no data, no other program and no network, and the folder that it leaves."""
    folder = tmp_path_factory.mktemp("bare") / "checkout"
    folder.mkdir()
    block = "import socket; socket.socket.connect = socket.getaddrinfo = lambda *a, **k: 1 / 0; "
    code = block + "import sys; from oncontour.cli import main; sys.exit(main(['demo']))"
    environment = {"PATH": str(folder), "PYTHONPATH": str(Path(demo.__file__).parents[2]), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "demo-out", ended.stdout


def test_without_data_it_shows_the_mean_patient(without_data: tuple[Path, str]) -> None:
    out, said = without_data
    assert said.startswith("Patient: not a person: the mean of 24 public patients (OpenKBP)\n")
    record = json.loads((out / "result" / "report.json").read_text(encoding="utf-8"))
    scores = [row["dsc"] for row in record["structures"]]
    assert [row["name"] for row in record["structures"]] == list(demo.ORGANS)
    assert sum(scores) / len(scores) >= 0.78
    assert record["about"] == (
        "This is not a person: it is the mean of 24 public head-and-neck patients (OpenKBP). The model that contours it learned "
        "from all but one of these patients, and the other models from most of them, so the DSC measures nothing but that the demo works."
    )
    assert record["about"] in said
    page = (out / "result" / "report.html").read_text(encoding="utf-8")
    assert page.split("<body>")[1].lstrip().startswith(f'<p class="about" role="note">{record["about"]}</p>')


def test_without_data_it_shows_dose_and_risk_too(without_data: tuple[Path, str]) -> None:
    out, said = without_data
    record = json.loads((out / "result" / "report.json").read_text(encoding="utf-8"))
    assert {*demo.ORGANS, "PTV_7000"} <= set(record["dose"]["structures"])
    assert {one["verdict"] for one in record["dose"]["goals"]} <= {"pass", "fail"}
    assert len(record["dose"]["goals"]) == len(read_goals(demo.GOALS))
    assert 69 < record["dose"]["structures"]["PTV_7000"]["mean_gy"] < 74
    assert "SIMULATED OUTCOMES" in said


def test_the_first_place_of_the_mean_patient_is_a_true_error(without_data: tuple[Path, str], tmp_path: Path) -> None:
    """On the slice that the page opens on, more than 1 cm2 of the structure in question is wrong."""
    out, said = without_data
    name, at = _opens_on(out / "result" / "report.html")
    shutil.copytree(out / "dicom" / "CT", tmp_path / "both")
    shutil.copy(out / "result" / "rtstruct.dcm", tmp_path / "both")
    wrong_cm2 = _wrong_cm2(read(tmp_path / "both"), read(out / "truth"), name, at)
    assert wrong_cm2 > 1, (name, at)
    assert f"The page opens on {name}, slice {at + 1}: {wrong_cm2:.1f} cm² of the contour are wrong there" in said


def test_a_seed_asks_for_the_mean_patient() -> None:
    shown = demo.patient(seed=3)
    assert shown.case.id == "mean-patient-003"
    assert shown.who.endswith(", bent at random (seed 3)")
    assert "(OpenKBP), bent at random (seed 3). " in shown.about
    with pytest.raises(ConfigError, match="a seed is for the mean patient"):
        demo.patient("data", 3)


def test_no_data_where_data_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONCONTOUR_DATA", str(tmp_path))
    with pytest.raises(InputError, match="no patient with every organ in openkbp/validation") as told:
        demo.patient("data")
    assert "--source mean" in str(told.value)
    assert demo.patient().case.id == "mean-patient-000"


def test_nothing_is_written_where_a_demo_would_replace_what_it_did_not_make(tmp_path: Path) -> None:
    """Somebody's own result, strangers in it, a patient of their own, a risk model that is not there: nothing is written."""
    for folder, name, text in (
        ("result", "report.json", '{"warnings": []}'),
        ("result", "notes.txt", "mine"),
        ("dicom", "mine.dcm", "mine"),
        ("week/daily", "mine.dcm", "mine"),
        ("week/result", "report.json", '{"about": "somebody else"}'),
    ):
        out = tmp_path / f"{folder.replace('/', '-')}-{name}"
        (out / folder).mkdir(parents=True)
        (out / folder / name).write_text(text)
        with pytest.raises(OutputError) as told:
            demo.demo(out=out, source="mean", week=False)
        assert "--out" in str(told.value) or "folder" in str(told.value)
        assert [(path.relative_to(out).as_posix(), path.read_text()) for path in out.rglob("*.*")] == [(f"{folder}/{name}", text)]
    with pytest.raises(OncontourError, match="nothing-like-it"):
        demo.demo(out=tmp_path / "risk", source="mean", risk="nothing-like-it")
    assert not (tmp_path / "risk").exists()


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "report.json").write_text('{"about": "This is not a person"}')
    demo._check_ours(*(tmp_path / name for name in ("dicom", "truth", "result")))


def test_the_week_of_an_earlier_demo_does_not_stay_beside_another_patient(tmp_path: Path) -> None:
    for name in ("planning", "daily", "result"):
        (tmp_path / "week" / name).mkdir(parents=True)
    (tmp_path / "week" / "result" / "report.json").write_text(json.dumps({"about": demo_week.ABOUT}))
    (tmp_path / "mine").mkdir()
    demo_week.check_ours(tmp_path)
    demo_week.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    demo_week.check_ours(tmp_path)
    demo_week.clear(tmp_path)


@pytest.mark.parametrize("linked", ["week", "week/planning"])
def test_a_week_that_lies_elsewhere_is_left_alone(linked: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / linked).parent.mkdir(parents=True)
    (tmp_path / "out" / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="this is a link"):
        demo.demo(out=tmp_path / "out", source="mean", week=False)


def test_a_week_that_cannot_be_taken_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "week" / "daily").mkdir(parents=True)

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refused)
    with pytest.raises(OutputError, match="Permission denied"):
        demo_week.clear(tmp_path)
