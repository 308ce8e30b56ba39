"""A cohort's features as rows, as the files in which finished patients wait, and as tables: CSV or Parquet, columns translated."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from oncontour.core.notes import grouped
from oncontour.errors import OutputError
from oncontour.files import write_text, writing
from oncontour.radiomics.names import code, words
from oncontour.radiomics.robustness import agreements

BEFORE = ("patient", "structure", "image", "voxels", "voxels_used", "remark")
"""Columns before the features: the structure's voxels, how many of them have a known intensity in range, and what is to be said."""
ROBUST = ("structure", "image", "column", "patients", "repetitions", "icc_1_1", "low_1_1", "high_1_1", "icc_3_1", "low_3_1", "high_3_1")
Naming: TypeAlias = Literal["short", "code", "words"]
Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Row:
    """Features of one structure on one image, filtered or not; ``repetition`` 0 is the patient as is, later ones are perturbed."""

    structure: str
    image: str
    repetition: int
    voxels: int
    voxels_used: int
    remark: str
    values: dict[str, float | None]
    """By short name; None where a feature is not defined."""


@dataclass(frozen=True)
class Part:
    """What a finished patient's file holds: a digest of what it was made of, its rows, and what was remarked on reading it."""

    made_of: str
    patient: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Part:
        """Raises OSError, ValueError, KeyError or TypeError for what is no such file."""
        told = json.loads(path.read_text(encoding="utf-8"))
        return cls(told["made_of"], told["patient"], tuple(Row(**row) for row in told["rows"]), tuple(told["notes"]))

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(asdict(self)))

    @property
    def plain(self) -> list[Row]:
        """The rows of the patient as is."""
        return [row for row in self.rows if not row.repetition]


def check_replaces(out: Path) -> None:
    """Raise OutputError where ``out`` is there and no earlier table of features: the cohort's own CSV, a table of outcomes."""
    if not out.exists():
        return
    try:
        if out.suffix == ".csv":
            with out.open(encoding="utf-8") as file:
                ours = file.readline().startswith(",".join(BEFORE))
        else:
            from pyarrow import parquet

            ours = b"oncontour" in (parquet.read_schema(out).metadata or {})
    except (OSError, ValueError):  # ArrowInvalid and UnicodeDecodeError are ValueErrors
        ours = False
    if not ours:
        raise OutputError("what is there is no table of features, and would be replaced", where=str(out), hint="name another file as --out")


def write(out: Path, told: Mapping[str, object], found: Mapping[str, Part], names: Naming, robust: bool) -> None:
    """The table ``out``, and beside it the translation of its columns, the settings that ``told`` tells, and ``robust``ness."""
    tags = feature_names(found)
    called = {tag: {"short": tag, "code": code(tag), "words": words(tag)}[names] for tag in tags}
    rows = [
        {"patient": id, **{key: getattr(row, key) for key in BEFORE[1:]}, **{called[tag]: row.values.get(tag) for tag in tags}}
        for id, part in found.items()
        for row in part.plain
    ]
    if out.suffix == ".parquet":
        _write_parquet(out, rows, called, told)
    else:
        write_text(out, _as_csv([*BEFORE, *called.values()], rows))
    translated = [{"column": called[tag], "short": tag, "ibsi": code(tag), "words": words(tag)} for tag in tags]
    write_text(out.with_suffix(".columns.csv"), _as_csv(["column", "short", "ibsi", "words"], translated))
    write_text(out.with_suffix(".settings.json"), json.dumps({**told, "notes": grouped(notes(found), most=None)}, indent=2) + "\n")
    if robust:
        write_text(out.with_suffix(".robustness.csv"), _as_csv(ROBUST, _robustness(found, tags, called)))


def notes(found: Mapping[str, Part]) -> dict[str, list[str]]:
    """Patient -> what was remarked on reading it."""
    return {id: list(part.notes) for id, part in found.items()}


def feature_names(found: Mapping[str, Part]) -> list[str]:
    """Every feature that any row has, in the order of the first row (same settings, same features)."""
    return list(dict.fromkeys(tag for part in found.values() for row in part.rows for tag in row.values))


def _robustness(found: Mapping[str, Part], tags: Sequence[str], called: Mapping[str, str]) -> list[dict[str, Cell]]:
    """Agreement of the perturbed repetitions (the plain one apart) over patients, for each structure, image and feature."""
    groups: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {}
    for id, part in found.items():
        for row in part.rows:
            if row.repetition:
                given = {tag: row.values.get(tag) for tag in tags}
                values = {tag: math.nan if value is None else float(value) for tag, value in given.items()}
                groups.setdefault((row.structure, row.image), {}).setdefault(id, []).append(values)
    out = []
    for (structure, image), people in groups.items():
        agreed = agreements(list(people.values()))
        for tag in tags:
            one, three = agreed[tag]
            whole = sum(all(math.isfinite(row[tag]) for row in rows) for rows in people.values())
            numbers = (one.value, one.low, one.high, three.value, three.low, three.high)
            head = (structure, image, called[tag], whole, len(next(iter(people.values()))))
            out.append(dict(zip(ROBUST, (*head, *(n if math.isfinite(n) else None for n in numbers)), strict=True)))
    return out


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> str:
    """An undefined number is an empty cell; numbers are written so that they read back the same."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _write_parquet(out: Path, rows: Sequence[Mapping[str, Cell]], called: Mapping[str, str], told: Mapping[str, object]) -> None:
    """Text, whole numbers and double precision as such, null where a feature is not defined; columns know their identifier and words."""
    import pyarrow
    from pyarrow import parquet

    kinds = {"voxels": pyarrow.int64(), "voxels_used": pyarrow.int64()}
    before = [pyarrow.field(name, kinds.get(name, pyarrow.string())) for name in BEFORE]
    after = [pyarrow.field(called[tag], pyarrow.float64(), metadata={"ibsi": code(tag), "words": words(tag)}) for tag in called]
    schema = pyarrow.schema([*before, *after], metadata={"oncontour": json.dumps(told)})
    with writing(out) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), temporary)
