"""What is wrong with a dose, said by every command that takes one: in one line, with the place, both values and the way out.

A corrupt dose, centigray, another patient's frame of reference, a structure outside the dose; a cohort of one class, a feature that is NaN.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch

from oncontour import cli
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.io import write
from oncontour.learn.task import save_model
from oncontour.phantom import head_neck
from oncontour.risk.task import RiskSettings, RiskTask
from tests.test_bad_input import without_progress

SETTINGS = RiskSettings(
    ("late",),
    net_options={"widths": (4, 8, 8, 8), "embedding": 8},
    window=(8, 16, 16),
    features=("Dmean", "cm_corr_3D_comb"),
    feature_centre=(40.0, 0.5),
    feature_scale=(5.0, 0.1),
    facts=("age",),
    fact_centre=(62.0,),
    fact_scale=(9.0,),
    simulated=True,
)
SMALL = ["--settings.net_options", '{"widths": [4, 8, 8, 8], "embedding": 8}', "--settings.window", "[8,16,16]", "--epochs", "1"]


@pytest.fixture(scope="module")
def case() -> Case:
    return head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(RiskTask(SETTINGS), path)
    return path


@pytest.fixture(scope="module")
def dicom(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom") / "p1"
    write(case, folder, format="dicom")
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """(exit code, what was said on stdout, on stderr) of a command."""
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def cut_short(dose: pydicom.FileDataset) -> None:
    dose.PixelData = dose.PixelData[: len(dose.PixelData) // 2]


def centigray(dose: pydicom.FileDataset) -> None:
    dose.DoseGridScaling = f"{100 * float(dose.DoseGridScaling):.10g}"


def unscaled(dose: pydicom.FileDataset) -> None:
    dose.DoseGridScaling = "nan"


def another_frame(dose: pydicom.FileDataset) -> None:
    dose.FrameOfReferenceUID = "1.2.3.4"


def elsewhere(dose: pydicom.FileDataset) -> None:
    x, y, z = dose.ImagePositionPatient
    dose.ImagePositionPatient = [x + 900, y, z]


FAULTS: dict[Callable[[pydicom.FileDataset], None], tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    cut_short: (("cut short", "RTDOSE.dcm", "need"),) * 3,
    unscaled: (("DoseGridScaling should be 1 finite number", "'nan'", "RTDOSE.dcm"),) * 3,
    centigray: (
        ("the dose reaches", "more than the 300 Gy of any plan", "centigray", "p1", "Way out: store it in Gy"),
        ("PTV_7000 would receive", "prescribed are 70 Gy", "centigray", "--unit cGy"),
        ("p1: PTV_7000 would receive", "Gy in the median", "centigray"),
    ),
    another_frame: (
        ("no dose to use: RTDOSE of other images left out: RTDOSE.dcm", "p1", "in their frame of reference"),
        ("no dose to use: RTDOSE of other images left out: RTDOSE.dcm", "p1", "Way out"),
        ("neither dose among the images ['ct']: RTDOSE of other images left out: RTDOSE.dcm",),
    ),
    elsewhere: (
        ("Esophagus lies outside the dose grid, all of its", "p1", "of one patient and one frame of reference"),
        ("none of the 1 structures meets the dose, which covers 32x48x48 voxels", "of one patient and one frame of reference"),
        (),
    ),
}
"""Fault -> what risk, dvh and features say of it; features give a row with a remark where nothing else is wrong."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_in_one_line(
    fault: Callable[[pydicom.FileDataset], None], dicom: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = tmp_path / "cohort" / "p1"
    shutil.copytree(dicom, patient)
    dose = pydicom.dcmread(patient / "RTDOSE.dcm")
    fault(dose)
    dose.save_as(patient / "RTDOSE.dcm")
    structure = "PTV_7000" if fault is centigray else "Esophagus"
    table = ["features", patient.parent, "--out", tmp_path / "f.csv", "--structures", structure, "--images", "dose", "--families", "loc"]
    commands: list[list[str | Path]] = [
        ["risk", patient, "--model", model],
        ["dvh", patient, "--structures", structure],
        [*table, "--jobs", "1"],
    ]
    for words, says in zip(commands, FAULTS[fault], strict=True):
        code, out, err = told(capsys, *words)
        if not says:
            assert code == 0
            assert "Esophagus, dose: no voxel with a known dose in range" in out
            continue
        assert code == 2
        (err,) = without_progress(err)
        assert err.startswith("oncontour: ")
        assert [part for part in says if part not in err.replace("'nan '", "'nan'")] == [], err
        assert not out


def nifti(case: Case, folder: Path, **images: Volume) -> Path:
    write(case.with_images(images), folder, format="nifti")
    return folder


