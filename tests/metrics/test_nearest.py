import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.metrics.nearest import distances

FLAT = np.array([[[0.0, 0, 0], [0, 4, 0], [0, 0, 4]]])


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((3, 1, 1), 3.0),  # above the middle
        ((0, 1, 1), 0.0),  # in it
        ((0, -3, -4), 5.0),  # beyond a corner
        ((0, 2, -2), 2.0),  # beside an edge
        ((0, 4, 4), np.sqrt(8)),  # beside the long edge
        ((12, -5, 0), 13.0),
    ],
)
def test_a_triangle_from_a_pencil(point: tuple[float, ...], expected: float) -> None:
    assert distances(np.array([point], float), FLAT)[0] == pytest.approx(expected)


def test_a_segment_is_a_flat_triangle() -> None:
    line = np.array([[[0.0, 0, 0], [0, 0, 10], [0, 0, 10]]])
    np.testing.assert_allclose(distances(np.array([[3.0, 0, 5], [0, 4, 13], [0, 0, -2], [0, 0, 1]]), line), [3, 5, 2, 0])


def test_nothing_to_measure() -> None:
    assert distances(np.zeros((2, 3)), np.empty((0, 3, 3))).tolist() == [np.inf, np.inf]
    assert distances(np.empty((0, 3)), FLAT).tolist() == []


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_never_farther_than_any_sampled_point_and_the_same_one_by_one(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    triangles = rng.normal(0, 10, (count, 3, 3)) * rng.choice([0.1, 1, 3], (count, 1, 1))
    points = rng.normal(0, 12, (30, 3))
    found = distances(points, triangles)
    alone = np.min([distances(points, triangles[n : n + 1]) for n in range(count)], axis=0)
    np.testing.assert_allclose(found, alone, atol=1e-9)
    weights = rng.dirichlet([0.5, 0.5, 0.5], 3000)
    sampled = np.einsum("sw,nwc->nsc", weights, triangles).reshape(-1, 3)
    closest = np.sqrt(((points[:, None] - sampled[None, : 60_000 // count * count : max(1, count // 4)]) ** 2).sum(-1)).min(1)
    assert (found <= closest + 1e-9).all()


@pytest.mark.parametrize("corners", [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]])
def test_triangles_without_area(corners: list[int]) -> None:
    ends = np.array([[0.0, 0, 0], [0, 0, 10]])
    found = distances(np.array([[3.0, 0, 5], [0, 4, -3]]), ends[corners][None])
    np.testing.assert_allclose(found, [np.sqrt(34) if not any(corners) else 3, 5])
