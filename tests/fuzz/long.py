"""Fuzz for as long as one likes: ``python -m tests.fuzz.long --group series --minutes 10 --seed 1 --keep findings``.

Each finding is kept once (by its signature) as a folder with the spoiled input and ``finding.txt``. Exit status 1 where there are any.
``--group differential`` reads random valid input and compares with what is right about it, seed after seed; ``all`` does both, half the
time each.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz import differential_masks, differential_series
from tests.fuzz.judge import Verdict, judge
from tests.fuzz.seeds import GROUPS, Kind

DIFFERENTIAL: dict[str, Callable[[int, int], list[str]]] = {"masks": differential_masks.check, "series": differential_series.check}
"""Name -> check(seed, n): the failures among n random inputs."""
_BATCH = 40


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=[*GROUPS, "differential", "all"], default="all")
    parser.add_argument("--kind", default="", help="only this kind within the group")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "oncontour-findings")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    seconds, found = chosen.minutes * 60 / (2 if chosen.group == "all" else 1), 0
    if chosen.group in ("differential", "all"):
        found += compare([name for name in DIFFERENTIAL if chosen.kind in ("", name)], seconds, chosen.seed)
    if chosen.group != "differential":
        groups = GROUPS if chosen.group == "all" else {chosen.group: GROUPS[chosen.group]}
        found += run(
            [kind for group in groups.values() for kind in group if chosen.kind in ("", kind.name)], seconds, chosen.seed, chosen.keep
        )
    return 1 if found else 0


def compare(names: list[str], seconds: float, seed: int) -> int:
    """Each check with seed after seed until time is up; prints what fails, and how many were tried; the number of failures."""
    end, tried, failed = time.monotonic() + seconds, dict.fromkeys(names, 0), 0
    while names and time.monotonic() < end:
        for name in names:
            failures = DIFFERENTIAL[name](seed, _BATCH)
            tried[name] += _BATCH
            failed += len(failures)
            for failure in failures:
                _say(f"{name}: {failure}")
        seed += 1
    _say(f"compared: {', '.join(f'{count} {name}' for name, count in tried.items())}; {failed} failures")
    return failed


def run(kinds: list[Kind], seconds: float, seed: int, keep: Path) -> int:
    """Rounds over all kinds until time is up; prints a table at the end; the number of different findings."""
    found: dict[str, int] = {}
    tally: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    slowest: dict[str, float] = {kind.name: 0.0 for kind in kinds}
    with tempfile.TemporaryDirectory() as place:
        made = {kind.name: prepared(kind, Path(place) / kind.name) for kind in kinds}
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for kind in kinds:
                verdict = attempt(kind, made[kind.name], Path(place) / "try", Random(f"{seed}/{number}/{kind.name}"))
                tally[kind.name][verdict.kind] += 1
                slowest[kind.name] = max(slowest[kind.name], verdict.seconds)
                if verdict.is_finding:
                    _keep(found, verdict, kind, Path(place) / "try", keep, f"{seed}/{number}/{kind.name}")
            number += 1
    for name, counts in tally.items():
        _say(f"{name:14s} {sum(counts.values()):7d} tries, slowest {slowest[name]:5.2f} s: {dict(counts)}")
    _say(f"{len(found)} different findings" + (f" in {keep}" if found else ""))
    return len(found)


def prepared(kind: Kind, folder: Path) -> tuple[Path, list[Path]]:
    folder.mkdir(parents=True)
    files = kind.make(folder)
    kind.read(folder)  # imports and compiled loops are then there before the first child is born
    verdict = judge(kind.read, folder)
    if verdict.kind != "read":
        raise RuntimeError(f"the valid {kind.name} is not read: {verdict.kind} {verdict.detail}")
    return folder, files


def attempt(kind: Kind, made: tuple[Path, list[Path]], place: Path, random: Random) -> Verdict:
    """Copy the valid input to ``place``, spoil one or two of its files, judge."""
    folder, files = made
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    for _ in range(random.choice((1, 1, 1, 2))):
        file = place / random.choice(files).relative_to(folder)
        file.write_bytes(random.choice(kind.damages)(file.read_bytes(), random))
    return judge(kind.read, place)


def _keep(found: dict[str, int], verdict: Verdict, kind: Kind, place: Path, keep: Path, name: str) -> None:
    signature = f"{kind.name}: {verdict.signature}"
    found[signature] = found.get(signature, 0) + 1
    if found[signature] > 1:
        return
    target = keep / name.replace("/", "-")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(place, target)
    (target.parent / f"{target.name}.txt").write_text(f"{kind.name}\n{verdict.kind}\n{verdict.detail}\n", encoding="utf-8")
    _say(f"{name}: {verdict.signature}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
