"""One row a structure: what the table, report.json and the page say of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from oncontour.core.boxes import box_of
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.metrics.overlap import dsc
from oncontour.palette import Colour, colour_of
from oncontour.quality.rules import shipped_ranges
from oncontour.sides import side_of

MIDLINE_MM = 5.0
"""A centre of mass nearer than this to the middle of the body is called ``middle``."""


@dataclass(frozen=True)
class Row:
    """What is said of one structure. Empty: no slices, no extent, no centre, side ``""``.

    ``extent_mm``: lowest and highest z (LPS) of the box of voxels around it; ``centre_mm``: centre of mass (x, y, z); ``side``: left,
    right or middle of the patient, measured; ``side_expected``: what the name says (``_L``, ``_R``), or ""; ``dsc``, ``hd95_mm`` and
    ``msd_mm``: against the contours that it is compared with, where they were given; None where both are empty, and distances ``inf`` where
    one is.
    """

    name: str
    colour: Colour
    volume_cc: float
    slices: int
    gap_slices: int
    """empty slices between the first and the last"""
    extent_mm: tuple[float, float] | None
    centre_mm: tuple[float, float, float] | None
    side: str
    side_expected: str
    cut: bool
    """whether it reaches the first or the last slice, so that the scan may end inside it"""
    dsc: float | None = None
    no_voxel: bool = False
    """whether there are contours, but no voxel of the image lies in them: they lie elsewhere, or are too small"""
    hd95_mm: float | None = None
    msd_mm: float | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def rows(case: Case, names: Sequence[str] | None = None, truth: Case | None = None) -> list[Row]:
    """A Row for each of ``names`` (default: every structure of the case), in that order."""
    middle = _midline_mm(case)
    return [_row(case, name, colour_of(n), middle, truth) for n, name in enumerate(names or case.structures)]


def warnings(table: Sequence[Row], sided: Collection[str] = ()) -> list[str]:
    """What a person must be told of these structures, in words; ``sided``: of these the rules have told that the side is wrong."""
    nothing = "was looked for and nothing was found: its contour is empty."
    unseen = "has contours, but no voxel of this image lies in them: they lie elsewhere, or are smaller than a voxel."
    said = [f"{row.name} {unseen if row.no_voxel else nothing}" for row in table if not row.slices]
    for row in table:
        if row.slices and row.name not in sided and row.side_expected and row.side not in (row.side_expected, "middle"):
            said.append(f"{row.name} lies on the patient's {row.side} side: left and right may be swapped.")
        if row.gap_slices:
            said.append(f"{row.name} has {row.gap_slices} empty slices in its middle: a part is missing, or one is in the wrong place.")
        if row.cut and not shipped_ranges().goes_on(row.name):
            said.append(f"{row.name} reaches the first or last slice: the scan may end inside it and its volume be too small.")
    return said


def expected_side(name: str) -> str:
    """``left`` for Parotid_L, ``right`` for Parotid_R, "" for what has no side."""
    return {"L": "left", "R": "right", "": ""}[side_of(name)]


def _row(case: Case, name: str, colour: Colour, middle_mm: float, truth: Case | None) -> Row:
    mask = case.mask(name)
    dsc, hd95_mm, msd_mm = _apart(mask, name, truth)
    if case.contours.get(name) is not None and (given := case.contours[name].colour):
        colour = given
    box = box_of(mask.array)
    if box is None:
        drawn = name not in case.masks and len(case.contours[name]) > 0
        return Row(name, colour, 0.0, 0, 0, None, None, "", expected_side(name), False, dsc, drawn, hd95_mm, msd_mm)
    grid, part = mask.geometry, mask.array[box]
    counts = [part.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.int64) for axis in range(3)]
    centre = grid.points([side.start + n @ np.arange(len(n)) / n.sum() for side, n in zip(box, counts, strict=True)])
    edges = [(side.start - 0.5, side.stop - 0.5) for side in box]
    z_mm = grid.points([(k, j, i) for k in edges[0] for j in edges[1] for i in edges[2]])[:, 2]
    step = int(np.argmax(np.abs(grid.axes[:, 2])))
    away = centre[0] - middle_mm
    side = "middle" if abs(away) < MIDLINE_MM else "left" if away > 0 else "right"
    return Row(
        name,
        colour,
        mask.volume_cc,
        int((counts[step] > 0).sum()),
        int((counts[step] == 0).sum()),
        (float(z_mm.min()), float(z_mm.max())),
        (float(centre[0]), float(centre[1]), float(centre[2])),
        side,
        expected_side(name),
        box[step].start == 0 or box[step].stop == grid.shape[step],
        dsc,
        hd95_mm=hd95_mm,
        msd_mm=msd_mm,
    )


def _midline_mm(case: Case) -> float:
    """x of the middle of the body: the mean over soft tissue of every fourth voxel; the grid's middle where there is no CT."""
    if "ct" not in case.images:
        return float(case.geometry.centre_mm[0])
    ct = case.ct
    inside = np.argwhere(ct.array[::2, ::4, ::4] > -300)
    if not len(inside):
        return float(ct.geometry.centre_mm[0])
    return float(ct.geometry.points(inside.mean(axis=0) * [2, 4, 4])[0])


def _apart(mask: Volume, name: str, other: Case | None) -> tuple[float | None, float | None, float | None]:
    """(DSC, HD95, MSD) of ``mask`` and the structure of that name in ``other``; None where that has none, or both are empty."""
    if other is None or name not in other.structures:
        return None, None, None
    from oncontour.metrics.surface import surfaces

    theirs = other.own_mask(name, mask.geometry)
    score = dsc(theirs, mask)
    if np.isnan(score):
        return None, None, None
    apart = surfaces(theirs, mask)
    return score, apart.hd95_mm, apart.msd_mm
