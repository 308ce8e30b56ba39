"""From a trained quality task and a case with contours to ``scores["assess"]``: what each slice is worth, and what was not scored and why.

    gates       is this an image the model was made for? (``refusal``: a sentence, or None)
    measure     one structure's slices through the net
    predict     all structures, with bound, findings and error maps

A slice past a structure's ends is not scored but looked at: where the net sees the structure go on, the slice is listed as missed, with DSC
0, which it would have. How far a structure goes on beyond ``settings.beyond`` slices, nothing here can see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.opinion import Opinion
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ModelError
from oncontour.learn.engine import Backend, Engine
from oncontour.learn.task import Progress, load_task
from oncontour.ops.body import in_words, region, region_of
from oncontour.ops.intensity import AIR_HU
from oncontour.quality.candidates import Chance, Packed, Rows, Scan, chance_of, chance_on, rows_of
from oncontour.quality.rules import findings_or_why
from oncontour.quality.task import CUTS, NUMBERS, asked, pictures

if TYPE_CHECKING:
    from pathlib import Path

    from oncontour.contour.predict import Contourer
    from oncontour.learn.card import Card
    from oncontour.quality.task import AssessTask

Floats = NDArray[np.float32]
BATCH = 32
MISSED_FROM = 0.6
"""Chance of being there from which a slice without contour counts as missed."""
SEEN_FROM = 0.9
"""Part of a slice's contour that must lie in the window for the slice to be scored."""
OWN = "{} drew these contours itself: its own opinion is no second one."
SMALL = "It is smaller than what the model sees, pixels of {} x {} mm."
STRANGE = "The model never saw {} in training."
UNSURE = "The quality model has to know how sure the drawing model was, and that did not come with this structure."
CLASSES = ("bad", "medium", "good")
FEW_SLICES = 3


@dataclass(frozen=True, eq=False)
class Measured:
    """One structure's slices as the net sees them, arrays of equal length, one row a slice of ``rows``.

    ``dsc``, ``low`` (the quantile below it, not yet the bound), ``reached`` (n, 2) chance of at least medium and good, ``outline_mm``,
    ``present``: NaN without the head. ``wrong``: (n, rows, columns) chance that a pixel is wrongly in or out, from pixel ``first``.
    ``whole``: the contour lies in the window. ``far``: the gate's distance of the middling slice; ``limit``: what it may be.
    """

    rows: Rows
    dsc: Floats
    low: Floats
    reached: Floats
    outline_mm: Floats
    present: Floats
    wrong: Floats
    first: NDArray[np.int32]
    whole: NDArray[np.bool_]
    features: Floats
    far: float
    limit: float

    @property
    def known(self) -> bool:
        """Whether the gate lets it pass."""
        return not self.limit or self.far <= self.limit


