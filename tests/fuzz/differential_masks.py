"""Masks and outlines there and back through an RTSTRUCT, against a filling of its own: even-odd by fine sampling, nothing of ``raster``.

``check(seed, n)`` makes n structures on random series (oblique, decubitus, mirrored, tilted, uneven): masks of every sort, which must come
back voxel for voxel, and outlines that cross, touch and lie in each other, which must cover what the samples say. Each is written as a real
RTSTRUCT and read again, five structures a file; then once more onto another series of the same frame of reference, with finer or coarser
slices that run either way, where each outline must cover what its own slab of the series that it was drawn on does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io.dicom.rtstruct import read_structure_set, slices_of, write_rtstruct
from oncontour.io.dicom.source import DicomSource, SliceRef
from oncontour.raster import fill, rasterise

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
A_FILE = 5
SAMPLES = 16
"""Along each side of a pixel: the share of a pixel that they say is then right to SHARE_OFF, of up to a dozen edges in it."""
SHARE_OFF = 0.1
PLACED_OFF = 0.06
"""A contour nearer to a slice than this part of its thickness is put onto it."""
_UPRIGHT = [np.eye(3)[list(p)] * np.array(s)[:, None] for p in permutations(range(3)) for s in product((1, -1), repeat=3)]


@dataclass(frozen=True, eq=False)
class Stack:
    """A series without pixels and the grid that its masks lie on; ``slice_of`` says which slice each plane of voxels belongs to."""

    source: DicomSource
    grid: Geometry
    slice_of: NDArray[np.int64]


def check(seed: int, n: int) -> list[str]:
    """What went wrong with n random structures, one line each; the same for the same seed."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(0, n, A_FILE):
            rng = np.random.default_rng([seed, number])
            failures += [f"seed {seed}, {number}: {what}" for what in _one_file(rng, Path(folder) / "r.dcm", min(A_FILE, n - number))]
    return failures


def _one_file(rng: np.random.Generator, path: Path, count: int) -> list[str]:
    stack = _stack(rng)
    masks = {f"mask {k} {kind}": _mask(rng, kind, stack) for k, kind in enumerate(rng.choice(list(_MASKS), count - 1))}
    drawn = _outlines(rng, stack)
    holes = "keyhole" if rng.random() < 0.3 else "xor"
    images = {"ct": Volume(np.zeros(stack.grid.shape, np.int16), stack.grid)}
    contours = {f"outlines {drawn.kind}": Contours(tuple(p for plane in drawn.planes for p in plane), None, slices_of(stack.source))}
    volumes = {name: Volume(mask, stack.grid) for name, mask in masks.items()}
    case = Case("random", images, volumes, contours, source=stack.source)
    write_rtstruct(case, path, holes=holes)  # type: ignore[arg-type]
    found = read_structure_set(path, source=stack.source)
    failures = [f"{holes}: {note}" for note in found.notes if "no contours: empty" not in note]
    for name, mask in masks.items():
        back = fill(found.contours[name], stack.grid).array
        if not np.array_equal(back, mask):
            failures.append(f"{name}, {holes}: {int(mask.sum())} voxels became {int(back.sum())}, {int((back != mask).sum())} differ")
        failures += _against_samples(f"{name}, {holes}", found.contours[name], stack)
    for name in contours:
        failures += _against_samples(name, found.contours[name], stack)
    return failures + _on_another_series(rng, path, found.contours, stack, [*masks, *(contours if _is_even(stack) else ())])


def _against_samples(name: str, contours: Contours, stack: Stack) -> list[str]:
    off = np.abs(rasterise(contours, stack.grid).array - sampled_shares(contours.polygons, stack)).max()
    return [f"{name}: covers up to {off:.3f} of a voxel more or less than the samples"] if off > SHARE_OFF else []


def _on_another_series(
    rng: np.random.Generator, path: Path, drawn: Mapping[str, Contours], stack: Stack, names: Sequence[str]
) -> list[str]:
    """Those structures of the file that did not come back onto another series as thick as they were on ``stack``."""
    source, grid = _another_series(rng, stack)
    found = read_structure_set(path, source=source)
    failures = []
    for name in names:
        most = SHARE_OFF if found.contours[name].alone or not len(found.contours[name]) else SHARE_OFF + PLACED_OFF
        off = np.abs(rasterise(found.contours[name], grid).array - sampled_elsewhere(drawn[name].polygons, stack, grid)).max()
        if off > most:
            failures.append(f"{name}, on slices of {grid.spacing_mm[0]:.4g} mm: covers up to {off:.3f} of a voxel off its slabs")
    return failures


