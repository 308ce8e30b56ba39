"""The files of ``oncontour adapt``: RTSTRUCT, registration, doses, page and record, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncontour import report
from oncontour.commands.adapt_choose import Outlines
from oncontour.commands.adapt_dose import KNOWN, WARPED, Doses
from oncontour.commands.adapt_find import Found
from oncontour.commands.adapt_inputs import Given
from oncontour.result import PAGE, RECORD, Clock, finish, result_folder

if TYPE_CHECKING:
    from oncontour.adapt.propagate import Propagated
    from oncontour.io.dicom.source import DicomSource
    from oncontour.report.course import Point

RTSTRUCT, REGISTRATION, DOSE, SUM = "rtstruct.dcm", "registration.dcm", "dose.dcm", "dose_sum.dcm"
HOW = {
    "deformed": "Carried from the planning CT, deformed",
    "rigid": "Carried from the planning CT, rigid",
    "direct": "Drawn by a model on the CT of the day",
}
FILES = (RTSTRUCT, REGISTRATION, DOSE, WARPED, KNOWN, SUM, PAGE, RECORD)


def write(
    given: Given,
    found: Found,
    chosen: Outlines,
    doses: Doses,
    rows: list[report.Row],
    told: dict[str, Any],
    course: Sequence[Point],
    out: Path,
    overwrite: bool,
    clock: Clock,
) -> None:
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        with clock("write"):
            written = _write_dicom(given, found, chosen.carried, doses, rows, told, folder)
        with clock("draw"):
            section, figures = _pictures(given, found, chosen, doses, rows, told, course)
        finish(folder, told, chosen.carried.case, rows, written, clock, figures, section)


def _write_dicom(
    given: Given, found: Found, carried: Propagated, doses: Doses, rows: Sequence[report.Row], told: dict[str, Any], folder: Path
) -> list[Path]:
    from oncontour.io.dicom.registration import write_deformable
    from oncontour.io.dicom.rtdose_read import DoseKind
    from oncontour.io.dicom.rtdose_write import Moved, write_rtdose
    from oncontour.io.dicom.rtstruct import names_written, write_rtstruct
    from oncontour.io.image.nifti import write_image

    names = [row.name for row in rows]
    renamed = [f"{name} is called {called} in {RTSTRUCT}" for name, called in names_written(names).items() if called != name]
    told["warnings"] += [f"{text}: its name is too long, or has letters that DICOM has not" for text in renamed]
    sets = given.planning.facts.get("structure_sets", ())
    how = {one.name: HOW[one.how] for one in carried.structures}
    written = [
        write_rtstruct(
            carried.case,
            folder / RTSTRUCT,
            structures=names,
            description="Draft by oncontour, to be reviewed: structures of the planning CT carried to the CT of the day.",
            generation=f"oncontour {told['versions'].get('oncontour', '')} registration",
            colours={row.name: row.colour for row in rows},
            observations={name: f"{how[name]}; to be reviewed." for name in names},
            predecessor=sets[0] if sets else "",
        ),
        write_deformable(
            found.registration.deformation.displacement,
            folder / REGISTRATION,
            registered=given.daily_source,
            source=given.planning_source,
            description="From the CT of the day to the planning CT",
        ),
    ]
    if doses.day is None or doses.warped is None:
        return written
    kind = doses.day.facts.get("rtdose")
    put = partial(write_rtdose, bits=16, kind=DoseKind(kind.type if isinstance(kind, DoseKind) else "PHYSICAL"))
    if doses.day.by == "carried":
        note = "Planned dose moved by the set-up; not recalculated"
        written.append(put(doses.day.dose, folder / DOSE, source=given.daily_source, comment=note, moved=Moved("RIGID")))
    back = partial(put, source=_on_planning(given), moved=Moved("NON_RIGID", folder / REGISTRATION))
    note = f"Dose of a visit on the planning CT; part {doses.day.share:.4g} of plan"
    written.append(back(doses.warped.dose, folder / WARPED, comment=note))
    written.append(write_image(doses.warped.known, folder / KNOWN))
    if doses.total is not None:
        total = doses.total.accumulated
        written.append(back(total.dose, folder / SUM, comment=f"Sum of {len(total.visits)} visits on the planning CT"))
    return written


def _on_planning(given: Given) -> DicomSource:
    """The planning CT to refer to by what was made of the day too: synthetic where the day is."""
    mark = {key: value for key, value in given.daily_source.series.items() if key == "SyntheticData"}
    return replace(given.planning_source, series={**given.planning_source.series, **mark})


def _pictures(
    given: Given,
    found: Found,
    chosen: Outlines,
    doses: Doses,
    rows: Sequence[report.Row],
    told: report.Record,
    course: Sequence[Point],
) -> tuple[str, dict[str, str]]:
    """(the section of the page, its other figures)."""
    from oncontour.adapt.inputs import seen_of
    from oncontour.report import adapt as page
    from oncontour.report.compare import compared
    from oncontour.report.course import svg as course_svg
    from oncontour.report.dvh import svg

    colours = {row.name: row.colour for row in rows}
    centres = [row.centre_mm for row in rows if row.centre_mm is not None]
    images = page.Images(
        today=given.daily.ct,
        planning=given.planning.ct,
        deformation=found.registration.deformation,
        set_up=found.set_up,
        planned=given.planning,
        propagated=chosen.propagated,
        direct=chosen.direct,
        colours=colours,
        point_mm=[float(v) for v in np.mean(centres, axis=0)] if centres else list(given.daily.ct.geometry.centre_mm),
        body=seen_of(given.daily.ct),
    )
    drawn = page.pictures(images)
    if course:
        drawn["course"] = course_svg(course)
    section = page.section(told["adapt"], drawn, compared(images), report.inline)
    figures = {}
    if doses.today is not None:
        marks = {name: target.prescription_gy for name, target in doses.today.targets.items()}
        before = {} if doses.planned is None else doses.planned.dvhs
        figures["dvh"] = svg(doses.today.dvhs, prescriptions_gy=marks, before=before)
    return section, figures
