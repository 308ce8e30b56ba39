"""What the page says of quality: a strip of slices a structure, the places to look at, worst first, and what was not scored and why.

It reads ``case.assessment`` and makes nothing up: a structure without scores has a strip without numbers, on which only the findings of the
rule checks are marked.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.assessment import Finding, SliceScore, StructureScore
from oncontour.core.boxes import box_of
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.quality.rules import CODES, OF_PLACE
from oncontour.quality.rules.finding import runs

SEVERITY: dict[str, float] = {
    "side": 0.0,
    "empty": 0.1,
    "stray": 0.2,
    "outside": 0.3,
    "position": 0.35,
    "gap": 0.4,
    "missed": 0.4,
    "isolated": 0.45,
    "overlap": 0.5,
    "island": 0.55,
    "volume": 0.6,
    "cut": 0.7,
    "sliver": 0.78,
    "wide": 0.79,
    "small": 0.79,
    "unchecked": 0.9,
}
"""How bad a finding is, as a DSC: a wrong side is worst, a sliver hardly. Where no DSC is predicted, the finding's stands for it in
the wrong area that a slice is ranked by."""
FIRST = OF_PLACE | {"empty"}
"""Codes of findings that come before any predicted area, the worst first: what is in the wrong place is wrong as a whole."""
TITLES: dict[str, str] = {
    **CODES,
    "missed": "goes on past its end",
    "wide": "too wide to score",
    "small": "too small to score",
    "unchecked": "rules not checked",
}
"""code -> its title: those of the rules, and those of the model's own remarks."""
FLAG_CM2, FLAG_MM = 0.5, 3.0
"""From so much predicted wrong area, or outline error, on a person should look at a slice: half of what is worth a correction in a large
organ, and an outline that is off by a voxel or more in a small one."""
BRIDGE = 1
"""Flagged slices with so many unflagged ones between them are one place to look at."""
SHORT, ALIKE = 8, 0.6
"""A run of up to so many slices is one place; in a longer one, where all of a structure may be flagged, the worst part is a place of its
own: slices with at least this part of the worst one's wrong area. What one finding says of several slices is one place."""
LITTLE, SHORT_LIST = 0.1, 5
"""The list of places ends where all that follow hold less than this part of the predicted wrong area, but not before so many."""
Rank = tuple[float, float]
"""What slices and places are ordered by, the largest first: how bad a finding of FIRST there is (0: none), and the wrong area in cm²."""
LEAST_ERROR = 26
"""Error probabilities (of 255) below this are not shown: a tenth."""


@dataclass(frozen=True)
class Cell(SliceScore):
    """One slice of a strip: its scores, and ``area_cm2`` of the contour, where there is none that of the nearest. Where the model does not
    predict ``wrong_cm2`` itself, it is that area times what the DSC lacks."""

    area_cm2: float = 0.0
    product_cm2: float | None = None
    """the area times what the DSC lacks, or where there is no contour times the probability of one: what places are ordered by"""

    @property
    def codes(self) -> tuple[str, ...]:
        """Of the findings there, each once."""
        return tuple(dict.fromkeys(self.findings))

    @property
    def flagged(self) -> bool:
        """Whether a person should look here: much is predicted wrong, or a rule found something."""
        return is_flagged(self)

    @property
    def rank(self) -> Rank:
        """``product_cm2``, or where nothing was predicted what the worst finding stands for; before that, a finding of FIRST."""
        told = (1 - min((_severity(code) for code in self.findings), default=1.0)) * self.area_cm2
        return _first(self.findings), told if self.product_cm2 is None else self.product_cm2


@dataclass(frozen=True)
class Strip:
    """All slices of one structure; ``whole``: findings about the structure as such; ``findings``: all, in words."""

    name: str
    scored: bool
    why: str | None
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if not one.slices)

    @property
    def rank(self) -> Rank:
        return max([(0.0, 0.0), *(cell.rank for cell in self.cells if cell.flagged), *(self.rank_of(one) for one in self.whole)])

    def rank_of(self, finding: Finding) -> Rank:
        """Of a finding about the structure as such: what it stands for in a median slice."""
        median_cm2 = float(np.median([cell.area_cm2 for cell in self.cells])) if self.cells else 0.0
        return _first((finding.code,)), (1 - _severity(finding.code)) * median_cm2

    @property
    def worst(self) -> Cell | None:
        """The slice with the lowest predicted DSC."""
        return min((cell for cell in self.cells if cell.dsc is not None), key=lambda cell: cell.dsc or 0.0, default=None)


