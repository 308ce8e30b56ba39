"""The whole of ``oncontour run`` on one CT: seconds by step, and peak memory, from the report it writes.

python bench/run.py [CT_FOLDER] [MODEL]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATA = Path(os.environ.get("ONCONTOUR_DATA") or Path(__file__).parents[2] / "shared" / "data")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "dicom" / "LUNG1-001"
    model = sys.argv[2] if len(sys.argv) > 2 else "hn-organs"
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        command = [sys.executable, "-m", "oncontour.cli", "run", str(folder), "--out", str(out), "--model", model]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        record = json.loads((out / "report.json").read_text())
    grid = " x ".join(map(str, record["input"]["shape"]))
    print(f"{folder.name}: {grid} voxels, {len(record['structures'])} structures, model {model}, {os.cpu_count()} cores")
    for step, seconds in record["timings_s"].items():
        print(f"  {step:<10}{seconds:>8.1f} s")
    print(f"  {'process':<10}{wall:>8.1f} s   (goal: 20 s)")
    print(f"  {'memory':<10}{record['peak_memory_mb']:>8.0f} MB  (goal: 2000 MB)")


if __name__ == "__main__":
    main()
