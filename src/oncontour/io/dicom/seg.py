"""DICOM Segmentation and Label Map Segmentation objects to masks, and back (written through highdicom, one bit a voxel).

Sources: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20 (segmentation modules), C.7.6.16 (functional groups); PS3.16 CID 7150, 7151 (codes).
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import ON_GRID_MM, Floats, Geometry, rounding_mm
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, InputError, LimitError, SeriesError, StructureError
from oncontour.files import writing
from oncontour.io.dicom.attributes import set_attributes
from oncontour.io.dicom.dicomfile import EXPLICIT_BIG, MAX_VOXELS, NATIVE, DicomFile, Header
from oncontour.io.dicom.dicomparse import opening, read_header
from oncontour.io.dicom.encapsulated import LOSSY, check_shrunk
from oncontour.io.dicom.pixels import stored_values
from oncontour.io.dicom.plane import PixelFormat, Plane
from oncontour.io.dicom.source import DicomSource, SliceRef
from oncontour.io.dicom.stack import common_step, even_places
from oncontour.io.image.layout import map_names
from oncontour.sides import side_of

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
"""SegmentationType (C.8.20.2.3)."""
_NO_SEGMENT = -1
"""Segment number of a frame of a label map that holds background alone: it tells that its slice is empty."""
MAX_FRAMES = 200_000
_SAME_STEP_MM = 0.02
"""Distances of slices nearer than this are the same."""
_NO_STEP_MM = 1e-3
_PARALLEL = 1e-4
"""Cosine below which a direction counts as lying in a plane."""
_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "SegmentationType", "MaximumFractionalValue", "SegmentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    "PixelPaddingValue",
)
_CODES = {
    "Brain": "Brain", "Brainstem": "BrainStem", "SpinalCord": "SpinalCord", "Esophagus": "Esophagus", "Larynx": "Larynx",
    "Bone_Mandible": "Mandible", "Parotid": "ParotidGland", "Lung": "Lung", "Heart": "Heart", "Kidney": "Kidney", "Liver": "Liver",
    "Bladder": "Bladder", "Prostate": "Prostate", "Rectum": "Rectum", "Stomach": "Stomach", "Spleen": "Spleen", "Trachea": "Trachea",
    "Glnd_Thyroid": "ThyroidGland", "Glnd_Submand": "SubmandibularGland", "Eye": "Eye", "Femur": "Femur", "Pancreas": "Pancreas",
}  # fmt: skip
"""TG-263 name without its side -> SNOMED CT concept as pydicom's dictionary calls it; anything else is an anatomical structure."""
_TARGETS = {"GTV": "GrossTumorVolume", "CTV": "ClinicalTargetVolume", "PTV": "PlanningTargetVolume"}


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
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    file = read_header(path, _KEYWORDS)
    if file is None or file.sop_class_uid not in (SEGMENTATION, LABEL_MAP):
        raise StructureError("not a DICOM Segmentation", where=str(path))
    try:
        return _segments(file, geometry, source)
    except SeriesError as error:
        raise StructureError(error.what, where=error.where) from error


def write_seg(masks: Mapping[str, Volume], path: Path | str, *, source: DicomSource, algorithm: str = "") -> Path:
    """Write bool ``masks``, all on one grid, as one BINARY SEG that refers to the images of ``source``; gives the path back.

    SegmentLabel is the mask's name, coded where a code is known. ``algorithm``: what made the masks; "" says that a person did.
    Raises StructureError where there is no mask, or they lie on different grids; OutputError where it cannot be written.
    """
    path = Path(path)
    names = list(masks)
    if not names:
        raise StructureError("no mask to write", where=str(path))
    grid = masks[names[0]].geometry
    for name in names:
        if difference := grid.difference(masks[name].geometry):
            what = f"mask {name!r} lies on another grid than {names[0]!r}: {difference}"
            raise StructureError(what, where=str(path), hint="bring both onto one grid first")
    if np.cross(grid.axes[2], grid.axes[1]) @ grid.axes[0] < 0:
        grid = grid.reorient(grid.axes * [[-1.0], [1.0], [1.0]])
    stacked = np.stack([masks[name].binary().to(grid).array for name in names], axis=-1).astype(np.uint8)
    segmentation = _segmentation(stacked, grid, names, source, algorithm)
    with writing(path) as temporary:
        segmentation.save_as(temporary)
    return path


