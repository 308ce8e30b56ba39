"""Rule checks: each finds what it is for, says where, and is quiet on contours that are right."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.contour.anatomy import anatomy_of
from oncontour.core.assessment import Finding
from oncontour.core.case import Case, LabelMasks
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume, written_cc
from oncontour.errors import ConfigError, InputError
from oncontour.io.cohort import Cohort
from oncontour.ops.pieces import Pieces, as_csv, pieces_of, shipped_pieces
from oncontour.phantom import Sphere, head_neck, pelvis
from oncontour.quality import rules as checks
from oncontour.quality.rules import CODES, Range, Ranges, findings, ranges_of, read_ranges, shipped_ranges, unchecked, write_ranges
from oncontour.quality.rules.finding import drawn_on, runs, see, where
from oncontour.sides import other_side

GRID = Geometry.regular((24, 48, 60), (3.0, 2.0, 2.0), (-59.0, -47.0, 100.0))
NONE = Ranges()
Box = tuple[slice, slice, slice]


def made(boxes: dict[str, Box | list[Box]], grid: Geometry = GRID, noise: bool = True) -> Case:
    """Boxes in a patient of water in noisy air (a CT whose air is one single value counts as masked)."""
    rng = np.random.default_rng(0)
    ct = -1000 + (rng.normal(0, 10, grid.shape) if noise else np.zeros(grid.shape))
    ct[:, 6:-6, 6:-6] = 0
    masks = {}
    for name, parts in boxes.items():
        array = np.zeros(grid.shape, bool)
        for box in parts if isinstance(parts, list) else [parts]:
            array[box] = True
        masks[name] = Volume(array, grid)
    return Case("boxes", {"ct": Volume(ct.astype(np.float32), grid)}, masks)


LEFT: Box = (slice(8, 14), slice(18, 28), slice(40, 48))
RIGHT: Box = (slice(8, 14), slice(18, 28), slice(12, 20))
MIDDLE: Box = (slice(6, 18), slice(20, 28), slice(26, 34))


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


def only(case: Case, name: str, ranges: Ranges = NONE) -> Finding:
    (one,) = findings(case, [name], ranges)[name]
    return one


def test_what_is_right_gives_nothing() -> None:
    case = made({"Parotid_L": LEFT, "Parotid_R": RIGHT, "Larynx": MIDDLE})
    assert findings(case, ranges=NONE) == {"Parotid_L": [], "Parotid_R": [], "Larynx": []}
    assert unchecked(case) == []


# ---- the stack


def test_gap_names_the_empty_slices() -> None:
    case = made({"Larynx": [(slice(6, 9), *MIDDLE[1:]), (slice(11, 18), *MIDDLE[1:])]})
    gap, island = findings(case, ranges=NONE)["Larynx"]
    assert (gap.code, gap.slices) == ("gap", (9, 10))
    assert gap.text == "Larynx is missing on 2 slices between its first and its last, at z 127.0 to 130.0 mm."
    assert (island.code, island.slices) == ("island", (6, 7, 8))


def test_isolated_slice() -> None:
    case = made({"Larynx": [MIDDLE, (slice(20, 21), *MIDDLE[1:])]})
    found = {one.code: one.slices for one in findings(case, ranges=NONE)["Larynx"]}
    assert found == {"gap": (18, 19), "isolated": (20,), "island": (20,)}


def test_a_structure_of_one_slice_is_told() -> None:
    one = only(made({"Larynx": (slice(10, 11), *MIDDLE[1:])}), "Larynx")
    assert (one.code, one.slices) == ("isolated", (10,))
    assert "one slice only" in one.text


def test_island_and_sliver() -> None:
    fine = Geometry.regular((24, 48, 60), (3.0, 1.0, 1.0), (-29.5, -23.5, 100.0))
    case = made(
        {
            "Larynx": [MIDDLE, (slice(8, 12), slice(36, 40), slice(10, 14))],
            "Esophagus": [MIDDLE, (slice(9, 10), slice(38, 40), slice(26, 29))],
        },
        fine,
    )
    case = replace(case, masks={"Larynx": case.masks["Larynx"]}), replace(case, masks={"Esophagus": case.masks["Esophagus"]})
    island, sliver = only(case[0], "Larynx"), only(case[1], "Esophagus")
    assert (island.code, island.slices) == ("island", (8, 9, 10, 11))
    assert "1 piece apart from the rest (0.19 cc)" in island.text
    assert (sliver.code, sliver.slices) == ("sliver", (9,))


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    case = made({"Larynx": [(slice(6, 10), slice(20, 24), slice(26, 30)), (slice(10, 14), slice(24, 28), slice(30, 34))]})
    assert findings(case, ranges=NONE)["Larynx"] == []


def test_a_target_may_have_two_parts_and_no_crumbs() -> None:
    two = [LEFT, RIGHT]
    assert codes(findings(made({"CTV_n": two}), ranges=NONE)["CTV_n"]) == []
    crumb: Box = (slice(10, 11), slice(30, 32), slice(30, 32))
    assert codes(findings(made({"CTV_n": [*two, crumb]}), ranges=NONE)["CTV_n"]) == ["island"]


def test_slices_of_the_series_count_where_the_grid_is_finer() -> None:
    """Drawn on slices 4 mm apart, held on a grid of 1 mm: a structure of one drawn slice has four planes and is isolated all the same."""
    grid = Geometry.regular((24, 30, 30), (1.0, 2.0, 2.0), (-29, -29, 0.0))
    drawn = Slices(
        np.array([[-29, -29, z] for z in (1.5, 5.5, 9.5, 13.5, 17.5)]), np.array([1, 0, 0]), np.array([0, 1, 0]), (2, 2), (30, 30)
    )

    def square(z: float) -> np.ndarray[Any, Any]:
        return np.array([[-10, -10, z], [10, -10, z], [10, 10, z], [-10, 10, z]], dtype=float)

    case = Case(
        "uneven",
        {"mr": Volume(np.zeros(grid.shape, np.float32), grid)},
        contours={
            "One": Contours((square(9.5),), slices=drawn),
            "Gap": Contours((square(1.5), square(5.5), square(13.5), square(17.5)), slices=drawn),
        },
    )
    found = findings(case, ranges=NONE)
    assert [(one.code, one.slices) for one in found["One"]] == [("isolated", (8, 9, 10, 11))]
    assert (found["Gap"][0].code, found["Gap"][0].slices) == ("gap", (8, 9, 10, 11))
    assert "on 1 slice " in found["Gap"][0].text
    assert drawn_on(grid, case.contours["One"]).tolist() == [n // 4 for n in range(20)] + [4] * 4


# ---- the place


def test_outside_the_body() -> None:
    case = made({"Larynx": (slice(8, 12), slice(0, 12), slice(26, 34)), "PTV": (slice(8, 12), slice(3, 12), slice(26, 34))})
    found = findings(case, ranges=NONE)
    assert codes(found["Larynx"]) == ["outside", "cut"]
    assert found["Larynx"][0].slices == (8, 9, 10, 11)
    assert found["PTV"] == []  # a target may reach 10 mm beyond the skin, not more
    farther = made({"Larynx": (slice(8, 12), slice(3, 12), slice(26, 34)), "PTV": (slice(8, 12), slice(0, 12), slice(26, 34))})
    for name, mm in (("Larynx", 6), ("PTV", 12)):
        assert "outside" in codes(findings(farther, ranges=NONE)[name]), f"{name}, {mm} mm beyond the skin"


def test_outside_is_not_checked_where_the_ct_was_masked() -> None:
    case = made({"Larynx": (slice(8, 12), slice(2, 12), slice(26, 34))}, noise=False)
    assert findings(case, ranges=NONE)["Larynx"] == []
    assert "masked" in unchecked(case, ranges=NONE)[0]


@given(
    swap=st.sampled_from(["names", "left alone", "right alone", "left on right", "right on left"]),
    away=st.integers(6, 16),
    shift=st.integers(-2, 2),
    axes=st.sampled_from([np.eye(3)[::-1], -np.eye(3)[::-1], np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]])]),
)
@settings(max_examples=30, deadline=None)
def test_every_wrong_side_is_caught_and_no_right_one(swap: str, away: int, shift: int, axes: np.ndarray[Any, Any]) -> None:
    """A pair ``away`` voxels from the middle, whatever the orientation of the grid and with the patient a little off its middle."""
    boxes: dict[str, Box] = {}
    for name, sign in (("Parotid_L", 1), ("Parotid_R", -1)):
        middle = 30 + sign * away + shift
        boxes[name] = (slice(8, 14), slice(18, 28), slice(middle - 3, middle + 3))
    left, right = boxes["Parotid_L"], boxes["Parotid_R"]
    wrong: dict[str, Box] = {
        "names": {"Parotid_L": right, "Parotid_R": left},
        "left alone": {"Parotid_L": right},
        "right alone": {"Parotid_R": left},
        "left on right": {"Parotid_L": right, "Parotid_R": right},
        "right on left": {"Parotid_L": left, "Parotid_R": left},
    }[swap]
    culprits = {"left on right": {"Parotid_L"}, "right on left": {"Parotid_R"}}.get(swap, set(wrong))

    def sides(structures: dict[str, Box]) -> set[str]:
        case = made(structures)
        grid = case.geometry.reorient(axes)
        turned = Case("turned", {"ct": case.ct.to(grid)}, {name: mask.to(grid) for name, mask in case.masks.items()})
        return {name for name, found in findings(turned, ranges=NONE).items() if "side" in codes(found)}

    assert sides(boxes) == set()
    assert sides(wrong) == culprits


def test_a_pair_near_the_midline_is_judged_by_its_order() -> None:
    near: dict[str, Box | list[Box]] = {
        "Eye_L": (slice(8, 12), slice(10, 14), slice(30, 32)),
        "Eye_R": (slice(8, 12), slice(10, 14), slice(28, 30)),
    }
    assert "side" not in {code for found in findings(made(near)).values() for code in codes(found)}
    swapped = made({"Eye_L": near["Eye_R"], "Eye_R": near["Eye_L"]})
    assert all(codes(found) == ["side"] for found in findings(swapped).values())


def test_without_a_ct_other_pairs_give_the_midline() -> None:
    case = made({"Parotid_L": LEFT, "Parotid_R": RIGHT, "Eye_L": (slice(16, 18), slice(10, 14), slice(16, 20))})
    case = replace(case, images={})
    assert {name: codes(found) for name, found in findings(case, ranges=NONE).items()} == {
        "Parotid_L": [],
        "Parotid_R": [],
        "Eye_L": ["side"],
    }
    assert "no CT" in unchecked(case)[0]


def test_overlap_is_told_of_both_and_targets_may() -> None:
    case = made({"Parotid_L": LEFT, "Bone_Mandible": (slice(8, 14), slice(18, 28), slice(44, 50)), "PTV": LEFT, "External": MIDDLE})
    found = findings(case, ranges=NONE)
    assert {name: codes(told) for name, told in found.items()} == {
        "Parotid_L": ["overlap"],
        "Bone_Mandible": ["overlap"],
        "PTV": [],
        "External": [],
    }
    assert found["Parotid_L"][0].slices == tuple(range(8, 14))
    assert found["Parotid_L"][0].text.startswith("Parotid_L and Bone_Mandible share 2.9 cc, 67 % of the smaller")


def test_a_part_of_a_whole_is_no_overlap_but_a_copy_is() -> None:
    lens: Box = (slice(10, 12), slice(20, 24), slice(42, 46))
    assert codes(findings(made({"Eye_L": LEFT, "Lens_L": lens}), ranges=NONE)["Lens_L"]) == []
    assert "overlap" in codes(findings(made({"Cord": MIDDLE, "Cord2": MIDDLE}), ranges=NONE)["Cord"])


def test_cut_by_the_field_of_view() -> None:
    case = made({"SpinalCord": (slice(0, 20), *MIDDLE[1:])})
    one = only(case, "SpinalCord")
    assert (one.code, one.slices) == ("cut", (0,))
    assert "reaches the lowest slice" in one.text
    usual = Ranges("", {"SpinalCord": Range(30, (0, 1e9), 0.5)})
    assert findings(case, ranges=usual)["SpinalCord"] == []


def test_contours_beyond_the_image() -> None:
    square = np.array([[-500.0, -10, 130], [-480, -10, 130], [-480, 10, 130], [-500, 10, 130]])
    case = made({}).with_contours({"GTV": Contours((square,)), "CTV": Contours((square + np.array([430, 0, 0]),))})
    found = findings(case, ranges=NONE)
    assert [one.text for one in found["GTV"]] == ["GTV was drawn wholly outside the image."]
    assert ("cut", "CTV was drawn by 50 % of its points outside the image.") in [(one.code, one.text) for one in found["CTV"]]


# ---- nothing, one slice, anything


def test_empty_is_told() -> None:
    case = made({"Larynx": (slice(0, 0), slice(0, 0), slice(0, 0)), "Parotid_L": LEFT})
    assert codes(findings(case, ranges=NONE)["Larynx"]) == ["empty"]


def test_only_what_is_asked_for_but_all_take_part() -> None:
    case = made({"Parotid_L": LEFT, "Parotid_R": LEFT})
    assert set(findings(case, ["Parotid_R"], NONE)) == {"Parotid_R"}
    assert codes(findings(case, ["Parotid_R"], NONE)["Parotid_R"]) == ["side", "overlap"]
    with pytest.raises(InputError, match="no structure 'Heart'"):
        findings(case, ["Heart"])


def test_packed_labels_are_read_like_masks() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[LEFT], labels[RIGHT] = 2, 1
    case = replace(made({}), masks=LabelMasks(Volume(labels, GRID), ["Parotid_L", "Parotid_R"]))
    assert {name: codes(found) for name, found in findings(case, ranges=NONE).items()} == {"Parotid_L": ["side"], "Parotid_R": ["side"]}


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_anything_gives_findings_in_the_order_of_their_codes(data: st.DataObject) -> None:
    """Random voxels on random grids, one slice and one voxel among them: no error, known codes, slices of the grid, words that end."""
    shape = tuple(data.draw(st.integers(1, 7)) for _ in range(3))
    grid = Geometry.regular(
        shape,
        [data.draw(st.sampled_from([0.5, 1, 3])) for _ in range(3)],
        (0, 0, 0),
        data.draw(st.sampled_from([None, [[1, 0, 0], [0, 0, 1], [0, 1, 0]]])),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    masks = {
        name: Volume(rng.random(shape) < density, grid) for name, density in (("Eye_L", 0.1), ("Eye_R", 0.5), ("GTV", 0.9), ("None", 0.0))
    }
    images = {"ct": Volume(rng.normal(-300, 500, shape).astype(np.float32), grid)} if data.draw(st.booleans()) else {}
    case = Case("any", images, masks)
    for name, told in findings(case).items():
        assert codes(told) == sorted(codes(told), key=list(CODES).index)
        for one in told:
            assert name in one.text
            assert one.text.endswith(".")
            assert list(one.slices) == sorted({k for k in one.slices if 0 <= k < shape[0]})
    assert codes(findings(case)["None"]) == ["empty"]


@given(st.lists(st.integers(0, 40)))
@settings(max_examples=30, deadline=None)
def test_runs_hold_every_number_once(numbers: list[int]) -> None:
    found = runs(numbers)
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(set(numbers))
    assert all(b[0] > a[1] + 1 for a, b in pairwise(found))


def test_places_in_words() -> None:
    assert where(GRID, (3,)) == "z 109.0 mm"
    assert where(GRID, (3, 4, 7)) == "z 109.0 to 112.0 and 121.0 mm"
    assert where(GRID, (0, 2, 4, 6, 8)) == "z 100.0, 106.0, 112.0 mm and 2 more places"
    assert where(Geometry.regular((4, 4, 4), axes=[[1, 0, 0], [0, 0, 1], [0, 1, 0]]), (1, 2)) == "slice 2 to 3"


# ---- ranges


def cohort() -> list[Case]:
    """Thirty patients: a cube of 1.5 to 4.4 cc on the left, 60 mm from a larynx."""
    out = []
    for n in range(30):
        depth = 8 + n % 15
        out.append(
            made({"Parotid_L": (slice(2, 2 + depth), slice(20, 24), slice(44, 48)), "Larynx": (slice(8, 12), slice(20, 24), slice(14, 18))})
        )
    return out


def test_ranges_come_from_a_cohort_and_travel_as_json(tmp_path: Path) -> None:
    ranges = ranges_of(cohort(), "thirty boxes")
    left = ranges.structures["Parotid_L"]
    voxel = 0.012
    assert left.patients == 30
    assert left.volume_cc[0] == pytest.approx(8 * 16 * voxel / 1.25, rel=0.02)
    assert left.volume_cc[1] == pytest.approx(22 * 16 * voxel * 1.25, rel=0.02)
    low, high = ranges.steps_mm["Larynx Parotid_L"]
    assert (low[0], high[0]) == (54.0, 66.0)
    again = read_ranges(write_ranges(ranges, tmp_path / "ranges.json"))
    assert again.structures == ranges.structures
    assert again.steps_mm == ranges.steps_mm
    assert ranges_of(cohort()[:10]) == Ranges("", {}, {})


def test_unusual_volume_and_position() -> None:
    ranges = ranges_of(cohort())
    small = made({"Parotid_L": (slice(10, 12), slice(20, 24), slice(44, 48)), "Larynx": (slice(8, 12), slice(20, 24), slice(14, 18))})
    (one,) = findings(small, ["Parotid_L"], ranges)["Parotid_L"]
    assert (one.code, one.slices) == ("volume", ())
    assert one.text == "Parotid_L is unusually small: 0.38 cc, where 1.2 to 5.3 cc were seen in 30 patients."
    moved = made({"Parotid_L": (slice(2, 17), slice(38, 42), slice(44, 48)), "Larynx": (slice(8, 12), slice(20, 24), slice(14, 18))})
    text = {one.code: one.text for one in findings(moved, ["Parotid_L"], ranges)["Parotid_L"]}["position"]
    assert text == "Parotid_L lies 30 mm too far to posterior of where it was seen in other patients, measured from Larynx."


def test_one_misplaced_structure_is_blamed_and_not_the_others() -> None:
    steps = {}
    places: dict[str, Box] = {
        "A": (slice(4, 8), slice(10, 14), slice(12, 16)),
        "B": (slice(4, 8), slice(20, 24), slice(26, 30)),
        "C": (slice(14, 18), slice(30, 34), slice(40, 44)),
        "D": (slice(14, 18), slice(12, 16), slice(26, 30)),
    }
    centres = {
        name: np.array([(box[2].start + 1.5) * 2, (box[1].start + 1.5) * 2, (box[0].start + 1.5) * 3]) for name, box in places.items()
    }
    for a in places:
        for b in places:
            if a < b:
                step = centres[b] - centres[a]
                steps[f"{a} {b}"] = (tuple(step - 5), tuple(step + 5))
    ranges = Ranges("", {}, steps)  # type: ignore[arg-type]
    assert all(found == [] for found in findings(made({**places}), ranges=ranges).values())
    found = findings(made({**places, "C": (slice(14, 18), slice(30, 34), slice(20, 24))}), ranges=ranges)
    assert {name: codes(told) for name, told in found.items()} == {"A": [], "B": [], "C": ["position"], "D": []}
    assert "35 mm too far to right" in found["C"][0].text


def test_what_lies_on_the_wrong_side_accuses_nobody_else() -> None:
    """With left and right swapped both parotids are told; the jaw is where it belongs, and only the parotids know where that is."""
    places: dict[str, Box] = {"Parotid_L": LEFT, "Parotid_R": RIGHT, "Bone_Mandible": (slice(8, 14), slice(30, 34), slice(36, 44))}
    right = made(places)
    seen = {name: see(right, name) for name in places}
    centres = {name: one.centre_mm for name, one in seen.items() if one is not None}
    steps = {f"{a} {b}": (tuple(centres[b] - centres[a] - 5), tuple(centres[b] - centres[a] + 5)) for a in places for b in places if a < b}
    ranges = Ranges("", {}, steps)  # type: ignore[arg-type]
    assert all(found == [] for found in findings(right, ranges=ranges).values())
    swapped = findings(made({**places, "Parotid_L": RIGHT, "Parotid_R": LEFT}), ranges=ranges)
    assert swapped["Bone_Mandible"] == []
    assert codes(swapped["Parotid_L"])[0] == codes(swapped["Parotid_R"])[0] == "side"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "other"}', '{"schema": "oncontour-ranges-1", "structures": {"A": 1}, "steps_mm": {}}']
)
def test_a_file_that_holds_no_ranges_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(ConfigError, match="ranges"):
        read_ranges(tmp_path / "ranges.json")


def test_shipped_ranges_are_those_of_the_seven_organs_and_the_target() -> None:
    ranges = shipped_ranges()
    assert set(ranges.structures) == {
        "Brainstem",
        "SpinalCord",
        "Parotid_L",
        "Parotid_R",
        "Esophagus",
        "Larynx",
        "Bone_Mandible",
        "PTV_7000",
    }
    assert all(one.patients >= 50 for one in ranges.structures.values())
    low, high = ranges.steps_mm["Parotid_L Parotid_R"]
    assert high[0] < -90  # the right one lies to the right
    assert low[0] > -160


# ---- real patients


def test_clinical_contours_give_few_alarms_and_swapped_ones_always_one(data: Path) -> None:
    """Every third patient of OpenKBP's validation set; ``bench/checks.py`` counts them all."""
    cohort = Cohort.open(data / "openkbp" / "validation")
    looked = alarms = 0
    for id in list(cohort)[::3]:
        case = cohort[id]
        organs = [name for name in case.structures if name in shipped_ranges().structures]
        found = findings(case, organs)
        looked += len(found)
        alarms += sum(bool(told) for told in found.values())
        pair = {"Parotid_L", "Parotid_R"} & set(case.masks)
        swapped = {other_side(name): case.mask(name) for name in pair}
        wrong = findings(replace(case, masks=swapped, contours={}), ranges=NONE)
        assert all("side" in codes(told) for told in wrong.values())
        assert all("side" not in codes(found[name]) for name in pair)
    assert looked > 50
    assert alarms <= 0.15 * looked


