"""The compiled loops of filling and tracing. Pixel (row, column) is the unit square centred on (row, column).

Coverage: Heckbert-style signed-area accumulation as font rasterisers do it (each edge adds its signed area to the pixels of its rows; a
running sum along the row gives the winding area), folded to even-odd. Exact wherever the polygons of one plane do not cross each other.
Tracing: marching squares (Lorensen & Cline 1987 in two dimensions), 4-connected inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile on first call, keep the machine code beside this file, run without the interpreter's lock."""
    return njit(function, cache=True, nogil=True)  # type: ignore[no-any-return]


# ---- filling


@compiled
def _span(row: Floats, xa: float, xb: float, height: float) -> None:
    """Add one edge piece within one pixel row, from xa to xb, of signed height, to the row's differences."""
    width = row.shape[0] - 1
    if xa > xb:
        xa, xb = xb, xa
    if xa >= width:
        return
    if xb <= 0:
        row[0] += height
        return
    if xa < 0:
        left = -xa / (xb - xa)
        row[0] += height * left
        height -= height * left
        xa = 0.0
    if xb > width:
        height *= (width - xa) / (xb - xa)
        xb = float(width)
    first = int(xa)
    if xb <= first + 1:
        middle = 0.5 * (xa + xb) - first
        row[first] += height * (1 - middle)
        row[first + 1] += height * middle
        return
    slope = height / (xb - xa)
    for column in range(first, int(np.ceil(xb))):
        low = max(xa, float(column))
        high = min(xb, column + 1.0)
        middle = 0.5 * (low + high) - column
        row[column] += slope * (high - low) * (1 - middle)
        row[column + 1] += slope * (high - low) * middle


@compiled
def _edge(area: Floats, x0: float, y0: float, x1: float, y1: float, sign: float) -> None:
    height = area.shape[0]
    if y0 == y1:
        return
    if y0 > y1:
        x0, y0, x1, y1, sign = x1, y1, x0, y0, -sign
    if y1 <= 0 or y0 >= height:
        return
    slope = (x1 - x0) / (y1 - y0)
    top, bottom = max(y0, 0.0), min(y1, float(height))
    for row in range(int(top), int(np.ceil(bottom))):
        a, b = max(top, float(row)), min(bottom, row + 1.0)
        if b > a:
            _span(area[row], x0 + (a - y0) * slope, x0 + (b - y0) * slope, sign * (b - a))


@compiled
def signed_area(points: Floats, start: int, stop: int) -> float:
    """Shoelace area of points[start:stop] (row, column), positive when it turns from row to column."""
    total = 0.0
    r0, c0 = points[start, 0], points[start, 1]
    for n in range(start, stop):
        m = n + 1 if n + 1 < stop else start
        total += (points[n, 0] - r0) * (points[m, 1] - c0) - (points[m, 0] - r0) * (points[n, 1] - c0)
    return 0.5 * total


@compiled
def _inside(points: Floats, start: int, stop: int, row: float, column: float) -> bool:
    odd = False
    m = stop - 1
    for n in range(start, stop):
        if (points[n, 0] > row) != (points[m, 0] > row):
            at = points[n, 1] + (row - points[n, 0]) * (points[m, 1] - points[n, 1]) / (points[m, 0] - points[n, 0])
            if column < at:
                odd = not odd
        m = n
    return odd


@compiled
def depths(points: Floats, starts: Ints) -> Ints:
    """How many other polygons each polygon lies within (by three of its edge middles, in case one lies on another's edge)."""
    count = len(starts) - 1
    depth = np.zeros(count, np.int64)
    box = np.empty((count, 4))
    for p in range(count):
        piece = points[starts[p] : starts[p + 1]]
        box[p, 0], box[p, 1] = piece[:, 0].min(), piece[:, 0].max()
        box[p, 2], box[p, 3] = piece[:, 1].min(), piece[:, 1].max()
    for p in range(count):
        size = starts[p + 1] - starts[p]
        for q in range(count):
            if p == q or box[p, 0] < box[q, 0] or box[p, 1] > box[q, 1] or box[p, 2] < box[q, 2] or box[p, 3] > box[q, 3]:
                continue
            votes = 0
            for third in range(3):
                n = starts[p] + third * size // 3
                m = n + 1 if n + 1 < starts[p + 1] else starts[p]
                votes += _inside(points, starts[q], starts[q + 1], 0.5 * (points[n, 0] + points[m, 0]), 0.5 * (points[n, 1] + points[m, 1]))
            depth[p] += votes >= 2
    return depth


