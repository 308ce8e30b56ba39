"""In what two images of one place differ, in words: for the error that refuses them (PS3.3 C.7.6.16, C.8.3 to C.8.13: MR and CT images)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from oncontour.io.dicom.header import quiet
from oncontour.io.dicom.plane import Plane

_TELLING = {
    "AcquisitionNumber": "", "EchoNumbers": "", "EchoTime": "ms", "EffectiveEchoTime": "ms", "InversionTime": "ms", "FlipAngle": "degrees",
    "TemporalPositionIdentifier": "", "TemporalPositionIndex": "", "TriggerTime": "ms", "NominalPercentageOfCardiacPhase": "%",
    "NominalPercentageOfRespiratoryPhase": "%", "DiffusionBValue": "s/mm2", "DiffusionGradientOrientation": "", "ContrastBolusAgent": "",
    "KVP": "kV", "ConvolutionKernel": "", "FilterType": "", "ImageType": "", "AcquisitionTime": "",
}  # fmt: skip
"""What tells apart several images of one place in one series (phases, echoes, kernels, b-values), the most telling first; and its unit."""
_PRIVATE = {
    ("SIEMENS MR HEADER", 0x0019, 0x0C): "DiffusionBValue",
    ("GEMS_PARM_01", 0x0043, 0x39): "DiffusionBValue",
    ("PHILIPS IMAGING DD 001", 0x2001, 0x03): "DiffusionBValue",
    ("IMAGE PRIVATE HEADER", 0x0065, 0x09): "DiffusionBValue",
}
"""(Private creator, group, element within its block) -> the public attribute that it stands for: Siemens, GE, Philips, United Imaging."""
_WORDLESS = frozenset(("InstanceNumber", "InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "PixelData"))
_GE_MARK = 1_000_000_000
"""GE adds this to b-values of some sequences."""
_NUMBERS = frozenset(("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL"))
_PATIENT = 0x0010
_MOST = 4
_PER_FRAME = "PerFrameFunctionalGroupsSequence"

Told = dict[str, str]


def differences(one: Plane, other: Plane) -> tuple[str, ...]:
    """Attributes in which the headers of two images differ, each with both values and unit: those that tell images of one place apart
    (b-values of private attributes too), else the first few others. Empty where there are none, or a header cannot be read."""
    try:
        with quiet():
            first, second = _told(one), _told(other)
    except Exception:  # the images are refused in any case: what cannot be read is left unsaid
        return ()
    odd = [name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name)]
    telling = [name for name in _TELLING if name in odd] or odd[:_MOST]
    return tuple(_in_words(name, first.get(name, "none"), second.get(name, "none")) for name in telling)


def _in_words(name: str, one: str, other: str) -> str:
    unit = _TELLING.get(name, "")
    return f"{name} {one} and {other}" + (f" {unit}" if unit else "")


def _told(plane: Plane) -> Told:
    """Name -> value as text, of all attributes in the header of ``plane``, those of its own frame alone."""
    dataset = _header(plane.file.path)
    frames = dataset.get(_PER_FRAME) or ()
    if _PER_FRAME in dataset:
        del dataset[_PER_FRAME]
    found: Told = {}
    for element in (*_elements(dataset), *(_elements(frames[plane.frame]) if plane.frame < len(frames) else ())):
        name, text = _named(element), _text(element)
        if name and text and name not in _WORDLESS:
            found[name] = text
    return found


def _header(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True)


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    """All elements, those of sequence items too."""
    for element in dataset:
        if element.VR != "SQ":
            yield element
        else:
            for item in element.value:
                yield from _elements(item)


def _named(element: DataElement) -> str:
    """The keyword; what a private attribute stands for where that is known; "" for UIDs, unknown private ones, and whose the image is."""
    if element.VR == "UI" or element.tag.group == _PATIENT:
        return ""
    if element.tag.is_private:
        creator = str(getattr(element, "private_creator", None) or "").upper()
        return _PRIVATE.get((creator, element.tag.group, element.tag.element & 0xFF), "")
    return element.keyword


def _text(element: DataElement) -> str:
    """The value as a person writes it; "" where it is empty or bytes that are no text."""
    value = element.value
    if element.tag.is_private and isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip("\0 ").split("\\")
    if element.tag.is_private and isinstance(value, list | MultiValue):
        value = value[0] if value else ""
    if isinstance(value, bytes) or value is None:
        return ""
    spelled = _number if element.VR in _NUMBERS or element.tag.is_private else str
    text = "\\".join(spelled(one).strip() for one in (value if isinstance(value, list | MultiValue) else [value]))
    return text[:60] if text.isprintable() else ""


def _number(value: object) -> str:
    """Without what is not needed: 800.0 is 800."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    return f"{number % _GE_MARK if number >= _GE_MARK else number:.10g}"
