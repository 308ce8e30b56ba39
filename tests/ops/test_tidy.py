"""Each rule on a drawing small enough to count by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.contour.anatomy import anatomy_of
from oncontour.core.case import BitMasks, LabelMasks
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, GeometryError
from oncontour.ops.pieces import shipped_pieces
from oncontour.ops.tidy import Anatomy, Change, Tidy, tidy

GRID = Geometry.regular((10, 20, 20), (3.0, 1.0, 1.0))
ONLY = {"pieces": 0, "holes": "off", "slivers_mm2": 0, "overlap": "off"}


def block(*ranges, shape=GRID.shape):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def one(mask, name="Organ", **rules):
    masks, done = tidy({name: Volume(mask, GRID)}, Tidy(**{**ONLY, **rules}))
    packed, same = tidy(LabelMasks(Volume(mask.astype(np.uint8), GRID), [name]), Tidy(**{**ONLY, **rules}))
    assert np.array_equal(packed[name].array, masks[name].array), "packed or not, the same comes out"
    assert same == done
    return masks[name].array, told(done)


def told(done):
    return tuple(change.text for change in done)


def test_small_pieces_go():
    large, small, tiny = block((0, 5), (0, 10), (0, 10)), block((7, 9), (12, 17), (12, 17)), block((9, 10), (0, 1), (0, 1))
    kept, done = one(large | small | tiny, pieces=0.05)
    assert np.array_equal(kept, large | small)
    assert done == ("Organ: small pieces dropped (-3 mm³)",)
    kept, done = one(large | small | tiny, pieces=1)
    assert np.array_equal(kept, large)
    assert done == ("Organ: small pieces dropped (-0.15 cc)",), "51 voxels of 3 mm3"


CORD = {"cord": ((0, 30), (10, 13), (10, 13)), "arm": ((2, 28), (10, 13), (57, 59)), "near": ((33, 40), (10, 13), (10, 13))}
"""Voxels of 3 x 3 x 3 mm: 270 of a cord (7.29 cc); 156 (4.21 cc) 45 voxels to its left; 63 (1.70 cc) beyond three empty slices, 12 mm."""
WIDE = Geometry.regular((44, 24, 64), (3.0, 3.0, 3.0))


def cord(*parts):
    return np.logical_or.reduce([block(*CORD[part], shape=WIDE.shape) for part in parts])


HEAD_NECK = Anatomy(shipped_pieces())
"""What is known where a CT shows head and neck."""


def wide(mask, name, **rules):
    masks, done = tidy({name: Volume(mask, WIDE)}, Tidy(**rules), HEAD_NECK)
    return masks[name].array, done


@pytest.mark.parametrize("name", ["SpinalCord", "Parotid_L", "Bone_Mandible"])
def test_an_organ_of_one_piece_loses_what_lies_far_from_it(name):
    """An arm's 4.21 cc, 58 % of the largest piece, 135 mm away; what lies beyond three empty slices of 3 mm stays."""
    kept, done = wide(cord("cord", "arm", "near"), name)
    assert np.array_equal(kept, cord("cord", "near"))
    gone = f"removed 4.21 cc of {name} 14 cm away from the rest, to its left (z 6 to 81 mm)"
    assert told(done) == (f"{gone}; kept 8.99 cc (z 0 to 117 mm)",)
    assert done[0].warns
    whole = cord("cord", "arm", "near")
    for masks in (LabelMasks(Volume(whole.astype(np.uint8), WIDE), [name]), BitMasks(Volume(whole[None].astype(np.uint8), WIDE), [name])):
        packed, same = tidy(masks, anatomy=HEAD_NECK)
        assert np.array_equal(packed[name].array, kept)
        assert same == done


def test_on_a_ct_of_another_part_of_the_body_a_far_piece_stays_and_is_told():
    """What is known of organs was measured on heads and necks: where a CT does not show these, nothing goes for the place where it lies."""
    masks, done = tidy({"SpinalCord": Volume(cord("cord", "arm"), WIDE)}, Tidy())
    assert np.array_equal(masks["SpinalCord"].array, cord("cord", "arm"))
    assert told(done) == ("kept 4.21 cc of SpinalCord 14 cm away from the rest: in how many pieces it comes is not known",)


