"""Boxes of voxels: the smallest that holds a mask, and boxes made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry

Box = tuple[slice, slice, slice]
"""Voxels along k, j and i; no step."""


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds every True of a (k, j, i) array; None where there is none."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(slices):
        return None
    k = slice(int(slices[0]), int(slices[-1]) + 1)
    flat = np.asarray(mask[k].any(axis=0))
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    return k, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def widened(box: Sequence[slice], shape: Sequence[int], margin: Sequence[int]) -> Box:
    """``box`` with ``margin`` voxels (k, j, i) more on every side, as far as an array of ``shape`` goes."""
    k, j, i = (slice(max(s.start - m, 0), min(s.stop + m, n)) for s, n, m in zip(box, shape, margin, strict=True))
    return k, j, i


def cropped(grid: Geometry, box: Box) -> Geometry:
    """The part of ``grid`` that lies in ``box``."""
    return grid.crop([side.start for side in box], [side.stop for side in box])
