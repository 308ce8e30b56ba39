"""``oncontour evaluate`` of many patients: each judged by a worker (cohort_spread), the tables made of what was found of all of them.

OUT/.cohort/done       what was found of each patient, as text
OUT/.cohort/pictures   what its overlays show, where there are to be any
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from oncontour.commands.cohort import made_of
from oncontour.commands.cohort_spread import Spread, spread
from oncontour.commands.cohort_table import FOLDER, Table
from oncontour.commands.cohort_work import Outcome
from oncontour.core.notes import counted
from oncontour.errors import IncompleteError
from oncontour.evaluate.found import Failure, Judged
from oncontour.evaluate.kept import KeptPanels, as_text, of_text, write_panels
from oncontour.evaluate.panels import Panel
from oncontour.learn.card import Card
from oncontour.many import Many
from oncontour.progress import Progress

Panels = Mapping[str, Sequence[Panel]]
Told = tuple[str, Sequence[Failure]]
"""What is said of an evaluation that was written, and who could not be judged."""


class Finds(Protocol):
    """What judges one patient; it goes to workers as a copy."""

    def __call__(self, id: str) -> Judged:
        """What was found of patient ``id``, failures among it."""


@dataclass(frozen=True)
class Judging:
    """Each patient judged, what was found told in the outcome's text. ``files``: patient -> what it is made of, predictions too;
    ``asked``: a hash of all else that the figures depend on; ``pictures``: the folder of the panels, None where there are to be none;
    ``unit``: what is judged, in a word."""

    finds: Finds
    files: Mapping[str, Sequence[Path]]
    asked: str
    pictures: Path | None = None
    unit: str = "patient"

    def __call__(self, id: str) -> Outcome:
        found = self.finds(id)
        if self.pictures is not None:
            write_panels(found.panels, self.picture(self.pictures, id))
        why = found.failures[0].reason if found.failures else ""
        return Outcome(id, why, said=as_text(found))

    def made_of(self, id: str) -> str:
        return made_of(self.files[id], self.asked)

    def is_there(self, id: str) -> bool:
        return self.pictures is None or self.picture(self.pictures, id).exists()

    @staticmethod
    def picture(folder: Path, id: str) -> Path:
        """Where a patient's panels lie; ids of any characters, none of them a path."""
        return folder / f"{hashlib.sha256(id.encode()).hexdigest()[:24]}.npz"

    def panels_of(self, judged: Collection[str]) -> Panels:
        """Patient -> panels of those who were judged, read when they are asked for."""
        return {} if self.pictures is None else KeptPanels({id: self.picture(self.pictures, id) for id in self.files if id in judged})


def pictures_in(out: Path) -> Path:
    """Where in OUT the panels of patients are kept."""
    return out / FOLDER / "pictures"


def decides(card: Card | None) -> str:
    """What of a model's card decides what it draws: all but its figures."""
    return "" if card is None else replace(card, metrics={}, file_sha256="").as_json()


def judged(
    work: Judging,
    methods: Sequence[str],
    out: Path,
    many: Many,
    write: Callable[[Sequence[Judged], Panels, Sequence[str]], Told],
    progress: Progress | None = None,
) -> str:
    """Judge all patients of ``work.files`` of this shard, and ``write`` the tables of all who are judged by now, other shards' too.

    ``write`` is given what was found of them in the order of ``work.files``, their panels, and what is to be remarked. The last of several
    drivers that end tells of all: each looks once more whether others ended while it wrote. Raises IncompleteError, when all is written,
    where patients could not be judged. Nothing is written while nobody is known.
    """
    ids, table = tuple(work.files), Table(out)
    became = spread(work, ids, many, table, progress)
    every, told = counted(len(ids), work.unit), -1
    while True:
        found = _known(work, ids, became, table, methods)
        if not found:
            return "\n".join(_so_far(became, 0, every))
        if len(found) == told:
            break
        told = len(found)
        shown = {one.patient for one in found if one.rows}
        said, failures = write(found, work.panels_of(shown), [] if told == len(ids) else _so_far(became, told, every))
        if told == len(ids):
            break
    check_all(failures, counted(told, work.unit), out / "failures.csv", said)
    return said


def check_all(failures: Sequence[Failure], judged: str, where: Path, said: str) -> None:
    """Raise IncompleteError where there are failures; ``judged``: how many were, as "3 patients". ``said`` is told all the same."""
    failed = list(dict.fromkeys(failure.patient for failure in failures))
    if failed:
        raise IncompleteError(
            f"{len(failed)} of {judged} could not be judged ({', '.join(failed[:10])}{', ...' if failed[10:] else ''}); "
            "the tables are of the others",
            where=str(where),
            hint="mend or leave out these and run it again: the others are not judged again",
            done=said,
        )


def _known(work: Judging, ids: Sequence[str], became: Spread, table: Table, methods: Sequence[str]) -> list[Judged]:
    """What is found by now: of our patients, and of those that other drivers judged as we were asked to."""
    out = []
    for id in ids:
        one = became.outcomes.get(id) or table.found(id)
        if one is None or (id not in became.outcomes and one.made_of != work.made_of(id)):
            continue
        try:
            out.append(of_text(one.said) if one.said else Judged.failed(id, methods, one.why))
        except (ValueError, KeyError, TypeError, AttributeError):  # a damaged file: as if nobody had judged it
            continue
    return out


def _so_far(became: Spread, known: int, of: str) -> list[str]:
    return [f"{known} of {of} are judged so far: who ends last of all shards writes the tables of all", *became.in_other_hands]
