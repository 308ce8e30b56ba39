"""Intensities to grey levels 1, 2, ... (IBSI section 2.7, identifier 4R0B)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import ConfigError

Levels = NDArray[np.int32]
MAX_LEVELS = 1024
"""More grey levels than this tell that the bin was meant in another unit."""


def fixed_bin_size(values: NDArray[Any], width: float, lowest: float | None = None) -> Levels:
    """Level ``floor((x - lowest) / width) + 1``; without ``lowest`` the smallest value starts the first bin (IBSI Q3RU).

    ``lowest`` is the lower end of the re-segmentation range (0 Gy for dose). Raises ConfigError for a width that is not positive, values
    below ``lowest``, and more than MAX_LEVELS levels.
    """
    if not (np.isfinite(width) and width > 0):
        raise ConfigError(f"a bin is wider than 0, not {width}")
    if not values.size:
        return np.empty(0, np.int32)
    start = float(values.min()) if lowest is None or not np.isfinite(lowest) else float(lowest)
    if values.min() < start:
        raise ConfigError(f"bins start at {start:g}, but the smallest value is {values.min():g}", hint="re-segment first")
    top = (float(values.max()) - start) / width
    if top >= MAX_LEVELS:
        raise ConfigError(
            f"bins of {width:g} from {start:g} to {values.max():g} make {int(top) + 1} grey levels, more than {MAX_LEVELS}",
            hint="take a wider bin (is its unit that of the image: Gy, HU?), or a fixed number of bins",
        )
    return np.asarray(np.floor((values - start) / width).astype(np.int32) + 1)


def fixed_bin_number(values: NDArray[Any], bins: int) -> Levels:
    """Level ``floor(bins (x - min) / (max - min)) + 1``, the maximum in the last bin (IBSI K15C); one level where all are the same.

    Raises ConfigError for fewer than one and more than MAX_LEVELS bins.
    """
    if not 1 <= bins <= MAX_LEVELS:
        raise ConfigError(f"a number of bins lies between 1 and {MAX_LEVELS}, not {bins}")
    if not values.size:
        return np.empty(0, np.int32)
    low, high = float(values.min()), float(values.max())
    if high == low:
        return np.ones(values.shape, np.int32)
    return np.asarray(np.minimum(np.floor(bins * (values - low) / (high - low)).astype(np.int32) + 1, bins))
