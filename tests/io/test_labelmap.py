"""Files of several structures, and masks stored in another order than their image: each structure is its own, and where it was drawn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from oncontour.commands.assess import read as read_to_assess
from oncontour.core.case import BitMasks, LabelMasks
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, InputError, LimitError, OncontourError, StructureError
from oncontour.io import read
from oncontour.io.image.labelmap import Labels, check_all_named, is_label_map, label_values, mask_of_one, read_labels, split_labels
from oncontour.io.image.layout import read_masks
from oncontour.io.image.nifti import read_image_file, write_image
from oncontour.io.onto import read_onto

GRID = Geometry.regular((4, 5, 6), (3, 1, 2), (-5, 10, 20))
RNG = np.random.default_rng(5)


def volume(array: Any, grid: Geometry = GRID) -> Volume:
    return Volume(np.asarray(array), grid)


def labels(*values: int, dtype: str = "u1") -> np.ndarray:
    """Voxels 0, 1, 2, ... in file order get these labels."""
    array = np.zeros(GRID.shape, dtype)
    array.reshape(-1)[: len(values)] = values
    return array


def folder(path: Path, **masks: Volume) -> Path:
    write_image(volume(np.zeros(GRID.shape, np.int16)), path / "ct.nii.gz")
    for name, mask in masks.items():
        write_image(mask, path / "masks" / f"{name}.nii.gz")
    return path


def counts(masks: Any) -> dict[str, int]:
    return {name: int(np.count_nonzero(masks[name].array)) for name in masks}


# ---- labels and their names


def told(text: Any, folder: Path) -> Labels:
    path = folder / "labels.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return read_labels(path)


@pytest.mark.parametrize(
    "text",
    [
        {"Parotid_L": 1, "SpinalCord": 7},
        {"background": 0, "Parotid_L": 1, "SpinalCord": 7},
        {"1": "Parotid_L", "7": "SpinalCord"},
        {"01": " Parotid_L ", " 7": "SpinalCord"},
        {"Parotid_L": "1", "SpinalCord": "7"},
        {"Parotid_L": [1], "SpinalCord": ["7"]},
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "Parotid_L": 1, "SpinalCord": 7, "ignore": 8},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        },
        {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "Parotid_L", "7": "SpinalCord"}},
        "\ufeff" + json.dumps({"1": "Parotid_L", "7": "SpinalCord", "0": None, "9": None}),
    ],
    ids=["names", "with background", "numbers", "spaces", "numbers as text", "lists", "nnU-Net v2", "nnU-Net v1", "null, from Windows"],
)
def test_every_form_says_the_same(text: Any, tmp_path: Path) -> None:
    assert told(text, tmp_path).numbers == {"Parotid_L": (1,), "SpinalCord": (7,)}


@pytest.mark.parametrize(
    ("text", "numbers", "left_out"),
    [
        ({"1": "Parotid_L", "2": None}, {"Parotid_L": (1,)}, {2}),
        ({"background": 0, "Parotid_L": 1, "Parotid_R": 3}, {"Parotid_L": (1,), "Parotid_R": (3,)}, {0}),
        ({"labels": {"Parotid_L": 1, "ignore": 2}}, {"Parotid_L": (1,)}, {2}),
        ({"Parotid_L": 1, "ignore": 2}, {"Parotid_L": (1,), "ignore": (2,)}, set()),
        ({"labels": {"background": 0, "GTV": [1, 3], "Oedema": [3, 2]}}, {"GTV": (1, 3), "Oedema": (3, 2)}, {0}),
        ({"labels": 65535}, {"labels": (65535,)}, set()),
    ],
)
def test_what_is_left_out(text: Any, numbers: dict[str, tuple[int, ...]], left_out: set[int], tmp_path: Path) -> None:
    assert told(text, tmp_path) == Labels(numbers, str(tmp_path / "labels.json"), frozenset(left_out))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "no table of names and numbers, but a list"),
        ("{}", "no structure is named"),
        ('{"labels": {"background": 0}}', "no structure is named"),
        ('{"1": null}', "no structure is named"),
        ('{"a": 1, "a": 2}', "'a' comes twice"),
        ('{"1": "a", "1": "b"}', "'1' comes twice"),
        ('{"1": "A", "01": "B"}', "label 1 is named twice, 'A' and 'B'"),
        ('{"A": 1, "B": 1}', "label 1 is named twice, 'A' and 'B'"),
        ('{"A": 1, "1": null}', "label 1 is named twice, 'A' and null"),
        ('{"A": [1, 2], "B": [2, 1]}', "label 1, 2 is named twice, 'A' and 'B'"),
        ('{"A": [1, 2], "2": null}', "label 2 is left out, and belongs to 'A'"),
        ('{"1": "a", "2": "a"}', "two labels are called 'a'"),
        ('{"1": "a", "2": "a "}', "two labels are called 'a'"),
        ('{"a": 1.5}', "'a': 1.5 is no name and number"),
        ('{"a": true}', "'a': true is no name and number"),
        ('{"a": -1}', "'a': -1 is no name and number"),
        ('{"a": 65536}', "'a': 65536 is no name and number"),
        ('{"EchoTime": 0.09}', "'EchoTime': 0.09 is no name and number"),
        ('{"Modality": "CT"}', "'Modality': \"CT\" is no name and number"),
        ('{"a": null}', "'a': null is no name and number"),
        ('{"1": "2"}', "'1': \"2\" is no name and number"),
        ('{"1": " "}', "is no name and number"),
        ('{"1": "a\\n"}', "is no name and number"),
        ('{"a": []}', "is no name and number"),
        ('{"a": [1, 1]}', "is no name and number"),
        ('{"a": {"b": 1}}', "is no name and number"),
        ('{"Parotid_L": 0}', "'Parotid_L' has number 0"),
        ('{"a": [0, 1]}', "'a' has number 0"),
    ],
)
def test_a_json_that_names_no_numbers_is_told(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as raised:
        told(text, tmp_path)
    assert says in str(raised.value)
    assert "labels.json" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [("[" * 100_000, "more than 64 deep"), (json.dumps({f"S{n}": n for n in range(10_001)}), "10001 names of labels, at most 10000")],
    ids=["deep", "many"],
)
def test_names_have_limits(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=says):
        told(text, tmp_path)


def test_a_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "nowhere.json")


def test_a_label_map_is_split_by_its_values() -> None:
    names = Labels({"A": (300,), "B": (7,), "C": (11,)}, left_out=frozenset({9}))
    split = split_labels(volume(labels(7, 7, 300, 0, 9, dtype="i2")), names, "here")
    assert counts(split.masks) == {"A": 1, "B": 2, "C": 0}
    assert (split.empty, split.unnamed) == (("C",), ())
    assert np.flatnonzero(split.masks["A"].array).tolist() == [2]
    assert isinstance(split.masks, LabelMasks)
    assert split.masks.labels.array.dtype == np.uint8
    check_all_named(split, names, "here")
    one = Labels({"A": (300,)})
    split = split_labels(volume(labels(7, 300, 9, dtype="i2")), one, "here")
    assert split.unnamed == (7, 9)
    with pytest.raises(StructureError, match=r"no name is known for the labels 7, 9; named are 300 \[here\]. Way out: .*null"):
        check_all_named(split, one, "here")
    every = Labels({f"S{n}": (5 * n,) for n in range(1, 401)})
    many = split_labels(volume(np.arange(1, 121).reshape(GRID.shape) * 5), every, "here")
    assert isinstance(many.masks, LabelMasks)
    assert many.masks.labels.array.dtype == np.uint16
    assert np.flatnonzero(many.masks["S77"].array).tolist() == [76]


def test_regions_are_unions_and_may_overlap() -> None:
    """20 regions of two numbers each, n and n + 1: every voxel but the first and the last is in two of them."""
    array = labels(*range(1, 22))
    split = split_labels(volume(array), Labels({f"R{n}": (n, n + 1) for n in range(1, 21)}), "here")
    assert isinstance(split.masks, BitMasks)
    assert split.masks.planes.array.shape == (3, *GRID.shape)
    assert {name: np.flatnonzero(mask.array).tolist() for name, mask in split.masks.items()} == {f"R{n}": [n - 1, n] for n in range(1, 21)}
    apart = split_labels(volume(array), Labels({"A": (1, 3), "B": (2,)}), "here")
    assert isinstance(apart.masks, LabelMasks)
    assert {name: np.flatnonzero(mask.array).tolist() for name, mask in apart.masks.items()} == {"A": [0, 2], "B": [1]}
    assert apart.unnamed == tuple(range(4, 22))


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (-1.0, "-1"), (70_000.0, "70000")])
def test_other_numbers_are_no_labels(value: float, shown: str) -> None:
    array = np.zeros(GRID.shape, np.float32)
    array[2, 0, 1] = value
    with pytest.raises(FormatError, match=rf"whole numbers from 0 to 65535, this has {shown} \[here\]"):
        split_labels(volume(array), Labels({"A": (1,)}), "here")


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_what_is_a_mask_of_one_structure(dtype: str) -> None:
    for values in ((0, 1, 1), (0, 255, 255), (0, 0, 0)):
        mask = mask_of_one(volume(labels(*values, dtype=dtype)), "here", "a.json")
        assert not is_label_map(volume(labels(*values, dtype=dtype)))
        assert np.flatnonzero(mask.array).tolist() == [n for n, value in enumerate(values) if value]
    with pytest.raises(StructureError, match=r"holds 2 labels \(1, 2\)"):
        mask_of_one(volume(labels(0, 1, 2, dtype=dtype)), "here", "a.json")
    assert label_values(volume(labels(0, 1, 2, dtype=dtype))) == (1, 2)


def test_probabilities_count_from_one_half_and_other_numbers_are_refused() -> None:
    array = np.zeros(GRID.shape, np.float32)
    array.reshape(-1)[:4] = (0.49, 0.5, 1.0000001, -1e-6)
    assert np.flatnonzero(mask_of_one(volume(array), "here", "a.json").array).tolist() == [1, 2]
    with pytest.raises(FormatError, match=r"values from 0 to 87\.5 are neither labels nor a probability"):
        mask_of_one(volume(np.where(array > 0.6, 87.5, 0)), "here", "a.json")


# ---- in a patient's folder


def test_json_of_another_kind_beside_a_mask_is_left_alone(tmp_path: Path) -> None:
    """As dcm2niix writes beside what it converts; beside a label map it names nothing and is told."""
    source = folder(tmp_path / "p", Parotid_L=volume(labels(1, 1)))
    (source / "masks/Parotid_L.json").write_text('{"Modality": "CT", "EchoTime": 0.09}')
    assert counts(read(source).masks) == {"Parotid_L": 2}
    write_image(volume(labels(1, 2)), source / "masks/Parotid_L.nii.gz")
    with pytest.raises(FormatError, match="'Modality': \"CT\" is no name and number"):
        read(source)


@pytest.mark.parametrize(
    "text",
    ['{"version": 1}', '{"volume_mm3": 37}', '{"a": 7, "b": 7}', '{"slices": [3, 4, 5], "version": 2}', '{"Brainstem": 25}', "[" * 99],
)
@pytest.mark.parametrize("called", ["Parotid_L", "Boost"])
def test_whole_numbers_beside_a_mask_are_no_names(tmp_path: Path, text: str, called: str) -> None:
    """Only a table of known names is one of names; beside a file of no known name one that lacks the value is told."""
    source = folder(tmp_path / "p", **{called: volume(labels(1, 1))})
    (source / f"masks/{called}.json").write_text(text)
    if (called, text) == ("Boost", '{"Brainstem": 25}'):
        with pytest.raises(StructureError, match="no name is known for the labels 1; named are 25"):
            read(source)
        return
    case = read(source)
    assert counts(case.masks) == {called: 2}
    assert case.facts["notes"] == ()


def test_a_mask_that_its_json_renames_is_told_and_another_side_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "p", Boost=volume(labels(1, 1)))
    (source / "masks/Boost.json").write_text('{"1": "left parotid"}')
    case = read(source)
    assert counts(case.masks) == {"Parotid_L": 2}
    assert case.facts["notes"] == ("Boost.nii.gz: its voxels of value 1 are called left parotid by Boost.json",)
    source = folder(tmp_path / "q", Parotid_L=volume(labels(1, 1)))
    (source / "masks/Parotid_L.json").write_text('{"1": "left parotid"}')
    assert read(source).facts["notes"] == ()
    (source / "masks/Parotid_L.json").write_text('{"1": "Parotid_R"}')
    with pytest.raises(StructureError, match=r"the file is called Parotid_L, Parotid_L\.json calls it Parotid_R"):
        read(source)


def test_one_structure_of_a_label_map_keeps_its_own_name(tmp_path: Path) -> None:
    """Where a patient has but one of the organs, the file's name is not its name."""
    source = folder(tmp_path / "p", organs=volume(labels(2, 2, 2)))
    (source / "masks/organs.json").write_text('{"labels": {"parotid left": 1, "parotid right": 2}}')
    case = read(source)
    assert counts(case.masks) == {"Parotid_L": 0, "Parotid_R": 3}
    assert case.facts["names"] == {"Parotid_L": "parotid left", "Parotid_R": "parotid right"}


