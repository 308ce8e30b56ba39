"""The header of one DICOM file, and the limits every DICOM reader here keeps.

Values are taken from the bytes themselves, so that whatever a file holds ends as a number, a text or a FormatError that names it.
Sources: DICOM PS3.10 7.1 (file meta information), PS3.5 7.1 (data elements), A.5 (deflated).
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial

from oncontour.errors import FormatError, LimitError, OncontourError

MAX_MATRIX = 4096
"""Rows or columns of one image."""
MAX_SLICES = 5000
MAX_VOXELS = 1_500_000_000
MAX_INFLATED_BYTES = 256 << 20
"""What one deflated file may grow to."""
MAX_HEADER_VALUE_BYTES = 32 << 20
"""A single header value longer than this is passed over unread."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)

_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
UNDEFINED_LENGTH = 0xFFFFFFFF


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

    def _raw(self, keyword: str) -> Any:
        tag = tag_for_keyword(keyword)
        if tag is None or tag not in self.dataset:
            return None
        return self.dataset.get_item(tag)

    def _bytes(self, keyword: str) -> bytes:
        element = self._raw(keyword)
        value = getattr(element, "value", None)
        if value is None:
            return b""
        if not isinstance(value, bytes):
            return str(value).encode("ascii", "replace")
        return value

    def plain(self, keyword: str) -> str:
        """A UID, code string or other ASCII text, without padding."""
        return self._bytes(keyword).decode("ascii", "replace").strip("\0 \t\r\n")

    def words(self, keyword: str) -> tuple[str, ...]:
        """A multi-valued code string."""
        text = self.plain(keyword)
        return tuple(word.strip() for word in text.split("\\")) if text else ()

    def text(self, keyword: str) -> str:
        """A text that may need the file's character set (names, descriptions)."""
        try:
            with quiet():
                value = self.dataset.get(keyword)
            return "" if value is None else str(value).replace("\0", "").strip()
        except Exception:
            return self.plain(keyword)

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """``count`` finite decimal numbers (DS, or binary FD/FL as enhanced objects have), () where absent. Raises FormatError otherwise."""
        element = self._raw(keyword)
        value = getattr(element, "value", None)
        if value is None or (isinstance(value, bytes) and not value.strip(b"\0 ")):
            return ()
        try:
            found = _decimals(value, getattr(element, "VR", None), getattr(element, "is_little_endian", True))
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
        return int.from_bytes(value[:width], "little" if element.is_little_endian else "big", signed=signed)

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


def _decimals(value: Any, vr: str | None, little: bool) -> tuple[float, ...]:
    if not isinstance(value, bytes):
        return tuple(float(v) for v in (value if isinstance(value, Iterable) else (value,)))
    if vr in ("FD", "FL"):
        size, code = (8, "d") if vr == "FD" else (4, "f")
        return struct.unpack(f"{'<' if little else '>'}{len(value) // size}{code}", value[: len(value) // size * size])
    return tuple(float(part) for part in value.decode("ascii").strip("\0 ").split("\\"))


def _shown(value: Any) -> str:
    text = value[:60].decode("ascii", "replace") if isinstance(value, bytes) else str(value)[:60]
    return repr(text)


class DicomFile(Header):
    """One DICOM file: header values without pixel data, and where the pixels are; ``size``: bytes in the file, or after inflating."""

    def __init__(self, path: Path, dataset: Dataset, transfer_syntax_uid: str, size: int, pixels: PixelPlace | None) -> None:
        super().__init__(dataset, str(path))
        self.path, self.transfer_syntax_uid, self.size, self.pixels = path, transfer_syntax_uid, size, pixels

    @cached_property
    def sop_class_uid(self) -> str:
        return self.plain("SOPClassUID")

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file's bytes as the header's offsets count them (inflated where the file is deflated)."""
        with opening(self.path) as stream:
            yield stream


@contextmanager
def opening(path: Path) -> Iterator[BinaryIO]:
    """The file for reading; a deflated one inflated within MAX_INFLATED_BYTES. Raises FormatError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            start = stream.read(2048)
            stream.seek(0)
            yield BytesIO(_inflated(stream.read(), path)) if _is_deflated(start) else stream
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def _is_deflated(start: bytes) -> bool:
    return start[128:132] == b"DICM" and b"UI\x16\x00" + DEFLATED.encode() in start


def _inflated(content: bytes, path: Path) -> bytes:
    """The same file with its dataset inflated and the transfer syntax named accordingly."""
    if content[132:138] != b"\x02\x00\x00\x00UL":
        raise FormatError("deflated, but its file meta information has no length", where=str(path))
    end = 144 + int.from_bytes(content[140:144], "little")
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = engine.decompress(content[end:], MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise FormatError(f"deflated data is damaged ({error})", where=str(path)) from error
    if engine.unconsumed_tail:
        raise LimitError(f"inflates to more than {MAX_INFLATED_BYTES >> 20} MiB", where=str(path))
    if not engine.eof:
        raise FormatError("deflated data is cut short", where=str(path))
    return content[:end].replace(DEFLATED.encode(), EXPLICIT_LITTLE.encode() + b"\0\0\0", 1) + body


@contextmanager
def quiet() -> Iterator[None]:
    """Without the parser's warnings about values that break the rules of their VR; what matters is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path, keywords: Iterable[str] | None = None) -> DicomFile | None:
    """Header of ``path`` (only ``keywords``, if given), None where the file is not DICOM.

    Raises FormatError where it says it is DICOM and cannot be parsed.
    """
    try:
        with opening(path) as stream:
            start = stream.read(132)
            if not _looks_like_dicom(start):
                return None
            stream.seek(0)
            return _parsed(path, stream, [t for k in keywords or () if (t := tag_for_keyword(k)) is not None])
    except OncontourError:
        raise
    except Exception as error:
        if start[128:132] != b"DICM":
            return None
        hint = "export it again, or take it out of the folder"
        raise FormatError(f"cannot be parsed as DICOM ({type(error).__name__}: {error})", where=str(path), hint=hint) from error


def _looks_like_dicom(start: bytes) -> bool:
    """The DICM mark, or a bare dataset that begins with group 0008 (files of before PS3.10)."""
    return start[128:132] == b"DICM" or (len(start) >= 16 and start[:2] == b"\x08\x00" and start[2] <= 0x18 and start[3] == 0)


def _parsed(path: Path, stream: BinaryIO, tags: list[int]) -> DicomFile | None:
    place: list[PixelPlace] = []

    def stop(tag: int, _vr: str | None, length: int) -> bool:
        place.clear()
        if tag in _PIXEL_TAGS:
            place.append(PixelPlace(stream.tell(), length))
        return tag in _PIXEL_TAGS

    with quiet():
        dataset = read_partial(stream, stop_when=stop, defer_size=MAX_HEADER_VALUE_BYTES, force=True, specific_tags=tags or None)
    if "SOPClassUID" not in dataset:
        return None
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) or (IMPLICIT_LITTLE if dataset.original_encoding[0] else EXPLICIT_LITTLE)
    stream.seek(0, 2)
    return DicomFile(path, dataset, syntax, stream.tell(), place[0] if place else None)
