"""The commands: assess anybody's contours, draw a cohort with several models, calibrate on one's own patients; and what they refuse."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oncontour import cli
from oncontour.arguments import parse
from oncontour.commands import run as pipeline
from oncontour.commands.assess import assess, read
from oncontour.commands.calibrate import calibrate, observe_cohort
from oncontour.commands.predict import confidences, predict
from oncontour.commands.train import _no_bound
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.errors import CohortError, ConfigError, GeometryError, InputError, ModelError, OutputError, TrainingError
from oncontour.io.cohort import Cohort
from oncontour.io.image.nifti import write_image
from oncontour.learn.card import Card, find, read_card
from oncontour.learn.fit import fit
from oncontour.learn.task import save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.many import Many
from oncontour.phantom import head_neck
from oncontour.quality.calibrate import after_training
from oncontour.quality.inputs import AssessSettings
from oncontour.quality.predict import load_assessor
from oncontour.quality.segmenters import contours_about, sources, with_candidates
from oncontour.quality.task import AssessTask
from tests.phantoms import cohort, patient

NAMES = ("Bone_Mandible", "Parotid_L", "Parotid_R")
SHAPE = {"spacing_mm": (6, 5, 5), "shape": (32, 48, 48)}
TINY = AssessSettings(
    NAMES,
    net_options={"width": 16, "depth": 1, "stem": (4, 8, 8)},
    spacing_mm=(6, 5, 5),
    window=(32, 32),
    variants=2,
    draws=32,
    coverage=0.5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four patients to learn from and two new ones, a quality model, a contour model and what it draws in strangers."""
    out = tmp_path_factory.mktemp("quality")
    cohort(out / "known", 4, **SHAPE)
    cohort(out / "new", 2, seed=20, **SHAPE)
    known = Cohort.open(out / "known")
    task = ContourTask(
        ContourSettings(
            NAMES,
            net="unet",
            net_options={"base": 4, "levels": 3},
            window=(1, 48, 48),
            spacing_mm=(6, 5, 5),
            draws=16,
            mask_body=False,
            threshold=0.001,
        )
    )
    recipe = TrainSettings(epochs=2, batch=8, learning_rate=5e-3, validation=0, threads=1)
    fit(task, [known[id] for id in known.ids[:2]], out / "seg", recipe, name="seg", snapshots=[1])
    predict(
        out / "known",
        out=out / "claims",
        model=[str(out / "seg" / "seg.safetensors")],
        hu_shift=[0, 80],
        backend="torch",
        many=Many(engine="here"),
    )
    quality = TrainSettings(epochs=1, batch=8, validation=0.5, threads=1)
    cases = with_candidates((known[id] for id in known.ids), [out / "claims"])
    fit(AssessTask(TINY), list(cases), out / "quality", quality, name="quality", region="head and neck", finish=after_training)
    return out


def model(folder: Path) -> str:
    return str(folder / "quality" / "quality.safetensors")


def test_a_half_trained_model_is_kept_and_knows_its_patients(folder):
    early = read_card(folder / "seg" / "seg-epoch1.safetensors")
    assert early.made["trained_on"] == ["phantom-000", "phantom-001"]
    assert early.sha256 != read_card(folder / "seg" / "seg.safetensors").sha256


def test_only_strangers_are_drawn(folder):
    assert sorted(p.name for p in (folder / "claims").iterdir()) == ["seg", "seg+80HU"]
    drawn = Cohort.open(folder / "claims" / "seg")
    assert drawn.ids == ("phantom-002", "phantom-003")
    assert set(drawn["phantom-002"].masks) == set(NAMES)
    case = drawn["phantom-002"]
    sure = confidences(folder / "claims" / "seg")
    for name in NAMES:
        slices = np.flatnonzero(case.mask(name).array.any(axis=(1, 2)))
        assert {k for patient, structure, k in sure if (patient, structure) == ("phantom-002", name)} == set(slices.tolist())
    assert sure
    assert all(0 < p <= 1 for p in sure.values())
    text = predict(
        folder / "known", out=folder / "claims", model=[str(folder / "seg" / "seg.safetensors")], backend="torch", many=Many(engine="here")
    )
    assert text == "seg: 2 of 4 patients drawn, 2 left out as it learned from them"


