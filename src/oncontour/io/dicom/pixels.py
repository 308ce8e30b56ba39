"""The stored values of one plane: straight from the file where they lie plain, through a decoder where they are compressed.

Sizes are checked against the header before anything is read. Source: DICOM PS3.5 8 (pixel data encoding).
"""

from __future__ import annotations

import numpy as np

from oncontour.errors import FormatError
from oncontour.io.dicom.elements import EXPLICIT_BIG, NATIVE, UNDEFINED_LENGTH
from oncontour.io.dicom.encapsulated import ENCAPSULATED, decoded, frame_of
from oncontour.io.dicom.header import PixelPlace, opening
from oncontour.io.dicom.plane import Array, Plane


def stored_values(plane: Plane) -> Array:
    """(rows, columns) integers as stored, in the machine's byte order: unused bits cleared, sign in place, no rescale.

    Raises FormatError where pixels are missing, cut short, damaged, or of another size than the header says.
    """
    file, place = plane.file, plane.file.pixels
    if place is None:  # scan has refused it already
        raise FormatError("no pixel data", where=file.where)
    if file.transfer_syntax_uid in NATIVE:
        return _used_bits(_native(plane, place), plane)
    if file.transfer_syntax_uid in ENCAPSULATED and place.length == UNDEFINED_LENGTH:
        return _used_bits(decoded(plane, frame_of(plane, place)), plane)
    raise FormatError(
        f"transfer syntax {file.transfer_syntax_uid or 'unknown'} is not read", where=file.where, hint="export the series uncompressed"
    )


def _native(plane: Plane, place: PixelPlace) -> Array:
    pixel, file = plane.pixel, plane.file
    width = pixel.bits_allocated // 8
    size = plane.rows * plane.columns * width
    need, have = size * plane.frames, min(place.length, file.size - place.offset)
    matrix = f"{plane.frames} x {plane.rows} x {plane.columns} voxels of {width} bytes"
    if place.length == UNDEFINED_LENGTH:
        raise FormatError("uncompressed pixel data without a length", where=file.where)
    if have < need:
        raise FormatError(
            f"{have} bytes of pixel data where {matrix} need {need}: cut short", where=file.where, hint="export the series again"
        )
    if have - need >= plane.columns * width:
        raise FormatError(f"{have} bytes of pixel data where {matrix} need {need}: the sizes do not fit", where=file.where)
    with opening(file) as stream:
        stream.seek(place.offset + plane.frame * size)
        content = bytearray(stream.read(size))
    if len(content) < size:
        raise FormatError(f"{len(content)} bytes of pixel data where {size} are needed: cut short", where=file.where)
    return _numbers(content, plane, big=file.transfer_syntax_uid == EXPLICIT_BIG)


def _numbers(content: bytearray, plane: Plane, big: bool) -> Array:
    width, kind = plane.pixel.bits_allocated // 8, "i" if plane.pixel.signed else "u"
    if big and width == 1:  # bytes travel in 16-bit words
        content = bytearray(np.frombuffer(content[: len(content) // 2 * 2], "<u2").byteswap().tobytes()) + content[len(content) // 2 * 2 :]
    values = np.frombuffer(content, f"{'>' if big else '<'}{kind}{width}").reshape(plane.rows, plane.columns)
    return values.astype(f"={kind}{width}") if big else values


def _used_bits(values: Array, plane: Plane) -> Array:
    """Without the bits beside the stored ones (old overlays), and with the sign of the stored ones."""
    pixel = plane.pixel
    if pixel.bits_stored == pixel.bits_allocated:
        return values
    left, right = pixel.bits_allocated - 1 - pixel.high_bit, pixel.bits_allocated - pixel.bits_stored
    kind = values.dtype.type
    cleared: Array = (values << kind(left)) >> kind(right)
    return cleared
