"""Adam, the descent by which few parameters are moved; ``torch.optim`` would load a compiler first, which takes longer than the work."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN, SPREAD, LEAST = 0.9, 0.999, 1e-8


class Adam:
    """Moves ``values`` (a leaf with gradient) against their gradient, each by at most about the step that is asked for.

    Source: Kingma and Ba, ICLR 2015, algorithm 1, with their constants.
    """

    def __init__(self, values: Tensor) -> None:
        self.values, self._mean, self._square, self._steps = values, torch.zeros_like(values), torch.zeros_like(values), 0

    def step(self, loss: Tensor, size: float) -> None:
        """One step of ``size`` down ``loss``."""
        (slope,) = torch.autograd.grad(loss, self.values)
        self._steps += 1
        self._mean.lerp_(slope, 1 - MEAN)
        self._square.lerp_(slope**2, 1 - SPREAD)
        with torch.no_grad():
            spread = (self._square / (1 - SPREAD**self._steps)).sqrt_().add_(LEAST)
            self.values -= size * self._mean / (1 - MEAN**self._steps) / spread
