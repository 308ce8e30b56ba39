"""Simulated visits: what is asked of the fields, the four traps, seeds, and the folder that comes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from oncontour import cli
from oncontour.adapt import motion
from oncontour.adapt.inputs import TRUTH, visit_case, with_truth
from oncontour.adapt.simulate import LEAST_JACOBIAN, Planning, SimulatedVisit, VisitSettings
from oncontour.adapt.visits import visits_in
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, InputError
from oncontour.io import read, write
from oncontour.phantom import head_neck
from tests.needs import lacking

ORGANS = ("Brainstem", "SpinalCord", "Parotid_R", "Parotid_L", "Bone_Mandible")


def dsc(a: Volume, b: Volume) -> float:
    return float(2 * (a.array & b.array).sum() / (a.array.sum() + b.array.sum()))


@pytest.fixture(scope="module")
def case() -> Case:
    return head_neck(0, (5, 4, 4), 1.0, (40, 60, 64))


@pytest.fixture(scope="module")
def planning(case: Case) -> Planning:
    return Planning(case)


@pytest.fixture(scope="module")
def visit(planning: Planning) -> SimulatedVisit:
    return planning.visit(1, VisitSettings(0.8))


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(case: Case, planning: Planning, visit: SimulatedVisit) -> None:
    planning.visit(2, VisitSettings(1.2))
    again = Planning(case).visit(1, VisitSettings(0.8))
    assert np.array_equal(again.deformation.displacement.array, visit.deformation.displacement.array)
    assert np.array_equal(again.case.ct.array, visit.case.ct.array)
    assert all(np.array_equal(again.case.mask(n).array, visit.case.mask(n).array) for n in case.structures)
    other = planning.visit(1, VisitSettings(0.8), seed=1)
    assert not np.array_equal(other.deformation.displacement.array, visit.deformation.displacement.array)


@pytest.mark.parametrize("family", ["course", "unseen"])
def test_nothing_folds_and_no_volume_is_halved(planning: Planning, family: str) -> None:
    for number in (1, 2, 3):
        assert planning.visit(number, VisitSettings(1.2, family)).least_jacobian >= LEAST_JACOBIAN  # type: ignore[arg-type]


def test_the_true_field_carries_the_true_contours_and_the_second_observer_differs(case: Case, visit: SimulatedVisit) -> None:
    carried = visit.deformation.warp_masks({n: case.mask(n) for n in ORGANS}, case.geometry)
    assert all(np.array_equal(carried[n].array, visit.exact[n].array) for n in ORGANS)
    agreed = [dsc(visit.exact[n], visit.case.mask(n)) for n in ORGANS]
    assert 0.75 < np.mean(agreed) < 0.95
    assert max(agreed) < 1


def test_without_a_second_observer_masks_are_the_true_ones(planning: Planning) -> None:
    visit = planning.visit(1, VisitSettings(0.8, observer_mm=0))
    assert all(np.array_equal(visit.exact[n].array, visit.case.mask(n).array) for n in ORGANS)


def test_amplitude_zero_leaves_only_the_shift_of_a_millimetre(planning: Planning) -> None:
    u = planning.visit(1, VisitSettings(0)).deformation.displacement.array
    assert float(np.abs(u - u[:, :1, :1, :1]).max()) < 1e-3
    assert float(np.linalg.norm(u[:, 0, 0, 0])) < 4


def test_the_rigid_part_is_taken_out(planning: Planning, visit: SimulatedVisit) -> None:
    matrix = visit.deformation.rigid_part(Volume(visit.inside, visit.deformation.geometry))
    turn = np.rad2deg(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    assert turn < 0.3


def test_the_daily_ct_is_the_planning_ct_where_the_field_leads(case: Case, visit: SimulatedVisit) -> None:
    warped = visit.deformation.warp(case.ct, case.geometry, fill=-1000).array
    day = visit.case.ct.array.astype(float)
    moved, still = (np.corrcoef(day.ravel(), other.ravel())[0, 1] for other in (warped, case.ct.array.astype(float)))
    assert moved > still
    assert moved > 0.97


def test_the_grain_of_the_planning_ct_is_not_seen_again(case: Case) -> None:
    """Noise planted in the planning CT: on the day, brought back by the true field, hardly any of it lies where it was planted."""
    noise = np.random.default_rng(4).normal(0, 15, case.geometry.shape)
    planted = case.with_images({"ct": case.ct.map(lambda hu: np.rint(hu + noise).astype(np.int16))})
    visit = Planning(planted).visit(1, VisitSettings(0.8))
    back = visit.deformation.inverse(case.geometry).deformation.warp(visit.case.ct, case.geometry, fill=-1000).array
    tissue = np.abs(case.ct.array - 20.0) < 60
    tissue &= ndimage.binary_erosion(tissue, iterations=2)
    assert tissue.sum() > 2000
    assert abs(np.corrcoef(noise[tissue], back[tissue])[0, 1]) < 0.25  # 0.5 where the grain moves with the patient


def test_a_masked_ct_is_masked_on_the_day_by_the_region_unmoved(case: Case) -> None:
    region = np.zeros(case.geometry.shape, bool)
    region[6:34, 12:46, 14:50] = True
    masked = case.with_images({"ct": Volume(np.where(region, np.maximum(case.ct.array, -1010), -1024).astype(np.int16), case.geometry)})
    filled, found = motion.known(masked.ct)
    assert np.array_equal(found, region)
    assert filled.array.min() >= -1024
    day = Planning(masked).visit(1, VisitSettings(1.0)).case.ct.array
    assert (day[~region] == -1024).all()
    # Nor does the border of what is known come in with the field: just inside it there is as much air as before.
    rim = region & ~np.roll(region, 1, axis=0)
    assert abs(float((day[rim] < -900).mean()) - float((masked.ct.array[rim] < -900).mean())) < 0.1


@pytest.mark.parametrize(("name", "sign"), [("Parotid_L", -1), ("Parotid_R", 1)])
def test_parotids_shrink_and_move_to_the_middle(planning: Planning, name: str, sign: int) -> None:
    """daily(x) = planning(x + u): an organ that moved to the right (-x, the left one) has u > 0 in x at its middle."""
    u = motion.parotids(planning.anatomy, np.random.default_rng(0), 1.0, 1.0)
    middle = planning.anatomy.organs[name]
    assert float(u[0][middle].mean()) * sign < -1
    shrinks = planning.anatomy.points - planning.anatomy.middle_of(name)[:, None, None, None]
    outward = (u * shrinks)[1:, middle].sum()
    assert float(outward) > 0


def test_fat_lost_below_the_skin_brings_the_surface_inwards(planning: Planning) -> None:
    u = motion.skin(planning.anatomy, np.random.default_rng(1), 1.0, 1.0)
    surface = np.abs(planning.anatomy.depth_mm) < 6
    assert float((u * planning.anatomy.outward).sum(axis=0)[surface].mean()) > 1
    deep = planning.anatomy.depth_mm > 60
    assert float(np.linalg.norm(u, axis=0)[deep].mean()) < 1


def test_smooth_noise_has_the_sd_it_is_asked_for(planning: Planning) -> None:
    noise = motion.smooth_noise(planning.anatomy.grid, np.random.default_rng(0), 1.5, 20.0)
    assert float(noise.std()) == pytest.approx(1.5, rel=0.1)


def test_published_amplitudes_on_real_patients(data: Path) -> None:
    """design: x0.8 gives 3.0 mm, p95 5.3 mm, DSC of doing nothing .77 in the mean of many; three patients within a third of it."""
    folders = [data / "openkbp" / "train" / name for name in ("pt_33", "pt_100", "pt_10")]
    if not folders[0].is_dir():
        lacking("no OpenKBP patients")
    means, far, none = [], [], []
    for folder in folders:
        planning = Planning(read(folder))
        visit = planning.visit(1, VisitSettings(0.8))
        mean, p95 = visit.displacement_mm
        means.append(mean)
        far.append(p95)
        none.append(np.mean([dsc(planning.case.mask(n), visit.exact[n]) for n in ORGANS if n in planning.case.structures]))
        assert visit.least_jacobian >= LEAST_JACOBIAN
    assert np.mean(means) == pytest.approx(3.0, rel=0.33)
    assert np.mean(far) == pytest.approx(5.3, rel=0.33)
    assert np.mean(none) == pytest.approx(0.77, abs=0.1)


def test_a_case_without_contours_is_refused(case: Case) -> None:
    with pytest.raises(InputError, match="from contours, and there are none"):
        Planning(case.without_structures())


@pytest.mark.parametrize("wrong", [{"amplitude": -1}, {"amplitude": float("nan")}, {"observer_mm": 20}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        VisitSettings(**wrong)  # type: ignore[arg-type]


# ---- the command and its folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for n in range(2):
        write(replace(head_neck(n, (8, 8, 8), 1.0, (28, 30, 34)), id=f"p{n}"), folder / f"p{n}", format="nifti")
    return folder


@pytest.fixture(scope="module")
def made(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("visits") / "out"
    assert cli.main(["simulate", "visits", str(cohort), "--out", str(out), "--visits", "1", "--seed", "3"]) == 0
    return out


def test_the_folder_says_that_it_is_simulated_and_reads_back(cohort: Path, made: Path) -> None:
    assert "SIMULATED" in (made / "README.md").read_text()
    record = json.loads((made / "simulation.json").read_text())
    assert record["simulated"] is True
    assert [row["patient"] for row in record["visits"]] == ["p0", "p1"]
    found = visits_in(made)
    assert {name: [p.name for p in paths] for name, paths in found.items()} == {name: ["visit-0", "visit-1"] for name in ("p0", "p1")}
    day = visit_case("p0", *found["p0"])
    assert (day.id, day.prior.id) == ("p0/visit-1", "p0")
    assert day.geometry.same_grid(read(cohort / "p0").geometry)
    expected = Planning(read(cohort / "p0", id="p0")).visit(1, VisitSettings(0.8), seed=3)
    assert np.allclose(day.facts["deformation"].displacement.array, expected.deformation.displacement.array, atol=1e-5)
    assert np.array_equal(day.mask("Parotid_L").array, expected.case.mask("Parotid_L").array)


def test_training_takes_the_folder_as_it_takes_real_repeat_visits(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--settings.structures", "Parotid_L,Parotid_R", "--settings.spacing_mm", "8,8,8", "--settings.window", "16,16,24"]
    words += ["--settings.widths", "[2,3,4]", "--training.batch", "1", "--training.validation", "0", "--epochs", "1"]
    assert cli.main(["train", "adapt", str(made), "--out", str(tmp_path / "run"), *words]) == 0
    assert "SIMULATED" in capsys.readouterr().out
    assert "flow1_into_seg" in (tmp_path / "run" / "metrics.csv").read_text()


def test_bad_input_is_told_before_any_work(cohort: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words, says in (
        ([str(tmp_path / "nowhere")], "no such folder or CSV of patients"),
        ([str(cohort), "--amplitude", "9"], "amplitude is 0 to 3"),
        ([str(cohort), "--visits", "0"], "visits is 1 to"),
    ):
        assert cli.main(["simulate", "visits", *words, "--out", str(out)]) != 0
        assert says in capsys.readouterr().err
        assert not out.exists()
    assert cli.main(["simulate", "visits", str(cohort), "--out", str(made)]) != 0
    assert "--overwrite" in capsys.readouterr().err


def test_patients_without_visits_among_others_are_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "visit-0").mkdir(parents=True)
    with pytest.raises(CohortError, match="one visit alone"):
        visits_in(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(CohortError, match="no visits"):
        visits_in(tmp_path)


def test_a_file_that_holds_no_displacement_is_refused(case: Case, tmp_path: Path) -> None:
    path = tmp_path / TRUTH
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no displacement can be read"):
        with_truth(case, path)
    np.savez(path, displacement=np.array([{}], dtype=object), affine=np.eye(4))
    with pytest.raises(InputError, match="no displacement can be read"):
        with_truth(case, path)
