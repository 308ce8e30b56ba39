"""Which doses of a folder are meant: that of one plan on these images, or those that somebody names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from oncontour.core.notes import Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import DoseError
from oncontour.io.dicom.copies import one_of_each
from oncontour.io.dicom.rtdose_read import WHOLE, dose_kind, read_rtdose
from oncontour.io.dicom.rtplan import plan_facts, plan_uids, plans_of
from oncontour.io.dicom.scan import SeriesFiles, scan
from oncontour.io.dicom.source import DicomSource


@dataclass(frozen=True, eq=False)
class Dose:
    """The dose that was read, None where there is none that belongs to the images; remarks; and what is known of it: ``facts["rtdose"]``, a
    DoseKind, and what its plan tells (``rtplan.plan_facts``)."""

    volume: Volume | None
    notes: tuple[str, ...]
    facts: Mapping[str, object]


def belonging_dose(files: Sequence[SeriesFiles], source: DicomSource, left_out: list[str]) -> Dose:
    """The dose of one plan in the frame of reference of the images, where it is clear which; what is ``left_out`` is told there.

    Raises DoseError where two different files bear one SOPInstanceUID, and what ``read_rtdose`` raises.
    """
    doses = [f for f in files if f.kind == "RTDOSE" and has_grid(f)]
    bare = [f for f in files if f.kind == "RTDOSE" and f not in doses]
    others = [f for f in doses if f.frame_of_reference_uid != source.frame_of_reference_uid]
    left_out += (*_left_out("RTDOSE without a dose grid (DVHs alone)", bare), *_left_out("RTDOSE of other images", others))
    mine = one_of_each([f for f in doses if f not in others], DoseError)
    if not mine:
        return Dose(None, (), {})
    plans = {plan_uids(f)[:1] for f in mine}
    whole = [f for f in mine if f.files[0].plain("DoseSummationType") in WHOLE]
    if len(plans) > 1 or len(whole) > 1:
        names = ", ".join(f.path.name for f in mine)
        what = f"{len(mine)} doses of {len(plans)} plan(s), and it is not told which is meant: none is read ({names})"
        return Dose(None, (Note(NoteCode.DOSE_LEFT_OUT, what),), {})
    paths, its_plans = [f.path for f in mine], plans_of(mine, files)
    dose, said = read_rtdose(paths, plans=its_plans.counting)
    facts = {**plan_facts([(mine, dose)], files, its_plans.telling), "rtdose": dose_kind(paths, plans=its_plans.counting)}
    return Dose(dose, (*its_plans.notes, *said), facts)


def _left_out(what: str, files: Iterable[SeriesFiles]) -> list[Note]:
    names = ", ".join(f.path.name for f in files)
    return [Note(NoteCode.DOSE_LEFT_OUT, f"{what} left out: {names}")] if names else []


def named_dose(wanted: Sequence[str | Path], files: Sequence[SeriesFiles], source: DicomSource) -> Dose:
    """The dose that ``wanted`` names, each by SOPInstanceUID or by file (in the folder or elsewhere).

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
            what = f"the dose lies in another frame of reference than the images: {frames}"
            raise DoseError(what, where=dose.path.name, hint="choose a dose calculated on these images")
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
            what = f"doses of {len(read)} plans lie on different grids: {total.geometry.difference(volume.geometry)}"
            raise DoseError(what, where=names, hint="add the plans up in the planning system, and choose that dose")
        total, notes = Volume(total.array + volume.array, total.geometry), (*notes, *more)
    if len(read) > 1:
        what = f"the dose is the sum of {sum(max(len(uids), 1) for uids in groups)} plans: {names}"
        notes = (*notes, Note(NoteCode.DOSE_OF_PLANS, what))
    kind = reduce(add, (dose_kind(group, plans=plans.counting) for group in paths))
    of_plans = [(group, volume) for group, (volume, _) in zip(groups.values(), read, strict=True)]
    return Dose(total, tuple(dict.fromkeys(notes)), {**plan_facts(of_plans, files, plans.telling), "rtdose": kind})


def has_grid(dose: SeriesFiles) -> bool:
    """Whether an RTDOSE is a dose grid, whole or cut short: one without pixels, and without the attributes that tell how they lie, holds
    DVHs or isodoses alone (PS3.3 A.18.3: the image modules are there where the dose is a grid)."""
    file = dose.files[0]
    return file.pixels is not None or file.binary("Rows") is not None or bool(file.plain("GridFrameOffsetVector"))


def _check_once(groups: Iterable[tuple[str, ...]], names: str) -> None:
    """Raise DoseError where doses to be added up have a plan in common: it would count twice."""
    uids = [uid for group in groups for uid in group]
    double = sorted({uid for uid in uids if uids.count(uid) > 1})
    if double:
        what = f"plan {double[0]} is in more than one of the doses that are to be added up"
        raise DoseError(what, where=names, hint="choose doses that have no plan in common")


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
    what = [d.files[0].plain("DoseSummationType") or "of what it does not say" for d in doses]
    return "; ".join(f"{d.path.name} ({of}, {d.sop_instance_uid})" for d, of in zip(doses, what, strict=True)) or "none"
