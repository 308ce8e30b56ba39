"""The viewer's controls, driven as a person does, in a real browser: what they do is read from the page's state and from its pixels."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.report.dose_grid import dose_grid
from tests.needs import browser
from tests.report.test_report import make
from tests.report.test_review import Reader, scores

GRID = Geometry.regular((20, 40, 50), (3.0, 1.5, 2.5), (-61.25, -29.25, 100.0))
BOXES = {
    "Brainstem": (slice(12, 18), slice(15, 20), slice(23, 27)),
    "Parotid_L": (slice(5, 11), slice(10, 20), slice(36, 42)),
    "Parotid_R": (slice(5, 11), slice(10, 20), slice(10, 15)),
    "PTV_7000": (slice(6, 9), slice(22, 34), slice(20, 32)),
}
ROWS = {"Brainstem": dict.fromkeys(range(12, 18), (0.7, 0.6)), "Parotid_L": dict.fromkeys(range(5, 11), (0.6, 0.5))}
PLANES = ("axial", "sagittal", "coronal")


def boxes() -> Case:
    """Boxes in water, the dose x / 4 + 20 Gy."""
    case = make(BOXES, GRID)
    at = GRID.points(np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij"), axis=-1))
    case = case.with_images({"dose": Volume((at[..., 0] / 4 + 20).astype(np.float32), GRID)})
    return scores(case, ROWS)


class Hand(Reader):
    """A reader with a hand on the pointer, who knows where on the screen a place of the patient lies."""

    def __init__(self, browser: Any, case: Case, path: Path, **more: Any) -> None:
        super().__init__(browser, case, path)
        self.page.evaluate("() => wholeImages()")
        self.drawn()

    def place(self, plane: str, a_mm: float, b_mm: float) -> tuple[float, float]:
        """Pixels of the window of a place in mm of a plane, by the same sums as the page draws with."""
        code = """([id, a, b]) => {
            const plane = planes.find((one) => one.id === id), view = fit(plane), [x, y] = screen(plane, view);
            const box = plane.canvas.getBoundingClientRect();
            return [box.left + x(a) / view.ratio, box.top + y(b) / view.ratio];
        }"""
        x, y = self.page.evaluate(code, [plane, a_mm, b_mm])
        return x, y

    def whole_pixel(self, plane: str, a_mm: float, b_mm: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """The whole pixel of the window next to a place, and the mm that the page says is there: a wheel tells whole pixels alone."""
        x, y = (round(one) for one in self.place(plane, a_mm, b_mm))
        code = "([id, x, y]) => placeOf(planes.find((one) => one.id === id), { clientX: x, clientY: y })"
        a, b = self.page.evaluate(code, [plane, x, y])
        return (x, y), (a, b)

    def drag(self, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down(button=button)
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.page.mouse.move(*end)
        self.page.mouse.up(button=button)
        self.drawn()

    def click(self, at: tuple[float, float]) -> None:
        self.page.mouse.click(*at)
        self.drawn()

    def state(self, code: str) -> Any:
        return self.page.evaluate(f"() => {code}")

    @property
    def probe(self) -> str:
        self.drawn()
        return str(self.page.inner_text("#probe"))

    @property
    def measured(self) -> list[str]:
        return [text.strip() for text in self.page.locator("#measures li button:first-child").all_inner_texts()]

    def picture(self, selector: str) -> np.ndarray[Any, Any]:
        from PIL import Image

        self.drawn()
        return np.asarray(Image.open(io.BytesIO(self.page.locator(selector).screenshot())).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    executable = browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def hand(chromium: Any, tmp_path: Path) -> Iterator[Hand]:
    opened = Hand(chromium, boxes(), tmp_path / "report.html")
    yield opened
    opened.context.close()
    assert opened.complaints == []


# ---- window


def test_dragging_with_the_right_button_changes_window_and_level_and_presets_bring_them_back(hand: Hand) -> None:
    low, high = hand.state("[range.low, range.high]")
    assert (low, high) == (-160, 240)
    start = hand.place("axial", 60, 30)
    hand.drag(start, (start[0] + 90, start[1]), "right")
    assert hand.state("range.high - range.low") == pytest.approx(400 * math.exp(0.3), rel=0.06), "30 % of the width, step by step"
    assert hand.state("range.high + range.low") / 2 == pytest.approx(40)
    hand.drag(start, (start[0], start[1] - 60), "right")
    assert hand.state("range.high + range.low") / 2 < -20, "upwards is brighter: the level falls"
    assert hand.page.locator("#windows button[aria-pressed=true]").count() == 0
    hand.press("1")
    assert hand.state("[range.low, range.high]") == [-160, 240]
    hand.press("b")
    hand.drag(hand.place("coronal", 60, 30), (start[0] + 500, start[1]))
    assert hand.state("range.high - range.low") != 400, "the tool does it with the left button, in every plane"


def test_typed_values_are_the_window_and_typing_is_no_command(hand: Hand) -> None:
    slice_before, page = hand.slice, hand.page
    page.fill("#level", "50")
    page.fill("#width", "350")
    assert hand.state("[range.low, range.high]") == [-125, 225]
    page.focus("#level")
    hand.press("End", "3", "ArrowUp")
    assert hand.slice == slice_before
    assert page.locator("#windows button[aria-pressed=true]").count() == 0
    water = hand.picture("#axial")
    page.fill("#level", "-3000")
    assert hand.picture("#axial")[5, 200].tolist() == water[5, 200].tolist()
    assert hand.state("[grey[0] & 255, grey[255] & 255]") == [255, 255], "all of it lies above the window"
    page.fill("#width", "0")
    page.focus("#axial")
    assert page.input_value("#width") != "0", "a window without width is not taken"


# ---- pan and zoom


@pytest.mark.parametrize("plane", PLANES)
def test_what_is_under_the_pointer_stays_there_in_zooming(hand: Hand, plane: str) -> None:
    spot, mm = hand.whole_pixel(plane, 40, 25)
    hand.page.mouse.move(*spot)
    hand.page.keyboard.down("Control")
    for _ in range(4):
        hand.page.mouse.wheel(0, -100)
    hand.page.keyboard.up("Control")
    hand.drawn()
    assert hand.state(f"planes.find((one) => one.id === '{plane}').zoom") == pytest.approx(1.2**4)
    assert hand.place(plane, *mm) == pytest.approx(spot, abs=0.02)
    hand.press("z")
    hand.drag(spot, (spot[0], spot[1] - 30))
    assert hand.state(f"planes.find((one) => one.id === '{plane}').zoom") > 1.2**4 * 1.2
    assert hand.place(plane, *mm) == pytest.approx(spot, abs=0.02)
    hand.press("r")
    assert hand.state("planes.map((one) => [one.zoom, one.middle])") == [[1, None]] * 3


@pytest.mark.parametrize("plane", PLANES)
def test_the_image_goes_with_the_pointer(hand: Hand, plane: str) -> None:
    spot, mm = hand.whole_pixel(plane, 40, 25)
    where = hand.state("at")
    hand.drag(spot, (spot[0] + 21, spot[1] - 13), "middle")
    assert hand.place(plane, *mm) == pytest.approx((spot[0] + 21, spot[1] - 13), abs=0.02)
    hand.press("h")
    hand.drag((spot[0] + 21, spot[1] - 13), spot)
    assert hand.place(plane, *mm) == pytest.approx(spot, abs=0.02)
    assert hand.state("at") == where, "the cross stays"
    hand.page.mouse.dblclick(*spot)
    assert hand.state(f"planes.find((one) => one.id === '{plane}').middle") is None


def test_two_fingers_spread_the_image_and_keys_zoom_about_the_cross(chromium: Any, hand: Hand) -> None:
    x, y = hand.place("axial", 60, 30)
    session = hand.context.new_cdp_session(hand.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        session.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b, "id": n} for n, (a, b) in enumerate(points)]}
        )

    touch("touchStart", (x - 20, y))
    touch("touchStart", (x - 20, y), (x + 20, y))
    touch("touchMove", (x - 30, y), (x + 30, y))
    touch("touchMove", (x - 40, y), (x + 40, y))
    touch("touchEnd")
    hand.drawn()
    assert hand.state("planes[0].zoom") == pytest.approx(2, rel=0.02)
    assert hand.place("axial", 60, 30) == pytest.approx((x, y), abs=2)
    hand.press("r", "+", "+", "-")
    assert hand.state("planes[0].zoom") == pytest.approx(1.2)


# ---- what is under the pointer


def test_value_dose_names_and_place_under_the_pointer(hand: Hand) -> None:
    """Voxel (7, 14, 38), in the left parotid: x = -61.25 + 38 x 2.5 = 33.75 mm, 20 + x / 4 Gy; in each plane the same."""
    corner = np.asarray(hand.state("scene.corner_mm"))
    u, v, w = np.asarray([33.75, -29.25 + 14 * 1.5, 121.0]) - corner
    at = [round(w / 3 - 0.5), round(v / 1.5 - 0.5), round(u / 2.5 - 0.5)]
    hand.page.evaluate(f"() => {{ [at[0], at[1], at[2]] = {at}; draw(); }}")
    for plane, a, b in (("axial", u, v), ("sagittal", v, w), ("coronal", u, w)):
        hand.page.mouse.move(*hand.place(plane, a, b))
        hu, gy, names, place = hand.probe.split(" · ")
        assert hu == "≈ 1 HU"
        assert float(gy.removesuffix(" Gy")) == pytest.approx(20 + 33.75 / 4, abs=0.06)
        assert names == "Parotid_L"
        found = [float(one.replace("−", "-")) for one in re.findall(r"[−\d.]+", place)]
        assert found == pytest.approx([33.75, -8.25, 121.0], abs=0.35), f"half a pixel of the {plane} plane"
    hand.page.mouse.move(*hand.place("axial", 3, 3))
    assert hand.probe.startswith("≤ -1000 HU")
    assert "Parotid" not in hand.probe
    hand.page.mouse.move(5, 5)
    assert "Parotid_L" in hand.probe, "where no pointer is, of the cross"
    hand.page.locator("tr[data-name=Parotid_L] input").uncheck()
    assert "Parotid_L" not in hand.probe, "of what is shown"


def test_dose_between_its_voxels_is_linear_and_nowhere_beyond(hand: Hand) -> None:
    made = dose_grid(boxes().images["dose"], GRID)
    assert made is not None
    corner = np.asarray(hand.state("scene.corner_mm"))
    for x in (-50.0, -13.7, 0.0, 41.2):
        u, v, w = np.asarray([x, 3.3, 131.1]) - corner
        assert hand.state(f"doseAt({u}, {v}, {w})") == pytest.approx(20 + x / 4, abs=0.011)
    assert hand.state("doseAt(60, 30, -2)") is None
    assert hand.state("doseAt(60, 30, 61)") is None


# ---- ruler and angle


@pytest.mark.parametrize(
    ("plane", "start", "end", "mm"),
    [("axial", (20, 10), (50, 50), 50.0), ("sagittal", (12, 9), (36, 16), 25.0), ("coronal", (21, 8), (81, 53), 75.0)],
)
def test_a_ruler_is_exact_in_every_plane(hand: Hand, plane: str, start: tuple[float, float], end: tuple[float, float], mm: float) -> None:
    """3-4-5, 7-24-25 triangles in millimetres, on voxels of 3 x 1.5 x 2.5 mm; by dragging, and by two clicks."""
    hand.press("m")
    hand.drag(hand.place(plane, *start), hand.place(plane, *end))
    assert [float(one.split()[1]) for one in hand.measured] == pytest.approx([mm], abs=0.3), "to a pixel of the screen"
    hand.click(hand.place(plane, *end))
    assert len(hand.measured) == 1, "a press on an end takes hold of it"
    hand.press("Delete")
    assert hand.measured == []
    hand.click(hand.place(plane, *start))
    hand.click(hand.place(plane, *end))
    assert [float(one.split()[1]) for one in hand.measured] == pytest.approx([mm], abs=0.3)


def test_a_ruler_along_a_drawn_outline_is_as_long_as_the_structure(hand: Hand) -> None:
    """The target is 12 voxels of 2.5 mm wide: its outline is found by its colour in the picture, as an eye does."""
    colour = hand.state("structureOf('PTV_7000').colour")
    hand.press("Escape", "x", "l", "f")
    hand.page.evaluate("() => goTo(7)")
    picture = hand.picture("#axial")
    rows, columns = np.nonzero(np.abs(picture - colour).max(axis=2) < 60)
    box = hand.page.locator("#axial").bounding_box()
    left, right, middle = (float(one) for one in (columns.min() + 1, columns.max(), (rows.min() + rows.max()) / 2))
    hand.press("m")
    hand.drag((box["x"] + left, box["y"] + middle), (box["x"] + right, box["y"] + middle))
    (told,) = hand.measured
    assert float(told.split()[1]) == pytest.approx(30, abs=0.6)


def test_keys_measure_whole_voxels_exactly(hand: Hand) -> None:
    hand.page.focus("#axial")
    hand.press("m", "Enter", *["Shift+ArrowRight"] * 8, "Enter")
    assert hand.measured == ["Ruler 20.0 mm"]
    hand.press("a", "Enter", *["Shift+ArrowDown"] * 10, "Enter", *["Shift+ArrowLeft"] * 6, "Enter")
    assert hand.measured == ["Ruler 20.0 mm", "Angle 90.0°"]
    hand.page.focus("#coronal")
    hand.press("m", "Enter", *["Shift+ArrowUp"] * 2, "Enter")
    assert hand.measured[-1] == "Ruler 6.0 mm", "slices of 3 mm"
    hand.page.locator("#measures button[aria-label^=Remove]").first.click()
    assert hand.measured == ["Angle 90.0°", "Ruler 6.0 mm"]


def test_an_angle_and_a_point_that_is_moved(hand: Hand) -> None:
    """Of the 3-4-5 triangle: 53.13 degrees; a leg along its hypotenuse makes it 0."""
    hand.press("a")
    for point in ((60, 10), (30, 10), (60, 50)):
        hand.click(hand.place("axial", *point))
    (told,) = hand.measured
    assert float(told.removeprefix("Angle ").removesuffix("°")) == pytest.approx(53.13, abs=0.4)
    hand.drag(hand.place("axial", 60, 50), hand.place("axial", 80, 10))
    (told,) = hand.measured
    assert float(told.removeprefix("Angle ").removesuffix("°")) < 0.5
    k = hand.slice
    hand.press("ArrowUp")
    assert hand.state("measures.filter((one) => isHere(one, planes[0])).length") == 0, "on its own slice alone"
    hand.page.locator("#measures button").first.click()
    assert hand.slice == k


# ---- structures


def test_names_stand_in_the_slice_and_none_over_another(hand: Hand) -> None:
    hand.press("Escape")
    hand.page.evaluate("() => goTo(7)")
    hand.drawn()
    assert sorted(hand.state("planes[0].labels")) == ["PTV_7000", "Parotid_L", "Parotid_R"]
    assert hand.state("planes[1].labels") == []
    with_names = hand.picture("#axial")
    hand.press("l")
    assert (np.abs(hand.picture("#axial") - with_names).max(axis=2) > 60).sum() > 100


def test_colour_and_opacity_of_a_structure(hand: Hand) -> None:
    page = hand.page
    hand.press("Escape")
    page.evaluate("() => { goTo(7); for (const id of ['labels', 'cross']) toggle(id); }")
    before = hand.picture("#axial")
    page.get_by_role("button", name="Colour and opacity of Parotid_R").click()
    assert page.locator("#look").is_visible()
    page.fill("#look-colour", "#ff00ff")
    page.fill("#look-shade", "100")
    page.keyboard.press("Escape")
    assert not page.locator("#look").is_visible()
    pink = np.abs(hand.picture("#axial") - [255, 0, 255]).max(axis=2) < 20
    x, y = hand.place("axial", *(np.asarray([-61.25 + 12 * 2.5, -29.25 + 15 * 1.5]) - hand.state("scene.corner_mm.slice(0, 2)")))
    box = page.locator("#axial").bounding_box()
    assert pink[int(y - box["y"]), int(x - box["x"])], "the right parotid is filled, on the left of the screen"
    assert page.locator("[data-swatch=Parotid_R]").first.evaluate("one => getComputedStyle(one).backgroundColor") == "rgb(255, 0, 255)"
    page.get_by_role("button", name="Colour and opacity of Parotid_R").click()
    page.click("#look-first")
    assert np.abs(hand.picture("#axial") - before).max() <= 2


def test_the_question_follows_a_click_on_a_target(hand: Hand) -> None:
    assert "Parotid_L" in hand.question
    hand.page.get_by_role("button", name="PTV_7000", exact=True).click()
    assert hand.question.startswith("PTV_7000 slice 8")
    assert "not looked at here" in hand.question
    assert hand.page.locator(".spot[aria-current=true]").count() == 0
    hand.press("n")
    assert hand.question.startswith("1 of ")


# ---- 3D


def test_surfaces_have_the_volume_of_their_structures_and_can_be_turned(hand: Hand) -> None:
    """Boxes of 6 x 10 x 6 and so on voxels of 11.25 mm3, whose edges the net rounds off, and a ball of 20 mm on slices of 3 mm: 33.5 cc."""
    hand.press("t")
    hand.page.wait_for_selector("body[data-solid=true]", state="attached")
    told = hand.state("solid.nets.map(volumeOf)")
    for (name, box), cc in zip(BOXES.items(), told, strict=True):
        assert cc == pytest.approx(math.prod(one.stop - one.start for one in box) * 11.25e-3, rel=0.12), name
    ball = """() => { const slices = new Map();
        for (let k = 0; k < 14; k++) {
            const radius = Math.sqrt(Math.max(0, 400 - ((k - 6.5) * 3) ** 2)), points = [];
            for (let n = 0; n < 90; n++) points.push(50 + radius * Math.cos(n * Math.PI / 45), 40 + radius * Math.sin(n * Math.PI / 45));
            slices.set(k, [Float32Array.from(points)]);
        }
        return volumeOf(netOf(coverage(slices))); }"""
    assert hand.page.evaluate(ball) == pytest.approx(4 / 3 * math.pi * 8, rel=0.02)
    first = hand.picture("#solid")
    assert (first.max(axis=2) > 40).sum() > 500
    x, y, width, height = (hand.page.locator("#solid").bounding_box()[key] for key in ("x", "y", "width", "height"))
    hand.drag((x + width / 2, y + height / 2), (x + width / 2 + 60, y + height / 2 + 20))
    assert hand.state("[solid.yaw, solid.pitch]") == pytest.approx([0.6 - 0.6, -0.25 - 0.2], abs=0.01)
    assert (np.abs(hand.picture("#solid") - first).max(axis=2) > 40).sum() > 200
    hand.page.mouse.move(x + width / 2, y + height / 2)
    hand.page.mouse.wheel(0, -100)
    assert hand.state("solid.zoom") == pytest.approx(1.15)
    hand.page.focus("#solid")
    yaw = hand.state("solid.yaw")
    hand.press("ArrowLeft", "r")
    assert yaw != hand.state("solid.yaw") == 0.6


def test_left_lies_on_the_right_as_one_looks_at_the_patient_and_a_click_leads_there(hand: Hand) -> None:
    hand.press("t")
    hand.page.wait_for_selector("body[data-solid=true]", state="attached")
    hand.page.evaluate("() => { enlarge('solid'); Object.assign(solid, { yaw: 0, pitch: 0 }); draw(); }")
    hand.drawn()
    box = hand.page.locator("#solid").bounding_box()
    code = """(name) => {
        const n = scene.structures.findIndex((one) => one.name === name), { view, whose } = solid.drawn;
        let x = 0, y = 0, count = 0;
        whose.forEach((one, p) => { if (one === n) { x += p % view.width; y += Math.floor(p / view.width); count++; } });
        return [x / count / view.sharp, y / count / view.sharp]; }"""
    left, right, stem = (hand.page.evaluate(code, name) for name in ("Parotid_L", "Parotid_R", "Brainstem"))
    assert left[0] > box["width"] / 2 > right[0], "the patient's left is to the right of who stands before him"
    assert stem[1] < left[1], "superior is up"
    hand.page.mouse.move(box["x"] + left[0], box["y"] + left[1])
    assert hand.page.inner_text("#probe") == "Parotid_L"
    hand.click((box["x"] + left[0], box["y"] + left[1]))
    assert "Parotid_L" in hand.state("structuresAt((at[2] + .5) * di, (at[1] + .5) * dj, (at[0] + .5) * dk)")
    hand.press("t")
    assert hand.state("$('planes').dataset.large") == "axial"


def test_a_pane_can_be_made_large(hand: Hand) -> None:
    wide = {pane: hand.page.locator(f"#{pane}").bounding_box()["width"] for pane in PLANES}
    assert wide["axial"] > 1.5 * wide["coronal"]
    hand.page.get_by_role("button", name="Coronal plane: large").click()
    assert hand.page.locator("#coronal").bounding_box()["width"] == pytest.approx(wide["axial"])
    hand.press("o")
    assert hand.page.locator("#axial").bounding_box()["width"] == pytest.approx(wide["axial"])


# ---- the page as a whole


def test_the_first_screen_of_a_notebook_has_slice_places_and_strips(hand: Hand) -> None:
    hand.page.set_viewport_size({"width": 1366, "height": 768})
    hand.drawn()
    for selector in ("#axial", "#strips .strip >> nth=-1", "#slice", "#spots", "#question", "#legend"):
        box = hand.page.locator(selector).bounding_box()
        assert box["y"] >= 0, selector
        assert box["y"] + box["height"] <= 768, selector
        assert box["x"] + box["width"] <= 1366, selector
    assert hand.page.locator("#axial").bounding_box()["height"] > 300
    assert hand.state("document.documentElement.scrollWidth") <= 1366


def test_the_keys_are_listed_and_each_does_something(hand: Hand) -> None:
    page = hand.page
    hand.press("?")
    assert page.locator("#help").is_visible()
    words = page.inner_text("#help")
    for key in "NPSXFLOBHZRGMAT":
        assert re.search(rf"(?<![A-Za-z]){key}(?![A-Za-z])", words), key
    hand.press("Escape")
    assert not page.locator("#help").is_visible()
    for key, tool in (("b", "window"), ("h", "pan"), ("z", "zoom"), ("m", "ruler"), ("a", "angle"), ("g", "cross")):
        hand.press(key)
        page.wait_for_selector(f"button[data-tool={tool}][aria-pressed=true]")
        assert hand.state("tool") == tool
        assert page.locator("[data-tool][aria-pressed=true]").count() == 1
        assert page.locator(f"button[data-tool={tool}]").get_attribute("aria-pressed") == "true"
    page.focus("#sagittal")
    k, i = hand.state("[at[0], at[2]]")
    hand.press(".", "ArrowUp")
    assert hand.state("[at[0], at[2]]") == [k + 1, i + 1]


def test_a_key_pressed_as_the_help_closes_is_not_lost(hand: Hand) -> None:
    """Until the next frame the focus is still on a button of the closed help."""
    code = """{
        $("help").showModal();
        const button = document.activeElement;
        $("help").close();
        button.dispatchEvent(new KeyboardEvent("keydown", { key: "b", bubbles: true }));
        return [Boolean(button.closest("#help")), tool];
    }"""
    assert hand.state(code) == [True, "window"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_axe_finds_nothing(hand: Hand, scheme: str) -> None:
    from tests.needs import axe

    hand.page.emulate_media(color_scheme=scheme)
    page_is = hand.state("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(page_is) < 60) == (scheme == "dark")
    hand.press("t")
    hand.page.evaluate(axe())
    for opened in ("", "help", "look"):
        if opened == "help":
            hand.press("?")
        if opened == "look":
            hand.press("Escape")
            hand.page.locator("td .swatch").first.click()
        found = hand.page.evaluate("() => axe.run().then((one) => one.violations)")
        assert [(one["id"], [node["html"][:160] + node["failureSummary"] for node in one["nodes"]]) for one in found] == [], opened
