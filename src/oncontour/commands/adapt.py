"""``oncontour adapt``: the contours and the dose of the planning CT on the CT of the day, and why one may trust them.

read and refuse (adapt_inputs) -> register, or a model's field -> carry the structures -> the dose of the day (adapt_dose)
    -> RTSTRUCT, registration, doses, page and record, all or nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oncontour import report
from oncontour.commands.adapt_inputs import Given, Registrations, read_landmarks, read_pair, read_registrations, refuse
from oncontour.core.case import Case
from oncontour.core.geometry import Floats
from oncontour.core.notes import NoteCode, about
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError, ModelError, OutputError
from oncontour.learn.card import card_words
from oncontour.progress import Progress
from oncontour.result import PAGE, RECORD, Clock, anonymous, check_out, finish, pseudonym, record, result_folder, sha256

if TYPE_CHECKING:
    from oncontour.adapt.accumulate import WarpedDose
    from oncontour.adapt.propagate import Propagated
    from oncontour.adapt.register import Registration
    from oncontour.commands.adapt_dose import DayDose, Sum
    from oncontour.commands.dvh import Plan

RTSTRUCT, REGISTRATION, DOSE, WARPED, KNOWN, SUM = (
    *("rtstruct.dcm", "registration.dcm", "dose.dcm"),
    *("dose_on_planning.dcm", "dose_known.nii.gz", "dose_sum.dcm"),
)
FILES = (RTSTRUCT, REGISTRATION, DOSE, WARPED, KNOWN, SUM, PAGE, RECORD)
FIGURES = ("Dmean", "D2%", "D98%")
"""Of the dose, planned beside today."""
ONE_FRAME_MM, ONE_FRAME_DEGREES = 10.0, 5.0
"""Two CTs of one frame of reference that need more than this to lie on each other contradict it."""


@dataclass(frozen=True, eq=False)
class Found:
    """How the day lies in planning: the registration with its field, the 4x4 ``set_up`` (day to planning) and what it is ``by``, structures
    that a model segmented directly, what the record says of that model."""

    registration: Registration
    set_up: Floats
    by: Literal["REG", "images"]
    direct: Mapping[str, Volume]
    models: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class Doses:
    """The dose of the day with its DVHs beside the planned ones, that dose on the planning CT, and the sum over visits; None where a dose is
    not there."""

    day: DayDose | None = None
    planned: Plan | None = None
    today: Plan | None = None
    warped: WarpedDose | None = None
    total: Sum | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """What became of the day: the case with the carried structures, what ``report.json`` holds, and where it all lies."""

    case: Case
    record: Mapping[str, Any]
    out: Path

    def __str__(self) -> str:
        told = self.record["adapt"]
        blocks = [self.record[key] for key in ("banner", "about") if self.record.get(key)]
        shift, reg = told["set_up"], told["registration"]
        x, y, z = shift["shift_mm"]
        blocks.append(
            f"set-up ({shift['by']}): {x:+.1f} mm left, {y:+.1f} mm posterior, {z:+.1f} mm superior, {shift['angle_degrees']:.1f} degrees\n"
            f"local correlation {reg['correlation_before']:.3f} as they lie, {reg['correlation_start']:.3f} set up, "
            f"{reg['correlation_after']:.3f} deformed; {reg['folding_percent']:.3g} % folds"
        )
        blocks.append(_table(told))
        if told.get("sum"):
            blocks.append("\n".join(_integral_words(one) for one in told["sum"]["visits"]))
        elif self.record.get("accumulation"):
            blocks.append(_integral_words(self.record["accumulation"]))
        warnings = [f"warning: {text}" for text in self.record["warnings"]]
        blocks.append("\n".join([*warnings, f"{', '.join(self.record['files'])} and {RECORD} in {self.out}"]))
        return "\n\n".join(blocks)


def adapt(
    planning: Path,
    daily: Path,
    *,
    out: Path,
    model: str | None = None,
    reg: list[Path] | None = None,
    landmarks: Path | None = None,
    targets: Literal["rigid", "deformed"] = "rigid",
    structures: list[str] | None = None,
    dose: list[str] | None = None,
    daily_dose: list[str] | None = None,
    fractions: float | None = None,
    planned_fractions: float | None = None,
    add: list[Path] | None = None,
    in_doubt: bool = False,
    about: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Carry the contours and the dose of a planning CT to the CT of the day: RTSTRUCT, registration, dose, and a report to judge them by.

    The two CTs are registered by their images alone; a model of 'oncontour train adapt' begins with what it learned (--model), and the
    registration of a planning system is taken where it is given (--reg). Organs are deformed; targets are carried by the set-up alone and
    keep their shape unless --targets deformed. The dose of the day is the RTDOSE that lies with the daily CT; without one the planned dose
    is carried rigidly by the set-up, which is no recalculation, as every result says. With --add the doses of earlier visits, as their
    results hold them, are summed with this one on the planning CT.

    Two CTs that do not seem to be of one patient, or the visits swapped, are refused. OUT appears whole at the end or not at all. No
    result holds the patient's name or birth date except the DICOM files, which must.

    Examples:
        oncontour adapt PLANNING_FOLDER DAILY_FOLDER --out OUT
        oncontour adapt PLANNING_FOLDER DAILY_FOLDER --out OUT --reg SETUP.dcm --targets deformed
        oncontour adapt PLANNING_FOLDER WEEK_2 --out OUT_2 --fractions 5 --add OUT_1

    Args:
        planning: folder with the planning CT (DICOM), its RTSTRUCT, and its RTDOSE where there is one
        daily: folder with the CT of the day (DICOM), and an RTDOSE calculated on it where there is one
        out: folder to make, not within either of these
        model: path of a model file of 'oncontour train adapt'; none by default
        reg: a registration of another program, from the daily to the planning CT: a Spatial Registration (the set-up) or a Deformable one
            (the field, which is then not sought); again for both
        landmarks: a CSV of six numbers a line: x, y, z of a point on the daily CT and of its place on the planning CT, in mm (LPS)
        targets: rigid: carried by the set-up alone; deformed: with the organs
        structures: only these (TG-263 names, separated by commas)
        dose: SOPInstanceUID or file of the planned RTDOSE that is meant, where there are several
        daily_dose: the same of the daily CT's
        fractions: how many fractions were given on this anatomy; the dose counts for that part of its plan in the sum. Without it as a whole
        planned_fractions: how many the plan has, where no RTPLAN tells
        add: the OUT of an earlier visit, carried to the same planning CT; again for several
        in_doubt: go on although the visits seem swapped or the CTs not to be of one patient; every result says so
        about: a sentence to be read before anything else; on top of screen and page, and in report.json
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    _guard(out, planning, daily, [*(reg or ()), *(add or ()), *([landmarks] if landmarks else ())], overwrite)
    clock, failed = Clock(), list[str]()
    with clock("read"):
        given = read_pair(planning, daily, dose or (), daily_dose or ())
        refuse(given.doubts, in_doubt)
        names = _chosen(given.planning, structures)
        theirs = read_registrations(reg or (), given)
        points = None if landmarks is None else read_landmarks(landmarks)
    _tell(progress, 0.1)
    with clock("register"):
        found = find(given, theirs, model)
        refuse(found.registration.refusals, in_doubt)
        middle = _middle(given.planning, names)
        _check_frame(given, found, middle, in_doubt)
    _tell(progress, 0.6)
    with clock("carry"):
        carried = _carry(given, found, targets, names)
    _tell(progress, 0.7)
    with clock("dose"):
        doses = _doses(given, carried, found, fractions, planned_fractions, add or (), failed)
    _tell(progress, 0.9)
    doubts = [*given.doubts, *found.registration.refusals]
    rows = report.rows(carried.case, names)
    told = _record(given, found, carried, doses, rows, middle, points, {"targets": targets, "structures": structures, "in_doubt": in_doubt})
    banner = f"Carried although there is doubt: {'; '.join(doubts)}." if doubts else ""
    told |= {key: words for key, words in (("banner", banner), ("about", about)) if words}
    told["warnings"] = [*([banner] if banner else []), *_warnings(told, carried, found, doses, failed), *told["warnings"]]
    told["input"]["notes"] = _notes(given, planning, daily)
    _write(given, found, carried, doses, rows, told, out, overwrite, clock, failed)
    _tell(progress, 1.0)
    return Result(carried.case, told, out)


def _tell(progress: Progress | None, part: float) -> None:
    if progress is not None:
        progress(part)


# ---- before any work


def _guard(out: Path, planning: Path, daily: Path, others: Sequence[Path], overwrite: bool) -> None:
    check_out(out, [planning, daily, *others], FILES, overwrite=overwrite, of="what is adapted")
    for folder in (planning, daily):
        if folder.resolve() in out.resolve().parents:
            raise OutputError(
                "the result would lie within a visit's folder, and be read with it the next time",
                where=str(out),
                hint="choose an --out elsewhere, beside that folder",
            )


def _chosen(planning: Case, structures: Sequence[str] | None) -> list[str]:
    if missing := [name for name in structures or () if name not in planning.structures]:
        raise ConfigError(f"planning has no structure {', '.join(missing)}", hint=f"choose among {', '.join(planning.structures)}")
    return list(structures or planning.structures)


# ---- registration


def find(given: Given, theirs: Registrations, model: str | None) -> Found:
    """How the day lies in planning: by a field that was given, by a model and what refines it, or by the images alone.

    Raises what ``adapt.register`` raises of images, ConfigError for a model and a field at once, ModelError for a model that only segments.
    """
    from oncontour.adapt.inputs import seen_of, visit_of
    from oncontour.adapt.levels import Settings
    from oncontour.adapt.register import judge, register
    from oncontour.adapt.simulate import DAILY, PLANNING

    by: Literal["REG", "images"] = "images" if theirs.set_up is None else "REG"
    fixed, moving = visit_of(given.daily, DAILY), visit_of(given.planning, PLANNING)
    if theirs.field is not None:
        if model is not None:
            raise ConfigError("a model and a field are given", hint="leave out --model, or the deformable --reg")
        field = theirs.field
        body = Volume(seen_of(given.daily.ct).to(field.geometry).array, field.geometry)
        set_up = field.rigid_part(body) if theirs.set_up is None else theirs.set_up
        return Found(judge(fixed, moving, field, set_up), set_up, by, {}, ())
    if model is not None:
        return _by_model(given, theirs, model, by)
    found = register(fixed, moving, Settings(both_ways=True), theirs.set_up)
    return Found(found, found.start, by, {}, ())


def _by_model(given: Given, theirs: Registrations, model: str, by: Literal["REG", "images"]) -> Found:
    from oncontour.adapt.inputs import seen_of
    from oncontour.adapt.levels import Settings
    from oncontour.adapt.predict import Adapter

    adapter = replace(Adapter.load(model), refine=True, refinement=Settings(both_ways=True))
    found = adapter.adapt(replace(given.daily, prior=given.planning))
    if found.registration is None:
        raise ModelError("this model segments and does not register", where=model, hint="leave out --model, or use a variant that registers")
    field = found.registration.deformation
    body = Volume(seen_of(given.daily.ct).to(field.geometry).array, field.geometry)
    set_up = field.rigid_part(body) if theirs.set_up is None else theirs.set_up
    return Found(found.registration, set_up, by, found.direct, (card_words(adapter.card),))


def _check_frame(given: Given, found: Found, middle: Floats, in_doubt: bool) -> None:
    from oncontour.adapt.figures import pose

    there = pose(found.set_up, middle)
    if given.one_frame and (there.length_mm > ONE_FRAME_MM or there.angle_degrees > ONE_FRAME_DEGREES):
        refuse(
            [
                f"both CTs name one frame of reference, and the patient lies {there.length_mm:.1f} mm and {there.angle_degrees:.1f} degrees "
                f"elsewhere on the day (at most {ONE_FRAME_MM:g} mm and {ONE_FRAME_DEGREES:g} degrees): contours and doses of the one would be "
                "taken for the other's"
            ],
            in_doubt,
        )


def _middle(planning: Case, names: Sequence[str]) -> Floats:
    """(x, y, z) of the middle of the box about all structures of planning."""
    boxes = [planning.ct.geometry.points(np.argwhere(mask.array)) for name in names if (mask := planning.mask(name)).array.any()]
    if not boxes:
        raise InputError("every structure of planning is empty", where="case planning", hint="give a planning CT with contours")
    ends = np.concatenate([np.stack([points.min(axis=0), points.max(axis=0)]) for points in boxes])
    return np.asarray((ends.min(axis=0) + ends.max(axis=0)) / 2)


def _carry(given: Given, found: Found, targets: Literal["rigid", "deformed"], names: Sequence[str]) -> Propagated:
    from oncontour.adapt.propagate import propagate

    return propagate(given.planning, given.daily, found.registration.deformation, set_up=found.set_up, targets=targets, names=names)


# ---- dose


def _doses(
    given: Given,
    carried: Propagated,
    found: Found,
    fractions: float | None,
    planned_fractions: float | None,
    add: Sequence[Path],
    failed: list[str],
) -> Doses:
    from oncontour.commands import adapt_dose as dosing

    day = dosing.of_the_day(given.planning, given.daily, found.set_up, fractions, planned_fractions)
    if day is None:
        if add or fractions is not None:
            raise InputError("there is no dose to add up", where="both visits", hint="put the RTDOSE beside the planning CT")
        return Doses()
    before = dosing.masked(given.planning, [one.name for one in carried.structures])
    planned = before.images.get("dose")
    today = dosing.plan_of(carried.case, day.dose, day.facts, failed, "the day")
    was = None if planned is None else dosing.plan_of(before, planned, given.planning.facts, failed, "the plan")
    visit, reference = pseudonym(given.daily), _sha256_of(given)
    warped = dosing.on_planning(given.planning, day, found.registration.deformation, visit)
    earlier = dosing.read_earlier(add, reference, visit, warped.dose.geometry)
    total = dosing.add_up(before, [*(one for one, _ in earlier), warped], sum(part for _, part in earlier) + day.share, failed) if add else None
    return Doses(day, was, today, warped, total)


def _sha256_of(given: Given) -> str:
    return sha256(given.planning_source.series_uid.encode())


# ---- what is told


def _record(
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
        told["accumulation"] = {**_warped_words(doses.warped), "share": doses.day.share, "planning_sha256": _sha256_of(given)}
    return told


def _warped_words(one: WarpedDose) -> dict[str, object]:
    words = {key: getattr(one, key) for key in ("visit", "integral_before", "integral_after", "change_percent")}
    return words


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
        told["sum"] = {"share": total.share, "visits": visits, "missing": dict(total.missing)}
        told["sum"] |= {"planned": _figures(total.planned), "given": _figures(total.plan)}  # type: ignore[operator]
    return told


def _pose_words(one: Any) -> dict[str, object]:
    return {**asdict(one), "length_mm": one.length_mm, "angle_degrees": one.angle_degrees}


def _structure_words(one: Any, case: Case, direct: Mapping[str, Volume]) -> dict[str, object]:
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


def _warnings(told: Mapping[str, Any], carried: Propagated, found: Found, doses: Doses, failed: Sequence[str]) -> list[str]:
    said = [text for text in found.registration.problems if text not in found.registration.refusals]
    said += [
        f"{one.name}: {one.beyond_percent:.0f} % of it lies beyond the CT of the day and could not be carried."
        for one in carried.structures
        if one.beyond_percent > 0.5
    ]
    said += [doses.day.note] if doses.day is not None else ["There is no dose in either visit: contours alone."]
    return [*said, *failed]


def _notes(given: Given, planning: Path, daily: Path) -> list[str]:
    notes = [f"Of the planning CT: {anonymous(note, planning, given.planning)}" for note in given.planning.notes]
    notes += [anonymous(note, daily, given.daily) for note in given.daily.notes]
    if given.left_aside:
        notes.append(f"Contours that came with the daily CT were left aside: {', '.join(given.left_aside)}.")
    return list(dict.fromkeys(notes))


def _table(told: Mapping[str, Any]) -> str:
    """Each structure with what changed, and its mean dose planned and today where there is one."""
    doses = told.get("doses")
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
    rows = ["  ".join(c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))) for row in (head, *lines)]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:], *(["Gy: mean dose"] if doses else [])])


def _integral_words(one: Mapping[str, Any]) -> str:
    before, after, change = one["integral_before"], one["integral_after"], one["change_percent"]
    return f"dose of visit {one['visit']} warped to planning: integral dose {before:.4g} to {after:.4g} Gy litres ({change:+.2f} %)"


# ---- writing


def _write(
    given: Given,
    found: Found,
    carried: Propagated,
    doses: Doses,
    rows: list[report.Row],
    told: dict[str, Any],
    out: Path,
    overwrite: bool,
    clock: Clock,
    failed: list[str],
) -> None:
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        with clock("write"):
            written = _write_dicom(given, found, carried, doses, rows, told, folder)
        with clock("draw"):
            section, figures = _pictures(given, found, carried, doses, rows, told)
        finish(folder, told, carried.case, rows, written, clock, figures, section)


def _write_dicom(
    given: Given, found: Found, carried: Propagated, doses: Doses, rows: Sequence[report.Row], told: dict[str, Any], folder: Path
) -> list[Path]:
    from pydicom.uid import generate_uid

    from oncontour.io.dicom.registration import DEFORMABLE, write_deformable
    from oncontour.io.dicom.rtdose_read import DoseKind
    from oncontour.io.dicom.rtdose_write import Moved, write_rtdose
    from oncontour.io.dicom.rtstruct import names_written, write_rtstruct
    from oncontour.io.image.nifti import write_image

    by = (DEFORMABLE, str(generate_uid(prefix=None)))
    names = [row.name for row in rows]
    renamed = [f"{name} is called {called} in {RTSTRUCT}" for name, called in names_written(names).items() if called != name]
    told["warnings"] += [f"{text}: its name is too long, or has letters that DICOM has not" for text in renamed]
    sets = given.planning.facts.get("structure_sets", ())
    how = {one.name: one.how for one in carried.structures}
    written = [
        write_rtstruct(
            carried.case,
            folder / RTSTRUCT,
            structures=names,
            description="Draft by oncontour, to be reviewed: structures of the planning CT carried to the CT of the day.",
            generation=f"oncontour {told['versions'].get('oncontour', '')} registration",
            colours={row.name: row.colour for row in rows},
            observations={name: f"Carried from the planning CT, {how[name]}; to be reviewed." for name in names},
            predecessor=sets[0] if sets else "",
        ),
        write_deformable(
            found.registration.deformation.displacement,
            folder / REGISTRATION,
            registered=given.daily_source,
            source=given.planning_source,
            description="From the CT of the day to the planning CT",
            uid=by[1],
        ),
    ]
    if doses.day is None or doses.warped is None:
        return written
    kind = doses.day.facts.get("rtdose")
    kind = kind if isinstance(kind, DoseKind) else DoseKind()
    whole = DoseKind(kind.type)
    if doses.day.by == "carried":
        note = "Planned dose moved by the set-up; not recalculated"
        written.append(write_rtdose(doses.day.dose, folder / DOSE, source=given.daily_source, comment=note, kind=whole, moved=Moved("RIGID")))
    warped = Moved("NON_RIGID", by)
    note = f"Dose of a visit on the planning CT; part {doses.day.share:.4g} of plan"
    written.append(write_rtdose(doses.warped.dose, folder / WARPED, source=given.planning_source, comment=note, kind=whole, moved=warped))
    written.append(write_image(doses.warped.known, folder / KNOWN))
    if doses.total is not None:
        total = doses.total.accumulated
        note = f"Sum of {len(total.visits)} visits on the planning CT"
        written.append(write_rtdose(total.dose, folder / SUM, source=given.planning_source, comment=note, kind=whole, moved=warped))
    return written


def _pictures(
    given: Given, found: Found, carried: Propagated, doses: Doses, rows: Sequence[report.Row], told: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """(the section of the page, its other figures)."""
    from oncontour.adapt.deformation import Deformation
    from oncontour.adapt.inputs import seen_of
    from oncontour.report import adapt as page
    from oncontour.report.dvh import svg

    field = found.registration.deformation
    names = [row.name for row in rows]
    coarse = field.geometry
    rigidly = Deformation.from_matrix(found.set_up, coarse, field.fixed, field.moving)
    planned = rigidly.warp_masks({name: given.planning.mask(name) for name in names}, coarse)
    centres = [row.centre_mm for row in rows if row.centre_mm is not None]
    images = page.Images(
        today=given.daily.ct,
        planning=given.planning.ct,
        deformation=field,
        set_up=found.set_up,
        carried={name: carried.case.mask(name) for name in names},
        planned=planned,
        colours={row.name: row.colour for row in rows},
        point_mm=[float(v) for v in np.mean(centres, axis=0)] if centres else list(given.daily.ct.geometry.centre_mm),
        body=seen_of(given.daily.ct),
    )
    section = page.section(told["adapt"], page.pictures(images), report.inline)
    figures = {}
    if doses.today is not None:
        marks = {name: target.prescription_gy for name, target in doses.today.targets.items()}
        before = {} if doses.planned is None else doses.planned.dvhs
        figures["dvh"] = svg(doses.today.dvhs, prescriptions_gy=marks, before=before)
    return section, figures
