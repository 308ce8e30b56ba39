"""In how many pieces an organ comes, measured on a cohort: a row a structure in ``pieces.csv`` (``docs/write_pieces.py`` makes it).

A piece is what hangs together by its 26 neighbours; pieces lie as far apart as the centres of their nearest voxels, and an extent reaches
from voxel centre to voxel centre along the patient's axes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.files import csv_text
from oncontour.ops.body import region

Mask = NDArray[np.bool_]
OFTEN = 0.05
"""A structure that reaches the first or last slice in more than this part of a cohort is not told for it."""
PART = 0.2
"""A second piece of at least this part of the largest is one that counts."""
SELDOM = 0.05
"""An organ of one piece has a second one that counts in no more than this part of the patients."""
NEAR_MM = 12.0
"""Pieces no farther apart are one organ, broken by slices on which nothing was drawn: the widest gap in the cohort's mandibles."""
REGION = "head_neck"
"""What the CTs of the shipped cohort show; of other parts of the body its rows say nothing."""
PERCENT = 99.0
"""Extents below this percentile of a cohort are usual."""
_NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Pieces:
    """One structure in ``patients`` of a cohort: in ``one_piece`` of them it hangs together, in ``counting`` it has a second piece of PART
    of the largest and more. ``part``: the largest second piece there was, as a part of the first; ``gap_mm``: how far from it that lay.
    ``x_mm``, ``y_mm``, ``z_mm``: how far the largest piece reaches from right to left, front to back, foot to head (PERCENT of patients);
    ``z_mm`` is inf of what often (OFTEN) goes on past the first or last slice."""

    structure: str
    patients: int
    one_piece: int
    counting: int
    part: float
    gap_mm: float
    x_mm: float
    y_mm: float
    z_mm: float

    @property
    def single(self) -> bool:
        """Whether this is an organ of one piece."""
        return self.counting <= SELDOM * self.patients

    @property
    def near_mm(self) -> float:
        """How far a second piece may lie from the rest and belong to it, wherever it lies."""
        return max(NEAR_MM, self.gap_mm if self.part >= PART else 0.0)

    def holds(self, mask: Mask, grid: Geometry) -> bool:
        """Whether all of a mask reaches no farther than one organ of this name: its pieces may be parts of one that is broken."""
        return bool((extent_mm(mask, grid) <= np.array([self.x_mm, self.y_mm, self.z_mm])).all())

    def is_far(self, one: Mask, other: Mask, gap_mm: float, grid: Geometry) -> bool:
        """Whether one of two masks that lie ``gap_mm`` apart can be no part of the organ that the other is of."""
        return gap_mm > self.near_mm and not self.holds(one | other, grid) and not self.goes_on(one, other, grid)

    def goes_on(self, one: Mask, other: Mask, grid: Geometry) -> bool:
        """Whether one mask goes on where the other ends, of an organ that passes the ends of a field of view (``z_mm`` is inf): they share
        no height, and the middles of their facing ends lie no farther apart sideways than ``near_mm``. How far such an organ reaches
        sideways was measured on the part that the cohort shows, and a longer field of view shows more: a thoracic oesophagus."""
        if np.isfinite(self.z_mm):
            return False
        low, high = sorted((_points(mask, grid) for mask in (one, other)), key=lambda points: float(points[:, 2].mean()))
        top, bottom = float(low[:, 2].max()), float(high[:, 2].min())
        if bottom <= top:
            return False
        thick = float(np.abs(np.asarray(grid.spacing_mm) @ np.abs(grid.axes[:, 2])))
        ends = low[low[:, 2] > top - thick / 2], high[high[:, 2] < bottom + thick / 2]
        return float(np.linalg.norm(np.subtract(*(end[:, :2].mean(axis=0) for end in ends)))) <= self.near_mm


def pieces_of(cohort: Iterable[Mapping[str, tuple[Mask, Geometry]]]) -> list[Pieces]:
    """A row for each structure of a cohort of masks, in the order of their names; empty masks are left out."""
    seen: dict[str, list[_Seen]] = {}
    for patient in cohort:
        for name, (mask, grid) in patient.items():
            if mask.any():
                seen.setdefault(name, []).append(_seen(mask, grid))
    return [_row(name, found) for name, found in sorted(seen.items())]


