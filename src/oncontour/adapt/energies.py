"""What registration makes small or large, in torch: local correlation with a floor, bending energy in mm, soft DSC; and B-splines.

Nothing here knows a patient: tensors are (k, j, i) on a level's grid, coefficients (3, k, j, i) in mm on a lattice of control points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from oncontour.core.geometry import Floats


class LocalCorrelation:
    """The mean local correlation coefficient of a fixed image with a warped one, in [-1, 1]: 1 where every window differs by gain and
    offset alone.

    Windows are boxes of about ``window_mm``, one at every second voxel. Each voxel counts by its ``weight`` and each window by the weight
    in it, so that what lies outside the field of view counts nowhere. ``floor`` is added to both variances: where nothing but noise of that
    standard deviation stands, the correlation goes to 0 and does not explode.
    Source: the coefficient of Avants et al., Med Image Anal 12 (2008) 26, over boxes. *Differs:* not squared, as two CTs never correlate
    negatively; the floor; the weights.
    """

    def __init__(self, fixed: Tensor, weight: Tensor, spacing_mm: Sequence[float], window_mm: float, floor: float) -> None:
        self._bands = [_band(n, max(1, round((window_mm / step - 1) / 2))) for n, step in zip(fixed.shape, spacing_mm, strict=True)]
        self._fixed, self._weight, self._floor = fixed, weight, floor**2
        self._of_fixed = self._fixed_sums(weight)

    def __call__(self, warped: Tensor, weight: Tensor | None = None) -> Tensor:
        """Of ``warped`` (k, j, i); ``weight`` (no gradient) replaces the one given at first."""
        correlation, share, _ = self.windows(warped, weight)
        return (share * correlation).sum() / (share.sum() + 1e-6)

    def windows(self, warped: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(Correlation, share of the window that counts, variance of the fixed image with the floor) of every window."""
        share, mean_fixed, var_fixed = self._of_fixed if weight is None else self._fixed_sums(weight)
        weight = self._weight if weight is None else weight
        counted = weight * warped
        sums = self._sums(counted, counted * warped, counted * self._fixed) / (share + 1e-6)
        var = sums[1] - sums[0] ** 2 + self._floor
        cross = sums[2] - sums[0] * mean_fixed
        return cross * torch.rsqrt(var.clamp(min=self._floor / 2) * var_fixed), share, var_fixed

    def _fixed_sums(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counted = weight * self._fixed
        share, mean, square = self._sums(weight, counted, counted * self._fixed)
        mean, square = mean / (share + 1e-6), square / (share + 1e-6)
        return share, mean, (square - mean**2).clamp(min=0) + self._floor

    def _sums(self, *values: Tensor) -> Tensor:
        """(n, k, j, i) means of n (k, j, i) over each window. Banded matrices beat pooling fourfold on one core."""
        return _along(values, self._bands)


def _band(n: int, reach: int) -> Tensor:
    """(windows, n) of a box 2 ``reach`` + 1 wide around every second voxel."""
    rows, columns = torch.arange(0, n, 2 if n > 3 else 1)[:, None], torch.arange(n)[None]
    return ((rows - columns).abs() <= reach).float() / (2 * reach + 1)


def _along(values: Sequence[Tensor] | Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """(n, k, j, i) of n (k, j, i) with one matrix (new, old) applied along each of k, j and i."""
    rows = torch.stack([torch.matmul(one, matrices[2].T) for one in values])
    planes = torch.matmul(matrices[1], rows)
    new = torch.matmul(matrices[0], planes.reshape(*planes.shape[:2], -1))
    return new.reshape(-1, *(one.shape[0] for one in matrices))


def bending_energy(field_mm: Tensor, spacing_mm: Sequence[float], weight: Tensor | None = None) -> Tensor:
    """The mean over space of the squared second derivatives of a (3, k, j, i) field in mm, over components and pairs of axes, in mm^-2.

    Derivatives are per mm along the grid's axes, so that the value depends neither on the voxels nor on the axes of sampling.
    ``weight`` (k, j, i) makes places stiffer. For cubic B-spline coefficients the second differences are the spline's own second
    derivatives at its control points. Source: Rueckert et al., IEEE TMI 18 (1999) 712, equation 8.
    """
    total = field_mm.new_zeros(())
    for a in range(3):
        for b in range(a, 3):
            if a == b:
                second, w = (
                    torch.diff(field_mm, n=2, dim=a + 1),
                    None if weight is None else weight.narrow(a, 1, max(0, weight.shape[a] - 2)),
                )
            else:
                second = torch.diff(torch.diff(field_mm, dim=a + 1), dim=b + 1)
                w = None if weight is None else weight.narrow(a, 0, weight.shape[a] - 1).narrow(b, 0, weight.shape[b] - 1)
            if second.numel():
                square = (second / (spacing_mm[a] * spacing_mm[b])) ** 2
                total = total + (1 if a == b else 2) * (square if w is None else square * w).mean() * 3
    return total


def soft_dsc(probabilities: Tensor, truth: Tensor) -> Tensor:
    """The mean DSC of (n, ...) probabilities with (n, ...) masks, over the n; differentiable, 1 where both are empty."""
    p, t = probabilities.flatten(1), truth.flatten(1)
    return ((2 * (p * t).sum(dim=1) + 1e-3) / (p.sum(dim=1) + t.sum(dim=1) + 1e-3)).mean()


def spline_weights(at_mm: ArrayLike, step_mm: float, first_mm: float, last_mm: float) -> Floats:
    """(n, c) weights of c control points ``step_mm`` apart of a cubic B-spline at n places ``at_mm`` from ``first_mm`` to ``last_mm``.

    Control points begin one step before ``first_mm``; places beyond the ends take the value at the end.
    """
    at = (np.clip(np.asarray(at_mm, dtype=np.float64), first_mm, last_mm) - first_mm) / step_mm
    count = int(np.ceil((last_mm - first_mm) / step_mm - 1e-9)) + 3
    t = np.abs(at[:, None] + 1 - np.arange(count))
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))


def spline(coefficients: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(3, k, j, i) values of a B-spline from its coefficients (3, c, c, c) and the weights along each axis."""
    return _along(coefficients, weights)
