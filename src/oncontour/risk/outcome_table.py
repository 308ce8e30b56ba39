"""A table of outcomes: one CSV for real patients and for simulated ones.

``patient`` names who (a folder of the cohort); every toxicity is a column of 0 and 1, empty (or NA) where nobody knows; facts of the
patient (age, chemo) are columns of numbers. Columns that only a simulation has: ``original`` (the cohort's patient that a virtual one
was made of), ``hospital``, how it was made, and ``NAME_risk``, the true risk. A table with a ``NAME_risk`` or an ``original`` is
simulated, and whatever is made of it says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from oncontour.errors import CohortError
from oncontour.files import write_text

UNKNOWN = ("", "na", "nan", "n/a", "-", "?")
MADE = ("scale", "shift_x_mm", "shift_y_mm", "shift_z_mm", "mirrored", "noise_gy", "grid_mm", "seed", "number")
RISK = "_risk"


@dataclass(frozen=True)
class Person:
    """One row. ``outcomes`` hold only what is known, ``facts`` too; ``made`` says how a virtual patient differs, empty for a real one."""

    id: str
    outcomes: Mapping[str, bool]
    facts: Mapping[str, float] = field(default_factory=dict)
    original: str = ""
    hospital: str = ""
    made: Mapping[str, float] = field(default_factory=dict)
    risks: Mapping[str, float] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The cohort's patient: what a split must keep together."""
        return self.original or self.id


@dataclass(frozen=True)
class Outcomes:
    """The rows, and which toxicities and facts they tell of; ``simulated`` where any of it was made up."""

    people: tuple[Person, ...]
    toxicities: tuple[str, ...]
    facts: tuple[str, ...] = ()
    simulated: bool = False
    where: str = ""

    def of(self, hospital: str) -> Outcomes:
        """The people of one hospital. Raises CohortError where there is nobody."""
        people = tuple(p for p in self.people if p.hospital == hospital)
        if not people:
            raise CohortError(f"nobody is of hospital {hospital!r}; there are {list(self.hospitals)}", where=self.where)
        return replace(self, people=people)

    @property
    def hospitals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p.hospital for p in self.people))


def read_outcomes(path: Path | str, toxicities: Sequence[str] = (), facts: Sequence[str] = ()) -> Outcomes:
    """The table at ``path``. Without ``toxicities`` every column of nothing but 0, 1 and unknown that is not among ``facts`` is one.

    Raises CohortError, naming the line, for a table that cannot be read, a column that is not there, an outcome other than 0 and 1, a fact
    that is no number, a patient twice, and a toxicity that all or nobody had.
    """
    path = Path(path)
    head, rows = _table(path)
    absent = [name for name in ("patient", *toxicities, *facts) if name not in head]
    if absent:
        raise CohortError(f"the table has no column {', '.join(absent)}; there are {', '.join(head)}", where=str(path))
    chosen = tuple(toxicities) or tuple(_binary(head, rows, facts))
    if not chosen:
        raise CohortError(
            "no column of outcomes (0, 1, or empty where unknown)", where=str(path), hint="name it with --settings.toxicities"
        )
    people = tuple(_person(row, f"{path}, line {line}", chosen, facts) for line, row in rows)
    seen: dict[str, int] = {}
    for (line, _), person in zip(rows, people, strict=True):
        if person.id in seen:
            raise CohortError(f"patient {person.id!r} was in line {seen[person.id]} already", where=f"{path}, line {line}")
        seen[person.id] = line
    simulated = "original" in head or any(name.endswith(RISK) for name in head)
    out = Outcomes(people, chosen, tuple(facts), simulated, str(path))
    for name in chosen:
        check_both(out, name)
    return out


def check_both(outcomes: Outcomes, toxicity: str) -> None:
    """Raise CohortError where a toxicity is not known of anybody, or all or nobody had it: nothing can be learned or judged."""
    known = [p.outcomes[toxicity] for p in outcomes.people if toxicity in p.outcomes]
    if len(set(known)) < 2:
        told = "is not known of anybody" if not known else f"is {int(known[0])} in all {len(known)} patients of whom it is known"
        raise CohortError(f"{toxicity} {told}", where=outcomes.where, hint="a model needs patients with it and patients without")


def write_outcomes(outcomes: Outcomes, path: Path | str) -> Path:
    """Write the table; reading it back gives equal people."""
    made = MADE if any(p.made for p in outcomes.people) else ()
    risks = [name for name in outcomes.toxicities if any(name in p.risks for p in outcomes.people)]
    head = ["patient", *(("original", "hospital") if outcomes.simulated else ()), *outcomes.facts, *outcomes.toxicities]
    head += [f"{name}{RISK}" for name in risks] + list(made)
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    for p in outcomes.people:
        row: dict[str, object] = {"patient": p.id, "original": p.original, "hospital": p.hospital}
        row |= {key: _shown(value) for key, value in (*p.facts.items(), *p.made.items())}
        row |= {name: int(value) for name, value in p.outcomes.items()}
        writer.writerow(row | {f"{name}{RISK}": f"{value:.6f}" for name, value in p.risks.items()})
    write_text(path, text.getvalue())
    return Path(path)


# ---- reading


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            head = [name.strip() for name in table.fieldnames or ()]
            if len(set(head)) != len(head):
                raise CohortError("two columns have one name", where=str(path))
            rows = []
            for raw in table:
                if None in raw or None in raw.values():
                    raise CohortError("a line with more or fewer cells than the first", where=f"{path}, line {table.line_num}")
                rows.append((table.line_num, {key.strip(): value.strip() for key, value in raw.items()}))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"cannot be read as a CSV ({error})", where=str(path)) from error
    if not rows:
        raise CohortError("a table without patients", where=str(path))
    return head, rows


def _binary(head: Iterable[str], rows: Sequence[tuple[int, dict[str, str]]], facts: Sequence[str]) -> Iterator[str]:
    other = {"patient", "original", "hospital", "split", "path", *MADE, *facts, "chemo", "age", "sex"}
    for name in head:
        values = {row[name].lower() for _, row in rows} - set(UNKNOWN)
        if name not in other and not name.endswith(RISK) and values and values <= {"0", "1"}:
            yield name


def _person(row: Mapping[str, str], where: str, toxicities: Sequence[str], facts: Sequence[str]) -> Person:
    if not row["patient"]:
        raise CohortError("no patient is named", where=where)
    outcomes = {}
    for name in toxicities:
        told = row[name].lower()
        if told not in UNKNOWN:
            if told not in ("0", "1"):
                raise CohortError(f"{name} is {row[name][:40]!r}", where=where, hint="1 had it, 0 had not, empty where nobody knows")
            outcomes[name] = told == "1"
    made = {name: _number(row, name, where) for name in MADE if row.get(name)}
    if made and len(made) < len(MADE):
        raise CohortError(f"how the virtual patient was made is told in part: {', '.join(made)}", where=where)
    return Person(
        row["patient"],
        outcomes,
        {name: _number(row, name, where) for name in facts if row[name].lower() not in UNKNOWN},
        row.get("original", ""),
        row.get("hospital", ""),
        made,
        {name: _number(row, name + RISK, where) for name in toxicities if row.get(name + RISK)},
    )


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    import math

    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CohortError(f"{name} is {row[name][:40]!r}, no number", where=where, hint="leave it empty where nobody knows")
    return value


def _shown(value: float) -> str:
    return f"{float(value):.10g}"
