"""``oncontour adapt``: the contours and the dose of the planning CT on the CT of the day, and why one may trust them.

read and refuse (adapt_inputs) -> register, or a model's field -> carry the structures -> the dose of the day (adapt_dose)
    -> RTSTRUCT, registration, doses, page and record, all or nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour import report
from oncontour.commands.adapt_choose import Asked, check_asked, outlines
from oncontour.commands.adapt_dose import doses_of, share_of
from oncontour.commands.adapt_earlier import read_earlier
from oncontour.commands.adapt_files import FILES, write
from oncontour.commands.adapt_find import Found, box_of, doubts_of, find
from oncontour.commands.adapt_inputs import Given, note_registrations, read_landmarks, read_pair, read_registrations, refuse, with_masks
from oncontour.commands.adapt_record import course_of, integral_words, landmark_lines, notes_of, record_of, table, warnings_of
from oncontour.core.case import Case
from oncontour.errors import ConfigError, OutputError
from oncontour.libraries import need
from oncontour.progress import Progress, tell
from oncontour.result import RECORD, Clock, check_out

if TYPE_CHECKING:
    from oncontour.adapt.propagate import Propagated


@dataclass(frozen=True, eq=False)
class Result:
    """What became of the day: the case with the carried structures, what ``report.json`` holds, and where it all lies."""

    case: Case
    record: report.Record
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
        if lines := landmark_lines(told):
            blocks.append("\n".join(lines))
        blocks.append(table(told))
        if told.get("sum"):
            blocks.append("\n".join(integral_words(one) for one in told["sum"]["visits"]))
        elif self.record.get("accumulation"):
            blocks.append(integral_words(self.record["accumulation"]))
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
    choose: Asked = "card",
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
    registration of a planning system is taken where it is given (--reg). A model also draws organs on the CT of the day by itself; which of
    the two outlines is written, its card or --choose says, and where they disagree is a place to look at. Organs are deformed; targets are
    carried by the set-up alone and keep their shape unless --targets deformed. The dose of the day is the RTDOSE that lies with the daily
    CT; without one the planned dose is carried rigidly by the set-up, which is no recalculation, as every result says. With --add the
    doses of earlier visits, as their results hold them, are summed with this one on the planning CT, and charts show the course.

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
        choose: which outline of an organ is written, where a model draws its own beside the carried one: card (the one that was better in
            the model's training), propagated, direct, or score (the one that the quality model scores higher; carried where it scores none)
        structures: only these (TG-263 names, separated by commas)
        dose: SOPInstanceUID or file of the planned RTDOSE that is meant, where there are several
        daily_dose: the same of the daily CT's
        fractions: how many fractions were given on this anatomy; that part of the plan's dose counts in the sum, without it all
        planned_fractions: how many the plan has, where no RTPLAN tells
        add: the OUT of an earlier visit, carried to the same planning CT; again for several
        in_doubt: go on although the visits seem swapped or the CTs not to be of one patient; every result says so
        about: a sentence to be read before anything else; on top of screen and page, and in report.json
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    need("torch", "oncontour adapt")
    _guard(out, planning, daily, [*(reg or ()), *(add or ()), *([landmarks] if landmarks else ())], overwrite)
    check_asked(choose, model)
    clock, failed = Clock(), list[str]()
    with clock("read"):
        given = note_registrations(read_pair(planning, daily, dose or (), daily_dose or ()), daily, reg or ())
        refuse(given.doubts, in_doubt)
        names = _chosen(given.planning, structures)
        given = with_masks(given, names)
        theirs = read_registrations(reg or (), given)
        points = None if landmarks is None else read_landmarks(landmarks)
        share = share_of(given.planning, given.daily, fractions, planned_fractions)
        earlier = read_earlier(add or (), given)
    tell(progress, 0.1)
    with clock("register"):
        found = find(given, theirs, model)
        middle = box_of(given.planning, names).mean(axis=0)
        doubts = [*given.doubts, *doubts_of(given, found, middle)]
        refuse(doubts, in_doubt)
    tell(progress, 0.6)
    with clock("carry"):
        chosen = outlines(given, _carry(given, found, targets, names), found, choose)
        carried = chosen.carried
    tell(progress, 0.7)
    with clock("dose"):
        doses = doses_of(given, carried, found, share, [one.dose for one in earlier], failed)
    tell(progress, 0.9)
    rows = report.rows(carried.case, names)
    settings = {"targets": targets, "choose": choose, "structures": structures, "in_doubt": in_doubt, "fractions": fractions}
    course = course_of(given, carried, doses, [one.point for one in earlier])
    told = record_of(given, found, chosen, doses, rows, middle, points, settings, course)
    banner = f"Carried although there is doubt: {'; '.join(doubts)}." if doubts else ""
    told |= {key: words for key, words in (("banner", banner), ("about", about)) if words}
    told["warnings"] = [*([banner] if banner else []), *warnings_of(chosen, found, doses, failed), *told["warnings"]]
    told["input"]["notes"] = notes_of(given, planning, daily)
    write(given, found, chosen, doses, rows, told, course, out, overwrite, clock)
    tell(progress, 1.0)
    return Result(carried.case, told, out)


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


def _carry(given: Given, found: Found, targets: Literal["rigid", "deformed"], names: Sequence[str]) -> Propagated:
    from oncontour.adapt.propagate import propagate

    return propagate(given.planning, given.daily, found.registration.deformation, set_up=found.set_up, targets=targets, names=names)
