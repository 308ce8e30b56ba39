"""The surface of a mask where it crosses one half, as triangles and as contours a slice: finer than voxels.

Cells are the boxes between eight neighbouring voxel centres. Where one end of a cell's edge is inside (>= 0.5) and the other is not,
the surface crosses the edge, at the place linear interpolation gives: the middle for a bool mask, closer for partial coverage.
The crossings of a cell form closed loops, the loops are triangulated (marching cubes, Lorensen and Cline, SIGGRAPH 1987).
*Differs:* the table of 256 cases is derived here instead of typed. On a face with two diagonal inside corners these are always kept
apart, so neighbouring cells agree and the surface is closed. Beyond the grid's edge is outside: a mask cut by the edge is closed there.

Where on the edge? For partial coverage linear interpolation tells. A bool mask only says "between these two", and taking the middle
makes stairs, whose teeth bring any two surfaces 0.1 to 0.2 voxel too near. So stairs are ironed first (``_ironed``): a narrow
low-pass that keeps planes, and to second order curvature, in place; every voxel centre stays on the side the mask says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oncontour.core.boxes import box_of
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]

_LOW_PASS = np.array([-1, -8, 4, 72, 122, 72, 4, -8, -1], np.float32) / 256
"""2 b - b * b for the binomial b = (1, 4, 6, 4, 1) / 16: sums to one, second moment zero (a sphere does not shrink to second order)."""
_LEAST_STEP = np.float32(0.02)
"""How far from one half a voxel centre stays at least after ironing."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface: ``vertices_mm`` (n, 3) along the grid's own (k, j, i) from voxel (0, 0, 0); ``triangles`` (m, 3) into them."""

    vertices_mm: Floats
    triangles: Indices

    @cached_property
    def corners_mm(self) -> Floats:
        """(m, 3, 3) corners of each triangle."""
        return self.vertices_mm[self.triangles]

    @cached_property
    def triangle_mm2(self) -> Floats:
        """(m,) area of each triangle."""
        a, b, c = self.corners_mm.transpose(1, 0, 2)
        return np.asarray(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1))

    @cached_property
    def vertex_mm2(self) -> Floats:
        """(n,) the area that each vertex stands for: a third of every triangle around it."""
        share = np.repeat(self.triangle_mm2 / 3, 3)
        return np.bincount(self.triangles.ravel(), share, len(self.vertices_mm)).astype(np.float64)

    @property
    def area_mm2(self) -> float:
        return float(self.triangle_mm2.sum())

    @property
    def volume_mm3(self) -> float:
        """What the surface encloses (divergence theorem)."""
        a, b, c = self.corners_mm.transpose(1, 0, 2)
        return float(np.einsum("ni,ni->n", a, np.cross(b, c)).sum() / 6)


@dataclass(frozen=True, eq=False)
class Segments:
    """Contours as short lines: ``ends_mm`` (m, 2, 2) of (j, i) in mm from voxel (0, 0); ``slices`` (m,) the slice k of each."""

    ends_mm: Floats
    slices: NDArray[np.int64]

    @cached_property
    def lengths_mm(self) -> Floats:
        return np.asarray(np.linalg.norm(self.ends_mm[:, 1] - self.ends_mm[:, 0], axis=1))


def isosurface(mask: Volume) -> tuple[Mesh, Segments]:
    """The surface of a bool or coverage ``mask``, and its contours slice by slice; both empty for an empty mask.

    Contours are found in each slice on its own, as they are drawn. Raises InputError for values that are not finite or for channels.
    """
    values, start = _padded_crop(mask)
    spacing = np.asarray(mask.geometry.spacing_mm)
    in_plane = values
    if _is_binary(mask.array, values):
        values, in_plane = _ironed(values)
    vertices, triangles = _march_cubes(values, _COUNTS, _TABLE, int(_count_triangles(values, _COUNTS)))
    ends, slices = _march_squares(in_plane)
    mesh = Mesh((vertices + start) * spacing, triangles)
    return mesh, Segments((ends + start[1:]) * spacing[1:], slices + int(start[0]))


def surface_at_zero(level: Volume) -> Mesh:
    """The surface where ``level`` (three axes, at most 0 inside) crosses zero, by linear interpolation along the grid's edges. Open where
    the inside reaches the grid's edge: what lies beyond is not known."""
    values = np.float32(0.5) - level.array.astype(np.float32)
    vertices, triangles = _march_cubes(values, _COUNTS, _TABLE, int(_count_triangles(values, _COUNTS)))
    return Mesh(vertices * np.asarray(level.geometry.spacing_mm), triangles)


