"""Contours with errors as clinics see them, to learn from: each error has a strength and is made in three dimensions.

    error = draw(rng, families)                 which error, drawn at random
    mask = spoil(truth, surroundings, error)    a mask of the same shape; how wrong it is, the truth beside it tells

The families: ``shift``, ``dilate``, ``erode``, ``slice_swap`` (slices that belong elsewhere), ``missing_part`` (an end, slices between, or
one side), ``islands``, ``leak`` (into the neighbour, else a bulge), ``noise`` (smooth waves on the outline), ``wrong_side``. Strength 0 is
next to nothing; at 1 little of the structure is left right, measured by the structure's own size, so that DSC runs from 1 to 0 for a cord
as for a mandible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.errors import ConfigError

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SimulatedError:
    """One error to make. ``rough``: part of full ``noise`` put on top, so that spoiled outlines are not told by their smoothness."""

    family: str
    strength: float
    seed: int = 0
    rough: float = 0.0

    def __post_init__(self) -> None:
        if self.family not in (*FAMILIES, "none"):
            raise ConfigError(f"no family of errors {self.family!r}", hint=f"choose from {sorted(FAMILIES)}")
        if not 0 <= self.strength <= 1 or not 0 <= self.rough <= 1:
            raise ConfigError(f"strength and roughness lie between 0 and 1, not at {self.strength} and {self.rough}")


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What an error may use beside the mask, all of the mask's shape (k, j, i), k upwards and i to the patient's left.

    ``neighbours``: what other structures fill; ``partner``: the same organ of the other side; ``body``: the patient.
    """

    spacing_mm: Spacing
    neighbours: Mask | None = None
    partner: Mask | None = None
    body: Mask | None = None


def draw(rng: np.random.Generator, families: Sequence[str] | None = None) -> SimulatedError:
    """An error of one of ``families`` (default all), of any strength; half of them rough as well."""
    chosen = sorted(FAMILIES) if families is None else list(families)
    family = chosen[int(rng.integers(len(chosen)))]
    rough = float(0.5 * rng.random()) if rng.random() < 0.5 else 0.0
    return SimulatedError(family, float(rng.random()), int(rng.integers(2**31)), rough)


def spoil(mask: Mask, surroundings: Surroundings, error: SimulatedError) -> Mask:
    """``mask`` (k, j, i) with ``error`` in it; an empty mask stays empty. The same error on the same mask gives the same voxels."""
    if not mask.any():
        return mask.copy()
    rng = np.random.default_rng(error.seed)
    if error.family == "wrong_side":
        out = other_side(mask, surroundings)
        return _roughened(out, surroundings.spacing_mm, error, rng)
    box = around(mask, surroundings.spacing_mm, reach_mm(error, radius_mm(mask, surroundings.spacing_mm)))
    piece = mask[box]
    inside = Surroundings(
        surroundings.spacing_mm,
        *(None if a is None else a[box] for a in (surroundings.neighbours, surroundings.partner, surroundings.body)),
    )
    spoiled = piece if error.family == "none" else FAMILIES[error.family](piece, inside, error.strength, rng)
    spoiled = _roughened(spoiled, surroundings.spacing_mm, error, rng)
    out = np.zeros_like(mask)
    out[box] = spoiled
    return out


def _roughened(mask: Mask, spacing_mm: Spacing, error: SimulatedError, rng: np.random.Generator) -> Mask:
    if not error.rough or not mask.any():
        return mask
    box = around(mask, spacing_mm, _WAVES * error.rough * radius_mm(mask, spacing_mm) + 5)
    out = mask.copy()
    out[box] = _noise(mask[box], Surroundings(spacing_mm), error.rough, rng)
    return out


_WAVES = 2.0
"""How far out full noise may reach, in radii: 2.5 standard deviations of 0.8."""


def reach_mm(error: SimulatedError, radius: float) -> float:
    """How far around a mask of this radius an error may put voxels."""
    far = {
        "shift": 2.2 * error.strength * radius + 20 * error.strength,
        "dilate": 1.3 * error.strength * radius,
        "erode": 0.0,
        "slice_swap": 0.0,
        "missing_part": 0.0,
        "islands": 2.5 * (radius + 4) + 1.7 * error.strength * radius,
        "leak": 1.6 * (3 + 2.2 * error.strength * radius),
        "noise": _WAVES * error.strength * radius,
    }
    return far.get(error.family, 0.0) + _WAVES * error.rough * radius + 5


# ---- the tools


