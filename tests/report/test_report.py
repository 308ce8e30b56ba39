"""The report: what its table says, what travels in the page, and that a real browser shows it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncontour import report
from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.palette import COLOURS
from oncontour.phantom import head_neck
from oncontour.report.scene import HU_LEVELS, _spacing, scene
from tests.needs import browser

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script>"


def make(structures: dict[str, tuple[slice, slice, slice]], geometry: Geometry | None = None) -> Case:
    """Boxes in a body: a block of water 4 voxels inside the grid's edge in plane."""
    grid = geometry or Geometry.regular((20, 40, 50), (3.0, 2.0, 2.0), (-49.0, -39.0, 100.0))
    ct = np.full(grid.shape, -1000.0, np.float32)
    ct[:, 4:-4, 4:-4] = 0
    masks = {}
    for name, box in structures.items():
        array = np.zeros(grid.shape, bool)
        array[box] = True
        masks[name] = Volume(array, grid)
    return Case("box", {"ct": Volume(ct, grid)}, masks)


def record_of(case: Case, table: list[report.Row], **more: Any) -> dict[str, Any]:
    return {
        "case": "P-0123456789",
        "created": "2026-01-02T03:04:05+00:00",
        "input": {"modality": "CT", "shape": [20, 40, 50], "spacing_mm": [3.0, 2.0, 2.0], "voxels_sha256": "0" * 64, "notes": []},
        "models": [{"name": "boxes", "sha256": "ab" * 32, "data": "nothing", "structures": [row.name for row in table]}],
        "settings": {"backend": "auto", "structures": None},
        "tidy": ["A: one island removed"],
        "warnings": report.warnings(table),
        "structures": [row.as_dict() for row in table],
        "timings_s": {"read": 1.0, "total": 2.0},
        "peak_memory_mb": 100.0,
        "versions": {"oncontour": "0"},
        "files": {"rtstruct.dcm": "cd" * 32},
        **more,
    }


BOXES = {
    "Parotid_L": (slice(5, 10), slice(10, 20), slice(35, 40)),
    "Parotid_R": (slice(5, 10), slice(10, 20), slice(10, 15)),
    "Brainstem": (slice(12, 20), slice(15, 20), slice(23, 27)),
    "Larynx": (slice(0, 0), slice(0, 0), slice(0, 0)),
}


def test_rows_say_what_a_pencil_says() -> None:
    left, _, stem, larynx = report.rows(make(BOXES))
    assert left.volume_cc == pytest.approx(5 * 10 * 5 * 12 / 1000)
    assert left.slices == 5
    assert left.extent_mm == pytest.approx((100 + 5 * 3 - 1.5, 100 + 9 * 3 + 1.5))
    assert left.centre_mm == pytest.approx((-49 + 37 * 2, -39 + 14.5 * 2, 100 + 7 * 3))
    assert (left.side, left.side_expected, left.cut) == ("left", "left", False)
    assert (stem.side, stem.side_expected, stem.cut) == ("middle", "", True)
    assert (larynx.volume_cc, larynx.slices, larynx.extent_mm, larynx.centre_mm, larynx.side) == (0.0, 0, None, None, "")


def test_rows_do_not_depend_on_how_the_grid_lies() -> None:
    case = make(BOXES)
    turned = case.geometry.reorient([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])
    again = Case("turned", {"ct": case.ct.to(turned)}, {name: mask.to(turned) for name, mask in case.masks.items()})
    for one, other in zip(report.rows(case), report.rows(again), strict=True):
        assert (one.slices, one.side, one.cut) == (other.slices, other.side, other.cut)
        assert one.volume_cc == pytest.approx(other.volume_cc)
        assert one.extent_mm == (None if other.extent_mm is None else pytest.approx(other.extent_mm))


