"""The scores outside the page: a table with a line a slice, the worst places in words, a text for each structure in the RTSTRUCT."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from oncontour.core.assessment import Assessment
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import some
from oncontour.files import write_text
from oncontour.report.review import Cell, Spot, Strip, by_reason, misplaced, sentence, spots, strips, title

COLUMNS = ("structure", "slice", "z_mm", "dsc", "lower_bound", "class", "surface_mm", "wrong_cm2", "flagged", "findings")


def scores_csv(case: Case) -> str:
    """The case's assessment as CSV, flagged structures first.

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
    table = strips(case)
    found = spots(table)
    lines = [line[:1].upper() + line[1:] for line in _not_scored(case.assessment, [strip.name for strip in table])]
    lines.append(sentence(table))
    lines += [f"  {n}. {_place(case.geometry, spot)}" for n, spot in enumerate(found[:most], start=1)]
    return lines + ([f"  and {len(found) - most} more"] if len(found) > most else [])


def summary(case: Case) -> list[str]:
    """The result in a few lines: what lies in the wrong place; what was not scored and why, each reason once; and a line for each structure
    that was, or has findings."""
    if case.assessment is None:
        return []
    structures, flagged_in = case.assessment.structures, {strip.name: sum(cell.flagged for cell in strip.cells) for strip in strips(case)}
    lines = [f"warning: {text}" for text in misplaced(case)]
    lines += _not_scored(case.assessment, list(structures))
    for name, one in structures.items():
        codes = ", ".join(dict.fromkeys(title(finding.code) for finding in one.findings))
        rated = [(line.dsc, line) for line in one.slices if line.dsc is not None]
        if one.scored and rated:
            dsc, line = min(rated, key=lambda pair: pair[0])
            place = f"worst DSC {dsc:.2f} at z {line.z_mm:.1f} mm"
            lines.append(
                f"{name:<16}{flagged_in[name]} of {len(one.slices)} slices to look at; {place}{f'; findings: {codes}' if codes else ''}"
            )
        elif codes:
            lines.append(f"{name:<16}findings: {codes}")
    return lines


def _not_scored(assessment: Assessment | None, names: Sequence[str]) -> list[str]:
    """Why structures are not scored, in the order of ``names``: a reason that all share stands alone."""
    if assessment is None or assessment.refused:
        return [] if assessment is None else [f"not scored: {assessment.refused}"]
    why = by_reason((name, assessment.structures[name].why) for name in names if not assessment.structures[name].scored)
    if len(names) in map(len, why.values()):
        return list(why)
    return [f"not scored: {some(names)}: {reason}" for reason, names in why.items()]


def _place(grid: Geometry, spot: Spot) -> str:
    said = " ".join(spot.texts) or "Much is predicted wrong."
    if spot.dsc is not None:
        bound = "" if spot.lower is None else f", at least {spot.lower:.2f}"
        outline = "" if spot.mm is None else f", outline {spot.mm:.1f} mm off{_most(spot.upper_mm)}"
        said += f" About {spot.wrong_cm2 or 0:.1f} cm² wrong{_most(spot.upper_cm2)}{outline}; predicted DSC {spot.dsc:.2f}{bound}."
    if spot.first is None or spot.last is None:
        return f"{spot.name}: {said}"
    ends = sorted({slice_number(grid, spot.first), slice_number(grid, spot.last)})
    where = f"slice {ends[0]}" if len(ends) == 1 else f"slices {ends[0]} to {ends[1]}"
    if len(ends) > 1 and spot.dsc is not None and spot.k is not None:
        where += f", worst {slice_number(grid, spot.k)}"
        if spot.most is not None and spot.most != spot.k:
            where += f", most predicted wrong on {slice_number(grid, spot.most)}"
    return f"{spot.name}, {where}: {said}"


def _most(upper: float | None) -> str:
    return "" if upper is None else f" (at most {upper:.1f})"


def slice_number(grid: Geometry, k: int) -> int:
    """From 1 at the most inferior plane of ``grid``, as the page's viewer counts."""
    return k + 1 if float(grid.axes[0, 2]) >= 0 else grid.shape[0] - k


def observations(case: Case) -> dict[str, str]:
    """A text for each structure of the case's assessment, for the ROIObservationDescription of an RTSTRUCT: what was predicted, and what
    the rules found. No patient, no file, no path; cut to 1024 characters where it is written."""
    told = case.assessment
    return {} if told is None else {strip.name: _observation(strip, told) for strip in strips(case)}


def _observation(strip: Strip, told: Assessment) -> str:
    worst = strip.worst
    if strip.scored and worst is not None:
        flagged = sum(cell.flagged for cell in strip.cells)
        bound = "" if worst.lower is None else f", at least {worst.lower:.2f} ({100 * (told.coverage or 0):.0f} %)"
        said = f"{flagged} of {len(strip.cells)} slices to review. Lowest predicted DSC {worst.dsc:.2f}{bound} at z {worst.z_mm:.1f} mm. "
        said += f"Predicted by {told.model} {str(told.sha256)[:12]}."
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
