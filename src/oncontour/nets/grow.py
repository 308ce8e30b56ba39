"""A trained net's weights into a wider one, so that it answers the same to begin with (Net2Net; Chen, Goodfellow, Shlens, ICLR 2016).

*Differs:* new channels are not copies of old ones: they start at random and what follows does not listen to them yet (weights zero), which
keeps the answers and breaks the symmetry at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oncontour.errors import ModelError
from oncontour.nets.unet import UNet3d


def grow(narrow: UNet3d, wide: UNet3d) -> None:
    """Fill ``wide`` (freshly initialised) from ``narrow`` in place: the same levels, no level narrower, the same inputs and outputs.

    Afterwards both give the same for any input. Raises ModelError when ``wide`` is not a wider ``narrow``.
    """
    mine, theirs = wide.state_dict(), narrow.state_dict()
    if mine.keys() != theirs.keys():
        raise ModelError(f"a net of {len(narrow.down)} levels does not grow into one of {len(wide.down)}")
    for name, old in theirs.items():
        mine[name] = _filled(name, old, mine[name].clone())
    wide.load_state_dict(mine)


def _filled(name: str, old: Tensor, new: Tensor) -> Tensor:
    """``new`` with ``old`` in its first channels; new outputs keep their weights, old outputs do not listen to new inputs."""
    if old.shape == new.shape:
        return old
    if old.ndim != new.ndim or old.shape[2:] != new.shape[2:] or any(a > b for a, b in zip(old.shape, new.shape, strict=True)):
        raise ModelError(f"weights {name} of shape {tuple(old.shape)} do not fit into {tuple(new.shape)}")
    if old.ndim == 1:
        new[: len(old)] = old
        return new
    out_axis = 1 if name.startswith("up.") else 0  # transposed convolutions hold inputs first
    halves = 2 if name.startswith("merge.") else 1  # what comes from the side, then what comes from below
    outputs = torch.arange(old.shape[out_axis])
    inputs = _places(old.shape[1 - out_axis], new.shape[1 - out_axis], halves)
    rows, columns = (outputs, inputs) if out_axis == 0 else (inputs, outputs)
    deaf = new.index_select(out_axis, outputs)
    new.index_copy_(out_axis, outputs, torch.zeros_like(deaf))
    new[rows[:, None], columns[None, :]] = old
    return new


def _places(old: int, new: int, halves: int) -> Tensor:
    """Where the ``old`` channels lie among the ``new``, each of the joined ``halves`` from its own start."""
    parts: Sequence[Tensor] = [torch.arange(old // halves) + n * (new // halves) for n in range(halves)]
    return torch.cat(list(parts))
