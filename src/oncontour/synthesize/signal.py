"""What the values of a T1-weighted MR mean: where its patient is, its bias field, one scale for all scanners, and which tissue is bright.

On that scale 1 is the 95th percentile of the patient, which is fat wherever fat can be seen; air is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.ops.body import Mask, body_mask

Grey = NDArray[np.float32]

T1_CURVE = (
    (-1000.0, 0.0),
    (-500.0, 0.0),
    (-300.0, 0.15),
    (-140.0, 0.90),
    (-80.0, 0.93),
    (-20.0, 0.45),
    (20.0, 0.32),
    (70.0, 0.30),
    (150.0, 0.33),
    (300.0, 0.42),
    (600.0, 0.30),
    (1000.0, 0.15),
    (2000.0, 0.05),
)
"""(HU, signal) of a textbook's T1-weighted spin echo, from no data: fat bright, muscle a third of it, marrow between them, cortical bone
and air dark. Straight lines between the points; the ends go on."""
EDGE = 0.15
"""Signal at the skin: half of muscle's."""
_NOISE = 0.06
"""Signal below which nothing but air is."""
_DARK_FAT = 1.2
"""Of 28 T1 series (STS) the rim under the skin is at least 1.25 times as bright as the depth; with contrast inverted at most 1.16 times."""


def textbook(hu: Array) -> Grey:
    """The signal that ``T1_CURVE`` gives to HU."""
    at, value = zip(*T1_CURVE, strict=True)
    return np.asarray(np.interp(hu, at, value), np.float32)


def outline(mr: Volume) -> Volume:
    """The patient in an MR (bool, on its grid): what shines at least EDGE of the 95th percentile, and all that it encloses.

    As ``ops.body.body_mask`` finds a patient in a CT, on signal turned into what tissue would have there. Empty where nothing shines.
    """
    shining = mr.array[mr.array > 0]
    if not shining.size:
        return Volume(np.zeros(mr.geometry.shape, bool), mr.geometry)
    top = float(np.percentile(shining, 95))

    def as_hu(values: Array) -> Grey:
        part = np.asarray(values, np.float32) / top
        return np.where(part < _NOISE, -1000, np.clip(-1000 + 700 * part / EDGE, -1000, 200)).astype(np.float32)

    return body_mask(mr.map(as_hu))


def normalised(mr: Volume, *, correct_bias: bool = True) -> tuple[Volume, Volume]:
    """(signal on the scale where fat is 1, outline of the patient), the bias field taken off first unless it was before.

    Raises InputError for NaN, for an MR without a patient, and for one whose fat is dark (a fat-suppressed series, an inverted one): a
    generator would learn that contrast.
    """
    if not np.isfinite(mr.array).all():
        raise InputError("the MR holds NaN or infinite values", hint="replace them, or leave the patient out")
    inside = outline(mr)
    if not inside.array.any():
        raise InputError("no patient can be seen in the MR", hint="is it empty, or another kind of image?")
    values = np.asarray(mr.array, np.float32)
    if correct_bias:
        values = np.asarray(values / np.exp(bias_field(mr, inside.array)), np.float32)
    scaled = Volume(values / np.float32(np.percentile(values[inside.array], 95)), mr.geometry)
    rim, deep = rim_and_depth(scaled, inside.array)
    if rim < _DARK_FAT * deep:
        raise InputError(
            f"fat is dark in the MR: signal {rim:.2f} under the skin, {deep:.2f} in the depth",
            hint="give T1-weighted series without fat suppression",
        )
    return scaled, inside


def rim_and_depth(image: Volume, inside: Mask) -> tuple[float, float]:
    """Signal 2 to 10 mm under the skin (75th percentile, as skin and vessels are dark) and deeper than 20 mm (median); the image's border
    is no skin. (inf, 0) where the patient has no such rim or depth: nothing can be said then."""
    open_ended = np.pad(inside, ((0, 0), (1, 1), (1, 1)), mode="edge")
    far = image.geometry.spacing_mm[0] * 1e3  # within each slice
    mm = ndimage.distance_transform_edt(open_ended, sampling=(far, *image.geometry.spacing_mm[1:]))[:, 1:-1, 1:-1]
    rim, deep = image.array[inside & (mm > 2) & (mm < 10)], image.array[inside & (mm > 20)]
    if min(rim.size, deep.size) < 100:
        return np.inf, 0.0
    return float(np.percentile(rim, 75)), float(np.median(deep))


# ---- the bias field


def bias_field(mr: Volume, inside: Mask, *, degree: int = 3, most: int = 20_000, rounds: int = 30) -> NDArray[np.float64]:
    """The logarithm of the smooth factor by which an MR is too bright, its mean over the patient 0, (k, j, i).

    N3 (Sled, Zijdenbos and Evans, IEEE TMI 1998;17:87-97): what sharpens the histogram of the logarithm, again and again, smoothed.
    *Differs:* smooth is a polynomial of ``degree`` in place of B-splines, fitted to at most ``most`` voxels; a field that turns twice
    within the image stays.
    """
    lit = inside & (mr.array > _NOISE * np.percentile(mr.array[inside], 95))
    places = np.argwhere(lit)
    places = places[:: max(1, len(places) // most)]
    if len(places) < 1000:
        return np.zeros(mr.geometry.shape)
    log = np.log(mr.array[tuple(places.T)].astype(np.float64))
    shape = np.asarray(mr.geometry.shape)
    basis = _polynomials(2 * places / np.maximum(shape - 1, 1) - 1, degree)
    solve = np.linalg.pinv(basis)
    field = np.zeros(len(log))
    for _ in range(rounds):
        new = basis @ (solve @ (log - _sharpened(log - field)))
        new -= new.mean()
        done = float(np.std(new - field)) < 1e-3
        field = new
        if done:
            break
    weights = solve @ field
    along = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    grid = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 3)
    whole = np.concatenate([_polynomials(part, degree) @ weights for part in np.array_split(grid, 1 + len(grid) // 500_000)])
    return whole.reshape(mr.geometry.shape)


def _polynomials(at: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """(n, 3) places in [-1, 1] -> every product of powers up to ``degree`` in all."""
    powers = [(a, b, c) for a in range(degree + 1) for b in range(degree + 1 - a) for c in range(degree + 1 - a - b)]
    return np.stack([at[:, 0] ** a * at[:, 1] ** b * at[:, 2] ** c for a, b, c in powers], axis=1)


def _sharpened(log: NDArray[np.float64], fwhm: float = 0.15, noise: float = 0.01) -> NDArray[np.float64]:
    """What each logarithm is expected to be without the field's blur of the histogram: deconvolved by a Gaussian with Wiener's filter."""
    bins, low, high = 256, log.min() - 0.5, log.max() + 0.5
    step = (high - low) / bins
    counts, _ = np.histogram(log, bins, (low, high))
    kernel = signal.windows.gaussian(bins, fwhm / 2.355 / step)
    blur = np.fft.fft(np.fft.ifftshift(kernel / kernel.sum())).real
    sharp = np.maximum(np.fft.ifft(np.fft.fft(counts) * blur / (blur**2 + noise)).real, 0)
    centres = low + step * (np.arange(bins) + 0.5)
    weight = np.fft.ifft(np.fft.fft(sharp) * blur).real
    mean = np.fft.ifft(np.fft.fft(sharp * centres) * blur).real
    expected = np.where(weight > 1e-6 * weight.max(), mean / np.where(weight == 0, 1, weight), centres)
    return np.interp(log, centres, expected)