def test_warnings_name_what_is_swapped_empty_and_cut() -> None:
    """A spinal cord goes on past the last slice of most scans: nothing is missing."""
    cord = {"SpinalCord": BOXES["Brainstem"]}
    swapped = make({"Parotid_R": BOXES["Parotid_L"], "Brainstem": BOXES["Brainstem"], "Larynx": BOXES["Larynx"], **cord})
    told = report.warnings(report.rows(swapped))
    assert len(told) == 3
    assert told[0].startswith("Larynx was looked for and nothing was found")
    assert told[1].startswith("Parotid_R lies on the patient's left side")
    assert told[2].startswith("Brainstem reaches the first or last slice")


def test_contours_that_no_voxel_lies_in_are_not_called_empty() -> None:
    """380 mm above the image, and 0.6 mm wide in voxels of 2 mm; only Heart was looked for and not found."""

    def square(z: float, half: float) -> np.ndarray[Any, Any]:
        return np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])

    case = make({}).with_contours({"Larynx": Contours((square(500, 10),)), "Lens_L": Contours((square(121, 0.3),)), "Heart": Contours()})
    table = report.rows(case)
    told = report.warnings(table)
    assert [text.split(",")[0] for text in told[:2]] == ["Larynx has contours", "Lens_L has contours"]
    assert told[2].startswith("Heart was looked for and nothing was found")
    page = report.page(record_of(case, table), case, table)
    assert (page.count("no voxel of the image lies in it"), page.count("empty: nothing was found")) == (2, 1)


def test_a_structure_in_two_places_is_told() -> None:
    case = make({"Parotid_L": BOXES["Parotid_L"]})
    array = case.mask("Parotid_L").array.copy()
    array[15:17, 12:15, 36:38] = True
    (row,) = table = report.rows(case.with_masks({"Parotid_L": Volume(array, case.geometry)}))
    assert (row.slices, row.gap_slices) == (7, 5)
    assert report.warnings(table) == ["Parotid_L has 5 empty slices in its middle: a part is missing, or one is in the wrong place."]


def test_dsc_against_a_truth_and_the_table() -> None:
    case = make(BOXES)
    truth = make({"Parotid_L": (slice(5, 10), slice(10, 20), slice(30, 40)), "Larynx": BOXES["Larynx"]})
    table = report.rows(case, truth=truth)
    assert [row.dsc for row in table] == [pytest.approx(2 / 3), None, None, None]
    text = report.table(table)
    assert re.search(r"Parotid_L +3\.0 +5 +0\.67", text)
    assert re.search(r"Parotid_R +3\.0 +5 +-$", text, re.MULTILINE)
    assert "DSC" not in report.table(report.rows(case))


def test_images_come_back_within_their_step() -> None:
    rng = np.random.default_rng(0)
    case = make(BOXES)
    case = case.with_images({"ct": case.ct.map(lambda hu: (hu + rng.normal(0, 300, hu.shape)).astype(np.float32))})
    shown = scene(case, report.rows(case))
    codes = np.concatenate([_unpack(block.text, block.count, shown.words["shape"]) for block in shown.blocks])
    values = np.asarray(shown.words["levels"])[codes]
    j, i = 0, 0
    truth = np.clip(case.ct.array[:, j : j + codes.shape[1], i : i + codes.shape[2]], HU_LEVELS[0], HU_LEVELS[-1])
    assert codes.shape == truth.shape
    soft = (truth > -195) & (truth < 195)
    assert np.abs(values - truth)[soft].max() <= 1.51
    assert np.abs(values - truth).max() <= 11.6


def test_contours_keep_their_area_and_place() -> None:
    case = make(BOXES)
    table = report.rows(case)
    shown = scene(case, table)
    packed = json.loads(zlib.decompress(base64.b64decode(shown.contours)))
    for row, outlines in zip(table, packed, strict=True):
        area = 0.0
        for _, steps in outlines:
            points = np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / 100
            u, v = points[:, 0], points[:, 1]
            area += abs(u @ np.roll(v, 1) - v @ np.roll(u, 1)) / 2
        assert area * 3.0 / 1000 == pytest.approx(row.volume_cc, rel=0.002)
        assert len({k for k, _ in outlines}) == row.slices
    assert [s["centre"] for s in shown.words["structures"]][2] is not None
    assert [s["centre"] for s in shown.words["structures"]][3] is None


