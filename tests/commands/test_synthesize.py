"""``oncontour synthesize``, end to end: what series, page and record say, where nobody looked for drift, and bad input in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from oncontour import cli
from oncontour.commands.synthesize import _record, _write_series
from oncontour.commands.synthesize_drift import Drifted, measured
from oncontour.core.case import Case
from oncontour.io import read
from oncontour.io.dicom.rtstruct_write import write_rtstruct
from oncontour.io.dicom.series_write import write_series
from oncontour.io.image.nifti import write_image
from oncontour.learn.task import save_model
from oncontour.phantom import head_neck
from oncontour.report.synthesize import page, pictures
from oncontour.synthesize.drift import Drift, Limits, Usual, Verdict
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.predict import Made, Synthesizer
from oncontour.synthesize.signal import textbook
from oncontour.synthesize.task import SynthesizeTask
from tests.needs import browser
from tests.synthesize.test_fidelity import limb

DRAWN = Drifted("", (Drift("Parotid_L", 1.31, 0.4, 0.93),), Verdict(True, ("Parotid_L has 1.31 times its volume",)))
USUAL = Limits({"Parotid_L": Usual(0.0, 0.02, 0.02, 0.3, 1.8, 0.1)}, 3.0, 20, 0.1, "phantoms")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that nobody trained: it answers as the textbook does."""
    torch.manual_seed(0)
    task = SynthesizeTask(SynthesizeSettings(width=3, blocks=1, window=(1, 32, 32), spacing_mm=(3, 2, 2)))
    task.start_afresh()
    path = tmp_path_factory.mktemp("model") / "none.safetensors"
    usual = {"patients": 20, "nmi": [1.0, 1.2], "body_dice": [0.98, 1.0]}
    save_model(task, path, replace(task.card(), name="none", region="limb", metrics={"fidelity": usual}))
    return path


@pytest.fixture(scope="module")
def ct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct") / "ct"
    write_series(limb().map(lambda hu: hu.astype(np.int16)), folder, patient={"PatientID": "secret-7"})
    return folder


