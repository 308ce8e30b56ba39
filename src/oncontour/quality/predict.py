"""From a trained quality task and a case with contours to its ``Assessment``: how right each slice is, and what was not scored and why.

    refusal     is this an image the model was made for? (a sentence, or None)
    measure     one structure's slices through the net
    predict     all structures, with bound, findings and error maps

How far a structure goes on beyond ``settings.beyond`` slices past its ends, nothing here can see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from oncontour.contour.probabilities import ReferenceProbabilities
from oncontour.core.assessment import Assessment, Calibration, Reference, StructureScore
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ModelError
from oncontour.learn.card import find
from oncontour.learn.engine import Backend, Engine
from oncontour.learn.exported import exported
from oncontour.ops.body import in_words, region, region_of
from oncontour.ops.intensity import AIR_HU
from oncontour.progress import Progress
from oncontour.quality.candidates import Packed, ProbabilityMap, Rows, Scan, map_on, reference_map, rows_of
from oncontour.quality.inputs import (
    AREA_CM2,
    GIVEN,
    NUMBERS,
    AssessSettings,
    calibration_of,
    facts_of,
    load_reference,
    pictures,
    reference_sha256,
)
from oncontour.quality.rules import findings_or_why, unchecked
from oncontour.quality.slice_scores import Bounds, Floats, Measured, not_scored, scored
from oncontour.quality.trained import ExportedScoring, Scoring

if TYPE_CHECKING:
    from pathlib import Path

    from oncontour.contour.predict import Contourer
    from oncontour.learn.card import Card
    from oncontour.quality.task import AssessTask

BATCH = 32
SEEN_FROM = 0.9
"""Part of a slice's contour that must lie in the window for the slice to be scored."""
OWN = "{} drew these contours itself, so it cannot be their reference."
SMALL = "It is smaller than what the model sees, pixels of {} x {} mm."
STRANGE = "The quality model {} never saw {} in training."
NOT_MADE_FOR = "The quality model {} was not made for {}."
NO_MAP = "The quality model needs the probability map of the model that drew it, and none came with this structure."
FEW_SLICES = 3


