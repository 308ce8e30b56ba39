"""What a synthesis model is, as its card keeps it, and what its nets see of a CT and of an MR: what training and predicting share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError
from oncontour.learn.build import check_grid
from oncontour.nets import Upsample
from oncontour.ops.body import Mask, body_mask, is_masked
from oncontour.synthesize.signal import normalised

MADE = "smr"
"""What a case calls the image that is made of its CT."""
AIR_HU = -1000.0
HU_RANGE = (-1000.0, 1000.0)
"""Of the CT, from -1 to 1 as a net sees it."""
SIGNAL_RANGE = (0.0, 1.3)
"""Of the MR, likewise; 1 is fat (``synthesize/signal.py``)."""
TERMS = {
    "paper": {"adversarial": 1.0, "cycle": 10.0, "identity": 5.0, "denoise": 1.0, "gradient": 0.0, "body": 0.0},
    "fair": {"adversarial": 1.0, "cycle": 10.0, "identity": 0.0, "denoise": 1.0, "gradient": 5.0, "body": 10.0},
}
"""Weights of the generators' losses: cycle and identity of ``paper`` as in the reference (Zhu et al. 2017); the slides name none."""
_SAME_PIXELS = 0.05


@dataclass(frozen=True)
class SynthesizeSettings:
    """What makes a model that turns a CT into an MR-like image; kept in its card, so that the file alone rebuilds it."""

    mode: Literal["paper", "fair"] = "fair"
    """a plain CycleGAN; or generators that begin as a textbook's T1(HU) and learn what differs from it, with a loss for edges that do not
    stay in place and one for signal outside the patient"""
    width: int = 24
    """channels of the first layer of every net; the paper's is 64"""
    blocks: int = 2
    """residual blocks of a generator: 2 in the paper, 9 in the CycleGAN that it improves"""
    upsample: Upsample = "resize_conv"
    """how a generator comes back to full size: the paper's words read as pre or as resize_conv, or deconv as before it"""
    last_deconv: bool = False
    """resize_conv: whether the last step up is a transposed convolution all the same, as in the paper"""
    adversarial: Literal["mae", "mse"] = "mae"
    """distance of a discriminator's answers from 1 and 0: the paper's, or that of the CycleGAN before it"""
    denoise: Literal["own", "fake", "none"] = "own"
    """the denoising discriminator: one of its own that tells real MR from real MR with noise; or noisy real MR as further fakes of the
    discriminator of MR; or none"""
    noise: tuple[float, float] = (0.05, 0.1)
    """SD of that noise, drawn between, in the net's range of 2"""
    terms: dict[str, float] = field(default_factory=dict)
    """weights of the generators' losses instead of the mode's: adversarial, cycle, identity, denoise, gradient, body"""
    smooth: tuple[float, float] = (0.0, 0.0)
    """fair: (SD in pixels, part) by which the textbook's image is smoothed and then sharpened again before anything is learned: the
    curve makes fat of every pixel that is half air and half muscle, and signal of noise"""
    pool: int = 50
    """made images that a discriminator may be shown again"""
    spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.5)
    """working grid (k, j, i); slices stay as they are, so that the first says only what they were"""
    window: tuple[int, int, int] = (1, 96, 96)
    """pixels (1, j, i) of a training window; predicting takes whole slices"""
    draws: int = 400
    """windows an epoch"""
    correct_bias: bool = True
    """whether the bias field of the MR is taken off first; not where it was before"""
    apart: bool = False
    """whether a patient who is in both cohorts gives CT or MR alone, by turns; a window of a patient's CT never meets that patient's MR in
    any case"""

    def __post_init__(self) -> None:
        for name in ("noise", "smooth", "spacing_mm", "window"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_grid(self.spacing_mm, self.window)
        low, high = self.noise if len(self.noise) == 2 else (1.0, 0.0)
        wrong = [
            told
            for bad, told in (
                (self.window[0] != 1 or min(self.window[1:]) < 32 or any(n % 4 for n in self.window[1:]), f"window {self.window}"),
                (not 1 <= self.width <= 256 or not 0 <= self.blocks <= 32, f"width {self.width}, blocks {self.blocks}"),
                (not 0 < low <= high <= 1, f"noise {self.noise}"),
                (bool(set(self.terms) - set(TERMS["fair"])), f"terms {sorted(self.terms)}: any of {', '.join(TERMS['fair'])}"),
                (not all(np.isfinite(w) and w >= 0 for w in self.terms.values()), f"terms {self.terms}: 0 or more"),
                (len(self.smooth) != 2 or not all(0 <= n <= 5 for n in self.smooth), f"smooth {self.smooth}"),
                (not 0 <= self.pool <= 10_000 or self.draws < 1, f"pool {self.pool}, draws {self.draws}"),
            )
            if bad
        ]
        if wrong:
            raise ConfigError(
                f"settings that cannot be used: {'; '.join(wrong)}",
                hint="a window is 1 slice of 32 pixels or more, multiples of 4; see `oncontour train synthesize --help`",
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss."""
        return TERMS[self.mode] | self.terms

    def working_grid(self, geometry: Geometry) -> Geometry:
        """The grid that the nets see an image on: upright (S, P, L), its own slices, pixels of ``spacing_mm`` where its own are others."""
        upright = geometry.reorient()
        own, wanted = np.asarray(upright.spacing_mm[1:]), np.asarray(self.spacing_mm[1:])
        if (np.abs(own / wanted - 1) <= _SAME_PIXELS).all():
            return upright
        return upright.resample([upright.spacing_mm[0], *wanted])


def mr_of(case: Case) -> Volume | None:
    """The MR of a case: the image called "mr", else the first whose name begins so (mr_t1); None where there is none."""
    names = [name for name in case.images if name.lower().startswith("mr")]
    return case.images["mr" if "mr" in names else names[0]] if names else None


def seen_ct(ct: Volume, settings: SynthesizeSettings) -> tuple[Volume, Mask]:
    """(HU on the working grid, float32, outline of the patient there); couch and clothes become air, as an MR does not show them.

    Raises InputError for what is no CT of a patient (``check_ct``).
    """
    check_ct(ct)
    on = Volume(ct.array.astype(np.float32), ct.geometry).to(settings.working_grid(ct.geometry), fill=AIR_HU)
    inside = on.array > HU_RANGE[0] if is_masked(ct) else body_mask(on).array
    if not inside.any():
        raise InputError("no patient can be seen in the CT", hint="is it empty, or cropped to nothing but air?")
    return on.map(lambda hu: np.where(inside, np.maximum(hu, AIR_HU), np.float32(AIR_HU))), inside


def seen_mr(mr: Volume, settings: SynthesizeSettings) -> tuple[Volume, Mask]:
    """(signal on the working grid, 1 for fat, outline of the patient there). Raises what ``normalised`` raises."""
    on = Volume(mr.array.astype(np.float32), mr.geometry).to(settings.working_grid(mr.geometry))
    signal, inside = normalised(on, correct_bias=settings.correct_bias)
    return signal, inside.array


def check_ct(ct: Volume) -> None:
    """Raise InputError for voxels that are no HU of a patient in air: NaN, an MR, one slice, a constant."""
    if not np.isfinite(ct.array).all():
        raise InputError("the CT holds NaN or infinite values", hint="replace them by air (-1000 HU)")
    if min(ct.array.shape) < 2:
        raise InputError(f"an image of {ct.array.shape} voxels (k, j, i) is no volume", hint="give a series of two slices or more")
    some = ct.array[:, :: 1 + ct.array.shape[1] // 256]
    low = float(np.percentile(some, 1))
    tissue = float(((some > -200) & (some < 200)).mean())
    if low > -300 or tissue < 0.005:
        raise InputError(
            f"this is no CT in HU: 1 % of its voxels lie below {low:.0f} (air is -1000), {tissue:.1%} between -200 and 200 (soft tissue)",
            hint="an MR is not made into an MR; give the planning CT, with air around the patient",
        )


def to_net(values: Array, between: tuple[float, float]) -> NDArray[np.float32]:
    """Values clipped ``between`` two as -1 to 1."""
    low, high = between
    return np.asarray(2 * (np.clip(values, low, high) - low) / (high - low) - 1, np.float32)
