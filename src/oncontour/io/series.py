"""CT and MR series from any DICOM folder to one Volume in HU or scanner units.

    scan(folder)  ->  choose one series  ->  planes  ->  stack (order, gaps, tilt)  ->  voxels

Sources: DICOM PS3.3 A.3, A.4 (CT, MR image), C.7.6.2.1.1 (position and orientation), C.7.5.1.1.2 (pixel padding), C.11.1 (rescale).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import InputError, LimitError, SeriesError
from oncontour.geometry import Geometry
from oncontour.io.dicomfile import MAX_SLICES, MAX_VOXELS
from oncontour.io.pixels import stored_values
from oncontour.io.plane import Plane, planes_of
from oncontour.io.scan import PATIENT_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS, SeriesFiles, scan
from oncontour.io.source import DicomSource, SliceRef
from oncontour.io.stack import SAME_PLACE_MM, Stack, check_alike, offsets_mm, stack
from oncontour.volume import Volume

__all__ = ["AIR_HU", "SeriesFiles", "read_series", "scan"]

Array = NDArray[Any]
AIR_HU = -1024
"""What voxels without a measurement hold in a CT."""


def read_series(
    folder: Path | str | SeriesFiles, *, series_uid: str | None = None, modality: str | None = None
) -> tuple[Volume, DicomSource, tuple[str, ...]]:
    """One CT or MR series as a Volume (HU; scanner units for MR), its DICOM identity, and notes on what was dropped or resampled."""
    series = folder if isinstance(folder, SeriesFiles) else choose(scan(folder), str(folder), series_uid, modality)
    where = f"series {series.series_uid}"
    planes = [plane for file in series.files for plane in planes_of(file)]
    check_alike(planes, where)
    offsets = offsets_mm(planes)
    planes = [planes[n] for n in np.argsort(offsets, kind="stable")]
    laid = stack(planes, where)
    array = _voxels(planes, laid, series.modality)
    return Volume(array, laid.geometry), _source(series, planes), laid.notes


def choose(found: Sequence[SeriesFiles], where: str, series_uid: str | None, modality: str | None) -> SeriesFiles:
    images = [s for s in found if s.kind == "image"]
    wanted = [s for s in images if (series_uid in (None, s.series_uid)) and modality in (None, s.modality)]
    if modality is None and series_uid is None and any(s.modality == "CT" for s in wanted):
        wanted = [s for s in wanted if s.modality == "CT"]
    if len(wanted) == 1:
        return wanted[0]
    raise SeriesError(f"{len(wanted)} series", where=where)


def _voxels(planes: Sequence[Plane], laid: Stack, modality: str) -> Array:
    out = np.empty(laid.geometry.shape, np.int16)
    for plane, k in zip(planes, laid.index, strict=True):
        out[k] = stored_values(plane) * plane.slope + plane.intercept
    return out


def _source(series: SeriesFiles, planes: Sequence[Plane]) -> DicomSource:
    one, file = planes[0], planes[0].file
    texts = [{k: v for k in names if (v := file.text(k))} for names in (PATIENT_KEYWORDS, STUDY_KEYWORDS, SERIES_KEYWORDS)]
    return DicomSource(
        modality=series.modality,
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        frame_of_reference_uid=series.frame_of_reference_uid,
        slices=tuple(SliceRef(p.file.sop_class_uid, p.file.plain("SOPInstanceUID"), tuple(p.position_mm.tolist())) for p in planes),
        rows=one.rows,
        columns=one.columns,
        pixel_spacing_mm=one.spacing_mm,
        row=tuple(one.row.tolist()),
        column=tuple(one.column.tolist()),
        patient_position=file.plain("PatientPosition") or "HFS",
        patient=MappingProxyType(texts[0]),
        study=MappingProxyType(texts[1]),
    )
