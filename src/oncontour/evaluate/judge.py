"""Contours against the truth, patient by patient: tidy rows, and nothing lost on the way.

What counts, and what does not:

* a structure that the truth does not have was not contoured: it is not judged there;
* a structure that the truth has and the prediction lacks was missed: DSC 0, distances inf, as if it were predicted empty;
* empty in both: NaN, "nothing to judge", counted apart;
* a structure that a method predicts in no patient at all is not the method's business and is left out, by name (unless it was asked for);
* a patient that cannot be read or predicted is a Failure, by name and reason; the others go on. So is one whose predicted masks have other
  voxels than its images: contours are filled on any grid, masks are never interpolated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import NoteCode, because, grouped
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, OncontourError
from oncontour.evaluate.panels import Panel, panels
from oncontour.io.names import to_tg263
from oncontour.metrics.overlap import Overlap, overlap
from oncontour.metrics.surface import surfaces
from oncontour.ops.body import drawn_elsewhere
from oncontour.sides import other_side


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


class Predictor(Protocol):
    """Anything that adds contours to a case: a task, a folder of predictions, a person's second reading."""

    def predict(self, case: Case, /) -> Case:
        """The case with masks on its grid or contours added."""


class Patients(Protocol):
    """Patients by id, each read when it is asked for (``io.cohort.Cohort`` is one)."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def __getitem__(self, id: str, /) -> Case: ...


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


def measure(truth: Volume, predicted: Volume, tolerance_mm: float = 2.0) -> dict[str, float]:
    """Every number of METRICS for two masks on one grid."""
    return _measure(truth, predicted, tolerance_mm)[0]


def judge(
    patients: Patients,
    methods: Mapping[str, Predictor],
    *,
    structures: Sequence[str] = (),
    tolerance_mm: float = 2.0,
    threads: int = 0,
    look: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Let every method contour every patient (the truth hidden from it) and compare.

    ``structures``: only these, by a patient's own names or others of the same meaning (default: all that the truth has and the method
    predicts); ``look`` keeps panels for figures; ``threads`` for the measuring, 0 for one a core. Raises ConfigError without methods,
    CohortError when no patient could be judged, or where the truth and the methods have no structure in common.
    """
    if not methods:
        raise ConfigError("nothing to judge", hint="give a model or a folder of predictions")
    found = _Found(tuple(methods), tuple(dict.fromkeys(structures)), tolerance_mm)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for n, patient in enumerate(patients.ids):
            _judge_patient(found, patients, patient, methods, pool, look)
            if progress:
                progress((n + 1) / len(patients.ids))
    if not found.rows:
        first = "".join(f"; the first: {patient}: {why}" for patient, why, _ in found.why[:1])
        wanted = f" with any of {', '.join(structures)}" if structures else ""
        raise CohortError(
            f"none of {len(patients.ids)} patients{wanted} could be judged{first}",
            hint=next((way for _, _, way in found.why if way), "")
            or "the patients need contours of their own as the truth, under the names that the method predicts",
        )
    evaluation = found.finished(len(patients.ids))
    if not evaluation.rows:
        raise CohortError(
            f"the truth and the predictions have no structure in common; the truth has {_listed({row.structure for row in found.rows})}; "
            + "; ".join(f"{method} draws {_listed(found.drawn.get(method, set()))}" for method in methods),
            hint="call the structures alike on both sides (TG-263 names); "
            "where the predictions are label maps, name their numbers with --labels",
        )
    return evaluation


def _listed(names: Iterable[str]) -> str:
    """The names in the order of the alphabet, "nothing" where there is none."""
    ordered = sorted(names)
    return ", ".join(ordered[:20]) + (f" and {len(ordered) - 20} more" if len(ordered) > 20 else "") if ordered else "nothing"


# ---- one patient


@dataclass
class _Found:
    """What has been gathered so far."""

    methods: tuple[str, ...]
    wanted: tuple[str, ...]
    tolerance_mm: float
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    meant: dict[str, None] = field(default_factory=dict)
    drawn: dict[str, set[str]] = field(default_factory=dict)
    judged: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    why: list[tuple[str, str, str]] = field(default_factory=list)
    """patient, what went wrong with its place, and the way out of that ("" where none is known), of every failure"""
    elsewhere: dict[str, dict[str, str]] = field(default_factory=dict)
    """method -> patient -> the part of the body that the CT shows, where the method was not made for it"""

    def fail(self, patient: str, methods: Iterable[str], error: Exception) -> None:
        self.failures += [Failure(patient, method, _reason(error)) for method in methods]
        told, way = _reason(error), ""
        if isinstance(error, OncontourError):
            told, way = error.what + (f" [{error.where}]" if error.where else ""), error.hint
        self.why.append((patient, told, way))

    def remark(self, patient: str, case: Case, of: str = "") -> None:
        """Keep what was remarked on reading ``case``, but for what is known of the patient already; ``of``: whose contours it has."""
        known = self.remarks.get(patient, ())
        more = [f"{of}: {note}" if of else str(note) for note in case.facts.get("notes", ()) if note not in known]
        self.remarks[patient] = (*known, *more)

    def names(self, there: Sequence[str]) -> list[str]:
        """Which structures of a patient are judged: those that were asked for by the very name, else by one that means the same."""
        if not self.wanted:
            return list(there)
        meant = dict.fromkeys(name if name in there else to_tg263(name) or name for name in self.wanted)
        self.meant |= meant
        return [name for name in there if name in meant]

    def finished(self, patients: int) -> Evaluation:
        names = sorted({row.structure for row in self.rows})
        drawn = {method: self.drawn.get(method, set()) | set(self.meant) for method in self.methods}
        kept = [name for name in (self.meant or names) if name in names and any(name in drawn[m] for m in self.methods)]
        rows = tuple(row for row in self.rows if row.structure in drawn[row.method])
        absent = {(m, s): n for m in self.methods for s in kept if s in drawn[m] if (n := self._without(m, s))}
        return Evaluation(
            rows,
            tuple(self.failures),
            tuple(self.swaps),
            tuple(panel for panel in self.panels if panel.structure in kept),
            self.methods,
            tuple(kept),
            patients,
            {m: tuple(n for n in names if n not in drawn[m]) for m in self.methods if not set(names) <= drawn[m]},
            absent,
            self.tolerance_mm,
            tuple(name for name in self.wanted if not {name, to_tg263(name)} & set(names)),
            (*(line for method, shown in self.elsewhere.items() for line in drawn_elsewhere(method, shown)), *grouped(self.remarks)),
        )

    def _without(self, method: str, structure: str) -> int:
        """How many patients that this method was judged on have no truth of this structure."""
        have = {row.patient for row in self.rows if (row.method, row.structure) == (method, structure)}
        return self.judged[method] - len(have)


