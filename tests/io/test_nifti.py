"""NIfTI, NRRD and MetaImage: every axis against ITK's own reading and pencil cases, and files that must not pass."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, InputError, LimitError, OncontourError
from oncontour.io.image.nifti import _NIFTI1, _NIFTI2, SUFFIXES, is_image, read_image, read_image_file, write_image

LPS = ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def oblique(mirrored: bool = False) -> Geometry:
    axes = Rotation.from_euler("xyz", [20, 30, 50], degrees=True).as_matrix()
    axes[0] *= -1 if mirrored else 1
    return Geometry.regular((5, 6, 7), (3.0, 1.5, 0.9), (10.0, -20.0, 33.0), axes)


def header(fields: Any = _NIFTI1, order: str = "<", **values: Any) -> bytes:
    """A NIfTI header by hand: 2 x 3 x 4 (i, j, k) int16 voxels of 1 mm, changed by ``values``."""
    one = np.zeros((), np.dtype(fields).newbyteorder(order))
    first = fields is _NIFTI1
    one["sizeof_hdr"], one["magic"] = (348, b"n+1") if first else (540, b"n+2\0\r\n\x1a\n")
    one["dim"], one["datatype"], one["bitpix"] = [3, 2, 3, 4, 1, 1, 1, 1], 4, 16
    one["pixdim"], one["vox_offset"], one["scl_slope"] = [1, 1, 1, 1, 0, 0, 0, 0], 352 if first else 544, 1
    one["qform_code"] = 1
    for name, value in values.items():
        one[name] = value
    return one.tobytes() + b"\0\0\0\0"


VOXELS = np.arange(24, dtype="<i2").reshape(4, 3, 2)


def put(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8", "?"])
def test_what_was_written_is_read_back_by_us_and_by_itk(tmp_path: Path, suffix: str, mirrored: bool, dtype: str) -> None:
    grid = oblique(mirrored)
    volume = Volume((np.random.default_rng(1).random(grid.shape) * 200).astype(dtype), grid)
    path = write_image(volume, tmp_path / f"x{suffix}")
    back = read_image(path)
    assert np.array_equal(back.array, volume.array)
    assert back.array.dtype == (np.uint8 if dtype == "?" else np.dtype(dtype))
    assert back.geometry.same_grid(grid, 1e-5)
    itk = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(itk), volume.array)
    assert np.allclose(itk.TransformIndexToPhysicalPoint((6, 0, 4)), grid.points((4, 0, 6)), atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.booleans(), st.tuples(*[st.floats(0.2, 9)] * 3), st.tuples(*[st.floats(-999, 999)] * 3))
def test_any_grid_survives(tmp_path_factory: pytest.TempPathFactory, angles: Any, mirrored: bool, spacing: Any, origin: Any) -> None:
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * ([[-1.0], [1.0], [1.0]] if mirrored else 1.0)
    grid = Geometry.regular((3, 4, 5), spacing, origin, axes)
    folder = tmp_path_factory.mktemp("grids")
    for suffix in (".nii", ".nrrd", ".mha"):
        path = write_image(Volume(np.zeros(grid.shape, np.uint8), grid), folder / f"x{suffix}")
        assert read_image(path).geometry.same_grid(grid, 1e-3)


def test_real_patients_lie_where_itk_puts_them(data: Path) -> None:
    path = data / "openkbp/validation/pt_238/ct.nii.gz"
    volume, itk = read_image(path), sitk.ReadImage(str(path))
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(itk))
    assert volume.array.dtype == np.int16
    assert volume.geometry.origin_mm == itk.GetOrigin()
    assert volume.geometry.spacing_mm == itk.GetSpacing()[::-1]
    assert np.array_equal(volume.geometry.axes, LPS)


def test_ras_becomes_lps_by_pencil(tmp_path: Path) -> None:
    """sform diag(2, 3, 4), offset (10, 20, 30) in RAS+: voxel (i, j, k) = (1, 2, 3) is at R 12, A 26, S 42, in LPS (-12, -26, 42)."""
    srow = [[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30]]
    path = put(tmp_path / "a.nii", header(sform_code=1, qform_code=0, pixdim=[1, 2, 3, 4, 0, 0, 0, 0], srow=srow), VOXELS.tobytes())
    volume = read_image(path)
    assert volume.geometry.points((3, 2, 1)).tolist() == [-12, -26, 42]
    assert volume.array[3, 2, 1] == VOXELS[3, 2, 1]


def test_qform_with_a_mirrored_third_axis(tmp_path: Path) -> None:
    """No rotation, qfac -1 (nifti1.h method 2): k runs to inferior."""
    values = {"qform_code": 1, "pixdim": [-1, 1, 1, 2, 0, 0, 0, 0], "qoffset": [5, 6, 7]}
    volume = read_image(put(tmp_path / "a.nii", header(**values), VOXELS.tobytes()))
    assert volume.geometry.points((1, 0, 0)).tolist() == [-5, -6, 5]


@pytest.mark.parametrize(
    ("unit", "step", "note"),
    [
        (1, 0.002, ("lengths are told in metres (xyzt_units 1) and were turned into mm",)),
        (3, 2000, ("lengths are told in micrometres (xyzt_units 3) and were turned into mm",)),
        (2, 2, ()),
        (0, 2, ()),
        (5, 2, ("lengths are told in no known unit (xyzt_units 5) and taken as mm",)),
    ],
)
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_units_count_as_itk_has_them_and_are_told(tmp_path: Path, unit: int, step: float, note: tuple[str, ...], form: str) -> None:
    values = {"sform_code": 1, "qform_code": 0, "srow": np.c_[np.diag([step] * 3), [0, 0, 5 * step]]}
    values = values if form == "sform" else {"qform_code": 1, "qoffset": [0, 0, 5 * step]}
    path = put(tmp_path / "a.nii", header(**values, pixdim=[1, step, step, step, 0, 0, 0, 0], xyzt_units=unit), VOXELS.tobytes())
    found, itk = read_image_file(path), sitk.ReadImage(str(path))
    assert np.allclose(found.volume.geometry.spacing_mm, (2, 2, 2))
    assert np.allclose(found.volume.geometry.origin_mm, (0, 0, 10))
    assert np.allclose(itk.GetOrigin(), (0, 0, 10))
    assert found.notes == note


DIAGONAL = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
HALF = float(np.sqrt(0.5))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sform_code": 1, "srow": [[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0]]}, "are 2 x 3 x 2 by the sform and 1 x 1 x 1 by pixdim"),
        ({"sform_code": 1, "qform_code": 0, "srow": np.multiply(DIAGONAL, 1.02)}, "1.02 x 1.02 x 1.02 by the sform"),
        ({"sform_code": 1, "qform_code": 0, "srow": DIAGONAL, "pixdim": [1, 0, 0, 0, 0, 0, 0, 0]}, "0 x 0 x 0 by pixdim"),
        ({"sform_code": 1, "qform_code": 0, "srow": DIAGONAL, "pixdim": [1, -1, 1, 1, 0, 0, 0, 0]}, "-1 x 1 x 1 by pixdim"),
        ({"sform_code": 1, "qform_code": 0, "srow": DIAGONAL, "pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0]}, "nan x 1 x 1 by pixdim"),
        ({"sform_code": 1, "srow": [[1, 0, 0, 50], *DIAGONAL[1:]]}, "put the same voxel to places up to 50 mm apart"),
        ({"sform_code": 2, "srow": [[1, 0, 0, 0.06], *DIAGONAL[1:]]}, "up to 0.06 mm apart"),
        ({"sform_code": 2, "srow": [[HALF, -HALF, 0, 0], [HALF, HALF, 0, 0], DIAGONAL[2]]}, "up to 1.71 mm apart"),
        ({"quatern": [1, 1, 1]}, "is no rotation: its length is 1.732051"),
        ({"quatern": [0, 0, 1.0001]}, "its length is 1.0001"),
        ({"quatern": [np.nan, 0, 0]}, "is no rotation"),
        ({"quatern": [1, 1, 1], "sform_code": 1, "srow": DIAGONAL}, "is no rotation"),
        ({"pixdim": [-2, 1, 1, 1, 0, 0, 0, 0]}, "qfac .* is -2, not 1 or -1"),
        ({"pixdim": [np.nan, 1, 1, 1, 0, 0, 0, 0]}, "qfac"),
        ({"qoffset": [np.nan, 0, 0]}, "the qform's offset is not finite"),
        ({"sform_code": 99, "srow": DIAGONAL}, "sform_code is 99, not one of 0 to 5"),
        ({"sform_code": -1, "srow": DIAGONAL}, "sform_code is -1"),
        ({"qform_code": 6}, "qform_code is 6"),
        ({"scl_slope": 0, "scl_inter": 9}, "scl_slope is 0 .* and scl_inter 9"),
        ({"scl_slope": np.nan, "scl_inter": 9}, "scl_slope is nan"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "not finite"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    """By pencil: 1 x 2 mm, the image's diagonal, turned by 45 degrees moves sqrt 5 x 2 sin 22.5 degrees = 1.71 mm."""
    with pytest.raises(FormatError, match=says):
        read_image(put(tmp_path / "a.nii", header(**values), VOXELS.tobytes()))


