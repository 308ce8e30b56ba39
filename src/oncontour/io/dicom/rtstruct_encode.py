"""The bytes of an RTSTRUCT: a whole file, or one with structures added to it, whose others stay as they are.

Sources: DICOM PS3.3 C.8.8.5, C.8.8.6, C.8.8.8, C.8.8.16 (Approval); PS3.5 6.2 (DS of at most 16 characters).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, generate_uid

import oncontour
from oncontour.core.contours import Contours, Slices
from oncontour.errors import StructureError
from oncontour.io.dicom import decimals
from oncontour.io.dicom.attributes import item_of, new_object, new_series, set_attributes
from oncontour.io.dicom.elements import EXPLICIT_LITTLE, IMPLICIT_LITTLE, element, item, replaced
from oncontour.io.dicom.rtstruct_file import FARTHEST_MM, RTSTRUCT, RtstructFile, Tag, encoded
from oncontour.io.dicom.source import DicomSource, SliceRef, slices_of
from oncontour.palette import Colour
from oncontour.raster.planes import nearest_of

Ints = NDArray[np.int64]
Algorithm = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

_LONGEST_SHORT_VR = 65534
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
_FINE_DIGITS, _OBLIQUE_DIGITS, _PLANE_DIGITS, _COARSE_DIGITS = 4, 6, 12, 3


@dataclass(frozen=True)
class Structure:
    """What is written of one structure; ``texts``: ContourData of each of its contours."""

    number: int
    name: str
    kind: str
    colour: Colour
    contours: Contours
    texts: tuple[bytes, ...]
    observation: str = ""
    description: str = ""


class Encoder:
    """Pieces of one RTSTRUCT as bytes."""

    def __init__(
        self,
        source: DicomSource,
        structures: Sequence[Structure],
        label: str,
        description: str,
        generation: str,
        algorithm: Algorithm,
        predecessor: str = "",
    ) -> None:
        self.source, self.structures, self.slices = source, structures, slices_of(source)
        self.label, self.description, self.generation, self.algorithm = label, description, generation, algorithm
        self.predecessor, self.uid = predecessor, str(generate_uid(prefix=None))
        self.now = datetime.datetime.now()

    def new(self) -> bytes:
        """A whole file."""
        head = self._header()
        body = encoded(head[: Tag.ROI_CONTOURS], explicit=False)
        body += _sequence(Tag.ROI_CONTOURS, self._roi_contours(explicit=False), explicit=False)
        body += encoded(head[Tag.ROI_CONTOURS + 1 :], explicit=False)
        return _meta(self.uid, IMPLICIT_LITTLE) + body

    def added_to(self, base: RtstructFile) -> bytes:
        """The file ``base`` as a new instance with the structures added."""
        characters = base.elements.text(base.top.get(Tag.CHARACTER_SET))
        date, time, frame = f"{self.now:%Y%m%d}", f"{self.now:%H%M%S}", self.source.frame_of_reference_uid
        new = {Tag.SOP_INSTANCE: (b"UI", self.uid), Tag.CREATION_DATE: (b"DA", date), Tag.CREATION_TIME: (b"TM", time)}
        new |= {Tag.SET_DATE: (b"DA", date), Tag.SET_TIME: (b"TM", time), Tag.APPROVAL: (b"CS", "UNAPPROVED")}
        required = {Tag.OPERATORS: (b"PN", ""), Tag.FRAME: (b"UI", frame), Tag.POSITION_REFERENCE: (b"LO", "")}
        new |= {tag: told for tag, told in required.items() if tag not in base.top}
        changes = {tag: element(tag, vr, text.encode(), base.explicit) for tag, (vr, text) in new.items()}
        seen = (Tag.REVIEW_DATE, Tag.REVIEW_TIME, Tag.REVIEWER, Tag.SIGNATURES)
        changes |= dict.fromkeys(seen, b"")  # who reviewed and signed did not see this
        for tag in (Tag.STRUCTURES, Tag.ROI_CONTOURS, Tag.OBSERVATIONS):
            changes[tag] = self._longer(base, tag, characters)
        if not self._is_referenced(base):
            changes[Tag.REFERENCED_FRAMES] = self._longer(base, Tag.REFERENCED_FRAMES, characters)
        syntax = EXPLICIT_LITTLE if base.explicit else IMPLICIT_LITTLE
        return _meta(self.uid, syntax) + replaced(base.elements, base.top, changes)

    def _longer(self, base: RtstructFile, tag: int, characters: str) -> bytes:
        """A sequence of ``base`` with our items after its own."""
        found = base.top.get(tag)
        explicit = found.explicit if found else base.explicit
        items = [base.elements.data[one.start : one.end] for one in base.items(tag)]
        if tag == Tag.ROI_CONTOURS:
            items += self._roi_contours(explicit)
        else:
            added = {Tag.STRUCTURES: self._rois, Tag.OBSERVATIONS: self._observations, Tag.REFERENCED_FRAMES: self._referenced_frame}[tag]()
            items += [item(encoded(one, explicit, characters)) for one in added]
        return _sequence(tag, items, base.explicit, b"UN" if found and found.vr == b"UN" else b"SQ")

    def _is_referenced(self, base: RtstructFile) -> bool:
        elements, level = base.elements, base.items(Tag.REFERENCED_FRAMES)
        for tag in (Tag.REFERENCED_STUDIES, Tag.REFERENCED_SERIES):
            level = [one for outer in level if (found := elements.within(outer).get(tag)) for one in elements.items(found)]
        return self.source.series_uid in [elements.text(elements.within(one).get(Tag.SERIES_INSTANCE)) for one in level]

    def _header(self) -> Dataset:
        """All but the contours."""
        d = new_object(RTSTRUCT, self.source, self.uid)
        new_series(d, "RTSTRUCT", "InstanceCreation", "StructureSet")
        d.OperatorsName, d.ApprovalStatus = "", "UNAPPROVED"
        texts = {"SoftwareVersions": oncontour.__version__, "SeriesDescription": self.label, "StructureSetLabel": self.label}
        set_attributes(d, {**texts, "StructureSetName": self.label, "StructureSetDescription": self.description})
        if self.predecessor:
            d.PredecessorStructureSetSequence = [_image(RTSTRUCT, self.predecessor)]
        d.ReferencedFrameOfReferenceSequence = self._referenced_frame()
        d.StructureSetROISequence = self._rois()
        d.RTROIObservationsSequence = self._observations()
        return d

    def _referenced_frame(self) -> list[Dataset]:
        images = {one.sop_instance_uid: _image(one.sop_class_uid, one.sop_instance_uid) for one in self.source.slices}
        series = item_of(SeriesInstanceUID=self.source.series_uid, ContourImageSequence=list(images.values()))
        study = item_of(ReferencedSOPClassUID=_DETACHED_STUDY, ReferencedSOPInstanceUID=self.source.study_uid)
        study.RTReferencedSeriesSequence = [series]
        return [item_of(FrameOfReferenceUID=self.source.frame_of_reference_uid, RTReferencedStudySequence=[study])]

    def _rois(self) -> list[Dataset]:
        out = []
        for one in self.structures:
            d = item_of(ROINumber=one.number, ReferencedFrameOfReferenceUID=self.source.frame_of_reference_uid)
            d.ROIName, d.ROIGenerationAlgorithm = one.name, self.algorithm
            texts = {"ROIDescription": one.description, "ROIGenerationDescription": self.generation}
            set_attributes(d, {keyword: text for keyword, text in texts.items() if text})
            out.append(d)
        return out

    def _observations(self) -> list[Dataset]:
        out = []
        for one in self.structures:
            d = item_of(ObservationNumber=one.number, ReferencedROINumber=one.number, RTROIInterpretedType=one.kind, ROIInterpreter="")
            set_attributes(d, {"ROIObservationDescription": one.observation} if one.observation else {})
            out.append(d)
        return out

    def _roi_contours(self, explicit: bool) -> list[bytes]:
        """One encoded item a structure."""
        in_order = sorted(self.source.slices, key=lambda one: float(np.asarray(one.position_mm) @ self.slices.normal))
        images = [_image_reference(one, explicit) for one in in_order]
        out = []
        for one in self.structures:
            content = element(Tag.COLOUR, b"IS", "\\".join(str(c) for c in one.colour).encode(), explicit)
            if len(one.contours):
                content += _sequence(Tag.CONTOURS, _contour_items(one, self.slices, images, explicit), explicit)
            content += element(Tag.REFERENCED_NUMBER, b"IS", str(one.number).encode(), explicit)
            out.append(item(content))
        return out


def _image_reference(one: SliceRef, explicit: bool) -> bytes:
    """The encoded ContourImageSequence of a contour on this slice."""
    return _sequence(Tag.CONTOUR_IMAGES, [item(encoded(_image(one.sop_class_uid, one.sop_instance_uid, one.frame), explicit))], explicit)


def _image(sop_class: str, sop_instance: str, frame: int | None = None) -> Dataset:
    numbered = {} if frame is None else {"ReferencedFrameNumber": frame}
    return item_of(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_instance, **numbered)


def _sequence(tag: int, items: Iterable[bytes], explicit: bool, vr: bytes = b"SQ") -> bytes:
    return element(tag, vr, b"".join(items), explicit)


def _meta(sop_instance_uid: str, syntax: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1)."""
    uids = {0x00020002: RTSTRUCT, 0x00020003: sop_instance_uid, Tag.TRANSFER_SYNTAX: syntax, 0x00020012: PYDICOM_IMPLEMENTATION_UID}
    body = element(0x00020001, b"OB", b"\x00\x01", True)
    body += b"".join(element(tag, b"UI", uid.encode(), True) for tag, uid in uids.items())
    body += element(0x00020013, b"SH", f"ONCONTOUR {oncontour.__version__}"[:16].encode(), True)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", len(body).to_bytes(4, "little"), True) + body


