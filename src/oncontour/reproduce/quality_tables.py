"""The tables of ``quality_2026``: every method by the same numbers, the target and the organs apart, intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.assessment import Calibration
from oncontour.metrics.calibration import agreement
from oncontour.metrics.classify import auc, confusion
from oncontour.metrics.conformal import covered, offset
from oncontour.metrics.risk_coverage import aurc, best_aurc, review
from oncontour.metrics.stats import Interval, bootstrap, bootstrap_mean
from oncontour.quality.observe import Scored

Floats = NDArray[np.float64]
PUBLISHED = (("multi-task", 0.0354, 0.0422), ("single-task", 0.0402, 0.0536))
"""Theirs: MAE and SD of the slice DSC, CTV of rectal cancer, 570 patients."""
CUTS = (0.8, 0.7)
SPLITS = 50
HELD_OUT = "held-out"
SEVERAL_AND_ONE = (("single-task", "multi-task"),)
"""The paper's own question."""


@dataclass(frozen=True)
class Row:
    """One method's word on one slice: ``dsc`` as predicted, ``lower`` its bound (NaN without one), ``true`` the truth; ``kind``: "held-out"
    for the segmenter under judgement, else the family of errors."""

    method: str
    kind: str
    patient: str
    structure: str
    source: str
    k: int
    true: float
    dsc: float
    low: float
    lower: float

    @classmethod
    def of(cls, method: str, s: Scored, kind: str, *, dsc: float | None = None) -> Row:
        own = dsc is None
        nan = float("nan")
        guess = s.dsc if dsc is None else dsc
        return cls(method, kind, s.patient, s.structure, s.source, s.k, s.true, guess, s.low if own else nan, s.lower if own else nan)


# ---- numbers


@dataclass(frozen=True, eq=False)
class Column:
    """Some rows as arrays."""

    true: Floats
    dsc: Floats
    low: Floats
    lower: Floats
    patients: list[str]
    keys: list[tuple[str, str, str, int]]
    """(patient, source, structure, slice)"""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Column:
        true, dsc, low, lower = (np.array([getattr(r, name) for r in rows], dtype=np.float64) for name in ("true", "dsc", "low", "lower"))
        return cls(true, dsc, low, lower, [r.patient for r in rows], [_key(r) for r in rows])


def _key(row: Row) -> tuple[str, str, str, int]:
    return row.patient, row.source, row.structure, row.k


def select(rows: Sequence[Row], method: str, *, kind: str, structures: Sequence[str]) -> Column:
    """One method's rows about one kind of masks of some structures, always in the same order."""
    mine = [r for r in rows if r.method == method and r.kind == kind and r.structure in structures]
    return Column.of(sorted(mine, key=_key))


