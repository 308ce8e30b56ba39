"""The contract of whatever is learned: a task is four answers.

    samples(case)            which arrays does a case become? (computed once, kept in memory, no randomness)
    plan(samples, ...)       which draws make one epoch? each Draw names a sample, a place in it and the seed of its augmentation
    item(samples, draw)      the tensors of one draw, ready to be collated
    loss(batch)              how wrong is the net on them?

The trainer speaks only to these; what predicts with a trained task is a ``learn.predictor.Predictor``. A Task is an ``nn.Module``.
*Differs* from a LightningModule on purpose: ``learn/fit.py`` wraps it in one, so that predicting needs no Lightning (its import alone takes
seconds and 180 MB of a clinic's run).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from oncontour.core.case import Case
from oncontour.errors import ModelError, TrainingError
from oncontour.learn.build import built
from oncontour.learn.card import Card, checked_card, find, shapes, with_card
from oncontour.learn.engine import Backend, Engine
from oncontour.learn.named_models import at_home, portable
from oncontour.libraries import memory_told, why


class Example(Protocol):
    """What a case becomes to be learned from: arrays, and whose they are."""

    @property
    def case_id(self) -> str: ...


class Settings(Protocol):
    """A dataclass of what makes a model, as far as its card goes."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def structures(self) -> Sequence[str]: ...

    @property
    def spacing_mm(self) -> Sequence[float]: ...


S = TypeVar("S", bound=Example)
Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """One training example to be made: sample index, centre voxel (k, j, i), and the seed of its augmentation (None: plain crop)."""

    sample: int
    centre: tuple[float, float, float]
    seed: int | None


class Task(nn.Module, ABC, Generic[S]):
    """What every task offers; see the module's words."""

    name: str
    net: nn.Module
    refuses_untaught = False
    """whether the model says "not known" of a structure that nothing taught it; one that does not would make it up"""

    @abstractmethod
    def samples(self, case: Case) -> list[S]:
        """The arrays a case becomes; an empty list when it has nothing to learn from."""

    @abstractmethod
    def plan(self, samples: Sequence[S], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        """The draws of one epoch; without ``train`` a fixed set without augmentation."""

    @abstractmethod
    def item(self, samples: Sequence[S], draw: Draw) -> dict[str, Tensor]:
        """The tensors of one draw."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """A scalar to minimise, and figures to log beside it. Called under autocast where the net computes in 16 bits: what the net answers
        is turned into float32 first, and the loss is computed in it."""

    @abstractmethod
    def card(self) -> Card:
        """What is known of the model; ``sha256`` is filled in when it is saved."""

    any_size = False
    """whether the net takes images of any height and width, not of its window alone"""

    def answering(self) -> nn.Module:
        """The net as whoever predicts calls it: one image in, one answer out."""
        return self.net

    def exported_shape(self) -> tuple[int, ...] | None:
        """The input (n, channels, ...) by which ``answering`` is written as ONNX; None where it cannot be."""
        return None

    def engine(self, shape: Sequence[int], *, backend: Backend = "auto", threads: int | None = None) -> Engine:
        """``answering``, ready for inputs of ``shape``. Raises what ``Engine.load`` raises."""
        return Engine.load(self.answering(), shape, backend=backend, threads=threads)

    def taught(self, samples: Sequence[S]) -> set[int]:
        """Which of the model's structures, by number, these samples teach; all of them where a task cannot tell."""
        return set(range(len(self.card().structures)))

    def start_afresh(self) -> None:
        """Draw initial weights anew from torch's generator, so that they depend on the seed alone, however the task was made."""
        for module in self.net.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


AnyTask = Task[Any]
"""A task, whatever its samples are."""


class InTurns(Task[S]):
    """A task whose parts learn against each other, by turns, each with an optimiser of its own (generators and discriminators).

    ``net`` is what the model file keeps; what serves the training alone is held beside it, and is in every checkpoint. ``loss`` is what is
    watched, of ``net`` alone.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    """of Adam"""

    @abstractmethod
    def parts(self) -> list[list[nn.Parameter]]:
        """The weights of each part, in the order of the turns."""

    @abstractmethod
    def turns(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """For each part in order a scalar that it makes small, and figures to log; the part takes its step before the next one is asked
        for."""


def first_card(task: AnyTask, settings: Settings) -> Card:
    """The card of a model before its training: its ``settings`` (a dataclass), structures and grid."""
    from dataclasses import asdict

    return Card(task.name, task.name, asdict(settings), list(settings.structures), list(settings.spacing_mm))


def save_model(task: AnyTask, path: Path | str, card: Card | None = None, *, half: bool = True) -> Card:
    """Write ``task`` as one safetensors file with its card in the header, whole or not at all; give the card with its hashes.

    ``half`` stores floating-point weights in 16 bits (they are read back into float32), but for those too large for that. Raises
    TrainingError where weights are no numbers.
    """
    from safetensors.torch import save

    from oncontour.files import writing

    tensors = {name: _stored(name, value, half).contiguous().clone() for name, value in task.net.state_dict().items()}
    card = card or task.card()
    card, data = with_card(save(tensors), replace(card, settings=portable(card.settings, Path(path).parent)))
    with writing(path) as temporary:
        temporary.write_bytes(data)
    return card


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    """``value`` as it goes into the file."""
    if not value.is_floating_point():
        return value
    if not value.isfinite().all():
        raise TrainingError(f"the weights {name} are no numbers any more", hint="lower the learning rate and train again in another folder")
    short = value.half()
    return short if half and bool(short.isfinite().all()) else value


def load_weights(net: nn.Module, path: Path | str) -> None:
    """Fill ``net`` from a safetensors file, strictly. Raises ModelError when names or shapes do not fit, or weights are no numbers."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with memory_told():
            tensors = load_file(path)
            net.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ModelError(f"the weights do not fit the net of the card ({why(error)})", where=str(path)) from error
    lost = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if lost:
        raise ModelError(f"the weights {', '.join(lost[:3])} are no numbers", where=str(path), hint="train the model again")


def load_task(model: str | Path) -> AnyTask:
    """The task in a model file (a path or a shipped name), its weights checked against the card's hash, in evaluation mode.

    Raises ModelError where file or card are damaged or contradict each other, and for a net or task that is no row of NETS or TASKS and
    no class that the user named (``oncontour.classes``). Nothing of the size that a card asks for is made before the file is known to
    hold as many numbers.
    """
    path = find(model)
    card = checked_card(path)
    task = built(replace(card, settings=at_home(card.settings, path.parent)), shapes(path), path)
    if not isinstance(task, Task):
        raise ModelError(f"the class {card.task!r} is no task", where=str(path), hint="let it inherit from oncontour.learn.task.Task")
    load_weights(task.net, path)
    return task.eval()


def seeded(*numbers: int) -> np.random.Generator:
    """A generator that depends on all of ``numbers`` and nothing else."""
    return np.random.default_rng(list(numbers))
