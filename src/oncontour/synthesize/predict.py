"""From a trained generator and a CT to an image like an MR, on the CT's own grid, and what is to be known before anybody believes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.case import Case
from oncontour.core.volume import Volume, written_cc
from oncontour.errors import InputError, ModelError
from oncontour.learn.card import Card, find, is_number
from oncontour.learn.engine import Backend, Engine
from oncontour.learn.exported import exported
from oncontour.learn.predictor import Trained
from oncontour.nets import GENERATOR_DIVISOR
from oncontour.ops.body import check_shown, elsewhere, region, region_of
from oncontour.progress import Progress
from oncontour.synthesize.fidelity import Fidelity, fidelity
from oncontour.synthesize.inputs import HU_RANGE, MADE, SIGNAL_RANGE, SynthesizeSettings, seen_ct, to_net

UNIT = 1000.0
"""What fat has in a made image, so that whole numbers tell enough."""
_METAL_HU, _METAL_CC = 3000.0, 0.2
_MARGIN = 8
"""Pixels of air left round the patient: much more of it than in training would shift what instance norm divides by."""
_OUTLINE, _FAT = 0.95, 1.2
"""Dice of the outlines and fat over muscle below which an image is not to be believed."""


@dataclass(frozen=True, eq=False)
class Made:
    """``image``: the MR-like image (float32, fat about UNIT, air 0) on the CT's grid; its ``fidelity``, measured on the grid that the
    generator works on; ``warnings``: sentences on what speaks against it, none where nothing does; ``other_region``: what the CT shows, in
    words, where that is plainly another part of the body than the model was made for, else ""; ``usual``: figure of ``fidelity`` -> (least,
    greatest) in patients whose images are known to be good, and "patients", how many; None where the model's card does not tell."""

    image: Volume
    fidelity: Fidelity
    warnings: tuple[str, ...]
    other_region: str = ""
    usual: Mapping[str, Sequence[float] | int] | None = None


@dataclass
class Synthesizer:
    """A synthesis model ready to make images."""

    task: Trained[SynthesizeSettings]
    backend: Backend = "auto"
    threads: int | None = None
    any_region: bool = False
    """whether it works on a CT of another part of the body than it was made for"""

    @classmethod
    def load(cls, model: str | Path, *, backend: Backend = "auto", threads: int | None = None, any_region: bool = False) -> Synthesizer:
        """Of a model file or a shipped name. Raises ModelError where it is no model that makes images."""
        path = find(model, "synthesize")
        if (ready := exported(path, "synthesize", SynthesizeSettings, backend, "images")) is not None:
            return cls(ready, backend, threads, any_region)
        from oncontour.learn.task import load_task
        from oncontour.synthesize.task import SynthesizeTask

        task = load_task(path)
        if not isinstance(task, SynthesizeTask):
            hint = "train one with `oncontour train synthesize`"
            raise ModelError(f"this model's task is {task.name!r}, not 'synthesize'", where=str(model), hint=hint)
        return cls(task, backend, threads, any_region)

    @property
    def card(self) -> Card:
        """What is known of the model."""
        return self.task.card()

    @cached_property
    def engine(self) -> Engine:
        """The generator, compiled once."""
        return self.task.engine((1, 1, *self.task.settings.window[1:]), backend=self.backend, threads=self.threads)

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with the image "smr" on the grid of its CT. Raises what ``make`` raises."""
        return case.with_images({MADE: self.make(case, progress).image})

    def make(self, case: Case, progress: Progress | None = None) -> Made:
        """The image that the model makes of the case's CT.

        Raises InputError where there is no CT, where it is none of a patient in air (``inputs.check_ct``), and for one that plainly shows
        another part of the body than the model was made for; with ``any_region`` that is a warning.
        """
        ct = case.ct
        hu, inside = seen_ct(ct, self.task.settings)
        if not self.any_region:
            try:
                check_shown(ct, self.card.region, self.card.name)
            except InputError as error:
                raise InputError(error.what, hint="choose a model that was made for it, or repeat with --any_region") from error
        working = Volume(self._signal(hu, inside, progress), hu.geometry)
        found = fidelity(hu, working)
        image = working.to(ct.geometry, blur=False).map(lambda signal: np.asarray(signal * np.float32(UNIT), np.float32))
        usual = usual_of(self.card)
        shown = elsewhere(ct, self.card.region) if self.any_region else ""
        return Made(image, found, (*self._of_the_ct(case, shown), *_of_the_image(found, usual)), shown, usual)

    def _signal(self, hu: Volume, inside: NDArray[np.bool_], progress: Progress | None) -> NDArray[np.float32]:
        """(k, j, i) signal, 1 for fat, slice by slice; 0 beyond the patient's box."""
        (_, *box) = ndimage.find_objects(inside.astype(np.uint8))[0]
        j, i = (slice(max(0, one.start - _MARGIN), one.stop + _MARGIN) for one in box)
        seen = to_net(hu.array[:, j, i], HU_RANGE)
        more = [(0, 0), *((0, -n % GENERATOR_DIVISOR) for n in seen.shape[1:])]
        padded = np.pad(seen, more, mode="symmetric")
        low, high = SIGNAL_RANGE
        out = np.zeros(hu.array.shape, np.float32)
        for k, image in enumerate(padded):
            answer = self.engine(image[None, None])[0, 0, : seen.shape[1], : seen.shape[2]]
            out[k, j, i] = np.clip(low + (answer + 1) / 2 * (high - low), low, None)
            if progress is not None:
                progress((k + 1) / len(padded))
        return out

    def _of_the_ct(self, case: Case, shown: str) -> list[str]:
        """What in the CT the model has not learned from."""
        ct, card = case.ct, self.card
        told = []
        if shown:
            told.append(f"the CT shows {shown}, and {card.name} was made for {card.region}: it has seen nothing like it")
        elif (made_for := region_of(card.region)) and (seen := region(ct)).name != made_for:
            told.append(f"it cannot be told that the CT shows {card.region}, which {card.name} was made for ({'; '.join(seen.reasons)})")
        metal_cc = float((ct.array > _METAL_HU).sum() * ct.geometry.voxel_mm3 / 1000)
        if metal_cc > _METAL_CC:
            told.append(f"{written_cc(metal_cc)} cc of the CT lie above {_METAL_HU:.0f} HU (metal): its streaks become tissue in the image")
        if getattr(case.source, "series", {}).get("ContrastBolusAgent"):
            told.append("the CT was taken with a contrast agent: what it brightens looks like another tissue")
        return told


