"""The header of one DICOM file, without its pixels, and the limits every DICOM reader here keeps.

Values are taken from the bytes themselves, so that whatever a file holds ends as a number, a text or a FormatError that names it. The
plain case, every element of known length, is walked by ``io.dicom.elements``; what is not plain (sequences that are wanted, undefined
lengths, big endian) goes through pydicom. Deflated files are inflated within a limit before anything parses them.
Sources: DICOM PS3.10 7.1 (file meta information), PS3.5 7.1 (data elements), A.4, A.5 (transfer syntaxes).
"""

from __future__ import annotations

import logging
import math
import os
import struct
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from oncontour.errors import ConfigError, FormatError, OncontourError
from oncontour.io.dicom import elements
from oncontour.io.dicom.elements import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNDEFINED_LENGTH, VRS, head

MAX_MATRIX = 4096
"""Rows or columns of one image."""
MAX_SLICES = 5000
MAX_VOXELS = 1_500_000_000
MAX_INFLATED_BYTES = 256 << 20
"""What one deflated file may grow to."""
MAX_HEADER_VALUE_BYTES = 32 << 20
"""A single header value longer than this is not read: the file is refused."""
_HEAD_BYTES = 256 << 10
_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_CHARACTER_SET = BaseTag(0x00080005)
_MEDIA_CLASS, _TRANSFER_SYNTAX, _DIRECTORY = 0x00020002, 0x00020010, "1.2.840.10008.1.3.10"

_Wanted = tuple[frozenset[BaseTag], frozenset[BaseTag]]
"""Tags whose values are wanted, and which of them are sequences."""
_Raw = dict[BaseTag, DataElement | RawDataElement]


@cache
def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword of the DICOM dictionary."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ConfigError(f"{keyword!r} is no DICOM keyword")
    return BaseTag(tag)


@dataclass(frozen=True)
class PixelPlace:
    """Where the pixel data of a file starts (byte ``offset``) and how long it says it is (UNDEFINED_LENGTH: encapsulated)."""

    offset: int
    length: int


class Header:
    """Values of one dataset or sequence item, by keyword; ``where`` is what an error names.

    Absent and empty are one: ``""``, ``()`` or None. A value that cannot be read raises FormatError.
    """

    def __init__(self, dataset: Dataset, where: str) -> None:
        self.dataset, self.where = dataset, where

    def _raw(self, keyword: str) -> DataElement | RawDataElement | None:
        tag = tag_of(keyword)
        return self.dataset.get_item(tag) if tag in self.dataset else None

    def _bytes(self, keyword: str) -> bytes:
        element = self._raw(keyword)
        value = getattr(element, "value", None)
        if value is None:
            return b""
        if not isinstance(value, bytes):
            return str(value).encode("ascii", "replace")
        return value

    def plain(self, keyword: str) -> str:
        """A UID, code string or other ASCII text, without padding; what no screen should be sent is "?"."""
        return printable(self._bytes(keyword).decode("ascii", "replace").strip("\0 \t\r\n"))

    def words(self, keyword: str) -> tuple[str, ...]:
        """A multi-valued code string."""
        text = self.plain(keyword)
        return tuple(word.strip() for word in text.split("\\")) if text else ()

    def text(self, keyword: str) -> str:
        """A text that may need the file's character set (names, descriptions)."""
        try:
            with quiet():
                value = self.dataset.get(keyword)
            return "" if value is None else printable(str(value).replace("\0", "").strip())
        except Exception:
            return self.plain(keyword)

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """``count`` finite decimal numbers (DS, or FD/FL as in enhanced objects), () where absent. Raises FormatError otherwise."""
        element = self._raw(keyword)
        value = getattr(element, "value", None)
        if value is None or (isinstance(value, bytes) and not value.strip(b"\0 ")):
            return ()
        try:
            kind = getattr(element, "VR", None) or dictionary_VR(tag_of(keyword))
            found = _decimals(value, kind, getattr(element, "is_little_endian", True))
        except (ValueError, TypeError, struct.error) as error:
            raise FormatError(f"{keyword} is not a number: {_shown(value)}", where=self.where) from error
        if len(found) < count or not all(math.isfinite(v) for v in found[:count]):
            raise FormatError(f"{keyword} should be {count} finite number(s), not {_shown(value)}", where=self.where)
        return found[:count]

    def number(self, keyword: str) -> float | None:
        """One finite number, None where absent. Raises FormatError."""
        found = self.numbers(keyword, 1)
        return found[0] if found else None

    def whole(self, keyword: str) -> int | None:
        """One integer written as text (IS), None where absent or not an integer."""
        try:
            value = float(self.plain(keyword).split("\\")[0])
        except ValueError:
            return None
        return int(value) if math.isfinite(value) else None

    def binary(self, keyword: str, *, signed: bool = False) -> int | None:
        """One binary integer (US, SS, UL), None where absent."""
        element = self._raw(keyword)
        value = getattr(element, "value", None)
        if isinstance(value, int):
            return value
        if not isinstance(value, bytes) or not 2 <= len(value) <= 64:
            return None
        width = 4 if getattr(element, "VR", None) in ("UL", "SL") else 2
        return int.from_bytes(value[:width], "little" if getattr(element, "is_little_endian", True) else "big", signed=signed)

    def items(self, keyword: str) -> Iterator[Header]:
        """The items of a sequence, none where it is absent. Raises FormatError when it is not a sequence."""
        try:
            with quiet():
                found = self.dataset.get(keyword)
            found = [] if found is None else list(found)
        except Exception as error:
            raise FormatError(f"{keyword} cannot be read ({error})", where=self.where) from error
        for n, item in enumerate(found):
            if not isinstance(item, Dataset):
                raise FormatError(f"{keyword} is not a sequence", where=self.where)
            yield Header(item, f"{self.where}, {keyword} item {n + 1}")

    def first(self, keyword: str) -> Header | None:
        """The first item of a sequence."""
        return next(self.items(keyword), None)


