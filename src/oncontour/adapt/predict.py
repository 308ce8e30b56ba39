"""From a trained net and a pair of visits to the contours of the day: carried from the planning CT by a field, and segmented directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import ALIGNED, Pair, Paired, paired, planning_of, visit_of
from oncontour.adapt.objective import whole
from oncontour.adapt.register import Registration, Settings, register
from oncontour.adapt.simulate import DAILY, PLANNING
from oncontour.adapt.task import AdaptTask, places
from oncontour.core.case import BitMasks, Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ModelError
from oncontour.learn.card import Card
from oncontour.learn.task import Draw, load_task
from oncontour.progress import Progress

PAPER = "a net of mode paper sees windows of 1 mm and is there for the paper's table: it adapts no patient"


@dataclass(frozen=True, eq=False)
class Adapted:
    """A daily visit adapted: ``carried`` planning structures and ``direct`` ones (bool masks on the daily CT's grid; empty mappings where
    the net does not register or segment), the ``deformation`` from the daily to the planning visit, that of the ``net`` alone, and the
    ``registration`` that refined it, else the one that it began with; its ``problems`` say why not to use it (None where there is none).
    """

    carried: Mapping[str, Volume]
    direct: Mapping[str, Volume]
    deformation: Deformation | None
    net: Deformation | None
    registration: Registration | None


@dataclass
class Adapter:
    """A trained task ready to adapt."""

    task: AdaptTask
    refine: bool | None = None
    """whether the net's field is refined by registering this very pair from it on; left out: where the net did not begin with a field that
    a registration had found"""
    guide: Literal["none", "carried", "direct"] = "none"
    """which contours of the day pull on that registration beside the images: those that the net's field carries, or that it segments"""
    refinement: Settings = field(default_factory=Settings)
    """how it registers"""

    @classmethod
    def load(cls, model: str) -> Adapter:
        """Of a model file or a shipped name. Raises ModelError where it is no model that adapts."""
        task = load_task(model)
        if not isinstance(task, AdaptTask):
            raise ModelError(f"this model's task is {task.name!r}, not 'adapt'", where=model, hint="train one with `oncontour train adapt`")
        return cls(task)

    @property
    def card(self) -> Card:
        """What is known of the model."""
        return self.task.card()

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The daily ``case`` with the structures carried from its ``prior``, or segmented directly where the net does not register."""
        found = self.adapt(case)
        if progress is not None:
            progress(1.0)
        return case.with_masks(found.carried or found.direct)

    def adapt(self, case: Case, seen: Paired | None = None) -> Adapted:
        """``case`` adapted from its ``prior``, the planning visit. ``seen``: the pair as the net sees it, where it was made before.

        Raises InputError where there is no prior, or it has none of the model's structures; what ``register`` raises of images.
        """
        found = self.found(case, seen)
        if found.deformation is None:
            return found
        planning = planning_of(case)
        masks = {name: planning.mask(name) for name in planning.structures}
        return replace(found, carried=found.deformation.warp_masks(masks, case.geometry))

    def found(self, case: Case, seen: Paired | None = None) -> Adapted:
        """As ``adapt``, with nothing carried yet: for whom carries by the deformation in a way of his own."""
        planning = planning_of(case)
        if self.task.settings.mode == "paper":
            raise ModelError(PAPER, where=f"model {self.card.name}", hint="use a model of mode fair")
        shown = seen or paired(case, planning, self.task.settings.view)
        pair = shown.pair
        logits, relative = answered(self.task, pair)
        direct: Mapping[str, Volume] = {} if logits is None else self._direct(case, pair.grid, logits)
        if relative is None:
            return Adapted({}, direct, None, None, None)
        net = relative.then_matrix(shown.rigid, PLANNING, _as_far(pair.grid, case.geometry))
        wanted = refines(self.task) if self.refine is None else self.refine
        refined = self._refined(case, planning, net, direct) if wanted else None
        deformation = net if refined is None else refined.deformation
        return Adapted({}, direct, deformation, net, refined or shown.registration)

    def _refined(self, case: Case, planning: Case, net: Deformation, direct: Mapping[str, Volume]) -> Registration:
        """The registration of this very pair from the net's field on, its structures pulling where ``guide`` says so."""
        fixed, moving = visit_of(case, DAILY), visit_of(planning, PLANNING)
        if self.guide != "none":
            known = {name: planning.mask(name) for name in self.task.settings.structures if name in planning.structures}
            day = direct if self.guide == "direct" else net.warp_masks(known, case.geometry)
            pulling = [name for name in known if name in day and day[name].array.any()]
            fixed = replace(fixed, structures={name: day[name] for name in pulling})
            moving = replace(moving, structures={name: known[name] for name in pulling})
        return register(fixed, moving, self.refinement, net)

    def _direct(self, case: Case, grid: Geometry, logits: Tensor) -> Mapping[str, Volume]:
        """Each structure where it is the likeliest of all, background among them, on the daily CT's grid; logits are moved to the part
        of it that the net's grid covers, and no further."""
        part = case.geometry.around(grid.pad((1, 1, 1), (1, 1, 1)).corners_mm)
        scores = Volume(logits.numpy(), grid).to(part, fill=-1e4, blur=False).array
        likeliest = scores.argmax(axis=0)
        outside = (scores <= -1e3).all(axis=0)
        names = self.task.settings.structures
        return BitMasks.packed(
            names, case.geometry, lambda name: Volume((likeliest == names.index(name) + 1) & ~outside, part).to(case.geometry)
        )


def refines(task: AdaptTask) -> bool:
    """Whether the field of this net is to be refined by registering the pair from it on: not where it began with what that had found."""
    return task.settings.start == "none"


def answered(task: AdaptTask, pair: Pair) -> tuple[Tensor | None, Deformation | None]:
    """What the net says of a pair: logits (1 + structures, k, j, i), and the field from the daily visit to the planning one as it was
    aligned, both on the pair's grid; None for what it does not learn."""
    k, j, i = ((n - 1) / 2 for n in pair.grid.shape)
    item = task.item([pair], Draw(0, (k, j, i), None))
    with torch.inference_mode():
        full = task.eval().answers(item["image"][None])[0]
    logits = full[0][0] if task.segments else None
    if not task.registers:
        return logits, None
    xyz = torch.tensor(task.settings.spacing_mm[::-1])
    _, total = whole(full[-1], item["start"][None], places(pair.grid.shape)[None], xyz)
    return logits, Deformation(Volume(total[0].numpy(), pair.grid), DAILY, ALIGNED)


def _as_far(grid: Geometry, image: Geometry) -> Geometry:
    """``grid`` with as many voxels more on each side as it takes to hold all of ``image``: what the set-up does there is known, and a field
    that ended before would not turn it."""
    at = grid.voxels(image.corners_mm)
    before, after = np.maximum(0, -at.min(axis=0)), np.maximum(0, at.max(axis=0) - grid.shape + 1)
    return grid.pad(np.ceil(before).astype(int).tolist(), np.ceil(after).astype(int).tolist())