def recalibrated_coverage(column: Column, coverage: float = 0.9, splits: int = SPLITS) -> float:
    """Coverage on half of the patients of a bound made on the other half ("pooled"), the mean over random halves: what a clinic gets that
    calibrates on its own segmenter."""
    names = sorted(set(column.patients))
    if len(names) < 4:
        return float("nan")
    rng, of, found = np.random.default_rng(0), np.array(column.patients), []
    for _ in range(splits):
        half = set(rng.permutation(names)[: len(names) // 2].tolist())
        inside = np.array([p in half for p in of])
        q = offset((column.low - column.true)[inside], of[inside].tolist(), coverage, "pooled")
        found.append(covered(column.true[~inside], column.low[~inside] - q, of[~inside].tolist(), draws=2).mean)
    return float(np.mean(found))


# ---- tables


def tables(
    rows: Sequence[Row],
    *,
    target: str,
    left: Mapping[str, int],
    calibrations: Mapping[str, Calibration | None],
    pairs: Sequence[tuple[str, str]] = SEVERAL_AND_ONE,
) -> str:
    """All tables as Markdown; ``pairs`` (method, what it is compared with) are compared slice by slice."""
    structures = sorted({r.structure for r in rows})
    groups = [("target", [target] if target in structures else []), ("organs", [s for s in structures if s != target])]
    groups = [(name, some) for name, some in groups if some]
    methods = list(dict.fromkeys(r.method for r in rows))
    n = len({r.patient for r in rows})
    counts = ", ".join(f"{name}: {count}" for name, count in left.items()) or "not counted"
    lines = [f"Patients judged: {n}. Slices left out: {counts}. Intervals: 95 %, patients resampled.", ""]
    for source in sorted({r.source for r in rows if r.kind == HELD_OUT}):
        lines += _of_segmenter(
            [r for r in rows if r.kind == HELD_OUT and r.source == source], source, methods, groups, target, calibrations, pairs
        )
    for kind in sorted({r.kind for r in rows} - {HELD_OUT}):
        lines += [f"## Flagging, errors of the kind {kind}, all structures", "", *_flags(rows, methods, kind, structures), ""]
    return "\n".join(lines).rstrip() + "\n"


def _of_segmenter(
    rows: Sequence[Row],
    source: str,
    methods: Sequence[str],
    groups: Sequence[tuple[str, Sequence[str]]],
    target: str,
    calibrations: Mapping[str, Calibration | None],
    pairs: Sequence[tuple[str, str]],
) -> list[str]:
    """What is said of the contours of one segmenter that nobody learned from."""
    title, lines = f"held-out segmenter {source}", []
    drawn = {r.structure for r in rows}
    there = [(name, [s for s in some if s in drawn]) for name, some in groups]
    there = [(name, some) for name, some in there if some]
    for name, some in there:
        lines += [f"## DSC of a slice, {name} ({', '.join(some)}), {title}", "", *_errors(rows, methods, some, name == "target"), ""]
        lines += [f"## Flagging, {name}, {title}", "", *_flags(rows, methods, HELD_OUT, some), ""]
    if len(there) > 1:
        every = [s for _, some in there for s in some]
        lines += [f"## Flagging, all structures, {title}", "", *_flags(rows, methods, HELD_OUT, every), ""]
    lines += [f"## Pairs, {title}", "", *_paired(rows, there, pairs), ""]
    return [*lines, f"## The bound, {title}", "", *_bounds(rows, methods, there, calibrations), ""]


def _errors(rows: Sequence[Row], methods: Sequence[str], some: Sequence[str], target: bool) -> list[str]:
    lines = [
        "| | MAE ± SD | 95 % | RMSE | Pearson | Spearman | bias (limits) | spread of true DSC | MAE of the best constant | slices |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    if target:
        lines += [f"| *published* {m} | {mae:.4f} ± {sd:.4f} | | | | | | not stated | not stated | |" for m, mae, sd in PUBLISHED]
    for method in methods:
        c = select(rows, method, kind=HELD_OUT, structures=some)
        if not len(c.true):
            continue
        a = agreement(c.dsc, c.true)
        within = bootstrap_mean(np.abs(c.dsc - c.true), c.patients, draws=2000)
        lines.append(
            f"| {method} | {a.mae:.4f} ± {a.mae_sd:.4f} | {_range(within)} | {a.rmse:.4f} | {_two(a.pearson)} | {_two(a.spearman)} | "
            f"{a.bias:+.3f} ({a.limits[0]:+.2f} to {a.limits[1]:+.2f}) | {a.spread:.3f} | {a.constant_mae:.4f} | {a.n} |"
        )
    return lines


def _flags(rows: Sequence[Row], methods: Sequence[str], kind: str, some: Sequence[str]) -> list[str]:
    heads = " | ".join(f"AUC at {cut} | sens. / spec. at {cut}" for cut in CUTS)
    lines = [f"| | {heads} | AURC (of 1 - DSC) | best possible |", "|---|" + "---|---|" * len(CUTS) + "---|---|"]
    for method in methods:
        c = select(rows, method, kind=kind, structures=some)
        if not len(c.true):
            continue
        cells = []
        for cut in CUTS:
            area = bootstrap(_area(c, cut), c.patients, draws=300)
            seen = confusion(c.dsc < cut, c.true < cut)
            cells.append(f"{_two(area.mean)} ({_range(area)}) | {_two(seen.sensitivity)} / {_two(seen.specificity)}")
        risk = 1 - c.true
        lines.append(f"| {method} | {' | '.join(cells)} | {aurc(c.dsc, risk):.4f} | {best_aurc(risk):.4f} |")
    return lines


def _area(c: Column, cut: float) -> Callable[[NDArray[np.intp]], float]:
    return lambda which: auc(-c.dsc[which], c.true[which] < cut)


def _paired(rows: Sequence[Row], groups: Sequence[tuple[str, Sequence[str]]], pairs: Sequence[tuple[str, str]]) -> list[str]:
    lines = ["| | MAE less that of the other | 95 % | slices |", "|---|---|---|---|"]
    for method, other in pairs:
        for name, some in groups:
            one, base = (select(rows, m, kind=HELD_OUT, structures=some) for m in (method, other))
            if not len(one.true) or one.keys != base.keys:
                continue
            more = np.abs(one.dsc - one.true) - np.abs(base.dsc - base.true)
            within = bootstrap_mean(more, one.patients, draws=5000)
            lines.append(f"| {method} less {other}, {name} | {within.mean:+.4f} | {within.low:+.4f} to {within.high:+.4f} | {len(more)} |")
    return lines if len(lines) > 2 else ["Both of a pair are needed for this."]


def _bounds(
    rows: Sequence[Row],
    methods: Sequence[str],
    groups: Sequence[tuple[str, Sequence[str]]],
    calibrations: Mapping[str, Calibration | None],
) -> list[str]:
    lines = [
        "| | calibrated on | covered, as it was calibrated | covered, calibrated on half of these patients | "
        + " | ".join(f"reviewed / missed, lower < {cut}" for cut in CUTS)
        + " |",
        "|---|---|---|---|" + "---|" * len(CUTS),
    ]
    for method in (m for m in methods if m in calibrations):
        for name, some in [("all", [s for _, part in groups for s in part]), *groups]:
            c = select(rows, method, kind=HELD_OUT, structures=some)
            if not len(c.true) or np.isnan(c.lower).all():
                continue
            held = covered(c.true, c.lower, c.patients)
            cells = [_reviewed(c, cut) for cut in CUTS]
            calibration = calibrations[method]
            made = f"{'?' if calibration is None else calibration.patients} patients"
            lines.append(
                f"| {method}, {name} | {made} | {held.mean:.1%} ({_range(held)}) | {recalibrated_coverage(c):.1%} | {' | '.join(cells)} |"
            )
    return lines


def _reviewed(c: Column, cut: float) -> str:
    seen = review(c.lower, c.true < cut, cut)
    missed = "no error" if np.isnan(seen.missed) else f"{seen.missed:.1%} of {seen.errors}"
    return f"{seen.reviewed:.1%} / {missed}"


def _range(within: Interval) -> str:
    return "-" if np.isnan(within.low) else f"{within.low:.3f} to {within.high:.3f}"


def _two(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
