"""From a table of outcomes and a cohort to the cases that a risk model sees: real patients as they are, virtual ones as they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.errors import CohortError, OncontourError
from oncontour.progress import Progress
from oncontour.risk.inputs import Patient, View, around, patient_of
from oncontour.risk.outcome_table import Outcomes, Person
from oncontour.risk.virtual_patients import Virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncontour.io.cohort import Cohort


def cases(
    outcomes: Outcomes, cohort: Cohort | Mapping[str, Case], skip: list[str] | None = None, view: View | None = None
) -> Iterator[tuple[Person, Case]]:
    """Each person with the case that a model sees, originals read once, in the order of originals.

    ``facts`` of the case get ``outcomes``, ``original``, ``simulated`` and the person's facts. A person whose patient cannot be read, or is
    not in the cohort, goes to ``skip`` as a sentence; without it the error is raised.
    With ``view`` virtual patients are cut to what it can show, which is much less work.
    """
    by_source: dict[str, list[Person]] = {}
    for person in outcomes.people:
        by_source.setdefault(person.source, []).append(person)
    for source, people in by_source.items():
        try:
            original = cohort[source]
            if view is not None and any(person.made for person in people):
                original = around(original, view)
        except OncontourError as error:
            if skip is None:
                raise
            skip.append(f"{source} ({len(people)} row{'s' * (len(people) > 1)}) was left out: {error}")
            continue
        for person in people:
            try:
                case = as_case(person, original, simulated=outcomes.simulated)
            except OncontourError as error:
                if skip is None:
                    raise
                skip.append(f"{person.id} was left out: {error}")
                continue
            yield person, case


def as_case(person: Person, original: Case, *, simulated: bool) -> Case:
    """``original`` as this person."""
    case = original
    if person.made:
        m = person.made
        shift = (m["shift_x_mm"], m["shift_y_mm"], m["shift_z_mm"])
        made = Virtual(person.source, int(m["number"]), m["scale"], shift, bool(m["mirrored"]), m["noise_gy"], m["grid_mm"], int(m["seed"]))
        case = made.apply(original)
    known = {"outcomes": dict(person.outcomes), "original": person.source, "simulated": simulated}
    return replace(case, id=person.id, facts={**case.facts, **person.facts, **known})


@dataclass(frozen=True)
class Gathered:
    """Who of a table can be used: ``patients`` as a net is given them, a sentence on each who was ``left_out``, and the ``remarks`` in
    reading the files, a line for those patients of whom the same was remarked."""

    patients: tuple[Patient, ...]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]


def gather(
    outcomes: Outcomes, cohort: Cohort | Mapping[str, Case], view: View, *, features: bool = True, progress: Progress | None = None
) -> Gathered:
    """What a net is given of each person of the table. Raises CohortError where nobody is left."""
    skipped: list[str] = []
    remarks: dict[str, tuple[str, ...]] = {}
    found: list[Patient] = []
    for n, (person, case) in enumerate(cases(outcomes, cohort, skipped, view)):
        remarks[person.source] = tuple(case.facts.get("notes", ()))
        try:
            found.append(patient_of(case, view, features=features))
        except OncontourError as error:
            skipped.append(f"{person.id} was left out: {error}")
        if progress is not None:
            progress((n + 1) / len(outcomes.people))
    if not found:
        raise CohortError("no patient of the table can be used", where=outcomes.where, hint="; ".join(skipped[:3]))
    return Gathered(tuple(found), tuple(skipped), tuple(grouped(remarks)))
