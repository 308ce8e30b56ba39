"""Seconds to read a CT series from its folder: oncontour.io.dicom.series against SimpleITK's series reader (GDCM), in one run.

    python bench/series.py [FOLDER ...]

By default the real LUNG1-001 under $ONCONTOUR_DATA (or ../shared/data), and a synthetic 200 x 512 x 512.
Prints the best of five of each, after one warm-up, and the ratio (below 1: faster than SimpleITK). Both start from the folder's name and
end with HU in memory; ours also checks spacing, orientation, doubles and length of every file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def best_s(work: Callable[[], object], times: int = 5) -> float:
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def with_simpleitk(folder: Path) -> np.ndarray:
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


def with_oncontour(folder: Path) -> np.ndarray:
    from oncontour.io.dicom.series import read_series

    return read_series(folder)[0].array


def synthetic(folder: Path) -> Path:
    from tests.dicom_cases import make_series

    noise = np.random.default_rng(0).integers(-1000, 2000, (512, 512)).astype(float)
    make_series(folder, image=lambda points: noise, rows=512, columns=512, offsets=np.arange(200.0))
    return folder


def main() -> None:
    data = Path(os.environ.get("ONCONTOUR_DATA", ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(a) for a in sys.argv[1:]]
        if not folders:
            real = data / "dicom" / "LUNG1-001" / "image"
            folders = [real] if real.is_dir() else []
            folders.append(synthetic(Path(scratch, "synthetic-200x512x512")))
        for folder in folders:
            ours, theirs = best_s(lambda f=folder: with_oncontour(f)), best_s(lambda f=folder: with_simpleitk(f))
            same = np.array_equal(with_oncontour(folder), with_simpleitk(folder))
            print(f"{folder.name}: oncontour {ours:.3f} s, SimpleITK {theirs:.3f} s, ratio {ours / theirs:.2f}, values equal: {same}")


if __name__ == "__main__":
    main()
