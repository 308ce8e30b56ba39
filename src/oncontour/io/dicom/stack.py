"""How the planes of a series lie on one regular grid: order, gaps, tilt.

What can be exact is exact: unevenly spaced slices go onto a finer grid on which each of them has its place; slices sheared by a tilted
gantry onto an upright one. What cannot is a SeriesError that names slice and value. Nothing is averaged, and a missing slice is never
made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import ON_GRID_MM, Floats, Geometry, rounding_mm
from oncontour.errors import SeriesError
from oncontour.io.dicom.plane import Plane

SAME_PLACE_MM = 0.01
"""Two slices nearer than this lie in one place."""
FINEST_MM = 0.5
"""No grid is made finer than this to meet uneven slices (their own spacing may be finer)."""
WIDEST_MM = 200.0
"""Images further apart than this do not make a volume."""
MAX_UNEVEN_VOXELS = 600_000_000
_ALONG_AXIS = 0.99999
"""Cosine (0.26 degrees) from which on slices lie at right angles to an axis of the patient, whose coordinate then tells them apart."""

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Stack:
    """``geometry``: the regular grid; ``index``: the k where each plane lies; ``shift``: (n, 2) rows and columns by which each plane lies
    inside the grid's (0, 0), None where all lie straight; ``notes``: what to tell the user."""

    geometry: Geometry
    index: Ints
    shift: Floats | None
    notes: tuple[str, ...]


def offsets_mm(planes: Sequence[Plane]) -> Floats:
    """Position of each plane along the normal of the first."""
    return np.array([p.position_mm for p in planes]) @ planes[0].normal


def check_alike(planes: Sequence[Plane], where: str) -> None:
    """Raise SeriesError unless all planes have the same matrix, pixel spacing, orientation, frame of reference and patient."""
    alike = Counter(_alike_by(plane) for plane in planes)
    one = max(planes, key=lambda plane: alike[_alike_by(plane)])  # what most images have, so that the odd one is named second
    patient = one.file.plain("PatientID")
    for plane in planes:
        if plane.file.plain("PatientID") != patient:
            _unlike("PatientID", "one", "another", one, plane, where)  # whose they are stays unsaid
        if (plane.rows, plane.columns) != (one.rows, one.columns):
            _unlike("matrix", f"{one.rows}x{one.columns}", f"{plane.rows}x{plane.columns}", one, plane, where)
        if not np.allclose(plane.spacing_mm, one.spacing_mm, rtol=1e-4, atol=0):
            _unlike("PixelSpacing", list(one.spacing_mm), list(plane.spacing_mm), one, plane, where)
        if max(np.abs(plane.row - one.row).max(), np.abs(plane.column - one.column).max()) > 1e-4:
            a, b = ([round(float(v), 5) for v in (*p.row, *p.column)] for p in (one, plane))
            _unlike("ImageOrientationPatient", a, b, one, plane, where)
        frames = [p.file.plain("FrameOfReferenceUID") or "none" for p in (one, plane)]
        if frames[0] != frames[1]:
            _unlike("FrameOfReferenceUID", frames[0], frames[1], one, plane, where)


def _alike_by(plane: Plane) -> tuple[object, ...]:
    names = (plane.file.plain("PatientID"), plane.file.plain("FrameOfReferenceUID"))
    return *names, plane.rows, plane.columns, plane.spacing_mm, *plane.row.tolist(), *plane.column.tolist()


def _unlike(what: str, a: object, b: object, one: Plane, other: Plane, where: str) -> None:
    what = f"{what} differs within the series: {a} in {one.file.path.name}, {b} in {other.file.path.name}"
    raise SeriesError(what, where=where, hint="export the images as separate series, or take the odd ones out of the folder")


