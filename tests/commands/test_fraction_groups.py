"""EQD2 of plans with fraction groups of unequal dose: 25 x 2 Gy and 5 x 3 Gy at alpha/beta 3 are 50 + 15 (3 + 3) / (2 + 3) = 68 Gy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from oncontour import cli
from oncontour.commands import dvh as plan
from oncontour.core.volume import Volume
from oncontour.dose.dvh import eqd2_of_groups
from oncontour.errors import ConfigError, DoseError
from oncontour.io import read, write
from oncontour.io.dicom.rtdose import RT_PLAN
from tests.commands.test_plan import DOSES, patient, write_plan

FRACTIONS, GY = (25, 5), (50.0, 15.0)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """CT and structures with an even dose of 65 Gy, which refers to a plan that is not there."""
    write(patient(dose=Volume(np.full(DOSES.shape, 65, np.float32), DOSES)), tmp_path / "p1")
    return tmp_path / "p1"


def of_groups(path: Path, fractions: Sequence[int | None] = FRACTIONS, beams: Sequence[Sequence[int]] = ((1, 2), (3,))) -> str:
    """An RTPLAN of these fraction groups and beams; gives its UID."""
    uid = str(generate_uid())
    write_plan(path, uid, str(generate_uid()), gy=65)
    d = pydicom.dcmread(path)
    groups = []
    for number, (count, its) in enumerate(zip(fractions, beams, strict=True), 1):
        group = Dataset()
        group.FractionGroupNumber, group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = number, len(its), 0
        if count is not None:
            group.NumberOfFractionsPlanned = count
        group.ReferencedBeamSequence = [Dataset() for _ in its]
        for item, beam in zip(group.ReferencedBeamSequence, its, strict=True):
            item.ReferencedBeamNumber = beam
        groups.append(group)
    d.FractionGroupSequence = groups
    d.save_as(path)
    return uid


def put(clinic: Path, name: str, gy: float, plan_uid: str, *, group: int | None = None, beam: int | None = None) -> str:
    """An RTDOSE of evenly ``gy``: of the whole plan, of a fraction group, or of a beam of one; gives its UID."""
    d = pydicom.dcmread(clinic / "RTDOSE.dcm")
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.DoseGridScaling = f"{float(d.DoseGridScaling) * gy / 65:.12g}"
    d.DoseSummationType = "PLAN" if group is None else "FRACTION" if beam is None else "BEAM"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = RT_PLAN, plan_uid
    if group is not None:
        part = Dataset()
        part.ReferencedFractionGroupNumber = group
        if beam is not None:
            of_beam = Dataset()
            of_beam.ReferencedBeamNumber = beam
            part.ReferencedBeamSequence = [of_beam]
        reference.ReferencedFractionGroupSequence = [part]
    d.ReferencedRTPlanSequence = [reference]
    d.save_as(clinic / name)
    return str(d.SOPInstanceUID)


def median(found: plan.Plan) -> float:
    return found.table["SpinalCord"]["D50%"]


def test_a_pencil_s_sum() -> None:
    groups = [(Volume(np.full(DOSES.shape, gy, np.float32), DOSES), n) for n, gy in zip(FRACTIONS, GY, strict=True)]
    assert eqd2_of_groups(groups, 3).array == pytest.approx(68)
    for bad in ([], [(groups[0][0], 0)]):
        with pytest.raises(ConfigError, match="positive"):
            eqd2_of_groups(bad, 3)


def test_doses_of_fraction_groups_are_told_group_by_group(clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uid = of_groups(clinic / "plan.dcm")
    for n, gy in enumerate(GY, 1):
        put(clinic, f"group{n}.dcm", gy, uid, group=n)
    (clinic / "RTDOSE.dcm").unlink()
    facts = read(clinic).facts
    assert [group.fractions for group in facts["fraction_groups"]] == [25, 5]
    assert "fractions" not in facts  # 30 is the number of nothing that is given equally
    assert median(plan.dvh(clinic, figures=["D50%"])) == pytest.approx(65)
    out = tmp_path / "out"
    assert cli.main(["dvh", str(clinic), "--alpha_beta", "3", "--figures", "D50%,D95%[%]", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "EQD2 is the sum of 2 fraction groups, each in equal fractions of its own: 25 and 5" in told
    assert "68.00" in told
    found = plan.dvh(clinic, alpha_beta=3, figures=["D50%", "D95%[%]"])
    assert median(found) == pytest.approx(68, rel=1e-6)
    assert np.isnan(found.table["PTV_4000"]["D95%[%]"])  # which part of the 40 Gy each group gives is not told
    assert found.prescribed_gy == {}
    assert any("fraction groups" in note for note in losses_of(clinic))


def losses_of(clinic: Path) -> Sequence[str]:
    from oncontour.io.image import layout

    return layout.losses(read(clinic))


def test_the_dose_of_the_plan_with_those_of_groups_or_beams_beside_it(clinic: Path) -> None:
    uid = of_groups(clinic / "plan.dcm")
    whole = put(clinic, "RTDOSE.dcm", 65, uid)
    for n, gy in enumerate(GY, 1):
        put(clinic, f"group{n}.dcm", gy, uid, group=n)
    for doses in (None, [whole]):
        assert median(plan.dvh(clinic, alpha_beta=3, figures=["D50%"], dose=doses)) == pytest.approx(68, rel=1e-6)
    for n in (1, 2):
        (clinic / f"group{n}.dcm").unlink()
    for group, beam, gy in ((1, 1, 20), (1, 2, 30), (2, 3, 15)):
        put(clinic, f"beam{beam}.dcm", gy, uid, group=group, beam=beam)
    assert median(plan.dvh(clinic, alpha_beta=3, figures=["D50%"])) == pytest.approx(68, rel=1e-6)
    put(clinic, "beam3.dcm", 25, uid, group=2, beam=3)  # 75 Gy: not those of this plan's 65 Gy
    with pytest.raises(ConfigError, match="no RTDOSE tells them apart"):
        plan.dvh(clinic, alpha_beta=3)
    (clinic / "beam3.dcm").unlink()
    with pytest.raises(ConfigError, match="no RTDOSE tells them apart"):
        plan.dvh(clinic, alpha_beta=3)


def test_what_is_not_known_of_groups_is_refused(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole dose alone: as 30 equal fractions it would have been 65 (65 / 30 + 3) / 5 = 67.17 Gy without a word, less than the 68 of
    its groups; as 25, which are not all, 65 (65 / 25 + 3) / 5 = 72.8 Gy, which is more."""
    put(clinic, "RTDOSE.dcm", 65, of_groups(clinic / "plan.dcm"))
    assert cli.main(["dvh", str(clinic), "--alpha_beta", "3"]) == ConfigError.exit_code
    assert "2 groups of 25 and 5 fractions" in capsys.readouterr().err
    told = plan.dvh(clinic, alpha_beta=3, fractions=30, figures=["D50%"])
    assert median(told) == pytest.approx(67.1667, rel=1e-5)
    assert any("as given in equal fractions" in note for note in told.notes)
    told = plan.dvh(clinic, alpha_beta=3, fractions=25, figures=["D50%"])
    assert median(told) == pytest.approx(72.8, rel=1e-5)
    said = "25 in all: summed by group it is as much or more where that is how many are given in all, and may be less where it is not"
    assert any(said in note for note in told.notes)
    put(clinic, "RTDOSE.dcm", 65, of_groups(clinic / "plan.dcm", fractions=(25, None)))
    with pytest.raises(ConfigError, match="number of fractions, which no RTPLAN tells here of each of the 2"):
        plan.dvh(clinic, alpha_beta=3)


