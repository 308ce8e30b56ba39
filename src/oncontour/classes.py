"""Which class a name means: a row of a table (NETS, TASKS), or an outside ``module:Class`` that the *user* named.

Importing a class runs its module, and calling it runs the class. A model file may come from anybody, so what its card names is looked up
in the tables alone, until the user has named that very class: by ``--allow_class`` or ``allow``, or in settings of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module

from oncontour.errors import ConfigError, ModelError

_ALLOWED: set[str] = set()


def allow(name: str) -> None:
    """Let ``name``, an outside ``module:Class``, be imported and called in this process. Raises ConfigError for what is no such name."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        raise ConfigError(f"a class is named as module:Class, not {name!r}", hint="for example --allow_class ours.nets:OurNet")
    _ALLOWED.add(name)


def allowed() -> tuple[str, ...]:
    """What ``allow`` was told in this process, for others that work for it."""
    return tuple(sorted(_ALLOWED))


def named_by_user(name: str) -> None:
    """Where ``name``, of settings that the user gave, is an outside class, it is allowed by that."""
    if ":" in name:
        allow(name)


def check(name: str, table: Mapping[str, str], kind: str, where: str = "") -> None:
    """Raise ModelError where ``name`` is no row of ``table`` and no class that the user named; nothing is imported."""
    if name in table or name in _ALLOWED:
        return
    if ":" in name:
        raise ModelError(
            f"the {kind} {name!r} comes from outside oncontour and is not run unasked",
            where=where,
            hint=f"if you trust where the model comes from and have that class, repeat with --allow_class {name}",
        )
    raise ModelError(f"no {kind} {name!r}", where=where, hint=f"choose one of {', '.join(sorted(table))}, or name your own as module:Class")


def class_of(name: str, table: Mapping[str, str], kind: str) -> type:
    """The class that ``name`` means. Raises ModelError where it is no row of ``table`` and no class that the user named, or is no class."""
    check(name, table, kind)
    module, _, attribute = table.get(name, name).partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{kind} {name!r} cannot be imported ({error})", hint="is its module installed, or in PYTHONPATH?") from error
    if not isinstance(found, type):
        raise ModelError(f"{kind} {name!r} is no class", hint="name a class as module:Class")
    return found
