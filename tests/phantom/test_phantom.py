"""The example data themselves: solids against their formulas, and patients that are plausible, repeatable and right way round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.errors import ConfigError, GeometryError
from oncontour.phantom import (
    Both,
    Box,
    Cylinder,
    Ellipsoid,
    HollowSphere,
    Minus,
    Moved,
    Solid,
    Sphere,
    Straw,
    Torus,
    Tube,
    Union,
    head_neck,
    keyhole,
    pelvis,
)
from tests.core.test_geometry import rotation

GRID = Geometry.regular((60, 60, 60), (1, 1, 1), (-29.5, -29.5, -29.5))
SOLIDS: list[Solid] = [
    Sphere((1.2, -0.7, 0.4), 20),
    Ellipsoid((0, 0, 0), (25, 12, 8)),
    Box((0.3, 0.2, 0.1), (30, 21, 17)),
    Cylinder((0, 0, 0.2), 15, 41),
    Torus((0, 0, 0), 18, 7),
    HollowSphere((0, 0, 0), 22, 13),
    Straw((0, 0, 0), 2, 50, (0.3, 0.2)),
]
SMALL = ((6, 5, 5), 1.0, (32, 48, 48))
HEAD = {"Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "PTV_7000"}
PELVIS = {"Bladder", "Rectum", "Prostate", "Femur_Head_L", "Femur_Head_R", "PTV"}


def name(thing: object) -> str:
    return type(thing).__name__


def area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


# ---- solids


@pytest.mark.parametrize("solid", SOLIDS, ids=name)
def test_coverage_has_the_volume_of_the_formula(solid: Solid) -> None:
    assert solid.coverage(GRID, 6 if isinstance(solid, Straw) else 4).volume_cc * 1000 == pytest.approx(solid.volume_mm3, rel=0.002)


@pytest.mark.parametrize("solid", SOLIDS, ids=name)
def test_sections_have_the_volume_of_the_formula(solid: Solid) -> None:
    """Cavalieri: areas of thin sections times their distance; a hole is the smaller of two polygons in one plane."""
    step, total = 0.1, 0.0
    for z in np.arange(-30, 30, step) + step / 2:
        areas = sorted((abs(area(p)) for p in solid.contours_at(float(z))), reverse=True)
        total += step * (areas[0] - sum(areas[1:])) if areas else 0
    assert total == pytest.approx(solid.volume_mm3, rel=0.002)


@pytest.mark.parametrize("solid", SOLIDS, ids=name)
def test_contours_lie_on_the_surface(solid: Solid) -> None:
    contours = solid.contours(np.arange(-29, 30, 1.3))
    assert len(contours) > 5
    for polygon in contours:
        middle = polygon.mean(axis=0)
        out, inward = middle + (polygon - middle) * [1.001, 1.001, 1], middle + (polygon - middle) * [0.999, 0.999, 1]
        assert (solid.inside(out) ^ solid.inside(inward)).all()


@pytest.mark.parametrize("solid", SOLIDS, ids=name)
def test_boxes_hold_all_of_it(solid: Solid) -> None:
    points = np.random.default_rng(0).uniform(-30, 30, (20000, 3))
    low, high = solid.box_mm
    assert ((points[solid.inside(points)] >= low) & (points[solid.inside(points)] <= high)).all()


def test_mask_is_coverage_cut_at_one_half() -> None:
    ball = SOLIDS[0]
    assert np.array_equal(ball.mask(GRID, 2).array, ball.coverage(GRID, 2).array >= 0.5)
    assert not ball.coverage(Geometry.regular((4, 4, 4), origin_mm=(500, 0, 0))).array.any()


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-5, 5)] * 3))
def test_moved_solids_keep_their_volume_on_any_grid(angles: tuple[float, float, float], shift: tuple[float, float, float]) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation(angles), shift
    coarse = Geometry.regular((30, 30, 30), (2, 2, 2), (-29, -29, -29))
    assert Moved(Ellipsoid((0, 0, 0), (18, 12, 8)), affine).coverage(coarse).volume_cc == pytest.approx(
        4 / 3 * np.pi * 18 * 12 * 8 / 1000, rel=0.005
    )


def test_combined_shapes() -> None:
    a, b = Box((0, 0, 0), (20, 20, 20)), Box((10, 0, 0), (20, 20, 20))
    for shape, cc in ((Union((a, b)), 12), (Both(a, b), 4), (Minus(a, b), 4), (Both(a, Box((40, 0, 0))), 0)):
        assert shape.coverage(GRID, 2).volume_cc == pytest.approx(cc, rel=1e-6)
    pill = Tube(((0, 0, -10), (0, 0, 10)), (8,))
    assert pill.coverage(GRID).volume_cc * 1000 == pytest.approx(np.pi * 64 * 20 + 4 / 3 * np.pi * 512, rel=0.004)


def test_keyhole_is_outer_less_inner() -> None:
    for outer, inner in (HollowSphere((3, -4, 0), 20, 11).contours_at(2.0), Torus((3, 4, 0)).contours_at(1.0)[:2]):
        for hole in (inner, inner[::-1]):
            ring = keyhole(outer, hole)
            assert abs(area(ring)) == pytest.approx(abs(area(outer)) - abs(area(inner)), rel=1e-9)
            assert len(ring) == len(outer) + len(inner) + 2


# ---- patients


@pytest.mark.parametrize(("make", "organs"), [(head_neck, HEAD), (pelvis, PELVIS)], ids=["head_neck", "pelvis"])
def test_patients_have_every_organ_of_plausible_size(make, organs) -> None:  # type: ignore[no-untyped-def]
    for seed in range(3):
        case = make(seed, (5, 5, 5))
        assert set(case.masks) == organs
        body = case.ct.array > -500
        for organ, mask in case.masks.items():
            assert 3 < mask.volume_cc < 400, organ
            least = 0.2 if organ in ("Larynx", "Rectum") else 0.8  # these two hold air
            assert (mask.array & body).sum() > least * mask.array.sum(), organ
        assert case.ct.array.dtype == np.float32
        assert -1024 <= case.ct.array.min() < -900
        assert 200 < case.ct.array.max() <= 3071


def test_left_is_left() -> None:
    """+x is the patient's left in LPS; so is the mean x of whatever ends in _L."""
    for seed in range(3):
        for case in (head_neck(seed, *SMALL), pelvis(seed, (7, 7, 7))):
            for organ in (n for n in case.masks if n.endswith("_L")):
                left, right = (case.geometry.points(np.argwhere(case.masks[n].array))[:, 0].mean() for n in (organ, organ[:-1] + "R"))
                assert left > right + 40


