"""RTSTRUCT -> contours: tolerant of what planning systems write, loud about what is left out.

Sources: DICOM PS3.3 C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour), C.8.8.8 (RT ROI Observations).
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset

from oncontour.core.contours import Contours, Slices
from oncontour.core.notes import KEPT, Note
from oncontour.errors import FormatError, LimitError, OncontourError, StructureError
from oncontour.io.dicom.alone import marked_slices
from oncontour.io.dicom.dicomfile import DEFLATED, EXPLICIT_BIG
from oncontour.io.dicom.elements import Element, Elements
from oncontour.io.dicom.outlines import Outlines, between, sound
from oncontour.io.dicom.source import SAME_FRAME_WAY, DicomSource
from oncontour.io.names import to_tg263

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
MAX_FILE_BYTES = 1 << 30
MAX_ROIS = 5_000
MAX_CONTOURS = 500_000
MAX_POINTS = 40_000_000
FARTHEST_MM = 1e5
"""Coordinates beyond this are no patient."""

SOP_CLASS, SOP_INSTANCE, CHARACTER_SET, FRAME = 0x00080016, 0x00080018, 0x00080005, 0x00200052
SET_DESCRIPTION = 0x30060006
"""What oncontour writes there of ``notes.KEPT`` is told again."""
LABEL, REFERENCED_FRAMES, STRUCTURES, NUMBER, FRAME_OF_ROI, NAME = 0x30060002, 0x30060010, 0x30060020, 0x30060022, 0x30060024, 0x30060026
COLOUR, GENERATION, ROI_CONTOURS, CONTOURS, GEOMETRY, POINT_COUNT = 0x3006002A, 0x30060036, 0x30060039, 0x30060040, 0x30060042, 0x30060046
CONTOUR_DATA, OBSERVATIONS, REFERENCED_NUMBER, INTERPRETED = 0x30060050, 0x30060080, 0x30060084, 0x300600A4
OBSERVATION_NUMBER, REFERENCED_STUDIES, REFERENCED_SERIES, DESCRIPTION = 0x30060082, 0x30060012, 0x30060014, 0x30060028
PATIENT_ID, SERIES_INSTANCE = 0x00100020, 0x0020000E
_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "")


@dataclass(frozen=True)
class Roi:
    """One row of the structure set: what the file calls it, and ``name``, the key it has in ``contours`` ("" where it has none).
    ``description`` is its ROIDescription, a text for people."""

    number: int
    original: str
    name: str
    algorithm: str = ""
    interpreted_type: str = ""
    frame_of_reference_uid: str = ""
    colour: tuple[int, int, int] | None = None
    description: str = ""


@dataclass(frozen=True, eq=False)
class StructureSet:
    """What an RTSTRUCT holds. ``notes`` are remarks for the user, ``unmapped`` the names that TG-263 has nothing for, kept as they are."""

    contours: Mapping[str, Contours]
    rois: tuple[Roi, ...]
    label: str
    frame_of_reference_uid: str
    sop_instance_uid: str
    notes: tuple[str, ...]
    unmapped: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """Key in ``contours`` -> the name in the file."""
        return {roi.name: roi.original for roi in self.rois if roi.name}


def read_rtstruct(rtstruct: Path | str | Dataset, *, source: DicomSource | None = None) -> tuple[dict[str, Contours], tuple[str, ...]]:
    """Contours by TG-263 name (the file's own where none is known), and notes; see ``read_structure_set``, which tells more."""
    found = read_structure_set(rtstruct, source=source)
    return dict(found.contours), found.notes


def read_structure_set(
    rtstruct: Path | str | Dataset, *, source: DicomSource | None = None, same_frames: Sequence[str] = ()
) -> StructureSet:
    """Everything an RTSTRUCT says of its structures; with ``source`` the contours know the image planes they were drawn on.
    ``same_frames``: frames of reference that are taken for that of ``source``.

    Only closed planar contours are filled structures: points, open lines and contours of one or two points are left out and noted, as are
    doubles on one slice (XOR would erase both). A structure without contours is taken as not contoured and left out, unless the file
    says that it was generated automatically: then it is empty, looked for and not found. A structure whose contours cannot be read is left
    out and noted, and the others are read. Contours that we wrote are known by their mark (``io.dicom.alone``).

    Raises FormatError where the file is not a readable RTSTRUCT, StructureError where none of its structures makes sense or its frame of
    reference is not that of ``source``, LimitError beyond MAX_FILE_BYTES, MAX_ROIS, MAX_CONTOURS, MAX_POINTS or ``outlines.MAX_ALIKE``.
    """
    where = "dataset" if isinstance(rtstruct, Dataset) else str(rtstruct)
    try:
        file = open_rtstruct(rtstruct)
        return _structure_set(file, source, same_frames)
    except OncontourError:
        raise
    except (ValueError, KeyError, IndexError, LookupError, OverflowError, ArithmeticError, RecursionError, MemoryError) as error:
        raise FormatError(f"cannot be read as an RTSTRUCT ({type(error).__name__}: {error})", where=where) from error


# ---- the file


@dataclass(frozen=True, eq=False)
class RtstructFile:
    """The bytes of an RTSTRUCT: top-level elements by tag, from byte ``start`` on."""

    elements: Elements
    top: dict[int, Element]
    start: int
    explicit: bool

    @property
    def where(self) -> str:
        return self.elements.where

    def items(self, tag: int) -> list[Element]:
        """The items of a top-level sequence, none where it is absent. Raises LimitError beyond MAX_ROIS."""
        return self.elements.items(self.top[tag], MAX_ROIS) if tag in self.top else []


def open_rtstruct(rtstruct: Path | str | Dataset) -> RtstructFile:
    """The elements of an RTSTRUCT file or dataset. Raises FormatError where it is none, LimitError where it is too large."""
    where = "dataset" if isinstance(rtstruct, Dataset) else str(rtstruct)
    data = _encoded(rtstruct) if isinstance(rtstruct, Dataset) else _content(Path(rtstruct))
    start, syntax = _start_of_dataset(data, where)
    if syntax == EXPLICIT_BIG:
        raise FormatError("big endian explicit VR, retired from DICOM in 2006", where=where, hint="convert it with dcmconv +te")
    if syntax == DEFLATED:
        data = data[:start] + _inflated(data[start:], where)
    elements = Elements(data, where)
    explicit = _looks_explicit(data[start : start + 6])
    top = elements.table(start, len(data), explicit)
    if elements.text(top.get(SOP_CLASS)) != RTSTRUCT:
        raise FormatError(f"SOP class {elements.text(top.get(SOP_CLASS)) or 'not given'} is not RT Structure Set", where=where)
    return RtstructFile(elements, top, start, explicit)


def _content(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise LimitError(f"{size >> 20} MiB, at most {MAX_FILE_BYTES >> 20} MiB are read", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def _inflated(body: bytes, where: str) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = engine.decompress(body, MAX_FILE_BYTES)
    except zlib.error as error:
        raise FormatError(f"deflated data is damaged ({error})", where=where) from error
    if engine.unconsumed_tail:
        raise LimitError(f"inflates to more than {MAX_FILE_BYTES >> 20} MiB", where=where)
    return inflated


def _encoded(dataset: Dataset) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def _start_of_dataset(data: bytes, where: str) -> tuple[int, str]:
    """Byte at which the dataset begins, after preamble and file meta information, and the transfer syntax ("" where not given)."""
    if data[128:132] != b"DICM":
        if data[:4] not in (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x12\x00", b"\x08\x00\x16\x00"):
            raise FormatError("not a DICOM file", where=where)
        return 0, ""
    elements, at, syntax = Elements(data, where), 132, ""
    while data[at : at + 2] == b"\x02\x00":
        found = next(elements.walk(at, len(data), explicit=True))
        at = found.end
        if found.tag == 0x00020010:
            syntax = elements.text(found)
    return at, syntax


def _looks_explicit(start: bytes) -> bool:
    return len(start) == 6 and start[4:6].isalpha() and start[4:6].isupper()


# ---- the structures


def _structure_set(file: RtstructFile, source: DicomSource | None, same_frames: Sequence[str]) -> StructureSet:
    whence = decoded(file, SET_DESCRIPTION)
    notes: list[str] = [Note(code, text) for code, text in KEPT.items() if text in whence]
    rois = _rois(file, notes)
    frame = _frame_of_reference(file, rois)
    rois = _in_frame(rois, frame, source, same_frames, file.where, notes)
    slices = None if source is None else slices_of(source)
    shapes = _shapes(file, {roi.number for roi in rois}, notes)
    drawn = _drawn(file, rois, shapes, slices, notes)
    unmapped: list[str] = []
    names = _names({roi.number: roi.original for roi in rois if drawn[roi.number] is not None}, unmapped, notes)
    text = file.elements.text
    return StructureSet(
        MappingProxyType({names[number]: contours for number, contours in drawn.items() if contours is not None}),
        tuple(replace(roi, name=names.get(roi.number, ""), colour=shapes.get(roi.number, _Shape()).colour) for roi in rois),
        text(file.top.get(LABEL)),
        frame,
        text(file.top.get(SOP_INSTANCE)),
        tuple(notes),
        tuple(unmapped),
    )


def _drawn(
    file: RtstructFile, rois: Sequence[Roi], shapes: Mapping[int, _Shape], slices: Slices | None, notes: list[str]
) -> dict[int, Contours | None]:
    """ROI number -> its contours, None where it was not contoured. One that cannot be read is left out and noted before all else; where no
    other has contours its StructureError or FormatError is raised."""
    drawn: dict[int, Contours | None] = {}
    unread: list[OncontourError] = []
    for roi in rois:
        shape = shapes.get(roi.number, _Shape())
        try:
            if shape.damage is not None:
                raise shape.damage
            drawn[roi.number] = _contours(file, roi, shape, slices, notes)
        except (StructureError, FormatError) as error:
            drawn[roi.number] = None
            notes.insert(len(unread), f"{roi.original!r} cannot be read and is left out: {error.what}")
            unread.append(error)
    if unread and not any(contours is not None and len(contours) for contours in drawn.values()):
        raise unread[0]
    return drawn


def _rois(file: RtstructFile, notes: list[str]) -> list[Roi]:
    elements = file.elements
    kinds: dict[int, str] = {}
    for item in file.items(OBSERVATIONS):
        inside = elements.within(item)
        number = whole(elements.text(inside.get(REFERENCED_NUMBER)))
        if number is not None:
            kinds[number] = elements.text(inside.get(INTERPRETED))
    characters = elements.text(file.top.get(CHARACTER_SET)).split("\\")
    rois: list[Roi] = []
    nameless: list[str] = []
    for item in file.items(STRUCTURES):
        inside = elements.within(item)
        number = whole(elements.text(inside.get(NUMBER)))
        original = _decoded(elements.value(inside.get(NAME)), characters) or f"ROI {number}"
        if number is None:
            nameless.append(f"a structure ({original!r}) has no ROINumber, by which its contours would be known")
            continue
        frame = elements.text(inside.get(FRAME_OF_ROI))
        description = _decoded(elements.value(inside.get(DESCRIPTION)), characters)
        algorithm = elements.text(inside.get(GENERATION))
        rois.append(Roi(number, original, "", algorithm, kinds.get(number, ""), frame, description=description))
    numbers = Counter(roi.number for roi in rois)
    for number in (number for number, count in numbers.items() if count > 1):
        names = " and ".join(repr(roi.original) for roi in rois if roi.number == number)
        nameless.append(f"{numbers[number]} structures have ROINumber {number} ({names}), and whose its contours are is not told")
    single = [roi for roi in rois if numbers[roi.number] == 1]
    if nameless and not single:
        raise StructureError(nameless[0], where=file.where)
    notes += [f"{what}: left out" for what in nameless]
    if not single:
        notes.append("the structure set has no structures")
    return single


def whole(text: str) -> int | None:
    """An integer string (IS) as a number, None where it is none."""
    return int(text) if text.lstrip("+-").isdigit() and len(text) <= 12 else None


def decoded(file: RtstructFile, tag: int) -> str:
    """The text of a top-level element, in the file's own character set; "" where there is none."""
    return _decoded(file.elements.value(file.top.get(tag)), file.elements.text(file.top.get(CHARACTER_SET)).split("\\"))


def _decoded(value: bytes, characters: Sequence[str]) -> str:
    try:
        text = decode_bytes(value, convert_encodings(list(characters)), set())
    except (LookupError, UnicodeError, ValueError):
        text = value.decode("latin-1")
    return "".join(c for c in text if c.isprintable()).strip()


def _frame_of_reference(file: RtstructFile, rois: Sequence[Roi]) -> str:
    """The frame of reference of most structures, else that which the file refers to, else its own."""
    uids = [roi.frame_of_reference_uid for roi in rois if roi.frame_of_reference_uid]
    uids = uids or [file.elements.text(file.elements.within(item).get(FRAME)) for item in file.items(REFERENCED_FRAMES)]
    uids = [uid for uid in uids if uid] or [file.elements.text(file.top.get(FRAME))]
    return max(uids, key=uids.count)


def _in_frame(
    rois: list[Roi], frame: str, source: DicomSource | None, same_frames: Sequence[str], where: str, notes: list[str]
) -> list[Roi]:
    """The structures in the frame of reference of ``source``; StructureError where it is none of them."""
    if source is None:
        return rois
    if not frame or not source.frame_of_reference_uid:
        notes.append(f"the {'images' if frame else 'structures'} name no frame of reference: taken as lying in the same")
        return rois
    theirs = source.frame_of_reference_uid
    here = [roi for roi in rois if (roi.frame_of_reference_uid or frame) in (theirs, *same_frames)]
    if rois and not here:
        raise StructureError(
            f"the structures lie in frame of reference {frame}, the images in {source.frame_told}",
            where=where,
            hint=f"give the RTSTRUCT that was drawn on this series, or register the two; {SAME_FRAME_WAY}",
        )
    notes += [
        f"{roi.original!r} lies in another frame of reference ({roi.frame_of_reference_uid}): left out" for roi in rois if roi not in here
    ]
    return here


def _names(originals: Mapping[int, str], unmapped: list[str], notes: list[str]) -> dict[int, str]:
    """ROI number -> the name it gets. Of several that mean one TG-263 name the one that is spelled so has it, else the first."""
    names: dict[int, str] = {}
    for number in sorted(originals, key=lambda number: to_tg263(originals[number]) != originals[number]):
        names[number] = _free_name(originals[number], set(names.values()), unmapped, notes)
    return names


def _free_name(original: str, taken: set[str], unmapped: list[str], notes: list[str]) -> str:
    """The TG-263 name, the original where there is none or it is taken, or the original with a number."""
    mapped = to_tg263(original)
    if mapped is None:
        unmapped.append(original)
    for name in chain((mapped, original), (f"{original} ({n})" for n in range(2, MAX_ROIS + 2))):
        if name and name not in taken:
            if name != (mapped or original):
                notes.append(f"{original!r} kept as {name!r}: there is a {mapped or original!r} already")
            return name
    raise StructureError(f"more than {MAX_ROIS} structures are called {original!r}")


# ---- contours


@dataclass(frozen=True)
class _Shape:
    """What one item of ROIContourSequence holds: spans of the contour data, their geometric types, and points as counted by the file.
    ``damage``: what is wrong where the item cannot be taken apart."""

    colour: tuple[int, int, int] | None = None
    kinds: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    damage: FormatError | None = None


def _shapes(file: RtstructFile, wanted: set[int], notes: list[str]) -> dict[int, _Shape]:
    """ROI number -> its contours, undecoded."""
    elements, total = file.elements, 0
    out: dict[int, _Shape] = {}
    for item in file.items(ROI_CONTOURS):
        inside = elements.within(item)
        number = whole(elements.text(inside.get(REFERENCED_NUMBER)))
        if number is None or number not in wanted:
            notes.append(f"contours of ROI {number}, which the structure set does not list: left out")
            continue
        colour = _colour(elements.text(inside.get(COLOUR)))
        try:
            found = elements.items(inside[CONTOURS], MAX_CONTOURS) if CONTOURS in inside else []
            shape = _shape(elements, found, colour)
        except FormatError as error:
            shape = _Shape(colour, damage=error)
        total += len(shape.kinds)
        if total > MAX_CONTOURS:
            raise LimitError(f"more than {MAX_CONTOURS} contours", where=file.where)
        out[number] = _joined(out[number], shape) if number in out else shape
    return out


def _joined(one: _Shape, other: _Shape) -> _Shape:
    return _Shape(
        one.colour or other.colour,
        one.kinds + other.kinds,
        one.starts + other.starts,
        one.stops + other.stops,
        one.counts + other.counts,
        one.damage or other.damage,
    )


def _shape(elements: Elements, found: Sequence[Element], colour: tuple[int, int, int] | None) -> _Shape:
    kinds, starts, stops, counts = [], [], [], []
    for item in found:
        inside = elements.within(item)
        data = inside.get(CONTOUR_DATA)
        kinds.append(elements.text(inside.get(GEOMETRY)).upper())
        starts.append(data.first if data else 0)
        stops.append(data.last if data else 0)
        counts.append(whole(elements.text(inside.get(POINT_COUNT))) or 0)
    return _Shape(colour, tuple(kinds), tuple(starts), tuple(stops), tuple(counts))


def _colour(text: str) -> tuple[int, int, int] | None:
    values = [whole(part.strip()) for part in text.split("\\")]
    if len(values) != 3 or any(v is None or not 0 <= v <= 255 for v in values):
        return None
    return values[0] or 0, values[1] or 0, values[2] or 0


def _contours(file: RtstructFile, roi: Roi, shape: _Shape, slices: Slices | None, notes: list[str]) -> Contours | None:
    """The structure as contours, None where it was not contoured."""
    if not shape.kinds:
        if roi.algorithm == "AUTOMATIC":
            notes.append(f"{roi.original!r} has no contours: empty, as it was generated automatically")
            return Contours((), shape.colour, slices)
        notes.append(f"{roi.original!r} has no contours: taken as not contoured")
        return None
    filled = [n for n, kind in enumerate(shape.kinds) if kind in _FILLED]
    if len(filled) < len(shape.kinds):
        others = sorted({kind for kind in shape.kinds if kind not in _FILLED})
        notes.append(f"{roi.original!r}: {len(shape.kinds) - len(filled)} contour(s) of type {', '.join(others)} enclose nothing: left out")
    outlines = _outlines(file, roi, shape, filled, notes)
    theirs = None if slices is None else _stand_alone(file, roi, shape, outlines, slices)
    outlines = sound(outlines, roi.original, slices, notes)
    if not len(outlines):
        notes.append(f"{roi.original!r} has no closed contour: taken as not contoured")
        return None
    contours = Contours(tuple(outlines[n] for n in range(len(outlines))), shape.colour, theirs or slices, theirs is not None)
    notes += [] if contours.alone else between(contours, roi.original)
    return contours


def _stand_alone(file: RtstructFile, roi: Roi, shape: _Shape, outlines: Outlines, slices: Slices) -> Slices | None:
    """The slices that contours which we wrote were drawn on, where these are such, unchanged (``io.dicom.alone``)."""
    if len(outlines) < len(shape.kinds) or not outlines.lengths.all():
        return None
    data = (file.elements.data[first:last] for first, last in zip(shape.starts, shape.stops, strict=True))
    return marked_slices(roi.description, data, outlines, slices)


def _outlines(file: RtstructFile, roi: Roi, shape: _Shape, chosen: Sequence[int], notes: list[str]) -> Outlines:
    """The chosen contours; one without points has no outline."""
    from oncontour.io.dicom import decimals

    text = np.frombuffer(file.elements.data, np.uint8)
    starts, stops = (np.array([span[n] for n in chosen], dtype=np.int64) for span in (shape.starts, shape.stops))
    counts = decimals.count_values(text, starts, stops)
    if counts.sum() > 3 * MAX_POINTS:
        raise LimitError(f"{roi.original!r} has more than {MAX_POINTS} points", where=file.where)
    uneven = np.flatnonzero(counts % 3)
    if len(uneven):
        n = int(uneven[0])
        raise StructureError(
            f"contour {chosen[n] + 1} has {counts[n]} coordinates, no multiple of 3", where=f"{file.where}, {roi.original!r}"
        )
    values, bad = decimals.parse(text, starts, stops, counts)
    if bad >= 0:
        raise StructureError(
            f"ContourData of contour {chosen[bad] + 1} holds something else than numbers", where=f"{file.where}, {roi.original!r}"
        )
    if len(values) and not np.abs(values).max() <= FARTHEST_MM:
        raise StructureError(f"a contour lies {np.abs(values).max():.3g} mm from the origin", where=f"{file.where}, {roi.original!r}")
    miscounted = sum(int(counts[m]) != 3 * shape.counts[n] for m, n in enumerate(chosen))
    if miscounted:
        notes.append(f"{roi.original!r}: NumberOfContourPoints is wrong for {miscounted} contour(s); the points themselves are taken")
    return Outlines(values.reshape(-1, 3), np.concatenate([[0], np.cumsum(counts // 3)]).astype(np.int64))


def slices_of(source: DicomSource) -> Slices:
    """The image planes of ``source`` as the rasteriser and the tracer want them."""
    return Slices(
        np.array([one.position_mm for one in source.slices], dtype=np.float64),
        np.asarray(source.row, dtype=np.float64),
        np.asarray(source.column, dtype=np.float64),
        source.pixel_spacing_mm,
        (source.rows, source.columns),
    )
