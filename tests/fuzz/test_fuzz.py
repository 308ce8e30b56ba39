"""Readers on damaged input: they answer or refuse, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from oncontour.errors import FormatError
from tests.conftest import ROOT
from tests.fuzz.judge import judge
from tests.fuzz.seeds import GROUPS

EXAMPLES = {"images": 12, "tables": 12, "series": 8, "objects": 16}


@pytest.mark.parametrize("group", GROUPS)
def test_damaged_input_is_read_or_refused(group: str) -> None:
    """In a process of its own, which has no threads that a fork could lose."""
    command = [sys.executable, "-m", "tests.fuzz.short", group, str(EXAMPLES[group])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


# ---- the judge itself


def _reads(path: Path) -> object:
    return path.read_bytes()


def _refuses(path: Path) -> object:
    raise FormatError("no good")


def _crashes(path: Path) -> object:
    raise KeyError("oops")


def _loops(path: Path) -> object:
    while True:
        pass


def _hoards(path: Path) -> object:
    return bytearray(1 << 33)


def _dies(path: Path) -> object:
    import ctypes

    return ctypes.string_at(0)


@pytest.mark.parametrize(
    ("reader", "kind", "says"),
    [
        (_reads, "read", ""),
        (_refuses, "refused", "FormatError: no good"),
        (_crashes, "crash", "KeyError"),
        (_loops, "hang", "_loops"),
        (_hoards, "crash", "MemoryError"),
        (_dies, "killed", "SIGSEGV"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_the_judge_tells_findings_from_answers(tmp_path: Path, reader, kind: str, says: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a").write_text("a")
    # Much patience: on a busy machine two seconds of work can take a minute, and the loop is to be caught at work.
    verdict = judge(reader, tmp_path / "a", seconds=2.0, patience=60)
    assert (verdict.kind, verdict.is_finding) == (kind, kind not in ("read", "refused"))
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
