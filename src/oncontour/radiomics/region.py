"""From an image and a mask to the region that features are computed on (IBSI chapter 2: interpolation, re-segmentation).

    region = prepare(case.images["dose"], case.mask("Esophagus"), Processing(spacing_mm=(3, 3, 3), keep=(0, None)))

The new grid is centred on the image's and at least as large (IBSI 2.4, "align grid centers"); image and mask are interpolated
separately, nothing is blurred before, and a voxel belongs to the region where the interpolated mask is one half or more. Two masks
come out (IBSI 2.5): the *morphological* one is the shape; the *intensity* one is what of it has a known intensity in the kept range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.resample import copy_moves
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MARGIN_MM = 8.0
"""Image kept around the region: the sphere of the local intensity peak reaches 6.2 mm."""
SPLINE_REACH = 12
"""Voxels after which a cubic spline has forgotten what lies further out."""


@dataclass(frozen=True)
class Processing:
    """How an image becomes a region.

    ``spacing_mm``: voxels (k, j, i) to interpolate to, None for those of the image; ``interpolation`` of the image (the mask is always
    interpolated linearly); ``whole``: round interpolated intensities to integers (HU); ``keep``: re-segmentation to intensities from
    the first to the second, both included, None for no end (IBSI 2.5, USB3); ``outliers_sd``: leave out what lies more than so many
    standard deviations from the mean of the range (IBSI 7ACA).
    """

    spacing_mm: tuple[float, float, float] | None = None
    interpolation: Literal["linear", "cubic"] = "linear"
    whole: bool = False
    keep: tuple[float | None, float | None] = (None, None)
    outliers_sd: float | None = None

    def __post_init__(self) -> None:
        if self.spacing_mm is not None and not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ConfigError(f"spacing is three positive millimetres (k, j, i), not {self.spacing_mm}")
        if self.interpolation not in ("linear", "cubic"):
            raise ConfigError(f"interpolation is linear or cubic, not {self.interpolation!r}")
        low, high = self.limits
        if not low < high:
            raise ConfigError(f"a range to keep rises, not {self.keep}")
        if self.outliers_sd is not None and not self.outliers_sd > 0:
            raise ConfigError(f"outliers lie more than 0 standard deviations away, not {self.outliers_sd}")

    @property
    def limits(self) -> tuple[float, float]:
        """``keep`` with infinities for open ends."""
        low, high = self.keep
        return -np.inf if low is None else float(low), np.inf if high is None else float(high)


@dataclass(frozen=True, eq=False)
class Region:
    """Intensities around a structure on one grid: ``image`` (k, j, i) float64, NaN where unknown, with its two masks."""

    image: Floats
    morphological: Mask
    intensity: Mask
    geometry: Geometry

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.geometry.spacing_mm

    @cached_property
    def values(self) -> Floats:
        """Intensities of the intensity mask, in the order of the array."""
        return self.image[self.intensity]

    def seen(self, response: Volume) -> Region:
        """The same region on another image of the same voxels, such as a filter's response: what is left out is decided by the first."""
        return replace(self, image=interpolate(response, self.geometry, "linear"))


