"""From a heap of polygons to planes: which lie in one plane, and how thick a slab each plane stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import ON_GRID_MM, Geometry
from oncontour.errors import StructureError
from oncontour.raster.overlap import Meeting, hole_or_beside, overlapping

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SAME_PLANE_MM = ON_GRID_MM
"""Polygons nearer than this along the normal lie in one plane; planes nearer than this to a slice lie on it (rounded coordinates)."""
FLAT_MM = 1.0
"""A polygon whose points are farther apart along the normal does not lie in one of the planes."""
WIDEST_SPACING_MM = 10.0
"""Planes farther apart than this are separate pieces; neighbouring slices of the image are never that, nor is what ``bridged`` joins."""
MOST_APART = 3
"""Outlines over each other on every second or third slice are one body, however far apart; on every fourth they may be islands."""
_BRIDGED = 1.5
_USUAL = 2 / 3
"""Part of the steps between planes that are no wider than the usual one."""
_DRAWN_ON = 0.75
"""Part of the planes that lie on slices where these are the ones drawn on. Contours of another series fall on them by chance as well: every
second one where its slices are half as far apart again, two of three such contours."""
_ROUNDED = 0.06
"""Part of the slice spacing that a contour may lie off its slice."""
_TELLING = 1e-4
"""Signed area, as part of the square of how far the polygons reach, below which rounding may have turned its direction."""
_PARALLEL = np.cos(np.deg2rad(1.0))


@dataclass(frozen=True, eq=False)
class Gaps:
    """Where slices between neighbouring planes were left without contours: ``apart_mm``, how far the planes on both sides lie apart,
    ``from_mm``, where the lower one lies along the normal, and ``filled``, whether the two reach half-way to each other."""

    from_mm: Floats
    apart_mm: Floats
    filled: Bools

    def __len__(self) -> int:
        return len(self.apart_mm)

    def only(self, wanted: Bools) -> Gaps:
        """Those that are wanted."""
        return Gaps(self.from_mm[wanted], self.apart_mm[wanted], self.filled[wanted])


@dataclass(frozen=True, eq=False)
class Planes:
    """Polygons sorted into parallel planes.

    ``points`` (n, 3) LPS mm of all polygons, plane after plane; ``starts`` where each polygon begins, and the end; ``first`` which polygon
    each plane begins with, and the end; ``slabs_mm`` (planes, 2) what each plane stands for along ``normal``; ``gaps`` what lies between.
    """

    points: Floats
    starts: Ints
    first: Ints
    normal: Floats
    slabs_mm: Floats
    gaps: Gaps

    def __len__(self) -> int:
        return len(self.slabs_mm)

    def pieces(self, plane: int) -> tuple[slice, Ints]:
        """The points of one plane, as a slice of ``points``, and where its polygons start within them."""
        starts = self.starts[self.first[plane] : self.first[plane + 1] + 1]
        return slice(int(starts[0]), int(starts[-1])), starts - starts[0]


def sort_into_planes(contours: Contours, grid: Geometry, slices: Slices | None = None, slab_mm: float | None = None) -> Planes:
    """Group the polygons (at least one) by plane and give each plane its slab.

    ``slices`` (default: those the contours carry) are the image planes they were drawn on. A slab reaches half-way to the next plane that
    has contours; where none follows, or slices lie between that were left without contours, half a slice spacing. Slices left out between
    contours drawn on every second, third .. slice throughout are bridged as far as ``bridged`` says, and other gaps up to WIDEST_SPACING_MM
    where the outlines on both sides lie over each other and no narrower step is usual (``as_drawn``); beyond that, and where the contours
    say so (``stands_alone``), each stands for its own slice. An open end reaches as far as the other side of its plane. Polygons
    that lie on one slice but for rounding are one plane where they are outline and hole, or apart; outlines drawn twice, or across each
    other, share the slab. Without slices the spacing is read off the contours; a single plane takes ``grid``'s step along the normal.
    ``slab_mm`` gives every plane this thickness instead. Raises StructureError for polygons that are not planar or not parallel,
    LimitError beyond MAX_PAIRS.
    """
    slices = slices or contours.slices
    points = np.concatenate(contours.polygons)
    starts = np.concatenate([[0], np.cumsum([len(p) for p in contours.polygons])]).astype(np.int64)
    known = [slices.normal] if slices else []
    normal = common_normal(points, starts, [*known, *grid.axes])
    offset, spread = offsets_along(points, starts, normal)
    _refuse_tilted(spread, contours)
    on = slices.offsets_mm if slices and len(slices.offsets_mm) > 1 and np.array_equal(normal, slices.normal) else None
    order = np.argsort(offset, kind="stable")
    upright = np.linalg.svd(normal[None])[2][1:]

    def flat(n: int) -> Floats:
        return np.asarray(contours.polygons[order[n]] @ upright.T)

    heads = _plane_heads(offset[order], on)
    planes = _middles(offset[order], heads)
    meeting = Meeting()
    if on is not None:
        heads = _one_a_slice(heads, planes, on, flat, len(order), meeting)
        planes = _middles(offset[order], heads)
    single = _step_along(normal, grid)
    ends = np.append(heads, len(order))

    def overlap(plane: int) -> bool:
        here, following = ([flat(n) for n in range(*ends[p : p + 2])] for p in (plane, plane + 1))
        return any(overlapping(a, b) for a, b in meeting.pairs(here, following))

    alone = slices is not None and stands_alone(contours, slices)
    slabs, gaps = slabs_of(planes, on, slab_mm, single, overlap, alone=alone)
    sorted_points = np.concatenate([contours.polygons[p] for p in order])
    sorted_starts = np.concatenate([[0], np.cumsum(np.diff(starts)[order])]).astype(np.int64)
    return Planes(sorted_points, sorted_starts, np.append(heads, len(order)).astype(np.int64), normal, slabs, gaps)


def gaps_of(contours: Contours) -> Gaps:
    """Slices without contours between those (at least one) of a structure, and which of them it fills. None where it is not known on which
    slices they were drawn, or they lie across these. Raises what ``sort_into_planes`` raises."""
    slices = contours.slices
    nothing = Gaps(np.zeros(0), np.zeros(0), np.zeros(0, bool))
    if slices is None or len(slices.offsets_mm) < 2:
        return nothing
    axes = np.stack([slices.normal, slices.column, slices.row])
    grid = Geometry.regular((1, *slices.shape), (1.0, *slices.pixel_mm), tuple(slices.origins_mm[0].tolist()), axes)
    planes = sort_into_planes(contours, grid)
    return planes.gaps if np.array_equal(planes.normal, slices.normal) else nothing


def area_vectors(points: Floats, starts: Ints) -> Floats:
    """(polygons, 3) normal of each polygon times its signed area (Newell 1972): lobes that run the other way round count against it."""
    from oncontour.raster import fill_loops

    return fill_loops.area_vectors(np.ascontiguousarray(points, np.float64), starts)


def offsets_along(points: Floats, starts: Ints, normal: Floats) -> tuple[Floats, Floats]:
    """Position of each polygon along ``normal`` (mean of its points), and the difference between its farthest points."""
    along = points @ normal
    heads = starts[:-1]
    mean = np.add.reduceat(along, heads) / np.diff(starts)
    return mean, np.maximum.reduceat(along, heads) - np.minimum.reduceat(along, heads)


def common_normal(points: Floats, starts: Ints, likely: list[Floats]) -> Floats:
    """The unit normal of the planes: the first of the ``likely`` directions that all polygons lie in planes across, else their own mean;
    that across their points where they have hardly any signed area, as figures of eight."""
    vectors = area_vectors(points, starts)
    areas = np.linalg.norm(vectors, axis=1)
    largest = vectors[areas.argmax()]
    mean = (vectors * np.where(vectors @ largest < 0, -1.0, 1.0)[:, None]).sum(axis=0)
    length = float(np.linalg.norm(mean))
    reach = np.maximum.reduceat(points, starts[:-1]) - np.minimum.reduceat(points, starts[:-1])
    telling = length > _TELLING * float((reach**2).sum())
    for axis in likely:
        aligned = not telling or abs(axis @ mean) > _PARALLEL * length
        if aligned and offsets_along(points, starts, axis)[1].max() <= 2 * SAME_PLANE_MM:
            return np.asarray(axis)
    return np.asarray(mean / length) if telling else _across(points, starts)


def _across(points: Floats, starts: Ints) -> Floats:
    """The direction in which the points of each polygon are least apart."""
    centred = points - np.repeat(np.add.reduceat(points, starts[:-1]) / np.diff(starts)[:, None], np.diff(starts), axis=0)
    return np.asarray(np.linalg.eigh(centred.T @ centred)[1][:, 0])


def _refuse_tilted(spread: Floats, contours: Contours) -> None:
    worst = int(spread.argmax())
    if spread[worst] > FLAT_MM:
        raise StructureError(
            f"contour {worst} lies in another plane than the others: its points are {spread[worst]:.2f} mm apart along their normal",
            where=f"{len(contours)} contours",
            hint="keep the contours of one orientation",
        )


def _plane_heads(sorted_offsets: Floats, slices: Floats | None) -> Ints:
    """Index of the first polygon of each plane in growing offsets; a plane spans at most SAME_PLANE_MM from its first."""
    tolerance = SAME_PLANE_MM
    if slices is not None:
        tolerance = min(tolerance, 0.25 * float(np.abs(np.diff(slices)).min()))
    heads = [0]
    while (following := int(np.searchsorted(sorted_offsets, sorted_offsets[heads[-1]] + tolerance, "right"))) < len(sorted_offsets):
        heads.append(following)
    return np.array(heads, dtype=np.int64)


def _one_a_slice(heads: Ints, planes: Floats, slices: Floats, flat: Callable[[int], Floats], count: int, meeting: Meeting) -> Ints:
    """``heads`` without those of planes that lie on the same slice as the plane before: outline and hole of one slice are one plane,
    however they were rounded, else each would take half of the slab and the hole be solid. Planes whose outlines are the same or cross stay
    apart: as one plane they would erase each other. What was drawn on other slices stays as it is: several of its planes may lie near one
    of these. ``flat`` gives the ``count`` polygons in the plane (n, 2), in the order of their offsets."""
    index = _on_slices(planes, slices)
    if not _drawn_on(index):
        return heads
    shared = (index[1:] >= 0) & (index[1:] == index[:-1])
    kept: list[int] = []
    before: list[Floats] = []
    again_followed = zip(np.append(False, shared), np.append(shared, False), strict=True)
    for head, end, (again, followed) in zip(heads, np.append(heads[1:], count), again_followed, strict=True):
        here = [flat(n) for n in range(head, end)] if again or followed else []
        if again and all(hole_or_beside(a, b) for a, b in meeting.pairs(before, here)):
            before += here
        else:
            kept.append(int(head))
            before = here
    return np.array(kept, dtype=np.int64)


def together(offsets: Floats, slices: Floats | None) -> Ints:
    """A number for each polygon: those of one plane, or of planes that lie on one slice but for rounding, have the same."""
    order = np.argsort(offsets, kind="stable")
    heads = _plane_heads(offsets[order], slices)
    number = np.arange(len(heads))
    if slices is not None:
        index = _on_slices(_middles(offsets[order], heads), slices)
        number = np.where(_drawn_on(index) & (index >= 0), index, len(slices) + number)
    out = np.empty(len(offsets), np.int64)
    out[order] = np.repeat(number, np.diff(np.append(heads, len(order))))
    return out


def _middles(sorted_offsets: Floats, heads: Ints) -> Floats:
    """Where each plane lies: the mean of its polygons."""
    return np.array([piece.mean() for piece in np.split(sorted_offsets, heads[1:])])


def _step_along(normal: Floats, grid: Geometry) -> float:
    """The grid's own step in the direction nearest to ``normal``."""
    return grid.spacing_mm[int(np.abs(grid.axes @ normal).argmax())]


