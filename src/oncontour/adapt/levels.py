"""What is registered, how, and two images at one resolution: how alike they are under any map of points.

Images are CTs in HU; tensors are (k, j, i) in units of 100 HU on grids along each image's own axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from oncontour.adapt.energies import LocalCorrelation
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError

AIR_HU = -1000.0
EDGE_MM, EDGE_HU = 8.0, 120.0


@dataclass(frozen=True)
class Resolution:
    """One round of the search: images in voxels of ``voxel_mm``, control points ``control_mm`` apart, ``steps`` of at most ``step_mm``."""

    voxel_mm: float
    control_mm: float
    steps: int
    step_mm: float


@dataclass(frozen=True)
class Settings:
    """How images are registered.

    ``rounds`` coarse to fine, each lattice half as wide as the one before or any other width; ``bending_mm2`` what a bending energy of
    1 mm^-2 costs in correlation; ``window_mm`` of the local correlation, ``floor_hu`` the noise below which nothing correlates, ``clip_hu``
    the values told apart; ``margin_mm`` how far around a region voxels count; ``structures`` the weight of the soft DSC of structures that
    both visits have; ``diffeomorphic`` moves along a velocity and so cannot fold; ``both_ways`` registers back as well and measures how far
    the two disagree (twice the time).
    """

    rounds: tuple[Resolution, ...] = (Resolution(5.5, 16, 40, 1.0), Resolution(2.75, 8, 25, 0.5))
    bending_mm2: float = 30.0
    window_mm: float = 20.0
    floor_hu: float = 25.0
    clip_hu: tuple[float, float] = (-1000.0, 500.0)
    margin_mm: float = 5.0
    structures: float = 1.0
    diffeomorphic: bool = False
    both_ways: bool = False

    def __post_init__(self) -> None:
        numbers = [self.window_mm, self.floor_hu, *(v for r in self.rounds for v in (r.voxel_mm, r.control_mm, r.steps, r.step_mm))]
        if not self.rounds or min(numbers) <= 0 or self.bending_mm2 < 0 or self.structures < 0 or self.clip_hu[0] >= self.clip_hu[1]:
            raise ConfigError(
                f"these settings register nothing: {self}", hint="sizes, steps and the floor are positive, weights not negative"
            )


@dataclass(frozen=True, eq=False)
class Visit:
    """One of the two images to register, and what is known of it.

    ``known``  where the image holds what its scanner saw (a truncated field of view, a dose region): other voxels count nowhere;
    ``region`` what is to be matched (lungs, a body): the fixed one says where likeness counts, and the middles of both give a start;
    ``structures`` masks by name: those that both visits have pull the deformation; ``stiffness`` (of the fixed visit) how many times harder
    than elsewhere each place is to bend.
    """

    image: Volume
    name: str
    known: Volume | None = None
    region: Volume | None = None
    structures: Mapping[str, Volume] = field(default_factory=lambda: MappingProxyType({}))
    stiffness: Volume | None = None


@dataclass(frozen=True, eq=False)
class Level:
    """Two images at one resolution, as torch tensors (k, j, i) in units of 100 HU: how alike they are under any map of points.

    ``grid`` is the fixed level's. ``index`` are the voxels that count (flat), ``weight`` how much (dense), ``points`` (n, 3) their LPS mm.
    """

    grid: Geometry
    fixed: Tensor
    weight: Tensor
    index: Tensor
    points: Floats
    moving: Tensor
    to_unit: Tensor
    offset: Floats
    reach: tuple[Tensor, Tensor]
    known: Tensor | None
    alike: LocalCorrelation

    def units(self, points_mm: Floats) -> Tensor:
        """(n, 3) points of the moving image -> what ``sample`` takes: -1 and 1 are the outermost voxel centres, order i, j, k."""
        return torch.from_numpy((points_mm @ self.to_unit.numpy().astype(np.float64) + self.offset).astype(np.float32))

    def under(self, matrix: Floats) -> Tensor:
        """(n, 3) units to which a 4x4 map takes the voxels that count."""
        return self.units(self.points @ matrix[:3, :3].T + matrix[:3, 3])

    def counted(self, units: Tensor) -> Tensor | None:
        """The weight of each voxel where some leave the moving image or what is known of it; None where all stay inside."""
        at = units.detach()
        inside = ((at >= self.reach[0]) & (at <= self.reach[1])).all(dim=1)
        if self.known is None and bool(inside.all()):
            return None
        share = inside.float()
        if self.known is not None:
            share = share * sample(self.known, at)[0]
        return self._dense(share, self.fixed.new_zeros(()).expand(self.fixed.shape)) * self.weight

    def correlation(self, units: Tensor) -> Tensor:
        """Mean local correlation of the fixed image with the moving one asked at ``units`` (n, 3)."""
        warped = self._dense(sample(self.moving, units)[0], self.fixed)
        return self.alike(warped, self.counted(units))

    def edges(self, units: Tensor) -> float:
        """How well edges lie on edges: the 10th percentile of the correlation over windows of some 8 mm whose fixed values spread by 120 HU
        and more; NaN where there are none."""
        small = LocalCorrelation(self.fixed, self.weight, self.grid.spacing_mm, EDGE_MM, 0.25)
        correlation, share, variance = small.windows(self._dense(sample(self.moving, units)[0], self.fixed), self.counted(units))
        found = correlation[(share > 0.5) & (variance > (EDGE_HU / 100) ** 2)]
        return float(torch.quantile(found[: 2**23], 0.1)) if found.numel() else float("nan")

    def overlap(self, units: Tensor) -> float:
        """Share of the counting voxels that the map leads into the moving image."""
        counted = self.counted(units)
        return 1.0 if counted is None else float(counted.sum() / self.weight.sum())

    def _dense(self, values: Tensor, elsewhere: Tensor) -> Tensor:
        return elsewhere.reshape(-1).index_put((self.index,), values).reshape(self.fixed.shape)


def sample(images: Tensor, units: Tensor) -> Tensor:
    """(c, n) linear values of (c, k, j, i) at ``units`` (n, 3); the edge goes on beyond the edge."""
    grid = units[None, None, None]
    return functional.grid_sample(images[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0, :, 0, 0]


def prepared(image: Volume, grid: Geometry, clip_hu: tuple[float, float]) -> NDArray[np.float32]:
    """HU on ``grid``, clipped, in units of 100 HU."""
    values = image.map(lambda a: a.astype(np.float32, copy=False)).to(grid, fill=AIR_HU).array
    return np.asarray(np.clip(values, *clip_hu) / 100, dtype=np.float32)


def units_of(grid: Geometry) -> tuple[Floats, Floats]:
    """(3, 3) and (3,): LPS mm @ the first + the second are units (i, j, k) of ``grid``."""
    scale = 2 / np.maximum(np.asarray(grid.shape) - 1, 1)
    return (grid.inverse[:3, :3] * scale[:, None])[::-1].T.copy(), (grid.inverse[:3, 3] * scale - 1)[::-1].copy()


def level_of(fixed: Visit, moving: Visit, box: Geometry, voxel_mm: float, settings: Settings) -> Level:
    """Both images in voxels of ``voxel_mm`` (no finer than they are), the fixed one within ``box``."""
    grid, theirs = in_voxels(box, voxel_mm), in_voxels(moving.image.geometry, voxel_mm)
    weight = counting(fixed, grid, settings)
    to_unit, offset = units_of(theirs)
    index = np.flatnonzero(weight)
    ends = moving.image.geometry.points([(0, 0, 0), tuple(n - 1 for n in moving.image.geometry.shape)]) @ to_unit + offset
    values = torch.from_numpy(prepared(fixed.image, grid, settings.clip_hu))
    weights = torch.from_numpy(weight)
    return Level(
        grid=grid,
        fixed=values,
        weight=weights,
        index=torch.from_numpy(index),
        points=grid.points(np.stack(np.unravel_index(index, grid.shape), axis=-1)),
        moving=torch.from_numpy(prepared(moving.image, theirs, settings.clip_hu))[None],
        to_unit=torch.from_numpy(to_unit.astype(np.float32)),
        offset=offset,
        reach=(torch.from_numpy(ends.min(axis=0) - 1e-4).float(), torch.from_numpy(ends.max(axis=0) + 1e-4).float()),
        known=None if moving.known is None else coverage(moving.known, theirs)[None],
        alike=LocalCorrelation(values, weights, grid.spacing_mm, settings.window_mm, settings.floor_hu / 100),
    )


def in_voxels(grid: Geometry, voxel_mm: float) -> Geometry:
    """``grid``'s box in voxels of ``voxel_mm``, along each axis no finer than they are."""
    return grid.resample([max(voxel_mm, step) for step in grid.spacing_mm])


def counting(visit: Visit, grid: Geometry, settings: Settings) -> NDArray[np.float32]:
    """How much each voxel of ``grid`` counts: 1 in the region and its margin where the image is known. Raises InputError for none."""
    out = np.ones(grid.shape, np.float32)
    if visit.region is not None:
        inside = visit.region.binary().to(grid).array
        out *= ndimage.distance_transform_edt(~inside, sampling=grid.spacing_mm) <= settings.margin_mm
    whole = in_voxels(visit.image.geometry, min(grid.spacing_mm))  # the image's box, in voxels that are no finer than need be
    out *= coverage(Volume(np.ones(whole.shape, bool), whole) if visit.known is None else visit.known, grid).numpy()
    if not out.any():
        raise InputError("the region to match lies outside what is known of the image", where=f"visit {visit.name}")
    return out


def coverage(mask: Volume, grid: Geometry) -> Tensor:
    """How much of each voxel of ``grid`` a mask covers, [0, 1]."""
    return torch.from_numpy(mask.map(lambda a: a.astype(np.float32)).to(grid).array.copy())


def centres(grid: Geometry) -> Floats:
    """(k, j, i, 3) LPS mm of the centre of every voxel."""
    return grid.points(np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1))
