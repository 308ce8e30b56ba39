"""Contours and masks -> RTSTRUCT: new, or added to one whose other structures stay as they are, to the byte.

Sources: DICOM PS3.3 A.19 (RT Structure Set IOD), C.8.8.5, C.8.8.6, C.8.8.8, C.8.8.16 (Approval); PS3.5 6.2 (DS of at most 16 characters).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, generate_uid

import oncontour
from oncontour.core.case import Case
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import rounding_mm
from oncontour.errors import InputError, StructureError
from oncontour.files import writing
from oncontour.io.dicom.alone import mark
from oncontour.io.dicom.attributes import fitted, set_attributes
from oncontour.io.dicom.dicomfile import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from oncontour.io.dicom.elements import element, item, replaced
from oncontour.io.dicom.rtstruct_read import (
    CHARACTER_SET,
    FARTHEST_MM,
    FRAME,
    FRAME_OF_ROI,
    NAME,
    NUMBER,
    OBSERVATION_NUMBER,
    OBSERVATIONS,
    PATIENT_ID,
    REFERENCED_FRAMES,
    REFERENCED_NUMBER,
    REFERENCED_SERIES,
    REFERENCED_STUDIES,
    ROI_CONTOURS,
    RTSTRUCT,
    SERIES_INSTANCE,
    SOP_INSTANCE,
    STRUCTURES,
    RtstructFile,
    decoded,
    open_rtstruct,
    slices_of,
    whole,
)
from oncontour.io.dicom.source import DicomSource, SliceRef
from oncontour.io.names import interpreted_type
from oncontour.palette import Colour, colour_of

Ints = NDArray[np.int64]
Algorithm = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

LONGEST_NAME = 60
"""Letters of a structure's name that are kept."""
_LONGEST_SHORT_VR = 65534
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
_FINE_DIGITS, _OBLIQUE_DIGITS, _PLANE_DIGITS, _COARSE_DIGITS = 4, 6, 12, 3


@dataclass(frozen=True)
class _Structure:
    number: int
    name: str
    kind: str
    colour: Colour
    contours: Contours
    texts: tuple[bytes, ...]
    observation: str = ""
    description: str = ""


def write_rtstruct(
    case: Case,
    path: Path | str,
    *,
    structures: Iterable[str] | None = None,
    label: str = "oncontour",
    description: str = "",
    generation: str = "",
    algorithm: Algorithm = "AUTOMATIC",
    existing: Path | str | Dataset | None = None,
    names: Mapping[str, str] | None = None,
    colours: Mapping[str, Colour] | None = None,
    holes: Literal["xor", "keyhole"] = "xor",
    observations: Mapping[str, str] | None = None,
) -> Path:
    """Write ``structures`` of ``case`` (default: all) as one RTSTRUCT that refers to the case's DICOM series; gives ``path``.

    Masks are traced on the series' own slices so that area x slab is the mask's volume; contours without a mask are written as drawn.
    Every contour refers to its image. Of contours that stand for their slices alone, as those of a mask do, ROIDescription says so, and
    ``read_rtstruct`` knows them by it. The structure set is UNAPPROVED. ``label`` (16 characters) and ``description`` name it,
    ``generation`` (64 characters) says of each structure what drew it (model, version), ``algorithm`` how; ``names`` and ``colours``
    override the ROI's name and colour by structure. ``holes``: "xor" writes a hole as a contour of its own, as planning systems read it;
    "keyhole" joins it to its outline. ``observations``: a text (1024 characters) by structure, such as what was predicted of its quality,
    as ROIObservationDescription: people read it in the planning system, programs pass over it.

    ``existing``: an RTSTRUCT to add to. What it holds stays byte for byte, except that the whole becomes a new, UNAPPROVED instance;
    new structures get new numbers, and a name that is taken gets ^2. It keeps its transfer syntax; a new file is implicit VR little
    endian, in which a contour may have any length.

    Raises StructureError where the case has no DICOM series to refer to, or ``existing`` is another patient's or lies in another frame of
    reference; InputError for a structure that the case does not have; OutputError where ``path`` cannot be written.
    """
    source = case.source
    if not isinstance(source, DicomSource):
        raise StructureError(
            "an RTSTRUCT refers to DICOM images, and this case was not read from any",
            where=f"case {case.id}",
            hint="write the images as DICOM first, with oncontour convert",
        )
    base = None if existing is None else open_rtstruct(existing)
    if base is not None:
        _check_theirs(base, source)
    chosen = list(case.structures if structures is None else structures)
    found = _structures(case, chosen, source, base, names or {}, colours or {}, holes, observations or {})
    made = _Encoder(source, found, label, description, generation, algorithm)
    data = made.new() if base is None else made.added_to(base)
    with writing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def drawn_on_other_slices(case: Case) -> tuple[str, ...]:
    """The structures (contours without a mask) that would be other voxels on the case's grid if they were written as drawn to a series
    with one image for each slice of that grid, as ``write_series`` makes it, or would leave slices without contours between: how far a
    contour reaches is told by the slices round it, and these are others, as where uneven slices lie on a finer grid. None where they are
    the same but for rounding, as the slices of an even series may be."""
    from oncontour.raster import fill

    grid = case.geometry
    origins = grid.points([(k, 0, 0) for k in range(grid.shape[0])])
    slices = Slices(origins, grid.axes[2], grid.axes[1], grid.spacing_mm[1:], grid.shape[1:])
    within_mm = rounding_mm(grid.spacing_mm[0])
    drawn = {name: contours for name, contours in case.contours.items() if name not in case.masks and len(contours)}
    elsewhere = {name: contours for name, contours in drawn.items() if not _same_planes(contours.slices, slices, within_mm)}
    return tuple(
        name
        for name, contours in elsewhere.items()
        if _leaves_gaps(contours, slices) or not np.array_equal(fill(contours, grid, slices=slices).array, fill(contours, grid).array)
    )


