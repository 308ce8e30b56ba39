"""The scores outside the page: a table with a line a slice, the worst places in words, a text for each structure in the RTSTRUCT."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import some
from oncontour.files import write_text
from oncontour.report.review import Cell, Spot, Strip, misplaced, sentence, spots, strips, title

COLUMNS = ("structure", "slice", "z_mm", "dsc", "lower_bound", "class", "surface_mm", "wrong_cm2", "flagged", "findings")


def scores_csv(case: Case) -> str:
    """``case.scores["assess"]`` as CSV, flagged structures first.

    ``slice`` counts from 1 at the most inferior plane of the case's grid, as the report's viewer does; ``lower_bound`` is what the DSC is
    at least, with the probability that ``report.json`` states; an empty field was not predicted. A structure's findings that no slice
    shows (its volume, its position) stand on a line of their own with an empty slice, as does the reason where it was not scored.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for strip in strips(case):
        whole = [one.code for one in strip.whole]
        if whole or not strip.scored:
            words = [*whole, *([] if strip.scored else [f"not scored: {strip.why}"])]
            writer.writerow([_safe(strip.name), *[""] * 7, int(bool(whole)), _safe("; ".join(words))])
        writer.writerows(_line(case, strip, cell) for cell in strip.cells)
    return text.getvalue()


def write_scores(case: Case, path: Path | str) -> Path:
    """Write ``scores_csv(case)`` to ``path``, whole or not at all."""
    write_text(path, scores_csv(case))
    return Path(path)


def worst(case: Case, most: int) -> list[str]:
    """What was not scored and why, how much there is to look at, and the ``most`` worst places in words, numbered as on the page."""
    scores, table = case.scores["assess"], strips(case)
    found = spots(table)
    lines = [f"Not scored: {scores['refused']}"] if scores.get("refused") else []
    if not lines and not any(strip.scored for strip in table):
        lines = list(dict.fromkeys(strip.why for strip in table if strip.why))
    elif not lines:
        unscored = by_reason((strip.name, strip.why) for strip in table if not strip.scored and strip.why)
        lines += [f"Not scored: {', '.join(names)}: {reason}" for reason, names in unscored.items()]
    lines.append(sentence(table))
    lines += [f"  {n}. {_place(case.geometry, spot)}" for n, spot in enumerate(found[:most], start=1)]
    return lines + ([f"  and {len(found) - most} more"] if len(found) > most else [])


def by_reason(unscored: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Reason -> the structures that were not scored for it, of (structure, reason)."""
    why: dict[str, list[str]] = {}
    for name, reason in unscored:
        why.setdefault(reason, []).append(name)
    return why


def _place(grid: Geometry, spot: Spot) -> str:
    said = " ".join(spot.texts) or "The predicted overlap is low."
    if spot.dsc is not None:
        bound = "" if spot.lower is None else f", at least {spot.lower:.2f}"
        said += f" Predicted DSC {spot.dsc:.2f}{bound}; about {spot.wrong_cm2 or 0:.1f} cm² wrong."
    if spot.first is None or spot.last is None:
        return f"{spot.name}: {said}"
    ends = sorted({slice_number(grid, spot.first), slice_number(grid, spot.last)})
    where = f"slice {ends[0]}" if len(ends) == 1 else f"slices {ends[0]} to {ends[1]}"
    if len(ends) > 1 and spot.dsc is not None and spot.k is not None:
        where += f", worst {slice_number(grid, spot.k)}"
        if spot.most is not None and spot.most != spot.k:
            where += f", most predicted wrong on {slice_number(grid, spot.most)}"
    return f"{spot.name}, {where}: {said}"


def slice_number(grid: Geometry, k: int) -> int:
    """From 1 at the most inferior plane of ``grid``, as the page's viewer counts."""
    return k + 1 if float(grid.axes[0, 2]) >= 0 else grid.shape[0] - k


def observations(case: Case) -> dict[str, str]:
    """A text for each structure in ``case.scores["assess"]``, for the ROIObservationDescription of an RTSTRUCT: what was predicted, and
    what the rules found. No patient, no file, no path; cut to 1024 characters where it is written."""
    scores = case.scores.get("assess", {})
    return {strip.name: _observation(strip, scores) for strip in strips(case)} if scores else {}


def _observation(strip: Strip, scores: Mapping[str, Any]) -> str:
    worst = strip.worst
    if strip.scored and worst is not None:
        flagged = sum(cell.flagged for cell in strip.cells)
        bound = "" if worst.lower is None else f", at least {worst.lower:.2f} ({100 * float(scores.get('coverage') or 0):.0f} %)"
        model = f"{scores.get('model')} {str(scores.get('sha256'))[:12]}"
        said = f"{flagged} of {len(strip.cells)} slices to review. Lowest predicted DSC {worst.dsc:.2f}{bound} at z {worst.z_mm:.1f} mm. "
        said += f"Predicted by {model}."
    else:
        said = f"Quality not scored: {strip.why or 'no score'}"
    return " ".join([said, *(one.text for one in strip.findings)])


def _line(case: Case, strip: Strip, cell: Cell) -> list[str | int]:
    numbers = [
        f"{cell.z_mm:.2f}",
        _number(cell.dsc, 3),
        _number(cell.lower, 3),
        cell.quality or "",
        _number(cell.surface_mm, 2),
        _number(cell.wrong_cm2, 2),
    ]
    return [_safe(strip.name), slice_number(case.geometry, cell.k), *numbers, int(cell.flagged), _safe("; ".join(cell.codes))]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _safe(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: names come from files that anybody may have made."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def summary(case: Case) -> list[str]:
    """The result in a few lines: what lies in the wrong place; what was not scored and why, each reason once; and a line for each structure
    that was, or has findings."""
    found = case.scores["assess"]
    structures: Mapping[str, Any] = found["structures"]
    lines = [f"warning: {text}" for text in misplaced(case)]
    lines += [f"not scored: {found['refused']}"] if found["refused"] else _reasons(structures)
    for name, one in structures.items():
        codes = ", ".join(dict.fromkeys(title(finding["code"]) for finding in one["findings"]))
        rated = [s for s in one["slices"] if s["dsc"] is not None]
        if one["scored"] and rated:
            worst = min(rated, key=lambda s: float(s["dsc"]))
            flagged = sum(s["class"] == "bad" or bool(s["findings"]) for s in one["slices"])
            place = f"worst DSC {worst['dsc']:.2f} at z {worst['z_mm']:.1f} mm"
            lines.append(f"{name:<16}{flagged} of {len(one['slices'])} slices to look at; {place}{f'; findings: {codes}' if codes else ''}")
        elif codes:
            lines.append(f"{name:<16}findings: {codes}")
    return lines


def _reasons(structures: Mapping[str, Any]) -> list[str]:
    """Why structures are not scored: a reason that all share stands alone."""
    why = by_reason((name, one["why"]) for name, one in structures.items() if not one["scored"])
    if len(structures) in map(len, why.values()):
        return list(why)
    return [f"not scored: {some(names)}: {reason}" for reason, names in why.items()]