@dataclass(frozen=True)
class Spot:
    """Neighbouring flagged slices of one structure: a place to look at. ``k`` is the worst of them; None: the structure
    as a whole. ``dsc``, ``lower``, ``wrong_cm2``, the outline error ``mm``, and what the two are at most are predicted of slice ``most``,
    where most is predicted to be wrong: where a finding is worse than any prediction that is another slice than ``k``."""

    name: str
    first: int | None
    last: int | None
    k: int | None
    most: int | None
    dsc: float | None
    lower: float | None
    wrong_cm2: float | None
    rank: Rank
    texts: tuple[str, ...]
    codes: tuple[str, ...]
    upper_cm2: float | None = None
    mm: float | None = None
    upper_mm: float | None = None


def strips(case: Case) -> list[Strip]:
    """A strip for each structure of the case's assessment, those with something to look at first, worst first; else in their order."""
    made = [_strip(case, name, told) for name, told in _structures(case).items()]
    return sorted(made, key=lambda strip: strip.rank, reverse=True)


def _structures(case: Case) -> Mapping[str, StructureScore]:
    return {} if case.assessment is None else case.assessment.structures


def spots(table: Iterable[Strip]) -> list[Spot]:
    """Where to look, worst first."""
    found = [spot for strip in table for spot in (*_runs(strip), *_wholes(strip))]
    return sorted(found, key=lambda spot: spot.rank, reverse=True)


def listed(found: Sequence[Spot]) -> int:
    """How many of the places, worst first, are worth listing: the others together hold less than LITTLE of all that is predicted wrong."""
    left = np.cumsum([spot.rank[1] for spot in found][::-1])[::-1]
    worth = [n for n, spot in enumerate(found) if spot.rank[0] or left[n] > LITTLE * left[0]]
    return min(len(found), max([SHORT_LIST, *(n + 1 for n in worth)]))


def is_flagged(told: SliceScore) -> bool:
    """Whether a person should look at this slice: FLAG_CM2 or FLAG_MM are predicted, or a rule found something. Where neither area nor
    outline error is predicted: the predicted class is bad."""
    if told.wrong_cm2 is None and told.surface_mm is None:
        return told.quality == "bad" or bool(told.findings)
    return bool(told.findings) or (told.wrong_cm2 or 0.0) >= FLAG_CM2 or (told.surface_mm or 0.0) >= FLAG_MM


def title(code: str) -> str:
    """What a finding's ``code`` is called."""
    return TITLES.get(code, code)


def misplaced(case: Case) -> list[str]:
    """What the rules found of place and side (``quality.rules.OF_PLACE``), in words: what stands among the warnings, a wrong side first."""
    told = [(name, one) for name, score in _structures(case).items() for one in score.findings if one.code in OF_PLACE]
    return [_named(name, one.text) for name, one in sorted(told, key=lambda pair: SEVERITY[pair[1].code])]


def found_sided(case: Case) -> set[str]:
    """Structures of which the rules say that they lie on the wrong side."""
    return {name for name, score in _structures(case).items() if any(one.code == "side" for one in score.findings)}


def by_reason(unscored: Iterable[tuple[str, str | None]]) -> dict[str, list[str]]:
    """Reason -> the structures that were not scored for it, of (structure, reason)."""
    why: dict[str, list[str]] = {}
    for name, reason in unscored:
        why.setdefault(reason or "no score", []).append(name)
    return why


# ---- for the page


def words(case: Case, table: Sequence[Strip], shown: Geometry, colours: Mapping[str, Sequence[int]]) -> dict[str, object] | None:
    """What review.js draws of the case's strips, slices counted in ``shown`` (an upright grid); None where the case was not assessed."""
    told = case.assessment
    if told is None:
        return None
    number, found = _Numbering(case.geometry, shown), spots(table)
    return {
        "coverage": told.coverage,
        "model": told.model,
        "refused": told.refused,
        "codes": TITLES,
        "strips": [_strip_words(strip, number, colours) for strip in table],
        "spots": [_spot_words(spot, number, colours) for spot in found],
        "listed": listed(found),
        "flag_cm2": FLAG_CM2,
        "not_scored": _not_scored(table),
        "unchecked": list(told.unchecked),
        "maps": [made for name, volume in told.error_maps.items() if (made := _map(name, volume, shown))],
        "sentence": sentence(table),
        "findings": list(dict.fromkeys(_named(strip.name, one.text) for strip in table for one in strip.findings)),
    }


def sentence(table: Sequence[Strip]) -> str:
    """How much there is to look at."""
    found = spots(table)
    scored = sum(len(strip.cells) for strip in table if strip.scored)
    flagged = sum(cell.flagged for strip in table for cell in strip.cells)
    slices = sum(len(strip.cells) for strip in table)
    if not found:
        return "Nothing is flagged." + ("" if scored else " No slice was scored: only the rules have looked.")
    structures = len({spot.name for spot in found})
    places = f"{len(found)} place{'s' if len(found) > 1 else ''} to look at in {structures} of {len(table)} structures"
    return f"{places}: {flagged} of {slices} contoured slices, worst first."


