"""RTSTRUCT out and in again, in every position of the patient; what other tools make of it; and what damage does."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import dvh
from oncontour.errors import FormatError, InputError, LimitError, OncontourError, StructureError
from oncontour.io.dicom import decimals, elements, outlines, rtstruct_file, rtstruct_read
from oncontour.io.dicom.elements import Elements, element, item
from oncontour.io.dicom.rtstruct import read_rtstruct, read_structure_set, slices_of, write_rtstruct
from oncontour.io.dicom.series import read_series
from oncontour.phantom.shapes import Box, HollowSphere, Sphere, keyhole
from oncontour.raster import fill, rasterise, trace
from tests.dicom_cases import PATIENT_POSITIONS, make_series
from tests.raster.test_raster import dice, moved, volume_mm3

Floats = NDArray[np.float64]
EVEN = tuple(np.arange(-12.0, 13.0))
OFF_CENTRE = np.array([1.3, -0.4, 0.6])
ONE_THEN_THREE = (*np.arange(-14.0, 1.0), *np.arange(3.0, 16.0, 3.0))


def make_case(folder: Path, shapes: dict[str, object] | None = None, **series: object) -> Case:
    """A CT series on disk, read back, with masks of analytic solids."""
    make_series(folder, **{"image": lambda p: np.zeros(p.shape[:-1]), "rows": 36, "columns": 44, "offsets": EVEN, **series})  # type: ignore[arg-type]
    volume, source, _ = read_series(folder)
    shapes = {"GTV1": Sphere((1.3, -0.4, 0.6), 8)} if shapes is None else shapes
    return Case("phantom", {"ct": volume}, {name: shape.mask(volume.geometry) for name, shape in shapes.items()}, source=source)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    shapes = {"Parotid_L": Sphere((8, 0, 0), 6), "GTV1": HollowSphere((-5, 0, 1), 8, 4), "PTV_7000": Box((0, 0, 0), (30, 20, 15))}
    return make_case(tmp_path_factory.mktemp("case") / "ct", shapes)


@pytest.fixture(scope="module")
def written(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rtstruct(case, tmp_path_factory.mktemp("written") / "rtstruct.dcm", generation="model 1.0", description="for tests")


def edited(path: Path, change: Callable[[Dataset], object], out: Path) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(out)
    return out


# ---- there and back


VARIATIONS: dict[str, dict[str, object]] = {
    **{position: {"patient_position": position} for position in PATIENT_POSITIONS},
    "uneven": {"offsets": ONE_THEN_THREE},
    "uneven, feet first prone": {"offsets": ONE_THEN_THREE, "patient_position": "FFP"},
    "oblique": {"row": (0.8, 0.6, 0.0), "column": (-0.48, 0.64, 0.6)},
    "tilted": {"tilt_deg": 15.0},
    "tilted, uneven": {"tilt_deg": -12.0, "offsets": ONE_THEN_THREE},
    "pixels that are not square": {"spacing_mm": (1.3, 0.8), "rows": 30, "columns": 52},
    "far from the origin": {"centre_mm": (-731.25, 812.5, -1904.75)},
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    series = VARIATIONS[name]
    middle = np.array(series.get("centre_mm", (0.0, 0.0, 0.0)))
    case = make_case(tmp_path / "ct", {"GTV1": Sphere(tuple(middle + OFF_CENTRE), 8)}, **series)
    path = write_rtstruct(case, tmp_path / "rtstruct.dcm")
    found, notes = read_rtstruct(path, source=case.source)
    slices, mask = slices_of(case.source), case.masks["GTV1"]
    limit = 5e-3
    assert volume_near(found["GTV1"], slices) == pytest.approx(mask.volume_cc * 1000, rel=limit)
    again = fill(found["GTV1"], case.geometry)
    if "uneven" not in name:
        np.testing.assert_array_equal(again.array, mask.array)
    else:
        assert dice(again, mask) > 0.93  # steps of 3 mm against a grid of 1 mm
    assert_on_their_slices(path, case)
    assert notes == ()


def volume_near(contours: Contours, slices: object) -> float:
    """As ``volume_mm3``, with the plane of each contour taken as that of the slice it is nearest to."""
    moved = []
    for polygon in contours:
        offsets = polygon @ slices.normal  # type: ignore[attr-defined]
        at = slices.offsets_mm[np.abs(slices.offsets_mm - offsets.mean()).argmin()]  # type: ignore[attr-defined]
        moved.append(polygon + (at - offsets)[:, None] * slices.normal)  # type: ignore[attr-defined]
    return volume_mm3(Contours(tuple(moved)), slices)  # type: ignore[arg-type]


def assert_on_their_slices(path: Path, case: Case) -> None:
    """Every point of every contour lies in the plane of the image that the contour refers to."""
    place = {one.sop_instance_uid: np.array(one.position_mm) for one in case.source.slices}
    normal, upright = case.source.normal, np.abs(case.source.normal).max() > 1 - 1e-12
    for roi in pydicom.dcmread(path).ROIContourSequence:
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            image = place[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            assert np.abs((points - image) @ normal).max() <= (0 if upright else 2e-6)
            assert contour.NumberOfContourPoints == len(points) >= 3
            assert max(len(text) for text in str(contour["ContourData"].value).strip("[]").replace("'", "").split(", ")) <= 16


@pytest.mark.parametrize("name", VARIATIONS)
def test_contours_of_others_become_the_right_masks(name: str, tmp_path: Path) -> None:
    """Sections of a ball drawn analytically on each slice, in any position, are the ball's mask."""
    series = VARIATIONS[name]
    middle = np.array(series.get("centre_mm", (0.0, 0.0, 0.0))) + OFF_CENTRE
    case = make_case(tmp_path / "ct", {}, **series)
    contours = sections_of_ball(middle, 8.0, slices_of(case.source))
    path = write_rtstruct(Case("drawn", case.images, contours={"GTV1": contours}, source=case.source), tmp_path / "rtstruct.dcm")
    found, _ = read_rtstruct(path, source=case.source)
    truth = Sphere(tuple(middle), 8).mask(case.geometry)
    mask = fill(found["GTV1"], case.geometry)
    assert dice(mask, truth) >= (0.95 if "uneven" in name else 0.985)  # a ball of 8 voxels: what the planes' slabs are
    assert rasterise(found["GTV1"], case.geometry.pad((3, 0, 0), (3, 0, 0))).volume_cc * 1000 == pytest.approx(
        4 / 3 * np.pi * 512, rel=0.02 if "uneven" in name else 0.01
    )
    for at in slices_of(case.source).origins_mm:  # on the slices themselves, exact
        k = int(np.rint(case.geometry.voxels(at)[0]))
        here = case.geometry.crop((k, 0, 0), (k + 1, *case.geometry.shape[1:]))
        disc = disc_on_slice(here, middle, 8.0)
        assert np.abs(mask.array[k].astype(int) - disc).sum() <= 0.02 * disc.sum() + 4


