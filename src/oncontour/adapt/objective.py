"""How wrong a net that registers and segments is: the paper's terms at each of its resolutions, spacing-aware in mm, in torch.

    seg   1 - DSC of the segmentation stream, mean over the structures that both visits have
    reg   1 - local correlation + bending energy in mm, and, where the true field is known and ``field`` asks for it, its error in mm
    dsc   1 - DSC of the planning structures, warped, with the daily ones (one mask each, interpolated as coverage, never as label numbers)

A field of resolution r gives the displacement at every r-th voxel; the moving image and masks are read at full resolution where it leads.
Sources: Beljaards et al. 2020, section 2; local correlation and bending energy as ``adapt.energies`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from oncontour.adapt.energies import LocalCorrelation, bending_energy, soft_dsc
from oncontour.learn.task import Batch
from oncontour.nets.crossstitch import STRIDES

FLOOR_HU = 25.0
"""Noise below which nothing correlates."""


@dataclass(frozen=True)
class Terms:
    """What counts and how much: ``bending`` per mm^-2 (mean square of second derivatives), ``field`` per mm of error (0: not supervised),
    ``window`` of the local correlation in voxels of each resolution, ``hu`` the width of grey values that are 0 to 1."""

    bending: float
    field: float
    window: int
    hu: float


@dataclass(frozen=True)
class Level:
    """One resolution: every ``stride``-th voxel of the input from ``margin`` on, ``size`` (k, j, i) of them."""

    stride: int
    margin: int
    size: tuple[int, ...]

    def of(self, full: Tensor) -> Tensor:
        """(..., k, j, i) of the input at this resolution's voxels; nothing is smoothed, as in the paper."""
        k, j, i = (slice(self.margin, self.margin + self.stride * n, self.stride) for n in self.size)
        return full[..., k, j, i]

    def places(self, like: Tensor) -> Tensor:
        """(1, 3, k, j, i) input voxels, in the order i, j, k, of this resolution's voxels."""
        along = [self.margin + self.stride * torch.arange(n, device=like.device, dtype=like.dtype) for n in self.size]
        return torch.stack(torch.meshgrid(*along, indexing="ij")[::-1])[None]


def levels_of(answers: Sequence[Sequence[Tensor]], margins: Sequence[int]) -> list[Level]:
    """The resolutions of a net's answers, the full one first."""
    sizes = [tuple(tasks[0].shape[2:]) for tasks in answers]
    return [Level(stride, margin, size) for stride, margin, size in zip(STRIDES, margins, sizes, strict=False)]


def read(full: Tensor, at: Tensor) -> Tensor:
    """(n, c, ...) linear values of (n, c, k, j, i) at fractional voxels ``at`` (n, 3, ...) in the order i, j, k; the edge goes on."""
    last = torch.tensor([n - 1 for n in full.shape[:1:-1]], device=at.device, dtype=at.dtype)
    units = at.movedim(1, -1) * (2 / last.clamp(min=1)) - 1
    return F.grid_sample(full, units.expand(len(full), *units.shape[1:]), mode="bilinear", padding_mode="border", align_corners=True)


def whole(field_mm: Tensor, start_mm: Tensor, places: Tensor, spacing_mm: Tensor) -> tuple[Tensor, Tensor]:
    """(where each voxel lies in the moving image as fractional voxels, the whole displacement in mm) of ``field_mm`` followed by
    ``start_mm``: v(x) + s(x + v(x)), both (n, 3, ...) with x, y, z components on an upright grid; ``spacing_mm`` (x, y, z)."""
    step = spacing_mm.reshape(1, 3, 1, 1, 1)
    first = places + field_mm / step
    total = field_mm + read(start_mm, first)
    return places + total / step, total


def losses(
    batch: Batch, answers: Sequence[Sequence[Tensor]], margins: Sequence[int], has: Sequence[str], terms: Terms, spacing_mm: Sequence[float]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(each of seg, reg and dsc that ``has`` names, the mean over the resolutions; figures of the full resolution, to log).

    ``answers``: [resolution][task]: logits (background first) where ``has`` seg, then fields in mm where it has reg; ``spacing_mm``
    (k, j, i).
    """
    found: list[dict[str, Tensor]] = []
    figures: dict[str, float] = {}
    for level, tasks in zip(levels_of(answers, margins), answers, strict=True):
        here: dict[str, Tensor] = {}
        if "seg" in has:
            here["seg"] = 1 - _dsc(torch.softmax(tasks[0], dim=1)[:, 1:], level.of(batch["fixed_masks"]), batch["known"])
        if "reg" in has:
            here |= _registered(batch, tasks[-1], level, "dsc" in has, terms, spacing_mm, figures)
        found.append(here)
        if level.stride == 1:
            told = {"seg": "dsc_direct", "dsc": "dsc_carried"}
            figures |= {name: 1 - float(here[key].detach()) for key, name in told.items() if key in here}
    return {key: torch.stack([one[key] for one in found]).mean() for key in found[0]}, figures


def _registered(
    batch: Batch, field_mm: Tensor, level: Level, masks: bool, terms: Terms, spacing_mm: Sequence[float], figures: dict[str, float]
) -> dict[str, Tensor]:
    """reg, and dsc with ``masks``, of a field at one resolution; ``figures`` gets the error of the full one."""
    xyz = field_mm.new_tensor(list(spacing_mm)[::-1])
    at, total = whole(field_mm, batch["start"], level.places(field_mm), xyz)
    step = [level.stride * mm for mm in spacing_mm]
    inside, fixed = level.of(batch["inside"]), level.of(batch["fixed"])
    warped = read(batch["moving"], at)
    alike, bent = [], []
    for n in range(len(field_mm)):
        correlation = LocalCorrelation(fixed[n, 0], inside[n, 0], step, terms.window * min(step), FLOOR_HU / terms.hu)
        alike.append(1 - correlation(warped[n, 0]))
        bent.append(bending_energy(total[n], step))
    reg = torch.stack(alike).mean() + terms.bending * torch.stack(bent).mean()
    weight = inside * batch["has_truth"][:, None, None, None, None]
    off = (((total - level.of(batch["truth"])) ** 2).sum(dim=1, keepdim=True) + 1e-4).sqrt()
    error = (off * weight).sum() / weight.sum().clamp(min=1)
    if terms.field:
        reg = reg + terms.field * error
    if level.stride == 1:
        figures |= {"field_mm": float(error.detach()), "correlation": 1 - float(torch.stack(alike).mean().detach())}
    out = {"reg": reg}
    if masks:
        out["dsc"] = 1 - _dsc(read(batch["moving_masks"], at), level.of(batch["fixed_masks"]), batch["known"])
    return out


def _dsc(probabilities: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """The mean soft DSC over the ``known`` (n, structures) structures of each patient, (n, structures, ...) both."""
    each = [soft_dsc(p[k > 0], t[k > 0]) for p, t, k in zip(probabilities, truth, known, strict=True) if (k > 0).any()]
    return torch.stack(each).mean() if each else 1 + 0 * probabilities.sum()
