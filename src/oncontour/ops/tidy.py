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
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.boxes import Box, box_of, widened
from oncontour.core.case import BitMasks, LabelMasks
from oncontour.core.geometry import Geometry
from oncontour.core.structure_kinds import TARGET_ISLAND_CC
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, GeometryError
from oncontour.ops.far_pieces import Anatomy, far_pieces, has_parts
from oncontour.ops.pieces import labelled
from oncontour.ops.tidy_steps import filled_slices, large_pieces, smoothed, with_parts, without_slivers
from oncontour.ops.tidy_words import Change, change_words, volume_words

__all__ = ["Anatomy", "Change", "Tidy", "tidy"]

_BRANCH_MM = 10.0
"""What is thin through so many millimetres of slices is a vessel, a nerve, a process of a bone: no sliver."""
SEEN_CC = 0.5
"""A piece of so much is seen by whoever looks: that it was dropped is told among the warnings."""
_SMALL = "small pieces dropped"
Mask = NDArray[np.bool_]
_HOLLOW = re.compile(r"(.*[^a-z])?(ring|rind|shell|skin)(?![a-z]).*|.*(wall|vertebra).*", re.IGNORECASE)


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
    for name, box, gone, words in far_pieces(list(arrays), lambda name: (arrays[name], _whole(grid)), grid, rules.pieces, anatomy):
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
        box = within[name] = widened(found, labels.shape, _margin(rules, grid))
        here = labels[box]
        before = here == value
        after, words = _one(anatomy, name, before, grid, rules, free=here == 0)
        here[before & ~after] = 0
        here[after & ~before] = value
        done += words

    def part_of(name: str) -> tuple[Mask, Box]:
        return np.equal(labels[within[name]], masks.value(name)), within[name]

    for _, box, gone, words in far_pieces([name for name in order if name in within], part_of, grid, rules.pieces, anatomy):
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
    for name, box, gone, words in far_pieces(list(masks), lambda name: (mask_of(name), _whole(grid)), grid, rules.pieces, anatomy):
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
    for what, step in _steps(rules, grid, has_parts(anatomy.name(name))):
        after = step(mask)
        if after is mask:
            continue
        if free is not None:
            after = after & (mask | free)
        if not after.any():
            continue
        words = change_words(mask, after, grid.voxel_mm3)
        if words:
            largest = _largest_mm3(mask & ~after, grid) if what == _SMALL else 0.0
            seen = largest >= SEEN_CC * 1000
            words += f", the largest of {volume_words(largest)}" if seen else ""
            said.append(Change(f"{name}: {what} ({words})", warns=seen))
        mask = after
    return mask, said


def _largest_mm3(mask: Mask, grid: Geometry) -> float:
    """Of the largest piece; 0 of an empty mask."""
    _, sizes = labelled(mask)
    return float(sizes.max(initial=0) * grid.voxel_mm3)


def _steps(rules: Tidy, grid: Geometry, several: bool) -> Iterator[tuple[str, Callable[[Mask], Mask]]]:
    least = TARGET_ISLAND_CC * 1000 / grid.voxel_mm3 if several else np.inf
    if rules.holes == "slices":
        yield "holes filled in slices", filled_slices
    elif rules.holes == "volume":
        yield "holes filled in the volume", ndimage.binary_fill_holes
    if rules.smooth_mm:
        yield f"outline smoothed, {rules.smooth_mm:g} mm", lambda mask: smoothed(mask, rules.smooth_mm, grid)
    if rules.slivers_mm2:
        area, run = rules.slivers_mm2 / (grid.spacing_mm[1] * grid.spacing_mm[2]), max(3, int(np.ceil(_BRANCH_MM / grid.spacing_mm[0])))
        yield f"slivers below {rules.slivers_mm2:g} mm² dropped", lambda mask: with_parts(without_slivers(mask, area, run), mask, least)
    if rules.pieces:
        yield _SMALL, lambda mask: with_parts(large_pieces(mask, rules.pieces), mask, least)


# ---- several structures


def _parted(masks: dict[str, Volume], priority: Sequence[str]) -> list[Change]:
    """Take voxels from all but the first structure that holds them, in place; say from whom and how much."""
    order = [*(name for name in priority if name in masks), *(name for name in masks if name not in priority)]
    grid = masks[order[0]].geometry
    taken = np.zeros(grid.shape, bool)
    done = list[Change]()
    for name in order:
        array = masks[name].array
        found = box_of(array)
        if not found:
            continue
        shared = array[found] & taken[found]
        if shared.any():
            own = array.copy()
            own[found] &= ~shared
            masks[name] = Volume(own, grid)
            removed = volume_words(int(shared.sum()) * grid.voxel_mm3)
            done.append(Change(f"{name}: overlap with structures before it removed (-{removed})"))
        taken[found] |= array[found]
    return done


def _margin(rules: Tidy, grid: Geometry) -> list[int]:
    return [int(np.ceil(3 * rules.smooth_mm / s)) for s in grid.spacing_mm]


def _bounds(mask: Mask, rules: Tidy, grid: Geometry) -> Box | None:
    found = box_of(mask)
    return widened(found, mask.shape, _margin(rules, grid)) if found else None


def _whole(grid: Geometry) -> Box:
    k, j, i = (slice(0, size) for size in grid.shape)
    return k, j, i
