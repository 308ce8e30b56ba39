"""From dose to risk: a residual encoder, dosiomics and facts beside it, and a decoder whose map of the region gates what is pooled.

After the idea of Yu et al., Radiother Oncol 2025;212:111121 (dosiomics-guided ResNet34, contrastive learning, auxiliary segmentation that
defines the region of interest). What the abstract leaves open is our reading:

* encoder: MONAI's ResNet with basic blocks; ``kind`` "2d" (slices one by one), "2.5d" (each with its two neighbours as channels) or "3d".
  Slices are encoded in the plane and joined after pooling, so their number does not multiply the weights;
* decoder: nearest-neighbour upsampling with the encoder's features; its sigmoid is the region's map;
* gate: at every level of the encoder features are averaged over the map instead of over the window. *Differs* from gating the last level
  alone: on a small window the last level has a handful of pixels, and no region fits in;
* fusion: pooled features, the embedding of dosiomics and that of facts side by side, one hidden layer, one logit a toxicity.

``RESNET34`` holds the options of the paper's encoder; the defaults are a tenth as deep and a hundredth as costly, for a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.nets import check_size

RESNET34: dict[str, object] = {"blocks": (3, 4, 6, 3), "widths": (64, 128, 256, 512), "embedding": 128}


class Fused(NamedTuple):
    """``risk`` (n, toxicities) logits; ``image`` (n, e) and ``features`` (n, e) unit vectors for contrast, None without the branch;
    ``region`` (n, 1, k, j, i) logits of the map, None without the decoder.
    """

    risk: Tensor
    image: Tensor
    features: Tensor | None
    region: Tensor | None


class _Decoder(nn.Module):
    """The encoder's levels back up to the window."""

    def __init__(self, widths: Sequence[int], dims: int) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = nn.Conv2d if dims == 2 else nn.Conv3d
        norm: Callable[..., nn.Module] = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        deep = widths[-1]
        self.merge = nn.ModuleList()
        for skip in widths[-2::-1]:
            o = max(8, skip // 2)
            self.merge.append(nn.Sequential(conv(deep + skip, o, 3, padding=1, bias=False), norm(o), nn.ReLU(inplace=True)))
            deep = o
        self.head = conv(deep, 1, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        x = levels[-1]
        for merge, skip in zip(self.merge, levels[-2::-1], strict=True):
            x = merge(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], dim=1))
        out: Tensor = self.head(x)
        return out


def _embed(i: int, o: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(o, o), nn.ReLU(inplace=True))


