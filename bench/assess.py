"""Contour quality of 8 structures on a CT of 512 x 512 x 134: seconds by step, beside one pass of the net over the same slices alone."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np

from oncontour.core.case import Case
from oncontour.phantom import head_neck
from oncontour.quality.predict import BATCH, Assessor, load_assessor, refusal
from oncontour.quality.rules import findings_or_why

NAMES = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "PTV_7000")


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    coarse = head_neck(1, (3, 3, 3))
    grid = coarse.geometry.resample((3, 0.977, 0.977))
    low = [(n - m) // 2 for n, m in zip(grid.shape, (134, 512, 512), strict=True)]
    grid = grid.crop(low, [a + b for a, b in zip(low, (134, 512, 512), strict=True)])
    case = Case("bench", {"ct": coarse.ct.to(grid, fill=-1000)}, {n: coarse.mask(n).to(grid) for n in NAMES})
    for given in (case, with_probabilities(case)):
        print(f"hn-quality, {'with' if given.probabilities else 'without'} the segmenter's probability maps")
        measure(load_assessor("hn-quality", threads=threads), given)


def with_probabilities(case: Case) -> Case:
    """The case as a contour model leaves it for a quality model that sees its probability maps: on the coarse grid, blurred masks."""
    coarse = case.geometry.resample((2.5, 4.0, 4.0))
    drawn = {n: case.mask(n).map(lambda a: a.astype(np.float32)).to(coarse) for n in NAMES}
    return replace(case, probabilities={n: v.map(lambda a: np.rint(255 * a).astype(np.uint8)) for n, v in drawn.items()})


def measure(assessor: Assessor, case: Case) -> None:
    """Print the seconds of each step."""
    steps: dict[str, float] = {}

    def timed(name: str, work):  # type: ignore[no-untyped-def]
        begin = time.perf_counter()
        out = work()
        steps[name] = time.perf_counter() - begin
        return out

    timed("compile the net", lambda: assessor.engine)
    work = timed("grid, reference probabilities", lambda: assessor.work(case))
    timed("refusals", lambda: refusal(case, assessor.card))
    timed("rule findings", lambda: findings_or_why(case, NAMES))
    seen = timed("measure", lambda: [assessor.measure(work, n) for n in NAMES if n in assessor.task.settings.structures])
    timed("all of it again, as predict does", lambda: assessor.predict(case))
    slices = sum(len(m.rows.k) for m in seen)
    s = assessor.task.settings
    batch = np.zeros((BATCH, s.channels, *s.window), np.float32)
    begin = time.perf_counter()
    for _ in range(-(-slices // BATCH)):
        assessor.engine(batch)
    net = time.perf_counter() - begin
    for name, seconds in steps.items():
        print(f"{name:<36}{seconds:8.2f} s")
    print(f"CT {case.geometry}; {slices} slices; the net alone {net:.2f} s ({1000 * net / slices:.2f} ms a slice)")


if __name__ == "__main__":
    main()
