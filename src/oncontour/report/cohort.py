"""The page of a cohort: a line a patient, those first who may be harmed most, figures over all, and what changed over time.

Expected harm is the wrong area that the quality model predicts, summed over the slices of all structures. A patient of whom nothing could
be scored stands before all others: nobody knows. Dates are months and scanners are makes: the page says nothing else of anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from oncontour.files import csv_text, write_text

if TYPE_CHECKING:
    from oncontour.report import Record

HEAD = ("patient", "harm_cm2", "worst_cm2", "worst", "confidence", "scored", "structures", "missing", "findings", "warnings", "month",
        "scanner", "seconds", "failed")  # fmt: skip
"""Columns of ``csv``."""
_WIDE, _HIGH = 1300, 170


@dataclass(frozen=True)
class Line:
    """One patient. ``harm_cm2``: predicted wrong area of all slices, None where nothing was scored; ``worst``: the slice with most of it;
    ``confidence``: mean predicted DSC of the scored slices, and ``by_structure`` of each; ``missing``: structures without a contour."""

    patient: str
    page: str = ""
    harm_cm2: float | None = None
    worst_cm2: float | None = None
    worst: str = ""
    confidence: float | None = None
    scored: int = 0
    structures: int = 0
    missing: int = 0
    findings: int = 0
    warnings: int = 0
    month: str = ""
    scanner: str = ""
    seconds: float = 0.0
    failed: str = ""
    judged: bool = False
    by_structure: Mapping[str, float] | None = None

    @property
    def order(self) -> tuple[int, float, int, str]:
        """Sort key: who was judged and not scored at all, then the most harm, then the most warnings."""
        unknown = self.judged and self.harm_cm2 is None
        return (0 if unknown else 1, -(self.harm_cm2 or 0.0), -self.warnings - self.findings, self.patient)


@dataclass(frozen=True)
class Group:
    """Patients of one month or scanner: how many, from when to when, quartiles of their confidence, how many could not be scored."""

    name: str
    patients: int
    first: str
    last: str
    quartiles: tuple[float, float, float] | None
    unscored: int


def line_of(patient: str, record: Record, page: str, facts: Mapping[str, str], seconds: float) -> Line:
    """The line of a patient from what the result's record (report.json) holds; of other records only the warnings count."""
    told: Record = record.get("assess") or {}
    scores = [(name, cell) for name, one in told.get("structures", {}).items() for cell in one["slices"]]
    wrong = [(cell["wrong_cm2"], f"{name}, slice {cell['k'] + 1}") for name, cell in scores if cell.get("wrong_cm2") is not None]
    known = [(name, cell["dsc"]) for name, cell in scores if cell.get("dsc") is not None]
    by_structure = {name: [dsc for other, dsc in known if other == name] for name, _ in known}
    worst = max(wrong, default=None)
    rows = record.get("structures", ())
    drawn = [row for row in rows if isinstance(row, Mapping)]
    return Line(
        patient,
        page,
        harm_cm2=sum(area for area, _ in wrong) if wrong else None,
        worst_cm2=worst[0] if worst else None,
        worst=worst[1] if worst else "",
        confidence=sum(dsc for _, dsc in known) / len(known) if known else None,
        scored=len(by_structure),
        structures=len(rows),
        missing=sum(not row.get("slices", 1) for row in drawn),
        findings=sum(len(one["findings"]) for one in told.get("structures", {}).values()),
        warnings=len(record.get("warnings", ())),
        month=facts.get("month", ""),
        scanner=facts.get("scanner", ""),
        seconds=seconds,
        judged=bool(told),
        by_structure={name: sum(values) / len(values) for name, values in by_structure.items()},
    )


def groups(lines: Sequence[Line], by: str) -> list[Group]:
    """The lines by "month" or "scanner", in the order of their first month and name; none where no record says it."""
    out = []
    for name in {getattr(line, by) for line in lines} - {""}:
        some = [line for line in lines if getattr(line, by) == name]
        months = sorted(line.month for line in some if line.month)
        sure = sorted(line.confidence for line in some if line.confidence is not None)
        unscored = sum(line.judged and line.confidence is None for line in some)
        ends = (months[0], months[-1]) if months else ("", "")
        out.append(Group(name, len(some), *ends, _quartiles(sure), unscored))
    return sorted(out, key=lambda one: (one.first, one.name))


