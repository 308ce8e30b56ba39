"""The compiled loops of tracing: marching squares (Lorensen & Cline 1987 in two dimensions), 4-connected inside.

Pixel (row, column) is the unit square centred on (row, column).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@njit(cache=True, nogil=True)
def signed_area(points: Floats, start: int, stop: int) -> float:
    """Shoelace area of points[start:stop] (row, column), positive when it turns from row to column."""
    total = 0.0
    r0, c0 = points[start, 0], points[start, 1]
    for n in range(start, stop):
        m = n + 1 if n + 1 < stop else start
        total += (points[n, 0] - r0) * (points[m, 1] - c0) - (points[m, 0] - r0) * (points[n, 1] - c0)
    return 0.5 * total


@njit(cache=True, nogil=True)
def marching_squares(field: Floats, level: float) -> tuple[Floats, Ints]:
    """Loops where ``field`` crosses ``level``: points (n, 2) as (row, column) and where each loop starts, one more than loops.

    The field must be below the level all round its border. Inside is >= level, lies to one side of every loop (outer loops have one sign of
    ``signed_area``, holes the other) and is 4-connected: two insides that touch by a corner are two loops.
    """
    rows, columns = field.shape
    seen = np.zeros((2, rows, columns), np.bool_)  # 0: edge to the next column, 1: edge to the next row
    total = 0
    for r in range(rows):
        for c in range(columns):
            here = field[r, c] >= level
            if c + 1 < columns and here != (field[r, c + 1] >= level):
                total += 1
            if r + 1 < rows and here != (field[r + 1, c] >= level):
                total += 1
    points = np.empty((total, 2))
    starts = np.empty(total // 3 + 2, np.int64)
    loops, filled = 0, 0
    starts[0] = 0
    for r in range(rows):
        for c in range(columns - 1):
            if seen[0, r, c] or (field[r, c] >= level) == (field[r, c + 1] >= level):
                continue
            filled = _walk(field, level, seen, r, c, points, filled)
            loops += 1
            starts[loops] = filled
    return points[:filled], starts[: loops + 1]


@njit(cache=True, nogil=True)
def _walk(field: Floats, level: float, seen: NDArray[np.bool_], r: int, c: int, points: Floats, filled: int) -> int:
    """Follow one loop from the edge between (r, c) and (r, c + 1); every loop crosses such an edge."""
    kind = 0
    while not seen[kind, r, c]:
        seen[kind, r, c] = True
        a = field[r, c]
        b = field[r, c + 1] if kind == 0 else field[r + 1, c]
        t = (level - a) / (b - a)
        points[filled, 0] = r if kind == 0 else r + t
        points[filled, 1] = c + t if kind == 0 else c
        filled += 1
        inside = a >= level
        # The cell ahead, named by its upper left corner: keep the inside to the right of a walk down, below a walk to the right.
        if kind == 0:
            cell_r, cell_c, side = (r, c, 0) if inside else (r - 1, c, 2)  # entered through its top or its bottom
        else:
            cell_r, cell_c, side = (r, c - 1, 1) if inside else (r, c, 3)  # entered through its right or its left
        p = field[cell_r, cell_c] >= level
        q = field[cell_r, cell_c + 1] >= level
        s = field[cell_r + 1, cell_c + 1] >= level
        u = field[cell_r + 1, cell_c] >= level
        top, right, bottom, left = p != q, q != s, u != s, p != u
        if top and right and bottom and left:
            # Two corners inside: leave round the one we walk along (top goes with p or q, and so on), which keeps them apart.
            if side == 0:
                out = 3 if p else 1
            elif side == 1:
                out = 0 if q else 2
            elif side == 2:
                out = 1 if s else 3
            else:
                out = 2 if u else 0
        elif top and side != 0:
            out = 0
        elif right and side != 1:
            out = 1
        elif bottom and side != 2:
            out = 2
        else:
            out = 3
        if out == 0:
            kind, r, c = 0, cell_r, cell_c
        elif out == 1:
            kind, r, c = 1, cell_r, cell_c + 1
        elif out == 2:
            kind, r, c = 0, cell_r + 1, cell_c
        else:
            kind, r, c = 1, cell_r, cell_c
    return filled


@njit(cache=True, nogil=True)
def _straightened(points: Floats, start: int, stop: int, out: Floats, filled: int) -> int:
    """Copy one loop to ``out`` from ``filled`` on, without points on straight lines; where the next free place is."""
    m = stop - 1
    for n in range(start, stop):
        after = n + 1 if n + 1 < stop else start
        dr, dc = points[n, 0] - points[m, 0], points[n, 1] - points[m, 1]
        if abs(dr * (points[after, 1] - points[n, 1]) - dc * (points[after, 0] - points[n, 0])) > 1e-9:
            out[filled, 0], out[filled, 1] = points[n, 0], points[n, 1]
            filled += 1
        m = n
    return filled


@njit(cache=True, nogil=True)
def _grow(points: Floats, start: int, stop: int, gain: float) -> None:
    """Move each edge of one loop outwards by the one distance that makes its area larger by ``gain`` (mitred corners: a quadratic)."""
    outwards = 1.0 if signed_area(points, start, stop) > 0 else -1.0
    move = np.empty((stop - start, 2))
    length, bend = 0.0, 0.0
    m = stop - 1
    for n in range(start, stop):
        after = n + 1 if n + 1 < stop else start
        ar, ac = points[n, 0] - points[m, 0], points[n, 1] - points[m, 1]
        br, bc = points[after, 0] - points[n, 0], points[after, 1] - points[n, 1]
        a, b = np.sqrt(ar * ar + ac * ac), np.sqrt(br * br + bc * bc)
        ar, ac, br, bc = ar / a, ac / a, br / b, bc / b
        cosine = 1 + ar * br + ac * bc
        length += b
        bend += outwards * (ar * bc - ac * br) / cosine
        move[n - start, 0] = outwards * (ac + bc) / cosine
        move[n - start, 1] = -outwards * (ar + br) / cosine
        m = n
    distance = 2 * gain / (length + np.sqrt(max(length * length + 4 * bend * gain, 0.0)))
    for n in range(start, stop):
        points[n, 0] += distance * move[n - start, 0]
        points[n, 1] += distance * move[n - start, 1]


@njit(cache=True, nogil=True)
def trace_binary(mask: Bytes) -> tuple[Floats, Ints]:
    """Loops round the pixels of a binary (row, column) mask, each with exactly the area of the pixels it goes round.

    Marching squares at one half cuts 1/8 pixel off every convex corner and adds as much at every concave one: each loop, whatever its
    shape, goes round half a pixel too little. Growing each by that half keeps every pixel's coverage on its own side of one half.
    """
    rows, columns = mask.shape
    field = np.zeros((rows + 2, columns + 2))
    for r in range(rows):
        for c in range(columns):
            field[r + 1, c + 1] = mask[r, c]
    points, starts = marching_squares(field, 0.5)
    out = np.empty((len(points), 2))
    ends = np.zeros(len(starts), np.int64)
    for loop in range(len(starts) - 1):
        ends[loop + 1] = _straightened(points, starts[loop], starts[loop + 1], out, ends[loop])
        _grow(out, ends[loop], ends[loop + 1], 0.5)
    for n in range(len(out)):
        out[n, 0] -= 1
        out[n, 1] -= 1
    return out[: ends[-1]], ends


@njit(cache=True, nogil=True)
def trace_level(field: Floats, level: float, least_area: float) -> tuple[Floats, Ints]:
    """Loops of ``marching_squares`` without points on straight lines and without loops smaller than ``least_area``."""
    points, starts = marching_squares(field, level)
    out = np.empty((len(points), 2))
    ends = np.zeros(len(starts), np.int64)
    loops = 0
    for loop in range(len(starts) - 1):
        if abs(signed_area(points, starts[loop], starts[loop + 1])) < least_area:
            continue
        filled = _straightened(points, starts[loop], starts[loop + 1], out, ends[loops])
        if filled - ends[loops] >= 3:
            loops += 1
            ends[loops] = filled
    return out[: ends[loops]], ends[: loops + 1]


@njit(cache=True, nogil=True)
def level_area(field: Floats, level: float) -> float:
    """Area inside the loops of ``marching_squares``, holes subtracted."""
    points, starts = marching_squares(field, level)
    total = 0.0
    for loop in range(len(starts) - 1):
        total += signed_area(points, starts[loop], starts[loop + 1])
    return abs(total)


@njit(cache=True, nogil=True)
def bounds(mask: Bytes) -> Ints:
    """(k, 4) first and last + 1 row and column that hold anything, slice by slice; all zero where a slice is empty."""
    slices, rows, columns = mask.shape
    out = np.zeros((slices, 4), np.int64)
    used = np.zeros(columns, np.uint8)
    for k in range(slices):
        for r in range(rows):
            filled = np.uint8(0)
            for c in range(columns):
                filled |= mask[k, r, c]
            if filled:
                if out[k, 1] == 0:
                    out[k, 0] = r
                    used[:] = 0
                out[k, 1] = r + 1
                for c in range(columns):
                    used[c] |= mask[k, r, c]
        if out[k, 1]:
            first, last = 0, columns
            while not used[first]:
                first += 1
            while not used[last - 1]:
                last -= 1
            out[k, 2], out[k, 3] = first, last
    return out


@njit(cache=True, nogil=True)
def slab_mean(mask: Bytes, matrix: Floats, low: float, high: float, planes: int, rows: int, columns: int) -> Floats:
    """(rows, columns) mean of a mask over a slab, linearly between voxels, zero outside them.

    ``matrix`` (3, 4) takes (offset in mm, row, column, 1) to voxels (k, j, i); the slab goes from offset low to high in so many planes.
    """
    out = np.zeros((rows, columns))
    nk, nj, ni = mask.shape
    for plane in range(planes):
        offset = low + (plane + 0.5) * (high - low) / planes
        for r in range(rows):
            for c in range(columns):
                k = matrix[0, 0] * offset + matrix[0, 1] * r + matrix[0, 2] * c + matrix[0, 3]
                j = matrix[1, 0] * offset + matrix[1, 1] * r + matrix[1, 2] * c + matrix[1, 3]
                i = matrix[2, 0] * offset + matrix[2, 1] * r + matrix[2, 2] * c + matrix[2, 3]
                if k <= -1 or j <= -1 or i <= -1 or k >= nk or j >= nj or i >= ni:
                    continue
                k0, j0, i0 = int(np.floor(k)), int(np.floor(j)), int(np.floor(i))
                total = 0.0
                for dk in range(2):
                    for dj in range(2):
                        for di in range(2):
                            kk, jj, ii = k0 + dk, j0 + dj, i0 + di
                            if 0 <= kk < nk and 0 <= jj < nj and 0 <= ii < ni and mask[kk, jj, ii]:
                                total += (1 - abs(k - kk)) * (1 - abs(j - jj)) * (1 - abs(i - ii))
                out[r, c] += total
    return out / planes
