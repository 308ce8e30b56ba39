"""What ``oncontour adapt`` tells: its part of report.json, the warnings, and the table on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncontour import report
from oncontour.commands.adapt_choose import Outline, Outlines
from oncontour.commands.adapt_dose import Doses, sha256_of
from oncontour.commands.adapt_find import Found
from oncontour.commands.adapt_inputs import Given
from oncontour.core.geometry import Floats
from oncontour.core.structure_kinds import is_bone, is_target
from oncontour.core.volume import Volume
from oncontour.report.course import Figures, Point, in_order
from oncontour.result import anonymous, record

if TYPE_CHECKING:
    from oncontour.adapt.accumulate import WarpedDose
    from oncontour.adapt.figures import Pose
    from oncontour.adapt.propagate import Carried, Propagated
    from oncontour.commands.dvh import Plan

FIGURES = ("Dmean", "D2%", "D98%")
"""Of the dose, planned beside today."""
BONE_PERCENT = 10.0
"""A carried bone whose volume changed by more than this is told of: bone keeps its volume from day to day."""
BEYOND_PERCENT = 0.5
"""A structure of which more than this lies beyond the CT of the day is told of, and its volume is no volume of the whole."""


def record_of(
    given: Given,
    found: Found,
    chosen: Outlines,
    doses: Doses,
    rows: Sequence[report.Row],
    middle: Floats,
    points: Floats | None,
    settings: Mapping[str, object],
    course: Sequence[Point],
) -> dict[str, Any]:
    """What report.json holds; ``course``: of ``course_of``."""
    from oncontour.commands.dvh import record as plan_record

    told = record(chosen.carried.case, rows, [*found.models, *chosen.models], settings, [])
    adapted = _adapt_record(given, found, chosen, doses, middle, points)
    adapted["visit"] = asdict(point_of(given, chosen.carried, doses))
    if course:
        adapted["course"] = [asdict(one) for one in course]
    told["adapt"] = adapted
    if doses.today is not None:
        told["dose"] = plan_record(replace(doses.today, id=told["case"]))
    if doses.planned is not None:
        told["planned_dose"] = plan_record(replace(doses.planned, id=told["case"]))
    if doses.warped is not None and doses.day is not None:
        told["accumulation"] = {**_warped_words(doses.warped), "share": doses.day.share, "planning_sha256": sha256_of(given)}
    return told


def _warped_words(one: WarpedDose) -> dict[str, object]:
    return {key: getattr(one, key) for key in ("visit", "integral_before", "integral_after", "change_percent")}


def _adapt_record(given: Given, found: Found, chosen: Outlines, doses: Doses, middle: Floats, points: Floats | None) -> dict[str, object]:
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
        "structures": {one.name: _structure_words(one, chosen.told.get(one.name)) for one in chosen.carried.structures},
        "direct": bool(chosen.told),
        "places": [one.name for one in chosen.places],
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


def _structure_words(one: Carried, outline: Outline | None) -> dict[str, object]:
    change = 100 * (one.carried_cc / one.planned_cc - 1) if one.planned_cc > 0 else None
    length = None if one.moved_mm is None else float(np.linalg.norm(one.moved_mm))
    return {**asdict(one), "change_percent": change, "length_mm": length, "outline": None if outline is None else asdict(outline)}


def course_of(given: Given, carried: Propagated, doses: Doses, earlier: Sequence[Point]) -> list[Point]:
    """Planning, the ``earlier`` visits and this one, in their order; empty where there is no earlier one."""
    return in_order([planned_point(carried, doses), *earlier, point_of(given, carried, doses)]) if earlier else []


def point_of(given: Given, carried: Propagated, doses: Doses) -> Point:
    """This visit in the course of visits."""
    gy = _course_gy(doses.today)
    return Point(
        given.days,
        {
            one.name: Figures(one.carried_cc, None if one.moved_mm is None else float(np.linalg.norm(one.moved_mm)), gy.get(one.name))
            for one in carried.structures
        },
    )


def planned_point(carried: Propagated, doses: Doses) -> Point:
    """Planning, with which the course of visits begins."""
    gy = _course_gy(doses.planned)
    return Point(0, {one.name: Figures(one.planned_cc, 0.0, gy.get(one.name)) for one in carried.structures})


def _course_gy(plan: Plan | None) -> dict[str, float]:
    """Dmean of each organ and D95% of each target in Gy, of those that have a dose."""
    from oncontour.dose.metric_names import parse

    found = {}
    for name, one in plan.dvhs.items() if plan is not None else ():
        gy = float(one.figure(parse("D95%" if is_target(name) else "Dmean"), None))
        if np.isfinite(gy):
            found[name] = gy
    return found


def _figures(plan: Plan | None) -> dict[str, dict[str, float | None]]:
    """Structure -> FIGURES in Gy, None for one that does not exist."""
    from oncontour.dose.metric_names import parse

    if plan is None:
        return {}
    return {
        name: {key: None if (value := one.figure(parse(key), None)) != value else float(value) for key in FIGURES}
        for name, one in plan.dvhs.items()
    }


def warnings_of(chosen: Outlines, found: Found, doses: Doses, failed: Sequence[str]) -> list[str]:
    said = [text for text in found.registration.problems if text not in found.registration.refusals]
    said += [
        f"{one.name}: {one.beyond_percent:.0f} % of it lies beyond the CT of the day and could not be carried."
        for one in chosen.carried.structures
        if one.beyond_percent > BEYOND_PERCENT
    ]
    said += [words for one in chosen.carried.structures if (words := stretched_words(one))]
    said += [f"Look at {place_words(one)}" for one in chosen.places]
    said += [doses.day.note] if doses.day is not None else ["There is no dose in either visit: contours alone."]
    return [*said, *failed]


def stretched_words(one: Carried) -> str:
    """What is to be known of a bone that was carried with a volume that bone cannot have; else ""."""
    if one.how != "deformed" or not is_bone(one.name) or not one.planned_cc or not one.carried_cc or one.beyond_percent > BEYOND_PERCENT:
        return ""
    change = 100 * (one.carried_cc / one.planned_cc - 1)
    if abs(change) <= BONE_PERCENT:
        return ""
    return (
        f"{one.name}: {one.planned_cc:.1f} cc planned, {one.carried_cc:.1f} cc carried ({change:+.0f} %). Bone keeps its volume from day "
        "to day: the field stretched it, or the voxels are too coarse for it. Check this contour and the structures around it."
    )


def landmark_lines(told: report.Record) -> list[str]:
    """The target registration error of the landmarks that were given, in mm, for the screen; no lines without any."""
    return [
        f"landmarks, {name}: mean {one['mean']:.2f}, median {one['median']:.2f}, 95 % {one['p95']:.2f}, worst {one['worst']:.2f} mm"
        for name, one in (told.get("landmarks") or {}).items()
    ]


def place_words(one: Outline) -> str:
    """Where and how far the two outlines of a structure lie apart."""
    where = "" if one.worst_mm is None else f", most at z = {one.worst_mm[2]:.0f} mm"
    apart = f"MSD {one.msd_mm:.1f} mm, HD95 {one.hd95_mm:.1f} mm, DSC {one.dsc:.2f}"
    return f"{one.name}: carried and segmented outline disagree ({apart}{where}); written is the {one.taken} one."


def notes_of(given: Given, planning: Path, daily: Path) -> list[str]:
    notes = [f"Of the planning CT: {anonymous(note, planning, given.planning)}" for note in given.planning.notes]
    notes += [anonymous(note, daily, given.daily) for note in given.daily.notes]
    if given.left_aside:
        notes.append(f"Contours that came with the daily CT were left aside: {', '.join(given.left_aside)}.")
    return list(dict.fromkeys([*notes, *given.registrations]))


def table(told: report.Record) -> str:
    """Each structure with what changed, and its mean dose planned and today where there is one."""
    doses: Mapping[str, Any] = told.get("doses") or {}
    head = [
        "structure",
        "carried",
        "planned cc",
        "today cc",
        "moved mm",
        *(["ways apart mm"] if told["direct"] else []),
        *(["planned Gy", "today Gy"] if doses else []),
    ]
    lines = []
    for name, one in told["structures"].items():
        cells = [name, one["how"], f"{one['planned_cc']:.1f}", f"{one['carried_cc']:.1f}"]
        cells.append("-" if one["length_mm"] is None else f"{one['length_mm']:.1f}")
        if told["direct"]:
            agreed = (one["outline"] or {}).get("msd_mm")
            cells.append("-" if agreed is None else f"{agreed:.1f}")
        for when in ("planned", "today") if doses else ():
            mean = doses[when].get(name, {}).get("Dmean")
            cells.append("-" if mean is None else f"{mean:.2f}")
        lines.append(cells)
    widths = [max(len(row[n]) for row in (head, *lines)) for n in range(len(head))]
    rows = [
        "  ".join(c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))) for row in (head, *lines)
    ]
    return "\n".join(
        [
            rows[0],
            "-" * len(rows[0]),
            *rows[1:],
            *(["Gy: mean dose"] if doses else []),
            *(["ways apart: MSD of the carried and the direct outline"] if told["direct"] else []),
        ]
    )


def integral_words(one: report.Record) -> str:
    before, after, change = one["integral_before"], one["integral_after"], one["change_percent"]
    return f"dose of visit {one['visit']} warped to planning: integral dose {before:.4g} to {after:.4g} Gy litres ({change:+.2f} %)"