def sections_of_ball(centre: Floats, radius: float, slices: object) -> Contours:
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    out = []
    for offset in slices.offsets_mm:  # type: ignore[attr-defined]
        away = offset - centre @ slices.normal  # type: ignore[attr-defined]
        if abs(away) < radius:
            r = np.sqrt(radius**2 - away**2)
            circle = np.cos(angle)[:, None] * slices.row + np.sin(angle)[:, None] * slices.column  # type: ignore[attr-defined]
            out.append(centre + away * slices.normal + r * circle)  # type: ignore[attr-defined]
    return Contours(tuple(out))


def disc_on_slice(grid: Geometry, centre: Floats, radius: float) -> NDArray[np.int64]:
    j, i = np.mgrid[: grid.shape[1], : grid.shape[2]]
    points = grid.points(np.stack([np.zeros_like(j), j, i], axis=-1))
    return (np.linalg.norm(points - centre, axis=-1) <= radius).astype(int)


def test_one_millimetre_then_three(tmp_path: Path) -> None:
    """1.3 of the survey of peers: they put these contours up to 49.5 mm off, silently."""
    offsets = (*np.arange(-40.0, 0.0), *np.arange(0.0, 60.0, 3.0))
    case = make_case(tmp_path / "ct", {"GTV1": Sphere((0, 0, 0), 16)}, offsets=offsets)
    path = write_rtstruct(case, tmp_path / "rtstruct.dcm")
    z = {float(c.ContourData[2]) for c in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence}
    assert z == {o for o in offsets if abs(o) < 16}


@pytest.mark.parametrize("rows_columns", [(440, 512), (512, 440)])
def test_matrices_that_are_not_square(rows_columns: tuple[int, int], tmp_path: Path) -> None:
    rows, columns = rows_columns
    shapes = {"GTV1": Sphere((120, -60, 0), 9)}
    case = make_case(tmp_path / "ct", shapes, rows=rows, columns=columns, offsets=tuple(np.arange(-10.0, 11.0)))
    found, _ = read_rtstruct(write_rtstruct(case, tmp_path / "rtstruct.dcm"), source=case.source)
    np.testing.assert_array_equal(fill(found["GTV1"], case.geometry).array, case.masks["GTV1"].array)


def test_what_the_file_says(case: Case, written: Path) -> None:
    d = pydicom.dcmread(written)
    assert d.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID
    assert (d.Modality, d.StructureSetLabel, d.ApprovalStatus, d.StructureSetDescription) == (
        "RTSTRUCT",
        "oncontour",
        "UNAPPROVED",
        "for tests",
    )
    assert (d.StudyInstanceUID, d.FrameOfReferenceUID) == (case.source.study_uid, case.source.frame_of_reference_uid)
    assert [r.ROIName for r in d.StructureSetROISequence] == ["Parotid_L", "GTV1", "PTV_7000"]
    assert {r.ROIGenerationAlgorithm for r in d.StructureSetROISequence} == {"AUTOMATIC"}
    assert {r.ROIGenerationDescription for r in d.StructureSetROISequence} == {"model 1.0"}
    assert [o.RTROIInterpretedType for o in d.RTROIObservationsSequence] == ["ORGAN", "GTV", "PTV"]
    assert len({tuple(r.ROIDisplayColor) for r in d.ROIContourSequence}) == 3
    series = d.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == case.source.series_uid
    assert len(series.ContourImageSequence) == len(case.source.slices)


def test_holes_as_xor_and_as_keyhole(case: Case, tmp_path: Path) -> None:
    for holes in ("xor", "keyhole"):
        path = write_rtstruct(case, tmp_path / f"{holes}.dcm", structures=["GTV1"], holes=holes)  # type: ignore[arg-type]
        found, notes = read_rtstruct(path, source=case.source)
        np.testing.assert_array_equal(fill(found["GTV1"], case.geometry).array, case.masks["GTV1"].array)
        assert notes == ()


def test_empty_is_not_absent(case: Case, tmp_path: Path) -> None:
    nothing = case.with_masks({"Larynx": Volume(np.zeros(case.geometry.shape, bool), case.geometry)})
    found, notes = read_rtstruct(write_rtstruct(nothing, tmp_path / "r.dcm", structures=["Larynx"]), source=case.source)
    assert list(found) == ["Larynx"]
    assert len(found["Larynx"]) == 0
    assert len(notes) == 1
    assert "empty" in notes[0]


