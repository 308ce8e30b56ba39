"""JSON and YAML that somebody gives us, read within limits that hold before memory is spent.

YAML can say in a few lines what fills a machine (an alias of aliases of aliases); JSON and YAML can be nested until the reader's own stack
ends. Nothing that oncontour reads needs either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oncontour.errors import FormatError, InputError, LimitError

MAX_JSON_BYTES = 16 * 2**20
MAX_YAML_BYTES = 2**20
MAX_DEPTH = 64
"""Lists and mappings within each other."""
MAX_VALUES = 200_000
"""Values that a YAML text stands for once its aliases are followed."""
_SMALLER = "give a file that holds the settings alone"
_CHECK_PATH = "check the path, and whether it is a file"


def read_json(path: Path) -> Any:
    """What the JSON file at ``path`` says.

    Raises InputError where there is no such file, LimitError beyond MAX_JSON_BYTES or MAX_DEPTH, FormatError where it is no JSON or a key
    comes twice in one object.
    """
    text = _read(path, MAX_JSON_BYTES)
    try:
        value = json.loads(text, object_pairs_hook=once)
    except RecursionError as error:
        raise _too_deep(str(path)) from error
    except ValueError as error:
        raise FormatError(f"this is no JSON that can be read ({error})", where=str(path)) from error
    _check_depth(value, str(path))
    return value


def once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON (the ``object_pairs_hook`` of json). Raises ValueError for a key that comes twice, of which json keeps the last."""
    out = dict(pairs)
    if len(out) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return out


def read_yaml(path: Path) -> Any:
    """What the YAML file at ``path`` says, in plain values.

    Raises InputError where there is no such file, LimitError beyond MAX_YAML_BYTES, MAX_DEPTH or MAX_VALUES, FormatError where it
    is no YAML.
    """
    import yaml

    text = _read(path, MAX_YAML_BYTES)
    try:
        check_yaml(text, str(path))
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise FormatError(f"this is no YAML ({_first_line(error)})", where=str(path)) from error


def check_size(path: Path, most: int) -> None:
    """Raises InputError where ``path`` is no file, LimitError where it has more than ``most`` bytes."""
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), hint=_CHECK_PATH)
    size = path.stat().st_size
    if size > most:
        raise LimitError(f"{size} bytes of text, at most {most} are read", where=str(path), hint=_SMALLER)


def check_yaml(text: str, where: str) -> None:
    """Raises LimitError where ``text`` is longer than MAX_YAML_BYTES, nested deeper than MAX_DEPTH, or stands for more than MAX_VALUES.

    Looks at the events of the parser alone: nothing is built. Raises yaml.YAMLError where it is no YAML.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise LimitError(f"{len(text)} letters of YAML, at most {MAX_YAML_BYTES} are read", where=where, hint=_SMALLER)
    open_: list[tuple[str | None, int]] = []
    counted: dict[str, int] = {}
    values = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in counted:
                raise LimitError(f"the alias *{event.anchor} stands within itself or for nothing", where=where, hint=_SMALLER)
            values += counted[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor:
                counted[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                counted[anchor] = values - before
        if len(open_) > MAX_DEPTH:
            raise _too_deep(where)
        if values > MAX_VALUES:
            what = f"the YAML stands for more than {MAX_VALUES} values once its aliases are followed"
            raise LimitError(what, where=where, hint="write out what is meant, without aliases of aliases")


def _read(path: Path, most: int) -> str:
    check_size(path, most)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"the file cannot be read as text ({error})", where=str(path)) from error


def _check_depth(value: object, where: str) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer))
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> LimitError:
    return LimitError(f"lists and mappings within each other more than {MAX_DEPTH} deep", where=where, hint=_SMALLER)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
