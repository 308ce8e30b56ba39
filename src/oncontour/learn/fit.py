"""Training: a cohort becomes a model file.

Every draw depends on (seed, epoch, position) and on nothing else, so a run that was killed and resumed from its last epoch, and a second
run of the same seed, follow the same curve bit for bit on a CPU. Checkpoints hold tensors and plain values alone and are read with torch's
``weights_only`` loader: no pickle is executed.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from oncontour import __version__
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.errors import ConfigError, ModelError, OncontourError, TrainingError
from oncontour.files import write_text
from oncontour.learn.callbacks import Curve, KeepBest, Progress, SaveEpoch, Snapshots
from oncontour.learn.card import Card, checked_card, find, read_card
from oncontour.learn.card import notes as notes_of
from oncontour.learn.lesson import Lesson, LessonInTurns
from oncontour.learn.processes import Processes
from oncontour.learn.resume import alone_in, check_same_patients, plain, record_of, resumed
from oncontour.learn.task import AnyTask, Example, InTurns, S, Task, load_task, load_weights, save_model, seeded
from oncontour.learn.train_settings import TrainSettings
from oncontour.libraries import memory_told, why
from oncontour.nets.grow import grow
from oncontour.nets.unet import UNet3d

T = TypeVar("T", bound=AnyTask)
Finish = Callable[[T, Sequence[Any], Sequence[Any]], Mapping[str, object]]
"""What is done once after training: (task, samples learned from, samples held back) -> what the card's ``made`` tells of it."""


class Words(TypedDict):
    """What the card says in words."""

    name: str
    data: str
    licence: str
    limits: str
    region: str


@dataclass(frozen=True)
class Outcome:
    """What a training left: the model file, its card, and the folder with logs and checkpoints."""

    model: Path
    card: Card
    folder: Path
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join([*self.notes, f"trained in {self.seconds / 60:.1f} min: {self.model}"])


def fit(
    task: T,
    cases: Iterable[Case],
    out: Path | str,
    settings: TrainSettings,
    *,
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    region: str = "",
    start: str | Path | None = None,
    snapshots: Sequence[int] = (),
    finish: Finish[T] | None = None,
) -> Outcome:
    """Train ``task`` on ``cases`` and write OUT/NAME.safetensors, metrics.csv, TensorBoard events and checkpoints/last.ckpt.

    Weights begin at random or, with ``start``, at those of a finished model (a file or a shipped name) of the same net
    and structures; a wider 3D U-Net grows from a narrower one.
    Resumes by itself when OUT holds a checkpoint of the same settings and patients; refuses (OutputError) when it holds another run's, or
    when another training is at work there. A case that cannot be read is named in the outcome's notes and left out. After each epoch of
    ``snapshots`` the model of that moment is kept as OUT/NAME-epochN.safetensors. ``finish`` is called once after the last epoch with the
    task, the samples that were learned from and those held back; it may set what is chosen after training (thresholds, a calibration), and
    what it gives goes into the card's ``made``. Raises TrainingError when nothing is left to learn
    from, or when a structure to contour is in no patient to learn from (with ``start`` that is a note), ModelError when ``start`` does
    not fit, ConfigError for what this machine cannot do, MemoryError where memory runs out, whichever library says so.
    """
    out = Path(out)
    words: Words = {"name": name, "data": data, "licence": licence, "limits": limits, "region": region}
    with alone_in(out), memory_told():
        return _fit(task, cases, out, settings, words, start, snapshots, finish)