def test_names_colours_and_long_contours(case: Case, tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    circle = np.stack([15 * np.cos(angle), 15 * np.sin(angle), np.zeros(6000)], axis=1)
    drawn = case.with_contours({"Heart": Contours((circle,), (1, 2, 3))})
    path = write_rtstruct(drawn, tmp_path / "r.dcm", structures=["Heart", "GTV1"], names={"Heart": "Herz"}, colours={"GTV1": (9, 8, 7)})
    d = pydicom.dcmread(path)
    assert [r.ROIName for r in d.StructureSetROISequence] == ["Herz", "GTV1"]
    assert [list(r.ROIDisplayColor) for r in d.ROIContourSequence] == [[1, 2, 3], [9, 8, 7]]
    found = read_structure_set(path, source=case.source)
    assert found.names == {"Heart": "Herz", "GTV1": "GTV1"}
    np.testing.assert_allclose(found.contours["Heart"].polygons[0], circle, atol=5.1e-4)


def test_a_name_that_dicom_would_take_for_two(case: Case, tmp_path: Path) -> None:
    """A backslash separates values (PS3.5 6.2): what other tools read would be ["Eye", "L"]."""
    path = write_rtstruct(case, tmp_path / "r.dcm", structures=["GTV1", "Parotid_L"], names={"GTV1": "Eye\\L", "Parotid_L": "\\"})
    assert [roi.ROIName for roi in pydicom.dcmread(path).StructureSetROISequence] == ["Eye L", "ROI 2"]


def test_a_case_without_dicom_cannot_be_written(tmp_path: Path) -> None:
    grid = Geometry.regular((4, 4, 4))
    case = Case("nifti", masks={"GTV1": Volume(np.ones(grid.shape, bool), grid)})
    with pytest.raises(StructureError, match="with oncontour convert"):
        write_rtstruct(case, tmp_path / "r.dcm")
    assert not list(tmp_path.iterdir())


def test_a_structure_that_is_not_there(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no structure 'Heart'"):
        write_rtstruct(case, tmp_path / "r.dcm", structures=["Heart"])


# ---- added to one that exists


SEQUENCES = (0x30060020, 0x30060039, 0x30060080)


def items_of(path: Path) -> list[list[bytes]]:
    file = rtstruct_file.open_rtstruct(path)
    return [[file.elements.data[one.start : one.end] for one in file.items(tag)] for tag in SEQUENCES]


def as_transfer_syntax(path: Path, out: Path, syntax: str, undefined: bool) -> Path:
    d = pydicom.dcmread(path)
    for roi in d.ROIContourSequence:
        roi["ContourSequence"].is_undefined_length = undefined
        for contour in roi.ContourSequence:
            contour.is_undefined_length_sequence_item = undefined
    d.file_meta.TransferSyntaxUID = syntax
    d.save_as(out, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return out


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, "1.2.840.10008.1.2.1.99"])
@pytest.mark.parametrize("undefined", [True, False])
def test_added_structures_leave_the_others_byte_for_byte(case: Case, written: Path, tmp_path: Path, syntax: str, undefined: bool) -> None:
    old = as_transfer_syntax(written, tmp_path / "old.dcm", syntax, undefined)
    new = write_rtstruct(case, tmp_path / "new.dcm", existing=old, structures=["Parotid_L", "GTV1"])
    for before, after in zip(items_of(old), items_of(new), strict=True):
        assert after[: len(before)] == before
        assert len(after) == len(before) + 2
    a, b = pydicom.dcmread(old), pydicom.dcmread(new)
    assert a.SOPClassUID == b.SOPClassUID
    assert a.SOPInstanceUID != b.SOPInstanceUID == b.file_meta.MediaStorageSOPInstanceUID
    assert [r.ROINumber for r in b.StructureSetROISequence] == [1, 2, 3, 4, 5]
    assert [r.ROIName for r in b.StructureSetROISequence][3:] == ["Parotid_L^2", "GTV1^2"]
    masks = {n: fill(c, case.geometry).array for n, c in read_rtstruct(new, source=case.source)[0].items()}
    np.testing.assert_array_equal(masks["Parotid_L"], masks["Parotid_L^2"])


def test_new_structures_do_not_take_the_number_of_contours_that_are_not_listed(case: Case, written: Path, tmp_path: Path) -> None:
    """Contours and observations may have numbers that StructureSetROISequence lacks: they must not become ours."""

    def orphan(d: Dataset) -> None:
        contour, observation = deepcopy(d.ROIContourSequence[0]), deepcopy(d.RTROIObservationsSequence[0])
        contour.ReferencedROINumber, observation.ReferencedROINumber, observation.ObservationNumber = 4, 4, 17
        d.ROIContourSequence.append(contour)
        d.RTROIObservationsSequence.append(observation)

    old = edited(written, orphan, tmp_path / "old.dcm")
    d = pydicom.dcmread(write_rtstruct(case, tmp_path / "new.dcm", existing=old, structures=["GTV1"]))
    assert [int(roi.ROINumber) for roi in d.StructureSetROISequence] == [1, 2, 3, 18]
    assert [int(roi.ReferencedROINumber) for roi in d.ROIContourSequence] == [1, 2, 3, 4, 18]
    assert [int(o.ObservationNumber) for o in d.RTROIObservationsSequence] == [1, 2, 3, 17, 18]


def test_a_series_whose_uid_begins_like_ours_is_not_ours(case: Case, written: Path, tmp_path: Path) -> None:
    theirs = case.source.series_uid
    ours = replace(case, source=replace(case.source, series_uid=theirs[:-1]))
    d = pydicom.dcmread(write_rtstruct(ours, tmp_path / "new.dcm", existing=written, structures=["GTV1"]))
    frames = [frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0] for frame in d.ReferencedFrameOfReferenceSequence]
    assert [series.SeriesInstanceUID for series in frames] == [theirs, theirs[:-1]]


def test_one_of_another_patient_is_refused(case: Case, written: Path, tmp_path: Path) -> None:
    old = edited(written, lambda d: setattr(d, "PatientID", "somebody else"), tmp_path / "old.dcm")
    with pytest.raises(StructureError, match="different PatientIDs"):
        write_rtstruct(case, tmp_path / "new.dcm", existing=old)
    assert not (tmp_path / "new.dcm").exists()


def test_an_approved_one_is_not_approved_any_more(case: Case, written: Path, tmp_path: Path) -> None:
    def approve(d: Dataset) -> None:
        d.ApprovalStatus, d.ReviewDate, d.ReviewTime, d.ReviewerName = "APPROVED", "20260101", "120000", "Dr^A"

    old = edited(written, approve, tmp_path / "old.dcm")
    d = pydicom.dcmread(write_rtstruct(case, tmp_path / "new.dcm", existing=old, structures=["GTV1"]))
    assert d.ApprovalStatus == "UNAPPROVED"
    assert "ReviewerName" not in d


def test_one_of_another_frame_of_reference_is_refused(case: Case, written: Path, tmp_path: Path) -> None:
    other = make_case(tmp_path / "other")
    with pytest.raises(StructureError, match="frame of reference"):
        write_rtstruct(other, tmp_path / "new.dcm", existing=written)
    with pytest.raises(StructureError, match="frame of reference"):
        read_rtstruct(written, source=other.source)
    assert not (tmp_path / "new.dcm").exists()


# ---- what planning systems write


def roi(d: Dataset, n: int) -> Dataset:
    found: Dataset = d.ROIContourSequence[n]
    return found


def test_without_image_references(case: Case, written: Path, tmp_path: Path) -> None:
    def strip(d: Dataset) -> None:
        for one in d.ROIContourSequence:
            for contour in one.ContourSequence:
                del contour.ContourImageSequence
        del d.ReferencedFrameOfReferenceSequence

    found, notes = read_rtstruct(edited(written, strip, tmp_path / "r.dcm"), source=case.source)
    assert set(found) == {"Parotid_L", "GTV1", "PTV_7000"}
    assert notes == ()
    np.testing.assert_array_equal(fill(found["GTV1"], case.geometry).array, case.masks["GTV1"].array)


def test_empty_point_and_open_structures_are_noted(case: Case, written: Path, tmp_path: Path) -> None:
    def change(d: Dataset) -> None:
        for one in d.StructureSetROISequence:
            one.ROIGenerationAlgorithm = "MANUAL"
        del roi(d, 0).ContourSequence
        for contour in roi(d, 1).ContourSequence:
            contour.ContourGeometricType, contour.NumberOfContourPoints, contour.ContourData = "POINT", 1, [1, 2, 3]
        roi(d, 2).ContourSequence[0].ContourGeometricType = "OPEN_NONPLANAR"

    found = read_structure_set(edited(written, change, tmp_path / "r.dcm"), source=case.source)
    assert list(found.contours) == ["PTV_7000"]
    assert len(found.rois) == 3
    told = "\n".join(found.notes)
    assert "'Parotid_L' has no contours: taken as not contoured" in told
    assert "'GTV1' has no closed contour" in told
    assert "1 contour(s) of type OPEN_NONPLANAR" in told


