"""Where the patient is in a CT, and which part of the body it shows.

Both work on a coarse copy (about 4 mm): the outline needs no more to be found, and is then drawn at full resolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.ops.tidy_steps import IN_SLICE, filled_slices

Mask = NDArray[np.bool_]
Grey = NDArray[np.float32]
COARSE_MM = 4.0
TISSUE_HU = -300.0
"""Above: fat, muscle, bone. Below: lung, airways, mattress, air."""
OUTSIDE_HU = -930.0
"""Below: air around the patient. Lung lies above."""
BONE_HU = 200.0
PLATE_MM = 8.0
"""Half the thickness up to which something beside the patient is taken off: couch tops, masks, tubes."""
MASKED = 0.7
"""Part of all air from which one single grey value in it means that somebody masked the image; scanners' air is noisy (at most 0.3)."""
GAP_MM = 30.0
"""Air on the image's border up to this long between tissue is an airway that the field of view cuts."""
_SQUARE = np.ones((1, 3, 3), bool)


def body_mask(ct: Volume) -> Volume:
    """The patient's outline filled (bool, on the CT's grid): skin and all within, lungs and airways too, without couch and clothing.

    Several pieces (two legs, an arm) count when the smaller is at least a tenth of the largest. Works in any position of the patient, with
    any value for the air outside (-1000, -1024, -3024, masked), and where the field of view cuts the patient. A CT without tissue gives
    an empty mask. The outline follows TISSUE_HU at the CT's own resolution.
    """
    upright = ct.geometry.reorient()
    if not _k_runs_along_z(ct.geometry) and not ct.geometry.same_grid(upright):  # of one voxel or one row nothing says which axis is k
        return body_mask(ct.to(upright)).to(ct.geometry)
    coarse = _Coarse.of(ct)
    body = _find(coarse.hu, coarse.spacing_mm)
    if not body.any():
        return Volume(np.zeros(ct.geometry.shape, bool), ct.geometry)
    ring = ndimage.generate_binary_structure(3, 1)
    sure = coarse.fine(ndimage.binary_erosion(body, ring, border_value=1))
    near = coarse.fine(ndimage.binary_dilation(body, ring))
    near &= ct.array > TISSUE_HU
    near |= sure
    return Volume(near, ct.geometry)


def is_masked(ct: Volume) -> bool:
    """Whether all but some region of the CT was set to one value before we got it: most voxels below -500 HU are equal.

    What such a CT still shows may be islands (a spinal cord in a column of its own, as in OpenKBP): an outline of the patient would
    cut them off. Without any air the answer is no.
    """
    n = 1 + ct.array.size // 8_000_000  # of a large CT some rows tell as much as all
    some = ct.array[:, ::n]
    air = some[some < -500]
    if not air.size:
        return False
    whole = np.round(air).astype(np.int32)
    return bool(np.bincount(whole - whole.min()).max() > MASKED * air.size)


def _k_runs_along_z(geometry: Geometry) -> bool:
    return bool(np.abs(geometry.axes[0]).argmax() == 2)


@dataclass(frozen=True)
class _Coarse:
    """A CT in voxels of about COARSE_MM, each the mean of a block of whole voxels."""

    hu: Grey
    block: tuple[int, ...]
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(cls, ct: Volume) -> _Coarse:
        spacing = ct.geometry.spacing_mm
        block = tuple(max(1, round(COARSE_MM / s)) for s in spacing)
        hu = _block_means(ct.array, block)
        return cls(np.clip(hu, -1024, 3000), block, ct.array.shape, tuple(s * n for s, n in zip(spacing, block, strict=True)))

    def fine(self, mask: Mask) -> Mask:
        """A coarse mask on the CT's voxels."""
        for axis, n in enumerate(self.block):
            if n > 1:
                mask = np.repeat(mask, n, axis=axis)
        return np.ascontiguousarray(mask[: self.shape[0], : self.shape[1], : self.shape[2]])


def _block_means(array: Array, block: tuple[int, ...]) -> Grey:
    """Means over blocks of voxels; blocks at the far ends may be smaller."""
    out = array
    for axis in (2, 1, 0):
        n, size = block[axis], array.shape[axis]
        if n == 1:
            continue
        edges = np.arange(0, size, n)
        kind = np.float32 if out.dtype != np.int16 or axis < 2 else np.int32
        sums = np.add.reduceat(out, edges, axis=axis, dtype=kind)
        count = np.minimum(edges + n, size) - edges
        out = (sums / count.reshape([-1 if a == axis else 1 for a in range(3)])).astype(np.float32)
    return np.asarray(out, np.float32)


