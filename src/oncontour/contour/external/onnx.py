"""A net in one file, ONNX or TorchScript, with a JSON file of the same name beside it that says what it needs.

``net.onnx`` + ``net.json``::

    {"labels": ["Brainstem", "SpinalCord"],   classes 1..n in order (0..n-1 for "sigmoid"); or {"1": "Brainstem", ...}
     "spacing_mm": [3, 1, 1],                 of the net's three axes; left out: the image's own
     "axes": "SPL",                           where the net's axes run (default: k to Superior, j to Posterior, i to Left)
     "window": [64, 192, 192],                voxels seen at once; [1, j, i] for a net that sees slices
     "activation": "softmax",                 or "sigmoid" (structures may overlap); applied to the net's answer: logits
     "intensity": {"clip": [-1000, 1000], "scale": [0, 1]},      or {"clip": ..., "mean": 77.0, "std": 200.0}; left out: HU as they are
     "image": "ct", "dims": 3, "context": 0, "overlap": 0.5, "threshold": 0.5, "name": "..."}

The last line shows the defaults. A net sees (n, 1, k, j, i), or for slices (n, 2 * context + 1, j, i), and answers (n, classes, ...).

ONNX is a list of operations and numbers; OpenVINO runs it, and no operator from elsewhere is loaded. TorchScript is a program: it is
not Python and starts no process, but it may write files, so it is only run when the caller says that its origin is trusted.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.external.base import Directions, Outside, axes_of, card_of, check_window, image_of, read_json
from oncontour.contour.external.values import Values, listed, number, numbers, wholes
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import ModelError
from oncontour.learn.engine import Backend, Engine
from oncontour.libraries import memory_told, why

if TYPE_CHECKING:
    from torch import nn

Map = Callable[[NDArray[np.float32]], NDArray[np.float64]]
SUFFIXES = (".onnx", ".ts", ".pt", ".torchscript")
TRUST = "if you trust where it comes from, say so with --trust; or have it exported to ONNX, which cannot act on the machine"


def is_single(path: Path) -> bool:
    """Whether ``path`` is a net in one file that this module can read."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read_single(path: Path, *, backend: Backend = "auto", threads: int | None = None, trust: bool = False) -> Outside:
    """The net in ``path`` with its JSON. Raises ModelError where the JSON is missing or wrong, or TorchScript comes without ``trust``."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise ModelError(
            "nothing says what this net contours", where=str(path), hint=f"write {beside.name} beside it: labels, window and grey values"
        )
    said = _Said.of(read_json(beside), beside)
    check_window(said.window, str(beside))
    if path.suffix.lower() == ".onnx":
        engine = Engine.load_onnx(path, threads=threads)
    else:
        engine = Engine.load(load_torchscript(path, trust=trust), said.example, backend="torch", threads=threads)
    return Outside(
        card=card_of(said.name or path.stem, path.suffix[1:].lower(), said.labels, said.spacing_mm or (), [path]),
        labels=said.labels,
        prepare=said.prepare,
        predict=engine,
        window=said.window,
        backend=engine.backend,
        threads=engine.threads,
        overlap=said.overlap,
        mode=said.activation,
        threshold=said.threshold,
        dims=said.dims,
        context=said.context,
    )


def load_torchscript(path: Path, *, trust: bool) -> nn.Module:
    """A TorchScript module. Raises ModelError without ``trust``, or where the file is none."""
    if not zipfile.is_zipfile(path):
        raise ModelError("this is no TorchScript file", where=str(path))
    with zipfile.ZipFile(path) as archive:
        if not any("/code/" in name for name in archive.namelist()):
            raise ModelError(
                "weights without their net", where=str(path), hint="give the MONAI bundle or nnU-Net folder they come from, or ONNX"
            )
    if not trust:
        raise ModelError("TorchScript is a program and is not run unasked", where=str(path), hint=TRUST)
    import torch

    try:
        with memory_told(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # files of this kind will be around for years
            module: nn.Module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ModelError(f"this TorchScript file cannot be read ({why(error)})", where=str(path)) from error
    return module


@dataclass(frozen=True)
class _Said:
    """The JSON beside a net."""

    labels: tuple[str, ...]
    window: tuple[int, int, int]
    axes: Directions
    spacing_mm: tuple[float, ...] | None
    activation: str
    intensity: Map
    image: str
    dims: int
    context: int
    overlap: float
    threshold: float
    name: str

    @classmethod
    def of(cls, said: Values, path: Path) -> _Said:
        known = {
            "labels",
            "window",
            "axes",
            "spacing_mm",
            "activation",
            "intensity",
            "image",
            "dims",
            "context",
            "overlap",
            "threshold",
            "name",
        }
        if unknown := sorted(set(said) - known):
            raise ModelError(f"unknown settings {unknown}; known are {sorted(known)}", where=str(path))
        try:
            activation = said.get("activation", "softmax")
            if activation not in ("softmax", "sigmoid"):
                raise ValueError(f"activation {activation!r}: softmax or sigmoid")
            k, j, i = wholes(said["window"])
            spacing = said.get("spacing_mm")
            _check(said, (k, j, i))
            return cls(
                labels=names_of(said["labels"]),
                window=(k, j, i),
                axes=axes_of(said.get("axes", "SPL"), str(path)),
                spacing_mm=None if spacing is None else tuple(numbers(spacing)),
                activation=str(activation),
                intensity=intensity(said.get("intensity", {})),
                image=str(said.get("image", "ct")),
                dims=int(number(said.get("dims", 3))),
                context=int(number(said.get("context", 0))),
                overlap=number(said.get("overlap", 0.5)),
                threshold=number(said.get("threshold", 0.5)),
                name=str(said.get("name", "")),
            )
        except KeyError as error:
            raise ModelError(f"{error} is missing", where=str(path)) from error
        except (TypeError, ValueError) as error:
            raise ModelError(f"a setting cannot be used ({error})", where=str(path)) from error

    @property
    def example(self) -> tuple[int, ...]:
        return (1, 2 * self.context + 1, *self.window[1:]) if self.dims == 2 else (1, 1, *self.window)

    def prepare(self, case: Case) -> Volume:
        """(1, k, j, i), the image turned, resampled and scaled."""
        image = image_of(case, self.image)
        grid = image.geometry.reorient(self.axes)
        if self.spacing_mm is not None:
            grid = grid.resample(self.spacing_mm)
        image = image.to(grid, fill=float(image.array.min()))
        return Volume(np.asarray(self.intensity(image.array), np.float32)[None], grid)


def _check(said: Values, window: tuple[int, int, int]) -> None:
    """Raises ValueError for numbers that no net can mean."""
    spacing, dims, context = said.get("spacing_mm"), int(number(said.get("dims", 3))), int(number(said.get("context", 0)))
    if min(window) < 1 or dims not in (2, 3) or (dims == 2 and window[0] != 1):
        raise ValueError(f"dims 2 with a window [1, j, i], or dims 3, not {dims} with {list(window)}")
    if context < 0 or (context and dims == 3):
        raise ValueError(f"context {context}: slices beside the one that a net of dims 2 sees")
    if spacing is not None and (len(listed(spacing)) != 3 or not all(0 < mm < np.inf for mm in numbers(spacing))):
        raise ValueError(f"spacing_mm is three positive millimetres, not {spacing}")
    if not 0 < number(said.get("threshold", 0.5)) < 1:
        raise ValueError(f"threshold is a probability, not {said['threshold']}")
    if not 0 <= number(said.get("overlap", 0.5)) < 1:
        raise ValueError(f"overlap is a part of the window, 0 <= overlap < 1, not {said['overlap']}")


def names_of(labels: object) -> tuple[str, ...]:
    """Labels in order, from a list or from {"1": name, ...} without gaps. Raises ValueError otherwise."""
    if isinstance(labels, Mapping):
        found = sorted(int(one) for one in labels)
        if found != list(range(1, len(found) + 1)):
            raise ValueError(f"labels must be numbered 1, 2, 3 ... without gaps, not {found}")
        return tuple(str(labels[str(n)]) for n in found)
    if not isinstance(labels, list) or not labels:
        raise ValueError(f"labels must be a list of names, not {labels!r}")
    return tuple(str(name) for name in labels)


def intensity(said: object) -> Map:
    """The grey-value map for {"clip": [low, high]} and {"scale": [to_low, to_high]} or {"mean": m, "std": s}. Raises ValueError."""
    if not isinstance(said, Mapping):
        raise ValueError(f"intensity is clip, scale, mean and std by name, not {said}")
    if unknown := sorted(set(said) - {"clip", "scale", "mean", "std"}):
        raise ValueError(f"intensity has no {unknown}: clip, scale, mean, std")
    low, high = numbers(said.get("clip", (-np.inf, np.inf)))
    if not low < high:
        raise ValueError(f"clip runs from low to high, not {said['clip']}")
    if "scale" in said:
        if not np.isfinite([low, high]).all():
            raise ValueError("scale needs clip")
        first, last = numbers(said["scale"])
        return lambda a: np.asarray((np.clip(a, low, high) - low) * ((last - first) / (high - low)) + first)
    mean, std = number(said.get("mean", 0)), number(said.get("std", 1))
    if std <= 0:
        raise ValueError(f"std must be positive, not {std}")
    return lambda a: np.asarray((np.clip(a, low, high) - mean) / std)
