"""Other people's models as contourers, behind the same door as ours: ``load_foreign(path).predict(case)``.

    folder with plans.json and dataset.json      an nnU-Net v2 model        contour/external/nnunet.py
    folder with configs/metadata.json            a MONAI bundle             contour/external/bundle.py
    .onnx, .ts, .pt with a .json beside it       a net in one file          contour/external/onnx.py

Masks come home to the case's own grid, named by TG-263 where a name is known. No pickle is executed, no Python from a model is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oncontour.contour.external.base import Foreign, Outside
from oncontour.contour.external.bundle import is_bundle, read_bundle
from oncontour.contour.external.nnunet import described as nnunet_described
from oncontour.contour.external.nnunet import is_nnunet, read_nnunet
from oncontour.contour.external.onnx import is_single, read_single
from oncontour.errors import ModelError, OncontourError
from oncontour.learn.card import Card
from oncontour.learn.engine import Backend
from oncontour.libraries import memory_told, why
from oncontour.ops.tidy import Tidy


def is_foreign(path: Path | str) -> bool:
    """Whether ``path`` looks like a model of one of the kinds above."""
    path = Path(path)
    return is_nnunet(path) or is_bundle(path) or is_single(path)


def load_foreign(
    path: Path | str,
    *,
    backend: Backend = "auto",
    rules: Tidy | None = None,
    threads: int | None = None,
    trust: bool = False,
    folds: Sequence[int | str] | None = None,
    mirror: bool = False,
) -> Foreign:
    """The model at ``path``, ready to predict.

    ``trust`` lets TorchScript run, which is a program (see ``contour/external/onnx.py``). ``folds`` and ``mirror`` are for nnU-Net: which
    folds are averaged (default: all numbered ones, else fold_all), and whether predictions of mirrored images are averaged too (as nnU-Net
    does by default; 8 times the work in 3D). Raises ModelError saying what is wrong and how to convert it.
    """
    path, rules = Path(path), rules or Tidy()
    try:
        with memory_told():
            return Foreign(_read(path, backend, threads, trust, folds, mirror), rules)
    except (OncontourError, MemoryError):
        raise
    except Exception as error:  # files of other people hold anything; whatever it is, the model cannot be used
        raise ModelError(
            f"the model's files do not hold what they should ({type(error).__name__}: {why(error)})",
            where=str(path),
            hint="copy the whole model again",
        ) from error


def described(path: Path) -> Card:
    """What the files of a model say of it. Raises ModelError as ``load_foreign``."""
    return nnunet_described(path) if is_nnunet(path) else load_foreign(path).model.card


def _read(path: Path, backend: Backend, threads: int | None, trust: bool, folds: Sequence[int | str] | None, mirror: bool) -> Outside:
    if is_nnunet(path):
        return read_nnunet(path, backend=backend, threads=threads, folds=folds, mirror=mirror)
    if is_bundle(path):
        return read_bundle(path, backend=backend, threads=threads, trust=trust)
    if is_single(path):
        return read_single(path, backend=backend, threads=threads, trust=trust)
    raise ModelError(
        "no model of a known kind",
        where=str(path),
        hint="give a .safetensors of oncontour, an nnU-Net v2 folder (plans.json, dataset.json), a MONAI bundle, or .onnx with .json",
    )
