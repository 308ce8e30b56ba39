"""Which folders are patients, and which hold many of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from oncontour.errors import OncontourError
from oncontour.io.folders import natural


def is_cohort(path: Path | str) -> bool:
    """Whether ``path`` is a CSV, or a folder whose folders are patients of their own: images or OpenKBP CSVs each, or DICOM of at least
    two different PatientIDs. (A patient's DICOM may well lie in several folders, one a series.)
    """
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() == ".csv"
    if not path.is_dir() or is_patient(path):
        return False
    folders = folders_in(path)[:20]
    if any(is_patient(p) for p in folders) or are_cohorts(folders):  # a folder of cohorts is told by Cohort.open
        return True
    return len({_patient_below(p) for p in folders} - {None}) > 1


def holds_patients(path: Path) -> bool:
    """Whether ``path`` can be nothing but many patients: a CSV, or a folder of folders each of which is a patient in image files, or each
    the CT or MR of another PatientID. One patient's folder, however messy, is none; ``is_cohort`` says yes to more. What may not be read
    is none either: whoever reads it says so."""
    try:
        return _holds_patients(path)
    except PermissionError:
        return False


def _holds_patients(path: Path) -> bool:
    if path.is_file() or not path.is_dir() or is_patient(path):
        return path.is_file() and path.suffix.lower() == ".csv"
    folders = folders_in(path)[:20]
    if not folders or any(is_patient(one) for one in folders):
        return bool(folders) and all(is_patient(one) for one in folders)
    seen = [_patient_below(one, ("CT", "MR")) for one in folders]
    return len(seen) > 1 and None not in seen and len(set(seen)) == len(seen)


def folders_in(path: Path) -> list[Path]:
    """The folders in ``path`` in natural order, without those whose name begins with a dot."""
    return sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural(p.name))


def is_patient(folder: Path) -> bool:
    """Whether a folder is a patient in image files or OpenKBP's CSVs."""
    from oncontour.io.image.layout import is_layout

    if is_layout(folder):
        return True
    from oncontour.io.image.openkbp import is_openkbp

    return is_openkbp(folder)


def are_cohorts(folders: Sequence[Path]) -> bool:
    """Whether each of them is no patient and holds patients."""
    return bool(folders) and all(not is_patient(p) and any(is_patient(q) for q in folders_in(p)[:3]) for p in folders)


def _patient_below(folder: Path, modalities: Sequence[str] = ()) -> str | None:
    """PatientID of one of the first files below ``folder`` that are DICOM (of these modalities), None where none is."""
    from oncontour.io.dicom.header import read_header
    from oncontour.io.dicom.scan import files_below

    for _, file in zip(range(20), files_below(folder), strict=False):
        with suppress(OncontourError):
            header = read_header(file, ("SOPClassUID", "SOPInstanceUID", "Modality", "PatientID"))
            if header and (not modalities or header.text("Modality") in modalities):
                return header.text("PatientID")
    return None
