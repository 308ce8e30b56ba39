"""Uneven, missing, tilted: what is exact is exact, what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from oncontour.core.volume import Volume
from oncontour.errors import SeriesError
from oncontour.io.dicom.series import AIR_HU, read_series
from oncontour.io.dicom.stack import common_step
from tests.dicom_cases import WrittenSeries, make_series, ramp


def true_slices(volume: Volume, written: WrittenSeries) -> list[NDArray[np.int16]]:
    """The grid's slice at the position of each written one."""
    k = volume.geometry.voxels(written.positions_mm)[:, 0]
    assert np.abs(k - np.rint(k)).max() < 0.03
    return [volume.array[n] for n in np.rint(k).astype(int)]


@pytest.mark.parametrize(
    ("offsets", "step", "depth"),
    [
        ([0, 1, 2, 3, 4, 7, 10, 13], 1.0, 14),  # 1 mm, then 3 mm
        ([0, 2.5, 5, 8, 11, 14], 0.5, 29),  # 2.5 mm, then 3 mm
        ([0, 3, 6, 7.5, 9, 10.5, 12], 1.5, 9),
        ([0, 0.4, 0.8, 2.0, 3.2], 0.4, 9),  # finer than 0.5 mm because the slices themselves are
        ([0, 0.75, 1.75], 0.25, None),  # 0.25 mm would be needed
    ],
)
def test_uneven_slices_lie_exactly_where_they_are(tmp_path: Path, offsets: list[float], step: float, depth: int | None) -> None:
    written = make_series(tmp_path, offsets=offsets)
    if depth is None:
        with pytest.raises(SeriesError, match=r"no grid of 0\.5 mm or more meets them all"):
            read_series(tmp_path)
        return
    volume, source, notes = read_series(tmp_path)
    assert volume.geometry.spacing_mm == pytest.approx((step, 1.0, 1.0))
    assert volume.geometry.shape[0] == depth
    assert volume.array.dtype == np.int16
    for slice_, stored in zip(true_slices(volume, written), written.stored, strict=True):
        assert np.array_equal(slice_, stored.astype(int) - 1024)
    assert np.allclose(source.offsets_mm, offsets)
    assert f"placed where they are on a {step:g} mm grid" in notes[0]


def test_between_uneven_slices_values_are_linear(tmp_path: Path) -> None:
    make_series(tmp_path, image=ramp, offsets=[0, 1, 2, 5, 8], patient_position="FFP")
    volume, _, _ = read_series(tmp_path)
    points = volume.geometry.points(np.stack(np.meshgrid(*(np.arange(n) for n in volume.array.shape), indexing="ij"), axis=-1))
    assert np.abs(volume.array - ramp(points)).max() <= 1.0  # rounding of the slices and of what lies between


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    offsets = np.round(np.arange(40) * 0.9766, 2)
    make_series(tmp_path, offsets=list(offsets), rows=4, columns=4)
    volume, _, notes = read_series(tmp_path)
    assert volume.geometry.shape[0] == 40
    assert volume.geometry.spacing_mm[0] == pytest.approx(0.9766, abs=1e-3)
    assert notes == ()


@pytest.mark.parametrize("start", [0.0, -100.35, 12.04])
@pytest.mark.parametrize("step", [1.25, 0.75, 0.625, 3.27])
def test_positions_told_to_a_tenth_are_even(tmp_path: Path, step: float, start: float) -> None:
    """Each is off by 0.05 mm at most, the first and the last too: the step is within 2 x 0.05 mm / 39 of the true one."""
    true = start + step * np.arange(40)
    written = make_series(tmp_path, offsets=list(np.round(true, 1)), rows=4, columns=4)
    volume, _, notes = read_series(tmp_path)
    assert volume.geometry.shape[0] == 40
    assert volume.geometry.spacing_mm[0] == pytest.approx(step, abs=0.1 / 39)
    places = volume.geometry.points([(k, 0, 0) for k in range(40)])
    assert np.abs(places - written.positions_mm).max() <= 0.05 + 1e-5
    assert notes == ()


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 2, 4, 6.1, 8, 10, 12, 14],  # one slice off, told to a tenth
        [0, 1.9, 4, 6],
        [0, 2, 4, 6, 8.2, 10.2, 12.2, 14.2],  # two stacks
        [0, 2, 4, 6.06, 8, 10, 12, 14],  # not told to a tenth
        [0, 2.05, 4.15, 6.1, 8.2, 10.3],
    ],
)
def test_what_is_no_rounding_to_a_tenth_is_no_even_series(tmp_path: Path, offsets: list[float]) -> None:
    make_series(tmp_path, offsets=offsets, rows=4, columns=4)
    with pytest.raises(SeriesError, match="meets them all"):
        read_series(tmp_path)


def without(offsets: list[float], *gone: int) -> tuple[list[float], list[int]]:
    kept = [n for n in range(len(offsets)) if n not in gone]
    return [offsets[n] for n in kept], [n + 1 for n in kept]


@pytest.mark.parametrize("gone", [(5,), (5, 6, 7), (2, 9), (1, 3, 4, 8, 9)])
def test_missing_slices_are_refused(tmp_path: Path, gone: tuple[int, ...]) -> None:
    offsets, numbers = without([3.0 * n for n in range(12)], *gone)
    make_series(tmp_path, offsets=offsets, numbers=numbers)
    with pytest.raises(SeriesError, match="slices are missing") as error:
        read_series(tmp_path)
    listed = ", ".join(str(n + 1) for n in gone)
    assert f"of the InstanceNumbers 1 to 12 {len(gone)} are lacking ({listed})" in str(error.value)
    assert "3 mm elsewhere" in str(error.value)
    assert "Way out" in str(error.value)


