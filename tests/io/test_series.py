"""Reading CT and MR series: content at known patient points, whatever position, orientation and mess of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from oncontour.core.volume import Volume
from oncontour.errors import InputError, LimitError, SeriesError
from oncontour.io.dicom.scan import scan
from oncontour.io.dicom.series import AIR_HU, read_series
from tests.dicom_cases import BLOBS, PATIENT_POSITIONS, anatomy, make_series, ramp, save


def at(volume: Volume, point_mm: tuple[float, float, float]) -> float:
    """Value of the voxel in which the patient point lies."""
    k, j, i = np.rint(volume.geometry.voxels(point_mm)).astype(int)
    return float(volume.array[k, j, i])


def assert_anatomy(volume: Volume, tolerance: float = 40) -> None:
    for centre, _ in BLOBS.values():
        mirrored = (-centre[0], -centre[1], -centre[2])
        for point in (centre, mirrored):
            assert at(volume, point) == pytest.approx(float(anatomy(np.array(point))), abs=tolerance)


@pytest.mark.parametrize("patient_position", PATIENT_POSITIONS)
def test_content_lies_where_the_patient_has_it_in_all_eight_positions(tmp_path: Path, patient_position: str) -> None:
    written = make_series(tmp_path, patient_position=patient_position, rows=33, columns=41, offsets=np.arange(-10.0, 11.0, 1.0))
    volume, source, notes = read_series(tmp_path)
    assert_anatomy(volume, tolerance=1)
    assert notes == ()
    assert source.patient_position == patient_position
    assert np.array_equal(volume.array, np.array(written.stored).astype(int) - 1024)  # nothing flipped
    assert np.allclose(volume.geometry.axes, [written.normal, written.column, written.row])
    assert np.allclose([s.position_mm for s in source.slices], written.positions_mm)


def test_the_source_names_every_slice_in_order(tmp_path: Path) -> None:
    written = make_series(tmp_path, order=[7, 3, 9, 1, 0, 5, 2, 8, 4, 6, 10], numbers=list(range(11, 0, -1)))
    volume, source, _ = read_series(tmp_path)
    assert tuple(s.sop_instance_uid for s in source.slices) == written.sop_uids
    assert (source.modality, source.series_uid, source.study_uid) == ("CT", written.series_uid, written.study_uid)
    assert source.frame_of_reference_uid == written.frame_of_reference_uid
    assert (source.rows, source.columns, source.pixel_spacing_mm) == (32, 40, (1.0, 1.0))
    assert source.patient["PatientID"] == "phantom"
    assert source.study["StudyDate"] == "20260102"
    assert source.series["SeriesDescription"] == "synthetic CT"
    assert np.array_equal(source.offsets_mm, np.arange(-10.0, 11.0, 2.0))
    assert volume.geometry.spacing_mm == (2.0, 1.0, 1.0)


def test_non_square_pixels_and_matrix(tmp_path: Path) -> None:
    make_series(
        tmp_path,
        image=ramp,
        rows=17,
        columns=44,
        spacing_mm=(0.7, 1.3),
        offsets=[0, 2.5, 5.0],
        centre_mm=(10, -20, 30),
        slope=0.01,
        signed=True,
        intercept=0,
    )
    volume, _, _ = read_series(tmp_path)
    assert volume.geometry.shape == (3, 17, 44)
    assert volume.geometry.spacing_mm == pytest.approx((2.5, 0.7, 1.3))
    points = volume.geometry.points(np.stack(np.meshgrid(*(np.arange(n) for n in volume.array.shape), indexing="ij"), axis=-1))
    assert np.abs(volume.array - ramp(points)).max() <= 0.006


def test_oblique_series(tmp_path: Path) -> None:
    a, b = np.radians(20), np.radians(-35)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    make_series(tmp_path, row=turn[:, 0], column=turn[:, 1], rows=41, columns=41, offsets=np.arange(-15.0, 16.0))
    volume, source, notes = read_series(tmp_path)
    assert notes == ()
    assert np.allclose(volume.geometry.axes, turn.T[::-1], atol=1e-9)
    assert np.allclose(source.normal, turn[:, 2])
    assert_anatomy(volume, tolerance=110)  # blobs of 2 mm, up to 0.87 mm from the voxel's centre


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    slopes = [0.5, 1.0, 2.0, 0.25]
    make_series(tmp_path, image=ramp, offsets=[0, 2, 4, 6], slope=slopes, intercept=-500.5)
    volume, _, _ = read_series(tmp_path)
    assert volume.array.dtype == np.float32
    for k, slope in enumerate(slopes):
        points = volume.geometry.points([(k, j, 3) for j in range(32)])
        assert np.abs(volume.array[k, :, 3] - ramp(points)).max() <= slope / 2 + 1e-3


def test_int16_where_exact_also_at_its_ends(tmp_path: Path) -> None:
    values = np.array([-32768.0, 32767.0, 0.0, -1.0])
    make_series(tmp_path / "a", image=lambda p: np.resize(values, p.shape[:-1]), intercept=-32768.0)
    volume, _, _ = read_series(tmp_path / "a")
    assert volume.array.dtype == np.int16
    assert set(np.unique(volume.array)) == {-32768, -1, 0, 32767}
    make_series(tmp_path / "b", image=lambda p: np.resize(np.clip(values + 40000, 0, 65535), p.shape[:-1]), intercept=0.0)
    volume, _, _ = read_series(tmp_path / "b")
    assert volume.array.dtype == np.float32
    assert set(np.unique(volume.array)) == {7232.0, 39999.0, 40000.0, 65535.0}


def test_overlay_bits_beside_the_stored_ones_are_cleared(tmp_path: Path) -> None:
    def overlay(d: Dataset, n: int) -> None:
        d.PixelData = (np.frombuffer(d.PixelData, "<u2") | 0xF000).tobytes()

    written = make_series(tmp_path, bits_stored=12, change=overlay)
    volume, _, _ = read_series(tmp_path)
    assert np.array_equal(volume.array, np.array(written.stored).astype(int) - 1024)


def test_twelve_bit_signed_values_keep_their_sign(tmp_path: Path) -> None:
    def upper_bits_zero(d: Dataset, n: int) -> None:
        d.PixelData = (np.frombuffer(d.PixelData, "<u2") & 0x0FFF).tobytes()

    written = make_series(tmp_path, image=lambda p: ramp(p) * 5 - 800, bits_stored=12, signed=True, intercept=0, change=upper_bits_zero)
    assert min(s.min() for s in written.stored) < -900
    volume, _, _ = read_series(tmp_path)
    assert np.array_equal(volume.array, np.array(written.stored))


def test_padding_becomes_air(tmp_path: Path) -> None:
    def pad(d: Dataset, n: int) -> None:
        values = np.frombuffer(d.PixelData, "<i2").copy()
        values[:50] = -2000
        d.PixelData = values.tobytes()
        d.add_new(0x00280120, "US", 63536)  # -2000, written with the wrong sign as many do

    make_series(tmp_path, signed=True, intercept=0, change=pad)
    volume, _, notes = read_series(tmp_path)
    assert (volume.array.reshape(len(volume.array), -1)[:, :50] == AIR_HU).all()
    assert volume.array.reshape(len(volume.array), -1)[:, 50:].min() >= 0
    assert notes == ()


def test_padding_that_stands_for_tissue_is_left_alone(tmp_path: Path) -> None:
    def pad(d: Dataset, n: int) -> None:
        d.add_new(0x00280120, "SS", 0)

    written = make_series(tmp_path, signed=True, intercept=0, change=pad)
    volume, _, notes = read_series(tmp_path)
    assert np.array_equal(volume.array, np.array(written.stored))
    assert "PixelPaddingValue stands for 0 HU" in notes[0]


def test_mr_has_no_rescale(tmp_path: Path) -> None:
    written = make_series(tmp_path, modality="MR", intercept=0)
    volume, source, _ = read_series(tmp_path)
    assert source.modality == "MR"
    assert np.array_equal(volume.array, np.array(written.stored))


# ---- messy folders


def litter(folder: Path) -> None:
    """Stray files and DICOM objects that are no slices."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.pdf").write_bytes(b"%PDF-1.4\n" + bytes(300))
    (folder / "empty").write_bytes(b"")
    (folder / "readme.txt").write_text("x" * 400)
    (folder / ".0001.dcm.part").write_bytes(bytes(128) + b"DICM half written")
    capture = make_series(folder / "capture", offsets=[0], change=lambda d, n: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))
    assert len(capture.paths) == 1


