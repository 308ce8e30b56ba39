"""pictologics' side of bench/texture.py, run by the Python (3.12) of an environment that has it: arrays in, seconds and values out.

PYTHON bench/_pictologics.py ARRAYS.npz '{"bins": 32, "times": 5}'

It is given what ours is given: intensities and a mask; grey levels are made outside the clock, which runs for the features alone.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import numpy as np
from pictologics.features import intensity, morphology, texture
from pictologics.loader import Image


def main() -> None:
    arrays, asked = np.load(sys.argv[1]), json.loads(sys.argv[2])
    image, mask, bins = arrays["image"], arrays["mask"], asked["bins"]
    values = image[mask]
    levels = np.zeros(image.shape)
    levels[mask] = np.minimum(np.floor(bins * (values - values.min()) / np.ptp(values)) + 1, bins)
    shown, inside = (Image(array, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)) for array in (image, mask.astype(np.uint8)))
    whole = mask.astype(np.uint8)
    parts = {
        "textures": lambda: texture.calculate_all_texture_features(levels, whole, bins),
        "statistics": lambda: intensity.calculate_intensity_features(values),
        "histogram": lambda: intensity.calculate_intensity_histogram_features(levels[mask], bins),
        "volume histogram": lambda: intensity.calculate_ivh_features(values, bin_width=1.0),
        "autocorrelation": lambda: intensity.calculate_spatial_intensity_features(shown, inside),
        "local peaks": lambda: intensity.calculate_local_intensity_features(shown, inside),
        "morphology": lambda: morphology.calculate_morphology_features(inside, shown, inside),
    }
    seconds, found = {}, {}
    for name, work in parts.items():
        found |= {key: float(value) for key, value in work().items()}
        best = np.inf
        for _ in range(asked["times"]):
            started = time.process_time()
            work()
            best = min(best, time.process_time() - started)
        seconds[name] = best
    sys.stdout.write(json.dumps({"version": version("pictologics"), "cpu": seconds, "values": found}))


if __name__ == "__main__":
    main()
