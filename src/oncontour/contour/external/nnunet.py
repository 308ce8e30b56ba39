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
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.external.base import Outside, card_of, check_window, fit, load_tensors, read_json, sized, tensors_in
from oncontour.contour.external.nnunet_input import Recipe
from oncontour.contour.external.nnunet_net import build_net
from oncontour.contour.external.values import Values, named, wholes
from oncontour.errors import ModelError
from oncontour.learn.engine import Backend, Engine, computed_with
from oncontour.nets.nnunet import own_names
from oncontour.ops.windows import Predict

Grey = NDArray[np.float32]
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_FOLD = re.compile(r"fold_(\d+|all)")


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
    recipe = Recipe.of(dataset, plans, configuration, folder)
    check_window(recipe.patch, str(folder / "plans.json"))
    runs: list[Predict] = []
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        weights = own_names(tensors_in(checkpoint, path))
        net = sized(lambda: build_net(configuration, len(recipe.channels), len(recipe.labels) + 1, folder), weights)
        fit(net, weights, path)
        runs.append(Engine.load(net, (1, len(recipe.channels), *recipe.patch), backend=backend, threads=threads))
    axes = tuple(wholes(checkpoints[0].get("inference_allowed_mirroring_axes") or ()))
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


def _configuration_name(folder: Path, plans: Values, checkpoint: Values) -> str:
    """From the checkpoint, else from the folder's name (TRAINER__PLANS__CONFIGURATION), else the only one there is."""
    arguments = checkpoint.get("init_args")
    names = list(named(plans.get("configurations", {})))
    said = [arguments.get("configuration") if isinstance(arguments, dict) else None, folder.name.split("__")[-1]]
    for name in said:
        if name in names:
            return str(name)
    if len(names) == 1:
        return str(names[0])
    raise ModelError(
        f"which of the configurations {names} is this?", where=str(folder), hint="name the folder TRAINER__PLANS__CONFIGURATION"
    )


def _configuration(plans: Values, name: str, folder: Path) -> Values:
    """The configuration ``name`` with what it inherits."""
    every = {key: named(one) for key, one in named(plans["configurations"]).items()}
    out: dict[str, object] = {}
    seen: list[str] = []
    while name:
        if name in seen or name not in every:
            raise ModelError(f"configuration {name!r} inherits in a circle or is missing", where=str(folder / "plans.json"))
        seen.append(name)
        out = {**every[name], **out}
        name = str(every[name].get("inherits_from") or "")
    if out.get("previous_stage"):
        raise ModelError(f"{seen[0]} is the second stage of a cascade", where=str(folder), hint="use the model of 3d_fullres or 3d_lowres")
    for what, usual in ((out.get("preprocessor_name"), "DefaultPreprocessor"), (plans.get("label_manager"), "LabelManager")):
        if what not in (None, usual):
            raise ModelError(
                f"made with {what}; {usual} is what can be followed", where=str(folder / "plans.json"), hint="export it to ONNX"
            )
    return out


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
