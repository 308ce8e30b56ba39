"""Edges and corners that a grid cuts off, put back on solids of known volume."""

from __future__ import annotations

import numpy as np
import pytest

from oncontour.algebra.creases import sharpened
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.metrics.isosurface import Mesh, surface_at_zero
from oncontour.metrics.nearest import distances

GRID = Geometry.regular((40, 40, 40), (0.5, 0.5, 0.5), (-9.8, -9.7, -9.6))
SIDES = np.array([10.0, 8.0, 6.0])


def turned(angle: float) -> np.ndarray:
    """A rotation about an axis that is none of the grid's."""
    x, y, z = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def box(angle: float) -> tuple[Mesh, np.ndarray]:
    """The surface from the grid of a turned box, and its true corners, in mm from voxel 0 along (k, j, i)."""
    at = GRID.points(np.indices(GRID.shape).reshape(3, -1).T) @ turned(angle)
    beyond = np.abs(at) - SIDES / 2
    level = np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)
    corners = np.array(list(np.ndindex(2, 2, 2))) * SIDES - SIDES / 2
    return surface_at_zero(Volume(level.reshape(GRID.shape).astype(np.float32), GRID)), GRID.voxels(corners @ turned(angle).T) * 0.5


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.1])
def test_a_box_gets_its_edges_and_corners_back(angle: float) -> None:
    plain, corners = box(angle)
    sharp = sharpened(plain, 0.5)
    assert abs(plain.volume_mm3) < 0.995 * SIDES.prod()
    assert abs(sharp.volume_mm3) == pytest.approx(SIDES.prod(), rel=0.002)
    assert distances(corners, sharp.corners_mm).mean() < 0.5 * distances(corners, plain.corners_mm).mean()


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_it_stays_closed(angle: float) -> None:
    """Each edge belongs to two triangles, which run along it in opposite directions."""
    triangles = sharpened(box(angle)[0], 0.5).triangles
    ways = np.concatenate([triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    assert {tuple(way) for way in ways} == {tuple(way) for way in ways[:, ::-1]}
    assert len({tuple(way) for way in ways}) == len(ways)


def test_a_ball_has_none_and_is_left_as_it_is() -> None:
    at = GRID.points(np.indices(GRID.shape).reshape(3, -1).T)
    ball = surface_at_zero(Volume((np.linalg.norm(at, axis=1) - 6).reshape(GRID.shape).astype(np.float32), GRID))
    assert np.array_equal(sharpened(ball, 0.5).corners_mm, ball.corners_mm)
