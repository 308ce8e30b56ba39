"""Models that adapt, judged on repeat visits: fields in mm, the patient as the unit, claims with their tests, and the command."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oncontour import cli
from oncontour.adapt.deformation import Deformation
from oncontour.adapt.simulate import DAILY, PLANNING, Planning, SimulatedVisit, VisitSettings
from oncontour.adapt.task import AdaptSettings, AdaptTask
from oncontour.adapt.unlearned import Nothing, Optimised
from oncontour.commands.evaluate import evaluate
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError
from oncontour.evaluate.found import Evaluation, FieldRow, Row
from oncontour.evaluate.visit_claims import claims, difference, not_worse
from oncontour.evaluate.visits import by_patient, field_error_mm, field_row, fields_by_patient
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.many import Many
from oncontour.phantom import head_neck
from tests.phantoms import NECK, cohort

GRID = Geometry.regular((4, 5, 6), (3.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def visit() -> SimulatedVisit:
    return Planning(head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))).visit(1, VisitSettings())


def shift(x: float, y: float, z: float, grid: Geometry = GRID) -> Deformation:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return Deformation.from_matrix(matrix, grid, DAILY, PLANNING)


def test_the_error_of_a_field_by_pencil() -> None:
    """A shift of (3, 4, 0) mm found where none is: 5 mm everywhere; also from a grid of its own."""
    inside = np.zeros(GRID.shape, bool)
    inside[1:3, 2:4, 1:5] = True
    error = field_error_mm(shift(3, 4, 0, Geometry.regular((3, 3, 3), (9.0, 9.0, 9.0))), shift(0, 0, 0), inside)
    assert error.shape == (16,)
    assert error == pytest.approx(5.0)


def test_the_true_field_has_no_error_and_nothing_has_that_of_the_motion(visit: SimulatedVisit) -> None:
    case = replace(visit.case, facts={**visit.case.facts, "deformation": visit.deformation})
    row = field_row("truth", case, visit.deformation)
    assert (row.patient, row.visit, row.error_mm) == (visit.case.prior.id, "visit-1", 0)
    nothing = field_row("nothing", case, Nothing().adapt(case).deformation)
    assert nothing.error_mm == pytest.approx(visit.displacement_mm[0], rel=0.1)
    assert nothing.folding_percent == 0
    optimised = field_row("optimised", case, Optimised().adapt(case).deformation)
    assert optimised.error_mm < nothing.error_mm


def test_without_a_known_field_nothing_means_after_rigid_registration(visit: SimulatedVisit) -> None:
    """The same visit as if it were real, 20 mm off: its contours are set up first; no error is told of its field."""
    case = visit.case
    grid = case.geometry
    affine = grid.affine.copy()
    affine[0, 3] += 20
    moved = Geometry(grid.shape, affine)
    real = replace(
        case,
        images={"ct": Volume(case.ct.array, moved)},
        masks={name: Volume(case.mask(name).array, moved) for name in case.structures},
    )
    found = Nothing().adapt(real)
    assert found.deformation.displacement.array[0].mean() == pytest.approx(-20, abs=3)
    assert np.isnan(field_row("nothing", real, found.deformation).error_mm)


def test_a_visit_without_planning_visit_is_refused(visit: SimulatedVisit) -> None:
    for method in (Nothing(), Optimised()):
        with pytest.raises(InputError, match="no planning visit"):
            method.adapt(replace(visit.case, prior=None))


# ---- the patient is the unit


def made_up(values: dict[str, list[float]], metric: str = "DSC", method: str = "X", structure: str = "Brainstem") -> list[Row]:
    return [Row(f"{p}/visit-{n}", method, structure, metric, v) for p, its in values.items() for n, v in enumerate(its)]


def whole(rows: list[Row]) -> Evaluation:
    names = tuple(dict.fromkeys(row.method for row in rows))
    return by_patient(Evaluation(tuple(rows), (), (), (), names, tuple(dict.fromkeys(row.structure for row in rows)), len(rows)))


def test_a_patients_figure_is_the_mean_over_visits() -> None:
    """NaN is nothing to judge; a structure missed in one visit is not averaged away."""
    rows = made_up({"p0": [0.6, 0.8], "p1": [float("nan"), 0.5]}) + made_up({"p0": [2.0, float("inf")]}, "HD95")
    found = whole(rows)
    of = {(row.patient, row.metric): row.value for row in found.rows}
    assert of["p0", "DSC"] == pytest.approx(0.7)
    assert of["p1", "DSC"] == 0.5
    assert of["p0", "HD95"] == float("inf")
    assert found.patients == 2


def test_patients_whose_visits_lack_a_structure_are_counted() -> None:
    found = whole(made_up({"p0": [0.6], "p1": [0.7]}) + made_up({"p0": [0.5, 0.5]}, structure="Larynx"))
    assert found.absent == {("X", "Larynx"): 1}


def test_fields_are_averaged_over_visits_too() -> None:
    rows = [FieldRow("p0", f"visit-{n}", "X", error, 9.0, 0.0, 1.0) for n, error in enumerate((1.0, 2.0))]
    rows.append(FieldRow("p1", "visit-1", "X", float("nan"), float("nan"), 0.0, 1.0))
    assert fields_by_patient(rows, "X") == {"p0": 1.5}


# ---- claims


def figures(model_mm: float, brainstem: float, parotid: float = 0.1) -> tuple[Evaluation, list[FieldRow]]:
    """Eight patients: doing nothing leaves 3 mm, a registration 2 mm; the model's DSC differs from nothing's by what is given."""
    rows, fields = [], []
    for n in range(8):
        for structure, better in (("Brainstem", brainstem), ("Parotid_L", parotid), ("PTV_7000", -0.3)):
            rows += made_up({f"p{n}": [0.7 + n / 100]}, method="nothing", structure=structure)
            rows += made_up({f"p{n}": [0.7 + n / 100 + better]}, method="X", structure=structure)
        for method, mm in (("nothing", 3.0), ("registration", 2.0), ("X", model_mm)):
            fields.append(FieldRow(f"p{n}", "visit-1", method, mm + n / 100, 9.0, 0.02 * n if method == "X" else 0.0, 1.0))
    return whole(rows), fields


def test_claims_hold_and_fail_by_pencil() -> None:
    """Eight differences of one sign: p = 2 / 2^8 = 0.0078, twice that after Holm over two; folding reaches 0.14 % in one visit."""
    found = claims(*figures(1.5, 0.05), "X", ("nothing", "registration"), "nothing", 1.8)
    assert [claim.holds for claim in found] == [True, True, True, True, True, False]
    assert "difference -0.500 [-0.500 to -0.500]" in found[1].figures
    assert "after Holm 0.016" in found[1].figures
    assert "Brainstem" in found[3].text
    assert "worst visit 0.140 %" in found[5].figures
    assert not any("PTV" in claim.text for claim in found), "targets are no organs"


def test_an_organ_that_is_worse_fails_by_name_whatever_its_p() -> None:
    found = {claim.text: claim for claim in claims(*figures(2.5, -0.001), "X", ("nothing", "registration"), "nothing", 1.8)}
    assert found["X: Brainstem no worse than nothing in DSC"].holds is False
    assert found["X: Parotid_L no worse than nothing in DSC"].holds is True
    assert found["X: smaller field error than registration"].holds is False
    assert found["X: mean field error at most 1.8 mm"].holds is False
    assert str(found["X: Brainstem no worse than nothing in DSC"]).startswith("FAILS: ")


def test_not_worse_by_more_than_a_margin() -> None:
    fields = figures(2.05, 0.0)[1]
    assert not_worse(fields, "X", "registration", 0.1).holds is True
    assert not_worse(fields, "X", "registration", 0.04).holds is False
    assert not_worse([], "X", "registration", 0.1).holds is None


def test_missed_by_both_is_no_difference() -> None:
    inf = float("inf")
    one = difference({"a": inf, "b": 2.0, "c": 1.0}, {"a": inf, "b": 1.0, "d": 1.0})
    assert one is not None
    assert (one.patients, one.mean, one.test.n) == (2, 0.5, 1)
    assert difference({"a": float("nan")}, {"a": 1.0}) is None


# ---- the command


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(two patients with two simulated visits each, a model that has learned next to nothing)."""
    folder = tmp_path_factory.mktemp("visited")
    cohort(folder / "patients", 2)
    assert cli.main(["simulate", "visits", str(folder / "patients"), "--out", str(folder / "visits"), "--visits", "2"]) == 0
    settings = AdaptSettings(structures=NECK, spacing_mm=(6.0, 6.0, 6.0), window=(24, 24, 32), widths=(3, 4, 5), visits=1)
    training = TrainSettings(epochs=1, batch=1, validation=0, threads=1)
    outcome = fit(AdaptTask(settings), [head_neck(5, (6, 5, 5), 1.0, (32, 48, 48))], folder / "run", training, name="tiny")
    return folder / "visits", outcome.model


