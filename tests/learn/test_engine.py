"""Torch is the reference; OpenVINO must say the same, always the same, and tell nobody."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from oncontour.errors import ConfigError, ModelError
from oncontour.learn.engine import Engine


def small_net(dims: int, classes: int = 3) -> "torch.nn.Module":
    """Strided convolutions, dilation, batch norm, a skip and an upsampling: what contouring nets are made of."""
    torch.manual_seed(1)
    conv = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
    norm = torch.nn.BatchNorm2d if dims == 2 else torch.nn.BatchNorm3d

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.Sequential(conv(1, 8, 3, stride=2, padding=1), norm(8), torch.nn.ReLU6())
            self.wide = torch.nn.Sequential(conv(8, 8, 3, padding=2, dilation=2), norm(8), torch.nn.ReLU6())
            self.out = conv(8, classes, 1)

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            low = self.down(x)
            scores = self.out(low + self.wide(low))
            return torch.nn.functional.interpolate(
                scores, size=x.shape[2:], mode="bilinear" if dims == 2 else "trilinear", align_corners=False
            )

    return Net()


@pytest.mark.parametrize(("dims", "shape"), [(2, (3, 1, 48, 64)), (3, (1, 1, 16, 24, 32))])
def test_openvino_says_what_torch_says(dims, shape):
    net, images = small_net(dims), np.random.default_rng(0).normal(size=shape)
    reference = Engine.load(net, shape, backend="torch")(images)
    fast = Engine.load(net, shape, backend="openvino")
    scores = fast(images)
    assert scores.dtype == reference.dtype == np.float32
    assert scores.shape == reference.shape == (shape[0], 3, *shape[2:])
    assert np.abs(scores - reference).max() < 1e-5
    assert np.array_equal(scores, fast(images)), "the same input gives the same bits"


def test_answers_do_not_share_memory():
    run = Engine.load(small_net(2), (1, 1, 32, 32))
    first = run(np.zeros((1, 1, 32, 32)))
    kept = first.copy()
    run(np.ones((1, 1, 32, 32)))
    assert np.array_equal(first, kept)


def test_a_smaller_batch_and_another_shape():
    net, images = small_net(2), np.random.default_rng(0).normal(size=(4, 1, 32, 32))
    run = Engine.load(net, (4, 1, 32, 32), backend="openvino")
    assert np.allclose(run(images[:3]), run(images)[:3], atol=1e-6)
    wide = np.random.default_rng(1).normal(size=(1, 1, 64, 32))
    assert np.allclose(run(wide), Engine.load(net, wide.shape, backend="torch")(wide), atol=1e-5)


def test_threads_are_honoured_and_given_back():
    before = torch.get_num_threads()
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            seen.append(torch.get_num_threads())
            return x

    run = Engine.load(Spy(), (1, 1, 4, 4), backend="torch", threads=1)
    run(np.zeros((1, 1, 4, 4)))
    assert (seen, run.threads, torch.get_num_threads()) == ([1], 1, before)


def test_what_cannot_be_used_is_said():
    with pytest.raises(ConfigError, match="'tpu'"):
        Engine.load(small_net(2), (1, 1, 8, 8), backend="tpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not 0"):
        Engine.load(small_net(2), (1, 1, 8, 8), threads=0)
    for backend in ("torch", "openvino"):
        with pytest.raises(ModelError, match=r"1, 2, 8, 8"):
            Engine.load(small_net(2), (1, 1, 8, 8), backend=backend)(np.zeros((1, 2, 8, 8)))


def test_onnx_runs_and_other_files_are_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 1, 1, 1), [2.0, -1.0])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])],
        "scores",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "j", "i"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    images = np.arange(12.0).reshape(1, 1, 3, 4)
    assert np.allclose(Engine.load_onnx(path)(images), np.concatenate([2 * images, -images], axis=1))
    path.write_bytes(b"%PDF-1.7 not a net")
    with pytest.raises(ModelError, match=r"net\.onnx"):
        Engine.load_onnx(path)


def test_nothing_leaves_the_host():
    """``import openvino`` phones home by default: in a fresh process no connection is tried and no name looked up."""
    script = """
        import sys
        def watch(event, arguments):
            if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
                print("PHONED", event, arguments[1:], flush=True)
        sys.addaudithook(watch)
        import numpy, torch
        from oncontour.learn.engine import Engine
        run = Engine.load(torch.nn.Conv2d(1, 1, 1), (1, 1, 4, 4), backend="openvino")
        run(numpy.zeros((1, 1, 4, 4)))
        print("telemetry", "openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"] is not None)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n")[0] == "telemetry False"
    assert "PHONED" not in done.stdout


# ---- memory that runs out

STARVED = """
    import resource, sys
    from pathlib import Path
    import numpy, torch
    from oncontour import cli  # as in a command, which is loaded long before memory runs out
    from oncontour.learn.engine import Engine, openvino

    def leave(mebibytes):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (mebibytes << 20),) * 2)

    def told(work):
        code, sentence = 0, "done"
        try:
            work()
        except BaseException as error:
            code, sentence = cli.verdict(error)
            sentence = type(error).__name__ + " " + sentence
        print(code, sentence, flush=True)
"""


