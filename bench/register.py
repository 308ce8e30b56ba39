"""Deformable registration of a real pair of lung CTs: landmarks' error, folding, time and memory, beside programs that others made.

    python bench/register.py [--peers PYTHON]

The pair is a baseline and a follow-up CT with lung masks and 51 landmarks at $ONCONTOUR_DATA (else ../shared/data). plastimatch, elastix
and greedy are no dependencies; they are measured where PYTHON (else $ONCONTOUR_REGISTRATION, else this Python) has them; they
come with the extra "bench".
Each has a process and one thread of its own. All begin at the shift between the middles of the lung masks, and are told the fixed mask with
5 mm around. CPU is that of the registration, without starting Python. Landmark 20 (from 0) is dubious (every method is 14 mm off there):
errors are given with and without.
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

import numpy as np
from _alone import ONE_THREAD
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io.image.nifti import read_image, write_image

PEERS = ("plastimatch", "elastix", "greedy")
DUBIOUS = 20


def pair(data: Path) -> tuple[dict[str, Volume], np.ndarray, np.ndarray]:
    """Images and masks, and the landmarks of the fixed and of the moving image (LPS mm)."""
    folder = data / "lung-ct-pair"
    images = {name: read_image(folder / f"3DCT_lung_{name}.mha") for name in ("baseline", "followup")}
    masks = {f"{name}_mask": read_image(folder / f"3DCT_lung_{name}_mask.mha").map(lambda a: a > 0) for name in images}
    points = [np.loadtxt(folder / f"CT_3D_lung_{side}_point_set_corrected.txt", skiprows=2) for side in ("fixed", "moving")]
    return images | masks, points[0], points[1]


def mine(data: Path) -> dict[str, object]:
    """Our side in a process of its own."""
    from oncontour.adapt.register import Visit, register

    images, points, _ = pair(data)
    before = time.process_time(), time.perf_counter()
    found = register(
        Visit(images["baseline"], "baseline", region=images["baseline_mask"]),
        Visit(images["followup"], "follow-up", region=images["followup_mask"]),
    )
    cpu, wall = time.process_time() - before[0], time.perf_counter() - before[1]
    if found.problems:
        print("; ".join(found.problems), file=sys.stderr)
    moved = found.deformation.to_moving(points).tolist()
    return {"cpu": cpu, "wall": wall, "peak_mb": peak_mb(), "folded": found.folding_percent, "points": moved, "version": ""}


def peak_mb() -> float:
    """Of this program alone: the kernel's ru_maxrss begins at what the process was forked from."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def as_peers_want(folder: Path, images: dict[str, Volume], points: np.ndarray) -> np.ndarray:
    """Write what the peers read; gives the shift (LPS mm) by which the moving image was brought to where all begin."""
    middle = [m.geometry.points(np.argwhere(m.array).mean(axis=0)) for m in (images["baseline_mask"], images["followup_mask"])]
    shift, moving, mask = middle[1] - middle[0], images["followup"], images["baseline_mask"]
    affine = moving.geometry.affine.copy()
    affine[:3, 3] -= shift
    near = ndimage.distance_transform_edt(~mask.array, sampling=mask.geometry.spacing_mm) <= 5
    write_image(images["baseline"], folder / "fixed.mha")
    write_image(Volume(moving.array, Geometry(moving.geometry.shape, affine)), folder / "moving.mha")
    write_image(Volume(near.astype(np.uint8), mask.geometry), folder / "mask.mha")
    (folder / "points.json").write_text(json.dumps(points.tolist()))
    return shift


def told(command: list[str], folder: Path) -> dict[str, object]:
    """What a process says, run in ``folder``: elastix leaves a field where it stands."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:3])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def line(name: str, moved: np.ndarray, truth: np.ndarray, figures: str) -> None:
    error = np.linalg.norm(moved - truth, axis=1)
    rest = np.delete(error, DUBIOUS)
    with_it, without = (f"{e.mean():6.2f} {np.median(e):6.2f} {np.percentile(e, 95):6.2f}" for e in (error, rest))
    print(f"{name:<20} {with_it}   {without}   {figures}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=os.environ.get("ONCONTOUR_REGISTRATION", sys.executable), metavar="PYTHON")
    parser.add_argument("--mine", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    python = str(Path(given.peers).absolute())
    data = Path(os.environ.get("ONCONTOUR_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if given.mine:
        print(json.dumps(mine(data)))
        return 0
    if not (data / "lung-ct-pair").is_dir():
        print("not measured, no data folder")
        return 0
    images, fixed, moving = pair(data)
    print("landmarks' error in mm  mean median    p95   the same without #20   folded %   CPU s   wall s   peak MB")
    line("as they lie", fixed, moving, "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shift = as_peers_want(folder, images, fixed)
        line("middles of the masks", fixed + shift, moving, "")
        ours = told([sys.executable, str(Path(__file__).resolve()), "--mine"], folder)
        line("ours", np.asarray(ours["points"]), moving, figures(ours))
        for peer in PEERS:
            package = {"plastimatch": "plastimatch", "elastix": "itk", "greedy": "picsl_greedy"}[peer]
            if subprocess.run([python, "-c", f"import itk, {package}"], capture_output=True, check=False).returncode:
                print(f"{peer} is not installed here: not measured (see the head of this file)")
                continue
            theirs = told([python, str(Path(__file__).resolve().with_name("_registration.py")), peer, str(folder)], folder)
            line(f"{peer} {theirs['version']}", np.asarray(theirs["points"]) + shift, moving, figures(theirs))
    return 0


def figures(one: dict[str, object]) -> str:
    return f"{one['folded']:8.4f} {one['cpu']:9.1f} {one['wall']:8.1f} {one['peak_mb']:9.0f}"


if __name__ == "__main__":
    sys.exit(main())
