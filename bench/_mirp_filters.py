"""mirp's side of bench/filters.py, run by the Python of an environment that has mirp: an array in, seconds and responses out.

PYTHON bench/_mirp_filters.py ARRAY.npz OUT.npz '[{"filter_kernels": "mean", ...}, ...]'

A filter's seconds are those of ``extract_images`` with it less those of ``extract_images`` without any: what reads and writes images is not
counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from importlib.metadata import version

import numpy as np
from mirp import extract_images


def main() -> None:
    logging.disable(logging.INFO)
    loaded = np.load(sys.argv[1])
    image, mask = loaded["image"], loaded["mask"].astype(np.int32)
    responses, seconds = {}, []
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        none = min(timed(image, mask, {})[0] for _ in range(4))
        for n, settings in enumerate(json.loads(sys.argv[3])):
            taken, found = min((timed(image, mask, settings) for _ in range(4)), key=lambda one: one[0])
            seconds.append(taken - none)
            responses[str(n)] = found[-1]
    np.savez(sys.argv[2], **responses)
    sys.stdout.write(json.dumps({"version": version("mirp"), "cpu": seconds}))


def timed(image: np.ndarray, mask: np.ndarray, settings: dict[str, object]) -> tuple[float, list[np.ndarray]]:
    started = time.process_time()
    found = extract_images(
        image=image,
        mask=mask,
        image_export_format="numpy",
        write_images=False,
        export_images=True,
        boundary_condition="mirror",
        **settings,
    )
    return time.process_time() - started, found[0][0]


if __name__ == "__main__":
    main()
