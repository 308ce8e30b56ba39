"""``oncontour adapt --model``: two outlines of an organ, which is written and why, where they disagree; what the page shows of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

from oncontour.adapt import choose
from oncontour.adapt.choose import Measured, chosen_in, finish, measured
from oncontour.adapt.propagate import Carried, Propagated
from oncontour.adapt.task import AdaptSettings, AdaptTask
from oncontour.commands import adapt_choose
from oncontour.commands.adapt import Result, adapt
from oncontour.commands.adapt_choose import FAR_MM, Outlines, check_asked, outlines
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, ModelError
from oncontour.learn.card import Card, checked_card, with_card
from oncontour.learn.fit import fit
from oncontour.learn.task import save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.phantom import head_neck
from tests.commands.test_adapt import ORGANS, daily, planning  # noqa: F401  (fixtures)

SMALL = AdaptSettings(structures=ORGANS, spacing_mm=(6.0, 6.0, 6.0), window=(24, 24, 32), widths=(3, 4, 5), visits=1)
GRID = Geometry.regular((20, 40, 40), (2.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hardly trained; its card says that one parotid is better segmented."""
    training = TrainSettings(epochs=1, batch=2, validation=0, threads=1)
    case = head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))
    out = fit(AdaptTask(SMALL), [case], tmp_path_factory.mktemp("model"), training, finish=finish)
    told = out.card.made["chosen"]
    assert set(told) == set(ORGANS)
    assert all(0 <= one[way] <= 1 for one in told.values() for way in ("propagated", "direct"))
    told = {**told, "Parotid_L": {"way": "direct", "propagated": 0.8, "direct": 0.9, "visits": 3}}
    path = tmp_path_factory.mktemp("card") / "small.safetensors"
    path.write_bytes(with_card(out.model.read_bytes(), replace(out.card, made={**out.card.made, "chosen": told}))[1])
    return path


