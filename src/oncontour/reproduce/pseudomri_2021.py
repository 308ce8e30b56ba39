"""Meng, Wu, Peng, Xu and Pei (slides, University of Science and Technology of China): MR-like images of a CT by an improved CycleGAN, and
whether they help to contour.

Four steps, each resumed where it stopped; what one of them made is not made again:

    rows         every row trained from the CT and the MR of the patients to learn from, for equally much CPU time (OUT/rows)
    judged       each row's images of the patients kept apart, with their real MR (OUT/judged)
    contoured    one tumour, four folds, four arms, with the images of one row (OUT/smr, OUT/fold-N)
    tables       theirs beside ours (OUT/measured.csv, OUT/contoured.csv, OUT/table.md)

COHORT is one folder of patients who have a CT, an MR on the same grid, and the tumour. What is faithful and what differs is in
``papers/pseudomri-2021/README.md``.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from oncontour.commands.train import read_cases
from oncontour.core.case import Case
from oncontour.core.notes import some
from oncontour.core.volume import Volume
from oncontour.documents import read_json
from oncontour.errors import CohortError, ConfigError
from oncontour.files import csv_text, write_text
from oncontour.io.cohort import Cohort
from oncontour.learn.fit import fit
from oncontour.learn.task import load_weights, seeded
from oncontour.learn.train_settings import TrainSettings
from oncontour.reproduce.pseudomri_contour import ARMS, Contouring, Drawn, contoured, with_smr
from oncontour.reproduce.pseudomri_rows import (
    FAIR,
    GANS,
    PAIRED,
    SMOOTHED,
    Image,
    Pair,
    Paired,
    PairedSlices,
    gan_settings,
    of_synthesizer,
    pair_of,
    seconds_per_update,
    simple_rows,
    untrained,
)
from oncontour.reproduce.pseudomri_tables import Judged, Told, judged_pair, tables
from oncontour.reproduce.steps import check_chosen, check_same, plan_of, slug, stub
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.predict import UNIT, Synthesizer
from oncontour.synthesize.task import Slices, SynthesizeTask

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Plan:
    """The run's settings, as in ``run.yaml``."""

    rows: tuple[str, ...] = (*GANS, PAIRED)
    """rows to train, in this order"""
    also: tuple[str, ...] = ()
    """finished synthesis models (files or shipped names) judged beside, as they are used"""
    arms: tuple[str, ...] = tuple(ARMS)
    """of contouring; none leaves it out"""
    images_of: str = FAIR
    """row, or one of ``also``, whose images the arms see"""
    left_out: tuple[str, ...] = ()
    """patients whose CT and MR do not show the same outline"""
    kept_apart: int = 6
    """patients that nothing learns from"""
    minutes: float = 3.0
    """of CPU, of every row with a net"""
    width: int = 24
    """of the generators and discriminators"""
    spacing_mm: Three = (3.27, 1.5, 1.5)
    window: tuple[int, int, int] = (1, 96, 96)
    correct_bias: bool = False
    """whether the bias field of the MR is still to be taken off"""
    epoch_updates: int = 100
    structure: str = "GTV"
    contour_updates: int = 150
    """optimiser steps of every arm in every fold"""
    contour_spacing_mm: Three = (4.0, 3.0, 3.0)
    contour_window: tuple[int, int, int] = (24, 48, 48)
    contour_widths: tuple[int, ...] = (8, 16, 32)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    threads: int | None = None

    FREE: ClassVar[tuple[str, ...]] = ("rows", "also", "arms", "threads")
    """What may change between two runs into the same folder."""

    @property
    def shared(self) -> SynthesizeSettings:
        """What all rows of images have in common."""
        return SynthesizeSettings(
            width=self.width,
            spacing_mm=self.spacing_mm,
            window=self.window,
            draws=self.epoch_updates,
            correct_bias=self.correct_bias,
        )

    @property
    def contouring(self) -> Contouring:
        return Contouring(
            self.structure,
            self.contour_updates,
            50 if self.contour_updates >= 50 else 1,
            2,
            self.contour_spacing_mm,
            self.contour_window,
            self.contour_widths,
            self.precision,
            self.seed,
            self.threads,
        )


