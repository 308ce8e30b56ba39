"""Masks as a DICOM Segmentation, one bit a voxel, through highdicom.

Sources: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20 (segmentation modules); PS3.16 CID 7150, 7151, 244 (codes).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds as ds

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import StructureError
from oncontour.files import writing
from oncontour.io.dicom.attributes import fitted, inherit, item_of, new_object
from oncontour.io.dicom.source import DicomSource, SliceRef
from oncontour.libraries import need
from oncontour.sides import side_of

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

_CODES = {
    "Brain": "Brain", "Brainstem": "BrainStem", "SpinalCord": "SpinalCord", "Esophagus": "Esophagus", "Larynx": "Larynx",
    "Bone_Mandible": "Mandible", "Parotid": "ParotidGland", "Lung": "Lung", "Heart": "Heart", "Kidney": "Kidney", "Liver": "Liver",
    "Bladder": "Bladder", "Prostate": "Prostate", "Rectum": "Rectum", "Stomach": "Stomach", "Spleen": "Spleen", "Trachea": "Trachea",
    "Glnd_Thyroid": "Thyroid", "Glnd_Submand": "SubmandibularGland", "Eye": "Eye", "Femur": "Femur", "Pancreas": "Pancreas",
}  # fmt: skip
"""TG-263 name without its side -> SNOMED CT concept as pydicom's dictionary calls it; anything else is an anatomical structure."""
_TARGETS = {"GTV": "GrossTumorVolume", "CTV": "ClinicalTargetVolume", "PTV": "PlanningTargetVolume"}


def check_installed() -> None:
    """Raise ConfigError where highdicom, which writes Segmentations, is not installed."""
    need("highdicom", "a DICOM Segmentation")


def write_seg(
    masks: Mapping[str, Volume], path: Path | str, *, source: DicomSource, algorithm: str = "", names: Mapping[str, str] | None = None
) -> Path:
    """Write bool ``masks`` by TG-263 name, all on one grid, as one BINARY SEG that refers to the images of ``source``; gives the path back.

    SegmentLabel is what ``names`` calls the mask, else its name; it is coded where a code is known. ``algorithm``: what made the masks; ""
    says that a person did. Raises ConfigError where highdicom is not installed, StructureError where there is no mask, or they lie on
    different grids; OutputError where it cannot be written.
    """
    check_installed()
    path = Path(path)
    if not masks:
        raise StructureError("no mask to write", where=str(path))
    first, grid = next((name, mask.geometry) for name, mask in masks.items())
    for name, mask in masks.items():
        if difference := grid.difference(mask.geometry):
            what = f"mask {name!r} lies on another grid than {first!r}: {difference}"
            raise StructureError(what, where=str(path), hint="bring both onto one grid first")
    if np.cross(grid.axes[2], grid.axes[1]) @ grid.axes[0] < 0:
        grid = grid.reorient(grid.axes * [[-1.0], [1.0], [1.0]])
    stacked = np.stack([mask.binary().to(grid).array for mask in masks.values()], axis=-1).astype(np.uint8)
    segments = [_description(n, name, (names or {}).get(name, name), algorithm) for n, name in enumerate(masks, 1)]
    segmentation = _segmentation(stacked, grid, segments, source)
    inherit(segmentation, source)
    with writing(path) as temporary:
        segmentation.save_as(temporary)
    return path


