"""The dose of several visits on the planning CT: each warped by its own deformation, with what the warping changed, and their sum.

A warped dose is that of the tissue that moved, as far as the deformation is right: where tissue shrinks the same energy is spread over
less of it, and interpolating Gy does not know that. So the change of the integral dose is told for every visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oncontour.adapt.deformation import Deformation
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.volume import Volume
from oncontour.errors import DoseError, GeometryError, InputError


@dataclass(frozen=True, eq=False)
class WarpedDose:
    """A visit's dose on the planning CT, in Gy.

    ``known`` marks the voxels that the deformation leads onto the dose's grid; elsewhere ``dose`` is 0 and means nothing.
    ``integral_before`` and ``integral_after`` are in Gy litres, over the visit's grid and over the new one; ``change_percent`` from the one
    to the other, NaN where there is no dose.
    """

    visit: str
    dose: Volume
    known: Volume
    integral_before: float
    integral_after: float

    @property
    def change_percent(self) -> float:
        return 100 * (self.integral_after / self.integral_before - 1) if self.integral_before > 0 else float("nan")

    def missing_percent(self, structure: Volume) -> float:
        """Share in % of a mask on this grid that has no dose; NaN for an empty one. Raises GeometryError for another grid."""
        mask = structure.stored_on(self.dose.geometry)
        if mask is None:
            raise GeometryError(f"the mask lies on another grid than the dose: {self.dose.geometry.difference(structure.geometry)}")
        inside = mask.binary().array
        return 100 * float((inside & ~self.known.array).sum() / inside.sum()) if inside.any() else float("nan")


@dataclass(frozen=True, eq=False)
class AccumulatedDose:
    """The sum of several visits' doses on the planning CT, ``known`` where each of them is, and the visits' own."""

    dose: Volume
    known: Volume
    visits: tuple[WarpedDose, ...]


def by_set_up(planned: Volume, set_up: Floats) -> Volume:
    """The planned dose where the set-up puts it in the image of the day: the same values on a moved grid, nothing interpolated.

    ``set_up`` is the 4x4 rigid map from points of the day to planning points. It is not the dose of the day recalculated.
    Raises GeometryError for a matrix that stretches or mirrors.
    """
    matrix = np.asarray(set_up, dtype=np.float64)
    turn = matrix[:3, :3]
    if matrix.shape != (4, 4) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) <= 0:
        raise GeometryError(f"a set-up is a rotation and a shift, not {matrix.tolist()}", hint="give the rigid registration of the two CTs")
    return Volume(planned.array, Geometry(planned.geometry.shape, np.linalg.inv(matrix) @ planned.geometry.affine))


def warp_dose(dose: Volume, deformation: Deformation, grid: Geometry) -> WarpedDose:
    """A visit's ``dose`` (Gy, in the visit's frame) on ``grid`` of the planning CT.

    ``deformation`` goes from planning (fixed) to the visit (moving): the inverse of the one that carries structures to the day. Raises
    DoseError for a dose that holds what is no number, is negative, or has no voxel where the deformation leads.
    """
    if not np.isfinite(dose.array).all() or (dose.array < 0).any():
        raise DoseError("a dose that is no number or negative cannot be carried", where=f"visit {deformation.moving}")
    known = Volume(deformation.warp(Volume(np.ones(dose.geometry.shape, bool), dose.geometry), grid).array > 0, grid)
    if not known.array.any():
        raise DoseError(
            f"the deformation leads nowhere onto the dose of {deformation.moving!r}",
            where=f"deformation from {deformation.fixed!r} to {deformation.moving!r}",
            hint="check that the dose is in the frame of the visit, and that the deformation goes from planning to the visit",
        )
    warped = deformation.warp(dose, grid)
    return WarpedDose(deformation.moving, warped, known, _integral(dose), _integral(warped))


def accumulate(visits: Sequence[WarpedDose]) -> AccumulatedDose:
    """The sum of visits' doses (Gy each, as delivered) that were warped to one planning CT.

    Raises InputError for no visit, and for doses on different grids.
    """
    if not visits:
        raise InputError("there is no visit to add up")
    grid = visits[0].dose.geometry
    total, known = np.zeros(grid.shape), np.ones(grid.shape, bool)
    for one in visits:
        if not one.dose.geometry.same_grid(grid):
            raise InputError(
                f"the doses of {visits[0].visit} and {one.visit} lie on two grids: {grid.difference(one.dose.geometry)}",
                hint="warp each visit to the same planning CT and dose grid",
            )
        total += one.dose.array
        known &= one.known.array
    return AccumulatedDose(Volume(total.astype(np.float32), grid), Volume(known, grid), tuple(visits))


def _integral(dose: Volume) -> float:
    """Gy litres."""
    return float(dose.array.sum(dtype=np.float64)) * dose.geometry.voxel_mm3 / 1e6
