"""The header of one DICOM file, and the limits every DICOM reader here keeps.

Values are taken from the bytes themselves, so that whatever a file holds ends as a number, a text or a FormatError that names it.
Sources: DICOM PS3.10 7.1 (file meta information), PS3.5 7.1 (data elements), A.5 (deflated).
"""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from oncontour.errors import ConfigError, FormatError

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

UNDEFINED_LENGTH = 0xFFFFFFFF


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

    def _raw(self, keyword: str) -> Any:
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


def printable(text: str) -> str:
    """``text`` with "?" in place of control characters: an error or note that holds it moves no cursor and hides no line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _shown(value: Any) -> str:
    """A value that is no number, as it stands in an error: text, or how many bytes that are none."""
    text = value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else str(value)
    return repr(text[:60]) if text.isprintable() and "\ufffd" not in text else f"{len(text)} bytes that are no text"


class DicomFile(Header):
    """One DICOM file: header values without pixel data, and where the pixels are (read by ``oncontour.io.dicom.dicomparse``).

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
