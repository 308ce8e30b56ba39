"""A hundred synthetic patients by 1 and 2 workers: throughput, memory a worker, models loaded, what the table costs, and the page.

    python bench/cohort.py [--patients 100] [--pages 1000]

Each demand is met or FAILED, which the exit status says too.

No peer does the same: TotalSegmentator and nnU-Net load their model again for each patient that is not in one call.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from oncontour.commands.cohort import OneByOne
from oncontour.commands.cohort_spread import spread
from oncontour.commands.cohort_table import Table
from oncontour.commands.cohort_work import Outcome
from oncontour.commands.run import run
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.io import write
from oncontour.learn.task import save_model
from oncontour.many import Many
from oncontour.phantom import head_neck
from oncontour.report.cohort import Line, page

ORGANS = ("Bone_Mandible", "Parotid_L", "Parotid_R")


MOST_OF_THE_TABLE, MOST_OF_THE_PAGE_S = 0.02, 1.0
"""Of a patient's time; until Chromium shows 1,000 lines."""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--patients", type=int, default=100)
    options.add_argument("--pages", type=int, default=1000)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        paths = patients(here / "people", asked.patients)
        model = drawer(here / "drawer.safetensors")
        ran = [worked(paths, model, here / f"out-{jobs}", jobs) for jobs in (1, 2)]
        a_patient_s, each_s = min(median_s for median_s, _ in ran), table(here / "table", 1000)
    part = each_s / a_patient_s
    print(
        f"table: {1000 * each_s:.2f} ms a patient (claim, look, outcome on disk), {100 * part:.2f} % of a patient's time, "
        f"at most {100 * MOST_OF_THE_TABLE:.0f} %: {verdict(part <= MOST_OF_THE_TABLE)}"
    )
    shown_s = html(asked.pages)
    met = [*(well for _, well in ran), part <= MOST_OF_THE_TABLE, shown_s is None or shown_s < MOST_OF_THE_PAGE_S]
    sys.exit(not all(met))


def verdict(well: bool) -> str:
    return "met" if well else "FAILED"


def patients(folder: Path, count: int) -> dict[str, Path]:
    for n in range(count):
        write(head_neck(n, (6, 5, 5), 1.0, (24, 40, 40)).without_structures(), folder / f"p{n:03d}", format="nifti")
    return {one.name: one for one in sorted(folder.iterdir())}


def drawer(path: Path) -> Path:
    """A model that was never trained: it draws whatever it draws, in the time that a small one takes."""
    torch.manual_seed(0)
    options = {"widths": (8, 16, 32)}
    save_model(ContourTask(ContourSettings(ORGANS, net="unet3d", net_options=options, spacing_mm=(6, 5, 5), window=(16, 24, 24))), path)
    return path


def worked(paths: dict[str, Path], model: Path, out: Path, jobs: int) -> tuple[float, bool]:
    """Contour all of them; gives seconds of a worker for one patient, and whether all are done and each worker loaded its model once."""
    settings = {"model": [str(model)], "any_region": True, "assess": False, "threads": 1}
    work = OneByOne(run, settings, {"ct_folder": paths}, {id: out / id for id in paths}, "report.json", "")
    began = time.perf_counter()
    became = spread(work, tuple(paths), Many(jobs=jobs), Table(out))
    wall_s = time.perf_counter() - began
    found = became.outcomes.values()
    workers = {one.worker for one in found}
    memory = max(one.memory_mb for one in found)
    median_s = sorted(one.seconds for one in found)[len(paths) // 2]
    loads = sum(one.loaded for one in found)
    well = len(became.done) == len(paths) and loads == len(workers)
    print(
        f"{len(became.done)} of {len(paths)} patients by {len(workers)} worker{'s' * (jobs > 1)}: {wall_s:.1f} s, "
        f"{60 * len(paths) / wall_s:.0f} a minute, median {median_s:.2f} s each; {memory:.0f} MB a worker; "
        f"{loads} models loaded: {verdict(well)}"
    )
    return median_s, well


def table(folder: Path, count: int) -> float:
    """Seconds that the table takes for a patient, claim to outcome."""
    one = Table(folder)
    ids = [f"p{n}" for n in range(count)]
    began = time.perf_counter()
    with one.at_work():
        for id in ids:
            one.claim(id)
            one.found(id)
            one.finish(Outcome(id, made_of="x" * 64))
    spent = time.perf_counter() - began
    shutil.rmtree(folder)
    return spent / count


def html(count: int) -> float | None:
    """A page of made-up patients; gives how many seconds Chromium takes to show it, None where there is none."""
    lines = made_up(count)
    began = time.perf_counter()
    text = page("run", lines)
    made_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.html"
        path.write_text(text, encoding="utf-8")
        shown_s = opened(path)
    shown = "no Chromium here" if shown_s is None else f"shown after {shown_s:.2f} s, below {MOST_OF_THE_PAGE_S:g} s: "
    shown += "" if shown_s is None else verdict(shown_s < MOST_OF_THE_PAGE_S)
    print(f"page of {count} lines: made in {made_s:.2f} s, {len(text) / 1e6:.2f} MB; {shown}")
    return shown_s


def made_up(count: int) -> list[Line]:
    """Patients of two years and three scanners, the last of which came late and is less sure."""
    out = []
    for n in range(count):
        month = 24 * n // count
        scanner = ("SIEMENS Biograph40 B30f", "Philips Big Bore B")[n % 2] if month < 19 or n % 3 else "GE Revolution STANDARD"
        sure = 0.86 + 0.03 * ((7 * n) % 11 - 5) / 5 - 0.08 * scanner.startswith("GE")
        harm = None if n % 97 == 0 else 40 * (1 - sure) * (1 + (13 * n) % 7 / 3)
        out.append(
            Line(
                f"patient-{n:04d}",
                f"patient-{n:04d}/report.html",
                harm,
                None if harm is None else harm / 9,
                "" if harm is None else f"{ORGANS[n % 3]}, slice {20 + n % 60}",
                None if harm is None else sure,
                0 if harm is None else 8,
                8,
                int(n % 5 == 0),
                n % 4,
                n % 3,
                f"{2025 + month // 12}-{month % 12 + 1:02d}",
                scanner,
                30 + n % 17,
                "no CT is here, only contours" if n % 211 == 5 else "",
                judged=True,
                by_structure={} if harm is None else {name: sure - 0.03 * k for k, name in enumerate(ORGANS)},
            )
        )
    return out


def opened(path: Path) -> float | None:
    """Seconds until Chromium has laid the page out; None where it or Playwright is not installed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return None
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.goto(path.as_uri())
        spent_ms = tab.evaluate("() => performance.getEntriesByType('navigation')[0].loadEventEnd")
        browser.close()
    return float(spent_ms) / 1000


if __name__ == "__main__":
    main()
