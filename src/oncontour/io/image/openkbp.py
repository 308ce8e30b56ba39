"""The published OpenKBP format: one folder a patient, sparse CSVs on a 128 x 128 x 128 grid (Babier et al., Med Phys 2021).

``NAME.csv`` has a header ``,data`` and one line a voxel: its flat index (C order) and, in ``ct.csv`` and ``dose.csv``, its value. The three
array axes run anterior to posterior, patient right to left, superior to inferior. CT values are HU + 1024; dose is Gy; anything else is a
mask. ``voxel_dimensions.csv`` has three lines of millimetres in the order of the axes. Positions are not published: the grid's middle is
taken as (0, 0, 0), as in the NIfTI version of the same patients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, InputError, LimitError
from oncontour.files import readable
from oncontour.io.folders import name_of
from oncontour.io.image.layout import map_names
from oncontour.io.image.voxels import Array

SIDE = 128
HU_OFFSET = 1024
MAX_BYTES = 1 << 28
"""Largest CSV read: 2 million voxels take at most 60 MB."""
_DIMENSIONS = "voxel_dimensions"
_IMAGES = ("ct", "dose", "possible_dose_mask")
_AXES = ((0, 1, 0), (1, 0, 0), (0, 0, -1))
"""LPS directions of the published axes, as rows."""


def is_openkbp(folder: Path) -> bool:
    """Whether ``folder`` has the ``voxel_dimensions.csv`` of an OpenKBP patient."""
    return (folder / f"{_DIMENSIONS}.csv").is_file()


def read_openkbp(folder: Path | str, *, id: str | None = None) -> Case:
    """The patient in ``folder`` on the full 128^3 grid: k to superior, j to posterior, i to left; ``id`` is by default the folder's name.

    Images "ct" (HU, int16; -1024 where no value was published), "dose" (Gy, float32), "possible_dose_mask" (0 or 1: where dose is
    possible); masks under TG-263 names; an organ without a file was not contoured. Raises FormatError for a file that is not of this
    format (name and line), LimitError for one that is too large.
    """
    folder = Path(folder)
    if not is_openkbp(folder):
        raise InputError(f"no OpenKBP patient (no {_DIMENSIONS}.csv)", where=str(folder))
    published = _published_grid(_spacing(folder / f"{_DIMENSIONS}.csv"))
    grid = published.reorient()
    files = {p.stem: p for p in sorted(folder.glob("*.csv")) if p.stem != _DIMENSIONS}
    images = {name: Volume(_dense(files[name], name), published).to(grid) for name in _IMAGES if name in files}
    names, unmapped, notes = map_names(name for name in files if name not in _IMAGES)
    masks = {name: Volume(_dense(files[original], original).astype(bool), published).to(grid) for name, original in names.items()}
    return Case(id or readable(name_of(folder)), images, masks, facts={"names": names, "unmapped": unmapped, "notes": notes})


def _published_grid(spacing_mm: tuple[float, float, float]) -> Geometry:
    """The grid of the published arrays with its middle at (0, 0, 0); ``spacing_mm`` in the order of the published axes."""
    axes = np.asarray(_AXES, dtype=np.float64)
    first = -(SIDE - 1) / 2 * (axes * np.asarray(spacing_mm)[:, None]).sum(axis=0)
    return Geometry.regular((SIDE, SIDE, SIDE), spacing_mm, first.tolist(), axes)


def _spacing(path: Path) -> tuple[float, float, float]:
    table = _table(path, lambda: np.loadtxt(path, dtype=np.float64, ndmin=1))
    if table.shape != (3,) or not np.isfinite(table).all() or table.min() <= 0:
        raise FormatError(f"three positive voxel sizes in mm are needed, not {table.ravel()[:6].tolist()}", where=str(path))
    a, b, c = (float(v) for v in table)
    return a, b, c


def _dense(path: Path, name: str) -> Array:
    """The published array of one CSV: HU as int16 (float32 where they are not whole), Gy as float32, masks as uint8."""
    valued = name in ("ct", "dose")
    columns = (0, 1) if valued else (0,)
    with path.open("rb") as stream:
        if stream.readline(100).strip() != b",data":
            raise FormatError("not an OpenKBP CSV (its first line is not ',data')", where=str(path))
    table = _table(path, lambda: np.loadtxt(path, delimiter=",", skiprows=1, usecols=columns, ndmin=2, dtype=np.float64))
    index = table[:, 0]
    bad = np.flatnonzero(~((index >= 0) & (index < SIDE**3) & (index == np.floor(index))))
    if len(bad):
        raise FormatError(f"voxel index {index[bad[0]]:g} is not a whole number below {SIDE}^3", where=f"{path}, line {bad[0] + 2}")
    if len(np.unique(index)) != len(index):
        raise FormatError("a voxel index is listed twice", where=str(path))
    if valued and not (np.isfinite(table[:, 1]).all() and np.abs(table[:, 1]).max(initial=0) < 30_000):
        line = int(np.flatnonzero(~(np.abs(table[:, 1]) < 30_000))[0]) + 2
        raise FormatError(f"value {table[line - 2, 1]:g} is no CT value or dose", where=f"{path}, line {line}")
    dense = np.zeros(SIDE**3)
    dense[index.astype(np.intp)] = table[:, 1] if valued else 1
    if name == "ct":
        dense -= HU_OFFSET
    whole = name == "ct" and np.array_equal(dense, np.rint(dense))
    dtype = np.uint8 if not valued else np.int16 if whole else np.float32
    return dense.astype(dtype).reshape(SIDE, SIDE, SIDE)


def _table(path: Path, load: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    if path.stat().st_size > MAX_BYTES:
        raise LimitError(f"{path.stat().st_size} bytes, at most {MAX_BYTES} are read", where=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is an empty structure
            return load()
    except (ValueError, OSError, IndexError, UnicodeDecodeError) as error:
        raise FormatError(f"not an OpenKBP CSV ({' '.join(str(error).split())[:120]})", where=str(path)) from error
