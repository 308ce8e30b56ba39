"""Has the net seen anything like this? Mahalanobis distance of a slice's features from those of training, structure by structure.

The detector travels with the net's weights. A structure whose median slice lies farther out than the limit is not scored: the limit comes
from patients the net did not learn from. Source: Lee et al., NeurIPS 2018 (class-conditional Gaussians on features); *differs:* a
covariance for each structure, shrunk towards its mean variance, instead of one for all.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]
SHRINKAGE = 0.05
QUANTILE, MARGIN = 0.99, 1.25
"""The limit: this quantile of held-back patients' distances, times this."""


class Detector(nn.Module):
    """For each structure the ``centre`` (s, d) of its features, ``root`` (s, d, d) that makes their covariance one, and ``limit`` (s,)."""

    centre: Tensor
    root: Tensor
    limit: Tensor

    def __init__(self, structures: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(structures, width))
        self.register_buffer("root", torch.zeros(structures, width, width))
        self.register_buffer("limit", torch.zeros(structures))

    def knows(self, structure: int) -> bool:
        """Whether a limit was ever set."""
        return float(self.limit[structure]) > 0

    def distance(self, features: NDArray[np.float32], structure: int) -> Floats:
        """(n,) root mean square of the (n, d) features in units of their spread in training: about 1 for what is known."""
        return distance(features, self.centre[structure].double().numpy(), self.root[structure].double().numpy())

    def learn(self, features: NDArray[np.float32], structure: int) -> None:
        """Set centre and root from (n, d) features of one structure."""
        centre, root = fitted(features)
        self.centre[structure] = torch.from_numpy(centre).float()
        self.root[structure] = torch.from_numpy(root).float()

    def set_limit(self, typical: Floats, structure: int) -> None:
        """Set the limit from the median distances of masks that must pass."""
        self.limit[structure] = float(np.quantile(typical, QUANTILE)) * MARGIN


def fitted(features: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """(centre (d,), root (d, d)) of (n, d) features, n at least 2."""
    f = np.asarray(features, dtype=np.float64)
    centre = f.mean(axis=0)
    away = f - centre
    covariance = away.T @ away / max(1, len(f) - 1)
    even = max(float(np.trace(covariance)) / len(centre), 1e-8)
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * even * np.eye(len(centre)))
    return centre, np.asarray((vectors / np.sqrt(values)).T)


def distance(features: NDArray[np.float32], centre: Floats, root: Floats) -> Floats:
    """See ``Detector.distance``."""
    away = (np.asarray(features, dtype=np.float64) - centre) @ root.T
    return np.asarray(np.sqrt((away**2).mean(axis=1)))