def _decimals(value: object, vr: str | None, little: bool) -> tuple[float, ...]:
    if not isinstance(value, bytes):
        return tuple(float(str(v)) for v in (value if isinstance(value, Iterable) else (value,)))
    if vr in ("FD", "FL"):
        size, code = (8, "d") if vr == "FD" else (4, "f")
        return struct.unpack(f"{'<' if little else '>'}{len(value) // size}{code}", value[: len(value) // size * size])
    return tuple(float(part) for part in value.decode("ascii").strip("\0 ").split("\\"))


def printable(text: str) -> str:
    """``text`` with "?" in place of control characters: an error or note that holds it moves no cursor and hides no line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _shown(value: object) -> str:
    """A value that is no number, as it stands in an error: text, or how many bytes that are none."""
    text = value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else str(value)
    return repr(text[:60]) if text.isprintable() and "\ufffd" not in text else f"{len(text)} bytes that are no text"


class DicomFile(Header):
    """One DICOM file: header values without pixel data, and where the pixels are (``read_header``).

    ``deflated_at``: byte from which the file is deflated, None where it is not; ``size`` and ``pixels`` then count inflated bytes.
    """

    def __init__(
        self, path: Path, dataset: Dataset, transfer_syntax_uid: str, size: int, pixels: PixelPlace | None, deflated_at: int | None
    ):
        super().__init__(dataset, str(path))
        self.path, self.transfer_syntax_uid, self.size, self.pixels, self.deflated_at = path, transfer_syntax_uid, size, pixels, deflated_at

    @cached_property
    def sop_class_uid(self) -> str:
        return self.plain("SOPClassUID")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the parser's warnings about values that break the rules of their VR; what matters is checked here."""
    log = logging.getLogger("pydicom")
    was, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = was


# ---- from the bytes of a file


def read_header(path: Path, keywords: Collection[str], *, most_bytes: int = MAX_HEADER_VALUE_BYTES) -> DicomFile | None:
    """The values of ``keywords`` in the file at ``path`` and where its pixels are; None where it is not DICOM.

    Raises FormatError where it says it is DICOM and cannot be parsed, or one of the values is longer than ``most_bytes``; LimitError where
    it inflates beyond MAX_INFLATED_BYTES.
    """
    start = b""
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEAD_BYTES)
            if not elements.looks_like_dicom(start):
                return None
            return _parsed(path, stream, start, _wanted(tuple(keywords)), most_bytes)
    except OncontourError:
        raise
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    except Exception as error:
        if start[128:132] != b"DICM":
            return None
        hint = "export it again, or take it out of the folder"
        raise FormatError(f"cannot be parsed as DICOM ({type(error).__name__}: {error})", where=str(path), hint=hint) from error


@contextmanager
def opening(file: DicomFile) -> Iterator[BinaryIO]:
    """The file's bytes as its header counts them: inflated where it is deflated. Raises FormatError where it cannot be read."""
    try:
        with file.path.open("rb") as stream:
            yield stream if file.deflated_at is None else BytesIO(_inflated_last(file, os.fstat(stream.fileno()).st_mtime_ns))
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", where=file.where) from error


@lru_cache(maxsize=1)
def _inflated_last(file: DicomFile, _changed_ns: int) -> bytes:
    """The inflated bytes of the file that was opened last: they are not made anew for each of its frames."""
    if file.deflated_at is None:
        raise FormatError("not deflated", where=file.where)
    with file.path.open("rb") as stream:
        stream.seek(file.deflated_at)
        return elements.inflated(stream.read(), MAX_INFLATED_BYTES, file.where)


@cache
def _wanted(keywords: tuple[str, ...]) -> _Wanted:
    tags = frozenset((*(tag_of(k) for k in keywords), _CHARACTER_SET))
    return tags, frozenset(t for t in tags if dictionary_VR(t) == "SQ")


def _parsed(path: Path, stream: BinaryIO, start: bytes, wanted: _Wanted, most_bytes: int) -> DicomFile | None:
    marked, (meta, at) = start[128:132] == b"DICM", elements.file_meta(start, str(path))
    syntax, deflated_at, size = meta.get(_TRANSFER_SYNTAX, ""), None, os.fstat(stream.fileno()).st_size
    if syntax == DEFLATED:
        stream.seek(at)
        start = elements.inflated(stream.read(), MAX_INFLATED_BYTES, str(path))
        deflated_at, stream, size, at = at, BytesIO(start), len(start), 0
    syntax = syntax or (EXPLICIT_LITTLE if elements.looks_explicit(start, at) else IMPLICIT_LITTLE)
    implicit, little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    walked = _walk(start, at, size, implicit, wanted) if little else None
    if walked is None:
        stream.seek(at)
        dataset, place = _with_pydicom(stream, implicit, little, wanted, most_bytes)
    else:
        dataset, place = _dataset(walked[0], implicit), walked[1]
    file = DicomFile(path, dataset, syntax, size, place, deflated_at)
    if file.plain("SOPClassUID") and file.plain("SOPInstanceUID"):
        return file
    if marked and meta.get(_MEDIA_CLASS) != _DIRECTORY:
        raise ValueError("no SOPClassUID and SOPInstanceUID: cut short")
    return None


def _walk(start: bytes, at: int, size: int, implicit: bool, wanted: _Wanted) -> tuple[_Raw, PixelPlace | None] | None:
    """The wanted elements before the pixel data; None where the file is not plain, or its header longer than ``start``."""
    found: _Raw = {}
    end, explicit, (tags, sequences) = len(start), not implicit, wanted
    while at + 12 <= end:
        tag, vr, first, length = head(start, at, explicit)
        if explicit and vr not in VRS:
            return None
        if tag in _PIXEL_TAGS:
            return found, PixelPlace(first, length)
        if length == UNDEFINED_LENGTH or tag >> 16 == 0xFFFE:
            return None
        if tag in tags:
            if tag in sequences or first + length > end:
                return None
            name = BaseTag(tag)
            value = start[first : first + length]
            found[name] = RawDataElement(name, None if implicit else vr.decode(), length, value, first, implicit, True)
        at = first + length
    return (found, None) if end == size and at == end else None


def _dataset(found: _Raw, implicit: bool) -> Dataset:
    dataset = Dataset(found)
    named = getattr(found.get(_CHARACTER_SET), "value", None) or b""
    terms = named.decode("ascii", "replace").strip("\0 ").split("\\")
    with quiet():
        encoding = convert_encodings([term.strip() for term in terms] or None)
    dataset.set_original_encoding(implicit, True, encoding)
    return dataset


def _with_pydicom(stream: BinaryIO, implicit: bool, little: bool, wanted: _Wanted, most_bytes: int) -> tuple[Dataset, PixelPlace | None]:
    place: list[PixelPlace] = []

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        place.clear()
        if tag in _PIXEL_TAGS:
            place.append(PixelPlace(stream.tell(), length))
        return tag in _PIXEL_TAGS

    with quiet():
        dataset = read_dataset(stream, implicit, little, stop_when=stop, defer_size=most_bytes, specific_tags=list(wanted[0]))
    for tag in tuple(dataset.keys()):
        element = dataset.get_item(tag, keep_deferred=True)
        length = getattr(element, "length", 0)
        if length and getattr(element, "value", None) is None:  # passed over unread
            raise ValueError(f"{keyword_for_tag(tag)} has {length} bytes, at most {most_bytes} are read")
    return dataset, place[0] if place else None
