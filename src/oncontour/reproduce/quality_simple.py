"""Predictors of a slice's DSC that need no net: how little a quality model must beat."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oncontour.quality.candidates import SEGMENTER, CandidateContour
from oncontour.quality.observe import Scored
from oncontour.reproduce.quality_tables import Floats, Row


@dataclass(frozen=True)
class TrainingSlice:
    """One slice that a segmenter drew in training: its area, its ``place`` along the structure (0 to 1), and its true DSC."""

    structure: str
    area_mm2: float
    place: float
    true: float


def simple_file(out: Path) -> Path:
    """What the simple predictors learn from."""
    return out / "claims" / "train.csv"


def simple_csv(bank: Mapping[str, Sequence[CandidateContour]], structures: Sequence[str]) -> str:
    """Area, place and DSC of every slice that a segmenter drew in training, as CSV."""
    lines = ["structure,area_mm2,place,true"]
    for one in (c for some in bank.values() for c in some if c.family == SEGMENTER):
        rows, length = one.rows, float(one.rows.below_mm.max() + one.rows.above_mm.max())
        pixel = one.scan.spacing_mm[1] * one.scan.spacing_mm[2]
        voxels = np.unpackbits(one.contour.bits, axis=1).sum(axis=1)
        for n in np.flatnonzero(rows.contoured):
            area = float(voxels[int(rows.k[n]) - one.contour.start[0]]) * pixel
            lines.append(f"{structures[one.structure]},{area:.1f},{rows.below_mm[n] / length if length else 0.5:.4f},{one.dsc[n]:.4f}")
    return "\n".join(lines) + "\n"


def training_slices(out: Path) -> list[TrainingSlice]:
    """``simple_csv`` read back."""
    with simple_file(out).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [TrainingSlice(row["structure"], float(row["area_mm2"]), float(row["place"]), float(row["true"])) for row in rows]


def simple_predictors(rows: Sequence[TrainingSlice]) -> Callable[[Scored, str], list[Row]]:
    """From training slices: a function that gives the rows of the two trivial predictors for a slice.

    *constant*: the median of the structure. *area and place*: least squares on log area, place along the structure and their squares, for
    each structure, cut to 0 to 1.
    """
    by: dict[str, list[TrainingSlice]] = {}
    for row in rows:
        by.setdefault(row.structure, []).append(row)
    everything = float(np.median([row.true for row in rows])) if rows else 0.5
    middle = {name: float(np.median([r.true for r in mine])) for name, mine in by.items()}
    fits = {}
    for name, mine in by.items():
        x = np.stack([_described(r.area_mm2, r.place) for r in mine])
        fits[name] = np.linalg.lstsq(x, np.array([r.true for r in mine]), rcond=None)[0]

    def predict(s: Scored, kind: str) -> list[Row]:
        constant = middle.get(s.structure, everything)
        x = _described(s.area_mm2, s.place)
        line = float(np.clip(x @ fits[s.structure], 0, 1)) if s.structure in fits else constant
        return [Row.of("constant", s, kind, dsc=constant), Row.of("area and place", s, kind, dsc=line)]

    return predict


def _described(area_mm2: float, place: float) -> Floats:
    size = np.log1p(area_mm2)
    return np.array([1.0, size, size**2, place, place**2])
