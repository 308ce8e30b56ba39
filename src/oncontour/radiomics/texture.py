"""Texture: the six matrix families of IBSI on a region of grey levels (IBSI sections 3.6 to 3.11).

Two kinds of matrix. Co-occurrence and run length have a direction (IBSI 3.6, 3.7: 4 in a slice, 13 in space, distance 1), zones and
neighbourhoods have none (3.8 to 3.11: 8 neighbours in a slice, 26 in space; dependence at equal level, coarseness 0). Features of
slices or directions that are averaged leave out those where a feature is not defined; where none defines it the feature is NaN.

Every family but co-occurrence and tone difference is the same table read the same way: how many (runs, zones, voxels) have level i
and extent j (length, size, distance, dependence). ``emphases`` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import ConfigError
from oncontour.radiomics import texture_loops as loops
from oncontour.radiomics.names import DIRECTED, UNDIRECTED, tags

Array = NDArray[Any]
Floats = NDArray[np.float64]
Values = dict[str, float]

Step = tuple[int, int, int]
AROUND: list[Step] = [(k, j, i) for k, j, i in product((-1, 0, 1), repeat=3) if k or j or i]
"""The 26 neighbours of a voxel as (k, j, i) steps."""
DIRECTIONS = [step for step in AROUND if step > (0, 0, 0)]
"""One of each opposite pair: 13 directions, the first 4 of which stay in the slice once sorted by k."""

_EXTENT_NAMES = {
    "rlm": ("sre", "lre", "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge", "rlnu", "r_perc", "rl_var", "rl_entr"),
    "szm": ("sze", "lze", "lgze", "hgze", "szlge", "szhge", "lzlge", "lzhge", "zsnu", "z_perc", "zs_var", "zs_entr"),
    "dzm": ("sde", "lde", "lgze", "hgze", "sdlge", "sdhge", "ldlge", "ldhge", "zdnu", "z_perc", "zd_var", "zd_entr"),
    "ngl": ("lde", "hde", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge", "dcnu", "dc_perc", "dc_var", "dc_entr"),
}


_COOCCURRENCE = tags("cm")


@dataclass(frozen=True, eq=False)
class Grey:
    """A region's grey levels as the loops want them: padded by one and flat, 0 outside.

    ``levels`` (k, j, i) int32 with 0 outside the intensity mask; ``morphological`` the bool mask whose border zones are measured from.
    """

    levels: NDArray[np.int32]
    morphological: NDArray[np.bool_]

    @cached_property
    def padded(self) -> NDArray[np.int32]:
        return np.pad(np.ascontiguousarray(self.levels, np.int32), 1)

    @cached_property
    def flat(self) -> NDArray[np.int32]:
        return self.padded.ravel()

    @cached_property
    def voxels(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.flat)

    @cached_property
    def slices(self) -> NDArray[np.int64]:
        """For each voxel the number of its slice, counting slices that hold any."""
        return np.unique(self.voxels // self._plane, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def in_slice(self) -> NDArray[np.int64]:
        """Voxels of each slice that holds any."""
        return np.bincount(self.slices) if len(self.voxels) else np.empty(0, np.int64)

    @cached_property
    def highest(self) -> int:
        """Number of grey levels: the highest that occurs (IBSI: Ng)."""
        return int(self.flat.max(initial=0))

    @property
    def _plane(self) -> int:
        return int(self.padded.shape[1]) * int(self.padded.shape[2])

    def offsets(self, steps: Iterable[Step]) -> NDArray[np.int64]:
        """(k, j, i) steps as steps in the flat array."""
        row = self.padded.shape[2]
        return np.array([k * self._plane + j * row + i for k, j, i in steps], np.int64)

    def by_slice(self) -> Iterator[NDArray[np.int64]]:
        """The voxels of one slice after the other."""
        yield from np.split(self.voxels, np.cumsum(self.in_slice)[:-1])

    def distance(self, slicewise: bool) -> NDArray[np.int32]:
        """Flat city-block distance of each voxel from the border of the morphological mask; 1 at the border (IBSI 3.9)."""
        steps: NDArray[np.int32] = loops.border_distance(np.pad(self.morphological, 1), slicewise)
        return steps.ravel()


def texture(grey: Grey, families: Sequence[str], aggregations: Sequence[str]) -> Values:
    """Features of ``families`` ("cm", "rlm", "szm", "dzm", "ngt", "ngl") for each of ``aggregations`` (keys of DIRECTED), by column name.

    Families without directions take the part of an aggregation before its underscore (``3D_avg`` and ``3D_comb`` both give ``3D``).
    A region without voxels gives NaN throughout. Raises ConfigError for an unknown aggregation.
    """
    unknown = [name for name in aggregations if name not in DIRECTED]
    if unknown:
        raise ConfigError(f"there is no aggregation {unknown[0]!r}; there are {', '.join(DIRECTED)}")
    out: Values = {}
    if "cm" in families:
        out |= _named("cm", _directed(_pairs, _cooccurrence, grey, aggregations))
    if "rlm" in families:
        out |= _named("rlm", _directed(_runs, _run_features, grey, aggregations))
    plain = [name for name in UNDIRECTED if any(a.rpartition("_")[0] == name for a in aggregations)]
    for name in plain:
        found = _undirected(grey, name, families)
        for family in ("szm", "dzm", "ngt", "ngl"):
            if family in families:
                out |= {f"{family}_{tag}_{name}": value for tag, value in found[family].items()}
    return out


# ---- aggregation

Count = Callable[[Grey, Array, Array], Array]
Read = Callable[[Array, int, int], Values]
"""(matrix, voxels it was counted on, grey levels of the region) -> features."""


def _directed(count: Count, read: Read, grey: Grey, aggregations: Sequence[str]) -> dict[str, Values]:
    """Features for each aggregation of a family with directions (IBSI 3.6.1, 3.7.1)."""
    out: dict[str, Values] = {}
    whole, levels = len(grey.voxels), grey.highest
    if any(name.startswith("3D") for name in aggregations):
        matrices = count(grey, grey.voxels, grey.offsets(DIRECTIONS))
        if "3D_avg" in aggregations:
            out["3D_avg"] = _mean([read(matrix, whole, levels) for matrix in matrices])
        if "3D_comb" in aggregations:
            out["3D_comb"] = read(matrices.sum(axis=0), whole * len(matrices), levels)
    flat = [name for name in aggregations if name.startswith("2")]
    if flat:
        out |= _slice_by_slice(count, read, grey, flat)
    return out


def _slice_by_slice(count: Count, read: Read, grey: Grey, aggregations: Sequence[str]) -> dict[str, Values]:
    """The four aggregations of matrices that stay in their slice; only one slice's matrices and their sum are held."""
    offsets = grey.offsets([step for step in DIRECTIONS if step[0] == 0])
    whole, levels = len(grey.voxels), grey.highest
    each: list[Values] = []
    merged: list[Values] = []
    total = np.zeros_like(count(grey, grey.voxels[:0], offsets), dtype=np.int64)
    for voxels in grey.by_slice() if whole else ():
        matrices = count(grey, voxels, offsets)
        total += matrices
        if "2D_avg" in aggregations:
            each += [read(matrix, len(voxels), levels) for matrix in matrices]
        if "2D_comb" in aggregations:
            merged.append(read(matrices.sum(axis=0), len(voxels) * len(offsets), levels))
    empty = read(total[0] * 0, 0, levels)
    out = {}
    for name in aggregations:
        if name == "2D_avg":
            out[name] = _mean(each or [empty])
        elif name == "2D_comb":
            out[name] = _mean(merged or [empty])
        elif name == "2_5D_avg":
            out[name] = _mean([read(matrix, whole, levels) for matrix in total])
        else:
            out[name] = read(total.sum(axis=0), whole * len(offsets), levels)
    return out


