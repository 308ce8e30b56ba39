"""``oncontour convert --to seg`` and ``oncontour run --seg``: what is written is what was contoured, on the images it was contoured on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oncontour.commands.convert import convert
from oncontour.commands.run import SEG, run
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, OutputError, StructureError
from oncontour.io import read, write
from oncontour.io.dicom.seg import read_seg
from oncontour.io.onto import read_onto
from tests.commands.test_pipeline import make_model
from tests.dicom_cases import make_series


@pytest.fixture(scope="module")
def converted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path, tuple[str, ...]]:
    """A real patient, the SEG that was made of it, and what was told."""
    out = tmp_path_factory.mktemp("seg") / "LUNG1-001"
    done = convert(data / "dicom/LUNG1-001", out, to="seg").done[0]
    return read(data / "dicom/LUNG1-001"), out / "SEG.dcm", done.notes


def test_a_real_patient_as_a_seg_has_the_same_masks(converted: tuple[Case, Path, tuple[str, ...]]) -> None:
    case, path, notes = converted
    assert [file.name for file in path.parent.iterdir()] == ["SEG.dcm"]
    for found in (read_seg(path, geometry=case.geometry, source=case.source).masks, read_onto(path, case).masks):
        assert set(found) == set(case.structures) == {"GTV1", "SpinalCord", "Lung_L", "Lung_R"}
        for name, mask in found.items():
            assert np.array_equal(mask.array, case.mask(name).array), name
    assert any("contours became voxels" in note for note in notes)
    assert any("drawn by a person" in note for note in notes)


def test_a_seg_refers_to_the_images_and_keeps_the_names(converted: tuple[Case, Path, tuple[str, ...]]) -> None:
    case, path, _ = converted
    written = pydicom.dcmread(path)
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == case.source.series_uid
    assert written.FrameOfReferenceUID == case.source.frame_of_reference_uid
    assert written.PatientID == case.source.patient["PatientID"]
    assert {str(one.SegmentLabel) for one in written.SegmentSequence} == {"GTV-1", "Spinal-Cord", "Lung-Left", "Lung-Right"}
    assert {str(one.SegmentAlgorithmType) for one in written.SegmentSequence} == {"MANUAL"}


def test_a_seg_of_a_real_patient_is_valid(converted: tuple[Case, Path, tuple[str, ...]], dciodvfy: Callable[[Path], list[str]]) -> None:
    assert dciodvfy(converted[1]) == []


def test_a_seg_is_replaced_only_where_it_is_one(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", rows=16, columns=16, offsets=(0, 3, 6))
    case = read(tmp_path / "ct")
    case = case.with_masks({"Liver": Volume(np.ones(case.geometry.shape, bool), case.geometry)})
    for _ in range(2):
        assert write(case, tmp_path / "out", format="seg") == [tmp_path / "out/SEG.dcm"]
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"other things \(notes\.txt\)"):
        write(case, tmp_path / "out", format="seg")


def test_a_seg_needs_dicom_images_and_structures(tmp_path: Path) -> None:
    grid = Geometry.regular((3, 8, 8), (3, 1, 1))
    whole = Volume(np.ones(grid.shape, bool), grid)
    write(Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}, {"Liver": whole}), tmp_path / "p", format="nifti")
    with pytest.raises(StructureError, match=r"a SEG refers to DICOM images.*Way out: write the images as DICOM first"):
        convert(tmp_path / "p", tmp_path / "out", to="seg")
    make_series(tmp_path / "ct", rows=16, columns=16, offsets=(0, 3, 6))
    with pytest.raises(StructureError, match="no structures to write"):
        convert(tmp_path / "ct", tmp_path / "out", to="seg")
    assert not (tmp_path / "out").exists()


def test_without_highdicom_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patient is none, which nobody has found out yet."""
    monkeypatch.setitem(sys.modules, "highdicom", None)
    (tmp_path / "ct").mkdir()
    with pytest.raises(ConfigError, match=r"needs highdicom, which is not installed\. Way out: pip install"):
        convert(tmp_path / "ct", tmp_path / "out", to="seg")
    with pytest.raises(ConfigError, match=r"needs highdicom, which is not installed\. Way out: pip install"):
        run(tmp_path / "ct", out=tmp_path / "out", seg=True)
    assert not (tmp_path / "out").exists()


def test_a_run_gives_its_contours_as_a_seg_too(tmp_path: Path, dciodvfy: Callable[[Path], list[str]]) -> None:
    make_series(tmp_path / "ct", rows=48, columns=56, spacing_mm=(5.0, 5.0), offsets=tuple(range(0, 24, 3)))
    model = make_model(tmp_path / "untrained.safetensors")
    done = run(tmp_path / "ct", out=tmp_path / "out", model=[str(model)], seg=True, assess=False, backend="torch", threads=1)
    assert SEG in done.record["files"]
    found = read_seg(tmp_path / "out" / SEG, geometry=done.case.geometry).masks
    assert set(found) == {row.name for row in done.rows}
    assert any(mask.array.any() for mask in found.values())
    for name, mask in found.items():
        assert np.array_equal(mask.array, done.case.mask(name).array), name
    (how, *_) = pydicom.dcmread(tmp_path / "out" / SEG).SegmentSequence
    assert how.SegmentAlgorithmType == "AUTOMATIC"
    assert dciodvfy(tmp_path / "out" / SEG) == []


def test_a_seg_of_a_ct_without_dicom_is_refused(tmp_path: Path) -> None:
    grid = Geometry.regular((3, 8, 8), (3, 1, 1))
    write(Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}), tmp_path / "p", format="nifti")
    with pytest.raises(ConfigError, match=r"no SEG to write where the CT is no DICOM.*Way out: leave out --seg"):
        run(tmp_path / "p", out=tmp_path / "out", seg=True)
