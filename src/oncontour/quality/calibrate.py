"""A quality model's bound and out-of-distribution detector, made from patients whose truth is known: after training, and in a clinic anew.

observe                what the model says of each slice of some masks, beside the truth
offsets                how far the predicted quantile must be lowered for the bound to hold (``metrics.conformal``)
calibrate_on_candidates    both, at the end of training, from the patients held back
recalibrated           both, from observed patients of a clinic
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from oncontour.core.assessment import Calibration
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import InputError, TrainingError
from oncontour.learn.card import Card
from oncontour.metrics.conformal import Method, covered, offset
from oncontour.metrics.overlap import overlap
from oncontour.metrics.slices import slice_scores
from oncontour.metrics.stats import Interval
from oncontour.quality.candidates import SEGMENTER, CandidateContour
from oncontour.quality.inputs import asked, calibration_words, told_of
from oncontour.quality.out_of_distribution import Detector
from oncontour.quality.predict import Assessor, Work, blind, refusal
from oncontour.quality.slice_scores import Measured
from oncontour.quality.task import AssessTask, Table, dsc_and_low

MOST_SLICES = 1200
"""Slices a structure that the detector learns from."""
A_PATIENT = 400
"""Slices a patient that the bound is made from."""
DETECTOR_PATIENTS = 20
"""Patients of a clinic from which its detector is learned anew; with fewer, the limits alone are moved."""
_SOME = 64


@dataclass(frozen=True)
class Scored:
    """One slice of one mask: what was predicted and, where ``true`` is not NaN, the truth. ``contoured``: the mask has a voxel there;
    ``inside``: it lies between the mask's ends; ``area_mm2`` of the mask; ``place`` 0 at its lower end, 1 at its upper."""

    patient: str
    source: str
    structure: str
    k: int
    true: float
    dsc: float
    low: float
    lower: float
    outline_mm: float
    true_outline_mm: float
    present: float
    contoured: bool
    inside: bool
    area_mm2: float
    place: float
    passed: bool


@dataclass
class Observed:
    """Slices, the detector's view of each structure, and what was left out: ``both_empty`` slices (neither mask has a voxel) and ``unseen``
    (the truth has one, the mask has not, and the slice lies too far past its ends to be looked at; its DSC is 0, whoever judges)."""

    slices: list[Scored] = field(default_factory=list)
    features: dict[tuple[str, str, str], NDArray[np.float32]] = field(default_factory=dict)
    """(patient, source, structure) -> features of its slices"""
    far: dict[tuple[str, str, str], float] = field(default_factory=dict)
    both_empty: int = 0
    unseen: int = 0
    missed: int = 0
    """structures that the truth has and the mask has not at all"""
    too_small: int = 0
    """masks of which the net sees nothing, and which are not scored"""
    own_work: list[tuple[str, str]] = field(default_factory=list)
    """(patient, source) drawn by the reference model itself, left out as ``predict`` refuses it"""

    def scored(self) -> list[Scored]:
        """Slices with a contour and a truth: what the numbers are about."""
        return [s for s in self.slices if s.contoured and not np.isnan(s.true)]


def check_scored(assessor: Assessor, case: Case) -> None:
    """Raise InputError for a case that the model would refuse whole (another part of the body, no CT): nothing is to be learned from it."""
    refused, _ = refusal(case, assessor.card)
    if refused:
        raise InputError(refused, where=case.id, hint="such patients are not scored, so nothing is learned from them")


def observe(
    assessor: Assessor,
    case: Case,
    candidates: Mapping[str, Mapping[str, Volume]],
    into: Observed,
    probabilities: Mapping[str, Mapping[str, Volume]] | None = None,
    *,
    as_predict: bool = False,
) -> None:
    """Add to ``into`` what the model says of the ``candidates`` (source -> structure -> mask) of a case that holds the truth.

    ``probabilities`` (source -> structure -> probability times 255) of the segmenters; a model that needs them leaves out masks without.
    With ``as_predict`` what ``Assessor.predict`` does not score is left out: structures that nothing taught the model, and what the model
    drew that is its reference. A case that the model would refuse whole is looked at all the same: see ``check_scored``.
    """
    known = [name for name in assessor.task.settings.structures if not (as_predict and assessor.untaught(name))]
    names = [name for name in known if name in case.structures]
    work = assessor.work(case.without_structures())
    truths = {name: case.mask(name) for name in names}
    for source, masks in candidates.items():
        if as_predict and work.reference is not None and work.reference.of_one_hand(masks):
            into.own_work.append((case.id, source))
            continue
        thought = (probabilities or {}).get(source, {})
        for name in (n for n in names if n in masks and truths[n].array.any() and (n in thought or not assessor.task.settings.own)):
            mask = masks[name].binary().to(case.geometry)
            if not mask.array.any():
                into.missed += 1
                into.unseen += int(truths[name].array.any(axis=(1, 2)).sum())
                continue
            shown = replace(work, case=replace(work.case.with_masks({name: mask}), probabilities=thought))
            seen = assessor.measure(shown, name)
            if blind(seen, shown):
                into.too_small += 1
            else:
                _one(assessor, shown, seen, source, name, truths[name], mask, into)


