"""From tidy rows to what is read: a summary by structure, methods compared, CSV files, and the text on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.evaluate.found import METRICS, Evaluation, Row, by_structure
from oncontour.files import csv_text
from oncontour.metrics.stats import Interval, bootstrap_mean, holm, p_text, paired_t, smallest_p, wilcoxon

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float64]
ALL = "all"
"""The line that stands for all structures: the mean over structures of each one's mean."""


@dataclass(frozen=True)
class Summary:
    """One metric of one structure by one method, over patients.

    ``mean`` with its 95 % cluster-bootstrap interval ``low`` to ``high`` (BCa, patients resampled); ``sd`` between patients.
    ``n`` patients judged; of these ``missed`` had the structure and the prediction nothing (DSC 0, distance inf, both within ``mean``:
    one missed structure makes a mean distance inf; ``mean_found`` is the mean over the others). ``empty`` patients were empty in both
    (nothing to judge, in no figure); ``absent`` had no truth. For "all", ``mean`` and its interval are those of the structures' means,
    ``sd`` and quartiles are of patients, each with the mean over its structures, and ``missed`` patients lack one structure or more.
    """

    method: str
    structure: str
    metric: str
    unit: str
    n: int
    mean: float
    sd: float
    low: float
    high: float
    median: float
    q1: float
    q3: float
    mean_found: float
    missed: int
    empty: int
    absent: int


@dataclass(frozen=True)
class Comparison:
    """``method`` minus ``against`` over the same patients: mean difference with its interval, and paired tests.

    ``difference_found`` leaves out the patients in whom one of them missed the structure (infinite distance). ``p_t`` is never below
    2 / 2^n: what n patients can show without believing in a normal distribution.

    ``holm_wilcoxon`` and ``holm_t``: adjusted for all structures and pairs of methods compared by this metric ("all" apart).
    """

    metric: str
    structure: str
    method: str
    against: str
    n: int
    difference: float
    low: float
    high: float
    difference_found: float
    p_wilcoxon: float
    p_t: float
    holm_wilcoxon: float
    holm_t: float
    smallest_p: float


@dataclass(frozen=True)
class Method:
    """What was judged: ``sha256`` of a model's weights, "" for contours that came as they are."""

    method: str
    sha256: str


# ---- summaries


def summarise(evaluation: Evaluation) -> list[Summary]:
    """Every metric of every structure by every method; then all structures together where there are several."""
    missed = _missed(evaluation.rows)
    out = []
    for metric in METRICS:
        table = {(m, s): values for m, s, values in by_structure(evaluation, metric)}
        for (method, structure), values in table.items():
            count = sum((method, structure, patient) in missed for patient in values)
            out.append(_summary(method, structure, metric, values, count, evaluation.absent.get((method, structure), 0)))
        if METRICS[metric].better:
            for one in evaluation.methods:
                whole = _overall(one, metric, {s: v for (m, s), v in table.items() if m == one}, missed)
                out += [whole] if whole else []
    order = {name: n for n, name in enumerate([*evaluation.structures, ALL])}
    return sorted(out, key=lambda row: (evaluation.methods.index(row.method), order[row.structure]))


def _summary(method: str, structure: str, metric: str, values: dict[str, float], missed: int, absent: int) -> Summary:
    judged = {patient: value for patient, value in values.items() if not np.isnan(value)}
    interval = bootstrap_mean(list(judged.values()), list(judged))
    return _line(method, structure, metric, np.array(list(judged.values())), interval, missed, len(values) - len(judged), absent)


def _overall(method: str, metric: str, tables: dict[str, dict[str, float]], missed: set[tuple[str, str, str]]) -> Summary | None:
    if len(tables) < 2:
        return None
    flat = [(patient, structure, value) for structure, values in tables.items() for patient, value in values.items() if not np.isnan(value)]
    if not flat:
        return None
    patients, structures, values = zip(*flat, strict=True)
    interval = bootstrap_mean(values, patients, structures)
    own = np.array([np.mean([v for p, _, v in flat if p == patient]) for patient in dict.fromkeys(patients)])
    lacking = {p for m, s, p in missed if m == method and s in tables}
    return _line(method, ALL, metric, own, interval, len(lacking), 0, 0)


