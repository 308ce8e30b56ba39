"""What an evaluation finds: numbers, failures and pictures of each patient, and of all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oncontour.core.notes import grouped
from oncontour.errors import CohortError
from oncontour.evaluate.panels import Panel
from oncontour.io.names import to_tg263
from oncontour.ops.body import drawn_elsewhere


@dataclass(frozen=True)
class Metric:
    """``unit`` of a number, whether "higher" or "lower" is better ("" for neither), and what it is in words."""

    unit: str
    better: str
    text: str


METRICS: dict[str, Metric] = {
    "DSC": Metric("", "higher", "Dice similarity coefficient"),
    "JI": Metric("", "higher", "Jaccard index"),
    "ASD": Metric("mm", "lower", "mean of the two directed mean surface distances"),
    "HD": Metric("mm", "lower", "maximum Hausdorff distance"),
    "HD95": Metric("mm", "lower", "larger of the two directed 95th percentiles of surface distance"),
    "MSD": Metric("mm", "lower", "mean distance pooled over both surfaces"),
    "surface_DSC": Metric("", "higher", "part of both surfaces within the tolerance"),
    "APL": Metric("mm", "lower", "added path length: contour to draw anew beyond the tolerance"),
    "sensitivity": Metric("", "higher", "part of the truth that was found"),
    "precision": Metric("", "higher", "part of the prediction that is right"),
    "slice_DSC": Metric("", "higher", "mean DSC over slices that hold either mask"),
    "volume_truth": Metric("cc", "", "volume of the truth"),
    "volume_predicted": Metric("cc", "", "volume of the prediction"),
}
"""Everything that is measured of one structure in one patient, in the order of the tables."""


@dataclass(frozen=True)
class Row:
    """One number: the tidy table's line."""

    patient: str
    method: str
    structure: str
    metric: str
    value: float

    @property
    def unit(self) -> str:
        return METRICS[self.metric].unit


@dataclass(frozen=True)
class Failure:
    """A patient that could not be judged, and why."""

    patient: str
    method: str
    reason: str


@dataclass(frozen=True)
class Swap:
    """A paired organ whose prediction lies on the other side's truth (``swapped``)."""

    patient: str
    method: str
    structure: str


@dataclass(frozen=True)
class FieldRow:
    """The field that a ``method`` found of one visit of a patient: mean and 95th percentile of |u - u'| in mm (NaN where nobody knows u'),
    ``folding_percent`` of its voxels within the patient, and the CPU ``seconds`` of the whole method,
    programs that it starts among them."""

    patient: str
    visit: str
    method: str
    error_mm: float
    p95_mm: float
    folding_percent: float
    seconds: float


@dataclass(frozen=True)
class Judged:
    """What was found of one patient. ``drawn``: method -> the structures that it predicts, of the methods that could be judged;
    ``meant``: under which names what was asked for is looked for in this patient."""

    patient: str
    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()
    swaps: tuple[Swap, ...] = ()
    panels: tuple[Panel, ...] = ()
    drawn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    meant: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """on reading the patient and the predictions"""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """method -> the part of the body that the CT shows, where the method was not made for it"""
    why: tuple[tuple[str, str], ...] = ()
    """what went wrong with its place, and the way out of that ("" where none is known), of every failure"""
    fields: tuple[FieldRow, ...] = ()
    """of a visit: the fields that were found of it"""
    unnamed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """method -> numbers in its label map that nobody names"""

    @classmethod
    def failed(cls, patient: str, methods: Iterable[str], why: str) -> Judged:
        """Of a patient of whom nothing is known but ``why`` not."""
        return cls(patient, failures=tuple(Failure(patient, method, why) for method in methods), why=((why, ""),))


