"""Adapted visits against what is known of them: contours with the patient as the unit, and fields in mm where they were simulated.

Contours go through ``evaluate.judge`` visit by visit; ``by_patient`` then takes the mean over a patient's visits, as visits of one patient
are not independent. The error of a field is the mean of |u - u'| over the voxels where the daily CT shows the patient (the body, and of it
what was not masked); u is the one found and u' the one that the visit was simulated with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import shown, visit_case
from oncontour.adapt.predict import Adapted
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.evaluate.found import Evaluation, FieldRow, Row
from oncontour.evaluate.judge import Predictor

DIRECT = ", direct"
"""After a method's name: its segmentation of the daily CT, beside the planning contours that it carries."""


class Adapts(Protocol):
    """Anything that adapts a daily visit with its planning visit as ``prior``."""

    def adapt(self, case: Case, /) -> Adapted: ...


@dataclass(frozen=True)
class Visits:
    """Daily visits by id PATIENT/FOLDER (``io.cohort``'s way to be asked), each read with its planning visit when it is asked for.

    ``folders``: patient -> folders of the visits, the planning visit first (``adapt.visits.visits_in``).
    """

    folders: Mapping[str, Sequence[Path]]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.files)

    @property
    def files(self) -> dict[str, tuple[Path, Path]]:
        """Visit -> folders of the planning visit and of itself."""
        return {f"{patient}/{visit.name}": (planning, visit) for patient, (planning, *later) in self.folders.items() for visit in later}

    def __getitem__(self, id: str) -> Case:
        return visit_case(patient_of(id), *self.files[id])

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Watched:
    """A method whose fields are measured while its contours are judged.

    ``carried`` and ``direct`` are its two outputs as predictors; both come from one adaptation of each visit. ``rows`` grows by a row for
    each visit that has a field.
    """

    name: str
    method: Adapts
    rows: list[FieldRow] = field(default_factory=list)
    _last: tuple[str, Adapted] | None = None

    def __call__(self, case: Case) -> Adapted:
        """The visit adapted; asked again of the same visit, what was found then."""
        if self._last is None or self._last[0] != case.id:
            began = sum(os.times()[:4])
            found = self.method.adapt(case)
            seconds = sum(os.times()[:4]) - began
            self._last = case.id, found
            if found.deformation is not None:
                self.rows.append(field_row(self.name, case, found.deformation, seconds))
        return self._last[1]

    def predictors(self, *, registers: bool, segments: bool) -> dict[str, Predictor]:
        """Its outputs by name: the method's for what it carries (or for its only output), with ", direct" for what it segments."""
        first: dict[str, Predictor] = {self.name: Output(self, "carried")} if registers else {}
        direct = self.name + DIRECT if registers else self.name
        return first | ({direct: Output(self, "direct")} if segments else {})


@dataclass(frozen=True)
class Output:
    """One output of a method, as a predictor of contours; ``choose`` may change each mask (visit's id, structure, mask)."""

    watched: Watched
    which: str
    choose: Callable[[str, str, Volume], Volume] | None = None

    def predict(self, case: Case) -> Case:
        found = self.watched(case)
        masks = found.carried if self.which == "carried" else found.direct
        if self.choose is not None:
            masks = {name: self.choose(case.id, name, mask) for name, mask in masks.items()}
        return case.with_masks(masks)


# ---- fields


def field_row(method: str, case: Case, found: Deformation, seconds: float = float("nan")) -> FieldRow:
    """What is to be told of a field that was found of ``case``; its true one is ``case.facts["deformation"]`` where it was simulated."""
    patient, _, visit = case.id.rpartition("/")
    truth = case.facts.get("deformation")
    mean = p95 = float("nan")
    if isinstance(truth, Deformation):
        error = field_error_mm(found, truth, shown(case.ct, truth.geometry))
        mean, p95 = float(error.mean()), float(np.percentile(error, 95))
    inside = Volume(shown(case.ct, found.geometry), found.geometry)
    return FieldRow(patient, visit, method, mean, p95, found.folding_percent(inside), seconds)


def field_error_mm(found: Deformation, truth: Deformation, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) |u - u'| in mm at the voxels ``inside`` on the true field's grid."""
    points = truth.geometry.points(np.argwhere(inside))
    return np.asarray(np.linalg.norm(found.at(points) - truth.at(points), axis=1))


# ---- the patient is the unit


def by_patient(evaluation: Evaluation) -> Evaluation:
    """The same with one row for a patient: the mean over the visits where there was something to judge.

    A structure that was missed in one visit makes the patient's distance inf; it counts as missed (volume 0) where it was in every visit.
    """
    held: dict[tuple[str, str, str, str], list[float]] = {}
    for row in evaluation.rows:
        held.setdefault((patient_of(row.patient), row.method, row.structure, row.metric), []).append(row.value)
    rows = tuple(Row(*key, mean_of(values)) for key, values in held.items())
    judged = {(row.patient, row.method) for row in rows}
    have = {(row.patient, row.method, row.structure) for row in rows}
    absent = {
        (m, s): n
        for m in evaluation.methods
        for s in evaluation.structures
        if (m, s) in {(row.method, row.structure) for row in rows}
        if (n := sum(method == m and (patient, m, s) not in have for patient, method in judged))
    }
    return replace(evaluation, rows=rows, patients=len({patient_of(row.patient) for row in evaluation.rows}), absent=absent, panels=())


def fields_by_patient(rows: Sequence[FieldRow], method: str, what: str = "error_mm") -> dict[str, float]:
    """Patient -> mean over visits of a figure of the fields of ``method``; those without any are left out."""
    held: dict[str, list[float]] = {}
    for row in rows:
        if row.method == method:
            held.setdefault(row.patient, []).append(float(getattr(row, what)))
    return {patient: value for patient, values in held.items() if not np.isnan(value := mean_of(values))}


def patient_of(visit: str) -> str:
    """The patient in a visit's id."""
    return visit.rpartition("/")[0] or visit


def mean_of(values: Sequence[float]) -> float:
    """The mean of the values that are numbers, inf among them; NaN where there is none."""
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")
