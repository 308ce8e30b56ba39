"""The order in which a person is led through the contours: how much of what is truly wrong the first places hold, and the first slices.

    python bench/order.py [COHORT] [--model hn-organs] [--threads 2]

Each patient is contoured and judged as ``oncontour run`` does it, and compared with the contours that came with it, structure by structure
where both are there and scored. A place was worth looking at where more than 1 cm² is truly wrong on the slice that it opens on. Beside our
order, by predicted wrong area, stand the order by predicted DSC, chance (any place, any slice), and the best that the truth allows. The
cohort is OpenKBP's validation patients under $ONCONTOUR_DATA (else ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oncontour.commands import run_contours
from oncontour.contour.predict import load_contourer
from oncontour.core.case import Case
from oncontour.io.cohort import Cohort
from oncontour.metrics.risk_coverage import found_early
from oncontour.quality import score as scoring
from oncontour.quality.predict import load_assessor
from oncontour.report.review import Spot, Strip, spots, strips

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
FIRST, WRONG_CM2, PART = 5, 1.0, 0.2
"""Places that ``oncontour run`` prints; what counts as wrong; the part of slices that a person may have time for."""


@dataclass(frozen=True)
class Patient:
    """What is truly wrong, in cm²: on the slices that our ``places`` open on, first to last; on those that the same places would open on by
    their lowest predicted DSC, lowest first (``by_dsc``); ``slices``: (predicted wrong cm², predicted DSC, truly wrong cm²)."""

    places: list[float]
    by_dsc: list[float]
    slices: list[tuple[float, float, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, nargs="?", default=DATA / "openkbp" / "validation")
    parser.add_argument("--model", default="hn-organs")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    if not chosen.cohort.exists():
        print(f"no patients at {chosen.cohort.name}: give a cohort, or set ONCONTOUR_DATA")
        return 0
    drawer = load_contourer(chosen.model, threads=chosen.threads)
    assessor = load_assessor(scoring.DEFAULT_MODEL, threads=chosen.threads)
    cohort, seen = Cohort.open(chosen.cohort), []
    for id in cohort.ids:
        case = cohort[id]
        drawn, _ = run_contours.contour(case, [drawer], chances=True)
        seen.append(looked_at(scoring.score(drawn, assessor)[0], case))
    print(f"{len(seen)} patients, contours by {chosen.model}, judged by {scoring.DEFAULT_MODEL}")
    print(places_words(seen))
    print(slices_words(seen))
    return 0


def looked_at(scored: Case, truth: Case) -> Patient:
    """One judged patient beside the truth; a place about a structure as a whole counts by its middle slice, as it opens there."""
    known = [strip for strip in strips(scored) if strip.scored and strip.name in truth.structures]
    wrong = {strip.name: wrong_cm2(scored, truth, strip.name) for strip in known}
    found = [spot for spot in spots(known) if spot.k is not None]
    lowest = sorted((*lowest_dsc(spot, known), spot.name) for spot in found)
    rated = [(strip.name, cell) for strip in known for cell in strip.cells if cell.dsc is not None]
    return Patient(
        [float(wrong[spot.name][spot.k]) for spot in found],
        [float(wrong[name][k]) for _, k, name in lowest],
        [(cell.wrong_cm2 or 0.0, cell.dsc or 0.0, float(wrong[name][cell.k])) for name, cell in rated],
    )


def wrong_cm2(scored: Case, truth: Case, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What is in one of the two contours and not in the other, for each slice."""
    _, j, i = truth.geometry.spacing_mm
    apart = scored.mask(name, truth.geometry).array ^ truth.mask(name).array
    return np.asarray(apart.sum(axis=(1, 2)) * (j * i / 100), np.float64)


def lowest_dsc(spot: Spot, table: Sequence[Strip]) -> tuple[float, int]:
    """(the lowest predicted DSC in a place, its slice); 1 and where it opens where it has none."""
    cells = [cell for strip in table if strip.name == spot.name for cell in strip.cells]
    inside = [cell for cell in cells if spot.first is not None and spot.last is not None and spot.first <= cell.k <= spot.last]
    return min(((cell.dsc, cell.k) for cell in inside if cell.dsc is not None), default=(1.0, spot.k or 0))


def places_words(seen: Sequence[Patient]) -> str:
    """Shares of the first places of all patients; of any slice the mean over patients."""
    ours, by_dsc, best = (
        100 * np.mean([wrong > WRONG_CM2 for one in seen for wrong in some(one)[:FIRST]])
        for some in (lambda one: one.places, lambda one: one.by_dsc, lambda one: sorted(one.places, reverse=True))
    )
    anywhere = 100 * np.mean([np.mean([wrong > WRONG_CM2 for *_, wrong in one.slices]) for one in seen if one.slices])
    return (
        f"of the first {FIRST} places of each patient, more than {WRONG_CM2:g} cm2 is truly wrong in {ours:.0f} %; "
        f"by DSC alone {by_dsc:.0f} %, any slice {anywhere:.0f} %, best possible {best:.0f} %"
    )


def slices_words(seen: Sequence[Patient]) -> str:
    """Means over patients who have anything wrong."""
    tables = [np.array(one.slices) for one in seen if one.slices and sum(wrong for *_, wrong in one.slices) > 0]
    ours = np.mean([found_early(t[:, 0], t[:, 2], PART) for t in tables])
    by_dsc = np.mean([found_early(-t[:, 1], t[:, 2], PART) for t in tables])
    best = np.mean([found_early(t[:, 2], t[:, 2], PART) for t in tables])
    return (
        f"of all that is truly wrong, the first {100 * PART:.0f} % of the slices of each patient hold {ours:.3f}; "
        f"by DSC alone {by_dsc:.3f}, in any order {PART:.3f}, best possible {best:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