# ---- reading


@dataclass(frozen=True, eq=False)
class _Frames:
    """Of each frame: segment number and position; of all: orientation and voxel size (None where the file does not say)."""

    segment: NDArray[np.int64]
    position_mm: Floats
    row: Floats
    column: Floats
    spacing_mm: tuple[float, float]
    between_mm: float | None
    thickness_mm: float | None


def what_is_read(path: Path) -> tuple[object, ...]:
    """What a SEG file says: segments, where their frames lie, and voxels (C.8.20; their SHA-256), to be compared with that of a copy."""
    file = read_header(path, _KEYWORDS)
    if file is None:
        raise StructureError("not a DICOM Segmentation", where=str(path))
    content = _content(file)
    labels, kind, frames, pixels, (rows, columns) = content.labels, content.kind, content.frames, content.pixels, content.size
    voxels = hashlib.sha256()
    for n in range(len(frames.segment)):
        voxels.update(np.packbits(pixels(n)).tobytes())
    places = (frames.segment.tolist(), (frames.position_mm + 0.0).tolist(), (frames.row + 0.0).tolist(), (frames.column + 0.0).tolist())
    sizes = (rows, columns, frames.spacing_mm, frames.between_mm, frames.thickness_mm)
    return file.plain("FrameOfReferenceUID"), kind, labels, places, sizes, voxels.digest()


