"""What every test may ask for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needs import lacking

for _name, _value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg", "RAY_AUTH_MODE": "token"}.items():
    os.environ.setdefault(
        _name, _value
    )  # before torch, numba or matplotlib are imported: one thread, no window; Ray by token, which it asks when it is imported

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, and so deaf to Ctrl-C as would be every process the tests start; those that test it need to hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_word_because_this_machine_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command says does not depend on how long the machine took: no "reading" before the one sentence of an error."""
    monkeypatch.setattr("oncontour.progress.FIRST_S", 1e6)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real patients: ``$ONCONTOUR_DATA``, else ``../shared/data`` beside the repository. Skips where there is none, fails
    there where CI is true."""
    folder = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        lacking(f"no real patients at {folder}: set ONCONTOUR_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], list[str]]:
    """A function that gives the errors ``dciodvfy`` finds in a file. Skips where it is not installed, fails there where CI is true."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        lacking("dciodvfy is not installed (Debian package dicom3tools)")

    def errors(path: Path) -> list[str]:
        done = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
        found = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        return found if done.returncode >= 0 else [*found, f"dciodvfy ended by signal {-done.returncode}"]

    return errors
