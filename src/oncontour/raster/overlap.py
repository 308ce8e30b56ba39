"""How two outlines that lie in one plane, or over each other, lie to each other: one the hole of the other, beside it, or across it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import ON_GRID_MM
from oncontour.errors import LimitError
from oncontour.raster.coverage import plane_area

Floats = NDArray[np.float64]

_THINNEST_WALL_MM = 1.0
"""An outline nearer than this to the one round it, on average, is that one drawn twice and not its hole."""
_PROBES = 1000
MAX_PAIRS = 10_000
"""Contours of different heights over each other, of one structure: pairs that are looked at to tell which belong together."""


def hole_or_beside(a: Floats, b: Floats) -> bool:
    """Whether XOR of two outlines (n, 2) is what was drawn: one is a hole of the other, or they have no more than edges in common."""
    (a_in, a_out), (b_in, b_out) = _sides(a, b), _sides(b, a)
    if not a_in and not b_in:
        return a_out and b_out
    if not a_out and not b_in:
        return _is_hole(a, b)
    return not b_out and not a_in and _is_hole(b, a)


def overlapping(a: Floats, b: Floats) -> bool:
    """Whether two outlines (n, 2) have more than their edges in common."""
    (a_in, a_out), (b_in, b_out) = _sides(a, b), _sides(b, a)
    return a_in or b_in or not (a_out and b_out)


class Meeting:
    """Pairs of outlines (n, 2) whose boxes meet, in all that is asked of one structure no more than MAX_PAIRS (else LimitError)."""

    def __init__(self) -> None:
        self.seen = 0

    def pairs(self, these: Sequence[Floats], those: Sequence[Floats]) -> Iterator[tuple[Floats, Floats]]:
        """Each of these with each of those where the two may have points in common."""
        low, high = (np.array([fold(polygon, axis=0) for polygon in those]) for fold in (np.min, np.max))
        for one in these:
            for n in np.flatnonzero(((one.min(axis=0) <= high) & (one.max(axis=0) >= low)).all(axis=1)).tolist():
                self.seen += 1
                if self.seen > MAX_PAIRS:
                    raise LimitError(
                        f"more than {MAX_PAIRS} pairs of contours lie over each other, {ON_GRID_MM} mm and more apart: "
                        "which are outline and hole is not looked at"
                    )
                yield one, those[n]


def _is_hole(inner: Floats, outer: Floats) -> bool:
    """Whether what lies between the two is a wall: half of the whole, or _THINNEST_WALL_MM thick on average."""
    within, whole = (plane_area(polygon, np.array([0, len(polygon)])) for polygon in (inner, outer))
    length = float(np.linalg.norm(np.roll(outer, -1, axis=0) - outer, axis=1).sum())
    return within <= whole / 2 or whole - within >= _THINNEST_WALL_MM * length


def _sides(outline: Floats, polygon: Floats) -> tuple[bool, bool]:
    """Whether part of the outline lies within the polygon (even-odd), and part outside; what is nearer than ON_GRID_MM to its edge
    is neither."""
    along = np.roll(polygon, -1, axis=0) - polygon
    squared = np.maximum((along**2).sum(axis=1), 1e-12)
    within = outside = False
    probes = _probes(outline)
    for piece in np.array_split(probes, 1 + len(probes) * len(polygon) // 500_000):
        away = piece[:, None] - polygon
        share = np.clip((away * along).sum(axis=2) / squared, 0, 1)
        clear = np.linalg.norm(away - share[..., None] * along, axis=2).min(axis=1) > ON_GRID_MM
        crossed = (away[..., 1] < 0) != (away[..., 1] < along[:, 1])
        before = (away[..., 0] * along[:, 1] < away[..., 1] * along[:, 0]) == (along[:, 1] > 0)
        inside = (crossed & before).sum(axis=1) % 2 == 1
        within, outside = within or bool((clear & inside).any()), outside or bool((clear & ~inside).any())
    return within, outside


def _probes(outline: Floats) -> Floats:
    """Points all along a closed outline (n, 2), half a millimetre apart, but no more than _PROBES of them and no fewer than 64."""
    closed = np.append(outline, outline[:1], axis=0)
    reach = np.append(0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1)))
    at = np.linspace(0, reach[-1], int(np.clip(reach[-1] / 0.5, 64, _PROBES)), endpoint=False)
    return np.stack([np.interp(at, reach, closed[:, 0]), np.interp(at, reach, closed[:, 1])], axis=1)
