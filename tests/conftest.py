"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real patients: ``$ONCONTOUR_DATA``, else ``../shared/data`` beside the repository. Skips where there is none."""
    folder = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real patients at {folder}: set ONCONTOUR_DATA to their folder")
    return folder
