"""Figures by which a physicist judges a registration: set-up shift in mm and degrees, and the target registration error of landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from oncontour.adapt.deformation import Deformation
from oncontour.core.geometry import Floats


@dataclass(frozen=True)
class Pose:
    """How a patient lies on the day beside planning: ``shift_mm`` (x, y, z; LPS) of one point, and rotations in ``degrees`` about the
    fixed axes x, then y, then z through it."""

    shift_mm: tuple[float, float, float]
    degrees: tuple[float, float, float]

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(self.shift_mm))

    @property
    def angle_degrees(self) -> float:
        """Of the whole rotation, about whatever axis."""
        return float(np.degrees(Rotation.from_euler("xyz", self.degrees, degrees=True).magnitude()))


def pose(set_up: Floats, middle_mm: ArrayLike) -> Pose:
    """The pose of the day by a 4x4 rigid ``set_up`` from points of the day to planning points: where the planning point ``middle_mm`` is on
    the day, less where it was."""
    back = np.linalg.inv(set_up)
    point = np.asarray(middle_mm, dtype=np.float64)
    x, y, z = (float(v) for v in back[:3, :3] @ point + back[:3, 3] - point)
    a, b, c = (float(v) for v in Rotation.from_matrix(back[:3, :3]).as_euler("xyz", degrees=True))
    return Pose((x, y, z), (a, b, c))


@dataclass(frozen=True)
class LandmarkError:
    """Target registration error in mm of landmarks: mean, median, 95th percentile and worst."""

    mean: float
    median: float
    p95: float
    worst: float


def landmark_errors(landmarks: Floats, set_up: Floats, deformation: Deformation) -> Mapping[str, LandmarkError]:
    """The error of ``landmarks`` (n, 2, 3: the day's points and their places in planning) as the images lie, after the set-up and after the
    deformation, by the names "before", "set-up" and "deformed"."""
    day, planning = landmarks[:, 0], landmarks[:, 1]
    moved = {"before": day, "set-up": day @ set_up[:3, :3].T + set_up[:3, 3], "deformed": deformation.to_moving(day)}
    return {name: _error(np.linalg.norm(points - planning, axis=1)) for name, points in moved.items()}


def _error(mm: Floats) -> LandmarkError:
    return LandmarkError(float(mm.mean()), float(np.median(mm)), float(np.percentile(mm, 95)), float(mm.max()))
