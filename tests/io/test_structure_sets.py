"""Whose structures the images bear: their own, else those of the same frame of reference, else what a person says is in the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from oncontour import cli
from oncontour.commands import run as pipeline
from oncontour.commands.convert import convert
from oncontour.core.notes import NoteCode, about
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, OncontourError, StructureError
from oncontour.io import read, write
from oncontour.io.dicom.seg import write_seg
from oncontour.io.onto import read_onto
from tests.commands.test_plan import patient as with_contours
from tests.dicom_cases import make_series
from tests.io.test_read import box, copy, patient


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """CT, RTSTRUCT and RTDOSE, all of one series and one frame of reference."""
    write(with_contours(), tmp_path / "p1")
    return tmp_path / "p1"


def exported_again(clinic: Path, frame: str = "") -> str:
    """The CT gets other UIDs as an export does, its frame of reference too where ``frame`` is given; the dose follows the CT. Gives the
    series UID."""
    series = str(generate_uid())
    for path in sorted((clinic / "CT").iterdir()):
        d = pydicom.dcmread(path)
        d.SeriesInstanceUID, d.SOPInstanceUID = series, generate_uid()
        d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
        d.FrameOfReferenceUID = frame or d.FrameOfReferenceUID
        d.save_as(path)
    if frame and (clinic / "RTDOSE.dcm").exists():
        d = pydicom.dcmread(clinic / "RTDOSE.dcm")
        d.FrameOfReferenceUID = frame
        d.save_as(clinic / "RTDOSE.dcm")
    return series


def moved(path: Path, z_mm: float) -> None:
    """The structure set with its contours shifted along z."""
    d = pydicom.dcmread(path)
    for roi in d.ROIContourSequence:
        for contour in roi.ContourSequence:
            contour.ContourData[2::3] = [f"{float(v) + z_mm:.3f}" for v in contour.ContourData[2::3]]
    d.save_as(path)


def of_series(path: Path, to: Path, series: str) -> pydicom.Dataset:
    """A copy of a structure set that refers to another series."""
    d = copy(path, to)
    d.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = series
    d.save_as(to)
    return d


# ---- images without a frame of reference


def without_frame(clinic: Path) -> None:
    for path in sorted((clinic / "CT").iterdir()):
        d = pydicom.dcmread(path)
        del d.FrameOfReferenceUID
        d.save_as(path)


def test_of_images_without_a_frame_the_reference_to_the_series_is_enough(clinic: Path, tmp_path: Path) -> None:
    before = read(clinic)
    without_frame(clinic)
    note = "the images name no frame of reference: RTSTRUCT.dcm refers to their series, and is taken as lying on them"
    after = read(clinic)
    assert after.structures == before.structures
    assert np.array_equal(after.mask("SpinalCord").array, before.mask("SpinalCord").array)
    assert note in after.facts["notes"]
    (tmp_path / "truth").mkdir()
    (clinic / "RTSTRUCT.dcm").rename(tmp_path / "truth/RTSTRUCT.dcm")
    known = read_onto(tmp_path / "truth", read(clinic))
    assert np.array_equal(known.mask("SpinalCord").array, before.mask("SpinalCord").array)
    assert note in known.facts["notes"]


def test_no_frame_of_reference_is_made_up_in_words(clinic: Path) -> None:
    without_frame(clinic)
    theirs = of_series(clinic / "RTSTRUCT.dcm", clinic / "RTSTRUCT.dcm", "1.2.3")
    with pytest.raises(StructureError) as raised:
        read(clinic, structure_set_uid=theirs.SOPInstanceUID)
    assert f"the structures lie in frame of reference {theirs.FrameOfReferenceUID}, the images in none" in str(raised.value)
    with pytest.raises(StructureError, match="the images in none"):
        read_onto(clinic / "RTSTRUCT.dcm", read(clinic))


# ---- the same frame of reference


def test_structures_of_another_series_in_the_same_frame_are_read(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(clinic)
    exported_again(clinic)
    after = read(clinic)
    assert after.structures == before.structures
    assert np.array_equal(after.mask("SpinalCord").array, before.mask("SpinalCord").array)
    (note,) = about(after.facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)
    assert note.startswith("RTSTRUCT.dcm was drawn on another series")
    assert cli.main(["dvh", str(clinic), "--out", str(tmp_path / "dvh")]) == 0
    assert "drawn on another series" in capsys.readouterr().out
    assert any("drawn on another series" in one for one in json.loads((tmp_path / "dvh/dvh.json").read_text())["notes"])
    assert cli.main(["convert", str(clinic), str(tmp_path / "nifti")]) == 0
    assert "drawn on another series" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "nifti/masks").iterdir()) == ["PTV_4000.nii.gz", "SpinalCord.nii.gz"]
    (tmp_path / "cohort.csv").write_text("patient,path\na,p1\n")
    assert cli.main(["features", str(tmp_path / "cohort.csv"), "--out", str(tmp_path / "f.csv"), "--families", "stat"]) == 0
    assert "of a: RTSTRUCT.dcm was drawn on another series" in capsys.readouterr().out
    assert "\na,SpinalCord," in (tmp_path / "f.csv").read_text()


def test_those_that_refer_to_the_series_come_first(clinic: Path) -> None:
    other = of_series(clinic / "RTSTRUCT.dcm", clinic / "mr.dcm", "1.2.3")
    other.StructureSetDate = "29990101"
    other.save_as(clinic / "mr.dcm")
    case = read(clinic)
    assert not about(case.facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)
    assert "RTSTRUCT of other images left out: mr.dcm" in case.facts["notes"]
    picked = read(clinic, structure_set_uid=str(other.SOPInstanceUID))
    assert about(picked.facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)


def test_several_of_equal_standing_are_listed(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clinic / "RTSTRUCT.dcm"
    uids = [str(of_series(path, clinic / f"{n}.dcm", f"1.2.3.{n}").SOPInstanceUID) for n in (1, 2)]
    path.unlink()
    assert cli.main(["dvh", str(clinic)]) == StructureError.exit_code
    told = capsys.readouterr().err
    assert all(uid in told for uid in uids)
    assert "--structure_set_uid" in told
    assert cli.main(["dvh", str(clinic), "--structure_set_uid", uids[1]]) == 0
    assert "2.dcm was drawn on another series (1.2.3.2)" in capsys.readouterr().out
    assert read(clinic, lenient=True).structures == ()
    of_series(path.with_name("1.dcm"), clinic / "3.dcm", "1.2.3.1")
    (clinic / "2.dcm").unlink()
    with pytest.raises(StructureError, match=r"none is the newest.*--structure_set_uid"):
        read(clinic)


def test_segments_follow_the_same_rule(tmp_path: Path) -> None:
    """A SEG of another series in the same frame is read where nothing is nearer, and picked by its UID."""
    write(patient(), tmp_path / "p1")
    clinic = tmp_path / "p1"
    write_seg({"SpinalCord": box()}, clinic / "SEG.dcm", source=read(clinic).source)
    uid = str(pydicom.dcmread(clinic / "SEG.dcm").SOPInstanceUID)
    assert read(clinic, structure_set_uid=uid).structures == ("SpinalCord",)
    (clinic / "RTSTRUCT.dcm").unlink()
    exported_again(clinic)
    case = read(clinic)
    assert np.array_equal(case.mask("SpinalCord").array, box().array)
    assert about(case.facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)
    exported_again(clinic, "1.2.3.4")
    assert read(clinic).structures == ()
    accepted = read(clinic, same_frame=True)
    assert np.array_equal(accepted.mask("SpinalCord").array, box().array)
    assert about(accepted.facts["notes"], NoteCode.FRAME_ACCEPTED)


def test_organs_of_another_series_come_with_a_segmentation_of_this_one(tmp_path: Path) -> None:
    """Each kind by itself: the SEG refers to the series, the RTSTRUCT to another one in the frame; of a name in both the nearer is read."""
    write(patient(), tmp_path / "p1")
    clinic = tmp_path / "p1"
    exported_again(clinic)
    nearer = box(k=slice(2, 3))
    write_seg({"GTV1": box(), "Parotid_L": nearer}, clinic / "SEG.dcm", source=read(clinic).source)
    case = read(clinic)
    assert set(case.structures) == {"GTV1", "Parotid_L", "Larynx", "Weird/one"}
    assert np.array_equal(case.mask("Parotid_L").array, nearer.array)
    assert case.facts["names"]["Parotid_L"] == "Parotid_L"
    (note,) = about(case.facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)
    assert note.startswith("RTSTRUCT.dcm was drawn on another series")
    told = "structures of RTSTRUCT.dcm left out, as there are structures of that name in SEG.dcm: Parotid_L"
    assert [str(note) for note in about(case.facts["notes"], NoteCode.STRUCTURES_LEFT_OUT)] == [told]
    of_series(clinic / "RTSTRUCT.dcm", clinic / "other.dcm", "1.2.3")
    case = read(clinic)
    assert set(case.structures) == {"GTV1", "Parotid_L"}
    (note,) = about(case.facts["notes"], NoteCode.STRUCTURES_LEFT_OUT)
    assert "2 structure sets of different other series" in note
    assert "--structure_set_uid" in note


def dated(path: Path, date: str) -> None:
    d = pydicom.dcmread(path)
    d.InstanceCreationDate = d.ContentDate = date
    d.InstanceCreationTime = d.ContentTime = "120000"
    d.save_as(path)


@pytest.mark.parametrize("dates", [("20200101", "20260101"), ("20260101", "20200101")])
def test_of_segmentations_of_one_structure_the_newest_is_read(dates: tuple[str, str], tmp_path: Path) -> None:
    """Five times, as UIDs are random: 4 or 2 slices of 8 by 10 voxels."""
    write(patient(), tmp_path / "p1")
    clinic, masks = tmp_path / "p1", (box(), box(k=slice(3, 5)))
    source = read(clinic).source
    (clinic / "RTSTRUCT.dcm").unlink()
    for _ in range(5):
        for name, mask, date in zip("ab", masks, dates, strict=True):
            write_seg({"GTV1": mask}, clinic / f"{name}.dcm", source=source)
            dated(clinic / f"{name}.dcm", date)
        newest = dates.index(max(dates))
        case = read(clinic)
        assert case.mask("GTV1").array.sum() == (4 * 80, 2 * 80)[newest]
        assert any(f"segments of {'ba'[newest]}.dcm left out" in note for note in case.facts["notes"])


def test_segmentations_of_one_structure_and_one_date_are_refused(tmp_path: Path) -> None:
    write(patient(), tmp_path / "p1")
    clinic = tmp_path / "p1"
    source = read(clinic).source
    (clinic / "RTSTRUCT.dcm").unlink()
    for name, mask in (("a", box()), ("b", box(k=slice(3, 5)))):
        write_seg({"GTV1": mask, "Heart": box()}, clinic / f"{name}.dcm", source=source)
        dated(clinic / f"{name}.dcm", "20260101")
    with pytest.raises(StructureError, match=r"GTV1 in several segmentations.*none is the newest.*--structure_set_uid"):
        read(clinic)
    assert read(clinic, lenient=True).structures == ("Heart",)
    uid = str(pydicom.dcmread(clinic / "b.dcm").SOPInstanceUID)
    assert read(clinic, structure_set_uid=uid).mask("GTV1").array.sum() == 2 * 80


def test_what_is_read_alone_is_doubted_as_in_a_folder(clinic: Path, tmp_path: Path) -> None:
    """RTSTRUCT and SEG, and a whole patient, of another series in the same frame and of another PatientID."""
    whole = tmp_path / "whole"
    write(read(clinic), whole)
    case = read(clinic)
    write_seg({"SpinalCord": case.mask("SpinalCord")}, tmp_path / "SEG.dcm", source=case.source)
    (clinic / "RTSTRUCT.dcm").rename(tmp_path / "RTSTRUCT.dcm")
    for name in ("SEG.dcm", "RTSTRUCT.dcm"):
        assert not about(read_onto(tmp_path / name, case).facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)
        assert not about(read_onto(tmp_path / name, case).facts["notes"], NoteCode.ANOTHER_PATIENT_ID)
    exported_again(clinic)
    case = read(clinic)
    for path in (tmp_path / "SEG.dcm", tmp_path / "RTSTRUCT.dcm", whole):
        (note,) = about(read_onto(path, case).facts["notes"], NoteCode.STRUCTURES_OF_ANOTHER_SERIES)
        assert note.startswith(f"{path.name} was drawn on another series (")
    for path in (tmp_path / "SEG.dcm", tmp_path / "RTSTRUCT.dcm", *whole.rglob("*.dcm")):
        copy(path, path, PatientID="somebody else")
    for path in (tmp_path / "SEG.dcm", tmp_path / "RTSTRUCT.dcm", whole):
        (note,) = about(read_onto(path, case).facts["notes"], NoteCode.ANOTHER_PATIENT_ID)
        assert note.endswith(f"make sure that it is theirs: {path.name}")


# ---- another name of the same frame of reference


def test_rewritten_uids_are_accepted_where_a_person_says_so(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(clinic)
    exported_again(clinic, "1.2.3.4")
    assert cli.main(["dvh", str(clinic)]) == StructureError.exit_code
    told = capsys.readouterr().err
    assert "no structures here: RTSTRUCT of other images left out: RTSTRUCT.dcm" in told
    assert "--same_frame" in told
    uid = str(pydicom.dcmread(clinic / "RTSTRUCT.dcm").SOPInstanceUID)
    assert cli.main(["dvh", str(clinic), "--structure_set_uid", uid]) == StructureError.exit_code
    assert "--same_frame" in capsys.readouterr().err
    after = read(clinic, same_frame=True)
    for name in before.structures:
        assert np.array_equal(after.mask(name).array, before.mask(name).array)
    assert cli.main(["dvh", str(clinic), "--same_frame", "--out", str(tmp_path / "dvh")]) == 0
    said = "RTSTRUCT.dcm names another frame of reference"
    assert said in capsys.readouterr().out
    assert any(said in note for note in json.loads((tmp_path / "dvh/dvh.json").read_text())["notes"])
    assert cli.main(["convert", str(clinic), str(tmp_path / "nifti"), "--same_frame"]) == 0
    assert said in capsys.readouterr().out
    assert (tmp_path / "nifti/masks/SpinalCord.nii.gz").exists()


@pytest.mark.parametrize("to", ["nifti", "dicom"])
def test_what_was_accepted_is_told_of_what_was_converted(clinic: Path, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    """convert --same_frame, then features, which reads what convert wrote; then converted back. No UID and no file name goes along."""
    exported_again(clinic, "1.2.3.4")
    assert cli.main(["convert", str(clinic), str(tmp_path / "once" / "a"), "--same_frame", "--to", to]) == 0
    (tmp_path / "cohort.csv").write_text("patient,path\na,once/a\n")
    capsys.readouterr()
    assert cli.main(["features", str(tmp_path / "cohort.csv"), "--out", str(tmp_path / "f.csv"), "--families", "stat"]) == 0
    said = "structures named another frame of reference than the images in the DICOM that they come from: taken as the same"
    assert f"of a: {said}" in capsys.readouterr().out
    assert cli.main(["convert", str(tmp_path / "once" / "a"), str(tmp_path / "twice")]) == 0
    (note,) = about(read(tmp_path / "twice").facts["notes"], NoteCode.FRAME_ACCEPTED)
    assert note.startswith(said)
    if to == "nifti":
        assert json.loads((tmp_path / "once/a/remarks.json").read_text()) == {"remarks": ["frame of reference accepted"]}
        assert cli.main(["convert", str(clinic), str(tmp_path / "once" / "a"), "--same_frame", "--to", to, "--overwrite"]) == 0


def test_remarks_of_another_kind_are_left_alone(clinic: Path, tmp_path: Path) -> None:
    write(read(clinic), tmp_path / "nifti", format="nifti")
    assert not (tmp_path / "nifti/remarks.json").exists()
    for text in ("[", "[1]", '{"remarks": "dose"}', '{"remarks": ["none such", 1, {}]}'):
        (tmp_path / "nifti/remarks.json").write_text(text)
        assert read(tmp_path / "nifti").facts["notes"] == ()


def test_what_is_not_in_the_same_frame_is_refused_all_the_same(clinic: Path) -> None:
    """1 mm off the slices; another patient; nobody's PatientID."""
    exported_again(clinic, "1.2.3.4")
    path = clinic / "RTSTRUCT.dcm"
    moved(path, 1.0)
    with pytest.raises(StructureError, match=r"up to 1\.00 mm off the nearest slice of the images, more than 0\.05 mm"):
        read(clinic, same_frame=True)
    moved(path, 2.0)  # 3 mm in all: a whole slice, which nothing but a person can see
    assert read(clinic, same_frame=True).structures
    for patient_id in ("somebody else", ""):
        copy(path, path, PatientID=patient_id)
        with pytest.raises(StructureError, match="no structure set has the PatientID of the images"):
            read(clinic, same_frame=True)
        with pytest.raises(StructureError, match="PatientID"):
            read(clinic, same_frame=True, structure_set_uid=str(pydicom.dcmread(path).SOPInstanceUID))


