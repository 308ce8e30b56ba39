"""DICOM Segmentation and Label Map Segmentation objects to masks.

Sources: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20 (segmentation modules), C.7.6.16 (functional groups).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import LimitError, SeriesError, StructureError
from oncontour.io.dicom.header import MAX_VOXELS, DicomFile
from oncontour.io.dicom.seg_frames import Pixels, open_seg, read_frames
from oncontour.io.dicom.seg_grid import Layout, layout_of
from oncontour.io.dicom.source import DicomSource
from oncontour.io.image.layout import map_names


@dataclass(frozen=True, eq=False)
class Segments:
    """What a SEG holds: ``masks`` by name, ``names`` (name -> SegmentLabel), labels no TG-263 name is known for, and notes."""

    masks: Mapping[str, Volume]
    names: Mapping[str, str]
    frame_of_reference_uid: str
    unmapped: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_seg(path: Path | str, *, geometry: Geometry | None = None, source: DicomSource | None = None) -> Segments:
    """The segments of a SEG as bool masks on ``geometry`` (copied where its voxels are the SEG's), else on the SEG's own grid.

    FRACTIONAL segments are inside from half of their maximum on; of a label map the voxels of a segment's number, PixelPaddingValue (0
    where the file has none) being background; a segment without frames is an empty mask. A frame is as thick as
    SpacingBetweenSlices says; without it as the slices of ``geometry`` that the frames lie on (every second, where they lie on every second
    throughout and SliceThickness is not how far those slices lie apart), else as the nearest two frames lie apart, and a single one as
    SliceThickness says. ``source``: the images that the segments were drawn on. Where their slices are uneven and the frames lie on them
    alone, each reaches half-way to the next slice, as contours do. Notes say where slices between were filled, or left empty though no two
    frames are neighbours.
    Raises StructureError where frames cannot be placed, FormatError where the file cannot be read, LimitError beyond the limits.
    """
    try:
        return _segments(open_seg(path), geometry, source)
    except SeriesError as error:
        raise StructureError(error.what, where=error.where) from error


def _segments(file: DicomFile, geometry: Geometry | None, source: DicomSource | None) -> Segments:
    content = read_frames(file)
    labels, frames, pixels = content.labels, content.frames, content.pixels
    layout = layout_of(frames, content.size, geometry, source, file.where)
    if layout.grid.size > MAX_VOXELS:
        raise LimitError(f"segments span {layout.grid}; at most {MAX_VOXELS} voxels are read", where=file.where)
    placed = None if geometry is None else geometry.in_place(layout.grid)
    own = placed or layout.grid
    between = () if geometry is None or placed else (f"segments lie on other voxels than the images ({own}): interpolated between them",)
    names, unmapped, notes = map_names(labels.values())
    number = {label: n for n, label in labels.items()}
    masks = {}
    for name, label in names.items():
        mask = _mask(np.flatnonzero(frames.segment == number[label]), layout, pixels)
        masks[name] = Volume(mask.array, own).to(geometry) if geometry else mask
    return Segments(masks, names, file.plain("FrameOfReferenceUID"), unmapped, (*layout.notes, *between, *notes))


def _mask(chosen: NDArray[np.intp], layout: Layout, pixels: Pixels) -> Volume:
    """The segment of these frames."""
    depth = layout.grid.shape[0] if layout.shares is None else len(layout.shares)
    sheets = np.zeros((depth, *layout.grid.shape[1:]), bool)
    for n in chosen:
        if layout.sheet[n] >= 0:
            sheets[layout.sheet[n]] |= pixels(int(n))
    if layout.shares is None:
        return Volume(sheets, layout.grid)
    out = np.zeros(layout.grid.shape, bool)
    for k, share in enumerate(layout.shares.T):
        reaching = np.flatnonzero(share)
        out[k] = sum((share[n] * sheets[n] for n in reaching), np.zeros(out.shape[1:], np.float32)) >= 0.5
    return Volume(out, layout.grid)
