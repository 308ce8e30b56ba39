"""Tile and stitch: a net that sees windows, an answer on the patient's own grid, and never all classes at full resolution.

``stitch_labels`` runs a net over a volume window by window and reduces its class scores to labels on the target grid slab by slab
as soon as no further window touches them. What is held at once is one row of windows, not the volume: for 100 classes on 384^3 the
naive way (scores of all classes, then resample, then argmax) takes 22.5 GB, this one stays within ``memory_mb`` and a window.

Two ways for windows to meet. *Blended*: overlapping windows are averaged, with more weight towards each window's centre. *Core*:
each voxel is taken from the window in whose middle it lies most (the overlap-tile strategy of Ronneberger et al. 2015, figure 2);
nothing needs to be held beyond the window at hand.

Order of things, as in the naive way: average the scores, turn them into probabilities, interpolate these linearly at the centres of
the target's voxels (blurred first where the target is coarser: ``Volume.to``; logits are not), take the winner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import Box
from oncontour.core.case import BitMasks, LabelMasks
from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, ModelError
from oncontour.ops.labels import EVERYWHERE, Labels, Mode

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]
"""(n, channels, *window) -> (n, classes, *window) class scores."""
Blend = Literal["auto", "auto_flat", "gaussian", "hann", "flat", "core"]
Progress = Callable[[int, int], None]
_SLICES = 16
"""Slices that a slab has at least: thinner ones would interpolate their neighbours over and over."""


@dataclass(frozen=True)
class Stitched:
    """``labels`` on the target grid (uint8, or uint16 beyond 255 classes), 0 background.

    In the ``sigmoid`` modes label n is class n - 1 (every class is a structure); else label n is class n and class 0 the background. With
    ``shared``, ``labels`` are planes of bits instead, uint8 (planes, k, j, i), as ``case.BitMasks`` holds them.
    Where asked for, ``confidence``: probability of what was decided (the winner's score in mode ``softmax_logits``), float16, 0 beyond
    the image; ``peak``: the largest probability of each class anywhere in the image, (classes,); and ``chances``: the probability of each
    class times 255 on the image's own grid, uint8 (classes, k, j, i). ``blend`` says how the windows met.
    """

    labels: Volume
    confidence: Volume | None
    peak: Floats | None
    blend: str
    chances: Volume | None = None

    def masks(self, names: Sequence[str]) -> LabelMasks | BitMasks:
        """The structures by name: the classes in order, without the background where there is one."""
        return LabelMasks(self.labels, names) if self.labels.array.ndim == 3 else BitMasks(self.labels, names)


# ---- tiles


def starts(size: int, window: int, overlap: float) -> tuple[int, ...]:
    """First voxels of the windows along one axis, evenly spread from edge to edge, neighbours sharing at least ``overlap`` of a window.

    An axis shorter than the window gets one window, centred on it (so the first voxel is negative).
    """
    if size <= window:
        return (-((window - size) // 2),)
    step = max(1.0, window * (1 - overlap))
    count = int(np.ceil((size - window) / step - 1e-9)) + 1
    return tuple(round(n * (size - window) / (count - 1)) for n in range(count))


def tiles(shape: Sequence[int], window: Sequence[int], overlap: float = 0.5) -> list[Box]:
    """Windows that cover ``shape`` (k, j, i), ordered along k, then j, then i; slices may reach beyond a shape smaller than the window.

    Raises ConfigError for a window without size or an overlap outside [0, 1).
    """
    _check_tiling(shape, window, overlap)
    along = [starts(n, w, overlap) for n, w in zip(shape, window, strict=True)]
    return [_box((k, j, i), window) for k, j, i in product(*along)]


def _box(start: Sequence[int], size: Sequence[int]) -> Box:
    k, j, i = (slice(int(a), int(a) + int(n)) for a, n in zip(start, size, strict=True))
    return k, j, i


def _check_tiling(shape: Sequence[int], window: Sequence[int], overlap: float) -> None:
    if len(shape) != 3 or len(window) != 3 or min(window) < 1:
        raise ConfigError(f"a window needs three positive sizes (k, j, i), not {tuple(window)}", where=f"a volume of {tuple(shape)}")
    if not 0 <= overlap < 1:
        raise ConfigError(f"windows overlap by a part of themselves, 0 <= overlap < 1, not {overlap}")


def cut(array: Array, box: Box, pad: float | None = None) -> Floats:
    """``array`` (..., k, j, i) in ``box`` as float32; beyond the edge lies ``pad``, or the nearest edge voxel for None."""
    inside, short = [], []
    for part, size in zip(box, array.shape[-3:], strict=True):
        first, last = max(part.start, 0), min(part.stop, size)
        inside.append(slice(first, last))
        short.append((first - part.start, part.stop - last))
    piece = array[..., inside[0], inside[1], inside[2]].astype(np.float32)
    if not any(before or after for before, after in short):
        return piece
    widths = [(0, 0)] * (array.ndim - 3) + short
    return np.pad(piece, widths, mode="edge") if pad is None else np.pad(piece, widths, constant_values=pad)


def neighbours(array: Array, box: Box, context: int, pad: float | None = None) -> Floats:
    """One slice of ``array`` (c, k, j, i) with ``context`` slices either side as channels (c * (2 * context + 1), j, i): 2.5D.

    Channels run through the first image's slices from low to high k, then the second's. Beyond the ends: as in ``cut``.
    """
    k, j, i = box
    piece = cut(array, (slice(k.start - context, k.start + context + 1), j, i), pad)
    return piece.reshape(-1, *piece.shape[-2:])


def profile(blend: str, size: int) -> NDArray[np.float64]:
    """Weight of a window's voxels along one axis: ``gaussian`` (sigma an eighth of the window), ``hann``, ``flat``."""
    at = np.arange(size) - (size - 1) / 2
    if blend == "gaussian":
        return np.asarray(np.maximum(np.exp(-0.5 * (at / (size / 8)) ** 2), 1e-4))
    if blend == "hann":
        return np.asarray(np.maximum(np.cos(np.pi * at / (size + 1)) ** 2, 1e-4))
    return np.ones(size)


def shares(blend: str, size: int, window: int, first: Sequence[int]) -> list[Floats]:
    """The part that each window along an axis has in its voxels: over all windows they add up to one at every voxel of the axis."""
    weight = profile(blend, window)
    total = np.zeros(size)
    spans = [(max(a, 0), min(a + window, size), a) for a in first]
    for low, high, a in spans:
        total[low:high] += weight[low - a : high - a]
    out = []
    for low, high, a in spans:
        part = np.zeros(window, np.float32)
        part[low - a : high - a] = weight[low - a : high - a] / total[low:high]
        out.append(part)
    return out


# ---- the whole job


def stitch_labels(
    predict: Predict,
    image: Volume,
    n_classes: int,
    *,
    window: Sequence[int],
    overlap: float = 0.5,
    target: Geometry | None = None,
    mode: Mode = "softmax",
    threshold: float | Sequence[float] = 0.5,
    blend: Blend = "auto",
    memory_mb: float = 1000,
    batch: int = 1,
    dims: int = 3,
    context: int = 0,
    pad: float | None = None,
    confidence: bool = False,
    chances: bool = False,
    shared: bool = False,
    progress: Progress | None = None,
) -> Stitched:
    """Labels on ``target`` (default: the image's grid) from a net that sees windows of ``image`` (k, j, i) or (c, k, j, i).

    ``predict`` takes (n, c, *window) and answers (n, n_classes, *window); for ``dims=2`` the window is (1, j, i), the net sees
    (n, c * (2 * context + 1), j, i) and answers (n, n_classes, j, i). At most ``batch`` windows are predicted at once.

    ``mode``: what the scores are and who wins. ``softmax``: exclusive classes, 0 is background, the largest wins. ``sigmoid``: each class
    a structure of its own; of those at or above their ``threshold`` (one, or one for each class) the most probable wins, or with
    ``shared`` each has the voxel (a bit a class and voxel is then held, and there is no ``confidence``, as nobody wins).
    ``softmax_logits`` and ``sigmoid_logits``: the same, but the scores themselves are interpolated, unblurred, as nnU-Net does, not the
    probabilities.
    Target voxels beyond the image are background.

    ``blend``: ``auto`` is gaussian (``auto_flat``: flat) where a row of blended windows takes at most ``memory_mb``, else core; a choice
    made from sizes alone, so the same patient and model give the same labels on every machine. Naming a blend holds to it whatever it
    takes.

    ``chances`` keeps the probabilities of all classes, a byte each, on the image's grid; they are there where windows are blended and the
    scores are made probabilities (mode ``sigmoid``), else None.

    Raises ConfigError for settings that cannot be, ModelError when the net answers in another shape, or what is no number.
    """
    array = image.array if image.array.ndim == 4 else image.array[None]
    _check_tiling(array.shape[1:], window, overlap)
    if dims not in (2, 3) or (dims == 2 and window[0] != 1) or (dims == 3 and context):
        raise ConfigError(f"dims={dims} with window {tuple(window)} and context {context}", hint="slices: dims=2, window (1, j, i)")
    reduce = Labels(
        image.geometry, target or image.geometry, n_classes, mode=mode, threshold=threshold, confidence=confidence, shared=shared
    )
    plan = _Plan(array, (int(window[0]), int(window[1]), int(window[2])), overlap, max(batch, 1), dims, context, pad, progress)
    chosen = _blend(blend, plan, reduce, n_classes, memory_mb)
    kept = np.zeros((n_classes, *plan.shape), np.uint8) if chances and mode == "sigmoid" and chosen != "core" else None
    if chosen == "core":
        _core(plan, predict, n_classes, reduce)
    else:
        _blended(plan, predict, n_classes, chosen, reduce, kept)
    return Stitched(*reduce.result(), chosen, None if kept is None else Volume(kept, image.geometry))


def _blend(blend: str, plan: _Plan, reduce: Labels, n_classes: int, memory_mb: float) -> str:
    if blend not in ("auto", "auto_flat", "gaussian", "hann", "flat", "core"):
        raise ConfigError(f"blend {blend!r}; known are auto, auto_flat, gaussian, hann, flat, core")
    if not blend.startswith("auto"):
        return blend
    held = n_classes * _depth(plan, reduce) * plan.shape[1] * plan.shape[2] * 4
    return ("flat" if blend == "auto_flat" else "gaussian") if held <= memory_mb * 1e6 else "core"


def _depth(plan: _Plan, reduce: Labels) -> int:
    """Slices of scores held at once: a window, what interpolation looks back on, and a few more where windows are thin."""
    return min(max(plan.window[0], _SLICES) + reduce.halo[0], plan.shape[0])


@dataclass
class _Plan:
    """Where the windows lie, and the net's answers window by window in that order."""

    array: Array
    window: tuple[int, int, int]
    overlap: float
    batch: int
    dims: int
    context: int
    pad: float | None
    progress: Progress | None
    along: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.along = [starts(n, w, self.overlap) for n, w in zip(self.shape, self.window, strict=True)]

    @property
    def shape(self) -> tuple[int, int, int]:
        k, j, i = self.array.shape[1:]
        return k, j, i

    def scores(self, predict: Predict, n_classes: int) -> Iterator[tuple[tuple[int, int, int], Floats]]:
        """((window number along k, j, i), scores (classes, *window)), in order."""
        places = [(k, j, i) for k, j, i in product(*(range(len(a)) for a in self.along))]
        for n in range(0, len(places), self.batch):
            group = places[n : n + self.batch]
            answer = predict(np.stack([self._input(place) for place in group]))
            wanted = (len(group), n_classes, *self.window[3 - self.dims :])
            if answer.shape != wanted:
                raise ModelError(f"the net answered in shape {answer.shape}, expected {wanted} (windows, classes, ...)")
            if np.isnan(answer.min()):  # nothing is larger than it: it would pass for background
                where = f"the windows at voxels {[tuple(a[p] for a, p in zip(self.along, place, strict=True)) for place in group]}"
                raise ModelError("the net's answer is not a number", where=where, hint=self._why_no_number())
            for place, scores in zip(group, answer, strict=True):
                yield place, scores.reshape(n_classes, *self.window)
            if self.progress:
                self.progress(n + len(group), len(places))

    def _why_no_number(self) -> str:
        missing = int(np.isnan(self.array).sum())
        return f"{missing} voxels of its input are NaN: give them a value" if missing else "its input is sound: the weights may be damaged"

    def _input(self, place: tuple[int, int, int]) -> Floats:
        box = _box([a[p] for a, p in zip(self.along, place, strict=True)], self.window)
        return cut(self.array, box, self.pad) if self.dims == 3 else neighbours(self.array, box, self.context, self.pad)

    def inside(self, place: tuple[int, int, int]) -> tuple[Box, Box]:
        """The voxels of a window that lie in the volume: as a box of the volume, and as a box of the window."""
        first = [a[p] for a, p in zip(self.along, place, strict=True)]
        low = [max(a, 0) for a in first]
        size = [min(a + w, n) - b for a, w, n, b in zip(first, self.window, self.shape, low, strict=True)]
        return _box(low, size), _box([b - a for a, b in zip(first, low, strict=True)], size)


# ---- windows meet by their cores


def _core(plan: _Plan, predict: Predict, n_classes: int, reduce: Labels) -> None:
    middles = [_middles(a, w) for a, w in zip(plan.along, plan.window, strict=True)]
    for place, scores in plan.scores(predict, n_classes):
        volume_box, window_box = plan.inside(place)
        owned = [(m[p], m[p + 1]) for m, p in zip(middles, place, strict=True)]
        reduce.add_raw(scores[(slice(None), *window_box)], [part.start for part in volume_box], owned)


def _middles(first: Sequence[int], window: int) -> list[float]:
    """Where along an axis one window hands over to the next: the middle of what they share."""
    between = [(b + a + window - 1) / 2 for a, b in pairwise(first)]
    return [-np.inf, *between, np.inf]


# ---- windows are averaged


def _blended(plan: _Plan, predict: Predict, n_classes: int, blend: str, reduce: Labels, kept: NDArray[np.uint8] | None) -> None:
    parts = [shares(blend, n, w, a) for n, w, a in zip(plan.shape, plan.window, plan.along, strict=True)]
    slab = _Slab(n_classes, _depth(plan, reduce), plan.shape, reduce, kept)
    for place, scores in plan.scores(predict, n_classes):
        volume_box, window_box = plan.inside(place)
        weights = [part[p][box] for part, p, box in zip(parts, place, window_box, strict=True)]
        slab.add(scores[(slice(None), *window_box)], volume_box, weights)
    slab.finish(plan.shape[0])


class _Slab:
    """Scores of the slices that windows are still being added to, and of the finished ones that interpolation still needs."""

    def __init__(
        self, n_classes: int, depth: int, shape: tuple[int, int, int], reduce: Labels, kept: NDArray[np.uint8] | None = None
    ) -> None:
        self._held = np.zeros((n_classes, depth, *shape[1:]), np.float32)
        self._size = shape[0]
        self._reduce = reduce
        self._kept = kept
        self._base = 0  # slice of the volume that is held first
        self._done = 0  # slices before this one are finished
        self._given = -np.inf  # target positions up to here have their labels

    def add(self, scores: Floats, box: Box, weights: list[Floats]) -> None:
        k, j, i = box
        if k.stop - self._base > self._held.shape[1]:
            self.finish(k.start)  # windows come in order: none reaches further back
        here = self._held[:, k.start - self._base : k.stop - self._base, j, i]
        if all(bool((w == 1).all()) for w in weights):
            here += scores
            return
        share = weights[0][:, None, None] * weights[1][:, None] * weights[2]
        for held, values in zip(here, scores, strict=True):
            held += values * share

    def finish(self, stop: int) -> None:
        """No further window touches slices before ``stop``: hand them on, keep what the next slab's interpolation needs, roll."""
        fresh = self._held[:, self._done - self._base : stop - self._base]
        self._reduce.activate(fresh)
        if self._kept is not None:
            for kept, chances in zip(self._kept, fresh, strict=True):
                kept[self._done : stop] = np.rint(chances * 255)
        self._done = stop
        limit = np.inf if stop == self._size else stop - self._reduce.reach
        self._reduce.add(self._held[:, : stop - self._base], [self._base, 0, 0], [(self._given, limit), EVERYWHERE, EVERYWHERE])
        self._given = limit
        self._roll(stop - self._reduce.halo[0])

    def _roll(self, base: int) -> None:
        shift = base - self._base
        if shift <= 0:
            return
        for held in self._held:
            held[:-shift] = held[shift:].copy()
            held[-shift:] = 0
        self._base = base
