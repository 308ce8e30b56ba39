"""Where a structure lies: outside the body, in another one's place, cut by the field of view, on the wrong side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import ndimage

from oncontour.core.assessment import Finding
from oncontour.core.case import Case
from oncontour.core.notes import counted
from oncontour.core.structure_kinds import is_target, is_whole
from oncontour.core.volume import Volume, written_cc
from oncontour.ops.body import TISSUE_HU, body_mask, is_masked
from oncontour.quality.rules.finding import Mask, Seen, where
from oncontour.sides import other_side, side_of

SKIN_MM = 3.0
"""A contour may lie this far outside the skin found in the CT; a target, which grows by margins, TARGET_SKIN_MM."""
TARGET_SKIN_MM = 10.0
OUTSIDE_MM2 = 30.0
"""Less than this outside the body on a slice is not told."""
SIDE_MM = 5.0
"""A structure must lie this far over the midline to be on the wrong side, unless its partner lies farther over."""
OVERLAP = 0.05
OVERLAP_CC = 0.3
"""Organs overlap when they share more than this part of the smaller one, and more than so many cc."""
NESTED = 0.9
"""A structure that lies in a larger one by this part is part of it by intent (a lens in an eye)."""


# ---- the body


def outside(seen: Seen, body: Volume) -> Iterator[Finding]:
    """Slices on which more than OUTSIDE_MM2 lie farther outside the skin than a contour may."""
    if is_whole(seen.name):
        return
    reach = TARGET_SKIN_MM if is_target(seen.name) else SKIN_MM
    beyond = seen.part & ~_near(body.array[seen.box], seen, reach)
    area = beyond.sum(axis=(1, 2), dtype=np.int64) * seen.pixel_mm2
    found = np.flatnonzero(area > OUTSIDE_MM2)
    if len(found):
        slices = tuple(int(k) + seen.first for k in found)
        part = 100 * beyond.sum() / seen.part.sum()
        text = f"{seen.name} lies outside the body by {part:.0f} % of its volume, at {where(seen.grid, slices)}."
        yield Finding("outside", text.replace(" 0 %", " less than 1 %"), slices)


def _near(body: Mask, seen: Seen, reach_mm: float) -> Mask:
    """The body and what lies within ``reach_mm`` of it in the slice."""
    steps = round(reach_mm / min(seen.grid.spacing_mm[1:]))
    ring = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
    missing = np.flatnonzero((seen.part & ~body).any(axis=(1, 2)))
    if not steps or not len(missing):
        return body
    out = body.copy()
    out[missing] = ndimage.binary_dilation(body[missing], ring, iterations=steps)
    return out


def body_of(case: Case) -> Volume | None:
    """The patient's outline, where the CT tells it."""
    if no_body(case):
        return None
    body = body_mask(case.ct)
    return body if body.array.any() else None


def no_body(case: Case) -> str:
    """Why the CT does not tell the patient's outline; "" where it may."""
    if "ct" not in case.images:
        return "there is no CT"
    return "the CT was masked and shows only part of the body" if is_masked(case.ct) else ""


# ---- left and right


def midline_mm(case: Case, seen: Seen, everything: Mapping[str, Seen | None], body: Volume | None) -> float | None:
    """x of the middle of the patient in a structure's slices: of the body there; without a CT, half-way between the pairs."""
    if "ct" in case.images:
        tissue = body.array if body is not None else case.ct.array > TISSUE_HU
        middles = _middles(tissue[seen.box[0]], seen)
        if len(middles):
            return float(np.median(middles))
    pairs = [
        float(one.centre_mm[0] + other.centre_mm[0]) / 2
        for name, one in everything.items()
        if one is not None and side_of(name) == "L" and (other := everything.get(other_side(name))) is not None
    ]
    return float(np.mean(pairs)) if pairs else None


def _middles(tissue: Mask, seen: Seen) -> list[float]:
    """x of the centre of mass of each slice that has tissue."""
    out = []
    shape = seen.grid.shape
    for k, plane in enumerate(tissue):
        total = int(plane.sum())
        if total:
            j = float(plane.sum(axis=1) @ np.arange(shape[1])) / total
            i = float(plane.sum(axis=0) @ np.arange(shape[2])) / total
            out.append(float(seen.grid.points((k + seen.first, j, i))[0]))
    return out


def side(seen: Seen, other: Seen | None, middle_mm: float | None) -> Iterator[Finding]:
    """Wrong where the structure lies over the midline, or where left and right of a pair lie the other way round."""
    name, mate = seen.name, other_side(seen.name)
    left, slices = side_of(name) == "L", tuple(int(k) for k in seen.slices)
    wanted, found = ("left", "right") if left else ("right", "left")
    x = float(seen.centre_mm[0])
    over = 0.0 if middle_mm is None else (middle_mm - x if left else x - middle_mm)
    if over > SIDE_MM:
        text = f"{name} lies {over:.0f} mm over the midline, on the patient's {found}: by its name it belongs to the {wanted}."
        yield Finding("side", text, slices)
    elif other is not None:
        step = x - float(other.centre_mm[0])
        swapped = step < -1.0 if left else step > 1.0
        if swapped:
            text = f"{name} lies {abs(step):.0f} mm to the {found} of {mate}: left and right are swapped, or one of the two is misplaced."
            yield Finding("side", text, slices)


