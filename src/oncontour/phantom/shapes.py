"""Solids in patient LPS millimetres whose volume, axial sections and voxel coverage are known.

A ``Shape`` answers which points lie inside and what part of each voxel it fills; a ``Solid`` also knows its volume and its contour in
any axial plane, in closed form. They are the truth that readers, writers, rasteriser and metrics are tested against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Point = tuple[float, float, float]


class Shape(ABC):
    """Anything that can say which points lie inside and in which box it ends."""

    @abstractmethod
    def inside(self, points_mm: ArrayLike) -> Bools:
        """(..., 3) LPS millimetres -> (...) bool."""

    @property
    @abstractmethod
    def box_mm(self) -> Floats:
        """(2, 3): the least and the largest (x, y, z) that it may reach."""

    def coverage(self, geometry: Geometry, sub: int = 4) -> Volume:
        """What part of each voxel lies inside, float32 in [0, 1], by midpoint quadrature with ``sub``^3 points a voxel.

        ``sub=4`` puts the volume of a sphere of 10 voxels radius right within 0.02 %.
        """
        out = np.zeros(geometry.shape, np.float32)
        low, high = _voxel_box(self.box_mm, geometry)
        if (high > low).all():
            steps = (np.arange(sub) + 0.5) / sub - 0.5
            rows = (np.arange(low[1], high[1])[:, None] + steps).ravel()
            columns = (np.arange(low[2], high[2])[:, None] + steps).ravel()
            for k in range(int(low[0]), int(high[0])):
                out[k, low[1] : high[1], low[2] : high[2]] = self._slice_coverage(geometry, k + steps, rows, columns, sub)
        return Volume(out, geometry)

    def mask(self, geometry: Geometry, sub: int = 3) -> Volume:
        """The voxels that lie inside by one half or more, bool."""
        return self.coverage(geometry, sub).binary()

    def _slice_coverage(self, geometry: Geometry, planes: Floats, rows: Floats, columns: Floats, sub: int) -> NDArray[np.float32]:
        total = np.zeros((len(rows) // sub, len(columns) // sub), np.float32)
        for plane in planes:
            voxels = np.stack(np.broadcast_arrays(plane, rows[:, None], columns[None, :]), axis=-1)
            hit = self.inside(geometry.points(voxels))
            total += hit.reshape(len(rows) // sub, sub, len(columns) // sub, sub).sum(axis=(1, 3), dtype=np.float32)
        return total / np.float32(sub**3)


class Solid(Shape):
    """A shape whose volume and axial sections are known in closed form."""

    @property
    @abstractmethod
    def volume_mm3(self) -> float:
        """The exact volume."""

    @abstractmethod
    def contours_at(self, z_mm: float, points: int = 360) -> tuple[Floats, ...]:
        """The closed polygons (n, 3) of the section at ``z_mm``; none where the plane misses it. Holes are polygons of their own (XOR)."""

    def contours(self, planes_mm: Iterable[float], points: int = 360) -> Contours:
        """What a planning system would draw in these axial planes."""
        return Contours(tuple(polygon for z in planes_mm for polygon in self.contours_at(float(z), points)))


@dataclass(frozen=True)
class Ellipsoid(Solid):
    """``radii_mm`` are the half axes along x, y and z."""

    centre_mm: Point = (0.0, 0.0, 0.0)
    radii_mm: Point = (10.0, 10.0, 10.0)

    def inside(self, points_mm: ArrayLike) -> Bools:
        return self.reach(points_mm) <= 1

    def reach(self, points_mm: ArrayLike) -> Floats:
        """0 at the centre, 1 on the surface, growing in proportion to the way from the centre."""
        scaled = (np.asarray(points_mm, dtype=np.float64) - self.centre_mm) / self.radii_mm
        return np.asarray(np.sqrt(np.einsum("...a,...a->...", scaled, scaled)))

    @property
    def box_mm(self) -> Floats:
        return _around(self.centre_mm, self.radii_mm)

    @property
    def volume_mm3(self) -> float:
        return float(4 / 3 * np.pi * np.prod(self.radii_mm))

    def contours_at(self, z_mm: float, points: int = 360) -> tuple[Floats, ...]:
        left = 1 - ((z_mm - self.centre_mm[2]) / self.radii_mm[2]) ** 2
        if left <= 0:
            return ()
        return (_ellipse(self.centre_mm, self.radii_mm[0] * left**0.5, self.radii_mm[1] * left**0.5, z_mm, points),)


class Sphere(Ellipsoid):
    """A ball of ``radius_mm``."""

    def __init__(self, centre_mm: Point = (0.0, 0.0, 0.0), radius_mm: float = 10.0) -> None:
        super().__init__(centre_mm, (radius_mm, radius_mm, radius_mm))


@dataclass(frozen=True)
class HollowSphere(Solid):
    """A ball of ``outer_mm`` radius around an empty ball of ``inner_mm``; its sections have a hole."""

    centre_mm: Point = (0.0, 0.0, 0.0)
    outer_mm: float = 20.0
    inner_mm: float = 10.0

    def inside(self, points_mm: ArrayLike) -> Bools:
        away = np.linalg.norm(np.asarray(points_mm, dtype=np.float64) - self.centre_mm, axis=-1)
        return np.asarray((away <= self.outer_mm) & (away >= self.inner_mm))

    @property
    def box_mm(self) -> Floats:
        return Sphere(self.centre_mm, self.outer_mm).box_mm

    @property
    def volume_mm3(self) -> float:
        return float(4 / 3 * np.pi * (self.outer_mm**3 - self.inner_mm**3))

    def contours_at(self, z_mm: float, points: int = 360) -> tuple[Floats, ...]:
        balls = (Sphere(self.centre_mm, self.outer_mm), Sphere(self.centre_mm, self.inner_mm))
        return tuple(polygon for ball in balls for polygon in ball.contours_at(z_mm, points))


@dataclass(frozen=True)
class Box(Solid):
    """A block of ``size_mm`` (x, y, z) along the patient axes."""

    centre_mm: Point = (0.0, 0.0, 0.0)
    size_mm: Point = (20.0, 20.0, 20.0)

    def inside(self, points_mm: ArrayLike) -> Bools:
        away = np.abs(np.asarray(points_mm, dtype=np.float64) - self.centre_mm)
        return np.asarray((away <= np.asarray(self.size_mm) / 2).all(axis=-1))

    @property
    def box_mm(self) -> Floats:
        return _around(self.centre_mm, np.asarray(self.size_mm) / 2)

    @property
    def volume_mm3(self) -> float:
        return float(np.prod(self.size_mm))

    def contours_at(self, z_mm: float, points: int = 360) -> tuple[Floats, ...]:
        (x0, y0, z0), (x1, y1, z1) = self.box_mm
        if not z0 <= z_mm < z1:
            return ()
        return (np.array([(x0, y0, z_mm), (x1, y0, z_mm), (x1, y1, z_mm), (x0, y1, z_mm)]),)


@dataclass(frozen=True)
class Straw(Solid):
    """A cylinder along z of which every axial section is a disc of ``radius_mm``, leaning by ``lean`` (x, y) mm a mm of z."""

    centre_mm: Point = (0.0, 0.0, 0.0)
    radius_mm: float = 2.0
    height_mm: float = 100.0
    lean: tuple[float, float] = (0.3, 0.2)

    def inside(self, points_mm: ArrayLike) -> Bools:
        away = np.asarray(points_mm, dtype=np.float64) - self.centre_mm
        x, y = away[..., 0] - self.lean[0] * away[..., 2], away[..., 1] - self.lean[1] * away[..., 2]
        return np.asarray((x * x + y * y <= self.radius_mm**2) & (np.abs(away[..., 2]) <= self.height_mm / 2))

    @property
    def box_mm(self) -> Floats:
        reach = self.radius_mm + np.abs(self.lean) * self.height_mm / 2
        return _around(self.centre_mm, [*reach, self.height_mm / 2])

    @property
    def volume_mm3(self) -> float:
        return float(np.pi * self.radius_mm**2 * self.height_mm)

    def contours_at(self, z_mm: float, points: int = 360) -> tuple[Floats, ...]:
        up = z_mm - self.centre_mm[2]
        if not -self.height_mm / 2 <= up < self.height_mm / 2:
            return ()
        centre = (self.centre_mm[0] + self.lean[0] * up, self.centre_mm[1] + self.lean[1] * up, z_mm)
        return (_ellipse(centre, self.radius_mm, self.radius_mm, z_mm, points),)


class Cylinder(Straw):
    """An upright cylinder along z."""

    def __init__(self, centre_mm: Point = (0.0, 0.0, 0.0), radius_mm: float = 15.0, height_mm: float = 40.0) -> None:
        super().__init__(centre_mm, radius_mm, height_mm, (0.0, 0.0))


@dataclass(frozen=True)
class Torus(Solid):
    """A ring around z: a tube of ``tube_mm`` radius whose middle runs ``ring_mm`` from the centre; its sections have a hole."""

    centre_mm: Point = (0.0, 0.0, 0.0)
    ring_mm: float = 25.0
    tube_mm: float = 8.0

    def inside(self, points_mm: ArrayLike) -> Bools:
        away = np.asarray(points_mm, dtype=np.float64) - self.centre_mm
        return np.asarray((np.hypot(away[..., 0], away[..., 1]) - self.ring_mm) ** 2 + away[..., 2] ** 2 <= self.tube_mm**2)

    @property
    def box_mm(self) -> Floats:
        reach = self.ring_mm + self.tube_mm
        return _around(self.centre_mm, [reach, reach, self.tube_mm])

    @property
    def volume_mm3(self) -> float:
        return float(2 * np.pi**2 * self.ring_mm * self.tube_mm**2)

    def contours_at(self, z_mm: float, points: int = 360) -> tuple[Floats, ...]:
        left = self.tube_mm**2 - (z_mm - self.centre_mm[2]) ** 2
        if left <= 0:
            return ()
        return tuple(_ellipse(self.centre_mm, r, r, z_mm, points) for r in (self.ring_mm + left**0.5, self.ring_mm - left**0.5))


@dataclass(frozen=True)
class Moved(Shape):
    """``shape`` carried by a 4x4 ``affine`` (LPS mm to LPS mm): turned, shifted, scaled."""

    shape: Shape
    affine: Floats

    def inside(self, points_mm: ArrayLike) -> Bools:
        back = np.linalg.inv(self.affine)
        return self.shape.inside(np.asarray(points_mm, dtype=np.float64) @ back[:3, :3].T + back[:3, 3])

    @property
    def box_mm(self) -> Floats:
        corners = np.array(list(product(*self.shape.box_mm.T))) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return np.stack([corners.min(axis=0), corners.max(axis=0)])


@dataclass(frozen=True)
class Tube(Shape):
    """A round hose along ``path_mm`` (points), of ``radius_mm`` at each of them (one for all or one each), with round ends."""

    path_mm: tuple[Point, ...]
    radius_mm: tuple[float, ...]

    def _radii(self) -> Floats:
        return np.broadcast_to(np.asarray(self.radius_mm, dtype=np.float64), (len(self.path_mm),))

    def inside(self, points_mm: ArrayLike) -> Bools:
        points = np.asarray(points_mm, dtype=np.float64)
        hit = np.zeros(points.shape[:-1], bool)
        ends = list(zip(np.asarray(self.path_mm, dtype=np.float64), self._radii(), strict=True))
        for (a, thick_a), (b, thick_b) in pairwise(ends):
            way = b - a
            along = np.clip((points - a) @ way / (way @ way), 0, 1)
            gap = points - (a + along[..., None] * way)
            hit |= np.einsum("...a,...a->...", gap, gap) <= (thick_a + along * (thick_b - thick_a)) ** 2
        return hit

    @property
    def box_mm(self) -> Floats:
        path, thick = np.asarray(self.path_mm, dtype=np.float64), self._radii()[:, None]
        return np.stack([(path - thick).min(axis=0), (path + thick).max(axis=0)])


@dataclass(frozen=True)
class Union(Shape):
    """What lies in any of ``shapes``."""

    shapes: tuple[Shape, ...]

    def inside(self, points_mm: ArrayLike) -> Bools:
        return np.asarray(np.logical_or.reduce([shape.inside(points_mm) for shape in self.shapes]))

    @property
    def box_mm(self) -> Floats:
        boxes = np.stack([shape.box_mm for shape in self.shapes])
        return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])


@dataclass(frozen=True)
class Both(Shape):
    """What lies in ``one`` and in ``other``."""

    one: Shape
    other: Shape

    def inside(self, points_mm: ArrayLike) -> Bools:
        return self.one.inside(points_mm) & self.other.inside(points_mm)

    @property
    def box_mm(self) -> Floats:
        a, b = self.one.box_mm, self.other.box_mm
        return np.stack([np.maximum(a[0], b[0]), np.minimum(a[1], b[1])])


@dataclass(frozen=True)
class Minus(Shape):
    """What lies in ``one`` and not in ``other``."""

    one: Shape
    other: Shape

    def inside(self, points_mm: ArrayLike) -> Bools:
        return self.one.inside(points_mm) & ~self.other.inside(points_mm)

    @property
    def box_mm(self) -> Floats:
        return self.one.box_mm


def keyhole(outer: Floats, inner: Floats) -> Floats:
    """One polygon for a ring: around ``outer``, over a bridge of no width to ``inner``, around it the other way and back."""
    start = int(np.linalg.norm(inner - outer[0], axis=1).argmin())
    hole = np.roll(inner, -start, axis=0)
    if _signed_area(outer) * _signed_area(hole) > 0:
        hole = np.roll(hole[::-1], 1, axis=0)
    return np.concatenate([outer, outer[:1], hole, hole[:1]])


def _signed_area(polygon: Floats) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _ellipse(centre: Point, a: float, b: float, z: float, points: int) -> Floats:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([centre[0] + a * np.cos(angle), centre[1] + b * np.sin(angle), np.full(points, z)], axis=1)


def _around(centre: Point, reach_mm: ArrayLike) -> Floats:
    """The box (2, 3) that reaches so far from ``centre`` along x, y and z."""
    reach = np.asarray(reach_mm, dtype=np.float64)
    return np.stack([np.asarray(centre) - reach, np.asarray(centre) + reach])


def _voxel_box(box_mm: Floats, geometry: Geometry) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The half-open range of voxels (k, j, i) that may touch a box of space."""
    corners = geometry.voxels(list(product(*box_mm.T)))
    low = np.clip(np.floor(corners.min(axis=0) + 0.5), 0, geometry.shape).astype(np.intp)
    high = np.clip(np.ceil(corners.max(axis=0) + 0.5), 0, geometry.shape).astype(np.intp)
    return low, high