def _find(hu: Grey, spacing_mm: tuple[float, ...]) -> Mask:
    """The patient in a coarse CT."""
    tissue = hu > TISSUE_HU
    filled = filled_slices(tissue | _closed_rim(hu, spacing_mm))
    core = _opened(filled, spacing_mm)
    core = _main_pieces(core if core.any() else filled)
    # What the opening rounded off comes back where it belongs to the patient: one voxel at most, so that a couch does not.
    body = core | (ndimage.binary_dilation(core, ndimage.generate_binary_structure(3, 2)) & filled)
    return filled_slices(body)


def _closed_rim(hu: Grey, spacing_mm: tuple[float, ...]) -> Mask:
    """Voxels on the images' borders that are inside a patient whom the field of view cuts: lung, and airways between tissue."""
    inside = hu > OUTSIDE_HU
    closed = np.zeros(hu.shape, bool)
    for axis in (1, 2):
        reach = round(GAP_MM / spacing_mm[3 - axis])
        for end in (0, -1):
            edge = np.take(inside, end, axis=axis)
            bridged = (
                ndimage.binary_closing(np.pad(edge, ((0, 0), (reach, reach))), np.ones((1, reach)))[:, reach:-reach] if reach > 1 else edge
            )
            closed[(slice(None), end) if axis == 1 else (slice(None), slice(None), end)] |= bridged | edge
    return closed


def _opened(mask: Mask, spacing_mm: tuple[float, ...]) -> Mask:
    """``mask`` without what is thinner than twice PLATE_MM in its slices; the image's border does not thin it."""
    steps = [_SQUARE if n % 2 else IN_SLICE for n in range(max(1, round(PLATE_MM / spacing_mm[1])))]
    out = mask
    for step in steps:
        out = ndimage.binary_erosion(out, step, border_value=1)
    for step in steps:
        out = ndimage.binary_dilation(out, step)
    return np.asarray(out & mask)


