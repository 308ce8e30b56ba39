"""Worker processes on this machine: each is handed one patient at a time, so that of one that is killed it is known who it died of."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from oncontour.classes import allow, allowed
from oncontour.commands.cohort_work import Outcome, Work, done

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_POLL_S = 1.0


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    line: Connection
    patient: str = ""


class Processes:
    """``size`` worker processes at most, started when they are needed."""

    def __init__(self, work: Work, size: int) -> None:
        self.work, self.size = work, size
        self._workers: list[_Worker] = []

    @property
    def busy(self) -> int:
        """Patients in hand."""
        return sum(bool(one.patient) for one in self._workers)

    @property
    def free(self) -> int:
        """How many more can be taken."""
        return self.size - self.busy

    def give(self, id: str) -> None:
        """Hand patient ``id`` to a free worker."""
        worker = next((one for one in self._workers if not one.patient), None) or self._started()
        worker.patient = id
        with suppress(OSError):  # it died idle: ``ended`` finds it
            worker.line.send(id)

    def ended(self) -> list[tuple[str, Outcome | None]]:
        """Patients that came to an end, waiting for one for a while; None: the worker died with the patient in hand."""
        out: list[tuple[str, Outcome | None]] = []
        ready = wait([one.line for one in self._workers if one.patient], timeout=_POLL_S)
        for worker in [one for one in self._workers if one.line in ready]:
            id, worker.patient = worker.patient, ""
            try:
                out.append((id, worker.line.recv()))
            except (EOFError, OSError):
                out.append((id, None))
                self._drop(worker)
        return out

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker in list(self._workers):
            if worker.patient:
                worker.process.terminate()
            self._drop(worker)

    def _started(self) -> _Worker:
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(self.work, there, os.getpid(), allowed()), daemon=True)
        with _one_thread():
            process.start()
        there.close()  # the worker's end is then held by the worker alone, and closes when it dies
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.line.close()
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def serve(work: Work, line: Connection, driver: int, classes: Sequence[str]) -> None:
    """A worker's life: patients come by ``line``, outcomes go back, until the line closes. It dies with its driver. ``classes``: those from
    outside that the user allowed."""
    from oncontour.learn.resident import keep

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    _die_with(driver)
    logging.disable(logging.WARNING)  # what libraries say on the way is for developers
    keep()
    for name in classes:
        allow(name)
    with suppress(EOFError, OSError):
        while True:
            line.send(done(work, line.recv()))


def _die_with(driver: int) -> None:
    """Be killed when the driver is, where the system can (Linux, prctl PR_SET_PDEATHSIG): nobody then writes what no one waits for."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != driver:
        os._exit(0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started in here sum in one thread: as many as there are, each number comes out with the same digits."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
