"""From the bytes of a file to an array of the size that its header promised, or a sentence on why not."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from oncontour.core.volume import Volume
from oncontour.errors import FormatError, LimitError

Array = NDArray[Any]
"""Voxels of any dtype."""
_DEFLATE_RATIO = 1100
"""No deflate stream grows by more than 1032 (RFC 1951: 258 bytes from 2 bits)."""
_PIECE = 1 << 24
ORIENT = "save it again from a program that knows how the patient lay"
"""The way out where a file does not say which side is which."""

UNNAMED_SEGMENT = re.compile(r"Segment_\d+")
"""What 3D Slicer calls a segment that nobody gave a name."""


@dataclass(frozen=True)
class Segment:
    """One structure that an image file's header names: the voxels of ``value``, in ``layer`` where the file has several."""

    name: str
    value: int
    layer: int = 0


@dataclass(frozen=True, eq=False)
class ImageFile:
    """What an image file holds: ``volume``, ``notes`` on how its header was read, and the ``segments`` that the header names.

    Only where there are segments may ``volume`` have an axis more: layers of segments that overlap, before (k, j, i).
    """

    volume: Volume
    notes: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()


def check_size(shape: tuple[int, ...], max_voxels: int, where: str) -> None:
    """Raises FormatError where ``shape`` has not three axes, LimitError where it has more than ``max_voxels``."""
    if len(shape) != 3 or min(shape) < 1:
        raise FormatError(f"an image needs three axes, this has sizes {shape}", where=where, hint="save one volume of the series")
    voxels = int(shape[0]) * int(shape[1]) * int(shape[2])
    if voxels > max_voxels:
        raise LimitError(f"{' x '.join(map(str, shape))} = {voxels} voxels, at most {max_voxels} are read", where=where)


def check_there(wanted: int, there: int, where: str, *, zipped: bool) -> None:
    """Raises FormatError where ``there`` bytes of a file cannot hold ``wanted`` bytes of voxels, plain or deflated."""
    if there * (_DEFLATE_RATIO if zipped else 1) < wanted:
        raise FormatError(f"cut short: voxels take {wanted} bytes, {there} are there", where=where, hint="copy or export it again")


def fill(stream: IO[bytes], array: Array, where: str) -> None:
    """Fill ``array`` in C order from ``stream``. Raises FormatError where it ends before."""
    view, done = array.reshape(-1).view(np.uint8), 0
    while done < len(view):
        got = stream.readinto(view[done : done + _PIECE])  # type: ignore[attr-defined]
        if not got:
            check_there(len(view), done, where, zipped=False)
        done += got
    stream.read(1)  # at the end of a zipped file its checksum is compared


def fill_deflated(stream: IO[bytes], array: Array, where: str) -> None:
    """Fill ``array`` in C order from a zlib or gzip stream. Raises FormatError where it ends before, zlib.error where it is damaged."""
    view, done = array.reshape(-1).view(np.uint8), 0
    machine = zlib.decompressobj(47)  # RFC 1950 or 1952, by its own header
    while done < len(view):
        packed = machine.unconsumed_tail or stream.read(1 << 20)
        piece = machine.decompress(packed, min(_PIECE, len(view) - done))
        view[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
        if not piece and (machine.eof or not packed):
            check_there(len(view), done, where, zipped=False)


def fill_text(text: bytes, array: Array, where: str) -> None:
    """Fill ``array`` in C order from numbers written out. Raises FormatError where there are too few or one is none."""
    words = text.split(None, array.size)[: array.size]
    if len(words) < array.size:
        raise FormatError(
            f"cut short: {array.size} voxels are promised, {len(words)} are there", where=where, hint="copy or export it again"
        )
    try:
        array.reshape(-1)[:] = [float(word) for word in words]
    except (ValueError, OverflowError) as error:
        raise FormatError(f"a voxel is no number ({error})", where=where) from error
