"""Who does which patient, and what became of each: a table of small files, so that any number of processes and machines may share it.

    .cohort/plan.json          what was asked for
    .cohort/owners/NAME        a driver at work: its time of change is its last sign of life
    .cohort/claims/ab/KEY      the patient that one driver has in hand
    .cohort/done/ab/KEY        what became of a patient

Files and not a database: a shared file system (NFS, Lustre) makes a link or a rename in one step for all who see it, while the locks that
SQLite needs are not to be trusted there. A claim appears by ``link``, which one of many succeeds in; it is taken from a driver that died by
``rename``, in which again one succeeds. Times of change are compared with each other only, all given by the one file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from oncontour.commands.cohort_work import Outcome
from oncontour.documents import read_json
from oncontour.errors import InputError, OutputError
from oncontour.files import as_output_error, write_text

FOLDER = ".cohort"
ALIVE_S = 15.0
"""How often a driver gives a sign of life."""
LEASE_S = 180.0
"""A driver of another machine without one for so long is dead: its patients are done by others."""
TRIES = 3
"""A patient that so many workers died of is listed, and not tried again in this run."""


class Table:
    """The table in ``folder``. ``owner``: the name of this driver in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.owner = uuid.uuid4().hex[:12]
        self._in_hand: set[str] = set()

    # ---- what was asked for

    def plan(self) -> Mapping[str, object] | None:
        """What an earlier run was asked for; None where there was none. Raises OutputError where it cannot be read."""
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        try:
            told = read_json(path)
        except InputError as error:
            raise OutputError(f"the table of the cohort is damaged ({error.what})", where=str(path), hint="choose another --out") from error
        return told if isinstance(told, dict) else {}

    def begin(self, plan: Mapping[str, object]) -> None:
        """Write down what is asked for."""
        write_text(self.folder / "plan.json", json.dumps(plan, indent=1, sort_keys=True) + "\n")

    # ---- this driver

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts the driver gives signs of life, and what it has claimed is its own; at the end it lets go of what is left."""
        sign, stop = self.folder / "owners" / self.owner, threading.Event()
        write_text(sign, json.dumps({"machine": _machine(), "pid": os.getpid(), "began": _began(os.getpid())}))

        def live() -> None:
            while not stop.wait(ALIVE_S):
                with suppress(OSError):
                    os.utime(sign)

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            for id in tuple(self._in_hand):
                self.let_go(id)
            sign.unlink(missing_ok=True)

    # ---- patients

    def claim(self, id: str) -> int | None:
        """Take patient ``id`` in hand: how many workers have died of it so far; None where another driver has it in hand."""
        path = self._place("claims", id)
        if self._link(path, id, 0):
            return 0
        held = _read(path)
        if held is not None and self._is_alive(str(held.get("owner"))):
            return None
        (self.folder / "owners" / str((held or {}).get("owner"))).unlink(missing_ok=True)
        tries = int(str((held or {}).get("tries", 0))) + 1
        taken = path.with_name(f".{path.name}.{self.owner}")
        try:
            path.rename(taken)  # one driver succeeds
        except FileNotFoundError:
            return None
        taken.unlink(missing_ok=True)
        return tries if self._link(path, id, tries) else None

    def finish(self, outcome: Outcome) -> None:
        """Write down what became of a patient of ours, and let go."""
        write_text(self._place("done", outcome.id), json.dumps(outcome.as_dict(), ensure_ascii=False) + "\n")
        self.let_go(outcome.id)

    def let_go(self, id: str) -> None:
        """Give a patient of ours back."""
        self._in_hand.discard(id)
        self._place("claims", id).unlink(missing_ok=True)

    def died(self, id: str, tries: int) -> None:
        """Write down how many workers have died of a patient of ours."""
        write_text(self._place("claims", id), self._claim_text(id, tries))

    def found(self, id: str) -> Outcome | None:
        """What became of patient ``id``; None where nothing did yet."""
        told = _read(self._place("done", id))
        with suppress(TypeError):
            return None if told is None else Outcome.of(told)
        return None

    # ---- files

    def _place(self, of: str, id: str) -> Path:
        """Where a patient stands; ids of any characters, none of them a path. 256 folders: none of them is long."""
        key = hashlib.sha256(id.encode()).hexdigest()[:24]
        return self.folder / of / key[:2] / f"{key}.json"

    def _link(self, path: Path, id: str, tries: int) -> bool:
        """Make the claim, whole, where there is none; False where there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f".{path.name}.{self.owner}.new")
        try:
            mine.write_text(self._claim_text(id, tries), encoding="utf-8")
            os.link(mine, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise as_output_error(error, path) from error
        finally:
            mine.unlink(missing_ok=True)
        self._in_hand.add(id)
        return True

    def _claim_text(self, id: str, tries: int) -> str:
        return json.dumps({"owner": self.owner, "tries": tries, "id": id}, ensure_ascii=False)

    def _is_alive(self, owner: str) -> bool:
        """Whether a driver still lives: on this machine by its process, elsewhere by its last sign of life."""
        if owner == self.owner:
            return True
        sign = self.folder / "owners" / owner
        told = _read(sign)
        if told is None:
            return False
        if told.get("machine") == _machine() and told.get("began"):
            return _began(int(str(told.get("pid", 0)))) == told["began"]
        mine = self.folder / "owners" / self.owner
        try:
            os.utime(mine)
            return mine.stat().st_mtime - sign.stat().st_mtime < LEASE_S
        except FileNotFoundError:
            return False


def _read(path: Path) -> dict[str, object] | None:
    """A small JSON object of ours; None where there is none, or no whole one."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _machine() -> str:
    """This machine since it was started, and the container that we are in: where a process number means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _began(pid: int) -> str:
    """When process ``pid`` began, in the system's ticks, as numbers are given again to others; "" where there is none, or no /proc."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[0] in "ZX" else told[19]