def _segmentation(stacked: NDArray[np.uint8], grid: Geometry, segments: list[SegmentDescription], source: DicomSource) -> Dataset:
    import highdicom as hd

    positions = [hd.PlanePositionSequence("PATIENT", p.tolist()) for p in grid.points([(k, 0, 0) for k in range(grid.shape[0])])]
    with _quiet():
        try:
            return hd.seg.Segmentation(
                source_images=_images(source, grid.spacing_mm[0]),
                pixel_array=stacked,
                segmentation_type="BINARY",
                segment_descriptions=segments,
                series_instance_uid=str(generate_uid()),
                series_number=1,
                sop_instance_uid=str(generate_uid()),
                instance_number=1,
                manufacturer="oncontour",
                manufacturer_model_name="oncontour",
                software_versions="oncontour",
                device_serial_number="0",
                pixel_measures=hd.PixelMeasuresSequence(list(grid.spacing_mm[1:]), grid.spacing_mm[0], grid.spacing_mm[0]),
                plane_orientation=hd.PlaneOrientationSequence("PATIENT", [*grid.axes[2].tolist(), *grid.axes[1].tolist()]),
                plane_positions=positions,
                content_label="STRUCTURES",
                content_description="Structures",
                series_description="Structures",
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise StructureError(f"the masks cannot be written as a SEG ({error})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without highdicom's remarks: that a structure is empty is no news here."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _images(source: DicomSource, thickness_mm: float) -> list[Dataset]:
    """The images of ``source`` as highdicom wants to see them: identity and plane, no pixels."""
    oriented = item_of(ImageOrientationPatient=[ds(float(v)) for v in (*source.row, *source.column)])
    measured = item_of(PixelSpacing=[ds(float(v)) for v in source.pixel_spacing_mm], SliceThickness=ds(thickness_mm))
    placed = [item_of(ImagePositionPatient=[ds(float(v)) for v in one.position_mm]) for one in source.slices]
    if source.slices[0].frame is not None:
        return [_multiframe(source, oriented, measured, placed)]
    out = []
    for one, place in zip(source.slices, placed, strict=True):
        d = _image(source, one)
        for plane in (oriented, measured, place):
            d.update(plane)
        out.append(d)
    return out


def _image(source: DicomSource, one: SliceRef) -> Dataset:
    d = new_object(one.sop_class_uid, source, one.sop_instance_uid)
    d.Modality, d.SeriesInstanceUID, d.Rows, d.Columns = source.modality, source.series_uid, source.rows, source.columns
    return d


def _multiframe(source: DicomSource, oriented: Dataset, measured: Dataset, placed: list[Dataset]) -> Dataset:
    """All slices as frames of one image. Raises StructureError where they are several images, or not all frames of one."""
    numbers = [one.frame or 0 for one in source.slices]
    alone = len({one.sop_instance_uid for one in source.slices}) == 1
    if not alone or sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise StructureError("a SEG can refer to one multi-frame image with all of its frames, and the images are others")
    d = _image(source, source.slices[0])
    d.NumberOfFrames = len(numbers)
    d.SharedFunctionalGroupsSequence = [item_of(PlaneOrientationSequence=[oriented], PixelMeasuresSequence=[measured])]
    in_order = [place for _, place in sorted(zip(numbers, placed, strict=True), key=lambda pair: pair[0])]
    d.PerFrameFunctionalGroupsSequence = [item_of(PlanePositionSequence=[place]) for place in in_order]
    return d


def _description(number: int, name: str, label: str, algorithm: str) -> SegmentDescription:
    import highdicom as hd

    target = re.match(r"I?(GTV|CTV|PTV)", name)
    side = side_of(name)
    base = name.removesuffix(f"_{side}")
    category = codes.SCT.SpatialAndRelationalConcept if target else codes.SCT.AnatomicalStructure
    kind = getattr(codes.SCT, _TARGETS[target[1]] if target else _CODES.get(base, "AnatomicalStructure"))
    how = None
    if algorithm:
        family = codes.DCM.ArtificialIntelligence
        how = hd.AlgorithmIdentificationSequence(name=fitted("SegmentLabel", algorithm), family=family, version="1")
    described = hd.seg.SegmentDescription(
        number, fitted("SegmentLabel", label) or name, category, kind, "AUTOMATIC" if algorithm else "MANUAL", how
    )
    if side:
        code = codes.SCT.Left if side == "L" else codes.SCT.Right
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(code)]
    return described
