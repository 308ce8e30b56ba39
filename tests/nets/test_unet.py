"""U-Net sizes: 31.03 M parameters at 64 base channels (Ronneberger et al. 2015), a quarter at 32; BatchNorm comes on top."""

import torch
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


def test_thin_levels_convolve_within_the_slice():
    """Nine weights a channel pair instead of 27: in the first convolution of the first level, and wherever both sides are thin."""
    from oncontour.nets.unet import UNet3d

    whole, thin = UNet3d(1, 3, widths=(4, 8, 16)), UNet3d(1, 3, widths=(4, 8, 16), thin=1)
    sizes = [tuple(m.kernel_size) for m in thin.modules() if isinstance(m, nn.Conv3d)]
    assert sizes == [(1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 5, (1, 3, 3), (1, 1, 1)]
    saved = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in thin.parameters())
    assert saved == 18 * (1 * 4 + 4 * 4 + 8 * 4)
    image = torch.zeros(1, 1, 8, 8, 8)
    assert thin(image).shape == whole(image).shape == (1, 3, 8, 8, 8)
