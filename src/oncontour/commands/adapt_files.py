"""The files of ``oncontour adapt``: RTSTRUCT, registration, doses, page and record, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncontour import report
from oncontour.commands.adapt_dose import KNOWN, WARPED, Doses
from oncontour.commands.adapt_find import Found
from oncontour.commands.adapt_inputs import Given
from oncontour.result import PAGE, RECORD, Clock, finish, result_folder

if TYPE_CHECKING:
    from oncontour.adapt.propagate import Propagated

RTSTRUCT, REGISTRATION, DOSE, SUM = "rtstruct.dcm", "registration.dcm", "dose.dcm", "dose_sum.dcm"
FILES = (RTSTRUCT, REGISTRATION, DOSE, WARPED, KNOWN, SUM, PAGE, RECORD)


def write(
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
    from oncontour.io.dicom.registration import write_deformable
    from oncontour.io.dicom.rtdose_read import DoseKind
    from oncontour.io.dicom.rtdose_write import Moved, write_rtdose
    from oncontour.io.dicom.rtstruct import names_written, write_rtstruct
    from oncontour.io.image.nifti import write_image

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
        ),
    ]
    if doses.day is None or doses.warped is None:
        return written
    kind = doses.day.facts.get("rtdose")
    put = partial(write_rtdose, bits=16, kind=DoseKind(kind.type if isinstance(kind, DoseKind) else "PHYSICAL"))
    if doses.day.by == "carried":
        note = "Planned dose moved by the set-up; not recalculated"
        written.append(put(doses.day.dose, folder / DOSE, source=given.daily_source, comment=note, moved=Moved("RIGID")))
    back = partial(put, source=given.planning_source, moved=Moved("NON_RIGID", folder / REGISTRATION))
    note = f"Dose of a visit on the planning CT; part {doses.day.share:.4g} of plan"
    written.append(back(doses.warped.dose, folder / WARPED, comment=note))
    written.append(write_image(doses.warped.known, folder / KNOWN))
    if doses.total is not None:
        total = doses.total.accumulated
        written.append(back(total.dose, folder / SUM, comment=f"Sum of {len(total.visits)} visits on the planning CT"))
    return written


def _pictures(
    given: Given, found: Found, carried: Propagated, doses: Doses, rows: Sequence[report.Row], told: report.Record
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
