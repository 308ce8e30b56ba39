"""From a CT to a made image and a DICOM series of it: on the CT's grid, marked as synthetic, and refused or warned of where it must be."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import torch

from oncontour import cli
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.errors import InputError
from oncontour.io import read
from oncontour.io.dicom.derived import SYNTHETIC, Derivation, write_derived
from oncontour.io.dicom.rtstruct_write import write_rtstruct
from oncontour.io.dicom.seg_write import write_seg
from oncontour.io.dicom.series_write import write_series
from oncontour.learn.task import save_model
from oncontour.synthesize.fidelity import Fidelity
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.predict import MADE, UNIT, Synthesizer, ranges_of, usual_of
from oncontour.synthesize.signal import textbook
from oncontour.synthesize.task import SynthesizeTask
from tests.synthesize.test_fidelity import limb

SMALL = SynthesizeSettings(width=3, blocks=1, window=(1, 32, 32), spacing_mm=(3, 2, 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that nobody trained: it answers as the textbook does."""
    torch.manual_seed(0)
    task = SynthesizeTask(SMALL)
    task.start_afresh()
    path = tmp_path_factory.mktemp("model") / "none.safetensors"
    save_model(task, path, replace(task.card(), name="none", region="limb"))
    return path


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_the_image_lies_on_the_ct_s_grid_and_is_what_the_generator_said(model, turned):
    ct = limb()
    if turned:  # the same voxels, stored the other way round
        ct = ct.to(ct.geometry.reorient([[0, 0, -1], [1, 0, 0], [0, -1, 0]]))
    made = Synthesizer.load(model, backend="torch").make(Case("x", {"ct": ct}))
    assert made.image.geometry == ct.geometry
    assert made.image.array == pytest.approx(UNIT * textbook(ct.array), abs=0.5)
    assert made.warnings == ()
    assert made.fidelity.body_dice == pytest.approx(1)
    case = Synthesizer.load(model, backend="torch").predict(Case("x", {"ct": ct}))
    assert np.array_equal(case.images[MADE].array, made.image.array)


def test_other_pixels_are_worked_on_in_the_model_s_and_come_back_on_their_own(model):
    ct = limb(Geometry.regular((6, 150, 150), (2.5, 0.85, 0.85)))
    made = Synthesizer.load(model, backend="torch").make(Case("x", {"ct": ct}))
    assert made.image.geometry == ct.geometry
    tissue = [(ct.array == hu) & _deep(ct.array == hu) for hu in (-100, 50)]
    assert [float(made.image.array[one].mean()) for one in tissue] == pytest.approx(
        [UNIT * float(textbook(hu)) for hu in (-100, 50)], rel=0.03
    )


def _deep(mask):
    from scipy import ndimage

    return ndimage.binary_erosion(mask, np.ones((1, 7, 7)))


def test_metal_and_contrast_are_warned_of_and_another_region_is_refused(model):
    ct = limb()
    metal = ct.map(lambda hu: np.where(hu == 800, 3500, hu))
    told = Synthesizer.load(model).make(Case("x", {"ct": metal})).warnings
    assert any("metal" in text for text in told)
    from oncontour.phantom import head_neck

    head = Case("x", {"ct": head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)).ct})
    with pytest.raises(InputError, match="--any_region"):
        Synthesizer.load(model).make(head)
    assert any("head and neck" in text for text in Synthesizer.load(model, any_region=True).make(head).warnings)
    with pytest.raises(InputError, match="no CT among"):
        Synthesizer.load(model).make(Case("x", {"mr": ct}))


# ---- DICOM


@pytest.fixture
def ct_folder(tmp_path):
    write_series(limb().map(lambda hu: hu.astype(np.int16)), tmp_path / "ct", patient={"PatientID": "secret-7"})
    return tmp_path / "ct"


