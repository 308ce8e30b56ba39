"""Two CTs of one patient for the page: today's, and planning's as the set-up and as the deformation lay it there, slice by slice.

The page lays them side by side, in squares or takes the difference (visits.js). Grey values are bytes over ``RANGE_HU``, on a grid along
the patient's axes about the body whose slices are those of today's CT as far as BUDGET allows; contours are planned (by the set-up alone),
propagated and direct.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import box_of, cropped
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.raster import trace
from oncontour.report.dose_grid import packed
from oncontour.report.scene import Outlines, outlined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncontour.report.adapt import Images

BUDGET = 1_500_000
"""Voxels of each of the three images: at most some 5 MB of text together."""
LEAST_MM, COARSEST_MM = 2.0, 5.0
RANGE_HU = (-400.0, 620.0)
"""Of the bytes 0 to 255, in steps of 4 HU; beyond it values are cut."""
MARGIN_MM = 10.0
AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class Compared:
    """``words`` (JSON): grid, grey range, structures, where to begin; ``images``: today, set up and deformed, compressed; ``contours``:
    compressed JSON, for each kind and structure its outlines."""

    words: str
    images: Mapping[str, str]
    contours: str


def compared(images: Images) -> Compared:
    """What the page needs to compare the two CTs."""
    from oncontour.adapt.deformation import Deformation, coarsely

    grid = _grid(images)
    field = images.deformation
    rigidly = Deformation.from_matrix(images.set_up, coarsely(grid), field.fixed, field.moving)
    volumes = {
        "today": images.today.to(grid, fill=AIR_HU, blur=False),  # as a warp reads: else edges would differ by their sharpness
        "setup": rigidly.warp(images.planning, grid, fill=AIR_HU),
        "deformed": field.warp(images.planning, grid, fill=AIR_HU),
    }
    names = list(images.colours)
    held = {
        "planned": [_outlines(rigidly.warp_masks({name: images.planned.mask(name)}, grid)[name]) for name in names],
        "propagated": [_outlines(images.propagated.mask(name).to(grid)) for name in names],
        "direct": [_outlines(images.direct[name].to(grid)) if name in images.direct else [] for name in names],
    }
    k, j, i = (int(np.clip(round(float(v)), 0, n - 1)) for v, n in zip(grid.voxels(images.point_mm), grid.shape, strict=True))
    words = {
        "shape": grid.shape,
        "step_mm": grid.spacing_mm,
        "z_mm": [round(float(grid.points((n, 0, 0))[2]), 1) for n in range(grid.shape[0])],
        "hu": RANGE_HU,
        "structures": [{"name": name, "colour": images.colours[name]} for name in names],
        "start": [k, j, i],
        "direct": bool(images.direct),
    }
    return Compared(
        json.dumps(words),
        {name: packed(_differences(_codes(volume.array))) for name, volume in volumes.items()},
        packed(json.dumps(held, separators=(",", ":")).encode()),
    )


def _grid(images: Images) -> Geometry:
    """Upright, about the body, no finer than LEAST_MM in plane, within BUDGET; slices are kept while COARSEST_MM in plane are enough."""
    grid = images.today.geometry.reorient()
    box = box_of(images.body.array)
    if box is not None:
        inside = cropped(images.body.geometry, box).corners_mm
        ends = np.stack([inside.min(axis=0) - MARGIN_MM, inside.max(axis=0) + MARGIN_MM])
        low, high = np.sort(grid.voxels(ends), axis=0)
        first = [max(0, int(np.floor(v))) for v in low]
        last = [min(n, int(np.ceil(v)) + 1) for v, n in zip(high, grid.shape, strict=True)]
        grid = grid.crop(first, last)
    k, j, i = grid.spacing_mm
    size = np.prod(np.multiply(grid.shape, grid.spacing_mm))
    plane = max(LEAST_MM, j, i, float(np.sqrt(size / (k * BUDGET))))
    if plane > COARSEST_MM and plane > max(j, i):
        plane = max(COARSEST_MM, j, i)
        k = max(k, float(size / (plane * plane * BUDGET)))
    return grid.resample((k, plane, plane))


def _outlines(mask: Volume) -> Outlines:
    return outlined(list(trace(mask)), mask.geometry)


def _codes(hu: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = RANGE_HU
    return np.asarray(np.clip(np.rint((hu.astype(np.float32) - low) / (high - low) * 255), 0, 255), np.uint8)


def _differences(codes: NDArray[np.uint8]) -> bytes:
    """Each code less the one before it in its row, modulo 256."""
    out = codes.copy()
    out[..., 1:] -= codes[..., :-1]
    return out.tobytes()
