"""How far long work has come, on stderr: one line redrawn in a terminal, plain lines elsewhere.

Whoever works long takes ``progress: Progress | None`` and calls it with the fraction done; who shows it is not their concern.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1."""

PLAIN_EVERY_S = 10.0
"""Seconds between lines where there is no terminal."""
QUIET_S = FIRST_S = 1.0
"""Work that ends within QUIET_S seconds is not spoken of; after FIRST_S something is, though no fraction is known yet."""


def part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """What tells ``progress`` of a step that is its part from ``begin`` to ``end``."""
    return None if progress is None else lambda fraction: progress(begin + (end - begin) * fraction)


def tell(progress: Progress | None, fraction: float) -> None:
    """``progress`` of a fraction done, where anybody listens."""
    if progress is not None:
        progress(fraction)


class ProgressLine:
    """Shows ``what`` with percent and the time still to go; quiet for work that ends within a second. Use as a context manager.

    >>> with ProgressLine("contouring") as line:  # doctest: +SKIP
    ...     contourer.predict(case, progress=line)
    """

    def __init__(self, what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.stream, self._clock = what, stream or sys.stderr, clock
        self._started = self._shown = clock()
        self._first: tuple[float, float] | None = None
        self._drawn = self._counted = False
        self._timer: threading.Timer | None = None

    def __call__(self, fraction: float) -> None:
        now = self._clock()
        since, already = self._first = self._first or (now, fraction)  # what came before (imports, reading) says nothing of the rest
        every = 0.1 if self.stream.isatty() else PLAIN_EVERY_S if self._counted else 0.0  # the first percent as soon as there are any
        if now - self._shown < every or now - self._started < QUIET_S:
            return
        self._shown, self._counted = now, True
        self._draw(sentence(self.what, fraction, now - since, already))

    def __enter__(self) -> ProgressLine:
        self._started = self._shown = self._clock()
        # Whoever waits sees from the first second on that something is done, also in a log: models are read, say.
        self._timer = threading.Timer(FIRST_S, self._begin)
        self._timer.daemon = True
        self._timer.start()
        return self

    def _begin(self) -> None:
        if not self._drawn:
            self._draw(f"{self.what}: reading")

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._drawn and self.stream.isatty():
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def _draw(self, text: str) -> None:
        self._drawn = True
        self.stream.write(f"\r{text}\x1b[K" if self.stream.isatty() else text + "\n")
        self.stream.flush()


def sentence(what: str, fraction: float, elapsed_s: float, already: float = 0.0) -> str:
    """``contouring: 45 %, 12 s left``: at the pace of the ``elapsed_s`` since ``already`` was done; no estimate before there is one."""
    if fraction <= already:
        return f"{what}: {int(100 * fraction)} %"
    return f"{what}: {int(100 * fraction)} %, {duration(elapsed_s * (1 - fraction) / (fraction - already))} left"


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
