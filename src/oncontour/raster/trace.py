"""Voxels -> contours: what a mask looks like on the planes of a series, with the volume that it had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Holes = Literal["xor", "keyhole"]
_LEAST_AREA = 1e-3
"""Loops smaller than this part of a pixel are rounding, not anatomy."""
_LEAST_SHARE = 1e-2
"""Part of a voxel's thickness below which a slab does not reach into it."""
_MARGIN = 3


@dataclass(frozen=True, eq=False)
class _Loops:
    """Loops of one plane in fractional pixels: points (n, 2) as (row, column), starts of each loop and the end."""

    plane: int
    points: Floats
    starts: Ints


def trace(mask: Volume, *, slices: Slices | None = None, holes: Holes = "xor", colour: tuple[int, int, int] | None = None) -> Contours:
    """Closed polygons round a mask (bool, or coverage cut at one half), one set a slice, with the area of the mask there.

    Without ``slices`` the planes are the grid's own k planes, and the contours carry those. With them (uneven, tilted: the ``Slices`` of
    the series) polygons lie exactly on those planes, and their area in a plane is the mean area of the mask over the slab that its slice
    stands for: the sum of area x slab is the mask's volume. Where a slice stands for one plane of voxels, reading the contours back
    (``fill``) gives the same voxels, diagonal neighbours and single pixels included. Holes are polygons of their own (XOR);
    ``holes="keyhole"`` joins each to the outline round it by a channel without width. An empty mask gives no polygons. Each polygon stands
    for its own slice alone (``Contours.alone``): a slice on which the mask is empty is not filled from those beside it.
    Raises GeometryError where the mask has channels.
    """
    voxels = mask.binary().array
    if voxels.ndim != 3:
        raise GeometryError(f"a mask to trace has three axes (k, j, i), not {voxels.shape}")
    pixels = voxels.view(np.uint8)
    across = 0 if slices is None else _axis_across(mask.geometry, slices)
    if slices is not None and across is None:
        polygons = _on_slices(_holes(_loops_oblique(pixels, mask.geometry, slices), holes), slices)
    else:
        polygons = _on_grid(pixels, mask.geometry, across or 0, slices, holes)
    # With the grid's own planes the contours know that an empty slice lies between two, and is not to be bridged.
    return Contours(tuple(polygons), colour, slices or Slices.of(mask.geometry), alone=True)


def _holes(loops: list[_Loops], how: Holes) -> list[_Loops]:
    if how == "xor":
        return loops
    from oncontour.raster.keyhole import join_holes

    return [_Loops(plane.plane, *join_holes(plane.points, plane.starts)) for plane in loops]


# ---- planes along a grid axis


def _axis_across(grid: Geometry, slices: Slices) -> int | None:
    """The grid axis that runs along the slices' normal, None where none does."""
    cosine = np.abs(grid.axes @ slices.normal)
    return int(cosine.argmax()) if cosine.max() > 1 - 1e-8 else None


def _on_grid(pixels: Bytes, grid: Geometry, across: int, slices: Slices | None, holes: Holes) -> list[Floats]:
    positions, slabs = _planes_in_voxels(grid, slices, across)
    loops = _holes(_loops_aligned(_frozen(np.moveaxis(pixels, across, 0)), slabs), holes)
    if not loops:
        return []
    voxels = np.insert(np.concatenate([plane.points for plane in loops]), across, 0.0, axis=1)
    voxels[:, across] = np.repeat(positions[[plane.plane for plane in loops]], [len(plane.points) for plane in loops])
    return _split(_exactly_on(grid.points(voxels), loops, slices), loops)


