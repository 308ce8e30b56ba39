"""The networks of a CycleGAN: a residual generator between two images of one slice, and a discriminator that judges patches.

Zhu et al., ICCV 2017 (section 7.2) after Johnson et al. 2016 (generator) and Isola et al. 2017 (discriminator of 70 x 70 patches).
The improved generator of Meng et al. (slides, University of Science and Technology of China) has 2 residual blocks instead of 9 and fewer
transposed convolutions, whose uneven overlap leaves a checkerboard: "up-sample the input first, then convolve". That can be read in two
ways, and both are here; see ``upsample``.
"""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from oncontour.errors import ConfigError
from oncontour.nets import GENERATOR_DIVISOR, Upsample, check_size


class ResnetGenerator(nn.Module):
    """c7s1-w, d2w, d4w, ``blocks`` residual blocks R4w, u2w, uw, c7s1: instance norm, reflection padding; see ``Upsample`` for the ways up.

    *Differs* from Zhu et al. in that the last tanh is left to whoever trains it: the net answers without bounds.
    """

    dims, divisor = 2, GENERATOR_DIVISOR

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        blocks: int = 2,
        upsample: Upsample = "resize_conv",
        last_deconv: bool = True,
    ) -> None:
        super().__init__()
        if upsample not in get_args(Upsample) or blocks < 0 or width < 1:
            raise ConfigError(
                f"upsample is one of {', '.join(get_args(Upsample))}, blocks 0 and width 1 or more, not {upsample}, {blocks}, {width}"
            )
        w, pre = width, upsample == "pre"
        parts: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")] if pre else []
        parts += [nn.ReflectionPad2d(3), *_normed(nn.Conv2d(in_channels, w, 7))]
        parts += [*_normed(nn.Conv2d(w, 2 * w, 3, 2, 1)), *_normed(nn.Conv2d(2 * w, 4 * w, 3, 2, 1))]
        parts += [_Block(4 * w) for _ in range(blocks)]
        parts += _up(4 * w, 2 * w, deconv=upsample != "resize_conv")
        parts += [] if pre else _up(2 * w, w, deconv=upsample == "deconv" or last_deconv)
        self.body = nn.Sequential(*parts)
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(2 * w if pre else w, out_channels, 7))

    def forward(self, x: Tensor) -> Tensor:
        check_size(tuple(x.shape[2:]), self.divisor)
        y: Tensor = self.head(self.body(x))
        return y


class PatchGAN(nn.Module):
    """C1-C2-C4-C8 of ``width`` and one answer for each patch of 70 x 70: kernel 4, LeakyReLU 0.2, instance norm but in the first layer."""

    def __init__(self, in_channels: int = 1, *, width: int = 64) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for n, stride in ((1, 2), (2, 2), (4, 1)):
            parts += [nn.Conv2d(n * width, 2 * n * width, 4, stride, 1), nn.InstanceNorm2d(2 * n * width), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*parts, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, j, i) of at least 32 x 32 -> (n, 1, patches, patches): 1 where a patch looks real, 0 where it does not."""
        y: Tensor = self.body(x)
        return y


class _Block(nn.Module):
    """A residual block: two convolutions of 3 x 3, each after reflection padding, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), *_normed(nn.Conv2d(width, width, 3))]
        self.body = nn.Sequential(*first, nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.InstanceNorm2d(layer.out_channels), nn.ReLU()]


def _up(before: int, after: int, *, deconv: bool) -> list[nn.Module]:
    """Twice the size."""
    if deconv:
        return _normed(nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1))
    return [nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1), *_normed(nn.Conv2d(before, after, 3))]
