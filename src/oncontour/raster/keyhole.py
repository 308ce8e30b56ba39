"""Holes joined to the outline round them by a channel without width, for systems that do not combine contours by XOR."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def join_holes(points: Floats, starts: Ints) -> tuple[Floats, Ints]:
    """The loops of one plane, points (n, 2) and starts, with every hole spliced into the loop that it lies in. Holes run the other way
    round than outlines, as ``trace_loops.marching_squares`` leaves them.

    From the hole's last column a channel runs along its row to the nearest edge beyond: that of its outline, or of a hole already joined
    to it. Loops within holes stay loops of their own.
    """
    loops = [points[a:b] for a, b in pairwise(starts)]
    outlines = [loop for loop in loops if _area(loop) < 0]
    holes = [loop for loop in loops if _area(loop) >= 0]
    for hole in sorted(holes, key=lambda loop: -loop[:, 1].max()):
        n = int(hole[:, 1].argmax())
        target, edge, at = _nearest_edge(outlines, hole[n])
        outline, start = outlines[target], np.roll(hole, -n, axis=0)
        door = np.array([hole[n, 0], at])
        forwards = _area(outline) * _area(start) < 0
        ring = start if forwards else np.concatenate([start[:1], start[:0:-1]])
        outlines[target] = np.concatenate([outline[: edge + 1], [door], ring, ring[:1], [door], outline[edge + 1 :]])
    ends = np.concatenate([[0], np.cumsum([len(loop) for loop in outlines])]).astype(np.int64)
    return np.concatenate(outlines), ends


def _area(loop: Floats) -> float:
    after = np.roll(loop, -1, axis=0)
    return float((loop[:, 0] * after[:, 1] - after[:, 0] * loop[:, 1]).sum() / 2)


def _nearest_edge(outlines: list[Floats], point: Floats) -> tuple[int, int, float]:
    """Which outline, and which of its edges, a walk from ``point`` along its row to higher columns meets first, and at which column."""
    best = (0, 0, np.inf)
    for n, outline in enumerate(outlines):
        after = np.roll(outline, -1, axis=0)
        crosses = (outline[:, 0] > point[0]) != (after[:, 0] > point[0])
        edges = np.flatnonzero(crosses)
        slope = (after[edges, 1] - outline[edges, 1]) / (after[edges, 0] - outline[edges, 0])
        at = outline[edges, 1] + (point[0] - outline[edges, 0]) * slope
        beyond = at >= point[1] - 1e-9
        if beyond.any():
            nearest = int(np.where(beyond, at, np.inf).argmin())
            if at[nearest] < best[2]:
                best = (n, int(edges[nearest]), float(at[nearest]))
    return best
