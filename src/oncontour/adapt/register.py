"""Registration without training: the deformation from one image of a patient to another, and whether to trust it.

From a rigid start (``adapt.start``) the control points of a cubic B-spline are moved until the warped image is like the fixed one: local
correlation against bending energy, from a coarse lattice to a fine one, by Adam. Structures that both visits have may pull as well.
The answer says what it is worth: ``Registration.problems`` holds a sentence for each reason not to use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.levels import Resolution, Settings, Visit, counting, in_voxels, level_of, prepared
from oncontour.adapt.search import Search
from oncontour.adapt.start import Start, find_start
from oncontour.core.boxes import box_of, cropped
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.resample import beyond
from oncontour.errors import GeometryError, InputError

__all__ = ["Registration", "Resolution", "Settings", "Visit", "register"]

Bools = NDArray[np.bool_]
MIRRORED = 0.01
EDGES = 0.8
"""Measured on three head-and-neck patients and a pair of lungs: 0.91 and more with the same patient deformed by 3.5 mm, 0.83 and more where
that visit had a cone beam's noise and shading, at most 0.77 with the visit mirrored, at most 0.31 with another patient."""
COMPARED = 100_000
"""Points, evenly drawn, whose way there and back is looked at."""
BACK = 1.4
"""Times as wide as on the way there are the voxels of the last round of the way back."""
OVERLAP_PERCENT, FOLDING_PERCENT, VOLUME_CHANGE, INCONSISTENT_MM = 50, 0.1, 3, 3.0


@dataclass(frozen=True, eq=False)
class Registration:
    """A deformation from the fixed to the moving image, and the figures by which to judge it.

    ``start`` is the 4x4 rigid map it began with. The correlations are means of the local one over what counts: of the images as they lie,
    after the start, and at the end. ``edges`` says how well edges lie on edges at the end: in nine tenths of the windows of 8 mm that hold
    one (values that spread by 120 HU) the correlation is at least this. ``overlap_percent`` of what counts has a place in the moving image.
    ``jacobian``: the least, the 1st and the 99th percentile and the greatest determinant there; ``folding_percent`` the share of 0 and
    less. ``inconsistency_mm``: median and 95th percentile of how far a point comes back from its place by the two registrations; None
    unless asked for. ``problems``: a sentence for each reason not to use it; empty where there is none. ``refusals`` are those of them that
    say that these are no two CTs of one place in one patient.
    """

    deformation: Deformation
    start: Floats
    correlation_before: float
    correlation_start: float
    correlation_after: float
    edges: float
    overlap_percent: float
    jacobian: tuple[float, float, float, float]
    folding_percent: float
    converged: bool
    inconsistency_mm: tuple[float, float] | None
    problems: tuple[str, ...]
    refusals: tuple[str, ...] = ()


def register(fixed: Visit, moving: Visit, settings: Settings | None = None, start: Floats | Deformation | None = None) -> Registration:
    """The deformation that makes ``moving`` look like ``fixed``, with its figures: x of the fixed image lies at x + u(x) in the moving one.

    ``start``: a 4x4 rigid or affine map from fixed to moving points, or a whole deformation (a net's) to go on from; without it one is
    sought. The field is given over the whole fixed image in voxels of the last round; beyond the region that was matched it goes on
    unchanged. Raises InputError for an image that is constant or holds what is no number, GeometryError where the two do not meet under
    ``start`` or are too thin to register. Another patient's image raises nothing: see ``Registration.problems``.
    """
    settings = settings or Settings()
    fixed, moving = _checked(fixed, settings), _checked(moving, settings)
    box = _box(fixed, settings)
    levels = [level_of(fixed, moving, box, round_.voxel_mm, settings) for round_ in settings.rounds]
    given = start.affine_part if isinstance(start, Deformation) else start
    if given is not None and levels[0].overlap(levels[0].under(given)) == 0:
        raise GeometryError(
            f"{fixed.name!r} and {moving.name!r} share no field of view under the start that was given",
            hint="check which images belong together, or give no start",
        )
    begin = find_start(fixed, moving, box, settings, given)
    search = Search(fixed, moving, settings, begin.matrix, levels)
    found = search.through(search.fitted(start) if isinstance(start, Deformation) else search.still())
    return _judged(fixed, moving, settings, search, found, begin)


