"""Has the net seen anything like this? Mahalanobis distance of a slice's features from those of training, structure by structure.

The detector travels with the net's weights. A structure whose median slice lies farther out than the limit is not scored: the limit comes
from patients the net did not learn from. Source: Lee et al., NeurIPS 2018 (class-conditional Gaussians on features); *differs:* a
covariance for each structure, shrunk towards its mean variance, instead of one for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SHRINKAGE = 0.05
QUANTILE, MARGIN = 0.99, 1.25
"""The limit: this quantile of held-back patients' distances, times this."""


@dataclass(frozen=True, eq=False)
class Detector:
    """For each structure the ``centre`` (s, d) of its features, ``root`` (s, d, d) that makes their covariance one, and ``limit`` (s,), all
    float32; what is learned is written into these arrays."""

    centre: NDArray[np.float32]
    root: NDArray[np.float32]
    limit: NDArray[np.float32]

    def knows(self, structure: int) -> bool:
        """Whether a limit was ever set."""
        return float(self.limit[structure]) > 0

    def distance(self, features: NDArray[np.float32], structure: int) -> Floats:
        """(n,) root mean square of the (n, d) features in units of their spread in training: about 1 for what is known."""
        return distance(features, self.centre[structure].astype(np.float64), self.root[structure].astype(np.float64))

    def learn(self, features: NDArray[np.float32], structure: int) -> None:
        """Set centre and root from (n, d) features of one structure."""
        self.centre[structure], self.root[structure] = fitted(features)

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