def _is_even(stack: Stack) -> bool:
    """Whether a person's outlines, which are on every slice, tell by themselves how thick each is: three and more, as far apart."""
    return len(stack.source.slices) > 2 and len(np.unique(stack.slice_of)) == len(stack.slice_of)


def _another_series(rng: np.random.Generator, stack: Stack) -> tuple[DicomSource, Geometry]:
    """Slices across the same normal over all of ``stack``, and their grid, with its pixels."""
    source, grid = stack.source, stack.grid
    step = grid.spacing_mm[0] * float(rng.choice([1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3]))
    beyond = 2 * grid.spacing_mm[0] + step
    count = int(np.ceil((grid.shape[0] * grid.spacing_mm[0] + 2 * beyond) / step))
    shift = float(rng.choice([0, 0.5, rng.uniform(0, 1)])) * step - np.ceil(beyond / step) * step
    first = grid.affine[:3, 3] + grid.axes[0] * shift
    other = Geometry.regular((count, *grid.shape[1:]), (step, *grid.spacing_mm[1:]), first, grid.axes)
    at = other.points([(k, 0, 0) for k in range(count)])
    slices = tuple(SliceRef(source.slices[0].sop_class_uid, f"1.2.7.{n}", (float(x), float(y), float(z))) for n, (x, y, z) in enumerate(at))
    turned = replace(source, series_uid="1.2.8", slices=slices)
    if rng.random() < 0.5:  # its normal is the other way round
        turned = replace(turned, row=source.column, column=source.row, rows=source.columns, columns=source.rows)
        turned = replace(turned, pixel_spacing_mm=source.pixel_spacing_mm[::-1])
    return turned, other


# ---- the filling by samples


def sampled_shares(polygons: tuple[Floats, ...], stack: Stack) -> Floats:
    """(k, j, i) share of the samples of each voxel that lie inside an odd number of the polygons of its slice."""
    out = np.zeros(stack.grid.shape)
    for plane, shares in _by_slice(polygons, stack).items():
        out[stack.slice_of == plane] = shares
    return out


def sampled_elsewhere(polygons: tuple[Floats, ...], stack: Stack, grid: Geometry) -> Floats:
    """As ``sampled_shares``, on a ``grid`` of the same pixels and other slices: each slice of ``stack`` fills its slab, from half-way to
    the slice before to half-way to the slice after."""
    normal = np.cross(stack.source.row, stack.source.column)
    at = np.array([one.position_mm for one in stack.source.slices]) @ normal
    half = np.diff(at) / 2
    low, high = at - np.append(half[0], half), at + np.append(half, half[-1])
    planes, step = grid.points([(k, 0, 0) for k in range(grid.shape[0])]) @ normal, grid.spacing_mm[0]
    out = np.zeros(grid.shape)
    for plane, shares in _by_slice(polygons, stack).items():
        within = np.minimum(planes + step / 2, high[plane]) - np.maximum(planes - step / 2, low[plane])
        out += (np.maximum(within, 0) / step)[:, None, None] * shares
    return out


def _by_slice(polygons: tuple[Floats, ...], stack: Stack) -> dict[int, Floats]:
    """Slice -> (j, i) share of the samples of each pixel that lie inside."""
    source, grid = stack.source, stack.grid
    normal = np.cross(source.row, source.column)
    at = np.array([one.position_mm for one in source.slices]) @ normal
    corner, steps = grid.affine[:3, 3], grid.affine[:3, 1:3]
    planes: dict[int, list[Floats]] = {}
    for polygon in polygons:
        plane = int(np.abs(at - polygon.mean(axis=0) @ normal).argmin())
        planes.setdefault(plane, []).append((polygon - corner) @ steps / (steps**2).sum(axis=0))
    return {plane: _shares(flat, (grid.shape[1], grid.shape[2])) for plane, flat in planes.items()}


def _shares(polygons: list[Floats], shape: tuple[int, int]) -> Floats:
    """Share of each pixel inside polygons (n, 2) of (row, column): each edge turns every sample to its right."""
    rows, columns = ((np.arange(size * SAMPLES) + 0.5137) / SAMPLES - 0.5 for size in shape)
    inside = np.zeros((len(rows), len(columns)), bool)
    for polygon in polygons:
        for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if r0 != r1:
                low, high = np.searchsorted(rows, sorted((r0, r1)))
                crossing = c0 + (rows[low:high] - r0) * (c1 - c0) / (r1 - r0)
                inside[low:high] ^= columns > crossing[:, None]
    return np.asarray(inside.reshape(shape[0], SAMPLES, shape[1], SAMPLES).mean(axis=(1, 3)))


# ---- random series


