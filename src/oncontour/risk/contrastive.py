"""Contrast: embeddings of patients drawn together or apart.

``by_outcome``  patients of one outcome together, of different outcomes apart (supervised contrastive: Khosla et al., NeurIPS 2020, eq. 2);
``by_patient``  a patient's dose image and its dosiomics together, those of different patients apart (InfoNCE both ways: Radford et al.
                2021): one reading of "dosiomics-guided".

Embeddings are unit vectors (n, e). A patient whose outcome is not known takes no part in the first, as anchor, positive or negative; one
without dosiomics (organ not contoured) none in the second.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def by_outcome(z: Tensor, outcomes: Tensor, known: Tensor, temperature: float = 0.2) -> Tensor:
    """Mean over toxicities and anchors of -mean over positives of log softmax of similarities; 0 where nobody has a positive.

    ``outcomes`` and ``known`` (n, toxicities) of 0 and 1.
    """
    total, count = z.new_zeros(()), 0
    for t in range(outcomes.shape[1]):
        mine = known[:, t] > 0
        if int(mine.sum()) < 2:
            continue
        e, y = z[mine], outcomes[mine, t]
        alone = torch.eye(len(e), dtype=torch.bool, device=z.device)
        similar = (e @ e.T / temperature).masked_fill(alone, float("-inf"))
        log_share = torch.log_softmax(similar, dim=1).masked_fill(alone, 0.0)
        together = ((y[:, None] == y[None, :]) & ~alone).float()
        positives = together.sum(dim=1)
        anchors = positives > 0
        if bool(anchors.any()):
            each = -(log_share * together).sum(dim=1)[anchors] / positives[anchors]
            total, count = total + each.mean(), count + 1
    return total / max(count, 1)


def by_patient(image: Tensor, features: Tensor, temperature: float = 0.2, known: Tensor | None = None) -> Tensor:
    """Half the sum of cross-entropies of finding a patient's dosiomics by its image, and its image by its dosiomics.

    ``known`` (n,) of 0 and 1: whose dosiomics there are, by default everybody's. Fewer than two: 0.
    """
    if known is not None:
        image, features = image[known > 0], features[known > 0]
    if len(image) < 2:
        return image.new_zeros(())
    similar = image @ features.T / temperature
    own = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2
