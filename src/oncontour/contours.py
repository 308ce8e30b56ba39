"""Planar closed contours in the patient, and their way to voxels and back.

A contour is what a planning system draws: a closed polygon in one plane. A structure is a set of them; where contours of one plane
overlap they combine by XOR, which is how holes are drawn (DICOM PS3.3 C.8.8.6.3 CLOSED_PLANAR; CLOSEDPLANAR_XOR says the same).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import StructureError


@dataclass(frozen=True, eq=False)
class Contours:
    """One structure as closed planar polygons: each an (n >= 3, 3) float64 array of LPS millimetres, not repeated at its end.

    No polygon at all is an *empty* structure (contoured, found nothing); an *absent* one is a name that a case does not have.
    ``colour`` is RGB 0..255 or None. Raises StructureError for arrays of another shape or with values that are not finite.
    """

    polygons: tuple[NDArray[np.float64], ...] = field(default=())
    colour: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        polygons = []
        for n, polygon in enumerate(self.polygons):
            points = np.array(polygon, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 3 or len(points) < 3 or not np.isfinite(points).all():
                raise StructureError(f"contour {n} needs at least 3 finite points (x, y, z), not an array of {points.shape}")
            points.setflags(write=False)
            polygons.append(points)
        object.__setattr__(self, "polygons", tuple(polygons))

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        return iter(self.polygons)
