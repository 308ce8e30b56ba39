"""``oncontour synthesize`` on a real 512 x 512 x 134 CT beside ``oncontour run`` of it: wall and processor time, peak memory.

    python bench/synthesize.py [CT_FOLDER] [--model FILE] [--contour hn-organs] [--threads 2] [--upsample pre]

Each is a process of its own, from start to exit code, one after the other. The CT is LUNG1-001 under $ONCONTOUR_DATA (else ../shared/data),
a thorax: --any_region lets both models work there, which costs what it costs elsewhere and means nothing; no segmenter is shipped for a
thorax, so that no drift is measured. With --upsample an untrained model of mode fair at the settings of examples/limb-t1.yaml stands in for
the shipped one, to tell what another way up costs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
TIMES_RUN, LIMIT_GB = 2.0, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path, nargs="?", default=DATA / "dicom" / "LUNG1-001")
    parser.add_argument("--model", default="limb-t1")
    parser.add_argument("--contour", default="hn-organs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--upsample", help="of an untrained model in place of --model")
    given = parser.parse_args()
    if not given.ct.exists():
        print(f"no CT at {given.ct.name}: give its folder, or set ONCONTOUR_DATA")
        return 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = untrained(scratch, given.upsample) if given.upsample else given.model
        common = [str(given.ct), "--any_region", "--threads", str(given.threads)]
        run = once(["run", *common, "--model", given.contour, "--out", str(scratch / "run")])
        made = once(["synthesize", *common, "--model", str(model), "--out", str(scratch / "made")])
    for what, (wall, busy, peak) in (("run", run), ("synthesize", made)):
        print(f"{what}: {wall:.1f} s wall, {busy:.1f} s of processor, peak {peak:.2f} GB")
    met = made[0] <= TIMES_RUN * run[0] and made[2] <= LIMIT_GB
    print(
        f"synthesize takes {made[0] / run[0]:.2f} times as long as run ({made[1] / run[1]:.2f} of processor); "
        f"limits {TIMES_RUN:g} times and {LIMIT_GB:g} GB {'met' if met else 'MISSED'}"
    )
    return 0


def once(command: list[str]) -> tuple[float, float, float]:
    """(wall s, processor s, peak GB). Raises SystemExit with what was said where it fails."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "oncontour.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command[0]} failed:\n{said[-2000:]}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def untrained(scratch: Path, upsample: Any) -> Path:
    """A model of mode fair that answers as the textbook does, for limbs."""
    import torch

    from oncontour.learn.task import save_model
    from oncontour.synthesize.inputs import SynthesizeSettings
    from oncontour.synthesize.task import SynthesizeTask

    torch.manual_seed(0)
    task = SynthesizeTask(SynthesizeSettings(upsample=upsample, spacing_mm=(3.27, 1.5, 1.5), correct_bias=False))
    task.start_afresh()
    path = scratch / "untrained.safetensors"
    save_model(task, path, replace(task.card(), name="untrained", region="limb"))
    return path


if __name__ == "__main__":
    sys.exit(main())
