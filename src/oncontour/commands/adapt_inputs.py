"""What ``oncontour adapt`` is given: two CTs of one patient, registrations of other programs, landmarks; what does not fit is refused.

read_pair(...)        the planning and the daily case, and why one may doubt that they belong together
read_registrations()  the set-up and the field that REG files hold
read_landmarks()      points of the day with their place in planning
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.simulate import DAILY, PLANNING
from oncontour.core.case import BitMasks, Case
from oncontour.core.geometry import Floats
from oncontour.core.notes import NoteCode, because
from oncontour.core.structure_kinds import is_target
from oncontour.errors import FormatError, InputError, OncontourError
from oncontour.io.dicom.source import DicomSource

FIELD_MM = 2.5
"""Voxels in which another program's field is used, no finer than the daily CT's."""


@dataclass(frozen=True, eq=False)
class Given:
    """The two visits (cases "planning" and "daily", the second without contours) with their DICOM sources, and ``doubts`` that they are
    what they are said to be."""

    planning: Case
    daily: Case
    planning_source: DicomSource
    daily_source: DicomSource
    left_aside: tuple[str, ...]
    """structures that came with the daily CT"""
    doubts: tuple[str, ...]
    registrations: tuple[str, ...] = ()
    """a sentence on REGs that lie in the two folders and were not asked for"""

    @property
    def days(self) -> int | None:
        """Days from the planning CT to that of the day; None where a date is missing or none."""
        try:
            before, after = (date.fromisoformat(_written(_date(one))) for one in (self.planning_source, self.daily_source))
        except ValueError:
            return None
        return (after - before).days

    @property
    def one_frame(self) -> bool:
        """Whether both CTs name one frame of reference."""
        return self.planning_source.frame_of_reference_uid == self.daily_source.frame_of_reference_uid


def read_pair(planning: Path, daily: Path, doses: Sequence[str] = (), daily_doses: Sequence[str] = ()) -> Given:
    """Both visits, read from DICOM.

    Raises InputError where one has no CT or is no DICOM, where planning has no contours, both are one CT, or of two PatientIDs."""
    before, source = _read(planning, PLANNING, doses)
    day, its_source = _read(daily, DAILY, daily_doses)
    if not before.structures:
        why = because(before.notes, NoteCode.STRUCTURES_LEFT_OUT)
        raise InputError(f"the planning CT has no contours to carry{why}", where=str(planning), hint="put its RTSTRUCT beside it")
    if source.series_uid == its_source.series_uid:
        raise InputError("planning and daily CT are one series", where=str(daily), hint="give the folder of the CT of the day second")
    one, other = source.patient.get("PatientID", ""), its_source.patient.get("PatientID", "")
    if one and other and one != other:
        raise InputError(
            "the two CTs are of two patients: their PatientIDs differ",
            where=str(daily),
            hint="give both visits of one patient; where an export renamed one, export both alike",
        )
    return Given(before, day.without_structures(), source, its_source, day.structures, tuple(_doubts(source, its_source)))


def with_masks(given: Given, names: Sequence[str]) -> Given:
    """``given`` with these structures of planning, and its targets, as packed masks alone: contours are filled once, and both DVHs that are
    compared are of voxels."""
    planning = given.planning
    kept = [name for name in planning.structures if name in names or is_target(name)]
    return replace(given, planning=replace(planning, masks=BitMasks.packed(kept, planning.geometry, planning.mask), contours={}))


def _doubts(planning: DicomSource, daily: DicomSource) -> list[str]:
    before, after = _date(planning), _date(daily)
    if before and after and after < before:
        return [f"the visits seem swapped: the daily CT is of {_written(after)}, before the planning CT of {_written(before)}"]
    return []


def _date(source: DicomSource) -> str:
    return source.series.get("SeriesDate", "") or source.study.get("StudyDate", "")


def _written(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}"


def _read(folder: Path, id: str, doses: Sequence[str]) -> tuple[Case, DicomSource]:
    from oncontour.io import read

    case = read(folder, id=id, doses=doses, lenient=True)
    if "ct" not in case.images:
        raise InputError(
            f"no CT is here, only {', '.join(case.images) or 'contours'}", where=str(folder), hint="give the folder of a CT series"
        )
    if not isinstance(case.source, DicomSource):
        raise InputError(
            "what is written is DICOM, and this CT is none", where=str(folder), hint="convert it with 'oncontour convert' first"
        )
    return case, case.source


# ---- registrations of other programs


@dataclass(frozen=True, eq=False)
class Registrations:
    """What REG files say: the 4x4 ``set_up`` from points of the day to planning points, and the ``field``; None where they do not."""

    set_up: Floats | None = None
    field: Deformation | None = None


def read_registrations(paths: Sequence[Path], given: Given) -> Registrations:
    """The set-up of a Spatial Registration and the field of a Deformable one, from the daily to the planning CT.

    Raises FormatError for a file that is neither, InputError for two of a kind and for one between other frames of reference, GeometryError
    for a set-up that stretches and for a field that is not defined on all of the daily CT.
    """
    from oncontour.adapt.levels import in_voxels
    from oncontour.io.dicom.header import read_header
    from oncontour.io.dicom.registration import DEFORMABLE, read_deformable, read_spatial

    found = Registrations()
    day, planning = given.daily_source.frame_of_reference_uid, given.planning_source.frame_of_reference_uid
    for path in paths:
        file = read_header(path, ("SOPClassUID", "SOPInstanceUID"))
        deformable = file is not None and file.sop_class_uid == DEFORMABLE
        if (found.field if deformable else found.set_up) is not None:
            raise InputError("two registrations of one kind", where=str(path), hint="give one rigid and one deformable REG at most")
        if not deformable:
            found = Registrations(_rigid(read_spatial(path).between(day, planning), path), found.field)
            continue
        read = read_deformable(path, planning)
        if read.registered != day:
            raise InputError(
                f"the field starts from the frame of reference {read.registered}, the daily CT has {day}",
                where=str(path),
                hint="export the registration whose registered image is the daily CT and whose source is the planning CT",
            )
        grid = in_voxels(given.daily.ct.geometry, FIELD_MM)
        found = Registrations(found.set_up, Deformation(read.displacement(grid), DAILY, PLANNING))
    return found


def note_registrations(given: Given, daily: Path, used: Sequence[Path]) -> Given:
    """``given`` with a sentence on each REG between the two frames of reference that lies in the ``daily`` folder and is not ``used``: it
    is not taken unasked, as nobody said that it is right."""
    return replace(given, registrations=tuple(_lying(given, daily, {path.resolve() for path in used})))


def _lying(given: Given, folder: Path, known: set[Path]) -> Iterator[str]:
    from oncontour.io.dicom.registration import SPATIAL
    from oncontour.io.dicom.scan import scan

    frames = {given.daily_source.frame_of_reference_uid, given.planning_source.frame_of_reference_uid}
    for one in scan(folder):
        rigid = one.files[0].sop_class_uid == SPATIAL if one.kind == "REG" else False
        between = frames <= set(one.referenced_frames) if rigid else one.frame_of_reference_uid in frames
        if one.kind == "REG" and one.path.resolve() not in known and between:
            what = "Spatial Registration, the set-up," if rigid else "Deformable Spatial Registration"
            yield (f"A {what} of these CTs lies in the folder of the daily CT and was not used: to take it, give its file with --reg.")


def _rigid(matrix: Floats, path: Path) -> Floats:
    turn = matrix[:3, :3]
    if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
        raise FormatError("the registration stretches or shears: it is no set-up", where=str(path), hint="export the rigid registration")
    return matrix


def read_landmarks(path: Path) -> Floats:
    """(n, 2, 3) LPS mm: each point of the day and its place in planning, from a CSV of six columns (x, y, z of the day, x, y, z of
    planning) with or without a heading. Raises FormatError for anything else."""
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
        skip = int(bool(rows) and not _is_number(rows[0][0]))
        points = np.array([[float(cell) for cell in row] for row in rows[skip:]], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise FormatError(f"no landmarks can be read ({error})", where=str(path), hint="six numbers a line, separated by commas") from error
    if points.ndim != 2 or points.shape[1] != 6 or not np.isfinite(points).all():
        raise FormatError(
            f"landmarks are six numbers a line, not {points.shape}", where=str(path), hint="x,y,z of the day, x,y,z of planning"
        )
    return points.reshape(-1, 2, 3)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse(doubts: Sequence[str], in_doubt: bool, error: type[OncontourError] = InputError) -> None:
    """Raise ``error`` with all ``doubts`` in one sentence, unless the user goes on ``in_doubt``."""
    if doubts and not in_doubt:
        raise error(
            "; ".join(doubts), hint="look at both CTs; where they are right all the same go on with --in_doubt, and every result says so"
        )
