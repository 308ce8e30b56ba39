"""Contours and masks -> RTSTRUCT: new, or added to one whose other structures stay as they are, to the byte.

Sources: DICOM PS3.3 A.19 (RT Structure Set IOD), C.8.8.5, C.8.8.6, C.8.8.8, C.8.8.16 (Approval); PS3.5 6.2 (DS of at most 16 characters).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from oncontour.core.case import Case
from oncontour.core.contours import Contours, Slices
from oncontour.errors import InputError, StructureError
from oncontour.files import writing
from oncontour.io.dicom.alone import mark
from oncontour.io.dicom.attributes import fitted
from oncontour.io.dicom.rtstruct_encode import Algorithm, Encoder, Structure, texts_of
from oncontour.io.dicom.rtstruct_file import RtstructFile, Tag, open_rtstruct, text_of, whole
from oncontour.io.dicom.source import DicomSource, another_frame, slices_of, source_of
from oncontour.io.names import interpreted_type
from oncontour.palette import Colour, colour_of
from oncontour.raster import trace

LONGEST_NAME = 60
"""Letters of a structure's name that are kept."""


def write_rtstruct(
    case: Case,
    path: Path | str,
    *,
    structures: Iterable[str] | None = None,
    label: str = "oncontour",
    description: str = "",
    generation: str = "",
    algorithm: Algorithm = "AUTOMATIC",
    existing: Path | str | Dataset | None = None,
    names: Mapping[str, str] | None = None,
    colours: Mapping[str, Colour] | None = None,
    holes: Literal["xor", "keyhole"] = "xor",
    observations: Mapping[str, str] | None = None,
    predecessor: str = "",
) -> Path:
    """Write ``structures`` of ``case`` (default: all) as one RTSTRUCT that refers to the case's DICOM series; gives ``path``.

    Masks are traced on the series' own slices so that area x slab is the mask's volume; contours without a mask are written as drawn.
    Every contour refers to its image. Of contours that stand for their slices alone, as those of a mask do, ROIDescription says so, and
    ``read_rtstruct`` knows them by it. The structure set is UNAPPROVED. ``label`` (16 characters) and ``description`` name it,
    ``generation`` (64 characters) says of each structure what drew it (model, version), ``algorithm`` how; ``names`` and ``colours``
    override the ROI's name and colour by structure. ``holes``: "xor" writes a hole as a contour of its own, as planning systems read it;
    "keyhole" joins it to its outline. ``observations``: a text (1024 characters) by structure, such as what was predicted of its quality,
    as ROIObservationDescription: people read it in the planning system, programs pass over it. ``predecessor``: SOPInstanceUID of the
    RTSTRUCT that a new one was derived from.

    ``existing``: an RTSTRUCT to add to. What it holds stays byte for byte, except that the whole becomes a new, UNAPPROVED instance;
    new structures get new numbers, and a name that is taken gets ^2. It keeps its transfer syntax; a new file is implicit VR little
    endian, in which a contour may have any length.

    Raises StructureError where the case has no DICOM series to refer to, or ``existing`` is another patient's or lies in another frame of
    reference; InputError for a structure that the case does not have; OutputError where ``path`` cannot be written.
    """
    source = source_of(case, "an RTSTRUCT")
    base = None if existing is None else open_rtstruct(existing)
    if base is not None:
        _check_theirs(base, source)
    chosen = list(case.structures if structures is None else structures)
    found = _structures(case, chosen, source, base, names or {}, colours or {}, holes, observations or {})
    made = Encoder(source, found, label, description, generation, algorithm, predecessor)
    data = made.new() if base is None else made.added_to(base)
    with writing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


# ---- what is written


def _structures(
    case: Case,
    chosen: Sequence[str],
    source: DicomSource,
    base: RtstructFile | None,
    names: Mapping[str, str],
    colours: Mapping[str, Colour],
    holes: Literal["xor", "keyhole"],
    observations: Mapping[str, str],
) -> list[Structure]:
    slices = slices_of(source)
    numbers, taken = _used(base)
    written = _written_names(chosen, names, taken)
    out = []
    for n, (key, name) in enumerate(zip(chosen, written, strict=True)):
        contours = _contours(case, key, slices, holes)
        colour = colours.get(key) or contours.colour or colour_of(n)
        texts = tuple(texts_of(contours, slices)) if len(contours) else ()
        number, kind, description = max(numbers, default=0) + 1 + n, interpreted_type(key), _alone(contours, texts)
        out.append(Structure(number, name, kind, colour, contours, texts, observations.get(key, ""), description))
    return out


