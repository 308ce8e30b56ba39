"""Arrays through a 4x4 matrix: the arithmetic under ``Volume.to``.

``matrix`` takes a target voxel (k, j, i, 1) to a fractional source voxel. Three ways, the cheapest that fits:

* ``copy``: target voxels fall on source voxels (crop, pad, flip, permute): values are moved bit for bit;
* separable: axes stay parallel: one sparse matrix of weights an axis, blur and linear interpolation in one;
* oblique: linear interpolation at every point, slice by slice.

Beyond the source's edge (half a voxel past its outermost centres) stands ``fill``. Nothing larger than the result and one
intermediate of the smaller in-plane size is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Array = NDArray[Any]
"""Numbers of any kind."""
Floats = NDArray[np.float64]
Shape3 = tuple[int, int, int]
Moves = tuple[list[int], list[int], list[int]]

ON_GRID = 1e-4
"""Voxel fraction below which a position counts as on the source's grid."""
TIE = 1e-6
"""Rounding noise that must not decide on which side of one half a value falls."""


def copy_moves(matrix: Floats) -> Moves | None:
    """(source axis, sign, offset) for each target axis when target voxels fall on source voxels, else None."""
    linear, rounded = matrix[:3, :3], np.rint(matrix[:3, :3])
    offset = matrix[:3, 3]
    if np.abs(linear - rounded).max() > 1e-6 or np.abs(offset - np.rint(offset)).max() > ON_GRID:
        return None
    if not (np.abs(rounded).sum(axis=0) == 1).all() or not (np.abs(rounded).sum(axis=1) == 1).all():
        return None
    axis = [int(np.abs(rounded[:, t]).argmax()) for t in range(3)]
    return axis, [int(rounded[axis[t], t]) for t in range(3)], [int(np.rint(offset[axis[t]])) for t in range(3)]


def copy(array: Array, shape: Shape3, moves: Moves, fill: np.generic) -> Array:
    """(..., k, j, i) moved voxel by voxel."""
    axis, sign, offset = moves
    lead = array.ndim - 3
    source = array.transpose(*range(lead), *(lead + a for a in axis))
    out = np.full((*array.shape[:lead], *shape), fill, dtype=array.dtype)
    take: list[slice] = []
    put: list[slice] = []
    for t in range(3):
        index = offset[t] + sign[t] * np.arange(shape[t])
        inside = np.flatnonzero((index >= 0) & (index < source.shape[lead + t]))
        if not len(inside):
            return out
        first, last = int(inside[0]), int(inside[-1])
        put.append(slice(first, last + 1))
        a, b = int(index[first]), int(index[last])
        take.append(slice(a, b + 1) if sign[t] > 0 else slice(a, b - 1 if b > 0 else None, -1))
    out[..., put[0], put[1], put[2]] = source[..., take[0], take[1], take[2]]
    return out


def linear(array: Array, matrix: Floats, shape: Shape3, fill: np.generic, blur: bool = True) -> Array:
    """(..., k, j, i) interpolated linearly, after the blur that coarsening needs unless ``blur`` is off; integers rounded, bool cut at one
    half."""
    axis = parallel_axes(matrix, shape)
    out = np.empty((*array.shape[:-3], *shape), array.dtype)
    sources, targets = array.reshape(-1, *array.shape[-3:]), out.reshape(-1, *shape)
    for source, target in zip(sources, targets, strict=True):
        if axis is None:
            _oblique(source, matrix, target, fill, blur)
        else:
            _separable(source.transpose(axis), matrix[axis], target, fill, blur)
    return out


def nearest(array: Array, matrix: Floats, shape: Shape3, fill: np.generic) -> Array:
    """(..., k, j, i) with each target voxel taking the nearest source voxel; of two as near, the lower."""
    axis = parallel_axes(matrix, shape)
    out = np.full((*array.shape[:-3], *shape), fill, dtype=array.dtype)
    if axis is None:
        _nearest_oblique(array, matrix, out)
        return out
    lead = array.ndim - 3
    source = array.transpose(*range(lead), *(lead + a for a in axis))
    take, put = [], []
    for t in range(3):
        at = _positions_along(matrix[axis], t, shape[t])
        kept = np.flatnonzero(_within(at, source.shape[lead + t]))
        take.append(np.clip(_rounded(at[kept]), 0, source.shape[lead + t] - 1))
        put.append(slice(int(kept[0]), int(kept[-1]) + 1) if len(kept) else slice(0, 0))
    for k, from_k in zip(range(put[0].start, put[0].stop), take[0], strict=True):
        plane = source[..., int(from_k), :, :]
        out[..., k, put[1], put[2]] = plane[..., take[1][:, None], take[2][None, :]]
    return out


