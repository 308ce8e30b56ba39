"""Blocks of class scores on one grid become labels on another, block by block, class by class.

Whoever holds scores for a part of the source grid hands them over with the range of positions that part answers for; every target
voxel belongs to exactly one such range, so that nothing needs the scores of all classes at the target's resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from oncontour.core.boxes import Box
from oncontour.core.geometry import Geometry
from oncontour.core.resample import ON_GRID, Array, blur_reach, copy_moves, parallel_axes
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError

Floats = NDArray[np.float32]
Mode = Literal["softmax", "softmax_logits", "sigmoid", "sigmoid_logits"]
MODES = ("softmax", "softmax_logits", "sigmoid", "sigmoid_logits")

Range = tuple[float, float]
"""Positions low < p <= high along one source axis, in voxels."""
Part = tuple[Box, NDArray[np.bool_] | None, list[Range]]
"""A box of the target, which of its voxels count (None: all), and the source positions they span."""
EVERYWHERE: Range = (-np.inf, np.inf)
_PIECE = 1 << 20
"""Target voxels decided at once: small enough for a processor's cache."""


class Labels:
    """Labels on ``target``, filled from blocks of scores on ``source``; voxels that no block answers for are background (0).

    ``mode`` and ``shared``: see ``windows.stitch_labels``; with ``shared`` the labels are planes of bits (``case.BitMasks``).
    ``halo``: source voxels along each axis that a block must hold before the first position it answers for; ``reach``: how far along k
    before the end of what it holds a block's answer must end.
    Raises ConfigError for an unknown mode, a threshold that is not one number or one for each class, or ``shared`` where classes exclude
    each other or the winner's probability is asked for.
    """

    def __init__(
        self,
        source: Geometry,
        target: Geometry,
        n_classes: int,
        *,
        mode: str,
        threshold: float | Sequence[float],
        confidence: bool,
        shared: bool = False,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"mode {mode!r}; known are {', '.join(MODES)}")
        if np.size(threshold) not in (1, n_classes):
            raise ConfigError(f"{np.size(threshold)} thresholds for {n_classes} classes")
        self._source, self._target, self._mode = source, target, mode
        self._separate, self._shared = mode.startswith("sigmoid"), shared
        if shared and (confidence or not self._separate):
            raise ConfigError(
                f"voxels are shared in the sigmoid modes and without confidence, not in mode {mode!r}, confidence={confidence}"
            )
        level = np.asarray(threshold, np.float32)
        self._threshold = np.broadcast_to(logit(level) if mode == "sigmoid_logits" else level, (n_classes,))
        highest = n_classes if self._separate else n_classes - 1
        axes = (-(-n_classes // 8), *target.shape) if shared else target.shape
        self._labels: Array = np.zeros(axes, np.uint8 if shared or highest < 256 else np.uint16)
        self._sure = np.zeros(target.shape, np.float16) if confidence else None
        self._peak = np.full(n_classes, -np.inf, np.float32)
        self._matrix = source.inverse @ target.affine
        # Logits are no amounts: what is averaged of them are the surest voxels, and a small organ is lost in a coarser grid.
        self._soft = not mode.endswith("logits")
        self._blur = blur_reach(self._matrix) if self._soft else [0, 0, 0]
        self._axis = parallel_axes(self._matrix, target.shape)
        exact = copy_moves(self._matrix) is not None
        self.halo = [0, 0, 0] if exact else [1 + 2 * b for b in self._blur]
        self.reach = 0.5 if exact else 1.0 + self._blur[0]
        # Softmax does not change who is largest: it matters only where values are interpolated or asked for.
        self.acts = mode == "sigmoid" or (mode == "softmax" and (confidence or not exact))

    def result(self) -> tuple[Volume, Volume | None, Floats | None]:
        """Labels; and, where asked for, how sure each voxel is and the largest probability of each class."""
        labels = Volume(self._labels, self._target)
        if self._sure is None:
            return labels, None, None
        return labels, Volume(self._sure, self._target), expit(self._peak) if self._mode == "sigmoid_logits" else self._peak

    def activate(self, scores: Floats) -> None:
        """Scores (classes, k, j, i) to probabilities, in place, slice by slice; nothing where scores are what is compared."""
        if not self.acts:
            return
        for k in range(scores.shape[1]):
            part = scores[:, k]
            if self._mode == "sigmoid":
                expit(part, out=part)
                continue
            part -= part.max(axis=0)
            np.exp(part, out=part)
            part /= part.sum(axis=0)

    def add_raw(self, scores: Floats, base: Sequence[int], owned: Sequence[Range]) -> None:
        """As ``add``, from scores not yet activated; they stay as they are, and only what is needed of them is looked at."""
        box = [self._needed(*span, axis, base[axis], scores.shape[1 + axis]) for axis, span in enumerate(owned)]
        part = scores[(slice(None), *box)]
        if self.acts:
            part = part.copy()
            self.activate(part)
        self.add(part, [b + s.start for b, s in zip(base, box, strict=True)], owned)

    def add(self, scores: Floats, base: Sequence[int], owned: Sequence[Range]) -> None:
        """Label the target voxels whose positions are ``owned`` (along k, j, i) from activated ``scores`` (classes, k, j, i).

        ``base`` is the source voxel that the first of the scores belongs to.
        """
        owned = [(max(low, -0.5 - ON_GRID), min(high, n - 0.5 + ON_GRID)) for (low, high), n in zip(owned, self._source.shape, strict=True)]
        parts = self._boxes(owned) if self._axis else self._strips(owned)
        for box, mine, spans in parts:
            needed = [self._needed(*span, axis, base[axis], scores.shape[1 + axis]) for axis, span in enumerate(spans)]
            first = [b + s.start for b, s in zip(base, needed, strict=True)]
            piece = scores[(slice(None), *needed)]
            block = self._source.crop(first, [a + n for a, n in zip(first, piece.shape[1:], strict=True)])
            grid = self._target.crop([s.start for s in box], [s.stop for s in box])
            decide = self._share if self._shared else self._decide
            decide(piece, block, grid, box, mine)

    def _needed(self, low: float, high: float, axis: int, base: int, held: int) -> slice:
        """The held voxels along an axis that positions low..high look at."""
        blur = self._blur[axis]
        first = 0 if low == -np.inf else int(np.clip(np.floor(low) - blur - base, 0, held - 1))
        last = held if high == np.inf else int(np.clip(np.floor(high) + 2 + blur - base, first + 1, held))
        return slice(first, last)

    # ---- which target voxels

    def _boxes(self, owned: Sequence[Range]) -> Iterator[Part]:
        """Grids with parallel axes: the box of target voxels in ``owned``, cut into pieces along the axis that follows the source's k."""
        follows = self._axis or (0, 1, 2)
        box: list[slice] = []
        at: list[NDArray[np.float64]] = []
        for t, s in enumerate(follows):
            where = self._matrix[s, t] * np.arange(self._target.shape[t]) + self._matrix[s, 3]
            inside = np.flatnonzero((where > owned[s][0]) & (where <= owned[s][1]))
            if not len(inside):
                return
            box.append(slice(int(inside[0]), int(inside[-1]) + 1))
            at.append(where)
        lead = follows.index(0)
        area = int(np.prod([s.stop - s.start for t, s in enumerate(box) if t != lead]))
        step = max(1, _PIECE // area)
        for start in range(box[lead].start, box[lead].stop, step):
            piece = [slice(start, min(start + step, s.stop)) if t == lead else s for t, s in enumerate(box)]
            spans = [(float(at[t][s].min()), float(at[t][s].max())) for t, s in enumerate(piece)]
            yield (piece[0], piece[1], piece[2]), None, [spans[follows.index(s)] for s in range(3)]

    def _strips(self, owned: Sequence[Range]) -> Iterator[Part]:
        """Oblique grids: slice by slice of the target, the rectangle around the voxels in ``owned``, and which of it they are."""
        corners = np.array(np.meshgrid(*owned, indexing="ij")).reshape(3, -1)
        back = np.linalg.inv(self._matrix)
        around = back[:3, :3] @ corners + back[:3, 3:]
        low = np.clip(np.floor(around.min(axis=1)), 0, self._target.shape).astype(int)
        high = np.clip(np.ceil(around.max(axis=1)) + 1, 0, self._target.shape).astype(int)
        j, i = np.mgrid[low[1] : high[1], low[2] : high[2]].astype(np.float64)
        in_plane = self._matrix[:3, 1, None, None] * j + self._matrix[:3, 2, None, None] * i + self._matrix[:3, 3, None, None]
        ends = np.array(owned)[:, :, None, None]
        for k in range(low[0], high[0]):
            at = in_plane + self._matrix[:3, 0, None, None] * k
            mine = ((at > ends[:, 0]) & (at <= ends[:, 1])).all(axis=0)
            rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
            if not len(rows):
                continue
            r, c = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
            spans = [(float(p[r, c].min()), float(p[r, c].max())) for p in at]
            box = (slice(k, k + 1), slice(r.start + int(low[1]), r.stop + int(low[1])), slice(c.start + int(low[2]), c.stop + int(low[2])))
            yield box, mine[None, r, c], spans

    # ---- who wins

    def _decide(self, scores: Floats, block: Geometry, grid: Geometry, box: Box, mine: NDArray[np.bool_] | None) -> None:
        winner = np.zeros(grid.shape, self._labels.dtype)
        best = np.full(grid.shape, -np.inf, np.float32)
        top = np.full(grid.shape, -np.inf, np.float32) if self._separate and self._sure is not None else None
        for n, values in enumerate(scores):
            here = Volume(values, block).to(grid, blur=self._soft).array
            better = here > best
            if self._separate:
                better &= here >= self._threshold[n]
            if better.any():
                np.putmask(winner, better, n + 1 if self._separate else n)
                np.putmask(best, better, here)
            if top is not None:
                np.maximum(top, here, out=top)
            if self._sure is not None:
                self._peak[n] = max(self._peak[n], here.max() if mine is None else here[mine].max())
        if top is not None:
            if self._mode == "sigmoid_logits":
                best, top = expit(best), expit(top)
            best = np.where(winner == 0, 1 - top, best)
        self._write(winner, best, box, mine)

    def _share(self, scores: Floats, block: Geometry, grid: Geometry, box: Box, mine: NDArray[np.bool_] | None) -> None:
        """Every class whose threshold is reached has the voxel."""
        planes = np.zeros((len(self._labels), *grid.shape), np.uint8)
        for n, values in enumerate(scores):
            here = Volume(values, block).to(grid, blur=self._soft).array
            planes[n // 8] |= (here >= self._threshold[n]) * np.uint8(1 << n % 8)
        np.copyto(self._labels[(slice(None), *box)], planes, where=True if mine is None else mine)

    def _write(self, winner: Array, best: Floats, box: Box, mine: NDArray[np.bool_] | None) -> None:
        if mine is None:
            mine = np.ones((1, 1, 1), bool)
        np.copyto(self._labels[box], winner, where=mine)
        if self._sure is not None:
            np.copyto(self._sure[box], best, where=mine, casting="same_kind")
