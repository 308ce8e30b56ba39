"""Simulated outcomes: virtual patients made of real dose distributions, and a risk that is known because it was made.

    truth = Truth(...).fitted(home)      what the risk is made of, scaled on the home hospital
    virtual = draw(hospital, original)   how one virtual patient differs from the original
    virtual.apply(case)                  the case that a model sees: dose scaled, shifted, mirrored, noisy, on another grid

logit(risk) = logit(published NTCP model) + spatial terms (weight x standard deviations) + clinical facts + the hospital's intercept.

Spatial terms (``wall_gy``, ``ring_share``), of an organ that is a tube:

* ``wall``: dose of the patient's left half of the organ less that of its right half, averaged over slices. Mirroring a patient turns its
  sign and leaves every DVH, and every feature that does not know left from right, as it was. As half of the virtual patients are mirrored
  by a coin, no DVH can tell anything about it: not in this cohort, and not in any.
* ``ring``: the part of the length whose full circumference receives more than 45 Gy (the coldest 5 % of the slice). This is what one would
  first think of; but where most dose falls off along the organ, a DVH knows it nearly as well (``seen_by_dvh`` says how well).

Nothing of this is a finding: the terms and their weights are made up, and whatever is trained on them is to be called simulated.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH, dvh
from oncontour.dose.ntcp import MODELS
from oncontour.errors import ConfigError, DoseError, InputError
from oncontour.metrics.probability import sigmoid
from oncontour.sides import other_side

Floats = NDArray[np.float64]
TITLE = "simulated outcomes"
RING_GY = 45.0
COLDEST = 0.05
SOFT_GY = 2.0
"""Over so many Gy a slice changes from partly to fully irradiated: a hard step would hang on single voxels."""
DVH_FIGURES = ("Dmean", "D2%", "V10Gy", "V20Gy", "V30Gy", "V40Gy", "V45Gy", "V50Gy", "V60Gy")
"""What the DVH models here are made of."""
CELLS = 2**14


@dataclass(frozen=True)
class Toxicity:
    """What is simulated: a published model of ``structure``, spatial terms, and the weight of two facts (log odds; invented)."""

    name: str = "esophagitis_g2"
    model: str = "esophagitis-g2-zehentmayr-2015"
    """a row of dose.ntcp.MODELS"""
    structure: str = "Esophagus"
    wall: float = 2.0
    """log odds a standard deviation of the wall term; 0 leaves it out"""
    ring: float = 0.0
    """log odds a standard deviation of the ring term"""
    chemo: float = 0.7
    """log odds of concurrent chemotherapy"""
    age: float = 0.15
    """log odds ten years"""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ConfigError(f"no published model {self.model!r}", hint=f"choose one of {', '.join(MODELS)}")


@dataclass(frozen=True)
class Hospital:
    """Where virtual patients are treated, and how their dose is recorded."""

    name: str = "home"
    share: float = 0.6
    """part of the original patients; nobody is in two hospitals"""
    variants: int = 30
    """virtual patients of each original"""
    scale: tuple[float, float] = (0.75, 1.05)
    """prescription, as a factor on the original's dose, evenly between"""
    shift_mm: tuple[float, float, float] = (6.0, 6.0, 8.0)
    """standard deviation of the set-up along x, y, z: the dose moves, the anatomy stays"""
    mirrored: float = 0.5
    """part of patients that are mirrored left to right; other than one half, a DVH may learn something of the wall term"""
    noise_gy: float = 0.0
    """standard deviation of noise in each voxel of the recorded dose (the risk follows the true one)"""
    grid_mm: float = 0.0
    """the recorded dose's grid; 0: that of the original"""
    prevalence: float = 0.33
    """mean risk"""
    chemo: float = 0.5
    """part of patients with concurrent chemotherapy"""
    age: tuple[float, float] = (62.0, 9.0)
    """mean and standard deviation, years"""
    missing: float = 0.0
    """part of the outcomes that nobody recorded"""
    wrong: float = 0.0
    """part of the recorded outcomes that are wrong; the true risk counts them in"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "shift_mm", tuple(self.shift_mm))
        object.__setattr__(self, "age", tuple(self.age))
        parts = (self.mirrored, self.chemo, self.missing, self.wrong)
        if self.variants < 1 or not 0 < self.share <= 1 or not 0 < self.prevalence < 1 or not all(0 <= p <= 1 for p in parts):
            raise ConfigError(f"settings of hospital {self.name} out of range: {asdict(self)}")
        if not 0 < self.scale[0] <= self.scale[1] or min(*self.shift_mm, self.noise_gy, self.grid_mm) < 0:
            raise ConfigError(f"settings of hospital {self.name} out of range: {asdict(self)}")


HOSPITALS = (
    Hospital(missing=0.05, wrong=0.01),
    Hospital("second", 0.2, 30, (0.70, 0.95), noise_gy=0.7, grid_mm=5.0, prevalence=0.45, chemo=0.8, age=(66.0, 8.0), wrong=0.01),
    Hospital("third", 0.2, 30, (0.85, 1.10), noise_gy=1.5, grid_mm=3.0, prevalence=0.22, chemo=0.3, age=(59.0, 10.0), wrong=0.01),
)
"""Home, and two that differ in prescription, recorded noise, dose grid, case mix and prevalence."""


# ---- one virtual patient


@dataclass(frozen=True)
class Virtual:
    """How a virtual patient differs from its ``original``. The default changes nothing."""

    original: str
    number: int = 0
    scale: float = 1.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirrored: bool = False
    noise_gy: float = 0.0
    grid_mm: float = 0.0
    seed: int = 0

    @property
    def id(self) -> str:
        return f"{self.original}-v{self.number:03d}"

    def apply(self, case: Case) -> Case:
        """``case`` as this virtual patient is recorded, under the virtual id. Raises InputError for a case without a dose."""
        if "dose" not in case.images:
            raise InputError("a virtual patient is made of a dose, and there is none", where=f"case {case.id}")
        dose = self.recorded_dose(case.images["dose"])
        if case.geometry.same_grid(case.images["dose"].geometry):
            dose = dose.to(case.geometry)  # masks lie on the dose's own grid, which must not move away from them
        images, masks, contours = {**case.images, "dose": dose}, case.masks, case.contours
        if self.mirrored:
            images = {name: _mirror(image) for name, image in images.items()}
            masks = {other_side(name) or name: _mirror(case.masks[name]) for name in case.masks}
            contours = {}  # structures are taken from masks below
            for name in case.contours:
                if name not in case.masks:
                    masks[other_side(name) or name] = _mirror(case.mask(name))
        return Case(self.id, images, masks, contours, {**case.facts, "original": self.original})

    def true_dose(self, dose: Volume) -> Volume:
        """Scaled and shifted; not mirrored."""
        affine = dose.geometry.affine.copy()
        affine[:3, 3] += self.shift_mm
        return Volume(dose.array.astype(np.float32) * np.float32(self.scale), Geometry(dose.geometry.shape, affine))

    def recorded_dose(self, dose: Volume) -> Volume:
        """The true dose on the hospital's grid, with its noise; not mirrored."""
        moved = self.true_dose(dose)
        if self.grid_mm:
            moved = moved.to(moved.geometry.resample([self.grid_mm] * 3))
        if self.noise_gy:
            rng = np.random.default_rng([self.seed, zlib.crc32(self.id.encode())])
            noise = rng.standard_normal(moved.geometry.shape, dtype=np.float32) * np.float32(self.noise_gy)
            moved = moved.map(lambda array: np.maximum(array + np.where(array > 0, noise, 0), 0).astype(np.float32))
        return moved