def test_two_stacks_numbered_apart_are_not_taken_for_missing_slices(tmp_path: Path) -> None:
    make_series(tmp_path, offsets=[0, 1, 2, 3, 6, 9, 12], numbers=[1, 2, 3, 4, 31, 32, 33])
    assert read_series(tmp_path)[0].geometry.shape[0] == 13


def test_a_lone_hole_without_instance_numbers_is_refused(tmp_path: Path) -> None:
    offsets, _ = without([3.0 * n for n in range(12)], 5)
    make_series(tmp_path, offsets=offsets, change=lambda d, n: delattr(d, "InstanceNumber"))
    with pytest.raises(SeriesError, match=r"slices are missing: 6 mm between slices 5 and 6 \(at z 12.00 and 18.00 mm\)"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "says"), [((1, 2, 3, 1, 2), "several series in one"), ((1, 3, 5, 7, 9), "steps of 2"), ((9, 8, 7, 6, 5), "")]
)
def test_numbers_that_make_an_even_series_doubtful_are_noted(tmp_path: Path, numbers: tuple[int, ...], says: str) -> None:
    make_series(tmp_path, offsets=[0, 2, 4, 6, 8], numbers=numbers)
    notes = read_series(tmp_path)[2]
    assert len(notes) == bool(says)
    assert all(says in note for note in notes)


def test_images_in_acquisition_tells_of_half_a_series(tmp_path: Path) -> None:
    make_series(tmp_path, change=lambda d, n: setattr(d, "ImagesInAcquisition", 22))
    assert "ImagesInAcquisition says 22 images, 11 are here" in read_series(tmp_path)[2][0]


def test_images_far_apart_are_no_volume(tmp_path: Path) -> None:
    make_series(tmp_path, offsets=[0, 300])
    with pytest.raises(SeriesError, match=r"slices 1 and 2 \(at z 0.00 and 300.00 mm\) are 300 mm apart"):
        read_series(tmp_path)


def test_a_grid_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncontour.io.dicom.stack.MAX_UNEVEN_VOXELS", 40_000)
    make_series(tmp_path, offsets=[0, 1, 2, 40])
    with pytest.raises(SeriesError, match="is too large"):
        read_series(tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=200), st.sampled_from([0.5, 0.625, 1.0, 1.25, 3.0]), st.integers(0, 2**31))
def test_the_common_step_places_every_slice(gaps: list[int], step: float, seed: int) -> None:
    true = np.concatenate([[0], np.cumsum(gaps)]) * step
    found = common_step(true + np.random.default_rng(seed).uniform(-0.004, 0.004, len(true)))
    assert found is not None
    size, index = found
    divisor = np.gcd.reduce(gaps)
    assert size == pytest.approx(step * divisor, rel=0.01)
    assert np.abs(index * size - (true - true[0])).max() < 0.03


# ---- tilt


@pytest.mark.parametrize("tilt_deg", [12.0, -20.0])
def test_a_tilted_stack_is_set_upright_where_it_truly_is(tmp_path: Path, tilt_deg: float) -> None:
    written = make_series(tmp_path, image=ramp, tilt_deg=tilt_deg, offsets=np.arange(0.0, 31.0, 3.0), rows=40)
    volume, source, notes = read_series(tmp_path)
    points = volume.geometry.points(np.stack(np.meshgrid(*(np.arange(n) for n in volume.array.shape), indexing="ij"), axis=-1))
    inside = volume.array != AIR_HU
    assert inside.mean() > 0.7
    down = (points - written.positions_mm[:, None, None]) @ written.column
    whole = (down >= 0) & (down <= 39) & inside  # beyond the outermost centres the edge value holds for half a voxel
    assert np.abs(volume.array - ramp(points))[whole].max() <= 1.0
    assert (inside == ((down >= -0.5) & (down <= 39.5))).mean() > 0.995
    assert np.allclose([s.position_mm for s in source.slices], written.positions_mm)
    assert f"sheared by {abs(tilt_deg):.2f} degrees" in notes[0]


def test_tilt_in_whole_voxels_copies_exactly(tmp_path: Path) -> None:
    written = make_series(tmp_path, tilt_deg=45, offsets=[0, 1, 2, 3])
    volume, _, _ = read_series(tmp_path)
    assert volume.geometry.shape == (4, 35, 40)
    for k, stored in enumerate(written.stored):
        assert np.array_equal(volume.array[k, k : k + 32], stored.astype(int) - 1024)
        assert (volume.array[k, :k] == AIR_HU).all()
        assert (volume.array[k, k + 32 :] == AIR_HU).all()


def test_tilted_and_uneven_at_once(tmp_path: Path) -> None:
    make_series(tmp_path, image=ramp, tilt_deg=45, offsets=[0, 1, 2, 4, 6])
    volume, _, notes = read_series(tmp_path)
    assert volume.geometry.shape == (7, 38, 40)
    assert len(notes) == 2
    grid = volume.geometry
    middle = grid.points((5, 20, 20))
    assert volume.array[5, 20, 20] == pytest.approx(ramp(middle), abs=1)


def test_images_side_by_side_in_one_plane_are_refused(tmp_path: Path) -> None:
    def aside(d: Dataset, n: int) -> None:
        if n == 3:
            d.ImagePositionPatient = [80, -15.5, -6]

    make_series(tmp_path, change=aside, offsets=[-10, -8, -6, -6, -4])
    with pytest.raises(SeriesError, match="side by side in one plane"):
        read_series(tmp_path)