def _leaves_gaps(contours: Contours, slices: Slices) -> bool:
    """Whether ``slices`` have some between contours of a person that those drawn on had not: we would fill them, others may not."""
    from oncontour.raster.planes import gaps_of

    if contours.alone or contours.slices is None:
        return False
    before, after = (gaps_of(replace(contours, slices=one)) for one in (contours.slices, slices))
    return bool(after.filled.sum() > before.filled.sum())


def left_empty_between(case: Case, slices: Slices) -> tuple[str, ...]:
    """The structures that would be written on ``slices`` with one or two slices left empty between contours, or on one slice in so many
    throughout. We know such contours as our own (``io.dicom.alone``); another reader may take them for a person's and fill what lies
    between."""
    found = []
    for name in case.structures:
        held = _slices_held(case, name, slices)
        if held is not None and _has_small_gap(held, slices.offsets_mm):
            found.append(name)
    return tuple(found)


def _slices_held(case: Case, name: str, slices: Slices) -> Ints | None:
    """Which slices the contours of a mask, or contours that stand for their slices alone, will lie on; None of what a person drew."""
    from oncontour.raster.planes import nearest_of, slice_of_each, stands_alone

    if name in case.masks:
        mask = case.masks[name]
        along = int(np.abs(mask.geometry.axes @ slices.normal).argmax())
        held = np.flatnonzero(mask.binary().array.any(axis=tuple(axis for axis in range(3) if axis != along)))
        centre = (np.array(mask.geometry.shape) - 1) / 2
        voxels = np.tile(centre, (len(held), 1))
        voxels[:, along] = held
        return np.unique(nearest_of(mask.geometry.points(voxels) @ slices.normal, slices.offsets_mm))
    contours = case.contours[name]
    if not stands_alone(contours, slices):
        return None
    index = slice_of_each(np.array([polygon[0] for polygon in contours]) @ slices.normal, slices)
    return None if index is None else np.unique(index)


def _has_small_gap(held: Ints, offsets_mm: NDArray[np.float64]) -> bool:
    from oncontour.raster.planes import MOST_APART, bridged, drawn_every

    steps = np.diff(held)
    filled = (steps <= MOST_APART) | bridged(steps, np.diff(offsets_mm[held]), drawn_every(held), True)
    return bool(((steps > 1) & filled).any())


def _same_planes(one: Slices | None, other: Slices, within_mm: float) -> bool:
    if one is None or len(one.offsets_mm) != len(other.offsets_mm) or 1 - abs(one.normal @ other.normal) > 1e-8:
        return False
    return bool(np.abs(one.offsets_mm - np.sort(other.origins_mm @ one.normal)).max() <= within_mm + 1e-6)