def smooth_slices(mask: Volume) -> tuple[NDArray[np.float32], Floats]:
    """A bool ``mask`` as values whose crossing of one half is its contour in each slice, without stairs (``isosurface``), and the (k, j, i)
    of the first of them on the mask's grid. A rim of outside is round them. Raises InputError for channels."""
    values, start = _padded_crop(mask.binary())
    return _ironed(values)[1], start


def _padded_crop(mask: Volume) -> tuple[NDArray[np.float32], Floats]:
    """Float voxels around the mask with a rim of outside, and the (k, j, i) of their first voxel on the mask's grid."""
    array = mask.array
    if array.ndim != 3:
        raise InputError(f"a mask has three axes (k, j, i), not {array.ndim}", hint="pass one structure at a time")
    if array.dtype != bool and not np.isfinite(array).all():
        raise InputError("a mask holds values that are not finite")
    inside = array if array.dtype == bool else array >= 0.5
    box = box_of(inside)
    if box is None:
        return np.zeros((2, 2, 2), np.float32), np.zeros(3)
    # one voxel around the inside is needed for interpolation, where the grid has it
    wide = [slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, array.shape, strict=True)]
    low = [w.start - (s.start - 1) for w, s in zip(wide, box, strict=True)]
    out = np.zeros([s.stop - s.start + 2 for s in box], np.float32)
    out[tuple(slice(b, b + w.stop - w.start) for b, w in zip(low, wide, strict=True))] = array[tuple(wide)]
    return out, np.array([s.start - 1 for s in box], dtype=np.float64)


def _is_binary(array: Array, values: NDArray[np.float32]) -> bool:
    return not np.issubdtype(array.dtype, np.floating) or bool(((values == 0) | (values == 1)).all())


