"""Dosiomics: all texture families of a sphere of 92,000 voxels at 32 levels, beside mirp and pictologics where they are installed;
and a cohort of patients.

    python bench/texture.py [--jobs 2] [--patients 33] [--without-cohort] [--mirp PYTHON] [--pictologics PYTHON]

Neither is a dependency; each is measured where PYTHON (else $ONCONTOUR_MIRP or $ONCONTOUR_PICTOLOGICS, else this Python) has it, each side
in a process of its own; mirp comes with the extra "bench", pictologics needs Python 3.12 (bench/README.md).
Seconds are of this process's own CPU (``time.process_time``), on one thread, so that a busy machine changes them less; wall time is given
beside.
The cohort is OpenKBP's validation patients at $ONCONTOUR_DATA (else ../shared/data): 7 organs, dose and CT, every family.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _alone import ONE_THREAD, on_one_thread
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.radiomics.extract import Settings, extract, measure
from oncontour.radiomics.names import FAMILIES, code
from oncontour.radiomics.region import Processing, prepare

ORGANS = ("Brainstem", "SpinalCord", "Parotid_R", "Parotid_L", "Esophagus", "Larynx", "Bone_Mandible")
TEXTURES = ("cm", "rlm", "szm", "dzm", "ngt", "ngl")
RADIUS = 28.0
"""In voxels: 92,000 of them lie inside."""
SAME = 1e-6
FAMILIES_OF_MIRP = {"cm": "glcm", "rlm": "glrlm", "szm": "glszm", "dzm": "gldzm", "ngt": "ngtdm", "ngl": "ngldm"}
NAMES_OF_MIRP = {"morph": "morphology", "loc": "local_intensity", "stat": "statistics", "ih": "intensity_histogram", "ivh": "ivh"}
AGGREGATIONS_OF_MIRP = {
    "2d_average": "2D_avg",
    "2d_slice_merge": "2D_comb",
    "2.5d_direction_merge": "2_5D_avg",
    "2.5d_volume_merge": "2_5D_comb",
    "3d_average": "3D_avg",
    "3d_volume_merge": "3D_comb",
}
ENDINGS_OF_MIRP = {
    "_2.5d_d_mrg": "_2_5D_avg",
    "_2.5d_v_mrg": "_2_5D_comb",
    "_2d_s_mrg": "_2D_comb",
    "_2d_avg": "_2D_avg",
    "_3d_v_mrg": "_3D_comb",
    "_3d_avg": "_3D_avg",
    "_2.5d": "_2_5D",
    "_2d": "_2D",
    "_3d": "_3D",
}
SAMPLED = (
    "IBSI sums over all pairs of voxels, as ours does; mirp from 1000 voxels on takes the mean over random samples of 100 voxels up to a "
    "standard error of 0.002, and the consensus on Moran's I is held to 0.0003 (configurations A and C)"
)
WHY = {"morph_moran_i": SAMPLED, "morph_geary_c": SAMPLED}
"""Start of a column -> who follows IBSI where the two differ."""


def sphere(edge: int = 64, radius: float = RADIUS) -> tuple[Volume, Volume]:
    """Smooth noise on ``edge`` cubed voxels of 1 mm, and a sphere in it."""
    grid = Geometry.regular((edge,) * 3)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=grid.shape), 1.5)
    at = np.indices(grid.shape) - (edge - 1) / 2
    return Volume(1000 * noise, grid), Volume((at**2).sum(axis=0) <= radius**2, grid)


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
    print(f"sphere of {int(mask.array.sum())} voxels, 32 levels, one thread")
    for title, families in (("all textures, 3D", TEXTURES), *((f"  {name}", (name,)) for name in TEXTURES), ("all 11 families", None)):
        chosen = Settings(bins=32) if families is None else Settings(bins=32, families=families)
        measure(region, chosen)  # compile, or read what was compiled
        cpu, wall = timed(lambda chosen=chosen: measure(region, chosen), 5)
        print(f"{title:<24} {cpu:7.3f} s of CPU, {wall:7.3f} s on the wall")
    print(f"peak memory of the process {peak_mb():.0f} MB")


def peak_mb() -> float:
    """Of this program alone: the kernel's ru_maxrss begins at what the process was forked from."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def mine(arrays: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Our side in a process of its own, as ``_mirp.py`` is theirs: seconds after compilation, memory, values."""
    loaded = np.load(arrays)
    grid = Geometry.regular(loaded["image"].shape)
    image, mask = Volume(loaded["image"], grid), Volume(loaded["mask"], grid)
    settings = Settings(bins=asked["bins"], families=tuple(asked["families_ours"]), aggregations=tuple(asked["aggregations"]))
    before = peak_mb()
    values = extract(image, mask, settings)
    cpu, wall = timed(lambda: extract(image, mask, settings), 5)
    return {"cpu": cpu, "wall": wall, "before_mb": before, "peak_mb": peak_mb(), "values": values}


