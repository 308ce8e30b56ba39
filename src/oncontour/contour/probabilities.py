"""Probability maps of a contour model, before anything is decided, and what they say of contours that somebody else drew.

Quality is easier to tell with them: where somebody's contour and a net that never saw it disagree, one of them is wrong (the idea of
agreement between segmenters: Zenk et al., arXiv:2406.03323, where it is the strongest simple way to see a failure coming). About what that
very model drew they are no reference: mask and probabilities agree whatever is wrong, and only how sure the model was can tell.
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
"""Probabilities times 255 up to here count as none."""
SAME_HAND = 0.89
"""What hn-organs drew in 17 patients shares 0.90 to 1.00 with its probability maps, what others drew at most 0.88."""


def by_structure(probabilities: Volume, structures: Sequence[str], thresholds: Sequence[float] = ()) -> dict[str, Volume]:
    """A probability map for each structure, of ``probabilities`` times 255 (uint8; structures, k, j, i).

    With ``thresholds``, the probabilities from which a structure is drawn, the odds are divided by those of the threshold: one half is
    then where each is drawn, as it is for models that draw from one half up.
    """
    each = zip(structures, probabilities.array, thresholds or [0.5] * len(structures), strict=True)
    return {name: Volume(array if at == 0.5 else _centred(at)[array], probabilities.geometry) for name, array, at in each}


def _centred(threshold: float) -> NDArray[np.uint8]:
    """For each probability times 255 what it is with its odds divided by those of ``threshold``; what counts as none stays none."""
    likely = np.where(np.arange(256) > UNLIKELY, np.arange(256) / 255, 0)
    inside, outside = likely * (1 - threshold), (1 - likely) * threshold
    return np.rint(255 * inside / (inside + outside)).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ReferenceProbabilities:
    """What a reference model says of a CT: ``probabilities`` of each of its ``structures`` times 255 (uint8; structures, k, j, i) on the
    grid that its net works on.

    ``model`` and ``sha256`` say which model it is, ``thresholds`` from which probability on it draws each (one half where there are none).
    Beyond that grid the model expects nothing.
    """

    model: str
    sha256: str
    structures: tuple[str, ...]
    probabilities: Volume
    thresholds: tuple[float, ...] = ()

    def drew(self, masks: Mapping[str, Volume], segmented_by: tuple[str, ...] | None) -> bool:
        """Whether the model drew ``masks`` itself: by the hashes of those that drew, or, where they are not known, as the masks look."""
        return self.of_one_hand(masks) if segmented_by is None else self.sha256 in segmented_by

    def of_one_hand(self, masks: Mapping[str, Volume]) -> bool:
        """Whether the model itself seems to have drawn ``masks``: over the structures that it knows, what it would draw by its
        probabilities and the masks share SAME_HAND in the median. Without any such structure: no."""
        maps = by_structure(self.probabilities, self.structures, self.thresholds)
        drawn = {name: likely.map(lambda array: array >= 128) for name, likely in maps.items()}
        there = {name: mask for name, mask in masks.items() if name in drawn and mask.array.any()}
        shared = [dsc(drawn[name], mask.binary().to(self.probabilities.geometry)) for name, mask in there.items()]
        return bool(shared) and statistics.median(shared) >= SAME_HAND

    def of(self, name: str) -> Volume | None:
        """The probability map of ``name`` times 255 (uint8); None for a structure the model does not know."""
        return by_structure(self.probabilities, self.structures).get(name)
