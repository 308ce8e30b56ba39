"""Several segmenters' contours of the same patients: ROOT/SOURCE/PATIENT, each SOURCE a cohort in any format that ``io`` reads.

    ROOT/unet-early/pt_1/masks/Parotid_L.nii.gz

They meet their patient as ``case.scores["claims"]``: source -> (structure -> mask on the case's grid).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from oncontour.case import Case
from oncontour.errors import CohortError, GeometryError, OncontourError
from oncontour.io.cohort import Cohort
from oncontour.volume import Volume


def sources(roots: Sequence[Path | str]) -> dict[str, Cohort]:
    """Name of each segmenter -> its cohort. Raises CohortError where a folder is missing, empty, or names a segmenter twice."""
    found: dict[str, Cohort] = {}
    for root in map(Path, roots):
        if not root.is_dir():
            raise CohortError("no such folder of segmenters' contours", where=str(root))
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not folders:
            raise CohortError("no segmenter here", where=str(root), hint="a folder a segmenter, in it a folder a patient")
        for folder in folders:
            if folder.name in found:
                raise CohortError(f"two segmenters are called {folder.name!r}", where=str(folder), hint="rename one of the folders")
            found[folder.name] = Cohort.open(folder)
    return found


def claims_about(case: Case, segmenters: Mapping[str, Cohort]) -> dict[str, Mapping[str, Volume]]:
    """What each segmenter drew in this patient, on the case's grid; one that has not this patient is left out.

    Contours on another grid are brought over. Raises GeometryError where they do not meet the case's image at all, and what ``io`` raises.
    """
    out: dict[str, Mapping[str, Volume]] = {}
    for source, cohort in segmenters.items():
        if case.id not in cohort:
            continue
        try:
            drawn = cohort[case.id]
            out[source] = {name: drawn.mask(name, case.geometry) for name in drawn.structures}
        except GeometryError:
            raise
        except OncontourError as error:
            raise CohortError(f"contours of {source} cannot be read ({error})", where=case.id) from error
    return out


def with_claims(cases: Iterable[Case], roots: Sequence[Path | str]) -> Iterator[Case]:
    """The cases with what the segmenters below ``roots`` claim about them."""
    segmenters = sources(roots)
    for case in cases:
        yield case.with_scores({"claims": claims_about(case, segmenters)}) if segmenters else case
