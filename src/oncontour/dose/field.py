"""Dose between the points of its grid, and what a structure receives of it: the compiled loops under ``dose.dvh``.

Between eight points the dose is trilinear, bent along each axis by the curvature that both ends of an edge agree on:

    d(t) = (1 - t) d0 + t d1 - t (1 - t) / 2 * minmod(d0'', d1'')

(second differences at either end; minmod: the smaller where the signs agree, else 0: Harten and Osher, SIAM J Numer Anal 1987;24:279-309).
A quadratic dose is met exactly on any grid, where trilinear interpolation is too low on a hill by up to an eighth of the second difference
along each axis. At an edge, in a plateau or in noise the curvatures disagree and what is left is trilinear: nothing rings.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oncontour.core.resample import Array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_OVER = 1e-6
"""Part of a voxel by which a point may lie past the grid's edge (rounded positions)."""
_WHOLE = 1 - 1e-6
"""A cell covered by this and more is inside as a whole, its corners too."""


def bends(dose_gy: Array) -> NDArray[np.float32]:
    """(3, k, j, i): along each axis the curvature (Gy a voxel squared) from each point to the next; 0 where there are but two."""
    out = np.zeros((3, *dose_gy.shape), np.float32)
    for axis in range(3):
        if dose_gy.shape[axis] < 3:
            continue
        values = np.moveaxis(dose_gy, axis, 0).astype(np.float32, copy=False)
        second = np.empty_like(values)
        second[1:-1] = values[:-2] - 2 * values[1:-1] + values[2:]
        second[0], second[-1] = second[1], second[-2]
        one, other = second[:-1], second[1:]
        agreed = np.where(np.abs(one) < np.abs(other), one, other)
        agreed[one * other <= 0] = 0
        np.moveaxis(out[axis], axis, 0)[:-1] = agreed
    return out


@njit(cache=True, nogil=True)
def _at(dose: Array, bend: Array, k: float, j: float, i: float) -> tuple[float, float, float, float]:
    """Gy at a fractional voxel and its slope (Gy a voxel) along k, j and i; NaN beyond the edge, half a voxel past the outermost points."""
    nk, nj, ni = dose.shape
    over = 0.5 + _OVER
    if not (-over <= k <= nk - 1 + over and -over <= j <= nj - 1 + over and -over <= i <= ni - 1 + over):
        return np.nan, 0.0, 0.0, 0.0
    k, j, i = min(max(k, 0.0), nk - 1.0), min(max(j, 0.0), nj - 1.0), min(max(i, 0.0), ni - 1.0)
    k0, j0, i0 = max(min(int(k), nk - 2), 0), max(min(int(j), nj - 2), 0), max(min(int(i), ni - 2), 0)
    k1, j1, i1 = min(k0 + 1, nk - 1), min(j0 + 1, nj - 1), min(i0 + 1, ni - 1)
    a, b, c = k - k0, j - j0, i - i0
    d000, d001, d010, d011 = float(dose[k0, j0, i0]), float(dose[k0, j0, i1]), float(dose[k0, j1, i0]), float(dose[k0, j1, i1])
    d100, d101, d110, d111 = float(dose[k1, j0, i0]), float(dose[k1, j0, i1]), float(dose[k1, j1, i0]), float(dose[k1, j1, i1])
    i00, i01, i10, i11 = d001 - d000, d011 - d010, d101 - d100, d111 - d110
    e00, e01, e10, e11 = d000 + c * i00, d010 + c * i01, d100 + c * i10, d110 + c * i11
    low, high = e00 + b * (e01 - e00), e10 + b * (e11 - e10)
    slope_k = high - low
    slope_j = (1 - a) * (e01 - e00) + a * (e11 - e10)
    slope_i = (1 - a) * ((1 - b) * i00 + b * i01) + a * ((1 - b) * i10 + b * i11)
    value = low + a * slope_k
    if bend.shape[0] == 3:
        along = (1 - b) * ((1 - c) * bend[0, k0, j0, i0] + c * bend[0, k0, j0, i1])
        along += b * ((1 - c) * bend[0, k0, j1, i0] + c * bend[0, k0, j1, i1])
        value -= 0.5 * a * (1 - a) * along
        slope_k -= (0.5 - a) * along
        along = (1 - a) * ((1 - c) * bend[1, k0, j0, i0] + c * bend[1, k0, j0, i1])
        along += a * ((1 - c) * bend[1, k1, j0, i0] + c * bend[1, k1, j0, i1])
        value -= 0.5 * b * (1 - b) * along
        slope_j -= (0.5 - b) * along
        along = (1 - a) * ((1 - b) * bend[2, k0, j0, i0] + b * bend[2, k0, j1, i0])
        along += a * ((1 - b) * bend[2, k1, j0, i0] + b * bend[2, k1, j1, i0])
        value -= 0.5 * c * (1 - c) * along
        slope_i -= (0.5 - c) * along
        value = max(value, 0.0)
    return value, slope_k, slope_j, slope_i


