"""From a model's card to a task, with no trust in the card: its settings are checked one by one, and its net is built within the bounds of
the file (``nets/bounded.py``) and compared with what the file holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from oncontour.classes import check
from oncontour.errors import ConfigError, ModelError, OncontourError
from oncontour.learn import TASKS, task_class
from oncontour.learn.card import Card, Shapes, is_number, refuse
from oncontour.libraries import is_out_of_memory, missing, why
from oncontour.nets import NETS

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
_LONGEST, _LARGEST = 64, 8192
"""Entries of a list, and size of a number, among the options of a net in a card."""
_WAY_OUT = "get the file again from whoever made it"


# ---- settings


def settings_from(card: Card, kind: type[T]) -> T:
    """The settings in a card as the dataclass ``kind``, each of the kind that its field says; what the card lacks has its default.

    Raises ModelError for a setting that is unknown, missing, of another kind or out of range; for a net that is no row of NETS and no
    class that the user named; and where the card's structures or spacing are not those of its settings.
    """
    held, where = card.settings, f"model {card.name}"
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    strange = [name for name in held if name not in known]
    missing = [name for name, one in known.items() if name not in held and one.default is MISSING and one.default_factory is MISSING]
    if strange or missing:
        refuse(f"settings are any of {', '.join(known)}", strange or f"without {', '.join(missing)}", where)
    values = {name: _read(held[name], hint, f"settings.{name}", where) for name, hint in get_type_hints(kind).items() if name in held}
    _check_net(str(values.get("net", "")), values.get("net_options", {}), where)
    try:
        made = kind(**values)
    except OncontourError as error:
        raise ModelError(f"the model's card is wrong: {error.what}", where=where, hint=_WAY_OUT) from error
    drawn = list(getattr(made, "structures", ()) or ([made.structure] if hasattr(made, "structure") else []))
    for name, said, meant in (("structures", card.structures, drawn), ("spacing_mm", card.spacing_mm, list(made.spacing_mm))):  # type: ignore[attr-defined]
        if said and list(said) != meant:
            refuse(f"{name} is {meant}, as its settings say", said, where)
    return made


def _check_net(name: str, options: object, where: str) -> None:
    if name:
        check(name, NETS, "net", where)
    for option, value in options.items() if isinstance(options, dict) else ():
        for one in value if isinstance(value, list) else [value]:
            plain = one is None or isinstance(one, bool) or (isinstance(one, str) and len(one) <= 100)
            if not plain and not (is_number(one) and abs(one) <= _LARGEST):
                refuse(f"settings.net_options.{option} is made of numbers up to {_LARGEST}", value, where)
        if isinstance(value, list) and len(value) > _LONGEST:
            refuse(f"settings.net_options.{option} has at most {_LONGEST} entries", value, where)


def _read(value: object, hint: object, place: str, where: str) -> object:
    """``value`` as a field of type ``hint`` takes it. Raises ModelError where it is of another kind."""
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        hints = get_type_hints(hint)
        strange = [name for name in value if name not in hints]
        if strange:
            refuse(f"{place} holds any of {', '.join(hints)}", strange, where)
        return hint(**{name: _read(one, hints[name], f"{place}.{name}", where) for name, one in value.items()})
    if not _fits(value, hint):
        refuse(f"{place} is {_words(hint)}", value, where)
    return tuple(value) if isinstance(value, list) else value


_PLAIN: Mapping[object, tuple[Callable[[object], bool], str]] = {
    Any: (lambda value: True, "anything"),
    NoneType: (lambda value: value is None, "null"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (lambda value: type(value) is int and abs(value) < 2**53, "a whole number"),
    float: (is_number, "a number"),
    str: (lambda value: isinstance(value, str), "text"),
}


def _fits(value: object, hint: object) -> bool:
    if hint in _PLAIN:
        return _PLAIN[hint][0](value)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    if origin is tuple and isinstance(value, list):
        each = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        return len(each) == len(value) and all(_fits(one, kind) for one, kind in zip(value, each, strict=True))
    return False


def _words(hint: object) -> str:
    """What ``_fits`` asks for, to be read."""
    if hint in _PLAIN:
        return _PLAIN[hint][1]
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return f"a list, each {_words(inner[0])}" if inner[1:] == (...,) else f"a list of {len(inner)}, each {_words(inner[0])}"
    return "values by name"


# ---- grids


MAX_NEIGHBOURS, MAX_WINDOW = 64, 2**28
"""Slices on either side that may ride along, and numbers (voxels and their neighbours) that a net may see at once: 1 GiB of them."""


def check_grid(spacing_mm: Sequence[float], window: Sequence[int], neighbours: int = 0) -> None:
    """Raise ConfigError for a working grid or a window (k, j, i) that no net can have."""
    if len(spacing_mm) != 3 or not all(0.01 <= mm <= 100 for mm in spacing_mm):
        raise ConfigError(f"spacing_mm is three spacings (k, j, i) from 0.01 to 100 mm, not {list(spacing_mm)}")
    if not 0 <= neighbours <= MAX_NEIGHBOURS:
        raise ConfigError(f"0 to {MAX_NEIGHBOURS} slices on either side ride along, not neighbours={neighbours}")
    if len(window) != 3 or min(window) < 1 or math.prod(window) * (1 + 2 * neighbours) > MAX_WINDOW:
        raise ConfigError(f"a net sees windows (k, j, i) of 1 to {MAX_WINDOW} voxels with their neighbours, not {list(window)}")


# ---- nets


class HasNet(Protocol):
    """A task, as far as reading its file goes."""

    net: nn.Module


def built(card: Card, held: Shapes, where: Path) -> HasNet:
    """The task that ``card`` describes, its net still without weights, for a file that holds tensors of the shapes ``held``.

    Raises ModelError where the card is wrong, or its net is not the one that the file holds. Outside classes, which the user named, are
    built as they are.
    """
    if card.task not in TASKS or ":" in str(card.settings.get("net", "")):
        return _told(lambda: _made(card), where)
    task = _told(lambda: _made_within(card, held), where)
    needed = {name: tuple(value.shape) for name, value in task.net.state_dict().items()}
    differs = [name for name in sorted({*needed, *held}) if needed.get(name) != held.get(name)]
    if differs:
        name = differs[0]
        raise ModelError(
            f"the card describes another net than the file holds: {name} is {_shape(needed, name)}, in the file {_shape(held, name)}",
            where=str(where),
            hint=_WAY_OUT,
        )
    return task


def _made(card: Card) -> HasNet:
    made: HasNet = task_class(card.task).from_card(card)  # type: ignore[attr-defined]
    return made


def _made_within(card: Card, held: Shapes) -> HasNet:
    from oncontour.nets.bounded import at_most

    with at_most(held):
        return _made(card)


def _shape(shapes: Shapes, name: str) -> str:
    return str(shapes[name]) if name in shapes else "missing"


def _told(make: Callable[[], T], where: Path) -> T:
    """What ``make`` gives. Raises ModelError whatever goes wrong with a net that a card describes, but for memory."""
    try:
        return make()
    except ModelError as error:
        raise ModelError(error.what, where=str(where), hint=error.hint or _WAY_OUT) from error
    except OncontourError as error:
        raise ModelError(f"the model's card is wrong: {error.what}", where=str(where), hint=_WAY_OUT) from error
    except Exception as error:  # of whatever kind: torch and MONAI raise many for options that make no net
        if (lacking := missing(error)) is not None:
            raise lacking from error
        if is_out_of_memory(error):
            raise MemoryError("no memory left for the net") from error
        raise ModelError(
            f"the model's card describes no net that can be built ({type(error).__name__}: {why(error)})", where=str(where), hint=_WAY_OUT
        ) from error
