"""U-Net sizes: 31.03 M parameters at 64 base channels (Ronneberger et al. 2015), a quarter at 32; BatchNorm comes on top."""

from torch import nn

from oncontour.nets.unet import UNet


def convolutions(net):
    # BatchNorm replaces the biases of its convolutions (its own shift), so biases are what its shifts count.
    return sum(p.numel() for m in net.modules() if not isinstance(m, nn.BatchNorm2d) for p in m.parameters(recurse=False)) + sum(
        m.bias.numel() for m in net.modules() if isinstance(m, nn.BatchNorm2d)
    )


def test_parameters_as_published():
    assert round(convolutions(UNet(1, 1, base=64)) / 1e6, 2) == 31.03
    assert round(convolutions(UNet(1, 1, base=32)) / 1e6, 2) == 7.76
