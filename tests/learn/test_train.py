"""Training: bit-equal twice, resumed after kill -9 to the same curve, over two processes, and honest about what it cannot use."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, ModelError, OutputError, TrainingError
from oncontour.learn import fit as fitting
from oncontour.learn.callbacks import SaveEpoch
from oncontour.learn.fit import Lesson, cpu_has_bfloat16, fit, held_back
from oncontour.learn.resume import resumed
from oncontour.learn.task import load_task
from oncontour.learn.train_settings import TrainSettings
from oncontour.ops.augment import Ranges
from oncontour.phantom import head_neck
from tests.phantoms import cohort

SETTINGS = ContourSettings(
    structures=("Parotid_L", "Parotid_R", "Bone_Mandible"),
    net_options={"widths": (4, 8, 8)},
    spacing_mm=(6.0, 5.0, 5.0),
    window=(16, 16, 16),
    draws=8,
)
QUICK = TrainSettings(epochs=3, batch=2, validation=0.34, threads=1)


@pytest.fixture(scope="module")
def cases():
    return [head_neck(seed, (6, 5, 5), 1.0, (32, 48, 48)) for seed in range(3)]


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    return cohort(tmp_path_factory.mktemp("cohort"), 3)


def curve(folder):
    """(epoch, name, value) of every figure that was logged."""
    with (Path(folder) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return sorted((row["epoch"], name, value) for row in rows for name, value in row.items() if value and name != "step")


def command(patients, out, *more):
    small = [f"--settings.{name}={value}" for name, value in {"net_options": '{"widths": [4, 8, 8]}', "window": "[16,16,16]"}.items()]
    words = ["--settings.structures", '["Bone_Mandible"]', *small, "--settings.spacing_mm=[6,5,5]", "--settings.draws=12"]
    recipe = ["--training.batch=2", "--training.threads=1", "--training.validation=0.34", *more]
    return [sys.executable, "-m", "oncontour.cli", "train", "contour", str(patients), "--out", str(out), *words, *recipe]


def test_two_runs_of_one_seed_are_bit_equal_and_another_seed_is_not(cases, tmp_path):
    models = {}
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        torch.manual_seed(len(name) + seed * 3)  # whatever the process did before must not matter
        fit(ContourTask(SETTINGS), cases, tmp_path / name, TrainSettings(**{**QUICK.__dict__, "seed": seed}))
        models[name] = load_task(tmp_path / name / "model.safetensors").net.state_dict()
    assert curve(tmp_path / "a") == curve(tmp_path / "b") != curve(tmp_path / "c")
    assert all(torch.equal(models["a"][key], models["b"][key]) for key in models["a"])
    assert any(not torch.equal(models["a"][key], models["c"][key]) for key in models["a"])


def test_killed_in_the_middle_it_resumes_to_the_same_curve(patients, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(patients, tmp_path / "whole", "--epochs=6"), check=True, env=environment, capture_output=True)
    words = command(patients, tmp_path / "killed", "--epochs=6")
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    subprocess.run(words, check=True, env=environment, capture_output=True)
    whole, killed = dict_of(curve(tmp_path / "whole")), dict_of(curve(tmp_path / "killed"))
    assert {key for key in whole if key[0] == "5"} <= killed.keys()
    assert all(whole[key] == value for key, value in killed.items())
    a, b = (load_task(tmp_path / run / "model.safetensors").net.state_dict() for run in ("whole", "killed"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def dict_of(rows):
    return {(epoch, name): value for epoch, name, value in rows}


def test_two_processes_train_together(patients, tmp_path):
    words = command(patients, tmp_path / "ddp", "--epochs=2", "--devices=2")
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([row for row in curve(tmp_path / "ddp") if row[1] == "train_loss"]) == 2
    assert load_task(tmp_path / "ddp" / "model.safetensors").card().made["training"]["devices"] == 2


def test_two_machines_train_together(patients, tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    words = command(patients, tmp_path / "ddp", "--epochs=1", "--training.nodes=2")
    there = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    nodes = [
        subprocess.Popen(words, env={**there, "NODE_RANK": rank}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    ended = [(node.communicate()[1], node.returncode) for node in nodes]
    assert [code for _, code in ended] == [0, 0], ended
    assert len([row for row in curve(tmp_path / "ddp") if row[1] == "train_loss"]) == 1
    assert load_task(tmp_path / "ddp" / "model.safetensors").card().made["training"]["nodes"] == 2


def test_machines_that_do_not_know_of_each_other_are_told_before_any_work(cases, tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="none knows where the first is"):
        fit(ContourTask(SETTINGS), cases, tmp_path, TrainSettings(epochs=1, nodes=2))


def test_the_paper_recipe_lowers_the_rate_by_a_fifth_after_five_epochs_without_gain():
    """What training itself steps: the first epoch is a gain, five more are not, and the seventh falls (Xue et al. 2020, section 2.3)."""
    s = TrainSettings.paper()
    assert (s.learning_rate, s.batch, s.epochs, s.schedule, s.weight_decay) == (0.005, 8, 200, "plateau", 0.0)
    lesson = Lesson(ContourTask(SETTINGS), s, [], [])
    adam = lesson.configure_optimizers()
    assert type(adam) is torch.optim.Adam
    rates = []
    for _ in range(8):
        lesson.plateau.step(1.0)
        rates.append(adam.param_groups[0]["lr"])
    assert rates == [0.005] * 6 + [pytest.approx(0.004)] * 2


def test_another_run_in_the_folder_is_refused_and_left_alone(cases, tmp_path):
    fit(ContourTask(SETTINGS), cases, tmp_path, TrainSettings(epochs=1, batch=2, threads=1))
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match=r"training\.epochs"):
        fit(ContourTask(SETTINGS), cases, tmp_path, TrainSettings(epochs=2, batch=2, threads=1))
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_setting_that_is_newer_than_the_run_is_its_default(cases, tmp_path):
    """A run begun before ``mirror``, ``augment.tilt_deg`` and ``workers`` came resumes at their defaults, and at nothing else."""
    fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))
    record = json.loads((tmp_path / "settings.json").read_text())
    for part, key in (
        (record["task_settings"], "mirror"),
        (record["task_settings"]["augment"], "tilt_deg"),
        (record["training"], "workers"),
    ):
        del part[key]
    old = json.dumps(record)
    (tmp_path / "settings.json").write_text(old)
    for changed, named in ((replace(SETTINGS, mirror=True), "mirror"), (replace(SETTINGS, augment=Ranges(tilt_deg=7)), "tilt_deg")):
        with pytest.raises(OutputError, match=named):
            fit(ContourTask(changed), cases, tmp_path, replace(QUICK, epochs=1))
    assert (tmp_path / "settings.json").read_text() == old
    fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))
    assert json.loads((tmp_path / "settings.json").read_text())["task_settings"]["mirror"] is False


def test_a_setting_without_a_default_is_never_made_up(cases, tmp_path):
    fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))
    record = json.loads((tmp_path / "settings.json").read_text())
    del record["task_settings"]["structures"]
    (tmp_path / "settings.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match=r"task_settings\.structures"):
        fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))


def test_nothing_to_learn_from_is_said(cases, tmp_path):
    task = ContourTask(ContourSettings(**{**SETTINGS.__dict__, "structures": ("Kidney_L",)}))
    with pytest.raises(TrainingError, match="no case has anything"):
        fit(task, cases, tmp_path, QUICK)
    assert not (tmp_path / "settings.json").exists(), "the corrected settings may take the same folder"


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError):
        TrainSettings(epochs=0)
    for wrong in ({"seed": -1}, {"threads": 0}, {"workers": -1}, {"gradient_limit": -1.0}, {"validation": 1.0}, {"learning_rate": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TrainSettings(**wrong)
    with pytest.raises(ConfigError, match="multiples of 4"):
        ContourTask(ContourSettings(**{**SETTINGS.__dict__, "window": (16, 18, 16)}))
    with pytest.raises(ConfigError, match="dimensions"):
        ContourTask(ContourSettings(structures=("A",), net="unet"))


def test_an_organ_that_was_not_contoured_is_not_background(cases):
    """The loss of a patient without parotid contours does not change with what the net says of parotids."""
    case = cases[0]
    partial = Case(case.id, images={"ct": case.ct}, masks={"Bone_Mandible": case.mask("Bone_Mandible")})
    task = ContourTask(SETTINGS).eval()
    (sample,) = task.samples(partial)
    item = task.item([sample], task.plan([sample], torch_free_rng(), train=False)[0])
    batch = {key: value[None] for key, value in item.items()}
    assert batch["known"].tolist() == [[0.0, 0.0, 1.0]]
    losses = []
    for bias in (-5.0, 5.0):
        with torch.no_grad():
            task.net.head.bias[:2] = bias
            losses.append(float(task.loss(batch)[0]))
    assert losses[0] == losses[1]


def torch_free_rng():
    import numpy as np

    return np.random.default_rng(0)


def test_a_mirror_swaps_left_and_right_names(cases):
    from oncontour.ops.augment import Move, mirrored

    task = ContourTask(SETTINGS)
    (sample,) = task.samples(cases[0])
    centre = tuple((n - 1) / 2 for n in sample.ct.shape)
    size = sample.ct.shape
    _, masks = Move(flip_left_right=True).take(sample.ct, sample.bits, 3, (6, 5, 5), centre, size)
    swapped = masks[mirrored(SETTINGS.structures)]
    _, plain = Move().take(sample.ct, sample.bits, 3, (6, 5, 5), centre, size)
    assert (swapped[0] == plain[1][..., ::-1]).all()
    assert mirrored(("Parotid_L", "Larynx")) is None


def test_a_model_file_rebuilds_itself_and_refuses_changed_weights(cases, tmp_path):
    outcome = fit(ContourTask(SETTINGS), cases, tmp_path, TrainSettings(epochs=1, batch=2, threads=1), name="tiny")
    card = load_task(outcome.model).card()
    assert card.structures == list(SETTINGS.structures)
    assert card.made["patients"] == 3
    assert json.loads(card.as_json())["sha256"] == outcome.card.sha256
    damaged = bytearray(outcome.model.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(bytes(damaged))
    with pytest.raises(ModelError, match="hash"):
        load_task(tmp_path / "damaged.safetensors")


def test_info_needs_no_torch(cases, tmp_path):
    outcome = fit(ContourTask(SETTINGS), cases, tmp_path, TrainSettings(epochs=1, batch=2, threads=1))
    words = ["info", str(outcome.model), "--json"]
    code = f"import sys; from oncontour.cli import main; c = main({words!r}); sys.exit(c or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == "contour"


def test_a_training_may_start_from_a_finished_model(cases, tmp_path):
    once = TrainSettings(epochs=1, batch=2, threads=1, learning_rate=1e-9, weight_decay=0.0)
    first = fit(ContourTask(SETTINGS), cases, tmp_path / "first", TrainSettings(epochs=1, batch=2, threads=1))
    second = fit(ContourTask(SETTINGS), cases, tmp_path / "second", once, start=first.model)
    a, b = (load_task(path).net.state_dict() for path in (first.model, second.model))
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a), "a step of next to nothing leaves the weights where they began"
    assert second.card.made["started_from"] == {"name": "model", "sha256": first.card.sha256}
    with pytest.raises(OutputError, match="started_from"):
        fit(ContourTask(SETTINGS), cases, tmp_path / "second", once)
    wide = ContourTask(ContourSettings(**{**SETTINGS.__dict__, "net_options": {"widths": (6, 8, 12)}}))
    grown = load_task(fit(wide, cases, tmp_path / "wide", once, start=first.model).model)
    window = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.allclose(grown.net(window), load_task(first.model).net(window), atol=0.05), "half precision apart, the same answer"
    other = ContourTask(ContourSettings(**{**SETTINGS.__dict__, "structures": ("Brainstem",)}))
    with pytest.raises(ModelError, match="structures"):
        fit(other, cases, tmp_path / "third", once, start=first.model)
    assert not (tmp_path / "third").exists()


def test_a_run_begun_without_saying_whether_structures_overlap_goes_on_when_it_is_said_that_they_do_not(tmp_path):
    whole = json.loads(json.dumps(asdict(ContourSettings(("GTV",), overlap=False))))
    bare = {key: value for key, value in whole.items() if key != "overlap"}
    for before, goes_on in ((bare, True), (bare | {"overlap": None}, True), (whole, True), (bare | {"overlap": True}, False)):
        (tmp_path / "settings.json").write_text(json.dumps({"task_settings": before}), encoding="utf-8")
        assert goes_on_with(tmp_path, {"task_settings": whole}) == goes_on


@pytest.mark.parametrize("text", ["{", "[]", "[" * 5000])
def test_settings_of_a_run_that_cannot_be_read_are_told(tmp_path, text):
    (tmp_path / "settings.json").write_text(text, encoding="utf-8")
    with pytest.raises(OutputError, match="the settings of the run"):
        resumed(tmp_path, {"task_settings": {}}, {"task_settings": ContourSettings(("GTV",))})


def goes_on_with(out, record):
    try:
        resumed(out, record, {"task_settings": ContourSettings(("GTV",))})
    except OutputError:
        return False
    return True


class Killed(Exception):
    """A run that ends where its checkpoint is written."""


def killed_after_an_epoch(monkeypatch, *words, **more):
    save = SaveEpoch._save_checkpoint

    def and_end(self, trainer, path):
        save(self, trainer, path)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SaveEpoch, "_save_checkpoint", and_end)
        with pytest.raises(Killed):
            fit(*words, **more)


def test_a_resumed_run_keeps_its_whole_curve_and_its_plateau(cases, tmp_path, monkeypatch):
    """The rate falls after five epochs without gain, however often the run was killed in between."""
    recipe = replace(QUICK, epochs=8, schedule="plateau", learning_rate=1e-12, weight_decay=0.0)  # nothing gains: the rate must fall
    small = replace(SETTINGS, draws=2)
    fit(ContourTask(small), cases, tmp_path / "whole", recipe)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    for n in range(3):
        killed_after_an_epoch(monkeypatch, ContourTask(small), cases, tmp_path / "killed", recipe)
        if n == 1:  # as an earlier version kept it
            held = torch.load(last, weights_only=True)
            held["lr_schedulers"] = [held.pop("plateau")]
            torch.save(held, last)
            assert "plateau" not in torch.load(last, weights_only=True)
    fit(ContourTask(small), cases, tmp_path / "killed", recipe)
    states = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "killed")]
    assert states[0]["plateau"] == states[1]["plateau"]
    assert states[0]["plateau"]["_last_lr"] == [pytest.approx(0.8e-12)], "it fell once"
    assert [s["optimizer_states"][0]["param_groups"][0]["lr"] for s in states] == [pytest.approx(0.8e-12)] * 2
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "killed" / "metrics.csv").read_text()
    assert [row[0] for row in curve(tmp_path / "killed") if row[1] == "train_loss"] == [str(n) for n in range(8)]
    fit(ContourTask(small), cases, tmp_path / "whole", recipe)
    assert len(curve(tmp_path / "whole")) == len(curve(tmp_path / "killed")), "a finished run that is asked again keeps its curve"


def test_a_run_goes_on_with_its_own_patients_alone(cases, tmp_path, monkeypatch):
    """One more patient would change who is held back: some that were learned from would count as strangers."""
    killed_after_an_epoch(monkeypatch, ContourTask(SETTINGS), cases[:2], tmp_path, replace(QUICK, validation=0.0))
    with pytest.raises(OutputError, match=r"other patients \(1 new \(phantom-head-neck-002\)\)"):
        fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, validation=0.0))
    fit(ContourTask(SETTINGS), cases[:2], tmp_path, replace(QUICK, validation=0.0))


def test_a_structure_that_nobody_to_learn_from_has_is_never_made_up(cases, tmp_path):
    more = replace(SETTINGS, structures=(*SETTINGS.structures, "Kidney_L"))
    with pytest.raises(TrainingError, match="no patient to learn from has Kidney_L"):
        fit(ContourTask(more), cases, tmp_path, QUICK)
    grid = cases[0].geometry.resample((6, 1, 1))
    thin = [Case(c.id, {"ct": c.ct.to(grid)}, {n: c.mask(n).to(grid) for n in SETTINGS.structures}) for c in cases[:1]]
    small = np.zeros(grid.shape, bool)
    small[16, 100, 100] = True
    thin = [thin[0].with_masks({"Kidney_L": Volume(small, grid)})]
    with pytest.raises(TrainingError, match=r"Kidney_L was contoured, too thin for a voxel"):
        fit(ContourTask(more), thin, tmp_path, QUICK)
    assert not (tmp_path / "settings.json").exists()


def test_who_taught_the_first_model_is_no_stranger_to_the_second(cases, tmp_path):
    once = replace(QUICK, epochs=1, validation=0.0)
    first = fit(ContourTask(SETTINGS), cases[:1], tmp_path / "first", once)
    second = fit(ContourTask(SETTINGS), cases[1:], tmp_path / "second", once, start=first.model)
    assert second.card.made["trained_on"] == sorted(case.id for case in cases)
    third = fit(ContourTask(SETTINGS), cases, tmp_path / "third", replace(QUICK, epochs=1), start=second.model)
    assert third.card.made["held_back_patients"] == []
    assert "taught the model this one starts from" in third.notes[0]
    bare = [Case(c.id, {"ct": c.ct}, {"Parotid_L": c.mask("Parotid_L")}) for c in cases]
    fourth = fit(ContourTask(SETTINGS), bare, tmp_path / "fourth", once, start=first.model)
    assert "no patient to learn from has Parotid_R, Bone_Mandible" in fourth.notes[0]


def test_figures_that_were_stamped_outlive_a_second_call(cases, tmp_path):
    from oncontour.learn.task import save_model

    once = replace(QUICK, epochs=1)
    done = fit(ContourTask(SETTINGS), cases, tmp_path, once)
    save_model(load_task(done.model), done.model, replace(done.card, metrics={"dsc": 0.5}))
    assert fit(ContourTask(SETTINGS), cases, tmp_path, once).card.metrics == {"dsc": 0.5}


def test_a_second_training_in_the_folder_waits_and_is_refused(cases, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(OutputError, match="another training"):
        fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))
    os.close(handle)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "told"), [({"accelerator": "gpu"}, "'gpu'"), ({"accelerator": "abacus"}, "'abacus'"), ({"precision": "16-mixed"}, "float16")]
)
def test_what_this_machine_cannot_do_is_told_before_patients_are_read(tmp_path, wrong, told):
    if torch.cuda.is_available():
        pytest.skip("this machine can")

    def nobody():
        raise AssertionError("a patient was read")
        yield

    with pytest.raises(ConfigError, match=told):
        fit(ContourTask(SETTINGS), nobody(), tmp_path, replace(QUICK, **wrong))


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16")
def test_bfloat16_follows_the_same_curve_twice_and_after_a_kill(cases, tmp_path, monkeypatch):
    recipe = replace(QUICK, epochs=2, precision="bfloat16")
    task = ContourTask(SETTINGS)
    one = fit(task, cases, tmp_path / "one", recipe)
    two = fit(ContourTask(SETTINGS), cases, tmp_path / "two", recipe)
    killed_after_an_epoch(monkeypatch, ContourTask(SETTINGS), cases, tmp_path / "killed", recipe)
    resumed_run = fit(ContourTask(SETTINGS), cases, tmp_path / "killed", recipe)
    assert one.model.read_bytes() == two.model.read_bytes() == resumed_run.model.read_bytes()
    assert (tmp_path / "one/metrics.csv").read_text() == (tmp_path / "killed/metrics.csv").read_text()
    assert one.card.made["training"]["precision"] == "bfloat16"
    assert {value.dtype for value in task.net.state_dict().values() if value.is_floating_point()} == {torch.float32}
    plain = fit(ContourTask(SETTINGS), cases, tmp_path / "plain", replace(recipe, precision="float32"))
    assert plain.card.sha256 != one.card.sha256, "bfloat16 is not what float32 computes"
    (a,), (b,) = ([float(v) for n, name, v in curve(tmp_path / run) if (n, name) == ("0", "train_loss")] for run in ("one", "plain"))
    assert a == pytest.approx(b, rel=0.02), "it learns the same thing"


def test_bfloat16_on_a_cpu_without_it_is_told_before_patients_are_read(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="neither AVX-512 BF16 nor AMX") as error:
        fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, precision="bfloat16", accelerator="cpu"))
    assert "float32" in error.value.hint
    assert not (tmp_path / "settings.json").exists()


def test_a_run_goes_on_whose_precision_has_the_name_of_an_earlier_version(cases, tmp_path):
    assert TrainSettings(precision="32-true") == TrainSettings()
    assert TrainSettings(precision="bf16-mixed").precision == "bfloat16"
    fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))
    settings = tmp_path / "settings.json"
    settings.write_text(settings.read_text().replace('"float32"', '"32-true"'))
    fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1))
    with pytest.raises(OutputError, match=r"different: training\.precision"):
        fit(ContourTask(SETTINGS), cases, tmp_path, replace(QUICK, epochs=1, precision="bfloat16"))


def test_weights_that_are_no_numbers_are_never_saved_and_large_ones_stay(tmp_path):
    from oncontour.learn.task import save_model

    task = ContourTask(SETTINGS)
    with torch.no_grad():
        task.net.head.bias[0] = 1e6  # more than 16 bits hold
    save_model(task, tmp_path / "m.safetensors")
    assert load_task(tmp_path / "m.safetensors").net.state_dict()["head.bias"][0] == 1e6
    with torch.no_grad():
        task.net.head.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="no numbers"):
        save_model(task, tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()


def test_a_folder_of_its_name_hides_no_shipped_model(tmp_path, monkeypatch):
    from oncontour.learn.card import WEIGHTS, find

    monkeypatch.chdir(tmp_path)
    (tmp_path / "hn-organs").mkdir()
    assert find("hn-organs") == WEIGHTS / "hn-organs.safetensors"
    (tmp_path / "bundle").mkdir()
    assert find("bundle") == Path("bundle"), "other people's models are folders"


def test_somebody_is_always_learned_from():
    assert len(held_back(["a", "b"], TrainSettings(validation=0.9))) == 1
    assert held_back(["a"], TrainSettings(validation=0.9)) == set()
    assert held_back([], TrainSettings()) == set()


def test_a_full_disk_costs_one_epoch_and_a_damaged_checkpoint_is_told(cases, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    killed_after_an_epoch(monkeypatch, ContourTask(SETTINGS), cases, tmp_path, QUICK)
    last, limits = tmp_path / "checkpoints" / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    before = last.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # no file may grow larger: as on a full disk
    try:
        with pytest.raises(OutputError, match="checkpoint of epoch 2 cannot be written"):
            fit(ContourTask(SETTINGS), cases, tmp_path, QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last.read_bytes() == before
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    last.write_bytes(before[: len(before) // 2])
    with pytest.raises(OutputError, match="checkpoint is damaged"):
        fit(ContourTask(SETTINGS), cases, tmp_path, QUICK)


class Writes:
    """What a hostile checkpoint holds: unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_that_holds_code_or_is_none_is_refused_before_any_work(cases, tmp_path):
    fit(ContourTask(SETTINGS), cases, tmp_path / "run", replace(QUICK, epochs=1))
    last, trace = tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "executed"
    held = torch.load(last, weights_only=True)
    assert held["callbacks"] == {}, "what callbacks keep would say where files lie"
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    for wrong in ({**held, "callbacks": Writes(trace)}, {"state_dict": {}}, [1, 2]):
        torch.save(wrong, last)
        with pytest.raises(OutputError, match="the checkpoint is damaged"):
            fit(ContourTask(SETTINGS), iter(()), tmp_path / "run", replace(QUICK, epochs=1))
    assert not trace.exists()
    torch.save(held, last)
    (tmp_path / "run" / "settings.json").write_text("{")
    with pytest.raises(OutputError, match="settings of the run"):
        fit(ContourTask(SETTINGS), iter(()), tmp_path / "run", replace(QUICK, epochs=1))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


def test_a_checkpoint_of_an_earlier_version_that_knows_its_folder_goes_on(cases, tmp_path, monkeypatch):
    recipe = replace(QUICK, epochs=2)
    killed_after_an_epoch(monkeypatch, ContourTask(SETTINGS), cases, tmp_path / "a", recipe)
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    held = torch.load(last, weights_only=True)
    held["callbacks"][SaveEpoch(last.parent).state_key] = {
        "dirpath": "/somebody/else",
        "best_model_path": "/somebody/else/last.ckpt",
        "monitor": None,
    }
    torch.save(held, last)
    fit(ContourTask(SETTINGS), cases, tmp_path / "a", recipe)
    fit(ContourTask(SETTINGS), cases, tmp_path / "b", recipe)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert b"/somebody" not in last.read_bytes()