@dataclass(frozen=True)
class Evaluation:
    """What came out: tidy ``rows``, ``failures``, left/right ``swaps``, ``panels`` to look at, and the methods and structures judged.

    ``not_drawn``: method -> structures of the truth that it predicts in no patient.
    ``absent``: (method, structure) -> how many judged patients have no truth of it. ``nowhere``: asked for, and in no patient's truth.
    """

    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    swaps: tuple[Swap, ...]
    panels: tuple[Panel, ...]
    methods: tuple[str, ...]
    structures: tuple[str, ...]
    patients: int
    not_drawn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: Mapping[tuple[str, str], int] = field(default_factory=dict)
    tolerance_mm: float = 2.0
    nowhere: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Who was drawn by a model made for another part of the body, by name; and what was remarked on reading patients and predictions, a
    line for those of whom the same was."""


def by_structure(evaluation: Evaluation, metric: str) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(method, structure, patient -> value) for every pair that was judged."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    for row in evaluation.rows:
        if row.metric == metric:
            table.setdefault((row.method, row.structure), {})[row.patient] = row.value
    for method in evaluation.methods:
        for structure in evaluation.structures:
            if (method, structure) in table:
                yield method, structure, table[method, structure]


# ---- all patients

NEEDED = "the patients need contours of their own as the truth, under the names that the method predicts"


def gathered(found: Sequence[Judged], methods: Sequence[str], structures: Sequence[str] = (), tolerance_mm: float = 2.0) -> Evaluation:
    """The evaluation of all the patients that ``judge.judge_one`` looked at, in the order in which they are given.

    Raises CohortError where no patient could be judged, or where the truth and the methods have no structure in common.
    """
    if not any(one.rows for one in found):
        why = [(one.patient, *said) for one in found for said in one.why]
        first = "".join(f"; the first: {patient}: {what}" for patient, what, _ in why[:1])
        wanted = f" with any of {', '.join(structures)}" if structures else ""
        raise CohortError(
            f"none of {len(found)} patients{wanted} could be judged{first}",
            hint=next((way for _, _, way in why if way), "") or ("mend these patients, or leave them out" if why else NEEDED),
        )
    evaluation = _Together(found, tuple(methods), tuple(dict.fromkeys(structures)), tolerance_mm).evaluation()
    if not evaluation.rows:
        drawn = {method: {name for one in found for name in one.drawn.get(method, ())} for method in methods}
        raise CohortError(
            "the truth and the predictions have no structure in common; the truth has "
            f"{_listed({row.structure for one in found for row in one.rows})}; "
            + "; ".join(f"{method} draws {_listed(names)}" for method, names in drawn.items()),
            hint="call the structures alike on both sides (TG-263 names); "
            "where the predictions are label maps, name their numbers with --labels",
        )
    return evaluation


@dataclass(frozen=True)
class _Together:
    """What was found of all patients, and what was asked for."""

    found: Sequence[Judged]
    methods: tuple[str, ...]
    wanted: tuple[str, ...]
    tolerance_mm: float

    def evaluation(self) -> Evaluation:
        every = [row for one in self.found for row in one.rows]
        names = sorted({row.structure for row in every})
        meant = dict.fromkeys(name for one in self.found for name in one.meant)
        drawn = {m: {name for one in self.found for name in one.drawn.get(m, ())} | set(meant) for m in self.methods}
        kept = [name for name in (meant or names) if name in names and any(name in drawn[m] for m in self.methods)]
        return Evaluation(
            tuple(row for row in every if row.structure in drawn[row.method]),
            tuple(failure for one in self.found for failure in one.failures),
            tuple(swap for one in self.found for swap in one.swaps),
            tuple(panel for one in self.found for panel in one.panels if panel.structure in kept),
            self.methods,
            tuple(kept),
            len(self.found),
            {m: tuple(n for n in names if n not in drawn[m]) for m in self.methods if not set(names) <= drawn[m]},
            self._absent(kept, drawn),
            self.tolerance_mm,
            tuple(name for name in self.wanted if not {name, to_tg263(name)} & set(names)),
            self._notes(),
        )

    def _absent(self, kept: Sequence[str], drawn: Mapping[str, set[str]]) -> dict[tuple[str, str], int]:
        """(method, structure) -> how many patients that the method was judged on have no truth of the structure."""
        judged = {m: sum(m in one.drawn for one in self.found) for m in self.methods}
        have = Counter((row.method, row.structure) for one in self.found for row in one.rows if row.metric == "DSC")
        return {(m, s): n for m in self.methods for s in kept if s in drawn[m] if (n := judged[m] - have[m, s])}

    def _notes(self) -> tuple[str, ...]:
        elsewhere: dict[str, dict[str, str]] = {}
        for one in self.found:
            for method, shown in one.elsewhere.items():
                elsewhere.setdefault(method, {})[one.patient] = shown
        lines = [line for method, by_patient in elsewhere.items() for line in drawn_elsewhere(method, by_patient)]
        return (*lines, *grouped({one.patient: one.remarks for one in self.found}))


def _listed(names: Iterable[str]) -> str:
    """The names in the order of the alphabet, "nothing" where there is none."""
    ordered = sorted(names)
    return ", ".join(ordered[:20]) + (f" and {len(ordered) - 20} more" if len(ordered) > 20 else "") if ordered else "nothing"
