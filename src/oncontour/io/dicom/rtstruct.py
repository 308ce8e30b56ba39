"""RTSTRUCT in and out: ``read_rtstruct``, ``read_structure_set`` (which tells more), ``write_rtstruct``, ``names_written``."""

from oncontour.io.dicom.rtstruct_read import Roi, StructureSet, read_rtstruct, read_structure_set
from oncontour.io.dicom.rtstruct_write import check_addable, names_written, write_rtstruct
from oncontour.io.dicom.source import slices_of

__all__ = ["Roi", "StructureSet", "check_addable", "names_written", "read_rtstruct", "read_structure_set", "slices_of", "write_rtstruct"]
