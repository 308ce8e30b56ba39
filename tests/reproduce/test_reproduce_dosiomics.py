"""dosiomics-2025: the tables by pencil, folds that never mix originals, and the command from end to end."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oncontour.errors import CohortError, ConfigError, OutputError, TrainingError
from oncontour.learn.card import read_card
from oncontour.metrics.stats import Interval
from oncontour.reproduce.dosiomics_2025 import PLAIN, PUBLISHED, SPATIAL, Scene, _columns, _places, reproduce
from oncontour.reproduce.risk_rows import ROWS, chosen_rows
from oncontour.reproduce.risk_tables import (
    Column,
    area,
    auc_table,
    best_dvh,
    calibration_table,
    decision_table,
    difference,
    pair_table,
    recalibrated,
    verdict,
    widened,
)
from oncontour.risk.outcome_table import Outcomes
from tests.phantoms import cohort

FOLDER = Path(__file__).parents[2] / "papers" / "dosiomics-2025"
TINY = {
    "variants": 6,
    "folds": 2,
    "epochs": 1,
    "batch": 8,
    "net_options": {"widths": (4, 8, 8, 8), "embedding": 8},
    "window": (8, 16, 16),
    "draws": 20,
    "final_members": 2,
}


def test_their_numbers_are_those_of_published_csv():
    rows = {row["cohort"]: row for row in csv.DictReader(io.StringIO((FOLDER / "published.csv").read_text()))}
    assert {name: tuple(float(row[key]) for key in ("value", "low", "high")) for name, row in rows.items()} == PUBLISHED


@pytest.fixture(scope="module")
def column():
    """300 patients of 60 originals; the mean dose knows little, the net nearly all of the true risk."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=300) * 2
    risk = 1 / (1 + np.exp(-z))
    outcome = rng.random(300) < risk
    known = 1 / (1 + np.exp(-(z + 0.3 * rng.normal(size=300))))
    little = 1 / (1 + np.exp(-(0.4 * z + rng.normal(size=300))))
    originals = tuple(f"p{n // 5}" for n in range(300))
    return Column("home", originals, outcome, risk, {"mean dose": little, "all": known}, {"mean dose": 0.5, "all": 0.5})


def test_auc_with_its_bayes_and_pairs(column):
    found = area(column, "all", 200)
    assert found.clusters == 60
    assert found.low < found.mean < found.high
    (line,) = [line for line in auc_table([column], 100) if line.startswith("| all")]
    assert f"**{found.mean:.3f}**" in line
    assert f"Bayes {column.bayes:.3f}" in line
    assert difference(column, "all", "mean dose", 200).low > 0
    assert best_dvh(column, ["mean dose"]) == "mean dose"
    assert len(pair_table([column], "mean dose", 50)) == 3


def test_few_originals_widen_an_interval():
    """11 originals at 95 %: by sqrt(11 / 10) x 2.228 / 1.960 = 1.192; without end, not at all."""
    found = widened(Interval(0.1, 0.0, 0.3, 11))
    assert (found.low, found.high) == (pytest.approx(0.1 - 0.1192, abs=1e-4), pytest.approx(0.1 + 0.2384, abs=1e-4))
    assert widened(Interval(0.1, 0.0, 0.3, 10**6)).high == pytest.approx(0.3, abs=1e-5)
    assert np.isnan(widened(Interval(0.1, np.nan, np.nan, 1)).low)


def test_the_verdict_follows_the_numbers(column):
    (better,) = verdict([column], "mean dose", "all", 200)
    assert better.startswith("- home: the full network is better than mean dose (+")
    assert f"below the Bayes AUC of {column.bayes:.3f}" in better
    mean_dose = column.rows["mean dose"]
    same = Column("home", column.originals, column.outcome, None, {"mean dose": mean_dose, "all": mean_dose}, {})
    assert verdict([same], "mean dose", "all", 100) == [
        "- home: the full network is no better than mean dose (+0.000 [+0.000, +0.000], planned beforehand)."
    ]
    (others,) = verdict([replace(column, rows={**column.rows, "flat": mean_dose, "good": column.rows["all"]})], "mean dose", "all", 200)
    assert others.endswith("of the others better than mean dose are good (interval corrected for 2 rows).")
    (worse,) = verdict([column], "all", "mean dose", 200)
    assert "the full network is worse than all" in worse
    assert np.isnan(same.bayes)


def test_decisions_and_calibration(column):
    lines = decision_table([column])
    assert len(lines) == 4
    p, y = column.rows["all"], column.outcome
    sensitivity = (p[y] >= 0.5).mean()
    assert f"0.50 | {sensitivity:.2f} |" in lines[3]
    worse = Column("third", column.originals, y, None, {"all": p**3}, {})
    (line,) = calibration_table([worse], ["all"])[2:]
    before, after = (float(line.split("|")[n]) for n in (5, 8))
    assert after < before, "Brier: cubed probabilities are far too low, and recalibration mends that"


