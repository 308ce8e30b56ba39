"""The page of a cohort from the table and the records of its patients: OUT/cohort.html and OUT/cohort.csv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oncontour.commands.cohort_table import Table
from oncontour.commands.cohort_work import Outcome
from oncontour.documents import read_json
from oncontour.errors import InputError
from oncontour.report import cohort
from oncontour.result import PAGE


def write_page(command: str, table: Table, records: Mapping[str, Path]) -> Path:
    """The page of all patients of whom something is known by now, other shards' too. ``records``: patient -> the record of the result.

    The last of several drivers that end tells of all: each looks once more whether others ended while it wrote.
    """
    told = -1
    while True:
        known = {id: found for id in records if (found := table.found(id))}
        if len(known) == told:
            return table.folder.parent / "cohort.html"
        told = len(known)
        cohort.write(command, [_line(found, records[id]) for id, found in known.items()], table.folder.parent)


def _line(found: Outcome, record: Path) -> cohort.Line:
    facts = found.facts or {}
    if found.why:
        return cohort.Line(found.id, failed=found.why, month=facts.get("month", ""), scanner=facts.get("scanner", ""))
    try:
        told = read_json(record)
    except InputError as error:
        return cohort.Line(found.id, failed=f"its result cannot be read any more ({error.what})")
    page = record.with_name(PAGE)
    link = f"{page.parent.name}/{page.name}" if page.exists() else ""
    return cohort.line_of(found.id, told if isinstance(told, dict) else {}, link, facts, found.seconds)