def _judge_patient(
    found: _Found, patients: Patients, patient: str, methods: Mapping[str, Predictor], pool: ThreadPoolExecutor, look: bool
) -> None:
    try:
        case = patients[patient]
        found.remark(patient, case)
        if not case.structures:
            raise CohortError("no contours to compare with" + because(case.facts.get("notes", ()), NoteCode.STRUCTURES_LEFT_OUT))
        names = found.names(case.structures)
        truth = {name: case.mask(name) for name in names}
    except Exception as error:
        found.fail(patient, methods, error)
        return
    seen: dict[str, dict[str, tuple[Volume, Overlap]]] = {}
    for method, predictor in methods.items():
        try:
            predicted = predictor.predict(case.without_structures() if case.images else case)
            found.remark(patient, predicted, method)
            masks = {name: _mask(predicted, name, case.geometry) for name in names}
            numbers = list(pool.map(lambda name, masks=masks: _measure(truth[name], masks[name], found.tolerance_mm), names))
        except Exception as error:
            found.fail(patient, [method], error)
            continue
        if predicted.segmentation is not None and predicted.segmentation.elsewhere:
            found.elsewhere.setdefault(method, {})[patient] = predicted.segmentation.elsewhere
        found.drawn.setdefault(method, set()).update(predicted.structures)
        found.judged[method] = found.judged.get(method, 0) + 1
        for name, (values, shared) in zip(names, numbers, strict=True):
            found.rows += [Row(patient, method, name, metric, value) for metric, value in values.items()]
            seen.setdefault(name, {})[method] = masks[name], shared
        found.swaps += [Swap(patient, method, name) for name in swapped(truth, {**masks, **_other_sides(predicted, truth, case.geometry)})]
    if look:
        for name, by_method in seen.items():
            found.panels += panels(case, name, truth[name], by_method)


def swapped(truth: Mapping[str, Volume], predicted: Mapping[str, Volume]) -> list[str]:
    """Structures X_L (X_R) whose prediction shares more voxels with the truth of X_R (X_L) than with its own.

    Where the truth has one side alone: those whose prediction lies on it for the most part, more than the prediction of that side does.
    """
    out = []
    for name in predicted:
        other = other_side(name)
        if not other or other not in truth:
            continue
        mask = predicted[name].binary().array
        wrong = int(np.count_nonzero(mask & truth[other].binary().array))
        if name in truth:
            right = int(np.count_nonzero(mask & truth[name].binary().array))
        elif other in predicted and 2 * wrong > np.count_nonzero(mask):
            right = int(np.count_nonzero(predicted[other].binary().array & truth[other].binary().array))
        else:
            continue
        if wrong > right:
            out.append(name)
    return out


def _other_sides(predicted: Case, truth: Mapping[str, Volume], geometry: Geometry) -> dict[str, Volume]:
    """What was predicted of the sides that the truth lacks; they are not judged, so one that cannot be filled is nobody's failure."""
    out = {}
    for side in filter(None, map(other_side, truth)):
        if side not in truth:
            with suppress(OncontourError):
                out[side] = _mask(predicted, side, geometry)
    return out


def _mask(predicted: Case, name: str, geometry: Geometry) -> Volume:
    """What was predicted, on the truth's grid; empty where nothing was. Raises GeometryError for a mask of other voxels."""
    if name not in predicted.structures:
        return Volume(np.zeros(geometry.shape, bool), geometry)
    return predicted.own_mask(name, geometry)


def _measure(truth: Volume, predicted: Volume, tolerance_mm: float) -> tuple[dict[str, float], Overlap]:
    shared, apart = overlap(truth, predicted), surfaces(truth, predicted)
    values = {
        "DSC": shared.dsc,
        "JI": shared.jaccard,
        "ASD": apart.asd_mm,
        "HD": apart.hd_mm,
        "HD95": apart.hd95_mm,
        "MSD": apart.msd_mm,
        "surface_DSC": apart.surface_dsc(tolerance_mm),
        "APL": apart.added_path_mm(tolerance_mm),
        "sensitivity": shared.sensitivity,
        "precision": shared.precision,
        "slice_DSC": shared.mean_slice_dsc,
        "volume_truth": shared.truth_cc,
        "volume_predicted": shared.predicted_cc,
    }
    return values, shared


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OncontourError) else f"{type(error).__name__}: {error}"


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
