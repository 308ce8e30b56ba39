"""How far two surfaces lie apart, in millimetres: measured once, read many times.

    apart = surfaces(truth, predicted)
    apart.hd_mm, apart.hd95_mm, apart.asd_mm, apart.surface_dsc(2.0), apart.added_path_mm(2.0)

Distances run from points of one surface to the closest point of the other *surface* (``isosurface``: finer than voxels), not between voxel
centres. Every point stands for the area around it, so means and percentiles do not depend on how a surface happens to be cut into pieces.

When there is nothing to measure, for every number here:

* both masks empty: NaN. There is nothing to judge; whoever averages counts these apart;
* one of them empty: distances are ``inf``, surface DSC is 0. A structure that was missed is the worst answer, not a missing value
  (a NaN that falls out of the mean lets worse models score better: Project-MONAI/MONAI#9095). Added path length stays finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.metrics.isosurface import Segments, isosurface
from oncontour.metrics.nearest import distances
from oncontour.metrics.overlap import check_grids

Floats = NDArray[np.float64]
_ROUNDING_MM = 1e-6
"""Distances within this of a tolerance count as at the tolerance."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces, each with the area (or, in the slices, the length) that it stands for.

    ``truth_mm``      (n,) from points of the truth's surface to the predicted surface; ``truth_mm2`` (n,) area of each point
    ``predicted_mm``  (m,) the other way; ``predicted_mm2`` (m,)
    ``contour_mm``    (s,) from pieces of the truth's contours to the predicted contour in the same slice; ``contour_length_mm`` (s,)

    No points: that mask is empty. ``inf``: there is nothing at the other end.
    """

    truth_mm: Floats
    truth_mm2: Floats
    predicted_mm: Floats
    predicted_mm2: Floats
    contour_mm: Floats
    contour_length_mm: Floats

    @property
    def nothing(self) -> float | None:
        """NaN where both masks are empty, inf where one is, None where there are distances."""
        empty = (not len(self.truth_mm)) + (not len(self.predicted_mm))
        return (None, np.inf, np.nan)[empty]

    @property
    def directed_means_mm(self) -> tuple[float, float]:
        """(truth to predicted, predicted to truth): mean distance over the area, each way."""
        if self.nothing is not None:
            return self.nothing, self.nothing
        return _mean(self.truth_mm, self.truth_mm2), _mean(self.predicted_mm, self.predicted_mm2)

    @property
    def asd_mm(self) -> float:
        """ASD: the mean of the two directed mean distances (Xue et al. 2020, eq. 3 and 4)."""
        there, back = self.directed_means_mm
        return (there + back) / 2

    @property
    def msd_mm(self) -> float:
        """MSD, pooled: the mean over both surfaces together, so the larger surface weighs more (Elmahdy et al. 2021)."""
        if self.nothing is not None:
            return self.nothing
        return _mean(np.concatenate((self.truth_mm, self.predicted_mm)), np.concatenate((self.truth_mm2, self.predicted_mm2)))

    @property
    def hd_mm(self) -> float:
        """HD: the maximum Hausdorff distance (Xue et al. 2020, eq. 5 and 6)."""
        return self.hausdorff_mm(100)

    @property
    def hd95_mm(self) -> float:
        """HD95: the larger of the two directed 95th percentiles over the area; *not* the percentile of both pooled (MedPy's HD95)."""
        return self.hausdorff_mm(95)

    def hausdorff_mm(self, percent: float) -> float:
        """The larger of the two directed percentiles of distance over area. Raises InputError for a percent outside (0, 100]."""
        if not 0 < percent <= 100:
            raise InputError(f"a percentile lies above 0 and at most at 100, not at {percent}")
        if self.nothing is not None:
            return self.nothing
        there = _percentile(self.truth_mm, self.truth_mm2, percent)
        return max(there, _percentile(self.predicted_mm, self.predicted_mm2, percent))

    def surface_dsc(self, tolerance_mm: float) -> float:
        """Surface DSC: the part of both surfaces that lies within ``tolerance_mm`` of the other one; 1 is best.

        Source: Nikolov et al. 2021, J Med Internet Res 23:e26151. Raises InputError for a negative tolerance.
        """
        limit = _limit(tolerance_mm)
        area = float(self.truth_mm2.sum() + self.predicted_mm2.sum())
        near = self.truth_mm2[self.truth_mm <= limit].sum() + self.predicted_mm2[self.predicted_mm <= limit].sum()
        return float(near) / area if area else np.nan

    def added_path_mm(self, tolerance_mm: float = 0.0) -> float:
        """APL, added path length: how much of the truth's contour, over all slices, a person would have to draw anew, in mm.

        A piece of the truth's contour counts when it lies farther than ``tolerance_mm`` from the predicted contour *of the same slice*.
        Deleting costs nothing, so an empty truth has 0 beside any prediction; a missed structure has its whole contour; both empty: NaN.
        Source: Vaassen et al. 2020, Phys Imaging Radiat Oncol 13:1-6. *Differs:* millimetres of contour instead of counted pixels.
        """
        limit = _limit(tolerance_mm)
        if self.nothing is not None and np.isnan(self.nothing):
            return np.nan
        return float(self.contour_length_mm[self.contour_mm > limit].sum())


def surfaces(truth: Volume, predicted: Volume) -> SurfaceDistances:
    """Distances between the surfaces of two masks (bool, or coverage in [0, 1]) on one grid.

    The mean distance of concentric spheres drawn as bool masks is right within a twentieth of a voxel; coverage does better.
    Raises GeometryError when the grids differ.
    """
    check_grids(truth, predicted)
    mesh_t, contour_t = isosurface(truth)
    mesh_p, contour_p = isosurface(predicted)
    return SurfaceDistances(
        distances(mesh_t.vertices_mm, mesh_p.corners_mm),
        mesh_t.vertex_mm2,
        distances(mesh_p.vertices_mm, mesh_t.corners_mm),
        mesh_p.vertex_mm2,
        _in_slices(contour_t, contour_p),
        contour_t.lengths_mm,
    )


def _limit(tolerance_mm: float) -> float:
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise InputError(f"a tolerance is 0 mm or more, not {tolerance_mm}")
    return tolerance_mm + _ROUNDING_MM


def _in_slices(truth: Segments, predicted: Segments) -> Floats:
    """Distance from the middle of each piece of the truth's contours to the predicted contour in its slice, inf where it has none."""
    far = 1e5  # slices are laid so far apart that the closest contour is always that of the same slice
    middle = np.column_stack((truth.slices * far, truth.ends_mm.mean(axis=1)))
    ends = predicted.ends_mm
    lines = np.empty((len(ends), 3, 3))
    lines[:, :, 0] = (predicted.slices * far)[:, None]
    lines[:, :2, 1:], lines[:, 2, 1:] = ends, ends[:, 1]
    found = distances(middle, lines)
    return np.where(found < far / 2, found, np.inf)


def _mean(values: Floats, weights: Floats) -> float:
    return float(values @ weights / weights.sum())


def _percentile(values: Floats, weights: Floats, percent: float) -> float:
    """The least value that at least ``percent`` of the weight does not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, percent / 100 * reached[-1] * (1 - 1e-12))
    return float(values[order][min(int(at), len(values) - 1)]) if percent < 100 else float(values.max())
