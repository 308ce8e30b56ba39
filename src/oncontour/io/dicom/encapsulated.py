"""One compressed frame out of encapsulated pixel data, and its decoding.

Sizes are checked against the compressed stream's own header before a decoder sees it.
Sources: DICOM PS3.5 A.4 (encapsulation), annex G (RLE); ITU-T T.81 B.2 (JPEG frame header), H (lossless), T.87 C.2.2 (JPEG-LS),
T.800 A (JPEG 2000 markers), B.3, B.6, B.9 (its tiles, precincts and packets).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from oncontour.errors import FormatError, LimitError
from oncontour.io.dicom.header import DicomFile, PixelPlace, opening, quiet
from oncontour.io.dicom.plane import Array, Plane

_JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
_JPEG_2000 = frozenset(f"{_JPEG}{n}" for n in (90, 91, 201, 202, 203))
"""Lossless and not; the last three are high-throughput JPEG 2000."""
_JPEG_LS = frozenset(f"{_JPEG}{n}" for n in (80, 81))
_PLUGINS = {f"{_JPEG}50": "pillow", **dict.fromkeys(_JPEG_LS, "pyjpegls"), **dict.fromkeys(_JPEG_2000, "pylibjpeg")}
"""Transfer syntax -> the pydicom plugin that decodes it here; 50 is JPEG baseline."""
_LOSSLESS_JPEG = frozenset(f"{_JPEG}{n}" for n in (57, 70))
LOSSY = frozenset(f"{_JPEG}{n}" for n in (50, 51, 81, 91, 203))
"""Syntaxes whose values may not be what they were."""
ENCAPSULATED = frozenset((*_PLUGINS, *_LOSSLESS_JPEG, RLE))
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MAX_FRAGMENTS = 200_000
MAX_SHRUNK = 1000
"""How many times smaller than its pixels a compressed file may be, however many there are."""
MAX_SHRUNK_PIXELS = 1 << 28
"""What all files together that are smaller still may hold: 1024 images of 512 x 512, 16 of 4096 x 4096."""


def check_shrunk(files: Iterable[DicomFile], where: str) -> None:
    """Raise LimitError where compressed images are far larger than they can be by what their files hold, before any is decoded.

    An image of air shrinks to almost nothing, and is read. A series of nothing else, large and many, is no patient: images that shrank to
    less than 1 / MAX_SHRUNK of their size may together hold MAX_SHRUNK_PIXELS.
    """
    pixels = sum(_shrunk_pixels(file) for file in files if file.transfer_syntax_uid in ENCAPSULATED)
    if pixels > MAX_SHRUNK_PIXELS:
        raise LimitError(
            f"{pixels} pixels in compressed images of less than 1/{MAX_SHRUNK} of their size; at most {MAX_SHRUNK_PIXELS} of such are read",
            where=where,
            hint="export the series uncompressed",
        )


def _shrunk_pixels(file: DicomFile) -> int:
    pixels = (file.whole("NumberOfFrames") or 1) * (file.binary("Rows") or 0) * (file.binary("Columns") or 0)
    return pixels if pixels * (file.binary("BitsAllocated") or 8) // 8 > MAX_SHRUNK * file.size else 0


def frame_of(plane: Plane, place: PixelPlace) -> bytes:
    """The compressed bytes of the plane's frame. Raises FormatError where fragments are cut short or cannot be told apart."""
    file = plane.file
    with opening(file) as stream:
        table, fragments = _fragments(file, stream, place)
        if plane.frames == 1:
            chosen = fragments
        elif len(fragments) == plane.frames:
            chosen = fragments[plane.frame : plane.frame + 1]
        else:
            chosen = _by_table(plane, table, fragments)
        parts = []
        for start, length in chosen:
            stream.seek(start)
            parts.append(stream.read(length))
    frame = b"".join(parts)
    if not frame:
        raise FormatError("no compressed data for this frame: cut short", where=plane.where)
    return frame


Span = tuple[int, int]


def _fragments(file: DicomFile, stream: BinaryIO, place: PixelPlace) -> tuple[tuple[int, ...], list[Span]]:
    """(basic offset table, (start, length) of every fragment); found once a file."""
    kept = getattr(file, "_kept_fragments", None)
    if kept is None:
        kept = _find_fragments(file, stream, place.offset)
        file._kept_fragments = kept  # type: ignore[attr-defined]
    table, fragments = kept
    return table, fragments


