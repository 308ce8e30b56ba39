"""Every error that oncontour raises on purpose.

    OncontourError                 exit code of the command line
    ├── InputError                 2   the files or arguments that were given
    │   ├── SeriesError                a CT or MR series that is no volume (gap, duplicate, one slice)
    │   ├── StructureError             RTSTRUCT, SEG or contour content
    │   ├── DoseError                  RTDOSE content (units, NaN, overflow)
    │   ├── FormatError                a file that is not what its name says, or is cut short
    │   ├── LimitError                 larger than the reader allows (matrix, contours, decompressed size)
    │   ├── CohortError                a folder or CSV of patients
    │   │   └── IncompleteError        some patients could not be done; the others are, and everything of them is written
    │   └── ConfigError                a setting that cannot be used
    ├── GeometryError              2   two grids that do not meet
    ├── ModelError                 3   a model file, its card, or a net that does not fit it
    ├── TrainingError              4   training cannot go on
    └── OutputError                5   the result cannot be written (disk full, folder in use)

A message says what, where, both values, and the way out:

>>> str(SeriesError("slices 4.0 mm apart after 3.0 mm", where="series 1.2.3, slice 17", hint="export the series again"))
'slices 4.0 mm apart after 3.0 mm [series 1.2.3, slice 17]. Way out: export the series again'
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Which of ``known`` a mistyped ``word`` may have meant, capitals aside; None where none is like it."""
    by = {one.lower(): one for one in known}
    return next((by[one] for one in get_close_matches(word.lower(), by, n=1, cutoff=0.5)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The beginning of a hint, "did you mean X? ", or "" where nothing known is like ``word``."""
    near = nearest(word, known)
    return f"did you mean {near}? " if near else ""


class OncontourError(Exception):
    """Root of the tree. ``what`` is one sentence with both values; ``where`` names the place; ``hint`` the way out."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what + (f" [{where}]" if where else "") + (f". Way out: {hint}" if hint else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[OncontourError], what: str, where: str, hint: str) -> OncontourError:
    return kind(what, where=where, hint=hint)


class InputError(OncontourError):
    """The files or arguments that were given cannot be used."""

    exit_code = 2


class SeriesError(InputError):
    """A DICOM image series that is not a volume."""


class StructureError(InputError):
    """RTSTRUCT, SEG or contour content that cannot be used."""


class DoseError(InputError):
    """RTDOSE content that cannot be used."""


class FormatError(InputError):
    """A file that is not what it claims to be, or that is cut short."""


class LimitError(InputError):
    """Larger than a reader allows."""


class CohortError(InputError):
    """A folder or table of patients that cannot be used."""


class IncompleteError(CohortError):
    """Some patients could not be done. Everything of the others is written; ``done`` is what the command has to say of them."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", done: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.done = done

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), self.what, where=self.where, hint=self.hint, done=self.done), ()


class ConfigError(InputError):
    """A setting that cannot be used."""


class GeometryError(OncontourError):
    """Two grids that do not meet, or a grid that cannot exist."""

    exit_code = 2


class ModelError(OncontourError):
    """A model file, its card, or a net that does not fit it."""

    exit_code = 3


class TrainingError(OncontourError):
    """Training cannot start or go on."""

    exit_code = 4


class OutputError(OncontourError):
    """The result cannot be written; what was there before is untouched."""

    exit_code = 5
