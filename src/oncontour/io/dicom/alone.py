"""The mark by which we know contours that we wrote: each stands for its own slice alone, and slices between them are empty.

An RTSTRUCT has no word for it. A person who draws on every second slice means the body between as well; a mask that is traced there means
nothing of the kind. The mark is a sentence in ROIDescription (PS3.3 C.8.8.5: a user-defined description of the ROI), so that it holds for
one structure of a set, whoever made the others, and a person reads it too. It ends in a digest of the contours and of how many slices
apart they lie: where somebody has changed a contour since, or looks at them on other images, it holds no longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from oncontour.core.contours import Slices

Floats = NDArray[np.float64]
_SENTENCE = "Each contour stands for its own slice alone; slices between contours are empty (oncontour {})"
_MARK = re.compile(re.escape(_SENTENCE).replace(r"\{\}", "([0-9a-f]{16})"))


def mark(data: Iterable[bytes], offsets_mm: Floats, slices: Slices) -> str:
    """The mark of contours, ``data`` as in ContourData, that lie at ``offsets_mm`` along the slices' normal; "" where they do not all lie
    on a slice."""
    digest = _digest(data, offsets_mm, slices)
    return _SENTENCE.format(digest) if digest else ""


def is_marked(description: str, data: Iterable[bytes], offsets_mm: Floats, slices: Slices) -> bool:
    """Whether ``description`` holds the mark of these very contours on these slices; arguments as of ``mark``."""
    found = _MARK.search(description)
    return found is not None and found[1] == _digest(data, offsets_mm, slices)


def _digest(data: Iterable[bytes], offsets_mm: Floats, slices: Slices) -> str:
    from oncontour.raster.planes import slice_of_each

    index = slice_of_each(offsets_mm, slices)
    if index is None or not len(index):
        return ""
    digest = sha256((index - index.min()).astype("<i8").tobytes())
    for text in data:
        digest.update(text.strip(b" \0"))
        digest.update(b"\n")
    return digest.hexdigest()[:16]
