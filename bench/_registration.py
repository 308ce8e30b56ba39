"""The peers' side of bench/register.py, run by the Python of an environment that has them: images in, points and seconds out (JSON).

PYTHON bench/_registration.py plastimatch|elastix|greedy FOLDER

FOLDER holds fixed.mha, moving.mha (already shifted to where all begin), mask.mha (fixed voxels that count) and points.json (fixed points,
LPS mm). One thread. Seconds are CPU of the registration, with reading and writing where the peer is a program of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

os.environ.update(ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS="1", OMP_NUM_THREADS="1")  # read by itk when it is imported

PLASTIMATCH = """[GLOBAL]
fixed=fixed.mha
moving=moving.mha
fixed_roi=mask.mha
vf_out=field.mha
[STAGE]
xform=bspline
optim=lbfgsb
impl=plastimatch
metric=mse
max_its=50
grid_spac=30 30 30
res=4 4 2
threading=single
[STAGE]
max_its=50
grid_spac=15 15 15
res=2 2 1
"""


Clocks = tuple[float, float]


def clocks() -> Clocks:
    """CPU of this program and of those it started, and the time on the wall."""
    return sum(os.times()[:4]), time.perf_counter()


def since(before: Clocks) -> Clocks:
    cpu, wall = clocks()
    return cpu - before[0], wall - before[1]


def plastimatch(folder: Path) -> Clocks:
    """MSE on B-splines of 30 and then 15 mm."""
    (folder / "plastimatch.txt").write_text(PLASTIMATCH)
    program = str(Path(sys.executable).parent / "plastimatch")
    before = clocks()
    subprocess.run([program, "register", "plastimatch.txt"], cwd=folder, capture_output=True, check=True)
    return since(before)


def elastix(folder: Path) -> Clocks:
    """Normalised correlation on B-splines of at last 20 mm, 3 x 250 steps: of what was tried the quickest that reaches 1.6 mm."""
    import itk

    fixed, moving = (itk.imread(str(folder / f"{name}.mha"), itk.F) for name in ("fixed", "moving"))
    parameters = itk.ParameterObject.New()
    chosen = itk.ParameterObject.GetDefaultParameterMap("bspline", 3, 20.0)
    chosen["Registration"], chosen["Metric"] = ["MultiResolutionRegistration"], ["AdvancedNormalizedCorrelation"]
    chosen["MaximumNumberOfIterations"] = ["250"]
    parameters.AddParameterMap(chosen)
    mask = itk.imread(str(folder / "mask.mha"), itk.UC)
    register, field = itk.elastix_registration_method, itk.transformix_deformation_field  # loading them takes seconds
    before = clocks()
    _, found = register(fixed, moving, parameter_object=parameters, fixed_mask=mask, number_of_threads=1, log_to_console=False)
    told = since(before)
    itk.imwrite(field(moving, found), str(folder / "field.mha"))
    return told


def greedy(folder: Path) -> Clocks:
    """Local correlation, 60 and 40 steps."""
    from picsl_greedy import Greedy3D

    before = clocks()
    Greedy3D().execute(
        f"-i {folder}/fixed.mha {folder}/moving.mha -gm {folder}/mask.mha -m NCC 4x4x4 -n 60x40 -o {folder}/field.mha -threads 1",
        out=open(os.devnull, "w"),  # noqa: SIM115  # to the end of the program
    )
    return since(before)


def main() -> None:
    method, folder = sys.argv[1], Path(sys.argv[2])
    cpu, wall = {"plastimatch": plastimatch, "elastix": elastix, "greedy": greedy}[method](folder)
    peak = peak_mb()
    import itk

    field = itk.imread(str(folder / "field.mha"))
    u, origin, spacing = itk.array_from_image(field), np.asarray(field.GetOrigin()), np.asarray(field.GetSpacing())
    points = np.asarray(json.loads((folder / "points.json").read_text()))
    at = ((points - origin) / spacing)[:, ::-1]
    moved = points + np.stack([linear(u[..., c], at) for c in range(3)], axis=-1)
    slope = np.stack([np.stack(np.gradient(u[..., c].astype(float), *spacing[::-1]), axis=-1)[..., ::-1] for c in range(3)], axis=-2)
    inside = itk.array_from_image(itk.imread(str(folder / "mask.mha"))) > 0
    folded = 100 * float((np.linalg.det(slope + np.eye(3))[inside] <= 0).mean())
    package = {"plastimatch": "plastimatch", "elastix": "itk-elastix", "greedy": "picsl-greedy"}[method]
    told = {"version": version(package), "cpu": cpu, "wall": wall, "peak_mb": peak, "folded": folded, "points": moved.tolist()}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def linear(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear values at fractional voxels (n, 3)."""
    low = np.clip(np.floor(at).astype(int), 0, np.array(values.shape) - 2)
    part, out = at - low, np.zeros(len(at))
    for corner in np.ndindex(2, 2, 2):
        out += np.prod(np.where(corner, part, 1 - part), axis=1) * values[tuple((low + corner).T)]
    return out


def peak_mb() -> float:
    """Megabytes of this program or of the largest it started, whichever is more."""
    import resource

    with open("/proc/self/status") as status:
        mine = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    return max(mine, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
