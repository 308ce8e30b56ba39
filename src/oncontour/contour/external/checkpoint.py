"""The weights of one fold of an nnU-Net: read from its ``.pth``, or from the ``weights.safetensors`` that ``models add`` made of it.

A ``.pth`` is a pickle of torch, of which tensors, containers, numbers and text alone are read (``base.load_tensors``). What is kept of it
are the parameters, each once, and, as text in the header of the safetensors file, the configuration, the axes along which mirrored images
may be averaged, and what the ``.pth`` was called. The state of the optimiser, most of a checkpoint, is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour.contour.external.base import load_tensors, tensors_in
from oncontour.contour.external.values import wholes
from oncontour.errors import ModelError
from oncontour.files import writing
from oncontour.libraries import memory_told, why

if TYPE_CHECKING:
    from torch import Tensor

CONVERTED = "weights.safetensors"
FINAL = "checkpoint_final.pth"
FILES = (CONVERTED, FINAL, "checkpoint_best.pth")
"""What may hold the weights of a fold; the first that is there counts."""
_MADE_BY = "add the model again with 'oncontour models add'"


@dataclass(frozen=True)
class Checkpoint:
    """``weights`` by their names in ``nets.nnunet.NnUNet``; ``configuration`` is "" where the file does not say it; ``mirrored`` are the
    spatial axes along which mirrored images may be averaged; ``file`` is what nnU-Net called it."""

    weights: Mapping[str, Tensor]
    configuration: str
    mirrored: tuple[int, ...]
    file: str


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a ``.pth`` or a converted file. Raises ModelError for anything else, or more, than tensors."""
    if path.name == CONVERTED:
        return _converted(path)
    from oncontour.nets.nnunet import own_names

    held = load_tensors(path)
    arguments = held.get("init_args")
    said = arguments.get("configuration") if isinstance(arguments, dict) else None
    axes = tuple(wholes(held.get("inference_allowed_mirroring_axes") or ()))
    return Checkpoint(own_names(tensors_in(held, path)), said if isinstance(said, str) else "", axes, path.name)


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write ``weights.safetensors`` into ``folder``, which is made; the numbers stay as they are, to the bit."""
    from safetensors.torch import save

    path = folder / CONVERTED
    told = {"configuration": checkpoint.configuration, "mirrored": json.dumps(checkpoint.mirrored), "file": checkpoint.file}
    tensors = {name: value.contiguous().clone() for name, value in checkpoint.weights.items()}
    with writing(path) as temporary:
        temporary.write_bytes(save(tensors, told))
    return path


def _converted(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with memory_told(), safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            told = dict(file.metadata() or {})
        return Checkpoint(weights, told["configuration"], tuple(wholes(json.loads(told["mirrored"]))), told["file"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"the weights cannot be read ({why(error)})", where=str(path), hint=_MADE_BY) from error
