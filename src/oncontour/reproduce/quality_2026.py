"""Wei et al., Chin J Med Phys 2026;43(5):675-681: the DSC of a contour, slice by slice, from CT and contour; one task against several.

Five steps, each resumed where it stopped:

    segmenters   several recipes on two halves of the training patients, half-trained ones kept
    claims       each draws the patients it did not learn from: the masks that quality is learned from
    arms         the quality nets: several tasks, one, a CNN, one input, without one head, without resampling
    observed     every arm on the patients kept apart, about a segmenter and a family of errors that none has seen
    tables       all arms beside the simple predictors (``quality_tables``)

What is faithful and what differs is in ``papers/quality-2026/README.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.commands.predict import Segmenter, confidences, draw, load
from oncontour.commands.train import read_cases, telling
from oncontour.contour import thresholds
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.files import csv_text, write_text
from oncontour.io.cohort import Cohort
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.metrics.overlap import overlap
from oncontour.ops.augment import Ranges
from oncontour.quality.calibrate import after_training
from oncontour.quality.candidates import SEGMENTER, CandidateContour
from oncontour.quality.inputs import AssessSettings
from oncontour.quality.observe import Observed, observe
from oncontour.quality.predict import Assessor, load_assessor
from oncontour.quality.segmenters import contours_about, probabilities_about, sources, with_candidates
from oncontour.quality.simulated_errors import FAMILIES, SimulatedError, Surroundings, spoil
from oncontour.quality.task import AssessTask
from oncontour.reproduce import quality_in_run, quality_order
from oncontour.reproduce.quality_simple import simple_csv, simple_file, simple_predictors, training_slices
from oncontour.reproduce.quality_tables import Row, tables
from oncontour.reproduce.steps import parts, stub
from oncontour.sides import other_side

STRUCTURES = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "PTV_7000")
HEADS = ("dsc", "class", "errors", "surface", "present")
HELD_OUT = "held-out"
WHOLE = (1, 128, 128)
"""Window for drawing with flat nets: a whole slice of OpenKBP."""


@dataclass(frozen=True)
class Recipe:
    """One kind of segmenter: net, length (part of the run's epochs), how ``few`` patients it learns from; ``early``: also half-trained."""

    name: str
    net: str
    options: Mapping[str, object] = field(default_factory=dict)
    length: float = 1.0
    early: bool = False
    few: int | None = None


RECIPES = (
    Recipe("unet", "unet", {"base": 12, "levels": 4}, early=True),
    Recipe("few", "unet", {"base": 12, "levels": 4}, length=0.4, few=8),
    Recipe("deeplab", "deeplab", length=0.8),
)


SHORT = "multi-task, short"


@dataclass(frozen=True)
class Arm:
    """One row of the table: what of the quality model is changed."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)


OPTIONAL: dict[str, Any] = {"own": True, "opinion": "hn-organs", "channel_dropout": 0.4, "generated": 0.25, "variants": 8}
OPTIONAL["heads"] = (*HEADS, "area", "surface_high")
ARMS = (
    Arm("multi-task"),
    Arm("single-task", {"heads": ("dsc",)}),
    Arm("second opinion", {"opinion": "hn-organs"}),
    Arm("own chances", {"own": True, "generated": 0.0}),
    Arm("own chances and second opinion", {"own": True, "opinion": "hn-organs", "generated": 0.0}),
    Arm("optional maps", OPTIONAL),
    Arm(SHORT),
    Arm("CNN", {"net": "quality_cnn"}),
    Arm("mask only", {"inputs": "mask"}),
    Arm("CT only", {"inputs": "ct"}),
    Arm("no resampling", {"flat": 0.0}),
    Arm("segmenters only", {"generated": 0.0}),
    Arm("generator only", {"generated": 1.0}),
    *(Arm(f"without {head}", {"heads": tuple(h for h in HEADS if h != head)}) for head in HEADS[1:]),
)

WHOLE_TIME = tuple(arm.name for arm in ARMS[:6])
"""Rows that are trained for all epochs. The others, what is left out or changed, for ``arm_epochs``, as is "multi-task, short", with which
they are compared."""


PAIRS = tuple((arm.name, ARMS[0].name if arm.name in WHOLE_TIME else SHORT) for arm in ARMS[1:] if arm.name != SHORT)
"""(row, the row that it is compared with, which was trained as long)"""


@dataclass(frozen=True)
class Plan:
    """The run's settings, as in ``run.yaml``."""

    structures: tuple[str, ...] = STRUCTURES
    target: str = "PTV_7000"
    held_out: tuple[str, ...] = ()
    """what is judged and nobody learned from: contour models, or recipes not among ``recipes``; without any, a DeepLabv3+ is trained"""
    held_out_family: str = "leak"
    recipes: tuple[str, ...] = ()
    """some of the segmenters; all by default"""
    segmenter_epochs: int = 16
    segmenter_draws: int = 800
    epochs: int = 40
    arm_epochs: int | None = None
    """instead of epochs for all arms but the first five; without it the short arm is none"""
    arms: tuple[str, ...] = ()
    quality: dict[str, Any] = field(default_factory=dict)
    """instead of the defaults of AssessSettings, for all arms"""
    window: tuple[int, int, int] = (1, 96, 112)
    validation: float = 0.3
    batch: int = 32
    learning_rate: float = 1.5e-3
    seed: int = 0
    threads: int | None = None
    patients: int | None = None
    earlier: tuple[str, ...] = ()
    """with ``in_a_run``: files of other quality models that the shipped one is compared with"""
    in_a_run: bool = False
    """instead of all that: how right the shipped quality models are about ``held_out`` in a run"""
    order: bool = False
    """instead of all that: in which order the slices that the first of ``held_out`` draws in a run are best reviewed"""


def reproduce(cohort: Path, out: Path, **settings: Any) -> str:
    """All five steps; writes OUT/measured.csv and OUT/table.md and gives the tables. With ``in_a_run`` OUT/in-run.csv alone, with ``order``
    OUT/order.csv, OUT/order.md and OUT/slices.csv.

    ``settings`` are the fields of ``Plan``; ``patients`` takes the first so many of each part (for a trial), ``arms`` some of the rows.
    Raises ConfigError for unknown settings or arms, CohortError when the cohort has no two parts.
    """
    plan = planned(settings)
    train, test = parts(cohort, plan.patients)
    if plan.in_a_run:
        organs, drawn_by = [s for s in plan.structures if s != plan.target], judged_models(plan, train, out / "segmenters")
        figures = quality_in_run.in_a_run(drawn_by, test, organs, plan.target, plan.earlier, threads=plan.threads)
        write_text(out / "in-run.csv", as_csv(figures))
        return quality_in_run.text(figures)
    if plan.order:
        seen = quality_order.drawn_slices(judged_models(plan, train, out / "segmenters")[0], test, threads=plan.threads)
        write_text(out / "slices.csv", as_csv(seen))
        lines = quality_order.lines(seen)
        write_text(out / "order.csv", as_csv(lines))
        write_text(out / "order.md", quality_order.text(lines))
        return quality_order.text(lines)
    models = segmenters(plan, train, out / "segmenters")
    claims(plan, train, test, models, out / "claims")
    trained = arms(plan, train, out)
    rows, left = measured(plan, test, trained, out)
    write_text(out / "measured.csv", as_csv(rows))
    calibrations = {name: assessor.calibration for name, assessor in trained.items()}
    text = tables(rows, target=plan.target, left=left, calibrations=calibrations, pairs=PAIRS)
    write_text(out / "table.md", text)
    return text


def planned(settings: Mapping[str, Any]) -> Plan:
    """The plan that ``settings`` spell. Raises ConfigError for what it does not know."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    try:
        plan = Plan(**known)
    except TypeError as error:
        raise ConfigError(f"settings of quality-2026: {error}", hint="papers/quality-2026/run.yaml shows them") from error
    names = [arm.name for arm in ARMS]
    if set(plan.arms) - set(names):
        raise ConfigError(f"unknown arms among {list(plan.arms)}", hint=f"choose from {names}")
    if set(plan.recipes) - {recipe.name for recipe in RECIPES}:
        raise ConfigError(f"unknown recipes among {list(plan.recipes)}", hint=f"choose from {[recipe.name for recipe in RECIPES]}")
    both = set(plan.held_out) & set(plan.recipes or [recipe.name for recipe in RECIPES])
    if both:
        raise ConfigError(f"{sorted(both)} cannot be held out and learned from", hint="name the others under recipes")
    if plan.held_out_family not in FAMILIES:
        raise ConfigError(f"no family of errors {plan.held_out_family!r}", hint=f"choose from {sorted(FAMILIES)}")
    return plan


# ---- segmenters and what they draw


def segmenters(plan: Plan, train: Cohort, out: Path) -> list[Path]:
    """Model files of every recipe on each half of the training patients; a file that is there is not made again."""
    halves = train.split([0.5, 0.5], plan.seed)
    files = []
    for recipe in (r for r in RECIPES if not plan.recipes or r.name in plan.recipes):
        for letter, half in zip("ab", halves, strict=True):
            some = half.subset(half.ids[: recipe.few]) if recipe.few else half
            files += contourer(plan, recipe, some, out, f"{recipe.name}-{letter}")
    return files


def contourer(plan: Plan, recipe: Recipe, patients: Cohort, out: Path, name: str) -> list[Path]:
    """Train one segmenter as OUT/NAME/NAME.safetensors; with ``early`` also what it was after a fifth of its time."""
    epochs = max(1, round(plan.segmenter_epochs * recipe.length))
    early = max(1, epochs // 5)
    file = out / name / f"{name}.safetensors"
    kept = [file, *([out / name / f"{name}-epoch{early}.safetensors"] if recipe.early else [])]
    if all(path.exists() for path in kept):
        return kept
    sys.stderr.write(f"segmenter {name}\n")
    task = ContourTask(segmenter_settings(plan, recipe))
    training = TrainSettings(epochs=epochs, batch=8, learning_rate=2e-3, validation=0.0, seed=plan.seed, threads=plan.threads)
    snapshots = [early] if recipe.early else []
    fit(task, read_cases(patients), out / name, training, name=name, snapshots=snapshots, finish=thresholds.finish)
    return kept


def segmenter_settings(plan: Plan, recipe: Recipe) -> ContourSettings:
    """Slices with their neighbours, all structures at once."""
    return ContourSettings(
        structures=plan.structures,
        net=recipe.net,
        net_options=dict(recipe.options),
        neighbours=1,
        window=plan.window,
        hu=(-200.0, 300.0),
        hardest=0.05,
        draws=plan.segmenter_draws,
        augment=Ranges(tilt_deg=0.0),
        mask_body=False,
        overlap=False,  # the PTV crosses organs: a voxel goes to the likelier of them
    )


def claims(plan: Plan, train: Cohort, test: Cohort, models: Sequence[Path], out: Path) -> None:
    """OUT/train: what each segmenter draws in training patients it does not know; OUT/test: in the patients kept apart; OUT/held-out: what
    the segmenter under judgement draws there."""
    for file in models:
        for segmenter in load(str(file), [0.0], seen=False, overlap=0.0, backend="auto", threads=plan.threads):
            whole = _wide(segmenter)
            strangers = [id for id in train.ids if id not in segmenter.trained_on]
            draw(whole, train, strangers, out / "train" / whole.name, chances=True)
            draw(whole, test, test.ids, out / "test" / whole.name)
    for name in judged_models(plan, train, out.parent / "segmenters"):
        for segmenter in load(name, [0.0], seen=True, overlap=0.25, backend="auto", threads=plan.threads):
            draw(_wide(segmenter), test, test.ids, out / HELD_OUT / segmenter.name, chances=True)


def judged_models(plan: Plan, train: Cohort, out: Path) -> list[str]:
    """Segmenters that draw none of the masks that quality is learned from: those named; a recipe among them is trained on half of the
    training patients; where none is named, a DeepLabv3+ of all of them."""
    kinds = {recipe.name: recipe for recipe in RECIPES}
    half = train.split([0.5, 0.5], plan.seed)[0]
    named = [str(contourer(plan, kinds[name], half, out, f"{name}-a")[0]) if name in kinds else name for name in plan.held_out]
    return named or [str(contourer(plan, Recipe(HELD_OUT, "deeplab", {"output_stride": 8}), train, out, HELD_OUT)[0])]


def _wide(segmenter: Segmenter) -> Segmenter:
    """Flat nets see whole slices at once: fewer windows, the same net."""
    task = segmenter.contourer.task
    if isinstance(task, ContourTask) and task.settings.flat:
        divisor = int(getattr(task.net, "divisor", 16))
        size = tuple(-(-max(a, b) // divisor) * divisor for a, b in zip(WHOLE[1:], task.settings.window[1:], strict=True))
        task.settings = replace(task.settings, window=(1, size[0], size[1]))
    return segmenter


# ---- the quality nets


def arms(plan: Plan, train: Cohort, out: Path) -> dict[str, Assessor]:
    """Every arm trained (or read, where it is finished), ready to be asked."""
    chosen = [arm for arm in ARMS if (not plan.arms or arm.name in plan.arms) and (arm.name != SHORT or plan.arm_epochs)]
    missing = [arm for arm in chosen if not model_file(out, arm).exists()]
    bank: dict[str, list[CandidateContour]] = {}
    if missing or not simple_file(out).exists():
        sys.stderr.write("masks to learn from\n")
        maker = AssessTask(_making(plan, missing))
        sure = any(arm_settings(plan, arm).own for arm in missing)
        for case in telling(with_candidates(read_cases(train, tell=False), [out / "claims" / "train"], probabilities=sure)):
            bank[case.id] = maker.samples(case)
        write_text(simple_file(out), simple_csv(bank, plan.structures))
    for arm in chosen:
        if arm in missing:
            sys.stderr.write(f"{arm.name}\n")
            settings = arm_settings(plan, arm)
            epochs = plan.arm_epochs if plan.arm_epochs and arm.name not in WHOLE_TIME else plan.epochs
            training = TrainSettings(
                epochs=epochs,
                batch=plan.batch,
                learning_rate=plan.learning_rate,
                validation=plan.validation,
                seed=plan.seed,
                threads=plan.threads,
            )
            file = model_file(out, arm)
            task, cases = Shared(settings, bank), [stub(id) for id in bank]
            fit(task, cases, file.parent, training, name=file.stem, region="head and neck", finish=after_training)
    return {arm.name: load_assessor(model_file(out, arm), threads=plan.threads) for arm in chosen}


def _making(plan: Plan, some: Sequence[Arm]) -> AssessSettings:
    """How the masks that these arms learn from are made; the generator stands still where none of them learns from it."""
    usual = replace(arm_settings(plan, ARMS[0]), opinion=_opinion(plan, some))
    return usual if not some or any(arm_settings(plan, arm).generated for arm in some) else replace(usual, variants=0)


def _opinion(plan: Plan, some: Sequence[Arm]) -> str:
    """The reference model that these arms take, empty where none does. Raises ConfigError for two different ones: masks are made once."""
    asked = {settings.opinion for settings in (arm_settings(plan, arm) for arm in some) if settings.opinion}
    if len(asked) > 1:
        raise ConfigError(f"one reference model for all arms, not {', '.join(sorted(asked))}", where="quality.opinion")
    return asked.pop() if asked else ""


class Shared(AssessTask):
    """The task with its masks made once for all arms."""

    def __init__(self, settings: AssessSettings, bank: Mapping[str, list[CandidateContour]]) -> None:
        super().__init__(settings)
        self._bank = bank

    def samples(self, case: Case) -> list[CandidateContour]:
        wanted = {0.0: (SEGMENTER,), 1.0: ("none", *FAMILIES)}.get(self.settings.generated, (SEGMENTER, "none", *FAMILIES))
        return self.usable([claim for claim in self._bank[case.id] if claim.family in wanted])


def arm_settings(plan: Plan, arm: Arm) -> AssessSettings:
    """The quality model of one arm."""
    common: dict[str, Any] = {"structures": plan.structures, "held_out_families": (plan.held_out_family,), "heads": HEADS}
    return AssessSettings(**{**common, **plan.quality, **arm.changes})


def model_file(out: Path, arm: Arm) -> Path:
    slug = "-".join("".join(c if c.isalnum() else " " for c in arm.name.lower()).split())
    return out / "quality" / slug / f"{slug}.safetensors"


# ---- what they say of patients kept apart


def measured(plan: Plan, test: Cohort, trained: Mapping[str, Assessor], out: Path) -> tuple[list[Row], dict[str, int]]:
    """(a row for every method and slice, counts of what was left out), over the patients kept apart."""
    judged, others = sources([out / "claims" / HELD_OUT]), sources([out / "claims" / "test"])
    sure = {name: confidences(out / "claims" / HELD_OUT / name) for name in judged}
    learned = simple_predictors(training_slices(out))
    rows: list[Row] = []
    left: dict[str, int] = {}
    # The simple predictors are told of what a model was asked that judges everything.
    whole = next((arm for arm, assessor in trained.items() if not assessor.task.settings.needs_own), None)
    for n, id in enumerate(test.ids):
        sys.stderr.write(f"patient {n + 1} of {len(test)}\n")
        case = test[id]
        asked: dict[str, Mapping[str, Volume]] = dict(contours_about(case, judged)) | spoiled(case, plan)
        thought = probabilities_about(case, judged)
        for arm, assessor in trained.items():
            seen = Observed()
            # What may do without a reference model is not given that model's map of its own work, as in a run.
            observe(assessor, case, asked, seen, thought, as_predict=assessor.task.settings.channel_dropout > 0)
            rows += [Row.of(arm, s, _kind(s.source)) for s in seen.scored()]
            if arm == whole:
                for what, count in _left_out(seen).items():
                    left[what] = left.get(what, 0) + count
                rows += [row for s in seen.scored() for row in learned(s, _kind(s.source))]
                rows += list(_ensemble(case, asked, contours_about(case, others), seen))
                rows += [
                    Row.of("softmax", s, HELD_OUT, dsc=sure[s.source][s.patient, s.structure, s.k])
                    for s in seen.scored()
                    if s.source in sure and (s.patient, s.structure, s.k) in sure[s.source]
                ]
    return rows, left


def _left_out(seen: Observed) -> dict[str, int]:
    return {"both empty": seen.both_empty, "past the ends, unseen": seen.unseen, "structures missed": seen.missed}


def _kind(source: str) -> str:
    return source if source in FAMILIES else HELD_OUT


def spoiled(case: Case, plan: Plan) -> dict[str, dict[str, Volume]]:
    """The held-out family of errors at three strengths, and every sided organ on the wrong side; each a source of its own."""
    masks = {name: case.mask(name) for name in plan.structures if name in case.structures}
    masks = {name: mask for name, mask in masks.items() if mask.array.any()}
    upright = case.geometry.reorient()
    out: dict[str, dict[str, Volume]] = {plan.held_out_family: {}, "wrong_side": {}}
    turned = {name: mask.to(upright) for name, mask in masks.items()}
    body = case.ct.to(upright).array > -500
    for number, (name, mask) in enumerate(turned.items()):
        others = np.zeros(mask.array.shape, bool)
        for other, its in turned.items():
            if other != name:
                others |= its.array
        mate = turned.get(other_side(name))
        surroundings = Surroundings(upright.spacing_mm, others, None if mate is None else mate.array, body)
        seed = plan.seed + number
        error = SimulatedError(plan.held_out_family, (0.25, 0.5, 0.9)[seed % 3], seed, 0.1)
        out[plan.held_out_family][name] = Volume(spoil(mask.array, surroundings, error), upright).to(case.geometry)
        if mate is not None:
            out["wrong_side"][name] = Volume(spoil(mask.array, surroundings, SimulatedError("wrong_side", 1.0, seed, 0.1)), upright).to(
                case.geometry
            )
    return out


def _ensemble(
    case: Case, asked: Mapping[str, Mapping[str, Volume]], others: Mapping[str, Mapping[str, Volume]], seen: Observed
) -> Iterator[Row]:
    """Mean slice DSC of the mask in question with what each other segmenter draws: nothing is learned for it."""
    between: dict[tuple[str, str], NDArray[np.float64]] = {}
    for source, masks in asked.items():
        for name, mask in masks.items():
            drawn = [its[name] for its in others.values() if name in its]
            if drawn:
                # Where neither has a voxel they agree; a slice that only one has counts as 0.
                each = [np.nan_to_num(overlap(one, mask.binary().to(case.geometry)).slice_dsc, nan=1.0) for one in drawn]
                between[source, name] = np.mean(each, axis=0)
    for s in seen.scored():
        if (s.source, s.structure) in between:
            yield Row.of("ensemble pairwise DSC", s, _kind(s.source), dsc=float(between[s.source, s.structure][s.k]))


def as_csv(rows: Sequence[Row] | Sequence[quality_in_run.Figure] | Sequence[quality_order.Line | quality_order.Seen]) -> str:
    """Dataclass rows as CSV text."""
    lines = ([f"{v:.5f}" if isinstance(v, float) else v for v in asdict(row).values()] for row in rows)
    return csv_text([list(asdict(rows[0])) if rows else ["method"], *lines])
