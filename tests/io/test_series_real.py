"""Real CT and MR, voxel by voxel against SimpleITK's series reader (right where slices are even)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from oncontour.io.dicom.scan import scan
from oncontour.io.dicom.series import read_series


@pytest.mark.parametrize(
    ("folder", "modality", "shape"),
    [("LUNG1-001", "CT", (134, 512, 512)), ("STS_044", "CT", (53, 216, 234)), ("STS_044", "MR", (52, 191, 180))],
)
def test_real_series_equal_simpleitk(data: Path, folder: str, modality: str, shape: tuple[int, int, int]) -> None:
    volume, source, notes = read_series(data / "dicom" / folder, modality=modality)
    assert volume.geometry.shape == shape
    assert volume.array.dtype == np.int16
    assert all(note.startswith("left out:") for note in notes)
    (series,) = [s for s in scan(data / "dicom" / folder) if s.series_uid == source.series_uid]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series.path.parent), source.series_uid))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
    assert np.allclose(image.GetOrigin(), volume.geometry.origin_mm)
    assert np.allclose(image.GetSpacing(), volume.geometry.spacing_mm[::-1], atol=1e-4)


def test_what_lies_in_the_folders(data: Path) -> None:
    lung = scan(data / "dicom" / "LUNG1-001")
    assert [s.kind for s in lung] == ["image", "RTSTRUCT"]
    assert lung[1].referenced_series == (lung[0].series_uid,)
    assert lung[0].frame_of_reference_uid in lung[1].referenced_frames
    sarcoma = scan(data / "dicom" / "STS_044")
    assert [(s.kind, s.modality, len(s.files)) for s in sarcoma][:2] == [("image", "CT", 53), ("image", "MR", 52)]
    assert {s.referenced_series[0] for s in sarcoma[2:]} == {s.series_uid for s in sarcoma[:2]}
