"""Training: a cohort becomes a model file.

Every draw depends on (seed, epoch, position) and on nothing else, so a run that was killed and resumed from its last epoch, and a second
run of the same seed, follow the same curve bit for bit on a CPU. Checkpoints hold tensors and plain values alone and are read with torch's
``weights_only`` loader: no pickle is executed.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oncontour import __version__
from oncontour.contour.task import ContourSettings, ContourTask
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.documents import read_json
from oncontour.errors import ConfigError, GeometryError, InputError, ModelError, OncontourError, OutputError, TrainingError
from oncontour.files import check_writable, write_text
from oncontour.learn.card import Card, checked_card, find, portable, read_card
from oncontour.learn.card import notes as notes_of
from oncontour.learn.task import Draw, Task, load_task, load_weights, save_model, seeded
from oncontour.libraries import is_out_of_memory, memory_told, why
from oncontour.nets.grow import grow
from oncontour.nets.unet import UNet3d
from oncontour.quality.task import AssessSettings, AssessTask
from oncontour.risk.feature_selection import Selection
from oncontour.risk.inputs import Patient
from oncontour.risk.task import SIMULATED, RiskSettings, RiskTask, prepared


@dataclass(frozen=True)
class TrainSettings:
    """How a task is trained. ``paper()`` is the recipe of Xue et al. 2020."""

    epochs: int = 100
    """how often the task's plan of draws is gone through"""
    batch: int = 2
    """draws an optimiser step"""
    learning_rate: float = 2e-3
    """of Adam (plateau) or AdamW (cosine)"""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """cosine to nothing after a short warm-up; or x0.8 after 5 epochs without gain (Xue et al. 2020)"""
    weight_decay: float = 1e-4
    """of AdamW"""
    gradient_limit: float = 5.0
    """norm that gradients are cut to; 0 leaves them"""
    validation: float = 0.1
    """fraction of the training patients held back to watch the loss (never the validation cohort)"""
    seed: int = 0
    """everything random follows from it"""
    devices: int = 1
    """processes; above 1 by DDP"""
    accelerator: str = "auto"
    """cpu, gpu, or auto"""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """of the arithmetic"""
    threads: int | None = None
    """CPU threads; torch's choice by default"""
    workers: int = 0
    """processes that prepare windows beside the training"""

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch": 1, "devices": 1, "threads": 1, "workers": 0, "seed": 0, "weight_decay": 0, "gradient_limit": 0}
        values = asdict(self)
        wrong = [
            f"{name} {values[name]} (at least {low})" for name, low in least.items() if values[name] is not None and not values[name] >= low
        ]
        wrong += [] if self.learning_rate > 0 else [f"learning_rate {self.learning_rate} (above 0)"]
        wrong += [] if 0 <= self.validation < 1 else [f"validation {self.validation} (from 0, below 1)"]
        if wrong:
            raise ConfigError(f"training settings out of range: {', '.join(wrong)}")

    @classmethod
    def paper(cls, **changes: Any) -> TrainSettings:
        """Adam at 0.005, factor 0.8 after 5 epochs without gain, 200 epochs, batch 8 (Xue et al. 2020, section 2.3)."""
        recipe = cls(epochs=200, batch=8, learning_rate=5e-3, schedule="plateau", weight_decay=0.0, gradient_limit=0.0)
        return replace(recipe, **changes)


RISK_TRAINING = TrainSettings(epochs=30, batch=32, learning_rate=3e-3, weight_decay=1e-2, validation=0.15)
"""Of a risk model, by default."""


class Draws(Dataset[dict[str, Tensor]]):
    """The planned draws of one epoch."""

    def __init__(self, task: Task[Any], samples: Sequence[Any], draws: Sequence[Draw]) -> None:
        self.task, self.samples, self.draws = task, samples, draws

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        return self.task.item(self.samples, self.draws[n])


