"""``io.read`` and ``io.write``: whatever a path is becomes a Case, or one clear sentence."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from oncontour.commands.dvh import dvh
from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, DoseError, InputError, OncontourError, OutputError, StructureError
from oncontour.io import read, write
from oncontour.io.dicom.patient_write import losses
from oncontour.io.dicom.rtdose import RT_PLAN, DoseKind, write_rtdose
from oncontour.io.dicom.seg import write_seg
from oncontour.io.image.nifti import write_image
from oncontour.io.onto import read_onto
from oncontour.phantom import head_neck
from tests.dicom_cases import make_series, save

GRID = Geometry.regular((6, 20, 24), (2.0, 1.0, 1.5), (-10.0, 20.0, 30.0))


def box(k: slice = slice(1, 5), j: slice = slice(4, 12), i: slice = slice(5, 15), grid: Geometry = GRID) -> Volume:
    array = np.zeros(grid.shape, bool)
    array[k, j, i] = True
    return Volume(array, grid)


def patient() -> Case:
    random = np.random.default_rng(0)
    ct = Volume(random.integers(-1024, 2000, GRID.shape).astype(np.int16), GRID)
    dose = Volume(random.random((3, 10, 12), np.float32) * 70, GRID.resample((4, 2, 3)))
    masks = {"Parotid_L": box(), "Larynx": box(k=slice(0, 0)), "Weird/one": box(j=slice(2, 3))}
    return Case("p1", {"ct": ct, "dose": dose}, masks, facts={"names": {"Parotid_L": "LeftParotid"}})


# ---- real patients


def test_a_real_clinical_folder(data: Path) -> None:
    case = read(data / "dicom/LUNG1-001")
    assert case.id == "LUNG1-001"
    assert case.geometry.shape == (134, 512, 512)
    assert case.structures == ("GTV1", "SpinalCord", "Lung_L", "Lung_R")
    assert case.facts["names"]["Lung_L"] == "Lung-Left"
    assert case.facts["unmapped"] == ()
    left, right = (np.concatenate(case.contours[f"Lung_{side}"].polygons)[:, 0].mean() for side in "LR")
    assert left > 0 > right


def test_each_series_has_its_own_structures(data: Path) -> None:
    """One folder with CT and MR, each with an RTSTRUCT: they are told apart by what they refer to."""
    ct, mr = read(data / "dicom/STS_044"), read(data / "dicom/STS_044/MR_T1", id="x")
    assert (list(ct.images), list(mr.images)) == (["ct"], ["mr"])
    assert ct.structures == ct.facts["unmapped"] == ("GTV_Mass_CT",)
    assert mr.structures == ("GTV_Mass_MR_T1",)
    assert mr.id == "x"
    assert any("MR series" in note for note in ct.facts["notes"])
    assert any("RTSTRUCT of other images" in note for note in ct.facts["notes"])
    again = read(data / "dicom/STS_044", series_uid=mr.source.series_uid)
    assert again.structures == mr.structures


def test_the_nifti_layout(data: Path) -> None:
    case = read(data / "openkbp/validation/pt_239")
    assert case.id == "pt_239"
    assert set(case.images) == {"ct", "dose"}
    assert set(case.masks) == {"Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "PTV_5600", "PTV_6300", "PTV_7000"}
    assert case.facts["names"]["PTV_7000"] == "PTV70"
    assert all(mask.array.dtype == bool for mask in case.masks.values())


# ---- other things


def test_single_images(tmp_path: Path) -> None:
    image = Volume(np.ones((2, 3, 4), np.int16), Geometry.regular((2, 3, 4)))
    case = read(write_image(image, tmp_path / "scan.nrrd"))
    assert (case.id, list(case.images)) == ("scan", ["ct"])
    assert case.facts["notes"] == ("scan.nrrd is taken as a CT in HU",)
    assert list(read(write_image(image, tmp_path / "MR.mha")).images) == ["mr"]


def test_what_only_dicom_has_cannot_be_picked_elsewhere(tmp_path: Path) -> None:
    case = head_neck(0, (9, 7, 7), 1.0, (16, 32, 32))
    write(case, tmp_path / "layout", format="nifti")
    write_image(case.ct, tmp_path / "ct.nii.gz")
    for path in (tmp_path / "layout", tmp_path / "ct.nii.gz"):
        for picked in ({"doses": ["1.2.3"]}, {"series_uid": "1.2.3"}, {"structure_set_uid": "1.2.3"}):
            with pytest.raises(ConfigError, match=r"is picked \(1.2.3\), and this patient is no DICOM"):
                read(path, **picked)


def test_masks_alone_and_odd_names(tmp_path: Path) -> None:
    for name in ("LeftParotid", "Parotid_L", "thing"):
        write_image(box(), tmp_path / f"masks/{name}.nii.gz")
    write_image(Volume(box().array * np.float32(0.7), GRID), tmp_path / "masks/Larynx.nii.gz")
    case = read(tmp_path)
    assert case.facts["names"] == {"Larynx": "Larynx", "LeftParotid": "LeftParotid", "Parotid_L": "Parotid_L", "thing": "thing"}
    assert case.facts["unmapped"] == ("thing",)
    assert case.facts["notes"] == ("'LeftParotid' and 'Parotid_L' both mean Parotid_L; the first is called 'LeftParotid' here",)
    assert set(case.masks) == set(case.facts["names"])
    assert np.array_equal(case.masks["Larynx"].array, box().array)


def test_names_of_images_in_capitals(tmp_path: Path) -> None:
    write_image(patient().ct, tmp_path / "CT.nii.gz")
    assert list(read(tmp_path).images) == ["ct"]


@pytest.mark.parametrize("names", [("ct.nii.gz", "CT.nrrd"), ("masks/Larynx.nii.gz", "masks/Larynx.nrrd")])
def test_two_files_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_image(box(), tmp_path / name)
    with pytest.raises(InputError, match="two files are called"):
        read(tmp_path)


def test_image_files_among_dicom(tmp_path: Path) -> None:
    """A stray one is passed over; a CT in both forms is nobody's guess."""
    made = make_series(tmp_path, offsets=[0, 2, 4])
    write_image(box(), tmp_path / "thumbnail.nrrd")
    case = read(tmp_path)
    assert case.source.series_uid == made.series_uid
    assert case.facts["notes"] == ("passed over: 1 file(s) that are no DICOM",)
    write_image(patient().ct, tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="it is not told which is meant"):
        read(tmp_path)


