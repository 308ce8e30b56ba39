"""Fuzz for as long as one likes: ``python -m tests.fuzz.long --group series --minutes 10 --seed 1 --keep findings``.

Each finding is kept once (by its signature) as a folder with the spoiled input and ``finding.txt``. Exit status 1 where there are any.
``--group differential`` compares random valid input with what something of its own makes of it, and says each difference.
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

from tests.fuzz import differential_masks
from tests.fuzz.judge import Verdict, judge
from tests.fuzz.seeds import GROUPS, Kind

DIFFERENTIAL = {"masks": differential_masks.check}
"""Name -> ``check(seed, n)``, which gives what went wrong with n random inputs, one line each."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=[*GROUPS, "differential", "all"], default="all")
    parser.add_argument("--kind", default="", help="only this kind within the group")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "oncontour-findings")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if chosen.group == "differential":
        checks = {name: check for name, check in DIFFERENTIAL.items() if chosen.kind in ("", name)}
        return 1 if compare(checks, chosen.minutes * 60, chosen.seed) else 0
    groups = GROUPS if chosen.group == "all" else {chosen.group: GROUPS[chosen.group]}
    kinds = [kind for group in groups.values() for kind in group if chosen.kind in ("", kind.name)]
    found = run(kinds, chosen.minutes * 60, chosen.seed, chosen.keep)
    return 1 if found else 0


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


def compare(checks: dict[str, Callable[[int, int], list[str]]], seconds: float, seed: int) -> int:
    """Rounds of 100 inputs over all checks until time is up, each round with the next seed; how many failures there were."""
    end, number, failures = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        for name, check in checks.items():
            found = check(seed + number, 100)
            failures += len(found)
            for what in found:
                _say(f"{name}: {what}")
        number += 1
    _say(f"{failures} failures in {100 * number} inputs of each of {', '.join(checks)}")
    return failures


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
