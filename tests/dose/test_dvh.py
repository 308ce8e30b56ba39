"""DVHs against a pencil: solids whose volume above a dose is known in closed form, however small, wherever the grids lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH, dvh, eqd2_gy, together
from oncontour.dose.field import cut_square
from oncontour.errors import ConfigError, DoseError, StructureError
from oncontour.phantom import Cylinder, Sphere

Floats = NDArray[np.float64]
Field = Callable[[Floats], Floats]
Above = Callable[[float], float]
PI = float(np.pi)
EXACT = 1e-3
"""0.1 % of volume and of dose."""
CENTRE = np.array([1.3, -2.7, 3.1])
LOW, HIGH = 60.0, 70.0
SPACINGS = (1.0, 2.5, 4.0)


# ---- the pencil: mm^3 of a solid where a coordinate is at most so much


def ball_below(t: float, r: float) -> float:
    """Of a ball of radius r, the part with x <= t."""
    t = min(max(t, -r), r)
    return PI * (t + r) ** 2 * (2 * r - t) / 3


def disc_below(t: float, r: float) -> float:
    """Of a disc of radius r, the area with x <= t."""
    t = min(max(t, -r), r)
    return r * r * (PI - np.arccos(t / r)) + t * np.sqrt(r * r - t * t)


def cone_below(t: float, r: float, h: float) -> float:
    """Of a cone on a base of radius r at z = 0 with its tip at h, the part with z <= t."""
    t = min(max(t, 0), h)
    return PI * r * r * h / 3 * (1 - (1 - t / h) ** 3)


def cone_within(s: float, r: float, h: float) -> float:
    """Of that cone, the part within s of its axis."""
    s = min(max(s, 0), r)
    return PI * s * s * h * (1 - s / r) + PI * s**3 * h / r / 3


@dataclass(frozen=True)
class Known:
    """Contours, the dose as a function of the patient point, and the cc above a dose in closed form."""

    contours: Contours
    field: Field
    above: Above
    cc: float
    low: float = LOW
    high: float = HIGH
    steps: bool = False
    """Whether contours draw it in steps: a ball or a cone by discs, whose corners stand out and are cut short."""


def rising(t: float) -> float:
    """Dose at t in 0..1, along a line."""
    return LOW + (HIGH - LOW) * t


def unit(gy: float) -> float:
    """The t that has this dose."""
    return (gy - LOW) / (HIGH - LOW)


def bowl(gy: float) -> float:
    """The t that has this dose where it rises with t squared."""
    return float(np.sqrt(max(unit(gy), 0)))


def planes(low: float, high: float, count: int) -> Floats:
    """Middles of ``count`` equal slabs between low and high."""
    return low + (np.arange(count) + 0.5) * (high - low) / count


def towards(direction: tuple[float, float, float], reach: float) -> Field:
    """LOW to HIGH from -reach to reach along a direction through CENTRE."""
    d = np.array(direction) / np.linalg.norm(direction)
    return lambda p: rising(((p - CENTRE) @ d / reach + 1) / 2)


def sphere_linear(cc: float, direction: tuple[float, float, float] = (1, 0, 0), count: int = 100) -> Known:
    r = (cc * 1000 * 3 / 4 / PI) ** (1 / 3)
    contours = Sphere(tuple(CENTRE), r).contours(planes(CENTRE[2] - r, CENTRE[2] + r, count), 720)
    return Known(
        contours, towards(direction, r), lambda gy: (4 / 3 * PI * r**3 - ball_below((2 * unit(gy) - 1) * r, r)) / 1000, cc, steps=True
    )


def sphere_bowl(cc: float) -> Known:
    """65 Gy in the centre, 70 Gy all over the surface, where it rises by 3.5 Gy a mm for 0.1 cc: the steps of the discs show the most."""
    one = sphere_linear(cc, count=100 if cc < 1 else 250)
    r, low = (cc * 1000 * 3 / 4 / PI) ** (1 / 3), (LOW + HIGH) / 2

    def field(p: Floats) -> Floats:
        return low + (HIGH - low) * ((p - CENTRE) ** 2).sum(-1) / r**2

    return Known(one.contours, field, lambda gy: cc * (1 - min(max((gy - low) / (HIGH - low), 0), 1) ** 1.5), cc, low, steps=True)


def sphere_valley(cc: float) -> Known:
    """Quadratic along one oblique direction alone: 50 Gy in the middle plane, 70 Gy at both poles."""
    one = sphere_linear(cc)
    r = (cc * 1000 * 3 / 4 / PI) ** (1 / 3)
    d = np.array([0.6, 0.64, 0.48])
    return Known(
        one.contours, lambda p: rising(((p - CENTRE) @ d / r) ** 2), lambda gy: 2 * ball_below(-bowl(gy) * r, r) / 1000, cc, steps=True
    )


def cylinder(cc: float, field: str, count: int = 5) -> Known:
    """As high as wide. Its slabs fill it whatever their number: clinical ones here."""
    r = (cc * 1000 / 2 / PI) ** (1 / 3)
    contours = Cylinder(tuple(CENTRE), r, 2 * r).contours(planes(CENTRE[2] - r, CENTRE[2] + r, count), 720)
    away: dict[str, tuple[Field, Above]] = {
        "along": (towards((0, 0, 1), r), lambda gy: cc * (1 - min(max(unit(gy), 0), 1))),
        "across": (towards((1, 0, 0), r), lambda gy: (PI * r * r - disc_below((2 * unit(gy) - 1) * r, r)) * 2 * r / 1000),
        "bowl": (lambda p: rising(((p - CENTRE)[..., :2] ** 2).sum(-1) / r**2), lambda gy: cc * (1 - bowl(gy) ** 2)),
        "valley": (lambda p: rising(((p - CENTRE)[..., 2] / r) ** 2), lambda gy: cc * (1 - bowl(gy))),
    }
    return Known(contours, *away[field], cc)


def cone(cc: float, field: str, count: int = 100) -> Known:
    """As high as its base is wide."""
    r = (cc * 1000 * 3 / 2 / PI) ** (1 / 3)
    h = 2 * r
    base = CENTRE[2] - r
    polygons = []
    for z in planes(base, base + h, count):
        polygons += Cylinder((CENTRE[0], CENTRE[1], z), r * (1 - (z - base) / h), 1.0).contours_at(z, 720)
    away: dict[str, tuple[Field, Above]] = {
        "along": (towards((0, 0, 1), r), lambda gy: cc - cone_below(unit(gy) * h, r, h) / 1000),
        "bowl": (lambda p: rising(((p - CENTRE)[..., :2] ** 2).sum(-1) / r**2), lambda gy: cc - cone_within(bowl(gy) * r, r, h) / 1000),
    }
    return Known(Contours(tuple(polygons)), *away[field], cc, steps=True)


def sampled(field: Field, spacing: float, reach: float, axes: Floats | None = None) -> Volume:
    """The dose on a grid of ``spacing`` mm that lies off everything."""
    count = int(2 * reach / spacing) + 8
    grid = Geometry.regular((count,) * 3, (spacing,) * 3, (0, 0, 0), axes)
    grid = Geometry.regular((count,) * 3, (spacing,) * 3, CENTRE - grid.centre_mm + spacing * np.array([0.37, 0.21, 0.43]), axes)
    return Volume(field(grid.points(np.stack(np.indices(grid.shape), axis=-1))).astype(np.float32), grid)


def reach_of(known: Known) -> float:
    return float(np.abs(np.concatenate(known.contours.polygons) - CENTRE).max())


def dose_to(known: Known, cc: float) -> float:
    """The pencil's D at a volume."""
    return float(brentq(lambda gy: known.above(gy) - cc, known.low, known.high))


