"""Neither what files are called, nor how they are numbered, nor in which order they come changes what is read or refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.io import read, write
from oncontour.io.dicom.rtdose import RT_PLAN, dose_kind, read_rtdose, write_rtdose
from oncontour.io.dicom.seg import write_seg
from oncontour.io.dicom.series import read_series
from tests.dicom_cases import make_series, ramp, save
from tests.io.test_read import clinic, copy  # noqa: F401  (a fixture)
from tests.io.test_rtdose import make_dose
from tests.io.test_series_enhanced import enhanced

SHUFFLES = (1, 2, 3)
EVEN = tuple(2.0 * n for n in range(9))
UNEVEN = (0.0, 1.0, 2.0, 3.0, 6.0, 9.0, 12.0)
_C, _S = np.cos(0.4), np.sin(0.4)
OBLIQUE = {"row": (_C, _S, 0.0), "column": (-_S * _C, _C * _C, _S)}

Outcome = tuple[Any, ...]


def _twice(folder: Path, **values: Any) -> None:
    """Each image again, as another instance with another number."""
    written = make_series(folder, offsets=EVEN, **values)
    for n, path in enumerate(written.paths):
        copy(path, folder / f"again{n}.dcm", InstanceNumber=101 + n)


def _with_localizer(folder: Path, **values: Any) -> None:
    """One more image at right angles to the others, numbered among them."""
    written = make_series(folder, **values)
    topogram = copy(written.paths[0], folder / "topogram.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], InstanceNumber=1)
    topogram.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    topogram.save_as(folder / "topogram.dcm")


def _phases(folder: Path) -> None:
    one = make_series(folder, offsets=EVEN)
    uids = {"series_uid": one.series_uid, "study_uid": one.study_uid, "frame_of_reference_uid": one.frame_of_reference_uid}
    make_series(folder, offsets=EVEN, image=ramp, prefix="x", change=lambda d, n: setattr(d, "AcquisitionNumber", 2), **uids)


def _with_derived(folder: Path) -> None:
    """A derived image among the originals, and a derived series beside them."""
    one = make_series(folder, offsets=EVEN)
    derived = ["DERIVED", "SECONDARY", "MPR"]
    copy(one.paths[0], folder / "derived.dcm", ImageType=derived, InstanceNumber=77)
    make_series(folder, offsets=EVEN, prefix="d", change=lambda d, n: setattr(d, "ImageType", derived))


def _without_number(dataset: Dataset, n: int) -> None:
    del dataset.InstanceNumber


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "even": (partial(make_series, offsets=EVEN), ""),
    "even, in steps of 2": (partial(make_series, offsets=EVEN, numbers=range(1, 18, 2)), "go in steps of 2"),
    "even, numbered twice": (partial(make_series, offsets=EVEN, numbers=(1, 2, 3, 4, 5, 1, 2, 3, 4)), "more than once"),
    "uneven": (partial(make_series, offsets=UNEVEN), "placed where they are on a 1 mm grid"),
    "uneven, numbered apart": (partial(make_series, offsets=UNEVEN, numbers=(1, 2, 3, 4, 31, 32, 33)), "slices may be missing"),
    "uneven, not numbered": (
        partial(make_series, offsets=UNEVEN, change=lambda d, n: delattr(d, "InstanceNumber")),
        "placed where they are",
    ),
    "tilted": (partial(make_series, offsets=EVEN, tilt_deg=13.0), "sheared by 13.00 degrees"),
    "tilted and uneven": (partial(make_series, offsets=UNEVEN, tilt_deg=-45.0), "sheared by 45.00 degrees"),
    "oblique and uneven": (partial(make_series, offsets=UNEVEN, **OBLIQUE), "placed where they are"),
    "one missing": (
        partial(make_series, offsets=(0, 3, 6, 12, 15, 18), numbers=(1, 2, 3, 5, 6, 7)),
        "slices are missing: 6 mm between slices 3",
    ),
    "several missing": (
        partial(make_series, offsets=(0, 6, 15, 18, 21, 30, 33), numbers=(1, 3, 6, 7, 8, 11, 12)),
        r"slices are missing: 6 mm between slices 1 and 2 \(at z 0.00 and 6.00 mm\), 3 mm elsewhere \(and in 2 more such places\); "
        r"of the InstanceNumbers 1 to 12 5 are lacking \(2, 4, 5, 9, 10\)",
    ),
    "no neighbours left": (partial(make_series, offsets=(0, 6, 15, 21), numbers=(1, 3, 6, 8)), "slices are missing: 6 mm between slices 1"),
    "one missing of uneven ones": (
        partial(make_series, offsets=(0, 1, 2, 3, 6, 12, 15), numbers=(1, 2, 3, 4, 5, 7, 8)),
        "slices are missing: 6 mm between slices 5 and 6",
    ),
    "one missing, not numbered": (
        partial(make_series, offsets=(0, 3, 6, 12, 15), change=_without_number),
        "slices are missing: 6 mm between slices 3 and 4",
    ),
    "one missing, oblique": (
        partial(make_series, offsets=(0, 3, 6, 12, 15), numbers=(1, 2, 3, 5, 6), **OBLIQUE),
        r"slices 3 and 4 \(at 6\.00 and 12\.00 mm along the normal of the slices, which are oblique; ImagePositionPatient ",
    ),
    "doubles": (_twice, "9 image(s) are exact doubles"),
    "doubles of tilted ones": (partial(_twice, tilt_deg=10.0), "9 image(s) are exact doubles"),
    "a localizer beside uneven ones": (partial(_with_localizer, offsets=UNEVEN, numbers=range(2, 9)), "placed where they are"),
    "a localizer, and several missing": (
        partial(_with_localizer, offsets=(0, 6, 12, 15, 18), numbers=(2, 4, 6, 7, 8)),
        "slices are missing: 6 mm between slices 1 and 2",
    ),
    "two phases": (_phases, "two different images in one place"),
    "derived beside originals": (_with_derived, "left out 1 derived image(s)"),
}
"""Kind of series -> how it is written, and what is said of it."""


def outcome(folder: Path, originals: dict[str, str]) -> Outcome:
    """All that comes of reading a series, or the sentence that refuses it, where files are called what they were to begin with."""
    try:
        volume, source, notes = read_series(folder)
    except InputError as error:
        return (type(error).__name__, _named(str(error), originals))
    grid = volume.geometry
    said = tuple(_named(note, originals) for note in notes)
    return volume.array.dtype, volume.array.tobytes(), grid.shape, grid.affine.tolist(), source, said


def _named(text: str, originals: dict[str, str]) -> str:
    return re.sub(r"[\w-]+\.dcm", lambda found: originals[found.group()], text)


def shuffled(folder: Path, seed: int) -> dict[str, str]:
    """Deal file names anew among the files of ``folder``, and InstanceNumbers within each series; name -> the one before."""
    rng = np.random.default_rng(seed)
    paths = sorted(folder.glob("*.dcm"))
    datasets = [pydicom.dcmread(path) for path in paths]
    for series in sorted({d.SeriesInstanceUID for d in datasets}):
        mine = [d for d in datasets if d.SeriesInstanceUID == series and "InstanceNumber" in d]
        for dataset, number in zip(mine, rng.permutation([int(d.InstanceNumber) for d in mine]), strict=True):
            dataset.InstanceNumber = int(number)
    names = rng.permutation(len(paths))
    for dataset, name in zip(datasets, names, strict=True):
        dataset.save_as(paths[name])
    return {paths[name].name: path.name for path, name in zip(paths, names, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_numbers_of_images_change_nothing(kind: str, tmp_path: Path) -> None:
    made, says = KINDS[kind]
    made(tmp_path)
    before = outcome(tmp_path, {path.name: path.name for path in tmp_path.iterdir()})
    assert re.search(says if "\\" in says else re.escape(says), str(before[-1]))
    originals = {path.name: path.name for path in tmp_path.iterdir()}
    for seed in SHUFFLES:
        dealt = shuffled(tmp_path, seed)
        originals = {name: originals[was] for name, was in dealt.items()}
        assert outcome(tmp_path, originals) == before


@pytest.mark.parametrize(
    ("offsets", "says"), [(EVEN, "()"), (UNEVEN, "1 mm grid"), ((0.0, 2.0, 4.0, 8.0, 10.0), "slices are missing: 4 mm")]
)
def test_the_order_of_frames_changes_nothing(tmp_path: Path, offsets: Sequence[float], says: str) -> None:
    """A frame's place in the file is no number that could be lacking: a hole among frames is one all the same."""
    found = []
    for n, order in enumerate((range(len(offsets)), np.random.default_rng(0).permutation(len(offsets)))):
        enhanced(tmp_path / str(n), [offsets[k] for k in order])
        try:
            volume, source, notes = read_series(tmp_path / str(n))
            assert [s.frame for s in source.slices] == [int(k) + 1 for k in np.argsort(order)]
            found.append((volume.array.tolist(), volume.geometry.affine.tolist(), notes))
        except InputError as error:
            found.append((error.what,))
    assert found[0] == found[1]
    assert says in str(found[0][-1])