@dataclass
class Assessor:
    """A quality task made ready to predict: engine compiled once. ``use_gate`` False scores whatever it is shown."""

    task: AssessTask
    backend: Backend = "auto"
    threads: int | None = None
    use_gate: bool = True
    _calibration: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def card(self) -> Card:
        return self.task.card()

    @cached_property
    def engine(self) -> Engine:
        """The net and its numbers in one row, compiled once."""
        from oncontour.nets.quality import Packed as Row

        s = self.task.settings
        shape = (BATCH, s.channels, *s.window)
        return Engine.load(Row(self.task.net), shape, backend=self.backend, threads=self.threads)  # type: ignore[arg-type]

    @property
    def calibration(self) -> Mapping[str, Any]:
        """What the card knows of the bound and the gate; empty where nothing was calibrated."""
        found: Mapping[str, Any] = self.card.made.get("calibration", {}) if self._calibration is None else self._calibration
        return found

    @property
    def asker(self) -> Contourer | None:
        """The contour model whose second opinion is asked; None where the model takes none."""
        opinion = self.task.settings.opinion
        return asked(opinion, self.backend, self.threads) if opinion else None

    def bound(self, low: Floats, name: str) -> Floats:
        """The lower bounds that hold, NaN where none was calibrated."""
        offsets = self.calibration.get("offsets", {})
        off = offsets.get(name, offsets.get("all"))
        return np.full(len(low), np.nan, np.float32) if off is None else np.clip(low - np.float32(off), 0, 1)

    # ---- the whole case

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with ``scores["assess"]``: for every structure its slices with DSC, bound, class and findings, or why it is not scored.

        Nothing is raised for what cannot be scored: it is said. Rule findings are there for every structure, scored or not.
        """
        refused, region_seen = refusal(case, self.card)
        names = list(case.structures)
        measured: dict[str, Measured] = {}
        work: Work | None = None
        why = {} if refused else dict(self._unfit(case, names))
        if not refused and len(why) < len(names):
            work = self.work(case)
        told = None if work is None or work.opinion is None else self._whose(work.opinion, case, [n for n in names if n not in why])
        if told and told["drew"]:
            refused = OWN.format(told["model"])
        if work is not None and not refused:
            for n, name in enumerate(names):
                if name not in why:
                    seen = self.measure(work, name)
                    unseen = blind(seen, work)
                    if unseen:
                        why[name] = unseen
                    else:
                        measured[name] = seen
                if progress is not None:
                    progress((n + 1) / len(names))
            refused = self._strange(measured) if self.use_gate else None
        found = findings_or_why(case, names)
        structures: dict[str, Any] = {}
        maps: dict[str, Volume] = {}
        for name in names:
            reason = refused or why.get(name) or (self._why_far(measured[name]) if self.use_gate else None)
            lines, drawn = _Lines(case.geometry, found.get(name, [])), np.flatnonzero(case.mask(name).array.any(axis=(1, 2))).tolist()
            if reason is None:
                low = measured[name].low
                lower = np.full_like(low, np.nan) if told and "calibrated_with" in told else self.bound(low, name)
                lines.add(measured[name], lower, drawn)
                if work is not None and "errors" in self.task.settings.heads:
                    maps[name] = error_map(measured[name], work, case.geometry)
            else:
                lines.add_bare(drawn)
            structures[name] = {"scored": reason is None, "why": reason, **lines.as_dict()}
        record = {
            "model": self.card.name,
            "sha256": self.card.sha256,
            "opinion": told,
            "refused": refused,
            "region": region_seen,
            "coverage": float(self.calibration.get("coverage", self.task.settings.coverage)),
            "calibration": dict(self.calibration),
            "structures": structures,
            "error_maps": maps,
        }
        return case.with_scores({"assess": record})

    def _whose(self, opinion: Opinion, case: Case, names: Sequence[str]) -> dict[str, Any]:
        """Who was asked; ``drew``: whether that model drew these very contours, as ``scores["drawers"]`` tells or else as they look;
        ``calibrated_with``: the hash of another version, where the bound was made with that one (there is then no bound)."""
        used, drawers = self.card.made.get("opinion", {}).get("sha256", opinion.sha256), case.scores.get("drawers")
        drew = opinion.of_one_hand({name: case.mask(name) for name in names}) if drawers is None else opinion.sha256 in drawers
        told = {"model": opinion.model, "sha256": opinion.sha256, "drew": drew}
        return told | ({"calibrated_with": used} if used != opinion.sha256 else {})

    def untaught(self, name: str) -> bool:
        """Whether nothing taught the model this structure of its own, so that it does not score it."""
        gate = self.task.gate
        return bool(gate.limit.any()) and not gate.knows(self.task.settings.structures.index(name))

    def unsure(self, case: Case) -> list[str]:
        """Structures that would be scored if it were known how sure their drawer was."""
        known = case.scores.get("chances", {})
        return [name for name, why in self._unfit(case, [n for n in case.structures if n not in known]).items() if why == UNSURE]

    def _unfit(self, case: Case, names: Sequence[str]) -> Mapping[str, str]:
        """Why a structure cannot be scored, whatever the net would say."""
        out: dict[str, str] = {}
        known = self.task.settings.structures
        for name in names:
            if name not in known:
                out[name] = f"The model was not made for {name}."
            elif self.untaught(name):
                out[name] = STRANGE.format(name)
            elif not _drawn(case, name):
                out[name] = "It has no contour."
            elif _outside(case, name):
                out[name] = "Its contours lie outside the image."
            elif self.task.settings.own and name not in case.scores.get("chances", {}):
                out[name] = UNSURE
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
        """The case made ready to be measured; where the model takes a second opinion, it is asked for."""
        asker = self.asker
        return Work.of(self.task, case, None if asker is None else asker.opinion(case.without_structures()))

    def measure(self, work: Work, name: str) -> Measured:
        """Structure ``name`` of the case, slice by slice. Raises InputError where the case has none of this name."""
        s, number = self.task.settings, self.task.settings.structures.index(name)
        mask = work.mask(name)
        rows = rows_of(mask, work.scan.spacing_mm[0], s.beyond)
        packed, chances = Packed.of(mask), self._chances(work, name)
        first = np.floor(rows.centre - (np.asarray(s.window) - 1) / 2 + 0.5).astype(np.int32)
        out, whole = [], np.ones(len(rows.k), bool)
        for begin in range(0, len(rows.k), BATCH):
            images = []
            for n in range(begin, min(begin + BATCH, len(rows.k))):
                slices = [int(rows.k[n]) + m * work.scan.step for m in range(-s.neighbours, s.neighbours + 1)]
                corner = (int(first[n, 0]), int(first[n, 1]))
                seen = packed.window(slices, corner, s.window)
                said = [chance.window(slices, corner, s.window) for chance in chances]
                hu = work.scan.window(slices, corner, s.window).astype(np.float32)
                images.append(pictures(hu, seen, number, rows.facts(n), s, said))
                area = int(mask[rows.k[n]].sum())
                whole[n] = area == 0 or int(seen[s.neighbours].sum()) >= SEEN_FROM * area
            out.append(self.engine(np.stack(images)))
        width = int(self.task.net.width)  # type: ignore[arg-type]
        answers = np.concatenate(out) if out else np.zeros((0, width + sum(NUMBERS[h] for h in s.numbers)), np.float32)
        return self._read(answers, rows, first, whole, number)

    def _chances(self, work: Work, name: str) -> list[Chance]:
        """What the net sees beside the mask: the second opinion, the drawer's own chances, as the model takes them; none: empty ones."""
        s = self.task.settings
        found = [chance_of(work.opinion, name, work.grid)] if s.opinion else []
        found += [chance_on(work.case.scores.get("chances", {}).get(name), work.grid)] if s.own else []
        return [chance or Chance.none() for chance in found]

    def _read(self, answers: Floats, rows: Rows, first: NDArray[np.int32], whole: NDArray[np.bool_], number: int) -> Measured:
        s, gate = self.task.settings, self.task.gate
        width, count = int(self.task.net.width), sum(NUMBERS[h] for h in s.numbers)  # type: ignore[arg-type]
        features, numbers, maps = np.split(answers, [width, width + count], axis=1)
        blank = np.full(len(answers), np.nan, np.float32)
        at = s.numbers
        guess = numbers[:, at["dsc"]]
        reached = sigmoid(numbers[:, at["class"]]) if "class" in at else np.stack([blank, blank], axis=1)
        typical = rows.claimed & whole
        limit = float(gate.limit[number])
        far = float(np.median(gate.distance(features[typical], number))) if limit and typical.any() else 0.0
        return Measured(
            rows=rows,
            dsc=sigmoid(guess[:, 0]),
            low=sigmoid(guess[:, 0] - np.logaddexp(0, guess[:, 1])),
            reached=reached,
            outline_mm=np.expm1(np.clip(numbers[:, at["surface"]][:, 0], 0, 6)) if "surface" in at else blank,
            present=sigmoid(numbers[:, at["present"]][:, 0]) if "present" in at else blank,
            wrong=sigmoid(maps).reshape(-1, *s.window) if "errors" in s.heads else np.zeros((len(answers), 0, 0), np.float32),
            first=first,
            whole=whole,
            features=features,
            far=far,
            limit=limit,
        )


