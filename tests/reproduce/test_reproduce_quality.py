"""quality-2026: tables by pencil, simple predictors, and the whole of it once on phantoms."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oncontour.core.assessment import Calibration
from oncontour.errors import CohortError, ConfigError
from oncontour.learn.card import read_card
from oncontour.quality.observe import Scored
from oncontour.reproduce.quality_2026 import ARMS, HEADS, PAIRS, arm_settings, judged_models, parts, planned, reproduce
from oncontour.reproduce.quality_simple import TrainingSlice, simple_predictors
from oncontour.reproduce.quality_tables import PUBLISHED, Row, recalibrated_coverage, select, tables
from tests.phantoms import cohort

PAPER = Path(__file__).parents[2] / "papers" / "quality-2026"
NAN = float("nan")


def scored(structure="Parotid_L", area=100.0, place=0.5, true=0.8, patient="p"):
    return Scored(patient, "s", structure, 3, true, 0.7, 0.6, 0.5, 1.0, NAN, 0.9, True, True, area, place, True)


def rows(method, guesses, kind="held-out", structure="PTV_7000"):
    """Three patients, two slices each, true DSC 0.5 and 0.9."""
    truth = [0.5, 0.9] * 3
    return [
        Row(method, kind, f"p{n // 2}", structure, "s", n % 2, true, guess, guess - 0.1, guess - 0.2)
        for n, (true, guess) in enumerate(zip(truth, guesses, strict=True))
    ]


def test_their_numbers_are_those_of_published_csv():
    found = list(csv.DictReader((PAPER / "published.csv").open(encoding="utf-8")))
    assert [(float(r["mean"]), float(r["sd"])) for r in found] == [(mae, sd) for _, mae, sd in PUBLISHED]


def test_tables_by_pencil():
    """Several tasks: off by 0.1 everywhere. One: by 0.2. A constant of 0.7: by 0.2, knows nothing."""
    several, one = rows("multi-task", [0.6, 0.8] * 3), rows("single-task", [0.7, 0.7, 0.3, 0.7, 0.7, 0.7])
    constant = rows("constant", [0.7] * 6)
    text = tables(
        [*several, *one, *constant], target="PTV_7000", left={"both empty": 7}, calibrations={"multi-task": Calibration(patients=5)}
    )
    assert "both empty: 7" in text
    errors = next(line for line in text.splitlines() if line.startswith("| multi-task | 0.1000 ± 0.0000"))
    assert "| 0.219 |" in errors  # the spread of the true DSC stands beside every MAE
    assert "| 0.2000 |" in errors  # and what the best constant reaches
    assert "| 1.000 (" in text.split("## Flagging")[1]
    assert "| 0.500 (" in text.split("## Flagging")[1]
    assert "| single-task less multi-task, target | +0.1000 | +0.1000 to +0.1000 | 6 |" in text
    assert "100.0%" in text.split("## The bound")[1]


def test_each_held_out_segmenter_has_tables_of_its_own():
    """The second is off by 0.3, not by 0.1, and draws an organ alone."""
    first = rows("multi-task", [0.6, 0.8] * 3)
    second = [replace(r, source="t") for r in rows("multi-task", [0.8, 0.6] * 3, structure="Brainstem")]
    text = tables([*first, *second], target="PTV_7000", left={}, calibrations={})
    assert "## DSC of a slice, target (PTV_7000), held-out segmenter s" in text
    assert "| multi-task | 0.1000" in text.split("segmenter s")[1]
    assert "| multi-task | 0.3000" in text.split("organs (Brainstem), held-out segmenter t")[1]
    assert "target (PTV_7000), held-out segmenter t" not in text


def test_target_and_organs_are_flagged_apart_and_together():
    """Bad slices (DSC 0.5) have a guess of 0.6 in the target and 0.8 in the organ, good ones 0.8 and 0.6: AUC 1, 0, and together 1/2, as of
    the four pairs one is right, one wrong, two are ties."""
    target, organ = rows("m", [0.6, 0.8] * 3), rows("m", [0.8, 0.6] * 3, structure="Brainstem")
    text = tables([*target, *organ], target="PTV_7000", left={}, calibrations={})
    for part, area in (("target", "1.000"), ("organs", "0.000"), ("all structures", "0.500")):
        table = text.split(f"## Flagging, {part}, held-out segmenter s")[1].split("##")[0]
        assert f"| m | {area} (" in table


def test_only_the_same_slices_are_paired():
    several, one = rows("multi-task", [0.6, 0.8] * 3), rows("single-task", [0.7, 0.7] * 3)
    other = [replace(r, k=r.k + 1) for r in one]
    text = tables([*several, *other], target="PTV_7000", left={}, calibrations={})
    assert "not counted" in text
    assert "Both of a pair are needed" in text


def test_every_row_but_the_first_is_paired_with_one_that_was_trained_as_long():
    base = dict(PAIRS)
    assert base["single-task"] == base["own chances"] == "multi-task"
    assert base["CNN"] == base["without errors"] == "multi-task, short"
    assert set(base) == {arm.name for arm in ARMS} - {"multi-task", "multi-task, short"}


def test_rows_of_two_methods_are_paired():
    a, b = rows("a", [0.1] * 6), rows("b", [0.2] * 6)[::-1]
    one, two = (select([*a, *b], m, kind="held-out", structures=["PTV_7000"]) for m in ("a", "b"))
    assert one.true.tolist() == two.true.tolist()
    assert one.patients == two.patients


def test_coverage_after_calibrating_on_half():
    rng = np.random.default_rng(0)
    some = []
    for n in range(40):
        for k in range(20):
            true = rng.uniform(0.3, 1)
            guess = true + rng.normal(0, 0.1)
            some.append(Row("m", "held-out", f"p{n}", "x", "s", k, true, guess, guess, guess))
    column = select(some, "m", kind="held-out", structures=["x"])
    assert recalibrated_coverage(column) == pytest.approx(0.9, abs=0.02)


def test_simple_predictors_learn_what_there_is_to_learn():
    """DSC = 0.2 log(1 + area) / log(11), so area tells all; the constant is the structure's median."""
    train = [TrainingSlice("Parotid_L", area, place, 0.2 * np.log1p(area)) for area in (1, 5, 20, 60) for place in (0.0, 0.3, 0.7, 1.0)]
    constant, line = simple_predictors(train)(scored(area=30.0), "held-out")
    assert line.dsc == pytest.approx(0.2 * np.log1p(30.0), abs=1e-6)
    assert constant.dsc == pytest.approx(np.median([one.true for one in train]))
    assert np.isnan(line.lower)
    unknown = simple_predictors(train)(scored("Larynx"), "held-out")
    assert unknown[0].dsc == unknown[1].dsc == constant.dsc


