"""From files to a Case and back: ``read(path)`` and ``write(case, out)``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from oncontour.core.case import Case
from oncontour.errors import ConfigError

FORMATS = ("dicom", "nifti", "seg")


class Picked(TypedDict, total=False):
    """Which of several DICOM objects is meant; see ``read``."""

    series_uid: str | None
    structure_set_uid: str | None
    same_frame: bool
    doses: Sequence[str | Path]


def read(
    path: Path | str,
    *,
    id: str | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    doses: Sequence[str | Path] = (),
    lenient: bool = False,
    insist: bool = True,
) -> Case:
    """The patient at ``path``, whatever of these it is: a folder of images with ``masks`` (``io/image/layout.py``), an OpenKBP folder of
    CSVs, a single image file, or a folder of DICOM (stray image files in it are passed over; a CT in both forms is refused).

    ``id`` is by default the name of the folder or file: a PatientID is patient data and stays out of ids. ``series_uid`` picks one of
    several image series, ``structure_set_uid`` (a SOPInstanceUID) one of several RTSTRUCTs or SEGs, ``doses`` (SOPInstanceUIDs or files)
    one of several RTDOSEs, or some to be added up; ``same_frame`` takes structures of this patient in a frame of reference of another name
    (``read_dicom``); each of the four is refused where the patient is no DICOM. Remarks for the user are in
    ``case.facts["notes"]``, names of structures that no TG-263 name is known for in ``case.facts["unmapped"]``, and what the files call
    each structure in ``case.facts["names"]``. With ``lenient`` structures and a dose that cannot be read are left out and noted: for who
    wants the images in any case, and without ``insist`` those that ``same_frame`` is not true of too. Raises InputError (or one of its
    kinds) in one sentence.
    """
    path = Path(path)
    from oncontour.io.dicom.scan import holds_dicom
    from oncontour.io.folders import check_patient
    from oncontour.io.image.layout import check_not_both, is_layout, read_layout
    from oncontour.io.image.nifti import is_image

    check_patient(path)
    picked: Picked = {"series_uid": series_uid, "structure_set_uid": structure_set_uid, "same_frame": same_frame, "doses": doses}
    if path.is_file() and is_image(path):
        check_unpicked(path, **picked)
        return _read_single(path, id)
    if is_layout(path) and not holds_dicom(path):
        check_unpicked(path, **picked)
        return read_layout(path, id=id, lenient=lenient)
    check_not_both(path)
    from oncontour.io.image.openkbp import is_openkbp, read_openkbp

    if is_openkbp(path):
        check_unpicked(path, **picked)
        return read_openkbp(path, id=id)
    from oncontour.io.dicom.patient import read_dicom

    return read_dicom(path, id=id, lenient=lenient, insist=insist, **picked)


def check_unpicked(path: Path, **picked: Unpack[Picked]) -> None:
    """Raises ConfigError where one of several DICOM objects is asked for, and the patient is no DICOM."""
    told = {"a series": picked.get("series_uid"), "a structure set": picked.get("structure_set_uid")}
    told |= {
        "a dose": ", ".join(map(str, picked.get("doses", ()))),
        "a frame of reference": "--same_frame" * picked.get("same_frame", False),
    }
    for what, uid in told.items():
        if uid:
            raise ConfigError(f"{what} is picked ({uid}), and this patient is no DICOM", where=str(path), hint="leave that option out")


def write(case: Case, out: Path | str, *, format: str = "dicom") -> list[Path]:
    """Write ``case`` into folder ``out`` and give the files: as "dicom", as "seg", one DICOM Segmentation of its structures (both
    ``io/dicom/patient_write.py``), or as "nifti" (``io/image/layout.py``).

    ``out`` appears whole or not at all; one that was written before is replaced in one step. Raises OutputError where it holds other
    things or cannot be written, and what these writers raise.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    from oncontour.io.dicom.patient_write import check_replaceable, write_dicom, write_segments
    from oncontour.io.image.layout import write_layout

    check_replaceable(Path(out))
    return {"dicom": write_dicom, "nifti": write_layout, "seg": write_segments}[format](case, out)


def _read_single(path: Path, id: str | None) -> Case:
    from oncontour.io.image.layout import IMAGES, image_name, one_volume, stem
    from oncontour.io.image.nifti import read_image_file

    name, found = stem(path), read_image_file(path)
    image = image_name(name) if image_name(name) in IMAGES else "ct"
    taken = () if name.lower() == image else (f"{path.name} is taken as a CT in HU",)
    notes = (*taken, *(f"{path.name}: {note}" for note in found.notes))
    return Case(id or name, {image: one_volume(found, path)}, facts={"notes": notes, "unmapped": ()})
