"""The pseudo-MRI paper's tables on phantoms: the whole chain, what is resumed, and the pieces it is judged by, by pencil."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from oncontour.commands.reproduce import reproduce
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.documents import read_yaml
from oncontour.errors import CohortError, ConfigError, OutputError
from oncontour.io import write
from oncontour.reproduce import pseudomri_2021, pseudomri_contour
from oncontour.reproduce.pseudomri_2021 import Plan, kept_apart, planned
from oncontour.reproduce.pseudomri_contour import ARMS, ELLIPSOID, ellipsoid, folds
from oncontour.reproduce.pseudomri_rows import FAIR, GANS, IMPROVED, ORIGINAL, PAIRED, TEXTBOOK, pair_of, simple_rows
from oncontour.synthesize.fidelity import agreement
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.signal import textbook
from tests.synthesize.test_fidelity import GRID, limb, noise

PAPER = Path(__file__).parents[2] / "papers" / "pseudomri-2021"
TINY = {
    "rows": [IMPROVED, FAIR, PAIRED],
    "kept_apart": 2,
    "minutes": 0.001,
    "width": 3,
    "spacing_mm": [3.0, 2.0, 2.0],
    "window": [1, 32, 32],
    "epoch_updates": 2,
    "contour_updates": 1,
    "contour_spacing_mm": [3.0, 4.0, 4.0],
    "contour_window": [8, 16, 16],
    "contour_widths": [4, 8],
    "threads": 1,
}


def patient(n: int) -> Case:
    """A limb with a tumour in its muscle, and an MR that is the textbook's and some noise."""
    ct = limb().map(lambda hu: np.where(hu > -500, hu + 5 * noise(n + 50), hu).astype(np.int16))
    mr = ct.map(lambda hu: np.abs(900 * textbook(hu) + 20 * noise(n)).astype(np.float32))
    _, j, i = np.indices(GRID.shape)
    tumour = ct.map(lambda hu: (abs(j - 20) < 4) & (abs(i - 32) < 4 + n % 3))
    return Case(f"p{n}", {"ct": ct, "mr_t1": mr}).with_masks({"GTV": tumour})


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    for n in range(5):
        write(patient(n), folder / f"p{n}", format="nifti")
    return folder


