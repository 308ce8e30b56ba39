"""The main job: what a result holds, that it is whole or not there, and that nothing of anybody's is lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset

from oncontour import files, report, result
from oncontour.commands import run as pipeline
from oncontour.commands import run_contours
from oncontour.commands.evaluate import evaluate
from oncontour.commands.predict import predict
from oncontour.commands.train import contour as train_contour
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import anywhere, load_contourer
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import (
    CohortError,
    ConfigError,
    GeometryError,
    IncompleteError,
    InputError,
    ModelError,
    OutputError,
    StructureError,
    TrainingError,
)
from oncontour.evaluate.judge import judge
from oncontour.files import sweep, writing_folder
from oncontour.io import read, write
from oncontour.io.cohort import Cohort
from oncontour.io.dicom.rtstruct import read_rtstruct, write_rtstruct
from oncontour.io.image.nifti import write_image
from oncontour.learn.card import notes as read_notes
from oncontour.learn.card import read_card
from oncontour.learn.task import save_model
from oncontour.many import Many
from oncontour.phantom import head_neck, pelvis
from tests.dicom_cases import make_series
from tests.phantoms import patient

NAMES = ("Bone_Mandible", "Parotid_L", "Parotid_R")


def make_model(path: Path, structures: tuple[str, ...] = NAMES) -> Path:
    """A model that was never trained: it draws something, always the same."""
    torch.manual_seed(1)
    settings = ContourSettings(structures, net_options={"widths": (8, 16, 16)}, spacing_mm=(6.0, 5.0, 5.0), window=(16, 32, 32))
    save_model(ContourTask(settings), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "untrained.safetensors")


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patient(tmp_path_factory.mktemp("patient") / "someone", head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)))


def whole(out: Path) -> bool:
    """Whether ``out`` is a complete result: every file that its record names, with the hash that it says."""
    record = json.loads((out / pipeline.RECORD).read_text())
    return all(hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in record["files"].items())


def run(source: Path, out: Path, model: Path, **settings: object) -> pipeline.Result:
    """Without the assessment, which most of these tests have nothing to do with."""
    chosen = {"assess": False, "backend": "torch", "threads": 1, **settings}
    return pipeline.run(source, out=out, model=[str(model)], **chosen)  # type: ignore[arg-type]


def test_a_result_says_everything_about_itself(nifti: Path, model: Path, tmp_path: Path) -> None:
    told: list[float] = []
    done = run(nifti, tmp_path / "out", model, truth=nifti, progress=told.append)
    out = tmp_path / "out"
    assert whole(out)
    record = json.loads((out / "report.json").read_text())
    assert record["schema"] == result.SCHEMA
    assert [row["name"] for row in record["structures"]] == list(NAMES)
    assert all(0 <= row["dsc"] <= 1 for row in record["structures"])
    (one,) = record["models"]
    assert one["sha256"] == read_card(model).sha256
    assert one["backend"] == "torch"
    assert {"read", "contour", "write", "report", "total"} <= set(record["timings_s"])
    assert record["peak_memory_mb"] > 10
    assert record["versions"]["oncontour"]
    assert any("left aside" in note for note in record["input"]["notes"])
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert "DSC" in str(done)
    assert record["structures"][0]["volume_cc"] == pytest.approx(done.rows[0].volume_cc)


def test_masks_of_a_nifti_ct_come_back_as_nifti_on_its_grid(nifti: Path, model: Path, tmp_path: Path) -> None:
    result = run(nifti, tmp_path / "out", model)
    again = read(tmp_path / "out")
    for name in NAMES:
        assert np.array_equal(again.mask(name, result.case.geometry).array, result.case.mask(name).array)


def test_a_dicom_ct_gets_an_rtstruct_that_holds_what_was_drawn(model: Path, tmp_path: Path) -> None:
    def name_the_patient(dataset: Dataset, _: int) -> None:
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "SECRET^JANE", "MRN4711", "19500102"

    made = make_series(tmp_path / "ct", rows=48, columns=56, spacing_mm=(5.0, 5.0), offsets=tuple(range(0, 24, 3)), change=name_the_patient)
    result = run(tmp_path / "ct", tmp_path / "out", model)
    (tmp_path / "ct" / "rtstruct.dcm").write_bytes((tmp_path / "out" / pipeline.RTSTRUCT).read_bytes())
    again = read(tmp_path / "ct")
    assert again.source.series_uid == made.series_uid
    for row in result.rows:
        assert again.contours[row.name].colour == row.colour
        assert np.array_equal(again.mask(row.name, result.case.geometry).array, result.case.mask(row.name).array)
    for name in (pipeline.RECORD, pipeline.PAGE):
        text = (tmp_path / "out" / name).read_text()
        assert not [word for word in ("SECRET", "MRN4711", "19500102", made.series_uid) if word in text]
    assert b"SECRET" in (tmp_path / "out" / pipeline.RTSTRUCT).read_bytes()


def test_slices_left_empty_between_contours_are_a_warning_of_a_dicom_ct(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", rows=16, columns=16, offsets=tuple(range(0, 24, 3)))
    case = read(tmp_path / "ct")
    sparse = np.zeros(case.geometry.shape, bool)
    sparse[[1, 3, 5], 4:9, 4:9] = True
    case = case.with_masks({"Lens_L": Volume(sparse, case.geometry), "Lens_R": Volume(np.cumsum(sparse, axis=0) > 0, case.geometry)})
    (warning,) = pipeline._empty_between(case, ["Lens_L", "Lens_R"])
    assert warning.endswith("other programs may fill them: Lens_L")
    assert pipeline._empty_between(case, ["Lens_R"]) == []
    assert pipeline._empty_between(replace(case, source=None), ["Lens_L"]) == []


def test_structures_can_be_added_to_an_rtstruct_that_is_there(model: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "ct", rows=48, columns=56, spacing_mm=(5.0, 5.0), offsets=tuple(range(0, 24, 3)))
    first = run(tmp_path / "ct", tmp_path / "first", model, structures=["Parotid_L"])
    second = run(tmp_path / "ct", tmp_path / "second", model, structures=["Parotid_R"], add_to=first.out / pipeline.RTSTRUCT)
    assert set(read_rtstruct(second.out / pipeline.RTSTRUCT)[0]) == {"Parotid_L", "Parotid_R"}
    assert not [text for text in second.record["warnings"] if "is called" in text]


def test_a_structure_that_gets_another_name_beside_one_of_its_own_is_told(model: Path, tmp_path: Path) -> None:
    """On the screen, on the page and in the record: whoever looks for Parotid_L in the new file finds the old one."""
    make_series(tmp_path / "ct", rows=48, columns=56, spacing_mm=(5.0, 5.0), offsets=tuple(range(0, 24, 3)))
    first = run(tmp_path / "ct", tmp_path / "first", model, structures=["Parotid_L"])
    again = run(tmp_path / "ct", tmp_path / "again", model, structures=["Parotid_L"], add_to=first.out / pipeline.RTSTRUCT)
    names = [str(roi.ROIName) for roi in pydicom.dcmread(again.out / pipeline.RTSTRUCT).StructureSetROISequence]
    assert names == ["Parotid_L", "Parotid_L^2"]
    told = "Parotid_L is called Parotid_L^2 in rtstruct.dcm: the RTSTRUCT of --add_to has that name already"
    assert told in json.loads((again.out / pipeline.RECORD).read_text())["warnings"]
    assert told in (again.out / pipeline.PAGE).read_text()
    assert f"warning: {told}" in str(again)


def test_an_rtstruct_that_cannot_be_added_to_is_refused_before_any_work(
    nifti: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "contour", lambda *words, **more: pytest.fail("contoured"))
    make_series(tmp_path / "ct", rows=8, columns=8, offsets=(0, 3), patient_id="one")
    make_series(tmp_path / "other", rows=8, columns=8, offsets=(0, 3), patient_id="two")
    theirs = tmp_path / "theirs.dcm"
    write_rtstruct(
        read(tmp_path / "other").with_masks({"Lens_L": Volume(np.ones((2, 8, 8), bool), read(tmp_path / "other").geometry)}), theirs
    )
    for source, error in ((tmp_path / "ct", StructureError), (nifti, ConfigError)):
        with pytest.raises(error, match=r"different PatientIDs|the CT is no DICOM"):
            run(source, tmp_path / "out", model, add_to=theirs)


def test_a_frame_of_reference_that_a_person_accepts_is_recorded(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    make_series(folder, rows=48, columns=56, spacing_mm=(5.0, 5.0), offsets=tuple(range(0, 24, 3)))
    truth = run(folder, tmp_path / "first", model, structures=["Parotid_L"]).out / pipeline.RTSTRUCT
    for path in folder.iterdir():
        d = pydicom.dcmread(path)
        d.FrameOfReferenceUID = "1.2.3.4"
        d.save_as(path)
    with pytest.raises(StructureError, match="--same_frame"):
        run(folder, tmp_path / "refused", model, truth=truth)
    told = run(folder, tmp_path / "second", model, structures=["Parotid_L"], truth=truth, same_frame=True)
    record = json.loads((told.out / pipeline.RECORD).read_text())
    assert record["settings"]["same_frame"] is True
    assert any("names another frame of reference" in note and "as --same_frame says" in note for note in record["input"]["notes"])
    assert next(row for row in told.rows if row.name == "Parotid_L").dsc == pytest.approx(1, abs=0.02)


def test_two_runs_give_the_same_contours(nifti: Path, model: Path, tmp_path: Path) -> None:
    one, other = (run(nifti, tmp_path / name, model).record for name in ("one", "other"))
    assert one["structures"] == other["structures"]
    masks = [name for name in one["files"] if name != pipeline.PAGE]
    assert [one["files"][name] for name in masks] == [other["files"][name] for name in masks]


def test_only_the_structures_that_were_asked_for(nifti: Path, model: Path, tmp_path: Path) -> None:
    result = run(nifti, tmp_path / "out", model, structures=["Parotid_R"])
    assert [row.name for row in result.rows] == ["Parotid_R"]
    with pytest.raises(ConfigError, match=r"Heart.*Bone_Mandible, Parotid_L, Parotid_R"):
        run(nifti, tmp_path / "other", model, structures=["Heart"])
    assert not (tmp_path / "other").exists()


def test_several_models_the_first_that_offers_a_structure_draws_it(nifti: Path, model: Path, tmp_path: Path) -> None:
    second = make_model(tmp_path / "second.safetensors", ("Parotid_L", "Larynx"))
    result = pipeline.run(nifti, out=tmp_path / "out", model=[str(model), str(second)], backend="torch", threads=1)
    assert [row.name for row in result.rows] == [*NAMES, "Larynx"]
    drew = [one for one in result.record["models"] if one["task"] == "contour"]
    assert [one["structures"] for one in drew] == [list(NAMES), ["Larynx"]]


def test_what_a_model_does_not_say_of_itself_is_a_warning(nifti: Path) -> None:
    """Somebody else's net that does not say which way its voxels run may swap left and right: that belongs where people look."""
    model = {"name": "theirs", "sha256": "0", "structures": ["Parotid_L"], "notes": ["the model does not say which way its voxels run"]}
    record = result.record(read(nifti), [], [model], {}, [])
    assert record["warnings"] == ["theirs: the model does not say which way its voxels run"]