def test_an_export_that_rewrote_the_frame_of_reference_alone(clinic: Path) -> None:
    """The structure set refers to the series still, and its structures to another frame of reference."""
    before = read(clinic)
    path = clinic / "RTSTRUCT.dcm"
    d = pydicom.dcmread(path)
    for roi in d.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3.4"
    d.save_as(path)
    with pytest.raises(StructureError, match=r"frame of reference 1\.2\.3\.4.*--same_frame"):
        read(clinic)
    for case in (read(clinic, same_frame=True), read_onto(path, before, same_frame=True)):
        assert np.array_equal(case.mask("SpinalCord").array, before.mask("SpinalCord").array)
        assert about(case.facts["notes"], NoteCode.FRAME_ACCEPTED)


def test_contours_of_another_folder(clinic: Path, tmp_path: Path) -> None:
    """As assess and --truth read them: alone, or with the CT that they were drawn on."""
    elsewhere = tmp_path / "old"
    write(read(clinic), elsewhere)
    exported_again(clinic, "1.2.3.4")
    case = read(clinic)
    for path in (clinic / "RTSTRUCT.dcm", elsewhere):
        with pytest.raises(StructureError, match="--same_frame"):
            read_onto(path, case)
        drawn = read_onto(path, case, same_frame=True)
        assert drawn.structures == ("PTV_4000", "SpinalCord")
        assert about(drawn.facts["notes"], NoteCode.FRAME_ACCEPTED)


