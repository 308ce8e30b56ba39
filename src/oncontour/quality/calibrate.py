"""A quality model's bound and out-of-distribution detector, made from patients whose truth is known: after training, and in a clinic anew.

offsets                how far the predicted quantile must be lowered for the bound to hold (``metrics.conformal``)
calibrate_on_candidates    both, at the end of training, from the patients held back
recalibrated           both, from observed patients of a clinic
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oncontour.core.assessment import Calibration
from oncontour.errors import TrainingError
from oncontour.learn.card import Card
from oncontour.metrics.conformal import Method, covered, offset
from oncontour.metrics.stats import Interval
from oncontour.quality.candidates import SEGMENTER, CandidateContour
from oncontour.quality.inputs import AREA_CM2, GIVEN, calibration_words, load_reference, reference_sha256, told_of
from oncontour.quality.observe import Observed, Scored
from oncontour.quality.out_of_distribution import Detector
from oncontour.quality.predict import Assessor
from oncontour.quality.task import AssessTask, Table, area_and_high, dsc_and_low, outline_high

MOST_SLICES = 1200
"""Slices a structure that the detector learns from."""
A_PATIENT = 400
"""Slices a patient that the bound is made from."""
DETECTOR_PATIENTS = 20
"""Patients of a clinic from which its detector is learned anew; with fewer, the limits alone are moved."""
_SOME = 64


# ---- the bound


def offsets(
    low: Sequence[float],
    true: Sequence[float],
    patients: Sequence[str],
    structures: Sequence[str],
    *,
    coverage: float,
    method: Method,
    by: str,
    area: Sequence[float] = (),
    outline: Sequence[float] = (),
) -> Calibration:
    """The offset of the bound for "all", and for each structure where ``by`` is "structure"; none where there are too few patients.

    ``area`` and ``outline``: how far the true wrong area and outline error lie above their quantiles (log scales, NaN where not known).
    """
    scores = np.asarray(low, np.float64) - np.asarray(true, np.float64)
    found = {"all": _offset(scores, patients, coverage, method)}
    if by == "structure":
        for name in dict.fromkeys(structures):
            mine = np.array([s == name for s in structures])
            found[name] = _offset(scores[mine], [p for p, m in zip(patients, mine, strict=True) if m], coverage, method)
    kept = {name: q for name, q in found.items() if q is not None}
    upper = [_offset(short, patients, coverage, method) if len(short) else None for short in (area, outline)]
    return Calibration(kept, coverage, method, len(set(patients)), len(scores), area=upper[0], outline=upper[1])


def _offset(scores: Sequence[float] | NDArray[np.float64], patients: Sequence[str], coverage: float, method: Method) -> float | None:
    """``metrics.conformal.offset`` of the known ``scores``, rounded up: rounded down, the slice that the bound just holds for would fall
    below it. None where there are too few patients."""
    known = ~np.isnan(scores)
    q = offset(np.asarray(scores)[known], [p for p, there in zip(patients, known, strict=True) if there], coverage, method)
    return float(np.ceil(q * 1e5 - 1e-6) / 1e5) if np.isfinite(q) else None


def after_training(task: AssessTask, train: Sequence[CandidateContour], held_back: Sequence[CandidateContour]) -> dict[str, object]:
    """What the card keeps under ``made``: the calibration, from the patients held back, and which the reference model was; the detector of
    ``task`` is set. ``finish`` of ``learn.fit.fit``."""
    calibration, asks = calibrate_on_candidates(task, train, held_back), task.settings.opinion
    made: dict[str, object] = {} if calibration is None else {"calibration": calibration_words(calibration)}
    return made | ({"opinion": told_of(load_reference(asks, "auto", None).card)} if asks else {})


def calibrate_on_candidates(
    task: AssessTask, train: Sequence[CandidateContour], held_back: Sequence[CandidateContour]
) -> Calibration | None:
    """The calibration from the patients held back, None without any; the detector of ``task`` is set all the same.

    The bound is made from real segmenters' masks where there are any; the detector learns from all masks.
    """
    held = [c for c in held_back if c.family == SEGMENTER] or list(held_back)
    sets = _sets(task)
    rng = np.random.default_rng(task.settings.seed)
    for number in range(len(task.settings.structures)):
        mine = [c for c in train if c.structure == number]
        if not mine:
            continue
        features = _answers(task, mine, _picked(Table.of(mine), rng, MOST_SLICES), sets).features
        if len(features) < 2:
            continue
        task.detector.learn(features, number)
        seen = [c for c in held if c.structure == number] or mine[:50]
        typical = [_typical(task, candidate, number) for candidate in seen[:: max(1, len(seen) // 150)]]
        known = np.array([t for t in typical if not np.isnan(t)])
        if len(known):
            task.detector.set_limit(known, number)
    if not held:
        return None
    if not task.settings.channel_dropout:
        return _bound(task, held, (True, True))
    bounds = {name: made for name, given in GIVEN.items() if (made := _bound(task, held, given)) is not None}
    return Calibration(coverage=task.settings.coverage, method="hierarchical", inputs=bounds)


def _sets(task: AssessTask) -> list[tuple[bool, bool]]:
    """Which probability maps the detector meets: every set of them where they are optional."""
    return list(GIVEN.values()) if task.settings.channel_dropout else [(True, True)]


def _bound(task: AssessTask, held: Sequence[CandidateContour], given: tuple[bool, bool]) -> Calibration | None:
    """The bounds of a net that is given these maps, from masks that come with them; None where none does."""
    optional = task.settings.channel_dropout > 0
    by_patient: dict[str, list[CandidateContour]] = {}
    for candidate in held:
        if not optional or ((candidate.reference is not None or not given[0]) and (candidate.own is not None or not given[1])):
            by_patient.setdefault(candidate.case_id, []).append(candidate)
    rng = np.random.default_rng(task.settings.seed)
    low, true, area, outline = list[float](), list[float](), list[float](), list[float]()
    patients, structures = list[str](), list[str]()
    for patient, candidates in by_patient.items():
        table = Table.of(candidates)
        chosen = _picked(table, rng, A_PATIENT)
        said = _answers(task, candidates, chosen, [given])
        low += said.low.tolist()
        true += table.dsc[chosen].tolist()
        area += said.area_short.tolist()
        outline += said.outline_short.tolist()
        patients += [patient] * len(chosen)
        structures += [task.settings.structures[int(n)] for n in table.structure[chosen]]
    if not low:
        return None
    made = offsets(
        low,
        true,
        patients,
        structures,
        coverage=task.settings.coverage,
        method="hierarchical",
        by="all",
        area=area if "area" in task.settings.numbers else (),
        outline=outline if "surface_high" in task.settings.numbers else (),
    )
    return replace(made, data="patients held back from training")


def _picked(table: Table, rng: np.random.Generator, most: int) -> NDArray[np.intp]:
    """At most so many rows that have a DSC."""
    rows = np.flatnonzero(~np.isnan(table.dsc))
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _typical(task: AssessTask, candidate: CandidateContour, number: int) -> float:
    """The detector's distance of a candidate's median slice (of at most a dozen); NaN where it has none."""
    rows = _picked(Table.of([candidate]), np.random.default_rng(0), 12)
    if not len(rows):
        return float("nan")
    features = _answers(task, [candidate], rows, _sets(task)).features
    return float(np.median(task.detector.distance(features, number)))


@dataclass(frozen=True, eq=False)
class _Answers:
    """Of n slices: ``features`` (n, d), the predicted quantile ``low`` of the DSC, and how far the true wrong area and outline error lie
    above theirs (log scales; NaN without the head, or where there is no outline)."""

    features: NDArray[np.float32]
    low: NDArray[np.float32]
    area_short: NDArray[np.float32]
    outline_short: NDArray[np.float32]


def _answers(
    task: AssessTask, candidates: Sequence[CandidateContour], rows: NDArray[np.intp], given: Sequence[tuple[bool, bool]]
) -> _Answers:
    """What the net says of these rows of ``Table.of(candidates)``, unaugmented; they are given the maps that ``given`` names in turn."""
    table, was = Table.of(candidates), task.training
    parts = [_Answers(np.zeros((0, task.width), np.float32), *(np.zeros(0, np.float32) for _ in range(3)))]
    device = next(task.net.parameters()).device
    task.eval()
    with torch.inference_mode():
        for begin in range(0, len(rows), _SOME):
            drawn = [task._draw(candidates, table, int(row), None) for row in rows[begin : begin + _SOME]]
            items = [task.item(candidates, draw, given[(begin + n) % len(given)]) for n, draw in enumerate(drawn)]
            batch = {name: torch.stack([item[name] for item in items]).to(device) for name in items[0]}
            found = task.net.answers(batch["image"].contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
            parts.append(_part(task, found.features.float(), found.numbers.float(), batch))
    task.train(was)
    return _Answers(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(_Answers)))


def _part(task: AssessTask, features: Tensor, numbers: Tensor, batch: Mapping[str, Tensor]) -> _Answers:
    at, short = task.settings.numbers, torch.full((2, len(numbers), 1), float("nan"))
    if "area" in at:
        short[0] = torch.log1p(batch["area"] / AREA_CM2) - area_and_high(numbers[:, at["area"]])[1]
    if "surface_high" in at:
        high = outline_high(numbers[:, at["surface"]], numbers[:, at["surface_high"]])
        short[1] = torch.where(batch["measured"] > 0, torch.log1p(batch["outline"]) - high, torch.nan)
    low = dsc_and_low(numbers[:, at["dsc"]])[1]
    return _Answers(*(one.cpu().numpy() for one in (features, low[:, 0], short[0, :, 0], short[1, :, 0])))


# ---- a clinic's own patients


@dataclass(frozen=True)
class Recalibrated:
    """A quality model's ``card`` with its new ``calibration``; ``bounds``: those made now, by set of inputs; ``kept``: sets whose bound
    stays as it was; ``few``: sets with too few patients for a new one, and how many; ``before``: for which part of these slices the bound
    held as it was, None where there was none."""

    card: Card
    calibration: Calibration
    bounds: Mapping[str, Calibration]
    kept: Mapping[str, Calibration]
    few: Mapping[str, int]
    before: Interval | None


def recalibrated(
    assessor: Assessor, observed: Observed, *, coverage: float, method: Method = "hierarchical", by: str = "all", data: str = ""
) -> Recalibrated:
    """The model's card with a calibration from these patients; the detector of the assessor's task is changed in place.

    A set of inputs that these patients say too little of keeps its bound, if that is for ``coverage`` too and the reference model is the
    one it was made with; else it has none. Figures of the card about the old bound are left out of the new one. Raises TrainingError where
    there are too few patients for the promise, in every set of inputs or, with ``by`` "structure", of a structure.
    """
    slices = observed.scored()
    sets = {name: [s for s in slices if s.inputs == name] for name in dict.fromkeys(s.inputs for s in slices)}
    made = {name: _from_slices(mine, coverage, method, by, data) for name, mine in sets.items()}
    found = {name: one for name, one in made.items() if "all" in one.offsets}
    few = {name: one.patients or 0 for name, one in made.items() if name not in found}
    if not found:
        need = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        raise TrainingError(
            f"{max(few.values(), default=0)} patients are too few for a bound that holds for {coverage:.0%} of slices: "
            f"at least {need} are needed",
            hint="add patients, or ask for a lower --coverage",
        )
    kept = {name: one for name, one in _still_good(assessor, coverage).items() if name not in found}
    whole = found.get("") or Calibration(
        coverage=coverage,
        method=method,
        patients=len({s.patient for s in slices}),
        slices=len(slices),
        data=data,
        inputs={name: one for name in GIVEN if (one := found.get(name) or kept.get(name)) is not None},
    )
    whole = replace(whole, detector=_detector_anew(assessor.task.detector, assessor.task.settings.structures, observed))
    card, reference_model = assessor.card, assessor.reference_model
    anew = {"calibration": calibration_words(whole)} | ({} if reference_model is None else {"opinion": told_of(reference_model.card)})
    card = replace(card, made={**card.made, **anew}, metrics=_without_bound(card.metrics))
    return Recalibrated(card, whole, found, kept, few, _held_before(slices))


def _still_good(assessor: Assessor, coverage: float) -> Mapping[str, Calibration]:
    """The model's bounds, by set of inputs, that hold for ``coverage``, and that were made with its reference model as it is now, where
    that belongs to the set."""
    before = assessor.calibration
    if before is None or before.inputs is None:
        return {}
    used = reference_sha256(assessor.card.made)
    changed = assessor.reference_model is not None and used not in (None, assessor.reference_model.card.sha256)
    return {name: one for name, one in before.inputs.items() if one.coverage == coverage and not (changed and GIVEN[name][0])}


def _held_before(slices: Sequence[Scored]) -> Interval | None:
    """For which part of the slices that had a bound it held; None where none had."""
    had = [s for s in slices if not np.isnan(s.lower)]
    return covered([s.true for s in had], [s.lower for s in had], [s.patient for s in had]) if had else None


def _from_slices(slices: Sequence[Scored], coverage: float, method: Method, by: str, data: str) -> Calibration:
    """The bounds from a clinic's slices, all of one set of inputs; without offsets where there are too few patients. Raises TrainingError
    where there are too few of a structure that is to have a bound of its own."""
    made = offsets(
        [s.low for s in slices],
        [s.true for s in slices],
        [s.patient for s in slices],
        [s.structure for s in slices],
        coverage=coverage,
        method=method,
        by=by,
        area=[np.log1p(s.true_wrong_cm2 / AREA_CM2) - s.area_high for s in slices],
        outline=[np.log1p(s.true_outline_mm) - s.outline_high for s in slices],
    )
    few = [name for name in dict.fromkeys(s.structure for s in slices) if by == "structure" and name not in made.offsets]
    if few and "all" in made.offsets:
        counts = ", ".join(f"{name} {len({s.patient for s in slices if s.structure == name})}" for name in few)
        raise TrainingError(
            f"too few patients for a bound of its own that holds for {coverage:.0%} of slices, of {counts}",
            hint="add patients, ask for a lower --coverage, or --by all: one offset for all structures",
        )
    return replace(made, data=data)


def _without_bound(metrics: Mapping[str, object]) -> dict[str, object]:
    """A card's figures without what was measured of the bound, which is another one now."""
    kept = {key: value for key, value in metrics.items() if key != "covered_by_the_bound"}
    return {key: _without_bound(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _detector_anew(detector: Detector, structures: Sequence[str], observed: Observed) -> dict[str, str]:
    """Learn the detector of every structure that was seen; what was done, by structure.

    With enough patients centre and spread are learned anew from one half and the limit from the other, so that no patient sets the limit
    of its own cloud; with fewer the limit alone is raised to let these patients pass.
    """
    done, strange = {}, bool(detector.limit.any())
    for number, name in enumerate(structures):
        if strange and not detector.knows(number):  # a net that never learned what it is does not come to know it by a detector
            continue
        mine = {key: f for key, f in observed.features.items() if key[2] == name and len(f)}
        patients = sorted({key[0] for key in mine})
        if not patients:
            continue
        if len(patients) >= DETECTOR_PATIENTS:
            half = set(patients[::2])
            detector.learn(np.concatenate([f for key, f in mine.items() if key[0] in half]), number)
            others = [f for key, f in mine.items() if key[0] not in half]
            detector.set_limit(np.array([float(np.median(detector.distance(f, number))) for f in others]), number)
            done[name] = f"learned anew from {len(patients)} patients"
        elif detector.knows(number):
            before = float(detector.limit[number])
            detector.set_limit(np.array([float(np.median(detector.distance(f, number))) for f in mine.values()]), number)
            detector.limit[number] = max(before, float(detector.limit[number]))
            done[name] = f"limit {before:.2f} to {float(detector.limit[number]):.2f} from {len(patients)} patients"
    return done
