"""``oncontour structures`` on patients in DICOM and NIfTI, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from oncontour import cli
from oncontour.commands.structures import structures
from oncontour.errors import ConfigError
from oncontour.io import read, write
from oncontour.phantom import head_neck
from tests.phantoms import SMALL_GRID

MAKE = ["Ring = ring(Parotid_L, 4mm to 9mm)", "Left = parotid_l + (6mm, 0mm left)", "Both = Left + Parotid_R"]


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("patients")
    for format in ("dicom", "nifti"):
        write(head_neck(0, *SMALL_GRID), out / format, format=format)
    return out


@pytest.fixture(scope="module")
def done(patients):
    return structures(patients / "dicom", out=patients / "out", make=MAKE)


def test_what_was_in_the_rtstruct_stays_to_the_byte_and_the_new_ones_follow(patients: Path, done) -> None:
    before = read(patients / "dicom")
    (patients / "again").mkdir()
    for file in (patients / "dicom").rglob("*"):
        if file.is_file() and "RS" not in file.name.upper() and "struct" not in file.name.lower():
            (patients / "again" / file.name).write_bytes(file.read_bytes())
    (patients / "again" / "rs.dcm").write_bytes((done.out / "rtstruct.dcm").read_bytes())
    after = read(patients / "again")
    assert list(after.contours) == [*before.contours, "Ring", "Left", "Both"]
    for name, drawn in before.contours.items():
        assert [one.tobytes() for one in after.contours[name]] == [one.tobytes() for one in drawn]
    left, parotid = after.mask("Left").array, after.mask("Parotid_L").array
    assert not (parotid & ~left).any()
    assert not (after.mask("Ring").array & parotid).any()
    told = {row.name: row for row in done.made}
    assert after.mask("Both").volume_cc == pytest.approx(told["Both"].written_cc, rel=0.05)


def test_the_page_and_the_record_have_old_and_new(done) -> None:
    record = json.loads((done.out / "report.json").read_text())
    assert [one["from"] for one in record["made"]] == MAKE
    page = (done.out / "report.html").read_text()
    assert all(name in page for name in ("Ring", "Left", "Both", "Parotid_R"))
    assert "Left = parotid_l + (6mm, 0mm left): " in str(done)


def test_a_patient_in_nifti_gets_masks_and_dicom_and_nifti_agree(patients: Path, done) -> None:
    made = structures(patients / "nifti", out=patients / "masks_out", make=MAKE[1:2])
    files = sorted(path.name for path in (patients / "masks_out" / "masks").iterdir())
    assert "Left.nii.gz" in files
    assert len(files) == len(made.case.structures)
    dicom = next(row for row in done.made if row.name == "Left")
    assert made.made[0].surface_cc == pytest.approx(dicom.surface_cc, rel=0.03)  # voxels of 5 and 6 mm say less than contours


def test_what_is_empty_and_what_no_slice_holds_are_told(patients: Path, tmp_path: Path) -> None:
    make = ["None = Parotid_L & Parotid_R", "Long = SpinalCord + (40mm inferior)"]
    done = structures(patients / "dicom", out=tmp_path / "out", make=make)
    assert "None = Parotid_L & Parotid_R: empty, nothing is left" in str(done)
    assert "Long goes on beyond the first or last slice of the image: " in str(done)
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["input"]["notes"]
    assert any(note.startswith("Long goes on beyond") for note in notes)


def test_an_rtstruct_of_another_frame_is_not_added_to(patients: Path, tmp_path: Path) -> None:
    """An export that rewrote the UIDs of the images alone: the new structures get a file of their own, in the images' frame."""
    folder = tmp_path / "patient"
    shutil.copytree(patients / "dicom", folder)
    file = next(path for path in folder.rglob("*") if path.is_file() and dcmread(path, stop_before_pixels=True).Modality == "RTSTRUCT")
    dataset = dcmread(file)
    for item in (*dataset.StructureSetROISequence, *dataset.ReferencedFrameOfReferenceSequence):
        name = "ReferencedFrameOfReferenceUID" if "ReferencedFrameOfReferenceUID" in item else "FrameOfReferenceUID"
        setattr(item, name, "1.2.3.4.5")
    dataset.save_as(file)
    done = structures(folder, out=tmp_path / "out", make=["Both = Parotid_L + Parotid_R"], same_frame=True)
    assert [str(one.ROIName) for one in dcmread(done.out / "rtstruct.dcm").StructureSetROISequence] == ["Both"]
    assert "rtstruct.dcm has the new structures alone" in str(done)


def test_the_protocol_of_a_clinic(patients: Path, tmp_path: Path) -> None:
    file = tmp_path / "protocol.yaml"
    file.write_text("structures:\n  Parotids: Parotid_L + Parotid_R\n  Opt: Parotids - (NoSuch + 5mm)\n")
    told = str(structures(patients / "dicom", out=tmp_path / "out", protocol=file, skip_absent=True))
    assert "Opt was left out: this patient has no NoSuch" in told
    with pytest.raises(ConfigError, match="this patient has no NoSuch, in column 21"):
        structures(patients / "dicom", out=tmp_path / "other", protocol=file)
    file.write_text("PTV: CTV + 5mm\n")
    with pytest.raises(ConfigError, match="a mapping 'structures'"):
        structures(patients / "dicom", out=tmp_path / "other", protocol=file)


def test_the_example_protocol_can_be_read() -> None:
    from oncontour.algebra.words import parse
    from oncontour.commands.structures import _protocol

    lines = [parse(text) for text in _protocol(Path(__file__).parents[2] / "examples" / "structures.yaml")]
    assert [line.name for line in lines][:2] == ["PTV_5400", "PTV_5400_eval"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing is to be made"),
        (["--make", "X = Parotid_X + 5mm"], "did you mean Parotid_"),
        (["--make", "parotid_l = Parotid_R + 5mm"], "there is a parotid_l already"),
        (["--make", "X = Parotid_L + 5"], "5 has no unit, in column 17"),
    ],
)
def test_a_slip_is_one_sentence_and_nothing_is_written(words, told, patients: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["structures", str(patients / "dicom"), "--out", str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
