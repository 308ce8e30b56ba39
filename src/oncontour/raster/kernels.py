"""The compiled loops of filling and tracing. Pixel (row, column) is the unit square centred on (row, column).

Coverage: Heckbert-style area accumulation as font rasterisers do it (each edge adds its area to the pixels of its rows; a running sum
along the row gives the covered area). Whether inside begins or ends at an edge is told by its place among the edges beside it, strip by
strip from one end of an edge to the next, and changes where edges cross: even-odd, exact whatever crosses, touches or lies in what.
Tracing: marching squares (Lorensen & Cline 1987 in two dimensions), 4-connected inside.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
MOST_STEPS, MOST_STEPS_A_PIECE = 2**24, 64
"""Steps of filling one plane: so many in all, and so many more for each piece of outline within a row of pixels. What a person or a
segmenter draws takes three to ten a piece."""


# ---- filling


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
def signed_area(points: Floats, start: int, stop: int) -> float:
    """Shoelace area of points[start:stop] (row, column), positive when it turns from row to column."""
    total = 0.0
    r0, c0 = points[start, 0], points[start, 1]
    for n in range(start, stop):
        m = n + 1 if n + 1 < stop else start
        total += (points[n, 0] - r0) * (points[m, 1] - c0) - (points[m, 0] - r0) * (points[n, 1] - c0)
    return 0.5 * total


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


# ---- tracing


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
