"""What ``oncontour dvh`` prints and writes, as text: tables of figures, goals and published models, and the rows of its CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from oncontour.files import csv_text

if TYPE_CHECKING:
    from oncontour.commands.dvh import Plan
    from oncontour.dose.goals import Judged

CURVE_GY = 0.1
"""Between the points of a curve in curves.csv."""


def number(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def goals_table(judged: Sequence[Judged]) -> str:
    """A line a goal: what is wanted, what is there, whether it is met, and why that cannot be said."""
    head, line, *rows = columns(["goal", "is", "verdict"], [[str(one.goal), number(one.value), one.verdict] for one in judged]).splitlines()
    return "\n".join([head, line, *(f"{row}  {one.why}".rstrip() for row, one in zip(rows, judged, strict=True))])


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def risk_table(risks: Mapping[str, float]) -> str:
    from oncontour.dose.ntcp import MODELS

    rows = [[f"{MODELS[name].endpoint} ({MODELS[name].source})", f"{100 * value:.1f} %"] for name, value in risks.items()]
    return columns(["published model", "risk"], rows) + "\nFor research: none of these models is validated for this patient."


def table_rows(plan: Plan) -> Iterator[list[object]]:
    yield ["structure", "volume_cc", "missing_cc", "basis", "min_gy", "mean_gy", "max_gy", *plan.figures]
    for name, one in plan.dvhs.items():
        figures = [value for key, value in plan.table[name].items() if key != "cc"]
        yield [name, one.volume_cc, one.missing_cc, one.basis, one.min_gy, one.mean_gy, one.max_gy, *figures]


def curve_rows(plan: Plan) -> Iterator[list[object]]:
    yield ["structure", "dose_gy", "volume_cc", "volume_percent"]
    for name, one in plan.dvhs.items():
        if one.dosed_cc:
            for gy, cc in zip(*one.cumulative(CURVE_GY), strict=True):
                yield [name, float(gy), float(cc), 100 * float(cc) / one.dosed_cc]


def as_csv(rows: Iterator[list[object]]) -> str:
    """CSV with numbers to six places; a figure that does not exist is an empty cell. Names cannot become formulas."""
    return csv_text(map(_cell, row) for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    text = str(value)
    return f"'{text}" if text[:1] in "=+-@" else text


def known(value: float) -> float | None:
    return None if value != value else float(value)
