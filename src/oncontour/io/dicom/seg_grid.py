"""On which grid the frames of a DICOM Segmentation lie: a regular one of their own, or the uneven slices of the images they were drawn on.

Source: DICOM PS3.3 C.7.6.16.2.1 (SliceThickness and SpacingBetweenSlices of frames).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import ON_GRID_MM, Floats, Geometry, rounding_mm
from oncontour.errors import StructureError
from oncontour.io.dicom.seg_frames import NO_SEGMENT, NO_STEP_MM, Frames
from oncontour.io.dicom.source import DicomSource, slices_of
from oncontour.io.dicom.stack import common_step, even_places

_SAME_STEP_MM = 0.02
"""Distances of slices nearer than this are the same."""
_PARALLEL = 1e-4
"""Cosine below which a direction counts as lying in a plane."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where frames go: ``sheet``, of each frame the plane that it is drawn on (-1: left out), and ``shares`` (planes, k), what part of each
    slice of ``grid`` a plane fills; None where the planes are the slices."""

    grid: Geometry
    sheet: NDArray[np.int64]
    shares: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()


def layout_of(frames: Frames, size: tuple[int, int], images: Geometry | None, source: DicomSource | None, where: str) -> Layout:
    """Where frames of ``size`` (rows, columns) go, by ``images`` and by those of ``source`` that they were drawn on, where these are known.

    Raises StructureError where they lie on no regular grid.
    """
    return _on_uneven_slices(frames, size, source, where) or _on_own_grid(frames, size, images, where)


def _on_own_grid(frames: Frames, size: tuple[int, int], images: Geometry | None, where: str) -> Layout:
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
            first = frames.position_mm[int(np.argmin(offsets))] + (normal * middle if farthest > NO_STEP_MM else 0.0)
            grid = _grid(frames, size, int(sheet.max()) + 1, normal * step, first)
            return Layout(grid, sheet.astype(np.int64), notes=(*_apart(gaps, step), *_coarser(frames, on, step)))
    raise StructureError("frames are unevenly spaced and fit no regular grid", where=where)


def _likely_steps(frames: Frames, gaps: Floats, on: tuple[float, NDArray[np.int64]] | None) -> Iterator[float]:
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


def _coarser(frames: Frames, on: tuple[float, NDArray[np.int64]] | None, step: float) -> tuple[str, ...]:
    """A note where frames are taken to stand for images between them, though the file does not say how far its slices lie apart."""
    every = 1 if on is None or frames.between_mm else round(step / on[0])
    return (f"segments are drawn on one slice in {every}: each frame is taken to reach half-way to the next",) if every > 1 else ()


def _refuse_aside(frames: Frames, normal: Floats, where: str) -> None:
    away = frames.position_mm - frames.position_mm[0]
    aside = np.abs(away - np.outer(away @ normal, normal))
    if aside.max() > ON_GRID_MM:
        raise StructureError(f"frames lie up to {aside.max():.3g} mm beside each other", where=where, hint="export it on one grid")


def _grid(frames: Frames, size: tuple[int, int], depth: int, step: Floats, first: Floats) -> Geometry:
    """``depth`` slices with the frames' pixels: the first pixel of the first at ``first``, each ``step`` (x, y, z) from the one before."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, frames.column * frames.spacing_mm[0], frames.row * frames.spacing_mm[1]
    affine[:3, 3] = first
    return Geometry((depth, *size), affine)


# ---- frames on slices that are uneven


def _on_uneven_slices(frames: Frames, size: tuple[int, int], source: DicomSource | None, where: str) -> Layout | None:
    """Each frame in the slab that its slice stands for, on the finer grid that the slices of ``source`` lie on. None where they are even,
    or the frames are slices of that grid themselves."""
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
    return Layout(grid, np.where(on, sheet, -1), shares.astype(np.float32), tuple(notes))


def _are_slices_of_grid(
    frames: Frames, offsets: Floats, sheet: NDArray[np.int64], slices: Floats, index: NDArray[np.intp], step: float
) -> bool:
    """Whether the segments have the finer grid's slices rather than the image's: a frame lies between images, or the file says that its
    slices are a step of that grid apart and no segment goes on from one image to the next while what lies between is left out."""
    inside = (offsets > slices[0]) & (offsets < slices[-1])
    if (inside & (sheet < 0)).any() or not (sheet >= 0).any():
        return True
    if frames.between_mm is None or abs(frames.between_mm - step) > _SAME_STEP_MM:
        return False
    segments = np.unique(frames.segment[frames.segment != NO_SEGMENT])
    used = [np.unique(sheet[(frames.segment == number) & (sheet >= 0)]) for number in segments]
    return not any(((np.diff(one) == 1) & (np.diff(index[one]) > 1)).any() for one in used)
