"""The model files in a zip that somebody made: those that are needed, never outside the folder they go to, never more than announced.

An archive is refused as a whole where one of its names leads out of the folder (``../``, an absolute path, a link), where it is encrypted,
or where it would unpack to more than MAX_BYTES.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from oncontour.errors import FormatError, LimitError

MAX_BYTES = 16 * 2**30
"""Of all that an archive unpacks to."""
MAX_ENTRIES = 100_000
_WANTED = re.compile(r"(.*/)?(dataset\.json|plans\.json|oncontour\.json|fold_[^/]+/(checkpoint_final|checkpoint_best)\.pth)")
_BLOCK = 2**20


def unpack(archive: Path, folder: Path) -> None:
    """Put what an nnU-Net v2 model needs from ``archive`` into ``folder``.

    Raises FormatError where it is no zip, damaged, encrypted, or has a name that leads elsewhere, LimitError where it is too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _check(entries, archive)
            for entry in entries:
                if _WANTED.fullmatch(entry.filename):
                    _write(opened, entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"the archive cannot be read ({error})", where=str(archive), hint="download it again") from error


def _check(entries: list[zipfile.ZipInfo], archive: Path) -> None:
    if len(entries) > MAX_ENTRIES:
        raise LimitError(f"the archive holds {len(entries)} files, at most {MAX_ENTRIES} are taken", where=str(archive))
    size = sum(entry.file_size for entry in entries)
    if size > MAX_BYTES:
        raise LimitError(f"the archive unpacks to {size / 2**30:.1f} GiB, at most {MAX_BYTES / 2**30:.0f} are taken", where=str(archive))
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or stat.S_ISLNK(entry.external_attr >> 16):
            what = f"the archive holds {entry.filename[:100]!r}, which leads out of the folder it is unpacked to"
            raise FormatError(what, where=str(archive), hint="get the model from whoever made it")
        if entry.flag_bits & 1:
            raise FormatError("the archive is encrypted", where=str(archive), hint="unpack it, and add the folder")
        if entry.filename in seen and not entry.is_dir():
            raise FormatError(f"the archive holds {entry.filename[:100]!r} twice", where=str(archive), hint="download it again")
        seen.add(entry.filename)


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """One file, no byte more than its entry announces (zipfile reads no further)."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _BLOCK)