def _pdfs(folder: Path) -> None:
    for n in range(3):
        (folder / f"{n}.pdf").write_bytes(b"%PDF-1.7\n" + bytes(2000))


def _empty(folder: Path) -> None:
    pass


def _one_slice(folder: Path) -> None:
    make_series(folder, offsets=(0,))


def _mask_elsewhere(folder: Path) -> None:
    write_image(Volume(np.zeros((2, 3, 4), np.int16), Geometry.regular((2, 3, 4))), folder / "ct.nii.gz")
    write_image(box(), folder / "masks/a.nii.gz")


def _broken_image(folder: Path) -> None:
    (folder / "ct.nii.gz").write_bytes(b"no gzip")


@pytest.mark.parametrize("make", [_pdfs, _empty, _one_slice, _mask_elsewhere, _broken_image])
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    with pytest.raises(OncontourError) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="no such"):
        read(tmp_path / "missing")


def test_importing_is_light() -> None:
    code = "import sys, oncontour.io; print([m for m in ('torch', 'pydicom', 'SimpleITK', 'highdicom', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- what belongs together


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A patient written as DICOM: CT, RTSTRUCT, RTDOSE."""
    write(patient(), tmp_path / "p1")
    return tmp_path / "p1"


def copy(path: Path, to: Path, **values: object) -> pydicom.Dataset:
    """The same object again as a new instance, changed."""
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(to)
    return dataset


def test_written_dicom_comes_back(clinic: Path) -> None:
    before, after = patient(), read(clinic)
    assert after.id == "p1"
    assert np.array_equal(after.ct.array, before.ct.array)
    assert after.geometry.same_grid(before.geometry)
    assert after.images["dose"].geometry.same_grid(before.images["dose"].geometry)
    assert np.allclose(after.images["dose"].array, before.images["dose"].array, atol=7e-5)
    assert set(after.structures) == set(before.structures)
    for name in before.structures:
        assert np.array_equal(after.mask(name).array, before.masks[name].array), name
    assert after.facts["names"]["Parotid_L"] == "LeftParotid"
    assert len(after.contours["Larynx"]) == 0  # looked for and not found


def test_a_case_travels_between_processes(clinic: Path) -> None:
    case = read(clinic)
    again = pickle.loads(pickle.dumps(case))
    assert again.source == case.source
    assert np.array_equal(again.mask("Parotid_L").array, case.mask("Parotid_L").array)


def test_the_newest_structure_set(clinic: Path) -> None:
    path = clinic / "RTSTRUCT.dcm"
    old = copy(path, clinic / "old.dcm", StructureSetDate="20010101", StructureSetLabel="old")
    case = read(clinic)
    assert any("newest of 2 structure sets" in note for note in case.facts["notes"])
    assert read(clinic, structure_set_uid=old.SOPInstanceUID).structures == case.structures
    with pytest.raises(StructureError, match=r"no structure set 1\.2\.3"):
        read(clinic, structure_set_uid="1.2.3")
    copy(path, clinic / "again.dcm")
    with pytest.raises(StructureError, match="none is the newest"):
        read(clinic)
    shutil.copy(path, clinic / "the-same.dcm")  # the same instance twice is one
    (clinic / "again.dcm").unlink()
    assert read(clinic).structures == case.structures


def test_objects_of_others_are_left_out_and_said(clinic: Path) -> None:
    dose = pydicom.dcmread(clinic / "RTDOSE.dcm")
    dose.FrameOfReferenceUID = generate_uid()
    dose.save_as(clinic / "RTDOSE.dcm")
    case = read(clinic)
    assert "dose" not in case.images
    assert "RTDOSE of other images left out: RTDOSE.dcm" in case.facts["notes"]


def test_two_plans_are_no_dose(clinic: Path) -> None:
    write_rtdose(patient().images["dose"], clinic / "second.dcm", source=read(clinic).source)
    case = read(clinic)
    assert "dose" not in case.images
    assert any("2 doses of 2 plan(s)" in note for note in case.facts["notes"])


def test_a_dose_of_several_plans_beside_one_of_a_plan_is_no_dose(clinic: Path) -> None:
    copy(clinic / "RTDOSE.dcm", clinic / "sum.dcm", DoseSummationType="MULTI_PLAN")
    case = read(clinic)
    assert "dose" not in case.images
    assert any("it is not told which is meant" in note for note in case.facts["notes"])


@pytest.mark.parametrize("name", ["RTSTRUCT.dcm", "RTDOSE.dcm"])
def test_another_patient_id_is_told(clinic: Path, name: str) -> None:
    copy(clinic / name, clinic / name, PatientID="somebody else")
    notes = [note for note in read(clinic).facts["notes"] if "another PatientID" in note]
    assert len(notes) == 1
    assert name in notes[0]
    assert "somebody" not in notes[0]


def test_segments_join_the_contours(clinic: Path) -> None:
    case = read(clinic)
    masks = {"SpinalCord": box(j=slice(7, 9)), "Parotid_L": box()}
    write_seg(masks, clinic / "SEG.dcm", source=case.source)
    joined = read(clinic)
    assert set(joined.structures) == {*case.structures, "SpinalCord"}
    assert np.array_equal(joined.masks["SpinalCord"].array, masks["SpinalCord"].array)
    assert any("Parotid_L" in note and "SEG.dcm" in note for note in joined.facts["notes"])
    shutil.copy(clinic / "SEG.dcm", clinic / "copy.dcm")
    assert read(clinic).facts["notes"] == joined.facts["notes"]
    bits = bytes(reversed(pydicom.dcmread(clinic / "SEG.dcm").PixelData))
    edited(clinic / "SEG.dcm", clinic / "copy.dcm", PixelData=bits)
    with pytest.raises(StructureError, match=r"SEG\.dcm and copy\.dcm bear one SOPInstanceUID"):
        read(clinic)


def edited(path: Path, to: Path, **values: object) -> None:
    """Another file with the UID of ``path``, changed."""
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(to)


def encoded_otherwise(path: Path, to: Path) -> None:
    """The same instance in the other of the two plain transfer syntaxes: other bytes, the same content."""
    dataset = pydicom.dcmread(path)
    implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if implicit else ImplicitVRLittleEndian
    dataset.save_as(to, implicit_vr=not implicit, little_endian=True)
    assert to.read_bytes() != path.read_bytes()


def test_two_structure_sets_of_one_uid_are_one_only_where_they_are_the_same(clinic: Path) -> None:
    """The edited one is 10 mm to the left of its backup: neither is taken in silence."""
    path = clinic / "RTSTRUCT.dcm"
    before = read(clinic)
    shutil.copy(path, clinic / "copy.dcm")
    encoded_otherwise(path, clinic / "encoded.dcm")
    same = read(clinic)
    assert np.array_equal(same.mask("Parotid_L").array, before.mask("Parotid_L").array)
    assert not any("cannot be used" in note or "structure sets" in note for note in same.facts["notes"])
    dataset = pydicom.dcmread(path)
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", ()):
            x_mm = [float(v) + 10 for v in contour.ContourData[::3]]
            contour.ContourData[::3] = [f"{v:.3f}" for v in x_mm]
    dataset.save_as(clinic / "a_backup.dcm")
    for asked in (None, str(dataset.SOPInstanceUID)):
        with pytest.raises(StructureError, match=rf"one SOPInstanceUID \({dataset.SOPInstanceUID}\).*Way out: take") as caught:
            read(clinic, structure_set_uid=asked)
        assert "a_backup.dcm" in str(caught.value)
        assert any(name in str(caught.value) for name in ("RTSTRUCT.dcm", "copy.dcm", "encoded.dcm"))  # which are the same
    lenient = read(clinic, lenient=True)
    assert lenient.structures == ()
    assert any("the structures cannot be used" in note and "a_backup.dcm" in note for note in lenient.facts["notes"])
    other = copy(path, clinic / "other.dcm")
    assert read(clinic, structure_set_uid=other.SOPInstanceUID).structures == before.structures


def dvhs_alone(dose: Dataset) -> None:
    """As planning systems export DVHs without their dose (C.8.8.4): no image modules, no frame of reference."""
    grid = ("PixelData", "GridFrameOffsetVector", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit")
    places = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PixelRepresentation", "DoseGridScaling")
    for name in (*grid, *places, "SamplesPerPixel", "PhotometricInterpretation", "FrameIncrementPointer"):
        delattr(dose, name)
    item = Dataset()
    item.DVHType, item.DoseUnits, item.DoseType, item.DVHDoseScaling, item.DVHVolumeUnits = "CUMULATIVE", "GY", "PHYSICAL", "1", "CM3"
    item.DVHNumberOfBins, item.DVHData = 2, ["0.1", "5", "0.1", "0"]
    dose.DVHSequence = [item]


@pytest.mark.parametrize("framed", [True, False])
def test_dvhs_alone_are_no_dose(clinic: Path, framed: bool) -> None:
    """Beside a dose they leave it the only one; without one there is none, and each is said."""
    before = read(clinic)
    dvhs = copy(clinic / "RTDOSE.dcm", clinic / "dvhs.dcm")
    dvhs_alone(dvhs)
    if not framed:
        del dvhs.FrameOfReferenceUID
    dvhs.save_as(clinic / "dvhs.dcm")
    after = read(clinic)
    assert np.array_equal(after.images["dose"].array, before.images["dose"].array)
    assert set(after.facts["notes"]) - set(before.facts["notes"]) == {"RTDOSE without a dose grid (DVHs alone) left out: dvhs.dcm"}
    for name in ("dvhs.dcm", str(dvhs.SOPInstanceUID)):
        with pytest.raises(
            DoseError, match=r"no dose grid in the file, DVHs alone \[dvhs\.dcm\]\. Way out: choose one of RTDOSE\.dcm \(PLAN"
        ):
            read(clinic, doses=[name])
    (clinic / "RTDOSE.dcm").unlink()
    alone = read(clinic)
    assert "dose" not in alone.images
    assert "RTDOSE without a dose grid (DVHs alone) left out: dvhs.dcm" in alone.facts["notes"]
    with pytest.raises(DoseError, match=r"no dose to use: RTDOSE without a dose grid \(DVHs alone\) left out: dvhs\.dcm"):
        dvh(clinic)


@pytest.mark.parametrize("lost", ["PixelData", "GridFrameOffsetVector"])
def test_a_dose_cut_short_is_not_taken_for_dvhs(clinic: Path, lost: str) -> None:
    """A grid that lost its pixels, or how its frames lie, is damaged: the plan's dose must not vanish with a note."""
    dose = pydicom.dcmread(clinic / "RTDOSE.dcm")
    delattr(dose, lost)
    dose.save_as(clinic / "RTDOSE.dcm")
    with pytest.raises(DoseError, match=r"no dose grid in the file|3 frames, but 0 values in GridFrameOffsetVector"):
        read(clinic)


