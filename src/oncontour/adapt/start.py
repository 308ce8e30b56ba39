"""Where a registration starts: the rigid map from the fixed to the moving image, from what images and masks offer.

Candidates are the images as they lie, the shift between the middles of two masks, and the shift at which the images correlate best (of
all shifts at once, by FFT). The one whose images are most alike is turned and moved until they are as alike as a rigid map makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

from oncontour.adapt.descent import Adam
from oncontour.adapt.levels import Level, Settings, Visit, level_of, prepared
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError

LEAST_OVERLAP = 0.3
"""Shifts at which less than this share of the smaller image lies in the other are not looked at: few voxels are alike by chance."""
VOXEL_MM = 8.0
"""Of the images that are compared."""
RIGID_STEPS, FIRST_STEP_MM = 50, 2.0


@dataclass(frozen=True, eq=False)
class Start:
    """A rigid map (4x4, fixed to moving points) and the mean local correlation under it at the coarse resolution it was found at; the same
    for the moving image with its left and right exchanged."""

    matrix: Floats
    correlation: float
    correlation_mirrored: float


def find_start(fixed: Visit, moving: Visit, box: Geometry, settings: Settings, given: Floats | None = None) -> Start:
    """The rigid map that makes the images most alike at a coarse resolution, or the one ``given``; and what mirroring would do."""
    if given is None:
        matrix, alike = _best(fixed, moving, box, settings)
    else:
        matrix, alike = given, rigid(level_of(fixed, moving, box, VOXEL_MM, settings), given)[1]
    return Start(matrix, alike, _best(fixed, _mirrored(moving), box, settings)[1])


def _best(fixed: Visit, moving: Visit, box: Geometry, settings: Settings) -> tuple[Floats, float]:
    level = level_of(fixed, moving, box, VOXEL_MM, settings)
    shifts = [np.zeros(3), best_shift(fixed.image, moving.image, (fixed.known, moving.known), settings.clip_hu, VOXEL_MM)]
    if fixed.region is not None and moving.region is not None:
        shifts.append(middle_mm(moving.region) - middle_mm(fixed.region))
    tried: list[tuple[float, Floats]] = []
    for shift in shifts:
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        units = level.under(matrix)
        tried.append((float(level.correlation(units)) * min(1.0, level.overlap(units) / 0.5), matrix))
    return rigid(level, max(tried, key=lambda one: one[0])[1])


def _mirrored(visit: Visit) -> Visit:
    """The same visit with left and right exchanged: its voxels in reverse along the axis that lies nearest to x."""
    axis = int(np.abs(visit.image.geometry.axes[:, 0]).argmax())

    def flip(volume: Volume | None) -> Volume | None:
        own = None if volume is None else int(np.abs(volume.geometry.axes[:, 0]).argmax())
        return None if volume is None or own is None else volume.map(lambda a: np.flip(a, own))

    image = visit.image.map(lambda a: np.flip(a, axis))
    return replace(visit, image=image, known=flip(visit.known), region=flip(visit.region))


def middle_mm(mask: Volume) -> Floats:
    """(x, y, z) of the middle of a mask. Raises GeometryError for an empty one."""
    inside = mask.binary().array
    slices = inside.sum(axis=(1, 2), dtype=np.int64)
    if not slices.any():
        raise GeometryError("a mask to start a registration from is empty", hint="give a mask with voxels, or none")
    plane = inside.sum(axis=0, dtype=np.int64)
    each = [np.arange(len(counts)) @ counts / counts.sum() for counts in (slices, plane.sum(axis=1), plane.sum(axis=0))]
    return np.asarray(mask.geometry.points(each))


def best_shift(fixed: Volume, moving: Volume, known: Sequence[Volume | None], clip_hu: tuple[float, float], step_mm: float) -> Floats:
    """(x, y, z) in mm from fixed to moving points at which the two images correlate best, of all whole shifts on a grid of ``step_mm``.

    Source: Padfield, IEEE TIP 21 (2012) 2706: masked normalised cross-correlation of all shifts by six transforms.
    """
    grids = [fixed.geometry.resample((step_mm,) * 3), _along_axes(moving.geometry, fixed.geometry, step_mm)]
    size = [fft.next_fast_len(a + b - 1, real=True) for a, b in zip(*(g.shape for g in grids), strict=True)]
    parts = []
    for image, grid, where in zip((fixed, moving), grids, known, strict=True):
        inside = _inside(image.geometry if where is None else where, grid)
        values = np.where(inside > 0, prepared(image, grid, clip_hu), 0)
        values = np.where(inside > 0, values - values.sum() / max(1, inside.sum()), 0)
        parts.append([fft.rfftn(one, size) for one in (inside, values, values**2)])
    (m, f, ff), (w, g, gg) = parts

    def over(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> Floats:
        """Sum over x of a(x) b(x + shift), for every shift."""
        return np.asarray(fft.irfftn(np.conj(a) * b, size))

    count = np.maximum(over(m, w), 1e-3)
    sum_f, sum_g = over(f, w), over(m, g)
    var_f, var_g = over(ff, w) - sum_f**2 / count, over(m, gg) - sum_g**2 / count
    corr = (over(f, g) - sum_f * sum_g / count) / np.sqrt(np.maximum(var_f, 0.1 * count) * np.maximum(var_g, 0.1 * count))
    corr[count < LEAST_OVERLAP * min(float(m[0, 0, 0].real), float(w[0, 0, 0].real))] = -1
    at = np.array(np.unravel_index(corr.argmax(), corr.shape))
    shift = np.where(at >= np.array(grids[1].shape), at - size, at)
    return np.asarray(grids[1].points(shift) - grids[0].points((0, 0, 0)))


def _along_axes(grid: Geometry, axes: Geometry, step_mm: float) -> Geometry:
    """A grid of ``step_mm`` along the axes of another one that holds ``grid``."""
    corners = grid.corners_mm @ axes.axes.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    shape = np.ceil((high - low) / step_mm).astype(int) + 1
    return Geometry.regular(shape.tolist(), (step_mm,) * 3, low @ axes.axes, axes.axes)


def _inside(where: Volume | Geometry, grid: Geometry) -> NDArray[np.float32]:
    """1 where a voxel of ``grid`` lies in a mask (or on a grid), 0 elsewhere."""
    mask = Volume(np.ones(where.shape, bool), where) if isinstance(where, Geometry) else where.binary()
    return mask.to(grid).array.astype(np.float32)


def rigid(level: Level, start: Floats) -> tuple[Floats, float]:
    """The rigid map near ``start`` (4x4) under which the level's images are most alike, and how alike; ``start`` where none is better."""
    middle = level.points.mean(axis=0)
    arm = float(np.linalg.norm(level.points - middle, axis=1).mean())
    around = torch.from_numpy((level.points - middle).astype(np.float32))
    moves = torch.zeros(6, requires_grad=True)
    descent = Adam(moves)
    best, kept = -1.0, torch.zeros(6)
    base = level.units(level.points @ start[:3, :3].T + start[:3, 3])
    turn = torch.from_numpy(start[:3, :3].astype(np.float32)).T @ level.to_unit
    for step in range(RIGID_STEPS):
        rotation = _rotation(moves[:3] / arm)
        alike = level.correlation(base + (around @ (rotation.T - torch.eye(3)) + moves[3:]) @ turn)
        if float(alike.detach()) > best:
            best, kept = float(alike.detach()), moves.detach().clone()
        descent.step(-alike, FIRST_STEP_MM * 0.5 ** (5 * step / RIGID_STEPS))
    out = np.eye(4)
    out[:3, :3] = _rotation(kept[:3].double() / arm).numpy()
    out[:3, 3] = middle + kept[3:].double().numpy() - out[:3, :3] @ middle
    return np.asarray(start @ out), best


def _rotation(vector: Tensor) -> Tensor:
    """The rotation about a vector by its length in radians."""
    x, y, z = vector
    zero = torch.zeros_like(x)
    turn: Tensor = torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))
    return turn
