"""One epoch after another, for Lightning: a task's planned draws, its loss, its optimisers and their rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from oncontour.errors import TrainingError
from oncontour.learn.task import Draw, InTurns, S, Task, seeded
from oncontour.learn.train_settings import TrainSettings


class Draws(Dataset[dict[str, Tensor]], Generic[S]):
    """The planned draws of one epoch."""

    def __init__(self, task: Task[S], samples: Sequence[S], draws: Sequence[Draw]) -> None:
        self.task, self.samples, self.draws = task, samples, draws

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        return self.task.item(self.samples, self.draws[n])


class Lesson(lightning.LightningModule, Generic[S]):
    """A task under training."""

    def __init__(self, task: Task[S], settings: TrainSettings, train: Sequence[S], watch: Sequence[S]) -> None:
        super().__init__()
        self.task, self.settings, self.train_samples, self.watch_samples = task, settings, train, watch
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_held: dict[str, object] = {}

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        rng = seeded(self.settings.seed, 1, self.current_epoch)
        draws = self.task.plan(self.train_samples, rng, train=True)
        return self._loader(self.train_samples, draws, even=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]] | list[object]:
        if not self.watch_samples:
            return []
        draws = self.task.plan(self.watch_samples, seeded(self.settings.seed, 2), train=False)
        return self._loader(self.watch_samples, draws, even=False)

    def _loader(self, samples: Sequence[S], draws: list[Draw], *, even: bool) -> DataLoader[dict[str, Tensor]]:
        world, batch = self.trainer.world_size, self.settings.batch
        if even:
            # A last batch of one would leave BatchNorm nothing to average; ranks must take equally many steps.
            whole = len(draws) // (world * batch) * world * batch
            draws = draws[:whole] if whole else (draws * (world * batch))[: world * batch]
        return DataLoader(Draws(self.task, samples, draws[self.trainer.global_rank :: world]), batch, num_workers=self.settings.workers)

    def on_train_batch_start(self, batch: dict[str, Tensor], n: int) -> None:
        # Dropout of an epoch is the same whether or not the run was interrupted before it. Not at its start: a loader draws from the same
        # generator when it begins, and in a resumed run it has done so before.
        if n == 0:
            torch.manual_seed(self.settings.seed * 100003 + self.current_epoch)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss, figures = self.task.loss(batch)
        self._check(loss)
        self._note("train", loss, figures, len(batch["image"]))
        return loss

    def _check(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {float(loss)} in epoch {self.current_epoch}", hint="lower the learning rate")

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
        values: dict[str, Tensor | float] = {
            f"{stage}_loss": loss.detach(),
            **{f"{stage}_{name}": value for name, value in figures.items()},
        }
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
        rate = torch.optim.lr_scheduler.LambdaLR(adamw, rate_of(s.schedule, max(1, int(self.trainer.estimated_stepping_batches))))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


class LessonInTurns(Lesson[S]):
    """A task whose parts learn in turns: each batch is one step of each, the next on what the last became."""

    task: InTurns[S]

    def __init__(self, task: InTurns[S], settings: TrainSettings, train: Sequence[S], watch: Sequence[S]) -> None:
        super().__init__(task, settings, train, watch)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], n: int) -> None:  # type: ignore[override]  # the steps are taken here
        s, batches = self.settings, int(self.trainer.num_training_batches)
        rate = s.learning_rate * rate_of(s.schedule, s.epochs * batches)(self.current_epoch * batches + n)
        losses, told = [], dict[str, float]()
        for optimiser, (loss, figures) in zip(self.optimizers(), self.task.turns(batch), strict=True):
            self._check(loss)
            optimiser.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimiser, s.gradient_limit or None, "norm")
            optimiser.param_groups[0]["lr"] = rate  # from the step alone: a resumed run has nothing to remember
            optimiser.step()
            losses.append(loss.detach())
            told |= figures
        self._note("train", losses[0], told, len(batch["image"]))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        s = self.settings
        return [
            torch.optim.AdamW(weights, lr=s.learning_rate, betas=self.task.betas, weight_decay=s.weight_decay)
            for weights in self.task.parts()
        ]


def rate_of(schedule: str, steps: int) -> Callable[[int], float]:
    """Step -> part of the learning rate. ``cosine``: a short warm-up, then to nothing; ``linear``: whole for the first half of ``steps``,
    then straight to nothing (Zhu et al., ICCV 2017, section 7.1)."""
    if schedule == "linear":
        return lambda step: min(1.0, 2 * (1 - step / steps))
    warm = max(1, min(50, steps // 20))

    def cosine(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return cosine
