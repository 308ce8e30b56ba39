"""A net as ONNX beside its model: the same answers as torch's, for that model alone, and nothing of torch is loaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oncontour.cli import main
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer, load_contourer
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.errors import ConfigError, ModelError
from oncontour.io import write
from oncontour.learn import exported as exporting
from oncontour.learn.card import WEIGHTS, shipped
from oncontour.learn.engine import Engine
from oncontour.learn.export import export, graph, halved
from oncontour.learn.exported import Exported
from oncontour.learn.task import save_model
from oncontour.ops.tidy import Tidy
from oncontour.phantom.mean import mean_patient
from oncontour.quality.predict import load_assessor
from oncontour.synthesize.predict import Synthesizer

TOLERANCE = 1e-4
"""Of a probability, between torch and ONNX."""
EXPORTED = ("hn-organs", "hn-quality", "limb-t1")


def sigmoid(scores):
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def test_what_is_shipped_for_machines_without_torch():
    assert sorted(path.stem for path in WEIGHTS.glob("*.onnx")) == sorted(EXPORTED)
    assert all(path.stat().st_size <= 12e6 for path in WEIGHTS.iterdir())


def test_the_contouring_net_says_what_torch_says_of_the_mean_patient():
    """Every voxel that they decide differently lies within TOLERANCE of the threshold; there are none here."""
    case = mean_patient().without_structures()
    ready, reference = load_contourer("hn-organs", threads=1), load_contourer("hn-organs", backend="torch", threads=1)
    assert isinstance(ready.task, Exported)
    assert isinstance(reference.task, ContourTask)
    assert (ready.card, ready.engine.backend, reference.engine.backend) == (reference.card, "openvino", "torch")
    seen = np.random.default_rng(0).uniform(-1, 1, ready.task.settings.seen_shape)
    assert np.abs(sigmoid(ready.engine(seen)) - sigmoid(reference.engine(seen))).max() <= TOLERANCE
    drawn, expected = ready.predict(case), reference.predict(case)
    assert list(drawn.masks) == list(expected.masks)
    assert [name for name in drawn.masks if (drawn.mask(name).array != expected.mask(name).array).any()] == []


def test_the_quality_net_says_what_torch_says():
    ready, reference = load_assessor("hn-quality", threads=1), load_assessor("hn-quality", backend="torch", threads=1)
    assert isinstance(ready.task, Exported)
    s = ready.task.settings
    seen = np.random.default_rng(0).random((5, s.channels, *s.window))
    seen[:, -1] = 0
    seen[:, -1, 0, 0] = [0, 1, 2, 3, 4]  # the structure's number
    assert np.abs(sigmoid(ready.engine(seen)) - sigmoid(reference.engine(seen))).max() <= TOLERANCE
    mine, theirs = ready.task.detector, reference.task.detector
    assert all(np.array_equal(getattr(mine, name), getattr(theirs, name)) for name in ("centre", "root", "limit"))
    assert mine.limit.any()


def test_the_generator_says_what_torch_says_of_slices_of_any_size():
    ready, reference = Synthesizer.load("limb-t1", threads=1), Synthesizer.load("limb-t1", backend="torch", threads=1)
    assert isinstance(ready.task, Exported)
    for shape in ((1, 1, 96, 96), (2, 1, 64, 132)):
        seen = np.random.default_rng(0).uniform(-1, 1, shape)
        assert np.abs(ready.engine(seen) - reference.engine(seen)).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("net", "window"), [("deeplab", (1, 64, 48)), ("unet", (1, 32, 48)), ("resunet", (1, 32, 32)), ("unet3d", (16, 16, 32))]
)
def test_every_contouring_net_can_be_exported(net, window, tmp_path):
    settings = ContourSettings(("Brainstem", "Larynx"), net=net, window=window)
    task = ContourTask(settings).eval()
    path = tmp_path / "net.onnx"
    path.write_bytes(graph(task.answering(), settings.seen_shape, free=False))
    seen = np.random.default_rng(0).uniform(-1, 1, (2, *settings.seen_shape[1:]))
    theirs = Engine.load(task.net, settings.seen_shape, backend="torch", threads=1)(seen)
    assert np.abs(Engine.load_onnx(path, threads=1)(seen) - theirs).max() <= 1e-4 * max(1.0, np.abs(theirs).max())


def small(folder: Path, name: str = "ours", seed: int = 0) -> Path:
    import torch

    torch.manual_seed(seed)
    path = folder / f"{name}.safetensors"
    save_model(ContourTask(ContourSettings(("Brainstem",), net_options={"widths": (4, 8)}, window=(16, 16, 16))), path)
    return path


def test_weights_are_kept_in_16_bits_and_mean_the_same(tmp_path):
    from oncontour.learn.task import load_task

    task = load_task(small(tmp_path))
    whole = graph(task.answering(), task.exported_shape(), free=False)
    short = halved(whole)
    assert len(short) < 0.75 * len(whole)
    for name, data in (("whole", whole), ("short", short)):
        (tmp_path / f"{name}.onnx").write_bytes(data)
    seen = np.random.default_rng(0).uniform(-1, 1, task.exported_shape())
    answers = [Engine.load_onnx(tmp_path / f"{name}.onnx", threads=1)(seen) for name in ("whole", "short")]
    assert np.array_equal(*answers)


def test_a_model_of_ones_own_is_exported_and_used(tmp_path, capsys):
    path = small(tmp_path)
    assert isinstance(load_contourer(path).task, ContourTask)
    assert main(["models", "export", str(path)]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'ours.onnx'}\n"
    ready = load_contourer(path, rules=Tidy.off(), threads=1)
    assert isinstance(ready.task, Exported)
    assert isinstance(load_contourer(path, backend="torch").task, ContourTask)
    case = Case("someone", {"ct": mean_patient().ct})
    drawn, expected = ready.predict(case), Contourer(load_contourer(path, backend="torch").task, "openvino", Tidy.off(), 1).predict(case)
    assert np.array_equal(drawn.mask("Brainstem").array, expected.mask("Brainstem").array)


@pytest.mark.parametrize("place", [0.3, 0.999])
def test_a_net_that_was_changed_is_refused(place, tmp_path):
    path = small(tmp_path)
    net = export(path)
    data = bytearray(net.read_bytes())
    data[int(place * len(data))] ^= 1
    net.write_bytes(data)
    with pytest.raises(ModelError, match="does not hash") as caught:
        load_contourer(path)
    assert "oncontour models export ours" in caught.value.hint


def test_the_net_of_another_model_is_refused(tmp_path):
    mine, other = small(tmp_path), small(tmp_path, "other", seed=1)
    shutil.move(export(other), tmp_path / "ours.onnx")
    with pytest.raises(ModelError, match="another model than ours"):
        load_contourer(mine)


def test_a_model_whose_card_was_changed_is_refused(tmp_path):
    path = small(tmp_path)
    export(path)
    path.write_bytes(path.read_bytes().replace(b"Brainstem", b"Brainstam"))
    with pytest.raises(ModelError, match="card was changed"):
        load_contourer(path)


def test_without_torch_a_model_without_onnx_says_the_way_out(tmp_path, monkeypatch):
    path = small(tmp_path)
    monkeypatch.setattr(exporting, "is_installed", lambda library: False)
    with pytest.raises(ModelError, match="torch is not installed") as caught:
        load_contourer(path)
    assert "pip install 'oncontour[train]'" in caught.value.hint
    assert "oncontour models export ours" in caught.value.hint


@pytest.mark.parametrize("model", ["hn-adapt", "esophagitis-simulated"])
def test_what_needs_torch_wherever_it_is_used_is_not_exported(model, tmp_path):
    with pytest.raises(ModelError, match="needs torch wherever it is used"):
        export(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused_before_any_work(tmp_path, capsys):
    assert main(["models", "export", "hn-organs", "--out", str(tmp_path / "net.pt")]) == ConfigError.exit_code
    assert "ends in .onnx" in capsys.readouterr().err


WITHOUT = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "lightning", "monai", "tensorboard", "pyarrow", "highdicom", "SimpleITK"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
from oncontour.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_torch(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", WITHOUT, *map(str, words)], capture_output=True, text=True, check=False)


def test_commands_that_need_an_extra_say_so_in_one_sentence(tmp_path):
    for words, library, extra in (
        (("train", "contour", tmp_path, "--out", tmp_path / "out"), "torch", "train"),
        (("models", "export", "hn-organs", "--out", tmp_path / "net.onnx"), "torch", "train"),
    ):
        ended = without_torch(*words)
        assert ended.returncode == ConfigError.exit_code, ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert f"needs {library}, which is not installed" in ended.stderr
        assert f"pip install 'oncontour[{extra}]'" in ended.stderr


def test_a_run_of_a_ct_needs_no_torch(tmp_path):
    case = mean_patient()
    write(Case("someone", {"ct": case.ct}), tmp_path / "ct", format="dicom")
    ended = without_torch("run", tmp_path / "ct", "--out", tmp_path / "out", "--threads", "1")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "report.html").exists()
    (found,) = (tmp_path / "out").glob("*.dcm")
    assert len(pydicom.dcmread(found).StructureSetROISequence) == 7
    assert set(EXPORTED) < set(shipped())
