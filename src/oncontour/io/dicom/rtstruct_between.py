"""Slices between contours: which structures would read otherwise, here or elsewhere, once they are written on other slices.

A mask, and contours that stand for their slices alone, leave slices empty on purpose; a person who draws on every second slice means the
body between as well (``io.dicom.alone``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import rounding_mm
from oncontour.raster import fill
from oncontour.raster.planes import MOST_APART, bridged, drawn_every, gaps_of, nearest_of, slice_of_each, stands_alone

OTHERS_MAY_FILL = (
    "slices between contours are left empty, which an RTSTRUCT cannot say but in words: oncontour reads them as they are, "
    "other programs may fill them"
)
Ints = NDArray[np.int64]


def drawn_on_other_slices(case: Case) -> tuple[str, ...]:
    """The structures (contours without a mask) that would be other voxels on the case's grid if they were written as drawn to a series
    with one image for each slice of that grid, as ``write_series`` makes it, or would leave slices without contours between: how far a
    contour reaches is told by the slices round it, and these are others, as where uneven slices lie on a finer grid. None where they are
    the same but for rounding, as the slices of an even series may be."""
    grid = case.geometry
    slices = Slices.of(grid)
    within_mm = rounding_mm(grid.spacing_mm[0])
    drawn = {name: contours for name, contours in case.contours.items() if name not in case.masks and len(contours)}
    elsewhere = {name: contours for name, contours in drawn.items() if not _same_planes(contours.slices, slices, within_mm)}
    return tuple(
        name
        for name, contours in elsewhere.items()
        if _leaves_gaps(contours, slices) or not np.array_equal(fill(contours, grid, slices=slices).array, fill(contours, grid).array)
    )


def _leaves_gaps(contours: Contours, slices: Slices) -> bool:
    """Whether ``slices`` have some between contours of a person that those drawn on had not: we would fill them, others may not."""
    if contours.alone or contours.slices is None:
        return False
    before, after = (gaps_of(replace(contours, slices=one)) for one in (contours.slices, slices))
    return bool(after.filled.sum() > before.filled.sum())


def left_empty_between(case: Case, slices: Slices) -> tuple[str, ...]:
    """The structures that would be written on ``slices`` with one or two slices left empty between contours, or on one slice in so many
    throughout. We know such contours as our own (``io.dicom.alone``); another reader may take them for a person's and fill what lies
    between."""
    found = []
    for name in case.structures:
        held = _slices_held(case, name, slices)
        if held is not None and _has_small_gap(held, slices.offsets_mm):
            found.append(name)
    return tuple(found)


def _slices_held(case: Case, name: str, slices: Slices) -> Ints | None:
    """Which slices the contours of a mask, or contours that stand for their slices alone, will lie on; None of what a person drew."""
    if name in case.masks:
        mask = case.masks[name]
        along = int(np.abs(mask.geometry.axes @ slices.normal).argmax())
        held = np.flatnonzero(mask.binary().array.any(axis=tuple(axis for axis in range(3) if axis != along)))
        centre = (np.array(mask.geometry.shape) - 1) / 2
        voxels = np.tile(centre, (len(held), 1))
        voxels[:, along] = held
        return np.unique(nearest_of(mask.geometry.points(voxels) @ slices.normal, slices.offsets_mm))
    contours = case.contours[name]
    if not stands_alone(contours, slices):
        return None
    index = slice_of_each(np.array([polygon[0] for polygon in contours]) @ slices.normal, slices)
    return None if index is None else np.unique(index)


def _has_small_gap(held: Ints, offsets_mm: NDArray[np.float64]) -> bool:
    steps = np.diff(held)
    filled = (steps <= MOST_APART) | bridged(steps, np.diff(offsets_mm[held]), drawn_every(held), True)
    return bool(((steps > 1) & filled).any())


def _same_planes(one: Slices | None, other: Slices, within_mm: float) -> bool:
    if one is None or len(one.offsets_mm) != len(other.offsets_mm) or 1 - abs(one.normal @ other.normal) > 1e-8:
        return False
    return bool(np.abs(one.offsets_mm - np.sort(other.origins_mm @ one.normal)).max() <= within_mm + 1e-6)
