"""One patient at one time: the noun that everything reads and returns.

Absent is absent (no key); empty is an empty mask or a ``Contours`` without polygons. The two never blur: an organ that was not
contoured is not background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Never, TypeVar

import numpy as np

from oncontour.core.assessment import Assessment
from oncontour.core.contours import Contours
from oncontour.core.geometry import AS_REFERENCE, Geometry
from oncontour.core.prediction import Candidate, RiskPrediction, Segmentation
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError, InputError
from oncontour.raster.fill import fill

_Held = TypeVar("_Held")


MOST_NAMES = 12
"""Structures that ``repr`` names."""


def _size(grid: Geometry) -> str:
    """Voxels and their size, (k, j, i)."""
    voxels, steps = "x".join(map(str, grid.shape)), " x ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    return f"{voxels} voxels of {steps} mm"


def _nothing() -> Mapping[str, Never]:
    return MappingProxyType({})


class _Numbered(Mapping[str, Volume]):
    """Masks that know their names by number, from 0. Raises InputError for a name that comes twice."""

    def __init__(self, names: Sequence[str]) -> None:
        self._number = {name: n for n, name in enumerate(names)}
        if len(self._number) != len(names):
            raise InputError(f"structure names must differ: {list(names)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, name: object) -> bool:
        return name in self._number


class LabelMasks(_Numbered):
    """Masks of many structures that do not overlap, held as one label volume (0 is background, n is ``names[n - 1]``).

    A hundred organs on 384^3 take 57 MB this way; each is a bool Volume at the moment it is asked for.
    """

    def __init__(self, labels: Volume, names: Sequence[str]) -> None:
        if labels.array.ndim != 3 or not np.issubdtype(labels.array.dtype, np.integer):
            raise GeometryError(f"a label volume has three axes and integers, not {labels.array.shape} of {labels.array.dtype}")
        super().__init__(names)
        if len(names) > np.iinfo(labels.array.dtype).max:
            raise InputError(f"{len(names)} structures do not fit into labels of {labels.array.dtype}")
        self.labels = labels

    def __getitem__(self, name: str) -> Volume:
        return Volume(self.labels.array == self.value(name), self.labels.geometry)

    def value(self, name: str) -> int:
        """The label of ``name`` in ``labels``."""
        return self._number[name] + 1

    @property
    def geometry(self) -> Geometry:
        """The grid of every mask."""
        return self.labels.geometry


class BitMasks(_Numbered):
    """Masks of many structures that may overlap, one bit each: structure n is bit n % 8 of plane n // 8 of ``planes`` (p, k, j, i).

    A hundred organs on 384^3 take 736 MB this way; each is a bool Volume at the moment it is asked for. Raises GeometryError for planes
    that are not uint8 of four axes or too few for the names, InputError for a name that comes twice.
    """

    def __init__(self, planes: Volume, names: Sequence[str]) -> None:
        if planes.array.ndim != 4 or planes.array.dtype != np.uint8:
            raise GeometryError(f"planes of bits have four axes and are uint8, not {planes.array.shape} of {planes.array.dtype}")
        super().__init__(names)
        if len(names) > 8 * len(planes.array):
            raise GeometryError(f"{len(names)} structures do not fit into {len(planes.array)} planes of 8 bits")
        self.planes = planes

    @classmethod
    def packed(cls, names: Sequence[str], grid: Geometry, mask_of: Callable[[str], Volume]) -> BitMasks:
        """The masks (on ``grid``) that ``mask_of`` gives for each of ``names``, asked for one after the other."""
        planes = np.zeros((-(-len(names) // 8), *grid.shape), np.uint8)
        for n, name in enumerate(names):
            planes[n // 8] |= mask_of(name).array.astype(np.uint8) << np.uint8(n % 8)
        return cls(Volume(planes, grid), names)

    def __getitem__(self, name: str) -> Volume:
        plane, bit = self.place(name)
        out = np.empty(self.planes.geometry.shape, bool)
        for one, bits in zip(out, self.planes.array[plane], strict=True):  # by slices: what lies between stays in the cache
            np.not_equal(bits & np.uint8(bit), 0, out=one)
        return Volume(out, self.planes.geometry)

    def place(self, name: str) -> tuple[int, int]:
        """The plane of ``name``, and the value of its bit there (1, 2, 4, ... 128)."""
        return self._number[name] // 8, 1 << self._number[name] % 8

    @property
    def geometry(self) -> Geometry:
        """The grid of every mask."""
        return self.planes.geometry


class _Layered(Mapping[str, _Held]):
    """Several mappings read as one, the first that has a key answering; values are not touched until asked for."""

    def __init__(self, *layers: Mapping[str, _Held]) -> None:
        flat = (layer._layers if isinstance(layer, _Layered) else (layer,) for layer in layers)
        self._layers: tuple[Mapping[str, _Held], ...] = tuple(part for parts in flat for part in parts)
        self._keys = tuple(dict.fromkeys(key for layer in reversed(layers) for key in layer))

    def __getitem__(self, key: str) -> _Held:
        for layer in self._layers:
            if key in layer:
                return layer[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys


def _kept(masks: Mapping[str, Volume]) -> Mapping[str, Volume]:
    """``masks`` as a case holds them: packed ones as they are, plain ones as a copy that nobody else can change."""
    return masks if isinstance(masks, LabelMasks | BitMasks | _Layered) else dict(masks)


def _check_bool(masks: Mapping[str, Volume], where: str) -> None:
    """Raises InputError for a mask that is not bool. Packed masks are bool by making."""
    for layer in masks._layers if isinstance(masks, _Layered) else (masks,):
        for name, mask in () if isinstance(layer, LabelMasks | BitMasks) else layer.items():
            if mask.array.dtype != bool or mask.array.ndim != 3:
                shown = f"{mask.array.dtype} of {mask.array.ndim} axes"
                raise InputError(
                    f"mask {name!r} must be bool of three axes, not {shown}", where=where, hint="give what is inside and what is not"
                )


def _grid_of(masks: Mapping[str, Volume]) -> Iterator[tuple[str, Geometry]]:
    if isinstance(masks, LabelMasks | BitMasks):
        yield next(iter(masks), "labels"), masks.geometry
    elif isinstance(masks, _Layered):
        for layer in masks._layers:
            yield from _grid_of(layer)
    else:
        for name, mask in masks.items():
            yield name, mask.geometry


def _stored_on(masks: Mapping[str, Volume], grid: Geometry, where: str) -> Mapping[str, Volume]:
    """``masks`` with every voxel where ``grid`` has it. Raises GeometryError for a mask of other voxels."""

    def placed(name: str, volume: Volume) -> Volume:
        found = volume.stored_on(grid)
        if found is None:
            difference = grid.difference(volume.geometry)
            raise GeometryError(f"mask {name!r} lies on another grid than its image: {difference}", where=where, hint=AS_REFERENCE)
        return found

    if isinstance(masks, _Layered):
        return _Layered(*(_stored_on(layer, grid, where) for layer in masks._layers))
    if isinstance(masks, LabelMasks):
        labels = placed(next(iter(masks), "labels"), masks.labels)
        return masks if labels is masks.labels else LabelMasks(labels, list(masks))
    if isinstance(masks, BitMasks):
        planes = placed(next(iter(masks), "labels"), masks.planes)
        return masks if planes is masks.planes else BitMasks(planes, list(masks))
    return {name: placed(name, mask) for name, mask in masks.items()}


@dataclass(frozen=True, eq=False)
class Case:
    """One patient at one time.

    ``images``    "ct", "mr" (HU or scanner units), "dose" (Gy), ...: each a Volume, on its own grid;
    ``masks``     TG-263 name -> bool Volume on the case's grid; one whose voxels are stored in another order (axes that run another way),
                  or lie aside by rounding in a file, is brought onto it voxel by voxel;
    ``contours``  TG-263 name -> Contours in LPS mm, as drawn; a name may have both (the mask is then what counts);
    ``facts``     known of the patient (age, prescription_gy);
    ``probabilities``  what the models that drew its masks thought: structure -> probability times 255 (uint8) on the model's own grid;
    ``segmented_by``   SHA-256 of the weights of the models that drew its masks; None where that is not known;
    ``segmentation``   how the last contour model drew; ``candidates`` other segmenters' contours of this patient, by segmenter's name;
    ``assessment``     how right its contours are; ``risk`` what its plan may cost the patient; None where nobody asked;
    ``prior``     the earlier visit, a Case on its own grid; ``source`` what ``io`` needs to write DICOM back, opaque to everyone else.

    Raises GeometryError when a mask is not on the case's grid, InputError when one is not bool.
    """

    id: str
    images: Mapping[str, Volume] = field(default_factory=_nothing)
    masks: Mapping[str, Volume] = field(default_factory=_nothing)
    contours: Mapping[str, Contours] = field(default_factory=_nothing)
    facts: Mapping[str, Any] = field(default_factory=_nothing)
    prior: Case | None = None
    source: object = None
    probabilities: Mapping[str, Volume] = field(default_factory=_nothing)
    segmented_by: tuple[str, ...] | None = None
    segmentation: Segmentation | None = None
    candidates: Mapping[str, Candidate] = field(default_factory=_nothing)
    assessment: Assessment | None = None
    risk: RiskPrediction | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise InputError("a case needs an id")
        for name in ("images", "contours", "facts", "probabilities", "candidates"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        masks = _kept(self.masks)
        object.__setattr__(self, "masks", masks)
        if not self.images and not self.masks:
            raise InputError("a case needs at least one image or mask", where=f"case {self.id}")
        _check_bool(masks, f"case {self.id}")
        masks = _stored_on(masks, self.geometry, f"case {self.id}")
        object.__setattr__(self, "masks", MappingProxyType(masks) if isinstance(masks, dict) else masks)

    def __reduce__(self) -> tuple[object, ...]:
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in held.items()}
        return Case, tuple(plain.values())

    def __repr__(self) -> str:
        images = ", ".join(f"{name} {_size(volume.geometry)}" for name, volume in self.images.items())
        names = self.structures
        listed = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
        told = [images, f"structures: {listed}" if names else "no structures"]
        told += ["assessed"] if self.assessment is not None else []
        told += [f"prior: {self.prior.id}"] if self.prior is not None else []
        return f"Case({self.id!r}; {'; '.join(one for one in told if one)})"

    def _repr_html_(self) -> str:
        """Three planes through the case with its structures, for notebooks (``core/view.py``)."""
        from oncontour.core.view import html

        return html(self)

    @property
    def geometry(self) -> Geometry:
        """The case's grid: that of the CT, else of the MR, else of the first image, else of the first mask."""
        for name in ("ct", "mr", *self.images):
            if name in self.images:
                return self.images[name].geometry
        return next(_grid_of(self.masks))[1]

    @property
    def ct(self) -> Volume:
        """The CT in HU. Raises InputError where there is none."""
        if "ct" not in self.images:
            raise InputError(f"no CT among the images {sorted(self.images)}", where=f"case {self.id}")
        return self.images["ct"]

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of every structure present as mask or contours, in order of arrival, masks first."""
        return tuple(dict.fromkeys((*self.masks, *self.contours)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was remarked on reading the files (``facts["notes"]``)."""
        return tuple(self.facts.get("notes", ()))

    def mask(self, name: str, geometry: Geometry | None = None) -> Volume:
        """Structure ``name`` as a bool Volume on ``geometry`` (default: the case's grid), rasterised from contours where no mask is held.

        Contours go straight onto the requested grid. Raises InputError when the structure is absent.
        """
        grid = geometry or self.geometry
        if name in self.masks:
            return self.masks[name].binary().to(grid)
        if name in self.contours:
            return fill(self.contours[name], grid)
        raise InputError(f"no structure {name!r}; there are {list(self.structures)}", where=f"case {self.id}")

    def own_mask(self, name: str, geometry: Geometry) -> Volume:
        """Structure ``name`` on ``geometry``, the grid of another case of this patient, with nothing interpolated: a mask voxel by voxel,
        contours filled there.

        Raises GeometryError for a mask of other voxels, with both values; InputError when the structure is absent.
        """
        if name not in self.masks:
            return self.mask(name, geometry)
        return _stored_on({name: self.masks[name]}, geometry, f"case {self.id}")[name]

    def with_images(self, images: Mapping[str, Volume]) -> Case:
        """A new case with these images added or replaced."""
        return replace(self, images={**self.images, **images})

    def with_masks(self, masks: Mapping[str, Volume]) -> Case:
        """A new case with these masks added or replaced; LabelMasks and BitMasks stay packed."""
        if not self.masks:
            return replace(self, masks=masks)
        new = _stored_on(_kept(masks), self.geometry, f"case {self.id}")
        return replace(self, masks=_Layered(new, _kept(self.masks)))

    def with_contours(self, contours: Mapping[str, Contours]) -> Case:
        """A new case with these contours added or replaced."""
        return replace(self, contours={**self.contours, **contours})

    def without_structures(self) -> Case:
        """A new case that holds the images alone: what a contouring task is given when the truth must not be seen."""
        return replace(self, masks={}, contours={})
