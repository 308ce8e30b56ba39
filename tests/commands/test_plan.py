"""``oncontour dvh``: from a folder to tables and a plot; every dose that cannot be used is refused in a sentence."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from oncontour import cli
from oncontour.commands import dvh as plan
from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH
from oncontour.errors import ConfigError, DoseError, InputError, OutputError, StructureError
from oncontour.io import read, write
from oncontour.io.dicom.patient_write import losses
from oncontour.io.dicom.rtdose import RT_PLAN, write_rtdose
from oncontour.phantom import Cylinder
from oncontour.report.dvh import draw, svg

GRID = Geometry.regular((12, 40, 40), (3.0, 2.0, 2.0), (-39.0, -39.0, -16.5))
DOSES = Geometry.regular((20, 20, 20), (2.5, 5.0, 5.0), (-48.0, -47.0, -24.0))


def field(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """60 Gy in the middle, 1 Gy less a mm to the left and right: linear on either side, and the grids meet it exactly enough."""
    return 30 - points[..., 0] * 0.5


def sampled(grid: Geometry = DOSES, part: float = 1.0) -> Volume:
    values = field(grid.points(np.stack(np.indices(grid.shape), axis=-1)))
    return Volume((part * np.maximum(values, 0)).astype(np.float32), grid)


def patient(**images: Volume) -> Case:
    """Two cylinders of 24 mm height: the target round x = -20, the cord round x = 20."""
    solids = {"PTV_4000": Cylinder((-20.0, 0.0, 0.0), 12.0, 24.0), "SpinalCord": Cylinder((20.0, 0.0, 0.0), 6.0, 24.0)}
    at = -16.5 + 3 * np.arange(12)
    contours = {name: solid.contours(at[np.abs(at) < 12], 360) for name, solid in solids.items()}
    return Case("p1", {"ct": Volume(np.zeros(GRID.shape, np.int16), GRID), **(images or {"dose": sampled()})}, contours=contours)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "p1"
    write(patient(), folder)
    return folder


@pytest.fixture
def clinic(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "p1"))


def edit(path: Path, new: Path | None = None, **values: Any) -> str:
    """Change attributes of a file, as a new instance where it goes to a ``new`` file; gives its SOPInstanceUID."""
    d = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(d, name, value)
    if new is not None:
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.save_as(new or path)
    return str(d.SOPInstanceUID)


def of_plan(uid: str, **part: Any) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = RT_PLAN, uid
    if part:
        group, beam = Dataset(), Dataset()
        group.ReferencedFractionGroupNumber, beam.ReferencedBeamNumber = 1, part["beam"]
        group.ReferencedBeamSequence = [beam]
        reference.ReferencedFractionGroupSequence = [group]
    return reference


def write_plan(path: Path, uid: str, frame: str, beams: int = 2, fractions: int = 20, gy: float = 40) -> None:
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.Modality, d.PatientID = RT_PLAN, uid, "RTPLAN", "p1"
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = generate_uid(), generate_uid(), frame
    group, reference = Dataset(), Dataset()
    group.FractionGroupNumber, group.NumberOfFractionsPlanned, group.NumberOfBeams = 1, fractions, beams
    reference.DoseReferenceNumber, reference.TargetPrescriptionDose = 1, f"{gy:g}"
    d.FractionGroupSequence, d.DoseReferenceSequence = [group], [reference]
    d.file_meta = pydicom.dataset.FileMetaDataset()
    d.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = d.SOPClassUID, d.SOPInstanceUID
    d.save_as(path, enforce_file_format=True)


# ---- the command


def test_no_result_tells_what_files_are_called(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many are called by their patients: the remark on a stray dose stays, its file's name does not."""
    edit(clinic / "RTDOSE.dcm", clinic / "Doe_John.dcm", FrameOfReferenceUID=generate_uid())
    assert cli.main(["dvh", str(clinic), "--out", str(tmp_path / "out"), "--figures", "Dmean"]) == 0
    assert cli.main(["convert", str(clinic), str(tmp_path / "nifti")]) == 0
    for told in (capsys.readouterr().out, (tmp_path / "out" / plan.RECORD).read_text()):
        assert "RTDOSE of other images left out: [...]" in told
        assert "Doe" not in told


