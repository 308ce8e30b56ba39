"""Single-file images: NIfTI (.nii, .nii.gz), NRRD (.nrrd) and MetaImage (.mha) to and from Volume.

The only place where axes are flipped between conventions. NIfTI places voxels (i, j, k) in RAS+ millimetres (NIfTI-1.1, nifti1.h), we
place (k, j, i) in LPS; NRRD and MetaImage are read in ``io/image/textheader.py`` and written in ``io/image/textheader_write.py``, in LPS.

*Differs:* NIfTI is read here and not by ITK, because nifti_clib picks between sform and qform by its own rules, drops precision of a
double header and believes the sizes in a header before it has seen the bytes.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from oncontour.core.geometry import Floats, Geometry, rounding_mm
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, InputError, LimitError
from oncontour.files import writing
from oncontour.io.image.voxels import ORIENT, Array, ImageFile, check_size, check_there, fill

MAX_VOXELS = 2**29
"""Largest image read unless told otherwise: 2048 slices of 512 x 512."""
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_XYZ_TO_KJI = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""xyzt_units -> what lengths are told in, and how many mm that is; 2 is mm, and 0 (unknown) is taken as mm by everybody."""
_CODES_OF_FORMS = range(6)
"""sform_code and qform_code: 0 not set, else which space it leads to. Some programs take a number beyond these as set, some do not."""
_ROUNDED_QUATERNION = 1e-6
_FORMS = "keep the one that is right, set the code of the other to 0, or save the image again from a program that knows how the patient lay"

