"""DVHs: error against solids in closed form, and time, beside dicompyler-core where it is installed, and the obvious way (voxel centres).

    python bench/dvh.py [--patients 2] [--dicompyler PYTHON]

The solids are spheres, cylinders and cones of 0.1, 1 and 100 cc, drawn as discs on slices of 1 to 2.5 mm, in doses that are linear across
or quadratic from the centre, on dose grids of 1, 2.5 and 4 mm that lie off everything. What the discs receive is known in closed form, so
that no error is one of drawing. The error of a curve is the largest difference in % of the volume at any dose; that of the figures D98%,
D50%, D2% and D0.03cc the largest in % of the dose. Voxel centres: contours filled on the dose grid (voxels inside by half and more).
dicompyler-core gets the same solids as RTSTRUCT and RTDOSE, once as it is, once (0.1 and 1 cc) with a net of an eighth of a pixel, on which
it takes the dose half a pixel off: a cylinder in a linear dose of 65 Gy in the mean is told 63.8. It is no dependency; it is measured where
PYTHON (else $ONCONTOUR_DICOMPYLER, else this Python) has it:
    python -m venv other && other/bin/pip install dicompyler-core "pydicom<3" "numpy<2" scikit-image
With $ONCONTOUR_DATA (else ../shared/data) all structures of OpenKBP patients are timed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import dvh
from oncontour.io import write
from oncontour.phantom import Cylinder, Sphere
from oncontour.raster import fill

Floats = NDArray[np.float64]
CENTRE = np.array([1.3, -2.7, 3.1])
LOW, HIGH = 60.0, 70.0
SOLIDS, SIZES_CC, FIELDS, GRIDS_MM = ("sphere", "cylinder", "cone"), (0.1, 1.0, 100.0), ("linear", "quadratic"), (1.0, 2.5, 4.0)
FINE = np.linspace(LOW - 1, HIGH + 1, 6001)
Above = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Drawn:
    """A solid as discs round CENTRE: ``radius``, ``bottom`` and ``top`` (z from CENTRE) of each, in mm."""

    contours: Contours
    radius: Floats
    bottom: Floats
    top: Floats

    @property
    def cc(self) -> float:
        return float(np.pi * self.radius**2 @ (self.top - self.bottom)) / 1000

    def above(self, field: str) -> Above:
        """cc that receive at least so much, for all discs."""
        return self._right_of if field == "linear" else self._beyond

    def field(self, name: str) -> Callable[[Floats], Floats]:
        if name == "linear":
            return lambda p: LOW + (HIGH - LOW) * ((p - CENTRE)[..., 0] / self.wide + 1) / 2
        return lambda p: LOW + (HIGH - LOW) * ((p - CENTRE) ** 2).sum(-1) / self.far**2

    @property
    def wide(self) -> float:
        return float(self.radius.max())

    @property
    def far(self) -> float:
        return float(np.sqrt(self.radius**2 + np.maximum(self.bottom**2, self.top**2)).max())

    def _right_of(self, gy: Floats) -> Floats:
        """Segments of discs: x is at least so much."""
        x = (2 * (gy - LOW) / (HIGH - LOW) - 1)[:, None] * self.wide
        r = self.radius
        x = np.clip(x, -r, r)
        area = r * r * np.arccos(x / r) - x * np.sqrt(r * r - x * x)
        return area @ (self.top - self.bottom) / 1000

    def _beyond(self, gy: Floats) -> Floats:
        """All but what lies within s of CENTRE: over the height of a disc the section min(r^2, s^2 - z^2) is a parabola in pieces, which
        Simpson's rule sums exactly from bend to bend."""
        s = (np.sqrt(np.maximum(gy - LOW, 0) / (HIGH - LOW)) * self.far)[:, None]
        r, low, high = self.radius, self.bottom, self.top
        inner = np.sqrt(np.maximum(s * s - r * r, 0))
        bends = np.sort([np.clip(z, low, high) for z in np.broadcast_arrays(low, high, -s, s, -inner, inner)], axis=0)
        within = np.zeros(len(gy))
        for a, b in pairwise(bends):
            first, between, last = (np.clip(s * s - z * z, 0, r * r) for z in (a, (a + b) / 2, b))
            within += np.pi * ((b - a) / 6 * (first + 4 * between + last)).sum(axis=1)
        return self.cc - within / 1000


