"""Simulated repeat visits: the planning CT deformed by a field that is known, seen by another scanner on another day.

There is no public repeat CT with organs, so these stand in for one; whatever is learned or measured on them is about SIMULATED visits and
must say so. daily(x) = planning(x + u(x)). Four traps are met:

* contours carried by the true field would be perfect by construction, which favours propagation: a visit's masks are those of a *second
  observer*, the true ones moved by smooth noise of its own for each structure (``exact`` holds the true ones);
* a CT that is known only inside some region is masked on the day by the region of the *planning* day, not by the moved one, whose border
  would tell how it moved;
* the rigid part is taken out but for a millimetre, as a clinic registers rigidly first;
* the grain of the planning CT does not move with the patient: a second scan has noise of its own, and a registration that could follow
  the first scan's would seem better than it is. It is taken out before the CT is deformed, and as much of it laid over the day elsewhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.adapt import motion
from oncontour.adapt.deformation import Deformation
from oncontour.adapt.motion import Anatomy, Field, Mask
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError
from oncontour.ops.intensity import AIR_HU

TITLE = "Simulated visits: the planning CT deformed by a known field; no patient was scanned again"
Family = Literal["course", "unseen"]
PLANNING, DAILY = "planning", "daily"
"""What a visit's deformation calls its two images."""
LEFT_MM = 1.0
"""SD, on each axis, of the shift that stays when the rigid part is taken out; not scaled by the amplitude."""
OBSERVER_MM, OBSERVER_WIDTH_MM = 1.5, 20.0
"""SD of a second observer's contours about the true ones, and how far along a contour it hangs together (full width at half maximum)."""
LEAST_JACOBIAN = 0.5
GRAIN_MM, GRAIN_SD = 5.0, 2.0
"""Grain is what a smoothing of this full width at half maximum takes away, up to so many times its SD in soft tissue: more is anatomy."""
_SOFT_TISSUE_HU = (-150.0, 150.0)
_AWAY_MM = (22.0, 125.0, 66.0)
"""How far away (k, j, i) the grain of the day lies from where the planning CT had it."""


@dataclass(frozen=True)
class VisitSettings:
    """What visits are simulated like."""

    amplitude: float = 0.8
    """times the motion seen in patients; 0.5 to 1.2 is usual, 1.2 is hard"""
    family: Literal["course", "unseen"] = "course"
    """"course": neck, jaw, parotids, skin and noise as in a course of treatment; "unseen": random B-splines, a swallow of the larynx and
    shoulders, which no model of ours learns from"""
    observer_mm: float = OBSERVER_MM
    """SD of a second observer's contours about the true ones; 0 for the true ones"""

    def __post_init__(self) -> None:
        if not 0 <= self.amplitude <= 3 or not 0 <= self.observer_mm <= 10:
            raise ConfigError(
                f"amplitude is 0 to 3 and observer_mm 0 to 10, not {self.amplitude} and {self.observer_mm}",
                hint="amplitude 0.8 is what published set-up errors come to",
            )


@dataclass(frozen=True, eq=False)
class SimulatedVisit:
    """A simulated visit with what is true of it.

    ``case``: the daily CT with a second observer's masks, ``case.prior`` the planning case; ``deformation``: from the daily image to the
    planning image; ``exact``: the masks that the true field carries; ``inside``: on the deformation's grid, where the CT shows the patient;
    ``course``: how much of the treatment was over (0 to 1); ``eased``: percent of the field that was made smoother so that nothing folds;
    ``seen``: what the scanner of the day added.
    """

    case: Case
    deformation: Deformation
    exact: Mapping[str, Volume]
    inside: Mask
    course: float
    eased: float
    seen: Mapping[str, float] = field(default_factory=dict)

    @property
    def displacement_mm(self) -> tuple[float, float]:
        """(mean, 95th percentile) of |u| in mm where the CT shows the patient."""
        size = np.linalg.norm(self.deformation.displacement.array, axis=0)[self.inside]
        return float(size.mean()), float(np.percentile(size, 95))

    @property
    def least_jacobian(self) -> float:
        return float(self.deformation.jacobian().array.min())


