"""The two generators: plain, as the paper's; or beginning as a textbook's curve, to which they learn to add what a slice needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oncontour.nets.cyclegan import ResnetGenerator
from oncontour.synthesize.inputs import HU_RANGE, SIGNAL_RANGE, SynthesizeSettings
from oncontour.synthesize.signal import T1_CURVE

_BACK_CURVE = ((0.0, -1000.0), (0.1, -500.0), (0.15, -300.0), (0.2, 60.0), (0.32, 50.0), (0.5, 0.0), (0.93, -100.0), (1.3, -110.0))
"""(signal, HU) from which the way back begins: fat and muscle; of what is dark in both, bone and air, nothing is known."""


class Generator(nn.Module):
    """(n, 1, j, i) in [-1, 1] -> the other image, likewise: tanh of the net, or, with a ``curve``, the curve plus what the net adds.

    ``curve``: (from, to) points in the net's range. The net then sees the image and the curve's answer; its last layer begins at nothing.
    """

    dims = 2

    def __init__(self, settings: SynthesizeSettings, curve: Sequence[tuple[float, float]] = ()) -> None:
        super().__init__()
        s = settings
        self.curve = Curve(curve) if curve else None
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
        y = torch.full_like(x, self.start)
        for knot, slope in zip(self.knots, self.slopes, strict=True):
            y = y + slope * torch.relu(x - knot)
        return y


def textbook_curve() -> Curve:
    """T1(HU) of a textbook, in the nets' range."""
    return Curve(_in_range(T1_CURVE, HU_RANGE, SIGNAL_RANGE))


def forth(settings: SynthesizeSettings) -> Generator:
    """From CT to MR."""
    return Generator(settings, _in_range(T1_CURVE, HU_RANGE, SIGNAL_RANGE) if settings.mode == "fair" else ())


def back(settings: SynthesizeSettings) -> Generator:
    """From MR to CT; serves the training alone."""
    return Generator(settings, _in_range(_BACK_CURVE, SIGNAL_RANGE, HU_RANGE) if settings.mode == "fair" else ())


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
