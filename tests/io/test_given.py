"""What a person gives for a patient's folder: an archive, a link, one file of it. Followed where that is safe, else told what to give."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oncontour import cli
from oncontour.errors import CohortError, FormatError, InputError, SeriesError
from oncontour.files import walk
from oncontour.io import read, write
from oncontour.io.cohort import Cohort
from oncontour.io.patients import is_cohort
from oncontour.phantom import head_neck
from tests.dicom_cases import make_series
from tests.io.test_series_enhanced import enhanced


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient in DICOM: CT, RTSTRUCT, RTDOSE."""
    folder = tmp_path_factory.mktemp("clinic") / "p1"
    write(head_neck(0, (6, 5, 5), 1.0, (16, 32, 32)), folder)
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What a command says that refuses its input."""
    assert cli.main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def commands(given: Path, out: Path) -> dict[str, list[str | Path]]:
    """Every command that takes a patient's folder."""
    return {
        "run": ["run", given, "--out", out],
        "dvh": ["dvh", given],
        "assess": ["assess", given, given, "--out", out],
        "convert": ["convert", given, out],
        "evaluate": ["evaluate", given, "--predictions", given, "--out", out],
    }


def tables(given: Path, out: Path) -> dict[str, list[str | Path]]:
    """Commands that take a folder of patients, or a CSV of them."""
    return {
        "features": ["features", given, "--out", out.with_suffix(".csv"), "--jobs", "1"],
        "predict": ["predict", given, "--out", out, "--model", "hn-organs"],
    }


def zipped(clinic: Path, to: Path) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(clinic.rglob("*.dcm")):
            archive.write(path, path.relative_to(clinic.parent))
    return to


@pytest.mark.parametrize("command", ["run", "dvh", "assess", "convert", "evaluate"])
def test_an_archive_is_to_be_unpacked(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    given = zipped(clinic, tmp_path / "p1.zip")
    said = told(capsys, *commands(given, tmp_path / "out")[command])
    assert f"a zip archive, not the folder of a patient [{given}]. Way out: unpack it, and give the folder that comes of it" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p1.zip"]


@pytest.mark.parametrize("command", ["features", "predict"])
def test_an_archive_is_no_cohort(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    given = zipped(clinic, tmp_path / "all.zip")
    assert f"a zip archive, not a folder of patients [{given}]. Way out: unpack it" in told(capsys, *tables(given, tmp_path / "o")[command])
    (tmp_path / "cohort").mkdir()
    given.rename(tmp_path / "cohort" / "all.zip")
    said = told(capsys, *tables(tmp_path / "cohort", tmp_path / "o")[command])
    assert "no folders of patients, but archives: all.zip" in said
    assert "Way out: unpack them first" in said


@pytest.mark.parametrize("form", ["tar", "gztar", "bztar", "xztar"])
def test_archives_of_all_kinds(clinic: Path, tmp_path: Path, form: str) -> None:
    given = Path(shutil.make_archive(str(tmp_path / "packed"), form, clinic))
    kind = {"tar": "tar", "gztar": "gzip", "bztar": "bzip2", "xztar": "xz"}[form]
    with pytest.raises(InputError, match=f"a {kind} archive, not the folder of a patient"):
        read(given)
    with pytest.raises(InputError, match=f"no DICOM file here, but archives: {given.name}.*unpack them first"):
        read(tmp_path)


@pytest.mark.parametrize("command", ["run", "dvh", "assess", "convert", "evaluate"])
def test_one_image_of_a_series_names_its_folder(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    given = clinic / "CT" / "CT0003.dcm"
    said = told(capsys, *commands(given, tmp_path / "out")[command])
    assert f"one image of a CT series, not the folder of a patient [{given}]" in said
    assert f"Way out: give the folder that it lies in: {given.parent}" in said


@pytest.mark.parametrize(("name", "says"), [("RTSTRUCT", "RT Structure Set"), ("RTDOSE", "RT Dose")])
def test_one_object_without_its_images(clinic: Path, tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=rf"one file \({says}\), not the folder of a patient.*give the folder that it lies in: {clinic}"):
        read(clinic / f"{name}.dcm")
    (tmp_path / "DICOMDIR").write_bytes(b"anything")
    with pytest.raises(InputError, match="a DICOMDIR, which lists the files beside it, not the folder of a patient"):
        read(tmp_path / "DICOMDIR")


def test_other_files_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("patient,path\np1,p1\n")
    with pytest.raises(InputError, match=r"a table, not the folder of a patient.*give the folder of one of the patients in it"):
        read(tmp_path / "cohort.csv")
    (tmp_path / "letter.txt").write_text("Dear colleague\n" * 100)
    with pytest.raises(SeriesError, match="no DICOM file here"):
        read(tmp_path / "letter.txt")


def test_a_multi_frame_image_is_a_series_by_itself(tmp_path: Path) -> None:
    stored = enhanced(tmp_path, [0.0, 2.0, 4.0])
    assert np.array_equal(read(tmp_path / "enhanced.dcm").images["mr"].array, stored)


# ---- links


def test_a_link_to_a_patient_is_the_patient(clinic: Path, tmp_path: Path) -> None:
    link = tmp_path / "called-so"
    link.symlink_to(clinic, target_is_directory=True)
    one, other = read(clinic), read(link)
    assert other.id == "called-so"
    assert other.source == one.source
    assert np.array_equal(one.ct.array, other.ct.array)
    assert other.structures == one.structures
    os.chdir(link)
    assert read(Path()).id == link.resolve().name  # where one is, not how one came there
    assert [p.ct.array.shape for p in (Cohort.open(tmp_path)[id] for id in Cohort.open(tmp_path))] == [(16, 32, 32)]


def test_links_inside_a_patient_are_followed_once(clinic: Path, tmp_path: Path) -> None:
    """The images lie elsewhere, under two links; one more link leads up and round, one to itself, and one nowhere."""
    patient = tmp_path / "cohort" / "p1"
    patient.mkdir(parents=True)
    for name in ("RTSTRUCT.dcm", "RTDOSE.dcm"):
        shutil.copy(clinic / name, patient)
    (tmp_path / "cohort" / "p2").mkdir()
    make_series(tmp_path / "cohort" / "p2", patient_id="another")
    for name, target in {"ct": clinic / "CT", "ct again": clinic / "CT", "up": tmp_path / "cohort", "self": patient / "self"}.items():
        (patient / name).symlink_to(target)
    before, after = read(clinic), read(patient)
    assert np.array_equal(before.ct.array, after.ct.array)
    assert after.structures == before.structures
    assert set(after.facts["notes"]) - set(before.facts["notes"]) == {"passed over: 1 link(s) that lead nowhere"}
    assert [name for _, folders, _ in walk(patient) for name in folders] == ["ct"]
    assert is_cohort(tmp_path / "cohort")


def test_a_slice_that_is_no_longer_there_is_told(clinic: Path, tmp_path: Path) -> None:
    for path in (clinic / "CT").iterdir():
        (tmp_path / path.name).symlink_to(path if path.name != "CT0001.dcm" else tmp_path / "gone")
    assert "passed over: 1 link(s) that lead nowhere" in read(tmp_path).facts["notes"]


def _lost(cohort: Path, clinic: Path) -> str:
    (cohort / "p2").symlink_to(cohort / "gone")
    return "a link that leads nowhere"


def _twice(cohort: Path, clinic: Path) -> str:
    (cohort / "p2").symlink_to(clinic)
    return "p1 and p2 are one folder"


def _back(cohort: Path, clinic: Path) -> str:
    (cohort / "p2").symlink_to(cohort.parent)
    return "a link that leads back to the cohort itself"


@pytest.mark.parametrize("make", [_lost, _twice, _back])
def test_links_that_lose_or_double_a_patient_are_refused(clinic: Path, tmp_path: Path, make: Callable[[Path, Path], str]) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "p1").symlink_to(clinic)
    assert list(Cohort.open(cohort)) == ["p1"]
    with pytest.raises(CohortError, match=make(cohort, clinic)):
        Cohort.open(cohort)


def test_a_link_that_leads_nowhere_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "p1").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=rf"a link that leads nowhere \[{tmp_path}/p1 -> {tmp_path}/gone\]"):
        read(tmp_path / "p1")
    with pytest.raises(CohortError, match="a link that leads nowhere, not a folder or CSV of patients"):
        Cohort.open(tmp_path / "p1")


