"""What a folder holds: its image series, and the RT, SEG and REG objects with what they refer to; and which of its series is meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydicom.uid import UID

from oncontour.errors import FormatError, InputError, LimitError, SeriesError
from oncontour.files import walk
from oncontour.io.dicom.header import DicomFile, Header, read_header

MAX_FILES = 200_000
PICK_ONE = "with --series_uid (oncontour assess, convert, dvh, risk, run, structures, synthesize; a patient of a cohort: convert it first)"
"""The way out where several series could be meant."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
IMAGE_CLASSES = {
    CT_IMAGE: "CT",
    ENHANCED_CT: "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",  # legacy converted enhanced CT
    MR_IMAGE: "MR",
    ENHANCED_MR: "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",  # legacy converted enhanced MR
}
OBJECT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.481.5": "RTPLAN",
    "1.2.840.10008.5.1.4.1.1.481.8": "RTPLAN",  # ion plan
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",  # label map
    "1.2.840.10008.5.1.4.1.1.66.1": "REG",
    "1.2.840.10008.5.1.4.1.1.66.3": "REG",  # deformable
}
PATIENT_KEYWORDS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight")
STUDY_KEYWORDS = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription")
SERIES_KEYWORDS = (
    *("SeriesDescription", "SeriesNumber", "SeriesDate", "SeriesTime", "ProtocolName", "BodyPartExamined", "PositionReferenceIndicator"),
    *("Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "ScanningSequence", "SequenceVariant", "ScanOptions"),
    *("MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "MagneticFieldStrength", "SliceThickness"),
    *("SyntheticData", "ContrastBolusAgent"),
)
DISTINGUISHING_KEYWORDS = (
    *("AcquisitionNumber", "AcquisitionTime", "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "TriggerTime"),
    *("DiffusionBValue", "ConvolutionKernel", "ImageType"),
)
"""Attributes that put several images of one place in one series in order (phases, echoes, kernels)."""
_IMAGE_KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientPosition"),
    *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber", "ImagesInAcquisition"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "RescaleType", "LossyImageCompression"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_REFERENCE_KEYWORDS = (
    *("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "ReferencedRTPlanSequence", "ReferencedStructureSetSequence"),
    *("RegistrationSequence", "StructureSetLabel", "DoseSummationType", "GridFrameOffsetVector"),
)
SCAN_KEYWORDS = tuple(
    dict.fromkeys((*_IMAGE_KEYWORDS, *_REFERENCE_KEYWORDS, *PATIENT_KEYWORDS, *STUDY_KEYWORDS, *SERIES_KEYWORDS, *DISTINGUISHING_KEYWORDS))
)


@dataclass(frozen=True, eq=False)
class SeriesFiles:
    """One image series, or one other object (RTSTRUCT, RTDOSE, RTPLAN, SEG, REG each stand alone, one file each).

    ``kind``: "image" (CT or MR), "RTSTRUCT", "RTDOSE", "RTPLAN", "SEG", "REG", or "other" (secondary captures, reports, PET, ...).
    """

    kind: str
    modality: str
    patient_id: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    description: str
    files: tuple[DicomFile, ...]
    referenced_series: tuple[str, ...] = ()
    """SeriesInstanceUIDs an RTSTRUCT, SEG or REG refers to."""
    referenced_frames: tuple[str, ...] = ()
    """FrameOfReferenceUIDs an object refers to, its own included."""
    referenced_instances: tuple[str, ...] = ()
    """SOPInstanceUIDs of the plan an RTDOSE, or the structure set an RTPLAN, refers to."""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files)

    @property
    def path(self) -> Path:
        """The (first) file."""
        return self.files[0].path

    @property
    def sop_instance_uid(self) -> str:
        """Of the (first) file."""
        return self.files[0].plain("SOPInstanceUID")

    @property
    def what(self) -> str:
        """What kind of object it is, as PS3.6 names its SOP class, with the modality that an image of no SOP class read here claims."""
        name = UID(self.files[0].sop_class_uid).name.removesuffix(" Storage")
        claimed = [f"Modality {self.modality}"] if self.kind == "other" and self.modality else []
        colour = ["in colour"] if self.files[0].binary("SamplesPerPixel") not in (None, 1) else []
        return name + (f" ({', '.join(claimed + colour)})" if claimed + colour else "")

    def __str__(self) -> str:
        return f"{self.modality} series {self.series_uid} ({self.description or 'no description'}, {len(self.files)} files)"


def scan(folder: Path | str) -> list[SeriesFiles]:
    """Every image series and RT, SEG or REG object below ``folder`` (or in one file), headers only.

    Files that are not DICOM, DICOMDIRs, and anything whose name begins with a dot are passed over. Sorted by modality, series UID and
    SOPInstanceUID, so that no file's name or number has a say in what comes first; only copies of one instance follow their paths.
    Empty where nothing is DICOM. Raises InputError where the folder does not exist, FormatError where a DICOM file cannot be parsed
    or an image is cut short before its pixels, LimitError beyond MAX_FILES files.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError("no such file or folder", where=str(folder))
    groups: dict[tuple[str, str], list[DicomFile]] = {}
    for path in files_below(folder):
        file = read_header(path, SCAN_KEYWORDS)
        if file is None:
            continue
        kind = _kind(file)
        if kind == "image" and file.pixels is None:
            hint = "export it again, or take it out of the folder"
            raise FormatError("an image without pixel data: cut short", where=file.where, hint=hint)
        alone = kind not in ("image", "other")
        groups.setdefault((kind, f"{path}" if alone else file.plain("SeriesInstanceUID")), []).append(file)
    found = [_series(kind, tuple(sorted(files, key=_identity))) for (kind, _), files in groups.items()]
    return sorted(found, key=lambda s: (s.kind != "image", s.modality, s.series_uid, *_identity(s.files[0])))


def passed_over(folder: Path | str, found: Sequence[SeriesFiles]) -> tuple[str, ...]:
    """Notes on how many files below ``folder`` are none of those that ``scan`` found there, and how many links lead nowhere: they may be
    slices that were damaged, or are no longer where they were."""
    folder = Path(folder)
    count = sum(1 for _ in files_below(folder)) - sum(len(series.files) for series in found)
    lost = sum(path.is_symlink() and not path.exists() for parent, _, names in walk(folder) for path in (parent / name for name in names))
    notes = [f"passed over: {count} file(s) that are no DICOM"] if count else []
    return (*notes, *([f"passed over: {lost} link(s) that lead nowhere"] if lost else []))


def holds_dicom(folder: Path) -> bool:
    """Whether a file below ``folder`` bears the mark of DICOM (PS3.10 7.1); quick, where ``scan`` is thorough."""
    for path in files_below(folder):
        try:
            with path.open("rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return True
        except OSError:  # whoever reads the file will say so
            continue
    return False


def files_below(folder: Path) -> Iterator[Path]:
    """Files below ``folder`` (or it, if it is one), links followed, none whose name or folder begins with a dot. Raises InputError where a
    folder cannot be looked into, LimitError beyond MAX_FILES."""
    if folder.is_file():
        yield folder
        return
    count = 0
    for parent, _, names in walk(folder, _unreadable):
        for name in names:
            path = parent / name
            if name.startswith(".") or not path.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                raise LimitError(f"more than {MAX_FILES} files", where=str(folder), hint="point at the folder of one patient")
            yield path


def _unreadable(error: OSError) -> NoReturn:
    """A folder that cannot be looked into may hold a part of the patient: it is not passed over."""
    raise InputError(
        f"a folder cannot be read ({error.strerror or error})", where=str(error.filename), hint="ask whoever owns it"
    ) from error


def _identity(file: DicomFile) -> tuple[str, str]:
    return file.plain("SOPInstanceUID"), str(file.path)


def _kind(file: DicomFile) -> str:
    if file.sop_class_uid in IMAGE_CLASSES:
        return "image"
    return OBJECT_CLASSES.get(file.sop_class_uid, "other")


def _series(kind: str, files: tuple[DicomFile, ...]) -> SeriesFiles:
    one = files[0]
    modality = IMAGE_CLASSES.get(one.sop_class_uid) or OBJECT_CLASSES.get(one.sop_class_uid) or one.plain("Modality")
    frame = one.plain("FrameOfReferenceUID")
    series, frames, instances = ((), (), ()) if kind in ("image", "other") else _references(one, kind)
    return SeriesFiles(
        kind=kind,
        modality=modality,
        patient_id=one.text("PatientID"),
        study_uid=one.plain("StudyInstanceUID"),
        series_uid=one.plain("SeriesInstanceUID"),
        frame_of_reference_uid=frame,
        description=one.text("SeriesDescription") or one.text("StructureSetLabel"),
        files=files,
        referenced_series=tuple(dict.fromkeys(series)),
        referenced_frames=tuple(dict.fromkeys(f for f in (frame, *frames) if f)),
        referenced_instances=tuple(dict.fromkeys(instances)),
    )


def _references(file: Header, kind: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(series UIDs, frame of reference UIDs, SOP instance UIDs) that an object points to."""
    series = [item.plain("SeriesInstanceUID") for item in file.items("ReferencedSeriesSequence")]
    frames = [item.plain("FrameOfReferenceUID") for item in file.items("RegistrationSequence")]
    for frame in file.items("ReferencedFrameOfReferenceSequence"):
        frames.append(frame.plain("FrameOfReferenceUID"))
        for study in frame.items("RTReferencedStudySequence"):
            series += [item.plain("SeriesInstanceUID") for item in study.items("RTReferencedSeriesSequence")]
    names = ("ReferencedRTPlanSequence", "ReferencedStructureSetSequence") if kind.startswith("RT") else ()
    instances = [item.plain("ReferencedSOPInstanceUID") for name in names for item in file.items(name)]
    return tuple(s for s in series if s), tuple(f for f in frames if f), tuple(i for i in instances if i)


# ---- which series is meant: chosen only where there is no doubt, else an error that lists them


def choose(
    found: Sequence[SeriesFiles], where: str, *, series_uid: str | None = None, modality: str | None = None, prefer_referenced: bool = False
) -> tuple[SeriesFiles, tuple[str, ...]]:
    """The one image series meant, and notes on those left out.

    Without ``modality`` a CT comes before an MR. Among several: with ``prefer_referenced`` those that an RTSTRUCT refers to; then original
    before derived images; then those of two or more slices. Raises SeriesError where none or several remain, or where the images are of
    several patients: none of these rules may decide who is meant.
    """
    images = [s for s in found if s.kind == "image"]
    if not images:
        raise _none(found, where)
    wanted = [s for s in images if series_uid in (None, s.series_uid) and modality in (None, s.modality)]
    if not wanted:
        asked = " ".join(str(v) for v in (modality, series_uid and f"series {series_uid}") if v)
        raise SeriesError(f"no {asked} here; there are {_listed(images)}", where=where, hint=f"give one of these, {PICK_ONE}")
    if (patients := len({s.patient_id for s in wanted} - {""})) > 1:
        hint = f"point at the folder of one patient, or choose one {PICK_ONE}"
        raise SeriesError(f"images of {patients} patients: {_listed(wanted)}", where=where, hint=hint)
    whole = [s for s in wanted if usable(s)[0]] or wanted
    if series_uid is None and modality is None and any(s.modality == "CT" for s in whole):
        whole = [s for s in whole if s.modality == "CT"]
    chosen = _narrowed(whole, found, prefer_referenced)
    if len(chosen) > 1:
        raise SeriesError(f"{len(chosen)} series could be meant: {_listed(chosen)}", where=where, hint=f"choose one {PICK_ONE}")
    return chosen[0], _left_out(found, chosen[0])


def _narrowed(series: list[SeriesFiles], found: Sequence[SeriesFiles], prefer_referenced: bool) -> list[SeriesFiles]:
    referenced = {uid for s in found if s.kind == "RTSTRUCT" for uid in s.referenced_series}
    rules: list[Callable[[SeriesFiles], bool]] = [
        lambda s: prefer_referenced and s.series_uid in referenced,
        lambda s: _holds_originals(s.files),
        lambda s: sum(f.whole("NumberOfFrames") or 1 for f in usable(s)[0]) > 1,
    ]
    for rule in rules:
        if len(series) > 1:
            series = [s for s in series if rule(s)] or series
    return series


def _none(found: Sequence[SeriesFiles], where: str) -> SeriesError:
    hint = "point at the folder that holds the CT or MR images"
    if not found:
        return SeriesError("no DICOM file here", where=where, hint=hint)
    if any(s.kind == "other" for s in found):
        hint += "; pictures made of them (screenshots, reports, fusions) have no place in the patient"
    return SeriesError(f"no CT or MR images here, only {_counted(found)}", where=where, hint=hint)


def _counted(found: Sequence[SeriesFiles]) -> str:
    """How many files there are of each kind of object."""
    counts: Counter[str] = Counter()
    for one in found:
        counts[one.what] += len(one.files)
    return ", ".join(f"{count} {'file' if count == 1 else 'files'} of {what}" for what, count in sorted(counts.items()))


def _listed(series: Sequence[SeriesFiles]) -> str:
    shown = "; ".join(str(s) for s in series[:12])
    return shown + (f"; and {len(series) - 12} more" if len(series) > 12 else "")


def _left_out(found: Sequence[SeriesFiles], chosen: SeriesFiles) -> tuple[str, ...]:
    notes = [f"left out: {s}" for s in found if s.kind == "image" and s is not chosen]
    others = [s for s in found if s.kind == "other"]
    if others:
        notes.append(f"left out, as they are no CT or MR slices: {_counted(others)}")
    return tuple(notes)


def usable(series: SeriesFiles) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The files of an image series that are slices, and notes on localizers, colour images and derived images among originals left out."""
    kept, dropped = [], dict.fromkeys(("localizer", "colour", "derived"), 0)
    original = _holds_originals(series.files)
    for file in series.files:
        if _is_localizer(file):
            dropped["localizer"] += 1
        elif file.binary("SamplesPerPixel") not in (None, 1):
            dropped["colour"] += 1
        elif original and _is_derived(file):
            dropped["derived"] += 1
        else:
            kept.append(file)
    return kept, tuple(f"left out {count} {name} image(s) of series {series.series_uid}" for name, count in dropped.items() if count)


def _holds_originals(files: Sequence[DicomFile]) -> bool:
    return any(not _is_derived(file) for file in files if not _is_localizer(file))


def _is_localizer(file: DicomFile) -> bool:
    return "LOCALIZER" in file.words("ImageType")


def _is_derived(file: DicomFile) -> bool:
    return file.words("ImageType")[:1] == ("DERIVED",)
