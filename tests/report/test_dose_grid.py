"""The dose in the page: what is unpacked there is the dose that came, where it came."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.report.dose_grid import BUDGET, NOWHERE, DoseGrid, dose_grid
from oncontour.report.scene import scene

SHOWN = Geometry.regular((20, 40, 50), (3.0, 2.0, 2.0), (-49.0, -39.0, 100.0))


def unpack(packed: DoseGrid) -> np.ndarray[Any, Any]:
    """What scene.js does."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed.text)), np.uint8)
    folded = data[: data.size // 2].astype(np.int64) | data[data.size // 2 :].astype(np.int64) << 8
    steps = np.where(folded & 1, -((folded + 1) >> 1), folded >> 1).reshape(packed.shape)
    return np.cumsum(steps, axis=2) & 65535


def ramp(grid: Geometry) -> Volume:
    """x / 4 + 20 Gy, which linear interpolation does not change."""
    at = grid.points(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))
    return Volume((at[..., 0] / 4 + 20).astype(np.float32), grid)


@pytest.mark.parametrize("axes", [None, [[0, 0, -1], [0, -1, 0], [-1, 0, 0]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]])
def test_voxels_along_the_grid_come_back_as_they_were(axes: Any) -> None:
    """Flipped, turned or not: to half a step, at their places."""
    grid = Geometry.regular((12, 14, 20), (4.0, 5.0, 4.5), (0.0, 0.0, 130.0), axes)
    packed = dose_grid(ramp(grid), SHOWN)
    assert packed is not None
    codes = unpack(packed)
    k, j, i = np.argwhere(codes != NOWHERE).T
    at = np.asarray(packed.from_mm) + np.stack([k, j, i], axis=1) * packed.step_mm
    points = SHOWN.points(at / SHOWN.spacing_mm - 0.5)
    assert np.abs(codes[k, j, i] * packed.step_gy - (points[:, 0] / 4 + 20)).max() < 0.011
    assert np.abs(grid.voxels(points) - np.rint(grid.voxels(points))).max() < 1e-3


def test_an_oblique_dose_is_interpolated_and_empty_beyond_its_edge() -> None:
    c, s = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    grid = Geometry.regular((12, 14, 20), (4.0, 4.0, 4.0), (-30.0, -20.0, 105.0), [[0, 0, 1], [-s, c, 0], [c, s, 0]])
    packed = dose_grid(ramp(grid), SHOWN)
    assert packed is not None
    codes = unpack(packed)
    assert 0.1 < (codes == NOWHERE).mean() < 0.9
    k, j, i = np.argwhere(codes != NOWHERE).T
    points = SHOWN.points((np.asarray(packed.from_mm) + np.stack([k, j, i], axis=1) * packed.step_mm) / SHOWN.spacing_mm - 0.5)
    inside = grid.voxels(points)
    well = ((inside > 0.5) & (inside < np.asarray(grid.shape) - 1.5)).all(axis=1)
    assert np.abs(codes[k, j, i] * packed.step_gy - (points[:, 0] / 4 + 20))[well].max() < 0.02


def test_nowhere_near_is_no_dose() -> None:
    assert dose_grid(ramp(Geometry.regular((5, 5, 5), (2, 2, 2), (500, 500, 500))), SHOWN) is None
    nothing = Volume(np.full(SHOWN.shape, np.nan, np.float32), SHOWN)
    assert dose_grid(nothing, SHOWN) is None


def test_a_fine_dose_with_noise_stays_small() -> None:
    """Four million voxels of a Monte Carlo dose, 1 % of 60 Gy: at most 3.6 MB of text."""
    grid = Geometry.regular((160, 160, 160), (2, 2, 2))
    noisy = 60 + np.random.default_rng(0).normal(0, 0.6, grid.shape)
    packed = dose_grid(Volume(noisy.astype(np.float32), grid), grid)
    assert packed is not None
    assert np.prod(packed.shape) < 1.05 * BUDGET
    assert len(packed.text) < 3.6e6
    assert packed.most_gy == pytest.approx(60, abs=5)


def test_a_large_ct_with_its_dose_makes_a_page_of_less_than_15_mb() -> None:
    """512 x 512 x 134 voxels, a body of 48 x 30 cm with the noise of a planning CT (15 HU) and a dose with noise of its own on 3 mm."""
    rng = np.random.default_rng(0)
    grid = Geometry.regular((134, 512, 512), (3, 0.98, 0.98))
    j, i = np.mgrid[:512, :512]
    body = ((i - 256) / 245) ** 2 + ((j - 256) / 153) ** 2 < 1
    noise = rng.normal(0, 15, (600, 512)).astype(np.float32)
    ct = np.stack([np.where(body, noise[k % 80 : k % 80 + 512], -1000) for k in range(134)])
    coarse = Geometry.regular((134, 167, 167), (3, 3, 3))
    falls = np.exp(-(((np.mgrid[:167, :167] - 83) / 40) ** 2).sum(axis=0))
    dose = (60 * falls + rng.normal(0, 0.3, coarse.shape)).clip(0).astype(np.float32)
    shown = scene(Case("big", {"ct": Volume(ct, grid), "dose": Volume(dose, coarse)}), [])
    assert shown.dose is not None
    size = sum(len(block.text) for block in shown.blocks) + len(shown.dose.text)
    assert 5e6 < size < 14.5e6
