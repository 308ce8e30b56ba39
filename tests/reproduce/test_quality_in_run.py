"""How right quality models are in a run: the figures by a pencil, and the rows of docs/models.md from the committed file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from oncontour.reproduce.quality_in_run import SURE, figures_of
from oncontour.reproduce.quality_tables import HELD_OUT, Row

ROOT = Path(__file__).parents[2]
TRUE = (0.9, 0.5, 0.8, 0.6)


def rows(judge: str, said: tuple[float, ...], lower: tuple[float, ...], structure: str = "Larynx") -> list[Row]:
    """Two patients of two slices each."""
    return [Row(judge, HELD_OUT, f"p{k // 2}", structure, "net", k, TRUE[k], said[k], lower[k], lower[k]) for k in range(4)]


def test_figures_of_four_slices_by_pencil() -> None:
    """Errors of the second judge: 0, .1, .1, 0; of the first: .1, .3, .3, .1. Bad are slices 1 and 3. The first says .8, .8, .5, .7: of
    the four pairs of a bad and a good slice one is in order ((1, 0) a tie: a half; (3, 0) in order), so AUC 1.5 / 4; the second orders all.
    Slice 1 lies below the bound of the second: 3 of 4 are covered. The median of the truth is .7: off by .2, .2, .1, .1.
    """
    nan = (float("nan"),) * 4
    found = figures_of(
        [
            *rows("first", (0.8, 0.8, 0.5, 0.7), (0.0, 0.0, 0.0, 0.0)),
            *rows("second", (0.9, 0.6, 0.7, 0.6), (0.7, 0.55, 0.6, 0.5)),
            *rows(SURE, (0.9, 0.8, 0.7, 0.6), nan),
            *rows("second", (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), "Esophagus"),
        ],
        "net",
        ("first", "second"),
        ["Larynx"],
    )
    told = {(f.judge, f.against, f.number): f.value for f in found}
    assert told == pytest.approx(
        {
            ("first", "", "MAE"): 0.2,
            ("first", "", "MAE of the best constant"): 0.15,
            ("first", "", "covered"): 1.0,
            ("first", "", "AUC"): 1.5 / 4,
            ("second", "", "MAE"): 0.05,
            ("second", "", "MAE of the best constant"): 0.15,
            ("second", "", "covered"): 0.75,
            ("second", "", "AUC"): 1.0,
            (SURE, "", "AUC"): 0.75,
            ("second", "first", "MAE"): -0.15,
            ("second", "first", "AUC"): 1 - 1.5 / 4,
            ("second", SURE, "AUC"): 0.25,
        }
    )
    assert {(f.slices, f.patients) for f in found} == {(4, 2)}


def test_the_rows_of_a_run_in_the_readme_are_those_of_the_file() -> None:
    with (ROOT / "papers" / "quality-2026" / "in-run.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["judge"] == "hn-quality" and not row["against"]]
    found = {(row["model"], row["number"]): float(row["value"]) for row in rows}
    lines = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| contours by"))
    for line, model in zip(lines[start + 2 : start + 5], ("hn-organs", "deeplab-a", "deeplab-a, target"), strict=True):
        mae, constant, auc, covered = (found[model, name] for name in ("MAE", "MAE of the best constant", "AUC", "covered"))
        assert line.endswith(f"| {mae:.3f} | {constant:.3f} | {auc:.2f} | {covered:.0%} |".replace("%", " %"))
