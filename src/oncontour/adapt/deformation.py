"""A deformation between two images of one patient: one displacement in mm at every voxel of the fixed image.

One direction, everywhere: **a point x of the fixed image lies at x + u(x) in the moving image** (LPS millimetres). From it follows what
each thing needs:

* images and masks come *from moving to fixed* by asking u at the fixed voxels (``warp``, ``warp_masks``): no inverse is needed;
* points and contours go *from fixed to moving* by u (``to_moving``), and *from moving to fixed* by the inverse of the map (``to_fixed``,
  ``carry``), which is solved for with its error known.

Between voxels u is interpolated linearly. Beyond the grid's outermost voxel centres the displacement of the edge goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from oncontour.adapt.reach import Reach, held_in, put
from oncontour.core.boxes import cropped
from oncontour.core.contours import Contours
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.resample import beyond, parallel_axes, slices_parallel
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError

LARGEST_MM = 1e4
"""No part of a patient moves farther: a larger displacement is a mistake of units or a file read wrongly."""
SOLVED_MM = 0.01
"""An inverse point whose image lies this near the point asked for is solved."""
CHORD_STEPS, NEWTON_STEPS = 30, 20
AFFINE_MM = 5.0
ROUND_MM = 0.01
SLAB = 8
"""Slices at a time whose determinants are worked out."""


@dataclass(frozen=True, eq=False)
class Deformation:
    """Where each point of the image ``fixed`` lies in the image ``moving``: x -> x + u(x).

    ``displacement`` holds u as a Volume of (3, k, j, i): its x, y and z components in LPS mm on a grid in the fixed image, which may be
    coarser than the image's own. ``fixed`` and ``moving`` name the two images (visits, or frames of reference), so that a deformation that
    goes the wrong way is refused where two meet. A field may fold (``folding_percent`` tells); it may not hold what is no number.
    Raises GeometryError for another shape, for values that are not finite or beyond 10 m, and for an empty name.
    """

    displacement: Volume
    fixed: str
    moving: str

    def __post_init__(self) -> None:
        array, way = self.displacement.array, f"deformation from {self.fixed!r} to {self.moving!r}"
        if not self.fixed or not self.moving:
            raise GeometryError("a deformation names the image it starts from and the image it leads to", where=way)
        if array.ndim != 4 or array.shape[0] != 3 or array.dtype.kind != "f":
            raise GeometryError(f"a displacement is floats of (3, k, j, i), not {array.dtype} of {array.shape}", where=way)
        if bad := int((~np.isfinite(array)).any(axis=0).sum()):
            share = f"{bad} of {self.geometry.size} voxels"
            hint = "export the registration again, or crop it to the part where it is defined"
            raise GeometryError(f"the displacement is not a number in {share}", where=way, hint=hint)
        if (far := float(max(array.max(), -array.min()))) > LARGEST_MM:
            hint = "check that the field is in millimetres"
            raise GeometryError(f"the displacement reaches {far:.4g} mm, at most {LARGEST_MM:.4g} mm", where=way, hint=hint)

    # ---- making one

    @classmethod
    def from_matrix(cls, matrix: ArrayLike, grid: Geometry, fixed: str, moving: str) -> Deformation:
        """The affine (or rigid) map ``matrix``, 4x4 from fixed to moving points in LPS mm, as a field on ``grid``; exact in float64.

        The identity is ``numpy.eye(4)``. Raises GeometryError for a matrix that is not finite, or turns space inside out.
        """
        m = np.asarray(matrix, dtype=np.float64)
        if m.shape != (4, 4) or not np.isfinite(m).all() or not np.array_equal(m[3], (0, 0, 0, 1)):
            raise GeometryError(f"an affine map is a finite 4x4 matrix whose last row is 0 0 0 1, not {np.asarray(matrix).tolist()}")
        if np.linalg.det(m[:3, :3]) <= 0:
            raise GeometryError(
                f"an affine map with determinant {np.linalg.det(m[:3, :3]):.4g} mirrors or flattens the patient",
                hint="check the order and the sign of the axes of the matrix",
            )
        u = np.empty((3, *grid.shape))
        for k, points in _slices_mm(grid):
            u[:, k] = np.moveaxis(points @ (m[:3, :3] - np.eye(3)).T + m[:3, 3], -1, 0)
        return cls(Volume(u, grid), fixed, moving)

    # ---- reading it

    @property
    def geometry(self) -> Geometry:
        """The grid of the displacement, in the fixed image."""
        return self.displacement.geometry

    def at(self, points_mm: ArrayLike) -> Floats:
        """(..., 3) u at points of the fixed image, in mm."""
        points = np.asarray(points_mm, dtype=np.float64)
        at = np.moveaxis(self.geometry.voxels(points), -1, 0).reshape(3, -1)
        parts = [ndimage.map_coordinates(u, at, order=1, mode="nearest", output=np.float64) for u in self.displacement.array]
        return np.stack(parts, axis=-1).reshape(points.shape)

    def to_moving(self, points_mm: ArrayLike) -> Floats:
        """(..., 3) points of the fixed image -> where they lie in the moving image, x + u(x)."""
        return np.asarray(points_mm, dtype=np.float64) + self.at(points_mm)

    def to_fixed(self, points_mm: ArrayLike, tolerance_mm: float = 0.1) -> Floats:
        """(..., 3) points of the moving image -> where they lie in the fixed image, by the inverse of the map.

        Raises GeometryError where a point has no such place within ``tolerance_mm``, as where the field folds.
        """
        points, error = self.solve(points_mm)
        if error.size and error.max() > tolerance_mm:
            raise GeometryError(
                f"{int((error > tolerance_mm).sum())} of {error.size} points have no place in {self.fixed!r}: off by up to "
                f"{error.max():.3g} mm, at most {tolerance_mm:.3g} mm",
                where=f"deformation from {self.fixed!r} to {self.moving!r}",
                hint="the field folds or tears there: look at its Jacobian, and register again with a stiffer setting",
            )
        return points

    def solve(self, points_mm: ArrayLike) -> tuple[Floats, Floats]:
        """For points y (..., 3) of the moving image: x (..., 3) in the fixed image, and |x + u(x) - y| (...) in mm, the error of each.

        By chord steps along the field's affine part, which an affine field needs one of, then damped Newton steps for the points left.
        """
        asked = np.asarray(points_mm, dtype=np.float64)
        y = asked.reshape(-1, 3)
        matrix = self.affine_part
        back = np.linalg.inv(matrix[:3, :3])
        x = (y - matrix[:3, 3]) @ back.T
        best, error = x.copy(), np.full(len(y), np.inf)
        left = np.arange(len(y))
        for _ in range(CHORD_STEPS):
            off = self.to_moving(x) - y[left]
            size = np.linalg.norm(off, axis=1)
            better = size < error[left]
            best[left[better]], error[left[better]] = x[better], size[better]
            going = size > SOLVED_MM / 10
            left, x = left[going], x[going] - off[going] @ back.T
            if not len(left):
                break
        left = np.flatnonzero(error > SOLVED_MM)
        best[left], error[left] = self._newton(best[left], y[left])
        return best.reshape(asked.shape), error.reshape(asked.shape[:-1])

    def _newton(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Damped Newton steps from ``x`` to the points that the map takes to ``y``; the nearest that were met, and how near."""
        off = self.to_moving(x) - y
        error, damp, h = np.linalg.norm(off, axis=1), np.ones(len(x)), 0.01 * min(self.geometry.spacing_mm)
        for _ in range(NEWTON_STEPS if len(x) else 0):
            slope = np.stack([(self.to_moving(x + step) - self.to_moving(x - step)) / (2 * h) for step in h * np.eye(3)], axis=-1)
            tried = x - damp[:, None] * (np.linalg.pinv(slope) @ off[:, :, None])[..., 0]
            off_tried = self.to_moving(tried) - y
            size = np.linalg.norm(off_tried, axis=1)
            better = size < error
            x, off, error = np.where(better[:, None], tried, x), np.where(better[:, None], off_tried, off), np.where(better, size, error)
            damp = np.where(better, np.minimum(1, 2 * damp), damp / 2)
            if error.max() <= SOLVED_MM:
                break
        return x, error

    @cached_property
    def affine_part(self) -> Floats:
        """The 4x4 affine map that fits the field best over its grid (least squares); the mean shift alone where that would be singular."""
        points, u = self._samples()
        shift = np.eye(4)
        shift[:3, 3] = u.mean(axis=0)
        middle = points.mean(axis=0)
        linear = np.linalg.lstsq(points - middle, u - u.mean(axis=0), rcond=1e-9)[0].T + np.eye(3)
        if np.linalg.det(linear) <= 1e-3:
            return shift
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = linear, middle + shift[:3, 3] - linear @ middle
        return out

    def rigid_part(self, inside: Volume | None = None) -> Floats:
        """The 4x4 rigid map (rotation and shift) that fits the field best over its grid, or over the voxels of a mask on the same grid.

        Source: Kabsch, Acta Cryst A32 (1976) 922: the rotation from the singular values of the points' covariance.
        """
        points, u = self._samples(inside)
        return rigid_fit(points, points + u)

    def _samples(self, inside: Volume | None = None) -> tuple[Floats, Floats]:
        """(n, 3) points of the grid, a regular choice of at most some 30,000, and u (n, 3) there."""
        if inside is None:
            along = [np.arange(0, n, max(1, n // 32)) for n in self.geometry.shape]
            voxels = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 3)
        else:
            voxels = np.argwhere(_on(inside, self.geometry))
        if not len(voxels):
            raise GeometryError("no voxel of the mask lies on the deformation's grid", hint="give a mask of the fixed image")
        u = self.displacement.array[:, voxels[:, 0], voxels[:, 1], voxels[:, 2]].T
        return self.geometry.points(voxels), u.astype(np.float64)

    # ---- using it

    def warp(self, moving: Volume, grid: Geometry | None = None, *, fill: float = 0.0) -> Volume:
        """An image of ``moving`` (..., k, j, i) as it looks in the fixed image: float, linear, on ``grid`` (default the deformation's own).

        Where the map leads beyond the moving image's edge (half a voxel past its outermost centres) stands ``fill``. Values are asked for
        at the new voxels' centres; nothing is blurred, also where ``grid`` is coarser. A bool mask comes back as coverage in [0, 1].
        """
        grid = grid or self.geometry
        kind = np.float64 if moving.array.dtype == np.float64 else np.float32
        out = np.empty((*moving.array.shape[:-3], *grid.shape), kind)
        sources, targets = moving.array.reshape(-1, *moving.geometry.shape), out.reshape(-1, *grid.shape)
        if moving.array.dtype.kind == "f":  # integers are read as they are
            sources = sources.astype(kind, copy=False)
        for k, at in self._voxels_of(moving.geometry, grid):
            outside = beyond(at, moving.geometry.shape)
            for source, target in zip(sources, targets, strict=True):
                values = ndimage.map_coordinates(source, at, order=1, mode="nearest", output=kind)
                target[k] = np.where(outside, kind(fill), values)
        return Volume(out, grid)

    def warp_masks(self, masks: Mapping[str, Volume], grid: Geometry | None = None) -> dict[str, Volume]:
        """Masks of the moving image as bool masks of the fixed image on ``grid`` (default the deformation's own), names kept.

        Each mask is warped for itself as coverage, and what is one half and more is inside: labels are never interpolated as numbers.
        A mask that is empty, or lies where the map does not lead, comes back empty. Only the part of ``grid`` that can come from a mask is
        looked at.
        """
        grid = grid or self.geometry
        out = {name: np.zeros(grid.shape, bool) for name in masks}
        reach = self._reach(grid)
        for name, mask in masks.items():
            box = held_in(mask)
            part = None if box is None else reach.of(box[0] - 1, box[0] + box[1].shape, mask.geometry)
            if part is None:
                continue
            warped, here = out[name][part], cropped(grid, part)
            for k, at in self._voxels_of(mask.geometry, here):
                rows = at.min(axis=2), at.max(axis=2)
                put(box, at, rows, beyond(at, mask.geometry.shape), warped[k])
        return {name: Volume(mask, grid) for name, mask in out.items()}

    def _reach(self, grid: Geometry) -> Reach:
        """Where the voxels of ``grid`` can come from: the field's nodes and their images, gone on from its edge as far as ``grid`` goes."""
        at = self.geometry.voxels(grid.corners_mm)
        before = np.maximum(0, np.ceil(-at.min(axis=0))).astype(int)
        after = np.maximum(0, np.ceil(at.max(axis=0) - self.geometry.shape + 1)).astype(int)
        nodes = self.geometry.pad(before.tolist(), after.tolist())
        u = np.pad(self.displacement.array, [(0, 0), *zip(before.tolist(), after.tolist(), strict=True)], mode="edge")
        images = np.empty(u.shape, np.float32)
        for k, points in _slices_mm(nodes):
            images[:, k] = np.moveaxis(points, -1, 0) + u[:, k]
        room = [sum(float(np.abs(np.diff(one, axis=axis)).max(initial=0)) for axis in range(3)) for one in images]
        return Reach(grid, nodes, images, np.asarray(room) + ROUND_MM)

    def carry(self, contours: Contours, tolerance_mm: float = 0.1) -> Contours:
        """Contours of the moving image point by point into the fixed image, by the inverse of the map.

        The carried polygons are closed but no longer lie in planes, and belong to no slices: to draw them or to measure how far they went.
        What a planning system reads is traced from the warped mask (``adapt.propagate``). Raises GeometryError as ``to_fixed`` does.
        """
        polygons = tuple(self.to_fixed(polygon, tolerance_mm) for polygon in contours)
        return replace(contours, polygons=polygons, slices=None, alone=False)

    def _voxels_of(self, moving: Geometry, grid: Geometry) -> Iterator[tuple[int, Floats]]:
        """(k, (3, j, i)) for each slice of ``grid``: the fractional voxels of the moving grid to which its points go."""
        matrix = self.geometry.inverse @ grid.affine
        axis = parallel_axes(matrix, grid.shape)
        if grid == self.geometry:
            moves: Iterator[Floats | None] = (np.moveaxis(u, 0, -1) for u in self.displacement.array.swapaxes(0, 1))
        elif axis is not None:  # as ``at``, at less cost
            parts = [slices_parallel(u.transpose(axis), matrix[axis], grid.shape) for u in self.displacement.array]
            moves = (np.stack(u, axis=-1) for u in zip(*parts, strict=True))
        else:
            moves = repeat(None)
        for (k, points), u in zip(_slices_mm(grid), moves, strict=False):
            yield k, np.moveaxis(moving.voxels(points + (self.at(points) if u is None else u)), -1, 0)

    # ---- new ones

    def then(self, other: Deformation) -> Deformation:
        """This map and then ``other``, which starts from this one's moving image: x -> x + u(x) + v(x + u(x)), on this one's grid.

        Raises GeometryError where ``other`` starts from another image.
        """
        if other.fixed != self.moving:
            raise GeometryError(
                f"a deformation that starts from {other.fixed!r} cannot follow one that leads to {self.moving!r}",
                hint=f"give the deformation from {self.moving!r}, or the inverse of this one",
            )
        u = np.empty(self.displacement.array.shape)
        for k, points in _slices_mm(self.geometry):
            first = np.moveaxis(self.displacement.array[:, k], 0, -1)
            u[:, k] = np.moveaxis(first + other.at(points + first), -1, 0)
        return Deformation(Volume(u, self.geometry), self.fixed, other.moving)

    def then_matrix(self, matrix: ArrayLike, moving: str, grid: Geometry) -> Deformation:
        """This map and then the affine one ``matrix`` (4x4, from points of this one's moving image to those of ``moving``), on ``grid``.

        The matrix is exact wherever this map leads, which as a field on a grid it is not beyond it.
        """
        m, u = np.asarray(matrix, dtype=np.float64), np.empty((3, *grid.shape))
        for k, points in _slices_mm(grid):
            u[:, k] = np.moveaxis(self.to_moving(points) @ m[:3, :3].T + m[:3, 3] - points, -1, 0)
        return Deformation(Volume(u, grid), self.fixed, moving)

    def inverse(self, grid: Geometry) -> Inverse:
        """The map from moving to fixed on ``grid``, a grid in the moving image, with what it leaves unsolved.

        v(y) with y + v(y) = x and x + u(x) = y, solved at each voxel. Where x lies beyond this field's grid, v is that of the edge that
        goes on; the errors are of the voxels whose x lies on it.
        """
        v, error, inside = np.empty((3, *grid.shape)), np.empty(grid.shape), np.empty(grid.shape, bool)
        for k, points in _slices_mm(grid):
            x, error[k] = self.solve(points)
            v[:, k] = np.moveaxis(x - points, -1, 0)
            inside[k] = ~beyond(np.moveaxis(self.geometry.voxels(x), -1, 0), self.geometry.shape)
        met = error[inside]
        solved = 100 * float((met <= SOLVED_MM).mean()) if met.size else 0.0
        worst, mean = (float(met.max()), float(met.mean())) if met.size else (float("nan"), float("nan"))
        return Inverse(Deformation(Volume(v, grid), self.moving, self.fixed), mean, worst, 100 - solved, 100 * float(inside.mean()))

    # ---- is it one that a body can have

    def jacobian(self) -> Volume:
        """det(d(x + u)/dx) at each voxel: 1 keeps volume, 0.5 halves it from fixed to moving, 0 and less folds.

        Central differences in mm along the grid's own axes whatever way they run (one-sided at its edges); along an axis of one voxel
        nothing is known to change. In the field's own precision, float32 at least.
        """
        return self._determinants

    @cached_property
    def _determinants(self) -> Volume:
        u, n = self.displacement.array, self.geometry.shape[0]
        out = np.empty(self.geometry.shape, np.result_type(u.dtype, np.float32))
        for first in range(0, n, SLAB):  # by slabs, with a slice more on each side: what lies between stays in the cache
            low, last = max(0, first - 1), min(n, first + SLAB)
            out[first:last] = _determinants(u[:, low : last + 1].astype(out.dtype, copy=False), self.geometry.inverse)[
                first - low : last - low
            ]
        return Volume(out, self.geometry)

    def folding_percent(self, inside: Volume | None = None) -> float:
        """Share of voxels in % whose Jacobian determinant is 0 or less, of the grid or of a mask on it; NaN for an empty mask."""
        folded = self.jacobian().array <= 0
        where = folded if inside is None else folded[_on(inside, self.geometry)]
        return 100 * float(where.mean()) if where.size else float("nan")

    def inconsistency_mm(self, back: Deformation) -> Volume:
        """How far each voxel comes back from its place when carried there and back again: |u(x) + v(x + u(x))| in mm.

        ``back`` goes from moving to fixed. NaN where the map leads beyond ``back``'s grid. Raises GeometryError for another pair.
        """
        there_and_back = self.then(back)
        if back.moving != self.fixed:
            raise GeometryError(
                f"the way back leads to {back.moving!r}, not to {self.fixed!r}", hint="give the deformation of the same pair"
            )
        out = np.linalg.norm(there_and_back.displacement.array, axis=0)
        for k, at in self._voxels_of(back.geometry, self.geometry):
            out[k][beyond(at, back.geometry.shape)] = np.nan
        return Volume(out, self.geometry)


@dataclass(frozen=True, eq=False)
class Inverse:
    """The inverse of a deformation, and how well it undoes it.

    ``mean_error_mm`` and ``worst_error_mm``: |x + u(x) - y| over the voxels y that come from the field's own grid (``covered_percent`` of
    the inverse's grid); ``unsolved_percent`` of these are off by more than 0.01 mm. NaN and 100 where none does.
    """

    deformation: Deformation
    mean_error_mm: float
    worst_error_mm: float
    unsolved_percent: float
    covered_percent: float


def rigid_fit(points: ArrayLike, images: ArrayLike) -> Floats:
    """The 4x4 rotation and shift that takes ``points`` (n, 3) nearest to ``images`` (n, 3; least squares, Kabsch 1976); no mirror."""
    a, b = np.asarray(points, dtype=np.float64), np.asarray(images, dtype=np.float64)
    u, _, vt = np.linalg.svd((a - a.mean(axis=0)).T @ (b - b.mean(axis=0)))
    turn = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = turn, b.mean(axis=0) - turn @ a.mean(axis=0)
    return out


def _determinants(u: NDArray[np.floating], inverse: Floats) -> NDArray[np.floating]:
    """(k, j, i) det(d(x + u)/dx) of a field (3, k, j, i) on voxels to which ``inverse`` takes points in mm."""
    along = [axis for axis in range(3) if u.shape[axis + 1] > 1]
    rows = []
    for one, own in zip(u, np.eye(3).tolist(), strict=True):
        steps = [np.gradient(one, axis=axis) for axis in along]
        rows.append([sum((s * inverse[axis, x].astype(u.dtype) for axis, s in zip(along, steps, strict=True)), own[x]) for x in range(3)])
    (a, b, c), (d, e, f), (g, h, i) = rows
    return np.broadcast_to(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g), u.shape[1:])


def coarsely(grid: Geometry) -> Geometry:
    """A grid of voxels of AFFINE_MM and more that reaches beyond all voxels of ``grid``: enough for an affine map, which is exact between
    voxels and not beyond them."""
    return grid.resample([max(AFFINE_MM, step) for step in grid.spacing_mm]).pad((1, 1, 1), (1, 1, 1))


def _slices_mm(grid: Geometry) -> Iterator[tuple[int, Floats]]:
    """(k, (j, i, 3) LPS points of its voxel centres) for each slice."""
    rows = np.stack(np.meshgrid(0, np.arange(grid.shape[1]), np.arange(grid.shape[2]), indexing="ij"), axis=-1)[0]
    first = grid.points(rows)
    for k in range(grid.shape[0]):
        yield k, first + grid.affine[:3, 0] * k


def _on(mask: Volume, grid: Geometry) -> NDArray[np.bool_]:
    """The voxels of a mask that lies on ``grid``. Raises GeometryError for another grid."""
    placed = mask.stored_on(grid)
    if placed is None:
        raise GeometryError(
            f"the mask lies on another grid than the deformation: {grid.difference(mask.geometry)}", hint="move it there first"
        )
    return np.asarray(placed.binary().array)
