"""RTSTRUCT in and out: ``read_rtstruct``, ``read_structure_set`` (which tells more), ``write_rtstruct``."""

from oncontour.io.rtstruct_read import Roi, StructureSet, read_rtstruct, read_structure_set, slices_of
from oncontour.io.rtstruct_write import write_rtstruct

__all__ = ["Roi", "StructureSet", "read_rtstruct", "read_structure_set", "slices_of", "write_rtstruct"]
