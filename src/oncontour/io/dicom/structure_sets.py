"""Which structure sets and segmentations belong to the images: those that refer to them, else those in the same frame of reference.

Sources: DICOM PS3.3 C.7.4.1 (frame of reference), C.8.8.5 (RT referenced series), C.8.20 (segmentation). File names decide nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import numpy as np

from oncontour.core.contours import Contours
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.notes import Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import StructureError
from oncontour.io.dicom.copies import date_of, one_of_each
from oncontour.io.dicom.rtstruct_read import StructureSet, read_structure_set
from oncontour.io.dicom.scan import SeriesFiles
from oncontour.io.dicom.seg_frames import planes_drawn
from oncontour.io.dicom.seg_read import Segments, read_seg
from oncontour.io.dicom.source import SAME_FRAME_WAY, DicomSource, another_frame

KINDS = ("RTSTRUCT", "SEG")
PICK_ONE = (
    "choose one with --structure_set_uid (oncontour assess, convert, dvh, risk, run, structures; a patient of a cohort: convert it first;"
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
    """Of the RTSTRUCTs and SEGs among ``files`` those that belong to the images of ``source``, the nearest first.

    Of each of the two kinds those that refer to the series; where there are none, those in its frame of reference; where there are none
    either, and ``same_frame`` says that a frame of reference of another name is the same, those of the same PatientID. ``uid`` (a
    SOPInstanceUID) names any that is there; the SEGs of the series then come with an RTSTRUCT still. Of several RTSTRUCTs that refer to the
    same series the newest is taken, of several SEGs all, the newest first.

    Raises StructureError where ``uid`` is not there or lies in another frame of reference without ``same_frame``, where two files of one
    UID differ, where two RTSTRUCTs are equally new, and where several are equally near that were drawn on different series (where something
    is nearer they are left out instead).
    """
    sets = [f for f in files if f.kind in KINDS]
    notes: list[str] = []
    if uid is not None:
        best = one_of_each(named(sets, uid), StructureError)
        if standing(best[0], source) is Standing.ELSEWHERE and not same_frame:
            raise _elsewhere(best[0], source)
        if best[0].kind == "RTSTRUCT":
            segments = [f for f in sets if f.kind == "SEG" and standing(f, source) is Standing.SERIES]
            best += one_of_each(segments, StructureError)
    else:
        best = _nearest(sets, source, same_frame, notes)
    drawn, told = _newest([f for f in best if f.kind == "RTSTRUCT"])
    segments = sorted((f for f in best if f.kind == "SEG"), key=date_of, reverse=True)
    chosen = (*drawn, *segments) if uid else tuple(sorted((*drawn, *segments), key=lambda f: standing(f, source)))
    if uid is not None:
        theirs = {f.sop_instance_uid for f in best}
        notes += _left_out([f for f in sets if f.sop_instance_uid not in theirs and standing(f, source) is not Standing.SERIES])
    return Chosen(chosen, (*notes, *told, *(note for f in chosen for note in _of_its_series(f, source))))


def _nearest(sets: Sequence[SeriesFiles], source: DicomSource, same_frame: bool, notes: list[str]) -> list[SeriesFiles]:
    """Of each kind those nearest to the images; what is left out is noted."""
    of_kind = {kind: [f for f in sets if f.kind == kind] for kind in KINDS}
    near = {kind: min((standing(f, source) for f in found), default=Standing.ELSEWHERE) for kind, found in of_kind.items()}
    farthest = Standing.ELSEWHERE if same_frame else Standing.FRAME
    mine = {
        kind: one_of_each([f for f in found if standing(f, source) is near[kind] and _may_be_theirs(f, source, near[kind])], StructureError)
        for kind, found in of_kind.items()
        if near[kind] <= farthest
    }
    if sets and same_frame and not any(mine.values()):
        raise StructureError(
            f"no structure set has the PatientID of the images: there are {listed(sets)}", hint="--same_frame is for one patient alone"
        )
    best: list[SeriesFiles] = []
    for at in Standing:
        equally = [f for kind, found in mine.items() if near[kind] is at for f in found]
        if at is not Standing.SERIES and len({frozenset(f.referenced_series) for f in equally}) > 1:
            what = f"{len(equally)} structure sets of different other series, none of these images"
            if not best:
                raise StructureError(f"{what}: {listed(equally)}", hint=PICK_ONE)
            notes.append(Note(NoteCode.STRUCTURES_LEFT_OUT, f"{what}: left out: {listed(equally)}; {PICK_ONE}"))
            continue
        best += equally
    told = {f.sop_instance_uid for found in mine.values() for f in found}
    for kind, found in of_kind.items():
        left = [f for f in found if f.sop_instance_uid not in told and standing(f, source) is not Standing.SERIES]
        notes += _left_out(left, source if near[kind] is Standing.ELSEWHERE else None)
    return best


def read_near(file: SeriesFiles, grid: Geometry, source: DicomSource, same_frame: bool) -> StructureSet | Segments:
    """What ``file`` holds, on the images (segments on ``grid``). With ``same_frame`` what names another frame of reference is taken as
    well, as lying in that of the images; of several others the one that most structures name. Of images that name
    none, what refers to their series lies on them, with a note.

    Raises StructureError where that cannot be, and nothing names the images' own: a PatientID is missing or another, a contour or frame
    does not lie on a slice of the images; else what the readers raise.
    """
    if source.frame_is_made and source.series_uid in file.referenced_series:
        return _by_series(file, grid, source)
    if file.kind == "SEG":
        theirs = file.frame_of_reference_uid
        accepting = same_frame and theirs != source.frame_of_reference_uid
        if theirs and source.frame_of_reference_uid and theirs != source.frame_of_reference_uid and not accepting:
            raise _elsewhere(file, source)
        if accepting:
            check_same_patient(file.patient_id, source, file.path)
            check_on_slices(source, file.path, frames=planes_drawn(file.path), grid=grid)
        found = read_seg(file.path, geometry=grid, source=source)
        return replace(found, notes=(*found.notes, accepted(file.path, theirs, source))) if accepting else found
    frames = _frames(file.path) if same_frame else Counter[str]()
    others = [frame for frame, _ in frames.most_common() if frame != source.frame_of_reference_uid][:1]
    if not others:
        return read_structure_set(file.path, source=source)
    mixed = source.frame_of_reference_uid in frames
    try:
        return _drawn_elsewhere(file, source, others[0], mixed)
    except StructureError as error:
        if not mixed:
            raise
        drawn = read_structure_set(file.path, source=source)
        return replace(drawn, notes=(*drawn.notes, Note(NoteCode.STRUCTURES_LEFT_OUT, f"{file.path.name}, --same_frame: {error.what}")))


def _by_series(file: SeriesFiles, grid: Geometry, source: DicomSource) -> StructureSet | Segments:
    """What ``file`` holds, which refers to images without a frame of reference."""
    note = f"the images name no frame of reference: {file.path.name} refers to their series, and is taken as lying on them"
    if file.kind == "SEG":
        segments = read_seg(file.path, geometry=grid, source=source)
        return replace(segments, notes=(*segments.notes, note))
    theirs = _frames(file.path).most_common(1)[0][0]
    in_theirs = replace(source, frame_of_reference_uid=theirs or source.frame_of_reference_uid, frame_is_made=False)
    drawn = read_structure_set(file.path, source=in_theirs)
    return replace(drawn, notes=(*drawn.notes, note))


def _drawn_elsewhere(file: SeriesFiles, source: DicomSource, theirs: str, mixed: bool) -> StructureSet:
    """The structures in the frame of reference of the images, and those that name ``theirs``, which is taken for it."""
    check_same_patient(file.patient_id, source, file.path)
    drawn = read_structure_set(file.path, source=source, same_frames=(theirs,))
    frame_of = {roi.name: roi.frame_of_reference_uid or drawn.frame_of_reference_uid for roi in drawn.rois if roi.name}
    names = [name for name in drawn.contours if frame_of[name] == theirs]
    check_on_slices(source, file.path, contours=[drawn.contours[name] for name in names])
    return replace(drawn, notes=(*drawn.notes, accepted(file.path, theirs, source, names if mixed else ())))


def _frames(path: Path) -> Counter[str]:
    """The frames of reference that the structures of an RTSTRUCT name ("" where none is named), each with how many do."""
    found = read_structure_set(path)
    return Counter(roi.frame_of_reference_uid or found.frame_of_reference_uid for roi in found.rois) or Counter(
        [found.frame_of_reference_uid]
    )


# ---- another name of the same frame of reference


def accepted(path: Path, theirs: str, source: DicomSource, names: Sequence[str] = ()) -> Note:
    """What is to be said of structures (``names`` where not all) whose frame of reference the user took for that of the images."""
    frames = f"{theirs or 'none'}, that of the images {source.frame_told}"
    whose = f" for {', '.join(names)}" if names else ""
    what = f"{path.name} names another frame of reference{whose} ({frames}): taken as the same, as --same_frame says"
    return Note(NoteCode.FRAME_ACCEPTED, f"{what}; each of its planes lies on a slice, sideways nothing can be checked")


def check_same_patient(patient_id: str, source: DicomSource, path: Path) -> None:
    """Raise StructureError unless both have a PatientID and it is the same."""
    ours = source.patient.get("PatientID", "")
    if not ours or patient_id != ours:
        what = "have different PatientIDs" if ours and patient_id else "do not both have a PatientID"
        what = f"the structures and the images {what}: their frames of reference cannot be taken as the same"
        raise StructureError(what, where=str(path), hint="--same_frame is for one patient, whose UIDs an export rewrote")


def check_on_slices(
    source: DicomSource,
    path: Path,
    *,
    contours: Iterable[Contours] = (),
    masks: Iterable[Volume] = (),
    frames: tuple[Floats, Floats] | None = None,
    grid: Geometry | None = None,
) -> None:
    """Raise StructureError where a contour does not lie on a slice of the images, or a slice of a mask that holds voxels, or a frame of
    a segmentation (``seg_frames.planes_drawn``), does not lie on one nor on a slice of ``grid``, which the images are read on: finer
    where they are uneven."""
    from oncontour.raster.planes import SAME_PLANE_MM

    normal, slices = source.normal, source.offsets_mm
    at = np.concatenate([np.zeros(0), *(polygon @ normal for one in contours for polygon in one.polygons)])
    gap = _farthest(at, slices)
    finer = [slices] if grid is None or abs(grid.axes[0] @ normal) < 1 - 1e-6 else [slices, _planes(grid) @ normal]
    planes = [(positions, across) for positions, across in ([frames] if frames else [])]
    planes += [(_planes(m.geometry)[m.binary().array.any(axis=(1, 2))], m.geometry.axes[0]) for m in masks]
    for positions, across in planes:
        if (cosine := abs(across @ normal)) < 1 - 1e-6:
            raise _aside(path, f"turned by {np.degrees(np.arccos(cosine)):.2f} degrees against the images")
        gap = max(gap, _farthest(positions @ normal, np.concatenate(finer)))
    if gap > SAME_PLANE_MM + 1e-4:
        raise _aside(path, f"up to {gap:.2f} mm off the nearest slice of the images, more than {SAME_PLANE_MM:g} mm")


def _planes(grid: Geometry) -> Floats:
    """(k, 3) the first voxel of each slice."""
    return np.asarray(grid.points([(k, 0, 0) for k in range(grid.shape[0])]))


def _farthest(offsets: Floats, slices: Floats) -> float:
    """How far the ``offsets`` lie from the nearest slice at the most."""
    return max((float(np.abs(slices - offset).min()) for offset in np.unique(np.round(offsets, 4))), default=0.0)


def _aside(path: Path, what: str) -> StructureError:
    hint = "register the two, or export the structures with the images that they were drawn on"
    return StructureError(f"the structures were not drawn on these images: they lie {what}", where=str(path), hint=hint)


def _elsewhere(file: SeriesFiles, source: DicomSource) -> StructureError:
    theirs = file.frame_of_reference_uid if file.kind == "SEG" else ", ".join(file.referenced_frames)
    return another_frame(theirs or "none", source.frame_told, file.path.name, SAME_FRAME_WAY)


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


def _newest(different: list[SeriesFiles]) -> tuple[tuple[SeriesFiles, ...], list[str]]:
    if len(different) < 2:
        return tuple(different), []
    dated = sorted(((date_of(f), n) for n, f in enumerate(different)), reverse=True)
    told = "; ".join(f"{different[n].path.name} ({date or 'no date'}, {different[n].sop_instance_uid})" for date, n in dated)
    if dated[0][0] == dated[1][0]:
        raise StructureError(f"{len(different)} structure sets and none is the newest: {told}", hint=PICK_ONE)
    return (different[dated[0][1]],), [f"the newest of {len(different)} structure sets is read: {told}"]


def doubts(file: SeriesFiles, source: DicomSource) -> list[Note]:
    """What is to be said of a structure set that is read onto the images of ``source``: that it was drawn on another series, or names
    another PatientID."""
    theirs = file.patient_id != source.patient.get("PatientID", "")
    return [*_of_its_series(file, source), *([of_another_patient([file.path.name])] if theirs else [])]


def of_another_series(name: str, series: Sequence[str]) -> Note:
    """What is to be said of structures drawn on other ``series`` in the same frame of reference."""
    what = f"{name} was drawn on another series ({', '.join(series)}) in the same frame of reference"
    return Note(NoteCode.STRUCTURES_OF_ANOTHER_SERIES, f"{what}: its contours are taken where they lie")


def of_another_patient(names: Iterable[str]) -> Note:
    """What is to be said of objects that UIDs say belong to the images and PatientID says do not."""
    what = "another PatientID than that of the images, which its UIDs refer to: make sure that it is theirs"
    return Note(NoteCode.ANOTHER_PATIENT_ID, f"{what}: {', '.join(names)}")


def _of_its_series(file: SeriesFiles, source: DicomSource) -> list[Note]:
    other = standing(file, source) is Standing.FRAME and bool(file.referenced_series)
    return [of_another_series(file.path.name, file.referenced_series)] if other else []


def _left_out(files: Sequence[SeriesFiles], source: DicomSource | None = None) -> tuple[Note, ...]:
    """A note on each kind of those left out; with ``source``, where nothing nearer of the kind is there, on the way to use them."""
    listed_by_kind = {kind: [f for f in files if f.kind == kind] for kind in KINDS}
    notes = []
    for kind, found in listed_by_kind.items():
        if found:
            what = f"{kind} of other images left out: {', '.join(f.path.name for f in found)}"
            mine = source is not None and any(_may_be_theirs(f, source, Standing.ELSEWHERE) for f in found)
            notes.append(Note(NoteCode.STRUCTURES_LEFT_OUT, f"{what} (another frame of reference; {SAME_FRAME_WAY})" if mine else what))
    return tuple(notes)
