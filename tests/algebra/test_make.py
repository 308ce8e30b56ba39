"""Margins on solids whose grown volume a pencil knows, from contours on slices of several spacings, as a planning system draws them.

The surface that is made is held against the closed form, within 0.5 % (``EXACT``). What is written are contours on slices, which hold the
volume of no ball exactly however they were made: they are held against the same ball drawn on the same slices.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from oncontour.algebra.gauge import LEAST_MM, costs, within
from oncontour.algebra.make import Made, make
from oncontour.algebra.outlines import contours_of
from oncontour.algebra.words import parse
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.phantom.shapes import Box, Cylinder, Solid, Sphere

EXACT = 0.005
RADIUS = 16.0
SIDES = (40.0, 36.0, 48.0)


def grid_of(spacing_mm: float, aside_mm: float = 0.0) -> Geometry:
    count = 2 * int(40 / spacing_mm)
    return Geometry.regular((count, 90, 90), (spacing_mm, 1.0, 1.0), (-45.2, -45.4, (0.5 - count / 2) * spacing_mm + aside_mm))


def made(text: str, grid: Geometry, **solids: Solid) -> Made:
    slices = Slices.of(grid)
    drawn = {name: Contours(solid.contours(slices.offsets_mm).polygons, None, slices) for name, solid in solids.items()}
    return make(parse(f"X = {text}").expression, drawn, lambda: drawn["Body"], grid, slices)


def ball(radius: float) -> float:
    return 4 / 3 * np.pi * radius**3 / 1000


def steiner(margin: float, sides: tuple[float, float, float]) -> float:
    """A box grown by a margin (Steiner's formula): the box, its faces moved out, quarter cylinders on its edges, a ball on its corners."""
    a, b, c = sides
    return (a * b * c + 2 * margin * (a * b + b * c + c * a) + np.pi * margin**2 * (a + b + c)) / 1000 + ball(margin)


def area_mm2(contours: Contours) -> float:
    """Of polygons none of which lies in another."""
    flat = [polygon[:, :2] for polygon in contours.polygons]
    return sum(0.5 * abs(float(np.sum(one[:, 0] * np.roll(one[:, 1], -1) - one[:, 1] * np.roll(one[:, 0], -1)))) for one in flat)


# Aside by 1.5 mm a ball of 16 mm touches a slice on which, so, nothing is drawn; by 2.5 mm its last contours are small ones at both ends.
@pytest.mark.parametrize(("spacing_mm", "aside_mm"), [(1.0, 0.0), (3.0, 0.9), (5.0, 0.0), (5.0, 0.7), (5.0, 1.5), (5.0, 2.5)])
@pytest.mark.parametrize(("text", "radius"), [("A + 5mm", RADIUS + 5), ("A - 4mm", RADIUS - 4)])
def test_a_ball_grown_or_shrunk_is_the_ball_of_that_radius(spacing_mm: float, aside_mm: float, text: str, radius: float) -> None:
    grid = grid_of(spacing_mm, aside_mm)
    found = made(text, grid, A=Sphere((0, 0, 0), RADIUS))
    assert found.volume_cc == pytest.approx(ball(radius), rel=EXACT)
    drawn = Sphere((0, 0, 0), radius).contours(Slices.of(grid).offsets_mm)
    assert area_mm2(found.contours) == pytest.approx(area_mm2(drawn), rel=EXACT)
    outer = np.concatenate(found.contours.polygons)
    assert np.linalg.norm(outer, axis=1) == pytest.approx(radius, abs=0.25)  # each point of the contours in the file


@pytest.mark.parametrize(("spacing_mm", "aside_mm"), [(3.0, 0.0), (5.0, 0.7)])
def test_a_small_ball_on_few_slices_is_a_ball(spacing_mm: float, aside_mm: float) -> None:
    """8 mm: three to five contours. On slices 5 mm apart these hold 3 % less than the ball."""
    grid = grid_of(spacing_mm, aside_mm)
    assert made("A + 5mm", grid, A=Sphere((0, 0, 0), 8.0)).volume_cc == pytest.approx(ball(13), rel=EXACT)
    assert made("A - 2mm", grid, A=Sphere((0, 0, 0), 8.0)).volume_cc == pytest.approx(ball(6), rel=EXACT)


@pytest.mark.parametrize("spacing_mm", [1.5, 4.0])
@pytest.mark.parametrize(("sides", "margin"), [(SIDES, 6), ((20.0, 20.0, 24.0), 6), ((20.0, 20.0, 24.0), 3), ((10.0, 10.0, 12.0), 3)])
def test_a_box_grown_has_round_edges(spacing_mm: float, sides: tuple[float, float, float], margin: float) -> None:
    box = Box((0, 0, 0), (*sides[:2], round(sides[2] / 2 / spacing_mm) * 2 * spacing_mm))  # its ends lie in the middle between slices
    assert made(f"A + {margin}mm", grid_of(spacing_mm), A=box).volume_cc == pytest.approx(steiner(margin, box.size_mm), rel=EXACT)


def test_a_cylinder_grown_has_round_rims() -> None:
    """Steiner's formula: pi h + pi^2 r is the integral of its mean curvature."""
    r, h, m = 10.0, 30.0, 6.0
    grown = np.pi * (r**2 * h + 2 * m * r * (h + r) + m**2 * (h + np.pi * r)) / 1000 + ball(m)
    assert made("A + 6mm", grid_of(3.0), A=Cylinder((0, 0, 0), r, h)).volume_cc == pytest.approx(grown, rel=EXACT)


@pytest.mark.parametrize("sides", [SIDES, (20.0, 20.0, 30.0), (10.0, 10.0, 12.0)])
def test_a_box_shrunk_keeps_its_corners(sides: tuple[float, float, float]) -> None:
    a, b, c = (side - 6 for side in sides)
    assert made("A - 3mm", grid_of(3.0), A=Box((0, 0, 0), sides)).volume_cc == pytest.approx(a * b * c / 1000, rel=EXACT)


def test_margins_by_direction_are_eighths_of_ellipsoids() -> None:
    """A box grown so: on every face a slab, on every edge a quarter of an elliptic cylinder, on every corner an eighth of an ellipsoid."""
    a, b, c = SIDES
    x, y, z = (6, 3), (4, 5), (8, 2)  # left and right, posterior and anterior, superior and inferior
    faces = sum(x) * b * c + sum(y) * a * c + sum(z) * a * b
    edges = np.pi / 4 * (sum(x) * sum(y) * c + sum(x) * sum(z) * b + sum(y) * sum(z) * a)
    corners = sum(np.pi / 6 * p * q * r for p, q, r in product(x, y, z))
    text = "A + (6mm left, 3mm right, 4mm posterior, 5mm anterior, 8mm superior, 2mm inferior)"
    found = made(text, grid_of(3.0), A=Box((0, 0, 0), SIDES))
    assert found.volume_cc == pytest.approx((a * b * c + faces + edges + corners) / 1000, rel=EXACT)
    points = np.concatenate(found.contours.polygons)
    assert points[:, :2].max(axis=0) == pytest.approx([26, 22], abs=0.05)
    assert points[:, :2].min(axis=0) == pytest.approx([-23, -23], abs=0.05)


@pytest.mark.parametrize(
    "axes",
    [[(0, 0, 1), (0, 1, 0), (1, 0, 0)], [(0, 0, 1), (0, -1, 0), (-1, 0, 0)], [(0, 0, -1), (0, 1, 0), (-1, 0, 0)]],
    ids=["head first supine", "head first prone", "feet first supine"],
)
def test_directions_are_those_of_the_patient_however_the_patient_lay(axes: list[tuple[int, int, int]]) -> None:
    """A box off the middle; its ends lie half-way between slices of 3 mm, so that 8 mm reach three slices more and 2 mm one."""
    grid = Geometry.regular((24, 60, 70), (3.0, 1.0, 1.0), (11.0, -7.0, 5.0), axes)
    slices = Slices.of(grid)
    drawn = [grid.points([(k, j, i) for j, i in ((20, 30), (20, 50), (34, 50), (34, 30))]) for k in range(8, 13)]
    text = "A + (6mm left, 3mm right, 4mm posterior, 5mm anterior, 8mm superior, 2mm inferior)"
    found = make(parse(f"X = {text}").expression, {"A": Contours(tuple(drawn), None, slices)}, lambda: None, grid, slices)
    box, points = np.concatenate(drawn), np.concatenate(found.contours.polygons)
    assert points.max(axis=0) - box.max(axis=0) == pytest.approx([6, 4, 9], abs=0.1)  # left, posterior, superior
    assert box.min(axis=0) - points.min(axis=0) == pytest.approx([3, 5, 3], abs=0.1)


def test_a_crop_under_the_skin_cuts_nothing_where_the_scan_ends() -> None:
    """The body goes on there: its last slice is no skin. What a margin adds beyond that slice is told, as no file has it."""
    grid = Geometry.regular((16, 60, 60), (3.0, 1.0, 1.0), (-30.0, -30.0, 0.0))
    slices = Slices.of(grid)
    target, body = Box((0, 0, 36), (20, 20, 21)), Box((0, 0, 20), (50, 50, 200))  # the last slice ends at 46.5 mm
    drawn = {name: Contours(one.contours(slices.offsets_mm).polygons, None, slices) for name, one in (("A", target), ("Body", body))}

    def of(text: str) -> Made:
        return make(parse(f"X = {text}").expression, drawn, lambda: drawn["Body"], grid, slices)

    cut, grown = of("crop(A, 5mm)"), of("A + (6mm superior)")
    assert (cut.volume_cc, cut.beyond_cc) == (pytest.approx(0.4 * 21, rel=EXACT), 0.0)
    assert grown.volume_cc == pytest.approx(0.4 * 27, rel=EXACT)
    assert grown.beyond_cc == pytest.approx(0.4 * 6, rel=0.05)


@pytest.mark.parametrize(("sign", "factor"), [("+", 1), ("-", -1)])
def test_a_direction_that_is_not_named_gets_no_margin(sign: str, factor: int) -> None:
    a, b, c = SIDES
    found = made(f"A {sign} (6mm left)", grid_of(3.0), A=Box((0, 0, 0), SIDES))
    assert found.volume_cc == pytest.approx((a + 6 * factor) * b * c / 1000, rel=EXACT)


def test_union_difference_intersection_and_rings() -> None:
    grid = grid_of(3.0, 0.7)
    ball_a, ball_b = Sphere((-6, 0, 0), 15.0), Sphere((6, 0, 0), 15.0)
    lens = np.pi * (4 * 15 + 12) * (2 * 15 - 12) ** 2 / 12 / 1000  # of two balls of one radius, their middles 12 mm apart
    volume = {text: made(text, grid, A=ball_a, B=ball_b).volume_cc for text in ("A & B", "A + B", "A - B")}
    assert volume == {
        "A & B": pytest.approx(lens, rel=EXACT),
        "A + B": pytest.approx(2 * ball(15) - lens, rel=EXACT),
        "A - B": pytest.approx(ball(15) - lens, rel=EXACT),
    }
    assert made("ring(A, 3mm to 8mm)", grid, A=ball_a).volume_cc == pytest.approx(ball(23) - ball(18), rel=EXACT)
    skin = made("crop(A, 5mm)", grid, A=Sphere((0, 0, 0), 19.0), Body=Sphere((0, 0, 0), 20.0)).volume_cc
    assert skin == pytest.approx(ball(15), rel=EXACT)


def test_what_shares_nothing_is_empty() -> None:
    found = made("A & B", grid_of(3.0), A=Sphere((-20, 0, 0), 9.0), B=Sphere((20, 0, 0), 9.0))
    assert (len(found.contours), found.volume_cc) == (0, 0.0)
    assert len(made("A - 10mm", grid_of(3.0), A=Sphere((0, 0, 0), 9.0)).contours) == 0


def test_two_pieces_that_end_on_different_slices_keep_their_ends() -> None:
    """As in a target with nodes on both sides of the neck: the shorter piece ends half-way to the next slice, as if it were alone."""
    grid = grid_of(3.0)
    tall, short = Box((-20, 0, 0), (14.0, 14.0, 54.0)), Box((20, 0, 0), (14.0, 14.0, 18.0))
    assert made("A + B", grid, A=tall, B=short).volume_cc == pytest.approx(14 * 14 * (54 + 18) / 1000, rel=EXACT)


def test_a_mask_is_as_good_as_contours() -> None:
    grid = grid_of(2.5, 0.6)
    contours = contours_of(Sphere((0, 0, 0), RADIUS).mask(grid))
    found = make(parse("X = A + 5mm").expression, {"A": contours}, lambda: contours, grid, Slices.of(grid))
    assert found.volume_cc == pytest.approx(ball(RADIUS + 5), rel=EXACT)


def test_the_cost_of_a_step_is_that_of_the_best_point_of_a_triangle() -> None:
    """Against all points of a fine lattice on the triangle."""
    rng = np.random.default_rng(0)
    p, q = (one.ravel() for one in np.meshgrid(np.linspace(0, 1, 201), np.linspace(0, 1, 201)))
    p, q = p[p + q <= 1], q[p + q <= 1]
    for n in range(60):
        corners, point = 3 * rng.normal(size=(3, 3)), 6 * rng.normal(size=3)
        up, down = np.array([6, 3, 1.0]), np.array([2, LEAST_MM if n % 2 else 5, 0.5])
        steps = point - (corners[0] + p[:, None] * (corners[1] - corners[0]) + q[:, None] * (corners[2] - corners[0]))
        least = np.linalg.norm(np.where(steps > 0, steps / up, -steps / down), axis=1).min()
        found = costs(point[None], corners[None], up, down)
        assert 0.97 * least <= found[0] <= least * (1 + 1e-6), "the lattice is coarse, the answer exact"
        # The same asked for yes or no only, all along a line through the triangle.
        near = corners.mean(axis=0) + (point - corners.mean(axis=0)) * np.linspace(0, 2, 41)[:, None]
        assert np.array_equal(within(near, corners[None], up, down), costs(near, corners[None], up, down) <= 1)