def planes_drawn(path: Path) -> tuple[Floats, Floats]:
    """Where the frames of a SEG lie that hold voxels (n, 3), LPS mm, and the normal of all. Raises what ``read_seg`` raises."""
    file = read_header(path, _KEYWORDS)
    if file is None or file.sop_class_uid not in (SEGMENTATION, LABEL_MAP):
        raise StructureError("not a DICOM Segmentation", where=str(path))
    try:
        content = _content(file)
        held = [n for n in range(len(content.frames.segment)) if content.pixels(n).any()]
    except SeriesError as error:
        raise StructureError(error.what, where=error.where) from error
    return content.frames.position_mm[held], np.cross(content.frames.row, content.frames.column)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where frames go: ``sheet``, of each frame the plane that it is drawn on (-1: left out), and ``shares`` (planes, k), what part of each
    slice of ``grid`` a plane fills; None where the planes are the slices."""

    grid: Geometry
    sheet: NDArray[np.int64]
    shares: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Content:
    """What a file holds: segment number -> label, SegmentationType, (rows, columns), frames, and what gives one frame as bool."""

    labels: dict[int, str]
    kind: str
    size: tuple[int, int]
    frames: _Frames
    pixels: Callable[[int], NDArray[np.bool_]]


def _content(file: DicomFile) -> _Content:
    kind = file.plain("SegmentationType")
    if kind not in KINDS:
        raise StructureError(f"SegmentationType is {kind or 'missing'}; {', '.join(KINDS)} are read", where=file.where)
    labels = _labels(file, file.binary("PixelPaddingValue") if kind == "LABELMAP" else None)
    rows, columns = file.binary("Rows"), file.binary("Columns")
    frames = _frames(file, numbered=kind != "LABELMAP")
    if not rows or not columns or rows * columns * len(frames.segment) > MAX_VOXELS:
        raise LimitError(
            f"{len(frames.segment)} frames of {rows} x {columns} voxels; at most {MAX_VOXELS} voxels are read", where=file.where
        )
    if kind == "LABELMAP":
        frames, pixels = _by_label(file, frames, (rows, columns), labels)
        return _Content(labels, kind, (rows, columns), frames, pixels)
    return _Content(labels, kind, (rows, columns), frames, _pixels(file, frames, rows, columns, kind))


def _by_label(
    file: DicomFile, frames: _Frames, size: tuple[int, int], labels: Mapping[int, str]
) -> tuple[_Frames, Callable[[int], NDArray[np.bool_]]]:
    """A label map (C.8.20.2.3, LABELMAP) as frames of one segment each, as the other kinds have them, and what gives one of those.

    Raises StructureError where two frames lie in one place, or voxels have a value that is no segment; FormatError for values that are not
    whole or went through a lossy compression.
    """
    allocated = file.binary("BitsAllocated")
    if allocated not in (8, 16):
        raise FormatError(f"BitsAllocated of a label map is {allocated}; 8 and 16 are read", where=file.where)
    if file.transfer_syntax_uid in LOSSY:
        what = "a label map in a compression that loses digits: its values may be other labels than were meant"
        raise FormatError(what, where=file.where, hint="export it uncompressed")
    offsets = np.sort(frames.position_mm @ np.cross(frames.row, frames.column))
    if len(offsets) > 1 and np.diff(offsets).min() <= ON_GRID_MM:
        raise StructureError("two frames of a label map lie in one place", where=file.where, hint="export segments that overlap as SEG")
    sheets = np.stack([stored_values(_plane(file, frames, n, size, allocated)) for n in range(len(frames.segment))])
    padding = file.binary("PixelPaddingValue")
    background = 0 if padding is None and 0 not in labels else padding
    owner: list[int] = []
    number: list[int] = []
    for n, sheet in enumerate(sheets):
        there = [int(value) for value in np.unique(sheet) if value != background]
        stray = [value for value in there if value not in labels]
        if stray:
            raise StructureError(f"voxels of value {stray[0]} in frame {n + 1}, which is no segment of {sorted(labels)}", where=file.where)
        owner += [n] * max(len(there), 1)
        number += there or [_NO_SEGMENT]
    split = replace(frames, segment=np.array(number), position_mm=frames.position_mm[owner])
    return split, lambda n: np.asarray(sheets[owner[n]] == number[n]) & (number[n] != _NO_SEGMENT)


def _segments(file: DicomFile, geometry: Geometry | None, source: DicomSource | None) -> Segments:
    content = _content(file)
    labels, frames, pixels = content.labels, content.frames, content.pixels
    layout = _on_uneven_slices(frames, content.size, source, file.where) or _on_own_grid(frames, content.size, geometry, file.where)
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


def _mask(chosen: NDArray[np.intp], layout: _Layout, pixels: Any) -> Volume:
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


def _labels(file: DicomFile, background: int | None = None) -> dict[int, str]:
    """Segment number -> its label, made different where two are the same; without the segment that is the ``background`` of a label map."""
    labels: dict[int, str] = {}
    for item in file.items("SegmentSequence"):
        number = item.binary("SegmentNumber")
        if number is None or number in labels:
            raise StructureError(f"SegmentNumber {number} is missing or there twice", where=item.where)
        if number == background:
            continue
        label = item.text("SegmentLabel") or f"Segment {number}"
        labels[number] = label if label not in labels.values() else f"{label} ({number})"
    if not labels:
        raise StructureError("a SEG without segments", where=file.where)
    return labels


def _frames(file: DicomFile, *, numbered: bool) -> _Frames:
    """Where the frames lie and, where each is ``numbered``, which segment it is of."""
    count = file.whole("NumberOfFrames") or 1
    if not 1 <= count <= MAX_FRAMES:
        raise LimitError(f"NumberOfFrames {count}, at most {MAX_FRAMES} are read", where=file.where)
    shared = file.first("SharedFunctionalGroupsSequence")
    each = list(file.items("PerFrameFunctionalGroupsSequence"))
    if len(each) != count or shared is None:
        raise StructureError(f"{count} frames but {len(each)} items in PerFrameFunctionalGroupsSequence", where=file.where)
    levels = (each[0], shared)
    orientation = np.array(_group(levels, "PlaneOrientationSequence").numbers("ImageOrientationPatient", 6))
    measures = _group(levels, "PixelMeasuresSequence")
    spacing = measures.numbers("PixelSpacing", 2)
    between, thickness = (abs(measures.number(name) or 0.0) for name in ("SpacingBetweenSlices", "SliceThickness"))
    if len(orientation) != 6 or not spacing or min(spacing) <= 0:
        raise StructureError("ImageOrientationPatient or PixelSpacing is missing", where=file.where)
    numbers = [0] * count
    if numbered:
        numbers = [_group((item, shared), "SegmentIdentificationSequence").binary("ReferencedSegmentNumber") or 0 for item in each]
    positions = [_group((item, shared), "PlanePositionSequence").numbers("ImagePositionPatient", 3) for item in each]
    if not all(len(p) == 3 for p in positions):
        raise StructureError("a frame without ImagePositionPatient", where=file.where)
    row, column = (v / max(float(np.linalg.norm(v)), 1e-9) for v in (orientation[:3], orientation[3:]))
    return _Frames(
        *(np.array(numbers), np.array(positions), row, column, (spacing[0], spacing[1])),
        between if between > _NO_STEP_MM else None,
        thickness if thickness > _NO_STEP_MM else None,
    )


def _group(levels: Sequence[Header], keyword: str) -> Header:
    for level in levels:
        found = level.first(keyword)
        if found is not None:
            return found
    raise StructureError(f"{keyword} is missing", where=levels[0].where)


def _on_own_grid(frames: _Frames, size: tuple[int, int], images: Geometry | None, where: str) -> _Layout:
    """The regular grid that every frame lies on."""
    normal = np.cross(frames.row, frames.column)
    offsets = frames.position_mm @ normal
    _refuse_aside(frames, normal, where)
    along = offsets - offsets.min()
    _, single = np.unique(np.round(along, 3), return_index=True)
    gaps = np.diff(along[single])
    gaps = gaps[gaps > ON_GRID_MM]
    on = None if images is None else _slices_of_grid(offsets, normal, images)
    for step in _likely_steps(frames, gaps, on):
        sheet = np.rint(along / step)
        off = along - sheet * step
        middle, farthest = (off.max() + off.min()) / 2, (off.max() - off.min()) / 2
        if farthest <= max(_rounding_mm(step), _SAME_STEP_MM * float(sheet.max()) / 100):
            first = frames.position_mm[int(np.argmin(offsets))] + (normal * middle if farthest > _NO_STEP_MM else 0.0)
            grid = _grid(frames, size, int(sheet.max()) + 1, normal * step, first)
            return _Layout(grid, sheet.astype(np.int64), notes=(*_apart(gaps, step), *_coarser(frames, on, step)))
    raise StructureError("frames are unevenly spaced and fit no regular grid", where=where)


def _likely_steps(frames: _Frames, gaps: Floats, on: tuple[float, NDArray[np.int64]] | None) -> Iterator[float]:
    """How far slices may lie apart, the most likely first; ``gaps``: between neighbouring frames; ``on``: the images' step, and the slice
    of each frame. SliceThickness is no distance (PS3.3 C.7.6.16.2.1): it counts where it agrees with the frames or the images, or nothing
    else tells. Frames as thick as the images are slices of theirs, and those left out are empty, however regularly."""
    from oncontour.raster.planes import WIDEST_SPACING_MM, drawn_every

    if frames.between_mm:
        yield frames.between_mm
    if len(gaps) and frames.thickness_mm and abs(gaps.min() - frames.thickness_mm) <= 2 * _rounding_mm(frames.thickness_mm):
        yield _mean_step(gaps)
    if on is not None and frames.between_mm is None:
        step, index = on
        every = drawn_every(np.unique(index))
        as_images = frames.thickness_mm is not None and abs(frames.thickness_mm - step) <= _SAME_STEP_MM
        if not as_images and every * step <= WIDEST_SPACING_MM:
            yield every * step
        yield step
    if len(gaps) and (gaps.min() <= WIDEST_SPACING_MM or frames.thickness_mm is None):
        yield _mean_step(gaps)
    elif frames.thickness_mm:
        yield frames.thickness_mm
    yield _mean_step(gaps) if len(gaps) else min(frames.spacing_mm)


def _mean_step(gaps: Floats) -> float:
    """The least gap, as exactly as all of them together tell where they are whole multiples of it but for rounding."""
    index = np.cumsum(np.rint(gaps / gaps[gaps < 1.5 * gaps.min()].mean()))
    return float(np.cumsum(gaps) @ index / (index @ index))


def _rounding_mm(step: float) -> float:
    """How far a frame may lie off its slice: as images of that ``step`` may and count as even (``io.dicom.stack``)."""
    return rounding_mm(step) + 1e-6


def _slices_of_grid(offsets: Floats, normal: Floats, images: Geometry) -> tuple[float, NDArray[np.int64]] | None:
    """(step along ``normal``, slice of each offset) where all offsets lie on slices of ``images``, None where they do not."""
    cosine = np.abs(images.axes @ normal)
    across = int(cosine.argmax())
    if np.delete(cosine, across).max() > _PARALLEL:
        return None
    step = images.spacing_mm[across]
    at = (offsets - normal @ images.affine[:3, 3]) / step
    return (step, np.rint(at).astype(np.int64)) if np.abs(at - np.rint(at)).max() * step <= _rounding_mm(step) else None


def _apart(gaps: Floats, step: float) -> tuple[str, ...]:
    """A note where no two frames lie on neighbouring slices: these may be lone slices, or the spacing in the file is wrong."""
    if not len(gaps) or gaps.min() < 1.5 * step:
        return ()
    return (f"no two frames of the segments lie nearer than {gaps.min():.4g} mm, their slices {step:.4g} mm apart: empty between them",)


def _coarser(frames: _Frames, on: tuple[float, NDArray[np.int64]] | None, step: float) -> tuple[str, ...]:
    """A note where frames are taken to stand for images between them, though the file does not say how far its slices lie apart."""
    every = 1 if on is None or frames.between_mm else round(step / on[0])
    return (f"segments are drawn on one slice in {every}: each frame is taken to reach half-way to the next",) if every > 1 else ()


def _refuse_aside(frames: _Frames, normal: Floats, where: str) -> None:
    away = frames.position_mm - frames.position_mm[0]
    aside = np.abs(away - np.outer(away @ normal, normal))
    if aside.max() > ON_GRID_MM:
        raise StructureError(f"frames lie up to {aside.max():.3g} mm beside each other", where=where, hint="export it on one grid")


def _grid(frames: _Frames, size: tuple[int, int], depth: int, step: Floats, first: Floats) -> Geometry:
    """``depth`` slices with the frames' pixels: the first pixel of the first at ``first``, each ``step`` (x, y, z) from the one before."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, frames.column * frames.spacing_mm[0], frames.row * frames.spacing_mm[1]
    affine[:3, 3] = first
    return Geometry((depth, *size), affine)


