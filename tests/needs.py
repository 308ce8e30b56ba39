"""What a test needs and may not find: it is then skipped with a reason, and fails where ``CI`` is true, as the CI has all of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """End this test for want of ``what``, a sentence that says how to get it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"the CI must have this: {what}")
    pytest.skip(what)


def browser() -> str:
    """The path of a Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    lacking("no browser here: install Chromium (Debian package chromium)")


def axe() -> str:
    """The source of axe-core, which finds what is hard to use without eyes or hands in a page (axe-playwright-python brings it)."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        lacking("no axe-core here: python -m pip install axe-playwright-python")
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


def ray() -> str:
    """The path of Ray's command line, beside this Python."""
    found = Path(sys.executable).parent / "ray"
    if not found.exists():
        lacking("Ray is not installed: pip install 'oncontour[ray]'")
    return str(found)


def ray_train() -> None:
    """Ray Train, which needs more than Ray."""
    from importlib import import_module

    ray()
    try:
        import_module("ray.train.torch")
    except ImportError:
        lacking("Ray Train is not installed: pip install 'oncontour[ray]'")
