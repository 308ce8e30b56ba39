"""What a risk model is given of a case: windows of dose, CT and structure round one organ, dosiomics and DVH figures, facts, outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import CHOOSE_DOSE, NoteCode, because
from oncontour.core.resample import Array
from oncontour.core.structure_kinds import is_target
from oncontour.core.volume import Volume
from oncontour.dose.cells import check
from oncontour.dose.dvh import DVH, dvh
from oncontour.errors import DoseError, InputError
from oncontour.ops.intensity import window as grey
from oncontour.radiomics.extract import Settings, extract
from oncontour.radiomics.region import MARGIN_MM, Processing
from oncontour.risk.virtual_patients import DVH_FIGURES

Region = Literal["structure", "isodose", "ring"]
MOST_GY = 300.0
"""A dose with more than this anywhere is not in Gy."""
LEAST_GY = 5.0
"""A dose with no more than this anywhere is doubted aloud: a single fraction, or divided by 100."""
FULL_GY = 80.0
"""What the net sees as 1."""
RING_MM = 10.0
FAMILIES = ("loc", "stat", "ih", "ivh", "cm", "rlm", "szm", "dzm", "ngt", "ngl")
"""Dosiomics without shape: shape says who the patient is, not what the dose is."""
DOSIOMICS = Settings(Processing((3.0, 3.0, 3.0), keep=(0.0, None)), bin_width=1.0, ivh_width=0.1, families=FAMILIES)


@dataclass(frozen=True)
class View:
    """Which windows are cut: ``structure`` in the middle, ``size`` (k, j, i) voxels of ``spacing_mm``, ``margin`` voxels more on each side
    (so that training can shift), with CT where ``ct``; ``region`` what the decoder is to find.
    """

    structure: str
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    margin: int = 0
    ct: bool = False
    region: Region = "structure"
    isodose_gy: float = 40.0

    def grid(self, centre_mm: ArrayLike, margin: int | None = None) -> Geometry:
        """Upright, round ``centre_mm`` (x, y, z)."""
        more = 2 * (self.margin if margin is None else margin)
        shape = (self.size[0] + more, self.size[1] + more, self.size[2] + more)
        at = Geometry.regular(shape, self.spacing_mm)
        return Geometry.regular(shape, self.spacing_mm, (np.asarray(centre_mm) - at.centre_mm).tolist())


@dataclass(frozen=True, eq=False)
class Patient:
    """``image`` (channels, k, j, i): dose / 80 Gy, the structure's coverage, and CT where asked; ``region`` (k, j, i) coverage, None where
    the region is not known (organ not contoured, no target); ``features`` by name, none where the organ is not contoured; ``outcomes``
    hold what is known. ``notes``: what puts this patient's dose or contours in doubt; ``remarks``: what was remarked in reading the files.
    """

    id: str
    original: str
    image: NDArray[np.float16]
    region: NDArray[np.float16] | None
    features: Mapping[str, float]
    facts: Mapping[str, float]
    outcomes: Mapping[str, bool]
    grid: Geometry
    simulated: bool = False
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def patient_of(case: Case, view: View, *, features: bool = True, strict: bool = False) -> Patient:
    """What the net is given of ``case``; with ``strict`` the organ must be contoured.

    Raises DoseError where there is no dose, it cannot be used (NaN, negative, centigray, 0 throughout), or the organ lies outside it;
    InputError where ``strict`` and the organ is not contoured.
    """
    dose = usable_dose(case)
    mask = _organ(case, view.structure, strict)
    centre = _hottest_mm(dose) if mask is None else mask.geometry.points(np.argwhere(mask.array).mean(axis=0))
    one = None if mask is None else organ_dvh(case, dose, mask, view.structure)
    grid = view.grid(centre)
    channels: list[Array] = [np.clip(dose.to(grid).array / FULL_GY, 0, 1.5)]
    inside = np.zeros(grid.shape) if mask is None else _coverage(mask, grid)
    channels.append(inside)
    if view.ct:
        channels.append(grey(case.ct.to(grid, fill=-1024).array.astype(np.float32), -200, 300))
    known = dict(case.facts)
    return Patient(
        case.id,
        str(known.get("original") or case.id),
        np.stack(channels).astype(np.float16),
        _region(case, view, dose, grid, None if mask is None else inside),
        features_of(dose, mask, one) if features and mask is not None and one is not None else {},
        {name: float(value) for name, value in known.items() if isinstance(value, int | float) and np.isfinite(value)},
        dict(known.get("outcomes", {})),
        grid,
        bool(known.get("simulated", False)),
        tuple(_notes(view, dose, one)),
        tuple(known.get("notes", ())),
    )


def _notes(view: View, dose: Volume, one: DVH | None) -> Iterator[str]:
    if one is None:
        yield f"{view.structure} is not contoured"
    elif one.note:
        yield one.note
    highest = float(dose.array.max())
    if highest < LEAST_GY:
        yield f"The dose reaches {highest:.3g} Gy only: is this the whole treatment's dose, in Gy?"


def around(case: Case, view: View) -> Case:
    """``case`` cut to the organ and what any window round it can show, set-up included; as it is where the organ is not contoured."""
    if view.structure not in case.structures:
        return case
    mask = case.mask(view.structure)
    held = np.argwhere(mask.array)
    if not len(held):
        return case
    reach = 30.0 + max(n * s for n, s in zip(view.size, view.spacing_mm, strict=True)) / 2
    ends = mask.geometry.points([held.min(axis=0), held.max(axis=0)])
    low, high = ends.min(axis=0) - reach, ends.max(axis=0) + reach
    box = [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]

    images = {name: image.to(image.geometry.around(box)) for name, image in case.images.items()}
    grid = case.geometry.around(box)
    masks = {name: case.mask(name, grid) for name in dict.fromkeys((view.structure, *_targets(case)))}
    return Case(case.id, images, masks, {}, case.facts)


def usable_dose(case: Case) -> Volume:
    """images["dose"]. Raises DoseError where there is none (saying why, where the reader knows), or it is NaN, negative, 0 throughout or
    in centigray.
    """
    if "dose" not in case.images:
        why = because(case.facts.get("notes", ()), NoteCode.DOSE_LEFT_OUT)
        raise DoseError(
            f"no dose to use{why}",
            where=f"case {case.id}",
            hint=f"add the RTDOSE calculated on these images, in their frame of reference, or {CHOOSE_DOSE}",
        )
    dose = case.images["dose"]
    check(dose.array, f"case {case.id}")
    if not dose.array.any():
        raise DoseError("the dose is 0 everywhere", where=f"case {case.id}", hint="export the dose again")
    highest = float(dose.array.max())
    if highest > MOST_GY:
        what = f"the dose reaches {highest:.0f} Gy, more than the {MOST_GY:.0f} Gy of any plan: the numbers look like centigray"
        raise DoseError(what, where=f"case {case.id}", hint="store it in Gy")
    return dose


def organ_dvh(case: Case, dose: Volume, mask: Volume, name: str) -> DVH:
    """The organ's DVH. Raises DoseError where more than half of the organ lies outside the dose."""
    one = dvh(dose, mask, name=name, cells_wanted=2**14)
    if one.missing_cc > 0.5 * one.volume_cc:
        raise DoseError(
            one.note or f"{name} has no dose",
            where=f"case {case.id}",
            hint="make sure that dose and structures are of one patient and one frame of reference",
        )
    return one