# ---- contours


def _contour_items(one: Structure, slices: Slices, images: Sequence[bytes], explicit: bool) -> list[bytes]:
    nearest, near = _slice_of_each(one.contours, slices)
    kind = element(Tag.GEOMETRY, b"CS", b"CLOSED_PLANAR", explicit)
    out = []
    for n, (polygon, text) in enumerate(zip(one.contours, one.texts, strict=True)):
        content = images[nearest[n]] if near[n] else b""
        content += kind + element(Tag.POINT_COUNT, b"IS", str(len(polygon)).encode(), explicit)
        content += element(Tag.CONTOUR_NUMBER, b"IS", str(n + 1).encode(), explicit) + element(Tag.CONTOUR_DATA, b"DS", text, explicit)
        out.append(item(content))
    return out


def _slice_of_each(contours: Contours, slices: Slices) -> tuple[Ints, NDArray[np.bool_]]:
    """The slice nearest to each polygon, and whether the polygon lies within what that slice stands for."""
    offsets = np.array([polygon[0] for polygon in contours]) @ slices.normal
    nearest = nearest_of(offsets, slices.offsets_mm)
    slabs = slices.slabs_mm[nearest]
    near = (offsets >= slabs[:, 0] - 1e-3) & (offsets <= slabs[:, 1] + 1e-3)
    return nearest, near | (len(slices.offsets_mm) == 1)


def texts_of(contours: Contours, slices: Slices) -> list[bytes]:
    """ContourData of each polygon, each number of at most 16 characters: right to 0.0001 mm in the plane and, where the plane lies across
    x, y or z, to 14 figures along it; 0.001 mm where a contour would otherwise be longer than a short VR can say."""
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