class Lesson(lightning.LightningModule):
    """A task under training."""

    def __init__(self, task: Task[Any], settings: TrainSettings, train: Sequence[Any], watch: Sequence[Any]) -> None:
        super().__init__()
        self.task, self.settings, self.train_samples, self.watch_samples = task, settings, train, watch
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_held: dict[str, Any] = {}

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        rng = seeded(self.settings.seed, 1, self.current_epoch)
        draws = self.task.plan(self.train_samples, rng, train=True)
        return self._loader(self.train_samples, draws, even=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]] | list[Any]:
        if not self.watch_samples:
            return []
        draws = self.task.plan(self.watch_samples, seeded(self.settings.seed, 2), train=False)
        return self._loader(self.watch_samples, draws, even=False)

    def _loader(self, samples: Sequence[Any], draws: list[Draw], *, even: bool) -> DataLoader[dict[str, Tensor]]:
        world, batch = self.trainer.world_size, self.settings.batch
        if even:
            # A last batch of one would leave BatchNorm nothing to average; ranks must take equally many steps.
            whole = len(draws) // (world * batch) * world * batch
            draws = draws[:whole] if whole else (draws * (world * batch))[: world * batch]
        return DataLoader(Draws(self.task, samples, draws[self.trainer.global_rank :: world]), batch, num_workers=self.settings.workers)

    def on_train_epoch_start(self) -> None:
        # Dropout of epoch n is the same whether or not the run was interrupted before it.
        torch.manual_seed(self.settings.seed * 100003 + self.current_epoch)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss, figures = self.task.loss(batch)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {float(loss)} in epoch {self.current_epoch}", hint="lower the learning rate")
        self._note("train", loss, figures, len(batch["image"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        loss, figures = self.task.loss(batch)
        self._note("watch", loss, figures, len(batch["image"]))

    def on_train_epoch_end(self) -> None:
        # By hand: Lightning steps it only after the epoch's checkpoint is written, and a resumed run would never hear of that epoch.
        if self.plateau is not None:
            figures = self.trainer.callback_metrics
            self.plateau.step(float(figures.get("watch_loss", figures["train_loss"])))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Where Lightning kept it for runs that were begun before we did.
        earlier: dict[str, Any] = next(iter(checkpoint.get("lr_schedulers", ())), {})
        self._plateau_held = dict(checkpoint.get("plateau", earlier))  # the schedule itself is made after this

    def _note(self, stage: str, loss: Tensor, figures: dict[str, float], size: int) -> None:
        values: dict[str, Any] = {f"{stage}_loss": loss.detach(), **{f"{stage}_{name}": value for name, value in figures.items()}}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        s = self.settings
        weights = self.task.net.parameters()
        if s.schedule == "plateau":
            adam = torch.optim.Adam(weights, lr=s.learning_rate, weight_decay=s.weight_decay)
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=0.8, patience=5)
            self.plateau.load_state_dict(self._plateau_held)
            return adam
        adamw = torch.optim.AdamW(weights, lr=s.learning_rate, weight_decay=s.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, min(50, steps // 20))
        cosine = torch.optim.lr_scheduler.LambdaLR(adamw, _Cosine(warm, steps))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


@dataclass
class _Cosine:
    warm: int
    steps: int

    def __call__(self, step: int) -> float:
        if step < self.warm:
            return (step + 1) / self.warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warm) / max(1, self.steps - self.warm))))