def _line(method: str, structure: str, metric: str, v: Floats, interval: Interval, missed: int, empty: int, absent: int) -> Summary:
    finite = v[np.isfinite(v)]
    q1, median, q3 = (
        np.quantile(v, (0.25, 0.5, 0.75), method="inverted_cdf" if len(finite) < len(v) else "linear") if len(v) else [np.nan] * 3
    )
    return Summary(
        method,
        structure,
        metric,
        METRICS[metric].unit,
        len(v),
        interval.mean,
        float(np.std(v, ddof=1)) if len(v) > 1 and len(finite) == len(v) else np.nan,
        interval.low,
        interval.high,
        float(median),
        float(q1),
        float(q3),
        float(finite.mean()) if len(finite) else np.nan,
        missed,
        empty,
        absent,
    )


def _missed(rows: Iterable[Row]) -> set[tuple[str, str, str]]:
    """(method, structure, patient) where the truth has voxels and the prediction none."""
    volume: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        if row.metric.startswith("volume_"):
            volume.setdefault((row.method, row.structure, row.patient), {})[row.metric] = row.value
    return {key for key, v in volume.items() if v["volume_truth"] > 0 and v["volume_predicted"] == 0}


# ---- comparisons


def compare(evaluation: Evaluation) -> list[Comparison]:
    """Every pair of methods, by metric and structure, over the patients that both were judged on; nothing for one method."""
    out: list[Comparison] = []
    pairs = list(combinations(evaluation.methods, 2))
    for metric in (name for name, m in METRICS.items() if m.better):
        tables: dict[str, dict[str, dict[str, float]]] = {}
        for method, structure, values in by_structure(evaluation, metric):
            tables.setdefault(structure, {})[method] = values
        each = [
            _pair(metric, s, a, b, t[a], t[b])
            for s, t in tables.items()
            for a, b in combinations(evaluation.methods, 2)
            if a in t and b in t
        ]
        out += _adjusted(each)
        if len(tables) > 1:
            overall = [_pair_overall(metric, a, b, tables) for a, b in pairs]
            out += _adjusted([one for one in overall if one])
    return out


def _pair(metric: str, structure: str, method: str, against: str, first: dict[str, float], second: dict[str, float]) -> Comparison:
    both = [p for p in first if p in second and not np.isnan(first[p]) and not np.isnan(second[p])]
    a, b = np.array([first[p] for p in both]), np.array([second[p] for p in both])
    difference = _minus(a, b)
    interval, found = bootstrap_mean(difference, both), difference[np.isfinite(difference)]
    rank, t = wilcoxon(a, b), paired_t(a, b)
    p_t = t.p if np.isnan(t.p) else max(t.p, t.floor)
    return Comparison(
        metric,
        structure,
        method,
        against,
        len(both),
        interval.mean,
        interval.low,
        interval.high,
        float(found.mean()) if len(found) else np.nan,
        rank.p,
        p_t,
        rank.p,
        p_t,
        rank.floor,
    )


def _pair_overall(metric: str, method: str, against: str, tables: dict[str, dict[str, dict[str, float]]]) -> Comparison | None:
    """Each patient's mean over the structures that both methods were judged on."""
    own: dict[str, dict[str, list[float]]] = {method: {}, against: {}}
    for table in tables.values():
        if method in table and against in table:
            for patient in table[method]:
                a, b = table[method][patient], table[against].get(patient, np.nan)
                if not (np.isnan(a) or np.isnan(b)):
                    own[method].setdefault(patient, []).append(a)
                    own[against].setdefault(patient, []).append(b)
    if not own[method]:
        return None
    first, second = ({p: float(np.mean(v)) for p, v in own[m].items()} for m in (method, against))
    return _pair(metric, ALL, method, against, first, second)


def _minus(a: Floats, b: Floats) -> Floats:
    return np.subtract(a, b, out=np.zeros(len(a)), where=a != b)


def _adjusted(rows: list[Comparison]) -> list[Comparison]:
    ranks, ts = holm([row.p_wilcoxon for row in rows]), holm([row.p_t for row in rows])
    return [replace(row, holm_wilcoxon=w, holm_t=t) for row, w, t in zip(rows, ranks, ts, strict=True)]


# ---- files and screen


def as_csv(rows: Sequence[DataclassInstance], kind: type | None = None) -> str:
    """Dataclass instances as CSV, six significant digits; ``nan`` is nothing to judge, ``inf`` a missed structure."""
    kind = kind or type(rows[0])
    names = [f.name for f in fields(kind)] + (["unit"] if kind is Row else [])
    return csv_text([names, *([_cell(getattr(row, name)) for name in names] for row in rows)])


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


COLUMNS = ("DSC", "surface_DSC", "ASD", "HD95", "HD", "APL")
"""What the screen shows; the CSV has everything."""


