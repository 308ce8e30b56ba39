"""Tidying masks the way a clinician would before looking closer, each step switchable and every change put in words.

In this order, structure by structure: close holes, smooth, drop slivers, keep the large pieces; then no voxel in two structures.
A step that changes nothing says nothing. An organ that is of one piece in a cohort (``ops.pieces``) loses pieces that lie far from
the rest: a spinal cord in an arm. That needs a CT of the part of the body that the cohort shows; elsewhere they stay and are told. Where
such pieces are of like size the place decides (side, distance from the middle of the patient), and where that cannot, all stay and a
warning says that one is wrong. A piece of SEEN_CC and more that is dropped for its size is among the warnings as well. A target may
have several parts (nodes), and so have organs that are several by name (Lungs, Bowel): those of TARGET_ISLAND_CC and more are never
dropped. What is hollow by name (a wall, a ring, skin, a vertebra) keeps its hole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.case import BitMasks, LabelMasks
from oncontour.core.geometry import Geometry
from oncontour.core.structure_kinds import TARGET_ISLAND_CC, is_several, is_target
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, GeometryError
from oncontour.ops.pieces import NEAR_MM, Pieces, gap_mm, labelled
from oncontour.sides import other_side, side_of

_BRANCH_MM = 10.0
"""What is thin through so many millimetres of slices is a vessel, a nerve, a process of a bone: no sliver."""
SEEN_CC = 0.5
"""A piece of so much is seen by whoever looks: that it was dropped is told among the warnings."""
LIKE = 0.5
"""Pieces of at least this part of the largest are of like size: their size does not say which is the organ."""
OVER_MM = 10.0
"""An organ of one side does not lie farther over the midline."""
MIDDLE_MM = 40.0
"""An organ without a side, of those that are of one piece, does not lie farther from the midline."""
AGREE_MM = 20.0
"""How far structures may lie from the median that they tell the midline by."""
_SMALL = "small pieces dropped"
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
_HOLLOW = re.compile(r"(.*[^a-z])?(ring|rind|shell|skin)(?![a-z]).*|.*(wall|vertebra).*", re.IGNORECASE)
_SLICE_CROSS = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
"""Neighbours within a slice: left, right, above, below."""


@dataclass(frozen=True)
class Change:
    """A sentence about what tidying did; ``warns``: it belongs among the warnings, as the model drew an organ where it is not."""

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Tidy:
    """Which rules apply; ``Tidy.off()`` has none. Raises ConfigError for numbers that make no sense.

    Whatever they say, no piece of TARGET_ISLAND_CC (0.2 cc) and more of a target (``is_target``: GTV, CTV, ITV, PTV ..) or of an organ that
    is several by name (Lungs, Kidneys, Bowel, Colon, LN ..) is dropped; smoothing may move its outline away all the same.
    """

    pieces: float = 0.2
    """keep pieces (26 neighbours: thin oblique ones hold together) of at least this part of the largest; 1: the largest alone, 0: all.
    Of targets (GTV, CTV, ITV, PTV) and of organs that are several (Lungs, Bowel) pieces of 0.2 cc and more stay as well; of an organ of
    the head and neck that is known to be of one piece those far from the rest go (spinal cord: beyond 25 mm, others 12 mm) where the CT
    shows head and neck, unless they are of like size. A dropped piece of 0.5 cc and more is told among the warnings"""
    holes: Literal["slices", "volume", "off"] = "slices"
    """fill what is closed in within a slice, or within the volume, and belongs to no other structure; walls, rings, skin and vertebrae
    keep theirs"""
    slivers_mm2: float = 10.0
    """drop islands within a slice smaller than this, unless they go on from a larger one through 10 mm of slices (a thin branch), are all
    that a slice has and carry the structure on from the next (its tip), or belong to a piece of a target (or of organs that are several) of
    0.2 cc and more beside its largest; 0 drops none"""
    smooth_mm: float = 0.0
    """radius of a Gaussian smoothing of the outline (cut at one half); 0 is off. It moves the outline, hence off by default"""
    overlap: Literal["first", "off"] = "first"
    """a voxel in several structures stays in the first of them (``priority``), unless the model lets them overlap"""
    priority: tuple[str, ...] = ()
    """who comes first where structures overlap; the others follow in their own order. Structures of a model that lets them overlap
    (GTV and PTV) stay whole, except that those named here give way to those named before them"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "priority", tuple(self.priority))
        if not 0 <= self.pieces <= 1:
            raise ConfigError(f"pieces are kept from a part 0..1 of the largest, not {self.pieces}")
        if self.slivers_mm2 < 0 or self.smooth_mm < 0:
            raise ConfigError(f"slivers_mm2 and smooth_mm cannot be negative, not {self.slivers_mm2} and {self.smooth_mm}")
        if self.holes not in ("slices", "volume", "off") or self.overlap not in ("first", "off"):
            raise ConfigError(f"holes is slices, volume or off, overlap first or off, not {self.holes!r} and {self.overlap!r}")

    @classmethod
    def off(cls) -> Tidy:
        """Nothing is changed."""
        return cls(pieces=0, holes="off", slivers_mm2=0, smooth_mm=0, overlap="off")


