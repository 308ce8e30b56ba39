import csv
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.commands.evaluate import evaluate
from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, InputError, OutputError
from oncontour.evaluate import tables
from oncontour.evaluate.figures import box_plots, chosen_patients
from oncontour.evaluate.found import METRICS, Evaluation, Row
from oncontour.evaluate.judge import judge, measure, swapped
from oncontour.evaluate.panels import panels
from oncontour.evaluate.predictions import Predictions
from oncontour.evaluate.tables import ALL, compare, summarise, text
from oncontour.evaluate.write import write as write_results
from oncontour.io import write
from oncontour.io.cohort import Cohort
from oncontour.io.image.nifti import write_image
from oncontour.many import Many
from oncontour.metrics.overlap import overlap
from tests.phantoms import patient as write_patient

GRID = Geometry.regular((10, 24, 24), (3.0, 2.0, 2.0))
CT = Volume(np.full(GRID.shape, 40, np.int16), GRID)
EMPTY = Volume(np.zeros(GRID.shape, bool), GRID)


def block(j: int, i: int, size: int = 6, k: tuple[int, int] = (2, 8)) -> Volume:
    array = np.zeros(GRID.shape, bool)
    array[k[0] : k[1], j : j + size, i : i + size] = True
    return Volume(array, GRID)


HERE = Many(engine="here")
CORNER = block(0, 0)
DISTANCES = ("ASD", "HD", "HD95", "MSD", "surface_DSC", "APL")
TRUTH = {
    "p1": {"Cord": block(9, 9), "Gland_L": block(2, 15), "Gland_R": block(2, 2)},
    "p2": {"Cord": block(9, 9), "Gland_L": block(2, 15)},
    "p10": {"Cord": block(8, 8), "Gland_L": block(2, 14), "Gland_R": block(2, 3), "Tumour": block(15, 15)},
}


class People:
    """Patients kept in memory; a patient named in ``broken`` cannot be read."""

    def __init__(self, truth: Mapping[str, Mapping[str, Volume]], broken: str = "") -> None:
        self.truth, self.broken = truth, broken
        self.ids = tuple(truth)

    def __getitem__(self, id: str) -> Case:
        if id == self.broken:
            raise InputError("slices are missing", where=id)
        return Case(id, {"ct": CT}, self.truth[id])


class Draws:
    """Predicts what it is told, and remembers whether it was shown the truth."""

    def __init__(self, masks: Mapping[str, Mapping[str, Volume]]) -> None:
        self.masks = masks
        self.shown: list[str] = []

    def predict(self, case: Case) -> Case:
        self.shown += case.structures
        return case.with_masks(self.masks[case.id])


def moved(masks: Mapping[str, Mapping[str, Volume]], voxels: int) -> dict[str, dict[str, Volume]]:
    return {p: {n: Volume(np.roll(m.array, voxels, axis=2), GRID) for n, m in masks[p].items() if n != "Tumour"} for p in masks}


def values(found: Evaluation, metric: str, method: str = "net") -> dict[tuple[str, str], float]:
    return {(r.patient, r.structure): r.value for r in found.rows if r.metric == metric and r.method == method}


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return judge(People(TRUTH), {"net": Draws(moved(TRUTH, 1))}, look=True, threads=1)


# ---- what counts


def test_every_number_of_every_structure(found: Evaluation) -> None:
    assert {r.metric for r in found.rows} == set(METRICS)
    # blocks 6 voxels wide, moved by one: 5 of 6 shared, 2 mm apart
    assert values(found, "DSC") == pytest.approx(dict.fromkeys(values(found, "DSC"), 5 / 6))
    assert values(found, "JI")["p1", "Cord"] == pytest.approx(5 / 7)
    assert values(found, "HD")["p1", "Cord"] == pytest.approx(2)
    assert values(found, "surface_DSC")["p1", "Cord"] == 1  # tolerance 2 mm
    assert values(found, "volume_truth")["p1", "Cord"] == pytest.approx(6**3 * 12 / 1000)


def test_the_tolerance_that_is_asked_for_is_used() -> None:
    """A block of 12 x 12 x 18 mm moved by 2 mm. On each surface there lie farther than 1 mm from the other one: the end that sticks out,
    12 * 18, a rim of 1 mm behind it, 60, and the other end but for 1 mm along its edges, 10 * 16: 436 of 1152 mm2. To draw anew in each of
    6 slices are the two ends, 10 mm each. Edges and corners are rounded, hence a few percent.
    """
    found = judge(People(TRUTH), {"net": Draws(moved(TRUTH, 1))}, structures=["Cord"], tolerance_mm=1, threads=1)
    assert values(found, "surface_DSC")["p1", "Cord"] == pytest.approx(1 - 436 / 1152, rel=0.05)
    assert values(found, "APL")["p1", "Cord"] == pytest.approx(6 * 2 * 10, rel=0.1)
    assert found.tolerance_mm == 1


