"""What registration and segmentation nets are shown of a patient: the planning and the daily visit on one working grid.

A cohort of repeat visits is a folder of patients with a folder a visit (``patient/visit-0``, ``patient/visit-1``, ...), each DICOM or
NIfTI; the first is the planning visit. ``visit_case`` gives a case of a later one, whose ``prior`` is the planning case. A patient is
split from others, never a visit from its siblings: samples bear the planning case's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.levels import Settings, Visit
from oncontour.adapt.register import Registration, register
from oncontour.adapt.simulate import DAILY, PLANNING
from oncontour.adapt.start import find_start
from oncontour.core.case import Case
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.files import writing
from oncontour.io import read
from oncontour.ops.body import body_mask, is_masked
from oncontour.ops.intensity import AIR_HU

Triple = tuple[float, float, float]
Size = tuple[int, int, int]
ALIGNED = "planning, moved rigidly"
"""What a deformation calls the planning visit once it lies as the daily one."""
TRUTH = "deformation.npz"
"""File beside a simulated visit's images that holds the true displacement."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The planning (moving) and the daily (fixed) visit of a patient on one upright working grid, voxel by voxel (k, j, i).

    ``fixed`` and ``moving`` HU; ``fixed_bits`` and ``moving_bits``: bit n for structure n; ``known``: which structures both visits have;
    ``inside``: where the daily CT shows the patient; ``start`` and ``truth`` (3, k, j, i): displacements in mm from the daily to the
    planning visit (which has been moved rigidly to lie as the daily one), x, y and z in LPS, to begin with and as they truly are; None
    where there is none to begin with, or nobody knows.
    """

    case_id: str
    grid: Geometry
    fixed: NDArray[np.int16]
    moving: NDArray[np.int16]
    fixed_bits: NDArray[np.uint32]
    moving_bits: NDArray[np.uint32]
    known: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    start: NDArray[np.float16] | None = None
    truth: NDArray[np.float16] | None = None


def visit_case(patient: str, planning: Path, visit: Path) -> Case:
    """The daily visit in folder ``visit`` with the planning visit as its ``prior``; its id is PATIENT/FOLDER.

    What a simulation knows of it, beside the images, is in ``facts["deformation"]``. Raises what ``io.read`` raises.
    """
    case = read(visit, id=f"{patient}/{visit.name}")
    return with_truth(replace(case, prior=read(planning, id=patient)), visit / TRUTH)


def planning_of(case: Case) -> Case:
    """The planning visit of a daily one. Raises InputError where there is none."""
    if case.prior is None:
        raise InputError("there is no planning visit to adapt from", where=f"case {case.id}", hint="give the planning visit's folder")
    return case.prior


# ---- the true displacement of a simulated visit


def write_displacement(deformation: Deformation, path: Path, *, half: bool = False) -> None:
    """Write a displacement: arrays ``displacement`` (3, k, j, i) in mm and ``affine``, no pickle; ``half``: as float16, which is within
    0.02 mm up to 64 mm."""
    kind = np.float16 if half else np.float32
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, displacement=deformation.displacement.array.astype(kind), affine=deformation.geometry.affine)


def read_displacement(path: Path) -> Deformation:
    """The deformation from the daily to the planning visit that ``write_displacement`` wrote, in float32 and more.

    Raises InputError for a file that holds no displacement.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            u, affine = held["displacement"], held["affine"]
            u = u.astype(np.float32) if u.dtype == np.float16 else u
            return Deformation(Volume(u, Geometry(u.shape[1:], affine)), DAILY, PLANNING)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"no displacement can be read here ({error})", where=str(path), hint="remove the file and make it again"
        ) from error


def with_truth(case: Case, path: Path) -> Case:
    """The case with the true deformation that lies beside it as ``facts["deformation"]``; as it is where none does.

    Raises InputError for a file that holds no displacement.
    """
    return replace(case, facts={**case.facts, "deformation": read_displacement(path)}) if path.is_file() else case


# ---- on the working grid


@dataclass(frozen=True)
class View:
    """How a net sees a pair: ``structures`` in order, a grid of ``window`` voxels of ``spacing_mm`` (k, j, i) about them, upright; with
    ``optimised`` it begins with the field that a registration of this pair alone finds (``adapt.register``)."""

    structures: tuple[str, ...]
    spacing_mm: Triple
    window: Size
    optimised: bool


@dataclass(frozen=True, eq=False)
class Paired:
    """A pair as the net sees it, the 4x4 ``rigid`` map from the daily to the planning visit that was taken out first, and the
    ``registration`` whose field it begins with (None where it begins with nothing)."""

    pair: Pair
    rigid: Floats
    registration: Registration | None