@dataclass(frozen=True)
class Anatomy:
    """What tidying may know of the structures. ``pieces``: TG-263 name -> in how many pieces it comes, of the part of the body that the CT
    shows (``ops.pieces.pieces_shown``); ``names``: what a structure is called -> its TG-263 name, where the two differ."""

    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, called: str) -> str:
        """The TG-263 name."""
        return self.names.get(called, called)

    def of(self, called: str) -> Pieces | None:
        """In how many pieces it comes; None where that is not known."""
        return self.pieces.get(self.name(called))


def tidy(
    masks: Mapping[str, Volume], rules: Tidy | None = None, anatomy: Anatomy | None = None
) -> tuple[Mapping[str, Volume], tuple[Change, ...]]:
    """(tidied masks, what was done): masks of the same names on the same grid, and a sentence for each change with its cubic centimetres.

    A large piece that stays far from the rest of a structure of which nobody knows in how many pieces it comes is told as well; without
    ``anatomy`` that is every one, and no piece goes for the place where it lies.

    A ``LabelMasks`` comes back as one (filled holes go to background voxels only: structures inside a hole keep their voxels), and so does
    a ``BitMasks`` (holes likewise; its structures keep what they share, except for those that ``priority`` names); any other mapping as a
    dict of bool Volumes. An empty mask stays as it is; no rule empties one. Raises GeometryError when masks lie on different grids.
    """
    rules, anatomy = rules or Tidy(), anatomy or Anatomy()
    if not masks:
        return masks, ()
    if isinstance(masks, LabelMasks):
        return _packed(masks, rules, anatomy)
    if isinstance(masks, BitMasks):
        return _in_bits(masks, rules, anatomy)
    grid = _common_grid(masks)
    arrays, done = dict[str, Mask](), list[Change]()
    for name, mask in masks.items():
        array = mask.binary().array.copy()
        box = _bounds(array, rules, grid)
        if box:
            array[box], words = _one(anatomy, name, array[box], grid, rules)
            done += words
        arrays[name] = array
    for name, box, gone, words in _far_pieces(list(arrays), lambda name: (arrays[name], _whole(grid)), grid, rules, anatomy):
        arrays[name][box] &= ~gone
        done += words
    out = {name: Volume(array, grid) for name, array in arrays.items()}
    if rules.overlap == "first":
        done += _parted(out, rules.priority)
    return out, tuple(done)


def _common_grid(masks: Mapping[str, Volume]) -> Geometry:
    first, *rest = masks.items()
    for name, mask in rest:
        if not mask.geometry.same_grid(first[1].geometry):
            what = f"mask {name!r} lies on another grid than {first[0]!r}: {first[1].geometry.difference(mask.geometry)}"
            raise GeometryError(what, hint="bring both onto one grid first")
    return first[1].geometry


def _packed(masks: LabelMasks, rules: Tidy, anatomy: Anatomy) -> tuple[LabelMasks, tuple[Change, ...]]:
    grid = masks.labels.geometry
    labels = masks.labels.array.copy()
    boxes = ndimage.find_objects(labels.astype(np.int32, copy=False)) if labels.dtype == np.uint16 else ndimage.find_objects(labels)
    done, within = list[Change](), dict[str, Box]()
    names = list(masks)
    order = sorted(names, key=lambda name: rules.priority.index(name) if name in rules.priority else len(names))
    for name in order:
        value = masks.value(name)
        found = boxes[value - 1] if value <= len(boxes) else None
        if found is None:
            continue
        box = within[name] = _widened(found, labels.shape, _margin(rules, grid))
        here = labels[box]
        before = here == value
        after, words = _one(anatomy, name, before, grid, rules, free=here == 0)
        here[before & ~after] = 0
        here[after & ~before] = value
        done += words

    def part_of(name: str) -> tuple[Mask, Box]:
        return np.equal(labels[within[name]], masks.value(name)), within[name]

    for _, box, gone, words in _far_pieces([name for name in order if name in within], part_of, grid, rules, anatomy):
        labels[box][gone] = 0
        done += words
    return LabelMasks(Volume(labels, grid), names), tuple(done)


