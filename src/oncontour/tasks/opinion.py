"""A second opinion: how likely a contour model thinks it that a voxel belongs to a structure, before anything is decided.

Quality is easier to tell with it: where somebody's contour and a net that never saw it disagree, one of them is wrong (the idea of
agreement between segmenters: Zenk et al., arXiv:2406.03323, where it is the strongest simple way to see a failure coming). About what that
very model drew it is no second opinion: mask and chances agree whatever is wrong, and only how sure the model was can tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from oncontour.geometry import Geometry
from oncontour.metrics.overlap import dsc
from oncontour.volume import Volume

SAME_HAND = 0.89
"""What hn-organs drew in 17 patients shares 0.90 to 1.00 with its chances, what the best of other segmenters drew at most 0.88."""


@dataclass(frozen=True, eq=False)
class Opinion:
    """``chances``: uint8 (structures, k, j, i), the probability of each of ``structures`` times 255 on the grid the net works on.

    ``model`` and ``sha256`` say whose it is. Beyond that grid the model expects nothing.
    """

    model: str
    sha256: str
    structures: tuple[str, ...]
    chances: Volume

    def of_one_hand(self, masks: Mapping[str, Volume]) -> bool:
        """Whether the model itself seems to have drawn ``masks``: over the structures that it knows, its chances from one half up and the
        masks share SAME_HAND in the median. Without any such structure: no."""
        shared = [self._shared(name, mask) for name, mask in masks.items() if name in self.structures and mask.array.any()]
        return bool(shared) and statistics.median(shared) >= SAME_HAND

    def on(self, name: str, grid: Geometry) -> Volume | None:
        """The chances of ``name`` times 255 (uint8) on ``grid``, interpolated; None for a structure the model does not know."""
        if name not in self.structures:
            return None
        return self._of(name).to(grid)

    def _of(self, name: str) -> Volume:
        return Volume(self.chances.array[self.structures.index(name)], self.chances.geometry)

    def _shared(self, name: str, mask: Volume) -> float:
        return dsc(self._of(name).map(lambda chance: chance >= 128), mask.binary().to(self.chances.geometry))