def agrees(one: DVH, known: Known) -> None:
    """Volume, every D, every V, and the whole curve within 0.1 % of volume and of dose."""
    assert one.volume_cc == pytest.approx(known.cc, rel=EXACT)
    assert one.missing_cc == 0
    for percent in (98, 95, 50, 5, 2):
        assert one.dose_to_percent(percent) == pytest.approx(dose_to(known, percent / 100 * known.cc), rel=EXACT), f"D{percent}%"
    assert one.dose_to_cc(0.03) == pytest.approx(dose_to(known, 0.03), rel=EXACT)
    for part in (0.1, 0.25, 0.5, 0.75, 0.9):
        gy = known.low + part * (known.high - known.low)
        assert one.cc_above(gy) == pytest.approx(known.above(gy), abs=EXACT * known.cc), f"V{gy:g}Gy"
    for gy in np.linspace(known.low, known.high, 81):
        slack = EXACT * known.high
        assert known.above(gy + slack) - EXACT * known.cc <= one.cc_above(gy) <= known.above(gy - slack) + EXACT * known.cc
    grid = np.linspace(known.low, known.high, 4001)
    mean = known.low + np.trapezoid([known.above(gy) for gy in grid], grid) / known.cc
    assert one.mean_gy == pytest.approx(mean, rel=EXACT)
    extremes = 5 * EXACT if known.steps else 0.1 * EXACT
    assert one.min_gy == pytest.approx(known.low, rel=extremes)
    assert one.max_gy == pytest.approx(known.high, rel=extremes)