def slice_of_each(offsets_mm: Floats, slices: Slices) -> Ints | None:
    """Which slice each contour at ``offsets_mm`` along the normal lies on; None where one lies on none, or there is but one slice."""
    if len(slices.offsets_mm) == 1:
        return None
    index = _on_slices(offsets_mm, slices.offsets_mm)
    return None if (index < 0).any() else index


def stands_alone(contours: Contours, slices: Slices) -> bool:
    """Whether each contour stands for its own one of ``slices``: it says so of the slices that it was drawn on, and on these the contours
    lie as many slices apart."""
    if not contours.alone or not len(contours) or contours.slices is None:
        return False
    if contours.slices is slices:
        return True
    heads = np.array([polygon[0] for polygon in contours])
    here, there = (slice_of_each(heads @ one.normal, one) for one in (slices, contours.slices))
    if here is None or there is None:
        return False
    here, there = here - here.min(), there - there.min()
    return bool((here == there).all() or (here == there.max() - there).all())


def slabs_of(
    planes: Floats,
    slices: Floats | None,
    slab_mm: float | None,
    single_mm: float,
    overlap: Callable[[int], bool],
    *,
    alone: bool = False,
) -> tuple[Floats, Gaps]:
    """(planes, 2) from where to where each of the growing ``planes`` reaches, and the gaps between them; ``slices`` are the growing image
    planes, where known; ``overlap(n)`` whether outlines of plane n and the next lie over each other; ``alone`` whether each plane stands
    for its own slice."""
    if slab_mm is not None:
        return np.stack([planes - slab_mm / 2, planes + slab_mm / 2], axis=1), Gaps(np.zeros(0), np.zeros(0), np.zeros(0, bool))
    index = _on_slices(planes, slices) if slices is not None else None
    if slices is not None and index is not None and _drawn_on(index):
        planes = np.where(index >= 0, slices[np.maximum(index, 0)], planes)
        below, above, joined, wide = _steps_on_slices(planes, index, slices, overlap, alone)
    else:
        if slices is not None:
            single_mm = float(np.median(np.diff(slices)))
        below, above, joined, wide = _steps_of_contours(planes, single_mm, overlap)
    middle = (planes[1:] + planes[:-1]) / 2
    low, high = planes - below / 2, planes + above / 2
    high[:-1] = np.where(joined, middle, np.minimum(high[:-1], middle))
    low[1:] = np.where(joined, middle, np.maximum(low[1:], middle))
    return np.stack([low, high], axis=1), Gaps(planes[:-1], np.diff(planes), joined).only(wide)


