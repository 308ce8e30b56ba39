"""How the day lies in planning, for ``oncontour adapt``: by the images, by a model, or by what another program found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from oncontour import report
from oncontour.commands.adapt_inputs import Given, Registrations
from oncontour.core.boxes import box_of as boxes_of
from oncontour.core.case import Case
from oncontour.core.geometry import Floats
from oncontour.core.structure_kinds import is_target
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError, ModelError
from oncontour.learn.card import card_words

if TYPE_CHECKING:
    from oncontour.adapt.choose import Measured
    from oncontour.adapt.deformation import Deformation
    from oncontour.adapt.register import Registration

MARGIN_MM = 20.0
ONE_FRAME_MM, ONE_FRAME_DEGREES = 10.0, 5.0
"""Two CTs of one frame of reference that need more than this to lie on each other contradict it."""


@dataclass(frozen=True, eq=False)
class Found:
    """How the day lies in planning: the registration with its field, the 4x4 ``set_up`` (day to planning) and what it is ``by``, structures
    that a model segmented directly, what the record says of that model, and which way its card says is ``better`` for a structure."""

    registration: Registration
    set_up: Floats
    by: Literal["REG", "images"]
    direct: Mapping[str, Volume] = field(default_factory=dict)
    models: tuple[report.Record, ...] = ()
    better: Mapping[str, Measured] = field(default_factory=dict)


def find(given: Given, theirs: Registrations, model: str | None) -> Found:
    """How the day lies in planning: by a field that was given, by a model and what refines it, or by the images alone.

    Without a REG the set-up is the rigid part of the field about the targets (of planning without targets: about all structures).
    Raises what ``adapt.register`` raises of images, ConfigError for a model and a field at once, ModelError for a model that only segments.
    """
    from oncontour.adapt.inputs import visit_of
    from oncontour.adapt.levels import Settings
    from oncontour.adapt.register import judge, register
    from oncontour.adapt.simulate import DAILY, PLANNING

    if theirs.field is not None and model is not None:
        raise ConfigError("a model and a field are given", hint="leave out --model, or the deformable --reg")
    fixed, moving = visit_of(given.daily, DAILY), visit_of(given.planning, PLANNING)
    if model is not None:
        return _by_model(given, theirs, model)
    if theirs.field is not None:
        set_up = set_up_of(given, theirs.field) if theirs.set_up is None else theirs.set_up
        registration = judge(fixed, moving, theirs.field, set_up)
    else:
        registration = register(fixed, moving, Settings(both_ways=True), theirs.set_up)
    return _set_up(given, theirs, registration)


def _set_up(given: Given, theirs: Registrations, registration: Registration) -> Found:
    """What was found, with the set-up of a REG where one is given, else of the field."""
    if theirs.set_up is not None:
        return Found(registration, theirs.set_up, "REG")
    return Found(registration, set_up_of(given, registration.deformation), "images")


def _by_model(given: Given, theirs: Registrations, model: str) -> Found:
    """By the model's field, refined by registering this pair from it on where its net began with nothing."""
    from oncontour.adapt.choose import chosen_in, segmented
    from oncontour.adapt.inputs import visit_of
    from oncontour.adapt.levels import Settings
    from oncontour.adapt.predict import PAPER, Adapter
    from oncontour.adapt.register import judge
    from oncontour.adapt.simulate import DAILY, PLANNING
    from oncontour.learn.resident import once

    settings = Settings(both_ways=True)
    adapter = replace(once(("adapt", model), lambda: Adapter.load(model)), refinement=settings)
    if adapter.task.settings.mode == "paper":
        raise ModelError(PAPER, where=model, hint="train one of mode fair with 'oncontour train adapt', or leave out --model")
    if not adapter.task.registers:
        raise ModelError("this model segments and does not register", where=model, hint="leave out --model, or use one that registers")
    adapted = adapter.found(replace(given.daily, prior=given.planning))
    registration, field = adapted.registration, adapted.deformation
    assert field is not None
    if registration is None or registration.deformation is not field:
        start = field.rigid_part() if registration is None else registration.start
        registration = judge(visit_of(given.daily, DAILY), visit_of(given.planning, PLANNING), field, start, settings)
    found = _set_up(given, theirs, registration)
    better = chosen_in(adapter.card)
    direct = segmented(adapted.direct, better)
    told, silent = card_words(adapter.card), [name for name in adapted.direct if name not in direct]
    if silent:
        told["notes"] = [*_notes(told), f"it does not segment {', '.join(silent)} well enough to compare: these are carried alone"]
    return replace(found, direct=direct, models=(told,), better=better)


def _notes(told: report.Record) -> list[str]:
    held = told.get("notes")
    return list(held) if isinstance(held, list | tuple) else []


def set_up_of(given: Given, field: Deformation) -> Floats:
    """The 4x4 rigid part of the field within the body and 2 cm about the targets, or about all structures where there is no target."""
    from oncontour.adapt.inputs import seen_of

    names = [name for name in given.planning.structures if is_target(name)] or list(given.planning.structures)
    low, high = box_of(given.planning, names)
    corners = np.array(list(product(*zip(low - MARGIN_MM, high + MARGIN_MM, strict=True))))
    at = field.geometry.voxels(field.solve(corners)[0])
    inside = seen_of(given.daily.ct).to(field.geometry).array.copy()
    for axis, (first, last) in enumerate(zip(at.min(axis=0), at.max(axis=0), strict=True)):
        beyond = np.arange(inside.shape[axis])
        np.moveaxis(inside, axis, 0)[(beyond < first) | (beyond > last)] = False
    return field.rigid_part(Volume(inside, field.geometry) if inside.any() else None)


def doubts_of(given: Given, found: Found, middle_mm: Floats) -> list[str]:
    """Why these may not be two CTs of one patient: what the registration says, and a frame of reference that does not hold."""
    from oncontour.adapt.figures import pose

    there = pose(found.set_up, middle_mm)
    doubts = list(found.registration.refusals)
    if given.one_frame and (there.length_mm > ONE_FRAME_MM or there.angle_degrees > ONE_FRAME_DEGREES):
        doubts.append(
            f"both CTs name one frame of reference, and the patient lies {there.length_mm:.1f} mm and {there.angle_degrees:.1f} degrees "
            f"elsewhere on the day (at most {ONE_FRAME_MM:g} and {ONE_FRAME_DEGREES:g}): contours and doses of one would be taken for the "
            "other's"
        )
    return doubts


def box_of(planning: Case, names: Sequence[str]) -> Floats:
    """(2, 3) the least and the greatest x, y, z of the boxes of voxels about the structures. Raises InputError where all are empty."""
    boxes = [found for name in names if (found := boxes_of(planning.mask(name).array)) is not None]
    if not boxes:
        raise InputError("every structure of planning is empty", where="case planning", hint="give a planning CT with contours")
    ends = [[(side.start, side.stop - 1) for side in box] for box in boxes]
    points = planning.ct.geometry.points([corner for sides in ends for corner in product(*sides)])
    return np.stack([points.min(axis=0), points.max(axis=0)])
