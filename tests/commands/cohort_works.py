"""Work for workers that are killed: importable by name, as it goes to other processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oncontour import classes
from oncontour.commands.cohort_work import Outcome, Work
from oncontour.errors import InputError


@dataclass(frozen=True)
class Noting:
    """Writes OUT/ID.txt, and every start into OUT/log. ``lethal``: who it kills its worker for, and how often."""

    out: Path
    lethal: Mapping[str, int] = field(default_factory=dict)
    kills_driver: str = ""

    def __call__(self, id: str) -> Outcome:
        with (self.out / "log").open("a") as log:
            log.write(f"{id}\n")
        if self.started(id) <= self.lethal.get(id, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if id == self.kills_driver and self.started(id) == 1:
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        if id.startswith("bad"):
            raise InputError("no CT is here", where=id, hint="add one")
        (self.out / f"{id}.txt").write_text(f"made of {id}")
        return Outcome(id, said=id.upper())

    def made_of(self, id: str) -> str:
        return id

    def is_there(self, id: str) -> bool:
        return (self.out / f"{id}.txt").exists()

    def started(self, id: str) -> int:
        """How often ``id`` was begun, by whomever."""
        log = self.out / "log"
        return log.read_text().splitlines().count(id) if log.exists() else 0


@dataclass(frozen=True)
class Trusting:
    """Says which outside classes the user allowed its worker."""

    def __call__(self, id: str) -> Outcome:
        return Outcome(id, said=" ".join(classes.allowed()))

    def made_of(self, id: str) -> str:
        return id

    def is_there(self, id: str) -> bool:
        return False


@dataclass(frozen=True)
class Deadly:
    """``work``, but that it once kills its worker, and once the node that it is on, where that has the address ``node``."""

    work: Work
    flags: Path
    worker: str
    node: str

    def __call__(self, id: str) -> Outcome:
        if _address() == self.node and self._first("node"):
            os.kill(os.getppid(), signal.SIGKILL)  # the raylet that started us
            signal.pause()
        if id == self.worker and self._first("worker"):
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(6000):  # the other node has its turn before all is done
            if (self.flags / "node").exists() or id < self.worker:
                break
            time.sleep(0.05)
        return self.work(id)

    def made_of(self, id: str) -> str:
        return self.work.made_of(id)

    def is_there(self, id: str) -> bool:
        return self.work.is_there(id)

    def _first(self, what: str) -> bool:
        try:
            (self.flags / what).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())
