"""Synthetic CT and MR series on disk, in any position, tilt, spacing and transfer syntax, with content at known patient points.

The content is a function of the patient point, so that the same anatomy is written whatever grid it is sampled on:

    series = make_series(folder, patient_position="HFP", offsets=[0, 1, 2, 5, 8])
    series = make_series(folder, tilt_deg=15, change=lambda dataset, n: ...)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

Floats = NDArray[np.float64]
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"

PATIENT_POSITIONS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, -1, 0), (-1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
}
"""Patient position -> LPS directions of the image's rows and columns, as a scanner looking from the couch's foot end writes them."""

BLOBS: dict[str, tuple[tuple[float, float, float], float]] = {
    "centre": ((0.0, 0.0, 0.0), 200.0),
    "left": ((12.0, 0.0, 0.0), 400.0),
    "posterior": ((0.0, 10.0, 0.0), 600.0),
    "superior": ((0.0, 0.0, 6.0), 800.0),
}
"""Name -> (patient point in LPS mm, value there): Gaussian blobs of 2 mm on a background of 0 that tell every side of the patient apart."""


def anatomy(points_mm: Floats) -> Floats:
    """(..., 3) LPS mm -> value: BLOBS."""
    out = np.zeros(points_mm.shape[:-1])
    for centre, value in BLOBS.values():
        out += value * np.exp(-((points_mm - np.array(centre)) ** 2).sum(axis=-1) / (2 * 2.0**2))
    return out


def ramp(points_mm: Floats) -> Floats:
    """(..., 3) LPS mm -> x + 2 y + 3 z: linear, so that linear interpolation must give it back exactly."""
    return points_mm @ np.array([1.0, 2.0, 3.0])


@dataclass(frozen=True)
class WrittenSeries:
    """What ``make_series`` put on disk, in the order of ``offsets``."""

    folder: Path
    paths: tuple[Path, ...]
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    sop_uids: tuple[str, ...]
    positions_mm: Floats
    row: Floats
    column: Floats
    stored: tuple[NDArray[Any], ...]

    @property
    def normal(self) -> Floats:
        return np.cross(self.row, self.column)


def make_series(
    folder: Path | str,
    *,
    image: Callable[[Floats], Floats] = anatomy,
    rows: int = 32,
    columns: int = 40,
    spacing_mm: tuple[float, float] = (1.0, 1.0),
    offsets: Sequence[float] = tuple(np.arange(-10.0, 11.0, 2.0)),
    centre_mm: Sequence[float] = (0.0, 0.0, 0.0),
    patient_position: str = "HFS",
    row: Sequence[float] | None = None,
    column: Sequence[float] | None = None,
    tilt_deg: float = 0.0,
    modality: str = "CT",
    slope: float | Sequence[float] = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    bits_stored: int = 16,
    numbers: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
    syntax: str | None = None,
    patient_id: str = "phantom",
    study_uid: str | None = None,
    series_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
    prefix: str = "",
    change: Callable[[Dataset, int], None] | None = None,
) -> WrittenSeries:
    """Write one series and say what it is.

    ``image``: patient points (rows, columns, 3) -> HU or scanner units; ``spacing_mm``: (between rows, between columns);
    ``offsets``: mm along the normal from ``centre_mm``, the middle of the straight stack; ``row``/``column`` override the directions of
    ``patient_position``; ``tilt_deg``: shears the stack along the column direction as a gantry tilted by so much does; ``numbers``:
    InstanceNumbers (default 1, 2, ...); ``order``: in which order files are named; ``syntax``: transfer syntax UID to compress to;
    ``change(dataset, n)``: a last edit of slice n before it is written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    directions = PATIENT_POSITIONS[patient_position]
    across = np.asarray(directions[0] if row is None else row, dtype=float)
    down = np.asarray(directions[1] if column is None else column, dtype=float)
    normal = np.cross(across, down)
    uids = [u or str(generate_uid()) for u in (study_uid, series_uid, frame_of_reference_uid)]
    slopes = np.broadcast_to(np.asarray(slope, dtype=float), len(offsets))
    corner = np.asarray(centre_mm, dtype=float) - down * spacing_mm[0] * (rows - 1) / 2 - across * spacing_mm[1] * (columns - 1) / 2
    paths, sops, positions, kept = [], [], [], []
    for n, offset in enumerate(offsets):
        position = corner + normal * offset + down * np.tan(np.radians(tilt_deg)) * offset
        points = _points(position, across, down, spacing_mm, rows, columns)
        stored = np.rint((image(points) - intercept) / slopes[n]).astype(np.int16 if signed else np.uint16)
        d = _dataset(modality, uids, patient_id, patient_position)
        d.SOPInstanceUID, d.InstanceNumber = str(generate_uid()), n + 1 if numbers is None else numbers[n]
        d.ImagePositionPatient = [_ds(v) for v in position]
        d.ImageOrientationPatient = [_ds(v) for v in (*across, *down)]
        d.PixelSpacing = [_ds(v) for v in spacing_mm]
        if modality == "CT" or (slopes[n], intercept) != (1.0, 0.0):
            d.RescaleSlope, d.RescaleIntercept = _ds(slopes[n]), _ds(intercept)
        _pixels(d, stored, bits_stored)
        if change is not None:
            change(d, n)
        path = folder / f"{prefix}{n if order is None else order[n]:04d}.dcm"
        save(d, path, syntax)
        paths.append(path)
        sops.append(str(d.SOPInstanceUID))
        positions.append(position)
        kept.append(stored)
    return WrittenSeries(folder, tuple(paths), uids[1], uids[0], uids[2], tuple(sops), np.array(positions), across, down, tuple(kept))


