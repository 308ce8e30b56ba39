"""Beljaards, Elmahdy et al. (MIDL 2020; IEEE Access 2021;9:95551-95568): registration and segmentation joined by cross-stitch units.

Four steps, each resumed where it stopped; what one of them made is not made again:

    pairs    visits simulated of the training patients, as the nets see them (OUT/pairs)
    rows     every row of the table trained on these pairs, for equally many updates (OUT/rows)
    judged   each method on simulated visits of the patients kept apart (OUT/visits, OUT/fields, OUT/judged)
    tables   all rows, theirs beside ours (OUT/measured.csv, OUT/table.md)

There is no public repeat CT with organs: every visit is SIMULATED (``adapt.simulate``), in what is learned and in what is judged. What is
faithful and what differs is in ``papers/crossstitch-2020/README.md``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

from oncontour.adapt.inputs import Pair
from oncontour.adapt.levels import Settings
from oncontour.adapt.predict import Adapter
from oncontour.adapt.simulate import TITLE
from oncontour.adapt.task import VARIANTS, AdaptSettings, AdaptTask, finish
from oncontour.adapt.unlearned import Nothing, Optimised
from oncontour.commands.train import read_cases
from oncontour.core.case import Case
from oncontour.core.notes import some
from oncontour.errors import ConfigError
from oncontour.files import write_text
from oncontour.io.cohort import Cohort
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.reproduce.crossstitch_judged import STRATA, Judged, Method, judged
from oncontour.reproduce.crossstitch_pairs import pairs_of
from oncontour.reproduce.crossstitch_tables import ELASTIX, IDENTITY, OPTIMISED, REFINED, Told, measured_csv, tables
from oncontour.reproduce.elastix import PYTHON, Elastix
from oncontour.reproduce.steps import check_chosen, check_same, parts, plan_of, stub

STRUCTURES = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible")
NAMES = {
    "seg-a": "Seg a",
    "seg-b": "Seg b",
    "seg-c": "Seg c",
    "reg-a": "Reg a",
    "reg-b": "Reg b",
    "jrs-reg-a": "JRS-reg a",
    "jrs-reg-b": "JRS-reg b",
    "dense": "Dense",
    "sedd": "SEDD",
    "crossstitch-a": "Cross-stitch a",
    "crossstitch-b": "Cross-stitch b",
    "crossstitch-c": "Cross-stitch c",
}
"""What the table calls each variant; a, b, c: the paper's variants of what goes in."""
UNSEEN = "unseen"
Three = tuple[float, float, float]


@dataclass(frozen=True)
class Plan:
    """The run's settings, as in ``run.yaml``."""

    rows: tuple[str, ...] = ("crossstitch-b", "seg-c", "reg-b", "jrs-reg-b", "dense", "sedd")
    """variants to train, in this order; the first cross-stitch one is what the others are compared with"""
    refined: tuple[str, ...] = ("crossstitch-b",)
    """of the rows: whose field is refined by instance optimisation as a row of its own"""
    also: tuple[str, ...] = ()
    """finished models (files or shipped names) judged beside, as they are used"""
    strata: tuple[str, ...] = tuple(STRATA)
    """"usual" (amplitude 0.8), "hard" (1.2), "unseen" (0.8, motion of a family that nothing learned from)"""
    paper_compat: bool = False
    """also rows whose segmentations were cleaned with the truth at hand, as the paper's code does: not a fair figure"""
    structures: tuple[str, ...] = STRUCTURES
    updates: int = 900
    """optimiser steps of every row"""
    epoch_updates: int = 30
    batch: int = 2
    learning_rate: float = 2e-3
    precision: Literal["float32", "bfloat16"] = "float32"
    spacing_mm: Three = (4.5, 4.5, 4.5)
    window: tuple[int, int, int] = (64, 48, 64)
    widths: tuple[int, ...] = ()
    """channels of the three levels of every row, instead of those that give all rows about as many weights"""
    start: Literal["none", "optimised"] = "none"
    """what the fields begin with, see AdaptSettings"""
    visits: int = 2
    """simulated of each training patient"""
    amplitude: tuple[float, float] = (0.5, 1.2)
    judged_visits: int = 3
    """simulated of each patient kept apart, in each stratum"""
    validation: float = 0.07
    """part of the training patients held back to watch the loss"""
    seed: int = 0
    threads: int | None = None
    patients: int | None = None
    """the first so many of each part, for a trial"""

    FREE: ClassVar[tuple[str, ...]] = ("rows", "refined", "also", "strata", "paper_compat", "threads")
    """What may change between two runs into the same folder."""


def reproduce(cohort: Path, out: Path, **settings: object) -> str:
    """All four steps; writes OUT/measured.csv and OUT/table.md and gives the tables.

    ``settings`` are the fields of ``Plan``. elastix stands in the table where ONCONTOUR_REGISTRATION names a Python that has itk-elastix.
    Raises ConfigError for unknown settings or rows, CohortError when the cohort has no two parts, OutputError where OUT holds a run of
    other settings.
    """
    plan = planned(settings)
    train, test = parts(cohort, plan.patients)
    check_same({name: value for name, value in asdict(plan).items() if name not in Plan.FREE} | {"registration": asdict(Settings())}, out)
    trained = rows(plan, train, out)
    others = {model: Adapter.load(model) for model in plan.also}
    _check_strangers(others, test)
    found = {stratum: judged(test, methods(plan, trained, others, stratum), out, stratum, plan) for stratum in plan.strata}
    told = _told(plan, train, test, trained, found)
    write_text(out / "measured.csv", measured_csv(found))
    text = tables(found, told)
    write_text(out / "table.md", text)
    return text