def reproduce(cohort: Path, out: Path, **settings: object) -> str:
    """All four steps; writes OUT/measured.csv, OUT/contoured.csv and OUT/table.md and gives the tables.

    ``settings`` are the fields of ``Plan``. Raises ConfigError for unknown settings or rows, CohortError for too few patients, OutputError
    where OUT holds a run of other settings.
    """
    plan = planned(settings)
    patients = Cohort.open(cohort)
    patients = patients.subset(id for id in patients.ids if id not in plan.left_out)
    test = kept_apart(patients.ids, plan)
    check_same({name: value for name, value in asdict(plan).items() if name not in Plan.FREE}, out)
    pairs = {case.id: pair_of(with_structure(case, plan.structure), plan.shared) for case in read_cases(patients)}
    if plan.arms and not any(plan.structure in pair.case.structures for pair in pairs.values()):
        raise CohortError(f"no patient has {plan.structure}", hint="name it by settings.structure, or give arms: []")
    train = [pair for id, pair in pairs.items() if id not in test]
    images, updates = rows(plan, train, out)
    judged = [one for row, image in images.items() for one in _judged(row, image, [pairs[id] for id in test], out)]
    drawn = _contoured(plan, list(pairs.values()), images, out) if plan.arms else []
    write_text(out / "measured.csv", _csv(judged))
    write_text(out / "contoured.csv", _csv(drawn))
    told = Told(len(train), len(test), len(pairs), plan.minutes, updates, plan.contour_updates, plan.images_of, plan.structure)
    text = tables(judged, drawn, told)
    write_text(out / "table.md", text)
    return text


def with_structure(case: Case, structure: str) -> Case:
    """The case with ``structure``, also where that lies beside its images as one of the same name, capitals aside, of zeros and ones."""
    beside = next((name for name in case.images if name.lower() == structure.lower()), None)
    if structure in case.structures or beside is None or set(np.unique(case.images[beside].array)) - {0, 1}:
        return case
    images = {name: image for name, image in case.images.items() if name != beside}
    return replace(case, images=images).with_masks({structure: case.images[beside].map(lambda mask: mask > 0)})


def planned(settings: Mapping[str, object]) -> Plan:
    """The plan that ``settings`` spell. Raises ConfigError for what it does not know."""
    plan = plan_of(Plan, settings, "pseudomri-2021")
    for what, chosen, there in (("rows", plan.rows, (*GANS, PAIRED)), ("arms", plan.arms, tuple(ARMS))):
        check_chosen(what, chosen, there)
    named = (*(row for row in plan.rows if row in GANS), *map(_name, plan.also))
    if plan.arms and plan.images_of not in named:
        raise ConfigError(f"images_of: no row {plan.images_of!r}", hint=f"choose from {', '.join(named)}, or arms: []")
    if not plan.minutes > 0 or min(plan.epoch_updates, plan.contour_updates, plan.kept_apart) < 1:
        raise ConfigError("minutes is above 0, epoch_updates, contour_updates and kept_apart are 1 or more")
    return plan


def kept_apart(ids: Sequence[str], plan: Plan) -> tuple[str, ...]:
    """Patients that nothing learns from, nor is chosen by. Raises CohortError where too few would be left."""
    if len(ids) < plan.kept_apart + 2:
        raise CohortError(f"{len(ids)} patients, of whom {plan.kept_apart} are kept apart and 2 or more are learned from")
    order = seeded(plan.seed).permutation(len(ids))
    return tuple(sorted(ids[int(n)] for n in order[: plan.kept_apart]))


# ---- the rows


def rows(plan: Plan, train: Sequence[Pair], out: Path) -> tuple[dict[str, Image], dict[str, int]]:
    """(row -> what makes its images, row -> updates it took), each net trained or read where it is finished."""
    images = simple_rows(train)
    images[SMOOTHED] = untrained(plan.shared)
    updates: dict[str, int] = {}
    for row in plan.rows:
        images[row], updates[row] = _trained(plan, row, train, out)
    known = {pair.case.id for pair in train}
    for model in plan.also:
        synthesizer = Synthesizer.load(model, threads=plan.threads, any_region=True)
        if strange := sorted(set(synthesizer.card.made.get("trained_on", ())) - known):
            raise ConfigError(
                f"{model} learned from {some(strange)}, who is not among those that are learned from here", hint="leave it out of also"
            )
        images[_name(model)] = of_synthesizer(synthesizer)
    return images, updates


def _name(model: str) -> str:
    return Path(model).stem


BATCH = {PAIRED: 8}
"""Windows of an update where they are not one, as in Zhu et al.: the U-Net's batch norm takes means over them."""