@pytest.mark.parametrize("order", "<>")
def test_forms_that_differ_by_the_rounding_of_a_quaternion_are_one(tmp_path: Path, order: str) -> None:
    """Near half a turn float32 loses the quaternion's first part: 3.4e-4 becomes 0 here, which turns the image by 0.04 degrees.

    Half a metre away that is 0.35 mm; the header says as much as it can, and the sform, which is exact, counts.
    """
    b, c, d = 0.6, 0.0, np.sqrt(1 - 0.36 - 3.4e-4**2)
    sform = Rotation.from_quat([b, c, d, 3.4e-4]).as_matrix()
    values = {"dim": [3, 300, 400, 1, 1, 1, 1, 1], "sform_code": 1, "srow": np.c_[sform, [1, 2, 3]], "quatern": [b, c, d]}
    path = put(tmp_path / "a.nii", header(order=order, qoffset=[1, 2, 3], **values), bytes(2 * 300 * 400))
    grid = read_image(path).geometry
    assert np.allclose(grid.axes[2] * [-1, -1, 1], sform[:, 0], atol=1e-6)
    with pytest.raises(FormatError, match="apart"):
        read_image(put(tmp_path / "b.nii", header(order=order, qoffset=[2, 2, 3], **values), bytes(2 * 300 * 400)))


