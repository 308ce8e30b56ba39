"""Many patients, read one at a time when they are asked for.

A cohort is a folder of patient folders, or a CSV with the columns ``patient, path[, split]`` (paths relative to the CSV). Opening it looks
at names only, so it is quick on thousands of patients.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from oncontour.core.case import Case
from oncontour.core.notes import all_anonymous
from oncontour.errors import CohortError, ConfigError
from oncontour.files import readable
from oncontour.io.folders import archives_in, check_cohort, natural
from oncontour.io.patients import are_cohorts, folders_in, is_patient

MAX_PATIENTS = 1_000_000


@dataclass(frozen=True)
class Cohort:
    """Patients by id, in natural order (pt_2 before pt_10): ``cohort[id]`` reads one now, iteration gives ids.

    ``paths``: id -> file or folder; ``parts``: id -> value of the CSV's ``split`` column, where there is one.
    """

    paths: Mapping[str, Path]
    where: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.paths:
            raise CohortError(
                "no patients", where=self.where, hint="give a folder of patient folders or a CSV with the columns patient,path"
            )
        ordered = {name: Path(self.paths[name]) for name in sorted(self.paths, key=natural)}
        object.__setattr__(self, "paths", MappingProxyType(ordered))
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    def __reduce__(self) -> tuple[object, ...]:
        return Cohort, (dict(self.paths), self.where, dict(self.parts))

    @classmethod
    def open(cls, path: Path | str) -> Cohort:
        """The cohort at ``path``. Raises CohortError where it is missing, empty, a single patient, or a CSV with faults (line named)."""
        path = Path(path)
        check_cohort(path)
        return _from_csv(path) if path.is_file() else _from_folder(path)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __contains__(self, id: object) -> bool:
        return id in self.paths

    def __getitem__(self, id: str) -> Case:
        """Read patient ``id`` now. Raises CohortError for an unknown id, and what ``io.read`` raises."""
        return self.read(id)

    def read(self, id: str, *, lenient: bool = False) -> Case:
        """As ``self[id]``, ``lenient`` as ``io.read`` has it. The remarks in ``facts["notes"]`` are without what may name the patient, as
        they are told of many patients together."""
        from oncontour.io import read

        path = self.path(id)
        case = read(path, id=id, lenient=lenient)
        notes = all_anonymous(case.facts.get("notes", ()), path, getattr(case.source, "patient", {}))
        return replace(case, facts={**case.facts, "notes": notes})

    def subset(self, ids: Iterable[str]) -> Cohort:
        """The cohort of these patients. Raises CohortError for an unknown id or none at all."""
        paths = {id: self.path(id) for id in ids}
        return Cohort(paths, self.where, {id: part for id, part in self.parts.items() if id in paths})

    def part(self, name: str) -> Cohort:
        """The patients whose ``split`` column says ``name``. Raises CohortError where nobody's does."""
        ids = [id for id in self.ids if self.parts.get(id) == name]
        if not ids:
            raise CohortError(f"no patient of split {name!r}; there are {sorted(set(self.parts.values()))}", where=self.where)
        return self.subset(ids)

    def split(self, fractions: Sequence[float], seed: int) -> tuple[Cohort, ...]:
        """Disjoint parts of about these fractions, by patient; the same ids, fractions and seed give the same parts.

        Fractions are positive and sum to 1 at most; sizes are rounded by largest remainder. Raises ConfigError for other
        fractions and CohortError when a part would be empty.
        """
        shares = np.asarray(fractions, dtype=np.float64)
        if shares.ndim != 1 or not len(shares) or not (np.isfinite(shares).all() and shares.min() > 0 and shares.sum() <= 1 + 1e-9):
            raise ConfigError(f"fractions must be positive and sum to 1 at most, not {list(fractions)}")
        sizes = _largest_remainder(shares, len(self))
        if min(sizes) < 1:
            raise CohortError(f"{len(self)} patients split by {list(fractions)} would leave a part empty", where=self.where)
        order = np.random.default_rng(seed).permutation(len(self))
        ends = np.cumsum(sizes)
        return tuple(self.subset(self.ids[n] for n in order[end - size : end]) for size, end in zip(sizes, ends, strict=True))

    def path(self, id: str) -> Path:
        """Where patient ``id`` lies. Raises CohortError for an unknown id."""
        if id not in self.paths:
            raise CohortError(f"no patient {id!r} among the {len(self)}", where=self.where)
        return self.paths[id]


