"""The published OpenKBP CSVs against the NIfTI version of the same patients, and a format that must not pass when broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oncontour.errors import FormatError, InputError, LimitError, OncontourError
from oncontour.io import read
from oncontour.io.image import openkbp
from oncontour.io.image.openkbp import read_openkbp


@pytest.mark.parametrize("patient", ["pt_238", "pt_239"])
def test_both_publications_of_a_patient_agree(data: Path, patient: str) -> None:
    sparse, nifti = read(data / "openkbp-csv/validation-pats" / patient), read(data / "openkbp/validation" / patient)
    grid = nifti.geometry
    assert sparse.id == patient
    assert set(sparse.masks) == set(nifti.masks)
    assert sparse.geometry.shape == (128, 128, 128)
    assert np.allclose(sparse.geometry.spacing_mm, grid.spacing_mm, atol=1e-6)
    assert sparse.ct.array.dtype == np.int16
    assert np.array_equal(sparse.ct.to(grid).array, nifti.ct.array)  # the crop lies on the grid: copied, not interpolated
    assert np.abs(sparse.images["dose"].to(grid).array - nifti.images["dose"].array).max() < 0.0101  # NIfTI dose was rounded to 0.02
    for name, mask in nifti.masks.items():
        assert np.array_equal(sparse.masks[name].to(grid).array, mask.array), name
        assert sparse.masks[name].array.sum() == mask.array.sum(), name


def test_left_is_left(data: Path) -> None:
    """In LPS the left parotid has the larger x."""
    case = read(data / "openkbp-csv/validation-pats/pt_238")
    x = {side: case.geometry.points(np.argwhere(case.masks[f"Parotid_{side}"].array)).mean(axis=0)[0] for side in "LR"}
    assert x["L"] > 30
    assert x["R"] < -30


def patient(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in {"voxel_dimensions": "4\n4\n3\n", "ct": ",data\n5,1000.0\n", **files}.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_axes_by_pencil(tmp_path: Path) -> None:
    """Flat 5 is (0, 0, 5): most anterior, most right, fifth from superior; k counts from inferior: (122, 0, 0). 1000 is -24 HU."""
    case = read(patient(tmp_path / "pt_1", Brainstem=",data\n5,\n", Odd=",data\n"))
    assert case.ct.array[122, 0, 0] == -24
    assert (case.ct.array != -1024).sum() == 1
    assert case.masks["Brainstem"].array[122, 0, 0]
    assert case.geometry.points((122, 0, 0)).tolist() == [-254, -254, 175.5]
    assert not case.masks["Odd"].array.any()
    assert case.facts["unmapped"] == ("Odd",)
    assert "Larynx" not in case.structures


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"ct": ",data\n2097152,1\n"}, "line 2"),
        ({"ct": ",data\n1,1\n-1,1\n"}, "line 3"),
        ({"ct": ",data\n1.5,1\n"}, "whole number"),
        ({"ct": ",data\n1,1\n1,1\n"}, "twice"),
        ({"ct": ",data\n1,nan\n"}, "no CT value"),
        ({"ct": ",data\n1,1e9\n"}, "no CT value"),
        ({"ct": ",data\n1\n"}, "not an OpenKBP CSV"),
        ({"ct": "\0\1\2"}, "ct.csv"),
        ({"Brainstem": ",data\nx,\n"}, "not an OpenKBP CSV"),
        ({"voxel_dimensions": "4\n4\n"}, "three positive"),
        ({"voxel_dimensions": "4\n4\n0\n"}, "three positive"),
        ({"voxel_dimensions": "4\n4\nnan\n"}, "three positive"),
        ({"voxel_dimensions": "wide\n"}, "not an OpenKBP CSV"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, files: dict[str, str], word: str) -> None:
    with pytest.raises(OncontourError, match=word):
        read(patient(tmp_path / "pt_1", **files))


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openkbp, "MAX_BYTES", 10)
    with pytest.raises(LimitError):
        read(patient(tmp_path / "pt_1", ct=",data\n5,1000.0\n"))


def test_other_folders_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no OpenKBP patient"):
        read_openkbp(tmp_path)
    with pytest.raises(FormatError):
        read(patient(tmp_path / "pt_1", ct=",data\n1,\n"))