def test_of_what_is_no_dicom_nothing_can_be_picked(clinic: Path, tmp_path: Path) -> None:
    write(read(clinic), tmp_path / "nifti", format="nifti")
    with pytest.raises(ConfigError, match=r"--same_frame.*no DICOM"):
        read(tmp_path / "nifti", same_frame=True)
    for name in "ab":
        write(patient(), tmp_path / "many" / name, format="nifti")
    with pytest.raises(OncontourError, match="for one patient, not for a cohort"):
        convert(tmp_path / "many", tmp_path / "out", same_frame=True)


def test_what_came_with_the_ct_need_not_fit_the_frame_of_a_truth(clinic: Path, tmp_path: Path) -> None:
    """--same_frame is meant for --truth: somebody else's RTSTRUCT beside the CT is left out, as it is without a truth."""
    truth = tmp_path / "truth.dcm"
    (clinic / "RTSTRUCT.dcm").rename(truth)
    copy(truth, clinic / "stray.dcm", PatientID="somebody else")
    exported_again(clinic, "1.2.3.4")
    with pytest.raises(StructureError, match="no structure set has the PatientID of the images"):
        pipeline._read(clinic, None, None, None, True)
    case = pipeline._read(clinic, None, None, None, True, of_truth=True)
    assert "ct" in case.images
    assert any("no structure set has the PatientID" in note for note in about(case.facts["notes"], NoteCode.STRUCTURES_LEFT_OUT))
    assert pipeline._read_truth(truth, case, True).structures == ("PTV_4000", "SpinalCord")