def beams_of_60_and_20_gy(clinic: Path) -> list[Path]:
    """In place of the whole dose two of beams, evenly 60 and 20 Gy, which bear one SOPInstanceUID."""
    shape = read(clinic).images["dose"].array.shape
    paths = []
    for number, gy in ((1, 60), (2, 20)):
        plan, group, beam = Dataset(), Dataset(), Dataset()
        plan.ReferencedSOPClassUID, plan.ReferencedSOPInstanceUID = RT_PLAN, "1.2.3"
        group.ReferencedFractionGroupNumber, beam.ReferencedBeamNumber = 1, number
        plan.ReferencedFractionGroupSequence, group.ReferencedBeamSequence = [group], [beam]
        values = {
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "DoseGridScaling": "1",
            "PixelData": np.full(shape, gy, "<u2").tobytes(),
        }
        paths.append(clinic / f"beam{number}.dcm")
        edited(clinic / "RTDOSE.dcm", paths[-1], DoseSummationType="BEAM", ReferencedRTPlanSequence=[plan], **values)
    (clinic / "RTDOSE.dcm").unlink()
    return paths


def test_two_doses_of_one_uid_are_one_only_where_they_are_the_same(clinic: Path) -> None:
    """Of two beams with one UID neither is thrown away: 20 Gy, or 60, would pass for the plan's 80."""
    first, second = beams_of_60_and_20_gy(clinic)
    shutil.copy(first, clinic / "copy.dcm")
    encoded_otherwise(first, clinic / "encoded.dcm")
    uid = str(pydicom.dcmread(first).SOPInstanceUID)
    for doses in ((), (uid,), ("beam1.dcm", "beam2.dcm"), (str(second), "copy.dcm")):
        with pytest.raises(DoseError, match=rf"one SOPInstanceUID \({uid}\).*Way out: ") as caught:
            read(clinic, doses=doses)
        assert "beam2.dcm" in str(caught.value)
    lenient = read(clinic, lenient=True)
    assert "dose" not in lenient.images
    (unused,) = (note for note in lenient.facts["notes"] if "the dose cannot be used" in note)
    assert "beam2.dcm" in unused
    assert any(name in unused for name in ("beam1.dcm", "copy.dcm", "encoded.dcm"))  # which are the same
    assert read(clinic, doses=["beam2.dcm"]).images["dose"].array.max() == 20  # a file says which
    assert read(clinic, doses=["beam1.dcm", "copy.dcm"]).images["dose"].array.max() == 60
    edited(second, second, SOPInstanceUID="1.2.3.4.5")
    assert read(clinic).images["dose"].array.max() == 80