def solid(shape: str, cc: float) -> Drawn:
    """As high as it is wide."""
    r = (cc * {"sphere": 750, "cylinder": 500, "cone": 1500}[shape] / np.pi) ** (1 / 3)
    count = max(5, int(np.ceil(2 * r / 2.5)))
    edges = np.linspace(-r, r, count + 1)
    middles = (edges[1:] + edges[:-1]) / 2 + CENTRE[2]
    if shape == "cone":
        radii = r * (1 - (middles - CENTRE[2] + r) / (2 * r))
        polygons = [p for z, at in zip(middles, radii, strict=True) for p in Cylinder((*CENTRE[:2], z), at, 1.0).contours_at(z, 720)]
        contours = Contours(tuple(polygons))
    else:
        body = Sphere(tuple(CENTRE), r) if shape == "sphere" else Cylinder(tuple(CENTRE), r, 2 * r)
        contours = body.contours(middles, 720)
    areas = np.array([_area(p[:, :2]) for p in contours.polygons])
    return Drawn(contours, np.sqrt(areas / np.pi), edges[:-1], edges[1:])


def _area(p: Floats) -> float:
    return abs(float(p[:, 0] @ np.roll(p[:, 1], -1) - p[:, 1] @ np.roll(p[:, 0], -1))) / 2


def sampled(field: Callable[[np.ndarray], np.ndarray], spacing: float, reach: float) -> Volume:
    count = int(2 * reach / spacing) + 8
    grid = Geometry.regular((count,) * 3, (spacing,) * 3, CENTRE - (count - 1) / 2 * spacing + spacing * np.array([0.37, 0.21, 0.43]))
    return Volume(field(grid.points(np.stack(np.indices(grid.shape), axis=-1))).astype(np.float32), grid)


def by_voxels(dose: Volume, contours: Contours) -> Above:
    """The obvious way: (sorted doses of the voxels inside) -> cc above."""
    inside = np.sort(dose.array[fill(contours, dose.geometry).array])
    return lambda gy: (len(inside) - np.searchsorted(inside, gy)) * dose.geometry.voxel_mm3 / 1000


def errors(found: Above, true: Floats, cc: float) -> tuple[float, float]:
    """(largest difference of the curve in % of the volume, of D98%, D50%, D2% and D0.03cc in % of the dose; NaN where nothing is there).

    ``true``: cc above each of FINE.
    """
    mine = found(FINE)
    curve = 100 * float(np.abs(mine - true)[(FINE > LOW) & (FINE < HIGH)].max()) / cc
    doses = []
    for part in (0.98, 0.5, 0.02, 0.03 / cc):
        wanted = min(0.03, mine[0]) if part == 0.03 / cc else part * mine[0]
        there = mine >= wanted
        d = FINE[there][-1] if there.any() and mine[0] > 0 else np.nan
        doses.append(abs(d / FINE[true >= part * cc][-1] - 1))
    return curve, 100 * float(np.max(doses))


@dataclass(frozen=True)
class Row:
    """One solid in one dose on one grid: what is known of it, and how far off are we, in which time, and voxel centres."""

    title: str
    drawn: Drawn
    true: Floats
    dose: Volume
    ours: tuple[float, float]
    voxels: tuple[float, float]
    seconds: float

    def errors(self, found: Above) -> tuple[float, float]:
        return errors(found, self.true, self.drawn.cc)


def row(shape: str, cc: float, field: str, spacing: float) -> Row:
    drawn = solid(shape, cc)
    known = drawn.above(field)(FINE)
    dose = sampled(drawn.field(field), spacing, float(np.abs(np.concatenate(drawn.contours.polygons) - CENTRE).max()))
    start = time.process_time()
    one = dvh(dose, drawn.contours)
    seconds = time.process_time() - start
    curve, figures = errors(lambda gy: np.array([one.cc_above(float(v)) for v in gy]), known, drawn.cc)
    ours = max(curve, 100 * abs(one.volume_cc / drawn.cc - 1)), figures
    voxels = errors(by_voxels(dose, drawn.contours), known, drawn.cc)
    return Row(f"{shape:<9}{cc:>5g} {field:<10}{spacing:>4g}", drawn, known, dose, ours, voxels, seconds)


