"""The dose as it travels in the page: on its own voxels where these lie along the shown grid's, in steps of a fiftieth of a gray.

What the page reads between the voxels it interpolates linearly, as ``Volume.to`` does.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume

BUDGET = 1_800_000
"""Voxels of the dose in a page; at most about 3 MB of text. 3 mm voxels of a head and neck are 0.5 to 1.5 million."""
STEP_GY = 0.02
NOWHERE = 65_535
"""The code of a voxel without a dose."""


@dataclass(frozen=True)
class DoseGrid:
    """``text``: the codes, compressed (see ``_text``), dose = code x ``step_gy``; voxel (0, 0, 0) is centred ``from_mm`` (k, j, i) from the
    corner of the shown box, its neighbours ``step_mm`` away."""

    shape: tuple[int, int, int]
    step_mm: tuple[float, float, float]
    from_mm: tuple[float, float, float]
    step_gy: float
    most_gy: float
    text: str

    def words(self) -> dict[str, object]:
        """For the page (JSON): all but the codes."""
        return {
            "shape": self.shape,
            "step_mm": self.step_mm,
            "from_mm": [round(at, 4) for at in self.from_mm],
            "gy": self.step_gy,
            "none": NOWHERE,
            "most_gy": self.most_gy,
        }


def dose_grid(dose: Volume, shown: Geometry) -> DoseGrid | None:
    """The part of ``dose`` (Gy) that lies in the box of ``shown``; None where that is nothing, or no voxel has a dose."""
    grid = _cropped(_along(dose.geometry, shown), shown)
    if grid is None:
        return None
    values = dose.map(lambda gy: np.asarray(gy, np.float32)).to(grid, fill=-1.0).array
    held = np.isfinite(values) & (values >= 0)
    if not held.any():
        return None
    most = float(values[held].max())
    step = max(STEP_GY, most / (NOWHERE - 1))
    codes = np.full(values.shape, NOWHERE, np.uint16)
    codes[held] = np.rint(values[held] / step)
    k, j, i = ((shown.voxels(grid.origin_mm) + 0.5) * shown.spacing_mm).tolist()
    return DoseGrid(grid.shape, grid.spacing_mm, (k, j, i), step, round(most, 3), _text(codes))


def _along(grid: Geometry, shown: Geometry) -> Geometry:
    """A grid of about the dose's voxels with axes along those of ``shown``: its own voxels where they lie so."""
    turned = grid.reorient(shown.axes)
    if np.abs(turned.axes - shown.axes).max() < 1e-4:
        return turned
    at = shown.voxels(grid.corners_mm)
    low, high = np.floor(at.min(axis=0)).astype(int), np.ceil(at.max(axis=0)).astype(int) + 1
    return shown.crop(low.tolist(), high.tolist()).resample(turned.spacing_mm)


def _cropped(grid: Geometry, shown: Geometry) -> Geometry | None:
    """The voxels of ``grid`` in the box of ``shown`` and those next to it, coarser in plane where they are too many."""
    at = grid.voxels(shown.corners_mm)
    low = np.maximum(np.floor(at.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(at.max(axis=0)).astype(int) + 2, grid.shape)
    if (high <= low).any():
        return None
    part = grid.crop(low.tolist(), high.tolist())
    if part.size <= BUDGET:
        return part
    k, j, i = part.spacing_mm
    factor = (part.size / BUDGET) ** 0.5
    return part.resample((k, j * factor, i * factor))


def _text(codes: NDArray[np.uint16]) -> str:
    """Each code as its difference (modulo 65536) from its left neighbour, all low bytes before all high ones, deflated."""
    steps = codes.copy()
    steps[:, :, 1:] -= codes[:, :, :-1]
    signed = steps.view(np.int16).astype(np.int32)
    folded = np.where(signed < 0, -2 * signed - 1, 2 * signed).astype(np.uint16)  # small numbers of either sign have a high byte of 0
    data = np.concatenate([(folded & 255).astype(np.uint8).ravel(), (folded >> 8).astype(np.uint8).ravel()])
    return packed(data.tobytes())


def packed(data: bytes) -> str:
    """Compressed, as text for the page's ``inflate``."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")
