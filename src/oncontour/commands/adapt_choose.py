"""Which outline of each structure ``oncontour adapt`` writes: the planning one carried to the day, or the one a model drew on the day.

outlines(...)   the chosen masks, why each was chosen, and how far the two lie apart; a strong disagreement is a place to look at
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from oncontour.commands.adapt_find import Found
from oncontour.commands.adapt_inputs import Given
from oncontour.core.boxes import box_of, cropped, widened
from oncontour.core.case import BitMasks, Case
from oncontour.core.structure_kinds import is_target
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError

if TYPE_CHECKING:
    from oncontour.adapt.propagate import Carried, Propagated
    from oncontour.quality.predict import Assessor

Asked = Literal["card", "propagated", "direct", "score"]
Taken = Literal["propagated", "direct"]
FAR_MM, FAR_HD95_MM = 3.0, 10.0
"""Outlines that lie farther apart than this (MSD, HD95) are a place to look at; 3 mm is twice the SD of a second observer in simulated
visits."""


@dataclass(frozen=True)
class Outline:
    """Which outline of a structure was ``taken``, and ``why``; how far the two lie apart: DSC, MSD and HD95, None where there is one alone.

    ``far``: whether that is a place to look at; ``worst_mm``: a point (x, y, z) of the slice where most of them differs.
    """

    name: str
    taken: Taken
    why: str
    dsc: float | None = None
    msd_mm: float | None = None
    hd95_mm: float | None = None
    far: bool = False
    worst_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Outlines:
    """The ``carried`` structures with the chosen masks, and the case with the ``propagated`` ones; what is told of each structure where a
    model drew, its ``direct`` masks, and what the record says of the quality model that chose, where one did."""

    carried: Propagated
    propagated: Case
    told: Mapping[str, Outline] = field(default_factory=dict)
    direct: Mapping[str, Volume] = field(default_factory=dict)
    models: tuple[Mapping[str, object], ...] = ()

    @property
    def places(self) -> list[Outline]:
        """Where the two outlines of a structure disagree strongly, the worst first."""
        return sorted((one for one in self.told.values() if one.far), key=lambda one: -(one.msd_mm or 0.0))


def check_asked(asked: Asked, model: str | None) -> None:
    """Raises ConfigError for a choice that nothing is there for."""
    if model is None and asked in ("direct", "score"):
        raise ConfigError(
            f"--choose {asked} takes outlines that a model draws on the CT of the day, and no model is given",
            hint="give one with --model, or leave out --choose",
        )


def outlines(given: Given, carried: Propagated, found: Found, asked: Asked) -> Outlines:
    """Of every carried structure the outline that was ``asked`` for, or the one that the model's card says was better in training.

    A target is only carried. A structure that the model does not segment, or finds nothing of, is carried; one that the quality model does
    not score is never chosen by score.
    """
    if not found.direct:
        return Outlines(carried, carried.case)
    names = [one.name for one in carried.structures]
    before = carried.case
    some = [name for name in names if name in found.direct and not is_target(name)]
    both = [name for name in some if found.direct[name].array.any() and before.mask(name).array.any()]
    by_score = [name for name in both if _way(name, found, asked) == "score"]
    scores, models = _scores(before, found.direct, by_score)
    told = {}
    for name in names:
        taken, why = _taken(name, found, asked, scores) if name in both else ("propagated", _only_carried(name, found))
        told[name] = Outline(name, taken, why)
        if name in both:
            told[name] = _compared(told[name], before.mask(name), found.direct[name])
    swapped = [name for name in both if told[name].taken == "direct"]
    masks = BitMasks.packed(swapped, before.geometry, found.direct.__getitem__)
    case = before.with_masks(masks) if swapped else before
    rows = tuple(_direct(one, given, carried, masks[one.name]) if one.name in swapped else one for one in carried.structures)
    return Outlines(replace(carried, case=case, structures=rows), before, told, found.direct, models)


def _way(name: str, found: Found, asked: Asked) -> str:
    if asked != "card":
        return asked
    return found.better[name].way if name in found.better else "propagated"


def _only_carried(name: str, found: Found) -> str:
    if is_target(name):
        return "a target is only carried"
    return "only one of the two outlines is there" if name in found.direct else "the model does not segment it"


def _taken(name: str, found: Found, asked: Asked, scores: Mapping[str, tuple[float, float]]) -> tuple[Taken, str]:
    """(which, why) of a structure that has two outlines."""
    way = _way(name, found, asked)
    if way == "score":
        if name not in scores:
            return "propagated", "the quality model does not score it"
        carried, own = scores[name]
        return ("direct" if own > carried else "propagated"), f"predicted DSC {carried:.2f} propagated, {own:.2f} direct"
    taken: Taken = "direct" if way == "direct" else "propagated"
    if asked != "card":
        return taken, f"--choose {asked}"
    if name not in found.better:
        return taken, "the model's card does not say which is better"
    one = found.better[name]
    return taken, f"DSC {one.propagated:.2f} propagated, {one.direct:.2f} direct on {one.visits} visits of patients it was trained on"


def _compared(told: Outline, propagated: Volume, direct: Volume) -> Outline:
    """What is told of a structure, with the agreement of its two outlines."""
    from oncontour.metrics.overlap import dsc
    from oncontour.metrics.surface import surfaces

    held = [box_of(mask.array) for mask in (propagated, direct)]
    around = [(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*(box for box in held if box is not None), strict=True)]
    box = widened([slice(*ends) for ends in around], propagated.array.shape, (2, 2, 2))
    grid = cropped(propagated.geometry, box)
    one, other = (Volume(mask.array[box], grid) for mask in (propagated, direct))
    apart = surfaces(one, other)
    differs = one.array ^ other.array
    by_slice = differs.sum(axis=(1, 2))
    worst = None
    if by_slice.any():
        k = int(by_slice.argmax())
        x, y, z = (float(v) for v in grid.points((k, *np.argwhere(differs[k]).mean(axis=0))))
        worst = (x, y, z)
    msd, hd95 = apart.msd_mm, apart.hd95_mm
    far = not (msd <= FAR_MM and hd95 <= FAR_HD95_MM)
    return replace(told, dsc=float(dsc(one, other)), msd_mm=msd, hd95_mm=hd95, far=far, worst_mm=worst)


def _direct(one: Carried, given: Given, carried: Propagated, mask: Volume) -> Carried:
    """What became of a structure whose direct outline is written: its volume, and where its middle lies beyond the set-up."""
    from oncontour.adapt.start import middle_mm

    planned = given.planning.mask(one.name)
    back = np.linalg.inv(carried.set_up)
    was = middle_mm(planned) @ back[:3, :3].T + back[:3, 3]
    x, y, z = (float(v) for v in middle_mm(mask) - was)
    return replace(one, how="direct", carried_cc=mask.volume_cc, moved_mm=(x, y, z))


# ---- by score


def _scores(
    carried: Case, direct: Mapping[str, Volume], names: Sequence[str]
) -> tuple[dict[str, tuple[float, float]], tuple[Mapping[str, object], ...]]:
    """Structure -> predicted DSC of the carried and of the direct outline, where the quality model scores both; and that model's words."""
    from oncontour.learn.card import card_words
    from oncontour.quality.score import load

    assessor = load() if names else None
    if assessor is None:
        return {}, ()
    bare = carried.without_structures()
    one, other = (
        _predicted(assessor, bare.with_masks(BitMasks.packed(names, carried.geometry, mask_of)))
        for mask_of in (carried.mask, direct.__getitem__)
    )
    return {name: (one[name], other[name]) for name in names if name in one and name in other}, (card_words(assessor.card),)


def _predicted(assessor: Assessor, case: Case) -> dict[str, float]:
    """Structure -> its predicted DSC, the mean over its slices weighted by nothing; without those that are not scored."""
    told = assessor.predict(case).assessment
    found = {}
    for name, one in (told.structures if told is not None else {}).items():
        known = [part.dsc for part in one.slices if part.dsc is not None]
        if one.scored and known:
            found[name] = float(np.mean(known))
    return found