def test_stray_files_localizers_and_captures_are_left_out(tmp_path: Path) -> None:
    litter(tmp_path / "stray")
    written = make_series(tmp_path / "ct" / "deep")
    make_series(
        tmp_path / "ct", offsets=[0, 300], prefix="loc", change=lambda d, n: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    )

    def scout(d: Dataset, n: int) -> None:  # a localizer within the series itself
        d.ImageType, d.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]

    make_series(tmp_path / "ct", offsets=[0], prefix="scout", series_uid=written.series_uid, frame_of_reference_uid="1.2.3", change=scout)
    volume, source, notes = read_series(tmp_path)
    assert source.series_uid == written.series_uid
    assert volume.geometry.shape == (11, 32, 40)
    assert any("left out 1 localizer image(s)" in n for n in notes)
    assert any("left out, as they are no CT or MR slices: 1 file of Secondary Capture Image (Modality CT)" in n for n in notes)
    assert any("left out: CT series" in n for n in notes)


def test_a_dicomdir_and_an_encapsulated_pdf_are_no_series(tmp_path: Path) -> None:
    written = make_series(tmp_path)
    content = written.paths[0].read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    meta = content[:end].replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0")
    (tmp_path / "DICOMDIR").write_bytes(meta + b"\x04\x00\x30\x11CS\x04\x00DISC")
    pdf = Dataset()
    pdf.SOPClassUID, pdf.SOPInstanceUID, pdf.Modality, pdf.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.3", "DOC", "1.2.4"
    save(pdf, tmp_path / "report.dcm")
    assert [(s.kind, s.modality) for s in scan(tmp_path)] == [("image", "CT"), ("other", "DOC")]
    assert "no CT or MR slices: 1 file of Encapsulated PDF (Modality DOC)" in read_series(tmp_path)[2][0]


