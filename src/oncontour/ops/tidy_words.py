"""What tidying says of its changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """A sentence about what tidying did; ``warns``: it belongs among the warnings, as the model drew an organ where it is not."""

    text: str
    warns: bool = False


def change_words(before: Mask, after: Mask, voxel_mm3: float) -> str:
    """What a step added and removed; "" where nothing."""
    added, removed = int((after & ~before).sum()), int((before & ~after).sum())
    return ", ".join(sign + volume_words(n * voxel_mm3) for sign, n in (("+", added), ("-", removed)) if n)


def volume_words(mm3: float) -> str:
    """A volume as people say it."""
    return f"{mm3 / 1000:.2f} cc" if mm3 >= 10 else f"{mm3:.2g} mm³"


def distance_words(mm: float) -> str:
    """A distance as people say it."""
    return f"{mm / 10:.0f} cm" if mm >= 95 else f"{mm:.0f} mm"


def cc_words(mask: Mask, grid: Geometry) -> str:
    """How large a mask is."""
    return volume_words(int(np.count_nonzero(mask)) * grid.voxel_mm3)