@pytest.fixture(scope="module")
def result(model: Path, ct_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "out"
    assert cli.main(["synthesize", str(ct_folder), "--out", str(out), "--model", str(model), "--backend", "torch"]) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], out: Path, folder: Path, model: Path, *more: str) -> str:
    """What is said of a CT that is refused, with nothing written and no traceback."""
    assert cli.main(["synthesize", str(folder), "--out", str(out), "--model", str(model), "--backend", "torch", *more]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert not out.exists()
    return said


def flagged(model: Path, ct_folder: Path, other_region: str = "") -> tuple[Case, Made, Drifted, Synthesizer]:
    synthesizer = Synthesizer.load(model, backend="torch")
    case = read(ct_folder)
    made = replace(synthesizer.make(case), other_region=other_region)
    return case, made, replace(DRAWN, segmenter=synthesizer.card, limits=USUAL), synthesizer


# ---- what is written


def test_where_no_segmenter_draws_organs_record_page_and_screen_say_that_nobody_looked(result: Path) -> None:
    told = json.loads((result / "synthesize.json").read_text())
    assert told["drift"] is None
    assert "no segmenter is shipped that draws organs of this region" in told["drift_why"]
    text = (result / "report.html").read_text()
    assert "the patient's right is on the left of the picture" in text
    assert told["drift_why"] in text
    assert "SYNTHETIC, not acquired" in text
    assert "secret" not in text


def test_the_page_needs_no_network_and_shows_ranges_of_good_images_and_what_lies_beyond(result: Path) -> None:
    told, text = json.loads((result / "synthesize.json").read_text()), (result / "report.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert told["fidelity_usual"] == {"patients": 20, "nmi": [1.0, 1.2], "body_dice": [0.98, 1.0]}
    assert any(text_.startswith("nmi is 2.") and "in good images 1.000 to 1.200" in text_ for text_ in told["warnings"])
    assert "1.000 to 1.200" in text
    assert "usual, 20 patients" in text


def test_an_organ_that_drifted_stands_in_series_description_record_and_page(model: Path, ct_folder: Path, tmp_path: Path) -> None:
    case, made, drifted, synthesizer = flagged(model, ct_folder)
    _write_series(tmp_path / "series", case, made, drifted, synthesizer.card)
    d = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    assert d.SeriesDescription == "SYNTHETIC, not acquired; DRIFT; none"
    assert "Parotid_L has 1.31 times its volume" in d.DerivationDescription
    told = _record(case, ct_folder, made, drifted, synthesizer.card)
    assert told["drift"]["flagged"] is True  # type: ignore[index]
    assert told["warnings"][0] == "DRIFT: Parotid_L has 1.31 times its volume"  # type: ignore[index]
    text = page(told, pictures(case.ct, made.image))
    assert "DRIFT: the anatomy is not that of the CT" in text
    low, high, _, _ = USUAL.within("Parotid_L")
    assert f"{low:.2f} to {high:.2f}" in text


def test_another_region_stands_in_all_three(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)).ct
    write_series(head.map(lambda hu: hu.astype(np.int16)), tmp_path / "head")
    assert "--any_region" in refused(capsys, tmp_path / "out", tmp_path / "head", model)
    more = ["--any_region", "--backend", "torch", "--threads", "1"]
    assert cli.main(["synthesize", str(tmp_path / "head"), "--out", str(tmp_path / "out"), "--model", str(model), *more]) == 0
    d = pydicom.dcmread(next((tmp_path / "out" / "series").iterdir()))
    assert d.SeriesDescription.startswith("SYNTHETIC, not acquired; ")
    assert "OTHER REGION" in d.SeriesDescription
    told = json.loads((tmp_path / "out" / "synthesize.json").read_text())
    assert told["other_region"] == "head and neck"
    assert "Of another part of the body (head and neck)" in (tmp_path / "out" / "report.html").read_text()


def test_a_seg_that_convert_writes_of_contours_on_the_derived_series_is_synthetic(result: Path, ct_folder: Path, tmp_path: Path) -> None:
    import shutil

    for name, source, synthetic in (("derived", result / "series", True), ("ct", ct_folder, False)):
        shutil.copytree(source, tmp_path / name)
        drawn = read(tmp_path / name)
        drawn = drawn.with_masks({"Body": next(iter(drawn.images.values())).map(lambda v: v > 200)})
        write_rtstruct(drawn, tmp_path / name / "rtstruct.dcm")
        assert cli.main(["convert", str(tmp_path / name), str(tmp_path / f"{name}-seg"), "--to", "seg"]) == 0
        d = pydicom.dcmread(next((tmp_path / f"{name}-seg").glob("*.dcm")))
        assert (d.get("SyntheticData") == "YES") == synthetic


def test_of_a_folder_with_ct_and_mr_the_ct_is_taken(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["synthesize", str(data / "dicom" / "STS_044"), "--out", str(out), "--model", str(model), "--threads", "1"]
    assert cli.main(command) == 0
    ct = [pydicom.dcmread(path, stop_before_pixels=True) for path in (data / "dicom" / "STS_044" / "CT").rglob("*.dcm")]
    uids = {d.SOPInstanceUID for d in ct if d.Modality == "CT"}
    made = [pydicom.dcmread(path) for path in (out / "series").iterdir()]
    assert len(made) == len(uids)
    assert {one.ReferencedSOPInstanceUID for d in made for one in d.SourceImageSequence} == uids
    assert all(d.SyntheticData == "YES" for d in made)


def test_the_shipped_segmenter_sees_a_gland_that_moved_in_a_real_patient(data: Path) -> None:
    from scipy import ndimage

    ct = read(data / "openkbp" / "validation" / "pt_204").ct
    case = Case("x", {"ct": ct})
    made = ct.map(lambda hu: np.asarray(1000 * textbook(hu), np.float32))
    good = measured(case, made, threads=1)
    assert good.verdict.flagged is False
    assert "Parotid_L" in {one.organ for one in good.organs}
    step = 5 / np.asarray(ct.geometry.spacing_mm)
    moved = made.map(lambda v: ndimage.shift(v, (0, step[1], 0), order=1))
    assert measured(case, moved, threads=1).verdict.flagged is True


# ---- bad input


def test_what_is_no_ct_of_a_patient_is_refused_in_a_sentence(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct = limb()
    spoiled = {
        "nan": (ct.map(lambda hu: np.where(hu == 800, np.nan, hu)), "NaN"),
        "mr": (ct.map(lambda hu: np.asarray(1000 * textbook(hu), np.float32)), "this is no CT in HU"),
        "slice": (type(ct)(ct.array[:1], ct.geometry.crop((0, 0, 0), (1, 64, 64))), "no volume"),
        "air": (ct.map(lambda hu: np.full_like(hu, -1000)), "this is no CT in HU"),
    }
    for name, (image, words) in spoiled.items():
        (tmp_path / name).mkdir()
        write_image(image, tmp_path / name / "ct.nii.gz")
        assert words in refused(capsys, tmp_path / "out", tmp_path / name, model), name


def test_contrast_and_metal_are_told_in_record_and_description(
    model: Path, ct_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metal = limb().map(lambda hu: np.where(hu == 800, 3500, hu).astype(np.int16))
    write_series(metal, tmp_path / "ct")
    for path in (tmp_path / "ct").iterdir():
        d = pydicom.dcmread(path)
        d.ContrastBolusAgent = "IV contrast"
        d.save_as(path)
    assert cli.main(["synthesize", str(tmp_path / "ct"), "--out", str(tmp_path / "out"), "--model", str(model), "--backend", "torch"]) == 0
    told = json.loads((tmp_path / "out" / "synthesize.json").read_text())["warnings"]
    assert any("contrast agent" in text for text in told)
    assert any("metal" in text for text in told)
    d = pydicom.dcmread(next((tmp_path / "out" / "series").iterdir()))
    assert d.SeriesDescription == "SYNTHETIC, not acquired; CHECK, see derivation; none"
    assert "contrast agent" in capsys.readouterr().out


def test_an_image_whose_fat_is_dark_is_warned_of(model: Path) -> None:
    from oncontour.synthesize.fidelity import fidelity
    from oncontour.synthesize.predict import _of_the_image

    ct = limb()
    inverted = ct.map(lambda hu: np.where(hu > -500, 1.3 - textbook(hu), 0).astype(np.float32))
    assert any("fat is" in text for text in _of_the_image(fidelity(ct, inverted)))


def test_a_browser_shows_the_slice_that_is_chosen_and_blends(result: Path) -> None:
    executable = browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        shown = running.new_page(viewport={"width": 1400, "height": 1000})
        errors: list[str] = []
        shown.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        shown.goto((result / "report.html").as_uri())
        before = shown.get_attribute("#ct", "src")
        shown.evaluate("() => { const s = document.getElementById('slice'); s.value = 0; s.dispatchEvent(new Event('input')); }")
        assert shown.inner_text("#where").startswith("1, z ")
        assert before
        shown.evaluate("() => { const s = document.getElementById('blend'); s.value = 80; s.dispatchEvent(new Event('input')); }")
        assert shown.evaluate("() => document.getElementById('over').style.opacity") == "0.8"
        assert shown.evaluate("() => document.getElementById('edges').naturalWidth") > 30
        assert errors == []
        running.close()
