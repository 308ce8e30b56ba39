"""One image plane of a CT or MR series: where it lies in the patient and how its stored values become HU.

Sources: DICOM PS3.3 C.7.6.2 (image plane), C.7.6.3 (image pixel), C.7.6.16 (functional groups of multi-frame images), C.11.1 (rescale).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Floats
from oncontour.errors import FormatError, LimitError, SeriesError
from oncontour.io.dicom.header import MAX_MATRIX, MAX_SLICES, DicomFile, Header
from oncontour.io.dicom.scan import IMAGE_CLASSES

Array = NDArray[Any]
"""Stored values, or what they stand for, of any dtype."""
_SPACING_MM = (0.001, 100.0)
_FARTHEST_MM = 100_000.0
_PERPENDICULAR = 1e-3
"""Largest cosine between row and column direction that counts as rounding."""
_AS_HU = "export the series in HU"
_HU_TYPES = ("", "HU", "HU_MOD", "US")
"""RescaleTypes of a CT that are HU, modified HU, or not said; electron density, effective atomic number and the like are other numbers."""


@dataclass(frozen=True)
class PixelFormat:
    """How one sample is stored; a negative ``padding`` pair never matches."""

    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None = None
    """Stored values (from, to) that mean "nothing was imaged here"."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice: frame ``frame`` of ``file``."""

    file: DicomFile
    frame: int
    frames: int
    """How many frames the file holds."""
    position_mm: Floats
    row: Floats
    """Unit LPS direction in which the column index grows."""
    column: Floats
    """Unit LPS direction in which the row index grows."""
    spacing_mm: tuple[float, float]
    """(between rows, between columns)"""
    rows: int
    columns: int
    slope: float
    intercept: float
    pixel: PixelFormat

    @property
    def normal(self) -> Floats:
        return np.cross(self.row, self.column)

    @property
    def number(self) -> int | None:
        """InstanceNumber; None of a frame among several, whose place in the file tells nothing of a frame that is not there."""
        return None if self.frames > 1 else self.file.whole("InstanceNumber")

    @property
    def where(self) -> str:
        return f"{self.file.where}, frame {self.frame + 1}" if self.frames > 1 else self.file.where


def planes_of(file: DicomFile) -> list[Plane]:
    """The planes of one image file: one, or one a frame of an enhanced multi-frame image.

    Raises SeriesError where geometry is missing or makes no sense, FormatError where a value cannot be read, LimitError beyond the limits.
    """
    frames, (rows, columns) = frame_count(file, MAX_SLICES), _matrix(file)
    pixel = _pixel_format(file)
    shared, each = _groups(file, frames)
    if frames > 1 and not each:
        raise SeriesError(f"{frames} frames without a position each (PerFrameFunctionalGroupsSequence)", where=file.where)
    out = []
    for frame in range(frames):
        levels = (each[frame], shared, file) if each else (file,)
        row, column = _directions(_values(levels, "PlaneOrientationSequence", "ImageOrientationPatient", 6), file.where)
        position = _position(_values(levels, "PlanePositionSequence", "ImagePositionPatient", 3), file.where)
        spacing = _pixel_spacing(_values(levels, "PixelMeasuresSequence", "PixelSpacing", 2), file.where)
        out.append(Plane(file, frame, frames, position, row, column, spacing, rows, columns, *_rescale(levels, file.where), pixel))
    return out


def frames_of(file: DicomFile) -> list[Plane]:
    """The frames of an RTDOSE, each at the position and orientation in the header; offsets are the caller's. Raises as ``planes_of``."""
    frames, (rows, columns) = frame_count(file, MAX_SLICES), _matrix(file)
    row, column = _directions(_values((file,), "", "ImageOrientationPatient", 6), file.where)
    position = np.array(_values((file,), "", "ImagePositionPatient", 3))
    spacing = _pixel_spacing(_values((file,), "", "PixelSpacing", 2), file.where)
    pixel = _pixel_format(file)
    return [Plane(file, n, frames, position, row, column, spacing, rows, columns, 1.0, 0.0, pixel) for n in range(frames)]


def frame_count(file: DicomFile, most: int) -> int:
    """NumberOfFrames, 1 where it is not told. Raises LimitError beyond ``most``."""
    frames = file.whole("NumberOfFrames") or 1
    if not 1 <= frames <= most:
        raise LimitError(f"NumberOfFrames {frames}, at most {most} are read", where=file.where)
    return frames


def _groups(file: DicomFile, frames: int) -> tuple[Header, list[Header]]:
    """(shared, per-frame) functional groups; the second empty for a single-frame image."""
    each = list(file.items("PerFrameFunctionalGroupsSequence"))
    if each and len(each) != frames:
        raise FormatError(f"{frames} frames but {len(each)} items in PerFrameFunctionalGroupsSequence", where=file.where)
    return file.first("SharedFunctionalGroupsSequence") or file, each


