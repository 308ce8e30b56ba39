"""The review of a 512 x 512 x 134 CT with eight structures, scored slice by slice: how large the page is, how long it takes to write, and
how soon a headless Chromium shows its first slice; without a dose, and with dose, DVHs, goals and a truth beside every contour. Then the
rule checks: seconds on that CT, and how often they cry wolf.

    python bench/review.py

The CT is LUNG1-001 under $ONCONTOUR_DATA (else ../shared/data), else noise, which nothing compresses worse than. The scores are made up;
the picture costs the same. The dose is made up too, as LUNG1-001 has none: 60 Gy about the first structure on voxels of 2.5 mm, falling off
over some centimetres, with the noise of a Monte Carlo plan (1 % of 60 Gy in each voxel). False alarms are counted on the clinical contours
of OpenKBP's 33 validation patients, by structure and check: every finding counts as one, although some are plain errors of those contours
(a spinal cord of 543 cc).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from oncontour import report
from oncontour.commands.dvh import record as plan_record
from oncontour.commands.run_dose import beside, draw, goals_of, look_at_dose
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io import read
from oncontour.io.cohort import Cohort
from oncontour.phantom import Sphere
from oncontour.quality import score as scoring
from oncontour.quality.rules import findings

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
LIMIT_MB, LIMIT_S = 15.0, 1.0
GOALS = ROOT / "examples" / "goals-head-neck.yaml"
PRESCRIBED_GY, NOISE, FALL_MM = 60.0, 0.01, 40.0
TURN = "() => { const t = performance.now(); for (let n = 0; n < 10; n++) planes.forEach(drawPlane); return (performance.now() - t) / 10; }"
"""Milliseconds to draw the three planes once."""


def main() -> int:
    case = scored(patient())
    started = time.perf_counter()
    found = findings(case)
    print(f"rule checks of {len(found)} structures on {case.geometry}: {time.perf_counter() - started:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        started = time.perf_counter()
        table = report.rows(case)
        report.write(record(case, table), case, table, path)
        small = told("page without dose", path, started)
        case, truth = with_dose(case), moved(case)
        started = time.perf_counter()
        dosed = look_at_dose(case, case, goals=goals_of(GOALS))
        assert dosed.plan is not None, dosed.why
        table = report.rows(case, truth=truth)
        held = {**record(case, table), "dose": plan_record(dosed.plan)}
        report.write(held, case, table, path, draw(dosed, []), beside=beside(dosed, case, truth, []))
        small &= told("page with dose, DVHs, goals and truth", path, started)
    false_alarms()
    return int(not small)


def told(what: str, path: Path, started: float) -> bool:
    """Print what a page weighs and when its first slice stands; whether it is small enough."""
    size, seconds = path.stat().st_size / 1e6, time.perf_counter() - started
    print(f"{what}: {size:.1f} MB (limit {LIMIT_MB:.0f} {'met' if size <= LIMIT_MB else 'MISSED'}), {seconds:.1f} s")
    print(first_slice(path))
    return size <= LIMIT_MB


def with_dose(case: Case) -> Case:
    mask = case.mask(case.structures[0])
    middle = case.geometry.points(np.argwhere(mask.array)).mean(axis=0)
    grid = case.geometry.resample((2.5, 2.5, 2.5))
    away = np.linalg.norm(grid.points(np.indices(grid.shape).reshape(3, -1).T) - middle, axis=1).reshape(grid.shape)
    gy = PRESCRIBED_GY * np.exp(-np.square(np.maximum(away - FALL_MM, 0) / (2 * FALL_MM)))
    gy += np.random.default_rng(1).normal(0, NOISE * PRESCRIBED_GY, gy.shape) * (gy > 0.1)
    return case.with_images({**case.images, "dose": Volume(np.maximum(gy, 0).astype(np.float32), grid)})


def moved(case: Case) -> Case:
    """Every structure two pixels aside: the truth that is drawn beside it."""
    masks = {name: Volume(np.roll(case.mask(name).array, 2, axis=2), case.geometry) for name in case.structures}
    return case.without_structures().with_masks(masks)


def patient() -> Case:
    """A CT of 512 x 512 x 134 with eight structures: those it came with, and balls."""
    folder = DATA / "dicom" / "LUNG1-001"
    if folder.exists():
        case = read(folder)
    else:
        grid = Geometry.regular((134, 512, 512), (3, 0.98, 0.98))
        noise = np.random.default_rng(0).normal(0, 60, (512, 512))
        case = Case("noise", {"ct": Volume(np.stack([np.roll(noise, k, 1) for k in range(134)]).astype(np.int16), grid)})
    masks = {name: case.mask(name) for name in case.structures}
    middle = case.geometry.centre_mm
    for n in range(8 - len(masks)):
        ball = Sphere((float(middle[0]) + 30 * n - 45, float(middle[1]), float(middle[2])), 30.0)
        masks[f"Ball_{n + 1}"] = ball.mask(case.geometry)
    return Case(case.id, dict(case.images), masks)


def scored(case: Case) -> Case:
    rng = np.random.default_rng(0)
    found = findings(case)
    said = scoring.unscored(case, found, "")
    structures, maps = {}, {}
    for name, told in said.structures.items():
        rows = []
        for row in told.slices:
            dsc = float(1 - rng.beta(2, 12))
            quality = "good" if dsc >= 0.95 else "medium" if dsc >= 0.8 else "bad"
            rows.append(replace(row, dsc=dsc, lower=max(0.0, dsc - 0.1), quality=quality))
        structures[name] = replace(told, scored=True, why=None, slices=tuple(rows))
        maps[name] = Volume((rng.random(case.geometry.shape) ** 8 * 255 * case.mask(name).array).astype(np.uint8), case.geometry)
    told = replace(said, structures=structures, model="made up", sha256="0" * 64, coverage=0.9, error_maps=maps)
    return replace(case, assessment=told)


def record(case: Case, table: list[report.Row]) -> dict[str, object]:
    grid = case.geometry
    seen = {"modality": "CT", "shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm), "voxels_sha256": "", "notes": []}
    return {
        **{"case": "bench", "created": "2026-01-01T00:00", "input": seen, "models": [], "settings": {}, "tidy": [], "warnings": []},
        **{"structures": [row.as_dict() for row in table], "timings_s": {"total": 0.0}, "peak_memory_mb": 0.0, "files": {}},
        "versions": {"oncontour": ""},
    }


def first_slice(path: Path) -> str:
    """Milliseconds from opening the file to the first slice drawn, and to all unpacked: the median of five."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        return "no Chromium here: the first slice was not timed"
    from playwright.sync_api import sync_playwright

    first, whole, turns = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            page.set_default_timeout(300_000)
            page.goto(path.as_uri())
            page.wait_for_selector("body[data-ready=true]", state="attached")
            first.append(page.evaluate("() => performance.getEntriesByName('first slice')[0].startTime"))
            whole.append(page.evaluate("() => performance.getEntriesByName('all slices')[0].startTime"))
            turns.append(page.evaluate(TURN))
            page.close()
        browser.close()
    seconds = statistics.median(first) / 1000
    met = "met" if seconds <= LIMIT_S else "MISSED"
    later = f"all after {statistics.median(whole) / 1000:.2f} s; another slice in {statistics.median(turns):.0f} ms"
    return f"first slice after {seconds:.2f} s (limit {LIMIT_S:.0f} {met}), {later}; load {os.getloadavg()[0]:.1f}"


def false_alarms() -> None:
    folder = DATA / "openkbp" / "validation"
    if not folder.exists():
        print("no OpenKBP patients here: false alarms were not counted")
        return
    structures: Counter[str] = Counter()
    told: Counter[tuple[str, str]] = Counter()
    any_told: Counter[str] = Counter()
    seconds = []
    for case in (Cohort.open(folder)[id] for id in Cohort.open(folder)):
        started = time.perf_counter()
        for name, found in findings(case).items():
            structures[name] += 1
            any_told[name] += bool(found)
            told.update({(name, one.code) for one in found})
        seconds.append(time.perf_counter() - started)
    organs = [name for name in structures if not name.startswith("PTV")]
    number = sum(structures[name] for name in organs)
    share = 100 * sum(any_told[name] for name in organs) / number
    print(f"clinical contours of OpenKBP: a finding in {share:.1f} % of {number} organs; {statistics.median(seconds):.2f} s a patient")
    for name in sorted(structures):
        rates = ", ".join(f"{code} {n} ({100 * n / structures[name]:.0f} %)" for (one, code), n in sorted(told.items()) if one == name)
        print(f"  {name:<14}{structures[name]:>3}  {rates or '-'}")


if __name__ == "__main__":
    sys.exit(main())
