"""Voxels on a grid, and the one method that moves them to another.

``volume.to(geometry)`` crops, pads, flips, resamples or reslices, whatever it takes. Where the target's voxels fall on the
source's (crop, pad, flip, permute) values are copied bit for bit; otherwise they are interpolated linearly. Going to a coarser grid
blurs first, so that what is finer than the new voxels is averaged instead of picked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from oncontour.core import resample
from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.errors import GeometryError


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels ``array`` (..., k, j, i) on ``geometry``: HU, Gy, bool masks, coverage or probabilities in [0, 1].

    The array is kept as a read-only view. Raises GeometryError when it does not fit the grid.
    """

    array: Array
    geometry: Geometry

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        if array.ndim < 3 or array.shape[-3:] != self.geometry.shape:
            raise GeometryError(f"an array of {array.shape} does not fit a grid of {self.geometry.shape} voxels (k, j, i)")
        view = array.view()
        view.setflags(write=False)
        object.__setattr__(self, "array", view)

    def __repr__(self) -> str:
        voxels, steps = "x".join(map(str, self.array.shape)), " x ".join(f"{mm:.3g}" for mm in self.geometry.spacing_mm)
        return f"Volume({self.array.dtype}, {voxels} voxels of {steps} mm)"

    def __reduce__(self) -> tuple[object, ...]:
        return Volume, (self.array, self.geometry)

    @property
    def volume_cc(self) -> float:
        """What the voxels of a mask (bool, or coverage in [0, 1]) take up, in cubic centimetres."""
        return float(self.array.sum(dtype=np.float64)) * self.geometry.voxel_mm3 / 1000

    def binary(self) -> Volume:
        """The mask as bool: coverage or probability of one half and more is inside."""
        return self if self.array.dtype == bool else Volume(self.array >= 0.5, self.geometry)

    def map(self, function: Callable[[Array], Array]) -> Volume:
        """The same grid with ``function`` applied to the array."""
        return Volume(function(self.array), self.geometry)

    def stored_on(self, geometry: Geometry) -> Volume | None:
        """These very voxels in the order and at the place of ``geometry``; None where it is another grid.

        Axes that run another way are permuted and flipped and nothing is interpolated. Places that differ by rounding in a file
        (``geometry.rounding_mm``) are the same.
        """
        if self.geometry == geometry:
            return self
        turned = self.geometry.reorient(geometry.axes)
        if not turned.same_grid(geometry):
            return None
        return Volume(self.to(turned).array, geometry)

    def to(self, geometry: Geometry, *, fill: float = 0.0, nearest: bool = False, blur: bool = True) -> Volume:
        """This volume on ``geometry``; ``fill`` beyond the source's edge (half a voxel past its outermost centres).

        Same dtype back: integers are rounded, bool is interpolated as coverage and cut at one half. ``nearest`` takes the nearest
        voxel instead (labels); without ``blur`` the values at the target's points (logits). Source: linear interpolation; blur before
        coarsening after Cardoso et al. 2015, sigma = sqrt(f^2 - 1) / 2.355 source voxels for a coarsening by f.
        """
        if self.geometry.same_grid(geometry, 1e-6):
            return self
        matrix, value = self.geometry.inverse @ geometry.affine, _fitting(fill, self.array.dtype)
        moves = resample.copy_moves(matrix)
        if moves is not None:
            return Volume(resample.copy(self.array, geometry.shape, moves, value), geometry)
        if nearest:
            return Volume(resample.nearest(self.array, matrix, geometry.shape, value), geometry)
        return Volume(resample.linear(self.array, matrix, geometry.shape, value, blur), geometry)


def _fitting(fill: float, dtype: np.dtype[Any]) -> np.generic:
    """``fill`` as one value of ``dtype``. Raises GeometryError where it does not fit (NaN or -1024 among unsigned integers)."""
    if np.issubdtype(dtype, np.integer) and not (np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max and float(fill).is_integer()):
        raise GeometryError(f"fill {fill} is no value of {dtype}", hint="give a fill that fits, or turn the volume to float32 first")
    value: np.generic = dtype.type(fill)
    return value


def written_cc(volume_cc: float) -> str:
    """Cubic centimetres as people write them, without the unit: "910", "3.1", "0.38"."""
    digits = 0 if volume_cc >= 99.95 else 1 if volume_cc >= 0.995 else 2 if volume_cc >= 0.0095 else 4
    return f"{volume_cc:.{digits}f}"