def nearest_of(values: Floats, growing: Floats) -> Ints:
    """Index of the one of ``growing`` nearest to each value."""
    after = np.clip(np.searchsorted(growing, values), 1, max(len(growing) - 1, 1))
    if len(growing) == 1:
        return np.zeros(len(values), np.int64)
    return np.where(values - growing[after - 1] <= growing[after] - values, after - 1, after).astype(np.int64)


def _on_slices(planes: Floats, slices: Floats) -> Ints:
    """Which slice each plane lies on (coordinates may be rounded), -1 where on none."""
    gap = np.diff(slices)
    near = np.minimum(np.append(gap, gap[-1]), np.append(gap[0], gap))
    nearest = nearest_of(planes, slices)
    tolerance = np.maximum(SAME_PLANE_MM, _ROUNDED * near[nearest])
    return np.where(np.abs(planes - slices[nearest]) <= tolerance, nearest, -1).astype(np.int64)


def _drawn_on(index: Ints) -> bool:
    """Whether the planes were drawn on these slices: nearly all of them lie on one."""
    return bool((index >= 0).mean() >= _DRAWN_ON)


def _steps_on_slices(
    planes: Floats, index: Ints, slices: Floats, overlap: Callable[[int], bool], alone: bool
) -> tuple[Floats, Floats, Bools, Bools]:
    """Step below and above each plane where nothing joins, which planes join the next, and between which slices were left out."""
    every = 1 if alone else drawn_every(index)
    gap = np.diff(slices)
    up = np.searchsorted(slices, planes + SAME_PLANE_MM, "right") - 1
    down = np.searchsorted(slices, planes - SAME_PLANE_MM, "left") - 1
    above = gap[np.clip(up, 0, len(gap) - 1)]
    below = gap[np.clip(down, 0, len(gap) - 1)]
    between = np.searchsorted(slices, planes[1:] - SAME_PLANE_MM, "left") - np.searchsorted(slices, planes[:-1] + SAME_PLANE_MM, "right")
    both = (index[1:] >= 0) & (index[:-1] >= 0)
    apart = np.diff(planes)
    far = both & (every <= MOST_APART) & (between >= 1) & (between < every) & (apart > WIDEST_SPACING_MM)
    mixed = both & (between >= every) & (between >= 1) & (apart <= WIDEST_SPACING_MM + SAME_PLANE_MM) & (not alone)
    mixed[between >= 0] &= as_drawn(between[between >= 0] + 1)
    over = np.array([bool(asked) and overlap(n) for n, asked in enumerate(far | mixed)], dtype=bool)
    body = np.isin(index, [index[1:][over & far], index[:-1][over & far]])  # its open ends reach as far as what joins it
    below, above = (np.where(bridged(every, every * step, every, body), every * step, step) for step in (below, above))
    near = apart <= _BRIDGED * np.maximum(above[:-1], below[1:])
    joined = np.where(both, bridged(between + 1, apart, every, over & far) | (over & mixed), near)
    if every == 1:
        below, above = _open_ends(apart, joined & (between >= 1), joined & (between < 0), below, above)
    return below, above, joined, np.where(both, between >= 1, ~near)


