import numpy as np
import pytest

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError
from oncontour.metrics.overlap import dsc, jaccard, overlap

GRID = Geometry.regular((4, 5, 6), (2.0, 1.0, 1.0))


def mask(*boxes: tuple[slice, slice, slice]) -> Volume:
    array = np.zeros(GRID.shape, bool)
    for box in boxes:
        array[box] = True
    return Volume(array, GRID)


EMPTY = mask()
TRUTH = mask(np.s_[0:2, 0:2, 0:3])  # 12 voxels
SHIFTED = mask(np.s_[1:3, 0:2, 0:4])  # 16 voxels, 6 of them shared


def test_numbers_from_a_pencil() -> None:
    shared = overlap(TRUTH, SHIFTED)
    assert shared.dsc == pytest.approx(2 * 6 / 28)
    assert shared.jaccard == pytest.approx(6 / 22)
    assert shared.sensitivity == pytest.approx(6 / 12)
    assert shared.precision == pytest.approx(6 / 16)
    assert shared.truth_cc == pytest.approx(12 * 2 / 1000)
    assert shared.predicted_cc == pytest.approx(16 * 2 / 1000)


def test_slices_one_by_one() -> None:
    shared = overlap(TRUTH, SHIFTED)
    np.testing.assert_allclose(shared.slice_dsc, [0, 12 / 14, 0, np.nan])
    assert shared.mean_slice_dsc == pytest.approx((12 / 14) / 3)


def test_both_empty_is_nothing_to_judge() -> None:
    shared = overlap(EMPTY, EMPTY)
    assert np.isnan([shared.dsc, shared.jaccard, shared.sensitivity, shared.precision, shared.mean_slice_dsc]).all()


@pytest.mark.parametrize(("truth", "predicted"), [(TRUTH, EMPTY), (EMPTY, TRUTH)])
def test_one_empty_is_zero_and_stays_in_a_mean(truth: Volume, predicted: Volume) -> None:
    shared = overlap(truth, predicted)
    assert [shared.dsc, shared.jaccard, shared.sensitivity, shared.precision, shared.mean_slice_dsc] == [0] * 5


def test_same_mask() -> None:
    assert dsc(TRUTH, TRUTH) == jaccard(TRUTH, TRUTH) == 1


def test_coverage_counts_from_one_half() -> None:
    assert dsc(TRUTH, Volume(np.where(TRUTH.array, 0.5, 0.49), GRID)) == 1


def test_other_grid_is_refused_with_a_way_out() -> None:
    with pytest.raises(GeometryError, match=r"another grid than the truth: .* Way out: bring both onto one grid"):
        overlap(TRUTH, Volume(TRUTH.array, Geometry.regular(GRID.shape, (2.0, 1.0, 1.1))))
