"""How a case becomes what an nnU-Net sees: transposed, cropped to what is not zero, normalised, resampled, as nnU-Net does it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.contour.external.base import OWN_ORDER, Directions, axes_of, image_of, permuted, said_beside
from oncontour.contour.external.values import Values, listed, named, number, numbers, wholes
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ModelError

Grey = NDArray[np.float32]
_AXES_HINT = (
    "say with --axes of 'oncontour models add' what the images were that it was trained on: SAR for NIfTI in RAS, SAL as dcm2niix writes "
    "NIfTI, SPL as SimpleITK reads DICOM (k, j, i run to superior, anterior, right ...), own to take each case as it lies in its file, as "
    'nnU-Net does; or write it beside plans.json into oncontour.json: {"axes": "SAR"}'
)
_ANISOTROPIC = 3.0
"""Spacings further apart than this are resampled slice by slice (nnunetv2.configuration.ANISO_THRESHOLD)."""
_OF_CT = ("percentile_00_5", "percentile_99_5", "mean", "std")


@dataclass(frozen=True)
class Recipe:
    """How a case becomes the net's input."""

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    patch: tuple[int, ...]
    transpose: tuple[int, int, int]
    schemes: tuple[str, ...]
    masked: tuple[bool, ...]
    intensities: Values
    resampling: Values
    axes: Directions | None
    notes: tuple[str, ...] = field(default=())

    @property
    def flat(self) -> bool:
        return len(self.patch) == 2

    @classmethod
    def of(cls, dataset: Values, plans: Values, c: Values, folder: Path) -> Recipe:
        try:
            channels = named(dataset.get("channel_names") or dataset["modality"])
            transpose = wholes(plans["transpose_forward"])
            own = said_beside(folder)
            axes = _axes(own, plans, folder)
            how = "resample_data_or_seg_to_shape"
            notes = [] if axes else [OWN_ORDER.format("model")]
            if c.get("resampling_fn_data", how) != how:
                notes.append(f"resampled by cubic splines, not by the model's {c['resampling_fn_data']}")
            return cls(
                channels=_channels([str(channels[key]) for key in sorted(channels, key=int)], own, folder),
                labels=_labels(named(dataset["labels"]), folder),
                spacing_mm=tuple(numbers(c["spacing"])),
                patch=tuple(wholes(c["patch_size"])),
                transpose=(transpose[0], transpose[1], transpose[2]),
                schemes=tuple(str(s) for s in listed(c["normalization_schemes"])),
                masked=tuple(bool(m) for m in listed(c["use_mask_for_norm"])),
                intensities=named(
                    plans.get("foreground_intensity_properties_per_channel") or plans.get("foreground_intensity_properties_by_modality", {})
                ),
                resampling=named(c.get("resampling_fn_data_kwargs") or {}),
                axes=axes,
                notes=tuple(notes),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ModelError(f"plans.json or dataset.json lacks something ({type(error).__name__}: {error})", where=str(folder)) from error

    def prepare(self, case: Case) -> Volume:
        """(channels, k, j, i) normalised, on the net's grid."""
        names = [_image_name(name, scheme, case) for name, scheme in zip(self.channels, self.schemes, strict=True)]
        if len(set(names)) < len(names):
            raise ModelError(f"the model's channels {list(self.channels)} would be the case's images {names}", hint=_IMAGES_HINT)
        images = [image_of(case, name) for name in names]
        grid = self._ordered(case.geometry)
        stack = np.stack([image.to(grid).array for image in images])
        box = _not_zero(stack)
        grid = grid.crop([s.start for s in box], [s.stop for s in box])
        stack = stack[(slice(None), *box)]
        inside = ndimage.binary_fill_holes((stack != 0).any(axis=0)) if any(self.masked) else None
        spacing = (grid.spacing_mm[0], *self.spacing_mm) if self.flat else self.spacing_mm
        shape = [max(1, round(n * old / new)) for n, old, new in zip(grid.shape, grid.spacing_mm, spacing, strict=True)]
        out = np.empty((len(stack), *shape), np.float32)
        axis = self._coarse_axis(grid.spacing_mm, spacing)
        order, along = (int(number(self.resampling.get(name, usual))) for name, usual in (("order", 3), ("order_z", 0)))
        for n, channel in enumerate(stack):
            normal = self._normalised(channel.astype(np.float32), n, inside)
            out[n] = resized(normal, shape, order, axis, along)
        return Volume(out, resized_grid(grid, shape, axis if along == 0 else None))

    def _ordered(self, geometry: Geometry) -> Geometry:
        """The case's grid with its axes in the order that the net wants."""
        grid = geometry if self.axes is None else geometry.reorient(self.axes)
        return permuted(grid, self.transpose)

    def _coarse_axis(self, old: Sequence[float], new: Sequence[float]) -> int | None:
        """The axis to be resampled on its own: the coarse one of an image, or a model, far from isotropic."""
        forced = self.resampling.get("force_separate_z", False)
        if forced is False:
            return None
        for spacing in (old,) if forced else (old, new):
            if forced or max(spacing) / min(spacing) > _ANISOTROPIC:
                coarse = np.flatnonzero(np.isclose(spacing, max(spacing), rtol=1e-6)).tolist()  # turned grids are out by a last bit
                return coarse[0] if len(coarse) == 1 else None
        return None

    def _normalised(self, image: Grey, n: int, inside: NDArray[np.bool_] | None) -> Grey:
        scheme = self.schemes[n]
        if scheme == "CTNormalization":
            known = {name: number(value) for name, value in named(self.intensities[str(n)]).items() if name in _OF_CT}
            image = np.clip(image, known["percentile_00_5"], known["percentile_99_5"])
            return np.asarray((image - known["mean"]) / max(known["std"], 1e-8), np.float32)
        if scheme == "ZScoreNormalization":
            where = inside if self.masked[n] and inside is not None else np.ones(image.shape, bool)
            out = image.copy()
            out[where] = (image[where] - image[where].mean()) / max(image[where].std(), 1e-8)
            return out
        if scheme == "RescaleTo01Normalization":
            image = image - image.min()
            return np.asarray(image / max(image.max(), 1e-8), np.float32)
        if scheme == "NoNormalization":
            return image
        raise ModelError(f"normalisation {scheme!r} is not known", hint="export the model to ONNX and state its intensities")


def _labels(labels: Values, folder: Path) -> tuple[str, ...]:
    """Names of labels 1..n."""
    values = {name: value for name, value in labels.items() if name != "ignore"}
    if any(isinstance(value, list | str) for value in values.values()):
        raise ModelError("a model trained on regions (labels that contain each other), which cannot be read", where=str(folder))
    at = dict(zip(values, wholes(list(values.values())), strict=True))
    ordered = sorted(at, key=lambda name: at[name])
    if [at[name] for name in ordered] != list(range(len(ordered))):
        raise ModelError(f"labels must be numbered 0, 1, 2 ... without gaps, not {values}", where=str(folder / "dataset.json"))
    return tuple(ordered[1:])


_IMAGES_HINT = 'say which image of a case each channel is in oncontour.json beside plans.json: {"images": ["ct", "mr"]}'
_MR = re.compile(r"(t1|t2|pd|mr|mri|flair|dwi|adc)(?![a-z]{4}).*|.*[^a-z](t1|t2|mr|flair)|.*mri|mprage.*")


def _axes(own: Values, plans: Values, folder: Path) -> Directions | None:
    """Which way the net's axes run in the patient; None for each case's own order, where that was asked for. Raises ModelError unsaid."""
    said = own.get("axes")
    if said == "own":
        return None
    if said is None and str(plans.get("image_reader_writer", "")).endswith("WithReorient"):
        said = "SAR"  # both of nnU-Net's turn images to RAS, and arrays are (k, j, i)
    if said is None:
        raise ModelError(
            "nothing says which way the model's voxels ran in the patient: guessed, left could be right", where=str(folder), hint=_AXES_HINT
        )
    return axes_of(said, str(folder / "oncontour.json"))


def _channels(names: list[str], own: Values, folder: Path) -> tuple[str, ...]:
    said = own.get("images", names)
    if not isinstance(said, list) or len(said) != len(names):
        raise ModelError(f"images must be {len(names)} names, one a channel, not {said}", where=str(folder / "oncontour.json"))
    return tuple(str(name) for name in said)


def _image_name(channel: str, scheme: str, case: Case) -> str:
    """The case's image for a channel: by the channel's name, else CT where nnU-Net took it for one, else MR where it is called one."""
    name = channel.lower()
    if name in case.images:
        return name
    if scheme == "CTNormalization" or re.fullmatch(r"ct|.*[^a-z]ct|ct[^a-z].*", name):
        return "ct"
    if _MR.fullmatch(name):
        return "mr"
    raise ModelError(f"no image of the case is the model's channel {channel!r}; there are {sorted(case.images)}", hint=_IMAGES_HINT)


def _not_zero(stack: Grey) -> tuple[slice, slice, slice]:
    """The box around what is not zero in any channel; everything where all is."""
    there = (stack != 0).any(axis=0)
    if not there.any():
        return slice(0, there.shape[0]), slice(0, there.shape[1]), slice(0, there.shape[2])
    ends = [np.flatnonzero(there.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    k, j, i = (slice(int(e[0]), int(e[-1]) + 1) for e in ends)
    return k, j, i


def resized(image: Grey, shape: Sequence[int], order: int, axis: int | None, order_along: int) -> Grey:
    """``image`` in ``shape`` voxels over the same box, by splines of ``order``; along ``axis`` (if any) by ``order_along``, slice by slice.

    What skimage's ``resize(mode="edge", anti_aliasing=False)`` gives, values kept within the image's own range.
    """
    if tuple(shape) == image.shape:
        return image
    if axis is None:
        return _zoomed(image, shape, order)
    planes = list(shape)
    planes[axis] = image.shape[axis]
    out = np.empty(planes, np.float32)
    for n in range(planes[axis]):
        part = tuple(n if a == axis else slice(None) for a in range(3))
        out[part] = _zoomed(image[part], [m for a, m in enumerate(shape) if a != axis], order)
    if order_along == 0:
        return np.asarray(np.take(out, _picked(planes[axis], shape[axis])[0], axis=axis))
    return _zoomed(out, shape, order_along)


def _picked(old: int, new: int) -> tuple[NDArray[np.intp], float]:
    """Which of ``old`` slices each of ``new`` over the same length is, and how far beside it that lies in the mean, in old slices.

    Of two as near the later is picked: two slices made into one lie half a slice further on, all of them.
    """
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    picked = np.clip(np.floor(at + 0.5).astype(np.intp), 0, old - 1)
    return picked, float((picked - at).mean())


def _zoomed(image: Grey, shape: Sequence[int], order: int) -> Grey:
    if tuple(shape) == image.shape:
        return image
    factors = [n / m for n, m in zip(shape, image.shape, strict=True)]
    out = ndimage.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(out, image.min(), image.max()), np.float32)


def resized_grid(grid: Geometry, shape: Sequence[int], picked: int | None = None) -> Geometry:
    """The grid of ``shape`` voxels over the same box of space; along the axis ``picked`` where the slices that were picked lie."""
    ratio = np.asarray(grid.shape) / np.asarray(shape)
    first = ratio / 2 - 0.5
    if picked is not None:
        first[picked] += _picked(grid.shape[picked], shape[picked])[1]
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, :3] * ratio
    affine[:3, 3] = grid.points(first)
    k, j, i = (int(n) for n in shape)
    return Geometry((k, j, i), affine)
