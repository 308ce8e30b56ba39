"""Filters that are computed by Fourier transforms: Gabor, Simoncelli's wavelet, Riesz transforms.

What lies beyond the image is put there before the transform, as far as the kernel reaches. An image that goes on as in a mirror needs no
room where the filter is even: a cosine transform of the image is the Fourier transform of the image that goes on for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from oncontour.radiomics.filters.separable import laplacian
from oncontour.radiomics.filters.settings import Boundary, Gabor, LaplacianOfGaussian, Simoncelli

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
PADS: dict[Boundary, Literal["constant", "edge", "wrap", "symmetric"]] = {
    "zero": "constant",
    "nearest": "edge",
    "periodic": "wrap",
    "mirror": "symmetric",
}
"""As numpy.pad calls what lies beyond an image."""
GABOR_SD = 5.0
"""Standard deviations after which a Gabor kernel is cut off."""
RIESZ_REACH = 32
"""Voxels beyond the image that a Riesz transform takes into account: its kernel falls with the cube of the distance."""


# ---- Gabor


def gabor(array: Floats, spacing_mm: Sequence[float], asked: Gabor) -> Floats:
    """Modulus of the response to Gabor kernels, the mean over angles and planes where that is asked for."""
    out = np.zeros(array.shape)
    normals = (0, 1, 2) if asked.planes else (0,)
    for normal in normals:
        _add_plane(np.moveaxis(array, normal, 0), [s for n, s in enumerate(spacing_mm) if n != normal], asked, np.moveaxis(out, normal, 0))
    return out / len(normals)


def _add_plane(array: Floats, spacing_mm: Sequence[float], asked: Gabor, out: Floats) -> None:
    """Add to ``out`` the response of ``array`` in its last two axes."""
    reach_mm = GABOR_SD * asked.sigma_mm * max(1.0, 1 / asked.gamma)
    reach = [int(np.ceil(reach_mm / s)) for s in spacing_mm]
    rooms = [_room(n, r, asked.boundary) for n, r in zip(array.shape[1:], reach, strict=True)]
    sizes = [sum(room) + n for room, n in zip(rooms, array.shape[1:], strict=True)]
    kernels = [_gabor_spectrum(theta, spacing_mm, reach, sizes, asked) for theta in _angles(asked)]
    inner = tuple(slice(room[0], room[0] + n) for room, n in zip(rooms, array.shape[1:], strict=True))
    for n in range(len(array)):
        spectrum = fft.fft2(np.pad(array[n], rooms, PADS[asked.boundary]))
        for kernel in kernels:
            out[n] += np.abs(fft.ifft2(spectrum * kernel)[inner]) / len(kernels)


def _angles(asked: Gabor) -> list[float]:
    """In radians. Opposite directions have the same modulus: half the circle does."""
    if not asked.step_deg:
        return [np.deg2rad(asked.theta_deg)]
    count = round(360 / asked.step_deg)
    return [2 * np.pi * n / count for n in range(count // 2 if count % 2 == 0 else count)]


def _gabor_spectrum(theta: float, spacing_mm: Sequence[float], reach: Sequence[int], sizes: Sequence[int], asked: Gabor) -> Complex:
    """Fourier transform of the kernel on a grid of ``sizes``, folded into it where it reaches further."""
    down, across = (np.arange(-r, r + 1) * s for r, s in zip(reach, spacing_mm, strict=True))
    x, y = across, down[:, None]
    along, aside = x * np.cos(theta) + y * np.sin(theta), y * np.cos(theta) - x * np.sin(theta)
    kernel = np.exp(-(along**2 + (asked.gamma * aside) ** 2) / (2 * asked.sigma_mm**2) + 2j * np.pi * along / asked.lambda_mm)
    folded = np.zeros(sizes, np.complex128)
    np.add.at(folded, tuple(np.ix_(*(np.arange(-r, r + 1) % size for r, size in zip(reach, sizes, strict=True)))), kernel)
    return np.asarray(fft.fft2(folded))


def _room(n: int, reach: int, boundary: Boundary) -> tuple[int, int]:
    """Voxels to put before and after ``n`` so that a circular convolution with a kernel of ``reach`` is right on the ``n``."""
    if boundary == "periodic":
        return 0, 0
    if boundary == "mirror" and reach >= n // 2:  # the mirrored image has a period of 2 n
        return 0, n
    if boundary == "zero":
        return 0, fft.next_fast_len(n + min(reach, n)) - n
    return reach, fft.next_fast_len(n + 2 * reach) - n - reach


# ---- non-separable wavelet and Riesz transform


def simoncelli(array: Floats, asked: Simoncelli) -> Floats:
    """The band-pass map of ``array`` at ``level``: isotropic, of waves within an octave of 2^(level + 1) voxels."""
    axes = _axes(array, asked.axes)
    if asked.boundary == "mirror" and not asked.riesz:
        waves = _mesh([np.arange(array.shape[axis]) / array.shape[axis] for axis in axes])
        return np.asarray(fft.idctn(fft.dctn(array, 2, axes=axes) * _band(waves, asked.level), 2, axes=axes))
    padded, inner = _padded(array, axes, RIESZ_REACH if asked.riesz else 8 * 2**asked.level, asked.boundary)
    transfer: Floats | Complex = _band_of_the_consensus([padded.shape[axis] for axis in axes], asked.level)
    if asked.riesz:
        transfer = transfer * _riesz(_waves(padded.shape, axes), asked.riesz)
    return _multiplied(padded, transfer, axes)[inner]


def riesz_laplacian(array: Floats, spacing_mm: Sequence[float], asked: LaplacianOfGaussian) -> Floats:
    """The Riesz transform of the Laplacian of Gaussian of ``array``."""
    axes = _axes(array, asked.axes)
    padded, inner = _padded(array, axes, RIESZ_REACH, asked.boundary)
    waves = [wave / spacing_mm[axis] for wave, axis in zip(_waves(padded.shape, axes), axes, strict=True)]
    return _multiplied(laplacian(padded, spacing_mm, asked), _riesz(waves, asked.riesz), axes)[inner]


def _axes(array: Floats, many: int) -> tuple[int, ...]:
    return tuple(range(array.ndim - many, array.ndim))


def _padded(array: Floats, axes: Sequence[int], reach: int, boundary: Boundary) -> tuple[Floats, tuple[slice, ...]]:
    """``array`` with what lies beyond it, and where in that it is."""
    rooms = [_room(n, reach, boundary) if axis in axes else (0, 0) for axis, n in enumerate(array.shape)]
    return np.pad(array, rooms, PADS[boundary]), tuple(slice(low, low + n) for (low, _), n in zip(rooms, array.shape, strict=True))


def _multiplied(array: Floats, transfer: Floats | Complex, axes: Sequence[int]) -> Floats:
    return np.asarray(fft.irfftn(fft.rfftn(array, axes=axes) * transfer, [array.shape[axis] for axis in axes], axes=axes))


def _waves(shape: Sequence[int], axes: Sequence[int]) -> list[Floats]:
    """Frequencies along each axis, half of them along the last; 1 is a wave of two voxels."""
    return _mesh([2 * (fft.rfftfreq if axis == axes[-1] else fft.fftfreq)(shape[axis]) for axis in axes])


def _mesh(waves: list[Floats]) -> list[Floats]:
    return list(np.meshgrid(*waves, indexing="ij", sparse=True))


def _band(waves: Sequence[Floats], level: int) -> Floats:
    """Simoncelli's transfer function cos(pi / 2 log2(2 w)) for w from 1/4 to 1, w the frequency times 2^(level - 1) (IBSI-2 PRT7)."""
    frequency = 2 ** (level - 1) * np.sqrt(sum(wave**2 for wave in waves))
    inside = (frequency > 0.25) & (frequency <= 1)
    out = np.zeros(frequency.shape)
    out[inside] = np.cos(np.pi / 2 * np.log2(2 * frequency[inside]))
    return out