@compiled
def coverage(points: Floats, starts: Ints, row0: int, column0: int, height: int, width: int) -> NDArray[np.float32]:
    """(height, width) share of each pixel inside the polygons by even-odd; pixel (0, 0) is (row0, column0) of the points."""
    area = np.zeros((height, width + 1))
    depth = depths(points, starts)
    for p in range(len(starts) - 1):
        start, stop = starts[p], starts[p + 1]
        sign = 1.0 if (signed_area(points, start, stop) > 0) == (depth[p] % 2 == 0) else -1.0
        m = stop - 1
        for n in range(start, stop):
            _edge(
                area,
                points[m, 1] - column0 + 0.5,
                points[m, 0] - row0 + 0.5,
                points[n, 1] - column0 + 0.5,
                points[n, 0] - row0 + 0.5,
                sign,
            )
            m = n
    out = np.empty((height, width), np.float32)
    for row in range(height):
        total = 0.0
        for column in range(width):
            total += area[row, column]
            wound = abs(total)
            wound -= 2 * np.floor(0.5 * wound)
            out[row, column] = wound if wound <= 1 else 2 - wound
    return out


@compiled
def add_slab(
    out: NDArray[np.float32],
    image: NDArray[np.float32],
    along: Floats,
    low: float,
    high: float,
    to_image: Floats,
    start: Ints,
    stop: Ints,
    fine: Ints,
) -> None:
    """Add to ``out`` (k, j, i) the share of each voxel that one slab fills, by fine[0] x fine[1] x fine[2] samples a voxel.

    ``along`` (4,): position along the slab's normal of a voxel (k, j, i, 1); the sample counts where low <= position < high, with the
    value of ``image`` at ``to_image`` (2, 4) of it, read linearly. Voxels start <= (k, j, i) < stop are visited.
    """
    share = 1.0 / (fine[0] * fine[1] * fine[2])
    height, width = image.shape
    for k in range(start[0], stop[0]):
        for j in range(start[1], stop[1]):
            for i in range(start[2], stop[2]):
                middle = along[0] * k + along[1] * j + along[2] * i + along[3]
                reach = 0.5 * (abs(along[0]) + abs(along[1]) + abs(along[2]))
                if middle + reach < low or middle - reach > high:
                    continue
                total = 0.0
                for a in range(fine[0]):
                    fk = k - 0.5 + (a + 0.5) / fine[0]
                    for b in range(fine[1]):
                        fj = j - 0.5 + (b + 0.5) / fine[1]
                        for c in range(fine[2]):
                            fi = i - 0.5 + (c + 0.5) / fine[2]
                            position = along[0] * fk + along[1] * fj + along[2] * fi + along[3]
                            if position < low or position >= high:
                                continue
                            row = to_image[0, 0] * fk + to_image[0, 1] * fj + to_image[0, 2] * fi + to_image[0, 3]
                            column = to_image[1, 0] * fk + to_image[1, 1] * fj + to_image[1, 2] * fi + to_image[1, 3]
                            if row <= 0 or column <= 0 or row >= height - 1 or column >= width - 1:
                                continue
                            r, q = int(row), int(column)
                            u, v = row - r, column - q
                            total += (1 - u) * ((1 - v) * image[r, q] + v * image[r, q + 1])
                            total += u * ((1 - v) * image[r + 1, q] + v * image[r + 1, q + 1])
                out[k, j, i] += total * share


# ---- tracing


@compiled
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


@compiled
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


@compiled
def _without_collinear(points: Floats) -> Floats:
    count = len(points)
    keep = np.ones(count, np.bool_)
    for n in range(count):
        a, b, c = points[n - 1], points[n], points[n + 1 if n + 1 < count else 0]
        keep[n] = abs((b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])) > 1e-9
    kept: Floats = points[keep]
    return kept


