"""From the bytes of a file to its header.

The plain case, every element of known length, is walked here; what is not plain (sequences that are wanted, undefined lengths, big endian)
goes through pydicom. Deflated files are inflated within a limit before anything parses them.
Sources: DICOM PS3.10 7.1 (file meta information), PS3.5 7.1 (data elements), A.4, A.5 (transfer syntaxes).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from oncontour.errors import FormatError, LimitError, OncontourError
from oncontour.io.dicom.dicomfile import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    MAX_HEADER_VALUE_BYTES,
    MAX_INFLATED_BYTES,
    UNDEFINED_LENGTH,
    DicomFile,
    PixelPlace,
    quiet,
    tag_of,
)

_HEAD_BYTES = 256 << 10
_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_CHARACTER_SET = BaseTag(0x00080005)
_DIRECTORY = "1.2.840.10008.1.3.10"
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (*(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS"), *(b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM"))
) | frozenset((b"UI", b"UL", b"US"))

Elements = dict[BaseTag, Any]


def read_header(path: Path, keywords: Collection[str]) -> DicomFile | None:
    """The values of ``keywords`` in the file at ``path`` and where its pixels are; None where it is not DICOM.

    Raises FormatError where it says it is DICOM and cannot be parsed, LimitError where it inflates beyond MAX_INFLATED_BYTES.
    """
    start = b""
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEAD_BYTES)
            if not _looks_like_dicom(start):
                return None
            return _parsed(path, stream, start, _wanted(tuple(keywords)))
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
        return _inflated(stream, file.deflated_at, file.path)


def _looks_like_dicom(start: bytes) -> bool:
    """The DICM mark, or a bare dataset that begins with group 0008 (files of before PS3.10)."""
    return start[128:132] == b"DICM" or (len(start) >= 16 and start[:2] == b"\x08\x00" and start[2] <= 0x18 and start[3] == 0)


@dataclass(frozen=True)
class _Wanted:
    tags: frozenset[BaseTag]
    sequences: frozenset[BaseTag]


@cache
def _wanted(keywords: tuple[str, ...]) -> _Wanted:
    tags = frozenset((*(tag_of(k) for k in keywords), _CHARACTER_SET))
    return _Wanted(tags, frozenset(t for t in tags if dictionary_VR(t) == "SQ"))


def _parsed(path: Path, stream: BinaryIO, start: bytes, wanted: _Wanted) -> DicomFile | None:
    marked = start[128:132] == b"DICM"
    syntax, media_class, at = _meta(start)
    size = os.fstat(stream.fileno()).st_size
    deflated_at = None
    if syntax == DEFLATED:
        deflated_at, content = at, _inflated(stream, at, path)
        stream, start, size, at = BytesIO(content), content, len(content), 0
    syntax = syntax or _guessed(start, at)
    implicit, little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    walked = _walk(start, at, size, implicit, wanted) if little else None
    if walked is None:
        stream.seek(at)
        dataset, place = _with_pydicom(stream, implicit, little, wanted)
    else:
        dataset, place = _dataset(walked[0], implicit), walked[1]
    file = DicomFile(path, dataset, syntax, size, place, deflated_at)
    if file.plain("SOPClassUID") and file.plain("SOPInstanceUID"):
        return file
    if marked and media_class != _DIRECTORY:
        raise ValueError("no SOPClassUID and SOPInstanceUID: cut short")
    return None


def _meta(start: bytes) -> tuple[str, str, int]:
    """(transfer syntax UID, SOP class UID, where the dataset begins) of group 0002, always explicit little endian; "" where absent."""
    at = 132 if start[128:132] == b"DICM" else 0
    found = {}
    while start[at : at + 2] == b"\x02\x00":
        vr = start[at + 4 : at + 6]
        if vr in _LONG:
            length, value = int.from_bytes(start[at + 8 : at + 12], "little"), at + 12
        elif vr in _SHORT:
            length, value = int.from_bytes(start[at + 6 : at + 8], "little"), at + 8
        else:
            raise ValueError("file meta information is damaged")
        if value + length > len(start):
            raise ValueError("file meta information is cut short or too long")
        found[start[at + 2]] = start[value : value + length]
        at = value + length
    syntax, media_class = (found.get(n, b"").decode("ascii", "replace").strip("\0 ") for n in (0x10, 0x02))
    return syntax, media_class, at


def _guessed(start: bytes, at: int) -> str:
    """The transfer syntax of a file that does not say: explicit where two letters stand for a VR."""
    vr = start[at + 4 : at + 6]
    return EXPLICIT_LITTLE if vr in _LONG or vr in _SHORT else IMPLICIT_LITTLE


def _inflated(stream: BinaryIO, at: int, path: Path) -> bytes:
    """What follows byte ``at``, inflated. Raises FormatError where it is damaged, LimitError beyond MAX_INFLATED_BYTES."""
    stream.seek(at)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = engine.decompress(stream.read(), MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise FormatError(f"deflated data is damaged ({error})", where=str(path)) from error
    if engine.unconsumed_tail:
        raise LimitError(f"inflates to more than {MAX_INFLATED_BYTES >> 20} MiB", where=str(path))
    if not engine.eof:
        raise FormatError("deflated data is cut short", where=str(path))
    return body


def _walk(head: bytes, at: int, size: int, implicit: bool, wanted: _Wanted) -> tuple[Elements, PixelPlace | None] | None:
    """The wanted elements before the pixel data; None where the file is not plain, or its header longer than ``head``."""
    found: Elements = {}
    unpack, end = struct.Struct("<HH2sH").unpack_from, len(head)
    while at + 12 <= end:
        group, element, vr, length = unpack(head, at)
        tag, start = group << 16 | element, at + 8
        if implicit or vr in _LONG:
            start = at + (8 if implicit else 12)
            length = int.from_bytes(head[start - 4 : start], "little")
        elif vr not in _SHORT:
            return None
        if tag in _PIXEL_TAGS:
            return found, PixelPlace(start, length)
        if length == UNDEFINED_LENGTH or group == 0xFFFE:
            return None
        if tag in wanted.tags:
            if tag in wanted.sequences or start + length > end:
                return None
            name = BaseTag(tag)
            found[name] = RawDataElement(
                name, None if implicit else vr.decode(), length, head[start : start + length], start, implicit, True
            )
        at = start + length
    return (found, None) if end == size and at == end else None


def _dataset(elements: Elements, implicit: bool) -> Dataset:
    dataset = Dataset(elements)
    named = elements.get(_CHARACTER_SET)
    terms = named.value.decode("ascii", "replace").strip("\0 ").split("\\") if named is not None else []
    with quiet():
        encoding = convert_encodings([term.strip() for term in terms] or None)
    dataset.set_original_encoding(implicit, True, encoding)
    return dataset


def _with_pydicom(stream: BinaryIO, implicit: bool, little: bool, wanted: _Wanted) -> tuple[Dataset, PixelPlace | None]:
    place: list[PixelPlace] = []

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        place.clear()
        if tag in _PIXEL_TAGS:
            place.append(PixelPlace(stream.tell(), length))
        return tag in _PIXEL_TAGS

    with quiet():
        dataset = read_dataset(stream, implicit, little, stop_when=stop, defer_size=MAX_HEADER_VALUE_BYTES, specific_tags=list(wanted.tags))
    for element in list(dataset.elements()):
        if element.value is None and getattr(element, "length", False):  # passed over unread for its length
            del dataset[element.tag]
    return dataset, place[0] if place else None
