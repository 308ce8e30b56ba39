"""Grey values a net can work with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oncontour.core.resample import Array

AIR_HU = -1024.0
"""What stands for "nothing known here": beyond the image, outside the body."""


def window(hu: Array, low_hu: float, high_hu: float) -> NDArray[np.float32]:
    """HU clipped to [low_hu, high_hu] and mapped to [-1, 1], float32."""
    out: NDArray[np.float32] = np.clip(hu, low_hu, high_hu).astype(np.float32)
    out -= np.float32((low_hu + high_hu) / 2)
    out *= np.float32(2 / (high_hu - low_hu))
    return out
