"""The compiled loops of filling. Pixel (row, column) is the unit square centred on (row, column).

Coverage: Heckbert-style area accumulation as font rasterisers do it (each edge adds its area to the pixels of its rows; a running sum
along the row gives the covered area). Whether inside begins or ends at an edge is told by its place among the edges beside it, strip by
strip from one end of an edge to the next, and changes where edges cross: even-odd, exact whatever crosses, touches or lies in what.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_STEPS, MOST_STEPS_A_PIECE = 2**24, 64
"""Steps of filling one plane: so many in all, and so many more for each piece of outline within a row of pixels. What a person or a
segmenter draws takes three to ten a piece."""


@njit(cache=True, nogil=True)
def _span(area: Floats, row: int, xa: float, xb: float, height: float) -> None:
    """Add one edge piece within one pixel row, from xa to xb, of signed height, to the row's differences."""
    width = area.shape[1] - 1
    if xa > xb:
        xa, xb = xb, xa
    if xa >= width:
        return
    if xb <= 0:
        area[row, 0] += height
        return
    if xa < 0:
        left = -xa / (xb - xa)
        area[row, 0] += height * left
        height -= height * left
        xa = 0.0
    if xb > width:
        height *= (width - xa) / (xb - xa)
        xb = float(width)
    first = int(xa)
    if xb <= first + 1:
        middle = 0.5 * (xa + xb) - first
        area[row, first] += height * (1 - middle)
        area[row, first + 1] += height * middle
        return
    slope = height / (xb - xa)
    for column in range(first, int(np.ceil(xb))):
        low = max(xa, float(column))
        high = min(xb, column + 1.0)
        middle = 0.5 * (low + high) - column
        area[row, column] += slope * (high - low) * (1 - middle)
        area[row, column + 1] += slope * (high - low) * middle


@njit(cache=True, nogil=True)
def _edges(points: Floats, starts: Ints, row0: int, column0: int, height: int, width: int) -> tuple[Floats, Ints]:
    """The edges that matter to the window, (n, 4) as x0, y0, x1, y1 with y0 <= y1 in units of its pixels, sorted by the row that they begin
    in, and where each row's begin. Left of the window they tell what is inside; right of it, above and below they tell nothing."""
    edges = np.empty((len(points), 4))
    rows = np.empty(len(points), np.int64)
    first = np.zeros(height + 1, np.int64)
    count = 0
    for p in range(len(starts) - 1):
        m = starts[p + 1] - 1
        for n in range(starts[p], starts[p + 1]):
            a, b = (m, n) if points[m, 0] <= points[n, 0] else (n, m)
            y0, y1 = points[a, 0] - row0 + 0.5, points[b, 0] - row0 + 0.5
            x0, x1 = points[a, 1] - column0 + 0.5, points[b, 1] - column0 + 0.5
            m = n
            if y1 <= 0 or y0 >= height or min(x0, x1) >= width or (y0 == y1 and y0 == np.floor(y0)):
                continue
            edges[count, 0], edges[count, 1], edges[count, 2], edges[count, 3] = x0, y0, x1, y1
            rows[count] = int(max(y0, 0.0))
            first[rows[count] + 1] += 1
            count += 1
    first = np.cumsum(first)
    place = first.copy()
    out = np.empty((count, 4))
    for n in range(count):
        out[place[rows[n]]] = edges[n]
        place[rows[n]] += 1
    return out, first


@njit(cache=True, nogil=True)
def _x_at(piece: Floats, y: float) -> float:
    """Where a piece of an edge (x0, y0, x1, y1) is at ``y``; its ends are met to the last bit."""
    x0, y0, x1, y1 = float(piece[0]), float(piece[1]), float(piece[2]), float(piece[3])
    if y <= y0:
        return x0
    if y >= y1:
        return x1
    x = x0 + (y - y0) * ((x1 - x0) / (y1 - y0))
    return min(max(x, min(x0, x1)), max(x0, x1))


