"""Many patients: done once whoever works, whoever is killed and however often it is started; what failed is listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oncontour import classes, cli
from oncontour.commands.cohort_spread import Spread, spread
from oncontour.commands.cohort_table import LEASE_S, TRIES, Table
from oncontour.commands.cohort_work import Outcome
from oncontour.errors import ConfigError, IncompleteError, OutputError
from oncontour.many import Many
from tests.commands.cohort_works import Noting, Trusting
from tests.phantoms import cohort

ROOT = Path(__file__).parents[2]
IDS = ("p1", "p2", "p3", "p4", "p5")


def work_on(work: Noting, ids: Sequence[str] = IDS, many: Many = Many(jobs=2)) -> Spread:  # noqa: B008
    return spread(work, ids, many, Table(work.out))


def test_one_that_cannot_be_used_and_one_that_kills_its_worker_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    work = Noting(tmp_path, {"killer": 99, "p2": 1})
    became = work_on(work, ("p1", "bad", "killer", "p2", "p3"))
    assert became.done == ("p1", "p2", "p3")
    assert became.failed["bad"] == "no CT is here [bad]. Way out: add one"
    assert f"was killed, {TRIES} times" in became.failed["killer"]
    assert work.started("killer") == TRIES
    assert work.started("p2") == 2
    with pytest.raises(IncompleteError, match=r"2 of 5 patients could not be used \(bad: no CT is here") as told:
        became.told("here", "3 done")
    assert told.value.done == "3 done"


def test_a_patient_is_done_once_and_one_that_failed_or_is_gone_again(tmp_path: Path) -> None:
    work = Noting(tmp_path)
    work_on(work, ("p1", "bad", "p2"))
    (tmp_path / "p2.txt").unlink()
    again = work_on(work, ("p1", "bad", "p2", "p3"))
    assert again.earlier == 1
    assert [work.started(id) for id in ("p1", "bad", "p2", "p3")] == [1, 2, 2, 1]


def test_a_driver_killed_is_gone_on_from(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.commands.cohort_works import Noting; "
        "from tests.commands.test_cohort import IDS, work_on; "
        "work_on(Noting(Path(sys.argv[1]), {}, 'p3'), IDS, __import__('oncontour.many').many.Many(jobs=1))"
    )
    main = f"if __name__ == '__main__':\n    {code}\n"
    script = tmp_path / "drive.py"
    script.write_text(main)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    out = tmp_path / "out"
    out.mkdir()
    ended = subprocess.run([sys.executable, str(script), str(out)], env=environment, cwd=tmp_path, check=False)
    assert ended.returncode == -9
    assert len(list(out.glob(".cohort/claims/*/*.json"))) == 1
    became = work_on(Noting(out))
    assert became.done == IDS
    assert became.earlier == 2
    assert [Noting(out).started(id) for id in IDS] == [1, 1, 2, 1, 1]
    assert list(out.glob(".cohort/claims/*/*")) == list(out.glob(".cohort/owners/*")) == []


def test_shards_are_all_patients_and_each_is_in_one() -> None:
    parts = [Many(shard=f"{n}/3").picked(IDS) for n in (1, 2, 3)]
    assert parts == [("p1", "p4"), ("p2", "p5"), ("p3",)]


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3"])
def test_a_shard_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="PART from 1 to PARTS"):
        Many(shard=wrong)


def test_a_class_that_the_user_allowed_is_allowed_to_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_ALLOWED", {"ours.nets:Net"})
    became = spread(Trusting(), ("p1",), Many(jobs=1), Table(tmp_path))
    assert became.outcomes["p1"].said == "ours.nets:Net"


def test_shards_of_sixteen_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    people = cohort(tmp_path / "people", 16, shape=(8, 12, 12))
    words = ["dvh", str(people), "--structures", "PTV_7000", "--engine", "here"]
    assert cli.main([*words, "--out", str(tmp_path / "one")]) == 0
    for shard in ("2/3", "3/3", "1/3"):
        assert cli.main([*words, "--out", str(tmp_path / "shards"), "--shard", shard]) == 0
    one, shards = (
        {str(path.relative_to(out)): path.read_bytes() for path in out.glob("phantom-*/*") if path.suffix in (".csv", ".json", ".png")}
        for out in (tmp_path / "one", tmp_path / "shards")
    )
    assert len({name.partition("/")[0] for name in one}) == 16
    assert shards == one


# ---- the table


def test_of_many_that_claim_a_patient_one_has_it(tmp_path: Path) -> None:
    tables = [Table(tmp_path) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert sorted(map(str, pool.map(lambda table: table.claim("p1"), tables))) == ["0"] + 15 * ["None"] or _one_took_over(tables)


def _one_took_over(tables: Sequence[Table]) -> bool:
    """Nobody here gives signs of life, so that a claim may have been taken over; whoever claimed last has it alone."""
    held = list(tables[0].folder.glob("claims/*/*.json"))
    return len(held) == 1 and json.loads(held[0].read_text())["owner"] in {table.owner for table in tables}


def test_a_patient_in_hand_is_left_alone_until_its_driver_shows_no_life(tmp_path: Path) -> None:
    ours, theirs = Table(tmp_path), Table(tmp_path)
    with theirs.at_work(), ours.at_work():
        assert theirs.claim("p1") == 0
        assert ours.claim("p1") is None
        sign = theirs.folder / "owners" / theirs.owner
        sign.write_text(json.dumps({"machine": "another", "pid": 1, "began": "7"}))
        assert ours.claim("p1") is None
        os.utime(sign, (0, sign.stat().st_mtime - LEASE_S - 1))
        assert ours.claim("p1") == 1


def test_what_a_driver_that_stops_had_in_hand_is_free_at_once(tmp_path: Path) -> None:
    first, second = Table(tmp_path), Table(tmp_path)
    with first.at_work():
        assert first.claim("p1") == 0
    assert second.claim("p1") == 0


def test_an_outcome_survives_its_file(tmp_path: Path) -> None:
    one = Outcome("é/../p", "why \N{MICRO SIGN}", "x", "said", 1.5, 2.5, "7", 1, {"month": "2026-11"})
    table = Table(tmp_path)
    table.finish(one)
    assert table.found("é/../p") == one
    assert table.found("p") is None


# ---- commands


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("cohort") / "people", 3, shape=(16, 24, 24))


def test_a_command_for_one_patient_takes_a_cohort(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dvh", str(people), "--out", str(tmp_path / "out"), "--structures", "PTV_7000"]
    assert cli.main([*words, "--shard", "1/2", "--jobs", "1"]) == 0
    assert sorted(one.name for one in (tmp_path / "out").glob("p*")) == ["phantom-000", "phantom-002"]
    assert cli.main([*words, "--jobs", "1"]) == 0
    assert "3 patients done (2 of them by an earlier run)" in capsys.readouterr().out
    assert (tmp_path / "out/cohort.csv").read_text().count("\n") == 4
    alone = ["dvh", str(people / "phantom-001"), "--out", str(tmp_path / "one"), "--structures", "PTV_7000"]
    assert cli.main(alone) == 0
    for name in ("dvh.csv", "curves.csv", "dvh.json", "dvh.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "out/phantom-001" / name).read_bytes()
    assert cli.main([*words, "--figures", "Dmean"]) == OutputError.exit_code
    assert "asked for otherwise (different: figures)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "PEOPLE", "--out", "OUT", "--series_uid", "1.2", "--jobs", "1"], "--series_uid is of one patient, and this is a cohort"),
        (["dvh", "PEOPLE"], "no --out says where"),
        (["run", "PEOPLE", "--out", "PEOPLE/out"], "lie within each other"),
        (["run", "PEOPLE/phantom-000", "--out", "OUT", "--jobs", "2"], "this is one patient, not a folder of patients"),
        (["run", "PEOPLE", "--out", "OUT", "--shard", "3/2"], "a shard is PART/PARTS"),
        (["dvh", "PEOPLE", "--out", "OUT", "--engine", "ray"], "ray"),
    ],
)
def test_what_cannot_be_asked_of_a_cohort(
    words: list[str], says: str, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    given = [word.replace("PEOPLE", str(people)).replace("OUT", str(tmp_path / "out")) for word in words]
    assert cli.main(given) == ConfigError.exit_code or "within each other" in says
    told = capsys.readouterr().err.lower()
    assert says.lower() in told
    assert told.count("\n") == 1
