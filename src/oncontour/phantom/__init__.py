"""Example data: analytic solids with known answers, two synthetic patients, and the mean of 24 real ones.

``shapes``   Sphere, Ellipsoid, Box, Cylinder, Torus, HollowSphere, Straw: volume, axial sections and voxel coverage are known exactly;
``patients`` ``head_neck`` and ``pelvis``: whole Cases (CT in HU, organs, target, dose in Gy) drawn from a seed;
``mean``     ``mean_patient``: the mean of 24 public head-and-neck patients, as a Case, or bent by a seed.
"""

from oncontour.phantom.mean import mean_patient
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
    "mean_patient",
    "pelvis",
]
