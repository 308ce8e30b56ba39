"""An organ of the CT followed into the image made of it: by how much its surface lies further out there, where it lies, what is left of it.

A segmenter of CT cannot read an MR-like image, and HU regressed from one lose too much (cortical bone is as dark as air): volumes drawn on
them differ by 10 to 20 % where nothing drifted. So the segmenter draws on the CT, and what it drew is fitted to the made image:

    made(x) = P(x) - grad P(x) . u(x) + rest,    u = w (t + d n)

P is what the CT makes expect: a curve of HU, fitted in the organ's surroundings (its voxels alone, so that nothing in P can move), with
blurred copies and a smooth gain. n points out of the organ, w is 1 in and near it and fades away. The shift t and the step d outwards are
solved by least squares, the image being pulled back by what was found (Gauss-Newton; Lucas and Kanade 1981). The volume grows by d times
the surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.synthesize.fidelity import check_one_grid

Floats = NDArray[np.float64]

AROUND_MM, NEAR_MM, FADES_MM = 16.0, 4.0, 10.0
"""Surroundings that P is fitted in; where w is 1 outside the organ, and where it is 0."""
LEAST_MM, ROUNDS = 1.5, 4
AIR_HU = -1000.0
_KNOTS_HU = (-1000.0, -400.0, -160.0, -120.0, -80.0, -40.0, 0.0, 30.0, 60.0, 100.0, 200.0, 400.0, 800.0, 1500.0)
_BLURS = (1.0, 2.0)
"""Of blurred copies, in voxels."""
_MOST_MM = 8.0


@dataclass(frozen=True)
class Followed:
    """One organ in the made image: ``volume_ratio`` (made over CT), ``shift_mm`` of its centre, and ``likeness``: the correlation of what
    the CT makes expect with what is there, once moved, in the organ and NEAR_MM around."""

    volume_ratio: float
    shift_mm: float
    likeness: float


def follow(ct: Volume, made: Volume, organ: Volume) -> Followed:
    """How ``organ`` (bool, not empty, on the CT's grid) lies in ``made``, which is on the grid of ``ct``.

    Raises GeometryError for two grids, InputError for NaN.
    """
    check_one_grid(ct, made)
    grid = _surroundings(organ)
    hu = Volume(ct.array.astype(np.float32), ct.geometry).to(grid, fill=AIR_HU).array.astype(np.float64)
    image = Volume(made.array.astype(np.float32), made.geometry).to(grid).array.astype(np.float64)
    soft = organ.map(lambda a: a.astype(np.float32)).to(grid, blur=False).array
    mm = np.asarray(grid.spacing_mm)
    out, depth = (ndimage.distance_transform_edt(part, sampling=mm) for part in (soft < 0.5, soft >= 0.5))
    signed = ndimage.gaussian_filter(out - depth, 2.0 / mm)
    normal = _slopes(signed, mm)
    weight = np.clip((FADES_MM - np.maximum(out, NEAR_MM)) / (FADES_MM - NEAR_MM), 0, 1)
    ways = [weight * way for way in (*np.broadcast_to(np.eye(3)[:, :, None, None, None], (3, 3, *soft.shape)), normal)]
    expected, pulled, found = _fitted(hu, image, ways, out <= AROUND_MM, mm)
    near = out <= NEAR_MM
    area = float(np.linalg.norm(_slopes(soft, mm), axis=0).sum())  # of the surface (coarea formula), over a voxel's volume
    grown = found[3] * area / max(float(soft.sum()), 1e-9)
    a, b = expected[near], pulled[near]
    alike = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
    return Followed(float(max(1 + grown, 0.01)), float(np.linalg.norm(found[:3])), alike)


def _surroundings(organ: Volume) -> Geometry:
    """The upright grid of the organ and AROUND_MM, its own slices, pixels of LEAST_MM at least."""
    upright = organ.geometry.reorient()
    points = organ.geometry.points(np.argwhere(organ.array))
    box = upright.around(np.stack([points.min(axis=0) - AROUND_MM, points.max(axis=0) + AROUND_MM]))
    return box.resample([max(LEAST_MM, one) for one in box.spacing_mm])


def _fitted(hu: Floats, image: Floats, ways: list[Floats], where: NDArray[np.bool_], mm: Floats) -> tuple[Floats, Floats, Floats]:
    """(what is expected, the image pulled to where that lies, mm of each way)."""
    found, basis = np.zeros(len(ways)), _basis(hu)
    maps, pulled = basis[:, where].T, image
    for _ in range(ROUNDS):
        expected = np.tensordot(_solved(maps, pulled[where]), basis, 1)
        slopes = _slopes(expected, mm)
        flow = np.stack([-(slopes * way).sum(axis=0)[where] for way in ways], axis=1)
        step = _solved(np.concatenate([maps, flow], axis=1), pulled[where])[-len(ways) :]
        found = np.clip(found + step, -_MOST_MM, _MOST_MM)
        by_mm = np.sum([mm_ * way for mm_, way in zip(found, ways, strict=True)], axis=0)
        at = np.indices(image.shape) + by_mm / mm[:, None, None, None]
        pulled = ndimage.map_coordinates(image, at, order=1, mode="nearest")
    return np.tensordot(_solved(maps, pulled[where]), basis, 1), pulled, found


def _basis(hu: Floats) -> Floats:
    """(n, k, j, i): hat functions of HU, some blurred copies of three of them, and each tissue brighter to one side."""
    knots = np.asarray(_KNOTS_HU)
    hats = np.stack([np.interp(hu, knots, row) for row in np.eye(len(knots))])
    fat, muscle = np.interp(hu, [-200, -100, 0], [0, 1, 0]), np.interp(hu, [-50, 50, 150], [0, 1, 0])
    bone = np.interp(hu, [150, 500], [0, 1])
    blurred = [ndimage.gaussian_filter(one, (0, sigma, sigma)) for one in (fat, muscle, bone) for sigma in _BLURS]
    tilt = [np.linspace(-1, 1, n).reshape([-1 if axis == a else 1 for a in range(3)]) for axis, n in enumerate(hu.shape)]
    gains = [one * t for one in (fat, muscle) for t in tilt]
    return np.concatenate([hats, np.stack(blurred), np.stack(gains)])


def _slopes(values: NDArray[np.floating], mm: Floats) -> Floats:
    """(3, k, j, i) per mm; 0 across a single slice."""
    along = [
        np.gradient(values, one, axis=axis) if n > 1 else np.zeros(values.shape)
        for axis, (n, one) in enumerate(zip(values.shape, mm, strict=True))
    ]
    return np.stack([np.asarray(one, np.float64) for one in along])


def _solved(x: Floats, y: Floats) -> Floats:
    """Least squares with a little ridge: some knots may have no voxel."""
    gram = x.T @ x
    return np.asarray(np.linalg.solve(gram + 1e-6 * (np.trace(gram) / len(gram) + 1e-12) * np.eye(len(gram)), x.T @ y))
