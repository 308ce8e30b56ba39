"""Example data as code: analytic solids with known answers, and two synthetic patients.

``shapes``   Sphere, Ellipsoid, Box, Cylinder, Torus, HollowSphere, Straw: volume, axial sections and voxel coverage are known exactly;
``patients`` ``head_neck`` and ``pelvis``: whole Cases (CT in HU, organs, target, dose in Gy) drawn from a seed.
"""

from oncontour.phantom.patients import head_neck, pelvis
from oncontour.phantom.shapes import (
    Both,
    Box,
    Cylinder,
    Ellipsoid,
    HollowSphere,
    Minus,
    Moved,
    Shape,
    Solid,
    Sphere,
    Straw,
    Torus,
    Tube,
    Union,
    keyhole,
)

__all__ = [
    "Both",
    "Box",
    "Cylinder",
    "Ellipsoid",
    "HollowSphere",
    "Minus",
    "Moved",
    "Shape",
    "Solid",
    "Sphere",
    "Straw",
    "Torus",
    "Tube",
    "Union",
    "head_neck",
    "keyhole",
    "pelvis",
]
