"""The two U-Nets of nnU-Net v2, so that its trained models can be read: plain, and with a residual encoder.

Isensee et al., Nat Methods 2021; residual encoder: Isensee et al., MICCAI 2024 ("nnU-Net Revisited"). Submodules are named as in the
package ``dynamic_network_architectures``, so that its parameters load strictly once their doubles are dropped (``own_names``).
*Differs:* no deep supervision and no dropout, which play no part in predicting; blocks with a bottleneck are not offered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from oncontour.nets import check_size

Steps = Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Style:
    """What all convolutions of a net share."""

    dims: int
    bias: bool
    norm: str
    norm_options: Mapping[str, object]
    slope: float

    def conv(self, i: int, o: int, kernel: Sequence[int], stride: Sequence[int], bias: bool) -> nn.Module:
        made = nn.Conv2d if self.dims == 2 else nn.Conv3d
        return made(i, o, tuple(kernel), tuple(stride), tuple((n - 1) // 2 for n in kernel), bias=bias)  # type: ignore[arg-type]

    def normalisation(self, channels: int) -> nn.Module:
        kinds: dict[tuple[str, int], type[nn.Module]] = {
            ("instance", 2): nn.InstanceNorm2d,
            ("instance", 3): nn.InstanceNorm3d,
            ("batch", 2): nn.BatchNorm2d,
            ("batch", 3): nn.BatchNorm3d,
        }
        return kinds[self.norm, self.dims](channels, **self.norm_options)

    def activation(self) -> nn.Module:
        return nn.LeakyReLU(self.slope, inplace=True) if self.slope else nn.ReLU(inplace=True)

    @property
    def one(self) -> tuple[int, ...]:
        return (1,) * self.dims


class _Conv(nn.Module):
    """Convolution, normalisation, activation (none where ``active`` is off)."""

    def __init__(
        self, s: _Style, i: int, o: int, kernel: Sequence[int], stride: Sequence[int], *, active: bool = True, bias: bool | None = None
    ):
        super().__init__()
        self.conv = s.conv(i, o, kernel, stride, s.bias if bias is None else bias)
        self.norm = s.normalisation(o)
        self.nonlin = s.activation() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlin(self.norm(self.conv(x)))
        return out


class _Stack(nn.Module):
    """``count`` convolutions, the first with the stride."""

    def __init__(self, s: _Style, count: int, i: int, o: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(_Conv(s, o if n else i, o, kernel, s.one if n else stride) for n in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        return out


class _Residual(nn.Module):
    """Two convolutions beside a shortcut that pools where there is a stride and projects where channels change (ResNet-D)."""

    def __init__(self, s: _Style, i: int, o: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = _Conv(s, i, o, kernel, stride)
        self.conv2 = _Conv(s, o, o, kernel, s.one, active=False)
        self.nonlin2 = s.activation()
        steps: list[nn.Module] = []
        if max(stride) > 1:
            pool = nn.AvgPool2d if s.dims == 2 else nn.AvgPool3d
            steps.append(pool(tuple(stride), tuple(stride)))  # type: ignore[arg-type]
        if i != o:
            steps.append(_Conv(s, i, o, s.one, s.one, active=False, bias=False))
        self.skip = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return out


class _ResidualStage(nn.Module):
    def __init__(self, s: _Style, count: int, i: int, o: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Residual(s, o if n else i, o, kernel, s.one if n else stride) for n in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class _Encoder(nn.Module):
    """Features of every stage, finest first."""

    def __init__(
        self, s: _Style, i: int, widths: Sequence[int], kernels: Steps, strides: Steps, counts: Sequence[int], residual: bool
    ) -> None:
        super().__init__()
        self.stem = _Stack(s, 1, i, widths[0], kernels[0], s.one) if residual else None
        stages: list[nn.Module] = []
        before = widths[0] if residual else i
        for o, kernel, stride, count in zip(widths, kernels, strides, counts, strict=True):
            if residual:
                stages.append(_ResidualStage(s, count, before, o, kernel, stride))
            else:
                stages.append(nn.Sequential(_Stack(s, count, before, o, kernel, stride)))
            before = o
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.stem is not None:
            x = self.stem(x)
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


class _Decoder(nn.Module):
    def __init__(self, s: _Style, o: int, widths: Sequence[int], kernels: Steps, strides: Steps, counts: Sequence[int]) -> None:
        super().__init__()
        up = nn.ConvTranspose2d if s.dims == 2 else nn.ConvTranspose3d
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strides[:0:-1], kernels[-2::-1], counts, strict=True))
        self.transpconvs = nn.ModuleList(
            up(deep, wide, tuple(stride), tuple(stride), bias=s.bias)  # type: ignore[arg-type]
            for deep, wide, stride, _, _ in pairs
        )
        self.stages = nn.ModuleList(_Stack(s, count, 2 * wide, wide, kernel, s.one) for _, wide, _, kernel, count in pairs)
        # All of nnU-Net's heads, so that its parameters fit; the last, at full resolution, is the one that answers.
        self.seg_layers = nn.ModuleList(s.conv(wide, o, s.one, s.one, True) for _, wide, _, _, _ in pairs)

    def forward(self, skips: list[Tensor]) -> Tensor:
        x = skips[-1]
        for n, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat([up(x), skips[-(n + 2)]], dim=1))
        out: Tensor = self.seg_layers[-1](x)
        return out


class NnUNet(nn.Module):
    """``kind`` "plain" (PlainConvUNet) or "residual" (ResidualEncoderUNet); one entry a stage, finest first, in ``widths`` (channels),
    ``kernels``, ``strides`` and ``encoder`` (convolutions or blocks); one less in ``decoder`` (convolutions, coarsest first).

    (n, in_channels, ...) -> logits (n, out_channels, ...), sizes multiples of ``divisor`` along each axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kind: Literal["plain", "residual"] = "plain",
        widths: Sequence[int],
        kernels: Steps,
        strides: Steps,
        encoder: Sequence[int],
        decoder: Sequence[int],
        bias: bool = True,
        norm: Literal["instance", "batch"] = "instance",
        norm_options: Mapping[str, object] | None = None,
        slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.dims = len(strides[0])
        options = {"eps": 1e-5, "affine": True} if norm_options is None else norm_options
        style = _Style(self.dims, bias, norm, options, slope)
        self.divisor = max(math.prod(int(stride[axis]) for stride in strides) for axis in range(self.dims))
        self.divisors = tuple(math.prod(int(stride[axis]) for stride in strides) for axis in range(self.dims))
        self.encoder = _Encoder(style, in_channels, widths, kernels, strides, encoder, kind == "residual")
        self.decoder = _Decoder(style, out_channels, widths, kernels, strides, decoder)

    def forward(self, x: Tensor) -> Tensor:
        for n, divisor in zip(x.shape[2:], self.divisors, strict=True):
            check_size((int(n),), divisor)
        out: Tensor = self.decoder(self.encoder(x))
        return out


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """nnU-Net's parameters without their doubles: it holds each block twice (``all_modules``) and the encoder in the decoder too."""
    return {
        name.removeprefix("module.").replace("_orig_mod.", ""): value
        for name, value in weights.items()
        if ".all_modules." not in name and "decoder.encoder." not in name
    }