def _in_bits(masks: BitMasks, rules: Tidy, anatomy: Anatomy) -> tuple[BitMasks, tuple[Change, ...]]:
    grid, planes = masks.geometry, masks.planes.array.copy()
    # A wall around another structure must not be filled with it, but an outline may move over one.
    filling, rest = replace(rules, smooth_mm=0, slivers_mm2=0, pieces=0), replace(rules, holes="off")
    done: list[Change] = []

    def mask_of(name: str) -> Mask:
        number, bit = masks.place(name)
        return np.asarray((planes[number] & np.uint8(bit)) != 0)

    for name in masks:
        number, bit = masks.place(name)
        whole = mask_of(name)
        box = _bounds(whole, rules, grid)
        if box is None:
            continue
        nobody = np.asarray(masks.planes.array[(slice(None), *box)].max(axis=0) == 0)
        after, filled = _one(anatomy, name, whole[box], grid, filling, free=nobody)
        after, words = _one(anatomy, name, after, grid, rest)
        _set(planes[number][box], bit, after)
        done += filled + words
    for name, box, gone, words in _far_pieces(list(masks), lambda name: (mask_of(name), _whole(grid)), grid, rules, anatomy):
        number, bit = masks.place(name)
        _set(planes[number][box], bit, mask_of(name)[box] & ~gone)
        done += words
    named = [name for name in rules.priority if name in masks]
    if rules.overlap == "first" and len(named) > 1:
        first = {name: Volume(mask_of(name), grid) for name in named}
        done += _parted(first, named)
        for name, mask in first.items():
            number, bit = masks.place(name)
            _set(planes[number], bit, mask.array)
    return BitMasks(Volume(planes, grid), list(masks)), tuple(done)


def _set(plane: NDArray[np.uint8], bit: int, mask: Mask) -> None:
    """Make ``bit`` of ``plane`` say ``mask``, in place."""
    plane &= np.uint8(255 - bit)
    plane |= mask * np.uint8(bit)


# ---- one structure, in its bounding box


def _one(anatomy: Anatomy, name: str, mask: Mask, grid: Geometry, rules: Tidy, free: Mask | None = None) -> tuple[Mask, list[Change]]:
    """``mask`` after the rules, and what they did; grown voxels must be ``free`` (background) where that is given."""
    said = list[Change]()
    if _HOLLOW.fullmatch(name) or _HOLLOW.fullmatch(anatomy.name(name)):
        rules = replace(rules, holes="off")
    for what, step in _steps(rules, grid, _has_parts(anatomy.name(name))):
        after = step(mask)
        if after is mask:
            continue
        if free is not None:
            after = after & (mask | free)
        if not after.any():
            continue
        words = _change(mask, after, grid.voxel_mm3)
        if words:
            largest = _largest_mm3(mask & ~after, grid) if what == _SMALL else 0.0
            seen = largest >= SEEN_CC * 1000
            words += f", the largest of {_volume(largest)}" if seen else ""
            said.append(Change(f"{name}: {what} ({words})", warns=seen))
        mask = after
    return mask, said


def _has_parts(name: str) -> bool:
    return is_target(name) or is_several(name)


def _largest_mm3(mask: Mask, grid: Geometry) -> float:
    """Of the largest piece; 0 of an empty mask."""
    _, sizes = labelled(mask)
    return float(sizes.max(initial=0) * grid.voxel_mm3)


def _steps(rules: Tidy, grid: Geometry, several: bool) -> Iterator[tuple[str, Any]]:
    least = TARGET_ISLAND_CC * 1000 / grid.voxel_mm3 if several else np.inf
    if rules.holes == "slices":
        yield "holes filled in slices", _filled_slices
    elif rules.holes == "volume":
        yield "holes filled in the volume", ndimage.binary_fill_holes
    if rules.smooth_mm:
        yield f"outline smoothed, {rules.smooth_mm:g} mm", lambda mask: _smoothed(mask, rules.smooth_mm, grid)
    if rules.slivers_mm2:
        area, run = rules.slivers_mm2 / (grid.spacing_mm[1] * grid.spacing_mm[2]), max(3, int(np.ceil(_BRANCH_MM / grid.spacing_mm[0])))
        yield f"slivers below {rules.slivers_mm2:g} mm² dropped", lambda mask: _with_parts(_without_slivers(mask, area, run), mask, least)
    if rules.pieces:
        yield _SMALL, lambda mask: _with_parts(_large_pieces(mask, rules.pieces), mask, least)


