"""The quality nets: sizes, the two ways of answering, and that structure and facts count."""

import pytest
import torch

from oncontour.engine import Engine
from oncontour.nets import make_net
from oncontour.nets.quality import Packed

OPTIONS = {"maps": 1, "structures": 3, "facts": 2, "width": 32, "depth": 1}


def picture(n=2):
    torch.manual_seed(0)
    x = torch.randn(n, 7, 32, 40)
    x[:, -1] = 0
    return x


@pytest.fixture(params=["quality", "quality_cnn"])
def net(request):
    torch.manual_seed(1)
    return make_net(request.param, 7, 5, **OPTIONS).eval()


def test_default_size_is_small_and_alike():
    sizes = [
        sum(p.numel() for p in make_net(name, 7, 7, maps=1, structures=8, facts=2).parameters()) for name in ("quality", "quality_cnn")
    ]
    assert max(sizes) < 3e6
    assert abs(sizes[0] - sizes[1]) < 0.1 * sizes[0]


def test_planes_numbers_and_rows_say_the_same(net):
    x = picture()
    with torch.no_grad():
        features, numbers, maps = net.answers(x)
        planes, rows = net(x), Packed(net)(x)
    assert features.shape == (2, 32)
    assert maps.shape == (2, 1, 32, 40)
    assert torch.equal(planes[:, :1], maps)
    assert torch.equal(planes[:, 1:, 3, 4], numbers)
    assert torch.equal(rows, torch.cat([features, numbers, maps.flatten(1)], 1))


def test_the_structure_and_the_facts_count_and_the_rest_of_the_plane_does_not(net):
    x, other, told, noise = (picture() for _ in range(4))
    other[:, -1, 0, 0] = 2
    told[:, -1, 0, 1] = 0.5
    noise[:, -1, 5:] = 9
    with torch.no_grad():
        base, named, facts, same = (net.answers(v).numbers for v in (x, other, told, noise))
    assert not torch.allclose(base, named)
    assert not torch.allclose(base, facts)
    assert torch.equal(base, same)


def test_openvino_agrees_with_torch(net):
    x = picture(3)
    x[:, -1, 0, 0] = torch.tensor([0.0, 1.0, 2.0])
    rows = [Engine.load(Packed(net), (4, 7, 32, 40), backend=backend, threads=1)(x.numpy()) for backend in ("torch", "openvino")]
    assert abs(rows[0] - rows[1]).max() < 1e-3
