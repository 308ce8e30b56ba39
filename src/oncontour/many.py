"""How many patients are spread over processes, batch jobs or a Ray cluster: the options that every command with a cohort has.

And how many processors there are to work with: those this process may run on, and no more than its container is granted. A container that
is granted two of 64 processors still sees all, and 64 threads on two processors are slower than two.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oncontour.errors import ConfigError

Engine = Literal["processes", "ray", "here"]


@dataclass(frozen=True)
class Many:
    """How a cohort is worked on. Raises ConfigError for what cannot be."""

    jobs: int = 0
    """of a cohort: worker processes at once, each with one thread and models of its own in memory; 0: as many as there are processors"""
    shard: str = ""
    """of a cohort: only this part of the patients, as 2/8, the second of eight, for the second of eight batch jobs with one --out"""
    engine: Engine = "processes"
    """of a cohort: who works; ray: the cluster that RAY_ADDRESS names, entered with the token of RAY_AUTH_TOKEN; here: this process, one
    patient after the other, which a patient that needs too much memory then ends"""

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise ConfigError(f"processes are counted from 1 (0 for as many as there are processors), not {self.jobs}")
        self._part()

    @property
    def is_asked(self) -> bool:
        """Whether anything is said that only a cohort needs."""
        return self != Many()

    @property
    def workers(self) -> int:
        """How many processes work on this machine."""
        return self.jobs or processors()

    def picked(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The patients of this shard: every one of ``ids`` is in one shard and no other."""
        part, of = self._part()
        return tuple(ids[part - 1 :: of])

    def _part(self) -> tuple[int, int]:
        if not self.shard:
            return 1, 1
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard)
        part, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= part <= of:
            hint = "write --shard 2/8 for the second of eight parts; parts are counted from 1"
            raise ConfigError(f"a shard is PART/PARTS with PART from 1 to PARTS, not {self.shard[:40]!r}", hint=hint)
        return part, of


# ---- processors

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def processors() -> int:
    """Processors of this process: by its affinity, and by the limits of its control groups (rounded up); at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = granted_processors(GROUPS, OWN)
    return allowed if granted is None else max(1, min(allowed, math.ceil(granted)))


def granted_processors(groups: Path, own: Path) -> float | None:
    """The least number of processors that the control groups below ``groups`` grant, the process's ``own`` and all above it; None where
    none is limited or nothing can be read.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max: quota and period, or "max") and scheduler/sched-bwc.rst (version 1:
    cpu.cfs_quota_us, -1 is none).
    """
    found = []
    for folder in _groups(groups, own):
        told = _numbers(folder / "cpu.max", 2) or _numbers(folder / "cpu.cfs_quota_us", 1) + _numbers(folder / "cpu.cfs_period_us", 1)
        if len(told) == 2 and min(told) > 0:
            found.append(told[0] / told[1])
    return min(found, default=None)


def _groups(groups: Path, own: Path) -> list[Path]:
    """Where limits may stand: the process's group and those above it, of version 2 and, below a folder named for "cpu", of version 1."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        lines = []
    own_of = {line[1]: Path(line[2].lstrip("/")) for line in lines if len(line) == 3}
    of_cpu = {name: path for name, path in own_of.items() if "cpu" in name.split(",")}
    roots = [(groups, own_of.get("", Path())), *((groups / name, path) for one, path in of_cpu.items() for name in ("cpu", one))]
    out = [root / part for root, path in [*roots, (groups / "cpu", Path())] for part in (path, *path.parents)]
    return list(dict.fromkeys(out))


def _numbers(path: Path, count: int) -> tuple[float, ...]:
    """The numbers of a file, "max" as -1; nothing where it is not there or does not hold ``count`` of them."""
    try:
        told = tuple(-1.0 if word == "max" else float(word) for word in path.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return ()
    return told if len(told) == count and all(map(math.isfinite, told)) else ()
