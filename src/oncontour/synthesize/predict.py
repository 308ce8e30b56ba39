"""From a trained generator and a CT to an image like an MR, on the CT's own grid, and what is to be known before anybody believes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.case import Case
from oncontour.core.volume import Volume, written_cc
from oncontour.errors import InputError, ModelError
from oncontour.learn.card import Card
from oncontour.learn.engine import Backend, Engine
from oncontour.learn.task import load_task
from oncontour.ops.body import check_shown, elsewhere
from oncontour.progress import Progress
from oncontour.synthesize.fidelity import Fidelity, fidelity
from oncontour.synthesize.inputs import HU_RANGE, MADE, SIGNAL_RANGE, seen_ct, to_net
from oncontour.synthesize.task import SynthesizeTask

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
    generator works on; ``warnings``: sentences on what speaks against it, none where nothing does."""

    image: Volume
    fidelity: Fidelity
    warnings: tuple[str, ...]


@dataclass
class Synthesizer:
    """A synthesis model ready to make images."""

    task: SynthesizeTask
    backend: Backend = "auto"
    threads: int | None = None
    any_region: bool = False
    """whether it works on a CT of another part of the body than it was made for"""

    @classmethod
    def load(cls, model: str | Path, *, backend: Backend = "auto", threads: int | None = None, any_region: bool = False) -> Synthesizer:
        """Of a model file or a shipped name. Raises ModelError where it is no model that makes images."""
        task = load_task(model)
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
        return Engine.load(self.task.net, (1, 1, *self.task.settings.window[1:]), backend=self.backend, threads=self.threads)

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
        return Made(image, found, (*self._of_the_ct(case), *_of_the_image(found)))

    def _signal(self, hu: Volume, inside: NDArray[np.bool_], progress: Progress | None) -> NDArray[np.float32]:
        """(k, j, i) signal, 1 for fat, slice by slice; 0 beyond the patient's box."""
        (_, *box) = ndimage.find_objects(inside.astype(np.uint8))[0]
        j, i = (slice(max(0, one.start - _MARGIN), one.stop + _MARGIN) for one in box)
        seen = to_net(hu.array[:, j, i], HU_RANGE)
        more = [(0, 0), *((0, -n % self.task.net.divisor) for n in seen.shape[1:])]
        padded = np.pad(seen, more, mode="symmetric")
        low, high = SIGNAL_RANGE
        out = np.zeros(hu.array.shape, np.float32)
        for k, image in enumerate(padded):
            answer = self.engine(image[None, None])[0, 0, : seen.shape[1], : seen.shape[2]]
            out[k, j, i] = np.clip(low + (answer + 1) / 2 * (high - low), low, None)
            if progress is not None:
                progress((k + 1) / len(padded))
        return out

    def _of_the_ct(self, case: Case) -> list[str]:
        """What in the CT the model has not learned from."""
        ct, card = case.ct, self.card
        told = []
        if self.any_region and (shown := elsewhere(ct, card.region)):
            told.append(f"the CT shows {shown}, and {card.name} was made for {card.region}: it has seen nothing like it")
        metal_cc = float((ct.array > _METAL_HU).sum() * ct.geometry.voxel_mm3 / 1000)
        if metal_cc > _METAL_CC:
            told.append(f"{written_cc(metal_cc)} cc of the CT lie above {_METAL_HU:.0f} HU (metal): its streaks become tissue in the image")
        if getattr(case.source, "series", {}).get("ContrastBolusAgent"):
            told.append("the CT was taken with a contrast agent: what it brightens looks like another tissue")
        return told


def _of_the_image(found: Fidelity) -> list[str]:
    """What in the figures speaks against the image."""
    told = []
    if found.body_dice < _OUTLINE:
        told.append(f"the patient's outline is not the CT's: Dice {found.body_dice:.3f}, at least {_OUTLINE}")
    if found.fat_over_muscle < _FAT:
        told.append(f"fat is {found.fat_over_muscle:.2f} times as bright as muscle, at least {_FAT} in a T1-weighted image")
    return told