def accuracy(python: str) -> None:
    row("sphere", 0.1, "linear", 4.0)  # compile, or read what was compiled
    rows = [row(*what) for what in product(SOLIDS, SIZES_CC, FIELDS, GRIDS_MM)]
    peer = not subprocess.run([python, "-c", "import dicompylercore.dvhcalc"], capture_output=True, check=False).returncode
    version, answers = dicompyler(python, rows) if peer else ("", [])
    print("largest error: curve in % of the volume / D98%, D50%, D2%, D0.03cc in % of the dose")
    heads = ["ours", "voxel centres", *([f"dicompyler-core {version}", "the same, finer"] if peer else [])]
    print(f"{'solid':<9}{'cc':>5} {'dose':<8}{'mm':>6}" + "".join(f"{head:>24}" for head in heads))
    for n, one in enumerate(rows):
        told = [one.ours, one.voxels]
        for answer in answers[2 * n : 2 * n + 2]:
            curve = answer["above_cc"]
            told.append(one.errors(lambda gy, c=curve: np.interp(gy, FINE, c)) if curve else None)
        print(one.title + "".join(f"{_told(pair):>24}" for pair in told))
    worst = np.max([one.ours for one in rows], axis=0)
    print(f"the worst of ours: {worst[0]:.3f} % of the volume, {worst[1]:.3f} % of the dose (0.1 wanted)")
    _times("ours", [one.seconds for one in rows])
    if not peer:
        print("dicompyler-core is not installed here: not measured (an environment of its own, and --dicompyler PYTHON)")
        return
    _times("dicompyler-core", [answer["seconds"] for answer in answers[::2]])
    _times("dicompyler-core, finer", [answer["seconds"] for answer in answers[1::2] if answer["seconds"]])
    asked = [answer for answer in answers if answer["seconds"] is not None]
    nothing = [answer["why"] for answer in asked if not answer["above_cc"]]
    print(f"nothing came out of dicompyler-core {len(nothing)} times of {len(asked)}: {'; '.join(dict.fromkeys(nothing)) or 'never'}")


def _told(one: tuple[float, float] | None) -> str:
    return "-" if one is None else f"{one[0]:.3f} / {one[1]:.3f}"


def _times(name: str, seconds: list[float]) -> None:
    print(f"{name}: {np.median(seconds):.3f} s of CPU a structure in the median, {max(seconds):.2f} s at most")


def dicompyler(python: str, rows: list[Row]) -> tuple[str, list[dict[str, Any]]]:
    """Its version, and what it finds of every row, as it is and with a finer net."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [job for n, one in enumerate(rows) for job in _jobs(Path(folder) / str(n), one.drawn, one.dose)]
        listed = Path(folder) / "jobs.json"
        listed.write_text(json.dumps(jobs))
        command = [python, str(Path(__file__).with_name("_dicompyler.py")), str(listed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"_dicompyler.py ended with {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    return answer["version"], answer["found"]


def _jobs(folder: Path, drawn: Drawn, dose: Volume) -> list[dict[str, Any]]:
    """RTSTRUCT and RTDOSE of one solid in ``folder``; what dicompyler-core is asked of them: twice, the large ones once."""
    step, slices = float(drawn.top[0] - drawn.bottom[0]), len(drawn.radius)
    side = int(2 * drawn.wide) + 8
    first = CENTRE + np.array([-side / 2, -side / 2, float(drawn.bottom[0]) + step / 2])
    ct = Volume(np.zeros((slices, side, side), np.int16), Geometry.regular((slices, side, side), (step, 1.0, 1.0), first))
    write(Case(folder.name, {"ct": ct, "dose": dose}, contours={"x": drawn.contours}), folder)
    finer = {"use_structure_extents": True, "interpolation_resolution": dose.geometry.spacing_mm[0] / 8}
    chosen = ({}, finer) if drawn.cc < 10 else ({}, None)
    return [{"folder": str(folder), "gy": FINE.tolist(), "options": options} for options in chosen]


def speed(patients: int) -> None:
    data = Path(os.environ.get("ONCONTOUR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "openkbp" / "validation"
    if not data.is_dir():
        print(f"no patients at {data}")
        return
    from oncontour.io import read

    for folder in sorted(data.glob("pt_*"))[:patients]:
        case = read(folder)
        dose = case.images["dose"]
        for name, way in (("ours", _ours), ("voxels", _voxels)):
            way(dose, case.masks)
            start = time.process_time()
            cc = way(dose, case.masks)
            print(f"{folder.name}: {len(case.masks)} structures, {cc:.0f} cc, {name}: {time.process_time() - start:.3f} s of one core")


def _ours(dose: Volume, masks: dict[str, Volume]) -> float:
    return sum(dvh(dose, mask).volume_cc for mask in masks.values())


def _voxels(dose: Volume, masks: dict[str, Volume]) -> float:
    doses = [np.sort(dose.to(mask.geometry).array[mask.array]) for mask in masks.values()]
    return sum(len(d) for d in doses) * dose.geometry.voxel_mm3 / 1000


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=2)
    parser.add_argument("--dicompyler", default=os.environ.get("ONCONTOUR_DICOMPYLER", sys.executable), metavar="PYTHON")
    arguments = parser.parse_args()
    accuracy(arguments.dicompyler)
    speed(arguments.patients)
