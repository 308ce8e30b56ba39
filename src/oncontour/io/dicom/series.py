"""CT and MR series from any DICOM folder to one Volume in HU or scanner units.

    scan(folder)  ->  choose one series  ->  planes  ->  stack (order, gaps, tilt)  ->  voxels

Sources: DICOM PS3.3 A.3, A.4 (CT, MR image), C.7.6.2.1.1 (position and orientation), C.7.5.1.1.2 (pixel padding), C.11.1 (rescale).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import ON_GRID_MM
from oncontour.core.volume import Volume
from oncontour.errors import LimitError, SeriesError
from oncontour.io.dicom.differences import differences
from oncontour.io.dicom.encapsulated import LOSSY, check_shrunk
from oncontour.io.dicom.header import MAX_SLICES, MAX_VOXELS, DicomFile
from oncontour.io.dicom.pixels import stored_values
from oncontour.io.dicom.plane import Array, Plane, planes_of
from oncontour.io.dicom.scan import (
    DISTINGUISHING_KEYWORDS,
    PATIENT_KEYWORDS,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    SeriesFiles,
    choose,
    scan,
    usable,
)
from oncontour.io.dicom.source import DicomSource, SliceRef
from oncontour.io.dicom.stack import SAME_PLACE_MM, Stack, check_alike, offsets_mm, stack
from oncontour.io.folders import natural

__all__ = ["AIR_HU", "SeriesFiles", "choose", "read_series", "scan"]

AIR_HU = -1024
"""What voxels without a measurement (padding, beyond a tilted slice's edge) hold in a CT; in an MR it is 0."""
_TISSUE_HU = (-1000, 3071)
_INT16 = np.iinfo(np.int16)


def read_series(
    folder: Path | str | SeriesFiles, *, series_uid: str | None = None, modality: str | None = None, prefer_referenced: bool = False
) -> tuple[Volume, DicomSource, tuple[str, ...]]:
    """One CT or MR series as a Volume, the identity of its DICOM images, and notes for the user on what was left out or resampled.

    Values are HU (CT) or scanner units (MR) after the slope and intercept of each slice: int16 where that holds them exactly, else
    float32. The grid's k runs along row x column, j and i as the image's rows and columns; nothing is flipped. Padding is AIR_HU in a CT.

    From a folder with several series the only CT is read, else the only MR; ``modality``, ``series_uid`` and ``prefer_referenced`` (those
    that an RTSTRUCT in the folder refers to) narrow the choice.

    Raises SeriesError where no single series can be chosen or it is no volume (see ``oncontour.io.dicom.stack``), FormatError where a file
    is damaged, LimitError beyond MAX_MATRIX, MAX_SLICES, MAX_VOXELS, InputError where the folder does not exist.
    """
    notes: tuple[str, ...] = ()
    if isinstance(folder, SeriesFiles):
        series = folder
    else:
        series, notes = choose(scan(folder), str(folder), series_uid=series_uid, modality=modality, prefer_referenced=prefer_referenced)
    where = f"{series.modality} series {series.series_uid} in {series.path.parent}"
    files, dropped = usable(series)
    if not files:
        hint = "give the folder of the original CT or MR images: pictures made of them have no HU, or no place in the patient"
        raise SeriesError(f"no image of the series is a slice ({'; '.join(dropped)})", where=where, hint=hint)
    planes, numbers, doubles = _planes(files, where)
    kept = set(files)
    numbers += [file.whole("InstanceNumber") for file in series.files if file not in kept]
    laid = stack(planes, numbers, where)
    if laid.geometry.size > MAX_VOXELS:
        raise LimitError(f"{laid.geometry.size} voxels, at most {MAX_VOXELS} are read", where=where)
    array, remarks = _voxels(planes, laid, series.modality)
    source, missing = _source(series, planes)
    return Volume(array, laid.geometry), source, (*notes, *dropped, *doubles, *laid.notes, *remarks, *missing)


# ---- planes


def _planes(files: Sequence[DicomFile], where: str) -> tuple[list[Plane], list[int | None], tuple[str, ...]]:
    """The planes along their normal, one in each place; the InstanceNumbers of all, doubles too; and notes on doubles dropped.

    ``files`` come in the order of their SOPInstanceUIDs, which decides between planes in one place.
    """
    if len(files) > MAX_SLICES:
        raise LimitError(f"{len(files)} images, at most {MAX_SLICES} slices are read", where=where)
    planes: list[Plane] = []
    for file in files:
        planes += planes_of(file)
        if len(planes) > MAX_SLICES:
            raise LimitError(f"more than {MAX_SLICES} slices", where=where)
    check_alike(planes, where)
    check_shrunk(files, where)
    offsets = offsets_mm(planes)
    order = np.argsort(offsets, kind="stable")
    kept, notes = _one_in_each_place([planes[n] for n in order], offsets[order], where)
    return kept, [plane.number for plane in planes], notes


def _one_in_each_place(planes: list[Plane], offsets: Array, where: str) -> tuple[list[Plane], tuple[str, ...]]:
    kept, at, dropped = [planes[0]], offsets[0], 0
    for plane, offset in zip(planes[1:], offsets[1:], strict=True):
        if offset - at > SAME_PLACE_MM:
            kept.append(plane)
            at = offset
            continue
        _check_double(kept[-1], plane, where)
        dropped += 1
    note = f"{dropped} image(s) are exact doubles of others in the same place: left out"
    return kept, (note,) if dropped else ()


def _check_double(one: Plane, other: Plane, where: str) -> None:
    """Raise SeriesError unless both images of one place are the same image."""
    one, other = sorted((one, other), key=lambda plane: [natural(plane.file.text(keyword)) for keyword in DISTINGUISHING_KEYWORDS])
    names = (
        f"{one.file.path.name} and {other.file.path.name}" if one.file is not other.file else f"frames {one.frame + 1}, {other.frame + 1}"
    )
    position = ", ".join(f"{v:.2f}" for v in other.position_mm)
    if np.abs(one.position_mm - other.position_mm).max() > ON_GRID_MM:
        raise SeriesError(f"two images lie side by side in one plane ({names}, ImagePositionPatient {position})", where=where)
    same_scale = (one.slope, one.intercept, one.pixel.padding) == (other.slope, other.intercept, other.pixel.padding)
    if same_scale and np.array_equal(stored_values(one), stored_values(other)):
        return
    told = "; ".join(differences(one, other))
    what = f"two different images in one place ({names}, ImagePositionPatient {position})" + (f": {told}" if told else "")
    raise SeriesError(what, where=where, hint="keep one image for each place (one phase, echo or reconstruction) in the folder")


# ---- voxels


def _voxels(planes: Sequence[Plane], laid: Stack, modality: str) -> tuple[Array, tuple[str, ...]]:
    fill = AIR_HU if modality == "CT" else 0
    out: Array = np.empty(laid.geometry.shape, np.int16)
    odd_padding: set[float] = set()
    for n, (plane, k) in enumerate(zip(planes, laid.index, strict=True)):
        values = _values(plane, modality, odd_padding)
        if laid.shift is not None:
            values = _shifted(values, laid, int(k), laid.shift[n], fill)
        if values.dtype != out.dtype and out.dtype == np.int16:
            out = out.astype(np.float32)
        out[k] = values
    _fill_between(out, laid.index)
    notes = [f"PixelPaddingValue stands for {v:g} HU, which tissue can have: left as it is" for v in sorted(odd_padding)]
    if any(p.file.transfer_syntax_uid in LOSSY or p.file.plain("LossyImageCompression") == "01" for p in planes):
        notes.append("images were compressed with loss: values are not those the scanner measured")
    return out, tuple(notes)


def _values(plane: Plane, modality: str, odd_padding: set[float]) -> Array:
    """HU or scanner units of one plane, int16 where exact, else float32; CT padding replaced by AIR_HU."""
    stored = stored_values(plane)
    padding = _padded(stored, plane, modality, odd_padding)
    measured = stored if padding is None else stored[~padding]
    if not measured.size:
        return np.full(stored.shape, AIR_HU, np.int16)
    ends = [float(v) * plane.slope + plane.intercept for v in (measured.min(), measured.max())]
    if not max(abs(v) for v in ends) < 1e9:
        raise SeriesError(
            f"RescaleSlope {plane.slope:g}, RescaleIntercept {plane.intercept:g} make values of {max(ends):g}", where=plane.where
        )
    whole = plane.slope.is_integer() and plane.intercept.is_integer()
    if whole and _INT16.min <= min(ends) and max(ends) <= _INT16.max:
        values = _whole(stored, int(plane.slope), int(plane.intercept))
    else:
        values = (stored * plane.slope + plane.intercept).astype(np.float32)
    if padding is not None:
        values[padding] = AIR_HU
    return values


def _whole(stored: Array, slope: int, intercept: int) -> Array:
    """Rescaled int16; since every result fits, arithmetic modulo 2^16 gives it exactly whatever the stored range."""
    values: Array = stored.astype(np.int16)  # wraps
    with np.errstate(over="ignore"):
        if slope != 1:
            values *= np.int64(slope).astype(np.int16)
        if intercept:
            values += np.int64(intercept).astype(np.int16)
    return values


def _padded(stored: Array, plane: Plane, modality: str, odd_padding: set[float]) -> NDArray[np.bool_] | None:
    """Where a CT plane holds its padding value, None where nowhere (or where the value could be tissue)."""
    if plane.pixel.padding is None or modality != "CT":
        return None
    low, high = plane.pixel.padding
    found = (stored >= low) & (stored <= high) if low != high else stored == low
    if not found.any():
        return None
    ends = sorted((low * plane.slope + plane.intercept, high * plane.slope + plane.intercept))
    if ends[1] > _TISSUE_HU[0] and ends[0] < _TISSUE_HU[1]:
        odd_padding.add(ends[1])
        return None
    return np.asarray(found)


def _shifted(values: Array, laid: Stack, k: int, shift: Array, fill: float) -> Array:
    """A plane of a sheared stack on the upright grid: linear within its plane, ``fill`` beyond its edge."""
    grid = laid.geometry
    there = grid.crop((k, 0, 0), (k + 1, grid.shape[1], grid.shape[2]))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.points((k, shift[0], shift[1]))
    here = type(grid)((1, values.shape[0], values.shape[1]), affine)
    moved: Array = Volume(values[None], here).to(there, fill=fill).array[0]
    return moved


def _fill_between(out: Array, index: Array) -> None:
    """Linear between the slices of an uneven stack."""
    for low, high in pairwise(index):
        for k in range(int(low) + 1, int(high)):
            weight = np.float32((k - low) / (high - low))
            mixed = out[low] * (1 - weight) + out[high] * weight
            out[k] = np.rint(mixed) if out.dtype == np.int16 else mixed


# ---- identity


def _source(series: SeriesFiles, planes: Sequence[Plane]) -> tuple[DicomSource, tuple[str, ...]]:
    """Who the images are, and notes on what they lack."""
    one, file = planes[0], planes[0].file
    patient, study, module = (_texts(planes, names) for names in (PATIENT_KEYWORDS, STUDY_KEYWORDS, SERIES_KEYWORDS))
    notes = []
    if module.get("SyntheticData") == "YES":
        notes.append("the images are SYNTHETIC: made by a program, not acquired")
    frame = file.plain("FrameOfReferenceUID")
    made = not frame
    if made:
        from pydicom.uid import generate_uid

        frame = str(generate_uid(entropy_srcs=[series.series_uid]))
        notes.append("the images have no FrameOfReferenceUID: one was made from the series UID")
    if len({(p.file.plain("SOPInstanceUID"), p.frame) for p in planes}) < len(planes):
        notes.append("several images have one SOPInstanceUID: what is drawn on them cannot say which of them it refers to")
    if any(p.file.plain("RescaleType") == "HU_MOD" for p in planes):
        notes.append("RescaleType is HU_MOD: modified HU, not those that the scanner measured")
    promised = file.whole("ImagesInAcquisition")
    if promised is not None and promised > len(planes):
        notes.append(f"ImagesInAcquisition says {promised} images, {len(planes)} are here: part of the series may be missing")
    source = DicomSource(
        modality=series.modality,
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        frame_of_reference_uid=frame,
        slices=tuple(_reference(p) for p in planes),
        rows=one.rows,
        columns=one.columns,
        pixel_spacing_mm=one.spacing_mm,
        row=(float(one.row[0]), float(one.row[1]), float(one.row[2])),
        column=(float(one.column[0]), float(one.column[1]), float(one.column[2])),
        patient_position=file.plain("PatientPosition"),
        patient=patient,
        study=study,
        series=module,
        frame_is_made=made,
    )
    return source, tuple(notes)


def _texts(planes: Sequence[Plane], names: Sequence[str]) -> MappingProxyType[str, str]:
    return MappingProxyType({name: value for name in names if (value := planes[0].file.text(name))})


def _reference(plane: Plane) -> SliceRef:
    x, y, z = (float(v) for v in plane.position_mm)
    frame = plane.frame + 1 if plane.frames > 1 else None
    return SliceRef(plane.file.sop_class_uid, plane.file.plain("SOPInstanceUID"), (x, y, z), frame)
