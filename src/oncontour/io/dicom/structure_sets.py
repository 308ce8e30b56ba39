"""Which structure sets and segmentations belong to the images: those that refer to them, else those in the same frame of reference.

Sources: DICOM PS3.3 C.7.4.1 (frame of reference), C.8.8.5 (RT referenced series), C.8.20 (segmentation). File names decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.notes import Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import StructureError
from oncontour.io.dicom.scan import SeriesFiles
from oncontour.io.dicom.source import SAME_FRAME_WAY, DicomSource

if TYPE_CHECKING:
    from oncontour.io.dicom.rtstruct_read import StructureSet
    from oncontour.io.dicom.seg import Segments

KINDS = ("RTSTRUCT", "SEG")
PICK_ONE = (
    "choose one with --structure_set_uid (oncontour assess, convert, dvh, risk, run; a patient of a cohort: convert it first;"
    " of --truth: give the file itself), or leave only the one that is meant there"
)


class Standing(IntEnum):
    """How near to the images an object is, the nearest first."""

    SERIES = 0
    """It refers to the series."""
    FRAME = 1
    """It lies in the frame of reference of the series, and refers to another series or to none."""
    ELSEWHERE = 2
    """It names another frame of reference, or none."""


@dataclass(frozen=True)
class Chosen:
    """The files that are meant, at most one RTSTRUCT, which comes first, and any number of SEGs; remarks."""

    files: tuple[SeriesFiles, ...]
    notes: tuple[str, ...]


def standing(file: SeriesFiles, source: DicomSource) -> Standing:
    """How near to the images of ``source`` an object is."""
    if source.series_uid in file.referenced_series:
        return Standing.SERIES
    return Standing.FRAME if source.frame_of_reference_uid in file.referenced_frames else Standing.ELSEWHERE


def choose_structure_sets(files: Sequence[SeriesFiles], source: DicomSource, uid: str | None, same_frame: bool) -> Chosen:
    """Of the RTSTRUCTs and SEGs among ``files`` those that belong to the images of ``source``.

    Those that refer to the series; where there are none, those in its frame of reference; where there are none either, and ``same_frame``
    says that a frame of reference of another name is the same, those of the same PatientID. ``uid`` (a SOPInstanceUID) names any that is
    there; the SEGs of the series then come with an RTSTRUCT still. Of several RTSTRUCTs that refer to the same series the newest is taken.

    Raises StructureError where ``uid`` is not there or lies in another frame of reference without ``same_frame``, where two files of one
    UID differ, where two structure sets are equally new, and where several are equally near that were drawn on different series.
    """
    from oncontour.io.dicom.doses import one_of_each

    sets = [f for f in files if f.kind in KINDS]
    if uid is not None:
        best = one_of_each(named(sets, uid), StructureError)
        if standing(best[0], source) is Standing.ELSEWHERE and not same_frame:
            raise _elsewhere(best[0], source)
        if best[0].kind == "RTSTRUCT":
            segments = [f for f in sets if f.kind == "SEG" and standing(f, source) is Standing.SERIES]
            best += one_of_each(segments, StructureError)
    else:
        near = min((standing(f, source) for f in sets), default=Standing.SERIES)
        if near is Standing.ELSEWHERE and not same_frame:
            return Chosen((), _left_out(sets, source))
        best = one_of_each([f for f in sets if standing(f, source) is near and _may_be_theirs(f, source, near)], StructureError)
        if sets and not best:
            raise StructureError(
                f"no structure set has the PatientID of the images: there are {listed(sets)}", hint="--same_frame is for one patient alone"
            )
        if near is not Standing.SERIES:
            _check_of_one_series(best)
    drawn, notes = _newest([f for f in best if f.kind == "RTSTRUCT"])
    chosen = (*drawn, *(f for f in best if f.kind == "SEG"))
    theirs = {f.sop_instance_uid for f in best}
    left = [f for f in sets if f.sop_instance_uid not in theirs and standing(f, source) is not Standing.SERIES]
    notes += [note for note in (_of_another_series(f, source) for f in chosen) if note]
    return Chosen(chosen, (*_left_out(left), *notes))


def read_near(file: SeriesFiles, grid: Geometry, source: DicomSource, same_frame: bool) -> StructureSet | Segments:
    """What ``file`` holds, on the images (segments on ``grid``). With ``same_frame`` it is taken as lying in their frame of reference where
    it names another one. Of images that name none, what refers to their series lies on them, with a note.

    Raises StructureError where that cannot be: a PatientID is missing or another, a contour or frame does not lie on a slice of the
    images; else what the readers raise.
    """
    from oncontour.io.dicom.rtstruct import read_structure_set
    from oncontour.io.dicom.seg import read_seg

    if source.frame_is_made and source.series_uid in file.referenced_series:
        return _by_series(file, grid, source)
    theirs = _frame(file) if same_frame else source.frame_of_reference_uid
    if theirs == source.frame_of_reference_uid:
        if file.kind == "SEG":
            return read_seg(file.path, geometry=grid, source=source)
        return read_structure_set(file.path, source=source)
    check_same_patient(file.patient_id, source, file.path)
    if file.kind == "SEG":
        check_on_slices(source, file.path, masks=read_seg(file.path).masks.values())
        found = read_seg(file.path, geometry=grid, source=source)
        return replace(found, notes=(*found.notes, accepted(file.path, theirs, source)))
    drawn = read_structure_set(file.path, source=replace(source, frame_of_reference_uid=theirs))
    check_on_slices(source, file.path, contours=drawn.contours.values())
    return replace(drawn, notes=(*drawn.notes, accepted(file.path, theirs, source)))


def _by_series(file: SeriesFiles, grid: Geometry, source: DicomSource) -> StructureSet | Segments:
    """What ``file`` holds, which refers to images without a frame of reference."""
    from oncontour.io.dicom.rtstruct import read_structure_set
    from oncontour.io.dicom.seg import read_seg

    note = f"the images name no frame of reference: {file.path.name} refers to their series, and is taken as lying on them"
    if file.kind == "SEG":
        segments = read_seg(file.path, geometry=grid, source=source)
        return replace(segments, notes=(*segments.notes, note))
    in_theirs = replace(source, frame_of_reference_uid=_frame(file) or source.frame_of_reference_uid, frame_is_made=False)
    drawn = read_structure_set(file.path, source=in_theirs)
    return replace(drawn, notes=(*drawn.notes, note))


def _frame(file: SeriesFiles) -> str:
    """The frame of reference that most structures of ``file`` name, "" where none is named."""
    from oncontour.io.dicom.rtstruct import read_structure_set

    return file.frame_of_reference_uid if file.kind == "SEG" else read_structure_set(file.path).frame_of_reference_uid


# ---- another name of the same frame of reference


def accepted(path: Path, theirs: str, source: DicomSource) -> Note:
    """What is to be said of structures whose frame of reference the user took for that of the images."""
    frames = f"{theirs or 'none'}, that of the images {source.frame_told}"
    what = f"{path.name} names another frame of reference ({frames}): taken as the same, as --same_frame says"
    return Note(NoteCode.FRAME_ACCEPTED, f"{what}; each of its planes lies on a slice, sideways nothing can be checked")


def check_same_patient(patient_id: str, source: DicomSource, path: Path) -> None:
    """Raise StructureError unless both have a PatientID and it is the same."""
    ours = source.patient.get("PatientID", "")
    if not ours or patient_id != ours:
        what = "have different PatientIDs" if ours and patient_id else "do not both have a PatientID"
        raise StructureError(
            f"the structures and the images {what}: their frames of reference cannot be taken as the same",
            where=str(path),
            hint="--same_frame is for one patient, whose UIDs an export rewrote",
        )


def check_on_slices(source: DicomSource, path: Path, *, contours: Iterable[Contours] = (), masks: Iterable[Volume] = ()) -> None:
    """Raise StructureError where a contour, or a slice of a mask, does not lie on a slice of the images."""
    from oncontour.raster.planes import SAME_PLANE_MM

    normal, slices = source.normal, source.offsets_mm
    points = [polygon @ normal for one in contours for polygon in one.polygons]
    for mask in masks:
        grid = mask.geometry
        across = np.abs(grid.axes[0] @ normal)
        if across < 1 - 1e-6:
            raise _aside(path, f"turned by {np.degrees(np.arccos(across)):.2f} degrees against the images")
        points.append(grid.points([(k, 0, 0) for k in range(grid.shape[0])]) @ normal)
    at = np.concatenate(points) if points else np.zeros(0)
    gap = np.array([np.abs(slices - offset).min() for offset in np.unique(np.round(at, 4))])
    if len(gap) and gap.max() > SAME_PLANE_MM + 1e-4:
        raise _aside(path, f"up to {gap.max():.2f} mm off the nearest slice of the images, more than {SAME_PLANE_MM:g} mm")


def _aside(path: Path, what: str) -> StructureError:
    hint = "register the two, or export the structures with the images that they were drawn on"
    return StructureError(f"the structures were not drawn on these images: they lie {what}", where=str(path), hint=hint)


def _elsewhere(file: SeriesFiles, source: DicomSource) -> StructureError:
    theirs = ", ".join(file.referenced_frames) or "none"
    return StructureError(
        f"the structures lie in frame of reference {theirs}, the images in {source.frame_told}",
        where=file.path.name,
        hint=SAME_FRAME_WAY,
    )


def _may_be_theirs(file: SeriesFiles, source: DicomSource, near: Standing) -> bool:
    return near is not Standing.ELSEWHERE or (bool(file.patient_id) and file.patient_id == source.patient.get("PatientID", ""))


# ---- which are meant


def listed(files: Iterable[SeriesFiles]) -> str:
    """Structure sets in words: file, kind, SOPInstanceUID."""
    return "; ".join(f"{f.path.name} ({f.kind}, {f.sop_instance_uid})" for f in files) or "none"


def named(sets: Sequence[SeriesFiles], uid: str) -> list[SeriesFiles]:
    """Those of this SOPInstanceUID. Raises StructureError, listing what there is, where there are none."""
    named = [f for f in sets if f.sop_instance_uid == uid]
    if not named:
        raise StructureError(f"no structure set {uid} is here; there are {listed(sets)}", hint="give the UID of one of these")
    return named


def _check_of_one_series(files: Sequence[SeriesFiles]) -> None:
    """Raise StructureError where structure sets that do not refer to the images were drawn on different series: none is nearer."""
    if len({frozenset(f.referenced_series) for f in files}) > 1:
        raise StructureError(f"{len(files)} structure sets of different other series, none of these images: {listed(files)}", hint=PICK_ONE)


def _newest(different: list[SeriesFiles]) -> tuple[tuple[SeriesFiles, ...], list[str]]:
    if len(different) < 2:
        return tuple(different), []
    from oncontour.io.dicom.doses import date_of

    dated = sorted(((date_of(f), n) for n, f in enumerate(different)), reverse=True)
    told = "; ".join(f"{different[n].path.name} ({date or 'no date'}, {different[n].sop_instance_uid})" for date, n in dated)
    if dated[0][0] == dated[1][0]:
        raise StructureError(f"{len(different)} structure sets and none is the newest: {told}", hint=PICK_ONE)
    return (different[dated[0][1]],), [f"the newest of {len(different)} structure sets is read: {told}"]


def _of_another_series(file: SeriesFiles, source: DicomSource) -> Note | None:
    if standing(file, source) is not Standing.FRAME or not file.referenced_series:
        return None
    what = f"{file.path.name} was drawn on another series ({', '.join(file.referenced_series)}) in the same frame of reference"
    return Note(NoteCode.STRUCTURES_OF_ANOTHER_SERIES, f"{what}: its contours are taken where they lie")


def _left_out(files: Sequence[SeriesFiles], source: DicomSource | None = None) -> tuple[Note, ...]:
    """A note on each kind of those left out; with ``source``, where nothing nearer is there, on the way to use them."""
    listed_by_kind = {kind: [f for f in files if f.kind == kind] for kind in KINDS}
    notes = []
    for kind, found in listed_by_kind.items():
        if found:
            what = f"{kind} of other images left out: {', '.join(f.path.name for f in found)}"
            mine = source is not None and any(_may_be_theirs(f, source, Standing.ELSEWHERE) for f in found)
            notes.append(Note(NoteCode.STRUCTURES_LEFT_OUT, f"{what} (another frame of reference; {SAME_FRAME_WAY})" if mine else what))
    return tuple(notes)
