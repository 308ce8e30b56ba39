"""RTDOSE in and out: ``read_rtdose``, ``dose_kind`` (what the dose is), ``write_rtdose``."""

from oncontour.io.dicom.rtdose_read import RT_DOSE, DoseKind, dose_kind, read_rtdose
from oncontour.io.dicom.rtdose_write import RT_PLAN, write_rtdose

__all__ = ["RT_DOSE", "RT_PLAN", "DoseKind", "dose_kind", "read_rtdose", "write_rtdose"]