@njit(cache=True, nogil=True)
def _order(here: Ints, top: Floats, bottom: Floats) -> None:
    """Sort all three by ``top``, then ``bottom``: soon done where they are nearly in order, as they are from strip to strip."""
    moves = 8 * len(here) + 64
    for k in range(1, len(here)):
        one, x, below, m = here[k], top[k], bottom[k], k
        while m > 0 and (top[m - 1] > x or (top[m - 1] == x and bottom[m - 1] > below)):
            here[m], top[m], bottom[m] = here[m - 1], top[m - 1], bottom[m - 1]
            m -= 1
        here[m], top[m], bottom[m] = one, x, below
        moves -= k - m
        if moves < 0:
            order = np.argsort(bottom, kind="mergesort")
            order = order[np.argsort(top[order], kind="mergesort")]
            here[:], top[:], bottom[:] = here[order], top[order], bottom[order]
            return


@njit(cache=True, nogil=True)
def _strip(area: Floats, row: int, pieces: Floats, here: Ints, low: float, high: float, odd: bool, most: int) -> int:
    """Add to a row what the edges ``here``, all of which run from ``low`` to ``high``, go round by even-odd; ``odd`` is whether what lies
    left of them is inside. An edge is where inside begins or ends by turns, in the order of the edges, and changes its turn wherever it
    crosses another. ``here`` is left in that order. The number of steps; -1 where there would be more than ``most``."""
    n = len(here)
    top, bottom = np.empty(n), np.empty(n)
    for k in range(n):
        top[k], bottom[k] = _x_at(pieces[here[k]], low), _x_at(pieces[here[k]], high)
    _order(here, top, bottom)
    sign = np.empty(n)
    crossed = False
    for k in range(n):
        sign[k] = 1.0 if odd == (k % 2 == 1) else -1.0
        crossed = crossed or (k > 0 and bottom[k] < bottom[k - 1])
    if not crossed:
        for k in range(n):
            _span(area, row, top[k], bottom[k], sign[k] * (high - low))
        return n
    return _crossing(area, row, top, bottom, sign, low, high, most)


@njit(cache=True, nogil=True)
def _crossing(area: Floats, row: int, top: Floats, bottom: Floats, sign: Floats, low: float, high: float, most: int) -> int:
    """``_strip`` where edges cross: ``top`` grows, ``bottom`` does not, and each pair that is the other way round there has crossed once.
    ``sign`` is that at ``low``, and is used up."""
    n = len(top)
    turned = np.arange(n)
    pairs, at = np.empty((64, 2), np.int64), np.empty(64)
    crossings = 0
    for k in range(1, n):
        one, m = turned[k], k
        while m > 0 and bottom[turned[m - 1]] > bottom[one]:
            other = turned[m - 1]
            if crossings == len(at):
                pairs, at = np.concatenate((pairs, np.empty_like(pairs))), np.concatenate((at, np.empty_like(at)))
            above, below = top[one] - top[other], bottom[other] - bottom[one]
            at[crossings] = low + (high - low) * (above / (above + below))
            pairs[crossings, 0], pairs[crossings, 1] = one, other
            crossings += 1
            if n + crossings > most:
                return -1
            turned[m] = other
            m -= 1
        turned[m] = one
    since, x = np.full(n, low), top.copy()
    for crossing in np.argsort(at[:crossings], kind="mergesort"):
        y = at[crossing]
        for side in range(2):
            k = pairs[crossing, side]
            reached = top[k] + (bottom[k] - top[k]) * ((y - low) / (high - low))
            _span(area, row, x[k], reached, sign[k] * (y - since[k]))
            sign[k], since[k], x[k] = -sign[k], y, reached
    for k in range(n):
        _span(area, row, x[k], bottom[k], sign[k] * (high - since[k]))
    return n + crossings


@njit(cache=True, nogil=True)
def _heap(area: Floats, row: int, pieces: Floats, here: Ints, odd: bool, most: int) -> int:
    """Add to a row what the pieces ``here`` go round, strip by strip from one of their ends to the next; steps as of ``_strip``."""
    begins, ends = np.empty(len(here)), np.empty(2 * len(here))
    for n in range(len(here)):
        begins[n] = ends[2 * n] = pieces[here[n], 1]
        ends[2 * n + 1] = pieces[here[n], 3]
    ends, order = np.unique(ends), np.argsort(begins, kind="mergesort")
    active = np.empty(len(here), np.int64)
    count, following, steps = 0, 0, 0
    for n in range(len(ends) - 1):
        kept = 0
        for m in range(count):
            if pieces[active[m], 3] > ends[n]:
                active[kept] = active[m]
                kept += 1
        count = kept
        while following < len(order) and begins[order[following]] <= ends[n]:
            if pieces[here[order[following]], 3] > ends[n]:
                active[count] = here[order[following]]
                count += 1
            following += 1
        if count:
            taken = _strip(area, row, pieces, active[:count], ends[n], ends[n + 1], odd, most - steps)
            if taken < 0 or steps + taken > most:
                return -1
            steps += taken
    return steps


