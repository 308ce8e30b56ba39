"""The compiled loops that count grey levels beside each other.

All walk over a padded, flattened array of grey levels in which 0 is outside: ``flat[v + offset]`` is a neighbour without asking for the
edge. ``voxels`` are the flat indices of the region's voxels in rising order, ``rows`` says to which matrix each voxel's count goes (its
slice in 2D, 0 in 3D).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Indices = NDArray[np.int64]


@njit(cache=True, nogil=True)
def cooccurrence(flat: Ints, voxels: Indices, offsets: Indices, levels: int) -> Any:
    """(directions, levels, levels) pairs of a voxel and its neighbour one offset further, one way only."""
    counts = np.zeros((len(offsets), levels, levels), np.int32)
    for v in voxels:
        here = flat[v] - 1
        for d in range(len(offsets)):
            there = flat[v + offsets[d]]
            if there > 0:
                counts[d, here, there - 1] += 1
    return counts


@njit(cache=True, nogil=True)
def runs(flat: Ints, voxels: Indices, offsets: Indices, levels: int, longest: int) -> Any:
    """(directions, levels, longest) maximal runs of one level along each offset; column n counts runs of n + 1 voxels."""
    counts = np.zeros((len(offsets), levels, longest), np.int32)
    for d in range(len(offsets)):
        step = offsets[d]
        for v in voxels:
            level = flat[v]
            if flat[v - step] == level:
                continue
            length, at = 0, v + step
            while flat[at] == level:
                length += 1
                at += step
            counts[d, level - 1, length] += 1
    return counts


@njit(cache=True, nogil=True)
def zones(flat: Ints, voxels: Indices, offsets: Indices, distance: Ints) -> Any:
    """(zones, 4) of connected voxels of one level: level, size, least ``distance``, first voxel; ``offsets`` lead both ways."""
    seen = np.zeros(len(flat), np.bool_)
    stack = np.empty(len(voxels), np.int64)
    found = np.empty((len(voxels), 4), np.int64)
    total = 0
    for first in voxels:
        if seen[first]:
            continue
        level, size, near, height = flat[first], 0, distance[first], 1
        seen[first], stack[0] = True, first
        while height:
            height -= 1
            v = stack[height]
            size += 1
            near = min(near, distance[v])
            for offset in offsets:
                there = v + offset
                if flat[there] == level and not seen[there]:
                    seen[there], stack[height] = True, there
                    height += 1
        found[total, 0], found[total, 1], found[total, 2], found[total, 3] = level, size, near, first
        total += 1
    return found[:total].copy()


@njit(cache=True, nogil=True)
def border_distance(inside: NDArray[np.bool_], slicewise: bool) -> Any:
    """City-block steps from each inside voxel of a padded (k, j, i) mask to the nearest outside one; ``slicewise``: in its slice."""
    nk, nj, ni = inside.shape
    far = np.int32(nk + nj + ni)
    steps = np.where(inside, far, np.int32(0)).astype(np.int32)
    for k in range(nk):
        for j in range(nj):
            for i in range(ni):
                if inside[k, j, i]:
                    least = min(steps[k, j - 1, i], steps[k, j, i - 1])
                    if not slicewise:
                        least = min(least, steps[k - 1, j, i])
                    steps[k, j, i] = least + 1
    for k in range(nk - 1, -1, -1):
        for j in range(nj - 1, -1, -1):
            for i in range(ni - 1, -1, -1):
                if inside[k, j, i]:
                    least = min(steps[k, j + 1, i], steps[k, j, i + 1])
                    if not slicewise:
                        least = min(least, steps[k + 1, j, i])
                    steps[k, j, i] = min(steps[k, j, i], least + 1)
    return steps


@njit(cache=True, nogil=True)
def neighbourhoods(flat: Ints, voxels: Indices, rows: Indices, offsets: Indices, levels: int, matrices: int) -> Any:
    """What surrounds the voxels of each level, in one pass for two families.

    Gives (matrices, levels) voxels with a neighbour, (matrices, levels) sums of how far they lie from their neighbours' mean, and
    (matrices, levels, neighbours + 1) voxels with so many neighbours of their own level.
    """
    counted = np.zeros((matrices, levels), np.int64)
    differences = np.zeros((matrices, levels), np.float64)
    dependence = np.zeros((matrices, levels, len(offsets) + 1), np.int32)
    for n in range(len(voxels)):
        v, row = voxels[n], rows[n]
        level = flat[v]
        total, around, alike = 0, 0, 0
        for offset in offsets:
            there = flat[v + offset]
            if there > 0:
                total += there
                around += 1
                if there == level:
                    alike += 1
        dependence[row, level - 1, alike] += 1
        if around:
            counted[row, level - 1] += 1
            differences[row, level - 1] += abs(level - total / around)
    return counted, differences, dependence
