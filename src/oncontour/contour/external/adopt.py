"""Somebody's nnU-Net v2 taken over once: from the folder or archive it came in to a folder that opens no pickle any more.

    NAME/dataset.json, plans.json        as they were
    NAME/oncontour.json                  what they do not say: axes, images, names of TG-263, licence, where it came from
    NAME/fold_N/weights.safetensors      the parameters alone (``checkpoint.py``)

Taken are a model's folder (TRAINER__PLANS__CONFIGURATION), the folder of a dataset above it, and archives of either: what
``nnUNetv2_export_model_to_zip`` writes, and TotalSegmentator's weights (``totalsegmentator.py``).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oncontour.contour.external.archive import unpack
from oncontour.contour.external.base import Outside, read_json, said_beside, sha256_of
from oncontour.contour.external.checkpoint import read_checkpoint, write_checkpoint
from oncontour.contour.external.nnunet import checkpoint_paths, is_nnunet, read_nnunet
from oncontour.contour.external.totalsegmentator import AXES, DATA, Weights, tg263_of_classes, weights_of
from oncontour.errors import InputError, ModelError, OutputError
from oncontour.files import check_writable, scratch_folder, walk, write_text, writing_folder

_DATASET = re.compile(r"Dataset\d{3,}_(\w+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_DEEPEST = 3
"""Folders below the one that is given in which a model is looked for."""


@dataclass(frozen=True)
class Wish:
    """What the user says of the model: its ``name`` here, which ``configuration`` of several, where its ``axes`` run (SAR, ...; "own"),
    which of a case's ``images`` each channel is; None for what the files say."""

    name: str | None = None
    configuration: str | None = None
    axes: str | None = None
    images: Sequence[str] | None = None


@dataclass(frozen=True)
class Adopted:
    """A model that was taken over: the ``folder`` it is in, what it draws, its licence, and what is to be known."""

    folder: Path
    structures: tuple[str, ...]
    licence: str
    notes: tuple[str, ...]


def adopt(source: Path, models: Path, wish: Wish, *, taken: Sequence[str] = (), overwrite: bool = False) -> Adopted:
    """Take the model in ``source`` (folder or zip) over into a folder below ``models``, whole or not at all.

    ``taken`` are names that it may not have. Raises InputError where there is no such file, ModelError where it holds no nnU-Net v2 model,
    several, or one that cannot be followed or does not say which way its voxels ran; FormatError and LimitError as ``unpack``;
    OutputError where a model of the name is there already and ``overwrite`` is not given.
    """
    if not source.exists():
        raise InputError("there is no such file or folder", where=str(source), hint="give an nnU-Net v2 folder, or a zip of one")
    check_writable(models)
    models.mkdir(parents=True, exist_ok=True)
    with scratch_folder(models / "unpacked") as scratch:
        root = source
        if source.is_file():
            root = scratch / source.stem
            unpack(source, root)
        found = _one_of(list(_models_below(root)), wish.configuration, source)
        weights = weights_of(_names(found, root, source))
        name = _name(wish.name, found, weights, source)
        if name in taken:
            raise ModelError(f"{name!r} is the name of a shipped model", where=str(source), hint="give it another with --name")
        target = models / name
        if target.exists() and not overwrite:
            raise OutputError(f"a model {name!r} is there already", where=str(target), hint="another --name, or --overwrite")
        with writing_folder(target) as out:
            made = _convert(found, out, _said(found, weights, wish, source))
    notes = (*made.notes, *([weights.remark] if weights and weights.remark else ()))
    return Adopted(target, tuple(made.card.structures), made.card.licence, notes)


def _convert(found: Path, out: Path, said: dict[str, object]) -> Outside:
    """Write the model in ``found`` to ``out``, and read it again to see that it can be used."""
    for file in ("dataset.json", "plans.json"):
        shutil.copyfile(found / file, out / file)
    write_text(out / "oncontour.json", json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    for path in checkpoint_paths(found)[0]:
        write_checkpoint(read_checkpoint(path), out / path.parent.name)
    return read_nnunet(out, backend="torch", threads=1)


# ---- which model


def _models_below(root: Path) -> Iterator[Path]:
    """The model folders at or below ``root``."""
    for here, folders, _ in walk(root):
        if is_nnunet(here) and any(here.glob("fold_*")):
            yield here
        if len(here.relative_to(root).parts) >= _DEEPEST:
            folders.clear()


def _one_of(found: list[Path], configuration: str | None, source: Path) -> Path:
    if not found:
        what = "no trained nnU-Net v2 is here: a folder with plans.json, dataset.json and fold_0"
        raise ModelError(what, where=str(source), hint="give the folder TRAINER__PLANS__CONFIGURATION, or the zip that nnU-Net exported")
    called = [path.name.split("__")[-1] for path in found]
    if configuration is not None:
        found = [path for path, one in zip(found, called, strict=True) if one == configuration]
    if len(found) != 1:
        what = f"{len(found)} models{f' of configuration {configuration}' if configuration else ''} are here, of {', '.join(called)}"
        raise ModelError(what, where=str(source), hint="pick one of them with --configuration, or give its folder")
    return found[0]


def _names(found: Path, root: Path, source: Path) -> list[str]:
    """What the dataset that the model learned from may be called: by its plans, its folders, its archive."""
    planned = read_json(found / "plans.json").get("dataset_name")
    return [str(planned or ""), *(path.name for path in (found, *found.parents) if path.is_relative_to(root.parent)), source.stem]


def _name(asked: str | None, found: Path, weights: Weights | None, source: Path) -> str:
    planned = str(read_json(found / "plans.json").get("dataset_name") or source.stem)
    dataset = _DATASET.fullmatch(planned)
    name = asked or (weights.name if weights else (dataset.group(1) if dataset else planned).lower())
    if not _NAME.fullmatch(name):
        what = f"a model's name has letters, digits and _.+- alone, not {name[:100]!r}"
        raise ModelError(what, where=str(source), hint="give it one with --name")
    return name


def _said(found: Path, weights: Weights | None, wish: Wish, source: Path) -> dict[str, object]:
    """What ``oncontour.json`` is to say: what the user says, else what lay beside the model, else what is known of TotalSegmentator."""
    said = dict(said_beside(found))
    if weights:
        labels = read_json(found / "dataset.json").get("labels")
        names = {label: name for label, name in tg263_of_classes().items() if isinstance(labels, dict) and label in labels}
        said = {"axes": AXES, "names": names, "licence": weights.licence, "data": DATA, **said}
    told = {"axes": wish.axes, "images": list(wish.images) if wish.images else None}
    said |= {key: value for key, value in told.items() if value is not None}
    where = {"file": source.name, "sha256": sha256_of([source]) if source.is_file() else sha256_of(checkpoint_paths(found)[0])}
    return {**said, "source": where}
