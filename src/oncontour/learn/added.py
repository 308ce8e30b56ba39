"""Where models lie that a user added by name (``oncontour models add``): one folder a model in the user's data folder."""

from __future__ import annotations

import os
from pathlib import Path


def models_folder() -> Path:
    """``$XDG_DATA_HOME/oncontour/models``, else ``~/.local/share/oncontour/models``; on Windows below ``%LOCALAPPDATA%``.

    *Source:* XDG Base Directory Specification 0.8: a path that is not absolute does not count.
    """
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        told = Path(os.environ.get(name) or ".")
        if told.is_absolute():
            return told / "oncontour" / "models"
    return Path.home() / ".local" / "share" / "oncontour" / "models"


def added() -> dict[str, Path]:
    """Name -> folder of every model that was added; none where nothing was."""
    try:
        return {path.name: path for path in sorted(models_folder().iterdir()) if path.is_dir() and not path.name.startswith(".")}
    except (OSError, RuntimeError):  # no such folder, or no home
        return {}