# ---- acceptance: exact down to 0.1 cc, dose grids of 1 to 4 mm, linear and quadratic dose

SOLIDS: dict[str, Callable[[float], Known]] = {
    "sphere, linear along x": sphere_linear,
    "sphere, linear along z": lambda cc: sphere_linear(cc, (0, 0, 1)),
    "sphere, linear obliquely": lambda cc: sphere_linear(cc, (0.5, -0.7, 0.4)),
    "sphere, quadratic from its centre": sphere_bowl,
    "sphere, quadratic along an oblique line": sphere_valley,
    "cylinder, linear along": lambda cc: cylinder(cc, "along"),
    "cylinder, linear across": lambda cc: cylinder(cc, "across"),
    "cylinder, quadratic from its axis": lambda cc: cylinder(cc, "bowl"),
    "cylinder, quadratic along": lambda cc: cylinder(cc, "valley"),
    "cone, linear along": lambda cc: cone(cc, "along"),
    "cone, quadratic from its axis": lambda cc: cone(cc, "bowl"),
}


@pytest.mark.parametrize("cc", [0.1, 20.0])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solid", SOLIDS)
def test_exact(solid: str, spacing: float, cc: float) -> None:
    known = SOLIDS[solid](cc)
    agrees(dvh(sampled(known.field, spacing, reach_of(known)), known.contours), known)


@pytest.mark.parametrize("solid", ["sphere, linear obliquely", "cylinder, quadratic from its axis"])
def test_exact_on_an_oblique_dose_grid(solid: str) -> None:
    known = SOLIDS[solid](0.1)
    axes = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()
    agrees(dvh(sampled(known.field, 2.5, 2 * reach_of(known), axes), known.contours), known)


@pytest.mark.parametrize(("steep", "flat"), [(1.0, 0.0), (1.0, 0.3), (1.0, 1.0), (0.7, 0.69)])
@pytest.mark.parametrize("area", [0.01, 0.2, 0.5, 0.8, 0.99])
def test_what_a_line_cuts_off_a_square(area: float, steep: float, flat: float) -> None:
    """Middle and spread against counting points of a fine net, ordered along the line's normal."""
    at = (np.stack(np.meshgrid(np.arange(1000), np.arange(1000)), axis=-1).reshape(-1, 2) + 0.5) / 1000
    held = at[np.argsort(at @ (steep, flat), kind="stable")[: round(area * len(at))]]
    found = cut_square(area, steep, flat)
    assert found[:2] == pytest.approx(held.mean(axis=0), abs=5e-4)
    assert found[2:] == pytest.approx(np.sqrt(12 * held.var(axis=0)), abs=2e-3)


