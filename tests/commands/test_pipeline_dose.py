"""The main job beyond contours: slices judged, DVHs and risk where there is a dose, and a sentence where there is none that can be used."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from oncontour import cli
from oncontour.commands import run as pipeline
from oncontour.commands import run_contours, run_dose
from oncontour.commands.risk import load as load_risk
from oncontour.core.case import Case
from oncontour.errors import ConfigError, InputError, ModelError, OutputError, StructureError
from oncontour.io import read, write
from oncontour.learn.card import Card
from oncontour.learn.task import save_model
from oncontour.phantom import head_neck
from oncontour.quality import score as scoring
from oncontour.quality.inputs import AssessSettings
from oncontour.quality.task import AssessTask
from oncontour.risk.task import RiskSettings, RiskTask
from tests.commands.test_pipeline import NAMES, make_model, run
from tests.phantoms import patient

TARGET = "PTV_7000"


@pytest.fixture(scope="module")
def phantom() -> Case:
    return head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))


@pytest.fixture(scope="module")
def planned(phantom: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies in a planner's folder before organs are drawn: CT, RTDOSE, an RTSTRUCT with the target."""
    folder = tmp_path_factory.mktemp("planned") / "someone"
    write(phantom.without_structures().with_masks({TARGET: phantom.mask(TARGET)}), folder)
    return folder


