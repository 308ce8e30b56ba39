"""Seven structures on a CT of 512 x 512 x 200 at 1 mm: RTSTRUCT to masks and masks to RTSTRUCT, beside rt-utils in the same run.

    python bench/rtstruct.py [--without-peer] [--repeat 3]

rt-utils is installed into a virtual environment of its own in a temporary folder. Its series reading is not counted, nor is ours.
Target on two cores, after the compiled loops are in their cache: 1 s each way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io.dicom.rtstruct import read_structure_set, write_rtstruct
from oncontour.io.dicom.series_write import write_series
from oncontour.phantom.shapes import Box, Cylinder, Ellipsoid, HollowSphere, Solid, Sphere, Straw, Torus
from oncontour.raster import fill

Result = TypeVar("Result")
GRID = Geometry.regular((200, 512, 512), origin_mm=(-255.5, -255.5, -99.5))
SOLIDS: dict[str, Solid] = {
    "sphere": Sphere((0, 0, 0), 40),
    "ellipsoid": Ellipsoid((-120, 40, 10), (60, 35, 50)),
    "cube": Box((120, 20, 0), (70, 70, 70)),
    "cylinder": Cylinder((0, -120, 0), 35, 120),
    "torus": Torus((0, 120, 0), 45, 15),
    "hollow": HollowSphere((130, -110, 0), 45, 25),
    "straw": Straw((-150, -100, 0), 3, 150),
}
PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
from rt_utils import RTStructBuilder
folder, theirs, masks, out = sys.argv[1:5]
start = time.perf_counter()
built = RTStructBuilder.create_from(dicom_series_path=folder, rt_struct_path=theirs)
loaded = time.perf_counter()
volumes = {name: int(built.get_roi_mask_by_name(name).sum()) for name in built.get_roi_names()}
read = time.perf_counter()
fresh = RTStructBuilder.create_new(dicom_series_path=folder)
arrays = np.load(masks)
before = time.perf_counter()
for name in arrays.files:
    fresh.add_roi(mask=arrays[name].transpose(1, 2, 0), name=name)
fresh.save(out)
print(json.dumps({"read": read - loaded, "load": loaded - start, "write": time.perf_counter() - before, "volumes": volumes}))
"""


def main() -> None:
    """Print seconds, ratios and volumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case, theirs = prepare(folder)
        read_s, read_cpu_s, masks = best(options.repeat, lambda: read_all(theirs, case))
        traced = case.with_masks(masks)
        write_s, write_cpu_s, _ = best(options.repeat, lambda: write_rtstruct(traced, folder / "ours.dcm"))
        print(f"oncontour  read {read_s:6.2f} s   write {write_s:6.2f} s   (target 1 s each)")
        print(f"  of these on a processor: read {read_cpu_s:.2f} s, write {write_cpu_s:.2f} s")
        for structure, mask in masks.items():
            print(f"  {structure:10s} volume {mask.volume_cc * 1000 / SOLIDS[structure].volume_mm3 - 1:+8.3%} of analytic")
        if not options.without_peer:
            compare(folder, theirs, masks, read_s, write_s)


def prepare(folder: Path) -> tuple[Case, Path]:
    """A CT series and an RTSTRUCT with the analytic sections of each solid."""
    ct = Volume(np.zeros(GRID.shape, np.int16), GRID)
    source = write_series(ct, folder / "ct")
    planes = GRID.points([(k, 0, 0) for k in range(GRID.shape[0])])[:, 2]
    drawn = Case("bench", {"ct": ct}, contours={name: solid.contours(planes) for name, solid in SOLIDS.items()}, source=source)
    return Case("bench", {"ct": ct}, source=source), write_rtstruct(drawn, folder / "analytic.dcm")


def read_all(path: Path, case: Case) -> dict[str, Volume]:
    """Every structure of an RTSTRUCT as a mask on the case's grid."""
    return {name: fill(contours, case.geometry) for name, contours in read_structure_set(path, source=case.source).contours.items()}


def best(repeat: int, function: Callable[[], Result]) -> tuple[float, float, Result]:
    """Seconds of the fastest of ``repeat`` runs after a first that fills the caches, its processor seconds, and what it gave."""
    result, seconds = function(), []
    for _ in range(repeat):
        start, busy = time.perf_counter(), time.process_time()
        result = function()
        seconds.append((time.perf_counter() - start, time.process_time() - busy))
    return *min(seconds), result


def compare(folder: Path, theirs: Path, masks: dict[str, Volume], read_s: float, write_s: float) -> None:
    """The same with rt-utils."""
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", "rt-utils", "setuptools"], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        print(f"rt-utils could not be installed: {installed.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return
    np.savez(folder / "masks.npz", **{name: mask.array for name, mask in masks.items()})
    arguments = [python, "-c", PEER, folder / "ct", theirs, folder / "masks.npz", folder / "peer.dcm"]
    ran = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        print(f"rt-utils failed: {ran.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return
    peer = json.loads(ran.stdout.strip().splitlines()[-1])
    print(f"rt-utils   read {peer['read']:6.2f} s   write {peer['write']:6.2f} s")
    print(f"ratio      read {peer['read'] / read_s:6.1f} x   write {peer['write'] / write_s:6.1f} x")
    for name, count in peer["volumes"].items():
        print(f"  {name:10s} volume {count / SOLIDS[name].volume_mm3 - 1:+8.3%} of analytic (rt-utils)")


if __name__ == "__main__":
    main()