def test_absent_truth_is_not_judged_and_is_counted(found: Evaluation) -> None:
    assert set(values(found, "DSC")) == {(p, s) for p in TRUTH for s in TRUTH[p] if s != "Tumour"}
    assert found.absent == {("net", "Gland_R"): 1}
    assert found.not_drawn == {"net": ("Tumour",)}


def test_the_truth_is_hidden_from_the_predictor() -> None:
    net = Draws(moved(TRUTH, 0))
    judge(People(TRUTH), {"net": net}, threads=1)
    assert net.shown == []


def test_a_missed_structure_stays_in_the_mean() -> None:
    predicted = moved(TRUTH, 0)
    del predicted["p1"]["Cord"]  # not written at all
    predicted["p2"]["Cord"] = EMPTY  # written empty
    found = judge(People(TRUTH), {"net": Draws(predicted)}, threads=1)
    cord = {s.metric: s for s in summarise(found) if s.structure == "Cord"}
    assert cord["DSC"].mean == pytest.approx(1 / 3)
    assert (cord["DSC"].n, cord["DSC"].missed) == (3, 2)
    assert cord["ASD"].mean == np.inf
    assert cord["ASD"].mean_found == 0


def test_asked_for_and_never_predicted_is_missed() -> None:
    found = judge(People(TRUTH), {"net": Draws(moved(TRUTH, 0))}, structures=["Tumour"], threads=1)
    assert values(found, "DSC") == {("p10", "Tumour"): 0}
    assert not found.failures
    assert found.absent == {("net", "Tumour"): 2}


def test_patients_that_lack_a_structure_are_counted_over_all_structures_too() -> None:
    predicted = moved(TRUTH, 0)
    predicted["p1"] = {"Gland_R": predicted["p1"]["Gland_R"]}  # lacks two: one patient
    del predicted["p10"]["Cord"]
    found = judge(People(TRUTH), {"net": Draws(predicted)}, threads=1)
    missed = {s.structure: s.missed for s in summarise(found) if s.metric == "DSC"}
    assert missed == {"Cord": 2, "Gland_L": 1, "Gland_R": 0, ALL: 2}


def test_what_is_asked_for_and_in_no_truth_is_said() -> None:
    found = judge(People(TRUTH), {"net": Draws(moved(TRUTH, 0))}, structures=["Cord", "Chord", "Cord"], threads=1)
    assert (found.structures, found.nowhere) == (("Cord",), ("Chord",))
    assert "in the truth of no judged patient: Chord" in text(found, summarise(found), [])


def test_what_is_not_judged_stops_nothing():
    """The truth has one side alone, and of the other side's contours one is tilted, so that no slice holds them all."""
    tilted = Contours([np.array([[0.0, 0, z], [9, 0, z], [9, 9, z + up]]) for z, up in ((0, 0), (3, 9))])

    class Both:
        def predict(self, case: Case) -> Case:
            return Case(case.id, {}, TRUTH["p2"], {"Gland_R": tilted})

    found = judge(People({"p2": TRUTH["p2"]}), {"net": Both()}, threads=1)
    assert (found.failures, found.swaps, found.structures) == ((), (), ("Cord", "Gland_L"))


def test_a_structure_that_is_asked_for_by_its_very_name_is_no_other():
    """A second person's masks keep their names beside the first one's, LeftParotid beside Parotid_L; alone they mean Parotid_L."""
    one, other = block(9, 9), block(9, 10)
    truth = {"p1": {"Parotid_L": one, "LeftParotid": other}}
    for asked, name, dsc in (("LeftParotid", "LeftParotid", 1.0), ("left parotid", "Parotid_L", 0.0), ("Parotid_L", "Parotid_L", 0.0)):
        found = judge(People(truth), {"net": Draws({"p1": {"LeftParotid": other}})}, structures=[asked], threads=1)
        assert (found.structures, found.nowhere) == ((name,), ())
        assert [row.value for row in found.rows if row.metric == "DSC"] == [dsc]


