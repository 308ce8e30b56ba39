"""Contours that lie in files as a predictor: folders of patients, and folders of label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour.core.case import Case
from oncontour.core.notes import all_anonymous, some

if TYPE_CHECKING:
    from oncontour.io.cohort import Cohort
    from oncontour.io.image.label_folder import LabelFolder


@dataclass(frozen=True)
class Predictions:
    """A folder of contours as a predictor: what it holds under the patient's id (or the one it holds, where both hold one).

    A patient's folder may be a whole patient, or an RTSTRUCT or SEG alone (what ``oncontour run`` writes).
    """

    cohort: Cohort
    only: bool = False

    def predict(self, case: Case) -> Case:
        """The contours predicted for ``case``. Raises CohortError where there are none, and what ``io.onto.read_onto`` raises."""
        from oncontour.io.onto import read_onto

        id = self.cohort.ids[0] if self.only else case.id
        path = self.cohort.path(id)
        drawn = read_onto(path, case, id=id)
        notes = all_anonymous(drawn.notes, path, getattr(drawn.source, "patient", {}))
        return replace(drawn, facts={**drawn.facts, "notes": notes})

    @property
    def cases(self) -> tuple[str, ...]:
        """Who is predicted."""
        return self.cohort.ids

    @property
    def files(self) -> Mapping[str, Path]:
        """Who is predicted -> where."""
        return self.cohort.paths

    def remarks(self, ids: Sequence[str]) -> list[str]:
        """What lies there and was not looked at, as nobody of ``ids`` is called so."""
        others = [] if self.only else [id for id in self.cases if id not in ids]
        return [f"predictions of no patient here, not looked at: {some(others)} [{self.cohort.where}]"] if others else []


@dataclass(frozen=True)
class MapPredictions:
    """A folder of label maps as a predictor: the file that is called as the patient is (or the one it holds, where both hold one)."""

    maps: LabelFolder
    only: bool = False

    def predict(self, case: Case) -> Case:
        """The structures of the label map of ``case``. Raises what ``LabelFolder.read`` raises."""
        id = self.cases[0] if self.only else case.id
        drawn = self.maps.read(id)
        notes = all_anonymous(drawn.notes, self.maps.paths[id], {})
        return replace(drawn, facts={**drawn.facts, "notes": notes})

    @property
    def cases(self) -> tuple[str, ...]:
        """Who is predicted."""
        return tuple(self.maps.paths)

    @property
    def files(self) -> Mapping[str, Path]:
        """Who is predicted -> where."""
        return self.maps.paths

    def unnamed(self, id: str) -> tuple[int, ...]:
        """The numbers without a name in the label map of ``id``, which was read."""
        return self.maps.unnamed.get(self.cases[0] if self.only else id, ())

    def remarks(self, ids: Sequence[str], unnamed: Mapping[str, Sequence[int]]) -> list[str]:
        """What lies there and was not used: label maps of nobody of ``ids``, and numbers without a name, ``unnamed`` by patient."""
        if self.only:
            return self.maps.remarks(self.cases, dict(zip(self.cases, unnamed.values(), strict=False)))
        return self.maps.remarks(ids, unnamed)