# ---- cohorts


def test_paths_of_a_csv_are_told_apart_as_well(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each patient has its own sentence, and the one that is there is done."""
    (tmp_path / "link").symlink_to(clinic)
    zipped(clinic, tmp_path / "p2.zip")
    rows = f"patient,path\nlinked,link\npacked,p2.zip\none,{clinic}/CT/CT0001.dcm\n"
    (tmp_path / "cohort.csv").write_text(rows)
    words = ["--out", tmp_path / "f.csv", "--jobs", "1", "--images", "dose", "--families", "stat", "--structures", "Esophagus"]
    assert cli.main([str(word) for word in ("features", tmp_path / "cohort.csv", *words)]) == 2
    said = capsys.readouterr().err
    assert "packed: a zip archive, not the folder of a patient" in said
    assert "one: one image of a CT series, not the folder of a patient" in said
    assert (tmp_path / "f.csv").read_text().count("linked") == 1


@pytest.mark.parametrize("given", ["CT/CT0001.dcm", "RTSTRUCT.dcm"])
def test_a_dicom_file_is_no_cohort(clinic: Path, given: str) -> None:
    with pytest.raises(CohortError, match=r"not a folder of patients.*give a folder of patient folders, or a CSV"):
        Cohort.open(clinic / given)


def test_a_patient_s_own_folder_is_no_cohort(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"DICOM files of one patient, not a folder of patients.*give the folder above it"):
        Cohort.open(clinic / "CT")
    write(head_neck(0, (6, 5, 5), 1.0, (16, 32, 32)), tmp_path / "n", format="nifti")
    with pytest.raises(CohortError, match="one image, not a folder of patients"):
        Cohort.open(tmp_path / "n" / "ct.nii.gz")
    assert FormatError.exit_code == CohortError.exit_code == 2