@pytest.mark.parametrize("cc", [0.1, 1.0])
@pytest.mark.parametrize("shape", ["ball", "cylinder", "cone"])
def test_the_curve_of_discs_is_exact_at_every_dose(shape: str, cc: float) -> None:
    """A stack of five discs in a dose that rises quadratically from their middle: no dose at which more than 0.1 % of the volume is wrong.

    For the ball the outline nearly is an isodose. Volume within s of the middle: discs cut by a ball, summed up in thin slices.
    """
    r = (cc * {"ball": 750, "cylinder": 500, "cone": 1500}[shape] / PI) ** (1 / 3)
    z = planes(-r, r, 5)
    radius = {"ball": np.sqrt(r * r - z * z), "cylinder": np.full(5, r), "cone": r * (r - z) / (2 * r)}[shape]
    drawn = [
        Cylinder((CENTRE[0], CENTRE[1], CENTRE[2] + h), a, 1.0).contours_at(CENTRE[2] + h, 720) for h, a in zip(z, radius, strict=True)
    ]
    far = float(np.sqrt(radius**2 + (np.abs(z) + r / 5) ** 2).max())
    dose = sampled(lambda p: rising(((p - CENTRE) ** 2).sum(-1) / far**2), 2.5, far)
    one = dvh(dose, Contours(tuple(p for polygons in drawn for p in polygons)))
    heights = (z[:, None] + (np.arange(4000) + 0.5) / 4000 * 2 * r / 5 - r / 5, 2 * r / 5 / 4000)
    whole = float(2 * r / 5 * PI * (radius**2).sum()) / 1000
    assert one.volume_cc == pytest.approx(whole, rel=2e-4)
    for gy in np.linspace(LOW, HIGH, 101):
        section = np.clip(unit(gy) * far**2 - heights[0] ** 2, 0, radius[:, None] ** 2)
        assert one.cc_above(gy) == pytest.approx(whole - PI * section.sum() * heights[1] / 1000, abs=EXACT * whole), gy


@pytest.mark.parametrize("along", ["x", "z"])
@pytest.mark.parametrize(("cc", "slab"), [(0.1, 2.0), (0.5, 3.0), (30.0, 3.0)])
def test_slabs_of_clinical_thickness(cc: float, slab: float, along: str) -> None:
    """What contours on slices 2 or 3 mm apart enclose is a stack of discs: known in closed form too, and exact."""
    r = (cc * 1000 * 3 / 4 / PI) ** (1 / 3)
    at = CENTRE[2] + np.arange(-20, 21) * slab + 0.3
    drawn = Sphere(tuple(CENTRE), r).contours(at, 720)
    radii = [np.sqrt(r * r - (z - CENTRE[2]) ** 2) for z in at if abs(z - CENTRE[2]) < r]
    feet = [z - slab / 2 - CENTRE[2] for z in at if abs(z - CENTRE[2]) < r]
    total = sum(PI * q * q * slab for q in radii) / 1000
    if along == "x":

        def above(gy: float) -> float:
            x = (2 * unit(gy) - 1) * r
            return sum((PI * q * q - disc_below(x, q)) * slab for q in radii) / 1000

        known = Known(drawn, towards((1, 0, 0), r), above, total, rising((1 - max(radii) / r) / 2), rising((1 + max(radii) / r) / 2))
    else:

        def above(gy: float) -> float:
            z = (2 * unit(gy) - 1) * r
            return sum(PI * q * q * min(max(foot + slab - z, 0), slab) for q, foot in zip(radii, feet, strict=True)) / 1000

        low, high = rising((min(feet) / r + 1) / 2), rising(((max(feet) + slab) / r + 1) / 2)
        known = Known(drawn, towards((0, 0, 1), r), above, total, low, high)
    agrees(dvh(sampled(known.field, 2.5, r + slab), drawn), known)


def test_slices_and_slabs_are_as_in_the_rasteriser() -> None:
    """One plane alone: as thick as its slices are apart, as it is told, or as the dose grid's step."""
    (polygon,) = Cylinder(tuple(CENTRE), 5.0, 10.0).contours_at(CENTRE[2], 720)
    dose = sampled(lambda p: np.full(p.shape[:-1], 60.0), 2.5, 12)
    origins = CENTRE + np.array([[0, 0, 3.0 * n] for n in range(-2, 3)])
    slices = Slices(origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1.0, 1.0), (64, 64))
    for thick, one in (
        (2.5, dvh(dose, Contours((polygon,)))),
        (1.5, dvh(dose, Contours((polygon,)), slab_mm=1.5)),
        (3.0, dvh(dose, Contours((polygon,)), slices=slices)),
        (3.0, dvh(dose, Contours((polygon,), slices=slices))),
    ):
        assert one.volume_cc == pytest.approx(PI * 25 * thick / 1000, rel=EXACT)