def test_drawn_where_the_truth_is_empty_is_not_called_missed(tmp_path: Path) -> None:
    truth = {p: {"Cord": EMPTY if p == "b" else block(9, 9)} for p in "abcd"}
    drawn = {p: {"Cord": EMPTY if p == "a" else block(9, 9)} for p in "abcd"}
    found = judge(People(truth), {"net": Draws(drawn)}, threads=1)
    _, svg = box_plots(found, tmp_path / "box", ("HD",))
    told = svg.read_text(encoding="utf-8")
    assert "1 missed" in told
    assert "1 too many" in told


def test_empty_in_both_is_nothing_to_judge_and_counted() -> None:
    truth = {"a": {"Cord": EMPTY}, "b": {"Cord": block(9, 9)}}
    found = judge(People(truth), {"net": Draws(truth)}, threads=1)
    dsc = next(s for s in summarise(found) if s.metric == "DSC")
    assert (dsc.n, dsc.empty, dsc.mean) == (1, 1, 1)


def test_one_bad_patient_does_not_stop_the_others() -> None:
    found = judge(People(TRUTH, broken="p2"), {"net": Draws({"p1": moved(TRUTH, 0)["p1"]})}, threads=1)
    assert {f.patient for f in found.failures} == {"p2", "p10"}
    assert "slices are missing" in next(f.reason for f in found.failures if f.patient == "p2")
    assert {r.patient for r in found.rows} == {"p1"}


def test_nobody_judged_is_an_error_that_says_why() -> None:
    with pytest.raises(CohortError, match="slices are missing"):
        judge(People({"p1": TRUTH["p1"]}, broken="p1"), {"net": Draws({})}, threads=1)
    with pytest.raises(ConfigError, match="nothing to judge"):
        judge(People(TRUTH), {})


class OnOtherVoxels:
    """Predicts the truth's voxels, on ``grids`` (patient -> grid) where one is given."""

    def __init__(self, grids: dict[str, Geometry]) -> None:
        self.grids = grids

    def predict(self, case: Case) -> Case:
        grid = self.grids.get(case.id, GRID)
        return Case(case.id, {}, {name: Volume(mask.to(GRID.reorient(grid.axes)).array, grid) for name, mask in TRUTH[case.id].items()})


def test_masks_of_other_voxels_are_refused_with_both_values() -> None:
    """20 mm aside the same numbers are another place: whether the header or the export is wrong nobody can tell."""
    x, y, z = GRID.origin_mm
    aside = Geometry.regular(GRID.shape, GRID.spacing_mm, (x + 20, y, z), GRID.axes)
    found = judge(People(TRUTH), {"net": OnOtherVoxels({"p1": aside})}, threads=1)
    (failure,) = found.failures
    assert failure.patient == "p1"
    assert f"voxels lie up to 20 mm apart, at most {min(0.05, 0.1 * min(GRID.spacing_mm)):.3g} mm count as rounding" in failure.reason
    assert f"the first at ({x + 20:g}, {y:g}, {z:g}) mm instead of ({x:g}, {y:g}, {z:g})" in failure.reason
    assert {row.patient for row in found.rows} == set(TRUTH) - {"p1"}


def test_masks_stored_in_another_order_are_the_same_voxels() -> None:
    turned = GRID.reorient([(0, 0, -1), (-1, 0, 0), (0, 1, 0)])
    found = judge(People(TRUTH), {"net": OnOtherVoxels(dict.fromkeys(TRUTH, turned))}, threads=1)
    assert not found.failures
    assert set(values(found, "DSC").values()) == {1.0}


# ---- left and right


def test_swapped_sides_are_found() -> None:
    left, right = TRUTH["p1"]["Gland_L"], TRUTH["p1"]["Gland_R"]
    assert swapped(TRUTH["p1"], {"Gland_L": right, "Gland_R": left, "Cord": left}) == ["Gland_L", "Gland_R"]
    assert swapped(TRUTH["p1"], moved(TRUTH, 1)["p1"]) == []
    assert swapped(TRUTH["p2"], {"Gland_L": right}) == []  # nothing to compare with on the right
    assert swapped(TRUTH["p2"], {"Gland_L": right, "Gland_R": left}) == ["Gland_R"]  # the right one lies on the left truth
    assert swapped(TRUTH["p2"], {"Gland_L": left, "Gland_R": right}) == []
    assert swapped(TRUTH["p2"], {"Gland_L": EMPTY, "Gland_R": block(2, 10)}) == []  # a missed left, and a right that touches it
    crossed = {**moved(TRUTH, 0), "p2": {"Cord": TRUTH["p2"]["Cord"], "Gland_L": right, "Gland_R": left}}
    assert [(s.patient, s.structure) for s in judge(People(TRUTH), {"net": Draws(crossed)}, threads=1).swaps] == [("p2", "Gland_R")]
    predicted = {**moved(TRUTH, 0), "p1": {**TRUTH["p1"], "Gland_L": right}}
    assert [(s.patient, s.structure) for s in judge(People(TRUTH), {"net": Draws(predicted)}, threads=1).swaps] == [("p1", "Gland_L")]


