"""Workers on a Ray cluster (ray_cluster): actors that keep their models in memory, on whichever nodes there are."""

from __future__ import annotations

import os

from oncontour.commands.cohort_work import Outcome, Work, done
from oncontour.commands.ray_cluster import Place, Ray, entered
from oncontour.errors import ConfigError

_POLL_S = 1.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_STARTS = 20
"""Workers that may fail to start, one after the other, before the cluster is given up."""


class Worker:
    """What lives on the cluster: models stay in its memory from patient to patient."""

    def __init__(self, work: Work, place: Place) -> None:
        from oncontour.learn.resident import keep

        keep()
        place.take()
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
        self._ray = entered()
        self._work = self._ray.put(work)
        made = self._ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self._make = made.options(runtime_env={"env_vars": _ONE_THREAD})
        self._starting: dict[Ray, Ray] = {}
        self._idle: list[Ray] = []
        self._hand: dict[Ray, tuple[Ray, str]] = {}
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
        actor = self._make.remote(self._work, Place.here())
        self._starting[actor.ready.remote()] = actor

    def _started(self, actor: Ray, well: bool) -> None:
        if well:
            self._failed_starts = 0
            self._idle.append(actor)
            return
        self._failed_starts += 1
        if self._failed_starts > _STARTS:
            hint = "every node needs this program, in the version that is used here; the logs of the cluster say more"
            raise ConfigError("no worker can be started on the Ray cluster", where=os.environ["RAY_ADDRESS"], hint=hint)
        self._start()

    def _answer(self, ref: Ray) -> object:
        """What a worker answered; None where it died."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError:
            return None
