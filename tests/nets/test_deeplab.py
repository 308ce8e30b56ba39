"""DeepLabv3+ on MobileNetV2 against numbers computed from its table (Xue et al. 2020; Sandler et al. 2018, table 2)."""

import pytest
import torch
from torch import nn

from oncontour.nets.deeplab import RATES, DeepLabV3Plus, _upsample


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_by_pencil():
    net = DeepLabV3Plus(1, 1)
    # ASPP by hand: two 1x1 (320->256) with BN, three depthwise + pointwise, join 1280->256; decoder: 24->48, 304->256, 256->256, head.
    aspp = 2 * (320 * 256 + 512) + 3 * (320 * 9 + 640 + 320 * 256 + 512) + 1280 * 256 + 512
    decoder = (24 * 48 + 96) + (304 * 9 + 608 + 304 * 256 + 512) + (256 * 9 + 512 + 256 * 256 + 512) + 257
    assert count(net.context) == aspp == 750912
    assert count(net) - count(net.backbone) - count(net.context) == decoder
    assert round(count(net) / 1e6, 3) == 2.714
    assert round(count(net.backbone) / 1e6, 3) == 1.811


@pytest.mark.parametrize("output_stride", [16, 8])
def test_features_and_rates_are_coupled_to_the_stride(output_stride):
    net = DeepLabV3Plus(1, 1, output_stride=output_stride).eval()
    with torch.no_grad():
        low, high = net.backbone(torch.zeros(1, 1, 128, 160))
    assert low.shape == (1, 24, 32, 40)
    assert high.shape == (1, 320, 128 // output_stride, 160 // output_stride)
    rates = [m.dilation[0] for m in net.context.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert tuple(rates) == RATES[output_stride]
    assert tuple(16 * r // output_stride for r in RATES[16]) == RATES[output_stride]


@pytest.mark.parametrize(("output_stride", "dilations"), [(16, [1, 2, 2, 2]), (8, [1, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4])])
def test_strides_given_up_become_dilations(output_stride, dilations):
    depthwise = [
        m for m in DeepLabV3Plus(1, 1, output_stride=output_stride).backbone.modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    ]
    assert [m.dilation[0] for m in depthwise][-len(dilations) :] == dilations


def test_four_kinds_of_inverted_residual():
    blocks = [m for m in DeepLabV3Plus(1, 1).backbone.modules() if type(m).__name__ == "InvertedResidual"]
    assert len(blocks) == 17
    assert sum(b.adds for b in blocks) == 10


def test_ablations_are_smaller():
    full = count(DeepLabV3Plus(1, 1))
    assert count(DeepLabV3Plus(1, 1, aspp=False)) < full
    assert count(DeepLabV3Plus(1, 1, decoder=False)) < full
    with pytest.raises(ValueError, match="output stride"):
        DeepLabV3Plus(1, 1, output_stride=32)


def test_upsampling_keeps_pixel_edges_on_pixel_edges():
    """A ramp sampled at pixel centres (n + 1/2) stays that ramp at four times the resolution: no half-pixel shift."""
    coarse = (torch.arange(16.0) + 0.5).expand(1, 1, 16, 16)
    fine = _upsample(coarse, torch.Size((64, 64)))[0, 0, 32]
    expected = (torch.arange(64.0) + 0.5) / 4
    assert torch.allclose(fine[2:-2], expected[2:-2], atol=1e-5)
