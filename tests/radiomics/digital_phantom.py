"""The IBSI digital phantom, written out: 4 x 4 x 5 voxels of 2 mm (manual arXiv 1612.07003v11, section 6.1; files: CC BY 4.0).

``IMAGE`` and ``MASK`` are (k, j, i); the four slices stand one below the other, as the manual shows them.
"""

from __future__ import annotations

import numpy as np

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume

_IMAGE = """
    1 4 4 1 1   1 4 6 1 1   4 1 6 4 1   4 4 6 4 1
    1 4 4 1 1   1 1 6 1 1   1 1 3 1 1   4 4 6 1 1
    1 4 4 1 1   1 1 1 1 1   1 1 9 1 1   1 1 6 1 1
    1 4 4 1 1   1 1 1 1 1   1 1 1 1 1   1 1 6 1 1
"""
_MASK = """
    1 1 1 1 1   1 1 1 1 1   1 1 1 1 1   1 1 1 1 1
    1 1 1 1 1   1 1 1 1 1   0 1 1 1 1   1 1 1 1 1
    1 1 1 0 0   1 1 1 1 1   1 1 0 1 1   1 1 1 1 1
    1 1 1 0 0   1 1 1 1 1   1 1 1 1 1   1 1 1 1 1
"""
GRID = Geometry.regular((4, 4, 5), spacing_mm=(2.0, 2.0, 2.0))
IMAGE = Volume(np.array(_IMAGE.split(), np.float32).reshape(4, 4, 5), GRID)
MASK = Volume(np.array(_MASK.split(), np.uint8).reshape(4, 4, 5) > 0, GRID)
