"""Exact distance from points to a set of triangles (or segments), by a tree of boxes.

Triangles are sorted along a Morton curve, four to a leaf, and the leaves are paired upwards into a complete binary tree of boxes.
A point visits the nearer box first and leaves out every box farther than the best triangle so far. The answer is exact: the distance to
the closest point *of the triangles*, not to their corners.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LEAF = 4


def distances(points_mm: Floats, triangles_mm: Floats) -> Floats:
    """(n,) distance of each of the (n, 3) points to the closest point of the (m, 3, 3) triangles; ``inf`` where there is no triangle.

    A segment is a triangle whose second and third corner coincide. Points that follow one another in space are found faster.
    """
    if not len(triangles_mm):
        return np.full(len(points_mm), np.inf)
    if not len(points_mm):
        return np.empty(0)
    ordered, low, high = tree_of(triangles_mm, _LEAF)
    return np.asarray(_search(np.ascontiguousarray(points_mm), ordered, low, high, _LEAF))


def tree_of(triangles_mm: Floats, leaf: int) -> tuple[Floats, Floats, Floats]:
    """The (m, 3, 3) triangles (at least one) in the order of the tree's leaves, ``leaf`` to a leaf, and the low and high corner of each
    node's box: node n has children 2n + 1 and 2n + 2."""
    ordered = np.ascontiguousarray(triangles_mm[_morton_order(triangles_mm)])
    low, high = _boxes(ordered, leaf)
    return ordered, low, high


def _morton_order(triangles_mm: Floats) -> NDArray[np.intp]:
    """Order of the triangles along a space-filling curve of 2^10 steps an axis."""
    centre = triangles_mm.mean(axis=1)
    low = centre.min(axis=0)
    step = max(float((centre.max(axis=0) - low).max()), 1e-9) / 1023
    spread = ((centre - low) / step).astype(np.uint32)
    code = np.zeros(len(centre), np.uint32)
    for axis in range(3):
        x = spread[:, axis]
        for shift, keep in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
            x = (x | x << np.uint32(shift)) & np.uint32(keep)
        code |= x << np.uint32(2 - axis)
    return np.argsort(code, kind="stable")


@njit(cache=True, nogil=True)
def _boxes(triangles, leaf):  # type: ignore[no-untyped-def]  # numba infers the types
    """Boxes (nodes, 3) of a complete binary tree: node n has children 2n + 1 and 2n + 2, the last level holds the leaves."""
    leaves = 1
    while leaves * leaf < len(triangles):
        leaves *= 2
    low = np.full((2 * leaves - 1, 3), np.inf)
    high = np.full((2 * leaves - 1, 3), -np.inf)
    for t in range(len(triangles)):
        node = leaves - 1 + t // leaf
        for corner in range(3):
            for axis in range(3):
                low[node, axis] = min(low[node, axis], triangles[t, corner, axis])
                high[node, axis] = max(high[node, axis], triangles[t, corner, axis])
    for node in range(leaves - 2, -1, -1):
        for axis in range(3):
            low[node, axis] = min(low[2 * node + 1, axis], low[2 * node + 2, axis])
            high[node, axis] = max(high[2 * node + 1, axis], high[2 * node + 2, axis])
    return low, high


@njit(cache=True, nogil=True)
def _to_box(p, low, high):  # type: ignore[no-untyped-def]
    """Squared distance of a point to a box; inf for the empty boxes that fill the tree up."""
    total = 0.0
    for axis in range(3):
        gap = max(low[axis] - p[axis], p[axis] - high[axis], 0.0)
        total += gap * gap
    return total


@njit(cache=True, nogil=True)
def closest(bx, by, bz, cx, cy, cz, px, py, pz):  # type: ignore[no-untyped-def]
    """Weights (v, w) of the edges b and c, to the corners 1 and 2 of a triangle, at its point closest to p, all from the corner 0: Ericson,
    Real-Time Collision Detection (2005), section 5.1.5."""
    bp, cp = bx * px + by * py + bz * pz, cx * px + cy * py + cz * pz
    bb, bc, cc = bx * bx + by * by + bz * bz, bx * cx + by * cy + bz * cz, cx * cx + cy * cy + cz * cz
    d3, d4, d5, d6 = bp - bb, cp - bc, bp - bc, cp - cc
    vc, vb, va = bp * d4 - d3 * cp, d5 * cp - bp * d6, d3 * d6 - d5 * d4
    v, w = 0.0, 0.0
    if bp <= 0 and cp <= 0:
        pass
    elif d3 >= 0 and d4 <= d3:
        v = 1.0
    elif vc <= 0 and bp >= 0 and d3 <= 0 and bb > 0:
        v = bp / (bp - d3)
    elif d6 >= 0 and d5 <= d6:
        w = 1.0
    elif vb <= 0 and cp >= 0 and d6 <= 0 and cc > 0:
        w = cp / (cp - d6)
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0 and d4 - d3 + d5 - d6 > 0:
        w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        v = 1 - w
    elif va + vb + vc > 0:
        v, w = vb / (va + vb + vc), vc / (va + vb + vc)
    return v, w


@njit(cache=True, nogil=True)
def _to_triangle(p, t):  # type: ignore[no-untyped-def]
    """Squared distance of point p to triangle t (3, 3)."""
    bx, by, bz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
    cx, cy, cz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
    px, py, pz = p[0] - t[0, 0], p[1] - t[0, 1], p[2] - t[0, 2]
    v, w = closest(bx, by, bz, cx, cy, cz, px, py, pz)
    x, y, z = px - v * bx - w * cx, py - v * by - w * cy, pz - v * bz - w * cz
    return x * x + y * y + z * z


@njit(cache=True, nogil=True)
def _search(points, triangles, low, high, leaf):  # type: ignore[no-untyped-def]
    first_leaf = (len(low) + 1) // 2 - 1
    out = np.empty(len(points))
    stack = np.empty(64, np.int64)
    gaps = np.empty(64)
    winner = 0
    for n in range(len(points)):
        p = points[n]
        best = _to_triangle(p, triangles[winner])  # neighbours in space have neighbouring answers: a good first bound
        stack[0], gaps[0], depth = 0, _to_box(p, low[0], high[0]), 1
        while depth:
            depth -= 1
            node = stack[depth]
            if gaps[depth] >= best:
                continue
            if node >= first_leaf:
                start = (node - first_leaf) * leaf
                for t in range(start, min(start + leaf, len(triangles))):
                    d = _to_triangle(p, triangles[t])
                    if d < best:
                        best, winner = d, t
                continue
            a, b = 2 * node + 1, 2 * node + 2
            gap_a, gap_b = _to_box(p, low[a], high[a]), _to_box(p, low[b], high[b])
            if gap_a < gap_b:  # the nearer one on top
                a, b, gap_a, gap_b = b, a, gap_b, gap_a
            if gap_a < best:
                stack[depth], gaps[depth] = a, gap_a
                depth += 1
            if gap_b < best:
                stack[depth], gaps[depth] = b, gap_b
                depth += 1
        out[n] = np.sqrt(best)
    return out
