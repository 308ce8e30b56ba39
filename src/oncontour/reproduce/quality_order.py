"""The order in which slices are reviewed: how much of what is truly wrong comes early, by several orders, in the same patients.

A step of ``quality_2026`` by itself (``order``); what came out is ``papers/quality-2026/order.csv`` and ``order.md``. Each patient is
contoured and judged as ``oncontour run`` does it. What is wrong is the area that lies in one of a slice's two contours and not in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.commands.run_contours import contour
from oncontour.contour.predict import load_contourer
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.io.cohort import Cohort
from oncontour.metrics.risk_coverage import first_places, found_early, reviewed_until
from oncontour.metrics.stats import Interval, bootstrap_mean
from oncontour.quality import score as scoring
from oncontour.quality.predict import load_assessor
from oncontour.report.review import Cell, strips

WRONG_CM2, PART, MOST_FOUND, FIRST = 1.0, 0.2, 0.9, 5
"""What counts as wrong; the part of the slices that a person may have time for; how much of what is wrong is to be found; the places that
``oncontour run`` prints."""
FROM = 0.30
"""Probability from which on voxels count in the single-number check (PMC10587515)."""
RANDOM = 50
"""Random orders of each patient, whose mean is chance."""
PRODUCT, HEAD, CHANCE, BEST = "area x (1 - predicted DSC)", "area head", "chance", "best possible"
ROWS = (CHANCE, "1 - predicted DSC", f"mean of probabilities above {FROM:.2f}", "area x (1 - mean probability)", PRODUCT, HEAD, BEST)
MEASURES = (
    "wrong area in the first 20 %",
    "reviewed until 90 % are found",
    "of the first 5 places wrong",
    "cm2 wrong at the first 5 places",
)
"""Of the slices of a patient: the share of all wrong area that the first fifth holds; the part that is looked at until nine tenths of those
with more than 1 cm2 wrong were seen; of the first five places, where neighbours count once, those with more than 1 cm2 wrong, and how
much is wrong there on average."""


@dataclass(frozen=True)
class Seen:
    """One slice that a model drew: ``dsc`` and ``head_cm2`` predicted, ``area_cm2`` of its contour, ``mean`` probability over the contour,
    ``mean_above`` over the voxels of the slice from FROM on, and what is truly wrong."""

    patient: str
    structure: str
    k: int
    dsc: float
    head_cm2: float
    area_cm2: float
    mean: float
    mean_above: float
    wrong_cm2: float


@dataclass(frozen=True)
class Line:
    """One number of one row, with its 95 % interval over patients; ``against`` another row: less that one's, patient by patient."""

    row: str
    against: str
    measure: str
    value: float
    low: float
    high: float
    slices: int
    patients: int


def drawn_slices(model: str, test: Cohort, *, threads: int | None = None) -> list[Seen]:
    """Every slice that ``model`` draws in the patients ``test``, judged by the shipped quality model, where the truth has the structure."""
    drawer, assessor = load_contourer(model, threads=threads), load_assessor(scoring.DEFAULT_MODEL, threads=threads)
    seen: list[Seen] = []
    for id in test.ids:
        case = test[id]
        drawn, _ = contour(case, [drawer], chances=True)
        seen += _seen(id, scoring.score(drawn, assessor)[0], case, drawn.probabilities)
    return seen


def _seen(patient: str, scored: Case, truth: Case, thought: Mapping[str, Volume]) -> Iterator[Seen]:
    for strip in strips(scored):
        if not strip.scored or strip.name not in truth.structures:
            continue
        mask = scored.mask(strip.name, truth.geometry)
        _, j, i = truth.geometry.spacing_mm
        wrong = (mask.array ^ truth.mask(strip.name).array).sum(axis=(1, 2)) * (j * i / 100)
        likely = thought[strip.name]
        chance = Volume(likely.array.astype(np.float32) / 255, likely.geometry).to(mask.geometry).array
        for cell in strip.cells:
            if cell.dsc is not None and cell.wrong_cm2 is not None and mask.array[cell.k].any():
                yield _row(patient, strip.name, cell, mask.array[cell.k], chance[cell.k], float(wrong[cell.k]))