def peer(python: str) -> None:
    """mirp on the same arrays, each in a process of its own: seconds, ratio, memory, and every value that both have."""
    if subprocess.run([python, "-c", "import mirp"], capture_output=True, check=False).returncode:
        print("mirp is not installed here: not measured (pip install 'oncontour[bench]', or --mirp PYTHON)")
        return
    whole = {theirs: ["3d_volume_merge" if ours in ("cm", "rlm") else "3d"] for ours, theirs in FAMILIES_OF_MIRP.items()}
    every = {t: [*AGGREGATIONS_OF_MIRP] if o in ("cm", "rlm") else ["2d", "2.5d", "3d"] for o, t in FAMILIES_OF_MIRP.items()}
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.npz", Path(folder) / "small.npz"
        image, mask = sphere(80)
        np.savez(large, image=np.round(image.array), mask=mask.array)
        image, mask = sphere(40, 6.0)
        np.savez(small, image=np.round(image.array), mask=mask.array)
        for title, families, times in (("all textures, 3D", TEXTURES, 2), ("all 11 families", tuple(FAMILIES), 2)):
            asked = {"bins": 32, "families_ours": families, "aggregations": ["3D_comb"], "methods": whole, "times": times}
            ours, theirs = _both(python, large, asked)
            cpu, wall = (theirs[clock] / ours[clock] for clock in ("cpu", "wall"))
            print(f"{title}, one thread each: mirp / ours {cpu:.1f} in CPU, {wall:.1f} on the wall")
            for name, told in ((f"mirp {theirs['version']}", theirs), ("ours", ours)):
                print(f"  {name:<10} {told['cpu']:7.3f} s of CPU, {told['wall']:7.3f} s on the wall, peak {_memory(told)}")
        _compare(f"values of the sphere of {int(np.load(large)['mask'].sum())} voxels, 32 levels, 3D", ours["values"], theirs["values"])
        asked = {"bins": 32, "families_ours": [*FAMILIES], "aggregations": [*AGGREGATIONS_OF_MIRP.values()], "methods": every, "times": 1}
        ours, theirs = _both(python, small, asked)
        title = f"values of a sphere of {int(np.load(small)['mask'].sum())} voxels, 32 levels, all six aggregations"
        _compare(title, ours["values"], theirs["values"])


def peer_by_call(python: str) -> None:
    """pictologics on the same arrays: textures, and all 11 families, where both have them; every texture value that both have.

    Ours is given a region, intensities and masks, and makes the grey levels within the clock; theirs is given grey levels too.
    """
    if subprocess.run([python, "-c", "import pictologics"], capture_output=True, check=False).returncode:
        print("pictologics is not installed here: not measured (pip install pictologics for Python 3.12, and --pictologics PYTHON)")
        return
    image, mask = sphere(80)
    image = image.map(np.round)
    region = prepare(image, mask, Processing())
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        np.savez(arrays, image=image.array, mask=mask.array)
        command = [python, str(Path(__file__).with_name("_pictologics.py")), str(arrays), json.dumps({"bins": 32, "times": 10})]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
    if done.returncode:
        raise SystemExit(f"{command[1]} ended with {done.returncode}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    for title, families, theirs in (
        ("all textures, 3D", TEXTURES, told["cpu"]["textures"]),
        ("all 11 families", tuple(FAMILIES), sum(told["cpu"].values())),
    ):
        chosen = Settings(bins=32, families=families)
        measure(region, chosen)
        cpu, _ = timed(lambda chosen=chosen: measure(region, chosen), 10)
        told_ms, ours_ms = 1e3 * theirs, 1e3 * cpu
        line = f"pictologics {told['version']} {told_ms:.1f} ms of CPU, ours {ours_ms:.1f}, ratio {told_ms / ours_ms:.2f}"
        print(f"{title}, one thread: {line}")
    ours = {code(name).split(".")[1]: value for name, value in measure(region, Settings(bins=32, families=TEXTURES)).items()}
    values = {name.rpartition("_")[2]: value for name, value in told["values"].items()}
    shared = [name for name in ours if name in values]
    far = max(_apart(ours[name], values[name]) for name in shared)
    print(f"  {len(shared)} of {len(ours)} texture values by their identifiers: at most {far:.0e} apart")