def oesophagus(*missing):
    """Of the chest, slices of 3 mm, pixels of 2 mm: 32 mm to the left on its way down 207 mm; no neck's reaches 33 mm sideways."""
    grid = Geometry.regular((80, 100, 100), (3.0, 2.0, 2.0), (-100, -100, 0))
    mask = np.zeros(grid.shape, bool)
    for k in range(5, 75):
        i = 50 + round((75 - k) / 70 * 16)
        mask[k, 60:68, i - 4 : i + 4] = k not in missing
    return Volume(mask, grid)


def test_an_oesophagus_that_goes_on_below_the_neck_stays_whole_where_slices_were_not_drawn():
    """A CT of head, neck and chest: 5 slices without a contour; the 40 above hold 30.72 cc, the 25 below 19.20 cc (64 voxels of 12 mm3)."""
    broken = oesophagus(*range(45, 50))
    masks, done = tidy({"Esophagus": broken}, anatomy=HEAD_NECK)
    assert np.array_equal(masks["Esophagus"].array, broken.array)
    assert told(done) == ("kept 19.20 cc of Esophagus 18 mm away from the rest: it goes on where the rest ends",)
    aside = oesophagus(*range(45, 68)).array.copy()
    aside[68:75] = np.roll(aside[68:75], -30, axis=2)
    masks, done = tidy({"Esophagus": Volume(aside, broken.geometry)}, anatomy=HEAD_NECK)
    assert masks["Esophagus"].array.sum() == 40 * 64, "7 slices higher up and 5 cm aside go on from nothing"


@pytest.mark.parametrize("alone", [True, False])
def test_the_true_cord_stays_where_the_false_one_is_larger(alone):
    """4.21 cc in the midline and 7.29 cc in an arm: where brainstem and larynx tell the midline the arm's goes, else both stay."""
    cord_and_arm = block((2, 28), (10, 13), (10, 12), shape=WIDE.shape), block((0, 30), (10, 13), (56, 59), shape=WIDE.shape)
    masks = {"SpinalCord": Volume(np.logical_or(*cord_and_arm), WIDE)}
    for name, rows in (("Brainstem", (14, 17)), ("Larynx", (3, 6))):
        masks |= {} if alone else {name: Volume(block((30, 36), rows, (9, 13), shape=WIDE.shape), WIDE)}
    after, done = tidy(masks, anatomy=HEAD_NECK)
    kept = np.logical_or(*cord_and_arm) if alone else cord_and_arm[0]
    assert np.array_equal(after["SpinalCord"].array, kept)
    both = "SpinalCord lies in 2 places far from each other: 7.29 cc (z 0 to 87 mm) and 4.21 cc (z 6 to 81 mm)."
    gone = "removed 7.29 cc of SpinalCord 14 cm away from the rest, to its left (z 0 to 87 mm); kept 4.21 cc (z 6 to 81 mm)"
    assert done == (Change(f"{both} One of them is the organ at most, and all were kept" if alone else gone, warns=True),)


def test_where_the_organ_is_far_smaller_than_what_lies_elsewhere_both_stay():
    """0.97 cc in the midline are 13 % of what lies in an arm: neither size nor place says that the rest of the cord is not there."""
    small, arm = block((2, 14), (10, 13), (10, 11), shape=WIDE.shape), block((0, 30), (10, 13), (56, 59), shape=WIDE.shape)
    masks = {"SpinalCord": Volume(small | arm, WIDE)}
    masks |= {name: Volume(block((30, 36), (14, 17), (9, 12), shape=WIDE.shape), WIDE) for name in ("Brainstem", "Larynx")}
    after, done = tidy(masks, Tidy(pieces=0.1, overlap="off"), HEAD_NECK)
    assert np.array_equal(after["SpinalCord"].array, small | arm)
    assert [change.warns for change in done] == [True]


@pytest.mark.parametrize("name", ["Parotid_L", "Parotid_R"])
def test_of_two_glands_under_one_name_the_side_decides(name):
    """Two equal pieces 72 mm apart, the midline between them: by the order of labels Parotid_R's went as well as Parotid_L's."""
    right, left = (block((4, 12), (8, 14), (i, i + 6), shape=WIDE.shape) for i in (6, 35))
    masks = {name: Volume(right | left, WIDE)}
    masks |= {
        other: Volume(block((0, 20), rows, (22, 25), shape=WIDE.shape), WIDE)
        for other, rows in (("SpinalCord", (18, 21)), ("Larynx", (2, 5)))
    }
    after, done = tidy(masks, anatomy=HEAD_NECK)
    assert np.array_equal(after[name].array, left if name == "Parotid_L" else right)
    assert [change.warns for change in done] == [True]