class DoseFusion(nn.Module):
    """See the module's words. ``out_channels`` of the family's contract are the region's map (with ``region``) and then the toxicities.

    ``features`` and ``facts`` are how many numbers of dosiomics and of the patient come along (0: no branch). ``forward(x)`` alone, which
    the family's contract asks for, has none and gives even planes of risk; ``fuse`` is what the task calls.
    """

    dims = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kind: Literal["2d", "2.5d", "3d"] = "2d",
        blocks: Sequence[int] = (1, 1, 1, 1),
        widths: Sequence[int] = (8, 16, 24, 32),
        embedding: int = 32,
        features: int = 0,
        facts: int = 0,
        region: bool = True,
        gate: bool = True,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        from monai.networks.nets.resnet import ResNet

        if kind not in ("2d", "2.5d", "3d"):
            raise TypeError(f"kind is 2d, 2.5d or 3d, not {kind!r}")
        self.kind, self.features, self.facts, self.region, self.gate = kind, features, facts, region, gate and region
        self.divisor = 2 ** (len(widths) - 1)
        flat = kind != "3d"
        self.encoder = ResNet(
            "basic",
            list(blocks),
            list(widths),
            spatial_dims=2 if flat else 3,
            n_input_channels=in_channels * (3 if kind == "2.5d" else 1),
            conv1_t_size=3,
            conv1_t_stride=1,
            no_max_pool=True,
            feed_forward=False,
            bias_downsample=False,
        )
        self.decoder = _Decoder(widths, 2 if flat else 3) if region else None
        pooled = sum(widths)
        self.slice = _embed(pooled, embedding, 0.0) if flat else nn.Identity()
        self.image = nn.Linear(embedding if flat else pooled, embedding)
        self.dosiomics = _embed(features, embedding, dropout) if features else None
        self.clinical = _embed(facts, 8, 0.0) if facts else None
        width = embedding * (1 + (features > 0)) + 8 * (facts > 0)
        toxicities = out_channels - int(region)
        self.join = nn.Sequential(nn.Linear(width, embedding), nn.ReLU(inplace=True), nn.Dropout(dropout))
        self.risk = nn.Linear(embedding, toxicities) if toxicities else None

    def fuse(self, x: Tensor, features: Tensor | None = None, facts: Tensor | None = None) -> Fused:
        """``x`` (n, in_channels, k, j, i), ``features`` (n, f) and ``facts`` (n, m), standardised; what is not given counts as average."""
        check_size(tuple(x.shape[2:] if self.kind == "3d" else x.shape[3:]), self.divisor)
        n, slices = x.shape[0], x.shape[2]
        levels = self._levels(x)
        region = None if self.decoder is None else self.decoder(levels)
        chance = torch.sigmoid(region) if self.gate and region is not None else None
        pooled, amount = _pool(levels, chance)
        if self.kind != "3d":
            each = self.slice(pooled).reshape(n, slices, -1)
            share = amount.reshape(n, slices, 1)
            pooled = (each * share).sum(dim=1) / share.sum(dim=1).clamp(min=1e-6)
        image = self.image(pooled)
        parts, dosiomics = [F.relu(image)], None
        if self.dosiomics is not None:
            dosiomics = self.dosiomics(x.new_zeros(n, self.features) if features is None else features)
            parts.append(dosiomics)
        if self.clinical is not None:
            parts.append(self.clinical(x.new_zeros(n, self.facts) if facts is None else facts))
        joined = self.join(torch.cat(parts, dim=1))
        risk = joined[:, :0] if self.risk is None else self.risk(joined)
        unit = None if dosiomics is None else F.normalize(dosiomics, dim=1)
        return Fused(risk, F.normalize(image, dim=1), unit, None if region is None else self._stacked(region, n))

    def forward(self, x: Tensor) -> Tensor:
        answer = self.fuse(x)
        planes = answer.risk[:, :, None, None, None].expand(-1, -1, *x.shape[2:])
        return planes if answer.region is None else torch.cat([answer.region, planes], dim=1)

    def _levels(self, x: Tensor) -> list[Tensor]:
        """Features of the encoder's four levels; slices ride along in the batch where the encoder is flat."""
        if self.kind == "2.5d":
            padded = F.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate")
            x = torch.cat([padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]], dim=1)
        if self.kind != "3d":
            x = x.transpose(1, 2).flatten(0, 1)
        e = self.encoder
        x = e.act(e.bn1(e.conv1(x)))
        out = []
        for layer in (e.layer1, e.layer2, e.layer3, e.layer4):
            x = layer(x)
            out.append(x)
        return out

    def _stacked(self, region: Tensor, n: int) -> Tensor:
        return region if self.kind == "3d" else region.reshape(n, -1, *region.shape[1:]).transpose(1, 2)


def _pool(levels: Sequence[Tensor], chance: Tensor | None) -> tuple[Tensor, Tensor]:
    """((n, sum of widths) features averaged over the map, or over the window without one; (n, 1) how much of the map there is)."""
    axes = tuple(range(2, levels[0].ndim))
    if chance is None:
        means = [level.mean(dim=axes) for level in levels]
        return torch.cat(means, dim=1), levels[0].new_ones(len(levels[0]), 1)
    out = []
    for level in levels:
        here = F.interpolate(chance, size=level.shape[2:], mode="area")
        out.append((level * here).sum(dim=axes) / here.sum(dim=axes).clamp(min=1e-3))
    return torch.cat(out, dim=1), chance.mean(dim=axes)