class Progress(Callback):
    """One line an epoch with the time that is left."""

    def __init__(self) -> None:
        self.start, self.first = time.monotonic(), 0

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self.start, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        if trainer.global_rank:
            return
        done = trainer.current_epoch + 1
        each = (time.monotonic() - self.start) / (done - self.first)
        left = each * ((trainer.max_epochs or done) - done)
        figures = "  ".join(f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
        sys.stderr.write(f"epoch {done}/{trainer.max_epochs}  {figures}  {each:.1f} s each, {left / 60:.1f} min left\n")
        sys.stderr.flush()


class Curve(Callback):
    """``metrics.csv``: one line an epoch, whole at every moment; a resumed run goes on below the lines of the epochs before it."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, str]]()

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        if self.path.exists() and trainer.current_epoch:
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        if trainer.global_rank:
            return
        figures = {name: str(float(value)) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": str(trainer.current_epoch), "step": str(trainer.global_step), **figures})
        names = sorted({name for row in self.rows for name in row} - {"epoch", "step"})
        text = io.StringIO()
        table = csv.DictWriter(text, ["epoch", "step", *names], lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.path, text.getvalue())


class SaveEpoch(ModelCheckpoint):
    """``last.ckpt`` after every epoch, renamed into place so that a killed run never leaves half of one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder, filename="last", save_top_k=1, every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning would keep where the files lie on this machine, and there is only one of them."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Checkpoints of earlier versions hold paths, of a machine that may be another."""

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        part = Path(filepath + ".part")
        try:
            super()._save_checkpoint(trainer, str(part))
            if trainer.is_global_zero:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                part.replace(filepath)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError of its own
            part.unlink(missing_ok=True)
            if is_out_of_memory(error):
                raise
            raise OutputError(
                f"the checkpoint of epoch {trainer.current_epoch + 1} cannot be written ({why(error)})",
                where=filepath,
                hint="is the disk full? Started again, the training goes on from the epoch before",
            ) from error
        trainer.strategy.barrier()


class Snapshots(Callback):
    """Models kept on the way: half-trained segmenters make the mistakes that quality is learned from."""

    def __init__(self, task: Task[Any], folder: Path, name: str, epochs: Sequence[int], made: dict[str, Any]) -> None:
        self.task, self.folder, self.name, self.epochs, self.made = task, folder, name, tuple(epochs), made

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done in self.epochs and trainer.is_global_zero:
            name = f"{self.name}-epoch{done}"
            save_model(self.task, self.folder / f"{name}.safetensors", replace(self.task.card(), name=name, made=self.made))


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
    task: Task[Any],
    cases: Iterator[Case] | Sequence[Case],
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
) -> Outcome:
    """Train ``task`` on ``cases`` and write OUT/NAME.safetensors, metrics.csv, TensorBoard events and checkpoints/last.ckpt.

    Weights begin at random or, with ``start``, at those of a finished model (a file or a shipped name) of the same net
    and structures; a wider 3D U-Net grows from a narrower one.
    Resumes by itself when OUT holds a checkpoint of the same settings and patients; refuses (OutputError) when it holds another run's, or
    when another training is at work there. A case that cannot be read is named in the outcome's notes and left out. After each epoch of
    ``snapshots`` the model of that moment is kept as OUT/NAME-epochN.safetensors. Raises TrainingError when nothing is left to learn
    from, or when a structure to contour is in no patient to learn from (with ``start`` that is a note), ModelError when ``start`` does
    not fit, ConfigError for what this machine cannot do, MemoryError where memory runs out, whichever library says so.
    """
    out = Path(out)
    words: dict[str, Any] = {"name": name, "data": data, "licence": licence, "limits": limits, "region": region}
    with _alone(out), memory_told():
        return _fit(task, cases, out, settings, words, start, snapshots)