def save(dataset: Dataset, path: Path, syntax: str | None = None) -> None:
    """Write ``dataset`` with file meta information, compressed to transfer syntax ``syntax`` where given."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in (None, str(ExplicitVRLittleEndian)):
        dataset.save_as(path, enforce_file_format=True)
    elif syntax in _NATIVE:
        implicit, little = _NATIVE[syntax]
        _swap_pixels(dataset, little)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, enforce_file_format=True, implicit_vr=implicit, little_endian=little)
    elif syntax in _PYDICOM_ENCODES:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.save_as(path, enforce_file_format=True)
        _compress_with_gdcm(path, syntax)


_NATIVE = {"1.2.840.10008.1.2": (True, True), "1.2.840.10008.1.2.1.99": (False, True), "1.2.840.10008.1.2.2": (False, False)}
_PYDICOM_ENCODES = {
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.80",  # JPEG-LS, by pyjpegls
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless, by openjpeg
}


def _swap_pixels(dataset: Dataset, little: bool) -> None:
    if not little:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()


def _compress_with_gdcm(path: Path, syntax: str | None) -> None:
    """JPEG lossless and the like, which pydicom does not encode."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise RuntimeError(f"gdcm cannot read {path}")
    syntaxes = {
        "1.2.840.10008.1.2.4.57": gdcm.TransferSyntax.JPEGLosslessProcess14,
        "1.2.840.10008.1.2.4.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    }
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntaxes[str(syntax)]))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise RuntimeError(f"gdcm cannot compress {path} to {syntax}")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise RuntimeError(f"gdcm cannot write {path}")


def _ds(value: float) -> str:
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(value)))


def _points(position: Floats, across: Floats, down: Floats, spacing: tuple[float, float], rows: int, columns: int) -> Floats:
    j, i = np.mgrid[:rows, :columns]
    return position + j[..., None] * spacing[0] * down + i[..., None] * spacing[1] * across


def _pixels(d: Dataset, stored: NDArray[Any], bits_stored: int) -> None:
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = stored.shape
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, bits_stored, bits_stored - 1
    d.PixelRepresentation = int(stored.dtype == np.int16)
    d.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    d["PixelData"].VR = "OW"


def _dataset(modality: str, uids: Sequence[str], patient_id: str, patient_position: str) -> Dataset:
    """What every slice shares, complete enough for a conformance checker."""
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "OTHER"]
    d.SOPClassUID = CT_IMAGE if modality == "CT" else MR_IMAGE
    d.StudyDate = d.SeriesDate = d.ContentDate = "20260102"
    d.StudyTime = d.SeriesTime = d.ContentTime = "030405"
    d.AccessionNumber, d.ReferringPhysicianName, d.StudyID = "", "", "1"
    d.Modality, d.Manufacturer, d.SeriesDescription = modality, "synthetic", f"synthetic {modality}"
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = f"{patient_id}^synthetic", patient_id, "", "O"
    d.PatientPosition = patient_position
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = uids
    d.SeriesNumber, d.AcquisitionNumber, d.PositionReferenceIndicator, d.Laterality = 1, 1, "", ""
    d.SliceThickness = "2"
    if modality == "CT":
        d.KVP, d.RescaleType = "120", "HU"
    else:
        d.ScanningSequence, d.SequenceVariant, d.ScanOptions, d.MRAcquisitionType = "SE", "NONE", None, "2D"
        d.RepetitionTime, d.EchoTime, d.EchoTrainLength = "500", "20", 1
    return d
