"""The review: what is flagged and in which order, what the files say, and that a person at a browser is led to the worst slice."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncontour import report
from oncontour.core.assessment import Assessment, Calibration, Finding, SliceScore, StructureScore
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.quality import score as scoring
from oncontour.quality.rules import CODES, findings, unchecked
from oncontour.report.review import SEVERITY, TITLES, sentence, spots, strips
from oncontour.report.scene import scene
from tests.needs import browser
from tests.report.test_report import HOSTILE, make, record_of

Rows = dict[int, tuple[float, float]]


def scores(
    case: Case, numbers: dict[str, Rows], told: dict[str, list[Finding]] | None = None, present: dict[int, float] | None = None, **more: Any
) -> Case:
    """``case`` with scores: name -> slice -> (DSC, lower bound); ``present``: slice -> probability of being there."""
    structures = {}
    for name, rows in numbers.items():
        found = (told or {}).get(name, [])
        slices = tuple(
            SliceScore(
                k,
                float(case.geometry.points((k, 0, 0))[2]),
                dsc,
                lower,
                "good" if dsc >= 0.95 else "medium" if dsc >= 0.8 else "bad",
                surface_mm=10 * (1 - dsc),
                present=(present or {}).get(k),
                findings=tuple(one.code for one in found if k in one.slices),
            )
            for k, (dsc, lower) in rows.items()
        )
        structures[name] = StructureScore(True, None, slices, tuple(found))
    said = {"model": "boxes-quality", "sha256": "ab" * 32, "coverage": 0.9, "unchecked": tuple(unchecked(case, list(structures)))}
    return replace(case, assessment=Assessment(structures, **{**said, **more}))


def unscored(case: Case, told: dict[str, list[Finding]], why: str = "There is no model.", **more: Any) -> Case:
    """``case`` as the rules alone leave it."""
    return replace(case, assessment=replace(scoring.unscored(case, told, why), **more))


def with_structure(case: Case, name: str, told: StructureScore) -> Case:
    """``case`` with what is told of one structure added or replaced."""
    assert case.assessment is not None
    return replace(case, assessment=replace(case.assessment, structures={**case.assessment.structures, name: told}))


BOXES = {
    "Brainstem": (slice(12, 18), slice(15, 20), slice(23, 27)),
    "Parotid_L": (slice(5, 10), slice(10, 20), slice(35, 40)),
    "Parotid_R": (slice(5, 10), slice(10, 20), slice(10, 15)),
}
LEFT = {5: (0.97, 0.9), 6: (0.7, 0.5), 7: (0.62, 0.4), 8: (0.9, 0.8), 9: (0.58, 0.45)}
RIGHT = dict.fromkeys(range(5, 10), (0.96, 0.9))
STEM = dict.fromkeys(range(12, 18), (0.9, 0.8))
ISLAND = Finding("island", "Brainstem has 1 piece apart from the rest.", (14, 15))


def scored() -> Case:
    case = make(BOXES)
    wrong = np.zeros(case.geometry.shape, np.uint8)
    wrong[6:10, 12:16, 36:39] = 255
    return scores(
        case,
        {"Brainstem": STEM, "Parotid_R": RIGHT, "Parotid_L": LEFT},
        {"Brainstem": [ISLAND, Finding("volume", "Brainstem is unusually small.")]},
        error_maps={"Parotid_L": Volume(wrong, case.geometry)},
    )


# ---- what is flagged, and in which order


def test_the_worst_structure_and_the_worst_slice_come_first() -> None:
    table = strips(scored())
    assert [strip.name for strip in table] == ["Parotid_L", "Brainstem", "Parotid_R"]
    places = spots(table)
    assert [(one.name, one.first, one.last, one.k) for one in places] == [
        ("Parotid_L", 6, 9, 9),  # slice 8 is fine, but lies between flagged ones
        ("Brainstem", None, None, 15),  # about the structure as a whole: as a DSC of 0.6 in a slice of 0.8 cm2
        ("Brainstem", 14, 15, 14),  # what is predicted of an island's slice: 0.1 of 0.8 cm2
    ]
    assert (places[0].dsc, places[0].lower) == (0.58, 0.45)
    assert [one.rank[1] for one in places] == pytest.approx([0.42 * 2.0, 0.4 * 0.8, 0.1 * 0.8])
    assert places[2].texts == (ISLAND.text,)
    assert sentence(table) == "3 places to look at in 2 of 3 structures: 5 of 16 contoured slices, worst first."


def test_a_large_slice_a_little_wrong_comes_before_a_small_one_very_wrong() -> None:
    """2 cm2 at a DSC of 0.7: 0.6 cm2; 0.8 cm2 at 0.4: 0.48 cm2."""
    case = scores(make(BOXES), {"Brainstem": {14: (0.4, 0.3)}, "Parotid_L": {7: (0.7, 0.6)}})
    assert [(one.name, one.wrong_cm2) for one in spots(strips(case))] == [
        ("Parotid_L", pytest.approx(0.6)),
        ("Brainstem", pytest.approx(0.48)),
    ]


def test_an_end_that_goes_on_ranks_by_its_probability_and_what_it_would_add() -> None:
    """Slice 10 past the end of 2 cm2: 0.7 of that, 1.4 cm2; slice 11 with 0.65: 1.3; before half of slice 9, 1.0."""
    missed = Finding("missed", "The structure seems to go on.", (10, 11))
    case = scores(make(BOXES), {"Parotid_L": {9: (0.5, 0.4), 10: (0.0, 0.0), 11: (0.0, 0.0)}}, {"Parotid_L": [missed]}, {10: 0.7, 11: 0.65})
    (strip,) = strips(case)
    assert [cell.wrong_cm2 for cell in strip.cells] == pytest.approx([1.0, 1.4, 1.3])
    (spot,) = spots([strip])
    assert (spot.first, spot.last, spot.k, spot.dsc) == (9, 11, 10, 0.0)
    told = json.loads(json.dumps(report.assess_record(case)))["structures"]["Parotid_L"]["slices"]
    assert [row["wrong_cm2"] for row in told] == [1.0, 1.4, 1.3]


@pytest.mark.parametrize("code", ["side", "stray", "outside", "position"])
def test_what_lies_in_the_wrong_place_comes_before_any_area(code: str) -> None:
    """0.02 cm2 are predicted to be wrong where a rule finds the stem misplaced; 1.2 cm2 of the parotid."""
    found = Finding(code, "Brainstem is not where it should be.", () if code == "position" else (14,))
    case = scores(make(BOXES), {"Parotid_L": {7: (0.4, 0.3)}, "Brainstem": {14: (0.98, 0.9)}}, {"Brainstem": [found]})
    assert [one.name for one in spots(strips(case))] == ["Brainstem", "Parotid_L"]
    assert report.misplaced(case) == ["Brainstem is not where it should be."]
    assert report.summary(case)[0] == "warning: Brainstem is not where it should be.", "on the screen of oncontour assess"
    bare = scores(make(BOXES), {"Brainstem": {14: (0.98, 0.9)}}, {"Brainstem": [Finding("sliver", "Brainstem has a sliver.", (14,))]})
    assert report.misplaced(bare) == []


def test_a_place_tells_its_worst_finding_first() -> None:
    """A place that stands first for its side does not begin with its sliver."""
    told = {"Brainstem": [Finding("sliver", "Brainstem has a sliver.", (14,)), Finding("side", "Brainstem lies on the wrong side.", (14,))]}
    (spot,) = spots(strips(scores(make(BOXES), {"Brainstem": {14: (0.98, 0.9)}}, told)))
    assert spot.texts == ("Brainstem lies on the wrong side.", "Brainstem has a sliver.")
    assert spot.codes == ("side", "sliver")


def test_without_a_prediction_a_finding_stands_for_a_part_of_its_slice() -> None:
    """An island (0.55) on 2 cm2 counts 0.9, a gap (0.4) on 0.8 cm2 0.48, a sliver (0.78) on 2 cm2 0.44."""
    told = {
        "Parotid_L": [Finding("island", "Parotid_L has an island.", (7,))],
        "Brainstem": [Finding("gap", "Brainstem has a gap.", (14,))],
        "Parotid_R": [Finding("sliver", "Parotid_R has a sliver.", (7,))],
    }
    case = make(BOXES)
    case = unscored(case, told)
    assert [(one.name, round(one.rank[1], 3)) for one in spots(strips(case))] == [
        ("Parotid_L", 0.9),
        ("Brainstem", 0.48),
        ("Parotid_R", 0.44),
    ]


def test_slices_far_apart_are_different_places() -> None:
    rows = {k: (0.5 if k in (12, 15) else 0.97, 0.4) for k in range(12, 18)}
    places = spots(strips(scores(make(BOXES), {"Brainstem": rows})))
    assert [(one.first, one.last) for one in places] == [(12, 12), (15, 15)]


def test_the_worst_part_of_a_long_run_is_a_place_of_its_own() -> None:
    """Twenty flagged slices with a dent in the middle: the dent, and what is left on either side; eight or fewer stay together."""
    case = make({"SpinalCord": (slice(0, 20), slice(15, 20), slice(23, 27))})
    dented = {k: (0.3 if k in (9, 10, 11) else 0.7, 0.2) for k in range(20)}
    found = spots(strips(scores(case, {"SpinalCord": dented})))
    assert [(spot.first, spot.last, spot.k) for spot in found] == [(9, 11, 9), (0, 8, 0), (12, 19, 12)]
    short = {k: dented[k] for k in range(6, 14)}
    assert [(spot.first, spot.last, spot.k) for spot in spots(strips(scores(case, {"SpinalCord": short})))] == [(6, 13, 9)]
    side = Finding("side", "It lies on the wrong side.", tuple(range(20)))
    assert [(spot.first, spot.last) for spot in spots(strips(scores(case, {"SpinalCord": dented}, {"SpinalCord": [side]})))] == [(0, 19)]
    island = Finding("island", "It has a piece apart.", tuple(range(20)))
    cone = np.zeros(case.geometry.shape, bool)
    for k in range(20):
        cone[k, 15 : 16 + k, 23:27] = True
    bare = case.with_masks({"SpinalCord": Volume(cone, case.geometry)})
    bare = unscored(bare, {"SpinalCord": [island]})
    assert [(spot.first, spot.last, spot.k) for spot in spots(strips(bare))] == [(0, 19, 19)], "one finding is one place"
    even = {k: (0.5 + 0.01 * (k % 2), 0.2) for k in range(20)}
    assert [(spot.first, spot.last) for spot in spots(strips(scores(case, {"SpinalCord": even})))] == [(0, 19)]


def test_the_worst_places_in_words() -> None:
    lines = report.worst(scored(), 2)
    assert lines == [
        "3 places to look at in 2 of 3 structures: 5 of 16 contoured slices, worst first.",
        "  1. Parotid_L, slices 7 to 10, worst 10: Much is predicted wrong. About 0.8 cm² wrong, outline 4.2 mm off; "
        "predicted DSC 0.58, at least 0.45.",
        "  2. Brainstem: Brainstem is unusually small.",
        "  and 1 more",
    ]
    bare = make({"Brainstem": BOXES["Brainstem"]})
    assert report.worst(unscored(bare, {"Brainstem": []}), 2) == [
        "There is no model.",
        "Nothing is flagged. No slice was scored: only the rules have looked.",
    ]
    partly = with_structure(scored(), "Brainstem", StructureScore(False, "Nobody taught it."))
    assert report.worst(partly, 2)[0] == "Not scored: Brainstem: Nobody taught it."


def test_a_number_is_said_of_the_slice_that_it_is_of() -> None:
    """Slice 6 of the viewer is the worst, as it lies on the wrong side, with a DSC of 0.97; most is predicted wrong on slice 10, 0.58."""
    rows = {5: (0.97, 0.9), 6: (0.7, 0.5), 7: (0.62, 0.4), 8: (0.75, 0.6), 9: (0.58, 0.45)}
    case = scores(make(BOXES), {"Parotid_L": rows}, {"Parotid_L": [Finding("side", "Parotid_L is on the right.", (5,))]})
    (spot,) = spots(strips(case))
    assert (spot.k, spot.most, spot.dsc, spot.lower) == (5, 9, 0.58, 0.45)
    assert "Parotid_L, slices 6 to 10, worst 6, most predicted wrong on 10: " in report.worst(case, 5)[-1]
    shown = scene(case, report.rows(case)).review
    assert shown is not None
    assert (shown["spots"][0]["at"], shown["spots"][0]["most"]) == (5, 9)


def test_every_code_has_a_rank() -> None:
    assert set(SEVERITY) == set(TITLES) > set(CODES)
    assert SEVERITY["side"] == min(SEVERITY.values())


def test_findings_alone_make_a_review_without_numbers() -> None:
    case = make({"Parotid_L": BOXES["Parotid_R"], "Brainstem": BOXES["Brainstem"]})
    case = unscored(case, findings(case), "There is no quality model for this.")
    table = strips(case)
    assert [(strip.name, strip.scored) for strip in table] == [("Parotid_L", False), ("Brainstem", False)]
    assert all(cell.dsc is None and cell.quality is None for strip in table for cell in strip.cells)
    assert [cell.k for cell in table[0].cells] == [5, 6, 7, 8, 9]
    worst = spots(table)[0]
    assert (worst.name, worst.codes[0]) == ("Parotid_L", "side")
    html = report.page(record_of(case, report.rows(case)), case, report.rows(case))
    assert "There is no quality model for this." in html


def test_structures_without_slices_get_them_from_their_mask() -> None:
    case = make(BOXES)
    case = with_structure(scores(case, {"Brainstem": STEM}), "Parotid_L", StructureScore(False, "unknown"))
    (left,) = (strip for strip in strips(case) if strip.name == "Parotid_L")
    assert [cell.k for cell in left.cells] == [5, 6, 7, 8, 9]
    assert not any(cell.flagged for cell in left.cells)


# ---- files


def test_csv_has_a_line_a_slice_and_counts_from_below() -> None:
    lines = list(csv.DictReader(io.StringIO(report.scores_csv(scored()))))
    assert len(lines) == 17
    whole, first = lines[5], lines[6]
    assert (whole["structure"], whole["slice"], whole["findings"], whole["flagged"]) == ("Brainstem", "", "volume", "1")
    assert (first["slice"], first["z_mm"], first["dsc"], first["lower_bound"], first["class"]) == (
        "13",
        "136.00",
        "0.900",
        "0.800",
        "medium",
    )
    worst = min((line for line in lines if line["dsc"]), key=lambda line: float(line["dsc"]))
    assert (worst["structure"], worst["slice"], worst["class"], worst["surface_mm"], worst["wrong_cm2"], worst["flagged"]) == (
        "Parotid_L",
        "10",
        "bad",
        "4.20",
        "0.84",
        "1",
    )
    assert [line["findings"] for line in lines if line["structure"] == "Brainstem"][3:5] == ["island", "island"]


def test_csv_numbers_do_not_depend_on_how_the_grid_lies() -> None:
    case = scored()
    flipped = case.geometry.reorient(-np.eye(3)[::-1])
    again = Case("flipped", {"ct": case.ct.to(flipped)}, {name: mask.to(flipped) for name, mask in case.masks.items()})
    last = case.geometry.shape[0] - 1
    again = scores(again, {"Parotid_L": {last - k: value for k, value in LEFT.items()}})

    def told(one: Case) -> set[tuple[str, ...]]:
        table = csv.DictReader(io.StringIO(report.scores_csv(one)))
        return {(line["slice"], line["z_mm"], line["dsc"]) for line in table if line["structure"] == "Parotid_L"}

    assert told(again) == told(case)
    shown = scene(again, report.rows(again)).review
    assert shown is not None
    assert {(cell["s"] + 1, cell["dsc"]) for cell in shown["strips"][0]["cells"]} == {(k + 1, dsc) for k, (dsc, _) in LEFT.items()}


@pytest.mark.parametrize("name", ["=1+2", "+A1", "-A1", "@SUM(A1)", "\tx"])
def test_csv_holds_no_formula(name: str) -> None:
    case = make({name: BOXES["Parotid_L"]})
    case = unscored(case, {name: []})
    assert {line["structure"] for line in csv.DictReader(io.StringIO(report.scores_csv(case)))} == {"'" + name}


def test_scores_for_json_are_json_without_volumes(tmp_path: Path) -> None:
    case = scored()
    said = json.loads(json.dumps(report.assess_record(case), allow_nan=False))
    assert said == report.assess_record(case)
    assert "error_maps" not in said
    assert said["structures"]["Parotid_L"]["slices"][4]["dsc"] == 0.58
    assert report.assess_record(make(BOXES)) == {}
    assert report.write_scores(case, tmp_path / "scores.csv").read_text() == report.scores_csv(case)


def with_sets() -> Case:
    """``scored()`` by a model with a calibration for each set of inputs: one structure was given "own", another "both", which has none."""
    case = scored()
    assert case.assessment is not None
    own = Calibration({"all": 0.123456789}, 0.9, "hierarchical", 35, 350, "those held back", area=0.987654321)
    given = {"Parotid_L": "own", "Parotid_R": "both"}
    told = {name: replace(one, inputs=given.get(name, "")) for name, one in case.assessment.structures.items()}
    left = told["Parotid_L"]
    told["Parotid_L"] = replace(
        left, slices=tuple(replace(line, surface_upper_mm=8.04, wrong_cm2=1.25, wrong_upper_cm2=2.5) for line in left.slices)
    )
    return replace(case, assessment=replace(case.assessment, structures=told, calibration=Calibration(coverage=0.9, inputs={"own": own})))


def test_a_bound_for_each_set_of_inputs_in_json_and_on_the_page() -> None:
    case = with_sets()
    said = report.assess_record(case)["calibration"]
    assert said == {
        "coverage": 0.9,
        "inputs": {
            "own": {
                "coverage": 0.9,
                "method": "hierarchical",
                "offsets": {"all": 0.1235},
                "area": 0.9877,
                "patients": 35,
                "slices": 350,
                "data": "those held back",
            }
        },
    }
    table = report.rows(case)
    page = report.page(record_of(case, table), case, table)
    assert "<dt>Given the segmenter&#39;s probability map: Parotid_L</dt><dd>coverage: 0.9; method: hierarchical" in page
    assert "<dt>Given the segmenter&#39;s and the reference model&#39;s probability maps: Parotid_R</dt><dd>no bound</dd>" in page


def test_upper_bounds_reach_the_page() -> None:
    shown = scene(with_sets(), report.rows(with_sets())).review
    assert shown is not None
    cells = {strip["name"]: strip["cells"][0] for strip in shown["strips"]}
    assert (cells["Parotid_L"]["upper_cm2"], cells["Parotid_L"]["upper_mm"]) == (2.5, 8.0)
    assert (cells["Parotid_R"]["upper_cm2"], cells["Parotid_R"]["upper_mm"]) == (None, None)


def test_an_rtstruct_says_what_was_predicted_and_is_valid(tmp_path: Path, dciodvfy: Any) -> None:
    """In ROIObservationDescription: a standard attribute, no private one; the contours are the same with it and without."""
    from oncontour.io import read, write
    from oncontour.io.dicom.rtstruct import read_rtstruct, write_rtstruct

    write(make({}), tmp_path / "dicom", format="dicom")
    bare = read(tmp_path / "dicom")
    boxes = scored()
    case = scores(bare.with_masks(boxes.masks), {"Parotid_L": LEFT}, {"Parotid_L": [ISLAND]})
    text = report.observations(case)
    assert text == {
        "Parotid_L": "5 of 7 slices to review. Lowest predicted DSC 0.58, at least 0.45 (90 %) at z 127.0 mm. "
        "Predicted by boxes-quality abababababab. Brainstem has 1 piece apart from the rest."
    }
    path = write_rtstruct(case, tmp_path / "with.dcm", observations=text)
    assert dciodvfy(path) == []
    import pydicom

    data = pydicom.dcmread(path)
    told = {one.ROIName: number for one, number in zip(data.StructureSetROISequence, data.RTROIObservationsSequence, strict=True)}
    assert told["Parotid_L"].ROIObservationDescription == text["Parotid_L"]
    assert "ROIObservationDescription" not in told["Brainstem"]
    assert not any(element.tag.is_private for element in data.iterall())
    before, after = (read_rtstruct(one)[0] for one in (write_rtstruct(case, tmp_path / "without.dcm"), path))
    assert list(before) == list(after) == list(BOXES)
    assert all(np.array_equal(a, b) for name in BOXES for a, b in zip(before[name], after[name], strict=True))


def test_observations_of_what_was_not_scored() -> None:
    case = make(BOXES)
    case = unscored(case, {"Brainstem": [ISLAND]})
    assert report.observations(case) == {"Brainstem": "Quality not scored: There is no model. Brainstem has 1 piece apart from the rest."}
    assert report.observations(make(BOXES)) == {}


def test_error_maps_reach_the_page_where_they_belong() -> None:
    case = scored()
    shown = scene(case, report.rows(case))
    assert shown.review is not None
    (packed,) = shown.review["maps"]
    steps = np.frombuffer(zlib.decompress(base64.b64decode(packed["text"])), np.uint8).reshape(packed["shape"])
    assert sorted(np.unique(steps)) == [0, 15]
    first = np.argwhere(steps)[0] + packed["from"]
    middle = case.geometry.points((6, 12, 36))
    step = np.asarray(shown.words["step_mm"])
    corner = case.geometry.points((-0.5, 3.5 - 4 + 0.5 - 0.5, 3.5 - 4 + 0.5 - 0.5))  # the body starts at 4, the page shows 4 voxels more
    at = (np.asarray(first) + 0.5) * step
    assert at == pytest.approx((middle - corner)[::-1])
    assert int((steps > 0).sum()) == 4 * 4 * 3


def test_a_refused_case_says_why() -> None:
    case = make(BOXES)
    case = unscored(case, {name: [] for name in BOXES}, "refused", refused="This is no CT of a head and neck.")
    assert "Not scored: This is no CT of a head and neck." in report.page(record_of(case, report.rows(case)), case, report.rows(case))


def test_scores_of_slices_that_run_across_are_left_out_of_the_viewer() -> None:
    """A sagittal series: its slices are no slices of the viewer; the CSV still has them."""
    grid = Geometry.regular((20, 40, 50), (3, 2, 2), (0, 0, 0), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    case = scores(make({"GTV": (slice(5, 9), slice(10, 20), slice(10, 20))}, grid), {"GTV": dict.fromkeys(range(5, 9), (0.5, 0.4))})
    shown = scene(case, report.rows(case)).review
    assert shown is not None
    assert shown["strips"][0]["cells"] == []
    assert shown["spots"][0]["at"] is None
    assert len(report.scores_csv(case).splitlines()) == 5


def test_what_is_only_shown_is_not_told_as_not_checked() -> None:
    """A target that came with the CT is in the case, not in the scores."""
    box = (slice(5, 9), slice(10, 20), slice(10, 20))
    case = scores(make({"Odd": box, "Given": box}), {"Odd": dict.fromkeys(range(5, 9), (0.5, 0.4))})
    shown = scene(case, report.rows(case)).review
    assert shown is not None
    assert [text for text in shown["unchecked"] if "Usual" in text] == ["Usual volume and position: not known for Odd."]


def test_eight_error_maps_of_a_large_case_stay_small() -> None:
    """512 x 512 x 134 with noise in every map: beside 15 MB of images the page stays under 30."""
    rng = np.random.default_rng(0)
    grid = Geometry.regular((134, 512, 512), (3, 0.98, 0.98))
    crop = grid.crop((40, 200, 200), (90, 300, 300))
    maps = {f"Organ_{n}": Volume((rng.random(crop.shape) * 255).astype(np.uint8), crop) for n in range(8)}
    ct = Volume(np.zeros(grid.shape, np.int16), grid)
    case = Case("big", {"ct": ct}, {"Organ_0": Volume(np.zeros(grid.shape, bool), grid)})
    shown = scene(scores(case, {}, error_maps=maps), [])
    assert shown.review is not None
    assert len(shown.review["maps"]) == 8
    assert sum(len(one["text"]) for one in shown.review["maps"]) < 4e6


# ---- a person at a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    executable = browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Reader:
    """A page opened from its file, offline, and what the browser complained of."""

    def __init__(self, browser: Any, case: Case, path: Path) -> None:
        self.write(case, path)
        self.context = browser.new_context(viewport={"width": 1500, "height": 1000}, offline=True)
        self.context.set_default_timeout(120_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: None if request.url.startswith("file:") else self.complaints.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=true]", state="attached")

    def write(self, case: Case, path: Path) -> None:
        table = report.rows(case)
        report.write(record_of(case, table), case, table, path)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def drawn(self) -> None:
        """Wait until what was pressed is on the screen."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    @property
    def question(self) -> str:
        self.drawn()
        return " ".join(self.page.inner_text("#question").split())

    @property
    def slice(self) -> int:
        found = re.match(r"slice (\d+) of", self.page.inner_text("#where"))
        assert found
        return int(found.group(1))

    def pixels(self) -> np.ndarray[Any, Any]:
        from PIL import Image

        self.drawn()
        return np.asarray(Image.open(io.BytesIO(self.page.locator("#axial").screenshot())).convert("RGB")).astype(int)


