"""Which doses of a folder are meant, where somebody says so; and what the RT plan tells of the one that is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from oncontour.core.notes import Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import DoseError, InputError, OncontourError
from oncontour.io.dicom.dicomfile import EXPLICIT_BIG, Header, quiet
from oncontour.io.dicom.dicomparse import read_header
from oncontour.io.dicom.rtdose import dose_kind, doses_of_groups, groups_that_treat, read_rtdose, what_is_read
from oncontour.io.dicom.scan import SeriesFiles, scan
from oncontour.io.dicom.source import DicomSource

_ROUNDED = 0.005
"""Part of the maximum by which doses of fraction groups may miss that of their plan when added up: each is rounded on its own."""
_DATES = (
    *("StructureSetDate", "StructureSetTime", "InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"),
    *("SOPClassUID", "SOPInstanceUID"),
)
_PLAN = (
    "SOPClassUID",
    "SOPInstanceUID",
    "FractionGroupSequence",
    "BeamSequence",
    "NumberOfFractionsPlanned",
    "DoseReferenceSequence",
    "TargetPrescriptionDose",
)


def read_doses(
    wanted: Sequence[str | Path], files: Sequence[SeriesFiles], source: DicomSource
) -> tuple[Volume, tuple[str, ...], dict[str, Any]]:
    """The dose that ``wanted`` names, each by SOPInstanceUID or by file (in the folder or elsewhere); notes; what is known of it, that is
    ``facts["rtdose"]``, a DoseKind, and what its plan tells.

    Several are added up: the beams or fraction groups of a plan as ``read_rtdose`` does, and then the plans, which must lie on one grid.
    Raises DoseError for a name that is no dose here or that of several, two different files of one UID, a dose in another frame of
    reference than the images, a plan that would be counted twice, and plans on different grids.
    """
    picked = one_of_each(sorted((_found(name, files) for name in wanted), key=lambda dose: dose.sop_instance_uid), DoseError)
    chosen = [dose for dose in picked if has_grid(dose)]
    if len(chosen) < len(picked):
        bare = next(dose for dose in picked if not has_grid(dose))
        raise DoseError("no dose grid in the file, DVHs alone", where=bare.path.name, hint=f"choose one of {listed(_grids(files))}")
    names = ", ".join(sorted(d.path.name for d in chosen))
    for dose in chosen:
        if dose.frame_of_reference_uid != source.frame_of_reference_uid:
            frames = f"{dose.frame_of_reference_uid or 'none'}, that of the images {source.frame_told}"
            raise DoseError(
                f"the dose lies in another frame of reference than the images: {frames}",
                where=dose.path.name,
                hint="choose a dose calculated on these images",
            )
    groups: dict[tuple[str, ...], list[SeriesFiles]] = {}
    for dose in chosen:
        groups.setdefault(plan_uids(dose), []).append(dose)
    _check_once(groups, names)
    plans = plans_of(chosen, files)
    paths = [[dose.path for dose in group] for group in groups.values()]
    read = [read_rtdose(group, plans=plans.counting) for group in paths]
    total, notes = read[0][0], (*plans.notes, *read[0][1])
    for volume, more in read[1:]:
        if not volume.geometry.same_grid(total.geometry):
            raise DoseError(
                f"doses of {len(read)} plans lie on different grids: {total.geometry.difference(volume.geometry)}",
                where=names,
                hint="add the plans up in the planning system, and choose that dose",
            )
        total, notes = Volume(total.array + volume.array, total.geometry), (*notes, *more)
    if len(read) > 1:
        what = f"the dose is the sum of {sum(max(len(uids), 1) for uids in groups)} plans: {names}"
        notes = (*notes, Note(NoteCode.DOSE_OF_PLANS, what))
    kind = reduce(add, (dose_kind(group, plans=plans.counting) for group in paths))
    of_plans = [(group, volume) for group, (volume, _) in zip(groups.values(), read, strict=True)]
    return total, tuple(dict.fromkeys(notes)), {**plan_facts(of_plans, files, plans.telling), "rtdose": kind}


def one_of_each(files: Sequence[SeriesFiles], error: type[InputError]) -> list[SeriesFiles]:
    """``files`` with one of those that are copies of one instance: the newest, and of equally new ones the same whatever they are called.

    A UID names one instance (PS3.5 9), yet who edits a file may leave it as it was: raises ``error`` where of two files of one
    SOPInstanceUID something differs that is read here. Of an RTSTRUCT that is its structures (numbers, names, frames of reference) and
    contours, of a SEG its segments, frames and voxels, of an RTDOSE its kind, plans, parts, grid and Gy. What is not read may differ:
    dates of export, approval, private elements, transfer syntax. What cannot be compared counts as different.
    """
    kept, different = _first_of_each(files)
    for first, file in different:
        raise error(
            f"{_pair(first, file)} bear one SOPInstanceUID ({file.sop_instance_uid}) and are not the same",
            hint="take the one that is not meant out of the folder; where both are, export them again, each with its own UID",
        )
    return kept


def _first_of_each(files: Sequence[SeriesFiles]) -> tuple[list[SeriesFiles], list[tuple[SeriesFiles, SeriesFiles]]]:
    """The first file of each SOPInstanceUID, and each that is not the same as the first of its UID, after that one."""
    kept: dict[str, SeriesFiles] = {}
    different = []
    for file in _copies_in_order(files):
        first = kept.setdefault(file.sop_instance_uid, file)
        if first.path != file.path and not _same(first, file):
            different.append((first, file))
    return list(kept.values()), different


def _copies_in_order(files: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    """``files``, of which copies of one instance stand where its first did: the newest first, big endian last; among equally new ones the
    content decides, not the name."""
    groups: dict[str, list[SeriesFiles]] = {}
    for file in files:
        groups.setdefault(file.sop_instance_uid, []).append(file)
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=lambda file: (_is_plain(file), date_of(file), _digest(file.path)), reverse=True)
    return [file for group in groups.values() for file in group]


def _is_plain(file: SeriesFiles) -> bool:
    """Not big endian, in which some objects are compared and not read."""
    return file.files[0].transfer_syntax_uid != EXPLICIT_BIG


def date_of(file: SeriesFiles) -> str:
    """Date and time of a structure set, else of the instance, else of its content (as of a segmentation, PS3.3 C.7.6.16.1), as digits; ""
    where the file has none."""
    header = read_header(file.path, _DATES)
    if header is None:
        return ""
    return next((told for n in (0, 2, 4) if (told := "".join(header.plain(key) for key in _DATES[n : n + 2]))), "")


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:  # whoever compares the copies finds them different
        return b""


def _pair(one: SeriesFiles, other: SeriesFiles) -> str:
    """Two files by name, by path where the names are the same."""
    names = (one.path.name, other.path.name) if one.path.name != other.path.name else (str(one.path), str(other.path))
    return " and ".join(sorted(names))


def has_grid(dose: SeriesFiles) -> bool:
    """Whether an RTDOSE is a dose grid, whole or cut short: one without pixels, and without the attributes that tell how they lie, holds
    DVHs or isodoses alone (PS3.3 A.18.3: the image modules are there where the dose is a grid)."""
    file = dose.files[0]
    return file.pixels is not None or file.binary("Rows") is not None or bool(file.plain("GridFrameOffsetVector"))


def plan_uids(dose: SeriesFiles) -> tuple[str, ...]:
    """SOPInstanceUIDs of the plans that an RTDOSE refers to: several where it is their sum (PS3.3 C.8.8.3), none where it names none."""
    uids = [plan.plain("ReferencedSOPInstanceUID") for plan in dose.files[0].items("ReferencedRTPlanSequence")]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


@dataclass(frozen=True)
class Plans:
    """RTPLANs that doses refer to: ``counting`` tell which beams and fraction groups there must be, ``telling`` fractions and prescription
    too; ``notes`` say which tell less than that."""

    counting: tuple[Path, ...]
    telling: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def plans_of(doses: Sequence[SeriesFiles], files: Sequence[SeriesFiles]) -> Plans:
    """The RTPLANs among ``files`` that ``doses`` refer to.

    Where two of one UID differ neither tells fractions and prescription, nor the beams where it is these that differ, and a note says so:
    the dose is the same with either.
    """
    uids = {uid for dose in doses for uid in plan_uids(dose)}
    kept, different = _first_of_each([f for f in files if f.kind == "RTPLAN" and f.sop_instance_uid in uids])
    unclear = {first.sop_instance_uid for first, _ in different}
    uncounted = {first.sop_instance_uid for first, file in different if _content(first)[0] != _content(file)[0]}
    notes = (
        f"plans {_pair(first, file)} bear one SOPInstanceUID ({file.sop_instance_uid}) and are not the same: "
        f"{'beams, ' if file.sop_instance_uid in uncounted else ''}fractions and prescription of neither are taken"
        for first, file in different
    )
    counting = tuple(plan.path for plan in kept if plan.sop_instance_uid not in uncounted)
    return Plans(counting, tuple(plan.path for plan in kept if plan.sop_instance_uid not in unclear), tuple(notes))


# ---- copies


def _same(one: SeriesFiles, other: SeriesFiles) -> bool:
    """Whether two files are the same to the byte, or in all that is read of them; what cannot be compared is not."""
    try:
        first, second = (_digest(file.path) for file in (one, other))
        return (first == second != b"") or _content(one) == _content(other)
    except Exception:
        return False


def _content(file: SeriesFiles) -> tuple[object, ...]:
    """What is read of a file, comparable. Of one that is refused why it is: a copy that is refused for the same tells nothing else."""
    from oncontour.io.dicom import seg

    readers = {"RTSTRUCT": _structures, "RTDOSE": what_is_read, "RTPLAN": _plan, "SEG": seg.what_is_read}
    try:
        return readers[file.kind](file.path)
    except OncontourError as error:
        return (type(error).__name__, error.what)


def _structures(path: Path) -> tuple[object, ...]:
    """Frames of reference and structures (C.8.8.5), and contours (C.8.8.6) as numbers."""
    import pydicom

    with quiet():
        file = pydicom.dcmread(path)
        referenced = tuple(str(item.get("FrameOfReferenceUID", "")) for item in file.get("ReferencedFrameOfReferenceSequence") or ())
        rois = tuple(
            (
                int(roi.ROINumber),
                str(roi.get("ROIName") or "").strip(),
                str(roi.get("ReferencedFrameOfReferenceUID", "")),
                roi.get("ROIGenerationAlgorithm") == "AUTOMATIC",  # tells an empty structure from one that was not drawn
            )
            for roi in file.get("StructureSetROISequence") or ()
        )
        contours = tuple(
            (int(roi.ReferencedROINumber), tuple(_contour(contour) for contour in roi.get("ContourSequence") or ()))
            for roi in file.get("ROIContourSequence") or ()
        )
    return str(file.get("FrameOfReferenceUID", "")), referenced, rois, contours


def _contour(contour: Any) -> tuple[str, bytes]:
    """Geometric type and coordinates: the numbers, not how they are spelled."""
    element = contour.get_item("ContourData") if "ContourData" in contour else None
    value = element.value if element is not None else None
    words = value.decode("ascii").strip("\0 ").split("\\") if isinstance(value, bytes) else value
    numbers = np.array(words or [], np.float64) if words != [""] else np.zeros(0)
    return str(contour.get("ContourGeometricType", "")), (np.atleast_1d(numbers) + 0.0).tobytes()  # + 0.0: -0 is 0


def _plan(path: Path) -> tuple[object, ...]:
    """(Fraction groups with their beams, and which beams treat), fractions, and prescriptions (C.8.8.10, C.8.8.13, C.8.8.14)."""
    header = read_header(path, _PLAN)
    if header is None:
        raise DoseError("not an RTPLAN file", where=str(path))
    groups = list(header.items("FractionGroupSequence"))
    parts = tuple(
        (
            group.whole("FractionGroupNumber"),
            group.whole("NumberOfBeams"),
            tuple(beam.whole("ReferencedBeamNumber") for beam in group.items("ReferencedBeamSequence")),
        )
        for group in groups
    )
    fractions = tuple(group.whole("NumberOfFractionsPlanned") for group in groups)
    beams = tuple((beam.whole("BeamNumber"), beam.plain("TreatmentDeliveryType")) for beam in header.items("BeamSequence"))
    return (
        (parts, beams),
        fractions,
        tuple(reference.number("TargetPrescriptionDose") for reference in header.items("DoseReferenceSequence")),
    )


# ---- which are meant


def _check_once(groups: Iterable[tuple[str, ...]], names: str) -> None:
    """Raise DoseError where doses to be added up have a plan in common: it would count twice."""
    uids = [uid for group in groups for uid in group]
    double = sorted({uid for uid in uids if uids.count(uid) > 1})
    if double:
        raise DoseError(
            f"plan {double[0]} is in more than one of the doses that are to be added up",
            where=names,
            hint="choose doses that have no plan in common",
        )


def _found(name: str | Path, files: Sequence[SeriesFiles]) -> SeriesFiles:
    """The dose of this file, of this SOPInstanceUID, or of this file name where it is the only one."""
    doses = [f for f in files if f.kind == "RTDOSE"]
    path = Path(name)
    here = [d for d in doses if path.exists() and path.samefile(d.path)][:1]
    named = here or one_of_each([d for d in doses if str(name) in (d.sop_instance_uid, d.path.name)], DoseError)
    if len(named) > 1:
        raise DoseError(f"{len(named)} doses are called {name}: {listed(named)}", hint="name one by its SOPInstanceUID")
    if named:
        return named[0]
    if path.is_file():
        elsewhere = [f for f in scan(path) if f.kind == "RTDOSE"]
        if elsewhere:
            return elsewhere[0]
        raise DoseError("not an RTDOSE file", where=str(path))
    raise DoseError(f"there is no dose {name}; there are {listed(_grids(files))}", hint="name one by its SOPInstanceUID or its file")


def _grids(files: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    return [file for file in files if file.kind == "RTDOSE" and has_grid(file)]


def listed(doses: Sequence[SeriesFiles]) -> str:
    """Doses in words: file, of what, SOPInstanceUID."""
    return (
        "; ".join(
            f"{d.path.name} ({d.files[0].plain('DoseSummationType') or 'of what it does not say'}, {d.sop_instance_uid})" for d in doses
        )
        or "none"
    )


@dataclass(frozen=True, eq=False)
class FractionGroup:
    """A part of the dose that is given in equal fractions: a fraction group of an RTPLAN (PS3.3 C.8.8.13), or a plan of which no more is
    known."""

    fractions: int | None
    """NumberOfFractionsPlanned, None where it is not told."""
    dose: Volume | None
    """Gy of all its fractions, None where no file tells it alone."""


def plan_facts(read: Sequence[tuple[Sequence[SeriesFiles], Volume]], files: Sequence[SeriesFiles], plans: Sequence[Path]) -> dict[str, Any]:
    """What the plans tell of the doses that were ``read``: of each plan (or sum of plans) its files and its Gy.

    ``fraction_groups``: FractionGroups whose doses add up to all that was read, of every plan; ``fractions`` where there is one group
    alone; ``prescription_gy``, the highest, where there is one plan alone. ``files``: all that lie there, of which beams and fraction
    groups beside the dose of a whole plan tell which part each group gives. ``plans``: those that are ``telling``. A sum of plans
    (MULTI_PLAN) has several, however many of them it names: nothing is told of it.
    """
    headers = {header.plain("SOPInstanceUID"): header for path in plans if (header := read_header(path, _PLAN)) is not None}
    groups: list[FractionGroup] = []
    gy: list[float] = []
    for doses, total in read:
        several = any(dose.files[0].plain("DoseSummationType") == "MULTI_PLAN" for dose in doses)
        uids = {uid for dose in doses for uid in plan_uids(dose)}
        header = headers.get(next(iter(uids))) if len(uids) == 1 and not several else None
        if header is None:
            groups.append(FractionGroup(None, None if several or len(uids) > 1 else total))
            continue
        groups += _groups_of(header, total, [f for f in files if f.kind == "RTDOSE" and set(plan_uids(f)) == uids], doses)
        gy += [reference.number("TargetPrescriptionDose") or 0.0 for reference in header.items("DoseReferenceSequence")]
    facts: dict[str, Any] = {"fraction_groups": tuple(groups)}
    if len(groups) == 1 and groups[0].fractions:
        facts["fractions"] = groups[0].fractions
    return {**facts, **({"prescription_gy": max(gy)} if len(read) == 1 and max(gy, default=0.0) > 0 else {})}


def _groups_of(plan: Header, total: Volume, beside: Sequence[SeriesFiles], read: Sequence[SeriesFiles]) -> list[FractionGroup]:
    """The fraction groups of ``plan``, whose dose is ``total``; ``beside``: its RTDOSEs, ``read``: those that ``total`` came from."""
    listed = groups_that_treat(plan) or list(plan.items("FractionGroupSequence"))
    counts = [group.whole("NumberOfFractionsPlanned") or None for group in listed]
    if len(counts) < 2:
        return [FractionGroup(counts[0] if counts else None, total)]
    frame = read[0].frame_of_reference_uid
    paths = dict.fromkeys(d.path for d in (*read, *(b for b in beside if b.frame_of_reference_uid == frame)))
    try:
        known = doses_of_groups(paths, plan)
    except OncontourError:  # a part beside the whole dose that cannot be read tells nothing
        known = {}
    numbers = [group.whole("FractionGroupNumber") for group in listed]
    doses = [None if number is None else known.get(number) for number in numbers]
    if not _adds_up([dose for dose in doses if dose is not None], total):
        doses = [None] * len(counts)
    return [FractionGroup(count, dose) for count, dose in zip(counts, doses, strict=True)]


def _adds_up(parts: Sequence[Volume], total: Volume) -> bool:
    """Whether ``parts`` are ``total`` when added up, but for _ROUNDED of its maximum."""
    if not parts or not all(part.geometry.same_grid(total.geometry) for part in parts):
        return False
    away = np.abs(sum((part.array for part in parts), np.zeros(total.array.shape, np.float64)) - total.array)
    return float(away.max()) <= _ROUNDED * float(total.array.max())
