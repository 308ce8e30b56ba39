"""What a container grants, from files as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oncontour import many
from oncontour.many import Many, granted_processors, processors


def groups(folder: Path, files: dict[str, str], own: str) -> tuple[Path, Path]:
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(text)
    (folder / "own").write_text(own)
    return folder / "groups", folder / "own"


@pytest.mark.parametrize(
    ("files", "own", "granted"),
    [
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2.0),  # docker run --cpus 2
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, "0::/a/b\n", 4.0),  # the group above is limited
        ({"other/cpu.max": "100000 100000\n"}, "0::/a\n", None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/docker/1\n", 3.0),  # version 1
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", None),
        (
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "200000\n"},
            "4:cpu,cpuacct:/a\n",
            1.5,
        ),  # no link "cpu"
        ({"cpu.max": ""}, "0::/\n", None),
        ({"cpu.max": "max\n"}, "0::/\n", None),
        ({"cpu.max": "200000\n"}, "0::/\n", None),
        ({"cpu.max": "200000 100000 1\n"}, "0::/\n", None),
        ({"cpu.max": "inf 1\n"}, "0::/\n", None),
        ({"cpu.max": "many few\n"}, "nothing\n", None),
        ({}, "", None),
    ],
)
def test_what_control_groups_grant(tmp_path: Path, files: dict[str, str], own: str, granted: float | None) -> None:
    assert granted_processors(*groups(tmp_path, files, own)) == granted


def test_it_is_never_more_than_the_process_may_run_on_nor_less_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = len(os.sched_getaffinity(0))
    for text, expected in (("10000 100000", 1), ("99900000 100000", allowed), ("max 100000", allowed)):
        folder, own = groups(tmp_path, {"cpu.max": text}, "0::/\n")
        monkeypatch.setattr(many, "GROUPS", folder)
        monkeypatch.setattr(many, "OWN", own)
        assert processors() == expected


def test_threads_and_workers_go_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oncontour.learn.engine import _threads

    folder, own = groups(tmp_path, {"cpu.max": "100000 100000"}, "0::/\n")
    monkeypatch.setattr(many, "GROUPS", folder)
    monkeypatch.setattr(many, "OWN", own)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (_threads(None), Many(jobs=0).workers) == (1, 1)