def _filled_slices(mask: Mask) -> Mask:
    # A hole is background that the border cannot reach through 4 neighbours. Padded, the border of a slice is one piece of background.
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    labels, _ = ndimage.label(~padded, structure=_SLICE_CROSS)
    filled: Mask = (labels != labels[:, :1, :1])[:, 1:-1, 1:-1]
    return filled


def _smoothed(mask: Mask, radius_mm: float, grid: Geometry) -> Mask:
    sigma = [radius_mm / s for s in grid.spacing_mm]
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3.0) >= 0.5)


def _without_slivers(mask: Mask, voxels: float, run: int) -> Mask:
    """Islands of fewer ``voxels`` go, except those that go on from a larger one through ``run`` slices (a branch), and where neither the
    slice nor its neighbours would keep anything: the tip of an organ stays."""
    labels, _ = ndimage.label(mask, structure=_SLICE_CROSS)
    kept = _kept(mask, labels, lambda size: size >= voxels)
    if kept is mask:
        return mask
    thin, _ = ndimage.label(mask & ~kept, structure=np.ones((3, 3, 3)))
    large = kept.copy()
    for number, box in enumerate(ndimage.find_objects(thin), 1):
        around = _widened(box, mask.shape, (1, 1, 1))
        branch = thin[around] == number
        if box[0].stop - box[0].start >= run and (ndimage.binary_dilation(branch, np.ones((3, 3, 3))) & large[around]).any():
            kept[around] |= branch
    if np.array_equal(kept, mask):
        return mask
    has = np.asarray(kept.any(axis=(1, 2)))
    near = has | np.concatenate([has[1:], [False]]) | np.concatenate([[False], has[:-1]])
    bare = mask.any(axis=(1, 2)) & ~has
    # A slice left with nothing keeps its largest island where that continues what the next slice holds, or where nothing is near.
    for k in np.flatnonzero(bare):
        islands = labels[k][mask[k]]
        largest = np.equal(labels[k], np.bincount(islands).argmax())
        beside = np.zeros_like(largest)
        for n in (k - 1, k + 1):
            if 0 <= n < len(mask):
                beside |= mask[n]
        if not near[k] or (largest & beside).any():
            kept[k] |= largest
    return kept


def _large_pieces(mask: Mask, part: float) -> Mask:
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if part == 1:
        return _kept(mask, labels, lambda size: np.arange(len(size)) == size.argmax())
    return _kept(mask, labels, lambda size: size >= part * size.max())


def _with_parts(after: Mask, mask: Mask, voxels: float) -> Mask:
    """``after`` with the pieces of ``mask`` that have ``voxels`` or more and are not its largest: what no step may take from a target."""
    if after is mask or voxels > np.count_nonzero(mask):
        return after
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    size = np.bincount(labels.ravel())
    size[0] = 0
    parts = size >= voxels - 1e-6
    parts[[0, int(size.argmax())]] = False
    return np.asarray(after | parts[labels]) if parts.any() else after


def _kept(mask: Mask, labels: NDArray[np.int32], which: Callable[[NDArray[np.intp]], Mask]) -> Mask:
    """``mask`` with the pieces that ``which`` picks from their sizes (voxels; 0 for the background); ``mask`` itself where it picks all."""
    inside = np.flatnonzero(mask)
    piece = labels.ravel()[inside]
    size = np.bincount(piece)
    gone = ~which(size)[piece]
    if not gone.any():
        return mask
    kept = mask.copy()
    kept.reshape(-1)[inside[gone]] = False
    return kept


def _change(before: Mask, after: Mask, voxel_mm3: float) -> str:
    added, removed = int((after & ~before).sum()), int((before & ~after).sum())
    return ", ".join(sign + _volume(n * voxel_mm3) for sign, n in (("+", added), ("-", removed)) if n)


def _volume(mm3: float) -> str:
    return f"{mm3 / 1000:.2f} cc" if mm3 >= 10 else f"{mm3:.2g} mm³"


def _distance(mm: float) -> str:
    return f"{mm / 10:.0f} cm" if mm >= 95 else f"{mm:.0f} mm"


# ---- pieces far from the rest

Far = tuple[str, Box, Mask, list[Change]]
PartOf = Callable[[str], tuple[Mask, Box]]
"""A structure's mask in a box of the grid that holds all of it, and the box."""


