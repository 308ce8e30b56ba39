"""Figures of a made image that a pencil, or another library, can say beforehand."""

import numpy as np
import pytest
import torch

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError, InputError
from oncontour.synthesize.fidelity import agreement, checkerboard, correlation, fidelity, flicker, gradient, mutual_information, ssim
from oncontour.synthesize.signal import bias_field, normalised, outline, textbook

GRID = Geometry.regular((6, 64, 64), (3, 2, 2))
EVERYWHERE = np.ones(GRID.shape, bool)


def limb(grid=GRID):
    """A CT of a limb: fat of 12 mm round muscle round a bone, in air."""
    _, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    mm = np.hypot((j - (grid.shape[1] - 1) / 2) * grid.spacing_mm[1], (i - (grid.shape[2] - 1) / 2) * grid.spacing_mm[2])
    hu = np.select([mm < 8, mm < 38, mm < 50], [800, 50, -100], -1000)
    return Volume(hu.astype(np.float32), grid)


def noise(seed=0, size=1.0):
    return np.random.default_rng(seed).normal(0, size, GRID.shape).astype(np.float32)


def test_the_textbook_s_image_of_a_limb_has_fat_bright_edges_in_place_and_no_artefact():
    ct = limb()
    found = fidelity(ct, ct.map(textbook))
    assert found.body_dice == 1
    assert found.fat_over_muscle == pytest.approx(0.918 / 0.3076, rel=0.02)  # the curve at -100 and 50 HU, by hand
    assert found.gradient_correlation > 0.8
    assert found.flicker == 0
    assert found.checkerboard < 0.02


def test_an_inverted_image_shows_itself_and_likeness_of_gradients_does_not_mind():
    ct = limb()
    made = Volume(np.where(ct.array > -500, 1.3 - textbook(ct.array), 0).astype(np.float32), GRID)
    assert fidelity(ct, made).fat_over_muscle < 0.5


def test_a_shifted_image_loses_outline_and_gradients():
    ct = limb()
    moved = ct.map(lambda hu: textbook(np.roll(hu, 4, axis=2)))
    found = fidelity(ct, moved)
    # Two discs of radius r whose centres lie d apart share all but 2 r d of pi r^2, to first order.
    assert found.body_dice == pytest.approx(1 - 2 * 4 / (np.pi * 25), abs=0.02)
    assert found.gradient_correlation < 0.3


@pytest.mark.parametrize("pattern", [[1, -1, 1, -1], [1, 1, -1, -1], [3, -1, -1, -1]])
def test_what_repeats_with_the_stride_is_all_of_it_and_noise_is_none(pattern):
    made = np.broadcast_to(np.tile(pattern, 16), GRID.shape).astype(np.float32)
    assert checkerboard(made, EVERYWHERE) == pytest.approx(1, abs=0.01)
    assert checkerboard(noise(), EVERYWHERE) < 0.005
    # Of a pattern and noise of as much energy in the finest detail, half is the pattern's.
    size = float(np.std(np.asarray(pattern)))
    detail_of_noise = np.sqrt(1 - 2 * (1 / 4) ** 2 + (0.125**2 * 2 + 3 / 16) ** 2)  # white noise less its mean over the box
    both = made + noise(1, size / detail_of_noise)
    assert checkerboard(both, EVERYWHERE) == pytest.approx(0.5, abs=0.03)


def test_a_pattern_of_another_period_is_no_checkerboard():
    made = np.broadcast_to(np.tile([1, 0, -1], 22)[:64], GRID.shape).astype(np.float32)
    assert checkerboard(made, EVERYWHERE) < 0.01


def test_slices_that_jump_by_twice_a_flicker_by_that_and_noise_hardly_does():
    hu = np.full(GRID.shape, 40.0)
    signal = np.where(np.arange(6)[:, None, None] % 2, 0.5 + 0.03, 0.5 - 0.03) * np.ones(GRID.shape)
    assert flicker(hu, signal.astype(np.float32), EVERYWHERE) == pytest.approx(0.06, abs=1e-6)
    assert flicker(hu, 0.5 + noise(size=0.03), EVERYWHERE) < 0.03 * np.sqrt(2) / 6
    assert np.isnan(flicker(hu[:1], signal[:1].astype(np.float32), EVERYWHERE[:1]))
    changing = hu + 50 * np.arange(6)[:, None, None]
    assert np.isnan(flicker(changing, signal.astype(np.float32), EVERYWHERE))


def test_mutual_information_is_2_of_an_image_with_itself_however_inverted_and_1_of_strangers():
    a = np.random.default_rng(0).integers(0, 8, GRID.shape).astype(np.float32)
    assert mutual_information(a, -a, EVERYWHERE) == pytest.approx(2)
    stranger = np.random.default_rng(1).integers(0, 8, GRID.shape).astype(np.float32)
    assert mutual_information(a, stranger, EVERYWHERE) == pytest.approx(1, abs=0.002)
    assert np.isnan(mutual_information(a * 0, a * 0, EVERYWHERE))