@pytest.mark.parametrize("name", ["Spinal_Cord", "spinal cord", "Myelon"])
def test_an_organ_is_known_by_whatever_name(name):
    anatomy = anatomy_of(None, [name])
    assert anatomy.name(name) == "SpinalCord"
    masks, done = tidy({name: Volume(cord("cord", "arm", "near"), WIDE)}, anatomy=Anatomy(shipped_pieces(), anatomy.names))
    assert np.array_equal(masks[name].array, cord("cord", "near"))
    assert told(done)[0].startswith(f"removed 4.21 cc of {name} 14 cm away")


def test_a_dropped_piece_that_a_person_would_see_is_among_the_warnings():
    """4.21 cc and 1.70 cc dropped as small beside 7.29 cc (pieces=1); a crumb of 27 mm3 is no news."""
    _, done = wide(cord("cord", "arm", "near"), "Glnd_Thyroid", pieces=1)
    assert done == (Change("Glnd_Thyroid: small pieces dropped (-5.91 cc, the largest of 4.21 cc)", warns=True),)
    _, done = wide(cord("cord") | block((5, 6), (20, 21), (40, 41), shape=WIDE.shape), "Glnd_Thyroid", slivers_mm2=0)
    assert done == (Change("Glnd_Thyroid: small pieces dropped (-0.03 cc)"),)


def test_an_organ_broken_twice_stays_whole():
    """Three pieces in a row, each 12 mm from the next: the last lies 69 mm from the first, and near the second."""
    row = [block((a, b), (10, 13), (10, 13), shape=WIDE.shape) for a, b in ((0, 18), (21, 36), (39, 44))]
    assert np.array_equal(wide(np.logical_or.reduce(row), "Brainstem")[0], np.logical_or.reduce(row))
    gap = [block((a, b), (10, 13), (10, 13), shape=WIDE.shape) for a, b in ((0, 18), (22, 36))]
    kept, done = wide(np.logical_or.reduce(gap), "Brainstem")
    assert np.array_equal(kept, np.logical_or.reduce(gap)), "of like size: nothing says which is the brainstem"
    both = "Brainstem lies in 2 places far from each other: 4.37 cc (z 0 to 51 mm) and 3.40 cc (z 66 to 105 mm)."
    assert done == (Change(f"{both} One of them is the organ at most, and all were kept", warns=True),), "105 mm are no brainstem"
    kept, done = wide(np.logical_or.reduce(gap), "SpinalCord")
    assert np.array_equal(kept, np.logical_or.reduce(gap)), "halves of a cord lay 25 mm apart"
    assert done == ()


def test_the_halves_of_a_broken_organ_stay_and_are_told():
    """A jaw of 81 mm with 21 mm missing in its middle; with 99 mm missing it would be 159 mm wide, and none was wider than 127."""
    halves = [block((0, 6), (8, 14), columns, shape=WIDE.shape) for columns in ((2, 13), (19, 30))]
    kept, done = wide(np.logical_or.reduce(halves), "Bone_Mandible")
    assert np.array_equal(kept, np.logical_or.reduce(halves))
    words = "kept 10.69 cc of Bone_Mandible 21 mm away from the rest: together they reach no farther than one that is whole"
    assert told(done) == (words,), "396 voxels of 27 mm3"
    assert not done[0].warns
    apart = [block((0, 6), (8, 14), columns, shape=WIDE.shape) for columns in ((2, 13), (45, 56))]
    kept, done = wide(np.logical_or.reduce(apart), "Bone_Mandible")
    assert np.array_equal(kept, np.logical_or.reduce(apart)), "of like size: nothing says which is the jaw"
    assert [change.warns for change in done] == [True]