def _fit(
    task: T,
    cases: Iterable[Case],
    out: Path,
    settings: TrainSettings,
    words: Words,
    start: str | Path | None,
    snapshots: Sequence[int],
    finish: Finish[T] | None,
) -> Outcome:
    """``fit`` in a folder that is held; ``words`` go into the card."""
    began, name = time.monotonic(), words["name"]
    started = None if start is None else _starting(task, start)
    record = record_of(task, settings, started, out)
    resume = resumed(out, record, {"task_settings": getattr(task, "settings", None), "training": settings})
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    kept = Snapshots(task, out, name, snapshots, {})
    best = KeepBest(task.net, settings.keep == "best")
    # What this machine cannot do is told before patients are read.
    trainer = _trainer(out, settings, [best, *([kept] if snapshots else [])], in_turns=isinstance(task, InTurns))
    lightning.seed_everything(settings.seed, workers=True, verbose=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    samples, notes, remarks = _gather(task, cases)
    patients = sorted({s.case_id for s in samples})
    if resume is not None:
        check_same_patients(out, patients)
    watched = held_back(patients, settings)
    known = _trained_on(start)
    taught_by = [s for s in samples if s.case_id not in watched]
    missing = _unlearned(task, taught_by)
    notes += _told_of_missing(task, missing, taught_by, started)
    notes += [] if start is None else [f"{start}: {note}" for note in notes_of(read_card(find(start)))]
    if watched & known:
        notes.append(f"{len(watched & known)} of the patients held back taught the model this one starts from: they tell too good a tale")
    write_text(out / "settings.json", json.dumps(record | {"patients": patients, "notes": grouped(remarks, most=None)}, indent=1))
    lesson = _lesson(task, settings, taught_by, [s for s in samples if s.case_id in watched])
    if resume is None:
        torch.manual_seed(settings.seed)
        task.start_afresh()
        if start is not None:
            _begin_with(task, start)
    made = _made(settings, patients, watched, known) | ({"started_from": started} if started else {})
    never = [one for one in missing if start is None or one in read_card(find(start)).made.get("not_learned", ())]
    made |= {"not_learned": never} if never else {}
    kept.made = made
    trainer.fit(lesson, ckpt_path=resume, weights_only=True)
    made |= best.put_back()
    task.cpu()
    finished = finish(task, lesson.train_samples, lesson.watch_samples) if finish is not None and trainer.is_global_zero else {}
    card = replace(task.card(), made={**made, **finished}, **words)
    model = out / f"{name}.safetensors"
    if trainer.is_global_zero:
        card = _saved(task, model, card)
    return Outcome(model, card, out, time.monotonic() - began, tuple(notes))


def _lesson(task: AnyTask, settings: TrainSettings, train: Sequence[Any], watch: Sequence[Any]) -> Lesson[Any]:
    return LessonInTurns(task, settings, train, watch) if isinstance(task, InTurns) else Lesson(task, settings, train, watch)


def _starting(task: AnyTask, start: str | Path) -> dict[str, str]:
    """What is recorded of the model that a training starts from. Raises ModelError when its net or its outputs are others."""
    card, own = checked_card(find(start)), task.card()
    found, wanted = _matters(card), _matters(own)
    differs = [f"{key}: {found[key]} there, {wanted[key]} here" for key in found if plain(found[key]) != plain(wanted[key])]
    if differs:
        raise ModelError(
            f"cannot start from this model ({'; '.join(differs)})", where=str(start), hint="give it the same net and structures"
        )
    return {"name": card.name, "sha256": card.sha256}


def _matters(card: Card) -> dict[str, object]:
    """What two models must share for one to start from the other's weights."""
    kept = {"task": card.task, **{key: card.settings.get(key) for key in ("net", "net_options", "structures", "neighbours")}}
    kept["images"] = card.settings.get("images", ("ct",))  # cards of contour models from before there was a choice
    if card.settings.get("net") == "unet3d":  # a wider one grows from it, see nets/grow.py
        kept["net_options"] = {key: value for key, value in card.settings["net_options"].items() if key != "widths"}
    return kept


def _begin_with(task: AnyTask, start: str | Path) -> None:
    """Give ``task`` the weights of a finished model; a wider net grows from them. Raises ModelError when they do not fit."""
    earlier = load_task(start)
    if isinstance(earlier.net, UNet3d) and isinstance(task.net, UNet3d):
        grow(earlier.net, task.net)
    else:
        load_weights(task.net, find(start))


def _gather(task: Task[S], cases: Iterable[Case]) -> tuple[list[S], list[str], dict[str, tuple[str, ...]]]:
    """(samples, a sentence on each case that was left out, what was remarked on reading each case)."""
    samples: list[S] = []
    notes: list[str] = []
    remarks: dict[str, tuple[str, ...]] = {}
    for case in cases:
        remarks |= _remarks(case)
        try:
            made = task.samples(case)
        except OncontourError as error:
            notes.append(f"{case.id} was left out: {error}")
            continue
        if not made:
            notes.append(f"{case.id} was left out: it has none of the wanted structures")
        samples += made
    if not samples:
        raise TrainingError(
            f"no case has anything to learn from ({'; '.join(notes[:3]) or 'there is none'})",
            hint="name structures that the patients have",
        )
    return samples, notes, remarks


def _remarks(case: Any) -> dict[str, tuple[str, ...]]:
    """Patient -> what was remarked on reading the files; of the patients of a risk model by the original that they were made of."""
    return {case.id: tuple(case.facts.get("notes", ()))} if isinstance(case, Case) else {case.original: case.remarks}


def held_back(ids: Sequence[str], settings: TrainSettings) -> set[str]:
    """Which of these patients ``fit`` learns nothing from (``settings.validation`` of them, never all): the same ids, the same answer."""
    patients = sorted(set(ids))
    count = min(round(settings.validation * len(patients)), len(patients) - 1) if patients else 0
    chosen = seeded(settings.seed, 3).permutation(len(patients))[:count]
    return {patients[n] for n in chosen}


def _trainer(out: Path, settings: TrainSettings, more: Sequence[Callback], *, in_turns: bool) -> lightning.Trainer:
    """Raises ConfigError for an accelerator or a precision that this machine does not have, neither becomes another one, and for what a
    training in turns does not do."""
    together = settings.devices * settings.nodes
    if in_turns and (together > 1 or settings.schedule == "plateau"):
        raise ConfigError(
            f"nets that learn in turns train in one process and not on a plateau, not with devices {settings.devices}, nodes "
            f"{settings.nodes} and schedule {settings.schedule!r}",
            hint="set training.devices and training.nodes to 1 and training.schedule to linear or cosine",
        )
    if settings.nodes > 1 and not any(name in os.environ for name in ("MASTER_ADDR", "SLURM_JOB_ID")):
        raise ConfigError(
            f"{settings.nodes} machines are to train together, and none knows where the first is",
            hint="set MASTER_ADDR, MASTER_PORT and NODE_RANK on each, or start them by SLURM or torchrun (docs/cohort.md)",
        )
    here = Processes.of(settings)
    try:
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            accelerator=here.accelerator,
            devices=here.devices,
            num_nodes=here.nodes,
            strategy=here.strategy,
            plugins=here.plugins,
            precision=_LIGHTNING[settings.precision],
            logger=TensorBoardLogger(str(out), name="", version="tensorboard"),
            callbacks=[SaveEpoch(out / "checkpoints"), Progress(), Curve(out / "metrics.csv"), *more],
            gradient_clip_val=None if in_turns else settings.gradient_limit or None,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            deterministic=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"{settings.devices} x {settings.accelerator!r} cannot train here ({why(error)})",
            hint="set training.accelerator to cpu, gpu or auto, and training.devices to what there is",
        ) from error
    on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
    if settings.precision == "float16" and on_cpu:
        raise ConfigError("a CPU does not train in precision float16", hint="set training.precision to bfloat16 or float32")
    if settings.precision == "bfloat16" and on_cpu and not cpu_has_bfloat16():
        raise ConfigError(
            "this CPU has neither AVX-512 BF16 nor AMX, without which bfloat16 is slower than float32",
            hint="set training.precision to float32, or train on another machine or a GPU",
        )
    return trainer


