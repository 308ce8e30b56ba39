"""``oncontour convert``: there and back on real patients, cohorts with a bad patient, and destinations that are not lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.errors import CohortError, ConfigError, InputError, OncontourError, OutputError
from oncontour.geometry import Geometry
from oncontour.io import read
from oncontour.io.convert import convert
from oncontour.io.nifti import write_image
from oncontour.volume import Volume
from tests.dicom_cases import make_series


@pytest.mark.parametrize("patient", ["pt_239", "pt_238"])
def test_nifti_to_dicom_and_back(data: Path, tmp_path: Path, patient: str) -> None:
    source = data / "openkbp/validation" / patient
    there = convert(source, tmp_path / "dicom" / patient).done[0]
    convert(tmp_path / "dicom" / patient, tmp_path / "nifti" / patient)
    before, between, after = read(source), read(tmp_path / "dicom" / patient), read(tmp_path / "nifti" / patient)
    for case in (between, after):
        assert case.id == patient
        assert np.array_equal(case.ct.array, before.ct.array)
        assert case.ct.array.dtype == np.int16
        assert case.geometry.same_grid(before.geometry, 1e-3)
        assert case.images["dose"].geometry.same_grid(before.images["dose"].geometry, 1e-3)
        assert np.abs(case.images["dose"].array - before.images["dose"].array).max() <= 1e-6 * before.images["dose"].array.max()
        assert set(case.structures) == set(before.structures)
        for name in before.structures:
            assert np.array_equal(case.mask(name).array, before.masks[name].array), name
    assert {p.relative_to(source) for p in source.rglob("*.gz")} == {
        p.relative_to(tmp_path / "nifti" / patient) for p in (tmp_path / "nifti").rglob("*.gz")
    }
    assert any("dose: stored in steps" in note for note in there.notes)
    assert any("masks became contours" in note for note in there.notes)


def test_dicom_to_nifti_and_back(data: Path, tmp_path: Path) -> None:
    source = data / "dicom/LUNG1-001"
    there = convert(source, tmp_path / "nifti").done[0]
    assert any("contours became voxels" in note for note in there.notes)
    assert any("identity" in note for note in there.notes)
    before, between = read(source), read(tmp_path / "nifti")
    assert np.array_equal(between.ct.array, before.ct.array)
    assert between.geometry.same_grid(before.geometry, 1e-3)
    convert(tmp_path / "nifti", tmp_path / "dicom")
    after = read(tmp_path / "dicom")
    assert np.array_equal(after.ct.array, before.ct.array)
    assert after.geometry.same_grid(before.geometry, 1e-3)
    assert after.facts["names"] == before.facts["names"]
    for name in before.structures:
        mask = before.mask(name).array
        assert np.array_equal(between.masks[name].array, mask), name
        assert np.array_equal(after.mask(name).array, mask), name


def test_the_published_csvs_become_dicom(data: Path, tmp_path: Path) -> None:
    one = convert(data / "openkbp-csv/validation-pats/pt_239", tmp_path / "out").done[0]
    assert any("possible_dose_mask" in note for note in one.notes)
    sparse, dicom = read(data / "openkbp-csv/validation-pats/pt_239"), read(tmp_path / "out")
    assert np.array_equal(dicom.ct.array, sparse.ct.array)
    assert dicom.mask("Parotid_L").array.sum() == sparse.masks["Parotid_L"].array.sum()


def patients(folder: Path, *ids: str) -> Path:
    grid = Geometry.regular((3, 8, 9), (2, 1, 1))
    inside = np.zeros(grid.shape, bool)
    inside[1, 2:5, 3:6] = True
    for id in ids:
        write_image(Volume(np.zeros(grid.shape, np.int16), grid), folder / id / "ct.nii.gz")
        write_image(Volume(inside, grid), folder / id / "masks/Larynx.nii.gz")
    return folder


def test_a_cohort_with_a_bad_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = patients(tmp_path / "cohort", "a", "b", "c")
    (source / "b/ct.nii.gz").write_bytes(b"broken")
    with pytest.raises(CohortError, match=r"1 of 3 .*b: .*ct\.nii\.gz.*the other 2"):
        convert(source, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "c"]
    assert read(tmp_path / "out/c").structures == ("Larynx",)
    assert main(["convert", str(source), str(tmp_path / "again")]) == 2
    assert "1 of 3" in capsys.readouterr().err


def test_a_cohort_by_csv_and_by_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients(tmp_path, "a", "b")
    (tmp_path / "cohort.csv").write_text("patient,path\nP 1,a\nP/2,b\n")
    assert main(["convert", str(tmp_path / "cohort.csv"), str(tmp_path / "dicom")]) == 0
    assert sorted(p.name for p in (tmp_path / "dicom").iterdir()) == ["P 1", "P_2"]
    assert "P/2: " in capsys.readouterr().out
    back = convert(tmp_path / "dicom", tmp_path / "nifti")
    assert [one.id for one in back.done] == ["P 1", "P_2"]
    assert (tmp_path / "nifti/P_2/masks/Larynx.nii.gz").is_file()


def test_ids_that_would_share_a_folder(tmp_path: Path) -> None:
    patients(tmp_path, "a", "b")
    (tmp_path / "cohort.csv").write_text("patient,path\nP_2,a\nP/2,b\n")
    with pytest.raises(CohortError, match="share the folder"):
        convert(tmp_path / "cohort.csv", tmp_path / "out")


def test_destinations_are_not_lost(tmp_path: Path) -> None:
    source = patients(tmp_path, "a") / "a"
    convert(source, tmp_path / "out")
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(OutputError, match="overwrite"):
        convert(source, tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before
    convert(source, tmp_path / "out", to="nifti", overwrite=True)
    assert read(tmp_path / "out").source is None
    (tmp_path / "out/thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        convert(source, tmp_path / "out", overwrite=True)
    for place in (source, source / "within", tmp_path):
        with pytest.raises(OutputError, match="within each other"):
            convert(source, place, overwrite=True)
    (source / "ct.nii.gz").write_bytes(b"broken")
    (tmp_path / "out/thesis.tex").unlink()
    kept = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(OncontourError):
        convert(source, tmp_path / "out", overwrite=True)
    assert sorted((tmp_path / "out").rglob("*")) == kept


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="for one patient"):
        convert(patients(tmp_path / "many", "a", "b"), tmp_path / "out", series_uid="1.2")
    with pytest.raises(ConfigError):
        convert(tmp_path / "many/a", tmp_path / "out", to="docx")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_losses_are_said(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", rows=8, columns=9, offsets=(0, 2, 4, 6, 7, 8, 10))
    notes = convert(tmp_path / "ct", tmp_path / "nifti").done[0].notes
    assert any("slice" in note or "plane" in note for note in notes)
    grid = Geometry.regular((3, 8, 9), (2, 1, 1))
    write_image(Volume(np.full(grid.shape, 0.25, np.float32), grid), tmp_path / "soft/ct.nii.gz")
    notes = convert(tmp_path / "soft", tmp_path / "dicom").done[0].notes
    assert any("rounded to whole HU" in note for note in notes)