@pytest.mark.parametrize(("aside", "reads"), [(0.0, True), (0.04, True), (0.06, False), (0.4, False)])
def test_the_rounding_of_a_quaternion_moves_no_image(tmp_path: Path, aside: float, reads: bool) -> None:
    """An image along LPS is half a turn in NIfTI's RAS+, where the quaternion tells a turn to 0.08 degrees and the offset all the same:
    0.05 mm count as rounding, at voxel (0, 0, 0) as anywhere else."""
    values = {
        "dim": [3, 300, 400, 1, 1, 1, 1, 1],
        "sform_code": 1,
        "srow": np.c_[np.diag([-1, -1, 1]), [150, 200, 0]],
        "quatern": [0, 0, 1],
    }
    path = put(tmp_path / "a.nii", header(qoffset=[150 - aside, 200, 0], **values), bytes(2 * 300 * 400))
    if reads:
        assert np.allclose(read_image(path).geometry.origin_mm, (-150, -200, 0))
        return
    with pytest.raises(FormatError, match=f"sform and qform put the same voxel to places up to {aside:g} mm apart"):
        read_image(path)


@pytest.mark.parametrize(
    "values", [{"pixdim": [0, 1, 1, 1, 0, 0, 0, 0]}, {"pixdim": [2, 1, 1, 1, 0, 0, 0, 0]}, {"quatern": [0, 0, 1.0000001]}]
)
def test_what_itk_and_nibabel_read_alike_is_read_so(tmp_path: Path, values: dict[str, Any]) -> None:
    """qfac 0 and 2 count as 1, and a quaternion that is a rounding too long is shortened: nibabel 5.4 and ITK 5.4 agree."""
    path = put(tmp_path / "a.nii", header(**values), VOXELS.tobytes())
    itk = sitk.ReadImage(str(path))
    assert np.allclose(read_image(path).geometry.points((3, 2, 1)), itk.TransformIndexToPhysicalPoint((1, 2, 3)), atol=1e-5)
    assert itk.TransformIndexToPhysicalPoint((0, 0, 1))[2] == 1  # not mirrored


@pytest.mark.parametrize(
    ("srow", "axis"), [([[-1, 0, 0, 10], [0, 1, 0, 20], [0, 0, 1, 30]], "i"), ([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], "i")]
)
def test_two_answers_to_which_side_is_left_are_refused(tmp_path: Path, srow: Any, axis: str) -> None:
    """qform: i to the right. sform: i to the left, or another axis altogether."""
    for code in (2, 0):
        path = put(tmp_path / "a.nii", header(sform_code=1, qform_code=code, srow=srow), VOXELS.tobytes())
        if code:
            with pytest.raises(FormatError, match=f"sform and qform have {axis} run two ways"):
                read_image(path)
        else:
            assert np.array_equal(read_image(path).array, VOXELS)


@pytest.mark.parametrize("fields", [_NIFTI1, _NIFTI2], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("order", "<>")
def test_both_versions_in_both_byte_orders(tmp_path: Path, fields: Any, order: str) -> None:
    path = put(tmp_path / "a.nii", header(fields, order), VOXELS.astype(f"{order}i2").tobytes())
    volume = read_image(path)
    assert np.array_equal(volume.array, VOXELS)
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (3000, 0, np.int32), (0.5, 1, np.float32), (0, 0, np.int16)]
)
def test_scaling(tmp_path: Path, slope: float, inter: float, dtype: Any) -> None:
    volume = read_image(put(tmp_path / "a.nii", header(scl_slope=slope, scl_inter=inter), VOXELS.tobytes()))
    expected = VOXELS * float(slope) + inter if slope else VOXELS
    assert np.array_equal(volume.array, expected)
    assert volume.array.dtype == dtype