def planned(settings: Mapping[str, object]) -> Plan:
    """The plan that ``settings`` spell. Raises ConfigError for what it does not know."""
    plan = plan_of(Plan, settings, "crossstitch-2020")
    for what, chosen, there in (("rows", plan.rows, VARIANTS), ("refined", plan.refined, plan.rows), ("strata", plan.strata, STRATA)):
        check_chosen(what, chosen, there)
    without = [row for row in plan.refined if "reg" not in VARIANTS[row].losses]
    if not plan.strata or without or min(plan.updates, plan.epoch_updates, plan.judged_visits) < 1:
        told = (
            f"refined: {', '.join(without)} finds no field" if without else "strata, updates, epoch_updates or judged_visits: one and more"
        )
        raise ConfigError(f"settings of crossstitch-2020: {told}", hint="papers/crossstitch-2020/run.yaml shows them")
    return plan


# ---- the rows


def rows(plan: Plan, train: Cohort, out: Path) -> dict[str, Adapter]:
    """Every row trained, or read where it is finished."""
    missing = [row for row in plan.rows if not model_file(out, row).exists()]
    bank = pairs_of(read_cases(train), AdaptTask(row_settings(plan, missing[0])), train.ids, out / "pairs") if missing else {}
    steps = max(1, round(plan.updates / plan.epoch_updates))
    for row in missing:
        sys.stderr.write(f"{NAMES[row]}: {steps * plan.epoch_updates} updates\n")
        training = TrainSettings(
            epochs=steps,
            batch=plan.batch,
            learning_rate=plan.learning_rate,
            validation=plan.validation,
            precision=plan.precision,
            seed=plan.seed,
            threads=plan.threads,
        )
        file, task = model_file(out, row), Shared(row_settings(plan, row), bank)
        fit(task, [stub(id) for id in bank], file.parent, training, name=row, data=TITLE, region="head and neck", finish=finish)
    return {row: Adapter.load(str(model_file(out, row))) for row in plan.rows}


def row_settings(plan: Plan, row: str) -> AdaptSettings:
    """The model of one row: mode fair, all but the variant the same."""
    return AdaptSettings(
        structures=plan.structures,
        variant=row,  # type: ignore[arg-type]  # checked in planned
        spacing_mm=plan.spacing_mm,
        window=plan.window,
        widths=plan.widths,
        start=plan.start,
        visits=plan.visits,
        amplitude=plan.amplitude,
        draws=plan.epoch_updates * plan.batch,
        seed=plan.seed,
    )


def model_file(out: Path, row: str) -> Path:
    return out / "rows" / row / f"{row}.safetensors"


class Shared(AdaptTask):
    """The task with its pairs made once for all rows."""

    def __init__(self, settings: AdaptSettings, bank: Mapping[str, list[Pair]]) -> None:
        super().__init__(settings)
        self._bank = bank

    def samples(self, case: Case) -> list[Pair]:
        return self._bank[case.id]


# ---- what is judged


def methods(plan: Plan, trained: Mapping[str, Adapter], others: Mapping[str, Adapter], stratum: str) -> list[Method]:
    """Every method of a stratum's table, in its order. elastix, which takes longest, stands in the first stratum alone, the paper's rows in
    all but UNSEEN, which asks what a finished model does with motion that it never learned from."""
    out = [Method("identity", IDENTITY, Nothing()), Method("optimised", OPTIMISED, Optimised(), keep=True)]
    if (python := os.environ.get(PYTHON)) and stratum == plan.strata[0]:
        out.append(Method("elastix", ELASTIX, Elastix(python), keep=True))
    for row, adapter in trained.items() if stratum != UNSEEN or not others else ():
        out.append(Method.of(NAMES[row], adapter, refine=False))
        if row in plan.refined:
            out.append(Method.of(NAMES[row] + REFINED, adapter, refine=True))
    return out + [Method.of(Path(model).stem, adapter, refine=None) for model, adapter in others.items()]


def _check_strangers(models: Mapping[str, Adapter], test: Cohort) -> None:
    """Raises ConfigError for a finished model that learned from a patient it would be judged on."""
    for name, one in models.items():
        if known := sorted(set(one.card.made.get("trained_on", ())) & set(test.ids)):
            raise ConfigError(
                f"{name} learned from {len(known)} of the patients kept apart ({some(known)})", hint="leave it out of settings.also"
            )


def _told(plan: Plan, train: Cohort, test: Cohort, trained: Mapping[str, Adapter], found: Mapping[str, Judged]) -> Told:
    flow = {NAMES[row]: one.task.flow() for row, one in trained.items() if one.task.net.joint.stitches}
    lead = next((NAMES[row] for row in plan.rows if row.startswith("crossstitch")), "")
    refined = [NAMES[row] + REFINED for row in plan.refined] + [Path(m).stem for m in plan.also]
    return Told(len(train), len(test), plan.updates, plan.judged_visits, plan.structures, lead, tuple(refined), flow)