def _mean(rows: Sequence[Values]) -> Values:
    """Feature by feature the mean over ``rows`` that define it; NaN where none does."""
    table = np.array([list(row.values()) for row in rows])
    known = np.isfinite(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    means = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return dict(zip(rows[0], means.tolist(), strict=True))


def _named(family: str, found: dict[str, Values]) -> Values:
    return {f"{family}_{tag}_{ending}": value for ending, values in found.items() for tag, value in values.items()}


# ---- co-occurrence (IBSI 3.6)


def _pairs(grey: Grey, voxels: Array, offsets: Array) -> Array:
    """(directions, levels, levels) symmetric co-occurrence counts."""
    one_way: Array = loops.cooccurrence(grey.flat, voxels, offsets, max(grey.highest, 1))
    return one_way + one_way.transpose(0, 2, 1)


def _cooccurrence(counts: Array, _voxels: int, levels: int) -> Values:
    """The 25 features of one symmetric matrix of counts (IBSI 3.6.2 to 3.6.26); NaN for an empty one.

    Correlation is NaN where all pairs have one level, and so is the first measure of information correlation.
    """
    row, column = np.nonzero(counts)
    p = counts[row, column] / max(int(counts.sum()), 1)
    if not len(p):
        return dict.fromkeys(_COOCCURRENCE, np.nan)
    i, j = row + 1.0, column + 1.0
    away = np.abs(row - column)
    mean = float(i @ p)
    centred = i + j - 2 * mean
    variance = float((i - mean) ** 2 @ p)
    difference = np.bincount(away, p)
    total = np.bincount(row + column, p)
    steps, sums = np.arange(len(difference)), np.arange(len(total)) + 2.0
    entropy = _entropy(p)
    single = np.bincount(row, p)
    information1, information2 = _information(p, single[row] * single[column], _entropy(single), entropy)
    apart = away > 0
    difference_mean, sum_mean = float(steps @ difference), float(sums @ total)
    values = (
        p.max(),
        mean,
        variance,
        entropy,
        difference_mean,
        (steps - difference_mean) ** 2 @ difference,
        _entropy(difference),
        sum_mean,
        (sums - sum_mean) ** 2 @ total,
        _entropy(total),
        p @ p,
        away**2 @ p,
        away @ p,
        (1 / (1 + away)) @ p,
        (1 / (1 + away / levels)) @ p,
        (1 / (1 + away**2)) @ p,
        (1 / (1 + (away / levels) ** 2)) @ p,
        (1 / away[apart] ** 2) @ p[apart],
        float(((i - mean) * (j - mean)) @ p) / variance if variance > 0 else np.nan,
        (i * j) @ p,
        centred**2 @ p,
        centred**3 @ p,
        centred**4 @ p,
        information1,
        information2,
    )
    return dict(zip(_COOCCURRENCE, map(float, values), strict=True))


def _information(p: Array, independent: Array, one: float, both: float) -> tuple[float, float]:
    """First and second measure of information correlation (IBSI 3.6.25, 3.6.26); ``independent`` is p_i p_j where p_ij > 0.

    The sum of p_i p_j log(p_i p_j) over the whole matrix is minus twice the entropy of one side.
    """
    crossed = -float(p @ np.log2(independent))
    first = (both - crossed) / one if one > 0 else np.nan
    return first, float(np.sqrt(max(0.0, 1 - np.exp(-2 * (2 * one - both)))))


def _entropy(p: Array) -> float:
    """In bits; what does not occur adds nothing."""
    p = p[p > 0]
    return float(-(p @ np.log2(p))) + 0.0


# ---- runs, zones and dependences: how many have level i and extent j


def emphases(level: Array, extent: Array, count: Array, voxels: int, names: Sequence[str]) -> Values:
    """The 16 features of a table that says ``count`` times (``level``, ``extent``), counted on ``voxels`` (IBSI 3.7.2 to 3.7.17).

    ``names``: what they are called in the family, as in _EXTENT_NAMES. NaN where the table is empty.
    """
    short, long, low, high, short_low, short_high, long_low, long_high, extent_nu, share, extent_var, entropy = names
    first = (short, long, low, high, short_low, short_high, long_low, long_high)
    order = (*first, "glnu", "glnu_norm", extent_nu, f"{extent_nu}_norm", share, "gl_var", extent_var, entropy)
    total = int(count.sum())
    if not total:
        return dict.fromkeys(order, np.nan)
    p = count / total
    i2, j2 = level.astype(np.float64) ** 2, extent.astype(np.float64) ** 2
    by_level = float((np.bincount(level, count) ** 2).sum())
    by_extent = float((np.bincount(extent, count) ** 2).sum())
    values: tuple[Any, ...] = (
        (1 / j2) @ p,
        j2 @ p,
        (1 / i2) @ p,
        i2 @ p,
        (1 / (i2 * j2)) @ p,
        (i2 / j2) @ p,
        (j2 / i2) @ p,
        (i2 * j2) @ p,
        by_level / total,
        by_level / total**2,
        by_extent / total,
        by_extent / total**2,
        total / voxels,
        (level - level @ p) ** 2 @ p,
        (extent - extent @ p) ** 2 @ p,
        _entropy(p),
    )
    return {name: float(value) for name, value in zip(order, values, strict=True)}


def _runs(grey: Grey, voxels: Array, offsets: Array) -> Array:
    longest = max(grey.levels.shape)
    counts: Array = loops.runs(grey.flat, voxels, offsets, max(grey.highest, 1), longest)
    return counts


def _run_features(counts: Array, voxels: int, _levels: int) -> Values:
    return _table(counts, voxels, "rlm")


def _table(counts: Array, voxels: int, family: str) -> Values:
    """Features of a matrix (level - 1, extent - 1) of counts."""
    row, column = np.nonzero(counts)
    return emphases(row + 1, column + 1, counts[row, column], voxels, _EXTENT_NAMES[family])


# ---- zones and neighbourhoods


def _undirected(grey: Grey, aggregation: str, families: Sequence[str]) -> dict[str, Values]:
    """Features of the families without directions that are asked for, for "2D", "2_5D" or "3D" (IBSI 3.8.1)."""
    flat = aggregation != "3D"
    offsets = grey.offsets([step for step in AROUND if not (flat and step[0])])
    rows = grey.slices if aggregation == "2D" else np.zeros(len(grey.voxels), np.int64)
    sizes = grey.in_slice if aggregation == "2D" else np.array([len(grey.voxels)])
    out: dict[str, Values] = {}
    if "szm" in families or "dzm" in families:
        found = loops.zones(grey.flat, grey.voxels, offsets, grey.distance(flat))
        row = rows[np.searchsorted(grey.voxels, found[:, 3])]
        for family, column in (("szm", 1), ("dzm", 2)):
            each = [_zone_features(found[row == n], column, int(size), family) for n, size in enumerate(sizes)]
            out[family] = _mean(each or [_zone_features(found[:0], column, 0, family)])
    if "ngt" in families or "ngl" in families:
        counted, differences, dependence = loops.neighbourhoods(
            grey.flat, grey.voxels, rows, offsets, max(grey.highest, 1), max(len(sizes), 1)
        )
        out["ngt"] = _mean([_tone_difference(n, s) for n, s in zip(counted, differences, strict=True)])
        out["ngl"] = _mean([_dependence(matrix) for matrix in dependence])
    return out


def _zone_features(found: Array, column: int, voxels: int, family: str) -> Values:
    """``found`` as ``texture_loops.zones`` gives it; ``column`` 1 for sizes, 2 for distances."""
    both, count = np.unique(found[:, [0, column]], axis=0, return_counts=True)
    return emphases(both[:, 0], both[:, 1], count, voxels, _EXTENT_NAMES[family])


def _dependence(counts: Array) -> Values:
    """The 17 features of neighbouring grey level dependence (IBSI 3.11): every voxel of the region counts once."""
    out = _table(counts, int(counts.sum()), "ngl")
    total = max(int(counts.sum()), 1)
    return {**out, "dc_energy": float(((counts / total) ** 2).sum()) if counts.any() else np.nan}


def _tone_difference(counted: Array, differences: Array) -> Values:
    """The 5 features of neighbourhood grey tone difference (IBSI 3.10); NaN where no voxel has a neighbour.

    Defined by the manual for one level alone: coarseness 10^6 where no voxel differs from its surroundings, contrast and busyness 0,
    strength 0.
    """
    names = tags("ngt")
    total = int(counted.sum())
    if not total:
        return dict.fromkeys(names, np.nan)
    level = np.flatnonzero(counted)
    i, p, s = level + 1.0, counted[level] / total, differences[level]
    weighted, differing = float(p @ s), float(s.sum())
    steps, present = (i[:, None] - i) ** 2, len(level)
    contrast = p @ steps @ p / (present * (present - 1)) * differing / total if present > 1 else 0.0
    spread = np.abs((i * p)[:, None] - i * p).sum()
    both = p[:, None] + p
    complexity = (np.sqrt(steps) * ((p * s)[:, None] + p * s) / both).sum() / total
    strength = (both * steps).sum() / differing if differing > 0 else 0.0
    values = (1 / weighted if weighted > 0 else 1e6, contrast, weighted / spread if spread > 0 else 0.0, complexity, strength)
    return dict(zip(names, map(float, values), strict=True))
