"""Which outline of a structure a model was better at: the planning one carried by its field, or its own on the CT of the day.

It is measured once, when a training ends, on visits of patients that were trained on (held back where some were): simulated ones but for
a cohort of real visits. The answer is kept in the model's card, ``made["chosen"]``, structure by structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import ALIGNED, Pair, visit_of
from oncontour.adapt.predict import answered, refines
from oncontour.adapt.register import register
from oncontour.adapt.simulate import DAILY
from oncontour.adapt.task import AdaptTask
from oncontour.adapt.task import finish as visits_told
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import OncontourError
from oncontour.learn.card import Card
from oncontour.metrics.overlap import dsc

Way = Literal["propagated", "direct", "score"]
WAYS: tuple[Way, ...] = ("propagated", "direct", "score")
"""Carried from the planning CT, segmented on the CT of the day, or whichever of the two a quality model scores higher."""
MOST_VISITS = 12
"""Of so many at most it is measured, evenly taken: a registration of each takes seconds."""
LEAST_GAIN = 0.02
"""A net's own outline is taken only where its mean DSC is higher by this much: a dozen visits tell no less."""
LEAST_DIRECT = 0.5
"""Mean DSC below which a net does not segment a structure: its outline is then no second opinion on the carried one."""
CHOSEN = "chosen"
"""Where it stands in a card's ``made``."""


@dataclass(frozen=True)
class Measured:
    """The ``way`` that was better for a structure, the mean DSC of either, and of how many ``visits``."""

    way: Way
    propagated: float
    direct: float
    visits: int


def measured(task: AdaptTask, pairs: Sequence[Pair]) -> dict[str, Measured]:
    """Of each structure that both visits of a pair have: was it better carried or segmented? By the mean DSC against the contours of the
    day, on the working grid. Empty for a net that does one of the two alone, or sees windows (mode paper)."""
    if not (task.segments and task.registers) or task.settings.mode == "paper":
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs[:: max(1, -(-len(pairs) // MOST_VISITS))]:
        for name, both in _dsc_of(task, pair).items():
            found.setdefault(name, []).append(both)
    told = {}
    for name, rows in found.items():
        propagated, direct = (round(float(mean), 3) for mean in np.mean(rows, axis=0))
        told[name] = Measured("direct" if direct >= propagated + LEAST_GAIN else "propagated", propagated, direct, len(rows))
    return told


def _dsc_of(task: AdaptTask, pair: Pair) -> dict[str, tuple[float, float]]:
    """Structure -> DSC of the carried and of the direct mask, of the structures that both visits have."""
    logits, field = answered(task, pair)
    if logits is None or field is None:
        return {}
    bits = [np.uint32(1 << n) for n in range(len(task.settings.structures))]
    names = {
        name: bit
        for name, bit, known in zip(task.settings.structures, bits, pair.known, strict=True)
        if known and (pair.fixed_bits & bit).any()
    }
    field = _refined(pair, field) if refines(task) else field
    carried = field.warp_masks({name: Volume((pair.moving_bits & bit) != 0, pair.grid) for name, bit in names.items()})
    likeliest = logits.argmax(dim=0).numpy()
    told = {}
    for name, bit in names.items():
        truth = Volume((pair.fixed_bits & bit) != 0, pair.grid)
        own = Volume(likeliest == task.settings.structures.index(name) + 1, pair.grid)
        told[name] = (float(dsc(truth, carried[name])), float(dsc(truth, own)))
    return told


def _refined(pair: Pair, field: Deformation) -> Deformation:
    """As a clinic gets it: the pair registered from the net's field on; that field where the pair cannot be registered."""
    day, planning = (Case(pair.case_id, {"ct": Volume(hu, pair.grid)}) for hu in (pair.fixed, pair.moving))
    try:
        return register(visit_of(day, DAILY), visit_of(planning, ALIGNED), None, field).deformation
    except OncontourError:
        return field


def finish(task: AdaptTask, train: Sequence[Pair], held_back: Sequence[Pair]) -> dict[str, object]:
    """What a card tells of the visits, and which way was better for each structure: on visits that were held back where there are any."""
    told = {name: vars(one) for name, one in measured(task, held_back or train).items()}
    return {**visits_told(task, train, held_back), **({CHOSEN: told} if told else {})}


def segmented(direct: Mapping[str, Volume], better: Mapping[str, Measured]) -> dict[str, Volume]:
    """Those of a net's ``direct`` outlines that it is known to draw, or of which nothing was measured (LEAST_DIRECT)."""
    return {name: mask for name, mask in direct.items() if name not in better or better[name].direct >= LEAST_DIRECT}


def chosen_in(card: Card) -> Mapping[str, Measured]:
    """What a model's card says was better, structure by structure; empty for one that was made before it was measured."""
    told = card.made.get(CHOSEN)
    found = {}
    for name, one in told.items() if isinstance(told, Mapping) else ():
        if isinstance(one, Mapping) and one.get("way") in WAYS:
            found[name] = Measured(one["way"], *(one.get(key) or 0 for key in ("propagated", "direct", "visits")))
    return found