@pytest.mark.parametrize("folder", ["STS_044/CT", "STS_044/MR_T1"])
def test_names_and_numbers_of_real_images_change_nothing(data: Path, tmp_path: Path, folder: str) -> None:
    for path in (data / "dicom" / folder).rglob("*.dcm"):
        shutil.copy(path, tmp_path / path.name)
    originals = {path.name: path.name for path in tmp_path.iterdir()}
    before = outcome(tmp_path, originals)
    assert outcome(tmp_path, shuffled(tmp_path, 5)) == before
    assert len(before) == 6


def _beams(folder: Path) -> list[Path]:
    """Three beams whose float sums differ in their last digit by the order of adding."""
    folder.mkdir()
    rng = np.random.default_rng(3)

    def field(points: Any) -> Any:
        return rng.random(points.shape[:-1]) * 10 ** rng.integers(0, 3)

    def shifted(d: Dataset, n: int) -> None:
        x, y, z = d.ImagePositionPatient
        d.ImagePositionPatient = [x, y, z + 0.002 * n]  # as good as the same grid
        d.DoseGridScaling = f"{0.01 / (3 + n):.10g}"

    return [make_dose(folder / f"b{n}.dcm", field=field, summation="BEAM", beams=(n,), change=partial(shifted, n=n)) for n in (1, 2, 3)]


