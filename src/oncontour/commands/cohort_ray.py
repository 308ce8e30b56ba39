"""Workers on a Ray cluster: actors that keep their models in memory, on whichever nodes there are.

A Ray cluster runs whatever program reaches it, so only one is entered that asks for a token (``RAY_AUTH_MODE=token``), and it belongs in a
closed network. oncontour and the folders of patients and results must be found under the same paths on every node.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Any as _Ray  # a handle of Ray, which tells no types

from oncontour.classes import allow, allowed
from oncontour.commands.cohort_work import Outcome, Work, done
from oncontour.errors import ConfigError
from oncontour.libraries import need

_POLL_S = 1.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_STARTS = 20
"""Workers that may fail to start, one after the other, before the cluster is given up."""


class Worker:
    """What lives on the cluster: models stay in its memory from patient to patient."""

    def __init__(self, work: Work, classes: Sequence[str]) -> None:
        from oncontour.learn.resident import keep

        keep()
        for name in classes:
            allow(name)
        self.work = work

    def ready(self) -> str:
        """That it has started."""
        return "ready"

    def do(self, id: str) -> Outcome:
        """What became of patient ``id``."""
        return done(self.work, id)


class Actors:
    """One worker a processor of the cluster, or ``jobs``; one that dies is replaced wherever there is room."""

    def __init__(self, work: Work, jobs: int, patients: int) -> None:
        self._ray = _entered()
        self._work = self._ray.put(work)
        made = self._ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self._make = made.options(runtime_env={"env_vars": _ONE_THREAD})
        self._starting: dict[_Ray, _Ray] = {}
        self._idle: list[_Ray] = []
        self._hand: dict[_Ray, tuple[_Ray, str]] = {}
        self._failed_starts = 0
        for _ in range(max(1, min(jobs or int(self._ray.cluster_resources().get("CPU", 1)), patients))):
            self._start()

    @property
    def busy(self) -> int:
        """Patients in hand."""
        return len(self._hand)

    @property
    def free(self) -> int:
        """Workers that have started and do nothing."""
        return len(self._idle)

    def give(self, id: str) -> None:
        """Hand patient ``id`` to a worker that does nothing."""
        actor = self._idle.pop()
        self._hand[actor.do.remote(id)] = (actor, id)

    def ended(self) -> list[tuple[str, Outcome | None]]:
        """Patients that came to an end, waiting for one for a while; None: the worker, or its node, died with the patient in hand. Raises
        ConfigError where no worker can be started."""
        asked = [*self._hand, *self._starting]
        ready, _ = self._ray.wait(asked, num_returns=1, timeout=_POLL_S)
        more, _ = self._ray.wait(asked, num_returns=len(asked), timeout=0)
        out: list[tuple[str, Outcome | None]] = []
        for ref in dict.fromkeys([*ready, *more]):
            found = self._answer(ref)
            if ref in self._starting:
                self._started(self._starting.pop(ref), found is not None)
                continue
            actor, id = self._hand.pop(ref)
            out.append((id, found if isinstance(found, Outcome) else None))
            if found is None:
                self._start()
            else:
                self._idle.append(actor)
        return out

    def close(self) -> None:
        """End the workers and leave the cluster, which goes on."""
        for actor in [*self._idle, *self._starting.values(), *(one for one, _ in self._hand.values())]:
            self._ray.kill(actor)
        self._ray.shutdown()

    def _start(self) -> None:
        actor = self._make.remote(self._work, allowed())
        self._starting[actor.ready.remote()] = actor

    def _started(self, actor: _Ray, well: bool) -> None:
        if well:
            self._failed_starts = 0
            self._idle.append(actor)
            return
        self._failed_starts += 1
        if self._failed_starts > _STARTS:
            hint = "every node needs this program, in the version that is used here; the logs of the cluster say more"
            raise ConfigError("no worker can be started on the Ray cluster", where=os.environ["RAY_ADDRESS"], hint=hint)
        self._start()

    def _answer(self, ref: _Ray) -> object:
        """What a worker answered; None where it died."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError:
            return None


def _entered() -> _Ray:
    """Ray, connected to the cluster of RAY_ADDRESS. Raises ConfigError where Ray is not installed, no cluster is named or reached, or it
    would be entered without a token."""
    need("ray", "--engine ray")
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    if not re.fullmatch(r"[^\s/]+:\d+", address):
        hint = "set RAY_ADDRESS to HOST:PORT of the cluster's head, as docs/cohort.md shows"
        raise ConfigError("--engine ray needs a cluster, and RAY_ADDRESS names none", hint=hint)
    if os.environ.get("RAY_AUTH_MODE") != "token":
        hint = "start the cluster with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, and set both here, as docs/cohort.md shows"
        raise ConfigError("a Ray cluster without a token runs anybody's programs, and is not entered", where=address, hint=hint)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        hint = "is it running, and is RAY_AUTH_TOKEN its token?"
        raise ConfigError(f"the Ray cluster cannot be entered ({type(error).__name__})", where=address, hint=hint) from error
    return ray