@dataclass(frozen=True)
class _Seen:
    """One patient's organ: the second piece's ``part`` of the largest and its distance (zeros: there is none), the largest's extent,
    and whether it reaches the first or last slice."""

    part: float
    gap_mm: float
    extent_mm: tuple[float, ...]
    at_the_end: bool


def _row(name: str, found: Sequence[_Seen]) -> Pieces:
    largest = max(found, key=lambda one: one.part)
    one, counting = sum(seen.part == 0 for seen in found), sum(seen.part >= PART for seen in found)
    x, y, z = (round(float(mm), 1) for mm in np.percentile([seen.extent_mm for seen in found], PERCENT, axis=0))
    long = np.mean([seen.at_the_end for seen in found]) > OFTEN
    return Pieces(name, len(found), one, counting, round(largest.part, 3), round(largest.gap_mm, 1), x, y, float("inf") if long else z)


def _seen(mask: Mask, grid: Geometry) -> _Seen:
    labels, sizes = labelled(mask)
    first, *others = np.argsort(-sizes, kind="stable")[:2] + 1
    extent, at_the_end = tuple(extent_mm(labels == first, grid).tolist()), bool((labels[[0, -1]] == first).any())
    if not others:
        return _Seen(0.0, 0.0, extent, at_the_end)
    part, gap = float(sizes[others[0] - 1] / sizes[first - 1]), gap_mm(labels == first, labels == others[0], grid)
    return _Seen(part, gap, extent, at_the_end)


def as_csv(rows: Iterable[Pieces]) -> str:
    """``rows`` as CSV."""
    return csv_text([[one.name for one in fields(Pieces)], *map(astuple, rows)])


@cache
def shipped_pieces() -> Mapping[str, Pieces]:
    """Structure -> its row: seven organs of the head and neck and three targets, from OpenKBP's training patients."""
    text = files("oncontour.ops").joinpath("pieces.csv").read_text(encoding="utf-8")
    kinds: Sequence[Callable[[str], str | int | float]] = (str, int, int, int, *(5 * (float,)))
    rows = list(csv.reader(io.StringIO(text)))[1:]
    return {row[0]: Pieces(*(kind(word) for kind, word in zip(kinds, row, strict=True))) for row in rows}  # type: ignore[arg-type]


def pieces_shown(ct: Volume) -> Mapping[str, Pieces]:
    """``shipped_pieces`` where ``ct`` shows head and neck, which they were measured on; nothing is known of any other CT."""
    return shipped_pieces() if region(ct).name == REGION else {}


# ---- measuring


def labelled(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(each voxel's piece, from 1; voxels of each piece)."""
    labels, _ = ndimage.label(mask, structure=_NEIGHBOURS)
    return labels, np.bincount(labels.ravel())[1:]


def gap_mm(one: Mask, other: Mask, grid: Geometry) -> float:
    """From the voxels of one mask to those of another, nearest centre to nearest centre; both hold some."""
    near, _ = cKDTree(_edge(other, grid)).query(_edge(one, grid))
    return float(near.min())


def extent_mm(mask: Mask, grid: Geometry) -> NDArray[np.float64]:
    """(x, y, z) from the mask's first to its last voxel centre along the patient's axes; the mask holds some."""
    return np.asarray(np.ptp(_edge(mask, grid) @ grid.axes, axis=0), np.float64)


def _points(mask: Mask, grid: Geometry) -> NDArray[np.float64]:
    """(n, 3) the mask's voxel centres, in mm along the patient's axes from the first voxel of its array."""
    return np.asarray(np.argwhere(mask) * np.asarray(grid.spacing_mm) @ grid.axes, np.float64)


def _edge(mask: Mask, grid: Geometry) -> NDArray[np.float64]:
    """The mask's outermost voxels, in mm from the first voxel of its array."""
    return np.asarray(np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(grid.spacing_mm), np.float64)
