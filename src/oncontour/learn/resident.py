"""Models that stay in memory: a worker with many patients loads each model once, for the first of them.

Nothing stays in a process that did not ask for it with ``keep``: one that draws one patient has no use for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")
_KEPT: dict[Hashable, object] = {}
_STATE = {"keeps": False, "loaded": 0}


def keep() -> None:
    """From now on this process keeps what it loads by ``once``."""
    _STATE["keeps"] = True


@contextmanager
def kept() -> Iterator[None]:
    """Within this the process keeps what it loads by ``once``, and forgets it at the end unless it keeps anyway."""
    if _STATE["keeps"]:
        yield
        return
    keep()
    try:
        yield
    finally:
        _STATE["keeps"] = False
        _KEPT.clear()


def loaded() -> int:
    """How many models were loaded since the process began to keep them."""
    return _STATE["loaded"]


def once(key: Hashable, load: Callable[[], T]) -> T:
    """What ``load`` gives, from memory where this process keeps models and loaded one by this ``key`` before.

    ``key`` must say all that ``load`` depends on, and what it gives must answer each patient as if it were the first.
    """
    if not _STATE["keeps"]:
        return load()
    if key not in _KEPT:
        _KEPT[key] = load()
        _STATE["loaded"] += 1
    return cast(T, _KEPT[key])
