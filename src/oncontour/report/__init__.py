"""The report of one case: a single HTML file that needs no network, and the rows its table is made of.

    structures.py  one Row a structure: volume, extent, side, DSC      scene.py    images and contours for the viewer
    review.py      quality strips and the places to look at            export.py   the scores as CSV
    assess_record.py  the scores as JSON
    beside.py      another set of contours, and the dose          verdicts.py  what a person said of the page's places
    dose_grid.py   the dose for the viewer                        cohort.py, cohort.html    the page of many patients
    template.html, style.css    the page, with one script made of several files:
        scene.js     what travels in the page              planes.js, sections.js   the three planes and the contours in them
        look.js      window, colours, opacity              pointer.js, measure.js   the tools: pan, zoom, ruler, angle
        surface.js, solid.js   the structures in 3D        review.js, verdicts.js   the review, and what a person said of it
        compare.js, dose.js    another set, the dose       print.js, viewer.js      two sheets; controls, keys, the beginning

Where the case has an ``assessment`` the page is a review: the worst slice stands first, and keys lead from one to the next. Where the
record has ``dose`` or ``risk`` they stand below the images, each with its picture.

The page says nothing that ``report.json`` (the ``record``) does not say, except the images and the contours themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncontour.core.assessment import Assessment
from oncontour.core.case import Case
from oncontour.files import write_text
from oncontour.learn.card import is_number
from oncontour.palette import COLOURS, colour_of
from oncontour.quality.inputs import GIVEN_WORDS, calibration_words
from oncontour.report.assess_record import assess_record, reference_words
from oncontour.report.beside import Beside, on_grid_of
from oncontour.report.export import observations, scores_csv, summary, worst, write_scores
from oncontour.report.review import found_sided, misplaced, title
from oncontour.report.sheet import key_places, printed
from oncontour.report.structures import Row, rows, warnings

__all__ = [
    "COLOURS",
    "Beside",
    "Row",
    "assess_record",
    "colour_of",
    "digest",
    "found_sided",
    "inline",
    "inline_part",
    "misplaced",
    "observations",
    "on_grid_of",
    "page",
    "rows",
    "scores_csv",
    "summary",
    "table",
    "title",
    "warnings",
    "worst",
    "write",
    "write_scores",
]

if TYPE_CHECKING:
    from markupsafe import Markup

Record = Mapping[str, Any]
"""What ``report.json`` holds, or a part of it."""
SCRIPTS = ("scene.js", "planes.js", "sections.js", "look.js", "measure.js", "pointer.js", "surface.js", "solid.js")
"""What the page's one script is made of, in this order; REVIEW_SCRIPTS where there is a review; LAST starts it all."""
REVIEW_SCRIPTS = ("review.js",)
LAST = ("compare.js", "dose.js", "verdicts.js", "print.js", "viewer.js")
_MODEL_WORDS = (
    ("version", "Version"),
    ("sha256", "SHA-256 of the weights"),
    ("backend", "Computed with"),
    ("threads", "Threads"),
    ("structures", "Structures"),
    ("spacing_mm", "Working grid (k, j, i), mm"),
    ("data", "Learned from"),
    ("licence", "Licence"),
    ("metrics", "Tested"),
    ("limits", "Not for"),
    ("settings", "Settings"),
)


def write(
    record: Record,
    case: Case,
    table: list[Row],
    path: Path | str,
    figures: Mapping[str, str] | None = None,
    section: str = "",
    beside: Beside | None = None,
) -> Path:
    """Write the page of ``case`` to ``path``, whole or not at all. ``record`` is what report.json holds; ``figures``: "dvh" and "risk", as
    SVG; ``section``: HTML that stands below the images (of ``report.adapt``); ``beside``: other contours, and the dose."""
    write_text(path, page(record, case, table, figures, section, beside))
    return Path(path)


