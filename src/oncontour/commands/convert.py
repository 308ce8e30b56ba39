"""``oncontour convert``: a patient or a cohort between DICOM and the NIfTI layout, or its structures as a DICOM Segmentation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.core.notes import all_anonymous
from oncontour.errors import CohortError, IncompleteError, InputError, OncontourError, OutputError
from oncontour.files import check_not_here, readable, shown
from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.core.case import Case

Format = Literal["dicom", "nifti", "seg"]


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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversions:
    """Carry a patient, or every patient of a cohort, between DICOM and the NIfTI layout, and say what a format cannot hold.

    The NIfTI layout of a patient is a folder with ct.nii.gz, dose.nii.gz and masks/NAME.nii.gz. CT voxels, the grid and, there and back,
    the voxels of every structure stay as they are; what changes (contours to voxels, dose to steps, identity) is printed, and before it
    is written where another program may read a structure otherwise.
    With --to seg the structures of a DICOM patient become one SEG.dcm, a DICOM Segmentation that refers to the images where they are.
    Each patient is written whole or not at all. When a patient of a cohort cannot be converted the others are, and the exit code is
    that of an error.

    Examples:
        oncontour convert hospital/patient-7 nifti/patient-7
        oncontour convert openkbp/validation dicom --to dicom
        oncontour convert cohort.csv nifti --to nifti --overwrite
        oncontour convert hospital/patient-7 segments/patient-7 --to seg

    Args:
        src: a patient (a folder of DICOM, of NIfTI or of OpenKBP CSVs), a folder of patients, or a CSV with the columns patient,path
        dst: the folder to write; for a cohort it gets one folder for each patient
        to: dicom, nifti or seg; by default DICOM becomes NIfTI and anything else becomes DICOM
        series_uid: which image series, where a DICOM folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where a DICOM folder holds several; by default the newest
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded in what is written
        dose: SOPInstanceUID or file of the RTDOSE that is meant, where there are several; those of several plans are added up
        overwrite: replace what an earlier conversion wrote to dst
        progress: called with the fraction done
    """
    from oncontour.io import read
    from oncontour.io.cohort import Cohort, is_cohort
    from oncontour.io.dicom.seg_write import check_installed
    from oncontour.io.folders import name_of

    src, dst = Path(src), Path(dst)
    _check_places(src, dst, overwrite)
    if to == "seg":
        check_installed()
    if not is_cohort(src):
        read_as = partial(read, series_uid=series_uid, structure_set_uid=structure_set_uid, same_frame=same_frame, doses=dose or ())
        return Conversions((_one(src, dst, readable(name_of(src)), to, read_as),))
    if series_uid or structure_set_uid or same_frame or dose:
        what = "a series, structure set, frame of reference or dose can be chosen for one patient, not for a cohort"
        raise InputError(what, where=str(src), hint="convert that patient alone")
    cohort = Cohort.open(src)
    done, failed = [], []
    for n, id in enumerate(cohort.ids):
        try:
            done.append(_one(cohort.path(id), dst / _folder_name(id, cohort.ids), id, to, read))
        except OutputError:
            raise
        except OncontourError as error:
            failed.append(f"{id}: {error}")
        if progress:
            progress((n + 1) / len(cohort))
    if failed:
        raise IncompleteError(
            f"{len(failed)} of {len(cohort)} patients could not be converted ({'; '.join(failed)}); the other {len(done)} are in {dst}",
            where=str(src),
            done=str(Conversions(tuple(done))),
        )
    return Conversions(tuple(done))


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
    if dst.is_dir() and any(dst.iterdir()) and not overwrite:
        raise OutputError("the folder is not empty", where=str(dst), hint="name a new folder, or replace what is there with --overwrite")


def _folder_name(id: str, ids: Iterable[str]) -> str:
    """The id as a folder may be called. Raises CohortError where two ids would share one."""
    from oncontour.io.image.layout import file_name

    name = file_name(id)
    if sum(file_name(other).casefold() == name.casefold() for other in ids) > 1:
        raise CohortError(f"patient {id!r} and another would share the folder {name!r}")
    return name
