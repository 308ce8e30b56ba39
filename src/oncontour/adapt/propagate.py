"""The planning case's structures on the CT of the day: organs by the deformation, targets rigidly unless asked otherwise.

A target is drawn by intent, not by anatomy: where it shrank on the images, tumour cells may still be, and who may re-shape it is the
physician. So it is carried by the set-up alone, and how each structure was carried is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oncontour.adapt.deformation import Deformation, coarsely
from oncontour.core.boxes import box_of
from oncontour.core.case import BitMasks, Case
from oncontour.core.geometry import Floats
from oncontour.core.resample import beyond
from oncontour.core.structure_kinds import is_target
from oncontour.core.volume import Volume
from oncontour.errors import InputError

FOLDING_PERCENT = 0.1
"""A field that folds in more than this carries no structure."""
FINE_MM = 1.5
"""Voxels in which a planned structure is held while it is carried: of coarse ones, half covered and more, thin structures lose volume."""
SAMPLED = 2000
"""Of a structure about so many voxels tell where it went, evenly chosen."""
AT_ONCE = 4
"""So many masks are held at a time beyond those that are given back."""


@dataclass(frozen=True)
class Carried:
    """What became of one structure: ``how`` it was carried, its volume before and after, where its middle went beyond the set-up.

    "direct" is not carried: an outline that a model drew on the CT of the day took its place. ``moved_mm`` (x, y, z)
    is how far its voxels went in the mean beyond the set-up; None where the structure is empty on either CT.
    ``beyond_percent`` of the planned structure lies where the image of the day does not reach.
    """

    name: str
    how: Literal["deformed", "rigid", "direct"]
    planned_cc: float
    carried_cc: float
    moved_mm: tuple[float, float, float] | None
    beyond_percent: float


@dataclass(frozen=True, eq=False)
class Propagated:
    """The case of the day with the planning structures as masks on its grid, and what became of each; ``set_up`` is the 4x4 rigid map from
    the day to planning that targets were carried by."""

    case: Case
    structures: tuple[Carried, ...]
    set_up: Floats


def propagate(
    planning: Case,
    daily: Case,
    deformation: Deformation,
    *,
    set_up: Floats | None = None,
    targets: Literal["rigid", "deformed"] = "rigid",
    names: Sequence[str] | None = None,
) -> Propagated:
    """The structures of ``planning`` (``names``, default all) carried to ``daily`` by the deformation from the day to planning.

    ``set_up``: 4x4 from points of the day to planning points (a REG's, or a registration's start); by default the rigid part of the
    deformation. Raises InputError for a deformation between other cases or the other way round, one that folds, and names that
    ``planning`` does not have.
    """
    _check(planning, daily, deformation)
    chosen = list(planning.structures if names is None else names)
    if missing := [name for name in chosen if name not in planning.structures]:
        raise InputError(f"no structures {missing}; there are {list(planning.structures)}", where=f"case {planning.id}")
    matrix = deformation.rigid_part() if set_up is None else np.asarray(set_up, dtype=np.float64)
    rigidly = Deformation.from_matrix(matrix, coarsely(daily.geometry), deformation.fixed, deformation.moving)
    planes = np.zeros((-(-len(chosen) // 8), *daily.geometry.shape), np.uint8)
    masks = BitMasks(Volume(planes, daily.geometry), chosen)
    told: list[Carried] = []
    ways: tuple[tuple[Literal["deformed", "rigid"], Deformation], ...] = (("deformed", deformation), ("rigid", rigidly))
    for how, field in ways:
        some = [name for name in chosen if (how == "rigid") == (is_target(name) and targets == "rigid")]
        for start in range(0, len(some), AT_ONCE):
            planned = {name: _fine(planning.mask(name)) for name in some[start : start + AT_ONCE]}
            carried = field.warp_masks(planned, daily.geometry)
            for name, mask in carried.items():
                plane, bit = masks.place(name)
                planes[plane] |= mask.array * np.uint8(bit)
            told += [_told(name, how, planned[name], carried[name], matrix, field) for name in planned]
    by_name = {one.name: one for one in told}
    return Propagated(daily.with_masks(masks), tuple(by_name[name] for name in chosen), matrix)


def _check(planning: Case, daily: Case, deformation: Deformation) -> None:
    way = f"deformation from {deformation.fixed!r} to {deformation.moving!r}"
    if (deformation.fixed, deformation.moving) != (daily.id, planning.id):
        swapped = (deformation.fixed, deformation.moving) == (planning.id, daily.id)
        raise InputError(
            f"to carry structures from {planning.id!r} to {daily.id!r} takes the deformation from {daily.id!r} to {planning.id!r}",
            where=way,
            hint="this one goes the other way: swap the two visits, or give its inverse"
            if swapped
            else "give the deformation of these two",
        )
    if (folded := deformation.folding_percent()) > FOLDING_PERCENT:
        raise InputError(
            f"{folded:.3g} % of the field folds, at most {FOLDING_PERCENT} %: structures carried by it would be turned inside out",
            where=way,
            hint="register again with a stiffer setting",
        )


def _fine(mask: Volume) -> Volume:
    """A mask in the box about it with its voxels divided until they are of FINE_MM at most."""
    found = box_of(mask.array)
    if found is None:
        return mask
    box = mask.geometry.crop([side.start - 1 for side in found], [side.stop + 1 for side in found])
    return mask.to(box.resample([step / np.ceil(step / FINE_MM - 1e-6) for step in box.spacing_mm]), nearest=True)


def _told(name: str, how: Literal["deformed", "rigid"], planned: Volume, carried: Volume, set_up: Floats, field: Deformation) -> Carried:
    inside = np.argwhere(planned.array)
    if not len(inside):
        return Carried(name, how, 0.0, carried.volume_cc, None, 0.0)
    points = planned.geometry.points(inside[:: max(1, len(inside) // SAMPLED)])
    today, _ = field.solve(points)
    back, grid = np.linalg.inv(set_up), carried.geometry
    x, y, z = (float(v) for v in (today - points @ back[:3, :3].T - back[:3, 3]).mean(axis=0))
    outside = 100 * float(beyond(grid.voxels(today).T[:, None], grid.shape).mean())
    return Carried(name, how, planned.volume_cc, carried.volume_cc, (x, y, z) if carried.array.any() else None, outside)