def test_of_two_truths_one_is_given_as_a_file(clinic: Path, tmp_path: Path) -> None:
    case, folder = read(clinic), tmp_path / "sets"
    folder.mkdir()
    for n in (1, 2):
        copy(clinic / "RTSTRUCT.dcm", folder / f"{n}.dcm")
    with pytest.raises(StructureError, match="Way out: give the file of one of them instead of the folder"):
        pipeline._read_truth(folder, case, False)
    assert pipeline._read_truth(folder / "1.dcm", case, False).structures == ("PTV_4000", "SpinalCord")
    copy(clinic / "RTSTRUCT.dcm", clinic / "2.dcm")
    with pytest.raises(StructureError, match=r"none is the newest.*of --truth: give the file itself"):
        pipeline._read_truth(clinic, case, False)


def test_the_one_of_several_alone_is_picked_by_uid(clinic: Path, tmp_path: Path) -> None:
    case, folder = read(clinic), tmp_path / "sets"
    folder.mkdir()
    uids = [str(copy(clinic / "RTSTRUCT.dcm", folder / f"{n}.dcm").SOPInstanceUID) for n in (1, 2)]
    with pytest.raises(StructureError, match=rf"2 structure sets: .*{uids[0]}.*--structure_set_uid"):
        read_onto(folder, case)
    assert read_onto(folder, case, structure_set_uid=uids[0]).structures == ("PTV_4000", "SpinalCord")
    with pytest.raises(StructureError, match=r"no structure set 1\.2 is here"):
        read_onto(folder, case, structure_set_uid="1.2")


