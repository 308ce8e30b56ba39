"""The dose of the day for ``oncontour adapt``: where it comes from, what it gives beside what was planned, and the sum over visits.

of_the_day(...)   an RTDOSE of the daily CT, else the planned dose carried rigidly by the set-up: not recalculated
on_planning(...)  that dose on the planning CT, by the inverse of the field that carried the contours
add_up(...)       the sum with what earlier visits left in their result folders
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from oncontour.adapt.accumulate import AccumulatedDose, WarpedDose, accumulate, by_set_up, warp_dose
from oncontour.adapt.deformation import Deformation
from oncontour.adapt.propagate import Propagated
from oncontour.commands.adapt_find import Found
from oncontour.commands.adapt_inputs import Given
from oncontour.commands.dvh import Plan, evaluate
from oncontour.core.case import BitMasks, Case
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.notes import DOSE_DOUBTS, about
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.libraries import failure
from oncontour.result import pseudonym, sha256

NOT_RECALCULATED = (
    "The dose of the day is the planned dose carried rigidly by the set-up, not recalculated: it tells what moving did to the organs, "
    "not what the changed body did to the dose."
)
WARPED, KNOWN = "dose_on_planning.dcm", "dose_known.nii.gz"
MOST_MISSING_PERCENT = 0.5
"""A structure of which more than this has no dose in a visit gets no accumulated figures."""
VOXEL_MM = 2.75


@dataclass(frozen=True, eq=False)
class DayDose:
    """The dose in the frame of the day, in Gy, as if its whole plan were given on this anatomy; where it comes ``by``; ``share``: the part
    of its plan's fractions that were given on this day, which counts in the sum."""

    dose: Volume
    by: Literal["given", "carried"]
    share: float
    facts: Mapping[str, object]

    @property
    def note(self) -> str:
        return NOT_RECALCULATED if self.by == "carried" else "The dose of the day is the RTDOSE that came with the daily CT."


def share_of(planning: Case, daily: Case, fractions: float | None, planned_fractions: float | None) -> float | None:
    """The part of a plan that ``fractions`` are, 1 where they are not told; None where neither visit has a dose. Raises ConfigError for
    fractions of nobody knows how many, or of no dose."""
    came = daily if "dose" in daily.images else planning
    if "dose" not in came.images:
        if fractions is not None:
            raise ConfigError("fractions are told, and there is no dose in either visit", hint="put the RTDOSE beside the planning CT")
        return None
    if fractions is None:
        return 1.0
    told = came.facts.get("fractions")
    whole = planned_fractions or (float(told) if isinstance(told, int | float) else None)
    if not whole or not 0 < fractions <= whole:
        raise ConfigError(
            f"{fractions:g} of {f'{whole:g}' if whole else 'an unknown number of'} fractions cannot be told as a part",
            hint="give the number of the plan's fractions with --planned_fractions, and no more of them with --fractions",
        )
    return fractions / whole


def of_the_day(planning: Case, daily: Case, set_up: Floats, share: float) -> DayDose:
    """The dose of the day: that which came with it, else the planned one where the set-up puts it."""
    facts = {**planning.facts, **daily.facts}
    if "dose" in daily.images:
        return DayDose(daily.images["dose"], "given", share, facts)
    return DayDose(by_set_up(planning.images["dose"], set_up), "carried", share, {**facts, **planning.facts})


def plan_of(case: Case, dose: Volume, facts: Mapping[str, object], failed: list[str], what: str) -> Plan | None:
    """The DVHs of ``dose`` in the masks of ``case``; None with a sentence in ``failed`` where there are none."""
    notes = tuple(about(_notes(facts), *DOSE_DOUBTS))
    kept = {key: value for key, value in facts.items() if key != "notes"}
    try:
        return evaluate(replace(case.with_images({"dose": dose}), facts={**kept, "notes": notes}))
    except Exception as error:
        failed.append(failure(f"No DVH of {what}", error))
        return None


def _notes(facts: Mapping[str, object]) -> Sequence[str]:
    notes = facts.get("notes", ())
    return notes if isinstance(notes, tuple) else ()


def _only(planning: Case, names: Sequence[str]) -> Case:
    """The planning case, which holds masks, with these structures."""
    same = set(names) == set(planning.structures)
    return planning if same else replace(planning, masks=BitMasks.packed(names, planning.geometry, planning.mask))