def test_a_real_rtstruct_gives_nothing_but_crumbs(data: Path) -> None:
    from oncontour.io import read

    read_in = read(data / "dicom" / "LUNG1-001")
    ct = read_in.ct.to(read_in.geometry.resample((3, 2.5, 2.5)))
    case = Case("coarse", {"ct": ct}, contours=read_in.contours)
    found = findings(case)
    assert {code for told in found.values() for code in codes(told)} <= {"sliver", "island"}
    assert found["SpinalCord"] == []
    lungs = {"Lung_L": case.contours["Lung_R"], "Lung_R": case.contours["Lung_L"]}
    swapped = Case("swapped", {"ct": ct}, contours=lungs)
    assert all("side" in codes(told) for told in findings(swapped, ranges=NONE).values())


def test_the_package_says_what_it_offers() -> None:
    assert all(getattr(checks, name) is not None for name in checks.__all__)


def test_a_contour_too_small_for_a_voxel_is_not_called_missing():
    """A triangle of half a millimetre between voxel centres (the grid is 2 mm wide): it was drawn, and holds no voxel."""
    centre = GRID.points((12, 20.5, 30.5))
    dot = Contours((centre + np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]),))
    case = replace(made({}), contours={"Lens_L": dot, "Lens_R": Contours()})
    found = findings(case, ranges=NONE)
    assert [one.text for one in found["Lens_L"]] == ["Lens_L was drawn so small that no voxel of the image lies in it."]
    assert [one.text for one in found["Lens_R"]] == ["Lens_R is there by name and has no contour."]