def test_short_doubled_and_closed_contours(case: Case, written: Path, tmp_path: Path) -> None:
    def change(d: Dataset) -> None:
        contours = roi(d, 0).ContourSequence
        contours[0].ContourData = contours[0].ContourData[:6]
        contours[1].ContourData = [*contours[1].ContourData, *contours[1].ContourData[:3]]
        contours.append(contours[3])

    path = edited(written, change, tmp_path / "r.dcm")
    before, after = read_structure_set(written, source=case.source), read_structure_set(path, source=case.source)
    assert len(after.contours["Parotid_L"]) == len(before.contours["Parotid_L"]) - 1
    np.testing.assert_array_equal(after.contours["Parotid_L"].polygons[0], before.contours["Parotid_L"].polygons[1])
    told = "\n".join(after.notes)
    assert "1 contour(s) of one or two points" in told
    assert "1 contour(s) are exact doubles" in told
    assert "NumberOfContourPoints is wrong for 2 contour(s)" in told


def test_a_keyhole_and_noise_in_z(case: Case, written: Path, tmp_path: Path) -> None:
    ball = HollowSphere((0, 0, 0), 9, 5)

    def change(d: Dataset) -> None:
        rng = np.random.default_rng(1)
        planes = [c for c in (ball.contours_at(z) for z in EVEN) if c]
        contours = roi(d, 0).ContourSequence[: len(planes)]
        while len(contours) < len(planes):
            contours.append(deepcopy(contours[0]))
        for one, rings in zip(contours, planes, strict=True):
            points = keyhole(*rings) if len(rings) == 2 else rings[0]
            points = points + np.array([0, 0, rng.uniform(-2e-3, 2e-3)])
            one.ContourData = [f"{v:.4f}" for v in points.ravel()]
            one.NumberOfContourPoints = len(points)
        roi(d, 0).ContourSequence = contours

    found, _ = read_rtstruct(edited(written, change, tmp_path / "r.dcm"), source=case.source)
    assert dice(fill(found["Parotid_L"], case.geometry), ball.mask(case.geometry)) > 0.97
    assert rasterise(found["Parotid_L"], case.geometry).volume_cc * 1000 == pytest.approx(ball.volume_mm3, rel=0.01)


def test_names_that_meet_and_names_unknown(case: Case, written: Path, tmp_path: Path) -> None:
    def change(d: Dataset) -> None:
        for one, name in zip(d.StructureSetROISequence, ("LeftParotid", "Parotis links", "zPlan 3"), strict=True):
            one.ROIName = name

    found = read_structure_set(edited(written, change, tmp_path / "r.dcm"), source=case.source)
    assert list(found.contours) == ["Parotid_L", "Parotis links", "zPlan 3"]
    assert found.unmapped == ("zPlan 3",)
    assert found.names["Parotid_L"] == "LeftParotid"
    assert "'Parotis links' kept" in found.notes[0]


def test_who_is_spelled_by_the_book_has_the_name(case: Case, written: Path, tmp_path: Path) -> None:
    """Whatever comes first in the file: ``SpinalCord`` is not called after a ``cord`` that somebody else drew."""

    def rename(d: Dataset) -> None:
        for roi, name in zip(d.StructureSetROISequence, ("cord", "SpinalCord", "PTV 70"), strict=True):
            roi.ROIName = name

    found = read_structure_set(edited(written, rename, tmp_path / "a.dcm"), source=case.source)
    assert found.names == {"cord": "cord", "SpinalCord": "SpinalCord", "PTV_7000": "PTV 70"}
    assert [roi.name for roi in found.rois] == list(found.contours) == ["cord", "SpinalCord", "PTV_7000"]
    assert found.notes == ("'cord' kept as 'cord': there is a 'SpinalCord' already",)


def test_the_same_contour_from_another_point_or_the_other_way_round_is_a_double(case: Case, written: Path, tmp_path: Path) -> None:
    """Combined by XOR the two would erase each other."""

    def double(d: Dataset) -> None:
        drawn = d.ROIContourSequence[0].ContourSequence
        for n, turn in ((0, lambda p: np.roll(p, 2, axis=0)), (1, lambda p: p[::-1])):
            again = deepcopy(drawn[n])
            again.ContourData = turn(np.array(again.ContourData, dtype=object).reshape(-1, 3)).ravel().tolist()
            drawn.append(again)

    before = read_structure_set(written, source=case.source).contours["Parotid_L"]
    found = read_structure_set(edited(written, double, tmp_path / "a.dcm"), source=case.source)
    assert len(found.contours["Parotid_L"]) == len(before)
    assert any("2 contour(s) are exact doubles" in note for note in found.notes)


@pytest.mark.parametrize("higher_mm", [0.03, 0.057, -0.057])
def test_the_same_contour_a_little_higher_on_its_slice_is_a_double(case: Case, written: Path, tmp_path: Path, higher_mm: float) -> None:
    """However it was rounded, wherever it begins and whichever way it runs; outline and hole stay what they are."""

    def double(d: Dataset) -> None:
        for drawn in (one.ContourSequence for one in d.ROIContourSequence):
            for n, one in enumerate(list(drawn)):
                points = np.array(one.ContourData, dtype=float).reshape(-1, 3) + np.array([0.002, -0.001, higher_mm])
                again = deepcopy(one)
                again.ContourData = [f"{v:.3f}" for v in np.roll(points[:: (-1) ** n], n, axis=0).ravel()]
                drawn.append(again)

    before = read_structure_set(written, source=case.source).contours
    found = read_structure_set(edited(written, double, tmp_path / "a.dcm"), source=case.source)
    for name in before:
        assert len(found.contours[name]) == len(before[name])
        assert (fill(found.contours[name], case.geometry).array == fill(before[name], case.geometry).array).all()
        assert any(f"{name!r}: {len(before[name])} contour(s) are the same as another on their slice" in note for note in found.notes)


def test_accents_in_names(case: Case, written: Path, tmp_path: Path) -> None:
    def change(d: Dataset) -> None:
        d.SpecificCharacterSet = "ISO_IR 100"
        d.StructureSetROISequence[0].ROIName = "Rückenmark"

    path = edited(written, change, tmp_path / "r.dcm")
    assert read_structure_set(path).names["SpinalCord"] == "Rückenmark"
    both = write_rtstruct(case, tmp_path / "both.dcm", existing=path, structures=["GTV1"], names={"GTV1": "Größe"})
    assert read_structure_set(both).unmapped == ("Größe",)


