"""Learning to make images without pairs: whose images meet, who learns when, and that a run is the same twice and after a stop."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from oncontour.core.case import Case
from oncontour.errors import ConfigError, InputError, TrainingError
from oncontour.learn.fit import cpu_has_bfloat16, fit
from oncontour.learn.lesson import rate_of
from oncontour.learn.task import load_task
from oncontour.learn.train_settings import TrainSettings
from oncontour.synthesize.generators import Curve, Smoothed, textbook_image
from oncontour.synthesize.inputs import HU_RANGE, SIGNAL_RANGE, SynthesizeSettings, check_ct, to_net
from oncontour.synthesize.objective import Pool, edges_apart, judged, outside, textures_apart
from oncontour.synthesize.signal import textbook
from oncontour.synthesize.task import SynthesizeTask, finish
from tests.synthesize.test_fidelity import GRID, limb, noise

SMALL = SynthesizeSettings(width=3, blocks=1, window=(1, 32, 32), spacing_mm=(3, 2, 2), draws=4, pool=2, correct_bias=False)
QUICK = TrainSettings(epochs=3, batch=1, learning_rate=1e-3, schedule="linear", weight_decay=0, validation=0.5, threads=1, keep="best")


def patients(count=4):
    """The CT and the MR of each, as two cases."""
    ct = limb()
    for n in range(count):
        mr = ct.map(lambda hu, n=n: np.abs(1000 * textbook(hu) + 20 * noise(n)).astype(np.float32))
        yield from (Case(f"p{n}", {"ct": ct}), Case(f"p{n}", {"mr_t1": mr}))


@pytest.fixture(scope="module")
def samples():
    task = SynthesizeTask(SMALL)
    return [one for case in patients() for one in task.samples(case)]


def curve_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


# ---- whose images meet


def test_a_ct_never_meets_the_mr_of_the_same_patient(samples):
    task = SynthesizeTask(replace(SMALL, draws=64))
    mr = {one.case_id: one.values for one in samples if one.kind == "mr"}
    for train in (True, False):
        for draw in task.plan(samples, np.random.default_rng(0), train=train):
            own = mr[samples[draw.sample].case_id]
            shown = task.item(samples, draw)["mr"][0].numpy()
            windows = np.lib.stride_tricks.sliding_window_view(own, (32, 32), axis=(1, 2))
            assert not any((windows == part).all(axis=(3, 4)).any() for part in (shown, shown[:, ::-1]))


def test_a_patient_alone_a_ct_alone_and_an_mr_alone_are_not_enough(samples):
    task = SynthesizeTask(SMALL)
    for few in (samples[:2], samples[::2], samples[1::2]):
        with pytest.raises(TrainingError, match="CT and MR of different patients"):
            task.plan(few, np.random.default_rng(0), train=True)
    with pytest.raises(InputError, match="neither a CT nor an MR"):
        task.samples(Case("x", {"dose": limb()}))


def test_a_slice_smaller_than_the_window_goes_on_as_its_mirror_image(samples):
    task = SynthesizeTask(replace(SMALL, window=(1, 96, 96)))
    item = task.item(samples, task.plan(samples, np.random.default_rng(0), train=False)[0])
    image = item["image"][0].numpy()
    assert image.shape == (96, 96)
    assert (image[64:] == image[32:64][::-1]).all()


# ---- what is made small


def test_a_discriminator_s_answers_are_judged_by_their_distance():
    answers = torch.tensor([0.0, 0.5, 1.0, 2.0])
    assert float(judged(answers, True, "mae")) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert float(judged(answers, True, "mse")) == pytest.approx((1 + 0.25 + 0 + 1) / 4)
    assert float(judged(answers, False, "mae")) == pytest.approx((0 + 0.5 + 1 + 2) / 4)


def test_edges_in_place_cost_nothing_whatever_their_height_moved_ones_do():
    x = torch.from_numpy(textbook(limb().array))[:, None]
    assert float(edges_apart(x, 3 * x + 1)) == pytest.approx(0, abs=1e-5)
    assert float(edges_apart(x, -x)) == pytest.approx(2, abs=1e-5)
    assert 0.2 < float(edges_apart(x, x.roll(2, 3))) < 1.2


def test_signal_in_the_air_is_counted_and_none_in_the_patient():
    body = torch.zeros(1, 1, 4, 4)
    body[..., :2] = 1
    made = torch.full((1, 1, 4, 4), -1.0)
    made[..., :2] = 0.7
    assert float(outside(made, body)) == 0
    made[0, 0, 0, 3] = 0.6  # 1.6 above air in one of eight pixels
    assert float(outside(made, body)) == pytest.approx(1.6 / 8)


def test_textures_tell_blur_noise_and_contrast_without_pairs():
    body = torch.ones(1, 1, 64, 64)
    real = torch.from_numpy(textbook(limb().array) + noise(0, 0.05))[:, None]
    alike = real.roll(5, 0).flip(3)  # the same tissue elsewhere
    ones = body.expand(len(real), -1, -1, -1)

    def apart(made):
        return float(textures_apart(made, alike, ones, ones))

    smooth = torch.from_numpy(textbook(limb().array))[:, None]
    inverted = 1 - real
    assert apart(real) < 0.1 * min(apart(smooth), apart(real + 0.2 * torch.randn(real.shape)), apart(inverted))


def test_a_curve_in_torch_is_the_interpolation():
    hu = np.linspace(-1000, 1000, 501)
    found = textbook_image(SynthesizeSettings())(torch.from_numpy(to_net(hu, HU_RANGE)))
    assert found.numpy() == pytest.approx(to_net(textbook(hu), SIGNAL_RANGE), abs=1e-5)
    assert Curve([(0, 1), (1, 3), (2, 2)])(torch.tensor([-5.0, 0, 0.5, 1.5, 9])).tolist() == pytest.approx([1, 1, 2, 2.5, 2])


def test_a_smoothed_image_is_the_gaussian_s_and_sharpened_it_has_steeper_edges_and_as_much_light():
    from scipy import ndimage

    x = torch.zeros(1, 1, 41, 41)
    x[..., 20:] = 0.5
    x[0, 0, 20, 10] = 0.8
    plain, sharper = Smoothed(0.9, 0.0)(x)[0, 0].numpy(), Smoothed(0.9, 0.5)(x)[0, 0].numpy()
    assert plain == pytest.approx(ndimage.gaussian_filter(x[0, 0].numpy(), 0.9, mode="nearest", radius=7), abs=1e-4)
    again = ndimage.gaussian_filter(plain, 2.0, mode="nearest", radius=7)
    assert sharper[14:27, 14:27] == pytest.approx((plain + 0.5 * (plain - again))[14:27, 14:27], abs=2e-3)
    assert float(Smoothed(0.9, 0.5)(torch.full((1, 1, 9, 9), 0.3)).std()) == pytest.approx(0, abs=1e-6)
    assert Smoothed(0.9, 2.0)(2 * x - 1).min() == -1, "no signal is less than that of air"


def test_a_generator_begins_as_the_smoothed_textbook_and_its_edges_are_held_to_that():
    task = SynthesizeTask(replace(SMALL, smooth=(0.9, 0.5)))
    task.start_afresh()
    x = torch.from_numpy(to_net(limb().array, HU_RANGE))[:, None]
    sharp = SynthesizeTask(SMALL).textbook(x)
    assert torch.equal(task.net(x), task.textbook(x))
    assert not torch.allclose(task.textbook(x), sharp, atol=0.1)
    figures = task.loss({"image": x, "mr": sharp, "body": torch.ones_like(x), "mr_body": torch.ones_like(x)})[1]
    assert figures["edges"] == pytest.approx(0, abs=1e-5)
    for wrong in ((0.9,), (-1.0, 0.0)):
        with pytest.raises(ConfigError):
            replace(SMALL, smooth=wrong)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 of its own")
@pytest.mark.parametrize("mode", ["fair", "paper"])
def test_it_learns_in_16_bits_what_it_learns_in_32(tmp_path, mode):
    found = {}
    for precision in ("float32", "bfloat16"):
        task = SynthesizeTask(replace(SMALL, mode=mode))
        fit(task, patients(), tmp_path / precision, replace(QUICK, epochs=1, precision=precision))
        (found[precision],) = curve_of(tmp_path / precision)
    for name in ("train_cycle", "watch_textures", "watch_edges"):
        assert float(found["bfloat16"][name]) == pytest.approx(float(found["float32"][name]), rel=0.05, abs=0.02)


def test_a_pool_fills_then_shows_earlier_images_half_of_the_time():
    torch.manual_seed(0)
    pool = Pool(3, (2, 2))
    shown = [float(pool.swap(torch.full((1, 1, 2, 2), float(n)))[0, 0, 0, 0]) for n in range(400)]
    assert shown[:3] == [0, 1, 2]
    earlier = np.array([one < n for n, one in enumerate(shown)][3:])
    assert 0.4 < earlier.mean() < 0.6
    assert len(set(shown[3:])) == 397  # one that was replaced is gone
    assert Pool(0, (2, 2)).swap(torch.ones(1, 1, 2, 2)).sum() == 4


# ---- who learns when


@pytest.mark.parametrize("mode", ["paper", "fair"])
@pytest.mark.parametrize("denoise", ["own", "fake", "none"])
def test_each_part_learns_in_its_turn_and_the_other_stays(samples, mode, denoise):
    torch.manual_seed(0)
    task = SynthesizeTask(replace(SMALL, mode=mode, denoise=denoise))
    task.start_afresh()
    batch = torch.utils.data.default_collate([task.item(samples, d) for d in task.plan(samples, np.random.default_rng(0), train=True)[:2]])
    parts = task.parts()
    everything = [p for part in parts for p in part]
    for n, (loss, figures) in enumerate(task.turns(batch)):
        for p in everything:
            p.grad = None
        loss.backward()
        learned = [[p.grad is not None for p in part] for part in parts]
        assert all(learned[n])
        assert not any(learned[1 - n])
        assert all(np.isfinite(list(figures.values())))
    assert ("judge_denoise" in figures) == (denoise == "own")


def test_a_fair_generator_begins_as_the_textbook(samples):
    torch.manual_seed(0)
    task = SynthesizeTask(SMALL)
    task.start_afresh()
    x = torch.from_numpy(samples[0].values)[:, None]
    with torch.no_grad():
        assert torch.equal(task.net(x), task.textbook(x))


def test_the_rate_is_whole_for_half_of_the_training_then_falls_straight_to_nothing():
    rate = rate_of("linear", 200)
    assert [rate(n) for n in (0, 99, 100, 150, 199)] == pytest.approx([1, 1, 1, 0.5, 0.01])


# ---- runs


def test_two_runs_are_bit_equal_and_one_that_was_stopped_goes_on_to_the_same(tmp_path):
    class Stop(Exception):
        pass

    class Stopping(SynthesizeTask):
        """Stops in the middle of its last epoch."""

        seen = 0

        def turns(self, batch):
            self.seen += 1
            if self.seen > 10:
                raise Stop
            yield from super().turns(batch)

    whole = fit(SynthesizeTask(SMALL), patients(), tmp_path / "whole", QUICK, finish=finish)
    fit(SynthesizeTask(SMALL), patients(), tmp_path / "again", QUICK)
    with pytest.raises(Stop):
        fit(Stopping(SMALL), patients(), tmp_path / "stopped", QUICK)
    assert len(curve_of(tmp_path / "stopped")) == 2
    shutil.copytree(tmp_path / "stopped", tmp_path / "moved")
    torch.manual_seed(99)  # whatever the process did before must not matter
    fit(SynthesizeTask(SMALL), patients(), tmp_path / "moved", QUICK)
    rows = curve_of(tmp_path / "whole")
    assert rows == curve_of(tmp_path / "again") == curve_of(tmp_path / "moved")
    models = [load_task(tmp_path / name / "model.safetensors").net.state_dict() for name in ("whole", "again", "moved")]
    assert all(torch.equal(models[0][key], other[key]) for other in models[1:] for key in models[0])
    losses = [float(row["watch_loss"]) for row in rows]
    assert whole.card.made["kept"] == {"epoch": 1 + losses.index(min(losses)), "watch_loss": min(losses)}
    assert (whole.card.made["ct"], whole.card.made["mr"], whole.card.made["both"]) == (2, 2, 2)


def test_the_file_keeps_the_generator_alone_and_the_epoch_that_was_best(tmp_path):
    outcome = fit(SynthesizeTask(SMALL), patients(), tmp_path, replace(QUICK, epochs=2))
    task = load_task(outcome.model)
    assert task.rivals is None
    assert task.settings == SMALL
    with pytest.raises(TrainingError, match="no discriminators"):
        task.parts()


def test_what_training_in_turns_does_not_do_is_refused(tmp_path):
    for wrong in ({"devices": 2}, {"schedule": "plateau"}):
        with pytest.raises(ConfigError, match="in turns"):
            fit(SynthesizeTask(SMALL), patients(), tmp_path, replace(QUICK, **wrong))
    with pytest.raises(ConfigError, match="keep best"):
        TrainSettings(keep="best", validation=0)


@pytest.mark.parametrize(
    "wrong", [{"window": (1, 30, 32)}, {"window": (4, 32, 32)}, {"noise": (0.2, 0.1)}, {"terms": {"style": 1}}, {"width": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot be used"):
        replace(SMALL, **wrong)


# ---- bad input


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda hu: 1000 * textbook(hu), "no CT in HU"),
        (lambda hu: hu * 0 - 1000, "no CT in HU"),
        (lambda hu: np.where(hu == 50, np.nan, hu), "NaN"),
    ],
    ids=["mr", "air", "nan"],
)
def test_what_is_no_ct_is_refused(spoil, said):
    with pytest.raises(InputError, match=said):
        check_ct(limb().map(spoil))
    check_ct(limb())
    with pytest.raises(InputError, match="is no volume"):
        check_ct(limb().to(GRID.crop((0, 0, 0), (1, 64, 64))))
