"""DICOM-SEG: there and back on real images, read against highdicom, refused where it is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, InputError, OncontourError, StructureError
from oncontour.io import read
from oncontour.io.dicom.rtstruct import read_rtstruct, slices_of, write_rtstruct
from oncontour.io.dicom.seg import read_seg, write_seg
from oncontour.io.dicom.seg_write import _CODES
from oncontour.io.dicom.series import read_series
from oncontour.io.dicom.source import DicomSource
from oncontour.io.onto import read_onto
from oncontour.raster import fill
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


def test_the_side_of_a_name_is_told_in_codes(tmp_path: Path) -> None:
    """SNOMED CT: 7771000 left, 24028007 right (DICOM PS3.16, CID 244)."""
    image, source = series(tmp_path / "ct")
    codes = {"Parotid_L": "7771000", "Parotid_R": "24028007", "Lens_L_PRV": "7771000", "Larynx": None, "VB_L": None}
    path = write_seg(
        {name: Volume(np.ones(image.geometry.shape, bool), image.geometry) for name in codes}, tmp_path / "s.dcm", source=source
    )
    for segment in pydicom.dcmread(path).SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        told = kind.get("SegmentedPropertyTypeModifierCodeSequence")
        assert (told[0].CodeValue if told else None) == codes[segment.SegmentLabel]


def test_every_organ_with_a_code_can_be_written(tmp_path: Path) -> None:
    """SNOMED CT: 69748006 thyroid, 10200004 liver, 228793007 planning target volume (DICOM PS3.16, CID 7166 and 9580)."""
    image, source = series(tmp_path / "ct")
    mask = Volume(np.ones(image.geometry.shape, bool), image.geometry)
    path = write_seg(dict.fromkeys((*_CODES, "GTV", "CTV", "PTV_7000"), mask), tmp_path / "s.dcm", source=source)
    told = {str(one.SegmentLabel): one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in pydicom.dcmread(path).SegmentSequence}
    assert (told["Glnd_Thyroid"], told["Liver"], told["PTV_7000"]) == ("69748006", "10200004", "228793007")
    assert len(set(told.values())) == len(told)


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
        (_set("SegmentationType", "LABELMAP"), FormatError, "BitsAllocated of a label map is 1"),
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


# ---- how far a frame reaches


def change(path: Path, function: Callable[[pydicom.Dataset], object]) -> Path:
    dataset = pydicom.dcmread(path)
    function(dataset)
    dataset.save_as(path)
    return path


def measures(dataset: pydicom.Dataset) -> pydicom.Dataset:
    return dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


def without_spacing(thickness: float | None) -> Callable[[pydicom.Dataset], None]:
    """A file that does not say how far its slices lie apart, and where the slices are thought as thick as given."""

    def edit(dataset: pydicom.Dataset) -> None:
        pm = measures(dataset)
        del pm.SpacingBetweenSlices
        if thickness is None:
            del pm.SliceThickness
        else:
            pm.SliceThickness = thickness

    return edit


def block(grid: Geometry, *slices: int) -> Volume:
    """8 x 8 pixels on these slices."""
    array = np.zeros(grid.shape, bool)
    array[list(slices), 4:12, 4:12] = True
    return Volume(array, grid)


@pytest.fixture(scope="module")
def every_3_mm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, DicomSource]:
    folder = tmp_path_factory.mktemp("ct")
    make_series(folder, rows=16, columns=16, spacing_mm=(2.0, 2.0), offsets=tuple(np.arange(0.0, 30.0, 3.0)))
    volume, source, _ = read_series(folder)
    return volume, source


@pytest.mark.parametrize("thickness", [1.0, 1.5, 0.6, 3.0, 2.0, 6.0, None])
@pytest.mark.parametrize("on_images", [True, False])
def test_slices_thinner_than_they_lie_apart(
    every_3_mm: tuple[Volume, DicomSource], tmp_path: Path, thickness: float | None, on_images: bool
) -> None:
    """Six slices of 64 pixels of 2 x 2 mm every 3 mm: 6 * 64 * 12 mm3, however thick the slices are said to be."""
    image, source = every_3_mm
    mask = block(image.geometry, *range(2, 8))
    path = change(write_seg({"Liver": mask}, tmp_path / "s.dcm", source=source), without_spacing(thickness))
    found = read_seg(path, geometry=image.geometry if on_images else None)
    assert found.masks["Liver"].volume_cc == pytest.approx(4.608)
    assert np.array_equal(found.masks["Liver"].to(image.geometry).array, mask.array)
    assert found.notes == ()


@pytest.mark.parametrize("slices", [(4,), (2, 5), (1, 3, 8), (2, 3, 8)])
@pytest.mark.parametrize("thickness", [1.0, 3.0, None])
def test_lone_frames_stand_for_their_images(
    every_3_mm: tuple[Volume, DicomSource], tmp_path: Path, thickness: float | None, slices: tuple[int, ...]
) -> None:
    """One slice each, neither lost nor joined to the next."""
    image, source = every_3_mm
    mask = block(image.geometry, *slices)
    path = change(write_seg({"GTV": mask}, tmp_path / "s.dcm", source=source), without_spacing(thickness))
    assert np.array_equal(read_seg(path, geometry=image.geometry).masks["GTV"].array, mask.array)


def test_a_single_frame_without_images_is_as_thick_as_it_says(every_3_mm: tuple[Volume, DicomSource], tmp_path: Path) -> None:
    image, source = every_3_mm
    path = change(write_seg({"GTV": block(image.geometry, 4)}, tmp_path / "s.dcm", source=source), without_spacing(1.5))
    assert read_seg(path).masks["GTV"].volume_cc == pytest.approx(64 * 4 * 1.5 / 1000)


def test_frames_far_apart_without_images_are_as_thick_as_they_say(every_3_mm: tuple[Volume, DicomSource], tmp_path: Path) -> None:
    """12 mm apart they are two lesions, not one of 24 mm."""
    image, source = every_3_mm
    path = change(write_seg({"GTV": block(image.geometry, 2, 6)}, tmp_path / "s.dcm", source=source), without_spacing(3.0))
    assert read_seg(path).masks["GTV"].volume_cc == pytest.approx(2 * 64 * 12 / 1000)


@pytest.mark.parametrize("slices", [(2, 3), (2, 3, 4), (2, 3, 6, 7)])
def test_frames_coarser_than_the_images_are_as_thick_as_they_lie_apart(
    every_3_mm: tuple[Volume, DicomSource], tmp_path: Path, slices: tuple[int, ...]
) -> None:
    """Frames every 3 mm, 3 mm thick, on images every 1 mm: as without images."""
    image, source = every_3_mm
    mask = block(image.geometry, *slices)
    path = change(write_seg({"Liver": mask}, tmp_path / "s.dcm", source=source), without_spacing(3.0))
    fine = image.geometry.resample((1.0, 2.0, 2.0))
    found = read_seg(path, geometry=fine)
    assert found.masks["Liver"].volume_cc == pytest.approx(mask.volume_cc)
    assert any("one slice in 3" in note for note in found.notes)


def test_frames_on_every_second_image_throughout_bridge_those_between(every_3_mm: tuple[Volume, DicomSource], tmp_path: Path) -> None:
    """As contours do: each stands for 6 mm."""
    image, source = every_3_mm
    path = change(write_seg({"Liver": block(image.geometry, 1, 3, 5, 7)}, tmp_path / "s.dcm", source=source), without_spacing(1.0))
    found = read_seg(path, geometry=image.geometry)
    assert found.masks["Liver"].array.any(axis=(1, 2)).nonzero()[0].tolist() == [*range(0, 9)]
    assert any("one slice in 2" in note for note in found.notes)


@pytest.mark.parametrize("slices", [(10, 20, 30), (10, 13, 16, 19), (10, 20, 30, 31)])
def test_islands_as_thick_as_the_images_stay_islands(tmp_path: Path, slices: tuple[int, ...]) -> None:
    """64 pixels of 2 x 2 mm on slices of 1 mm that are said to be 1 mm thick: 0.256 cc each, and nothing where there is no frame."""
    make_series(tmp_path / "ct", rows=16, columns=16, spacing_mm=(2.0, 2.0), offsets=tuple(np.arange(0.0, 40.0)))
    image, source, _ = read_series(tmp_path / "ct")
    path = change(write_seg({"GTV": block(image.geometry, *slices)}, tmp_path / "s.dcm", source=source), without_spacing(1.0))
    found = read_seg(path, geometry=image.geometry, source=source)
    assert found.masks["GTV"].volume_cc == pytest.approx(0.256 * len(slices))
    assert found.masks["GTV"].array.any(axis=(1, 2)).nonzero()[0].tolist() == list(slices)
    assert any("empty between" in note for note in found.notes) == (31 not in slices)


@pytest.mark.parametrize("spacing", [1.0, None])
@pytest.mark.parametrize("slices", [(*range(3, 9), 19), (4,), (3, 4), (3, 13, 14)])
def test_frames_are_as_rough_as_images_may_be(tmp_path: Path, slices: tuple[int, ...], spacing: float | None) -> None:
    """Places 0.03 mm off, this way and that: images so are even, and so are the frames drawn on them."""
    offsets = [n + (0.0 if n in (0, 19) else 0.03 * (-1) ** n) for n in range(20)]
    make_series(tmp_path / "ct", rows=16, columns=16, spacing_mm=(2.0, 2.0), offsets=offsets)
    image, source, notes = read_series(tmp_path / "ct")
    assert (image.geometry.shape[0], notes) == (20, ())
    mask = block(image.geometry, *slices)

    def said(dataset: pydicom.Dataset) -> None:
        measures(dataset).SliceThickness = 1.0
        if spacing is not None:
            measures(dataset).SpacingBetweenSlices = spacing

    path = per_slice(tmp_path / "ct", {"Liver": mask.array}, tmp_path / "s.dcm", said)
    for given in (image.geometry, None):
        found = read_seg(path, geometry=given, source=source).masks["Liver"].to(image.geometry)
        assert np.array_equal(found.array, mask.array)


def test_frames_farther_apart_than_their_spacing_are_noted(every_3_mm: tuple[Volume, DicomSource], tmp_path: Path) -> None:
    image, source = every_3_mm
    path = write_seg({"Liver": block(image.geometry, *range(2, 8))}, tmp_path / "s.dcm", source=source)
    change(path, lambda d: setattr(measures(d), "SpacingBetweenSlices", 1.0))
    (note,) = read_seg(path).notes
    assert "3 mm" in note
    assert "1 mm" in note


UNEVEN = (0.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 24.0)


def per_slice(folder: Path, pixels: dict[str, np.ndarray], path: Path, change: Callable[[pydicom.Dataset], object] | None = None) -> Path:
    """A SEG of somebody else: one frame for each image (sorted by place) on which there is something."""
    datasets = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda d: int(d.InstanceNumber))
    code = hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    described = [hd.seg.SegmentDescription(n, name, code, code, "MANUAL") for n, name in enumerate(pixels, 1)]
    stacked = np.stack(list(pixels.values()), axis=-1).astype(np.uint8)
    made = hd.seg.Segmentation(datasets, stacked, "BINARY", described, hd.UID(), 1, hd.UID(), 1, "m", "n", "1", "2")
    if change is not None:
        change(made)
    made.save_as(path)
    return path


def area_mm2(polygon: np.ndarray) -> float:
    edges = np.cross(polygon, np.roll(polygon, -1, axis=0)).sum(axis=0) / 2
    return float(np.linalg.norm(edges))


@pytest.mark.parametrize("spacing", [None, 2.0])
@pytest.mark.parametrize("position", ["HFS", "FFP", "HFDR"])
def test_frames_on_uneven_slices_reach_half_way_to_the_next(tmp_path: Path, position: str, spacing: float | None) -> None:
    """10 x 10 pixels of 2 x 2 mm on the slices at 2, 4, 6, 8, 12, 16 and 20 mm: they stand for 1 to 22 mm, on the grid of 2 mm for its
    slices 1 to 11 (of the last one half); as contours of the same do, and written as contours of 400 mm2 on every slice."""
    make_series(tmp_path / "ct", offsets=UNEVEN, rows=20, columns=20, spacing_mm=(2.0, 2.0), patient_position=position)
    pixels = np.zeros((9, 20, 20), bool)
    pixels[1:8, 5:15, 3:13] = True

    def said(dataset: pydicom.Dataset) -> None:
        if spacing is not None:
            measures(dataset).SpacingBetweenSlices = spacing

    per_slice(tmp_path / "ct", {"Liver": pixels}, tmp_path / "ct" / "seg.dcm", said)
    case = read(tmp_path / "ct")
    mask = case.masks["Liver"]
    assert mask.array.any(axis=(1, 2)).tolist() == [False, *[True] * 11, False]
    assert mask.volume_cc == pytest.approx(8.8)
    assert any("half-way" in note for note in case.facts["notes"])
    written = write_rtstruct(case, tmp_path / "rs.dcm")
    contours = read_rtstruct(written, source=case.source)[0]["Liver"]
    assert [area_mm2(p) for p in contours] == pytest.approx([400] * 7, abs=0.01)
    slices = slices_of(case.source)
    corners = [c * 2 * slices.row + r * 2 * slices.column for r, c in ((4.5, 2.5), (4.5, 12.5), (14.5, 12.5), (14.5, 2.5))]
    squares = Contours(tuple(np.array([origin + corner for corner in corners]) for origin in slices.origins_mm[1:8]), None, slices)
    assert np.array_equal(fill(squares, case.geometry).array, mask.array)
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "ct" / "seg.dcm").rename(alone / "seg.dcm")
    assert np.array_equal(read_onto(alone, case).masks["Liver"].array, mask.array)
    assert np.array_equal(read_seg(alone / "seg.dcm", source=case.source).masks["Liver"].to(case.geometry).array, mask.array)


def test_each_segment_on_uneven_slices_is_its_own(tmp_path: Path) -> None:
    """A lone slice in the wide part, another where it begins, and a hole that is one."""
    make_series(tmp_path / "ct", offsets=UNEVEN, rows=20, columns=20, spacing_mm=(2.0, 2.0))
    image, source, _ = read_series(tmp_path / "ct")
    pixels = {name: np.zeros((9, 20, 20), bool) for name in ("Liver", "GTV", "Larynx", "Heart")}
    pixels["Liver"][1:8, 5:15, 3:13] = True
    pixels["GTV"][6, 2:4, 2:4] = True  # at 16 mm: 14 to 18
    pixels["Larynx"][4, 2:4, 2:4] = True  # at 8 mm: 7 to 10
    pixels["Heart"][[0, 1, 3, 4], 2:4, 2:4] = True
    found = read_seg(per_slice(tmp_path / "ct", pixels, tmp_path / "s.dcm"), geometry=image.geometry, source=source).masks
    there = {name: np.flatnonzero(mask.array.any(axis=(1, 2))).tolist() for name, mask in found.items()}
    assert there == {"Liver": [*range(1, 12)], "GTV": [7, 8, 9], "Larynx": [4, 5], "Heart": [0, 1, 3, 4, 5]}


@pytest.mark.parametrize("slices", [range(1, 12), range(1, 4), [8], [5, 6, 7]])
def test_our_own_on_uneven_slices_comes_back_as_it_was(tmp_path: Path, slices: Sequence[int]) -> None:
    """It has a frame for each slice of the grid, between the images too."""
    make_series(tmp_path / "ct", offsets=UNEVEN, rows=16, columns=16, spacing_mm=(2.0, 2.0))
    image, source, _ = read_series(tmp_path / "ct")
    mask = block(image.geometry, *slices)
    found = read_seg(write_seg({"Liver": mask}, tmp_path / "s.dcm", source=source), geometry=image.geometry, source=source)
    assert np.array_equal(found.masks["Liver"].array, mask.array)
    assert found.notes == ()


def test_even_images_change_nothing(every_3_mm: tuple[Volume, DicomSource], tmp_path: Path) -> None:
    image, source = every_3_mm
    mask = block(image.geometry, 2, 3, 4, 7)
    found = read_seg(write_seg({"Liver": mask}, tmp_path / "s.dcm", source=source), geometry=image.geometry, source=source)
    assert np.array_equal(found.masks["Liver"].array, mask.array)
    assert found.notes == ()


def test_segments_aside_by_rounding_are_the_images_voxels_and_others_are_told(tmp_path: Path) -> None:
    """0.04 mm along the rows: the same voxels. 0.75 mm, half a voxel, along the rows: interpolated, and never without a word."""
    image, source = series(tmp_path / "ct")
    masks = some_masks(image.geometry)

    def aside(mm: float) -> Callable[[pydicom.Dataset], None]:
        def moved(d: pydicom.Dataset) -> None:
            for frame in d.PerFrameFunctionalGroupsSequence:
                x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
                frame.PlanePositionSequence[0].ImagePositionPatient = [float(x) + mm, y, z]

        return moved

    path = change(write_seg(masks, tmp_path / "s.dcm", source=source), aside(0.04))
    found = read_seg(path, geometry=image.geometry, source=source)
    assert all(np.array_equal(found.masks[name].array, mask.array) for name, mask in masks.items())
    assert found.masks["Parotid_L"].geometry == image.geometry
    assert found.notes == ()
    found = read_seg(change(path, aside(0.71)), geometry=image.geometry, source=source)
    (note,) = found.notes
    assert note.startswith("segments lie on other voxels than the images (11x21x19 voxels")


# ---- label maps (SegmentationType LABELMAP)


def label_map(
    folder: Path, values: np.ndarray, path: Path, changed: Callable[[pydicom.Dataset], object] | None = None, *, empty_frames: bool = False
) -> Path:
    """``values`` (k, j, i) as highdicom writes them, over the series in ``folder``; each but 0 is a segment called as NAMES has it."""
    datasets = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    code = hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    numbers = [1, 7, 300 if values.max() > 255 else 200, 9]
    described = [hd.seg.SegmentDescription(n, name, code, code, "MANUAL") for n, name in sorted(zip(numbers, NAMES, strict=True))]
    uids = [hd.UID() for _ in range(2)]
    made = hd.seg.Segmentation(
        datasets, values, "LABELMAP", described, uids[0], 1, uids[1], 1, "m", "n", "1", "2", omit_empty_frames=not empty_frames
    )
    made.save_as(path)
    return change(path, changed) if changed else path


def some_labels(shape: tuple[int, ...], dtype: str, largest: int) -> np.ndarray:
    array = np.random.default_rng(4).choice(np.array([0, 0, 1, 7, largest], dtype), shape)
    array[0], array[4:6] = 0, 0
    return array


@pytest.mark.parametrize("position", ["HFS", "FFP", "HFDR"])
@pytest.mark.parametrize(("dtype", "largest"), [("u1", 200), ("u2", 300)])
def test_a_label_map_is_read_segment_by_segment(tmp_path: Path, position: str, dtype: str, largest: int) -> None:
    """Written by highdicom with frames of background left out; the fourth segment has no voxel: an empty mask."""
    image, source = series(tmp_path / "ct", position)
    values = some_labels(image.geometry.shape, dtype, largest)
    upright = Volume(values, image.geometry).to(image.geometry)
    in_order = sorted((pydicom.dcmread(p) for p in (tmp_path / "ct").iterdir()), key=lambda d: d.ImagePositionPatient[2])
    first = image.geometry.voxels(in_order[0].ImagePositionPatient)
    path = label_map(tmp_path / "ct", values if first[0] < 1 else values[::-1], tmp_path / "s.dcm")
    d = pydicom.dcmread(path)
    assert (d.SOPClassUID, d.BitsAllocated, d.NumberOfFrames) == ("1.2.840.10008.5.1.4.1.1.66.7", 8 * np.dtype(dtype).itemsize, 8)
    found = read_seg(path, geometry=image.geometry, source=source)
    assert set(found.masks) == set(NAMES)
    for number, name in zip((1, 7, largest, 9), NAMES, strict=True):
        assert np.array_equal(found.masks[name].array, upright.array == number), name
    assert not found.masks["Odd thing"].array.any()
    assert found.notes == ()


def test_a_label_map_beside_its_images_is_read_with_them(tmp_path: Path) -> None:
    image, _ = series(tmp_path / "p" / "ct")
    values = some_labels(image.geometry.shape, "u1", 200)
    label_map(tmp_path / "p/ct", values, tmp_path / "p/s.dcm")
    case = read(tmp_path / "p")
    assert np.array_equal(case.mask("SpinalCord").array, values == 7)
    assert np.array_equal(read_onto(tmp_path / "p/s.dcm", case).mask("SpinalCord").array, values == 7)
    label_map(tmp_path / "p/ct", values, tmp_path / "p/s.dcm", lambda d: setattr(d, "PatientID", "somebody else"))
    assert any("another PatientID" in note for note in read(tmp_path / "p").facts["notes"])
    label_map(tmp_path / "p/ct", values, tmp_path / "p/s.dcm", lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"))
    with pytest.raises(StructureError, match="frame of reference"):
        read_onto(tmp_path / "p/s.dcm", case)


def test_two_copies_of_a_label_map_are_one(tmp_path: Path) -> None:
    image, _ = series(tmp_path / "p" / "ct")
    values = some_labels(image.geometry.shape, "u1", 200)
    path = label_map(tmp_path / "p/ct", values, tmp_path / "p/s.dcm")
    change(path, lambda d: d.save_as(tmp_path / "p/again.dcm"))
    assert np.array_equal(read(tmp_path / "p").mask("Parotid_L").array, values == 1)
    d = pydicom.dcmread(path)
    pixels = bytearray(d.PixelData)
    pixels[100] = 7 if pixels[100] != 7 else 1
    d.PixelData = bytes(pixels)
    d.save_as(tmp_path / "p/again.dcm")
    with pytest.raises(StructureError, match="SOPInstanceUID"):
        read(tmp_path / "p")


def test_frames_of_background_alone_are_slices_too(tmp_path: Path) -> None:
    """Without SpacingBetweenSlices the frames tell the spacing; those without a label lie there as well, and nothing is bridged."""
    image, _ = series(tmp_path / "ct")
    values = np.zeros(image.geometry.shape, np.uint8)
    values[2:9:2, 4:8, 4:8] = 1

    def thick(d: pydicom.Dataset) -> None:
        del measures(d).SpacingBetweenSlices
        measures(d).SliceThickness = 4

    path = label_map(tmp_path / "ct", values, tmp_path / "s.dcm", thick, empty_frames=True)
    assert pydicom.dcmread(path).NumberOfFrames == len(values)
    assert np.array_equal(read_seg(path, geometry=image.geometry).masks["Parotid_L"].array, values == 1)


def _background_of(value: int | None) -> Callable[[pydicom.Dataset], None]:
    def changed(d: pydicom.Dataset) -> None:
        del d.PixelPaddingValue
        if value is not None:
            d.add_new("PixelPaddingValue", "US", value)

    return changed


def test_background_is_what_the_file_says(tmp_path: Path) -> None:
    image, _ = series(tmp_path / "ct")
    values = some_labels(image.geometry.shape, "u1", 200)
    path = label_map(tmp_path / "ct", values, tmp_path / "s.dcm", _background_of(7))
    masks = read_seg(path, geometry=image.geometry).masks
    assert set(masks) == {"Background", "Parotid_L", "PTV_7000", "Odd thing"}
    inside = values.any(axis=(1, 2))
    assert np.array_equal(masks["Background"].array[inside], (values == 0)[inside])

    def unnamed(d: pydicom.Dataset) -> None:
        _background_of(None)(d)
        d.SegmentSequence = [segment for segment in d.SegmentSequence if segment.SegmentNumber != 0]

    masks = read_seg(label_map(tmp_path / "ct", values, tmp_path / "s.dcm", unnamed), geometry=image.geometry).masks
    assert np.array_equal(masks["SpinalCord"].array, values == 7)


def _same_place(d: pydicom.Dataset) -> None:
    frames = d.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence


def _without_one(d: pydicom.Dataset) -> None:
    d.SegmentSequence = [segment for segment in d.SegmentSequence if segment.SegmentNumber != 7]


def _in_jpeg(d: pydicom.Dataset) -> None:
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.81"
    d.PixelData = pydicom.encaps.encapsulate([bytes(10)] * d.NumberOfFrames)
    d["PixelData"].VR = "OB"
    d["PixelData"].is_undefined_length = True


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (_same_place, StructureError, "two frames of a label map lie in one place"),
        (_without_one, StructureError, r"voxels of value 7 in frame 1, which is no segment of \[1, 9, 200\]"),
        (_in_jpeg, FormatError, "loses digits"),
        (lambda d: setattr(d, "BitsAllocated", 32), FormatError, "BitsAllocated of a label map is 32"),
        (lambda d: setattr(d, "SegmentationType", "ODD"), StructureError, "SegmentationType is ODD; BINARY, FRACTIONAL, LABELMAP are read"),
    ],
    ids=["one place", "no segment", "lossy", "bits", "type"],
)
def test_label_maps_that_make_no_sense(
    tmp_path: Path, change: Callable[[pydicom.Dataset], None], kind: type[OncontourError], word: str
) -> None:
    image, _ = series(tmp_path / "ct")
    path = label_map(tmp_path / "ct", some_labels(image.geometry.shape, "u1", 200), tmp_path / "s.dcm", change)
    with pytest.raises(kind, match=word):
        read_seg(path, geometry=image.geometry)


def test_segments_on_images_told_to_a_tenth_are_slices_of_theirs(tmp_path: Path) -> None:
    """1.25 mm apart, told as 0, 1.2, 2.5, 3.8, ...: even images, and no half of a frame goes to the next."""
    make_series(tmp_path / "p/ct", offsets=list(np.round(1.25 * np.arange(20), 1)), rows=16, columns=16)
    case = read(tmp_path / "p")
    mask = np.zeros(case.geometry.shape, bool)
    mask[[3, 4, 9], 4:8, 5:9] = True
    write_seg({"Tumor": Volume(mask, case.geometry)}, tmp_path / "p/seg.dcm", source=case.source)
    again = read(tmp_path / "p")
    assert np.array_equal(again.mask("Tumor").array, mask)
    assert again.facts["notes"] == ()