def test_no_result_names_the_patient(nifti: Path, model: Path, tmp_path: Path) -> None:
    """Not even where the file's name does, which the reader's remark repeats."""
    named = tmp_path / "DOE^JANE 19500102.nii.gz"
    named.write_bytes((nifti / "ct.nii.gz").read_bytes())
    result = run(named, tmp_path / "out", model)
    assert result.record["input"]["notes"] == ["[...] is taken as a CT in HU"]
    for name in (pipeline.RECORD, pipeline.PAGE):
        assert "DOE^JANE" not in (tmp_path / "out" / name).read_text()
    assert result.record["case"].startswith("P-")


def test_without_a_model_the_region_decides_or_a_sentence_says_what_there_is(tmp_path: Path) -> None:
    grid = Geometry.regular((20, 40, 40), (5, 5, 5))
    nothing = Case("air", {"ct": Volume(np.full(grid.shape, -1000, np.int16), grid)})
    with pytest.raises(ModelError, match=r"no shipped model is made for this CT.*with both --model hn-organs and --any_region$"):
        run_contours.default_model(nothing)


def test_what_was_remarked_of_the_truth_is_told(nifti: Path, model: Path, tmp_path: Path) -> None:
    truth = patient(tmp_path / "Truth of Jane", head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)))
    mask = read(truth).mask("Parotid_L")
    (truth / "segmentations").mkdir()
    write_image(mask, truth / "segmentations" / "Parotid_L.nii.gz")
    notes = run(nifti, tmp_path / "out", model, truth=truth).record["input"]["notes"]
    assert [note for note in notes if "to compare with" in note] == [
        "Of the contours to compare with: passed over: image files in segmentations; those of structures are read from masks alone"
    ]


