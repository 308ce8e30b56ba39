"""The stored values of one plane: straight from the file where they lie plain, through a decoder where they are compressed.

Sizes are checked against the header, and against the compressed stream's own header, before anything is decoded.
Sources: DICOM PS3.5 8.2 (native and encapsulated), A.4 (transfer syntaxes); ITU-T T.81 B.2 (JPEG frame header), T.87 C.2 (JPEG-LS),
T.800 A.5.1 (JPEG 2000 SIZ).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import FormatError, LimitError
from oncontour.io.dicomfile import EXPLICIT_BIG, NATIVE, UNDEFINED_LENGTH
from oncontour.io.plane import Plane

Array = NDArray[Any]

_JPEG = "1.2.840.10008.1.2.4."
DECODERS = {
    f"{_JPEG}50": "gdcm",  # JPEG baseline, lossy
    f"{_JPEG}51": "gdcm",  # JPEG extended, lossy
    f"{_JPEG}57": "gdcm",  # JPEG lossless
    f"{_JPEG}70": "gdcm",  # JPEG lossless, first-order prediction
    f"{_JPEG}80": "pyjpegls",  # JPEG-LS lossless
    f"{_JPEG}81": "pyjpegls",  # JPEG-LS near-lossless
    f"{_JPEG}90": "pylibjpeg",  # JPEG 2000 lossless
    f"{_JPEG}91": "pylibjpeg",  # JPEG 2000
    f"{_JPEG}201": "pylibjpeg",  # high-throughput JPEG 2000 lossless
    f"{_JPEG}202": "pylibjpeg",
    f"{_JPEG}203": "pylibjpeg",
    "1.2.840.10008.1.2.5": "gdcm",  # RLE
}
"""Transfer syntax -> the decoder that reads it here."""


def stored_values(plane: Plane) -> Array:
    """(rows, columns) integers as stored: unused bits cleared, sign in place, no rescale.

    Raises FormatError where pixels are missing, cut short, or of another size than the header says; LimitError before decoding too much.
    """
    file = plane.file
    if file.pixels is None:
        raise FormatError("no pixel data: the file is cut short or holds no image", where=file.where, hint="export the series again")
    if file.transfer_syntax_uid in NATIVE:
        values = _native(plane)
    elif file.transfer_syntax_uid in DECODERS:
        values = _decoded(plane)
    else:
        raise FormatError(
            f"transfer syntax {file.transfer_syntax_uid} is not read", where=file.where, hint="export the series uncompressed"
        )
    return _used_bits(values, plane)


def _native(plane: Plane) -> Array:
    file, place, width = plane.file, plane.file.pixels, plane.pixel.bits_allocated // 8
    assert_place = place  # narrowed for the type checker by stored_values
    if assert_place is None or assert_place.length == UNDEFINED_LENGTH:
        raise FormatError("uncompressed pixel data without a length", where=file.where)
    count = plane.rows * plane.columns
    need = count * width * plane.frames
    have = min(assert_place.length, file.size - assert_place.offset)
    if have < need:
        raise FormatError(
            f"{have} bytes of pixel data where {plane.frames} x {plane.rows} x {plane.columns} voxels of {width} bytes need {need}: cut short",
            where=file.where,
            hint="export the series again",
        )
    if have - need >= plane.columns * width:
        raise FormatError(f"{have} bytes of pixel data where Rows x Columns {plane.rows} x {plane.columns} need {need}", where=file.where)
    big = file.transfer_syntax_uid == EXPLICIT_BIG
    dtype = np.dtype(f"{'>' if big and width > 1 else '<'}{'i' if plane.pixel.signed else 'u'}{width}")
    with file.open() as stream:
        stream.seek(assert_place.offset + plane.frame * count * width)
        content = bytearray(stream.read(count * width))
    if len(content) < count * width:
        raise FormatError(f"{len(content)} bytes of pixel data where {count * width} are needed: cut short", where=file.where)
    if big and width == 1:
        content = bytearray(np.frombuffer(content, "<u2").byteswap().tobytes())
    return np.frombuffer(content, dtype).reshape(plane.rows, plane.columns)


def _used_bits(values: Array, plane: Plane) -> Array:
    """Without the bits beside the stored ones (old overlays), and with the sign of the stored ones."""
    pixel = plane.pixel
    if pixel.bits_stored == pixel.bits_allocated:
        return values
    native = values.dtype.newbyteorder("=")
    left, right = pixel.bits_allocated - 1 - pixel.high_bit, pixel.bits_allocated - pixel.bits_stored
    return (values.astype(native) << native.type(left)) >> native.type(right)


def _decoded(plane: Plane) -> Array:
    raise FormatError("compressed", where=plane.where)


_ = LimitError
