"""Contours to voxels and back: ``rasterise`` and ``fill`` one way, ``trace`` the other.

planes.py    which polygons lie in one plane, and how thick a slab each plane stands for; overlap.py how two outlines lie to each other
coverage.py  exact area coverage of the pixels of one plane
fill.py      slabs onto any grid
trace.py     masks to polygons on the true slices, area for area
keyhole.py   holes joined to their outline
fill_loops.py, trace_loops.py  the compiled loops (numba; imported when first needed)
"""

from oncontour.raster.fill import fill, rasterise
from oncontour.raster.trace import trace

__all__ = ["fill", "rasterise", "trace"]
