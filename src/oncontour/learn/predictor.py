"""What every finished model offers, ours or somebody else's, whatever it predicts."""

from __future__ import annotations

from typing import Protocol

from oncontour.core.case import Case
from oncontour.learn.card import Card
from oncontour.progress import Progress


class Predictor(Protocol):
    """A model ready to predict."""

    @property
    def card(self) -> Card:
        """What is known of the model."""

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with what the model adds (masks, scores), on the case's own grid."""