def _trained(plan: Plan, row: str, train: Sequence[Pair], out: Path) -> tuple[Image, int]:
    """A net that took ``plan.minutes`` of CPU, at the pace that an update of it has on this machine when the row begins."""
    folder = out / "rows" / slug(row)
    budget = folder / "budget.json"
    task = _task(plan, row, train)
    if not budget.exists():
        samples = [one for pair in train for one in task.samples(pair.case)]
        each = seconds_per_update(task, samples, bfloat16=plan.precision == "bfloat16") * BATCH.get(row, 1)
        epochs = max(1, round(60 * plan.minutes / each / plan.epoch_updates))
        write_text(budget, json.dumps({"seconds_an_update": each, "epochs": epochs}))
        task = _task(plan, row, train)
    held = read_json(budget)
    assert isinstance(held, dict)
    epochs = int(held["epochs"])
    model = folder / "model" / "model.safetensors"
    if not model.exists():
        sys.stderr.write(f"{row}: {epochs * plan.epoch_updates} updates\n")
        fit(task, [stub(pair.case.id) for pair in train], model.parent, _training(plan, row, epochs), name="model")
    if isinstance(task, Paired):
        load_weights(task.net, model)
        return task.image, epochs * plan.epoch_updates
    return of_synthesizer(Synthesizer.load(model, threads=plan.threads)), epochs * plan.epoch_updates


def _training(plan: Plan, row: str, epochs: int) -> TrainSettings:
    """Of the CycleGANs as in Zhu et al. 2017; of the fair one half as fast, of the U-Net ours."""
    return TrainSettings(
        epochs=epochs,
        batch=BATCH.get(row, 1),
        learning_rate={FAIR: 1e-4, PAIRED: 1e-3}.get(row, 2e-4),
        schedule="cosine" if row == PAIRED else "linear",
        weight_decay=0.0,
        gradient_limit=0.0,
        validation=0.0,
        precision=plan.precision,
        seed=plan.seed,
        threads=plan.threads,
    )


def _task(plan: Plan, row: str, train: Sequence[Pair]) -> SynthesizeTask | Paired:
    """The row's task; its cases are known by their id."""
    bank = {pair.case.id: pair.case for pair in train}
    if row == PAIRED:
        return _Known(plan.shared, bank)
    return _KnownGan(gan_settings(row, plan.shared), bank)


class _Known(Paired):
    def __init__(self, settings: SynthesizeSettings, bank: Mapping[str, Case]) -> None:
        super().__init__(settings)
        self._bank = bank

    def samples(self, case: Case) -> list[PairedSlices]:
        return super().samples(self._bank[case.id])


class _KnownGan(SynthesizeTask):
    def __init__(self, settings: SynthesizeSettings, bank: Mapping[str, Case]) -> None:
        super().__init__(settings)
        self._bank = bank

    def samples(self, case: Case) -> list[Slices]:
        return super().samples(self._bank[case.id])


# ---- what is judged


def _judged(row: str, image: Image, pairs: Sequence[Pair], out: Path) -> list[Judged]:
    """A row's figures of every patient kept apart, made once and kept."""
    file = out / "judged" / f"{slug(row)}.csv"
    if not file.exists():
        write_text(file, _csv([judged_pair(row, pair, image(pair)) for pair in pairs]))
    with file.open(encoding="utf-8", newline="") as held:
        return [Judged.read(line) for line in csv.DictReader(held)]


def _contoured(plan: Plan, pairs: Sequence[Pair], images: Mapping[str, Image], out: Path) -> list[Drawn]:
    """The arms, on the images of ``plan.images_of``; patients without the structure are left out."""
    by_id = {pair.case.id: pair for pair in pairs}

    def made(image: Image, case: Case) -> Volume:
        return image(by_id[case.id]).to(case.geometry).map(lambda signal: signal * UNIT)

    make = partial(made, images[plan.images_of])
    having = [pair.case for pair in pairs if plan.structure in pair.case.structures]
    return contoured([with_smr(case, out / "smr", make) for case in having], out, plan.arms, plan.contouring)


def _csv(rows: Sequence[Judged] | Sequence[Drawn]) -> str:
    lines = [[f"{value:.5f}" if isinstance(value, float) else value for value in asdict(row).values()] for row in rows]
    return csv_text([[f.name for f in fields(rows[0])] if rows else ["method"], *lines])