def draw(hospital: Hospital, original: str, number: int, seed: int) -> tuple[Virtual, dict[str, float]]:
    """(virtual patient ``number`` of ``original``, its clinical facts); the same arguments give the same patient."""
    rng = np.random.default_rng([seed, zlib.crc32(hospital.name.encode()), zlib.crc32(original.encode()), number])
    x, y, z = (float(v) for v in rng.normal(0, hospital.shift_mm))
    virtual = Virtual(
        original,
        number,
        round(float(rng.uniform(*hospital.scale)), 4),
        (round(x, 2), round(y, 2), round(z, 2)),
        bool(rng.random() < hospital.mirrored),
        hospital.noise_gy,
        hospital.grid_mm,
        seed,
    )
    facts = {"chemo": int(rng.random() < hospital.chemo), "age": round(float(np.clip(rng.normal(*hospital.age), 18, 95)), 1)}
    return virtual, facts


def _mirror(volume: Volume) -> Volume:
    """The same voxels in the patient seen in a mirror: x becomes -x."""
    affine = volume.geometry.affine.copy()
    affine[0] *= -1
    return Volume(volume.array, Geometry(volume.geometry.shape, affine))


# ---- what the dose says


@dataclass(frozen=True)
class Anatomy:
    """What the simulation needs of a patient: the dose, and masks cut to their structures, so that a whole cohort can be held."""

    id: str
    dose: Volume
    masks: Mapping[str, Volume]

    @classmethod
    def of(cls, case: Case, structures: Sequence[str]) -> Anatomy:
        """Of ``case``, with the other side of a structure that has one. Raises InputError where dose or structure is absent or empty."""
        if "dose" not in case.images:
            raise InputError("no dose", where=f"case {case.id}")
        names = dict.fromkeys([*structures, *(name for name in map(other_side, structures) if name in case.structures)])
        masks = {name: _cut(case.mask(name)) for name in names}
        empty = [name for name, mask in masks.items() if not mask.array.any()]
        if empty:
            raise InputError(f"{', '.join(empty)} is empty", where=f"case {case.id}")
        return cls(case.id, case.images["dose"], masks)

    def treated(self, virtual: Virtual) -> Anatomy:
        """With the true dose of a virtual patient."""
        dose = virtual.true_dose(self.dose)
        if not virtual.mirrored:
            return replace(self, dose=dose)
        return Anatomy(self.id, _mirror(dose), {other_side(name) or name: _mirror(mask) for name, mask in self.masks.items()})


