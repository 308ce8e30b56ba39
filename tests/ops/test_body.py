"""The outline against drawings of known area; the region against every kind of patient there is."""

import numpy as np
import pytest

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io import read
from oncontour.ops.body import REGIONS, Region, body_mask, in_words, is_masked, region, region_of
from oncontour.phantom import head_neck, pelvis

GRID = Geometry.regular((10, 150, 160), (5.0, 2.0, 2.0), (-159.0, -149.0, 0.0))
_, Y, X = np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij")
Y, X = Y * 2.0 - 149, X * 2.0 - 159


def ellipse(a_mm, b_mm, x_mm=0.0, y_mm=0.0):
    return ((X - x_mm) / a_mm) ** 2 + ((Y - y_mm) / b_mm) ** 2 <= 1


def drawing(*, air=-1000.0):
    """A trunk with lungs, on a couch of two skins around foam, an arm's breadth of tube beside it."""
    trunk = ellipse(110, 70)
    ct = np.where(trunk, 20.0, air)
    ct[ellipse(30, 40, -50) | ellipse(30, 40, 50)] = -800.0
    ct[ellipse(8, 8, 0, 10)] = -1000.0
    couch = (np.abs(X) < 140) & (Y > 74) & (Y < 130)
    ct[couch & ~trunk] = -900.0
    ct[couch & ((np.abs(Y - 75) < 2) | (np.abs(Y - 129) < 2)) & ~trunk] = 100.0
    ct[(np.abs(X - 130) < 4) & (np.abs(Y) < 4)] = 60.0
    return ct, trunk


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("air", [-1000.0, -1024.0, -3024.0])
def test_a_trunk_without_its_couch(air):
    ct, trunk = drawing(air=air)
    found = body_mask(Volume(ct.astype(np.int16), GRID))
    assert found.array.dtype == bool
    assert found.geometry == GRID
    assert dice(found.array, trunk) > 0.985
    assert found.array[5, 75, 80 + 25], "lungs are inside"
    assert not found.array[:, 145:, :].any()


def test_lying_prone_or_stored_along_another_axis():
    ct, _ = drawing()
    supine = Volume(ct.astype(np.float32), GRID)
    mask = body_mask(supine)
    sideways = supine.to(GRID.reorient([(1, 0, 0), (0, 0, -1), (0, -1, 0)]))
    assert np.array_equal(body_mask(sideways).to(GRID).array, mask.array)
    prone = Volume(ct[:, ::-1, ::-1], GRID)
    assert dice(body_mask(prone).array, mask.array[:, ::-1, ::-1]) > 0.99


def test_two_legs_and_a_speck():
    legs = ellipse(35, 35, -60) | ellipse(40, 40, 60)
    ct = np.where(legs | ellipse(9, 9, 0, 120), 40.0, -1000.0)
    assert dice(body_mask(Volume(ct, GRID)).array, legs) > 0.97


def test_a_lung_that_the_field_of_view_cuts():
    ct, trunk = drawing()
    half = Volume(ct, GRID).to(GRID.crop((0, 0, 105), (10, 112, 160)))
    inside = Volume(trunk, GRID).to(half.geometry)
    assert dice(body_mask(half).array, inside.array) > 0.97


def test_nothing_there():
    assert not body_mask(Volume(np.full(GRID.shape, -1000, np.int16), GRID)).array.any()
    nowhere = region(Volume(np.full(GRID.shape, -1000, np.int16), GRID))
    assert nowhere.name == "unknown"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5)])
