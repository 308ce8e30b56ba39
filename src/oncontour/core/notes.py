"""Remarks for people that programs may act on: ``code`` says what a remark is about, the text is for reading and decides nothing.

    note = Note(NoteCode.DOSE_EFFECTIVE, "dose is EFFECTIVE (weighted by biology), not physical")
    about(case.facts["notes"], NoteCode.DOSE_EFFECTIVE)

A remark without a code of its own is a plain string, or a Note of NoteCode.REMARK: nothing is ever decided by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from oncontour.files import readable, walk


class NoteCode(StrEnum):
    """What a remark is about."""

    REMARK = "remark"
    """Anything that nothing is decided by."""
    ANOTHER_PATIENT_ID = "another patient ID"
    """UIDs say that an object belongs to the images, its PatientID says that it does not."""
    STRUCTURES_LEFT_OUT = "structures left out"
    """Structures or segments that are there are not used."""
    STRUCTURES_OF_ANOTHER_SERIES = "structures of another series"
    """Structures were drawn on another series in the same frame of reference."""
    FRAME_ACCEPTED = "frame of reference accepted"
    """Structures name another frame of reference, and the user said that it is the same."""
    DOSE_LEFT_OUT = "dose left out"
    """A dose that is there is not used."""
    DOSE_EFFECTIVE = "dose effective"
    DOSE_MAY_BE_CENTIGRAY = "dose may be centigray"
    DOSE_OF_PLANS = "dose of plans"
    """The dose is the sum of several plans."""
    DOSE_OF_PARTS = "dose of parts"
    """The dose is the sum of beams or fraction groups."""
    DOSE_INTERPOLATED = "dose interpolated"
    DOSE_OF_ONE_PLANE = "dose of one plane"


DOSE_DOUBTS = (
    NoteCode.ANOTHER_PATIENT_ID,
    NoteCode.STRUCTURES_OF_ANOTHER_SERIES,
    NoteCode.FRAME_ACCEPTED,
    NoteCode.DOSE_EFFECTIVE,
    NoteCode.DOSE_MAY_BE_CENTIGRAY,
    NoteCode.DOSE_OF_PLANS,
    NoteCode.DOSE_OF_PARTS,
    NoteCode.DOSE_INTERPOLATED,
    NoteCode.DOSE_OF_ONE_PLANE,
)
"""What belongs beside every figure of the dose."""

KEPT: dict[NoteCode, str] = {
    NoteCode.FRAME_ACCEPTED: "structures named another frame of reference than the images in the DICOM that they come from: "
    "taken as the same, as --same_frame said; each of their planes lay on a slice, sideways nothing was checked",
    NoteCode.STRUCTURES_OF_ANOTHER_SERIES: "structures were drawn on another series in the same frame of reference in the DICOM that they "
    "come from",
    NoteCode.ANOTHER_PATIENT_ID: "structures or dose had another PatientID than the images in the DICOM that they come from",
}
"""What is written with converted structures, and told when they are read again: words without UIDs and names of files."""

NOT_OF_IMAGES = (NoteCode.STRUCTURES_LEFT_OUT, NoteCode.DOSE_LEFT_OUT, *DOSE_DOUBTS)
"""What does not matter where the images alone are asked for."""
CHOOSE_DOSE = "choose one with --dose (oncontour adapt, convert, dvh, risk, run)"
"""The way out where it is not told which dose is meant."""

_SAFE_WORDS = frozenset(
    (
        *("ct", "mr", "mri", "im", "img", "image", "images", "slice", "series", "dcm", "dicom"),
        *("ima", "nii", "gz", "nrrd", "mha", "csv", "rs", "rd", "rp", "rt", "rtss"),
        *("rtstruct", "struct", "structures", "rtdose", "dose", "plan", "rtplan", "sum", "beam", "seg", "mask"),
        *("masks", "hu", "contours", "label", "labels", "segmentation", "segmentations", "orig", "original"),
    )
)
"""Of the name of a file or folder: words that name nobody."""
_MOST_SHOWN = 20
_MOST_NAMED = 3


class Note(str):
    """A remark: a string, its text, that knows its ``code``."""

    code: NoteCode

    def __new__(cls, code: NoteCode, text: str) -> Note:
        note = super().__new__(cls, text)
        note.code = code
        return note

    def __getnewargs__(self) -> tuple[NoteCode, str]:  # type: ignore[override]
        return self.code, str(self)

    def __str__(self) -> str:
        return str.__str__(self)

    @property
    def text(self) -> str:
        return str(self)


def code_of(note: str) -> NoteCode:
    """What ``note`` is about; of a plain string REMARK."""
    return note.code if isinstance(note, Note) else NoteCode.REMARK


def about(notes: Iterable[str], *codes: NoteCode) -> list[str]:
    """Those of ``notes`` that are about one of ``codes``."""
    return [note for note in notes if code_of(note) in codes]


def except_about(notes: Iterable[str], *codes: NoteCode) -> list[str]:
    """Those of ``notes`` that are about none of ``codes``."""
    return [note for note in notes if code_of(note) not in codes]


def because(notes: Iterable[str], *codes: NoteCode) -> str:
    """``": this; that"`` of the ``notes`` about ``codes``, to end a sentence with; "" where there are none."""
    reasons = about(notes, *codes)
    return f": {'; '.join(reasons)}" if reasons else ""


# ---- many names and many patients


def some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def counted(number: int, thing: str) -> str:
    """``1 slice``, ``2 slices``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def grouped(notes: Mapping[str, Sequence[str]], *, most: int | None = _MOST_SHOWN) -> list[str]:
    """A line for every remark on patients (id -> its notes), those of most patients first, and how many more there are than ``most``.

    >>> grouped({"a": ("no spacing",), "b": ("no spacing", "odd")})
    ['of 2 patients: no spacing', 'of b: odd']
    """
    whose: dict[str, list[str]] = {}
    for id, its in notes.items():
        for note in dict.fromkeys(map(str, its)):
            whose.setdefault(note, []).append(id)
    lines = [
        f"of {ids[0] if len(ids) == 1 else f'{len(ids)} patients'}: {note}"
        for note, ids in sorted(whose.items(), key=lambda item: -len(item[1]))
    ]
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"and {len(lines) - most} more remarks on reading the patients"]


