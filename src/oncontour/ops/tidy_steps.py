"""The steps of tidying one mask, each a function from mask to mask; the very same mask comes back where nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.boxes import widened
from oncontour.core.geometry import Geometry

Mask = NDArray[np.bool_]
IN_SLICE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
"""Neighbours within a slice: left, right, above, below."""


def filled_slices(mask: Mask) -> Mask:
    """Holes closed in within a slice are filled."""
    # A hole is background that the border cannot reach through 4 neighbours. Padded, the border of a slice is one piece of background.
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    labels, _ = ndimage.label(~padded, structure=IN_SLICE)
    filled: Mask = (labels != labels[:, :1, :1])[:, 1:-1, 1:-1]
    return filled


def smoothed(mask: Mask, radius_mm: float, grid: Geometry) -> Mask:
    """The outline after a Gaussian of so many millimetres, cut at one half."""
    sigma = [radius_mm / s for s in grid.spacing_mm]
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3.0) >= 0.5)


def without_slivers(mask: Mask, voxels: float, run: int) -> Mask:
    """Islands of fewer ``voxels`` go, except those that go on from a larger one through ``run`` slices (a branch), and where neither the
    slice nor its neighbours would keep anything: the tip of an organ stays."""
    labels, _ = ndimage.label(mask, structure=IN_SLICE)
    kept = _kept(mask, labels, lambda size: size >= voxels)
    if kept is mask:
        return mask
    thin, _ = ndimage.label(mask & ~kept, structure=np.ones((3, 3, 3)))
    large = kept.copy()
    for number, box in enumerate(ndimage.find_objects(thin), 1):
        around = widened(box, mask.shape, (1, 1, 1))
        branch = thin[around] == number
        if box[0].stop - box[0].start >= run and (ndimage.binary_dilation(branch, np.ones((3, 3, 3))) & large[around]).any():
            kept[around] |= branch
    if np.array_equal(kept, mask):
        return mask
    has = np.asarray(kept.any(axis=(1, 2)))
    near = has | np.concatenate([has[1:], [False]]) | np.concatenate([[False], has[:-1]])
    bare = mask.any(axis=(1, 2)) & ~has
    # A slice left with nothing keeps its largest island where that continues what the next slice holds, or where nothing is near.
    for k in np.flatnonzero(bare):
        islands = labels[k][mask[k]]
        largest = np.equal(labels[k], np.bincount(islands).argmax())
        beside = np.zeros_like(largest)
        for n in (k - 1, k + 1):
            if 0 <= n < len(mask):
                beside |= mask[n]
        if not near[k] or (largest & beside).any():
            kept[k] |= largest
    return kept


def large_pieces(mask: Mask, part: float) -> Mask:
    """Pieces of at least this part of the largest; 1: the largest alone."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if part == 1:
        return _kept(mask, labels, lambda size: np.arange(len(size)) == size.argmax())
    return _kept(mask, labels, lambda size: size >= part * size.max())


def with_parts(after: Mask, mask: Mask, voxels: float) -> Mask:
    """``after`` with the pieces of ``mask`` that have ``voxels`` or more and are not its largest: what no step may take from a target."""
    if after is mask or voxels > np.count_nonzero(mask):
        return after
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    size = np.bincount(labels.ravel())
    size[0] = 0
    parts = size >= voxels - 1e-6
    parts[[0, int(size.argmax())]] = False
    return np.asarray(after | parts[labels]) if parts.any() else after


def _kept(mask: Mask, labels: NDArray[np.int32], which: Callable[[NDArray[np.intp]], Mask]) -> Mask:
    """``mask`` with the pieces that ``which`` picks from their sizes (voxels; 0 for the background); ``mask`` itself where it picks all."""
    inside = np.flatnonzero(mask)
    piece = labels.ravel()[inside]
    size = np.bincount(piece)
    gone = ~which(size)[piece]
    if not gone.any():
        return mask
    kept = mask.copy()
    kept.reshape(-1)[inside[gone]] = False
    return kept
