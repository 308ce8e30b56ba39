"""How many patients are spread over processes, batch jobs or a Ray cluster: the options that every command with a cohort has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from oncontour.errors import ConfigError
from oncontour.processors import available

Engine = Literal["processes", "ray", "here"]


@dataclass(frozen=True)
class Many:
    """How a cohort is worked on. Raises ConfigError for what cannot be."""

    jobs: int = 0
    """of a cohort: worker processes at once, each with one thread and models of its own in memory; 0: as many as there are processors"""
    shard: str = ""
    """of a cohort: only this part of the patients, as 2/8, the second of eight, for the second of eight batch jobs with one --out"""
    engine: Engine = "processes"
    """of a cohort: who works; ray: the cluster that RAY_ADDRESS names, entered with the token of RAY_AUTH_TOKEN; here: this process, one
    patient after the other, which a patient that needs too much memory then ends"""

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise ConfigError(f"processes are counted from 1 (0 for as many as there are processors), not {self.jobs}")
        self._part()

    @property
    def is_asked(self) -> bool:
        """Whether anything is said that only a cohort needs."""
        return self != Many()

    @property
    def workers(self) -> int:
        """How many processes work on this machine."""
        return self.jobs or available()

    def picked(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The patients of this shard: every one of ``ids`` is in one shard and no other."""
        part, of = self._part()
        return tuple(ids[part - 1 :: of])

    def _part(self) -> tuple[int, int]:
        if not self.shard:
            return 1, 1
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard)
        part, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= part <= of:
            hint = "write --shard 2/8 for the second of eight parts; parts are counted from 1"
            raise ConfigError(f"a shard is PART/PARTS with PART from 1 to PARTS, not {self.shard[:40]!r}", hint=hint)
        return part, of
