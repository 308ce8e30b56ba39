"""``oncontour convert``: a patient or a cohort between DICOM and NIfTI, its structures as a DICOM Segmentation, a cohort for nnU-Net."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.commands.cohort_table import FOLDER
from oncontour.commands.cohort_work import Outcome
from oncontour.commands.convert_nnunet import Dataset, to_nnunet
from oncontour.core.notes import all_anonymous
from oncontour.errors import ConfigError, InputError, OutputError
from oncontour.files import check_not_here, readable, shown
from oncontour.many import Many
from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.core.case import Case

Format = Literal["dicom", "nifti", "seg", "nnunet"]


@dataclass(frozen=True)
class Conversion:
    """What became of one patient: where it is now, in how many files, and what was lost or remarked on the way."""

    id: str
    out: Path
    files: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.id}: {self.files} files in {self.out}", *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Conversions:
    """What became of every patient."""

    done: tuple[Conversion, ...]

    def __str__(self) -> str:
        return "\n".join(str(one) for one in self.done)


def convert(
    src: Path,
    dst: Path,
    *,
    to: Format | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    dose: list[str] | None = None,
    structures: list[str] | None = None,
    overwrite: bool = False,
    many: Many = Many(),  # noqa: B008  (frozen: one value for all calls)
    progress: Progress | None = None,
) -> Conversions | Dataset:
    """Carry a patient, or every patient of a cohort, between DICOM and the NIfTI layout, and say what a format cannot hold.

    The NIfTI layout of a patient is a folder with ct.nii.gz, dose.nii.gz and masks/NAME.nii.gz. CT voxels, the grid and, there and back,
    the voxels of every structure stay as they are; what changes (contours to voxels, dose to steps, identity) is printed, and before it
    is written where another program may read a structure otherwise.
    With --to seg the structures of a DICOM patient become one SEG.dcm, a DICOM Segmentation that refers to the images where they are.
    With --to nnunet a cohort becomes a dataset that nnU-Net trains on: CT and a label map of the structures that every patient has, or of
    --structures.
    Each patient is written whole or not at all. When a patient of a cohort cannot be converted the others are, and the exit code is
    that of an error.

    Examples:
        oncontour convert hospital/patient-7 nifti/patient-7
        oncontour convert openkbp/validation dicom --to dicom
        oncontour convert cohort.csv nifti --to nifti --overwrite
        oncontour convert hospital/patient-7 segments/patient-7 --to seg
        oncontour convert COHORT Dataset101_Neck --to nnunet --structures Parotid_L,Parotid_R

    Args:
        src: a patient (a folder of DICOM, of NIfTI or of OpenKBP CSVs), a folder of patients, or a CSV with the columns patient,path
        dst: the folder to write; for a cohort it gets one folder for each patient
        to: dicom, nifti, seg or nnunet (--format is the same); by default DICOM becomes NIfTI and anything else becomes DICOM
        series_uid: which image series, where a DICOM folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where a DICOM folder holds several; by default the newest
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded in what is written
        dose: SOPInstanceUID or file of the RTDOSE that is meant, where there are several; those of several plans are added up
        structures: with --to nnunet: these structures (TG-263 names), of the patients who have all of them
        overwrite: replace what an earlier conversion wrote to dst
        many: processes, shard and engine, for a cohort
        progress: called with the fraction done
    """
    from oncontour.io import read
    from oncontour.io.dicom.seg_write import check_installed
    from oncontour.io.folders import name_of
    from oncontour.io.patients import is_cohort

    src, dst = Path(src), Path(dst)
    _check_places(src, dst, overwrite)
    if to == "seg":
        check_installed()
    if structures and to != "nnunet":
        raise ConfigError("structures are picked for a dataset of nnU-Net alone", hint="add --to nnunet, or leave out --structures")
    if not (many.is_asked or is_cohort(src)):
        if to == "nnunet":
            raise InputError("nnU-Net trains on a cohort, and this is one patient", where=str(src), hint="give the folder of patients")
        read_as = partial(read, series_uid=series_uid, structure_set_uid=structure_set_uid, same_frame=same_frame, doses=dose or ())
        return Conversions((_one(src, dst, readable(name_of(src)), to, read_as),))
    if series_uid or structure_set_uid or same_frame or dose:
        what = "a series, structure set, frame of reference or dose can be chosen for one patient, not for a cohort"
        raise InputError(what, where=str(src), hint="convert that patient alone")
    if to == "nnunet":
        from oncontour.commands.cohort import folder_names
        from oncontour.io.cohort import Cohort

        cohort = Cohort.open(src)
        return to_nnunet(cohort, dst, structures, folder_names(cohort).__getitem__, progress)
    return _all(src, dst, to, overwrite, many, progress)


def _all(src: Path, dst: Path, to: Format | None, overwrite: bool, many: Many, progress: Progress | None) -> Conversions:
    """Every patient of a cohort, by workers. Raises IncompleteError, when the others are done, where patients could not be converted."""
    from oncontour.commands.cohort import digest, folder_names, opened, planned
    from oncontour.commands.cohort_spread import spread
    from oncontour.io.cohort import Cohort

    cohort = Cohort.open(src)
    plan = planned("convert", {"to": to})
    table = opened(dst, plan, overwrite=overwrite)
    places = {id: dst / name for id, name in folder_names(cohort).items()}
    became = spread(_Converting(dict(cohort.paths), places, to, digest(plan)), cohort.ids, many, table, progress)
    told = [(id, json.loads(became.outcomes[id].said)) for id in became.done]
    done = Conversions(tuple(Conversion(id, places[id], one["files"], tuple(one["notes"])) for id, one in told))
    if said := became.told(str(src), str(done)):
        sys.stderr.write("".join(f"{line}\n" for line in said.removeprefix(str(done)).splitlines() if line))
    return done


@dataclass(frozen=True)
class _Converting:
    """One patient of a cohort after the other; ``asked``: a hash of what was asked for."""

    paths: Mapping[str, Path]
    places: Mapping[str, Path]
    to: Format | None
    asked: str

    def __call__(self, id: str) -> Outcome:
        from oncontour.io import read

        one = _one(self.paths[id], self.places[id], id, self.to, read)
        return Outcome(id, said=json.dumps({"files": one.files, "notes": one.notes}, ensure_ascii=False))

    def made_of(self, id: str) -> str:
        from oncontour.commands.cohort import made_of

        return made_of([self.paths[id]], self.asked)

    def is_there(self, id: str) -> bool:
        return self.places[id].is_dir()


def _one(src: Path, dst: Path, id: str, to: Format | None, read_as: Callable[..., Case]) -> Conversion:
    from oncontour.io import write
    from oncontour.io.dicom import patient_write
    from oncontour.io.image import layout

    case = read_as(src, id=id)
    target: Format = to or ("dicom" if case.source is None else "nifti")
    if target == "dicom":
        sys.stderr.writelines(f"{id}: {shown(note)}\n" for note in patient_write.filled_by_others(case))
    written = write(case, dst, format=target)
    if target == "dicom":
        lost = (*patient_write.losses(case), *_changed_names(case), *_single_slice(case))
    else:
        lost = layout.losses(case) if target == "nifti" else patient_write.losses_of_segments(case)
    return Conversion(id, dst, len(written), tuple(dict.fromkeys((*_remarks(case, src), *lost))))


def _changed_names(case: Case) -> Iterable[str]:
    """Which names of structures an RTSTRUCT does not hold as they are: long ones, letters that DICOM has not, one name for two."""
    from oncontour.io.dicom.attributes import fitted
    from oncontour.io.dicom.rtstruct_write import LONGEST_NAME, names_written

    called = {name: str(case.facts.get("names", {}).get(name, name)) for name in case.structures}
    changed = [repr(name) for name in called.values() if fitted("ROIName", name)[:LONGEST_NAME] != name]
    if changed:
        yield f"names of more than {LONGEST_NAME} letters, or with letters that DICOM has not, were changed: {', '.join(changed)}"
    written = names_written(list(called), names=called)
    double = [f"{written[name]!r}" for name in called if written[name] != (fitted("ROIName", called[name])[:LONGEST_NAME] or written[name])]
    if double:
        yield f"names that another structure has, as DICOM holds them, got a number: {', '.join(double)}"


def _single_slice(case: Case) -> Iterable[str]:
    """An image of one slice tells its thickness to a NIfTI alone: between slices of a series it is measured."""
    if case.geometry.shape[0] == 1:
        yield f"one slice: how far it reaches ({case.geometry.spacing_mm[0]:g} mm) no DICOM series tells; oncontour does not read it back"


def _remarks(case: Case, src: Path) -> Iterable[str]:
    """What the reader noted, in one line each, without what may name the patient."""
    yield from all_anonymous(case.facts.get("notes", ()), src, getattr(case.source, "patient", {}))
    unmapped = case.facts.get("unmapped", ())
    if unmapped:
        yield f"names without a TG-263 name were kept: {', '.join(unmapped)}"


def _check_places(src: Path, dst: Path, overwrite: bool) -> None:
    """Refuse, before any work, a destination that would cost somebody something."""
    if not src.exists():
        raise InputError("there is no such file or folder", where=str(src), hint="check the path of what is to be converted")
    here, there = dst.resolve(), src.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise OutputError("source and destination lie within each other", where=str(dst), hint="name a folder elsewhere")
    check_not_here(dst)
    if dst.is_file():
        raise OutputError("a file is in the way of the folder", where=str(dst), hint="name another folder")
    if dst.is_dir() and any(one.name != FOLDER for one in dst.iterdir()) and not (overwrite or (dst / FOLDER).is_dir()):
        raise OutputError("the folder is not empty", where=str(dst), hint="name a new folder, or replace what is there with --overwrite")