@njit(cache=True, nogil=True)
def values_at(voxels: Floats, dose: Array, bend: Array) -> Floats:
    """(n,) Gy at (n, 3) fractional voxels (k, j, i), NaN beyond the grid."""
    out = np.empty(len(voxels))
    for n in range(len(voxels)):
        out[n] = _at(dose, bend, voxels[n, 0], voxels[n, 1], voxels[n, 2])[0]
    return out


@njit(cache=True, nogil=True)
def cut_square(area: float, steep: float, flat: float) -> tuple[float, float, float, float]:
    """Where the part of a unit square lies that a straight line cuts off: middle (x, y) and extent (x, y) of it.

    ``area`` in (0, 1) lies in the corner (0, 0), below ``steep`` x + ``flat`` y = const with ``steep`` >= ``flat`` >= 0. An extent is the
    length of the even spread that has the same variance: 1 for the whole square.
    """
    a, b = steep, flat
    part = min(area, 1 - area)
    if part * 2 * a <= b:  # a triangle
        edge_x, edge_y = np.sqrt(2 * part * b / a), np.sqrt(2 * part * a / b)
        mean_x, mean_y, square_x, square_y = edge_x / 3, edge_y / 3, edge_x * edge_x / 6, edge_y * edge_y / 6
    else:  # across the whole square: x from 0 to (h - b y) / a
        h = a * part + b / 2
        mean_x = (h * h - h * b + b * b / 3) / (2 * a * a * part)
        square_x = (h**3 - 1.5 * h * h * b + h * b * b - b**3 / 4) / (3 * a**3 * part)
        mean_y, square_y = (h / 2 - b / 3) / (a * part), (h / 3 - b / 4) / (a * part)
    if area > 0.5:  # that was what is not cut off, seen from the other corner
        square_x = (1 / 3 - part * (1 - 2 * mean_x + square_x)) / area
        square_y = (1 / 3 - part * (1 - 2 * mean_y + square_y)) / area
        mean_x, mean_y = (0.5 - part * (1 - mean_x)) / area, (0.5 - part * (1 - mean_y)) / area
    return mean_x, mean_y, np.sqrt(max(12 * (square_x - mean_x**2), 0.0)), np.sqrt(max(12 * (square_y - mean_y**2), 0.0))


@njit(cache=True, nogil=True)
def _covered_part(layer: Array, j: int, i: int) -> tuple[float, float, float, float]:
    """Middle (j, i) from that of the pixel, and extent (j, i), of the part of a pixel that its coverage means: cut off by a straight line
    across the slope of coverage round it (Parker and Youngs 1992). The whole pixel where there is no slope."""
    nj, ni = layer.shape
    slope_j, slope_i = 0.0, 0.0
    for b in range(-1, 2):
        for c in range(-1, 2):
            if (b or c) and 0 <= j + b < nj and 0 <= i + c < ni:
                weight = float(layer[j + b, i + c]) * (1.0 if b and c else 2.0)
                slope_j += b * weight
                slope_i += c * weight
    steep, flat = max(abs(slope_j), abs(slope_i)), min(abs(slope_j), abs(slope_i))
    if steep < 1e-6:
        return 0.0, 0.0, 1.0, 1.0
    x, y, wide, high = cut_square(float(layer[j, i]), steep, flat)
    if abs(slope_j) < abs(slope_i):
        x, y, wide, high = y, x, high, wide
    away_j, away_i = (0.5 - x) * np.sign(slope_j), (0.5 - y) * np.sign(slope_i)
    return away_j, away_i, wide, high