@njit(cache=True, nogil=True)
def _row(area: Floats, row: int, pieces: Floats, most: int) -> int:
    """Add one row's pieces: those that lie over each other along the row together, the others each alone; steps as of ``_strip``."""
    left, right = np.empty(len(pieces)), np.empty(len(pieces))
    for n in range(len(pieces)):
        left[n], right[n] = min(pieces[n, 0], pieces[n, 2]), max(pieces[n, 0], pieces[n, 2])
    order = np.argsort(left, kind="mergesort")
    steps, first, odd = len(pieces), 0, False
    while first < len(order):
        end, reach, through = first, left[order[first]], 0
        while end < len(order) and left[order[end]] <= reach:
            reach = max(reach, right[order[end]])
            through += pieces[order[end], 1] == row and pieces[order[end], 3] > row
            end += 1
        if end == first + 1:
            one = order[first]
            _span(area, row, pieces[one, 0], pieces[one, 2], (-1.0 if odd else 1.0) * (pieces[one, 3] - pieces[one, 1]))
        else:
            taken = _heap(area, row, pieces, order[first:end], odd, most - steps)
            if taken < 0:
                return -1
            steps += taken
        odd = odd != (through % 2 == 1)  # outlines are closed: along a line that none crosses inside stays inside
        first = end
    return steps


@njit(cache=True, nogil=True)
def coverage(points: Floats, starts: Ints, row0: int, column0: int, height: int, width: int) -> tuple[NDArray[np.float32], bool]:
    """(height, width) share of each pixel inside the polygons by even-odd; pixel (0, 0) is (row0, column0) of the points. False beside it
    where the outlines are too entangled for it: more than MOST_STEPS and MOST_STEPS_A_PIECE for each piece of outline in a row."""
    area = np.zeros((height, width + 1))
    edges, first = _edges(points, starts, row0, column0, height, width)
    out = np.zeros((height, width), np.float32)
    active = np.empty(len(edges), np.int64)
    pieces = np.empty((16, 4))
    count, steps, seen = 0, 0, 0
    for row in range(height):
        kept = 0
        for n in range(count):
            if edges[active[n], 3] > row:
                active[kept] = active[n]
                kept += 1
        for edge in range(first[row], first[row + 1]):
            active[kept] = edge
            kept += 1
        count = kept
        if count > len(pieces):
            pieces = np.empty((2 * count, 4))
        for n in range(count):
            edge = edges[active[n]]
            pieces[n] = edge
            if edge[1] < row:
                pieces[n, 0], pieces[n, 1] = _x_at(edge, float(row)), row
            if edge[3] > row + 1:
                pieces[n, 2], pieces[n, 3] = _x_at(edge, row + 1.0), row + 1
        if count:
            seen += count
            taken = _row(area, row, pieces[:count], MOST_STEPS + MOST_STEPS_A_PIECE * seen - steps)
            if taken < 0:
                return out, False
            steps += taken
        total = 0.0
        for column in range(width):
            total += area[row, column]
            out[row, column] = min(max(total, 0.0), 1.0)
    return out, True


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def area_vectors(points: Floats, starts: Ints) -> Floats:
    """(polygons, 3) half the sum of the cross products of each polygon's following points, seen from its first."""
    out = np.zeros((len(starts) - 1, 3))
    for p in range(len(starts) - 1):
        first = points[starts[p]]
        for n in range(starts[p] + 1, starts[p + 1] - 1):
            ax, ay, az = points[n, 0] - first[0], points[n, 1] - first[1], points[n, 2] - first[2]
            bx, by, bz = points[n + 1, 0] - first[0], points[n + 1, 1] - first[1], points[n + 1, 2] - first[2]
            out[p, 0] += 0.5 * (ay * bz - az * by)
            out[p, 1] += 0.5 * (az * bx - ax * bz)
            out[p, 2] += 0.5 * (ax * by - ay * bx)
    return out
