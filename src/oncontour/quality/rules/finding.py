"""What every check looks at: one structure, measured once; and the codes of what a check finds.

Slices are the planes of the case's grid, counted from 0 along k. A case that was read from uneven DICOM slices lies on a finer grid; there
the checks count in the slices that were drawn on (``Contours.slices``), and name the planes of the grid that these stand for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import Box, box_of
from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CODES: dict[str, str] = {
    "empty": "nothing contoured",
    "gap": "gap in the stack",
    "isolated": "isolated slice",
    "stray": "far from the rest",
    "island": "island",
    "sliver": "sliver",
    "outside": "outside the body",
    "side": "left and right",
    "volume": "unusual volume",
    "position": "unusual position",
    "overlap": "overlap",
    "cut": "cut by the field of view",
}
"""code -> its title for people. The order is that of the findings of a structure."""
OF_PLACE = frozenset({"side", "position", "outside", "stray"})
"""Codes that speak of where a structure lies: they come first, and stand among the warnings."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A structure that has voxels: its box in the grid, the voxels in it, and what is read off them once.

    ``drawn`` (slices of the grid): which drawn slice each plane of the grid belongs to.
    """

    name: str
    grid: Geometry
    box: Box
    part: Mask
    drawn: Ints
    contours: Contours | None

    @property
    def counts(self) -> Ints:
        """Voxels in each slice of the box."""
        return np.asarray(self.part.sum(axis=(1, 2), dtype=np.int64))

    @property
    def first(self) -> int:
        """The slice where the box begins."""
        return int(self.box[0].start)

    @property
    def slices(self) -> Ints:
        """Slices that hold voxels."""
        return np.flatnonzero(self.counts) + self.first

    @property
    def pixel_mm2(self) -> float:
        return self.grid.spacing_mm[1] * self.grid.spacing_mm[2]

    @property
    def volume_cc(self) -> float:
        return float(self.part.sum(dtype=np.int64)) * self.grid.voxel_mm3 / 1000

    @property
    def centre_mm(self) -> Floats:
        """Centre of mass (x, y, z)."""
        sums = [self.part.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.int64) for axis in range(3)]
        at = [side.start + float(n @ np.arange(len(n))) / float(n.sum()) for side, n in zip(self.box, sums, strict=True)]
        return self.grid.points(at)


def see(case: Case, name: str) -> Seen | None:
    """Structure ``name`` of ``case``, measured; None where it has no voxels."""
    mask = case.mask(name)
    box = box_of(mask.array)
    if box is None:
        return None
    contours = case.contours.get(name)
    return Seen(name, mask.geometry, box, np.ascontiguousarray(mask.array[box]), drawn_on(mask.geometry, contours), contours)


def drawn_on(grid: Geometry, contours: Contours | None) -> Ints:
    """For each slice of ``grid`` the drawn slice that it belongs to; itself where the drawn slices are unknown or lie across."""
    count = grid.shape[0]
    slices = contours.slices if contours is not None else None
    if slices is None or len(slices.offsets_mm) < 2 or abs(float(slices.normal @ grid.axes[0])) < 1 - 1e-4:
        return np.arange(count)
    planes = grid.points(np.stack([np.arange(count), np.zeros(count), np.zeros(count)], axis=1)) @ slices.normal
    middles = (slices.offsets_mm[1:] + slices.offsets_mm[:-1]) / 2
    return np.asarray(np.searchsorted(middles, planes), dtype=np.int64)


def runs(values: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of every run of neighbouring whole numbers."""
    ordered = sorted({int(value) for value in values})
    out: list[tuple[int, int]] = []
    for value in ordered:
        if out and value == out[-1][1] + 1:
            out[-1] = (out[-1][0], value)
        else:
            out.append((value, value))
    return out


def where(grid: Geometry, slices: Sequence[int]) -> str:
    """Slices in words: ``z -12.0 to -6.0 mm and 33.0 mm``; by number where slices do not lie across z. At most three runs are told."""
    said = runs(slices)
    axial = abs(float(grid.axes[0, 2])) > 0.7

    def at(k: int) -> str:
        return f"{float(grid.points((k, (grid.shape[1] - 1) / 2, (grid.shape[2] - 1) / 2))[2]):.1f}" if axial else str(k + 1)

    parts = [at(a) if a == b else f"{at(a)} to {at(b)}" for a, b in said[:3]]
    more = f" and {len(said) - 3} more places" if len(said) > 3 else ""
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + (", " if more else " and ") + parts[-1]
    return (f"z {text} mm" if axial else f"slice {text}") + more