def _open_ends(apart: Floats, bridging: Bools, same: Bools, below: Floats, above: Floats) -> tuple[Floats, Floats]:
    """``below`` and ``above`` of planes whose other side bridges to the next: as far as that lies ``apart``. Planes on the ``same`` slice
    are one here."""
    first = np.flatnonzero(np.append(True, ~same))
    last = np.append(first[1:] - 1, len(same))
    below, above = below.copy(), above.copy()
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        up = high < len(apart) and bridging[high]
        down = low > 0 and bridging[low - 1]
        if up and not down:
            below[low : high + 1] = np.maximum(below[low : high + 1], apart[high])
        if down and not up:
            above[low : high + 1] = np.maximum(above[low : high + 1], apart[low - 1])
    return below, above


def as_drawn(steps: Floats | Ints) -> Bools:
    """Which steps from contour to contour belong to the way the structure was drawn: those no wider than the usual one and half of it (two
    thirds of all steps are no wider than the usual), and wider ones that follow one another. A single wider one in a structure drawn on
    neighbouring slices may have been left on purpose."""
    if not len(steps):
        return np.zeros(0, bool)
    usual = np.sort(steps)[int(np.ceil(_USUAL * len(steps) - 1e-9)) - 1]
    wide = np.asarray(steps > (_BRIDGED + 1e-3) * usual)
    padded = np.concatenate([[False], wide, [False]])
    return np.asarray(~wide | padded[:-2] | padded[2:])


