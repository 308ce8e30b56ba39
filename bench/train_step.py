"""One training step (loss, gradients, optimiser) in float32 and in bfloat16: CPU seconds, medians of steps in turn on one thread."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext

import torch
from torch import Tensor

from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.learn.fit import cpu_has_bfloat16
from oncontour.learn.task import Task
from oncontour.quality.task import AssessSettings, AssessTask

NAMES = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible")
STEPS = 7


def main() -> None:
    if not cpu_has_bfloat16():
        print("this CPU has no bfloat16")
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid, some = (2, len(NAMES), 48, 48, 48), torch.rand
    volume = {"image": torch.randn(2, 1, 48, 48, 48), "masks": (some(grid) > 0.9).float(), "known": torch.ones(2, len(NAMES))}
    measure("3D U-Net, 2 windows of 48 x 48 x 48", ContourTask(ContourSettings(NAMES, window=(48, 48, 48))), volume)
    quality = AssessTask(AssessSettings(NAMES))
    image = torch.randn(32, quality.settings.channels, 48, 48)
    image[:, -1] = 0
    ones = dict.fromkeys(("scored", "measured", "present"), torch.ones(32, 1))
    slices = {"image": image, "wrong": (some(32, 1, 48, 48) > 0.9).float(), "dsc": some(32, 1), "outline": some(32, 1), **ones}
    measure("quality net (transformer), 32 slices of 48 x 48", quality, slices)
    cnn = AssessTask(AssessSettings(NAMES, net="quality_cnn"))
    measure("quality net (CNN), 32 slices of 48 x 48", cnn, slices)


def measure(name: str, task: Task[object], batch: dict[str, Tensor]) -> None:
    """Print the median step of either precision and how many times faster bfloat16 is."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    adam = torch.optim.AdamW(task.net.parameters(), 1e-4)
    for n in range(2 * STEPS + 2):
        short = bool(n % 2)
        start = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16) if short else nullcontext():
            loss, _ = task.loss(batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if n > 1:
            seconds[short].append(time.process_time() - start)
    whole, half = (statistics.median(seconds[short]) for short in (False, True))
    print(f"{name:<50}float32 {whole:.3f} s, bfloat16 {half:.3f} s: {whole / half:.2f} times as fast")


if __name__ == "__main__":
    main()