# ---- statistics


def cohort_of(n: int, shift: int) -> tuple[People, Draws]:
    truth = {f"q{m}": {"Cord": block(9, 6, size=5 + m % 3), "Gland_L": block(2, 14, size=5)} for m in range(n)}
    return People(truth), Draws(moved(truth, shift))


def test_mean_over_structures_weighs_structures_alike(found: Evaluation) -> None:
    overall = next(s for s in summarise(found) if s.structure == ALL and s.metric == "DSC")
    assert (overall.mean, overall.n) == (pytest.approx(5 / 6), 3)


def test_methods_are_compared_patient_by_patient() -> None:
    people, near = cohort_of(6, 1)
    far = Draws(moved(people.truth, 2))
    rows = compare(judge(people, {"near": near, "far": far}, threads=1))
    dsc = next(c for c in rows if c.metric == "DSC" and c.structure == "Gland_L")
    assert dsc.difference == pytest.approx(4 / 5 - 3 / 5)
    assert dsc.p_wilcoxon == dsc.smallest_p == 2 / 2**6
    assert dsc.holm_wilcoxon == pytest.approx(2 * dsc.p_wilcoxon)  # two structures
    assert next(c for c in rows if c.metric == "HD" and c.structure == "Cord").difference == pytest.approx(-2)
    assert {c.structure for c in rows} == {"Cord", "Gland_L", ALL}


def test_no_p_below_what_n_allows_in_the_table_either() -> None:
    """Three patients, differences of 0.1, 0.1 and 0.1001: Student's t alone would claim p < 1e-6."""
    values = {"a": (0.6, 0.7, 0.8001), "b": (0.5, 0.6, 0.7)}
    rows = [Row(f"q{n}", method, "Cord", "DSC", v) for method, each in values.items() for n, v in enumerate(each)]
    found = Evaluation(tuple(rows), (), (), (), ("a", "b"), ("Cord",), 3)
    (one,) = compare(found)
    assert one.p_wilcoxon == one.p_t == one.holm_t == one.smallest_p == 0.25
    assert ">= 0.250 (n allows no less)" in tables._comparison_table([one], several=False)


def test_one_method_is_not_compared(found: Evaluation) -> None:
    assert compare(found) == []


# ---- files


def test_everything_is_written(found: Evaluation, tmp_path: Path) -> None:
    said = write_results(replace(found, panels=tuple(p for p in found.panels if p.patient == "p1")), tmp_path, overlays="all")
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["patient", "method", "structure", "metric", "value", "unit"]
    assert [(r["patient"], r["method"], r["structure"], r["metric"]) for r in rows] == [
        (r.patient, r.method, r.structure, r.metric) for r in found.rows
    ]
    assert [float(r["value"]) for r in rows] == pytest.approx([r.value for r in found.rows], rel=1e-5)
    assert {float(r["value"]) for r in rows if r["metric"] == "DSC"} == {0.833333}
    assert "left and right swapped: 0" in said
    assert "never draws Tumour" in said
    assert "Gland_R 1" in said
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    pictures = {"boxplots", "boxplots-more", "overlays/p1"}
    assert names == {f"{p}.{kind}" for p in pictures for kind in ("png", "svg")} | {
        "metrics.csv",
        "summary.csv",
        "summary.txt",
        "failures.csv",
    }
    assert (tmp_path / "boxplots.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "overlays" / "p1.svg").read_text(encoding="utf-8")[:600]


def test_pictures_of_three_and_none(tmp_path: Path) -> None:
    people, near = cohort_of(4, 1)
    near.masks["q3"]["Cord"] = EMPTY  # type: ignore[index]
    found = judge(people, {"near": near, "far": Draws(moved(people.truth, 2))}, structures=["Cord"], look=True, threads=1)
    chosen = chosen_patients(found)
    assert chosen["q3"] == "worst"
    assert sorted(chosen.values()) == ["best", "median", "worst"]
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "worst-q0.png").touch()
    (tmp_path / "overlays" / "mine.txt").touch()
    write_results(found, tmp_path, overlays="three")
    left = {p.name for p in (tmp_path / "overlays").iterdir()}
    assert left == {"mine.txt"} | {f"{rank}-{name}.{kind}" for name, rank in chosen.items() for kind in ("png", "svg")}
    assert (tmp_path / "comparisons.csv").exists()
    with (tmp_path / "summary.csv").open() as file:
        dsc = {r["method"]: r for r in csv.DictReader(file) if r["metric"] == "DSC"}
    # blocks of 5, 6, 7 and 5 voxels, moved by one (the last one missed) and by two
    for method, mean in (("near", (4 / 5 + 5 / 6 + 6 / 7) / 4), ("far", (3 / 5 + 4 / 6 + 5 / 7 + 3 / 5) / 4)):
        assert float(dsc[method]["mean"]) == pytest.approx(mean, rel=1e-5)
        assert float(dsc[method]["low"]) < mean < float(dsc[method]["high"])


