"""Filters whose kernel is a product of one kernel an axis: Laplacian of Gaussian, Laws, wavelets; and their rotations.

A kernel turned by right angles is the same product with its factors on other axes and some of them reversed, so that pooling over the 24
rotations in space (4 in a slice) costs no 24 convolutions: reversing an odd or even factor changes a sign at most, and the mean over
rotations is a sum of few products (``_mean_over_rotations``). Kernels of an even length get a 0 at their end, so that they have a middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.radiomics.filters.settings import Boundary, LaplacianOfGaussian, Laws, Pool, Wavelet

Floats = NDArray[np.float64]
Kernel = tuple[float, ...]
Kernels = tuple[Kernel, ...]
"""One an axis of the array, in its order (k, j, i), or (j, i) in a slice."""
MODES: dict[Boundary, str] = {"zero": "constant", "nearest": "nearest", "periodic": "wrap", "mirror": "reflect"}
"""As scipy.ndimage calls what lies beyond an image."""
_ROOT3, _ROOT7 = np.sqrt(3), np.sqrt(7)
_ROOT10, _ROOT_5_2ROOT10 = np.sqrt(10), np.sqrt(5 + 2 * np.sqrt(10))
SCALING: dict[str, Floats] = {
    "haar": np.array([1, 1]) / np.sqrt(2),
    "db2": np.array([1 - _ROOT3, 3 - _ROOT3, 3 + _ROOT3, 1 + _ROOT3]) / (4 * np.sqrt(2)),
    "db3": np.array(
        [
            1 + _ROOT10 - _ROOT_5_2ROOT10,
            5 + _ROOT10 - 3 * _ROOT_5_2ROOT10,
            10 - 2 * _ROOT10 - 2 * _ROOT_5_2ROOT10,
            10 - 2 * _ROOT10 + 2 * _ROOT_5_2ROOT10,
            5 + _ROOT10 + 3 * _ROOT_5_2ROOT10,
            1 + _ROOT10 + _ROOT_5_2ROOT10,
        ]
    )
    / (16 * np.sqrt(2)),
    "coif1": np.array([-3 + _ROOT7, 1 - _ROOT7, 14 - 2 * _ROOT7, 14 + 2 * _ROOT7, 5 + _ROOT7, 1 - _ROOT7]) / (16 * np.sqrt(2)),
}
"""Low-pass kernels (Daubechies, Ten lectures on wavelets, 1992, sections 6.4 and 8.2)."""


def laplacian(array: Floats, spacing_mm: Sequence[float], asked: LaplacianOfGaussian) -> Floats:
    """Laplacian of Gaussian of ``array``: the sum over axes of a second derivative along one and Gaussians along the others.

    Derivatives are by the shortest of the axes' steps, so that voxels that are no cubes count alike in all directions in mm.
    """
    axes = range(array.ndim - asked.axes, array.ndim)
    finest = min(spacing_mm[axis] for axis in axes)
    smooth, curved = zip(*(_gaussian(asked.sigma_mm / spacing_mm[axis], asked.cut_sd) for axis in axes), strict=True)
    curved = tuple(second * (finest / spacing_mm[axis]) ** 2 for axis, second in zip(axes, curved, strict=True))
    plain, summed = array, np.zeros(())
    for axis, gaussian, second in zip(axes, smooth, curved, strict=True):
        bent = along(plain, second, axis, asked.boundary)
        summed = bent + along(summed, gaussian, axis, asked.boundary) if summed.ndim else bent
        if axis != axes[-1]:
            plain = along(plain, gaussian, axis, asked.boundary)
    return np.asarray(summed)


def _gaussian(sigma: float, cut_sd: float) -> tuple[Floats, Floats]:
    """A Gaussian of ``sigma`` voxels and its second derivative, at whole voxels up to ``cut_sd`` standard deviations."""
    at = np.arange(-int(cut_sd * sigma + 0.5), int(cut_sd * sigma + 0.5) + 1)
    gaussian = np.exp(-(at**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return gaussian, gaussian * (at**2 / sigma**2 - 1) / sigma**2


def laws(array: Floats, asked: Laws) -> Floats:
    """Laws' response of ``array``, pooled, then its energy."""
    kernels = tuple(tuple(np.array(part) / np.linalg.norm(part)) for part in reversed(asked.parts))
    response = pooled(array, kernels, asked.boundary, asked.pool)
    if not asked.energy:
        return response
    window = (2 * asked.energy + 1,) * asked.axes
    size = (1,) * (array.ndim - asked.axes) + window
    return np.asarray(ndimage.uniform_filter(np.abs(response), size, mode=MODES[asked.boundary]))


