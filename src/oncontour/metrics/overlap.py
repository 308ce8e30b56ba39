"""How much two masks share: counted once, read many times.

    shared = overlap(truth, predicted)
    shared.dsc, shared.jaccard, shared.sensitivity, shared.precision, shared.slice_dsc, shared.truth_cc

When there is nothing to judge: both masks empty gives NaN for every ratio ("nothing to judge": whoever averages counts these apart);
one of them empty gives 0, never NaN, so that a structure that was missed stays in the mean (Project-MONAI/MONAI#9095).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import box_of
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError


@dataclass(frozen=True, eq=False)
class Overlap:
    """Voxels of two masks slice by slice: ``truth``, ``predicted`` and ``both``, each (k,) counts; ``voxel_cc`` the size of one."""

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    both: NDArray[np.int64]
    voxel_cc: float

    @property
    def dsc(self) -> float:
        """DSC = 2 |A and B| / (|A| + |B|) (Xue et al. 2020, eq. 1). Both empty: NaN; one empty: 0."""
        return _ratio(2 * int(self.both.sum()), int(self.truth.sum()) + int(self.predicted.sum()))

    @property
    def jaccard(self) -> float:
        """JI = |A and B| / |A or B| (Xue et al. 2020, eq. 2). Both empty: NaN; one empty: 0."""
        both = int(self.both.sum())
        return _ratio(both, int(self.truth.sum()) + int(self.predicted.sum()) - both)

    @property
    def sensitivity(self) -> float:
        """The part of the truth that was found. Both empty: NaN; one empty: 0."""
        return self._part(int(self.truth.sum()))

    @property
    def precision(self) -> float:
        """The part of the prediction that is right. Both empty: NaN; one empty: 0."""
        return self._part(int(self.predicted.sum()))

    @property
    def slice_dsc(self) -> NDArray[np.float64]:
        """(k,) DSC in each slice; NaN where neither mask has a voxel there, 0 where only one has."""
        total = self.truth + self.predicted
        return np.where(total > 0, 2.0 * self.both / np.maximum(total, 1), np.nan)

    @property
    def mean_slice_dsc(self) -> float:
        """Mean DSC over the slices in which either mask has a voxel, so a slice drawn too many counts as 0. Both empty: NaN."""
        each = self.slice_dsc
        judged = each[~np.isnan(each)]
        return float(judged.mean()) if len(judged) else np.nan

    @property
    def truth_cc(self) -> float:
        """Volume of the truth in cubic centimetres."""
        return int(self.truth.sum()) * self.voxel_cc

    @property
    def predicted_cc(self) -> float:
        """Volume of the prediction in cubic centimetres."""
        return int(self.predicted.sum()) * self.voxel_cc

    def _part(self, of: int) -> float:
        if not of:  # the other mask decides: both empty is nothing to judge, one empty is nothing right
            return 0.0 if self.truth.any() or self.predicted.any() else np.nan
        return int(self.both.sum()) / of


def overlap(truth: Volume, predicted: Volume) -> Overlap:
    """Count what two masks share (bool; coverage of one half and more is inside). Raises GeometryError when the grids differ."""
    check_grids(truth, predicted)
    a, b = truth.binary().array, predicted.binary().array
    return Overlap(_per_slice(a), _per_slice(b), _shared(a, b), truth.geometry.voxel_mm3 / 1000)


def check_grids(truth: Volume, predicted: Volume) -> None:
    """Raise GeometryError where two masks lie on different grids."""
    if not truth.geometry.same_grid(predicted.geometry):
        raise GeometryError(
            f"the predicted mask lies on another grid than the truth: {truth.geometry.difference(predicted.geometry)}",
            hint="bring both onto one grid first",
        )


def dsc(truth: Volume, predicted: Volume) -> float:
    """DSC of two masks on one grid; see ``Overlap.dsc``."""
    return overlap(truth, predicted).dsc


def jaccard(truth: Volume, predicted: Volume) -> float:
    """JI of two masks on one grid; see ``Overlap.jaccard``."""
    return overlap(truth, predicted).jaccard


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def _per_slice(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.array([np.count_nonzero(plane) for plane in mask], dtype=np.int64)


def _shared(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.int64]:
    out = np.zeros(len(a), np.int64)
    box = box_of(a)
    if box is not None:
        out[box[0]] = _per_slice(a[box] & b[box])
    return out