def start(case: Case, table: Sequence[Strip], shown: Geometry) -> int | None:
    """The slice of ``shown`` to open on: the worst; None where nothing is flagged."""
    number = _Numbering(case.geometry, shown)
    return next((at for spot in spots(table) if (at := number(spot.k)) is not None), None)


def _strip(case: Case, name: str, told: StructureScore) -> Strip:
    areas = _areas_cm2(case, name)
    slices = {one.k: one for one in told.slices} or _bare(case, np.flatnonzero(areas).tolist(), told.findings)
    slices |= _bare(case, {k for one in told.findings for k in one.slices} - set(slices), told.findings)
    return Strip(name, told.scored, told.why, tuple(_cell(slices[k], areas) for k in sorted(slices)), told.findings)


def _bare(case: Case, slices: Iterable[int], findings: Sequence[Finding]) -> dict[int, SliceScore]:
    """Slices without numbers that no assessment lists, each with the codes of the findings that name it."""
    grid = case.geometry
    return {k: SliceScore(k, grid.slice_z_mm(k), findings=tuple(one.code for one in findings if k in one.slices)) for k in slices}


def _areas_cm2(case: Case, name: str) -> NDArray[np.float64]:
    """What the contour takes of each slice of the case's grid."""
    if name not in case.structures:
        return np.zeros(case.geometry.shape[0])
    _, j, i = case.geometry.spacing_mm
    return np.asarray(case.mask(name).array.sum(axis=(1, 2), dtype=np.int64) * (j * i / 100))


def _cell(told: SliceScore, areas_cm2: NDArray[np.float64]) -> Cell:
    held = np.flatnonzero(areas_cm2)
    area = float(areas_cm2[held[np.abs(held - told.k).argmin()]]) if len(held) else 0.0
    there = 1.0 if told.present is None else told.present
    product = None if told.dsc is None else area * (1 - told.dsc if areas_cm2[told.k] else there)
    wrong = product if told.wrong_cm2 is None else told.wrong_cm2
    return Cell(**{**vars(told), "wrong_cm2": wrong}, area_cm2=area, product_cm2=product)


def _severity(code: str) -> float:
    return SEVERITY.get(code, 0.5)


def _first(codes: Iterable[str]) -> float:
    """How bad the worst finding of FIRST among ``codes`` is, 0 where there is none."""
    return max((1 - _severity(code) for code in codes if code in FIRST), default=0.0)


def _runs(strip: Strip) -> list[Spot]:
    """Flagged slices that follow one another, as places; long runs cut where they are worst."""
    at = {cell.k: cell for cell in strip.cells}
    flagged = [cell.k for cell in strip.cells if cell.flagged]
    bridged = set(flagged) | {
        k + n for k in flagged for n in range(1, BRIDGE + 1) if any(k + m in flagged for m in range(n + 1, BRIDGE + 2))
    }
    stretches = [[at[k] for k in range(first, last + 1) if k in at] for first, last in runs(bridged)]
    return [_spot(strip, part[0].k, part[-1].k, part) for stretch in stretches for part in _cut(stretch)]


def _cut(cells: Sequence[Cell]) -> list[Sequence[Cell]]:
    """A SHORT run as it is; of a longer one the worst with its neighbours that are ALIKE, then what is left on either side."""
    flagged = [n for n, cell in enumerate(cells) if cell.flagged]
    if not flagged:
        return []
    cells = cells[flagged[0] : flagged[-1] + 1]
    flagged = [n - flagged[0] for n in flagged]
    if len(cells) <= SHORT:
        return [cells]
    worst = max(flagged, key=lambda n: cells[n].rank)
    begin = end = worst
    for n in reversed([n for n in flagged if n < worst]):
        if not _alike(cells[n], cells[worst]):
            break
        begin = n
    for n in [n for n in flagged if n > worst]:
        if not _alike(cells[n], cells[worst]):
            break
        end = n
    return [*_cut(cells[:begin]), cells[begin : end + 1], *_cut(cells[end + 1 :])]


def _alike(cell: Cell, worst: Cell) -> bool:
    """Whether a slice belongs to the place of the worst one of its run: what one finding says of several slices is not told apart."""
    if worst.rank[0]:
        return cell.rank[0] == worst.rank[0]
    if worst.product_cm2 is None:
        return cell.codes == worst.codes
    return cell.rank >= (0.0, ALIKE * worst.product_cm2)


def _spot(strip: Strip, first: int, last: int, cells: Sequence[Cell]) -> Spot:
    worst = max(cells, key=lambda cell: cell.rank)
    most = max((cell for cell in cells if cell.wrong_cm2 is not None), key=lambda cell: cell.wrong_cm2 or 0.0, default=worst)
    codes = tuple(sorted(dict.fromkeys(code for cell in cells for code in cell.codes), key=_severity))
    here = (one for one in strip.findings if any(first <= k <= last for k in one.slices))
    texts = tuple(one.text for one in sorted(here, key=lambda one: _severity(one.code)))
    bounds = most.wrong_upper_cm2, most.surface_mm, most.surface_upper_mm
    return Spot(strip.name, first, last, worst.k, most.k, most.dsc, most.lower, most.wrong_cm2, worst.rank, texts, codes, *bounds)


