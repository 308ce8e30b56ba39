"""What one patient of a cohort is to a worker: work by the patient's id, and what became of it in a few words.

A worker is a process of its own. What it makes it writes to files; only an ``Outcome`` goes back to who sent it the patient.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

from oncontour.errors import OncontourError
from oncontour.libraries import is_out_of_memory, missing


@dataclass(frozen=True)
class Outcome:
    """What became of a patient: done, or the sentence ``why`` not."""

    id: str
    why: str = ""
    """why there is no result, "" where there is one"""
    made_of: str = ""
    """a hash of the patient's files and of what was asked for: another one is work anew"""
    said: str = ""
    """what the command says of it"""
    seconds: float = 0.0
    memory_mb: float = 0.0
    """the most that the worker had held until then"""
    worker: str = ""
    """which process it was, to count them"""
    loaded: int = 0
    """models that the worker had to load for it: those of its first patient"""
    facts: Mapping[str, str] | None = None
    """what the cohort's page tells of the acquisition: month and scanner"""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, object]) -> Outcome:
        """As ``as_dict`` gave it. Raises TypeError where it is none."""
        return cls(**{item.name: told[item.name] for item in fields(cls) if item.name in told})  # type: ignore[arg-type]


class Work(Protocol):
    """What is done with each patient. It goes to workers as a copy, and must not depend on who was worked on before."""

    def __call__(self, id: str) -> Outcome:
        """Do patient ``id`` now, whether or not there is an earlier result. Raises what is wrong with the patient."""

    def made_of(self, id: str) -> str:
        """A hash that changes with the patient's files and with what is asked for."""

    def is_there(self, id: str) -> bool:
        """Whether the result of ``id`` still lies where it was written."""


def done(work: Work, id: str) -> Outcome:
    """What ``work`` gives for ``id``, or in a sentence why there is nothing: whatever is wrong with one patient stops no other."""
    from oncontour.learn.resident import loaded
    from oncontour.result import peak_memory_mb

    began, before = time.monotonic(), loaded()
    files = ""
    try:
        files = work.made_of(id)
        found = replace(work(id), made_of=files)
        if work.made_of(id) != files:  # written to meanwhile: to be done again by the next run
            found = replace(found, made_of="")
    except Exception as error:
        found = Outcome(id, sentence(error), made_of=files)
    return replace(
        found,
        seconds=round(time.monotonic() - began, 3),
        memory_mb=peak_memory_mb(),
        worker=f"{platform.node()} {os.getpid()}",
        loaded=loaded() - before,
    )


def sentence(error: Exception) -> str:
    """Why a patient could not be done."""
    error = missing(error) or error
    if isinstance(error, OncontourError):
        return str(error)
    if is_out_of_memory(error):
        return "needs more memory than there is"
    return f"an error nobody expected ({type(error).__name__}: {str(error)[:200]})"
