"""The rows that make an MR-like image of a CT: curves and histograms, CycleGANs and their changes one by one, a paired U-Net."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.learn.card import Card
from oncontour.learn.task import AnyTask, Batch, Draw, Example, InTurns, Task, seeded
from oncontour.nets.unet import UNet
from oncontour.ops.body import Mask
from oncontour.synthesize.inputs import HU_RANGE, SIGNAL_RANGE, SynthesizeSettings, mr_of, seen_ct, seen_mr, to_net
from oncontour.synthesize.predict import UNIT, Synthesizer
from oncontour.synthesize.signal import textbook
from oncontour.synthesize.task import SynthesizeTask

ORIGINAL, IMPROVED, FAIR, PAIRED = "original CycleGAN", "improved CycleGAN", "fair CycleGAN", "paired U-Net"
TEXTBOOK, SMOOTHED = "textbook curve", "textbook curve, smoothed and sharpened"
_BEFORE: dict[str, object] = {"blocks": 9, "upsample": "deconv", "last_deconv": True, "adversarial": "mse", "denoise": "none"}
_CHANGES: dict[str, dict[str, object]] = {
    "up-sampling": {"upsample": "resize_conv"},
    "two blocks": {"blocks": 2},
    "denoising": {"denoise": "own"},
    "MAE": {"adversarial": "mae"},
}
"""Of the paper, each alone; up-sampling in the second reading, one transposed convolution left."""
GANS: dict[str, dict[str, object]] = {
    ORIGINAL: {"mode": "paper", **_BEFORE},
    IMPROVED: {"mode": "paper", **_BEFORE, **{key: value for change in _CHANGES.values() for key, value in change.items()}},
    **{f"original + {name}": {"mode": "paper", **_BEFORE, **change} for name, change in _CHANGES.items()},
    FAIR: {
        "mode": "fair",
        "adversarial": "mse",
        "terms": {"adversarial": 0.5, "denoise": 0.5, "cycle": 3.0, "gradient": 5.0},
        "smooth": (0.9, 0.9),
    },
}
"""Row -> what its settings are beside those that all rows share. The last is as ``examples/limb-t1.yaml``."""
_BINS = np.arange(-1010.0, 1011.0, 20.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """A patient on the working grid: HU, outline of the patient in the CT, and the real MR's signal, 1 for fat."""

    case: Case
    hu: Volume
    body: Mask
    real: Volume
    mr_body: Mask


Image = Callable[[Pair], Volume]
"""A patient -> the made signal on the working grid; it looks at the CT alone."""


def pair_of(case: Case, settings: SynthesizeSettings) -> Pair:
    """Raises InputError for a patient without MR."""
    mr = mr_of(case)
    if mr is None:
        raise InputError(f"no MR among the images {sorted(case.images)}", where=f"case {case.id}")
    hu, body = seen_ct(case.ct, settings)
    real, mr_body = seen_mr(mr, settings)
    return Pair(case, hu, body, real.to(hu.geometry), mr_body)


# ---- without a net


def simple_rows(train: Sequence[Pair]) -> dict[str, Image]:
    """Row -> what makes its images, from the pairs to learn from."""
    fitted = _fitted(train)
    return {
        "histogram matching, monotone": _curve(*_matched(train, inverted=False)),
        "histogram matching, inverted": _curve(*_matched(train, inverted=True)),
        TEXTBOOK: lambda pair: pair.hu.map(textbook),
        "curve fitted on pairs": _curve(*fitted),
        "the same of a smoothed CT": _curve(*fitted, smooth=1.0),
    }


def _curve(hu: NDArray[np.float64], signal: NDArray[np.float64], smooth: float = 0.0) -> Image:
    def image(pair: Pair) -> Volume:
        seen = pair.hu.map(lambda values: ndimage.gaussian_filter(values, (0, smooth, smooth)) if smooth else values)
        return seen.map(lambda values: np.where(pair.body, np.interp(values, hu, signal), 0).astype(np.float32))

    return image