def _find_fragments(file: DicomFile, stream: BinaryIO, at: int) -> tuple[tuple[int, ...], list[Span]]:
    spans: list[Span] = []
    while len(spans) <= _MAX_FRAGMENTS:
        stream.seek(at)
        head = stream.read(8)
        if head[:4] == _END:
            break
        length = int.from_bytes(head[4:], "little")
        if head[:4] != _ITEM or at + 8 + length > file.size:
            raise FormatError("compressed pixel data is cut short or damaged", where=file.where, hint="export the series again")
        spans.append((at + 8, length))
        at += 8 + length
    if not spans:
        raise FormatError("compressed pixel data has no offset table", where=file.where)
    start, length = spans[0]
    stream.seek(start)
    table = stream.read(length // 4 * 4)
    return struct.unpack(f"<{len(table) // 4}I", table), spans[1:]


def _by_table(plane: Plane, table: tuple[int, ...], fragments: list[Span]) -> list[Span]:
    """Fragments of one frame where frames have several: the basic offset table says where each frame starts."""
    if len(table) != plane.frames or not fragments:
        raise FormatError(f"{len(fragments)} fragments for {plane.frames} frames and no table that says which is whose", where=plane.where)
    first = fragments[0][0]
    starts = (*table, 1 << 40)
    low, high = (bisect_left(fragments, starts[n], key=lambda span: span[0] - first) for n in (plane.frame, plane.frame + 1))
    return fragments[low:high]


# ---- decoding


def decoded(plane: Plane, frame: bytes) -> Array:
    """(rows, columns) stored values of a compressed frame. Raises FormatError where it is damaged or not of the header's size."""
    syntax = plane.file.transfer_syntax_uid
    if syntax == RLE:
        return _rle(plane, frame)
    size = _size_2000(frame) if syntax in _JPEG_2000 else _size_jpeg(frame)
    if size != (plane.rows, plane.columns, 1):
        found = "no readable header" if size is None else "x".join(str(n) for n in size)
        raise FormatError(
            f"compressed image is {found} (rows x columns x samples), the header says {plane.rows}x{plane.columns}x1", where=plane.where
        )
    if b"\xff\xd9" not in frame[-64:]:
        raise FormatError("compressed image has no end: cut short", where=plane.where, hint="export the series again")
    if syntax in _JPEG_2000:
        _check_2000(plane, frame)
    return _lossless_jpeg(plane, frame) if syntax in _LOSSLESS_JPEG else _by_plugin(plane, frame, syntax)


def _by_plugin(plane: Plane, frame: bytes, syntax: str) -> Array:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    pixel = plane.pixel
    one = {"number_of_frames": 1, "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2", "pixel_keyword": "PixelData"}
    size = {"rows": plane.rows, "columns": plane.columns, "bits_allocated": pixel.bits_allocated, "bits_stored": pixel.bits_stored}
    options: dict[str, Any] = {**one, **size, "pixel_representation": int(pixel.signed)}
    try:
        with quiet():
            source = encapsulate([frame])
            values, _ = get_decoder(syntax).as_array(source, index=0, raw=True, decoding_plugin=_PLUGINS[syntax], **options)
    except Exception as error:
        text = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise FormatError(f"compressed image cannot be decoded ({text.strip()})", where=plane.where, hint="export it again") from error
    return np.asarray(values)


def _size_2000(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) that a JPEG 2000 codestream declares."""
    at = frame[:4096].find(b"\xff\x4f\xff\x51")
    if at < 0 or len(frame) < at + 42:
        return None
    width, height, left, top = struct.unpack(">4I", frame[at + 8 : at + 24])
    (samples,) = struct.unpack(">H", frame[at + 40 : at + 42])
    return height - top, width - left, samples


def _size_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) that a JPEG or JPEG-LS frame header declares."""
    for marker, content, _ in _segments(frame) if frame[:2] == b"\xff\xd8" else ():
        if (marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))) and len(content) > 5:
            rows, columns, samples = struct.unpack(">HHB", content[1:6])
            return rows, columns, samples
    return None


# ---- JPEG 2000


def _check_2000(plane: Plane, frame: bytes) -> None:
    """Raise FormatError where a codestream lacks tiles, or promises more packets than it has bytes (each takes one at least, B.9): the
    decoder leaves out what is not there without a word, and makes room for all of it before it looks."""
    try:
        tiles, found, precincts = _promised_2000(frame)
    except (struct.error, IndexError, ZeroDivisionError) as error:
        raise FormatError(f"JPEG 2000 header is damaged ({error})", where=plane.where) from error
    if found < tiles:
        raise FormatError(f"JPEG 2000 image holds {found} of {tiles} tiles: cut short", where=plane.where, hint="export the series again")
    if precincts > len(frame):
        raise FormatError(f"JPEG 2000 image of {len(frame)} bytes promises {precincts} packets: cut short or damaged", where=plane.where)


