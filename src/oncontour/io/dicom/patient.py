"""A patient's DICOM folder as a Case, and back: the images, and the structures, segments and dose that belong to them.

What belongs is told by UIDs alone (DICOM PS3.3 C.7.4.1 frame of reference, C.8.8.5 referenced series), never by file names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.notes import KEPT, Note, NoteCode, about
from oncontour.core.volume import Volume
from oncontour.errors import DoseError, InputError, OncontourError, OutputError, StructureError
from oncontour.files import writing_folder
from oncontour.io.dicom.scan import SeriesFiles, passed_over, scan
from oncontour.io.dicom.source import SAME_FRAME_WAY, DicomSource
from oncontour.io.folders import archives_in, name_of
from oncontour.io.image.nifti import is_image

if TYPE_CHECKING:
    from oncontour.io.dicom.rtdose import DoseKind
    from oncontour.io.dicom.seg import Segments

_MODALITIES = {"ct": "CT", "mr": "MR"}
OTHERS_MAY_FILL = (
    "slices between contours are left empty, which an RTSTRUCT cannot say but in words: oncontour reads them as they are, "
    "other programs may fill them"
)
_OURS = {"CT", "MR", "masks", "RTDOSE.dcm", "RTSTRUCT.dcm", "remarks.json"}


@dataclass
class _Found:
    """What has been read so far."""

    images: dict[str, Volume]
    contours: dict[str, Contours] = field(default_factory=dict)
    masks: dict[str, Volume] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    owner: dict[str, SeriesFiles] = field(default_factory=dict)
    """Which file each structure is from."""


def read_dicom(
    folder: Path | str,
    *,
    id: str | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    doses: Sequence[str | Path] = (),
    lenient: bool = False,
    insist: bool = True,
) -> Case:
    """The CT (else MR) series in ``folder`` with the RTSTRUCT, SEG and RTDOSE that belong to it; ``id`` is by default the folder's name.

    Structure sets that refer to the series come first, then those of another series in the same frame of reference, with a note; of
    several of one series the newest is read. ``structure_set_uid`` (a SOPInstanceUID) names any RTSTRUCT or SEG; with ``same_frame`` one
    in a frame of reference of another name is taken too, where PatientID and every plane agree (``io/dicom/structure_sets.py``). The
    masks of a SEG are added under names that the structure set does not have. A dose is read where it is one: that of one plan, in the
    images' frame of reference; ``doses`` (SOPInstanceUIDs or files) names others, added up where there are several. The RTPLAN of the dose
    tells ``facts["fractions"]``, ``facts["fraction_groups"]`` and ``facts["prescription_gy"]`` (``io.dicom.doses.plan_facts``);
    ``facts["rtdose"]``, a DoseKind (``io.dicom.rtdose``), whether it is EFFECTIVE, or of a part. What is left out is noted.

    Raises what ``read_series``, ``read_structure_set``, ``read_seg``, ``read_rtdose``, ``read_doses`` and ``choose_structure_sets``
    raise, and StructureError or DoseError where two different files bear one SOPInstanceUID (two such plans tell no fractions, with a
    note). With ``lenient`` what is wrong with structures, segments or dose is noted and they are left out: the images are there all the
    same. What was asked for by name
    (``structure_set_uid``, ``same_frame``, ``doses``) is wanted in any case; ``same_frame`` only with ``insist``.
    """
    from oncontour.io.dicom.choose import choose
    from oncontour.io.dicom.series import read_series

    folder = Path(folder)
    files = scan(folder)
    if not files and (packed := archives_in(folder)):
        raise InputError(f"no DICOM file here, but archives: {', '.join(packed[:3])}", where=str(folder), hint="unpack them first")
    series, left_out = choose(files, str(folder), series_uid=series_uid, prefer_referenced=True)
    volume, source, remarks = read_series(series)
    found = _Found({series.modality.lower(): volume}, notes=[*left_out, *passed_over(folder, files), *remarks])
    found.notes += _of_another_patient(files, series, source)
    planned: dict[str, Any] = {}
    wanted = structure_set_uid is not None or (same_frame and insist)
    bearing = partial(_bearing, found, code=NoteCode.STRUCTURES_LEFT_OUT, lenient=lenient and not wanted)
    chosen: tuple[SeriesFiles, ...] = ()
    with bearing("the structures"):
        chosen = _structure_sets(found, files, source, structure_set_uid, same_frame)
    for file in chosen:
        with bearing("the segments" if file.kind == "SEG" else "the structures"):
            _add_structures(found, file, source, volume, same_frame)
    with _bearing(found, "the dose", code=NoteCode.DOSE_LEFT_OUT, lenient=lenient and not doses):
        planned = _add_dose(found, files, source, doses)
    facts: dict[str, Any] = {**planned, "names": found.names, "unmapped": tuple(found.unmapped), "notes": tuple(dict.fromkeys(found.notes))}
    return Case(id or name_of(folder), found.images, found.masks, found.contours, facts=facts, source=source)


def read_onto(
    path: Path | str, case: Case, *, id: str | None = None, structure_set_uid: str | None = None, same_frame: bool = False
) -> Case:
    """The structures at ``path`` of the patient whose images ``case`` has: a whole patient, a mask file or a folder of them, read as
    they are, or an RTSTRUCT or SEG alone (a file, or a folder without images), whose structures the images of ``case`` then bear.

    ``structure_set_uid`` and ``same_frame`` as ``read_dicom`` has them. Raises StructureError for several structure sets without images,
    and for what lies in another frame of reference than ``case``, where both say theirs; ConfigError where one is picked and these are
    image files; else what ``io.read`` raises.
    """
    from oncontour.io import check_unpicked, read
    from oncontour.io.dicom.structure_sets import listed
    from oncontour.io.image.layout import is_masks, read_mask_file, read_masks

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
        raise StructureError(f"{len(alone)} structure sets: {listed(alone)}", where=str(path), hint=hint)
    if alone:
        return _drawn_on(case, alone[0], same_frame)
    found = read(path, id=id, structure_set_uid=structure_set_uid, same_frame=same_frame and isinstance(case.source, DicomSource))
    if not isinstance(found.source, DicomSource):
        return found
    return _in_frame_of(case, found, found.source.frame_of_reference_uid, found.source.patient.get("PatientID", ""), path, same_frame)


def write_dicom(case: Case, folder: Path | str) -> list[Path]:
    """Write ``case`` as ``CT/``, ``MR/``, ``RTSTRUCT.dcm`` and ``RTDOSE.dcm`` into ``folder``, which appears whole or not at all.

    The image series is always new; patient, study and frame of reference are those of ``case.source``, else new (PatientID is then the
    case's id). Structures keep the names of ``facts["names"]``. A dose is written as what it was read as (``facts["rtdose"]``: EFFECTIVE,
    of a beam, ...; whoever puts another dose there gives its own), else as physical and of a whole plan. A sum of parts that DICOM has no
    word for is left out, and other images than "ct", "mr" and "dose" have no place: ``losses`` says so.
    Raises InputError where there is neither CT nor MR, and what the writers raise; OutputError where ``folder`` holds other things.
    """
    folder = Path(folder)
    shown = [name for name in _MODALITIES if name in case.images]
    if not shown:
        raise InputError(f"DICOM needs a CT or an MR, there is only {', '.join(case.images) or 'no image'}", where=f"case {case.id}")
    check_replaceable(folder)
    with writing_folder(folder) as temporary:
        source = _write_images(case, shown, temporary)
        if case.structures:
            _write_structures(case, source, temporary / "RTSTRUCT.dcm")
        if "dose" in case.images and not _untold_dose(case):
            from oncontour.io.dicom.rtdose import write_rtdose

            write_rtdose(case.images["dose"], temporary / "RTDOSE.dcm", source=source, kind=_kind_of_dose(case))
        written = sorted(p.relative_to(temporary) for p in temporary.rglob("*") if p.is_file())
    return [folder / p for p in written]


def losses(case: Case) -> tuple[str, ...]:
    """What of ``case`` does not survive ``write_dicom``, one sentence each."""
    notes = []
    for name in _MODALITIES:
        image = case.images.get(name)
        if image is not None and np.issubdtype(image.array.dtype, np.floating) and not np.array_equal(image.array, np.rint(image.array)):
            what = "whole HU" if name == "ct" else "65536 steps between least and largest value"
            notes.append(f"{name}: values that are not whole were rounded to {what}")
        if image is not None and np.linalg.det(image.geometry.axes) > 0:
            notes.append(f"{name}: slices are numbered the other way round, as DICOM counts them")
    if untold := _untold_dose(case):
        notes.append(untold)
    elif "dose" in case.images:
        step = float(case.images["dose"].array.max()) / (2**31 - 1)
        notes.append(f"dose: stored in steps of {step:.2g} Gy")
        kind = _kind_of_dose(case)
        if kind is None:
            notes.append("dose: written as physical and of a whole plan: neither is told of it")
        else:
            if not kind.type:
                notes.append("dose: written as physical, which its file does not tell")
            notes.append("dose: the plan that it refers to is not written, nor its prescription and fractions")
    if case.masks:
        notes.append(f"masks became contours, which give the same voxels when oncontour fills them: {', '.join(case.masks)}")
    notes += (*_note_of_retraced(case), *filled_by_others(case))
    without = [name for name in case.images if name not in (*_MODALITIES, "dose")]
    if without:
        notes.append(f"images without a place in DICOM were left out: {', '.join(without)}")
    if case.source is None:
        notes.append("patient, study and frame of reference are new")
    return tuple(notes)


def filled_by_others(case: Case) -> tuple[str, ...]:
    """What others may make of structures with empty slices between contours, as ``write_dicom`` writes them: one sentence, or none."""
    from oncontour.core.contours import Slices
    from oncontour.io.dicom.rtstruct_write import left_empty_between

    grid = case.geometry
    origins = grid.points([(k, 0, 0) for k in range(grid.shape[0])])
    names = left_empty_between(case, Slices(origins, grid.axes[2], grid.axes[1], grid.spacing_mm[1:], grid.shape[1:]))
    return (f"{OTHERS_MAY_FILL}: {', '.join(names)}",) if names else ()


def check_replaceable(folder: Path) -> None:
    """Raise OutputError where ``folder`` is a file, or holds anything that ``write`` would not have put there."""
    if folder.is_file():
        raise OutputError("a file is in the way of the folder", where=str(folder), hint="name another folder")
    if not folder.exists():
        return
    foreign = [p for p in sorted(folder.iterdir()) if not (p.name in _OURS or is_image(p))]
    foreign += [p for name in ("CT", "MR") for p in sorted((folder / name).glob("*")) if not re.fullmatch(rf"{name}\d{{4,}}\.dcm", p.name)]
    foreign += [p for p in sorted((folder / "masks").glob("*")) if not is_image(p)]
    if foreign:
        raise OutputError(
            f"the folder holds other things ({foreign[0].name}) and is not replaced", where=str(folder), hint="name another folder"
        )


# ---- reading


def _without_images(path: Path, uid: str | None) -> list[SeriesFiles]:
    """RTSTRUCT and SEG files at ``path`` (of this ``uid``) where there are no images beside them. Raises StructureError where none of them
    has that UID."""
    from oncontour.io.dicom.structure_sets import named
    from oncontour.io.image.layout import is_layout
    from oncontour.io.image.openkbp import is_openkbp

    if not path.exists() or is_image(path) or is_layout(path) or is_openkbp(path):
        return []
    found = scan(path)
    sets = [] if any(f.kind == "image" for f in found) else [f for f in found if f.kind in ("RTSTRUCT", "SEG")]
    return named(sets, uid) if sets and uid is not None else sets


def _drawn_on(case: Case, file: SeriesFiles, same_frame: bool) -> Case:
    from oncontour.io.dicom.rtstruct import read_structure_set
    from oncontour.io.dicom.rtstruct_read import StructureSet
    from oncontour.io.dicom.seg import read_seg
    from oncontour.io.dicom.structure_sets import doubts, read_near

    bare = case.without_structures() if case.images else case
    source = case.source if isinstance(case.source, DicomSource) else None
    found: StructureSet | Segments
    if source is not None and (same_frame or (source.frame_is_made and source.series_uid in file.referenced_series)):
        found = read_near(file, case.geometry, source, same_frame)
    elif file.kind == "RTSTRUCT":
        found = read_structure_set(file.path, source=source)
    else:
        found = read_seg(file.path, geometry=case.geometry, source=source)
        _check_frame(found.frame_of_reference_uid, case, file.path)
    drawn = bare.with_contours(found.contours) if isinstance(found, StructureSet) else bare.with_masks(found.masks)
    doubted = doubts(file, source) if source is not None else []
    notes = tuple(dict.fromkeys((*bare.facts.get("notes", ()), *found.notes, *doubted)))
    return replace(drawn, facts={**bare.facts, "names": dict(found.names), "unmapped": found.unmapped, "notes": notes})


def _in_frame_of(case: Case, found: Case, theirs: str, patient_id: str, path: Path, same_frame: bool) -> Case:
    """``found``, which lies in frame of reference ``theirs``; with ``same_frame`` also where that of ``case`` has another name."""
    from oncontour.io.dicom.structure_sets import accepted, check_on_slices, check_same_patient, of_another_patient, of_another_series

    source, doubted = case.source, list[Note]()
    if not isinstance(source, DicomSource):
        return found
    if same_frame and theirs != source.frame_of_reference_uid:
        check_same_patient(patient_id, source, path)
        grid = case.geometry if case.images else None
        check_on_slices(source, path, contours=found.contours.values(), masks=[found.mask(name) for name in found.masks], grid=grid)
        doubted.append(accepted(path, theirs, source))
    else:
        _check_frame(theirs, case, path)
        drawn_on = found.source.series_uid if isinstance(found.source, DicomSource) else ""
        if theirs and theirs == source.frame_of_reference_uid and drawn_on != source.series_uid:
            doubted.append(of_another_series(path.name, [drawn_on]))
        if patient_id != source.patient.get("PatientID", ""):
            doubted.append(of_another_patient([path.name]))
    return replace(found, facts={**found.facts, "notes": tuple(dict.fromkeys((*found.facts.get("notes", ()), *doubted)))})


def _check_frame(theirs: str, case: Case, path: Path) -> None:
    ours = getattr(case.source, "frame_of_reference_uid", "")
    if theirs and ours and theirs != ours:
        raise StructureError(
            f"the structures lie in frame of reference {theirs}, the images in {getattr(case.source, 'frame_told', ours)}",
            where=str(path),
            hint=f"give structures that were drawn on these images; {SAME_FRAME_WAY}",
        )


def _of_another_patient(files: Sequence[SeriesFiles], series: SeriesFiles, source: DicomSource) -> list[str]:
    """What UIDs say belongs to the images and PatientID says does not: read, but not without a word."""
    from oncontour.io.dicom.structure_sets import Standing, of_another_patient, standing

    objects = [f for f in files if f.kind in ("RTSTRUCT", "SEG", "RTDOSE") and standing(f, source) is not Standing.ELSEWHERE]
    names = [f.path.name for f in objects if f.patient_id != series.patient_id]
    return [of_another_patient(names)] if names else []


def _of_others(files: Iterable[SeriesFiles]) -> list[str]:
    names = ", ".join(f.path.name for f in files)
    return [Note(NoteCode.DOSE_LEFT_OUT, f"RTDOSE of other images left out: {names}")] if names else []


@contextmanager
def _bearing(found: _Found, what: str, *, code: NoteCode, lenient: bool) -> Iterator[None]:
    """With ``lenient`` an error inside becomes a note about ``code``."""
    try:
        yield
    except OncontourError as error:
        if not lenient:
            raise
        found.notes.append(Note(code, f"{what} cannot be used: {error.what}" + (f" [{error.where}]" if error.where else "")))


def _structure_sets(
    found: _Found, files: Sequence[SeriesFiles], source: DicomSource, uid: str | None, same_frame: bool
) -> tuple[SeriesFiles, ...]:
    """The structure sets and segmentations that belong to the images."""
    from oncontour.io.dicom.structure_sets import choose_structure_sets

    chosen = choose_structure_sets(files, source, uid, same_frame)
    found.notes += chosen.notes
    return chosen.files


def _add_structures(found: _Found, file: SeriesFiles, source: DicomSource, volume: Volume, same_frame: bool) -> None:
    """What ``file`` holds, but for structures of names that are there already: those of nearer, or newer, files come first."""
    from oncontour.io.dicom.rtstruct_read import StructureSet
    from oncontour.io.dicom.structure_sets import read_near

    read = read_near(file, volume.geometry, source, same_frame)
    if isinstance(read, StructureSet):
        drawn = _new(found, file, list(read.contours))
        found.contours.update({name: read.contours[name] for name in drawn})
    else:
        _check_newest(found, file, read)
        drawn = _new(found, file, list(read.masks))
        found.masks.update({name: read.masks[name] for name in drawn})
    found.owner.update(dict.fromkeys(drawn, file))
    found.names.update({name: original for name, original in read.names.items() if name in drawn})
    found.unmapped += [name for name in read.unmapped if name not in found.unmapped]
    found.notes += read.notes


def _new(found: _Found, file: SeriesFiles, names: Sequence[str]) -> list[str]:
    """Which of these structures of ``file`` are not there yet; the others are noted."""
    double = [name for name in names if name in found.owner]
    if double:
        of = ", ".join(dict.fromkeys(found.owner[name].path.name for name in double))
        kind = "structures" if file.kind == "RTSTRUCT" else "segments"
        what = f"{kind} of {file.path.name} left out, as there are structures of that name in {of}: {', '.join(double)}"
        found.notes.append(Note(NoteCode.STRUCTURES_LEFT_OUT, what))
    return [name for name in names if name not in double]


def _check_newest(found: _Found, file: SeriesFiles, segments: Segments) -> None:
    """Raise StructureError where another SEG of the same date has the same segment, of other voxels: neither is the newest, nor kept."""
    from oncontour.io.dicom.doses import date_of
    from oncontour.io.dicom.structure_sets import PICK_ONE, listed

    date = date_of(file)
    twice = [name for name in segments.masks if name in found.masks and date_of(found.owner[name]) == date]
    differing = [name for name in twice if not np.array_equal(found.masks[name].array, segments.masks[name].array)]
    if differing:
        others = list(dict.fromkeys(found.owner[name] for name in differing))
        for name in differing:
            del found.masks[name], found.names[name], found.owner[name]
        what = f"{', '.join(differing)} in several segmentations ({date or 'no date'}) and none is the newest"
        raise StructureError(f"{what}: {listed([*others, file])}", hint=PICK_ONE)


def _add_dose(found: _Found, files: Sequence[SeriesFiles], source: DicomSource, wanted: Sequence[str | Path]) -> dict[str, Any]:
    """Add the dose, where it is clear which; gives what it is, and what its plan tells."""
    from oncontour.io.dicom.doses import has_grid, one_of_each, plan_facts, plan_uids, plans_of, read_doses
    from oncontour.io.dicom.rtdose import WHOLE, dose_kind, read_rtdose

    if wanted:
        found.images["dose"], notes, planned = read_doses(wanted, files, source)
        found.notes += notes
        return planned
    doses = [f for f in files if f.kind == "RTDOSE" and has_grid(f)]
    bare = ", ".join(f.path.name for f in files if f.kind == "RTDOSE" and f not in doses)
    found.notes += [Note(NoteCode.DOSE_LEFT_OUT, f"RTDOSE without a dose grid (DVHs alone) left out: {bare}")] if bare else []
    found.notes += _of_others(f for f in doses if f.frame_of_reference_uid != source.frame_of_reference_uid)
    mine = one_of_each([f for f in doses if f.frame_of_reference_uid == source.frame_of_reference_uid], DoseError)
    if not mine:
        return {}
    plans = {plan_uids(f)[:1] for f in mine}
    whole = [f for f in mine if f.files[0].plain("DoseSummationType") in WHOLE]
    if len(plans) > 1 or len(whole) > 1:
        names = ", ".join(f.path.name for f in mine)
        what = f"{len(mine)} doses of {len(plans)} plan(s), and it is not told which is meant: none is read ({names})"
        found.notes.append(Note(NoteCode.DOSE_LEFT_OUT, what))
        return {}
    paths, its_plans = [f.path for f in mine], plans_of(mine, files)
    dose, notes = read_rtdose(paths, plans=its_plans.counting)
    found.images["dose"] = dose
    found.notes += (*its_plans.notes, *notes)
    return {**plan_facts([(mine, dose)], files, its_plans.telling), "rtdose": dose_kind(paths, plans=its_plans.counting)}


# ---- writing


def _write_images(case: Case, shown: Sequence[str], folder: Path) -> DicomSource:
    """The series of each image; gives the identity of the first, whose grid the structures lie on."""
    from oncontour.io.dicom.series_write import write_series

    known = case.source if isinstance(case.source, DicomSource) else None
    first: DicomSource | None = None
    for name in shown:
        modality = _MODALITIES[name]
        patient = None if known else {"PatientID": case.id, "PatientName": case.id}
        written = write_series(case.images[name], folder / modality, source=first or known, modality=modality, patient=patient)
        first = first or written
    if first is None:
        raise InputError("no image to write", where=f"case {case.id}")
    return first


def _kind_of_dose(case: Case) -> DoseKind | None:
    """What the dose was read as, None where that is not known."""
    from oncontour.io.dicom.rtdose import DoseKind

    kind = case.facts.get("rtdose")
    return kind if isinstance(kind, DoseKind) else None


def _untold_dose(case: Case) -> str:
    """Why the dose is not written, and what to do, where DICOM has no word for what it is; "" where it is written or there is none."""
    from oncontour.io.dicom.rtdose import PUT_PLAN_BESIDE, without_word

    kind = _kind_of_dose(case)
    untold = without_word(kind) if kind is not None and "dose" in case.images else ""
    return f"dose: not written: {untold}; {PUT_PLAN_BESIDE}" if untold else ""


def _write_structures(case: Case, source: DicomSource, path: Path) -> None:
    """The structures on the new series: as drawn where that gives the same voxels, else traced from the voxels that they are now."""
    from dataclasses import replace

    from oncontour.io.dicom.rtstruct import slices_of, write_rtstruct
    from oncontour.io.dicom.rtstruct_write import drawn_on_other_slices
    from oncontour.raster import trace

    slices = slices_of(source)
    retraced = {name: trace(case.mask(name), slices=slices, colour=case.contours[name].colour) for name in drawn_on_other_slices(case)}
    names = case.facts.get("names", {})
    traced = "traced from voxels by oncontour" if len(case.masks) + len(retraced) == len(case.structures) else ""
    originals = {name: names[name] for name in case.structures if name in names}
    whence = "; ".join(text for code, text in KEPT.items() if about(case.facts.get("notes", ()), code))
    write_rtstruct(replace(case.with_contours(retraced), source=source), path, names=originals, generation=traced, description=whence)


def _note_of_retraced(case: Case) -> list[str]:
    from oncontour.io.dicom.rtstruct_write import drawn_on_other_slices

    names = ", ".join(drawn_on_other_slices(case))
    what = "contours drawn on other slices than are written were traced from their voxels, which stay the same"
    return [f"{what}: {names}"] if names else []
