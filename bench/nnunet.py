"""The whole round trip with the real nnU-Net: ``convert --to nnunet``, nnU-Net plans and trains, ``models add``, ``run``, ``evaluate``.

    ONCONTOUR_NNUNET=PYTHON python bench/nnunet.py

PYTHON is that of an environment with nnunetv2 (2.8). Phantoms of at most 64 voxels a side, whose two balls of one HU are told apart by the
side of a plate alone, so that a swapped axis swaps them; stored head first and supine, prone, and upside down. nnU-Net's own planner and
trainer, made small (bench/_nnunet.py), overfit them in 2D, in 3D and with the residual encoder. Printed for each: the least DSC over
patients and classes of our contours against nnU-Net's own predictor, and what part of the image each class takes in nnU-Net's output.
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

from oncontour.cli import main as oncontour
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io import write
from oncontour.io.image.nifti import read_image, write_image

DATASET = "Dataset901_Phantom"
MODELS = [["nnUNetPlans", ["2d", "3d_fullres"]], ["nnUNetResEncUNetPlans", ["3d_fullres"]]]
LEAST_DSC, LEAST_PART = 0.99, 0.01
LIES = (((0, 0, 1), (0, 1, 0), (1, 0, 0)), ((0, 0, 1), (0, -1, 0), (-1, 0, 0)), ((0, 0, -1), (0, 1, 0), (1, 0, 0)))
"""Where k, j, i run to (LPS) in the files of one patient after the other."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnunet", default=os.environ.get("ONCONTOUR_NNUNET", ""), metavar="PYTHON")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave everything there")
    chosen = parser.parse_args()
    if not chosen.nnunet:
        print("nnU-Net is not installed here: not measured (an environment of its own, and --nnunet PYTHON)")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return round_trip((chosen.keep or Path(scratch)).resolve(), chosen.nnunet, chosen.steps, chosen.epochs)


def round_trip(base: Path, python: str, steps: int, epochs: int) -> int:
    """Every step, a line each; 1 where a figure misses its limit."""
    for n in range(6):
        write(phantom(n), base / "cohort" / f"phantom-{n}", format="nifti")
    for n in range(6, 9):
        case = phantom(n)
        write(case, base / "new-cohort" / f"phantom-{n}", format="nifti")
        write_image(case.ct, base / "new" / f"phantom-{n}_0000.nii.gz")
    told("convert", str(base / "cohort"), str(base / "raw" / DATASET), "--to", "nnunet")
    made = train(base, python, {"dataset": 901, "models": MODELS, "steps": steps, "epochs": epochs})
    print(f"nnU-Net {made['version']} planned, trained and predicted in {made['seconds']:.0f} s")
    return max(compared(base, row) for row in made["models"])


def train(base: Path, python: str, asked: dict[str, object]) -> dict[str, object]:
    here = Path(__file__).resolve().parent
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, str(here / "_nnunet.py"), str(base), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"nnU-Net failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compared(base: Path, row: dict[str, object]) -> int:
    """``models add``, ``run`` and ``evaluate`` of one model; its line."""
    key, drawn = str(row["key"]), Path(str(row["drawn"]))
    name = key.lower()
    told("models", "add", str(row["archive"]), "--to", str(base / "models"), "--name", name)
    names = [label for label in json.loads((drawn / "dataset.json").read_text())["labels"] if label != "background"]
    least, parts, seconds = 1.0, dict.fromkeys(names, 1.0), 0.0
    for patient in sorted((base / "new-cohort").iterdir()):
        out = base / "out" / key / patient.name
        started = time.perf_counter()
        told(
            "run", str(patient), "--out", str(out), "--model", str(base / "models" / name), "--assess", "false", *UNTIDIED, "--threads", "1"
        )
        seconds += time.perf_counter() - started
        theirs = read_image(drawn / f"{patient.name}.nii.gz")
        for n, structure in enumerate(names, 1):
            ours, mask = read_image(out / "masks" / f"{structure}.nii.gz"), theirs.array == n
            assert ours.geometry.same_grid(theirs.geometry), (ours.geometry, theirs.geometry)
            least = min(least, 2 * (ours.array.astype(bool) & mask).sum() / max(1, (ours.array > 0).sum() + mask.sum()))
            parts[structure] = min(parts[structure], float(mask.mean()))
    told(
        "evaluate", str(base / "new-cohort"), "--predictions", str(drawn), "--labels", str(drawn / "dataset.json"),
        "--out", str(base / "evaluated" / key), "--overlays", "none",
    )  # fmt: skip
    met = least >= LEAST_DSC and min(parts.values()) >= LEAST_PART
    shares = ", ".join(f"{structure} {part:.1%}" for structure, part in parts.items())
    size = sum(p.stat().st_size for p in (base / "models" / name).rglob("*") if p.is_file()) / 1e6
    print(
        f"{key}, patch {row['patch']}: least DSC with nnU-Net's own predictor {least:.4f} ({'met' if met else 'MISSED'}); "
        f"parts of the image {shares}; {size:.2f} MB of {Path(str(row['archive'])).stat().st_size / 1e6:.2f} MB kept; run {seconds:.0f} s"
    )
    return int(not met)


UNTIDIED = ("--tidy.pieces", "0", "--tidy.holes", "off", "--tidy.slivers_mm2", "0", "--tidy.overlap", "off")


def told(*words: str) -> None:
    """Run a command in this process; its answer goes to stderr. Raises SystemExit where it fails."""
    sys.stdout, kept = sys.stderr, sys.stdout
    try:
        code = oncontour(list(words))
    finally:
        sys.stdout = kept
    if code:
        raise SystemExit(f"oncontour {' '.join(words)} ended with {code}")


def phantom(seed: int) -> Case:
    """A patient of 48 x 60 x 64 voxels: two balls of 300 HU, the left one with a plate at its left, the right one with one at its right,
    and a rod of -400 HU between them."""
    rng = np.random.default_rng(seed)
    grid = Geometry.regular((48, 60, 64), (3.0, 2.0, 2.0), (-63.0, -59.0, -70.5))
    x, y, z = np.moveaxis(grid.points(np.stack(np.indices(grid.shape), -1)), -1, 0)
    body = (x / 60) ** 2 + (y / 56) ** 2 < 1
    hu = np.where(body, rng.normal(0, 10, grid.shape), -1000)
    masks = {}
    for name, side in (("Parotid_L", 1), ("Parotid_R", -1)):
        cx, cy, cz, r = side * 28 + rng.uniform(-3, 3), rng.uniform(-8, 8), rng.uniform(-20, 20), rng.uniform(20, 22)
        ball = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < r**2
        plate = (np.abs(x - cx - side * (r + 5)) < 4) & (np.abs(y - cy) < 24) & (np.abs(z - cz) < 24)
        hu[plate] = 900
        hu[ball] = 300 + rng.normal(0, 10, int(ball.sum()))
        masks[name] = ball
    stem = (x / 9) ** 2 + ((y - 34) / 16) ** 2 + (z / 46) ** 2 < 1
    hu[stem] = -400
    masks["Brainstem"] = stem
    lies = grid.reorient(LIES[seed % len(LIES)])
    volumes = {name: Volume(mask & ~stem if name != "Brainstem" else mask, grid).to(lies) for name, mask in masks.items()}
    return Case(f"phantom-{seed}", {"ct": Volume(np.clip(hu, -1000, 2000).astype(np.int16), grid).to(lies)}, volumes)


if __name__ == "__main__":
    sys.exit(main())