def bridged(steps: Ints | int, apart_mm: Floats, every: int, overlap: Bools | bool = False) -> Bools:
    """Whether two contours reach out to each other that lie ``steps`` slices and ``apart_mm`` from each other, in a structure drawn on one
    slice in ``every``: neighbouring slices always, others up to WIDEST_SPACING_MM, and beyond it those that lie over each other in the
    plane (``overlap``) where it is drawn on every second or third (MOST_APART). A fine CT drawn every 5 mm is one thing, and so is a body
    on every second slice of 6 mm; islands on every tenth slice, 30 mm apart, are not."""
    steps = np.asarray(steps)
    near = (apart_mm <= WIDEST_SPACING_MM + SAME_PLANE_MM) | (np.asarray(overlap) & (every <= MOST_APART))
    return np.asarray((steps <= 1) | ((steps <= every) & near))


def drawn_every(index: Ints) -> int:
    """1 where contours lie on every slice, 2 where on every second throughout (three quarters of at least two steps), and so on; whether
    they stand for the slices between as well ``bridged`` tells."""
    steps = np.diff(np.unique(index[index >= 0]))
    if len(steps) < 2:
        return 1
    values, counts = np.unique(steps, return_counts=True)
    most = int(counts.argmax())
    return int(values[most]) if counts[most] >= 0.75 * len(steps) else 1


def _steps_of_contours(planes: Floats, single_mm: float, overlap: Callable[[int], bool]) -> tuple[Floats, Floats, Bools, Bools]:
    """As ``_steps_on_slices``, with the spacing read off the planes: the commonest gap, or runs of three and more equal gaps."""
    gap = np.diff(planes)
    plausible = gap[gap <= WIDEST_SPACING_MM]
    if not len(plausible):
        step = np.full(len(planes), single_mm)
        return step, step, np.zeros(len(gap), bool), np.ones(len(gap), bool)
    ranked = np.sort(plausible)
    votes = np.searchsorted(ranked, 1.05 * plausible, "right") - np.searchsorted(ranked, 0.95 * plausible, "left")
    common = float(plausible[votes == votes.max()].min())
    wide = gap > (_BRIDGED + 1e-3) * common
    joined = ~wide | (_in_runs(gap) & (gap <= WIDEST_SPACING_MM))
    mixed = ~joined & (gap <= WIDEST_SPACING_MM + SAME_PLANE_MM) & as_drawn(gap)
    joined |= np.array([bool(asked) and overlap(n) for n, asked in enumerate(mixed)], dtype=bool)
    step = np.where(joined, gap, common)  # an open end reaches as far as the plane's other, joined side
    return np.append(step, common), np.append(common, step), joined, wide


def _in_runs(gap: Floats) -> Bools:
    """Which gaps belong to a run of at least three equal ones (within 5 %)."""
    same = np.abs(np.diff(gap)) <= 0.05 * gap[1:]
    pairs = np.convolve(same, [1, 1])[: len(same) + 1] if len(same) else np.zeros(len(gap))
    middle = pairs == 2
    out = middle.copy()
    out[:-1] |= middle[1:]
    out[1:] |= middle[:-1]
    return np.asarray(out)
