"""Levels grown and shrunk by millimetres, and drawn as contours: what a margin is.

Growing takes all points that are no farther from the structure than the margin (Minkowski's sum with a ball); shrinking leaves out all
that are no farther from what lies outside it. Distances are exact ones to the triangles of the surface (``metrics.nearest``). A margin
by direction is ``gauge``'s body of eight eighths of ellipsoids in place of the ball.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.algebra.creases import sharpened
from oncontour.algebra.gauge import LEAST_MM, within
from oncontour.algebra.outlines import FAR, Level
from oncontour.algebra.words import Margin
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.metrics.isosurface import Mesh, surface_at_zero
from oncontour.metrics.nearest import distances
from oncontour.raster import trace_loops

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_DOUBT = 1.0
"""Grid steps by which a distance counted in voxels may be wrong."""
_ASIDE = 0.382
"""Part of a step by which the fine grid lies aside in the plane: faces in the middle between voxels, as masks have, meet none of them."""
_HALVINGS = 5
_LEAST_MM2 = 0.05
"""Loops smaller than this are rounding."""


@dataclass(frozen=True)
class Window:
    """A box of the fine grid: voxels ``start`` to ``stop`` (k, j, i) in steps of ``step_mm`` from voxel 0 of ``grid``, along its axes."""

    grid: Geometry
    step_mm: float
    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @classmethod
    def round(cls, grid: Geometry, step_mm: float, box_mm: Floats) -> Window:
        """The window that holds the box (2, 3) of mm along (k, j, i), and a rim of two steps."""
        low, high = np.floor(box_mm[0] / step_mm).astype(int) - 2, np.ceil(box_mm[1] / step_mm).astype(int) + 3
        return cls(grid, step_mm, tuple(low.tolist()), tuple(np.maximum(high, low + 5).tolist()))

    def wider(self, mm: float) -> Window:
        """With ``mm`` and a rim more on every side."""
        more = int(np.ceil(mm / self.step_mm)) + 3
        (a, b, c), (d, e, f) = self.start, self.stop
        return Window(self.grid, self.step_mm, (a - more, b - more, c - more), (d + more, e + more, f + more))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @cached_property
    def geometry(self) -> Geometry:
        origin = np.asarray(self.grid.origin_mm) + ((np.asarray(self.start) + self._aside) * self.step_mm) @ self.grid.axes
        return Geometry.regular(self.shape, (self.step_mm,) * 3, tuple(origin.tolist()), self.grid.axes)

    def along_mm(self, axis: int) -> Floats:
        """Where the fine voxels lie along ``axis`` of ``grid``, from its voxel 0."""
        return np.asarray((np.arange(self.start[axis], self.stop[axis]) + self._aside[axis]) * self.step_mm)

    @property
    def _aside(self) -> Floats:
        """In steps: along k planes of voxels meet the borders between slices, where structures end flat; see _ASIDE."""
        half = round(self.grid.spacing_mm[0] / self.step_mm) / 2
        return np.array([half % 1 + _ASIDE, _ASIDE, _ASIDE])

    def cut(self, level: Level, of: Window) -> Level:
        """``level``, which fills window ``of``, in this one; FAR where ``of`` does not reach."""
        out = np.full(self.shape, FAR, np.float32)
        low = np.maximum(self.start, of.start)
        high = np.minimum(self.stop, of.stop)
        if (high > low).all():
            mine = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, self.start, strict=True))
            theirs = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, of.start, strict=True))
            out[mine] = level[theirs]
        return out


def moved(level: Level, geometry: Geometry, margin: Margin, *, grow: bool) -> Level:
    """``level`` on ``geometry`` (equal steps) grown by ``margin``, or shrunk by it: a distance near the new surface, elsewhere about a step
    or more. Where the level is open at the grid's edge the result holds as far from it as the margin is wide."""
    most = max(margin.each)
    inside = level <= 0
    if most == 0 or not inside.any() or inside.all():
        return level
    step = geometry.spacing_mm[0]
    side = ~inside if grow else inside
    about = (ndimage.distance_transform_edt(side) * step).astype(np.float32)
    about[side] -= np.float32(step / 2)
    triangles = _surface(level, geometry).corners_mm
    if min(margin.each) == most:
        return _uniform(about, side, triangles, step, most, grow)
    return _by_direction(level, about, side, triangles, geometry, margin, grow)


def _uniform(about: Level, side: Bools, triangles: Floats, step: float, mm: float, grow: bool) -> Level:
    out = np.where(side, about - np.float32(mm), -np.float32(mm))

    def settle(where: Bools) -> None:
        found = distances(np.argwhere(where).astype(np.float64) * step, triangles)
        out[where] = np.where(side[where], found, -found) - mm

    sure = side & (np.abs(about - mm) <= _DOUBT * step)
    settle(sure)
    # Of a cell with the new surface in it all corners must be exact; next to one that moves by less than a step, also those within.
    settle(_beside_zero(out) & ~sure)
    return np.asarray(out if grow else -out, np.float32)


