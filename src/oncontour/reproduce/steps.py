"""What runs of several papers do alike: their settings, the parts of a cohort, a case for samples made already, folders by a row's name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import some
from oncontour.core.volume import Volume
from oncontour.documents import read_json
from oncontour.errors import CohortError, ConfigError, OutputError
from oncontour.files import write_text
from oncontour.io.cohort import Cohort

RECORD = "settings.json"
"""In OUT: what all that is kept there depends on."""
Plan = TypeVar("Plan")


def parts(cohort: Path, patients: int | None) -> tuple[Cohort, Cohort]:
    """(train, test): the two folders of the cohort, the first ``patients`` of each where asked for."""
    for other in ("validation", "test"):
        if (cohort / "train").is_dir() and (cohort / other).is_dir():
            train, test = Cohort.open(cohort / "train"), Cohort.open(cohort / other)
            return (train.subset(train.ids[:patients]), test.subset(test.ids[:patients])) if patients else (train, test)
    raise CohortError("a cohort to reproduce on has the folders train/ and validation/ (or test/)", where=str(cohort))


def plan_of(kind: type[Plan], settings: Mapping[str, object], paper: str) -> Plan:
    """The plan (a dataclass) that ``settings`` spell, lists as tuples. Raises ConfigError for what it does not know."""
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    if strange := set(known) - {f.name for f in fields(kind)}:  # type: ignore[arg-type]  # a dataclass
        raise ConfigError(f"settings of {paper}: {some(sorted(strange))} is not known", hint=f"papers/{paper}/run.yaml shows them")
    return kind(**known)


def check_chosen(what: str, chosen: Sequence[str], there: Iterable[str]) -> None:
    """Raise ConfigError where ``chosen`` names one twice, or one that is not ``there``."""
    if (unknown := set(chosen) - set(there)) or len(set(chosen)) < len(chosen):
        raise ConfigError(f"{what}: {some(sorted(unknown)) or 'one is named twice'}", hint=f"choose from {', '.join(there)}")


def check_same(own: Mapping[str, object], out: Path) -> None:
    """Record what all that is kept in ``out`` depends on. Raises OutputError where what lies there was made otherwise."""
    own = json.loads(json.dumps(own))
    if (out / RECORD).exists():
        held = read_json(out / RECORD)
        there: Mapping[str, object] = held if isinstance(held, dict) else {}
        if differs := [f"{key}: {there.get(key)} there, {own[key]} here" for key in own if there.get(key) != own[key]]:
            raise OutputError(
                f"the folder holds a run of other settings ({'; '.join(differs[:3])})", where=str(out), hint="name another --out"
            )
    write_text(out / RECORD, json.dumps(own, indent=1) + "\n")


def stub(id: str) -> Case:
    """A case that is nothing but its id: what a training learns from it is made already."""
    return Case(id, {"ct": Volume(np.zeros((1, 1, 1), np.int16), Geometry.regular((1, 1, 1)))})


def slug(name: str) -> str:
    """A row's name as a folder name."""
    words = "".join(c if c.isalnum() else " " for c in name.lower().replace("+", " plus ")).split()
    return "-".join(words)
