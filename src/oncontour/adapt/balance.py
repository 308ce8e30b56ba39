"""How much each task's loss counts: equal, or weighed by uncertainty, by gradients, or by how fast each falls.

What is learned or kept of it lies in parameters and buffers, so that a training that goes on from a checkpoint has the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Weighting = Literal["equal", "uncertainty", "gradnorm", "dwa"]
ALPHA, RATE = 1.5, 0.025
"""GradNorm: how hard tasks that lag are pulled along, and the step of the weights."""
TEMPERATURE = 2.0
"""Of DWA."""


class Balance(nn.Module):
    """One loss of several, by ``weighting``:

    equal        their sum
    uncertainty  sum of exp(-s) L + s with s learned (Kendall, Gal, Cipolla, CVPR 2018, for losses that are no likelihoods)
    gradnorm     weights that bring the gradients on shared weights to one size, larger for tasks that lag (Chen et al., ICML 2018)
    dwa          weights by how the mean loss of the last epoch compares with the one before (Liu, Johns, Davison, CVPR 2019, equation 7)
    """

    weight: Tensor
    first: Tensor
    sums: Tensor
    means: Tensor

    def __init__(self, tasks: Sequence[str], weighting: Weighting) -> None:
        super().__init__()
        self.tasks, self.weighting = tuple(tasks), weighting
        n = len(self.tasks)
        if weighting == "uncertainty":
            self.log_variance = nn.Parameter(torch.zeros(n))
        if weighting in ("gradnorm", "dwa"):
            self.register_buffer("weight", torch.ones(n))
        if weighting == "gradnorm":
            self.register_buffer("first", torch.zeros(n))
        if weighting == "dwa":
            self.register_buffer("sums", torch.zeros(n + 1))
            self.register_buffer("means", torch.zeros(2, n))

    def reset_parameters(self) -> None:
        """Every task counts alike again, and nothing is remembered."""
        with torch.no_grad():
            for name, value in self.state_dict().items():
                value.fill_(1.0 if name == "weight" else 0.0)

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
        """The loss to minimise; while training, what is remembered is updated. ``shared``: the weights that tasks meet in."""
        each = torch.stack([losses[name] for name in self.tasks])
        if self.weighting == "uncertainty":
            return (torch.exp(-self.log_variance) * each + self.log_variance).sum()
        if self.weighting == "equal":
            return each.sum()
        total = (self.weight.clone() * each).sum()
        if self.training and self.weighting == "dwa":
            self.sums += torch.cat([each.detach(), each.new_ones(1)])
        if self.training and self.weighting == "gradnorm" and torch.is_grad_enabled():
            self._weigh(each, shared)
        return total

    def figures(self) -> dict[str, float]:
        """How much each task counts, to log."""
        if self.weighting == "equal":
            return {}
        weight = torch.exp(-self.log_variance.detach()) if self.weighting == "uncertainty" else self.weight
        return {f"weight_{name}": float(w) for name, w in zip(self.tasks, weight, strict=True)}

    @torch.no_grad()
    def epoch_begins(self) -> None:
        """DWA: the weights of the epoch to come, from the mean losses of the two that went before."""
        if self.weighting != "dwa" or not self.sums[-1]:
            return
        self.means[0] = self.means[1]
        self.means[1] = self.sums[:-1] / self.sums[-1]
        self.sums.zero_()
        if (self.means[0] > 0).all():
            self.weight.copy_(len(self.tasks) * torch.softmax(self.means[1] / self.means[0] / TEMPERATURE, dim=0))

    def _weigh(self, each: Tensor, shared: Sequence[nn.Parameter]) -> None:
        norms = []
        for loss in each:
            gradients = torch.autograd.grad(loss, list(shared), retain_graph=True, allow_unused=True)
            norms.append(torch.stack([g.square().sum() for g in gradients if g is not None] or [loss.detach() * 0]).sum().sqrt())
        size, now = torch.stack(norms).detach(), each.detach()
        if not bool(self.first.any()):
            self.first.copy_(now)
        lag = now / self.first.clamp(min=1e-6)
        wanted = (self.weight * size).mean() * (lag / lag.mean().clamp(min=1e-6)) ** ALPHA
        weight = (self.weight - RATE * torch.sign(self.weight * size - wanted) * size / size.mean().clamp(min=1e-12)).clamp(min=0.01)
        self.weight.copy_(weight * len(self.tasks) / weight.sum())
