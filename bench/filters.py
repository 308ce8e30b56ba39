"""Filters of IBSI-2 on an image of 96^3 voxels: CPU time and responses, beside mirp where it is installed.

    python bench/filters.py [--mirp PYTHON]

mirp is measured as in ``texture.py``: where PYTHON (else $ONCONTOUR_MIRP, else this Python) has it, in a process of its own, each side with
one thread. Responses are compared 30 voxels inside the image, where what lies beyond it matters to none but the wavelet of Simoncelli.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _alone import ONE_THREAD, on_one_thread
from scipy import ndimage

from oncontour.radiomics.filters.response import respond
from oncontour.radiomics.filters.settings import parse

EDGE = 96
INNER = (slice(30, -30),) * 3
_LAWS = {"filter_kernels": "laws", "laws_kernel": "l5e5e5", "laws_rotation_invariance": True, "laws_pooling_method": "max"}
_GABOR = {"filter_kernels": "gabor", "gabor_sigma": 5.0, "gabor_lambda": 2.0, "gabor_gamma": 1.5, "gabor_response": "modulus"}
_WAVELET = {
    "filter_kernels": "separable_wavelet",
    "separable_wavelet_families": "db3",
    "separable_wavelet_rotation_invariance": True,
    "separable_wavelet_pooling_method": "mean",
}
PAIRS: dict[str, dict[str, object]] = {
    "mean": {"filter_kernels": "mean", "mean_filter_kernel_size": 5},
    "log": {"filter_kernels": "laplacian_of_gaussian", "laplacian_of_gaussian_sigma": 1.5},
    "laws": {**_LAWS, "laws_compute_energy": True, "laws_delta": 7},
    "gabor:planes=true": {**_GABOR, "gabor_theta_step": 22.5, "gabor_rotation_invariance": True, "gabor_pooling_method": "mean"},
    "wavelet": {**_WAVELET, "separable_wavelet_set": "llh"},
    "wavelet:bands=HHH:level=2": {**_WAVELET, "separable_wavelet_set": "hhh", "separable_wavelet_decomposition_level": 2},
    "simoncelli": {"filter_kernels": "nonseparable_wavelet", "nonseparable_wavelet_families": "simoncelli"},
}
"""A filter as ours writes it and as mirp does."""


def ours(image: np.ndarray, word: str) -> tuple[float, np.ndarray]:
    """(CPU seconds of the quickest of four, response)."""
    best, response = np.inf, image
    for _ in range(4):
        started = time.process_time()
        response = respond(image, (1.0, 1.0, 1.0), parse(word))
        best = min(best, time.process_time() - started)
    return best, response


def peer(python: str, image: np.ndarray) -> tuple[str, list[float], list[np.ndarray]] | None:
    if subprocess.run([python, "-c", "import mirp"], capture_output=True, check=False).returncode:
        print("mirp is not installed here: not measured (pip install 'oncontour[bench]', or --mirp PYTHON)")
        return None
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "image.npz", Path(folder) / "responses.npz"
        np.savez(given, image=image, mask=np.ones(image.shape, bool))
        command = [python, str(Path(__file__).with_name("_mirp_filters.py")), str(given), str(found), json.dumps([*PAIRS.values()])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
        if done.returncode:
            raise SystemExit(f"{command[1]} ended with {done.returncode}: {done.stderr[-2000:]}")
        told, responses = json.loads(done.stdout), np.load(found)
        return told["version"], told["cpu"], [responses[str(n)] for n in range(len(PAIRS))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirp", default=os.environ.get("ONCONTOUR_MIRP", sys.executable), metavar="PYTHON")
    given = parser.parse_args()
    on_one_thread()
    image = np.round(1000 * ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(EDGE,) * 3), 1.5))
    theirs = peer(given.mirp, image)
    print(f"filters on {EDGE}^3 voxels, seconds of CPU" + (f", mirp {theirs[0]}" if theirs else ""))
    total = np.zeros(2)
    for n, word in enumerate(PAIRS):
        seconds, response = ours(image, word)
        line = f"{word:<28} ours {seconds:7.3f}"
        if theirs:
            apart = np.abs(response - theirs[2][n])[INNER].max() / np.ptp(response[INNER])
            line += (
                f"   mirp {theirs[1][n]:7.3f}   mirp / ours {theirs[1][n] / seconds:6.1f}   furthest apart {100 * apart:.2g} % of the range"
            )
            total += seconds, theirs[1][n]
        print(line)
    if theirs:
        print(f"{'all':<28} ours {total[0]:7.3f}   mirp {total[1]:7.3f}   mirp / ours {total[1] / total[0]:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
