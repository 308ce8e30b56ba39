"""``evaluate`` of a cohort: whoever judges a patient, the tables are the same to the byte; judged once; who cannot be judged is listed."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.commands.cohort_spread import spread
from oncontour.commands.cohort_table import Table
from oncontour.commands.cohort_work import Outcome
from oncontour.commands.evaluate import evaluate
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, IncompleteError
from oncontour.evaluate.found import Failure, FieldRow, Judged, Row, Swap
from oncontour.evaluate.kept import as_text, of_text, read_panels, write_panels
from oncontour.evaluate.panels import Panel
from oncontour.io.image.nifti import write_image
from oncontour.learn.resident import kept, loaded, once
from oncontour.many import Many
from tests.phantoms import patient

GRID = Geometry.regular((8, 20, 20), (3.0, 2.0, 2.0))
HERE = Many(engine="here")
IDS = ("p1", "p2", "p3", "p10")


def block(j: int, i: int, size: int) -> Volume:
    array = np.zeros(GRID.shape, bool)
    array[2:6, j : j + size, i : i + size] = True
    return Volume(array, GRID)


def write_one(folder: Path, id: str, shift: int = 0) -> None:
    n = IDS.index(id) if id in IDS else 9
    image = np.random.default_rng(n).normal(40, 20, GRID.shape).astype(np.int16)
    masks = {"Cord": block(8, 8 + shift, 3 + n % 3), "Gland_L": block(2, 13 + shift, 4), "Gland_R": block(2, 2 + shift, 4)}
    if n == 1:
        del masks["Gland_R"]
    patient(folder / id, Case(id, {"ct": Volume(image, GRID)}, masks))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A cohort and, beside it, what two others drew: one cannot be read, and one nobody drew."""
    for id in IDS:
        write_one(tmp_path / "truth", id)
        write_one(tmp_path / "near", id, 1)
        if id != "p3":
            write_one(tmp_path / "far", id, 2)
    (tmp_path / "truth" / "p10" / "ct.nii.gz").write_bytes(b"no image")
    return tmp_path / "truth"


def words(people: Path, out: Path, *more: str) -> list[str]:
    drawn = [word for name in ("near", "far") for word in ("--predictions", str(people.parent / name))]
    return ["evaluate", str(people), *drawn, "--out", str(out), *more]