def drift(lines: Sequence[Line]) -> list[str]:
    """What changed over time, in sentences: the last month beside all before, and scanners that came in it."""
    months = sorted({line.month for line in lines if line.month})
    if len(months) < 2:
        return []
    last = months[-1]
    new = [line.confidence for line in lines if line.month == last and line.confidence is not None]
    old = [line.confidence for line in lines if line.month and line.month < last and line.confidence is not None]
    out = []
    if new and old:
        out.append(f"Median confidence in {last}: {median(new):.3f} ({len(new)} patients); before: {median(old):.3f} ({len(old)}).")
    came = [one.name for one in groups(lines, "scanner") if one.first == last]
    if came:
        out.append(f"First seen in {last}: {', '.join(came)}.")
    return out


def write(command: str, lines: Sequence[Line], out: Path) -> Path:
    """OUT/cohort.html and OUT/cohort.csv, each whole or not at all; gives the page."""
    write_text(out / "cohort.csv", csv(lines))
    write_text(out / "cohort.html", page(command, lines))
    return out / "cohort.html"


def csv(lines: Sequence[Line]) -> str:
    """The lines as a table, in the page's order; an empty cell is a figure that is not known."""
    ordered = sorted(lines, key=lambda line: (bool(line.failed), *line.order))
    return csv_text([HEAD, *([_cell(getattr(line, key)) for key in HEAD] for line in ordered)])


def page(command: str, lines: Sequence[Line]) -> str:
    """One HTML file that needs no network and no script but to sort."""
    from jinja2 import Environment, select_autoescape
    from markupsafe import Markup

    from oncontour.report import inline_part

    done = sorted((line for line in lines if not line.failed), key=lambda line: line.order)
    sure = sorted(line.confidence for line in done if line.confidence is not None)
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(inline_part("cohort.html")).render(
        command=command,
        lines=done,
        failed=sorted((line for line in lines if line.failed), key=lambda line: line.patient),
        judged=any(line.judged for line in done),
        timed=any(line.month or line.scanner for line in done),
        unscored=sum(line.judged and line.harm_cm2 is None for line in done),
        quartiles=_quartiles(sure),
        seconds=median(line.seconds for line in done) if done else 0.0,
        most=max((line.harm_cm2 or 0.0 for line in done), default=0.0) or 1.0,
        structures=_structures(done),
        scanners=groups(done, "scanner"),
        drift=drift(done),
        plot=Markup(_plot(groups(done, "month"))),
        style=Markup(inline_part("style.css")),
    )


def _structures(lines: Sequence[Line]) -> list[tuple[str, int, float]]:
    """(name, patients in whom it was scored, median of their mean DSC), the least sure first."""
    names = {name for line in lines for name in line.by_structure or ()}
    found = {name: [line.by_structure[name] for line in lines if line.by_structure and name in line.by_structure] for name in names}
    return sorted(((name, len(values), median(values)) for name, values in found.items()), key=lambda one: (one[2], one[0]))


def _quartiles(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Of sorted values, each an observed one (nearest rank); None where there is none."""
    if not values:
        return None
    low, middle, high = (values[round(part * (len(values) - 1))] for part in (0.25, 0.5, 0.75))
    return low, middle, high


def _plot(months: Sequence[Group]) -> str:
    """Median confidence a month with its quartiles, as SVG; "" for fewer than two months."""
    shown = [(n, one) for n, one in enumerate(months) if one.quartiles]
    if len(shown) < 2:
        return ""
    low = min(one.quartiles[0] for _, one in shown if one.quartiles)
    high = max(one.quartiles[2] for _, one in shown if one.quartiles)
    span = max(high - low, 0.02)

    def place(n: int, value: float) -> tuple[float, float]:
        return 50 + (_WIDE - 70) * n / max(len(months) - 1, 1), 15 + (_HIGH - 45) * (high - value) / span

    parts = [f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="Median confidence by month">']
    for value in (high, high - span / 2, high - span):
        y = place(0, value)[1]
        parts.append(f'<path d="M50 {y:.1f}H{_WIDE - 20}" stroke="#dfe4ea"/><text x="8" y="{y + 4:.1f}" class="tick">{value:.2f}</text>')
    track = []
    every = max(1, len(months) // 12)
    for n, one in shown:
        assert one.quartiles is not None
        (x, top), (_, y), (_, bottom) = (place(n, value) for value in reversed(one.quartiles))
        track.append(f"{x:.1f} {y:.1f}")
        told = f"{one.name}: median {one.quartiles[1]:.3f}, {one.patients} patients"
        parts.append(f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="#9cc9dc" stroke-width="6"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#0b6e99"><title>{told}</title></circle>')
        if n % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{_HIGH - 8}" text-anchor="middle" class="tick">{one.name}</text>')
    parts.append(f'<path d="M{"L".join(track)}" fill="none" stroke="#0b6e99"/></svg>')
    return "".join(parts)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not isinstance(value, int) else value
