"""How right is this contour? A transformer on a convolutional stem, after the idea of Wei et al., Chin J Med Phys 2026;43(5):675-681.

For 48 x 48 pixels: stem features of 24 channels at 48, 48 at 24, 96 at 12, then 6 x 6 tokens of ``width``, on which attention works; pooled
they give the numbers (DSC, class, surface error), and a light decoder over the stem's features gives the pictures (error map). Where the
net knows which channel is the mask under question, the decoder says where the structure is, and a pixel is wrong where mask and structure
disagree (easier to learn than the disagreement itself); what the error map adds up to (how much is wrongly in, wrongly out, and the DSC
that this makes) joins the pooled features: the tasks help each other.
``QualityCNN`` is the same with convolutional blocks (depthwise 7 x 7 and two 1 x 1, after Liu et al., CVPR 2022) in place of attention,
1.5 times as many, so that both have about as many weights.

*Differs:* the paper says transformer and multi-task and no more; sizes are ours, made for one CPU core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.nets import check_size

STEM = (24, 48, 96)
BELIEF = 2.0
"""Logit by which a mask is believed to be right before anything is learned."""


class Answers(NamedTuple):
    """``features`` (n, width) pooled; ``numbers`` (n, m) logits; ``maps`` (n, maps, j, i) logits."""

    features: Tensor
    numbers: Tensor
    maps: Tensor


def _conv(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class Attention(nn.Module):
    """A transformer block with the norms first: attention over all tokens, then two linear layers (Vaswani 2017; Xiong 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, _, j, i = x.shape
        t = x.flatten(2).transpose(1, 2)
        q, k, v = self.mix(self.before(t)).reshape(n, j * i, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, j * i, -1)
        t = t + self.join(mixed)
        t = t + self.narrow(F.gelu(self.widen(self.between(t))))
        out: Tensor = t.transpose(1, 2).reshape(x.shape)
        return out


class Convolution(nn.Module):
    """A ConvNeXt block: each channel filtered 7 x 7, then two 1 x 1 convolutions (Liu et al. 2022, figure 4)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.widen, self.narrow = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(F.gelu(self.widen(self.norm(self.filter(x)))))
        return x + y


class Decoder(nn.Module):
    """Tokens up to the input's size, the stem's features joining on the way."""

    def __init__(self, width: int, stem: tuple[int, int, int], maps: int) -> None:
        super().__init__()
        a, b, c = stem
        self.up = nn.ModuleList([_conv(width + c, b), _conv(2 * b, a), _conv(2 * a, a // 2)])
        self.head = nn.Conv2d(a // 2, maps, 1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for up, skip in zip(self.up, skips[::-1], strict=True):
            x = up(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], dim=1))
        out: Tensor = self.head(x)
        return out


class QualityNet(nn.Module):
    """The transformer; see the module's words.

    ``maps`` of the ``out_channels`` are pictures, the rest are numbers about the whole slice, which ``forward`` gives as even planes (the
    contract of NETS); ``answers`` gives them as they are. With ``structures`` > 0 the last input channel is no picture: its first row holds
    the structure's number (0 to structures - 1), then ``facts`` further numbers; which structure it is enters every token by a learned
    embedding. ``mask_channel``: the mask under question, 0 or 1. ``chance_channels``: probability maps, 0 to 1, of each pixel to be in
    the structure; how far each and the mask agree joins the pooled features. ``areas``: so do the wrong areas that the error map and each
    of these maps make of the mask, and the facts.
    """

    dims = 2
    divisor = 8
    block: type[nn.Module] = Attention
    share = 1.0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        maps: int = 1,
        structures: int = 0,
        facts: int = 0,
        mask_channel: int | None = None,
        chance_channels: Sequence[int] = (),
        areas: bool = False,
        stem: tuple[int, int, int] = STEM,
        width: int = 144,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.maps, self.structures, self.facts, self.width = min(maps, out_channels), structures, facts, width
        self.mask_channel, self.chance_channels, self.areas = mask_channel, tuple(chance_channels), areas
        numbers = out_channels - self.maps
        a, b, c = stem
        pictures = in_channels - (structures > 0)
        self.stem = nn.ModuleList(
            [_conv(pictures, a), nn.Sequential(_conv(a, b, 2), _conv(b, b)), nn.Sequential(_conv(b, c, 2), _conv(c, c))]
        )
        self.patch = nn.Conv2d(c, width, 2, 2)
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.name = nn.Embedding(structures, width) if structures else None
        self.told = nn.Linear(facts, width) if facts else None
        self.blocks = nn.ModuleList([self.block(width, heads) for _ in range(round(depth * self.share))])
        self.norm = nn.GroupNorm(1, width)
        self.drop = nn.Dropout(dropout)
        counted = 0 if mask_channel is None else len(SUMS) if self.maps else 1
        if mask_channel is not None:
            counted += 2 * len(self.chance_channels)
            counted += 1 + len(self.chance_channels) + facts if areas else 0
        joined = (nn.Linear(width + counted, width), nn.ReLU(inplace=True), nn.Linear(width, numbers))
        self.number = nn.Sequential(*joined) if numbers else None
        self.decoder = Decoder(width, (a, b, c), self.maps) if self.maps else None

    def answers(self, x: Tensor) -> Answers:
        """Pooled features, numbers and maps for (n, in_channels, j, i)."""
        check_size(tuple(x.shape[2:]), self.divisor)
        skips: list[Tensor] = []
        y = x[:, :-1] if self.structures else x
        for step in self.stem:
            y = step(y)
            skips.append(y)
        y = self.patch(y)
        y = y + self.place(y)
        if self.name is not None:
            which = x[:, -1, 0, 0].round().long().clamp(0, self.structures - 1)
            y = y + self.name(which)[:, :, None, None]
        if self.told is not None:
            y = y + self.told(x[:, -1, 0, 1 : 1 + self.facts])[:, :, None, None]
        for block in self.blocks:
            y = block(y)
        y = self.norm(y)
        features = y.mean(dim=(2, 3))
        maps = x[:, :0] if self.decoder is None else self.decoder(y, skips)
        if self.mask_channel is not None and self.maps:
            # A structure's logit where there is no mask, the opposite in it; untrained, the mask is believed.
            maps = maps * (1 - 2 * x[:, self.mask_channel : self.mask_channel + 1]) - BELIEF
        if self.number is None:
            return Answers(features, features[:, :0], maps)
        known = [self.drop(features)]
        if self.mask_channel is not None:
            mask = x[:, self.mask_channel]
            known.append(sums(mask, torch.sigmoid(maps[:, 0])) if self.maps else _size(mask))
            known += [agreement(mask, x[:, channel]) for channel in self.chance_channels]
            if self.areas:
                apart = (torch.sigmoid(maps[:, 0]), *((mask - x[:, channel]).abs() for channel in self.chance_channels))
                known += [*map(_size, apart), x[:, -1, 0, 1 : 1 + self.facts]]
        return Answers(features, self.number(torch.cat(known, dim=1)), maps)

    def forward(self, x: Tensor) -> Tensor:
        _, numbers, maps = self.answers(x)
        return torch.cat([maps, numbers[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


SUMS = ("log of the area", "part wrongly in", "part wrongly out", "DSC")


def sums(mask: Tensor, wrong: Tensor) -> Tensor:
    """(n, 4) what a mask (n, j, i) and the chance of each pixel to be wrong add up to: see SUMS."""
    area, out_of, into = mask.sum(dim=(1, 2)), (mask * wrong).sum(dim=(1, 2)), ((1 - mask) * wrong).sum(dim=(1, 2))
    right = area - out_of
    parts = [out_of / (area + 1), into / (area + 1), 2 * right / (2 * right + out_of + into + 0.01)]
    return torch.cat([_size(mask), torch.stack(parts, dim=1)], dim=1)


def agreement(mask: Tensor, chances: Tensor) -> Tensor:
    """(n, 2) of a mask and chances (n, j, i): the DSC to be expected of the mask were the chances right, and the log of the area that they
    expect."""
    expected = 2 * (mask * chances).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + chances.sum(dim=(1, 2)) + 0.01)
    return torch.cat([expected[:, None], _size(chances)], dim=1)


def _size(mask: Tensor) -> Tensor:
    return torch.log1p(mask.sum(dim=(1, 2)))[:, None] / 5


class QualityCNN(QualityNet):
    """The same without attention."""

    block = Convolution
    share = 1.5


class Packed(nn.Module):
    """``net``'s answers in one row a slice, for an engine that gives one array: features, numbers, then the maps pixel by pixel."""

    def __init__(self, net: QualityNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        features, numbers, maps = self.net.answers(x)
        return torch.cat([features, numbers, maps.flatten(1)], dim=1)