# ---- what a model was made for


def head_model(path: Path, region: str = "head and neck") -> Path:
    """An untrained model whose card says that it is for heads and necks, or for another ``region``."""
    torch.manual_seed(1)
    settings = ContourSettings(NAMES, net_options={"widths": (8, 16, 16)}, spacing_mm=(6.0, 5.0, 5.0), window=(16, 32, 32))
    task = ContourTask(settings)
    save_model(task, path, replace(task.card(), name="heads", region=region))
    return path


def test_a_ct_of_another_part_of_the_body_is_refused_unless_any_will_do(tmp_path: Path) -> None:
    heads = head_model(tmp_path / "heads.safetensors")
    here = patient(tmp_path / "someone", pelvis(1, (6, 5, 5), 1.0))
    with pytest.raises(InputError, match=r"this CT shows abdomen and pelvis .*heads was made for head and neck.*--any_region") as refused:
        run(here, tmp_path / "out", heads)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    done = run(here, tmp_path / "out", heads, any_region=True)
    words = "Drawn on a CT that the model was not made for: it shows abdomen and pelvis, and heads is for head and neck."
    assert done.record["warnings"][0] == words
    assert done.record["banner"] == words
    assert str(done).startswith(words + "\n")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.split("<body>")[1].lstrip().startswith(f'<p class="banner" role="alert">{words}</p>')
    assert page.count(words) == 3  # on top, and on each of the two sheets to be signed
    assert "structures were found" not in page


