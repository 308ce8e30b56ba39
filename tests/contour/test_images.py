"""Contour models that see an MR-like image beside the CT: channels in place, and `run` makes the image that a model needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from torch import Tensor, nn

from oncontour.commands import run as pipeline
from oncontour.commands.train import contour as train_contour
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer, load_contourer
from oncontour.contour.task import ContourTask
from oncontour.contour.thresholds import finish
from oncontour.core.case import Case
from oncontour.errors import ConfigError, InputError, ModelError
from oncontour.io.dicom.series_write import write_series
from oncontour.learn.card import read_card
from oncontour.learn.fit import fit
from oncontour.learn.task import Draw, save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.ops.augment import Ranges
from oncontour.ops.tidy import Tidy
from oncontour.ops.windows import neighbours
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.predict import UNIT
from oncontour.synthesize.signal import textbook
from oncontour.synthesize.task import SynthesizeTask
from tests.phantoms import patient
from tests.synthesize.test_fidelity import limb

FAT_HU = -100
STILL = Ranges(hu_shift=0, hu_scale=0, noise_hu=0)
"""Moves, and no shade of grey: that falls on the CT alone."""


class Bright(nn.Module):
    """A net that draws what shines above a level in its last channel: of an smr, fat."""

    dims, divisor = 2, 1

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return 50 * (x[:, -1:] - self.level)


BRIGHT = ContourSettings(
    structures=("Fat",), net=f"{__name__}:Bright", images=("ct", "smr"), spacing_mm=(3, 2, 2), window=(1, 32, 32), signal=(0.0, 1300.0)
)
"""Level 0 of -1 to 1 is a signal of 650: fat of a textbook has 918, muscle 308."""


def synthesis(path: Path, seed: int = 0) -> Path:
    """A model that answers as the textbook does; another seed, other weights."""
    torch.manual_seed(seed)
    task = SynthesizeTask(SynthesizeSettings(width=3, blocks=1, window=(1, 32, 32), spacing_mm=(3, 2, 2)))
    task.start_afresh()
    save_model(task, path, replace(task.card(), name="none", region="limb"))
    return path


def model(folder: Path) -> Path:
    """A contour model that names the synthesis model beside it."""
    maker = read_card(synthesis(folder / "mr.safetensors"))
    task = ContourTask(replace(BRIGHT, made_by=str(folder / "mr.safetensors")))
    told = {"made_by": {"model": maker.name, "sha256": maker.sha256}}
    save_model(task, folder / "fat.safetensors", replace(task.card(), name="fat", region="limb", made=told))
    return folder / "fat.safetensors"


def with_smr(scale: float = 1.0, offset: float = 1024.0) -> Case:
    """A limb whose smr is known: a straight line of its HU; and its fat."""
    ct = limb()
    smr = ct.map(lambda hu: (scale * hu + offset).astype(np.float32))
    return Case("x", {"ct": ct, "smr": smr}).with_masks({"Fat": ct.map(lambda hu: hu == FAT_HU)})


# ---- what goes in


@pytest.mark.parametrize("neighbour", [0, 1])
def test_a_window_of_the_other_image_moves_with_that_of_the_ct(neighbour):
    settings = replace(
        BRIGHT,
        images=("ct", "smr", "ct"),
        hu=(-300, 500),
        signal=(724, 1524),
        neighbours=neighbour,
        augment=replace(STILL, rotation_deg=20),
    )
    task = ContourTask(settings)
    samples = task.samples(with_smr())
    for draw in (Draw(0, (3, 31, 31), None), Draw(0, (2, 30, 40), 7)):
        image = task.item(samples, draw)["image"].reshape(3, -1, 32, 32)
        assert image[1].numpy() == pytest.approx(image[0].numpy(), abs=1e-3)  # smr = HU + 1024, and so are its grey values
        assert torch.equal(image[0], image[2])
        assert len(image[0].unique()) > 2


def test_channels_are_in_the_same_order_when_predicting():
    settings = replace(BRIGHT, neighbours=1, mask_body=False, signal=(0, 2000), augment=STILL)
    task, case = ContourTask(settings), with_smr()
    item = task.item(task.samples(case), Draw(0, (2.0, 15.5, 15.5), None))["image"].numpy()
    seen = Contourer(task, "torch").image(case, settings.working_grid(case.geometry))
    there = neighbours(seen.array, (slice(2, 3), slice(0, 32), slice(0, 32)), 1, -1.0)
    assert item.shape == there.shape == (6, 32, 32)
    assert item == pytest.approx(there, abs=2e-3)


def test_nets_in_three_dimensions_see_two_images_too_and_thresholds_are_tuned_on_both(tmp_path):
    settings = ContourSettings(
        structures=("Fat",),
        images=("ct", "smr"),
        net_options={"widths": (4, 8)},
        spacing_mm=(3, 2, 2),
        window=(8, 16, 16),
        draws=2,
        tune_threshold=True,
    )
    cases = [replace(with_smr(), id=name) for name in "ab"]
    training = TrainSettings(epochs=1, batch=1, validation=0.5, threads=1)
    done = fit(ContourTask(settings), cases, tmp_path, training, finish=finish)
    assert done.card.made["thresholds"]["Fat"]["patients"] == 2
    drawn = load_contourer(done.model, backend="torch").predict(cases[0])
    assert drawn.segmentation.synthetic is True
    with pytest.raises(InputError, match="no image 'smr'"):
        load_contourer(done.model, backend="torch").predict(Case("x", {"ct": limb()}))


def test_settings_that_contradict_themselves_are_refused():
    for wrong in ({"images": ()}, {"images": ("ct",), "made_by": "limb"}, {"signal": (5, 1)}):
        with pytest.raises(ConfigError):
            replace(BRIGHT, **wrong)


# ---- from the command line's side


def test_a_run_makes_the_image_that_its_model_sees_and_says_so_everywhere(tmp_path):
    ct = limb()
    write_series(ct.map(lambda hu: hu.astype(np.int16)), tmp_path / "ct")
    made = pipeline.run(tmp_path / "ct", out=tmp_path / "out", model=[str(model(tmp_path))], assess=False, backend="torch", tidy=Tidy.off())
    known = UNIT * textbook(ct.array)
    assert np.array_equal(made.case.mask("Fat").array, known > 650)
    assert np.array_equal(made.case.mask("Fat").array, ct.array == FAT_HU)
    (told,) = (text for text in made.record["warnings"] if "synthetic, not acquired" in text)
    assert told.startswith("fat: ")
    assert "none" in told
    assert made.record["models"][0]["synthetic"] is True
    assert pydicom.dcmread(tmp_path / "out" / "rtstruct.dcm").SyntheticData == "YES"


def test_a_model_on_the_ct_alone_draws_nothing_synthetic(tmp_path):
    ct = limb()
    write_series(ct.map(lambda hu: hu.astype(np.int16)), tmp_path / "ct")
    task = ContourTask(replace(BRIGHT, images=("ct", "ct")))
    save_model(task, tmp_path / "ct.safetensors", replace(task.card(), name="fat", region="limb"))
    made = pipeline.run(tmp_path / "ct", out=tmp_path / "out", model=[str(tmp_path / "ct.safetensors")], assess=False, backend="torch")
    assert "synthetic" not in made.record["models"][0]
    assert "SyntheticData" not in pydicom.dcmread(tmp_path / "out" / "rtstruct.dcm")


def test_another_synthesis_model_than_it_learned_with_or_none_is_refused(tmp_path):
    ours = model(tmp_path)
    patient(tmp_path / "x", Case("x", {"ct": limb()}))
    synthesis(tmp_path / "mr.safetensors", seed=1)
    with pytest.raises(ModelError, match="learned on images of none"):
        pipeline.run(tmp_path / "x", out=tmp_path / "out", model=[str(ours)])
    (tmp_path / "mr.safetensors").unlink()
    with pytest.raises(ModelError, match="fat sees an image that none makes of the CT"):
        pipeline.run(tmp_path / "x", out=tmp_path / "out", model=[str(ours)])


def test_training_makes_the_image_of_every_patient_and_the_card_names_what_made_it(tmp_path):
    for name in "ab":
        case = with_smr()
        patient(tmp_path / "cohort" / name, Case(name, {"ct": case.ct}).with_masks({"Fat": case.mask("Fat")}))
    settings = ContourSettings(
        structures=("Fat",),
        images=("ct", "smr"),
        made_by=str(synthesis(tmp_path / "mr.safetensors")),
        net="unet",
        net_options={"base": 4, "levels": 2},
        spacing_mm=(3, 2, 2),
        window=(1, 32, 32),
        draws=2,
    )
    training = TrainSettings(epochs=1, batch=1, validation=0.0, threads=1)
    train_contour(tmp_path / "cohort", out=tmp_path / "runs" / "arm", settings=settings, training=training, name="arm", region="limb")
    card = read_card(tmp_path / "runs" / "arm" / "arm.safetensors")
    assert card.settings["made_by"] == "../../mr.safetensors"
    assert card.made["made_by"] == {"model": "none", "sha256": read_card(tmp_path / "mr.safetensors").sha256}
    made = pipeline.run(tmp_path / "cohort" / "a", out=tmp_path / "out", model=[str(tmp_path / "runs" / "arm" / "arm.safetensors")])
    assert made.record["models"][0]["synthetic"] is True
