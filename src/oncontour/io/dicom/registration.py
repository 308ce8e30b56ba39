"""Registrations in DICOM: Deformable Spatial Registration written and read, rigid and affine Spatial Registration read.

The two go opposite ways, and both say so in words of their own:

* a **Deformable Spatial Registration** takes a point P of the *Registered* frame of reference (that of the object itself) to
  M_post(M_pre(P) + D(P)) in the *Source* frame: it says where to look in the source image, as a deformation from fixed (Registered) to
  moving (Source) does (PS3.3 C.20.3);
* a **Spatial Registration** holds matrices that take points of *other* frames to the Registered one (PS3.3 C.20.2).

Everything is LPS millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from oncontour.core.geometry import Floats, Geometry
from oncontour.core.resample import ON_GRID, beyond
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, InputError, LimitError
from oncontour.files import writing
from oncontour.io.dicom.attributes import new_object, new_series, save
from oncontour.io.dicom.elements import EXPLICIT_BIG
from oncontour.io.dicom.header import MAX_VOXELS, DicomFile, Header, quiet, read_header
from oncontour.io.dicom.source import DicomSource

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SPATIAL, DEFORMABLE = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "RegistrationSequence", "DeformableRegistrationSequence")
_MOST_BYTES = 12 * MAX_VOXELS + (1 << 20)
"""Of a deformation: one vector for each voxel, and what stands beside them."""
_AGAIN = "export the registration again from the program that made it"


@dataclass(frozen=True, eq=False)
class SpatialRegistration:
    """Where points of several frames of reference lie in one: ``matrices`` (4x4) take points of each frame to ``frame``, by its UID."""

    frame: str
    matrices: Mapping[str, Floats]

    def between(self, fixed: str, moving: str) -> Floats:
        """The 4x4 matrix from points of the frame ``fixed`` to points of ``moving``. Raises InputError for a frame it does not hold."""
        held = {**self.matrices, self.frame: self.matrices.get(self.frame, np.eye(4))}
        for uid in (fixed, moving):
            if uid not in held:
                raise InputError(f"the registration holds the frames {sorted(held)}, not {uid}", hint="give the registration of these two")
        return np.asarray(np.linalg.inv(held[moving]) @ held[fixed])


@dataclass(frozen=True, eq=False)
class DeformableRegistration:
    """A point P of the frame ``registered`` lies at post(pre(P) + D(P)) in the frame ``source``.

    ``pre`` and ``post`` are 4x4. ``vectors`` holds D (3, k, j, i) in mm on a grid in the registered frame, NaN where it is not defined;
    None where the object has matrices alone.
    """

    registered: str
    source: str
    pre: Floats
    post: Floats
    vectors: Volume | None

    def to_source(self, points_mm: ArrayLike) -> Floats:
        """(..., 3) points of the registered frame in the source frame; NaN where the deformation is not defined, as beyond its grid."""
        points = np.asarray(points_mm, dtype=np.float64)
        moved = points @ self.pre[:3, :3].T + self.pre[:3, 3]
        if self.vectors is not None:
            at = np.moveaxis(self.vectors.geometry.voxels(points), -1, 0).reshape(3, -1)
            outside = beyond(at[:, None], self.vectors.geometry.shape)[0]
            parts = [ndimage.map_coordinates(part, at, order=1, mode="nearest", output=np.float64) for part in self._known]
            if len(parts) > 3:
                outside |= parts.pop() > ON_GRID
            moved = moved + np.where(outside, np.nan, np.stack(parts)).T.reshape(points.shape)
        return np.asarray(moved @ self.post[:3, :3].T + self.post[:3, 3])

    @cached_property
    def _known(self) -> NDArray[np.floating]:
        """D (3, k, j, i); where it is not defined somewhere, with 0 there and a fourth part that is 1 there."""
        assert self.vectors is not None
        unknown = np.isnan(self.vectors.array[:1])
        return np.concatenate([np.where(unknown, 0, self.vectors.array), unknown]) if unknown.any() else self.vectors.array

    def displacement(self, grid: Geometry) -> Volume:
        """u (3, k, j, i) in mm on ``grid``: x of the registered frame lies at x + u(x) in the source; NaN where that is not defined."""
        out = np.empty((3, *grid.shape), np.float32)
        for k in range(grid.shape[0]):
            points = grid.points(np.stack(np.meshgrid(k, np.arange(grid.shape[1]), np.arange(grid.shape[2]), indexing="ij"), axis=-1)[0])
            out[:, k] = np.moveaxis(self.to_source(points) - points, -1, 0)
        return Volume(out, grid)


# ---- reading


def read_spatial(path: Path | str) -> SpatialRegistration:
    """The matrices of a Spatial Registration (rigid, scaled or affine), of each frame the product of its matrices in their order.

    Raises FormatError for another object and for what is no matrix of a patient.
    """
    file = _opened(Path(path), SPATIAL, "Spatial Registration")
    matrices: dict[str, Floats] = {}
    for item in file.items("RegistrationSequence"):
        total = np.eye(4)
        for registration in item.items("MatrixRegistrationSequence"):
            for one in registration.items("MatrixSequence"):
                total = _matrix(one) @ total
        uid = item.plain("FrameOfReferenceUID")
        if not uid:
            continue  # of single images without a frame
        if uid in matrices and not np.allclose(matrices[uid], total, atol=1e-4):
            raise FormatError(f"two different matrices for the frame of reference {uid}", where=str(path), hint=_AGAIN)
        matrices[uid] = total
    if not matrices:
        raise FormatError("no matrix between frames of reference", where=str(path), hint=_AGAIN)
    return SpatialRegistration(_frame(file), MappingProxyType(matrices))


def read_deformable(path: Path | str, source: str | None = None) -> DeformableRegistration:
    """The deformation of a Deformable Spatial Registration to the frame ``source`` (default: the only one it holds).

    Raises FormatError for another object or a grid whose bytes do not fit its dimensions, LimitError for one that is too large,
    InputError where it holds no deformation to ``source``, or several and none was asked for.
    """
    file = _opened(Path(path), DEFORMABLE, "Deformable Spatial Registration")
    items = list(file.items("DeformableRegistrationSequence"))
    with_field = [item for item in items if item.first("DeformableRegistrationGridSequence") is not None]
    chosen = [one for one in (with_field or items) if source in (None, one.plain("SourceFrameOfReferenceUID"))]
    if len(chosen) != 1:
        held = ", ".join(one.plain("SourceFrameOfReferenceUID") for one in items) or "none"
        wanted = f"to {source}" if source else "alone"
        raise InputError(
            f"{len(chosen)} deformations {wanted}: the object leads to {held}", where=str(path), hint="name one of these frames"
        )
    item = chosen[0]
    pre, post = (
        np.eye(4) if (one := item.first(f"{when}DeformationMatrixRegistrationSequence")) is None else _matrix(one)
        for when in ("Pre", "Post")
    )
    grid = item.first("DeformableRegistrationGridSequence")
    vectors = None if grid is None else _vectors(grid, ">f4" if file.transfer_syntax_uid == EXPLICIT_BIG else "<f4")
    return DeformableRegistration(_frame(file), item.plain("SourceFrameOfReferenceUID"), pre, post, vectors)


def _opened(path: Path, sop_class: str, name: str) -> DicomFile:
    file = read_header(path, _KEYWORDS, most_bytes=_MOST_BYTES)
    if file is None or file.sop_class_uid != sop_class:
        what = "no DICOM file" if file is None else f"of the SOP class {file.sop_class_uid or 'none'}"
        raise FormatError(f"no {name}: {what}", where=str(path), hint=f"give a {name} ({sop_class})")
    return file


def _frame(file: Header) -> str:
    uid = file.plain("FrameOfReferenceUID")
    if not uid:
        raise FormatError("the registration names no frame of reference of its own", where=file.where, hint=_AGAIN)
    return uid


def _matrix(item: Header) -> Floats:
    """The 4x4 matrix of one item. Raises FormatError for one that is absent, mirrors or flattens, or whose last row is not 0 0 0 1."""
    found = item.numbers("FrameOfReferenceTransformationMatrix", 16)
    matrix = np.reshape(found, (4, 4)) if found else np.zeros((4, 4))
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6) or np.linalg.det(matrix[:3, :3]) <= 0:
        raise FormatError(f"no matrix that a patient can follow: {matrix.tolist()}", where=item.where, hint=_AGAIN)
    matrix[3] = 0, 0, 0, 1
    return np.asarray(matrix, dtype=np.float64)


def _vectors(item: Header, kind: str) -> Volume:
    """D (3, k, j, i) of a grid item: x runs fastest, a triple that holds what is no number is NaN (C.20.3.1.3)."""
    with quiet():
        size, data = item.dataset.get("GridDimensions"), item.dataset.get("VectorGridData")
    orientation, origin = item.numbers("ImageOrientationPatient", 6), item.numbers("ImagePositionPatient", 3)
    steps = item.numbers("GridResolution", 3)
    if np.size(size) != 3 or not isinstance(data, bytes) or not (orientation and origin and steps) or min(steps) <= 0:
        raise FormatError("the deformation's grid lacks its size, place, orientation or resolution", where=item.where, hint=_AGAIN)
    nx, ny, nz = (int(n) for n in np.ravel(size))
    if nx * ny * nz > MAX_VOXELS:
        raise LimitError(f"a deformation of {nx} x {ny} x {nz} vectors, at most {MAX_VOXELS}", where=item.where)
    if len(data) // 12 * 12 != 12 * nx * ny * nz:
        raise FormatError(f"{len(data)} bytes of vectors, {nx} x {ny} x {nz} need {12 * nx * ny * nz}", where=item.where, hint=_AGAIN)
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    if not np.allclose(np.stack([row, column]) @ np.stack([row, column]).T, np.eye(2), atol=1e-3):
        raise FormatError(f"the grid's axes are no two unit directions at right angles: {orientation}", where=item.where, hint=_AGAIN)
    grid = Geometry.regular((nz, ny, nx), steps[::-1], origin, [np.cross(row, column), column, row])
    array = np.frombuffer(data, kind, 3 * nx * ny * nz).reshape(nz, ny, nx, 3).astype(np.float32)
    array[~np.isfinite(array).all(axis=-1)] = np.nan
    return Volume(np.ascontiguousarray(np.moveaxis(array, -1, 0)), grid)


# ---- writing


def write_deformable(
    displacement: Volume, path: Path | str, *, registered: DicomSource, source: DicomSource, description: str = ""
) -> Path:
    """Write u (3, k, j, i) in mm as a Deformable Spatial Registration, and give the path back.

    A point x of the images ``registered`` (the fixed ones, whose frame the object has) lies at x + u(x) in the images ``source`` (the
    moving ones). A voxel with what is no number is written as undefined, a whole triple of NaN. Patient and study are those of
    ``registered``. Raises GeometryError for an array that is no displacement.
    """
    if displacement.array.ndim != 4 or displacement.array.shape[0] != 3:
        raise GeometryError(f"a displacement is (3, k, j, i), not {displacement.array.shape}")
    path = Path(path)
    dataset = _object(registered)
    dataset.ContentDescription = description[:64]
    dataset.DeformableRegistrationSequence = [_item(displacement, source)]
    _refer(dataset, registered, source)
    with writing(path) as temporary:
        save(dataset, temporary)
    return path


def _object(registered: DicomSource) -> Dataset:
    """Everything but the deformation."""
    d = new_object(DEFORMABLE, registered)
    new_series(d, "REG", "Content")
    d.SoftwareVersions, d.DeviceSerialNumber, d.Laterality = "oncontour", "none", ""
    d.SeriesDescription, d.ContentLabel, d.ContentCreatorName = "Deformable registration", "DEFORMATION", ""
    return d


def _item(displacement: Volume, source: DicomSource) -> Dataset:
    """The deformation to the source frame: no pre or post matrix but the identity, and one vector at each voxel's centre."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import format_number_as_ds

    grid = displacement.geometry
    if np.cross(grid.axes[2], grid.axes[1]) @ grid.axes[0] < 0:
        displacement = displacement.to(grid.reorient(grid.axes * [[-1.0], [1.0], [1.0]]))
        grid = displacement.geometry
    array = np.moveaxis(displacement.array, 0, -1).astype("<f4")
    array[~np.isfinite(array).all(axis=-1)] = np.nan
    vectors = Dataset()
    vectors.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in (*grid.axes[2], *grid.axes[1])]
    vectors.ImagePositionPatient = [format_number_as_ds(float(v)) for v in grid.origin_mm]
    vectors.GridDimensions = list(grid.shape[::-1])
    vectors.GridResolution = list(grid.spacing_mm[::-1])
    vectors.VectorGridData = array.tobytes()
    item = Dataset()
    item.SourceFrameOfReferenceUID = source.frame_of_reference_uid
    item.ReferencedImageSequence = _images(source)
    item.PreDeformationMatrixRegistrationSequence = [_identity()]
    item.PostDeformationMatrixRegistrationSequence = [_identity()]
    item.DeformableRegistrationGridSequence = [vectors]
    item.RegistrationTypeCodeSequence = []
    return item


def _identity() -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.FrameOfReferenceTransformationMatrix = [f"{v:g}" for v in np.eye(4).ravel()]
    item.FrameOfReferenceTransformationMatrixType = "RIGID"
    return item


def _images(source: DicomSource) -> list[Dataset]:
    """References to a series' images, each once (frames of one image share its UID)."""
    from pydicom.dataset import Dataset

    found = []
    for uid, kind in {one.sop_instance_uid: one.sop_class_uid for one in source.slices}.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, uid
        found.append(item)
    return found


def _refer(dataset: Dataset, registered: DicomSource, source: DicomSource) -> None:
    """Common Instance Reference module: both series, those of other studies apart (PS3.3 C.12.2)."""
    from pydicom.dataset import Dataset

    def series(of: DicomSource) -> Dataset:
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = of.series_uid, _images(of)
        return item

    dataset.ReferencedSeriesSequence = [series(of) for of in (registered, source) if of.study_uid == registered.study_uid]
    if source.study_uid != registered.study_uid:
        other = Dataset()
        other.StudyInstanceUID, other.ReferencedSeriesSequence = source.study_uid, [series(source)]
        dataset.StudiesContainingOtherReferencedInstancesSequence = [other]
