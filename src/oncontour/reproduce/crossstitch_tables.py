"""The tables of the cross-stitch paper: theirs beside ours, every row on simulated visits, tests with the patient as the unit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oncontour.adapt.simulate import TITLE
from oncontour.evaluate.visit_claims import Claim, Difference, claims, corrected, difference, not_worse
from oncontour.evaluate.visits import fields_by_patient, mean_of
from oncontour.metrics.stats import bootstrap_mean, p_text
from oncontour.reproduce.crossstitch_judged import METRICS, ORACLE, SEGMENTED, STRATA, Judged

IDENTITY, OPTIMISED, ELASTIX, REFINED = "identity", "instance optimisation", "elastix B-spline", " + refinement"
LIMIT_MM, MARGIN_MM = 1.8, 0.1
FIELD = "field error"
HIS = ("prostate", "bladder", "seminal vesicles", "rectum")
PUBLISHED = {
    "validation (6 patients)": ((1.06, 0.3), (0.91, 0.4), (1.27, 0.4), (1.76, 0.8)),
    "independent test (14 patients)": ((1.82, 2.4), (2.45, 2.4), (2.45, 5.0), (2.57, 2.3)),
}
"""MSD in mm of the cross-stitch network, mean and SD, of the organs of HIS: abstract of the MIDL 2020 paper."""


@dataclass(frozen=True)
class Told:
    """What stands above and below the tables: how many patients, updates and visits; organs; the row that others are compared with (its
    name, "" for none); the rows of which claims are made; what flows between the tasks of each cross-stitch row."""

    train: int
    test: int
    updates: int
    visits: int
    structures: tuple[str, ...]
    lead: str
    claimed: tuple[str, ...]
    flow: Mapping[str, Mapping[str, float]]


def tables(found: Mapping[str, Judged], told: Told) -> str:
    """Everything as Markdown."""
    lines = [
        f"# {TITLE.upper()}",
        "",
        f"{told.train} patients to learn from, {told.test} to judge on, {told.visits} SIMULATED visits each in every stratum; "
        f"{told.updates} updates a row. The patient is the unit: mean ± SD over patients of each one's mean over visits. A second observer "
        "drew the truth, 1.5 mm (SD) about what the true field carries.",
        "",
        *_theirs(),
    ]
    for stratum, one in found.items():
        lines += _stratum(stratum, one, told)
    lines += _comparisons(found, told) if told.lead else []
    lines += _claims(found, told)
    lines += _flow(told.flow)
    failures = [f"- {stratum}, {f.patient}, {f.method}: {f.reason}" for stratum, one in found.items() for f in one.failures]
    lines += ["## Not judged", "", *failures, ""] if failures else []
    return "\n".join(lines)


def _theirs() -> list[str]:
    lines = ["## Theirs: MSD in mm of the cross-stitch network, prostate CT, real repeat visits", ""]
    lines += [f"| | {' | '.join(HIS)} |", "|---" * (len(HIS) + 1) + "|"]
    lines += [f"| *published*, {what} | {' | '.join(f'{m} ± {s}' for m, s in row)} |" for what, row in PUBLISHED.items()]
    return [*lines, "", "Other organs, other visits: not to be compared across, only between rows of one table.", ""]


def _stratum(stratum: str, found: Judged, told: Told) -> list[str]:
    s = STRATA[stratum]
    what = "motion of a family that nothing learned from" if s.family == "unseen" else "neck, jaw, parotids, skin"
    lines = [f"## Ours, SIMULATED visits, stratum {stratum}: amplitude {s.amplitude:g}, {what}", ""]
    lines += [
        f"| | {' | '.join(told.structures)} | MSD | HD95 | DSC | field error [95 %] | folding |",
        "|---" * (len(told.structures) + 6) + "|",
    ]
    for method in found.methods:
        organs = [_mean_sd(list(values(found, method, "MSD", name).values())) for name in told.structures]
        whole = [_mean_sd(list(values(found, method, metric).values()), 3 if metric == "DSC" else 2) for metric in ("MSD", "HD95", "DSC")]
        lines.append(f"| {method} | {' | '.join([*organs, *whole, *_field(found, method)])} |")
    words = (
        "Organs: MSD (pooled over both surfaces) in mm; MSD, HD95 (mm) and DSC: each patient's mean over organs; field error in mm: mean "
        "|u - u'| where the CT shows the patient; folding in %: mean over visits, and the worst one."
    )
    return [*lines, "", words, ""]


def _field(found: Judged, method: str) -> tuple[str, str]:
    error = fields_by_patient(found.fields, method)
    if not error:
        return "", ""
    mean = bootstrap_mean(list(error.values()), list(error))
    folded = [row.folding_percent for row in found.fields if row.method == method]
    return f"{mean.mean:.2f} [{mean.low:.2f} to {mean.high:.2f}]", f"{np.nanmean(folded):.3f} / {np.nanmax(folded):.3f}"


def values(found: Judged, method: str, metric: str, structure: str = "") -> dict[str, float]:
    """Patient -> a metric of one organ, or the mean over the organs that there are; of FIELD the error in mm."""
    if metric == FIELD:
        return fields_by_patient(found.fields, method)
    held: dict[str, list[float]] = {}
    for row in found.rows:
        if (row.method, row.metric) == (method, metric) and structure in ("", row.structure):
            held.setdefault(row.patient, []).append(row.value)
    return {patient: mean_of(its) for patient, its in held.items()}


def _mean_sd(its: Sequence[float], digits: int = 2) -> str:
    known = np.array([v for v in its if not np.isnan(v)])
    finite = known[np.isfinite(known)]
    if not len(known):
        return ""
    spread = f" ± {finite.std(ddof=1):.{digits}f}" if len(finite) > 1 else ""
    words = f"{finite.mean():.{digits}f}{spread}" if len(finite) else "-"
    return words + (f" ({len(known) - len(finite)} missed)" if len(finite) < len(known) else "")


# ---- tests


def _pairs(found: Judged, lead: str) -> Iterator[tuple[str, str, str]]:
    """(row, the row it is compared with, metric): each output of ``lead`` against the same output of every other row; what
    was cleaned with the truth at hand is compared with nothing."""
    for other in found.methods:
        ends = SEGMENTED if other.endswith(SEGMENTED) else ""
        if other not in (lead, lead + ends, lead + REFINED) and not other.endswith(ORACLE) and lead + ends in found.methods:
            yield from ((lead + ends, other, metric) for metric in (*METRICS, *([] if ends else [FIELD])))
    if lead + REFINED in found.methods:
        yield from ((lead + REFINED, other, metric) for other in (lead, OPTIMISED, ELASTIX) for metric in (*METRICS, FIELD))


def _comparisons(found: Mapping[str, Judged], told: Told) -> list[str]:
    asked = [(stratum, *pair) for stratum, one in found.items() for pair in _pairs(one, told.lead)]
    each: list[Difference | None] = [difference(values(found[s], a, m), values(found[s], b, m)) for s, a, b, m in asked]
    lines = [f"## {told.lead} against every other row, SIMULATED visits, paired by patient", ""]
    lines += ["| stratum | row | against | metric | mean difference [95 %] | p, exact Wilcoxon | after Holm | patients |", "|---" * 8 + "|"]
    count = 0
    for (stratum, a, b, metric), one in zip(asked, corrected(each), strict=True):
        if one is not None:
            count += 1
            cells = (
                f"{one.mean:+.3f} [{one.low:+.3f} to {one.high:+.3f}] | {p_text(one.test.p, one.test.n)} | {p_text(one.holm, one.test.n)}"
            )
            lines.append(f"| {stratum} | {a} | {b} | {metric} | {cells} | {one.patients} |")
    return [*lines, "", f"Holm over all {count} comparisons; intervals resample patients.", ""]


def _claims(found: Mapping[str, Judged], told: Told) -> list[str]:
    lines = ["## What is claimed, on SIMULATED visits", ""]
    for stratum, one in found.items():
        if stratum == "unseen":
            made: list[Claim] = [not_worse(one.fields, name, OPTIMISED, MARGIN_MM) for name in told.claimed if name in one.methods]
        else:
            against = [name for name in (IDENTITY, OPTIMISED, ELASTIX) if name in one.methods]
            limit = LIMIT_MM if stratum == "usual" else None
            made = [
                claim
                for name in told.claimed
                if name in one.methods
                for claim in claims(one.evaluation(told.structures), one.fields, name, against, IDENTITY, limit)
            ]
        lines += [f"- {stratum}: {claim}" for claim in made]
    return [*lines, ""] if len(lines) > 2 else []


def _flow(flow: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not flow:
        return []
    units = list(next(iter(flow.values())))
    lines = ["## What flows between the tasks: share of the other task's maps at each cross-stitch unit", ""]
    lines += [f"| | {' | '.join(units)} |", "|---" * (len(units) + 1) + "|"]
    return [*lines, *(f"| {row} | {' | '.join(f'{one[unit]:.3f}' for unit in units)} |" for row, one in flow.items()), ""]


def measured_csv(found: Mapping[str, Judged]) -> str:
    """One number a line: stratum, patient, method, structure, metric, value; fields with no structure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stratum", "patient", "method", "structure", "metric", "value"])
    for stratum, one in found.items():
        writer.writerows([stratum, r.patient, r.method, r.structure, r.metric, f"{r.value:.5f}"] for r in one.rows)
        for method in dict.fromkeys(row.method for row in one.fields):
            for what in ("error_mm", "p95_mm", "folding_percent", "seconds"):
                its = fields_by_patient(one.fields, method, what)
                writer.writerows([stratum, patient, method, "", f"field_{what}", f"{value:.5f}"] for patient, value in its.items())
    return text.getvalue()