def _alone(contours: Contours, texts: Sequence[bytes]) -> str:
    """What says that each contour stands for its slice alone (``io.dicom.alone``), "" where that is not so."""
    if not contours.alone or contours.slices is None or not len(contours):
        return ""
    return mark(texts, np.array([polygon[0] for polygon in contours]), contours.slices)


def _contours(case: Case, name: str, slices: Slices, holes: Literal["xor", "keyhole"]) -> Contours:
    if name in case.masks:
        drawn = case.contours[name].colour if name in case.contours else None
        return trace(case.masks[name], slices=slices, holes=holes, colour=drawn)
    if name in case.contours:
        return case.contours[name]
    raise InputError(f"no structure {name!r}; there are {list(case.structures)}", where=f"case {case.id}")


def _used(base: RtstructFile | None) -> tuple[set[int], set[str]]:
    """ROI numbers and names that are taken: contours and observations of an ROI that is not listed have theirs too."""
    if base is None:
        return set(), set()
    keys = [(Tag.STRUCTURES, Tag.NUMBER), (Tag.ROI_CONTOURS, Tag.REFERENCED_NUMBER)]
    keys += [(Tag.OBSERVATIONS, tag) for tag in (Tag.REFERENCED_NUMBER, Tag.OBSERVATION_NUMBER)]
    texts = [base.elements.text(base.elements.within(one).get(tag)) for sequence, tag in keys for one in base.items(sequence)]
    names = {base.elements.text(base.elements.within(one).get(Tag.NAME)) for one in base.items(Tag.STRUCTURES)}
    return {whole(text) or 0 for text in texts}, names


def names_written(
    structures: Sequence[str], *, names: Mapping[str, str] | None = None, existing: Path | str | None = None
) -> dict[str, str]:
    """Structure -> the ROIName that ``write_rtstruct`` gives it with the same arguments: as it is asked for, but for what DICOM does not
    hold, and ^2 (^3, ...) where that name is taken, in ``existing`` or by a structure before it."""
    _, taken = _used(None if existing is None else open_rtstruct(existing))
    return dict(zip(structures, _written_names(structures, names or {}, taken), strict=True))


def check_addable(existing: Path | str, source: DicomSource) -> None:
    """Raise what ``write_rtstruct`` would raise of the RTSTRUCT to add to: StructureError where it is another patient's or lies in another
    frame of reference, FormatError where it is none."""
    _check_theirs(open_rtstruct(existing), source)


def _written_names(chosen: Sequence[str], names: Mapping[str, str], taken: set[str]) -> list[str]:
    out: list[str] = []
    for n, key in enumerate(chosen):
        out.append(_free(fitted("ROIName", names.get(key, key)) or f"ROI {n + 1}", taken | set(out)))
    return out


def _free(name: str, taken: set[str]) -> str:
    name = name[:LONGEST_NAME]
    return name if name not in taken else next(made for n in range(2, len(taken) + 3) if (made := f"{name}^{n}") not in taken)


def _check_theirs(base: RtstructFile, source: DicomSource) -> None:
    """Raise StructureError where ``base`` is another patient's or lies in another frame of reference."""
    elements = base.elements
    theirs, ours = text_of(base, Tag.PATIENT_ID), source.patient.get("PatientID", "")
    if theirs and ours and theirs != ours:
        what = "the structure set and the images have different PatientIDs"
        raise StructureError(what, where=base.where, hint="add to the RTSTRUCT that was drawn on this series")
    uids = {elements.text(elements.within(one).get(Tag.FRAME_OF_ROI)) for one in base.items(Tag.STRUCTURES)}
    uids |= {elements.text(elements.within(one).get(Tag.FRAME)) for one in base.items(Tag.REFERENCED_FRAMES)}
    uids.discard("")
    if uids and source.frame_of_reference_uid not in uids:
        raise another_frame(", ".join(sorted(uids)), source.frame_told, base.where, "add to the RTSTRUCT that was drawn on this series")
