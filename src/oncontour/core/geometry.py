"""A grid in the patient: the only place that knows axes.

Conventions, once for the whole package:

* arrays are indexed ``(k, j, i)`` = (slice, row, column); channel axes, if any, come before;
* points are ``(x, y, z)`` in **LPS millimetres** (x to the patient's left, y to posterior, z to superior: DICOM PS3.3 C.7.6.2.1.1);
* one 4x4 ``affine`` takes a voxel ``(k, j, i, 1)`` to its centre ``(x, y, z, 1)``;
* a voxel is the box of half a step around its centre: the grid's edge lies half a voxel beyond the outermost centres.

Cropping, padding, resampling and reorienting are all *new geometries*; ``volume.to(geometry)`` moves voxels between any two.
Axis swaps and sign flips for other conventions (NIfTI's RAS+) happen in ``io/image/nifti.py`` and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oncontour.errors import GeometryError

Floats = NDArray[np.float64]
ON_GRID_MM = 0.05
"""What lies this near its place is there but for rounding in a file: slices of a series, frames of a SEG, planes of contours, voxels of a
mask. Of voxels below 0.5 mm a tenth counts (``rounding_mm``)."""
AS_REFERENCE = "export the mask again from the program that made it, with this image as the reference that gives the voxels"
"""The way out where a mask does not lie on the voxels of its image."""
MAX_VOXELS = 2**40
"""No grid is larger: beyond it sizes are a mistake, and products of them would overflow."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular, possibly oblique grid of ``shape`` (k, j, i) voxels placed by ``affine``.

    Raises GeometryError when the shape is not three positive integers or the affine is not finite, singular, or sheared
    (axes that are not at right angles within 1e-4; gantry tilt is resampled in ``io/dicom/series.py`` before it comes here).
    """

    shape: tuple[int, int, int]
    affine: Floats

    def __post_init__(self) -> None:
        shape, affine = _whole_sizes(self.shape), _float_array(self.affine)
        if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
            raise GeometryError(f"a grid needs three positive sizes (k, j, i) of at most {MAX_VOXELS} voxels, not {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.abs(affine).max() > 1e9:
            raise GeometryError(f"a grid needs a finite 4x4 affine, not {affine.tolist()}")
        if not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"the last row of an affine is 0 0 0 1, not {affine[3].tolist()}")
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        if steps.min() <= 1e-9:
            raise GeometryError(f"voxel steps must be longer than nothing, not {steps.tolist()} mm")
        unit = affine[:3, :3] / steps
        skew = float(np.abs(unit.T @ unit - np.eye(3)).max())
        if skew > 1e-4:
            raise GeometryError(
                f"grid axes are not at right angles (cosine {skew:.2g}, at most 1e-4)", hint="resample the sheared image first"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    # ---- making one

    @classmethod
    def regular(
        cls,
        shape: Sequence[int],
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
        axes: ArrayLike | None = None,
    ) -> Geometry:
        """A grid from ``spacing_mm`` (k, j, i), the centre of voxel (0, 0, 0) as ``origin_mm`` (x, y, z), and ``axes``.

        ``axes`` has the unit LPS directions of k, j and i as its three *rows*; without it k runs to superior, j to posterior, i to left.
        """
        affine = np.eye(4)
        affine[:3, :3] = (_axes(axes) * _spacing(spacing_mm)[:, None]).T
        affine[:3, 3] = _triple(origin_mm, "an origin is three millimetres (x, y, z)")
        return cls(tuple(shape), affine)  # type: ignore[arg-type]  # three whole numbers or refused

    def __reduce__(self) -> tuple[object, ...]:
        return Geometry, (self.shape, self.affine)

    # ---- reading it

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (k, j, i)."""
        k, j, i = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return k, j, i

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """(x, y, z) of the centre of voxel (0, 0, 0)."""
        x, y, z = (float(v) for v in self.affine[:3, 3])
        return x, y, z

    @cached_property
    def axes(self) -> Floats:
        """Unit LPS directions of k, j and i as rows (3, 3)."""
        return np.asarray((self.affine[:3, :3] / np.asarray(self.spacing_mm)).T)

    @cached_property
    def inverse(self) -> Floats:
        """4x4 from LPS millimetres (x, y, z, 1) to fractional voxels (k, j, i, 1)."""
        return np.asarray(np.linalg.inv(self.affine))

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def centre_mm(self) -> Floats:
        """(x, y, z) of the middle of the grid."""
        return self.points((np.asarray(self.shape) - 1) / 2)

    def slice_z_mm(self, k: int) -> float:
        """z of the middle of slice ``k`` in mm, to a hundredth: what people call a slice by."""
        return round(float(self.points((k, (self.shape[1] - 1) / 2, (self.shape[2] - 1) / 2))[2]), 2)

    @property
    def is_axial(self) -> bool:
        """Whether the axes lie along patient axes (k along z, j along y, i along x, either sign)."""
        return bool(np.abs(np.abs(self.axes) - np.eye(3)[::-1]).max() < 1e-4)

    def points(self, voxels: ArrayLike) -> Floats:
        """(..., 3) fractional voxels (k, j, i) -> (..., 3) LPS millimetres."""
        return np.asarray(voxels, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def voxels(self, points_mm: ArrayLike) -> Floats:
        """(..., 3) LPS millimetres -> (..., 3) fractional voxels (k, j, i)."""
        return np.asarray(points_mm, dtype=np.float64) @ self.inverse[:3, :3].T + self.inverse[:3, 3]

    @cached_property
    def corners_mm(self) -> Floats:
        """(8, 3) centres of the corner voxels."""
        ends = [(0, n - 1) for n in self.shape]
        return self.points([(k, j, i) for k in ends[0] for j in ends[1] for i in ends[2]])

    def same_grid(self, other: Geometry, tolerance_mm: float | None = None) -> bool:
        """Whether both have the same shape and no voxel centre differs by more than ``tolerance_mm`` (default: rounding in a file)."""
        if tolerance_mm is None:
            tolerance_mm = rounding_mm(min(*self.spacing_mm, *other.spacing_mm))
        return self.shape == other.shape and self._apart_mm(other) <= tolerance_mm

    def in_place(self, other: Geometry) -> Geometry | None:
        """``other`` moved by less than the rounding in a file so that its voxels are voxels of this grid (or go on from it
        beyond its edge), in the order they have; None where they are not."""
        moves = np.rint(self.inverse @ other.affine)
        if not np.array_equal(np.abs(moves[:3, :3]).sum(axis=0), (1, 1, 1)) or np.linalg.matrix_rank(moves[:3, :3]) < 3:
            return None
        placed = Geometry(other.shape, self.affine @ moves)
        return placed if placed.same_grid(other) else None

    def difference(self, other: Geometry) -> str:
        """How ``other`` differs from this grid, in words, its own value first; "" where it is the same.

        Two values that differ never read the same.
        """
        if self.same_grid(other):
            return ""
        turned = other.reorient(self.axes)
        if self.same_grid(turned):
            return "the same voxels, stored in another order"
        if self.shape != turned.shape:
            theirs, ours = ("x".join(str(n) for n in shape) for shape in (turned.shape, self.shape))
            return f"{theirs} voxels (k, j, i) instead of {ours}"
        apart, within = self._apart_mm(turned), rounding_mm(min(*self.spacing_mm, *turned.spacing_mm))
        said = [f"voxels lie up to {apart:.4g} mm apart, at most {within:.3g} mm count as rounding"]
        step = np.subtract(turned.spacing_mm, self.spacing_mm)
        if np.abs(step * self.shape).max() > within:
            said.append("of {} mm instead of {}".format(*_told_apart(turned.spacing_mm, self.spacing_mm, " x ")))
        if np.linalg.norm(np.subtract(turned.origin_mm, self.origin_mm)) > within:
            said.append("the first at ({}) mm instead of ({})".format(*_told_apart(turned.origin_mm, self.origin_mm, ", ")))
        angle = np.rad2deg(np.arccos(np.clip((turned.axes * self.axes).sum(axis=1), -1, 1))).max()
        if angle > 0.01:
            said.append(f"turned by {angle:.3g} degrees")
        return "; ".join(said)

    def _apart_mm(self, other: Geometry) -> float:
        """The farthest that a voxel of ``other``, a grid of the same shape, lies from that of the same (k, j, i) here."""
        return float(np.linalg.norm(self.corners_mm - other.corners_mm, axis=1).max())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and self.shape == other.shape and bool(np.array_equal(self.affine, other.affine))

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def __str__(self) -> str:
        size = "x".join(str(n) for n in self.shape)
        step = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"{size} voxels (k, j, i) of {step} mm at {tuple(round(v, 2) for v in self.origin_mm)}"

    # ---- new grids

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Geometry:
        """The grid of voxels start <= (k, j, i) < stop; negative starts and far stops pad."""
        first, last = (_triple(ends, "a crop starts and stops at three voxels (k, j, i)") for ends in (start, stop))
        affine = self.affine.copy()
        affine[:3, 3] = self.points(first)
        k, j, i = (int(n) for n in last - first)
        return Geometry((k, j, i), affine)

    def around(self, points_mm: ArrayLike) -> Geometry:
        """The part of this grid that holds these points (n, 3) LPS mm, and never less than one voxel along any axis."""
        at, shape = self.voxels(points_mm), np.asarray(self.shape)
        first = np.clip(np.floor(at.min(axis=0)), 0, shape - 1).astype(int)
        last = np.clip(np.ceil(at.max(axis=0)) + 1, first + 1, shape).astype(int)
        return self.crop(first.tolist(), last.tolist())

    def pad(self, before: Sequence[int], after: Sequence[int]) -> Geometry:
        """The grid with so many voxels more on each side along (k, j, i)."""
        return self.crop([-int(n) for n in before], [n + int(m) for n, m in zip(self.shape, after, strict=True)])

    def resample(self, spacing_mm: Sequence[float]) -> Geometry:
        """The same box of space in voxels of ``spacing_mm`` (k, j, i): centred, at least as large as before, never by a whole voxel.

        The box's middle stays where it was, so there is no half-voxel shift.
        """
        new = _spacing(spacing_mm)
        length = np.asarray(self.shape) * np.asarray(self.spacing_mm)
        shape = np.maximum(1, np.ceil(length / new - 1e-6))
        affine = self.affine.copy()
        affine[:3, :3] = (self.axes * new[:, None]).T
        affine[:3, 3] = self.centre_mm - affine[:3, :3] @ ((shape - 1) / 2)
        return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def reorient(self, axes: ArrayLike | None = None) -> Geometry:
        """The same voxels with axes permuted and flipped to lie nearest to ``axes`` (rows: directions of k, j, i; default S, P, L).

        Moving a volume there copies voxels exactly; nothing is interpolated.
        """
        wanted = _axes(axes)
        cosine = wanted @ self.axes.T
        order = _best_permutation(np.abs(cosine))
        affine, start = np.eye(4), np.zeros(3)
        for new, old in enumerate(order):
            sign = 1.0 if cosine[new, old] >= 0 else -1.0
            affine[:3, new] = sign * self.affine[:3, old]
            start[old] = 0 if sign > 0 else self.shape[old] - 1
        affine[:3, 3] = self.points(start)
        return Geometry((self.shape[order[0]], self.shape[order[1]], self.shape[order[2]]), affine)


def rounding_mm(step_mm: float) -> float:
    """How far voxels or slices ``step_mm`` apart may lie off their place and still count as there."""
    return min(ON_GRID_MM, 0.1 * step_mm)


def _told_apart(one: Sequence[float], other: Sequence[float], between: str) -> tuple[str, str]:
    """Both with so many digits that they do not read the same."""
    shown = ((between.join(f"{v:.{digits}g}" for v in values) for values in (one, other)) for digits in range(5, 18))
    return next(((a, b) for a, b in shown if a != b), (between.join(map(repr, one)), between.join(map(repr, other))))


def _whole_sizes(shape: object) -> tuple[int, ...]:
    """``shape`` as integers; nothing where it holds anything else (NaN, text, 2.5)."""
    try:
        sizes = np.asarray(shape, dtype=np.float64)
        return tuple(int(n) for n in sizes) if sizes.ndim == 1 and (sizes == np.rint(sizes)).all() else ()
    except (TypeError, ValueError, OverflowError):
        return ()


def _float_array(values: object) -> Floats:
    """A float64 copy; empty where the values are no numbers."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _triple(values: object, rule: str) -> Floats:
    out = _float_array(values)
    if out.shape != (3,) or not np.isfinite(out).all():
        raise GeometryError(f"{rule}, not {values}")
    return out


def _spacing(values: object) -> Floats:
    rule = "spacing is three positive millimetres (k, j, i)"
    out = _triple(values, rule)
    if out.min() <= 0:
        raise GeometryError(f"{rule}, not {values}")
    return out


def _axes(values: ArrayLike | None) -> Floats:
    """Directions of k, j and i as rows; superior, posterior, left where none are given."""
    if values is None:
        return np.eye(3)[::-1]
    out = _float_array(values)
    if out.shape != (3, 3) or not np.isfinite(out).all():
        raise GeometryError(f"axes are three directions (x, y, z) as rows, not {values}")
    return out


def _best_permutation(closeness: Floats) -> tuple[int, int, int]:
    from itertools import permutations

    best = max(permutations(range(3)), key=lambda p: sum(closeness[n, o] for n, o in enumerate(p)))
    return best[0], best[1], best[2]
