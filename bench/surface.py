"""Surface metrics: seven organs at 512 x 512 x 134 against MONAI, time and error against analytic solids.

    python bench/surface.py [--threads 2] [--without-peer]

Organs are smooth random head-and-neck-like solids of realistic volumes on the grid of a clinical CT (0.977 x 0.977 x 3 mm), the
prediction is the truth moved and deformed by a few millimetres. With $ONCONTOUR_DATA (else ../shared/data) the masks of OpenKBP
patients, brought to that grid, are measured as well. ``peer / ours`` above 1: ours is faster.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.metrics.surface import SurfaceDistances, surfaces
from oncontour.phantom import Box, Solid, Sphere

CT = Geometry.regular((134, 512, 512), (3.0, 0.9765625, 0.9765625), (-250.0, -250.0, 0.0))
ORGANS_CC = {"Brainstem": 28, "SpinalCord": 20, "Parotid_L": 30, "Parotid_R": 30, "Esophagus": 12, "Larynx": 35, "Bone_Mandible": 60}
Pair = tuple[Volume, Volume]


def organ(centre_mm: np.ndarray, volume_cc: float, seed: int) -> Volume:
    """An ellipsoid with a wavy surface."""
    rng = np.random.default_rng(seed)
    radii = (3000 * volume_cc / (4 * np.pi)) ** (1 / 3) * np.array([0.7, 0.8, 1 / 0.56])
    mask = np.zeros(CT.shape, bool)
    low = np.floor(CT.voxels(centre_mm - 1.4 * radii)).astype(int)
    high = np.ceil(CT.voxels(centre_mm + 1.4 * radii)).astype(int) + 1
    grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), axis=-1)
    away = (CT.points(grid) - centre_mm) / radii
    wave = 1 + 0.08 * np.sin(away @ rng.normal(0, 4, (3, 4)) + rng.uniform(0, 6, 4)).sum(axis=-1)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = np.linalg.norm(away, axis=-1) < wave
    return Volume(mask, CT)


def synthetic_organs() -> list[Pair]:
    pairs = []
    for n, volume_cc in enumerate(ORGANS_CC.values()):
        centre = np.array([-90.0 + 30 * n, 10.0 * n, 200.0])
        pairs.append((organ(centre, volume_cc, n), organ(centre + np.array([1.5, -2.0, 3.0]), 1.1 * volume_cc, n + 100)))
    return pairs


def patient_organs() -> list[Pair]:
    """Organs of one OpenKBP patient on the grid of a clinical CT, beside themselves moved by (3, 2, 2) mm."""
    data = Path(os.environ.get("ONCONTOUR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    folder = data / "openkbp" / "validation" / "pt_201"
    if not folder.is_dir():
        return []
    from oncontour.io import read

    case = read(folder)
    masks = [case.masks[name] for name in case.masks if not name.startswith("PTV")]
    middle = case.geometry.centre_mm
    start = middle - CT.centre_mm + np.asarray(CT.origin_mm)
    there = Geometry.regular(CT.shape, CT.spacing_mm, start)
    back = Geometry.regular(CT.shape, CT.spacing_mm, start - np.array([3.0, 2.0, 2.0]))
    return [(mask.to(there), Volume(mask.to(back).array, there)) for mask in masks]


def ours(pair: Pair) -> SurfaceDistances:
    apart = surfaces(*pair)
    _ = apart.hd_mm, apart.hd95_mm, apart.asd_mm, apart.msd_mm, apart.surface_dsc(2.0), apart.added_path_mm(2.0)
    return apart


def peer(pair: Pair) -> tuple[float, float]:
    """MONAI: (ASD, HD), and HD95 and surface Dice computed too, as a user of it would."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    y, p = (torch.from_numpy(v.array[None, None].copy()) for v in pair)
    spacing = pair[0].geometry.spacing_mm
    mean = compute_average_surface_distance(p, y, include_background=True, symmetric=True, spacing=spacing)
    most = compute_hausdorff_distance(p, y, include_background=True, spacing=spacing)
    compute_hausdorff_distance(p, y, include_background=True, percentile=95, spacing=spacing)
    compute_surface_dice(p, y, [2.0], include_background=True, spacing=spacing)
    return float(mean), float(most)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(title: str, pairs: list[Pair], threads: int, with_peer: bool) -> None:
    surfaces(*(Volume(v.array[:4, :8, :8], v.geometry.crop((0, 0, 0), (4, 8, 8))) for v in pairs[0]))  # compile once

    def all_of_them() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ours, pairs))

    mine = min(seconds(all_of_them) for _ in range(3))
    print(f"{title}, {len(pairs)} organs on {'x'.join(map(str, CT.shape))}: ours {mine:.2f} s on {threads} threads", end="")
    if with_peer:
        theirs = seconds(lambda: [peer(pair) for pair in pairs])
        print(f", MONAI {theirs:.2f} s, peer / ours {theirs / mine:.1f}", end="")
    print()


def both_solids(first: Solid, second: Solid, spacing_mm: tuple[float, float, float]) -> Pair:
    size = [round(80 / s) for s in spacing_mm]
    grid = Geometry.regular(size, spacing_mm, tuple(-(n - 1) / 2 * s for n, s in zip(size[::-1], spacing_mm[::-1], strict=True)))
    return first.mask(grid), second.mask(grid)


def errors(with_peer: bool) -> None:
    """Error of ASD and HD in mm on pairs whose surfaces lie exactly d apart."""
    print("\nerror in mm, mean over 4 placements; ASD | HD")
    rng = np.random.default_rng(0)
    for spacing in ((1.0, 1.0, 1.0), (3.0, 0.977, 0.977)):
        for d in (1.0, 3.0, 6.0):
            rows = []
            for _ in range(4):
                at = tuple(rng.uniform(-0.5, 0.5, 3))
                radius = rng.uniform(10, 25)
                rows.append(both_solids(Sphere(at, radius), Sphere(at, radius + d), spacing))
            show(f"spheres R and R + {d:g}, voxels {spacing}", rows, d, d, with_peer)
    cube, moved = Box((0.0, 0.0, 0.0)), Box((3.0, 0.0, 0.0))
    show("cube of 20 mm moved by 3, voxels 1 mm (HD)", [both_solids(cube, moved, (1.0, 1.0, 1.0))], np.nan, 3.0, with_peer)


def show(title: str, pairs: list[Pair], asd: float, hd: float, with_peer: bool) -> None:
    mine = np.array([(a.asd_mm, a.hd_mm) for a in map(ours, pairs)]) - (asd, hd)
    line = f"{title:48} ours {_off(mine)}"
    if with_peer:
        theirs = np.array([peer(pair) for pair in pairs]) - (asd, hd)
        line += f"    MONAI {_off(theirs)}"
    print(line)


def _off(errors_mm: np.ndarray) -> str:
    mean, most = np.abs(errors_mm).mean(axis=0)
    return f"{'-' if np.isnan(mean) else f'{mean:.3f}':>5} | {most:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-peer", action="store_true")
    given = parser.parse_args()
    with_peer = not given.without_peer
    speed("synthetic", synthetic_organs(), given.threads, with_peer)
    if patient := patient_organs():
        speed("OpenKBP patient", patient, given.threads, with_peer)
    else:
        print("OpenKBP patient: not measured, no data folder")
    errors(with_peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
