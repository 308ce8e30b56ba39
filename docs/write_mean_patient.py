"""Make the mean patient that is shipped for the demo (src/oncontour/phantom/mean_patient) from 24 public patients.

    python docs/write_mean_patient.py [OPENKBP [OUT]]

OPENKBP holds ``train`` and ``validation``; by default $ONCONTOUR_DATA/openkbp, else ../shared/data/openkbp. It takes about a quarter of an
hour of one core.

1. The first 24 training patients that have all seven organs are brought to one grid of 2.5 x 4 x 4 mm, each centred by its organs.
2. Each is registered to the mean of all, twice: displacements on control points at 1/4, then at 1/2 of the resolution, found by Adam on
   the local correlation and the squared difference of the CT, the soft DSC of the organs, and the bending of the displacements.
3. After each round the mean is brought to the mean *shape*: the displacements are averaged, and the average is inverted.
4. CT and dose are the median of the warped patients, voxel by voxel; a structure is where the mean of its warped published masks reaches
   one half. No model has a part in it.
5. Nobody may be recovered from it: after a rigid alignment its nearest training patient must be no nearer, by correlation, than its nearest
   patient of the validation set, of which it holds nothing. The figures are printed and stand in ORIGIN.md beside the data; where it
   fails, nothing is written.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io.cohort import Cohort
from oncontour.learn.card import find, read_card
from oncontour.phantom.mean import AIR_HU, GY_STEP, HU_STEP, PATIENTS

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible")
TARGETS = ("PTV_5600", "PTV_6300", "PTV_7000")
OUT = Path(__file__).resolve().parents[1] / "src/oncontour/phantom/mean_patient"
SPACING_MM = (2.5, 4.0, 4.0)
SHAPE = (128, 72, 124)
MIN_SHARE = 0.5
"""A voxel is known, and a voxel is of a structure, from this share of the patients on."""


@dataclass(frozen=True)
class Stage:
    """One stretch of a registration: control points every so many voxels, images coarser by so much, steps of Adam, weight of bending."""

    every: int
    coarser: int
    steps: int
    bending: float


ROUNDS = ((Stage(4, 2, 60, 2.0),), (Stage(4, 2, 40, 0.5), Stage(2, 2, 40, 0.5), Stage(2, 1, 8, 0.5)))
"""The stages of each round; the second starts where the first ended."""
RATE_VOXELS = 0.15
CORRELATION, SQUARES, OVERLAP = 1.0, 2.0, 1.0
"""What the parts of the loss weigh."""
WINDOW_HU = (-300.0, 500.0)
BOX = 5
"""Local correlation is that of cubes of so many voxels."""
TISSUE_HU = -500.0
"""Above this is tissue, in the comparison of the mean with one patient."""
RIGID_STEPS, RATE_RIGID = 60, 0.5
"""Steps of Adam of a rigid alignment, and their size: mm, and hundredths of a radian."""

Tensor = torch.Tensor
Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Placed:
    """A patient on the common grid: CT (HU, air where nothing is published), scanned (1, and 0 above and below the slices that were),
    dose (Gy), structures as coverage in [0, 1]; None for an organ that was not contoured."""

    id: str
    ct: Tensor
    scanned: Tensor
    dose: Tensor
    masks: Mapping[str, Tensor]

    def seen(self) -> Tensor:
        """What registration looks at, (1, 2 + organs, k, j, i): windowed CT, scanned, organs."""
        return torch.stack([windowed(self.ct), self.scanned, *(self.masks[name] for name in ORGANS)])[None]


def windowed(hu: Tensor) -> Tensor:
    """HU to [0, 1]."""
    low, high = WINDOW_HU
    return (hu.clamp(low, high) - low) / (high - low)


# ---- patients on one grid


def complete(cohort: Cohort) -> Iterator[Case]:
    """The patients that have every organ, in natural order."""
    for id in cohort:
        case = cohort[id]
        if set(ORGANS) <= set(case.structures):
            yield case


def centre_mm(case: Case, organ: str) -> Points:
    """(x, y, z) of the middle of an organ."""
    mask = case.mask(organ)
    return np.asarray(mask.geometry.points(np.argwhere(mask.array).mean(axis=0)))


def scanned_slices(case: Case) -> tuple[int, int]:
    """First and last slice in which anything is published."""
    slices = np.flatnonzero((case.ct.array > AIR_HU).any(axis=(1, 2)))
    return int(slices[0]), int(slices[-1])


def middle_mm(case: Case) -> Points:
    """(x, y, z) of the middle of what is published."""
    known = np.argwhere(case.ct.array > AIR_HU)
    return np.asarray(case.geometry.points((known.min(axis=0) + known.max(axis=0)) / 2))


def placed(case: Case, middle: Points) -> Placed:
    """``case`` on the common grid, the middle of the grid at ``middle`` (x, y, z) mm of the case."""
    first = middle - ((np.asarray(SHAPE) - 1) / 2 * np.asarray(SPACING_MM))[::-1]
    grid = Geometry.regular(SHAPE, SPACING_MM, first.tolist())

    def on_grid(volume: Volume, fill: float = 0.0) -> Tensor:
        return torch.from_numpy(Volume(volume.array.astype(np.float32), volume.geometry).to(grid, fill=fill).array)

    ends = [case.geometry.points((k, 0, 0)) for k in scanned_slices(case)]
    low, high = sorted(float(grid.voxels(end)[0]) for end in ends)
    k = torch.arange(SHAPE[0])[:, None, None]
    scanned = ((k >= low - 0.5) & (k <= high + 0.5)).float().expand(SHAPE).clone()
    masks = {name: on_grid(case.mask(name)) for name in (*ORGANS, *TARGETS) if name in case.structures}
    return Placed(case.id, on_grid(case.ct, AIR_HU), scanned, on_grid(case.images["dose"]), masks)


# ---- moving voxels


def identity(shape: Sequence[int]) -> Tensor:
    """(1, 3, k, j, i): every voxel's own place."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))[None]