def test_every_slice_says_that_it_is_synthetic_what_made_it_and_of_which_ct_image(ct_folder, tmp_path, dciodvfy):
    case = read(ct_folder)
    image = case.ct.map(lambda hu: UNIT * textbook(hu))
    derivation = Derivation("limb-t1", "ab" * 32, "0.1", ("Nerve has 1.30 times its volume",))
    write_derived(image, tmp_path / "smr", case.source, derivation)
    ct = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, sorted(ct_folder.iterdir()))}
    for path in sorted((tmp_path / "smr").iterdir()):
        d = pydicom.dcmread(path)
        source = ct[d.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert len(d.SourceImageSequence) == 1
        assert d.ImagePositionPatient == source.ImagePositionPatient
        assert (d.FrameOfReferenceUID, d.StudyInstanceUID, d.PatientID) == (source.FrameOfReferenceUID, source.StudyInstanceUID, "secret-7")
        assert (d.SyntheticData, d.Modality, list(d.ImageType)) == ("YES", "MR", ["DERIVED", "SECONDARY", "OTHER"])
        assert d.SeriesDescription == f"{SYNTHETIC}; CHECK, see derivation; limb-t1"
        assert "Nerve has 1.30 times its volume" in d.DerivationDescription
        assert d.ScanningSequence == "RM"
        assert all(keyword in d and d[keyword].is_empty for keyword in ("RepetitionTime", "EchoTime", "EchoTrainLength"))
        assert d.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
        assert [line for line in dciodvfy(path) if "(0008,001c)" not in line] == []  # its tables are of 2022, and do not know it
    back = read(tmp_path / "smr")
    assert back.images["mr"].geometry.same_grid(case.geometry)
    assert back.images["mr"].array == pytest.approx(image.array, abs=UNIT / 65535 + 1e-3)
    assert any("SYNTHETIC" in note for note in back.notes)


def test_a_structure_set_and_a_seg_drawn_on_it_are_synthetic_too(ct_folder, tmp_path):
    case = read(ct_folder)
    write_derived(case.ct.map(lambda hu: UNIT * textbook(hu)), tmp_path / "smr", case.source, Derivation("m", "", "0"))
    for folder, synthetic in ((tmp_path / "smr", True), (ct_folder, False)):
        drawn = read(folder)
        drawn = drawn.with_masks({"Body": next(iter(drawn.images.values())).map(lambda v: v > 200)})
        write_rtstruct(drawn, tmp_path / f"{folder.name}.dcm")
        write_seg(drawn.masks, tmp_path / f"{folder.name}-seg.dcm", source=drawn.source)
        for name in (f"{folder.name}.dcm", f"{folder.name}-seg.dcm"):
            assert (pydicom.dcmread(tmp_path / name).get("SyntheticData") == "YES") == synthetic


def test_a_slice_between_two_ct_images_names_both(ct_folder, tmp_path):
    case = read(ct_folder)
    between = case.geometry.resample((2, 2, 2))
    image = case.ct.map(lambda hu: UNIT * textbook(hu)).to(between)
    write_derived(image, tmp_path / "smr", case.source, Derivation("m", "", "0"))
    counts = [len(pydicom.dcmread(path).SourceImageSequence) for path in sorted((tmp_path / "smr").iterdir())]
    assert set(counts) == {1, 2}


def test_the_command_writes_series_and_figures_and_names_nobody(model, ct_folder, tmp_path, capsys):
    assert cli.main(["synthesize", str(ct_folder), "--out", str(tmp_path / "out"), "--model", str(model), "--backend", "torch"]) == 0
    record = (tmp_path / "out" / "synthesize.json").read_text()
    told = json.loads(record)
    assert told["synthetic"] is True
    assert told["fidelity"]["body_dice"] == pytest.approx(1)
    assert told["model"]["name"] == "none"
    assert "secret" not in record
    assert len(list((tmp_path / "out" / "series").iterdir())) == 6
    assert "SYNTHETIC, not acquired" in capsys.readouterr().out
    assert cli.main(["synthesize", str(tmp_path / "out" / "series"), "--out", str(tmp_path / "two"), "--model", str(model)]) == 2
    assert "no CT among the images" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_the_ranges_of_good_images_go_into_a_card_and_come_out_of_it(model):
    """Least and greatest of three patients (outline 0.96 to 1.00), widened by half their distance; what one does not have has no range."""
    good = [Fidelity(outline, 0.5, 1.2, 0.0, flicker, 3.0) for outline, flicker in ((0.96, 0.1), (0.98, 0.2), (1.0, float("nan")))]
    told = ranges_of(good)
    assert told == {
        "patients": 3,
        "body_dice": [0.94, 1.02],
        "gradient_correlation": [0.5, 0.5],
        "nmi": [1.2, 1.2],
        "checkerboard": [0.0, 0.0],
        "fat_over_muscle": [3.0, 3.0],
    }
    card = Synthesizer.load(model).card
    assert usual_of(replace(card, metrics={"fidelity": told})) == told
    with pytest.raises(InputError, match="not of 1"):
        ranges_of(good[:1])