# ---- what is written


def _structures(
    case: Case,
    chosen: Sequence[str],
    source: DicomSource,
    base: RtstructFile | None,
    names: Mapping[str, str],
    colours: Mapping[str, Colour],
    holes: Literal["xor", "keyhole"],
    observations: Mapping[str, str],
) -> list[_Structure]:
    slices = slices_of(source)
    numbers, taken = _used(base)
    written = _written_names(chosen, names, taken)
    out = []
    for n, (key, name) in enumerate(zip(chosen, written, strict=True)):
        contours = _contours(case, key, slices, holes)
        colour = colours.get(key) or contours.colour or colour_of(n)
        texts = tuple(_texts(contours, slices)) if len(contours) else ()
        number, kind, description = max(numbers, default=0) + 1 + n, interpreted_type(key), _alone(contours, texts)
        out.append(_Structure(number, name, kind, colour, contours, texts, observations.get(key, ""), description))
    return out


def _alone(contours: Contours, texts: Sequence[bytes]) -> str:
    """What says that each contour stands for its slice alone (``io.dicom.alone``), "" where that is not so."""
    if not contours.alone or contours.slices is None or not len(contours):
        return ""
    return mark(texts, np.array([polygon[0] for polygon in contours]), contours.slices)


def _contours(case: Case, name: str, slices: Slices, holes: Literal["xor", "keyhole"]) -> Contours:
    from oncontour.raster import trace

    if name in case.masks:
        drawn = case.contours[name].colour if name in case.contours else None
        return trace(case.masks[name], slices=slices, holes=holes, colour=drawn)
    if name in case.contours:
        return case.contours[name]
    raise InputError(f"no structure {name!r}; there are {list(case.structures)}", where=f"case {case.id}")


def _used(base: RtstructFile | None) -> tuple[set[int], set[str]]:
    """ROI numbers and names that are taken: contours and observations of an ROI that is not listed have theirs too."""
    if base is None:
        return set(), set()
    keys = ((STRUCTURES, NUMBER), (ROI_CONTOURS, REFERENCED_NUMBER), (OBSERVATIONS, REFERENCED_NUMBER), (OBSERVATIONS, OBSERVATION_NUMBER))
    texts = [base.elements.text(base.elements.within(one).get(tag)) for sequence, tag in keys for one in base.items(sequence)]
    names = {base.elements.text(base.elements.within(one).get(NAME)) for one in base.items(STRUCTURES)}
    return {whole(text) or 0 for text in texts}, names


def names_written(
    structures: Sequence[str], *, names: Mapping[str, str] | None = None, existing: Path | str | None = None
) -> dict[str, str]:
    """Structure -> the ROIName that ``write_rtstruct`` gives it with the same arguments: as it is asked for, but for what DICOM does not
    hold, and ^2 (^3, ...) where that name is taken, in ``existing`` or by a structure before it."""
    _, taken = _used(None if existing is None else open_rtstruct(existing))
    return dict(zip(structures, _written_names(structures, names or {}, taken), strict=True))


def check_addable(existing: Path | str, source: DicomSource) -> None:
    """Raise what ``write_rtstruct`` would raise of the RTSTRUCT to add to: StructureError where it is another patient's or lies in another
    frame of reference, FormatError where it is none."""
    _check_theirs(open_rtstruct(existing), source)


def _written_names(chosen: Sequence[str], names: Mapping[str, str], taken: set[str]) -> list[str]:
    out: list[str] = []
    for n, key in enumerate(chosen):
        out.append(_free(fitted("ROIName", names.get(key, key)) or f"ROI {n + 1}", taken | set(out)))
    return out


def _free(name: str, taken: set[str]) -> str:
    name = name[:LONGEST_NAME]
    return name if name not in taken else next(made for n in range(2, len(taken) + 3) if (made := f"{name}^{n}") not in taken)


