"""An nnU-Net v2 model folder as a contourer: ``dataset.json``, ``plans.json``, ``fold_N/checkpoint_final.pth``.

Isensee et al., Nat Methods 2021; file formats and steps as in nnU-Net 2.8. What nnU-Net does to a case is done in its order: transpose,
crop to what is not zero, normalise, resample (cubic; nearest along the coarse axis of anisotropic images), windows half overlapping
with Gaussian weights, average over folds, logits brought back, largest wins.
*Differs:* logits come back slab by slab and linearly along every axis, onto the case's own grid; slices picked along a coarse axis lie
where they were picked (nnU-Net puts them up to half a slice beside it, where two are as near); the windows' Gaussian is centred between
voxels; mirroring is off unless asked for; cascades and regions are refused.

Most nnU-Nets take voxels in the order in which they lie in a file and do not record which way they ran in the patient: prone or supine,
from DICOM or NIfTI, left may be right. Such a model is refused until ``oncontour.json`` in its folder says it: ``{"axes": "SPL"}`` for
data from DICOM, ``"SAR"`` for NIfTI in RAS (k, j, i run to ...), ``"own"`` for each case's own order, as nnU-Net does. Models whose reader
turned all images to RAS (``image_reader_writer`` in their plans) need nothing. There, too, ``{"images": ["ct", "mr"]}`` can name the
case's image for each channel where the model's own names do not tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.contour.external.base import (
    Outside,
    axes_of,
    card_of,
    check_window,
    fit,
    image_of,
    load_tensors,
    permuted,
    read_json,
    sized,
    tensors_in,
)
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ModelError
from oncontour.learn.engine import Backend, Engine, computed_with
from oncontour.libraries import why
from oncontour.nets.nnunet import NnUNet, own_names
from oncontour.ops.windows import Predict

Grey = NDArray[np.float32]
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_FOLD = re.compile(r"fold_(\d+|all)")
_AXES_HINT = (
    'write oncontour.json beside plans.json, by what the images were that it was trained on: {"axes": "SAR"} for NIfTI in RAS, "SAL" as '
    'dcm2niix writes NIfTI, "SPL" as SimpleITK reads DICOM (k, j, i run to superior, anterior, right ...); {"axes": "own"} takes each case '
    "as it lies in its file, as nnU-Net does"
)
_CONVOLUTIONS = ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "conv_bias")
_BLOCKS = ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder", "block", "bottleneck_channels", "stem_channels")
_OTHERS = ("norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin", "nonlin_kwargs", "nonlin_first", "deep_supervision")
_ARGUMENTS = (*_CONVOLUTIONS, *_BLOCKS, *_OTHERS)
"""What ``arch_kwargs`` may hold; anything else could change the net without changing its weights."""
_ANISOTROPIC = 3.0
"""Spacings further apart than this are resampled slice by slice (nnunetv2.configuration.ANISO_THRESHOLD)."""


def is_nnunet(path: Path) -> bool:
    """Whether ``path`` is the folder of a trained nnU-Net v2 model."""
    return path.is_dir() and (path / "plans.json").is_file() and (path / "dataset.json").is_file()


def read_nnunet(
    folder: Path,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    folds: Sequence[int | str] | None = None,
    mirror: bool = False,
) -> Outside:
    """The model in ``folder``, with all its ``folds`` unless some are named, ``mirror``ed predictions averaged if asked for.

    Raises ModelError where the folder is incomplete, the net is of another kind, or a checkpoint holds more than tensors.
    """
    dataset, plans = read_json(folder / "dataset.json"), read_json(folder / "plans.json")
    paths, remarks = _checkpoints(folder, folds)
    checkpoints = [load_tensors(path) for path in paths]
    configuration = _configuration(plans, _configuration_name(folder, plans, checkpoints[0]), folder)
    recipe = _Recipe.of(dataset, plans, configuration, folder)
    check_window(recipe.patch, str(folder / "plans.json"))
    runs: list[Predict] = []
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        weights = own_names(tensors_in(checkpoint, path))
        net = sized(lambda: build_net(configuration, len(recipe.channels), len(recipe.labels) + 1, folder), weights)
        fit(net, weights, path)
        runs.append(Engine.load(net, (1, len(recipe.channels), *recipe.patch), backend=backend, threads=threads))
    axes = tuple(int(a) for a in checkpoints[0].get("inference_allowed_mirroring_axes") or ())
    if mirror and not axes:
        raise ModelError("the checkpoint allows mirroring along no axis", where=str(paths[0]), hint="leave mirror off")
    return Outside(
        card=card_of(folder.name, "nnU-Net v2", recipe.labels, recipe.spacing_mm, paths),
        labels=recipe.labels,
        prepare=recipe.prepare,
        predict=_mirrored(_averaged(runs), axes) if mirror else _averaged(runs),
        window=(1, recipe.patch[0], recipe.patch[1]) if recipe.flat else (recipe.patch[0], recipe.patch[1], recipe.patch[2]),
        **computed_with(backend, threads),
        mode="softmax_logits",
        dims=2 if recipe.flat else 3,
        pad=0.0,
        notes=(*recipe.notes, *remarks),
    )


def _checkpoints(folder: Path, folds: Sequence[int | str] | None) -> tuple[list[Path], list[str]]:
    """One checkpoint a fold, and what is to be known of them: which are of unfinished trainings, which folds were left out."""
    names = [f"fold_{fold}" for fold in folds] if folds else sorted(p.name for p in folder.glob("fold_*") if p.is_dir())
    found: dict[str, Path] = {}
    for name in names:
        there = [folder / name / checkpoint for checkpoint in CHECKPOINTS if (folder / name / checkpoint).is_file()]
        if not there and folds:
            raise ModelError(f"no {CHECKPOINTS[0]} in {name}", where=str(folder))
        if there and (folds or _FOLD.fullmatch(name)):
            found[name] = there[0]
    if not found:
        raise ModelError(f"no fold_*/{CHECKPOINTS[0]} here", where=str(folder), hint="copy the whole folder of the trained model")
    if not folds and len(found) > 1:
        found.pop("fold_all", None)
    left_out = [name for name in names if name not in found]
    remarks = [f"left out of the average: {', '.join(left_out)}"] if left_out else []
    remarks += [f"{name}: {path.name}, as {CHECKPOINTS[0]} is missing" for name, path in found.items() if path.name != CHECKPOINTS[0]]
    return list(found.values()), remarks


def _configuration_name(folder: Path, plans: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    """From the checkpoint, else from the folder's name (TRAINER__PLANS__CONFIGURATION), else the only one there is."""
    arguments = checkpoint.get("init_args")
    names = list(plans.get("configurations", {}))
    said = [arguments.get("configuration") if isinstance(arguments, Mapping) else None, folder.name.split("__")[-1]]
    for name in said:
        if name in names:
            return str(name)
    if len(names) == 1:
        return str(names[0])
    raise ModelError(
        f"which of the configurations {names} is this?", where=str(folder), hint="name the folder TRAINER__PLANS__CONFIGURATION"
    )


