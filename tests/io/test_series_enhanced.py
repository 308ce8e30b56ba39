"""Enhanced multi-frame CT and MR: one file, a position and rescale for each frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from oncontour.errors import FormatError, SeriesError
from oncontour.io.dicom.series import read_series
from tests.dicom_cases import make_series, save


def enhanced(
    folder: Path, offsets: list[float], *, slopes: list[float] | None = None, syntax: str | None = None, shared: bool = True
) -> np.ndarray:
    """One multi-frame file made of a synthetic series; the stored values."""
    made = make_series(folder / "parts", offsets=offsets, modality="MR", intercept=0)
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.3.4"
    out.Modality, out.SeriesInstanceUID, out.StudyInstanceUID, out.FrameOfReferenceUID = "MR", "1.2.3.5", "1.2.3.6", "1.2.3.7"
    out.PatientName, out.PatientID, out.ImageType = "a", "b", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    if shared:
        group = Dataset()
        group.PlaneOrientationSequence, group.PixelMeasuresSequence = [orientation], [measures]
        out.SharedFunctionalGroupsSequence = [group]
    frames = []
    for n, position in enumerate(made.positions_mm):
        frame, place, rescale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [float(v) for v in position]
        frame.PlanePositionSequence = [place]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = (slopes[n] if slopes else 1), 0, "US"
        frame.PixelValueTransformationSequence = [rescale]
        if not shared:
            frame.PlaneOrientationSequence, frame.PixelMeasuresSequence = [orientation], [measures]
        frames.append(frame)
    out.PerFrameFunctionalGroupsSequence, out.NumberOfFrames = frames, len(frames)
    stored = np.array(made.stored)
    out.SamplesPerPixel, out.PhotometricInterpretation, (out.Rows, out.Columns) = 1, "MONOCHROME2", stored.shape[1:]
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 0
    out.PixelData = stored.astype("<u2").tobytes()
    out["PixelData"].VR = "OW"
    for path in made.paths:
        path.unlink()
    save(out, folder / "enhanced.dcm", syntax)
    return stored


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"])
def test_frames_are_slices(tmp_path: Path, syntax: str | None, shared: bool) -> None:
    order = [4.0, 0.0, 2.0, 6.0]
    stored = enhanced(tmp_path, order, syntax=syntax, shared=shared)
    volume, source, notes = read_series(tmp_path)
    assert np.array_equal(volume.array, stored[np.argsort(order)])
    assert volume.geometry.spacing_mm == (2.0, 1.0, 1.0)
    assert [(s.sop_instance_uid, s.frame) for s in source.slices] == [("1.2.3.4", n) for n in (2, 3, 1, 4)]
    assert notes == ()


def test_each_frame_has_its_own_slope(tmp_path: Path) -> None:
    stored = enhanced(tmp_path, [0.0, 2.0], slopes=[0.5, 3.0])
    volume, _, _ = read_series(tmp_path)
    assert np.allclose(volume.array, stored * np.array([0.5, 3.0])[:, None, None])


def test_frames_without_positions_are_refused(tmp_path: Path) -> None:
    def many(d: Dataset, n: int) -> None:
        d.NumberOfFrames = 2
        d.PixelData = d.PixelData * 2

    make_series(tmp_path, change=many)
    with pytest.raises(SeriesError, match="2 frames without a position each"):
        read_series(tmp_path)


def test_frames_in_several_fragments_need_a_table(tmp_path: Path) -> None:
    enhanced(tmp_path, [0.0, 2.0, 4.0], syntax="1.2.840.10008.1.2.5")
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    d = dcmread(tmp_path / "enhanced.dcm")
    frames = list(generate_frames(d.PixelData, number_of_frames=3))
    expected, _, _ = read_series(tmp_path)
    d.PixelData = encapsulate(frames, fragments_per_frame=2)
    d.save_as(tmp_path / "enhanced.dcm")
    assert np.array_equal(read_series(tmp_path)[0].array, expected.array)
    d.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)
    d.save_as(tmp_path / "enhanced.dcm")
    with pytest.raises(FormatError, match="no table that says which is whose"):
        read_series(tmp_path)
