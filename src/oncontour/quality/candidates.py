"""Masks to learn quality from: what real segmenters drew and what the generator spoiled, each slice labelled by the truth.

A case brings what real segmenters drew as ``candidates``. ``candidate_contours`` makes of them one CandidateContour a source and structure,
packed small enough that a hundred patients with twenty masks a structure stay in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.probabilities import UNLIKELY, ReferenceProbabilities
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.metrics.slices import slice_scores
from oncontour.ops.intensity import AIR_HU
from oncontour.quality.simulated_errors import FAMILIES, SimulatedError, Surroundings, draw, spoil
from oncontour.sides import other_side

Mask = NDArray[np.bool_]
SEGMENTER, TRUTH = "segmenter", "truth"


@dataclass(frozen=True, eq=False)
class Packed:
    """A mask (k, j, i) as the bits of its bounding box: ``bits`` (slices, bytes), ``start`` and ``size`` of the box."""

    start: tuple[int, int, int]
    size: tuple[int, int, int]
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, mask: Mask) -> Packed:
        """Pack a mask; an empty one has an empty box."""
        if not mask.any():
            return cls((0, 0, 0), (0, 0, 0), np.zeros((0, 0), np.uint8))
        spans = []
        for axis in range(3):
            where = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            spans.append((int(where[0]), int(where[-1]) + 1))
        (k, kk), (j, jj), (i, ii) = spans
        piece = np.ascontiguousarray(mask[k:kk, j:jj, i:ii])
        return cls((k, j, i), (kk - k, jj - j, ii - i), np.packbits(piece.reshape(kk - k, -1), axis=1))

    def window(self, slices: Sequence[int], first: tuple[int, int], size: tuple[int, int]) -> Mask:
        """(len(slices), *size) of the mask from row and column ``first``; outside the box there is nothing."""
        out = np.zeros((len(slices), *size), bool)
        for n, k in enumerate(slices):
            at = k - self.start[0]
            if not 0 <= at < self.size[0]:
                continue
            plane = np.unpackbits(self.bits[at], count=self.size[1] * self.size[2]).reshape(self.size[1:]).view(bool)
            put, get = zip(*(_meet(self.start[a + 1], self.size[a + 1], first[a], size[a]) for a in range(2)), strict=True)
            out[(n, *put)] = plane[get]
        return out


@dataclass(frozen=True, eq=False)
class ProbabilityMap:
    """Probabilities times 255 in their bounding box: ``array`` (k, j, i), ``start`` of the box."""

    start: tuple[int, int, int]
    array: NDArray[np.uint8]

    @classmethod
    def of(cls, probabilities: NDArray[np.uint8]) -> ProbabilityMap:
        """Crop probabilities (k, j, i) to what is more than UNLIKELY."""
        box = Packed.of(probabilities > UNLIKELY)
        (k, j, i), (kk, jj, ii) = box.start, box.size
        return cls(box.start, np.ascontiguousarray(probabilities[k : k + kk, j : j + jj, i : i + ii]))

    @classmethod
    def none(cls) -> ProbabilityMap:
        """No probability anywhere."""
        return cls((0, 0, 0), np.zeros((0, 0, 0), np.uint8))

    def window(self, slices: Sequence[int], first: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """(len(slices), *size) of the probabilities from row and column ``first``; outside the box there are none."""
        out = np.zeros((len(slices), *size), np.uint8)
        put, get = zip(*(_meet(self.start[a + 1], self.array.shape[a + 1], first[a], size[a]) for a in range(2)), strict=True)
        for n, k in enumerate(slices):
            if 0 <= k - self.start[0] < len(self.array):
                out[(n, *put)] = self.array[(k - self.start[0], *get)]
        return out


def _meet(start: int, size: int, first: int, length: int) -> tuple[slice, slice]:
    """Where [start, start + size) lies in a window from ``first``, as (slice of the window, slice of the piece)."""
    low, high = max(start, first), max(max(start, first), min(start + size, first + length))
    return slice(low - first, high - first), slice(low - start, high - start)


@dataclass(frozen=True, eq=False)
class Scan:
    """A patient's CT on the working grid, shared by all candidates: HU (k, j, i), voxel size, slices between neighbours."""

    ct: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    step: int

    def window(self, slices: Sequence[int], first: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int16]:
        """(len(slices), *size) of the CT from row and column ``first``; air beyond it."""
        out = np.full((len(slices), *size), AIR_HU, np.int16)
        put, get = zip(*(_meet(0, self.ct.shape[a + 1], first[a], size[a]) for a in range(2)), strict=True)
        for n, k in enumerate(slices):
            if 0 <= k < len(self.ct):
                out[(n, *put)] = self.ct[(k, *get)]
        return out


@dataclass(frozen=True, eq=False)
class Rows:
    """The slices of one mask that are scored, as arrays of equal length.

    ``k`` slice; ``contoured`` whether the mask has a voxel there (the others are gaps within it, or slices just beyond its ends);
    ``centre`` (n, 2) row and column that a window is centred on; ``below_mm``, ``above_mm`` to its first and last slice.
    """

    k: NDArray[np.int32]
    contoured: Mask
    centre: NDArray[np.float32]
    below_mm: NDArray[np.float32]
    above_mm: NDArray[np.float32]

    def facts(self, n: int) -> tuple[float, float]:
        """What the net is told of row ``n`` beside the pictures."""
        return float(self.below_mm[n]) / 100, float(self.above_mm[n]) / 100


