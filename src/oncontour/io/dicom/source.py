"""What DICOM needs to write results back: kept in ``Case.source``, opaque to everyone but ``io``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.contours import Slices
from oncontour.errors import StructureError

SAME_FRAME_WAY = (
    "where an export rewrote the UIDs of one patient, --same_frame of oncontour assess, convert, dvh, risk, run and structures takes them"
    " (a patient of a cohort: convert it first, images and structures in one folder)"
)
"""The way out where structures name another frame of reference than the images."""


@dataclass(frozen=True)
class SliceRef:
    """One image of a series: what a contour in its plane refers to."""

    sop_class_uid: str
    sop_instance_uid: str
    position_mm: tuple[float, float, float]
    """ImagePositionPatient: LPS mm of the centre of the first voxel."""
    frame: int | None = None
    """Frame number from 1 within a multi-frame image, None in an image of its own."""


@dataclass(frozen=True)
class DicomSource:
    """Identity and true slice positions of the series that a case's grid came from.

    ``slices`` run along ``normal`` as the DICOM files give them, uneven gaps and all; the case's grid may be finer (uneven spacing) or
    upright (tilt). ``row``/``column``: ImageOrientationPatient, the LPS direction of growing column index i, and of growing row index j.
    ``patient``, ``study`` and ``series`` hold module attributes, keyword -> value as text, the first two to be copied into what is written.
    """

    modality: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    slices: tuple[SliceRef, ...]
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float]
    """(between rows, between columns), as PixelSpacing."""
    row: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column: tuple[float, float, float] = (0.0, 1.0, 0.0)
    patient_position: str = "HFS"
    patient: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    study: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    series: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    frame_is_made: bool = False
    """Whether the images name no frame of reference, and ``frame_of_reference_uid`` was made for what is written with them."""

    @property
    def frame_told(self) -> str:
        """The frame of reference that the images name, "none" where they name none: what messages show."""
        return "none" if self.frame_is_made else self.frame_of_reference_uid

    def __reduce__(self) -> tuple[object, ...]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return _rebuild, ({name: dict(v) if isinstance(v, Mapping) else v for name, v in values.items()},)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal of the slice planes, row x column."""
        return np.cross(np.asarray(self.row), np.asarray(self.column))

    @property
    def offsets_mm(self) -> NDArray[np.float64]:
        """Position of each slice along ``normal``."""
        return np.array([s.position_mm for s in self.slices]) @ self.normal


def _rebuild(values: dict[str, Any]) -> DicomSource:
    """A source back from another process: the read-only mappings that it holds cannot be pickled as they are."""
    frozen: dict[str, Any] = {name: MappingProxyType(v) if isinstance(v, dict) else v for name, v in values.items()}
    return DicomSource(**frozen)


def source_of(case: Case, what: str) -> DicomSource:
    """The DICOM images that ``case`` was read from, for ``what`` is to be written. Raises StructureError where it was read from none."""
    if not isinstance(case.source, DicomSource):
        what = f"{what} refers to DICOM images, and this case was not read from any"
        raise StructureError(what, where=f"case {case.id}", hint="write the images as DICOM first, with oncontour convert")
    return case.source


def another_frame(theirs: str, ours: str, where: str, hint: str) -> StructureError:
    """The error of structures that lie in frame of reference ``theirs``, which is not that of the images."""
    return StructureError(f"the structures lie in frame of reference {theirs}, the images in {ours}", where=where, hint=hint)


def slices_of(source: DicomSource) -> Slices:
    """The image planes of ``source`` as the rasteriser and the tracer want them."""
    return Slices(
        np.array([one.position_mm for one in source.slices], dtype=np.float64),
        np.asarray(source.row, dtype=np.float64),
        np.asarray(source.column, dtype=np.float64),
        source.pixel_spacing_mm,
        (source.rows, source.columns),
    )
