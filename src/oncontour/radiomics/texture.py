"""Texture: the six matrix families of IBSI on a region of grey levels (IBSI sections 3.6 to 3.11).

Two kinds of matrix. Co-occurrence and run length have a direction (IBSI 3.6, 3.7: 4 in a slice, 13 in space, distance 1), zones and
neighbourhoods have none (3.8 to 3.11: 8 neighbours in a slice, 26 in space; dependence at equal level, coarseness 0). Features of
slices or directions that are averaged leave out those where a feature is not defined; where none defines it the feature is NaN.

Every family but co-occurrence and tone difference is the same table read the same way: how many (runs, zones, voxels) have level i
and extent j (length, size, distance, dependence). ``emphases`` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import ConfigError
from oncontour.radiomics import texture_loops as loops
from oncontour.radiomics.discretise import MAX_LEVELS
from oncontour.radiomics.names import DIRECTED, UNDIRECTED, tags

Array = NDArray[Any]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
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
_DIRECTED = ("cm", "rlm")
_UNDIRECTED = ("szm", "dzm", "ngt", "ngl")
_COOCCURRENCE = tags("cm")


@dataclass(frozen=True, eq=False)
class Spans:
    """Consecutive voxels of a flat array, from each of ``starts`` up to, not including, ``stops``; in rising order."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, inside: NDArray[np.bool_]) -> Spans:
        """Of a flat mask that begins and ends outside."""
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        return cls(edges[::2], edges[1::2])

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def voxels(self) -> int:
        return int((self.stops - self.starts).sum())

    def part(self, start: int, stop: int) -> Spans:
        return Spans(self.starts[start:stop], self.stops[start:stop])


@dataclass(frozen=True, eq=False)
class Grey:
    """A region's grey levels as the loops want them: padded by one and flat, 0 outside.

    ``levels`` (k, j, i) whole numbers up to MAX_LEVELS, with 0 outside the intensity mask; ``morphological`` the bool mask whose border
    zones are measured from. Raises ConfigError for other levels: sums of neighbours and counts would overflow.
    """

    levels: NDArray[np.integer]
    morphological: NDArray[np.bool_]

    def __post_init__(self) -> None:
        low, high = int(self.levels.min(initial=0)), int(self.levels.max(initial=0))
        if low < 0 or high > MAX_LEVELS:
            raise ConfigError(f"grey levels lie between 0 (outside) and {MAX_LEVELS}, not {low} and {high}", hint="take wider bins")

    @cached_property
    def flat(self) -> NDArray[np.uint16]:
        return _padded(self.levels, np.uint16)

    @cached_property
    def spans(self) -> Spans:
        return Spans.of(self.flat > 0)

    @cached_property
    def slices(self) -> NDArray[np.int64]:
        """For each span the number of its slice, counting slices that hold any."""
        plane = self.spans.starts // self.plane
        return (np.cumsum(np.diff(plane, prepend=plane[:1]) > 0)).astype(np.int64)

    @cached_property
    def by_slice(self) -> list[Spans]:
        """The spans of one slice after the other, of those that hold any."""
        ends = np.searchsorted(self.slices, np.arange(self.slices[-1] + 2)) if len(self.spans) else [0]
        return [self.spans.part(a, b) for a, b in pairwise(ends)]

    @cached_property
    def highest(self) -> int:
        """Number of grey levels: the highest that occurs (IBSI: Ng)."""
        return int(self.flat.max(initial=0))

    @property
    def row(self) -> int:
        return int(self.levels.shape[2]) + 2

    @property
    def plane(self) -> int:
        return (int(self.levels.shape[1]) + 2) * self.row

    def offsets(self, steps: Iterable[Step]) -> NDArray[np.int64]:
        """(k, j, i) steps as steps in the flat array."""
        return np.array([k * self.plane + j * self.row + i for k, j, i in steps], np.int64)

    def distance(self, slicewise: bool) -> NDArray[np.uint16]:
        """Flat city-block distance of each voxel from the border of the morphological mask; 1 at the border (IBSI 3.9)."""
        held = Spans.of(_padded(self.morphological, np.bool_))
        strides = np.array([self.row] if slicewise else [self.row, self.plane])
        steps: NDArray[np.uint16] = loops.border_distance(held.starts, held.stops, len(self.flat), strides)
        return steps


def _padded(array: Array, kind: type[np.generic]) -> Array:
    """Flat, with one voxel of 0 all round."""
    out = np.zeros([n + 2 for n in array.shape], kind)
    out[1:-1, 1:-1, 1:-1] = array
    return out.ravel()


