"""A structure cut into small cells, each with its volume and what it receives: finer where the structure is small.

Contours are the solid that they draw: in its plane each polygon with its exact area, across it the slab that the plane stands for
(``raster.planes``). A mask is the union of its voxels, partial coverage a voxel that is filled so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import box_of
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import DoseError, StructureError
from oncontour.raster.fill import in_plane

if TYPE_CHECKING:
    from oncontour.raster.planes import Planes

Floats = NDArray[np.float64]
MOST_CELLS = 2**22
"""Larger structures are cut no finer than this."""
MOST_PIXELS = 2**24
_LEAST_IN_A_DOSE_VOXEL = 2
"""Cells along the finest axis of a dose voxel, at the least, where the structure is not too large for it."""


@dataclass(frozen=True, eq=False)
class Block:
    """Voxels of one grid, some of them covered: ``coverage`` (k, j, i) in [0, 1], placed by the 4x4 ``affine`` (to LPS mm).

    ``drawn``: coverage is that of outlines in the plane, which say on which side of a voxel it lies.
    """

    coverage: NDArray[np.float32]
    affine: Floats
    fine: tuple[int, int, int]
    drawn: bool = False

    @property
    def voxel_cc(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


@dataclass(frozen=True, eq=False)
class Cells:
    """``gy`` (n,) dose in the middle of each cell, ``width_gy`` (n,) how far it spreads within, ``cc`` (n,) the cell's volume.

    ``missing_cc`` lies beyond the dose grid. ``least_gy`` and ``largest_gy`` are met at points of the structure; NaN where no cell is.
    """

    gy: Floats
    width_gy: Floats
    cc: Floats
    missing_cc: float
    least_gy: float
    largest_gy: float


def cells(
    dose: Volume,
    structure: Contours | Volume,
    *,
    slices: Slices | None = None,
    slab_mm: float | None = None,
    count: int = 2**17,
    curved: bool = True,
    where: str = "",
) -> Cells:
    """About ``count`` cells of ``structure`` (fewer than two a dose voxel never, as long as memory allows) with their dose.

    Raises DoseError for a dose that is not finite or negative where the structure lies, StructureError for a mask that is no coverage.
    """
    if isinstance(structure, Contours):
        blocks, boundary = _of_contours(structure, dose.geometry, slices, slab_mm, count)
    else:
        blocks, boundary = _of_mask(structure, dose.geometry, count, where), np.empty((0, 3))
    return _filled(dose, list(blocks), boundary, curved, where)


# ---- what a cell receives


def _filled(dose: Volume, blocks: list[Block], boundary: Floats, curved: bool, where: str) -> Cells:
    from oncontour.dose import field

    corners = np.concatenate([_corners(block) for block in blocks]) if blocks else np.empty((0, 3))
    gy, geometry = _cropped(dose, corners, where)
    if gy is None:
        return Cells(np.empty(0), np.empty(0), np.empty(0), sum(_volume(block) for block in blocks), np.nan, np.nan)
    bend = field.bends(gy) if curved else np.zeros((0, 1, 1, 1), np.float32)
    parts: list[tuple[Floats, Floats, Floats]] = []
    missing, least, largest = 0.0, np.inf, -np.inf
    for block in blocks:
        size = int(np.count_nonzero(block.coverage > 0)) * int(np.prod(block.fine))
        out = np.empty(size), np.empty(size), np.empty(size)
        to_dose = np.ascontiguousarray((geometry.inverse @ block.affine)[:3])
        found = field.cells_of(block.coverage, block.drawn, np.array(block.fine, np.int64), to_dose, gy, bend, *out)
        n = int(found[0])
        parts.append((out[0][:n], out[1][:n], out[2][:n] * block.voxel_cc))
        missing += float(found[1]) * block.voxel_cc
        least, largest = min(least, float(found[2])), max(largest, float(found[3]))
    at = field.values_at(geometry.voxels(boundary), gy, bend)
    at = at[~np.isnan(at)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    if len(at):
        least, largest = min(least, float(at.min())), max(largest, float(at.max()))
    if not np.isfinite(least):  # nowhere half covered: what its cells receive is all that is known
        least, largest = (float(columns[0].min()), float(columns[0].max())) if len(columns[0]) else (np.nan, np.nan)
    return Cells(columns[0], columns[1], columns[2], missing, least, largest)


def _volume(block: Block) -> float:
    return float(block.coverage.sum(dtype=np.float64)) * block.voxel_cc


def _corners(block: Block) -> Floats:
    """(8, 3) LPS mm of the outer corners of a block."""
    ends = [(-0.5, n - 0.5) for n in block.coverage.shape]
    voxels = np.array([(k, j, i) for k in ends[0] for j in ends[1] for i in ends[2]])
    return np.asarray(voxels @ block.affine[:3, :3].T + block.affine[:3, 3])


def _cropped(dose: Volume, points_mm: Floats, where: str) -> tuple[NDArray[np.float32] | None, Geometry]:
    """The dose round ``points_mm`` with two points to spare, checked; None where it does not reach there."""
    grid = dose.geometry
    if dose.array.ndim != 3:
        raise DoseError(f"a dose has three axes (k, j, i), not {dose.array.shape}", where=where)
    if not len(points_mm):
        return None, grid
    voxels = grid.voxels(points_mm)
    low = np.maximum(np.floor(voxels.min(axis=0)) - 2, 0).astype(int)
    high = np.minimum(np.ceil(voxels.max(axis=0)) + 3, grid.shape).astype(int)
    if (high <= low).any():
        return None, grid
    gy = dose.array[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    check(gy, where)
    return np.array(gy, np.float32, order="C"), grid.crop(low.tolist(), high.tolist())


def check(gy: Array, where: str = "") -> None:
    """Raise DoseError for a dose that is not finite, or negative."""
    wrong = ~np.isfinite(gy)
    if wrong.any():
        first = tuple(int(n) for n in np.argwhere(wrong)[0])
        hint = "export the dose again, or say what those voxels should be"
        raise DoseError(f"{int(wrong.sum())} voxels of dose are NaN or infinite, the first at (k, j, i) = {first}", where=where, hint=hint)
    if gy.size and gy.min() < 0:
        raise DoseError(f"negative dose, down to {float(gy.min()):g} Gy", where=where, hint="a difference of doses has no DVH")


# ---- contours


def _of_contours(
    contours: Contours, grid: Geometry, slices: Slices | None, slab_mm: float | None, count: int
) -> tuple[Iterator[Block], Floats]:
    """The planes as blocks of one voxel across, and points along all outlines on both faces of their slabs."""
    if not len(contours):
        return iter(()), np.empty((0, 3))
    from oncontour.raster.coverage import plane_area
    from oncontour.raster.planes import sort_into_planes

    planes = sort_into_planes(contours, grid, slices, slab_mm)
    thickness = np.diff(planes.slabs_mm, axis=1)[:, 0]
    upright = in_plane(planes.normal, grid)
    pieces = (planes.pieces(plane) for plane in range(len(planes)))
    area = np.array([plane_area(planes.points[where] @ upright.T, starts) for where, starts in pieces])
    step = _step(float(area @ thickness), grid, count)
    outline = np.ptp(planes.points @ upright.T, axis=0)
    step = max(step, float(np.sqrt(outline.prod() / MOST_PIXELS)))
    boundary = []
    for plane in range(len(planes)):
        where, starts = planes.pieces(plane)
        dense = _along_edges(planes.points[where], starts, step)
        height = dense @ planes.normal
        boundary += [dense + (face - height)[:, None] * planes.normal for face in planes.slabs_mm[plane]]
    return (_plane_block(planes, plane, upright, step) for plane in range(len(planes))), np.concatenate(boundary)


def _plane_block(planes: Planes, plane: int, upright: Floats, step: float) -> Block:
    """One slab as a layer of pixels with their exact coverage, cut into layers about as thick as the pixels are wide."""
    from oncontour.raster.coverage import plane_coverage

    where, starts = planes.pieces(plane)
    flat = planes.points[where] @ upright.T / step
    corner = np.floor(flat.min(axis=0) + 0.5)
    height, width = (int(n) for n in np.floor(flat.max(axis=0) + 0.5) - corner + 1)
    coverage = plane_coverage(flat - corner, starts, (0, 0), (height, width))
    low, high = planes.slabs_mm[plane]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = planes.normal * (high - low), upright[0] * step, upright[1] * step
    affine[:3, 3] = planes.normal * (low + high) / 2 + upright.T @ corner * step
    return Block(coverage[None], affine, (max(1, int(np.ceil((high - low) / step - 1e-6))), 1, 1), drawn=True)


def _along_edges(points: Floats, starts: NDArray[np.int64], step: float) -> Floats:
    """The points of closed polygons, and more between them where they are farther apart than ``step``."""
    following = np.arange(1, len(points) + 1)
    following[starts[1:] - 1] = starts[:-1]
    edge = points[following] - points
    pieces = np.clip(np.ceil(np.linalg.norm(edge, axis=1) / step), 1, 1000).astype(int)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    along = (np.arange(pieces.sum()) - first) / np.repeat(pieces, pieces)
    return np.asarray(np.repeat(points, pieces, axis=0) + along[:, None] * np.repeat(edge, pieces, axis=0))


def _step(volume_mm3: float, grid: Geometry, count: int) -> float:
    """Edge of a cell in mm: ``count`` of them in the volume, and not longer than half a dose voxel."""
    wanted = min((max(volume_mm3, 1e-9) / count) ** (1 / 3), min(grid.spacing_mm) / _LEAST_IN_A_DOSE_VOXEL)
    return float(max(wanted, (volume_mm3 / MOST_CELLS) ** (1 / 3), 1e-4))


# ---- masks


def _of_mask(mask: Volume, grid: Geometry, count: int, where: str) -> Iterator[Block]:
    array = mask.array
    if array.ndim != 3:
        raise StructureError(f"a mask has three axes (k, j, i), not {array.shape}", where=where, hint="give one structure at a time")
    if array.dtype != bool and array.size and not (float(array.min()) >= 0 and float(array.max()) <= 1):  # NaN fails both
        found = f"{float(array.min()):g} to {float(array.max()):g}"
        raise StructureError(
            f"a mask is bool or coverage from 0 to 1, not {found}", where=where, hint="give what is inside and what is not"
        )
    box = box_of(array > 0)
    if box is None:
        return
    covered = np.array(array[box], np.float32, order="C")
    geometry = mask.geometry.crop([s.start for s in box], [s.stop for s in box])
    volume = float(covered.sum(dtype=np.float64)) * geometry.voxel_mm3
    filled = int(np.count_nonzero(covered > 0)) * geometry.voxel_mm3
    step = max(_step(volume, grid, count), (filled / MOST_CELLS) ** (1 / 3))
    a, b, c = (max(1, int(np.ceil(s / step - 1e-6))) for s in geometry.spacing_mm)
    yield Block(covered, geometry.affine, (a, b, c))
