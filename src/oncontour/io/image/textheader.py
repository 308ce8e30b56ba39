"""Reading NRRD and MetaImage: a header of text, then the voxels.

*Differs:* read here and not by SimpleITK, whose C++ parsers end the whole process (SIGSEGV) on some damaged headers, where a sentence is
wanted; they also open other files that a header names. Sources: NRRD format definition (teem.sourceforge.net/nrrd/format.html, NRRD0001 to
0005); MetaIO documentation (itk.org/Wiki/ITK/MetaIO). Both answer in LPS: MetaImage is LPS as ITK has it, NRRD says so in ``space``.
"""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from oncontour.core.geometry import Floats, Geometry, rounding_mm
from oncontour.core.volume import Volume
from oncontour.errors import FormatError
from oncontour.io.image.voxels import ORIENT, Array, ImageFile, Segment, check_size, check_there, fill, fill_deflated, fill_text

MAX_HEADER_BYTES = 1 << 20
"""A .seg.nrrd of a hundred segments has a header of 100 kB."""
_KJI = np.eye(3)[::-1]
_TO_LPS = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "left-anterior-superior": (1, -1, 1)}
_SHORT_SPACES = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
_MM = {"mm": 1.0, "": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3}
_PLACED_TWICE = ("spacings", "axis mins", "axismins", "axis maxs", "axismaxs", "units", "space dimension")
"""NRRD fields that may not stand beside space and space directions (format definition, section 5)."""
_SEGMENT = re.compile(r"Segment(\d{1,4})_(Name|LabelValue|Layer)")
"""What 3D Slicer writes of each segment of a .seg.nrrd."""
_SAME_FIELDS = (("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"))
"""MetaImage keys that mean one thing. ElementSize is how large a voxel is, not how far the next lies: it counts without ElementSpacing."""
_FREE_TEXT = frozenset({"Comment", "Name", "content"})
"""What may stand there twice: nothing is read from it."""
_NRRD_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_NRRD_DTYPES = {name: dtype for dtype, names in _NRRD_TYPES.items() for name in names.split(", ")}
MET_DTYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def read_nrrd(path: Path, max_voxels: int) -> ImageFile:
    """The image of an NRRD whose voxels are in the same file. Raises FormatError, LimitError, GeometryError; OSError where damaged."""
    return _read(path, max_voxels, _Format(_nrrd_header, "sizes", _nrrd_affine, _nrrd_dtype, _nrrd_voxels))


def read_metaimage(path: Path, max_voxels: int) -> ImageFile:
    """The image of a MetaImage whose voxels are in the same file (.mha). Raises FormatError, LimitError, GeometryError; zlib.error."""
    return _read(path, max_voxels, _Format(_meta_header, "DimSize", _meta_affine, _meta_dtype, _meta_voxels))


@dataclass(frozen=True)
class _Format:
    """The parts of a file: its header, the field of its sizes, where the voxels lie, what they are, and how they are packed."""

    header: Callable[[IO[bytes], str], dict[str, str]]
    sizes: str
    affine: Callable[[dict[str, str], tuple[int, ...], str], tuple[Floats, tuple[str, ...]]]
    dtype: Callable[[dict[str, str], str], np.dtype[Any]]
    voxels: Callable[[IO[bytes], dict[str, str], Array, str], None]


