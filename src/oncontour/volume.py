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
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.errors import GeometryError
from oncontour.geometry import Geometry

Array = NDArray[Any]
_ON_GRID = 1e-4
"""Voxel fraction below which a position counts as on the source's grid."""


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

    def to(self, geometry: Geometry, *, fill: float = 0.0, nearest: bool = False) -> Volume:
        """This volume on ``geometry``; ``fill`` beyond the source's edge (half a voxel past its outermost centres).

        Same dtype back: integers are rounded, bool is interpolated as coverage and cut at one half. ``nearest`` takes the nearest
        voxel instead (labels). Source: linear interpolation; blur before coarsening after Cardoso et al. 2015,
        sigma = sqrt(f^2 - 1) / 2.355 source voxels for a coarsening by f.
        """
        if self.geometry.same_grid(geometry, 1e-6):
            return self
        matrix = self.geometry.inverse @ geometry.affine
        exact = _as_copy(matrix)
        if exact is not None:
            return Volume(_copy(self.array, geometry.shape, *exact, fill), geometry)
        if nearest:
            return Volume(_nearest(self.array, matrix, geometry.shape, fill), geometry)
        out = np.empty((*self.array.shape[:-3], *geometry.shape), np.float32)
        flat_in = self.array.reshape(-1, *self.geometry.shape)
        flat_out = out.reshape(-1, *geometry.shape)
        for channel in range(len(flat_in)):
            flat_out[channel] = _linear(flat_in[channel], matrix, geometry.shape, fill)
        return Volume(_back_to(self.array.dtype, out), geometry)


def _back_to(dtype: np.dtype[Any], values: NDArray[np.float32]) -> Array:
    if dtype == bool:
        return values >= 0.5
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)
    return values.astype(dtype, copy=False)


def _as_copy(matrix: NDArray[np.float64]) -> tuple[list[int], list[int], list[int]] | None:
    """(source axis, sign, offset) for each target axis when target voxels fall on source voxels, else None."""
    linear, rounded = matrix[:3, :3], np.rint(matrix[:3, :3])
    offset = matrix[:3, 3]
    if np.abs(linear - rounded).max() > 1e-6 or np.abs(offset - np.rint(offset)).max() > _ON_GRID:
        return None
    if not (np.abs(rounded).sum(axis=0) == 1).all() or not (np.abs(rounded).sum(axis=1) == 1).all():
        return None
    axis = [int(np.abs(rounded[:, t]).argmax()) for t in range(3)]
    return axis, [int(rounded[axis[t], t]) for t in range(3)], [int(np.rint(offset[axis[t]])) for t in range(3)]


def _copy(array: Array, shape: tuple[int, ...], axis: list[int], sign: list[int], offset: list[int], fill: float) -> Array:
    lead = array.ndim - 3
    source = array.transpose(*range(lead), *(lead + a for a in axis))
    out = np.full((*array.shape[:lead], *shape), fill, dtype=array.dtype)
    take, put = [], []
    for t in range(3):
        index = offset[t] + sign[t] * np.arange(shape[t])
        inside = np.flatnonzero((index >= 0) & (index < source.shape[lead + t]))
        if not len(inside):
            return out
        first, last = int(inside[0]), int(inside[-1])
        put.append(slice(first, last + 1))
        a, b = int(index[first]), int(index[last])
        take.append(slice(a, b + 1) if sign[t] > 0 else slice(a, b - 1 if b > 0 else None, -1))
    out[(..., *put)] = source[(..., *take)]
    return out


def _linear(array: Array, matrix: NDArray[np.float64], shape: tuple[int, int, int], fill: float) -> NDArray[np.float32]:
    source = _blurred(array, np.linalg.norm(matrix[:3, :3], axis=1))
    linear = matrix[:3, :3]
    axis = [int(np.abs(linear[:, t]).argmax()) for t in range(3)]
    off = linear.copy()
    for t in range(3):
        off[axis[t], t] = 0
    if sorted(axis) == [0, 1, 2] and np.abs(off).max() * max(shape) < _ON_GRID:
        return _separable(source, shape, axis, [float(linear[axis[t], t]) for t in range(3)], [float(matrix[axis[t], 3]) for t in range(3)], fill)
    return _oblique(source, matrix, shape, fill)


def _blurred(array: Array, factor: NDArray[np.float64]) -> NDArray[np.float32]:
    """``array`` as float32, smoothed along each source axis that the target steps over by more than one voxel."""
    out = np.asarray(array, dtype=np.float32)
    for axis, step in enumerate(factor):
        if step > 1 + 1e-3 and out.shape[axis] > 1:
            out = ndimage.gaussian_filter1d(out, np.sqrt(step * step - 1) / 2.355, axis=axis, mode="nearest", truncate=3.0)
    return out


def _separable(
    source: NDArray[np.float32], shape: tuple[int, int, int], axis: list[int], step: list[float], offset: list[float], fill: float
) -> NDArray[np.float32]:
    """Linear interpolation one axis after the other, the most shrinking first."""
    out = source.transpose(*axis)
    outside = []
    for t in sorted(range(3), key=lambda t: shape[t] / out.shape[t]):
        size = out.shape[t]
        at = offset[t] + step[t] * np.arange(shape[t])
        outside.append((t, (at < -0.5 - _ON_GRID) | (at > size - 0.5 + _ON_GRID)))
        at = np.clip(at, 0, size - 1)
        low = np.minimum(at.astype(np.intp), max(size - 2, 0))
        weight = (at - low).astype(np.float32).reshape([-1 if a == t else 1 for a in range(3)])
        near = np.take(out, low, axis=t)
        far = np.take(out, np.minimum(low + 1, size - 1), axis=t)
        far -= near
        far *= weight
        near += far
        out = near
    out = np.ascontiguousarray(out)
    for t, beyond in outside:
        if beyond.any():
            out[tuple(beyond if a == t else slice(None) for a in range(3))] = fill
    return out


def _positions(matrix: NDArray[np.float64], shape: tuple[int, int, int], k: int) -> NDArray[np.float64]:
    """(3, j, i) fractional source voxels of target slice k."""
    j, i = np.mgrid[: shape[1], : shape[2]].astype(np.float64)
    return matrix[:3, 0, None, None] * k + matrix[:3, 1, None, None] * j + matrix[:3, 2, None, None] * i + matrix[:3, 3, None, None]


def _beyond(at: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.bool_]:
    limit = np.asarray(size, dtype=np.float64)[:, None, None] - 0.5
    return ((at < -0.5 - _ON_GRID) | (at > limit + _ON_GRID)).any(axis=0)


def _oblique(source: NDArray[np.float32], matrix: NDArray[np.float64], shape: tuple[int, int, int], fill: float) -> NDArray[np.float32]:
    out = np.empty(shape, np.float32)
    for k in range(shape[0]):
        at = _positions(matrix, shape, k)
        ndimage.map_coordinates(source, at, output=out[k], order=1, mode="nearest")
        out[k][_beyond(at, source.shape)] = fill
    return out


def _nearest(array: Array, matrix: NDArray[np.float64], shape: tuple[int, int, int], fill: float) -> Array:
    out = np.full((*array.shape[:-3], *shape), fill, dtype=array.dtype)
    size = array.shape[-3:]
    for k in range(shape[0]):
        at = _positions(matrix, shape, k)
        index = np.clip(np.rint(at), 0, (np.asarray(size) - 1)[:, None, None]).astype(np.intp)
        inside = ~_beyond(at, size)
        out[..., k, :, :] = np.where(inside, array[..., index[0], index[1], index[2]], np.asarray(fill, array.dtype))
    return out