def test_the_record_says_that_there_are_no_ranges_for_this_part_of_the_body(tmp_path: Path) -> None:
    here = patient(tmp_path / "someone", pelvis(1, (6, 5, 5), 1.0))
    done = run(here, tmp_path / "out", make_model(tmp_path / "any.safetensors"), assess=True)
    words = "Usual volume and position: not known here. They were measured in CTs of head and neck, and this one shows abdomen and pelvis."
    assert words in done.record["assess"]["unchecked"]
    assert words in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_other_commands_leave_out_who_shows_another_part_of_the_body(tmp_path: Path) -> None:
    """evaluate and predict go on with the others, name the one, and draw all the same where they are told to."""
    heads = head_model(tmp_path / "heads.safetensors")
    cohort = tmp_path / "cohort"
    patient(cohort / "head", head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)))
    patient(cohort / "pelvis", replace(pelvis(1, (6, 5, 5), 1.0), id="pelvis"))
    (failed,) = judge(Cohort.open(cohort), {"heads": load_contourer(heads)}, look=False).failures
    assert failed.patient == "pelvis"
    assert "this CT shows abdomen and pelvis" in failed.reason
    assert not judge(Cohort.open(cohort), {"heads": anywhere(load_contourer(heads))}, look=False).failures
    with pytest.raises(IncompleteError, match="not drawn: pelvis by heads"):
        predict(cohort, model=[str(heads)], out=tmp_path / "out", seen=True, many=Many(engine="here"))
    assert [path.name for path in (tmp_path / "out" / "heads").glob("[!.]*") if path.is_dir()] == ["head"]
    words = "heads drew on CTs of another part of the body than it was made for: pelvis (abdomen and pelvis)"
    told = predict(cohort, model=[str(heads)], out=tmp_path / "all", seen=True, any_region=True, many=Many(engine="here"))
    assert "2 of 2 patients drawn" in told
    assert words in told.splitlines()
    told = evaluate(cohort, out=tmp_path / "judged", model=[str(heads)], overlays="none", any_region=True, many=Many(engine="here"))
    assert f"note: {words}" in told.splitlines()
    assert f"note: {words}" in (tmp_path / "judged" / "summary.txt").read_text(encoding="utf-8").splitlines()


