"""What runs of several papers do alike: the parts of a cohort, a case for samples made already, folders by a row's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError
from oncontour.io.cohort import Cohort


def parts(cohort: Path, patients: int | None) -> tuple[Cohort, Cohort]:
    """(train, test): the two folders of the cohort, the first ``patients`` of each where asked for."""
    for other in ("validation", "test"):
        if (cohort / "train").is_dir() and (cohort / other).is_dir():
            train, test = Cohort.open(cohort / "train"), Cohort.open(cohort / other)
            return (train.subset(train.ids[:patients]), test.subset(test.ids[:patients])) if patients else (train, test)
    raise CohortError("a cohort to reproduce on has the folders train/ and validation/ (or test/)", where=str(cohort))


def stub(id: str) -> Case:
    """A case that is nothing but its id: what a training learns from it is made already."""
    return Case(id, {"ct": Volume(np.zeros((1, 1, 1), np.int16), Geometry.regular((1, 1, 1)))})


def slug(name: str) -> str:
    """A row's name as a folder name."""
    words = "".join(c if c.isalnum() else " " for c in name.lower().replace("+", " plus ")).split()
    return "-".join(words)
