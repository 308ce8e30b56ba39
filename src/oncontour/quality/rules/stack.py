"""How a structure hangs together: gaps in its stack, slices and pieces that stand apart, strays, slivers beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import ndimage

from oncontour.core.assessment import Finding
from oncontour.core.notes import counted
from oncontour.core.structure_kinds import TARGET_ISLAND_CC, is_several, is_target
from oncontour.core.volume import written_cc
from oncontour.io.names import to_tg263
from oncontour.ops.pieces import Pieces, gap_mm
from oncontour.quality.rules.finding import Ints, Mask, Seen, where

SLIVER_MM2 = 10.0
"""A region of a slice up to this area beside a larger one is a sliver. Where one pixel is larger there are none."""
_IN_SLICE = np.ones((3, 3, 3), bool) & np.array([False, True, False])[:, None, None]
"""Neighbours within a slice, at corners too."""


def stack(seen: Seen, pieces: Mapping[str, Pieces]) -> Iterator[Finding]:
    """Gap, isolated slice, stray, island, sliver. A grid of one or two slices has no stack: nothing is said of gaps there.
    ``pieces``: TG-263 name -> in how many pieces it comes in the part of the body that the CT shows."""
    if seen.grid.shape[0] > 2:
        yield from _gap(seen)
        yield from _isolated(seen)
    slivers = _slivers(seen)
    yield from _islands(seen, slivers, pieces)
    if slivers.any():
        slices = _slices(seen, slivers)
        yield Finding(
            "sliver", f"{seen.name} has a sliver beside it on {counted(len(slices), 'slice')}, at {where(seen.grid, slices)}.", slices
        )


def _gap(seen: Seen) -> Iterator[Finding]:
    empty = np.flatnonzero(np.isin(seen.drawn, _missing(seen)))
    slices = tuple(int(k) for k in empty if seen.box[0].start < k < seen.box[0].stop)
    if slices:
        number = len(np.unique(seen.drawn[list(slices)]))
        text = f"{seen.name} is missing on {counted(number, 'slice')} between its first and its last, at {where(seen.grid, slices)}."
        yield Finding("gap", text, slices)


def _missing(seen: Seen) -> Ints:
    """Drawn slices between the first and the last that hold nothing."""
    held = np.unique(seen.drawn[seen.slices])
    return np.setdiff1d(np.arange(held[0], held[-1] + 1), held)


def _isolated(seen: Seen) -> Iterator[Finding]:
    held = np.unique(seen.drawn[seen.slices])
    alone = [n for n in held if n - 1 not in held and n + 1 not in held]
    if not alone:
        return
    slices = tuple(int(k) for k in seen.slices if seen.drawn[k] in alone)
    if len(held) == 1:
        yield Finding("isolated", f"{seen.name} is contoured on one slice only, at {where(seen.grid, slices)}.", slices)
        return
    text = f"{seen.name} stands on {counted(len(alone), 'slice')} without a neighbour, at {where(seen.grid, slices)}."
    yield Finding("isolated", text, slices)


def _slivers(seen: Seen) -> Mask:
    """Voxels of small regions of a slice that has a larger one."""
    least = SLIVER_MM2 / seen.pixel_mm2
    if least < 1:
        return np.zeros_like(seen.part)
    labels, count = ndimage.label(seen.part, structure=_IN_SLICE)
    if count <= 1:
        return np.zeros_like(seen.part)
    size = np.bincount(labels.ravel())
    size[0] = 0
    largest = size[labels].max(axis=(1, 2))
    small = (size <= least)[labels] & (labels > 0)
    return np.asarray(small & (largest > 4 * least)[:, None, None])


def _islands(seen: Seen, slivers: Mask, pieces: Mapping[str, Pieces]) -> Iterator[Finding]:
    """Pieces that touch the largest one nowhere, not even at a corner; those that are no more than slivers are told as such, and large ones
    of an organ of one piece that lie farther from the rest than in the cohort as strays."""
    labels, count = ndimage.label(seen.part, structure=np.ones((3, 3, 3)))
    if count < 2:
        return
    size = np.bincount(labels.ravel())
    size[0] = 0
    largest, large = int(size.argmax()), size * seen.grid.voxel_mm3 >= TARGET_ISLAND_CC * 1000
    apart = np.bincount(labels.ravel(), weights=~slivers.ravel()) > 0
    apart[[0, largest]] = False
    called = to_tg263(seen.name) or seen.name
    if is_target(called) or is_several(called):
        apart &= ~large
    gaps = {int(n): gap_mm(labels == largest, labels == n, seen.grid) for n in np.flatnonzero(apart & large)}
    known = pieces.get(called)
    single = known if known is not None and known.single else None
    far = [n for n, gap in gaps.items() if single is not None and single.is_far(labels == largest, labels == n, gap, seen.grid)]
    strays = np.isin(np.arange(len(size)), far)
    for code, which, how in (("stray", strays, "far"), ("island", apart & ~strays, "apart")):
        if which.any():
            slices, number = _slices(seen, which[labels]), int(which.sum())
            size_and_gap = f"{written_cc(float(size[which].sum()) * seen.grid.voxel_mm3 / 1000)} cc"
            if number == 1 and int(which.argmax()) in gaps:
                size_and_gap += f", {gaps[int(which.argmax())]:.0f} mm away"
            text = f"{seen.name} has {counted(number, 'piece')} {how} from the rest ({size_and_gap}), at {where(seen.grid, slices)}."
            yield Finding(code, text, slices)


def _slices(seen: Seen, voxels: Mask) -> tuple[int, ...]:
    return tuple(int(k) + seen.first for k in np.flatnonzero(voxels.any(axis=(1, 2))))
