"""What RTPLANs tell of a dose: which beams and fraction groups there must be, how many fractions, and what was prescribed.

Source: DICOM PS3.3 C.8.8.3 (references of a dose), C.8.8.10 (prescription), C.8.8.13 (fraction scheme), C.8.8.14 (beams).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oncontour.core.volume import Volume
from oncontour.errors import OncontourError
from oncontour.io.dicom.copies import PLAN_KEYWORDS, content_of, first_of_each, pair_of
from oncontour.io.dicom.header import Header, read_header
from oncontour.io.dicom.rtdose_read import doses_of_groups, groups_that_treat
from oncontour.io.dicom.scan import SeriesFiles

_ROUNDED = 0.005
"""Part of the maximum by which doses of fraction groups may miss that of their plan when added up: each is rounded on its own."""


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
    kept, different = first_of_each([f for f in files if f.kind == "RTPLAN" and f.sop_instance_uid in uids])
    unclear = {first.sop_instance_uid for first, _ in different}
    uncounted = {first.sop_instance_uid for first, file in different if content_of(first)[0] != content_of(file)[0]}
    notes = (
        f"plans {pair_of(first, file)} bear one SOPInstanceUID ({file.sop_instance_uid}) and are not the same: "
        f"{'beams, ' if file.sop_instance_uid in uncounted else ''}fractions and prescription of neither are taken"
        for first, file in different
    )
    counting = tuple(plan.path for plan in kept if plan.sop_instance_uid not in uncounted)
    return Plans(counting, tuple(plan.path for plan in kept if plan.sop_instance_uid not in unclear), tuple(notes))


@dataclass(frozen=True, eq=False)
class FractionGroup:
    """A part of the dose that is given in equal fractions: a fraction group of an RTPLAN (PS3.3 C.8.8.13), or a plan of which no more is
    known."""

    fractions: int | None
    """NumberOfFractionsPlanned, None where it is not told."""
    dose: Volume | None
    """Gy of all its fractions, None where no file tells it alone."""


def plan_facts(
    read: Sequence[tuple[Sequence[SeriesFiles], Volume]], files: Sequence[SeriesFiles], plans: Sequence[Path]
) -> dict[str, object]:
    """What the plans tell of the doses that were ``read``: of each plan (or sum of plans) its files and its Gy.

    ``fraction_groups``: FractionGroups whose doses add up to all that was read, of every plan; ``fractions`` where there is one group
    alone; ``prescription_gy``, the highest, where there is one plan alone. ``files``: all that lie there, of which beams and fraction
    groups beside the dose of a whole plan tell which part each group gives. ``plans``: those that are ``telling``. A sum of plans
    (MULTI_PLAN) has several, however many of them it names: nothing is told of it.
    """
    headers = {header.plain("SOPInstanceUID"): header for path in plans if (header := read_header(path, PLAN_KEYWORDS)) is not None}
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
    facts: dict[str, object] = {"fraction_groups": tuple(groups)}
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