def _stack(rng: np.random.Generator) -> Stack:
    row, column, normal = _directions(rng)
    rows, columns = (int(v) for v in rng.integers(5, 11, 2))
    pixel = rng.uniform(0.5, 2.5, 2) if rng.random() < 0.7 else np.ones(2)
    step = float(rng.uniform(0.7, 6))
    offsets, widths = _uneven(rng) if rng.random() < 0.35 else (np.arange(float(n := int(rng.integers(2, 13)))), np.ones(n, np.int64))
    low = offsets[0] - widths[0] / 2
    origin = rng.uniform(-800, 800, 3) if rng.random() < 0.5 else rng.uniform(-20, 20, 3)
    tilt = float(np.tan(np.deg2rad(rng.uniform(-25, 25)))) if rng.random() < 0.3 else 0.0
    positions = origin + step * offsets[:, None] * (normal + tilt * column)
    source = DicomSource(
        "CT",
        "1.2.3",
        "1.2.4",
        "1.2.5",
        tuple(SliceRef("1.2.840.10008.5.1.4.1.1.2", f"1.2.6.{n}", (float(x), float(y), float(z))) for n, (x, y, z) in enumerate(positions)),
        rows,
        columns,
        (float(pixel[0]), float(pixel[1])),
        tuple(row.tolist()),
        tuple(column.tolist()),
        patient={"PatientID": "random"},
    )
    planes, slice_of = int(widths.sum()), np.repeat(np.arange(len(widths)), widths)
    first = origin + step * (low + 0.5) * normal
    if rng.random() < 0.3:  # stored from the other end
        first, normal, slice_of = first + step * (planes - 1) * normal, -normal, slice_of[::-1]
    grid = Geometry.regular((planes, rows, columns), (step, *pixel), first, np.stack([normal, column, row]))
    return Stack(source, grid, slice_of)


