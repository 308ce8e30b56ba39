"""Label maps of many cases, as nnU-Net and TotalSegmentator write them: numbers get their names from a JSON, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, FormatError, StructureError
from oncontour.io.cohort import Cohort
from oncontour.io.image.label_folder import LabelFolder
from oncontour.io.image.labelmap import Labels, read_labels
from oncontour.io.image.nifti import write_image
from tests.io.test_labelmap import named, seg_nrrd

GRID = Geometry.regular((4, 5, 6), (3.0, 2.0, 1.0), (-10.0, 20.0, 30.0))


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
    maps = LabelFolder.open(tmp_path, Labels({"LeftParotid": (1,), "Thing": (high,), "Larynx": (7,)}, "labels.json"))
    case = maps.read("case.01")
    assert case.structures == ("Parotid_L", "Thing", "Larynx")
    assert np.argwhere(case.mask("Parotid_L").array).tolist() == [[1, 2, 3]]
    assert np.argwhere(case.mask("Thing").array).tolist() == [[2, 0, 0], [2, 1, 0]]
    assert not case.mask("Larynx").array.any()
    assert case.geometry.same_grid(GRID, 1e-5)
    assert case.facts["names"] == {"Parotid_L": "LeftParotid", "Thing": "Thing", "Larynx": "Larynx"}
    assert case.facts["unmapped"] == ("Thing",)
    assert maps.remarks(["case.01"]) == ["label 5 has no name in labels.json and is left out; it is in case.01"]


def test_regions_lie_within_each_other(tmp_path: Path) -> None:
    """nnU-Net's regions: the voxels of 3 belong to both; 4 is ignored, 5 is left out, and 6 is told."""
    told = {"labels": {"background": 0, "GTV": [1, 3], "Oedema": [3, 2], "ignore": 4, "5": None}, "regions_class_order": [1, 2, 3]}
    (tmp_path / "labels.json").write_text(json.dumps(told))
    array = np.zeros(GRID.shape, np.uint8)
    array[0, 0] = 1, 2, 3, 4, 5, 6
    write_image(Volume(array, GRID), tmp_path / "p1.nii.gz")
    maps = LabelFolder.open(tmp_path, read_labels(tmp_path / "labels.json"))
    case = maps.read("p1")
    assert {name: np.flatnonzero(case.mask(name).array).tolist() for name in case.structures} == {"GTV": [0, 2], "Oedema": [1, 2]}
    assert maps.remarks(["p1"]) == [f"label 6 has no name in {tmp_path / 'labels.json'} and is left out; it is in p1"]


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (-1.0, "-1"), (70_000.0, "70000")])
def test_probabilities_and_images_are_no_label_maps(value: float, shown: str, tmp_path: Path) -> None:
    array = np.zeros(GRID.shape, np.float32)
    array[0, 0, 1] = value
    write_image(Volume(array, GRID), tmp_path / "p1.nii.gz")
    with pytest.raises(FormatError, match=rf"whole numbers from 0 to 65535, this has {shown} .*p1\.nii\.gz"):
        LabelFolder.open(tmp_path, Labels({"a": (1,)})).read("p1")


def test_a_header_that_names_the_other_side_is_refused(tmp_path: Path) -> None:
    """1 is Parotid_L in the .seg.nrrd of 3D Slicer: with Parotid_R by the table the sides would be swapped."""
    array = np.zeros(GRID.shape, np.uint8)
    array[0, 0] = 1, 2, 3, 0, 0, 0
    path = seg_nrrd(tmp_path / "p1.seg.nrrd", array, named(("left parotid", 1, 0), ("Parotid_R", 2, 0), ("Segment_3", 3, 0)))
    alike = LabelFolder.open(path, Labels({"Parotid_L": (1,), "Parotid right": (2,), "Boost": (3,)}, "labels.json"))
    case = alike.read("p1.seg")
    assert {name: np.flatnonzero(case.mask(name).array).tolist() for name in case.structures} == {
        "Parotid_L": [0],
        "Parotid_R": [1],
        "Boost": [2],
    }
    swapped = LabelFolder.open(path, Labels({"Parotid_R": (1,), "Parotid_L": (2,)}, "labels.json"))
    with pytest.raises(
        StructureError, match=r"label 1 is left parotid in the header of the file, Parotid_R in labels\.json .*p1\.seg\.nrrd"
    ):
        swapped.read("p1.seg")


def test_how_a_map_was_read_is_told(tmp_path: Path) -> None:
    """Lengths in cm: 0.3 x 0.2 x 0.1 are 3 x 2 x 1 mm."""
    header = (
        "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\nencoding: raw\n"
        'space directions: (0.1,0,0) (0,0.2,0) (0,0,0.3)\nspace units: "cm" "cm" "cm"\nspace origin: (-1,2,3)\n\n'
    )
    (tmp_path / "p1.nrrd").write_bytes(header.encode() + bytes(120))
    case = LabelFolder.open(tmp_path, Labels({"Parotid_L": (1,)})).read("p1")
    assert case.geometry.same_grid(GRID, 1e-6)
    assert case.facts["notes"] == ("p1.nrrd: lengths are told in cm (space units) and were turned into mm",)


def test_two_maps_of_one_case_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no label map is here"):
        LabelFolder.open(tmp_path, Labels({"a": (1,)}))
    for name in ("p1.nii.gz", "p1.mha"):
        write_image(Volume(np.zeros(GRID.shape, np.uint8), GRID), tmp_path / name)
    with pytest.raises(CohortError, match=r"two label maps of 'p1': p1\.mha and p1\.nii\.gz"):
        LabelFolder.open(tmp_path, Labels({"a": (1,)}))


def test_a_flat_folder_is_no_cohort_and_the_folder_above_it_is_none_either(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        write_image(Volume(np.zeros(GRID.shape, np.uint8), GRID), tmp_path / f"{name}.nii.gz")
    with pytest.raises(CohortError, match=r"side by side \(p1\.nii\.gz, p2\.nii\.gz\).*a folder a patient"):
        Cohort.open(tmp_path)
