"""What people said of results, collected: matched by digest, a line a slice, how often the places listed were true; and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from oncontour import report
from oncontour.commands.feedback import feedback
from oncontour.core.case import Case
from oncontour.errors import FormatError, InputError, OutputError
from oncontour.report.verdicts import of_slice, read_verdicts
from tests.report.test_report import record_of
from tests.report.test_review import scored


def result(folder: Path, case: Case, created: str = "2026-01-02T03:04:05+00:00") -> dict[str, Any]:
    """report.json of a result of ``case``, as a run writes it."""
    record = record_of(case, report.rows(case), assess=report.assess_record(case), created=created)
    record["digest"] = report.digest(record)
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(record))
    return record


def saved(path: Path, record: dict[str, Any], *verdicts: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"schema": "oncontour-verdicts-1", "digest": record["digest"], "verdicts": list(verdicts)}))
    return path


def place(structure: str, first: int | None, last: int | None, verdict: str, *codes: str, comment: str = "") -> dict[str, Any]:
    of = {"about": "place", "structure": structure, "first": first, "last": last, "codes": list(codes)}
    return {**of, "verdict": verdict, "comment": comment}


def test_slices_stand_beside_their_prediction_and_shares_by_a_pencil(tmp_path: Path) -> None:
    """Two results, one reader each. Parotid_L 6 to 9 is wrong in both; the brainstem's island is fine in one, edited in the other; so 3 of
    4 places were true, and 1 of 2 islands. Parotid_R is fine as a whole: its five slices; a brainstem edited as a whole tells no slice."""
    one, other = result(tmp_path / "cohort" / "a", scored()), result(tmp_path / "cohort" / "b", scored(), "2026-02-02T03:04:05+00:00")
    wrong = place("Parotid_L", 6, 9, "wrong", comment="=too far")
    given = tmp_path / "given"
    fine = {"about": "structure", "structure": "Parotid_R", "verdict": "fine"}
    whole = {"about": "structure", "structure": "Brainstem", "verdict": "edited"}
    saved(given / "a.json", one, wrong, place("Brainstem", 14, 15, "fine", "island"), fine)
    saved(given / "b.json", other, wrong, place("Brainstem", 14, 15, "edited", "island"), whole)
    found = feedback(tmp_path / "cohort", given, out=tmp_path / "out")
    shares = {one.what: (one.true, one.judged) for one in found.shares}
    assert shares == {
        "all places": (3, 4),
        "the first 5 of a result": (3, 4),
        "those after them": (0, 0),
        "finding island": (1, 2),
        "no finding": (2, 2),
        "Brainstem": (1, 2),
        "Parotid_L": (2, 2),
    }
    rows = list(csv.DictReader((tmp_path / "out" / "feedback.csv").open()))
    assert len(rows) == found.slices == 2 * (4 + 2) + 5
    worst = next(row for row in rows if row["structure"] == "Parotid_L" and row["k"] == "9")
    assert (worst["verdict"], worst["about"], worst["dsc"], worst["wrong_cm2"], worst["comment"]) == (
        "wrong",
        "place",
        "0.58",
        "0.84",
        "'=too far",
    )
    assert {row["k"] for row in rows if row["structure"] == "Parotid_R"} == {"5", "6", "7", "8", "9"}
    told = json.loads((tmp_path / "out" / "feedback.json").read_text())
    assert told["places"][0] == {"what": "all places", "judged": 4, "true": 3}
    assert told["files"][1]["verdicts"][2]["structure"] == "Brainstem"
    assert "all places                     3 of    4   75 %" in str(found)


def test_verdicts_of_another_or_a_changed_result_are_refused(tmp_path: Path) -> None:
    record = result(tmp_path / "one", scored())
    file = saved(tmp_path / "v.json", {"digest": "0" * 64}, place("Parotid_L", 6, 9, "wrong"))
    with pytest.raises(InputError, match="verdicts on record 000000000000, and those here are"):
        feedback(tmp_path / "one", file, out=tmp_path / "out")
    file = saved(tmp_path / "v.json", record, place("Heart", 6, 9, "wrong"))
    with pytest.raises(InputError, match="Heart, which the result does not have"):
        feedback(tmp_path / "one", file, out=tmp_path / "out")
    record["assess"]["structures"]["Parotid_L"]["slices"][0]["dsc"] = 0.1
    (tmp_path / "one" / "report.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="the record was changed"):
        feedback(tmp_path / "one", file, out=tmp_path / "out")
    with pytest.raises(InputError, match=r"there is no report\.json here"):
        feedback(tmp_path / "v.json", file, out=tmp_path / "out")
    with pytest.raises(OutputError):
        feedback(tmp_path / "one", file, out=tmp_path / "one")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "good"},
        {"about": "slice"},
        {"first": 9, "last": 6},
        {"first": -1},
        {"first": "6"},
        {"first": None},
        {"first": True},
        {"structure": 3},
        {"codes": "island"},
    ],
)
def test_what_the_page_would_not_write_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = saved(tmp_path / "v.json", {"digest": "0" * 64}, {**place("Parotid_L", 6, 9, "wrong"), **change})
    with pytest.raises(FormatError, match="verdict 1 is not what the page writes"):
        read_verdicts(file)


def test_a_files_schema_is_looked_at(tmp_path: Path) -> None:
    for text in ("[]", "{}", '{"schema": "oncontour-verdicts-1"}', "{"):
        (tmp_path / "v.json").write_text(text)
        with pytest.raises(FormatError):
            read_verdicts(tmp_path / "v.json")


def test_a_place_goes_before_its_structure(tmp_path: Path) -> None:
    fine = {"about": "structure", "structure": "Parotid_L", "verdict": "fine"}
    given = read_verdicts(saved(tmp_path / "v.json", {"digest": "0"}, place("Parotid_L", 6, 7, "wrong"), fine)).verdicts
    words = [None if (one := of_slice(given, "Parotid_L", k)) is None else one.word for k in (5, 6, 7, 8)]
    assert words == ["fine", "wrong", "wrong", "fine"]
    assert of_slice(given, "Parotid_R", 6) is None
