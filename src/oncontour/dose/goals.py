"""Clinical goals: ``Parotid_L Dmean < 26 Gy``, read from a file, and judged by DVHs: met, not met, or not to be judged, and why.

A goal is about the whole structure. Where a part of it has no dose, or the scan ends inside it, nobody knows whether it is met, unless
what is seen breaks it whatever the rest receives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oncontour.dose.dvh import DVH
from oncontour.dose.metric_names import Figure, parse
from oncontour.errors import ConfigError, InputError, did_you_mean

Verdict = Literal["pass", "fail", "cannot be judged"]
MOST_MISSING = 0.005
"""Part of a structure that may lie beyond the dose grid: the figures of the rest then stand for the whole."""
_GOAL = re.compile(
    r"(?P<name>.+?)\s+(?P<figure>\S+)\s*(?P<sign><=|>=|<|>|≤|≥)\s*(?P<limit>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>Gy|cGy|cc|cm3|%)"
)
_SIGNS = {"≤": "<=", "≥": ">="}
_UNITS = {"gy": "Gy", "cgy": "Gy", "cc": "cc", "cm3": "cc", "%": "%"}
_HINT = "write a goal as 'Parotid_L Dmean < 26 Gy', 'SpinalCord D0.03cc <= 45 Gy' or 'PTV_7000 V95% >= 95 %'"


@dataclass(frozen=True)
class Goal:
    """``structure`` and ``figure`` (in ``figure.unit``) by ``sign`` ("<", "<=", ">", ">=") of ``limit``; ``source``: whose limit it is."""

    structure: str
    figure: Figure
    sign: str
    limit: float
    source: str = ""

    def __str__(self) -> str:
        return f"{self.structure} {self.figure} {self.sign} {self.limit:g} {self.figure.unit}"

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps the limit."""
        return {"<": value < self.limit, "<=": value <= self.limit, ">": value > self.limit, ">=": value >= self.limit}[self.sign]

    def is_settled_by_a_part(self, value: float) -> bool:
        """Whether the whole cannot change what ``value``, of a part, says: the largest dose, that of the hottest cc, and the cc above or
        below a dose only grow with what is added, so that what is too much stays so, and what is enough."""
        figure = self.figure
        counts_cc = (figure.kind == "D" and figure.at_unit == "cc") or (figure.kind in ("V", "CV") and figure.unit == "cc")
        grows = figure.kind == "max" or counts_cc
        return grows and self.holds(value) == self.sign.startswith(">")


@dataclass(frozen=True)
class Judged:
    """What became of a ``goal``: ``value`` of its figure, NaN where there is none; ``why`` it cannot be judged, "" where it can."""

    goal: Goal
    verdict: Verdict
    value: float
    why: str = ""


def read_goals(path: Path) -> list[Goal]:
    """The goals of a YAML file: a list under ``goals``, each a sentence as in ``parse_goal``, or a mapping with ``goal`` and ``source``.

    Raises InputError where there is no such file or no goal in it, FormatError where it is no YAML, ConfigError for what is no goal.
    """
    from oncontour.documents import read_yaml

    told = read_yaml(path)
    listed = told.get("goals") if isinstance(told, Mapping) else told
    if not isinstance(listed, list) or not listed:
        raise InputError("there are no goals here", where=str(path), hint=f"give a list under 'goals:'; {_HINT}")
    try:
        return [_goal(one) for one in listed]
    except ConfigError as error:
        raise ConfigError(error.what, where=str(path), hint=error.hint) from error


def _goal(told: object) -> Goal:
    if isinstance(told, Mapping):
        unknown = set(map(str, told)) - {"goal", "source"}
        if unknown or not isinstance(told.get("goal"), str):
            raise ConfigError(f"a goal has 'goal' and 'source', not {', '.join(map(str, told))}", hint=_HINT)
        return parse_goal(told["goal"], str(told.get("source") or ""))
    if not isinstance(told, str):
        raise ConfigError(f"{told!r} is no goal", hint=_HINT)
    return parse_goal(told)


def parse_goal(text: str, source: str = "") -> Goal:
    """The goal that ``text`` spells; a limit in cGy becomes Gy. Raises ConfigError where it spells none."""
    match = _GOAL.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is no goal", hint=_HINT)
    figure, unit = parse(match["figure"]), match["unit"].lower()
    limit = float(match["limit"]) / (100 if unit == "cgy" else 1)
    if _UNITS[unit] != figure.unit:
        bracket = f"{match['figure'].partition('[')[0]}[{_UNITS[unit]}]"
        raise ConfigError(f"{text!r}: {figure} is told in {figure.unit}, not in {_UNITS[unit]}", hint=f"for that write {bracket}")
    return Goal(match["name"], figure, _SIGNS.get(match["sign"], match["sign"]), limit, source)


def judge(
    goals: Collection[Goal], dvhs: Mapping[str, DVH], prescribed_gy: Mapping[str, float | None], cut: Collection[str] = ()
) -> list[Judged]:
    """Each goal by the DVH of its structure. ``prescribed_gy``: structure -> Gy, for figures in percent of it; ``cut``: structures that the
    scan may end in."""
    return [_judged(one, dvhs, prescribed_gy, one.structure in cut) for one in goals]


def _judged(goal: Goal, dvhs: Mapping[str, DVH], prescribed_gy: Mapping[str, float | None], is_cut: bool) -> Judged:
    one, whole = dvhs.get(goal.structure), prescribed_gy.get(goal.structure)
    if one is None:
        near = did_you_mean(goal.structure, list(dvhs)).strip()
        return _open(goal, f"there is no {goal.structure} here" + (f": {near}" if near else ""))
    if not one.dosed_cc:
        return _open(goal, one.note or f"{goal.structure} has no dose")
    if goal.figure.needs_prescription and not whole:
        return _open(goal, f"{goal.figure} is percent of a prescription, and none is known of {goal.structure}")
    value = one.figure(goal.figure, whole)
    if math.isnan(value):
        return _open(goal, f"{goal.structure} has {one.dosed_cc:.2g} cc: too little for {goal.figure}")
    holds = goal.holds(value)
    why = ""
    if one.missing_cc > MOST_MISSING * one.volume_cc:
        why = one.note or ""
    elif is_cut:
        why = f"{goal.structure} reaches the first or last slice: the scan may end inside it"
    if why and not goal.is_settled_by_a_part(value):
        return Judged(goal, "cannot be judged", value, why)
    return Judged(goal, "pass" if holds else "fail", value)


def _open(goal: Goal, why: str) -> Judged:
    return Judged(goal, "cannot be judged", math.nan, why)