def test_a_dataset_in_memory(case: Case, written: Path) -> None:
    found, _ = read_rtstruct(pydicom.dcmread(written), source=case.source)
    assert set(found) == set(case.masks)


def drawn_on_one_in(count: int) -> Callable[[Dataset], None]:
    def thin(d: Dataset) -> None:
        for one in d.ROIContourSequence:
            one.ContourSequence = one.ContourSequence[::count]

    return thin


def test_every_second_slice_is_said(case: Case, written: Path, tmp_path: Path) -> None:
    found, notes = read_rtstruct(edited(written, drawn_on_one_in(2), tmp_path / "r.dcm"), source=case.source)
    assert any(
        "'PTV_7000': slices without contours" in note and "are filled: each contour is taken to reach half-way" in note for note in notes
    )
    assert fill(found["PTV_7000"], case.geometry).volume_cc == pytest.approx(16 / 15 * case.masks["PTV_7000"].volume_cc, rel=0.1)


def test_a_body_on_every_second_thick_slice_is_one_thing(tmp_path: Path) -> None:
    """90 mm on slices of 6 mm: of 15 contours, or 16, every second is left, and fills what lay between."""
    case = make_case(tmp_path / "ct", {"PTV_7000": Box((0, 0, 0), (30, 20, 90))}, offsets=np.arange(-66.0, 67, 6))

    path = edited(write_rtstruct(case, tmp_path / "all.dcm"), drawn_on_one_in(2), tmp_path / "r.dcm")
    found, notes = read_rtstruct(path, source=case.source)
    count = len(found["PTV_7000"]) - 1
    assert notes[-1].startswith(f"'PTV_7000': slices without contours between contours 12 mm apart ({count},")
    assert "are filled: each contour is taken to reach half-way to the next" in notes[-1]
    assert rasterise(found["PTV_7000"], case.geometry).volume_cc == pytest.approx(len(found["PTV_7000"]) * 30 * 20 * 12 / 1000, rel=0.02)


