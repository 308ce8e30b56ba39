"""What every finished model offers, ours or somebody else's, whatever it predicts; and what a predictor of ours needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from oncontour.core.case import Case
from oncontour.learn.card import Card
from oncontour.learn.engine import Backend, Engine
from oncontour.progress import Progress

S = TypeVar("S")


class Predictor(Protocol):
    """A model ready to predict."""

    @property
    def card(self) -> Card:
        """What is known of the model."""

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with what the model adds (masks, scores), on the case's own grid."""


class Trained(Protocol[S]):
    """A trained model: a task (``learn/task.py``, with torch) or its exported net (``learn/exported.py``, without)."""

    settings: S

    def card(self) -> Card:
        """What is known of the model."""

    def engine(self, shape: Sequence[int], *, backend: Backend = "auto", threads: int | None = None) -> Engine:
        """The net, ready for inputs of ``shape`` (n, channels, ...)."""