def starved(script: str, *words: object) -> str:
    """What ``script`` prints in a process of its own, whose address space it limits."""
    code = textwrap.dedent(STARVED) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_window_too_large_for_the_memory_ends_as_such(backend):
    """A first convolution of 32 channels on 128^3 voxels takes 256 MiB; 150 are left."""
    script = """
        net = torch.nn.Sequential(torch.nn.Conv3d(1, 32, 3, padding=1), torch.nn.Conv3d(32, 1, 1))
        run = Engine.load(net, (1, 1, 16, 16, 16), backend=sys.argv[1], threads=1)
        run(numpy.zeros((1, 1, 16, 16, 16)))
        leave(150)
        told(lambda: run(numpy.zeros((1, 1, 128, 128, 128))))
        told(lambda: run(numpy.zeros((1, 1, 16, 16, 16))))
    """
    first, second = starved(script, backend).splitlines()
    assert first.startswith("71 MemoryError oncontour: this needs more memory than there is"), first
    assert second == "0 done", "what fits goes on"


def test_openvino_s_own_memory_ends_as_such(tmp_path):
    """An ONNX file goes past torch: what runs out of memory is OpenVINO's compiler (no byte for another thread) and its tensors."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weights = [helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(shape).ravel()) for name, shape in ONNX_WEIGHTS.items()]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"], kernel_shape=[1] * 3),
        helper.make_node("Conv", ["y", "b"], ["s"], kernel_shape=[1] * 3),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["n", 1, "k", "j", "i"]), ("s", None))]
    graph = helper.make_graph(nodes, "scores", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    script = """
        run = Engine.load_onnx(sys.argv[1], threads=1)
        run(numpy.zeros((1, 1, 16, 16, 16)))
        images = numpy.zeros((1, 1, 192, 192, 192), numpy.float32)
        leave(int(sys.argv[2]))
        told(lambda: run(images))
    """
    for left in (1, 300):
        assert starved(script, tmp_path / "net.onnx", left).startswith("71 MemoryError oncontour: this needs more memory than there is")


ONNX_WEIGHTS = {"a": (64, 1, 1, 1, 1), "b": (1, 64, 1, 1, 1)}


def test_a_training_that_runs_out_of_memory_ends_as_such(tmp_path):
    script = """
        from oncontour.phantom import head_neck
        from oncontour.contour.inputs import ContourSettings
        from oncontour.contour.task import ContourTask
        from oncontour.learn.fit import TrainSettings, fit
        cases = [head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))]
        settings = ContourSettings(("Parotid_L", "Parotid_R"), net_options={"widths": (64, 64)}, window=(96, 96, 96), draws=2)
        leave(300)
        told(lambda: fit(ContourTask(settings), cases, sys.argv[1], TrainSettings(epochs=1, validation=0, threads=1)))
    """
    told = starved(script, tmp_path / "run").splitlines()[-1]
    assert told.startswith("71 MemoryError oncontour: this needs more memory than there is"), told


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("Exception from src/inference/src/cpp/core.cpp:117:\nstd::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch.so: failed to map segment from shared object: Cannot allocate memory"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_every_way_of_saying_that_memory_ran_out(error):
    from oncontour import cli
    from oncontour.libraries import memory_told

    with pytest.raises(MemoryError), memory_told():
        raise error
    assert cli.verdict(error)[0] == cli.NO_MEMORY
    with pytest.raises(ModelError), memory_told():
        raise ModelError("a net of another shape")


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError(11, "Resource temporarily unavailable", "/share/ct/1.dcm"),
        OSError(5, "cannot allocate memory on the server", "/share/ct/1.dcm"),
        ValueError("out of memory"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_what_only_sounds_like_it_is_none(error):
    from oncontour import cli
    from oncontour.libraries import is_out_of_memory

    assert not is_out_of_memory(error)
    assert cli.verdict(error)[0] != cli.NO_MEMORY


def test_no_sentence_of_another_project_reaches_the_user():
    from oncontour.libraries import why

    torch_says = "Weights only load failed. Please file an issue with the following: WeightsUnpickler error:\nUnsupported operand 149"
    assert why(RuntimeError(torch_says)) == "Weights only load failed."
    assert why(RuntimeError("INTERNAL ASSERT FAILED at x.cpp:1, please report a bug to PyTorch.")) == "RuntimeError"
    assert why(RuntimeError("Exception from src/a.cpp:1:\nCheck 'p' failed:\nshapes differ\n")) == "shapes differ"
    assert why(KeyError(101)) == "KeyError"


def test_a_surprise_within_a_library_is_told_by_its_name(capsys):
    from oncontour import cli

    try:
        torch.nn.Linear(2, 2)(torch.zeros(3))
    except RuntimeError as error:
        code, sentence = cli.verdict(error, ["run"])
    assert code == cli.UNEXPECTED
    assert "(RuntimeError in torch);" in sentence
    assert "mat" not in sentence
