"""RTDOSE: placed right in every patient position, refused where it makes no sense, written so that it comes back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, DoseError, FormatError, InputError, OncontourError
from oncontour.io import read, write
from oncontour.io.dicom.rtdose import RT_DOSE, RT_PLAN, DoseKind, dose_kind, read_rtdose, write_rtdose
from oncontour.io.dicom.seg import write_seg
from tests.dicom_cases import PATIENT_POSITIONS, anatomy, save

EVEN = tuple(np.arange(0.0, 24.0, 2.0))
SCALING = 0.01
GRID = Geometry.regular((4, 5, 6), (3.0, 2.0, 2.5), (-10.0, 20.0, 30.0))


def ramp(points: Any) -> Any:
    """Dose 50 + x + 2 y + 3 z: linear, never negative here."""
    return 100 + points @ np.array([1.0, 2.0, 3.0]) / 2


def make_dose(
    path: Path,
    *,
    field: Callable[[Any], Any] = anatomy,
    position: str = "HFS",
    offsets: Sequence[float] = EVEN,
    vector: Sequence[float] | None = None,
    corner: Sequence[float] | None = None,
    change: Callable[[Dataset], None] | None = None,
    summation: str = "PLAN",
    plan: str = "1.2.3",
    beams: Sequence[int] = (),
) -> Path:
    """An RTDOSE of ``field``, 24 x 30 voxels of 1 x 1.25 mm a frame, the frames ``offsets`` mm along row x column from the first."""
    row, column = (np.array(v, float) for v in PATIENT_POSITIONS[position])
    normal, rows, columns = np.cross(row, column), 24, 30
    middle = (offsets[0] + offsets[-1]) / 2
    first = -row * 1.25 * (columns - 1) / 2 - column * (rows - 1) / 2 - normal * middle + 1.0 if corner is None else np.array(corner, float)
    j, i = np.mgrid[:rows, :columns]
    plane = first + j[..., None] * column + i[..., None] * 1.25 * row
    stored = np.rint(np.stack([field(plane + normal * o) for o in offsets]) / SCALING).astype("<u4")
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = RT_DOSE, generate_uid(), "RTDOSE"
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = "1.2.9", generate_uid(), "1.2.8"
    d.ImagePositionPatient, d.ImageOrientationPatient = [round(float(v), 6) for v in first], [*row.tolist(), *column.tolist()]
    d.PixelSpacing, d.Rows, d.Columns, d.NumberOfFrames = [1, 1.25], rows, columns, len(offsets)
    d.GridFrameOffsetVector = [float(v) for v in (offsets if vector is None else vector)]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 32, 32, 31
    d.DoseUnits, d.DoseType, d.DoseSummationType, d.DoseGridScaling = "GY", "PHYSICAL", summation, str(SCALING)
    reference, group = Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = RT_PLAN, plan
    group.ReferencedFractionGroupNumber = beams[0] if beams and summation == "FRACTION" else 1
    group.ReferencedBeamSequence = [_beam(number) for number in beams]
    reference.ReferencedFractionGroupSequence = [group]
    d.ReferencedRTPlanSequence = [reference]
    d.PixelData = stored.tobytes()
    d["PixelData"].VR = "OW"
    if change:
        change(d)
    save(d, path)
    return path


def _beam(number: int) -> Dataset:
    d = Dataset()
    d.ReferencedBeamNumber = number
    return d


def truth(volume: Volume, field: Callable[[Any], Any] = anatomy) -> Any:
    return field(volume.geometry.points(np.stack(np.indices(volume.geometry.shape), axis=-1)))


# ---- reading


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("offsets", [EVEN, tuple(-o for o in EVEN)], ids=["rising", "falling"])
def test_every_voxel_is_where_it_belongs(tmp_path: Path, position: str, offsets: Sequence[float]) -> None:
    dose, notes = read_rtdose(make_dose(tmp_path / "d.dcm", position=position, offsets=offsets))
    assert dose.array.dtype == np.float32
    assert np.abs(dose.array - truth(dose)).max() <= SCALING
    assert dose.array.max() > 100
    assert any("centigray" in note for note in notes)  # the phantom's peaks are several hundred


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_offsets_as_patient_z(tmp_path: Path, position: str) -> None:
    """PS3.3 C.8.8.3.2 (b): the vector holds z coordinates, its first that of ImagePositionPatient."""
    row, column = PATIENT_POSITIONS[position]
    sense = np.cross(row, column)[2]
    corner = [-20.0 * row[0], -20.0 * column[1], 31.0]
    vector = [31.0 + sense * o for o in EVEN]
    dose, _ = read_rtdose(make_dose(tmp_path / "d.dcm", field=ramp, position=position, vector=vector, corner=corner))
    assert np.abs(dose.array - truth(dose, ramp)).max() <= SCALING
    assert dose.geometry.origin_mm[2] == 31.0


def test_uneven_frames_are_interpolated_and_said(tmp_path: Path) -> None:
    dose, notes = read_rtdose(make_dose(tmp_path / "d.dcm", field=ramp, offsets=(0, 2, 4, 9, 11, 14)))
    assert dose.geometry.spacing_mm[0] == 2
    assert np.abs(dose.array - truth(dose, ramp)).max() <= SCALING
    assert any("interpolated" in note for note in notes)


def test_one_plane(tmp_path: Path) -> None:
    dose, notes = read_rtdose(make_dose(tmp_path / "d.dcm", field=ramp, offsets=(0,)))
    assert dose.geometry.shape == (1, 24, 30)
    assert any("one plane" in note for note in notes)


def edit(**values: Any) -> Callable[[Dataset], None]:
    def change(d: Dataset) -> None:
        for name, value in values.items():
            if value is None:
                delattr(d, name)
            else:
                setattr(d, name, value)

    return change


def negative(d: Dataset) -> None:
    d.PixelRepresentation = 1
    d.PixelData = np.full((12, 24, 30), -5, "<i4").tobytes()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (edit(DoseUnits="RELATIVE"), "RELATIVE, only GY"),
        (edit(DoseUnits=None), "missing"),
        (edit(DoseType="ERROR"), "ERROR"),
        (edit(DoseSummationType="CONTROL_POINT"), "CONTROL_POINT"),
        (edit(DoseSummationType=None), "missing"),
        (edit(DoseGridScaling=None), "positive"),
        (edit(DoseGridScaling="0"), "positive"),
        (edit(DoseGridScaling="-1"), "positive"),
        (edit(DoseGridScaling="1e300"), "DoseGridScaling is 1e"),
        (edit(PixelData=bytes(12 * 24 * 30 * 4)), "0 everywhere"),
        (negative, "negative"),
        (edit(PixelData=None), "no dose grid"),
        (edit(PixelData=bytes(1000)), "cut short"),
        (edit(GridFrameOffsetVector=[0.0, 1.0]), "2 values"),
        (edit(GridFrameOffsetVector=None), "0 values"),
        (edit(GridFrameOffsetVector=[7.0 + o for o in EVEN]), "begins with 7"),
        (edit(GridFrameOffsetVector=[0.0, 0.0, *EVEN[2:]]), "neither rises nor falls"),
        (edit(GridFrameOffsetVector=[0.0, 1.0, *range(200, 1200, 100)]), "too uneven"),
        (edit(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "right angles"),
        (edit(ImagePositionPatient=None), "ImagePositionPatient"),
        (edit(PixelSpacing=[0, 1]), "PixelSpacing"),
        (edit(NumberOfFrames=900_000), "NumberOfFrames"),
        (edit(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "not an RTDOSE"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, change: Callable[[Dataset], None], word: str) -> None:
    path = make_dose(tmp_path / "d.dcm", change=change)
    with pytest.raises(OncontourError, match=word) as caught:
        read_rtdose(path)
    assert isinstance(caught.value, InputError)


def test_a_scaling_that_is_no_number(tmp_path: Path) -> None:
    path = make_dose(tmp_path / "d.dcm")
    path.write_bytes(path.read_bytes().replace(b"0.01", b"NaN "))
    with pytest.raises((DoseError, FormatError), match="DoseGridScaling"):
        read_rtdose(path)


def test_effective_dose_is_noted(tmp_path: Path) -> None:
    _, notes = read_rtdose(make_dose(tmp_path / "d.dcm", change=edit(DoseType="EFFECTIVE")))
    assert any("EFFECTIVE" in note for note in notes)


# ---- several files


def plan(path: Path, beams: int, *, setup: int = 0, groups: int = 1) -> Path:
    """Fraction groups of the same beams each; ``setup`` more beams are listed as others are, and treat nothing."""
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = RT_PLAN, "1.2.3", "RTPLAN"
    d.BeamSequence, d.FractionGroupSequence = [], []
    for n in range(1, beams + setup + 1):
        beam = Dataset()
        beam.BeamNumber, beam.TreatmentDeliveryType = n, "TREATMENT" if n <= beams else "SETUP"
        d.BeamSequence.append(beam)
    for n in range(1, groups + 1):
        group = Dataset()
        group.FractionGroupNumber, group.NumberOfBeams = n, beams + setup
        group.ReferencedBeamSequence = [Dataset() for _ in range(beams + setup)]
        for number, beam in enumerate(group.ReferencedBeamSequence, 1):
            beam.ReferencedBeamNumber = number
        d.FractionGroupSequence.append(group)
    save(d, path)
    return path


def test_beams_are_summed(tmp_path: Path) -> None:
    paths = [make_dose(tmp_path / f"{n}.dcm", field=ramp, summation="BEAM", beams=[n]) for n in (1, 2, 3)]
    dose, notes = read_rtdose(paths)
    assert np.abs(dose.array - 3 * truth(dose, ramp)).max() <= 3 * SCALING
    assert any("cannot be told" in note for note in notes)
    for setup in (0, 2):
        _, notes = read_rtdose(paths, plans=[plan(tmp_path / "plan.dcm", 3, setup=setup)])
        assert not any("cannot be told" in note for note in notes)


def test_fraction_groups_are_summed_where_all_are_there(tmp_path: Path) -> None:
    paths = [make_dose(tmp_path / f"{n}.dcm", field=ramp, summation="FRACTION", beams=[n]) for n in (1, 2)]
    dose, _ = read_rtdose(paths, plans=[plan(tmp_path / "plan.dcm", 2, groups=2)])
    assert np.abs(dose.array - 2 * truth(dose, ramp)).max() <= 2 * SCALING
    with pytest.raises(DoseError, match="the plan has 2 fraction groups, doses of 1 are here"):
        read_rtdose(paths[0], plans=[plan(tmp_path / "plan.dcm", 2, groups=2)])


def test_missing_double_and_foreign_parts(tmp_path: Path) -> None:
    one, two, again = (make_dose(tmp_path / f"{n}.dcm", summation="BEAM", beams=[b]) for n, b in enumerate((1, 2, 1)))
    whole = make_dose(tmp_path / "whole.dcm")
    other_plan = make_dose(tmp_path / "other.dcm", plan="1.2.4")
    fraction = make_dose(tmp_path / "fraction.dcm", summation="FRACTION")
    elsewhere = make_dose(tmp_path / "elsewhere.dcm", summation="BEAM", beams=[5], corner=[0, 0, 0])
    unnamed = make_dose(tmp_path / "unnamed.dcm", summation="BEAM")
    for paths, word in [
        ([one, two, again], "twice"),
        ([one, unnamed], "does not say"),
        ([one, elsewhere], "different grids"),
        ([one, fraction], "one kind"),
        ([whole, other_plan], "2 plans"),
        ([whole, whole], "2 doses of one whole plan"),
    ]:
        with pytest.raises(DoseError, match=word):
            read_rtdose(paths)
    with pytest.raises(DoseError, match="3 beams, doses of 2"):
        read_rtdose([one, two], plans=[plan(tmp_path / "plan.dcm", 3)])
    dose, notes = read_rtdose([one, whole])
    assert np.abs(dose.array - truth(dose)).max() <= SCALING
    assert any("left out" in note for note in notes)
    with pytest.raises(InputError):
        read_rtdose([])
    with pytest.raises(InputError):
        read_rtdose(tmp_path / "none.dcm")


# ---- writing


def test_a_real_dose_comes_back(data: Path, tmp_path: Path) -> None:
    dose = read(data / "openkbp/validation/pt_239").images["dose"]
    back, notes = read_rtdose(write_rtdose(dose, tmp_path / "d.dcm"))
    assert notes == ()
    assert back.geometry.same_grid(dose.geometry, 1e-6)
    assert np.abs(back.array - dose.array).max() <= 1e-6 * dose.array.max()
    step = float(dose.array.max()) / 65535
    half = read_rtdose(write_rtdose(dose, tmp_path / "half.dcm", bits=16))[0]
    assert np.abs(half.array - dose.array).max() <= step / 2 + 1e-5


@pytest.mark.parametrize("mirrored", [False, True])
def test_any_orientation_comes_back(tmp_path: Path, mirrored: bool) -> None:
    axes = Rotation.from_euler("xyz", [20, 30, 50], degrees=True).as_matrix() * ([[-1.0], [1.0], [1.0]] if mirrored else 1.0)
    grid = Geometry.regular((4, 5, 6), (3.0, 2.0, 2.5), (-10.0, 20.0, 30.0), axes)
    dose = Volume(np.random.default_rng(0).random(grid.shape).astype(np.float32) * 70, grid)
    back, _ = read_rtdose(write_rtdose(dose, tmp_path / "d.dcm"))
    assert np.allclose(back.to(grid).array, dose.array, atol=1e-6 * 70)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_a_bad_dose_is_refused_before_anything_is_written(tmp_path: Path, value: float) -> None:
    good = np.ones(GRID.shape, np.float32) * 60
    path = write_rtdose(Volume(good, GRID), tmp_path / "d.dcm")
    before = path.read_bytes()
    bad = np.zeros_like(good) if value == 0 else good.copy()
    bad[1, 2, 3] = value
    with pytest.raises(DoseError):
        write_rtdose(Volume(bad, GRID), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.dcm"]
    with pytest.raises(ConfigError):
        write_rtdose(Volume(good, GRID), path, bits=8)


def test_a_dose_in_decimal_steps_goes_into_16_bits_without_loss(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    """Doses rounded to 0.01 Gy, as OpenKBP publishes them."""
    rounded = np.round(np.random.default_rng(0).uniform(0, 74, GRID.shape), 2).astype(np.float32)
    path = write_rtdose(Volume(rounded, GRID), tmp_path / "dose.dcm")
    dataset = pydicom.dcmread(path)
    assert (dataset.BitsStored, float(dataset.DoseGridScaling)) == (16, 0.01)
    np.testing.assert_allclose(read_rtdose(path)[0].array, rounded, rtol=0, atol=1e-5)
    assert dciodvfy(path) == []


def test_what_a_dose_is_comes_back(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    """DoseType and DoseSummationType (C.8.8.3), and the parts: what was EFFECTIVE is not PHYSICAL again, nor a beam's dose a plan's."""
    rounded = Volume(np.full(GRID.shape, 60, np.float32), GRID)  # in 16 bits, which dciodvfy can check
    for n, kind in enumerate(
        [
            DoseKind(),
            DoseKind("EFFECTIVE"),
            DoseKind("EFFECTIVE", "MULTI_PLAN", 3),
            DoseKind("PHYSICAL", "BEAM", 1, (2,), (4, 7)),
            DoseKind("PHYSICAL", "FRACTION", 1, (2,)),
        ]
    ):
        path = write_rtdose(rounded, tmp_path / f"{n}.dcm", kind=kind)
        assert dose_kind(path) == kind
        assert dciodvfy(path) == []
        written = pydicom.dcmread(path)
        assert (written.DoseType, written.DoseSummationType) == (kind.type, kind.summation)
        assert len({plan.ReferencedSOPInstanceUID for plan in written.ReferencedRTPlanSequence}) == kind.plans
        assert any("EFFECTIVE" in note for note in read_rtdose(path)[1]) == (kind.type == "EFFECTIVE")
    assert any("sum of 3 plans" in note for note in read_rtdose(tmp_path / "2.dcm")[1])
    assert dose_kind(write_rtdose(rounded, tmp_path / "untold.dcm", kind=DoseKind(""))) == DoseKind()
    for kind, word in ((DoseKind(summation=""), "no word for.*RTPLAN"), (DoseKind("ERROR"), "DoseType is ERROR")):
        with pytest.raises(DoseError, match=word):
            write_rtdose(rounded, tmp_path / "never.dcm", kind=kind)
    assert not (tmp_path / "never.dcm").exists()


def test_the_kind_of_a_sum(tmp_path: Path) -> None:
    """Beams are the plan only where the plan says that these are all; a sum that no term of C.8.8.3 is for has none."""
    one, two = (make_dose(tmp_path / f"{n}.dcm", summation="BEAM", beams=[n]) for n in (1, 2))
    effective = make_dose(tmp_path / "3.dcm", summation="BEAM", beams=[3], change=edit(DoseType="EFFECTIVE"))
    whole = make_dose(tmp_path / "whole.dcm")
    group_1, group_2 = (make_dose(tmp_path / f"g{n}.dcm", summation="FRACTION", beams=[n]) for n in (1, 2))
    in_group_2 = make_dose(tmp_path / "b5.dcm", summation="BEAM", beams=[5], change=_in_group_2)
    assert dose_kind(one) == DoseKind(summation="BEAM", groups=(1,), beams=(1,))
    assert dose_kind([one, two]) == DoseKind(summation="BEAM", groups=(1,), beams=(1, 2))
    assert dose_kind([one, two], plans=[plan(tmp_path / "plan.dcm", 2)]) == DoseKind()
    assert dose_kind([one, effective]).type == "EFFECTIVE"
    assert dose_kind([one, whole]) == DoseKind()
    assert dose_kind(group_2) == DoseKind(summation="FRACTION", groups=(2,))
    assert dose_kind([group_1, group_2], plans=[plan(tmp_path / "plan.dcm", 1, groups=2)]) == DoseKind()
    for parts in ([group_1, group_2], [one, in_group_2]):
        assert dose_kind(parts).summation == ""
    assert DoseKind() + DoseKind("EFFECTIVE", "MULTI_PLAN", 2) == DoseKind("EFFECTIVE", "MULTI_PLAN", 3)
    assert (DoseKind() + DoseKind(summation="BEAM")).summation == ""
    assert dose_kind(make_dose(tmp_path / "untold.dcm", change=edit(DoseType=None))).type == ""
    with pytest.raises(InputError):
        dose_kind([])


def _in_group_2(d: Dataset) -> None:
    d.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence[0].ReferencedFractionGroupNumber = 2


def test_what_is_written_is_valid(data: Path, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    """``dciodvfy`` 20220618 aborts on any image of 32 bits, so the twin of 16 bits is checked; they differ in nothing else."""
    case = read(data / "dicom/LUNG1-001/image")
    dose = Volume(np.linspace(0, 66, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6), GRID)
    twin = write_rtdose(dose, tmp_path / "16.dcm", source=case.source, bits=16)
    assert dciodvfy(twin) == []
    one, other = (pydicom.dcmread(p) for p in (twin, write_rtdose(dose, tmp_path / "32.dcm", source=case.source)))
    apart = {e.keyword for e in one if e != other.get(e.tag)}
    always = {"SOPInstanceUID", "SeriesInstanceUID", "ReferencedRTPlanSequence"}
    times = {"ContentTime", "InstanceCreationTime", "SeriesTime", "ContentDate", "InstanceCreationDate", "SeriesDate"}
    assert apart - times == always | {"BitsAllocated", "BitsStored", "HighBit", "DoseGridScaling", "PixelData"}
    assert (other.StudyInstanceUID, other.FrameOfReferenceUID) == (case.source.study_uid, case.source.frame_of_reference_uid)
    assert "not exported" in other.DoseComment


def test_dose_structures_and_images_tell_of_one_patient(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    """``dcentvfy`` (dicom3tools, as ``dciodvfy``) compares what objects say of patient, study, series, frame of reference and equipment."""
    grid = Geometry.regular((6, 20, 20), (3.0, 2.0, 2.0))
    inside = np.zeros(grid.shape, bool)
    inside[1:5, 5:15, 5:15] = True
    dose = Volume(np.round(np.linspace(0, 70, inside.size).reshape(grid.shape), 2).astype(np.float32), grid)
    case = Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid), "dose": dose}, {"Larynx": Volume(inside, grid)})
    write(case, tmp_path / "first")
    known = read(tmp_path / "first")
    segments = {"Larynx": known.mask("Larynx", known.geometry)}
    again = [*write(known, tmp_path / "again"), write_seg(segments, tmp_path / "again" / "seg.dcm", source=known.source)]
    assert consistency(again) == []
    other = pydicom.dcmread(tmp_path / "again" / "RTDOSE.dcm")
    other.PatientName, other.SOPInstanceUID, other.file_meta.MediaStorageSOPInstanceUID = "Other", "1.2.3.4", "1.2.3.4"
    other.save_as(tmp_path / "other.dcm")
    assert any("PatientName" in line for line in consistency([*again, tmp_path / "other.dcm"]))


def consistency(paths: Sequence[Path]) -> list[str]:
    done = subprocess.run(["dcentvfy", *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode >= 0, "ended by a signal"
    return (done.stdout + done.stderr).splitlines()
