"""From a trained contour model and a case to masks on the case's own grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.contour.anatomy import anatomy_of
from oncontour.contour.inputs import SYNTHETIC, ContourSettings, image_of
from oncontour.contour.probabilities import ReferenceProbabilities, by_structure
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.prediction import Segmentation
from oncontour.core.volume import Volume
from oncontour.errors import ModelError
from oncontour.learn.card import Card, find, is_ours
from oncontour.learn.engine import Backend, Engine
from oncontour.learn.exported import exported
from oncontour.learn.predictor import Predictor, Trained
from oncontour.ops.augment import mirrored
from oncontour.ops.body import body_mask, check_shown, elsewhere, is_masked
from oncontour.ops.intensity import AIR_HU, window
from oncontour.ops.tidy import Change, Tidy, tidy
from oncontour.ops.windows import Stitched, stitch_labels
from oncontour.progress import Progress

Maker = Callable[[Case], tuple[Case, Sequence[str]]]
"""A case without an smr -> (the case with one; sentences: what made it, and what speaks against it)."""
_AIR_VOXELS = 4
"""Left around the patient."""


@dataclass
class Contourer:
    """A contour model ready to predict: engine compiled once, tidying chosen."""

    task: Trained[ContourSettings]
    backend: Backend = "auto"
    rules: Tidy = field(default_factory=Tidy)
    threads: int | None = None
    overlap: float = 0.25
    """of neighbouring windows; with one half DSC is the same (0.741 and 0.739 on ten patients) at 1.6 times the work"""
    memory_mb: float = 1000
    keep_probabilities: bool = False
    """whether ``predict`` leaves ``probabilities``"""
    maker: Maker | None = None
    """what makes the smr of a case that has none, where the net sees one"""
    any_region: bool = False
    """whether it draws on a CT of another part of the body than it was made for"""

    @property
    def card(self) -> Card:
        return self.task.card()

    @cached_property
    def engine(self) -> Engine:
        """The net, compiled once."""
        return self.task.engine(self.task.settings.seen_shape, backend=self.backend, threads=self.threads)

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with packed masks of the model's structures on its own grid, and ``segmentation``: how they came about.

        A structure that the net sees nowhere is present and empty. Structures that the case already had under other names stay.
        With ``keep_probabilities``, ``probabilities`` has what the net thought before it decided: structure -> probability times 255
        (uint8) on the grid it works on, one half where the line is drawn; where that is small enough to be kept. Raises InputError for a CT
        that plainly shows another part of the body than the model was made for; with ``any_region`` it is drawn, and
        ``segmentation.elsewhere`` says in words what it shows.
        """
        if not self.any_region:
            check_shown(case.ct, self.card.region, self.card.name)
        seen, told = self.completed(case)
        grid = self.task.settings.working_grid(case.geometry)
        found = self._stitch(seen, grid, case.geometry, progress, chances=self.keep_probabilities and self._small(grid, 0.25))
        masks, done = tidy(found.masks(self.task.settings.structures), self.rules, anatomy_of(case.ct, self.task.settings.structures))
        drawn = replace(case.with_masks(masks), segmentation=self._segmentation(case, grid, found.blend, done, told))
        if found.chances is None:
            return drawn
        return replace(drawn, probabilities=by_structure(found.chances, self.task.settings.structures, self.task.settings.thresholds))

    def reference(self, case: Case) -> ReferenceProbabilities:
        """What the net thinks of every voxel of its own grid, nothing decided: see ``contour/probabilities.py``.

        Raises ModelError where that would take more than ``memory_mb``.
        """
        grid = self.task.settings.working_grid(case.geometry)
        self.check_small(grid)
        found = self._stitch(self.completed(case)[0], grid, None, None, blend="gaussian", chances=True)
        assert found.chances is not None, "blended windows of mode sigmoid"
        s = self.task.settings
        return ReferenceProbabilities(self.card.name, self.card.sha256, s.structures, found.chances, s.thresholds)

    def check_small(self, grid: Geometry) -> None:
        """Raise ModelError where the probabilities of all structures on ``grid`` would take more than ``memory_mb``."""
        if not self._small(grid, 1.0):
            count = len(self.task.settings.structures)
            raise ModelError(
                f"probability maps of {count} structures on a grid of {grid.shape} are too many to be kept", where=self.card.name
            )

    def _small(self, grid: Geometry, part: float) -> bool:
        """Whether the probabilities of all structures take at most this part of ``memory_mb``."""
        return len(self.task.settings.structures) * math.prod(grid.shape) <= part * self.memory_mb * 1e6

    def _stitch(
        self,
        case: Case,
        grid: Geometry,
        target: Geometry | None,
        progress: Progress | None,
        *,
        blend: Literal["auto", "gaussian"] = "auto",
        chances: bool,
    ) -> Stitched:
        """The net's answer on ``target``, or on the grid it works on."""
        s = self.task.settings
        return stitch_labels(
            self.answer,
            self.image(case, grid),
            len(s.structures),
            window=s.window,
            overlap=self.overlap,
            target=target,
            mode="sigmoid",
            threshold=s.threshold,
            blend=blend,
            memory_mb=self.memory_mb,
            dims=2 if s.flat else 3,
            context=s.neighbours,
            pad=-1.0,
            chances=chances,
            shared=s.overlap is True,
            progress=None if progress is None else lambda done, total: progress(done / total),
        )

    def answer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class scores of windows; the last axis of the working grid runs from right to left of the patient."""
        scores, count = self.engine(images), len(self.task.settings.structures)
        if scores.shape != (len(images), count, *images.shape[2:]):
            what = f"the net answers {scores.shape[1:]} of an image of {images.shape[1:]}, for {count} structures"
            raise ModelError(what, where=self.card.name)
        if not self.task.settings.mirror:
            return scores
        swap = mirrored(self.task.settings.structures)
        other: NDArray[np.float32] = self.engine(images[..., ::-1])[:, swap, ..., ::-1]
        return np.asarray((scores + other) / 2, np.float32)

    def image(self, case: Case, grid: Geometry) -> Volume:
        """What the net is to see of the case on ``grid``: grey values, with air around the patient; (k, j, i) of a CT
        alone, else (c, k, j, i)."""
        s = self.task.settings
        ct = case.ct.to(grid, fill=AIR_HU)
        if s.mask_body and not is_masked(ct):
            inside = body_mask(ct)
            ct = _around(ct.map(lambda hu: hu * inside.array + (~inside.array) * AIR_HU), inside)
        seen = ct.map(lambda hu: window(hu, *s.hu))
        if s.images == ("ct",):
            return seen
        channels = {name: window(image_of(case, name).to(ct.geometry).array, *s.signal) for name in s.others} | {"ct": seen.array}
        return Volume(np.stack([channels[name] for name in s.images]), ct.geometry)

    def completed(self, case: Case) -> tuple[Case, tuple[str, ...]]:
        """(the case with the smr that the net sees, made where the case has none; sentences on that). Raises InputError where an image is
        missing that nothing makes."""
        if SYNTHETIC not in self.task.settings.images:
            return case, ()
        if SYNTHETIC in case.images or self.maker is None:
            image_of(case, SYNTHETIC)
            return case, ("drawn on an image that came with the CT and was made of it: synthetic, not acquired",)
        made, told = self.maker(case)
        return made, tuple(told)

    def _segmentation(self, case: Case, grid: Geometry, blend: str, tidied: tuple[Change, ...], told: tuple[str, ...]) -> Segmentation:
        card = self.card
        return Segmentation(
            model=card.name,
            sha256=card.sha256,
            structures=tuple(card.structures),
            grid=str(grid),
            backend=self.engine.backend,
            threads=self.engine.threads,
            blend=blend,
            mirror=self.task.settings.mirror,
            tidy=asdict(self.rules),
            tidied=tuple(change.text for change in tidied),
            elsewhere=elsewhere(case.ct, card.region) if self.any_region else "",
            notes=(*told, *(change.text for change in tidied if change.warns)),
            synthetic=True if told else None,
        )


def _around(ct: Volume, body: Volume) -> Volume:
    """``ct`` cut to the patient and a few voxels of air: nothing is to be found beyond, and windows there cost as much as others."""
    found = ndimage.find_objects(body.array.astype(np.uint8))
    if not found:
        return ct
    start = [max(0, part.start - _AIR_VOXELS) for part in found[0]]
    stop = [min(size, part.stop + _AIR_VOXELS) for part, size in zip(found[0], ct.array.shape, strict=True)]
    k, j, i = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(np.ascontiguousarray(ct.array[k, j, i]), ct.geometry.crop(start, stop))


def keeping_probabilities(contourer: Predictor, wanted: bool = True) -> Predictor:
    """The contourer, leaving ``probabilities`` where that is ``wanted`` and it is a model of our own."""
    return replace(contourer, keep_probabilities=True) if wanted and isinstance(contourer, Contourer) else contourer


def anywhere(contourer: Predictor, wanted: bool = True) -> Predictor:
    """The contourer, drawing on any part of the body where that is ``wanted``. Other people's models do not say what they are for."""
    return replace(contourer, any_region=True) if wanted and isinstance(contourer, Contourer) else contourer


def load_contourer(model: str | Path, *, backend: Backend = "auto", rules: Tidy | None = None, threads: int | None = None) -> Predictor:
    """The contour model in a file or folder (a path or a shipped name), ready to predict.

    A .safetensors file is one of ours; anything else is somebody else's model (``contour/external/load.py``). Raises ModelError for other
    kinds.
    """
    path = find(model, "contour")
    if not is_ours(path):
        from oncontour.contour.external.load import load_foreign

        return load_foreign(path, backend=backend, rules=rules or Tidy(), threads=threads)
    if (ready := exported(path, "contour", ContourSettings, backend, "contours")) is not None:
        return Contourer(ready, backend, rules or Tidy(), threads)
    from oncontour.contour.task import ContourTask
    from oncontour.learn.task import load_task

    task = load_task(path)
    if not isinstance(task, ContourTask):
        raise ModelError(f"this model does {task.name!r}, not contours", where=str(model))
    return Contourer(task, backend, rules or Tidy(), threads)
