"""U-Nets that do two tasks at once, after Beljaards, Elmahdy et al. (MIDL 2020; IEEE Access 2021;9:95551-95568).

One family of three levels: convolution, LeakyReLU(0.2), batch norm, twice a level; a strided convolution down, nearest neighbour up; a
linear 1 x 1 x 1 head a task at each of three resolutions. How the tasks are joined is the paper's question:

    single   one U-Net, one task (Seg, Reg, JRS-reg)
    dense    one U-Net, a set of heads for each task
    sedd     a shared encoder down to the second resolution, from there on a U-Net for each task
    stitch   a U-Net for each task; after each step down and each step up a cross-stitch unit mixes their feature maps

``padded`` convolutions keep the size of a volume; without, as in the paper, 96 voxels go in and 56, 30 and 17 come out, whose voxel n lies
on voxel 20 + n, 18 + 2n and 14 + 4n of what went in (n, 2n and 4n with padding).
*Differs:* the paper's code (TensorFlow) pads a strided convolution on the far side alone, which moves every voxel by a part of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.errors import ModelError
from oncontour.nets import check_size

Join = Literal["single", "dense", "sedd", "stitch"]
LEVELS = 3
STRIDES = (1, 2, 4)
"""Voxels of the input from one voxel of an output to the next: full, middle and low resolution."""
MARGINS = (20, 18, 14)
"""Voxels of the input before the first voxel of each output, without padding."""
SMALLEST = 44
"""Voxels a side that a net without padding needs."""


def _conv(i: int, o: int, stride: int = 1, *, padded: bool) -> nn.Sequential:
    padding = 1 if padded or stride == 2 else 0
    return nn.Sequential(nn.Conv3d(i, o, 3, stride, padding), nn.LeakyReLU(0.2), nn.BatchNorm3d(o, momentum=0.1))


def _two(i: int, o: int, *, padded: bool) -> nn.Sequential:
    return nn.Sequential(_conv(i, o, padded=padded), _conv(o, o, padded=padded))


class Stitch(nn.Module):
    """A cross-stitch unit (Misra et al., CVPR 2016): each pair of feature maps of two tasks mixed by a 2 x 2 matrix that is learned.

    ``weight`` (channels, 2, 2): row 0 makes the first task's maps, row 1 the second's. They start at the paper's truncated normal (mean
    0.5, sd 0.25), or near the identity (0.9 of one's own, 0.1 of the other's), which leaves the tasks apart until it pays to mix them.
    """

    def __init__(self, channels: int, *, identity: bool) -> None:
        super().__init__()
        self.identity = identity
        self.weight = nn.Parameter(torch.empty(channels, 2, 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew, from torch's generator."""
        if self.identity:
            with torch.no_grad():
                self.weight.copy_(torch.tensor([[0.9, 0.1], [0.1, 0.9]]).expand_as(self.weight))
        else:
            nn.init.trunc_normal_(self.weight, mean=0.5, std=0.25, a=0.0, b=1.0)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return list(torch.einsum("cot,tncxyz->oncxyz", self.weight, torch.stack(list(maps))))


class _Front(nn.Module):
    """The first level and the second one's encoder."""

    def __init__(self, channels: int, widths: Sequence[int], *, padded: bool) -> None:
        super().__init__()
        a, b, _ = widths
        self.first, self.down, self.second = (
            _two(channels, a, padded=padded),
            _conv(a, a, 2, padded=padded),
            _two(a, b, padded=padded),
        )


