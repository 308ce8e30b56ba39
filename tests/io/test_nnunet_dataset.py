"""``oncontour convert --to nnunet``: what nnU-Net trains on, as its documentation (dataset_format.md) describes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.commands.convert import convert
from oncontour.commands.convert_nnunet import Dataset
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, IncompleteError, InputError, OutputError
from oncontour.io import write
from oncontour.io.image.nifti import read_image
from oncontour.io.image.nnunet_dataset import label_map

GRID = Geometry.regular((6, 8, 10), (2.0, 1.0, 1.0))
WHERE = {"PTV_7000": slice(1, 7), "GTV": slice(3, 5), "Parotid_L": slice(8, 10)}
"""Along i: the tumour lies within the target."""


def case(id: str, *names: str, grid: Geometry = GRID) -> Case:
    masks = {}
    for name in names:
        array = np.zeros(GRID.shape, bool)
        array[1:4, 2:6, WHERE[name]] = True
        masks[name] = Volume(array, GRID).to(grid)
    ct = np.arange(GRID.size, dtype=np.int16).reshape(GRID.shape)
    return Case(id, {"ct": Volume(ct, GRID).to(grid)}, masks)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """a and b have all, c lacks a parotid; b's file runs the other way round."""
    turned = GRID.reorient([(0, 0, -1), (0, 1, 0), (-1, 0, 0)])
    for one in (case("a", *WHERE), case("b", *WHERE, grid=turned), case("c", "PTV_7000", "GTV")):
        write(one, tmp_path / "cohort" / one.id, format="nifti")
    return tmp_path / "cohort"


def test_a_cohort_becomes_a_dataset_for_nnunet(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset101_Neck"
    done = convert(cohort, out, to="nnunet")
    assert isinstance(done, Dataset)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == [
        "dataset.json",
        *(f"imagesTr/{id}_0000.nii.gz" for id in "abc"),
        *(f"labelsTr/{id}.nii.gz" for id in "abc"),
    ]
    said = json.loads((out / "dataset.json").read_text())
    assert said["labels"] == {"background": 0, "GTV": 1, "PTV_7000": 2}
    assert (said["channel_names"], said["numTraining"], said["file_ending"]) == ({"0": "CT"}, 3, ".nii.gz")
    assert said["overwrite_image_reader_writer"] == "NibabelIOWithReorient", "turned to RAS, so that sides cannot be swapped"
    assert "not in the dataset: Parotid_L (2 of 3)" in str(done)
    for id in "abc":
        image, labels = read_image(out / "imagesTr" / f"{id}_0000.nii.gz"), read_image(out / "labelsTr" / f"{id}.nii.gz")
        assert image.geometry == labels.geometry
        assert labels.array.dtype == np.uint8
        assert np.array_equal(image.to(GRID).array, case(id).ct.array)
        found = labels.to(GRID, nearest=True).array[2, 3]
        assert found.tolist() == [0, 2, 2, 1, 1, 2, 2, 0, 0, 0], "the tumour is not painted over by its target"


def test_what_a_structure_loses_to_a_smaller_one_is_told() -> None:
    """The target has 3 x 4 x 6 voxels of 2 mm3, the tumour 3 x 4 x 2 of them: 0.048 of 0.144 cc."""
    _, lost = label_map(case("a", "PTV_7000", "GTV"), ["PTV_7000", "GTV"])
    assert lost == ("PTV_7000 lost 0.0 of 0.1 cc to smaller structures within it",)
    assert label_map(case("a", "GTV", "Parotid_L"), ["GTV", "Parotid_L"])[1] == ()


def test_a_patient_who_lacks_a_structure_does_not_teach_that_it_is_not_there(cohort: Path, tmp_path: Path) -> None:
    done = convert(cohort, tmp_path / "out", to="nnunet", structures=["Parotid_L"])
    assert isinstance(done, Dataset)
    assert done.patients == ("a", "b")
    assert "c left out: Parotid_L not contoured" in str(done)
    assert "DatasetNNN_NAME" in str(done), "nnU-Net would not find a folder called out"
    with pytest.raises(CohortError, match=r"no patient has Parotid_R.*did you mean Parotid_L\?"):
        convert(cohort, tmp_path / "none", to="nnunet", structures=["Parotid_R"])
    assert not (tmp_path / "none").exists()


def test_a_cohort_without_a_common_structure_is_refused_with_counts(tmp_path: Path) -> None:
    for one in (case("a", "GTV"), case("b", "Parotid_L"), case("c", "GTV")):
        write(one, tmp_path / "cohort" / one.id, format="nifti")
    with pytest.raises(CohortError, match=r"no structure is in all 3 patients \(GTV in 2, Parotid_L in 1\).*--structures"):
        convert(tmp_path / "cohort", tmp_path / "out", to="nnunet")


def test_a_patient_who_cannot_be_read_is_named_and_the_others_are_written(cohort: Path, tmp_path: Path) -> None:
    (cohort / "c" / "ct.nii.gz").write_bytes(b"damaged")
    with pytest.raises(IncompleteError, match=r"1 of 3 patients could not be read \(c: ") as caught:
        convert(cohort, tmp_path / "out", to="nnunet")
    assert "2 patients, 3 structures" in caught.value.done
    assert (tmp_path / "out" / "labelsTr" / "b.nii.gz").exists()


def test_what_cannot_be_meant_is_refused_before_any_work(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="trains on a cohort"):
        convert(cohort / "a", tmp_path / "out", to="nnunet")
    with pytest.raises(ConfigError, match="--to nnunet"):
        convert(cohort, tmp_path / "out", structures=["GTV"])
    (tmp_path / "Dataset101_Neck").mkdir()
    (tmp_path / "Dataset101_Neck" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="other things"):
        convert(cohort, tmp_path / "Dataset101_Neck", to="nnunet", overwrite=True)
    assert main(["convert", str(cohort), str(tmp_path / "out"), "--to", "nnunet", "--structures", "GTV,PTV_7000"]) == 0
    assert "3 patients, 2 structures" in capsys.readouterr().out