def wavelet(array: Floats, asked: Wavelet) -> Floats:
    """The response of ``array`` to a stationary wavelet: low-pass ``level - 1`` times, then the bands, without leaving out voxels."""
    low = SCALING[asked.family]
    high = low[::-1] * (-1.0) ** np.arange(1, len(low) + 1)
    kernels = []
    for band in reversed(asked.bands):
        kernel = np.ones(1)
        for level in range(1, asked.level + 1):
            last = high if band == "H" and level == asked.level else low
            kernel = np.convolve(kernel, _spread(np.append(last, 0.0), 2 ** (level - 1)))
        kernels.append(tuple(kernel))
    return pooled(array, tuple(kernels), asked.boundary, asked.pool)


def _spread(kernel: Floats, step: int) -> Floats:
    """``kernel`` with ``step - 1`` zeros after each number but the last (the "a trous" scheme)."""
    out = np.zeros((len(kernel) - 1) * step + 1)
    out[::step] = kernel
    return out


# ---- rotations


def pooled(array: Floats, kernels: Kernels, boundary: Boundary, pool: Pool) -> Floats:
    """Response to the product of ``kernels`` along the last axes of ``array``: to itself, or pooled over its rotations."""
    if pool == "mean":
        return _mean_over_rotations(array, kernels, boundary)
    signs = {kernels: {1.0}} if pool == "none" else _turned(kernels)
    best: Floats | None = None
    for parts, response in _responses(array, list(signs), boundary):
        for sign in signs[parts]:
            best = sign * response if best is None else np.maximum(best, sign * response, out=best)
    assert best is not None
    return best


def _turned(kernels: Kernels) -> dict[Kernels, set[float]]:
    """Every rotation of the product of ``kernels`` as another product and its sign; what differs in sign alone is one product."""
    out: dict[Kernels, set[float]] = {}
    for order, turn in _permutations(len(kernels)):
        for flips in product((1, -1), repeat=len(kernels)):
            if turn * np.prod(flips) < 0:  # seen in a mirror: no rotation
                continue
            sign, parts = 1.0, []
            for n, flip in zip(order, flips, strict=True):
                kernel, back = kernels[n], kernels[n][::-1]
                odd = back == tuple(-x for x in kernel)
                sign *= flip if odd else 1
                parts.append(back if flip < 0 and not odd else kernel)
            out.setdefault(tuple(parts), set()).add(sign)
    return out


def _mean_over_rotations(array: Floats, kernels: Kernels, boundary: Boundary) -> Floats:
    """The mean response over all rotations.

    A rotation is an order of the axes and reversals, an even number of them for an even order and an odd number for an odd one. With s and
    d the sum and difference of a kernel and its reverse, the products over all rotations therefore add up to half the sum over the orders
    of (the product of s, plus the sign of the order times the product of d).
    """
    weights: dict[Kernels, float] = {}
    both = [[tuple(x + way * y for x, y in zip(one, one[::-1], strict=True)) for one in kernels] for way in (1, -1)]
    for order, turn in _permutations(len(kernels)):
        for made, weight in zip(both, (1.0, turn), strict=True):
            placed = tuple(made[n] for n in order)
            weights[placed] = weights.get(placed, 0.0) + weight
    rotations = 24 if len(kernels) == 3 else 4
    wanted = [parts for parts, weight in weights.items() if weight and all(any(part) for part in parts)]
    total = np.zeros(array.shape)
    for parts, response in _responses(array, wanted, boundary) if wanted else ():
        total += weights[parts] / (2 * rotations) * response
    return total


def _permutations(axes: int) -> list[tuple[tuple[int, ...], float]]:
    """Every order of the axes, with 1 for an even and -1 for an odd one."""
    return [(order, float(round(np.linalg.det(np.eye(axes)[list(order)])))) for order in permutations(range(axes))]


def _responses(array: Floats, wanted: Sequence[Kernels], boundary: Boundary) -> Iterator[tuple[Kernels, Floats]]:
    """Each of ``wanted`` and the response to it; what begins with the same kernels is convolved with these once."""
    axis = array.ndim - len(wanted[0])
    for first in dict.fromkeys(parts[0] for parts in wanted):
        part = along(array, np.array(first), axis, boundary)
        rest = [parts[1:] for parts in wanted if parts[0] == first]
        if axis == array.ndim - 1:
            yield (first,), part
        else:
            yield from (((first, *parts), response) for parts, response in _responses(part, rest, boundary))


def along(array: Floats, kernel: Floats, axis: int, boundary: Boundary) -> Floats:
    """``array`` convolved with ``kernel`` along one axis."""
    return np.asarray(ndimage.convolve1d(array, kernel, axis, mode=MODES[boundary]))
