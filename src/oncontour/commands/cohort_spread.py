"""The one executor of all commands with a cohort: patients are claimed in a table, handed to workers, and what became of each written down.

Whoever works (processes here, actors on a Ray cluster), however many drivers share the table, and wherever a driver was killed: a patient
is done once. One that cannot be done is listed with its sentence; one that workers die of is tried again last and alone, ``TRIES`` times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from oncontour.commands.cohort_table import TRIES, Table
from oncontour.commands.cohort_work import Outcome, Work, done
from oncontour.core.notes import counted
from oncontour.errors import IncompleteError
from oncontour.many import Many
from oncontour.progress import Progress


class Crew(Protocol):
    """Workers, wherever they are."""

    @property
    def busy(self) -> int:
        """Patients in hand."""

    @property
    def free(self) -> int:
        """How many more can be taken now."""

    def give(self, id: str) -> None:
        """Hand patient ``id`` to a free worker."""

    def ended(self) -> list[tuple[str, Outcome | None]]:
        """Patients that came to an end, waiting for one for a while; None: the worker died with the patient in hand."""

    def close(self) -> None:
        """End all workers."""


@dataclass(frozen=True)
class Spread:
    """What became of the patients that were asked for. ``earlier``: done by an earlier run; ``elsewhere``: in another driver's hand."""

    outcomes: dict[str, Outcome]
    earlier: int
    elsewhere: tuple[str, ...]

    @property
    def failed(self) -> dict[str, str]:
        """Patient -> why there is no result."""
        return {id: one.why for id, one in self.outcomes.items() if one.why}

    @property
    def done(self) -> tuple[str, ...]:
        """Patients with a result."""
        return tuple(id for id, one in self.outcomes.items() if not one.why)

    @property
    def in_other_hands(self) -> list[str]:
        """A line about patients that another driver has in hand, none where there are none."""
        some = ", ".join(self.elsewhere[:5])
        return (
            [f"in the hands of another run with this --out: {counted(len(self.elsewhere), 'patient')} ({some})"] if self.elsewhere else []
        )

    def told(self, where: str, what: str) -> str:
        """``what`` for the screen, with those in other hands. Raises IncompleteError where a patient failed."""
        said = "\n".join([*([what] if what else []), *self.in_other_hands])
        if not self.failed:
            return said
        listed = "; ".join(f"{id}: {why}" for id, why in list(self.failed.items())[:20])
        more = f"; and {len(self.failed) - 20} more" if len(self.failed) > 20 else ""
        rest = f"the other {len(self.done)} are done" if self.done else "nothing was written"
        raise IncompleteError(
            f"{len(self.failed)} of {len(self.outcomes)} patients could not be used ({listed}{more}); {rest}",
            where=where,
            hint="mend or leave out these patients and run it again: the others are not done again",
            done=said,
        )


def spread(work: Work, ids: Sequence[str], many: Many, table: Table, progress: Progress | None = None) -> Spread:
    """Do the patients ``ids`` of this shard that no earlier run did, and give what became of each, in the order of ``ids``."""
    mine = many.picked(ids)
    before = {id: found for id in mine if (found := table.found(id))}
    earlier = {id: found for id, found in before.items() if _is_finished(work, found)}
    waiting, elsewhere = [id for id in mine if id not in earlier], list[str]()
    new: dict[str, Outcome] = {}
    if waiting:
        with table.at_work(), _crew(work, many, len(waiting)) as crew:
            for one in _worked(work, crew, deque(waiting), table, before, elsewhere):
                new[one.id] = one
                if progress is not None:
                    progress((len(new) + len(elsewhere)) / len(waiting))
    others = {id: found for id in elsewhere if (found := table.found(id)) and _is_of(work, found)}  # done by another driver since
    known = earlier | new | others
    return Spread({id: known[id] for id in mine if id in known}, len(earlier), tuple(id for id in elsewhere if id not in others))


def _is_finished(work: Work, found: Outcome) -> bool:
    """Whether what an earlier run made of a patient is there still and made of the same files; one that failed is done again."""
    return not found.why and work.is_there(found.id) and _is_of(work, found)


def _is_of(work: Work, found: Outcome) -> bool:
    """Whether it was made of the same files and asked for in the same words, not by another run into the same folder."""
    return found.made_of == work.made_of(found.id)


def _worked(
    work: Work, crew: Crew, waiting: deque[str], table: Table, before: Mapping[str, Outcome], elsewhere: list[str]
) -> Iterator[Outcome]:
    """Outcomes as they come. ``elsewhere`` gets those that another driver has in hand, or did since we saw what was done ``before``."""
    last, deaths = deque[str](), dict[str, int]()
    while waiting or last or crew.busy:
        while waiting and crew.free > 0:
            id = waiting.popleft()
            died = table.claim(id)
            if died is None:
                elsewhere.append(id)
            elif (now := table.found(id)) and now != before.get(id) and _is_of(work, now):
                table.let_go(id)
                elsewhere.append(id)
            elif died:
                deaths[id] = died
                last.append(id)  # in hand of a driver that died: perhaps of it
            else:
                crew.give(id)
        if last and not waiting and not crew.busy and crew.free > 0:
            id = last.popleft()
            if deaths[id] >= TRIES:
                yield _written(_killed(work, id, deaths[id]), table)
                continue
            crew.give(id)
        for id, found in crew.ended() if crew.busy or not crew.free else ():
            if found is not None:
                yield _written(found, table)
            else:
                deaths[id] = deaths.get(id, 0) + 1
                table.died(id, deaths[id])
                last.append(id)


def _written(outcome: Outcome, table: Table) -> Outcome:
    table.finish(outcome)
    return outcome


def _killed(work: Work, id: str, times: int) -> Outcome:
    return Outcome(id, f"the process that worked on it was killed, {times} times (is there enough memory?)", work.made_of(id))


@dataclass
class _Here:
    """This process, as a crew of one."""

    work: Work
    patient: str = ""

    @property
    def busy(self) -> int:
        return int(bool(self.patient))

    @property
    def free(self) -> int:
        return 1 - self.busy

    def give(self, id: str) -> None:
        self.patient = id

    def ended(self) -> list[tuple[str, Outcome | None]]:
        id, self.patient = self.patient, ""
        return [(id, done(self.work, id))]

    def close(self) -> None:
        pass


@contextmanager
def _crew(work: Work, many: Many, patients: int) -> Iterator[Crew]:
    """The workers that were asked for, ended in any case."""
    from oncontour.learn.resident import kept

    crew: Crew
    if many.engine == "here":
        with kept():
            yield _Here(work)
        return
    if many.engine == "ray":
        from oncontour.commands.cohort_ray import Actors

        crew = Actors(work, many.jobs, patients)
    else:
        from oncontour.commands.cohort_processes import Processes

        crew = Processes(work, min(many.workers, patients))
    try:
        yield crew
    finally:
        crew.close()