def _frozen(array: Bytes) -> Bytes:
    """C-contiguous and read-only, so that the compiled loops meet one type."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def _planes_in_voxels(grid: Geometry, slices: Slices | None, across: int) -> tuple[Floats, Floats]:
    """Where each plane lies along the grid axis ``across`` (fractional voxels), and (planes, 2) what it stands for there."""
    if slices is None:
        middle = np.arange(grid.shape[across], dtype=np.float64)
        return middle, np.stack([middle - 0.5, middle + 0.5], axis=1)
    sign = float(np.sign(grid.axes[across] @ slices.normal))
    origin, step = float(slices.normal @ grid.affine[:3, 3]), grid.spacing_mm[across]
    positions = (slices.offsets_mm - origin) * sign / step
    if len(positions) == 1:
        return positions, np.stack([positions - 0.5, positions + 0.5], axis=1)
    return positions, np.sort((slices.slabs_mm - origin) * sign / step, axis=1)


def _loops_aligned(pixels: Bytes, slabs: Floats) -> list[_Loops]:
    """Loops of each plane from the voxel planes (first axis) that its slab overlaps."""
    from oncontour.raster import trace_loops

    boxes = trace_loops.bounds(pixels)
    if not boxes.any():
        return []
    out = []
    for plane, (low, high) in enumerate(slabs):
        first, share = _shares(low, high, len(pixels))
        used = [first + n for n in range(len(share)) if boxes[first + n, 1]]
        if not used:
            continue
        row0, column0 = boxes[used, 0].min(), boxes[used, 2].min()
        window = slice(row0, boxes[used, 1].max()), slice(column0, boxes[used, 3].max())
        layers = pixels[first : first + len(share)][(slice(None), *window)]
        if len(layers) == 1 or (layers == layers[:1]).all():
            points, starts = trace_loops.trace_binary(np.array(layers[0]))
        else:
            points, starts = _mean_outline(np.tensordot(share / share.sum(), layers.astype(np.float64), axes=1))
        if len(starts) > 1:
            out.append(_Loops(plane, points + np.array([row0, column0], dtype=np.float64), starts))
    return out


def _shares(low: float, high: float, count: int) -> tuple[int, Floats]:
    """The first voxel plane that the slab low..high reaches into, and the share of it and of those after that lies in the slab."""
    k = np.arange(max(0, int(np.floor(low + 0.5))), min(count, int(np.ceil(high + 0.5))))
    share = np.minimum(high, k + 0.5) - np.maximum(low, k - 0.5)
    kept = np.flatnonzero(share > _LEAST_SHARE)
    return (int(k[kept[0]]), share[kept]) if len(kept) else (0, share[:0])


# ---- planes oblique to the grid


def _loops_oblique(pixels: Bytes, grid: Geometry, slices: Slices) -> list[_Loops]:
    """Loops of each slice from the mask's mean over its slab, sampled at the pixels of the slice."""
    from oncontour.raster import trace_loops

    boxes = trace_loops.bounds(_frozen(pixels))
    filled = np.flatnonzero(boxes[:, 1])
    if not len(filled):
        return []
    start = np.array([filled[0], boxes[filled, 0].min(), boxes[filled, 2].min()])
    stop = np.array([filled[-1] + 1, boxes[filled, 1].max(), boxes[filled, 3].max()])
    crop = _frozen(pixels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))])
    cropped = grid.crop([int(n) for n in start], [int(n) for n in stop])
    corners = cropped.pad((1, 1, 1), (1, 1, 1)).corners_mm
    out = []
    slabs = slices.slabs_mm if len(slices.offsets_mm) > 1 else slices.offsets_mm[:, None] + np.array([[-0.5, 0.5]]) * max(grid.spacing_mm)
    for plane, (low, high) in enumerate(slabs):
        if high < (corners @ slices.normal).min() or low > (corners @ slices.normal).max():
            continue
        field, corner = _slab_field(crop, cropped, slices, plane, (float(low), float(high)), corners)
        points, starts = _mean_outline(field)
        if len(starts) > 1:
            out.append(_Loops(plane, points + corner, starts))
    return out


