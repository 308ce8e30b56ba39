"""A grown net answers as before, and what was added can learn."""

import pytest
import torch

from oncontour.errors import ModelError
from oncontour.nets.grow import grow
from oncontour.nets.unet import UNet3d


def test_a_wider_net_answers_the_same_and_new_channels_learn():
    torch.manual_seed(0)
    narrow, wide = UNet3d(1, 3, widths=(4, 6, 8)).eval(), UNet3d(1, 3, widths=(6, 6, 12)).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    before = narrow(image)
    assert not torch.allclose(wide(image), before, atol=1e-3)
    grow(narrow, wide)
    assert torch.allclose(wide(image), before, atol=1e-5)
    wide(image).square().sum().backward()
    new = wide.head.weight.grad[:, 4:]
    assert new.abs().min() > 0, "the outputs' weights to the new channels have a slope to learn along"


def test_nothing_shrinks():
    with pytest.raises(ModelError, match="do not fit"):
        grow(UNet3d(1, 3, widths=(6, 8)), UNet3d(1, 3, widths=(4, 8)))
    with pytest.raises(ModelError, match="levels"):
        grow(UNet3d(1, 3, widths=(4, 8)), UNet3d(1, 3, widths=(4, 8, 16)))
