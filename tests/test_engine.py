"""Torch is the reference; OpenVINO must say the same, always the same, and tell nobody."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from oncontour.engine import Engine
from oncontour.errors import ConfigError, ModelError


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
        from oncontour.engine import Engine
        run = Engine.load(torch.nn.Conv2d(1, 1, 1), (1, 1, 4, 4), backend="openvino")
        run(numpy.zeros((1, 1, 4, 4)))
        print("telemetry", "openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"] is not None)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n")[0] == "telemetry False"
    assert "PHONED" not in done.stdout