def _directions(rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Row, column and normal: along the patient's axes whichever way round, or oblique."""
    axes = _UPRIGHT[int(rng.integers(len(_UPRIGHT)))].copy()
    if rng.random() < 0.4:
        turned, _ = np.linalg.qr(np.eye(3) + rng.uniform(-0.8, 0.8, (3, 3)))
        axes = axes @ turned
    return axes[0], axes[1], np.cross(axes[0], axes[1])


def _uneven(rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Where uneven slices lie and how thick each is: whole numbers of voxels, so that a mask may be the same throughout each slab."""
    halves = rng.choice([0.5, 1.5, 2.5] if rng.random() < 0.5 else [1.0, 2.0], int(rng.integers(2, 8)))
    ends = np.concatenate([[halves[0]], halves, [halves[-1]]])  # the first and the last reach as far outwards as inwards
    return np.concatenate([[0], np.cumsum(2 * halves)]), np.rint(ends[1:] + ends[:-1]).astype(np.int64)


# ---- random masks


def _mask(rng: np.random.Generator, kind: str, stack: Stack) -> Bools:
    """A mask that is the same throughout what each slice stands for."""
    slices = len(stack.source.slices)
    return np.asarray(_MASKS[kind](rng, (slices, *stack.grid.shape[1:]))[stack.slice_of])


Shape = tuple[int, int, int]


def _noise(rng: np.random.Generator, shape: Shape) -> Bools:
    return np.asarray(rng.random(shape) < rng.uniform(0.05, 0.95))


def _box(rng: np.random.Generator, shape: Shape) -> Bools:
    out = np.zeros(shape, bool)
    low = [int(rng.integers(0, n)) for n in shape]
    out[tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))] = True
    return out


def _boxes(rng: np.random.Generator, shape: Shape) -> Bools:
    """Boxes by XOR: crossing, touching by edges and corners."""
    out = np.zeros(shape, bool)
    for _ in range(int(rng.integers(2, 5))):
        out ^= _box(rng, shape)
    return out


def _rings(rng: np.random.Generator, shape: Shape) -> Bools:
    """Holes in holes."""
    j, i = np.indices(shape[1:])
    away = np.maximum(np.abs(j - rng.integers(2, shape[1] - 2)), np.abs(i - rng.integers(2, shape[2] - 2)))
    return np.asarray(np.repeat((away % 2 == int(rng.integers(2)))[None], shape[0], axis=0))


def _points(rng: np.random.Generator, shape: Shape) -> Bools:
    out = np.zeros(shape, bool)
    for _ in range(int(rng.integers(1, 4))):
        out[tuple(int(rng.integers(n)) for n in shape)] = True
    return out


def _plates(rng: np.random.Generator, shape: Shape) -> Bools:
    """One slice, or full slices, or lines of one pixel."""
    out = np.zeros(shape, bool)
    axis = int(rng.integers(3))
    out[(slice(None),) * axis + (int(rng.integers(shape[axis])),)] = True
    return out


def _some_slices(rng: np.random.Generator, shape: Shape) -> Bools:
    """A body on every second, third or any slices."""
    out, every = _box(rng, shape) | _boxes(rng, shape), int(rng.integers(1, 5))
    held = np.arange(shape[0]) % every == int(rng.integers(every)) if every > 1 else rng.random(shape[0]) < 0.5
    out[~held] = False
    return out


def _checkers(rng: np.random.Generator, shape: Shape) -> Bools:
    """Pixels that touch by corners alone."""
    return np.asarray((np.indices(shape)[1:].sum(axis=0) + rng.integers(2)) % 2 == 0) & _box(rng, shape)


def _nothing(rng: np.random.Generator, shape: Shape) -> Bools:
    return np.zeros(shape, bool)


_MASKS = {
    "noise": _noise,
    "box": _box,
    "boxes": _boxes,
    "rings": _rings,
    "points": _points,
    "plates": _plates,
    "some slices": _some_slices,
    "checkers": _checkers,
    "nothing": _nothing,
}


# ---- random outlines


@dataclass(frozen=True, eq=False)
class Drawn:
    """Polygons (n, 3) LPS mm of each slice."""

    kind: str
    planes: list[list[Floats]]


def _outlines(rng: np.random.Generator, stack: Stack) -> Drawn:
    """Outlines on every slice, none of them the same as another."""
    source, kind = stack.source, str(rng.choice(list(_OUTLINES)))
    steps = np.stack([np.asarray(source.column) * source.pixel_spacing_mm[0], np.asarray(source.row) * source.pixel_spacing_mm[1]])
    reach = np.array([source.rows, source.columns], float)
    planes = []
    shift = (np.array(source.slices[0].position_mm) - stack.grid.affine[:3, 3]) @ np.stack([source.column, source.row], axis=1)
    for one in source.slices:
        flat = [polygon * reach - 0.5 for polygon in _OUTLINES[kind](rng)]
        tilted = (np.array(one.position_mm) - stack.grid.affine[:3, 3]) @ np.stack([source.column, source.row], axis=1) - shift
        planes.append([(p - tilted / source.pixel_spacing_mm) @ steps + one.position_mm for p in flat])
    return Drawn(kind, planes)


def _scribble(rng: np.random.Generator) -> list[Floats]:
    """Outlines that cross themselves and each other."""
    return [rng.uniform(-0.1, 1.1, (int(rng.integers(3, 9)), 2)) for _ in range(int(rng.integers(1, 4)))]


def _eights(rng: np.random.Generator) -> list[Floats]:
    """Figures of eight with equal lobes, and now and then a hole in one."""
    half = rng.uniform(0.2, 0.45, 2)
    eight = np.array([[-1, -1], [1, 1], [1, -1], [-1, 1]]) * half + rng.uniform(0.45, 0.55, 2)
    inner = eight[[0, 3]].mean(axis=0) + (eight.mean(axis=0) - eight[[0, 3]].mean(axis=0)) * 0.2
    return [eight] if rng.random() < 0.5 else [eight, inner + np.array([[0, -0.03], [0.03, 0], [0, 0.03], [-0.03, 0]])]


def _crossing(rng: np.random.Generator) -> list[Floats]:
    """Rectangles that overlap, whichever way they run, some on the edges of pixels."""
    out = []
    for _ in range(int(rng.integers(2, 5))):
        low, size = rng.uniform(0, 0.5, 2), rng.uniform(0.1, 0.6, 2)
        box = low + np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * size
        out.append(box[:: int(rng.choice([-1, 1]))])
    return out


def _nested(rng: np.random.Generator) -> list[Floats]:
    """Stars in stars."""
    middle, count = rng.uniform(0.4, 0.6, 2), int(rng.integers(5, 12))
    turn, wave = 2 * np.pi * np.arange(count) / count, rng.uniform(0.7, 1, count)
    star = np.stack([np.cos(turn), np.sin(turn)], axis=1) * wave[:, None]
    return [middle + star * size for size in np.array([0.45, 0.33, 0.2, 0.1])[: int(rng.integers(1, 5))]]


def _touching(rng: np.random.Generator) -> list[Floats]:
    """Triangles that have edges, parts of edges or corners in common."""
    a, b, c, d = rng.uniform(0, 1, (4, 2))
    middle = (a + b) / 2
    return [np.array([a, b, c]), np.array([b, a, d]), np.array([middle, c, d])]


_OUTLINES = {"scribble": _scribble, "eights": _eights, "crossing": _crossing, "nested": _nested, "touching": _touching}
