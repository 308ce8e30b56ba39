"""Decimal strings (DICOM DS) by the million: text to numbers and numbers to text in compiled loops."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@njit(cache=True, nogil=True)
def count_values(text: Bytes, starts: Ints, stops: Ints) -> Ints:
    """How many backslash-separated values each of the spans has; none where it is blank."""
    out = np.zeros(len(starts), np.int64)
    for n in range(len(starts)):
        blank = True
        for at in range(starts[n], stops[n]):
            if text[at] == 92:
                out[n] += 1
                blank = False
            elif text[at] != 32 and text[at] != 0:
                blank = False
        if not blank:
            out[n] += 1
    return out


@njit(cache=True, nogil=True)
def parse(text: Bytes, starts: Ints, stops: Ints, counts: Ints) -> tuple[Floats, int]:
    """All values of all spans, one after another, and the index of the first span that holds something else than numbers (-1: none)."""
    out = np.empty(counts.sum())
    filled = 0
    for n in range(len(starts)):
        at, stop = starts[n], stops[n]
        for _ in range(counts[n]):
            value, at, good = _number(text, at, stop)
            if not good:
                return out[:0], n
            out[filled] = value
            filled += 1
            at += 1
    return out, -1


@njit(cache=True, nogil=True)
def _number(text: Bytes, at: int, stop: int) -> tuple[float, int, bool]:
    """The number that begins at ``at``, where its separator is, and whether it is one. Correctly rounded up to 15 digits."""
    while at < stop and text[at] == 32:
        at += 1
    negative = False
    if at < stop and (text[at] == 43 or text[at] == 45):
        negative = text[at] == 45
        at += 1
    digits, mantissa, exponent, point = 0, 0.0, 0, False
    while at < stop and (48 <= text[at] <= 57 or (text[at] == 46 and not point)):
        if text[at] == 46:
            point = True
        else:
            mantissa = mantissa * 10 + (text[at] - 48)
            digits += 1
            exponent -= point
        at += 1
    if digits == 0 or digits > 40:
        return 0.0, at, False
    if at < stop and (text[at] == 69 or text[at] == 101):
        at += 1
        down = at < stop and text[at] == 45
        if at < stop and (text[at] == 43 or text[at] == 45):
            at += 1
        power, figures = 0, 0
        while at < stop and 48 <= text[at] <= 57 and figures < 4:
            power = power * 10 + (text[at] - 48)
            figures += 1
            at += 1
        if figures == 0 or power > 300:
            return 0.0, at, False
        exponent += -power if down else power
    while at < stop and (text[at] == 32 or text[at] == 0):
        at += 1
    value = mantissa / 10.0**-exponent if exponent < 0 else mantissa * 10.0**exponent
    return -value if negative else value, at, at == stop or text[at] == 92


@njit(cache=True, nogil=True)
def format_points(points: Floats, starts: Ints, decimals: Ints) -> tuple[Bytes, Ints]:
    """Each polygon's coordinates as one backslash-separated text: all texts joined, and where each begins, and the end.

    ``decimals`` (3,): digits after the point for x, y, z; trailing zeros are left out. Values times 10^decimals must stay below 10^15.
    """
    text = np.empty(len(points) * 3 * 20, np.uint8)
    ends = np.zeros(len(starts), np.int64)
    figures = np.empty(20, np.uint8)
    at = 0
    for polygon in range(len(starts) - 1):
        for n in range(starts[polygon], starts[polygon + 1]):
            for axis in range(3):
                if n > starts[polygon] or axis > 0:
                    text[at] = 92
                    at += 1
                at = _write(text, at, points[n, axis], decimals[axis], figures)
        ends[polygon + 1] = at
    return text[:at], ends


@njit(cache=True, nogil=True)
def _write(text: Bytes, at: int, value: float, decimals: int, figures: Bytes) -> int:
    scaled = np.int64(np.rint(abs(value) * 10.0**decimals))
    while decimals > 0 and scaled % 10 == 0:
        scaled //= 10
        decimals -= 1
    if value < 0 and scaled > 0:
        text[at] = 45
        at += 1
    count = 0
    while scaled > 0 or count <= decimals:
        figures[count] = 48 + scaled % 10
        scaled //= 10
        count += 1
    for n in range(count - 1, -1, -1):
        text[at] = figures[n]
        at += 1
        if n == decimals and decimals > 0:
            text[at] = 46
            at += 1
    return at
