"""DeepLabv3+ on MobileNetV2, after Xue et al., J Image Graphics 2020;25(10):2151-2158.

For a (1, 1, 512, 512) input at output stride 16: low-level features (1, 24, 128, 128), deepest (1, 320, 32, 32), logits (1, n, 512, 512).
One input channel and one class: 2.714 M parameters, of which backbone 1.811 M, ASPP 0.751 M, decoder 0.152 M.

Sources: backbone Sandler et al., CVPR 2018, table 2; head Chen et al., ECCV 2018 (separable atrous convolutions, decoder).
*Differs:* the paper does not state output stride or rates; its two x4 upsamplings imply output stride 16, whose rates are 6, 12, 18.
Rates are coupled to the stride (output stride 8: 12, 24, 36). BatchNorm uses torch's momentum 0.1 instead of Keras' 0.999 decay, as
training sets here are small; eps 1e-3 as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.nets import check_size

BLOCKS = (
    # expansion, width, repeats, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LOW_LEVEL = 2
"""After so many rows of BLOCKS the features stand at stride 4 with 24 channels: what the decoder takes."""
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


def _conv(
    i: int, o: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1, relu: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(nn.Conv2d(i, o, kernel, stride, padding, dilation, groups, bias=False), _norm(o), relu(inplace=True))


def _separable(i: int, o: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(i, i, 3, dilation=dilation, groups=i), _conv(i, o))


class InvertedResidual(nn.Module):
    """Widen by ``expansion``, filter each channel, narrow to ``o``; added to the input when size and width stay (Sandler 2018, fig. 4)."""

    def __init__(self, i: int, o: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = i * expansion
        layers = [] if expansion == 1 else [_conv(i, wide, relu=nn.ReLU6)]
        layers += [_conv(wide, wide, 3, stride=stride, dilation=dilation, groups=wide, relu=nn.ReLU6)]
        layers += [nn.Sequential(nn.Conv2d(wide, o, 1, bias=False), _norm(o))]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Features at stride 4 (24 channels) and at ``output_stride`` (320 channels); strides beyond it become dilations."""

    def __init__(self, in_channels: int, output_stride: int) -> None:
        super().__init__()
        self.stem = _conv(in_channels, 32, 3, stride=2, relu=nn.ReLU6)
        stages, width, at, dilation = [], 32, 2, 1
        for expansion, o, repeats, stride in BLOCKS:
            row = []
            for n in range(repeats):
                wanted = stride if n == 0 else 1
                taken = wanted if at * wanted <= output_stride else 1
                row.append(InvertedResidual(width, o, expansion=expansion, stride=taken, dilation=dilation))
                at, width = at * taken, o
                dilation *= wanted // taken
            stages.append(nn.Sequential(*row))
        self.low = nn.Sequential(*stages[:LOW_LEVEL])
        self.high = nn.Sequential(*stages[LOW_LEVEL:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(self.stem(x))
        return low, self.high(low)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three separable atrous 3x3, image pooling, joined to 256 channels (Chen 2018, section 3.1)."""

    def __init__(self, i: int, rates: tuple[int, ...], o: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_conv(i, o), *(_separable(i, o, rate) for rate in rates)])
        # No BatchNorm statistics over single values: with one image of 1x1 there would be nothing to normalise.
        self.pooled = nn.Sequential(nn.Conv2d(i, o, 1, bias=False), _norm(o), nn.ReLU(inplace=True))
        self.join = nn.Sequential(_conv(o * (len(rates) + 2), o), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        joined: Tensor = self.join(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))
        return joined


class DeepLabV3Plus(nn.Module):
    """DeepLabv3+ on MobileNetV2; logits at the input's size.

    ``output_stride`` 16 (the paper) or 8; ``aspp`` and ``decoder`` False give the ablations: features go to 256 channels by a 1x1
    convolution, and logits are upsampled straight to the input. Raises ValueError for an output stride without rates.
    """

    dims = 2

    def __init__(self, in_channels: int, out_channels: int, *, output_stride: int = 16, aspp: bool = True, decoder: bool = True) -> None:
        super().__init__()
        if output_stride not in RATES:
            raise ValueError(f"output stride must be one of {sorted(RATES)}, not {output_stride}")
        self.divisor = output_stride
        self.backbone = MobileNetV2(in_channels, output_stride)
        self.context: nn.Module = ASPP(320, RATES[output_stride]) if aspp else _conv(320, 256)
        self.reduce = _conv(24, 48) if decoder else None
        self.refine = nn.Sequential(_separable(304, 256), _separable(256, 256)) if decoder else None
        self.head = nn.Conv2d(256, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        check_size(tuple(size), self.divisor)
        low, high = self.backbone(x)
        y: Tensor = self.context(high)
        if self.reduce is not None and self.refine is not None:
            y = torch.cat([_upsample(y, low.shape[2:]), self.reduce(low)], dim=1)
            y = self.refine(y)
        return _upsample(self.head(y), size)


def _upsample(x: Tensor, size: torch.Size) -> Tensor:
    # align_corners=False keeps voxel edges on voxel edges: no half-pixel shift.
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