def rows_of(mask: Mask, slice_mm: float, beyond: int) -> Rows:
    """The rows of a mask (k, j, i): its slices, the gaps between them, and ``beyond`` slices past both ends. Empty: no rows."""
    has = np.asarray(mask.any(axis=(1, 2)))
    where = np.flatnonzero(has)
    if not len(where):
        none = np.zeros(0, np.float32)
        return Rows(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros((0, 2), np.float32), none, none)
    first, last = int(where[0]), int(where[-1])
    k = np.arange(max(0, first - beyond), min(len(mask), last + 1 + beyond), dtype=np.int32)
    middle = np.zeros((len(mask), 2), np.float32)
    for n in where:
        rows, columns = np.flatnonzero(mask[n].any(axis=1)), np.flatnonzero(mask[n].any(axis=0))
        middle[n] = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    nearest = where[np.abs(k[:, None] - where[None]).argmin(axis=1)]
    return Rows(k, has[k], middle[nearest], ((k - first) * slice_mm).astype(np.float32), ((last - k) * slice_mm).astype(np.float32))


@dataclass(frozen=True, eq=False)
class CandidateContour:
    """One mask under question in one patient, with the truth beside it and the label of every row.

    ``dsc`` NaN where neither mask has a voxel (left out), 0 where one has; ``outline_mm`` NaN where either has none; ``present``: the truth
    has one; ``reference``: the reference model's probability map, where there is one; ``own``: that of the model that drew this mask.
    """

    case_id: str
    scan: Scan
    structure: int
    source: str
    family: str
    truth: Packed
    contour: Packed
    rows: Rows
    dsc: NDArray[np.float32]
    outline_mm: NDArray[np.float32]
    present: Mask
    reference: ProbabilityMap | None = None
    own: ProbabilityMap | None = None


def candidate_contours(
    case: Case,
    grid: Geometry,
    structures: Sequence[str],
    *,
    step: int,
    beyond: int,
    variants: int,
    families: Sequence[str],
    seed: int,
    reference: ReferenceProbabilities | None = None,
) -> list[CandidateContour]:
    """Every candidate contour of every one of ``structures`` that the case knows the truth of; the same arguments give the same candidates.

    Real segmenters' masks, the truth itself, and ``variants`` spoiled copies of it that go through ``families`` in turn.
    """
    known = [name for name in structures if name in case.structures]
    truths = {name: case.mask(name, grid).array for name in known}
    truths = {name: mask for name, mask in truths.items() if mask.any()}
    if not truths:
        return []
    ct = np.clip(case.ct.to(grid, fill=AIR_HU).array, -32768, 32767).astype(np.int16)
    scan = Scan(ct, grid.spacing_mm, step)
    body = ct > -500
    out = []
    for name, truth in truths.items():
        number = list(structures).index(name)
        packed, asked = Packed.of(truth), reference_map(reference, name, grid)
        thought = {source: one.probabilities[name] for source, one in case.candidates.items() if name in one.probabilities}
        for source, family, mask in _masks(case, grid, name, truths, body, variants, families, seed):
            made = _candidate(case.id, scan, number, source, family, truth, packed, mask, beyond)
            if len(made.rows.k):
                out.append(replace(made, reference=asked, own=map_on(thought.get(source) if family == SEGMENTER else None, grid)))
    return out


def reference_map(reference: ReferenceProbabilities | None, name: str, grid: Geometry) -> ProbabilityMap | None:
    """The reference model's map of a structure on ``grid``; None where there is none, or none about this structure."""
    return None if reference is None else map_on(reference.of(name), grid)


def map_on(probabilities: Volume | None, grid: Geometry) -> ProbabilityMap | None:
    """Probabilities times 255 (uint8), interpolated on ``grid``; None where there are none."""
    return None if probabilities is None else ProbabilityMap.of(probabilities.to(grid).array)


def _masks(
    case: Case,
    grid: Geometry,
    name: str,
    truths: Mapping[str, Mask],
    body: Mask,
    variants: int,
    families: Sequence[str],
    seed: int,
) -> Iterator[tuple[str, str, Mask]]:
    """(source, family, mask) of everything that is contoured as structure ``name``."""
    for source, one in case.candidates.items():
        if name in one.masks:
            yield source, SEGMENTER, one.masks[name].binary().to(grid).array
    truth = truths[name]
    if not variants:
        return
    yield TRUTH, "none", truth
    others = np.zeros(truth.shape, bool)
    for other, mask in truths.items():
        if other != name:
            others |= mask
    surroundings = Surroundings(grid.spacing_mm, others, truths.get(other_side(name)), body)
    for error in errors_of(case.id, name, variants, families, seed):
        yield "generator", error.family, spoil(truth, surroundings, error)


def errors_of(case_id: str, name: str, variants: int, families: Sequence[str], seed: int) -> list[SimulatedError]:
    """``variants`` simulated errors for one structure of one patient, the families in turn."""
    rng = np.random.default_rng([seed, zlib.crc32(case_id.encode()), zlib.crc32(name.encode())])
    begin = int(rng.integers(len(families))) if families else 0
    return [draw(rng, [families[(begin + n) % len(families)]]) for n in range(variants if families else 0)]


def allowed(held_out: Sequence[str]) -> list[str]:
    """All families of errors but those held out."""
    return [family for family in FAMILIES if family not in held_out]


def _candidate(
    case_id: str, scan: Scan, structure: int, source: str, family: str, truth: Mask, packed: Packed, mask: Mask, beyond: int
) -> CandidateContour:
    rows = rows_of(mask, scan.spacing_mm[0], beyond)
    dsc, outline = slice_scores(truth, mask, scan.spacing_mm[1:])
    present = np.asarray(truth.any(axis=(1, 2)))[rows.k]
    labels = dsc[rows.k].astype(np.float32), outline[rows.k].astype(np.float32)
    return CandidateContour(case_id, scan, structure, source, family, packed, Packed.of(mask), rows, *labels, present)
