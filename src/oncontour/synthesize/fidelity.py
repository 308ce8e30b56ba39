"""How far a made image can be believed: without a truth, against the CT that it was made from; with one, against the real image.

Scores of likeness alone are won by blurring (a smoothed curve of HU has the best MAE and SSIM of all): they stand beside sharpness and
gradient correlation, never alone. Signal is measured in parts of the image's 95th percentile within the patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.geometry import AS_REFERENCE
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError, InputError
from oncontour.metrics.overlap import overlap
from oncontour.ops.body import Mask, body_mask
from oncontour.synthesize.signal import outline

Floats = NDArray[np.float64]
_SOFT_HU = (-200.0, 200.0)
"""Fat to contrasted tissue: between these CT and MR both tell tissues apart."""
_FAT_HU, _MUSCLE_HU = (-120.0, -80.0), (30.0, 70.0)
_STILL_HU = 20.0
"""A voxel whose HU changes by less from one slice to the next shows the same tissue in both."""


@dataclass(frozen=True)
class Fidelity:
    """A made image against its CT. NaN where there is nothing to be measured (one slice, no patient, no fat).

    ``body_dice``: of the patient's outlines in both; ``gradient_correlation``: of in-plane gradient magnitudes, -1 to 1; ``nmi``:
    normalised mutual information, 1 (nothing in common) to 2; ``checkerboard``: part of the finest detail that repeats with the
    generator's stride, 0 to 1; ``flicker``: signal by which slices differ where the CT does not; ``fat_over_muscle``: above 1 in a T1.
    """

    body_dice: float
    gradient_correlation: float
    nmi: float
    checkerboard: float
    flicker: float
    fat_over_muscle: float


@dataclass(frozen=True)
class Agreement:
    """A made image against the real one, inside both outlines. NaN where these have nothing in common.

    ``mae`` and ``psnr_db`` of signal in parts of the real one's 95th percentile; ``ssim`` in the slices, mean; ``correlation`` of signal
    and ``gradient_correlation`` of gradient magnitudes; ``sharpness``: mean gradient magnitude over the real one's, 1 is as sharp;
    ``body_dice`` of the two outlines.
    """

    mae: float
    ssim: float
    psnr_db: float
    correlation: float
    gradient_correlation: float
    sharpness: float
    body_dice: float


def fidelity(ct: Volume, made: Volume) -> Fidelity:
    """Figures of an image ``made`` from ``ct``, both on one grid, that need no truth.

    Checkerboards are seen on the generator's own grid alone: give it, not a resampled copy. Raises GeometryError for two grids.
    """
    check_one_grid(ct, made)
    patient = body_mask(ct)
    body = patient.array
    signal = _signal(made, body)
    hu = np.clip(ct.array, *_SOFT_HU).astype(np.float32)
    return Fidelity(
        overlap(patient, outline(made)).dsc,
        correlation(gradient(hu, ct), gradient(signal, ct), body),
        mutual_information(hu, signal, body),
        checkerboard(signal, body),
        flicker(ct.array, signal, body),
        _median(signal, body, ct.array, _FAT_HU) / _median(signal, body, ct.array, _MUSCLE_HU),
    )


def agreement(made: Volume, real: Volume, ct_body: Mask) -> Agreement:
    """``made`` against the ``real`` image of the same patient on the same grid, within ``ct_body`` (outline of the CT that it was made
    from) and the real image's own outline. Raises GeometryError for two grids."""
    check_one_grid(real, made)
    shown, made_shown = outline(real), outline(made)
    inside, body = shown.array & ct_body, overlap(shown, made_shown).dsc
    a, b = _signal(made, inside), _signal(real, inside)
    if not inside.any():
        nan = float("nan")
        return Agreement(nan, nan, nan, nan, nan, nan, body)
    apart = (a - b)[inside].astype(np.float64)
    sharp, as_sharp = gradient(a, made), gradient(b, real)
    return Agreement(
        float(np.abs(apart).mean()),
        float(ssim(a, b)[inside].mean()),
        float(-10 * np.log10(max(float((apart**2).mean()), 1e-12))),
        correlation(a, b, inside),
        correlation(sharp, as_sharp, inside),
        float(sharp[inside].mean() / as_sharp[inside].mean()) if as_sharp[inside].any() else float("nan"),
        body,
    )


def check_one_grid(one: Volume, other: Volume) -> None:
    """Raises GeometryError where the two images lie on different grids, InputError where either holds NaN."""
    if not one.geometry.same_grid(other.geometry):
        raise GeometryError(f"two images on different grids: {one.geometry.difference(other.geometry)}", hint=AS_REFERENCE)
    if not (np.isfinite(one.array).all() and np.isfinite(other.array).all()):
        raise InputError("an image holds NaN or infinite values", hint="replace them first")


def _signal(image: Volume, inside: Mask) -> NDArray[np.float32]:
    """Signal in parts of its 95th percentile ``inside``."""
    top = float(np.percentile(image.array[inside], 95)) if inside.any() else 1.0
    return (image.array / (top if top > 0 else 1.0)).astype(np.float32)