# ---- parallel axes


def parallel_axes(matrix: Floats, shape: Shape3) -> list[int] | None:
    """The source axis that each target axis runs along, or None where they are not parallel."""
    axis = [int(np.abs(matrix[:3, t]).argmax()) for t in range(3)]
    off = matrix[:3, :3].copy()
    off[axis, range(3)] = 0
    return axis if sorted(axis) == [0, 1, 2] and np.abs(off).max() * max(shape) < ON_GRID else None


def _positions_along(matrix: Floats, t: int, size: int) -> Floats:
    """Fractional source voxels of the target's ``size`` voxels along axis ``t``; rows of ``matrix`` are in target order."""
    return np.asarray(matrix[t, 3] + matrix[t, t] * np.arange(size))


def _within(at: Floats, size: int) -> NDArray[np.bool_]:
    return (at >= -0.5 - ON_GRID) & (at <= size - 0.5 + ON_GRID)


def _weights(at: Floats, step: float, size: int, dtype: type[np.floating]) -> sparse.csr_array:
    """(target, source) weights: Gaussian blur of a coarsening, then linear interpolation; the edge value goes on beyond the edge.

    Source: Cardoso et al. 2015, "Scale factor point spread function matching": sigma = sqrt(f^2 - 1) / 2.355 source voxels.
    """
    place = np.clip(at, 0, size - 1)
    low = np.floor(place).astype(np.intp)
    taps = np.stack([low, low + 1], axis=1)
    share = np.stack([low + 1 - place, place - low], axis=1)
    kernel = blur_kernel(abs(float(step)))
    reach = len(kernel) // 2
    columns = np.clip(taps[:, :, None] + np.arange(-reach, reach + 1), 0, size - 1).reshape(len(at), -1)
    values = (share[:, :, None] * kernel).reshape(len(at), -1)
    rows = np.repeat(np.arange(len(at)), columns.shape[1])
    out = sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=(len(at), size))
    out.sum_duplicates()
    out.eliminate_zeros()
    return out.astype(dtype)


