"""One patient at one time: absent is not empty, nothing lies on another grid, and a case travels between processes."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from oncontour.core.case import BitMasks, Case, LabelMasks
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import GeometryError, InputError
from oncontour.io.dicom.source import DicomSource, SliceRef
from oncontour.phantom import Cylinder

GRID = Geometry.regular((4, 20, 20), (3, 1, 1), (-9.5, -9.5, 0))
OTHER = Geometry.regular((4, 20, 20), (3, 1, 1), (-9.5, -9.5, 1))
CT = Volume(np.zeros(GRID.shape, np.float32), GRID)


def mask(*voxels: tuple[int, int, int], grid: Geometry = GRID) -> Volume:
    array = np.zeros(grid.shape, bool)
    for voxel in voxels:
        array[voxel] = True
    return Volume(array, grid)


def packed(names: tuple[str, ...] = ("A", "B")) -> LabelMasks:
    array = np.zeros(GRID.shape, np.uint8)
    array[0], array[1] = 1, 2
    return LabelMasks(Volume(array, GRID), names)


def test_absent_and_empty_never_blur() -> None:
    case = Case("p", {"ct": CT}, {"Larynx": mask()}, {"Rectum": Contours()})
    assert case.structures == ("Larynx", "Rectum")
    assert case.mask("Larynx").array.sum() == 0
    assert case.mask("Rectum").array.sum() == 0
    with pytest.raises(InputError, match="no structure 'Bladder'; there are"):
        case.mask("Bladder")


def test_needs_an_id_and_something_in_it() -> None:
    with pytest.raises(InputError, match="needs an id"):
        Case("", {"ct": CT})
    with pytest.raises(InputError, match="at least one image or mask"):
        Case("p")
    assert Case("p", masks={"A": mask()}).geometry == GRID
    with pytest.raises(InputError, match="no CT among the images"):
        Case("p", {"mr": CT}).ct  # noqa: B018


def test_the_grid_is_that_of_the_ct_then_of_the_mr() -> None:
    other = Volume(np.zeros(OTHER.shape), OTHER)
    assert Case("p", {"dose": other, "mr": other, "ct": CT}).geometry == GRID
    assert Case("p", {"dose": other, "mr": CT}).geometry == GRID
    assert Case("p", {"dose": other, "field": CT}).geometry == OTHER


def test_refuses_masks_from_another_grid() -> None:
    for masks in ({"A": mask(grid=OTHER)}, LabelMasks(Volume(np.zeros(OTHER.shape, np.uint8), OTHER), ["A"])):
        with pytest.raises(GeometryError, match=r"mask 'A' lies on another grid .* \[case p\]. Way out: export the mask again"):
            Case("p", {"ct": CT}, masks)
        with pytest.raises(GeometryError):
            Case("p", {"ct": CT}, {"B": mask()}).with_masks(masks)


@pytest.mark.parametrize("kind", ["plain", "labels", "bits"])
@pytest.mark.parametrize("turned", [np.diag([-1.0, -1.0, 1.0]) @ np.eye(3)[::-1], np.eye(3)], ids=["flipped", "permuted"])
def test_the_same_voxels_stored_in_another_order_are_brought_over_exactly(kind: str, turned: np.ndarray) -> None:
    """Each voxel's centre in LPS mm says where it belongs: (x, y, z) = (i, j, 3 k) here."""
    grid = Geometry.regular((4, 5, 6), (3, 1, 1))
    inside = np.random.default_rng(3).random(grid.shape) < 0.4
    other, aside = grid.reorient(turned), np.array([[0, 0, 0, 3e-5], [0] * 4, [0, 0, 0, 0.04], [0] * 4])
    other = Geometry(other.shape, other.affine + aside)
    k, j, i = np.indices(other.shape)
    x, y, z = np.moveaxis(other.points(np.stack([k, j, i], axis=-1)), -1, 0)
    stored = inside[np.rint(z / 3).astype(int), np.rint(y).astype(int), np.rint(x).astype(int)]
    masks = {
        "plain": {"A": Volume(stored, other)},
        "labels": LabelMasks(Volume(stored.astype(np.uint8), other), ["A"]),
        "bits": BitMasks(Volume(stored.astype(np.uint8)[None], other), ["A"]),
    }[kind]
    case = Case("p", {"ct": Volume(np.zeros(grid.shape), grid)}, masks)
    assert np.array_equal(case.masks["A"].array, inside)
    assert case.masks["A"].geometry == grid
    assert np.array_equal(Case("p", masks={"B": Volume(inside, grid)}).with_masks(masks).masks["A"].array, inside)


def test_refuses_masks_that_are_not_bool() -> None:
    coverage = Volume(np.full(GRID.shape, 0.5, np.float32), GRID)
    channels = Volume(np.zeros((2, *GRID.shape), bool), GRID)
    for wrong in (coverage, channels):
        with pytest.raises(InputError, match="mask 'A' must be bool of three axes"):
            Case("p", {"ct": CT}, {"A": wrong})
        with pytest.raises(InputError, match="mask 'A' must be bool of three axes"):
            Case("p", {"ct": CT}, packed()).with_masks({"A": wrong})


def test_with_makes_a_new_case_and_leaves_the_old() -> None:
    case = Case("p", {"ct": CT}, {"A": mask()}, facts={"age": 60}, source="kept")
    more = case.with_masks({"B": mask((0, 0, 0))}).with_images({"dose": CT}).with_contours({"C": Contours()})
    assert list(case.masks) == ["A"]
    assert (list(more.masks), list(more.images), more.source) == (["A", "B"], ["ct", "dose"], "kept")
    assert more.structures == ("A", "B", "C")
    bare = more.without_structures()
    assert bare.structures == ()
    assert bare.facts["age"] == 60
    with pytest.raises(TypeError):
        case.images["ct"] = CT  # type: ignore[index]


