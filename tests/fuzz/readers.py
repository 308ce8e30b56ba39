"""Readers whose verdict is known: ``python -m tests.fuzz.readers NAME FILE`` prints what the judge says of one, as JSON."""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import asdict
from pathlib import Path

from oncontour.errors import FormatError
from tests.fuzz.judge import judge


def reads(path: Path) -> object:
    return path.read_bytes()


def refuses(path: Path) -> object:
    raise FormatError("no good")


def crashes(path: Path) -> object:
    raise KeyError("oops")


def loops(path: Path) -> object:
    while True:
        pass


def hoards(path: Path) -> object:
    return bytearray(1 << 33)


def dies(path: Path) -> object:
    return ctypes.string_at(0)


READERS = {reader.__name__: reader for reader in (reads, refuses, crashes, loops, hoards, dies)}

if __name__ == "__main__":
    # Much patience: on a busy machine two seconds of work can take a minute, and the loop is to be caught at work.
    sys.stdout.write(json.dumps(asdict(judge(READERS[sys.argv[1]], Path(sys.argv[2]), seconds=2.0, patience=60))) + "\n")