def _matched(train: Sequence[Pair], *, inverted: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(HU, signal) that are as often exceeded in the CT as in the MR of all patients; ``inverted``: as seldom."""
    quantiles = np.linspace(0, 1, 201)
    hu = np.quantile(np.concatenate([one.hu.array[one.body] for one in train]), quantiles)
    signal = np.quantile(np.concatenate([one.real.array[one.mr_body] for one in train]), quantiles[::-1] if inverted else quantiles)
    known = np.concatenate([[True], np.diff(hu) > 0])
    return hu[known], signal[known]


def _fitted(train: Sequence[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(HU, median signal of the voxels of these HU), within both outlines; bins of less than 100 voxels are left out."""
    inside = [one.body & one.mr_body for one in train]
    hu = np.concatenate([one.hu.array[where] for one, where in zip(train, inside, strict=True)])
    signal = np.concatenate([one.real.array[where] for one, where in zip(train, inside, strict=True)])
    number = np.digitize(hu, _BINS)
    kept = [n for n in range(1, len(_BINS)) if (number == n).sum() >= 100]
    return (_BINS[:-1] + 10)[np.array(kept) - 1], np.array([np.median(signal[number == n]) for n in kept])


# ---- with a net


def gan_settings(row: str, shared: SynthesizeSettings) -> SynthesizeSettings:
    """The settings of a CycleGAN row."""
    return replace(shared, **GANS[row])  # type: ignore[arg-type]  # what a value may be is for the settings to say


def of_synthesizer(synthesizer: Synthesizer) -> Image:
    """What a synthesis model makes, as ``oncontour synthesize`` would, on the working grid."""

    def image(pair: Pair) -> Volume:
        made = synthesizer.make(Case(pair.case.id, {"ct": pair.case.ct})).image
        return made.to(pair.hu.geometry, blur=False).map(lambda signal: np.asarray(signal / np.float32(UNIT), np.float32))

    return image


def untrained(shared: SynthesizeSettings) -> Image:
    """What the fair row begins with, before it has learned anything."""
    task = SynthesizeTask(gan_settings(FAIR, shared))
    torch.manual_seed(0)
    task.start_afresh()
    return of_synthesizer(Synthesizer(task.eval(), "torch"))


@dataclass(frozen=True, eq=False)
class PairedSlices:
    """Both images of a patient as nets see them, (k, j, i) in [-1, 1], where both show the patient, and the slices that show enough."""

    case_id: str
    ct: NDArray[np.float32]
    mr: NDArray[np.float32]
    inside: Mask
    shown: NDArray[np.intp]


class Paired(Task[PairedSlices]):
    """A 2D U-Net from CT to the MR of the same patient, by mean absolute error within both outlines: what unpaired learning cannot beat."""

    name = "paired"

    def __init__(self, settings: SynthesizeSettings, base: int = 16, levels: int = 4) -> None:
        super().__init__()
        self.settings = settings
        self.net: nn.Module = UNet(1, 1, base=base, levels=levels)

    def card(self) -> Card:
        return Card(self.name, self.name, {}, [], list(self.settings.spacing_mm))

    def samples(self, case: Case) -> list[PairedSlices]:
        pair = pair_of(case, self.settings)
        inside = pair.body & pair.mr_body
        shown = np.flatnonzero(inside.mean(axis=(1, 2)) > 0.02)
        return [PairedSlices(case.id, to_net(pair.hu.array, HU_RANGE), to_net(pair.real.array, SIGNAL_RANGE), inside, shown)]

    def plan(self, samples: Sequence[PairedSlices], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        draws = []
        for _ in range(self.settings.draws):
            n = int(rng.integers(len(samples)))
            k = int(rng.choice(samples[n].shown))
            where = np.argwhere(samples[n].inside[k])
            j, i = where[int(rng.integers(len(where)))]
            draws.append(Draw(n, (float(k), float(j), float(i)), int(rng.integers(2**62)) if train else None))
        return draws

    def item(self, samples: Sequence[PairedSlices], draw: Draw) -> dict[str, Tensor]:
        one, size = samples[draw.sample], self.settings.window[1:]
        k, *centre = (int(c) for c in draw.centre)
        starts = [max(0, min(c - n // 2, whole - n)) for c, n, whole in zip(centre, size, one.ct.shape[1:], strict=True)]
        j, i = (slice(a, a + n) for a, n in zip(starts, size, strict=True))
        flip = draw.seed is not None and seeded(draw.seed).random() < 0.5
        found = {}
        for name, values, beyond in (("image", one.ct, -1.0), ("mr", one.mr, -1.0), ("inside", one.inside.astype(np.float32), 0.0)):
            part = values[k, j, i]
            part = np.pad(part, [(0, n - m) for n, m in zip(size, part.shape, strict=True)], constant_values=beyond)
            found[name] = torch.from_numpy(np.ascontiguousarray(part[:, ::-1] if flip else part))[None]
        return found

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        apart = (self.net(batch["image"]).float() - batch["mr"]).abs() * batch["inside"]
        return apart.sum() / batch["inside"].sum().clamp(min=1), {}

    def image(self, pair: Pair) -> Volume:
        """As an ``Image``."""
        seen = to_net(pair.hu.array, HU_RANGE)
        divisor = int(self.net.divisor)  # type: ignore[arg-type]
        padded = np.pad(seen, [(0, 0), *((0, -n % divisor) for n in seen.shape[1:])], constant_values=-1.0)
        low, high = SIGNAL_RANGE
        out = np.zeros(seen.shape, np.float32)
        with torch.inference_mode():
            for k, one in enumerate(padded):
                answer = self.net.eval()(torch.from_numpy(one[None, None])).numpy()[0, 0, : seen.shape[1], : seen.shape[2]]
                out[k] = low + (answer + 1) / 2 * (high - low)
        return Volume(np.where(pair.body, np.clip(out, 0, None), 0).astype(np.float32), pair.hu.geometry)


def seconds_per_update(task: AnyTask, samples: Sequence[Example], *, bfloat16: bool, updates: int = 4) -> float:
    """CPU seconds of one update of ``task`` on this machine, the median of a few after the first; what it learns is thrown away."""
    rng = np.random.default_rng(0)
    draws = task.plan(samples, rng, train=True)
    parts = task.parts() if isinstance(task, InTurns) else [list(task.net.parameters())]
    optimisers = [torch.optim.AdamW(part, lr=1e-6) for part in parts]
    spent = []
    for n in range(updates + 1):
        batch = {name: value[None] for name, value in task.item(samples, draws[n % len(draws)]).items()}
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            losses = task.turns(batch) if isinstance(task, InTurns) else iter([task.loss(batch)])
            for optimiser, (loss, _) in zip(optimisers, losses, strict=True):
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        spent.append(time.process_time() - began)
    return float(np.median(spent[1:]))