def test_two_lungs_are_no_pieces_apart() -> None:
    """What comes in several pieces by its name has crumbs, no islands; of one lung the other would be a piece apart, of 51.8 cc."""
    two: list[Box] = [(slice(6, 18), slice(14, 34), slice(8, 26)), (slice(6, 18), slice(14, 34), slice(34, 52))]
    for name in ("Lungs", "Lung", "Kidneys", "Glnd_Submands", "Bowel"):
        assert findings(made({name: two}), ranges=NONE)[name] == []
    (one,) = findings(made({"Glnd_Thyroid": two}), ranges=NONE)["Glnd_Thyroid"]
    assert one.code == "island"
    assert one.text.startswith("Glnd_Thyroid has 1 piece apart from the rest (51.8 cc, 18 mm away), at z")
    crumb: Box = (slice(10, 11), slice(2, 4), slice(30, 32))
    assert codes(findings(made({"Lungs": [*two, crumb]}), ranges=NONE)["Lungs"]) == ["island"]


@pytest.mark.parametrize(
    ("volume", "words"), [(912.4, "912"), (99.96, "100"), (99.9, "99.9"), (3.14, "3.1"), (0.996, "1.0"), (0.38, "0.38"), (0.0012, "0.0012")]
)
def test_volumes_are_written_without_powers_of_ten(volume: float, words: str) -> None:
    assert written_cc(volume) == words