def _cut(mask: Volume) -> Volume:
    held = np.argwhere(mask.array)
    if not len(held):
        return mask
    return mask.to(mask.geometry.crop(held.min(axis=0).tolist(), (held.max(axis=0) + 1).tolist()))


@dataclass(frozen=True)
class Exposure:
    """What the risk is made of, in one virtual patient: the model's probability, the spatial terms, and the figures of the DVH."""

    ntcp: float
    wall_gy: float
    ring_share: float
    figures: Mapping[str, float]


def exposure(patient: Anatomy, toxicity: Toxicity) -> Exposure:
    """Of the dose that ``patient`` truly has. Raises DoseError where the structure does not lie in the dose, or it is 0 throughout."""
    name = toxicity.structure
    mask, dose = patient.masks[name], patient.dose
    one = dvh(dose, mask, name=name, cells_wanted=CELLS)
    if not one.dosed_cc or one.missing_cc > 0.5 * one.volume_cc or not one.max_gy > 0:
        raise DoseError(one.note or f"{name} receives nothing", where=f"case {patient.id}")
    inside, gy = _in_slices(mask, dose)
    return Exposure(MODELS[toxicity.model].probability({name: one}), wall_gy(inside, gy), ring_share(inside, gy), figures(one))


def figures(one: DVH) -> dict[str, float]:
    """DVH_FIGURES by name."""
    return {name: one.figure(name) for name in DVH_FIGURES}


def wall_gy(inside: NDArray[np.bool_], gy: Floats) -> float:
    """Mean over slices of (mean Gy of the left half less that of the right half); i runs to the patient's left. No slice with two sides: 0.

    Half means on either side of the slice's middle; the column in the middle belongs to neither.
    """
    out = []
    column = np.arange(inside.shape[2], dtype=np.float64)
    for mask, dose in zip(inside, gy, strict=True):
        if not mask.any():
            continue
        across = mask.sum(axis=0)
        middle = float((across * column).sum() / across.sum())
        left, right = (mask & side for side in (column > middle + 0.25, column < middle - 0.25))
        if left.any() and right.any():
            out.append(float(dose[left].mean() - dose[right].mean()))
    return float(np.mean(out)) if out else 0.0


def ring_share(inside: NDArray[np.bool_], gy: Floats, at_gy: float = RING_GY) -> float:
    """Part of the slices, 0 to 1, whose coldest 5 % receive more than ``at_gy`` (softly, over 2 Gy)."""
    cold = np.array([np.quantile(dose[mask], COLDEST) for mask, dose in zip(inside, gy, strict=True) if mask.any()])
    return float(sigmoid((cold - at_gy) / SOFT_GY).mean()) if len(cold) else 0.0