def test_the_gradient_of_a_slope_is_its_slope_per_mm():
    slope = np.broadcast_to(np.arange(64) * 0.5, GRID.shape).astype(np.float32)  # 0.25 a mm
    assert gradient(slope, Volume(slope, GRID))[:, :, 1:-1] == pytest.approx(0.25)
    assert correlation(slope, -slope, EVERYWHERE) == pytest.approx(-1)
    assert np.isnan(correlation(slope, slope * 0, EVERYWHERE))


def test_ssim_is_that_of_monai():
    from monai.metrics.regression import compute_ssim_and_cs

    a = np.clip(textbook(limb().array) + noise(0, 0.05), 0, 1)
    b = np.clip(a + noise(1, 0.1), 0, 1)
    x, y = (torch.from_numpy(v)[:, None] for v in (a, b))
    theirs, _ = compute_ssim_and_cs(x, y, 2, (11, 11), (1.5, 1.5), 1.0, "gaussian", 0.01, 0.03)
    assert ssim(a, b)[:, 5:-5, 5:-5] == pytest.approx(theirs[:, 0].numpy(), abs=1e-4)


def test_against_the_real_image_offsets_scale_and_blur_are_told_apart():
    ct = limb()
    real = ct.map(lambda hu: 1000 * textbook(hu))
    same = agreement(real.map(lambda v: v / 7), real, outline(real).array)
    assert same.mae == pytest.approx(0, abs=1e-6)
    assert (same.ssim, same.correlation, same.gradient_correlation, same.sharpness, same.body_dice) == pytest.approx((1, 1, 1, 1, 1))
    assert same.psnr_db == pytest.approx(120)
    from scipy import ndimage

    blurred = agreement(real.map(lambda v: ndimage.gaussian_filter(v, (0, 2, 2))), real, outline(real).array)
    assert blurred.sharpness < 0.9
    top = float(np.percentile(real.array[outline(real).array], 95))
    darker = real.map(lambda v: np.where(v < 400, v + 0.1 * top, v))  # muscle and bone lighter by a tenth of the range, fat as it was
    inside = outline(real).array
    part = float((real.array[inside] < 400).mean())
    assert agreement(darker, real, inside).mae == pytest.approx(0.1 * part, rel=0.02)


def test_pairs_on_two_grids_and_nan_are_refused():
    ct = limb()
    other = limb(Geometry.regular((6, 64, 64), (3, 2, 2.1)))
    with pytest.raises(GeometryError, match=r"of 3 x 2 x 2\.1 mm instead of"):
        fidelity(ct, other)
    with pytest.raises(InputError, match="NaN"):
        fidelity(ct, ct.map(lambda hu: np.where(hu == 50, np.nan, hu)))


# ---- what MR values mean


def test_a_known_bias_field_is_found_and_taken_off():
    """Muscle and fat under a field of 25 % to either side: what is left of it is a sixth, and without a field nothing is found."""
    ct = limb(Geometry.regular((16, 64, 64), (3, 2, 2)))
    true = 1000 * textbook(ct.array) + np.random.default_rng(0).normal(0, 10, ct.array.shape)
    k, j, i = (np.linspace(-1, 1, n) for n in ct.array.shape)
    field = 0.25 * (0.7 * i[None, None] + 0.5 * j[None, :, None] ** 2 - 0.4 * k[:, None, None])
    spoiled = ct.map(lambda _: np.maximum(true * np.exp(field), 0))
    inside = outline(spoiled).array
    left = (field - bias_field(spoiled, inside))[inside]
    assert left.std() < 0.2 * field[inside].std()
    assert np.abs(bias_field(ct.map(lambda _: np.maximum(true, 0)), inside)[inside]).std() < 0.02


def test_an_mr_is_scaled_to_its_fat_and_one_with_dark_fat_is_refused():
    ct = limb()
    scaled, inside = normalised(ct.map(lambda hu: 321 * textbook(hu)))
    assert float(np.median(scaled.array[ct.array == -100])) == pytest.approx(1, abs=0.02)
    assert inside.array.sum() == pytest.approx((ct.array > -500).sum(), rel=0.01)
    with pytest.raises(InputError, match="fat is dark"):
        normalised(ct.map(lambda hu: np.where(hu > -500, 500 * (1.2 - textbook(hu)), 0)))
    with pytest.raises(InputError, match="no patient"):
        normalised(ct.map(lambda hu: hu * 0))
    with pytest.raises(InputError, match="NaN"):
        normalised(ct.map(lambda hu: hu * np.nan))