_NIFTI1 = [
    ("sizeof_hdr", "i4"), ("unused1", "V35"), ("dim_info", "u1"), ("dim", "i2", 8), ("intent", "f4", 3), ("intent_code", "i2"),
    ("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2"), ("pixdim", "f4", 8), ("vox_offset", "f4"), ("scl_slope", "f4"),
    ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"), ("xyzt_units", "u1"), ("cal", "f4", 2), ("timing", "f4", 2),
    ("glmax", "i4", 2), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i2"), ("sform_code", "i2"), ("quatern", "f4", 3),
    ("qoffset", "f4", 3), ("srow", "f4", (3, 4)), ("intent_name", "S16"), ("magic", "S4"),
]  # fmt: skip
_NIFTI2 = [
    ("sizeof_hdr", "i4"), ("magic", "S8"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", 8), ("intent", "f8", 3), ("pixdim", "f8", 8),
    ("vox_offset", "i8"), ("scl_slope", "f8"), ("scl_inter", "f8"), ("cal", "f8", 2), ("timing", "f8", 2), ("slice_range", "i8", 2),
    ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i4"), ("sform_code", "i4"), ("quatern", "f8", 3), ("qoffset", "f8", 3),
    ("srow", "f8", (3, 4)), ("slice_code", "i4"), ("xyzt_units", "i4"), ("intent_code", "i4"), ("intent_name", "S16"),
    ("dim_info", "u1"), ("unused", "V15"),
]  # fmt: skip


def is_image(path: Path | str) -> bool:
    """Whether the name is one that ``read_image`` reads."""
    return str(path).lower().endswith(SUFFIXES)


def read_image(path: Path | str, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """The image at ``path`` on its own grid, in its own dtype (scaled NIfTI values that are not whole numbers: float32).

    Raises what ``read_image_file`` raises, FormatError for several layers of segments too.
    """
    volume = read_image_file(path, max_voxels=max_voxels).volume
    if volume.array.ndim != 3:
        raise FormatError("the file holds segments that overlap, and is no image", where=str(path), hint="give it as masks")
    return volume


def read_image_file(path: Path | str, *, max_voxels: int = MAX_VOXELS) -> ImageFile:
    """What ``read_image`` reads, with notes on how it was read and the segments that a .seg.nrrd names.

    Raises InputError where there is no such file, FormatError for a file that is not what its name says, is cut short, has not three
    axes, is complex or coloured, holds NaN or infinity, or whose header says two things of one (``docs/conformance.md`` has the table);
    GeometryError for a singular or sheared grid; LimitError for more than ``max_voxels``, judged by the header before any voxel is read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such image file", where=str(path))
    name = path.name.lower()
    if not is_image(path):
        raise FormatError(f"not an image file that can be read; its name should end in one of {', '.join(SUFFIXES)}", where=str(path))
    if name.endswith((".nrrd", ".mha")):
        from oncontour.io.image.textheader import read_metaimage, read_nrrd

        read = read_nrrd if name.endswith(".nrrd") else read_metaimage
    else:
        read = _read_nifti
    try:
        found = read(path, max_voxels)
        _check_finite(found.volume.array, str(path))
    except GeometryError as error:
        raise GeometryError(error.what, where=error.where or str(path), hint=error.hint) from error
    except MemoryError as error:
        raise LimitError("the image does not fit into memory", where=str(path), hint="use a machine with more memory") from error
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"the file is damaged or cut short ({error})", where=str(path), hint="copy or export it again") from error
    return found


def _check_finite(array: Array, where: str) -> None:
    if np.issubdtype(array.dtype, np.floating):
        finite = np.isfinite(array)
        if not finite.all():
            first = tuple(int(n) for n in np.unravel_index(int(finite.argmin()), array.shape))
            bad = array.size - int(np.count_nonzero(finite))
            raise FormatError(f"{bad} voxels are NaN or infinite, the first at (k, j, i) = {first}", where=where)


def write_image(volume: Volume, path: Path | str) -> Path:
    """Write ``volume`` as the name of ``path`` says, whole or not at all; bool becomes uint8, float16 float32. Gives ``path`` back.

    Loss-free in values; a NIfTI affine is rounded to float32 (1e-5 mm at 100 mm from the origin), as the format has it.
    Raises InputError for another name or dtype, OutputError where it cannot be written.
    """
    path = Path(path)
    array = volume.array
    if array.dtype in (np.dtype(bool), np.dtype(np.float16)):
        array = array.astype(np.uint8 if array.dtype == bool else np.float32)
    if not is_image(path):
        raise InputError(f"cannot tell the image format by its name; end it in one of {', '.join(SUFFIXES)}", where=str(path))
    if array.ndim != 3 or array.dtype.newbyteorder("=") not in _CODES:
        raise InputError(f"cannot write an array of {array.shape} {array.dtype}; three axes of real numbers are needed", where=str(path))
    name = path.name.lower()
    with writing(path) as temporary:
        if not name.endswith((".nrrd", ".mha")):
            _write_nifti(array, volume.geometry, temporary, compress=name.endswith(".gz"))
            return path
        from oncontour.io.image.textheader_write import write_metaimage, write_nrrd

        (write_nrrd if name.endswith(".nrrd") else write_metaimage)(array, volume.geometry, temporary)
    return path


# ---- NIfTI


def _read_nifti(path: Path, max_voxels: int) -> ImageFile:
    where = str(path)
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
        header = _header(stream, where)
        shape = _shape(header, where)
        check_size(shape, max_voxels, where)
        scale, notes = _mm_per_unit(header)
        affine = _affine_ras(header, shape, scale, where)
        affine[:3] *= scale
        geometry = Geometry((shape[2], shape[1], shape[0]), _LPS @ affine @ _XYZ_TO_KJI)
        code = int(header["datatype"])
        if code not in _DTYPES:
            raise FormatError(f"voxels of NIfTI data type {code} (complex, colour or unknown) cannot be read", where=where)
        dtype, gap = np.dtype(_DTYPES[code]).newbyteorder(header.dtype["datatype"].byteorder), _gap(header, where)
        check_there(geometry.size * dtype.itemsize, path.stat().st_size - (0 if zipped else gap), where, zipped=zipped)
        array = np.empty(geometry.shape, dtype)
        stream.seek(gap)
        fill(stream, array, where)  # file order: i fastest
    return ImageFile(Volume(_scaled(array.astype(array.dtype.newbyteorder("="), copy=False), header, where), geometry), notes)


def _header(stream: IO[bytes], where: str) -> np.void:
    """The header of a single-file NIfTI-1 or NIfTI-2, in the byte order it was written."""
    raw = stream.read(540)
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for fields, size, magic in ((_NIFTI1, 348, b"n+1"), (_NIFTI2, 540, b"n+2\0\r\n\x1a\n")):
        for order in orders:
            dtype = np.dtype(fields).newbyteorder(order)
            if len(raw) >= size and int.from_bytes(raw[:4], order) == size:
                header = np.frombuffer(raw[:size], dtype)[0]
                if bytes(header["magic"]) != magic:
                    raise FormatError("not a NIfTI of one file (magic 'n+1' or 'n+2')", where=where, hint="save it as one .nii or .nii.gz")
                return cast(np.void, header)
    raise FormatError("not a NIfTI file, or cut short within its header", where=where)


def _shape(header: np.void, where: str) -> tuple[int, ...]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise FormatError(f"a NIfTI has 1 to 7 axes, this says {axes}", where=where)
    shape = [int(n) for n in header["dim"][1 : axes + 1]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _mm_per_unit(header: np.void) -> tuple[float, tuple[str, ...]]:
    """How many mm the header's unit of length is, and a note where it is another than mm."""
    unit = int(header["xyzt_units"]) & 7
    if unit in _UNITS:
        name, scale = _UNITS[unit]
        return scale, (f"lengths are told in {name} (xyzt_units {unit}) and were turned into mm",)
    return 1.0, () if unit in (0, 2) else (f"lengths are told in no known unit (xyzt_units {unit}) and taken as mm",)


def _affine_ras(header: np.void, shape: tuple[int, ...], scale: float, where: str) -> Floats:
    """4x4 from (i, j, k, 1) to RAS+ in the header's unit (``scale`` mm): sform where it is set, else qform (nifti1.h, methods 3, 2).

    *Differs:* bare voxel sizes (method 1) are refused. What they mean is read in opposite ways: nifti1.h has i run to the patient's right,
    ITK and nibabel to the left. So is whatever the header says twice and not the same: an sform beside another qform or beside other voxel
    sizes. ITK goes by the one, nibabel by the other, and masks made in one of them would lie elsewhere here.
    """
    sform, qform = (_code(header, name, where) for name in ("sform_code", "qform_code"))
    by_qform = _qform(header, where) if qform else None
    if sform:
        affine = np.vstack([np.asarray(header["srow"], dtype=np.float64), [0, 0, 0, 1]])
        if not np.isfinite(affine).all():
            raise FormatError(f"the sform is not finite: {affine[:3].tolist()}", where=where, hint=_FORMS)
        _check_sizes(affine, header, shape, scale, where)
        if by_qform is not None:
            _check_agree(affine, by_qform, header, shape, scale, where)
        return affine
    if by_qform is None:
        raise FormatError("neither sform nor qform is set: which side is the patient's left cannot be told", where=where, hint=ORIENT)
    return by_qform


def _code(header: np.void, name: str, where: str) -> int:
    code = int(header[name])
    if code not in _CODES_OF_FORMS:
        what = f"{name} is {code}, not one of 0 to {_CODES_OF_FORMS[-1]}: whether it is set cannot be told"
        raise FormatError(what, where=where, hint=ORIENT)
    return code


def _qform(header: np.void, where: str) -> Floats:
    """4x4 by quaternion. *Differs:* voxel sizes that are not positive are refused (some programs mirror by them, some take 1 mm instead),
    so are a quaternion longer than 1 (ITK shortens it, nibabel refuses it) and a qfac below 0 other than -1 (ITK mirrors, nibabel not)."""
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not sizes.min() > 0:
        raise FormatError(f"voxel sizes must be positive, not {sizes.tolist()} mm", where=where, hint=ORIENT)
    quaternion, qfac = np.asarray(header["quatern"], dtype=np.float64), float(header["pixdim"][0])
    length = float(np.linalg.norm(quaternion))
    if not length <= 1 + _ROUNDED_QUATERNION:
        what = f"the qform's quaternion {quaternion.tolist()} is no rotation: its length is {length:.7g}"
        raise FormatError(what, where=where, hint=_FORMS)
    if np.isnan(qfac) or (qfac < 0 and qfac != -1):
        raise FormatError(f"the qform's qfac (pixdim[0]) is {qfac:g}, not 1 or -1: a mirror cannot be told", where=where, hint=_FORMS)
    affine = np.eye(4)
    affine[:3, :3] = _rotation(quaternion / max(length, 1.0)) * [1.0, 1.0, -1.0 if qfac < 0 else 1.0] * sizes
    affine[:3, 3] = header["qoffset"]
    if not np.isfinite(affine).all():
        raise FormatError(f"the qform's offset is not finite: {affine[:3, 3].tolist()}", where=where, hint=_FORMS)
    return affine


def _check_sizes(sform: Floats, header: np.void, shape: tuple[int, ...], scale: float, where: str) -> None:
    """Raise FormatError where voxels as large as pixdim says would make the image longer or shorter than the sform does."""
    steps, sizes = np.linalg.norm(sform[:3, :3], axis=0), np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.abs(steps - sizes) * shape * scale).max() <= rounding_mm(float(np.abs(steps).min()) * scale):
        what = f"voxels are {_shown(steps)} by the sform and {_shown(sizes)} by pixdim (i, j, k): which is true cannot be told"
        raise FormatError(what, where=where, hint=ORIENT)


def _check_agree(sform: Floats, qform: Floats, header: np.void, shape: tuple[int, ...], scale: float, where: str) -> None:
    """Raise FormatError where the two put a voxel to different places, but for what the rounding of the quaternion leaves open.

    Its first part is sqrt(1 - b^2 - c^2 - d^2): near a half turn the last digits of b, c and d turn the image by up to 0.08 degrees about
    voxel (0, 0, 0), whose own place no quaternion tells: there the two agree but for rounding.
    """
    within = rounding_mm(float(np.linalg.norm(sform[:3, :3], axis=0).min()) * scale)
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    turned = (sform - qform)[:3, :3] @ ends * scale
    moved = (sform - qform)[:3, 3:] * scale
    if np.linalg.norm(moved) <= within and np.linalg.norm(turned, axis=0).max() <= within + _turn_mm(sform, header, shape) * scale:
        return
    apart = np.linalg.norm(turned + moved, axis=0)
    unit = [one[:3, :3] / np.linalg.norm(one[:3, :3], axis=0) for one in (sform, qform)]
    cosines = (unit[0] * unit[1]).sum(axis=0)
    axis = int(cosines.argmin())
    if cosines[axis] < 0.5:
        ways = [[round(float(v), 3) for v in one[:, axis]] for one in unit]
        what = f"have {'ijk'[axis]} run two ways, {ways[0]} and {ways[1]} (right, anterior, superior): which side is the patient's left"
    else:
        what = f"put the same voxel to places up to {apart.max():.3g} mm apart: which is true"
    raise FormatError(f"sform and qform {what} cannot be told", where=where, hint=_FORMS)


def _turn_mm(sform: Floats, header: np.void, shape: tuple[int, ...]) -> float:
    """How far, in the header's unit, the rounding of the quaternion may move the voxel that lies farthest from voxel (0, 0, 0)."""
    quaternion = np.asarray(header["quatern"])
    a2 = max(0.0, 1.0 - float(np.square(quaternion, dtype=np.float64).sum()))
    lost = np.sqrt(a2 + 4 * float(np.finfo(quaternion.dtype).eps)) - np.sqrt(a2)
    return float(2 * lost * np.linalg.norm(sform[:3, :3] @ (np.array(shape) - 1)))


def _shown(sizes: Floats) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)


