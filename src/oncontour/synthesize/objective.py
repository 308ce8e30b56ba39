"""How wrong a made image is, in torch: against discriminators, against edges and outline of its source, and without pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distance = Literal["mae", "mse"]


def judged(answers: Tensor, real: bool, distance: Distance) -> Tensor:
    """How far a discriminator's answers are from 1 (real) or 0: mean absolute (the paper's) or squared (LSGAN, Mao et al. 2017)."""
    apart = answers.float() - float(real)
    return apart.abs().mean() if distance == "mae" else (apart**2).mean()


def edges_apart(a: Tensor, b: Tensor) -> Tensor:
    """1 - correlation of the gradients along rows and columns of two images (n, 1, j, i): 0 where every edge stands in place.

    Hiasa et al., SASHIMI 2018, section 2.2 (gradient consistency).
    """
    along = [F.cosine_similarity(_slope(a, dim).flatten(1), _slope(b, dim).flatten(1), dim=1, eps=1e-6) for dim in (2, 3)]
    return 1 - torch.stack(along).mean()


def _slope(x: Tensor, dim: int) -> Tensor:
    d = torch.diff(x.float(), dim=dim)
    return d - d.mean(dim=(2, 3), keepdim=True)


def outside(made: Tensor, body: Tensor) -> Tensor:
    """Mean signal (of the net's range of 2) outside the patient, where there is air, which is -1."""
    beyond = 1 - body
    return ((made.float() + 1).abs() * beyond).sum() / beyond.sum().clamp(min=1)


def textures_apart(made: Tensor, real: Tensor, made_body: Tensor, real_body: Tensor, patch: int = 5, directions: int = 48) -> Tensor:
    """How differently patches of two unpaired sets of images (n, 1, j, i) are distributed, within their patients: 0 where alike.

    Sliced Wasserstein distance (Rabin et al. 2011; of patches as in Karras et al., ICLR 2018, section 5): the mean distance of quantiles
    along ``directions`` that never change. It sees contrast, blur and noise, and needs no pairs.
    """
    drawn = torch.randn(directions, patch * patch, generator=torch.Generator().manual_seed(0))
    kernels = (drawn / drawn.norm(dim=1, keepdim=True)).reshape(directions, 1, patch, patch).to(made.device)
    quantiles = torch.linspace(0.02, 0.98, 49, device=made.device)

    def spread(images: Tensor, body: Tensor) -> Tensor:
        whole = F.avg_pool2d(body.float(), patch, 1)[:, 0] > 0.99
        whole = whole if bool(whole.any()) else torch.ones_like(whole)
        with torch.autocast(made.device.type, enabled=False):  # a quantile is of float32 alone
            values = F.conv2d(images.float(), kernels).permute(1, 0, 2, 3)[:, whole]
        values = values[:, :: 1 + values.shape[1] // 50_000]
        return torch.quantile(values, quantiles, dim=1)

    return (spread(made, made_body) - spread(real, real_body)).abs().mean()


class Pool(nn.Module):
    """The last made images: half of what a discriminator sees are earlier ones (Shrivastava et al., CVPR 2017, section 2.3).

    They are buffers, and so part of every checkpoint: a resumed training shows the same.
    """

    held: Tensor
    count: Tensor

    def __init__(self, size: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("held", torch.zeros(size, 1, *window))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def swap(self, made: Tensor) -> Tensor:
        """``made`` (n, 1, j, i), each image kept for later, and with a chance of one half replaced by one that was kept."""
        if not self.size:
            return made
        shown = []
        for image in made.detach().float():
            count = int(self.count)
            if count < self.size:
                self.held[count] = image
                self.count += 1
                shown.append(image)
            elif float(torch.rand(())) < 0.5:
                n = int(torch.randint(self.size, ()))
                shown.append(self.held[n].clone())
                self.held[n] = image
            else:
                shown.append(image)
        return torch.stack(shown)


def frozen(nets: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    """What ``compute`` gives while the weights of ``nets`` need no gradient: they are not to learn from it."""
    nets.requires_grad_(False)
    try:
        return compute()
    finally:
        nets.requires_grad_(True)
