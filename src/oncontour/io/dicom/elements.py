"""DICOM data elements as spans of bytes: found without decoding, copied without change, encoded as small pieces.

The one walk through DICOM bytes beside pydicom's: of file meta information, headers, and objects whose nested items must be read fast and
within limits, or kept to the byte. Sources: DICOM PS3.10 7.1 (file meta information), PS3.5 7.1 (data elements), 7.5 (sequences), 6.2.2 (UN
holds implicit little endian), A.1, A.2, A.5 (transfer syntaxes).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import NamedTuple

from oncontour.errors import FormatError, LimitError

MAX_DEPTH = 12
"""Sequences within sequences; RTSTRUCT needs five."""
MAX_ELEMENTS = 20_000_000
"""Elements and items looked at, in all: what keeps a file made of nothing else from taking minutes."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs whose length has four bytes (PS3.5 7.1.2)."""
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
VRS = _LONG | _SHORT
"""The value representations of PS3.5 6.2."""
_TAG = Struct("<HHI")
_EXPLICIT = Struct("<HH2sH")
_U32 = Struct("<I")
_unpack = _EXPLICIT.unpack_from


def looks_like_dicom(start: bytes) -> bool:
    """The DICM mark, or a bare dataset that begins with group 0008 (files of before PS3.10)."""
    return start[128:132] == b"DICM" or (len(start) >= 16 and start[:2] == b"\x08\x00" and start[2] <= 0x18 and start[3] == 0)


def looks_explicit(data: bytes, at: int) -> bool:
    """Whether the two letters of a VR stand in the element at byte ``at``."""
    return data[at + 4 : at + 6] in VRS


def file_meta(data: bytes, where: str) -> tuple[dict[int, str], int]:
    """(tag -> text, of file meta information, which is always explicit little endian; byte at which the dataset begins). Empty and 0 where
    there is no DICM mark. Raises FormatError where it is damaged or cut short."""
    at, found = 132 if data[128:132] == b"DICM" else 0, {}
    while data[at : at + 2] == b"\x02\x00":
        tag, vr, first, length = head(data, at, True) if at + 8 <= len(data) else (0, b"", 0, 0)
        if vr not in VRS or first + length > len(data):
            raise FormatError(f"file meta information is damaged or cut short (byte {at})", where=where, hint="export the file again")
        found[tag], at = data[first : first + length].decode("ascii", "replace").strip("\0 "), first + length
    return found, at


def inflated(body: bytes, most: int, where: str) -> bytes:
    """``body`` of a deflated file, inflated. Raises FormatError where it is damaged or cut short, LimitError beyond ``most`` bytes."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        whole = engine.decompress(body, most)
    except zlib.error as error:
        raise FormatError(f"deflated data is damaged ({error})", where=where) from error
    if engine.unconsumed_tail:
        raise LimitError(f"inflates to more than {most >> 20} MiB", where=where)
    if not engine.eof:
        raise FormatError("deflated data is cut short", where=where)
    return whole


def head(data: bytes, at: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """(tag, VR, first byte of the value, its length) of the element at byte ``at``, of which eight bytes must be there; the VR is b"" where
    it is implicit or an item's, and anything where it is damaged (none of ``VRS``)."""
    group, number, vr, length = _unpack(data, at)
    if not explicit or group == 0xFFFE:
        return group << 16 | number, b"", at + 8, vr[0] | vr[1] << 8 | length << 16
    if vr in _LONG:
        return group << 16 | number, vr, at + 12, int.from_bytes(data[at + 8 : at + 12], "little")
    return group << 16 | number, vr, at + 8, length


class Element(NamedTuple):
    """One element: header from ``start``, value from ``first`` to ``last``, the next element at ``end``.

    ``explicit``: whether what lies within has explicit VRs; ``undefined``: whether its end is marked, not counted.
    """

    tag: int
    vr: bytes
    start: int
    first: int
    last: int
    end: int
    explicit: bool
    undefined: bool