def test_regions_ignored_and_left_out_labels_of_a_patient(tmp_path: Path) -> None:
    """As nnU-Net writes what it learns from: 4 is ignored, 5 left out; both names are said in TG-263's words."""
    source = folder(tmp_path / "p", organs=volume(labels(1, 2, 3, 4, 5)), Brainstem=volume(labels(0, 1)))
    table = {"background": 0, "parotid left": [1, 3], "parotid right": [2, 3], "Larynx": 7, "ignore": 4, "5": None}
    (source / "masks/organs.json").write_text(json.dumps({"labels": table}))
    case = read(source)
    assert {name: np.flatnonzero(case.mask(name).array).tolist() for name in sorted(case.structures)} == {
        "Brainstem": [1], "Larynx": [], "Parotid_L": [0, 2], "Parotid_R": [1, 2]
    }  # fmt: skip
    assert case.facts["notes"] == ("organs.nii.gz: no voxel has the label of Larynx: empty masks",)
    write_image(volume(labels(1, 2, 6)), source / "masks/organs.nii.gz")
    with pytest.raises(StructureError, match="no name is known for the labels 6; named are 1, 2, 3, 4, 5, 7"):
        read(source)


@pytest.mark.parametrize("text", ['{"1": null}', '{"labels": {"background": 0, "ignore": 1}}'])
def test_a_mask_whose_only_label_is_left_out_is_no_structure(text: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "p", organs=volume(labels(1, 1)))
    (source / "masks/organs.json").write_text(text)
    assert read(source).structures == ()
    write_image(volume(labels(0, 1)), source / "masks/Brainstem.nii.gz")
    assert counts(read_masks(source / "masks").masks) == {"Brainstem": 1}


