"""Writing CT and MR: what goes in comes back, and a conformance checker finds nothing wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, OutputError, SeriesError
from oncontour.io.dicom.attributes import fitted
from oncontour.io.dicom.series import read_series
from oncontour.io.dicom.series_write import write_series
from tests.dicom_cases import make_series

GRID = Geometry.regular((5, 12, 14), (2.5, 0.7, 1.3), (-3.25, 8.5, 100.125))


def ct(values: np.ndarray | None = None, grid: Geometry = GRID) -> Volume:
    rng = np.random.default_rng(1)
    return Volume(rng.integers(-1024, 3000, grid.shape).astype(np.int16) if values is None else values, grid)


def test_a_ct_comes_back_as_it_went_in(tmp_path: Path) -> None:
    volume = ct()
    written = write_series(volume, tmp_path / "ct", patient={"PatientID": "p1", "PatientName": "Müller^Jörg"}, description="planning")
    back, source, notes = read_series(tmp_path / "ct")
    assert np.array_equal(back.array, volume.array)
    assert back.array.dtype == np.int16
    assert back.geometry.same_grid(volume.geometry, 1e-6)
    assert notes == ()
    assert [s.sop_instance_uid for s in source.slices] == [s.sop_instance_uid for s in written.slices]
    assert (source.series_uid, source.patient["PatientName"]) == (written.series_uid, "Müller^Jörg")
    assert source.series["SeriesDescription"] == "planning"
    assert sorted(p.name for p in (tmp_path / "ct").iterdir()) == [f"CT{k:04d}.dcm" for k in range(1, 6)]


def test_oblique_and_left_handed_grids(tmp_path: Path) -> None:
    a = np.radians(30)
    axes = np.array([[0, 0, 1.0], [-np.sin(a), np.cos(a), 0], [np.cos(a), np.sin(a), 0]])
    volume = ct(grid=Geometry.regular((3, 5, 6), (2, 1, 1), (1, 2, 3), axes))
    write_series(volume, tmp_path / "oblique")
    assert read_series(tmp_path / "oblique")[0].geometry.same_grid(volume.geometry, 1e-6)
    axes[0] *= -1  # k against row x column
    volume = ct(grid=Geometry.regular((3, 5, 6), (2, 1, 1), (1, 2, 3), axes))
    write_series(volume, tmp_path / "left")
    back, _, _ = read_series(tmp_path / "left")
    assert np.array_equal(back.array, volume.array[::-1])
    assert np.array_equal(back.to(volume.geometry).array, volume.array)


def test_patient_study_and_frame_come_from_the_source(tmp_path: Path) -> None:
    made = make_series(tmp_path / "in", patient_position="FFP")
    volume, source, _ = read_series(tmp_path / "in")
    written = write_series(volume, tmp_path / "out", source=source)
    back, again, _ = read_series(tmp_path / "out")
    assert np.array_equal(back.array, volume.array)
    assert back.geometry.same_grid(volume.geometry, 1e-6)
    assert (again.study_uid, again.frame_of_reference_uid) == (made.study_uid, made.frame_of_reference_uid)
    assert again.series_uid == written.series_uid != made.series_uid
    assert again.patient_position == "FFP"
    assert dict(again.patient) == dict(source.patient)
    assert dict(again.study) == dict(source.study)


def test_the_position_of_a_grid_without_dicom(tmp_path: Path) -> None:
    """Head first supine is how an upright grid lies; of any other nothing is known."""
    write_series(ct(), tmp_path / "usual")
    turned = Geometry.regular((3, 5, 6), (2, 1, 1), (1, 2, 3), [[0, 0, 1], [0, -1, 0], [-1, 0, 0]])
    write_series(ct(grid=turned), tmp_path / "turned")
    found = [dcmread(tmp_path / name / "CT0001.dcm").PatientPosition for name in ("usual", "turned")]
    assert found == ["HFS", ""]


def test_float_hu_are_rounded_and_too_large_ones_refused(tmp_path: Path) -> None:
    write_series(ct(np.full(GRID.shape, 12.6, np.float32)), tmp_path / "a")
    assert (read_series(tmp_path / "a")[0].array == 13).all()
    for bad, message in ((40000.0, "do not fit the 16 bits"), (np.nan, "NaN"), (np.inf, "infinite")):
        values = np.zeros(GRID.shape, np.float32)
        values[1, 2, 3] = bad
        with pytest.raises(SeriesError, match=message):
            write_series(ct(values), tmp_path / "b")
        assert not (tmp_path / "b").exists()


def test_mr_values_come_back_exactly_or_within_their_step(tmp_path: Path) -> None:
    whole = np.arange(GRID.size).reshape(GRID.shape) * 70
    write_series(ct(whole.astype(np.int32)), tmp_path / "whole", modality="MR")
    assert np.array_equal(read_series(tmp_path / "whole")[0].array, whole)
    real = np.random.default_rng(0).normal(0, 1, GRID.shape).astype(np.float32)
    write_series(ct(real), tmp_path / "real", modality="MR")
    assert np.abs(read_series(tmp_path / "real")[0].array - real).max() <= np.ptp(real) / 65535
    flat = np.full(GRID.shape, 0.3, np.float32)
    write_series(ct(flat), tmp_path / "flat", modality="MR")
    assert np.allclose(read_series(tmp_path / "flat")[0].array, 0.3, atol=1e-6)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_series(ct(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="modality 'XX'"):
        write_series(ct(), tmp_path / "x", modality="XX")


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("bare", [True, False])
def test_conformance_of_what_is_written(tmp_path: Path, modality: str, bare: bool, dciodvfy: Callable[[Path], list[str]]) -> None:
    source = None
    if not bare:
        make_series(tmp_path / "in", modality=modality, intercept=0)
        _, source, _ = read_series(tmp_path / "in")
    values = ct().array if modality == "CT" else ct().array / np.float32(3)
    write_series(ct(values), tmp_path / "out", source=source, modality=modality)
    assert dciodvfy(tmp_path / "out" / f"{modality}0001.dcm") == []


def test_the_synthetic_series_of_these_tests_are_conformant(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    for modality in ("CT", "MR"):
        made = make_series(tmp_path / modality, modality=modality, intercept=0, offsets=[0, 2])
        assert dciodvfy(made.paths[0]) == []


@pytest.mark.parametrize(("folder", "modality"), [("LUNG1-001", "CT"), ("STS_044", "CT"), ("STS_044", "MR")])
def test_conformance_of_real_patients_written_again(
    data: Path, tmp_path: Path, folder: str, modality: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    volume, source, _ = read_series(data / "dicom" / folder, modality=modality)
    part = Volume(volume.array[:3], volume.geometry.crop((0, 0, 0), (3, *volume.geometry.shape[1:])))
    write_series(part, tmp_path / "out", source=source)
    back, _, _ = read_series(tmp_path / "out")
    assert np.array_equal(back.array, part.array)
    assert back.geometry.same_grid(part.geometry)
    for path in sorted((tmp_path / "out").iterdir()):
        assert dciodvfy(path) == []


@pytest.mark.filterwarnings("ignore:The value length")
def test_attributes_are_made_to_fit(tmp_path: Path) -> None:
    assert fitted("StudyID", "more than sixteen characters") == "more than sixtee"
    assert fitted("PatientBirthDate", "1.1.1970") == ""
    assert fitted("StudyTime", "110915.625000") == "110915.625000"
    assert fitted("PatientSex", "f") == "F"
    assert fitted("PatientWeight", "seventy") == ""
    assert fitted("PatientWeight", "69.0") == "69.0"
    made = make_series(tmp_path / "in", offsets=[0, 2], change=lambda d, n: setattr(d, "StudyDescription", "x" * 90))
    _, source, _ = read_series(tmp_path / "in")
    write_series(ct(), tmp_path / "out", source=source)
    assert dcmread(tmp_path / "out" / "CT0001.dcm").StudyDescription == "x" * 64
    assert made.study_uid == source.study_uid