@pytest.mark.parametrize(
    ("values", "kind", "word"),
    [
        ({"dim": [4, 2, 3, 2, 2, 1, 1, 1]}, FormatError, "three axes"),
        ({"dim": [3, 2, -3, 4, 1, 1, 1, 1]}, FormatError, "three axes"),
        ({"dim": [9, 2, 3, 4, 1, 1, 1, 1]}, FormatError, "axes"),
        ({"datatype": 32}, FormatError, "complex"),
        ({"datatype": 128}, FormatError, "colour"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, LimitError, "at most"),
        ({"vox_offset": 12}, FormatError, "begin"),
        ({"vox_offset": np.nan}, FormatError, "begin"),
        ({"scl_slope": np.inf}, FormatError, "finite"),
        ({"sform_code": 1}, FormatError, "0 x 0 x 0 by the sform"),
        ({"sform_code": 1, "srow": np.full((3, 4), np.nan)}, FormatError, "finite"),
        ({"sform_code": 1, "qform_code": 0, "srow": [[1, 0.6, 0, 0], [0, 0.8, 0, 0], [0, 0, 1, 0]]}, GeometryError, r"angles.*a\.nii"),
        ({"magic": b"ni1"}, FormatError, "one file"),
        ({"qform_code": 0}, FormatError, "left cannot be told"),
        ({"pixdim": [1, -1, 1, 1, 0, 0, 0, 0]}, FormatError, "sizes must be positive"),
        ({"pixdim": [1, 1, 0, 1, 0, 0, 0, 0]}, FormatError, "sizes must be positive"),
    ],
)
def test_headers_that_must_not_pass(tmp_path: Path, values: dict[str, Any], kind: type[OncontourError], word: str) -> None:
    for name, packed in (("a.nii", False), ("a.nii.gz", True)):
        content = header(**values) + VOXELS.tobytes()
        with pytest.raises(kind, match=word):
            read_image(put(tmp_path / name, gzip.compress(content) if packed else content))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_not_finite_voxels_are_named(tmp_path: Path, value: float, suffix: str) -> None:
    array = np.zeros((4, 3, 2), np.float32)
    array[1, 2, 0] = value
    path = write_image(Volume(array, Geometry.regular((4, 3, 2))), tmp_path / f"a{suffix}")
    with pytest.raises(FormatError, match=r"\(1, 2, 0\)"):
        read_image(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    volume = Volume(np.random.default_rng(0).integers(0, 999, (5, 6, 7)).astype(np.int16), oblique())
    content = write_image(volume, tmp_path / f"x{suffix}").read_bytes()
    for size in (0, 1, 99, len(content) // 2, len(content) - 9):
        with pytest.raises(OncontourError):
            read_image(put(tmp_path / f"cut{suffix}", content[:size]))


def test_a_damaged_checksum_is_noticed(tmp_path: Path) -> None:
    path = write_image(Volume(np.ones((5, 6, 7), np.int16), oblique()), tmp_path / "x.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    with pytest.raises(FormatError):
        read_image(put(path, bytes(content)))


def test_a_zip_bomb_stops_at_the_size_of_its_header(tmp_path: Path) -> None:
    path = put(tmp_path / "bomb.nii.gz", gzip.compress(header() + VOXELS.tobytes() + bytes(50_000_000)))
    assert np.array_equal(read_image(path).array, VOXELS)
    with pytest.raises(LimitError):
        read_image(path, max_voxels=23)


def test_names_and_absent_files(tmp_path: Path) -> None:
    assert is_image("A.NII.GZ")
    assert not is_image("a.dcm")
    with pytest.raises(InputError, match="no such"):
        read_image(tmp_path / "none.nii")
    with pytest.raises(FormatError, match="name should end"):
        read_image(put(tmp_path / "a.txt", b"x"))
    with pytest.raises(FormatError):
        read_image(put(tmp_path / "a.nii", b"%PDF-1.4" + bytes(1000)))


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_image(Volume(np.ones((4, 3, 2)), Geometry.regular((4, 3, 2))), tmp_path / "a.nii.gz")
    before = path.read_bytes()
    with pytest.raises(InputError, match="complex"):
        write_image(Volume(np.ones((4, 3, 2), complex), Geometry.regular((4, 3, 2))), path)
    with pytest.raises(InputError, match="name"):
        write_image(Volume(np.ones((4, 3, 2)), Geometry.regular((4, 3, 2))), tmp_path / "a.jpg")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
