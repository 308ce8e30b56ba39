"""How far points lie from a surface where each direction has its own unit: one margin for each side of the patient.

A margin by direction is a body round every point: eight eighths of ellipsoids, whose half-axes are the margins of the sides that meet
there. A step v from the surface costs sqrt((v_x / m_x)^2 + (v_y / m_y)^2 + (v_z / m_z)^2), m the margin on the side that v points to;
what costs at most 1 lies within the margin (the body's gauge, which is convex). Source: an ellipsoid moved along the surface, as Stroom and
Storchi have it (Phys Med Biol 1997, 42:745); *differs:* half-axes of their own for the two sides of an axis.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oncontour.metrics.nearest import closest, tree_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEAST_MM = 1e-3
"""What a margin of zero counts as: dividing by it makes every step that way too long."""
_LEAF = 4
_TRIES = 8
_ONE = 1.0 + 1e-12


def costs(points_mm: Floats, triangles_mm: Floats, up_mm: Floats, down_mm: Floats) -> Floats:
    """(n,) the least cost of a step from the (m, 3, 3) triangles to each of the (n, 3) points; ``inf`` where there is no triangle.

    ``up_mm``, ``down_mm`` (3,): the margin towards growing and towards falling values of each coordinate.
    """
    if not len(triangles_mm):
        return np.full(len(points_mm), np.inf)
    if not len(points_mm):
        return np.empty(0)
    ordered, low, high = tree_of(triangles_mm, _LEAF)
    up, down = (1 / np.maximum(mm, LEAST_MM) for mm in (up_mm, down_mm))
    return np.asarray(_search(np.ascontiguousarray(points_mm), ordered, low, high, _LEAF, up, down, np.inf))


def within(points_mm: Floats, triangles_mm: Floats, up_mm: Floats, down_mm: Floats) -> Bools:
    """(n,) whether the least cost of a step (``costs``) is at most 1: sooner known than the cost itself."""
    if not len(triangles_mm) or not len(points_mm):
        return np.zeros(len(points_mm), bool)
    ordered, low, high = tree_of(triangles_mm, _LEAF)
    up, down = (1 / np.maximum(mm, LEAST_MM) for mm in (up_mm, down_mm))
    return np.asarray(_search(np.ascontiguousarray(points_mm), ordered, low, high, _LEAF, up, down, _ONE) < np.sqrt(_ONE))


@njit(cache=True, nogil=True)
def _cost(x, y, z, up, down):  # type: ignore[no-untyped-def]  # numba infers the types
    """Squared cost of the step (x, y, z)."""
    a = x * (up[0] if x > 0 else down[0])
    b = y * (up[1] if y > 0 else down[1])
    c = z * (up[2] if z > 0 else down[2])
    return a * a + b * b + c * c


@njit(cache=True, nogil=True)
def _to_box(p, low, high, up, down):  # type: ignore[no-untyped-def]
    """Squared cost of the step from a box to p; inf for the empty boxes that fill the tree up."""
    total = 0.0
    for axis in range(3):
        gap = 0.0
        if p[axis] > high[axis]:
            gap = (p[axis] - high[axis]) * up[axis]
        elif p[axis] < low[axis]:
            gap = (low[axis] - p[axis]) * down[axis]
        total += gap * gap
    return total


@njit(cache=True, nogil=True)
def _closest(p, t, sx, sy, sz):  # type: ignore[no-untyped-def]
    """Weights (v, w) of the corners 1 and 2 of the point of triangle t closest to p, coordinates scaled."""
    bx, by, bz = (t[1, 0] - t[0, 0]) * sx, (t[1, 1] - t[0, 1]) * sy, (t[1, 2] - t[0, 2]) * sz
    cx, cy, cz = (t[2, 0] - t[0, 0]) * sx, (t[2, 1] - t[0, 1]) * sy, (t[2, 2] - t[0, 2]) * sz
    px, py, pz = (p[0] - t[0, 0]) * sx, (p[1] - t[0, 1]) * sy, (p[2] - t[0, 2]) * sz
    return closest(bx, by, bz, cx, cy, cz, px, py, pz)


@njit(cache=True, nogil=True)
def _to_triangle(p, t, up, down):  # type: ignore[no-untyped-def]
    """Squared cost of the cheapest step from triangle t to p: the closest point with the units of the side that the step points to,
    until that side does not change. The cost is convex, and every try a bound from above."""
    x = p[0] - (t[0, 0] + t[1, 0] + t[2, 0]) / 3
    y = p[1] - (t[0, 1] + t[1, 1] + t[2, 1]) / 3
    z = p[2] - (t[0, 2] + t[1, 2] + t[2, 2]) / 3
    best = np.inf
    for _ in range(_TRIES):
        sx, sy, sz = up[0] if x > 0 else down[0], up[1] if y > 0 else down[1], up[2] if z > 0 else down[2]
        v, w = _closest(p, t, sx, sy, sz)
        x = p[0] - t[0, 0] - v * (t[1, 0] - t[0, 0]) - w * (t[2, 0] - t[0, 0])
        y = p[1] - t[0, 1] - v * (t[1, 1] - t[0, 1]) - w * (t[2, 1] - t[0, 1])
        z = p[2] - t[0, 2] - v * (t[1, 2] - t[0, 2]) - w * (t[2, 2] - t[0, 2])
        best = min(best, _cost(x, y, z, up, down))
        same_x = sx == (up[0] if x > 0 else down[0])
        if same_x and sy == (up[1] if y > 0 else down[1]) and sz == (up[2] if z > 0 else down[2]):
            break
    return best


@njit(cache=True, nogil=True)
def _aside(p, t, up, down):  # type: ignore[no-untyped-def]
    """Squared cost of the step from the box round triangle t to p: at most that of the triangle itself, and sooner told."""
    total = 0.0
    for axis in range(3):
        gap = 0.0
        over, under = p[axis] - max(t[0, axis], t[1, axis], t[2, axis]), min(t[0, axis], t[1, axis], t[2, axis]) - p[axis]
        if over > 0:
            gap = over * up[axis]
        elif under > 0:
            gap = under * down[axis]
        total += gap * gap
    return total


@njit(cache=True, nogil=True)
def _search(points, triangles, low, high, leaf, up, down, limit):  # type: ignore[no-untyped-def]
    """The least cost for each point. Below a finite ``limit`` (squared) the first that is found is enough; where none is, its root."""
    first_leaf = (len(low) + 1) // 2 - 1
    out = np.empty(len(points))
    stack = np.empty(64, np.int64)
    gaps = np.empty(64)
    winner = 0
    for n in range(len(points)):
        p = points[n]
        best = min(limit, _to_triangle(p, triangles[winner], up, down))  # neighbours in space have neighbouring answers
        stack[0], gaps[0], depth = 0, _to_box(p, low[0], high[0], up, down), 1
        while depth and (limit == np.inf or best >= limit):
            depth -= 1
            node = stack[depth]
            if gaps[depth] >= best:
                continue
            if node >= first_leaf:
                start = (node - first_leaf) * leaf
                for t in range(start, min(start + leaf, len(triangles))):
                    if _aside(p, triangles[t], up, down) >= best:
                        continue
                    d = _to_triangle(p, triangles[t], up, down)
                    if d < best:
                        best, winner = d, t
                continue
            a, b = 2 * node + 1, 2 * node + 2
            gap_a, gap_b = _to_box(p, low[a], high[a], up, down), _to_box(p, low[b], high[b], up, down)
            if gap_a < gap_b:
                a, b, gap_a, gap_b = b, a, gap_b, gap_a
            if gap_a < best:
                stack[depth], gaps[depth] = a, gap_a
                depth += 1
            if gap_b < best:
                stack[depth], gaps[depth] = b, gap_b
                depth += 1
        out[n] = np.sqrt(best)
    return out
