"""A patient's DICOM folder as a Case: the images, and the structures, segments and dose that belong to them.

What belongs is told by UIDs alone (DICOM PS3.3 C.7.4.1 frame of reference, C.8.8.5 referenced series), never by file names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.notes import Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import InputError, OncontourError, StructureError
from oncontour.io.dicom.copies import date_of
from oncontour.io.dicom.dose_choice import belonging_dose, named_dose
from oncontour.io.dicom.rtstruct_read import StructureSet
from oncontour.io.dicom.scan import SeriesFiles, choose, passed_over, scan
from oncontour.io.dicom.seg_read import Segments
from oncontour.io.dicom.series import read_series
from oncontour.io.dicom.source import DicomSource
from oncontour.io.dicom.structure_sets import PICK_ONE, Standing, choose_structure_sets, listed, of_another_patient, read_near, standing
from oncontour.io.folders import archives_in, name_of


@dataclass
class _Found:
    """What has been read so far."""

    images: dict[str, Volume]
    contours: dict[str, Contours] = field(default_factory=dict)
    masks: dict[str, Volume] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
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
    tells ``facts["fractions"]``, ``facts["fraction_groups"]`` and ``facts["prescription_gy"]`` (``io.dicom.rtplan.plan_facts``);
    ``facts["rtdose"]``, a DoseKind (``io.dicom.rtdose_read``), whether it is EFFECTIVE, or of a part; ``facts["structure_sets"]`` the
    SOPInstanceUIDs of the RTSTRUCTs that the structures are of. What is left out is noted.

    Raises what ``read_series``, ``read_structure_set``, ``read_seg``, ``read_rtdose``, ``named_dose`` and ``choose_structure_sets``
    raise, and StructureError or DoseError where two different files bear one SOPInstanceUID (two such plans tell no fractions, with a
    note). With ``lenient`` what is wrong with structures, segments or dose is noted and they are left out: the images are there all the
    same. What was asked for by name (``structure_set_uid``, ``same_frame``, ``doses``) is wanted in any case; ``same_frame`` only with
    ``insist``.
    """
    folder = Path(folder)
    files = scan(folder)
    if not files and (packed := archives_in(folder)):
        raise InputError(f"no DICOM file here, but archives: {', '.join(packed[:3])}", where=str(folder), hint="unpack them first")
    series, left_out = choose(files, str(folder), series_uid=series_uid, prefer_referenced=True)
    volume, source, remarks = read_series(series)
    found = _Found({series.modality.lower(): volume}, notes=[*left_out, *passed_over(folder, files), *remarks])
    found.notes += _of_another_patient(files, series, source)
    wanted = structure_set_uid is not None or (same_frame and insist)
    bearing = partial(_bearing, found, code=NoteCode.STRUCTURES_LEFT_OUT, lenient=lenient and not wanted)
    chosen: tuple[SeriesFiles, ...] = ()
    with bearing("the structures"):
        sets = choose_structure_sets(files, source, structure_set_uid, same_frame)
        chosen = sets.files
        found.notes += sets.notes
    for file in chosen:
        with bearing("the segments" if file.kind == "SEG" else "the structures"):
            _add_structures(found, file, source, volume, same_frame)
    with _bearing(found, "the dose", code=NoteCode.DOSE_LEFT_OUT, lenient=lenient and not doses):
        dose = named_dose(doses, files, source) if doses else belonging_dose(files, source, found.notes)
        found.images |= {"dose": dose.volume} if dose.volume is not None else {}
        found.facts |= dose.facts
        found.notes += dose.notes
    drawn = tuple(dict.fromkeys(file.sop_instance_uid for file in found.owner.values() if file.kind == "RTSTRUCT"))
    facts = {**found.facts, "names": found.names, "unmapped": tuple(found.unmapped), "notes": tuple(dict.fromkeys(found.notes))}
    facts |= {"structure_sets": drawn} if drawn else {}
    return Case(id or name_of(folder), found.images, found.masks, found.contours, facts=facts, source=source)


def _of_another_patient(files: Sequence[SeriesFiles], series: SeriesFiles, source: DicomSource) -> list[str]:
    """What UIDs say belongs to the images and PatientID says does not: read, but not without a word."""
    objects = [f for f in files if f.kind in ("RTSTRUCT", "SEG", "RTDOSE") and standing(f, source) is not Standing.ELSEWHERE]
    names = [f.path.name for f in objects if f.patient_id != series.patient_id]
    return [of_another_patient(names)] if names else []


@contextmanager
def _bearing(found: _Found, what: str, *, code: NoteCode, lenient: bool) -> Iterator[None]:
    """With ``lenient`` an error inside becomes a note about ``code``."""
    try:
        yield
    except OncontourError as error:
        if not lenient:
            raise
        found.notes.append(Note(code, f"{what} cannot be used: {error.what}" + (f" [{error.where}]" if error.where else "")))


def _add_structures(found: _Found, file: SeriesFiles, source: DicomSource, volume: Volume, same_frame: bool) -> None:
    """What ``file`` holds, but for structures of names that are there already: those of nearer, or newer, files come first."""
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
    date = date_of(file)
    twice = [name for name in segments.masks if name in found.masks and date_of(found.owner[name]) == date]
    differing = [name for name in twice if not np.array_equal(found.masks[name].array, segments.masks[name].array)]
    if differing:
        others = list(dict.fromkeys(found.owner[name] for name in differing))
        for name in differing:
            del found.masks[name], found.names[name], found.owner[name]
        what = f"{', '.join(differing)} in several segmentations ({date or 'no date'}) and none is the newest"
        raise StructureError(f"{what}: {listed([*others, file])}", hint=PICK_ONE)