@dataclass
class Assessor:
    """A quality task made ready to predict: engine compiled once. ``use_detector`` False scores whatever it is shown."""

    task: Scoring
    backend: Backend = "auto"
    threads: int | None = None
    use_detector: bool = True
    _calibration: Calibration | None = field(default=None, repr=False)

    @property
    def card(self) -> Card:
        return self.task.card()

    @cached_property
    def engine(self) -> Engine:
        """The net and its numbers in one row, compiled once."""
        s = self.task.settings
        return self.task.engine((BATCH, s.channels, *s.window), backend=self.backend, threads=self.threads)

    @property
    def _width(self) -> int:
        """Features of a slice, which come before its numbers."""
        return int(self.task.detector.centre.shape[1])

    @property
    def _answered(self) -> int:
        """All that the net answers of a slice, in one row: features, numbers, and the error map where it draws one."""
        s = self.task.settings
        return self._width + sum(NUMBERS[h] for h in s.numbers) + math.prod(s.window) * ("errors" in s.heads)

    @property
    def calibration(self) -> Calibration | None:
        """What the card knows of the bound and the detector; None where nothing was calibrated."""
        return calibration_of(self.card.made) if self._calibration is None else self._calibration

    @property
    def reference_model(self) -> Contourer | None:
        """The reference model: a contour model whose probability maps the net sees as well; None where it takes none."""
        opinion = self.task.settings.opinion
        return load_reference(opinion, self.backend, self.threads) if opinion else None

    def bounds(self, measured: Measured, name: str) -> Bounds:
        """The bounds that hold for a structure's slices, NaN where none was calibrated for what the net was given."""
        made = self.calibration or Calibration()
        made = (made.inputs or {}).get(measured.inputs, Calibration()) if measured.inputs else made
        off = made.offsets.get(name, made.offsets.get("all"))
        blank = np.full(len(measured.dsc), np.nan, np.float32)
        return Bounds(
            blank if off is None else np.clip(measured.low - np.float32(off), 0, 1),
            blank if made.area is None else cm2(measured.area_high + np.float32(made.area)),
            blank if made.outline is None else _mm(measured.outline_high + np.float32(made.outline)),
        )

    # ---- the whole case

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with its ``assessment``: for every structure its slices with DSC, bound, class and findings, or why it is not scored.

        Nothing is raised for what cannot be scored: it is said. Rule findings are there for every structure, scored or not.
        """
        refused, region_seen = refusal(case, self.card)
        names = list(case.structures)
        why = {} if refused else dict(self._unfit(case, names))
        fit = [] if refused else [name for name in names if name not in why]
        work = self.work(case) if fit else None
        reference = None if work is None or work.reference is None else self._reference(work.reference, case, fit)
        if work is not None and reference is not None and reference.drew:
            if self.task.settings.channel_dropout:
                work, reference = replace(work, reference=None), None
            else:
                refused = OWN.format(reference.model)
        measured: dict[str, Measured] = {}
        if work is not None and not refused:
            for n, name in enumerate(names):
                if name in fit:
                    measured[name] = self.measure(work, name)
                if progress is not None:
                    progress((n + 1) / len(names))
            why |= {name: told for name, one in measured.items() if (told := blind(one, work))}
            measured = {name: one for name, one in measured.items() if name not in why}
            refused = self._strange(measured) if self.use_detector else None
        bounded = reference is None or reference.calibrated_with is None
        found = findings_or_why(case, names)
        structures: dict[str, StructureScore] = {}
        for name in names:
            reason = refused or why.get(name) or (self._why_far(measured[name]) if self.use_detector else None)
            if reason is None:
                one = measured[name]
                held = self.bounds(one, name) if bounded or not GIVEN.get(one.inputs, (True,))[0] else _unbounded(len(one.dsc))
                structures[name] = scored(case, name, one, held, found[name])
            else:
                structures[name] = not_scored(case, name, reason, found[name])
        wrong = [name for name in names if structures[name].scored and "errors" in self.task.settings.heads]
        calibration = self.calibration
        assessment = Assessment(
            structures,
            self.card.name,
            self.card.sha256,
            refused,
            region_seen,
            self.task.settings.coverage if calibration is None or calibration.coverage is None else calibration.coverage,
            calibration,
            reference,
            {} if work is None else {name: error_map(measured[name], work, case.geometry) for name in wrong},
            tuple(unchecked(case, names)),
        )
        return replace(case, assessment=assessment)

    def _reference(self, probabilities: ReferenceProbabilities, case: Case, names: Sequence[str]) -> Reference:
        """The reference model; ``drew`` as ``case.segmented_by`` tells or else as the contours look."""
        mine = probabilities.sha256
        drew = probabilities.drew({name: case.mask(name) for name in names}, case.segmented_by)
        used = reference_sha256(self.card.made) or mine
        return Reference(probabilities.model, mine, drew, used if used != mine else None)

    def untaught(self, name: str) -> bool:
        """Whether nothing taught the model this structure of its own, so that it does not score it."""
        detector = self.task.detector
        return bool(detector.limit.any()) and not detector.knows(self.task.settings.structures.index(name))

    def _unfit(self, case: Case, names: Sequence[str]) -> Mapping[str, str]:
        """Why a structure cannot be scored, whatever the net would say."""
        out: dict[str, str] = {}
        known = self.task.settings.structures
        for name in names:
            if name not in known:
                out[name] = NOT_MADE_FOR.format(self.card.name, name)
            elif self.untaught(name):
                out[name] = STRANGE.format(self.card.name, name)
            elif not _drawn(case, name):
                out[name] = "It has no contour."
            elif _outside(case, name):
                out[name] = "Its contours lie outside the image."
            elif self.task.settings.needs_own and name not in case.probabilities:
                out[name] = NO_MAP
        return out

    def _why_far(self, measured: Measured) -> str | None:
        if measured.known:
            return None
        return f"It looks like nothing the model was trained on (distance {measured.far:.2f}, at most {measured.limit:.2f})."

    def _strange(self, measured: Mapping[str, Measured]) -> str | None:
        """Why the whole case is refused: most structures look like nothing in training."""
        far = [name for name, one in measured.items() if not one.known]
        if not far or 2 * len(far) <= len(measured):
            return None
        return (
            f"{len(far)} of {len(measured)} structures look like nothing the model was trained on ({', '.join(far)}): no slice is scored."
        )

    # ---- one structure

    def work(self, case: Case) -> Work:
        """The case made ready to be measured; where the net sees reference probabilities, they are made here. Where they are optional and
        the reference model is known to have drawn, they are not."""
        reference_model = self.reference_model
        if reference_model is not None and self.task.settings.channel_dropout and reference_model.card.sha256 in (case.segmented_by or ()):
            reference_model = None
        return Work.of(self.task, case, None if reference_model is None else reference_model.reference(case.without_structures()))

    def measure(self, work: Work, name: str) -> Measured:
        """Structure ``name`` of the case, slice by slice. Raises InputError where the case has none of this name."""
        s, number = self.task.settings, self.task.settings.structures.index(name)
        mask = work.mask(name)
        rows = rows_of(mask, work.scan.spacing_mm[0], s.beyond)
        packed, maps = Packed.of(mask), self._maps(work, name)
        seen_maps = [one or ProbabilityMap.none() for one, seen in zip(maps, (s.opinion, s.own), strict=True) if seen]
        given = maps[0] is not None, maps[1] is not None
        first = np.floor(rows.centre - (np.asarray(s.window) - 1) / 2 + 0.5).astype(np.int32)
        out, whole = [], np.ones(len(rows.k), bool)
        for begin in range(0, len(rows.k), BATCH):
            images = []
            for n in range(begin, min(begin + BATCH, len(rows.k))):
                slices = [int(rows.k[n]) + m * work.scan.step for m in range(-s.neighbours, s.neighbours + 1)]
                corner = (int(first[n, 0]), int(first[n, 1]))
                seen = packed.window(slices, corner, s.window)
                said = [one.window(slices, corner, s.window) for one in seen_maps]
                hu = work.scan.window(slices, corner, s.window).astype(np.float32)
                facts = facts_of(s, rows.facts(n), work.scan.spacing_mm, given)
                images.append(pictures(hu, seen, number, facts, s, said))
                area = int(mask[rows.k[n]].sum())
                whole[n] = area == 0 or int(seen[s.neighbours].sum()) >= SEEN_FROM * area
            out.append(self.engine(np.stack(images)))
        answers = np.concatenate(out) if out else np.zeros((0, self._answered), np.float32)
        inputs = next(what for what, these in GIVEN.items() if these == given) if s.channel_dropout else ""
        return replace(self._read(answers, rows, first, whole, number), inputs=inputs)

    def _maps(self, work: Work, name: str) -> tuple[ProbabilityMap | None, ProbabilityMap | None]:
        """Probability maps that there are and that the model takes: the reference model's, the segmenter's own."""
        s = self.task.settings
        reference = reference_map(work.reference, name, work.grid) if s.opinion else None
        return reference, map_on(work.case.probabilities.get(name), work.grid) if s.own else None

    def _read(self, answers: Floats, rows: Rows, first: NDArray[np.int32], whole: NDArray[np.bool_], number: int) -> Measured:
        s, detector = self.task.settings, self.task.detector
        count = sum(NUMBERS[h] for h in s.numbers)
        if answers.shape[1] != self._answered:
            raise ModelError(f"the net gives {answers.shape[1]} numbers a slice, not {self._answered}", where=self.card.name)
        features, numbers, maps = np.split(answers, [self._width, self._width + count], axis=1)
        blank = np.full(len(answers), np.nan, np.float32)
        at = s.numbers
        guess = numbers[:, at["dsc"]]
        reached = expit(numbers[:, at["class"]]) if "class" in at else np.stack([blank, blank], axis=1)
        typical = rows.contoured & whole
        limit = float(detector.limit[number])
        far = float(np.median(detector.distance(features[typical], number))) if limit and typical.any() else 0.0
        return Measured(
            rows=rows,
            dsc=expit(guess[:, 0]),
            low=expit(guess[:, 0] - np.logaddexp(0, guess[:, 1])),
            reached=reached,
            outline_mm=_mm(numbers[:, at["surface"]][:, 0]) if "surface" in at else blank,
            present=expit(numbers[:, at["present"]][:, 0]) if "present" in at else blank,
            wrong=expit(maps).reshape(-1, *s.window) if "errors" in s.heads else np.zeros((len(answers), 0, 0), np.float32),
            first=first,
            whole=whole,
            features=features,
            far=far,
            limit=limit,
            area_cm2=cm2(numbers[:, at["area"]][:, 0]) if "area" in at else blank,
            area_high=_high(numbers, at, "area", blank),
            outline_high=_high(numbers, at, "surface_high", blank),
        )


def _high(numbers: Floats, at: Mapping[str, slice], head: str, blank: Floats) -> Floats:
    """The quantile above the wrong area ("area") or the outline error ("surface_high"), on its log scale; ``blank`` without the head."""
    if head not in at:
        return blank
    guess = numbers[:, at["surface" if head == "surface_high" else head]][:, 0]
    return np.asarray(guess + np.logaddexp(0, numbers[:, at[head]][:, -1]), np.float32)


def cm2(log: Floats) -> Floats:
    """The wrong area that a number of the head ``area`` stands for."""
    return np.asarray(AREA_CM2 * np.expm1(np.clip(log, 0, 8)), np.float32)


def _mm(log: Floats) -> Floats:
    return np.asarray(np.expm1(np.clip(log, 0, 6)), np.float32)


def _unbounded(count: int) -> Bounds:
    blank = np.full(count, np.nan, np.float32)
    return Bounds(blank, blank, blank)


@dataclass(frozen=True, eq=False)
class Work:
    """A case on the grid the net sees: its CT, its masks when asked for, and reference probabilities where the net sees them."""

    case: Case
    grid: Geometry
    scan: Scan
    reference: ReferenceProbabilities | None = None

    @classmethod
    def of(cls, task: Scoring, case: Case, reference: ReferenceProbabilities | None = None) -> Work:
        grid = task.settings.working_grid(case.geometry)
        ct = np.clip(case.ct.to(grid, fill=AIR_HU).array, -32768, 32767).astype(np.int16)
        return cls(case, grid, Scan(ct, grid.spacing_mm, task.settings.step(grid)), reference)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Structure ``name`` on the working grid; only the box around it is moved."""
        if name not in self.case.masks:
            return np.asarray(self.case.mask(name, self.grid).array)
        held = self.case.masks[name]
        whole = held.array if held.array.dtype == bool else held.binary().array
        box = Packed.of(whole)
        if not box.size[0]:
            return np.zeros(self.grid.shape, bool)
        margin = [int(np.ceil(2 * max(self.grid.spacing_mm) / s)) for s in held.geometry.spacing_mm]
        low = [max(0, a - m) for a, m in zip(box.start, margin, strict=True)]
        high = [min(n, a + b + m) for a, b, m, n in zip(box.start, box.size, margin, whole.shape, strict=True)]
        piece = whole[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        return np.asarray(Volume(piece, held.geometry.crop(low, high)).to(self.grid).array)


# ---- what cannot be scored


def refusal(case: Case, card: Card) -> tuple[str | None, str]:
    """(why the case cannot be scored at all, or None; the region of the body it shows)."""
    if "ct" not in case.images:
        return f"There is no CT, only {', '.join(case.images) or 'contours'}: the model reads nothing else.", ""
    grid = case.ct.geometry
    if abs(float(grid.axes[0, 2])) < 0.9:
        return "The slices of the CT do not lie across the body: the model was made for axial ones.", ""
    if grid.shape[0] < FEW_SLICES:
        return f"The CT has {grid.shape[0]} slice{'s' * (grid.shape[0] > 1)}: at least {FEW_SLICES} are needed.", ""
    if not np.isfinite(case.ct.array).all():
        return "The CT holds values that are no numbers.", ""
    low, high = float(case.ct.array.min()), float(case.ct.array.max())
    if low > -400 or high < 100:
        return f"The values of the image ({low:.0f} to {high:.0f}) are no HU of a patient in air: is this a CT?", ""
    seen = region(case.ct)
    if seen.excludes(region_of(card.region)):
        shown = f"{in_words(seen.name)} ({'; '.join(seen.reasons)})"
        return f"The CT shows another part of the body, {shown}; the model is for {card.region}.", seen.name
    return None, seen.name


def blind(seen: Measured, work: Work) -> str:
    """Why the net sees nothing of a structure that it could score; "" where it does."""
    if seen.rows.contoured.any():
        return ""
    return SMALL.format(*(f"{mm:.3g}" for mm in work.grid.spacing_mm[1:]))


def _drawn(case: Case, name: str) -> bool:
    if name in case.masks:
        return bool(case.masks[name].array.any())
    return bool(len(case.contours[name]))


def _outside(case: Case, name: str) -> bool:
    """Whether no point of the contours lies in the image. (A mask lies on the CT's grid, always inside.)"""
    if name in case.masks:
        return False
    points = np.concatenate([np.asarray(p) for p in case.contours[name].polygons])
    at = case.geometry.voxels(points)
    return not bool(((at >= -0.5) & (at <= np.asarray(case.geometry.shape) - 0.5)).all(axis=1).any())


def error_map(measured: Measured, work: Work, grid: Geometry) -> Volume:
    """The probability times 255 that a voxel is wrongly in or out, on a crop of the case's ``grid``."""
    rows, size = measured.rows, measured.wrong.shape[1:]
    low = np.array([rows.k[0], *measured.first.min(axis=0)])
    high = np.array([rows.k[-1] + 1, *(measured.first.max(axis=0) + np.asarray(size))])
    wrong = np.zeros(tuple(high - low), np.float32)
    for n, k in enumerate(rows.k):
        j, i = measured.first[n] - low[1:]
        wrong[k - low[0], j : j + size[0], i : i + size[1]] = measured.wrong[n]
    where = Volume(wrong, work.grid.crop([int(n) for n in low], [int(n) for n in high]))
    return where.to(grid.around(where.geometry.corners_mm)).map(lambda a: np.rint(np.clip(a, 0, 1) * 255).astype(np.uint8))


def load_assessor(model: str | Path, *, backend: Backend = "auto", threads: int | None = None, task: AssessTask | None = None) -> Assessor:
    """The quality model in a file (a path or a shipped name), ready to predict; ``task``: the same with its net in torch, to be changed.

    Raises ModelError for other kinds, and where its reference model is not there.
    """
    path = find(model, "assess")
    ready = exported(path, "assess", AssessSettings, backend, "contour quality") if task is None else None
    held = (task or load_assess_task(path)) if ready is None else ExportedScoring(**vars(ready))
    assessor = Assessor(held, backend, threads)
    _ = assessor.reference_model  # one that is not there is told now, not after the contouring
    return assessor


def load_assess_task(model: str | Path) -> AssessTask:
    """The quality model in a file with its net in torch, to be changed (``quality/calibrate.py``). Raises ModelError for other kinds."""
    from oncontour.learn.task import load_task
    from oncontour.quality.task import AssessTask

    task = load_task(find(model, "assess"))
    if not isinstance(task, AssessTask):
        raise ModelError(f"this model does {task.name!r}, not contour quality", where=str(model))
    return task
