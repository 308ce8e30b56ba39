"""The Ray cluster that RAY_ADDRESS names, entered with a token.

A Ray cluster runs whatever program reaches it, so only one is entered that asks for a token (``RAY_AUTH_MODE=token``), and it belongs in a
closed network. oncontour and the folders of patients and results must be found under the same paths on every node.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any as Ray  # Ray and its handles, which tell no types

from oncontour.classes import allow, allowed
from oncontour.errors import ConfigError
from oncontour.libraries import need

__all__ = ["Place", "Ray", "entered"]


@dataclass(frozen=True)
class Place:
    """What a worker must take over from who sent it: the ``folder`` that relative paths begin at, and the outside ``classes`` that the user
    allowed."""

    folder: str
    classes: Sequence[str]

    @classmethod
    def here(cls) -> Place:
        """Of this process."""
        return cls(os.getcwd(), allowed())

    def take(self) -> None:
        """Be there; where the folder is not on this machine relative paths lead nowhere, and reading them says so."""
        with suppress(OSError):
            os.chdir(self.folder)
        for name in self.classes:
            allow(name)


def entered() -> Ray:
    """Ray, connected to the cluster. Raises ConfigError where Ray is not installed, no cluster is named or reached, or it would be entered
    without a token."""
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
