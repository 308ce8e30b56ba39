"""A net as ONNX beside its model: the same answers as torch's, for that model alone, and nothing of torch is loaded."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oncontour import libraries
from oncontour.cli import main
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer, load_contourer
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.errors import ConfigError, ModelError, OutputError
from oncontour.io import write
from oncontour.learn import exported as exporting
from oncontour.learn.card import WEIGHTS, checked_card, shipped, with_card
from oncontour.learn.engine import Engine
from oncontour.learn.export import check_alike, export, graph, halved
from oncontour.learn.exported import Exported, sealed
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
    drawn, expected = (replace(one, keep_probabilities=True).predict(case) for one in (ready, reference))
    assert list(drawn.masks) == list(expected.masks)
    assert [name for name in drawn.masks if (drawn.mask(name).array != expected.mask(name).array).any()] == []
    assert set(drawn.probabilities) == set(expected.probabilities) == set(drawn.masks)
    apart = [np.abs(drawn.probabilities[name].array.astype(int) - expected.probabilities[name].array).max() for name in drawn.masks]
    assert max(apart) <= 1, "of 255: what lies on the edge of two steps may fall on either"
    seen = ready.image(case, ready.task.settings.working_grid(case.geometry)).array
    for k in range(0, seen.shape[0] - 47, 40):
        window = seen[None, None, k : k + 48, 8:56, 36:84]
        assert np.abs(sigmoid(ready.engine(window)) - sigmoid(reference.engine(window))).max() <= TOLERANCE


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
    import onnx

    from oncontour.learn.task import load_task

    task = load_task(small(tmp_path))
    whole = graph(task.answering(), task.exported_shape(), free=False)
    short = halved(whole)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(short).graph.initializer}
    weights = {f"{name}.half" for name, value in task.net.state_dict().items() if value.dim() > 1}
    assert {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16} >= weights
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
    assert f"oncontour models export {path};" in caught.value.hint
    assert main(["models", "export", str(path)]) == 0
    assert isinstance(load_contourer(path).task, Exported)


def test_the_net_of_another_model_is_refused(tmp_path):
    """That of another, or of the model as it was before it was trained again."""
    mine, other = small(tmp_path), small(tmp_path, "other", seed=1)
    shutil.move(export(other), tmp_path / "ours.onnx")
    with pytest.raises(ModelError, match="another model than ours"):
        load_contourer(mine)


def test_figures_may_be_written_into_the_card_later(tmp_path):
    path = small(tmp_path)
    export(path)
    card, data = with_card(path.read_bytes(), replace(checked_card(path), metrics={"dsc": 0.5}))
    path.write_bytes(data)
    ready = load_contourer(path)
    assert isinstance(ready.task, Exported)
    assert ready.card == card


def test_numbers_in_another_file_are_refused(tmp_path):
    """No hash would cover them."""
    import onnx

    path = small(tmp_path)
    card = checked_card(path)
    model = onnx.load_from_string(export(path).read_bytes())
    onnx.save(model, tmp_path / "ours.onnx", save_as_external_data=True, location="numbers.bin", size_threshold=0)
    (tmp_path / "ours.onnx").write_bytes(sealed((tmp_path / "ours.onnx").read_bytes(), card))
    assert (tmp_path / "numbers.bin").exists()
    with pytest.raises(ModelError, match="numbers in other files"):
        load_contourer(path)


def test_a_net_that_answers_for_other_structures_is_told_as_such(tmp_path):
    """By somebody who made hash and card fit."""
    three = tmp_path / "three.safetensors"
    save_model(ContourTask(ContourSettings(("A", "B", "C"), net_options={"widths": (4, 8)}, window=(16, 16, 16))), three)
    path = small(tmp_path)
    (tmp_path / "ours.onnx").write_bytes(sealed(export(three).read_bytes(), checked_card(path)))
    with pytest.raises(ModelError, match="for 1 structures"):
        load_contourer(path, threads=1).predict(Case("someone", {"ct": mean_patient().ct}))


@pytest.mark.parametrize("spoil", ["gate.limit", "none"])
def test_a_detector_that_is_none_is_told(spoil, tmp_path):
    from safetensors.numpy import load_file, save

    tensors = load_file(shipped()["hn-quality"])
    card = checked_card(shipped()["hn-quality"])
    if spoil == "none":
        del tensors["gate.limit"]
    else:
        tensors[spoil] = tensors[spoil][:2]
    card, data = with_card(save(tensors), card)
    (tmp_path / "q.safetensors").write_bytes(data)
    (tmp_path / "q.onnx").write_bytes(sealed(exporting.beside(shipped()["hn-quality"]).read_bytes(), card))
    with pytest.raises(ModelError, match="detector"):
        _ = load_assessor(tmp_path / "q.safetensors", threads=1).task.detector


def test_only_what_oncontour_made_is_replaced(tmp_path, capsys):
    path = small(tmp_path)
    (tmp_path / "ours.onnx").write_bytes(b"somebody's own net")
    assert main(["models", "export", str(path)]) == OutputError.exit_code
    assert "was not made by oncontour" in capsys.readouterr().err
    assert (tmp_path / "ours.onnx").read_bytes() == b"somebody's own net"
    (tmp_path / "ours.onnx").unlink()
    assert main(["models", "export", str(path)]) == main(["models", "export", str(path)]) == 0


@pytest.mark.parametrize("model", [".", "nothing.safetensors"])
def test_what_is_no_model_is_not_exported(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["models", "export", model]) == ModelError.exit_code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_net_that_computes_otherwise_for_other_images_is_not_exported():
    import torch

    class Fickle(torch.nn.Module):
        def forward(self, x):
            return x if float(x.sum()) == 0 else -x  # a tracer sees one of the two

    net = graph(Fickle(), (1, 1, 8, 8), free=False)
    with pytest.raises(ModelError, match="answers otherwise"):
        check_alike(net, Fickle(), (1, 1, 8, 8), "fickle")


def test_a_model_whose_card_was_changed_is_refused(tmp_path):
    path = small(tmp_path)
    export(path)
    path.write_bytes(path.read_bytes().replace(b"Brainstem", b"Brainstam"))
    with pytest.raises(ModelError, match="card was changed"):
        load_contourer(path)


def test_without_torch_a_model_without_onnx_says_the_way_out(tmp_path, monkeypatch):
    path = small(tmp_path)
    monkeypatch.setattr(exporting, "is_installed", lambda library: library != "torch")
    monkeypatch.setattr(libraries, "is_installed", lambda library: library != "torch")
    with pytest.raises(ModelError, match="torch is not installed") as caught:
        load_contourer(path)
    assert "pip install 'oncontour[train]'" in caught.value.hint
    assert f"oncontour models export {path}" in caught.value.hint
    with pytest.raises(ConfigError, match="--backend torch needs torch"):
        load_contourer("hn-organs", backend="torch")


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
    ct = tmp_path / "ct"
    write(Case("someone", {"ct": mean_patient().ct}), ct, format="nifti")
    for words, library, extra in (
        (("train", "contour", tmp_path, "--out", tmp_path / "out"), "torch", "train"),
        (("train", "risk", tmp_path, "--out", tmp_path / "out"), "torch", "train"),
        (("adapt", ct, ct, "--out", tmp_path / "out"), "torch", "train"),
        (("run", ct, "--out", tmp_path / "out", "--risk", "esophagitis-simulated"), "torch", "train"),
        (("run", ct, "--out", tmp_path / "out", "--seg"), "highdicom", "seg"),
        (("run", ct, "--out", tmp_path / "out", "--model", "hn-organs", "--backend", "torch"), "torch", "train"),
        (("features", ct, "--out", tmp_path / "table.parquet"), "pyarrow", "parquet"),
        (("models", "export", "hn-organs", "--out", tmp_path / "net.onnx"), "torch", "train,onnx"),
    ):
        ended = without_torch(*words)
        assert ended.returncode == ConfigError.exit_code, ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert f"needs {library}" in ended.stderr
        assert f"pip install 'oncontour[{extra}]'" in ended.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "CT", "--model", "hn-adapt"), "does 'adapt', not contours"),
        (("run", "CT", "--quality", "hn-organs"), "does 'contour', not contour quality"),
        (("synthesize", "CT", "--model", "hn-organs"), "does 'contour', not images"),
    ],
)
def test_without_torch_a_model_of_another_kind_is_told_as_such(words, told, tmp_path):
    write(Case("someone", {"ct": mean_patient().ct}), tmp_path / "ct", format="nifti")
    ended = without_torch(*(tmp_path / "ct" if word == "CT" else word for word in words), "--out", tmp_path / "out")
    assert ended.returncode == ModelError.exit_code, ended.stderr
    assert told in ended.stderr


def test_without_torch_predictions_are_judged(tmp_path):
    case = mean_patient()
    write(case, tmp_path / "truth" / "someone", format="nifti")
    write(case, tmp_path / "drawn" / "someone", format="nifti")
    words = ("evaluate", tmp_path / "truth", "--predictions", tmp_path / "drawn", "--out", tmp_path / "out", "--overlays", "none")
    ended = without_torch(*words, "--structures", "Brainstem", "--engine", "here")
    assert ended.returncode == 0, ended.stderr
    assert "1.000" in ended.stdout


def test_a_run_of_a_ct_needs_no_torch(tmp_path):
    case = mean_patient()
    write(Case("someone", {"ct": case.ct}), tmp_path / "ct", format="dicom")
    ended = without_torch("run", tmp_path / "ct", "--out", tmp_path / "out", "--threads", "1")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "report.html").exists()
    (found,) = (tmp_path / "out").glob("*.dcm")
    assert len(pydicom.dcmread(found).StructureSetROISequence) == 7
    assert set(EXPORTED) < set(shipped())