def usual_of(card: Card) -> Mapping[str, Sequence[float] | int] | None:
    """The ranges of fidelity figures in patients whose images are known to be good, from ``metrics["fidelity"]`` of a card:
    {"patients": 20, "nmi": [1.2, 1.4], ...}; None where it has none of that form."""
    told = card.metrics.get("fidelity")
    names = set(Fidelity.__dataclass_fields__)
    if not isinstance(told, Mapping) or not isinstance(told.get("patients"), int):
        return None
    spans = {name: span for name, span in told.items() if name in names and isinstance(span, list | tuple) and len(span) == 2}
    return {"patients": told["patients"], **spans} if all(is_number(end) for span in spans.values() for end in span) else None


def ranges_of(good: Sequence[Fidelity]) -> dict[str, list[float] | int]:
    """What ``usual_of`` reads, of ``good`` images, one a patient: least and greatest of each figure, widened on either side by half the
    distance between them, since one more good patient is often a little beyond those that were measured.

    A figure that one of them does not have (NaN) has no range. Raises InputError for fewer than two.
    """
    if len(good) < 2:
        raise InputError(f"the usual range of a figure is that of several patients, not of {len(good)}", hint="measure more patients")
    spans: dict[str, list[float] | int] = {"patients": len(good)}
    for name in Fidelity.__dataclass_fields__:
        values = [float(getattr(one, name)) for one in good]
        room = (max(values) - min(values)) / 2
        if np.isfinite(values).all():
            spans[name] = [round(min(values) - room, 6), round(max(values) + room, 6)]
    return spans


def _of_the_image(found: Fidelity, usual: Mapping[str, Sequence[float] | int] | None = None) -> list[str]:
    """What in the figures speaks against the image: limits that hold for every model, and the ranges of this one's good images."""
    told = []
    for name, value in asdict(found).items():
        span = (usual or {}).get(name)
        if isinstance(span, Sequence) and np.isfinite(value) and not span[0] <= value <= span[1]:
            words = f"{name.replace('_', ' ')} is {value:.3f}, in good images {span[0]:.3f} to {span[1]:.3f}"
            told.append(f"{words}: an unusual CT, or an image gone wrong")
    if found.body_dice < _OUTLINE:
        told.append(f"the patient's outline is not the CT's: Dice {found.body_dice:.3f}, at least {_OUTLINE}")
    if found.fat_over_muscle < _FAT:
        told.append(f"fat is {found.fat_over_muscle:.2f} times as bright as muscle, at least {_FAT} in a T1-weighted image")
    return told