def test_a_large_piece_far_from_an_organ_of_one_piece_is_a_matter_of_place() -> None:
    """1.7 cc, 34 mm to the left of a cord: in the cohort the halves of one lay 25 mm apart at most. A crumb is an island as before."""
    arm: Box = (slice(8, 20), slice(22, 25), slice(47, 51))
    near: Box = (slice(8, 20), slice(22, 25), slice(40, 44))
    crumb: Box = (slice(8, 9), slice(22, 25), slice(47, 51))
    body: Box = (slice(4, 20), slice(20, 28), slice(26, 31))
    (one,) = findings(made({"SpinalCord": [body, arm]}), ranges=NONE)["SpinalCord"]
    assert (one.code, one.slices) == ("stray", tuple(range(8, 20)))
    assert one.text == "SpinalCord has 1 piece far from the rest (1.7 cc, 34 mm away), at z 124.0 to 157.0 mm."
    assert codes(findings(made({"SpinalCord": [body, near]}), ranges=NONE)["SpinalCord"]) == ["island"]
    assert codes(findings(made({"SpinalCord": [body, crumb]}), ranges=NONE)["SpinalCord"]) == ["island"]
    assert codes(findings(made({"Glnd_Thyroid": [body, arm]}), ranges=NONE)["Glnd_Thyroid"]) == ["island"]