def test_two_doses_of_one_file_name_are_told_apart(clinic: Path) -> None:
    (clinic / "a").mkdir()
    copy(clinic / "RTDOSE.dcm", clinic / "a" / "RTDOSE.dcm", DoseGridScaling="0.001")
    with pytest.raises(DoseError, match=r"2 doses are called RTDOSE\.dcm.*SOPInstanceUID"):
        read(clinic, doses=["RTDOSE.dcm"])
    whole = read(clinic, doses=[clinic / "RTDOSE.dcm"]).images["dose"].array.max()
    assert whole == pytest.approx(patient().images["dose"].array.max(), rel=1e-5)


def exported_again(dataset: Dataset) -> None:
    """What archives and planning systems change of an instance that stays the same."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime, dataset.RetrieveAETitle = "20260101", "120000", "PACS"
    dataset.ApprovalStatus, dataset.ReviewDate, dataset.ReviewTime, dataset.ReviewerName = "APPROVED", "20260101", "120000", "X^Y"
    dataset.private_block(0x3287, "A VENDOR", create=True).add_new(0x01, "LO", "theirs")


def in_implicit_vr(dataset: Dataset) -> None:
    exported_again(dataset)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def in_words(dataset: Dataset) -> None:
    assert dataset["PixelData"].VR == "OB"
    dataset["PixelData"].VR = "OW"


def compressed(dataset: Dataset) -> None:
    exported_again(dataset)
    dataset.compress(RLELossless, generate_instance_uid=False)


def spelled_otherwise(dataset: Dataset) -> None:
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", ()):
            contour.ContourData = [f"{float(v):.4f}0" for v in contour.ContourData]


def in_big_endian(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    if "PixelData" in dataset:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()


def again(path: Path, change: Callable[[Dataset], None]) -> None:
    """Beside ``path`` another file of its UID, changed, which is found after it."""
    dataset = pydicom.dcmread(path)
    uid = dataset.SOPInstanceUID
    for element in dataset.iterall():
        element.value  # noqa: B018 - decoded in its own byte order
    change(dataset)
    assert dataset.SOPInstanceUID == uid
    syntax = dataset.file_meta.TransferSyntaxUID
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(
            path.with_name("z_" + path.name),
            dataset,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
        )


@pytest.fixture
def evenly(clinic: Path) -> Path:
    """``clinic`` with 60 Gy in 16 bits, and a segment."""
    write_seg({"SpinalCord": box(j=slice(7, 9))}, clinic / "SEG.dcm", source=read(clinic).source)
    dose = read(clinic).images["dose"]
    write_rtdose(Volume(np.full_like(dose.array, 60), dose.geometry), clinic / "RTDOSE.dcm", source=read(clinic).source)
    return clinic


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in ("RTSTRUCT", "RTDOSE", "SEG") for change in (exported_again, in_implicit_vr)),
        *(("RTSTRUCT", change) for change in (spelled_otherwise, in_big_endian)),
        *(("RTDOSE", change) for change in (compressed, in_big_endian)),
        ("SEG", in_words),
    ],
)
def test_a_copy_that_was_exported_again_is_the_same(evenly: Path, name: str, change: Callable[[Dataset], None]) -> None:
    before = read(evenly)
    again(evenly / f"{name}.dcm", change)
    assert (evenly / f"z_{name}.dcm").read_bytes() != (evenly / f"{name}.dcm").read_bytes()
    after = read(evenly)
    assert after.facts["notes"] == before.facts["notes"]
    assert np.array_equal(after.images["dose"].array, before.images["dose"].array)
    for structure in before.structures:
        assert np.array_equal(after.mask(structure).array, before.mask(structure).array), structure


def named_otherwise(dataset: Dataset) -> None:
    left, right = dataset.StructureSetROISequence[0], dataset.StructureSetROISequence[2]
    left.ROIName, right.ROIName = right.ROIName, left.ROIName


def of_points(dataset: Dataset) -> None:
    dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"


def test_what_is_noted_of_a_structure_set_alone_is_kept(tmp_path: Path) -> None:
    """Two of its contours enclose nothing: whoever judges it must know that they are not there."""
    make_series(tmp_path / "ct")
    case = read(tmp_path / "ct")
    mask = np.zeros(case.geometry.shape, bool)
    mask[2:8, 10:20, 10:20] = True
    write(case.with_masks({"Larynx": Volume(mask, case.geometry)}), tmp_path / "out")
    dataset = pydicom.dcmread(tmp_path / "out" / "RTSTRUCT.dcm")
    dataset.StructureSetROISequence[0].ROIName = "Kehlkopf neu"
    for n in (0, 5):
        dataset.ROIContourSequence[0].ContourSequence[n].ContourGeometricType = "OPEN_PLANAR"
    (tmp_path / "alone").mkdir()
    dataset.save_as(tmp_path / "alone" / "rs.dcm")
    (tmp_path / "out" / "RTSTRUCT.dcm").unlink()
    case = read(tmp_path / "out")
    drawn = read_onto(tmp_path / "alone" / "rs.dcm", case)
    assert drawn.facts["notes"] == (*case.facts["notes"], "'Kehlkopf neu': 2 contour(s) of type OPEN_PLANAR enclose nothing: left out")
    assert drawn.facts["unmapped"] == ("Kehlkopf neu",)
    assert drawn.facts["names"] == {"Kehlkopf neu": "Kehlkopf neu"}


def scaled(dataset: Dataset) -> None:
    dataset.DoseGridScaling = str(float(dataset.DoseGridScaling) / 4)


def shifted(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x + 10, y, z]


def of_another_plan(dataset: Dataset) -> None:
    dataset.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def effective(dataset: Dataset) -> None:
    dataset.DoseType = "EFFECTIVE"


def frame_shifted(dataset: Dataset) -> None:
    place = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    x, y, z = place.ImagePositionPatient
    place.ImagePositionPatient = [x, y, z + 2]


def relabelled(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentLabel = "Brainstem"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("RTSTRUCT", change) for change in (named_otherwise, of_points)),
        *(("RTDOSE", change) for change in (scaled, shifted, of_another_plan, effective)),
        *(("SEG", change) for change in (frame_shifted, relabelled)),
    ],
)
def test_what_differs_in_what_is_read_is_refused(evenly: Path, name: str, change: Callable[[Dataset], None]) -> None:
    again(evenly / f"{name}.dcm", change)
    with pytest.raises(InputError, match=rf"{name}\.dcm and z_{name}\.dcm bear one SOPInstanceUID"):
        read(evenly)


def with_damage(path: Path) -> None:
    """The first contour of the first structure says that it is longer than it can be."""
    data = path.read_bytes()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    at = data.index(b"\x06\x30\x50\x00") + 4  # ContourData; its length follows
    longer = int.from_bytes(data[at : at + 4], "little") + 2
    path.write_bytes(data[:at] + longer.to_bytes(4, "little") + data[at + 4 :])


def test_copies_that_are_damaged_alike_and_differ_elsewhere_are_refused(clinic: Path) -> None:
    """One structure of each cannot be read, at the same byte; the other, which is read, lies 1 mm from where it lies in the copy."""
    path, other = clinic / "RTSTRUCT.dcm", clinic / "z.dcm"
    dataset = pydicom.dcmread(path)
    x, y, z, *rest = dataset.ROIContourSequence[2].ContourSequence[0].ContourData
    beside = f"{float(x) + 1:.15f}"[: len(str(x))]
    dataset.ROIContourSequence[2].ContourSequence[0].ContourData = [beside, y, z, *rest]
    dataset.save_as(other)
    assert other.stat().st_size == path.stat().st_size
    for file in (path, other):
        with_damage(file)
    with pytest.raises(StructureError, match=r"RTSTRUCT\.dcm and z\.dcm bear one SOPInstanceUID"):
        read(clinic)
    other.write_bytes(path.read_bytes())
    assert read(clinic).structures == ("Larynx", "Weird/one")


def plan_of(clinic: Path, name: str, fractions: int, approval: str = "", *, dose: str = "RTDOSE.dcm", beams: int = 1) -> None:
    plan, group, prescription = Dataset(), Dataset(), Dataset()
    plan.SOPClassUID, plan.Modality, plan.ApprovalStatus = RT_PLAN, "RTPLAN", approval
    plan.SOPInstanceUID = str(pydicom.dcmread(clinic / dose).ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID)
    group.FractionGroupNumber, group.NumberOfFractionsPlanned, group.NumberOfBeams = 1, fractions, beams
    prescription.TargetPrescriptionDose = "60"
    plan.FractionGroupSequence, plan.DoseReferenceSequence = [group], [prescription]
    save(plan, clinic / f"{name}.dcm")


def test_two_plans_of_one_uid_tell_nothing_where_they_differ(clinic: Path) -> None:
    """The dose is there all the same; 25 fractions or 30 is nobody's guess."""
    plan_of(clinic, "plan", 25, "UNAPPROVED")
    plan_of(clinic, "copy", 25, "APPROVED")
    before = read(clinic)
    assert (before.facts["fractions"], before.facts["prescription_gy"]) == (25, 60)
    plan_of(clinic, "backup", 30)
    for doses in ((), ("RTDOSE.dcm",)):
        after = read(clinic, doses=doses)
        assert np.array_equal(after.images["dose"].array, before.images["dose"].array)
        assert not {"fractions", "prescription_gy"} & set(after.facts)
        assert any("backup.dcm and " in note and "of neither are taken" in note for note in after.facts["notes"])