@pytest.fixture(scope="module")
def result(planning: Path, daily: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:  # noqa: F811
    return adapt(planning, daily, out=tmp_path_factory.mktemp("o") / "out", model=str(model), in_doubt=True)


def test_both_outlines_are_told_and_one_is_written(result: Result) -> None:
    told = result.record["adapt"]
    assert told["direct"]
    target = next(name for name in told["structures"] if name.startswith("PTV"))
    assert told["structures"][target]["outline"]["why"] == "a target is only carried"
    for name in ORGANS:
        one = told["structures"][name]["outline"]
        assert one["taken"] in ("propagated", "direct")
        if one["dsc"] is not None:
            assert one["msd_mm"] <= one["hd95_mm"]
    parotid = told["structures"]["Parotid_L"]
    if parotid["outline"]["dsc"] is not None:  # something was found by so small a net
        assert parotid["outline"]["taken"] == parotid["how"] == "direct"
        assert parotid["outline"]["why"] == "DSC 0.80 propagated, 0.90 direct on 3 visits of patients it was trained on"
    described = {
        name.ROIName: one.ROIObservationDescription
        for name, one in zip(
            pydicom.dcmread(result.out / "rtstruct.dcm").StructureSetROISequence,
            pydicom.dcmread(result.out / "rtstruct.dcm").RTROIObservationsSequence,
            strict=True,
        )
    }
    assert ("model" in described["Parotid_L"]) == (parotid["how"] == "direct")
    assert "planning CT" in described[target]


def test_a_strong_disagreement_is_a_place_to_look_at(result: Result) -> None:
    told = result.record["adapt"]
    far = [name for name in ORGANS if told["structures"][name]["outline"]["far"]]
    assert sorted(told["places"]) == sorted(far)
    for name in far:
        assert any(text.startswith(f"Look at {name}") for text in result.record["warnings"])
    page = (result.out / "report.html").read_text()
    assert 'id="compare-direct"' in page or not far
    assert json.loads((result.out / "report.json").read_text())["models"][0]["name"] == "model"


def test_a_model_of_mode_paper_is_refused(planning: Path, daily: Path, tmp_path: Path) -> None:  # noqa: F811
    paper = replace(SMALL, mode="paper", window=(44, 44, 44), volume=(44, 44, 48), variant="crossstitch-b")
    save_model(AdaptTask(paper), tmp_path / "paper.safetensors")
    with pytest.raises(ModelError, match="mode paper sees windows of 1 mm"):
        adapt(planning, daily, out=tmp_path / "out", model=str(tmp_path / "paper.safetensors"))
    save_model(AdaptTask(replace(SMALL, variant="seg-a")), tmp_path / "seg.safetensors")
    with pytest.raises(ModelError, match="segments and does not register"):
        adapt(planning, daily, out=tmp_path / "out", model=str(tmp_path / "seg.safetensors"))
    with pytest.raises(ConfigError, match="--choose direct takes outlines that a model draws"):
        adapt(planning, daily, out=tmp_path / "out", choose="direct")
    assert not (tmp_path / "out").exists()


# ---- the choice alone


def ball(at: tuple[float, float, float], mm: float) -> Volume:
    points = GRID.points(np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij"), axis=-1))
    return Volume(np.linalg.norm(points - at, axis=-1) <= mm, GRID)


def chosen(asked: str, better: dict[str, Measured], direct: dict[str, Volume]) -> Outlines:
    """Of a parotid at x = 15 mm and a target there, both carried without change."""
    masks = {"Parotid_L": ball((15, 20, 20), 8), "PTV_70": ball((15, 20, 20), 10)}
    case = Case("day", {"ct": Volume(np.zeros(GRID.shape, np.int16), GRID)}, masks)
    rows = tuple(Carried(name, "deformed", 1.0, 1.0, (0.0, 0.0, 0.0), 0.0) for name in masks)
    given = SimpleNamespace(planning=case, daily=case)
    found = SimpleNamespace(direct=direct, better=better)
    return outlines(given, Propagated(case, rows, np.eye(4)), found, asked)  # type: ignore[arg-type]


def test_without_a_word_in_the_card_and_for_targets_the_carried_outline_stays() -> None:
    direct = {"Parotid_L": ball((17, 20, 20), 8), "PTV_70": ball((25, 20, 20), 10)}
    told = chosen("card", {}, direct)
    assert {name: one.taken for name, one in told.told.items()} == {"Parotid_L": "propagated", "PTV_70": "propagated"}
    assert told.told["Parotid_L"].why == "the model's card does not say which is better"
    assert told.told["PTV_70"].dsc is None
    assert told.places == []


def test_a_direct_outline_has_its_own_volume_and_place() -> None:
    """A ball of 8 mm whose middle lies 10 mm to the left: outlines 10 mm apart at most, and a place to look at."""
    direct = {"Parotid_L": ball((25, 20, 20), 8)}
    told = chosen("card", {"Parotid_L": Measured("direct", 0.7, 0.9, 5)}, direct)
    one = told.told["Parotid_L"]
    assert one.taken == "direct"
    assert one.far
    assert FAR_MM < one.msd_mm < one.hd95_mm <= 10.5
    assert [place.name for place in told.places] == ["Parotid_L"]
    row = told.carried.structures[0]
    assert row.how == "direct"
    assert row.moved_mm == pytest.approx((10, 0, 0), abs=1e-6)
    assert row.carried_cc == pytest.approx(direct["Parotid_L"].volume_cc)
    assert np.array_equal(told.carried.case.mask("Parotid_L").array, direct["Parotid_L"].array)
    stays = chosen("propagated", {"Parotid_L": Measured("direct", 0.7, 0.9, 5)}, direct)
    assert stays.told["Parotid_L"].taken == "propagated"
    assert stays.told["Parotid_L"].why == "--choose propagated"


@pytest.mark.parametrize(("scores", "taken"), [((0.8, 0.9), "direct"), ((0.9, 0.8), "propagated"), (None, "propagated")])
def test_by_score_the_higher_one_and_what_is_not_scored_is_carried(
    scores: tuple[float, float] | None, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {} if scores is None else {"Parotid_L": scores}
    monkeypatch.setattr(adapt_choose, "_scores", lambda *_: (found, ()))
    one = chosen("score", {}, {"Parotid_L": ball((17, 20, 20), 8)}).told["Parotid_L"]
    assert one.taken == taken
    assert one.why == ("the quality model does not score it" if scores is None else one.why)


def test_a_model_that_finds_nothing_leaves_the_carried_outline() -> None:
    nothing = Volume(np.zeros(GRID.shape, bool), GRID)
    one = chosen("direct", {}, {"Parotid_L": nothing}).told["Parotid_L"]
    assert (one.taken, one.why) == ("propagated", "only one of the two outlines is there")
    check_asked("propagated", None)


# ---- what the card keeps


def test_the_better_way_is_measured_against_the_contours_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over visits decide, and a tie goes to the carried outline."""
    rows = iter([{"A": (0.8, 0.7), "B": (0.5, 0.9), "C": (0.6, 0.6)}, {"A": (0.6, 0.6), "B": (0.7, 0.6)}])
    monkeypatch.setattr(choose, "_dsc_of", lambda task, pair: next(rows))
    told = measured(AdaptTask(SMALL), [None, None])  # type: ignore[list-item]
    assert told["A"] == Measured("propagated", 0.7, 0.65, 2)
    assert told["B"] == Measured("direct", 0.6, 0.75, 2)
    assert told["C"] == Measured("propagated", 0.6, 0.6, 1)
    assert measured(AdaptTask(replace(SMALL, variant="reg-b")), []) == {}


def test_a_card_that_says_nonsense_is_refused_and_one_that_says_nothing_is_read(model: Path, tmp_path: Path) -> None:
    card = checked_card(model)
    assert chosen_in(card)["Parotid_L"] == Measured("direct", 0.8, 0.9, 3)
    assert chosen_in(Card("m", "adapt", {})) == {}
    wrong = replace(card, made={**card.made, "chosen": {"Parotid_L": {"way": "perhaps"}}})
    (tmp_path / "wrong.safetensors").write_bytes(with_card(model.read_bytes(), wrong)[1])
    with pytest.raises(ModelError, match="propagated, direct or score"):
        checked_card(tmp_path / "wrong.safetensors")