def _one(assessor: Assessor, work: Work, seen: Measured, source: str, name: str, truth: Volume, mask: Volume, into: Observed) -> None:
    case = work.case
    shared = overlap(truth, mask)
    each = shared.slice_dsc
    _, apart = slice_scores(truth.array, mask.array, case.geometry.spacing_mm[1:])
    rows = seen.rows
    flipped = float(case.geometry.reorient().axes[0] @ case.geometry.axes[0]) < 0
    count, pixel = case.geometry.shape[0], case.geometry.spacing_mm[1] * case.geometry.spacing_mm[2]
    lower, length = assessor.bound(seen.low, name), float(rows.below_mm.max() + rows.above_mm.max())
    looked = set()
    for n, k in enumerate(rows.k):
        at = count - 1 - int(k) if flipped else int(k)
        looked.add(at)
        into.slices.append(
            Scored(
                patient=case.id,
                source=source,
                structure=name,
                k=at,
                true=float(each[at]),
                dsc=float(seen.dsc[n]),
                low=float(seen.low[n]),
                lower=float(lower[n]),
                outline_mm=float(seen.outline_mm[n]),
                true_outline_mm=float(apart[at]),
                present=float(seen.present[n]),
                contoured=bool(rows.contoured[n]),
                inside=bool(rows.below_mm[n] >= 0 and rows.above_mm[n] >= 0),
                area_mm2=float(shared.predicted[at]) * pixel,
                place=float(rows.below_mm[n]) / length if length > 0 else 0.5,
                passed=seen.known,
            )
        )
    has = np.asarray(shared.truth > 0)
    into.unseen += sum(1 for k in np.flatnonzero(has) if int(k) not in looked)
    into.both_empty += int(np.isnan(each).sum())
    key = (case.id, source, name)
    into.features[key], into.far[key] = seen.features[rows.contoured & seen.whole], seen.far


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
) -> Calibration:
    """The offset of the bound for "all", and for each structure where ``by`` is "structure"; none where there are too few patients."""
    scores = np.asarray(low, np.float64) - np.asarray(true, np.float64)
    found = {"all": offset(scores, patients, coverage, method)}
    if by == "structure":
        for name in dict.fromkeys(structures):
            mine = np.array([s == name for s in structures])
            found[name] = offset(scores[mine], [p for p, m in zip(patients, mine, strict=True) if m], coverage, method)
    # Rounded up: rounded down, the slice that the bound just holds for would fall below it.
    kept = {name: float(np.ceil(q * 1e5 - 1e-6) / 1e5) for name, q in found.items() if np.isfinite(q)}
    return Calibration(kept, coverage, method, len(set(patients)), len(scores))


def after_training(task: AssessTask, train: Sequence[CandidateContour], held_back: Sequence[CandidateContour]) -> dict[str, object]:
    """What the card keeps under ``made``: the calibration, from the patients held back, and which model was asked; the detector of ``task``
    is set. ``finish`` of ``learn.fit.fit``."""
    calibration, asks = calibrate_on_candidates(task, train, held_back), task.settings.opinion
    made: dict[str, object] = {} if calibration is None else {"calibration": calibration_words(calibration)}
    return made | ({"opinion": told_of(asked(asks, "auto", None).card)} if asks else {})