class _Back(nn.Module):
    """The lowest level, the decoder, and heads for ``outputs``."""

    def __init__(self, widths: Sequence[int], outputs: Sequence[int], *, padded: bool, deep: bool) -> None:
        super().__init__()
        a, b, c = widths
        self.down, self.lowest = _conv(b, b, 2, padded=padded), _two(b, c, padded=padded)
        self.middle, self.full = _two(c + b, b, padded=padded), _two(b + a, a, padded=padded)
        self.heads = nn.ModuleList(nn.ModuleList(nn.Conv3d(w, o, 1) for o in outputs) for w in (widths if deep else widths[:1]))


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _joined(x: Tensor, skip: Tensor) -> Tensor:
    """``x`` and the middle of ``skip``, which is as large or larger."""
    starts = [(s - n) // 2 for s, n in zip(skip.shape[2:], x.shape[2:], strict=True)]
    z, y, i = (slice(start, start + n) for start, n in zip(starts, x.shape[2:], strict=True))
    return torch.cat([x, skip[:, :, z, y, i]], dim=1)


class CrossStitch(nn.Module):
    """A net for one or two tasks; see the module's words.

    ``outputs``: channels of each task, together ``out_channels`` (one task where left out); ``inputs``: for each U-Net which of the
    ``in_channels`` it sees (all where left out). ``answers`` gives every task at every resolution; ``forward``, for the contract of NETS,
    the full one, tasks one after another, as large as what went in where ``padded``. ``deep``: heads at all three resolutions, else at
    the full one alone. ``identity``: how the cross-stitch units start. Raises ModelError for options that contradict each other.
    """

    dims = 3
    divisor = 4

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        join: Join = "single",
        outputs: Sequence[int] = (),
        inputs: Sequence[Sequence[int]] = (),
        widths: Sequence[int] = (16, 32, 64),
        padded: bool = True,
        deep: bool = False,
        identity: bool = True,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs) or (out_channels,)
        apart = join in ("sedd", "stitch")
        seen = [list(one) for one in inputs] or [list(range(in_channels))] * (2 if join == "stitch" else 1)
        told = f"join {join!r}, outputs {self.outputs}, inputs {seen}, widths {tuple(widths)}"
        if sum(self.outputs) != out_channels or len(self.outputs) != (1 if join == "single" else 2) or len(widths) != LEVELS:
            raise ModelError(f"{told}: the outputs of one task (two unless single) make {out_channels} channels, on {LEVELS} levels")
        if len(seen) != (2 if join == "stitch" else 1) or not all(one and set(one) <= set(range(in_channels)) for one in seen):
            raise ModelError(f"{told}: each U-Net sees some of {in_channels} channels")
        self.inputs, self.padded = seen, padded
        self.fronts = nn.ModuleList(_Front(len(one), widths, padded=padded) for one in seen)
        heads = [(o,) for o in self.outputs] if apart else [self.outputs]
        self.backs = nn.ModuleList(_Back(widths, one, padded=padded, deep=deep) for one in heads)
        a, b, c = widths
        self.stitches = nn.ModuleList(Stitch(w, identity=identity) for w in ((a, b, c, b) if join == "stitch" else ()))

    def answers(self, x: Tensor) -> list[list[Tensor]]:
        """[resolution, the full one first][task]: logits and fields for (n, in_channels, k, j, i)."""
        self._check(tuple(x.shape[2:]))
        fronts, backs = cast("list[_Front]", list(self.fronts)), cast("list[_Back]", list(self.backs))
        skip = [front.first(x[:, seen]) for front, seen in zip(fronts, self.inputs, strict=True)]
        down = self._mixed(0, [front.down(y) for front, y in zip(fronts, skip, strict=True)])
        below = [front.second(y) for front, y in zip(fronts, down, strict=True)]
        if len(fronts) < len(backs):
            skip, below = skip * 2, below * 2
        down = self._mixed(1, [back.down(y) for back, y in zip(backs, below, strict=True)])
        low = [back.lowest(y) for back, y in zip(backs, down, strict=True)]
        up = self._mixed(2, [_up(y) for y in low])
        middle = [back.middle(_joined(y, s)) for back, y, s in zip(backs, up, below, strict=True)]
        up = self._mixed(3, [_up(y) for y in middle])
        full = [back.full(_joined(y, s)) for back, y, s in zip(backs, up, skip, strict=True)]
        return [
            [head(y) for back, y in zip(backs, maps, strict=True) for head in cast(nn.ModuleList, back.heads[n])]
            for n, maps in zip(range(len(backs[0].heads)), (full, middle, low), strict=False)
        ]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.answers(x)[0], dim=1)

    def shared(self) -> list[nn.Parameter]:
        """The weights where tasks meet, on which GradNorm compares their gradients: the units, else the last layer that both use."""
        if len(self.stitches):
            return list(self.stitches.parameters())
        last = cast(_Front, self.fronts[0]).second if len(self.backs) == 2 else cast(_Back, self.backs[0]).full
        return list(last[-1].parameters())

    def _mixed(self, unit: int, maps: list[Tensor]) -> list[Tensor]:
        mixed: list[Tensor] = self.stitches[unit](maps) if len(self.stitches) else maps
        return mixed

    def _check(self, size: tuple[int, ...]) -> None:
        check_size(size, self.divisor)
        if not self.padded and min(size) < SMALLEST:
            raise ValueError(f"spatial size {size} is too small without padding: {SMALLEST} or more")
