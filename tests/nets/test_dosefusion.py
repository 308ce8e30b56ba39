"""The fusing net: gate, branches, slices, and the paper's encoder."""

import pytest
import torch

from oncontour.errors import ModelError
from oncontour.nets import make_net
from oncontour.nets.dosefusion import RESNET34, DoseFusion, _pool

SMALL = {"widths": (4, 8, 8, 8), "embedding": 8}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", ["2d", "2.5d", "3d"])
def test_each_kind_gives_risk_region_and_unit_vectors(kind):
    net = DoseFusion(2, 3, kind=kind, features=5, facts=2, **SMALL).eval()
    answer = net.fuse(torch.randn(3, 2, 8, 16, 16), torch.randn(3, 5), torch.randn(3, 2))
    assert answer.risk.shape == (3, 2)
    assert answer.region.shape == (3, 1, 8, 16, 16)
    assert answer.image.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert answer.features.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_pooling_over_the_map_by_pencil():
    """A map that is 1 on one pixel takes that pixel's feature; on half of two their mean; without a map it is the window's."""
    level = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    chance = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    pooled, amount = _pool([level], chance)
    assert (pooled.item(), amount.item()) == (6.0, 0.25)
    assert _pool([level], torch.tensor([[[[0.5, 0.5], [0.0, 0.0]]]]))[0].item() == 1.5
    assert _pool([level], None)[0].item() == 3.0


def test_slices_beyond_the_map_say_nothing():
    """With a map that is 0 on the upper slices, what is up there does not matter to the risk; without the gate it does."""
    for gate, same in ((True, True), (False, False)):
        net = DoseFusion(1, 2, gate=gate, **SMALL).eval()
        with torch.no_grad():
            net.decoder.head.weight.zero_()
            net.decoder.head.bias.fill_(-50.0)
        original = net.decoder.forward
        net.decoder.forward = lambda levels, f=original: f(levels) + 100.0 * (torch.arange(levels[0].shape[0]) % 8 < 4)[:, None, None, None]
        x = torch.randn(1, 1, 8, 16, 16)
        other = x.clone()
        other[:, :, 4:] = torch.randn(4, 16, 16)
        with torch.no_grad():
            assert torch.allclose(net.fuse(x).risk, net.fuse(other).risk, atol=1e-5) is same


def test_the_number_of_slices_is_free_and_2_5d_sees_neighbours():
    net = DoseFusion(1, 1, region=False, **SMALL).eval()
    assert net.fuse(torch.randn(1, 1, 5, 16, 16)).risk.shape == (1, 1)
    assert net.fuse(torch.randn(1, 1, 5, 16, 16)).region is None
    near = DoseFusion(1, 1, kind="2.5d", region=False, **SMALL).eval()
    x = torch.randn(1, 1, 5, 16, 16)
    assert near._levels(x)[0].shape[0] == 5
    changed = x.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        differs = (near._levels(x)[0] - near._levels(changed)[0]).abs().amax(dim=(1, 2, 3)) > 1e-6
    assert differs.tolist() == [False, True, True, True, False]


def test_a_branch_without_numbers_counts_as_average():
    net = DoseFusion(1, 2, features=3, facts=1, **SMALL).eval()
    x = torch.randn(2, 1, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(net.fuse(x).risk, net.fuse(x, torch.zeros(2, 3), torch.zeros(2, 1)).risk)
        assert not torch.equal(net.fuse(x).risk, net.fuse(x, torch.ones(2, 3)).risk)


def test_the_paper_s_encoder_is_resnet34():
    """ResNet34 without its classifier has 21.28 M weights (He et al. 2016); ours: another first convolution (3 x 3, 2 channels)."""
    net = DoseFusion(2, 2, **RESNET34)
    count = sum(p.numel() for p in net.encoder.parameters())
    assert count == 21_284_672 - 64 * 3 * 49 + 64 * 2 * 9


def test_an_unknown_kind_is_refused():
    with pytest.raises(ModelError, match=r"2d, 2\.5d or 3d"):
        make_net("dosefusion", 1, 2, kind="4d")