def text(evaluation: Evaluation, summaries: Sequence[Summary], comparisons: Sequence[Comparison]) -> str:
    """The tables for the screen, then everything that went wrong."""
    parts = [_method_table(method, evaluation, summaries) for method in evaluation.methods]
    if comparisons:
        parts.append(_comparison_table(comparisons, len(evaluation.structures) > 1))
    parts.append("\n".join(_remarks(evaluation, summaries)))
    return "\n\n".join(parts)


def _method_table(method: str, evaluation: Evaluation, summaries: Sequence[Summary]) -> str:
    table = {(s.structure, s.metric): s for s in summaries if s.method == method}
    names = [s for s in (*evaluation.structures, ALL) if (s, "DSC") in table]
    heads = ["structure", "n", "missed", "DSC [95 % interval]", *(_head(c, evaluation) for c in COLUMNS[1:])]
    lines = [heads]
    for name in names:
        dsc = table[name, "DSC"]
        first = f"{_mean(dsc)} [{_number(dsc.low, '')} to {_number(dsc.high, '')}]"
        lines.append([name, str(dsc.n), str(dsc.missed), first, *(_mean(table[name, c]) for c in COLUMNS[1:])])
    return f"{method}: mean ± SD over patients\n" + _aligned(lines)


def _head(metric: str, evaluation: Evaluation) -> str:
    at = f" {evaluation.tolerance_mm:g} mm" if metric in ("surface_DSC", "APL") else ""
    name = metric.replace("_", " ") + (" at" if at else "")
    return f"{name}{at}" if metric == "surface_DSC" else f"{name}{at}, mm"


def _mean(row: Summary) -> str:
    """Mean ± SD; where structures were missed a mean distance is inf, and that of the others stands behind."""
    if np.isinf(row.mean):
        return f"inf (found {_number(row.mean_found, row.unit)})"
    return _number(row.mean, row.unit) + (f" ± {_number(row.sd, row.unit)}" if np.isfinite(row.sd) else "")


def _number(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "-" if np.isnan(value) else f"{value:g}"
    return f"{value:.3f}" if not unit else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def _comparison_table(comparisons: Sequence[Comparison], several: bool) -> str:
    shown = [c for c in comparisons if c.metric in (*COLUMNS, "JI") and (c.structure == ALL or not several)]
    lines = [["metric", "methods", "n", "difference [95 % interval]", "signed rank", "Holm", "paired t"]]
    for c in shown:
        unit = METRICS[c.metric].unit
        found = f" (found {_number(c.difference_found, unit)})" if np.isinf(c.difference) else ""
        change = f"{_number(c.difference, unit)}{found} [{_number(c.low, unit)} to {_number(c.high, unit)}]"
        at_least = c.p_t <= smallest_p(c.n)  # what it would be without that floor is not told
        tests = [p_text(c.p_wilcoxon, c.n), p_text(c.holm_wilcoxon, c.n), p_text(0.0 if at_least else c.p_t, c.n)]
        lines.append([c.metric, f"{c.method} - {c.against}", str(c.n), change, *tests])
    over = "each patient's mean over structures" if several else "patient by patient"
    return f"compared, {over} (single structures: comparisons.csv)\n" + _aligned(lines)


def _remarks(evaluation: Evaluation, summaries: Sequence[Summary]) -> list[str]:
    swaps = "; ".join(f"{s.structure} in {s.patient} ({s.method})" for s in evaluation.swaps)
    lines = [f"left and right swapped: {len(evaluation.swaps)}" + (f": {swaps}" if swaps else "")]
    dsc = [s for s in summaries if s.metric == "DSC" and s.structure != ALL]
    if any(s.absent for s in dsc):
        absent = ", ".join(dict.fromkeys(f"{s.structure} {s.absent}" for s in dsc if s.absent))
        lines.append(f"not contoured in the truth, so not judged (patients): {absent}")
    if any(s.empty for s in dsc):
        lines.append(f"empty in truth and prediction, nothing to judge: {', '.join(f'{s.structure} {s.empty}' for s in dsc if s.empty)}")
    if evaluation.nowhere:
        lines.append(f"ASKED FOR, but contoured in the truth of no judged patient: {', '.join(evaluation.nowhere)}")
    lines += [f"{method} never draws {', '.join(names)}: not judged, nor in its 'all'" for method, names in evaluation.not_drawn.items()]
    if evaluation.failures:
        failed = len({f.patient for f in evaluation.failures})
        lines.append(f"NOT JUDGED: {failed} of {evaluation.patients} patients")
        lines += [f"  {f.patient} ({f.method}): {f.reason}" for f in evaluation.failures[:10]]
    return lines


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:]])
