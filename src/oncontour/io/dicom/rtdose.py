"""RTDOSE to Gy on its own grid, and back.

Sources: DICOM PS3.3 A.18.3 (RT Dose IOD), C.8.8.3 (RT Dose module), C.8.8.3.2 (Grid Frame Offset Vector).
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Floats, Geometry
from oncontour.core.notes import CHOOSE_DOSE, Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, DoseError, InputError, LimitError, SeriesError
from oncontour.files import writing
from oncontour.io.dicom.attributes import set_attributes
from oncontour.io.dicom.dicomfile import MAX_VOXELS, DicomFile, Header
from oncontour.io.dicom.dicomparse import read_header
from oncontour.io.dicom.encapsulated import check_shrunk
from oncontour.io.dicom.pixels import stored_values
from oncontour.io.dicom.plane import Plane, frames_of
from oncontour.io.dicom.source import DicomSource

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
SUSPICIOUS_GY = 300.0
"""Above this a note says that the file may hold centigray; brachytherapy has such doses beside the source."""
WHOLE = ("PLAN", "MULTI_PLAN")
"""DoseSummationTypes of a dose that lacks nothing."""
_PARTS = {"BEAM": "ReferencedBeamSequence", "FRACTION": "ReferencedFractionGroupSequence"}
_NUMBERS = {"BEAM": "ReferencedBeamNumber", "FRACTION": "ReferencedFractionGroupNumber"}
_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "DoseUnits", "DoseType", "DoseSummationType", "DoseGridScaling"),
    *("GridFrameOffsetVector", "ReferencedRTPlanSequence", "FractionGroupSequence", "BeamSequence", "NumberOfFrames", "Rows", "Columns"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PhotometricInterpretation", "PlanarConfiguration"),
)
_WORDS = {"BEAM": "beams", "FRACTION": "fraction groups"}
_NO_TREATMENT = ("SETUP", "OPEN_PORTFILM", "TRMT_PORTFILM")
"""TreatmentDeliveryTypes of beams that give no planned dose (C.8.8.14)."""
_SAME_PLACE_MM = 0.01
_LARGEST = {16: 2**16 - 1, 32: 2**31 - 1}
"""Bits -> largest stored value: half of what 32 bits hold, since some readers take them as signed."""
_DECIMAL_STEPS_GY = (0.01, 0.005, 0.001)
"""Steps that doses are commonly rounded to; 2e-7 of the maximum is what float32 makes of them."""


@dataclass(frozen=True)
class DoseKind:
    """What a dose is, as DoseType, DoseSummationType and the references of its file(s) tell (C.8.8.3), without saying of which plan."""

    type: str = "PHYSICAL"
    """PHYSICAL or EFFECTIVE, "" where a file says neither. A sum with an EFFECTIVE part is EFFECTIVE."""
    summation: str = "PLAN"
    """PLAN, MULTI_PLAN, or BEAM or FRACTION of parts that are not known to be all; "" of a sum that none of these words is for."""
    plans: int = 1
    """How many plans are named."""
    groups: tuple[int, ...] = ()
    """Numbers of the fraction groups that parts belong to, as far as they are named."""
    beams: tuple[int, ...] = ()
    """Numbers of the beams, of BEAM."""

    def __add__(self, other: DoseKind) -> DoseKind:
        """The kind of the sum of doses of different plans: MULTI_PLAN where each is whole."""
        whole = self.summation in WHOLE and other.summation in WHOLE
        return DoseKind(_type_of_sum((self.type, other.type)), "MULTI_PLAN" if whole else "", self.plans + other.plans)


@dataclass(frozen=True, eq=False)
class _Dose:
    file: DicomFile
    summation: str
    plan_uids: tuple[str, ...]
    part: tuple[int, ...]
    """Numbers of the beams or fraction groups, () for a whole plan."""
    groups: tuple[int, ...]
    """Numbers of the fraction groups, () for a whole plan."""

    @property
    def plan_uid(self) -> str:
        """The (first) plan's."""
        return self.plan_uids[0] if self.plan_uids else ""


