"""``oncontour convert``: there and back on real patients, cohorts with a bad patient, and destinations that are not lost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.commands.convert import convert
from oncontour.core.case import Case
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, InputError, OncontourError, OutputError, StructureError
from oncontour.files import writing_folder
from oncontour.io import read, write
from oncontour.io.dicom.patient_write import losses
from oncontour.io.dicom.rtdose import DoseKind
from oncontour.io.dicom.rtstruct import slices_of, write_rtstruct
from oncontour.io.dicom.series import read_series
from oncontour.io.image import layout
from oncontour.io.image.nifti import read_image, write_image
from tests.dicom_cases import make_series


@pytest.mark.parametrize("patient", ["pt_239", "pt_238"])
def test_nifti_to_dicom_and_back(data: Path, tmp_path: Path, patient: str) -> None:
    source = data / "openkbp/validation" / patient
    there = convert(source, tmp_path / "dicom" / patient).done[0]
    convert(tmp_path / "dicom" / patient, tmp_path / "nifti" / patient)
    before, between, after = read(source), read(tmp_path / "dicom" / patient), read(tmp_path / "nifti" / patient)
    for case in (between, after):
        assert case.id == patient
        assert np.array_equal(case.ct.array, before.ct.array)
        assert case.ct.array.dtype == np.int16
        assert case.geometry.same_grid(before.geometry, 1e-3)
        assert case.images["dose"].geometry.same_grid(before.images["dose"].geometry, 1e-3)
        assert np.abs(case.images["dose"].array - before.images["dose"].array).max() <= 1e-6 * before.images["dose"].array.max()
        assert set(case.structures) == set(before.structures)
        for name in before.structures:
            assert np.array_equal(case.mask(name).array, before.masks[name].array), name
    assert {p.relative_to(source) for p in source.rglob("*.gz")} == {
        p.relative_to(tmp_path / "nifti" / patient) for p in (tmp_path / "nifti").rglob("*.gz")
    }
    assert any("dose: stored in steps" in note for note in there.notes)
    assert any("masks became contours" in note for note in there.notes)


def test_dicom_to_nifti_and_back(data: Path, tmp_path: Path) -> None:
    source = data / "dicom/LUNG1-001"
    there = convert(source, tmp_path / "nifti").done[0]
    assert any("contours became voxels" in note for note in there.notes)
    assert any("identity" in note for note in there.notes)
    before, between = read(source), read(tmp_path / "nifti")
    assert np.array_equal(between.ct.array, before.ct.array)
    assert between.geometry.same_grid(before.geometry, 1e-3)
    convert(tmp_path / "nifti", tmp_path / "dicom")
    after = read(tmp_path / "dicom")
    assert np.array_equal(after.ct.array, before.ct.array)
    assert after.geometry.same_grid(before.geometry, 1e-3)
    assert after.facts["names"] == before.facts["names"]
    for name in before.structures:
        mask = before.mask(name).array
        assert np.array_equal(between.masks[name].array, mask), name
        assert np.array_equal(after.mask(name).array, mask), name


def test_the_published_csvs_become_dicom(data: Path, tmp_path: Path) -> None:
    one = convert(data / "openkbp-csv/validation-pats/pt_239", tmp_path / "out").done[0]
    assert any("possible_dose_mask" in note for note in one.notes)
    sparse, dicom = read(data / "openkbp-csv/validation-pats/pt_239"), read(tmp_path / "out")
    assert np.array_equal(dicom.ct.array, sparse.ct.array)
    assert dicom.mask("Parotid_L").array.sum() == sparse.masks["Parotid_L"].array.sum()


def patients(folder: Path, *ids: str) -> Path:
    grid = Geometry.regular((3, 8, 9), (2, 1, 1))
    inside = np.zeros(grid.shape, bool)
    inside[1, 2:5, 3:6] = True
    for id in ids:
        write_image(Volume(np.zeros(grid.shape, np.int16), grid), folder / id / "ct.nii.gz")
        write_image(Volume(inside, grid), folder / id / "masks/Larynx.nii.gz")
    return folder


def test_a_cohort_with_a_bad_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = patients(tmp_path / "cohort", "a", "b", "c")
    (source / "b/ct.nii.gz").write_bytes(b"broken")
    with pytest.raises(CohortError, match=r"1 of 3 .*b: .*ct\.nii\.gz.*the other 2"):
        convert(source, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["a", "c"]
    assert read(tmp_path / "out/c").structures == ("Larynx",)
    assert main(["convert", str(source), str(tmp_path / "again")]) == 2
    assert "1 of 3" in capsys.readouterr().err


def test_a_cohort_by_csv_and_by_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients(tmp_path, "a", "b")
    (tmp_path / "cohort.csv").write_text("patient,path\nP 1,a\nP/2,b\n")
    assert main(["convert", str(tmp_path / "cohort.csv"), str(tmp_path / "dicom")]) == 0
    assert sorted(p.name for p in (tmp_path / "dicom").glob("[!.]*")) == ["P 1", "P_2"]
    assert "P/2: " in capsys.readouterr().out
    back = convert(tmp_path / "dicom", tmp_path / "nifti")
    assert [one.id for one in back.done] == ["P 1", "P_2"]
    assert (tmp_path / "nifti/P_2/masks/Larynx.nii.gz").is_file()


def test_ids_that_would_share_a_folder(tmp_path: Path) -> None:
    patients(tmp_path, "a", "b")
    (tmp_path / "cohort.csv").write_text("patient,path\nP_2,a\nP/2,b\n")
    with pytest.raises(CohortError, match="share the folder"):
        convert(tmp_path / "cohort.csv", tmp_path / "out")


def test_destinations_are_not_lost(tmp_path: Path) -> None:
    source = patients(tmp_path, "a") / "a"
    convert(source, tmp_path / "out")
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(OutputError, match="overwrite"):
        convert(source, tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before
    convert(source, tmp_path / "out", to="nifti", overwrite=True)
    assert read(tmp_path / "out").source is None
    (tmp_path / "out/thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        convert(source, tmp_path / "out", overwrite=True)
    for place in (source, source / "within", tmp_path):
        with pytest.raises(OutputError, match="within each other"):
            convert(source, place, overwrite=True)
    (source / "ct.nii.gz").write_bytes(b"broken")
    (tmp_path / "out/thesis.tex").unlink()
    kept = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(OncontourError):
        convert(source, tmp_path / "out", overwrite=True)
    assert sorted((tmp_path / "out").rglob("*")) == kept


@pytest.mark.parametrize("place", [".", "../here", "../here/."])
def test_the_folder_we_are_in_is_not_replaced_under_our_feet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    source = patients(tmp_path, "a") / "a"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match=r"the folder that you are in.*within it"):
        convert(source, Path(place))
    assert not list((tmp_path / "here").iterdir())
    convert(source, Path("within"))
    with pytest.raises(OutputError, match="the folder that you are in"), writing_folder(Path(place)):
        pass


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="for one patient"):
        convert(patients(tmp_path / "many", "a", "b"), tmp_path / "out", series_uid="1.2")
    with pytest.raises(ConfigError):
        convert(tmp_path / "many/a", tmp_path / "out", to="docx")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_losses_are_said(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", rows=8, columns=9, offsets=(0, 2, 4, 6, 7, 8, 10))
    notes = convert(tmp_path / "ct", tmp_path / "nifti").done[0].notes
    assert any("slice" in note or "plane" in note for note in notes)
    grid = Geometry.regular((3, 8, 9), (2, 1, 1))
    write_image(Volume(np.full(grid.shape, 0.25, np.float32), grid), tmp_path / "soft/ct.nii.gz")
    notes = convert(tmp_path / "soft", tmp_path / "dicom").done[0].notes
    assert any("rounded to whole HU" in note for note in notes)
    case = Case("p", {"dose": Volume(np.ones(grid.shape, np.float32), grid)})
    assert not any("dose" in note for note in layout.losses(case))
    for kind, said in (
        (DoseKind("EFFECTIVE"), "EFFECTIVE PLAN"),
        (DoseKind(summation="BEAM"), "PHYSICAL BEAM"),
        (DoseKind("", ""), "no known"),
    ):
        assert any(said in note for note in layout.losses(replace(case, facts={"rtdose": kind})))


def test_no_file_bears_the_name_of_another_structure(tmp_path: Path) -> None:
    """Q/60 cannot be a file, Q_60 can: theirs are 4 and 9 voxels on each of two slices. abc and ABC are one file on many systems."""
    make_series(tmp_path / "in/ct", rows=20, columns=20, offsets=(0, 2, 4, 6))
    image, source, _ = read_series(tmp_path / "in/ct")
    slices = slices_of(source)

    def square(n: int, size: float, at: float = 1.5) -> Contours:
        corners = [(at, at), (at, at + size), (at + size, at + size), (at + size, at)]
        return Contours(tuple(np.array([slices.origins_mm[k] + c * slices.row + r * slices.column for r, c in corners]) for k in (1, 2)))

    sizes = {"Q/60": 2.0, "Q_60": 3.0, "abc": 4.0, "ABC": 5.0}
    drawn = {name: square(1, size) for name, size in sizes.items()} | {"speck": square(1, 0.6, 3.7), "edge": square(1, 30.0)}
    write_rtstruct(Case("p", {"ct": image}, contours=drawn, source=source), tmp_path / "in/rs.dcm")
    notes = convert(tmp_path / "in", tmp_path / "out").done[0].notes
    voxels = {p.name: int(read_image(p).array.sum()) for p in (tmp_path / "out/masks").iterdir()}
    assert voxels.pop("edge.nii.gz") == 2 * 18 * 18
    assert voxels == {"Q_60.nii.gz": 18, "Q_60^2.nii.gz": 8, "abc.nii.gz": 32, "ABC^2.nii.gz": 50, "speck.nii.gz": 0}
    (renamed,) = (note for note in notes if "names" in note and "changed" in note)
    assert renamed.endswith("'Q/60' to 'Q_60^2', 'ABC' to 'ABC^2'")
    (empty,) = (note for note in notes if "empty masks" in note)
    assert empty.endswith(": speck")
    (beyond,) = (note for note in notes if "beyond the image" in note)
    assert beyond.endswith(": edge")


def test_of_one_slice_it_is_said_what_dicom_does_not_hold(tmp_path: Path) -> None:
    grid = Geometry.regular((1, 8, 9), (4, 1, 1))
    write_image(Volume(np.zeros(grid.shape, np.int16), grid), tmp_path / "one/ct.nii.gz")
    notes = convert(tmp_path / "one", tmp_path / "out").done[0].notes
    assert "one slice: how far it reaches (4 mm) no DICOM series tells; oncontour does not read it back" in notes
    with pytest.raises(OncontourError, match="of 1 slice"):
        read(tmp_path / "out")


def test_names_too_long_for_dicom_are_said(tmp_path: Path) -> None:
    source = patients(tmp_path, "a") / "a"
    fits, not_fits = "x" * 60, "y" * 61
    for name in (fits, not_fits):
        (source / f"masks/{name}.nii.gz").write_bytes((source / "masks/Larynx.nii.gz").read_bytes())
    notes = convert(source, tmp_path / "out").done[0].notes
    (changed,) = (note for note in notes if "more than 60 letters" in note)
    assert changed.endswith(f": {not_fits!r}")
    assert set(read(tmp_path / "out").structures) == {"Larynx", fits, "y" * 60}


def test_what_a_plan_says_is_not_lost_silently() -> None:
    grid = Geometry.regular((3, 8, 9), (2, 1, 1))
    case = Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}, facts={"fractions": 35, "prescription_gy": 70.0})
    assert "what the plan says is not kept in NIfTI: fractions 35, prescription_gy 70" in layout.losses(case)


def test_structures_in_a_folder_of_another_name_are_not_passed_over_silently(tmp_path: Path) -> None:
    source = patients(tmp_path, "a") / "a"
    assert not any("passed over" in note for note in convert(source, tmp_path / "one").done[0].notes)
    (source / "masks").rename(source / "Segmentations")
    (source / "protocol").mkdir()
    (note,) = (note for note in convert(source, tmp_path / "two").done[0].notes if "passed over" in note)
    assert note == "passed over: image files in Segmentations; those of structures are read from masks alone"


def test_a_label_map_is_no_mask_and_its_labels_are_offered(tmp_path: Path) -> None:
    source = patients(tmp_path, "a") / "a"
    labels = np.zeros((3, 8, 9), np.uint8)
    labels[1, 2, :5] = (1, 1, 2, 7, 2)
    write_image(Volume(labels, read_image(source / "ct.nii.gz").geometry), source / "masks/Brainstem.nii.gz")
    write_image(Volume(labels // 7 * 255, read_image(source / "ct.nii.gz").geometry), source / "masks/Parotid_L.nii.gz")
    with pytest.raises(StructureError) as caught:
        read(source)
    assert str(caught.value) == (
        "the file holds 3 labels (1, 2, 7), where the mask of one structure was expected "
        f"[{source / 'masks/Brainstem.nii.gz'}]. Way out: name them in Brainstem.json beside it, as "
        '{"1": "NAME", "2": "NAME"}, or save each as a file of its own'
    )
    (source / "masks/Brainstem.json").write_text('{"1": "Brainstem", "2": "SpinalCord", "7": null, "9": "Eye_L"}')
    case = read(source)
    named = ("Brainstem", "SpinalCord", "Eye_L", "Parotid_L")
    assert [int(case.masks[name].array.sum()) for name in named] == [2, 2, 0, 1]
    assert "Brainstem.nii.gz: no voxel has the label of Eye_L: empty masks" in case.facts["notes"]


def test_names_that_are_no_utf8_are_carried(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As old archives leave them: M\\xfcller in Latin-1."""
    source = patients(tmp_path / "in", "a", "b") / "a"
    folder = os.fsencode(tmp_path / "in") + b"/M\xfcller"
    try:
        os.rename(source, folder)
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    os.rename(folder + b"/masks/Larynx.nii.gz", folder + b"/masks/Kehlkopf \xfc.nii.gz")
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert "M?ller: " in capfd.readouterr().out
    assert read(tmp_path / "out/M_ller").structures == ("Larynx",)
    os.rename(tmp_path / "in/b", os.fsencode(tmp_path / "in") + b"/M\xf6ller")
    with pytest.raises(CohortError, match=r"two folders are called 'M\?ller'"):
        convert(tmp_path / "in", tmp_path / "again")


