"""Moving a CT between grids: ``Volume.to`` against SimpleITK (recursive Gaussian blur, then linear resampling), time and peak memory.

    python bench/volume.py [--times 3]

A 512 x 512 x 134 CT (0.977 x 0.977 x 3 mm) to 4 x 4 x 3 mm and back, as float32, int16 and bool. The peer blurs where the grid gets
coarser, as ours does; without that it would alias. ``ratio`` below 1: ours is faster. Memory is the growth of the process's peak.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np
import SimpleITK as sitk

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume

FINE = Geometry.regular((134, 512, 512), (3.0, 0.9765625, 0.9765625), (-250.0, -250.0, -400.0))
COARSE = FINE.resample((3.0, 4.0, 4.0))


def measured(work: Callable[[], object], times: int) -> tuple[float, float]:
    """(best seconds, peak MB above the start)."""
    best, before, stop, peak = np.inf, _rss_mb(), Event(), [0.0]

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], _rss_mb())

    watcher = Thread(target=watch)
    watcher.start()
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    stop.set()
    watcher.join()
    return best, peak[0] - before


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def with_simpleitk(volume: Volume, target: Geometry) -> Callable[[], object]:
    """The peer's way; images are made beforehand, so that only its work is timed."""
    image = _image(volume)

    def work() -> object:
        smooth = sitk.Cast(image, sitk.sitkFloat32)
        for axis, (new, old) in enumerate(zip(target.spacing_mm[::-1], volume.geometry.spacing_mm[::-1], strict=True)):
            if new > old * 1.001:
                smooth = sitk.RecursiveGaussian(smooth, sigma=float(np.sqrt(new**2 - old**2) / 2.355), direction=axis)
        size, origin, spacing = target.shape[::-1], target.origin_mm, target.spacing_mm[::-1]
        return sitk.Resample(smooth, size, sitk.Transform(), sitk.sitkLinear, origin, spacing)

    return work


def _image(volume: Volume) -> sitk.Image:
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(volume.geometry.spacing_mm[::-1])
    image.SetOrigin(volume.geometry.origin_mm)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # ours has one thread
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 300, FINE.shape).astype(np.float32)
    for array in (hu, hu.astype(np.int16), hu > 200):
        fine = Volume(array, FINE)
        coarse = fine.to(COARSE)
        for name, volume, target in (("to 4 mm", fine, COARSE), ("back", coarse, FINE)):
            peer = with_simpleitk(volume, target)
            ours_s, ours_mb = measured(lambda v=volume, t=target: v.to(t), times)
            peer_s, peer_mb = measured(peer, times)
            figures = f"oncontour {ours_s:.3f} s {ours_mb:5.0f} MB, SimpleITK {peer_s:.3f} s {peer_mb:5.0f} MB, ratio {ours_s / peer_s:.2f}"
            print(f"{array.dtype.name:8s} {name:8s} {figures}", flush=True)


if __name__ == "__main__":
    main()