def test_plans_of_one_uid_count_beams_where_they_agree(clinic: Path) -> None:
    """Of three beams one is missing: both plans say so, whatever else they differ in."""
    _, second = beams_of_60_and_20_gy(clinic)
    edited(second, second, SOPInstanceUID="1.2.3.4.5")
    for name, fractions in (("plan", 25), ("backup", 30)):
        plan_of(clinic, name, fractions, dose="beam1.dcm", beams=3)
    with pytest.raises(DoseError, match="the plan has 3 beams, doses of 2 are here"):
        read(clinic)
    plan_of(clinic, "backup", 30, dose="beam1.dcm", beams=2)
    case = read(clinic)
    assert case.images["dose"].array.max() == 80
    assert case.facts["rtdose"].summation == "BEAM"
    assert any("beams, fractions and prescription of neither" in note for note in case.facts["notes"])
    assert any("cannot be told whether that is all" in note for note in case.facts["notes"])


# ---- writing


def test_the_written_layout_comes_back(tmp_path: Path) -> None:
    before = patient()
    files = write(before, tmp_path / "out", format="nifti")
    names = ["ct.nii.gz", "dose.nii.gz", "masks/Larynx.nii.gz", "masks/LeftParotid.nii.gz", "masks/Weird_one.nii.gz"]
    assert [str(p.relative_to(tmp_path / "out")) for p in files] == names
    after = read(tmp_path / "out")
    assert np.array_equal(after.ct.array, before.ct.array)
    assert np.array_equal(after.masks["Parotid_L"].array, before.masks["Parotid_L"].array)
    assert not after.masks["Larynx"].array.any()
    assert "Weird_one" in after.facts["unmapped"]