def _far_pieces(names: Sequence[str], part_of: PartOf, grid: Geometry, rules: Tidy, anatomy: Anatomy) -> Iterator[Far]:
    """(structure, a box, what is to go of it there, what is said) for those that have pieces far from the rest. Whoever asks takes them
    away before the next is asked for."""
    if not 0 < rules.pieces < 1:
        return
    for name in names:
        known, called = anatomy.of(name), anatomy.name(name)
        if _has_parts(called) or (known is not None and not known.single):
            continue
        mask, within = part_of(name)
        inner = _objects(mask)
        if inner is None:
            continue
        mask, box = mask[inner], _inside(within, inner)
        places, said = _places(name, mask, _cropped(grid, box), known)
        gone = np.zeros_like(mask)
        if known is not None and len(places) > 1:
            middle_mm = _middle_mm(called, names, part_of, grid, anatomy)
            gone, verdict = _verdict(name, called, places, _cropped(grid, box), middle_mm)
            said += verdict
        if said:
            yield name, box, gone, said


def _places(name: str, mask: Mask, grid: Geometry, known: Pieces | None) -> tuple[list[Mask], list[Change]]:
    """The mask in parts that lie farther from each other than pieces of one organ do in the cohort, that of the largest piece first, and
    what is said of pieces that stay. Pieces near to each other belong together (a cord broken twice), and so do those that reach no farther
    together than one organ in the cohort (the halves of a mandible), and those that go on where the rest ends (an oesophagus that was not
    drawn on some slices). Of an organ that the cohort does not know all pieces belong together."""
    labels, sizes = labelled(mask)
    left, places, said = set(range(1, len(sizes) + 1)), list[Mask](), list[Change]()
    while left:
        first = max(left, key=lambda n: int(sizes[n - 1]))
        left.remove(first)
        part, others = labels == first, set(left)
        while others:
            gap, nearest = min((gap_mm(part, labels == n, grid), n) for n in others)
            others.remove(nearest)
            piece = labels == nearest
            near = gap <= (NEAR_MM if known is None else known.near_mm)
            why = "" if near else _why_one(part, piece, grid, known)
            if near or why:
                part |= piece
                left.remove(nearest)
            if why:
                said.append(Change(f"kept {_cc(piece, grid)} of {name} {_distance(gap)} away from the rest: {why}"))
        places.append(part)
    return places, said


def _why_one(part: Mask, piece: Mask, grid: Geometry, known: Pieces | None) -> str:
    """Why a piece that is not near belongs to the rest; "" where it does not."""
    if known is None:
        return "in how many pieces it comes is not known"
    if known.holds(part | piece, grid):
        return "together they reach no farther than one that is whole"
    return "it goes on where the rest ends" if known.goes_on(part, piece, grid) else ""


def _verdict(name: str, called: str, places: Sequence[Mask], grid: Geometry, middle_mm: float | None) -> tuple[Mask, list[Change]]:
    """What is to go of an organ of one piece that lies in several places, and what is said. Among those of like size the one that lies
    where the organ belongs stays; where that is none or several, all stay, and so they do where only a much smaller one lies there."""
    sizes = [int(np.count_nonzero(place)) for place in places]
    like = [n for n, size in enumerate(sizes) if size >= LIKE * max(sizes)]
    fits = [n for n in range(len(places)) if middle_mm is not None and _belongs(called, places[n], grid, middle_mm)]
    fitting = [n for n in like if n in fits]
    clear = len(like) == 1 and (bool(fitting) or not fits)
    kept = like[0] if clear else fitting[0] if len(fitting) == 1 else None
    if kept is None:
        parts = " and ".join(f"{_cc(place, grid)} ({_heights(place, grid)})" for place in places)
        text = f"{name} lies in {len(places)} places far from each other: {parts}. One of them is the organ at most, and all were kept"
        return np.zeros_like(places[0]), [Change(text, warns=True)]
    gone, said = np.zeros_like(places[0]), list[Change]()
    for n, place in enumerate(places):
        if n != kept:
            gone |= place
            away = f"{_distance(gap_mm(places[kept], place, grid))} away from the rest, {_way(places[kept], place, grid)}"
            stays = f"kept {_cc(places[kept], grid)} ({_heights(places[kept], grid)})"
            said.append(Change(f"removed {_cc(place, grid)} of {name} {away} ({_heights(place, grid)}); {stays}", warns=True))
    return gone, said


