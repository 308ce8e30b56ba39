"""The mean patient: anatomy, organs, targets and dose of 24 public head-and-neck patients, averaged into one that is nobody.

Made by docs/write_mean_patient.py from training patients of OpenKBP; origin, licence and how far it is from each of them stand beside the
data in ``mean_patient/``. A seed bends it into another patient of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.case import BitMasks, Case
from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError

PATIENTS = 24
"""So many are averaged."""
AIR_HU = -1024
"""Where nothing is known: outside the body, as in the patients that it was made from."""
HU_STEP, GY_STEP = 8, 0.2
"""What CT and dose are rounded to in the file."""
PRESCRIPTION_GY = 70.0
BEND_MM = 4.0
"""How far a seed moves anatomy, root mean square of each component."""
BEND_OVER_MM = 45.0
"""The displacement of a seed is smooth over this (sigma of a Gaussian)."""
NOISE_HU = 10.0

_FOLDER = "mean_patient"
_FILE = "mean.npz"


@dataclass(frozen=True, eq=False)
class Stored:
    """What the file holds. ``ct``: int16 in steps of HU_STEP from AIR_HU; ``dose``: uint16 in steps of GY_STEP; ``planes``: the
    structures as BitMasks has them, uint8 (p, k, j, i), in the order of ``names``; ``spacing_mm`` and ``origin_mm`` as in
    Geometry.regular."""

    ct: NDArray[np.int16]
    dose: NDArray[np.uint16]
    planes: NDArray[np.uint8]
    names: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]


def mean_patient(seed: int = 0) -> Case:
    """The mean patient: images "ct" (HU) and "dose" (Gy), masks of the seven organs of hn-organs and of the targets.

    ``seed`` 0 is the mean itself. Any other seed moves its anatomy smoothly by some millimetres (CT, dose and masks alike) and adds noise:
    the same seed gives the same bits, another seed another patient. Raises ConfigError for a negative seed.
    """
    if seed < 0:
        raise ConfigError(f"a seed is a whole number of at least 0, not {seed}")
    stored = _load()
    grid = Geometry.regular(stored.ct.shape, stored.spacing_mm, stored.origin_mm)
    ct = stored.ct.astype(np.float32) * HU_STEP + AIR_HU
    dose = stored.dose.astype(np.float32) * np.float32(GY_STEP)
    masks = BitMasks(Volume(stored.planes, grid), stored.names)
    facts = {"site": "head and neck", "prescription_gy": PRESCRIPTION_GY, "seed": seed}
    name = f"mean-patient-{seed:03d}"
    if seed == 0:
        return Case(name, {"ct": Volume(ct, grid), "dose": Volume(dose, grid)}, masks, facts=facts)
    rng = np.random.default_rng(seed)
    at = _bent(rng, grid)
    body = ct > AIR_HU
    noise = ndimage.gaussian_filter(rng.standard_normal(grid.shape, np.float32), 0.6)
    moved_ct = np.where(_moved(body, at) >= 0.5, _moved(ct, at) + noise * (NOISE_HU / noise.std()), AIR_HU)
    images = {"ct": Volume(np.rint(np.maximum(moved_ct, AIR_HU)).astype(np.float32), grid), "dose": Volume(_moved(dose, at), grid)}
    moved = {organ: Volume(_moved(masks[organ].array, at) >= 0.5, grid) for organ in masks}
    return Case(name, images, moved, facts=facts)


def origin() -> str:
    """Where the mean patient comes from, in Markdown: patients, method, licence, how near it is to any of them."""
    return (resources.files("oncontour.phantom") / _FOLDER / "ORIGIN.md").read_text(encoding="utf-8")


def _load() -> Stored:
    with (
        resources.as_file(resources.files("oncontour.phantom") / _FOLDER / _FILE) as path,
        np.load(path, allow_pickle=False) as held,
    ):
        names = tuple(str(name) for name in held["names"])
        spacing_mm, origin_mm = (tuple(float(v) for v in held[key]) for key in ("spacing_mm", "origin_mm"))
        return Stored(held["ct"], held["dose"], held["planes"], names, spacing_mm, origin_mm)


def _bent(rng: np.random.Generator, grid: Geometry) -> NDArray[np.float32]:
    """(3, k, j, i): the voxel that each voxel takes its value from."""
    at = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grid.shape), indexing="ij"))
    for axis, step in enumerate(grid.spacing_mm):
        smooth = ndimage.gaussian_filter(rng.standard_normal(grid.shape, np.float32), [BEND_OVER_MM / s for s in grid.spacing_mm])
        at[axis] += smooth * np.float32(BEND_MM / step / smooth.std())
    return at


def _moved(array: Array, at: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(ndimage.map_coordinates(array.astype(np.float32), at, order=1, mode="nearest", output=np.float32))
