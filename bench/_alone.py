"""A bench on one thread: what it compares is compared on one, in this process as in the peer's."""

from __future__ import annotations

import os
import sys

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def on_one_thread() -> None:
    """Start this program anew with one thread in every library, unless it runs so already: they read it as they are imported."""
    if any(os.environ.get(name) != number for name, number in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