def test_where_an_organ_reaches_is_measured_along_the_patient_and_not_the_grid():
    """Two pieces of a cord 60 mm apart: from foot to head they are one that is broken, from right to left they are not."""
    pieces = block((2, 8), (10, 13), (10, 13), shape=WIDE.shape) | block((27, 29), (10, 13), (10, 13), shape=WIDE.shape)
    axes = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    lying = Geometry.regular(WIDE.shape, (3.0, 3.0, 3.0), (0, 0, 0), axes)
    for grid, parts in ((WIDE, 2), (lying, 1)):
        masks, _ = tidy({"SpinalCord": Volume(pieces, grid)}, Tidy(slivers_mm2=0), HEAD_NECK)
        assert masks["SpinalCord"].array.sum() == (54 + 18 if parts == 2 else 54)


@pytest.mark.parametrize("name", ["Lungs", "Kidney", "GTVn", "PTV_7000", "Glnd_Submands"])
def test_what_comes_in_several_pieces_keeps_them_without_a_word(name):
    assert np.array_equal(wide(cord("cord", "arm"), name)[0], cord("cord", "arm"))
    assert wide(cord("cord", "arm"), name)[1] == ()


def test_a_far_piece_of_an_organ_that_the_cohort_does_not_know_is_kept_and_told():
    kept, done = wide(cord("cord", "arm"), "Glnd_Thyroid")
    assert np.array_equal(kept, cord("cord", "arm"))
    assert told(done) == ("kept 4.21 cc of Glnd_Thyroid 14 cm away from the rest: in how many pieces it comes is not known",)
    assert not done[0].warns


def test_pieces_are_kept_where_that_was_asked_for():
    assert np.array_equal(wide(cord("cord", "arm"), "SpinalCord", pieces=0)[0], cord("cord", "arm"))


def test_of_two_equal_pieces_one_is_the_largest():
    kept, _ = one(block((0, 2), (0, 2), (0, 2)) | block((5, 7), (0, 2), (0, 2)), pieces=1)
    assert kept.sum() == 8


def test_pieces_that_touch_at_a_corner_are_one():
    mask = block((0, 2), (0, 2), (0, 2)) | block((2, 3), (2, 3), (2, 3))
    assert np.array_equal(one(mask, pieces=1)[0], mask)


@pytest.mark.parametrize("pieces", [0.2, 1])
def test_a_second_node_stays_and_crumbs_of_a_target_go(pieces):
    large, node = block((0, 5), (0, 10), (0, 10)), block((7, 9), (12, 18), (12, 18))  # 1.5 cc, and 72 voxels: 0.216 cc
    crumb = block((7, 9), (0, 5), (0, 6))  # 60 voxels: 0.18 cc
    for name in ("GTVn", "CTV_5600", "PTV"):
        kept, done = one(large | node | crumb, name, pieces=pieces)
        assert np.array_equal(kept, large | node)
        assert done == (f"{name}: small pieces dropped (-0.18 cc)",)
    kept, done = one(large | node | crumb, pieces=pieces)
    assert np.array_equal(kept, large)
    assert done == ("Organ: small pieces dropped (-0.40 cc)",)


@pytest.mark.parametrize("name", ["Lungs", "Bowel_Small", "Kidneys", "LN_Neck_II_L"])
def test_what_is_several_by_name_keeps_its_smaller_pieces(name):
    """A collapsed lung of 0.22 cc beside one of 1.5 cc, and a crumb of 0.18 cc."""
    large, small, crumb = block((0, 5), (0, 10), (0, 10)), block((7, 9), (12, 18), (12, 18)), block((7, 9), (0, 5), (0, 6))
    assert np.array_equal(one(large | small | crumb, name, pieces=0.2)[0], large | small)
    assert np.array_equal(one(large | small | crumb, "Lung_L", pieces=0.2)[0], large)


@pytest.mark.parametrize("holes", ["slices", "volume"])
def test_what_is_hollow_by_name_keeps_its_hole(holes):
    ring = block((0, 10), (2, 14), (2, 14)) & ~block((1, 9), (4, 12), (4, 12))
    for name in ("Bladder_Wall", "RectumWall", "PTV_Ring", "Skin", "vertebrae_L1"):
        assert np.array_equal(one(ring, name, holes=holes)[0], ring)
    for name in ("Bladder", "Larynx_String"):
        assert one(ring, name, holes=holes)[0].sum() == 10 * 12 * 12