class Planning:
    """A planning case made ready to be visited again: what does not depend on the visit is worked out once."""

    def __init__(self, case: Case) -> None:
        """Raises InputError where there is no CT, or no structure that could be carried."""
        if not case.structures:
            raise InputError("a visit is simulated from contours, and there are none", where=f"case {case.id}")
        self.case = case
        self.filled, self.region = motion.known(case.ct)
        self.anatomy = Anatomy.of(case, self.filled, self.region)
        self.smooth, self.grain = _without_grain(self.filled, self.region)

    def visit(self, number: int, settings: VisitSettings, seed: int = 0) -> SimulatedVisit:
        """Visit ``number`` (1, 2, ...); the same case, number, settings and seed give the same bits, whatever else was drawn before."""
        rng = _rng(seed, self.case.id, number)
        u, course, eased = self._field(rng, settings)
        deformation = Deformation(Volume(u, self.anatomy.grid), DAILY, PLANNING)
        ct, seen = self._scanned(deformation, rng)
        drawing = int(rng.integers(2**32))
        masks = {name: self.case.mask(name).binary() for name in self.case.structures}
        exact = deformation.warp_masks(masks, self.case.geometry)
        observed = {name: self._observed(mask, exact[name], u, _rng(drawing, name), settings.observer_mm) for name, mask in masks.items()}
        day = Case(f"{self.case.id}/visit-{number}", {"ct": ct}, observed, prior=self.case, facts={"notes": (TITLE,)})
        return SimulatedVisit(day, deformation, exact, self.anatomy.inside, course, eased, seen)

    def _field(self, rng: np.random.Generator, settings: VisitSettings) -> tuple[Field, float, float]:
        """(u, part of the course, percent of voxels that were made smoother so that nothing folds)."""
        a, size, course = self.anatomy, settings.amplitude, float(rng.uniform(0.2, 1.0))
        if settings.family == "course":
            u = motion.neck(a, rng, size) + motion.jaw(a, rng, size) + motion.parotids(a, rng, size, course)
            u += motion.skin(a, rng, size, course) + motion.noise(a, rng, size)
        else:
            u = motion.splines(a, rng, size) + motion.swallow(a, rng, size) + motion.shoulders(a, rng, size)
        shift = rng.standard_normal(3).astype(np.float32) * np.float32(LEFT_MM)
        u, eased = motion.unfolded(self._without_rigid(u), a.grid, LEAST_JACOBIAN)
        return u + shift[:, None, None, None], course, eased

    def _without_rigid(self, u: Field) -> Field:
        """``u`` without the rigid motion that fits it best where the CT shows the patient."""
        grid = self.anatomy.grid
        matrix = Deformation(Volume(u, grid), DAILY, PLANNING).rigid_part(Volume(self.anatomy.inside, grid))
        back = np.linalg.inv(matrix)
        there = self.anatomy.points + u
        rest = np.einsum("cd,dxyz->cxyz", back[:3, :3], there) + back[:3, 3][:, None, None, None] - self.anatomy.points
        return np.asarray(rest, np.float32)

    def _scanned(self, deformation: Deformation, rng: np.random.Generator) -> tuple[Volume, dict[str, float]]:
        """(the CT of the day, what the scanner added): blur, gain, offset, noise and grain of its own."""
        grid = self.case.geometry
        blur_mm, noise_hu = float(rng.uniform(0, 1.5)), float(rng.uniform(5, 25))
        gain, offset = 1 + 0.02 * float(rng.standard_normal()), 10 * float(rng.standard_normal())
        hu = deformation.warp(self.smooth, grid, fill=AIR_HU).array.astype(np.float32)
        hu = ndimage.gaussian_filter(hu, [blur_mm / step for step in grid.spacing_mm], truncate=3.0)
        hu = (hu + 1000) * np.float32(gain) - 1000 + np.float32(offset)
        hu += rng.standard_normal(hu.shape, dtype=np.float32) * np.float32(noise_hu)
        hu += np.roll(self.grain, [round(mm / step) for mm, step in zip(_AWAY_MM, grid.spacing_mm, strict=True)], axis=(0, 1, 2))
        low = float(self.case.ct.array.min())
        hu = np.where(self.region, np.clip(np.rint(hu), min(low, AIR_HU), 3071), low)
        return Volume(hu.astype(np.int16), grid), {"blur_mm": blur_mm, "noise_hu": noise_hu, "gain": gain, "offset_hu": offset}

    def _observed(self, mask: Volume, exact: Volume, u: Field, rng: np.random.Generator, sd_mm: float) -> Volume:
        """``mask`` of the planning day as a second observer draws it on the day, about the ``exact`` one."""
        where = np.argwhere(exact.array)
        if not len(where) or not sd_mm:
            return exact
        grid, coarse = self.case.geometry, self.anatomy.grid
        margin = np.ceil(4 * OBSERVER_MM / np.asarray(grid.spacing_mm)).astype(int) + 1
        start, stop = np.maximum(where.min(axis=0) - margin, 0), np.minimum(where.max(axis=0) + margin + 1, grid.shape)
        box = grid.crop(start.tolist(), stop.tolist())
        part = coarse.around(box.corners_mm)
        first = np.rint(coarse.voxels(part.origin_mm)).astype(int)
        k, j, i = (slice(at, at + n) for at, n in zip(first, part.shape, strict=True))
        drawn = u[:, k, j, i] + motion.smooth_noise(part, rng, sd_mm, OBSERVER_WIDTH_MM)
        out = np.zeros(grid.shape, bool)
        inner = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        out[inner] = Deformation(Volume(drawn, part), DAILY, PLANNING).warp_masks({"": mask}, box)[""].array
        return Volume(out, grid)


def _without_grain(ct: Volume, region: Mask) -> tuple[Volume, NDArray[np.float32]]:
    """(the CT without its grain, the grain in HU): what a second scan shows again, and what it does not.

    What smoothing takes away is grain as long as it is small, and anatomy where it is large (soft thresholding: Donoho, IEEE Trans Inf
    Theory 1995;41:613-627, here with one band): edges stay where they were.
    """
    hu = ct.array.astype(np.float32)
    smooth = ndimage.gaussian_filter(hu, [GRAIN_MM / 2.3548 / step for step in ct.geometry.spacing_mm], truncate=3.0)
    rest = hu - smooth
    low, high = _SOFT_TISSUE_HU
    tissue = rest[region & (smooth > low) & (smooth < high)]
    most = GRAIN_SD * 1.4826 * float(np.median(np.abs(tissue))) if tissue.size else 0.0  # 1.4826: SD of a normal of that median
    grain = np.clip(rest, -most, most)
    return Volume(hu - grain, ct.geometry), grain


def _rng(seed: int, name: str, number: int = 0) -> np.random.Generator:
    """A generator that depends on all three and nothing else."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])
