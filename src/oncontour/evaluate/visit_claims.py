"""What is claimed of a model that adapts, each claim with the test that it stands or falls by.

The patient is the unit; tests are exact Wilcoxon signed-rank tests, two-sided, Holm-corrected over the claims of one kind (all fields that
the model is compared with; all organs). A claim that something is smaller holds where the mean difference says so and its corrected p is
below 0.05. "No organ is worse" is a claim about what was measured: it fails for an organ whose mean difference is below 0, whatever its p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from oncontour.core.structure_kinds import is_target
from oncontour.evaluate.found import Evaluation, FieldRow, by_structure
from oncontour.evaluate.visits import fields_by_patient
from oncontour.metrics.stats import PairedTest, bootstrap_mean, holm, p_text, wilcoxon

FOLDING_PERCENT = 0.1
LEVEL = 0.05
NAMED = "Brainstem"
"""Its claim stands first, by name: registration by grey values alone makes it worse."""


@dataclass(frozen=True)
class Claim:
    """A claim, whether it holds (None: nothing to test it on), and the figures and the test behind it, in words."""

    text: str
    holds: bool | None
    figures: str

    def __str__(self) -> str:
        verdict = {True: "holds", False: "FAILS", None: "not testable"}[self.holds]
        return f"{verdict}: {self.text} ({self.figures})"


@dataclass(frozen=True)
class Difference:
    """``first`` less ``second`` over the patients that both have: their means, the mean difference with its 95 % interval over patients,
    and the exact test; ``holm`` is its p after correction (that of the test until there is one)."""

    first: float
    second: float
    mean: float
    low: float
    high: float
    test: PairedTest
    patients: int
    holm: float

    @property
    def words(self) -> str:
        n = self.test.n
        interval = f"{self.mean:+.3f} [{self.low:+.3f} to {self.high:+.3f}]"
        return (
            f"{self.first:.3f} against {self.second:.3f}, difference {interval}, exact Wilcoxon p {p_text(self.test.p, n)}, "
            f"after Holm {p_text(self.holm, n)}, {self.patients} patients"
        )


def difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference | None:
    """Patient by patient; None where no patient has both. Two that are inf alike (missed by both) differ by nothing."""
    both = [p for p in first if p in second and not np.isnan(first[p]) and not np.isnan(second[p])]
    if not both:
        return None
    a, b = np.array([first[p] for p in both]), np.array([second[p] for p in both])
    apart = np.subtract(a, b, out=np.zeros(len(a)), where=a != b)
    interval, test = bootstrap_mean(apart, both), wilcoxon(a, b)
    return Difference(float(a.mean()), float(b.mean()), interval.mean, interval.low, interval.high, test, len(both), test.p)


def corrected(found: Sequence[Difference | None]) -> list[Difference | None]:
    """The same with Holm's correction over all of them."""
    adjusted = iter(holm([one.test.p for one in found if one is not None]))
    return [None if one is None else replace(one, holm=next(adjusted)) for one in found]


def claims(
    evaluation: Evaluation, fields: Sequence[FieldRow], model: str, against: Sequence[str], nothing: str, limit_mm: float | None = None
) -> list[Claim]:
    """The claims about ``model``: a smaller field error than each of ``against``, at most ``limit_mm`` where one is given; no organ with a
    smaller DSC than ``nothing`` gives it; hardly any folding. ``evaluation`` is by patient."""
    return [*_smaller_errors(fields, model, against, limit_mm), *_organs(evaluation, model, nothing), _folding(fields, model)]


def not_worse(fields: Sequence[FieldRow], model: str, against: str, margin_mm: float) -> Claim:
    """The claim that the field error of ``model`` is larger by at most ``margin_mm``; the upper end of the interval is told beside it."""
    text = f"{model}: field error not worse than {against} by more than {margin_mm:g} mm"
    found = difference(fields_by_patient(fields, model), fields_by_patient(fields, against))
    if found is None:
        return Claim(text, None, "no field is known")
    sure = "within the margin too" if found.high <= margin_mm else "beyond the margin"
    return Claim(text, found.mean <= margin_mm, f"mm: {found.words}; the interval's upper end is {sure}")


def _smaller_errors(fields: Sequence[FieldRow], model: str, against: Sequence[str], limit_mm: float | None) -> list[Claim]:
    own = fields_by_patient(fields, model)
    out = []
    for other, one in zip(against, corrected([difference(own, fields_by_patient(fields, other)) for other in against]), strict=True):
        text = f"{model}: smaller field error than {other}"
        smaller = None if one is None else one.mean < 0 and one.holm < LEVEL
        out.append(Claim(text, smaller, "no true field is known" if one is None else f"mm: {one.words}"))
    if limit_mm is not None and own:
        mean = bootstrap_mean(list(own.values()), list(own))
        figures = f"{mean.mean:.2f} mm [{mean.low:.2f} to {mean.high:.2f}], {len(own)} patients"
        out.append(Claim(f"{model}: mean field error at most {limit_mm:g} mm", mean.mean <= limit_mm, figures))
    return out


def _organs(evaluation: Evaluation, model: str, nothing: str) -> list[Claim]:
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for method, structure, values in by_structure(evaluation, "DSC"):
        if method in (model, nothing) and not is_target(structure):
            tables.setdefault(structure, {})[method] = values
    both = sorted((name for name, table in tables.items() if len(table) == 2), key=lambda name: (name != NAMED, name))
    found = corrected([difference(tables[name][model], tables[name][nothing]) for name in both])
    return [
        Claim(f"{model}: {name} no worse than {nothing} in DSC", None if one is None else one.mean >= 0, "" if one is None else one.words)
        for name, one in zip(both, found, strict=True)
    ]


def _folding(fields: Sequence[FieldRow], model: str) -> Claim:
    folded = [row.folding_percent for row in fields if row.method == model and not np.isnan(row.folding_percent)]
    text = f"{model}: at most {FOLDING_PERCENT:g} % of the field folds, in every visit"
    if not folded:
        return Claim(text, None, "no field is known")
    return Claim(
        text, max(folded) <= FOLDING_PERCENT, f"mean {np.mean(folded):.3f} %, worst visit {max(folded):.3f} %, {len(folded)} visits"
    )