UNEVEN = (0.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 24.0)


def squares(slices: Slices, *numbers: int) -> Contours:
    """10 x 10 pixels on the slices of these numbers."""
    height, width = slices.pixel_mm
    corners = [(c * width * slices.row + r * height * slices.column) for r, c in ((4.5, 2.5), (4.5, 12.5), (14.5, 12.5), (14.5, 2.5))]
    return Contours(tuple(np.array([slices.origins_mm[n] + corner for corner in corners]) for n in numbers), (1, 2, 3), slices)


def uneven_patient(folder: Path, position: str = "HFS") -> Path:
    """Liver from 2 to 20 mm, across the place where gaps of 2 mm become gaps of 4 mm; Larynx from 2 to 6 mm; Heart, looked for in vain."""
    make_series(folder / "ct", offsets=UNEVEN, rows=20, columns=20, spacing_mm=(2.0, 2.0), patient_position=position)
    image, source, _ = read_series(folder / "ct")
    slices = slices_of(source)
    drawn = {"Liver": squares(slices, *range(1, 8)), "Larynx": squares(slices, 1, 2, 3), "Heart": Contours((), (4, 5, 6), slices)}
    write_rtstruct(Case("p", {"ct": image}, contours=drawn, source=source), folder / "rs.dcm")
    return folder


