"""DVHs: error against solids in closed form, and time, beside the obvious way (voxel centres) and dicompyler-core where it is installed.

    python bench/dvh.py [--patients 2]

The solids are spheres and cylinders of 0.1 to 100 cc, drawn as 100 slices, in doses that are linear or quadratic, on dose grids of 1, 2.5
and 4 mm that lie off everything. The error of a curve is the largest difference in % of the volume at any dose; that of D98%, D50% and D2%
the largest in % of the dose. Where a sphere's dose rises from its centre, its surface is one isodose: what the curve shows there is the
steps of the 100 discs, which are drawn so. The obvious way fills the contours on the dose grid (voxel centres inside by half and more) and
sorts the doses; "voxels 1 mm" does so on a grid of 1 mm with interpolated dose. With $ONCONTOUR_DATA (else ../shared/data) all structures
of OpenKBP patients are timed as well.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from oncontour.contours import Contours
from oncontour.dose.dvh import dvh
from oncontour.geometry import Geometry
from oncontour.phantom import Cylinder, Sphere
from oncontour.raster import fill
from oncontour.volume import Volume

CENTRE = np.array([1.3, -2.7, 3.1])
LOW, HIGH = 60.0, 70.0
Above = Callable[[np.ndarray], np.ndarray]


def solid(shape: str, cc: float, field: str) -> tuple[Contours, Callable[[np.ndarray], np.ndarray], Above]:
    """Contours, dose as a function of points, and cc above doses."""
    if shape == "sphere":
        r = (cc * 750 / np.pi) ** (1 / 3)
        body, half = Sphere(tuple(CENTRE), r), r
    else:
        r = (cc * 500 / np.pi) ** (1 / 3)
        body, half = Cylinder(tuple(CENTRE), r, 2 * r), r
    step = 2 * half / 100
    contours = body.contours(CENTRE[2] - half + step * (np.arange(100) + 0.5), 720)

    def share(gy: np.ndarray) -> np.ndarray:
        return np.clip((gy - LOW) / (HIGH - LOW), 0, 1)

    if field == "linear":
        dose = lambda p: LOW + (HIGH - LOW) * ((p - CENTRE)[..., 0] / r + 1) / 2  # noqa: E731

        def above(gy: np.ndarray) -> np.ndarray:
            x = (2 * share(gy) - 1) * r
            if shape == "sphere":
                return (4 / 3 * np.pi * r**3 - np.pi * (x + r) ** 2 * (2 * r - x) / 3) / 1000
            return (np.pi * r * r - (r * r * (np.pi - np.arccos(x / r)) + x * np.sqrt(r * r - x * x))) * 2 * r / 1000

        return contours, dose, above
    if shape == "sphere":
        return contours, lambda p: LOW + (HIGH - LOW) * ((p - CENTRE) ** 2).sum(-1) / r**2, lambda gy: cc * (1 - share(gy) ** 1.5)
    return contours, lambda p: LOW + (HIGH - LOW) * ((p - CENTRE)[..., :2] ** 2).sum(-1) / r**2, lambda gy: cc * (1 - share(gy))


def sampled(field: Callable[[np.ndarray], np.ndarray], spacing: float, reach: float) -> Volume:
    count = int(2 * reach / spacing) + 8
    grid = Geometry.regular((count,) * 3, (spacing,) * 3, CENTRE - (count - 1) / 2 * spacing + spacing * np.array([0.37, 0.21, 0.43]))
    return Volume(field(grid.points(np.stack(np.indices(grid.shape), axis=-1))).astype(np.float32), grid)


def by_voxels(dose: Volume, contours: Contours, spacing: float | None) -> Above:
    """The obvious way: (sorted doses of the voxels inside) -> cc above."""
    grid = dose.geometry if spacing is None else dose.geometry.resample((spacing,) * 3)
    inside = np.sort(dose.to(grid).array[fill(contours, grid).array])
    return lambda gy: (len(inside) - np.searchsorted(inside, gy)) * grid.voxel_mm3 / 1000


def errors(found: Above, known: Above, cc: float) -> tuple[float, float]:
    """(largest difference of the curve in % of the volume, of D98, D50 and D2 in % of the dose)."""
    gy = np.linspace(LOW, HIGH, 201)
    curve = 100 * float(np.abs(found(gy) - known(gy))[1:-1].max()) / cc
    fine = np.linspace(LOW - 1, HIGH + 1, 12001)
    mine, true = found(fine), known(fine)
    doses = []
    for percent in (98, 50, 2):
        there = mine >= percent / 100 * mine[0]
        d = fine[there][-1] if there.any() and mine[0] > 0 else np.nan
        doses.append(abs(d / fine[true >= percent / 100 * cc][-1] - 1))
    return curve, 100 * float(np.max(doses))


def accuracy() -> None:
    print("largest error: curve in % of the volume / D98, D50, D2 in % of the dose")
    print(f"{'solid':<10}{'cc':>6} {'dose':<10}{'grid mm':>8}{'ours':>18}{'voxels':>18}{'voxels 1 mm':>18}")
    for shape in ("sphere", "cylinder"):
        for cc in (0.1, 1.0, 100.0):
            for field in ("linear", "quadratic"):
                for spacing in (1.0, 2.5, 4.0):
                    contours, gy, above = solid(shape, cc, field)
                    dose = sampled(gy, spacing, float(np.abs(np.concatenate(contours.polygons) - CENTRE).max()))
                    one = dvh(dose, contours)
                    ways = [
                        lambda g, one=one: np.array([one.cc_above(float(v)) for v in g]),
                        by_voxels(dose, contours, None),
                        by_voxels(dose, contours, 1.0),
                    ]
                    told = ["{:>10.3f} /{:>6.3f}".format(*errors(way, above, cc)) for way in ways]
                    print(f"{shape:<10}{cc:>6g} {field:<10}{spacing:>8g}" + "".join(told))


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


def peer() -> None:
    """dicompyler-core 0.5, where it is installed: the same solids through its own files."""
    try:
        from dicompylercore import dvhcalc  # noqa: F401
    except ImportError:
        print("dicompyler-core is not installed: not measured")
        return
    import tempfile

    from dicompylercore import dvhcalc as theirs

    from oncontour.case import Case
    from oncontour.io import write

    for cc in (0.1, 1.0, 100.0):
        contours, gy, above = solid("sphere", cc, "linear")
        dose = sampled(gy, 2.5, float(np.abs(np.concatenate(contours.polygons) - CENTRE).max()))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "p"
            write(
                Case("p", {"ct": Volume(np.zeros(dose.geometry.shape, np.int16), dose.geometry), "dose": dose}, contours={"x": contours}),
                out,
            )
            start = time.perf_counter()
            found = theirs.get_dvh(str(out / "RTSTRUCT.dcm"), str(out / "RTDOSE.dcm"), 1)
            seconds = time.perf_counter() - start
        curve, at = errors(lambda g, f=found: np.interp(g, f.bins[:-1], f.absolute_volume(f.volume).counts), above, cc)
        print(f"dicompyler-core, sphere of {cc:g} cc: {curve:.3f} / {at:.3f}, {seconds:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=2)
    arguments = parser.parse_args()
    accuracy()
    peer()
    speed(arguments.patients)
