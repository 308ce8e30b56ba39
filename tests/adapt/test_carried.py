"""What a deformation carries: structures to the day, doses back to planning."""

from __future__ import annotations

import numpy as np
import pytest

from oncontour.adapt.accumulate import accumulate, by_set_up, warp_dose
from oncontour.adapt.deformation import Deformation
from oncontour.adapt.propagate import propagate
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import dvh
from oncontour.errors import DoseError, GeometryError, InputError
from oncontour.phantom import Sphere
from tests.adapt.test_deformation import affine, centres, field
from tests.core.test_geometry import rotation

GRID = Geometry.regular((30, 40, 40), (2.0, 2.0, 2.0), (-40, -40, -30))


def case(name: str, grid: Geometry = GRID, **masks: Volume) -> Case:
    return Case(name, {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}, masks)


def ball(x: float = 0, y: float = 0, z: float = 0, radius: float = 12) -> Volume:
    return Sphere((x, y, z), radius).mask(GRID)


def shifted(mm: tuple[float, float, float], fixed: str = "daily", moving: str = "planning") -> Deformation:
    return Deformation.from_matrix(affine(np.eye(3), mm), GRID, fixed, moving)


def test_organs_deform_and_targets_keep_their_shape() -> None:
    """The field swells everything by 10 % about the origin and shifts it: the target's volume stays, the organ's grows by a third."""
    planning = case("planning", Parotid_L=ball(10), PTV_7000=ball(-8))
    swell = Deformation.from_matrix(affine(np.eye(3) / 1.1, (0, 4, 0)), GRID, "daily", "planning")
    found = propagate(planning, case("daily"), swell)
    organ, target = found.structures
    assert (organ.how, target.how) == ("deformed", "rigid")
    assert organ.carried_cc / organ.planned_cc == pytest.approx(1.1**3, rel=0.07)
    assert target.carried_cc == pytest.approx(target.planned_cc, rel=0.05)
    assert set(found.case.masks) == {"Parotid_L", "PTV_7000"}
    assert found.case.geometry == GRID
    deformed = propagate(planning, case("daily"), swell, targets="deformed", names=["PTV_7000"]).structures
    assert [one.how for one in deformed] == ["deformed"]
    assert deformed[0].carried_cc / target.planned_cc == pytest.approx(1.1**3, rel=0.07)


def test_a_target_beyond_the_field_is_carried_by_the_set_up_all_the_same() -> None:
    """The field covers a corner of the image of the day; the set-up is a turn of 8 degrees, which displaces more the farther out."""
    turn = affine(rotation((0, 0, np.deg2rad(8))), (0, 0, 0))
    corner = Geometry.regular((4, 8, 8), (4.0, 4.0, 4.0), (-40, -40, -8))
    planned = ball(25, 10, radius=9)
    field_there = Deformation.from_matrix(turn, corner, "daily", "planning")
    found = propagate(case("planning", PTV_7000=planned), case("daily"), field_there, set_up=turn)
    assert found.structures[0].moved_mm == pytest.approx((0, 0, 0), abs=0.3)
    assert found.structures[0].carried_cc == pytest.approx(planned.volume_cc, rel=0.03)


def test_movement_is_beyond_the_set_up() -> None:
    """Everything lies 6 mm to the left on the day (the set-up); an organ 4 mm more to posterior than that."""
    set_up = affine(np.eye(3), (-6, 0, 0))
    u = field(GRID, lambda p: np.stack([0 * p[..., 0] - 6, -4.0 + 0 * p[..., 0], 0 * p[..., 0]], axis=-1))
    found = propagate(case("planning", Larynx=ball()), case("daily"), u, set_up=set_up)
    assert found.structures[0].moved_mm == pytest.approx((0, 4, 0), abs=0.2)
    middle = GRID.points(np.argwhere(found.case.masks["Larynx"].array).mean(axis=0))
    assert middle == pytest.approx((6, 4, 0), abs=0.2)


def test_what_leaves_the_image_of_the_day_is_told() -> None:
    short = Geometry.regular((15, 40, 40), (2.0, 2.0, 2.0), (-40, -40, 1))
    planning = case("planning", Larynx=ball(), Eye_L=Volume(np.zeros(GRID.shape, bool), GRID))
    found = propagate(planning, case("daily", short), shifted((0, 0, 0)))
    larynx, eye = found.structures
    assert larynx.beyond_percent == pytest.approx(50, abs=8)  # a plane of voxels lies on the edge
    assert larynx.carried_cc == pytest.approx(larynx.planned_cc / 2, rel=0.15)
    assert (eye.carried_cc, eye.moved_mm, eye.beyond_percent) == (0, None, 0)


def test_the_wrong_way_and_folding_fields_are_refused() -> None:
    planning, daily = case("planning", Larynx=ball()), case("daily")
    with pytest.raises(InputError, match=r"takes the deformation from 'daily' to 'planning'.*goes the other way: swap the two visits"):
        propagate(planning, daily, shifted((1, 0, 0), "planning", "daily"))
    with pytest.raises(InputError, match="give the deformation of these two"):
        propagate(planning, daily, shifted((1, 0, 0), "daily", "somebody"))
    with pytest.raises(InputError, match=r"no structures \['Liver'\]"):
        propagate(planning, daily, shifted((1, 0, 0)), names=["Liver"])
    folded = field(GRID, lambda p: np.stack([-1.5 * p[..., 0], 0 * p[..., 0], 0 * p[..., 0]], axis=-1))
    with pytest.raises(InputError, match=r"100 % of the field folds, at most 0.1 %"):
        propagate(planning, daily, folded)


