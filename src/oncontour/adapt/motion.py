"""How a head and neck moves from one visit to the next, as displacement fields in mm: the pieces that simulated visits are made of.

Each piece answers (3, k, j, i) x, y and z components in LPS mm at the points of an ``Anatomy``, to be read as u in
daily(x) = planning(x + u(x)): an organ that lies a millimetre further left on the day has u = -1 mm in x. What is drawn is drawn in a
fixed order, whatever organs a patient has, so that a seed means one thing.

Sizes follow what was measured of patients: van Kranen et al., IJROBP 2009 (local systematic 1.1 to 3.4 mm, random 1.3 to 2.5 mm, larynx 3.8
mm); non-rigid set-up errors of skull and mandible of 4.4 to 4.7 +- 2.5 mm (Strahlenther Onkol 2007); parotids -24 +- 11 % (Kager 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.adapt.deformation import Deformation
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.ops.body import body_mask, is_masked
from oncontour.ops.intensity import AIR_HU

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

GRID_MM = 5.0
"""Spacing of the grid that fields are made on; what they hold is smoother."""
NECK_DEG = (2.5, 1.5, 2.0)
"""SD of flexion (about x), lateral bend (about y) and axial rotation (about z)."""
NECK_MM = 120.0
"""Length over which the neck bends."""
JAW_DEG = 2.0
PAROTID_LOSS, PAROTID_MEDIAL_MM = (0.25, 0.10), (2.5, 1.0)
"""Mean and SD, at the end of a course, of the part of a parotid's volume that is lost and of its shift towards the middle."""
SKIN_MM, SKIN_DEPTH_MM = (3.0, 2.5), 25.0
"""Mean and SD of the fat lost below the skin at the end of a course; the depth at which its motion has fallen to a third."""
NOISE_MM = {60.0: 1.75, 28.0: 0.85}
"""Full width at half maximum of the smoothing -> SD of each component."""
_PARTIAL_HU = -250.0
"""Below, a voxel on the border of what is known was skin: beyond it was air."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What the pieces need to know of a planning case, on a coarse upright grid.

    ``points`` (3, k, j, i) LPS mm; ``depth_mm`` below the skin, negative outside; ``outward`` (3, k, j, i) unit directions; ``organs``
    name -> mask, those that are not empty; ``inside`` where the CT shows the patient.
    """

    grid: Geometry
    points: Field
    inside: Mask
    depth_mm: NDArray[np.float32]
    outward: Field
    organs: Mapping[str, Mask]

    @classmethod
    def of(cls, planning: Case, filled: Volume, region: Mask) -> Anatomy:
        """From a planning case, its CT without unknown parts and the ``region`` that it shows (``known`` gives both)."""
        grid = planning.geometry.reorient().resample((GRID_MM,) * 3)
        voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
        points = np.moveaxis(grid.points(voxels), -1, 0).astype(np.float32)
        body = body_mask(filled).to(grid).array
        shown = Volume(region, planning.geometry).to(grid).array
        depth = (_edt(body) - _edt(~body)).astype(np.float32)
        slope = np.stack(np.gradient(ndimage.gaussian_filter(depth, 10.0 / GRID_MM)))[::-1]  # of k, j, i: z, y, x of an upright grid
        axes = np.asarray(grid.axes)[::-1]
        outward = -np.einsum("cxyz,cd->dxyz", slope, axes)
        outward /= np.maximum(np.linalg.norm(outward, axis=0), 1e-6)
        organs = {name: planning.mask(name, grid).array for name in planning.structures}
        return cls(
            grid,
            points,
            body & shown if (body & shown).any() else np.ones(grid.shape, bool),
            depth,
            outward.astype(np.float32),
            {name: mask for name, mask in organs.items() if mask.any()},
        )

    def middle_of(self, name: str) -> NDArray[np.float64]:
        """(3,) the mean point of an organ, in mm."""
        return np.asarray(self.points[:, self.organs[name]].mean(axis=1), dtype=np.float64)

    def around(self, mask: Mask, blur_mm: float) -> NDArray[np.float32]:
        """A weight of 1 in ``mask`` that falls smoothly to 0 within about ``blur_mm`` on either side of twice that distance."""
        wide = _edt(~mask) <= 1.5 * blur_mm
        return np.asarray(ndimage.gaussian_filter(wide.astype(np.float32), blur_mm / GRID_MM))