def test_where_all_show_another_part_of_the_body_the_way_out_is_that_of_the_refusal(tmp_path: Path) -> None:
    heads = head_model(tmp_path / "heads.safetensors")
    patient(tmp_path / "cohort" / "pelvis", replace(pelvis(1, (6, 5, 5), 1.0), id="pelvis"))
    with pytest.raises(CohortError, match="none of 1 patients could be judged; the first: pelvis: this CT shows abdomen") as caught:
        evaluate(tmp_path / "cohort", out=tmp_path / "out", model=[str(heads)], many=Many(engine="here"))
    assert "--any_region" in caught.value.hint
    assert "contours of their own" not in caught.value.hint


@pytest.mark.parametrize("words", ["Head, neck", "H&N", "head-and-neck (adult)"])
def test_a_region_in_other_words_guards_as_well(words: str, tmp_path: Path) -> None:
    heads = head_model(tmp_path / "heads.safetensors", words)
    here = patient(tmp_path / "someone", pelvis(1, (6, 5, 5), 1.0))
    with pytest.raises(InputError, match="this CT shows abdomen and pelvis"):
        run(here, tmp_path / "out", heads)
    assert read_notes(read_card(heads)) == []


UNCHECKED = (
    "Made for 'spine', which is none of the regions that are known (head and neck, thorax, abdomen and pelvis, limb): "
    "it is not checked whether a CT shows it."
)


