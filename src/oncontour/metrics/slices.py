"""Two masks compared slice by slice on a coarse grid, quickly: DSC, and the distance between their outlines in the slice.

For thousands of masks to learn from; ``overlap`` and ``surface`` are the exact ones for judging.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oncontour.errors import GeometryError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def slice_scores(truth: Mask, candidate: Mask, spacing_mm: tuple[float, float]) -> tuple[Floats, Floats]:
    """((k,) DSC, (k,) outline error in mm) of two masks (k, j, i); ``spacing_mm`` (j, i).

    DSC: NaN where neither has a voxel in the slice, 0 where one has. Outline error: the mean, over the outline pixels of both, of the
    distance from pixel centre to the nearest outline pixel of the other; NaN where either is empty. An outline pixel has a 4-neighbour
    outside.
    """
    if truth.shape != candidate.shape or truth.ndim != 3:
        raise GeometryError(f"two masks of one shape (k, j, i) are needed, not {truth.shape} and {candidate.shape}")
    dsc, apart = np.full(len(truth), np.nan), np.full(len(truth), np.nan)
    rows, columns = (np.flatnonzero(truth.any(axis=(0, n)) | candidate.any(axis=(0, n))) for n in (2, 1))
    if not len(rows):
        return dsc, apart
    box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    _compare(np.ascontiguousarray(truth[box]), np.ascontiguousarray(candidate[box]), spacing_mm[0], spacing_mm[1], dsc, apart)
    return dsc, apart


@njit(cache=True, nogil=True)
def _outline(mask: Mask, points: Floats) -> int:  # pragma: no cover - compiled
    rows, columns = mask.shape
    n = 0
    for j in range(rows):
        for i in range(columns):
            if not mask[j, i]:
                continue
            inner = j > 0 and i > 0 and j < rows - 1 and i < columns - 1
            if inner and mask[j - 1, i] and mask[j + 1, i] and mask[j, i - 1] and mask[j, i + 1]:
                continue
            points[n, 0], points[n, 1] = j, i
            n += 1
    return n


@njit(cache=True, nogil=True)
def _distance_sum(a: Floats, n: int, b: Floats, m: int, dj: float, di: float) -> float:  # pragma: no cover - compiled
    total = 0.0
    for p in range(n):
        best = 1e30
        for q in range(m):
            y, x = (a[p, 0] - b[q, 0]) * dj, (a[p, 1] - b[q, 1]) * di
            best = min(best, y * y + x * x)
        total += np.sqrt(best)
    return total


@njit(cache=True, nogil=True)
def _compare(truth: Mask, candidate: Mask, dj: float, di: float, dsc: Floats, apart: Floats) -> None:  # pragma: no cover - compiled
    size = truth.shape[1] * truth.shape[2]
    one, other = np.empty((size, 2), np.float64), np.empty((size, 2), np.float64)
    for k in range(truth.shape[0]):
        a, b, both = 0, 0, 0
        for j in range(truth.shape[1]):
            for i in range(truth.shape[2]):
                a += truth[k, j, i]
                b += candidate[k, j, i]
                both += truth[k, j, i] and candidate[k, j, i]
        if a + b == 0:
            continue
        dsc[k] = 2.0 * both / (a + b)
        if a and b:
            n, m = _outline(truth[k], one), _outline(candidate[k], other)
            apart[k] = (_distance_sum(one, n, other, m, dj, di) + _distance_sum(other, m, one, n, dj, di)) / (n + m)