# ---- others


def overlaps(everything: Mapping[str, Seen | None]) -> dict[str, list[Finding]]:
    """For each structure what organs it shares voxels with; targets and outlines of the patient may, and so may a part with its whole."""
    organs = [seen for name, seen in everything.items() if seen is not None and not is_target(name) and not is_whole(name)]
    out: dict[str, list[Finding]] = {}
    for one, other in combinations(organs, 2):
        shared = _shared(one, other)
        if shared is None:
            continue
        text, slices = shared
        for seen in (one, other):
            mate = other if seen is one else one
            out.setdefault(seen.name, []).append(Finding("overlap", f"{seen.name} and {mate.name} {text}", slices))
    return out


def _shared(one: Seen, other: Seen) -> tuple[str, tuple[int, ...]] | None:
    box = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one.box, other.box, strict=True))
    if any(side.stop <= side.start for side in box):
        return None
    both = _within(one, box) & _within(other, box)
    count = int(both.sum(dtype=np.int64))
    sizes = sorted(int(seen.part.sum(dtype=np.int64)) for seen in (one, other))
    volume = count * one.grid.voxel_mm3 / 1000
    if count <= OVERLAP * sizes[0] or volume < min(OVERLAP_CC, 0.5 * sizes[0] * one.grid.voxel_mm3 / 1000):
        return None
    if count > NESTED * sizes[0] and sizes[0] < 0.8 * sizes[1]:
        return None
    slices = tuple(int(k) + box[0].start for k in np.flatnonzero(both.any(axis=(1, 2))))
    text = f"share {written_cc(volume)} cc, {100 * count / sizes[0]:.0f} % of the smaller, at {where(one.grid, slices)}."
    return text, slices


def _within(seen: Seen, box: Sequence[slice]) -> Mask:
    """The voxels of a structure in a box that lies in its own."""
    k, j, i = (slice(new.start - old.start, new.stop - old.start) for new, old in zip(box, seen.box, strict=True))
    return seen.part[k, j, i]


# ---- the field of view


def cut(seen: Seen, usual: bool) -> Iterator[Finding]:
    """Touches the first or last slice (unless ``usual`` for it), or the border of the image in its slices."""
    if is_whole(seen.name):
        return
    depth, said, slices = seen.grid.shape[0], [], set()
    ends = [k for k, touched in ((0, seen.box[0].start == 0), (depth - 1, seen.box[0].stop == depth)) if touched]
    if ends and not usual and depth > 2:
        said.append("reaches the " + " and the ".join(_end_names(seen)[k != 0] for k in ends) + " slice")
        slices |= set(ends)
    edges = _at_border(seen)
    if edges:
        said.append(f"touches the border of the image on {counted(len(edges), 'slice')}")
        slices |= set(edges)
    if said:
        text = f"{seen.name} {' and '.join(said)}: it may be cut off there, and its volume be too small."
        yield Finding("cut", text, tuple(sorted(slices)))


def _end_names(seen: Seen) -> tuple[str, str]:
    along = float(seen.grid.axes[0, 2])
    return ("first", "last") if abs(along) < 0.7 else ("lowest", "highest") if along > 0 else ("highest", "lowest")


def _at_border(seen: Seen) -> list[int]:
    touched = np.zeros(seen.part.shape[0], bool)
    for axis in (1, 2):
        if seen.box[axis].start == 0:
            touched |= np.take(seen.part, 0, axis=axis).any(axis=1)
        if seen.box[axis].stop == seen.grid.shape[axis]:
            touched |= np.take(seen.part, -1, axis=axis).any(axis=1)
    return [int(k) + seen.first for k in np.flatnonzero(touched)]


def beyond(case: Case, name: str) -> Finding | None:
    """Contours drawn where there is no image."""
    contours = case.contours.get(name)
    if contours is None or not len(contours) or is_whole(name):
        return None
    at = case.geometry.voxels(np.concatenate(contours.polygons))
    half = 0.5 + 1e-3
    off = ((at < -half) | (at > np.asarray(case.geometry.shape) - 1 + half)).any(axis=1)
    if not off.any():
        return None
    part = 100 * float(off.mean())
    edge = {int(k) for k in np.clip(np.rint(at[off, 0]), 0, case.geometry.shape[0] - 1)}
    amount = "wholly" if off.all() else "by less than 1 % of its points" if part < 1 else f"by {part:.0f} % of its points"
    return Finding("cut", f"{name} was drawn {amount} outside the image.", tuple(sorted(edge)) if not off.all() else ())