def test_the_same_evaluation_gives_the_same_picture(found: Evaluation, tmp_path: Path) -> None:
    one, other = (box_plots(found, tmp_path / name, ("DSC",)) for name in "ab")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_panels_show_the_slice_they_name(found: Evaluation) -> None:
    panel = next(p for p in found.panels if (p.patient, p.structure, p.rank) == ("p1", "Cord", "worst"))
    assert panel.truth.sum() == 36
    assert panel.dsc["net"] == pytest.approx(5 / 6)
    assert panel.image is not None
    assert panel.truth.shape[0] * panel.pixel_mm[0] == pytest.approx(panel.truth.shape[1] * panel.pixel_mm[1], abs=2)


def test_panels_show_each_slice_as_it_is_and_the_prediction_in_its_place() -> None:
    """Widths of 4, 4 and 10 voxels moved by one: DSC 3/4, 3/4 and 9/10. No slice is like another, or like its own mirror image."""
    array = np.zeros(GRID.shape, bool)
    array[2, 4:8, 4:8] = array[3, 4:12, 4:8] = array[4, 4:8, 4:14] = True
    array[2:5, 4, 4:6] = False
    truth, predicted = Volume(array, GRID), Volume(np.roll(array, 1, axis=2), GRID)
    case = Case("p", {"ct": Volume(np.where(array, 100, 0).astype(np.int16), GRID)})
    shown = panels(case, "x", truth, {"net": (predicted, overlap(truth, predicted))})
    assert [(one.rank, one.k) for one in shown] == [("best", 4), ("median", 3), ("worst", 2)]
    for one in shown:
        where = np.argwhere(one.truth)
        assert (where - where.min(axis=0)).tolist() == (np.argwhere(array[one.k]) - (4, 4)).tolist()
        assert (one.predicted["net"] == np.roll(one.truth, 1, axis=1)).all()
        assert one.image is not None
        assert ((one.image > 50) == one.truth).all()


# ---- the command


def test_two_folders(tmp_path: Path) -> None:
    for name in TRUTH:
        write_patient(tmp_path / "truth" / name, Case(name, {"ct": CT}, TRUTH[name]))
        write_patient(tmp_path / "drawn" / name, Case(name, {"ct": CT}, moved(TRUTH, 1)[name]))
    fractions: list[float] = []
    said = evaluate(
        tmp_path / "truth",
        out=tmp_path / "out",
        predictions=[tmp_path / "drawn"],
        tolerance_mm=1,
        overlays="none",
        many=HERE,
        progress=fractions.append,
    )
    assert "drawn: mean" in said
    assert "0.833" in said
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = [(r["metric"], float(r["value"])) for r in csv.DictReader(file)]
    assert {value for metric, value in rows if metric == "DSC"} == {0.833333}
    assert all(value < 0.7 for metric, value in rows if metric == "surface_DSC")  # moved by 2 mm, forgiven is 1
    assert fractions == pytest.approx([1 / 3, 2 / 3, 1])
    assert (tmp_path / "out" / "summary.csv").exists()


def test_an_rtstruct_alone_is_a_prediction(tmp_path: Path) -> None:
    people = {"p1": Case("p1", {"ct": CT}, TRUTH["p1"])}
    write(people["p1"], tmp_path / "truth" / "p1", format="dicom")
    (tmp_path / "drawn" / "p1").mkdir(parents=True)
    shutil.copy(tmp_path / "truth" / "p1" / "RTSTRUCT.dcm", tmp_path / "drawn" / "p1")
    said = evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "drawn"], overlays="none", many=HERE)
    assert "1.000" in said
    shutil.copy(tmp_path / "truth" / "p1" / "RTSTRUCT.dcm", tmp_path / "drawn" / "p1" / "again.dcm")
    with pytest.raises(CohortError, match="2 structure sets"):
        evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "drawn"], overlays="none", many=HERE)


