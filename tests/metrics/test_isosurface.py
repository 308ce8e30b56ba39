from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oncontour.core.boxes import box_of
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.metrics.isosurface import _COUNTS, _TABLE, isosurface
from oncontour.phantom import Sphere

GRID = Geometry.regular((5, 5, 5), (2.0, 1.0, 1.0))


def test_one_voxel_of_coverage_is_an_octahedron() -> None:
    array = np.zeros(GRID.shape, np.float32)
    array[2, 2, 2] = 0.75  # crosses one half a third of the way to its neighbours: 0.25 / 0.75
    mesh, contours = isosurface(Volume(array, GRID))
    assert len(mesh.vertices_mm) == 6
    assert len(mesh.triangles) == 8
    assert mesh.volume_mm3 == pytest.approx(4 / 3 * (2 / 3) * (1 / 3) * (1 / 3))
    assert contours.lengths_mm.sum() == pytest.approx(4 * np.sqrt(2) / 3)
    assert set(contours.slices) == {2}


def test_every_case_of_the_table_uses_exactly_the_crossed_edges() -> None:
    edges = [(c, c | 4 >> axis) for axis in range(3) for c in range(8) if not c & 4 >> axis]
    for code in range(256):
        used = set(_TABLE[code, : _COUNTS[code]].ravel().tolist())
        assert used == {n for n, (a, b) in enumerate(edges) if (code >> a ^ code >> b) & 1}
    assert _COUNTS.max() == 5  # as in Lorensen and Cline


@settings(max_examples=25, deadline=None)
@given(arrays(bool, (4, 5, 6), elements=st.booleans()))
def test_the_surface_of_any_mask_is_closed(array: np.ndarray) -> None:
    mesh, contours = isosurface(Volume(array, Geometry.regular(array.shape)))
    forth = Counter((a, b) for t in mesh.triangles.tolist() for a, b in zip(t, [*t[1:], t[0]], strict=True))
    assert forth == Counter({(b, a): n for (a, b), n in forth.items()})  # each edge as often one way as the other
    assert mesh.volume_mm3 > 0 if array.any() else not len(mesh.vertices_mm)
    for k in set(contours.slices.tolist()):  # every point of a contour is the end of as many lines as it is the start
        ends = contours.ends_mm[contours.slices == k]
        assert sorted(map(tuple, ends[:, 0])) == sorted(map(tuple, ends[:, 1]))


@settings(max_examples=20, deadline=None)
@given(arrays(bool, (4, 5, 6), elements=st.booleans()))
def test_every_voxel_centre_stays_on_its_side(array: np.ndarray) -> None:
    """A vertex lies between an inside and an outside centre, never on or beyond one."""
    mesh, _ = isosurface(Volume(array, Geometry.regular(array.shape)))
    for vertex in mesh.vertices_mm:
        axis = int(np.abs(vertex - np.rint(vertex)).argmax())
        low, high = np.rint(vertex).astype(int), np.rint(vertex).astype(int)
        low[axis], high[axis] = int(np.floor(vertex[axis])), int(np.floor(vertex[axis])) + 1
        assert [_at(array, low), _at(array, high)] in ([True, False], [False, True])


def _at(array: np.ndarray, index: np.ndarray) -> bool:
    return bool((index >= 0).all() and (index < array.shape).all() and array[tuple(index)])


def test_area_and_volume_of_a_sphere() -> None:
    grid = Geometry.regular((50, 50, 50), (1, 1, 1), (-24.6, -24.3, -24.5))
    ball = Sphere((0.0, 0.0, 0.0), 20.0)
    covered, _ = isosurface(ball.coverage(grid))
    assert covered.area_mm2 == pytest.approx(4 * np.pi * 400, rel=0.005)
    assert covered.volume_mm3 == pytest.approx(4 / 3 * np.pi * 8000, rel=0.005)
    drawn, _ = isosurface(ball.mask(grid))
    assert drawn.area_mm2 == pytest.approx(4 * np.pi * 400, rel=0.01)  # the middle of edges would be 7 % too much
    assert drawn.vertex_mm2.sum() == pytest.approx(drawn.area_mm2)


def test_a_mask_at_the_edge_of_the_grid_is_closed_there() -> None:
    mesh, _ = isosurface(Volume(np.ones((12, 12, 12), bool), Geometry.regular((12, 12, 12))))
    middle = mesh.vertices_mm[np.abs(mesh.vertices_mm[:, 1:] - 5.5).max(axis=1) < 1]
    assert sorted(set(middle[:, 0])) == [-0.5, 11.5]


def test_boxes() -> None:
    array = np.zeros((4, 5, 6), bool)
    assert box_of(array) is None
    array[1, 2, 3] = array[2, 2, 5] = True
    assert box_of(array) == np.s_[1:3, 2:3, 3:6]


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        isosurface(Volume(np.full(GRID.shape, np.nan), GRID))
    with pytest.raises(InputError, match="three axes"):
        isosurface(Volume(np.zeros((2, *GRID.shape)), GRID))
