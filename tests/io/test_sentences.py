"""What is said of images that are not read: in words and with values, never as bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from oncontour.errors import FormatError, SeriesError
from oncontour.io.dicom.series import read_series
from tests.dicom_cases import make_series, save
from tests.io.test_series_enhanced import enhanced

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT = "1.2.840.10008.1.2"

Tell = Callable[[Dataset, int], None]


def in_colour(dataset: Dataset, n: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(dataset.Rows * dataset.Columns * 3)
    dataset["PixelData"].VR = "OB"


def capture(dataset: Dataset, n: int) -> None:
    in_colour(dataset, n)
    dataset.SOPClassUID = SECONDARY_CAPTURE


def test_pictures_in_colour_are_called_so(tmp_path: Path) -> None:
    make_series(tmp_path / "captures", modality="MR", change=capture)
    with pytest.raises(SeriesError) as told:
        read_series(tmp_path / "captures")
    assert told.value.what == "no CT or MR images here, only 11 files of Secondary Capture Image (Modality MR, in colour)"
    assert "have no place in the patient" in (told.value.hint or "")
    make_series(tmp_path / "fused", modality="MR", change=in_colour)
    with pytest.raises(
        SeriesError, match=r"no image of the series is a slice \(left out 11 colour image\(s\).*Way out: give the folder of the"
    ):
        read_series(tmp_path / "fused")


def public(dataset: Dataset, b: int) -> None:
    dataset.DiffusionBValue = float(b)


def siemens(dataset: Dataset, b: int) -> None:
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", str(b))


def general_electric(dataset: Dataset, b: int) -> None:
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [str(b + 1_000_000_000), "8", "0", "0"])


def philips(dataset: Dataset, b: int) -> None:
    dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", float(b))


def unknown_bytes(dataset: Dataset, b: int) -> None:
    """As an archive that does not know the attribute passes it on."""
    dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "UN", f"{b} ".encode()[: len(f"{b} ") // 2 * 2])


def two_images_a_place(folder: Path, tell: Tell, values: tuple[int, int], syntax: str | None = None) -> None:
    common: dict[str, str] = {}
    for value in values:

        def change(dataset: Dataset, n: int, value: int = value) -> None:
            dataset.PatientName = f"name-{value}"
            tell(dataset, value)

        image = lambda points, value=value: np.full(points.shape[:-1], 100.0 + value)  # noqa: E731
        made = make_series(
            folder, modality="MR", offsets=[0, 2, 4], prefix=f"v{value}-", image=image, intercept=0, change=change, syntax=syntax, **common
        )
        common = {"series_uid": made.series_uid, "study_uid": made.study_uid, "frame_of_reference_uid": made.frame_of_reference_uid}


@pytest.mark.parametrize("syntax", [None, IMPLICIT])
@pytest.mark.parametrize("tell", [public, siemens, general_electric, philips, unknown_bytes])
@pytest.mark.parametrize("values", [(0, 800), (1000, 50)])
def test_b_values_are_told_in_words(tmp_path: Path, tell: Tell, values: tuple[int, int], syntax: str | None) -> None:
    two_images_a_place(tmp_path, tell, values, syntax)
    with pytest.raises(SeriesError, match="two different images in one place") as told:
        read_series(tmp_path)
    said = told.value.what.split(": ", 1)[1]
    assert said in (f"DiffusionBValue {a} and {b} s/mm2" for a, b in (values, values[::-1]))
    assert told.value.what.isascii()


def _either_way(says: str) -> tuple[str, str]:
    before, values, after = re.split(r"[{}]", says)
    one, other = values.split(" and ")
    return f"{before}{one} and {other}{after}", f"{before}{other} and {one}{after}"


@pytest.mark.parametrize(
    ("tell", "says"),
    [
        (lambda d, v: setattr(d, "EchoTime", str(v / 10)), "EchoTime {0.5 and 80} ms"),
        (lambda d, v: setattr(d, "FlipAngle", str(v)), "FlipAngle {5 and 800} degrees"),
        (lambda d, v: setattr(d, "AcquisitionTime", f"1010{v % 60:02d}.250000"), "AcquisitionTime {101005.250000 and 101020.250000}"),
        (lambda d, v: setattr(d, "ImageComments", f"reconstruction {v}"), "ImageComments {reconstruction 5 and reconstruction 800}"),
        (lambda d, v: None, ""),
    ],
)
def test_whatever_else_differs_is_told_and_never_whose_it_is(tmp_path: Path, tell: Tell, says: str) -> None:
    two_images_a_place(tmp_path, tell, (5, 800))
    with pytest.raises(SeriesError) as told:
        read_series(tmp_path)
    said = told.value.what.partition("): ")[2]
    assert said in (_either_way(says) if says else ("",))
    assert "name-" not in str(told.value)


def test_frames_are_told_apart_by_their_own_groups(tmp_path: Path) -> None:
    enhanced(tmp_path, [0.0, 2.0, 4.0, 2.0])
    dataset = dcmread(tmp_path / "enhanced.dcm")
    for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        diffusion = Dataset()
        diffusion.DiffusionBValue = 600.0 if n == 3 else 0.0
        frame.MRDiffusionSequence = [diffusion]
    pixels = bytearray(dataset.PixelData)
    pixels[-2:] = b"\x07\x00"
    dataset.PixelData = bytes(pixels)
    save(dataset, tmp_path / "enhanced.dcm")
    with pytest.raises(SeriesError, match=r"\(frames 2, 4, .*\): DiffusionBValue 0 and 600 s/mm2"):
        read_series(tmp_path)


def test_no_control_character_of_a_file_reaches_the_screen(tmp_path: Path) -> None:
    make_series(tmp_path / "type", change=lambda d, n: d.add_new("RescaleType", "LO", "\x1b[2J ED"))
    with pytest.raises(SeriesError, match=r"RescaleType is \?\[2J ED: a CT in other units than HU"):
        read_series(tmp_path / "type")
    make_series(tmp_path / "number")
    for path in (tmp_path / "number").iterdir():
        slope = b"\x28\x00\x53\x10DS\x04\x00"
        path.write_bytes(path.read_bytes().replace(slope + b"1.0 ", slope + b"\x1b\xff\x1b\xff"))
    with pytest.raises(FormatError, match="RescaleSlope is not a number: 4 bytes that are no text"):
        read_series(tmp_path / "number")
