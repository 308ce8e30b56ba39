"""Which doses of a folder are meant, where somebody says so; and what the RT plan tells of the one that is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from oncontour.errors import DoseError, InputError
from oncontour.io.dicomfile import quiet
from oncontour.io.dicomparse import read_header
from oncontour.io.rtdose import dose_kind, read_rtdose
from oncontour.io.scan import SeriesFiles, scan
from oncontour.io.source import DicomSource
from oncontour.volume import Volume

_SAME_PLACE_MM = 0.01
_PLAN = (
    "SOPClassUID",
    "SOPInstanceUID",
    "FractionGroupSequence",
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
    chosen = one_of_each([_found(name, files) for name in wanted], DoseError)
    names = ", ".join(d.path.name for d in chosen)
    for dose in chosen:
        if dose.frame_of_reference_uid != source.frame_of_reference_uid:
            frames = f"{dose.frame_of_reference_uid or 'none'}, that of the images {source.frame_of_reference_uid}"
            raise DoseError(
                f"the dose lies in another frame of reference than the images: {frames}",
                where=dose.path.name,
                hint="choose a dose calculated on these images",
            )
    groups: dict[tuple[str, ...], list[Path]] = {}
    for dose in chosen:
        groups.setdefault(plan_uids(dose), []).append(dose.path)
    _check_once(groups, names)
    plans = plans_of(chosen, files)
    read = [read_rtdose(group, plans=plans) for group in groups.values()]
    total, notes = read[0]
    for volume, more in read[1:]:
        if not volume.geometry.same_grid(total.geometry, _SAME_PLACE_MM):
            raise DoseError(
                f"doses of {len(read)} plans lie on different grids: {total.geometry} and {volume.geometry}",
                where=names,
                hint="add the plans up in the planning system, and choose that dose",
            )
        total, notes = Volume(total.array + volume.array, total.geometry), (*notes, *more)
    if len(read) > 1:
        notes = (*notes, f"the dose is the sum of {sum(max(len(uids), 1) for uids in groups)} plans: {names}")
    kind = reduce(add, (dose_kind(group, plans=plans) for group in groups.values()))
    return total, tuple(dict.fromkeys(notes)), {**plan_facts(chosen, files), "rtdose": kind}


def one_of_each(files: Sequence[SeriesFiles], error: type[InputError]) -> list[SeriesFiles]:
    """``files`` with the first of those that are copies of one instance.

    A UID names one instance (PS3.5 9), yet who edits a file may leave it as it was: raises ``error`` where two files of one
    SOPInstanceUID are not the same in every attribute and voxel (transfer syntax and file meta information may differ).
    """
    kept: dict[str, SeriesFiles] = {}
    for file in files:
        first = kept.setdefault(file.sop_instance_uid, file)
        if first.path != file.path and not _same(first.path, file.path):
            pair = (first.path, file.path)
            one, other = (path.name for path in pair) if first.path.name != file.path.name else map(str, pair)
            raise error(
                f"{one} and {other} bear one SOPInstanceUID ({file.sop_instance_uid}) and are not the same",
                hint="take the one that is not meant out of the folder; where both are, export them again, each with its own UID",
            )
    return list(kept.values())


def plan_uids(dose: SeriesFiles) -> tuple[str, ...]:
    """SOPInstanceUIDs of the plans that an RTDOSE refers to: several where it is their sum (PS3.3 C.8.8.3), none where it names none."""
    uids = [plan.plain("ReferencedSOPInstanceUID") for plan in dose.files[0].items("ReferencedRTPlanSequence")]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def plans_of(doses: Sequence[SeriesFiles], files: Sequence[SeriesFiles]) -> list[Path]:
    """The RTPLANs among ``files`` that ``doses`` refer to. Raises DoseError where two different ones bear one UID."""
    uids = {uid for dose in doses for uid in plan_uids(dose)}
    return [plan.path for plan in one_of_each([f for f in files if f.kind == "RTPLAN" and f.sop_instance_uid in uids], DoseError)]


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold one dataset, to the byte or attribute by attribute; what cannot be compared is not the same."""
    import pydicom

    digests = []
    try:
        for path in (one, other):
            with path.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").digest())
        if digests[0] == digests[1]:
            return True
        with quiet():
            return bool(pydicom.dcmread(one) == pydicom.dcmread(other))
    except Exception:
        return False


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
    raise DoseError(f"there is no dose {name}; there are {listed(doses)}", hint="name one by its SOPInstanceUID or its file")


def listed(doses: Sequence[SeriesFiles]) -> str:
    """Doses in words: file, of what, SOPInstanceUID."""
    return (
        "; ".join(
            f"{d.path.name} ({d.files[0].plain('DoseSummationType') or 'of what it does not say'}, {d.sop_instance_uid})" for d in doses
        )
        or "none"
    )


def plan_facts(doses: Sequence[SeriesFiles], files: Sequence[SeriesFiles]) -> dict[str, Any]:
    """``fractions`` and ``prescription_gy`` (the highest) as the one plan of ``doses`` tells them; nothing where several or none is.

    A sum of plans (MULTI_PLAN) has several, however many of them it names. Raises DoseError where two different plans bear its UID.
    """
    several = any(dose.files[0].plain("DoseSummationType") == "MULTI_PLAN" for dose in doses)
    uids = {uid for dose in doses for uid in plan_uids(dose)}
    plans = plans_of(doses, files)
    header = read_header(plans[0], _PLAN) if len(uids) == len(plans) == 1 and not several else None
    if header is None:
        return {}
    fractions = [group.whole("NumberOfFractionsPlanned") or 0 for group in header.items("FractionGroupSequence")]
    doses_gy = [reference.number("TargetPrescriptionDose") or 0.0 for reference in header.items("DoseReferenceSequence")]
    facts: dict[str, Any] = {"fractions": sum(fractions)} if sum(fractions) > 0 else {}
    return {**facts, **({"prescription_gy": max(doses_gy)} if max(doses_gy, default=0.0) > 0 else {})}