def test_a_patient_that_cannot_be_judged_is_an_error_after_all_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables come on stdout, the sentence on stderr, and whoever looks at the exit code alone knows that it was not all."""
    for name in TRUTH:
        write_patient(tmp_path / "truth" / name, Case(name, {"ct": CT}, TRUTH[name]))
    (tmp_path / "truth" / "p1" / "ct.nii.gz").write_bytes(b"no image")
    words = ["evaluate", str(tmp_path / "truth"), "--predictions", str(tmp_path / "truth"), "--out", str(tmp_path / "out")]
    assert main([*words, "--overlays", "none", "--engine", "here"]) == 2
    told = capsys.readouterr()
    assert "1 of 3 patients could not be judged (p1)" in told.err
    assert "p1" in (tmp_path / "out" / "failures.csv").read_text()
    assert "truth: mean" in told.out
    assert (tmp_path / "out" / "summary.csv").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    write_patient(tmp_path / "truth" / "p1", Case("p1", {"ct": CT}, TRUTH["p1"]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.csv").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds other things \(thesis\.csv\)"):
        evaluate(tmp_path / "truth", out=tmp_path / "mine", predictions=[tmp_path / "truth"], overlays="none", many=HERE)
    for _ in range(2):  # an earlier evaluation is replaced
        evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "truth"], overlays="all", many=HERE)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.csv"]


def test_predictions_drawn_on_other_images_are_not_judged(tmp_path: Path) -> None:
    """Two exports of one patient with frames of reference of their own: nothing says that they lie in one place."""
    for folder in ("truth", "drawn"):
        write(Case("p1", {"ct": CT}, TRUTH["p1"]), tmp_path / folder / "p1", format="dicom")
    with pytest.raises(CohortError, match="frame of reference"):
        evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "drawn"], overlays="none", many=HERE)


def test_command_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    write_patient(tmp_path / "truth" / "p1", Case("p1", {"ct": CT}, TRUTH["p1"]))
    with pytest.raises(ConfigError, match="--model"):
        evaluate(tmp_path / "truth", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="tolerance"):
        evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "truth"], tolerance_mm=-1)
    with pytest.raises(InputError, match="no such file"):
        evaluate(tmp_path / "nowhere", out=tmp_path / "out", predictions=[tmp_path / "truth"])
    assert not (tmp_path / "out").exists()


def test_nothing_in_common_is_told_with_the_names_of_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, other = ({p: {name: block(9, 9)} for p in TRUTH} for name in ("Heart", "Liver"))
    with pytest.raises(CohortError, match="truth has Cord, Gland_L, Gland_R, Tumour; net draws Heart; other draws Liver"):
        judge(People(TRUTH), {"net": Draws(net), "other": Draws(other)}, threads=1)
    with pytest.raises(CohortError, match="net draws nothing"):
        judge(People(TRUTH), {"net": Draws({p: {} for p in TRUTH})}, threads=1)
    write_patient(tmp_path / "truth" / "p1", Case("p1", {"ct": CT}, {"Heart": block(9, 9)}))
    write_patient(tmp_path / "drawn" / "p1", Case("p1", {"ct": CT}, {"Liver": block(9, 9)}))
    words = ["evaluate", str(tmp_path / "truth"), "--predictions", str(tmp_path / "drawn"), "--out", str(tmp_path / "out")]
    assert main([*words, "--engine", "here"]) == 2
    assert "no structure in common; the truth has Heart; drawn draws Liver" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".cohort"]


def test_a_method_that_shares_nothing_beside_one_that_does(tmp_path: Path) -> None:
    found = judge(People(TRUTH), {"net": Draws(moved(TRUTH, 1)), "other": Draws({p: {"Heart": CORNER} for p in TRUTH})}, threads=1)
    said = write_results(found, tmp_path / "out")
    assert "other never draws Cord, Gland_L, Gland_R" in said
    assert "0.833" in said


def test_label_maps_one_a_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks 6 wide moved by one voxel: DSC 5/6. p10 has no map, the map of p9 no patient, and number 4 no name."""
    for name in TRUTH:
        write_patient(tmp_path / "truth" / name, Case(name, {"ct": CT}, TRUTH[name]))
    maps = tmp_path / "maps"
    maps.mkdir()
    for name, ending in {"p1": "nii.gz", "p2": "mha", "p9": "nrrd"}.items():
        array = np.zeros(GRID.shape, np.uint8)
        for number, structure in enumerate(("Cord", "Gland_L", "Gland_R"), 1):
            for mask in filter(None, [moved(TRUTH, 1).get(name, {}).get(structure)]):
                array[mask.array] = number
        array[9, 23, 23] = 4
        write_image(Volume(array, GRID), maps / f"{name}.{ending}")
    words = ["evaluate", str(tmp_path / "truth"), "--predictions", str(maps), "--out", str(tmp_path / "out"), "--overlays", "none"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "image files lie here side by side (p1.nii.gz, p2.mha, p9.nrrd)" in told
    assert "--labels" in told
    assert not (tmp_path / "out").exists()
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "Cord": 1, "Gland_L": 2, "Gland_R": 3}, "file_ending": ".nii.gz"}')
    assert main([*words, "--labels", str(tmp_path / "dataset.json")]) == 2
    told_out, told_err = capsys.readouterr()
    assert "1 of 3 patients could not be judged (p10)" in told_err
    assert "p10 (maps): no label map is called p10" in told_out
    assert f"maps: label maps of no case here, not looked at: p9 [{maps}]" in told_out
    assert f"maps: label 4 has no name in {tmp_path / 'dataset.json'} and is left out; it is in p1, p2" in told_out
    with (tmp_path / "out" / "metrics.csv").open() as file:
        dsc = {(r["patient"], r["structure"]): float(r["value"]) for r in csv.DictReader(file) if r["metric"] == "DSC"}
    judged = {"p1": ("SpinalCord", "Gland_L", "Gland_R"), "p2": ("SpinalCord", "Gland_L")}
    assert dsc == {(patient, name): 0.833333 for patient, names in judged.items() for name in names}


