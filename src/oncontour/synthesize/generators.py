"""The two generators: plain, as the paper's; or beginning as a textbook's curve, to which they learn to add what a slice needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.nets.cyclegan import ResnetGenerator
from oncontour.synthesize.inputs import HU_RANGE, SIGNAL_RANGE, SynthesizeSettings
from oncontour.synthesize.signal import T1_CURVE

_BACK_CURVE = ((0.0, -1000.0), (0.1, -500.0), (0.15, -300.0), (0.2, 60.0), (0.32, 50.0), (0.5, 0.0), (0.93, -100.0), (1.3, -110.0))
"""(signal, HU) from which the way back begins: fat and muscle; of what is dark in both, bone and air, nothing is known."""

_UNSHARP_SD = 2.0
"""Pixels; what a Gaussian of this SD takes away is detail that may be strengthened."""


class Generator(nn.Module):
    """(n, 1, j, i) in [-1, 1] -> the other image, likewise: tanh of the net, or, with a ``start``, that plus what the net adds.

    With a ``start`` (the curve) the net sees the image and the start's answer; its last layer begins at nothing.
    """

    dims = 2

    def __init__(self, settings: SynthesizeSettings, start: nn.Module | None = None) -> None:
        super().__init__()
        s, curve = settings, start is not None
        self.curve = start
        self.net = ResnetGenerator(2 if curve else 1, 1, width=s.width, blocks=s.blocks, upsample=s.upsample, last_deconv=s.last_deconv)
        self.divisor = self.net.divisor

    def forward(self, x: Tensor) -> Tensor:
        if self.curve is None:
            return torch.tanh(self.net(x))
        first = self.curve(x)
        y: Tensor = first + self.net(torch.cat([x, first], dim=1))
        return y

    def start_afresh(self) -> None:
        """Weights from N(0, 0.02) (Zhu et al. 2017); with a curve a last layer of nothing, so that it is the curve at first."""
        drawn(self.net)
        if self.curve is not None:
            last = self.net.head[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)


class Curve(nn.Module):
    """Straight lines between points, as sums of ramps; constant beyond the ends."""

    knots: Tensor
    slopes: Tensor

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        at, value = (torch.tensor(one, dtype=torch.float32) for one in zip(*points, strict=True))
        steps = torch.diff(value) / torch.diff(at)
        self.start = float(value[0])
        self.register_buffer("knots", at, persistent=False)
        self.register_buffer("slopes", torch.diff(steps, prepend=torch.zeros(1), append=torch.zeros(1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # in 16 bits a step would be of 8 HU
        y = torch.full_like(x, self.start)
        for knot, slope in zip(self.knots, self.slopes, strict=True):
            y = y + slope * torch.relu(x - knot)
        return y


class Smoothed(nn.Module):
    """An image through a Gaussian of ``sd`` pixels, to which ``part`` of what a second one of _UNSHARP_SD takes away is added again."""

    kernel: Tensor

    def __init__(self, sd: float, part: float) -> None:
        super().__init__()
        reach = math.ceil(3 * math.hypot(sd, _UNSHARP_SD))
        fine, coarse = _gaussian(sd, reach), _gaussian(math.hypot(sd, _UNSHARP_SD), reach)
        self.register_buffer("kernel", ((1 + part) * fine - part * coarse)[None, None], persistent=False)
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.float(), [self.reach] * 4, mode="replicate")
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(padded, self.kernel).clamp(min=-1)


def _gaussian(sd: float, reach: int) -> Tensor:
    """Of two axes, summing up to 1."""
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    one = torch.exp(-0.5 * (at / sd) ** 2) if sd else (at == 0).float()
    two = one[:, None] * one
    return two / two.sum()


def textbook_image(settings: SynthesizeSettings) -> nn.Module:
    """T1(HU) of a textbook in the nets' range, smoothed as the settings say."""
    curve = Curve(_in_range(T1_CURVE, HU_RANGE, SIGNAL_RANGE))
    return nn.Sequential(curve, Smoothed(*settings.smooth)) if any(settings.smooth) else curve


def forth(settings: SynthesizeSettings) -> Generator:
    """From CT to MR."""
    return Generator(settings, textbook_image(settings) if settings.mode == "fair" else None)


def back(settings: SynthesizeSettings) -> Generator:
    """From MR to CT; serves the training alone."""
    return Generator(settings, Curve(_in_range(_BACK_CURVE, SIGNAL_RANGE, HU_RANGE)) if settings.mode == "fair" else None)


def drawn(net: nn.Module) -> None:
    """Draw every convolution from N(0, 0.02), biases 0."""
    for one in net.modules():
        if isinstance(one, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(one.weight, 0.0, 0.02)
            if one.bias is not None:
                nn.init.zeros_(one.bias)


def _in_range(points: Sequence[tuple[float, float]], source: tuple[float, float], target: tuple[float, float]) -> list[tuple[float, float]]:
    def scaled(value: float, between: tuple[float, float]) -> float:
        return 2 * (value - between[0]) / (between[1] - between[0]) - 1

    return [(scaled(at, source), scaled(value, target)) for at, value in points]
