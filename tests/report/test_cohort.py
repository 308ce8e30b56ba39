"""The page of a cohort: who may be harmed most first, nothing from a network, nothing of anybody but month and make."""

from __future__ import annotations

import csv
import re

import pytest

from oncontour.report.cohort import Line, drift, groups, line_of, page
from oncontour.report.cohort import csv as as_csv


def record(*areas: float | None, warnings: int = 0) -> dict[str, object]:
    """A report.json of one structure with a slice an area, and of one that has no contour."""
    slices = [{"k": k, "dsc": None if area is None else 1 - area / 10, "wrong_cm2": area} for k, area in enumerate(areas)]
    return {
        "assess": {"structures": {"Larynx": {"slices": slices, "findings": [{"code": "x"}]}}},
        "structures": [{"name": "Larynx", "slices": len(areas)}, {"name": "Parotid_L", "slices": 0}],
        "warnings": ["w"] * warnings,
    }


def test_a_line_sums_the_wrong_area_and_names_the_worst_slice() -> None:
    line = line_of("p", record(1.0, 3.0, None, warnings=2), "p/report.html", {"month": "2026-11", "scanner": "A B"}, 1.5)
    assert (line.harm_cm2, line.worst_cm2, line.worst) == (4.0, 3.0, "Larynx, slice 2")
    assert line.confidence == pytest.approx(0.8)
    assert (line.scored, line.structures, line.missing, line.findings, line.warnings) == (1, 2, 1, 1, 2)


def test_who_was_not_scored_stands_first_then_who_may_be_harmed_most_and_who_failed_apart() -> None:
    lines = [line_of(name, told, "", {}, 1.0) for name, told in {"good": record(0.5), "bad": record(9.0), "none": record(None)}.items()]
    lines.append(Line("broken", failed="no CT is here"))
    text = page("run", lines)
    assert [text.index(f'">{name}</') for name in ("broken", "none", "bad", "good")] == sorted(
        text.index(f'">{name}</') for name in ("broken", "none", "bad", "good")
    )
    assert "Of 1 patient nothing could be scored" in text
    assert "no CT is here" in text
    assert [row["patient"] for row in csv.DictReader(as_csv(lines).splitlines())] == ["none", "bad", "good", "broken"]


def test_names_are_text_and_links_lead_to_folders() -> None:
    text = page("run", [line_of('<b>"&', record(1.0), 'a "b/report.html', {"scanner": "<script>"}, 1.0)])
    assert '<a class="id" href="a%20%22b/report.html">&lt;b&gt;&#34;&amp;</a>' in text
    assert "&lt;script&gt;" in text
    assert re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", text) == []
    assert "default-src 'none'" in text


def test_months_and_scanners_have_quartiles_and_what_changed_is_said() -> None:
    old = [line_of(f"o{n}", record(1.0 + n), "", {"month": "2026-01", "scanner": "A"}, 1.0) for n in range(3)]
    new = [
        line_of("n", record(5.0), "", {"month": "2026-02", "scanner": "B"}, 1.0),
        line_of("x", record(None), "", {"month": "2026-02"}, 1.0),
    ]
    months = groups([*old, *new], "month")
    assert [(one.name, one.patients, one.unscored) for one in months] == [("2026-01", 3, 0), ("2026-02", 2, 1)]
    assert months[0].quartiles == pytest.approx((0.7, 0.8, 0.9), abs=0.11)
    assert drift([*old, *new]) == [
        "Median confidence in 2026-02: 0.500 (1 patients); before: 0.800 (3).",
        "First seen in 2026-02: B.",
    ]
    assert drift(old) == []
    assert "Median confidence by month" in page("run", [*old, *new])


def test_other_records_have_lines_too() -> None:
    line = line_of("p", {"schema": "oncontour-dvh-1", "structures": {"PTV": {}}, "notes": []}, "", {}, 1.0)
    assert (line.harm_cm2, line.structures, line.missing, line.judged) == (None, 1, 0, False)
    assert "who may be harmed most" not in page("dvh", [line])


def test_a_cell_is_no_formula() -> None:
    assert "'=1+1" in as_csv([Line("=1+1")])