def _fit(
    task: Task[Any],
    cases: Iterator[Case] | Sequence[Case],
    out: Path,
    settings: TrainSettings,
    words: dict[str, Any],
    start: str | Path | None,
    snapshots: Sequence[int],
) -> Outcome:
    """``fit`` in a folder that is held; ``words`` go into the card."""
    began, name = time.monotonic(), words["name"]
    started = None if start is None else _starting(task, start)
    record = _record(task, settings, started, out)
    resume = _resumed(out, record, {"task_settings": getattr(task, "settings", None), "training": settings})
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    kept = Snapshots(task, out, name, snapshots, {})
    trainer = _trainer(out, settings, [kept] if snapshots else [])  # what this machine cannot do is told before patients are read
    lightning.seed_everything(settings.seed, workers=True, verbose=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    samples, notes, remarks = _gather(task, cases)
    patients = sorted({s.case_id for s in samples})
    if resume is not None:
        _check_same_patients(out, patients)
    watched = held_back(patients, settings)
    known = _trained_on(start)
    taught_by = [s for s in samples if s.case_id not in watched]
    missing = _unlearned(task, taught_by)
    notes += _told_of_missing(task, missing, taught_by, started)
    notes += [] if start is None else [f"{start}: {note}" for note in notes_of(read_card(find(start)))]
    if watched & known:
        notes.append(f"{len(watched & known)} of the patients held back taught the model this one starts from: they tell too good a tale")
    write_text(out / "settings.json", json.dumps(record | {"patients": patients, "notes": grouped(remarks, most=None)}, indent=1))
    lesson = Lesson(task, settings, taught_by, [s for s in samples if s.case_id in watched])
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
    task.cpu()
    finished = task.finish(lesson.train_samples, lesson.watch_samples) if trainer.is_global_zero else {}
    card = replace(task.card(), made=made | finished, **words)
    model = out / f"{name}.safetensors"
    if trainer.is_global_zero:
        card = _saved(task, model, card)
    return Outcome(model, card, out, time.monotonic() - began, tuple(notes))


def _starting(task: Task[Any], start: str | Path) -> dict[str, str]:
    """What is recorded of the model that a training starts from. Raises ModelError when its net or its outputs are others."""
    card, own = checked_card(find(start)), task.card()
    found, wanted = _matters(card), _matters(own)
    differs = [f"{key}: {found[key]} there, {wanted[key]} here" for key in found if _plain(found[key]) != _plain(wanted[key])]
    if differs:
        raise ModelError(
            f"cannot start from this model ({'; '.join(differs)})", where=str(start), hint="give it the same net and structures"
        )
    return {"name": card.name, "sha256": card.sha256}


def _matters(card: Card) -> dict[str, Any]:
    """What two models must share for one to start from the other's weights."""
    kept = {"task": card.task, **{key: card.settings.get(key) for key in ("net", "net_options", "structures", "neighbours")}}
    if card.settings.get("net") == "unet3d":  # a wider one grows from it, see nets/grow.py
        kept["net_options"] = {key: value for key, value in card.settings["net_options"].items() if key != "widths"}
    return kept


def _begin_with(task: Task[Any], start: str | Path) -> None:
    """Give ``task`` the weights of a finished model; a wider net grows from them. Raises ModelError when they do not fit."""
    earlier = load_task(start)
    if isinstance(earlier.net, UNet3d) and isinstance(task.net, UNet3d):
        grow(earlier.net, task.net)
    else:
        load_weights(task.net, find(start))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _record(task: Task[Any], settings: TrainSettings, started: dict[str, str] | None, out: Path) -> dict[str, Any]:
    """What settings.json holds: everything that makes this run what it is, and no place on this machine."""
    wanted = {"task": task.name, "task_settings": portable(task.card().settings, out), "training": asdict(settings)}
    return dict(_plain(wanted | ({"started_from": started} if started else {})))


def _resumed(out: Path, record: dict[str, Any], made_of: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from, if any. Raises OutputError when OUT holds a run of other settings or cannot be written.

    ``made_of`` are the settings behind parts of ``record``: one that came after OUT was begun counts as its default there.
    """
    check_writable(out)
    settings, last = out / "settings.json", out / "checkpoints" / "last.ckpt"
    if settings.exists():
        held = _held(settings)
        held.pop("patients", None)  # they are compared once they were read
        held.pop("notes", None)
        held |= {key: _completed(held[key], made_of[key]) for key in made_of if key in held}
        if isinstance(held.get("task_settings"), dict):
            held["task_settings"] = portable(held["task_settings"], out)  # earlier versions wrote a path
        differs = sorted(_differences(_as_made(held), _as_made(record)))
        if differs:
            raise OutputError(
                f"the folder holds another run (different: {', '.join(differs)})", where=str(out), hint="choose another --out"
            )
    if not last.exists():
        return None
    _check_checkpoint(last)
    return last


def _check_checkpoint(path: Path) -> None:
    """Raise OutputError where a checkpoint is damaged or holds more than tensors and plain values, before anything is done."""
    hint = "delete it to begin anew, or choose another --out"
    if not zipfile.is_zipfile(path):
        raise OutputError("the checkpoint is damaged", where=str(path), hint=hint)
    try:
        with memory_told():
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:  # of whatever kind: it is not one that a training wrote
        raise OutputError(
            "the checkpoint is damaged, or holds more than tensors and plain values, which is not loaded", where=str(path), hint=hint
        ) from error
    if not isinstance(held, dict) or not {"state_dict", "loops", "epoch"} <= set(held):
        raise OutputError("the checkpoint is damaged: it is not of a training", where=str(path), hint=hint)


def _held(settings: Path) -> dict[str, Any]:
    """What a run's settings.json says. Raises OutputError where it cannot be read as such."""
    try:
        found = read_json(settings)
    except InputError as error:
        raise OutputError(
            f"the settings of the run cannot be read ({error.what})", where=str(settings), hint="choose another --out"
        ) from error
    if not isinstance(found, dict):
        raise OutputError("the settings of the run are no JSON object", where=str(settings), hint="choose another --out")
    return found


def _as_made(record: dict[str, Any]) -> dict[str, Any]:
    """``record`` with what makes no other net spelled alike: structures that nobody said may overlap are kept apart, as with false."""
    task = record.get("task_settings")
    if isinstance(task, dict) and "overlap" in task:
        return record | {"task_settings": task | {"overlap": bool(task["overlap"])}}
    return record


def _completed(held: Any, settings: Any) -> Any:
    """``held``, what was written of a dataclass of settings, with the defaults of those fields that it does not have."""
    if not (isinstance(held, dict) and is_dataclass(settings)):
        return held
    out = dict(held)
    for one in fields(settings):
        if one.name in held:
            out[one.name] = _completed(held[one.name], getattr(settings, one.name))
        elif one.default is not MISSING or one.default_factory is not MISSING:
            default = one.default_factory() if one.default_factory is not MISSING else one.default
            out[one.name] = _plain(asdict(default) if is_dataclass(default) and not isinstance(default, type) else default)
    return out


def _differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {*a, *b}:
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    elif a != b:
        yield path


def _gather(task: Task[Any], cases: Iterator[Case] | Sequence[Case]) -> tuple[list[Any], list[str], dict[str, tuple[str, ...]]]:
    """(samples, a sentence on each case that was left out, what was remarked on reading each case)."""
    samples: list[Any] = []
    notes: list[str] = []
    remarks: dict[str, tuple[str, ...]] = {}
    for case in cases:
        remarks[case.id] = _remarks(case)
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


def _remarks(case: Any) -> tuple[str, ...]:
    """What was remarked on reading a case; a risk model's patients bring none."""
    return tuple(case.facts.get("notes", ())) if isinstance(case, Case) else ()


def held_back(ids: Sequence[str], settings: TrainSettings) -> set[str]:
    """Which of these patients ``fit`` learns nothing from (``settings.validation`` of them, never all): the same ids, the same answer."""
    patients = sorted(set(ids))
    count = min(round(settings.validation * len(patients)), len(patients) - 1) if patients else 0
    chosen = seeded(settings.seed, 3).permutation(len(patients))[:count]
    return {patients[n] for n in chosen}


def _trainer(out: Path, settings: TrainSettings, more: Sequence[Callback] = ()) -> lightning.Trainer:
    """Raises ConfigError for an accelerator or a precision that this machine does not have; neither becomes another one."""
    try:
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy="ddp" if settings.devices > 1 else "auto",
            precision=settings.precision,
            logger=TensorBoardLogger(str(out), name="", version="tensorboard"),
            callbacks=[SaveEpoch(out / "checkpoints"), Progress(), Curve(out / "metrics.csv"), *more],
            gradient_clip_val=settings.gradient_limit or None,
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
    if settings.precision == "16-mixed" and isinstance(trainer.accelerator, CPUAccelerator):
        raise ConfigError("a CPU does not train in precision 16-mixed", hint="set training.precision to bf16-mixed or 32-true")
    return trainer


def _saved(task: Task[Any], model: Path, card: Card) -> Card:
    """Write the model; where these very weights lie there already, with figures that an evaluation stamped, the figures stay."""
    try:
        earlier = read_card(model) if model.exists() else None
    except ModelError:
        earlier = None
    card = save_model(task, model, card)
    if earlier is not None and earlier.metrics and earlier.sha256 == card.sha256:
        card = save_model(task, model, replace(card, metrics=earlier.metrics))
    return card


def _check_same_patients(out: Path, patients: Sequence[str]) -> None:
    """Raise OutputError where the run in OUT has learned from others: who was held back would not be the same, and some that were learned
    from would count as strangers. A run that was begun before this was written down is taken at its word."""
    held = _held(out / "settings.json").get("patients")
    if held is None or held == list(patients):
        return
    more, gone = sorted(set(patients) - set(held)), sorted(set(held) - set(patients))
    said = [f"{len(names)} {word} ({', '.join(names[:3])})" for names, word in ((more, "new"), (gone, "missing")) if names]
    raise OutputError(
        f"the folder holds a run on other patients ({'; '.join(said)})", where=str(out), hint="choose another --out, or the same cohort"
    )


def _trained_on(start: str | Path | None) -> set[str]:
    """Whom the model that a training starts from had learned from: they are no strangers to what comes of it."""
    return set() if start is None else set(read_card(find(start)).made.get("trained_on", ()))


def _unlearned(task: Task[Any], train: Sequence[Any]) -> list[str]:
    """Structures of the model that are in no patient who is learned from: nothing would tell the net what they are."""
    taught = task.taught(train)
    return [name for n, name in enumerate(task.card().structures) if n not in taught]


def _told_of_missing(task: Task[Any], missing: Sequence[str], train: Sequence[Any], started: dict[str, str] | None) -> list[str]:
    """A sentence about what nobody teaches: a quality model will not score it, a model that starts from another one may know it.

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


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold OUT for this training until it ends, however it ends. Raises OutputError where another one is at work in it.

    The processes of one training (ranks above 0) go in with the first. Where the system knows no locks nothing is held.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")):
        yield
        return
    try:
        import fcntl
    except ImportError:
        yield
        return
    check_writable(out)
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        for patience in range(20, -1, -1):  # what a killed training left behind (its workers) goes within seconds
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not patience:
                    hint = "wait for it, or choose another --out"
                    raise OutputError("another training is at work in this folder", where=str(out), hint=hint) from error
                time.sleep(0.5)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)
        if made and not any(out.iterdir()):
            out.rmdir()


def _made(settings: TrainSettings, patients: Sequence[str], watched: set[str], known: set[str]) -> dict[str, Any]:
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


def read_cases(cohort: Any, *, tell: bool = True) -> Iterator[Case]:
    """The cases of a cohort one by one; one that cannot be read is named on stderr and skipped. With ``tell`` as ``telling``."""
    return telling(_readable(cohort)) if tell else _readable(cohort)


def telling(cases: Iterator[Case]) -> Iterator[Case]:
    """``cases``; at the end what was remarked on reading them goes to stderr, a line for those of whom the same was."""
    notes: dict[str, tuple[str, ...]] = {}
    for case in cases:
        notes[case.id] = tuple(case.facts.get("notes", ()))
        yield case
    sys.stderr.write("".join(f"{line}\n" for line in grouped(notes)))


def _readable(cohort: Any) -> Iterator[Case]:
    for patient in cohort.ids:
        try:
            yield cohort[patient]
        except (InputError, GeometryError) as error:
            sys.stderr.write(f"{patient} was left out: {error}\n")


def changed(training: TrainSettings, **instead: int | None) -> TrainSettings:
    """``training`` with those of ``instead`` that are told."""
    told: dict[str, Any] = {key: value for key, value in instead.items() if value is not None}
    return replace(training, **told)


def contour(
    cohort: Path,
    *,
    out: Path,
    settings: ContourSettings,
    training: TrainSettings = TrainSettings(),
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    region: str = "",
    start: str | None = None,
    epochs: int | None = None,
    devices: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a contouring model on a cohort: a folder (or CSV) of patients as DICOM CT + RTSTRUCT, NIfTI or OpenKBP CSV.

    Writes OUT/NAME.safetensors (the model, its card in the header), OUT/metrics.csv, OUT/tensorboard and a checkpoint after every epoch.
    Started again with the same OUT it goes on from the last whole epoch, to the same curve.

    Examples:
      oncontour train contour COHORT --out runs/neck --config examples/hn-organs.yaml
      oncontour train contour COHORT --out runs/cord --settings.structures SpinalCord --epochs 20
      oncontour train contour COHORT --out runs/neck --config examples/hn-organs.yaml --devices 2
      oncontour train contour COHORT --out runs/ours --config examples/hn-organs.yaml --start hn-organs --epochs 10

    Args:
        cohort: folder with one folder a patient, or a CSV with columns patient,path; what patients are called there goes into the
            model's card
        out: folder of the run
        settings: what the model is: structures, net, grid, windows, loss, augmentation
        training: how it is trained
        name: of the model file
        data: what it is trained on, for the card
        licence: of the weights, for the card
        limits: what the model is not for, for the card
        region: of the body the model is for, e.g. "head and neck"
        start: a finished model (file or shipped name) of the same net and structures whose weights to begin with
        epochs: instead of training.epochs
        devices: processes, instead of training.devices
        seed: instead of training.seed
    """
    from oncontour.io.cohort import Cohort

    training, task = changed(training, epochs=epochs, devices=devices, seed=seed), ContourTask(settings)
    patients = Cohort.open(cohort)
    outcome = fit(
        task, read_cases(patients), out, training, name=name, data=data, licence=licence, limits=limits, region=region, start=start
    )
    return str(outcome)


def assess(
    cohort: Path,
    *,
    out: Path,
    settings: AssessSettings,
    claims: list[Path] | None = None,
    training: TrainSettings = TrainSettings(),
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    region: str = "",
    epochs: int | None = None,
    devices: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a contour quality model: how right is each slice of a contour, told from the CT and the contour alone?

    It learns from contours that real segmenters drew (--claims: a folder with one folder of patients a segmenter, as `oncontour predict`
    makes it, of patients that the segmenter did not learn from) and from clinical errors made by a generator, each slice labelled by its
    true DSC. The patients held back (training.validation) give the lower bound its error rate and the gate its limit; hold back 40 or more.
    With settings.own it also learns from how sure each segmenter was: claims drawn with `oncontour predict --chances`, and those alone.

    Examples:
      oncontour train assess COHORT --claims CLAIMS --out runs/quality --config examples/hn-quality.yaml
      oncontour train assess COHORT --out runs/cord --settings.structures SpinalCord --settings.variants 8 --epochs 20

    Args:
        cohort: folder with one folder a patient with the true contours, or a CSV with columns patient,path; what patients are called
            there goes into the model's card
        out: folder of the run
        settings: what the model is: structures, heads, net, window, generator
        claims: folder of segmenters' contours, SOURCE/PATIENT/masks/NAME.nii.gz; again for several
        training: how it is trained
        name: of the model file
        data: what it is trained on, for the card
        licence: of the weights, for the card
        limits: what the model is not for, for the card
        region: of the body the model is for, e.g. "head and neck"
        epochs: instead of training.epochs
        devices: processes, instead of training.devices
        seed: instead of training.seed
    """
    from oncontour.io.cohort import Cohort
    from oncontour.quality.segmenters import with_claims

    training, task = changed(training, epochs=epochs, devices=devices, seed=seed), AssessTask(settings)
    cases = telling(with_claims(read_cases(Cohort.open(cohort), tell=False), claims or [], chances=settings.own))
    outcome = fit(task, cases, out, training, name=name, data=data, licence=licence, limits=limits, region=region)
    return "\n".join([*_no_bound(outcome.card), str(outcome)])


def _no_bound(card: Card) -> list[str]:
    """A sentence where a quality model was left without a lower bound."""
    made, coverage = card.made.get("calibration", {}), float(card.settings["coverage"])
    if "all" in made.get("offsets", {}):
        return []
    need = math.ceil(coverage / (1 - coverage) - 1e-9)
    return [
        f"The model has no lower bound: {made.get('patients', 0)} patients were held back, at least {need} are needed for {coverage:.0%}. "
        "Raise training.validation, or use oncontour calibrate."
    ]


def learned_from(patients: Sequence[Patient], toxicities: Sequence[str], training: TrainSettings) -> list[Patient]:
    """Those whom ``fit`` will learn a risk from (an outcome is known, and they are not held back): they alone choose and standardise."""
    known = [p for p in patients if any(name in p.outcomes for name in toxicities)]
    kept = held_back([p.original for p in known], training)
    return [p for p in known if p.original not in kept]


def risk(
    cohort: Path,
    *,
    outcomes: Path,
    out: Path,
    settings: RiskSettings,
    selection: Selection = Selection(),  # noqa: B008  (frozen: one value for all calls)
    training: TrainSettings = RISK_TRAINING,
    hospital: str | None = None,
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    epochs: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a risk model on a cohort with dose and contours, and a table of outcomes.

    OUTCOMES is a CSV: a column patient (a folder of the cohort), a column of 0 and 1 for each toxicity (empty where nobody knows), columns
    of facts. Tables made by 'oncontour simulate outcomes' are taken alike; the model then says that its outcomes were simulated wherever it
    is used. Dosiomic features are chosen, and everything is standardised, by the training patients. Patients held back
    (training.validation; virtual patients of one original stay together) watch the loss and recalibrate the probabilities.
    Writes OUT/NAME.safetensors, OUT/tripod.md (what a reader must know of the model) and logs.

    Examples:
        oncontour train risk COHORT --outcomes OUT/outcomes.csv --out runs/risk --hospital home --settings.facts chemo,age
        oncontour train risk COHORT --outcomes outcomes.csv --out runs/risk --settings.toxicities esophagitis_g2 --epochs 40

    Args:
        cohort: folder with one folder a patient (images, structures, dose), or a CSV with columns patient,path
        outcomes: table of outcomes and facts
        out: folder of the run
        settings: what the model is: toxicities, organ, net, window, region, contrast
        selection: how dosiomic features are chosen
        training: how it is trained
        hospital: only the patients of this hospital of the table
        name: of the model file
        data: what it is trained on, for the card
        licence: of the weights, for the card
        limits: what the model is not for, for the card
        epochs: instead of training.epochs
        seed: instead of training.seed
    """
    from oncontour.io.cohort import Cohort
    from oncontour.report.tripod import tripod
    from oncontour.risk.cohort import gather
    from oncontour.risk.outcome_table import read_outcomes

    table = read_outcomes(outcomes, settings.toxicities, settings.facts)
    table = table if hospital is None else table.of(hospital)
    settings = replace(settings, toxicities=table.toxicities)
    training = changed(training, epochs=epochs, seed=seed)
    RiskTask(settings)  # refuses settings that cannot be before patients are read
    patients, notes = gather(table, Cohort.open(cohort), settings.view, features=settings.dosiomics)
    task = RiskTask(prepared(settings, learned_from(patients, settings.toxicities, training), selection))
    limits = " ".join(text for text in (SIMULATED if task.settings.simulated else "", limits) if text)
    known = [p for p in patients if any(name in p.outcomes for name in table.toxicities)]
    if len(known) < len(patients):
        notes.append(f"{len(patients) - len(known)} patients of whom no outcome is known teach nothing")
    done = fit(task, known, out, training, name=name, data=data, licence=licence, limits=limits)  # type: ignore[arg-type]
    write_text(out / "tripod.md", tripod(done.card, patients))
    head = [SIMULATED] if task.settings.simulated else []
    return "\n".join([*head, *notes, str(done)])