def test_contours_too_far_apart_for_one_thing_are_said(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", {"PTV_7000": Box((0, 0, 0), (30, 20, 90))}, offsets=np.arange(-60.0, 61, 3))

    path = edited(write_rtstruct(case, tmp_path / "all.dcm"), drawn_on_one_in(5), tmp_path / "r.dcm")
    found, notes = read_rtstruct(path, source=case.source)
    assert any(n.startswith("'PTV_7000': slices without contours between contours 15 mm apart") and n.endswith("stay empty") for n in notes)
    assert fill(found["PTV_7000"], case.geometry).volume_cc == pytest.approx(len(found["PTV_7000"]) * 30 * 20 * 3 / 1000, rel=0.02)


FILLED = "each contour is taken to reach half-way to the next"


@pytest.mark.parametrize(
    ("held", "slices", "note"),
    [
        ([5, 7, 10, 12, 15], 12.5, f"2 to 3 mm apart (4, the first above -7.0 mm) are filled: {FILLED}"),  # every 2.5 mm
        ([2, 3, 4, 6, 8, 10, 12, 14, 15, 16], 15, f"2 mm apart (5, the first above -8.0 mm) are filled: {FILLED}"),
        ([5, 6, 7, 9, 10, 11], 6, "2 mm apart (1, the first above -5.0 mm) stay empty: make sure that no contour was forgotten"),
        ([5, 6, 18, 19], 4, "12 mm apart (1, the first above -6.0 mm) stay empty"),
        ([5, 6, 7], 3, ""),
    ],
)
def test_what_becomes_of_slices_between_a_persons_contours_is_said(held: list[int], slices: float, note: str, tmp_path: Path) -> None:
    """A square of 25 pixels drawn on some of the slices of 1 mm, the first of which lies at -12 mm."""
    case = sparse(tmp_path / "ct", held)
    by_hand = Case("by hand", case.images, contours={"GTV1": Contours(trace(case.masks["GTV1"]).polygons)}, source=case.source)
    found, notes = read_rtstruct(write_rtstruct(by_hand, tmp_path / "r.dcm"), source=case.source)
    assert rasterise(found["GTV1"], case.geometry).volume_cc == pytest.approx(25 * slices / 1000, rel=1e-4)
    assert notes == ((f"'GTV1': slices without contours between contours {note}",) if note else ())


# ---- contours that we wrote are known, and those of a person are not taken for ours


SPARSE = {"every second": [5, 7, 9], "every third": [5, 8, 11], "a gap": [3, 4, 6, 7], "one": [9], "far apart": [2, 20]}
"""Slices that a mask lies on."""


def sparse(folder: Path, held: list[int], **series: object) -> Case:
    """A CT of 25 slices with a mask of 5 x 5 pixels on some of them."""
    bare = make_case(folder, {}, **series)
    voxels = np.zeros(bare.geometry.shape, bool)
    voxels[held, 10:15, 20:25] = True
    return bare.with_masks({"GTV1": Volume(voxels, bare.geometry)})


@pytest.mark.parametrize("name", ["HFS", "FFDL", "oblique", "tilted", "far from the origin"])
@pytest.mark.parametrize("held", SPARSE.values(), ids=SPARSE)
def test_a_mask_on_some_slices_comes_back_as_it_was(name: str, held: list[int], tmp_path: Path) -> None:
    case = sparse(tmp_path / "ct", held, **VARIATIONS[name])
    found, notes = read_rtstruct(write_rtstruct(case, tmp_path / "r.dcm"), source=case.source)
    np.testing.assert_array_equal(fill(found["GTV1"], case.geometry).array, case.masks["GTV1"].array)
    assert fill(found["GTV1"], case.geometry).array.sum() == 25 * len(held)
    assert notes == ()


def test_the_mark_lasts_when_what_was_read_is_written_again(tmp_path: Path) -> None:
    case = sparse(tmp_path / "ct", [5, 7, 9])
    found, _ = read_rtstruct(write_rtstruct(case, tmp_path / "a.dcm"), source=case.source)
    drawn = Case("again", case.images, contours=found, source=case.source)
    again, notes = read_rtstruct(write_rtstruct(drawn, tmp_path / "b.dcm"), source=case.source)
    np.testing.assert_array_equal(fill(again["GTV1"], case.geometry).array, case.masks["GTV1"].array)
    assert notes == ()


def test_only_our_own_contours_are_known_in_a_set_of_another(tmp_path: Path) -> None:
    """A person's square on slices 5, 7, 9 fills 5 to 9 and half a slice of each end; ours, added to that file, stays on three slices."""
    case = sparse(tmp_path / "ct", [5, 7, 9])
    theirs = Contours(trace(case.masks["GTV1"]).polygons)
    by_hand = Case("by hand", case.images, contours={"PTV_7000": theirs}, source=case.source)
    base = write_rtstruct(by_hand, tmp_path / "theirs.dcm", algorithm="MANUAL")
    found, notes = read_rtstruct(write_rtstruct(case, tmp_path / "both.dcm", existing=base), source=case.source)
    np.testing.assert_array_equal(fill(found["GTV1"], case.geometry).array, case.masks["GTV1"].array)
    filled = rasterise(found["PTV_7000"], case.geometry).array
    assert filled[:, 12, 22].tolist() == [0.0] * 4 + [0.5] + [1.0] * 5 + [0.5] + [0.0] * 14
    assert len(notes) == 1
    assert notes[0].startswith("'PTV_7000': slices without contours between contours 2 mm apart (2, ")


def test_ours_that_somebody_changed_are_theirs(tmp_path: Path) -> None:
    case = sparse(tmp_path / "ct", [5, 7, 9])

    def shift(d: Dataset) -> None:
        contour = d.ROIContourSequence[0].ContourSequence[1]
        contour.ContourData = [f"{v + 0.01:.4f}" if n % 3 == 0 else f"{v:.4f}" for n, v in enumerate(map(float, contour.ContourData))]

    written = write_rtstruct(case, tmp_path / "a.dcm")
    assert pydicom.dcmread(written).StructureSetROISequence[0].ROIDescription.startswith("Each contour stands for its own slice alone")
    found, notes = read_rtstruct(edited(written, shift, tmp_path / "b.dcm"), source=case.source)
    assert fill(found["GTV1"], case.geometry).array.sum() == 5 * 25 + 2 * 21  # of the half slices at both ends all but the cut corners
    assert any(note.startswith("'GTV1': slices without contours between contours") and "are filled" in note for note in notes)


UNEVEN_HELD = [-12.0, -9, -6, -5, -4, -3, 0, 3, 6, 9, 12]


@pytest.mark.parametrize(("step", "position"), [(1.0, "HFS"), (1.5, "FFDL"), (2.0, "HFP"), (6.0, "FFS")])
@pytest.mark.parametrize(
    ("drawn_on", "held", "mm"),
    [
        (np.arange(-12.0, 13, 3), [2, 3, 4], 9),
        (np.arange(-12.0, 13, 3), [1, 3, 5], 9),
        (np.arange(-12.0, 13, 3), [4], 3),
        (UNEVEN_HELD, [2, 4, 6], 2 + 1 + 3),  # from -7.5 to -5.5, -4.5 to -3.5, -1.5 to 1.5
        (UNEVEN_HELD, [0, 3, 5], 3 + 1 + 2),  # the lowest slice of all; -5.5 to -4.5; -3.5 to -1.5
    ],
)
def test_ours_on_another_series_are_as_thick_as_they_were(
    drawn_on: list[float], held: list[int], mm: float, step: float, position: str, tmp_path: Path
) -> None:
    """A mask on some slices, read onto another series of the same frame of reference, and written from there and read once more."""
    first = make_case(tmp_path / "a", {}, offsets=tuple(drawn_on))
    at = np.asarray(drawn_on)
    slab_of = np.abs(at[:, None] - np.arange(first.geometry.shape[0]) * first.geometry.spacing_mm[0] - at[0]).argmin(axis=0)
    voxels = np.zeros(first.geometry.shape, bool)
    voxels[np.isin(slab_of, held), 10:15, 20:25] = True
    drawn = first.with_contours({"GTV1": trace(Volume(voxels, first.geometry), slices=slices_of(first.source))})
    written = write_rtstruct(drawn, tmp_path / "a.dcm")
    other = make_case(tmp_path / "b", {}, offsets=tuple(np.arange(-24.0, 25, step)), patient_position=position, rows=60, columns=60)
    other = replace(other, source=replace(other.source, frame_of_reference_uid=first.source.frame_of_reference_uid))
    for n in range(2):
        found, notes = read_rtstruct(written, source=other.source)
        assert rasterise(found["GTV1"], other.geometry).volume_cc == pytest.approx(25 * mm / 1000, rel=1e-4)
        assert all("nearest slice" in note for note in notes)
        written = write_rtstruct(replace(other, contours=found), tmp_path / f"{n}.dcm")


def test_ours_on_a_series_across_theirs_are_as_thick_as_they_were(tmp_path: Path) -> None:
    """An axial mask on every second slice of 3 mm, read onto a sagittal series of the same frame of reference."""
    first = make_case(tmp_path / "a", {}, offsets=tuple(np.arange(-12.0, 13, 3)))
    voxels = np.zeros(first.geometry.shape, bool)
    voxels[[1, 3, 5], 10:15, 20:25] = True
    written = write_rtstruct(first.with_masks({"GTV1": Volume(voxels, first.geometry)}), tmp_path / "a.dcm")
    other = make_case(tmp_path / "b", {}, offsets=tuple(np.arange(-24.0, 25)), row=(0, 1, 0), column=(0, 0, -1), rows=60, columns=60)
    source = replace(other.source, frame_of_reference_uid=first.source.frame_of_reference_uid)
    found, _ = read_rtstruct(written, source=source)
    assert rasterise(found["GTV1"], other.geometry).volume_cc == pytest.approx(25 * 9 / 1000, rel=1e-3)


# ---- outlines that cross


def drawn_in(case: Case, polygons: tuple[Floats, ...], path: Path) -> Path:
    return write_rtstruct(Case("drawn", case.images, contours={"GTV1": Contours(polygons)}, source=case.source), path)


def test_a_figure_of_eight_with_equal_lobes_is_a_structure(tmp_path: Path) -> None:
    """16 x 8 mm crossed in the middle: two triangles of 32 mm2 on each of 5 slices, whose signed area is none; in a DVH, too."""
    case = make_case(tmp_path / "ct", {})
    eight = np.array([[-8.0, -4, 0], [8, 4, 0], [8, -4, 0], [-8, 4, 0]])
    path = drawn_in(case, tuple(moved(eight, z=z) for z in range(-2, 3)), tmp_path / "r.dcm")
    found, notes = read_rtstruct(path, source=case.source)
    assert notes == ()
    assert rasterise(found["GTV1"], case.geometry).volume_cc * 1000 == pytest.approx(64 * 5, rel=1e-5)
    dose = Volume(np.full(case.geometry.shape, 20, np.float32), case.geometry)
    assert dvh(dose, found["GTV1"]).volume_cc * 1000 == pytest.approx(64 * 5, rel=1e-4)


def test_crossing_outlines_are_xor_there_and_in_the_dvh(tmp_path: Path) -> None:
    """Squares of 10 mm, 4 mm apart, share 60 mm2: 2 x 100 - 2 x 60 = 80 mm2 a slice."""
    case = make_case(tmp_path / "ct", {})
    square = np.array([[-5.0, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]])
    both = tuple(moved(square, x, z=z) for z in range(-2, 3) for x in (0, 4))
    found, notes = read_rtstruct(drawn_in(case, both, tmp_path / "r.dcm"), source=case.source)
    assert notes == ()
    assert rasterise(found["GTV1"], case.geometry).volume_cc * 1000 == pytest.approx(80 * 5, rel=1e-5)
    dose = Volume(np.full(case.geometry.shape, 20, np.float32), case.geometry)
    assert dvh(dose, found["GTV1"]).volume_cc * 1000 == pytest.approx(80 * 5, rel=1e-4)


def test_the_same_points_in_another_order_are_another_outline(tmp_path: Path) -> None:
    """A square and the figure of eight through its corners: XOR leaves the two triangles that the eight leaves out."""
    case = make_case(tmp_path / "ct", {})
    square = np.array([[-5.0, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]])
    found, notes = read_rtstruct(drawn_in(case, (square, square[[0, 2, 1, 3]]), tmp_path / "r.dcm"), source=case.source)
    assert notes == ()
    assert rasterise(found["GTV1"], case.geometry).array[12].sum() == pytest.approx(50, rel=1e-5)


# ---- many points, many contours


def test_thousands_of_contours_in_each_other_are_read_and_filled(tmp_path: Path) -> None:
    """Of one centre and length, which told none of them apart; every second wall between 4000 squares is inside."""
    case = make_case(tmp_path / "ct", {}, rows=64, columns=64)
    halves = 25 - 0.006 * np.arange(4000)
    corner = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    path = drawn_in(case, tuple(half * corner for half in halves), tmp_path / "r.dcm")
    found, _ = read_rtstruct(path, source=case.source)
    kept = np.array([polygon[:, 0].max() for polygon in found["GTV1"]])
    walls = 4 * (kept[::2] ** 2 - kept[1::2] ** 2).sum()
    assert rasterise(found["GTV1"], case.geometry).array[12].sum(dtype=np.float64) == pytest.approx(walls, rel=1e-3)


def test_contours_too_much_alike_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same extent and mean, but none the same as another: one ring of points begun with a step that differs."""
    monkeypatch.setattr(outlines, "MAX_ALIKE", 100)  # and four for each of 40: 260 of 780 pairs are looked at
    case = make_case(tmp_path / "ct", {})
    rng, corner = np.random.default_rng(2), np.array([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]])
    rings = []
    for _ in range(40):
        within = rng.uniform(-8, 8, (6, 3)) * [1, 1, 0]
        rings.append(np.concatenate([corner, within, -within]))
    with pytest.raises(LimitError, match="'GTV1' has more than 100 pairs of contours on one slice that may be the same one drawn twice"):
        read_rtstruct(drawn_in(case, tuple(rings), tmp_path / "r.dcm"), source=case.source)


# ---- damage


def test_not_an_rtstruct(tmp_path: Path, case: Case) -> None:
    text = tmp_path / "a.txt"
    text.write_text("hello")
    with pytest.raises(FormatError, match="not a DICOM file"):
        read_rtstruct(text)
    with pytest.raises(FormatError, match="cannot be read"):
        read_rtstruct(tmp_path / "missing.dcm")
    make_series(tmp_path / "ct", rows=4, columns=4, offsets=(0.0, 1.0))
    with pytest.raises(FormatError, match="not RT Structure Set"):
        read_rtstruct(next((tmp_path / "ct").iterdir()))


@pytest.mark.parametrize(
    "value", [b"1\\2\\x", b"1\\2\\", b"1\\2", b"nan\\1\\2", b"1e9\\0\\0", b"1..2\\0\\0", b"--1\\0\\0", b"1 2\\0\\0", b"9e999\\1\\1"]
)
def test_contour_data_that_is_no_points(written: Path, tmp_path: Path, value: bytes) -> None:
    """One contour of one structure costs that structure, and is the first that is said; where there is no other the file is refused."""
    path = broken(written, value, tmp_path / "r.dcm")
    before, after = read_structure_set(written), read_structure_set(path)
    assert list(before.contours) == ["Parotid_L", "GTV1", "PTV_7000"]
    assert list(after.contours) == ["GTV1", "PTV_7000"]
    assert after.notes[0].startswith("'Parotid_L' cannot be read and is left out: ")
    assert [len(after.contours[name]) for name in after.contours] == [len(before.contours[name]) for name in after.contours]

    def alone(d: Dataset) -> None:
        d.StructureSetROISequence, d.ROIContourSequence = d.StructureSetROISequence[:1], d.ROIContourSequence[:1]

    path = broken(edited(written, alone, tmp_path / "one.dcm"), value, tmp_path / "r.dcm")
    with pytest.raises(StructureError, match="contour"):
        read_rtstruct(path)


def broken(path: Path, value: bytes, out: Path) -> Path:
    """The file with ``value`` as the ContourData of the first contour."""
    data = path.read_bytes()
    file = rtstruct_file.open_rtstruct(path)
    first = file.elements.items(file.elements.within(file.items(0x30060039)[0])[0x30060040])[0]
    span = file.elements.within(first)[0x30060050]
    out.write_bytes(data[: span.first] + value.ljust(span.last - span.first) + data[span.last :])
    return out


def test_a_contour_cut_short_costs_its_structure(written: Path, tmp_path: Path) -> None:
    """ContourData that says it is longer than its item."""
    data = bytearray(written.read_bytes())
    file = rtstruct_file.open_rtstruct(written)
    first = file.elements.items(file.elements.within(file.items(0x30060039)[0])[0x30060040])[0]
    at = file.elements.within(first)[0x30060050].start + 4
    data[at : at + 4] = (2**20).to_bytes(4, "little")
    (tmp_path / "r.dcm").write_bytes(data)
    found = read_structure_set(tmp_path / "r.dcm")
    assert list(found.contours) == ["GTV1", "PTV_7000"]
    assert found.notes[0].startswith("'Parotid_L' cannot be read and is left out: element (3006,0050) says it has 1048576 bytes")


def test_structures_that_share_a_number_or_have_none_cost_themselves(written: Path, tmp_path: Path) -> None:
    def share(d: Dataset) -> None:
        d.StructureSetROISequence[1].ROINumber = d.StructureSetROISequence[0].ROINumber

    def unnumbered(d: Dataset) -> None:
        del d.StructureSetROISequence[0].ROINumber

    found = read_structure_set(edited(written, share, tmp_path / "a.dcm"))
    assert list(found.contours) == ["PTV_7000"]
    assert any("2 structures have ROINumber 1 ('Parotid_L' and 'GTV1')" in note for note in found.notes)
    found = read_structure_set(edited(written, unnumbered, tmp_path / "b.dcm"))
    assert list(found.contours) == ["GTV1", "PTV_7000"]
    assert any("a structure ('Parotid_L') has no ROINumber" in note for note in found.notes)


@pytest.mark.parametrize(
    ("module", "name"),
    [(rtstruct_file, "MAX_FILE_BYTES"), (rtstruct_file, "MAX_ROIS"), (rtstruct_read, "MAX_CONTOURS"), (rtstruct_read, "MAX_POINTS")],
)
def test_limits(written: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    monkeypatch.setattr(module, name, 2)
    with pytest.raises(LimitError):
        read_rtstruct(written)


def test_a_file_of_nothing_but_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "MAX_ELEMENTS", 1000)
    data = bytes(8) * 2000
    with pytest.raises(LimitError, match="1000 elements"):
        list(Elements(data, "test").walk(0, len(data), explicit=False))


def test_sequences_without_end_are_refused() -> None:
    deep = b"\x06\x30\x20\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    with pytest.raises(LimitError, match="deep"):
        list(Elements(deep, "test").walk(0, len(deep), explicit=False))


def seed_bytes() -> bytes:
    """A small RTSTRUCT without a CT behind it."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = rtstruct_file.RTSTRUCT, "1.2.3", "RTSTRUCT"
    one, drawn, contour, seen = Dataset(), Dataset(), Dataset(), Dataset()
    one.ROINumber, one.ROIName, one.ReferencedFrameOfReferenceUID = 1, "GTV", "1.2"
    contour.ContourGeometricType, contour.NumberOfContourPoints, contour.ContourData = "CLOSED_PLANAR", 3, [0, 0, 0, 9, 0, 0, 0, 9, 0]
    drawn.ReferencedROINumber, drawn.ContourSequence, drawn.ROIDisplayColor = 1, [contour, contour], [1, 2, 3]
    seen.ReferencedROINumber, seen.RTROIInterpretedType = 1, "GTV"
    d.StructureSetROISequence, d.ROIContourSequence, d.RTROIObservationsSequence = [one], [drawn], [seen]
    buffer = pydicom.filebase.DicomBytesIO()
    d.save_as(buffer, enforce_file_format=True)
    return bytes(buffer.getvalue())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.data())