def known(ct: Volume) -> tuple[Volume, Mask]:
    """(the CT as it may go on beyond what is known, where it is known).

    A CT that was masked (OpenKBP shows only where dose is possible) goes on as what is nearest: tissue where tissue was cut, air where
    the border was skin. Any other comes back as it is, known everywhere.
    """
    everywhere = np.ones(ct.geometry.shape, bool)
    if not is_masked(ct):
        return ct, everywhere
    low = ct.array.min()
    region = ct.array > low
    for plane in region:
        ndimage.binary_fill_holes(plane, output=plane)
    if not region.any():
        return ct, everywhere
    at = ndimage.distance_transform_edt(~region, sampling=ct.geometry.spacing_mm, return_distances=False, return_indices=True)
    nearest = ct.array[tuple(at)]
    beyond = np.where(nearest < _PARTIAL_HU, np.asarray(AIR_HU, nearest.dtype), nearest)
    return Volume(np.where(region, ct.array, beyond), ct.geometry), region


# ---- the pieces of a course of treatment


def neck(anatomy: Anatomy, rng: np.random.Generator, amplitude: float) -> Field:
    """Flexion, lateral bend and axial rotation of the head against the shoulders, blended over NECK_MM."""
    angles = np.deg2rad(rng.standard_normal(3) * NECK_DEG * amplitude)
    pivot = _pivot(anatomy)
    weight = _rise((anatomy.points[2] - pivot[2]) / NECK_MM + 0.5)
    return weight * _turned(anatomy, angles, pivot)


def jaw(anatomy: Anatomy, rng: np.random.Generator, amplitude: float) -> Field:
    """The mandible, and what lies about it, turned about its joints."""
    angle = float(np.deg2rad(rng.standard_normal() * JAW_DEG * amplitude))
    mask = anatomy.organs.get("Bone_Mandible")
    if mask is None:
        return np.zeros_like(anatomy.points)
    inside = anatomy.points[:, mask].astype(np.float64)
    hinge = inside[:, inside[2] >= np.quantile(inside[2], 0.9)].mean(axis=1)
    return anatomy.around(mask, 9.0) * _turned(anatomy, np.array([angle, 0.0, 0.0]), hinge)


def parotids(anatomy: Anatomy, rng: np.random.Generator, amplitude: float, course: float) -> Field:
    """Parotids that shrink and move towards the middle as the ``course`` (0 to 1) goes on."""
    out = np.zeros_like(anatomy.points)
    middle = float(anatomy.points[0][anatomy.inside].mean())
    for name in ("Parotid_L", "Parotid_R"):
        loss, shift = (mean + sd * float(rng.standard_normal()) for mean, sd in (PAROTID_LOSS, PAROTID_MEDIAL_MM))
        if name not in anatomy.organs:
            continue
        loss, shift = float(np.clip(loss * amplitude * course, 0, 0.6)), shift * amplitude * course
        centre = anatomy.middle_of(name)
        weight = anatomy.around(anatomy.organs[name], 8.0)
        out += weight * ((1 - loss) ** (-1 / 3) - 1) * (anatomy.points - centre.astype(np.float32)[:, None, None, None])
        out[0] += weight * np.float32(np.sign(centre[0] - middle) * shift)
    return out


def skin(anatomy: Anatomy, rng: np.random.Generator, amplitude: float, course: float) -> Field:
    """Fat lost below the skin: the surface comes inwards, the deep stays."""
    mean, sd = SKIN_MM
    lost = float(np.clip(mean + sd * float(rng.standard_normal()), 0, mean + 2 * sd)) * amplitude * course
    fall = np.exp(-np.maximum(anatomy.depth_mm, 0) / SKIN_DEPTH_MM) * np.exp(-((np.minimum(anatomy.depth_mm, 0) / 40.0) ** 2))
    moved = np.float32(lost) * anatomy.outward * fall
    return np.stack([ndimage.gaussian_filter(one, 6.0 / GRID_MM) for one in moved])


def noise(anatomy: Anatomy, rng: np.random.Generator, amplitude: float) -> Field:
    """What nothing else explains, smooth at the widths of NOISE_MM."""
    parts = [smooth_noise(anatomy.grid, rng, sd * amplitude, width) for width, sd in NOISE_MM.items()]
    return np.asarray(sum(parts), np.float32)


# ---- pieces that are never trained on


def splines(anatomy: Anatomy, rng: np.random.Generator, amplitude: float) -> Field:
    """Random cubic B-splines: control points every 50 mm, displaced with an SD of 5 mm."""
    shape = [int(np.ceil(n * GRID_MM / 50.0)) + 3 for n in anatomy.grid.shape]
    control = rng.standard_normal((3, *shape)) * 5.0 * amplitude
    at = np.meshgrid(*(1 + np.arange(n) * GRID_MM / 50.0 for n in anatomy.grid.shape), indexing="ij")
    return np.stack([ndimage.map_coordinates(one, at, order=3, prefilter=False, output=np.float32) for one in control])