# ---- in how many pieces


def test_pieces_of_a_cohort_counted_by_hand() -> None:
    """Four patients: whole, a half 12 mm away, a third 18 mm away, and a crumb; one without the organ does not count."""
    grid = Geometry.regular((20, 8, 8), (3.0, 2.0, 2.0))

    def organ(*slices: tuple[int, int]) -> dict[str, tuple[np.ndarray[Any, np.dtype[np.bool_]], Geometry]]:
        mask = np.zeros(grid.shape, bool)
        for a, b in slices:
            mask[a:b, 2:6, 2:6] = True
        return {"Larynx": (mask, grid)}

    (row,) = pieces_of([organ((0, 12)), organ((0, 8), (11, 15)), organ((0, 9), (14, 17)), organ((0, 12), (18, 19)), organ()])
    assert row == Pieces("Larynx", 4, 1, 2, 0.5, 12.0, 6.0, 6.0, float("inf")), "all begin on the first slice"
    assert not row.single, "half of the patients have a second piece that counts"
    assert as_csv([row]) == "structure,patients,one_piece,counting,part,gap_mm,x_mm,y_mm,z_mm\nLarynx,4,1,2,0.5,12.0,6.0,6.0,inf\n"
    assert row.near_mm == 12.0
    assert replace(row, gap_mm=25.3).near_mm == 25.3
    assert replace(row, gap_mm=79.5, part=0.001).near_mm == 12.0, "a crumb tells nothing of gaps"
    mask, grid = organ((1, 9))["Larynx"]
    (inner,) = pieces_of([{"Larynx": (mask, grid)}])
    assert (inner.x_mm, inner.y_mm, inner.z_mm) == (6.0, 6.0, 21.0)
    assert inner.holds(mask, grid)
    assert not inner.holds(organ((1, 3), (8, 10))["Larynx"][0], grid), "24 mm from its first to its last slice"


