"""The search for a deformation: control points of a cubic B-spline, moved by Adam until the warped image is like the fixed one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.descent import Adam
from oncontour.adapt.energies import bending_energy, soft_dsc, spline, spline_weights
from oncontour.adapt.levels import Level, Settings, Visit, centres, coverage, in_voxels, sample, units_of
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.volume import Volume

SQUARINGS = 6
"""A velocity is followed in 2^6 small steps."""
SETTLED = 0.01
"""A search whose loss fell by less than this in its last fifth has found its place."""


class Search:
    """Control points of a cubic B-spline over the fixed image's own axes, and the search for them on one level after the other."""

    def __init__(self, fixed: Visit, moving: Visit, settings: Settings, matrix: Floats, levels: Sequence[Level]) -> None:
        self.settings, self.matrix, self.levels, self.names = settings, matrix, levels, (fixed.name, moving.name)
        self.axes, self.origin = fixed.image.geometry.axes, np.asarray(levels[-1].grid.origin_mm)
        ends = np.concatenate([(level.grid.corners_mm - self.origin) @ self.axes.T for level in levels])
        self.first, self.last = ends.min(axis=0), ends.max(axis=0)
        self.converged = False
        shared = [name for name in fixed.structures if name in moving.structures]
        self.structures = [(fixed.structures[name], moving.structures[name]) for name in shared]
        self.stiffness, self.moving_grid = fixed.stiffness, moving.image.geometry

    def weights(self, grid: Geometry, control_mm: float) -> list[Tensor]:
        """B-spline weights (n, c) at the voxels of ``grid``, whose axes are the fixed image's, along each axis."""
        start = (np.asarray(grid.origin_mm) - self.origin) @ self.axes.T
        places = [s + step * np.arange(n) for s, step, n in zip(start, grid.spacing_mm, grid.shape, strict=True)]
        return [
            torch.from_numpy(spline_weights(at, control_mm, a, b).astype(np.float32))
            for at, a, b in zip(places, self.first, self.last, strict=True)
        ]

    def still(self) -> Tensor:
        """The coefficients of the first round that move nothing."""
        return torch.zeros(3, *(w.shape[1] for w in self.weights(self.levels[0].grid, self.settings.rounds[0].control_mm)))

    def fitted(self, start: Deformation) -> Tensor:
        """The coefficients of the first round that follow ``start`` beyond its affine part."""
        level, control = self.levels[0], self.settings.rounds[0].control_mm
        points = centres(level.grid)
        back = np.linalg.inv(self.matrix)
        u = start.to_moving(points) @ back[:3, :3].T + back[:3, 3] - points
        inverses = [torch.linalg.pinv(w.double(), rtol=1e-3).float() for w in self.weights(level.grid, control)]
        return spline(torch.from_numpy(np.moveaxis(u, -1, 0).astype(np.float32).copy()), inverses)

    def _refined(self, coefficients: Tensor, old_mm: float, new_mm: float) -> Tensor:
        """The same spline on a lattice of another width; exact where the new one halves the old."""
        changes = []
        for a, b in zip(self.first, self.last, strict=True):
            dense = np.linspace(a, b, 8 * int(np.ceil((b - a) / min(old_mm, new_mm))) + 8)
            fine, coarse = spline_weights(dense, new_mm, a, b), spline_weights(dense, old_mm, a, b)
            changes.append(torch.from_numpy((np.linalg.pinv(fine) @ coarse).astype(np.float32)))
        return spline(coefficients, changes)

    def through(self, coefficients: Tensor) -> Tensor:
        """The coefficients after all rounds, from those that the first begins with."""
        for number in range(len(self.levels)):
            coefficients = self.run(number, coefficients)
        return coefficients

    def run(self, number: int, coefficients: Tensor) -> Tensor:
        """The coefficients after round ``number``, from those of the round before (of this one where it is the first)."""
        level, round_ = self.levels[number], self.settings.rounds[number]
        weights = self.weights(level.grid, round_.control_mm)
        if number:
            coefficients = self._refined(coefficients, self.settings.rounds[number - 1].control_mm, round_.control_mm)
        moves = coefficients.clone().requires_grad_()
        descent = Adam(moves)
        stiffness, pairs = self._stiffness(moves.shape[1:], round_.control_mm), self._masks(level, round_.voxel_mm)
        base, turn = level.under(self.matrix), self._turn(level)
        reached = []
        for step in range(round_.steps):
            units = base + self._moved(moves, weights, level.grid).reshape(3, -1)[:, level.index].T @ turn
            alike = level.correlation(units)
            loss = -alike + self.settings.bending_mm2 * bending_energy(moves, (round_.control_mm,) * 3, stiffness)
            if pairs is not None:
                loss = loss - self.settings.structures * soft_dsc(sample(pairs[1], units), pairs[0])
            descent.step(loss, round_.step_mm * min(1.0, 2 * (round_.steps - step) / round_.steps))
            reached.append(float(loss.detach()))
        last = max(1, round_.steps // 5)
        self.converged = reached[-last - 1 if len(reached) > last else 0] - min(reached[-last:]) < SETTLED
        return moves.detach()

    def _turn(self, level: Level) -> Tensor:
        return torch.from_numpy(self.matrix[:3, :3].T.astype(np.float32)) @ level.to_unit

    def _moved(self, coefficients: Tensor, weights: Sequence[Tensor], grid: Geometry) -> Tensor:
        """(3, k, j, i) displacement in mm on ``grid`` before the start's map."""
        field_mm = spline(coefficients, weights)
        return _followed(field_mm, grid) if self.settings.diffeomorphic else field_mm

    def _stiffness(self, shape: Sequence[int], control_mm: float) -> Tensor | None:
        """How stiff each control point is, from the fixed visit's map; beyond its edge as at its edge."""
        if self.stiffness is None:
            return None
        along = [a + control_mm * (np.arange(n) - 1) for a, n in zip(self.first, shape, strict=True)]
        points = self.origin + np.stack(np.meshgrid(*along, indexing="ij"), axis=-1) @ self.axes
        at = np.moveaxis(self.stiffness.geometry.voxels(points), -1, 0)
        return torch.from_numpy(ndimage.map_coordinates(self.stiffness.array.astype(np.float32), at, order=1, mode="nearest"))

    def _masks(self, level: Level, voxel_mm: float) -> tuple[Tensor, Tensor] | None:
        """Structures that both visits have: (s, n) of the fixed one at the voxels that count, (s, k, j, i) of the moving one."""
        if not self.structures or not self.settings.structures:
            return None
        theirs = in_voxels(self.moving_grid, voxel_mm)
        here = torch.stack([coverage(mask, level.grid).reshape(-1)[level.index] for mask, _ in self.structures])
        return here, torch.stack([coverage(mask, theirs) for _, mask in self.structures])

    @torch.no_grad()
    def correlation(self, coefficients: Tensor | None, matrix: Floats | None = None) -> tuple[float, float, float]:
        """(Mean local correlation, how well edges lie on edges, share of what counts that has a place in the moving image) on the last
        level, of the coefficients of its round; without them of ``matrix``, by default the start."""
        level, round_ = self.levels[-1], self.settings.rounds[-1]
        units = level.under(self.matrix if matrix is None else matrix)
        if coefficients is not None:
            moved = self._moved(coefficients, self.weights(level.grid, round_.control_mm), level.grid)
            units = units + moved.reshape(3, -1)[:, level.index].T @ self._turn(level)
        return float(level.correlation(units)), level.edges(units), level.overlap(units)

    @torch.no_grad()
    def deformation(self, coefficients: Tensor, grid: Geometry) -> Deformation:
        """The whole map on ``grid``, whose axes are the fixed image's."""
        u = self._moved(coefficients, self.weights(grid, self.settings.rounds[-1].control_mm), grid).numpy()
        linear = self.matrix[:3, :3]
        rigidly = Deformation.from_matrix(self.matrix, grid, *self.names).displacement.array
        turned = np.tensordot(linear.astype(np.float32), u, 1)
        for one, shift in zip(turned, rigidly, strict=True):  # summed in float64, kept in float32
            np.add(one, shift, out=one, casting="same_kind")
        return Deformation(Volume(turned, grid), *self.names)


def _followed(velocity_mm: Tensor, grid: Geometry) -> Tensor:
    """(3, k, j, i) displacement after following a steady velocity for one unit of time, by scaling and squaring.

    Source: Arsigny et al., MICCAI 2006: exp(v) is exp(v / 2^n) put n times after itself.
    """
    to_unit, offset = units_of(grid)
    turn = torch.from_numpy(to_unit.astype(np.float32))
    base = torch.from_numpy((centres(grid).reshape(-1, 3) @ to_unit + offset).astype(np.float32))
    u: Tensor = velocity_mm / 2**SQUARINGS
    for _ in range(SQUARINGS):
        u = u + sample(u, base + u.reshape(3, -1).T @ turn).reshape(u.shape)
    return u
