"""Planar closed contours in the patient, and the slices they were drawn on.

A contour is what a planning system draws: a closed polygon in one plane. A structure is a set of them; where contours of one plane
overlap they combine by XOR, which is how holes are drawn (DICOM PS3.3 C.8.8.6.3 CLOSED_PLANAR; CLOSEDPLANAR_XOR says the same).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry
from oncontour.errors import GeometryError, StructureError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slices:
    """The true image planes of a series: parallel, in growing order along ``normal``, as unevenly spaced and as tilted as they are.

    ``origins_mm`` (n, 3): LPS mm of the centre of each slice's first pixel; ``row``/``column``: the directions of growing column and of
    growing row index (DICOM ImageOrientationPatient); ``pixel_mm``: (between rows, between columns); ``shape``: (rows, columns).
    Raises GeometryError when the values are not finite, the directions not at right angles, or two slices share one plane.
    """

    origins_mm: Floats
    row: Floats
    column: Floats
    pixel_mm: tuple[float, float]
    shape: tuple[int, int]

    @classmethod
    def of(cls, grid: Geometry) -> Slices:
        """The k planes of ``grid``: the image planes of a series with one image for each of its slices."""
        origins = grid.points([(k, 0, 0) for k in range(grid.shape[0])])
        return cls(origins, grid.axes[2], grid.axes[1], grid.spacing_mm[1:], grid.shape[1:])

    def __post_init__(self) -> None:
        origins, row, column = (np.array(v, dtype=np.float64) for v in (self.origins_mm, self.row, self.column))
        if origins.ndim != 2 or origins.shape[1] != 3 or not len(origins) or row.shape != (3,) or column.shape != (3,):
            raise GeometryError(f"slices need origins (n, 3) and two directions (3,), not {origins.shape}, {row.shape}, {column.shape}")
        if not (np.isfinite(origins).all() and np.isfinite(row).all() and np.isfinite(column).all()):
            raise GeometryError("slice positions and directions must be finite")
        lengths = np.linalg.norm(row), np.linalg.norm(column)
        if min(lengths) < 1e-6 or abs(row @ column) / (lengths[0] * lengths[1]) > 1e-3:
            raise GeometryError(f"row and column directions must be at right angles, not {row.tolist()} and {column.tolist()}")
        row, column = row / lengths[0], column / lengths[1]
        origins = origins[np.argsort(origins @ np.cross(row, column), kind="stable")]
        for name, value in (("origins_mm", origins), ("row", row), ("column", column)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if len(origins) > 1 and np.diff(self.offsets_mm).min() < 1e-4:
            raise GeometryError(f"two slices share the plane at {float(self.offsets_mm[np.diff(self.offsets_mm).argmin()]):.4f} mm")

    @cached_property
    def normal(self) -> Floats:
        """Unit normal of the planes: row x column."""
        normal = np.cross(self.row, self.column)
        return np.asarray(normal / np.linalg.norm(normal))

    @cached_property
    def offsets_mm(self) -> Floats:
        """Position of each slice along ``normal``, growing."""
        return np.asarray(self.origins_mm @ self.normal)

    @cached_property
    def slabs_mm(self) -> Floats:
        """(n, 2) what each slice stands for: from half-way to the slice before to half-way to the slice after, along ``normal``.

        The first and the last reach as far outwards as inwards. A single slice has no thickness that could be known: NaN.
        """
        at = self.offsets_mm
        if len(at) == 1:
            return np.full((1, 2), np.nan)
        middle = (at[1:] + at[:-1]) / 2
        first, last = 2 * at[0] - middle[0], 2 * at[-1] - middle[-1]
        return np.stack([np.concatenate([[first], middle]), np.concatenate([middle, [last]])], axis=1)


@dataclass(frozen=True, eq=False)
class Contours:
    """One structure as closed planar polygons: each an (n >= 3, 3) float64 array of LPS millimetres, not repeated at its end.

    No polygon at all is an *empty* structure (contoured, found nothing); an *absent* one is a name that a case does not have.
    ``colour`` is RGB 0..255 or None; ``slices`` the image planes it was drawn on, where known: they tell how far each polygon reaches.
    ``alone``: each polygon stands for its own one of these slices and a slice without is empty, as where a mask was traced; else a person
    may have drawn on every second slice and meant those between as well.
    Raises StructureError for arrays of another shape or with values that are not finite.
    """

    polygons: tuple[Floats, ...] = field(default=())
    colour: tuple[int, int, int] | None = None
    slices: Slices | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        polygons = []
        for n, polygon in enumerate(self.polygons):
            points = np.array(polygon, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 3 or len(points) < 3:
                raise StructureError(f"contour {n} needs at least 3 points (x, y, z), not an array of {points.shape}")
            if not np.isfinite(points).all():
                raise StructureError("contours need finite coordinates", hint="drop the points that are NaN or infinite")
            points.setflags(write=False)
            polygons.append(points)
        object.__setattr__(self, "polygons", tuple(polygons))

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[Floats]:
        return iter(self.polygons)