def _largest_remainder(shares: np.ndarray[tuple[int], np.dtype[np.float64]], total: int) -> list[int]:
    exact = shares * total
    sizes = np.floor(exact + 1e-9).astype(int)
    short = int(np.rint(exact.sum() - 1e-9)) - int(sizes.sum())
    for n in np.argsort(-(exact - sizes), kind="stable")[: max(short, 0)]:
        sizes[n] += 1
    return [int(n) for n in sizes]


def _from_folder(path: Path) -> Cohort:
    from oncontour.io.image.label_folder import flat_folder

    if flat := flat_folder(path):
        what = f"image files lie here side by side ({flat}), and no folders of patients"
        hint = "give a folder with a folder a patient (ct.nii.gz, masks/NAME.nii.gz) or a CSV with the columns patient,path"
        raise CohortError(what, where=str(path), hint=hint)
    if is_patient(path):
        raise CohortError("this is one patient, not a folder of patients", where=str(path), hint="give the folder above it")
    folders = folders_in(path)
    _check_links(path, folders)
    if not folders:
        raise _no_folders(path)
    if are_cohorts(folders):
        names = ", ".join(p.name for p in folders[:5])
        raise CohortError(f"a folder of cohorts ({names}), not of patients", where=str(path), hint=f"give one of them: {folders[0]}")
    ids = [readable(p.name) for p in folders]
    if len(set(ids)) < len(ids):
        double = next(id for id in ids if ids.count(id) > 1)
        raise CohortError(f"two folders are called {double!r} once bytes that are no UTF-8 are left out", where=str(path))
    return Cohort(dict(zip(ids, folders, strict=True)), str(path))


def _check_links(path: Path, folders: Sequence[Path]) -> None:
    """Raises CohortError where a link leads nowhere or back to the cohort, or two folders are one: a patient would be lost, or counted
    twice."""
    for link in path.iterdir():
        if link.is_symlink() and not link.exists():
            raise CohortError("a link that leads nowhere", where=str(link), hint="mend the link, or take it away")
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if path.resolve().is_relative_to(place):
            raise CohortError("a link that leads back to the cohort itself", where=str(folder), hint="take it away")
        if place in seen:
            raise CohortError(f"{seen[place].name} and {folder.name} are one folder", where=str(path), hint="one folder a patient")
        seen[place] = folder


def _no_folders(path: Path) -> CohortError:
    from oncontour.io.dicom.scan import holds_dicom

    if packed := archives_in(path):
        return CohortError(f"no folders of patients, but archives: {', '.join(packed[:3])}", where=str(path), hint="unpack them first")
    if holds_dicom(path):
        return CohortError("DICOM files of one patient, not a folder of patients", where=str(path), hint="give the folder above it")
    hint = "give a folder of patient folders or a CSV with the columns patient,path"
    return CohortError("no patients", where=str(path), hint=hint)


def _from_csv(path: Path) -> Cohort:
    paths: dict[str, Path] = {}
    parts: dict[str, str] = {}
    lines: dict[str | Path, int] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        patient, place = row["patient"], (path.parent / row["path"])
        for key, what in ((patient, f"patient {patient!r}"), (place.resolve(), f"path {row['path']!r}")):
            if key in lines:
                raise CohortError(f"{what} was in line {lines[key]} already", where=where, hint="one line a patient, one patient a path")
            lines[key] = line
        if not _is_there(place):
            raise CohortError(f"no such file or folder: {row['path'][:200]}", where=where, hint="paths are relative to the CSV")
        paths[patient] = place
        if row.get("split"):
            parts[patient] = row["split"]
    return Cohort(paths, str(path), parts)


def _is_there(path: Path) -> bool:
    """Whether ``path`` exists; a name that the system refuses (too long) does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV with at least the columns patient and path, both filled."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            missing = {"patient", "path"} - {name.strip() for name in table.fieldnames or ()}
            if missing:
                raise CohortError(f"a cohort CSV needs the columns patient and path; {sorted(missing)} missing", where=str(path))
            for count, raw in enumerate(table):
                row = {(key or "").strip(): value.strip() for key, value in raw.items() if isinstance(value, str)}
                if not row.get("patient") or not row.get("path"):
                    raise CohortError("patient and path must be filled", where=f"{path}, line {table.line_num}")
                if not (row["patient"] + row["path"]).isprintable():
                    raise CohortError("patient or path holds characters that cannot be printed", where=f"{path}, line {table.line_num}")
                if count >= MAX_PATIENTS:
                    raise CohortError(f"more than {MAX_PATIENTS} patients", where=str(path))
                yield table.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"cannot be read as a CSV ({error})", where=str(path)) from error