def texture(grey: Grey, families: Sequence[str], aggregations: Sequence[str]) -> Values:
    """Features of ``families`` ("cm", "rlm", "szm", "dzm", "ngt", "ngl") for each of ``aggregations`` (keys of DIRECTED), by column name.

    Families without directions take the part of an aggregation before its underscore (``3D_avg`` and ``3D_comb`` both give ``3D``).
    A region without voxels gives NaN throughout. Raises ConfigError for an unknown aggregation.
    """
    unknown = [name for name in aggregations if name not in DIRECTED]
    if unknown:
        raise ConfigError(f"there is no aggregation {unknown[0]!r}; there are {', '.join(DIRECTED)}")
    out: Values = {}
    directed = [family for family in _DIRECTED if family in families]
    if directed:
        found = _directed(grey, directed, aggregations)
        out |= {f"{family}_{tag}_{name}": value for family in directed for name in found for tag, value in found[name][family].items()}
    for name in UNDIRECTED:
        if any(a.rpartition("_")[0] == name for a in aggregations):
            for family, values in _undirected(grey, name, families).items():
                out |= {f"{family}_{tag}_{name}": value for tag, value in values.items()}
    return out


# ---- families with directions (IBSI 3.6, 3.7) and their aggregation (3.6.1, 3.7.1)


def _directed(grey: Grey, families: Sequence[str], aggregations: Sequence[str]) -> dict[str, dict[str, Values]]:
    """Aggregation -> family -> features. Both families are read from one count of what lies one step before each voxel."""
    out: dict[str, dict[str, Values]] = {}
    if any(name.startswith("3D") for name in aggregations):
        merged = "3D_avg" not in aggregations
        tables = _count(grey, grey.spans, DIRECTIONS, merged)
        if not merged:
            out["3D_avg"] = _means([_read(table, 1, grey.highest, families) for table in tables])
        if "3D_comb" in aggregations:
            out["3D_comb"] = _read(tables.sum(axis=0), len(DIRECTIONS), grey.highest, families)
    flat = [name for name in aggregations if name.startswith("2")]
    if flat:
        out |= _slice_by_slice(grey, families, flat)
    return {name: out[name] for name in aggregations}


def _slice_by_slice(grey: Grey, families: Sequence[str], aggregations: Sequence[str]) -> dict[str, dict[str, Values]]:
    """The four aggregations of matrices that stay in their slice; only one slice's matrices and their sum are held."""
    steps = [step for step in DIRECTIONS if step[0] == 0]
    each: list[dict[str, Values]] = []
    merged: list[dict[str, Values]] = []
    total = _count(grey, grey.spans.part(0, 0), steps, merged=False)
    for spans in grey.by_slice:
        tables = _count(grey, spans, steps, merged=False)
        total += tables
        if "2D_avg" in aggregations:
            each += [_read(table, 1, grey.highest, families) for table in tables]
        if "2D_comb" in aggregations:
            merged.append(_read(tables.sum(axis=0), len(steps), grey.highest, families))
    empty = _read(total[0] * 0, 1, grey.highest, families)
    made: dict[str, Callable[[], dict[str, Values]]] = {
        "2D_avg": lambda: _means(each or [empty]),
        "2D_comb": lambda: _means(merged or [empty]),
        "2_5D_avg": lambda: _means([_read(table, 1, grey.highest, families) for table in total]),
        "2_5D_comb": lambda: _read(total.sum(axis=0), len(steps), grey.highest, families),
    }
    return {name: made[name]() for name in aggregations}


def _means(found: Sequence[dict[str, Values]]) -> dict[str, Values]:
    return {family: _mean([one[family] for one in found]) for family in found[0]}


