"""A Case as a patient's DICOM folder, and what of it DICOM cannot hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from oncontour.core.case import Case
from oncontour.core.contours import Slices
from oncontour.core.notes import KEPT, about
from oncontour.errors import InputError, OutputError, StructureError
from oncontour.files import writing_folder
from oncontour.io.dicom.attributes import fitted
from oncontour.io.dicom.rtdose_read import DoseKind
from oncontour.io.dicom.rtdose_write import PUT_PLAN_BESIDE, without_word, write_rtdose
from oncontour.io.dicom.rtstruct_between import OTHERS_MAY_FILL, drawn_on_other_slices, left_empty_between
from oncontour.io.dicom.rtstruct_write import write_rtstruct
from oncontour.io.dicom.seg_write import check_installed, write_seg
from oncontour.io.dicom.series_write import write_series
from oncontour.io.dicom.source import DicomSource, slices_of, source_of
from oncontour.io.image.layout import contours_lost
from oncontour.io.image.nifti import is_image
from oncontour.raster import trace

SEG = "SEG.dcm"
"""What ``write_segments`` writes."""
_MODALITIES = {"ct": "CT", "mr": "MR"}
_OURS = {"CT", "MR", "masks", "RTDOSE.dcm", "RTSTRUCT.dcm", "remarks.json", SEG}


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
            write_rtdose(case.images["dose"], temporary / "RTDOSE.dcm", source=source, kind=_kind_of_dose(case))
        written = sorted(p.relative_to(temporary) for p in temporary.rglob("*") if p.is_file())
    return [folder / p for p in written]


def write_segments(case: Case, folder: Path | str) -> list[Path]:
    """Write the structures of ``case`` as ``SEG.dcm``, one file that refers to the DICOM images they were read with, into ``folder``, which
    appears whole or not at all; gives that file. Structures keep the names of ``facts["names"]``.

    Raises ConfigError where highdicom is not installed, StructureError where there are no structures, or no DICOM images to refer to;
    OutputError where ``folder`` holds other things.
    """
    check_installed()
    source, folder = source_of(case, "a SEG"), Path(folder)
    if not case.structures:
        raise StructureError("there are no structures to write", where=f"case {case.id}", hint="give a patient with an RTSTRUCT or SEG")
    check_replaceable(folder)
    with writing_folder(folder) as temporary:
        masks = {name: case.mask(name) for name in case.structures}
        write_seg(masks, temporary / SEG, source=source, names=case.facts.get("names", {}))
    return [folder / SEG]


def losses_of_segments(case: Case) -> tuple[str, ...]:
    """What of ``case`` does not survive ``write_segments``, one sentence each."""
    names = [str(case.facts.get("names", {}).get(name, name)) for name in case.structures]
    changed = [repr(name) for name in names if fitted("SegmentLabel", name) != name]
    notes = contours_lost(case)
    if changed:
        notes.append(f"names of more than 64 letters, or with letters that DICOM has not, were changed: {', '.join(changed)}")
    notes.append("segments are written as drawn by a person: who drew a structure is not known of what was read")
    notes.append("a SEG holds structures alone, and refers to the DICOM images that are there already")
    return tuple(notes)


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
    names = left_empty_between(case, Slices.of(case.geometry))
    return (f"{OTHERS_MAY_FILL}: {', '.join(names)}",) if names else ()


def check_replaceable(folder: Path, also: Sequence[str] = ()) -> None:
    """Raise OutputError where ``folder`` is a file, or holds anything that ``write`` would not have put there, but ``also``."""
    if folder.is_file():
        raise OutputError("a file is in the way of the folder", where=str(folder), hint="name another folder")
    if not folder.exists():
        return
    foreign = [p for p in sorted(folder.iterdir()) if not (p.name in _OURS or p.name in also or is_image(p))]
    foreign += [p for name in ("CT", "MR") for p in sorted((folder / name).glob("*")) if not re.fullmatch(rf"{name}\d{{4,}}\.dcm", p.name)]
    foreign += [p for p in sorted((folder / "masks").glob("*")) if not is_image(p)]
    if foreign:
        raise OutputError(
            f"the folder holds other things ({foreign[0].name}) and is not replaced", where=str(folder), hint="name another folder"
        )


def _write_images(case: Case, shown: Sequence[str], folder: Path) -> DicomSource:
    """The series of each image; gives the identity of the first, whose grid the structures lie on."""
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
    kind = case.facts.get("rtdose")
    return kind if isinstance(kind, DoseKind) else None


def _untold_dose(case: Case) -> str:
    """Why the dose is not written, and what to do, where DICOM has no word for what it is; "" where it is written or there is none."""
    kind = _kind_of_dose(case)
    untold = without_word(kind) if kind is not None and "dose" in case.images else ""
    return f"dose: not written: {untold}; {PUT_PLAN_BESIDE}" if untold else ""


def _write_structures(case: Case, source: DicomSource, path: Path) -> None:
    """The structures on the new series: as drawn where that gives the same voxels, else traced from the voxels that they are now."""
    slices = slices_of(source)
    retraced = {name: trace(case.mask(name), slices=slices, colour=case.contours[name].colour) for name in drawn_on_other_slices(case)}
    names = case.facts.get("names", {})
    traced = "traced from voxels by oncontour" if len(case.masks) + len(retraced) == len(case.structures) else ""
    originals = {name: names[name] for name in case.structures if name in names}
    whence = "; ".join(text for code, text in KEPT.items() if about(case.facts.get("notes", ()), code))
    write_rtstruct(replace(case.with_contours(retraced), source=source), path, names=originals, generation=traced, description=whence)


def _note_of_retraced(case: Case) -> list[str]:
    names = ", ".join(drawn_on_other_slices(case))
    what = "contours drawn on other slices than are written were traced from their voxels, which stay the same"
    return [f"{what}: {names}"] if names else []