def test_voxels_that_are_nan(case: Case, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patient = nifti(case, tmp_path / "cohort" / "p1")
    image = sitk.ReadImage(str(patient / "dose.nii.gz"))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    array[20, 4:6, 7] = np.nan
    spoiled = sitk.GetImageFromArray(array)
    spoiled.CopyInformation(image)
    sitk.WriteImage(spoiled, str(patient / "dose.nii.gz"))
    table = ["features", patient.parent, "--out", tmp_path / "f.csv", "--jobs", "1"]
    for words in (["risk", patient, "--model", model], ["dvh", patient], table):
        code, _, err = told(capsys, *words)
        assert code == 2
        assert "2 voxels are NaN or infinite, the first at (k, j, i) = (20, 4, 7)" in err
        assert "dose.nii.gz" in err
        assert len(without_progress(err)) == 1


def test_a_risk_that_is_told_says_what_is_odd(case: Case, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A feature that is NaN (no texture in an even dose), a fact that is not known, one far off, a dose of a single fraction."""
    even = case.images["dose"].map(lambda gy: np.full_like(gy, 2.4))
    code, out, _ = told(capsys, "risk", nifti(case, tmp_path / "even", dose=even), "--model", model)
    assert code == 0
    assert out.startswith("SIMULATED OUTCOMES")
    assert "Feature cm_corr_3D_comb is not defined here (NaN): the training patients' median stands in for it." in out
    assert "Not known of the patient: age. The training patients' mean stands in." in out
    assert "The dose reaches 2.4 Gy only: is this the whole treatment's dose, in Gy?" in out
    assert "Dmean is 2.4, 7.5 SD from the training patients' median (40): nothing like it was learned." in out
    assert "The interval is where 2 nets of different beginnings agree (90 %, Student's t on log odds)" in out
    patient = nifti(case, tmp_path / "plain")
    code, out, _ = told(capsys, "risk", patient, "--model", model, "--facts", '{"age": 640}')
    assert "age is 640, 64.2 SD from the training patients' mean (62): nothing like it was learned." in out
    code, _, err = told(capsys, "risk", patient, "--model", model, "--facts", '{"agee": 64}')
    assert code == 2
    assert "the model knows no fact agee: it learned with age" in err
    code, out, _ = told(capsys, "risk", patient, "--model", model, "--facts", '{"age": .nan}')
    assert (code, "Not known of the patient: age" in out) == (0, True)


def test_a_published_model_is_not_told_of_half_an_organ(case: Case, model: Path) -> None:
    """Two fifths of the oesophagus have no dose: the model's own answer says so, and no published model is given a part for the whole."""
    from oncontour.commands.risk import load

    mask = case.mask("Esophagus")
    held = np.argwhere(mask.array)[:, 0]
    low = int(np.quantile(held, 0.4))
    dose = case.images["dose"]
    part = dose.to(dose.geometry.crop((low, 0, 0), dose.geometry.shape))
    task = load(model)
    whole, cut = (task.predict(case.with_images({"dose": one})).risk for one in (dose, part))
    assert "esophagitis-g2-zehentmayr-2015" in whole.reference
    assert cut.reference == {}
    assert any("of Esophagus" in note and "lies outside the dose grid: the figures are of the rest" in note for note in cut.notes)
    assert any(note.startswith("No published model of Esophagus: ") for note in cut.notes)


def test_training_goes_on_without_who_cannot_be_used(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of six patients one is in centigray, one has no dose, one is not there; and what remains must be of both kinds."""
    cohort = tmp_path / "cohort"
    for n in range(5):
        one = head_neck(n, (6, 5, 5), 1.0, (32, 48, 48))
        spoiled = {0: {"dose": one.images["dose"].map(lambda gy: 100 * gy)}}.get(n, {})
        nifti(one, cohort / f"p{n}", **spoiled)
    (cohort / "p1" / "dose.nii.gz").unlink()
    table = tmp_path / "t.csv"
    table.write_text("patient,late\np0,0\np1,1\np2,0\np3,1\np4,0\np5,1\n")
    words = ["train", "risk", cohort, "--outcomes", table, *SMALL, "--training.validation", "0", "--settings.dosiomics", "false"]
    code, out, _ = told(capsys, *words, "--out", tmp_path / "run", "--training.batch", "3", "--settings.members", "1")
    assert code == 0
    assert "p0 was left out: the dose reaches" in out
    assert "centigray" in out
    assert "p1 was left out: no dose to use [case p1]" in out
    assert "p5 (1 row) was left out: no patient" in out
    table.write_text("patient,late\np0,1\np2,0\np3,0\np4,0\n")
    code, _, err = told(capsys, *words, "--out", tmp_path / "other")
    assert code == 2
    assert "late: 0 of the 3 training patients of whom it is known had it, which teaches nothing. Way out: add patients" in err
    assert not (tmp_path / "other").exists()