def test_how_label_maps_were_read_is_told_in_one_line(tmp_path: Path) -> None:
    """Two maps in cm: 0.3 x 0.2 x 0.2 cm are the truth's 3 x 2 x 2 mm."""
    header = (
        "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: 24 24 10\nencoding: raw\n"
        'space directions: (0.2,0,0) (0,0.2,0) (0,0,0.3)\nspace units: "cm" "cm" "cm"\nspace origin: (0,0,0)\n\n'
    )
    (tmp_path / "maps").mkdir()
    for name in ("p1", "p2"):
        write_patient(tmp_path / "truth" / name, Case(name, {"ct": CT}, TRUTH[name]))
        (tmp_path / "maps" / f"{name}.nrrd").write_bytes(header.encode() + TRUTH[name]["Cord"].array.astype(np.uint8).tobytes())
    (tmp_path / "labels.json").write_text('{"1": "Cord"}')
    words = {"predictions": [tmp_path / "maps"], "labels": tmp_path / "labels.json", "overlays": "none", "many": HERE}
    said = evaluate(tmp_path / "truth", out=tmp_path / "out", **words)
    assert "note: of 2 patients: maps: [...]: lengths are told in cm (space units) and were turned into mm" in said
    with (tmp_path / "out" / "metrics.csv").open() as file:
        assert [float(r["value"]) for r in csv.DictReader(file) if r["metric"] == "DSC"] == [1, 1]


def test_one_patient_and_its_label_map(tmp_path: Path) -> None:
    write_patient(tmp_path / "p1", Case("p1", {"ct": CT}, TRUTH["p1"]))
    path = write_image(Volume(TRUTH["p1"]["Cord"].array.astype(np.uint8) * 3, GRID), tmp_path / "segmentation.nii.gz")
    (tmp_path / "labels.json").write_text('{"3": "Cord"}')
    said = evaluate(tmp_path / "p1", out=tmp_path / "out", predictions=[path], labels=tmp_path / "labels.json", overlays="none")
    assert "segmentation: mean" in said
    assert "1.000" in said


def test_predictions_of_nobody_are_told_before_anything_is_read(tmp_path: Path) -> None:
    write_patient(tmp_path / "truth" / "p1", Case("p1", {"ct": CT}, TRUTH["p1"]))
    (tmp_path / "truth" / "p1" / "ct.nii.gz").write_bytes(b"never read")
    write_patient(tmp_path / "drawn" / "q1", Case("q1", {"ct": CT}, TRUTH["p1"]))
    with pytest.raises(CohortError, match="the patients are p1; predicted are q1"):
        evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "drawn"])