def test_damage_ends_in_our_own_errors(damage: st.DataObject, tmp_path: Path) -> None:
    seed = bytearray(seed_bytes())
    for _ in range(damage.draw(st.integers(1, 12))):
        at = damage.draw(st.integers(128, len(seed) - 1))
        seed[at] = damage.draw(st.sampled_from([0, 1, 32, 48, 57, 92, 127, 255]) | st.integers(0, 255))
    cut = damage.draw(st.integers(0, len(seed)) | st.just(len(seed)))
    path = tmp_path / "r.dcm"
    path.write_bytes(bytes(seed[:cut]))
    try:
        found, _ = read_rtstruct(path)
        for contours in found.values():
            rasterise(contours, Geometry.regular((4, 8, 8)))
    except OncontourError:
        pass


# ---- numbers as text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-99999, 99999).map(lambda v: round(v, 9)), min_size=3, max_size=3))
def test_numbers_become_text_and_come_back(values: list[float]) -> None:
    points = np.array([values])
    text, ends = decimals.format_points(points, np.array([0, 1]), np.array([4, 3, 9]))
    parts = text.tobytes().decode().split("\\")
    assert all(len(part) <= 16 for part in parts)
    np.testing.assert_allclose([float(part) for part in parts], values, atol=5.001e-4)
    assert float(parts[2]) == values[2]
    counts = decimals.count_values(text, ends[:-1], ends[1:])
    parsed, bad = decimals.parse(text, ends[:-1], ends[1:], counts)
    assert bad == -1
    assert parsed.tolist() == [float(part) for part in parts]


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5", "1e3", "-1.25E-2", " 7 ", "0012.50", "5.", "123456789.123456"])
def test_decimal_strings_are_read_as_python_reads_them(text: str) -> None:
    data = np.frombuffer(f"{text}\\{text}".encode(), np.uint8)
    spans = np.array([0]), np.array([len(data)])
    parsed, bad = decimals.parse(data, *spans, decimals.count_values(data, *spans))
    assert (parsed.tolist(), bad) == ([float(text)] * 2, -1)


