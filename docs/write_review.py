"""Photograph a review page for docs/review.md, as a headless Chromium shows it.

python docs/write_review.py REPORT.html
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PICTURE = Path(__file__).with_name("review.jpg")
SIZE = {"width": 1500, "height": 1000}


def main(page: Path) -> int:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_context(viewport=SIZE, offline=True).new_page()
        opened.set_default_timeout(300_000)
        opened.goto(page.resolve().as_uri())
        opened.wait_for_selector("body[data-ready=true]", state="attached")
        if opened.locator("#errors").count():
            opened.keyboard.press("e")
        opened.wait_for_timeout(1000)
        opened.screenshot(path=PICTURE, type="jpeg", quality=82)
        browser.close()
    sys.stdout.write(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
