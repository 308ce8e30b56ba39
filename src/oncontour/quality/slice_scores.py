"""What the net measured of one structure, as the slices and findings of a ``StructureScore``.

A slice past a structure's ends is not scored but looked at: where the net sees the structure go on, the slice is listed as missed, with DSC
0, which it would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.core.assessment import Finding, SliceScore, StructureScore
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.quality.inputs import CUTS

if TYPE_CHECKING:
    from oncontour.quality.candidates import Rows

Floats = NDArray[np.float32]
CLASSES = ("bad", "medium", "good")
MISSED_FROM = 0.6
"""Probability of being there from which a slice without contour counts as missed."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One structure's slices as the net sees them, arrays of equal length, one row a slice of ``rows``.

    ``dsc``, ``low`` (the quantile below it, not yet the bound), ``reached`` (n, 2) probability of at least medium and good, ``outline_mm``,
    ``present``: NaN without the head. ``wrong``: (n, rows, columns) probability that a pixel is wrongly in or out, from pixel ``first``.
    ``area_cm2`` wrongly in or out; ``area_high`` and ``outline_high``: the quantiles above area and outline error, on their log scales, not
    yet bounds; ``inputs``: a key of GIVEN, "" where no map is optional. ``whole``: the contour lies in the window. ``far``: the
    out-of-distribution detector's distance of the median slice; ``limit``: what it may be.
    """

    rows: Rows
    dsc: Floats
    low: Floats
    reached: Floats
    outline_mm: Floats
    present: Floats
    wrong: Floats
    first: NDArray[np.int32]
    whole: NDArray[np.bool_]
    features: Floats
    far: float
    limit: float
    area_cm2: Floats
    area_high: Floats
    outline_high: Floats
    inputs: str = ""

    @property
    def known(self) -> bool:
        """Whether the detector lets it pass."""
        return not self.limit or self.far <= self.limit


@dataclass(frozen=True, eq=False)
class Bounds:
    """What holds for the calibrated part of slices, one row a slice, NaN where there is no bound: the DSC is at least ``lower``, the wrong
    area at most ``area_cm2``, the outline error at most ``outline_mm``."""

    lower: Floats
    area_cm2: Floats
    outline_mm: Floats


def scored(case: Case, name: str, measured: Measured, bounds: Bounds, found: Sequence[Finding]) -> StructureScore:
    """Structure ``name`` of ``case`` with a score for every slice that has a contour, every gap, and every slice past the ends where the
    structure seems to go on; ``found``: what the rules found. A contour so small that the net's pixels do not hold it, or too far out to
    be seen, is not scored there, and a finding says so."""
    rows, grid, drawn = measured.rows, case.geometry, _contoured(case, name)
    missed = past_the_ends(measured)
    inside = (rows.below_mm >= 0) & (rows.above_mm >= 0)
    upwards = float(grid.reorient().axes[0] @ grid.axes[0]) > 0
    at = (rows.k if upwards else grid.shape[0] - 1 - rows.k).tolist()
    slices, wide = dict[int, SliceScore](), list[int]()
    for n, k in enumerate(at):
        if rows.contoured[n] and measured.whole[n]:
            slices[k] = _score(grid, k, measured, bounds, n)
        elif rows.contoured[n]:
            wide.append(k)
        elif k not in drawn and (inside[n] or missed[n]):
            slices[k] = SliceScore(
                k,
                grid.slice_z_mm(k),
                0.0,
                0.0,
                CLASSES[0],
                wrong_cm2=_known(measured.area_cm2[n], 4),
                present=_known(measured.present[n], 4),
            )
    small = [k for k in drawn if k not in slices and k not in wide]
    slices |= {k: SliceScore(k, grid.slice_z_mm(k)) for k in (*wide, *small)}
    ends = [k for k, past in zip(at, missed, strict=True) if past and k not in drawn]
    more = (
        ("wide", "Part of the contour lies too far out to be seen at once; not scored there.", wide),
        ("small", "The contour is smaller there than what the model sees; not scored there.", small),
        ("missed", f"The structure seems to go on past its last contour ({len(ends)} slice{'s' * (len(ends) > 1)} looked at).", ends),
    )
    findings = [*found, *(Finding(code, text, tuple(sorted(here))) for code, text, here in more if here)]
    return StructureScore(True, None, _with_codes(slices.values(), findings), tuple(findings), measured.inputs)


def not_scored(case: Case, name: str, why: str, found: Sequence[Finding]) -> StructureScore:
    """Structure ``name`` of ``case`` without numbers: the slices that have a contour, and those that the rules' findings name; ``why`` (a
    sentence) no model scored it."""
    named = sorted({*_contoured(case, name), *(k for one in found for k in one.slices)})
    bare = (SliceScore(k, case.geometry.slice_z_mm(k)) for k in named)
    return StructureScore(False, why, _with_codes(bare, found), tuple(found))


def _contoured(case: Case, name: str) -> list[int]:
    """Slices of the case's grid that hold a voxel of the structure."""
    return np.flatnonzero(case.mask(name).array.any(axis=(1, 2))).tolist()


def _with_codes(slices: Iterable[SliceScore], findings: Sequence[Finding]) -> tuple[SliceScore, ...]:
    """The slices in order, each with the codes of the findings that name it."""
    ordered = sorted(slices, key=lambda one: one.k)
    return tuple(replace(line, findings=tuple(one.code for one in findings if line.k in one.slices)) for line in ordered)


def _score(grid: Geometry, k: int, measured: Measured, bounds: Bounds, n: int) -> SliceScore:
    # A calibration may have moved a bound past the prediction; it is never told beyond what stands beside it.
    dsc, outline, area = float(measured.dsc[n]), float(measured.outline_mm[n]), float(measured.area_cm2[n])
    return SliceScore(
        k,
        grid.slice_z_mm(k),
        round(dsc, 4),
        _known(float(np.minimum(bounds.lower[n], dsc)), 4),
        quality(dsc, measured.reached[n]),
        surface_mm=_known(outline, 2),
        surface_upper_mm=_known(float(np.maximum(bounds.outline_mm[n], outline)), 2),
        wrong_cm2=_known(area, 4),
        wrong_upper_cm2=_known(float(np.maximum(bounds.area_cm2[n], area)), 4),
    )


def _known(value: float, digits: int) -> float | None:
    """``value`` rounded; None for NaN."""
    return None if np.isnan(value) else round(float(value), digits)


def quality(dsc: float, reached: Floats) -> str:
    """ "good", "medium" or "bad", from the class head where there is one, else from the DSC."""
    if np.isnan(reached).any():
        return CLASSES[int(dsc >= CUTS[0]) + int(dsc >= CUTS[1])]
    medium = bool(reached[0] >= 0.5)
    return CLASSES[int(medium) + int(medium and bool(reached[1] >= 0.5))]


def past_the_ends(measured: Measured) -> NDArray[np.bool_]:
    """Rows past the ends where the structure seems to be, without a break from the end outwards."""
    rows, out = measured.rows, np.zeros(len(measured.rows.k), bool)
    if np.isnan(measured.present).any():
        return out
    there = measured.present >= MISSED_FROM
    for order, at in ((np.argsort(rows.below_mm)[::-1], rows.below_mm), (np.argsort(rows.above_mm)[::-1], rows.above_mm)):
        for n in order[at[order] < 0]:
            if not there[n]:
                break
            out[n] = True
    return out