def test_long_values_in_explicit_vr_go_as_unknown() -> None:
    encoded = element(0x30060050, b"DS", b"1" * 70_000, explicit=True)
    (found,) = Elements(encoded, "test").walk(0, len(encoded), explicit=True)
    assert (found.vr, found.last - found.first) == (b"UN", 70_000)
    assert item(encoded)[:4] == b"\xfe\xff\x00\xe0"


# ---- real patients, and what a validator says


def test_the_validator_finds_no_error(written: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    assert dciodvfy(written) == []


@pytest.mark.parametrize(
    ("images", "structures"),
    [
        ("LUNG1-001/image", "LUNG1-001/mask_rtstruct"),
        ("STS_044/CT/image", "STS_044/CT/mask"),
        ("STS_044/MR_T1/image", "STS_044/MR_T1/mask"),
    ],
)
def test_real_patients(data: Path, images: str, structures: str, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    volume, source, _ = read_series(data / "dicom" / images)
    theirs = next((data / "dicom" / structures).iterdir())
    found, _ = read_rtstruct(theirs, source=source)
    case = Case("real", {"image": volume}, {name: fill(c, volume.geometry) for name, c in found.items()}, source=source)
    ours = write_rtstruct(case, tmp_path / "ours.dcm")
    again, notes = read_rtstruct(ours, source=source)
    assert notes == ()
    for name, contours in again.items():
        np.testing.assert_array_equal(fill(contours, volume.geometry).array, case.masks[name].array)
        planes = {p[0, 2] for p in contours}
        assert planes <= {one.position_mm[2] for one in source.slices}
        assert min(abs(found[name].polygons[0][0, 2] - z) for z in planes) < 1e-2
    assert dciodvfy(ours) == []
    both = write_rtstruct(case, tmp_path / "both.dcm", existing=theirs)
    assert set(dciodvfy(both)) <= set(dciodvfy(theirs))
    for before, after in zip(items_of(theirs), items_of(both), strict=True):
        assert after[: len(before)] == before
