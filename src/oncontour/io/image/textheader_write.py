"""Writing NRRD and MetaImage: a header of text, then the voxels, compressed.

``io/image/textheader.py`` reads them back to the same numbers.

Sources: NRRD format definition (teem.sourceforge.net/nrrd/format.html, NRRD0004 for ``space``); MetaIO documentation
(itk.org/Wiki/ITK/MetaIO).
Numbers are written with as many digits as tell one double from every other: an NRRD keeps its grid to the last bit, a MetaImage, which
keeps directions and voxel sizes apart, to the last but one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import SupportsFloat

import numpy as np

from oncontour.core.geometry import Floats, Geometry
from oncontour.io.image.textheader import MET_DTYPES
from oncontour.io.image.voxels import Array

_NRRD_NAMES = {
    "i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32", "i8": "int64", "u8": "uint64",
    "f4": "float", "f8": "double",
}  # fmt: skip
_MET_NAMES = {dtype: name for name, dtype in MET_DTYPES.items()}
_LEVEL = 1
"""Of compression: images are written far more often than they are kept."""


def write_nrrd(array: Array, geometry: Geometry, path: Path) -> None:
    """``array`` (k, j, i; a dtype of NIfTI's) on ``geometry`` as one NRRD file in LPS. Raises OSError where it cannot be written."""
    vectors = " ".join(_vector(step) for step in _steps_ijk(geometry))
    header = [
        "NRRD0004",
        f"type: {_NRRD_NAMES[_kind(array)]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {_words(geometry.shape[::-1])}",
        f"space directions: {vectors}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(geometry.affine[:3, 3])}",
    ]
    with path.open("wb") as raw:
        raw.write(("\n".join(header) + "\n\n").encode("ascii"))
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as stream:
            stream.write(_little(array).data)


def write_metaimage(array: Array, geometry: Geometry, path: Path) -> None:
    """``array`` (k, j, i; a dtype of NIfTI's) on ``geometry`` as one MetaImage file in LPS. Raises OSError where it cannot be written."""
    steps, spacing = _steps_ijk(geometry), np.asarray(geometry.spacing_mm[::-1])
    voxels = zlib.compress(_little(array).data, _LEVEL)
    header = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(voxels)}",
        f"TransformMatrix = {_words((steps / spacing[:, None]).ravel())}",
        f"Offset = {_words(geometry.affine[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_words(spacing)}",
        f"DimSize = {_words(geometry.shape[::-1])}",
        f"ElementType = {_MET_NAMES[_kind(array)]}",
        "ElementDataFile = LOCAL",
    ]
    with path.open("wb") as raw:
        raw.write(("\n".join(header) + "\n").encode("ascii"))
        raw.write(voxels)


def _steps_ijk(geometry: Geometry) -> Floats:
    """One voxel's step along i, j and k as rows, LPS mm."""
    steps: Floats = geometry.affine[:3, 2::-1].T
    return steps


def _kind(array: Array) -> str:
    return f"{array.dtype.kind}{array.dtype.itemsize}"


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _words(numbers: Iterable[SupportsFloat]) -> str:
    return " ".join(_shortest(number) for number in numbers)


def _vector(numbers: Iterable[SupportsFloat]) -> str:
    return f"({','.join(_shortest(number) for number in numbers)})"


def _shortest(number: SupportsFloat) -> str:
    """The fewest digits that are this number and no other; whole numbers without a point."""
    value = float(number)
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