def _median(signal: NDArray[np.float32], body: Mask, hu: Array, between: tuple[float, float]) -> float:
    """Of the voxels in ``body`` whose HU lie between; NaN below fifty."""
    chosen = signal[body & (hu > between[0]) & (hu < between[1])]
    return float(np.median(chosen)) if chosen.size >= 50 else float("nan")


# ---- single figures, on arrays (k, j, i)


def gradient(values: NDArray[np.float32], on: Volume) -> NDArray[np.float32]:
    """Magnitude of the gradient within each slice, per mm."""
    dj, di = (
        ndimage.correlate1d(values, [-0.5, 0, 0.5], axis=axis) / mm for axis, mm in zip((1, 2), on.geometry.spacing_mm[1:], strict=True)
    )
    return np.asarray(np.hypot(dj, di), np.float32)


def correlation(a: NDArray[np.float32], b: NDArray[np.float32], inside: Mask) -> float:
    """Pearson's r; NaN where either does not vary."""
    x, y = (values[inside].astype(np.float64) for values in (a, b))
    if x.size < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def mutual_information(a: NDArray[np.float32], b: NDArray[np.float32], inside: Mask, bins: int = 64) -> float:
    """(H(a) + H(b)) / H(a, b) of ``bins`` equal bins each (Studholme et al. 1999): 1 for strangers, 2 where either tells the other.
    NaN where both are constant."""
    counts, _, _ = np.histogram2d(a[inside], b[inside], bins) if inside.any() else (np.zeros((bins, bins)), 0, 0)
    whole = _entropy(counts.ravel())
    return (_entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))) / whole if whole > 0 else float("nan")


def _entropy(counts: Floats) -> float:
    p = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(p * np.log(p)).sum())


def checkerboard(values: NDArray[np.float32], inside: Mask, period: int = 4) -> float:
    """The part of the finest detail's energy that repeats every ``period`` voxels of a slice (and so every 2, for 4), 0 to 1.

    Two transposed convolutions of stride 2 leave patterns of these periods (Odena et al., Distill 2016). Detail is what a mean over
    ``period`` voxels takes away, which no pattern of that period survives; its mean over all voxels of one phase is the pattern, less the
    share that chance alone gives to each phase.
    """
    box = np.convolve(np.full(period, 1 / period), [0.5, 0.5])
    count, total, squares = np.zeros(period**2, np.int64), np.zeros(period**2), 0.0
    for image, shown in zip(values, inside, strict=True):  # a slice at a time: whole volumes of float64 would take much memory
        smooth = ndimage.correlate1d(ndimage.correlate1d(image.astype(np.float64), box, axis=0), box, axis=1)
        kept = ndimage.binary_erosion(shown, np.ones((len(box), len(box)), bool))
        detail = (image - smooth)[kept]
        j, i = np.nonzero(kept)
        phase = (j % period) * period + i % period
        count += np.bincount(phase, minlength=period**2)
        total += np.bincount(phase, detail, period**2)
        squares += float((detail**2).sum())
    size = int(count.sum())
    if not size or not squares:
        return float("nan")
    energy = squares / size
    chance = energy * np.count_nonzero(count) / size
    return float(np.clip(((total**2 / np.maximum(count, 1)).sum() / size - chance) / energy, 0, 1))


def flicker(hu: Array, signal: NDArray[np.float32], body: Mask) -> float:
    """Root mean square of how much signal jumps from one slice to the next where HU stay, averaged over 9 x 9 voxels first, so that noise
    does not count. NaN where no two neighbours show the same soft tissue."""
    squares, voxels = 0.0, 0
    for k in range(1, len(hu)):  # a pair of slices at a time: whole volumes of float64 would take much memory
        soft = body[k] & body[k - 1]
        for one in (hu[k], hu[k - 1]):
            soft &= (one > _SOFT_HU[0]) & (one < _SOFT_HU[1])
        still = (soft & (np.abs(hu[k].astype(np.float32) - hu[k - 1]) < _STILL_HU)).astype(np.float64)
        near = ndimage.uniform_filter(still, 9, mode="constant")
        jump = ndimage.uniform_filter((signal[k].astype(np.float64) - signal[k - 1]) * still, 9, mode="constant")
        enough = (still > 0) & (near > 0.5)
        squares += float(((jump[enough] / near[enough]) ** 2).sum())
        voxels += int(enough.sum())
    return float(np.sqrt(squares / voxels)) if voxels else float("nan")


def ssim(a: NDArray[np.float32], b: NDArray[np.float32], span: float = 1.0) -> Floats:
    """Structural similarity of each voxel in its slice: Wang et al., IEEE TIP 2004;13:600-612, eq. 13, a Gaussian of 11 x 11 voxels and
    sigma 1.5, K1 0.01, K2 0.03, ``span`` the range of values."""

    def blur(values: Floats) -> Floats:
        return np.asarray(ndimage.gaussian_filter(values, (0, 1.5, 1.5), radius=(0, 5, 5)))

    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return np.asarray((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