def _slab_field(
    crop: Bytes, grid: Geometry, slices: Slices, plane: int, slab: tuple[float, float], corners_mm: Floats
) -> tuple[Floats, Floats]:
    """Mean of the mask over one slab at the slice's pixels (row, column), and the pixel that the field begins with."""
    from oncontour.raster import trace_loops

    origin = slices.origins_mm[plane]
    flat = (corners_mm - origin) @ np.stack([slices.column, slices.row], axis=1) / np.asarray(slices.pixel_mm)
    corner = np.floor(flat.min(axis=0))
    rows, columns = (int(n) for n in np.ceil(flat.max(axis=0)) + 1 - corner)
    steps = np.stack([slices.normal, slices.column * slices.pixel_mm[0], slices.row * slices.pixel_mm[1]], axis=1)
    start = origin - slices.normal * slices.offsets_mm[plane] + steps[:, 1:] @ corner
    matrix = np.concatenate([grid.inverse[:3, :3] @ steps, grid.voxels(start)[:, None]], axis=1)
    planes = max(1, int(np.ceil((slab[1] - slab[0]) / (0.25 * min(grid.spacing_mm)))))
    field = trace_loops.slab_mean(crop, matrix, slab[0], slab[1], planes, rows, columns)
    return field, corner


def _on_slices(loops: list[_Loops], slices: Slices) -> list[Floats]:
    if not loops:
        return []
    points = np.concatenate([plane.points for plane in loops]) * np.asarray(slices.pixel_mm)
    origins = np.repeat(slices.origins_mm[[plane.plane for plane in loops]], [len(plane.points) for plane in loops], axis=0)
    return _split(_exactly_on(origins + points @ np.stack([slices.column, slices.row]), loops, slices), loops)


# ---- both


def _exactly_on(points_mm: Floats, loops: list[_Loops], slices: Slices | None) -> Floats:
    """The points with what rounding took them off their slice put right; where the normal is x, y or z, to the last bit."""
    if slices is None:
        return points_mm
    count = [len(plane.points) for plane in loops]
    origins = np.repeat(slices.origins_mm[[plane.plane for plane in loops]], count, axis=0)
    along = np.flatnonzero(np.abs(slices.normal) > 1 - 1e-12)
    if len(along):
        points_mm[:, along[0]] = origins[:, along[0]]
        return points_mm
    return points_mm + ((origins - points_mm) @ slices.normal)[:, None] * slices.normal


def _split(points_mm: Floats, loops: list[_Loops]) -> list[Floats]:
    lengths = np.concatenate([np.diff(plane.starts) for plane in loops])
    return np.split(points_mm, np.cumsum(lengths)[:-1])


def _mean_outline(field: Floats) -> tuple[Floats, Ints]:
    """Loops round as much area as ``field`` (shares 0..1 of the pixels) has in all, shaped by where it is highest.

    The pixels above and at the share that splits them nearest to that area give two nested shapes; their signed distances are mixed
    (shape-based interpolation, Raya & Udupa 1990) and cut at the level that gives the area.
    """
    from oncontour.raster import trace_loops

    field = np.pad(field, _MARGIN)
    area = float(field.sum())
    if area < _LEAST_AREA:
        return np.empty((0, 2)), np.zeros(1, np.int64)
    split = np.sort(field, axis=None)[-max(1, int(np.ceil(area - 1e-9)))]
    wide, narrow = field >= max(split, 1e-12), field > split
    mix = (wide.sum() - area) / max(wide.sum() - narrow.sum(), 1)
    outer = _signed_distance(wide)
    inner = _signed_distance(narrow) if narrow.any() else np.full_like(outer, -outer.max())
    shape = np.ascontiguousarray((1 - mix) * outer + mix * inner)
    low, high = max(-1.5, float(shape[0].max()), float(shape[:, 0].max())) + 1e-6, float(shape.max())
    for _ in range(40):
        level = 0.5 * (low + high)
        low, high = (level, high) if trace_loops.level_area(shape, level) > area else (low, level)
    points, starts = trace_loops.trace_level(shape, 0.5 * (low + high), _LEAST_AREA)
    return points - _MARGIN, starts


def _signed_distance(inside: NDArray[np.bool_]) -> Floats:
    """Pixels from each pixel's centre to the edge of the shape, positive inside."""
    within = ndimage.distance_transform_edt(inside)
    beyond = ndimage.distance_transform_edt(~inside)
    return np.asarray(np.where(inside, within - 0.5, 0.5 - beyond))
