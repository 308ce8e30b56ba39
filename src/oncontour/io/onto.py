"""Structures of a patient whose images are known already: ``read_onto(path, case)``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from oncontour.core.case import Case
from oncontour.core.notes import Note
from oncontour.errors import StructureError
from oncontour.io import check_unpicked, read
from oncontour.io.dicom import structure_sets
from oncontour.io.dicom.rtstruct_read import StructureSet, read_structure_set
from oncontour.io.dicom.scan import SeriesFiles, scan
from oncontour.io.dicom.seg_read import Segments, read_seg
from oncontour.io.dicom.source import SAME_FRAME_WAY, DicomSource, another_frame
from oncontour.io.image.layout import is_layout, is_masks, read_mask_file, read_masks
from oncontour.io.image.nifti import is_image
from oncontour.io.image.openkbp import is_openkbp


def read_onto(
    path: Path | str, case: Case, *, id: str | None = None, structure_set_uid: str | None = None, same_frame: bool = False
) -> Case:
    """The structures at ``path`` of the patient whose images ``case`` has: a whole patient, a mask file or a folder of them, read as
    they are, or an RTSTRUCT or SEG alone (a file, or a folder without images), whose structures the images of ``case`` then bear.

    ``structure_set_uid`` and ``same_frame`` as ``read_dicom`` has them. Raises StructureError for several structure sets without images,
    and for what lies in another frame of reference than ``case``, where both say theirs; ConfigError where one is picked and these are
    image files; else what ``io.read`` raises.
    """
    path = Path(path)
    if path.is_file() and is_image(path):
        check_unpicked(path, structure_set_uid=structure_set_uid, same_frame=same_frame)
        return read_mask_file(path, id=id)
    if is_masks(path):
        check_unpicked(path, structure_set_uid=structure_set_uid, same_frame=same_frame)
        return read_masks(path, id=id)
    alone = _without_images(path, structure_set_uid)
    if len(alone) > 1:
        hint = "give the file of one of them instead of the folder (oncontour assess: or --structure_set_uid), or leave only that one there"
        raise StructureError(f"{len(alone)} structure sets: {structure_sets.listed(alone)}", where=str(path), hint=hint)
    if alone:
        return _drawn_on(case, alone[0], same_frame)
    found = read(path, id=id, structure_set_uid=structure_set_uid, same_frame=same_frame and isinstance(case.source, DicomSource))
    if not isinstance(found.source, DicomSource):
        return found
    return _in_frame_of(case, found, found.source.frame_of_reference_uid, found.source.patient.get("PatientID", ""), path, same_frame)


def _without_images(path: Path, uid: str | None) -> list[SeriesFiles]:
    """RTSTRUCT and SEG files at ``path`` (of this ``uid``) where there are no images beside them. Raises StructureError where none of them
    has that UID."""
    if not path.exists() or is_image(path) or is_layout(path) or is_openkbp(path):
        return []
    found = scan(path)
    sets = [] if any(f.kind == "image" for f in found) else [f for f in found if f.kind in ("RTSTRUCT", "SEG")]
    return structure_sets.named(sets, uid) if sets and uid is not None else sets


def _drawn_on(case: Case, file: SeriesFiles, same_frame: bool) -> Case:
    bare = case.without_structures() if case.images else case
    source = case.source if isinstance(case.source, DicomSource) else None
    found: StructureSet | Segments
    if source is not None and (same_frame or (source.frame_is_made and source.series_uid in file.referenced_series)):
        found = structure_sets.read_near(file, case.geometry, source, same_frame)
    elif file.kind == "RTSTRUCT":
        found = read_structure_set(file.path, source=source)
    else:
        found = read_seg(file.path, geometry=case.geometry, source=source)
        _check_frame(found.frame_of_reference_uid, case, file.path)
    drawn = bare.with_contours(found.contours) if isinstance(found, StructureSet) else bare.with_masks(found.masks)
    doubted = structure_sets.doubts(file, source) if source is not None else []
    notes = tuple(dict.fromkeys((*bare.facts.get("notes", ()), *found.notes, *doubted)))
    return replace(drawn, facts={**bare.facts, "names": dict(found.names), "unmapped": found.unmapped, "notes": notes})


def _in_frame_of(case: Case, found: Case, theirs: str, patient_id: str, path: Path, same_frame: bool) -> Case:
    """``found``, which lies in frame of reference ``theirs``; with ``same_frame`` also where that of ``case`` has another name."""
    source, doubted = case.source, list[Note]()
    if not isinstance(source, DicomSource):
        return found
    if same_frame and theirs != source.frame_of_reference_uid:
        structure_sets.check_same_patient(patient_id, source, path)
        grid = case.geometry if case.images else None
        masks = [found.mask(name) for name in found.masks]
        structure_sets.check_on_slices(source, path, contours=found.contours.values(), masks=masks, grid=grid)
        doubted.append(structure_sets.accepted(path, theirs, source))
    else:
        _check_frame(theirs, case, path)
        drawn_on = found.source.series_uid if isinstance(found.source, DicomSource) else ""
        if theirs and theirs == source.frame_of_reference_uid and drawn_on != source.series_uid:
            doubted.append(structure_sets.of_another_series(path.name, [drawn_on]))
        if patient_id != source.patient.get("PatientID", ""):
            doubted.append(structure_sets.of_another_patient([path.name]))
    return replace(found, facts={**found.facts, "notes": tuple(dict.fromkeys((*found.facts.get("notes", ()), *doubted)))})


def _check_frame(theirs: str, case: Case, path: Path) -> None:
    ours = getattr(case.source, "frame_of_reference_uid", "")
    if theirs and ours and theirs != ours:
        hint = f"give structures that were drawn on these images; {SAME_FRAME_WAY}"
        raise another_frame(theirs, getattr(case.source, "frame_told", ours), str(path), hint)