def test_a_single_voxel_or_row_has_no_axis_to_turn(shape):
    """k runs along y: turned so that it runs along z, the grid is the same."""
    grid = Geometry.regular(shape, (1, 1, 1), (0, 0, 0), [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert body_mask(Volume(np.full(shape, 40, np.float32), grid)).geometry is grid


def test_the_outline_is_at_the_images_own_resolution():
    """A 1 mm grid: coarse voxels of 4 mm find the disc, its edge is drawn at 1 mm."""
    grid = Geometry.regular((4, 120, 120))
    j, i = np.indices((120, 120))
    disc = np.broadcast_to((j - 60) ** 2 + (i - 57) ** 2 < 43**2, grid.shape)
    assert np.array_equal(body_mask(Volume(np.where(disc, 0, -1000), grid)).array, disc)


@pytest.mark.parametrize(("make", "name"), [(head_neck, "head_neck"), (pelvis, "abdomen_pelvis")])
def test_the_phantoms(make, name):
    found = region(make(1).ct)
    assert found.name == name, found
    assert found.reasons


@pytest.mark.parametrize(
    ("name", "lung_mm", "excluded"),
    [
        ("head_neck", 0.0, {"thorax", "abdomen_pelvis", "limb"}),
        ("head_neck", 120.0, {"limb"}),  # from the neck to the lungs: the chest is there, and what lies below may be
        ("thorax", 120.0, {"head_neck", "limb"}),
        ("abdomen_pelvis", 0.0, {"head_neck", "thorax"}),  # hips are there
        ("limb", 0.0, {"head_neck", "thorax", "abdomen_pelvis"}),
        ("unknown", 0.0, set()),
    ],
)
def test_only_what_a_ct_plainly_does_not_show_is_excluded(name, lung_mm, excluded):
    seen = Region(name, (), {"lung_mm": lung_mm})
    assert {one for one in REGIONS if seen.excludes(one)} == excluded
    assert not seen.excludes(region_of("the whole body")), "of words that name no region nothing is known"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("head and neck", "head_neck"),
        ("Head & Neck", "head_neck"),
        ("head-neck", "head_neck"),
        ("abdomen and pelvis", "abdomen_pelvis"),
        ("thorax", "thorax"),
        ("", ""),
        ("left elbow", ""),
        ("head-and-neck", "head_neck"),
        ("Head_Neck", "head_neck"),
        ("H&N", "head_neck"),
        ("HN", "head_neck"),
        ("h and n", "head_neck"),
        ("Head, neck", "head_neck"),
        ("Head and neck (adult)", "head_neck"),
        ("brain", "head_neck"),
        ("chest", "thorax"),
        ("Thorax/lung", "thorax"),
        ("pelvis", "abdomen_pelvis"),
        ("pelvis of women", "abdomen_pelvis"),
        ("Abdomen", "abdomen_pelvis"),
        ("abdomen, pelvis", "abdomen_pelvis"),
        ("lower extremities", "limb"),
        ("head and thorax", ""),  # of two regions, and made for both
        ("not the head", ""),
        ("whole body", ""),
        ("header", ""),
        ("whole brain", "head_neck"),
    ],
)
def test_regions_in_words(words, name):
    assert region_of(words) == name
    assert not name or region_of(in_words(name)) == name


HEADS = ["validation/pt_203", "validation/pt_210", "train/pt_76", "train/pt_89", "train/pt_50", "train/pt_1"]
"""pt_203 and pt_89 are masked to scraps, pt_76 has hardly an airway, pt_50 little of a neck: the hardest of the 173."""
OTHERS = {
    "sts-ct-mr/STS_005": "limb",
    "sts-ct-mr/STS_007": "thorax",  # a shoulder: lung is in view
    "sts-ct-mr/STS_013": "limb",
    "sts-ct-mr/STS_029": "limb",
    "sts-ct-mr/STS_036": "limb",
    "pelvis-abdomen-ct": "abdomen_pelvis",
    "lung-ct-pair/3DCT_lung_baseline.mha": "thorax",
    "lung-ct-pair/3DCT_lung_followup.mha": "thorax",
}


def the_ct(path):
    return read(path if path.is_file() else path / "ct.nii.gz").ct


@pytest.mark.parametrize("patient", HEADS)
def test_real_heads_and_necks(data, patient):
    found = region(the_ct(data / "openkbp" / patient))
    assert found.name == "head_neck", found


@pytest.mark.parametrize("patient", OTHERS)
def test_real_patients_elsewhere(data, patient):
    found = region(the_ct(data / patient))
    assert found.name == OTHERS[patient], found


def test_a_real_thorax_from_dicom(data):
    ct = read(data / "dicom" / "LUNG1-001").ct
    found, body = region(ct), body_mask(ct)
    assert found.name == "thorax", found
    assert 25_000 < body.volume_cc < 31_000
    assert not body.array[:, 415:, :].any(), "the top of the couch is at row 412"


def test_a_limb_that_no_border_cuts_is_still_no_neck(data):
    """Air around the cropped limbs takes away the sign that the field of view cuts them."""
    for patient in ("STS_029", "STS_036", "STS_013"):
        ct = the_ct(data / "sts-ct-mr" / patient)
        wide = ct.to(ct.geometry.pad((0, 25, 25), (0, 25, 25)), fill=-1000)
        assert region(wide).name != "head_neck"


def test_a_ct_that_shows_only_a_region_is_told_from_one_that_a_scanner_made():
    ct, _ = drawing()
    noisy = ct + np.random.default_rng(0).normal(0, 12, ct.shape)
    assert not is_masked(Volume(noisy.astype(np.int16), GRID))
    cut = np.where(ellipse(60, 60), noisy, -1024.0)
    assert is_masked(Volume(cut.astype(np.int16), GRID))
    assert not is_masked(Volume(np.full(GRID.shape, 40, np.int16), GRID)), "no air, no mask"


def test_real_scans_are_not_masked_and_openkbp_is(data):
    for folder, masked in (("dicom/LUNG1-001", False), ("ibsi/ct-phantom/dicom", False), ("openkbp/train/pt_1", True)):
        assert is_masked(read(data / folder).ct) is masked, folder