def test_names_that_contradict_each_other_are_told_beside_a_mask_of_one_structure(tmp_path: Path) -> None:
    """Else the left parotid would be taken for a structure that is called as the file."""
    source = folder(tmp_path / "p", organs=volume(labels(1, 1)))
    (source / "masks/organs.json").write_text('{"Parotid_L": 1, "Parotid_R": 1}')
    with pytest.raises(FormatError, match="label 1 is named twice, 'Parotid_L' and 'Parotid_R'"):
        read(source)


def test_a_structure_in_two_files_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "p", Parotid_L=volume(labels(1)), organs=volume(labels(1, 2)))
    (source / "masks/organs.json").write_text('{"1": "Parotid_L", "2": "Parotid_R"}')
    with pytest.raises(InputError, match=r"organs\.nii\.gz and Parotid_L\.nii\.gz both hold a structure called 'Parotid_L'"):
        read(source)


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_label_map_beside_the_ct_is_assessed_by_name(tmp_path: Path, given: str) -> None:
    source = folder(tmp_path / "p")
    write_image(volume(labels(1, 2, 2)), tmp_path / "drawn" / "organs.nii.gz")
    path = tmp_path / "drawn" / ("organs.nii.gz" if given == "file" else "")
    with pytest.raises(StructureError, match=r"holds 2 labels \(1, 2\)"):
        read_to_assess(source, path)
    (tmp_path / "drawn/organs.json").write_text('{"1": "Parotid_L", "2": "Parotid_R"}')
    assert counts(read_to_assess(source, path).masks) == {"Parotid_L": 1, "Parotid_R": 2}