@dataclass(frozen=True, eq=False)
class Work:
    """A case on the grid the net sees: its CT, and its masks when asked for; ``opinion``: a contour model's, where the net takes one."""

    case: Case
    grid: Geometry
    scan: Scan
    opinion: Opinion | None = None

    @classmethod
    def of(cls, task: AssessTask, case: Case, opinion: Opinion | None = None) -> Work:
        grid = task.working_grid(case.geometry)
        ct = np.clip(case.ct.to(grid, fill=AIR_HU).array, -32768, 32767).astype(np.int16)
        return cls(case, grid, Scan(ct, grid.spacing_mm, task.step(grid)), opinion)

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


# ---- gates


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
    if seen.rows.claimed.any():
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


# ---- what is told


@dataclass
class _Lines:
    """One structure's slices and findings, in the words of ``scores["assess"]``."""

    grid: Geometry
    rules: Sequence[Any]
    slices: list[dict[str, Any]] = field(default_factory=list)
    more: list[dict[str, Any]] = field(default_factory=list)

    def add(self, measured: Measured, lower: Floats, drawn: Sequence[int]) -> None:
        """A line for every slice with a contour (``drawn``, of the case's grid), every gap, and every slice past the ends where the
        structure seems to go on. A contour so small that the net's pixels do not hold it is not scored there, and that is said."""
        rows = measured.rows
        inside = (rows.below_mm >= 0) & (rows.above_mm >= 0)
        missed = past_the_ends(measured)
        step = 1 if float(self.grid.reorient().axes[0] @ self.grid.axes[0]) > 0 else -1
        for n in range(len(rows.k)):
            k = int(rows.k[n]) if step > 0 else self.grid.shape[0] - 1 - int(rows.k[n])
            if rows.claimed[n] and measured.whole[n]:
                self.slices.append(self._line(k, measured, n, float(lower[n])))
            elif rows.claimed[n]:
                self.slices.append(self._bare(k, None, None))
            elif k in drawn:
                continue
            elif inside[n]:
                self.slices.append(self._bare(k, 0.0, "bad", float(measured.present[n])))
            elif missed[n]:
                self.slices.append(self._bare(k, 0.0, "bad", float(measured.present[n])))
                self.more.append({"code": "missed", "k": k})
        told = {line["k"] for line in self.slices}
        small = [k for k in drawn if k not in told]
        self.slices += [self._bare(k, None, None) for k in small]
        if not measured.whole.all():
            wide = [line["k"] for line in self.slices if line["dsc"] is None and line["k"] not in small]
            self.rules = [*self.rules, _plain("wide", "Part of the contour lies too far out to be seen at once; not scored there.", wide)]
        if small:
            self.rules = [*self.rules, _plain("small", "The contour is smaller there than what the model sees; not scored there.", small)]
        ends = [one["k"] for one in self.more]
        if ends:
            text = f"The structure seems to go on past its last contour ({len(ends)} slice{'s' * (len(ends) > 1)} looked at)."
            self.rules = [*self.rules, _plain("missed", text, ends)]

    def add_bare(self, slices: Sequence[int]) -> None:
        """Lines without numbers for the slices of a structure that is not scored, and for those that its findings name."""
        named = [k for rule in self.rules for k in (rule["slices"] if isinstance(rule, dict) else rule.slices)]
        self.slices += [self._bare(k, None, None) for k in sorted({*slices, *named})]

    def _line(self, k: int, measured: Measured, n: int, lower: float) -> dict[str, Any]:
        dsc, outline = float(measured.dsc[n]), float(measured.outline_mm[n])
        lower = float(np.minimum(lower, dsc))  # a careful net's bound may have been raised, but never above what is told beside it
        return {
            "k": k,
            "z_mm": self.grid.slice_z_mm(k),
            "dsc": round(dsc, 4),
            "lower": None if np.isnan(lower) else round(lower, 4),
            "class": quality(dsc, measured.reached[n]),
            "surface_mm": None if np.isnan(outline) else round(outline, 2),
        }

    def _bare(self, k: int, dsc: float | None, kind: str | None, present: float = float("nan")) -> dict[str, Any]:
        """A slice without a contour, or one that is not scored; ``present``: the probability that the structure is there."""
        there = {} if np.isnan(present) else {"present": round(present, 4)}
        return {"k": k, "z_mm": self.grid.slice_z_mm(k), "dsc": dsc, "lower": dsc, "class": kind, "surface_mm": None, **there}

    def as_dict(self) -> dict[str, Any]:
        """The slices in order of k with the codes of their findings, and the findings."""
        told = [rule if isinstance(rule, dict) else rule.as_dict() for rule in self.rules]
        ordered = sorted(self.slices, key=lambda one: int(one["k"]))
        lines = [{**line, "findings": [one["code"] for one in told if line["k"] in one["slices"]]} for line in ordered]
        return {"slices": lines, "findings": told}


