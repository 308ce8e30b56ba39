"""Copies of one instance: which of several files of one SOPInstanceUID is read, and whether they say the same.

A UID names one instance (DICOM PS3.5 9), yet who edits a file may leave it as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from oncontour.errors import DoseError, InputError, OncontourError
from oncontour.io.dicom import rtdose_read, rtstruct_read, seg_frames
from oncontour.io.dicom.elements import EXPLICIT_BIG
from oncontour.io.dicom.header import read_header
from oncontour.io.dicom.scan import SeriesFiles

_DATES = (
    *("StructureSetDate", "StructureSetTime", "InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"),
    *("SOPClassUID", "SOPInstanceUID"),
)
PLAN_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "FractionGroupSequence", "BeamSequence", "NumberOfFractionsPlanned", "DoseReferenceSequence"),
    "TargetPrescriptionDose",
)


def one_of_each(files: Sequence[SeriesFiles], error: type[InputError]) -> list[SeriesFiles]:
    """``files`` with one of those that are copies of one instance: the newest, and of equally new ones the same whatever they are called.

    A UID names one instance (PS3.5 9), yet who edits a file may leave it as it was: raises ``error`` where of two files of one
    SOPInstanceUID something differs that is read here. Of an RTSTRUCT that is its structures (numbers, names, frames of reference) and
    contours, of a SEG its segments, frames and voxels, of an RTDOSE its kind, plans, parts, grid and Gy. What is not read may differ:
    dates of export, approval, private elements, transfer syntax. What cannot be compared counts as different.
    """
    kept, different = first_of_each(files)
    for first, file in different:
        what = f"{pair_of(first, file)} bear one SOPInstanceUID ({file.sop_instance_uid}) and are not the same"
        raise error(what, hint="take the one that is not meant out of the folder; where both are, export them again, each with its own UID")
    return kept


def first_of_each(files: Sequence[SeriesFiles]) -> tuple[list[SeriesFiles], list[tuple[SeriesFiles, SeriesFiles]]]:
    """The first file of each SOPInstanceUID, and each that is not the same as the first of its UID, after that one."""
    kept: dict[str, SeriesFiles] = {}
    different = []
    for file in _copies_in_order(files):
        first = kept.setdefault(file.sop_instance_uid, file)
        if first.path != file.path and not _same(first, file):
            different.append((first, file))
    return list(kept.values()), different


def _copies_in_order(files: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    """``files``, of which copies of one instance stand where its first did: the newest first, big endian last; among equally new ones the
    content decides, not the name."""
    groups: dict[str, list[SeriesFiles]] = {}
    for file in files:
        groups.setdefault(file.sop_instance_uid, []).append(file)
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=lambda file: (_is_plain(file), date_of(file), _digest(file.path)), reverse=True)
    return [file for group in groups.values() for file in group]


def _is_plain(file: SeriesFiles) -> bool:
    """Not big endian, in which some objects are compared and not read."""
    return file.files[0].transfer_syntax_uid != EXPLICIT_BIG


def date_of(file: SeriesFiles) -> str:
    """Date and time of a structure set, else of the instance, else of its content (as of a segmentation, PS3.3 C.7.6.16.1), as digits; ""
    where the file has none."""
    header = read_header(file.path, _DATES)
    if header is None:
        return ""
    return next((told for n in (0, 2, 4) if (told := "".join(header.plain(key) for key in _DATES[n : n + 2]))), "")


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:  # whoever compares the copies finds them different
        return b""


def pair_of(one: SeriesFiles, other: SeriesFiles) -> str:
    """Two files by name, by path where the names are the same."""
    names = (one.path.name, other.path.name) if one.path.name != other.path.name else (str(one.path), str(other.path))
    return " and ".join(sorted(names))


def _same(one: SeriesFiles, other: SeriesFiles) -> bool:
    """Whether two files are the same to the byte, or in all that is read of them; what cannot be compared is not."""
    try:
        first, second = (_digest(file.path) for file in (one, other))
        return (first == second != b"") or content_of(one) == content_of(other)
    except Exception:
        return False


def content_of(file: SeriesFiles) -> tuple[object, ...]:
    """What is read of a file, comparable. Of one that is refused why it is: a copy that is refused for the same tells nothing else."""
    readers = {"RTSTRUCT": rtstruct_read.what_is_read, "RTDOSE": rtdose_read.what_is_read, "RTPLAN": _plan, "SEG": seg_frames.what_is_read}
    try:
        return readers[file.kind](file.path)
    except OncontourError as error:
        return (type(error).__name__, error.what)


def _plan(path: Path) -> tuple[object, ...]:
    """(Fraction groups with their beams, and which beams treat), fractions, and prescriptions (C.8.8.10, C.8.8.13, C.8.8.14)."""
    header = read_header(path, PLAN_KEYWORDS)
    if header is None:
        raise DoseError("not an RTPLAN file", where=str(path))
    groups = list(header.items("FractionGroupSequence"))
    listed = [tuple(beam.whole("ReferencedBeamNumber") for beam in group.items("ReferencedBeamSequence")) for group in groups]
    sizes = [(group.whole("FractionGroupNumber"), group.whole("NumberOfBeams")) for group in groups]
    beams = tuple((beam.whole("BeamNumber"), beam.plain("TreatmentDeliveryType")) for beam in header.items("BeamSequence"))
    fractions = tuple(group.whole("NumberOfFractionsPlanned") for group in groups)
    gy = tuple(reference.number("TargetPrescriptionDose") for reference in header.items("DoseReferenceSequence"))
    return ((sizes, listed), beams), fractions, gy
