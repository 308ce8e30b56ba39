"""Whether a training goes on where an earlier one was stopped: what a run is made of, and its checkpoint, looked at before any work."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import TypeVar

import torch

from oncontour.documents import read_json
from oncontour.errors import InputError, OutputError
from oncontour.files import check_writable
from oncontour.learn.named_models import portable
from oncontour.learn.task import AnyTask
from oncontour.learn.train_settings import EARLIER_PRECISIONS, TrainSettings
from oncontour.libraries import memory_told

T = TypeVar("T")


def plain(value: T) -> T:
    """``value`` as it comes back from JSON: lists for tuples, text for keys."""
    read: T = json.loads(json.dumps(value))
    return read


def record_of(task: AnyTask, settings: TrainSettings, started: dict[str, str] | None, out: Path) -> dict[str, object]:
    """What settings.json holds: everything that makes this run what it is, and no place on this machine."""
    wanted: dict[str, object] = {"task": task.name, "task_settings": portable(task.card().settings, out), "training": asdict(settings)}
    return plain(wanted | ({"started_from": started} if started else {}))


def resumed(out: Path, record: dict[str, object], made_of: Mapping[str, object]) -> Path | None:
    """The checkpoint to go on from, if any. Raises OutputError when OUT holds a run of other settings or cannot be written.

    ``made_of`` are the settings behind parts of ``record``: one that came after OUT was begun counts as its default there.
    """
    check_writable(out)
    settings, last = out / "settings.json", out / "checkpoints" / "last.ckpt"
    if settings.exists():
        held = _held(settings)
        held.pop("patients", None)  # they are compared once they were read
        held.pop("notes", None)
        held |= {key: _completed(held[key], made_of[key]) for key in made_of if key in held}
        if isinstance(task := held.get("task_settings"), dict):
            held["task_settings"] = portable(task, out)  # earlier versions wrote a path
        differs = sorted(_differences(_as_made(held), _as_made(record)))
        if differs:
            raise OutputError(
                f"the folder holds another run (different: {', '.join(differs)})", where=str(out), hint="choose another --out"
            )
    if not last.exists():
        return None
    _check_checkpoint(last)
    return last


def _check_checkpoint(path: Path) -> None:
    """Raise OutputError where a checkpoint is damaged or holds more than tensors and plain values, before anything is done."""
    hint = "delete it to begin anew, or choose another --out"
    if not zipfile.is_zipfile(path):
        raise OutputError("the checkpoint is damaged", where=str(path), hint=hint)
    try:
        with memory_told():
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:  # of whatever kind: it is not one that a training wrote
        raise OutputError(
            "the checkpoint is damaged, or holds more than tensors and plain values, which is not loaded", where=str(path), hint=hint
        ) from error
    if not isinstance(held, dict) or not {"state_dict", "loops", "epoch"} <= set(held):
        raise OutputError("the checkpoint is damaged: it is not of a training", where=str(path), hint=hint)


def _held(settings: Path) -> dict[str, object]:
    """What a run's settings.json says. Raises OutputError where it cannot be read as such."""
    try:
        found = read_json(settings)
    except InputError as error:
        raise OutputError(
            f"the settings of the run cannot be read ({error.what})", where=str(settings), hint="choose another --out"
        ) from error
    if not isinstance(found, dict):
        raise OutputError("the settings of the run are no JSON object", where=str(settings), hint="choose another --out")
    return found


def _as_made(record: dict[str, object]) -> dict[str, object]:
    """``record`` with what makes no other net spelled alike: structures that nobody said may overlap are kept apart, as with false; and a
    precision is called as it is now."""
    task, training = record.get("task_settings"), record.get("training")
    if isinstance(task, dict) and "overlap" in task:
        record = record | {"task_settings": task | {"overlap": bool(task["overlap"])}}
    if isinstance(training, dict) and training.get("precision") in EARLIER_PRECISIONS:
        record = record | {"training": training | {"precision": EARLIER_PRECISIONS[training["precision"]]}}
    return record


def _completed(held: object, settings: object) -> object:
    """``held``, what was written of a dataclass of settings, with the defaults of those fields that it does not have."""
    if not (isinstance(held, dict) and is_dataclass(settings)):
        return held
    out = dict(held)
    for one in fields(settings):
        if one.name in held:
            out[one.name] = _completed(held[one.name], getattr(settings, one.name))
        elif one.default is not MISSING or one.default_factory is not MISSING:
            default = one.default_factory() if one.default_factory is not MISSING else one.default
            out[one.name] = plain(asdict(default) if is_dataclass(default) and not isinstance(default, type) else default)
    return out


def _differences(a: object, b: object, path: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {*a, *b}:
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    elif a != b:
        yield path


def check_same_patients(out: Path, patients: Sequence[str]) -> None:
    """Raise OutputError where the run in OUT has learned from others: who was held back would not be the same, and some that were learned
    from would count as strangers. A run that was begun before this was written down is taken at its word."""
    held = _held(out / "settings.json").get("patients")
    if not isinstance(held, list) or held == list(patients):
        return
    more, gone = sorted(set(patients) - set(held)), sorted(set(held) - set(patients))
    said = [f"{len(names)} {word} ({', '.join(names[:3])})" for names, word in ((more, "new"), (gone, "missing")) if names]
    raise OutputError(
        f"the folder holds a run on other patients ({'; '.join(said)})", where=str(out), hint="choose another --out, or the same cohort"
    )


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold OUT for this training until it ends, however it ends. Raises OutputError where another one is at work in it.

    The processes of one training (ranks above 0) go in with the first. Where the system knows no locks nothing is held.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")):
        yield
        return
    try:
        import fcntl
    except ImportError:
        yield
        return
    check_writable(out)
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        for patience in range(20, -1, -1):  # what a killed training left behind (its workers) goes within seconds
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not patience:
                    hint = "wait for it, or choose another --out"
                    raise OutputError("another training is at work in this folder", where=str(out), hint=hint) from error
                time.sleep(0.5)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)
        if made and not any(out.iterdir()):
            out.rmdir()