def _row(patient: str, name: str, cell: Cell, inside: NDArray[np.bool_], chance: NDArray[np.float32], wrong_cm2: float) -> Seen:
    above = chance[chance >= FROM]
    return Seen(
        patient,
        name,
        cell.k,
        cell.dsc or 0.0,
        cell.wrong_cm2 or 0.0,
        cell.area_cm2,
        float(chance[inside].mean()),
        float(above.mean()) if len(above) else 0.0,
        wrong_cm2,
    )


def lines(seen: Sequence[Seen]) -> list[Line]:
    """Every row by every measure, and the product's and the head's differences; patients without anything wrong have no share."""
    patients = list(dict.fromkeys(one.patient for one in seen))
    table = {row: np.array([measured(row, [one for one in seen if one.patient == p]) for p in patients]) for row in ROWS}
    pairs = [(HEAD, PRODUCT), *((PRODUCT, row) for row in ROWS if row not in (PRODUCT, HEAD, BEST, CHANCE))]
    out = [line for row in ROWS for line in _lines(row, "", table[row], patients, len(seen))]
    return out + [line for row, less in pairs for line in _lines(row, less, table[row] - table[less], patients, len(seen))]


def _lines(row: str, against: str, values: NDArray[np.float64], patients: Sequence[str], slices: int) -> list[Line]:
    out = []
    for n, measure in enumerate(MEASURES):
        known = ~np.isnan(values[:, n])
        within: Interval = bootstrap_mean(values[known, n], [p for p, k in zip(patients, known, strict=True) if k])
        out.append(Line(row, against, measure, within.mean, within.low, within.high, slices, within.clusters))
    return out


def measured(row: str, slices: Sequence[Seen]) -> tuple[float, ...]:
    """MEASURES of one patient's ``slices`` in the order of ``row``; NaN where nothing is wrong. Chance: the mean of random orders."""
    if row == CHANCE:
        rng = np.random.default_rng(0)
        return tuple(np.mean([_measured(rng.random(len(slices)), slices) for _ in range(RANDOM)], axis=0).tolist())
    return _measured(np.array([_score(row, one) for one in slices]), slices)


def _measured(score: NDArray[np.float64], slices: Sequence[Seen]) -> tuple[float, ...]:
    wrong = np.array([one.wrong_cm2 for one in slices])
    places = wrong[first_places(score, [one.structure for one in slices], [one.k for one in slices], FIRST)]
    share = found_early(score, wrong, PART) if wrong.sum() > 0 else float("nan")
    return share, reviewed_until(score, wrong > WRONG_CM2, MOST_FOUND), float((places > WRONG_CM2).mean()), float(places.mean())


def _score(row: str, one: Seen) -> float:
    """By what ``row`` orders slices, the largest first."""
    scores = {
        ROWS[1]: 1 - one.dsc,
        ROWS[2]: 1 - one.mean_above,
        ROWS[3]: one.area_cm2 * (1 - one.mean),
        PRODUCT: one.area_cm2 * (1 - one.dsc),
        HEAD: one.head_cm2,
        BEST: one.wrong_cm2,
    }
    return scores[row]


def text(found: Sequence[Line]) -> str:
    """The lines as two tables: every row, and the differences."""
    alone = [line for line in found if not line.against]
    head = ["| order of slices | " + " | ".join(MEASURES) + " |", "|---" * (1 + len(MEASURES)) + "|"]
    out = [f"{alone[0].slices} slices of {alone[0].patients} patients; 95 % intervals over patients", "", *head] if alone else head
    for part in (alone, [line for line in found if line.against]):
        for key in dict.fromkeys((line.row, line.against) for line in part):
            cells = [
                f"{one.value:{'+' * bool(key[1])}.3f} [{one.low:.3f}, {one.high:.3f}]" for one in part if (one.row, one.against) == key
            ]
            out.append(f"| {key[0]}{f' *less* {key[1]}' * bool(key[1])} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"