def test_what_lies_in_the_frame_of_the_images_is_read_with_what_is_accepted(clinic: Path) -> None:
    """One structure in the images' frame of reference, the other in one of another name, whichever comes first."""
    path = clinic / "RTSTRUCT.dcm"
    whole = read(clinic)
    for n in (0, 1):
        d = pydicom.dcmread(path)
        frame = str(d.StructureSetROISequence[1 - n].ReferencedFrameOfReferenceUID)
        d.StructureSetROISequence[n].ReferencedFrameOfReferenceUID = "1.2.3.4"
        name, other = (str(d.StructureSetROISequence[m].ROIName) for m in (n, 1 - n))
        d.save_as(path)
        assert read(clinic).structures == (other,)
        both = read(clinic, same_frame=True)
        assert both.structures == whole.structures
        for one in whole.structures:
            assert np.array_equal(both.mask(one).array, whole.mask(one).array)
        (note,) = about(both.facts["notes"], NoteCode.FRAME_ACCEPTED)
        assert f"names another frame of reference for {name} (1.2.3.4" in note
        copy(path, path, PatientID="somebody else")
        case = read(clinic, same_frame=True)
        assert case.structures == (other,)
        assert any("different PatientIDs" in note for note in about(case.facts["notes"], NoteCode.STRUCTURES_LEFT_OUT))
        copy(path, path, PatientID=whole.source.patient["PatientID"])
        d = pydicom.dcmread(path)
        d.StructureSetROISequence[n].ReferencedFrameOfReferenceUID = frame
        d.save_as(path)