def test_holes_are_left_out() -> None:
    at = planes(CENTRE[2] - 5, CENTRE[2] + 5, 5)
    outer, inner = (Cylinder(tuple(CENTRE), r, 10.0).contours(at, 720) for r in (8.0, 5.0))
    ring = Contours((*outer.polygons, *inner.polygons))
    one = dvh(sampled(lambda p: rising(((p - CENTRE)[..., :2] ** 2).sum(-1) / 64), 2.5, 10), ring)
    assert one.volume_cc == pytest.approx(PI * (64 - 25) * 10 / 1000, rel=EXACT)
    assert one.min_gy == pytest.approx(rising(25 / 64), rel=EXACT)
    assert pytest.approx(rising((64 + 25) / 2 / 64), rel=EXACT) == one.D50


# ---- masks


def block() -> tuple[Volume, Known]:
    """Eight by six by ten voxels of a mask: 8 x 6 x 10 mm, dose rising along x."""
    grid = Geometry.regular((9, 12, 14), (2.0, 1.0, 0.5), (-3.3, 2.2, 0.7))
    array = np.zeros(grid.shape, bool)
    array[2:6, 3:9, 2:12] = True
    middle = grid.points([3.5, 5.5, 6.5])
    known = Known(Contours(), lambda p: rising((p[..., 0] - middle[0]) / 5 + 0.5), lambda gy: 0.24 * (1 - unit(gy)), 0.24)
    return Volume(array, grid), known


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_mask_is_its_voxels(spacing: float) -> None:
    mask, known = block()
    agrees(dvh(sampled(known.field, spacing, 30), mask), known)


def test_a_mask_of_one_voxel() -> None:
    mask, known = block()
    array = np.zeros_like(mask.array)
    array[3, 5, 6] = True
    one = dvh(sampled(known.field, 4.0, 30), Volume(array, mask.geometry))
    assert one.volume_cc == pytest.approx(1e-3)
    assert one.max_gy - one.min_gy == pytest.approx((HIGH - LOW) * 0.5 / 5, rel=1e-3)


def test_partial_coverage_counts_in_part() -> None:
    mask, known = block()
    half = dvh(sampled(known.field, 2.5, 30), Volume(mask.array * np.float32(0.5), mask.geometry))
    assert half.volume_cc == pytest.approx(0.12)
    assert pytest.approx(rising(0.5), rel=EXACT) == half.D50


def test_a_ball_as_fine_coverage() -> None:
    known = sphere_linear(0.1, (0.5, -0.7, 0.4))
    r = reach_of(known)
    grid = Geometry.regular((51, 51, 51), (0.12,) * 3, CENTRE - 25.3 * 0.12)
    assert r < 25 * 0.12
    agrees(dvh(sampled(known.field, 2.5, 10), Sphere(tuple(CENTRE), r).coverage(grid)), known)


# ---- between the points of the dose grid


def test_curvature_is_followed_and_trilinear_is_on_offer() -> None:
    """D = a x^2 on a grid of h: trilinear is too high by a h^2 / 6 on average; the default is exact."""
    known = cylinder(20.0, "bowl")
    r = reach_of(known)
    dose = sampled(known.field, 4.0, r)
    mean = rising(0.5)
    assert dvh(dose, known.contours).mean_gy == pytest.approx(mean, rel=1e-4)
    high = dvh(dose, known.contours, curved=False).mean_gy - mean
    assert high == pytest.approx(2 * (HIGH - LOW) / r**2 * 16 / 6, rel=0.05)


def test_a_cliff_does_not_ring() -> None:
    """A dose cut off from one point to the next (a mask, the edge of what was computed) is trilinear there."""
    dose = sampled(lambda p: np.where(p[..., 0] > CENTRE[0], 70.0, 0.0), 2.5, 20)
    one = dvh(dose, Sphere(tuple(CENTRE), 10.0).contours(planes(CENTRE[2] - 10, CENTRE[2] + 10, 20)))
    assert (one.min_gy, one.max_gy) == (0, 70)
    assert one["V70Gy"] + 100 - one["V0.1Gy"] == pytest.approx(100 - 75 * 2.5 / 10, abs=3)  # a slab of 2.5 mm through the middle