def _read(path: Path, max_voxels: int, parts: _Format) -> ImageFile:
    where = str(path)
    with path.open("rb") as stream:
        header = parts.header(stream, where)
        segments = _segments(header, where)
        sizes = _whole(header, parts.sizes, where)
        layers, shape = (sizes[:1], sizes[1:]) if segments and len(sizes) == 4 else ((), sizes)
        check_size(shape, max_voxels // max(layers, default=1), where)
        affine, notes = parts.affine(header, shape, where)
        geometry = Geometry((shape[2], shape[1], shape[0]), affine)
        array = np.empty((*geometry.shape, *layers), parts.dtype(header, where))
        parts.voxels(stream, header, array, where)
    if layers:
        array = np.moveaxis(array, -1, 0)
    return ImageFile(Volume(array.astype(array.dtype.newbyteorder("="), copy=False), geometry), notes, segments)


def _segments(header: dict[str, str], where: str) -> tuple[Segment, ...]:
    """What the header says of segments. Without a value each is 1 in a layer of its own, as 3D Slicer wrote it before 4.11."""
    numbers = sorted({int(found[1]) for key in header if (found := _SEGMENT.fullmatch(key))})
    out = []
    for n in numbers:
        name, value, layer = (header.get(f"Segment{n}_{what}", "") for what in ("Name", "LabelValue", "Layer"))
        if not all(re.fullmatch(r"\d{0,9}", word) for word in (value, layer)):
            raise FormatError(f"label value {value[:20]!r} or layer {layer[:20]!r} of segment {n} is no number", where=where)
        out.append(Segment(name.strip() or f"Segment_{n + 1}", int(value or 1), int(layer or (0 if value else n))))
    places = [(one.layer, one.value) for one in out]
    double = next((one for one in out if places.count((one.layer, one.value)) > 1), None)
    if double is not None:
        raise FormatError(f"two segments are value {double.value} of layer {double.layer}", where=where, hint="save the segmentation again")
    return tuple(out)


# ---- NRRD


def _nrrd_header(stream: IO[bytes], where: str) -> dict[str, str]:
    """Field -> value, both as written but for the field's case; the stream stands at the first byte after the empty line."""
    if not re.fullmatch(rb"NRRD000[1-5]\r?\n", stream.readline(16)):
        raise FormatError("not an NRRD (its first line should be NRRD0001 to NRRD0005)", where=where)
    header: dict[str, str] = {}
    for line in _lines(stream, where):
        if not line:
            break
        key, assigned, value = line.partition(":=")
        if assigned and not line.startswith("#") and _SEGMENT.fullmatch(key):
            header[key] = value
        field, colon, value = line.partition(": ")
        if not line.startswith("#") and colon and ":=" not in field:
            _set(header, field.strip().lower(), value.strip(), where)
    else:
        raise FormatError("the header does not end", where=where, hint="copy or export it again")
    if "data file" in header or "datafile" in header:
        raise FormatError("not an NRRD with its voxels in the same file", where=where, hint="save it as one .nrrd file")
    return header


def _nrrd_dtype(header: dict[str, str], where: str) -> np.dtype[Any]:
    name = header.get("type", "").lower()
    if name not in _NRRD_DTYPES:
        raise FormatError(f"voxels of NRRD type {name[:40]!r} cannot be read", where=where)
    endian = header.get("endian", "").lower()
    dtype = np.dtype(_NRRD_DTYPES[name])
    if dtype.itemsize > 1 and endian not in ("little", "big") and _encoding(header) != "text":
        raise FormatError(f"endian must be little or big, not {endian[:20]!r}", where=where)
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _nrrd_affine(header: dict[str, str], shape: tuple[int, ...], where: str) -> tuple[Floats, tuple[str, ...]]:
    """4x4 from (k, j, i, 1) to LPS mm, and a note where another unit was turned into mm."""
    space = header.get("space", "").lower()
    space = _SHORT_SPACES.get(space, space)
    if space and space not in _TO_LPS:
        raise FormatError(f"space {space[:40]!r} is not one of {', '.join(_TO_LPS)}", where=where, hint=ORIENT)
    for field in ("space", "space directions"):
        if field not in header:
            raise FormatError(f"{field} is missing: which side is the patient's left cannot be told", where=where, hint=ORIENT)
    _check_nrrd(header, where)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(_vectors(header, "space directions", 3, where), (3, 3)).T
    affine[:3, 3] = _vectors(header, "space origin", 1, where) if "space origin" in header else 0
    unit, scale = _unit_mm(header, where)
    affine[:3] *= np.array(_TO_LPS[space])[:, None] * scale
    affine[:3, :3] = affine[:3, :3] @ _KJI
    return affine, () if scale == 1 else (f"lengths are told in {unit} (space units) and were turned into mm",)


def _check_nrrd(header: dict[str, str], where: str) -> None:
    """Raise FormatError where the header says of an axis what space directions say too, or of the axes what their number belies."""
    twice = [f for f in _PLACED_TWICE if set(header.get(f, "nan").replace('"', " ").split()) - {"nan", "???"}]
    if twice and "space directions" in header:
        raise FormatError(f"{twice[0]} stands beside space and space directions: which counts cannot be told", where=where, hint=ORIENT)
    axes = len(header.get("sizes", "").split())
    if "dimension" in header and header["dimension"] != str(axes):
        raise FormatError(f"dimension is {header['dimension'][:20]}, and there are {axes} sizes", where=where, hint=ORIENT)
    kinds = header.get("kinds", "").lower().split()
    odd = [kind for kind in kinds[-3:] if kind not in ("domain", "space", "none", "???")]
    if odd or (kinds and len(kinds) != axes):
        what = f"axes are of the kinds {' '.join(kinds)[:80]}, not three of space"
        raise FormatError(what, where=where, hint="save one volume of the series")


def _vectors(header: dict[str, str], field: str, count: int, where: str) -> Floats:
    """``count`` vectors "(x,y,z)" as one row of numbers."""
    text = header[field].lower()
    if len(header.get("sizes", "").split()) == 4:  # the axis of layers has no direction
        text = text.removeprefix("none ")
    found = re.findall(r"\(([^()]*)\)", text)
    if len(found) != count or "none" in text:
        raise FormatError(f"{field} must be {count} times (x,y,z), not {header[field][:80]!r}", where=where)
    return _floats([word for vector in found for word in vector.split(",")], 3 * count, field, where)


def _unit_mm(header: dict[str, str], where: str) -> tuple[str, float]:
    """The unit of space, and how many mm it is."""
    units = {unit.lower() for unit in re.findall(r'"([^"]*)"', header.get("space units", ""))} or {"mm"}
    if len(units) != 1 or not units <= _MM.keys():
        raise FormatError(f"space units must be one of {', '.join(filter(None, _MM))}, not {sorted(units)}", where=where)
    unit = units.pop()
    return unit, _MM[unit]


def _encoding(header: dict[str, str]) -> str:
    encoding = header.get("encoding", "").lower()
    return {"gz": "gzip", "bz2": "bzip2", "txt": "text", "ascii": "text"}.get(encoding, encoding)


def _nrrd_voxels(stream: IO[bytes], header: dict[str, str], array: Array, where: str) -> None:
    encoding, skip = _encoding(header), _skip(header, "byte skip", -1, where)
    for _ in range(_skip(header, "line skip", 0, where)):
        stream.readline(MAX_HEADER_BYTES)
    there = _left(stream)
    if encoding == "text":
        fill_text(stream.read(min(there, 400 * array.size)), array, where)
        return
    if encoding not in ("raw", "gzip", "bzip2"):
        raise FormatError(f"NRRD encoding {encoding[:20]!r} cannot be read (raw, gzip, bzip2 and text can)", where=where)
    if encoding != "bzip2":
        check_there(array.nbytes, there, where, zipped=encoding == "gzip")
    if skip == -1:
        if encoding != "raw":
            raise FormatError("byte skip -1 needs raw encoding", where=where)
        stream.seek(-array.nbytes, 2)
        skip = 0
    if encoding != "raw":
        stream = cast(IO[bytes], gzip.open(stream) if encoding == "gzip" else bz2.open(stream))  # noqa: SIM115
    stream.seek(skip, 1)
    fill(stream, array, where)


def _skip(header: dict[str, str], field: str, least: int, where: str) -> int:
    text = header.get(field.replace(" ", ""), header.get(field, "0"))
    if not re.fullmatch(r"-?\d{1,9}", text) or int(text) < least or int(text) > MAX_HEADER_BYTES:
        raise FormatError(f"{field} must be a number from {least} to {MAX_HEADER_BYTES}, not {text[:40]!r}", where=where)
    return int(text)


# ---- MetaImage


def _meta_header(stream: IO[bytes], where: str) -> dict[str, str]:
    """Key -> value; the stream stands at the first voxel."""
    header: dict[str, str] = {}
    for line in _lines(stream, where):
        key, equals, value = line.partition("=")
        if not equals:
            break
        _set(header, key.strip(), value.strip(), where)
        if key.strip() == "ElementDataFile":
            break
    if header.get("ElementDataFile", "").upper() != "LOCAL":
        raise FormatError("not a MetaImage with its voxels in the same file", where=where, hint="save it as one .mha file")
    if header.get("ElementNumberOfChannels", "1") != "1":
        raise FormatError("voxels of several components (complex, colour or vectors) cannot be read", where=where)
    if header.get("HeaderSize", "0") != "0":
        raise FormatError(f"HeaderSize {header['HeaderSize'][:20]!r} cannot be read in a file that holds its voxels itself", where=where)
    return header


def _meta_dtype(header: dict[str, str], where: str) -> np.dtype[Any]:
    name = header.get("ElementType", "")
    if name not in MET_DTYPES:
        raise FormatError(f"voxels of type {name[:40]!r} cannot be read", where=where)
    big = _says_yes(header, "BinaryDataByteOrderMSB", where) or _says_yes(header, "ElementByteOrderMSB", where)
    return np.dtype(MET_DTYPES[name]).newbyteorder(">" if big else "<")


def _says_yes(header: dict[str, str], key: str, where: str) -> bool:
    value = header.get(key, "False").lower()
    if value not in ("true", "false", "t", "f", "1", "0"):
        raise FormatError(f"{key} must be True or False, not {value[:20]!r}", where=where)
    return value in ("true", "t", "1")


def _meta_affine(header: dict[str, str], shape: tuple[int, ...], where: str) -> tuple[Floats, tuple[str, ...]]:
    """4x4 from (k, j, i, 1) to LPS mm; each row of TransformMatrix is the direction of one axis, i first."""
    _check_meta(header, shape, where)

    def numbers(keys: tuple[str, ...], count: int, default: str = "") -> Floats:
        key = next((k for k in keys if k in header), keys[0])
        if key not in header and not default:
            raise FormatError(f"{key} is missing: size or sides of the voxels cannot be told", where=where, hint=ORIENT)
        return _floats(header.get(key, default).split(), count, key, where)

    spacing = numbers(("ElementSpacing", "ElementSize"), 3)
    if spacing.min() <= 0:
        raise FormatError(f"ElementSpacing must be positive, not {spacing.tolist()}", where=where, hint=ORIENT)
    axes = numbers(("TransformMatrix", "Rotation", "Orientation"), 9).reshape(3, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if (np.abs(lengths - 1) * spacing * shape).max() > rounding_mm(float(spacing.min())):
        what = f"the rows of TransformMatrix are {', '.join(f'{v:.6g}' for v in lengths)} long, not 1"
        raise FormatError(f"{what}: beside ElementSpacing the size of the voxels cannot be told", where=where, hint=ORIENT)
    affine = np.eye(4)
    affine[:3, :3] = (axes.T * spacing) @ _KJI
    affine[:3, 3] = numbers(("Offset", "Position", "Origin"), 3, "0 0 0")
    return affine, _other_letters(header, axes)


def _check_meta(header: dict[str, str], shape: tuple[int, ...], where: str) -> None:
    """Raise FormatError where two keys say one thing in two ways, or a key changes values or sizes in a way that is not read."""
    for names in _SAME_FIELDS:
        said = {_numbers(header[name]): name for name in reversed(names) if name in header}
        if len(said) > 1:
            both = " and ".join(f"{name} {header[name][:60]}" for name in reversed(said.values()))
            raise FormatError(f"{both}: which counts cannot be told", where=where, hint=ORIENT)
    if header.get("NDims", str(len(shape))) != str(len(shape)):
        raise FormatError(f"NDims is {header['NDims'][:20]}, and DimSize has {len(shape)} sizes", where=where, hint=ORIENT)
    if header.get("DistanceUnits", "mm").lower() not in ("mm", "?"):
        raise FormatError(f"DistanceUnits {header['DistanceUnits'][:20]!r}: only mm is read", where=where, hint=ORIENT)
    for key, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if key in header and _floats(header[key].split(), 1, key, where)[0] != plain:
            what = f"{key} is {header[key][:20]}: whether values are changed by it cannot be told"
            raise FormatError(what, where=where, hint="save the image again with its values as they are meant")


def _other_letters(header: dict[str, str], axes: Floats) -> tuple[str, ...]:
    """A note where AnatomicalOrientation, which no program reads, fits TransformMatrix neither as where axes come from nor lead to.

    Axes turned so far that two lie nearest to one of the patient's have no three letters: of them nothing is said.
    """
    letters = header.get("AnatomicalOrientation", "").upper()
    main = [int(np.abs(row).argmax()) for row in axes]
    pairs = (("LR", "PA", "SI"), ("RL", "AP", "IS"))  # where an axis comes from, as ITK writes it, and where it leads to
    ways = ["".join(pair[at][int(row[at] > 0)] for row, at in zip(axes, main, strict=True)) for pair in pairs]
    if letters in ("", "???", *ways) or len(set(main)) < 3:
        return ()
    return (f"AnatomicalOrientation is {letters[:8]}, TransformMatrix says {ways[0]}: TransformMatrix counts, as in ITK",)


def _meta_voxels(stream: IO[bytes], header: dict[str, str], array: Array, where: str) -> None:
    there = _left(stream)
    if header.get("BinaryData", "True").lower() in ("false", "f", "0"):
        fill_text(stream.read(min(there, 400 * array.size)), array, where)
    elif _says_yes(header, "CompressedData", where):
        size = header.get("CompressedDataSize", "0")
        if re.fullmatch(r"\d{1,18}", size) and there < int(size):
            check_there(int(size), there, where, zipped=False)
        check_there(array.nbytes, there, where, zipped=True)
        fill_deflated(stream, array, where)
    else:
        check_there(array.nbytes, there, where, zipped=False)
        fill(stream, array, where)


# ---- both


def _lines(stream: IO[bytes], where: str) -> Iterator[str]:
    """Header lines as text without their ends. Raises FormatError beyond MAX_HEADER_BYTES."""
    read = 0
    while line := stream.readline(MAX_HEADER_BYTES):
        read += len(line)
        if read >= MAX_HEADER_BYTES:
            raise FormatError(f"the header does not end within {MAX_HEADER_BYTES} bytes", where=where)
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _set(header: dict[str, str], key: str, value: str, where: str) -> None:
    """Raises FormatError where the header said something else of ``key`` before."""
    if _numbers(header.setdefault(key, value)) != _numbers(value) and key not in _FREE_TEXT:
        raise FormatError(f"{key} is there twice, as {header[key][:40]!r} and {value[:40]!r}", where=where, hint="save the image again")


def _numbers(value: str) -> tuple[float, ...] | str:
    """The finite numbers that ``value`` spells, with spaces or as vectors (x,y,z); else ``value`` itself."""
    try:
        numbers = tuple(float(word) for word in re.sub(r"[(),]", " ", value).split())
    except ValueError:
        return value
    return numbers if numbers and np.isfinite(numbers).all() else value


def _left(stream: IO[bytes]) -> int:
    """Bytes from here to the end."""
    here = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(here)
    return end - here


def _whole(header: dict[str, str], field: str, where: str) -> tuple[int, ...]:
    words = header.get(field, "").split()
    if not 1 <= len(words) <= 16 or not all(re.fullmatch(r"\d{1,12}", word) for word in words):
        raise FormatError(f"{field} must be whole numbers, not {header.get(field, '')[:80]!r}", where=where)
    return tuple(int(word) for word in words)


def _floats(words: list[str], count: int, field: str, where: str) -> Floats:
    try:
        values = np.array([float(word) for word in words[: count + 1]])
    except ValueError:
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise FormatError(f"{field} must be {count} finite numbers, not {' '.join(words)[:80]!r}", where=where)
    return values
