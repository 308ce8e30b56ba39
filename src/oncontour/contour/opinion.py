"""A second opinion: how likely a contour model thinks it that a voxel belongs to a structure, before anything is decided.

Quality is easier to tell with it: where somebody's contour and a net that never saw it disagree, one of them is wrong (the idea of
agreement between segmenters: Zenk et al., arXiv:2406.03323, where it is the strongest simple way to see a failure coming). About what that
very model drew it is no second opinion: mask and chances agree whatever is wrong, and only how sure the model was can tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.volume import Volume
from oncontour.metrics.overlap import dsc

UNLIKELY = 2
"""Chances times 255 up to here count as none."""
SAME_HAND = 0.89
"""What hn-organs drew in 17 patients shares 0.90 to 1.00 with its chances, what others drew (segmenters, planners) at most 0.88."""


def by_structure(chances: Volume, structures: Sequence[str], thresholds: Sequence[float] = ()) -> dict[str, Volume]:
    """Chances times 255 (uint8; structures, k, j, i) as a volume each.

    With ``thresholds``, the probabilities from which a structure is drawn, the odds are divided by those of the threshold: one half is
    then where each is drawn, as it is for models that draw from one half up.
    """
    each = zip(structures, chances.array, thresholds or [0.5] * len(structures), strict=True)
    return {name: Volume(array if at == 0.5 else _centred(at)[array], chances.geometry) for name, array, at in each}


def _centred(threshold: float) -> NDArray[np.uint8]:
    """For each chance times 255 what it is with its odds divided by those of ``threshold``; what counts as none stays none."""
    chance = np.where(np.arange(256) > UNLIKELY, np.arange(256) / 255, 0)
    inside, outside = chance * (1 - threshold), (1 - chance) * threshold
    return np.rint(255 * inside / (inside + outside)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Opinion:
    """``chances``: uint8 (structures, k, j, i), the probability of each of ``structures`` times 255 on the grid the net works on.

    ``model`` and ``sha256`` say whose it is, ``thresholds`` from which probability on it draws each (one half where there are none). Beyond
    that grid the model expects nothing.
    """

    model: str
    sha256: str
    structures: tuple[str, ...]
    chances: Volume
    thresholds: tuple[float, ...] = ()

    def of_one_hand(self, masks: Mapping[str, Volume]) -> bool:
        """Whether the model itself seems to have drawn ``masks``: over the structures that it knows, what it would draw by its chances and
        the masks share SAME_HAND in the median. Without any such structure: no."""
        drawn = {n: v.map(lambda chance: chance >= 128) for n, v in by_structure(self.chances, self.structures, self.thresholds).items()}
        there = {name: mask for name, mask in masks.items() if name in drawn and mask.array.any()}
        shared = [dsc(drawn[name], mask.binary().to(self.chances.geometry)) for name, mask in there.items()]
        return bool(shared) and statistics.median(shared) >= SAME_HAND

    def of(self, name: str) -> Volume | None:
        """The chances of ``name`` times 255 (uint8); None for a structure the model does not know."""
        return by_structure(self.chances, self.structures).get(name)