# ---- doses


def slope_gy(points: np.ndarray) -> np.ndarray:
    return 30 + 0.5 * points[..., 0] + 0.2 * points[..., 2]


def test_a_warped_dose_is_right_under_an_analytic_field() -> None:
    """A linear dose under an affine map, on another grid: the dose at x is that at x + u(x), to 0.5 % and far below."""
    dose = Volume(slope_gy(centres(GRID)).astype(np.float32), GRID)
    matrix = affine(rotation((0.05, 0.02, -0.1)) * 1.05, (3, -2, 1))
    grid = Geometry.regular((8, 9, 10), (3, 2.5, 2.5), (-12, -10, -9))
    found = warp_dose(dose, Deformation.from_matrix(matrix, grid, "planning", "visit"), grid)
    expected = slope_gy(centres(grid) @ matrix[:3, :3].T + matrix[:3, 3])
    assert found.known.array.all()
    assert np.abs(found.dose.array / expected - 1).max() < 1e-5
    assert found.visit == "visit"


def test_an_organ_moved_across_a_slope_has_the_mean_dose_of_the_closed_form() -> None:
    """0.5 Gy per mm: an organ that moved 10 mm to the left on the day receives 5 Gy more; one that stayed the same."""
    dose = Volume(slope_gy(centres(GRID)).astype(np.float32), GRID)
    planning = case("planning", Larynx=ball())
    before = dvh(dose, planning.mask("Larynx")).mean_gy
    for mm in (10.0, 0.0):
        moved = propagate(planning, case("daily"), shifted((-mm, 0, 0)), set_up=np.eye(4))
        assert dvh(dose, moved.case.mask("Larynx")).mean_gy == pytest.approx(before + 0.5 * mm, rel=0.005)
        carried = warp_dose(dose, shifted((mm, 0, 0), "planning", "daily"), GRID)
        assert dvh(carried.dose, planning.mask("Larynx")).mean_gy == pytest.approx(before + 0.5 * mm, rel=0.005)


def test_the_sum_of_two_visits_is_the_sum() -> None:
    dose = Volume(slope_gy(centres(GRID)).astype(np.float32), GRID)
    ways = [shifted((4, 0, 0), "planning", "one"), shifted((0, 0, -6), "planning", "two")]
    found = accumulate([warp_dose(dose, way, GRID) for way in ways])
    assert np.allclose(found.dose.array, found.visits[0].dose.array + found.visits[1].dose.array)
    assert np.array_equal(found.known.array, found.visits[0].known.array & found.visits[1].known.array)
    assert found.visits[0].known.array[..., :-2].all()
    assert not found.visits[0].known.array[..., -2:].any()
    edge = np.zeros(GRID.shape, bool)
    edge[..., -4:] = True
    assert found.visits[0].missing_percent(Volume(edge, GRID)) == pytest.approx(50)


def test_the_change_of_integral_dose_is_told() -> None:
    """Tissue that swells from 1 to 1.1 on the day was hit by a dose that is squeezed to 1 / 1.1^3 of its volume on the planning CT."""
    hot = Volume(np.where(((centres(GRID) / 18) ** 2).sum(axis=-1) < 1, 2.0, 0.0).astype(np.float32), GRID)
    swell = Deformation.from_matrix(affine(np.eye(3) * 1.1, (0, 0, 0)), GRID, "planning", "visit")
    found = warp_dose(hot, swell, GRID)
    assert found.change_percent == pytest.approx(100 * (1.1**-3 - 1), abs=1)
    assert found.integral_before == pytest.approx(2 * 4 / 3 * np.pi * 18**3 / 1e6, rel=0.05)
    assert np.isnan(warp_dose(hot.map(lambda a: 0 * a), swell, GRID).change_percent)


def test_the_planned_dose_is_carried_by_the_set_up_without_interpolation() -> None:
    dose = Volume(slope_gy(centres(GRID)).astype(np.float32), GRID)
    matrix = affine(rotation((0.1, 0, 0.05)), (5, -3, 2))
    moved = by_set_up(dose, matrix)
    assert np.array_equal(moved.array, dose.array)
    x = GRID.points((10, 20, 20))  # of the day
    there = matrix[:3, :3] @ x + matrix[:3, 3]
    assert moved.geometry.voxels(x) == pytest.approx(GRID.voxels(there))
    with pytest.raises(GeometryError, match="a set-up is a rotation and a shift"):
        by_set_up(dose, affine(1.1 * np.eye(3), (0, 0, 0)))


def test_doses_that_cannot_be_carried_are_refused() -> None:
    dose = Volume(np.ones(GRID.shape, np.float32), GRID)
    way = shifted((0, 0, 0), "planning", "one")
    with pytest.raises(DoseError, match="leads nowhere onto the dose of 'one'"):
        warp_dose(dose, shifted((900, 0, 0), "planning", "one"), GRID)
    with pytest.raises(DoseError, match="no number or negative"):
        warp_dose(dose.map(lambda a: -a), way, GRID)
    with pytest.raises(InputError, match="no visit to add up"):
        accumulate([])
    coarse = Geometry.regular((15, 20, 20), (4.0, 4.0, 4.0), (-40, -40, -30))
    with pytest.raises(InputError, match="doses of one and one lie on two grids"):
        accumulate([warp_dose(dose, way, GRID), warp_dose(dose, way, coarse)])
    with pytest.raises(GeometryError, match="another grid than the dose"):
        warp_dose(dose, way, GRID).missing_percent(Volume(np.ones((2, 2, 2), bool), Geometry.regular((2, 2, 2))))
