"""When and by which scanner a patient's images were made, as far as it may be told of many patients together: month and make."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from oncontour.errors import OncontourError
from oncontour.io.dicom.header import read_header
from oncontour.io.dicom.scan import files_below

LOOKED_AT = 60
"""Files that are opened at most to find an image."""
KEYS = ("SOPClassUID", "Modality", "StudyDate", "Manufacturer", "ManufacturerModelName", "ConvolutionKernel")


def acquired(path: Path) -> dict[str, str]:
    """``month`` (YYYY-MM of the StudyDate, no day: days are a patient's) and ``scanner`` (make, model, kernel) of one of the patient's
    first CT or MR images; each left out where no file says it, as in folders of NIfTI."""
    if not path.is_dir():
        return {}
    for _, file in zip(range(LOOKED_AT), files_below(path), strict=False):
        with suppress(OncontourError):
            header = read_header(file, KEYS)
            if header and header.text("Modality") in ("CT", "MR"):
                date = header.text("StudyDate")
                month = f"{date[:4]}-{date[4:6]}" if len(date) >= 6 and date[:6].isdigit() else ""
                scanner = " ".join(word for key in KEYS[3:] if (word := header.text(key).strip()))
                return {key: value for key, value in (("month", month), ("scanner", scanner)) if value}
    return {}
