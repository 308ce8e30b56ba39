import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError, InputError
from oncontour.metrics.isosurface import isosurface
from oncontour.metrics.surface import surfaces
from oncontour.phantom import Sphere

FINE = Geometry.regular((40, 40, 40))
CT = Geometry.regular((24, 60, 60), (3.0, 0.977, 0.977), (-28.8, -28.8, -34.5))


def box(grid: Geometry, *low_high: tuple[int, int]) -> Volume:
    array = np.zeros(grid.shape, bool)
    array[tuple(slice(a, b) for a, b in low_high)] = True
    return Volume(array, grid)


CUBE = box(FINE, (10, 20), (10, 20), (10, 20))
EMPTY = Volume(np.zeros(FINE.shape, bool), FINE)


# ---- exact against a pencil


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_moved_by_3_mm_is_3_mm_away(axis: int) -> None:
    moved = Volume(np.roll(CUBE.array, 3, axis=axis), FINE)
    apart = surfaces(CUBE, moved)
    assert apart.hd_mm == pytest.approx(3, abs=1e-9)
    assert apart.hd95_mm == pytest.approx(3, abs=1e-3)
    assert apart.surface_dsc(3) == 1
    assert 0.4 < apart.surface_dsc(2.9) < 0.9  # the two faces across the move, a third of the surface, are farther


@pytest.mark.parametrize(("axis", "voxels", "mm"), [(0, 2, 6.0), (1, 3, 3 * 0.977), (2, 3, 3 * 0.977)])
def test_millimetres_not_voxels(axis: int, voxels: int, mm: float) -> None:
    one = box(CT, (8, 14), (20, 40), (20, 40))
    assert surfaces(one, Volume(np.roll(one.array, voxels, axis=axis), CT)).hd_mm == pytest.approx(mm, abs=1e-9)


def test_a_plate_and_a_thicker_plate() -> None:
    """Two plates 30 mm wide, 4 and 10 mm thick with one face in common: 6 mm from face to face, the other way 6 too."""
    apart = surfaces(box(FINE, (10, 14), (4, 36), (4, 36)), box(FINE, (10, 20), (4, 36), (4, 36)))
    assert apart.hd_mm == pytest.approx(6, abs=0.01)
    there, back = apart.directed_means_mm
    # truth -> predicted: only the inner face (less what lies nearer to the rim) has a way to go
    assert there < back
    assert apart.asd_mm == pytest.approx((there + back) / 2)
    total = apart.truth_mm2.sum() + apart.predicted_mm2.sum()
    pooled = (there * apart.truth_mm2.sum() + back * apart.predicted_mm2.sum()) / total
    assert apart.msd_mm == pytest.approx(pooled)


def test_a_plate_of_one_slice_is_one_slice_thick() -> None:
    """A chiasm on one slice of 3 mm, 39 mm wide. Another on the next slice has one face in common and one 3 mm away: 1.5 mm on average;
    one drawn on a slice more to either side lies 3 mm away."""
    plate, above, thick = (box(CT, (a, b), (10, 50), (10, 50)) for a, b in ((8, 9), (9, 10), (7, 10)))
    assert isosurface(plate)[0].volume_mm3 == pytest.approx(plate.volume_cc * 1000, rel=0.05)
    assert surfaces(plate, above).asd_mm == pytest.approx(1.5, abs=0.05)
    apart = surfaces(plate, thick)
    assert apart.hausdorff_mm(80) == pytest.approx(3, abs=0.15)
    assert apart.surface_dsc(3.3) == pytest.approx(1, abs=0.1)
    slit = Volume(thick.array & ~plate.array, CT)  # and what is one slice of nothing between two
    assert isosurface(slit)[0].volume_mm3 == pytest.approx(slit.volume_cc * 1000, rel=0.1)


def test_contours_of_a_slice_do_not_hang_on_its_neighbours() -> None:
    """A line one voxel wide: what has to be drawn anew of it is the same whether the slices beside it hold it too or nothing."""
    paths = []
    for k in ((8, 9), (7, 10)):
        line = box(CT, k, (20, 40), (30, 31))
        paths.append(surfaces(line, Volume(np.zeros(CT.shape, bool), CT)).added_path_mm() / (k[1] - k[0]))
    assert paths[0] == pytest.approx(paths[1], rel=1e-9)


def test_single_voxels_two_apart() -> None:
    one, other = box(FINE, (5, 6), (5, 6), (5, 6)), box(FINE, (5, 6), (5, 6), (7, 8))
    assert surfaces(one, other).hd_mm == pytest.approx(2)


# ---- analytic spheres


@pytest.mark.parametrize("d", [0.5, 1.0, 3.0, 6.0])
def test_concentric_spheres_as_drawn(d: float) -> None:
    grid = Geometry.regular((60, 60, 60), (1, 1, 1), (-29.7, -29.2, -29.5))
    apart = surfaces(Sphere((0.0, 0.0, 0.0), 18.0).mask(grid), Sphere((0.0, 0.0, 0.0), 18.0 + d).mask(grid))
    assert apart.asd_mm == pytest.approx(d, abs=0.04)
    assert apart.msd_mm == pytest.approx(d, abs=0.04)
    assert apart.hd_mm == pytest.approx(d, abs=0.7)  # a bool mask cannot say more
    assert apart.hd95_mm == pytest.approx(d, abs=0.35)


