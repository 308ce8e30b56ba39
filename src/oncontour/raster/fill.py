"""Contours -> voxels: how much of every voxel lies inside."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.raster.coverage import Coverage, plane_coverage
from oncontour.raster.planes import Planes, sort_into_planes

Floats = NDArray[np.float64]
_NOTHING = 1e-4
"""Share of a voxel's thickness below which a slab does not reach it, and above one minus which it fills it."""
_MOST_FINE = 6


def rasterise(contours: Contours, geometry: Geometry, *, slices: Slices | None = None, slab_mm: float | None = None) -> Volume:
    """What part of each voxel of ``geometry`` lies inside, float32 in [0, 1].

    In the plane the share is the exact area of the polygons within the pixel, combined by even-odd (XOR): holes, keyholes, several
    contours a slice. Across it each plane fills a slab half-way to its neighbours (``raster.planes`` says how far at ends and gaps);
    ``slices`` are the true image planes where the contours do not carry them, ``slab_mm`` sets the thickness outright. The grid may be
    finer, coarser, or oblique to the planes. Empty contours give zeros.
    Raises StructureError for polygons that are not planar or parallel, ConfigError for a slab that is not positive, LimitError where
    the outlines of a plane are too entangled (``plane_coverage``).
    """
    out = np.zeros(geometry.shape, np.float32)
    for (low, high), part in _boxes(contours, geometry, slices, slab_mm):
        out[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = part
    return Volume(out, geometry)


def fill(contours: Contours, geometry: Geometry, *, slices: Slices | None = None, slab_mm: float | None = None) -> Volume:
    """The voxels that lie inside by one half or more, bool: ``rasterise(...).binary()`` without the full grid of float32."""
    out = np.zeros(geometry.shape, np.bool_)
    for (low, high), part in _boxes(contours, geometry, slices, slab_mm):
        out[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = part >= 0.5
    return Volume(out, geometry)


Box = tuple[tuple[int, ...], tuple[int, ...]]


def _boxes(contours: Contours, geometry: Geometry, slices: Slices | None, slab_mm: float | None) -> Iterator[tuple[Box, Coverage]]:
    """The part of the grid that the contours reach, if any, and its coverage."""
    if slab_mm is not None and not 0 < slab_mm < np.inf:
        raise ConfigError(f"a slab needs a positive thickness in mm, not {slab_mm}")
    if not len(contours):
        return
    planes = sort_into_planes(contours, geometry, slices, slab_mm)
    cosine = geometry.axes @ planes.normal
    across = int(np.abs(cosine).argmax())
    if abs(cosine[across]) > 1 - 1e-8:
        box = _aligned_box(planes, geometry, across)
        if box is not None:
            yield box, _aligned(planes, geometry, across, box)
    else:
        box = _oblique_box(planes, geometry)
        if box is not None:
            yield box, _oblique(planes, geometry, box)


def _clipped(low: Floats, high: Floats, geometry: Geometry) -> Box | None:
    """Voxels that the span low..high (fractional k, j, i) touches, or None where it misses the grid."""
    first = np.maximum(np.floor(low + 0.5), 0).astype(int)
    last = np.minimum(np.floor(high + 0.5) + 1, geometry.shape).astype(int)
    if (last <= first).any():
        return None
    return tuple(int(n) for n in first), tuple(int(n) for n in last)


# ---- planes along a grid axis: slabs and voxels overlap by intervals


def _slabs_in_voxels(planes: Planes, geometry: Geometry, across: int) -> Floats:
    """(planes, 2) growing fractional voxel positions between which each slab lies along the grid axis ``across``."""
    sign = float(np.sign(geometry.axes[across] @ planes.normal))
    origin = float(planes.normal @ geometry.affine[:3, 3])
    return np.sort((planes.slabs_mm - origin) * sign / geometry.spacing_mm[across], axis=1)


def _aligned_box(planes: Planes, geometry: Geometry, across: int) -> Box | None:
    voxels = geometry.voxels(planes.points)
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    slabs = _slabs_in_voxels(planes, geometry, across)
    low[across], high[across] = slabs.min() + _NOTHING, slabs.max() - _NOTHING
    return _clipped(low, high, geometry)


def _aligned(planes: Planes, geometry: Geometry, across: int, box: Box) -> Coverage:
    """Each plane's area coverage, weighted into the voxels that its slab overlaps."""
    row, column = (axis for axis in range(3) if axis != across)
    flat = np.ascontiguousarray(geometry.voxels(planes.points)[:, [row, column]])
    slabs = _slabs_in_voxels(planes, geometry, across)
    low, high = box
    size = high[row] - low[row], high[column] - low[column]
    out = np.zeros((high[across] - low[across], *size), np.float32)
    for plane in range(len(planes)):
        first, weights = _weights(slabs[plane, 0], slabs[plane, 1], low[across], high[across])
        if not len(weights):
            continue
        where, starts = planes.pieces(plane)
        image = plane_coverage(flat[where], starts, (low[row], low[column]), size)
        for n, weight in enumerate(weights):
            out[first - low[across] + n] += image if weight == 1 else np.float32(weight) * image
    np.clip(out, 0, 1, out=out)
    return np.ascontiguousarray(np.moveaxis(out, 0, across))


def _weights(low: float, high: float, first: int, last: int) -> tuple[int, Floats]:
    """Share of each voxel first <= k < last (unit intervals round k) between low and high: the first that has any, and theirs."""
    start = max(first, int(np.floor(low + 0.5 + _NOTHING)))
    stop = min(last, int(np.ceil(high + 0.5 - _NOTHING)))
    k = np.arange(start, max(start, stop))
    share = np.minimum(high, k + 0.5) - np.maximum(low, k - 0.5)
    return start, np.where(share > 1 - _NOTHING, 1.0, share)


# ---- planes oblique to the grid: voxels are sampled


def _oblique_box(planes: Planes, geometry: Geometry) -> Box | None:
    corners = np.concatenate([_corners(planes, plane) for plane in range(len(planes))])
    voxels = geometry.voxels(corners)
    return _clipped(voxels.min(axis=0), voxels.max(axis=0), geometry)


def _corners(planes: Planes, plane: int) -> Floats:
    """The points of a plane moved to both faces of its slab."""
    points = planes.points[planes.pieces(plane)[0]]
    height = points @ planes.normal
    return np.concatenate([points + (face - height)[:, None] * planes.normal for face in planes.slabs_mm[plane]])


def _oblique(planes: Planes, geometry: Geometry, box: Box) -> Coverage:
    """Each plane drawn at sub-voxel pixels, then read by every sub-voxel sample that falls into its slab."""
    from oncontour.raster import fill_loops

    low, high = box
    spacing = np.asarray(geometry.spacing_mm)
    fine = np.clip(np.ceil(4 * spacing / spacing.min()), 1, _MOST_FINE).astype(np.int64)
    pixel = float(spacing.min()) / 4
    cropped = geometry.crop(low, high)
    out = np.zeros(cropped.shape, np.float32)
    upright = in_plane(planes.normal, geometry)
    seen = cropped.pad((1, 1, 1), (1, 1, 1)).corners_mm @ upright.T / pixel
    along = np.append(planes.normal @ cropped.affine[:3, :3], planes.normal @ cropped.affine[:3, 3])
    for plane in range(len(planes)):
        reach = _clipped(*_span(cropped.voxels(_corners(planes, plane))), cropped)
        if reach is None:
            continue
        where, starts = planes.pieces(plane)
        flat = planes.points[where] @ upright.T / pixel
        corner = np.floor(np.maximum(flat.min(axis=0), seen.min(axis=0))) - 2
        height, width = (int(n) for n in np.ceil(np.minimum(flat.max(axis=0), seen.max(axis=0))) + 3 - corner)
        image = plane_coverage(flat - corner, starts, (0, 0), (height, width))
        to_image = np.concatenate([upright @ cropped.affine[:3, :3], (upright @ cropped.affine[:3, 3])[:, None]], axis=1) / pixel
        to_image[:, 3] -= corner
        slab = planes.slabs_mm[plane]
        fill_loops.add_slab(out, image, along, slab[0], slab[1], to_image, np.array(reach[0]), np.array(reach[1]), fine)
    return np.clip(out, 0, 1, out=out)


def _span(voxels: Floats) -> tuple[Floats, Floats]:
    return voxels.min(axis=0), voxels.max(axis=0)


def in_plane(normal: Floats, geometry: Geometry) -> Floats:
    """(2, 3) two unit directions across ``normal``, the first near a grid axis: along it where that lies in the plane."""
    axis = geometry.axes[int(np.abs(geometry.axes @ normal).argmin())]
    first = axis - (axis @ normal) * normal
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first)])