# ---- without what names the patient


def anonymous(note: str, source: Path, attributes: Mapping[str, str]) -> str:
    """A reader's remark without what may name the patient: where the files lie, what they are called, and the patient's own
    ``attributes`` (PatientName, PatientID, PatientBirthDate). It keeps its code."""
    (shown,) = all_anonymous([note], source, attributes)
    return shown


def all_anonymous(notes: Sequence[str], source: Path, attributes: Mapping[str, str]) -> tuple[str, ...]:
    """``anonymous`` of each of ``notes``; the folder is looked through once."""
    if not notes:
        return ()
    told = [str(attributes.get(keyword, "")) for keyword in ("PatientName", "PatientID", "PatientBirthDate")]
    told += [part for value in told for part in re.split(r"[\^= ,]+", value)]
    told += [str(source.resolve()), str(source)]
    names = {source.name} if source.is_file() else _names_below(source)
    return tuple(_concealed(note, [*told, *([source.name] if source.is_file() else _telling(note, names))]) for note in notes)


def _concealed(note: str, told: Iterable[str]) -> str:
    shown = note
    for word in sorted({word for word in told if len(word) > 2 or not word.isascii()}, key=lambda word: (-len(word), word)):
        shown = re.sub(re.escape(word), "[...]", shown, flags=re.IGNORECASE)
    shown = readable(shown)
    return Note(note.code, shown) if isinstance(note, Note) else shown


def _names_below(folder: Path) -> set[str]:
    return {name for _, folders, files in walk(folder) for name in (*folders, *files)}


def _telling(note: str, found: Iterable[str]) -> list[str]:
    """Names of files and folders that ``note`` repeats and that say more than what kind of file it is: many are called by patients."""
    there = {shown for name in found for shown in (name, readable(name)) if shown in note}
    names = [name for name in there if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", note)]
    return [name for name in names if not {word.lower() for word in re.findall(r"[^\W\d_]+", name)} <= _SAFE_WORDS]
