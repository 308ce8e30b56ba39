"""Small valid inputs of every kind that a reader takes, each in a folder of its own, and the readers' way in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.phantom import HollowSphere
from tests import phantoms
from tests.dicom_cases import WrittenSeries, make_series, save
from tests.fuzz import damage
from tests.fuzz.damage import Damage
from tests.io.test_series_enhanced import enhanced

GRID = Geometry.regular((6, 9, 10), (3, 2, 2), (-9, -8, -7))


@dataclass(frozen=True)
class Kind:
    """``make(folder)`` puts a valid input there and says which of its files to spoil; ``read(folder)`` is the reader under test."""

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    damages: tuple[Damage, ...]


# ---- readers, each used the way the program does: everything that was read is also looked at


def read_everything(path: Path) -> object:
    from oncontour import io

    case = io.read(path)
    for name in case.structures:
        case.mask(name)
    return str(dict(case.facts)), [image.array.sum() for image in case.images.values()]


def read_series_alone(folder: Path) -> object:
    from oncontour.io.dicom.series import read_series

    volume, source, notes = read_series(folder)
    return volume.array.sum(), source.offsets_mm, notes


def read_structures(folder: Path) -> object:
    from oncontour.io.dicom.rtstruct_read import read_rtstruct
    from oncontour.io.dicom.series import read_series
    from oncontour.raster import fill

    volume, source, _ = read_series(folder)
    contours, notes = read_rtstruct(folder / "rtstruct.dcm", source=source)
    return [fill(one, volume.geometry).volume_cc for one in contours.values()], notes


def read_dose(folder: Path) -> object:
    from oncontour.io.dicom.rtdose import read_rtdose

    volume, notes = read_rtdose(folder / "rtdose.dcm")
    return volume.array.sum(), notes


def read_plan(folder: Path) -> object:
    """The whole of ``oncontour dvh``, but for its files."""
    from oncontour import io
    from oncontour.commands import dvh as plan

    told = plan.evaluate(io.read(folder), figures=("Dmean", "D95%", "D0.03cc", "V20Gy"), ntcp=True)
    return str(told), plan.record(told)


def read_segments(folder: Path) -> object:
    from oncontour.io.dicom.seg import read_seg
    from oncontour.io.dicom.series import read_series

    segments, volume = read_seg(folder / "seg.dcm"), read_series(folder)[0]
    return [mask.to(volume.geometry).volume_cc for mask in segments.masks.values()], str(segments.notes)


def read_single_image(folder: Path) -> object:
    from oncontour.io.image.nifti import read_image

    return [read_image(path).array.sum() for path in sorted(folder.iterdir()) if not path.name.startswith("other")]


def read_cohort(folder: Path) -> object:
    from oncontour.io.cohort import Cohort

    cohort = Cohort.open(folder / "cohort.csv")
    return cohort.split((0.5, 0.5), 0), [cohort[one].id for one in cohort.ids[:3]]


def read_model(folder: Path) -> object:
    """A model as it is loaded to be used, and what ``oncontour info`` says of it."""
    from oncontour.commands.info import info
    from oncontour.learn.task import load_task

    (path,) = folder.glob("*.safetensors")
    return info(str(path)), load_task(path).card()


# ---- images


def _volume(dtype: type = np.int16) -> Volume:
    return Volume(np.random.default_rng(0).integers(0, 100, GRID.shape).astype(dtype), GRID)


def _image(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from oncontour.io.image.nifti import write_image

        return [write_image(_volume(), folder / name)]

    return make


def small_case() -> Case:
    solid = HollowSphere((0, 0, 0), 6, 3)
    return Case("p", {"ct": _volume(), "dose": _volume(np.float32)}, {"Larynx": solid.mask(GRID), "Parotid_L": solid.mask(GRID)})


def _layout(folder: Path) -> list[Path]:
    phantoms.patient(folder, small_case())
    return sorted(folder.rglob("*.nii.gz"))


def _labels(folder: Path) -> list[Path]:
    """A label map with the names of its labels, and a .seg.nrrd that names them itself."""
    from oncontour.io.image.nifti import write_image

    case = small_case()
    two = case.masks["Larynx"].map(lambda inside: inside.astype(np.uint8) + 2 * np.roll(inside, 9, axis=2).astype(np.uint8))
    two = two.map(lambda labels: np.minimum(labels, 2))
    write_image(case.ct, folder / "ct.nrrd")
    write_image(two, folder / "masks" / "organs.mha")
    (folder / "masks/organs.json").write_text('{"labels": {"background": 0, "Larynx": 1, "Parotid_L": 2}}')
    path = write_image(two, folder / "masks" / "all.seg.nrrd")
    head, voxels = path.read_bytes().split(b"\n\n", 1)
    named = "".join(f"\nSegment{n}_Name:=S{n}\nSegment{n}_LabelValue:={n + 1}\nSegment{n}_Layer:=0" for n in range(2))
    path.write_bytes(head + named.encode() + b"\n\n" + voxels)
    return sorted((folder / "masks").iterdir())


def _openkbp(folder: Path) -> list[Path]:
    """A few voxels of a patient as published (Babier et al. 2021): flat C-order index, value; masks hold indices alone."""
    (folder / "voxel_dimensions.csv").write_text("3.906\n3.906\n2.5\n")
    (folder / "ct.csv").write_text(",data\n" + "".join(f"{n},{1024.0 + n % 7}\n" for n in range(1_000_000, 1_000_040)))
    (folder / "dose.csv").write_text(",data\n" + "".join(f"{n},{n % 70}.25\n" for n in range(1_000_000, 1_000_040)))
    (folder / "Brainstem.csv").write_text(",data\n" + "".join(f"{n},\n" for n in range(1_000_010, 1_000_020)))
    (folder / "possible_dose_mask.csv").write_text(",data\n" + "".join(f"{n},\n" for n in range(1_000_000, 1_000_040)))
    return sorted(folder.glob("*.csv"))


def _cohort(folder: Path) -> list[Path]:
    phantoms.patient(folder / "a", small_case())
    phantoms.patient(folder / "b", small_case())
    (folder / "cohort.csv").write_text("patient,path,split\na,a,train\nb,b,validation\n")
    return [folder / "cohort.csv"]


# ---- DICOM


def _series(folder: Path, **options: object) -> WrittenSeries:
    return make_series(folder, rows=32, columns=34, spacing_mm=(2, 2), offsets=(0.0, 2.0, 4.0, 6.0), **options)  # type: ignore[arg-type]


def _plain_series(folder: Path) -> list[Path]:
    return list(_series(folder).paths)


def _compressed(syntax: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        return list(_series(folder, syntax=syntax).paths)

    return make


def _object(series: WrittenSeries, sop_class: str, modality: str) -> Dataset:
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = sop_class, generate_uid(), modality
    d.PatientID, d.PatientName, d.StudyInstanceUID, d.SeriesInstanceUID = "phantom", "a^b", series.study_uid, generate_uid()
    d.FrameOfReferenceUID, d.StudyDate, d.StudyTime, d.AccessionNumber = series.frame_of_reference_uid, "20260101", "010101", ""
    return d


def _item(**values: object) -> Dataset:
    d = Dataset()
    for keyword, value in values.items():
        setattr(d, keyword, value)
    return d


def _rtstruct(folder: Path, series: WrittenSeries | None = None) -> list[Path]:
    series = series or _series(folder)
    d = _object(series, "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    d.StructureSetLabel, d.StructureSetDate, d.StructureSetTime = "a", "20260101", "010101"
    images = [_item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid) for uid in series.sop_uids]
    of_series = _item(SeriesInstanceUID=series.series_uid, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=series.study_uid, RTReferencedSeriesSequence=[of_series]
    )
    d.ReferencedFrameOfReferenceSequence = [_item(FrameOfReferenceUID=series.frame_of_reference_uid, RTReferencedStudySequence=[study])]
    names = ("Brainstem", "Ring", "Point")
    d.StructureSetROISequence = [
        _item(ROINumber=n + 1, ReferencedFrameOfReferenceUID=series.frame_of_reference_uid, ROIName=name, ROIGenerationAlgorithm="")
        for n, name in enumerate(names)
    ]
    d.ROIContourSequence = [_roi(n + 1, series, name) for n, name in enumerate(names)]
    d.RTROIObservationsSequence = [_item(ObservationNumber=n + 1, ReferencedROINumber=n + 1, RTROIInterpretedType="") for n in range(3)]
    save(d, folder / "rtstruct.dcm")
    return [folder / "rtstruct.dcm"] * 9 + [series.paths[1]]


def _roi(number: int, series: WrittenSeries, name: str) -> Dataset:
    solid = HollowSphere(tuple(series.positions_mm[1] + (31, 29, 0)), 13, 6)  # type: ignore[arg-type]
    contours = []
    for n, at in enumerate(series.positions_mm):
        image = [_item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=series.sop_uids[n])]
        polygons = solid.contours_at(float(at[2]), 12)[: 2 if name == "Ring" else 1]
        for polygon in polygons if name != "Point" else (at[None],):
            points = [f"{v:.3f}" for v in np.ravel(polygon)]
            kind = "POINT" if name == "Point" else "CLOSED_PLANAR"
            contours.append(
                _item(ContourImageSequence=image, ContourGeometricType=kind, NumberOfContourPoints=len(points) // 3, ContourData=points)
            )
    return _item(ROIDisplayColor=[255, 0, 9], ReferencedROINumber=number, ContourSequence=contours)


def _rtdose(folder: Path, series: WrittenSeries | None = None) -> list[Path]:
    series = series or _series(folder)
    d = _object(series, "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE")
    dose = np.random.default_rng(0).integers(0, 60000, (4, 6, 7))
    d.ImagePositionPatient, d.ImageOrientationPatient = list(series.positions_mm[0]), [1, 0, 0, 0, 1, 0]
    d.PixelSpacing, d.GridFrameOffsetVector, d.FrameIncrementPointer = [3, 3], [0, 2, 4, 6], 0x3004000C
    d.NumberOfFrames, d.Rows, d.Columns = dose.shape
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 32, 32, 31
    d.DoseUnits, d.DoseType, d.DoseSummationType, d.DoseGridScaling = "GY", "PHYSICAL", "PLAN", "0.001"
    d.PixelData = dose.astype("<u4").tobytes()
    d["PixelData"].VR = "OW"
    save(d, folder / "rtdose.dcm")
    return [folder / "rtdose.dcm"]


def _seg(folder: Path, series: WrittenSeries | None = None) -> list[Path]:
    series = series or _series(folder)
    d = _object(series, "1.2.840.10008.5.1.4.1.1.66.4", "SEG")
    shape = (4, 32, 34)
    bits = np.zeros(shape, np.uint8)
    bits[1:3, 3:9, 4:10] = 1
    d.NumberOfFrames, d.Rows, d.Columns = shape
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit, d.SegmentationType = 1, 1, 0, "BINARY"
    d.ImageType, d.LossyImageCompression, d.ContentLabel = ["DERIVED", "PRIMARY"], "00", "SEG"
    code = _item(CodeValue="85756007", CodingSchemeDesignator="SCT", CodeMeaning="Tissue")
    d.SegmentSequence = [
        _item(
            SegmentNumber=1,
            SegmentLabel="Brainstem",
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=[code],
            SegmentedPropertyTypeCodeSequence=[code],
        )
    ]
    d.DimensionIndexSequence = [_item(DimensionIndexPointer=0x00200032, FunctionalGroupPointer=0x00209113)]
    measures = _item(PixelSpacing=[2, 2], SliceThickness="2", SpacingBetweenSlices="2")
    plane = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    d.SharedFunctionalGroupsSequence = [_item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])]
    d.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[_item(DimensionIndexValues=[n + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=list(at))],
            SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=1)],
        )
        for n, at in enumerate(series.positions_mm)
    ]
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    d.PixelData = packed + b"\x00" * (len(packed) % 2)
    d["PixelData"].VR = "OB"
    save(d, folder / "seg.dcm")
    return [folder / "seg.dcm"]


def _label_map_seg(folder: Path) -> list[Path]:
    """The same segment by its value, 7, among background 0 (LABELMAP)."""
    (path,) = _seg(folder)
    d = pydicom.dcmread(path)
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.SegmentationType = 8, 8, 7, "LABELMAP"
    d.add_new("PixelPaddingValue", "US", 0)
    d.SegmentSequence[0].SegmentNumber = 7
    labels = np.zeros((d.NumberOfFrames, d.Rows, d.Columns), np.uint8)
    labels[1:3, 3:9, 4:10] = 7
    d.PixelData = labels.tobytes()
    d.save_as(path)
    return [path]


def _patient(folder: Path) -> list[Path]:
    """Everything a clinic exports of a patient, in one folder."""
    series = _series(folder)
    return [*_rtstruct(folder, series)[:1], *_rtdose(folder, series), *_seg(folder, series), series.paths[0], series.paths[2]]


def _plan(folder: Path) -> list[Path]:
    """The doses of two beams and the plan that they are of, beside images and structures."""
    series = _series(folder)
    whole = pydicom.dcmread(_rtdose(folder, series)[0])
    d = _object(series, "1.2.840.10008.5.1.4.1.1.481.5", "RTPLAN")
    group, reference, beams, given = Dataset(), Dataset(), [Dataset(), Dataset()], [Dataset(), Dataset()]
    for n in (0, 1):
        beams[n].BeamNumber, beams[n].TreatmentDeliveryType, given[n].ReferencedBeamNumber = n + 1, "TREATMENT", n + 1
    group.FractionGroupNumber, group.NumberOfFractionsPlanned, group.NumberOfBeams, group.ReferencedBeamSequence = 1, 20, 2, given
    reference.DoseReferenceNumber, reference.TargetPrescriptionDose = 1, "40"
    d.FractionGroupSequence, d.BeamSequence, d.DoseReferenceSequence = [group], beams, [reference]
    save(d, folder / "rtplan.dcm")
    for n in (0, 1):
        of, part = Dataset(), Dataset()
        of.ReferencedSOPClassUID, of.ReferencedSOPInstanceUID = d.SOPClassUID, d.SOPInstanceUID
        part.ReferencedFractionGroupNumber, part.ReferencedBeamSequence = 1, [given[n]]
        of.ReferencedFractionGroupSequence = [part]
        whole.DoseSummationType, whole.ReferencedRTPlanSequence, whole.SOPInstanceUID = "BEAM", [of], generate_uid()
        whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
        whole.save_as(folder / f"beam{n}.dcm")
    (folder / "rtdose.dcm").unlink()
    return [folder / "rtplan.dcm", folder / "beam0.dcm", folder / "beam1.dcm", *_rtstruct(folder, series)[:1]]


def _enhanced(folder: Path) -> list[Path]:
    enhanced(folder, [0.0, 2.0, 4.0])
    return [folder / "enhanced.dcm"]


def _model(kind: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from oncontour.contour.inputs import ContourSettings
        from oncontour.contour.task import ContourTask
        from oncontour.learn.task import save_model
        from oncontour.quality.inputs import AssessSettings
        from oncontour.quality.task import AssessTask
        from oncontour.risk.task import RiskSettings, RiskTask

        names = ("Parotid_L", "Parotid_R")
        if kind == "contour":
            options: dict[str, object] = {"widths": (4, 8, 8)}
            save_model(ContourTask(ContourSettings(names, net_options=options, window=(16, 16, 16))), folder / "m.safetensors")
        elif kind == "assess":
            options = {"width": 8, "depth": 1, "stem": (4, 4, 8)}
            save_model(AssessTask(AssessSettings(names, net_options=options, window=(16, 16))), folder / "m.safetensors")
        else:
            options = {"widths": (4, 4, 4, 4), "embedding": 4}
            settings = RiskSettings(("xerostomia",), net_options=options, window=(8, 8, 8), members=1)
            save_model(RiskTask(settings), folder / "m.safetensors")
        return [folder / "m.safetensors"]

    return make


IMAGES = (
    Kind("nifti", _image("a.nii"), read_single_image, (damage.nifti, damage.bytewise)),
    Kind("nifti.gz", _image("a.nii.gz"), read_single_image, (damage.nifti, damage.nifti, damage.bytewise)),
    Kind("nrrd", _image("a.nrrd"), read_single_image, (damage.textual, damage.bytewise)),
    Kind("mha", _image("a.mha"), read_single_image, (damage.textual, damage.bytewise)),
    Kind("layout", _layout, read_everything, (damage.nifti, damage.bytewise)),
    Kind("labels", _labels, read_everything, (damage.textual, damage.bytewise)),
)
TABLES = (
    Kind("openkbp", _openkbp, read_everything, (damage.textual, damage.textual, damage.bytewise)),
    Kind("cohort", _cohort, read_cohort, (damage.textual, damage.bytewise)),
)
SERIES = (
    Kind("series", _plain_series, read_series_alone, (damage.dicom, damage.dicom, damage.dicom, damage.deflated)),
    Kind("enhanced", _enhanced, read_series_alone, (damage.dicom, damage.dicom, damage.bytewise)),
    Kind("series-rle", _compressed("1.2.840.10008.1.2.5"), read_series_alone, (damage.dicom, damage.bytewise)),
    Kind("series-jpegls", _compressed("1.2.840.10008.1.2.4.80"), read_series_alone, (damage.dicom, damage.bytewise)),
    Kind("series-j2k", _compressed("1.2.840.10008.1.2.4.90"), read_series_alone, (damage.dicom, damage.bytewise)),
    Kind("series-jpeg", _compressed("1.2.840.10008.1.2.4.70"), read_series_alone, (damage.dicom, damage.bytewise)),
)
OBJECTS = (
    Kind("rtstruct", _rtstruct, read_structures, (damage.dicom,)),
    Kind("patient", _patient, read_everything, (damage.dicom,)),
    Kind("rtdose", _rtdose, read_dose, (damage.dicom,)),
    Kind("seg", _seg, read_segments, (damage.dicom,)),
    Kind("seg-labels", _label_map_seg, read_segments, (damage.dicom,)),
    Kind("plan", _plan, read_plan, (damage.dicom,)),
)
MODELS = tuple(Kind(kind, _model(kind), read_model, (damage.model,)) for kind in ("contour", "assess", "risk"))
GROUPS = {"images": IMAGES, "tables": TABLES, "series": SERIES, "objects": OBJECTS, "models": MODELS}