@njit(cache=True, nogil=True)
def cells_of(
    coverage: Array, drawn: bool, fine: Ints, to_dose: Floats, dose: Array, bend: Array, gy: Array, width: Array, share: Array
) -> Floats:
    """Cut every covered voxel into fine[0] x fine[1] x fine[2] cells and say what each receives.

    ``drawn``: coverage is that of outlines in the plane (j, i), each voxel one cell there: what of it is covered lies on the side of the
    outline that is inside. Otherwise a voxel is evenly filled so far.

    ``to_dose`` (3, 4) takes a voxel (k, j, i, 1) of ``coverage`` to a fractional voxel of ``dose``. Written, cell by cell, are the dose in
    the middle ``gy``, how far it spreads across the cell ``width`` (for a dose that is linear there, the root of the summed squares of the
    differences along the three axes: exact along one axis, of the right variance along any), and the part of a voxel ``share``.
    Gives (number of cells, share beyond the dose, least, largest dose at points that are surely inside).
    """
    step = np.empty((3, 3))
    for row in range(3):
        for axis in range(3):
            step[row, axis] = to_dose[row, axis] / fine[axis]
    part = 1.0 / (fine[0] * fine[1] * fine[2])
    count, lost, least, largest = 0, 0.0, np.inf, -np.inf
    for k in range(coverage.shape[0]):
        for j in range(coverage.shape[1]):
            for i in range(coverage.shape[2]):
                covered = float(coverage[k, j, i])
                if covered <= 0:
                    continue
                away_j, away_i, long_j, long_i = 0.0, 0.0, 1.0, 1.0
                if drawn and covered < _WHOLE:
                    away_j, away_i, long_j, long_i = _covered_part(coverage[k], j, i)
                for a in range(fine[0]):
                    vk = k - 0.5 + (a + 0.5) / fine[0]
                    for b in range(fine[1]):
                        vj = j - 0.5 + (b + 0.5) / fine[1] + away_j
                        for c in range(fine[2]):
                            vi = i - 0.5 + (c + 0.5) / fine[2] + away_i
                            pk = to_dose[0, 0] * vk + to_dose[0, 1] * vj + to_dose[0, 2] * vi + to_dose[0, 3]
                            pj = to_dose[1, 0] * vk + to_dose[1, 1] * vj + to_dose[1, 2] * vi + to_dose[1, 3]
                            pi = to_dose[2, 0] * vk + to_dose[2, 1] * vj + to_dose[2, 2] * vi + to_dose[2, 3]
                            value, gk, gj, gi = _at(dose, bend, pk, pj, pi)
                            if np.isnan(value):
                                lost += covered * part
                                continue
                            across, reach = 0.0, 0.0
                            for axis in range(3):
                                change = gk * step[0, axis] + gj * step[1, axis] + gi * step[2, axis]
                                change *= long_j if axis == 1 else long_i if axis == 2 else 1.0
                                across += change * change
                                reach += 0.5 * abs(change)
                            gy[count], width[count], share[count] = value, np.sqrt(across), covered * part
                            count += 1
                            if covered >= 0.5:
                                least, largest = min(least, value), max(largest, value)
                            if covered >= _WHOLE and (value - reach < least or value + reach > largest):
                                for corner in range(8):
                                    s0, s1, s2 = (corner & 1) - 0.5, ((corner >> 1) & 1) - 0.5, ((corner >> 2) & 1) - 0.5
                                    at_corner = _at(
                                        dose,
                                        bend,
                                        pk + s0 * step[0, 0] + s1 * step[0, 1] + s2 * step[0, 2],
                                        pj + s0 * step[1, 0] + s1 * step[1, 1] + s2 * step[1, 2],
                                        pi + s0 * step[2, 0] + s1 * step[2, 1] + s2 * step[2, 2],
                                    )[0]
                                    if not np.isnan(at_corner):
                                        least, largest = min(least, at_corner), max(largest, at_corner)
    return np.array([float(count), lost, least, largest])


