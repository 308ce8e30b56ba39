"""The table of outcomes: there and back, and each fault in one sentence with its line."""

import pytest

from oncontour.errors import CohortError
from oncontour.risk.outcome_table import MADE, Outcomes, Person, read_outcomes, write_outcomes

MADE_UP = {**dict.fromkeys(MADE, 0.0), "scale": 0.9, "number": 3.0}


def table(tmp_path, text):
    path = tmp_path / "outcomes.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_real_outcomes_unknown_stay_unknown(tmp_path):
    path = table(tmp_path, "patient,grade2,late,age,chemo,note\np1,1,0,61.5,1,x\np2,0,,58,0,y\np3,NA,1,,1,\n")
    found = read_outcomes(path, facts=["age", "chemo"])
    assert found.toxicities == ("grade2", "late")
    assert not found.simulated
    one, two, three = found.people
    assert dict(one.outcomes) == {"grade2": True, "late": False}
    assert dict(two.outcomes) == {"grade2": False}
    assert dict(three.outcomes) == {"late": True}
    assert dict(three.facts) == {"chemo": 1.0}
    assert one.source == "p1"


def test_simulated_outcomes_come_back_as_they_went(tmp_path):
    people = (
        Person("home-a-v003", {"g2": True}, {"age": 60.0}, "a", "home", MADE_UP, {"g2": 0.25}),
        Person("home-b-v003", {"g2": False}, {"age": 61.0}, "b", "home", MADE_UP, {"g2": 0.75}),
        Person("home-c-v003", {}, {}, "c", "away", MADE_UP, {"g2": 0.5}),
    )
    wrote = Outcomes(people, ("g2",), ("age",), simulated=True)
    found = read_outcomes(write_outcomes(wrote, tmp_path / "o.csv"), facts=["age"])
    assert found.people == people
    assert found.simulated
    assert found.hospitals == ("home", "away")
    assert len(found.of("home").people) == 2
    assert people[0].source == "a"
    with pytest.raises(CohortError, match="nobody is of hospital 'x'"):
        found.of("x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("patient,g2\np1,1\np2,1\n", "g2 is 1 in all 2 patients of whom it is known"),
        ("patient,g2\np1,\np2,\n", "no column of outcomes"),
        ("patient,g2\np1,1\np2,2\n", "line 3"),
        ("patient,g2\np1,1\np1,0\n", "was in line 2 already"),
        ("name,g2\np1,1\n", "no column patient"),
        ("patient,g2\n", "without patients"),
        ("patient,g2\np1,1,4\n", "more or fewer cells"),
        ("patient,g2,g2\np1,1,1\n", "two columns have one name"),
        ("patient,g2\n,1\np2,0\n", "no patient is named"),
        ("patient,g2,original,scale\np1,1,a,1\np2,0,b,1\n", "told in part: scale"),
    ],
)
def test_each_fault_in_a_sentence(tmp_path, text, says):
    with pytest.raises(CohortError, match=says):
        read_outcomes(table(tmp_path, text), ["g2"] if "2\n" in text and "p2,2" in text else [])


def test_facts_are_numbers(tmp_path):
    path = table(tmp_path, "patient,g2,age\np1,1,old\np2,0,60\n")
    with pytest.raises(CohortError, match=r"age is 'old', no number.*line 2"):
        read_outcomes(path, facts=["age"])
    with pytest.raises(CohortError, match="no column sex"):
        read_outcomes(path, facts=["sex"])
    with pytest.raises(CohortError, match="cannot be read"):
        read_outcomes(tmp_path / "nowhere.csv")