def test_a_thin_node_beside_a_larger_one_is_no_sliver():
    large, node = block((0, 10), (0, 10), (0, 10)), block((1, 9), (14, 17), (14, 17))  # 9 mm2 on 8 slices: 0.216 cc
    speck = block((4, 5), (18, 19), (0, 2))
    kept, done = one(large | node | speck, "GTVn", slivers_mm2=10, pieces=0.2)
    assert np.array_equal(kept, large | node)
    assert done == ("GTVn: slivers below 10 mm² dropped (-6 mm³)",)
    assert np.array_equal(one(large | node | speck, slivers_mm2=10)[0], large)


def test_holes_in_slices_and_in_the_volume():
    tube = block((0, 10), (5, 15), (5, 15)) & ~block((0, 10), (8, 12), (8, 12))
    filled, done = one(tube, holes="slices")
    assert np.array_equal(filled, block((0, 10), (5, 15), (5, 15)))
    assert done == ("Organ: holes filled in slices (+0.48 cc)",), "160 voxels of 3 mm3"
    assert np.array_equal(one(tube, holes="volume")[0], tube), "open at both ends: no hole in the volume"
    cave = block((1, 9), (5, 15), (5, 15)) & ~block((4, 6), (8, 12), (8, 12))
    assert np.array_equal(one(cave, holes="volume")[0], block((1, 9), (5, 15), (5, 15)))


def test_a_hole_behind_a_corner_is_closed_as_a_contour_would_close_it():
    ring = block((0, 1), (0, 3), (0, 3)) & ~block((0, 1), (1, 2), (1, 2))
    ring[0, 2, 2] = False  # the gap is diagonal: within 4 neighbours the hole stays closed
    assert one(ring, holes="slices")[0][0, 1, 1]


def test_slivers_go_and_tips_stay():
    organ = block((2, 8), (5, 15), (5, 15))
    speck, tip = block((4, 5), (0, 1), (0, 3)), block((8, 9), (9, 11), (9, 11))
    kept, done = one(organ | speck | tip, slivers_mm2=10)
    assert np.array_equal(kept, organ | tip)
    assert done == ("Organ: slivers below 10 mm² dropped (-9 mm³)",)


def test_a_thin_branch_beside_a_thick_one_is_no_sliver():
    """9 mm2 through four slices of 3 mm beside a branch of 64 mm2; through three it goes."""
    body, thick = block((0, 3), (0, 18), (0, 18)), block((3, 8), (2, 10), (2, 10))
    thin, short = block((3, 7), (14, 17), (14, 17)), block((3, 6), (14, 17), (2, 5))
    assert np.array_equal(one(body | thick | thin | short, slivers_mm2=10)[0], body | thick | thin)


def test_a_thin_structure_is_not_dropped_altogether():
    nerve = block((0, 10), (9, 11), (9, 11))
    assert np.array_equal(one(nerve, slivers_mm2=50)[0], nerve)


def test_smoothing_rounds_and_keeps_the_volume():
    k, j, i = np.indices(GRID.shape)
    rough = ((j - 10) ** 2 + (i - 10) ** 2 < 49) & ((j + i + k) % 7 > 0)
    smooth, _ = one(rough, smooth_mm=1.5, holes="slices")
    assert smooth.sum() == pytest.approx(((j - 10) ** 2 + (i - 10) ** 2 < 49).sum(), rel=0.06)


def test_a_voxel_belongs_to_one_structure():
    a, b = Volume(block((0, 5), (0, 10), (0, 10)), GRID), Volume(block((4, 8), (0, 10), (0, 10)), GRID)
    out, done = tidy({"A": a, "B": b}, Tidy(**{**ONLY, "overlap": "first"}))
    assert not (out["A"].array & out["B"].array).any()
    assert np.array_equal(out["A"].array, a.array)
    assert told(done) == ("B: overlap with structures before it removed (-0.30 cc)",)
    out, _ = tidy({"A": a, "B": b}, Tidy(**{**ONLY, "overlap": "first"}, priority=("B",)))
    assert np.array_equal(out["B"].array, b.array)
    assert out["A"].array.sum() == 400
    assert list(out) == ["A", "B"]


def test_filling_a_hole_takes_no_voxel_from_what_is_inside():
    labels = block((0, 10), (5, 15), (5, 15)).astype(np.uint8)
    labels[:, 7:13, 7:13] = 0
    labels[:, 9:11, 9:11] = 2
    masks, done = tidy(LabelMasks(Volume(labels, GRID), ["Cuff", "Core"]))
    assert masks["Core"].array.sum() == 40
    assert masks["Cuff"].array.sum() == 960
    assert told(done) == ("Cuff: holes filled in slices (+0.96 cc)",)


