"""The demo's patient a week later: a simulated CT of the day, to which ``oncontour adapt`` carries contours and dose.

OUT/week/planning   the patient as DICOM, with all structures and the dose
OUT/week/daily      the simulated CT, marked as synthetic
OUT/week/result     what 'oncontour adapt' makes of the two
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import oncontour.adapt  # noqa: F401 (says how threads wait, before the risk loads torch)
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.documents import read_json
from oncontour.errors import InputError, OutputError
from oncontour.files import as_output_error, writing_folder
from oncontour.io.dicom.patient_write import check_replaceable
from oncontour.result import RECORD, check_out

if TYPE_CHECKING:
    from oncontour.commands.adapt import Result

ABOUT = (
    "The CT of the day is SIMULATED: the planning CT deformed as heads and necks are from day to day, with noise of its own and the couch "
    "elsewhere. Nobody was scanned again, and no figure here is one of a patient."
)
AMPLITUDE = 0.8
COUCH_MM = (4.0, -3.0, 2.0)
"""Where the patient lies a week later: to the left, to anterior, to superior."""
MODEL = "hn-adapt"
"""Used where it is shipped; else the two CTs are registered by their images alone."""


def folders(out: Path) -> tuple[Path, Path, Path]:
    """(planning, daily, result) of the week later."""
    week = out / "week"
    return week / "planning", week / "daily", week / "result"


def check_ours(out: Path) -> None:
    """Raises OutputError, before anything is written, where one of these folders is a link or holds what no demo made."""
    from oncontour.commands.adapt_files import FILES

    planning, daily, result = folders(out)
    for folder in (out / "week", planning, daily, result):
        if folder.is_symlink():
            raise OutputError(
                "this is a link, and a demo replaces its own folders alone", where=str(folder), hint="choose a new folder as --out"
            )
    for folder in (planning, daily):
        check_replaceable(folder)
    if result.parent.exists():
        check_out(result, (), FILES, overwrite=True, of="the demo's patient a week later")
    check_made_by_demo((result, planning, daily), about(result) == ABOUT)


def check_made_by_demo(kept: Sequence[Path], made: bool) -> None:
    """Raises OutputError where one of ``kept`` holds something and no demo ``made`` it."""
    held = [folder for folder in kept if folder.exists() and any(folder.iterdir())]
    if held and not made:
        raise OutputError("this was not made by a demo, which would replace it", where=str(held[0]), hint="choose a new folder as --out")


def about(result: Path) -> object:
    """The sentence that stands first in a result's record, as in that of every demo; None where there is none."""
    try:
        record = read_json(result / RECORD)
    except InputError:
        return None
    return record.get("about") if isinstance(record, dict) else None


def clear(out: Path) -> None:
    """Take away what an earlier demo left there, which ``check_ours`` has looked at: it would stand beside another patient. Raises
    OutputError where the system refuses."""
    for folder in folders(out):
        if folder.exists():
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise as_output_error(error, folder) from error
    with contextlib.suppress(OSError):  # not empty, or never there
        (out / "week").rmdir()


def week_later(case: Case, out: Path) -> Result:
    """The contours and the dose of ``case`` on a simulated CT of a week later; replaces what an earlier demo left there."""
    from oncontour.adapt.simulate import Planning, VisitSettings
    from oncontour.commands.adapt import adapt
    from oncontour.io import write
    from oncontour.io.dicom.derived import write_simulated
    from oncontour.learn.card import offered

    planning, daily, result = folders(out)
    write(case, planning, format="dicom")
    simulated = Planning(case).visit(1, VisitSettings(AMPLITUDE)).case.ct
    with writing_folder(daily) as folder:
        write_simulated(_moved(simulated), folder / "CT", {"PatientID": case.id, "PatientName": case.id})
    model = MODEL if MODEL in offered("adapt") else None
    return adapt(planning, daily, out=result, model=model, about=ABOUT, overwrite=True)


def _moved(ct: Volume) -> Volume:
    affine = np.array(ct.geometry.affine)
    affine[:3, 3] += COUCH_MM
    return Volume(ct.array, Geometry(ct.geometry.shape, affine))
