"""Pairs of visits to learn from, made once and kept: a file for each patient, read back bit by bit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from oncontour.adapt.inputs import Pair
from oncontour.adapt.task import AdaptTask
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.errors import InputError, OncontourError
from oncontour.files import writing

_ARRAYS = tuple(f.name for f in fields(Pair) if f.name not in ("case_id", "grid"))


def pairs_of(cases: Iterable[Case], task: AdaptTask, ids: Sequence[str], folder: Path) -> dict[str, list[Pair]]:
    """Patient -> the pairs that ``task`` makes of the patient; where FOLDER/PATIENT.npz lies, those in it. Patients that none can be made
    of are named on stderr and left out; they are asked again next time.

    ``cases`` of ``ids`` are read only where a file is missing.
    """
    bank: dict[str, list[Pair]] = {}
    if any(not _file(folder, id).exists() for id in ids):
        for case in cases:
            if not _file(folder, case.id).exists():
                try:
                    if made := task.samples(case):
                        write_pairs(made, _file(folder, case.id))
                except OncontourError as error:
                    sys.stderr.write(f"{case.id} was left out: {error}\n")
    for id in ids:
        if _file(folder, id).exists():
            bank[id] = read_pairs(_file(folder, id), id)
    return bank


def _file(folder: Path, id: str) -> Path:
    return folder / f"{id}.npz"


def write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Write the pairs of a patient: arrays named NUMBER.FIELD, the grid as NUMBER.affine; no pickle."""
    held = {f"{n}.{name}": getattr(pair, name) for n, pair in enumerate(pairs) for name in _ARRAYS if getattr(pair, name) is not None}
    held |= {f"{n}.affine": pair.grid.affine for n, pair in enumerate(pairs)}
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **held)


def read_pairs(path: Path, id: str) -> list[Pair]:
    """The pairs of patient ``id``. Raises InputError for a file that holds none."""
    try:
        with np.load(path, allow_pickle=False) as held:
            count = sum(name.endswith(".affine") for name in held.files)
            out = []
            for n in range(count):
                arrays = {name: held[f"{n}.{name}"] for name in _ARRAYS if f"{n}.{name}" in held.files}
                out.append(Pair(id, Geometry(arrays["fixed"].shape, held[f"{n}.affine"]), **arrays))
            return out
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no pairs can be read here ({error})", where=str(path), hint="remove the file: it is made again") from error
