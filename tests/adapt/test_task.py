"""Training to adapt: every variant learns and comes back from its file; losses in mm; sides, weights of losses, resuming, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oncontour.adapt.balance import Balance
from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import paired
from oncontour.adapt.objective import Level, read, whole
from oncontour.adapt.predict import Adapter
from oncontour.adapt.register import Resolution, Settings
from oncontour.adapt.simulate import Planning, VisitSettings
from oncontour.adapt.task import VARIANTS, AdaptSettings, AdaptTask, finish, places
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError, ModelError, TrainingError
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.phantom import head_neck
from tests.core.test_geometry import rotation

ORGANS = ("Bone_Mandible", "Parotid_L", "Parotid_R")
SMALL = AdaptSettings(structures=ORGANS, spacing_mm=(6.0, 6.0, 6.0), window=(24, 24, 32), widths=(3, 4, 5), visits=1)
ONCE = TrainSettings(epochs=1, batch=2, validation=0, threads=1)


@pytest.fixture(scope="module")
def planning() -> Case:
    return head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))


@pytest.fixture(scope="module")
def pair(planning: Case):
    return AdaptTask(SMALL).samples(planning)[0]


def batch_of(task: AdaptTask, pairs, seed: int | None = None):
    rng = np.random.default_rng(0)
    draws = [replace(draw, seed=seed) for draw in task.plan(pairs, rng, train=seed is not None)]
    return torch.utils.data.default_collate([task.item(pairs, draw) for draw in draws])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_its_losses_and_every_weight_learns(variant: str, pair) -> None:
    torch.manual_seed(0)
    task = AdaptTask(replace(SMALL, variant=variant)).train()
    total, figures = task.loss(batch_of(task, [pair, pair], seed=1))
    total.backward()
    assert torch.isfinite(total)
    assert {name for name in figures if name.startswith("loss_")} == {f"loss_{name}" for name in VARIANTS[variant].losses}
    assert all(p.grad is not None for p in task.net.parameters())
    assert ("flow1_into_seg" in figures) == variant.startswith("crossstitch")


@pytest.mark.parametrize("weighting", ["equal", "uncertainty", "gradnorm", "dwa"])
def test_every_weighting_trains(weighting: str, planning: Case, tmp_path: Path) -> None:
    outcome = fit(AdaptTask(replace(SMALL, weighting=weighting, draws=2)), [planning], tmp_path, replace(ONCE, epochs=2), finish=finish)
    assert outcome.card.made["simulated_visits"] == 1


def test_mode_paper_trains_on_windows_with_label_numbers() -> None:
    case = head_neck(1, (6, 5, 5), 1.0, (32, 48, 48))
    torch.manual_seed(0)
    task = AdaptTask(replace(SMALL, mode="paper", window=(44, 44, 44), volume=(44, 44, 48), variant="crossstitch-b", draws=1)).train()
    batch = batch_of(task, task.samples(case), seed=3)
    assert batch["image"].shape[1:] == (3, 44, 44, 44)
    assert set(batch["image"][0, 2].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    loss, _ = task.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)


def test_a_flip_changes_sides_and_the_sign_of_x_and_twice_is_nothing(pair) -> None:
    from oncontour.adapt.task import _flipped
    from oncontour.ops.augment import mirrored

    masks = np.random.default_rng(0).random((3, 2, 3, 4)).astype(np.float32)
    field = np.random.default_rng(1).standard_normal((3, 2, 3, 4)).astype(np.float32)
    found = {"fixed_masks": masks, "moving_masks": masks, "start": field, "truth": field, "fixed": masks[:1]}
    mirror = mirrored(ORGANS)
    once = _flipped(found, mirror)
    assert np.array_equal(once["fixed_masks"][1], masks[2][..., ::-1])
    assert np.array_equal(once["truth"][0], -field[0][..., ::-1])
    assert np.array_equal(once["truth"][2], field[2][..., ::-1])
    twice = _flipped(once, mirror)
    assert all(np.array_equal(twice[name], found[name]) for name in found)


def test_the_true_field_makes_the_planning_visit_look_like_the_daily_one(pair) -> None:
    """The loss of the truth itself: no error in mm, DSC near what the second observer leaves, far better than of no field."""
    task = AdaptTask(replace(SMALL, variant="jrs-reg-a"))
    batch = batch_of(task, [pair])
    truth = batch["truth"]
    step = torch.tensor(SMALL.spacing_mm[::-1]).reshape(1, 3, 1, 1, 1)
    told = {}
    for name, field in (("truth", truth), ("nothing", torch.zeros_like(truth))):
        task.net.joint.answers = lambda image, field=field: [[field[..., ::s, ::s, ::s] / step] for s in (1, 2, 4)]
        told[name] = task.loss(batch)[1]
    assert told["truth"]["field_mm"] < 0.02
    assert told["nothing"]["field_mm"] > 0.8
    assert told["truth"]["dsc_carried"] > told["nothing"]["dsc_carried"] + 0.02
    assert told["truth"]["correlation"] > told["nothing"]["correlation"]


def test_a_field_after_a_start_is_their_composition() -> None:
    """v(x) + s(x + v(x)): a shift of 6 mm to the left reads a start that grows to the left where it leads, not where it began."""
    at = places((4, 4, 8))
    spacing = torch.tensor([3.0, 3.0, 3.0])
    start = torch.zeros(1, 3, 4, 4, 8)
    start[0, 1] = at[0]  # y component: as many mm as the voxel's number along i
    v = torch.zeros_like(start)
    v[:, 0] = 6.0
    moved, total = whole(v, start, at[None], spacing)
    assert float(total[0, 1, 2, 2, 3]) == pytest.approx(5.0, abs=1e-4)
    assert moved[0, :, 2, 2, 3].tolist() == pytest.approx([3 + 2, 2 + 5 / 3, 2], abs=1e-4)


def test_reading_at_voxels_is_exact_and_between_them_linear() -> None:
    full = torch.arange(24.0).reshape(1, 1, 2, 3, 4)
    at = torch.tensor([[1.5, 2.0, 0.0], [3.0, 0.0, 1.0]]).T.reshape(1, 3, 2, 1, 1)
    assert read(full, at).flatten().tolist() == pytest.approx([8 + 1.5, 12 + 3], abs=1e-4)


def test_a_resolution_takes_every_other_voxel_from_its_margin_on() -> None:
    full = torch.arange(10.0).expand(10, 10, 10)
    level = Level(2, 3, (3, 3, 3))
    assert level.of(full)[0, 0].tolist() == [3, 5, 7]
    assert level.places(full)[0, 0, 0, 0].tolist() == [3, 5, 7]


# ---- weights of the losses


def test_uncertainty_counts_a_noisy_task_less() -> None:
    balance = Balance(("a", "b"), "uncertainty")
    optimiser = torch.optim.SGD(balance.parameters(), 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        balance({"a": torch.tensor(4.0), "b": torch.tensor(0.25)}, []).backward()
        optimiser.step()
    # d/ds (exp(-s) L + s) = 0 where exp(s) = L
    assert balance.log_variance.exp().tolist() == pytest.approx([4.0, 0.25], rel=0.02)


def test_dwa_weighs_by_equation_7_and_only_from_the_third_epoch_on() -> None:
    balance = Balance(("a", "b"), "dwa").train()
    for losses in ((4.0, 1.0), (2.0, 1.0)):
        balance.epoch_begins()
        assert balance.weight.tolist() == [1.0, 1.0]
        balance({"a": torch.tensor(losses[0]), "b": torch.tensor(losses[1])}, [])
    balance.epoch_begins()
    balance.epoch_begins()  # asked for again within the epoch: nothing is counted twice
    expected = 2 * np.exp([0.5 / 2, 1.0 / 2]) / np.exp([0.5 / 2, 1.0 / 2]).sum()
    assert balance.weight.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_gradnorm_brings_gradients_to_one_size() -> None:
    shared = torch.nn.Parameter(torch.ones(3))
    balance = Balance(("a", "b"), "gradnorm").train()
    for _ in range(300):
        losses = {"a": 10 * shared.sum(), "b": shared.sum()}
        balance(losses, [shared])
    # Both losses stay where they were: no task lags, and gradients of 10 and 1 meet where the weights are 2/11 and 20/11.
    assert balance.weight.tolist() == pytest.approx([2 / 11, 20 / 11], abs=0.1)
    assert float(balance.weight.sum()) == pytest.approx(2)


# ---- files, resuming, predicting


class Stopped(AdaptTask):
    """One that is stopped in its third epoch."""

    epochs = 0

    def plan(self, samples, rng, *, train):
        self.epochs += train
        if self.epochs > 2:
            raise TrainingError("stopped")
        return super().plan(samples, rng, train=train)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, planning: Case) -> Path:
    return fit(AdaptTask(SMALL), [planning], tmp_path_factory.mktemp("adapt"), ONCE).model


def test_the_same_seed_gives_the_same_bits_and_a_training_cut_in_two_too(tmp_path: Path, planning: Case) -> None:
    settings = replace(SMALL, weighting="dwa", draws=2)
    cases = [planning, head_neck(1, (6, 5, 5), 1.0, (32, 48, 48))]
    training = replace(ONCE, epochs=3)
    whole_run = fit(AdaptTask(settings), cases, tmp_path / "whole", training).card.sha256
    with pytest.raises(TrainingError, match="stopped"):
        fit(Stopped(settings), cases, tmp_path / "cut", training)
    assert fit(AdaptTask(settings), cases, tmp_path / "cut", training).card.sha256 == whole_run


def test_a_model_answers_on_the_daily_grid_and_survives_its_file(trained: Path, planning: Case) -> None:
    visit = Planning(planning).visit(1, VisitSettings(0.8))
    unseen = visit.case.without_structures()
    fast = Settings(rounds=(Resolution(10.0, 20.0, 3, 1.0),))
    adapter = Adapter.load(str(trained))
    adapter.refinement = fast
    found = adapter.adapt(unseen)
    assert set(found.carried) == set(planning.structures)
    assert set(found.direct) == set(ORGANS)
    assert all(mask.geometry == unseen.geometry for mask in (*found.carried.values(), *found.direct.values()))
    assert found.registration is not None
    guided = replace(adapter, guide="carried").adapt(unseen)
    assert not np.array_equal(guided.deformation.displacement.array, found.deformation.displacement.array)
    again = Adapter.load(str(trained))
    again.refinement = fast
    assert np.array_equal(again.adapt(unseen).deformation.displacement.array, found.deformation.displacement.array)
    answer = replace(adapter, refine=False).predict(unseen)
    assert answer.id == unseen.id
    assert answer.geometry.same_grid(unseen.geometry)


def answers_nothing(settings: AdaptSettings) -> AdaptTask:
    """A net whose field is zero everywhere."""
    torch.manual_seed(0)
    task = AdaptTask(replace(settings, variant="reg-b"))
    with torch.no_grad():
        for module in task.net.modules():
            if isinstance(module, torch.nn.Conv3d) and module.out_channels == 3 and module.kernel_size == (1, 1, 1):
                module.weight.zero_()
                module.bias.zero_()
    return task


def test_the_rigid_part_holds_beyond_the_window_of_the_net(planning: Case) -> None:
    """The planning CT lies turned by 10 degrees and 300 mm aside; the net sees 48 mm about one parotid. All structures come back."""
    task = answers_nothing(replace(SMALL, structures=("Parotid_L",), window=(8, 8, 8)))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0.0, 0.0, np.deg2rad(10))), (300, -20, 40)
    there = Geometry(planning.geometry.shape, matrix @ planning.geometry.affine)
    moved = Case("p", {"ct": Volume(planning.ct.array, there)}, {n: Volume(planning.mask(n).array, there) for n in planning.structures})
    daily = replace(planning, id="p/visit-1", prior=moved)
    seen = replace(paired(daily, planning, task.settings.view, Deformation.from_matrix(np.eye(4), there, "a", "b")), rigid=matrix)
    found = Adapter(task, refine=False).adapt(daily, seen)
    for name in planning.structures:
        both, sizes = (found.carried[name].array & planning.mask(name).array).sum(), planning.mask(name).array.sum()
        assert 2 * both / (found.carried[name].array.sum() + sizes) > 0.97, name


def test_a_net_that_answers_nothing_leaves_the_planning_contours_where_the_start_has_them(planning: Case) -> None:
    """With no start and a field of zero, carried structures are the planning ones, voxel for voxel."""
    task = answers_nothing(SMALL)
    same = replace(planning, id="daily", prior=planning)
    found = Adapter(task, refine=False).adapt(replace(same, facts={**same.facts, "deformation": None}))
    shift = np.linalg.norm(found.deformation.displacement.array, axis=0)
    assert float(shift.mean()) < 1  # what the coarse rigid start of equal images leaves
    for name in ORGANS:
        both = (found.carried[name].array & planning.mask(name).array).sum()
        assert 2 * both / (found.carried[name].array.sum() + planning.mask(name).array.sum()) > 0.9


# ---- bad input


def test_a_daily_visit_without_a_planning_visit_is_refused(trained: Path, planning: Case) -> None:
    with pytest.raises(InputError, match="no planning visit"):
        Adapter.load(str(trained)).adapt(planning)


def test_another_model_is_no_adapter() -> None:
    with pytest.raises(ModelError, match="task is 'contour'"):
        Adapter.load("hn-organs")


def test_patients_without_the_structures_teach_nothing(planning: Case, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no case has anything to learn from"):
        fit(AdaptTask(replace(SMALL, structures=("Eye_L", "Eye_R"))), [planning], tmp_path, ONCE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": (22, 24, 32)},
        {"amplitude": (1.0, 0.5)},
        {"terms": {"stiffness": 1.0}},
        {"widths": (1, 2)},
        {"variant": "seg-a", "weighting": "dwa"},
        {"mode": "paper"},
        {"structures": ()},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(SMALL, **wrong)
