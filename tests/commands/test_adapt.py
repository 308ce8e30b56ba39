"""``oncontour adapt``, end to end: DICOM in, what is written read back, doses by closed forms, bad input in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import pytest

from oncontour import cli
from oncontour.adapt.propagate import Carried
from oncontour.commands.adapt import Result, adapt
from oncontour.commands.adapt_earlier import read_earlier
from oncontour.commands.adapt_find import box_of
from oncontour.commands.adapt_inputs import note_registrations, read_pair
from oncontour.commands.adapt_record import notes_of, stretched_words
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, FormatError, GeometryError, InputError, OutputError
from oncontour.io import read, write
from oncontour.io.dicom.registration import read_deformable, write_deformable
from oncontour.io.dicom.rtdose import read_rtdose
from oncontour.io.dicom.source import DicomSource
from oncontour.io.image.nifti import read_image
from oncontour.phantom import head_neck
from tests.io.test_registration import spatial

MOVED = (10.0, -5.0, 6.0)
"""Where the patient lies on the day: to the left, to anterior, to superior."""
ORGANS = ("Parotid_L", "Parotid_R", "Bone_Mandible")
NAME = "^".join(("Mustermann", "Erika"))


def slope(grid: Geometry) -> Volume:
    """30 Gy, and half a Gy more for each mm to the left."""
    x = grid.points(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))[..., 0]
    return Volume((40 + 0.2 * x).astype(np.float32), grid)


def moved(volume: Volume, mm: tuple[float, float, float]) -> Volume:
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += mm
    return Volume(volume.array, Geometry(volume.geometry.shape, affine))


@pytest.fixture(scope="module")
def planning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("p") / "planning"
    case = head_neck(1, (5, 4, 4), 1.0, (36, 56, 56))
    target = next(name for name in case.structures if name.startswith("PTV"))
    masks = {name: case.mask(name) for name in (*ORGANS, target)}
    write(Case("P1", {"ct": case.ct, "dose": slope(case.ct.geometry)}, masks), folder)
    for path in folder.rglob("*.dcm"):
        d = pydicom.dcmread(path)
        d.PatientName, d.StudyDate = NAME, "20260301"
        d.save_as(path)
    return folder


def visit(planning: Path, folder: Path, mm: tuple[float, float, float] = MOVED, **change: Volume) -> Path:
    """The same patient on another day, lying elsewhere."""
    ct = read(planning).ct
    write(Case("P1", {"ct": moved(ct, mm), **change}), folder)
    return folder


@pytest.fixture(scope="module")
def daily(planning: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return visit(planning, tmp_path_factory.mktemp("d") / "daily")


@pytest.fixture(scope="module")
def result(planning: Path, daily: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return adapt(planning, daily, out=tmp_path_factory.mktemp("o") / "out")


def source(folder: Path) -> DicomSource:
    found = read(folder).source
    assert isinstance(found, DicomSource)
    return found


def rigid(path: Path, planning: Path, daily: Path, mm: tuple[float, float, float]) -> Path:
    """A REG that takes points of the day to planning points by a shift."""
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    frames = {source(daily).frame_of_reference_uid: [matrix.ravel().tolist()]}
    return spatial(path, frames, source(planning).frame_of_reference_uid)


def shifting(path: Path, planning: Path, daily: Path, mm: tuple[float, float, float], nan: bool = False) -> Path:
    """A field that takes points of the day to planning points by a shift."""
    day = read(daily)
    grid = day.ct.geometry.pad((2, 2, 2), (2, 2, 2))
    u = np.broadcast_to(np.float32(mm)[:, None, None, None], (3, *grid.shape)).copy()
    u[:, :, :, 20] = np.nan if nan else u[:, :, :, 20]
    return write_deformable(Volume(u, grid), path, registered=source(daily), source=source(planning))


# ---- a known shift


def test_a_known_shift_is_found_and_told(result: Result) -> None:
    told = result.record["adapt"]
    assert told["set_up"]["by"] == "images"
    assert told["set_up"]["shift_mm"] == pytest.approx(MOVED, abs=0.5)
    assert told["set_up"]["angle_degrees"] < 0.3
    assert told["rigid_rest"]["length_mm"] < 0.5
    assert told["registration"]["problems"] == ()
    assert told["registration"]["inconsistency_mm"][0] < 0.5
    assert "left" in str(result)
    assert "not recalculated" in str(result)


def test_unchanged_anatomy_changes_nothing(result: Result, planning: Path) -> None:
    """Shifted as a whole: volumes, places beyond the set-up and doses are those of planning."""
    for name, one in result.record["adapt"]["structures"].items():
        assert one["how"] == ("rigid" if name.startswith("PTV") else "deformed")
        assert one["carried_cc"] == pytest.approx(one["planned_cc"], rel=0.02), name
        assert one["length_mm"] < 0.3
    doses = result.record["adapt"]["doses"]
    for name, planned in doses["planned"].items():
        assert doses["today"][name]["Dmean"] == pytest.approx(planned["Dmean"], rel=0.005)


def test_everything_written_is_read_back(
    result: Result, planning: Path, daily: Path, dciodvfy: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    out = result.out
    assert sorted(path.name for path in out.iterdir()) == [
        "dose.dcm", "dose_known.nii.gz", "dose_on_planning.dcm", "registration.dcm", "report.html", "report.json", "rtstruct.dcm",
    ]  # fmt: skip
    for path in out.glob("*.dcm"):
        assert dciodvfy(path) == []
    structures = pydicom.dcmread(out / "rtstruct.dcm")
    planned = pydicom.dcmread(planning / "RTSTRUCT.dcm")
    assert structures.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == planned.SOPInstanceUID
    assert structures.ApprovalStatus == "UNAPPROVED"
    assert {one.ROIGenerationAlgorithm for one in structures.StructureSetROISequence} == {"AUTOMATIC"}
    assert structures.PatientName == read(daily).source.patient["PatientName"]  # type: ignore[attr-defined]
    found = read_deformable(out / "registration.dcm")
    assert (found.registered, found.source) == (source(daily).frame_of_reference_uid, source(planning).frame_of_reference_uid)
    middle = read(daily).ct.geometry.centre_mm
    assert found.to_source(middle) == pytest.approx(np.asarray(middle) - MOVED, abs=1)
    day, warped = pydicom.dcmread(out / "dose.dcm"), pydicom.dcmread(out / "dose_on_planning.dcm")
    assert (day.SpatialTransformOfDose, warped.SpatialTransformOfDose) == ("RIGID", "NON_RIGID")
    by = warped.ReferencedSpatialRegistrationSequence[0].ReferencedSOPInstanceUID
    assert by == pydicom.dcmread(out / "registration.dcm").SOPInstanceUID
    assert "not recalculated" in day.DoseComment
    assert warped.FrameOfReferenceUID == source(planning).frame_of_reference_uid
    again = tmp_path / "again"
    again.mkdir()
    for path in [*daily.rglob("*.dcm"), out / "rtstruct.dcm", out / "dose.dcm"]:
        (again / path.name).write_bytes(path.read_bytes())
    case = read(again)
    assert set(case.structures) == set(result.case.structures)
    assert "dose" in case.images
    for name in case.structures:
        assert np.array_equal(case.mask(name).array, result.case.mask(name).array)


def test_nothing_but_dicom_names_the_patient(result: Result) -> None:
    page, record = ((result.out / name).read_text() for name in ("report.html", "report.json"))
    for text in (page, record, str(result)):
        assert "Mustermann" not in text
    assert page.count("not recalculated") >= 2
    assert json.loads(record)["adapt"]["dose_by"] == "carried"


# ---- doses by closed forms


def test_an_organ_that_moved_10_mm_has_the_mean_dose_of_the_closed_form(planning: Path, tmp_path: Path) -> None:
    """The couch stays (REG: no shift), everything lies 10 mm to the left: 0.2 Gy a mm is 2 Gy more; the REG is said to be given."""
    day = visit(planning, tmp_path / "day", (10.0, 0.0, 0.0))
    regs = [
        rigid(tmp_path / "set-up.dcm", planning, day, (0, 0, 0)),
        shifting(tmp_path / "field.dcm", planning, day, (-10.0, 0.0, 0.0)),
    ]
    told = adapt(planning, day, out=tmp_path / "out", reg=regs, structures=list(ORGANS)).record["adapt"]
    assert told["set_up"]["by"] == "REG"
    assert told["registration"]["correlation_after"] > told["registration"]["correlation_before"]
    for name in ORGANS:
        assert told["structures"][name]["moved_mm"] == pytest.approx((10, 0, 0), abs=0.01)
        planned = told["doses"]["planned"][name]["Dmean"]
        assert told["doses"]["today"][name]["Dmean"] == pytest.approx(planned + 2, rel=0.005)


def test_the_sum_of_two_visits_is_the_sum(planning: Path, daily: Path, result: Result, tmp_path: Path) -> None:
    """Five of ten fractions each; the second on a CT with a dose of its own, twice the planned one."""
    field = [shifting(tmp_path / "one.dcm", planning, daily, (-10.0, 5.0, -6.0))]
    first = adapt(planning, daily, out=tmp_path / "one", reg=field, fractions=5, planned_fractions=10)
    ct = read(planning).ct
    own = visit(planning, tmp_path / "second", (0.0, 0.0, 0.0), dose=slope(ct.geometry).map(lambda a: 2 * a))
    same = [shifting(tmp_path / "two.dcm", planning, own, (0.0, 0.0, 0.0))]
    second = adapt(planning, own, out=tmp_path / "two", reg=same, fractions=5, planned_fractions=10, add=[first.out])
    assert second.record["adapt"]["dose_by"] == "given"
    parts = [read_rtdose(out / "dose_on_planning.dcm")[0].array for out in (first.out, second.out)]
    total = read_rtdose(second.out / "dose_sum.dcm")[0].array
    assert np.allclose(total, parts[0] + parts[1], atol=2e-3)
    assert second.record["adapt"]["sum"]["share"] == pytest.approx(1)
    for name in ORGANS:
        planned, given = (second.record["adapt"]["sum"][key][name]["Dmean"] for key in ("planned", "given"))
        assert given == pytest.approx(1.5 * planned, rel=0.005)
    assert "integral dose" in str(second)
    planned, one, two = second.record["adapt"]["course"]
    assert one == first.record["adapt"]["visit"]
    for name in ORGANS:
        gy = [visit["structures"][name]["dose_gy"] for visit in (planned, one, two)]
        assert gy[1:] == pytest.approx([gy[0], 2 * gy[0]], rel=0.005)
        assert two["structures"][name]["volume_cc"] == pytest.approx(planned["structures"][name]["volume_cc"], rel=0.02)
    assert "Over the visits" in (second.out / "report.html").read_text()
    assert "Over the visits" not in (first.out / "report.html").read_text()
    with pytest.raises(InputError, match="would count twice"):
        adapt(planning, daily, out=tmp_path / "three", add=[first.out])
    with pytest.raises(InputError, match="no result of 'oncontour adapt'"):
        adapt(planning, daily, out=tmp_path / "three", add=[planning])
    with pytest.raises(ConfigError, match="5 of an unknown number of fractions"):
        adapt(planning, daily, out=tmp_path / "three", fractions=5)


def test_a_damaged_result_of_an_earlier_visit_is_a_sentence(planning: Path, daily: Path, result: Result, tmp_path: Path) -> None:
    given = read_pair(planning, visit(planning, tmp_path / "second", (0.0, 0.0, 0.0)))
    (held,) = read_earlier([result.out], given)
    assert held.dose[1] == 1
    assert set(held.point.structures) == set(result.case.structures)
    for number, (key, value) in enumerate({"share": None, "integral_before": "much", "planning_sha256": 7}.items()):
        spoiled = tmp_path / f"spoiled-{number}"
        shutil.copytree(result.out, spoiled)
        told = json.loads((spoiled / "report.json").read_text())
        told["accumulation"][key] = value
        (spoiled / "report.json").write_text(json.dumps(told))
        with pytest.raises(InputError, match=f"damaged: its accumulation has no usable {key}"):
            read_earlier([spoiled], given)
    (spoiled / "report.json").write_text(
        json.dumps(
            {
                **told,
                "accumulation": json.loads((result.out / "report.json").read_text())["accumulation"],
                "adapt": {"visit": {"structures": [1]}},
            }
        )
    )
    assert read_earlier([spoiled], given)[0].point.structures == {}
    (spoiled / "dose_known.nii.gz").unlink()
    with pytest.raises(InputError, match=r"dose_known\.nii\.gz is missing"):
        read_earlier([spoiled], given)


def test_a_registration_that_lies_in_the_daily_folder_is_not_taken_unasked(planning: Path, tmp_path: Path) -> None:
    day = visit(planning, tmp_path / "day")
    rigid(day / "set-up.dcm", planning, day, (0, 0, 0))
    shifting(day / "field.dcm", planning, day, (0, 0, 0))
    given = read_pair(planning, day)
    both = note_registrations(given, day, []).registrations
    assert len(both) == 2
    assert all("was not used: to take it, give its file with --reg" in text for text in both)
    assert any("Spatial Registration, the set-up," in text for text in both)
    (one,) = note_registrations(given, day, [day / "set-up.dcm"]).registrations
    assert "Deformable" in one
    assert notes_of(replace(given, registrations=both), planning, day)[-2:] == list(both)
    other = visit(planning, tmp_path / "other")
    rigid(day / "set-up.dcm", planning, other, (0, 0, 0))
    assert note_registrations(given, day, [day / "field.dcm"]).registrations == ()


def test_a_structure_beyond_the_ct_of_the_day_is_told(planning: Path, tmp_path: Path) -> None:
    """A visit that shows the skull alone has no place for the mandible: nothing of it is carried, and a sentence says so."""
    case = read(planning)
    grid = case.ct.geometry
    top = 1 + int(grid.voxels(box_of(case, ["Bone_Mandible"])[1])[0])
    part = grid.crop((top + 1, 0, 0), grid.shape)
    write(Case("P1", {"ct": case.ct.to(part)}), tmp_path / "day")
    field = shifting(tmp_path / "field.dcm", planning, tmp_path / "day", (0.0, 0.0, 0.0))
    found = adapt(planning, tmp_path / "day", out=tmp_path / "out", reg=[field], structures=["Bone_Mandible"], in_doubt=True)
    assert any(text.startswith("Bone_Mandible: 100 % of it lies beyond the CT of the day") for text in found.record["warnings"])
    assert found.record["adapt"]["structures"]["Bone_Mandible"]["carried_cc"] == 0


def test_landmarks_are_told(planning: Path, daily: Path, tmp_path: Path) -> None:
    day = np.asarray(read(daily).ct.geometry.centre_mm)
    lines = ["x,y,z,x,y,z", *(",".join(f"{v}" for v in (*(day + d), *(day + d - MOVED))) for d in (0.0, 10.0, -20.0))]
    (tmp_path / "points.csv").write_text("\n".join(lines))
    field = [shifting(tmp_path / "field.dcm", planning, daily, (-10.0, 5.0, -6.0))]
    result = adapt(planning, daily, out=tmp_path / "out", reg=field, landmarks=tmp_path / "points.csv")
    told = result.record["adapt"]["landmarks"]
    assert f"landmarks, before: mean {np.linalg.norm(MOVED):.2f}" in str(result)
    assert "The patient's right is on the left of axial and coronal pictures" in (result.out / "report.html").read_text(encoding="utf-8")
    assert "landmarks, deformed: mean 0.00, median 0.00, 95 % 0.00, worst 0.00 mm" in str(result)
    assert told["before"]["mean"] == pytest.approx(np.linalg.norm(MOVED), rel=1e-6)
    assert told["deformed"]["worst"] < 1e-3
    (tmp_path / "points.csv").write_text("1,2,3\n")
    with pytest.raises(FormatError, match="six numbers a line"):
        adapt(planning, daily, out=tmp_path / "no", landmarks=tmp_path / "points.csv")


def test_real_lungs_from_dicom(data: Path, tmp_path: Path) -> None:
    """A baseline CT with its lungs and a follow-up CT 35 mm away: the limits of the registration (51 landmarks, ``test_register.py``), with
    no mask of the day."""
    folder = data / "lung-ct-pair"
    images = [read_image(folder / f"3DCT_lung_{name}.mha").map(lambda hu: np.clip(hu, -1024, 3000)) for name in ("baseline", "followup")]
    lungs = read_image(folder / "3DCT_lung_baseline_mask.mha").map(lambda a: a > 0)
    baseline, follow_up = (np.loadtxt(folder / f"CT_3D_lung_{side}_point_set_corrected.txt", skiprows=2) for side in ("fixed", "moving"))
    write(Case("lung", {"ct": images[0]}).with_masks({"Lungs": lungs}), tmp_path / "planning")
    write(Case("lung", {"ct": images[1]}), tmp_path / "daily")
    np.savetxt(tmp_path / "points.csv", np.hstack([follow_up, baseline]), delimiter=",")
    result = adapt(tmp_path / "planning", tmp_path / "daily", out=tmp_path / "out", landmarks=tmp_path / "points.csv")
    told = result.record["adapt"]["landmarks"]
    assert told["before"]["mean"] > 35
    assert told["deformed"]["mean"] <= 1.6
    assert told["deformed"]["median"] <= 1.2
    assert told["deformed"]["p95"] <= 3.2


@pytest.mark.parametrize(
    ("name", "how", "carried_cc", "warned"),
    [
        ("Bone_Mandible", "deformed", 77.0, "+25 %"),
        ("Bone_Mandible", "deformed", 50.0, "-19 %"),
        ("Bone_Mandible", "deformed", 66.0, ""),
        ("Bone_Mandible", "deformed", 0.0, ""),
        ("Bone_Mandible", "direct", 77.0, ""),
        ("Parotid_R", "deformed", 40.0, ""),
    ],
)
def test_a_bone_that_the_field_stretched_is_told(name: str, how: Literal["deformed", "direct"], carried_cc: float, warned: str) -> None:
    """Bone keeps its volume; a parotid may shrink, no field stretched an outline drawn on the day, one that went is told elsewhere."""
    said = stretched_words(Carried(name, how, 61.8, carried_cc, (0.0, 0.0, 0.0), 0.0))
    assert bool(said) == bool(warned)
    assert warned in said
    assert stretched_words(Carried(name, how, 61.8, carried_cc, (0.0, 0.0, 0.0), 20.0)) == "", "cut by the edge of the CT, not stretched"


# ---- bad input


def changed(folder: Path, out: Path, **attributes: str) -> Path:
    out.mkdir()
    for path in folder.rglob("*.dcm"):
        d = pydicom.dcmread(path)
        for keyword, value in attributes.items():
            setattr(d, keyword, value)
        d.save_as(out / path.name)
    return out


def test_visits_that_do_not_belong_together_are_refused(planning: Path, daily: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = changed(daily, tmp_path / "before", StudyDate="20260228", SeriesDate="20260228")
    early = changed(planning, tmp_path / "early", SeriesDate="20260301")
    with pytest.raises(InputError, match="visits seem swapped: the daily CT is of 2026-02-28, before the planning CT of 2026-03-01"):
        adapt(early, before, out=out)
    with pytest.raises(InputError, match="two patients: their PatientIDs differ"):
        adapt(planning, changed(daily, tmp_path / "other", PatientID="P2"), out=out)
    with pytest.raises(InputError, match="planning and daily CT are one series"):
        adapt(planning, planning, out=out)
    with pytest.raises(InputError, match="no contours to carry"):
        adapt(daily, planning, out=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM file here"):
        adapt(planning, tmp_path / "empty", out=out)
    with pytest.raises(ConfigError, match="planning has no structure Liver"):
        adapt(planning, daily, out=out, structures=["Liver"])
    with pytest.raises(OutputError, match="within a visit's folder"):
        adapt(planning, daily, out=daily / "out")
    assert not out.exists()


def test_images_that_do_not_belong_together_are_refused(planning: Path, tmp_path: Path) -> None:
    ct, out = read(planning).ct, tmp_path / "out"
    for name, image in {"mirror": ct.map(lambda a: a[..., ::-1]), "flat": ct.map(lambda a: 0 * a)}.items():
        write(Case("P1", {"ct": image}), tmp_path / name)
    with pytest.raises(InputError, match="mirrored"):
        adapt(planning, tmp_path / "mirror", out=out)
    with pytest.raises(InputError, match="the image is constant"):
        adapt(planning, tmp_path / "flat", out=out)
    away = visit(planning, tmp_path / "away", (0.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match="share no field of view"):
        adapt(planning, away, out=out, reg=[rigid(tmp_path / "far.dcm", planning, away, (900, 0, 0))])
    doubted = adapt(planning, tmp_path / "mirror", out=out, in_doubt=True)
    assert "Carried although there is doubt" in doubted.record["banner"]
    assert "Carried although there is doubt" in (out / "report.html").read_text()


def test_one_frame_of_reference_and_two_places_is_refused(planning: Path, daily: Path, tmp_path: Path) -> None:
    same = changed(daily, tmp_path / "same", FrameOfReferenceUID=source(planning).frame_of_reference_uid)
    with pytest.raises(InputError, match=r"both CTs name one frame of reference, and the patient lies 12\.\d mm"):
        adapt(planning, same, out=tmp_path / "out")


def test_fields_of_other_programs_are_refused_where_they_make_no_sense(planning: Path, daily: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(GeometryError, match="not a number"):
        adapt(planning, daily, out=out, reg=[shifting(tmp_path / "nan.dcm", planning, daily, (0, 0, 0), nan=True)])
    grid = read(daily).ct.geometry
    u = np.zeros((3, *grid.shape), np.float32)
    u[0] = -2 * 4.0 * np.arange(grid.shape[2])
    folding = write_deformable(Volume(u, grid), tmp_path / "fold.dcm", registered=source(daily), source=source(planning))
    with pytest.raises(InputError, match="% of the field folds"):
        adapt(planning, daily, out=out, reg=[folding], in_doubt=True)
    wrong = write_deformable(Volume(0 * u, grid), tmp_path / "wrong.dcm", registered=source(planning), source=source(daily))
    with pytest.raises(InputError, match="0 deformations to"):
        adapt(planning, daily, out=out, reg=[wrong])
    twice = [rigid(tmp_path / f"{n}.dcm", planning, daily, (0, 0, 0)) for n in "ab"]
    with pytest.raises(InputError, match="two registrations of one kind"):
        adapt(planning, daily, out=out, reg=twice)
    assert not out.exists()


def test_a_dose_that_left_the_grid_costs_the_dvh_and_a_sentence(planning: Path, daily: Path, tmp_path: Path) -> None:
    """The dose of the day lies where no organ is."""
    grid = read(daily).ct.geometry
    corner = Volume(np.ones((4, 4, 4), np.float32), Geometry((4, 4, 4), grid.affine))
    there = visit(planning, tmp_path / "there", MOVED, dose=replace(corner))
    found = adapt(planning, there, out=tmp_path / "out", reg=[shifting(tmp_path / "f.dcm", planning, there, (-10.0, 5.0, -6.0))])
    assert any("No DVH of the day: none of the 4 structures meets the dose" in text for text in found.record["warnings"])
    assert (tmp_path / "out" / "rtstruct.dcm").exists()


def test_the_command_line(planning: Path, daily: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = shifting(tmp_path / "field.dcm", planning, daily, (-10.0, 5.0, -6.0))
    (tmp_path / "empty").mkdir()
    words = ["adapt", str(planning), str(daily), "--out", str(tmp_path / "out"), "--reg", str(field), "--targets", "deformed"]
    assert cli.main(words) == 0
    assert "deformed" in capsys.readouterr().out
    assert cli.main(["adapt", str(planning), str(tmp_path / "empty"), "--out", str(tmp_path / "no")]) == 2