def stack(planes: Sequence[Plane], numbers: Sequence[int | None], where: str) -> Stack:
    """The grid for ``planes``, which are alike and sorted along their normal without two in one place.

    ``numbers``: the InstanceNumbers of the whole series, those of images that were left out too. They are taken as a set: which numbers
    there are may tell that slices are missing, never which image has which number.
    Raises SeriesError for fewer than two planes, a missing slice, and positions on which no grid of FINEST_MM or more can lie.
    """
    if len(planes) < 2:
        raise SeriesError(
            f"{planes[0].file.plain('Modality') or 'series'} of {len(planes)} slice", where=where, hint="a volume needs 2 or more"
        )
    offsets = offsets_mm(planes)
    step, index, start, notes = _along_normal(planes, offsets, _Numbers.of(numbers, len(numbers) - len(planes)), where)
    depth = int(index[-1]) + 1
    one = planes[0]
    if depth > len(planes) and depth * one.rows * one.columns > MAX_UNEVEN_VOXELS:
        what = f"slices are uneven (gaps of {_gaps(offsets)} mm) and the grid they fit on, {depth} slices of {step:.4g} mm, is too large"
        raise SeriesError(what, where=where)
    drift = _drift(planes, offsets)
    if np.abs(drift).max() <= ON_GRID_MM:
        geometry = _geometry(one, one.position_mm + start * one.normal, (depth, one.rows, one.columns), step)
        return Stack(geometry, index, None, notes)
    return _upright(planes, drift, depth, step, index, start, notes)


def _geometry(one: Plane, origin: Floats, shape: tuple[int, int, int], step: float) -> Geometry:
    spacing = (step, *one.spacing_mm)
    x, y, z = (float(v) for v in origin)
    return Geometry.regular(shape, spacing, (x, y, z), np.stack([one.normal, one.column, one.row]))


# ---- along the normal


@dataclass(frozen=True)
class _Numbers:
    """The InstanceNumbers of a series as a set: different ones, ascending; ``complete``: every image has one; ``repeated``: how many bear
    one that another has, beyond as many as were left out."""

    known: Ints
    complete: bool
    repeated: int

    @classmethod
    def of(cls, numbers: Sequence[int | None], left_out: int) -> _Numbers:
        given = [n for n in numbers if n is not None and abs(n) < 2**31]  # what an IS may hold (PS3.5 6.2)
        known = np.unique(np.array(given, dtype=np.int64))
        return cls(known, len(given) == len(numbers), max(0, len(given) - len(known) - left_out))

    @property
    def tell(self) -> bool:
        """Whether a number that is lacking may be that of a slice."""
        return self.complete and not self.repeated and len(self.known) > 1

    @property
    def every(self) -> int:
        """In which steps they go."""
        return int(np.gcd.reduce(np.diff(self.known)))

    @property
    def lacking(self) -> int:
        """How many are not there between the least and the greatest."""
        return int(self.known[-1] - self.known[0]) // self.every + 1 - len(self.known)

    def __str__(self) -> str:
        """Which are lacking, in words."""
        gone: list[int] = []
        for low, high in pairwise(int(n) for n in self.known):
            gone += range(low + self.every, min(high, low + 9 * self.every), self.every)
            if len(gone) > 8:
                break
        shown = ", ".join(str(n) for n in gone[:8]) + (", ..." if self.lacking > 8 else "")
        steps = f" in steps of {self.every}" if self.every > 1 else ""
        return f"of the InstanceNumbers {self.known[0]} to {self.known[-1]}{steps} {self.lacking} are lacking ({shown})"


def _along_normal(planes: Sequence[Plane], offsets: Floats, numbers: _Numbers, where: str) -> tuple[float, Ints, float, tuple[str, ...]]:
    """(grid step, k of each slice, mm by which the grid begins beyond the first slice, notes)"""
    count = len(offsets)
    even = even_places(np.array([p.position_mm for p in planes]), planes[0].normal)
    if even is not None:
        _refuse_wide(planes, offsets, where)
        return even[0], np.arange(count, dtype=np.intp), even[1], _counting(numbers)
    _refuse_missing(planes, offsets, numbers, where)
    _refuse_wide(planes, offsets, where)
    found = common_step(offsets)
    if found is None:
        gaps = np.diff(offsets)
        odd = int(np.abs(gaps - np.median(gaps)).argmax())
        apart = f"slices are {gaps[odd]:.4g} mm apart between {_places(planes, odd)}, {np.median(gaps):.4g} mm elsewhere"
        what, hint = f"{apart}, and no grid of {FINEST_MM} mm or more meets them all", "reconstruct or export the series with even spacing"
        raise SeriesError(what, where=where, hint=hint)
    step, index = found
    note = (
        f"slices are unevenly spaced (gaps of {_gaps(offsets)} mm): placed where they are on a {step:.4g} mm grid; "
        f"the {int(index[-1]) + 1 - count} grid slices between them are interpolated linearly"
    )
    doubt = (f"{numbers}: slices may be missing",) if numbers.tell and numbers.lacking else ()
    return step, index, 0.0, (note, *(doubt or _counting(numbers)))


