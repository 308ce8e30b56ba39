"""The main job, whole: ``oncontour run`` on a real 512 x 512 x 134 CT, wall time and peak memory of the process.

    python bench/run.py [CT_FOLDER] [--model hn-organs] [--threads 2] [--times 2]

Each run is a process of its own, from start to exit code, as at a clinic; the first may compile loops that later ones find on disk.
The CT is LUNG1-001 under $ONCONTOUR_DATA (else ../shared/data), a thorax: --any_region lets a model for heads and necks draw there, which
costs what it costs elsewhere and means nothing. Where the named model is not shipped, an untrained one of its kind
takes its place: the net costs the same, but contours that are noise cost everything after it far more. Times by part are those of
``report.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
LIMIT_S, LIMIT_GB = 20.0, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ct", type=Path, nargs="?", default=DATA / "dicom" / "LUNG1-001")
    parser.add_argument("--model", default="hn-organs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=int, default=2)
    chosen = parser.parse_args()
    if not chosen.ct.exists():
        print(f"no CT at {chosen.ct.name}: give its folder, or set ONCONTOUR_DATA")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        model = find_or_make(chosen.model, Path(scratch))
        for number in range(chosen.times):
            print(f"run {number + 1}: {once(chosen.ct, Path(scratch) / f'out-{number}', model, chosen.threads)}", flush=True)
    return 0


def once(ct: Path, out: Path, model: str, threads: int) -> str:
    """Wall and processor seconds, peak memory and seconds by part of one run. Raises SystemExit with its message where it fails."""
    command = [sys.executable, "-m", "oncontour.cli", "run", str(ct), "--out", str(out), "--model", model]
    command += ["--any_region", "--threads", str(threads)]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    wall_s, busy_s, peak_gb = time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"the run failed:\n{said[-2000:]}")
    record = json.loads((out / "report.json").read_text())
    grid = " x ".join(map(str, record["input"]["shape"]))
    met = "met" if wall_s <= LIMIT_S and peak_gb <= LIMIT_GB else "MISSED"
    limits = f"limits {LIMIT_S:.0f} s and {LIMIT_GB:.0f} GB {met}"
    by_part = ", ".join(f"{name} {value:.1f} s" for name, value in record["timings_s"].items())
    return f"{grid}, {wall_s:.1f} s wall ({busy_s:.1f} s of processor), peak {peak_gb:.2f} GB; {limits}; {by_part}"


def find_or_make(name: str, scratch: Path) -> str:
    """``name`` where it is a shipped model or a file, else the path of an untrained one."""
    from oncontour.errors import ModelError
    from oncontour.learn.card import find

    try:
        return str(find(name))
    except ModelError:
        print(f"no model {name!r} here: an untrained net stands in for it")
    from oncontour.contour.inputs import ContourSettings
    from oncontour.contour.task import ContourTask
    from oncontour.learn.task import save_model

    organs = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible")
    save_model(ContourTask(ContourSettings(organs)), scratch / "untrained.safetensors")
    return str(scratch / "untrained.safetensors")


if __name__ == "__main__":
    sys.exit(main())