def _mean(rows: Sequence[Values]) -> Values:
    """Feature by feature the mean over ``rows`` that define it; NaN where none does."""
    if len(rows) == 1:
        return rows[0]
    table = np.array([list(row.values()) for row in rows])
    known = np.isfinite(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    means = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return dict(zip(rows[0], means.tolist(), strict=True))


def _count(grey: Grey, spans: Spans, steps: Sequence[Step], merged: bool) -> Counts:
    """(steps, or 1 if ``merged``, levels + 1, levels + 1 + longest): ``texture_loops.pairs_and_runs`` of ``spans``."""
    tables, levels, longest = 1 if merged else len(steps), grey.highest, max(grey.levels.shape)
    if not len(spans):
        return np.zeros((tables, levels + 1, levels + 1 + longest), np.int64)
    table_of = np.zeros(len(steps), np.int64) if merged else np.arange(len(steps))
    counts = loops.pairs_and_runs(grey.flat, spans.starts, spans.stops, grey.offsets(steps), table_of, tables, levels, longest)
    return np.asarray(counts, np.int64)


def _read(table: Counts, steps: int, levels: int, families: Sequence[str]) -> dict[str, Values]:
    """Features of ``families`` of one of ``_count``'s tables, or of a sum of some, that was counted along ``steps`` directions a voxel."""
    out = {}
    counts = table[1:]
    following = counts[:, levels + 1 :]
    if "cm" in families:
        one_way = counts[:, 1 : levels + 1].copy()
        np.fill_diagonal(one_way, one_way.diagonal() + following.sum(axis=1))
        out["cm"] = _cooccurrence(one_way + one_way.T, levels)
    if "rlm" in families:
        at_least = np.column_stack([counts.sum(axis=1) - following.sum(axis=1), following])
        at_least[:, :-1] -= at_least[:, 1:].copy()
        out["rlm"] = _table(at_least, int(counts.sum()), "rlm")
    return out


# ---- co-occurrence (IBSI 3.6)


def _cooccurrence(counts: Counts, levels: int) -> Values:
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


def _table(counts: Array, voxels: int, family: str) -> Values:
    """Features of a matrix (level - 1, extent - 1) of counts."""
    row, column = np.nonzero(counts)
    return emphases(row + 1, column + 1, counts[row, column], voxels, _EXTENT_NAMES[family])


# ---- zones and neighbourhoods


def _undirected(grey: Grey, aggregation: str, families: Sequence[str]) -> dict[str, Values]:
    """Features of the families without directions that are asked for, for "2D", "2_5D" or "3D" (IBSI 3.8.1)."""
    asked = [family for family in _UNDIRECTED if family in families]
    if not len(grey.spans):
        return {family: _EMPTY[family]() for family in asked}
    flat, each_slice = aggregation != "3D", aggregation == "2D"
    spans = grey.spans
    rows = grey.slices if each_slice else np.zeros(len(spans), np.int64)
    sizes = [part.voxels for part in grey.by_slice] if each_slice else [spans.voxels]
    out: dict[str, Values] = {}
    if {"szm", "dzm", "ngl"} & {*asked}:
        steps = DIRECTIONS[:4] if flat else DIRECTIONS
        before, number = loops.alike(grey.flat, spans.starts[0], spans.stops[-1], grey.offsets(steps))
    if "szm" in asked or "dzm" in asked:
        distance = grey.distance(flat) if "dzm" in asked else grey.flat
        found = loops.zones(grey.flat, spans.starts, spans.stops, grey.offsets(steps), before, distance, _one_of_each())
        row = rows[np.searchsorted(spans.starts, found[:, 3], "right") - 1]
        parts = [found[row == n] for n in range(len(sizes))] if each_slice else [found]
        for family, column in (("szm", 1), ("dzm", 2)):
            if family in asked:
                out[family] = _mean([_zone_features(part, column, size, family) for part, size in zip(parts, sizes, strict=True)])
    if "ngt" in asked:
        columns = grey.offsets([(k, j, 0) for k, j in product((0,) if flat else (-1, 0, 1), (-1, 0, 1))])
        around = loops.surroundings(grey.flat, spans.starts[0], spans.stops[-1], columns)
        counted = loops.tones(grey.flat, spans.starts, spans.stops, rows, around, grey.highest, len(sizes))
        out["ngt"] = _mean([_tone_difference(n, s) for n, s in zip(*counted, strict=True)])
    if "ngl" in asked:
        most = 8 if flat else 26
        counts = loops.dependence(grey.flat, spans.starts, spans.stops, rows, number, grey.highest, len(sizes), most)
        out["ngl"] = _mean([_dependence(matrix) for matrix in counts])
    return out


@cache
def _one_of_each() -> NDArray[np.uint16]:
    """``texture_loops.representatives`` of the voxels one of DIRECTIONS before a voxel."""
    apart = np.abs(np.array(DIRECTIONS)[:, None] - np.array(DIRECTIONS)).max(axis=2)
    one: NDArray[np.uint16] = loops.representatives(((apart <= 1) << np.arange(len(DIRECTIONS))).sum(axis=1).astype(np.uint16))
    return one


def _zone_features(found: Array, column: int, voxels: int, family: str) -> Values:
    """``found`` as ``texture_loops.zones`` gives it; ``column`` 1 for sizes, 2 for distances."""
    wide = int(found[:, column].max(initial=0)) + 1
    both, count = np.unique(found[:, 0] * wide + found[:, column], return_counts=True)
    return emphases(both // wide, both % wide, count, voxels, _EXTENT_NAMES[family])


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


_EMPTY: dict[str, Callable[[], Values]] = {
    "szm": lambda: _zone_features(np.empty((0, 4), np.int64), 1, 0, "szm"),
    "dzm": lambda: _zone_features(np.empty((0, 4), np.int64), 2, 0, "dzm"),
    "ngt": lambda: _tone_difference(np.empty(0), np.empty(0)),
    "ngl": lambda: _dependence(np.zeros((1, 1), np.int64)),
}
"""What a family gives for a region without voxels: NaN by name."""