def even_places(positions_mm: Floats, normal: Floats) -> tuple[float, float] | None:
    """(step, start beyond the first) in mm of the even places along ``normal`` that slices at ``positions_mm`` (n, 3), in order, have but
    for rounding; None where they are uneven. Where positions are told to 0.1 mm the first and the last are rounded as all others are."""
    offsets = positions_mm @ normal
    step = float(offsets[-1] - offsets[0]) / max(len(offsets) - 1, 1)
    if np.abs(offsets - offsets[0] - np.arange(len(offsets)) * step).max() <= rounding_mm(step):
        return step, 0.0
    tenths = 10 * positions_mm[:, np.abs(normal) > 1e-3]
    return _even_but_for_rounding(offsets) if np.abs(tenths - np.rint(tenths)).max() < 1e-6 else None


def _even_but_for_rounding(offsets: Floats) -> tuple[float, float] | None:
    """(step, start beyond the first slice) in mm of the even places from which no slice lies farther than need be; None where one is more
    than ``rounding_mm`` away.

    One slice alone that is twice as far off would meet that too, with all others off the other way. That is no rounding: against the line
    of least squares, which follows the many, no slice is off by a quarter more than the tolerance.
    """
    along, k = offsets - offsets[0], np.arange(len(offsets))
    usual = np.polynomial.Polynomial.fit(k, along, 1)

    def width(step: float) -> float:
        return float(np.ptp(along - step * k))

    middle = float(along[-1]) / (len(k) - 1)
    reach = 4 * ON_GRID_MM / (len(k) - 1)
    low, high = middle - reach, middle + reach
    while high - low > 1e-12 * middle:  # width is convex in the step
        third = (high - low) / 3
        low, high = (low, high - third) if width(low + third) < width(high - third) else (low + third, high)
    step = (low + high) / 2
    off, within = along - step * k, rounding_mm(step) + 1e-6
    if np.ptp(off) / 2 > within or np.abs(along - usual(k)).max() > 1.25 * within:
        return None
    return step, float(off.max() + off.min()) / 2


def _counting(numbers: _Numbers) -> tuple[str, ...]:
    """A note where InstanceNumbers say that this may be several series in one, or a part of one, though the slices lie evenly."""
    if numbers.repeated:
        return ("InstanceNumbers are there more than once: these may be several series in one",)
    jump = int(np.diff(numbers.known).min()) if numbers.tell and len(numbers.known) > 2 else 1
    return (f"InstanceNumbers go in steps of {jump}: the slices between may be missing",) if jump > 1 else ()


def _gaps(offsets: Floats) -> str:
    sizes = np.unique(np.round(np.diff(offsets), 2))
    return ", ".join(f"{s:g}" for s in sizes[:4]) + (", ..." if len(sizes) > 4 else "")


def _places(planes: Sequence[Plane], at: int) -> str:
    """Slice ``at`` and the next in words, as a person finds them: by the one coordinate that tells slices apart, else along the normal."""
    normal, pair = planes[0].normal, (planes[at], planes[at + 1])
    axis = int(np.abs(normal).argmax())
    counted = f"slices {at + 1} and {at + 2}"
    if abs(normal[axis]) > _ALONG_AXIS:
        a, b = (f"{p.position_mm[axis]:.2f}" for p in pair)
        return f"{counted} (at {'xyz'[axis]} {a} and {b} mm)"
    a, b = (f"{float(p.position_mm @ normal):.2f}" for p in pair)
    points = " and ".join("\\".join(f"{v:.2f}" for v in p.position_mm) for p in pair)
    return f"{counted} (at {a} and {b} mm along the normal of the slices, which are oblique; ImagePositionPatient {points})"


def _refuse_wide(planes: Sequence[Plane], offsets: Floats, where: str) -> None:
    gaps = np.diff(offsets)
    at = int(gaps.argmax())
    if gaps[at] > WIDEST_MM:
        raise SeriesError(f"{_places(planes, at)} are {gaps[at]:.4g} mm apart, at most {WIDEST_MM:g} mm make a volume", where=where)


