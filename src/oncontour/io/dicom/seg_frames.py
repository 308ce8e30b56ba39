"""What a DICOM Segmentation holds, frame by frame: which segment, where it lies, and its voxels; single bits, bytes or a label map.

Sources: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20 (segmentation modules), C.7.6.16 (functional groups); PS3.5 8.1.1 (single bits).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import ON_GRID_MM, Floats
from oncontour.errors import FormatError, InputError, LimitError, SeriesError, StructureError
from oncontour.io.dicom.elements import EXPLICIT_BIG, NATIVE
from oncontour.io.dicom.encapsulated import LOSSY, check_shrunk
from oncontour.io.dicom.header import MAX_VOXELS, DicomFile, Header, opening, read_header
from oncontour.io.dicom.pixels import stored_values
from oncontour.io.dicom.plane import PixelFormat, Plane, frame_count

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
"""SegmentationType (C.8.20.2.3)."""
NO_SEGMENT = -1
"""Segment number of a frame of a label map that holds background alone: it tells that its slice is empty."""
MAX_FRAMES = 200_000
NO_STEP_MM = 1e-3
"""Distances of slices nearer to 0 than this are none."""
_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "SegmentationType", "MaximumFractionalValue", "SegmentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    "PixelPaddingValue",
)

Bools = NDArray[np.bool_]
Pixels = Callable[[int], Bools]
"""What gives one frame as bool (rows, columns)."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Of each frame: segment number and position; of all: orientation and voxel size (None where the file does not say)."""

    segment: NDArray[np.int64]
    position_mm: Floats
    row: Floats
    column: Floats
    spacing_mm: tuple[float, float]
    between_mm: float | None
    thickness_mm: float | None


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds: segment number -> label, SegmentationType, (rows, columns), frames, and what gives one frame as bool."""

    labels: dict[int, str]
    kind: str
    size: tuple[int, int]
    frames: Frames
    pixels: Pixels


def open_seg(path: Path | str) -> DicomFile:
    """The header of a SEG. Raises InputError where there is no such file, StructureError where it is none."""
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    file = read_header(path, _KEYWORDS)
    if file is None or file.sop_class_uid not in (SEGMENTATION, LABEL_MAP):
        raise StructureError("not a DICOM Segmentation", where=str(path))
    return file


def read_frames(file: DicomFile) -> Content:
    """What a SEG holds. Raises StructureError where frames cannot be told apart or placed, FormatError, LimitError as the series reader."""
    try:
        return _content(file)
    except SeriesError as error:
        raise StructureError(error.what, where=error.where) from error


def what_is_read(path: Path) -> tuple[object, ...]:
    """What a SEG file says: segments, where their frames lie, and voxels (C.8.20; their SHA-256), to be compared with that of a copy."""
    file = open_seg(path)
    content = read_frames(file)
    labels, kind, frames, pixels, (rows, columns) = content.labels, content.kind, content.frames, content.pixels, content.size
    voxels = hashlib.sha256()
    for n in range(len(frames.segment)):
        voxels.update(np.packbits(pixels(n)).tobytes())
    places = (frames.segment.tolist(), (frames.position_mm + 0.0).tolist(), (frames.row + 0.0).tolist(), (frames.column + 0.0).tolist())
    sizes = (rows, columns, frames.spacing_mm, frames.between_mm, frames.thickness_mm)
    return file.plain("FrameOfReferenceUID"), kind, labels, places, sizes, voxels.digest()


def planes_drawn(path: Path) -> tuple[Floats, Floats]:
    """Where the frames of a SEG lie that hold voxels (n, 3), LPS mm, and the normal of all. Raises what ``read_seg`` raises."""
    content = read_frames(open_seg(path))
    try:
        held = [n for n in range(len(content.frames.segment)) if content.pixels(n).any()]
    except SeriesError as error:
        raise StructureError(error.what, where=error.where) from error
    return content.frames.position_mm[held], np.cross(content.frames.row, content.frames.column)


def _content(file: DicomFile) -> Content:
    kind = file.plain("SegmentationType")
    if kind not in KINDS:
        raise StructureError(f"SegmentationType is {kind or 'missing'}; {', '.join(KINDS)} are read", where=file.where)
    labels = _labels(file, file.binary("PixelPaddingValue") if kind == "LABELMAP" else None)
    rows, columns = file.binary("Rows"), file.binary("Columns")
    frames = _frames(file, numbered=kind != "LABELMAP")
    if not rows or not columns or rows * columns * len(frames.segment) > MAX_VOXELS:
        raise LimitError(
            f"{len(frames.segment)} frames of {rows} x {columns} voxels; at most {MAX_VOXELS} voxels are read", where=file.where
        )
    if kind == "LABELMAP":
        frames, pixels = _by_label(file, frames, (rows, columns), labels)
        return Content(labels, kind, (rows, columns), frames, pixels)
    return Content(labels, kind, (rows, columns), frames, _pixels(file, frames, rows, columns, kind))


def _by_label(file: DicomFile, frames: Frames, size: tuple[int, int], labels: Mapping[int, str]) -> tuple[Frames, Pixels]:
    """A label map (C.8.20.2.3, LABELMAP) as frames of one segment each, as the other kinds have them, and what gives one of those.

    Raises StructureError where two frames lie in one place, or voxels have a value that is no segment; FormatError for values that are not
    whole or went through a lossy compression.
    """
    allocated = file.binary("BitsAllocated")
    if allocated not in (8, 16):
        raise FormatError(f"BitsAllocated of a label map is {allocated}; 8 and 16 are read", where=file.where)
    if file.transfer_syntax_uid in LOSSY:
        what = "a label map in a compression that loses digits: its values may be other labels than were meant"
        raise FormatError(what, where=file.where, hint="export it uncompressed")
    offsets = np.sort(frames.position_mm @ np.cross(frames.row, frames.column))
    if len(offsets) > 1 and np.diff(offsets).min() <= ON_GRID_MM:
        raise StructureError("two frames of a label map lie in one place", where=file.where, hint="export segments that overlap as SEG")
    sheets = np.stack([stored_values(_plane(file, frames, n, size, allocated)) for n in range(len(frames.segment))])
    padding = file.binary("PixelPaddingValue")
    background = 0 if padding is None and 0 not in labels else padding
    owner: list[int] = []
    number: list[int] = []
    for n, sheet in enumerate(sheets):
        there = [int(value) for value in np.unique(sheet) if value != background]
        stray = [value for value in there if value not in labels]
        if stray:
            raise StructureError(f"voxels of value {stray[0]} in frame {n + 1}, which is no segment of {sorted(labels)}", where=file.where)
        owner += [n] * max(len(there), 1)
        number += there or [NO_SEGMENT]
    split = replace(frames, segment=np.array(number), position_mm=frames.position_mm[owner])
    return split, lambda n: np.asarray(sheets[owner[n]] == number[n]) & (number[n] != NO_SEGMENT)


def _labels(file: DicomFile, background: int | None = None) -> dict[int, str]:
    """Segment number -> its label, made different where two are the same; without the segment that is the ``background`` of a label map."""
    labels: dict[int, str] = {}
    for item in file.items("SegmentSequence"):
        number = item.binary("SegmentNumber")
        if number is None or number in labels:
            raise StructureError(f"SegmentNumber {number} is missing or there twice", where=item.where)
        if number == background:
            continue
        label = item.text("SegmentLabel") or f"Segment {number}"
        labels[number] = label if label not in labels.values() else f"{label} ({number})"
    if not labels:
        raise StructureError("a SEG without segments", where=file.where)
    return labels


def _frames(file: DicomFile, *, numbered: bool) -> Frames:
    """Where the frames lie and, where each is ``numbered``, which segment it is of."""
    count = frame_count(file, MAX_FRAMES)
    shared = file.first("SharedFunctionalGroupsSequence")
    each = list(file.items("PerFrameFunctionalGroupsSequence"))
    if len(each) != count or shared is None:
        raise StructureError(f"{count} frames but {len(each)} items in PerFrameFunctionalGroupsSequence", where=file.where)
    levels = (each[0], shared)
    orientation = np.array(_group(levels, "PlaneOrientationSequence").numbers("ImageOrientationPatient", 6))
    measures = _group(levels, "PixelMeasuresSequence")
    spacing = measures.numbers("PixelSpacing", 2)
    between, thickness = (abs(measures.number(name) or 0.0) for name in ("SpacingBetweenSlices", "SliceThickness"))
    if len(orientation) != 6 or not spacing or min(spacing) <= 0:
        raise StructureError("ImageOrientationPatient or PixelSpacing is missing", where=file.where)
    numbers = [0] * count
    if numbered:
        numbers = [_group((item, shared), "SegmentIdentificationSequence").binary("ReferencedSegmentNumber") or 0 for item in each]
    positions = [_group((item, shared), "PlanePositionSequence").numbers("ImagePositionPatient", 3) for item in each]
    if not all(len(p) == 3 for p in positions):
        raise StructureError("a frame without ImagePositionPatient", where=file.where)
    row, column = (v / max(float(np.linalg.norm(v)), 1e-9) for v in (orientation[:3], orientation[3:]))
    return Frames(
        *(np.array(numbers), np.array(positions), row, column, (spacing[0], spacing[1])),
        between if between > NO_STEP_MM else None,
        thickness if thickness > NO_STEP_MM else None,
    )


def _group(levels: Sequence[Header], keyword: str) -> Header:
    for level in levels:
        found = level.first(keyword)
        if found is not None:
            return found
    raise StructureError(f"{keyword} is missing", where=levels[0].where)


def _pixels(file: DicomFile, frames: Frames, rows: int, columns: int, kind: str) -> Pixels:
    """A function that gives one frame as bool (rows, columns)."""
    count, allocated = len(frames.segment), file.binary("BitsAllocated")
    if allocated == 1:
        return _bits(file, count, rows, columns)
    if allocated != 8:
        raise FormatError(f"BitsAllocated is {allocated}; 1 and 8 are read", where=file.where)
    check_shrunk([file], file.where)
    half = (file.binary("MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 0.5

    def frame(n: int) -> Bools:
        return np.asarray(stored_values(_plane(file, frames, n, (rows, columns), 8)) >= half)

    return frame


def _plane(file: DicomFile, frames: Frames, n: int, size: tuple[int, int], bits: int) -> Plane:
    """Frame ``n`` of the file, of whole ``bits`` without a sign."""
    where = (frames.position_mm[n], frames.row, frames.column, frames.spacing_mm)
    return Plane(file, n, len(frames.segment), *where, *size, 1.0, 0.0, PixelFormat(bits, bits, bits - 1, False))


def _bits(file: DicomFile, count: int, rows: int, columns: int) -> Pixels:
    """Frames of single bits, which follow each other without padding (PS3.5 8.1.1)."""
    size, need = rows * columns, (count * rows * columns + 7) // 8
    if file.pixels is None or file.transfer_syntax_uid not in NATIVE:
        raise FormatError("no uncompressed pixel data: the file is cut short or compressed", where=file.where)
    if file.transfer_syntax_uid == EXPLICIT_BIG:  # whether the bits lie in words or in bytes is told by a VR that writers get wrong
        raise FormatError("single bits in big endian, retired from DICOM in 2006", where=file.where, hint="convert it with dcmconv +te")
    with opening(file) as stream:
        stream.seek(file.pixels.offset)
        content = np.frombuffer(stream.read(need), np.uint8)
    if len(content) < need:
        raise FormatError(f"{len(content)} bytes of pixel data where {count} frames need {need}: cut short", where=file.where)

    def frame(n: int) -> Bools:
        first, last = n * size // 8, ((n + 1) * size + 7) // 8
        bits = np.unpackbits(content[first:last], bitorder="little")
        start = n * size - first * 8
        return bits[start : start + size].reshape(rows, columns).astype(bool)

    return frame