def test_every_arm_is_a_model_and_the_held_out_family_is_never_learned():
    plan = planned({})
    for arm in ARMS:
        assert arm_settings(plan, arm).held_out_families == ("leak",)
    assert arm_settings(plan, ARMS[0]).heads == HEADS
    assert arm_settings(plan, ARMS[1]).heads == ("dsc",)
    for wrong in ({"arms": ["x"]}, {"held_out_family": "x"}, {"recipes": ["x"]}, {"held_out": ["few"]}, {"colour": 1}):
        with pytest.raises(ConfigError):
            planned(wrong)


def test_the_whole_of_it_on_phantoms(tmp_path):
    shape = {"spacing_mm": (6, 5, 5), "shape": (24, 48, 48)}
    cohort(tmp_path / "c" / "train", 4, **shape)
    cohort(tmp_path / "c" / "validation", 2, seed=30, **shape)
    tiny = {
        "structures": ["Bone_Mandible", "Parotid_L", "Parotid_R"],
        "target": "Bone_Mandible",
        "recipes": ["few"],
        "segmenter_epochs": 1,
        "segmenter_draws": 8,
        "window": [1, 48, 48],
        "epochs": 1,
        "batch": 8,
        "validation": 0.5,
        "arms": ["multi-task", "single-task"],
        "quality": {
            "net_options": {"width": 16, "depth": 1, "stem": [4, 8, 8]},
            "spacing_mm": [6, 5, 5],
            "window": [32, 32],
            "variants": 2,
            "draws": 8,
            "coverage": 0.5,
        },
        "threads": 1,
    }
    text = reproduce(tmp_path / "c", tmp_path / "out", **tiny)
    measured = list(csv.DictReader((tmp_path / "out" / "measured.csv").open(encoding="utf-8")))
    methods = {row["method"] for row in measured}
    assert methods >= {"multi-task", "single-task", "constant", "area and place", "ensemble pairwise DSC"}
    assert {row["kind"] for row in measured} >= {"leak", "wrong_side"}
    assert {row["patient"] for row in measured} == {"phantom-030", "phantom-031"}
    assert "## Flagging, errors of the kind wrong_side" in text
    again = reproduce(tmp_path / "c", tmp_path / "out", **tiny)
    assert again == text
    plan, (train, _) = planned({**tiny, "held_out": ["unet", "ours.safetensors"]}), parts(tmp_path / "c", None)
    made, named = judged_models(plan, train, tmp_path / "out" / "segmenters")
    assert named == "ours.safetensors"
    assert set(read_card(made).made["trained_on"]) < set(train.ids)
    with pytest.raises(CohortError, match="train/"):
        reproduce(tmp_path, tmp_path / "o", **tiny)
