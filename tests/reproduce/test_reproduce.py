"""The papers: what is printed of theirs is in published.csv, what is judged of ours is right, and the command runs end to end."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from oncontour.commands.reproduce import PAPERS, reproduce
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError
from oncontour.reproduce.deeplab_npc_2020 import (
    ARMS,
    METRICS,
    PUBLISHED,
    PUBLISHED_P,
    arm_settings,
    comparison,
    false_slices,
    judge,
    tables,
)
from tests.phantoms import cohort

PAPER_FOLDERS = Path(__file__).parents[2] / "papers"
TINY = {"structure": "PTV_7000", "updates": 2, "epoch_updates": 1, "window": (1, 32, 32), "spacing_mm": (6, 5, 5), "batch": 2, "threads": 1}


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_every_paper_has_its_folder():
    assert sorted(PAPERS) == sorted(folder.name for folder in PAPER_FOLDERS.iterdir() if folder.is_dir())
    for folder in PAPER_FOLDERS.iterdir():
        assert {"README.md", "run.yaml", "published.csv"} <= {file.name for file in folder.iterdir()}


def test_their_numbers_are_those_of_published_csv():
    rows = {(row["method"], row["metric"]): row for row in rows_of(PAPER_FOLDERS / "deeplab-npc-2020" / "published.csv")}
    for method, figures in PUBLISHED.items():
        for metric in METRICS:
            row = rows[method, metric]
            assert (float(row["mean"]), float(row["sd"]), int(row["n"])) == (*figures[metric], 15)
            assert row["p_paired_t"] == PUBLISHED_P[metric]
        assert float(rows[method, "ms_per_slice"]["mean"]) == figures["ms"]


def judged(true, claimed, monkeypatch):
    grid = Geometry.regular(true.shape, (3.0, 1.0, 1.0))
    case = Case("p1", images={"ct": Volume(np.zeros(true.shape, np.int16), grid)}, masks={"PTV_7000": Volume(true, grid)})
    monkeypatch.setattr(
        "oncontour.contour.predict.Contourer.predict", lambda _, asked: asked.with_masks({"PTV_7000": Volume(claimed, grid)})
    )
    arm = ContourTask(arm_settings(ARMS[0], "PTV_7000", (1, 32, 32), (3, 1, 1), 2, "paper"))
    return {row["protocol"]: row for row in judge("x", arm, [case], "PTV_7000")}


def test_the_two_slice_protocols_by_pencil(monkeypatch):
    """Truth: 4x4 voxels on slices 2 and 3. Claim: the same, and 4x4 on slice 5, which bears nothing."""
    true, claimed = np.zeros((8, 12, 12), bool), np.zeros((8, 12, 12), bool)
    true[2:4, 4:8, 4:8] = True
    claimed[[2, 3, 5], 4:8, 4:8] = True
    found = judged(true, claimed, monkeypatch)
    assert found["target"]["dsc"] == 1
    assert found["target"]["asd_mm"] == pytest.approx(0, abs=1e-6)
    assert found["all"]["dsc"] == pytest.approx(2 * 32 / (32 + 48))
    assert found["all"]["ji"] == pytest.approx(32 / 48)
    assert found["all"]["hd_mm"] == pytest.approx(6.0, abs=1), "slice 5 lies two slices of 3 mm beyond slice 3"
    assert (found["all"]["false_slices"], found["all"]["empty_slices"]) == (1, 6)


def made_up(offset):
    """Six patients; method B is worse than A by ``offset`` in each of them, by a little more each time."""
    rows = []
    for method, shift in (("A", 0.0), ("B", offset)):
        for n in range(6):
            for protocol in ("target", "all"):
                worse = shift * (1 + n / 10)
                figures = {"dsc": 0.8 - worse, "ji": 0.67 - worse, "asd_mm": 2 + worse, "hd_mm": 9 + worse}
                rows.append({"method": method, "patient": f"p{n}", "protocol": protocol, **figures, "false_slices": n, "empty_slices": 10})
    return rows


def test_the_comparison_by_pencil():
    """Six differences of one sign: the exact two-sided Wilcoxon p is 2 / 2^6 = 0.03125; Holm over 8 equal p gives 8 x that."""
    lines = comparison(made_up(0.1), ["A", "B"])
    row = next(line for line in lines if line.startswith("| B | target | dsc |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3] == "+0.125"
    assert cells[5] == "0.032", "rounded up: a p is never printed smaller than it is"
    assert cells[6] == "0.250"
    assert cells[7] == "6"


def test_false_claims_are_counted():
    assert false_slices(made_up(0.1), ["A"])[-1] == "| A | 15 | 60 | 25.0% |"


def test_missed_targets_are_not_averaged_away():
    rows = made_up(0.1)
    rows[0]["hd_mm"] = float("inf")
    text = tables(rows, {"A": 10.0, "B": 20.0}, structure="PTV_7000", n_train=3, updates=2, mode="paper")
    assert "9.00 ± 0.00 (1 infinite)" in text


def test_the_command_trains_judges_and_prints_both_tables(tmp_path):
    cohort(tmp_path / "data" / "train", 3)
    cohort(tmp_path / "data" / "validation", 2, seed=10)
    chosen = ["DeepLabv3+", "U-Net"]
    text = reproduce("deeplab-npc-2020", tmp_path / "data", out=tmp_path / "out", settings={**TINY, "arms": chosen})
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == text
    for words in (
        "*published* DeepLabv3+ (n = 15) | 0.76 ± 0.11",
        "ours, target slices: U-Net",
        "ours, all slices: DeepLabv3+",
        "after Holm",
    ):
        assert words in text
    rows = rows_of(tmp_path / "out" / "measured.csv")
    assert {(row["method"], row["patient"], row["protocol"]) for row in rows} == {
        (arm, f"phantom-{n:03d}", protocol) for arm in chosen for n in (10, 11) for protocol in ("target", "all")
    }
    for folder in ("deeplabv3-plus", "u-net"):
        assert (tmp_path / "out" / folder / f"{folder}.safetensors").exists()


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="deeplab-npc-2020"):
        reproduce("no-such-paper", tmp_path, out=tmp_path / "out")
    with pytest.raises(CohortError, match="train/ and validation/"):
        reproduce("deeplab-npc-2020", tmp_path, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="unknown arms"):
        reproduce("deeplab-npc-2020", tmp_path, out=tmp_path / "out", settings={"arms": ["SegNet"]})
    assert not (tmp_path / "out").exists()
