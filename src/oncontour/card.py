"""The card of a model: what it is, read from the header of its .safetensors file without torch.

A model is one safetensors file. Its header holds the card as JSON under ``__metadata__["card"]``; ``hash`` in it is the SHA-256 of
the tensor bytes that follow, so a file whose weights were changed or cut short is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oncontour.errors import ModelError, did_you_mean

_MAX_HEADER = 32 * 1024 * 1024
WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped models."""


@dataclass(frozen=True)
class Card:
    """What a person and the program must know of a model before using it.

    ``task`` names a row of TASKS; ``settings`` rebuild the net; ``structures`` are its outputs (TG-263), ``spacing_mm`` (k, j, i) its
    grid; ``data`` and ``licence`` say what it learned from; ``metrics`` where and how well it was tested; ``limits`` what it is not for;
    ``made`` holds date, versions and settings of the training; ``sha256`` is the hash of the weights.
    """

    name: str
    task: str
    settings: dict[str, Any]
    structures: list[str] = field(default_factory=list)
    spacing_mm: list[float] = field(default_factory=list)
    region: str = ""
    data: str = ""
    licence: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    limits: str = ""
    made: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=False)


def shipped() -> dict[str, Path]:
    """Name -> file of every model that comes with the package."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def offered(task: str = "") -> list[str]:
    """Names of the shipped models for ``task``, a row of TASKS; of all by default."""
    return sorted(name for name, path in shipped().items() if not task or _task_of(path) == task)


def _task_of(path: Path) -> str:
    """The task of a model file, "" where it cannot be read."""
    try:
        return read_card(path).task
    except ModelError:
        return ""


def is_ours(model: str | Path) -> bool:
    """Whether a model's file is called as one of ours is; anything else is somebody else's (``tasks/foreign.py``)."""
    return Path(model).suffix == ".safetensors"


def find(model: str | Path, task: str = "") -> Path:
    """The file of a model given by path or by the name of a shipped one. Raises ModelError when there is none, naming those that are
    shipped for ``task``."""
    path = Path(model)
    # A folder of the name (of contours that the model drew, say) hides no shipped model; a file does.
    if path.is_file() or (path.exists() and str(model) not in shipped()):
        return path
    if str(model) in shipped():
        return shipped()[str(model)]
    names = offered(task)
    way = "give the path of a model file" + (f", or the name of one that is shipped: {', '.join(names)}" if names else "")
    raise ModelError(f"no model {str(model)!r}", hint=did_you_mean(str(model), names) + way)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """(parsed header, offset of the tensor bytes)."""
    try:
        with path.open("rb") as file:
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else _MAX_HEADER + 1
            if length > _MAX_HEADER:
                raise ModelError("this is not a safetensors file", where=str(path))
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(f"cannot read the model ({error.strerror})", where=str(path)) from error
    except ValueError as error:
        raise ModelError("the header of the model is damaged", where=str(path), hint="copy the file again") from error
    if not isinstance(header, dict):
        raise ModelError("the header of the model is damaged", where=str(path), hint="copy the file again")
    return header, 8 + int(length)


def read_card(path: Path | str) -> Card:
    """The card in a model file. Raises ModelError when the file is no model of oncontour."""
    header, _ = _header(Path(path))
    metadata = header.get("__metadata__")
    text = metadata.get("card") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ModelError("a safetensors file without an oncontour card", where=str(path), hint="train with `oncontour train`")
    try:
        return Card(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's card cannot be read ({error})", where=str(path), hint="use the version that wrote it") from error


def weights_sha256(path: Path | str) -> str:
    """SHA-256 of the tensor bytes of a safetensors file."""
    _, offset = _header(Path(path))
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checked_card(path: Path | str) -> Card:
    """The card, after the weights were found to have the hash it states. Raises ModelError when they do not."""
    card, found = read_card(path), weights_sha256(path)
    if card.sha256 != found:
        raise ModelError(
            f"the weights hash to {found[:16]}..., the card says {card.sha256[:16]}...", where=str(path), hint="copy the file again"
        )
    return card


def info(model: str) -> str:
    """What a model file says of itself, as JSON, its weights checked against the hash it states.

    Examples:
        oncontour info hn-organs
        oncontour info runs/neck/model.safetensors

    Args:
        model: path of a model file, or the name of a shipped model
    """
    return checked_card(find(model)).as_json()