def read_rtdose(paths: Path | str | Iterable[Path | str], *, plans: Iterable[Path | str] = ()) -> tuple[Volume, tuple[str, ...]]:
    """The dose in Gy (float32) on the grid of the RTDOSE file(s), and notes.

    Of several files the whole plan's is taken; where there are only beams or fraction groups of one plan they are summed.
    ``plans``: RTPLAN files that tell how many beams there must be.

    Raises DoseError for units other than GY, a scaling that is not positive, negative or no dose, a grid that cannot be placed, several
    plans, and missing, double or differently gridded parts; FormatError and LimitError as the series reader.
    """
    doses = _opened(paths)
    uids = sorted({d.plan_uid for d in doses})
    if len(uids) > 1:
        raise DoseError(
            f"doses of {len(uids)} plans: {', '.join(u or 'no plan' for u in uids)}", where=_names(doses), hint="give the files of one plan"
        )
    whole = [d for d in doses if d.summation in WHOLE]
    if len(whole) > 1:
        raise DoseError(f"{len(whole)} doses of one whole plan", where=_names(whole), hint="give one of them")
    if whole:
        volume, notes = _read(whole[0].file)
        left, several = len(doses) - 1, _of_several_plans(whole[0])
        return volume, (
            *notes,
            *several,
            *([f"{left} RTDOSE file(s) of beams or fractions left out: the whole plan's dose is here"] if left else []),
        )
    return _summed(doses, _planned(plans, uids[0]))


def dose_kind(paths: Path | str | Iterable[Path | str], *, plans: Iterable[Path | str] = ()) -> DoseKind:
    """What the dose is that ``read_rtdose`` gives of the same arguments: to be written with it. Raises what it raises of headers."""
    doses = _opened(paths)
    whole = next((d for d in doses if d.summation in WHOLE), None)
    if whole is not None:
        several = len(whole.plan_uids) > 1
        return DoseKind(
            _type_of_sum([whole.file.plain("DoseType")]), "MULTI_PLAN" if several else whole.summation, max(1, len(whole.plan_uids))
        )
    kind = _type_of_sum(d.file.plain("DoseType") for d in doses)
    summation = doses[0].summation
    if _planned(plans, doses[0].plan_uid).get(summation):  # they are all there, else ``read_rtdose`` refuses them
        return DoseKind(kind)
    groups = tuple(sorted({number for d in doses for number in d.groups}))
    beams = tuple(number for d in doses for number in d.part) if summation == "BEAM" else ()
    return DoseKind(kind, summation if len(groups) < 2 else "", 1, groups, beams)


def doses_of_groups(paths: Iterable[Path | str], plan: Header) -> dict[int, Volume]:
    """Gy of each fraction group of ``plan`` (an RTPLAN) by FractionGroupNumber, as the FRACTION doses among ``paths`` tell, else the BEAM
    doses summed; {} where they are not those of every group, name no part, or lie on different grids. Raises what ``read_rtdose`` does."""
    doses = [_open(Path(path)) for path in paths]
    for summation in _PARTS:
        parts = [d for d in doses if d.summation == summation]
        found = _by_group(parts) if _are_all(parts, summation, plan) else {}
        if found:
            return found
    return {}


def groups_that_treat(plan: Header) -> list[Header]:
    """The items of FractionGroupSequence (C.8.8.13) that have a beam that gives dose, or an application of brachytherapy."""
    return [group for group in plan.items("FractionGroupSequence") if _treats(group, _aside(plan))]


def what_is_read(path: Path) -> tuple[object, ...]:
    """What an RTDOSE file says of its dose: frame of reference, kind, plans, parts, grid, and Gy (their SHA-256), to be compared with that
    of a copy. Raises as ``read_rtdose``, yet not where the dose is 0 everywhere."""
    dose = _open(path)
    volume, _ = _read(dose.file, sole=False)
    kind = (dose.file.plain("FrameOfReferenceUID"), dose.file.plain("DoseType"), dose.summation)
    grid = (volume.geometry.shape, (volume.geometry.affine + 0.0).tolist())  # + 0.0: -0 is 0
    return kind, dose.plan_uids, dose.part, dose.groups, grid, hashlib.sha256(volume.array.tobytes()).digest()