def test_off_and_empty_change_nothing():
    rng = np.random.default_rng(0)
    noise = Volume(rng.random(GRID.shape) > 0.7, GRID)
    out, done = tidy({"A": noise, "Empty": Volume(np.zeros(GRID.shape, bool), GRID)}, Tidy.off())
    assert np.array_equal(out["A"].array, noise.array)
    assert told(done) == ()
    out, _ = tidy({"Empty": Volume(np.zeros(GRID.shape, bool), GRID)})
    assert out["Empty"].array.sum() == 0
    assert tidy({}) == ({}, ())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), density=st.floats(0.02, 0.9), pieces=st.sampled_from([0.0, 0.3, 1.0]), name=st.sampled_from(["A", "PTV"]))
def test_nothing_is_ever_emptied_and_twice_is_once(seed, density, pieces, name):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 8, 3))
    mask = Volume(rng.random(shape) < density, Geometry.regular(shape, (4, 5, 5)))
    once, _ = tidy({name: mask}, Tidy(pieces=pieces, holes="volume", slivers_mm2=0))
    assert once[name].array.any() == mask.array.any()
    twice, done = tidy(once, Tidy(pieces=pieces, holes="volume", slivers_mm2=0))
    assert np.array_equal(once[name].array, twice[name].array)
    assert [text for text in told(done) if not text.startswith("kept ")] == []


def test_what_cannot_be_is_said():
    for wrong in ({"pieces": 2}, {"slivers_mm2": -1}, {"holes": "all"}, {"overlap": "last"}):
        with pytest.raises(ConfigError):
            Tidy(**wrong)
    a = Volume(block((0, 1), (0, 1), (0, 1)), GRID)
    with pytest.raises(GeometryError, match="'B'"):
        tidy({"A": a, "B": Volume(np.zeros((2, 2, 2), bool), Geometry.regular((2, 2, 2)))})


def bits(**structures):
    plane = sum(mask.astype(np.uint8) << n for n, mask in enumerate(structures.values()))
    return BitMasks(Volume(plane[None], GRID), list(structures))


def test_structures_that_may_overlap_keep_what_they_share():
    inner, outer = block((2, 6), (5, 10), (5, 10)), block((1, 8), (2, 14), (2, 14))
    crumb = block((9, 10), (18, 20), (18, 20))
    after, done = tidy(bits(GTV=inner, PTV=outer | crumb))
    assert isinstance(after, BitMasks)
    assert np.array_equal(after["GTV"].array, inner)
    assert np.array_equal(after["PTV"].array, outer)
    assert told(done) == ("PTV: small pieces dropped (-0.01 cc)",), "4 voxels of 3 mm3"
    assert list(after) == ["GTV", "PTV"]


def test_only_those_whom_priority_names_give_way():
    inner, outer, lung = block((2, 6), (5, 10), (5, 10)), block((1, 8), (2, 14), (2, 14)), block((0, 9), (1, 16), (1, 16))
    after, done = tidy(bits(PTV=outer, GTV=inner, Lung=lung), Tidy(priority=("GTV", "Lung", "Heart")))
    assert np.array_equal(after["Lung"].array, lung & ~inner)
    assert np.array_equal(after["PTV"].array, outer)
    assert np.array_equal(after["GTV"].array, inner)
    assert told(done) == ("Lung: overlap with structures before it removed (-0.30 cc)",), "100 voxels"


def test_a_wall_is_not_filled_with_what_it_surrounds_and_a_hole_is():
    whole, lumen = block((1, 8), (2, 14), (2, 14)), block((1, 8), (5, 10), (5, 10))
    hole = block((3, 4), (3, 4), (3, 4))
    after, done = tidy(bits(Cuff=whole & ~lumen & ~hole, Lumen=lumen, All=whole & ~hole), Tidy(**{**ONLY, "holes": "slices"}))
    assert np.array_equal(after["Cuff"].array, whole & ~lumen)
    assert np.array_equal(after["Lumen"].array, lumen)
    assert np.array_equal(after["All"].array, whole)
    assert [words.split(":")[0] for words in told(done)] == ["Cuff", "All"]