def _plain(code: str, text: str, slices: Sequence[int]) -> dict[str, Any]:
    return {"code": code, "text": text, "slices": sorted(slices)}


def quality(dsc: float, reached: Floats) -> str:
    """ "good", "medium" or "bad", from the class head where there is one, else from the DSC."""
    if np.isnan(reached).any():
        return CLASSES[int(dsc >= CUTS[0]) + int(dsc >= CUTS[1])]
    medium = bool(reached[0] >= 0.5)
    return CLASSES[int(medium) + int(medium and bool(reached[1] >= 0.5))]


def past_the_ends(measured: Measured) -> NDArray[np.bool_]:
    """Rows past the ends where the structure seems to be, without a break from the end outwards."""
    rows, out = measured.rows, np.zeros(len(measured.rows.k), bool)
    if np.isnan(measured.present).any():
        return out
    there = measured.present >= MISSED_FROM
    for order, at in ((np.argsort(rows.below_mm)[::-1], rows.below_mm), (np.argsort(rows.above_mm)[::-1], rows.above_mm)):
        for n in order[at[order] < 0]:
            if not there[n]:
                break
            out[n] = True
    return out


def error_map(measured: Measured, work: Work, grid: Geometry) -> Volume:
    """The chance times 255 that a voxel is wrongly in or out, on a crop of the case's ``grid``."""
    rows, size = measured.rows, measured.wrong.shape[1:]
    low = np.array([rows.k[0], *measured.first.min(axis=0)])
    high = np.array([rows.k[-1] + 1, *(measured.first.max(axis=0) + np.asarray(size))])
    chance = np.zeros(tuple(high - low), np.float32)
    for n, k in enumerate(rows.k):
        j, i = measured.first[n] - low[1:]
        chance[k - low[0], j : j + size[0], i : i + size[1]] = measured.wrong[n]
    where = Volume(chance, work.grid.crop([int(n) for n in low], [int(n) for n in high]))
    return where.to(grid.around(where.geometry.corners_mm)).map(lambda a: np.rint(np.clip(a, 0, 1) * 255).astype(np.uint8))


def sigmoid(x: NDArray[Any]) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), dtype=np.float32)


def load_assessor(model: str | Path, *, backend: Backend = "auto", threads: int | None = None) -> Assessor:
    """The quality model in a file (a path or a shipped name), ready to predict.

    Raises ModelError for other kinds, and where the contour model whose opinion it takes is not there.
    """
    from oncontour.learn.card import find
    from oncontour.quality.task import AssessTask

    task = load_task(find(model, "assess"))
    if not isinstance(task, AssessTask):
        raise ModelError(f"this model does {task.name!r}, not contour quality", where=str(model))
    assessor = Assessor(task, backend, threads)
    _ = assessor.asker  # who cannot be asked is told now, not after the contouring
    return assessor