@njit(cache=True, nogil=True)
def histogram(gy: Array, width: Array, cc: Array, low: float, high: float, bins: int) -> Floats:
    """(bins + 1,) cc received in each of ``bins`` equal steps from ``low`` to ``high`` Gy; last what receives ``high`` and no less.

    Each cell's volume lies evenly between gy - width / 2 and gy + width / 2, as far as that is within low..high.
    """
    out, ramp = np.zeros(bins + 1), np.zeros(bins + 1)
    step = (high - low) / bins
    for n in range(len(gy)):
        start, stop = max(gy[n] - 0.5 * width[n], low), min(gy[n] + 0.5 * width[n], high)
        if stop - start <= 1e-6 * step:
            at = (min(max(gy[n], low), high) - low) / step if step > 0 else float(bins)
            out[bins if at >= bins - 1e-6 else int(at)] += cc[n]
            continue
        first, last = (start - low) / step, (stop - low) / step
        a, b = min(int(first), bins - 1), min(int(last), bins - 1)
        if a == b:
            out[a] += cc[n]
            continue
        density = cc[n] / (last - first)
        out[a] += density * (a + 1 - first)
        out[b] += density * (last - b)
        ramp[a + 1] += density
        ramp[b] -= density
    running = 0.0
    for n in range(bins):
        running += ramp[n]
        out[n] += running
    return out


@njit(cache=True, nogil=True)
def gamma_at(
    points: Floats, gy: Floats, tolerance: Floats, dose: Array, moves: Floats, away: Floats, to_voxel: Floats, step: float, most: float
) -> Floats:
    """(n,) gamma of reference doses ``gy`` at ``points`` (fractional voxels of the evaluated ``dose``), at most ``most``; NaN beyond it.

    ``moves`` (m, 3) voxels and ``away`` (m, 3) distance tolerances from the point, nearest first; ``to_voxel`` (3, 3) takes distance
    tolerances (x, y, z) to voxels (k, j, i); ``step`` is the net's, in distance tolerances.
    """
    out = np.empty(len(points))
    none = np.zeros((0, 1, 1, 1), np.float32)
    for n in range(len(points)):
        k, j, i = points[n, 0], points[n, 1], points[n, 2]
        if np.isnan(_at(dose, none, k, j, i)[0]):
            out[n] = np.nan
            continue
        best = most * most
        for m in range(len(moves)):
            far = away[m, 0] ** 2 + away[m, 1] ** 2 + away[m, 2] ** 2
            nearest = max(np.sqrt(far) - step, 0.0)
            if nearest * nearest >= best:
                break
            value, gk, gj, gi = _at(dose, none, k + moves[m, 0], j + moves[m, 1], i + moves[m, 2])
            if np.isnan(value):
                continue
            off = (value - gy[n]) / tolerance[n]
            best = min(best, far + off * off)
            # along the slope: least of |r + u|^2 + (off + s u)^2 over u, within half a step of the net point
            s0 = (gk * to_voxel[0, 0] + gj * to_voxel[1, 0] + gi * to_voxel[2, 0]) / tolerance[n]
            s1 = (gk * to_voxel[0, 1] + gj * to_voxel[1, 1] + gi * to_voxel[2, 1]) / tolerance[n]
            s2 = (gk * to_voxel[0, 2] + gj * to_voxel[1, 2] + gi * to_voxel[2, 2]) / tolerance[n]
            pull = (off - s0 * away[m, 0] - s1 * away[m, 1] - s2 * away[m, 2]) / (1 + s0 * s0 + s1 * s1 + s2 * s2)
            u0, u1, u2 = -away[m, 0] - pull * s0, -away[m, 1] - pull * s1, -away[m, 2] - pull * s2
            long = max(abs(u0), abs(u1), abs(u2))
            if long > step:
                u0, u1, u2 = u0 * step / long, u1 * step / long, u2 * step / long
            value = _at(
                dose,
                none,
                k + moves[m, 0] + to_voxel[0, 0] * u0 + to_voxel[0, 1] * u1 + to_voxel[0, 2] * u2,
                j + moves[m, 1] + to_voxel[1, 0] * u0 + to_voxel[1, 1] * u1 + to_voxel[1, 2] * u2,
                i + moves[m, 2] + to_voxel[2, 0] * u0 + to_voxel[2, 1] * u1 + to_voxel[2, 2] * u2,
            )[0]
            if not np.isnan(value):
                off = (value - gy[n]) / tolerance[n]
                best = min(best, (away[m, 0] + u0) ** 2 + (away[m, 1] + u1) ** 2 + (away[m, 2] + u2) ** 2 + off * off)
        out[n] = np.sqrt(best)
    return out
