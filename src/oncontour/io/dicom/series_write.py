"""A Volume as a CT or MR image series.

Sources: DICOM PS3.3 A.3.3, A.4.3 (what a CT and an MR image hold), C.7.6.2 (image plane), C.8.2.1, C.8.3.1 (CT and MR image modules).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, OutputError, SeriesError
from oncontour.files import writing_folder
from oncontour.io.dicom.attributes import new_object, new_series, save
from oncontour.io.dicom.header import MAX_MATRIX
from oncontour.io.dicom.plane import Array
from oncontour.io.dicom.scan import CT_IMAGE, MR_IMAGE
from oncontour.io.dicom.source import DicomSource, SliceRef

_CLASSES = {"CT": CT_IMAGE, "MR": MR_IMAGE}
_INT16 = np.iinfo(np.int16)


def write_series(
    volume: Volume,
    folder: Path | str,
    *,
    source: DicomSource | None = None,
    modality: str | None = None,
    patient: Mapping[str, str] | None = None,
    description: str = "",
    finishing: Callable[[Dataset, int, SliceRef], None] | None = None,
) -> DicomSource:
    """Write ``volume`` (k, j, i) as one DICOM file a slice into the new ``folder``, and return the identity of the series.

    Patient, study, frame of reference and position come from ``source`` where given (the series UID is always new), single patient
    attributes from ``patient`` (keyword -> text). ``modality``: "CT" (HU, rounded to whole) or "MR"; that of ``source``, else CT.
    CT values that do not fit 16 bits raise; MR values that are not whole numbers of 16 bits get a RescaleSlope, so they come back
    within range / 65535. A grid whose k axis runs against row x column is read back with its slices the other way round.
    ``finishing`` may add to each slice's dataset before it is written, and is given k and the slice's place.

    Raises SeriesError for NaN, infinite or too large values, OutputError where the folder is in use or cannot be written.
    """
    folder = Path(folder)
    modality = modality or (source.modality if source else "CT")
    if modality not in _CLASSES:
        raise ConfigError(f"modality {modality!r} cannot be written; there are {sorted(_CLASSES)}", where=str(folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("the folder for the series is not empty", where=str(folder), hint="name a new folder")
    stored, slope, intercept = _stored(volume, modality)
    written = _identity(volume.geometry, source, modality, dict(patient or {}))
    template = _template(written, volume.geometry, (slope, intercept), description, stored.dtype == np.int16)
    with writing_folder(folder) as temporary:
        for k, one in enumerate(written.slices):
            if finishing is not None:
                finishing(template, k, one)
            _write_slice(template, one, k, stored[k], temporary / f"{modality}{k + 1:04d}.dcm")
    return written


def _stored(volume: Volume, modality: str) -> tuple[Array, float, float]:
    """(16-bit values, slope, intercept). Raises SeriesError where that cannot be."""
    values = volume.array
    if values.ndim != 3:
        raise SeriesError(f"a series holds one value a voxel, not an array of {values.shape}")
    if max(values.shape[1:]) > MAX_MATRIX:
        raise SeriesError(f"a matrix of {values.shape[1]}x{values.shape[2]}; at most {MAX_MATRIX}x{MAX_MATRIX} are written")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise SeriesError("the volume holds NaN or infinite values", hint="replace them before writing")
    if _INT16.min <= low and high <= _INT16.max and (modality == "CT" or _is_whole(values)):
        return values if values.dtype == np.int16 else np.rint(values).astype(np.int16), 1.0, 0.0
    if modality == "CT":
        raise SeriesError(f"values of {low:g} to {high:g} HU do not fit the 16 bits of a CT ({_INT16.min} to {_INT16.max})")
    if low >= 0 and high <= 65535 and _is_whole(values):
        return np.rint(values).astype(np.uint16), 1.0, 0.0
    slope = (high - low) / 65535 or 1.0
    slope = float(format_number_as_ds(slope))
    intercept = float(format_number_as_ds(low))
    return np.clip(np.rint((np.asarray(values, np.float64) - intercept) / slope), 0, 65535).astype(np.uint16), slope, intercept


def _is_whole(values: Array) -> bool:
    return not np.issubdtype(values.dtype, np.floating) or bool((values == np.rint(values)).all())


def _identity(geometry: Geometry, source: DicomSource | None, modality: str, patient: dict[str, str]) -> DicomSource:
    """The series to be: one SOP instance for each k of the grid."""
    row, column = (tuple(float(v) for v in geometry.axes[n]) for n in (2, 1))
    positions = geometry.points([(k, 0, 0) for k in range(geometry.shape[0])])
    slices = [SliceRef(_CLASSES[modality], str(generate_uid()), (float(x), float(y), float(z))) for x, y, z in positions]
    return DicomSource(
        modality=modality,
        study_uid=source.study_uid if source else str(generate_uid()),
        series_uid=str(generate_uid()),
        frame_of_reference_uid=source.frame_of_reference_uid if source else str(generate_uid()),
        slices=tuple(slices),
        rows=geometry.shape[1],
        columns=geometry.shape[2],
        pixel_spacing_mm=geometry.spacing_mm[1:],
        row=(row[0], row[1], row[2]),
        column=(column[0], column[1], column[2]),
        patient_position=source.patient_position if source else _usual_position(geometry),
        patient=MappingProxyType({**(source.patient if source else {}), **patient}),
        study=source.study if source else MappingProxyType({}),
    )


def _usual_position(geometry: Geometry) -> str:
    """HFS where the grid lies as such images do (rows to the left, columns to posterior); unknown for any other."""
    return "HFS" if np.abs(geometry.axes[1:] - np.eye(3)[[1, 0]]).max() < 1e-4 else ""


def _template(to: DicomSource, geometry: Geometry, rescale: tuple[float, float], description: str, signed: bool) -> Dataset:
    """Everything that all slices share."""
    d = new_object(_CLASSES[to.modality], to)
    new_series(d, to.modality, "Content")
    d.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if to.modality == "CT" else "OTHER"]
    d.Laterality = ""
    d.SeriesInstanceUID = to.series_uid
    d.SeriesDescription = description
    d.AcquisitionNumber = None
    d.PatientPosition = to.patient_position
    d.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in (*to.row, *to.column)]
    d.PixelSpacing = [format_number_as_ds(float(v)) for v in to.pixel_spacing_mm]
    d.SliceThickness = format_number_as_ds(float(geometry.spacing_mm[0]))
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = to.rows, to.columns
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.PixelRepresentation = int(signed)
    _modality_module(d, to.modality, rescale)
    return d


def _modality_module(d: Dataset, modality: str, rescale: tuple[float, float]) -> None:
    slope, intercept = rescale
    if modality == "CT":
        d.KVP = None
        d.RescaleType = "HU"
    else:
        d.ScanningSequence, d.SequenceVariant, d.ScanOptions = "RM", "NONE", None
        d.MRAcquisitionType, d.RepetitionTime, d.EchoTime, d.EchoTrainLength = "", None, None, None
    if modality == "CT" or rescale != (1.0, 0.0):
        d.RescaleSlope, d.RescaleIntercept = format_number_as_ds(slope), format_number_as_ds(intercept)


def _write_slice(template: Dataset, one: SliceRef, k: int, stored: Array, path: Path) -> None:
    d = template
    d.SOPInstanceUID, d.InstanceNumber = one.sop_instance_uid, k + 1
    d.ImagePositionPatient = [format_number_as_ds(v) for v in one.position_mm]
    d.PixelData = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes()
    d["PixelData"].VR = "OW"
    save(d, path)