def _judged(fixed: Visit, moving: Visit, settings: Settings, search: Search, coefficients: Tensor, begin: Start) -> Registration:
    """The deformation of a finished search with every figure, and a sentence for each that is not good enough."""
    grid = in_voxels(fixed.image.geometry, settings.rounds[-1].voxel_mm)
    deformation = search.deformation(coefficients, grid)
    where = counting(fixed, grid, settings) > 0
    after, edges, overlap = search.correlation(coefficients)
    determinants = deformation.jacobian().array[where]
    found = Registration(
        deformation=deformation,
        start=search.matrix,
        correlation_before=search.correlation(None, np.eye(4))[0],
        correlation_start=search.correlation(None)[0],
        correlation_after=after,
        edges=edges,
        overlap_percent=100 * overlap,
        jacobian=_four(determinants),
        folding_percent=100 * float((determinants <= 0).mean()),
        converged=search.converged,
        inconsistency_mm=_inconsistency(fixed, moving, settings, deformation, search.matrix, where) if settings.both_ways else None,
        problems=(),
    )
    return _told(found, begin)


def judge(fixed: Visit, moving: Visit, deformation: Deformation, start: Floats, settings: Settings | None = None) -> Registration:
    """A deformation that another program or a net found, with the figures of ``register``; ``start`` is the 4x4 rigid map it stands beside.
    With ``settings.both_ways`` the way back is what ``register`` finds.

    Raises what ``register`` raises of images, and InputError for a field that lies elsewhere than the fixed image.
    """
    settings = settings or Settings()
    fixed, moving = _checked(fixed, settings), _checked(moving, settings)
    box = _box(fixed, settings)
    level = level_of(fixed, moving, box, settings.rounds[-1].voxel_mm, settings)
    units = level.units(deformation.to_moving(level.points))
    where = counting(fixed, deformation.geometry, settings) > 0
    determinants = deformation.jacobian().array[where]
    with torch.no_grad():
        as_lie, rigid, warped = (float(level.correlation(at)) for at in (level.under(np.eye(4)), level.under(start), units))
        edges, overlap = level.edges(units), 100 * level.overlap(units)
    found = Registration(
        deformation,
        start,
        as_lie,
        rigid,
        warped,
        edges,
        overlap,
        _four(determinants),
        100 * float((determinants <= 0).mean()),
        True,
        _inconsistency(fixed, moving, settings, deformation, start, where) if settings.both_ways else None,
        (),
    )
    return _told(found, find_start(fixed, moving, box, settings, start))


def _told(found: Registration, begin: Start) -> Registration:
    refusals = tuple(_refusals(found, begin))
    return replace(found, problems=(*refusals, *_doubts(found)), refusals=refusals)


def _four(determinants: NDArray[np.floating]) -> tuple[float, float, float, float]:
    least, low, high, greatest = (float(v) for v in np.percentile(determinants, (0, 1, 99, 100)))
    return least, low, high, greatest