# ---- frames on slices that are uneven


def _on_uneven_slices(frames: _Frames, size: tuple[int, int], source: DicomSource | None, where: str) -> _Layout | None:
    """Each frame in the slab that its slice stands for, on the finer grid that the slices of ``source`` lie on. None where they are even,
    or the frames are slices of that grid themselves."""
    from oncontour.io.dicom.rtstruct_read import slices_of
    from oncontour.raster.planes import nearest_of

    slices = None if source is None else slices_of(source)
    if slices is None or max(abs(frames.row @ slices.normal), abs(frames.column @ slices.normal)) > _PARALLEL:
        return None
    if even_places(slices.origins_mm, slices.normal) is not None:
        return None
    found = common_step(slices.offsets_mm)
    if found is None:
        raise StructureError("the slices of the images are uneven and lie on no regular grid", where=where)
    step, index = found
    offsets = frames.position_mm @ slices.normal
    sheet = nearest_of(offsets, slices.offsets_mm)
    on = np.abs(offsets - slices.offsets_mm[sheet]) <= rounding_mm(step)
    if _are_slices_of_grid(frames, offsets, np.where(on, sheet, -1), slices.offsets_mm, index, step):
        return None
    _refuse_aside(frames, slices.normal, where)
    edges = (slices.slabs_mm - slices.offsets_mm[0]) / step
    k = np.arange(int(index[-1]) + 1)
    shares = np.clip(np.minimum(edges[:, 1:], k + 0.5) - np.maximum(edges[:, :1], k - 0.5), 0, 1)
    shares[shares < 1e-4] = 0
    first = frames.position_mm[0] + slices.normal * (slices.offsets_mm[0] - offsets[0])
    notes = ["segments were drawn on the uneven slices of the images: each frame reaches half-way to the next slice"]
    if not on.all():
        notes.append(f"{int((~on).sum())} frames of the segments lie beyond the images: left out")
    grid = _grid(frames, size, len(k), slices.normal * step, first)
    return _Layout(grid, np.where(on, sheet, -1), shares.astype(np.float32), tuple(notes))


