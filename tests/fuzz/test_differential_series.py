"""300 random series of a fixed seed, each read as it was written; and the judges of that see what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io.dicom.series import read_series
from tests.fuzz import differential_series as differential

KINDS = ("even", "uneven", "missing", "tilted", "doubled")


def test_random_series_are_read_as_they_were_written() -> None:
    assert differential.check(seed=1, n=300) == []


def test_every_kind_is_among_them() -> None:
    assert {kind(np.random.default_rng(0)).kind for kind in differential.KINDS} == set(KINDS)


def shifted(volume: Volume) -> Volume:
    """0.3 mm to the left and 0.6 mm down, at whatever size of voxels."""
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += (0.3, 0.0, -0.6)
    return Volume(volume.array, Geometry(volume.geometry.shape, affine))


def mirrored(volume: Volume) -> Volume:
    return Volume(np.ascontiguousarray(volume.array[:, :, ::-1]), volume.geometry)


def brighter(volume: Volume) -> Volume:
    array: NDArray[np.float32] = volume.array.astype(np.float32)
    array[0, 1, 1] += 2
    return Volume(array, volume.geometry)


@pytest.mark.parametrize("wrong", [shifted, mirrored, brighter])
@pytest.mark.parametrize("kind", ["even", "uneven", "tilted"])
def test_the_judges_see_what_is_wrong(tmp_path: Path, kind: str, wrong: object) -> None:
    """Each with a volume that is right but for one thing."""
    make = next(one for one in differential.KINDS if one(np.random.default_rng(0)).kind == kind)
    rng = np.random.default_rng(7)
    plan = make(rng)
    made, _ = differential._written(plan, tmp_path, rng)
    volume = read_series(tmp_path)[0]
    spoilt = wrong(volume)  # type: ignore[operator]
    judges = [differential._linear if plan.values is None else differential._slice_by_slice]
    for judge in judges:
        assert list(judge(volume, made, plan)) == []
        assert list(judge(spoilt, made, replace(plan))) != []
    if kind == "even":
        assert list(differential._as_simpleitk(volume, tmp_path)) == []
        assert list(differential._as_simpleitk(spoilt, tmp_path)) != []
