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

from oncontour.errors import FormatError, GeometryError, InputError, LimitError, OncontourError
from oncontour.geometry import Geometry
from oncontour.io.nifti import _NIFTI1, _NIFTI2, SUFFIXES, is_image, read_image, write_image
from oncontour.volume import Volume

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
    path = put(tmp_path / "a.nii", header(sform_code=1, srow=srow), VOXELS.tobytes())
    volume = read_image(path)
    assert volume.geometry.points((3, 2, 1)).tolist() == [-12, -26, 42]
    assert volume.array[3, 2, 1] == VOXELS[3, 2, 1]


def test_qform_with_a_mirrored_third_axis(tmp_path: Path) -> None:
    """No rotation, qfac -1 (nifti1.h method 2): k runs to inferior."""
    values = {"qform_code": 1, "pixdim": [-1, 1, 1, 2, 0, 0, 0, 0], "qoffset": [5, 6, 7]}
    volume = read_image(put(tmp_path / "a.nii", header(**values), VOXELS.tobytes()))
    assert volume.geometry.points((1, 0, 0)).tolist() == [-5, -6, 5]


def test_sform_goes_before_qform_and_units_count(tmp_path: Path) -> None:
    srow = [[0.002, 0, 0, 0], [0, 0.002, 0, 0], [0, 0, 0.002, 0]]
    volume = read_image(put(tmp_path / "a.nii", header(sform_code=1, qform_code=1, srow=srow, xyzt_units=1), VOXELS.tobytes()))
    assert np.allclose(volume.geometry.spacing_mm, 2)


@pytest.mark.parametrize(
    ("srow", "axis"), [([[-2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30]], "i"), ([[0, 2, 0, 0], [0, 0, 2, 0], [2, 0, 0, 0]], "i")]
)
def test_two_answers_to_which_side_is_left_are_refused(tmp_path: Path, srow: Any, axis: str) -> None:
    """qform: i to the right. sform: i to the left, or another axis altogether. Turned by 30 degrees the sform still counts."""
    for code in (2, 0):
        path = put(tmp_path / "a.nii", header(sform_code=1, qform_code=code, srow=srow), VOXELS.tobytes())
        if code:
            with pytest.raises(FormatError, match=f"sform and qform have {axis} run two ways"):
                read_image(path)
        else:
            assert np.array_equal(read_image(path).array, VOXELS)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turned = header(sform_code=2, qform_code=1, srow=[[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0]])
    assert np.allclose(read_image(put(tmp_path / "a.nii", turned, VOXELS.tobytes())).geometry.axes[2], [-c, -s, 0])


@pytest.mark.parametrize("fields", [_NIFTI1, _NIFTI2], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("order", "<>")
def test_both_versions_in_both_byte_orders(tmp_path: Path, fields: Any, order: str) -> None:
    path = put(tmp_path / "a.nii", header(fields, order), VOXELS.astype(f"{order}i2").tobytes())
    volume = read_image(path)
    assert np.array_equal(volume.array, VOXELS)
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (3000, 0, np.int32), (0.5, 1, np.float32), (0, 9, np.int16)]
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
        ({"sform_code": 1}, GeometryError, "longer than nothing"),
        ({"sform_code": 1, "srow": np.full((3, 4), np.nan)}, GeometryError, "finite"),
        ({"sform_code": 1, "srow": [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}, GeometryError, "right angles"),
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
