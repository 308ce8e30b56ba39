"""Adapting, whole: ``oncontour adapt`` of two CTs of 512 x 512 x 134 beside ``oncontour run`` of the second, in the same run.

    python bench/adapt.py [PATIENT] [--threads 1] [--times 1] [--keep FOLDER]

PATIENT is a validation patient of OpenKBP under $ONCONTOUR_DATA (else ../shared/data), by default pt_222: a visit is simulated of it, and
both CTs are brought to voxels of 1 x 1 x 3 mm with noise of their own, so that they weigh as much as what a scanner makes. Planning has its
RTSTRUCT and RTDOSE. Each command is a process of its own. Processor seconds tell more than those of the wall where others work too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _alone import ONE_THREAD

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
SHAPE, SPACING_MM = (134, 512, 512), (3.0, 1.0, 1.0)
MOST_TIMES, LIMIT_GB = 3.0, 2.0
NOISE_HU = 12.0
SHIFT_MM = (6.0, -4.0, 3.0)


@dataclass(frozen=True)
class Spent:
    """What a command took: seconds of the wall and of the processor, and the most memory it held."""

    wall_s: float
    busy_s: float
    peak_gb: float
    by_part: str

    def __str__(self) -> str:
        return f"{self.busy_s:.1f} s of processor, {self.wall_s:.1f} s wall, peak {self.peak_gb:.2f} GB; {self.by_part}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patient", nargs="?", default="pt_222")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="make the two visits here, or take those that are here")
    chosen = parser.parse_args()
    folder = DATA / "openkbp" / "validation"
    if not (folder / chosen.patient).exists():
        print(f"no patient {chosen.patient} of OpenKBP here: set ONCONTOUR_DATA")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        there = chosen.keep or Path(scratch)
        planning, daily = there / "planning", there / "daily"
        if not daily.exists():
            write_visits(folder, chosen.patient, planning, daily)
        for number in range(chosen.times):
            out = Path(scratch) / f"out-{number}"
            run = spent(
                ["run", str(daily), "--out", f"{out}-run", "--model", "hn-organs", "--threads", str(chosen.threads)], chosen.threads
            )
            adapted = spent(["adapt", str(planning), str(daily), "--out", f"{out}-adapt"], chosen.threads)
            times = adapted.busy_s / run.busy_s
            met = "met" if times <= MOST_TIMES and adapted.peak_gb <= LIMIT_GB else "MISSED"
            print(f"run of the daily CT: {run}\nadapt: {adapted}", flush=True)
            print(
                f"adapt takes {times:.2f} times the run's processor time; limits {MOST_TIMES:g} times and {LIMIT_GB:g} GB {met}", flush=True
            )
    return 0


def write_visits(cohort: Path, patient: str, planning: Path, daily: Path) -> None:
    """Both visits as DICOM in voxels of 1 x 1 x 3 mm; the daily one lies SHIFT_MM away."""
    from oncontour.adapt.simulate import Planning, VisitSettings
    from oncontour.io import write
    from oncontour.io.cohort import Cohort

    case = Cohort.open(cohort)[patient]
    visit = Planning(case).visit(1, VisitSettings(0.8))
    grid = case.geometry.resample(SPACING_MM)
    low = [(n - m) // 2 for n, m in zip(grid.shape, SHAPE, strict=True)]
    fine = grid.crop(low, [a + b for a, b in zip(low, SHAPE, strict=True)])
    rng = np.random.default_rng(0)
    masks = {name: case.mask(name).to(fine) for name in case.structures}
    dose = {"dose": case.images["dose"]} if "dose" in case.images else {}
    write(Case(patient, {"ct": noisy(case.ct.to(fine, fill=-1000), rng), **dose}, masks), planning, format="dicom")
    affine = fine.affine.copy()
    affine[:3, 3] += SHIFT_MM
    today = noisy(visit.case.ct.to(fine, fill=-1000), rng)
    write(Case(patient, {"ct": Volume(today.array, Geometry(fine.shape, affine))}), daily, format="dicom")


def noisy(ct: Volume, rng: np.random.Generator) -> Volume:
    noise = rng.standard_normal(ct.array.shape, dtype=np.float32) * np.float32(NOISE_HU)
    return ct.map(lambda hu: np.clip(np.rint(hu + noise), -1024, 3071).astype(np.int16))


def spent(words: list[str], threads: int) -> Spent:
    """What ``oncontour`` with these ``words`` takes. Raises SystemExit with its message where it fails."""
    numbers = dict.fromkeys(ONE_THREAD, str(threads))
    started = time.perf_counter()
    command = [sys.executable, "-m", "oncontour.cli", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **numbers})
    said = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"oncontour {words[0]} failed:\n{said[-2000:]}")
    record = json.loads((Path(words[words.index("--out") + 1]) / "report.json").read_text())
    by_part = ", ".join(f"{name} {value:.1f} s" for name, value in record["timings_s"].items())
    return Spent(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6, by_part)


if __name__ == "__main__":
    sys.exit(main())
