"""U-Nets of Ronneberger et al., MICCAI 2015, in two and three dimensions.

For ``UNet(1, 1)``: five levels of 32, 64, 128, 256, 512 channels, two 3x3 convolutions a level both ways, 2x2 transposed convolutions up:
7.76 M parameters in its convolutions (64 base channels: 31.03 M), the baseline of Xue et al. 2020 at the width its speed implies.
*Differs:* padded convolutions (output as large as input), BatchNorm after each (1 - DSC at a rate of 0.005 does not train without).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oncontour.nets import check_size


def _step(dims: int, i: int, o: int, *, stride: int = 1, thin: bool = False) -> nn.Sequential:
    """Convolution, normalisation, activation; ``thin``: in 3D, but within the slice. 3D takes instance norm: its batches are one or two."""
    if dims == 2:
        return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
    size, around = ((1, 3, 3), (0, 1, 1)) if thin else ((3, 3, 3), (1, 1, 1))
    return nn.Sequential(
        nn.Conv3d(i, o, size, stride, around, bias=False), nn.InstanceNorm3d(o, affine=True), nn.LeakyReLU(0.01, inplace=True)
    )


def _upwards(kept: list[Tensor], up: nn.ModuleList, merge: nn.ModuleList, head: nn.Module) -> Tensor:
    """Class scores from what each level of the way down gave, the deepest last: enlarged, joined with the level above, and so on.

    ``kept`` is emptied on the way: what has been used need not stay in memory.
    """
    x = kept.pop()
    for enlarge, join in zip(up, merge, strict=True):
        x = join(torch.cat([kept.pop(), enlarge(x)], dim=1))
    logits: Tensor = head(x)
    return logits


class UNet(nn.Module):
    """The paper's baseline in two dimensions: ``base`` channels doubling over ``levels``, max pooling down, transposed convolutions up."""

    dims = 2

    def __init__(self, in_channels: int, out_channels: int, *, base: int = 32, levels: int = 5) -> None:
        super().__init__()
        widths = [base * 2**n for n in range(levels)]
        self.divisor = 2 ** (levels - 1)
        self.down = nn.ModuleList(
            nn.Sequential(_step(2, i, o), _step(2, o, o)) for i, o in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, o, 2, 2) for deep, o in pairs)
        self.merge = nn.ModuleList(nn.Sequential(_step(2, 2 * o, o), _step(2, o, o)) for _, o in pairs)
        self.head = nn.Conv2d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        check_size(tuple(x.shape[2:]), self.divisor)
        kept: list[Tensor] = []
        for n, level in enumerate(self.down):
            x = level(x if n == 0 else self.pool(x))
            kept.append(x)
        return _upwards(kept, self.up, self.merge, self.head)


class UNet3d(nn.Module):
    """A 3D U-Net for whole-neck windows on a CPU: ``widths`` by level, strided convolutions down, one convolution a level on the way up.

    Few channels at full resolution, where nine tenths of the time would go, many below. Instance norm, leaky ReLU (Isensee et al.,
    Nat Methods 2021). The first ``thin`` levels convolve within the slice alone: twice the channels there for the same time.
    *Differs:* one convolution a level in the decoder instead of two, no deep supervision.
    """

    dims = 3

    def __init__(self, in_channels: int, out_channels: int, *, widths: Sequence[int] = (8, 24, 64, 128, 160), thin: int = 0) -> None:
        super().__init__()
        self.divisor = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList()
        before = in_channels
        for n, o in enumerate(widths):
            first = _step(3, before, o, stride=1 if n == 0 else 2, thin=n == 0 and thin > 0)
            self.down.append(nn.Sequential(first, _step(3, o, o, thin=n < thin)))
            before = o
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose3d(deep, o, 2, 2) for deep, o in pairs)
        levels = range(len(pairs) - 1, -1, -1)
        self.merge = nn.ModuleList(_step(3, 2 * o, o, thin=n < thin) for n, (_, o) in zip(levels, pairs, strict=True))
        self.head = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        check_size(tuple(x.shape[2:]), self.divisor)
        kept: list[Tensor] = []
        for level in self.down:
            x = level(x)
            kept.append(x)
        return _upwards(kept, self.up, self.merge, self.head)
