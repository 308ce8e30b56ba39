"""Pieces of a structure that lie far from the rest: which belong together, and which of several places is the organ's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import Box, box_of, cropped
from oncontour.core.geometry import Geometry
from oncontour.core.structure_kinds import is_several, is_target
from oncontour.ops.pieces import NEAR_MM, Pieces, gap_mm, labelled
from oncontour.ops.tidy_words import Change, cc_words, distance_words
from oncontour.sides import other_side, side_of

Mask = NDArray[np.bool_]
LIKE = 0.5
"""Pieces of at least this part of the largest are of like size: their size does not say which is the organ."""
OVER_MM = 10.0
"""An organ of one side does not lie farther over the midline."""
MIDDLE_MM = 40.0
"""An organ without a side, of those that are of one piece, does not lie farther from the midline."""
AGREE_MM = 20.0
"""How far structures may lie from the median that they tell the midline by."""
Far = tuple[str, Box, Mask, list[Change]]
PartOf = Callable[[str], tuple[Mask, Box]]
"""A structure's mask in a box of the grid that holds all of it, and the box."""


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


def has_parts(name: str) -> bool:
    """Whether a structure of this TG-263 name may come in several pieces: targets, and what is several by name."""
    return is_target(name) or is_several(name)


def far_pieces(names: Sequence[str], part_of: PartOf, grid: Geometry, pieces: float, anatomy: Anatomy) -> Iterator[Far]:
    """(structure, a box, what is to go of it there, what is said) for those that have pieces far from the rest. Whoever asks takes them
    away before the next is asked for. None where ``Tidy.pieces`` keeps all, or the largest alone."""
    if not 0 < pieces < 1:
        return
    for name in names:
        known, called = anatomy.of(name), anatomy.name(name)
        if has_parts(called) or (known is not None and not known.single):
            continue
        mask, within = part_of(name)
        inner = box_of(mask)
        if inner is None:
            continue
        mask, box = mask[inner], _inside(within, inner)
        places, said = _places(name, mask, cropped(grid, box), known)
        gone = np.zeros_like(mask)
        if known is not None and len(places) > 1:
            middle_mm = _middle_mm(called, names, part_of, grid, anatomy)
            gone, verdict = _verdict(name, called, places, cropped(grid, box), middle_mm)
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
                said.append(Change(f"kept {cc_words(piece, grid)} of {name} {distance_words(gap)} away from the rest: {why}"))
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
        parts = " and ".join(f"{cc_words(place, grid)} ({_heights(place, grid)})" for place in places)
        text = f"{name} lies in {len(places)} places far from each other: {parts}. One of them is the organ at most, and all were kept"
        return np.zeros_like(places[0]), [Change(text, warns=True)]
    gone, said = np.zeros_like(places[0]), list[Change]()
    for n, place in enumerate(places):
        if n != kept:
            gone |= place
            away = f"{distance_words(gap_mm(places[kept], place, grid))} away from the rest, {_way(places[kept], place, grid)}"
            stays = f"kept {cc_words(places[kept], grid)} ({_heights(places[kept], grid)})"
            said.append(Change(f"removed {cc_words(place, grid)} of {name} {away} ({_heights(place, grid)}); {stays}", warns=True))
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
            at[other] = _x_mm(mask, cropped(grid, box))
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


def _inside(box: Box, inner: Box) -> Box:
    """A box within a box, in the grid that the outer one is of."""
    k, j, i = (slice(o.start + n.start, o.start + n.stop) for o, n in zip(box, inner, strict=True))
    return k, j, i