def _beside_zero(level: Level) -> Bools:
    """The corners of the cells that zero goes through: of all of them a contour or a surface between the voxels is made."""
    some = every = level <= 0
    for axis in range(3):
        low, high = (tuple(part if n == axis else slice(None) for n in range(3)) for part in (slice(None, -1), slice(1, None)))
        some, every = some[low] | some[high], every[low] & every[high]
    out = np.zeros(level.shape, bool)
    for corner in np.ndindex(2, 2, 2):
        out[tuple(slice(a, a + n) for a, n in zip(corner, some.shape, strict=True))] |= some & ~every
    return out


def _by_direction(level: Level, about: Level, side: Bools, triangles: Floats, geometry: Geometry, margin: Margin, grow: bool) -> Level:
    """The structure's own surface where nothing is added (or cut away), and the margin's where it is."""
    step, most, least = geometry.spacing_mm[0], max(margin.each), min(margin.each)
    up = np.array([margin.left, margin.posterior, margin.superior])
    down = np.array([margin.right, margin.anterior, margin.inferior])
    if not grow:  # a step from what lies outside into the structure goes against the side that it comes from
        up, down = down, up
    own = _own_distance(level, side, triangles, step)
    turned = triangles @ geometry.axes

    def taken(voxels: Floats) -> Bools:
        """Whether points (fractional voxels) are of the grown structure, or of what is cut away, or beyond it."""
        out = ndimage.map_coordinates(own, voxels.T, order=1) <= 0
        out[~out] = within(voxels[~out] * step @ geometry.axes, turned, up, down)
        return np.asarray(out)

    new = (own <= LEAST_MM) | (about + 2 * step <= least)
    asked = ~new & (about <= most + 2 * step)
    new[asked] = within(np.argwhere(asked).astype(np.float64) * step @ geometry.axes, turned, up, down)
    out = np.where(new, np.float32(-step), np.float32(step))
    _settle_edges(out, taken, step)
    return np.asarray(out if grow else -out, np.float32)


def _settle_edges(level: Level, taken: Callable[[Floats], Bools], step: float) -> None:
    """Put voxels beside zero as far from it as the crossings on their edges say, which bisection finds: beside a margin of nothing a cost
    rises a thousandfold within a step, and no line between two voxels meets the surface.

    A plane whose crossings along the axes are t away lies 1 / sqrt(sum of 1 / t^2) away.
    """
    inside, near = level <= 0, np.zeros(level.shape)
    for axis in range(3):
        edges = np.argwhere(np.diff(inside, axis=axis))
        if not len(edges):
            continue
        unit = np.eye(3, dtype=np.int64)[axis]
        first = inside[tuple(edges.T)]
        low, high = np.zeros(len(edges)), np.ones(len(edges))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            same = taken(edges + middle[:, None] * unit) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        share = (low + high) / 2
        closest = np.full(level.shape, np.inf)
        np.minimum.at(closest, tuple(edges.T), share)
        np.minimum.at(closest, tuple((edges + unit).T), 1 - share)
        near += 1 / np.square(closest)
    found = near > 0
    level[found] = np.where(inside[found], -1, 1) * step / np.sqrt(near[found])


def _own_distance(level: Level, side: Bools, triangles: Floats, step: float) -> Level:
    """Distance to the surface, positive on ``side``; exact where ``level`` crosses zero, a step elsewhere."""
    out = np.where(side, np.float32(step), np.float32(-step))
    near = _beside_zero(level)
    found = distances(np.argwhere(near).astype(np.float64) * step, triangles)
    out[near] = np.where(side[near], found, -found)
    return out


def drawn(level: Level, window: Window, slices: Slices) -> Contours:
    """The contours of ``level`` in the planes of ``slices``: where it crosses zero there, to a fraction of a step. Each plane stands for
    its own slice (``Contours.alone``); holes are contours of their own."""
    geometry, step = window.geometry, window.step_mm
    corners = geometry.corners_mm
    polygons: list[Floats] = []
    across = np.stack([slices.column, slices.row])
    reach = corners @ slices.normal
    for origin, offset in zip(slices.origins_mm, slices.offsets_mm, strict=True):
        if not reach.min() < offset < reach.max():
            continue
        flat = (corners - origin) @ across.T / step
        low = np.floor(flat.min(axis=0)).astype(int) - 1
        size = np.ceil(flat.max(axis=0)).astype(int) + 2 - low
        rows, columns = np.meshgrid(*(np.arange(n) + a for n, a in zip(size, low, strict=True)), indexing="ij")
        points = origin + step * (rows[..., None] * slices.column + columns[..., None] * slices.row)
        at = geometry.voxels(points.reshape(-1, 3)).T.reshape(3, *rows.shape)
        field = -ndimage.map_coordinates(level, at, order=1, cval=float(FAR), output=np.float64)
        found, starts = trace_loops.trace_level(np.ascontiguousarray(field), 0.0, _LEAST_MM2 / step**2)
        for begin, end in pairwise(starts):
            polygons.append(origin + ((found[begin:end] + low) * step) @ across)
    return Contours(tuple(polygons), None, slices, alone=True)


def volume_cc(level: Level, window: Window) -> float:
    """What the surface encloses."""
    return abs(_surface(level, window.geometry).volume_mm3) / 1000


def _surface(level: Level, geometry: Geometry) -> Mesh:
    return sharpened(surface_at_zero(Volume(level, geometry)), geometry.spacing_mm[0])
