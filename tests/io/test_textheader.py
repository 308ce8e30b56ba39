"""NRRD and MetaImage as others write them: the same voxels in the same places that SimpleITK finds, and a sentence where it would crash."""

from __future__ import annotations

import bz2
import gzip
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, LimitError, OncontourError
from oncontour.io.image.nifti import read_image, read_image_file, write_image
from tests.core.test_geometry import rotation

GRID = Geometry.regular((4, 5, 6), (3, 1.5, 0.7), (-10, 20, -300), np.eye(3)[::-1] @ rotation((0.2, -0.3, 0.1)))
DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
ARRAY = np.arange(120).reshape(4, 5, 6)
NRRD = """NRRD0004
# a comment
type: short
dimension: 3
space: left-posterior-superior
sizes: 6 5 4
space directions: (0.7,0,0) (0,1.5,0) (0,0,3)
space origin: (-10,20,-300)
kinds: domain domain domain
endian: little
encoding: raw
some key:=a value
"""
MHA = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -10 20 -300
ElementSpacing = 0.7 1.5 3
DimSize = 6 5 4
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
STRAIGHT = Geometry.regular((4, 5, 6), (3, 1.5, 0.7), (-10, 20, -300))


def by_itk(path: Path, dtype: str, compress: bool) -> None:
    image = sitk.GetImageFromArray(ARRAY.astype(dtype))
    image.SetSpacing(GRID.spacing_mm[::-1])
    image.SetOrigin(GRID.origin_mm)
    image.SetDirection(GRID.axes[::-1].T.ravel().tolist())
    sitk.WriteImage(image, str(path), compress)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("compress", [False, True])
def test_reads_what_simpleitk_writes(tmp_path: Path, suffix: str, compress: bool) -> None:
    for dtype in DTYPES:
        path = tmp_path / f"{dtype}.{suffix}"
        by_itk(path, dtype, compress)
        volume = read_image(path)
        assert volume.array.dtype == np.dtype(dtype)
        assert np.array_equal(volume.array, ARRAY)
        assert volume.geometry.same_grid(GRID, 1e-6)


@pytest.mark.parametrize(("suffix", "image_io"), [("nrrd", "NrrdImageIO"), ("mha", "MetaImageIO")])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_simpleitk_reads_what_we_write_and_so_do_we(tmp_path: Path, suffix: str, image_io: str, mirrored: bool, dtype: str) -> None:
    """On an oblique grid, mirrored too; the ends of the range of every data type come back as they were."""
    grid = Geometry.regular(GRID.shape, GRID.spacing_mm, GRID.origin_mm, GRID.axes * ([[-1.0], [1.0], [1.0]] if mirrored else 1.0))
    ends = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
    array = ARRAY.astype(dtype)
    array[0, 0, :2] = ends.min, ends.max
    path = write_image(Volume(array, grid), tmp_path / f"a.{suffix}")
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    image = reader.Execute()
    assert sitk.GetArrayFromImage(image).dtype == np.dtype(dtype)
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    for k, j, i in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (3, 4, 5)):
        at = image.TransformContinuousIndexToPhysicalPoint((float(i), float(j), float(k)))
        assert np.allclose(at, grid.points((k, j, i)), atol=1e-9)
    back = read_image(path)
    assert back.array.dtype == np.dtype(dtype)
    assert np.array_equal(back.array, array)
    exact = 0 if suffix == "nrrd" else 1e-12
    assert np.abs(back.geometry.affine - grid.affine).max() <= exact


