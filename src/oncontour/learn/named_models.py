"""Other models that a model's settings name (``card.OTHERS``): as a file is to hold them, and as they are found from there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from oncontour.learn.card import OTHERS, is_file, shipped


def portable(settings: Mapping[str, object], folder: Path) -> dict[str, object]:
    """``settings`` as a file in ``folder`` is to hold them: another model that they name (``OTHERS``), where it is a file and no shipped
    name, by its way from ``folder``, so that nothing says where that lay on this machine, and both can be moved together."""
    out = dict(settings)
    for key, asked in _named(settings):
        if is_file(Path(asked)):
            try:
                out[key] = Path(os.path.relpath(Path(asked).resolve(), folder.resolve())).as_posix()
            except ValueError:  # on another drive
                out[key] = Path(asked).name
    return out


def _named(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """(setting, model) of the other models in ``settings`` that are no shipped ones."""
    return [(key, asked) for key in OTHERS if isinstance(asked := settings.get(key), str) and asked and asked not in shipped()]


def at_home(settings: Mapping[str, object], folder: Path) -> dict[str, object]:
    """The settings of a file in ``folder``, to work with: a way that ``portable`` made is a path again, if it leads to a file."""
    return {**settings, **{key: str((folder / asked).resolve()) for key, asked in _named(settings) if is_file(folder / asked)}}
