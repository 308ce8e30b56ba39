"""Which part of a fixed image a mask of the moving one can come to, so that warping it looks at nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from oncontour.core.boxes import Box, box_of, cropped, widened
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.resample import TIE
from oncontour.core.volume import Volume


@dataclass(frozen=True, eq=False)
class Reach:
    """Which part of ``grid`` a box of the moving image can come to: the field's ``nodes``, their ``images`` (3, k, j, i) in mm, and
    ``room_mm`` (x, y, z), by how much a voxel's image may differ from that of any node of its cell."""

    grid: Geometry
    nodes: Geometry
    images: NDArray[np.float32]
    room_mm: Floats

    def of(self, low: ArrayLike, high: ArrayLike, moving: Geometry) -> Box | None:
        """The box of ``grid`` outside which nothing comes from voxels ``low`` to ``high`` (k, j, i) of ``moving``; None where nothing does.

        Between nodes the field is linear, so that a voxel's image lies among those of its cell's nodes.
        """
        (a, b, c), (d, e, f) = np.asarray(low, float), np.asarray(high, float)
        ends = moving.points([(k, j, i) for k in (a, d) for j in (b, e) for i in (c, f)])
        least, most = ends.min(axis=0) - self.room_mm, ends.max(axis=0) + self.room_mm
        inside = np.ones(self.nodes.shape, bool)
        for image, from_mm, to_mm in zip(self.images, least, most, strict=True):
            inside &= (image >= from_mm) & (image <= to_mm)
        held = box_of(inside)
        if held is None:
            return None
        at = self.grid.voxels(cropped(self.nodes, widened(held, self.nodes.shape, (1, 1, 1))).corners_mm)
        first = np.maximum(0, np.floor(at.min(axis=0))).astype(int)
        last = np.minimum(self.grid.shape, np.ceil(at.max(axis=0)).astype(int) + 1)
        k, j, i = (slice(int(one), int(other)) for one, other in zip(first, last, strict=True))
        return None if (last <= first).any() else (k, j, i)


Held = tuple[NDArray[np.intp], NDArray[np.float32]]


def held_in(mask: Volume) -> Held | None:
    """Where a mask begins, and its coverage there with a voxel around; None where it is empty."""
    found = box_of(mask.array if mask.array.dtype == bool else mask.array > 0)
    if found is None:
        return None
    around = widened(found, mask.array.shape, (1, 1, 1))
    return np.array([side.start for side in around], dtype=np.intp), np.asarray(mask.array[around], dtype=np.float32)


def put(box: Held | None, at: Floats, rows: tuple[Floats, Floats], outside: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """Set in ``out`` (j, i) what the mask in ``box`` covers by one half and more at the voxels ``at`` (3, j, i); ``rows`` (3, j) are the
    least and the greatest of each row, so that rows that lie elsewhere cost nothing."""
    if box is None:
        return
    low, part = box
    met = np.flatnonzero(((low - 1 <= rows[1].T) & (low + part.shape >= rows[0].T)).all(axis=1))
    if not len(met):
        return
    span = slice(met[0], met[-1] + 1)
    at = at[:, span]
    near = ((at >= low[:, None, None] - 1) & (at <= (low + part.shape)[:, None, None])).all(axis=0) & ~outside[span]
    out[span][near] = ndimage.map_coordinates(part, at[:, near] - low[:, None], order=1, mode="nearest") >= 0.5 - TIE
