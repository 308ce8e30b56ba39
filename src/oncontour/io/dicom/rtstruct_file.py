"""An RTSTRUCT as bytes: its top-level elements, texts and tags, and nothing of what they mean.

Sources: DICOM PS3.3 A.19 (RT Structure Set IOD), PS3.6 (tags), PS3.5 6.1 (character sets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from oncontour.errors import FormatError, LimitError
from oncontour.io.dicom.elements import DEFLATED, EXPLICIT_BIG, Element, Elements, file_meta, inflated, looks_explicit, looks_like_dicom

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
MAX_FILE_BYTES = 1 << 30
MAX_ROIS = 5_000
FARTHEST_MM = 1e5
"""Coordinates beyond this are no patient."""


class Tag:
    """Tags of PS3.6 that are read or written as bytes."""

    CHARACTER_SET, SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX = 0x00080005, 0x00080016, 0x00080018, 0x00020010
    CREATION_DATE, CREATION_TIME, OPERATORS = 0x00080012, 0x00080013, 0x00081070
    PATIENT_ID, SERIES_INSTANCE, FRAME, POSITION_REFERENCE = 0x00100020, 0x0020000E, 0x00200052, 0x00201040
    LABEL, SET_DESCRIPTION, SET_DATE, SET_TIME = 0x30060002, 0x30060006, 0x30060008, 0x30060009
    REFERENCED_FRAMES, REFERENCED_STUDIES, REFERENCED_SERIES, CONTOUR_IMAGES = 0x30060010, 0x30060012, 0x30060014, 0x30060016
    STRUCTURES, NUMBER, FRAME_OF_ROI, NAME, DESCRIPTION = 0x30060020, 0x30060022, 0x30060024, 0x30060026, 0x30060028
    COLOUR, GENERATION, ROI_CONTOURS, CONTOURS, GEOMETRY = 0x3006002A, 0x30060036, 0x30060039, 0x30060040, 0x30060042
    POINT_COUNT, CONTOUR_NUMBER, CONTOUR_DATA = 0x30060046, 0x30060048, 0x30060050
    OBSERVATIONS, OBSERVATION_NUMBER, REFERENCED_NUMBER, INTERPRETED = 0x30060080, 0x30060082, 0x30060084, 0x300600A4
    APPROVAL, REVIEW_DATE, REVIEW_TIME, REVIEWER, SIGNATURES = 0x300E0002, 0x300E0004, 0x300E0005, 0x300E0008, 0xFFFAFFFA


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

    @property
    def characters(self) -> str:
        """SpecificCharacterSet."""
        return self.elements.text(self.top.get(Tag.CHARACTER_SET))

    def items(self, tag: int) -> list[Element]:
        """The items of a top-level sequence, none where it is absent. Raises LimitError beyond MAX_ROIS."""
        return self.elements.items(self.top[tag], MAX_ROIS) if tag in self.top else []


def open_rtstruct(rtstruct: Path | str | Dataset) -> RtstructFile:
    """The elements of an RTSTRUCT file or dataset. Raises FormatError where it is none, LimitError where it is too large."""
    where = told(rtstruct)
    data = encoded(rtstruct, explicit=False, characters="") if isinstance(rtstruct, Dataset) else _content(Path(rtstruct))
    if not looks_like_dicom(data):
        raise FormatError("not a DICOM file", where=where)
    meta, start = file_meta(data, where)
    if meta.get(Tag.TRANSFER_SYNTAX) == EXPLICIT_BIG:
        raise FormatError("big endian explicit VR, retired from DICOM in 2006", where=where, hint="convert it with dcmconv +te")
    if meta.get(Tag.TRANSFER_SYNTAX) == DEFLATED:
        data = data[:start] + inflated(data[start:], MAX_FILE_BYTES, where)
    elements = Elements(data, where)
    explicit = looks_explicit(data, start)
    top = elements.table(start, len(data), explicit)
    if elements.text(top.get(Tag.SOP_CLASS)) != RTSTRUCT:
        raise FormatError(f"SOP class {elements.text(top.get(Tag.SOP_CLASS)) or 'not given'} is not RT Structure Set", where=where)
    return RtstructFile(elements, top, start, explicit)


def _content(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise LimitError(f"{size >> 20} MiB, at most {MAX_FILE_BYTES >> 20} MiB are read", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def told(rtstruct: Path | str | Dataset) -> str:
    """What an error calls it."""
    return "dataset" if isinstance(rtstruct, Dataset) else str(rtstruct)


def encoded(dataset: Dataset, explicit: bool, characters: str = "ISO_IR 192") -> bytes:
    """The bytes of a dataset or item, little endian, its texts in the character set of the whole."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, not explicit
    write_dataset(buffer, dataset, parent_encoding=list(convert_encodings(characters.split("\\"))))
    return bytes(buffer.getvalue())


def whole(text: str) -> int | None:
    """An integer string (IS) as a number, None where it is none."""
    return int(text) if text.lstrip("+-").isdigit() and len(text) <= 12 else None


def text_of(file: RtstructFile, tag: int) -> str:
    """The text of a top-level element, in the file's own character set; "" where there is none."""
    return decoded(file.elements.value(file.top.get(tag)), file.characters.split("\\"))


def decoded(value: bytes, characters: Sequence[str]) -> str:
    """A text in these character sets (SpecificCharacterSet), without what no screen should be sent."""
    try:
        text = decode_bytes(value, convert_encodings(list(characters)), set())
    except (LookupError, UnicodeError, ValueError):
        text = value.decode("latin-1")
    return "".join(c for c in text if c.isprintable()).strip()
