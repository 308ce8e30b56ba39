"""Several segmenters' contours of the same patients: ROOT/SOURCE/PATIENT, each SOURCE a cohort in any format that ``io`` reads.

    ROOT/unet-early/pt_1/masks/Parotid_L.nii.gz
    ROOT/unet-early/pt_1/chances/Parotid_L.nii.gz    how likely the segmenter thought each voxel, times 255 (where it was kept)

They meet their patient as ``case.candidates``: source -> Candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from oncontour.core.case import Case
from oncontour.core.prediction import Candidate
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, FormatError, GeometryError, OncontourError
from oncontour.files import writing_folder
from oncontour.io.cohort import Cohort
from oncontour.io.folders import check_cohort
from oncontour.io.image.layout import CHANCES, read_named, write_named


def sources(roots: Sequence[Path | str]) -> dict[str, Cohort]:
    """Name of each segmenter -> its cohort. Raises CohortError where a folder is missing, empty, or names a segmenter twice."""
    found: dict[str, Cohort] = {}
    for root in map(Path, roots):
        if not root.is_dir():
            if root.exists():
                check_cohort(root)
            raise CohortError("no such folder of segmenters' contours", where=str(root))
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not folders:
            raise CohortError("no segmenter here", where=str(root), hint="a folder a segmenter, in it a folder a patient")
        for folder in folders:
            if folder.name in found:
                raise CohortError(f"two segmenters are called {folder.name!r}", where=str(folder), hint="rename one of the folders")
            found[folder.name] = Cohort.open(folder)
    return found


def contours_about(case: Case, segmenters: Mapping[str, Cohort], notes: list[str] | None = None) -> dict[str, Mapping[str, Volume]]:
    """What each segmenter drew in this patient, on the case's grid; one that has not this patient is left out.

    ``notes`` gets what was remarked on reading them. Raises GeometryError for masks of other voxels, and what ``io`` raises.
    """
    out: dict[str, Mapping[str, Volume]] = {}
    for source, cohort in segmenters.items():
        if case.id not in cohort:
            continue
        try:
            drawn = cohort[case.id]
            out[source] = {name: drawn.own_mask(name, case.geometry) for name in drawn.structures}
            if notes is not None:
                notes += [f"contours of {source}: {note}" for note in drawn.facts.get("notes", ())]
        except GeometryError:
            raise
        except OncontourError as error:
            raise CohortError(f"contours of {source} cannot be read ({error})", where=case.id) from error
    return out


def probabilities_about(case: Case, segmenters: Mapping[str, Cohort], notes: list[str] | None = None) -> dict[str, Mapping[str, Volume]]:
    """How likely each segmenter thought each voxel of this patient, times 255, on the grid it worked on; one that kept nothing is left out.

    ``notes`` gets what was remarked on reading them. Raises FormatError for values other than whole numbers from 0 to 255, and what ``io``
    raises.
    """
    out: dict[str, Mapping[str, Volume]] = {}
    for source, cohort in segmenters.items():
        if case.id not in cohort or not (cohort.path(case.id) / CHANCES).is_dir():
            continue
        folder = cohort.path(case.id) / CHANCES
        volumes, remarks = read_named(folder)
        out[source] = {name: _as_probabilities(volume, folder / name) for name, volume in volumes.items()}
        if notes is not None:
            notes += [f"probabilities of {source}: {note}" for note in remarks]
    return out


def write_probabilities(probabilities: Mapping[str, Volume], patient: Path) -> None:
    """Write structure -> probabilities times 255 (uint8) into the folder of a patient, whole or not at all."""
    with writing_folder(patient / CHANCES) as folder:
        write_named(probabilities.items(), folder)


def _as_probabilities(volume: Volume, where: Path) -> Volume:
    low, high, kind = float(volume.array.min()), float(volume.array.max()), volume.array.dtype
    if not np.issubdtype(kind, np.integer) or not 0 <= low <= high <= 255:
        raise FormatError(f"probabilities times 255 are whole numbers from 0 to 255, not {kind} from {low:g} to {high:g}", where=str(where))
    return volume.map(lambda array: array.astype(np.uint8))


def with_candidates(cases: Iterable[Case], roots: Sequence[Path | str], *, probabilities: bool = False) -> Iterator[Case]:
    """The cases with what the segmenters below ``roots`` drew in them, and, with ``probabilities``, their probability maps."""
    segmenters = sources(roots)
    for case in cases:
        if segmenters:
            notes = list(case.facts.get("notes", ()))
            drawn = contours_about(case, segmenters, notes)
            kept = probabilities_about(case, segmenters, notes) if probabilities else {}
            candidates = {source: Candidate(masks, kept.get(source, {})) for source, masks in drawn.items()}
            case = replace(case, candidates=candidates, facts={**case.facts, "notes": tuple(notes)})
        yield case
