"""The net of a model as ONNX, beside its file: what a machine without torch runs.

    hn-organs.safetensors     the model: card and weights
    hn-organs.onnx            its net once more, for OpenVINO (``oncontour models export``)

The ONNX file holds the model's card among its metadata, and at its end one SHA-256 over net and card. It is used only beside the model that
it was made from: where the hash is wrong, or the card names other weights or settings, it is refused. As with a model's card, the hash
finds damage and mix-ups; it is no signature, and says nothing of who made a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from oncontour.errors import ConfigError, ModelError
from oncontour.learn.build import settings_from
from oncontour.learn.card import Card, checked_card, is_file, of_task, shapes
from oncontour.learn.engine import Backend, Engine, chosen
from oncontour.learn.named_models import at_home
from oncontour.libraries import is_installed, need

S = TypeVar("S")
CARD, SEAL = "oncontour.card", "oncontour.sha256"
"""Keys of the metadata: the model's card as JSON; SHA-256 of all bytes of the file before this last entry, in hexadecimal."""
_DECIDES = ("task", "settings", "structures", "spacing_mm", "sha256")
"""What of a card must be that of the model beside; figures and limits may be written into it later (``oncontour stamp``)."""
_ELSEWHERE = b"\x0a\x08location\x12"
"""A tensor's numbers lie in another file (``external_data`` of TensorProto, key "location"), which no hash would cover."""


@dataclass
class Exported(Generic[S]):
    """A finished model in ``file`` whose net is the ONNX in ``net``."""

    settings: S
    held: Card
    file: Path
    net: bytes = field(repr=False)

    def card(self) -> Card:
        return self.held

    def engine(self, shape: Sequence[int], *, backend: Backend = "auto", threads: int | None = None) -> Engine:
        """The net, compiled for inputs of ``shape``, by OpenVINO whatever ``backend`` says but "torch", which ``exported`` passes by."""
        return Engine.load_onnx(self.net, shape, threads=threads, where=str(beside(self.file)))


def exported(file: Path, task: str, kind: type[S], backend: Backend, what: str) -> Exported[S] | None:
    """The model in ``file`` for ``task``, a row of TASKS, with settings of ``kind``, its net from the ONNX file beside it; None where there
    is no such file, ``backend`` is torch, or the task is one from outside.

    Raises ModelError for a model of another row (``what`` is said of the one that was wanted), where file or card are damaged, the ONNX
    file is of another model, or there is neither such a file nor torch; ConfigError where ``backend`` is not installed.
    """
    if of_task(file, task, what).task != task:
        return None
    net, library = beside(file), chosen(backend)
    if library == "torch" or not is_file(net):
        _check_torch(file, net, backend, library)
        return None
    card = checked_card(file)
    shapes(file)  # whose table of tensors is checked, as before any net is read
    data = read_sealed(net, card, file)
    return Exported(settings_from(replace(card, settings=at_home(card.settings, file.parent)), kind), card, file, data)


def _check_torch(file: Path, net: Path, backend: Backend, library: str) -> None:
    """Raise where torch is needed for the net, and is not installed."""
    if is_installed("torch"):
        return
    if backend == "torch":
        need("torch", "--backend torch")
    if library == "torch":  # nobody asked for it: there is no OpenVINO
        raise ConfigError("neither OpenVINO nor torch can be imported", hint="pip install openvino, or pip install 'oncontour[train]'")
    raise ModelError(
        f"this model comes without {net.name}, and torch is not installed to read its net",
        where=str(file),
        hint=f"pip install 'oncontour[train]', or where that is: oncontour models export {file}",
    )


def beside(file: Path) -> Path:
    """Where the net of the model in ``file`` lies as ONNX."""
    return file.with_suffix(".onnx")


def sealed(net: bytes, card: Card) -> bytes:
    """An ONNX file with ``card`` among its metadata, and the hash at its end.

    A protocol buffer may be continued by appending entries, ``metadata_props`` (field 14 of ModelProto, key 1 and value 2) among them.
    """
    data = net + _entry(CARD, card.as_json())
    return data + _entry(SEAL, hashlib.sha256(data).hexdigest())


def is_sealed(net: Path) -> bool:
    """Whether a file ends as those do that ``sealed`` made; nothing is said of its hash."""
    return _SEAL_OF_ZEROS[:-64] in net.read_bytes()[-len(_SEAL_OF_ZEROS) :]


def read_sealed(net: Path, card: Card, file: Path) -> bytes:
    """The bytes of an ONNX file. Raises ModelError where it was changed, or was not made from the model in ``file`` with this ``card``."""
    way_out = f"make it anew where torch is installed: oncontour models export {file}; or delete it"
    try:
        data = net.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model's net ({error.strerror})", where=str(net)) from error
    rest, seal = data[: -len(_SEAL_OF_ZEROS)], data[-len(_SEAL_OF_ZEROS) :]
    if seal != _entry(SEAL, hashlib.sha256(rest).hexdigest()):
        raise ModelError("the net does not hash to what the file says", where=str(net), hint=way_out)
    if _ELSEWHERE in rest:
        raise ModelError("the net keeps numbers in other files, which no hash covers", where=str(net), hint=way_out)
    held, mine = _card_in(rest), json.loads(card.as_json())
    if any(held.get(name) != mine[name] for name in _DECIDES):
        raise ModelError(f"the net was made from another model than {file.name} beside it", where=str(net), hint=way_out)
    return data


def _card_in(rest: bytes) -> dict[str, object]:
    """The card that ``sealed`` put last into a file; empty where there is none."""
    key = b"\x0a" + _varint(len(CARD)) + CARD.encode() + b"\x12"
    _, found, value = rest.rpartition(key)
    length = at = 0
    while found and at < min(len(value), 5):
        length |= (value[at] & 0x7F) << 7 * at
        at += 1
        if value[at - 1] < 0x80:
            break
    try:
        told = json.loads(value[at : at + length]) if at + length == len(value) else {}
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _entry(key: str, value: str) -> bytes:
    """One entry of ``metadata_props``."""
    inner = b"".join(tag + _varint(len(text)) + text for tag, text in ((b"\x0a", key.encode()), (b"\x12", value.encode())))
    return b"\x72" + _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    """A whole number as protocol buffers write it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


_SEAL_OF_ZEROS = _entry(SEAL, "0" * 64)