def _band_of_the_consensus(sizes: Sequence[int], level: int) -> Floats:
    """``_band`` in the layout of a real transform, at the frequencies by which the reference response maps were computed.

    Of an even number n of samples these run from -1 to 1 in steps of 2 / (n - 1), zero being half a step off the sample it belongs to.
    The response to that is complex; its real part, which the maps hold, is the response to the even part.
    """
    waves = [fft.ifftshift(np.linspace(-1, 1, n)) if n > 1 else np.zeros(1) for n in sizes]
    band = _band(_mesh(waves), level)
    axes = tuple(range(band.ndim))
    even = (band + np.roll(np.flip(band, axes), 1, axes)) / 2
    return np.asarray(even[..., : sizes[-1] // 2 + 1])


def _riesz(waves: Sequence[Floats], riesz: str) -> Complex:
    """The Riesz transform's transfer function: (-i)^L sqrt(L! / product of l!) times the product of (w / |w|)^l (IBSI-2 AYRS)."""
    orders = [int(digit) for digit in reversed(riesz)]
    length = np.sqrt(sum(wave**2 for wave in waves))
    length[length == 0] = np.inf
    scale = np.sqrt(factorial(sum(orders)) / prod(factorial(order) for order in orders))
    return np.asarray((-1j) ** sum(orders) * scale * prod((wave / length) ** order for wave, order in zip(waves, orders, strict=True)))
