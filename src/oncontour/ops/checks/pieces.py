"""In how many pieces an organ comes, measured on a cohort: a row a structure in ``pieces.csv`` (``docs/write_pieces.py`` makes it).

A piece is what hangs together by its 26 neighbours; pieces lie as far apart as the centres of their nearest voxels.
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

from oncontour.geometry import Geometry

Mask = NDArray[np.bool_]
PART = 0.2
"""A second piece of at least this part of the largest is one that counts."""
SELDOM = 0.05
"""An organ of one piece has a second one that counts in no more than this part of the patients."""
NEAR_MM = 12.0
"""Pieces no farther apart are one organ, broken by slices on which nothing was drawn: the widest gap in the cohort's mandibles."""
_NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Pieces:
    """One structure in ``patients`` of a cohort: in ``one_piece`` of them it hangs together, in ``counting`` it has a second piece of PART
    of the largest and more. ``part``: the largest second piece there was, as a part of the first; ``gap_mm``: how far from it that lay."""

    structure: str
    patients: int
    one_piece: int
    counting: int
    part: float
    gap_mm: float

    @property
    def single(self) -> bool:
        """Whether this is an organ of one piece."""
        return self.counting <= SELDOM * self.patients

    @property
    def near_mm(self) -> float:
        """How far a second piece may lie from the rest and belong to it."""
        return max(NEAR_MM, self.gap_mm if self.part >= PART else 0.0)


def pieces_of(cohort: Iterable[Mapping[str, tuple[Mask, Geometry]]]) -> list[Pieces]:
    """A row for each structure of a cohort of masks, in the order of their names; empty masks are left out."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    for patient in cohort:
        for name, (mask, grid) in patient.items():
            if mask.any():
                seconds.setdefault(name, []).append(_second(mask, grid))
    return [_row(name, found) for name, found in sorted(seconds.items())]


def _row(name: str, found: Sequence[tuple[float, float]]) -> Pieces:
    part, gap_mm = max(found)
    one, counting = sum(share == 0 for share, _ in found), sum(share >= PART for share, _ in found)
    return Pieces(name, len(found), one, counting, round(part, 3), round(gap_mm, 1))


def _second(mask: Mask, grid: Geometry) -> tuple[float, float]:
    """(the second piece's part of the largest, its distance from it in mm); zeros where there is none."""
    labels, sizes = labelled(mask)
    if len(sizes) < 2:
        return 0.0, 0.0
    first, second = np.argsort(-sizes, kind="stable")[:2] + 1
    return float(sizes[second - 1] / sizes[first - 1]), gap_mm(labels == first, labels == second, grid)


def as_csv(rows: Iterable[Pieces]) -> str:
    """``rows`` as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([one.name for one in fields(Pieces)])
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


@cache
def shipped_pieces() -> Mapping[str, Pieces]:
    """Structure -> its row: seven organs of the head and neck and three targets, from OpenKBP's training patients."""
    text = files("oncontour.ops.checks").joinpath("pieces.csv").read_text(encoding="utf-8")
    kinds: Sequence[Callable[[str], str | int | float]] = (str, int, int, int, float, float)
    rows = list(csv.reader(io.StringIO(text)))[1:]
    return {row[0]: Pieces(*(kind(word) for kind, word in zip(kinds, row, strict=True))) for row in rows}  # type: ignore[arg-type]


# ---- measuring


def labelled(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(each voxel's piece, from 1; voxels of each piece)."""
    labels, _ = ndimage.label(mask, structure=_NEIGHBOURS)
    return labels, np.bincount(labels.ravel())[1:]


def gap_mm(one: Mask, other: Mask, grid: Geometry) -> float:
    """From the voxels of one mask to those of another, nearest centre to nearest centre; both hold some."""
    near, _ = cKDTree(_edge(other, grid)).query(_edge(one, grid))
    return float(near.min())


def _edge(mask: Mask, grid: Geometry) -> NDArray[np.float64]:
    """The mask's outermost voxels, in mm from the first voxel of its array."""
    return np.asarray(np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(grid.spacing_mm), np.float64)