def test_recalibration_is_judged_on_other_originals(column):
    """Nobody's own outcome moves its own probability: one original's outcomes turned round change only the other half."""
    p, y = column.rows["all"], column.outcome.copy()
    before = recalibrated(p, y, column.originals)
    first = np.array([name == "p0" for name in column.originals])
    y[first] = ~y[first]
    after = recalibrated(p, y, column.originals)
    assert (before[first] == after[first]).all()
    assert (before != after).any()


def test_originals_have_one_hospital():
    parts = {f"t{n}": "train" for n in range(8)} | {f"v{n}": "validation" for n in range(3)}
    found = _places(parts, 0)
    assert {found[id] for id in parts if id.startswith("v")} == {"third"}
    assert sum(place == "second" for place in found.values()) == 2
    alone = _places({f"t{n}": "train" for n in range(10)}, 0)
    assert sorted(alone.values()) == ["home"] * 6 + ["second"] * 2 + ["third"] * 2
    with pytest.raises(CohortError, match="three hospitals"):
        _places({"a": "train"}, 0)


def test_rows_by_name():
    assert [row.name for row in chosen_rows(["all", "LKB"])] == ["LKB", "all"]
    assert len(ROWS) == 10
    with pytest.raises(ConfigError, match="unknown rows"):
        chosen_rows(["x"])


def test_from_end_to_end_and_on_again(tmp_path):
    """Every row on phantoms, once; a second start does nothing anew; other settings are refused."""
    patients = tmp_path / "cohort"
    cohort(patients / "train", 6)
    cohort(patients / "validation", 2, seed=6)
    text = reproduce(patients, tmp_path / "out", scenes=(SPATIAL,), **TINY)
    assert text.startswith("# Simulated outcomes: ")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert all("Simulated outcomes" in line for line in headings)
    table = text.split("### ")[0]
    assert all(f"| {row.name} |" in table for row in ROWS)
    assert table.count("Bayes") == 3 * len(ROWS)
    assert (tmp_path / "out" / "tripod.md").read_text().startswith("# Simulated outcomes")
    assert read_card(tmp_path / "out" / "model" / "risk.safetensors").settings["members"] == 2
    folds = sorted((tmp_path / "out" / "with-the-spatial-term" / "all").glob("fold?.json"))
    judged = [set(json.loads(fold.read_text())["home"]) for fold in folds]
    originals = [{name.split("-v")[0] for name in fold} for fold in judged]
    assert len(folds) == 2
    assert not originals[0] & originals[1]
    written = [fold.stat().st_mtime_ns for fold in folds]
    assert reproduce(patients, tmp_path / "out", scenes=(SPATIAL,), **TINY) == text
    assert [fold.stat().st_mtime_ns for fold in folds] == written
    with pytest.raises(OutputError, match=r"other settings \(different: recipe\)"):
        reproduce(patients, tmp_path / "out", scenes=(PLAIN,), **{**TINY, "epochs": 2})
    with pytest.raises(OutputError, match=r"different: patients or outcomes with the spatial term"):
        reproduce(patients, tmp_path / "out", scenes=(SPATIAL,), patients=5, **TINY)


def test_real_outcomes_have_no_bayes_and_no_such_title(tmp_path):
    patients = cohort(tmp_path / "cohort", 6)
    table = tmp_path / "real.csv"
    table.write_text("patient,late,age\n" + "".join(f"phantom-00{n},{n % 2},{60 + n}\n" for n in range(6)))
    rows = ["mean dose", "DVH logistic"]
    text = reproduce(patients, tmp_path / "out", outcomes=str(table), toxicity="late", facts=("age",), rows=rows, **TINY)
    assert "imulated" not in text
    assert "Bayes" not in text
    assert "home (6, 3 events)" in text


def test_a_hospital_or_a_fold_of_one_kind_is_named(tmp_path):
    patients = cohort(tmp_path / "cohort", 6)
    table = tmp_path / "real.csv"
    rows = {"rows": ["mean dose"], "facts": (), "toxicity": "late", **TINY}
    table.write_text("patient,late,hospital\n" + "".join(f"phantom-00{n},{n % 2},{'A' if n < 4 else 'B'}\n" for n in range(5)))
    with pytest.raises(CohortError, match="0 of the 1 patients of B who can be used had late: no model can be judged there"):
        reproduce(patients, tmp_path / "out", outcomes=str(table), **rows)
    table.write_text("patient,late\n" + "".join(f"phantom-00{n},{int(n == 2)}\n" for n in range(6)))
    with pytest.raises(CohortError, match=r"0 of the \d training patients of this fold had late.*real outcomes: mean dose, fold \d"):
        reproduce(patients, tmp_path / "out", outcomes=str(table), **rows)


class Deadly:
    """Whoever unpacks it is gone, like a process that the system kills."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_killed_process_is_told_in_a_sentence(tmp_path):
    scene = Scene("real outcomes", Outcomes((), ("late",)), {"home": (Deadly(),)})
    with pytest.raises(TrainingError, match="one of 2 processes ended without an answer after 0 of 1 folds") as told:
        _columns(scene, chosen_rows(["mean dose"]), None, tmp_path, 1, 0, 2)
    assert "finished folds are kept" in str(told.value)
