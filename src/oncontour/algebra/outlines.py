"""Planar contours as a level on a fine grid whose zero is the surface: finer than voxels in the plane, smooth from slice to slice.

Each plane has its signed distance phi to its outline (exact near it), and R, how deep it is. F = phi (phi + 2 R) has the same outline; of
circles it is rho^2 - R^2, which from slice to slice of a ball, an ellipsoid or a cone is a parabola. Between two planes F is interpolated
by that parabola, whose curvature is the smaller of those at both planes, and none where they differ in sign: a box stays a box, a step a
step. Source: shape-based interpolation, Raya and Udupa 1990 (IEEE Trans Med Imaging 9:32), who interpolate phi along
lines. *Differs:* F and its curvature in place of phi, which makes balls of circles: lines cut off their roundness.

Beyond the last plane the parabola goes on. Where it closes before the next slice, on which nothing is drawn, it is the end (a dome);
else the structure ends flat, half-way to the next slice (``raster.planes``), as it does where one of several outlines of a plane has none
over or under it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.boxes import box_of, widened
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.metrics.isosurface import smooth_slices
from oncontour.metrics.nearest import distances
from oncontour.raster import trace_loops
from oncontour.raster.coverage import plane_coverage
from oncontour.raster.planes import Planes, sort_into_planes

Floats = NDArray[np.float64]
Level = NDArray[np.float32]
Bools = NDArray[np.bool_]

FAR = np.float32(1e3)
"""The level where nothing is near."""
_EXACT = 3.0
"""Grid steps from an outline within which its distance is exact, not counted in pixels."""
_DEPTH_MM = 1e-2
"""How exactly the deepest point of a plane is sought."""
_AROUND = np.array([[0, a, b] for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)], dtype=np.float64)
_TANGENT_MM = 0.1
"""What closes so little beyond the next slice closes on it: a ball that touches a slice has no contour there."""
_TOUCH_MM = 1e-3
_ROUNDING = 1e-3
"""Pixels: loops smaller than this are rounding."""
_HALVINGS = 24
_RIM = 4
"""Grid steps round a piece, in the plane, that its level is told in."""


@dataclass(frozen=True, eq=False)
class Layers:
    """One structure plane by plane on a grid: ``at_mm`` (n,) where each plane lies along the grid's k from voxel 0, growing; ``ends_mm``
    (n, 2) from where to where it reaches; ``inside`` (n, rows, columns); ``segments_mm`` of each plane (m, 2, 2) as (j, i)."""

    at_mm: Floats
    ends_mm: Floats
    inside: Bools
    segments_mm: tuple[Floats, ...]


def contours_of(mask: Volume) -> Contours:
    """The contours of a bool ``mask`` on its own slices (k), without stairs and with the area that the mask has in each. Raises InputError
    for channels."""
    values, start = smooth_slices(mask)
    polygons = []
    for k, smooth in enumerate(values):
        at, field = k + int(start[0]), np.ascontiguousarray(smooth, np.float64)
        area = float(mask.array[at].sum()) if 0 <= at < len(mask.array) else 0.0
        if area == 0:
            continue
        points, starts = trace_loops.trace_level(field, _level_of_area(field, area), _ROUNDING)
        for begin, end in pairwise(starts):
            ring = points[begin:end] + start[1:]
            polygons.append(mask.geometry.points(np.insert(ring, 0, k + start[0], axis=1)))
    return Contours(tuple(one for one in polygons if len(one) >= 3), None, Slices.of(mask.geometry), alone=True)


def _level_of_area(field: Floats, area: float) -> float:
    """The level whose loops hold ``area`` pixels: smoothing takes some from what is thin, and from jagged edges."""
    low, high = float(max(field[0].max(), field[-1].max(), field[:, 0].max(), field[:, -1].max(), 0.0)) + 1e-6, float(field.max())
    for _ in range(_HALVINGS):
        level = 0.5 * (low + high)
        low, high = (level, high) if trace_loops.level_area(field, level) > area else (low, level)
    return 0.5 * (low + high)


def extent_mm(contours: Contours, grid: Geometry) -> Floats | None:
    """(2, 3) the box that a structure may fill, in mm along (k, j, i) of ``grid`` from its voxel 0; None for an empty one."""
    if not len(contours):
        return None
    planes = sort_into_planes(contours, grid)
    reach = (planes.slabs_mm[:, 1] - planes.slabs_mm[:, 0]).max()
    at = grid.voxels(planes.points) * grid.spacing_mm
    wide = np.abs(grid.axes @ planes.normal) * reach
    return np.stack([at.min(axis=0) - wide, at.max(axis=0) + wide])


def is_across(contours: Contours, grid: Geometry) -> bool:
    """Whether the contours lie in planes along the slices (k) of ``grid``."""
    return not len(contours) or bool(abs(grid.axes[0] @ sort_into_planes(contours, grid).normal) > 1 - 1e-8)


def level_of(contours: Contours, grid: Geometry, case_grid: Geometry) -> Level:
    """The level of a structure on ``grid``, of equal steps: below zero inside, zero on its surface; FAR all over for an empty one.

    ``case_grid`` is the grid of its image, which tells how thick a single plane is. The contours lie along k (``is_across``).
    Raises what ``sort_into_planes`` and ``plane_coverage`` raise.
    """
    out = np.full(grid.shape, FAR, np.float32)
    if not len(contours):
        return out
    layers = _layers(sort_into_planes(contours, case_grid), grid)
    for first, last in _chains(layers):
        piece = layers.inside[first:last]
        labels, count = ndimage.label(piece)
        for n in range(1, count + 1):
            mine = labels == n if count > 1 else piece
            held = np.flatnonzero(mine.any(axis=(1, 2)))
            a, b = int(held[0]), int(held[-1]) + 1
            _draw(layers, slice(first + a, first + b), mine[a:b], grid.spacing_mm[0], out)
    return out


# ---- planes


def _layers(planes: Planes, grid: Geometry) -> Layers:
    step = grid.spacing_mm[0]
    voxels = grid.voxels(planes.points)
    sign = float(np.sign(grid.axes[0] @ planes.normal))
    ends = np.sort((planes.slabs_mm - float(planes.normal @ grid.affine[:3, 3])) * sign, axis=1)
    at = np.array([voxels[planes.pieces(p)[0], 0].mean() for p in range(len(planes))]) * step
    order = np.argsort(at, kind="stable")
    inside = np.zeros((len(planes), *grid.shape[1:]), bool)
    segments = []
    for n, p in enumerate(order):
        where, starts = planes.pieces(int(p))
        flat = np.ascontiguousarray(voxels[where, 1:])
        low = np.maximum(np.floor(flat.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(flat.max(axis=0)) + 1, grid.shape[1:]).astype(int)
        if (high > low).all():
            covered = plane_coverage(flat, starts, (int(low[0]), int(low[1])), (int(high[0] - low[0]), int(high[1] - low[1])))
            inside[n, low[0] : high[0], low[1] : high[1]] = covered >= 0.5
        after = np.arange(1, len(flat) + 1)
        after[starts[1:] - 1] = starts[:-1]
        segments.append(np.stack([flat, flat[after]], axis=1) * step)
    return Layers(at[order], ends[order], inside, tuple(segments))


def _chains(layers: Layers) -> Iterator[tuple[int, int]]:
    """Ranges of planes that reach each other."""
    apart = np.flatnonzero(layers.ends_mm[1:, 0] - layers.ends_mm[:-1, 1] > _TOUCH_MM) + 1
    bounds = [0, *apart.tolist(), len(layers.at_mm)]
    yield from pairwise(bounds)


def _distance(inside: Bools, needed: Bools, segments_mm: Floats, step_mm: float) -> Level:
    """Signed distance in mm to the outline of ``inside``, negative within it: to ``segments_mm`` where it is near or ``needed``, else in
    pixels."""
    if not inside.any():
        return np.full(inside.shape, FAR, np.float32)
    out = ndimage.distance_transform_edt(~inside) - 0.5
    within = ndimage.distance_transform_edt(inside) - 0.5 if not inside.all() else np.full(inside.shape, float(FAR) / step_mm)
    out = np.where(inside, -within, out)
    rows, columns = np.nonzero(needed | (np.abs(out) <= _EXACT))
    # of this piece's outlines alone: another piece beside it would seem to be its own edge
    at = np.rint(segments_mm.mean(axis=1) / step_mm).astype(int)
    known = ((at >= 0) & (at < inside.shape)).all(axis=1)
    mine, at = segments_mm[known], at[known]
    mine = mine[np.abs(out[at[:, 0], at[:, 1]]) <= 2.0]
    out *= step_mm
    if len(mine) and len(rows):
        flat = np.insert(mine, 0, 0.0, axis=2)
        triangles = np.concatenate([flat, flat[:, 1:]], axis=1)
        points = np.stack([np.zeros(len(rows)), rows * step_mm, columns * step_mm], axis=1)
        found = distances(points, triangles)
        out[rows, columns] = np.where(inside[rows, columns], -found, found)
    return out.astype(np.float32)


def _deepest(distance: Level, segments_mm: Floats, step_mm: float) -> float:
    """How far in mm the deepest point of a plane lies within its outline: between grid points, else the depths of neighbouring planes would
    differ by what their middles lie beside the grid, and the end of a ball would not be found. Minus FAR where nothing is inside."""
    best = np.unravel_index(int(distance.argmin()), distance.shape)
    most = -float(distance[best])
    if most <= 0 or not len(segments_mm):
        return most
    point, triangles = np.array([0.0, *best]) * step_mm, np.insert(segments_mm[:, [0, 1, 1]], 0, 0.0, axis=2)
    reach = 0.5 * step_mm
    while reach > _DEPTH_MM:
        around = point + reach * _AROUND
        found = distances(around, triangles)
        if found.max() > most:
            most, point = float(found.max()), around[found.argmax()]
        else:
            reach /= 2
    return most


# ---- from plane to plane


def _draw(layers: Layers, part: slice, inside: Bools, step_mm: float, out: Level) -> None:
    """Put one piece, whose planes are the ``part`` of the layers and ``inside`` of them, into ``out`` (the lower level counts)."""
    at, ends, count = layers.at_mm[part], layers.ends_mm[part], len(inside)
    box = box_of(inside)
    assert box is not None, "a piece has pixels"
    here = widened(box, inside.shape, (0, _RIM, _RIM))[1:]
    inside, corner_mm = inside[(slice(None), *here)], np.array([side.start * step_mm for side in here])
    out = out[(slice(None), *here)]
    changing = np.zeros(inside.shape, bool)
    for n in range(count):
        near = inside[max(0, n - 2) : n + 3]
        changing[n] = near.any(axis=0) & ~near.all(axis=0)
    for end, last_three in ((0, slice(None, 3)), (-1, slice(-3, None))):  # by which the end is found
        changing[last_three] |= inside[end]
    segments = [one - corner_mm for one in layers.segments_mm[part]]
    distance = np.stack([_distance(*one, step_mm) for one in zip(inside, changing, segments, strict=True)])
    deep = np.array([max(_deepest(*one, step_mm), step_mm / 2) for one in zip(distance, segments, strict=True)])
    bent = distance * (distance + 2 * deep[:, None, None])
    # What lies farther out than the planes beside (those that its curvature is made of) are deep is beside them, not round them: of circles
    # one in the other nothing is.
    widest = ndimage.maximum_filter1d(deep, 5, mode="nearest")
    bent = np.minimum(bent, np.square(widest, dtype=np.float32)[:, None, None])
    bent /= np.float32(2 * deep.max())  # of a ball about its distance, so that a flat end can be cut into it
    curves = _curvatures(at, bent)
    low, high = (np.array([2 * ends[n, side] - at[n] for n, side in ((0, 0), (-1, 1))]) / step_mm).tolist()
    for k in range(max(0, int(low) - 2), min(len(out), int(high) + 4)):
        level = _at(k * step_mm, at, ends, bent, curves, step_mm)
        if level is not None:
            np.minimum(out[k], level, out=out[k])
    _add_open_ends(at, ends, inside, distance, step_mm, out)


def _curvatures(at: Floats, values: Level) -> Level:
    """Second derivative of ``values`` along the planes, at each inner plane; at the ends that of the plane beside; zeros for two planes."""
    out = np.zeros_like(values)
    if len(at) < 3:
        return out
    a, b = (np.diff(at)[:-1, None, None]).astype(np.float32), (np.diff(at)[1:, None, None]).astype(np.float32)
    out[1:-1] = 2 * (values[:-2] / (a * (a + b)) - values[1:-1] / (a * b) + values[2:] / (b * (a + b)))
    out[0], out[-1] = out[1], out[-2]
    return out


def _milder(one: Level, other: Level) -> Level:
    """The smaller of two curvatures, zero where they differ in sign."""
    return np.asarray(np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0), np.float32)


def _at(z: float, at: Floats, ends: Floats, values: Level, curves: Level, step_mm: float) -> Level | None:
    """The values at ``z`` mm: between two planes by the parabola, beyond the last as far as it may go; None where that is not."""
    last = len(at) - 1
    if at[0] <= z <= at[last]:
        n = min(int(np.searchsorted(at, z, "right")) - 1, max(last - 1, 0))
        if last == 0:
            return np.asarray(values[0])
        share = np.float32((z - at[n]) / (at[n + 1] - at[n]))
        bend = np.float32(0.5 * (z - at[n]) * (z - at[n + 1]))
        return np.asarray((1 - share) * values[n] + share * values[n + 1] + bend * _milder(curves[n], curves[n + 1]))
    end, inner = (0, min(1, last)) if z < at[0] else (last, max(last - 1, 0))
    flat = abs(ends[end, 0 if z < at[0] else 1] - at[end])
    beyond = abs(z - at[end])
    if beyond > 2 * flat + 2 * step_mm:
        return None
    tip = values[end]
    if last:
        tip, closes = _tip(beyond, 2 * flat, abs(at[inner] - at[end]), values[end], values[inner], _milder(curves[end], curves[inner]))
        if closes:
            return tip
    return np.asarray(np.maximum(tip, np.float32(beyond - flat)))


def _tip(beyond: float, most: float, apart: float, last: Level, before: Level, curve: Level) -> tuple[Level, bool]:
    """The parabola ``beyond`` mm past the last plane, never wider than there, and whether it closes within ``most`` mm."""

    def past(mm: float) -> Level:
        slope = (last - before) / np.float32(apart)
        return np.asarray(np.maximum(last, last + np.float32(mm) * slope + np.float32(0.5 * mm * (mm + apart)) * curve))

    return past(beyond), bool(past(most).min() >= -_TANGENT_MM)


def _add_open_ends(at: Floats, ends: Floats, inside: Bools, distance: Level, step_mm: float, out: Level) -> None:
    """Outlines with none over (or under) them in the next plane of their piece end flat, half-way to it."""
    for n in range(len(at)):
        labels, count = ndimage.label(inside[n])
        for other, side in ((n - 1, 0), (n + 1, 1)):
            if count < 2 or not 0 <= other < len(at):
                continue
            met = set(np.unique(labels[inside[other]]).tolist())
            alone = [label for label in range(1, count + 1) if label not in met]
            if alone:
                own = np.where(np.isin(labels, alone) | ~inside[n], distance[n], FAR)
                _add_slab(own, at[n], ends[n, side], step_mm, out)


def _add_slab(distance: Level, begin_mm: float, end_mm: float, step_mm: float, out: Level) -> None:
    low, high = sorted((begin_mm, end_mm))
    for k in range(max(0, int(np.floor(low / step_mm)) - 1), min(len(out), int(np.ceil(high / step_mm)) + 2)):
        past = max(k * step_mm - high, low - k * step_mm)
        if past <= 2 * step_mm:
            np.minimum(out[k], np.maximum(distance, np.float32(past)), out=out[k])
