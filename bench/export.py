"""Peak memory of bringing many classes home: 100 classes on a 384^3 grid, windows of 96^3, against MONAI's sliding window.

    python bench/export.py [--size 384] [--classes 100] [--peer-size 160]

The net is a 1x1x1 convolution, so that what is measured is the export. Each line is a process of its own; "above input" is its peak
resident memory less what it held when the input was in place. MONAI holds every class at full resolution: it is run on a smaller grid
and its figure, which grows with the number of voxels, is carried over to the full one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

WINDOW = 96


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def made(size: int) -> np.ndarray:
    return np.random.default_rng(0).random((size, size, size), dtype=np.float32)


def lines(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and offsets of tangents to x^2: class n is largest around x = n / classes."""
    at = np.linspace(0, 1, classes, dtype=np.float32)
    return 2 * at, -(at**2)


def ours(size: int, classes: int, blend: str, finer: bool) -> dict[str, float | str]:
    from oncontour.core.geometry import Geometry
    from oncontour.core.volume import Volume
    from oncontour.ops.windows import stitch_labels

    slopes, offsets = lines(classes)

    def net(images: np.ndarray) -> np.ndarray:
        out = np.empty((len(images), classes, *images.shape[2:]), np.float32)
        for n in range(classes):
            np.multiply(images[:, 0], slopes[n], out=out[:, n])
            out[:, n] += offsets[n]
        return out

    image = Volume(made(size), Geometry.regular((size, size, size), (2.0, 2.0, 2.0)))
    target = image.geometry.resample((2.0, 1.5, 1.5)) if finer else image.geometry
    before, start = resident_mb(), time.perf_counter()
    found = stitch_labels(net, image, classes, window=(WINDOW,) * 3, overlap=0.25, target=target, blend=blend)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    if not finer and found.blend == "core":
        wanted = np.rint(image.array[:, :, ::37] * (classes - 1))
        assert (found.labels.array[:, :, ::37] == wanted).mean() > 0.999
    return {"above_mb": peak_mb() - before, "seconds": seconds, "blend": found.blend, "labels_mb": found.labels.array.nbytes / 1e6}


def monai(size: int, classes: int) -> dict[str, float | str]:
    import torch
    from monai.inferers import sliding_window_inference

    slopes, offsets = lines(classes)
    net = torch.nn.Conv3d(1, classes, 1)
    with torch.no_grad():
        net.weight[:] = torch.from_numpy(slopes).reshape(-1, 1, 1, 1, 1)
        net.bias[:] = torch.from_numpy(offsets)
    image = torch.from_numpy(made(size))[None, None]
    with torch.inference_mode():
        before, start = resident_mb(), time.perf_counter()
        scores = sliding_window_inference(image, (WINDOW,) * 3, 1, net, overlap=0.25, mode="gaussian")
        labels = scores.argmax(dim=1).to(torch.uint8)
    return {"above_mb": peak_mb() - before, "seconds": time.perf_counter() - start, "blend": "gaussian", "labels_mb": labels.nbytes / 1e6}


def alone(what: str, size: int, classes: int) -> dict[str, float | str]:
    """The figures of one way, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, "--size", str(size), "--classes", str(classes)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--peer-size", type=int, default=160)
    parser.add_argument("--one", default="")
    a = parser.parse_args()
    if a.one:
        way = {
            "core": lambda: ours(a.size, a.classes, "auto", False),
            "core, finer target": lambda: ours(a.size, a.classes, "auto", True),
            "blended": lambda: ours(a.size, a.classes, "gaussian", False),
            "monai": lambda: monai(a.size, a.classes),
        }[a.one]
        print(json.dumps(way()))
        return
    peer = alone("monai", a.peer_size, a.classes)
    carried = float(peer["above_mb"]) * (a.size / a.peer_size) ** 3
    print(f"{a.classes} classes, windows of {WINDOW}^3; peak above input")
    print(f"  MONAI sliding window, {a.peer_size}^3 measured     {float(peer['above_mb']):8.0f} MB  {float(peer['seconds']):6.1f} s")
    print(f"  MONAI sliding window, {a.size}^3 carried over {carried:8.0f} MB")
    for what, classes in (("core", a.classes), ("core, finer target", a.classes), ("blended", 8)):
        found = alone(what, a.size, classes)
        above = float(found["above_mb"])
        ratio = f"1/{carried / above:.0f} of MONAI" if classes == a.classes else f"{classes} classes"
        print(f"  oncontour, {a.size}^3, {what:20s} {above:8.0f} MB  {float(found['seconds']):6.1f} s  ({found['blend']}; {ratio})")


if __name__ == "__main__":
    main()
