"""Writing without ever leaving half a file: temporary name beside the target, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oncontour.errors import OutputError


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving without error flush it to disk and rename it to ``path``.

    On any error, Ctrl-C included, the temporary file goes and what was at ``path`` stays. Raises OutputError when the disk is full
    or the folder cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part" + path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise as_output_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: Path | str) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; on leaving without error it becomes ``path``, replacing one that was there.

    Raises OutputError as ``writing`` does. A reader sees the old folder or the new one, never a mixture.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            path.replace(old / "was")
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise as_output_error(error, path) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def as_output_error(error: OSError, path: Path) -> OutputError:
    """The OSError of a write in words a person can act on."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free space or choose another --out; nothing was changed" if full else "choose a folder that can be written"
    return OutputError("the disk is full" if full else f"cannot write ({error.strerror or error})", where=str(path), hint=hint)


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
