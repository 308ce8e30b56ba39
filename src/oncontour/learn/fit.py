"""Training: a cohort becomes a model file.

Every draw depends on (seed, epoch, position) and on nothing else, so a run that was killed and resumed from its last epoch, and a second
run of the same seed, follow the same curve bit for bit on a CPU. Checkpoints hold tensors and plain values alone and are read with torch's
``weights_only`` loader: no pickle is executed.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oncontour import __version__
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.errors import ConfigError, ModelError, OncontourError, TrainingError
from oncontour.files import write_text
from oncontour.learn.callbacks import Curve, Progress, SaveEpoch, Snapshots
from oncontour.learn.card import Card, checked_card, find, read_card
from oncontour.learn.card import notes as notes_of
from oncontour.learn.resume import alone_in, check_same_patients, plain, record_of, resumed
from oncontour.learn.task import Draw, Task, load_task, load_weights, save_model, seeded
from oncontour.learn.train_settings import TrainSettings
from oncontour.libraries import memory_told, why
from oncontour.nets.grow import grow
from oncontour.nets.unet import UNet3d


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
    with alone_in(out), memory_told():
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
    record = record_of(task, settings, started, out)
    resume = resumed(out, record, {"task_settings": getattr(task, "settings", None), "training": settings})
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    kept = Snapshots(task, out, name, snapshots, {})
    trainer = _trainer(out, settings, [kept] if snapshots else [])  # what this machine cannot do is told before patients are read
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
    differs = [f"{key}: {found[key]} there, {wanted[key]} here" for key in found if plain(found[key]) != plain(wanted[key])]
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
