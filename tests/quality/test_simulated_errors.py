"""Spoiled contours: how wrong they are, by pencil; always the same; every family wrong from hardly to wholly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from oncontour.errors import ConfigError
from oncontour.metrics.slices import slice_scores
from oncontour.quality.simulated_errors import (
    FAMILIES,
    SimulatedError,
    Surroundings,
    around,
    ball,
    draw,
    grown,
    other_side,
    radius_mm,
    shifted,
    spoil,
)

SPACING = (2.0, 2.0, 2.0)


def box(low=10, high=20):
    mask = np.zeros((30, 30, 30), bool)
    mask[low:high, low:high, low:high] = True
    return mask


def dsc(truth, claim):
    return float(2 * (truth & claim).sum() / (truth.sum() + claim.sum()))


def test_a_shift_by_three_of_ten_voxels_leaves_seven():
    """Width 10 moved by 3: 2 * 7 / 20 = 0.7 in every slice; along k three slices are wholly wrong at either end."""
    moved = shifted(box(), (0, 0, 6), SPACING)
    each, _ = slice_scores(box(), moved, SPACING[1:])
    assert each[10:20] == pytest.approx(0.7)
    up, _ = slice_scores(box(), shifted(box(), (6, 0, 0), SPACING), SPACING[1:])
    assert up[10:23] == pytest.approx([0] * 3 + [1] * 7 + [0] * 3)


def test_growing_and_shrinking_a_box():
    """A box of 10 voxels shrunk by 2 voxels on all sides has 6: DSC 2 * 216 / 1216; grown by 2 its middle row has 14."""
    assert dsc(box(), grown(box(), -4.0, SPACING)) == pytest.approx(2 * 216 / 1216)
    large = grown(box(), 4.0, SPACING)
    assert large[15, 15].sum() == 14
    assert not large[8, 8, 8]  # corners are rounded
    assert (grown(box(), 0.0, SPACING) == box()).all()


def test_a_missing_third_is_known_exactly():
    """A third of the box's slices gone: these have DSC 0, the others 1."""
    for seed in range(40):
        claim = spoil(box(), Surroundings(SPACING), SimulatedError("missing_part", 0.45, seed))
        each, _ = slice_scores(box(), claim, SPACING[1:])
        lost = each[10:20] == 0
        if set(np.unique(each[10:20])) == {0.0, 1.0} and lost[0] != lost[-1]:
            assert lost.sum() == 3
            return
    pytest.fail("no seed cut an end off")


def test_the_wrong_side_is_the_partner_or_the_mirror_image():
    mask = np.zeros((4, 10, 20), bool)
    mask[:, 4:6, 14:17] = True
    body = np.ones_like(mask)
    mirrored = other_side(mask, Surroundings(SPACING, body=body))
    assert (mirrored == mask[..., ::-1]).all()
    body[..., :4] = False  # columns 4 to 19 are left, whose mirror takes i to 23 - i: 14, 15, 16 to 9, 8, 7
    mirrored = other_side(mask, Surroundings(SPACING, body=body))
    assert np.flatnonzero(mirrored.any(axis=(0, 1))).tolist() == [7, 8, 9]
    partner = np.zeros_like(mask)
    partner[1:3, 3:6, 2:5] = True
    assert (spoil(mask, Surroundings(SPACING, partner=partner), SimulatedError("wrong_side", 1.0)) == partner).all()


def test_a_leak_goes_into_the_neighbour():
    mask, neighbour = box(), np.zeros((30, 30, 30), bool)
    neighbour[10:20, 10:20, 20:28] = True
    claim = spoil(mask, Surroundings(SPACING, neighbours=neighbour), SimulatedError("leak", 0.8, 3))
    assert (claim & ~mask).any()
    assert not (claim & ~mask & ~neighbour).any()
    assert (claim & mask).sum() == mask.sum()


def test_islands_lie_apart_and_in_the_body():
    body = np.zeros((30, 30, 30), bool)
    body[:, 5:25, 5:25] = True
    claim = spoil(box(), Surroundings(SPACING, body=body), SimulatedError("islands", 0.5, 1))
    assert (claim & ~box()).any()
    assert not (claim & ~box() & ~body).any()
    parts = [ndimage.label(spoil(box(), Surroundings(SPACING), SimulatedError("islands", 0.05, seed)))[1] for seed in range(20)]
    assert sum(n > 1 for n in parts) > 10, "small ones mostly miss the box and lie apart from it"


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"wrong_side"}))
def test_every_family_reaches_from_hardly_wrong_to_very_wrong(family):
    mask = box(8, 22)
    surroundings = Surroundings(SPACING, partner=ball(mask.shape, np.array([15.0, 15, 5]), (8, 8, 8), SPACING))
    weak, strong = (
        [dsc(mask, spoil(mask, surroundings, SimulatedError(family, strength, seed))) for seed in range(12)] for strength in (0.05, 1.0)
    )
    assert np.mean(strong) < np.mean(weak)
    assert min(strong) < 0.85


def test_the_wrong_side_is_wholly_wrong_however_strong():
    mask = box(8, 22)
    surroundings = Surroundings(SPACING, partner=ball(mask.shape, np.array([15.0, 15, 3]), (4, 4, 4), SPACING))
    assert {
        dsc(mask, spoil(mask, surroundings, SimulatedError("wrong_side", strength, seed))) for strength in (0.05, 1.0) for seed in range(4)
    } == {0.0}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.floats(0, 1), st.integers(0, 1000), st.floats(0, 1))
def test_the_same_error_gives_the_same_mask_in_any_corner(family, strength, seed, rough):
    mask = np.zeros((12, 16, 16), bool)
    mask[0:4, 10:16, 0:5] = True
    before = mask.copy()
    error = SimulatedError(family, strength, seed, rough)
    one, two = spoil(mask, Surroundings((3, 4, 4)), error), spoil(mask, Surroundings((3, 4, 4)), error)
    assert one.shape == mask.shape
    assert one.dtype == bool
    assert (one == two).all()
    assert (mask == before).all()


def test_nothing_stays_nothing_and_no_error_changes_nothing():
    assert not spoil(np.zeros((4, 4, 4), bool), Surroundings(SPACING), SimulatedError("dilate", 1.0)).any()
    assert (spoil(box(), Surroundings(SPACING), SimulatedError("none", 0.5)) == box()).all()


def test_dice_keep_to_their_families():
    rng = np.random.default_rng(0)
    drawn = [draw(rng, ["shift", "noise"]) for _ in range(50)]
    assert {error.family for error in drawn} == {"shift", "noise"}
    assert 0 < min(error.strength for error in drawn) < 0.2 < 0.8 < max(error.strength for error in drawn) <= 1
    with pytest.raises(ConfigError, match="no family"):
        SimulatedError("smudge", 0.5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        SimulatedError("shift", 1.5)


def test_size_and_box():
    assert radius_mm(box(), SPACING) == pytest.approx(np.sqrt(100 * 4 / np.pi))
    assert around(box(), SPACING, 5.0) == (slice(7, 23), slice(7, 23), slice(7, 23))
    assert around(box(), SPACING, 100.0)[0] == slice(0, 30)