def page(
    record: Record,
    case: Case,
    table: list[Row],
    figures: Mapping[str, str] | None = None,
    section: str = "",
    beside: Beside | None = None,
) -> str:
    """The HTML of the report; rows of ``table`` that the record does not have are shown as what came with the images."""
    from jinja2 import Environment, select_autoescape
    from markupsafe import Markup

    from oncontour.report.beside import compared_words, curves_words, dose_words
    from oncontour.report.scene import scene

    beside = beside or Beside()
    shown = scene(case, table)
    ours = {row["name"] for row in record["structures"]}
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("template.html")).render(
        record=record,
        sentence=_sentence(record),
        image=_image(record),
        messages=_messages(record, table, shown.review is not None),
        review=shown.review,
        shown_hu=shown.words["unit"] == "HU",
        shown=f"{shown.step_mm[1]:.2g} × {shown.step_mm[2]:.2g} mm",
        windows=shown.windows,
        greys=shown.greys,
        dose=_dose(record["dose"]) if record.get("dose") else None,
        risk=record.get("risk"),
        given=[{**row.as_dict(), "given": True} for row in table if row.name not in ours],
        figures={name: Markup(inline(svg)) for name, svg in (figures or {}).items()},
        section=Markup(section),
        drawn=len(_segmenters(record)) > 0 or "adapt" in record,
        with_dsc=any(row.dsc is not None for row in table),
        model_facts=_model_facts,
        span=_span,
        percent=_percent,
        number=_number,
        distance=_distance,
        digest=record.get("digest") or digest(record),
        quality_facts=_quality_facts(case),
        run_facts=_run_facts(record),
        style=Markup(_part("style.css")),
        script=Markup("".join(_part(name) for name in (*SCRIPTS, *(REVIEW_SCRIPTS if shown.review else ()), *LAST))),
        compared=compared_words(beside, [row.name for row in table], shown.grid),
        compared_as=beside.compared_as,
        dose_json=_json(words) if (words := dose_words(beside, shown.dose)) else None,
        curves_json=_json(curves) if figures and "dvh" in figures and (curves := curves_words(beside)) else None,
        verdict_json=_json(_verdict_words(record, shown.review)),
        sheet=printed(record, shown.review, table),
        print_json=_json(key_places(shown.review)),
        scene=_json(shown.words),
        review_json=_json(shown.review) if shown.review else None,
        blocks=sorted(shown.blocks, key=lambda block: abs(block.first + block.count / 2 - shown.start)),
        contours=shown.contours,
        dose_codes=shown.dose.text if shown.dose else "",
    )


def table(table: list[Row]) -> str:
    """The rows as text: structure, volume in cc, slices, and DSC, HD95 and MSD where a truth was given; the mean of all DSC at the end."""
    scores = [row.dsc for row in table if row.dsc is not None]
    width = max([len("structure"), *(len(row.name) for row in table)])
    head = f"{'structure':<{width}}  {'volume cc':>9}  {'slices':>6}" + ("   DSC  HD95 mm  MSD mm" if scores else "")
    lines = [head, "-" * len(head)]
    for row in table:
        score = "" if not scores else "     -" if row.dsc is None else f"  {row.dsc:.2f}  {row.hd95_mm or 0:>7.1f}  {row.msd_mm or 0:>6.1f}"
        lines.append(f"{row.name:<{width}}  {row.volume_cc:>9.1f}  {row.slices:>6}{score}")
    if len(scores) > 1:
        lines += ["-" * len(head), f"{'mean':<{width}}  {'':>9}  {'':>6}  {sum(scores) / len(scores):.2f}"]
    return "\n".join(lines)


def digest(record: Record) -> str:
    """SHA-256 of what ``record`` says of the case, its structures and their quality: verdicts of one result are known by it. It is the same
    of the record that was written as JSON and read again."""
    import hashlib

    told = {key: _finite(record.get(key)) for key in ("case", "created", "input", "structures", "assess")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _finite(value: object) -> object:
    """``value`` with None for every number that JSON has no word for, and lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _verdict_words(record: Record, review: Mapping[str, Any] | None) -> dict[str, object]:
    """What verdicts.js needs: whose verdicts they are, and the places that are judged."""
    spots = [] if review is None else [{key: spot[key] for key in ("name", "of", "first", "codes")} for spot in review["spots"]]
    return {
        "digest": record.get("digest") or digest(record),
        "case": record["case"],
        "spots": spots,
        "structures": [row["name"] for row in record["structures"]],
    }


@cache
def _part(name: str) -> str:
    return files("oncontour.report").joinpath(name).read_text(encoding="utf-8")


def inline_part(name: str) -> str:
    """A file of this folder, to stand in a page."""
    return _part(name)


def _json(words: object) -> Markup:
    """JSON that ends no script element."""
    from markupsafe import Markup

    return Markup(json.dumps(words).replace("<", "\\u003c"))


def _messages(record: Record, table: Sequence[Row], reviewed: bool) -> list[str]:
    """The warnings at the top, without the banner's: where there is a review, without those that it tells with their slices."""
    told = {record.get("banner"), *(warnings(table) if reviewed else ())}
    return [text for text in record["warnings"] if text not in told]


def inline(svg: str) -> str:
    """``svg`` as an element of the page: without the addresses of those who made the format and the library."""
    import re

    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"""\s(xmlns(:\w+)?)=(["']).*?\3""", "", svg)


def _segmenters(record: Record) -> list[Record]:
    """The models that drew; the others judged."""
    return [one for one in record["models"] if one.get("task", "contour") == "contour"]