def test_drawn_contours_are_shown_as_they_were_drawn() -> None:
    case = make({})
    z = 100 + 7 * 3
    case = case.with_contours({"GTV": Contours((np.array([[-10.0, -10, z], [10, -10, z], [0, 13, z]]),), (1, 2, 3))})
    (row,) = table = report.rows(case)
    assert row.colour == (1, 2, 3)
    (outlines,) = json.loads(zlib.decompress(base64.b64decode(scene(case, table).contours)))
    (k, steps) = outlines[0]
    assert k == 7
    assert np.diff(np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / 100, axis=0).tolist() == [[20.0, 0.0], [-10.0, 23.0]]


@pytest.mark.parametrize(("from_mm", "step_mm", "drawn"), [(0.0, 6.0, (5, 7, 9, 11)), (1.5, 3.0, ())])
def test_the_page_shows_a_contour_wherever_the_voxels_are(from_mm: float, step_mm: float, drawn: tuple[int, ...]) -> None:
    """Drawn on every second slice of 3 mm, as many clinics do, or between them: 10 x 10 mm on each slice that the volume counts."""
    case = make({})
    at = [100 + 5 * 3 + from_mm + n * step_mm for n in range(int(18 / step_mm) + 1)]
    squares = tuple(np.array([[-5.0, -5, z], [5, -5, z], [5, 5, z], [-5, 5, z]]) for z in at)
    case = case.with_contours({"GTV": Contours(squares)})
    (row,) = table = report.rows(case)
    held = np.flatnonzero(case.mask("GTV").array.any(axis=(1, 2))).tolist()
    assert len(held) == row.slices >= 6
    (outlines,) = json.loads(zlib.decompress(base64.b64decode(scene(case, table).contours)))
    assert sorted(k for k, _ in outlines) == held
    assert {k for k, steps in outlines if len(steps) == 8} >= set(drawn)


def test_where_there_are_both_the_mask_is_shown() -> None:
    """A mask that replaced what was drawn is what the table speaks of; the page must not show the older contour."""
    case = make({"GTV": BOXES["Parotid_L"]})
    case = case.with_contours({"GTV": Contours((np.array([[-10.0, -10, 121], [10, -10, 121], [0, 13, 121]]),))})
    (outlines,) = json.loads(zlib.decompress(base64.b64decode(scene(case, report.rows(case)).contours)))
    assert [k for k, _ in outlines] == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("axes", "letters"),
    [
        (np.eye(3)[::-1], {"k": "IS", "j": "AP", "i": "RL"}),
        (-np.eye(3)[::-1], {"k": "IS", "j": "AP", "i": "RL"}),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], {"k": "IS", "j": "AP", "i": "RL"}),
    ],
)
def test_letters_are_the_patients_however_the_grid_lies(axes: Any, letters: dict[str, str]) -> None:
    """Images are shown upright: whatever the axes of the file, the patient's right is on the left of the axial plane."""
    shape = (20, 40, 50) if np.abs(np.asarray(axes))[0, 2] else (40, 20, 50)
    words = scene(make({}, Geometry.regular(shape, (3, 2, 2), (0, 0, 0), axes)), []).words
    assert {name: words["letters"][f"{name}-"] + words["letters"][f"{name}+"] for name in "kji"} == letters


def test_oblique_slices_have_two_letters() -> None:
    c, s = np.cos(0.5), np.sin(0.5)
    words = scene(make({}, Geometry.regular((20, 40, 50), (3, 2, 2), (0, 0, 0), [[0, -s, c], [0, c, s], [1, 0, 0]])), []).words
    assert words["letters"]["k+"] == "SA"
    assert words["letters"]["j+"] == "PS"
    assert words["letters"]["i+"] == "L"
    assert words["along"] != "z"


