"""Writing without ever leaving half a file: temporary name beside the target, fsync, rename. Walking through folders, links followed."""

from __future__ import annotations

import csv
import errno
import glob
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from oncontour.errors import OncontourError, OutputError

Unreadable = Callable[[OSError], object]


def walk(folder: Path, unreadable: Unreadable | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder from ``folder`` down with the names of its folders and files, sorted; none whose name begins with a dot.

    Links to folders are followed, and every folder is gone into once, however many links lead there: none leads round to where it was, nor
    up to a folder that ``folder`` lies in. ``unreadable`` is called with the error of a folder that cannot be looked into.
    """
    start = folder.resolve()
    seen = {start}
    for parent, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        here = Path(parent)
        new = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            place = (here / name).resolve()
            if place not in seen and not start.is_relative_to(place):
                new.append(name)
                seen.add(place)
        folders[:] = new
        yield here, folders, sorted(files)


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving without error flush it to disk and rename it to ``path``.

    On any error, Ctrl-C included, the temporary file goes and what was at ``path`` stays; what a killed writer left beside ``path`` goes
    when the next one starts. Raises OutputError when the disk is full or the folder cannot be written.
    """
    path = at_end_of_link(path)
    with _beside(path, _new_file) as temporary:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush(path.parent)


@contextmanager
def writing_folder(path: Path | str) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; on leaving without error it becomes ``path``, replacing one that was there.

    Raises OutputError as ``writing`` does, and for the folder that the program was started in. A reader sees the old folder or the new
    one, never a mixture, even after kill -9; what a killed writer left beside ``path`` goes when the next one starts.
    """
    path = at_end_of_link(path)
    check_not_here(path)
    with _beside(path, _new_folder) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.chmod(0o777 & ~_umask())
        if not path.exists():
            temporary.replace(path)
        elif not _exchange(temporary, path):
            _replace_in_two_steps(temporary, path)
        _flush(path.parent)


@contextmanager
def scratch_folder(path: Path | str) -> Iterator[Path]:
    """Give an empty temporary folder on the disk of ``path``, which goes on leaving; what a killed process left there goes as the next one
    starts. Raises OutputError as ``writing`` does."""
    with _beside(Path(path), _new_folder) as temporary:
        yield temporary


@contextmanager
def _beside(path: Path, make: Callable[[Path], Path]) -> Iterator[Path]:
    """A temporary that ``make`` makes beside ``path``, gone at the end unless it was moved away; errors of writing as OutputError."""
    temporary: Path | None = None
    lock: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        temporary, lock = _claimed(lambda: make(path))
        yield temporary
    except OSError as error:
        raise as_output_error(error, path) from error
    except OncontourError as error:
        if temporary is None or str(temporary) not in error.where:
            raise
        raise type(error)(error.what, where=error.where.replace(str(temporary), str(path)), hint=error.hint) from error
    except Exception as error:
        if _means_full(error):
            raise as_output_error(OSError(errno.ENOSPC, "No space left on device"), path) from error
        raise
    finally:
        if temporary is not None:
            _discard(temporary)
        if lock is not None:
            os.close(lock)


def at_end_of_link(path: Path | str) -> Path:
    """``path``, or where it leads if it is a link: what is written goes there, on the disk that was chosen, and the link stays.

    Raises OutputError for a link that leads round to itself, and where the system refuses the name.
    """
    path = Path(path)
    try:
        return path.resolve() if path.is_symlink() else path
    except OSError as error:
        raise as_output_error(error, path) from error
    except RuntimeError as error:
        raise OutputError("a link leads round to itself", where=str(path), hint="name another place") from error


def sweep(path: Path | str) -> None:
    """Clear what killed writers of ``path`` left beside it (``.name.*.part``); one that is still at work is left alone.

    A folder that was moved away for a swap that never ended (``.name.*.old``) comes back where ``path`` is missing.
    """
    path = at_end_of_link(path)
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        if not path.exists() and (old / "was").exists():
            (old / "was").replace(path)
        shutil.rmtree(old, ignore_errors=True)
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part*"):
        lock = _lock(part, wait=False)
        if lock is not None:
            _discard(part)
            os.close(lock)


def _new_file(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part" + path.suffix, dir=path.parent)
    os.close(handle)
    return Path(name)


def _new_folder(path: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))


def _discard(path: Path) -> None:
    """``path`` goes, file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _claimed(make: Callable[[], Path]) -> tuple[Path, int | None]:
    """A new temporary and the lock that says its writer is alive; made again when a sweep took it in between."""
    while True:
        temporary = make()
        lock = _lock(temporary, wait=True)
        if temporary.exists():
            return temporary, lock
        if lock is not None:
            os.close(lock)


def _lock(path: Path, *, wait: bool) -> int | None:
    """A handle that holds ``path`` for this process until it ends, however it ends; None where another holds it or locks are unknown."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in a single step (Linux renameat2, RENAME_EXCHANGE); False where the system cannot."""
    import ctypes

    at_here, exchange = -100, 2
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return rename is not None and rename(at_here, os.fsencode(one.absolute()), at_here, os.fsencode(other.absolute()), exchange) == 0


def _replace_in_two_steps(new: Path, path: Path) -> None:
    """The old folder aside, the new one in; back again when that fails, and by ``sweep`` when the process dies in between."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    path.replace(old / "was")
    try:
        new.replace(path)
    except OSError:
        (old / "was").replace(path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def check_not_here(path: Path | str) -> None:
    """Raise OutputError where ``path`` is the folder that we are in: it cannot be replaced under our feet."""
    path = Path(path)
    if path.resolve() == Path.cwd():
        raise OutputError("this is the folder that you are in", where=str(path), hint="name a folder within it, or go elsewhere")


def check_writable(path: Path | str) -> None:
    """Raise OutputError where a folder ``path`` could not be made or written in, as far as that can be told before long work is done."""
    path = Path(path).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise OutputError("a file is in the way of the folder", where=str(there), hint="choose another folder")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise as_output_error(OSError(errno.EACCES, "Permission denied"), there)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """``rows`` as CSV; None is an empty cell, numbers are written so that they read back the same."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def readable(name: str) -> str:
    """A name from the file system as text that can be written anywhere: every byte of it that is no UTF-8 is a question mark."""
    return name.encode("utf-8", "replace").decode("utf-8")


_COMMANDS_OF_TERMINALS = {code: "?" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def shown(text: str) -> str:
    """``text`` with "?" in place of what commands a terminal: names in it, which anybody may have given, neither move the cursor nor hide a
    warning."""
    return text.translate(_COMMANDS_OF_TERMINALS)


def as_output_error(error: OSError, path: Path) -> OutputError:
    """The OSError of a write in words a person can act on; of one that a library (pydicom) raised anew, the one that it came from."""
    while error.errno is None and isinstance(error.__cause__ or error.__context__, OSError):
        error = cast(OSError, error.__cause__ or error.__context__)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free space or choose another --out; nothing was changed" if full else "choose a folder that can be written"
    return OutputError(
        "the disk is full" if full else f"cannot write ({error.strerror or next(iter(str(error).splitlines()), 'no reason given')})",
        where=str(path),
        hint=hint,
    )


def _means_full(error: Exception) -> bool:
    """Whether a library (safetensors) reports a full disk in an error of its own."""
    return "No space left on device" in str(error) and not isinstance(error, OutputError)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