def test_dose_is_prescribed_to_the_target_and_falls_away() -> None:
    for case, target in ((head_neck(1, (5, 5, 5)), "PTV_7000"), (pelvis(1, (5, 5, 5)), "PTV")):
        dose, ptv = case.images["dose"], case.masks[target].array
        prescription = case.facts["prescription_gy"]
        assert dose.geometry == case.geometry
        assert dose.array[ptv].mean() == pytest.approx(prescription, rel=0.03)
        assert np.percentile(dose.array[ptv], 5) > 0.9 * prescription
        assert dose.array.max() < 1.1 * prescription
        assert 0 < dose.array[~ptv & (case.ct.array > -500)].mean() < 0.3 * prescription
        assert (dose.array[0, 0] == 0).all()


def test_same_seed_same_bits_another_seed_another_patient() -> None:
    one, two, other = head_neck(3, *SMALL), head_neck(3, *SMALL), head_neck(4, *SMALL)
    assert np.array_equal(one.ct.array, two.ct.array)
    assert np.array_equal(one.images["dose"].array, two.images["dose"].array)
    both = (one.masks["Larynx"].array & other.masks["Larynx"].array).sum()
    assert both < 0.95 * one.masks["Larynx"].array.sum()
    assert one.id != other.id


def test_without_jitter_patients_differ_by_noise_and_side_alone() -> None:
    one, other = head_neck(3, *SMALL[:1], 0.0, SMALL[2]), head_neck(4, *SMALL[:1], 0.0, SMALL[2])
    assert np.array_equal(one.masks["Larynx"].array, other.masks["Larynx"].array)
    assert not np.array_equal(one.ct.array, other.ct.array)


def test_a_threshold_does_not_find_the_organs() -> None:
    """The best HU window for an organ finds mostly something else."""
    case = head_neck(2, (5, 5, 5))
    for organ in ("Brainstem", "Parotid_L", "SpinalCord", "Esophagus"):
        truth = case.masks[organ].array
        low, high = np.percentile(case.ct.array[truth], (5, 95))
        found = (case.ct.array >= low) & (case.ct.array <= high)
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) < 0.3, organ


def test_the_grid_is_the_one_asked_for() -> None:
    case = pelvis(0, (5, 4, 3), shape=(20, 30, 40))
    assert case.geometry.shape == (20, 30, 40)
    assert case.geometry.spacing_mm == pytest.approx((5, 4, 3))
    assert np.allclose(case.geometry.centre_mm, (0, 5, 0))
    with pytest.raises(ConfigError, match="three positive millimetres"):
        head_neck(0, (0, 1, 1))
    with pytest.raises(GeometryError):
        head_neck(0, shape=(0, 4, 4))
