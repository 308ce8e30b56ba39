"""A dose in Gy as an RTDOSE.

Sources: DICOM PS3.3 A.18.3 (RT Dose IOD), C.8.8.3 (RT Dose module).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, DoseError
from oncontour.files import writing
from oncontour.io.dicom.attributes import item_of, new_object, new_series, save
from oncontour.io.dicom.header import read_header
from oncontour.io.dicom.rtdose_read import PARTS, RT_DOSE, WHOLE, DoseKind
from oncontour.io.dicom.source import DicomSource

RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
_LARGEST = {16: 2**16 - 1, 32: 2**31 - 1}
"""Bits -> largest stored value: half of what 32 bits hold, since some readers take them as signed."""
_DECIMAL_STEPS_GY = (0.01, 0.005, 0.001)
"""Steps that doses are commonly rounded to; 2e-7 of the maximum is what float32 makes of them."""


@dataclass(frozen=True)
class Moved:
    """How a dose was carried to these images: rigidly or deformed, ``by`` the registration object in which file, None where none is."""

    how: Literal["RIGID", "NON_RIGID"]
    by: Path | None = None


def without_word(kind: DoseKind) -> str:
    """Why DICOM has no DoseSummationType for ``kind``, "" where it has."""
    if kind.summation in (*WHOLE, *PARTS) and len(kind.groups) < 2:
        return ""
    return (
        "the dose is a sum of parts that are not known to be all (beams of several fraction groups, several fraction groups, or a part"
        " of one plan and another plan), which DICOM has no word for"
    )


PUT_PLAN_BESIDE = "put the RTPLAN beside the doses, or export the dose of the whole plan"
"""The way out of ``without_word``."""


def write_rtdose(
    dose: Volume,
    path: Path | str,
    *,
    source: DicomSource | None = None,
    plan_uid: str | None = None,
    comment: str = "",
    bits: int | None = None,
    kind: DoseKind | None = None,
    moved: Moved | None = None,
) -> Path:
    """Write ``dose`` (Gy) as an RTDOSE, that of a whole plan and physical unless ``kind`` tells otherwise, and give the path back.

    A dose whose values are multiples of a decimal step (0.01 Gy, say) goes into 16 bits without loss; any other as multiples of
    maximum / (2^31 - 1) in 32 bits, or / 65535 where ``bits`` = 16 is asked for: what is read back differs by at most half of that.
    Patient, study and frame of reference are those of ``source``, else new. An RTDOSE must refer to a plan; without ``plan_uid`` it
    refers to a new UID (a sum of plans to as many as it had), and DoseComment says that no such plan was exported. ``moved``: how a dose
    came here that was calculated on other images (C.8.8.3, Spatial Transform of Dose).

    Raises DoseError, before anything is written, for NaN, infinite, negative or no dose, and for a ``kind`` that DICOM has no word for.
    """
    kind = kind or DoseKind()
    if bits is not None and bits not in _LARGEST:
        raise ConfigError(f"a dose is stored in {' or '.join(map(str, _LARGEST))} bits, not {bits}")
    path = Path(path)
    _check_writable(dose, str(path))
    _check_told(kind, str(path))
    dose = _along_normal(dose)
    dataset = _dataset(dose, source, plan_uid, comment, bits, kind)
    if moved is not None:
        dataset.SpatialTransformOfDose = moved.how
        file = None if moved.by is None else read_header(moved.by, ("SOPClassUID", "SOPInstanceUID"))
        dataset.ReferencedSpatialRegistrationSequence = [
            item_of(ReferencedSOPClassUID=one.sop_class_uid, ReferencedSOPInstanceUID=one.plain("SOPInstanceUID")) for one in [file] if one
        ]
    with writing(path) as temporary:
        save(dataset, temporary)
    return path


def _check_writable(dose: Volume, where: str) -> None:
    values = dose.array
    if values.ndim != 3:
        raise DoseError(f"a dose has three axes, not {values.shape}", where=where)
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        raise DoseError(f"{len(bad)} voxels of dose are NaN or infinite, the first at (k, j, i) = {tuple(bad[0].tolist())}", where=where)
    if values.min() < 0 or values.max() <= 0:
        raise DoseError(f"a dose runs from 0 up, this from {values.min():g} to {values.max():g} Gy", where=where)


def _check_told(kind: DoseKind, where: str) -> None:
    if untold := without_word(kind):
        raise DoseError(untold, where=where, hint=PUT_PLAN_BESIDE)
    if kind.type not in ("PHYSICAL", "EFFECTIVE", ""):
        raise DoseError(f"DoseType is {kind.type}; PHYSICAL and EFFECTIVE are written", where=where)


def _along_normal(dose: Volume) -> Volume:
    """The same voxels with slices in the direction of row x column, as DICOM counts frames."""
    grid = dose.geometry
    if np.cross(grid.axes[2], grid.axes[1]) @ grid.axes[0] > 0:
        return dose
    return dose.to(grid.reorient(grid.axes * [[-1.0], [1.0], [1.0]]))


def _dataset(dose: Volume, source: DicomSource | None, plan_uid: str | None, comment: str, bits: int | None, kind: DoseKind) -> Dataset:
    d = new_object(RT_DOSE, source)
    new_series(d, "RTDOSE", "Content", "InstanceCreation")
    d.OperatorsName, d.SeriesDescription = "", "Dose"
    _grid_module(d, dose, bits)
    d.DoseUnits, d.DoseType, d.DoseSummationType = "GY", kind.type or "PHYSICAL", kind.summation
    d.DoseComment = (comment or ("" if plan_uid else "The referenced plan was not exported with this dose"))[:64]
    d.ReferencedRTPlanSequence = _plan_references(plan_uid, kind)
    return d


def _plan_references(plan_uid: str | None, kind: DoseKind) -> list[Dataset]:
    """The plans that a dose is of, and which parts of one (C.8.8.3: one fraction group, and its beams of BEAM)."""
    uids = [plan_uid or str(generate_uid()), *(str(generate_uid()) for _ in range(kind.plans - 1))]
    plans = [item_of(ReferencedSOPClassUID=RT_PLAN, ReferencedSOPInstanceUID=uid) for uid in uids]
    part: dict[str, object] = {"ReferencedFractionGroupNumber": kind.groups[0]} if kind.groups else {}
    if kind.beams:
        part["ReferencedBeamSequence"] = [item_of(ReferencedBeamNumber=number) for number in kind.beams]
    if part:
        plans[0].ReferencedFractionGroupSequence = [item_of(**part)]
    return plans


def _steps(dose_gy: NDArray[np.float64], bits: int | None) -> tuple[int, float]:
    """(bits, DoseGridScaling) to store these values with; see ``write_rtdose``."""
    largest = float(dose_gy.max())
    for step in _DECIMAL_STEPS_GY if bits != 32 else ():
        if largest <= step * _LARGEST[16] and float(np.abs(np.rint(dose_gy / step) * step - dose_gy).max()) <= 2e-7 * largest:
            return 16, step
    bits = bits or 32
    return bits, max(largest / _LARGEST[bits], 1e-30)


def ds(value: float) -> str:
    """``value`` in at most 16 letters, which pydicom's own form of a number may pass by one."""
    text = format_number_as_ds(float(value))
    return text if len(text) <= 16 else format_number_as_ds(round(float(value), 9))


def _grid_module(d: Dataset, dose: Volume, bits: int | None) -> None:
    grid = dose.geometry
    frames, d.Rows, d.Columns = grid.shape
    d.ImagePositionPatient = [ds(v) for v in grid.origin_mm]
    d.ImageOrientationPatient = [ds(float(v)) for v in (*grid.axes[2], *grid.axes[1])]
    d.PixelSpacing = [ds(v) for v in grid.spacing_mm[1:]]
    d.SliceThickness = ds(grid.spacing_mm[0])
    d.NumberOfFrames, d.FrameIncrementPointer = frames, 0x3004000C
    d.GridFrameOffsetVector = [ds(grid.spacing_mm[0] * n) for n in range(frames)]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    bits, step = _steps(np.asarray(dose.array, np.float64), bits)
    d.BitsAllocated, d.BitsStored, d.HighBit = bits, bits, bits - 1
    scaling = d.DoseGridScaling = ds(step)
    d.PixelData = (
        np.minimum(np.rint(np.asarray(dose.array, np.float64) / float(scaling)), _LARGEST[bits]).astype(f"<u{bits // 8}").tobytes()
    )
    d["PixelData"].VR = "OW"
