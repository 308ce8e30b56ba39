"""The order of the review: its measures by a pencil, and the committed table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from oncontour.reproduce.quality_order import BEST, CHANCE, HEAD, MEASURES, PRODUCT, ROWS, Seen, lines, measured, text

ROOT = Path(__file__).parents[2]


def seen(patient: str = "p") -> list[Seen]:
    """Ten slices of one organ, ten apart: the first has 2 cm2 wrong, the second 1.5, the others nothing. The head sees the first alone;
    the DSC is worst on the last, which is small."""
    wrong, head = [2.0, 1.5] + [0.0] * 8, [2.0] + [0.0] * 9
    dsc, area = [0.8, 0.9] + [0.95] * 7 + [0.1], [10.0, 10.0] + [4.0] * 7 + [0.1]
    return [Seen(patient, "A", 10 * k, dsc[k], head[k], area[k], 0.9, 0.9, wrong[k]) for k in range(10)]


def test_measures_by_pencil() -> None:
    """The first fifth is two slices. By the product 2, 1, then 0.2: both wrong ones. By DSC the last, then the first: 2 of 3.5 cm2. By the
    head the first, then one of nine alike: 2 + 1.5 / 9. Of five places two are wrong, 3.5 / 5 cm2 on average."""
    assert measured(PRODUCT, seen()) == pytest.approx((1.0, 0.18, 0.4, 0.7))
    assert measured(BEST, seen()) == pytest.approx((1.0, 0.18, 0.4, 0.7))
    assert measured(ROWS[1], seen()) == pytest.approx((2 / 3.5, 0.28, 0.4, 0.7))
    assert measured(HEAD, seen())[:2] == pytest.approx(((2 + 1.5 / 9) / 3.5, (1 + 0.8 * 9) / 10))
    assert measured(CHANCE, seen())[0] == pytest.approx(0.2, abs=0.1)
    nothing = [Seen("p", "A", k, 0.9, 0.1, 1.0, 0.9, 0.9, 0.0) for k in range(3)]
    assert np.isnan(measured(PRODUCT, nothing)[:2]).all()


def test_every_row_and_the_differences_have_an_interval_over_patients() -> None:
    found = lines([*seen("p"), *seen("q")])
    assert {(line.row, line.against) for line in found} >= {*((row, "") for row in ROWS), (HEAD, PRODUCT), (PRODUCT, ROWS[1])}
    told = {(line.row, line.against, line.measure): line for line in found}
    assert told[PRODUCT, ROWS[1], MEASURES[0]].value == pytest.approx(1 - 2 / 3.5)
    assert {(line.slices, line.patients) for line in found} == {(20, 2)}
    assert "| area head *less* area x (1 - predicted DSC) | -0.381" in text(found)


def test_the_committed_table_is_of_33_patients_and_the_files_agree() -> None:
    folder = ROOT / "papers" / "quality-2026"
    with (folder / "order.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["patients"] for row in rows} == {"33"}
    table = (folder / "order.md").read_text(encoding="utf-8")
    for row in rows:
        assert f"{float(row['value']):.3f}" in table
