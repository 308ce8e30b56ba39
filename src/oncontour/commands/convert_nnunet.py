"""``oncontour convert --to nnunet``: a cohort becomes a dataset that nnU-Net trains on (``io/image/nnunet_dataset.py``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour.core.notes import counted, some
from oncontour.errors import CohortError, IncompleteError, OncontourError, OutputError, did_you_mean
from oncontour.files import write_text, writing_folder
from oncontour.io.image.nnunet_dataset import DATASET, check_names, check_replaceable, dataset_json, write_patient
from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.core.case import Case
    from oncontour.io.cohort import Cohort

_CALLED = re.compile(r"Dataset\d{3}_\w+")
_HALF = 0.5
"""Of the progress: patients are looked at first, and then written."""


@dataclass(frozen=True)
class Dataset:
    """What was written for nnU-Net: who, what, what was left out and lost."""

    out: Path
    patients: tuple[str, ...]
    structures: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        many = f"{counted(len(self.patients), 'patient')}, {counted(len(self.structures), 'structure')}"
        head = f"{many} in {self.out}: {', '.join(self.structures)}"
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class _Seen:
    """What a first look at the patients found: the structures of each, the images that all have, and why some cannot be read."""

    structures: dict[str, tuple[str, ...]]
    images: frozenset[str]
    failed: tuple[str, ...]


def to_nnunet(
    cohort: Cohort,
    dst: Path,
    structures: Sequence[str] | None,
    name_of: Callable[[str], str],
    progress: Progress | None = None,
) -> Dataset:
    """Write ``cohort`` to ``dst``, whole or not at all: ``structures``, or those that every patient has.

    A patient who lacks one of ``structures`` is left out and named. Raises CohortError where no structure or no patient is left,
    IncompleteError, after the others are written, where a patient cannot be read.
    """
    check_replaceable(dst)
    seen = _look(cohort, progress)
    chosen = tuple(structures) if structures else _common(seen, cohort)
    check_names(chosen)
    lacking = {id: [name for name in chosen if name not in there] for id, there in seen.structures.items()}
    patients = tuple(id for id, absent in lacking.items() if not absent)
    if not patients:
        raise _nobody(chosen, seen, cohort)
    image = next((one for one in ("ct", "mr") if one in seen.images), None)
    if image is None:
        raise CohortError("the patients have no image in common that nnU-Net could learn from: ct or mr", where=cohort.where)
    notes = [f"{id} left out: {', '.join(absent)} not contoured" for id, absent in lacking.items() if absent]
    notes += _unused(seen, chosen)
    with writing_folder(dst) as folder:
        for n, id in enumerate(patients):
            notes += [f"{id}: {lost}" for lost in write_patient(cohort[id], name_of(id), image, chosen, folder)]
            if progress:
                progress(_HALF + (1 - _HALF) * (n + 1) / len(patients))
        write_text(folder / DATASET, dataset_json(chosen, len(patients), image))
    done = Dataset(dst, patients, chosen, (*notes, *_where_to(dst)))
    if seen.failed:
        what = f"{len(seen.failed)} of {len(cohort)} patients could not be read ({'; '.join(seen.failed)}); {len(patients)} are in {dst}"
        raise IncompleteError(what, where=cohort.where, done=str(done))
    return done


def _look(cohort: Cohort, progress: Progress | None) -> _Seen:
    structures: dict[str, tuple[str, ...]] = {}
    images: list[set[str]] = []
    failed = []
    for n, id in enumerate(cohort.ids):
        try:
            case: Case = cohort[id]
        except OutputError:
            raise
        except OncontourError as error:
            failed.append(f"{id}: {error}")
            continue
        structures[id] = case.structures
        images.append(set(case.images))
        if progress:
            progress(_HALF * (n + 1) / len(cohort))
    return _Seen(structures, frozenset(set.intersection(*images)) if images else frozenset(), tuple(failed))


def _common(seen: _Seen, cohort: Cohort) -> tuple[str, ...]:
    """The structures that every patient has, in the order of the first."""
    every = list(seen.structures.values())
    common = tuple(name for name in (every[0] if every else ()) if all(name in there for there in every))
    if not common:
        counts = Counter(name for there in every for name in there).most_common(5)
        what = f"no structure is in all {len(every)} patients"
        told = ", ".join(f"{name} in {count}" for name, count in counts)
        hint = "name with --structures what is to be learned; patients without it are left out"
        raise CohortError(f"{what} ({told or 'none has any'})", where=cohort.where, hint=hint)
    return common


def _nobody(chosen: Sequence[str], seen: _Seen, cohort: Cohort) -> CohortError:
    there = {name for names in seen.structures.values() for name in names}
    strange = [name for name in chosen if name not in there]
    if strange:
        hint = f"{did_you_mean(strange[0], there)}there are {some(sorted(there))}"
        return CohortError(f"no patient has {', '.join(strange)}", where=cohort.where, hint=hint)
    return CohortError(f"no patient has all of {', '.join(chosen)}", where=cohort.where, hint="name fewer with --structures")


def _unused(seen: _Seen, chosen: Sequence[str]) -> Iterator[str]:
    """Structures that are there and were not written."""
    counts = Counter(name for there in seen.structures.values() for name in there if name not in chosen)
    if counts:
        yield "not in the dataset: " + ", ".join(f"{name} ({count} of {len(seen.structures)})" for name, count in counts.most_common(12))


def _where_to(dst: Path) -> Iterator[str]:
    """What nnU-Net wants its folders called, where ``dst`` is called otherwise."""
    if not _CALLED.fullmatch(dst.name):
        yield f"nnU-Net finds it as DatasetNNN_NAME (three digits) in its folder nnUNet_raw: move {dst.name} there under such a name"