def test_a_model_that_does_not_say_whom_it_knows_draws_only_when_told(folder, tmp_path):
    card = read_card(folder / "seg" / "seg.safetensors")
    from oncontour.learn.task import load_task

    path = tmp_path / "silent.safetensors"
    save_model(load_task(folder / "seg" / "seg.safetensors"), path, replace(card, made={}))
    with pytest.raises(ModelError, match="does not say which patients"):
        predict(folder / "new", out=tmp_path / "a", model=[str(path)])
    assert "2 of 2" in predict(folder / "new", out=tmp_path / "a", model=[str(path)], seen=True, backend="torch", many=Many(engine="here"))
    with pytest.raises(ConfigError, match="one name"):
        predict(folder / "new", out=tmp_path / "a", model=[str(path), str(path)], seen=True)


def test_claims_meet_their_patient(folder):
    known = Cohort.open(folder / "known")
    found = contours_about(known["phantom-002"], sources([folder / "claims"]))
    assert set(found) == {"seg", "seg+80HU"}
    assert found["seg"]["Parotid_L"].geometry.same_grid(known["phantom-002"].geometry)
    assert contours_about(known["phantom-000"], sources([folder / "claims"])) == {}
    with pytest.raises(CohortError, match="no such folder"):
        sources([folder / "nowhere"])
    with pytest.raises(CohortError, match="two segmenters"):
        sources([folder / "claims", folder / "claims"])


def test_assess_writes_scores_page_and_record(folder, tmp_path, capsys):
    new = folder / "new" / "phantom-020"
    words = ["assess", str(new), str(new), "--out", str(tmp_path / "out"), "--model", model(folder), "--structures", "Parotid_L,Brainstem"]
    assert cli.main([*words, "--backend", "torch"]) == 0
    told = capsys.readouterr().out
    assert "not made for Brainstem" in told
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open(encoding="utf-8")))
    held = np.flatnonzero(Cohort.open(folder / "new")["phantom-020"].mask("Parotid_L").array.any(axis=(1, 2)))
    assert len([r for r in rows if r["structure"] == "Parotid_L" and r["dsc"]]) >= len(held)
    record = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert record["assess"]["model"] == "quality"
    assert set(record["assess"]["structures"]) == {"Parotid_L", "Brainstem"}
    assert record["models"][0]["sha256"] == read_card(model(folder)).sha256
    assert "Parotid_L" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert cli.main(words) == OutputError.exit_code
    assert "a result already" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0


def test_without_a_model_the_rules_alone_are_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("oncontour.learn.card.WEIGHTS", tmp_path / "none")
    new = folder / "new" / "phantom-020"
    done = assess(new, new, out=tmp_path / "out")
    assert all(not one.scored for one in done.case.assessment.structures.values())
    assert "No quality model" in str(done)