def test_the_order_of_parts_changes_no_digit_of_a_dose(tmp_path: Path) -> None:
    paths = _beams(tmp_path / "d")
    (one, said), kind = read_rtdose(paths), dose_kind(paths)
    for order in ((2, 0, 1), (1, 2, 0), (2, 1, 0)):
        again = [paths[n] for n in order]
        other, notes = read_rtdose(again)
        assert np.array_equal(one.array, other.array)
        assert np.array_equal(one.geometry.affine, other.geometry.affine)
        assert (notes, dose_kind(again)) == (said, kind)
    assert kind.beams == (1, 2, 3)


def _told(case: Case, originals: dict[str, str]) -> Outcome:
    masks = {name: case.mask(name).array.tobytes() for name in case.structures}
    images = {name: (image.array.tobytes(), image.geometry.affine.tolist()) for name, image in case.images.items()}
    said = tuple(_named(note, originals) for note in case.facts["notes"])
    return images, masks, list(case.structures), said, case.facts["names"], case.facts["unmapped"], case.source


def test_names_of_objects_change_nothing(clinic: Path) -> None:  # noqa: F811
    """Two structure sets, one of them twice and exported again; two SEG with one name of three in both; the dose of two beams."""
    source, case = read(clinic).source, read(clinic)
    grid = case.geometry
    one, other = (np.zeros(grid.shape, bool) for _ in range(2))
    one[1:3, 4:8, 4:8], other[2:5, 9:14, 9:14] = True, True
    write_seg({"SpinalCord": Volume(one, grid), "Brain": Volume(one, grid)}, clinic / "s1.dcm", source=source)
    write_seg({"SpinalCord": Volume(other, grid), "Lips": Volume(other, grid)}, clinic / "s2.dcm", source=source)
    copy(clinic / "RTSTRUCT.dcm", clinic / "old.dcm", StructureSetDate="20010101")
    later = pydicom.dcmread(clinic / "old.dcm")
    later.StructureSetDate, later.ApprovalStatus = "20020202", "APPROVED"
    later.save_as(clinic / "older.dcm")
    (clinic / "RTDOSE.dcm").unlink()
    for n in (1, 2):
        write_rtdose(Volume(np.full((3, 10, 12), 20.0 * n), case.images["dose"].geometry), clinic / f"b{n}.dcm", source=source)
        _as_beam(clinic / f"b{n}.dcm", n)
    for path in (clinic / "CT").iterdir():
        path.rename(clinic / path.name)
    originals = {path.name: path.name for path in clinic.glob("*.dcm")}
    before = _told(read(clinic, id="p"), originals)
    assert any("the newest of 2 structure sets" in note and "20020202" in note for note in before[3])
    assert any("segments of s" in note and "SpinalCord" in note for note in before[3])
    for seed in SHUFFLES:
        dealt = shuffled(clinic, seed)
        originals = {name: originals[was] for name, was in dealt.items()}
        assert _told(read(clinic, id="p"), originals) == before


def _as_beam(path: Path, number: int) -> None:
    dataset = pydicom.dcmread(path)
    plan, group, beam = Dataset(), Dataset(), Dataset()
    plan.ReferencedSOPClassUID, plan.ReferencedSOPInstanceUID = RT_PLAN, "1.2.3"
    group.ReferencedFractionGroupNumber, beam.ReferencedBeamNumber = 1, number
    plan.ReferencedFractionGroupSequence, group.ReferencedBeamSequence = [group], [beam]
    dataset.DoseSummationType, dataset.ReferencedRTPlanSequence = "BEAM", [plan]
    dataset.save_as(path)


def test_the_order_of_slices_written_is_that_of_the_patient(tmp_path: Path) -> None:
    """Written files are numbered along the normal, whatever the numbers were that they were read with."""
    make_series(tmp_path / "in", offsets=EVEN, numbers=(9, 8, 7, 6, 5, 4, 3, 2, 1))
    case = read(tmp_path / "in")
    write(case, tmp_path / "out")
    written = [pydicom.dcmread(path) for path in sorted((tmp_path / "out" / "CT").iterdir())]
    assert [float(d.ImagePositionPatient[2]) for d in written] == [2.0 * n for n in range(9)]
    assert [int(d.InstanceNumber) for d in written] == list(range(1, 10))
    save(written[0], tmp_path / "out" / "again.dcm")
    assert "exact doubles" in str(read_series(tmp_path / "out")[2])
