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

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import NoteCode, because
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, OncontourError
from oncontour.evaluate.found import Evaluation, Failure, Judged, Row, Swap, gathered
from oncontour.evaluate.panels import Panel, panels
from oncontour.io.names import to_tg263
from oncontour.many import processors
from oncontour.metrics.overlap import Overlap, overlap
from oncontour.metrics.surface import surfaces
from oncontour.progress import Progress, tell
from oncontour.sides import other_side


class Predictor(Protocol):
    """Anything that adds contours to a case: a task, a folder of predictions, a person's second reading."""

    def predict(self, case: Case, /) -> Case:
        """The case with masks on its grid or contours added."""


class Patients(Protocol):
    """Patients by id, each read when it is asked for (``io.cohort.Cohort`` is one)."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def __getitem__(self, id: str, /) -> Case: ...


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
    progress: Progress | None = None,
) -> Evaluation:
    """Let every method contour every patient (the truth hidden from it) and compare.

    ``structures``: only these, by a patient's own names or others of the same meaning (default: all that the truth has and the method
    predicts); ``look`` keeps panels for figures; ``threads`` for the measuring, 0 for one a core. Raises ConfigError without methods,
    CohortError when no patient could be judged, or where the truth and the methods have no structure in common.
    """
    if not methods:
        raise ConfigError("nothing to judge", hint="give a model or a folder of predictions")
    found = []
    for n, patient in enumerate(patients.ids):
        one = judge_one(patients, patient, methods, structures=structures, tolerance_mm=tolerance_mm, threads=threads, look=look)
        found.append(one)
        tell(progress, (n + 1) / len(patients.ids))
    return gathered(found, tuple(methods), structures, tolerance_mm)


def judge_one(
    patients: Patients,
    patient: str,
    methods: Mapping[str, Predictor],
    *,
    structures: Sequence[str] = (),
    tolerance_mm: float = 2.0,
    threads: int = 0,
    look: bool = False,
) -> Judged:
    """What ``judge`` finds of one patient, to be ``gathered`` with that of the others.

    What is wrong with the patient, its failures and why, is in it and never raised.
    """
    found = _Looking(patient)
    try:
        case = patients[patient]
        found.remark(case)
        if not case.structures:
            raise CohortError("no contours to compare with" + because(case.facts.get("notes", ()), NoteCode.STRUCTURES_LEFT_OUT))
        names = found.names(case.structures, structures)
        truth = {name: case.mask(name) for name in names}
    except Exception as error:
        found.fail(methods, error)
        return found.judged()
    seen: dict[str, dict[str, tuple[Volume, Overlap]]] = {}
    for method, predictor in methods.items():
        try:
            predicted = predictor.predict(case.without_structures() if case.images else case)
            found.remark(predicted, method)
            masks = {name: _mask(predicted, name, case.geometry) for name in names}
            with ThreadPoolExecutor(threads or processors()) as pool:
                numbers = list(pool.map(lambda name, masks=masks: _measure(truth[name], masks[name], tolerance_mm), names))
        except Exception as error:
            found.fail([method], error)
            continue
        if predicted.segmentation is not None and predicted.segmentation.elsewhere:
            found.elsewhere[method] = predicted.segmentation.elsewhere
        found.drawn[method] = tuple(predicted.structures)
        for name, (values, shared) in zip(names, numbers, strict=True):
            found.rows += [Row(patient, method, name, metric, value) for metric, value in values.items()]
            seen.setdefault(name, {})[method] = masks[name], shared
        found.swaps += [Swap(patient, method, name) for name in swapped(truth, {**masks, **_other_sides(predicted, truth, case.geometry)})]
    if look:
        for name, by_method in seen.items():
            found.panels += panels(case, name, truth[name], by_method)
    return found.judged()


@dataclass
class _Looking:
    """What has been found of a patient so far."""

    patient: str
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    drawn: dict[str, tuple[str, ...]] = field(default_factory=dict)
    meant: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    why: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, methods: Iterable[str], error: Exception) -> None:
        self.failures += [Failure(self.patient, method, _reason(error)) for method in methods]
        told, way = _reason(error), ""
        if isinstance(error, OncontourError):
            told, way = error.what + (f" [{error.where}]" if error.where else ""), error.hint
        self.why.append((told, way))

    def remark(self, case: Case, of: str = "") -> None:
        """Keep what was remarked on reading ``case``, but for what is known of the patient already; ``of``: whose contours it has."""
        known = tuple(self.remarks)
        self.remarks += [f"{of}: {note}" if of else str(note) for note in case.facts.get("notes", ()) if note not in known]

    def names(self, there: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """Which structures are judged: those that were asked for by the very name, else by one that means the same."""
        if not wanted:
            return list(there)
        self.meant = tuple(dict.fromkeys(name if name in there else to_tg263(name) or name for name in dict.fromkeys(wanted)))
        return [name for name in there if name in self.meant]

    def judged(self) -> Judged:
        return Judged(
            self.patient,
            tuple(self.rows),
            tuple(self.failures),
            tuple(self.swaps),
            tuple(self.panels),
            self.drawn,
            self.meant,
            tuple(self.remarks),
            self.elsewhere,
            tuple(self.why),
        )


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