def test_evaluate_prints_fields_and_claims_and_counts_patients(visited: tuple[Path, Path], tmp_path: Path) -> None:
    said = evaluate(visited[0], model=[str(visited[1])], out=tmp_path / "out", many=Many(jobs=2))
    assert said.startswith("SIMULATED VISITS")
    for words in (
        "nothing: field error",
        "instance optimisation: field error",
        "tiny: smaller field error than nothing (mm: ",
        "2 patients",
    ):
        assert words in said
    with (tmp_path / "out" / "fields.csv").open() as file:
        fields = list(csv.DictReader(file))
    assert len(fields) == 3 * 4, "three methods, four visits"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "metrics.csv").read_text())))
    assert {row["patient"] for row in rows} == {"phantom-000", "phantom-001"}
    assert {row["method"] for row in rows} == {"nothing", "instance optimisation", "tiny", "tiny, direct"}
    assert {row["structure"] for row in rows} == set(NECK)
    assert "claims.txt" in {path.name for path in (tmp_path / "out").iterdir()}
    evaluate(visited[0], out=tmp_path / "out", structures=["Bone_Mandible"], many=Many(engine="here"))  # over the earlier one


def test_real_visits_are_judged_by_contours_alone(visited: tuple[Path, Path], tmp_path: Path) -> None:
    real = shutil.copytree(visited[0], tmp_path / "visits")
    for truth in real.rglob("deformation.npz"):
        truth.unlink()
    said = evaluate(real, out=tmp_path / "out", structures=["Bone_Mandible"], many=Many(engine="here"))
    assert "SIMULATED" not in said
    assert "nothing: true field not known" in said


def test_contours_are_no_models_that_adapt(visited: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="models that adapt"):
        evaluate(visited[0], predictions=[tmp_path], out=tmp_path / "out")
