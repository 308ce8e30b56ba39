"""DICOM Segmentations in and out: ``read_seg``, ``write_seg``."""

from oncontour.io.dicom.seg_read import Segments, read_seg
from oncontour.io.dicom.seg_write import write_seg

__all__ = ["Segments", "read_seg", "write_seg"]