def test_words_that_name_no_region_are_warned_of(nifti: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CT can not be checked for them: a run says so, and a training before it begins."""
    done = run(nifti, tmp_path / "out", head_model(tmp_path / "spine.safetensors", "spine"))
    assert f"heads: {UNCHECKED}" in done.record["warnings"]
    assert f"warning: heads: {UNCHECKED}" in str(done)
    patient(tmp_path / "cohort" / "someone", head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)))
    settings = ContourSettings(("Nowhere",), net_options={"widths": (8, 16)}, spacing_mm=(6.0, 5.0, 5.0), window=(16, 32, 32))
    for region, told in (("spine", [f"warning: --region: {UNCHECKED}"]), ("Thorax", []), ("", [])):
        with pytest.raises(TrainingError):
            train_contour(tmp_path / "cohort", out=tmp_path / f"run{region}", settings=settings, region=region)
        assert [line for line in capsys.readouterr().err.splitlines() if "--region" in line] == told


def test_where_the_region_cannot_be_told_the_first_warning_says_so(tmp_path: Path) -> None:
    heads = head_model(tmp_path / "heads.safetensors")
    grid = Geometry.regular((16, 32, 32), (6, 5, 5))
    water = np.full(grid.shape, -1000, np.int16)
    water[:, 8:24, 8:24] = 0
    write_image(Volume(water, grid), tmp_path / "water" / "ct.nii.gz")
    done = run(tmp_path / "water", tmp_path / "out", heads)
    assert done.record["warnings"][0] == (
        "Which part of the body the CT shows cannot be told (hardly any bone); heads is for head and neck."
    )
    assert "banner" not in done.record


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"model": ["hn-organ"]}, ModelError, r"no model 'hn-organ'.*did you mean hn-organs\?.*there is: hn-organs$"),
        ({"structures": ["Parotid_Lx"]}, ConfigError, r"no model draws Parotid_Lx.*did you mean Parotid_L\?"),
        ({"model": ["hn-organs"], "structures": ["Brainstm"]}, ConfigError, r"no model draws Brainstm.*did you mean Brainstem\?"),
        (
            {"quality": "hn-qualty"},
            ModelError,
            r"no model 'hn-qualty'.*did you mean hn-quality\?.*there is: hn-quality$",
        ),
        (
            {"risk": "esophagitis"},
            ModelError,
            r"no model 'esophagitis'.*did you mean esophagitis-simulated\?.*there is: esophagitis-simulated$",
        ),
        ({"model": ["hn-quality"]}, ModelError, "this model does 'assess', not contours"),
    ],
)
def test_what_was_mistyped_is_told_before_anything_is_read(
    tmp_path: Path, wrong: dict[str, object], error: type[Exception], words: str
) -> None:
    """What lies in the folder is no CT at all: nobody has looked yet."""
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "1.dcm").write_bytes(b"no CT")
    with pytest.raises(error, match=words):
        pipeline.run(tmp_path / "ct", out=tmp_path / "out", backend="torch", threads=1, **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_models_to_choose_from_draw_contours(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"shows: abdomen and pelvis .*shipped models: hn-organs \["):
        run_contours.default_model(pelvis(1))


def test_a_structure_that_was_not_found_comes_first(nifti: Path, model: Path, tmp_path: Path) -> None:
    """In a box of water the untrained net draws what it draws; one that it does not find is named before what it drew."""
    rows = [
        {"name": "Larynx", "slices": 0, "volume_cc": 0.0},
        {"name": "Brainstem", "slices": 9, "volume_cc": 20.0},
    ]
    told = {"structures": rows, "models": [{"task": "contour"}], "input": {"modality": "CT"}}
    assert report._sentence(told) == "Not found on this CT by one model: Larynx. 1 of 2 structures were contoured."
    assert report._sentence({**told, "structures": rows[1:]}) == "1 structure was contoured on this CT by one model."


def test_a_wrong_side_stands_first_among_the_warnings(nifti: Path, tmp_path: Path) -> None:
    """Masks of the two parotids changed for each other: twice told by the rules, and not once more by the table."""
    came = read(nifti)
    swapped = {"Parotid_L": came.mask("Parotid_R"), "Parotid_R": came.mask("Parotid_L"), "Bone_Mandible": came.mask("Bone_Mandible")}
    case = came.without_structures().with_masks(swapped)
    judged, models = run_contours.judge(case, None, [])
    models = [{"name": "theirs", "sha256": "0", "structures": [], "notes": ["says nothing of axes"]}, *models]
    warnings = result.record(judged, report.rows(judged), models, {}, [])["warnings"]
    assert [text.split(" lies ")[0] for text in warnings[:2]] == ["Parotid_L", "Parotid_R"]
    assert all("by its name it belongs to the" in text for text in warnings[:2])
    assert warnings.index("theirs: says nothing of axes") >= 2
    assert not any("may be swapped" in text for text in warnings)


# ---- what was there


def test_an_earlier_result_stays_unless_it_may_be_replaced(nifti: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(nifti, out, model)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="--overwrite"):
        run(nifti, out, model)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    run(nifti, out, model, structures=["Parotid_L"], overwrite=True)
    assert whole(out)
    assert sorted(path.name for path in (out / pipeline.MASKS).iterdir()) == ["Parotid_L.nii.gz"]


def test_what_is_no_result_is_never_replaced(nifti: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"chapter1\.tex"):
        run(nifti, out, model, overwrite=True)
    with pytest.raises(OutputError, match="the CT itself"):
        run(nifti, nifti, model, overwrite=True)
    with pytest.raises(OutputError, match="the CT itself"):
        run(nifti, nifti.parent, model, overwrite=True)
    with pytest.raises(OutputError, match="a file"):
        run(nifti, out / "chapter1.tex", model, overwrite=True)
    assert (out / "chapter1.tex").read_text() == "years of work"
    earlier = tmp_path / "earlier" / "masks"
    earlier.mkdir(parents=True)
    (earlier / "Parotid_L.nii.gz").write_bytes(b"an earlier result")
    (earlier / "corrected by hand").mkdir()
    with pytest.raises(OutputError, match="masks/corrected by hand"):
        run(nifti, tmp_path / "earlier", model, overwrite=True)
    assert sorted(path.name for path in earlier.iterdir()) == ["Parotid_L.nii.gz", "corrected by hand"]
    assert (nifti / "ct.nii.gz").exists()


def test_no_result_lies_where_the_next_run_would_read_it(nifti: Path, model: Path, tmp_path: Path) -> None:
    """Else the draft would be the newest structure set there, before the planner's, and the truth of the next run."""
    series = tmp_path / "series"
    make_series(series)
    before = sorted(series.rglob("*"))
    with pytest.raises(OutputError, match=r"within the folder of the CT.*beside"):
        run(series, series / "out", model)
    with pytest.raises(OutputError, match="within the folder of the contours to compare with"):
        run(nifti / "ct.nii.gz", series / "below" / "out", model, truth=series)
    assert sorted(series.rglob("*")) == before


def test_of_a_patient_in_image_files_the_result_may_lie_beside_the_images(model: Path, tmp_path: Path) -> None:
    """Nothing of it is read the next time."""
    case = head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))
    here = patient(tmp_path / "someone", case)
    before = read(here)
    assert whole(run(here, here / "out", model, assess=False).out)
    again = read(here)
    assert again.structures == before.structures
    assert again.facts["notes"] == before.facts["notes"]