@pytest.mark.parametrize("d", [0.3, 1.0, 4.0])
def test_concentric_spheres_with_coverage(d: float) -> None:
    grid = Geometry.regular((60, 60, 60), (1, 1, 1), (-29.7, -29.2, -29.5))
    apart = surfaces(Sphere((0.0, 0.0, 0.0), 18.0).coverage(grid), Sphere((0.0, 0.0, 0.0), 18.0 + d).coverage(grid))
    assert apart.asd_mm == pytest.approx(d, abs=0.015)
    assert apart.hd_mm == pytest.approx(d, abs=0.2)


def test_spheres_on_the_grid_of_a_ct() -> None:
    apart = surfaces(Sphere((0.0, 0.0, 0.0), 16.0).mask(CT), Sphere((0.0, 0.0, 0.0), 20.0).mask(CT))
    assert apart.asd_mm == pytest.approx(4, abs=0.15)  # a twentieth of the 3 mm slices


# ---- properties


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(-3, 3)] * 3), st.integers(0, 2**32 - 1))
def test_the_way_back_is_the_same_and_no_move_goes_farther_than_itself(move: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = np.zeros((16, 16, 16), bool)
    array[4:12, 4:12, 4:12] = rng.random((8, 8, 8)) < 0.5
    grid = Geometry.regular(array.shape, (2.0, 1.0, 1.5))
    a, b = Volume(array, grid), Volume(np.roll(array, move, axis=(0, 1, 2)), grid)
    there, back = surfaces(a, b), surfaces(b, a)
    assert there.hd_mm == pytest.approx(back.hd_mm)
    assert there.asd_mm == pytest.approx(back.asd_mm)
    assert there.surface_dsc(1) == pytest.approx(back.surface_dsc(1))
    assert there.asd_mm <= there.hd_mm + 1e-9
    assert there.hd95_mm <= there.hd_mm <= float(np.linalg.norm(np.array(move) * grid.spacing_mm)) + 1e-6


def test_a_mask_and_itself() -> None:
    apart = surfaces(CUBE, CUBE)
    assert (apart.hd_mm, apart.asd_mm, apart.msd_mm, apart.added_path_mm()) == (0, 0, 0, 0)
    assert apart.surface_dsc(0) == 1


def test_cropping_changes_nothing() -> None:
    moved = Volume(np.roll(CUBE.array, 2, axis=1), FINE)
    cropped = FINE.crop((8, 8, 8), (24, 25, 26))
    whole, part = surfaces(CUBE, moved), surfaces(CUBE.to(cropped), moved.to(cropped))
    assert (whole.hd_mm, whole.asd_mm) == pytest.approx((part.hd_mm, part.asd_mm))


# ---- added path length


def test_added_path_is_the_contour_that_must_be_drawn() -> None:
    tall, short = box(FINE, (10, 20), (10, 30), (10, 30)), box(FINE, (10, 15), (10, 30), (10, 30))
    one_slice = surfaces(tall, tall).contour_length_mm.sum() / 10
    assert one_slice == pytest.approx(80, rel=0.04)  # four sides of 20 mm, corners rounded
    assert surfaces(tall, short).added_path_mm(1) == pytest.approx(5 * one_slice)  # five slices are missing
    assert surfaces(short, tall).added_path_mm(1) == 0  # deleting costs nothing
    wider = box(FINE, (10, 20), (10, 30), (10, 34))
    assert surfaces(tall, wider).added_path_mm(1) / 10 == pytest.approx(20, abs=2)  # one side of each slice is 4 mm off
    assert surfaces(tall, wider).added_path_mm(4) == 0


# ---- nothing to measure


def test_both_empty_is_nothing_to_judge() -> None:
    apart = surfaces(EMPTY, EMPTY)
    assert np.isnan([apart.hd_mm, apart.hd95_mm, apart.asd_mm, apart.msd_mm, apart.surface_dsc(2), apart.added_path_mm()]).all()


def test_a_missed_structure_is_infinitely_far_never_missing() -> None:
    missed, invented = surfaces(CUBE, EMPTY), surfaces(EMPTY, CUBE)
    for apart in (missed, invented):
        assert [apart.hd_mm, apart.hd95_mm, apart.asd_mm, apart.msd_mm] == [np.inf] * 4
        assert apart.surface_dsc(2) == 0
    assert missed.added_path_mm(2) == pytest.approx(missed.contour_length_mm.sum())
    assert invented.added_path_mm(2) == 0


# ---- bad input


def test_other_grid_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"another grid than the truth: .* Way out: bring both onto one grid"):
        surfaces(CUBE, box(Geometry.regular((40, 40, 41)), (1, 2), (1, 2), (1, 2)))


def test_settings_out_of_range_are_refused() -> None:
    apart = surfaces(CUBE, CUBE)
    with pytest.raises(InputError, match="percentile"):
        apart.hausdorff_mm(0)
    for tolerance in (-1, np.nan, np.inf):
        with pytest.raises(InputError, match="tolerance"):
            apart.surface_dsc(tolerance)
