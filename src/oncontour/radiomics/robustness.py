"""How far features bear what cannot be helped: the patient lies a little otherwise, the contour is drawn a little otherwise, noise.

    for change in draws(20, seed=0):
        image, mask, grid = change.apply(case.images["dose"], case.mask("Esophagus"), DOSE.processing.spacing_mm)
        row = extract(image, mask, DOSE, grid)

A feature is worth keeping where patients differ more than perturbations of one patient do: its intraclass correlation (``icc``) is near 1.
Source of the chain (noise, turn and shift of the grid, contour): Zwanenburg et al., Sci Rep 2019;9:614. *Differs:* contours are moved by
a smooth random field instead of by supervoxels, so that dose, which has none, can be perturbed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.radiomics.region import MARGIN_MM, SPLINE_REACH

Floats = NDArray[np.float64]
CORRELATION_MM = 10.0
"""Over about this length a contour moves together."""
_ROUNDING = 1e-12
"""Part of the largest value that values may differ by and be the same."""


@dataclass(frozen=True)
class Perturbation:
    """One small change. ``shift``: (k, j, i) in voxels of the grid that features are computed on; ``angle_deg`` round the middle of the
    structure, in the plane of the slices; ``noise_sd`` in units of the image, independent from voxel to voxel; ``contour_mm``: standard
    deviation of how far the contour moves outward, smoothly along it; ``seed`` of what is random. All zero changes nothing.
    """

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angle_deg: float = 0.0
    noise_sd: float = 0.0
    contour_mm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.noise_sd >= 0 and self.contour_mm >= 0):
            raise ConfigError(f"noise and contour movement are 0 or more, not {self.noise_sd} and {self.contour_mm} mm")

    def apply(self, image: Volume, mask: Volume, spacing_mm: tuple[float, float, float] | None = None) -> tuple[Volume, Volume, Geometry]:
        """Noisy image, moved mask (coverage where the contour moves) and turned grid for ``dosiomics.extract``.

        ``spacing_mm``: voxels (k, j, i) of that grid, None for those of the image. An empty mask comes back as it is.
        """
        noise, field = (np.random.default_rng([self.seed, n]) for n in (0, 1))
        grid = image.geometry.resample(spacing_mm) if spacing_mm else image.geometry
        if not mask.array.any():
            return image, mask, grid
        if self.noise_sd:
            image = _near(image, mask, self.contour_mm)
            rough = noise.normal(0.0, self.noise_sd, image.array.shape)
            image = image.map(lambda array: array.astype(np.float64) + rough)
        if self.contour_mm:
            mask = _redrawn(mask, self.contour_mm, field)
        if self.angle_deg or any(self.shift):
            grid = _turned(grid, mask, self.angle_deg, self.shift)
        return image, mask, grid


def draws(number: int, seed: int, *, noise_sd: float, angle_deg: float = 5.0, contour_mm: float = 1.0) -> list[Perturbation]:
    """``number`` perturbations: shifts up to half a voxel, turns up to ``angle_deg``, noise and contour movement of these deviations.

    The same seed gives the same draws, whatever the deviations. Raises ConfigError for fewer than one.
    """
    if number < 1:
        raise ConfigError(f"perturb at least once, not {number} times")
    rng = np.random.default_rng(seed)
    out = []
    for n in range(number):
        k, j, i, turn = rng.uniform(-1, 1, 4)
        out.append(Perturbation((k / 2, j / 2, i / 2), turn * angle_deg, noise_sd, contour_mm, seed * 100_003 + n))
    return out


def _near(image: Volume, mask: Volume, contour_mm: float) -> Volume:
    """The part of ``image`` that features of ``mask`` can depend on, wherever its contour moves: the rest needs no noise."""
    corners = image.geometry.voxels(mask.geometry.points([*np.argwhere(mask.array)]))
    room = (MARGIN_MM + 4 * contour_mm + max(mask.geometry.spacing_mm)) / np.asarray(image.geometry.spacing_mm) + SPLINE_REACH
    start = np.clip(np.floor(corners.min(axis=0) - room), 0, np.asarray(image.geometry.shape) - 1).astype(int)
    stop = np.clip(np.ceil(corners.max(axis=0) + room) + 1, start + 1, image.geometry.shape).astype(int)
    return image.to(image.geometry.crop(start.tolist(), stop.tolist()))


def _turned(grid: Geometry, mask: Volume, angle_deg: float, shift: tuple[float, float, float]) -> Geometry:
    """``grid`` turned round the middle of ``mask`` in its own slices and shifted by voxels."""
    middle = mask.geometry.points(np.argwhere(mask.array > 0).mean(axis=0))
    k, j, i = grid.axes
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    basis = np.stack([k, c * j + s * i, c * i - s * j])
    turn = basis.T @ grid.axes
    affine = grid.affine.copy()
    affine[:3, :3] = turn @ grid.affine[:3, :3]
    affine[:3, 3] = middle + turn @ (grid.affine[:3, 3] - middle) + affine[:3, :3] @ np.asarray(shift)
    return Geometry(grid.shape, affine)


def _redrawn(mask: Volume, sd_mm: float, rng: np.random.Generator) -> Volume:
    """``mask`` as coverage, its border moved by a smooth random field of standard deviation ``sd_mm``."""
    spacing = np.asarray(mask.geometry.spacing_mm)
    held = np.argwhere(mask.array)
    room = np.ceil((4 * sd_mm + 2 * spacing.max()) / spacing).astype(int)
    part = mask.geometry.crop((held.min(axis=0) - room).tolist(), (held.max(axis=0) + 1 + room).tolist())
    inside = mask.to(part).binary().array
    step = float(spacing.min())
    outside_mm = ndimage.distance_transform_edt(~inside, spacing) - step / 2
    inside_mm = ndimage.distance_transform_edt(inside, spacing) - step / 2
    away = np.where(inside, -inside_mm, outside_mm)
    border = np.abs(away) <= 4 * sd_mm + step
    away[border] -= sd_mm * _smooth(np.argwhere(border) * spacing, rng)
    return Volume(np.clip(0.5 - away / step, 0, 1), part)


def _smooth(at_mm: Floats, rng: np.random.Generator) -> Floats:
    """A Gaussian random field of deviation 1 at points (n, 3): correlation exp(-r^2 / 2 l^2) with l = CORRELATION_MM.

    Source: Rahimi and Recht, NeurIPS 2007: a sum of waves of random direction, length and phase.
    """
    waves, phases = rng.normal(0, 1 / CORRELATION_MM, (64, 3)), rng.uniform(0, 2 * np.pi, 64)
    out = np.zeros(len(at_mm))
    for wave, phase in zip(waves, phases, strict=True):
        out += np.cos(at_mm @ wave + phase)
    return np.asarray(np.sqrt(2 / len(waves)) * out)


# ---- intraclass correlation


@dataclass(frozen=True)
class Agreement:
    """An intraclass correlation with its 95 % interval; NaN where nothing varies."""

    value: float
    low: float
    high: float


def icc(table: ArrayLike) -> tuple[Agreement, Agreement]:
    """ICC(1,1) and ICC(3,1) of a ``table`` (patients, repetitions); patients with a value that is not finite are left out.

    ICC(1,1): repetitions of a patient are interchangeable; ICC(3,1): the n-th repetition is the same for all, and its own offset is
    forgiven. NaN below two patients or two repetitions, and where nothing varies. Source: Shrout and Fleiss, Psychol Bull
    1979;86:420-428, with their intervals.
    """
    values = np.asarray(table, np.float64)
    if values.ndim != 2:
        raise ConfigError(f"a table has patients and repetitions, not {values.ndim} axes")
    values = values[np.isfinite(values).all(axis=1)]
    n, k = values.shape
    if n < 2 or k < 2:
        nothing = Agreement(np.nan, np.nan, np.nan)
        return nothing, nothing
    total = values - values.mean()
    rows, columns = total.mean(axis=1), total.mean(axis=0)
    between = k * float(rows @ rows) / (n - 1)
    left = total - rows[:, None]
    within = float((left**2).sum()) / (n * (k - 1))
    error = float(((left - columns) ** 2).sum()) / ((n - 1) * (k - 1))
    rounding = (_ROUNDING * float(np.abs(values).max())) ** 2
    between, within, error = (0.0 if square <= rounding else square for square in (between, within, error))
    return _agreement(between, within, n, k, n * (k - 1)), _agreement(between, error, n, k, (n - 1) * (k - 1))


def _agreement(between: float, error: float, n: int, k: int, degrees: int) -> Agreement:
    """(B - E) / (B + (k - 1) E), and the same of the ends of the interval of F = B / E."""
    from scipy.stats import f

    if between <= 0 and error <= 0:
        return Agreement(np.nan, np.nan, np.nan)
    if error <= 0:
        return Agreement(1.0, 1.0, 1.0)
    ratio = between / error
    low, high = ratio / f.ppf(0.975, n - 1, degrees), ratio * f.ppf(0.975, degrees, n - 1)
    one, two, three = ((x - 1) / (x + k - 1) for x in (ratio, low, high))
    return Agreement(float(one), float(two), float(three))


def agreements(repetitions: Sequence[Sequence[dict[str, float]]]) -> dict[str, tuple[Agreement, Agreement]]:
    """Feature -> ICC(1,1), ICC(3,1), from one list of feature rows a patient, all of the same length and features."""
    names: list[Any] = list(repetitions[0][0]) if repetitions and repetitions[0] else []
    return {name: icc([[row[name] for row in rows] for rows in repetitions]) for name in names}
