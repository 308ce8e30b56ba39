"""The inner loops of RLE and lossless JPEG, compiled: bounded by their arrays whatever the bytes hold.

Own decoders, because the native ones abort the process on damaged files. Imported only where a compressed file is met.
Sources: DICOM PS3.5 annex G.3 (PackBits); ITU-T T.81 annex C (Huffman codes), F.2.2 (decoding), H.1 and H.2 (lossless prediction).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@njit(cache=True)
def unpack_bits(packed: Bytes, out: Bytes) -> int:
    """Fill ``out`` from PackBits; how much of it was filled."""
    n: Any
    size: Any
    at, made = 0, 0
    while at < len(packed) and made < len(out):
        n = np.int64(packed[at])
        at += 1
        if n < 128:
            size = min(n + 1, len(packed) - at, len(out) - made)
            out[made : made + size] = packed[at : at + size]
            at += n + 1
            made += size
        elif n > 128 and at < len(packed):
            size = min(257 - n, len(out) - made)
            out[made : made + size] = packed[at]
            at += 1
            made += size
    return made


def code_table(counts: bytes, values: bytes) -> NDArray[np.int32]:
    """Huffman table of T.81 C.2 as 65536 entries, by the next 16 bits: length * 256 + value, 0 where no code begins so.

    ``counts``: how many codes of 1 to 16 bits; ``values``: theirs in order. Raises ValueError where they do not make a code.
    """
    table = np.zeros(1 << 16, np.int32)
    code, taken = 0, 0
    for length in range(1, 17):
        for _ in range(counts[length - 1]):
            if code >= 1 << length or taken >= len(values) or values[taken] > 16:
                raise ValueError("Huffman table is damaged")
            start = code << (16 - length)
            table[start : start + (1 << (16 - length))] = length * 256 + values[taken]
            code, taken = code + 1, taken + 1
        code <<= 1
    return table


@njit(cache=True)
def _fill(data: Bytes, at: int, held: Any, bits: Any) -> tuple[int, Any, Any]:
    """Bring ``bits`` held to 25 or more, stopping at a marker (zeros follow there); T.81 F.2.2.5."""
    while bits <= 24:
        byte: Any = np.int64(0)
        if at < len(data):
            byte = np.int64(data[at])
            if byte == 0xFF:
                if at + 1 < len(data) and data[at + 1] == 0:
                    at += 2
                else:
                    byte = np.int64(0)
            else:
                at += 1
        held = ((held << 8) | byte) & 0xFFFFFFFF
        bits += 8
    return at, held, bits


@njit(cache=True)
def _after_restart(data: Bytes, at: int) -> int:
    """Where data goes on after the next restart marker, -1 where there is none."""
    while at + 1 < len(data):
        if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7:
            return at + 2
        if data[at] == 0xFF and data[at + 1] == 0xD9:
            return -1
        at += 1
    return -1


@njit(cache=True)
def _predicted(out: Any, j: int, i: int, predictor: int, fresh: bool, start: int) -> Any:
    """T.81 H.1.2.1: from left (a), above (b) and above left (c)."""
    if fresh:
        return start if i == 0 else np.int64(out[j, i - 1])
    if i == 0:
        return np.int64(out[j - 1, 0])
    a, b, c = np.int64(out[j, i - 1]), np.int64(out[j - 1, i]), np.int64(out[j - 1, i - 1])
    if predictor == 1:
        return a
    if predictor == 2:
        return b
    if predictor == 3:
        return c
    if predictor == 4:
        return a + b - c
    if predictor == 5:
        return a + ((b - c) >> 1)
    if predictor == 6:
        return b + ((a - c) >> 1)
    return (a + b) >> 1


@njit(cache=True)
def lossless_jpeg(data: Bytes, table: NDArray[np.int32], predictor: int, start: int, restart_rows: int, out: Any) -> int:
    """Fill ``out`` (rows, columns) of uint16 from the entropy-coded scan ``data``; how many rows came out whole.

    ``start``: what the first voxel is predicted as; ``restart_rows``: rows between restart markers, 0 for none.
    """
    held: Any
    bits: Any
    entry: Any
    at, held, bits, since = 0, np.int64(0), 0, 0
    for j in range(out.shape[0]):
        if restart_rows and j and j % restart_rows == 0:
            at = _after_restart(data, at)
            if at < 0:
                return j
            held, bits, since = 0, 0, j
        for i in range(out.shape[1]):
            at, held, bits = _fill(data, at, held, bits)
            entry = np.int64(table[(held >> (bits - 16)) & 0xFFFF])
            if entry == 0:
                return j
            bits -= entry >> 8
            size = entry & 0xFF
            difference: Any = 0
            if size == 16:
                difference = 32768
            elif size:
                at, held, bits = _fill(data, at, held, bits)
                bits -= size
                difference = (held >> bits) & ((1 << size) - 1)
                if difference < 1 << (size - 1):
                    difference -= (1 << size) - 1
            out[j, i] = (_predicted(out, j, i, predictor, j == since, start) + difference) & 0xFFFF
    return int(out.shape[0])