def calibrate_on_candidates(
    task: AssessTask, train: Sequence[CandidateContour], held_back: Sequence[CandidateContour]
) -> Calibration | None:
    """The calibration from the patients held back, None without any; the detector of ``task`` is set all the same.

    The bound is made from real segmenters' masks where there are any; the detector learns from all masks.
    """
    held = [c for c in held_back if c.family == SEGMENTER] or list(held_back)
    rng = np.random.default_rng(task.settings.seed)
    for number in range(len(task.settings.structures)):
        mine = [c for c in train if c.structure == number]
        if not mine:
            continue
        features, _ = _answers(task, mine, _picked(Table.of(mine), rng, MOST_SLICES))
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
    by_patient: dict[str, list[CandidateContour]] = {}
    for candidate in held:
        by_patient.setdefault(candidate.case_id, []).append(candidate)
    low: list[float] = []
    true: list[float] = []
    patients: list[str] = []
    structures: list[str] = []
    for patient, candidates in by_patient.items():
        table = Table.of(candidates)
        chosen = _picked(table, rng, A_PATIENT)
        _, below = _answers(task, candidates, chosen)
        low += below.tolist()
        true += table.dsc[chosen].tolist()
        patients += [patient] * len(chosen)
        structures += [task.settings.structures[int(n)] for n in table.structure[chosen]]
    made = offsets(low, true, patients, structures, coverage=task.settings.coverage, method="hierarchical", by="all")
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
    features, _ = _answers(task, [candidate], rows)
    return float(np.median(task.detector.distance(features, number)))


def _answers(
    task: AssessTask, candidates: Sequence[CandidateContour], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(features (n, d), predicted quantile (n,)) of these rows of ``Table.of(candidates)``, unaugmented."""
    table, was = Table.of(candidates), task.training
    features, low = [], []
    device = next(task.net.parameters()).device
    task.eval()
    with torch.inference_mode():
        for begin in range(0, len(rows), _SOME):
            drawn = [task._draw(candidates, table, int(row), None) for row in rows[begin : begin + _SOME]]
            images = torch.stack([task.item(candidates, draw)["image"] for draw in drawn]).to(device)
            found = task.net.answers(images.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
            features.append(found.features.float().cpu().numpy())
            low.append(dsc_and_low(found.numbers[:, task.settings.numbers["dsc"]])[1][:, 0].float().cpu().numpy())
    task.train(was)
    if not features:
        return np.zeros((0, task.width), np.float32), np.zeros(0, np.float32)
    return np.concatenate(features), np.concatenate(low)


# ---- a clinic's own patients


@dataclass(frozen=True)
class Recalibrated:
    """A quality model's ``card`` with its new ``calibration``; ``before``: for which part of these slices the bound held as it was, None
    where there was none."""

    card: Card
    calibration: Calibration
    before: Interval | None


def recalibrated(
    assessor: Assessor, observed: Observed, *, coverage: float, method: Method = "hierarchical", by: str = "all", data: str = ""
) -> Recalibrated:
    """The model's card with a calibration from these patients; the detector of the assessor's task is changed in place.

    Figures of the card about the old bound are left out of the new one. Raises TrainingError where there are too few patients for the
    promise, of all or, with ``by`` "structure", of one.
    """
    slices = observed.scored()
    patients = [s.patient for s in slices]
    made = offsets(
        [s.low for s in slices],
        [s.true for s in slices],
        patients,
        [s.structure for s in slices],
        coverage=coverage,
        method=method,
        by=by,
    )
    if "all" not in made.offsets:
        need = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        raise TrainingError(
            f"{made.patients} patients are too few for a bound that holds for {coverage:.0%} of slices: at least {need} are needed",
            hint="add patients, or ask for a lower --coverage",
        )
    few = [name for name in dict.fromkeys(s.structure for s in slices) if by == "structure" and name not in made.offsets]
    if few:
        counts = ", ".join(f"{name} {len({s.patient for s in slices if s.structure == name})}" for name in few)
        raise TrainingError(
            f"too few patients for a bound of its own that holds for {coverage:.0%} of slices, of {counts}",
            hint="add patients, ask for a lower --coverage, or --by all: one offset for all structures",
        )
    made = replace(made, data=data, detector=_detector_anew(assessor.task.detector, assessor.task.settings.structures, observed))
    before = [s.lower for s in slices]
    held = covered([s.true for s in slices], before, patients) if not np.isnan(before).all() else None
    card, asker = assessor.card, assessor.asker
    anew = {"calibration": calibration_words(made)} | ({} if asker is None else {"opinion": told_of(asker.card)})
    return Recalibrated(replace(card, made={**card.made, **anew}, metrics=_without_bound(card.metrics)), made, held)


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