def test_later_masks_replace_earlier_ones_and_keep_their_place() -> None:
    case = Case("p", {"ct": CT}, {"A": mask(), "B": mask()}).with_masks({"A": mask((1, 1, 1))})
    assert case.mask("A").array.sum() == 1
    assert list(case.masks) == ["A", "B"]
    for n in range(2000):  # layers stay flat: no recursion however many tasks add to a case
        case = case.with_masks({"A": mask()}) if n % 1000 == 0 else case
    assert case.mask("A").array.sum() == 0


def test_the_callers_dict_stays_the_callers() -> None:
    mine = {"A": mask()}
    one, two = Case("p", {"ct": CT}, mine), Case("p", {"ct": CT}, {"Z": mask()}).with_masks(mine)
    mine["B"] = mask(grid=OTHER)
    assert list(one.masks) == ["A"]
    assert list(two.masks) == ["Z", "A"]


def in_bits(names: tuple[str, ...]) -> BitMasks:
    """Structure n in slices 0 to n % 4: each lies in all that follow it."""
    planes = np.zeros((-(-len(names) // 8), *GRID.shape), np.uint8)
    for n in range(len(names)):
        planes[n // 8, : n % 4 + 1] |= np.uint8(1 << n % 8)
    return BitMasks(Volume(planes, GRID), names)


def test_bit_masks_are_masks_that_may_overlap() -> None:
    names = tuple("ABCDEFGHIJ")
    masks = in_bits(names)
    case = Case("p", {"ct": CT}, masks).with_masks({"Z": mask()})
    assert isinstance(Case("p", {"ct": CT}, masks).masks, BitMasks)
    assert list(case.masks) == [*names, "Z"]
    assert [int(masks[name].array.any(axis=(1, 2)).sum()) for name in names] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert masks["J"].array.dtype == bool
    assert case.mask("D").array.all()
    assert masks.place("J") == (1, 2)
    assert "Z" not in masks
    with pytest.raises(KeyError):
        masks["Z"]
    again = pickle.loads(pickle.dumps(case))
    assert (again.mask("J").array == case.mask("J").array).all()
    with pytest.raises(GeometryError, match="mask 'A' lies on"):
        Case("p", {"ct": Volume(CT.array, OTHER)}, masks)


def test_bits_must_fit_their_names() -> None:
    planes = Volume(np.zeros((1, *GRID.shape), np.uint8), GRID)
    with pytest.raises(InputError, match="must differ"):
        BitMasks(planes, ["A", "A"])
    with pytest.raises(GeometryError, match="9 structures"):
        BitMasks(planes, list("ABCDEFGHI"))
    with pytest.raises(GeometryError, match="int32"):
        BitMasks(Volume(np.zeros((1, *GRID.shape), np.int32), GRID), ["A"])


def test_label_masks_are_masks() -> None:
    labels = packed()
    case = Case("p", {"ct": CT}, labels).with_masks({"C": mask()})
    assert isinstance(Case("p", {"ct": CT}, labels).masks, LabelMasks)
    assert list(case.masks) == ["A", "B", "C"]
    assert case.masks["B"].array.dtype == bool
    assert np.flatnonzero(case.mask("B").array.any(axis=(1, 2))).tolist() == [1]
    assert labels.value("B") == 2
    assert "C" not in labels
    with pytest.raises(KeyError):
        labels["C"]


def test_label_masks_refuse_what_they_cannot_hold() -> None:
    whole = Volume(np.zeros(GRID.shape, np.uint8), GRID)
    with pytest.raises(InputError, match="names must differ"):
        LabelMasks(whole, ["A", "A"])
    with pytest.raises(InputError, match="300 structures do not fit into labels of uint8"):
        LabelMasks(whole, [str(n) for n in range(300)])
    with pytest.raises(GeometryError, match="three axes and integers"):
        LabelMasks(CT, ["A"])
    assert len(LabelMasks(whole, [])) == 0


def test_mask_goes_straight_onto_the_grid_that_is_asked_for() -> None:
    rod = Cylinder((0, 0, 4), 6, 30)
    case = Case("p", {"ct": CT}, contours={"Rod": rod.contours(np.arange(-9, 19, 3.0))})
    fine = GRID.resample((1, 0.5, 0.5))
    assert case.mask("Rod").volume_cc == pytest.approx(np.pi * 36 * 12 / 1000, rel=0.02)
    assert case.mask("Rod", fine).geometry == fine
    assert case.mask("Rod", fine).volume_cc == pytest.approx(np.pi * 36 * 12 / 1000, rel=0.01)


def _report(case: Case) -> tuple[str, list[str], int, float]:
    return case.id, list(case.masks), int(case.masks["B"].array.sum()), case.facts["age"]


def full_case() -> Case:
    source = DicomSource("CT", "1", "2", "3", (SliceRef("4", "5", (0.0, 0.0, 0.0)),), 20, 20, (1.0, 1.0), patient={"PatientID": "p"})
    prior = Case("p0", {"ct": CT}, {"A": mask()})
    return Case("p", {"ct": CT}, packed(), {"C": Contours()}, {"age": 60.0}, prior, source).with_masks({"D": mask()})


def test_pickles_whole() -> None:
    case = full_case()
    back = pickle.loads(pickle.dumps(case))
    assert _report(back) == _report(case)
    assert list(back.masks) == ["A", "B", "D"]
    assert back.prior.masks.keys() == {"A"}
    assert back.source == case.source
    with pytest.raises(ValueError, match="read-only"):
        back.ct.array[0] = 1


def test_travels_to_another_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_report, (full_case(),)) == ("p", ["A", "B", "D"], 400, 60.0)
