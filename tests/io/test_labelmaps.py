"""Label maps as nnU-Net and TotalSegmentator write them: numbers get their names from a JSON, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from oncontour.errors import CohortError, FormatError, InputError
from oncontour.geometry import Geometry
from oncontour.io.cohort import Cohort
from oncontour.io.labelmaps import LabelMaps, Labels, read_labels
from oncontour.io.nifti import write_image
from oncontour.volume import Volume

GRID = Geometry.regular((4, 5, 6), (3.0, 2.0, 1.0), (-10.0, 20.0, 30.0))


def numbers(text: Any, folder: Path) -> dict[str, tuple[int, ...]]:
    path = folder / "labels.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return dict(read_labels(path).numbers)


@pytest.mark.parametrize(
    "told",
    [
        {"Parotid_L": 1, "SpinalCord": 7},
        {"background": 0, "Parotid_L": 1, "SpinalCord": 7},
        {"1": "Parotid_L", "7": "SpinalCord"},
        {"Parotid_L": "1", "SpinalCord": "7"},
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "Parotid_L": 1, "SpinalCord": 7, "ignore": 8},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        },
        {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "Parotid_L", "7": "SpinalCord"}},
    ],
    ids=["names", "with background", "numbers", "numbers as text", "nnU-Net v2", "nnU-Net v1"],
)
def test_every_form_says_the_same(told: Any, tmp_path: Path) -> None:
    assert numbers(told, tmp_path) == {"Parotid_L": (1,), "SpinalCord": (7,)}


def test_a_region_of_several_labels_is_their_union(tmp_path: Path) -> None:
    """nnU-Net's regions lie within each other: both are read, and the voxels of 3 belong to both."""
    told = {"labels": {"background": 0, "GTV": [1, 3], "Oedema": [3, 2]}, "regions_class_order": [1, 2, 3]}
    assert numbers(told, tmp_path) == {"GTV": (1, 3), "Oedema": (3, 2)}
    array = np.zeros(GRID.shape, np.uint8)
    array[0, 0, :3] = 1, 2, 3
    write_image(Volume(array, GRID), tmp_path / "p1.nii.gz")
    case = LabelMaps.open(tmp_path, read_labels(tmp_path / "labels.json")).read("p1")
    assert {name: case.mask(name).array[0, 0, :4].tolist() for name in case.structures} == {
        "GTV": [True, False, True, False],
        "Oedema": [False, True, True, False],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "no table of names and numbers"),
        ("{}", "no structure is named"),
        ('{"a": 1, "a": 2}', "'a' comes twice"),
        ('{"a": 1, "b": 1}', "'a' and 'b' have one number, 1"),
        ('{"a": 1.5}', "'a': 1.5 is no name and number"),
        ('{"a": true}', "'a': true is no name and number"),
        ('{"a": -1}', "'a': -1 is no name and number"),
        ('{"a": 65536}', "'a': 65536 is no name and number"),
        ('{"a": []}', "is no name and number"),
        ('{"a": {"b": 1}}', "is no name and number"),
        ('{"1": "a", "2": "a"}', "'a' comes twice"),
        ('{"Parotid_L": 0}', "'Parotid_L' has number 0"),
        ('{"a": [0, 1]}', "'a' holds number 0"),
        ('{"labels": {"background": 0}}', "no structure is named"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_json_that_names_no_numbers_is_told(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as raised:
        numbers(text, tmp_path)
    assert says in str(raised.value)
    assert "labels.json" in str(raised.value)


def test_a_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("ending", "dtype"), [("nii.gz", "u1"), ("nii.gz", "f4"), ("nii", "i2"), ("nrrd", "i4"), ("nrrd", "f8"), ("mha", "u2"), ("mha", "f4")]
)
def test_a_map_as_somebody_else_writes_it(ending: str, dtype: str, tmp_path: Path) -> None:
    """Written by ITK; 1 and 300 have names, 5 has none, 7 has a name and no voxel."""
    high = 200 if dtype == "u1" else 300
    array = np.zeros(GRID.shape, dtype)
    array[1, 2, 3], array[2, :2, 0], array[3, 4, 5] = 1, high, 5
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(GRID.spacing_mm[::-1])
    image.SetOrigin(GRID.origin_mm)
    sitk.WriteImage(image, str(tmp_path / f"case.01.{ending}"))
    maps = LabelMaps.open(tmp_path, Labels({"LeftParotid": (1,), "Thing": (high,), "Larynx": (7,)}, "labels.json"))
    case = maps.read("case.01")
    assert case.structures == ("Parotid_L", "Thing", "Larynx")
    assert np.argwhere(case.mask("Parotid_L").array).tolist() == [[1, 2, 3]]
    assert np.argwhere(case.mask("Thing").array).tolist() == [[2, 0, 0], [2, 1, 0]]
    assert not case.mask("Larynx").array.any()
    assert case.geometry.same_grid(GRID, 1e-5)
    assert case.facts["names"] == {"Parotid_L": "LeftParotid", "Thing": "Thing", "Larynx": "Larynx"}
    assert case.facts["unmapped"] == ("Thing",)
    assert maps.remarks(["case.01"]) == ["label 5 has no name in labels.json and is left out; it is in case.01"]


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (-1.0, "-1"), (70_000.0, "70000")])
def test_probabilities_and_images_are_no_label_maps(value: float, shown: str, tmp_path: Path) -> None:
    array = np.zeros(GRID.shape, np.float32)
    array[0, 0, 1] = value
    write_image(Volume(array, GRID), tmp_path / "p1.nii.gz")
    with pytest.raises(FormatError, match=rf"whole numbers from 0 to 65535, this has {shown} .*p1\.nii\.gz"):
        LabelMaps.open(tmp_path, Labels({"a": (1,)})).read("p1")


def test_two_maps_of_one_case_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no label map is here"):
        LabelMaps.open(tmp_path, Labels({"a": (1,)}))
    for name in ("p1.nii.gz", "p1.mha"):
        write_image(Volume(np.zeros(GRID.shape, np.uint8), GRID), tmp_path / name)
    with pytest.raises(CohortError, match=r"two label maps of 'p1': p1\.mha and p1\.nii\.gz"):
        LabelMaps.open(tmp_path, Labels({"a": (1,)}))


def test_a_flat_folder_is_no_cohort_and_the_folder_above_it_is_none_either(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_image(Volume(np.zeros(GRID.shape, np.uint8), GRID), tmp_path / f"{name}.nii.gz")
    with pytest.raises(CohortError, match=r"side by side \(p1\.nii\.gz, p2\.nii\.gz\).*a folder a patient"):
        Cohort.open(tmp_path)