def _rotation(quaternion: Floats) -> Floats:
    b, c, d = quaternion
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )


def _gap(header: np.void, where: str) -> int:
    """Bytes between what ``_header`` read (540) and the first voxel; negative for a plain NIfTI-1, whose voxels begin at 352."""
    offset = float(header["vox_offset"])
    least = 352 if int(header["sizeof_hdr"]) == 348 else 544
    if not least <= offset <= 2**24:
        raise FormatError(f"voxels cannot begin at byte {offset:g} (header and extensions end at {least} or later)", where=where)
    return int(offset)


def _scaled(array: Array, header: np.void, where: str) -> Array:
    """Voxels after scl_slope and scl_inter: whole numbers stay whole, anything else is float32."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope) or slope == 0:  # not scaled (nifti1.h), but ITK adds the intercept all the same
        if np.isfinite(inter) and inter != 0:
            what = f"scl_slope is {slope:g} (not scaled) and scl_inter {inter:g}: whether that is added cannot be told"
            raise FormatError(what, where=where, hint="save the image again with its values as they are meant")
        return array
    if slope == 1 and inter == 0:
        return array
    if not (np.isfinite(slope) and np.isfinite(inter)):
        raise FormatError(f"scaling by {slope} and {inter} is not finite", where=where)
    if np.issubdtype(array.dtype, np.integer) and slope.is_integer() and inter.is_integer():
        ends = [int(end) * int(slope) + int(inter) for end in (array.min(), array.max())]
        for dtype in (np.int16, np.int32):
            if min(ends) >= np.iinfo(dtype).min and max(ends) <= np.iinfo(dtype).max:
                return (array.astype(np.float64) * slope + inter).astype(dtype)
    with np.errstate(over="ignore"):
        return (array * slope + inter).astype(np.float32)


def _write_nifti(array: Array, geometry: Geometry, path: Path, *, compress: bool) -> None:
    affine = _LPS @ geometry.affine @ _XYZ_TO_KJI
    header = np.zeros((), np.dtype(_NIFTI1).newbyteorder("<"))
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["dim"] = [3, *geometry.shape[::-1], 1, 1, 1, 1]
    header["datatype"], header["bitpix"] = _CODES[array.dtype.newbyteorder("=")], array.dtype.itemsize * 8
    header["scl_slope"], header["xyzt_units"] = 1, 2
    header["sform_code"], header["srow"] = 1, affine[:3]
    header["pixdim"][1:4] = geometry.spacing_mm[::-1]
    header["pixdim"][0], header["quatern"] = _quaternion(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    header["qform_code"], header["qoffset"] = 1, affine[:3, 3]
    content = header.tobytes() + b"\0\0\0\0"
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    with path.open("wb") as raw:
        if not compress:
            raw.write(content)
            raw.write(voxels.data)
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as stream:
            stream.write(content)
            stream.write(voxels.data)


def _quaternion(rotation: Floats) -> tuple[float, Floats]:
    """(qfac, (b, c, d)) of a rotation with or without a mirrored third axis (nifti1.h, method 2)."""
    from scipy.spatial.transform import Rotation

    qfac = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    x, y, z, w = Rotation.from_matrix(rotation * [1.0, 1.0, qfac]).as_quat()
    return qfac, np.array([x, y, z]) * (1.0 if w >= 0 else -1.0)
