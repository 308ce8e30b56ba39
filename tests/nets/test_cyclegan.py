"""Generators and discriminator of the CycleGAN: as large as the reference, and blind to nothing that their patches hold."""

import pytest
import torch

from oncontour.errors import ConfigError
from oncontour.nets.cyclegan import PatchGAN, ResnetGenerator


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # By pencil, of c7s1-64, d128, d256, R256 x n, u128, u64, c7s1-1 with one channel and biases: a block has 2 (256 x 256 x 9 + 256).
        ({"blocks": 9, "upsample": "deconv"}, 11_365_633),
        ({"blocks": 2, "upsample": "deconv"}, 3_104_513),
        ({"blocks": 2, "upsample": "resize_conv"}, 3_104_513),
        ({"blocks": 2, "upsample": "resize_conv", "last_deconv": False}, 3_104_513),
        # One way up less (128 x 64 x 9 + 64), and the last convolution sees 128 maps instead of 64 (64 x 49 more).
        ({"blocks": 2, "upsample": "pre"}, 3_104_513 - 73_792 + 3_136),
    ],
)
def test_a_generator_is_as_large_as_the_reference(options, parameters):
    net = ResnetGenerator(1, 1, width=64, **options)
    assert count(net) == parameters
    assert net.eval()(torch.zeros(1, 1, 32, 48)).shape == (1, 1, 32, 48)


def test_the_first_reading_has_the_size_of_its_own():
    assert count(ResnetGenerator(1, 1, width=64, blocks=2, upsample="pre")) == 3_033_857


def test_transposed_convolutions_are_two_one_one_and_none():
    def transposed(**options):
        return sum(isinstance(one, torch.nn.ConvTranspose2d) for one in ResnetGenerator(1, 1, width=4, **options).modules())

    assert [transposed(upsample=one) for one in ("deconv", "pre", "resize_conv")] == [2, 1, 1]
    assert transposed(upsample="resize_conv", last_deconv=False) == 0


def test_the_discriminator_is_as_large_as_the_reference_and_sees_patches_of_70_pixels():
    net = PatchGAN(1, width=64)
    assert count(net) == 2_762_689
    judge = PatchGAN(1, width=2)
    for one in judge.modules():  # what reaches an answer through convolutions alone: the norm would carry every pixel everywhere
        if isinstance(one, torch.nn.InstanceNorm2d):
            one.forward = lambda x: x
    x = torch.randn(1, 1, 256, 256, requires_grad=True)
    answer = judge(x)
    answer[0, 0, 15, 15].backward()
    seen = x.grad[0, 0].abs().sum(dim=0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 70


def test_a_way_up_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="deconv, pre, resize_conv"):
        ResnetGenerator(1, 1, upsample="bilinear")
