"""``oncontour feedback``: what people said of the places and structures of results, beside what was predicted of each slice.

read_verdicts (report.verdicts) -> matched with their record by its digest -> feedback.csv, feedback.json, both or nothing
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncontour.core.notes import counted
from oncontour.documents import read_json
from oncontour.errors import InputError
from oncontour.files import csv_text, write_text
from oncontour.report.verdicts import Verdict, Verdicts, check_structures, of_slice, read_verdicts
from oncontour.result import RECORD, check_out, result_folder

TABLE, SUMMARY = "feedback.csv", "feedback.json"
FILES = (TABLE, SUMMARY)
SCHEMA = "oncontour-feedback-1"
COLUMNS = (
    "case",
    "file",
    "structure",
    "k",
    "z_mm",
    "verdict",
    "about",
    "comment",
    "dsc",
    "lower_bound",
    "surface_mm",
    "wrong_cm2",
    "findings",
)
FIRST = 5
"""Places that ``oncontour run`` prints."""
Record = Mapping[str, Any]
"""What report.json holds."""


@dataclass(frozen=True)
class Share:
    """``true`` of ``judged`` places had something to correct."""

    what: str
    judged: int
    true: int

    def __str__(self) -> str:
        part = f"{100 * self.true / self.judged:.0f} %" if self.judged else "none judged"
        return f"{self.what:<28}{self.true:>4} of {self.judged:>4}   {part}"


@dataclass(frozen=True)
class Feedback:
    """``shares``: how often the places listed were true; ``slices``: lines of feedback.csv; files and results that went in; ``out``."""

    shares: tuple[Share, ...]
    slices: int
    files: int
    results: int
    out: Path

    def __str__(self) -> str:
        head = f"{counted(self.files, 'file')} of verdicts on {counted(self.results, 'result')}"
        table = ["places that had something to correct", *(f"  {one}" for one in self.shares)]
        return "\n".join([head, *table, f"{TABLE} ({self.slices} slices) and {SUMMARY} in {self.out}"])


def feedback(results: Path, verdicts: Path, *, out: Path, overwrite: bool = False) -> Feedback:
    """Collect what people said of results: a table of slices with verdict and prediction, and how often the places listed were true.

    The page of a result (report.html) keeps a verdict for each place and structure, and saves them as a file. Each file is matched with its
    result by the digest of the record, and refused where the record has changed. OUT gets feedback.csv, a line for each slice that somebody
    judged, with what was predicted of it, to calibrate and to train with, and feedback.json, a summary with all verdicts and comments.

    A place's verdict counts for its slices. A structure that is fine counts as fine on all others; that one was edited or is wrong as
    a whole is in the summary, and says nothing of any single slice.

    Examples:
        oncontour feedback RESULT verdicts-P-0123456789.json --out OUT
        oncontour feedback FOLDER_OF_RESULTS FOLDER_OF_VERDICTS --out OUT --overwrite

    Args:
        results: the folder of a result of run or assess, or a folder of such folders
        verdicts: a file that the page saved, or a folder of them
        out: folder to make
        overwrite: replace OUT where it is an earlier result
    """
    check_out(out, (results, verdicts), FILES, overwrite=overwrite, of="what it is made from")
    records = {digest: record for path in _found(results, RECORD) for digest, record in [_record(path)]}
    if not records:
        raise InputError(f"there is no {RECORD} here", where=str(results), hint="give a result of oncontour run or assess")
    given = [read_verdicts(path) for path in _files(verdicts)]
    for one in given:
        if one.digest not in records:
            known = ", ".join(digest[:12] for digest in records)
            raise InputError(
                f"verdicts on record {one.digest[:12]}, and those here are {known}",
                where=str(one.path),
                hint="give the result whose page they were saved from; one made anew has another digest",
            )
        check_structures(one, [row["name"] for row in records[one.digest]["structures"]])
    rows = [row for one in given for row in _rows(records[one.digest], one)]
    shares = tuple(_shares(given, records))
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        write_text(folder / TABLE, csv_text([list(COLUMNS), *rows]))
        write_text(folder / SUMMARY, json.dumps(_summary(given, records, shares), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return Feedback(shares, len(rows), len(given), len({one.digest for one in given}), out)


def _found(folder: Path, name: str) -> list[Path]:
    """The file ``name`` in ``folder``, or in the folders in it."""
    return [folder / name] if (folder / name).is_file() else sorted(folder.glob(f"*/{name}"))


def _files(path: Path) -> list[Path]:
    found = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not found:
        raise InputError("there is no file of verdicts here", where=str(path), hint="save verdicts in report.html, and give that file")
    return found


def _record(path: Path) -> tuple[str, Record]:
    """(digest, record). Raises InputError where the record is none, or no longer what its digest was made of."""
    from oncontour.report import digest

    record = read_json(path)
    if not isinstance(record, Mapping) or not isinstance(record.get("digest"), str) or not isinstance(record.get("structures"), list):
        raise InputError("this record has no digest", where=str(path), hint="make the result anew with this version")
    if digest(record) != record["digest"]:
        raise InputError(
            f"the record was changed: its digest is {digest(record)[:12]}, and it says {record['digest'][:12]}",
            where=str(path),
            hint="give the result as it was made",
        )
    return record["digest"], record


def _rows(record: Record, given: Verdicts) -> Iterator[list[object]]:
    """The lines of feedback.csv of one file."""
    quality = (record.get("assess") or {}).get("structures", {})
    for name, told in quality.items():
        for line in told["slices"]:
            verdict = of_slice(given.verdicts, name, line["k"])
            if verdict is not None:
                about = "place" if verdict.is_place else "structure"
                numbers = [_number(line.get(key)) for key in ("dsc", "lower", "surface_mm", "wrong_cm2")]
                said = [verdict.word, about, _text(verdict.comment), *numbers, "; ".join(line["findings"])]
                yield [record["case"], _text(given.path.name), _text(name), line["k"], _number(line["z_mm"]), *said]


def _shares(given: Sequence[Verdicts], records: Mapping[str, Record]) -> Iterator[Share]:
    """How often the places listed were true: all, the first of each result and the others, and by finding and structure."""
    places = [(rank, one) for file in given for rank, one in _ranked(file, records[file.digest])]
    yield _share("all places", (one for _, one in places))
    yield _share(f"the first {FIRST} of a result", (one for rank, one in places if rank < FIRST))
    yield _share("those after them", (one for rank, one in places if rank >= FIRST))
    for code in sorted({code for _, one in places for code in one.codes}):
        yield _share(f"finding {code}", (one for _, one in places if code in one.codes))
    yield _share("no finding", (one for _, one in places if not one.codes))
    for name in sorted({one.structure for _, one in places}):
        yield _share(name, (one for _, one in places if one.structure == name))


def _ranked(given: Verdicts, record: Record) -> Iterator[tuple[int, Verdict]]:
    """The verdicts on places with the rank that the page gave them, from 0; places that the record does not list come last."""
    listed = [(spot["structure"], spot["first"], spot["last"]) for spot in (record.get("assess") or {}).get("places", [])]
    for one in given.verdicts:
        key = one.structure, one.first, one.last
        if one.is_place:
            yield (listed.index(key) if key in listed else len(listed) + FIRST), one


def _share(what: str, places: Iterable[Verdict]) -> Share:
    listed = list(places)
    return Share(what, len(listed), sum(one.is_true for one in listed))


def _summary(given: Sequence[Verdicts], records: Mapping[str, Record], shares: Sequence[Share]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "places": [{"what": one.what, "judged": one.judged, "true": one.true} for one in shares],
        "files": [
            {
                "file": one.path.name,
                "digest": one.digest,
                "case": records[one.digest]["case"],
                "verdicts": [vars(each) for each in one.verdicts],
            }
            for one in given
        ],
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _text(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
