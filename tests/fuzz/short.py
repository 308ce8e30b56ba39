"""A bounded number of tries under hypothesis, in a process of its own: ``python -m tests.fuzz.short GROUP EXAMPLES``.

Hypothesis shrinks what it finds and prints it; the exit status is then 1. The draws are the same in every run.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.long import attempt, prepared
from tests.fuzz.seeds import GROUPS, Kind


def check(kind: Kind, place: Path, examples: int) -> None:
    """Raises AssertionError with what the reader did other than answer or refuse."""
    made = prepared(kind, place / kind.name)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def one(random: Random) -> None:
        verdict = attempt(kind, made, place / "try", random)
        assert not verdict.is_finding, f"{kind.name}: {verdict.kind}\n{verdict.detail}"

    one()


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        for kind in GROUPS[sys.argv[1]]:
            check(kind, Path(place), int(sys.argv[2]))


if __name__ == "__main__":
    main()