def _promised_2000(frame: bytes) -> tuple[int, int, int]:
    """(tiles that a codestream promises, tiles that it holds, precincts of its one component if all tiles had the most)."""
    at = frame.find(b"\xff\x4f\xff\x51") + 2
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack(">8I", frame[at + 6 : at + 38])
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    size = (min(tile_width, width - left), min(tile_height, height - top))
    found, most, end = set(), 0, 0
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0x90:  # start of tile-part
            tile, part = struct.unpack(">HI", frame[at + 4 : at + 10])
            found.add(tile)
            end = at + part if part else len(frame)
        elif marker in (0x52, 0x53):  # coding style, of all components or of one
            content = frame[at + 4 : at + 2 + length]
            most = max(
                most, _precincts(content[5:] if marker == 0x52 else content[2:], bool(content[0 if marker == 0x52 else 1] & 1), size)
            )
        if marker == 0x93:  # its data
            if end <= at:
                break
            at = end
        elif marker == 0xD9:
            break
        else:
            at += 2 + length
    return tiles, len(found), most * tiles


def _precincts(style: bytes, told: bool, size: tuple[int, int]) -> int:
    """Precincts of one tile of ``size`` at all resolutions (B.6); 2^15 wide and high where ``style`` does not tell."""
    levels, count = style[0], 0
    for resolution in range(min(levels, 32) + 1):
        exponents = style[5 + resolution] if told else 0xFF
        across, down = (-(-length // (1 << (levels - resolution))) for length in size)
        count += -(-across // (1 << (exponents & 15))) * -(-down // (1 << (exponents >> 4)))
    return count


# ---- lossless JPEG


def _segments(frame: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(marker, content, where the next begins) of each segment up to the start of scan."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:
            at += 1
            continue
        yield marker, frame[at + 4 : at + 2 + length], at + 2 + length
        if marker == 0xDA:
            return
        at += 2 + length


def _lossless_jpeg(plane: Plane, frame: bytes) -> Array:
    """ITU-T T.81 process 14, any predictor. Raises FormatError where it is another process, or damaged."""
    from oncontour.io.dicom.entropy import code_table, lossless_jpeg

    tables: dict[int, Array] = {}
    precision, interval, scan, data = 0, 0, b"", b""
    try:
        for marker, content, end in _segments(frame):
            if marker == 0xC4:
                tables.update(_huffman(content, code_table))
            elif marker == 0xC3:
                precision = content[0]
            elif marker == 0xDD:
                interval = int.from_bytes(content[:2], "big")
            elif marker == 0xDA:
                scan, data = content, frame[end:]
        _, _, which, predictor, _, point = struct.unpack("6B", scan)
        table = tables[which >> 4]
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise FormatError(f"lossless JPEG header is damaged ({error})", where=plane.where) from error
    point &= 15
    if not 1 <= predictor <= 7 or not 2 <= precision <= plane.pixel.bits_allocated or point >= precision or interval % plane.columns:
        raise FormatError(f"lossless JPEG of {precision} bits, predictor {predictor}, shift {point} is not read", where=plane.where)
    out = np.zeros((plane.rows, plane.columns), np.uint16)
    rows = lossless_jpeg(np.frombuffer(data, np.uint8), table, predictor, 1 << (precision - point - 1), interval // plane.columns, out)
    if rows < plane.rows:
        raise FormatError(f"lossless JPEG holds {rows} of {plane.rows} rows: cut short or damaged", where=plane.where)
    width, kind = plane.pixel.bits_allocated // 8, "i" if plane.pixel.signed else "u"
    return (out << np.uint16(point)).astype(f"u{width}").view(f"{kind}{width}")


def _huffman(content: bytes, code_table: Callable[[bytes, bytes], Array]) -> dict[int, Array]:
    found = {}
    while len(content) >= 17:
        count = sum(content[1:17])
        found[content[0] & 15] = code_table(content[1:17], content[17 : 17 + count])
        content = content[17 + count :]
    return found


# ---- RLE


def _rle(plane: Plane, frame: bytes) -> Array:
    """PS3.5 annex G: one PackBits segment a byte of the sample, the most significant first."""
    width, count = plane.pixel.bits_allocated // 8, plane.rows * plane.columns
    if len(frame) < 64:
        raise FormatError("RLE data is cut short", where=plane.where)
    segments, *starts = struct.unpack("<16I", frame[:64])
    if segments != width:
        raise FormatError(f"RLE data has {segments} segments where {width} bytes a sample need {width}", where=plane.where)
    from oncontour.io.dicom.entropy import unpack_bits

    content = np.frombuffer(frame, np.uint8)
    ends = [*starts[1:segments], len(frame)]
    planes = np.empty((count, width), np.uint8)
    for n in range(width):
        part = content[min(starts[n], len(frame)) : min(ends[n], len(frame))]
        one = np.empty(count, np.uint8)
        made = unpack_bits(part, one)
        if made < count:
            raise FormatError(f"RLE segment {n + 1} holds {made} of {count} voxels: cut short or damaged", where=plane.where)
        planes[:, width - 1 - n] = one
    kind = "i" if plane.pixel.signed else "u"
    return planes.view(f"<{kind}{width}").reshape(plane.rows, plane.columns)
