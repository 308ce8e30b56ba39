"""RTDOSE to Gy on its own grid.

Sources: DICOM PS3.3 A.18.3 (RT Dose IOD), C.8.8.3 (RT Dose module), C.8.8.3.2 (Grid Frame Offset Vector).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Floats, Geometry
from oncontour.core.notes import CHOOSE_DOSE, Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.errors import DoseError, InputError, LimitError, SeriesError
from oncontour.io.dicom.encapsulated import check_shrunk
from oncontour.io.dicom.header import MAX_VOXELS, DicomFile, Header, read_header
from oncontour.io.dicom.pixels import stored_values
from oncontour.io.dicom.plane import Plane, frames_of

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SUSPICIOUS_GY = 300.0
"""Above this a note says that the file may hold centigray; brachytherapy has such doses beside the source."""
WHOLE = ("PLAN", "MULTI_PLAN")
"""DoseSummationTypes of a dose that lacks nothing."""
PARTS = {"BEAM": "ReferencedBeamSequence", "FRACTION": "ReferencedFractionGroupSequence"}
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
    for summation in PARTS:
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
    if summation not in (*WHOLE, *PARTS):
        raise DoseError(f"DoseSummationType is {summation or 'missing'}; {', '.join((*WHOLE, *PARTS))} are read", where=str(path))
    plans = list(file.items("ReferencedRTPlanSequence"))
    uids = tuple(dict.fromkeys(uid for uid in (plan.plain("ReferencedSOPInstanceUID") for plan in plans) if uid))
    groups = list(plans[0].items("ReferencedFractionGroupSequence")) if plans and summation in PARTS else []
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
        what = "doses of beams and of fraction groups of one plan cannot be summed"
        raise DoseError(what, where=_names(doses), hint=f"give one kind, or {CHOOSE_DOSE}")
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
    offsets = _offsets(file, frames[0], len(frames))
    gy, remarks = _gy(frames, scaling, file.where, sole)
    volume, more = _placed(gy, offsets, frames[0], file.where)
    weighted = Note(NoteCode.DOSE_EFFECTIVE, "dose is EFFECTIVE (weighted by biology), not physical")
    effective = (weighted,) if kind == "EFFECTIVE" else ()
    return volume, (*effective, *remarks, *more)


def _offsets(file: DicomFile, first: Plane, count: int) -> Floats:
    """Position of each frame along row x column, from the first (C.8.8.3.2, both forms)."""
    text = file.words("GridFrameOffsetVector")
    if not text and count == 1:
        return np.zeros(1)
    if len(text) != count:
        raise DoseError(f"{count} frames, but {len(text)} values in GridFrameOffsetVector", where=file.where)
    values = np.array(file.numbers("GridFrameOffsetVector", count))
    if values[0] == 0:
        return values
    along_z, z = float(first.normal[2]), float(first.position_mm[2])
    if abs(values[0] - z) > 0.1 or abs(abs(along_z) - 1) > 1e-4:
        what = f"GridFrameOffsetVector begins with {values[0]:g}: neither 0 nor the z of ImagePositionPatient ({z:g}) in an axial grid"
        raise DoseError(what, where=file.where)
    return np.asarray((values - values[0]) * np.sign(along_z))


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