def radius_mm(mask: Mask, spacing_mm: Spacing) -> float:
    """Radius of the circle as large as the mask's median slice: what "half as large" means for its errors."""
    area = mask.sum(axis=(1, 2))
    area = area[area > 0]
    return float(np.sqrt(np.median(area) * spacing_mm[1] * spacing_mm[2] / np.pi)) if len(area) else 0.0


def around(mask: Mask, spacing_mm: Spacing, margin_mm: float) -> tuple[slice, slice, slice]:
    """The box of a mask that is not empty, ``margin_mm`` wider on all sides, inside the array."""
    out = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        more = int(np.ceil(margin_mm / spacing_mm[axis]))
        out.append(slice(max(0, int(where[0]) - more), min(mask.shape[axis], int(where[-1]) + 1 + more)))
    return out[0], out[1], out[2]


def shifted(mask: Mask, shift_mm: Sequence[float], spacing_mm: Spacing) -> Mask:
    """The mask moved by ``shift_mm`` (k, j, i); parts of a voxel by linear interpolation cut at one half."""
    steps = [mm / s for mm, s in zip(shift_mm, spacing_mm, strict=True)]
    return np.asarray(ndimage.shift(mask.astype(np.float32), steps, order=1, mode="constant") >= 0.5)


def depth_mm(mask: Mask, spacing_mm: Spacing) -> Floats:
    """Signed distance of voxel centres from the outline, positive inside.

    The outline is taken to lie half the *finest* spacing from the centres next to it: halfway along that axis; along coarser ones a voxel
    centre counts as farther from it by half the difference of the spacings (0.75 mm at 2.5 x 4 x 4 mm), inside and outside alike. Good
    enough to spoil contours with, whose truth is counted in voxels afterwards; no measure.
    """
    half = min(spacing_mm) / 2
    inside = ndimage.distance_transform_edt(np.pad(mask, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, spacing_mm)
    return np.asarray(np.where(mask, inside - half, half - outside))


def grown(mask: Mask, mm: float, spacing_mm: Spacing) -> Mask:
    """The mask with its outline about ``mm`` farther out (negative: farther in); see ``depth_mm`` for how nearly."""
    return np.asarray(depth_mm(mask, spacing_mm) > -mm)


def other_side(mask: Mask, surroundings: Surroundings) -> Mask:
    """The organ of the other side where it is known, else the mask mirrored about the middle of the body (of the image without one)."""
    if surroundings.partner is not None and surroundings.partner.any():
        return surroundings.partner.copy()
    columns = (
        np.flatnonzero(surroundings.body.any(axis=(0, 1)))
        if surroundings.body is not None and surroundings.body.any()
        else np.arange(mask.shape[2])
    )
    ends = int(columns[0]) + int(columns[-1])
    out = np.zeros_like(mask)
    source = ends - np.arange(mask.shape[2])
    known = (source >= 0) & (source < mask.shape[2])
    out[..., known] = mask[..., source[known]]
    return out


def ball(shape: Sequence[int], centre: Floats, radii_mm: Sequence[float], spacing_mm: Spacing) -> Mask:
    """Voxels within an ellipsoid around voxel ``centre`` (k, j, i)."""
    axes = (((np.arange(n) - c) * s / max(r, 1e-6)) ** 2 for n, c, s, r in zip(shape, centre, spacing_mm, radii_mm, strict=True))
    k, j, i = axes
    return np.asarray(k[:, None, None] + j[None, :, None] + i[None, None, :] <= 1)


def _direction(rng: np.random.Generator) -> Floats:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def _span(mask: Mask) -> tuple[int, int]:
    """First and last slice with a voxel."""
    where = np.flatnonzero(mask.any(axis=(1, 2)))
    return int(where[0]), int(where[-1])


# ---- the families


def _shift(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    flat = _direction(rng) * strength * 2.2 * radius_mm(mask, surroundings.spacing_mm)
    along = float(rng.choice([0.0, rng.uniform(-1, 1) * 20 * strength]))
    return shifted(mask, (along, float(flat[0]), float(flat[1])), surroundings.spacing_mm)


def _dilate(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    return _limited(grown(mask, 1.3 * strength * radius_mm(mask, surroundings.spacing_mm), surroundings.spacing_mm), mask, rng)


def _erode(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    return _limited(grown(mask, -0.95 * strength * radius_mm(mask, surroundings.spacing_mm), surroundings.spacing_mm), mask, rng)


def _limited(changed: Mask, mask: Mask, rng: np.random.Generator) -> Mask:
    """Half of the time the change is kept to some of the slices."""
    if rng.random() < 0.5:
        return changed
    first, last = _span(mask)
    low, high = sorted(int(k) for k in rng.integers(first, last + 1, 2))
    out = mask.copy()
    out[low : high + 1] = changed[low : high + 1]
    return out


def _slice_swap(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    first, last = _span(mask)
    count = last - first + 1
    step = max(1, round(strength * min(0.6 * count, 30 / surroundings.spacing_mm[0]))) * int(rng.choice([-1, 1]))
    length = int(rng.integers(1, max(2, round(0.7 * count)) + 1))
    low = int(rng.integers(first, max(first, last + 1 - length) + 1))
    out = mask.copy()
    for k in range(low, min(low + length, last + 1)):
        out[k] = mask[k + step] if 0 <= k + step < len(mask) else False
    return out


def _missing_part(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    out, kind = mask.copy(), int(rng.integers(3))
    first, last = _span(mask)
    gone = max(1, round(strength * 0.7 * (last - first + 1)))
    if kind == 0:  # an end
        if rng.random() < 0.5:
            out[first : first + gone] = False
        else:
            out[last + 1 - gone : last + 1] = False
        return out
    if kind == 1:  # slices between
        out[rng.choice(np.arange(first, last + 1), min(gone, max(1, (last - first) // 2)), replace=False)] = False
        return out
    # one side of some or all slices
    voxels = np.argwhere(mask)
    towards = voxels[:, 1:] * np.asarray(surroundings.spacing_mm[1:]) @ _direction(rng)
    cut = towards > np.quantile(towards, 1 - 0.95 * strength)
    low, high = sorted(int(k) for k in rng.integers(first, last + 1, 2))
    if rng.random() < 0.5:
        cut &= (voxels[:, 0] >= low) & (voxels[:, 0] <= high)
    lost = voxels[cut]
    out[lost[:, 0], lost[:, 1], lost[:, 2]] = False
    return out


def _islands(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    out, size = mask.copy(), radius_mm(mask, surroundings.spacing_mm)
    voxels = np.argwhere(mask)
    for _ in range(int(rng.integers(1, 4))):
        home = voxels[int(rng.integers(len(voxels)))]
        away = _direction(rng) * rng.uniform(1.5, 2.5) * (size + 4)
        centre = home + np.array([0.0, away[0] / surroundings.spacing_mm[1], away[1] / surroundings.spacing_mm[2]])
        wide = max(strength * 1.3 * size, 0.6 * surroundings.spacing_mm[1])
        out |= ball(mask.shape, centre, (rng.uniform(3, 15), wide * rng.uniform(0.7, 1.3), wide), surroundings.spacing_mm)
    return out if surroundings.body is None else out & (mask | surroundings.body)


def _leak(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    size = radius_mm(mask, surroundings.spacing_mm)
    shell = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    near = None if surroundings.neighbours is None else surroundings.neighbours & ~mask
    wide = 3.0 + strength * 2.2 * size
    places = shell
    if near is not None and near.any():
        beside = np.argwhere(mask & ndimage.binary_dilation(near, iterations=2))
        places = beside if len(beside) else shell
    out = mask.copy()
    for _ in range(int(rng.integers(1, 3))):
        centre = places[int(rng.integers(len(places)))].astype(np.float64)
        spill = ball(mask.shape, centre, (wide * rng.uniform(0.8, 1.6), wide, wide), surroundings.spacing_mm)
        into = spill & near if near is not None else spill
        out |= into if into.any() else spill
    return out if surroundings.body is None else out & (mask | surroundings.body)


def _noise(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    size = radius_mm(mask, surroundings.spacing_mm)
    waves_mm = rng.uniform(5, 15)
    field = ndimage.gaussian_filter(rng.standard_normal(mask.shape).astype(np.float32), [waves_mm / s for s in surroundings.spacing_mm])
    field /= max(float(field.std()), 1e-9)
    return np.asarray(depth_mm(mask, surroundings.spacing_mm) + field * strength * 0.8 * size > 0)


def _wrong_side(mask: Mask, surroundings: Surroundings, strength: float, rng: np.random.Generator) -> Mask:
    return other_side(mask, surroundings)


FAMILIES: dict[str, Callable[[Mask, Surroundings, float, np.random.Generator], Mask]] = {
    "shift": _shift,
    "dilate": _dilate,
    "erode": _erode,
    "slice_swap": _slice_swap,
    "missing_part": _missing_part,
    "islands": _islands,
    "leak": _leak,
    "noise": _noise,
    "wrong_side": _wrong_side,
}
"""family -> the function that makes it."""