def _check_theirs(base: RtstructFile, source: DicomSource) -> None:
    """Raise StructureError where ``base`` is another patient's or lies in another frame of reference."""
    elements = base.elements
    theirs, ours = decoded(base, PATIENT_ID), source.patient.get("PatientID", "")
    if theirs and ours and theirs != ours:
        raise StructureError(
            "the structure set and the images have different PatientIDs",
            where=base.where,
            hint="add to the RTSTRUCT that was drawn on this series",
        )
    uids = {elements.text(elements.within(one).get(FRAME_OF_ROI)) for one in base.items(STRUCTURES)}
    uids |= {elements.text(elements.within(one).get(FRAME)) for one in base.items(REFERENCED_FRAMES)}
    uids.discard("")
    if uids and source.frame_of_reference_uid not in uids:
        raise StructureError(
            f"the structures lie in frame of reference {', '.join(sorted(uids))}, the images in {source.frame_told}",
            where=base.where,
            hint="add to the RTSTRUCT that was drawn on this series",
        )


# ---- encoding


class _Encoder:
    """Pieces of one RTSTRUCT as bytes."""

    def __init__(
        self, source: DicomSource, structures: Sequence[_Structure], label: str, description: str, generation: str, algorithm: Algorithm
    ) -> None:
        self.source, self.structures, self.slices = source, structures, slices_of(source)
        self.label, self.description, self.generation, self.algorithm = label, description, generation, algorithm
        self.uid = str(generate_uid(prefix=None))
        self.now = datetime.datetime.now()

    def new(self) -> bytes:
        """A whole file."""
        head = self._header()
        body = _encoded(head[:ROI_CONTOURS], explicit=False)
        body += _sequence(ROI_CONTOURS, self._roi_contours(explicit=False), explicit=False)
        body += _encoded(head[ROI_CONTOURS + 1 :], explicit=False)
        return _meta(self.uid, IMPLICIT_LITTLE) + body

    def added_to(self, base: RtstructFile) -> bytes:
        """The file ``base`` as a new instance with the structures added."""
        characters = base.elements.text(base.top.get(CHARACTER_SET))
        date, time = f"{self.now:%Y%m%d}".encode(), f"{self.now:%H%M%S}".encode()
        texts = {SOP_INSTANCE: (b"UI", self.uid.encode()), 0x00080012: (b"DA", date), 0x00080013: (b"TM", time)}
        texts |= {0x30060008: (b"DA", date), 0x30060009: (b"TM", time), 0x300E0002: (b"CS", b"UNAPPROVED")}
        changes = {tag: element(tag, vr, value, base.explicit) for tag, (vr, value) in texts.items()}
        changes |= dict.fromkeys((0x300E0004, 0x300E0005, 0x300E0008, 0xFFFAFFFA), b"")  # who reviewed and signed did not see this
        required = {0x00081070: (b"PN", b""), FRAME: (b"UI", self.source.frame_of_reference_uid.encode()), 0x00201040: (b"LO", b"")}
        changes |= {tag: element(tag, vr, value, base.explicit) for tag, (vr, value) in required.items() if tag not in base.top}
        for tag in (STRUCTURES, ROI_CONTOURS, OBSERVATIONS):
            changes[tag] = self._longer(base, tag, characters)
        if not self._is_referenced(base):
            changes[REFERENCED_FRAMES] = self._longer(base, REFERENCED_FRAMES, characters)
        syntax = EXPLICIT_LITTLE if base.explicit else IMPLICIT_LITTLE
        return _meta(self.uid, syntax) + replaced(base.elements, base.top, changes)

    def _longer(self, base: RtstructFile, tag: int, characters: str) -> bytes:
        """A sequence of ``base`` with our items after its own."""
        found = base.top.get(tag)
        explicit = found.explicit if found else base.explicit
        items = [base.elements.data[one.start : one.end] for one in base.items(tag)]
        if tag == ROI_CONTOURS:
            items += self._roi_contours(explicit)
        else:
            added = {STRUCTURES: self._rois, OBSERVATIONS: self._observations, REFERENCED_FRAMES: self._referenced_frame}[tag]()
            items += [item(_encoded(one, explicit, characters)) for one in added]
        return _sequence(tag, items, base.explicit, b"UN" if found and found.vr == b"UN" else b"SQ")

    def _is_referenced(self, base: RtstructFile) -> bool:
        elements, level = base.elements, base.items(REFERENCED_FRAMES)
        for tag in (REFERENCED_STUDIES, REFERENCED_SERIES):
            level = [one for outer in level if (found := elements.within(outer).get(tag)) for one in elements.items(found)]
        return self.source.series_uid in [elements.text(elements.within(one).get(SERIES_INSTANCE)) for one in level]

    def _header(self) -> Dataset:
        """All but the contours."""
        d = Dataset()
        d.SpecificCharacterSet = "ISO_IR 192"
        d.InstanceCreationDate = d.StructureSetDate = d.SeriesDate = f"{self.now:%Y%m%d}"
        d.InstanceCreationTime = d.StructureSetTime = d.SeriesTime = f"{self.now:%H%M%S}"
        d.SOPClassUID, d.SOPInstanceUID, d.Modality = RTSTRUCT, self.uid, "RTSTRUCT"
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "StudyID",
            "AccessionNumber",
        ):
            setattr(d, keyword, "")
        d.ReferringPhysicianName = d.OperatorsName = d.PositionReferenceIndicator = ""
        set_attributes(d, {**self.source.study, **self.source.patient})
        d.StudyInstanceUID, d.SeriesInstanceUID = self.source.study_uid, str(generate_uid(prefix=None))
        d.SeriesNumber, d.InstanceNumber = 1, 1
        d.Manufacturer = d.ManufacturerModelName = "oncontour"
        d.FrameOfReferenceUID = self.source.frame_of_reference_uid
        texts = {"SoftwareVersions": oncontour.__version__, "SeriesDescription": self.label, "StructureSetLabel": self.label}
        set_attributes(d, {**texts, "StructureSetName": self.label, "StructureSetDescription": self.description})
        d.ReferencedFrameOfReferenceSequence = self._referenced_frame()
        d.StructureSetROISequence = self._rois()
        d.RTROIObservationsSequence = self._observations()
        d.ApprovalStatus = "UNAPPROVED"
        return d

    def _referenced_frame(self) -> list[Dataset]:
        frame, study, series = Dataset(), Dataset(), Dataset()
        series.SeriesInstanceUID = self.source.series_uid
        images = {one.sop_instance_uid: _image(one.sop_class_uid, one.sop_instance_uid) for one in self.source.slices}
        series.ContourImageSequence = list(images.values())
        study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _DETACHED_STUDY, self.source.study_uid
        study.RTReferencedSeriesSequence = [series]
        frame.FrameOfReferenceUID = self.source.frame_of_reference_uid
        frame.RTReferencedStudySequence = [study]
        return [frame]

    def _rois(self) -> list[Dataset]:
        out = []
        for one in self.structures:
            d = Dataset()
            d.ROINumber, d.ReferencedFrameOfReferenceUID = one.number, self.source.frame_of_reference_uid
            d.ROIName, d.ROIGenerationAlgorithm = one.name, self.algorithm
            if one.description:
                set_attributes(d, {"ROIDescription": one.description})
            if self.generation:
                set_attributes(d, {"ROIGenerationDescription": self.generation})
            out.append(d)
        return out

    def _observations(self) -> list[Dataset]:
        out = []
        for one in self.structures:
            d = Dataset()
            d.ObservationNumber = d.ReferencedROINumber = one.number
            d.RTROIInterpretedType, d.ROIInterpreter = one.kind, ""
            if one.observation:
                set_attributes(d, {"ROIObservationDescription": one.observation})
            out.append(d)
        return out

    def _roi_contours(self, explicit: bool) -> list[bytes]:
        """One encoded item a structure."""
        in_order = sorted(self.source.slices, key=lambda one: float(np.asarray(one.position_mm) @ self.slices.normal))
        images = [_image_reference(one, explicit) for one in in_order]
        out = []
        for one in self.structures:
            content = element(0x3006002A, b"IS", "\\".join(str(c) for c in one.colour).encode(), explicit)
            if len(one.contours):
                content += _sequence(0x30060040, _contour_items(one, self.slices, images, explicit), explicit)
            content += element(0x30060084, b"IS", str(one.number).encode(), explicit)
            out.append(item(content))
        return out