def test_names_that_share_a_file_do_not_replace_each_other(tmp_path: Path) -> None:
    masks = {"a/b": box(), "a:b": box(j=slice(1, 2)), "A_b": box(j=slice(2, 3))}
    write(Case("p", {"ct": patient().ct}, masks), tmp_path / "out", format="nifti")
    found = read(tmp_path / "out")
    assert len(found.masks) == 3
    assert sorted(int(m.array.sum()) for m in found.masks.values()) == sorted(int(m.array.sum()) for m in masks.values())


def test_contours_are_rasterised(tmp_path: Path) -> None:
    square = np.array([[0.0, 25.0, 34.0], [6.0, 25.0, 34.0], [6.0, 31.0, 34.0], [0.0, 31.0, 34.0]])
    case = Case("p", {"ct": patient().ct}, contours={"Larynx": Contours((square,))})
    write(case, tmp_path / "out", format="nifti")
    assert np.array_equal(read(tmp_path / "out").masks["Larynx"].array, case.mask("Larynx").array)


def test_earlier_results_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(patient(), out)
    write(patient(), out, format="nifti")
    assert not (out / "CT").exists()
    write(patient(), out)
    for name in ("notes.txt", "IM-0001.dcm"):  # a hospital's own images lie in folders of that name too
        (out / "CT" / name).write_text("mine")
        for format in ("dicom", "nifti"):
            with pytest.raises(OutputError, match=name):
                write(patient(), out, format=format)
        assert (out / "CT" / name).read_text() == "mine"
        (out / "CT" / name).unlink()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="in the way"):
        write(patient(), tmp_path / "file")
    with pytest.raises(ConfigError, match="format"):
        write(patient(), out, format="docx")


