"""What the page's viewer needs: grey values small enough to travel inside an HTML file, and contours as polygons.

The images are shown on an upright grid (slices towards superior, rows towards posterior, columns towards left), cropped to the body and
coarsened in plane until all slices fit the budget; slices are never merged. A grey value is one byte: 3 HU steps where soft tissue is,
20 HU elsewhere, which no window preset shows. Contours are not touched by any of this: they stay polygons, to 0.01 mm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.report import review as reviewing
from oncontour.report.dose_grid import DoseGrid, dose_grid, packed
from oncontour.report.structures import Row

BUDGET = 14_000_000
"""Voxels of the images in a page; at most about 9 MB of text."""
LEAST_ACROSS = 160
"""Pixels along the longer side that a slice keeps, although the budget says otherwise, while they are at most MOST."""
MOST = 30_000_000
"""Voxels of the images in a page, however many slices there are; about 20 MB of text."""
BLOCK = 8
"""Slices unpacked at a time: the one on show comes first."""
OFF_SLICE = 0.25
"""Part of a slice by which drawn contours may lie off the slices and still be shown as they were drawn: on the nearest."""
HU_LEVELS: NDArray[np.float32] = np.concatenate([np.arange(-1000, -200, 20), np.arange(-200, 200, 3), np.arange(200, 1820, 20)]).astype(
    np.float32
)
WINDOWS: tuple[tuple[str, int, int], ...] = (
    ("Soft tissue", -160, 240),
    ("Lung", -1350, 150),
    ("Bone", -500, 1300),
    ("Brain", 0, 80),
)
"""(name, HU shown black, HU shown white)."""

Outlines = list[tuple[int, list[int]]]
"""Polygons of one structure: (slice, [u, v, du, dv, ...]) in hundredths of a millimetre, every point after the first as a step."""


@dataclass(frozen=True)
class Block:
    """Slices ``first`` to ``first + count - 1``, compressed, as text."""

    first: int
    count: int
    text: str


@dataclass(frozen=True, eq=False)
class Scene:
    """``words`` (JSON): grid, grey levels, windows, structures; ``blocks``: the images; ``contours``: compressed JSON of Outlines;
    ``review`` (JSON): what is said of quality, ``dose``: its grid, each None where there is none. Of ``words``: voxels of ``step_mm``
    (k, j, i), the ``start`` slice, how many grey ``windows``, and what a step of the grey values (``greys``) is; ``grid``: where the voxels
    lie."""

    words: dict[str, object]
    blocks: list[Block]
    contours: str
    review: dict[str, object] | None
    dose: DoseGrid | None
    step_mm: tuple[float, float, float]
    start: int
    windows: int
    greys: str
    grid: Geometry


def scene(case: Case, table: Sequence[Row]) -> Scene:
    """Everything the viewer shows of ``case``: its main image and the structures in ``table``."""
    name = "ct" if "ct" in case.images else next(iter(case.images))
    image = case.images[name]
    image = image.to(image.geometry.reorient())
    outlines = {row.name: _polygons(case, row.name, image.geometry) for row in table}
    box = _box(image, outlines)
    shown = box.resample(_spacing(box))
    levels = HU_LEVELS if name == "ct" else _levels(image)
    blocks = list(_blocks(image.to(shown, fill=float(levels[0])).array, levels))
    held = [outlined(polygons, shown) for polygons in outlines.values()]
    strips = reviewing.strips(case)
    review = reviewing.words(case, strips, shown, {row.name: row.colour for row in table})
    begin, windows = _start(held, table, shown), _windows(name, levels)
    worst = reviewing.start(case, strips, shown)
    start = begin[0] if worst is None else worst
    greys = "steps of 3 HU from −200 to 200, of 20 beyond" if name == "ct" else f"{len(levels)} equal steps"
    dose = dose_grid(case.images["dose"], shown) if "dose" in case.images and name != "dose" else None
    words: dict[str, object] = {
        "shape": shown.shape,
        "step_mm": shown.spacing_mm,
        "z_mm": [round(float(z), 2) for z in _heights(shown)],
        "corner_mm": [round(float(at), 4) for at in shown.points((-0.5, -0.5, -0.5))],
        "axes": [[round(float(one), 8) for one in axis] for axis in shown.axes],
        "dose": None if dose is None else dose.words(),
        "along": "z" if shown.is_axial else "along the slices",
        "letters": _letters(shown),
        "levels": [round(float(level), 3) for level in levels],
        "unit": "HU" if name == "ct" else "",
        "windows": windows,
        "structures": [{"name": row.name, "colour": row.colour, "centre": _voxel(row, shown)} for row in table],
        "start": [start, *begin[1:]],
    }
    contours = packed(json.dumps(held, separators=(",", ":")).encode())
    return Scene(words, blocks, contours, review, dose, shown.spacing_mm, start, len(windows), greys, shown)


def _polygons(case: Case, name: str, upright: Geometry) -> list[NDArray[np.float64]]:
    """Polygons of a structure in the planes of ``upright``, as (n, 3) LPS mm: as they were drawn where they lie on its slices.

    What the voxels hold on slices that were not contoured (a contour on every second slice, slices of an uneven series) is traced: that is
    what volume, rules and scores speak of. Contours that lie between the slices are traced as a whole.
    """
    from oncontour.raster import trace

    mask = case.mask(name, upright)
    same_planes = abs(float(case.geometry.axes[0] @ upright.axes[0])) > 1 - 1e-6
    if name not in case.contours or name in case.masks or not same_planes:  # of both the mask is what counts
        return list(trace(mask))
    drawn = list(case.contours[name])
    if not drawn:
        return []
    heights = upright.voxels(np.concatenate(drawn))[:, 0]
    if np.abs(heights - np.rint(heights)).max() > OFF_SLICE:
        return list(trace(mask))
    between = mask.array.copy()
    shown = np.unique(np.rint(heights).astype(int))
    between[shown[(shown >= 0) & (shown < len(between))]] = False
    return drawn + (list(trace(Volume(between, upright))) if between.any() else [])


def _box(image: Volume, outlines: Mapping[str, list[NDArray[np.float64]]]) -> Geometry:
    """All slices, cropped in plane to the body and every contour, with a small margin."""
    shape = image.geometry.shape
    low, high = np.array(shape[1:]), np.zeros(2, dtype=int)
    level = -400 if float(image.array.min()) < -500 else float(image.array.min())
    body = np.asarray((image.array > level).any(axis=0))
    if body.any():
        for axis in (0, 1):
            where = np.flatnonzero(body.any(axis=1 - axis))
            low[axis], high[axis] = where[0], where[-1] + 1
    points = [polygon for polygons in outlines.values() for polygon in polygons]
    if points:
        at = image.geometry.voxels(np.concatenate(points))[:, 1:]
        low = np.minimum(low, np.floor(at.min(axis=0)).astype(int))
        high = np.maximum(high, np.ceil(at.max(axis=0)).astype(int) + 1)
    low, high = np.maximum(low - 4, 0), np.minimum(high + 4, shape[1:])
    if (high <= low).any():
        return image.geometry
    return image.geometry.crop((0, *low.tolist()), (shape[0], *high.tolist()))


def _spacing(box: Geometry) -> tuple[float, float, float]:
    """Spacing (k, j, i) that keeps all slices and brings the voxels under BUDGET, of very many slices under MOST."""
    k, j, i = box.spacing_mm
    factor = max(1.0, (box.size / BUDGET) ** 0.5)
    factor = max(1.0, min(factor, max(box.shape[1:]) / LEAST_ACROSS), (box.size / MOST) ** 0.5)
    return k, j * factor, i * factor


def _levels(image: Volume) -> NDArray[np.float32]:
    """256 equal steps over all but the brightest and darkest half percent, for images without a unit."""
    low, high = np.percentile(image.array[::2, ::2, ::2], [0.5, 99.5])
    return np.linspace(low, max(high, low + 1e-6), 256, dtype=np.float32)


def _windows(name: str, levels: NDArray[np.float32]) -> list[dict[str, object]]:
    if name == "ct":
        return [{"name": title, "low": low, "high": high} for title, low, high in WINDOWS]
    return [{"name": "Whole range", "low": float(levels[0]), "high": float(levels[-1])}]


def _blocks(array: Array, levels: NDArray[np.float32]) -> Iterator[Block]:
    """Slices as codes, each the difference from the mean of its left and upper neighbours (PNG's filter 3), deflated."""
    middles = (levels[1:] + levels[:-1]) / 2
    for first in range(0, len(array), BLOCK):
        codes = np.searchsorted(middles, array[first : first + BLOCK].astype(np.float32)).astype(np.int16)
        guess = np.zeros_like(codes)
        guess[:, :, 1:] += codes[:, :, :-1]
        guess[:, 1:] += codes[:, :-1]
        yield Block(first, len(codes), packed((codes - (guess >> 1)).astype(np.uint8).tobytes()))


def outlines_of(case: Case, name: str, shown: Geometry) -> Outlines:
    """A structure of ``case`` in the slices of ``shown``, the grid of a Scene of the same images."""
    return outlined(_polygons(case, name, case.geometry.reorient()), shown)


def outlined(polygons: Sequence[NDArray[np.float64]], shown: Geometry) -> Outlines:
    """Polygons in LPS mm, as steps of a hundredth of a millimetre from the corner of the shown box."""
    if not polygons:
        return []
    at = shown.voxels(np.concatenate(polygons))
    ends = np.cumsum([len(polygon) for polygon in polygons])
    starts = ends - [len(polygon) for polygon in polygons]
    hundredths = np.rint((at[:, :0:-1] + 0.5) * shown.spacing_mm[:0:-1] * 100).astype(int)
    steps = np.diff(hundredths, axis=0, prepend=0)
    steps[starts] = hundredths[starts]
    slices = np.rint(at[starts, 0]).astype(int).tolist()
    flat = steps.ravel().tolist()
    return [(k, flat[2 * start : 2 * end]) for k, start, end in zip(slices, starts, ends, strict=True)]


def _heights(shown: Geometry) -> NDArray[np.float64]:
    """Position of each slice: z (LPS) on an axial grid, else along the slices' normal."""
    centres = shown.points(np.stack([np.arange(shown.shape[0]), *np.zeros((2, shown.shape[0]))], axis=1))
    return centres[:, 2] if shown.is_axial else centres @ shown.axes[0]


def _letters(shown: Geometry) -> dict[str, str]:
    """What lies at the low and high end of each axis: one letter, two where the axis is oblique by more than 15 degrees."""
    letters = {}
    for name, axis in zip("kji", shown.axes, strict=True):
        order = [n for n in np.argsort(-np.abs(axis)) if abs(axis[n]) > np.sin(np.deg2rad(15))]
        letters[f"{name}+"] = "".join("LPS"[n] if axis[n] > 0 else "RAI"[n] for n in order[:2])
        letters[f"{name}-"] = "".join("RAI"[n] if axis[n] > 0 else "LPS"[n] for n in order[:2])
    return letters


def _voxel(row: Row, shown: Geometry) -> list[int] | None:
    """The shown voxel nearest to a structure's centre of mass."""
    if row.centre_mm is None:
        return None
    return [int(v) for v in np.clip(np.rint(shown.voxels(row.centre_mm)), 0, np.asarray(shown.shape) - 1)]


def _start(packed: Sequence[Outlines], table: Sequence[Row], shown: Geometry) -> list[int]:
    """Where to open: the slice that holds most structures (the middle one of several), at the middle of what is there."""
    held = np.zeros(shown.shape[0], dtype=int)
    for outlines in packed:
        for k in {k for k, _ in outlines if 0 <= k < len(held)}:
            held[k] += 1
    best = np.flatnonzero(held == held.max())
    centres = [voxel for row in table if (voxel := _voxel(row, shown))]
    middle = np.mean(centres, axis=0) if centres else (np.asarray(shown.shape) - 1) / 2
    return [int(best[len(best) // 2]), round(float(middle[1])), round(float(middle[2]))]
