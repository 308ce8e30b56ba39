"""How much of every pixel of one plane its polygons cover, and what they enclose in all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import LimitError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Coverage = NDArray[np.float32]
_MOST_ROWS = 4096


def plane_coverage(points: Floats, starts: Ints, first: tuple[int, int], shape: tuple[int, int]) -> Coverage:
    """Share of each pixel inside the polygons of one plane, points (n, 2) as (row, column), by even-odd: exact whatever crosses what.

    The pixels are ``shape`` from ``first`` (row, column) on. Raises LimitError where so many outlines cross or crowd within a pixel that
    filling would take more than ``fill_loops.MOST_STEPS`` and MOST_STEPS_A_PIECE for each piece of outline in a row of pixels.
    """
    from oncontour.raster import fill_loops

    image, done = fill_loops.coverage(np.ascontiguousarray(points), starts, *first, *shape)
    if not done:
        raise LimitError(
            f"the {len(starts) - 1} outlines of one plane, of {len(points)} points, lie so thick over each other that filling them takes"
            f" more than {fill_loops.MOST_STEPS} steps",
            hint="leave the structure out, or draw it again with fewer outlines over each other",
        )
    return image


def plane_area(points: Floats, starts: Ints) -> float:
    """What polygons of one plane, points (n, 2), enclose by even-odd: of a figure of eight both lobes, of outline and hole the wall."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low
    if not extent.min() > 0:
        return 0.0
    rows = int(np.clip(len(points) // 4, 1, _MOST_ROWS))
    scaled = (points - low) / extent * [rows, 1] - 0.5
    return float(plane_coverage(scaled, starts, (0, 0), (rows, 1)).sum(dtype=np.float64) * extent.prod() / rows)