def test_uniform_dose() -> None:
    one = dvh(sampled(lambda p: np.full(p.shape[:-1], 70.0), 2.5, 12), cylinder(1.0, "along").contours, name="x")
    assert one.min_gy == one.mean_gy == one.max_gy == one.D95 == one.D2 == 70
    assert one["V70Gy"] == 100
    assert one["V70.001Gy"] == 0
    assert one.geud_gy(8) == pytest.approx(70)


def test_half_at_the_highest_dose() -> None:
    """A plateau at the maximum belongs to V(maximum)."""
    dose = sampled(lambda p: np.minimum(rising((p - CENTRE)[..., 2] / 5 + 1), 70.0), 1.0, 10)
    one = dvh(dose, Cylinder(tuple(CENTRE), 3.0, 10.0).contours(planes(CENTRE[2] - 5, CENTRE[2] + 5, 5)))
    assert 40 <= one["V70Gy"] <= 50  # the grid rounds the kink by up to its step of 1 mm
    assert one.D10 == 70


# ---- beyond the dose


def half_covered() -> DVH:
    """A cylinder of 10 mm of which the lower 5 mm lie below the dose grid."""
    known = cylinder(2 * PI * 125 / 1000, "along")
    whole = sampled(known.field, 1.0, 10)
    start = int(np.ceil(float(whole.geometry.voxels(CENTRE)[0]) - 0.5))
    grid = whole.geometry.crop((start, 0, 0), whole.geometry.shape)
    below = float(grid.points([-0.5, 0, 0])[2] - CENTRE[2])
    one = dvh(Volume(whole.array[start:], grid), known.contours, name="SpinalCord")
    assert one.missing_cc == pytest.approx(PI * 25 * (5 + below) / 1000, rel=0.02)
    return one


def test_a_part_without_dose_is_said_and_left_out() -> None:
    one = half_covered()
    assert one.volume_cc == pytest.approx(0.785, rel=1e-3)
    assert one.min_gy == pytest.approx(65, abs=1.1)
    assert one["V63Gy"] == 100
    assert one.note
    assert "of SpinalCord" in one.note
    assert "outside the dose grid" in one.note


def test_all_outside_and_nothing_at_all_are_not_the_same() -> None:
    dose = sampled(lambda p: np.full(p.shape[:-1], 2.0), 2.5, 12)
    far = Sphere((300.0, 0.0, 0.0), 5.0).contours(np.arange(-5.0, 5.0))
    outside, nothing = dvh(dose, far, name="A"), dvh(dose, Contours(), name="B")
    empty = dvh(dose, Volume(np.zeros(dose.geometry.shape, bool), dose.geometry), name="C")
    assert outside.volume_cc == pytest.approx(PI * sum(25 - z * z for z in range(-4, 5)) / 1000, rel=EXACT)
    assert outside.note == "A lies outside the dose grid, all of its 0.52 cc: it has no dose figures"
    assert nothing.volume_cc == empty.volume_cc == 0
    assert nothing.note == "B is empty: it has no dose figures"
    for one in (outside, nothing, empty):
        assert np.isnan([one.mean_gy, one.max_gy, one.D95, one["D2cc"], one["V20Gy"], one["V20Gy[cc]"], one.geud_gy(2)]).all()
        assert len(one.differential()[1]) == 0