@compiled
def _grown(points: Floats, gain: float) -> Floats:
    """The loop with each edge moved outwards by the one distance that makes its area larger by ``gain`` (mitred: a quadratic)."""
    count = len(points)
    outwards = 1.0 if signed_area(points, 0, count) > 0 else -1.0
    normal = np.empty((count, 2))
    length = 0.0
    for n in range(count):
        m = n + 1 if n + 1 < count else 0
        dr, dc = points[m, 0] - points[n, 0], points[m, 1] - points[n, 1]
        step = np.hypot(dr, dc)
        length += step
        normal[n, 0], normal[n, 1] = outwards * dc / step, -outwards * dr / step
    bend = 0.0
    move = np.empty((count, 2))
    for n in range(count):
        a, b = normal[n - 1], normal[n]
        cosine = a[0] * b[0] + a[1] * b[1]
        bend += outwards * (a[0] * b[1] - a[1] * b[0]) / (1 + cosine)
        move[n] = (a + b) / (1 + cosine)
    distance = 2 * gain / (length + np.sqrt(max(length * length + 4 * bend * gain, 0.0)))
    return points + distance * move


@compiled
def trace_binary(mask: NDArray[np.uint8]) -> tuple[Floats, Ints]:
    """Loops round the pixels of a binary (row, column) mask, each with exactly the area of the pixels it goes round.

    Marching squares at one half cuts 1/8 pixel off every convex corner and adds as much at every concave one: each loop, whatever its
    shape, goes round half a pixel too little. Growing each by that half keeps every pixel's coverage on its own side of one half.
    """
    rows, columns = mask.shape
    field = np.zeros((rows + 2, columns + 2))
    field[1:-1, 1:-1] = mask
    points, starts = marching_squares(field, 0.5)
    out = np.empty_like(points)
    ends = np.zeros_like(starts)
    filled = 0
    for loop in range(len(starts) - 1):
        grown = _grown(_without_collinear(points[starts[loop] : starts[loop + 1]]), 0.5)
        out[filled : filled + len(grown)] = grown
        filled += len(grown)
        ends[loop + 1] = filled
    return out[:filled] - 1, ends


@compiled
def trace_level(field: Floats, level: float, least_area: float) -> tuple[Floats, Ints]:
    """Loops of ``marching_squares`` without points on straight lines and without loops smaller than ``least_area``."""
    points, starts = marching_squares(field, level)
    out = np.empty_like(points)
    ends = np.zeros_like(starts)
    filled, loops = 0, 0
    for loop in range(len(starts) - 1):
        if abs(signed_area(points, starts[loop], starts[loop + 1])) < least_area:
            continue
        kept = _without_collinear(points[starts[loop] : starts[loop + 1]])
        if len(kept) < 3:
            continue
        out[filled : filled + len(kept)] = kept
        filled += len(kept)
        loops += 1
        ends[loops] = filled
    return out[:filled], ends[: loops + 1]


@compiled
def level_area(field: Floats, level: float) -> float:
    """Area inside the loops of ``marching_squares``, holes subtracted."""
    points, starts = marching_squares(field, level)
    total = 0.0
    for loop in range(len(starts) - 1):
        total += signed_area(points, starts[loop], starts[loop + 1])
    return abs(total)


@compiled
def bounds(mask: NDArray[np.uint8]) -> Ints:
    """(k, 4) first and last + 1 row and column that hold anything, slice by slice; all zero where a slice is empty."""
    slices, rows, columns = mask.shape
    out = np.zeros((slices, 4), np.int64)
    used = np.zeros(columns, np.uint8)
    for k in range(slices):
        found = False
        for r in range(rows):
            line = mask[k, r]
            filled = np.uint8(0)
            for c in range(columns):
                filled |= line[c]
            if filled == 0:
                continue
            if not found:
                found = True
                out[k, 0] = r
                used[:] = 0
            out[k, 1] = r + 1
            for c in range(columns):
                used[c] |= line[c]
        if found:
            inside = np.flatnonzero(used)
            out[k, 2], out[k, 3] = inside[0], inside[-1] + 1
    return out


@compiled
def slab_mean(mask: NDArray[np.uint8], matrix: Floats, low: float, high: float, planes: int, rows: int, columns: int) -> Floats:
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
