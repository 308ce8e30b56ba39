"""The compiled loops that count grey levels beside each other.

All walk over a padded, flattened array of grey levels (uint16) in which 0 is outside: ``flat[v - step]`` is a neighbour without asking for
the edge. The region is given as spans of consecutive voxels, from ``starts`` up to, not including, ``stops``, in rising order. A whole
plane of voxels is compared at once where that needs no branch, so that the processor does many at a time; only counting is one by one.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

Flat: TypeAlias = NDArray[np.uint16]
Indices: TypeAlias = NDArray[np.int64]


@njit(cache=True, nogil=True)
def pairs_and_runs(
    flat: Flat, starts: Indices, stops: Indices, offsets: Indices, table_of: Indices, tables: int, levels: int, longest: int
) -> NDArray[np.uint32]:
    """(tables, levels + 1, levels + 1 + longest) voxels of each level by what lies one offset before them.

    A column up to ``levels`` is the other level there (0 outside). Column ``levels + n`` holds voxels that follow n of their own level:
    the pairs of equal levels, and, as a run of m voxels has one voxel after 1, 2, ... m - 1 others, the lengths of all runs. ``table_of``
    names the table that each offset is counted in.
    """
    width = levels + 1 + longest
    counts = np.zeros((tables, (levels + 1) * width), np.uint32)
    first, last = starts[0], stops[-1]
    code = np.empty(last - first, np.uint16)
    beyond, wide = np.uint16(levels), np.uint64(width)
    for d in range(len(offsets)):
        step, table = offsets[d], counts[table_of[d]]
        if step == 1:
            run = np.uint16(0)
            for v in range(first, last):
                same = flat[v] == flat[v - 1]
                run = np.uint16(run + 1) if same else np.uint16(0)
                code[v - first] = np.uint16(beyond + run) if same else flat[v - 1]
        earlier = np.zeros(step, np.uint16)
        for at in range(first, last if step > 1 else first, step):
            n = min(step, last - at)
            here, there, coded = flat[at : at + n], flat[at - step : at - step + n], code[at - first : at - first + n]
            for i in range(n):
                same = here[i] == there[i]
                run = np.uint16(earlier[i] + 1)
                earlier[i] = run if same else np.uint16(0)
                coded[i] = np.uint16(beyond + run) if same else there[i]
        for s in range(len(starts)):
            level, column = flat[starts[s] : stops[s]], code[starts[s] - first : stops[s] - first]
            for i in range(len(level)):
                table[level[i] * wide + column[i]] += np.uint32(1)
    return counts.reshape(tables, levels + 1, width)


@njit(cache=True, nogil=True)
def alike(flat: Flat, first: int, last: int, offsets: Indices) -> tuple[Flat, NDArray[np.uint8]]:
    """For the voxels from ``first`` to ``last``: bit d says that the one ``offsets[d]`` before has the same level; and how many of
    those before and after have.
    """
    before = np.zeros(last - first, np.uint16)
    number = np.zeros(last - first, np.uint8)
    here = flat[first:last]
    for d in range(len(offsets)):
        step, bit = offsets[d], np.uint16(1 << d)
        low, high = flat[first - step : last - step], flat[first + step : last + step]
        for i in range(len(here)):
            same = here[i] == low[i]
            before[i] |= bit if same else np.uint16(0)
            number[i] += np.uint8(same) + np.uint8(here[i] == high[i])
    return before, number


@njit(cache=True, nogil=True)
def representatives(touching: Flat) -> Flat:
    """For each set of neighbours (as bits) one of every group of touching ones: up to four numbers from 1, four bits each, the first
    the lowest. ``touching[d]``: those that touch d, as bits.
    """
    out = np.zeros(1 << len(touching), np.uint16)
    for held in range(len(out)):
        left, place = held, 0
        while left:
            group, grown = 0, left & -left
            while grown != group:
                group = grown
                for d in range(len(touching) - 1, -1, -1):
                    if group >> d & 1:
                        grown |= touching[d] & held
                        lowest = d
            out[held] |= np.uint16((lowest + 1) << place)
            left, place = left & ~group, place + 4
    return out


@njit(cache=True, nogil=True)
def _root(parent: NDArray[np.int32], at: int) -> int:
    """The label that ``at`` was joined to in the end; halves the way for the next."""
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = parent[at]
    return at


@njit(cache=True, nogil=True)
def zones(
    flat: Flat, starts: Indices, stops: Indices, offsets: Indices, before: Flat, distance: Flat, one_of_each: Flat
) -> NDArray[np.int64]:
    """(zones, 4) of connected voxels of one level: level, size, least ``distance``, first voxel; in the order of the first voxels.

    Union and find over ``before`` (of ``alike``): neighbours of one level that touch each other are in one zone already, so that
    ``one_of_each`` (of ``representatives``) is asked only.
    """
    base = starts[0]
    most = (stops - starts).sum()
    label = np.empty(stops[-1], np.int32)
    parent, size = np.empty(most, np.int32), np.empty(most, np.int32)
    near, first = np.empty(most, np.int32), np.empty(most, np.int32)
    back = np.zeros(16, np.int64)
    back[1 : len(offsets) + 1] = offsets
    total = 0
    for s in range(len(starts)):
        for v in range(starts[s], stops[s]):
            left, far = np.int64(one_of_each[before[v - base]]), np.int32(distance[v])
            if not left:
                parent[total], size[total], near[total], first[total], label[v] = total, 1, far, v, total
                total += 1
                continue
            mine = _root(parent, label[v - back[left & 15]])
            left >>= 4
            while left:
                other = _root(parent, label[v - back[left & 15]])
                left >>= 4
                if other != mine:
                    keep, drop = min(mine, other), max(mine, other)
                    parent[drop] = keep
                    size[keep] += size[drop]
                    near[keep] = min(near[keep], near[drop])
                    mine = keep
            label[v] = mine
            size[mine] += 1
            near[mine] = min(near[mine], far)
    found = np.empty((total, 4), np.int64)
    many = 0
    for n in range(total):
        if parent[n] == n:
            found[many, 0], found[many, 1], found[many, 2], found[many, 3] = flat[first[n]], size[n], near[n], first[n]
            many += 1
    return found[:many].copy()


@njit(cache=True, nogil=True)
def border_distance(starts: Indices, stops: Indices, size: int, strides: Indices) -> Flat:
    """City-block steps from each inside voxel of a padded mask of ``size`` voxels, given as spans, to the nearest outside one.

    ``strides``: of the further axes to step along, the row's and the plane's (without the latter each slice by itself).
    """
    steps = np.zeros(size, np.uint16)
    for s in range(len(starts)):
        span = steps[starts[s] : stops[s]]
        for i in range(len(span)):
            span[i] = min(i + 1, len(span) - i)
    for stride in strides:
        for way in (1, -1):
            least = np.zeros(stride, np.uint16)
            for n in range(size // stride):
                at = n * stride if way > 0 else size - (n + 1) * stride
                here = steps[at : at + stride]
                for i in range(stride):
                    least[i] = min(here[i], np.uint16(least[i] + 1))
                    here[i] = least[i]
    return steps


@njit(cache=True, nogil=True)
def surroundings(flat: Flat, first: int, last: int, columns: Indices) -> NDArray[np.uint32]:
    """For the voxels from ``first`` to ``last``: the sum of their neighbours' levels, and in the bits from 20 on how many are inside.

    ``columns``: offsets to the voxels above, below and at the sides in one column of the row, 0 among them.
    """
    packed = np.empty(len(flat), np.uint32)
    for i in range(len(flat)):
        packed[i] = np.uint32(flat[i]) + (np.uint32(1 << 20) if flat[i] else np.uint32(0))
    held = np.zeros(last - first + 2, np.uint32)
    for offset in columns:
        source = packed[first - 1 + offset : last + 1 + offset]
        for i in range(len(held)):
            held[i] += source[i]
    here = packed[first:last]
    for i in range(len(here)):
        here[i] = held[i] + held[i + 1] + held[i + 2] - here[i]
    return here


@njit(cache=True, nogil=True)
def tones(
    flat: Flat, starts: Indices, stops: Indices, rows: Indices, around: NDArray[np.uint32], levels: int, matrices: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(matrices, levels) voxels with a neighbour, and the sum of how far they lie from the mean of their neighbours (``surroundings``).

    ``rows``: the matrix that each span is counted in.
    """
    counted = np.zeros((matrices, levels + 1), np.int64)
    differences = np.zeros((matrices, levels + 1), np.float64)
    base = starts[0]
    for s in range(len(starts)):
        here, other = flat[starts[s] : stops[s]], around[starts[s] - base : stops[s] - base]
        number, difference = counted[rows[s]], differences[rows[s]]
        for i in range(len(here)):
            inside = other[i] >> 20
            if inside:
                number[here[i]] += 1
                difference[here[i]] += abs(here[i] - (other[i] & 0xFFFFF) / inside)
    return counted[:, 1:], differences[:, 1:]


@njit(cache=True, nogil=True)
def dependence(
    flat: Flat, starts: Indices, stops: Indices, rows: Indices, number: NDArray[np.uint8], levels: int, matrices: int, most: int
) -> NDArray[np.int32]:
    """(matrices, levels, most + 1) voxels by level and ``number`` of neighbours of the same level (``alike``)."""
    counts = np.zeros((matrices, levels + 1, most + 1), np.int32)
    base = starts[0]
    for s in range(len(starts)):
        table, column = counts[rows[s]], number[starts[s] - base : stops[s] - base]
        here = flat[starts[s] : stops[s]]
        for i in range(len(here)):
            table[here[i], column[i]] += 1
    return counts[:, 1:]