def box_of(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest box (k, j, i) that holds all of a mask that is not empty."""
    k, j, i = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    return slice(int(k[0]), int(k[-1]) + 1), slice(int(j[0]), int(j[-1]) + 1), slice(int(i[0]), int(i[-1]) + 1)


def prepare(image: Volume, mask: Volume, processing: Processing, grid: Geometry | None = None) -> Region:
    """The region of ``mask`` (bool or coverage, on any grid) in ``image`` (three axes).

    ``grid``: compute on this grid instead of the one that ``processing`` asks for (perturbations turn and shift it). What lies beyond
    the image's outermost voxels is unknown, not guessed; the shape of a mask that reaches there stays whole. A mask with nothing inside
    gives a region of one voxel with empty masks.
    Raises InputError for an image with channels.
    """
    if image.array.ndim != 3 or mask.array.ndim != 3:
        raise InputError(f"features need an image and a mask of three axes, not {image.array.shape} and {mask.array.shape}")
    target = grid or (image.geometry.resample(processing.spacing_mm) if processing.spacing_mm else image.geometry)
    part = _around(mask, target)
    if part is None:
        target = target.crop((0, 0, 0), (1, 1, 1))
        nothing = np.zeros(target.shape, bool)
        return Region(np.full(target.shape, np.nan), nothing, nothing, target)
    inside = interpolate(mask, part, "linear", fill=0.0) >= 0.5 - 1e-6
    values = interpolate(image, part, processing.interpolation)
    if processing.whole:
        values = np.rint(values)
    return Region(values, inside, resegment(values, inside, processing), part)


def resegment(image: Floats, inside: Mask, processing: Processing) -> Mask:
    """What of ``inside`` has a known intensity within the range to keep, and then is no outlier (IBSI 2.5: the range comes first)."""
    low, high = processing.limits
    kept = inside & np.isfinite(image)
    kept[kept] = (image[kept] >= low) & (image[kept] <= high)
    if processing.outliers_sd is not None and kept.any():
        values = image[kept]
        kept[kept] = np.abs(values - values.mean()) <= processing.outliers_sd * values.std()
    return kept


def interpolate(volume: Volume, grid: Geometry, kind: Literal["linear", "cubic"], fill: float | None = np.nan) -> Floats:
    """``volume`` at the voxels of ``grid`` without any blur, float64; ``fill`` beyond its edge (half a voxel past the outermost centres),
    None for the nearest voxel.

    Cubic is the interpolating cubic spline. *Differs* from ``Volume.to``, which blurs before coarsening: IBSI does not.
    """
    matrix = volume.geometry.inverse @ grid.affine
    if copy_moves(matrix) is not None:  # voxel by voxel: nothing to interpolate
        return np.asarray(_as_float(volume).to(grid, fill=fill or 0.0).array)
    low, high = _reach(matrix, grid.shape, volume.geometry.shape)
    if (high <= low).any():
        return np.full(grid.shape, np.nan if fill is None else fill)
    source = volume.array[low[0] : high[0], low[1] : high[1], low[2] : high[2]].astype(np.float64)
    linear, offset = matrix[:3, :3], matrix[:3, 3] - low
    along = np.diag(linear)
    straight = np.abs(linear - np.diag(along)).max() < 1e-9
    order = 3 if kind == "cubic" else 1
    out = ndimage.affine_transform(source, along if straight else linear, offset, grid.shape, order=order, mode="nearest")
    if fill is not None:
        out[~_within(matrix, grid.shape, volume.geometry.shape)] = fill
    return np.asarray(out)


def _as_float(volume: Volume) -> Volume:
    return volume.map(lambda array: array.astype(np.float64))


def _around(mask: Volume, grid: Geometry) -> Geometry | None:
    """The part of ``grid``, or of where it would go on, that holds ``mask`` and MARGIN_MM around it; None for an empty mask."""
    found = ndimage.find_objects((mask.array > 0).astype(np.uint8))
    if not found or found[0] is None:
        return None
    ends = [(cut.start - 1, cut.stop) for cut in found[0]]
    corners = mask.geometry.points([(k, j, i) for k in ends[0] for j in ends[1] for i in ends[2]])
    voxels = grid.voxels(corners)
    room = MARGIN_MM / np.asarray(grid.spacing_mm)
    start, stop = np.floor(voxels.min(axis=0) - room).astype(int), np.ceil(voxels.max(axis=0) + room).astype(int) + 1
    return grid.crop(start.tolist(), stop.tolist())


def _reach(matrix: Floats, shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[Array, Array]:
    """The half-open box of source voxels that a target of ``shape`` reads, with room for a spline."""
    ends = [(0, n - 1) for n in shape]
    corners = np.array([(k, j, i) for k in ends[0] for j in ends[1] for i in ends[2]]) @ matrix[:3, :3].T + matrix[:3, 3]
    low = np.clip(np.floor(corners.min(axis=0)) - SPLINE_REACH, 0, size).astype(int)
    return low, np.clip(np.ceil(corners.max(axis=0)) + SPLINE_REACH + 1, 0, size).astype(int)


def _within(matrix: Floats, shape: tuple[int, ...], size: tuple[int, ...]) -> Mask:
    """Which target voxels lie no further out than half a voxel past the source's outermost centres."""
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    inside = np.ones(shape, bool)
    for axis in range(3):
        at = matrix[axis, 0] * k + matrix[axis, 1] * j + matrix[axis, 2] * i + matrix[axis, 3]
        inside &= (at >= -0.5 - 1e-4) & (at <= size[axis] - 0.5 + 1e-4)
    return inside
