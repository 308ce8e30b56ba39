"""What ``oncontour adapt`` tells: its part of report.json, the warnings, and the table on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncontour import report
from oncontour.commands.adapt_dose import Doses, sha256_of
from oncontour.commands.adapt_find import Found
from oncontour.commands.adapt_inputs import Given
from oncontour.core.case import Case
from oncontour.core.geometry import Floats
from oncontour.core.volume import Volume
from oncontour.result import anonymous, record

if TYPE_CHECKING:
    from oncontour.adapt.accumulate import WarpedDose
    from oncontour.adapt.figures import Pose
    from oncontour.adapt.propagate import Carried, Propagated
    from oncontour.commands.dvh import Plan

FIGURES = ("Dmean", "D2%", "D98%")
"""Of the dose, planned beside today."""


def record_of(
    given: Given,
    found: Found,
    carried: Propagated,
    doses: Doses,
    rows: Sequence[report.Row],
    middle: Floats,
    points: Floats | None,
    settings: Mapping[str, object],
) -> dict[str, Any]:
    from oncontour.commands.dvh import record as plan_record

    told = record(carried.case, rows, found.models, settings, [])
    told["adapt"] = _adapt_record(given, found, carried, doses, middle, points)
    if doses.today is not None:
        told["dose"] = plan_record(replace(doses.today, id=told["case"]))
    if doses.planned is not None:
        told["planned_dose"] = plan_record(replace(doses.planned, id=told["case"]))
    if doses.warped is not None and doses.day is not None:
        told["accumulation"] = {**_warped_words(doses.warped), "share": doses.day.share, "planning_sha256": sha256_of(given)}
    return told


def _warped_words(one: WarpedDose) -> dict[str, object]:
    return {key: getattr(one, key) for key in ("visit", "integral_before", "integral_after", "change_percent")}


def _adapt_record(
    given: Given, found: Found, carried: Propagated, doses: Doses, middle: Floats, points: Floats | None
) -> dict[str, object]:
    from oncontour.adapt.figures import landmark_errors, pose
    from oncontour.adapt.inputs import seen_of

    registration = found.registration
    field = registration.deformation
    body = Volume(seen_of(given.daily.ct).to(field.geometry).array, field.geometry)
    rest = field.rigid_part(body) if body.array.any() else found.set_up
    # of the day, beyond the set-up: where planning's middle is by the field as one piece, less where the set-up puts it
    there = np.linalg.inv(found.set_up)
    told: dict[str, object] = {
        "set_up": {"by": found.by, "matrix": found.set_up.tolist(), **_pose_words(pose(found.set_up, middle))},
        "rigid_rest": _pose_words(pose(there @ rest, there[:3, :3] @ middle + there[:3, 3])),
        "registration": {
            key: value for key, value in vars(registration).items() if key not in ("deformation", "start", "converged", "refusals")
        },
        "structures": {one.name: _structure_words(one, carried.case, found.direct) for one in carried.structures},
        "direct": bool(found.direct),
        "figures": list(FIGURES),
        "left_aside": list(given.left_aside),
    }
    if points is not None:
        told["landmarks"] = {name: asdict(one) for name, one in landmark_errors(points, found.set_up, field).items()}
    if doses.day is not None:
        told["dose_note"] = doses.day.note
        told["dose_by"] = doses.day.by
    if doses.today is not None:
        told["doses"] = {"planned": _figures(doses.planned), "today": _figures(doses.today)}
    if doses.total is not None:
        total = doses.total
        visits = [_warped_words(one) for one in total.accumulated.visits]
        both = {"planned": _figures(total.planned), "given": _figures(total.plan)}
        told["sum"] = {"share": total.share, "visits": visits, "missing": dict(total.missing), **both}
    return told


def _pose_words(one: Pose) -> dict[str, object]:
    return {**asdict(one), "length_mm": one.length_mm, "angle_degrees": one.angle_degrees}


def _structure_words(one: Carried, case: Case, direct: Mapping[str, Volume]) -> dict[str, object]:
    from oncontour.metrics.overlap import dsc

    change = 100 * (one.carried_cc / one.planned_cc - 1) if one.planned_cc > 0 else None
    length = None if one.moved_mm is None else float(np.linalg.norm(one.moved_mm))
    agreed = float(dsc(direct[one.name], case.mask(one.name))) if one.name in direct else None
    return {**asdict(one), "change_percent": change, "length_mm": length, "direct_dsc": agreed}


def _figures(plan: Plan | None) -> dict[str, dict[str, float | None]]:
    """Structure -> FIGURES in Gy, None for one that does not exist."""
    from oncontour.dose.metric_names import parse

    if plan is None:
        return {}
    return {
        name: {key: None if (value := one.figure(parse(key), None)) != value else float(value) for key in FIGURES}
        for name, one in plan.dvhs.items()
    }


def warnings_of(told: report.Record, carried: Propagated, found: Found, doses: Doses, failed: Sequence[str]) -> list[str]:
    said = [text for text in found.registration.problems if text not in found.registration.refusals]
    said += [
        f"{one.name}: {one.beyond_percent:.0f} % of it lies beyond the CT of the day and could not be carried."
        for one in carried.structures
        if one.beyond_percent > 0.5
    ]
    said += [doses.day.note] if doses.day is not None else ["There is no dose in either visit: contours alone."]
    return [*said, *failed]


def notes_of(given: Given, planning: Path, daily: Path) -> list[str]:
    notes = [f"Of the planning CT: {anonymous(note, planning, given.planning)}" for note in given.planning.notes]
    notes += [anonymous(note, daily, given.daily) for note in given.daily.notes]
    if given.left_aside:
        notes.append(f"Contours that came with the daily CT were left aside: {', '.join(given.left_aside)}.")
    return list(dict.fromkeys(notes))


def table(told: report.Record) -> str:
    """Each structure with what changed, and its mean dose planned and today where there is one."""
    doses: Mapping[str, Any] = told.get("doses") or {}
    head = ["structure", "carried", "planned cc", "today cc", "moved mm", *(["planned Gy", "today Gy"] if doses else [])]
    lines = []
    for name, one in told["structures"].items():
        cells = [name, one["how"], f"{one['planned_cc']:.1f}", f"{one['carried_cc']:.1f}"]
        cells.append("-" if one["length_mm"] is None else f"{one['length_mm']:.1f}")
        for when in ("planned", "today") if doses else ():
            mean = doses[when].get(name, {}).get("Dmean")
            cells.append("-" if mean is None else f"{mean:.2f}")
        lines.append(cells)
    widths = [max(len(row[n]) for row in (head, *lines)) for n in range(len(head))]
    rows = [
        "  ".join(c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))) for row in (head, *lines)
    ]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:], *(["Gy: mean dose"] if doses else [])])


def integral_words(one: report.Record) -> str:
    before, after, change = one["integral_before"], one["integral_after"], one["change_percent"]
    return f"dose of visit {one['visit']} warped to planning: integral dose {before:.4g} to {after:.4g} Gy litres ({change:+.2f} %)"
