"""Text attributes copied from one DICOM object into another, made to fit what the standard allows.

Source: DICOM PS3.5 table 6.2-1 (value representations).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

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
