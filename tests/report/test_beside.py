"""What stands beside the contours in the page: another set, dose and DVH, verdicts, and the sheets to be signed; in a real browser too."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncontour import report
from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH, dvh
from oncontour.report.beside import Beside, compared_words, curves_words, levels, on_grid_of
from oncontour.report.dvh import svg
from oncontour.report.review import Spot, listed
from oncontour.report.scene import scene
from oncontour.report.sheet import MOST_STRUCTURES
from tests.report.test_report import BOXES, HOSTILE, make, record_of
from tests.report.test_review import Reader, chromium, scored

assert chromium  # a fixture of that module


def moved(case: Case, names: tuple[str, ...] = ("Parotid_L",)) -> Case:
    """These structures one voxel (2 mm) farther to the left."""
    return case.without_structures().with_masks({n: Volume(np.roll(case.mask(n).array, 1, axis=2), case.geometry) for n in names})


def falling(case: Case) -> Volume:
    """A dose that falls by 1 Gy a voxel from right to left, from 60 Gy."""
    i = np.arange(case.geometry.shape[2], dtype=np.float32)
    return Volume(np.broadcast_to(60 - i, case.geometry.shape).copy(), case.geometry)


def test_surfaces_apart_stand_in_the_table() -> None:
    """Boxes of 20 x 10 mm moved by 2 mm across: the two long faces lie 2 mm apart, and HD95 is that; an empty one is infinitely far."""
    case = make(BOXES)
    left, right, _, larynx = report.rows(case, truth=moved(case))
    assert left.dsc == pytest.approx(0.8)
    assert left.hd95_mm == pytest.approx(2.0, abs=0.1)
    assert left.msd_mm == pytest.approx(1340 / 1300, abs=0.15), "600 of 1300 mm2 lie 2 mm off, a fifth of the rest 1 mm on average"
    assert (right.dsc, right.hd95_mm, larynx.msd_mm) == (None, None, None)
    lost = report.rows(make({"Parotid_L": BOXES["Larynx"]}), truth=case)[0]
    assert (lost.dsc, lost.hd95_mm) == (0.0, np.inf)
    page = report.page(record_of(case, [lost]), case, [lost])
    assert "<td>∞</td>".replace("<td>", '<td class="n">') in page
    assert "HD95 mm" in report.table([left])


def test_the_other_outlines_lie_where_they_were_drawn() -> None:
    case = make(BOXES)
    z = 100 + 7 * 3
    drawn = case.without_structures().with_contours({"Parotid_L": Contours((np.array([[-10.0, -10, z], [10, -10, z], [0, 13, z]]),))})
    names = ("Parotid_L", "Parotid_R")
    other = on_grid_of(case, drawn, names)
    shown = scene(case, report.rows(case))
    words = json.loads(zlib.decompress(base64.b64decode(compared_words(Beside(other, "the truth"), names, shown.grid) or "")))
    assert words["as"] == "the truth"
    assert words["outlines"][1] is None
    ((k, steps),) = words["outlines"][0]
    assert k == 7
    assert np.diff(np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / 100, axis=0).tolist() == [[20.0, 0.0], [-10.0, 23.0]]
    assert compared_words(Beside(), names, shown.grid) is None


def test_isodoses_are_of_the_highest_prescription_else_of_the_largest_dose() -> None:
    told = levels(72.0, {"PTV_7000": 70.0, "PTV_5600": 56.0})
    assert [(one["gy"], one["percent"]) for one in told] == [(70.0, 100), (66.5, 95), (56.0, 80), (35.0, 50), (21.0, 30)]
    assert [(one["gy"], one["percent"]) for one in levels(40.0, {})] == [(38.0, 95), (32.0, 80), (20.0, 50), (12.0, 30)]
    assert levels(0.0, {}) == []


def test_curves_are_those_of_the_dvh() -> None:
    ramp = DVH("A", np.array([0.0, 50.0]), np.array([10.0, 0.0]), 25.0)
    (told,) = curves_words(Beside(dvhs={"empty": DVH("empty", np.empty(0), np.empty(0), np.nan), "A": ramp}))
    assert (told["n"], told["cc"]) == (1, 10.0)
    assert np.interp(20, told["gy"], told["percent"]) == pytest.approx(60, abs=0.01)


def spot(cm2: float, first: float = 0.0) -> Spot:
    return Spot("A", 1, 2, 1, 1, 0.5, 0.4, cm2, (first, cm2), (), ())


def test_the_list_ends_where_little_is_left_to_gain() -> None:
    """Of 10 cm2 the last three places hold 0.9; of places as large as each other none is little; what is misplaced is always listed."""
    assert listed([spot(cm2) for cm2 in (4, 2, 1.5, 1, 0.6, 0.3, 0.3, 0.3)]) == 5
    assert listed([spot(1.0)] * 12) == 11
    assert listed([*[spot(5.0)] * 6, spot(0.01), spot(0.0, 0.9)]) == 8
    assert listed([]) == 0
    assert listed([spot(0.0)] * 3) == 3


def test_the_digest_is_the_same_of_the_record_that_was_written_and_read() -> None:
    from oncontour.result import _known

    case = scored()
    table = report.rows(case, truth=make({"Parotid_R": BOXES["Larynx"]}))
    record = record_of(case, table, assess=report.assess_record(case))
    assert any(row.hd95_mm == np.inf for row in table)
    again = json.loads(json.dumps(_known(record)))
    assert report.digest(again) == report.digest(record)
    assert report.digest({**again, "created": "later"}) != report.digest(record)


def test_the_sheets_have_room_for_what_is_there_and_say_what_is_left_out() -> None:
    case = make({f"Organ_{n}": BOXES["Parotid_L"] for n in range(MOST_STRUCTURES + 3)})
    table = report.rows(case)
    page = report.page(record_of(case, table, label=HOSTILE), case, table)
    assert "Not on these sheets: 3 more structures" in page
    assert HOSTILE not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3


# ---- a person at a browser


class Desk(Reader):
    """A page with everything: a truth, a dose, goals, a label."""

    def __init__(self, browser: Any, folder: Path) -> None:
        case = scored()
        self.other, dose = moved(case, ("Parotid_L", "Brainstem")), falling(case)
        dvhs = {name: dvh(dose, case.masks[name], name=name) for name in case.structures}
        self.beside = Beside(self.other, "the truth", dvhs, {"PTV_5000": 50.0})
        goal = {
            "goal": "Larynx Dmean < 44 Gy",
            "value": None,
            "verdict": "cannot be judged",
            "why": "there is no Larynx here",
            "source": "us",
        }
        self.told = {"structures": {}, "targets": {}, "notes": [], "goals": [goal]}
        super().__init__(browser, case.with_images({"dose": dose}), folder / "report.html")

    def canvas(self) -> np.ndarray[Any, Any]:
        """What is drawn in the axial plane, wherever it stands on the page."""
        from PIL import Image

        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # a row came or went
        self.drawn()
        text = self.page.evaluate("() => planes[0].canvas.toDataURL()").partition(",")[2]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")).reshape(-1, 3).astype(int)

    def changed(self, before: np.ndarray[Any, Any]) -> int:
        """Pixels that are not as ``before``."""
        return int((np.abs(self.canvas() - before).max(axis=1) > 20).sum())

    def write(self, case: Case, path: Path) -> None:
        table = report.rows(case, truth=self.other)
        record = record_of(case, table, label="Clinic 7", dose=self.told, assess=report.assess_record(case))
        report.write(record, case, table, path, {"dvh": svg(self.beside.dvhs)}, "", self.beside)


@pytest.fixture
def desk(chromium: Any, tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(chromium, tmp_path)
    yield opened
    opened.context.close()
    assert opened.complaints == []


def test_the_other_set_is_drawn_dashed_and_differences_are_shaded(desk: Desk) -> None:
    desk.page.wait_for_selector("body[data-compared='2']", state="attached")
    both = desk.pixels()
    desk.press("c")
    alone = desk.pixels()
    assert (np.abs(both - alone).max(axis=2) > 60).sum() > 100
    desk.press("d")
    shaded = desk.pixels()
    red, blue = (shaded - alone)[..., 0], (shaded - alone)[..., 2]
    assert (red > 40).sum() > 300, "only here"
    assert (blue > 40).sum() > 300, "only in the truth"
    desk.page.click("#differences")
    assert np.abs(desk.pixels() - alone).max() <= 2
    assert "the truth, dashed" in desk.page.inner_text("#compared-legend")


def test_isodoses_and_wash_with_a_legend_to_switch_them(desk: Desk) -> None:
    assert desk.page.locator("#isodoses").is_hidden()
    desk.press("i")
    assert "50.0 Gy" in desk.page.inner_text("#isodoses")
    assert "% of 50 Gy, the highest prescription" in desk.page.inner_text("#isodoses")
    lines = desk.canvas()  # the legend has taken its row: the picture keeps its size from here on
    for button in desk.page.locator("#isodoses button").all():
        button.click()
    assert desk.changed(lines) > 300
    bare = desk.canvas()
    desk.page.locator("#isodoses button").first.click()
    assert desk.changed(bare) > 20
    desk.page.locator("#isodoses button").first.click()
    assert desk.changed(bare) == 0
    for button in desk.page.locator("#isodoses button").all():
        button.click()
    lines = desk.canvas()
    desk.press("w")
    assert desk.changed(lines) > 300


def test_an_isodose_lies_where_the_dose_is(desk: Desk) -> None:
    """50 Gy is ten voxels from the first column: 20.0 mm beyond its centre. The line of its colour lies in that column of the screen."""
    desk.press("f", "x", "c", "i")
    column = desk.page.evaluate(
        "() => { planes[0].zoom = 1; planes[0].middle = null; draw(); const view = fit(planes[0]);"
        " return (view.left + (20 - 8 + 1 + 8) * view.scale) / view.ratio; }"
    )
    found = np.argwhere(np.abs(desk.pixels() - COLOURS_OF_100).max(axis=2) < 40)
    assert len(found) > 100
    assert np.median(found[:, 1]) == pytest.approx(column, abs=2.0)


COLOURS_OF_100 = np.array([230, 159, 0])


def test_the_dvh_tells_values_under_the_pointer_and_by_keys(desk: Desk) -> None:
    """Parotid_L lies at columns 35 to 39, 25 to 21 Gy at their centres."""
    page = desk.page
    picture = page.locator("#dvh svg")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    left, _, right, _ = map(float, picture.get_attribute("data-axes").split())
    most = float(picture.get_attribute("data-most").split()[0])
    page.mouse.move(box["x"] + box["width"] * (left + (right - left) * 23 / most), box["y"] + box["height"] / 2)
    told = dict(line.split("\t", 2)[1:] for line in page.inner_text("#dvh-values").splitlines())
    assert page.inner_text("#dvh-at") == "23.0 Gy"
    rows = {name.strip(): [float(v) for v in values.split("\t")] for name, values in told.items()}
    assert rows["Parotid_L"][0] == pytest.approx(50, abs=3)
    assert rows["Parotid_L"][1] == pytest.approx(1.5, abs=0.1)
    assert rows["Parotid_R"][0] == 100
    page.focus("#dvh-gy")
    desk.press("End")
    assert page.inner_text("#dvh-at") == f"{most:.1f} Gy"
    curve = page.locator("#dvh svg [id='dvh-1']")
    assert curve.is_visible()
    page.locator("#dvh-values input").nth(1).uncheck()
    assert not curve.is_visible()


def test_goals_stand_in_the_page_with_their_verdict(desk: Desk) -> None:
    assert "cannot be judged: there is no Larynx here" in desk.page.inner_text(".goals")


def test_a_verdict_is_kept_saved_and_read_back(desk: Desk, tmp_path: Path) -> None:
    page = desk.page
    page.click("[data-verdict=wrong]")
    page.fill("#verdict-comment", "too far =lateral")
    desk.press("Tab")
    page.select_option("#verdict-of", label="Parotid_R")
    page.click("[data-verdict=fine]")
    assert page.inner_text("#verdict-count") == "2 of 6 judged"
    page.reload()
    page.wait_for_selector("body[data-ready=true]", state="attached")
    assert page.inner_text("#verdict-count") == "2 of 6 judged"
    assert page.get_attribute("[data-verdict=wrong]", "aria-pressed") == "true", "of the first place, which it opens on"
    assert page.input_value("#verdict-comment") == "too far =lateral"
    assert page.locator(".spot.seen").count() == 1
    with page.expect_download() as waiting:
        page.click("#verdict-save")
    saved = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(saved)
    told = json.loads(saved.read_text())
    assert [(one["structure"], one["verdict"], one.get("first"), one.get("last")) for one in told["verdicts"]] == [
        ("Parotid_L", "wrong", 6, 9),
        ("Parotid_R", "fine", None, None),
    ]
    page.evaluate("() => localStorage.clear()")
    page.reload()
    page.wait_for_selector("body[data-ready=true]", state="attached")
    assert page.inner_text("#verdict-count") == "0 of 6 judged"
    page.set_input_files("#verdict-file", saved)
    page.wait_for_function("() => document.getElementById('verdict-told').textContent.includes('2 of 2 loaded')")
    assert page.inner_text("#verdict-count") == "2 of 6 judged"
    saved.write_text(json.dumps({**told, "digest": "0" * 64}))
    page.set_input_files("#verdict-file", saved)
    page.wait_for_function("() => document.getElementById('verdict-told').textContent.includes('another result')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_with_two_sets_and_a_dose(desk: Desk, scheme: str) -> None:
    """Isodoses, wash, differences, verdicts, goals and DVH values all there, and one of them judged."""
    from tests.needs import axe

    desk.page.emulate_media(color_scheme=scheme)
    desk.press("d", "i", "w")
    desk.page.click("[data-verdict=edited]")
    desk.page.locator("#isodoses button").first.click()
    desk.page.evaluate(axe())
    found = desk.page.evaluate("() => axe.run().then((one) => one.violations)")
    assert [(one["id"], [node["html"][:160] + node["failureSummary"] for node in one["nodes"]]) for one in found] == []


def test_two_sheets_to_be_signed(desk: Desk, tmp_path: Path) -> None:
    page = desk.page
    page.click("[data-verdict=edited]")
    data = page.pdf(format="A4", print_background=True)
    (tmp_path / "sheets.pdf").write_bytes(data)
    assert data.count(b"/Type /Page\n") == 2
    assert page.pdf(format="Letter").count(b"/Type /Page\n") == 2
    page.emulate_media(media="print")
    text = page.inner_text("body")
    for wanted in (
        "Contours of Clinic 7",
        "Parotid_L",
        "slices 7 to 10",
        "0.8",
        "edited elsewhere",
        "Larynx Dmean < 44 Gy",
        "Signature",
        "boxes",
    ):
        assert wanted in text, wanted
    assert "Where to look" not in text
    painted = page.evaluate(
        "() => [...document.querySelectorAll('.key-image:not([hidden]) canvas')].map((c) =>"
        " c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 90 && v < 250))"
    )
    assert painted == [True, True, True]


def test_a_page_of_many_structures_and_places_still_prints_on_two_sheets(chromium: Any, tmp_path: Path) -> None:
    names = [f"A_rather_long_name_of_an_organ_{n}" for n in range(40)]
    case = make(dict.fromkeys(names, BOXES["Parotid_L"]))
    from tests.report.test_review import scores

    case = scores(case, {name: dict.fromkeys(range(5, 10), (0.3, 0.2)) for name in names})
    case = replace(case, id="many")
    opened = Reader(chromium, case, tmp_path / "report.html")
    assert opened.page.pdf(format="A4").count(b"/Type /Page\n") == 2
    opened.context.close()
    assert opened.complaints == []