@pytest.mark.parametrize("position", ["HFS", "FFP"])
def test_structures_of_an_uneven_series_keep_their_voxels(tmp_path: Path, position: str) -> None:
    """7 slices of 400 mm2 stand for 1 to 22 mm: slices 1 to 11 of the grid of 2 mm, 8.8 cc. What is written has a slice for each of its."""
    source = uneven_patient(tmp_path / "in", position)
    notes = convert(source, tmp_path / "out", to="dicom").done[0].notes
    before, after = read(source), read(tmp_path / "out")
    assert before.mask("Liver").volume_cc == pytest.approx(8.8)
    assert after.geometry.same_grid(before.geometry)
    for name in ("Liver", "Larynx", "Heart"):
        assert np.array_equal(after.mask(name).array, before.mask(name).array), name
        assert after.contours[name].colour == before.contours[name].colour
    assert len(after.contours["Liver"]) == 11
    for drawn, written in zip(before.contours["Larynx"], after.contours["Larynx"], strict=True):
        assert np.allclose(drawn, written, atol=1e-4)  # on slices that are there as they were: as drawn
    (note,) = [note for note in notes if "traced" in note]
    assert "Liver" in note
    assert "Larynx" not in note
    again = convert(tmp_path / "out", tmp_path / "again", to="dicom").done[0].notes
    assert not any("traced" in note for note in again)


