"""What a structure's volume and place were in a cohort, as plain data, and whether another patient's lie within.

A place is told by the other structures of the same patient: the step between two centres of mass does not depend on the scanner, the couch
or the position of the image, and needs no CT.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from oncontour.core.assessment import Finding
from oncontour.core.case import Case
from oncontour.core.volume import written_cc
from oncontour.documents import read_json
from oncontour.errors import ConfigError, InputError
from oncontour.files import write_text
from oncontour.ops.body import region, region_of
from oncontour.ops.pieces import OFTEN
from oncontour.quality.rules.finding import Floats, Seen, see

SCHEMA = "oncontour-ranges-1"
LEAST = 20
"""Patients that a range needs."""
PERCENT = (1.0, 99.0)
"""What lies between these percentiles of a cohort is its range, before the margins."""
VOLUME_MARGIN = 1.25
PLACE_MARGIN_MM = 6.0

Span = tuple[float, float]
Steps = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Range:
    """One structure in ``patients`` of a cohort: ``volume_cc`` (low, high); ``at_the_end``: part that reached the first or last slice."""

    patients: int
    volume_cc: Span
    at_the_end: float


@dataclass(frozen=True)
class Ranges:
    """``structures``: name -> Range; ``steps_mm``: "A B" (names in order) -> (low, high) of the centre of B minus that of A (x, y, z);
    ``region``: which part of the body the cohort's CTs show (``ops.body.REGIONS``), "" where that is not known."""

    source: str = ""
    structures: Mapping[str, Range] = field(default_factory=dict)
    steps_mm: Mapping[str, Steps] = field(default_factory=dict)
    region: str = ""

    def goes_on(self, name: str) -> bool:
        """Whether a structure often reaches the first or last slice: what passes the ends of one field of view passes those of others."""
        known = self.structures.get(name)
        return known is not None and known.at_the_end > OFTEN

    def elsewhere(self, case: Case) -> str:
        """The region that the case's CT shows where that is plainly another than the cohort's, which says nothing of it; else ""."""
        if "ct" not in case.images or not self.region:
            return ""
        seen = region(case.ct)
        return seen.name if seen.excludes(self.region) else ""

    def as_dict(self) -> dict[str, object]:
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, words: Mapping[str, Any], where: str = "") -> Ranges:
        """What ``as_dict`` gave. Raises ConfigError for anything else."""
        try:
            if words["schema"] != SCHEMA:
                raise ConfigError(f"ranges of schema {words['schema']!r}; this version reads {SCHEMA}", where=where)
            rows = {
                str(name): Range(int(r["patients"]), _span(r["volume_cc"]), float(r["at_the_end"]))
                for name, r in words["structures"].items()
            }
            steps = {str(name): _steps(value) for name, value in words["steps_mm"].items()}
            return cls(str(words.get("source", "")), rows, steps, region_of(str(words.get("region", ""))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"this is no file of ranges ({error})", where=where, hint="make one with oncontour.quality.rules.ranges_of"
            ) from error


def ranges_of(cases: Iterable[Case], source: str = "") -> Ranges:
    """The ranges of a cohort, read one case at a time; structures in fewer than LEAST patients, and empty ones, are left out."""
    volumes: dict[str, list[float]] = {}
    ends: dict[str, list[bool]] = {}
    steps: dict[str, list[Floats]] = {}
    regions: set[str] = set()
    for case in cases:
        regions |= {region(case.ct).name} if "ct" in case.images else set()
        centres: dict[str, Floats] = {}
        for name in sorted(case.structures):
            seen = see(case, name)
            if seen is None:
                continue
            centres[name] = seen.centre_mm
            volumes.setdefault(name, []).append(seen.volume_cc)
            ends.setdefault(name, []).append(seen.box[0].start == 0 or seen.box[0].stop == seen.grid.shape[0])
        for a in centres:
            for b in centres:
                if a < b:
                    steps.setdefault(f"{a} {b}", []).append(centres[b] - centres[a])
    rows = {
        name: Range(len(v), _rounded(_volume_span(np.asarray(v))), round(float(np.mean(ends[name])), 3))
        for name, v in volumes.items()
        if len(v) >= LEAST
    }
    places = {pair: _step_span(np.asarray(v)) for pair, v in steps.items() if len(v) >= LEAST}
    return Ranges(source, rows, places, region_of(*regions) if len(regions) == 1 and rows else "")


def write_ranges(ranges: Ranges, path: Path | str) -> Path:
    """``ranges`` as JSON."""
    write_text(path, json.dumps(ranges.as_dict(), indent=1) + "\n")
    return Path(path)


def read_ranges(path: Path | str) -> Ranges:
    """What ``write_ranges`` wrote. Raises ConfigError where it is something else."""
    try:
        words = read_json(Path(path))
    except InputError as error:
        raise ConfigError(f"this is no file of ranges ({error.what})", where=str(path)) from error
    if not isinstance(words, dict):
        raise ConfigError("this is no file of ranges (no mapping)", where=str(path))
    return Ranges.from_dict(words, str(path))


@cache
def shipped_ranges() -> Ranges:
    """The ranges that come with oncontour: seven organs of the head and neck and PTV_7000, from OpenKBP's training patients."""
    text = files("oncontour.quality.rules").joinpath("ranges.json").read_text(encoding="utf-8")
    return Ranges.from_dict(json.loads(text), "ranges.json")


# ---- the checks


def volume(seen: Seen, ranges: Ranges) -> Iterator[Finding]:
    """Smaller or larger than the cohort's structures of this name; nothing where it has none."""
    known = ranges.structures.get(seen.name)
    if known is None or known.volume_cc[0] <= seen.volume_cc <= known.volume_cc[1]:
        return
    low, high = known.volume_cc
    word = "small" if seen.volume_cc < low else "large"
    seen_in = f"{written_cc(low)} to {written_cc(high)} cc were seen in {known.patients} patients"
    yield Finding("volume", f"{seen.name} is unusually {word}: {written_cc(seen.volume_cc)} cc, where {seen_in}.")


def positions(everything: Mapping[str, Seen | None], ranges: Ranges, misplaced: Collection[str] = ()) -> dict[str, list[Finding]]:
    """Structures that lie where none of their name lay, as more than half of the others tell; two that only tell of each other share it.
    Those that are ``misplaced`` themselves (on the wrong side, with a part far away) tell of nobody."""
    centres = {name: seen.centre_mm for name, seen in everything.items() if seen is not None}
    sure = {name: at for name, at in centres.items() if name not in misplaced}
    off = {name: _off(name, {**sure, name: at}, ranges) for name, at in centres.items()}
    out: dict[str, list[Finding]] = {}
    for name, told in off.items():
        wrong = {mate: by for mate, by in told.items() if by is not None}
        if not wrong or 2 * len(wrong) <= len(told):
            continue
        mate = max(wrong, key=lambda one: abs(wrong[one][0]))
        by, direction = wrong[mate]
        text = f"{name} lies {by:.0f} mm too far to {direction} of where it was seen in other patients, measured from {mate}."
        out[name] = [Finding("position", text)]
    return out


def _off(name: str, centres: Mapping[str, Floats], ranges: Ranges) -> dict[str, tuple[float, str] | None]:
    """For each structure that knows where ``name`` should be: how far off it is and which way, or None where it is not."""
    out: dict[str, tuple[float, str] | None] = {}
    for mate in centres:
        pair, sign = (f"{mate} {name}", 1.0) if mate < name else (f"{name} {mate}", -1.0)
        if mate == name or pair not in ranges.steps_mm:
            continue
        low, high = (np.asarray(end) * sign for end in ranges.steps_mm[pair])
        low, high = np.minimum(low, high), np.maximum(low, high)
        step = centres[name] - centres[mate]
        over = np.maximum(step - high, 0) - np.maximum(low - step, 0)
        axis = int(np.abs(over).argmax())
        way = ("left", "posterior", "superior") if over[axis] > 0 else ("right", "anterior", "inferior")
        out[mate] = (float(abs(over[axis])), way[axis]) if over[axis] else None
    return out


# ---- making and reading


def _volume_span(values: Floats) -> Span:
    low, high = np.percentile(values, PERCENT)
    return float(low) / VOLUME_MARGIN, float(high) * VOLUME_MARGIN


def _step_span(values: Floats) -> Steps:
    low, high = np.percentile(values, PERCENT, axis=0)
    a, b = (np.round(end, 1).tolist() for end in (low - PLACE_MARGIN_MM, high + PLACE_MARGIN_MM))
    return (a[0], a[1], a[2]), (b[0], b[1], b[2])


def _rounded(span: Span) -> Span:
    return float(f"{span[0]:.3g}"), float(f"{span[1]:.3g}")


def _span(values: Iterable[float]) -> Span:
    low, high = (float(v) for v in values)
    return low, high


def _steps(values: Iterable[Iterable[float]]) -> Steps:
    (ax, ay, az), (bx, by, bz) = values
    return (float(ax), float(ay), float(az)), (float(bx), float(by), float(bz))