def test_page_asks_nothing_of_the_network_and_escapes_names() -> None:
    case = make({HOSTILE: BOXES["Parotid_L"], "Parotid_R": BOXES["Parotid_R"]})
    table = report.rows(case)
    html = report.page(record_of(case, table), case, table)
    seen = _Tags()
    seen.feed(html)
    assert "img" not in seen.tags
    assert not seen.links
    assert not re.search(r"https?://", html)
    assert "default-src 'none'" in html
    assert json.loads(seen.scene)["structures"][0]["name"] == HOSTILE


def test_the_page_says_of_an_mr_what_is_true_of_an_mr() -> None:
    case = make({"GTV": BOXES["Parotid_L"]})
    case = Case("mr", {"mr": case.ct}, case.masks)
    table = report.rows(case)
    keys = report.page(record_of(case, table), case, table).partition('<p class="keys">')[2].partition("</p>")[0]
    assert "256 equal steps" in keys
    assert "HU" not in keys
    assert "<kbd>1</kbd>" not in keys


def test_a_very_tall_stack_stays_under_the_limit() -> None:
    """2000 slices, as uneven ones on a fine grid may be: every one is shown, in coarser pixels."""
    shown = Geometry.regular((2000, 512, 512), (0.5, 1, 1))
    shown = shown.resample(_spacing(shown))
    assert shown.shape[0] == 2000
    assert 29e6 < shown.size < 31e6
    assert Geometry.regular((134, 512, 512)).resample(_spacing(Geometry.regular((134, 512, 512)))).size < 14.2e6


def test_colours_are_different_and_bright_enough_for_a_dark_image() -> None:
    assert len(set(COLOURS)) == len(COLOURS)
    assert all(0.2126 * r + 0.7152 * g + 0.0722 * b > 90 for r, g, b in COLOURS)


def test_a_big_case_stays_under_the_limit() -> None:
    """512 x 512 x 134 voxels of noise, which nothing compresses worse than."""
    rng = np.random.default_rng(0)
    plane = rng.normal(0, 20, (512, 512)).astype(np.float32)
    grid = Geometry.regular((134, 512, 512), (3, 0.98, 0.98))
    ct = np.stack([np.roll(plane, k, axis=1) for k in range(134)])
    shown = scene(Case("big", {"ct": Volume(ct, grid)}), [])
    assert shown.words["shape"][0] == 134
    assert sum(len(block.text) for block in shown.blocks) < 15e6


# ---- in a real browser


def test_browser_shows_images_and_contours(tmp_path: Path) -> None:
    executable = browser()
    whole = head_neck(0, (6, 4, 4))
    case = whole.without_structures().with_masks({name: whole.masks[name] for name in ("Bone_Mandible", "SpinalCord")})
    table = report.rows(case)
    page = report.write(record_of(case, table), case, table, tmp_path / "report.html")
    options = [
        executable,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1500,1000",
        "--virtual-time-budget=5000",
    ]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    dom = subprocess.run([*options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=False).stdout
    assert 'data-ready="true"' in dom
    assert "data-error" not in dom
    assert re.search(r"slice \d+ of \d+ · z -?[\d.]+ mm · ≈ -?\d+ HU", dom)
    picture = tmp_path / "page.png"
    subprocess.run([*options, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=False)
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3).astype(int)
    for row in table:
        assert (np.abs(pixels - np.array(row.colour)).max(axis=1) < 12).sum() > 200, row.name


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.scene, self._in_scene = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in_scene = ("id", "scene") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_scene:
            self.scene += data

    def handle_endtag(self, tag: str) -> None:
        self._in_scene = False


def _unpack(text: str, count: int, shape: list[int]) -> np.ndarray[Any, Any]:
    """What viewer.js does with a block."""
    stored = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(count, *shape[1:]).astype(int)
    codes = np.zeros_like(stored)
    for k in range(count):
        for j in range(shape[1]):
            for i in range(shape[2]):
                left = codes[k, j, i - 1] if i else 0
                up = codes[k, j - 1, i] if j else 0
                codes[k, j, i] = (stored[k, j, i] + ((left + up) >> 1)) & 255
    return codes