def test_shipped_pieces_are_those_of_the_training_patients(data: Path) -> None:
    from oncontour.ops.tidy import Tidy, tidy

    shipped = shipped_pieces()
    assert {name: (row.patients, row.one_piece) for name, row in shipped.items() if row.single and not name.startswith("PTV")} == {
        "Bone_Mandible": (91, 76),
        "Brainstem": (128, 128),
        "Esophagus": (50, 50),
        "Larynx": (70, 69),
        "Parotid_L": (134, 133),
        "Parotid_R": (134, 134),
        "SpinalCord": (139, 138),
    }
    assert shipped["SpinalCord"].near_mm == 25.3
    assert not shipped["PTV_5600"].single
    case = Cohort.open(data / "openkbp" / "train")["pt_151"]
    masks, _ = tidy({"SpinalCord": case.mask("SpinalCord")}, Tidy(pieces=0))
    (row,) = pieces_of([{"SpinalCord": (masks["SpinalCord"].array, case.geometry)}])
    assert (row.part, row.gap_mm) == (0.974, 25.3), "two halves of a cord, as they were drawn"


# ---- ranges of another part of the body


def test_ranges_of_heads_are_not_laid_on_a_pelvis() -> None:
    """A ball of 180 cc called Larynx, twice what any had, in the phantom of a pelvis and in that of a head."""
    for make, shown in ((pelvis, "abdomen and pelvis"), (head_neck, "")):
        ct = make(1).ct
        x, y, z = (float(value) for value in ct.geometry.centre_mm)
        case = Case("one", {"ct": ct}, {"Larynx": Sphere((x, y, z), 35.0).mask(ct.geometry)})
        told = unchecked(case)
        assert ("volume" in codes(findings(case)["Larynx"])) is not bool(shown)
        assert (f"They were measured in CTs of head and neck, and this one shows {shown}." in " ".join(told)) is bool(shown)