@pytest.fixture
def reader(chromium: Any, tmp_path: Path) -> Iterator[Reader]:
    case = with_structure(scored(), "Parotid_R", StructureScore(False, "it was not learned"))
    opened = Reader(chromium, case, tmp_path / "report.html")
    yield opened
    opened.context.close()
    assert opened.complaints == []


def test_it_opens_on_the_worst_and_keys_lead_through_the_places(reader: Reader) -> None:
    assert (reader.slice, reader.question.split(" slice")[0]) == (10, "1 of 3 Parotid_L")
    assert "DSC 0.58, at least 0.45 (90 %) · about 0.8 cm² wrong" in reader.question
    reader.press("n", "n")
    assert reader.slice == 15
    assert reader.question.startswith("3 of 3 Brainstem slice 15: DSC 0.90, at least 0.80 (90 %)")
    assert "island" in reader.question
    reader.press("n")
    assert reader.question.startswith("1 of 3")
    reader.press("p", "p", "p")
    assert reader.question.startswith("1 of 3 Parotid_L")
    current = reader.page.locator(".spot[aria-current=true]")
    assert current.count() == 1
    assert "Parotid_L" in current.inner_text()
    assert "0.8 cm²" in current.inner_text()
    reader.press("ArrowUp", "ArrowDown", "ArrowDown")
    assert reader.slice == 9
    assert "slice 9: DSC 0.90" in reader.question
    reader.press("Escape")
    assert "press N" in reader.question
    reader.page.click("tr[data-name=Brainstem] button.name")
    assert reader.question.startswith("Brainstem slice 1"), "what was clicked on is the question"


