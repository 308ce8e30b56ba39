"""One try in a child process: a reader may answer or raise an OncontourError, within a time and an address space, and nothing else."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oncontour.errors import OncontourError

MEMORY_BYTES = 3 << 30
SECONDS = 20


@dataclass(frozen=True)
class Verdict:
    """``kind``: "read", "refused" (OncontourError), or a finding: "crash" (any other exception), "hang", "killed" (by a signal)."""

    kind: str
    detail: str
    seconds: float

    @property
    def is_finding(self) -> bool:
        return self.kind not in ("read", "refused")

    @property
    def signature(self) -> str:
        """What makes two findings the same: kind, exception and the innermost line of our own code."""
        lines = self.detail.strip().splitlines()
        own = [line.strip() for line in lines if "/oncontour/" in line and line.strip().startswith("File")]
        return " | ".join([self.kind, lines[-1][:120] if lines else "", own[-1] if own else ""])


def judge(
    read: Callable[[Path], object], path: Path, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES, patience: float = 4.0
) -> Verdict:
    """``read(path)`` in a forked child, stopped after ``seconds`` of its own work, or of ``patience`` times that in waiting."""
    started = time.monotonic()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _child(read, path, send, memory_bytes, seconds)
    os.close(send)
    said, hung = _listen(receive, patience * seconds)
    os.close(receive)
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    took = time.monotonic() - started
    if hung:
        return Verdict("hang", f"{said}still at it after {patience * seconds} s", took)
    if os.WIFSIGNALED(status):
        return Verdict("killed", f"{said}signal {signal.Signals(os.WTERMSIG(status)).name}", took)
    kind, _, detail = said.partition("\n")
    return Verdict(kind or "killed", detail or f"exit status {os.WEXITSTATUS(status)}", took)


def _child(read: Callable[[Path], object], path: Path, send: int, memory_bytes: int, seconds: float) -> None:
    """Never returns. A traceback of where it hung goes out on SIGPROF; the parent kills what even that does not stop."""
    said = "killed\n"
    gc.freeze()  # what the parent left for the collector may belong to its threads, which are not here
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        signal.signal(signal.SIGPROF, _time_up)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        limit = _address_space() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(send)
        said = _outcome(read, path)
    except BaseException:
        said = "crash\n" + traceback.format_exc()
    finally:
        with contextlib.suppress(OSError):
            os.write(send, said.encode("utf-8", "replace")[-60_000:] if len(said) < 60_000 else _shortened(said))
        os._exit(0)


def _address_space() -> int:
    """Bytes of address space in use now, which the limit comes on top of."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0


def _shortened(said: str) -> bytes:
    return (said[:2000] + "\n...\n" + said[-20_000:]).encode("utf-8", "replace")


class _TimeUp(BaseException):
    """Not an Exception, so that no reader's ``except Exception`` swallows it."""


def _time_up(number: int, frame: object) -> None:
    raise _TimeUp


def _outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except OncontourError as error:
        return f"refused\n{type(error).__name__}: {error}"
    except MemoryError:
        gc.collect()
        return "crash\n" + traceback.format_exc()
    except _TimeUp:
        return "hang\n" + traceback.format_exc()
    except BaseException:
        return "crash\n" + traceback.format_exc(limit=-40)
    return "read\n"


def _listen(receive: int, seconds: float) -> tuple[str, bool]:
    """What the child said until it closed its end, and whether time ran out first."""
    parts: list[bytes] = []
    end = time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([receive], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return b"".join(parts).decode("utf-8", "replace"), True
        part = os.read(receive, 65536)
        if not part:
            return b"".join(parts).decode("utf-8", "replace"), False
        parts.append(part)


if sys.platform == "win32":  # fork and rlimits are what makes a try safe
    raise ImportError("the fuzzers need a POSIX system")
