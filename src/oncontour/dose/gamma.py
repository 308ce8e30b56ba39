"""Gamma index: two dose distributions compared by dose and by distance at once (Low et al., Med Phys 1998;25:656).

For each point of the reference: the least of sqrt((distance / tolerance)^2 + (dose difference / tolerance)^2) over the evaluated dose.
The evaluated dose is searched on a fine net of points, nearest first, and between them along its slope, so that the answer does not
depend on the net (for a dose that is linear there it is exact).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.volume import Volume
from oncontour.dose.cells import check
from oncontour.errors import ConfigError, DoseError

Floats = NDArray[np.float64]
STEPS_A_TOLERANCE = 8
"""Net points of the search along one axis within the distance tolerance."""


@dataclass(frozen=True, eq=False)
class Gamma:
    """``values`` on the reference's grid: float32, at most ``most``; NaN below the threshold, and where the evaluated dose does not reach.

    ``dose_percent``, ``distance_mm``, ``threshold_percent`` and ``local`` as asked; ``reference_gy`` is what percents are of (global).
    """

    values: Volume
    dose_percent: float
    distance_mm: float
    threshold_percent: float
    local: bool
    most: float
    reference_gy: float

    @property
    def points(self) -> int:
        """How many voxels were judged."""
        return int(np.count_nonzero(~np.isnan(self.values.array)))

    @property
    def pass_percent(self) -> float:
        """% of the judged voxels with gamma of 1 or less; NaN where none was judged."""
        judged = self.values.array[~np.isnan(self.values.array)]
        return 100 * float(np.mean(judged <= 1)) if len(judged) else np.nan

    @property
    def mean(self) -> float:
        """Mean gamma of the judged voxels; NaN where none was judged."""
        return float(np.nanmean(self.values.array)) if self.points else np.nan


def gamma(
    reference: Volume,
    evaluated: Volume,
    *,
    dose_percent: float = 3.0,
    distance_mm: float = 2.0,
    threshold_percent: float = 10.0,
    local: bool = False,
    reference_gy: float | None = None,
    most: float = 2.0,
) -> Gamma:
    """Gamma of ``evaluated`` against ``reference``, both in Gy, each on its own grid; the defaults are those of TG-218.

    ``dose_percent`` is of ``reference_gy`` (default: the largest reference dose), with ``local`` of the reference dose at each point.
    Points below ``threshold_percent`` of ``reference_gy`` are not judged. Gamma above ``most`` is told as ``most``. The evaluated dose is
    taken as trilinear between its points. Source: Low et al. 1998; Miften et al. (TG-218), Med Phys 2018;45:e53.

    Raises ConfigError for tolerances that are not positive, DoseError for doses that are not finite or negative, or that nowhere meet.
    """
    for name, value in (("dose_percent", dose_percent), ("distance_mm", distance_mm), ("most", most)):
        if not 0 < value < np.inf:
            raise ConfigError(f"{name} is positive, not {value}")
    for name, one in (("reference", reference), ("evaluated", evaluated)):
        if one.array.ndim != 3:
            raise DoseError(f"a dose has three axes (k, j, i), not {one.array.shape}", where=name)
        check(one.array, name)
    whole = float(reference.array.max()) if reference_gy is None else reference_gy
    if not 0 < whole < np.inf:
        raise DoseError(f"the dose that percents are of must be positive, not {whole:g} Gy", where="reference")
    judged = np.argwhere(reference.array >= max(threshold_percent / 100 * whole, 1e-12))
    found = _searched(reference, evaluated, judged, dose_percent / 100, None if local else whole, distance_mm, most)
    if np.isnan(found).all():
        where = f"reference {reference.geometry}, evaluated {evaluated.geometry}"
        raise DoseError("the two doses do not meet above the threshold", where=where, hint="give doses of one frame of reference")
    values = np.full(reference.geometry.shape, np.nan, np.float32)
    values[tuple(judged.T)] = found
    return Gamma(Volume(values, reference.geometry), dose_percent, distance_mm, threshold_percent, local, most, whole)


def _searched(
    reference: Volume, evaluated: Volume, judged: NDArray[np.int64], part: float, whole: float | None, distance_mm: float, most: float
) -> Floats:
    """(n,) gamma of the judged voxels."""
    from oncontour.dose import field

    gy = np.asarray(reference.array[tuple(judged.T)], np.float64)
    tolerance = part * (gy if whole is None else np.full(len(gy), whole))
    points = evaluated.geometry.voxels(reference.geometry.points(judged))
    step = distance_mm / STEPS_A_TOLERANCE
    offsets = _net(most * distance_mm, step)
    moves = offsets @ evaluated.geometry.inverse[:3, :3].T
    per_mm = evaluated.geometry.inverse[:3, :3]
    array = np.array(evaluated.array, np.float32, order="C")
    return np.asarray(
        field.gamma_at(points, gy, tolerance, array, moves, offsets / distance_mm, per_mm * distance_mm, step / distance_mm, most)
    )


def _net(radius_mm: float, step_mm: float) -> Floats:
    """(n, 3) points (x, y, z) of a cubic net within ``radius_mm``, nearest first; the first is the middle."""
    reach = int(np.ceil(radius_mm / step_mm - 1e-9))
    line = np.arange(-reach, reach + 1) * step_mm
    net = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    away = np.linalg.norm(net, axis=1)
    order = np.argsort(away, kind="stable")
    return np.ascontiguousarray(net[order][away[order] <= radius_mm + 1e-9])