def _belongs(called: str, place: Mask, grid: Geometry, middle_mm: float) -> bool:
    """Whether a place lies on the side that the name says, or in the middle where it says none."""
    left_mm, side = _x_mm(place, grid) - middle_mm, side_of(called)
    return abs(left_mm) <= MIDDLE_MM if not side else (left_mm if side == "L" else -left_mm) >= -OVER_MM


def _middle_mm(called: str, names: Sequence[str], part_of: PartOf, grid: Geometry, anatomy: Anatomy) -> float | None:
    """x of the patient's midline as other organs of one piece tell, those without a side and pairs; None where fewer than two do, or where
    they do not agree."""
    at = dict[str, float]()
    for name in names:
        known, other = anatomy.of(name), anatomy.name(name)
        if known is None or not known.single or other in (called, other_side(called)):
            continue
        mask, box = part_of(name)
        if mask.any():
            at[other] = _x_mm(mask, _cropped(grid, box))
    pairs = [(at[name] + at[other_side(name)]) / 2 for name in at if side_of(name) == "L" and other_side(name) in at]
    told = [*(x for name, x in at.items() if not side_of(name)), *pairs]
    middle = float(np.median(told)) if len(told) > 1 else None
    return None if middle is None or max(abs(x - middle) for x in told) > AGREE_MM else middle


def _x_mm(mask: Mask, grid: Geometry) -> float:
    return float(grid.points(np.argwhere(mask).mean(axis=0))[0])


def _heights(mask: Mask, grid: Geometry) -> str:
    z = grid.points(np.argwhere(mask))[:, 2]
    return f"z {z.min():.0f} to {z.max():.0f} mm"


def _way(kept: Mask, gone: Mask, grid: Geometry) -> str:
    """To which side of the kept part the other lies."""
    step = np.subtract(*(grid.points(np.argwhere(mask).mean(axis=0)) for mask in (gone, kept)))
    axis = int(np.abs(step).argmax())
    words = (("to its right", "to its left"), ("in front of it", "behind it"), ("below it", "above it"))
    return words[axis][int(step[axis] > 0)]


def _cc(mask: Mask, grid: Geometry) -> str:
    return _volume(int(np.count_nonzero(mask)) * grid.voxel_mm3)


# ---- several structures


def _parted(masks: dict[str, Volume], priority: Sequence[str]) -> list[Change]:
    """Take voxels from all but the first structure that claims them, in place; say from whom and how much."""
    order = [*(name for name in priority if name in masks), *(name for name in masks if name not in priority)]
    grid = masks[order[0]].geometry
    taken = np.zeros(grid.shape, bool)
    done = list[Change]()
    for name in order:
        array = masks[name].array
        found = _objects(array)
        if not found:
            continue
        shared = array[found] & taken[found]
        if shared.any():
            own = array.copy()
            own[found] &= ~shared
            masks[name] = Volume(own, grid)
            removed = _volume(int(shared.sum()) * grid.voxel_mm3)
            done.append(Change(f"{name}: overlap with structures before it removed (-{removed})"))
        taken[found] |= array[found]
    return done


# ---- bounding boxes


def _margin(rules: Tidy, grid: Geometry) -> list[int]:
    return [int(np.ceil(3 * rules.smooth_mm / s)) for s in grid.spacing_mm]


def _bounds(mask: Mask, rules: Tidy, grid: Geometry) -> Box | None:
    found = _objects(mask)
    return _widened(found, mask.shape, _margin(rules, grid)) if found else None


def _objects(mask: Mask) -> Box | None:
    """The box around a mask, or None where it is empty."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(slices):
        return None
    k = slice(int(slices[0]), int(slices[-1]) + 1)
    flat = np.asarray(mask[k].any(axis=0))
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    return k, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _whole(grid: Geometry) -> Box:
    k, j, i = (slice(0, size) for size in grid.shape)
    return k, j, i


def _inside(box: Box, inner: Box) -> Box:
    """A box within a box, in the grid that the outer one is of."""
    k, j, i = (slice(o.start + n.start, o.start + n.stop) for o, n in zip(box, inner, strict=True))
    return k, j, i


def _cropped(grid: Geometry, box: Box) -> Geometry:
    return grid.crop([side.start for side in box], [side.stop for side in box])


def _widened(box: Sequence[slice], shape: Sequence[int], margin: Sequence[int]) -> Box:
    k, j, i = (slice(max(s.start - m, 0), min(s.stop + m, n)) for s, n, m in zip(box, shape, margin, strict=True))
    return k, j, i