def test_tables_curves_record_and_plot(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["dvh", str(clinic), "--out", str(out), "--figures", "Dmean,Dmax,D50%,V20Gy,V95%"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == sorted(plan.FILES)
    rows = {row["structure"]: row for row in csv.DictReader((out / plan.TABLE).read_text().splitlines())}
    target, cord = rows["PTV_4000"], rows["SpinalCord"]
    # middle at x = -20: 40 Gy, radius 12 mm: 46 Gy at most; cord: 20 Gy, 23 Gy at most, half of it above 20 Gy
    assert float(target["volume_cc"]) == pytest.approx(np.pi * 144 * 24 / 1000, rel=1e-3)
    assert float(target["Dmean"]) == pytest.approx(40, rel=1e-3)
    assert float(target["Dmax"]) == pytest.approx(46, rel=1e-3)
    assert float(cord["D50%"]) == pytest.approx(20, rel=1e-3)
    assert float(cord["V20Gy"]) == pytest.approx(50, abs=0.1)
    assert (float(target["V95%"]), cord["V95%"]) == (pytest.approx(70.82, abs=0.1), "")  # 38 Gy: a third of the radius past the middle
    assert "PTV_4000" in told
    assert "CI Paddick" in told
    curves = list(csv.DictReader((out / plan.CURVES).read_text().splitlines()))
    above = {row["dose_gy"]: float(row["volume_percent"]) for row in curves if row["structure"] == "SpinalCord"}
    assert (above["0"], above["20"]) == pytest.approx((100, 50), abs=0.1)
    record = json.loads((out / plan.RECORD).read_text())
    assert record["schema"] == plan.SCHEMA
    assert record["targets"]["PTV_4000"]["prescription_gy"] == 40
    assert (out / "dvh.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (out / "dvh.svg").read_text()
    assert cli.main(words) == OutputError.exit_code
    assert cli.main([*words, "--overwrite"]) == 0
    (out / "mine.txt").write_text("x")
    assert cli.main([*words, "--overwrite"]) == OutputError.exit_code
    assert (out / "mine.txt").read_text() == "x"


def test_nothing_is_overwritten_by_accident(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (clinic, tmp_path, tmp_path / "file"):
        with pytest.raises(OutputError):
            plan.dvh(clinic, out=out, overwrite=True)


def test_what_somebody_put_there_meanwhile_stays(clinic: Path, tmp_path: Path) -> None:
    """The last look is taken just before the swap."""
    found, out = plan.dvh(clinic), tmp_path / "out"
    plan.write(found, out)
    with pytest.raises(OutputError, match="result already"):
        plan.write(found, out)
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match=r"other things .*mine\.txt"):
        plan.write(found, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "x"
    assert not list(tmp_path.glob(".out*")), "nothing half-made is left"


def test_structures_and_what_they_need(clinic: Path) -> None:
    only = plan.dvh(clinic, structures=["SpinalCord"])
    assert list(only.dvhs) == ["SpinalCord"]
    assert only.targets == {}
    with pytest.raises(InputError, match="no structure Heart; there are PTV_4000, SpinalCord"):
        plan.dvh(clinic, structures=["Heart"])
    with pytest.raises(ConfigError, match="no figure of a DVH"):
        plan.dvh(clinic, figures=["D95Gy%"])
    with pytest.raises(ConfigError, match="percent of the prescription"):
        plan.dvh(clinic, structures=["SpinalCord"], figures=["V95%"])
    with pytest.raises(ConfigError, match="needs the number of fractions"):
        plan.dvh(clinic, alpha_beta=3)


def test_eqd2_and_risks(clinic: Path) -> None:
    """40 Gy in 10 fractions at alpha/beta 3: 40 * 7 / 5 = 56 Gy."""
    told = plan.dvh(clinic, fractions=10, alpha_beta=3, ntcp=True, figures=["D50%"])
    assert told.table["PTV_4000"]["D50%"] == pytest.approx(56, rel=1e-3)
    assert "These doses are EQD2, alpha/beta 3 Gy" in str(told)
    assert any("no published model" in note for note in told.notes)
    case = patient()
    risky = plan.evaluate(Case("p", case.images, contours={"Esophagus": case.contours["PTV_4000"]}), ntcp=True)
    assert "For research" in str(risky)
    assert 0.2 < risky.risks["esophagitis-g2-belderbos-2005"] < 0.5


def test_eqd2_of_what_it_does_not_suit(clinic: Path) -> None:
    """A dose that is weighted already is refused; of several plans it is said that their fractions are taken as equal."""
    first = str(pydicom.dcmread(clinic / "RTDOSE.dcm").SOPInstanceUID)
    second = edit(clinic / "RTDOSE.dcm", clinic / "boost.dcm", ReferencedRTPlanSequence=[of_plan("1.2.4")])
    told = plan.dvh(clinic, dose=[first, second], fractions=20, alpha_beta=3)
    assert any("as given in equal fractions" in note for note in told.notes)
    edit(clinic / "boost.dcm", DoseType="EFFECTIVE")
    assert any("EFFECTIVE" in note for note in plan.dvh(clinic, dose=[second]).notes)
    with pytest.raises(DoseError, match="weighted by biology already"):
        plan.dvh(clinic, dose=[second], fractions=20, alpha_beta=3)


def test_conformity_of_targets_within_targets() -> None:
    """Of GTV, CTV and PTV with one prescription only the largest has an isodose of its own; beside another of 40 Gy none has."""
    case = patient()
    drawn = case.contours["PTV_4000"]
    names = ("GTV_4000", "CTV_4000", "PTV_4000", "PTV_3000")
    told = plan.evaluate(Case("p", case.images, contours=dict.fromkeys(names, drawn))).targets
    assert {name for name in names if not np.isnan(told[name].paddick)} == {"PTV_4000"}
    assert not np.isnan(told["GTV_4000"].v95_percent)
    inner = plan.evaluate(Case("p", case.images, contours=dict.fromkeys(("IGTV_4000", "ICTV_4000", "PTV_4000"), drawn))).targets
    assert {name for name, one in inner.items() if not np.isnan(one.paddick)} == {"PTV_4000"}
    two = plan.evaluate(Case("p", case.images, contours=dict.fromkeys(("PTV_4000", "PTV_4000_L"), drawn))).targets
    assert all(np.isnan(one.paddick) for one in two.values())


@pytest.mark.parametrize(
    ("name", "gy"),
    [
        ("PTV_7000", 70),
        ("PTV_7000_L", 70),
        ("PTVn_5600", 56),
        ("PTV_50p4Gy", 50.4),
        ("PTV_LN_50.4Gy", 50.4),
        ("PTV_Liver_2000x3", 60),
        ("PTV_Liver_20Gyx3", 60),
        ("PTV_1200cGyX5", 60),
        ("PTV_6000x30", 60),
        ("PTV_7000.1", 70),
        ("PTV_2Gy_7000", 70),
        ("PTV_2Gy_70Gy", 33),
        ("PTV_20210304", 33),
        ("PTV_High", 33),
    ],
)
def test_what_a_target_s_name_tells_of_its_dose(name: str, gy: float) -> None:
    """TG-263: cGy unless Gy is said, p for a point, and x with how many fractions; else the plan's prescription, here 33 Gy.

    1800 Gy would be nobody's, .1 is a copy's number, and 2 Gy may be a fraction's.
    """
    case = patient()
    told = plan.evaluate(Case("p", case.images, contours={name: case.contours["PTV_4000"]}), prescription_gy=33, figures=["Dmean"])
    assert told.targets[name].prescription_gy == pytest.approx(gy)


def test_a_prescription_that_is_none_is_refused(clinic: Path) -> None:
    """-5 Gy would have given a target whose name does not tell a V95% of 100 %."""
    for value in (-5.0, 0.0):
        with pytest.raises(ConfigError, match=r"prescription .* above 0"):
            plan.dvh(clinic, prescription=value)
        with pytest.raises(ConfigError, match="fractions is above 0"):
            plan.dvh(clinic, fractions=value)


def test_percents_of_a_prescription_are_of_the_same_kind_of_dose() -> None:
    """45 of 50 Gy in 10 fractions: 90 %, as EQD2 at alpha/beta 3 67.5 of 80 Gy; neither reaches 95 %, which 67.5 of 50 Gy would."""
    case = patient(dose=Volume(np.full(DOSES.shape, 45, np.float32), DOSES))
    target = Case("p", case.images, contours={"PTV_5000": case.contours["PTV_4000"], "Heart": case.contours["SpinalCord"]})
    for figures_of in ({}, {"prescription_gy": 50}):
        told = plan.evaluate(target, figures=["V95%", "D50%", "D50%[%]"], fractions=10, alpha_beta_gy=3, **figures_of)  # type: ignore[arg-type]
        assert list(told.table["PTV_5000"].values())[1:] == pytest.approx([0, 67.5, 84.375])
        assert told.prescribed_gy["PTV_5000"] == pytest.approx(80)
        assert told.targets["PTV_5000"].prescription_gy == 50
        lines = [line for line in draw(told.dvhs, prescriptions_gy=told.prescribed_gy).axes[0].lines if len(set(line.get_xdata())) == 1]
        assert [line.get_xdata()[0] for line in lines] == pytest.approx([80])
    assert told.table["Heart"]["D50%[%]"] == pytest.approx(84.375)


def test_a_figure_spelt_twice_is_one_column() -> None:
    told = plan.evaluate(patient(), figures=["D50%", "Dmedian", "D50"])
    assert told.figures == ("D50%",)
    assert "D50%" in str(told)


def test_no_published_model_of_an_organ_that_is_half_outside_the_dose() -> None:
    """The mean of the half that has a dose is not the organ's."""
    case = patient(dose=sampled(DOSES.crop((0, 0, 0), (10, 20, 20))))  # up to z = 0, the middle of the cylinders
    organ = {"Esophagus": case.contours["SpinalCord"]}
    told = plan.evaluate(Case("p", case.images, contours=organ), ntcp=True)
    assert told.risks == {}
    assert any(re.match(r"no published model of Esophagus: 51.1 % of Esophagus .* outside the dose grid", note) for note in told.notes)
    assert plan.evaluate(Case("p", patient().images, contours=organ), ntcp=True).risks


def test_other_folders_and_masks_are_read_too(tmp_path: Path) -> None:
    case = patient()
    masks = {name: case.mask(name) for name in case.contours}
    write(Case("p1", case.images, masks), tmp_path / "nifti", format="nifti")
    told = plan.dvh(tmp_path / "nifti", figures=["Dmean"])
    assert told.table["SpinalCord"]["Dmean"] == pytest.approx(20, rel=0.01)


# ---- which dose


def test_beams_are_added_up_and_must_be_all(clinic: Path) -> None:
    frame = pydicom.dcmread(clinic / "RTDOSE.dcm").FrameOfReferenceUID
    for beam in (1, 2):
        values = {"DoseSummationType": "BEAM", "ReferencedRTPlanSequence": [of_plan("1.2.3", beam=beam)]}
        edit(clinic / "RTDOSE.dcm", clinic / f"beam{beam}.dcm", **values)
    (clinic / "RTDOSE.dcm").unlink()
    both = plan.dvh(clinic, figures=["Dmean"])
    assert both.table["SpinalCord"]["Dmean"] == pytest.approx(40, rel=1e-3)
    assert any("sum of 2 BEAM" in note for note in both.notes)
    write_plan(clinic / "plan.dcm", "1.2.3", frame)
    told = plan.dvh(clinic, figures=["Dmean"], alpha_beta=2)  # 20 fractions by the plan: 2 Gy each
    assert told.table["SpinalCord"]["Dmean"] == pytest.approx(40, rel=0.02)
    (clinic / "beam2.dcm").unlink()
    with pytest.raises(DoseError, match="the plan has 2 beams, doses of 1 are here"):
        plan.dvh(clinic)


def test_one_of_several_plans_is_chosen_or_they_are_added(clinic: Path) -> None:
    first = str(pydicom.dcmread(clinic / "RTDOSE.dcm").SOPInstanceUID)
    second = edit(clinic / "RTDOSE.dcm", clinic / "boost.dcm", ReferencedRTPlanSequence=[of_plan("1.2.4")], DoseGridScaling="0.001")
    with pytest.raises(DoseError, match=r"no dose to use: 2 doses of 2 plan\(s\).*--dose"):
        plan.dvh(clinic)
    one = plan.dvh(clinic, dose=[first], figures=["Dmean"]).table["SpinalCord"]["Dmean"]
    assert one == pytest.approx(20, rel=1e-3)
    for name in (second, "boost.dcm", str(clinic / "boost.dcm")):
        other = plan.dvh(clinic, dose=[name], figures=["Dmean"]).table["SpinalCord"]["Dmean"]
        assert other != pytest.approx(20, rel=1e-2)
    both = plan.dvh(clinic, dose=[first, second], figures=["Dmean"])
    assert both.table["SpinalCord"]["Dmean"] == pytest.approx(one + other)
    assert any("sum of 2 plans" in note for note in both.notes)
    with pytest.raises(DoseError, match=r"no dose nothing; there are .*boost.dcm \(PLAN"):
        plan.dvh(clinic, dose=["nothing"])
    with pytest.raises(DoseError, match="not an RTDOSE file"):
        plan.dvh(clinic, dose=[str(clinic / "RTSTRUCT.dcm")])


def test_a_sum_of_plans_has_no_prescription_of_its_own(clinic: Path) -> None:
    """66 Gy of a plan of 25 x 2 Gy and a boost of 8 x 2 Gy, in one MULTI_PLAN dose: neither 50 Gy nor 25 fractions are the sum's."""
    frame = pydicom.dcmread(clinic / "RTDOSE.dcm").FrameOfReferenceUID
    write_plan(clinic / "plan1.dcm", "1.2.3.1", frame, fractions=25, gy=50)
    write_plan(clinic / "plan2.dcm", "1.2.3.2", frame, fractions=8, gy=16)
    path, both = clinic / "RTDOSE.dcm", [of_plan("1.2.3.1"), of_plan("1.2.3.2")]
    edit(path, DoseSummationType="PLAN", ReferencedRTPlanSequence=both[:1], ReferencedStructureSetSequence=[of_plan("1.2.7")])
    known = read(clinic).facts
    assert (known["fractions"], known["prescription_gy"]) == (25, 50)
    for plans, count in ((both, "2"), (both[:1], "several")):  # it may name one of them only
        edit(path, DoseSummationType="MULTI_PLAN", ReferencedRTPlanSequence=plans)
        for doses in ((), ("RTDOSE.dcm",)):
            facts = read(clinic, doses=doses).facts
            assert not {"fractions", "prescription_gy"} & set(facts)
            assert len([note for note in facts["notes"] if note.startswith(f"dose is the sum of {count} plans (MULTI_PLAN)")]) == 1
        with pytest.raises(ConfigError, match="needs the number of fractions"):
            plan.dvh(clinic, alpha_beta=3)
        told = plan.dvh(clinic, fractions=33, alpha_beta=3)
        assert any("as given in equal fractions" in note for note in told.notes)
    edit(path, DoseSummationType="PLAN", ReferencedRTPlanSequence=both)  # against C.8.8.3, but it says of which plans
    assert not {"fractions", "prescription_gy"} & set(read(clinic).facts)


def test_no_plan_is_counted_twice(clinic: Path) -> None:
    edit(clinic / "RTDOSE.dcm", ReferencedRTPlanSequence=[of_plan("1.2.3.2")])
    both = [of_plan("1.2.3.1"), of_plan("1.2.3.2")]
    edit(clinic / "RTDOSE.dcm", clinic / "sum.dcm", DoseSummationType="MULTI_PLAN", ReferencedRTPlanSequence=both)
    with pytest.raises(DoseError, match=r"plan 1\.2\.3\.2 is in more than one of the doses"):
        plan.dvh(clinic, dose=["RTDOSE.dcm", "sum.dcm"])
    edit(clinic / "RTDOSE.dcm", ReferencedRTPlanSequence=[of_plan("1.2.3.3")])
    assert any("sum of 3 plans: RTDOSE.dcm, sum.dcm" in note for note in plan.dvh(clinic, dose=["RTDOSE.dcm", "sum.dcm"]).notes)


def test_what_a_dose_is_survives_being_written(clinic: Path, tmp_path: Path) -> None:
    """Read, written and read again it is still weighted by biology, or a part of a plan, and says so."""
    edit(clinic / "RTDOSE.dcm", DoseType="EFFECTIVE")
    write(read(clinic), tmp_path / "effective")
    assert pydicom.dcmread(tmp_path / "effective" / "RTDOSE.dcm").DoseType == "EFFECTIVE"
    with pytest.raises(DoseError, match="weighted by biology already"):
        plan.dvh(tmp_path / "effective", fractions=20, alpha_beta=3)
    part = {"DoseSummationType": "BEAM", "ReferencedRTPlanSequence": [of_plan("1.2.3", beam=2)]}
    edit(clinic / "RTDOSE.dcm", DoseType="PHYSICAL", **part)
    write(read(clinic), tmp_path / "beam")
    written = pydicom.dcmread(tmp_path / "beam" / "RTDOSE.dcm")
    assert (written.DoseType, written.DoseSummationType) == ("PHYSICAL", "BEAM")
    (group,) = written.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence
    assert (group.ReferencedFractionGroupNumber, group.ReferencedBeamSequence[0].ReferencedBeamNumber) == (1, 2)
    assert any("cannot be told whether that is all" in note for note in plan.dvh(tmp_path / "beam").notes)


def test_the_sum_of_two_doses_is_written_as_that(clinic: Path, tmp_path: Path) -> None:
    edit(clinic / "RTDOSE.dcm", clinic / "boost.dcm", ReferencedRTPlanSequence=[of_plan("1.2.4")], DoseType="EFFECTIVE")
    case = read(clinic, doses=["RTDOSE.dcm", "boost.dcm"])
    write(case, tmp_path / "sum")
    written = pydicom.dcmread(tmp_path / "sum" / "RTDOSE.dcm")
    assert (written.DoseType, written.DoseSummationType, len(written.ReferencedRTPlanSequence)) == ("EFFECTIVE", "MULTI_PLAN", 2)
    edit(clinic / "boost.dcm", DoseSummationType="BEAM")
    half = read(clinic, doses=["RTDOSE.dcm", "boost.dcm"])
    write(half, tmp_path / "half")  # all but the dose, and that is said
    assert not (tmp_path / "half" / "RTDOSE.dcm").exists()
    assert [note for note in losses(half) if note.startswith("dose")] == [note for note in losses(half) if "no word for" in note] != []


def test_what_is_lost_of_a_dose_is_said(clinic: Path) -> None:
    assert any("neither is told" in note for note in losses(patient()))
    known = [note for note in losses(read(clinic)) if note.startswith("dose")]
    assert not any("neither is told" in note for note in known)
    assert any("the plan that it refers to is not written" in note for note in known)
    edit(clinic / "RTDOSE.dcm", DoseType="")
    assert "dose: written as physical, which its file does not tell" in losses(read(clinic))


def test_plans_on_different_grids_are_not_added(clinic: Path, tmp_path: Path) -> None:
    write_rtdose(sampled(GRID), clinic / "fine.dcm", source=read(clinic).source)
    with pytest.raises(DoseError, match="2 plans lie on different grids"):
        plan.dvh(clinic, dose=["RTDOSE.dcm", "fine.dcm"])


def test_the_dose_of_another_frame_of_reference(clinic: Path, tmp_path: Path) -> None:
    edit(clinic / "RTDOSE.dcm", FrameOfReferenceUID="1.2.3.4")
    with pytest.raises(DoseError, match=r"no dose to use: RTDOSE of other images left out: RTDOSE.dcm"):
        plan.dvh(clinic)
    with pytest.raises(DoseError, match=r"another frame of reference than the images: 1.2.3.4"):
        plan.dvh(clinic, dose=["RTDOSE.dcm"])
    elsewhere = shutil.move(clinic / "RTDOSE.dcm", tmp_path / "other.dcm")
    with pytest.raises(DoseError, match="another frame of reference"):
        plan.dvh(clinic, dose=[str(elsewhere)])
    with pytest.raises(DoseError, match="no dose to use"):
        plan.dvh(clinic)


# ---- what a dose may not be


def nan(dose: Volume) -> Volume:
    array = np.array(dose.array)
    array[0, 0, 0] = np.nan
    return Volume(array, dose.geometry)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (nan, r"1 voxels of dose are NaN or infinite, the first at \(k, j, i\) = \(0, 0, 0\)"),
        (lambda d: Volume(d.array - 20, d.geometry), "negative dose, down to -13.5 Gy"),
        (lambda d: Volume(d.array * 0, d.geometry), "0 everywhere"),
        (lambda d: Volume(d.array * 100, d.geometry), "PTV_4000 would receive 4000 Gy in the median, prescribed are 40 Gy.*--unit cGy"),
        (lambda d: Volume(d.array, d.geometry.crop((100, 0, 0), (120, 20, 20))), "none of the 2 structures meets the dose"),
    ],
)
def test_refusals(change: Callable[[Volume], Volume], says: str) -> None:
    with pytest.raises(DoseError, match=says):
        plan.evaluate(patient(dose=change(sampled())))


def test_centigray_can_be_said() -> None:
    centi = patient(dose=Volume(sampled().array * 100, DOSES))
    assert plan.evaluate(centi, unit="cGy", figures=["Dmean"]).table["SpinalCord"]["Dmean"] == pytest.approx(20, rel=1e-3)
    unnamed = Case("p", centi.images, contours={"SpinalCord": centi.contours["SpinalCord"]})
    with pytest.raises(DoseError, match="SpinalCord would receive 2000 Gy in the median: the numbers look like centigray"):
        plan.evaluate(unnamed)


def test_a_single_fraction_is_doubted() -> None:
    told = plan.evaluate(patient(dose=sampled(part=0.05)))
    assert any("receives 2.0 Gy in the median, prescribed are 40 Gy" in note for note in told.notes)


def test_a_dose_smaller_than_a_structure_is_said() -> None:
    """The dose ends in the middle of the cord: half of it has none, and the figures are of the rest."""
    grid = Geometry.regular((20, 20, 13), (2.5, 5.0, 5.0), (-42.5, -47.0, -24.0))  # ends at x = 20
    told = plan.evaluate(patient(dose=sampled(grid)), figures=["Dmin"])
    (note,) = (note for note in told.notes if "SpinalCord" in note)
    assert re.match(r"(49|50|51)[.0-9]* % of SpinalCord \(1.4 cc\) lies outside the dose grid", note)
    assert told.table["SpinalCord"]["cc"] == pytest.approx(2.714, rel=1e-3)
    assert told.table["SpinalCord"]["Dmin"] == pytest.approx(21.25, rel=1e-3)  # beyond the last point, at 17.5 mm, it stays as it is
    assert plan.record(told)["structures"]["SpinalCord"]["missing_cc"] == pytest.approx(1.357, rel=0.03)


def test_empty_structures_and_none_at_all() -> None:
    case = patient()
    told = plan.evaluate(Case("p", case.images, contours={**case.contours, "Lens_L": Contours()}))
    assert "Lens_L is empty" in " ".join(told.notes)
    assert "Lens_L" in str(told)
    assert plan.record(told)["structures"]["Lens_L"]["mean_gy"] is None
    with pytest.raises(InputError, match="no structures here"):
        plan.evaluate(Case("p", case.images))
    with pytest.raises(DoseError, match="no dose to use"):
        plan.evaluate(Case("p", {"ct": case.ct}, contours=case.contours))


def test_one_broken_structure_does_not_stop_the_others() -> None:
    case = patient()
    steep = Contours((np.array([(0.0, 0, 0), (10, 0, 0), (10, 10, 0)]), np.array([(0.0, 0, 20), (10, 0, 24), (10, 10, 29)])))
    broken = Case("p", case.images, contours={**case.contours, "Broken": steep})
    told = plan.evaluate(broken)
    assert list(told.dvhs) == ["PTV_4000", "SpinalCord"]
    assert any(note.startswith("Broken is left out: contour") for note in told.notes)
    with pytest.raises(StructureError, match="lies in another plane"):
        plan.evaluate(broken, structures=["Broken", "SpinalCord"])


def test_names_cannot_become_formulas(tmp_path: Path) -> None:
    case = patient()
    told = plan.write(plan.evaluate(Case("p", case.images, contours={"=1+1": case.contours["SpinalCord"]})), tmp_path / "out")
    assert "\n'=1+1," in told.files[0].read_text()


# ---- the plot


def test_the_plot_shows_every_structure_with_a_dose() -> None:
    told = plan.evaluate(patient())
    nothing = DVH("Lens_L", np.empty(0), np.empty(0), np.nan)
    figure = draw({**told.dvhs, "Lens_L": nothing}, prescriptions_gy={"PTV_4000": 40.0})
    (axis,) = figure.axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["PTV_4000  11 cc, mean 40.0 Gy", "SpinalCord  2.71 cc, mean 20.0 Gy"]
    target, cord = axis.lines[:2]
    assert target.get_linestyle() == "-"
    assert cord.get_linestyle() == "--"
    x, y = cord.get_data()
    assert np.interp(20, x, y) == pytest.approx(50, abs=0.5)
    assert "40 Gy" in [text.get_text() for text in axis.texts]


def test_svg_needs_nothing_else_and_is_the_same_again() -> None:
    told = plan.evaluate(patient())
    text = svg(told.dvhs, title="p1", absolute=True)
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
    assert "<text" not in text
    assert not [word for word in ("<script", "<image", "@import", "url(http") if word in text]
    assert svg(told.dvhs, title="p1", absolute=True) == text
    assert "<svg" in svg({})


def test_a_curve_is_drawn_and_called_whatever_its_name_is() -> None:
    """Two dollars are no mathematics, and a name that begins with an underscore has its place in the legend."""
    (one, *_) = plan.evaluate(patient()).dvhs.values()
    figure = draw({"PTV $x^$ 60": one, "_ring": one}, title="p $^$ 1")
    figure.canvas.draw()
    (legend,) = [axis.get_legend() for axis in figure.axes]
    assert [text.get_text().split("  ")[0].strip() for text in legend.get_texts()] == [r"PTV \$x^\$ 60", "_ring"]


# ---- real patients


def test_openkbp(data: Path) -> None:
    """Two of them, head and neck, 70 Gy: targets get what was prescribed, cords stay below 55 Gy, and no figure is missing."""
    for name in ("pt_201", "pt_239"):
        told = plan.dvh(data / "openkbp/validation" / name)
        assert 66 < told.table["PTV_7000"]["D50%"] < 75
        assert told.table["SpinalCord"]["D0.03cc"] < 55
        assert not [row for row in told.table.values() if np.isnan(list(row.values())).any()]
        for one in told.dvhs.values():
            assert one.min_gy <= one.mean_gy <= one.max_gy


def test_lung_with_a_dose_that_is_known(data: Path) -> None:
    """Real contours on a real CT; the dose rises by 0.1 Gy a mm along z: the mean is that at the centre of gravity of the contours."""
    case = read(data / "dicom/LUNG1-001")
    low, high = case.geometry.corners_mm.min(axis=0), case.geometry.corners_mm.max(axis=0)
    shape = np.ceil((high - low) / 2.5).astype(int)[::-1] + 4
    grid = Geometry.regular(shape.tolist(), (2.5, 2.5, 2.5), low - 3.1)
    heights = np.broadcast_to(grid.points(np.stack([np.arange(shape[0]), *np.zeros((2, shape[0]))], axis=-1))[:, 2, None, None], shape)
    dose = Volume((0.1 * (heights - heights.min())).astype(np.float32), grid)
    told = plan.evaluate(case.with_images({"dose": dose}), structures=["GTV1", "SpinalCord", "Lung_L"], figures=["Dmean"])
    for name in told.dvhs:
        mask = case.mask(name)
        centre = mask.geometry.points(np.argwhere(mask.array).mean(axis=0))[2]
        assert told.table[name]["Dmean"] == pytest.approx(0.1 * (centre - heights.min()), abs=0.02)
        assert told.table[name]["cc"] == pytest.approx(mask.volume_cc, rel=0.02)
