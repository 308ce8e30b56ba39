"""Photograph a review page for docs/review.md, as a headless Chromium shows it: every control once.

python docs/write_review.py REPORT.html

REPORT.html is the page of `oncontour demo --source mean`: no real patient's picture is kept here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

HERE = Path(__file__).parent
SIZE = {"width": 1500, "height": 1000}
VIEWER, DOSE, SHEET = ".viewer", "#dose", ".sheet + .sheet"


def main(report: Path) -> int:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        for name, (prepare, what) in SHOTS.items():
            page = browser.new_context(viewport=SIZE, offline=True).new_page()
            page.set_default_timeout(300_000)
            page.goto(report.resolve().as_uri())
            page.wait_for_selector("body[data-ready=true]", state="attached")
            prepare(page)
            page.wait_for_timeout(1000)
            picture = HERE / f"{name}.jpg"
            (page.locator(what).first if what else page).screenshot(path=picture, type="jpeg", quality=72)
            page.context.close()
            sys.stdout.write(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB\n")
        browser.close()
    return 0


def errors(page: Page) -> None:
    page.keyboard.press("e")


def compared(page: Page) -> None:
    """One structure alone, where it and the truth part, and close by."""
    page.keyboard.press("s")
    page.keyboard.press("d")
    page.evaluate("() => { for (let n = 0; n < 5; n++) zoomInHand(1.2); }")


def isodoses(page: Page) -> None:
    page.keyboard.press("i")
    page.keyboard.press("w")


def volumes(page: Page) -> None:
    """The DVH read at half of the greatest dose."""
    page.evaluate("() => { const at = $('dvh-gy'); at.value = at.max / 2; at.dispatchEvent(new Event('input', { bubbles: true })); }")


def measured(page: Page) -> None:
    """A ruler across the slice, an angle on it, and the structures in 3D."""
    box = page.locator("#axial").bounding_box()
    assert box
    x, y = (lambda part: box["x"] + part * box["width"]), (lambda part: box["y"] + part * box["height"])
    page.keyboard.press("m")
    page.mouse.move(x(0.32), y(0.62))
    page.mouse.down()
    page.mouse.move(x(0.5), y(0.62))
    page.mouse.move(x(0.68), y(0.62))
    page.mouse.up()
    page.keyboard.press("a")
    for place in ((0.42, 0.42), (0.5, 0.25), (0.6, 0.4)):
        page.mouse.click(x(place[0]), y(place[1]))
    page.keyboard.press("g")
    page.keyboard.press("t")


def verdict(page: Page) -> None:
    page.click("button[data-verdict=edited]")
    page.fill("#verdict-comment", "cranial end moved by two slices")
    page.keyboard.press("Tab")


def signed(page: Page) -> None:
    """The second of the two sheets, at the size of a page."""
    verdict(page)
    page.pdf(format="A4")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})


SHOTS: dict[str, tuple[Callable[[Page], None], str]] = {
    "review": (errors, ""),
    "review-compared": (compared, VIEWER),
    "review-dose": (isodoses, VIEWER),
    "review-dvh": (volumes, DOSE),
    "review-measured": (measured, VIEWER),
    "review-verdict": (verdict, VIEWER),
    "review-printed": (signed, SHEET),
}
"""Picture -> what a person does, and the part of the page that is photographed (all of it where none is named)."""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