def swallow(anatomy: Anatomy, rng: np.random.Generator, amplitude: float) -> Field:
    """The larynx (else the middle of the neck) raised by 8 +- 3 mm and brought forward by a third of it."""
    raised = (8.0 + 3.0 * float(rng.standard_normal())) * amplitude
    at = anatomy.middle_of("Larynx") if "Larynx" in anatomy.organs else _pivot(anatomy) + np.array([0.0, -40.0, 0.0])
    near = np.exp(-((anatomy.points - at.astype(np.float32)[:, None, None, None]) ** 2).sum(axis=0) / (2 * 22.0**2))
    return np.asarray(near * np.array([0.0, raised / 3, -raised], np.float32)[:, None, None, None])


def shoulders(anatomy: Anatomy, rng: np.random.Generator, amplitude: float) -> Field:
    """Each shoulder up or down by an SD of 6 mm, and both forward or back by an SD of 4 mm."""
    left, right, forward = rng.standard_normal(3) * (6.0, 6.0, 4.0) * amplitude
    pivot = _pivot(anatomy)
    low = _rise((pivot[2] - 30.0 - anatomy.points[2]) / 80.0)
    aside = np.tanh((anatomy.points[0] - pivot[0]) / 60.0)
    out = np.zeros_like(anatomy.points)
    out[2] = low * (left * np.maximum(aside, 0) + right * np.maximum(-aside, 0))
    out[1] = low * forward
    return out


# ---- arithmetic


def smooth_noise(grid: Geometry, rng: np.random.Generator, sd_mm: float, width_mm: float) -> Field:
    """(3, k, j, i) Gaussian noise of SD ``sd_mm`` in each component, smoothed to ``width_mm`` (full width at half maximum)."""
    sigma = [width_mm / 2.355 / step for step in grid.spacing_mm]
    pad = [int(np.ceil(3 * s)) for s in sigma]
    shape = [n + 2 * p for n, p in zip(grid.shape, pad, strict=True)]
    inner = tuple(slice(p, p + n) for p, n in zip(pad, grid.shape, strict=True))
    # What white noise of SD 1 has left of its SD after the filter: (4 pi sigma^2)^(-1/4) an axis.
    scale = sd_mm * float(np.prod([(4 * np.pi * s**2) ** 0.25 for s in sigma]))
    white = (rng.standard_normal(shape, dtype=np.float32) for _ in range(3))
    return np.stack([ndimage.gaussian_filter(one, sigma, truncate=3.0)[inner] * np.float32(scale) for one in white])


def unfolded(u: Field, grid: Geometry, least: float) -> tuple[Field, float]:
    """(``u`` with no Jacobian determinant below ``least``, percent of voxels that were made smoother for it).

    Where the determinant is too small the field is blended into a smoother version of itself, again until it is not.
    """
    touched = np.zeros(u.shape[1:], bool)
    sigma = [12.0 / step for step in grid.spacing_mm]
    for _ in range(60):
        low = Deformation(Volume(u, grid), "day", "planning").jacobian().array < least + 0.02
        if not low.any():
            break
        weight = np.clip(2 * ndimage.gaussian_filter(ndimage.binary_dilation(low, iterations=2).astype(np.float32), 1.5), 0, 1)
        touched |= weight > 0.05
        smooth = np.stack([ndimage.gaussian_filter(one, sigma, mode="nearest") for one in u])
        u = u + weight * (smooth - u)
    return np.asarray(u, np.float32), 100 * float(touched.mean())


def _pivot(anatomy: Anatomy) -> NDArray[np.float64]:
    """Where the neck bends: on the cord (else in the middle), somewhat below the jaw, or below the brainstem, or at half height."""
    points, organs = anatomy.points, anatomy.organs
    z = points[2][anatomy.inside].mean()
    for name, below in (("Bone_Mandible", 20.0), ("Brainstem", 90.0)):
        if name in organs:
            z = points[2][organs[name]].min() - below
            break
    near = np.abs(points[2] - z) <= 15.0
    at = organs["SpinalCord"] & near if "SpinalCord" in organs else near & anatomy.inside
    at = at if at.any() else anatomy.inside
    x, y = points[:2, at].mean(axis=1)
    return np.array([x, y, z], dtype=np.float64)


def _turned(anatomy: Anatomy, angles: NDArray[np.float64], pivot: NDArray[np.float64]) -> Field:
    """The displacement of a rotation about x, then y, then z through ``pivot``."""
    cx, cy, cz = np.cos(angles)
    sx, sy, sz = np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    away = anatomy.points - pivot.astype(np.float32)[:, None, None, None]
    return np.asarray(np.einsum("cd,dxyz->cxyz", (about_z @ about_y @ about_x - np.eye(3)).astype(np.float32), away))


def _rise(t: NDArray[np.floating]) -> NDArray[np.float32]:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _edt(mask: Mask) -> NDArray[np.float64]:
    """Distance in mm from each voxel of ``mask`` to the nearest outside it."""
    if mask.all():
        return np.full(mask.shape, 1e3)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=GRID_MM))
