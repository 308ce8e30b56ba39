"""An expression and the structures of a patient -> the new structure, as contours on the slices of its image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.algebra.margins import Window, drawn, moved, volume_cc
from oncontour.algebra.outlines import FAR, Level, extent_mm, level_of
from oncontour.algebra.words import Body, Expression, Join, Moved, Name
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry

Floats = NDArray[np.float64]
FINEST_MM, USUAL_MM, COARSEST_MM = 0.2, 0.4, 2.0
FEW_VOXELS, MOST_VOXELS = 1e6, 2.5e6
"""Of the fine grid of one structure: larger ones get coarser steps, up to COARSEST_MM; where few are enough, steps are finer than usual."""


@dataclass(frozen=True, eq=False)
class Made:
    """A structure that was made: its contours, the volume that its surface encloses, the step of the grid it was made on, and what of the
    volume lies beyond the first and last slice of the image."""

    contours: Contours
    volume_cc: float
    step_mm: float
    beyond_cc: float = 0.0


def make(expression: Expression, structures: Mapping[str, Contours], body: Callable[[], Contours], grid: Geometry, slices: Slices) -> Made:
    """What ``expression`` gives, drawn on ``slices``. ``structures``: the contours by the names that it has, along k of ``grid``, which is
    the grid of the image; ``body`` gives those of the patient's outline. Raises what ``level_of`` raises."""
    of = _Sources(structures, body, grid)
    box = of.box_mm(expression)
    if box is None:
        return Made(Contours((), None, slices, alone=True), 0.0, FINEST_MM)
    few, most = np.cbrt(of.largest_mm3(expression, box) / FEW_VOXELS), np.cbrt((box[1] - box[0]).prod() / MOST_VOXELS)
    step = float(np.clip(max(most, min(few, USUAL_MM)), FINEST_MM, COARSEST_MM))
    step = min(step, max(FINEST_MM, _thinnest(expression)))
    step = grid.spacing_mm[0] / np.ceil(grid.spacing_mm[0] / step - 1e-9)  # slices end between voxels of the fine grid
    window = Window.round(grid, step, box)
    level = of.level(expression, window)
    level = np.where(level == 0, np.float32(-1e-6), level)
    return Made(drawn(level, window, slices), volume_cc(level, window), step, _beyond_cc(level, window))


def _beyond_cc(level: Level, window: Window) -> float:
    """What lies beyond the image's first and last slice, each of which reaches half a slice beyond its middle."""
    thick, count = window.grid.spacing_mm[0], window.grid.shape[0]
    at = window.along_mm(0)
    outside = (at < -thick / 2) | (at > (count - 0.5) * thick)
    return float((level[outside] <= 0).sum()) * window.step_mm**3 / 1000


def _goes_on(level: Level, window: Window) -> Level:
    """``level`` beyond the image's voxels as at the last of them: a body that the image cuts off has no skin there."""
    for axis, (count, spacing) in enumerate(zip(window.grid.shape, window.grid.spacing_mm, strict=True)):
        at = window.along_mm(axis)
        seen = np.flatnonzero((at >= 0) & (at <= (count - 1) * spacing))
        if len(seen):
            level = np.take(level, np.clip(np.arange(len(at)), seen[0], seen[-1]), axis=axis)
    return level


def _thinnest(expression: Expression) -> float:
    """The least margin of a direction beside a larger one, in mm: the fine grid must see it."""
    if isinstance(expression, Moved):
        told = [mm for mm in expression.margin.each if mm > 0]
        mine = min(told) if told and min(expression.margin.each) < max(told) else COARSEST_MM
        return min(mine, _thinnest(expression.of))
    if isinstance(expression, Join):
        return min(_thinnest(expression.left), _thinnest(expression.right))
    return COARSEST_MM


@dataclass(frozen=True, eq=False)
class _Sources:
    """Where names in an expression get their level from."""

    structures: Mapping[str, Contours]
    body: Callable[[], Contours]
    grid: Geometry

    def contours(self, one: Name | Body) -> Contours:
        return self.body() if isinstance(one, Body) else self.structures[one.name]

    def box_mm(self, expression: Expression) -> Floats | None:
        """The box (2, 3) that the result may fill, in mm along (k, j, i) of the grid; None where it must be empty."""
        if isinstance(expression, Name | Body):
            box = extent_mm(self.contours(expression), self.grid)
            # The body goes on beyond the image (_goes_on); what it is cropped from ends.
            return box if box is None or isinstance(expression, Name) else np.array([[-np.inf], [np.inf]]) * np.ones(3)
        if isinstance(expression, Moved):
            box = self.box_mm(expression.of)
            more = max(expression.margin.each) if expression.grow else 0.0
            return None if box is None else box + np.array([[-more], [more]])
        left = self.box_mm(expression.left)
        if expression.kind == "without":
            return left
        right = self.box_mm(expression.right)
        if expression.kind == "or" and (left is None or right is None):
            return right if left is None else left
        if left is None or right is None:
            return None
        pick = (np.minimum, np.maximum) if expression.kind == "or" else (np.maximum, np.minimum)
        box = np.stack([pick[0](left[0], right[0]), pick[1](left[1], right[1])])
        return box if (box[1] > box[0]).all() else None

    def largest_mm3(self, expression: Expression, box_mm: Floats) -> float:
        """The largest of the boxes that are looked at to know ``expression`` in the box (2, 3)."""
        mine = float((box_mm[1] - box_mm[0]).prod())
        if isinstance(expression, Moved):
            more = max(expression.margin.each)
            return max(mine, self.largest_mm3(expression.of, box_mm + np.array([[-more], [more]])))
        if isinstance(expression, Join):
            return max(mine, *(self.largest_mm3(one, box_mm) for one in (expression.left, expression.right)))
        whole = extent_mm(self.contours(expression), self.grid)  # in the plane
        return mine if whole is None else max(mine, float((whole[1] - whole[0])[1:].prod() * (box_mm[1] - box_mm[0])[0]))

    def level(self, expression: Expression, window: Window) -> Level:
        if isinstance(expression, Moved):
            wide = window.wider(max(expression.margin.each))
            level = moved(self.level(expression.of, wide), wide.geometry, expression.margin, grow=expression.grow)
            return window.cut(level, wide)
        if isinstance(expression, Join):
            left, right = self.level(expression.left, window), self.level(expression.right, window)
            if expression.kind == "without":
                return np.maximum(left, -right)
            return np.minimum(left, right) if expression.kind == "or" else np.maximum(left, right)
        level = self._of_structure(self.contours(expression), window)
        return _goes_on(level, window) if isinstance(expression, Body) else level

    def _of_structure(self, contours: Contours, window: Window) -> Level:
        """In the plane the whole structure is looked at, whatever the window; across it the slices of the window."""
        box = extent_mm(contours, self.grid)
        if box is None:
            return np.full(window.shape, FAR, np.float32)
        own = Window.round(window.grid, window.step_mm, box)
        k = max(own.start[0], window.start[0]), min(own.stop[0], window.stop[0])
        if k[1] <= k[0]:
            return np.full(window.shape, FAR, np.float32)
        part = Window(own.grid, own.step_mm, (k[0], *own.start[1:]), (k[1], *own.stop[1:]))
        return window.cut(level_of(contours, part.geometry, self.grid), part)