def test_only_a_dose_is_a_dose() -> None:
    known = cylinder(1.0, "along")
    dose = sampled(known.field, 2.5, 12)
    for wrong, says in ((np.nan, "NaN or infinite, the first at"), (-0.1, "negative dose, down to -0.1 Gy")):
        array = np.array(dose.array)
        array[tuple(n // 2 for n in array.shape)] = wrong
        with pytest.raises(DoseError, match=says):
            dvh(Volume(array, dose.geometry), known.contours, name="Lens_L")
    with pytest.raises(DoseError, match="three axes"):
        dvh(Volume(np.array(dose.array)[None], dose.geometry), known.contours)


def test_only_a_mask_is_a_mask() -> None:
    mask, known = block()
    dose = sampled(known.field, 2.5, 30)
    for wrong in (2.0, -1.0, np.nan):
        with pytest.raises(StructureError, match="coverage from 0 to 1"):
            dvh(dose, Volume(np.where(mask.array, np.float32(wrong), np.float32(0)), mask.geometry))
    with pytest.raises(StructureError, match="three axes"):
        dvh(dose, Volume(mask.array[None], mask.geometry))


# ---- reading one


def two_halves() -> DVH:
    """1 cc at 10 Gy, 1 cc at 30 Gy."""
    return DVH("x", np.array([10, 10, 30, 30]), np.array([2, 1, 1, 1]), 20.0)


def test_figures_of_a_line() -> None:
    """4 cc spread evenly over 20 to 60 Gy."""
    one = DVH("x", np.array([20.0, 60.0]), np.array([4.0, 0.0]), 40.0)
    expected = {"D95%": 22, "D95": 22, "D1cc": 50, "D4cc": 20, "V30Gy": 75, "V30": 75, "V30Gy[cc]": 3, "V3000cGy": 75, "CV30Gy[cc]": 1}
    expected |= {"DC1cc": 30, "DC25%": 30, "Dmean": 40, "Dmin": 20, "Dmax": 60, "Dmedian": 40, "Dnearmax": 59.2, "D0%": 60, "D100%": 20}
    expected |= {"V10Gy": 100, "V60Gy": 0, "V80Gy": 0, "CV80Gy": 100}
    assert {name: pytest.approx(one[name]) for name in expected} == expected
    assert one.figure("V50%", 80) == pytest.approx(50)
    assert one.figure("D50%[%]", 80) == pytest.approx(50)
    assert (one.D95, one.V30Gy, one.D2cc) == pytest.approx((22, 75, 40))
    assert np.isnan(one["D5cc"])  # smaller than 5 cc
    with pytest.raises(ConfigError, match="percent of the prescription"):
        one["V95%"]
    with pytest.raises(AttributeError, match="no figure"):
        _ = one.Dose


def test_geud() -> None:
    one = two_halves()
    assert one.geud_gy(1) == pytest.approx(20)
    assert one.geud_gy(2) == pytest.approx(np.sqrt(500))
    assert one.geud_gy(-1) == pytest.approx(15)
    assert one.geud_gy(0) == pytest.approx(np.sqrt(300))
    assert one.geud_gy(500) == pytest.approx(30 * 0.5 ** (1 / 500))
    assert (one.geud_gy(np.inf), one.geud_gy(-np.inf)) == (30, 10)
    assert DVH("x", np.array([0, 0, 30, 30]), np.array([2, 1, 1, 1]), 15.0).geud_gy(-10) == 0


def test_eqd2_and_bed() -> None:
    """60 Gy in 20: 72 Gy EQD2 at alpha/beta 3. 60 Gy in 30: 72 Gy BED at 10. 2 Gy fractions are their own equivalent."""
    assert eqd2_gy(60, 20, 3) == pytest.approx(72)
    assert DVH("x", np.array([0.0, 60.0]), np.array([1.0, 0.0]), 30.0).bed(10, 30).max_gy == pytest.approx(72)
    assert eqd2_gy(66, 33, 2.5) == pytest.approx(66)
    one = two_halves().eqd2(3, 10)
    assert one.min_gy == pytest.approx(eqd2_gy(10, 10, 3))
    assert one.max_gy == pytest.approx(eqd2_gy(30, 10, 3))
    assert one.mean_gy == pytest.approx((eqd2_gy(10, 10, 3) + eqd2_gy(30, 10, 3)) / 2)
    assert one.basis == "EQD2, alpha/beta 3 Gy"
    assert two_halves().bed(10, 5).max_gy == pytest.approx(48), "30 Gy in 5: 30 (1 + 6 / 10)"
    with pytest.raises(ConfigError, match="already"):
        one.eqd2(3, 10)
    for wrong in ((0, 10), (3, 0), (np.nan, 10)):
        with pytest.raises(ConfigError, match="positive"):
            two_halves().eqd2(*wrong)


def test_eqd2_of_every_voxel_first_is_the_same() -> None:
    """A dose that is turned into EQD2 point by point before its DVH is made gives what the DVH's EQD2 gives."""
    known = cylinder(1.0, "across")
    physical = sampled(known.field, 1.0, reach_of(known))
    weighted = physical.map(lambda gy: gy * (gy / 25 + 3) / 5)
    one, other = dvh(physical, known.contours).eqd2(3, 25), dvh(weighted, known.contours)
    assert one.mean_gy == pytest.approx(other.mean_gy, rel=1e-4)
    for percent in (98, 50, 2):
        assert one.dose_to_percent(percent) == pytest.approx(other.dose_to_percent(percent), rel=2e-4)
    assert one.geud_gy(8) == pytest.approx(other.geud_gy(8), rel=1e-4)


def test_together() -> None:
    one = together([two_halves(), DVH("y", np.array([20.0, 60.0]), np.array([4.0, 0.0]), 40.0, missing_cc=1)], "both")
    assert (one.name, one.volume_cc, one.missing_cc) == ("both", 7, 1)
    assert one.mean_gy == pytest.approx((2 * 20 + 4 * 40) / 6)
    assert one.cc_above(25) == pytest.approx(1 + 3.5)
    with pytest.raises(ConfigError, match="one kind of dose"):
        together([two_halves(), two_halves().eqd2(3, 10)])


def test_curves_add_up() -> None:
    one = DVH("x", np.array([20.0, 60.0]), np.array([4.0, 0.0]), 40.0)
    edges, cc = one.differential(0.5)
    assert cc.sum() == pytest.approx(4)
    assert cc[(edges[:-1] >= 20) & (edges[:-1] < 60)] == pytest.approx(0.05)
    assert one.cumulative(0.5)[1][[0, 80]] == pytest.approx([4, 2])
    with pytest.raises(ConfigError, match="positive width"):
        one.differential(0)


def test_a_dvh_that_cannot_be_is_refused() -> None:
    for edges, above in (([1, 2], [1]), ([2, 1], [1, 1]), ([1, 2], [1, 2])):
        with pytest.raises(DoseError, match="rising doses and falling volumes"):
            DVH("x", np.array(edges), np.array(above), 1.0)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.5, 5),
    st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_properties_on_any_dose(seed: int, spacing: float, shift: tuple[float, float, float]) -> None:
    """Noise on any grid: figures lie in order, curves fall and add up, and moving all together changes nothing."""
    rng = np.random.default_rng(seed)
    grid = Geometry.regular((6, 7, 8), (spacing,) * 3, np.array([-3.5, -3, -2.5]) * spacing)
    dose = Volume(rng.gamma(2, 10, grid.shape).astype(np.float32), grid)
    solid = Sphere((0.0, 0.0, 0.0), 2.2 * spacing).contours(np.arange(-2, 2.1, 0.5) * spacing, 40)
    one = dvh(dose, solid, cells_wanted=2**12)
    assert one.min_gy <= one["D98%"] <= one.D50 <= one["D2%"] <= one.max_gy
    assert one.min_gy <= one.geud_gy(-3) <= one.geud_gy(1) <= one.geud_gy(4) <= one.max_gy
    assert one.geud_gy(1) == pytest.approx(one.mean_gy, rel=2e-3)
    assert one.min_gy >= 0
    assert one.differential(0.3)[1].sum() == pytest.approx(one.volume_cc)
    for percent in (10, 50, 90):
        assert one.percent_above(one.dose_to_percent(percent)) == pytest.approx(percent, abs=1e-6)
    moved = Contours(tuple(p + np.array(shift) for p in solid.polygons))
    there = Volume(dose.array, Geometry.regular(grid.shape, grid.spacing_mm, np.array(grid.origin_mm) + shift))
    again = dvh(there, moved, cells_wanted=2**12)
    assert again.mean_gy == pytest.approx(one.mean_gy, rel=0.02)