def _configuration(plans: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """The configuration ``name`` with what it inherits."""
    every = plans["configurations"]
    out: dict[str, Any] = {}
    seen: list[str] = []
    while name:
        if name in seen or name not in every:
            raise ModelError(f"configuration {name!r} inherits in a circle or is missing", where=str(folder / "plans.json"))
        seen.append(name)
        out = {**every[name], **out}
        name = every[name].get("inherits_from", "")
    if out.get("previous_stage"):
        raise ModelError(f"{seen[0]} is the second stage of a cascade", where=str(folder), hint="use the model of 3d_fullres or 3d_lowres")
    for what, usual in ((out.get("preprocessor_name"), "DefaultPreprocessor"), (plans.get("label_manager"), "LabelManager")):
        if what not in (None, usual):
            raise ModelError(
                f"made with {what}; {usual} is what can be followed", where=str(folder / "plans.json"), hint="export it to ONNX"
            )
    return out


# ---- the net


def build_net(configuration: Mapping[str, Any], channels: int, classes: int, where: Path) -> NnUNet:
    """The net that a configuration of ``plans.json`` describes, in the new format ("architecture") or the old ("UNet_class_name")."""
    try:
        kind, arguments = _architecture(configuration)
        stages = int(arguments["n_stages"])
        dims = len(configuration["patch_size"])
        blocks = arguments["n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"]
        return NnUNet(
            channels,
            classes,
            kind="plain" if kind == "PlainConvUNet" else "residual",
            widths=_each(arguments["features_per_stage"], stages),
            kernels=[_each(k, dims) for k in _each(arguments["kernel_sizes"], stages)],
            strides=[_each(s, dims) for s in _each(arguments["strides"], stages)],
            encoder=_each(blocks, stages),
            decoder=_each(arguments["n_conv_per_stage_decoder"], stages - 1),
            bias=bool(arguments.get("conv_bias", False)),
            norm=_norm(arguments["norm_op"]),
            norm_options=arguments.get("norm_op_kwargs") or {},
            slope=_slope(arguments["nonlin"], arguments.get("nonlin_kwargs") or {}),
        )
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds for numbers that make no net
        raise ModelError(
            f"the plans do not describe a net that can be built ({type(error).__name__}: {why(error)})", where=str(where)
        ) from error


def _architecture(configuration: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if "architecture" in configuration:
        kind = str(configuration["architecture"]["network_class_name"]).rsplit(".", 1)[-1]
        arguments = configuration["architecture"]["arch_kwargs"]
    else:
        kind, arguments = str(configuration["UNet_class_name"]), _old_plans(configuration)
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ModelError(f"a net of kind {kind}; PlainConvUNet and ResidualEncoderUNet can be read", hint="export it to ONNX")
    if unknown := sorted(name for name in arguments if name not in _ARGUMENTS and arguments[name]):
        raise ModelError(f"a net with {', '.join(unknown)}, which cannot be read", hint="export it to ONNX")
    for option in ("block", "bottleneck_channels", "stem_channels", "nonlin_first"):
        if arguments.get(option) and "BasicBlockD" not in str(arguments[option]):
            raise ModelError(f"a net with {option}={arguments[option]!r}, which cannot be read", hint="export it to ONNX")
    return kind, arguments


def _old_plans(c: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the net from plans of nnU-Net 2.0 to 2.3."""
    encoder = c["n_conv_per_stage_encoder"]
    widths = [min(c["UNet_base_num_features"] * 2**n, c["unet_max_num_features"]) for n in range(len(encoder))]
    return {
        "n_stages": len(encoder),
        "features_per_stage": widths,
        "kernel_sizes": c["conv_kernel_sizes"],
        "strides": c["pool_op_kernel_sizes"],
        "n_conv_per_stage": encoder,
        "n_blocks_per_stage": encoder,
        "n_conv_per_stage_decoder": c["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    }


_MOST_STAGES = 32


def _each(value: Any, count: int) -> list[Any]:
    if count > _MOST_STAGES:
        raise ValueError(f"{count} stages or axes, at most {_MOST_STAGES}")
    out = list(value) if isinstance(value, Sequence) else [value] * count
    if len(out) != count:
        raise ValueError(f"{value} should have {count} entries")
    return out


def _norm(name: Any) -> Any:
    found = re.search(r"(Instance|Batch)Norm", str(name))
    if not found:
        raise ValueError(f"normalisation {name}")
    return found.group(1).lower()


def _slope(name: Any, options: Mapping[str, Any]) -> float:
    kind = str(name).rsplit(".", 1)[-1]
    if kind not in ("LeakyReLU", "ReLU"):
        raise ValueError(f"activation {name}")
    return float(options.get("negative_slope", 0.01)) if kind == "LeakyReLU" else 0.0


def _averaged(runs: Sequence[Predict]) -> Predict:
    if len(runs) == 1:
        return runs[0]

    def predict(images: Grey) -> Grey:
        total = runs[0](images)
        for run in runs[1:]:
            total += run(images)
        total /= len(runs)
        return total

    return predict


def _mirrored(run: Predict, axes: tuple[int, ...]) -> Predict:
    """The mean over the image flipped along every choice of ``axes`` (of the spatial ones)."""
    choices = [tuple(2 + a for a in choice) for n in range(len(axes) + 1) for choice in combinations(axes, n)]

    def predict(images: Grey) -> Grey:
        total = run(images)
        for choice in choices[1:]:
            total += np.flip(run(np.ascontiguousarray(np.flip(images, choice))), choice)
        total /= len(choices)
        return total

    return predict


# ---- what it wants to see


@dataclass(frozen=True)
class _Recipe:
    """How a case becomes the net's input."""

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    patch: tuple[int, ...]
    transpose: tuple[int, int, int]
    schemes: tuple[str, ...]
    masked: tuple[bool, ...]
    intensities: Mapping[str, Mapping[str, float]]
    resampling: Mapping[str, Any]
    axes: tuple[tuple[int, int, int], ...] | None
    notes: tuple[str, ...] = field(default=())

    @property
    def flat(self) -> bool:
        return len(self.patch) == 2

    @classmethod
    def of(cls, dataset: Mapping[str, Any], plans: Mapping[str, Any], c: Mapping[str, Any], folder: Path) -> _Recipe:
        try:
            channels = dataset.get("channel_names") or dataset["modality"]
            transpose = [int(n) for n in plans["transpose_forward"]]
            own = read_json(folder / "oncontour.json") if (folder / "oncontour.json").is_file() else {}
            axes = _axes(own, plans, folder)
            how = "resample_data_or_seg_to_shape"
            notes = [] if axes else [_OWN_ORDER]
            if c.get("resampling_fn_data", how) != how:
                notes.append(f"resampled by cubic splines, not by the model's {c['resampling_fn_data']}")
            return cls(
                channels=_channels([str(channels[key]) for key in sorted(channels, key=int)], own, folder),
                labels=_labels(dataset["labels"], folder),
                spacing_mm=tuple(float(s) for s in c["spacing"]),
                patch=tuple(int(n) for n in c["patch_size"]),
                transpose=(transpose[0], transpose[1], transpose[2]),
                schemes=tuple(str(s) for s in c["normalization_schemes"]),
                masked=tuple(bool(m) for m in c["use_mask_for_norm"]),
                intensities=plans.get("foreground_intensity_properties_per_channel")
                or plans.get("foreground_intensity_properties_by_modality", {}),
                resampling=c.get("resampling_fn_data_kwargs") or {},
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
        for n, channel in enumerate(stack):
            normal = self._normalised(channel.astype(np.float32), n, inside)
            out[n] = resized(normal, shape, int(self.resampling.get("order", 3)), axis, int(self.resampling.get("order_z", 0)))
        return Volume(out, resized_grid(grid, shape, axis if int(self.resampling.get("order_z", 0)) == 0 else None))

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
            known = self.intensities[str(n)]
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


def _labels(labels: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Names of labels 1..n."""
    values = {name: value for name, value in labels.items() if name != "ignore"}
    if any(isinstance(value, Sequence) for value in values.values()):
        raise ModelError("a model trained on regions (labels that contain each other), which cannot be read", where=str(folder))
    ordered = sorted(values, key=lambda name: int(values[name]))
    if [int(values[name]) for name in ordered] != list(range(len(ordered))):
        raise ModelError(f"labels must be numbered 0, 1, 2 ... without gaps, not {values}", where=str(folder / "dataset.json"))
    return tuple(ordered[1:])


_OWN_ORDER = (
    "which way the model's voxels ran in the patient was not said: they were given in the order of the case's image, and left and right "
    "may be swapped"
)
_IMAGES_HINT = 'say which image of a case each channel is in oncontour.json beside plans.json: {"images": ["ct", "mr"]}'
_MR = re.compile(r"(t1|t2|pd|mr|mri|flair|dwi|adc)(?![a-z]{4}).*|.*[^a-z](t1|t2|mr|flair)|.*mri|mprage.*")


def _axes(own: Mapping[str, Any], plans: Mapping[str, Any], folder: Path) -> tuple[tuple[int, int, int], ...] | None:
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


def _channels(names: list[str], own: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
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
