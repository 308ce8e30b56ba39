"""What a test needs and may not find: it is then skipped with a reason, and fails where ``CI`` is true, as the CI has all of it."""

from __future__ import annotations

import os
import shutil
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
