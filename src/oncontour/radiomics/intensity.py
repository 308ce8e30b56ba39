"""Intensity features: local peaks, statistics, histogram, intensity-volume histogram (IBSI sections 3.2 to 3.5).

Percentiles are linear between order statistics. What is not defined is NaN: a coefficient of variation at mean 0, a quartile
coefficient where the quartiles sum to 0, everything of a region without voxels. Skewness and kurtosis of one constant value are 0, as
the manual has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oncontour.core.boxes import widened
from oncontour.radiomics.names import tags
from oncontour.radiomics.region import Region, box_of

Array = NDArray[Any]
Floats = NDArray[np.float64]
Values = dict[str, float]

PEAK_RADIUS_MM = 10 * (3 / (4 * np.pi)) ** (1 / 3)
"""Of a sphere of 1 cc."""

_STATISTICS = tags("stat")[:16]
"""What statistics and histogram have in common: all but energy and root mean square."""
_HISTOGRAM = ("mode", "entropy", "uniformity", "max_grad", "max_grad_g", "min_grad", "min_grad_g")
_VOLUME = tags("ivh")


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")


# ---- statistics (IBSI 3.3)


def statistics(values: Array) -> Values:
    """The 18 statistics of intensities, as ``stat_...``."""
    values = np.asarray(values, np.float64)
    out = _moments(values)
    out["energy"] = float(values @ values) if values.size else np.nan
    out["rms"] = float(np.sqrt(values @ values / values.size)) if values.size else np.nan
    return {f"stat_{name}": value for name, value in out.items()}


def _moments(values: Array) -> Values:
    if not values.size:
        return dict.fromkeys(_STATISTICS, np.nan)
    mean, ordered = float(values.mean(dtype=np.float64)), np.sort(values).astype(np.float64, copy=False)
    low, high = float(ordered[0]), float(ordered[-1])
    apart, second, third, fourth = _powers(ordered, mean)
    variance = second if high > low else 0.0
    p10, p25, median, p75, p90 = (_percentile(ordered, part) for part in (0.1, 0.25, 0.5, 0.75, 0.9))
    middle = ordered[np.searchsorted(ordered, p10) : np.searchsorted(ordered, p90, "right")]
    numbers = (
        mean,
        variance,
        third / variance**1.5 if variance else 0.0,
        fourth / variance**2 - 3 if variance else 0.0,
        median,
        low,
        p10,
        p90,
        high,
        p75 - p25,
        high - low,
        apart,
        _powers(middle, float(middle.mean()))[0] if middle.size else np.nan,
        _powers(ordered, median)[0],
        _ratio(np.sqrt(variance), mean),
        _ratio(p75 - p25, p75 + p25),
    )
    return dict(zip(_STATISTICS, numbers, strict=True))


@njit(cache=True, nogil=True)
def _powers(values: Floats, centre: float) -> Any:
    """The means of |x - centre| and of its second, third (with the sign) and fourth power."""
    apart, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    for x in values:
        away = x - centre
        square = away * away
        apart += abs(away)
        second += square
        third += square * away
        fourth += square * square
    n = len(values)
    return apart / n, second / n, third / n, fourth / n


def _percentile(ordered: Floats, part: float) -> float:
    """As ``numpy.percentile`` of what is in order already."""
    at = part * (len(ordered) - 1)
    low = int(at)
    below, above = float(ordered[low]), float(ordered[min(low + 1, len(ordered) - 1)])
    return below + (at - low) * (above - below)


# ---- histogram (IBSI 3.4)


def histogram(levels: Array) -> Values:
    """The 23 features of grey levels 1, 2, ..., as ``ih_...``; levels between the least and the highest count even if empty."""
    out = _moments(levels)
    out |= _shape(np.asarray(levels, np.int64)) if levels.size else dict.fromkeys(_HISTOGRAM, np.nan)
    return {f"ih_{name}": value for name, value in out.items()}


def _shape(levels: Array) -> Values:
    """Mode, entropy, uniformity and gradients. Of several modes the one nearest to the mean, of two as near the lower (IBSI AMMC).

    Gradients run over the levels that the region spans, forward and backward at the ends and central between (IBSI 12CE); a single
    level has none (0, at that level).
    """
    first = int(levels.min())
    count = np.bincount(levels - first).astype(np.float64)
    p = count[count > 0] / len(levels)
    modes = np.flatnonzero(count == count.max())
    mode = modes[np.abs(modes + first - levels.mean()).argmin()] + first
    slope = np.gradient(count) if len(count) > 1 else np.zeros(1)
    up, down = int(slope.argmax()), int(slope.argmin())
    numbers = (mode, -(p @ np.log2(p)) + 0.0, p @ p, slope[up], up + first, slope[down], down + first)
    return dict(zip(_HISTOGRAM, map(float, numbers), strict=True))


# ---- intensity-volume histogram (IBSI 3.5)


def volume_histogram(values: Array, limits: tuple[float, float], width: float | None) -> Values:
    """The 7 features of the curve "which fraction of the volume has at least this intensity", as ``ivh_...``.

    ``limits``: the re-segmentation range; an open end is taken from ``values``. ``width``: intensities are binned and stand for their
    bin's centre; None: whole numbers (HU), taken as they are. Fractions of intensity are of the way from the lower end to the upper; where
    these are the same, all of the volume reaches every fraction.
    """
    if not values.size:
        return {f"ivh_{name}": np.nan for name in _VOLUME}
    values = np.asarray(values, np.float64)
    low = limits[0] if np.isfinite(limits[0]) else float(values.min())
    high = limits[1] if np.isfinite(limits[1]) else float(values.max())
    if width is None:
        step, start, bins = 1.0, low, int(np.floor(high - low)) + 1
        at = np.ceil(values - low).astype(np.int64)
    else:
        step, start, bins = width, low + width / 2, max(int(np.ceil((high - low) / width - 1e-9)), 1)
        at = np.minimum(np.floor((values - low) / width).astype(np.int64), bins - 1)
    bins = max(bins, int(at.max()) + 1)
    count = np.bincount(at, minlength=bins)
    volume = count[::-1].cumsum()[::-1] / len(values)
    fraction = np.arange(bins) / max(bins - 1, 1)

    def volume_at(share: float) -> float:
        return float(volume[min(int(np.searchsorted(fraction, share - 1e-12)), bins - 1)])

    def intensity_at(share: float) -> float:
        """The least intensity that at most ``share`` of the volume reaches: a step past the last where more than that reaches it."""
        return float(start + step * np.searchsorted(-volume, -share - 1e-12))

    v10, v90, i10, i90 = volume_at(0.1), volume_at(0.9), intensity_at(0.1), intensity_at(0.9)
    area = float(np.trapezoid(volume, fraction))
    return {f"ivh_{n}": v for n, v in zip(_VOLUME, (v10, v90, i10, i90, v10 - v90, i10 - i90, area), strict=True)}


# ---- local intensity (IBSI 3.2)


def local_peaks(region: Region) -> Values:
    """Mean intensity of the 1 cc sphere round the brightest voxel (``loc_peak_loc``; of several the highest) and the highest such mean
    round any voxel of the intensity mask (``loc_peak_glob``). Spheres reach beyond the mask, not beyond what is known.
    """
    if not region.intensity.any():
        return {"loc_peak_loc": np.nan, "loc_peak_glob": np.nan}
    rows = _sphere_rows(region.spacing_mm)
    around = widened(box_of(region.intensity), region.intensity.shape, rows.max(axis=0).tolist())
    image, inside = region.image[around], region.intensity[around]
    known = np.isfinite(image)
    room = int(rows[:, 2].max()) + 1
    whole = int((2 * rows[:, 2] + 1).sum()) if known.all() and _has_room(inside, rows) else 0
    means = _sphere_means(*_running(image, known, room, whole), inside, rows, room, whole)[inside]
    brightest = region.values == region.values.max()
    return {"loc_peak_loc": float(means[brightest].max()), "loc_peak_glob": float(means.max())}


def _has_room(inside: NDArray[np.bool_], rows: NDArray[np.int64]) -> bool:
    """Whether a sphere round any voxel ``inside`` stays in the array."""
    for axis, reach in enumerate(rows.max(axis=0)):
        held = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if held[0] < reach or held[-1] + reach >= inside.shape[axis]:
            return False
    return True


def _running(image: Floats, known: NDArray[np.bool_], room: int, whole: int) -> tuple[Floats, NDArray[np.int32]]:
    """Sums of known intensities, and how many, before each voxel of a row, going on for ``room`` voxels past either end.

    Nothing is counted where every sphere is ``whole``.
    """
    nk, nj, ni = image.shape
    sums = np.zeros((nk, nj, ni + 2 * room))
    np.cumsum(image if whole else np.where(known, image, 0.0), axis=2, out=sums[..., room : room + ni])
    sums[..., room + ni :] = sums[..., room + ni - 1, None]
    if whole:
        return sums, np.zeros((1, 1, 1), np.int32)
    counts = np.pad(known.cumsum(axis=2, dtype=np.int32), ((0, 0), (0, 0), (room, room)), mode="edge")
    counts[..., :room] = 0
    return sums, counts


def _sphere_rows(spacing_mm: tuple[float, float, float]) -> NDArray[np.int64]:
    """(rows, 3): a sphere of PEAK_RADIUS_MM as (k, j) steps and how far it reaches to either side along i."""
    reach = [int(PEAK_RADIUS_MM // s) for s in spacing_mm]
    rows = []
    for k in range(-reach[0], reach[0] + 1):
        for j in range(-reach[1], reach[1] + 1):
            left = PEAK_RADIUS_MM**2 - (k * spacing_mm[0]) ** 2 - (j * spacing_mm[1]) ** 2
            if left >= 0:
                rows.append((k, j, int(np.sqrt(left) // spacing_mm[2])))
    return np.array(rows, np.int64)


@njit(cache=True, nogil=True)
def _sphere_means(
    sums: Floats, counts: NDArray[np.int32], inside: NDArray[np.bool_], rows: NDArray[np.int64], room: int, whole: int
) -> Floats:
    """Means round the voxels of each row from the first ``inside`` to the last, all at once; NaN elsewhere.

    ``whole``: how many voxels every sphere has, 0 where they differ and are counted.
    """
    nk, nj, ni = inside.shape
    out = np.full(inside.shape, np.nan)
    total, many = np.empty(ni), np.empty(ni, np.int64)
    for k in range(nk):
        for j in range(nj):
            first, last = 0, ni
            while first < ni and not inside[k, j, first]:
                first += 1
            while last > first and not inside[k, j, last - 1]:
                last -= 1
            if first == last:
                continue
            size = last - first
            total[:size], many[:size] = 0.0, whole
            for r in range(len(rows)):
                at_k, at_j, half = k + rows[r, 0], j + rows[r, 1], rows[r, 2]
                if 0 <= at_k < nk and 0 <= at_j < nj:
                    low, high = first + room - half - 1, first + room + half
                    before, until = sums[at_k, at_j, low : low + size], sums[at_k, at_j, high : high + size]
                    for n in range(size):
                        total[n] += until[n] - before[n]
                    if not whole:
                        without, filled = counts[at_k, at_j, low : low + size], counts[at_k, at_j, high : high + size]
                        for n in range(size):
                            many[n] += filled[n] - without[n]
            for n in range(size):
                if inside[k, j, first + n]:
                    out[k, j, first + n] = total[n] / many[n]
    return out