def test_what_assess_refuses(folder, tmp_path):
    new = folder / "new" / "phantom-020"
    with pytest.raises(InputError, match="no such"):
        assess(new, tmp_path / "nothing", out=tmp_path / "out")
    bare = patient(tmp_path / "bare", head_neck(1, (6, 5, 5), 1.0, (32, 48, 48)).without_structures())
    with pytest.raises(InputError, match="no contours"):
        assess(new, bare, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="no contour of Rectum"):
        assess(new, new, out=tmp_path / "out", structures=["Rectum"])
    with pytest.raises(ModelError, match="not contour quality"):
        assess(new, new, out=tmp_path / "out", model="hn-organs")
    with pytest.raises(OutputError, match="made from"):
        assess(new, new, out=new)
    case = Cohort.open(folder / "new")["phantom-020"]
    shifted = case.mask("Parotid_L").geometry.crop((1, 0, 0), (32, 48, 48))
    write_image(case.mask("Parotid_L").to(shifted), tmp_path / "other" / "masks" / "Parotid_L.nii.gz")
    with pytest.raises(GeometryError, match="lies on"):
        read(new, tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_a_patient_whom_the_model_would_refuse_calibrates_nothing(folder, tmp_path):
    case = Cohort.open(folder / "new")["phantom-020"]
    patient(tmp_path / "all" / "good", case)
    patient(tmp_path / "all" / "strange", case.with_images({"ct": case.ct.map(lambda hu: np.maximum(hu, -100))}))
    assessor = load_assessor(model(folder), backend="torch", threads=1)
    observed, notes = observe_cohort(assessor, Cohort.open(tmp_path / "all"), [], [str(folder / "seg" / "seg.safetensors")])
    assert {key[0] for key in observed.features} == {"good"}
    assert [note.partition("(")[0] for note in notes] == ["strange was left out: The values of the image "]


def test_calibrate_writes_a_model_with_a_new_bound(folder, tmp_path, capsys):
    out = tmp_path / "ours.safetensors"
    for id in ("phantom-020", "phantom-021"):
        case = Cohort.open(folder / "new")[id]
        for name in NAMES:
            off = case.mask(name).map(lambda m: np.roll(m, 1, axis=2))
            write_image(off, tmp_path / "claims" / "clinic" / id / "masks" / f"{name}.nii.gz")
        write_image(off, tmp_path / "claims" / "clinic" / id / "masks" / "LeftParotid.nii.gz")
    words = ["calibrate", model(folder), str(folder / "new"), "--claims", str(tmp_path / "claims"), "--out", str(out), "--coverage", "0.6"]
    assert cli.main([*words, "--method", "pooled", "--backend", "torch"]) == 0
    told = capsys.readouterr().out
    assert "2 patients" in told
    assert "of 2 patients: contours of clinic: 'LeftParotid' and 'Parotid_L' both mean Parotid_L" in told
    made = read_card(out).made["calibration"]
    assert (made["patients"], made["coverage"], made["method"]) == (2, 0.6, "pooled")
    assert read_card(out).name == "quality-calibrated"
    before = out.read_bytes()
    for mine in (out, Path(model(folder))):
        with pytest.raises(OutputError, match="a model already"):
            calibrate(model(folder), folder / "new", out=mine, claims=[tmp_path / "claims"], backend="torch")
    assert out.read_bytes() == before
    out = tmp_path / "other.safetensors"
    with pytest.raises(TrainingError, match="too few"):
        calibrate(model(folder), folder / "new", out=out, claims=[tmp_path / "claims"], backend="torch")
    with pytest.raises(InputError, match="learned from"):
        calibrate(model(folder), folder / "known", out=out, claims=[folder / "claims"], backend="torch")
    with pytest.raises(ConfigError, match="safetensors"):
        calibrate(model(folder), folder / "new", out=tmp_path / "x.bin", claims=[tmp_path / "claims"])


def test_train_assess_from_the_command_line(folder, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "settings:\n  structures: [Parotid_L]\n  spacing_mm: [6, 5, 5]\n  window: [32, 32]\n  variants: 2\n  draws: 8\n"
        "  net_options: {width: 16, depth: 1, stem: [4, 8, 8]}\ntraining: {epochs: 1, batch: 8, threads: 1}\n"
    )
    out = tmp_path / "run"
    words = ["train", "assess", str(folder / "known"), "--claims", str(folder / "claims"), "--out", str(out), "--config", str(config)]
    assert cli.main(words) == 0
    card = read_card(out / "model.safetensors")
    assert (card.task, card.structures) == ("assess", ["Parotid_L"])


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        ({"offsets": {"all": 0.1}, "patients": 35}, ""),
        ({"inputs": {"mask": {"offsets": {"all": 0.1}, "patients": 35}}}, ""),
        ({"inputs": {"mask": {"offsets": {}, "patients": 3}, "own": {"offsets": {}, "patients": 2}}}, "no lower bound: 3 patients"),
        ({"inputs": {}}, "no lower bound: 0 patients"),
        ({"offsets": {}, "patients": 3}, "no lower bound: 3 patients"),
    ],
)
def test_training_says_where_a_model_has_no_bound(calibration, says):
    card = Card("q", "assess", {"coverage": 0.9}, made={"calibration": calibration})
    told = " ".join(_no_bound(card))
    assert says in told
    assert bool(told) == bool(says)


