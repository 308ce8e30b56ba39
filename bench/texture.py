"""Dosiomics: all texture families of a sphere of 92,000 voxels at 32 levels, beside mirp where it is installed; and a cohort of patients.

    python bench/texture.py [--jobs 2] [--patients 33] [--without-cohort]

Seconds are of this process's own CPU (``time.process_time``), so that a busy machine changes them less; wall time is given beside.
The cohort is OpenKBP's validation patients at $ONCONTOUR_DATA (else ../shared/data): 7 organs, dose and CT, every family.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from oncontour.dose.dosiomics import Settings, extract, measure
from oncontour.dose.region import Processing, prepare
from oncontour.geometry import Geometry
from oncontour.volume import Volume

ORGANS = ("Brainstem", "SpinalCord", "Parotid_R", "Parotid_L", "Esophagus", "Larynx", "Bone_Mandible")
TEXTURES = ("cm", "rlm", "szm", "dzm", "ngt", "ngl")
RADIUS = 28.0
"""In voxels: 92,000 of them lie inside."""


def sphere() -> tuple[Volume, Volume]:
    """Smooth noise and a sphere in it, 1 mm voxels."""
    grid = Geometry.regular((64, 64, 64))
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=grid.shape), 1.5)
    at = np.indices(grid.shape) - 31.5
    return Volume(1000 * noise, grid), Volume((at**2).sum(axis=0) <= RADIUS**2, grid)


def timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of the quickest of ``times``."""
    best = (np.inf, np.inf)
    for _ in range(times):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
    return best


def one_structure() -> None:
    image, mask = sphere()
    region = prepare(image, mask, Processing())
    print(f"sphere of {int(mask.array.sum())} voxels, 32 levels")
    for title, families in (("all textures, 3D", TEXTURES), *((f"  {name}", (name,)) for name in TEXTURES), ("all 11 families", None)):
        chosen = Settings(bins=32) if families is None else Settings(bins=32, families=families)
        measure(region, chosen)  # compile, or read what was compiled
        cpu, wall = timed(lambda chosen=chosen: measure(region, chosen), 5)
        print(f"{title:<24} {cpu:7.3f} s of CPU, {wall:7.3f} s on the wall")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def peer() -> None:
    """mirp on the same arrays: seconds, ratio, and how far its values lie from ours."""
    try:
        from mirp import extract_features
    except ImportError:
        print("mirp is not installed here: not measured (it is no dependency; in an environment of its own, pip install mirp)")
        return
    image, mask = sphere()
    settings = Settings(bins=32, families=TEXTURES)
    ours, _ = timed(lambda: extract(image, mask, settings), 3)

    def theirs() -> dict[str, float]:
        frame = extract_features(
            image=np.asarray(image.array),
            mask=mask.array.astype(np.int32),
            base_discretisation_method="fixed_bin_number",
            base_discretisation_n_bins=32,
            base_feature_families=["glcm", "glrlm", "glszm", "gldzm", "ngtdm", "ngldm"],
            **{f"{name}_spatial_method": "3d_volume_merge" for name in ("glcm", "glrlm")},
            **{f"{name}_spatial_method": "3d" for name in ("glszm", "gldzm", "ngtdm", "ngldm")},
        )[0]
        return {name: float(frame[name].iloc[0]) for name in frame.columns if name.split("_")[0] in TEXTURES}

    start = time.process_time()
    values = theirs()
    took = time.process_time() - start
    mine = extract(image, mask, settings)
    roots = {tag.removesuffix("_3D_comb").removesuffix("_3D"): tag for tag in mine}
    apart = []
    for name, value in values.items():
        root = max((root for root in roots if name.startswith(root + "_")), key=len, default=None)
        if root:
            apart.append((abs(mine[roots[root]] - value) / max(abs(value), 1e-12), root))
    far = f"largest relative difference of {len(apart)} values {max(apart)}" if apart else "no value in common"
    print(f"mirp {took:.2f} s of CPU, mirp / ours {took / ours:.0f}; {far}")


def cohort(jobs: int, patients: int) -> None:
    from oncontour.features import features
    from oncontour.io.cohort import Cohort

    data = Path(os.environ.get("ONCONTOUR_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    folder = data / "openkbp" / "validation"
    if not folder.is_dir():
        print("cohort: not measured, no data folder")
        return
    ids = Cohort.open(folder).ids[:patients]
    with tempfile.TemporaryDirectory() as out:
        listed = Path(out) / "cohort.csv"
        listed.write_text("patient,path\n" + "".join(f"{id},{folder / id}\n" for id in ids))
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        told = features(listed, out=Path(out) / "features.csv", structures=list(ORGANS), jobs=jobs)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - wall
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(told.split(" (")[0])
    print(f"of {len(ORGANS)} organs, on dose and CT: {cpu:.1f} s of CPU in {jobs} processes, {wall:.1f} s on the wall")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--patients", type=int, default=33)
    parser.add_argument("--without-cohort", action="store_true")
    given = parser.parse_args()
    one_structure()
    peer()
    if not given.without_cohort:
        cohort(given.jobs, given.patients)
    return 0


if __name__ == "__main__":
    sys.exit(main())