def test_a_result_goes_where_a_link_leads(nifti: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    (tmp_path / "new").symlink_to(tmp_path / "not there yet")
    for name, target in (("out", "large disk"), ("new", "not there yet")):
        run(nifti, tmp_path / name, model)
        assert (tmp_path / name).is_symlink()
        assert whole(tmp_path / target)
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(OutputError, match="round to itself"):
        run(nifti, tmp_path / "round", model)


def test_names_of_files_that_are_no_kind_of_file_stay_home(nifti: Path, model: Path, tmp_path: Path) -> None:
    """A structure set of other images, called by the patient in Latin-1, is left aside; one called by its kind is named."""
    write(read(nifti), tmp_path / "ct")
    write(read(nifti), tmp_path / "other")
    content = (tmp_path / "other" / "RTSTRUCT.dcm").read_bytes()
    (tmp_path / "ct" / "RS.2.dcm").write_bytes(content)
    try:
        (tmp_path / "ct" / os.fsdecode(b"M\xfcller, Li.dcm")).write_bytes(content)
    except OSError:
        (tmp_path / "ct" / "Müller, Li.dcm").write_bytes(content)
    done = run(tmp_path / "ct", tmp_path / "out", model)
    (note,) = (note for note in done.record["input"]["notes"] if "other images" in note)
    assert sorted(note.partition("left out: ")[2].split(", ")) == ["RS.2.dcm", "[...]"]
    assert whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "shown"), [("Mueller_Hans", "[...]"), (os.fsdecode(b"M\xfcller"), "[...]"), ("segmentations", "segmentations")]
)
def test_names_of_folders_that_are_no_kind_of_folder_stay_home(tmp_path: Path, name: str, shown: str) -> None:
    case = head_neck(0, (9, 7, 7), 1.0, (16, 32, 32))
    here = patient(tmp_path / "someone", case)
    try:
        (here / name).mkdir()
    except OSError:
        pytest.skip("this disk takes no such name")
    write_image(case.mask("Parotid_L"), here / name / "Parotid_L.nii.gz")
    (note,) = read(here).facts["notes"]
    told = result.anonymous(note, here, read(here))
    assert told == f"passed over: image files in {shown}; those of structures are read from masks alone"


def test_masks_of_names_alike_are_all_there(nifti: Path, tmp_path: Path) -> None:
    two = make_model(tmp_path / "two.safetensors", ("GTV/1", "GTV_1"))
    run(nifti, tmp_path / "out", two)
    assert sorted(path.name for path in (tmp_path / "out" / pipeline.MASKS).iterdir()) == ["GTV_1.nii.gz", "GTV_1^2.nii.gz"]