def test_what_is_known_of_pieces_in_heads_is_not_laid_on_a_pelvis() -> None:
    """A cord of 4.0 cc and 2.2 cc 102 mm to its left: on a head and neck they are a cord and a stray, on a pelvis just two pieces."""
    for make, code in ((pelvis, "island"), (head_neck, "stray")):
        ct = make(1).ct
        array = np.zeros(ct.geometry.shape, bool)
        array[10:28, 40:43, 30:33] = array[12:26, 40:43, 66:68] = True
        case = Case("one", {"ct": ct}, {"SpinalCord": Volume(array, ct.geometry)})
        assert [one.code for one in findings(case)["SpinalCord"] if one.code in ("island", "stray")] == [code]
        anatomy = anatomy_of(case.ct, ["SpinalCord"])
        assert (anatomy.of("SpinalCord") is not None) is (code == "stray"), "what tidying removes by"
    assert anatomy_of(None, ["SpinalCord"]).of("SpinalCord") is None


def test_ranges_know_the_region_of_their_cohort() -> None:
    assert shipped_ranges().region == "head_neck"
    ranges = ranges_of([head_neck(1)] * 20)
    assert ranges.region == "head_neck"
    assert Ranges.from_dict(ranges.as_dict()).region == "head_neck"
    old = {key: value for key, value in ranges.as_dict().items() if key != "region"}
    assert Ranges.from_dict(old).region == "", "of a file that does not say, nothing is left aside"


def test_a_real_thorax_is_not_measured_by_heads(data: Path) -> None:
    from oncontour.io import read

    case = read(data / "dicom" / "LUNG1-001")
    lungs = case.mask("Lung_L").map(lambda one: one | case.mask("Lung_R").array)
    case = Case("thorax", {"ct": case.ct}, {"Lungs": lungs, "SpinalCord": case.mask("SpinalCord")})
    found = findings(case)
    assert not {"volume", "position"} & {code for told in found.values() for code in codes(told)}
    (crumbs,) = (one for one in found["Lungs"] if one.code == "island")
    assert len(crumbs.slices) < 20, "crumbs, of which the contours have some, and not one of the lungs"
    assert "cut" not in codes(found["SpinalCord"]), "a cord goes on beyond any field of view"
    assert [text for text in unchecked(case) if "head and neck" in text] == [
        "Usual volume and position: not known here. They were measured in CTs of head and neck, and this one shows thorax."
    ]