def test_bare_datasets_without_the_dicom_mark_are_read(tmp_path: Path) -> None:
    written = make_series(tmp_path)
    for path in written.paths:
        content = path.read_bytes()
        end = 144 + int.from_bytes(content[140:144], "little")
        path.write_bytes(content[end:])
    volume, _, _ = read_series(tmp_path)
    assert np.array_equal(volume.array, np.array(written.stored).astype(int) - 1024)


def test_the_only_ct_comes_before_mr_and_others_are_named(tmp_path: Path) -> None:
    ct = make_series(tmp_path / "ct")
    mr = make_series(tmp_path / "mr", modality="MR", intercept=0)
    _, source, notes = read_series(tmp_path)
    assert source.series_uid == ct.series_uid
    assert mr.series_uid in notes[0]
    assert read_series(tmp_path, modality="MR")[1].series_uid == mr.series_uid
    assert read_series(tmp_path, series_uid=mr.series_uid)[1].modality == "MR"


def test_several_cts_are_an_error_that_lists_them(tmp_path: Path) -> None:
    first, second = make_series(tmp_path / "a"), make_series(tmp_path / "b", offsets=[0, 1, 2])
    with pytest.raises(SeriesError, match="2 series could be meant") as error:
        read_series(tmp_path)
    for text in (first.series_uid, second.series_uid, "synthetic CT, 11 files", "3 files", "series_uid"):
        assert text in str(error.value)
    assert read_series(tmp_path, series_uid=second.series_uid)[0].geometry.shape[0] == 3
    with pytest.raises(SeriesError, match=r"no series 1\.2\.3 here"):
        read_series(tmp_path, series_uid="1.2.3")


def test_original_before_derived(tmp_path: Path) -> None:
    original = make_series(tmp_path / "a")
    make_series(tmp_path / "b", change=lambda d, n: setattr(d, "ImageType", ["DERIVED", "SECONDARY", "REFORMATTED"]))
    assert read_series(tmp_path)[1].series_uid == original.series_uid
    assert read_series(tmp_path / "b")[0].geometry.shape[0] == 11


def rtstruct(path: Path, series_uid: str, frame_uid: str) -> None:
    """The least of an RTSTRUCT that refers to a series."""
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4", "RTSTRUCT"
    d.SeriesInstanceUID, d.StudyInstanceUID, d.StructureSetLabel = "1.2.3.5", "1.2.3.6", "plan"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = frame_uid, [study]
    d.ReferencedFrameOfReferenceSequence = [frame]
    save(d, path)