def _wholes(strip: Strip) -> list[Spot]:
    """Findings about the structure as such: one place each, at its middle."""
    middle = strip.cells[len(strip.cells) // 2].k if strip.cells else None
    return [
        Spot(strip.name, None, None, middle, None, None, None, None, strip.rank_of(one), (one.text,), (one.code,)) for one in strip.whole
    ]


class _Numbering:
    """From a slice of the case's grid to one of the shown grid; None where the two run across each other or it lies beyond."""

    def __init__(self, case: Geometry, shown: Geometry) -> None:
        self.case, self.shown = case, shown
        self.along = abs(float(case.axes[0] @ shown.axes[0])) > 1 - 1e-4

    def __call__(self, k: int | None) -> int | None:
        if k is None or not self.along:
            return None
        middle = self.case.points((k, (self.case.shape[1] - 1) / 2, (self.case.shape[2] - 1) / 2))
        s = round(float(self.shown.voxels(middle)[0]))
        return s if 0 <= s < self.shown.shape[0] else None


def _strip_words(strip: Strip, number: _Numbering, colours: Mapping[str, Sequence[int]]) -> dict[str, object]:
    cells = [(number(cell.k), cell) for cell in strip.cells]
    return {
        "name": strip.name,
        "colour": list(colours.get(strip.name, (200, 200, 200))),
        "scored": strip.scored,
        "why": strip.why,
        "cells": [
            {
                "s": s,
                "dsc": _short(cell.dsc),
                "lower": _short(cell.lower),
                "class": cell.quality,
                "cm2": _short(cell.wrong_cm2),
                "upper_cm2": _short(cell.wrong_upper_cm2),
                "mm": None if cell.surface_mm is None else round(cell.surface_mm, 1),
                "upper_mm": None if cell.surface_upper_mm is None else round(cell.surface_upper_mm, 1),
                "codes": list(cell.codes),
                "flagged": cell.flagged,
            }
            for s, cell in cells
            if s is not None
        ],
        "findings": [{"code": one.code, "text": one.text} for one in strip.findings],
    }


def _named(name: str, text: str) -> str:
    return text if name in text else f"{name}: {text}"


def _not_scored(table: Sequence[Strip]) -> list[dict[str, object]]:
    """Why structures are not scored, each reason once: ``names`` is empty where it is that of all."""
    reasons = by_reason((strip.name, strip.why) for strip in table if not strip.scored)
    return [{"names": names if len(names) < len(table) or len(table) == 1 else [], "why": why} for why, names in reasons.items()]


def _spot_words(spot: Spot, number: _Numbering, colours: Mapping[str, Sequence[int]]) -> dict[str, object]:
    ends = [s for s in (number(spot.first), number(spot.last)) if s is not None]
    return {
        **asdict(spot),
        "of": [spot.first, spot.last],
        "at": number(spot.k),
        "most": number(spot.most),
        "first": min(ends, default=None),
        "last": max(ends, default=None),
        "dsc": _short(spot.dsc),
        "lower": _short(spot.lower),
        "wrong_cm2": _short(spot.wrong_cm2),
        "upper_cm2": _short(spot.upper_cm2),
        "mm": None if spot.mm is None else round(spot.mm, 1),
        "upper_mm": None if spot.upper_mm is None else round(spot.upper_mm, 1),
        "colour": list(colours.get(spot.name, (200, 200, 200))),
    }


def _map(name: str, volume: Volume, shown: Geometry) -> dict[str, object] | None:
    """An error map on the part of the shown grid where it says anything, in sixteen steps."""
    box = box_of(np.asarray(volume.array) >= LEAST_ERROR)
    if box is None:
        return None
    begin, end = [side.start - 1 for side in box], [side.stop + 1 for side in box]
    volume = volume.to(volume.geometry.crop(begin, end))
    at = shown.voxels(volume.geometry.corners_mm)
    low = np.maximum(np.floor(at.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(at.max(axis=0)).astype(int) + 1, shown.shape)
    if (high <= low).any():
        return None
    part = shown.crop(low.tolist(), high.tolist())
    steps = np.rint(np.asarray(volume.to(part).array, np.float32) / 17).astype(np.uint8)
    steps[steps * 17 < LEAST_ERROR] = 0
    text = base64.b64encode(zlib.compress(steps.tobytes(), 6)).decode("ascii")
    return {"name": name, "from": low.tolist(), "shape": list(steps.shape), "text": text}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