class Elements:
    """The elements of ``data``, little endian; errors name ``where``."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.looks = data, where, 0

    def walk(self, start: int, stop: int, explicit: bool, depth: int = 0) -> Iterator[Element]:
        """The elements between two positions. Raises FormatError where lengths do not fit, LimitError below MAX_DEPTH."""
        at = start
        while at < stop:
            element = self.one(at, stop, explicit, depth)
            yield element
            at = element.end

    def table(self, start: int, stop: int, explicit: bool) -> dict[int, Element]:
        """Tag -> element, the first of each tag."""
        found: dict[int, Element] = {}
        for element in self.walk(start, stop, explicit):
            found.setdefault(element.tag, element)
        return found

    def items(self, sequence: Element, limit: int = 1_000_000) -> list[Element]:
        """The items of a sequence, each an Element that spans its header, content and end mark. Raises LimitError beyond ``limit``."""
        out: list[Element] = []
        at = sequence.first
        while at < sequence.last:
            item = self._item(at, sequence.last, sequence.explicit, 1)
            if item.tag != ITEM:
                raise self._damaged(f"tag {item.tag:08X} where an item should begin", at)
            out.append(item)
            if len(out) > limit:
                raise LimitError(f"more than {limit} items in sequence {_shown(sequence.tag)}", where=self.where)
            at = item.end
        return out

    def within(self, item: Element) -> dict[int, Element]:
        """Tag -> element of one item."""
        return self.table(item.first, item.last, item.explicit)

    def value(self, element: Element | None) -> bytes:
        """The value's bytes; b"" where there is no element."""
        return b"" if element is None else self.data[element.first : element.last]

    def text(self, element: Element | None) -> str:
        """A UID, code string or number as text, without padding."""
        return self.value(element).decode("ascii", "replace").strip("\0 \t\r\n")

    def one(self, at: int, stop: int, explicit: bool, depth: int = 0) -> Element:
        """The element at byte ``at``. Raises FormatError where it does not end before ``stop``, LimitError below MAX_DEPTH."""
        self._count()
        if at + 8 > stop:
            raise self._damaged("cut short within an element", at)
        tag, vr, first, length = head(self.data, at, explicit)
        if first > stop:
            raise self._damaged("cut short within an element", at)
        inner = explicit
        if vr:
            if vr not in VRS:
                raise self._damaged(f"element {_shown(tag)} has no VR that is known", at)
            inner = vr != b"UN"
        if length == UNDEFINED_LENGTH:
            last = self._marked_end(first, stop, inner, depth + 1)
            return Element(tag, vr, at, first, last, last + 8, inner, True)
        if first + length > stop:
            raise self._damaged(f"element {_shown(tag)} says it has {length} bytes, {stop - first} are left", at)
        return Element(tag, vr, at, first, first + length, first + length, inner, False)

    def _marked_end(self, first: int, stop: int, explicit: bool, depth: int) -> int:
        """Where the end mark of a sequence of undefined length lies."""
        at = first
        while True:
            item = self._item(at, stop, explicit, depth)
            if item.tag == SEQUENCE_END:
                return at
            if item.tag != ITEM:
                raise self._damaged(f"tag {item.tag:08X} where an item should begin", at)
            at = item.end

    def _item(self, at: int, stop: int, explicit: bool, depth: int) -> Element:
        self._count()
        if depth > MAX_DEPTH:
            raise LimitError(f"sequences lie more than {MAX_DEPTH} deep", where=self.where)
        if at + 8 > stop:
            raise self._damaged("cut short within a sequence", at)
        group, number, length = _TAG.unpack_from(self.data, at)
        tag, first = group << 16 | number, at + 8
        if tag != ITEM:
            return Element(tag, b"", at, first, first, first, explicit, False)
        if length != UNDEFINED_LENGTH:
            if first + length > stop:
                raise self._damaged(f"an item says it has {length} bytes, {stop - first} are left", at)
            return Element(tag, b"", at, first, first + length, first + length, explicit, False)
        inside = first
        while True:
            element = self.one(inside, stop, explicit, depth)
            if element.tag == ITEM_END:
                return Element(tag, b"", at, first, inside, element.end, explicit, True)
            inside = element.end

    def _count(self) -> None:
        self.looks += 1
        if self.looks > MAX_ELEMENTS:
            raise LimitError(f"more than {MAX_ELEMENTS} elements", where=self.where)

    def _damaged(self, what: str, at: int) -> FormatError:
        return FormatError(f"{what} (byte {at})", where=self.where, hint="export the file again")


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


# ---- encoding


def element(tag: int, vr: bytes, value: bytes, explicit: bool) -> bytes:
    """One encoded element, its value padded to even length; longer than a short VR can say, it goes as UN (PS3.5 6.2.2)."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB", b"UN") else b" "
    if not explicit:
        return _TAG.pack(tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr not in _LONG and len(value) > 0xFFFE:
        vr = b"UN"
    if vr in _LONG:
        return _EXPLICIT.pack(tag >> 16, tag & 0xFFFF, vr, 0) + _U32.pack(len(value)) + value
    return _EXPLICIT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def item(content: bytes) -> bytes:
    """One encoded sequence item of defined length."""
    return _TAG.pack(0xFFFE, 0xE000, len(content)) + content


def replaced(elements: Elements, top: Mapping[int, Element], changes: Mapping[int, bytes]) -> bytes:
    """The elements of ``top`` with ``changes`` put in (tag -> encoded element, b"" to leave it out), in growing order of tags."""
    pieces = {tag: elements.data[found.start : found.end] for tag, found in top.items()}
    return b"".join(piece for _, piece in sorted({**pieces, **changes}.items()))