def test_the_series_an_rtstruct_refers_to_can_be_preferred(tmp_path: Path) -> None:
    make_series(tmp_path / "a")
    second = make_series(tmp_path / "b")
    rtstruct(tmp_path / "rs.dcm", second.series_uid, second.frame_of_reference_uid)
    assert read_series(tmp_path, prefer_referenced=True)[1].series_uid == second.series_uid
    (found,) = [s for s in scan(tmp_path) if s.kind == "RTSTRUCT"]
    assert found.referenced_series == (second.series_uid,)
    assert found.referenced_frames == (second.frame_of_reference_uid,)
    assert found.description == "plan"


def test_folders_without_a_series(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_series(tmp_path / "nowhere")
    with pytest.raises(SeriesError, match="no DICOM file here"):
        read_series(tmp_path)
    litter(tmp_path)
    with pytest.raises(SeriesError, match=r"no CT or MR images here, only \d+ files? of Secondary Capture Image \(Modality CT\)"):
        read_series(tmp_path / "capture")
    make_series(tmp_path / "one", offsets=[0])
    with pytest.raises(SeriesError, match="CT of 1 slice"):
        read_series(tmp_path / "one")


# ---- doubles and odd ones


def test_exact_doubles_are_dropped_with_a_note(tmp_path: Path) -> None:
    written = make_series(tmp_path)
    for n in (2, 5):
        (tmp_path / f"copy{n}.dcm").write_bytes(written.paths[n].read_bytes())
    volume, _, notes = read_series(tmp_path)
    assert volume.geometry.shape[0] == 11
    assert notes == ("2 image(s) are exact doubles of others in the same place: left out",)


def test_different_images_in_one_place_are_an_error_that_says_how_they_differ(tmp_path: Path) -> None:
    written = make_series(tmp_path)
    common = {"series_uid": written.series_uid, "study_uid": written.study_uid, "frame_of_reference_uid": written.frame_of_reference_uid}
    make_series(tmp_path, image=lambda p: ramp(p), prefix="phase", change=lambda d, n: setattr(d, "AcquisitionNumber", 2), **common)
    with pytest.raises(SeriesError, match="two different images in one place") as error:
        read_series(tmp_path)
    assert "AcquisitionNumber 1 and 2" in str(error.value)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.996194698, 0.087155743]),
        ("PixelSpacing", [1.0, 1.01]),
        ("FrameOfReferenceUID", "1.2.3"),
    ],
)
def test_a_slice_unlike_the_others_is_an_error_that_names_it(tmp_path: Path, keyword: str, value: object) -> None:
    make_series(tmp_path, change=lambda d, n: setattr(d, keyword, value) if n == 4 else None)
    with pytest.raises(SeriesError, match=f"{keyword} differs within the series") as error:
        read_series(tmp_path)
    assert "0004.dcm" in str(error.value)