def _inconsistency(fixed: Visit, moving: Visit, settings: Settings, there: Deformation, start: Floats, where: Bools) -> tuple[float, float]:
    """Median and 95th percentile in mm of how far points come back from their place by a registration the other way: from the same start,
    its last round in coarser voxels and of fewer steps, as nothing else is asked of it."""
    last = settings.rounds[-1]
    fast = replace(last, voxel_mm=BACK * last.voxel_mm, steps=-(-last.steps * 2 // 3))
    quick = replace(settings, rounds=(*settings.rounds[:-1], fast), both_ways=False)
    levels = [level_of(moving, fixed, _box(moving, quick), round_.voxel_mm, quick) for round_ in quick.rounds]
    search = Search(moving, fixed, quick, np.linalg.inv(start).astype(np.float64), levels)
    back = search.deformation(search.through(search.still()), in_voxels(moving.image.geometry, fast.voxel_mm))
    index = np.flatnonzero(where)
    points = there.geometry.points(np.stack(np.unravel_index(index[:: max(1, len(index) // COMPARED)], where.shape), axis=-1))
    away = there.to_moving(points)
    inside = ~beyond(back.geometry.voxels(away).T[..., None], back.geometry.shape)[:, 0]
    met = np.linalg.norm(back.to_moving(away[inside]) - points[inside], axis=-1)
    return (float(np.median(met)), float(np.percentile(met, 95))) if met.size else (float("nan"), float("nan"))


def _refusals(found: Registration, begin: Start) -> Iterator[str]:
    """A sentence for each figure that two CTs of one place in one patient do not have."""
    if begin.correlation_mirrored > begin.correlation + MIRRORED:
        yield (
            f"one image looks mirrored: with left and right exchanged the two are more alike (local correlation "
            f"{begin.correlation_mirrored:.2f} instead of {begin.correlation:.2f}); check the orientation of both and whose they are"
        )
    if not found.edges >= EDGES:
        yield (
            f"edges do not lie on edges after registration: their correlation is {found.edges:.2f}, at least {EDGES} between "
            "two CTs of one patient; look for another patient, a mirrored image or another part of the body"
        )
    if found.overlap_percent < OVERLAP_PERCENT:
        yield f"only {found.overlap_percent:.0f} % of the fixed image has a place in the moving one, at least {OVERLAP_PERCENT} % must have"


def _doubts(found: Registration) -> Iterator[str]:
    """A sentence for each figure of the field that is not good enough."""
    if found.folding_percent > FOLDING_PERCENT:
        yield f"{found.folding_percent:.2g} % of the field folds, at most {FOLDING_PERCENT} %: register with a higher bending_mm2"
    if found.jacobian[1] < 1 / VOLUME_CHANGE or found.jacobian[2] > VOLUME_CHANGE:
        low, high = found.jacobian[1:3]
        yield f"volumes change by {low:.2g} to {high:.2g} times, more than {VOLUME_CHANGE}-fold: look at the images"
    if not found.converged:
        yield "the search had not settled when its steps were used up: give its last round more steps"
    if found.inconsistency_mm is not None and not found.inconsistency_mm[0] <= INCONSISTENT_MM:
        yield f"there and back the field misses by {found.inconsistency_mm[0]:.1f} mm in the median, at most {INCONSISTENT_MM} mm"


def _checked(visit: Visit, settings: Settings) -> Visit:
    """The visit with its image in float32, as every resolution asks for it. Raises InputError for an image that cannot be registered,
    GeometryError for a region on another grid."""
    image = visit.image.map(lambda hu: hu.astype(np.float32, copy=False))
    if image.array.ndim != 3 or min(image.geometry.shape) < 4:
        raise GeometryError(
            f"an image of {image.array.shape} voxels is too thin to register, at least 4 each way", where=f"visit {visit.name}"
        )
    if bad := int(image.array.size - np.isfinite(image.array).sum()):
        raise InputError(f"{bad} voxels are no numbers", where=f"visit {visit.name}", hint="write the image again without NaN")
    coarse = prepared(image, image.geometry.resample([max(8.0, s) for s in image.geometry.spacing_mm]), settings.clip_hu)
    if (spread := 100 * float(coarse.std())) < settings.floor_hu:
        low, high = settings.clip_hu
        raise InputError(
            f"the image is constant: between {low:g} and {high:g} HU its values spread by {spread:.3g} HU, at least {settings.floor_hu:g}",
            where=f"visit {visit.name}",
            hint="check that it is a CT in HU",
        )
    return replace(visit, image=image)


def _box(fixed: Visit, settings: Settings) -> Geometry:
    """The part of the fixed grid that registration looks at: the region with its margin and half a window, else all of it."""
    grid = fixed.image.geometry
    if fixed.region is None:
        return grid
    inside = box_of(fixed.region.binary().array)
    if inside is None:
        raise InputError("the region to match is empty", where=f"visit {fixed.name}", hint="give a region with voxels, or none")
    room = [int(np.ceil((settings.margin_mm + settings.window_mm / 2) / step)) for step in grid.spacing_mm]
    ends = grid.around(cropped(fixed.region.geometry, inside).corners_mm)
    return grid.around(ends.pad(room, room).corners_mm)