def _in_slices(mask: Volume, dose: Volume) -> tuple[NDArray[np.bool_], Floats]:
    """Mask and Gy on the mask's own voxels, upright (k superior, j posterior, i left), as far as the mask reaches."""
    upright = mask.to(mask.geometry.reorient())
    return upright.array, np.asarray(dose.to(upright.geometry).array, dtype=np.float64)


def seen_by_dvh(values: Floats, table: Floats) -> float:
    """R squared of a spatial term on DVH figures (n, f), their squares included, by least squares: how much of it a DVH knows.

    Adjusted for the number of figures; it can be a little below 0.
    """
    z = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-9)
    design = np.c_[np.ones(len(z)), z, z**2]
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    free = len(values) - design.shape[1]
    return float(1 - (left @ left / free) / values.var(ddof=1)) if free > 0 and values.var() > 0 else np.nan


# ---- risk


@dataclass(frozen=True)
class Truth:
    """How an exposure becomes a risk; ``wall_sd_gy`` and ``ring`` (mean, SD) are those of the home hospital's virtual patients."""

    toxicity: Toxicity
    wall_sd_gy: float = 1.0
    ring: tuple[float, float] = (0.0, 1.0)
    intercepts: Mapping[str, float] = field(default_factory=dict)
    """hospital -> what brings its mean risk to its prevalence"""

    def fitted(self, exposures: Sequence[Exposure]) -> Truth:
        """Scaled by these exposures of the home hospital."""
        wall = np.array([e.wall_gy for e in exposures])
        ring = np.array([e.ring_share for e in exposures])
        spread = float(np.sqrt((wall**2).mean()))  # by mirroring its mean is 0
        return replace(self, wall_sd_gy=max(spread, 1e-6), ring=(float(ring.mean()), max(float(ring.std()), 1e-6)))

    def predictor(self, one: Exposure, facts: Mapping[str, float]) -> float:
        """Log odds without a hospital's intercept."""
        t = self.toxicity
        p = min(max(one.ntcp, 1e-4), 1 - 1e-4)
        spatial = t.wall * one.wall_gy / self.wall_sd_gy + t.ring * (one.ring_share - self.ring[0]) / self.ring[1]
        clinical = t.chemo * float(facts["chemo"]) + t.age * (float(facts["age"]) - 60) / 10
        return float(np.log(p / (1 - p))) + spatial + clinical

    def at(self, hospital: Hospital, predictors: Floats) -> tuple[Truth, Floats]:
        """(the truth that knows the hospital's intercept, true risk of its patients, wrong records counted in)."""
        low, high = -30.0, 30.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if sigmoid(predictors + middle).mean() < hospital.prevalence else (low, middle)
        risk = sigmoid(predictors + low)
        return replace(self, intercepts={**self.intercepts, hospital.name: low}), risk * (1 - hospital.wrong) + (1 - risk) * hospital.wrong


def record(risk: Floats, hospital: Hospital, seed: int) -> Floats:
    """Outcomes 0 and 1 drawn with these risks, NaN where nobody recorded them."""
    rng = np.random.default_rng([seed, zlib.crc32(hospital.name.encode()), 1])
    out = (rng.random(len(risk)) < risk).astype(np.float64)
    out[rng.random(len(risk)) < hospital.missing] = np.nan
    return out


def bayes_auc(risk: Floats) -> float:
    """The AUC that knowing the true risk has on average, which no model can beat: E of a pair (event, none) being ranked right.

    sum over pairs r_i (1 - r_j) [r_i > r_j] (ties one half) over sum of r_i (1 - r_j), i not j. Below two patients: NaN.
    """
    r = np.sort(np.asarray(risk, dtype=np.float64))
    n = len(r)
    if n < 2:
        return float("nan")
    free = 1 - r
    _, start = np.unique(r, return_index=True)
    before = np.concatenate([[0.0], np.cumsum(free)])
    stop = np.append(start[1:], n)
    own = np.repeat(before[stop] - before[start], stop - start)
    lower = np.repeat(before[start], stop - start)
    pairs = float(r.sum() * free.sum() - (r * free).sum())
    right = float((r * (lower + 0.5 * (own - free))).sum())
    return right / pairs if pairs > 0 else float("nan")