def _refuse_missing(planes: Sequence[Plane], offsets: Floats, numbers: _Numbers, where: str) -> None:
    """Raise SeriesError where InstanceNumbers are lacking and gaps show where; where they say nothing, where an even series has a hole."""
    gaps = np.diff(offsets)
    if numbers.tell:
        holes, usual = _holes(offsets, numbers) if numbers.lacking else (np.flatnonzero(gaps < 0), 0.0)
    else:
        holes, usual = _lone_hole(gaps)
    if not len(holes):
        return
    at = int(holes[0])
    told = f"; {numbers}" if numbers.tell else ""
    more = f" (and in {len(holes) - 1} more such places)" if len(holes) > 1 else ""
    what = f"slices are missing: {gaps[at]:.4g} mm between {_places(planes, at)}, {usual:.4g} mm elsewhere{more}{told}"
    raise SeriesError(what, where=where, hint="export the whole series again")


def _holes(offsets: Floats, numbers: _Numbers) -> tuple[Ints, float]:
    """(gaps in which slices are missing, the usual gap), where numbers are lacking: all that are wider than a step where on an even grid as
    many places are empty as numbers are lacking, else those wider than the gaps on both sides."""
    gaps, found = np.diff(offsets), common_step(offsets)
    if found is not None and int(found[1][-1]) + 1 - len(offsets) == numbers.lacking:
        return np.flatnonzero(np.diff(found[1]) > 1), found[0]
    sides = np.maximum(np.concatenate([[0], gaps[:-1]]), np.concatenate([gaps[1:], [0]]))
    return np.flatnonzero(gaps > 1.5 * sides), float(np.median(gaps))


def _lone_hole(gaps: Floats) -> tuple[Ints, float]:
    """(gaps, the usual gap) where all gaps are the usual one but for a few wide ones."""
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * usual)
    lone = len(wide) <= max(1, len(gaps) // 10) and (np.abs(np.delete(gaps, wide) - usual) <= 2 * ON_GRID_MM).all()
    return (wide if lone else wide[:0]), usual


def common_step(offsets: Floats) -> tuple[float, Ints] | None:
    """The coarsest step of which every gap is a whole multiple, and the place of each slice on it."""
    along, gaps = offsets - offsets[0], np.diff(offsets)
    parts = 1
    while parts == 1 or gaps.min() + ON_GRID_MM / 2 >= FINEST_MM * parts:
        step = float(gaps.min()) / parts
        index = np.concatenate([[0], np.cumsum(np.rint(gaps / step))])
        step = float(along @ index / (index @ index))
        if np.abs(along - step * index).max() <= min(ON_GRID_MM, 0.05 * step):
            return step, index.astype(np.intp)
        parts += 1
    return None


# ---- in the plane


def _drift(planes: Sequence[Plane], offsets: Floats) -> Floats:
    """(n, 2) mm along column and row direction by which each plane lies off the straight stack on the first."""
    one = planes[0]
    away = np.array([p.position_mm for p in planes]) - one.position_mm
    return np.stack([away @ one.column, away @ one.row], axis=1)


def _upright(planes: Sequence[Plane], drift: Floats, depth: int, step: float, index: Ints, start: float, notes: tuple[str, ...]) -> Stack:
    """A grid at right angles that holds every plane whole, each shifted to where it truly is."""
    one = planes[0]
    voxels = drift / np.array(one.spacing_mm)
    low, high = np.floor(voxels.min(axis=0) + 1e-6), np.ceil(voxels.max(axis=0) - 1e-6)
    shape = (depth, one.rows + int(high[0] - low[0]), one.columns + int(high[1] - low[1]))
    origin = one.position_mm + start * one.normal + one.column * low[0] * one.spacing_mm[0] + one.row * low[1] * one.spacing_mm[1]
    rise = float(np.linalg.norm(drift[-1] - drift[0]))
    angle = np.degrees(np.arctan2(rise, float(index[-1]) * step))
    note = f"slices are sheared by {angle:.2f} degrees against their stack (gantry tilt): each resampled in its plane onto an upright grid"
    return Stack(_geometry(one, origin, shape, step), index, voxels - low, (*notes, note))