def without_word(kind: DoseKind) -> str:
    """Why DICOM has no DoseSummationType for ``kind``, "" where it has."""
    if kind.summation in (*WHOLE, *_PARTS) and len(kind.groups) < 2:
        return ""
    return (
        "the dose is a sum of parts that are not known to be all (beams of several fraction groups, several fraction groups, or a part"
        " of one plan and another plan), which DICOM has no word for"
    )


PUT_PLAN_BESIDE = "put the RTPLAN beside the doses, or export the dose of the whole plan"
"""The way out of ``without_word``."""


def write_rtdose(
    dose: Volume,
    path: Path | str,
    *,
    source: DicomSource | None = None,
    plan_uid: str | None = None,
    comment: str = "",
    bits: int | None = None,
    kind: DoseKind | None = None,
) -> Path:
    """Write ``dose`` (Gy) as an RTDOSE, that of a whole plan and physical unless ``kind`` tells otherwise, and give the path back.

    A dose whose values are multiples of a decimal step (0.01 Gy, say) goes into 16 bits without loss; any other as multiples of
    maximum / (2^31 - 1) in 32 bits, or / 65535 where ``bits`` = 16 is asked for: what is read back differs by at most half of that.
    Patient, study and frame of reference are those of ``source``, else new. An RTDOSE must refer to a plan; without ``plan_uid`` it
    refers to a new UID (a sum of plans to as many as it had), and DoseComment says that no such plan was exported.

    Raises DoseError, before anything is written, for NaN, infinite, negative or no dose, and for a ``kind`` that DICOM has no word for.
    """
    kind = kind or DoseKind()
    if bits is not None and bits not in _LARGEST:
        raise ConfigError(f"a dose is stored in {' or '.join(map(str, _LARGEST))} bits, not {bits}")
    path = Path(path)
    _check_writable(dose, str(path))
    _check_told(kind, str(path))
    dose = _along_normal(dose)
    dataset = _dataset(dose, source, plan_uid, comment, bits, kind)
    with writing(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return path


# ---- reading


def _opened(paths: Path | str | Iterable[Path | str]) -> list[_Dose]:
    """The doses, by fraction group, beam and SOPInstanceUID: the order of the files changes no digit of their sum."""
    doses = [_open(Path(p)) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    if not doses:
        raise InputError("no RTDOSE file was given")
    return sorted(doses, key=lambda d: (d.groups, d.part, d.file.plain("SOPInstanceUID")))


def _open(path: Path) -> _Dose:
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    file = read_header(path, _KEYWORDS)
    if file is None or file.sop_class_uid != RT_DOSE:
        raise DoseError("not an RTDOSE file", where=str(path))
    summation = file.plain("DoseSummationType")
    if summation not in (*WHOLE, *_PARTS):
        raise DoseError(f"DoseSummationType is {summation or 'missing'}; {', '.join((*WHOLE, *_PARTS))} are read", where=str(path))
    plans = list(file.items("ReferencedRTPlanSequence"))
    uids = tuple(dict.fromkeys(uid for uid in (plan.plain("ReferencedSOPInstanceUID") for plan in plans) if uid))
    groups = list(plans[0].items("ReferencedFractionGroupSequence")) if plans and summation in _PARTS else []
    items = [beam for group in groups for beam in group.items("ReferencedBeamSequence")] if summation == "BEAM" else groups
    part = [item.whole(_NUMBERS[summation]) for item in items]
    of_groups = [group.whole("ReferencedFractionGroupNumber") for group in groups]
    return _Dose(file, summation, uids, *(tuple(n for n in numbers if n is not None) for numbers in (part, of_groups)))


def _type_of_sum(types: Iterable[str]) -> str:
    """EFFECTIVE as soon as one part is (a physical part of photons counts in full), PHYSICAL where all are, else "": not told."""
    found = set(types)
    return "EFFECTIVE" if "EFFECTIVE" in found else "PHYSICAL" if found == {"PHYSICAL"} else ""


def _of_several_plans(dose: _Dose) -> tuple[str, ...]:
    """What is to be said of a dose that is the sum of plans."""
    count = len(dose.plan_uids)
    if dose.summation != "MULTI_PLAN" and count < 2:
        return ()
    several = str(count) if count > 1 else "several"
    what = f"dose is the sum of {several} plans ({dose.summation}): prescription and fractions of one are not the sum's, and none are taken"
    return (Note(NoteCode.DOSE_OF_PLANS, what),)


def _names(doses: Sequence[_Dose]) -> str:
    return ", ".join(str(d.file.path) for d in doses[:4])


def _planned(plans: Iterable[Path | str], plan_uid: str) -> dict[str, int]:
    """How many beams that treat and how many fraction groups plan ``plan_uid`` has, empty where it is not among ``plans``."""
    for path in plans:
        file = read_header(Path(path), _KEYWORDS)
        if file is not None and file.plain("SOPInstanceUID") == plan_uid:
            aside = _aside(file)
            groups = list(file.items("FractionGroupSequence"))
            listed = [number for group in groups for number in _beams_of(group)]
            beams = sum(n not in aside for n in listed) if listed else sum(group.whole("NumberOfBeams") or 0 for group in groups)
            return {"BEAM": beams, "FRACTION": len(groups)}
    return {}


def _aside(plan: Header) -> set[int | None]:
    """Numbers of the beams of a plan that give no planned dose."""
    return {beam.whole("BeamNumber") for beam in plan.items("BeamSequence") if beam.plain("TreatmentDeliveryType") in _NO_TREATMENT}


def _treats(group: Header, aside: set[int | None]) -> bool:
    if group.whole("NumberOfBrachyApplicationSetups"):
        return True
    beams = _beams_of(group)
    return bool(set(beams) - aside) if beams else group.whole("NumberOfBeams") != 0


def _beams_of(group: Header) -> list[int | None]:
    return [beam.whole("ReferencedBeamNumber") for beam in group.items("ReferencedBeamSequence")]


def _are_all(parts: Sequence[_Dose], summation: str, plan: Header) -> bool:
    """Whether ``parts`` are the doses of all fraction groups of ``plan``, or of all beams of all of them, each once and of one group."""
    if not parts or any(len(d.groups) != 1 for d in parts):
        return False
    groups = groups_that_treat(plan)
    wanted = [
        (group.whole("FractionGroupNumber"), beam)
        for group in groups
        for beam in ([None] if summation == "FRACTION" else [n for n in _beams_of(group) if n not in _aside(plan)])
    ]
    there = [(d.groups[0], beam) for d in parts for beam in ([None] if summation == "FRACTION" else d.part)]
    return bool(wanted) and len(set(there)) == len(there) and set(there) == set(wanted)


def _by_group(parts: Sequence[_Dose]) -> dict[int, Volume]:
    """Fraction group -> Gy, its beams added up; {} where two lie on different grids."""
    out: dict[int, Volume] = {}
    for part in parts:
        volume, _ = _read(part.file, sole=False)
        if out and not volume.geometry.same_grid(next(iter(out.values())).geometry):
            return {}
        before = out.get(part.groups[0])
        out[part.groups[0]] = volume if before is None else Volume(before.array + volume.array, before.geometry)
    return out


def _summed(doses: Sequence[_Dose], plan: dict[str, int]) -> tuple[Volume, tuple[str, ...]]:
    kinds = {d.summation for d in doses}
    if len(kinds) > 1:
        raise DoseError(
            "doses of beams and of fraction groups of one plan cannot be summed",
            where=_names(doses),
            hint=f"give one kind, or {CHOOSE_DOSE}",
        )
    kind = kinds.pop()
    parts = [number for d in doses for number in d.part]
    unnamed = [d for d in doses if not d.part]
    if len(set(parts)) != len(parts) or (unnamed and len(doses) > 1):
        what = "a dose that does not say which it is of" if unnamed else f"one of {sorted(parts)} is there twice"
        raise DoseError(f"{kind} doses: {what}", where=_names(doses), hint="give each part once")
    planned = plan.get(kind, 0)
    if planned and planned != len(parts):
        what = f"the plan has {planned} {_WORDS[kind]}, doses of {len(parts)} are here"
        raise DoseError(what, where=_names(doses), hint="export the dose of every one, or of the whole plan")
    total, notes = _read(doses[0].file, sole=len(doses) == 1)
    array = total.array.astype(np.float64)
    for dose in doses[1:]:
        volume, more = _read(dose.file, sole=False)
        if not volume.geometry.same_grid(total.geometry):
            raise DoseError(f"parts lie on different grids: {total.geometry.difference(volume.geometry)}", where=_names(doses))
        array += volume.array
        notes = (*notes, *more)
    if not array.any():
        raise DoseError("the dose is 0 everywhere", where=_names(doses))
    doubt = "" if planned else "; without the plan it cannot be told whether that is all"
    note = Note(NoteCode.DOSE_OF_PARTS, f"dose is the sum of {len(doses)} {kind} dose(s){doubt}")
    return Volume(array.astype(np.float32), total.geometry), tuple(dict.fromkeys((*notes, note)))


def _read(file: DicomFile, *, sole: bool = True) -> tuple[Volume, tuple[str, ...]]:
    """Gy of one file; ``sole``: it must not be 0 everywhere."""
    if file.pixels is None:
        raise DoseError("no dose grid in the file", where=file.where, hint="export the dose with its grid, not only its DVHs")
    units, kind = file.plain("DoseUnits"), file.plain("DoseType")
    if units != "GY":
        raise DoseError(f"DoseUnits is {units or 'missing'}, only GY can be read", where=file.where, hint="export the absolute dose")
    if kind == "ERROR":
        raise DoseError("DoseType is ERROR: differences, not a dose", where=file.where)
    scaling = file.number("DoseGridScaling")
    if scaling is None or scaling <= 0:
        raise DoseError(f"DoseGridScaling must be a positive number, not {scaling}", where=file.where)
    try:
        frames = frames_of(file)
    except SeriesError as error:
        raise DoseError(error.what, where=error.where, hint="export the dose again") from error
    offsets, notes = _offsets(file, frames[0], len(frames))
    gy, remarks = _gy(frames, scaling, file.where, sole)
    volume, more = _placed(gy, offsets, frames[0], file.where)
    weighted = Note(NoteCode.DOSE_EFFECTIVE, "dose is EFFECTIVE (weighted by biology), not physical")
    effective = (weighted,) if kind == "EFFECTIVE" else ()
    return volume, (*notes, *effective, *remarks, *more)


def _offsets(file: DicomFile, first: Plane, count: int) -> tuple[Floats, tuple[str, ...]]:
    """Position of each frame along row x column, from the first (C.8.8.3.2, both forms)."""
    text = file.words("GridFrameOffsetVector")
    if not text and count == 1:
        return np.zeros(1), ()
    if len(text) != count:
        raise DoseError(f"{count} frames, but {len(text)} values in GridFrameOffsetVector", where=file.where)
    values = np.array(file.numbers("GridFrameOffsetVector", count))
    if values[0] == 0:
        return values, ()
    along_z, z = float(first.normal[2]), float(first.position_mm[2])
    if abs(values[0] - z) > 0.1 or abs(abs(along_z) - 1) > 1e-4:
        raise DoseError(
            f"GridFrameOffsetVector begins with {values[0]:g}: neither 0 nor the z of ImagePositionPatient ({z:g}) in an axial grid",
            where=file.where,
        )
    return (values - values[0]) * np.sign(along_z), ()


def _gy(frames: Sequence[Plane], scaling: float, where: str, sole: bool) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    one = frames[0]
    if len(frames) * one.rows * one.columns > MAX_VOXELS:
        raise LimitError(f"{len(frames)} x {one.rows} x {one.columns} voxels, at most {MAX_VOXELS} are read", where=where)
    check_shrunk([one.file], where)
    gy = np.empty((len(frames), one.rows, one.columns), np.float32)
    for n, frame in enumerate(frames):
        with np.errstate(over="ignore"):
            gy[n] = stored_values(frame) * scaling
    low, high = float(gy.min()), float(gy.max())
    if low < 0:
        raise DoseError(f"negative dose, down to {low:g} Gy", where=where)
    if not high < 1e6:
        raise DoseError(f"dose up to {high:g} Gy cannot be: DoseGridScaling is {scaling:g}", where=where)
    if high == 0 and sole:
        raise DoseError("the dose is 0 everywhere", where=where)
    suspicious = Note(NoteCode.DOSE_MAY_BE_CENTIGRAY, f"dose reaches {high:.0f} Gy: the file says GY but may hold centigray")
    return gy, (suspicious,) if high > SUSPICIOUS_GY else ()


def _placed(gy: NDArray[np.float32], offsets: Floats, first: Plane, where: str) -> tuple[Volume, tuple[str, ...]]:
    """Frames at their offsets on a regular grid; uneven ones are interpolated linearly at the smallest gap."""
    if len(offsets) == 1:
        step = min(first.spacing_mm)
        return Volume(gy, _grid(first, 0.0, step, 1)), (Note(NoteCode.DOSE_OF_ONE_PLANE, f"dose of one plane: taken as {step:g} mm thick"),)
    gaps = np.diff(offsets)
    if not (gaps > _SAME_PLACE_MM).all() and not (gaps < -_SAME_PLACE_MM).all():
        raise DoseError("GridFrameOffsetVector neither rises nor falls throughout", where=where)
    step = float(offsets[-1] - offsets[0]) / len(gaps)
    even = offsets[0] + step * np.arange(len(offsets))
    if np.abs(even - offsets).max() <= _SAME_PLACE_MM:
        return Volume(gy, _grid(first, float(offsets[0]), step, len(offsets))), ()
    if offsets[0] > offsets[-1]:
        gy, offsets, gaps = gy[::-1], offsets[::-1], -gaps[::-1]
    step = float(gaps.min())
    count = int(np.floor((offsets[-1] - offsets[0]) / step + 1e-3)) + 1
    if count > 10 * len(offsets):
        raise DoseError(f"planes {step:g} to {gaps.max():g} mm apart are too uneven", where=where)
    at = np.interp(offsets[0] + step * np.arange(count), offsets, np.arange(len(offsets)))
    low = np.minimum(at.astype(int), len(offsets) - 2)
    weight = (at - low).astype(np.float32)[:, None, None]
    even_gy = gy[low] * (1 - weight) + gy[low + 1] * weight
    note = Note(NoteCode.DOSE_INTERPOLATED, f"dose planes {step:g} to {gaps.max():g} mm apart: interpolated at {step:g} mm")
    return Volume(even_gy, _grid(first, float(offsets[0]), step, count)), (note,)


def _grid(first: Plane, start: float, step: float, count: int) -> Geometry:
    between_rows, between_columns = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = first.normal * step, first.column * between_rows, first.row * between_columns
    affine[:3, 3] = first.position_mm + first.normal * start
    return Geometry((count, first.rows, first.columns), affine)


# ---- writing


def _check_writable(dose: Volume, where: str) -> None:
    values = dose.array
    if values.ndim != 3:
        raise DoseError(f"a dose has three axes, not {values.shape}", where=where)
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        raise DoseError(f"{len(bad)} voxels of dose are NaN or infinite, the first at (k, j, i) = {tuple(bad[0].tolist())}", where=where)
    if values.min() < 0 or values.max() <= 0:
        raise DoseError(f"a dose runs from 0 up, this from {values.min():g} to {values.max():g} Gy", where=where)


def _check_told(kind: DoseKind, where: str) -> None:
    if untold := without_word(kind):
        raise DoseError(untold, where=where, hint=PUT_PLAN_BESIDE)
    if kind.type not in ("PHYSICAL", "EFFECTIVE", ""):
        raise DoseError(f"DoseType is {kind.type}; PHYSICAL and EFFECTIVE are written", where=where)


def _along_normal(dose: Volume) -> Volume:
    """The same voxels with slices in the direction of row x column, as DICOM counts frames."""
    grid = dose.geometry
    if np.cross(grid.axes[2], grid.axes[1]) @ grid.axes[0] > 0:
        return dose
    return dose.to(grid.reorient(grid.axes * [[-1.0], [1.0], [1.0]]))


def _dataset(dose: Volume, source: DicomSource | None, plan_uid: str | None, comment: str, bits: int | None, kind: DoseKind) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID = RT_DOSE, str(generate_uid())
    _identity(d, source)
    now = datetime.datetime.now()
    d.ContentDate = d.InstanceCreationDate = d.SeriesDate = f"{now:%Y%m%d}"
    d.ContentTime = d.InstanceCreationTime = d.SeriesTime = f"{now:%H%M%S}"
    d.Modality, d.Manufacturer, d.ManufacturerModelName = "RTDOSE", "oncontour", "oncontour"
    d.OperatorsName = ""
    d.SeriesInstanceUID, d.SeriesNumber, d.InstanceNumber = str(generate_uid()), 1, 1
    d.SeriesDescription = "Dose"
    _grid_module(d, dose, bits)
    d.DoseUnits, d.DoseType, d.DoseSummationType = "GY", kind.type or "PHYSICAL", kind.summation
    d.DoseComment = (comment or ("" if plan_uid else "The referenced plan was not exported with this dose"))[:64]
    d.ReferencedRTPlanSequence = _plan_references(plan_uid, kind)
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = d.SOPClassUID, d.SOPInstanceUID
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return d


def _plan_references(plan_uid: str | None, kind: DoseKind) -> list[Any]:
    """The plans that a dose is of, and which parts of one (C.8.8.3: one fraction group, and its beams of BEAM)."""
    from pydicom.uid import generate_uid

    uids = [plan_uid or str(generate_uid()), *(str(generate_uid()) for _ in range(kind.plans - 1))]
    plans = [_item(ReferencedSOPClassUID=RT_PLAN, ReferencedSOPInstanceUID=uid) for uid in uids]
    part: dict[str, Any] = {"ReferencedFractionGroupNumber": kind.groups[0]} if kind.groups else {}
    if kind.beams:
        part["ReferencedBeamSequence"] = [_item(ReferencedBeamNumber=number) for number in kind.beams]
    if part:
        plans[0].ReferencedFractionGroupSequence = [_item(**part)]
    return plans


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    d = Dataset()
    for name, value in values.items():
        setattr(d, name, value)
    return d


def _identity(d: Any, source: DicomSource | None) -> None:
    from pydicom.uid import generate_uid

    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(d, name, "")
    d.ReferringPhysicianName = d.PositionReferenceIndicator = ""
    if source:
        set_attributes(d, {**source.study, **source.patient})
    d.StudyInstanceUID = source.study_uid if source else str(generate_uid())
    d.FrameOfReferenceUID = source.frame_of_reference_uid if source else str(generate_uid())


def _steps(dose_gy: NDArray[np.float64], bits: int | None) -> tuple[int, float]:
    """(bits, DoseGridScaling) to store these values with; see ``write_rtdose``."""
    largest = float(dose_gy.max())
    for step in _DECIMAL_STEPS_GY if bits != 32 else ():
        if largest <= step * _LARGEST[16] and float(np.abs(np.rint(dose_gy / step) * step - dose_gy).max()) <= 2e-7 * largest:
            return 16, step
    bits = bits or 32
    return bits, max(largest / _LARGEST[bits], 1e-30)


def _grid_module(d: Any, dose: Volume, bits: int | None) -> None:
    from pydicom.valuerep import format_number_as_ds as ds

    grid = dose.geometry
    frames, d.Rows, d.Columns = grid.shape
    d.ImagePositionPatient = [ds(v) for v in grid.origin_mm]
    d.ImageOrientationPatient = [ds(float(v)) for v in (*grid.axes[2], *grid.axes[1])]
    d.PixelSpacing = [ds(v) for v in grid.spacing_mm[1:]]
    d.SliceThickness = ds(grid.spacing_mm[0])
    d.NumberOfFrames, d.FrameIncrementPointer = frames, 0x3004000C
    d.GridFrameOffsetVector = [ds(grid.spacing_mm[0] * n) for n in range(frames)]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    bits, step = _steps(np.asarray(dose.array, np.float64), bits)
    d.BitsAllocated, d.BitsStored, d.HighBit = bits, bits, bits - 1
    scaling = d.DoseGridScaling = ds(step)
    d.PixelData = (
        np.minimum(np.rint(np.asarray(dose.array, np.float64) / float(scaling)), _LARGEST[bits]).astype(f"<u{bits // 8}").tobytes()
    )
    d["PixelData"].VR = "OW"