def test_what_dicom_cannot_hold_leaves_nothing_behind(tmp_path: Path) -> None:
    case = patient()
    nan = np.array(case.images["dose"].array)
    nan[0, 0, 0] = np.nan
    bad_dose = case.with_images({"dose": Volume(nan, case.images["dose"].geometry)})
    bad_ct = case.with_images({"ct": Volume(np.full(GRID.shape, 40_000, np.int32), GRID)})
    no_image = Case("p", masks={"a": box()})
    for bad in (bad_dose, bad_ct, no_image):
        with pytest.raises(InputError) as error:
            write(bad, tmp_path / "out")
        assert ".part" not in str(error.value)  # what was being written has the name that was asked for
    assert list(tmp_path.iterdir()) == []


def test_a_dose_that_dicom_has_no_word_for_is_left_out_and_said(tmp_path: Path) -> None:
    """Two fraction groups without the plan that says whether they are all."""
    case = replace(patient(), facts={"rtdose": DoseKind("PHYSICAL", "", 1, (1, 2))})
    files = write(case, tmp_path / "out")
    assert {path.name for path in files if path.name.startswith("RT")} == {"RTSTRUCT.dcm"}
    assert "dose" not in read(tmp_path / "out").images
    (note,) = (note for note in losses(case) if note.startswith("dose"))
    assert "not written" in note
    assert "put the RTPLAN beside the doses" in note


def test_of_a_dose_without_a_plan_none_is_said_to_be_left_out() -> None:
    assert not any("the plan that it refers to" in note for note in losses(patient()))
    known = replace(patient(), facts={"rtdose": DoseKind()})
    assert any("the plan that it refers to is not written" in note for note in losses(known))


def test_a_known_patient_keeps_study_and_frame(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", rows=20, columns=24)
    case = read(tmp_path / "ct")
    again = read(write(case.with_masks({"Larynx": box(grid=case.geometry)}), tmp_path / "out")[0].parents[1])
    assert again.source.study_uid == case.source.study_uid
    assert again.source.frame_of_reference_uid == case.source.frame_of_reference_uid
    assert again.source.series_uid != case.source.series_uid
    assert again.source.patient["PatientID"] == case.source.patient["PatientID"]
    assert again.structures == ("Larynx",)


def test_everything_written_is_valid(clinic: Path, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    assert dciodvfy(clinic / "RTSTRUCT.dcm") == []
    assert dciodvfy(next((clinic / "CT").iterdir())) == []
