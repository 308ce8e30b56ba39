"""RTSTRUCT -> contours: tolerant of what planning systems write, loud about what is left out.

Sources: DICOM PS3.3 C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour), C.8.8.8 (RT ROI Observations).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from oncontour.core.contours import Contours, Slices
from oncontour.core.notes import KEPT, Note
from oncontour.errors import FormatError, LimitError, OncontourError, StructureError
from oncontour.io.dicom.alone import marked_slices
from oncontour.io.dicom.elements import Element, Elements
from oncontour.io.dicom.header import quiet
from oncontour.io.dicom.outlines import Outlines, between, sound
from oncontour.io.dicom.rtstruct_file import FARTHEST_MM, MAX_ROIS, RtstructFile, Tag, decoded, open_rtstruct, text_of, told, whole
from oncontour.io.dicom.source import SAME_FRAME_WAY, DicomSource, another_frame, slices_of
from oncontour.io.names import to_tg263

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_CONTOURS = 500_000
MAX_POINTS = 40_000_000
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
    try:
        return _structure_set(open_rtstruct(rtstruct), source, same_frames)
    except OncontourError:
        raise
    except (ValueError, KeyError, IndexError, LookupError, OverflowError, ArithmeticError, RecursionError, MemoryError) as error:
        raise FormatError(f"cannot be read as an RTSTRUCT ({type(error).__name__}: {error})", where=told(rtstruct)) from error


def what_is_read(path: Path) -> tuple[object, ...]:
    """What an RTSTRUCT file says: frames of reference and structures (C.8.8.5), and contours (C.8.8.6) as numbers, to be compared with
    those of a copy. Raises as ``read_structure_set``; ValueError for contours that are no numbers, or cannot be taken apart: two files in
    which one structure is damaged alike may still differ in the others, which are read."""
    with quiet():
        file = open_rtstruct(dcmread(path))  # in big endian too, which is compared and not read
    rois = _rois(file, [])
    frames = [file.elements.text(file.elements.within(one).get(Tag.FRAME)) for one in file.items(Tag.REFERENCED_FRAMES)]
    drawn = []
    for number, shape in _shapes(file, {roi.number for roi in rois}, []).items():
        if shape.damage is not None:
            raise ValueError(shape.damage.what)
        drawn += [(number, one.kind, _coordinates(file.elements.data[one.start : one.stop])) for one in shape.contours]
    # AUTOMATIC tells an empty structure from one that was not contoured
    told = [(roi.number, roi.original, roi.frame_of_reference_uid, roi.algorithm == "AUTOMATIC") for roi in rois]
    return file.elements.text(file.top.get(Tag.FRAME)), frames, told, drawn


def _coordinates(text: bytes) -> bytes:
    """The numbers, not how they are spelled."""
    words = text.decode("ascii").strip("\0 ")
    return (np.array(words.split("\\") if words else [], np.float64) + 0.0).tobytes()  # + 0.0: -0 is 0


# ---- the structures


def _structure_set(file: RtstructFile, source: DicomSource | None, same_frames: Sequence[str]) -> StructureSet:
    whence = text_of(file, Tag.SET_DESCRIPTION)
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
        text(file.top.get(Tag.LABEL)),
        frame,
        text(file.top.get(Tag.SOP_INSTANCE)),
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
    for item in file.items(Tag.OBSERVATIONS):
        inside = elements.within(item)
        number = whole(elements.text(inside.get(Tag.REFERENCED_NUMBER)))
        if number is not None:
            kinds[number] = elements.text(inside.get(Tag.INTERPRETED))
    characters = file.characters.split("\\")
    rois: list[Roi] = []
    nameless: list[str] = []
    for item in file.items(Tag.STRUCTURES):
        inside = elements.within(item)
        number = whole(elements.text(inside.get(Tag.NUMBER)))
        original = decoded(elements.value(inside.get(Tag.NAME)), characters) or f"ROI {number}"
        if number is None:
            nameless.append(f"a structure ({original!r}) has no ROINumber, by which its contours would be known")
            continue
        frame = elements.text(inside.get(Tag.FRAME_OF_ROI))
        description = decoded(elements.value(inside.get(Tag.DESCRIPTION)), characters)
        algorithm = elements.text(inside.get(Tag.GENERATION))
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


def _frame_of_reference(file: RtstructFile, rois: Sequence[Roi]) -> str:
    """The frame of reference of most structures, else that which the file refers to, else its own."""
    uids = [roi.frame_of_reference_uid for roi in rois if roi.frame_of_reference_uid]
    uids = uids or [file.elements.text(file.elements.within(item).get(Tag.FRAME)) for item in file.items(Tag.REFERENCED_FRAMES)]
    uids = [uid for uid in uids if uid] or [file.elements.text(file.top.get(Tag.FRAME))]
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
        hint = f"give the RTSTRUCT that was drawn on this series, or register the two; {SAME_FRAME_WAY}"
        raise another_frame(frame, source.frame_told, where, hint)
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


class _Contour(NamedTuple):
    """One item of ContourSequence: geometric type, span of the contour data, and points as counted by the file."""

    kind: str
    start: int
    stop: int
    points: int


@dataclass(frozen=True)
class _Shape:
    """What one item of ROIContourSequence holds; ``damage``: what is wrong where it cannot be taken apart."""

    colour: tuple[int, int, int] | None = None
    contours: tuple[_Contour, ...] = ()
    damage: FormatError | None = None


def _shapes(file: RtstructFile, wanted: set[int], notes: list[str]) -> dict[int, _Shape]:
    """ROI number -> its contours, undecoded."""
    elements, total = file.elements, 0
    out: dict[int, _Shape] = {}
    for item in file.items(Tag.ROI_CONTOURS):
        inside = elements.within(item)
        number = whole(elements.text(inside.get(Tag.REFERENCED_NUMBER)))
        if number is None or number not in wanted:
            notes.append(f"contours of ROI {number}, which the structure set does not list: left out")
            continue
        colour = _colour(elements.text(inside.get(Tag.COLOUR)))
        try:
            found = elements.items(inside[Tag.CONTOURS], MAX_CONTOURS) if Tag.CONTOURS in inside else []
            shape = _Shape(colour, tuple(_contour(elements, one) for one in found))
        except FormatError as error:
            shape = _Shape(colour, damage=error)
        total += len(shape.contours)
        if total > MAX_CONTOURS:
            raise LimitError(f"more than {MAX_CONTOURS} contours", where=file.where)
        before = out.get(number, _Shape())
        out[number] = _Shape(before.colour or shape.colour, before.contours + shape.contours, before.damage or shape.damage)
    return out


def _contour(elements: Elements, item: Element) -> _Contour:
    inside = elements.within(item)
    data, count = inside.get(Tag.CONTOUR_DATA), whole(elements.text(inside.get(Tag.POINT_COUNT)))
    kind = elements.text(inside.get(Tag.GEOMETRY)).upper()
    return _Contour(kind, data.first if data else 0, data.last if data else 0, count or 0)


def _colour(text: str) -> tuple[int, int, int] | None:
    values = [whole(part.strip()) for part in text.split("\\")]
    if len(values) != 3 or any(v is None or not 0 <= v <= 255 for v in values):
        return None
    return values[0] or 0, values[1] or 0, values[2] or 0


def _contours(file: RtstructFile, roi: Roi, shape: _Shape, slices: Slices | None, notes: list[str]) -> Contours | None:
    """The structure as contours, None where it was not contoured."""
    if not shape.contours:
        if roi.algorithm == "AUTOMATIC":
            notes.append(f"{roi.original!r} has no contours: empty, as it was generated automatically")
            return Contours((), shape.colour, slices)
        notes.append(f"{roi.original!r} has no contours: taken as not contoured")
        return None
    filled = [n for n, one in enumerate(shape.contours) if one.kind in _FILLED]
    if len(filled) < len(shape.contours):
        others = sorted({one.kind for one in shape.contours if one.kind not in _FILLED})
        notes.append(
            f"{roi.original!r}: {len(shape.contours) - len(filled)} contour(s) of type {', '.join(others)} enclose nothing: left out"
        )
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
    if len(outlines) < len(shape.contours) or not outlines.lengths.all():
        return None
    data = (file.elements.data[one.start : one.stop] for one in shape.contours)
    return marked_slices(roi.description, data, outlines, slices)


def _outlines(file: RtstructFile, roi: Roi, shape: _Shape, chosen: Sequence[int], notes: list[str]) -> Outlines:
    """The chosen contours; one without points has no outline."""
    from oncontour.io.dicom import decimals

    text = np.frombuffer(file.elements.data, np.uint8)
    starts, stops, told = np.array([shape.contours[n][1:] for n in chosen], dtype=np.int64).reshape(-1, 3).T.copy()
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
    miscounted = int((counts != 3 * told).sum())
    if miscounted:
        notes.append(f"{roi.original!r}: NumberOfContourPoints is wrong for {miscounted} contour(s); the points themselves are taken")
    return Outlines(values.reshape(-1, 3), np.concatenate([[0], np.cumsum(counts // 3)]).astype(np.int64))