def _are_slices_of_grid(
    frames: _Frames, offsets: Floats, sheet: NDArray[np.int64], slices: Floats, index: NDArray[np.intp], step: float
) -> bool:
    """Whether the segments have the finer grid's slices rather than the image's: a frame lies between images, or the file says that its
    slices are a step of that grid apart and no segment goes on from one image to the next while what lies between is left out."""
    inside = (offsets > slices[0]) & (offsets < slices[-1])
    if (inside & (sheet < 0)).any() or not (sheet >= 0).any():
        return True
    if frames.between_mm is None or abs(frames.between_mm - step) > _SAME_STEP_MM:
        return False
    segments = np.unique(frames.segment[frames.segment != _NO_SEGMENT])
    used = [np.unique(sheet[(frames.segment == number) & (sheet >= 0)]) for number in segments]
    return not any(((np.diff(one) == 1) & (np.diff(index[one]) > 1)).any() for one in used)


def _pixels(file: DicomFile, frames: _Frames, rows: int, columns: int, kind: str) -> Any:
    """A function that gives one frame as bool (rows, columns)."""
    count, allocated = len(frames.segment), file.binary("BitsAllocated")
    if allocated == 1:
        return _bits(file, count, rows, columns)
    if allocated != 8:
        raise FormatError(f"BitsAllocated is {allocated}; 1 and 8 are read", where=file.where)
    check_shrunk([file], file.where)
    half = (file.binary("MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 0.5

    def frame(n: int) -> NDArray[np.bool_]:
        return np.asarray(stored_values(_plane(file, frames, n, (rows, columns), 8)) >= half)

    return frame


def _plane(file: DicomFile, frames: _Frames, n: int, size: tuple[int, int], bits: int) -> Plane:
    """Frame ``n`` of the file, of whole ``bits`` without a sign."""
    where = (frames.position_mm[n], frames.row, frames.column, frames.spacing_mm)
    return Plane(file, n, len(frames.segment), *where, *size, 1.0, 0.0, PixelFormat(bits, bits, bits - 1, False))


def _bits(file: DicomFile, count: int, rows: int, columns: int) -> Any:
    """Frames of single bits, which follow each other without padding (PS3.5 8.1.1)."""
    size, need = rows * columns, (count * rows * columns + 7) // 8
    if file.pixels is None or file.transfer_syntax_uid not in NATIVE:
        raise FormatError("no uncompressed pixel data: the file is cut short or compressed", where=file.where)
    if file.transfer_syntax_uid == EXPLICIT_BIG:  # whether the bits lie in words or in bytes is told by a VR that writers get wrong
        raise FormatError("single bits in big endian, retired from DICOM in 2006", where=file.where, hint="convert it with dcmconv +te")
    with opening(file) as stream:
        stream.seek(file.pixels.offset)
        content = np.frombuffer(stream.read(need), np.uint8)
    if len(content) < need:
        raise FormatError(f"{len(content)} bytes of pixel data where {count} frames need {need}: cut short", where=file.where)

    def frame(n: int) -> NDArray[np.bool_]:
        first, last = n * size // 8, ((n + 1) * size + 7) // 8
        bits = np.unpackbits(content[first:last], bitorder="little")
        start = n * size - first * 8
        return bits[start : start + size].reshape(rows, columns).astype(bool)

    return frame


# ---- writing


def _segmentation(stacked: NDArray[np.uint8], grid: Geometry, names: list[str], source: DicomSource, algorithm: str) -> Any:
    import highdicom as hd
    from pydicom.uid import generate_uid

    positions = [hd.PlanePositionSequence("PATIENT", p.tolist()) for p in grid.points([(k, 0, 0) for k in range(grid.shape[0])])]
    with _quiet():
        try:
            segmentation = hd.seg.Segmentation(
                source_images=_images(source, grid.spacing_mm[0]),
                pixel_array=stacked,
                segmentation_type="BINARY",
                segment_descriptions=[_description(n + 1, name, algorithm) for n, name in enumerate(names)],
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
    return segmentation


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


def _images(source: DicomSource, thickness_mm: float) -> list[Any]:
    """The images of ``source`` as highdicom wants to see them: identity and plane, no pixels."""
    from pydicom.valuerep import format_number_as_ds as ds

    directions = [ds(float(v)) for v in (*source.row, *source.column)]
    spacing = [ds(float(v)) for v in source.pixel_spacing_mm]
    if source.slices[0].frame is not None:
        return [_multiframe(source, directions, spacing, ds(thickness_mm))]
    out = []
    for one in source.slices:
        d = _identity(source, one)
        d.PixelSpacing, d.SliceThickness, d.ImageOrientationPatient = spacing, ds(thickness_mm), directions
        d.ImagePositionPatient = [ds(float(v)) for v in one.position_mm]
        out.append(d)
    return out


def _identity(source: DicomSource, one: SliceRef) -> Any:
    from pydicom.dataset import Dataset

    d = Dataset()
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(d, name, "")
    d.ReferringPhysicianName = ""
    set_attributes(d, {**source.study, **source.patient})
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = one.sop_class_uid, one.sop_instance_uid, source.modality
    d.StudyInstanceUID, d.SeriesInstanceUID = source.study_uid, source.series_uid
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = source.frame_of_reference_uid, ""
    d.Rows, d.Columns = source.rows, source.columns
    return d


def _multiframe(source: DicomSource, directions: list[Any], spacing: list[Any], thickness: Any) -> Any:
    """All slices as frames of one image. Raises StructureError where they are several images, or not all frames of one."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import format_number_as_ds as ds

    def group(keyword: str, **values: Any) -> Dataset:
        item, outer = Dataset(), Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(outer, keyword, [item])
        return outer

    frames = sorted(source.slices, key=lambda one: one.frame or 0)
    alone = len({one.sop_instance_uid for one in frames}) == 1
    if not alone or [one.frame for one in frames] != list(range(1, len(frames) + 1)):
        raise StructureError("a SEG can refer to one multi-frame image with all of its frames, and the images are others")
    d = _identity(source, frames[0])
    d.NumberOfFrames = len(frames)
    shared = group("PlaneOrientationSequence", ImageOrientationPatient=directions)
    shared.update(group("PixelMeasuresSequence", PixelSpacing=spacing, SliceThickness=thickness))
    d.SharedFunctionalGroupsSequence = [shared]
    d.PerFrameFunctionalGroupsSequence = [
        group("PlanePositionSequence", ImagePositionPatient=[ds(float(v)) for v in one.position_mm]) for one in frames
    ]
    return d


def _description(number: int, name: str, algorithm: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    target = re.match(r"I?(GTV|CTV|PTV)", name)
    side = side_of(name)
    base = name.removesuffix(f"_{side}")
    if target:
        category, kind = codes.SCT.SpatialAndRelationalConcept, _target_code(target[1])
    else:
        category = codes.SCT.AnatomicalStructure
        kind = getattr(codes.SCT, _CODES[base]) if base in _CODES else codes.SCT.AnatomicalStructure
    how = None
    if algorithm:
        family = codes.DCM.ArtificialIntelligence
        how = hd.AlgorithmIdentificationSequence(name=algorithm[:64], family=family, version="1")
    described = hd.seg.SegmentDescription(number, name[:64], category, kind, "AUTOMATIC" if algorithm else "MANUAL", how)
    if side:
        code = codes.SCT.Left if side == "L" else codes.SCT.Right
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(code)]
    return described


def _target_code(kind: str) -> Any:
    from pydicom.sr.codedict import codes

    for scheme in (codes.SCT, codes.DCM, codes.NCIt):
        if hasattr(scheme, _TARGETS[kind]):
            return getattr(scheme, _TARGETS[kind])
    return codes.SCT.AnatomicalStructure