@pytest.fixture
def folder(planned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planned, tmp_path / "someone"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained ones: they answer something, always the same."""
    out = tmp_path_factory.mktemp("models")
    make_model(out / "contour.safetensors")
    torch.manual_seed(1)
    small = {"width": 16, "depth": 1, "stem": (4, 8, 8)}
    save_model(AssessTask(AssessSettings(NAMES, net_options=small, spacing_mm=(6, 5, 5), window=(32, 32))), out / "quality.safetensors")
    net = {"widths": (4, 8, 8, 8), "embedding": 8}
    settings = RiskSettings(("late",), "Parotid_L", net_options=net, window=(8, 16, 16), dosiomics=False, facts=("age",), simulated=True)
    save_model(RiskTask(settings), out / "risk.safetensors")
    return {name: str(out / f"{name}.safetensors") for name in ("contour", "quality", "risk")}


@pytest.fixture(scope="module")
def whole(planned: Path, models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> pipeline.Result:
    """A run with everything."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return run(planned, out, Path(models["contour"]), assess=True, quality=models["quality"], risk=models["risk"], facts={"age": 64.0})


# ---- quality


def test_a_run_judges_every_slice(whole: pipeline.Result) -> None:
    told = json.loads((whole.out / "report.json").read_text(encoding="utf-8"))
    assert [one["task"] for one in told["models"]] == ["contour", "assess"]
    assert set(told["assess"]["structures"]) == set(NAMES)
    assert told["timings_s"]["assess"] > 0
    rows = list(csv.DictReader((whole.out / "scores.csv").open(encoding="utf-8")))
    assert {row["structure"] for row in rows} == set(NAMES)
    assert any(row["dsc"] for row in rows)
    written = pydicom.dcmread(whole.out / "rtstruct.dcm")
    said = [item.ROIObservationDescription for item in written.RTROIObservationsSequence]
    assert len(said) == 3
    assert all("Predicted by" in text or "not scored" in text for text in said)
    page = (whole.out / "report.html").read_text(encoding="utf-8")
    assert 'id="review"' in page
    assert "on this CT by one model" in page, "the one that judged drew nothing"
    assert "to look at" in str(whole)
    assert "  1. " in str(whole), "the worst place, in words"


def test_without_a_quality_model_the_rules_look_and_it_is_said(
    planned: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "DEFAULT_MODEL", "none-of-this-name")
    done = run(planned, tmp_path / "out", Path(models["contour"]), assess=True)
    assert scoring.WITHOUT in str(done)
    found = done.record["assess"]["structures"]
    assert not any(one["scored"] for one in found.values())
    assert any(one["findings"] for one in found.values()), "noise is odd"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count(f"<li>{scoring.WITHOUT}") == 1, "a reason that all share is told once"
    bare = run(planned, tmp_path / "bare", Path(models["contour"]), assess=False)
    assert "assess" not in bare.record
    assert not (tmp_path / "bare" / "scores.csv").exists()


def test_models_for_something_else_are_refused_before_any_work(planned: Path, models: dict[str, str], tmp_path: Path) -> None:
    model = Path(models["contour"])
    with pytest.raises(ModelError, match="not contour quality"):
        run(planned, tmp_path / "out", model, assess=True, quality=models["contour"])
    with pytest.raises(ModelError, match="not to tell a risk"):
        run(planned, tmp_path / "out", model, risk=models["quality"])
    with pytest.raises(ConfigError, match="knows no fact weight"):
        run(planned, tmp_path / "out", model, risk=models["risk"], facts={"weight": 70.0})
    with pytest.raises(ConfigError, match="for a risk model, and none is named"):
        run(planned, tmp_path / "out", model, facts={"age": 64.0})
    with pytest.raises(ConfigError, match="leaves it out"):
        run(planned, tmp_path / "out", model, quality=models["quality"])
    assert not (tmp_path / "out").exists()


# ---- dose and risk


def test_dvhs_of_what_was_drawn_and_of_the_planner_s_targets(whole: pipeline.Result, phantom: Case) -> None:
    told = json.loads((whole.out / "report.json").read_text(encoding="utf-8"))
    assert set(told["dose"]["structures"]) == {*NAMES, TARGET}
    assert told["dose"]["targets"][TARGET]["prescription_gy"] == 70
    for name, case in ((NAMES[0], whole.case), (TARGET, phantom)):
        mask = case.mask(name)
        mean_gy = float(phantom.images["dose"].to(mask.geometry).array[mask.array].mean())
        assert told["dose"]["structures"][name]["figures"]["Dmean"] == pytest.approx(mean_gy, rel=0.03), "by voxel centres"
    assert told["dose"]["id"] == told["case"]
    assert "someone" not in json.dumps(told["dose"])
    page = (whole.out / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<svg data-axes=", page)) == 1
    assert "http:" not in page, "nothing on the page names an address"
    assert "https:" not in page
    assert "D0.03cc" in str(whole)
    assert any(f"stand in the DVH as they were drawn: {TARGET}" in note for note in told["input"]["notes"])
    assert f'data-name="{TARGET}"' in page
    assert "came with the CT and is shown as it was drawn" in page
    assert TARGET not in [row["name"] for row in told["structures"]], "the table of what was drawn, and the RTSTRUCT, are without it"
    roi = [item.ROIName for item in pydicom.dcmread(whole.out / "rtstruct.dcm").StructureSetROISequence]
    assert sorted(roi) == sorted(NAMES)


def test_a_risk_from_simulated_outcomes_is_never_without_that_word(whole: pipeline.Result) -> None:
    told = json.loads((whole.out / "report.json").read_text(encoding="utf-8"))
    assert told["risk"]["title"].startswith("SIMULATED OUTCOMES")
    one = told["risk"]["toxicities"]["late"]
    assert one["low"] <= one["probability"] <= one["high"]
    page = (whole.out / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="risk"') : page.index('id="dose"')]
    assert section.index("simulated outcomes") < section.index("SIMULATED OUTCOMES") < section.index("<td>late")
    assert "late (simulated)" in section
    assert "<svg" in section
    said = str(whole)
    assert said.index("SIMULATED OUTCOMES") < said.index("\nlate ")


def test_the_command_line_spells_it_all(planned: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(planned), "--out", str(tmp_path / "out"), "--model", models["contour"], "--threads", "1", "--assess", "false"]
    assert cli.main([*words, "--risk", models["risk"], "--facts", '{"age": 64}', "--structures", "Parotid_L"]) == 0
    told = capsys.readouterr().out
    assert told.index("Dmean") < told.index("SIMULATED OUTCOMES") < told.index("report.json in ")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["facts"] == {"age": 64}


# ---- a dose that cannot be used


def edit(**values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.save_as(path)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def scale(factor: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        edit(DoseGridScaling=f"{float(dataset.DoseGridScaling) * factor:.8e}")(path)

    return change


def elsewhere(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    x, y, z = dataset.ImagePositionPatient
    edit(ImagePositionPatient=[x + 5000, y, z])(path)


def zero(path: Path) -> None:
    edit(PixelData=bytes(len(pydicom.dcmread(path).PixelData)))(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (edit(FrameOfReferenceUID="1.2.3.4"), "No DVH and no risk: RTDOSE of other images left out: RTDOSE.dcm."),
        (cut, "No DVH and no risk: the dose cannot be used: "),
        (edit(DoseUnits="RELATIVE"), "No DVH and no risk: the dose cannot be used: "),
        (zero, "0 everywhere"),
        (elsewhere, "No DVH: none of the 4 structures meets the dose"),
        (scale(100), "the numbers look like centigray. Way out: if they are, say so with --unit cGy."),
        (Path.unlink, "No DVH and no risk: there is no dose with this CT."),
    ],
)
def test_contours_come_all_the_same_and_a_sentence_says_why(
    spoil: Callable[[Path], None], says: str, folder: Path, whole: pipeline.Result, models: dict[str, str]
) -> None:
    spoil(folder / "RTDOSE.dcm")
    came = pipeline._read(folder, None, None)
    drawn = came.without_structures().with_masks({name: whole.case.mask(name) for name in NAMES})
    dosed = run_dose.look_at_dose(drawn, came, load_risk(models["risk"]))
    assert dosed.plan is None
    assert dosed.case.risk is None
    assert any(says in sentence for sentence in dosed.why), dosed.why
    assert len(dosed.why) <= 2
    assert all("\n" not in sentence for sentence in dosed.why)


def test_a_whole_run_with_a_broken_dose(folder: Path, models: dict[str, str], tmp_path: Path) -> None:
    cut(folder / "RTDOSE.dcm")
    done = run(folder, tmp_path / "out", Path(models["contour"]))
    (why,) = [text for text in done.record["warnings"] if text.startswith("No DVH")]
    assert str(tmp_path) not in why
    assert f"warning: {why}" in str(done)
    assert (tmp_path / "out" / "rtstruct.dcm").exists()
    assert why.split("[")[0] in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (aside,) = [note for note in done.record["input"]["notes"] if "came with the CT" in note]
    assert aside == f"Contours that came with the CT were left aside: {TARGET}.", "there is no DVH for it to stand in"
    with pytest.raises(InputError, match="RTDOSE"):
        run(folder, tmp_path / "named", Path(models["contour"]), dose=["RTDOSE.dcm"])
    assert not (tmp_path / "named").exists(), "a dose that was asked for by name has to be right"


def test_centigray_can_be_said(folder: Path, whole: pipeline.Result, models: dict[str, str], tmp_path: Path) -> None:
    scale(100)(folder / "RTDOSE.dcm")
    done = run(folder, tmp_path / "out", Path(models["contour"]), unit="cGy")
    means = [one["dose"]["structures"][TARGET]["mean_gy"] for one in (done.record, whole.record)]
    assert means[0] == pytest.approx(means[1], rel=1e-3)


def test_structure_sets_that_cannot_be_told_apart_do_not_stop_a_run(folder: Path) -> None:
    edit(SOPInstanceUID="1.2.3.4.5")(Path(shutil.copy(folder / "RTSTRUCT.dcm", folder / "another.dcm")))
    came = pipeline._read(folder, None, None)
    assert came.structures == ()
    assert any("the structures cannot be used: 2 structure sets" in note for note in came.facts["notes"])
    with pytest.raises(StructureError, match="2 structure sets"):
        read(folder)


def test_a_dose_file_that_is_no_image(phantom: Case, tmp_path: Path) -> None:
    source = patient(tmp_path / "someone", phantom)
    (source / "dose.nii.gz").write_bytes(b"no image")
    came = pipeline._read(source, None, None)
    assert "dose" not in came.images
    dosed = run_dose.look_at_dose(came, came)
    assert dosed.why[0].startswith("No DVH: the dose cannot be used: ")
    assert np.isfinite(came.ct.array).all()


def test_masks_that_cannot_be_used_do_not_stop_a_run(phantom: Case, tmp_path: Path) -> None:
    source = patient(tmp_path / "someone", phantom)
    (source / "masks" / "Brainstem.nii.gz").write_bytes(b"no image")
    came = pipeline._read(source, None, None)
    assert set(came.structures) == set(phantom.structures) - {"Brainstem"}
    assert any("the structure Brainstem cannot be used" in note for note in came.facts["notes"])
    with pytest.raises(InputError):
        read(source)


# ---- what nobody foresaw


class Broken:
    """A model that fails as no model should."""

    card = Card("broken", "assess", {})

    def predict(self, case: Case, progress: object = None) -> Case:
        raise MemoryError("no room")


def test_contours_survive_whatever_fails_beside_them(planned: Path, whole: pipeline.Result) -> None:
    came = pipeline._read(planned, None, None)
    drawn = came.without_structures().with_masks({name: whole.case.mask(name) for name in NAMES})
    failed: list[str] = []
    judged, judges = run_contours.judge(drawn, Broken(), failed)
    assert (judged.structures, judges) == (drawn.structures, [])
    told = judged.assessment.structures
    assert {one.why for one in told.values()} == {"The quality model failed: only the rules have looked at these contours."}
    assert any(one.findings for one in told.values()), "noise is odd"
    dosed = run_dose.look_at_dose(drawn, came, Broken())
    assert dosed.plan is not None, "the DVH is not the risk's"
    assert dosed.why == ("No risk: it needs more memory than there is. Way out: close other programs or use a larger machine.",)
    assert whole.case.risk is not None
    without_dose = replace(drawn, images={"ct": drawn.ct}, risk=whole.case.risk)
    unfinished = run_dose.Dosed(without_dose, dosed.plan)
    assert set(run_dose.draw(unfinished, failed)) == {"dvh"}
    assert failed == [
        "No slice was judged by the quality model: it needs more memory than there is. "
        "Way out: close other programs or use a larger machine.",
        "No picture of risk: KeyError.",
    ]


def test_a_shipped_quality_model_that_is_damaged_does_not_stop_a_run(
    planned: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(models["quality"]).read_bytes()[:-100])
    monkeypatch.setattr("oncontour.learn.card.shipped", lambda: {scoring.DEFAULT_MODEL: damaged})
    done = run(planned, tmp_path / "out", Path(models["contour"]), assess=True)
    assert (tmp_path / "out" / "rtstruct.dcm").exists()
    assert any(text.startswith("The shipped quality model could not be used") for text in done.record["warnings"])
    assert "could not be used" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ModelError):
        run(planned, tmp_path / "named", Path(models["contour"]), assess=True, quality=str(damaged))


def test_doubts_about_a_dose_stand_beside_its_figures(folder: Path, models: dict[str, str], tmp_path: Path) -> None:
    edit(DoseType="EFFECTIVE", PatientID="somebody else", PatientName="Else^Somebody")(folder / "RTDOSE.dcm")
    done = run(folder, tmp_path / "out", Path(models["contour"]))
    assert done.plan is not None
    for word in ("EFFECTIVE", "another PatientID"):
        assert any(word in note for note in done.record["dose"]["notes"])
        assert word in str(done)


def test_contours_to_compare_with_are_never_replaced(planned: Path, whole: pipeline.Result, models: dict[str, str]) -> None:
    before = (whole.out / "rtstruct.dcm").read_bytes()
    for truth in (whole.out, whole.out / "rtstruct.dcm"):
        with pytest.raises(OutputError, match="would replace the contours to compare with"):
            run(planned, whole.out, Path(models["contour"]), truth=truth, overwrite=True)
    assert (whole.out / "rtstruct.dcm").read_bytes() == before
