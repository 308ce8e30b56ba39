"""An nnU-Net v2 model folder as a contourer: ``dataset.json``, ``plans.json``, ``fold_N/checkpoint_final.pth`` (or as ``models add``
converted it).

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
case's image for each channel where the model's own names do not tell, ``{"names": {"kidney_left": "Kidney_L"}}`` what its labels are called
here, and ``licence`` and ``data`` what its card says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.external.base import Outside, card_of, check_window, fit, read_json, said_beside, sized
from oncontour.contour.external.checkpoint import FILES, FINAL, Checkpoint, read_checkpoint
from oncontour.contour.external.nnunet_input import Recipe
from oncontour.contour.external.nnunet_net import build_net
from oncontour.contour.external.values import Values, named
from oncontour.errors import ModelError
from oncontour.learn.card import Card
from oncontour.learn.engine import Backend, Engine, computed_with
from oncontour.ops.windows import Predict

Grey = NDArray[np.float32]
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
    paths, remarks = checkpoint_paths(folder, folds)
    checkpoints = [read_checkpoint(path) for path in paths]
    held = zip(paths, checkpoints, strict=True)
    remarks += [f"{path.parent.name}: {one.file}, as {FINAL} is missing" for path, one in held if one.file != FINAL]
    configuration = _configuration(plans, _configuration_name(folder, plans, checkpoints[0]), folder)
    recipe = Recipe.of(dataset, plans, configuration, folder)
    check_window(recipe.patch, str(folder / "plans.json"))
    runs: list[Predict] = []
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        net = sized(lambda: build_net(configuration, len(recipe.channels), len(recipe.labels) + 1, folder), checkpoint.weights)
        fit(net, checkpoint.weights, path)
        runs.append(Engine.load(net, (1, len(recipe.channels), *recipe.patch), backend=backend, threads=threads))
    axes = checkpoints[0].mirrored
    if mirror and not axes:
        raise ModelError("the checkpoint allows mirroring along no axis", where=str(paths[0]), hint="leave mirror off")
    return Outside(
        card=_card(folder, recipe, paths),
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


def described(folder: Path) -> Card:
    """The card of the model in ``folder``, of which no net is built. Raises ModelError as ``read_nnunet``."""
    dataset, plans = read_json(folder / "dataset.json"), read_json(folder / "plans.json")
    paths, _ = checkpoint_paths(folder)
    configuration = _configuration(plans, _configuration_name(folder, plans, read_checkpoint(paths[0])), folder)
    return _card(folder, Recipe.of(dataset, plans, configuration, folder), paths)


def checkpoint_paths(folder: Path, folds: Sequence[int | str] | None = None) -> tuple[list[Path], list[str]]:
    """One checkpoint for each of ``folds`` (all that are numbered, else fold_all), and which folds were left out. Raises ModelError where
    there is none."""
    names = [f"fold_{fold}" for fold in folds] if folds else sorted(p.name for p in folder.glob("fold_*") if p.is_dir())
    found: dict[str, Path] = {}
    for name in names:
        there = [folder / name / checkpoint for checkpoint in FILES if (folder / name / checkpoint).is_file()]
        if not there and folds:
            raise ModelError(f"no {FINAL} in {name}", where=str(folder))
        if there and (folds or _FOLD.fullmatch(name)):
            found[name] = there[0]
    if not found:
        raise ModelError(f"no fold_*/{FINAL} here", where=str(folder), hint="copy the whole folder of the trained model")
    if not folds and len(found) > 1:
        found.pop("fold_all", None)
    left_out = [name for name in names if name not in found]
    return list(found.values()), [f"left out of the average: {', '.join(left_out)}"] if left_out else []


def _card(folder: Path, recipe: Recipe, paths: Sequence[Path]) -> Card:
    """The card of a model that brought none, with what ``oncontour.json`` adds: names, licence, data."""
    said = said_beside(folder)
    card = card_of(folder.name, "nnU-Net v2", recipe.labels, recipe.spacing_mm, paths)
    names = named(said.get("names", {}))
    called = [str(names.get(label, name)) for label, name in zip(recipe.labels, card.structures, strict=True)]
    if len(set(called)) < len(called):
        double = next(name for name in called if called.count(name) > 1)
        raise ModelError(
            f"two of the model's labels are called {double}", where=str(folder / "oncontour.json"), hint="give each its own name"
        )
    return replace(card, structures=called, licence=str(said.get("licence", card.licence)), data=str(said.get("data", card.data)))


def _configuration_name(folder: Path, plans: Values, checkpoint: Checkpoint) -> str:
    """From the checkpoint, else from the folder's name (TRAINER__PLANS__CONFIGURATION), else the only one there is."""
    names = list(named(plans.get("configurations", {})))
    for name in (checkpoint.configuration, folder.name.split("__")[-1]):
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