def warped(images: Tensor, moves: Tensor) -> Tensor:
    """``images`` (1, c, k, j, i) where each voxel takes the value of the place that it is displaced to by ``moves`` (1, 3, k, j, i)."""
    shape = images.shape[-3:]
    at = identity(shape) + moves
    scaled = [2 * at[:, axis] / (shape[axis] - 1) - 1 for axis in (2, 1, 0)]
    return functional.grid_sample(images, torch.stack(scaled, dim=-1), mode="bilinear", padding_mode="border", align_corners=True)


def spread(control: Tensor, shape: Sequence[int]) -> Tensor:
    return functional.interpolate(control, size=tuple(shape), mode="trilinear", align_corners=True)


def coarser(images: Tensor, by: int) -> Tensor:
    return functional.avg_pool3d(images, by) if by > 1 else images


def inverted(moves: Tensor, steps: int = 30) -> Tensor:
    """The displacements that undo ``moves``: v(y) = -u(y + v(y))."""
    back = torch.zeros_like(moves)
    for _ in range(steps):
        back = -warped(moves, back)
    return back


def after(first: Tensor, then: Tensor) -> Tensor:
    """The displacements of going by ``first``, and from there by ``then``."""
    return first + warped(then, first)


# ---- registration


def boxed(images: Tensor) -> Tensor:
    """Means over cubes of BOX voxels."""
    for axis in range(3):
        size = [BOX if a == axis else 1 for a in range(3)]
        images = functional.avg_pool3d(images, size, stride=1, padding=[n // 2 for n in size], count_include_pad=False)
    return images


def bending(control: Tensor) -> Tensor:
    """Mean square of the second differences of the displacements of control points."""
    return torch.stack([control.diff(n=2, dim=axis).square().mean() for axis in (2, 3, 4)]).sum()


class Apart:
    """How badly anything lies on ``fixed``, both as Placed.seen gives them."""

    def __init__(self, fixed: Tensor) -> None:
        self.fixed = fixed
        self.mean, square = boxed(torch.cat([fixed[:, :1], fixed[:, :1] ** 2], dim=1)).unbind(dim=1)
        self.variance = square - self.mean**2

    def __call__(self, moving: Tensor) -> Tensor:
        (a, here), (b, there) = ((images[:, :1], images[:, 2:]) for images in (self.fixed, moving))
        weight = self.fixed[:, 1] * moving[:, 1]
        mean, square, product = boxed(torch.cat([b, b * b, a * b], dim=1)).unbind(dim=1)
        alike = (product - self.mean * mean) ** 2 / (self.variance * (square - mean**2) + 1e-4)
        body = weight * ((self.mean + mean) > 0.02)
        correlation = (alike * body).sum() / body.sum()
        squares = ((a - b)[:, 0] ** 2 * weight).sum() / body.sum()
        overlap = (2 * (here * there).sum(dim=(0, 2, 3, 4)) + 1) / ((here + there).sum(dim=(0, 2, 3, 4)) + 1)
        return SQUARES * squares - CORRELATION * correlation - OVERLAP * overlap.mean()


def registered(fixed: Tensor, moving: Tensor, start: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Displacements (1, 3, k, j, i) in voxels that bring ``moving`` onto ``fixed``, sought from ``start``."""
    shape, moves = fixed.shape[-3:], start
    for stage in stages:
        control = spread(moves, [-(-n // stage.every) + 1 for n in shape]).clone().requires_grad_(True)
        adam = torch.optim.Adam([control], lr=RATE_VOXELS)
        apart, source = Apart(coarser(fixed, stage.coarser)), coarser(moving, stage.coarser)
        for _ in range(stage.steps):
            adam.zero_grad()
            shift = spread(control, source.shape[-3:]) / stage.coarser
            (apart(warped(source, shift)) + stage.bending * bending(control)).backward()
            adam.step()
        moves = spread(control.detach(), shape)
    return moves


# ---- the mean


def median_where(values: Tensor, known: Tensor, fill: float) -> Tensor:
    """The median over patients (first axis) that are known at a voxel; ``fill`` where fewer than MIN_SHARE of them are."""
    stack = torch.where(known > 0.5, values, torch.nan)
    middle = torch.nanmedian(stack, dim=0).values
    return torch.where((known > 0.5).float().mean(dim=0) >= MIN_SHARE, middle, fill)


def mean_of(patients: Sequence[Placed], moves: Sequence[Tensor]) -> Placed:
    """The median CT and dose and the mean masks of patients moved so; a structure that a patient lacks counts for nothing there."""
    moved = [warped(torch.stack([p.ct, p.scanned, p.dose])[None], u)[0] for p, u in zip(patients, moves, strict=True)]
    ct, scanned, dose = (torch.stack([one[n] for one in moved]) for n in range(3))
    masks = {}
    for name in (*ORGANS, *TARGETS):
        have = [(p.masks[name], u) for p, u in zip(patients, moves, strict=True) if name in p.masks]
        masks[name] = sum((warped(mask[None, None], u)[0, 0] for mask, u in have), torch.zeros(SHAPE)) / len(patients)
        if name in ORGANS and len(have) < len(patients):
            raise ValueError(f"{name} is not in every patient")
    share = (scanned > 0.5).float().mean(dim=0)
    return Placed("mean", median_where(ct, scanned, AIR_HU), (share >= MIN_SHARE).float(), median_where(dose, scanned, 0.0), masks)


def grouped(patients: Sequence[Placed]) -> Placed:
    """The mean patient in the mean shape."""
    moves: list[Tensor] = [torch.zeros(1, 3, *SHAPE) for _ in patients]
    mean = mean_of(patients, moves)
    for turn, stages in enumerate(ROUNDS):
        fixed = mean.seen()
        found = []
        for patient, start in zip(patients, moves, strict=True):
            begun = time.monotonic()
            found.append(registered(fixed, patient.seen(), start, stages))
            scores = dsc(fixed[:, 2:], warped(patient.seen(), found[-1])[:, 2:])
            size_mm = float((found[-1][0] * torch.tensor(SPACING_MM)[:, None, None, None]).norm(dim=0).mean())
            say(
                f"round {turn + 1}, {patient.id}: DSC to the mean {scores:.3f}, moved by {size_mm:.1f} mm, {time.monotonic() - begun:.0f} s"
            )
        back = inverted(torch.stack(found).mean(dim=0))
        moves = [after(back, one) for one in found]
        mean = mean_of(patients, moves)
    return mean


def dsc(a: Tensor, b: Tensor) -> float:
    """Mean DSC over channels of two stacks of coverage, cut at one half."""
    one, two = a >= 0.5, b >= 0.5
    return float((2 * (one & two).sum(dim=(0, 2, 3, 4)) / (one.sum(dim=(0, 2, 3, 4)) + two.sum(dim=(0, 2, 3, 4))).clamp(min=1)).mean())


# ---- nobody in particular


@dataclass(frozen=True)
class Distance:
    """How far the mean is from one patient after a rigid alignment: RMS of HU and correlation, in the patient's tissue."""

    id: str
    rms_hu: float
    correlation: float


def turned(angles: Tensor, shift_mm: Tensor, by: int = 1) -> Tensor:
    """Displacements (1, 3, k, j, i) in voxels, of images coarser ``by`` so much, of a turn about the middle (radians) and a shift."""
    a, b, c, none = *angles, torch.zeros(())
    total = torch.linalg.matrix_exp(torch.stack([none, -c, b, c, none, -a, -b, a, none]).reshape(3, 3))
    shape = [n // by for n in SHAPE]
    step_mm = torch.tensor(SPACING_MM)[:, None, None, None] * by
    middle = (torch.tensor(shape, dtype=torch.float32) - 1)[:, None, None, None] / 2
    from_middle = (identity(shape)[0] - middle) * step_mm
    return ((torch.einsum("ab,bkji->akji", total, from_middle) - from_middle + shift_mm[:, None, None, None]) / step_mm)[None]


def deep(patient: Placed) -> Tensor:
    """(1, 1, k, j, i): 1 in published tissue, a voxel away from its edge: what lies outside may be air, or only not published."""
    return -functional.max_pool3d(-(patient.ct > TISSUE_HU).float()[None, None], 3, stride=1, padding=1)


def distance(mean: Placed, patient: Placed) -> Distance:
    """Rigidly aligned by the squared difference of the windowed CT in the patient's tissue, then compared there."""
    here = coarser(torch.stack([windowed(mean.ct), mean.scanned])[None], 2)
    there = coarser(torch.cat([windowed(patient.ct)[None, None], deep(patient)], dim=1), 2)
    pose = torch.zeros(6, requires_grad=True)
    adam = torch.optim.Adam([pose], lr=RATE_RIGID)
    for _ in range(RIGID_STEPS):
        adam.zero_grad()
        moved = warped(there, turned(pose[:3] / 100, pose[3:], 2))
        weight = here[:, 1] * moved[:, 1]
        (((here - moved)[:, 0] ** 2 * weight).sum() / weight.sum()).backward()
        adam.step()
    with torch.no_grad():
        hu, tissue = warped(torch.cat([patient.ct[None, None], deep(patient)], dim=1), turned(pose[:3] / 100, pose[3:]))[0]
    both = (tissue > 0.5) & (mean.scanned > 0.5)
    one, two = (values[both].clamp(-1000, 1000).double() for values in (mean.ct, hu))
    return Distance(patient.id, float(((one - two) ** 2).mean().sqrt()), float(torch.corrcoef(torch.stack([one, two]))[0, 1]))


def distances(mean: Placed, cohort: Cohort, ids: Sequence[str]) -> list[Distance]:
    """Of each patient, placed by the organs that it has; nearest first."""
    middle = (np.asarray(SHAPE) - 1) / 2
    places = {name: (np.argwhere(mean.masks[name].numpy() >= MIN_SHARE).mean(axis=0) - middle) * SPACING_MM for name in ORGANS}
    found = []
    for id in ids:
        case = cohort[id]
        have = [name for name in ORGANS if name in case.structures]
        centre = np.median([centre_mm(case, name) - places[name][::-1] for name in have], axis=0)
        found.append(distance(mean, placed(case, centre)))
        say(f"{id}: RMS {found[-1].rms_hu:.1f} HU, correlation {found[-1].correlation:.4f}")
    return sorted(found, key=lambda one: -one.correlation)


# ---- what is shipped


def cleaned(mean: Placed) -> Placed:
    """The mean with air outside the body, which is one piece, and structures where at least MIN_SHARE of the patients have them."""
    labels, _ = ndimage.label(mean.ct.numpy() > WINDOW_HU[0])
    body = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    body = torch.from_numpy(np.stack([ndimage.binary_fill_holes(part) for part in body]))
    ct = torch.where(body, mean.ct, float(AIR_HU))
    masks = {name: (mask >= MIN_SHARE) & body for name, mask in mean.masks.items()}
    return Placed(mean.id, ct, mean.scanned, torch.where(body, mean.dose, 0.0), {name: mask for name, mask in masks.items() if mask.any()})


def write(mean: Placed, out: Path) -> None:
    """The cropped arrays, as oncontour.phantom.mean reads them."""
    held = np.argwhere(mean.ct.numpy() > AIR_HU)
    part = tuple(slice(max(0, low - 2), high + 3) for low, high in zip(held.min(axis=0), held.max(axis=0), strict=True))
    ct = np.rint((mean.ct.numpy()[part] - AIR_HU) / HU_STEP).astype(np.int16)
    dose = np.rint(mean.dose.numpy()[part] / GY_STEP).astype(np.uint16)
    planes = np.zeros((-(-len(mean.masks) // 8), *ct.shape), np.uint8)
    for n, mask in enumerate(mean.masks.values()):
        planes[n // 8] |= mask.numpy()[part].astype(np.uint8) << n % 8
    origin_mm = (-(np.asarray(ct.shape) - 1) / 2 * np.asarray(SPACING_MM))[::-1]
    names = np.array(list(mean.masks))
    np.savez_compressed(
        out / "mean.npz", ct=ct, dose=dose, planes=planes, names=names, spacing_mm=np.array(SPACING_MM), origin_mm=origin_mm
    )


ORIGIN = """# The mean patient

Not a person. The mean of {patients} public head-and-neck patients: what most of them have at a place, in the mean of their shapes.

- **Made from**: the first {patients} training patients of OpenKBP that have contours of all seven organs ({ids}).
  OpenKBP: Babier A, Zhang B, Mahmood R, Moore KL, Purdie TG, McNiven AL, Chan TCY. OpenKBP: The open-access knowledge-based planning
  grand challenge and dataset. Medical Physics 48, 2021, 5549-5561.
- **Licence**: MIT, Copyright (c) 2021 Aaron Babier; `LICENSE` beside this file.
- **Made by**: `docs/write_mean_patient.py`, which says how. CT and dose are the median of the patients after a group-wise registration,
  voxel by voxel; an organ or a target is where at least half of the patients have it, by their published masks. No model has a part in it.
- **Holds**: CT in steps of {hu} HU, dose in steps of {gy} Gy, {names}. Voxels of {voxel} mm (k, j, i).
- **Learned from**: `hn-organs` learned from all but one of these patients ({organs_held} was held back), and the other models from most of
  them. How well they do here measures nothing.
- **Nobody in particular**: after a rigid alignment the nearest of its patients is {train}; the nearest of the {others}
  validation patients, of whom it holds nothing, is {validation}. What is given is the correlation of HU in the tissue of that
  patient; the median is {train_median} for its patients, {validation_median} for the others. By the root mean square of the difference
  the nearest are {train_rms} and {validation_rms}. In plain words: by correlation none of its patients is nearer than the nearest
  validation patient, and by the root mean square of the difference {rms_verdict}.
  That correlation decides was chosen after both had been seen.
- **Not for**: training, evaluation, dosimetry, or a figure about any patient.
"""


def origin(mean: Placed, ids: Sequence[str], near: Mapping[str, Sequence[Distance]]) -> str:
    """What ORIGIN.md says."""
    said = {name: f"{far[0].id}, at {far[0].correlation:.3f}" for name, far in near.items()}
    said |= {f"{name}_median": f"{np.median([one.correlation for one in far]):.2f}" for name, far in near.items()}
    closest = {name: min(far, key=lambda one: one.rms_hu) for name, far in near.items()}
    said |= {f"{name}_rms": f"{one.id} ({one.rms_hu:.0f} HU)" for name, one in closest.items()}
    (held,) = sorted(set(ids) & set(read_card(find("hn-organs")).made["held_back_patients"]))
    one, other = closest["train"], closest["validation"]
    figures = f"({one.id}, {one.rms_hu:.0f} HU against {other.rms_hu:.0f} HU of {other.id})"
    said |= {"organs_held": held, "rms_verdict": f"{'one is' if one.rms_hu < other.rms_hu else 'none is'} {figures}"}
    facts = {"hu": HU_STEP, "gy": GY_STEP, "names": ", ".join(mean.masks), "voxel": " x ".join(f"{step:g}" for step in SPACING_MM)}
    return ORIGIN.format(patients=len(ids), ids=", ".join(ids), others=len(near["validation"]), **said, **facts)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    named = os.environ.get("ONCONTOUR_DATA", "../shared/data")
    data = Path(arguments[0]) if arguments else Path(named) / "openkbp"
    out = Path(arguments[1]) if len(arguments) > 1 else OUT
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, validation = (Cohort.open(data / part) for part in ("train", "validation"))
    cases = [case for case, _ in zip(complete(train), range(PATIENTS), strict=False)]
    centres = [np.mean([centre_mm(case, name) for name in ORGANS], axis=0) for case in cases]
    offset = np.median([middle_mm(case) - centre for case, centre in zip(cases, centres, strict=True)], axis=0)
    patients = [placed(case, centre + offset) for case, centre in zip(cases, centres, strict=True)]
    mean = cleaned(grouped(patients))
    ids = [case.id for case in cases]
    near = {"train": distances(mean, train, ids), "validation": distances(mean, validation, validation.ids)}
    first = {name: far[0].correlation for name, far in near.items()}
    said = (
        f"correlation with the nearest training patient {first['train']:.3f}, with the nearest validation patient {first['validation']:.3f}"
    )
    if first["train"] > first["validation"]:
        say(f"Nothing written: the mean is nearer to one of its patients than to any other: {said}")
        return 1
    out.mkdir(parents=True, exist_ok=True)
    write(mean, out)
    shutil.copyfile(data / "LICENSE", out / "LICENSE")
    (out / "ORIGIN.md").write_text(origin(mean, ids, near), encoding="utf-8")
    say(f"{out}: {said}; {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
