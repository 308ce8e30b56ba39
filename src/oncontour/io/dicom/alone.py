"""The mark by which we know contours that we wrote: each stands for its own slice alone, and slices between them are empty.

An RTSTRUCT has no word for it. A person who draws on every second slice means the body between as well; a mask that is traced there means
nothing of the kind. The mark is a sentence in ROIDescription (PS3.3 C.8.8.5: a user-defined description of the ROI), so that it holds for
one structure of a set, whoever made the others, and a person reads it too. It says how far the slices lie apart, so that on the images of
another series each contour is as thick as it was, and ends in a digest of that and of the contours: where somebody has changed one since,
it holds no longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from oncontour.core.contours import Slices
from oncontour.io.dicom.outlines import Outlines

Floats = NDArray[np.float64]
_SENTENCE = "Each contour stands for its own slice alone; slices between contours are empty (slices {} mm apart; oncontour {})"
_MARK = re.compile(re.escape(_SENTENCE).replace(r"\{\}", r"([0-9][0-9.x ]{0,800}|unevenly)", 1).replace(r"\{\}", "([0-9a-f]{16})"))
_LONGEST = 800
"""Letters for how far slices lie apart: a description has 1024."""
_MOST = 10_000
"""Slices that are looked at."""
_SAME_MM = 0.01
"""Slices nearer than this are the same but for rounding."""


def mark(data: Iterable[bytes], heads_mm: Floats, slices: Slices) -> str:
    """The mark of contours, ``data`` as in ContourData, of which each has one point in ``heads_mm`` (n, 3); "" where they do not all lie
    on one of ``slices``."""
    from oncontour.raster.planes import slice_of_each

    index = slice_of_each(heads_mm @ slices.normal, slices)
    if index is None or not len(index):
        return ""
    offsets = np.sort(slices.origins_mm @ _upwards(slices.normal))
    held = offsets[index] if _upwards(slices.normal) @ slices.normal > 0 else offsets[::-1][index]
    apart = _text(offsets, *np.searchsorted(offsets, (held.min(), held.max())).tolist())
    return _SENTENCE.format(apart, _digest(data, apart))


def marked_slices(description: str, data: Iterable[bytes], outlines: Outlines, slices: Slices) -> Slices | None:
    """The slices that ``outlines`` stand for, where ``description`` holds the mark of these very ones: ``slices``, those of the images they
    are read on, where these are as thick, else those that the mark tells. None where there is no mark, or it is not theirs."""
    from oncontour.raster.planes import common_normal

    found = _MARK.search(description)
    if found is None or found[2] != _digest(data, found[1]) or not len(outlines):
        return None
    normal = common_normal(outlines.points, outlines.starts, [slices.normal, *np.eye(3)])
    heads = outlines.points[outlines.heads]
    drawn = _slices(found[1], heads, normal, slices)
    if drawn is None or (np.array_equal(normal, slices.normal) and _as_thick(drawn, slices, heads @ normal)):
        return slices
    return drawn


def _upwards(normal: Floats) -> Floats:
    """``normal``, or the other way round: whichever has its largest component positive."""
    return np.asarray(normal * np.sign(normal[np.abs(normal).argmax()]))


def _digest(data: Iterable[bytes], apart: str) -> str:
    digest = sha256(apart.encode())
    for text in data:
        digest.update(b"\n")
        digest.update(text.strip(b" \0"))
    return digest.hexdigest()[:16]


def _text(offsets: Floats, first: int, last: int) -> str:
    """How far the slices lie apart from the one before the ``first`` that holds a contour to the one after the ``last``: one number where
    they are even, else a number for each ("3x2.5" is 3 of 2.5 mm), "unevenly" where these are too many to be told."""
    gaps = np.diff(offsets)
    if np.abs(offsets - np.linspace(offsets[0], offsets[-1], len(offsets))).max() <= _SAME_MM:
        return f"{gaps.mean():.9g}"
    padded = np.concatenate([gaps[:1], gaps, gaps[-1:]])[first : last + 2]  # the first and the last slice reach as far outwards as inwards
    told = " ".join(f"{len(list(same))}x{gap}" for gap, same in groupby(f"{gap:.6g}" for gap in padded.tolist()))
    return told if len(told) <= _LONGEST else "unevenly"


def _slices(text: str, heads_mm: Floats, normal: Floats, on: Slices) -> Slices | None:
    """The slices that ``_text`` told of, under contours through ``heads_mm`` and across ``normal``; None where it tells none. Directions
    are those of ``on`` where that is across the same."""
    offsets = heads_mm @ _upwards(normal)
    lowest, reach = int(offsets.argmin()), float(np.ptp(offsets))
    try:
        if "x" in text:
            pairs = [(int(count), float(gap)) for count, gap in (part.split("x") for part in text.split())]
            gaps = np.repeat([gap for _, gap in pairs], [count for count, _ in pairs]) if sum(n for n, _ in pairs) <= _MOST else np.zeros(0)
        else:
            step = float(text)
            gaps = np.full(round(reach / step) + 2, step) if step * _MOST > reach else np.zeros(0)
    except ValueError:
        return None
    if len(gaps) < 2 or gaps.min() <= _SAME_MM:
        return None
    row, column = on.row, on.column
    if not np.array_equal(normal, on.normal):
        row = np.cross(np.eye(3)[np.abs(normal).argmin()], normal)
        column = np.cross(normal, row)
    up = np.concatenate([[0], np.cumsum(gaps)]) - gaps[0]
    return Slices(heads_mm[lowest] + up[:, None] * _upwards(normal), row, column, on.pixel_mm, on.shape)


def _as_thick(drawn: Slices, slices: Slices, offsets: Floats) -> bool:
    """Whether contours at ``offsets`` stand for the same on both."""
    from oncontour.raster.planes import slice_of_each

    here, there = slice_of_each(offsets, slices), slice_of_each(offsets, drawn)
    if here is None or there is None:
        return False
    return bool(np.abs(slices.slabs_mm[here] - drawn.slabs_mm[there]).max() <= _SAME_MM)