def test_strips_show_every_slice_and_its_number_on_hover(reader: Reader) -> None:
    page = reader.page
    assert page.locator(".strip").evaluate_all("rows => rows.map(row => row.dataset.name)") == ["Parotid_L", "Brainstem", "Parotid_R"]
    classes = page.locator(".strip[data-name=Parotid_L] .cell").evaluate_all("cells => cells.map(cell => cell.className.split(' ')[1])")
    assert classes == ["good", "bad", "bad", "medium", "bad"]
    assert page.locator(".strip[data-name=Brainstem] .cell.marked").count() == 2
    assert page.locator(".strip[data-name=Parotid_R] .cell.none").count() == 5
    page.locator(".strip[data-name=Parotid_L] .cell[data-s='7']").hover()
    assert page.inner_text("#tip") == "Parotid_L, slice 8: DSC 0.62, at least 0.40 (90 %) · about 0.8 cm² wrong · surface 3.8 mm off"
    page.locator(".strip[data-name=Parotid_L] .cell[data-s='6']").click()
    assert reader.slice == 7
    assert "Parotid_L" in reader.question


def test_what_was_not_scored_is_said(reader: Reader) -> None:
    text = reader.page.inner_text(".unscored")
    assert "Parotid_R: it was not learned" in text
    assert "Brainstem is unusually small." in reader.page.inner_text(".found")