def blur_kernel(step: float) -> Floats:
    """Normalised Gaussian for going over ``step`` source voxels at a time; a single 1 where nothing is coarser."""
    if step <= 1 + 1e-3:
        return np.ones(1)
    sigma = np.sqrt(step * step - 1) / 2.355
    away = np.arange(-int(np.ceil(3 * sigma)), int(np.ceil(3 * sigma)) + 1)
    kernel = np.exp(-0.5 * (away / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


def blur_reach(matrix: Floats) -> list[int]:
    """Source voxels either side that are blurred over along each axis: where the target is coarser."""
    return [len(blur_kernel(float(step))) // 2 for step in np.linalg.norm(matrix[:3, :3], axis=1)]


def _separable(source: Array, matrix: Floats, out: Array, fill: np.generic, blur: bool) -> None:
    """Fill ``out`` from ``source``, whose axes run along those of ``out``; the in-plane step comes first where it shrinks."""
    size, reach = (out.shape[0], out.shape[1], out.shape[2]), source.shape
    source, along = _along(source, matrix, size, blur)
    if out.shape[1] * out.shape[2] <= reach[1] * reach[2]:
        slices = np.zeros((source.shape[0], *out.shape[1:]), _working_type(source.dtype))
        for k in np.unique(along[0].indices):
            slices[k] = _in_plane(source[k], along)
        for k in range(out.shape[0]):
            out[k] = _as_type(source.dtype, _mixed(slices, along[0], k))
    else:
        for k in range(out.shape[0]):
            out[k] = _as_type(source.dtype, _in_plane(_mixed(source, along[0], k), along))
    for t in range(3):
        off_grid = ~_within(_positions_along(matrix, t, out.shape[t]), reach[t])
        if off_grid.any():
            out[tuple(off_grid if a == t else slice(None) for a in range(3))] = fill


def slices_parallel(source: Array, matrix: Floats, shape: Shape3) -> Iterator[Array]:
    """Each slice (j, i) of a (k, j, i) float array interpolated linearly at the voxels of a target whose axes run along its own
    (``parallel_axes`` says which); nothing is blurred, and beyond the outermost voxel centres the value of the edge goes on."""
    source, along = _along(source, matrix, shape, blur=False)
    for k in range(shape[0]):
        yield _in_plane(_mixed(source, along[0], k), along)


def _along(source: Array, matrix: Floats, shape: Shape3, blur: bool) -> tuple[Array, list[sparse.csr_array]]:
    """The part of ``source`` that a target of ``shape`` reads, and the weights along each of its axes."""
    work = _working_type(source.dtype)
    at = [_positions_along(matrix, t, shape[t]) for t in range(3)]
    along = [_weights(at[t], matrix[t, t] if blur else 1.0, source.shape[t], work) for t in range(3)]
    ends = [slice(int(one.indices.min()), int(one.indices.max()) + 1) for one in along]
    return source[ends[0], ends[1], ends[2]], [one[:, end] for one, end in zip(along, ends, strict=True)]


def _in_plane(plane: Array, along: list[sparse.csr_array]) -> Array:
    half = along[1] @ np.ascontiguousarray(plane, dtype=along[1].dtype)
    return np.asarray((along[2] @ np.ascontiguousarray(half.T)).T)


def _mixed(slices: Array, weights: sparse.csr_array, k: int) -> Array:
    """The weighted sum of slices that makes target slice ``k``."""
    span = slice(weights.indptr[k], weights.indptr[k + 1])
    taps, shares = weights.indices[span], weights.data[span]
    total = slices[taps[0]] * shares[0]
    for tap, share in zip(taps[1:], shares[1:], strict=True):
        total += slices[tap] * share
    return np.asarray(total)


def _working_type(dtype: np.dtype[np.generic]) -> type[np.floating]:
    """float32, or float64 where the values do not fit float32 exactly."""
    return np.float32 if dtype.kind == "b" or np.can_cast(dtype, np.float32) else np.float64


def _as_type(dtype: np.dtype[Any], values: Array) -> Array:
    if dtype.kind == "b":
        return values >= 0.5 - TIE
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        top = info.max if info.bits <= 32 else np.nextafter(float(info.max), 0)
        return np.clip(np.rint(values), info.min, top).astype(dtype)
    return values.astype(dtype, copy=False)


# ---- any axes


def _oblique(source: Array, matrix: Floats, out: Array, fill: np.generic, blur: bool) -> None:
    whole = source.shape
    low, high = _reached(matrix, whole, out.shape)
    if (high <= low).any():
        out[...] = fill
        return
    part = np.asarray(source[low[0] : high[0], low[1] : high[1], low[2] : high[2]], dtype=_working_type(source.dtype))
    if blur:
        part = _blurred(part, np.linalg.norm(matrix[:3, :3], axis=1))
    for k, at in _positions(matrix, out.shape):
        values = ndimage.map_coordinates(part, at - low[:, None, None], order=1, mode="nearest", output=part.dtype)
        out[k] = np.where(beyond(at, whole), np.asarray(fill, out.dtype), _as_type(source.dtype, values))


def _nearest_oblique(array: Array, matrix: Floats, out: Array) -> None:
    size = array.shape[-3:]
    for k, at in _positions(matrix, out.shape[-3:]):
        inside = ~beyond(at, size)
        index = np.clip(_rounded(at[:, inside]), 0, (np.asarray(size) - 1)[:, None])
        out[..., k, :, :][..., inside] = array[..., index[0], index[1], index[2]]


def _reached(matrix: Floats, size: tuple[int, ...], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The half-open source box that a target of ``shape`` reads, with room for the blur."""
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    corners = ends @ matrix[:3, :3].T + matrix[:3, 3]
    room = 3 + np.ceil(2 * np.linalg.norm(matrix[:3, :3], axis=1))
    low = np.clip(np.floor(corners.min(axis=0) - room), 0, size).astype(np.intp)
    return low, np.clip(np.ceil(corners.max(axis=0) + room) + 1, 0, size).astype(np.intp)


def _blurred(array: Array, steps: Floats) -> Array:
    """``array`` smoothed along each axis that the target steps over by more than one voxel."""
    for axis, step in enumerate(steps):
        kernel = blur_kernel(float(step))
        if len(kernel) > 1 and array.shape[axis] > 1:
            array = ndimage.correlate1d(array, kernel, axis=axis, mode="nearest")
    return array


def _positions(matrix: Floats, shape: tuple[int, ...]) -> Iterator[tuple[int, Floats]]:
    """(k, (3, j, i) fractional source voxels) for each target slice."""
    j, i = np.arange(shape[1])[:, None], np.arange(shape[2])[None, :]
    first = np.stack([row[1] * j + row[2] * i + row[3] for row in matrix[:3]])
    for k in range(shape[0]):
        yield k, first + (matrix[:3, 0] * k)[:, None, None]


def beyond(at: Floats, size: tuple[int, ...]) -> NDArray[np.bool_]:
    limit = np.asarray(size, dtype=np.float64)[:, None, None] - 0.5
    return np.asarray(((at < -0.5 - ON_GRID) | (at > limit + ON_GRID)).any(axis=0))


def _rounded(at: Floats) -> NDArray[np.intp]:
    return np.ceil(at - 0.5 - TIE).astype(np.intp)