def test_a_group_that_gives_no_dose_is_none(clinic: Path) -> None:
    """A group of set-up fields alone has no fractions of treatment: 65 Gy in 25 at alpha/beta 3 are 65 (2.6 + 3) / 5 = 72.8 Gy."""
    put(clinic, "RTDOSE.dcm", 65, of_groups(clinic / "plan.dcm", fractions=(25, 1), beams=((1,), ())))
    assert read(clinic).facts["fractions"] == 25
    assert median(plan.dvh(clinic, alpha_beta=3, figures=["D50%"])) == pytest.approx(72.8, rel=1e-6)


def test_two_plans_are_summed_as_two_groups(clinic: Path) -> None:
    first = put(clinic, "first.dcm", 50, of_groups(clinic / "plan1.dcm", fractions=(25,), beams=((1,),)))
    second = put(clinic, "boost.dcm", 15, of_groups(clinic / "plan2.dcm", fractions=(5,), beams=((1,),)))
    assert median(plan.dvh(clinic, alpha_beta=3, figures=["D50%"], dose=[first, second])) == pytest.approx(68, rel=1e-6)
    (clinic / "plan2.dcm").unlink()
    with pytest.raises(ConfigError, match="of each of the 2 plans or fraction groups"):
        plan.dvh(clinic, alpha_beta=3, dose=[first, second])


def test_centigray_of_groups(clinic: Path) -> None:
    uid = of_groups(clinic / "plan.dcm")
    for n, gy in enumerate(GY, 1):
        put(clinic, f"group{n}.dcm", 100 * gy, uid, group=n)
    (clinic / "RTDOSE.dcm").unlink()
    assert median(plan.dvh(clinic, alpha_beta=3, unit="cGy", figures=["D50%"])) == pytest.approx(68, rel=1e-6)


# ---- what a file is called decides nothing


@pytest.mark.parametrize("name", ["EFFECTIVE_old.dcm", "centigray.dcm", "sum of plans.dcm"])
def test_the_name_of_a_stray_file_decides_nothing(clinic: Path, name: str) -> None:
    """A dose of other images under such a name: neither EQD2 nor the unit of the right dose is in doubt for it."""
    d = pydicom.dcmread(clinic / "RTDOSE.dcm")
    d.FrameOfReferenceUID, d.SOPInstanceUID = generate_uid(), generate_uid()
    d.save_as(clinic / name)
    found = plan.dvh(clinic, fractions=25, alpha_beta=3, figures=["D50%"])
    assert median(found) == pytest.approx(72.8, rel=1e-6)
    assert not any("equal fractions" in note for note in found.notes)
    (told,) = [note for note in plan.dvh(clinic, unit="cGy", fractions=25).notes if "left out" in note]
    assert told == "RTDOSE of other images left out: [...]", "files are often called by their patients"


def test_a_structure_set_called_dose_is_no_reason_for_having_no_dose(clinic: Path) -> None:
    d = pydicom.dcmread(clinic / "RTSTRUCT.dcm")
    d.SOPInstanceUID, d.StructureSetDate = generate_uid(), "20010101"
    d.save_as(clinic / "dose old.dcm")
    (clinic / "RTDOSE.dcm").unlink()
    with pytest.raises(DoseError, match=r"^no dose to use \["):
        plan.dvh(clinic)