def test_structures_of_an_even_series_are_written_as_drawn(tmp_path: Path) -> None:
    make_series(tmp_path / "in/ct", offsets=(0, 2, 4, 6, 8), rows=20, columns=20)
    image, source, _ = read_series(tmp_path / "in/ct")
    case = Case("p", {"ct": image}, contours={"Liver": squares(slices_of(source), 1, 2, 3)}, source=source)
    write(case, tmp_path / "out")
    assert losses(case) == ()
    for drawn, written in zip(case.contours["Liver"], read(tmp_path / "out").contours["Liver"], strict=True):
        assert np.allclose(drawn, written, atol=1e-4)


@pytest.mark.parametrize(("spacing_mm", "digits"), [(0.8333, 2), (0.625, 2), (1.171875, 2), (0.8333, 1)])
def test_structures_of_an_even_series_of_rounded_places_are_written_as_drawn(tmp_path: Path, spacing_mm: float, digits: int) -> None:
    """Places rounded to 0.01 mm (or 0.1 mm) are no other slices, though a pixel drawn by hardly more than half may change sides."""
    offsets = tuple(float(z) for z in np.round(np.arange(12) * spacing_mm, digits))
    make_series(tmp_path / "in/ct", offsets=offsets, rows=20, columns=20)
    image, source, _ = read_series(tmp_path / "in/ct")
    assert image.geometry.shape[0] == 12
    slices = slices_of(source)
    sizes = {n: 8.501 if n % 2 else 6.501 for n in range(1, 11)}  # mm, from 3.5: of the last pixels a little more than half
    drawn = []
    for n, size in sizes.items():
        corners = ((3.5, 3.5), (3.5, 3.5 + size), (3.5 + size, 3.5 + size), (3.5 + size, 3.5))
        drawn.append(np.array([slices.origins_mm[n] + c * slices.row + r * slices.column for r, c in corners]))
    case = Case("p", {"ct": image}, contours={"Liver": Contours(tuple(drawn), None, slices)}, source=source)
    assert losses(case) == ()
    write(case, tmp_path / "out")
    for ours, written in zip(drawn, read(tmp_path / "out").contours["Liver"], strict=True):
        assert ours.shape == written.shape
        assert np.allclose(ours, written, atol=1e-3)


