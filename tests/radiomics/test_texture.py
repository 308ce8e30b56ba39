"""Texture: numbers a pencil finds, the definitions done again the slow way, what turning must not change, what is undefined."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oncontour.errors import ConfigError
from oncontour.radiomics.discretise import MAX_LEVELS
from oncontour.radiomics.names import DIRECTED
from oncontour.radiomics.texture import AROUND, DIRECTIONS, Grey, texture

FAMILIES = ("cm", "rlm", "szm", "dzm", "ngt", "ngl")
ALL = tuple(DIRECTED)


def grey(levels: object) -> Grey:
    array = np.asarray(levels, np.int32)
    array = array.reshape((1,) * (3 - array.ndim) + array.shape)
    return Grey(array, array > 0)


def features(levels: object, *aggregations: str) -> dict[str, float]:
    return texture(grey(levels), FAMILIES, aggregations or ("3D_comb",))


def test_directions_are_one_of_each_pair_and_the_first_four_stay_in_the_slice() -> None:
    assert len(AROUND) == 26
    assert len(DIRECTIONS) == 13
    assert {*DIRECTIONS, *((-k, -j, -i) for k, j, i in DIRECTIONS)} == set(AROUND)
    assert [step[0] for step in DIRECTIONS[:5]] == [0, 0, 0, 0, 1]


# ---- a pencil


def test_cooccurrence_of_a_row() -> None:
    """1 2 4: pairs (1,2), (2,4) and back, a quarter each. Sums 3, 6; differences 1, 2."""
    got = {k.removeprefix("cm_").removesuffix("_3D_comb"): v for k, v in features([1, 2, 4]).items() if k.startswith("cm")}
    want = {
        "joint_max": 0.25,
        "joint_avg": 9 / 4,
        "joint_var": (1 + 4 + 4 + 16) / 4 - (9 / 4) ** 2,
        "joint_entr": 2.0,
        "diff_avg": 1.5,
        "diff_var": 0.25,
        "diff_entr": 1.0,
        "sum_avg": 4.5,
        "sum_var": 2.25,
        "sum_entr": 1.0,
        "energy": 0.25,
        "contrast": 2.5,
        "dissimilarity": 1.5,
        "inv_diff": (1 / 2 + 1 / 3) / 2,
        "inv_diff_norm": (1 / (1 + 1 / 4) + 1 / (1 + 2 / 4)) / 2,
        "inv_diff_mom": (1 / 2 + 1 / 5) / 2,
        "inv_diff_mom_norm": (1 / (1 + 1 / 16) + 1 / (1 + 4 / 16)) / 2,
        "inv_var": (1 + 1 / 4) / 2,
        "corr": ((2 + 8) / 2 - 81 / 16) / (25 / 4 - 81 / 16),
        "auto_corr": 5.0,
        "clust_tend": 2.25,
        "clust_shade": 0.0,
        "clust_prom": 1.5**4,
        "info_corr1": (2.0 - (0.5 * 3 + 0.5 * 3)) / 1.5,
        "info_corr2": np.sqrt(1 - np.exp(-2 * (3.0 - 2.0))),
    }
    assert got == pytest.approx(want, abs=1e-12)


def test_runs_of_a_row() -> None:
    """1 1 1 2 along the row: a run of three and a run of one; across it every voxel is a run of its own."""
    got = features([1, 1, 1, 2], "2D_avg")
    assert got["rlm_sre_2D_avg"] == pytest.approx(((1 / 9 + 1) / 2 + 3 * 1) / 4)
    assert got["rlm_lre_2D_avg"] == pytest.approx((5 + 3) / 4)
    assert got["rlm_r_perc_2D_avg"] == pytest.approx((2 / 4 + 3) / 4)
    assert features([1, 1, 1, 2], "2D_comb")["rlm_r_perc_2D_comb"] == pytest.approx(14 / 16)


def test_zones_meet_at_corners_and_lie_as_deep_as_their_shallowest_voxel() -> None:
    """Two voxels of level 2 across a corner are one zone; a full 5 x 5 x 5 cube of level 1 with a 3 in the middle: depth 3."""
    got = features([[2, 1], [1, 2]])
    assert (got["szm_z_perc_3D"], got["szm_sze_3D"], got["szm_zs_entr_3D"]) == (0.5, 0.25, 1.0)
    cube = np.ones((5, 5, 5), int)
    cube[2, 2, 2] = 3
    got = features(cube)
    assert (got["szm_lze_3D"], got["dzm_lde_3D"], got["dzm_ldhge_3D"]) == ((124**2 + 1) / 2, (1 + 9) / 2, (1 + 81) / 2)
    assert features(cube, "2D_comb")["dzm_lde_2D"] == pytest.approx((4 * 1 + (1 + 9) / 2) / 5)


def test_tone_difference_of_a_row() -> None:
    """1 3 1: every voxel lies 2 from its surroundings; n = 2, 1; s = 4, 2; p = 2/3, 1/3."""
    got = [features([1, 3, 1])[f"ngt_{name}_3D"] for name in ("coarseness", "contrast", "busyness", "complexity", "strength")]
    assert got == pytest.approx([0.3, 16 / 9, 5.0, 40 / 9, 4 / 3])


def test_dependence_of_a_row() -> None:
    """1 1 2: both 1s have one like neighbour (2 with themselves), the 2 has none (1)."""
    got = features([1, 1, 2])
    assert got["ngl_lde_3D"] == pytest.approx((1 / 4 + 1 / 4 + 1) / 3)
    assert got["ngl_dc_energy_3D"] == pytest.approx(4 / 9 + 1 / 9)
    assert got["ngl_dc_perc_3D"] == 1.0


# ---- the slow way


def slow(levels: np.ndarray) -> dict[str, float]:
    """Some features of every family, by loops over voxels as the manual defines them."""
    held = [tuple(v) for v in np.argwhere(levels)]
    at = {v: int(levels[v]) for v in held}

    def near(v: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [w for d in AROUND if (w := (v[0] + d[0], v[1] + d[1], v[2] + d[2])) in at]

    pairs = [(at[v], at[w]) for v in held for w in near(v)]
    runs, zones, left = [], [], set(held)
    for d, v in product(DIRECTIONS, held):
        line = [v]
        while at.get(w := tuple(np.add(line[-1], d))) == at[v]:
            line.append(w)
        if at.get(tuple(np.subtract(v, d))) != at[v]:
            runs.append(len(line))
    while left:
        zone, edge = set(), {left.pop()}
        while edge:
            v = edge.pop()
            zone.add(v)
            edge |= {w for w in near(v) if at[w] == at[v]} - zone
        left -= zone
        zones.append(zone)

    def depth(v: tuple[int, ...]) -> int:
        padded = np.pad(levels, 1)
        return int(np.abs(np.argwhere(padded == 0) - (np.array(v) + 1)).sum(axis=1).min())

    alike = [1 + sum(at[w] == at[v] for w in near(v)) for v in held]
    away = [abs(at[v] - np.mean([at[w] for w in near(v)])) for v in held if near(v)]
    share = {level: np.mean([at[v] == level for v in held if near(v)]) for level in set(at.values())} if away else {}
    weighted = sum(share[at[v]] * abs(at[v] - np.mean([at[w] for w in near(v)])) for v in held if near(v))
    return {
        "cm_contrast_3D_comb": np.mean([(a - b) ** 2 for a, b in pairs]) if pairs else np.nan,
        "rlm_lre_3D_comb": np.mean(np.square(runs)),
        "szm_lze_3D": np.mean([len(z) ** 2 for z in zones]),
        "dzm_lde_3D": np.mean([min(map(depth, z)) ** 2 for z in zones]),
        "ngl_hde_3D": np.mean(np.square(alike)),
        "ngt_coarseness_3D": (1 / weighted if weighted else 1e6) if away else np.nan,
    }


BLOCKS = arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3)).filter(lambda a: a.any())


@settings(max_examples=30, deadline=None)
@given(BLOCKS)
def test_as_the_slow_way(levels: np.ndarray) -> None:
    got = features(levels)
    want = slow(levels)
    assert {name: got[name] for name in want} == pytest.approx(want, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(BLOCKS, st.permutations([0, 1, 2]), st.booleans())
def test_turning_and_mirroring_change_nothing_in_space(levels: np.ndarray, order: list[int], flip: bool) -> None:
    turned = np.ascontiguousarray(levels.transpose(order)[:: -1 if flip else 1])
    assert features(turned, "3D_avg", "3D_comb") == pytest.approx(features(levels, "3D_avg", "3D_comb"), nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(BLOCKS)
def test_order_of_slices_changes_nothing_in_slices(levels: np.ndarray) -> None:
    flat = [name for name in ALL if name.startswith("2")]
    assert features(levels[::-1].copy(), *flat) == pytest.approx(features(levels, *flat), nan_ok=True)


def test_one_slice_is_the_same_in_2d_and_merged() -> None:
    levels = np.random.default_rng(0).integers(0, 4, (1, 7, 6))
    got = features(levels, *ALL)
    for name, value in got.items():
        if name.endswith("2D_comb"):
            assert got[name.replace("2D_comb", "2_5D_comb")] == pytest.approx(value)
        elif name.endswith("_2D"):
            assert got[name.removesuffix("2D") + "2_5D"] == pytest.approx(value)
            if not name.startswith("dzm"):  # in space every voxel of one slice lies at the border
                assert got[name.removesuffix("2D") + "3D"] == pytest.approx(value)


# ---- what is not defined


def test_one_voxel() -> None:
    """No pair and no neighbour: co-occurrence and tone difference are NaN; a run, a zone and a dependence of one are not."""
    got = features(1, *ALL)
    undefined = {name.split("_")[0] for name, value in got.items() if np.isnan(value)}
    assert undefined == {"cm", "ngt"}
    assert all(np.isnan(value) for name, value in got.items() if name.split("_")[0] in undefined)


def test_constant_region() -> None:
    """Correlation and the first measure of information correlation are NaN; the manual defines tone difference (coarseness a million)."""
    got = features(np.ones((3, 3, 3), int), *ALL)
    nans = {name for name, value in got.items() if np.isnan(value)}
    assert nans == {f"cm_{name}_{a}" for name in ("corr", "info_corr1") for a in ALL}
    assert [got[f"ngt_{n}_3D"] for n in ("coarseness", "contrast", "busyness", "complexity", "strength")] == [1e6, 0, 0, 0, 0]


def test_no_voxel() -> None:
    got = features(np.zeros((2, 2, 2), int), *ALL)
    assert len(got) == 6 * (25 + 16) + 3 * (16 + 16 + 5 + 17)
    assert all(np.isnan(value) for value in got.values())


def test_slices_that_define_nothing_are_left_out_of_the_mean() -> None:
    """A slice of one voxel has no pairs: the mean over slices is that of the other."""
    levels = np.zeros((2, 1, 4), int)
    levels[0, 0, :] = [1, 2, 2, 1]
    levels[1, 0, 0] = 3
    assert features(levels, "2D_comb")["cm_contrast_2D_comb"] == pytest.approx(2 / 3)


def test_unknown_aggregation() -> None:
    with pytest.raises(ConfigError, match="4D_avg"):
        features([1, 2], "4D_avg")


@pytest.mark.parametrize("level", [-1, MAX_LEVELS + 1, 40_000, 70_000])
def test_levels_whose_sums_would_overflow_are_refused(level: int) -> None:
    with pytest.raises(ConfigError, match=rf"between 0 \(outside\) and {MAX_LEVELS}, not"):
        grey([[0, 1], [level, 1]])


def test_the_highest_level_is_counted_as_any_other() -> None:
    """26 neighbours of the highest level about one of level 1: the sums do not overflow."""
    levels = np.full((3, 3, 3), MAX_LEVELS)
    levels[1, 1, 1] = 1
    got = texture(grey(levels), ("ngt",), ("3D_comb",))
    assert got["ngt_coarseness_3D"] == pytest.approx(1 / _weighted(levels))


def _weighted(levels: np.ndarray) -> float:
    """Sum over levels of p_i s_i, voxel by voxel."""
    inside, total = np.pad(np.ones(levels.shape), 1), 0.0
    sums: dict[int, float] = {}
    for at in np.ndindex(levels.shape):
        box = tuple(slice(max(0, a - 1), a + 2) for a in at)
        here = levels[at]
        count = inside[tuple(slice(a, a + 3) for a in at)].sum() - 1
        sums[here] = sums.get(here, 0.0) + abs(here - (levels[box].sum() - here) / count)
    for level, s in sums.items():
        total += float((levels == level).mean() * s)
    return total