def _values(levels: tuple[Header, ...], group: str, keyword: str, count: int) -> tuple[float, ...]:
    """``keyword`` from the functional group of the innermost level that has it, or straight from the file."""
    for level in levels:
        item = level if isinstance(level, DicomFile) else level.first(group)
        if item is not None and (found := item.numbers(keyword, count)):
            return found
    raise SeriesError(f"{keyword} is missing", where=levels[-1].where, hint="export the series with its geometry")


def _rescale(levels: tuple[Header, ...], where: str) -> tuple[float, float]:
    """Slope and intercept of the innermost level that has any; 1 and 0 where none has, but for a CT, whose values are then no HU."""
    ct = IMAGE_CLASSES.get(levels[-1].plain("SOPClassUID")) == "CT"
    for level in levels:
        item = level if isinstance(level, DicomFile) else level.first("PixelValueTransformationSequence")
        if item is None:
            continue
        slope, intercept = item.number("RescaleSlope"), item.number("RescaleIntercept")
        if slope == 0:
            raise SeriesError("RescaleSlope is 0: every voxel would be the same", where=where)
        if ct and item.plain("RescaleType") not in _HU_TYPES:
            raise SeriesError(f"RescaleType is {item.plain('RescaleType')}: a CT in other units than HU", where=where, hint=_AS_HU)
        if ct and (slope is None) != (intercept is None):
            break
        if slope is not None or intercept is not None:
            return 1.0 if slope is None else slope, intercept or 0.0
    if ct:
        raise SeriesError("RescaleSlope or RescaleIntercept is missing: the values are no HU", where=where, hint=_AS_HU)
    return 1.0, 0.0


def _matrix(file: DicomFile) -> tuple[int, int]:
    rows, columns = file.binary("Rows"), file.binary("Columns")
    if not rows or not columns:
        raise SeriesError(f"Rows x Columns is {rows} x {columns}", where=file.where, hint="export the series again")
    if max(rows, columns) > MAX_MATRIX:
        raise LimitError(f"matrix of {rows} x {columns}, at most {MAX_MATRIX} x {MAX_MATRIX} are read", where=file.where)
    return rows, columns


def _pixel_format(file: DicomFile) -> PixelFormat:
    samples = file.binary("SamplesPerPixel")
    if samples not in (None, 1):
        raise SeriesError(f"{samples} samples a pixel: a colour image, not a CT or MR", where=file.where)
    allocated = file.binary("BitsAllocated")
    if allocated not in (8, 16, 32):
        raise FormatError(f"BitsAllocated is {allocated}; 8, 16 and 32 are read", where=file.where)
    stored = file.binary("BitsStored")
    stored = allocated if stored is None else stored
    high = file.binary("HighBit")
    high = stored - 1 if high is None else high
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise FormatError(f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high} do not fit together", where=file.where)
    representation = file.binary("PixelRepresentation")
    if representation not in (None, 0, 1):
        raise FormatError(f"PixelRepresentation is {representation}, not 0 or 1", where=file.where)
    signed = representation == 1
    return PixelFormat(allocated, stored, high, signed, _padding(file, signed))


def _padding(file: DicomFile, signed: bool) -> tuple[int, int] | None:
    """The padding range as stored values, read with the pixels' own sign whatever VR the tag was given."""
    value = file.binary("PixelPaddingValue")
    if value is None:
        return None
    limit = file.binary("PixelPaddingRangeLimit")
    ends = [_as_stored(v, signed) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, signed: bool) -> int:
    value &= 0xFFFF
    return value - 0x10000 if signed and value >= 0x8000 else value


def _directions(values: tuple[float, ...], where: str) -> tuple[Floats, Floats]:
    """Unit row and column directions, made exactly perpendicular where they were so but for rounding."""
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1:
        raise SeriesError(
            f"ImageOrientationPatient {list(values)} has directions of length {lengths[0]:.3g} and {lengths[1]:.3g}", where=where
        )
    row, column = row / lengths[0], column / lengths[1]
    cosine = float(row @ column)
    if abs(cosine) > _PERPENDICULAR:
        raise SeriesError(f"ImageOrientationPatient {list(values)}: rows and columns are not at right angles", where=where)
    if cosine:
        row, column = row - column * cosine / 2, column - row * cosine / 2
        row = row / np.linalg.norm(row)
        column = column - row * (row @ column)
        column = column / np.linalg.norm(column)
    return row, column


def _position(values: tuple[float, ...], where: str) -> Floats:
    if max(abs(v) for v in values) > _FARTHEST_MM:
        raise SeriesError(f"ImagePositionPatient {list(values)} lies more than {_FARTHEST_MM / 1000:g} m from the origin", where=where)
    return np.array(values)


def _pixel_spacing(values: tuple[float, ...], where: str) -> tuple[float, float]:
    low, high = _SPACING_MM
    if not all(low <= v <= high for v in values):
        raise SeriesError(f"PixelSpacing {list(values)} mm is not between {low} and {high}", where=where)
    return values[0], values[1]
