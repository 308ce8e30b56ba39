"""The drift flag: it fires where an organ grew, moved or went, and not where nothing did."""

import numpy as np
import pytest
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.phantom import Sphere
from oncontour.synthesize.drift import calibrated, compared, drift, judged

GRID = Geometry.regular((40, 48, 48), (2, 2, 2), (-47, -47, -39))
CENTRES = {"Nerve": ((-24.0, 0.0, 0.0), 8.0), "Gland": ((20.0, 4.0, 6.0), 16.0)}


def image(seed=0, *, grow=1.0, shift=(0.0, 0.0, 0.0), erase=False, noise=0.05, grid=GRID):
    """Two bright organs in noise; the nerve spoiled on purpose: ``grow`` times its volume, moved, or erased."""
    rng = np.random.default_rng(seed)
    out = np.zeros(grid.shape)
    for name, (centre, radius) in CENTRES.items():
        if name == "Nerve":
            if erase:
                continue
            centre, radius = tuple(np.add(centre, shift)), radius * grow ** (1 / 3)
        out = np.maximum(out, Sphere(centre, radius).coverage(grid).array)
    return Volume(ndimage.gaussian_filter(out, 0.7) + rng.normal(0, noise, grid.shape), grid)


def segment(volume):
    """A frozen segmenter: what is bright near where the organ should be."""
    smooth = ndimage.gaussian_filter(volume.array, 0.7)
    return {
        name: Volume((smooth > 0.5) & (Sphere(centre, 1.6 * radius).coverage(volume.geometry).array > 0), volume.geometry)
        for name, (centre, radius) in CENTRES.items()
    }


def patient(seed, **spoiled):
    return drift(image(seed), image(1000 + seed, **spoiled), segment)


@pytest.fixture(scope="module")
def limits():
    return calibrated([patient(seed) for seed in range(30)])


def test_by_pencil_a_box_that_doubled_and_moved():
    old, new = np.zeros((4, 10, 10), bool), np.zeros((4, 10, 10), bool)
    old[1:3, 2:4, 2:4], new[1:3, 2:4, 2:6] = True, True
    grid = Geometry.regular((4, 10, 10), (3, 2, 2))
    (found,) = compared({"A": Volume(old, grid)}, {"A": Volume(new, grid)})
    assert (found.volume_ratio, found.shift_mm, found.dsc) == pytest.approx((2, 2, 2 * 8 / 24))
    gone = compared({"A": Volume(old, grid), "B": Volume(old & False, grid)}, {})
    assert [(one.organ, one.volume_ratio, one.shift_mm) for one in gone] == [("A", 0, np.inf)]


@pytest.mark.parametrize("spoiled", [{"grow": 1.2}, {"shift": (0, 5, 0)}, {"shift": (3, 0, -4)}, {"erase": True}], ids=str)
def test_a_spoiled_organ_is_told_in_nine_of_ten(limits, spoiled):
    verdicts = [judged(patient(seed, **spoiled), limits) for seed in range(100, 120)]
    assert sum(bool(one.flagged) for one in verdicts) >= 18
    assert all("Nerve" in one.reasons[0] for one in verdicts if one.flagged)


def test_good_images_are_let_through_in_nine_of_ten(limits):
    assert sum(bool(judged(patient(seed), limits).flagged) for seed in range(200, 240)) <= 4


def test_nothing_drifts_where_a_patient_is_resampled_shifted_as_a_whole_or_noisy(limits):
    shifted = GRID.crop((3, -2, 4), (43, 46, 52))
    finer = GRID.resample((1.5, 1.5, 1.5))
    assert not judged(drift(image(300).to(shifted), image(301).to(shifted), segment), limits).flagged
    assert not judged(drift(image(302).to(finer), image(303).to(finer), segment), limits).flagged
    assert not judged(patient(304, noise=0.08), limits).flagged


def test_without_limits_or_with_too_few_patients_nothing_is_promised():
    assert judged(patient(1, grow=1.2), None).flagged is None
    few = calibrated([patient(seed) for seed in range(8)])
    assert judged(patient(1, grow=1.2), few).flagged is None
    assert judged(patient(1, erase=True), None).reasons == ("Nerve is on the CT alone",)
    with pytest.raises(InputError, match="Nerve: drawn on the CT or on the made image alone"):
        calibrated([patient(1, erase=True)])
    with pytest.raises(InputError, match="no patient"):
        calibrated([])