@pytest.fixture(scope="module")
def run(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("run") / "out"
    return out, reproduce("pseudomri-2021", patients, out=out, settings=TINY)


def test_the_chain_ends_in_tables_of_every_row_and_arm(run: tuple[Path, str]) -> None:
    out, text = run
    assert (out / "table.md").read_text(encoding="utf-8") == text
    for row in ("histogram matching, monotone", "histogram matching, inverted", TEXTBOOK, *TINY["rows"], *ARMS, ELLIPSOID):
        assert f"\n| {row} | " in text
    assert "| *published* rectum (n = 14) | 0.740 | 0.779 | | 0.003 | |" in text
    assert "of 14 patients cannot give less than 1.2e-04" in text
    judged = list(csv.DictReader((out / "measured.csv").open()))
    assert {one["patient"] for one in judged} == set(kept_apart([f"p{n}" for n in range(5)], planned(TINY)))
    of = {one["method"]: one for one in judged}
    assert float(of[TEXTBOOK]["mae"]) < 0.05, "the phantom's MR is the textbook's"
    assert float(of["histogram matching, monotone"]["fat_over_muscle"]) < 1 < float(of[TEXTBOOK]["fat_over_muscle"])
    drawn = list(csv.DictReader((out / "contoured.csv").open()))
    assert sorted(one["patient"] for one in drawn if one["method"] == "CT + sMRI") == [f"p{n}" for n in range(5)]


def test_nothing_learned_from_those_kept_apart(run: tuple[Path, str]) -> None:
    from oncontour.learn.card import read_card

    test = set(kept_apart([f"p{n}" for n in range(5)], planned(TINY)))
    for row in ("improved-cyclegan", "fair-cyclegan", "paired-u-net"):
        card = read_card(run[0] / "rows" / row / "model" / "model.safetensors")
        assert set(card.made["trained_on"]) == {f"p{n}" for n in range(5)} - test
    fold_of = folds([f"p{n}" for n in range(5)], 0)
    for fold in set(fold_of.values()):
        card = read_card(run[0] / f"fold-{fold}" / "ct-plus-smri" / "model.safetensors")
        assert set(card.made["trained_on"]) == {id for id, its in fold_of.items() if its != fold}
        assert card.settings["images"] == ["ct", "smr"]


def test_what_a_run_made_is_not_made_again(run: tuple[Path, str], patients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    places = ((pseudomri_2021, "fit"), (pseudomri_2021, "judged_pair"), (pseudomri_contour, "fit"), (pseudomri_contour, "write_image"))
    for where, name in places:
        monkeypatch.setattr(where, name, refuse)
    assert reproduce("pseudomri-2021", patients, out=run[0], settings=TINY) == run[1]
    with pytest.raises(OutputError, match="minutes"):
        reproduce("pseudomri-2021", patients, out=run[0], settings={**TINY, "minutes": 1.0})


def test_settings_that_cannot_be_are_refused(patients: Path, tmp_path: Path) -> None:
    for wrong in ({"row": []}, {"rows": ["CycleGAN"]}, {"arms": ["MR"]}, {"images_of": PAIRED}, {"minutes": 0.0}):
        with pytest.raises(ConfigError):
            reproduce("pseudomri-2021", patients, out=tmp_path / "out", settings={**TINY, **wrong})
    with pytest.raises(CohortError, match="5 patients"):
        reproduce("pseudomri-2021", patients, out=tmp_path / "out", settings={**TINY, "kept_apart": 4})


# ---- by pencil


def test_a_structure_may_lie_beside_the_images() -> None:
    """As sts-ct-mr has it: gtv.nii.gz, which the NIfTI layout takes for an image. What is no mask stays one."""
    case = patient(1)
    mask = case.mask("GTV").map(lambda inside: inside.astype(np.float32))
    beside = Case("p1", {**case.images, "gtv": mask})
    found = pseudomri_2021.with_structure(beside, "GTV")
    assert list(found.images) == ["ct", "mr_t1"]
    assert np.array_equal(found.mask("GTV").array, case.mask("GTV").array)
    grey = Case("p1", {**case.images, "gtv": mask.map(lambda inside: inside * 0.5)})
    assert pseudomri_2021.with_structure(grey, "GTV") is grey
    assert pseudomri_2021.with_structure(case, "GTV") is case


def test_a_structure_that_nobody_has_is_told_before_anything_is_trained(patients: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no patient has CTV"):
        pseudomri_2021.reproduce(patients, tmp_path / "out", **{**TINY, "structure": "CTV"})
    assert not (tmp_path / "out" / "rows").exists()


@pytest.mark.parametrize("arm", ["CT twice", "CT + sMRI"])
def test_arms_of_two_images_begin_as_that_of_one(arm: str) -> None:
    """Of the same image twice the untrained net says what that of one says."""
    how, answers = planned(TINY).contouring, []
    seen = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 8, 16, 16)).astype(np.float32))
    for name in ("CT", arm):
        task = pseudomri_contour.Shared(how.settings(ARMS[name]), {})
        torch.manual_seed(3)
        task.start_afresh()
        with torch.no_grad():
            answers.append(task.net.eval()(seen.expand(-1, task.settings.channels, -1, -1, -1)))
    assert torch.allclose(*answers, atol=1e-5)
    assert answers[0].std() > 1e-3


def test_each_change_alone_is_one_step_from_the_original_to_the_improved() -> None:
    alone = [set(settings.items()) - set(GANS[ORIGINAL].items()) for row, settings in GANS.items() if row.startswith("original +")]
    assert [len(change) for change in alone] == [1, 1, 1, 1]
    assert set(GANS[IMPROVED].items()) - set(GANS[ORIGINAL].items()) == set.union(*alone)


def test_curves_are_found_again_where_the_mr_is_one_of_the_ct() -> None:
    settings = SynthesizeSettings(spacing_mm=(3, 2, 2), correct_bias=False)
    pairs = [pair_of(patient(n), settings) for n in range(2)]
    rows = simple_rows(pairs)
    for row, most in (("curve fitted on pairs", 0.03), ("histogram matching, inverted", 0.2)):
        assert agreement(rows[row](pairs[0]), pairs[0].real, pairs[0].body).mae < most
    assert agreement(rows["histogram matching, monotone"](pairs[0]), pairs[0].real, pairs[0].body).correlation < 0


def test_the_ellipsoid_is_what_the_crop_leaves() -> None:
    grid = Geometry.regular((40, 50, 60), (4.0, 3.0, 3.0))
    found = ellipsoid(grid)
    axes = (160 / 2 - 50, 150 / 2 - 50, 180 / 2 - 50)
    assert found.volume_cc == pytest.approx(4 / 3 * np.pi * np.prod(axes) / 1000, rel=0.03)


def test_the_shipped_settings_are_ones_that_there_are() -> None:
    told = read_yaml(PAPER / "run.yaml")["settings"]
    plan = planned(told)
    assert set(plan.rows) == set(Plan().rows)
    assert plan.left_out == ("STS_032", "STS_033")
    with (PAPER / "published.csv").open(encoding="utf-8") as file:
        held = {(one["organ"], one["input"]): float(one["dsc"]) for one in csv.DictReader(file)}
    assert held["rectum", "sMRI"] == 0.779
    assert held["left lens", "CT + sMRI"] == 0.752
