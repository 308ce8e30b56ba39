"""DICOM-SEG: there and back on real images, read against highdicom, refused where it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from oncontour.errors import FormatError, InputError, OncontourError, StructureError
from oncontour.geometry import Geometry
from oncontour.io.seg import read_seg, write_seg
from oncontour.io.series import read_series
from oncontour.io.source import DicomSource
from oncontour.volume import Volume
from tests.dicom_cases import PATIENT_POSITIONS, make_series, save
from tests.io.test_series_enhanced import enhanced

NAMES = ("Parotid_L", "SpinalCord", "PTV_7000", "Odd thing")


def series(folder: Path, position: str = "HFS") -> tuple[Volume, DicomSource]:
    make_series(folder, patient_position=position, rows=21, columns=19, spacing_mm=(1.0, 1.5))
    volume, source, _ = read_series(folder)
    return volume, source


def some_masks(grid: Geometry) -> dict[str, Volume]:
    random = np.random.default_rng(3)
    masks = {name: Volume(random.random(grid.shape) < 0.3, grid) for name in NAMES}
    gap = masks["PTV_7000"].array.copy()
    gap[:2], gap[4:7] = False, False  # frames that are left out of the file
    return {**masks, "PTV_7000": Volume(gap, grid), "Larynx": Volume(np.zeros(grid.shape, bool), grid)}


@pytest.mark.parametrize("position", ["HFS", "FFP", "HFDR"])
def test_there_and_back(tmp_path: Path, position: str) -> None:
    assert position in PATIENT_POSITIONS
    image, source = series(tmp_path / "ct", position)
    masks = some_masks(image.geometry)
    found = read_seg(write_seg(masks, tmp_path / "s.dcm", source=source), geometry=image.geometry)
    assert list(found.masks) == list(masks)
    for name, mask in masks.items():
        assert np.array_equal(found.masks[name].array, mask.array), name
    assert found.unmapped == ("Odd thing",)
    assert found.frame_of_reference_uid == source.frame_of_reference_uid


def test_an_image_of_many_frames(tmp_path: Path) -> None:
    enhanced(tmp_path / "mr", [0.0, 2.0, 4.0, 6.0])
    image, source, _ = read_series(tmp_path / "mr")
    masks = some_masks(image.geometry)
    path = write_seg(masks, tmp_path / "s.dcm", source=source)
    found = read_seg(path, geometry=image.geometry)
    assert all(np.array_equal(found.masks[name].array, mask.array) for name, mask in masks.items())
    for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        referred = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert referred.ReferencedSOPInstanceUID == source.slices[0].sop_instance_uid
        assert frame.PlanePositionSequence[0].ImagePositionPatient == list(source.slices[referred.ReferencedFrameNumber - 1].position_mm)
    with pytest.raises(StructureError, match="multi-frame"):
        write_seg(masks, path, source=replace(source, slices=source.slices[1:]))


def test_highdicom_reads_the_same(tmp_path: Path) -> None:
    image, source = series(tmp_path / "ct")
    masks = some_masks(image.geometry)
    path = write_seg(masks, tmp_path / "s.dcm", source=source, algorithm="hn-organs 1")
    theirs = hd.seg.segread(path)
    for number, name in enumerate(masks, 1):
        assert theirs.get_segment_description(number).segment_label == name
        uids = [s.sop_instance_uid for s in source.slices]
        pixels = theirs.get_pixels_by_source_instance(uids, segment_numbers=[number], assert_missing_frames_are_empty=True)
        assert np.array_equal(pixels[..., 0] > 0, masks[name].array), name
    described = theirs.get_segment_description(1)
    assert described.segmented_property_type.meaning == "Parotid gland"
    assert str(described.algorithm_type.value) == "AUTOMATIC"


def test_a_file_of_highdicom_in_eight_bits(tmp_path: Path) -> None:
    """FRACTIONAL, half of its maximum and more is inside."""
    image, _ = series(tmp_path / "ct")
    datasets = [pydicom.dcmread(p) for p in sorted((tmp_path / "ct").iterdir())]
    code = hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    described = hd.seg.SegmentDescription(1, "Brainstem", code, code, "MANUAL")
    uids = [hd.UID() for _ in range(2)]
    probability = np.random.default_rng(0).random(image.geometry.shape).astype(np.float32)
    made = hd.seg.Segmentation(
        datasets, probability, "FRACTIONAL", [described], uids[0], 1, uids[1], 1, "m", "n", "1", "2", max_fractional_value=200
    )
    made.save_as(tmp_path / "s.dcm")
    found = read_seg(tmp_path / "s.dcm", geometry=image.geometry).masks["Brainstem"]
    sure = np.abs(probability - 0.5) > 0.005
    assert np.array_equal(found.array[sure], (probability >= 0.5)[sure])


def test_without_a_grid_the_segments_have_their_own(tmp_path: Path) -> None:
    image, source = series(tmp_path / "ct")
    array = np.zeros(image.geometry.shape, bool)
    array[3:5, 4:9, 5:7] = True
    found = read_seg(write_seg({"Larynx": Volume(array, image.geometry)}, tmp_path / "s.dcm", source=source)).masks["Larynx"]
    assert found.geometry.shape == (2, 21, 19)
    assert np.array_equal(found.to(image.geometry).array, array)


def test_what_is_written_is_valid(data: Path, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    for folder in ("dicom/STS_044/CT/image", "dicom/STS_044/MR_T1/image"):
        image, source, _ = read_series(data / folder)
        array = np.zeros(image.geometry.shape, bool)
        array[10:14, 20:40, 30:50] = True
        masks = {name: Volume(array, image.geometry) for name in (*NAMES, "GTV1", "Kidney_R")}
        path = write_seg(masks, tmp_path / "s.dcm", source=source)
        assert dciodvfy(path) == []
        assert all(np.array_equal(m.array, array) for m in read_seg(path, geometry=image.geometry).masks.values())


def test_single_bits_in_big_endian_are_refused(tmp_path: Path) -> None:
    """Read as they stand they may be another mask: bytes may or may not be swapped."""
    image, source = series(tmp_path / "ct")
    path = write_seg(some_masks(image.geometry), tmp_path / "s.dcm", source=source)
    dataset = pydicom.Dataset()
    dataset.update(pydicom.dcmread(path))
    save(dataset, path, "1.2.840.10008.1.2.2")
    with pytest.raises(FormatError, match="big endian"):
        read_seg(path)


def test_masks_that_cannot_be_written(tmp_path: Path) -> None:
    image, source = series(tmp_path / "ct")
    with pytest.raises(StructureError, match="no mask"):
        write_seg({}, tmp_path / "s.dcm", source=source)
    other = Volume(np.zeros((2, 2, 2), bool), Geometry.regular((2, 2, 2)))
    with pytest.raises(StructureError, match="another grid"):
        write_seg({**some_masks(image.geometry), "x": other}, tmp_path / "s.dcm", source=source)
    assert not (tmp_path / "s.dcm").exists()


def test_broken_files(tmp_path: Path) -> None:
    image, source = series(tmp_path / "ct")
    path = write_seg(some_masks(image.geometry), tmp_path / "s.dcm", source=source)
    content = path.read_bytes()
    for size in (200, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:size])
        with pytest.raises(OncontourError):
            read_seg(path)
    with pytest.raises(StructureError, match="not a DICOM Segmentation"):
        read_seg(next((tmp_path / "ct").iterdir()))
    with pytest.raises(InputError, match="no such"):
        read_seg(tmp_path / "none.dcm")


def _set(keyword: str, value: object) -> Callable[[pydicom.Dataset], None]:
    return lambda d: setattr(d, keyword, value)


def _aside(d: pydicom.Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient = [500, 0, 0]


def _twice(d: pydicom.Dataset) -> None:
    d.SegmentSequence[1].SegmentNumber = 1


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (_set("SegmentationType", "LABELMAP"), StructureError, "LABELMAP"),
        (_set("NumberOfFrames", 3), StructureError, "3 frames but"),
        (_set("NumberOfFrames", 10**9), OncontourError, "NumberOfFrames"),
        (_set("SegmentSequence", []), StructureError, "without segments"),
        (_set("BitsAllocated", 16), FormatError, "BitsAllocated"),
        (_aside, StructureError, "beside"),
        (_twice, StructureError, "twice"),
    ],
)
def test_content_that_makes_no_sense(tmp_path: Path, change: Callable[[pydicom.Dataset], None], kind: type[Exception], word: str) -> None:
    image, source = series(tmp_path / "ct")
    path = write_seg(some_masks(image.geometry), tmp_path / "s.dcm", source=source)
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    with pytest.raises(kind, match=word):
        read_seg(path)