def test_another_matrix_within_the_series_is_an_error(tmp_path: Path) -> None:
    written = make_series(tmp_path)
    make_series(tmp_path, rows=16, offsets=[12], prefix="x", series_uid=written.series_uid, numbers=[12])
    with pytest.raises(SeriesError, match=r"matrix differs within the series: 32x40 in \d+\.dcm, 16x40 in x0000\.dcm"):
        read_series(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"])
def test_missing_geometry_is_an_error_that_names_file_and_attribute(tmp_path: Path, keyword: str) -> None:
    make_series(tmp_path, change=lambda d, n: delattr(d, keyword) if n == 3 else None)
    with pytest.raises(SeriesError, match=keyword) as error:
        read_series(tmp_path)
    assert "0003.dcm" in str(error.value)


def test_a_series_without_frame_of_reference_is_read_with_a_note(tmp_path: Path) -> None:
    make_series(tmp_path, change=lambda d, n: delattr(d, "FrameOfReferenceUID"))
    _, source, notes = read_series(tmp_path)
    assert "no FrameOfReferenceUID" in notes[0]
    assert source.frame_of_reference_uid == read_series(tmp_path)[1].frame_of_reference_uid


def test_images_of_two_patients_are_an_error_unless_one_is_named(tmp_path: Path) -> None:
    """No rule (original before derived, CT before MR) may decide whose images are contoured."""
    ours = make_series(tmp_path / "a", patient_id="one", offsets=[0, 2])
    make_series(
        tmp_path / "b", patient_id="two", offsets=[0, 2], change=lambda d, n: setattr(d, "ImageType", ["DERIVED", "PRIMARY", "AXIAL"])
    )
    with pytest.raises(SeriesError, match="images of 2 patients"):
        read_series(tmp_path)
    assert read_series(tmp_path, series_uid=ours.series_uid)[1].patient["PatientID"] == "one"


def test_one_series_of_two_patients_is_an_error_that_keeps_their_names(tmp_path: Path) -> None:
    make_series(tmp_path, offsets=[0, 2, 4, 6], change=lambda d, n: setattr(d, "PatientID", f"secret-{n // 2}"))
    with pytest.raises(SeriesError, match="PatientID differs") as error:
        read_series(tmp_path)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("gone", [("RescaleSlope", "RescaleIntercept"), ("RescaleIntercept",)])
def test_a_ct_without_rescale_holds_no_hu(tmp_path: Path, gone: tuple[str, ...]) -> None:
    make_series(tmp_path, offsets=[0, 2], change=lambda d, n: [delattr(d, keyword) for keyword in gone])
    with pytest.raises(SeriesError, match="the values are no HU"):
        read_series(tmp_path)


def test_a_ct_of_other_units_is_no_ct_in_hu(tmp_path: Path) -> None:
    for kind in ("ED", "Z_EFF"):
        make_series(tmp_path / kind, offsets=[0, 2], change=lambda d, n, kind=kind: setattr(d, "RescaleType", kind))
        with pytest.raises(SeriesError, match=f"RescaleType is {kind}"):
            read_series(tmp_path / kind)
    make_series(tmp_path / "modified", offsets=[0, 2], change=lambda d, n: setattr(d, "RescaleType", "HU_MOD"))
    assert any("modified HU" in note for note in read_series(tmp_path / "modified")[2])


def test_images_that_share_an_identity_are_noted(tmp_path: Path) -> None:
    make_series(tmp_path, offsets=[0, 2], change=lambda d, n: setattr(d, "SOPInstanceUID", "1.2.3"))
    assert any("one SOPInstanceUID" in note for note in read_series(tmp_path)[2])


def test_a_patient_position_that_is_not_told_is_not_made_up(tmp_path: Path) -> None:
    make_series(tmp_path, offsets=[0, 2], patient_position="FFS", change=lambda d, n: delattr(d, "PatientPosition"))
    assert read_series(tmp_path)[1].patient_position == ""


@pytest.mark.parametrize(
    ("keyword", "raw", "message"),
    [
        ("RescaleSlope", b"nan ", "finite"),
        ("RescaleSlope", b"0 ", "RescaleSlope is 0"),
        ("RescaleIntercept", b"inf ", "finite"),
        ("RescaleIntercept", b"1e300 ", "make values of 1e\\+300"),
        ("PixelSpacing", b"0\\1 ", "not between"),
        ("PixelSpacing", b"-1\\1 ", "not between"),
        ("PixelSpacing", b"1 ", "2 finite number"),
        ("ImagePositionPatient", b"a\\b\\c ", "not a number"),
        ("ImagePositionPatient", b"1e30\\0\\0 ", "from the origin"),
        ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0 ", "not at right angles"),
        ("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0 ", "length 0"),
        ("NumberOfFrames", b"9999999 ", "NumberOfFrames"),
    ],
)
def test_nonsense_values_are_errors(tmp_path: Path, keyword: str, raw: bytes, message: str) -> None:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    def spoil(d: Dataset, n: int) -> None:
        tag = Tag(tag_for_keyword(keyword))
        d[tag] = RawDataElement(tag, "DS" if keyword != "NumberOfFrames" else "IS", len(raw), raw, 0, False, True)

    make_series(tmp_path, change=spoil)
    with pytest.raises(InputError, match=message):
        read_series(tmp_path)


def test_a_matrix_beyond_the_limit_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    def huge(d: Dataset, n: int) -> None:
        d.Rows = d.Columns = 65535

    make_series(tmp_path, change=huge)
    with pytest.raises(LimitError, match="65535 x 65535"):
        read_series(tmp_path)
