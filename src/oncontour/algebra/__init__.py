"""Structures made of structures: margins, union, intersection, difference, rings, from surfaces finer than voxels.

words.py     the expressions that people write: "CTV_60 + 5mm", "Parotid_L - PTV_60"
outlines.py  planar contours, or a mask, as a level on a fine grid whose zero is the surface
creases.py   edges and corners that a grid cuts off, put back
gauge.py     how far a point lies from a surface where each direction has its own millimetre
margins.py   levels grown, shrunk and drawn as contours
make.py      an expression and the structures of a patient -> the new structure
"""