def test_our_own_segmentation_on_uneven_slices_is_accepted(tmp_path: Path) -> None:
    """Slices 1 and 3 mm apart: the frames lie on the finer grid that the images are read on; 0.5 mm beside it they are refused."""
    make_series(tmp_path / "p/ct", offsets=(-6, -5, -4, -3, 0, 3, 6))
    case = read(tmp_path / "p")
    voxels = np.zeros(case.geometry.shape, bool)
    voxels[2:8, 10:20, 10:20] = True
    write_seg({"GTV1": Volume(voxels, case.geometry)}, tmp_path / "p/SEG.dcm", source=case.source)
    copy(tmp_path / "p/SEG.dcm", tmp_path / "p/SEG.dcm", FrameOfReferenceUID="1.2.3.4")
    with pytest.raises(StructureError, match=r"frame of reference 1\.2\.3\.4.*--same_frame"):
        read(tmp_path / "p")
    for accepted in (read(tmp_path / "p", same_frame=True), read_onto(tmp_path / "p/SEG.dcm", case, same_frame=True)):
        assert np.array_equal(accepted.mask("GTV1").array, voxels)
        assert about(accepted.facts["notes"], NoteCode.FRAME_ACCEPTED)
    d = pydicom.dcmread(tmp_path / "p/SEG.dcm")
    for frame in d.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[2] += 0.5
    d.save_as(tmp_path / "p/SEG.dcm")
    with pytest.raises(StructureError, match=r"up to 0\.50 mm off the nearest slice"):
        read(tmp_path / "p", same_frame=True)