def test_the_example_is_settings_of_this_version_and_of_the_shipped_model():
    parser = cli.parser_of("train assess")
    root = Path(__file__).parents[2]
    parsed = parse(parser, ["C", "--out", "O", "--config", str(root / "examples" / "hn-quality.yaml")], "train assess")
    settings, card = parsed["settings"], read_card(find("hn-quality"))
    kept = (
        "own",
        "opinion",
        "channel_dropout",
        "structures",
        "heads",
        "held_out_families",
        "variants",
        "generated",
        "flat",
        "draws",
        "net",
    )
    wanted = {key: list(v) if isinstance(v := getattr(settings, key), tuple) else v for key in kept}
    assert {key: card.settings[key] for key in kept} == wanted
    assert {key: card.made["training"][key] for key in ("epochs", "batch", "precision")} == {
        "epochs": 36,
        "batch": 32,
        "precision": "bfloat16",
    }
    assert (card.name, card.limits, card.data, card.licence) == ("hn-quality", *(parsed[word] for word in ("limits", "data", "licence")))
    assert "Esophagus" not in AssessTask(settings).settings.structures, "no segmenter that it learned from draws one"


# ---- real patients


@pytest.mark.parametrize(
    ("place", "shows"), [("dicom/LUNG1-001", "thorax"), ("pelvis-abdomen-ct", "abdomen"), ("lung-ct-pair/3DCT_lung_baseline.mha", "thorax")]
)
def test_a_real_chest_and_a_real_pelvis_are_refused_by_name(folder, data, place, shows):
    from oncontour.io import read as read_case
    from oncontour.quality.predict import refusal

    why, _ = refusal(read_case(data / place), read_card(model(folder)))
    assert why is not None
    assert f"another part of the body, {shows}" in why


def test_a_stranger_s_contours_get_a_reference_and_hn_organs_own_do_not(data, tmp_path):
    """The planner's contours of a validation patient, then what hn-organs draws there; the shipped model is told what it is given."""
    patient = data / "openkbp" / "validation" / "pt_202"
    theirs = assess(patient, patient, out=tmp_path / "theirs", threads=1).record
    assert theirs["assess"]["model"] == "hn-quality"
    asked = theirs["assess"]["opinion"]
    assert (asked["model"], asked["sha256"], asked["drew"]) == ("hn-organs", read_card(find("hn-organs")).sha256, False)
    assert "calibrated_with" not in asked, "the bound was made with the hn-organs that is shipped"
    rated = {name: one for name, one in theirs["assess"]["structures"].items() if one["scored"]}
    assert {name: one["inputs"] for name, one in rated.items()} == {n: "mask" if n == "PTV_7000" else "reference" for n in rated}
    scored = [line for one in rated.values() for line in one["slices"] if line["dsc"]]
    assert len(scored) > 50
    assert all(0 <= line["lower"] <= line["dsc"] for line in scored)
    assert all(line["wrong_cm2"] <= line["wrong_upper_cm2"] and line["surface_mm"] <= line["surface_upper_mm"] for line in scored)
    assert "Reference model" in (tmp_path / "theirs" / "report.html").read_text(encoding="utf-8")
    run = pipeline.run(patient, out=tmp_path / "drawn", threads=1)
    sure = run.record["assess"]
    assert (sure["model"], sure["opinion"], sure["refused"]) == ("hn-quality", None, None)
    assert {one["inputs"] for one in sure["structures"].values() if one["scored"]} == {"own"}
    unsaid = {name: one["why"] for name, one in sure["structures"].items() if not one["scored"] and one["why"] != "It has no contour."}
    assert unsaid == {"Esophagus": "The quality model hn-quality was not made for Esophagus."}
    own = assess(patient, run.out / "masks", out=tmp_path / "own", threads=1).record
    assert own["assess"]["opinion"] is None, "what hn-organs drew is not held against hn-organs"
    assert {one["inputs"] for one in own["assess"]["structures"].values() if one["scored"]} == {"mask"}


def test_what_must_have_a_reference_is_not_calibrated_on_that_model_s_own_work(folder, tmp_path):
    torch.manual_seed(0)
    asks = AssessTask(AssessSettings(("Parotid_L",), opinion="hn-organs"))
    save_model(asks, tmp_path / "asks.safetensors")
    with pytest.raises(ConfigError, match="judges what others drew"):
        calibrate(str(tmp_path / "asks.safetensors"), folder / "new", out=tmp_path / "m.safetensors", threads=1)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_real_head_and_neck_is_not_refused(folder, data):
    from oncontour.quality.predict import refusal

    case = Cohort.open(data / "openkbp" / "validation")["pt_201"]
    assert refusal(case, read_card(model(folder))) == (None, "head_neck")