_LIGHTNING: Mapping[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}
"""What Lightning calls a precision."""


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 by itself (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _saved(task: AnyTask, model: Path, card: Card) -> Card:
    """Write the model; where these very weights lie there already, with figures that an evaluation stamped, the figures stay."""
    try:
        earlier = read_card(model) if model.exists() else None
    except ModelError:
        earlier = None
    card = save_model(task, model, card)
    if earlier is not None and earlier.metrics and earlier.sha256 == card.sha256:
        card = save_model(task, model, replace(card, metrics=earlier.metrics))
    return card


def _trained_on(start: str | Path | None) -> set[str]:
    """Patients whom the model that a training starts from had learned from: what comes of it is not new to them."""
    return set() if start is None else set(read_card(find(start)).made.get("trained_on", ()))


def _unlearned(task: Task[S], train: Sequence[S]) -> list[str]:
    """Structures of the model that are in no patient who is learned from: nothing would tell the net what they are."""
    taught = task.taught(train)
    return [name for n, name in enumerate(task.card().structures) if n not in taught]


def _told_of_missing(task: AnyTask, missing: Sequence[str], train: Sequence[Example], started: dict[str, str] | None) -> list[str]:
    """A sentence on the structures that no patient has: a quality model will not score them; one that starts from another may know them.

    Raises TrainingError for a contouring model from scratch, which would make it up.
    """
    if not missing:
        return []
    what = f"no patient to learn from has {', '.join(missing)}"
    thin = sorted({name for sample in train for name in getattr(sample, "lost", ()) if name in missing})
    what += f" ({', '.join(thin)} was contoured, too thin for a voxel of the working grid)" if thin else ""
    what += " among the masks that are learned from" if task.refuses_untaught else ""
    if started is None and task.refuses_untaught:
        return [f"{what}: the model will not score it"]
    if started is None:
        raise TrainingError(
            f"{what}: the model would make it up",
            where=f"{len({sample.case_id for sample in train})} patients",
            hint="leave it out of settings.structures, see how the patients' contours are called, or hold back others (training.seed)",
        )
    return [f"{what}: what the model knows of it is what {started['name']} knew"]


def _made(settings: TrainSettings, patients: Sequence[str], watched: set[str], known: set[str]) -> dict[str, object]:
    """``known``: whom the model that this one starts from had learned from."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "oncontour": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "training": asdict(settings),
        "patients": len(patients),
        "held_back_patients": sorted(watched - known),
        "trained_on": sorted((set(patients) - watched) | known),
    }