def test_predictions_of_others_are_told(tmp_path: Path) -> None:
    write_patient(tmp_path / "truth" / "p1", Case("p1", {"ct": CT}, TRUTH["p1"]))
    for name in ("p1", "q1"):
        write_patient(tmp_path / "drawn" / name, Case(name, {"ct": CT}, TRUTH["p1"]))
    said = evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "drawn"], overlays="none", many=HERE)
    assert f"drawn: predictions of no patient here, not looked at: q1 [{tmp_path / 'drawn'}]" in said


def test_names_for_label_maps_that_are_not_there_are_refused(tmp_path: Path) -> None:
    write_patient(tmp_path / "truth" / "p1", Case("p1", {"ct": CT}, TRUTH["p1"]))
    (tmp_path / "labels.json").write_text('{"Cord": 1}')
    with pytest.raises(ConfigError, match="no --predictions holds label maps"):
        evaluate(tmp_path / "truth", out=tmp_path / "out", predictions=[tmp_path / "truth"], labels=tmp_path / "labels.json")


def test_real_patients_against_themselves(data: Path) -> None:
    """OpenKBP: the truth judged as its own prediction is perfect, whatever its shape."""
    people = Cohort.open(data / "openkbp" / "validation").subset(["pt_201", "pt_202"])
    found = judge(people, {"self": Predictions(people)}, threads=1)
    assert set(values(found, "DSC", "self").values()) == set(values(found, "surface_DSC", "self").values()) == {1.0}
    assert set(values(found, "HD", "self").values()) == {0.0}
    assert found.swaps == ()


def test_measure_is_the_row_of_two_masks() -> None:
    """A truth of 12 x 12 voxels in 6 slices; drawn are 8 x 8 in 5, of which 8 x 6 in 4 lie in it, and 1 beyond its last slice."""
    truth, drawn = block(4, 4, 12), block(4, 10, 8, (4, 9))
    found = measure(truth, drawn)
    assert list(found) == list(METRICS)
    assert {name: value for name, value in found.items() if name not in DISTANCES} == pytest.approx(
        {
            "DSC": 2 * 192 / (864 + 320),
            "JI": 192 / (864 + 320 - 192),
            "sensitivity": 192 / 864,
            "precision": 192 / 320,
            "slice_DSC": 4 * (2 * 48 / (144 + 64)) / 7,
            "volume_truth": 864 * 0.012,
            "volume_predicted": 320 * 0.012,
        }
    )


@pytest.mark.parametrize(
    ("tolerance_mm", "surface_dsc", "path_mm"), [(1, 1 - (36 + 24 * 15 + 16 + 36 + 24 + 16) / 1728, 80), (4, 1 - (36 + 24 * 12) / 1728, 60)]
)
def test_distances_of_two_rods_are_those_of_the_pencil(tolerance_mm: float, surface_dsc: float, path_mm: float) -> None:
    """Rods of 6 x 6 mm, the truth 40 mm long (1032 mm2), the drawn one 26 mm (696 mm2), which begins 2 mm before it and ends 16 mm before.

    From the truth: the far end is 16 mm away (36 mm2), the sides before it 0 to 16 mm (24 mm2 a mm), its near end, within the other rod,
    up to 2 mm (208 / 6 mm3 in sum). From the drawn: 2 mm at its near end, the sides behind it 0 to 2 mm, and its far end, within the truth,
    up to 3 mm (a pyramid of 36 mm3). The last 5 % of the truth's surface, 51.6 mm2, begin 0.65 mm before its far end.
    To draw anew in either slice: of two sides 16 mm less the tolerance, the far end, 6 mm, and of the near end, 6 mm too, what lies farther
    than the tolerance from the sides. The rods' edges are rounded, hence a few percent.
    """
    truth, drawn = np.zeros(GRID.shape, bool), np.zeros(GRID.shape, bool)
    truth[2:4, 8:11, 2:22] = drawn[2:4, 8:11, 1:14] = True
    found = measure(Volume(truth, GRID), Volume(drawn, GRID), tolerance_mm)
    from_truth, from_drawn = 36 * 16 + 24 * 16**2 / 2 + 208 / 6, 36 * 2 + 24 * 2**2 / 2 + 36
    assert found["HD"] == pytest.approx(16)
    assert found["HD95"] == pytest.approx(15.35, rel=0.025)
    assert found["ASD"] == pytest.approx((from_truth / 1032 + from_drawn / 696) / 2, rel=0.03)
    assert found["MSD"] == pytest.approx((from_truth + from_drawn) / 1728, rel=0.03)
    assert found["surface_DSC"] == pytest.approx(surface_dsc, rel=0.03)
    assert found["APL"] == pytest.approx(path_mm, rel=0.06)