@pytest.mark.parametrize("known", [True, False])
def test_contours_on_an_image_finer_than_their_slices_keep_their_voxels(tmp_path: Path, known: bool) -> None:
    """Drawn every 3 mm, on an image that was brought to 1 mm: each contour stays three slices thick, the lone one too."""
    grid = Geometry.regular((30, 20, 20), (1, 1, 1))
    slices = Slices(grid.points([(k, 0, 0) for k in range(1, 30, 3)]), (1, 0, 0), (0, 1, 0), (1, 1), (20, 20))
    drawn = {"Liver": squares(slices, 1, 2, 3, 7), "GTV": squares(slices, 2, 3, 4, 5)}
    contours = drawn if known else {name: replace(one, slices=None) for name, one in drawn.items()}
    case = Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}, contours=contours)
    assert case.mask("GTV").array.any(axis=(1, 2)).nonzero()[0].tolist() == [*range(6, 18)]
    write(case, tmp_path / "out")
    after = read(tmp_path / "out")
    for name in drawn:
        assert np.array_equal(after.mask(name).array, case.mask(name).array), name
    assert any("traced" in note and "Liver" in note for note in losses(case))


@pytest.mark.parametrize("held", [[5, 7, 9], [5, 8, 11], [4, 5, 7]])
def test_masks_on_some_slices_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], held: list[int]) -> None:
    """NIfTI to DICOM to NIfTI, and from that DICOM to DICOM by way of contours: 25 voxels a slice all the way. Before it is written it is
    said that other programs may fill what lies between; of a body without gaps nothing is said."""
    grid = Geometry.regular((14, 9, 10), (3, 1.5, 1), (-9, -8, -7))
    sparse, whole = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    sparse[held, 2:7, 3:8] = True
    whole[3:9, 2:7, 3:8] = True
    case = Case("one", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}, {"Lens_L": Volume(sparse, grid), "Brain": Volume(whole, grid)})
    write(case, tmp_path / "one", format="nifti")
    there = convert(tmp_path / "one", tmp_path / "dicom").done[0]
    expected = (
        "slices between contours are left empty, which an RTSTRUCT cannot say but in words: oncontour reads them as they are, "
        "other programs may fill them: Lens_L"
    )
    assert expected in there.notes
    assert capsys.readouterr().err == f"one: {expected}\n"
    convert(tmp_path / "dicom", tmp_path / "nifti")
    write(read(tmp_path / "dicom"), tmp_path / "again", format="dicom")
    for place in ("dicom", "nifti", "again"):
        back = read(tmp_path / place)
        assert np.array_equal(back.mask("Lens_L").array, sparse)
        assert np.array_equal(back.mask("Brain").array, whole)
        assert not any("drawn on one slice" in note for note in back.facts.get("notes", ()))