def _sentence(record: Record) -> str:
    missing = [row["name"] for row in record["structures"] if not row["slices"]]
    models, modality, count = len(_segmenters(record)), record["input"]["modality"], len(record["structures"])
    if "adapt" in record:
        lost = f" Nothing is left of {', '.join(missing)}." if missing else ""
        return f"{count} structure{'s' * (count > 1)} of the planning CT, carried to the CT of the day.{lost}"
    if not models:
        return f"{count - len(missing)} of {count} structures have contours on this {modality}; drawn elsewhere."
    by = "one model" if models == 1 else f"{models} models"
    if missing:
        return f"Not found on this {modality} by {by}: {', '.join(missing)}. {count - len(missing)} of {count} structures were contoured."
    return f"{count} structure{'s' * (count > 1)} {'were' if count > 1 else 'was'} contoured on this {modality} by {by}."


def _dose(told: Record) -> dict[str, object]:
    """The tables of the DVH figures and of the targets, as text; colours are those of the plot."""
    from oncontour.report.dvh import ink

    figures = list(dict.fromkeys(key for one in told["structures"].values() for key in one["figures"]))
    rows = [
        {
            "name": name,
            "colour": ink(n),
            "cells": [_number(one["volume_cc"]), *(_number(one["figures"].get(key)) for key in figures)],
            "missing": one["missing_cc"] > 0.005 * max(one["volume_cc"], 1e-9),
        }
        for n, (name, one) in enumerate(told["structures"].items())
    ]
    shown = ("prescription_gy", "v95_percent", "d95_gy", "homogeneity", "paddick", "rtog", "gradient")
    targets = [{"name": name, "cells": [_number(one[key]) for key in shown]} for name, one in told["targets"].items()]
    goals = [{**one, "value": _number(one["value"])} for one in told.get("goals", ())]
    return {"figures": figures, "rows": rows, "targets": targets, "goals": goals, "notes": told["notes"]}


def _percent(probability: float | None) -> str:
    return "–" if probability is None else f"{100 * probability:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _distance(mm: float | None) -> str:
    return "–" if mm is None else f"{mm:.1f}" if isfinite(mm) else "∞"


def _image(record: Record) -> str:
    k, j, i = record["input"]["shape"]
    dk, dj, di = record["input"]["spacing_mm"]
    return f"{record['input']['modality']}, {k} slices of {i} × {j}, {di:.3g} × {dj:.3g} × {dk:.3g} mm"


def _span(extent_mm: tuple[float, float]) -> str:
    return ", ".join(f"{z:.0f}".replace("-", "−") for z in extent_mm)


def _model_facts(model: Record) -> list[tuple[str, str]]:
    return [(title, _plain(model[key])) for key, title in _MODEL_WORDS if model.get(key)]


def _quality_facts(case: Case) -> list[tuple[str, str]]:
    told = case.assessment
    if told is None:
        return []
    facts = (
        ("SHA-256 of the weights", told.sha256),
        ("Reference model", reference_words(told.reference)),
        ("The bound holds for", told.coverage),
        *_calibration_facts(told),
    )
    return [(title, _plain(value)) for title, value in facts if value]


def _calibration_facts(told: Assessment) -> list[tuple[str, object]]:
    """The calibration; where there is one for each set of inputs, those of the sets that were there, and for which structures."""
    words, bounds = calibration_words(told.calibration), {} if told.calibration is None else told.calibration.inputs or {}
    given: dict[str, list[str]] = {}
    for name, one in told.structures.items():
        if one.inputs:
            given.setdefault(one.inputs, []).append(name)
    of_sets = [
        (f"Given {GIVEN_WORDS.get(key, key)}: {', '.join(names)}", calibration_words(bounds.get(key))) for key, names in given.items()
    ]
    return [("Calibration", {key: value for key, value in words.items() if key != "inputs"}), *((t, w or "no bound") for t, w in of_sets)]


def _run_facts(record: Record) -> list[tuple[str, str]]:
    timings = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record["timings_s"].items())
    facts = [
        ("Voxels read, SHA-256", record["input"]["voxels_sha256"]),
        ("Times", timings),
        ("Settings", _plain(record["settings"])),
        ("Versions", _plain(record["versions"])),
        ("Files", _plain(record["files"])),
    ]
    return [(title, text) for title, text in facts if text]


def _mean(value: Mapping[str, object]) -> str:
    """A mean with its interval as people write it; "" for anything else: a card may hold whatever it likes."""
    span = value.get("interval_95")
    low, high = span if isinstance(span, list | tuple) and len(span) == 2 else (None, None)
    if "patients" not in value or not all(is_number(one) for one in (value.get("mean"), low, high)):
        return ""
    return f"{value['mean']:.2f} ({low:.2f} to {high:.2f}, {_plain(value['patients'])} patients)"


def _plain(value: object) -> str:
    """A value in words: ``a: 1, b: 2``; ``a, b``; a mean with its interval as people write it."""
    if isinstance(value, Mapping):
        if told := _mean(value):
            return told
        between = "; " if any(isinstance(inner, Mapping) for inner in value.values()) else ", "
        return between.join(f"{str(key).replace('_', ' ')}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
