"""What the page shows beside the contours: another set to compare them with, and the dose with its isodoses and DVHs.

The viewer asks for outlines and doses by slice; both travel as compressed text, like the images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.palette import Colour

if TYPE_CHECKING:
    from oncontour.dose.dvh import DVH
    from oncontour.report.dose_grid import DoseGrid

LEVELS_PERCENT = (110.0, 105.0, 100.0, 95.0, 80.0, 50.0, 30.0)
"""Isodoses where a prescription is known, in % of the highest one; where none is, of the largest dose (no more than 95 of it)."""
LEVEL_COLOURS: tuple[Colour, ...] = (
    (255, 255, 255),
    (213, 94, 0),
    (230, 159, 0),
    (240, 228, 66),
    (0, 158, 115),
    (86, 180, 233),
    (0, 114, 178),
)
CURVE_POINTS = 240


@dataclass(frozen=True, eq=False)
class Beside:
    """``compared``: a case with the structures that the page's own are compared with, on its grid, called ``compared_as`` ("truth");
    ``dvhs``: what the dose gives to structures, in the order of their colours; ``prescribed_gy``: by target."""

    compared: Case | None = None
    compared_as: str = ""
    dvhs: Mapping[str, DVH] = field(default_factory=dict)
    prescribed_gy: Mapping[str, float] = field(default_factory=dict)


def on_grid_of(case: Case, other: Case, names: Sequence[str]) -> Case:
    """``case`` with the structures ``names`` of ``other``, the same patient, in place of its own; those that ``other`` lacks are left out.

    Raises GeometryError for a mask of other voxels.
    """
    there = [name for name in names if name in other.structures]
    masks = {name: other.own_mask(name, case.geometry) for name in there if name in other.masks}
    contours = {name: other.contours[name] for name in there if name not in other.masks}
    bare = case.without_structures()
    return (bare.with_masks(masks) if masks else bare).with_contours(contours)


# ---- two sets


def compared_words(beside: Beside, names: Sequence[str], shown: Geometry) -> str | None:
    """The outlines to compare with, as compressed JSON: ``as`` what they are, ``outlines`` a list for each of ``names`` (null: none)."""
    from oncontour.report.dose_grid import packed
    from oncontour.report.scene import outlines_of

    other = beside.compared
    if other is None:
        return None
    made = [outlines_of(other, name, shown) if name in other.structures else None for name in names]
    return packed(json.dumps({"as": beside.compared_as, "outlines": made}, separators=(",", ":")).encode())


# ---- dose


def dose_words(beside: Beside, dose: DoseGrid | None) -> dict[str, object] | None:
    """The isodoses of the page's ``dose``, and the prescription that they are percent of (null: of its largest); None without a dose."""
    if dose is None:
        return None
    return {"levels": levels(dose.most_gy, beside.prescribed_gy), "prescription_gy": max(beside.prescribed_gy.values(), default=None)}


def levels(most_gy: float, prescribed_gy: Mapping[str, float]) -> list[dict[str, object]]:
    """Isodoses, the highest first: Gy, % (of the highest prescription; without one of ``most_gy``) and colour; none above ``most_gy``."""
    whole = max(prescribed_gy.values(), default=most_gy)
    wanted = [percent for percent in LEVELS_PERCENT if prescribed_gy or percent <= 95]
    colours = dict(zip(LEVELS_PERCENT, LEVEL_COLOURS, strict=True))
    return [
        {"gy": round(percent / 100 * whole, 2), "percent": percent, "colour": list(colours[percent])}
        for percent in wanted
        if 0 < percent / 100 * whole <= most_gy
    ]


def curves_words(beside: Beside) -> list[dict[str, object]]:
    """The DVHs for the page: name, colour, volume, mean, and the % of the dosed volume above Gy, at CURVE_POINTS doses of its range."""
    from oncontour.report.dvh import ink

    return [
        {
            "n": n,
            "name": name,
            "colour": list(ink(n)),
            "cc": round(one.volume_cc, 3),
            "dosed_cc": round(one.dosed_cc, 3),
            "gy": _rounded(gy := np.linspace(one.min_gy, one.max_gy, CURVE_POINTS), 3),
            "percent": _rounded(100 * np.interp(gy, one.edges_gy, one.above_cc) / one.dosed_cc, 3),
        }
        for n, (name, one) in enumerate(beside.dvhs.items())
        if one.dosed_cc > 0
    ]


def _rounded(values: NDArray[np.float64], digits: int) -> list[float]:
    return [float(one) for one in np.round(values, digits)]
