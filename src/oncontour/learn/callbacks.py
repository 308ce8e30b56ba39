"""What goes on beside a training: its progress, its curve, its checkpoints, and models kept on the way."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from oncontour.errors import OutputError
from oncontour.files import write_text
from oncontour.learn.task import AnyTask, save_model
from oncontour.libraries import is_out_of_memory, why


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

    def state_dict(self) -> dict[str, object]:
        """Nothing: Lightning would keep where the files lie on this machine, and there is only one of them."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
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


class KeepBest(Callback):
    """The weights of the epoch whose watched loss was lowest, where that is ``wanted``; they are part of every checkpoint."""

    def __init__(self, net: nn.Module, wanted: bool) -> None:
        self.net, self.wanted = net, wanted
        self.loss, self.epoch, self.weights = math.inf, 0, dict[str, Tensor]()

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        loss = float(trainer.callback_metrics.get("watch_loss", math.inf))
        if self.wanted and loss < self.loss:
            self.loss, self.epoch = loss, trainer.current_epoch + 1
            self.weights = {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}

    def put_back(self) -> dict[str, object]:
        """Give the net these weights; what the card tells of them. Nothing where they are not wanted, or no epoch was watched."""
        if not self.weights:
            return {}
        self.net.load_state_dict(self.weights)
        return {"kept": {"epoch": self.epoch, "watch_loss": self.loss}}

    def state_dict(self) -> dict[str, object]:
        return {"loss": self.loss, "epoch": self.epoch, "weights": self.weights} if self.wanted else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.wanted:
            self.loss, self.epoch, self.weights = state_dict["loss"], state_dict["epoch"], state_dict["weights"]


class Snapshots(Callback):
    """Models kept on the way: half-trained segmenters make the mistakes that quality is learned from."""

    def __init__(self, task: AnyTask, folder: Path, name: str, epochs: Sequence[int], made: dict[str, object]) -> None:
        self.task, self.folder, self.name, self.epochs, self.made = task, folder, name, tuple(epochs), made

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done in self.epochs and trainer.is_global_zero:
            name = f"{self.name}-epoch{done}"
            save_model(self.task, self.folder / f"{name}.safetensors", replace(self.task.card(), name=name, made=self.made))