def test_a_folder_without_ct_or_truth_is_refused(nifti: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        run(tmp_path / "nowhere", tmp_path / "out", model)
    only = tmp_path / "only"
    only.mkdir()
    (only / "mr.nii.gz").write_bytes((nifti / "dose.nii.gz").read_bytes())
    with pytest.raises(InputError, match="no CT is here, only mr"):
        run(only, tmp_path / "out", model)
    flat = read(nifti).ct
    write_image(flat.to(flat.geometry.crop((5, 0, 0), (6, 48, 48))), tmp_path / "flat" / "ct.nii.gz")
    with pytest.raises(InputError, match=r"CT of 1 slice.*2 or more"):
        run(tmp_path / "flat", tmp_path / "out", model)
    with pytest.raises(InputError, match="no contours to compare with"):
        run(nifti, tmp_path / "out", model, truth=only)
    assert not (tmp_path / "out").exists()


def test_the_truth_may_be_an_rtstruct_alone_but_only_one_of_these_images(nifti: Path, model: Path, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        write(read(nifti), tmp_path / name)
        (tmp_path / f"truth of {name}").mkdir()
        (tmp_path / name / "RTSTRUCT.dcm").rename(tmp_path / f"truth of {name}" / "RTSTRUCT.dcm")
    result = run(tmp_path / "ours", tmp_path / "out", model, truth=tmp_path / "truth of ours")
    assert all(row.dsc is not None for row in result.rows)
    for truth in (tmp_path / "truth of theirs", tmp_path / "truth of theirs" / "RTSTRUCT.dcm"):
        with pytest.raises(StructureError, match="frame of reference"):
            run(tmp_path / "ours", tmp_path / "again", model, truth=truth)


def test_masks_of_other_voxels_are_no_truth_of_this_ct(nifti: Path, model: Path, tmp_path: Path) -> None:
    """12 mm aside by its header: refused with both places, before anything is contoured."""
    mask = read(nifti).mask("Parotid_L")
    grid = mask.geometry
    x, y, z = grid.origin_mm
    aside = Geometry.regular(grid.shape, grid.spacing_mm, (x + 12, y, z), grid.axes)
    write_image(Volume(mask.array, aside), tmp_path / "truth" / "Parotid_L.nii.gz")
    with pytest.raises(GeometryError, match=r"voxels lie up to 12 mm apart.*the first at .* instead of .*truth"):
        run(nifti, tmp_path / "out", model, truth=tmp_path / "truth")
    assert not (tmp_path / "out").exists()


# ---- kill -9


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from oncontour.commands import run as pipeline
from tests.commands.test_pipeline import run, whole
source, out, model = map(Path, sys.argv[1:])
draw = random.Random(0)
run(source, out.parent.parent / "warm", model)  # imports and compiled loops are ready before the first fork
started = time.perf_counter()
run(source, out.parent.parent / "timed", model)
one = time.perf_counter() - started
seen = {"absent": 0, "whole": 0}
for turn in range(9):
    child = os.fork()
    if child == 0:
        try:
            while True:
                run(source, out, model, overwrite=True)
        finally:
            os._exit(1)
    time.sleep(one * (draw.uniform(0.4, 2.6) if turn else 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen["whole" if out.exists() else "absent"] += 1
    assert not out.exists() or whole(out), sorted(map(str, out.rglob("*")))
assert min(seen.values()) >= 1, f"the first was killed too early for a result, one of the others after its first: {seen}"
run(source, out, model, overwrite=True)
assert whole(out) and os.listdir(out.parent) == [out.name], os.listdir(out.parent)
"""


def test_kill_9_leaves_a_whole_result_or_none(model: Path, tmp_path: Path) -> None:
    """Nine runs over one OUT, each killed somewhere; the next one clears what they left."""
    small = patient(tmp_path / "small", head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))
    command = [sys.executable, "-c", KILLS, str(small), str(tmp_path / "results" / "out"), str(model)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def test_folders_are_swapped_whole_where_the_system_has_no_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    for text in ("first", "second"):
        with writing_folder(tmp_path / "out") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_swap_that_was_killed_between_its_two_steps_is_undone(tmp_path: Path) -> None:
    old = tmp_path / ".out.abc.old" / "was"
    old.mkdir(parents=True)
    (old / "precious").write_text("still here")
    sweep(tmp_path / "out")
    assert (tmp_path / "out" / "precious").read_text() == "still here"
    assert os.listdir(tmp_path) == ["out"]


def test_sweeping_leaves_a_living_writer_alone(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "out") as folder:
        sweep(tmp_path / "out")
        assert folder.exists()
        (folder / "a").write_text("a")
    assert (tmp_path / "out" / "a").exists()
