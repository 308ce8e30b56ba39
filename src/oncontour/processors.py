"""How many processors there are to work with: those this process may run on, and no more than its container is granted.

A container that is granted two of 64 processors still sees all; 64 threads on two processors are slower than two.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available() -> int:
    """Processors of this process: by its affinity, and by the limits of its control groups (rounded up); at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = limit(GROUPS, OWN)
    return allowed if granted is None else max(1, min(allowed, math.ceil(granted)))


def limit(groups: Path, own: Path) -> float | None:
    """The least number of processors that the control groups below ``groups`` grant, the process's ``own`` and all above it; None where
    none is limited or nothing can be read.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max: quota and period, or "max") and scheduler/sched-bwc.rst (version 1:
    cpu.cfs_quota_us, -1 is none).
    """
    found = []
    for folder in _folders(groups, own):
        quota, period = _numbers(folder / "cpu.max") or (
            *(_numbers(folder / "cpu.cfs_quota_us") or (-1.0,)),
            *(_numbers(folder / "cpu.cfs_period_us") or (-1.0,)),
        )
        if quota > 0 and period > 0:
            found.append(quota / period)
    return min(found, default=None)


def _folders(groups: Path, own: Path) -> list[Path]:
    """Where limits may stand: the process's group and those above it, of version 2 and, below ``cpu``, of version 1."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        lines = []
    out = []
    for root, names in ((groups, [""]), (groups / "cpu", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])):
        paths = [Path(line[2].lstrip("/")) for line in lines if len(line) == 3 and line[1] in names]
        out += [root / part for path in [*paths, Path()] for part in (path, *path.parents)]
    return list(dict.fromkeys(out))


def _numbers(path: Path) -> tuple[float, ...] | None:
    """The numbers of a file, "max" as -1; None where there is none."""
    try:
        return tuple(-1.0 if word == "max" else float(word) for word in path.read_text(encoding="ascii").split()) or None
    except (OSError, ValueError):
        return None