def on_planning(planning: Case, day: DayDose, deformation: Deformation, visit: str) -> WarpedDose:
    """The share of the day's dose that was given, on the planned dose's grid (without one, in voxels of 2.75 mm of the planning CT)."""
    from oncontour.adapt.levels import in_voxels

    grid = grid_of(planning)
    back = deformation.inverse(in_voxels(grid, VOXEL_MM)).deformation
    given = day.dose.map(lambda gy: gy * np.float32(day.share))
    return replace(warp_dose(given, back, grid), visit=visit)


def grid_of(planning: Case) -> Geometry:
    """The grid that doses are summed on."""
    from oncontour.adapt.levels import in_voxels

    return planning.images["dose"].geometry if "dose" in planning.images else in_voxels(planning.ct.geometry, VOXEL_MM)


# ---- several visits


@dataclass(frozen=True, eq=False)
class Sum:
    """The accumulated dose, its DVHs in the planning structures beside those of the plan (of as many fractions), and which structures have
    none because a visit's dose does not reach them."""

    accumulated: AccumulatedDose
    share: float
    plan: Plan | None
    planned: Plan | None
    missing: Mapping[str, float]


def add_up(planning: Case, visits: Sequence[WarpedDose], share: float, failed: list[str]) -> Sum:
    """The visits' sum on the planning CT; ``share`` is how much of the plan they are together. ``planning`` holds masks."""
    total = accumulate(visits)
    missing = {name: _missing_percent(planning.mask(name), total.known) for name in planning.structures}
    whole = [name for name, percent in missing.items() if percent <= MOST_MISSING_PERCENT]
    some = replace(planning, masks={name: planning.mask(name) for name in whole}) if len(whole) < len(missing) else planning
    facts = {key: value for key, value in planning.facts.items() if key != "prescription_gy"}
    planned = planning.images.get("dose")
    both = [
        None if dose is None or not whole else plan_of(some, dose, facts, failed, what)
        for dose, what in (
            (total.dose, "the sum"),
            (None if planned is None else planned.map(lambda gy: gy * np.float32(share)), "the plan"),
        )
    ]
    return Sum(total, share, both[0], both[1], {name: percent for name, percent in missing.items() if percent > MOST_MISSING_PERCENT})


def _missing_percent(structure: Volume, known: Volume) -> float:
    """Share in % of a mask's voxels that lie where a dose is not known; 100 for an empty mask."""
    points = structure.geometry.points(np.argwhere(structure.array))
    if not len(points):
        return 100.0
    at = np.rint(known.geometry.voxels(points)).astype(int)
    inside = ((at >= 0) & (at < known.geometry.shape)).all(axis=1)
    return 100 * (1 - float(known.array[tuple(at[inside].T)].sum()) / len(points))


# ---- all of it


@dataclass(frozen=True, eq=False)
class Doses:
    """The dose of the day with its DVHs beside the planned ones, that dose on the planning CT, and the sum over visits; None where a dose
    is not there."""

    day: DayDose | None = None
    planned: Plan | None = None
    today: Plan | None = None
    warped: WarpedDose | None = None
    total: Sum | None = None


def doses_of(
    given: Given, carried: Propagated, found: Found, share: float | None, earlier: Sequence[tuple[WarpedDose, float]], failed: list[str]
) -> Doses:
    """Every dose, ``share`` (of ``share_of``) of a plan on this day; no DVH is a reason to stop: ``failed`` gets why."""
    if share is None:
        return Doses()
    day = of_the_day(given.planning, given.daily, found.set_up, share)
    before = _only(given.planning, [one.name for one in carried.structures])
    planned = before.images.get("dose")
    today = plan_of(carried.case, day.dose, day.facts, failed, "the day")
    was = None if planned is None else plan_of(before, planned, given.planning.facts, failed, "the plan")
    warped = on_planning(given.planning, day, found.registration.deformation, pseudonym(given.daily))
    visits, parts = [*(one for one, _ in earlier), warped], share + sum(part for _, part in earlier)
    return Doses(day, was, today, warped, add_up(before, visits, parts, failed) if earlier else None)


def sha256_of(given: Given) -> str:
    """What tells one planning CT from another and names nobody."""
    return sha256(given.planning_source.series_uid.encode())
