"""What every DICOM object that is written holds: whose it is, when it was made, and text attributes made to fit what the standard allows.

Sources: DICOM PS3.3 C.7.1, C.7.2, C.7.4 (patient, study, frame of reference); PS3.5 table 6.2-1 (value representations); PS3.10 7.1.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from oncontour.io.dicom.source import DicomSource

_EMPTY_IF_UNKNOWN = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "PositionReferenceIndicator"),
)
"""Attributes of type 2: there, even if empty."""

_LENGTH = {"SH": 16, "LO": 64, "CS": 16, "ST": 1024, "LT": 10240}
_FORM = {
    "DA": r"(\d{8})?",
    "TM": r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?",
    "AS": r"(\d{3}[DWMY])?",
    "CS": r"[A-Z0-9 _]{0,16}",
    "DS": r"([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(?!.{17}))?",
    "IS": r"([-+]?\d{1,11})?",
    "UI": r"([0-9.]{1,64})?",
}


def new_object(sop_class_uid: str, source: DicomSource | None, sop_instance_uid: str = "") -> Dataset:
    """An object of the patient, study and frame of reference of ``source``, of new ones where there is none; what is not known is empty."""
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID = sop_class_uid, sop_instance_uid or str(generate_uid(prefix=None))
    for keyword in _EMPTY_IF_UNKNOWN:
        setattr(d, keyword, "")
    if source:
        set_attributes(d, {**source.study, **source.patient})
        inherit(d, source)
    d.StudyInstanceUID = source.study_uid if source else str(generate_uid(prefix=None))
    d.FrameOfReferenceUID = source.frame_of_reference_uid if source else str(generate_uid(prefix=None))
    return d


def inherit(d: Dataset, source: DicomSource) -> None:
    """What is drawn on, or made of, a synthetic image is synthetic too (PS3.3 C.12.1.1.1, Synthetic Data)."""
    if source.series.get("SyntheticData") == "YES":
        d.SyntheticData = "YES"


def new_series(d: Dataset, modality: str, *dated: str) -> None:
    """Put ``d`` into a new series of ours, made now; ``dated``: what else has a date and time (as ``Content``)."""
    now = datetime.datetime.now()
    for what in ("Series", *dated):
        setattr(d, f"{what}Date", f"{now:%Y%m%d}")
        setattr(d, f"{what}Time", f"{now:%H%M%S}")
    d.Modality, d.Manufacturer, d.ManufacturerModelName = modality, "oncontour", "oncontour"
    d.SeriesInstanceUID, d.SeriesNumber, d.InstanceNumber = str(generate_uid(prefix=None)), 1, 1


def item_of(**values: object) -> Dataset:
    """A sequence item: keyword -> value."""
    d = Dataset()
    for keyword, value in values.items():
        setattr(d, keyword, value)
    return d


def save(d: Dataset, path: Path) -> None:
    """Write ``d`` as a file of explicit VR little endian."""
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = d.SOPClassUID, d.SOPInstanceUID
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.save_as(path, enforce_file_format=True)


def set_attributes(dataset: Dataset, values: Mapping[str, str]) -> None:
    """Set each keyword to its text, cut to the length its VR allows; a text that its VR cannot hold (a date that is none) becomes empty."""
    for keyword, value in values.items():
        setattr(dataset, keyword, fitted(keyword, value))


def fitted(keyword: str, value: str) -> str:
    """``value`` as the VR of ``keyword`` can hold it, ``""`` where it cannot.

    >>> fitted("StudyID", "a study id of more than 16 characters"), fitted("PatientBirthDate", "unknown")
    ('a study id of mo', '')
    """
    vr = dictionary_VR(keyword)
    text = "".join(c for c in value.replace("\\", " ") if c.isprintable()).strip()
    if vr == "PN":
        return "=".join(group[:64] for group in text.split("=")[:3])
    text = text[: _LENGTH[vr]].strip() if vr in _LENGTH else text
    if vr == "CS":
        text = text.upper()
    return text if vr not in _FORM or re.fullmatch(_FORM[vr], text) else ""
