"""How right the shipped quality models are in a run: contours drawn, tidied and judged as ``oncontour run`` does, against the truth.

A step of ``quality_2026`` by itself (``in_a_run``); what came out is ``papers/quality-2026/in-run.csv``, from which
the rows of docs/models.md are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.commands.run_contours import contour
from oncontour.contour.predict import load_contourer
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.io.cohort import Cohort
from oncontour.learn.predictor import Predictor
from oncontour.metrics.calibration import agreement
from oncontour.metrics.classify import auc
from oncontour.metrics.conformal import covered
from oncontour.metrics.stats import Interval, bootstrap, bootstrap_mean
from oncontour.quality.observe import Observed, observe
from oncontour.quality.predict import Assessor, load_assessor
from oncontour.quality.score import DEFAULT_MODEL
from oncontour.reproduce.quality_tables import HELD_OUT, Column, Row, select

UNTAUGHT = ("Esophagus",)
"""Left out, as none of the nets that the judges learned from drew it."""
SURE = "mean probability"
"""The judge that needs no model: how likely the drawing model thought its own contour, on average over a slice."""
BAD = 0.7
DRAWS = 300


@dataclass(frozen=True)
class Figure:
    """One number about one judge of one model's contours, with its 95 % interval over patients.

    ``number``: "MAE", "MAE of the best constant" (the median of the slices judged), "AUC" (of slices with a DSC below 0.7), "covered"
    (slices whose DSC is not below the bound), each of ``judge`` alone; or "MAE" and "AUC" of ``judge`` less those of ``against``.
    """

    model: str
    judge: str
    against: str
    number: str
    value: float
    low: float
    high: float
    slices: int
    patients: int


def in_a_run(
    models: Sequence[str], test: Cohort, organs: Sequence[str], target: str, earlier: Sequence[str] = (), *, threads: int | None = None
) -> list[Figure]:
    """The figures of the shipped quality model, and of ``earlier`` ones (files) that it is compared with, about ``organs`` of the patients
    ``test`` as each of ``models`` (shipped names or model files) draws them; about the ``target`` too, as "MODEL, target", where it is
    drawn."""
    wanted = [name for name in organs if name not in UNTAUGHT]
    figures: list[Figure] = []
    for model in models:
        judges = {Path(name).stem: load_assessor(name, threads=threads) for name in (*earlier, DEFAULT_MODEL)}
        segmenter = load_contourer(model, threads=threads)
        rows = [row for id in test.ids for row in _rows(test[id], model, segmenter, judges)]
        name = Path(model).stem
        figures += figures_of(rows, name, list(judges), wanted)
        if any(row.structure == target for row in rows):
            figures += figures_of(rows, f"{name}, target", list(judges), [target])
    return figures


def _rows(case: Case, model: str, segmenter: Predictor, judges: Mapping[str, Assessor]) -> Iterator[Row]:
    drawn, _ = contour(case, [segmenter], chances=True)
    masks, thought = dict(drawn.masks), drawn.probabilities
    for name, judge in judges.items():
        seen = Observed()
        observe(judge, case, {model: masks}, seen, {model: thought}, as_predict=True)
        yield from (Row.of(name, s, HELD_OUT) for s in seen.scored())
    sure = {name: _sure(masks[name], thought[name]) for name in masks}
    yield from (Row.of(SURE, s, HELD_OUT, dsc=sure[s.structure][s.k]) for s in seen.scored())


def _sure(mask: Volume, probabilities: Volume) -> dict[int, float]:
    """Slice -> mean probability over the mask's voxels in it."""
    likely = Volume(probabilities.array.astype(np.float32) / 255, probabilities.geometry).to(mask.geometry).array
    return {int(k): float(likely[k][mask.array[k]].mean()) for k in np.flatnonzero(mask.array.any(axis=(1, 2)))}


def figures_of(rows: Sequence[Row], model: str, judges: Sequence[str], structures: Sequence[str]) -> list[Figure]:
    """What these rows come to. The last of ``judges`` is compared with each of the others, and with the mean probability."""
    columns = {judge: select(rows, judge, kind=HELD_OUT, structures=structures) for judge in (*judges, SURE)}
    figures: list[Figure] = []

    def add(judge: str, number: str, within: Interval, against: str = "") -> None:
        slices = len(columns[judge].true)
        figures.append(Figure(model, judge, against, number, within.mean, within.low, within.high, slices, within.clusters))

    for judge, c in columns.items():
        if judge != SURE:
            add(judge, "MAE", bootstrap_mean(np.abs(c.dsc - c.true), c.patients, draws=2000))
            best = agreement(c.dsc, c.true).constant_mae
            add(judge, "MAE of the best constant", Interval(best, np.nan, np.nan, len(set(c.patients))))
            add(judge, "covered", covered(c.true, c.lower, c.patients))
        add(judge, "AUC", bootstrap(_area(c), c.patients, draws=DRAWS))
    last = columns[judges[-1]]
    for against in (*judges[:-1], SURE):
        other = columns[against]
        if last.keys == other.keys and against != SURE:
            more = bootstrap_mean(np.abs(last.dsc - last.true) - np.abs(other.dsc - other.true), last.patients, draws=2000)
            add(judges[-1], "MAE", more, against)
        if last.keys == other.keys:
            add(judges[-1], "AUC", bootstrap(_more_area(last, other), last.patients, draws=DRAWS), against)
    return figures


def _area(c: Column) -> Callable[[NDArray[np.intp]], float]:
    return lambda which: auc(-c.dsc[which], c.true[which] < BAD)


def _more_area(c: Column, other: Column) -> Callable[[NDArray[np.intp]], float]:
    return lambda which: auc(-c.dsc[which], c.true[which] < BAD) - auc(-other.dsc[which], other.true[which] < BAD)


def text(figures: Sequence[Figure]) -> str:
    """The figures as a table for the screen."""
    lines = ["| model | judge | less | number | | 95 % | slices |", "|---|---|---|---|---|---|---|"]
    for f in figures:
        within = "" if np.isnan(f.low) else f"{f.low:.3f} to {f.high:.3f}"
        lines.append(f"| {f.model} | {f.judge} | {f.against} | {f.number} | {f.value:.3f} | {within} | {f.slices} |")
    return "\n".join(lines)