def test_simpleitk_is_not_needed_to_write(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['SimpleITK'] = None\n"
        "import numpy as np\n"
        "from oncontour.core.geometry import Geometry\n"
        "from oncontour.io.image.nifti import read_image, write_image\n"
        "from oncontour.core.volume import Volume\n"
        "grid = Geometry.regular((2, 3, 4))\n"
        "for ending in ('nrrd', 'mha'):\n"
        "    print(int(read_image(write_image(Volume(np.full(grid.shape, 7), grid), sys.argv[1] + '/a.' + ending)).array.sum()))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (ended.stdout.split(), ended.stderr) == (["168", "168"], "")  # 24 voxels of 7


def nrrd(path: Path, header: str = NRRD, data: bytes | None = None) -> Volume:
    path.write_bytes(header.encode() + b"\n" + (ARRAY.astype("<i2").tobytes() if data is None else data))
    return read_image(path)


def mha(path: Path, header: str = MHA, data: bytes | None = None) -> Volume:
    path.write_bytes(header.encode() + (ARRAY.astype("<i2").tobytes() if data is None else data))
    return read_image(path)


def test_nrrd_encodings(tmp_path: Path) -> None:
    raw = ARRAY.astype("<i2").tobytes()
    text = " ".join(map(str, ARRAY.ravel())).encode()
    for name, data in (("gz", gzip.compress(raw)), ("bzip2", bz2.compress(raw)), ("ascii", text), ("raw", raw)):
        got = nrrd(tmp_path / "a.nrrd", NRRD.replace("encoding: raw", f"encoding: {name}"), data)
        assert np.array_equal(got.array, ARRAY)
        assert got.array.dtype == np.int16
    big = nrrd(tmp_path / "a.nrrd", NRRD.replace("little", "big"), ARRAY.astype(">i2").tobytes())
    assert np.array_equal(big.array, ARRAY)
    assert big.array.dtype.isnative
    for skip, data in (("byte skip: 3", b"abc" + raw), ("line skip: 2", b"a\nbc\n" + raw), ("byte skip: -1", b"anything" + raw)):
        assert np.array_equal(nrrd(tmp_path / "a.nrrd", NRRD + skip + "\n", data).array, ARRAY)
    assert np.array_equal(nrrd(tmp_path / "a.nrrd", NRRD.replace("\n", "\r\n") + "\r", raw).array, ARRAY)


def test_nrrd_spaces_and_units(tmp_path: Path) -> None:
    """The same voxels, said in RAS and in LAS: x and y, or y alone, change sign against LPS."""
    for name, x, y in (("LPS", 1, 1), ("right-anterior-superior", -1, -1), ("LAS", 1, -1)):
        header = NRRD.replace("left-posterior-superior", name).replace("(0.7,", f"({0.7 * x},").replace("(0,1.5,", f"(0,{1.5 * y},")
        got = nrrd(tmp_path / "a.nrrd", header.replace("(-10,20,", f"({-10 * x},{20 * y},"))
        assert got.geometry.same_grid(STRAIGHT, 1e-9), name
    assert nrrd(tmp_path / "a.nrrd", NRRD + "spacings: nan nan nan\nkinds: domain domain domain\n").geometry.same_grid(STRAIGHT, 1e-9)
    in_cm = NRRD.replace("(0.7,0,0) (0,1.5,0) (0,0,3)", "(0.07,0,0) (0,0.15,0) (0,0,0.3)").replace("(-10,20,-300)", "(-1,2,-30)")
    assert nrrd(tmp_path / "a.nrrd", in_cm + 'space units: "cm" "cm" "cm"\n').geometry.same_grid(STRAIGHT, 1e-9)
    assert read_image_file(tmp_path / "a.nrrd").notes == ("lengths are told in cm (space units) and were turned into mm",)


@pytest.mark.parametrize("gone", ["space", "space:", "space directions:"])
def test_an_nrrd_that_does_not_tell_left_from_right_is_refused(tmp_path: Path, gone: str) -> None:
    lines = [line for line in NRRD.splitlines() if not line.startswith(gone)]
    with pytest.raises(FormatError, match="left cannot be told"):
        nrrd(tmp_path / "a.nrrd", "\n".join([*lines, "spacings: 0.7 1.5 3"]) + "\n")


@pytest.mark.parametrize("gone", ["TransformMatrix", "ElementSpacing"])
def test_a_metaimage_without_its_axes_or_sizes_is_refused(tmp_path: Path, gone: str) -> None:
    """MetaIO's own default, 1 mm along x, y, z, would be made up."""
    lines = [line for line in MHA.splitlines() if not line.startswith(gone)]
    with pytest.raises(FormatError, match=f"{gone} is missing"):
        mha(tmp_path / "a.mha", "\n".join(lines) + "\n")


def test_metaimage_variants(tmp_path: Path) -> None:
    raw = ARRAY.astype("<i2").tobytes()
    assert mha(tmp_path / "a.mha").geometry.same_grid(STRAIGHT, 1e-9)
    for packed in (zlib.compress(raw), gzip.compress(raw)):
        for size in (f"CompressedDataSize = {len(packed)}\n", ""):
            header = MHA.replace("CompressedData = False\n", "CompressedData = True\n" + size)
            assert np.array_equal(mha(tmp_path / "a.mha", header, packed).array, ARRAY)
    big = mha(tmp_path / "a.mha", MHA.replace("MSB = False", "MSB = True"), ARRAY.astype(">i2").tobytes())
    assert np.array_equal(big.array, ARRAY)
    text = mha(tmp_path / "a.mha", MHA.replace("BinaryData = True", "BinaryData = False"), " ".join(map(str, ARRAY.ravel())).encode())
    assert np.array_equal(text.array, ARRAY)
    for letters, said in (("RAI", False), ("LPS", False), ("LPI", True)):  # i from right to left, j from anterior to posterior, k upwards
        mha(tmp_path / "a.mha", MHA.replace("NDims = 3", f"NDims = 3\nAnatomicalOrientation = {letters}"))
        notes = read_image_file(tmp_path / "a.mha").notes
        assert notes == (("AnatomicalOrientation is LPI, TransformMatrix says RAI: TransformMatrix counts, as in ITK",) if said else ())
    turned = MHA.replace("1 0 0 0 1 0 0 0 1", "0 1 0 -1 0 0 0 0 1")  # i runs along +y, j along -x
    assert np.allclose(mha(tmp_path / "a.mha", turned).geometry.axes, [(0, 0, 1), (-1, 0, 0), (0, 1, 0)])


@pytest.mark.parametrize(
    "line",
    [
        "ElementSize = 0.70 1.50 3.0",
        "ElementSize = 0.7 1.5 2.5",
        "Position = -10.0 20.0 -3e2",
        "Rotation = 1 -0 0 0 1 0 0 0 1.0",
        "Offset = -10.00 20 -300.",
        "Comment = one\nComment = another",
        "Name = one\nName = another",
    ],
)
def test_one_number_spelled_two_ways_is_no_contradiction(tmp_path: Path, line: str) -> None:
    """Slices of 2.5 mm that lie 3 mm apart are 3 mm apart, as ITK reads them too."""
    found = mha(tmp_path / "a.mha", MHA.replace("NDims = 3", f"NDims = 3\n{line}"))
    assert found.geometry.same_grid(STRAIGHT, 1e-9)
    assert np.allclose(sitk.ReadImage(str(tmp_path / "a.mha")).GetSpacing(), (0.7, 1.5, 3))


def test_size_counts_as_spacing_where_none_is_told(tmp_path: Path) -> None:
    assert mha(tmp_path / "a.mha", MHA.replace("ElementSpacing", "ElementSize")).geometry.same_grid(STRAIGHT, 1e-9)


def test_a_field_of_an_nrrd_may_come_twice_where_it_says_the_same(tmp_path: Path) -> None:
    twice = NRRD.replace("encoding: raw", "content: a\ncontent: b\nspace origin: (-10.0, 20.0, -3e2)\nencoding: raw")
    assert nrrd(tmp_path / "a.nrrd", twice).geometry.same_grid(STRAIGHT, 1e-9)


def test_no_letters_are_made_up_for_axes_turned_far(tmp_path: Path) -> None:
    """j and k both lie nearest to z here: three letters would name one axis of the patient twice."""
    axes = Rotation.from_euler("zyx", (30, 30, 30), degrees=True).as_matrix()
    assert len(set(np.abs(axes.T).argmax(axis=1))) == 2
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
    image.SetDirection(axes.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    found = read_image_file(tmp_path / "a.mha")
    assert b"AnatomicalOrientation" in (tmp_path / "a.mha").read_bytes()
    assert found.notes == ()
    assert np.allclose(found.volume.geometry.axes[::-1], axes.T)


@pytest.mark.parametrize(
    ("old", "new", "kind", "says"),
    [
        ("sizes: 6 5 4", "sizes: 6 5 40", FormatError, "cut short: voxels take 2400 bytes, 240 are there"),
        ("sizes: 6 5 4", "sizes: 6 5", FormatError, "needs three axes"),
        ("sizes: 6 5 4", "sizes: 6 5 -4", FormatError, "sizes must be whole numbers"),
        ("sizes: 6 5 4", "sizes: 60000 50000 40000", LimitError, "at most"),
        ("type: short", "type: block", FormatError, "type 'block' cannot be read"),
        ("encoding: raw", "encoding: hex", FormatError, "encoding 'hex' cannot be read"),
        ("encoding: raw", "encoding: gzip", FormatError, "damaged"),
        ("encoding: raw", "data file: /dev/zero", FormatError, "voxels in the same file"),
        ("endian: little\n", "", FormatError, "endian must be little or big"),
        ("left-posterior-superior", "scanner-xyz", FormatError, "space 'scanner-xyz' is not one of"),
        ("(0.7,0,0)", "none", FormatError, "space directions must be 3 times"),
        ("(0.7,0,0)", "(0.7,0)", FormatError, "must be 9 finite numbers"),
        ("(0.7,0,0)", "(nan,0,0)", FormatError, "must be 9 finite numbers"),
        ("(0.7,0,0)", "(0,0,0)", GeometryError, "longer than nothing"),
        ("NRRD0004", "NRRD0009", FormatError, "not an NRRD"),
        ("encoding: raw", "encoding: raw\nspacings: 3 3 3", FormatError, "spacings stands beside space and space directions"),
        ("encoding: raw", "encoding: raw\naxis mins: 0 0 0", FormatError, "axis mins stands beside"),
        ("encoding: raw", "encoding: raw\nspace dimension: 3", FormatError, "space dimension stands beside"),
        ("encoding: raw", "encoding: raw\nspace origin: (7,7,7)", FormatError, r"space origin is there twice, as '\(-10,20,-300\)'"),
        ("dimension: 3", "dimension: 2", FormatError, "dimension is 2, and there are 3 sizes"),
        ("kinds: domain domain domain", "kinds: vector domain domain", FormatError, "kinds vector domain domain"),
        ("encoding: raw", "encoding: raw\nbyte skip: -2", FormatError, "byte skip must be"),
        ("encoding: raw", "encoding: raw\n" + "#" * 1_100_000, FormatError, "does not end within"),
    ],
)
def test_nrrd_refusals(tmp_path: Path, old: str, new: str, kind: type[OncontourError], says: str) -> None:
    with pytest.raises(kind, match=says):
        nrrd(tmp_path / "a.nrrd", NRRD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "kind", "says"),
    [
        ("DimSize = 6 5 4", "DimSize = 10 -1e30 6", FormatError, "DimSize must be whole numbers"),
        ("DimSize = 6 5 4", "DimSize = 6 5 40", FormatError, "cut short"),
        ("DimSize = 6 5 4\n", "", FormatError, "DimSize must be whole numbers"),
        ("DimSize = 6 5 4", "DimSize = 60000 50000 40000", LimitError, "at most"),
        ("MET_SHORT", "MET_SHORT_ARRAY", FormatError, "cannot be read"),
        ("ElementDataFile = LOCAL", "ElementDataFile = /dev/zero", FormatError, "voxels in the same file"),
        ("NDims = 3", "NDims = 3\nElementNumberOfChannels = 3", FormatError, "several components"),
        ("NDims = 3", "NDims = 3\nHeaderSize = -1", FormatError, "HeaderSize"),
        ("CompressedData = False", "CompressedData = True", FormatError, "damaged"),
        ("CompressedData = False", "CompressedData = maybe", FormatError, "must be True or False"),
        ("CompressedData = False", "CompressedData = True\nCompressedDataSize = 99999", FormatError, "cut short"),
        ("0.7 1.5 3", "0.7 1.5", FormatError, "must be 3 finite numbers"),
        ("0.7 1.5 3", "0.7 1.5 inf", FormatError, "must be 3 finite numbers"),
        ("0.7 1.5 3", "-0.7 1.5 3", FormatError, "ElementSpacing must be positive"),
        ("1 0 0 0 1 0 0 0 1", "0.8 0.6 0 0 1 0 0 0 1", GeometryError, "right angles"),
        ("1 0 0 0 1 0 0 0 1", "2 0 0 0 2 0 0 0 2", FormatError, "rows of TransformMatrix are 2, 2, 2 long, not 1"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 0 0.99 0 0 0 1", FormatError, "are 1, 0.99, 1 long"),
        ("NDims = 3", "NDims = 2", FormatError, "NDims is 2, and DimSize has 3 sizes"),
        ("NDims = 3", "NDims = 3\nOrientation = 1 0 0 0 1 0 0 0 -1", FormatError, "TransformMatrix 1 .* 1 and Orientation 1 .* -1: which"),
        ("NDims = 3", "NDims = 3\nOrigin = 5 5 5", FormatError, "Offset -10 20 -300 and Origin 5 5 5"),
        ("NDims = 3", "NDims = 3\nRotation = -1 0 0 0 -1 0 0 0 1", FormatError, "which counts cannot be told"),
        ("NDims = 3", "NDims = 3\nOffset = 7 7 7", FormatError, "Offset is there twice, as '7 7 7' and '-10 20 -300'"),
        ("NDims = 3", "NDims = 3\nDistanceUnits = cm", FormatError, "DistanceUnits 'cm'"),
        ("NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 2", FormatError, "whether values are changed"),
        ("NDims = 3", "NDims = 3\nElementToIntensityFunctionOffset = -1024", FormatError, "whether values are changed"),
    ],
)
def test_metaimage_refusals(tmp_path: Path, old: str, new: str, kind: type[OncontourError], says: str) -> None:
    with pytest.raises(kind, match=says):
        mha(tmp_path / "a.mha", MHA.replace(old, new))


def test_a_zipped_image_cannot_promise_more_than_its_bytes_can_hold(tmp_path: Path) -> None:
    header = NRRD.replace("encoding: raw", "encoding: gzip").replace("sizes: 6 5 4", "sizes: 600 500 400")
    with pytest.raises(FormatError, match="cut short: voxels take 240000000 bytes"):
        nrrd(tmp_path / "a.nrrd", header, gzip.compress(bytes(1000)))
