"""Which of an RTSTRUCT's outlines stand: what encloses nothing, is drawn twice or lies across the others is left out, and said.

All contours of a structure are looked at together, as one array of points: files of millions of points are read in time that grows with
their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from oncontour.core.contours import Contours, Slices
from oncontour.errors import LimitError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_ALIKE = 100_000
"""Pairs of contours on one slice, of as many points and of the same extent, that are looked at to tell which are drawn twice, beyond four
for each contour; long contours count for more."""
_SAME_MM = 0.01
"""Points nearer than this are the same but for rounding."""
_LEAST_MM2 = 1e-6
_TURNS = 8
_WEIGHTS = np.array([0.61, 0.53, 0.59, 0.83, 0.47, 0.71, 0.37, 0.89, 0.67])


@dataclass(frozen=True, eq=False)
class Outlines:
    """The contours of one structure: ``points`` (n, 3) LPS mm of all of them, ``starts`` where each begins, and the end."""

    points: Floats
    starts: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, n: int) -> Floats:
        return self.points[self.starts[n] : self.starts[n + 1]]

    @cached_property
    def lengths(self) -> Ints:
        return np.diff(self.starts)

    @property
    def heads(self) -> Ints:
        """Index of the first point of each."""
        return self.starts[:-1]

    def kept(self, wanted: Bools) -> Outlines:
        """Those that are wanted."""
        if wanted.all():
            return self
        return Outlines(self.points[np.repeat(wanted, self.lengths)], _starts(self.lengths[wanted]))

    def opened(self) -> Outlines:
        """Without the first point repeated as the last."""
        last = self.starts[1:] - 1
        closed = (self.lengths > 1) & (self.points[last] == self.points[self.heads]).all(axis=1)
        if not closed.any():
            return self
        wanted = np.ones(len(self.points), bool)
        wanted[last[closed]] = False
        return Outlines(self.points[wanted], _starts(self.lengths - closed))


def sound(outlines: Outlines, name: str, slices: Slices | None, notes: list[str]) -> Outlines:
    """``outlines`` without those that enclose nothing, doubles on one slice, and those in other planes than the rest; what is left out is
    noted.

    Raises LimitError beyond MAX_ALIKE.
    """
    from oncontour.raster.planes import FLAT_MM, common_normal, offsets_along, together

    given = len(outlines)
    outlines = outlines.kept(outlines.lengths > 0).opened()
    outlines = outlines.kept(outlines.lengths >= 3)
    outlines = outlines.kept(_enclosing(outlines))
    if len(outlines) < given:
        notes.append(f"{name!r}: {given - len(outlines)} contour(s) of one or two points, or without area: left out")
    if not len(outlines):
        return outlines
    normal = common_normal(outlines.points, outlines.starts, ([slices.normal] if slices else []) + list(np.eye(3)[::-1]))
    offsets, spread = offsets_along(outlines.points, outlines.starts, normal)
    on = slices.offsets_mm if slices is not None and len(slices.offsets_mm) > 1 and np.array_equal(normal, slices.normal) else None
    exact, near = _doubles(outlines, normal, together(offsets, on), name)
    if exact.any():
        notes.append(f"{name!r}: {int(exact.sum())} contour(s) are exact doubles: left out")
    if near.any():
        notes.append(f"{name!r}: {int(near.sum())} contour(s) are the same as another on their slice: left out")
    single = ~(exact | near)
    across = single & (spread > FLAT_MM)
    if across.any():
        notes.append(f"{name!r}: {int(across.sum())} contour(s) lie across the planes of the others: left out")
    if slices is not None and np.array_equal(normal, slices.normal):
        notes += _off_the_slices(offsets[single], slices, name)
    return outlines.kept(single & ~across)


def _starts(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _enclosing(outlines: Outlines) -> Bools:
    """Which outlines have an area by even-odd; the signed area of a figure of eight, which has two lobes, may be none."""
    from oncontour.raster.planes import area_vectors

    if not len(outlines):
        return np.empty(0, bool)
    enclosing = np.asarray(np.linalg.norm(area_vectors(outlines.points, outlines.starts), axis=1) > _LEAST_MM2)
    for n in np.flatnonzero(~enclosing & (outlines.lengths > 3)).tolist():
        enclosing[n] = _area(outlines[n]) > _LEAST_MM2
    return enclosing


def _area(points: Floats) -> float:
    """What one outline (n, 3) encloses by even-odd in the plane that fits it best, mm2."""
    from oncontour.raster.coverage import plane_area

    centred = points - points.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return plane_area(centred @ directions[:, :0:-1], np.array([0, len(points)]))


def _doubles(outlines: Outlines, normal: Floats, number: Ints, name: str) -> tuple[Bools, Bools]:
    """Which outlines are one that comes before them in the file, with the same ``number`` (plane), again: to the last bit, or within
    _SAME_MM; wherever they begin and whichever way they run."""
    exact = _copies(outlines)
    near = np.zeros(len(outlines), bool)
    features = _features(outlines, normal)
    place = features @ _WEIGHTS  # nearly the same for doubles, so that the pairs to look at are few
    reach = 1.1 * _SAME_MM * float(_WEIGHTS.sum())
    order = np.lexsort((place, outlines.lengths, number))
    order = order[~exact[order]]
    heads = np.flatnonzero(np.diff(number[order], prepend=-1) | np.diff(outlines.lengths[order], prepend=-1))
    looks, most = 0, MAX_ALIKE + 4 * len(outlines) + len(outlines.points) // 64
    for group in np.split(order, heads[1:]) if len(order) else []:
        places = place[group]
        first, end = np.searchsorted(places, places - reach), np.searchsorted(places, places + reach, "right")
        crowded = np.flatnonzero(end - first > 1)
        for n, low, high in sorted(zip(group[crowded].tolist(), first[crowded].tolist(), end[crowded].tolist(), strict=True)):
            others = group[low:high]
            others = others[(others < n) & ~exact[others] & ~near[others]]
            alike = others[np.abs(features[others] - features[n]).max(axis=1) <= 1.1 * _SAME_MM].tolist()
            looks += (high - low) // 64 + len(alike) * (1 + len(outlines[n]) // 256)
            if looks > most:
                raise LimitError(f"{name!r} has more than {MAX_ALIKE} pairs of contours on one slice that may be the same one drawn twice")
            apart = min((_apart(outlines[m], outlines[n], normal) for m in alike), default=np.inf)
            exact[n], near[n] = apart == 0, 0 < apart <= _SAME_MM
    return exact, near


def _copies(outlines: Outlines) -> Bools:
    """Which outlines are one that comes before, point for point."""
    before: dict[bytes, int] = {}
    ends = outlines.starts.tolist()
    digests = (sha256(outlines.points[first:end].tobytes()).digest() for first, end in pairwise(ends))
    return np.array([before.setdefault(digest, n) != n for n, digest in enumerate(digests)], bool)


def _features(outlines: Outlines, normal: Floats) -> Floats:
    """(outlines, 9) mean, least and largest coordinates of each without its height: no farther apart than the points of two doubles."""
    height = outlines.points @ normal
    columns = []
    for axis in range(3):
        along = outlines.points[:, axis] - height * normal[axis]
        columns += [np.add.reduceat(along, outlines.heads) / outlines.lengths]
        columns += [fold.reduceat(along, outlines.heads) for fold in (np.minimum, np.maximum)]
    return np.stack(columns, axis=1)


def _apart(a: Floats, b: Floats, normal: Floats) -> float:
    """How far the points of two outlines of as many points lie apart in the plane at the most, wherever they begin and whichever way they
    run; only where both have a point within _SAME_MM of the first of ``a``, else infinity. 0 where they are the same to the last bit."""
    if (a == b).all():
        return 0.0
    flat_a, flat_b = (p - np.outer(p @ normal, normal) for p in (a, b))
    found = np.inf
    for start in np.flatnonzero(np.abs(flat_b - flat_a[0]).max(axis=1) <= _SAME_MM)[:_TURNS].tolist():
        for way, shift in ((1, -start), (-1, start + 1)):
            turned = np.roll(b[::way], shift, axis=0)
            if (a == turned).all():
                return 0.0
            found = min(found, float(np.abs(flat_a - np.roll(flat_b[::way], shift, axis=0)).max()))
    return max(found, 1e-12)


def _off_the_slices(offsets: Floats, slices: Slices, name: str) -> list[str]:
    from oncontour.raster.planes import SAME_PLANE_MM, nearest_of

    planes = np.unique(offsets)
    gap = np.abs(planes - slices.offsets_mm[nearest_of(planes, slices.offsets_mm)])
    off = gap > SAME_PLANE_MM
    return [f"{name!r}: {int(off.sum())} of its planes lie up to {gap.max():.2f} mm off the nearest slice"] if off.any() else []


def between(contours: Contours, name: str) -> list[str]:
    """What is to be said of slices without contours between those of a structure: which are filled, and which stay empty."""
    from oncontour.raster.planes import WIDEST_SPACING_MM, Gaps, gaps_of

    def where(gaps: Gaps) -> str:
        low, high = (f"{value:.4g}" for value in (gaps.apart_mm.min(), gaps.apart_mm.max()))
        apart = f"{low} to {high} mm" if low != high else f"{low} mm"
        return f"{name!r}: slices without contours between contours {apart} apart ({len(gaps)}, the first above {gaps.from_mm[0]:.1f} mm)"

    try:
        gaps = gaps_of(contours) if len(contours) else None
    except LimitError:  # filling refuses the structure, and says so
        gaps = None
    if gaps is None:
        return []
    filled, empty = gaps.only(gaps.filled), gaps.only(~gaps.filled)
    notes = [f"{where(filled)} are filled: each contour is taken to reach half-way to the next"] if len(filled) else []
    if len(empty):
        near = bool((empty.apart_mm <= WIDEST_SPACING_MM).any())
        notes.append(f"{where(empty)} stay empty" + (": make sure that no contour was forgotten" if near else ""))
    return notes
