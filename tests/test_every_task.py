"""What every row of TASKS must do; a new task is tested by having a row and a small setting here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oncontour.adapt.task import AdaptSettings
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer
from oncontour.learn import TASKS, task_class
from oncontour.learn.fit import fit
from oncontour.learn.task import load_task, save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.phantom import head_neck
from oncontour.quality.inputs import AssessSettings
from oncontour.quality.predict import Assessor
from oncontour.risk.predict import RiskPredictor
from oncontour.risk.task import RiskSettings
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.signal import textbook

PREDICTORS = {"contour": lambda task: Contourer(task, "torch"), "assess": lambda task: Assessor(task, "torch"), "risk": RiskPredictor}
SMALL = {
    "contour": ContourSettings(
        structures=("Bone_Mandible", "Parotid_L", "Parotid_R"),
        net_options={"widths": (8, 16, 16)},
        spacing_mm=(6.0, 5.0, 5.0),
        window=(16, 32, 32),
        draws=16,
    ),
    "assess": AssessSettings(
        structures=("Bone_Mandible", "Parotid_L", "Parotid_R"),
        net_options={"width": 16, "depth": 1, "stem": (4, 8, 8)},
        spacing_mm=(6.0, 5.0, 5.0),
        window=(32, 32),
        variants=3,
        draws=32,
    ),
    "adapt": AdaptSettings(
        structures=("Bone_Mandible", "Parotid_L", "Parotid_R"),
        spacing_mm=(6.0, 5.0, 5.0),
        window=(32, 32, 32),
        widths=(4, 6, 8),
        visits=2,
    ),
    "synthesize": SynthesizeSettings(width=4, window=(1, 32, 32), spacing_mm=(6.0, 5.0, 5.0), draws=8, pool=3),
    "risk": RiskSettings(toxicities=("xerostomia",), net_options={"widths": (4, 8, 8, 8), "embedding": 8}, window=(8, 16, 16)),
}


@pytest.fixture(scope="module")
def cases():
    made = [head_neck(seed, (6, 5, 5), 1.0, (32, 48, 48)) for seed in range(4)]
    return [_with_mr(replace(case, facts={**case.facts, "outcomes": {"xerostomia": n % 2 == 0}}), n) for n, case in enumerate(made)]


def _with_mr(case, seed):
    """The case with an MR as a textbook has it, and noise."""
    noise = np.random.default_rng(seed).normal(0, 10, case.ct.array.shape)
    return case.with_images({"mr": case.ct.map(lambda hu: np.abs(1000 * textbook(hu) + noise).astype(np.float32))})


@pytest.fixture(params=sorted(TASKS))
def task(request):
    torch.manual_seed(0)
    return task_class(request.param)(SMALL[request.param])


def test_samples_items_and_loss_meet(task, cases):
    samples = [s for case in cases for s in task.samples(case)]
    draws = task.plan(samples, np.random.default_rng(0), train=True)
    batch = torch.utils.data.default_collate([task.item(samples, draw) for draw in draws[:2]])
    loss, figures = task.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert figures
    assert all(p.grad is not None for p in task.net.parameters())


def test_where_the_net_computes_in_16_bits_losses_are_float32_and_the_same(task, cases):
    samples = [s for case in cases for s in task.samples(case)]
    draws = task.plan(samples, np.random.default_rng(0), train=True)
    batch = torch.utils.data.default_collate([task.item(samples, draw) for draw in draws[:4]])
    torch.manual_seed(1)  # of dropout
    whole, _ = task.loss(batch)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short, _ = task.loss(batch)
    assert short.dtype == torch.float32
    assert not torch.equal(short, whole)
    assert float(short.detach()) == pytest.approx(float(whole.detach()), rel=0.05)


def test_the_same_draw_is_the_same_item(task, cases):
    samples = [s for case in cases for s in task.samples(case)]
    draw = task.plan(samples, np.random.default_rng(1), train=True)[0]
    a, b = task.item(samples, draw), task.item(samples, draw)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_watching_draws_do_not_depend_on_the_dice(task, cases):
    samples = [s for case in cases for s in task.samples(case)]
    assert task.plan(samples, np.random.default_rng(1), train=False) == task.plan(samples, np.random.default_rng(2), train=False)


def _predicted(task, case):
    return PREDICTORS[task.name](task).predict(case)


def _told(case, task):
    """What the task says of the structures."""
    return case.risk.figures if task.name == "risk" else case.assessment.structures


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"contour", "adapt", "synthesize"}), indirect=True)
def test_survives_its_file_and_answers_on_the_case_s_grid(task, cases, tmp_path: Path):
    outcome = fit(task, cases[:3], tmp_path, TrainSettings(epochs=1, batch=8, validation=0, threads=1))
    loaded, unseen = load_task(outcome.model), cases[3]
    answer = _predicted(loaded, unseen)
    assert answer.geometry.same_grid(unseen.geometry)
    assert answer.id == unseen.id
    assert set(answer.structures) == set(unseen.structures)
    again = tmp_path / "again.safetensors"
    save_model(loaded, again, half=False)
    repeated = _predicted(load_task(again), unseen)
    assert _told(repeated, task) == _told(answer, task)


@pytest.mark.parametrize("task", ["contour"], indirect=True)
def test_learns_a_phantom_survives_its_file_and_answers_on_the_case_s_grid(task, cases, tmp_path: Path):
    outcome = fit(task, cases[:3], tmp_path, TrainSettings(epochs=14, batch=2, learning_rate=8e-3, validation=0, threads=1))
    loaded = load_task(outcome.model)
    unseen = cases[3]
    answer = _predicted(loaded, unseen.without_structures())
    assert answer.geometry.same_grid(unseen.geometry)
    assert answer.id == unseen.id
    assert set(answer.structures) == set(SMALL[task.name].structures)
    found, true = answer.mask("Bone_Mandible").array, unseen.mask("Bone_Mandible").array
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.5
    again = tmp_path / "again.safetensors"
    save_model(loaded, again, half=False)
    repeated = _predicted(load_task(again), unseen.without_structures())
    assert all((repeated.mask(name).array == answer.mask(name).array).all() for name in answer.structures)
