"""What a person said of a result's places and structures: the JSON file that report.html saves, and what it says of each slice.

A verdict belongs to one record, whose digest it carries; slices are counted in the case's own grid, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oncontour.documents import read_json
from oncontour.errors import FormatError, InputError

SCHEMA = "oncontour-verdicts-1"
Word = Literal["fine", "edited", "wrong"]
WORDS: tuple[Word, ...] = ("fine", "edited", "wrong")
"""fine as it is; edited elsewhere, so that it was not fine; wrong, and left so."""
Object = Mapping[str, Any]
"""An object of JSON."""


@dataclass(frozen=True)
class Verdict:
    """``word`` on the slices ``first`` to ``last`` of a structure; None: on the structure as a whole. ``codes``: the findings there."""

    structure: str
    word: Word
    is_place: bool
    first: int | None = None
    last: int | None = None
    codes: tuple[str, ...] = ()
    comment: str = ""
    at: str = ""

    def holds(self, k: int) -> bool:
        """Whether slice ``k`` of its structure is meant."""
        return self.first is None or self.last is None or self.first <= k <= self.last

    @property
    def is_true(self) -> bool:
        """Whether there was something to correct."""
        return self.word != "fine"


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of one file, and the ``digest`` of the record that they are about."""

    path: Path
    digest: str
    verdicts: tuple[Verdict, ...]


def read_verdicts(path: Path) -> Verdicts:
    """The verdicts that report.html saved at ``path``.

    Raises InputError where there is no such file, FormatError for anything that the page would not have written.
    """
    told = read_json(path)
    if not isinstance(told, Mapping) or told.get("schema") != SCHEMA:
        raise FormatError(f"this file holds no verdicts ({SCHEMA})", where=str(path), hint="save it with the page's own button")
    listed, digest = told.get("verdicts"), told.get("digest")
    if not isinstance(listed, list) or not isinstance(digest, str):
        raise FormatError("a file of verdicts has 'digest' and 'verdicts'", where=str(path), hint="save it again from the page")
    return Verdicts(path, digest, tuple(_verdict(one, n, path) for n, one in enumerate(listed, start=1)))


def _verdict(told: object, number: int, path: Path) -> Verdict:
    one: Object = told if isinstance(told, Mapping) else {}
    about, word, name = one.get("about"), one.get("verdict"), one.get("structure")
    first, last, codes = one.get("first"), one.get("last"), one.get("codes", [])
    ends = first is None and last is None if about == "structure" else _are_slices(first, last)
    known = next((each for each in WORDS if each == word), None)
    if about not in ("place", "structure") or known is None or not isinstance(name, str) or not ends or not isinstance(codes, list):
        raise FormatError(f"verdict {number} is not what the page writes", where=str(path), hint="save it again from the page")
    comment, at = str(one.get("comment") or ""), str(one.get("at") or "")
    return Verdict(name, known, about == "place", first, last, tuple(map(str, codes)), comment, at)


def _are_slices(first: object, last: object) -> bool:
    """Two slices in order, or none: a place about a structure as a whole."""
    if first is None or last is None:
        return first is None and last is None
    kinds = all(isinstance(one, int) and not isinstance(one, bool) for one in (first, last))
    return kinds and 0 <= int(str(first)) <= int(str(last))


def of_slice(verdicts: Sequence[Verdict], structure: str, k: int) -> Verdict | None:
    """The verdict that counts for slice ``k`` of ``structure``: that of its place, else of the structure as a whole. None: nobody said.

    A fine structure has no wrong slice but those of places; one that was edited or is wrong as a whole says nothing of a slice by itself.
    """
    mine = [one for one in verdicts if one.structure == structure]
    places = [one for one in mine if one.is_place and one.first is not None and one.holds(k)]
    if places:
        return places[-1]
    return next((one for one in reversed(mine) if not one.is_place and not one.is_true), None)


def check_structures(verdicts: Verdicts, names: Sequence[str]) -> None:
    """Raises InputError for a verdict on a structure that the record does not have."""
    unknown = sorted({one.structure for one in verdicts.verdicts} - set(names))
    if unknown:
        raise InputError(
            f"verdicts on {', '.join(unknown)}, which the result does not have (it has {', '.join(names) or 'none'})",
            where=str(verdicts.path),
            hint="give the result that they were saved from",
        )
