"""The quality nets: sizes, the two ways of answering, and that structure and facts count."""

import numpy as np
import pytest
import torch

from oncontour.learn.engine import Engine
from oncontour.nets import make_net
from oncontour.nets.quality import Packed, agreement

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


def test_agreement_of_mask_and_chances_by_pencil():
    """4 pixels of mask, 8 of opinion at one half, 2 of them shared: 2 * 1 / (4 + 4)."""
    mask, opinion = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    mask[0, 0, :4], opinion[0, 0, 2:6], opinion[0, 1, :4] = 1, 0.5, 0.5
    found = agreement(mask, opinion)
    assert found[0, 0].item() == pytest.approx(2 / 8, abs=1e-3)
    assert found[0, 1].item() == pytest.approx(np.log(1 + 4) / 5)
    assert agreement(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))[0].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["quality", "quality_cnn"])
@pytest.mark.parametrize("maps", [0, 1])
def test_a_second_opinion_counts(name, maps):
    torch.manual_seed(1)
    net = make_net(name, 7, 4 + maps, **{**OPTIONS, "maps": maps}, mask_channel=1, chance_channels=[3]).eval()
    x = picture().clamp(0, 1)
    other = x.clone()
    other[:, 3] = 1 - other[:, 3]
    with torch.no_grad():
        assert (net.answers(x).numbers - net.answers(other).numbers).abs().max() > 1e-3
