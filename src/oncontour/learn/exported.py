"""The net of a model as ONNX, beside its file: what a machine without torch runs.

    hn-organs.safetensors     the model: card and weights
    hn-organs.onnx            its net once more, for OpenVINO (``oncontour models export``)

The ONNX file holds the model's card among its metadata, and at its end one SHA-256 over net and card. It is used only for the very model
that it was made from: where the hash or the card differ, it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from oncontour.errors import ModelError
from oncontour.learn.build import settings_from
from oncontour.learn.card import Card, checked_card, is_file, shapes
from oncontour.learn.engine import Backend, Engine, chosen
from oncontour.learn.named_models import at_home
from oncontour.libraries import is_installed

S = TypeVar("S")
CARD, SEAL = "oncontour.card", "oncontour.sha256"
"""Keys of the metadata: the model's card as JSON; SHA-256 of all bytes of the file before this last entry, in hexadecimal."""
_WAY_OUT = "make it anew where torch is installed: oncontour models export {}; or delete it"


@dataclass
class Exported(Generic[S]):
    """A finished model whose net runs from its ONNX file ``net``; ``file`` is the model file beside it."""

    settings: S
    held: Card
    file: Path
    net: Path

    def card(self) -> Card:
        return self.held

    def engine(self, shape: Sequence[int], *, backend: Backend = "auto", threads: int | None = None) -> Engine:
        """The net, compiled for inputs of ``shape``, by OpenVINO whatever ``backend`` says but "torch", which ``exported`` passes by."""
        return Engine.load_onnx(self.net, shape, threads=threads)


def exported(file: Path, kind: type[S], backend: Backend) -> Exported[S] | None:
    """The model in ``file`` with settings of ``kind``, its net from the ONNX file beside it; None where there is no such file, or
    ``backend`` is torch.

    Raises ModelError where file or card are damaged, the ONNX file is of another model, or there is neither such a file nor torch.
    """
    net = beside(file)
    if chosen(backend) == "torch" or not is_file(net):
        if not is_installed("torch"):
            raise ModelError(
                "this model comes without an ONNX file, and torch is not installed to read its net",
                where=str(file),
                hint="pip install 'oncontour[train]', or where that is: oncontour models export " + file.stem,
            )
        return None
    card = checked_card(file)
    shapes(file)  # whose table of tensors is checked, as before any net is read
    check_seal(net, card)
    return Exported(settings_from(replace(card, settings=at_home(card.settings, file.parent)), kind), card, file, net)


def beside(file: Path) -> Path:
    """Where the net of the model in ``file`` lies as ONNX."""
    return file.with_suffix(".onnx")


def sealed(net: bytes, card: Card) -> bytes:
    """An ONNX file with ``card`` among its metadata, and the hash at its end.

    A protocol buffer may be continued by appending entries, ``metadata_props`` (field 14 of ModelProto, key 1 and value 2) among them.
    """
    data = net + _entry(CARD, card.as_json())
    return data + _entry(SEAL, hashlib.sha256(data).hexdigest())


def check_seal(net: Path, card: Card) -> None:
    """Raise ModelError for an ONNX file that was changed, or that was not made from the model of ``card``."""
    try:
        data = net.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model's net ({error.strerror})", where=str(net)) from error
    last = len(_entry(SEAL, "0" * 64))
    rest, seal = data[:-last], data[-last:]
    if seal != _entry(SEAL, hashlib.sha256(rest).hexdigest()):
        raise ModelError("the net does not hash to what the file says", where=str(net), hint=_WAY_OUT.format(net.stem))
    if not rest.endswith(_entry(CARD, card.as_json())):
        raise ModelError(
            f"the net was made from another model than {net.stem}.safetensors beside it", where=str(net), hint=_WAY_OUT.format(net.stem)
        )


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
