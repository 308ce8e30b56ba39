"""What earlier visits left in their result folders for ``oncontour adapt --add``: their doses on the planning CT, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oncontour import report
from oncontour.adapt.accumulate import WarpedDose
from oncontour.commands.adapt_dose import KNOWN, WARPED, grid_of, sha256_of
from oncontour.commands.adapt_inputs import Given
from oncontour.core.geometry import Geometry
from oncontour.documents import read_json
from oncontour.errors import InputError
from oncontour.learn.card import is_number
from oncontour.report.course import Figures, Point
from oncontour.result import RECORD, pseudonym

_HINT = "give the --out of an earlier visit"


@dataclass(frozen=True, eq=False)
class Earlier:
    """An earlier visit: its ``dose`` on the planning CT with the share of a plan that it is, and its ``point`` in the course of visits."""

    dose: tuple[WarpedDose, float]
    point: Point


def read_earlier(folders: Sequence[Path], given: Given) -> list[Earlier]:
    """What earlier visits left in their result folders.

    Raises InputError for a folder that holds none or a damaged one, for another planning CT or grid, and a visit that would count twice.
    """
    found: list[Earlier] = []
    visit, planning_sha256, grid = pseudonym(given.daily), sha256_of(given), grid_of(given.planning)
    for folder in folders:
        told = read_json(folder / RECORD) if (folder / RECORD).is_file() else None
        part = told.get("accumulation") if isinstance(told, dict) else None
        if not isinstance(told, dict) or not isinstance(part, dict) or not (folder / WARPED).is_file():
            raise InputError("this is no result of 'oncontour adapt' with a dose", where=str(folder), hint=_HINT)
        _check(part, folder)
        if part["planning_sha256"] != planning_sha256:
            raise InputError("this visit was carried to another planning CT", where=str(folder), hint="add visits of one planning CT")
        if part["visit"] in (visit, *(one.dose[0].visit for one in found)):
            raise InputError("this visit would count twice", where=str(folder), hint="add each earlier visit once")
        found.append(Earlier((_dose(folder, part, grid), float(part["share"])), _point(told)))
    return found


def _point(told: report.Record) -> Point:
    """The figures of a visit; of a record that holds none a point without structures, which leaves a gap in the charts."""
    adapted = told.get("adapt")
    visit = adapted.get("visit") if isinstance(adapted, dict) else None
    visit = visit if isinstance(visit, dict) else {}
    structures, day = visit.get("structures"), visit.get("day")
    rows = {name: one for name, one in structures.items() if isinstance(one, dict)} if isinstance(structures, dict) else {}
    keys = ("volume_cc", "moved_mm", "dose_gy")
    held = {name: Figures(*(one[key] if is_number(one.get(key)) else None for key in keys)) for name, one in rows.items()}
    return Point(day if isinstance(day, int) else None, held)


def _check(part: report.Record, folder: Path) -> None:
    """Raises InputError where the record of a visit lacks what a sum needs, or holds something else there."""
    wrong = [key for key in ("visit", "planning_sha256") if not isinstance(part.get(key), str)]
    wrong += [key for key in ("share", "integral_before", "integral_after") if not is_number(part.get(key))]
    wrong += ["share"] if "share" not in wrong and not 0 < part["share"] <= 1 else []
    if wrong:
        raise InputError(
            f"the record of this visit is damaged: its accumulation has no usable {', '.join(wrong)}",
            where=str(folder / RECORD),
            hint="adapt that visit again",
        )


def _dose(folder: Path, part: report.Record, grid: Geometry) -> WarpedDose:
    from oncontour.io.dicom.rtdose import read_rtdose
    from oncontour.io.image.nifti import read_image

    if not (folder / KNOWN).is_file():
        raise InputError(f"{KNOWN} is missing, which says where the dose is known", where=str(folder), hint="adapt that visit again")
    dose, known = (volume.stored_on(grid) for volume in (read_rtdose(folder / WARPED)[0], read_image(folder / KNOWN)))
    if dose is None or known is None:
        raise InputError(
            "the dose of this visit lies on another grid", where=str(folder), hint="adapt that visit again with this planning dose"
        )
    return WarpedDose(part["visit"], dose, known.binary(), float(part["integral_before"]), float(part["integral_after"]))