def _both(python: str, arrays: Path, asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(ours, theirs), one after the other, each with one thread."""
    asked = asked | {"families": [FAMILIES_OF_MIRP.get(name, NAMES_OF_MIRP.get(name, name)) for name in asked["families_ours"]]}
    here = Path(__file__)
    out = []
    for command in ([sys.executable, str(here), "--mine"], [python, str(here.with_name("_mirp.py"))]):
        whole = [*command, str(arrays), json.dumps(asked)]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
        if done.returncode:
            raise SystemExit(f"{command[1]} ended with {done.returncode}: {done.stderr[-2000:]}")
        out.append(json.loads(done.stdout))
    return out[0], out[1]


def _memory(told: dict[str, Any]) -> str:
    return f"{told['peak_mb']:.0f} MB, {told['peak_mb'] - told['before_mb']:.0f} above what was loaded"


def _compare(title: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Every value that both have: by family how far apart; those beyond SAME one by one, and why."""
    values = {_as_ours(name): value for name, value in theirs.items()}
    shared = [name for name in ours if name in values]
    apart = {name: _apart(ours[name], values[name]) for name in shared}
    differ = [name for name in shared if not apart[name] <= SAME]
    print(f"{title}: {len(shared)} that both have, {len(shared) - len(differ)} equal to {SAME:g} relative")
    for family in dict.fromkeys(name.split("_")[0] for name in shared):
        same = [name for name in shared if name.split("_")[0] == family and name not in differ]
        tags = dict.fromkeys(re.sub(r"_(2D|2_5D|3D)(_avg|_comb)?$", "", name).removeprefix(f"{family}_") for name in same)
        far = max((apart[name] for name in same), default=0.0)
        listed = f"  {family}: {len(same)} equal, at most {far:.0e} apart: {' '.join(tags)}"
        print(textwrap.fill(listed, 140, subsequent_indent="    "))
    for name in differ:
        why = next((text for start, text in WHY.items() if name.startswith(start)), "not explained")
        print(textwrap.fill(f"  differs: {name}: ours {ours[name]:.6g}, mirp {values[name]:.6g}: {why}", 140, subsequent_indent="    "))
    alone = [" ".join(name for name in one if name not in other) or "none" for one, other in ((ours, values), (values, ours))]
    print(textwrap.fill(f"  ours alone: {alone[0]}; mirp alone: {alone[1]}", 140, subsequent_indent="    "))


def _apart(one: float, other: float) -> float:
    """Relative difference; of two values that are rounding noise round 0, and of two that are not defined, 0."""
    if (np.isnan(one) and np.isnan(other)) or abs(one - other) < 1e-12:
        return 0.0
    return abs(one - other) / max(abs(one), abs(other))


def _as_ours(name: str) -> str:
    """``cm_joint_max_d1_3d_v_mrg_fbn_n32`` is ``cm_joint_max_3D_comb``."""
    name = re.sub(r"_fbn_n\d+|_d1(?=_)|_a0\.0", "", name)
    for theirs, ours in ENDINGS_OF_MIRP.items():
        if name.endswith(theirs):
            return name.removesuffix(theirs) + ours
    return name


def cohort(jobs: int, patients: int) -> None:
    from oncontour.commands.features import features
    from oncontour.io.cohort import Cohort
    from oncontour.many import Many

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
        told = features(listed, out=Path(out) / "features.csv", structures=list(ORGANS), many=Many(jobs=jobs))
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - wall
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(told.split(" (")[0])
    print(f"of {len(ORGANS)} organs, on dose and CT: {cpu:.1f} s of CPU in {jobs} processes, {wall:.1f} s on the wall")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--patients", type=int, default=33)
    parser.add_argument("--without-cohort", action="store_true")
    parser.add_argument("--mirp", default=os.environ.get("ONCONTOUR_MIRP", sys.executable), metavar="PYTHON")
    parser.add_argument("--pictologics", default=os.environ.get("ONCONTOUR_PICTOLOGICS", sys.executable), metavar="PYTHON")
    parser.add_argument("--mine", nargs=2, metavar=("ARRAYS", "ASKED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    on_one_thread()
    if given.mine:
        print(json.dumps(mine(Path(given.mine[0]), json.loads(given.mine[1]))))
        return 0
    one_structure()
    peer(given.mirp)
    peer_by_call(given.pictologics)
    if not given.without_cohort:
        cohort(given.jobs, given.patients)
    return 0


if __name__ == "__main__":
    sys.exit(main())
