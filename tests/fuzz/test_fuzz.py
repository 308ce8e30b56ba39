"""Readers on damaged input: they answer or refuse, in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.conftest import ROOT
from tests.fuzz.judge import Verdict
from tests.fuzz.seeds import GROUPS

EXAMPLES = {"images": 12, "tables": 12, "series": 8, "objects": 16, "models": 40}


@pytest.mark.parametrize("group", GROUPS)
def test_damaged_input_is_read_or_refused(group: str) -> None:
    """In a process of its own, which has no threads that a fork could lose."""
    command = [sys.executable, "-m", "tests.fuzz.short", group, str(EXAMPLES[group])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


# ---- the judge itself


@pytest.mark.parametrize(
    ("reader", "kind", "says"),
    [
        ("reads", "read", ""),
        ("refuses", "refused", "FormatError: no good"),
        ("crashes", "crash", "KeyError"),
        ("loops", "hang", "in loops"),
        ("hoards", "crash", "MemoryError"),
        ("dies", "killed", "SIGSEGV"),
    ],
)
def test_the_judge_tells_findings_from_answers(tmp_path: Path, reader: str, kind: str, says: str) -> None:
    """In a process of its own, too."""
    (tmp_path / "a").write_text("a")
    command = [sys.executable, "-m", "tests.fuzz.readers", reader, str(tmp_path / "a")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    verdict = Verdict(**json.loads(done.stdout))
    assert (verdict.kind, verdict.is_finding) == (kind, kind not in ("read", "refused")), verdict.detail
    assert says in verdict.detail


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:Unknown encoding")
def test_every_damage_changes_something_and_repeats(tmp_path: Path) -> None:
    for kinds in GROUPS.values():
        for kind in kinds:
            folder = tmp_path / kind.name
            folder.mkdir()
            before = kind.make(folder)[0].read_bytes()
            for spoil in kind.damages:
                spoiled = [spoil(before, Random(seed)) for seed in range(4)]
                assert any(one != before for one in spoiled)
                assert spoiled == [spoil(before, Random(seed)) for seed in range(4)]