def features_of(dose: Volume, mask: Volume, one: DVH) -> dict[str, float]:
    """DVH figures and dosiomics of the organ by name; what is not defined is NaN.

    *Differs* from ``oncontour features``: the voxels that dosiomics is counted in are centred on the organ, not on the image, so that how
    much of the patient was scanned changes nothing.
    """
    held = np.argwhere(mask.array)
    room = np.ceil(MARGIN_MM / np.asarray(mask.geometry.spacing_mm)).astype(int)
    box = mask.geometry.crop((held.min(axis=0) - room).tolist(), (held.max(axis=0) + 1 + room).tolist())
    grid = box.resample(DOSIOMICS.processing.spacing_mm or box.spacing_mm)
    return {**{name: one.figure(name) for name in DVH_FIGURES}, **extract(dose, mask, DOSIOMICS, grid)}


def _organ(case: Case, name: str, strict: bool) -> Volume | None:
    if name in case.structures:
        mask = case.mask(name)
        if mask.array.any():
            return mask
    if strict:
        told = ", ".join(case.structures) or "none"
        why = because(case.facts.get("notes", ()), NoteCode.STRUCTURES_LEFT_OUT)
        raise InputError(
            f"the model looks at {name}, which is not contoured (there are: {told}){why}",
            where=f"case {case.id}",
            hint="contour it, or let oncontour run do it",
        )
    return None


def _region(case: Case, view: View, dose: Volume, grid: Geometry, organ: Array | None) -> NDArray[np.float16] | None:
    """What the decoder is to find; None where it is not known."""
    if view.region == "structure":
        return None if organ is None else organ.astype(np.float16)
    if view.region == "isodose":
        return (dose.to(grid).array >= view.isodose_gy).astype(np.float16)
    targets = _targets(case)
    if not targets:
        return None
    inside = np.zeros(grid.shape, bool)
    for name in targets:
        inside |= case.mask(name, grid).array
    if not inside.any():
        return np.zeros(grid.shape, np.float16)
    away = ndimage.distance_transform_edt(~inside, grid.spacing_mm)
    return np.asarray((away > 0) & (away <= RING_MM), np.float16)


def _targets(case: Case) -> list[str]:
    return [name for name in case.structures if is_target(name)]


def _coverage(mask: Volume, grid: Geometry) -> Array:
    """How much of each voxel of ``grid`` the organ covers."""
    return np.asarray(Volume(mask.array.astype(np.float32), mask.geometry).to(grid).array)


def _hottest_mm(dose: Volume) -> Array:
    """Where the window goes when the organ is not contoured: the middle of what receives half of the largest dose."""
    hot = dose.array >= 0.5 * dose.array.max()
    return dose.geometry.points(np.argwhere(hot).mean(axis=0))