def _image_reference(one: SliceRef, explicit: bool) -> bytes:
    """The encoded ContourImageSequence of a contour on this slice."""
    return _sequence(0x30060016, [item(_encoded(_image(one.sop_class_uid, one.sop_instance_uid, one.frame), explicit))], explicit)


def _image(sop_class: str, sop_instance: str, frame: int | None = None) -> Dataset:
    d = Dataset()
    d.ReferencedSOPClassUID, d.ReferencedSOPInstanceUID = sop_class, sop_instance
    if frame is not None:
        d.ReferencedFrameNumber = frame
    return d


def _encoded(dataset: Dataset, explicit: bool, characters: str = "ISO_IR 192") -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, not explicit
    write_dataset(buffer, dataset, parent_encoding=_codecs(characters))
    return bytes(buffer.getvalue())


def _codecs(characters: str) -> list[str]:
    from pydicom.charset import convert_encodings

    return list(convert_encodings(characters.split("\\")))


def _sequence(tag: int, items: Iterable[bytes], explicit: bool, vr: bytes = b"SQ") -> bytes:
    return element(tag, vr, b"".join(items), explicit)


def _meta(sop_instance_uid: str, syntax: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1)."""
    body = element(0x00020001, b"OB", b"\x00\x01", True)
    for tag, value in (
        (0x00020002, RTSTRUCT),
        (0x00020003, sop_instance_uid),
        (0x00020010, syntax),
        (0x00020012, PYDICOM_IMPLEMENTATION_UID),
    ):
        body += element(tag, b"UI", value.encode(), True)
    body += element(0x00020013, b"SH", f"ONCONTOUR {oncontour.__version__}"[:16].encode(), True)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", len(body).to_bytes(4, "little"), True) + body


# ---- contours


def _contour_items(one: _Structure, slices: Slices, images: Sequence[bytes], explicit: bool) -> list[bytes]:
    nearest, near = _slice_of_each(one.contours, slices)
    kind = element(0x30060042, b"CS", b"CLOSED_PLANAR", explicit)
    out = []
    for n, (polygon, text) in enumerate(zip(one.contours, one.texts, strict=True)):
        content = images[nearest[n]] if near[n] else b""
        content += kind + element(0x30060046, b"IS", str(len(polygon)).encode(), explicit)
        content += element(0x30060048, b"IS", str(n + 1).encode(), explicit) + element(0x30060050, b"DS", text, explicit)
        out.append(item(content))
    return out


def _slice_of_each(contours: Contours, slices: Slices) -> tuple[Ints, NDArray[np.bool_]]:
    """The slice nearest to each polygon, and whether the polygon lies within what that slice stands for."""
    from oncontour.raster.planes import nearest_of

    offsets = np.array([polygon[0] for polygon in contours]) @ slices.normal
    nearest = nearest_of(offsets, slices.offsets_mm)
    slabs = slices.slabs_mm[nearest]
    near = (offsets >= slabs[:, 0] - 1e-3) & (offsets <= slabs[:, 1] + 1e-3)
    return nearest, near | (len(slices.offsets_mm) == 1)


def _texts(contours: Contours, slices: Slices) -> list[bytes]:
    """ContourData of each polygon, each number of at most 16 characters: right to 0.0001 mm in the plane and, where the plane lies across
    x, y or z, to 14 figures along it; 0.001 mm where a contour would otherwise be longer than a short VR can say."""
    from oncontour.io.dicom import decimals

    points = np.concatenate(contours.polygons)
    farthest = float(np.abs(points).max())
    if farthest > FARTHEST_MM:
        raise StructureError(f"a contour lies {farthest:.3g} mm from the origin, at most {FARTHEST_MM:g} can be written")
    starts = np.concatenate([[0], np.cumsum([len(polygon) for polygon in contours])]).astype(np.int64)
    text, ends = decimals.format_points(points, starts, _digits(points, slices, _FINE_DIGITS))
    if np.diff(ends).max() > _LONGEST_SHORT_VR:
        text, ends = decimals.format_points(points, starts, _digits(points, slices, _COARSE_DIGITS))
    joined = text.tobytes()
    return [joined[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def _digits(points: NDArray[np.float64], slices: Slices, across: int) -> Ints:
    """Digits after the point for x, y, z."""
    along = np.flatnonzero(np.abs(slices.normal) > 1 - 1e-12)
    digits = np.full(3, across if len(along) else max(across, _OBLIQUE_DIGITS), dtype=np.int64)
    digits[along] = _PLANE_DIGITS
    places = np.floor(np.log10(np.maximum(np.abs(points).max(axis=0) + 1, 1))).astype(np.int64) + 1
    return np.asarray(np.minimum(digits, 14 - places))
