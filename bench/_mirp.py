"""mirp's side of bench/texture.py, run by the Python of an environment that has mirp: arrays in, seconds, memory and values out (JSON).

PYTHON bench/_mirp.py ARRAYS.npz '{"bins": 32, "families": ["glcm"], "methods": {"glcm": ["3d_volume_merge"]}, "times": 1}'

The image holds whole numbers and is given as CT, so that the intensity-volume histogram takes them as they are.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from importlib.metadata import version

import numpy as np
from mirp import extract_features


def main() -> None:
    logging.disable(logging.INFO)
    arrays, asked = np.load(sys.argv[1]), json.loads(sys.argv[2])
    image, mask = arrays["image"], arrays["mask"].astype(np.int32)
    methods = {f"{family}_spatial_method": names for family, names in asked["methods"].items()}
    before = peak_mb()
    cpu = wall = math.inf
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        for _ in range(asked["times"]):
            started, clock = time.process_time(), time.perf_counter()
            frame = extract_features(
                image=image,
                mask=mask,
                image_modality="ct",
                base_discretisation_method="fixed_bin_number",
                base_discretisation_n_bins=asked["bins"],
                ivh_discretisation_method="none",
                base_feature_families=asked["families"],
                **methods,
            )[0]
            cpu, wall = min(cpu, time.process_time() - started), min(wall, time.perf_counter() - clock)
    values = {name: float(frame[name].iloc[0]) for name in frame.columns if name.split("_")[0] in asked["families_ours"]}
    told = {"version": version("mirp"), "cpu": cpu, "wall": wall, "before_mb": before, "peak_mb": peak_mb(), "values": values}
    sys.stdout.write(json.dumps(told))


def peak_mb() -> float:
    """Of this program alone: the kernel's ru_maxrss begins at what the process was forked from."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
