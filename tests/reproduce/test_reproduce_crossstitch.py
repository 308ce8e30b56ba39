"""The cross-stitch paper's table on phantoms: the whole chain, what is resumed, and the pieces it is judged by, by pencil."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import read_displacement, write_displacement
from oncontour.adapt.simulate import DAILY, PLANNING, Planning
from oncontour.adapt.task import VARIANTS, AdaptTask
from oncontour.commands.reproduce import reproduce
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, OutputError
from oncontour.evaluate.found import FieldRow, Row
from oncontour.learn.task import Task
from oncontour.phantom import head_neck
from oncontour.reproduce import crossstitch_2020, elastix
from oncontour.reproduce.crossstitch_2020 import NAMES, Plan, planned, row_settings
from oncontour.reproduce.crossstitch_judged import ORACLE, SEGMENTED, Judged, largest, oracle
from oncontour.reproduce.crossstitch_pairs import read_pairs, write_pairs
from oncontour.reproduce.crossstitch_tables import HIS, IDENTITY, OPTIMISED, PUBLISHED, REFINED, Told, tables
from tests.phantoms import NECK, cohort

PAPER = Path(__file__).parents[2] / "papers" / "crossstitch-2020"
TINY = {
    "structures": list(NECK),
    "updates": 2,
    "epoch_updates": 1,
    "batch": 1,
    "spacing_mm": [6.0, 6.0, 6.0],
    "window": [24, 24, 32],
    "widths": [3, 4, 5],
    "visits": 1,
    "judged_visits": 1,
    "validation": 0.0,
    "threads": 1,
    "rows": ["crossstitch-b", "seg-c"],
}
GRID = Geometry.regular((8, 8, 8), (2.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    cohort(folder / "train", 2)
    cohort(folder / "validation", 1, seed=10)
    return folder


@pytest.fixture(scope="module")
def run(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run of two rows in one stratum, with the oracle's row."""
    out = tmp_path_factory.mktemp("run") / "out"
    return out, reproduce("crossstitch-2020", patients, out=out, settings={**TINY, "strata": ["usual"], "paper_compat": True})


def test_the_chain_ends_in_a_table_of_every_row_that_says_simulated(run: tuple[Path, str]) -> None:
    out, text = run
    assert (out / "table.md").read_text(encoding="utf-8") == text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert all("SIMULATED" in line for line in headings if "Theirs" not in line and "flows" not in line)
    rows = [IDENTITY, OPTIMISED, "Cross-stitch b", f"Cross-stitch b{SEGMENTED}", f"Cross-stitch b{ORACLE}", f"Cross-stitch b{REFINED}"]
    for row in (*rows, f"Seg c{SEGMENTED}"):
        assert f"\n| {row} | " in text
    assert "*published*, validation (6 patients) | 1.06 ± 0.3 | 0.91 ± 0.4 | 1.27 ± 0.4 | 1.76 ± 0.8" in text
    assert "- usual: " in text, "what is claimed is told"
    assert "flow4_into_reg" in text


def test_figures_stand_one_a_line_with_the_patient_as_the_unit(run: tuple[Path, str]) -> None:
    held = list(csv.DictReader(io.StringIO((run[0] / "measured.csv").read_text(encoding="utf-8"))))
    assert {row["patient"] for row in held} == {"phantom-010"}
    of = {(row["method"], row["structure"], row["metric"]): float(row["value"]) for row in held}
    assert of[IDENTITY, "", "field_folding_percent"] == 0
    assert of[OPTIMISED, "", "field_error_mm"] > 0
    assert {metric for method, _, metric in of if method == f"Seg c{SEGMENTED}"} == {"DSC", "MSD", "HD95"}, "it finds no field"


def test_a_nets_own_field_is_not_refined_and_the_refined_row_is(run: tuple[Path, str]) -> None:
    """After two updates a net moves next to nothing, so its row stands where identity does; refined it stands where registration does."""
    held = csv.DictReader(io.StringIO((run[0] / "measured.csv").read_text(encoding="utf-8")))
    error = {row["method"]: float(row["value"]) for row in held if row["metric"] == "field_error_mm"}
    assert error["Cross-stitch b"] == pytest.approx(error[IDENTITY], abs=0.3)
    assert error[f"Cross-stitch b{REFINED}"] == pytest.approx(error[OPTIMISED], abs=0.3)
    assert error[OPTIMISED] < error[IDENTITY] - 0.6