def written(out: Path) -> dict[str, bytes]:
    """Every file but what is kept to go on from."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and ".cohort" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_processes_and_shards_write_the_bytes_of_one_process(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(people, tmp_path / "one", "--structures", "Gland_L", "--overlays", "all", "--engine", "here")) == 2
    told = capsys.readouterr()
    assert "2 of 4 patients could not be judged (p3, p10)" in told.err
    assert "far - " not in told.out
    assert "near - far" in told.out
    assert main(words(people, tmp_path / "two", "--structures", "Gland_L", "--overlays", "all", "--jobs", "2")) == 2
    assert capsys.readouterr().out.replace("/two", "/one") == told.out
    for n in "132":
        main(words(people, tmp_path / "three", "--structures", "Gland_L", "--overlays", "all", "--engine", "here", "--shard", f"{n}/3"))
    said = capsys.readouterr().out
    assert said.count("are judged so far") == 2
    assert "of 4 patients are judged so far" not in said.split("near: mean")[-1]
    one, two, three = (written(tmp_path / name) for name in ("one", "two", "three"))
    assert {"metrics.csv", "summary.csv", "comparisons.csv", "failures.csv", "boxplots.svg", "overlays/p1.png"} <= one.keys()
    assert two == one
    assert three == one


def test_a_patient_is_judged_once_and_one_that_failed_or_changed_again(people: Path, tmp_path: Path) -> None:
    out, drawn, one = tmp_path / "out", [people.parent / "near"], {"structures": ["Cord"], "overlays": "none"}

    def judged(tolerance_mm: float = 2.0) -> list[float]:
        fractions: list[float] = []
        with suppress(IncompleteError):  # p10, as long as it cannot be read
            evaluate(people, out=out, predictions=drawn, tolerance_mm=tolerance_mm, **one, many=HERE, progress=fractions.append)
        return fractions

    assert len(judged()) == 4
    assert len(judged()) == 1  # p10, which failed
    write_one(people, "p10")
    write_one(people.parent / "near", "p2", 3)
    assert len(judged()) == 2
    assert judged() == []
    assert len(judged(tolerance_mm=1)) == 4
    write_one(people, "p4")
    write_one(people.parent / "near", "p4", 1)
    assert len(judged(tolerance_mm=1)) == 1
    evaluate(people, out=tmp_path / "anew", predictions=drawn, tolerance_mm=1, **one, many=HERE)
    assert written(out) == written(tmp_path / "anew")


def test_a_patient_that_killed_its_workers_is_not_judged_by_any_method(people: Path, tmp_path: Path) -> None:
    """What another shard wrote down of it."""
    asked, table = (people, tmp_path / "out", "--overlays", "none", "--engine", "here", "--shard"), Table(tmp_path / "out")
    main(words(*asked, "2/2"))
    judged = table.found("p2")
    assert judged is not None
    table.finish(replace(judged, why="the process that worked on it was killed, 3 times (is there enough memory?)", said=""))
    assert main(words(*asked, "1/2")) == 2
    with (tmp_path / "out" / "failures.csv").open() as file:
        rows = [(row["patient"], row["method"], row["reason"][:11]) for row in csv.DictReader(file)]
    assert rows[:2] == [("p2", "near", "the process"), ("p2", "far", "the process")]


def test_what_another_evaluation_found_is_not_mixed_in(people: Path, tmp_path: Path) -> None:
    """p2 was judged by a shard that forgave 1 mm; the one that forgives 2 mm tells of p1 and p3 alone."""
    drawn = [people.parent / "near"]
    with pytest.raises(IncompleteError):
        evaluate(people, out=tmp_path / "out", predictions=drawn, overlays="none", tolerance_mm=1, many=replace(HERE, shard="2/2"))
    said = evaluate(people, out=tmp_path / "out", predictions=drawn, overlays="none", many=replace(HERE, shard="1/2"))
    assert "2 of 4 patients are judged so far" in said
    with (tmp_path / "out" / "metrics.csv").open() as file:
        assert {row["patient"] for row in csv.DictReader(file)} == {"p1", "p3"}


def test_a_shard_without_patients_says_so(people: Path, tmp_path: Path) -> None:
    said = evaluate(people, out=tmp_path / "out", predictions=[people.parent / "near"], many=replace(HERE, shard="5/5"))
    assert said.startswith("0 of 4 patients are judged so far")
    assert written(tmp_path / "out") == {}


def test_numbers_that_nobody_names_are_told_whoever_read_them(people: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for n, id in enumerate(IDS[:3]):
        write_image(
            Volume(block(8, 8, 3).array * np.uint8(1) + block(0, 0, 2).array * np.uint8(5 + n // 2), GRID), tmp_path / f"maps/{id}.nii.gz"
        )
    (tmp_path / "labels.json").write_text('{"Cord": 1}')
    asked = {"predictions": [tmp_path / "maps"], "labels": tmp_path / "labels.json", "overlays": "none"}
    with pytest.raises(IncompleteError) as first:
        evaluate(people, out=tmp_path / "out", many=HERE, **asked)  # type: ignore[arg-type]
    with pytest.raises(IncompleteError) as again:  # those of an earlier run are read by nobody now
        evaluate(people, out=tmp_path / "out", many=HERE, **asked)  # type: ignore[arg-type]
    for told in (first.value.done, again.value.done):
        assert "label 5 has no name in" in told
        assert "it is in p1, p2" in told
        assert "is left out; it is in p3" in told


def test_one_patient_is_no_cohort_where_processes_are_asked_for(people: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="one patient, not a folder of patients"):
        evaluate(people / "p1", out=tmp_path / "out", predictions=[people.parent / "near" / "p1"], many=Many(jobs=2))
    evaluate(people / "p1", out=tmp_path / "out", predictions=[people.parent / "near" / "p1"])
    assert not (tmp_path / "out" / ".cohort").exists()


# ---- what is kept


def test_what_was_found_comes_back_to_the_last_digit() -> None:
    nan, inf = float("nan"), float("inf")
    one = Judged(
        "é/1",
        tuple(Row("é/1", "net", "Cord", "HD", value) for value in (0.1 + 0.2, inf, 5e-324)),
        (Failure("é/1", "other", "why \N{MICRO SIGN}"),),
        (Swap("é/1", "net", "Gland_L"),),
        (),
        {"net": ("Cord", "Gland_L")},
        ("Cord",),
        ("net: a remark",),
        {"net": "thorax"},
        (("what", "way"),),
        (FieldRow("é", "1", "net", 1 / 3, 2.5, 0.0, 7.1),),
        {"maps": (4, 5)},
    )
    assert of_text(as_text(one)) == one
    empty = of_text(as_text(Judged("p", (Row("p", "net", "Cord", "DSC", nan),))))
    assert np.isnan(empty.rows[0].value)
    assert json.loads(as_text(one))["patient"] == "é/1"


def test_panels_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((5, 4)) > 0.5 for _ in range(3)]
    image = rng.normal(0, 100, (5, 4)).astype(np.float32)
    one = Panel(
        "p", "Cord", "best", 7, image, masks[0], {"net": masks[1], "other": masks[2]}, {"net": 0.3, "other": float("nan")}, (0.9, 1.1)
    )
    write_panels([one, replace(one, image=None, predicted={"net": masks[2]}, rank="worst")], tmp_path / "p.npz")
    back, bare = read_panels(tmp_path / "p.npz")
    assert back.image is not None
    assert back.image.tobytes() == image.tobytes()
    assert [back.truth.tolist(), *(mask.tolist() for mask in back.predicted.values())] == [mask.tolist() for mask in masks]
    assert (back.patient, back.structure, back.rank, back.k, back.pixel_mm) == ("p", "Cord", "best", 7, (0.9, 1.1))
    assert back.dsc["net"] == 0.3
    assert np.isnan(back.dsc["other"])
    assert (bare.image, bare.rank, list(bare.predicted)) == (None, "worst", ["net"])
    assert bare.predicted["net"].tolist() == masks[2].tolist()
    assert read_panels(tmp_path / "nobody.npz") == ()


def test_a_process_keeps_models_as_long_as_it_works_on_a_cohort() -> None:
    before = loaded()
    with kept():
        first = once("a model", list)
        with kept():
            assert once("a model", list) is first
        assert once("a model", list) is first
    assert loaded() == before + 1
    assert once("a model", list) is not first


# ---- files and other runs that change meanwhile


class Meanwhile:
    """Work of two patients, during the first of which something happens."""

    def __init__(self, folder: Path, happens) -> None:
        self.folder, self.happens, self.done = folder, happens, []

    def __call__(self, id: str) -> Outcome:
        said = (self.folder / id).read_text()
        self.done.append(id)
        if id == "a":
            self.happens()
        return Outcome(id, said=said)

    def made_of(self, id: str) -> str:
        return "asked " + (self.folder / id).read_text()

    def is_there(self, id: str) -> bool:
        return True


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for id in ("a", "b"):
        (tmp_path / id).write_text(f"{id}, first")
    return tmp_path


def test_what_another_run_found_meanwhile_by_other_words_is_not_taken(two: Path) -> None:
    """It was asked for otherwise (another tolerance, say): the patient is done here."""
    table = Table(two / "out")
    other = Outcome("b", made_of="asked otherwise", said="not ours")
    became = spread(Meanwhile(two, lambda: Table(two / "out").finish(other)), ("a", "b"), HERE, table)
    assert {id: one.said for id, one in became.outcomes.items()} == {"a": "a, first", "b": "b, first"}


def test_what_another_run_found_meanwhile_by_the_same_words_is_taken(two: Path) -> None:
    same = Outcome("b", made_of="asked b, first", said="theirs")
    work = Meanwhile(two, lambda: Table(two / "out").finish(same))
    became = spread(work, ("a", "b"), HERE, Table(two / "out"))
    assert became.outcomes["b"].said == "theirs"
    assert work.done == ["a"]


def test_files_that_changed_while_they_were_read_are_read_again_the_next_time(two: Path) -> None:
    """As where a prediction is still being written."""
    work = Meanwhile(two, lambda: (two / "a").write_text("a, second"))
    spread(work, ("a", "b"), HERE, Table(two / "out"))
    work.happens = lambda: None
    became = spread(work, ("a", "b"), HERE, Table(two / "out"))
    assert work.done == ["a", "b", "a"]
    assert became.outcomes["a"].said == "a, second"
