"""What a patient's or a cohort's place on disk is called, which of the two it is, and what is told where it is neither."""

from __future__ import annotations

import os
import re
from pathlib import Path

from oncontour.errors import CohortError, InputError
from oncontour.io.image.nifti import is_image

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_MARKS = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zX": "xz",
}  # fmt: skip
"""First bytes -> kind of archive; a tar alone has its mark at byte 257."""
_TAR_AT, _TAR = 257, b"ustar"
_UNPACK = "unpack it, and give the folder that comes of it"


def name_of(path: Path) -> str:
    """What ``path`` itself is called, a link by its own name and not by that of what it leads to; ``.`` by the name of the folder."""
    return Path(os.path.abspath(path)).name


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which pt_2 comes before pt_10."""
    return tuple((0, int(piece), piece) if piece.isdecimal() else (1, 0, piece.casefold()) for piece in re.split(r"(\d+)", text) if piece)


def check_patient(path: Path) -> None:
    """Raise InputError, with what to give, where ``path`` is no patient: not there, an archive, a table, or one DICOM file of several.

    A multi-frame image is a series by itself, and passes; so does any folder, whatever it holds.
    """
    if not path.exists():
        raise _absent(path)
    if not path.is_file() or is_image(path):
        return
    if kind := archive_kind(path):
        raise InputError(f"a {kind} archive, not the folder of a patient", where=str(path), hint=_UNPACK)
    if path.suffix.lower() == ".csv":
        raise InputError("a table, not the folder of a patient", where=str(path), hint="give the folder of one of the patients in it")
    if what := _one_of_several(path):
        raise InputError(f"{what}, not the folder of a patient", where=str(path), hint=f"give the folder that it lies in: {path.parent}")


def check_cohort(path: Path) -> None:
    """Raise CohortError, with what to give, where ``path`` is not there, or a file that is no table of patients."""
    if path.is_symlink() and not path.exists():
        raise CohortError("a link that leads nowhere, not a folder or CSV of patients", where=_absent(path).where, hint=_absent(path).hint)
    if not path.exists():
        raise CohortError("no such folder or CSV of patients", where=str(path))
    if not path.is_file():
        return
    hint = "give a folder of patient folders, or a CSV with the columns patient,path"
    if is_image(path):
        raise CohortError("one image, not a folder of patients", where=str(path), hint=hint)
    if kind := archive_kind(path):
        raise CohortError(f"a {kind} archive, not a folder of patients", where=str(path), hint=_UNPACK)
    if what := _one_of_several(path):
        raise CohortError(f"{what}, not a folder of patients", where=str(path), hint=hint)


def archive_kind(path: Path) -> str:
    """zip, tar, gzip, ... by the first bytes of the file; "" where it is none, or cannot be read (whoever reads it will say so)."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_TAR_AT + len(_TAR))
    except OSError:
        return ""
    if start[_TAR_AT:] == _TAR:
        return "tar"
    return next((kind for mark, kind in _MARKS.items() if start.startswith(mark)), "")


def archives_in(folder: Path) -> tuple[str, ...]:
    """Names of the archives at the top of ``folder``."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(ARCHIVES) and p.is_file())) if folder.is_dir() else ()


def _absent(path: Path) -> InputError:
    if path.is_symlink():
        return InputError(
            "a link that leads nowhere", where=f"{path} -> {os.readlink(path)}", hint="mend the link, or give the folder itself"
        )
    return InputError("no such file or folder", where=str(path))


def _one_of_several(path: Path) -> str:
    """What a DICOM file is that is no patient by itself, "" for one that is, and for any other file."""
    from oncontour.io.dicom.scan import scan

    if path.name.upper() == "DICOMDIR":
        return "a DICOMDIR, which lists the files beside it"
    found = scan(path)
    if not found:
        return ""
    one = found[0]
    if one.kind != "image":
        return f"one file ({one.what})"
    return "" if (one.files[0].whole("NumberOfFrames") or 1) > 1 else f"one image of a {one.modality} series"