def _ironed(mask: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A 0/1 mask as values whose crossing of one half is smooth and lies between the same voxel centres: in space, and slice by slice.

    Where the low-pass would put a voxel on the other side (a plate of one slice, a spike, a thin straw) its side is kept
    (``_keep_sides``), so nothing vanishes or becomes thinner. A plane along the grid stays in the middle exactly, and a mask moved by
    whole voxels gives the same surface moved.
    """
    planes = _low_pass_in_plane(mask, _LOW_PASS)
    space = _low_pass_across(planes, _LOW_PASS)
    return _keep_sides(mask, space, _LEAST_STEP, 0), _keep_sides(mask, planes, _LEAST_STEP, 1)


# ---- the table: code of the eight corners -> triangles on the cell's edges. Corner c lies at (c >> 2 & 1, c >> 1 & 1, c & 1).


def _edges() -> list[tuple[int, int]]:
    """The 12 edges as (low corner, high corner), axis k first: edge number = 4 * axis + rank of the low corner."""
    return [(c, c | 4 >> axis) for axis in range(3) for c in range(8) if not c & 4 >> axis]


def _faces() -> list[list[int]]:
    """The 6 faces as corners in counter-clockwise order seen from outside."""
    faces = []
    for axis in range(3):
        a, b, c = (4 >> (axis + n) % 3 for n in range(3))
        ring = [0, b, b | c, c]
        faces += [ring[::-1], [corner | a for corner in ring]]
    return faces


def _loops(code: int) -> list[list[int]]:
    """The closed loops of crossed edges for the corners set in ``code``."""
    number = {frozenset(edge): n for n, edge in enumerate(_edges())}
    following: dict[int, int] = {}
    for face in _faces():
        sides = pairwise([*face, face[0]])
        crossed = [(number[frozenset((a, b))], code >> b & 1) for a, b in sides if (code >> a ^ code >> b) & 1]
        if not crossed:
            continue
        while not crossed[0][1]:  # begin where the ring enters the inside: each run of inside corners is cut off by one segment
            crossed = crossed[1:] + crossed[:1]
        following.update({crossed[n][0]: crossed[n + 1][0] for n in range(0, len(crossed), 2)})
    loops = []
    while following:
        loop = [min(following)]
        while (after := following.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(loop)
    return loops


def _fan(loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles of a loop, from the corner that gives the least area with every crossing in the middle of its edge."""
    corner = [np.array([c >> 2 & 1, c >> 1 & 1, c & 1], dtype=float) for c in range(8)]
    middle = [(corner[a] + corner[b]) / 2 for a, b in _edges()]

    def area(fan: list[tuple[int, int, int]]) -> float:
        return round(sum(float(np.linalg.norm(np.cross(middle[b] - middle[a], middle[c] - middle[a]))) for a, b, c in fan), 9)

    turns = [loop[first:] + loop[:first] for first in range(len(loop))]
    return min(([(turn[0], b, c) for b, c in pairwise(turn[1:])] for turn in turns), key=area)


def _build_table() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    cases = [[triangle for loop in _loops(code) for triangle in _fan(loop)] for code in range(256)]
    table = np.full((256, max(len(case) for case in cases), 3), -1, np.int8)
    for code, case in enumerate(cases):
        table[code, : len(case)] = np.array(case, np.int8).reshape(-1, 3)
    return np.array([len(case) for case in cases], np.int8), table


_COUNTS, _TABLE = _build_table()


@njit(cache=True, nogil=True)
def _low_pass_in_plane(values, taps):  # type: ignore[no-untyped-def]  # numba infers the types
    """``values`` filtered with ``taps`` along j and i; beyond the edge is 0."""
    nk, nj, ni = values.shape
    reach = len(taps) // 2
    rows = np.zeros((nj + 2 * reach, ni + 2 * reach), np.float32)
    along_i = np.zeros((nj + 2 * reach, ni), np.float32)
    out = np.zeros(values.shape, np.float32)
    for k in range(nk):
        rows[reach : reach + nj, reach : reach + ni] = values[k]
        along_i[:] = 0
        for j in range(reach, reach + nj):
            for t in range(len(taps)):
                for i in range(ni):
                    along_i[j, i] += taps[t] * rows[j, i + t]
        for j in range(nj):
            for t in range(len(taps)):
                for i in range(ni):
                    out[k, j, i] += taps[t] * along_i[j + t, i]
    return out


@njit(cache=True, nogil=True)
def _low_pass_across(planes, taps):  # type: ignore[no-untyped-def]
    """``planes`` filtered with ``taps`` along k; beyond the edge is 0."""
    nk, nj, ni = planes.shape
    reach = len(taps) // 2
    out = np.zeros(planes.shape, np.float32)
    for k in range(nk):
        for j in range(nj):
            for t in range(max(0, reach - k), min(len(taps), nk - k + reach)):
                for i in range(ni):
                    out[k, j, i] += taps[t] * planes[k + t - reach, j, i]
    return out


@njit(cache=True, nogil=True)
def _keep_sides(mask, smooth, least, first):  # type: ignore[no-untyped-def]
    """``smooth`` with every voxel on the side of one half that ``mask`` says.

    Where a voxel on the wrong side is all that is between two others along an axis (a plate, a straw, a slit), it gets their mean
    distance from one half: the surface lies in the middle, as a bool mask says, and what is one voxel thick keeps its thickness.
    Axes before ``first`` are not looked along: 1 is slice by slice.
    """
    half = np.float32(0.5)
    size = mask.shape
    out = np.empty_like(smooth)
    for k in range(size[0]):
        for j in range(size[1]):
            for i in range(size[2]):
                inside = mask[k, j, i] >= half
                away = smooth[k, j, i] - half if inside else half - smooth[k, j, i]
                if away < 0:
                    total, count = np.float32(0), 0
                    for axis in range(first, 3):
                        at = (k, j, i)[axis]
                        if 0 < at < size[axis] - 1:
                            a, b, c = int(axis == 0), int(axis == 1), int(axis == 2)
                            low, high = mask[k - a, j - b, i - c] >= half, mask[k + a, j + b, i + c] >= half
                            if low != inside and high != inside:
                                total += abs(smooth[k - a, j - b, i - c] - half) + abs(smooth[k + a, j + b, i + c] - half)
                                count += 2
                    away = total / count if count else -away
                away = max(away, least)
                out[k, j, i] = half + away if inside else half - away
    return out


@njit(cache=True, nogil=True)
def _code(values, k, j, i):  # type: ignore[no-untyped-def]
    code = 0
    for corner in range(8):
        if values[k + (corner >> 2 & 1), j + (corner >> 1 & 1), i + (corner & 1)] >= 0.5:
            code |= 1 << corner
    return code


@njit(cache=True, nogil=True)
def _count_triangles(values, counts):  # type: ignore[no-untyped-def]
    total = 0
    for k in range(values.shape[0] - 1):
        for j in range(values.shape[1] - 1):
            for i in range(values.shape[2] - 1):
                total += counts[_code(values, k, j, i)]
    return total


@njit(cache=True, nogil=True)
def _march_cubes(values, counts, table, count):  # type: ignore[no-untyped-def]
    """Vertices (voxels) and triangles; a crossed edge belongs to its low corner, so neighbours share its vertex."""
    triangles = np.empty((count, 3), np.int32)
    vertices = np.empty((count, 3), np.float64)
    known = np.full((2, values.shape[1], values.shape[2], 3), -1, np.int32)  # two planes of voxels, three edges each
    n_vertices, n_triangles = 0, 0
    for k in range(values.shape[0] - 1):
        known[(k + 1) % 2] = -1
        for j in range(values.shape[1] - 1):
            for i in range(values.shape[2] - 1):
                code = _code(values, k, j, i)
                for t in range(counts[code]):
                    for c in range(3):
                        edge = table[code, t, c]
                        axis, rank = edge // 4, edge % 4
                        # the low corner has a 0 at the edge's axis; rank holds its other two bits
                        dk = rank >> 1 if axis != 0 else 0
                        dj = rank >> 1 if axis == 0 else (rank & 1 if axis == 2 else 0)
                        di = rank & 1 if axis != 2 else 0
                        a, b, d = k + dk, j + dj, i + di
                        if known[a % 2, b, d, axis] < 0:
                            low = values[a, b, d]
                            high = values[a + (axis == 0), b + (axis == 1), d + (axis == 2)]
                            vertices[n_vertices, 0], vertices[n_vertices, 1], vertices[n_vertices, 2] = a, b, d
                            vertices[n_vertices, axis] += (0.5 - low) / (high - low)
                            known[a % 2, b, d, axis] = n_vertices
                            n_vertices += 1
                        triangles[n_triangles, c] = known[a % 2, b, d, axis]
                    n_triangles += 1
    return vertices[:n_vertices].copy(), triangles


@njit(cache=True, nogil=True)
def _march_squares(values):  # type: ignore[no-untyped-def]
    """Segments (m, 2, 2) in voxels (j, i) and the slice of each, two diagonal inside corners kept apart as on the faces of the cells."""
    segments = np.empty((1024, 2, 2), np.float64)
    slices = np.empty(1024, np.int64)
    corner_j, corner_i = (0, 0, 1, 1), (0, 1, 1, 0)
    crossing = np.empty((4, 2), np.float64)
    enters = np.empty(4, np.bool_)
    n = 0
    for k in range(values.shape[0]):
        for j in range(values.shape[1] - 1):
            for i in range(values.shape[2] - 1):
                inside = values[k, j, i] >= 0.5
                if (values[k, j, i + 1] >= 0.5) == inside == (values[k, j + 1, i] >= 0.5) == (values[k, j + 1, i + 1] >= 0.5):
                    continue
                found = 0
                for side in range(4):
                    ja, ia, jb, ib = corner_j[side], corner_i[side], corner_j[(side + 1) % 4], corner_i[(side + 1) % 4]
                    a, b = values[k, j + ja, i + ia], values[k, j + jb, i + ib]
                    if (a >= 0.5) != (b >= 0.5):
                        enters[found] = b >= 0.5
                        if side >= 2:  # from the lower corner on, so that the cell on the other side of the edge finds the same point
                            ja, ia, jb, ib, a, b = jb, ib, ja, ia, b, a
                        t = (0.5 - a) / (b - a)
                        crossing[found, 0], crossing[found, 1] = j + ja + t * (jb - ja), i + ia + t * (ib - ia)
                        found += 1
                if n + 2 > len(slices):
                    segments = np.concatenate((segments, np.empty_like(segments)))
                    slices = np.concatenate((slices, np.empty_like(slices)))
                first = 0 if enters[0] else 1
                for s in range(found // 2):
                    segments[n, 0] = crossing[(first + 2 * s) % found]
                    segments[n, 1] = crossing[(first + 2 * s + 1) % found]
                    slices[n] = k
                    n += 1
    return segments[:n].copy(), slices[:n].copy()
