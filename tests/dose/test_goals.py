"""Clinical goals: what is read, and what is met, not met, and not to be judged, by DVHs that a pencil can draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oncontour.dose.dvh import DVH
from oncontour.dose.goals import Goal, judge, parse_goal, read_goals
from oncontour.errors import ConfigError, FormatError, InputError

ROOT = Path(__file__).parents[2]


def ramp(name: str = "Parotid_L", missing_cc: float = 0.0) -> DVH:
    """10 cc that receive 0 to 50 Gy, as much of each dose: mean 25, D2cc 40, V20Gy 60 %, D98% 1 Gy."""
    return DVH(name, np.array([0.0, 50.0]), np.array([10.0, 0.0]), 25.0, missing_cc)


def verdict(text: str, one: DVH | None = None, prescribed: float | None = None, cut: tuple[str, ...] = ()) -> tuple[str, float, str]:
    dvhs = {} if one is None else {one.name: one}
    (found,) = judge([parse_goal(text)], dvhs, {"Parotid_L": prescribed}, cut)
    return found.verdict, found.value, found.why


@pytest.mark.parametrize(
    ("text", "told", "value"),
    [
        ("Parotid_L Dmean < 26 Gy", "pass", 25),
        ("Parotid_L Dmean < 25 Gy", "fail", 25),
        ("Parotid_L Dmean <= 2500 cGy", "pass", 25),
        ("Parotid_L Dmean≤25 Gy", "pass", 25),
        ("Parotid_L D2cc < 39 Gy", "fail", 40),
        ("Parotid_L V20Gy < 61 %", "pass", 60),
        ("Parotid_L V20Gy[cc] < 5 cc", "fail", 6),
        ("Parotid_L D98% > 0.9 Gy", "pass", 1),
        ("Parotid_L V95% >= 5 %", "pass", 5),
    ],
)
def test_goals_by_pencil(text: str, told: str, value: float) -> None:
    assert verdict(text, ramp(), 50) == (told, pytest.approx(value), "")


def test_what_cannot_be_judged_says_why() -> None:
    assert verdict("Parotid_L Dmean < 26 Gy") == ("cannot be judged", pytest.approx(np.nan, nan_ok=True), "there is no Parotid_L here")
    assert verdict("Parotd_L Dmean < 26 Gy", ramp())[2] == "there is no Parotd_L here: did you mean Parotid_L?"
    assert verdict("Parotid_L V95% >= 95 %", ramp())[2] == "V95% is percent of a prescription, and none is known of Parotid_L"
    assert verdict("Parotid_L D20cc < 5 Gy", ramp())[2] == "Parotid_L has 10 cc: too little for D20cc"
    assert verdict("Parotid_L Dmean < 26 Gy", DVH("Parotid_L", np.empty(0), np.empty(0), np.nan, 3.0))[0] == "cannot be judged"


@pytest.mark.parametrize("how", ["cut off by the dose grid", "cut off by the scan"])
def test_a_part_settles_only_what_more_of_it_cannot_change(how: str) -> None:
    """A tenth has no dose, or the scan ends in it: the mean is not that of the whole; a maximum too high stays too high, as do cc."""
    by_dose = how.endswith("grid")
    one, cut = ramp(missing_cc=1.0 if by_dose else 0.0), () if by_dose else ("Parotid_L",)
    why = "9.09 % of Parotid_L" if by_dose else "Parotid_L reaches the first or last slice"

    def told(text: str) -> str:
        word, _, reason = verdict(text, one, 50, cut)
        assert reason.startswith(why) == (word == "cannot be judged")
        return word

    assert told("Parotid_L Dmean < 26 Gy") == told("Parotid_L Dmean < 20 Gy") == "cannot be judged"
    assert (told("Parotid_L Dmax < 45 Gy"), told("Parotid_L Dmax < 55 Gy")) == ("fail", "cannot be judged")
    assert (told("Parotid_L D2cc < 39 Gy"), told("Parotid_L D2cc < 41 Gy")) == ("fail", "cannot be judged")
    assert (told("Parotid_L CV21Gy[cc] > 4 cc"), told("Parotid_L CV21Gy[cc] > 5 cc")) == ("pass", "cannot be judged")
    assert told("Parotid_L D95% > 1 Gy") == "cannot be judged"


def test_a_rounding_of_the_dose_grid_hides_nothing() -> None:
    assert verdict("Parotid_L Dmean < 26 Gy", ramp(missing_cc=0.04))[0] == "pass"


@pytest.mark.parametrize(
    "text", ["", "Parotid_L", "Parotid_L Dmean 26 Gy", "Parotid_L Dmean < Gy", "Parotid_L Dnone < 3 Gy", "Parotid_L V20Gy < 3 Gy"]
)
def test_what_is_no_goal_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_goal(text)
    assert caught.value.hint


def test_a_file_of_goals(tmp_path: Path) -> None:
    path = tmp_path / "goals.yaml"
    path.write_text("goals:\n  - Parotid_L Dmean < 26 Gy\n  - {goal: SpinalCord Dmax < 50 Gy, source: us}\n")
    first, second = read_goals(path)
    assert (str(first), first.source) == ("Parotid_L Dmean < 26 Gy", "")
    assert second == Goal("SpinalCord", second.figure, "<", 50.0, "us")
    for text, kind in (("", InputError), ("goals: []", InputError), ("goals: [3]", ConfigError), ("a: [", FormatError)):
        path.write_text(text)
        with pytest.raises(kind, match=r"goals\.yaml"):
            read_goals(path)
    path.write_text("goals: [{goal: Larynx Dmean < 44 Gy, limit: 3}]")
    with pytest.raises(ConfigError, match="'goal' and 'source'"):
        read_goals(path)


def test_the_example_has_a_source_for_every_goal() -> None:
    goals = read_goals(ROOT / "examples" / "goals-head-neck.yaml")
    assert len(goals) == 9
    assert all("et al." in one.source for one in goals)