# ---- .seg.nrrd of 3D Slicer


def seg_nrrd(path: Path, array: np.ndarray, fields: str, space: str = "(2,0,0) (0,1,0) (0,0,3)") -> Path:
    """``array`` (k, j, i) or (layer, k, j, i); voxels in file order: layer fastest, then i."""
    sizes = array.shape[::-1] if array.ndim == 3 else (len(array), *array.shape[:0:-1])
    kinds = "domain domain domain" if array.ndim == 3 else "list domain domain domain"
    directions = space if array.ndim == 3 else f"none {space}"
    stored = array if array.ndim == 3 else np.moveaxis(array, 0, -1)
    header = (
        f"NRRD0004\ntype: unsigned char\ndimension: {array.ndim}\nspace: left-posterior-superior\nsizes: {' '.join(map(str, sizes))}\n"
        f"space directions: {directions}\nkinds: {kinds}\nencoding: gzip\nspace origin: (-5,10,20)\n{fields}\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + gzip.compress(np.ascontiguousarray(stored).tobytes()))
    return path


def named(*segments: tuple[str, int, int]) -> str:
    return "".join(
        f"Segment{n}_ID:=s{n}\nSegment{n}_LabelValue:={value}\nSegment{n}_Layer:={layer}\nSegment{n}_Name:={name}\n"
        for n, (name, value, layer) in enumerate(segments)
    )


def test_segments_bear_the_names_of_their_header(tmp_path: Path) -> None:
    source = folder(tmp_path / "p")
    seg_nrrd(source / "masks/all.seg.nrrd", labels(1, 4, 4), named(("Parotid left", 1, 0), ("Parotid right", 4, 0), ("cord", 5, 0)))
    case = read(source)
    assert counts(case.masks) == {"Parotid_L": 1, "Parotid_R": 2, "SpinalCord": 0}
    assert case.masks["Parotid_R"].geometry == GRID
    itk = sitk.ReadImage(str(source / "masks/all.seg.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(itk) == 4, case.masks["Parotid_R"].array)


def test_segments_that_overlap_lie_in_layers(tmp_path: Path) -> None:
    source = folder(tmp_path / "p")
    array = np.stack([labels(1, 2, 2), labels(0, 1, 1, 1)])
    path = seg_nrrd(source / "masks/all.seg.nrrd", array, named(("GTV", 1, 0), ("Brainstem", 2, 0), ("PTV", 1, 1)))
    assert {name: np.flatnonzero(mask.array).tolist() for name, mask in read(source).masks.items()} == {
        "GTV": [0], "Brainstem": [1, 2], "PTV": [1, 2, 3]
    }  # fmt: skip
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.array_equal(itk[..., 1], array[1])
    old = named(("GTV", 1, 0), ("PTV", 1, 0)).replace("Segment0_LabelValue:=1\nSegment0_Layer:=0\n", "")
    seg_nrrd(source / "masks/all.seg.nrrd", np.minimum(array, 1), old.replace("Segment1_LabelValue:=1\nSegment1_Layer:=0\n", ""))
    assert counts(read(source).masks) == {"GTV": 3, "PTV": 3}
    seg_nrrd(source / "ct.nrrd", array, named(("GTV", 1, 0), ("Brainstem", 2, 0), ("PTV", 1, 1)))
    (source / "ct.nii.gz").unlink()
    with pytest.raises(FormatError, match="segments that overlap, and is no image"):
        read(source)


def test_a_single_segment_is_called_as_its_file(tmp_path: Path) -> None:
    source = folder(tmp_path / "p")
    path = source / "masks/Parotid_L.seg.nrrd"
    for name in ("Segment_1", "left parotid"):
        seg_nrrd(path, labels(1, 1), named((name, 1, 0)))
        assert counts(read(source).masks) == {"Parotid_L": 2}
    seg_nrrd(path, labels(1, 1), named(("Parotid_R", 1, 0)))
    with pytest.raises(StructureError, match="the file is called Parotid_L, its segment Parotid_R"):
        read(source)


@pytest.mark.parametrize(("header", "structure"), [("left parotid", "Parotid_L"), ("Boost", "Boost"), ("Segment_1", "Segmentation")])
def test_a_file_that_slicer_named_is_called_as_its_only_segment(tmp_path: Path, header: str, structure: str) -> None:
    """Segmentation.seg.nrrd is what Slicer saves by default: no name of a structure."""
    source = folder(tmp_path / "p")
    seg_nrrd(source / "masks/Segmentation.seg.nrrd", labels(1, 1), named((header, 1, 0)))
    assert counts(read(source).masks) == {structure: 2}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (named(("A", 1, 0), ("B", 1, 0)), "two segments are value 1 of layer 0"),
        (named(("A", 1, 0), ("A", 2, 0)), "two segments are called 'A'"),
        (named(("A", 1, 0), ("B", 0, 0)), "'B' has label 0; labels of segments are from 1 to 65535"),
        (named(("A", 1, 0), ("B", 70000, 0)), "'B' has label 70000"),
        (named(("A", 1, 0), ("B", 3, 0)), "no name is known for the labels 2"),
        (named(("A", 1, 0), ("B", 2, 1)), "'B' lies in layer 1, and there are 1"),
        (named(("A", 1, 0), ("B", 2, 0)).replace("LabelValue:=2", "LabelValue:=two"), "'two' .* is no number"),
    ],
)
def test_segments_that_make_no_sense(tmp_path: Path, fields: str, says: str) -> None:
    source = folder(tmp_path / "p")
    seg_nrrd(source / "masks/all.seg.nrrd", labels(1, 2), fields)
    with pytest.raises(OncontourError, match=says):
        read(source)


def test_a_header_of_a_hundred_segments_is_read(tmp_path: Path) -> None:
    """3D Slicer writes some 700 bytes of each; 117, as TotalSegmentator has, pass 64 KiB."""
    fields = "".join(named((f"S{n}", n + 1, 0)).replace("Segment0", f"Segment{n}") + f"Segment{n}_Tags:={'x' * 700}\n" for n in range(117))
    found = read_image_file(seg_nrrd(tmp_path / "all.seg.nrrd", labels(*range(1, 118)), fields))
    assert [segment.value for segment in found.segments] == list(range(1, 118))


# ---- masks of the image's voxels, stored in another order or aside by rounding


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("axes", [np.diag([-1.0, 1, 1])[::-1], np.diag([1, -1.0, -1])[::-1], np.eye(3)], ids=["i", "jk", "permuted"])
def test_a_mask_stored_otherwise_is_the_same_mask(tmp_path: Path, suffix: str, axes: np.ndarray) -> None:
    """Every one of these was refused before. ITK says where a voxel lies."""
    source = folder(tmp_path / "p")
    inside = RNG.random(GRID.shape) < 0.4
    turned = volume(inside.astype(np.uint8)).to(GRID.reorient(axes))
    assert not turned.geometry.same_grid(GRID)
    path = write_image(turned, source / "masks" / f"Parotid_L{suffix}")
    case = read(source)
    assert np.array_equal(case.masks["Parotid_L"].array, inside)
    itk = sitk.ReadImage(str(path))
    for k, j, i in np.argwhere(inside)[::9].tolist():
        assert itk[itk.TransformPhysicalPointToIndex(GRID.points((k, j, i)).tolist())] == 1
    assert np.array_equal(read_to_assess(source, source / "masks").masks["Parotid_L"].array, inside)
    assert np.array_equal(read_onto(source / "masks", case).mask("Parotid_L", GRID).array, inside)


def test_rounding_in_a_file_is_no_other_grid(tmp_path: Path) -> None:
    inside = RNG.random(GRID.shape) < 0.4
    for aside in (3e-5, 0.049):
        moved = Geometry.regular(GRID.shape, GRID.spacing_mm, (-5 + aside, 10, 20))
        case = read(folder(tmp_path / f"{aside}", Parotid_L=volume(inside, moved)))
        assert np.array_equal(case.masks["Parotid_L"].array, inside)
        assert case.masks["Parotid_L"].geometry == case.geometry
    moved = Geometry.regular(GRID.shape, GRID.spacing_mm, (-4.949, 10, 20))
    says = r"first at \(-4\.949, 10, 20\) mm instead of \(-5, 10, 20\).*Way out: export the mask again from the program that made it"
    with pytest.raises(GeometryError, match=says):
        read(folder(tmp_path / "far", Parotid_L=volume(inside, moved)))


def test_json_is_no_way_round_the_grid(tmp_path: Path) -> None:
    moved = Geometry.regular(GRID.shape, GRID.spacing_mm, (-4, 10, 20))
    source = folder(tmp_path / "p", organs=volume(labels(1, 2), moved))
    (source / "masks/organs.json").write_text(json.dumps({"1": "Parotid_L", "2": "Parotid_R"}))
    with pytest.raises(GeometryError, match="mask 'Parotid_L' lies on another grid than its image"):
        read(source)
    lenient = read(source, lenient=True)
    assert not lenient.structures
    (note,) = lenient.facts["notes"]
    assert note.startswith("the structure organs cannot be used: mask 'Parotid_L' lies on another grid than its image: ")