def test_all_rows_took_equally_many_updates_on_the_same_pairs(run: tuple[Path, str]) -> None:
    records = [json.loads((run[0] / "rows" / row / "settings.json").read_text()) for row in TINY["rows"]]
    assert records[0]["patients"] == records[1]["patients"]
    assert len({(r["training"]["epochs"], r["training"]["batch"], r["task_settings"]["draws"]) for r in records}) == 1


def test_what_a_run_made_is_not_made_again(run: tuple[Path, str], patients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command again: no training, no pair, no visit, no field; the same table."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(crossstitch_2020, "fit", refuse)
    monkeypatch.setattr(AdaptTask, "samples", refuse)
    monkeypatch.setattr(Planning, "visit", refuse)
    monkeypatch.setattr("oncontour.adapt.unlearned.register", refuse)
    monkeypatch.setattr("oncontour.adapt.predict.register", refuse)
    again = reproduce("crossstitch-2020", patients, out=run[0], settings={**TINY, "strata": ["usual"], "paper_compat": True})
    assert again == run[1]


def test_a_run_stopped_anywhere_goes_on_to_the_same_table(
    run: tuple[Path, str], patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judgement, a visit's truth and a row of pairs lost: made again, the fields that are kept not, and the table is the same."""
    out = shutil.copytree(run[0], tmp_path / "out")
    shutil.rmtree(out / "judged")
    (out / "visits" / "usual" / "phantom-010" / "visit-1" / "deformation.npz").unlink()
    monkeypatch.setattr("oncontour.adapt.unlearned.register", lambda *_: pytest.fail("a kept field was fitted again"))
    again = reproduce("crossstitch-2020", patients, out=out, settings={**TINY, "strata": ["usual"], "paper_compat": True})
    assert _numbers(again) == _numbers(run[1])


def _numbers(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_more_rows_and_strata_may_come_later_but_no_other_settings(run: tuple[Path, str], patients: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run[0], tmp_path / "out")
    text = reproduce("crossstitch-2020", patients, out=out, settings={**TINY, "rows": ["seg-c"], "refined": [], "strata": ["unseen"]})
    assert "stratum unseen" in text
    with pytest.raises(OutputError, match="updates: 2 there, 4 here"):
        reproduce("crossstitch-2020", patients, out=out, settings={**TINY, "updates": 4})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": ["dense", "nonsense"]}, "nonsense"),
        ({"rows": ["seg-a"], "refined": ["seg-a"]}, "finds no field"),
        ({"rows": ["dense"], "refined": ["sedd"]}, "sedd"),
        ({"strata": []}, "one and more"),
        ({"epochs": 3}, "epochs is not known"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        planned(settings)


def test_every_variant_has_a_name_and_its_settings_in_mode_fair() -> None:
    assert set(NAMES) == set(VARIANTS)
    made = [row_settings(Plan(), row) for row in NAMES]
    assert {one.mode for one in made} == {"fair"}
    assert isinstance(AdaptTask(made[0]), Task)


def test_their_numbers_are_those_of_published_csv() -> None:
    rows = list(csv.DictReader(io.StringIO((PAPER / "published.csv").read_text(encoding="utf-8"))))
    held = {(row["cohort"], row["structure"]): (float(row["mean"]), float(row["sd"])) for row in rows if row["metric"] == "msd_mm"}
    for cohort_name, figures in PUBLISHED.items():
        key = cohort_name.split(" (")[0]
        assert [held[key, organ] for organ in HIS] == list(figures)
    assert all(row["where"] for row in rows)


# ---- pieces


def test_pairs_come_back_from_their_file_bit_by_bit(tmp_path: Path) -> None:
    pairs = AdaptTask(row_settings(planned(TINY), "dense")).samples(head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)))
    write_pairs(pairs, tmp_path / "p.npz")
    (back,) = read_pairs(tmp_path / "p.npz", pairs[0].case_id)
    for name in ("fixed", "moving", "fixed_bits", "moving_bits", "known", "inside", "truth"):
        one, other = getattr(pairs[0], name), getattr(back, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    assert back.grid == pairs[0].grid
    assert back.start is None


def test_a_field_in_half_precision_comes_back_to_a_hundredth_of_a_millimetre(tmp_path: Path) -> None:
    u = np.random.default_rng(0).uniform(-16, 16, (3, 8, 8, 8)).astype(np.float32)
    write_displacement(Deformation(Volume(u, GRID), DAILY, PLANNING), tmp_path / "u.npz", half=True)
    back = read_displacement(tmp_path / "u.npz")
    assert back.displacement.array.dtype == np.float32
    assert np.abs(back.displacement.array - u).max() < 0.01


def masks(*pieces: tuple[int, int]) -> Volume:
    """Slices ``k`` with ``n`` by ``n`` voxels each, apart from each other."""
    array = np.zeros(GRID.shape, bool)
    for k, n in pieces:
        array[k, :n, :n] = True
    return Volume(array, GRID)


def test_the_largest_piece_is_chosen_without_the_truth_and_the_oracles_with_it() -> None:
    """Pieces of 25, 9 and 4 voxels; the truth is the one of 9 and a little more: the oracle takes it, we take the one of 25."""
    drawn, truth = masks((0, 5), (3, 3), (6, 2)), masks((3, 4))
    assert largest(drawn).array.sum() == 25
    assert np.array_equal(oracle(drawn, truth).array, masks((3, 3)).array), "DSC 2 * 9 / (9 + 16) = 0.72"
    assert np.array_equal(oracle(drawn, masks((6, 8))).array, masks((6, 2)).array), "none above 0.5: the best, 2 * 4 / 68"
    assert not largest(masks()).array.any()
    assert not oracle(masks(), truth).array.any()


def test_the_comparison_and_the_claims_by_pencil() -> None:
    """Six patients, every difference of one sign: exact Wilcoxon p = 2 / 2^6 = 0.031; the field of X is 0.5 mm better and a claim holds
    where Holm over the two it is compared with (2 x 0.031 = 0.063) would not let it."""
    rows, fields = [], []
    for n in range(6):
        for method, worse in ((IDENTITY, 1.0), (OPTIMISED, 0.5), ("X", 0.0)):
            rows += [Row(f"p{n}", method, "Brainstem", m, v) for m, v in (("DSC", 0.8 - worse / 10 - n / 99), ("MSD", 2.0), ("HD95", 5.0))]
            fields.append(FieldRow(f"p{n}", "visit-1", method, 1.0 + worse * (1 + n / 10), 2.0, 0.0, 1.0))
    told = Told(3, 6, 2, 1, ("Brainstem",), "X", ("X",), {})
    text = tables({"usual": Judged(rows, fields), "unseen": Judged(rows, fields)}, told)
    line = next(line for line in text.splitlines() if line.startswith(f"| usual | X | {OPTIMISED} | field error"))
    assert "| -0.625 [" in line
    assert "| 0.032 |" in line, "rounded up: a p is never printed smaller than it is"
    assert f"- usual: FAILS: X: smaller field error than {OPTIMISED}" in text
    assert "- usual: holds: X: mean field error at most 1.8 mm" in text
    assert f"- usual: holds: X: Brainstem no worse than {IDENTITY} in DSC" in text
    assert f"- unseen: holds: X: field error not worse than {OPTIMISED} by more than 0.1 mm" in text


def test_an_elastix_that_does_not_run_is_told(tmp_path: Path) -> None:
    planning = head_neck(0, (6, 5, 5), 1.0, (24, 40, 40))
    with pytest.raises(ConfigError, match="elastix does not run"):
        elastix.Elastix(str(tmp_path / "no-python")).adapt(Planning(planning).visit(1, crossstitch_2020.STRATA["usual"]).case)
