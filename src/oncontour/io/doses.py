"""Which doses of a folder are meant, where somebody says so; and what the RT plan tells of the one that is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oncontour.errors import DoseError
from oncontour.io.dicomparse import read_header
from oncontour.io.rtdose import read_rtdose
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
    """The dose that ``wanted`` names, each by SOPInstanceUID or by file (in the folder or elsewhere); notes; what its plan tells.

    Several are added up: the beams or fraction groups of a plan as ``read_rtdose`` does, and then the plans, which must lie on one grid.
    Raises DoseError for a name that is no dose here, a dose in another frame of reference than the images, and plans on different grids.
    """
    chosen = list({dose.sop_instance_uid: dose for name in wanted for dose in [_found(name, files)]}.values())
    for dose in chosen:
        if dose.frame_of_reference_uid != source.frame_of_reference_uid:
            frames = f"{dose.frame_of_reference_uid or 'none'}, that of the images {source.frame_of_reference_uid}"
            raise DoseError(
                f"the dose lies in another frame of reference than the images: {frames}",
                where=dose.path.name,
                hint="choose a dose calculated on these images",
            )
    plans = [f.path for f in files if f.kind == "RTPLAN"]
    groups = [
        [d.path for d in chosen if d.referenced_instances[:1] == plan] for plan in dict.fromkeys(d.referenced_instances[:1] for d in chosen)
    ]
    read = [read_rtdose(group, plans=plans) for group in groups]
    total, notes = read[0]
    for volume, more in read[1:]:
        if not volume.geometry.same_grid(total.geometry, _SAME_PLACE_MM):
            raise DoseError(
                f"doses of {len(read)} plans lie on different grids: {total.geometry} and {volume.geometry}",
                where=", ".join(d.path.name for d in chosen),
                hint="add the plans up in the planning system, and choose that dose",
            )
        total, notes = Volume(total.array + volume.array, total.geometry), (*notes, *more)
    if len(read) > 1:
        notes = (*notes, f"the dose is the sum of {len(read)} plans: {', '.join(d.path.name for d in chosen)}")
    return total, tuple(dict.fromkeys(notes)), plan_facts(chosen, files)


def _found(name: str | Path, files: Sequence[SeriesFiles]) -> SeriesFiles:
    doses = [f for f in files if f.kind == "RTDOSE"]
    path = Path(name)
    for dose in doses:
        if str(name) in (dose.sop_instance_uid, dose.path.name) or (path.exists() and path.samefile(dose.path)):
            return dose
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
    """``fractions`` and ``prescription_gy`` (the highest) as the one plan of ``doses`` tells them; nothing where several or none is."""
    uids = {uid for dose in doses for uid in dose.referenced_instances[:1]}
    plans = [f for f in files if f.kind == "RTPLAN" and f.sop_instance_uid in uids]
    header = read_header(plans[0].path, _PLAN) if len(uids) == len(plans) == 1 else None
    if header is None:
        return {}
    fractions = [group.whole("NumberOfFractionsPlanned") or 0 for group in header.items("FractionGroupSequence")]
    doses_gy = [reference.number("TargetPrescriptionDose") or 0.0 for reference in header.items("DoseReferenceSequence")]
    facts: dict[str, Any] = {"fractions": sum(fractions)} if sum(fractions) > 0 else {}
    return {**facts, **({"prescription_gy": max(doses_gy)} if max(doses_gy, default=0.0) > 0 else {})}
