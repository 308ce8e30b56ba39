"""The page of a daily visit: charts over visits, and the two CTs to compare."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest

from oncontour.adapt.deformation import Deformation
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.report.adapt import Images
from oncontour.report.compare import BUDGET, RANGE_HU, _grid, compared
from oncontour.report.course import Figures, Point, draw, in_order, svg


def point(day: int | None, cc: float, mm: float, gy: float) -> Point:
    return Point(day, {"Parotid_L": Figures(cc, mm, gy)})


def test_visits_stand_by_day_where_every_one_has_its_own() -> None:
    planning, week, later = point(0, 20, 0, 26), point(7, 18, 1, 27), point(21, 15, 2, 29)
    assert in_order([planning, later, week]) == [planning, week, later]
    undated = point(None, 18, 1, 27)
    assert in_order([planning, later, undated]) == [planning, later, undated]
    assert "days after planning" in svg([planning, week, later])
    assert "visit (0: planning)" in svg([planning, undated, later])


def test_volume_is_told_in_percent_of_planning_and_a_missing_structure_leaves_a_gap() -> None:
    figure = draw([point(0, 20, 0, 26), Point(7, {}), point(14, 15, 2, 29)])
    volume, moved, dose = (axis.lines[0].get_xydata() for axis in figure.axes)
    assert volume[:, 0].tolist() == [0, 7, 14]
    assert volume[[0, 2], 1].tolist() == [100, 75]
    assert np.isnan([volume[1, 1], moved[1, 1], dose[1, 1]]).all()
    assert dose[2, 1] == 29


@pytest.fixture
def images() -> Images:
    """A ball that the day has 4 mm to the left; the set-up knows nothing of it, the deformation all."""
    grid = Geometry.regular((20, 60, 60), (3.0, 1.5, 1.5))
    points = grid.points(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))

    def ball(x_mm: float) -> Volume:
        return Volume(np.linalg.norm(points - (x_mm, 45, 30), axis=-1) < 20, grid)

    planning, day = (
        Case(name, {"ct": ball(x).map(lambda a: np.where(a, 40, -1000).astype(np.int16))}, {"Parotid_L": ball(x)})
        for name, x in (("planning", 45.0), ("daily", 49.0))
    )
    shift = np.eye(4)
    shift[0, 3] = -4
    return Images(
        today=day.ct,
        planning=planning.ct,
        deformation=Deformation.from_matrix(shift, grid, "daily", "planning"),
        set_up=np.eye(4),
        planned=planning,
        propagated=day,
        direct={},
        colours={"Parotid_L": (10, 120, 200)},
        point_mm=[45.0, 45.0, 30.0],
        body=day.mask("Parotid_L"),
    )  # fmt: skip


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    codes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)
    low, high = RANGE_HU
    return low + np.cumsum(codes, axis=-1, dtype=np.uint8) * (high - low) / 255


def test_the_page_has_both_cts_as_the_set_up_and_as_the_deformation_lay_them(images: Images) -> None:
    found = compared(images)
    words = json.loads(found.words)
    shape = tuple(words["shape"])
    today, set_up, deformed = (unpacked(found.images[name], shape) for name in ("today", "setup", "deformed"))
    grid = _grid(images)
    expected = np.clip(images.today.to(grid, fill=-1000, blur=False).array.astype(float), *RANGE_HU)
    assert np.abs(today - expected).max() <= 2.01
    assert np.abs(today - deformed).mean() < 0.2 * np.abs(today - set_up).mean()
    contours = json.loads(zlib.decompress(base64.b64decode(found.contours)))
    middles = {kind: np.mean([steps[0] / 100 for _, steps in contours[kind][0]]) for kind in ("planned", "propagated")}
    assert middles["propagated"] - middles["planned"] == pytest.approx(4, abs=1)
    assert contours["direct"] == [[]]


def test_a_large_ct_stays_within_the_budget_and_keeps_its_slices(images: Images) -> None:
    grid = Geometry.regular((134, 512, 512), (3.0, 1.0, 1.0))
    large = Volume(np.broadcast_to(np.int16(0), grid.shape), grid)
    body = Volume(np.broadcast_to(np.True_, grid.shape), grid)
    held = _grid(Images(**{**vars(images), "today": large, "body": body}))
    assert held.shape[0] == 134
    assert np.prod(held.shape) <= 1.5 * BUDGET