def paired(daily: Case, planning: Case, view: View, truth: Deformation | None = None) -> Paired:
    """Both visits as the net sees them.

    ``truth`` is what a simulation knows; such visits lie as one and are not registered rigidly. Raises InputError where the planning
    visit has none of the structures, and what ``register`` raises of images that cannot be registered.
    """
    fixed, moving = visit_of(daily, DAILY), visit_of(planning, PLANNING)
    settings = Settings()
    rigid = np.eye(4) if truth is not None else find_start(fixed, moving, fixed.image.geometry, settings).matrix
    grid = working_grid(planning, view, np.asarray(np.linalg.inv(rigid)))
    aligned = Deformation.from_matrix(rigid, grid, DAILY, PLANNING)
    found = register(fixed, moving, settings, rigid) if view.optimised else None
    known = np.array([name in daily.structures and name in planning.structures for name in view.structures])
    pair = Pair(
        planning.id,
        grid,
        _hu(daily.ct.to(grid, fill=AIR_HU)),
        _hu(aligned.warp(planning.ct, fill=AIR_HU)),
        _bits({name: daily.mask(name, grid) for name in view.structures if name in daily.structures}, view),
        _bits(aligned.warp_masks({name: planning.mask(name) for name in view.structures if name in planning.structures}), view),
        known,
        shown(daily.ct, grid),
        None if found is None else _half(found.deformation.then_matrix(np.linalg.inv(rigid), ALIGNED, grid)),
        None if truth is None else _half(truth.then_matrix(np.eye(4), PLANNING, grid)),
    )
    return Paired(pair, rigid, found)


def working_grid(planning: Case, view: View, to_daily: Floats) -> Geometry:
    """The view's grid in the daily visit, about the middle of the planning visit's structures, which ``to_daily`` (4x4) takes there.

    Raises InputError where it has none of them.
    """
    masks = [planning.mask(name) for name in view.structures if name in planning.structures]
    corners = [np.asarray(m.geometry.points(_ends(m))) for m in masks if m.array.any()]
    if not corners:
        raise InputError(f"none of {', '.join(view.structures)} is contoured", where=f"planning case {planning.id}")
    points = np.concatenate(corners)
    middle = to_daily[:3, :3] @ ((points.min(axis=0) + points.max(axis=0)) / 2) + to_daily[:3, 3]
    upright = Geometry.regular(view.window, view.spacing_mm)
    return Geometry.regular(view.window, view.spacing_mm, (middle - upright.centre_mm).tolist())


def _ends(mask: Volume) -> NDArray[np.float64]:
    """(2, 3) first and last voxel (k, j, i) of a mask that is not empty."""
    where = np.argwhere(mask.array)
    return np.stack([where.min(axis=0), where.max(axis=0)]).astype(np.float64)


_SEEN: WeakKeyDictionary[Volume, Volume] = WeakKeyDictionary()
"""What was found of CTs that are still there: registration, set-up and pages all ask."""


def seen_of(ct: Volume) -> Volume:
    """Where a CT shows the patient: within the body, and not where it was masked."""
    if ct not in _SEEN:
        body = body_mask(ct).array
        _SEEN[ct] = Volume(body & (ct.array > ct.array.min()) if is_masked(ct) else body, ct.geometry)
    return _SEEN[ct]


def shown(ct: Volume, grid: Geometry) -> NDArray[np.bool_]:
    """``seen_of`` on ``grid``."""
    return np.asarray(seen_of(ct).to(grid).array)


def visit_of(case: Case, name: str) -> Visit:
    """What registration is told of a visit: the CT, and what is known of it where it was masked."""
    known = case.ct.map(lambda hu: hu > hu.min()) if is_masked(case.ct) else None
    return Visit(case.ct, name, known=known, region=seen_of(case.ct))


def _hu(ct: Volume) -> NDArray[np.int16]:
    return np.clip(np.rint(ct.array), -32768, 32767).astype(np.int16)


def _bits(masks: Mapping[str, Volume], view: View) -> NDArray[np.uint32]:
    bits = np.zeros(view.window, np.uint32)
    for n, name in enumerate(view.structures):
        if name in masks:
            bits |= masks[name].array.astype(np.uint32) << np.uint32(n)
    return bits


def _half(deformation: Deformation) -> NDArray[np.float16]:
    """(3, k, j, i) displacement in mm, within 0.02 mm of what it was up to 64 mm."""
    return deformation.displacement.array.astype(np.float16)