def test_error_map_solo_and_windows_change_the_picture(reader: Reader) -> None:
    before = reader.pixels()  # of Parotid_L, which has a map
    reader.press("e")
    coloured = reader.pixels()
    changed = np.abs(coloured - before).max(axis=2) > 40
    assert 200 < changed.sum() < 0.5 * changed.size
    reader.press("e")
    assert np.abs(reader.pixels() - before).max() <= 2
    reader.press("s")
    assert reader.page.get_attribute("#solo", "aria-pressed") == "true"
    reader.press("s", "3")
    assert np.abs(reader.pixels() - before).max() > 20
    assert reader.page.locator("#windows button[aria-pressed=true]").inner_text() == "Bone"
    for there, says in (
        ("at[1] = at[2] = 0", "≤ -1000 HU"),
        ("at[1] = at[2] = 12", "≈ 1 HU"),
        ("codes.fill(scene.levels.length - 1)", "≥ 1800 HU"),
    ):
        reader.page.evaluate(f"() => {{ {there}; draw(); }}")
        assert reader.page.inner_text("#where").endswith(says)


def test_names_and_words_from_files_are_only_ever_text(chromium: Any, tmp_path: Path) -> None:
    case = make({HOSTILE: BOXES["Parotid_L"]})
    finding = Finding("island", HOSTILE, (6,))
    case = scores(case, {HOSTILE: LEFT}, {HOSTILE: [finding]}, model=HOSTILE, refused=HOSTILE, unchecked=(HOSTILE,))
    case = with_structure(case, "2" + HOSTILE, StructureScore(False, HOSTILE))
    opened = Reader(chromium, case, tmp_path / "report.html")
    opened.press("n", "n", "s")
    opened.page.locator(".strip .cell").first.hover()
    assert opened.page.locator("img").count() == 0
    assert HOSTILE in opened.page.locator(".spot").first.inner_text()
    assert opened.page.inner_text("#question").count(HOSTILE) == 1
    opened.context.close()
    assert opened.complaints == []


def test_findings_alone_can_be_walked_through(chromium: Any, tmp_path: Path) -> None:
    case = make({"Parotid_L": BOXES["Parotid_R"], "Brainstem": BOXES["Brainstem"]})
    case = unscored(case, findings(case), "There is no quality model for this.")
    opened = Reader(chromium, case, tmp_path / "report.html")
    assert opened.question.startswith("1 of ")
    assert "Parotid_L" in opened.question
    assert "left and right" in opened.question
    assert opened.page.locator("#errors").count() == 0
    opened.context.close()
    assert opened.complaints == []