def _main_pieces(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    size = np.bincount(labels.ravel())
    size[0] = 0
    return np.asarray((size >= 0.1 * size.max())[labels] & (labels > 0))


# ---- which part of the body


REGIONS = ("head_neck", "thorax", "abdomen_pelvis", "limb")
"""What a CT can be told to show."""


_WORDS = {
    "head_neck": "head heads neck necks hn hns hnc headneck headandneck brain skull face",
    "thorax": "thorax thoracic chest lung lungs breast breasts mediastinum",
    "abdomen_pelvis": "abdomen abdominal pelvis pelvic abdominopelvic prostate liver bladder rectum",
    "limb": "limb limbs extremity extremities arm arms leg legs knee thigh foot hand",
}
"""Words of which each means a region."""
_TURNS = frozenset(["not", "no", "non", "except", "without", "other", "any", "body"])
"""Words beside which the others may mean anything: "all except the head", "the body from head to hip"."""


def region_of(words: str) -> str:
    """The region that ``words`` name, as a model's card does ("head and neck", "H&N", "Chest (adult)"); "" where they name none of REGIONS,
    or several."""
    text = re.sub(r"\bh\s*(?:&|\+|/|and)\s*n\b", "hn", words.lower())
    said = set(re.findall(r"[^\W\d_]+", text))
    named = [region for region, known in _WORDS.items() if said & set(known.split())]
    return named[0] if len(named) == 1 and not said & _TURNS else ""


def unknown_region(words: str) -> str:
    """A sentence where ``words`` are there, and name no region that ``region`` could tell: nothing then checks what a CT shows; else ""."""
    if not words.strip() or region_of(words):
        return ""
    known = ", ".join(map(in_words, REGIONS))
    shown = words if len(words) <= 80 else words[:80] + "..."
    return f"Made for {shown!r}, which is none of the regions that are known ({known}): it is not checked whether a CT shows it."


def check_shown(ct: Volume, made_for: str, who: str) -> None:
    """Raise InputError where ``ct`` plainly shows another part of the body than ``who`` was ``made_for`` (a card's words)."""
    seen = region(ct)
    if seen.excludes(region_of(made_for)):
        raise InputError(
            f"this CT shows {in_words(seen.name)} ({'; '.join(seen.reasons)}), and {who} was made for {made_for}",
            hint="choose a model that was made for it; run, predict and evaluate draw all the same with --any_region",
        )


def elsewhere(ct: Volume, made_for: str) -> str:
    """The part of the body that ``ct`` plainly shows, in words, where it is another than ``made_for`` (a card's words); else ""."""
    seen = region(ct)
    return in_words(seen.name) if seen.excludes(region_of(made_for)) else ""


def drawn_elsewhere(who: str, shown: Mapping[str, str]) -> list[str]:
    """A line that names the patients (id -> what their CT shows) on whom ``who`` drew and was made for another part of the body; none
    where there are none."""
    told = ", ".join(f"{id} ({what})" for id, what in shown.items())
    return [f"{who} drew on CTs of another part of the body than it was made for: {told}"] if told else []


def in_words(name: str) -> str:
    """A region as people call it: "head and neck"."""
    return name.replace("_", " and ")


@dataclass(frozen=True)
class Region:
    """Which part of the body a CT shows, and why one may think so.

    ``name``: "head_neck", "thorax", "abdomen_pelvis", "limb" or "unknown"; a CT of several is named by the first of these that it
    shows. ``reasons``: sentences for the report; ``evidence``: the numbers behind them.
    """

    name: str
    reasons: tuple[str, ...]
    evidence: Mapping[str, float]

    def excludes(self, name: str) -> bool:
        """Whether the CT plainly does not show the region ``name``. Of a CT that shows lungs the abdomen may be in view as well, and hips
        may belong to a limb: these are not excluded, and nothing is where the region is unknown or ``name`` is none of REGIONS."""
        if self.name == "unknown" or name not in REGIONS:
            return False
        lungs = self.evidence["lung_mm"] >= LUNG_MM
        return {
            "head_neck": self.name != "head_neck",
            "thorax": not lungs,
            "abdomen_pelvis": self.name in ("head_neck", "limb") and not lungs,
            "limb": self.name in ("head_neck", "thorax"),
        }[name]


NARROW_MM = 260.0
"""A head or a neck is narrower than this, shoulders, chest and pelvis are wider."""
AIRWAY_MM, SKULL_MM, NECK_MM, LUNG_MM = 25.0, 30.0, 60.0, 40.0
"""Lengths along the body over which each sign must be seen."""


_SEEN: WeakKeyDictionary[Volume, Region] = WeakKeyDictionary()
"""What was found of volumes that are still there: model, rules and ranges all ask."""


def region(ct: Volume) -> Region:
    """What part of the body ``ct`` shows, from signs that need no model.

    Head and neck is any of: an airway in front of a spine, in a body narrower than NARROW_MM that the field of view does not cut; a skull
    around brain; a narrow part above lungs. Else lungs make a thorax; else a wide body with bone is abdomen or pelvis, a narrow one a limb.
    """
    if ct not in _SEEN:
        _SEEN[ct] = _region(_signs(ct))
    return _SEEN[ct]


def _region(signs: Mapping[str, float]) -> Region:
    airway, skull, neck = signs["airway_mm"], signs["skull_mm"], signs["neck_above_lungs_mm"]
    found = [
        (airway >= AIRWAY_MM, f"an airway in front of a spine over {airway:.0f} mm of a narrow body"),
        (skull >= SKULL_MM, f"a skull around brain over {skull:.0f} mm"),
        (neck >= NECK_MM, f"{neck:.0f} mm of narrow body above lungs"),
    ]
    reasons = tuple(words for seen, words in found if seen)
    if reasons:
        return Region("head_neck", reasons, signs)
    none = f"no neck: airway {airway:.0f} mm (from {AIRWAY_MM:.0f}), skull {skull:.0f} mm (from {SKULL_MM:.0f})"
    if signs["lung_mm"] >= LUNG_MM:
        return Region("thorax", (f"lungs over {signs['lung_mm']:.0f} mm", none), signs)
    if signs["bone_cm2"] < 1:
        return Region("unknown", ("hardly any bone", none), signs)
    if signs["width_mm"] > NARROW_MM:
        return Region("abdomen_pelvis", (f"{signs['width_mm']:.0f} mm wide, bone, no lungs", none), signs)
    return Region("limb", (f"{signs['width_mm']:.0f} mm wide, bone, no lungs", none), signs)


def _signs(ct: Volume) -> dict[str, float]:
    coarse = _Coarse.of(ct.to(ct.geometry.reorient()))
    body, step = _find(coarse.hu, coarse.spacing_mm), coarse.spacing_mm[0]
    slices = [_Slice.of(hu, inside, coarse.spacing_mm) for hu, inside in zip(coarse.hu, body, strict=True)]
    airway = np.stack([s.airway for s in slices])
    lungs = np.array([s.lung_cm2 >= 30 for s in slices])
    narrow = np.array([s.narrow and s.bone_cm2 >= 3 for s in slices])
    above = np.arange(len(slices)) > (np.flatnonzero(lungs)[-1] if lungs.any() else len(slices))
    shown = [s for s in slices if s.width_mm]
    return {
        "airway_mm": _longest(airway) * step,
        "skull_mm": sum(s.brain_cm2 >= 40 for s in slices) * step,
        "neck_above_lungs_mm": float((narrow & above).sum() * step) if lungs.sum() * step >= 15 else 0.0,
        "lung_mm": float(lungs.sum() * step),
        "width_mm": float(np.median([s.width_mm for s in shown])) if shown else 0.0,
        "bone_cm2": float(np.median([s.bone_cm2 for s in shown])) if shown else 0.0,
        "length_mm": len(slices) * step,
    }


def _longest(mask: Mask) -> int:
    """Slices that the longest connected piece of ``mask`` spans."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return max((box[0].stop - box[0].start for box in ndimage.find_objects(labels)), default=0)


@dataclass(frozen=True)
class _Slice:
    """What one coarse axial slice (rows to posterior, columns to left) shows."""

    width_mm: float
    narrow: bool
    airway: Mask
    lung_cm2: float
    bone_cm2: float
    brain_cm2: float

    @classmethod
    def of(cls, hu: Grey, body: Mask, spacing_mm: tuple[float, ...]) -> _Slice:
        dj, di = spacing_mm[1:]
        cm2 = dj * di / 100
        if not body.any():
            return cls(0, False, np.zeros_like(body), 0, 0, 0)
        columns = np.flatnonzero(body.any(axis=0))
        width = float((columns[-1] - columns[0] + 1) * di)
        cut_mm = float((body[:, 0].sum() + body[:, -1].sum()) * dj)
        narrow = width <= NARROW_MM and cut_mm <= 60 and body.sum() * cm2 >= 40
        deep = ndimage.binary_erosion(body, iterations=max(1, round(8 / di)))
        bone, air = (hu > BONE_HU) & body, (hu < -400) & deep
        middle = (columns[0] + columns[-1]) / 2 * di
        airway = _airway(air, bone, middle, (dj, di)) if narrow else np.zeros_like(body)
        lung = float((air & (hu > OUTSIDE_HU) & (hu < -500)).sum() * cm2)
        brain = float((_enclosed(bone) & (hu > 0) & (hu < 90)).sum() * cm2) if narrow else 0.0
        return cls(width, bool(narrow), airway, lung, float(bone.sum() * cm2), brain)


def _airway(air: Mask, bone: Mask, middle_mm: float, spacing_mm: tuple[float, float]) -> Mask:
    """Pieces of air near the middle, at most 40 cm2 (a pharynx, a larynx, a masked strip), with bone behind them (a vertebra)."""
    dj, di = spacing_mm
    labels, count = ndimage.label(air)
    found = np.zeros_like(air)
    rows, columns = np.arange(air.shape[0]) * dj, np.arange(air.shape[1]) * di
    for n in range(1, count + 1):
        piece = labels == n
        j, i = (float(c) for c in ndimage.center_of_mass(piece))
        behind = (rows > j * dj + 8) & (rows < j * dj + 70)
        beside = np.abs(columns - i * di) < 25
        vertebra = bone[np.ix_(behind, beside)].sum() * dj * di >= 150
        if 25 < piece.sum() * dj * di < 4000 and vertebra and abs(i * di - middle_mm) < 40:
            found |= piece
    return found


def _enclosed(bone: Mask) -> Mask:
    """What a ring of bone encloses in a slice, gaps of two voxels closed."""
    ring = ndimage.binary_closing(np.pad(bone, 3), iterations=2)[3:-3, 3:-3]
    return np.asarray(ndimage.binary_fill_holes(ring) & ~ring)
