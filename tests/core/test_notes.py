"""What reading a file remarked: a text that knows what it is about, told of many patients together, by every command that reads."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from oncontour import cli
from oncontour.commands.train import read_cases
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.core.notes import Note, NoteCode, about, all_anonymous, because, code_of, except_about, grouped
from oncontour.io.cohort import Cohort
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.phantom import head_neck
from tests.dicom_cases import make_series
from tests.phantoms import cohort, patient

PASSED_OVER = "passed over: image files in [...]; those of structures are read from masks alone"
EFFECTIVE = Note(NoteCode.DOSE_EFFECTIVE, "dose is weighted")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients; of each somebody's folder of image files is passed over."""
    folder = cohort(tmp_path_factory.mktemp("people"), 3, shape=(24, 40, 40))
    for one in sorted(folder.iterdir()):
        patient(one / "JANE DOE", head_neck(0, (6, 5, 5), 1.0, (4, 4, 4)).without_structures())
    return folder


# ---- the words


def test_a_note_is_its_text_and_knows_its_code() -> None:
    assert (EFFECTIVE, EFFECTIVE.text, str(EFFECTIVE)) == ("dose is weighted",) * 3
    assert type(str(EFFECTIVE)) is str
    assert json.dumps([EFFECTIVE]) == '["dose is weighted"]'
    again = pickle.loads(pickle.dumps(EFFECTIVE))
    assert (again, again.code) == (EFFECTIVE, NoteCode.DOSE_EFFECTIVE)
    assert code_of("DOSE_EFFECTIVE") is code_of("dose is EFFECTIVE") is NoteCode.REMARK


def test_notes_are_told_apart_by_code_alone() -> None:
    notes = ["the dose is EFFECTIVE", EFFECTIVE, Note(NoteCode.DOSE_LEFT_OUT, "another frame")]
    assert about(notes, NoteCode.DOSE_EFFECTIVE) == [EFFECTIVE]
    assert except_about(notes, NoteCode.DOSE_EFFECTIVE) == [notes[0], notes[2]]
    assert because(notes, NoteCode.DOSE_LEFT_OUT, NoteCode.DOSE_EFFECTIVE) == ": dose is weighted; another frame"
    assert because(notes, NoteCode.ANOTHER_PATIENT_ID) == ""


def test_notes_of_many_patients() -> None:
    notes = {"a": ("x", "y"), "b": ("y", "y"), "c": ("y", "z")}
    assert grouped(notes) == ["of 3 patients: y", "of a: x", "of c: z"]
    many = {f"p{n}": (f"note {n}",) for n in range(25)}
    assert len(grouped(many)) == 21
    assert grouped(many)[-1] == "and 5 more remarks on reading the patients"
    assert len(grouped(many, most=None)) == 25


def test_without_what_names_the_patient_a_note_keeps_its_code(tmp_path: Path) -> None:
    (tmp_path / "Doe plan.dcm").write_bytes(b"")
    said = Note(NoteCode.DOSE_LEFT_OUT, f"RTDOSE of MRN4711 left out: Doe plan.dcm in {tmp_path}")
    (shown,) = all_anonymous([said], tmp_path, {"PatientID": "MRN4711"})
    assert shown == "RTDOSE of [...] left out: [...] in [...]"
    assert code_of(shown) is NoteCode.DOSE_LEFT_OUT
    assert all_anonymous(["plain"], tmp_path, {}) == ("plain",)


def test_a_cohort_names_nobody_in_its_notes(tmp_path: Path) -> None:
    make_series(tmp_path / "all" / "one", offsets=(0, 2, 4), patient_id="MRN4711")
    make_series(tmp_path / "all" / "two", offsets=(0, 2, 4), patient_id="MRN4712")
    (tmp_path / "all" / "one" / "phantom MRN4711.pdf").write_bytes(b"%PDF")
    case = Cohort.open(tmp_path / "all")["one"]
    assert case.facts["notes"] == ("passed over: 1 file(s) that are no DICOM",)


# ---- the commands


def test_features_tell_and_record_them(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.csv"
    words = [
        "features",
        str(people),
        "--out",
        str(out),
        "--structures",
        "Bone_Mandible",
        "--families",
        "stat",
        "--images",
        "ct",
        "--jobs",
        "1",
    ]
    for _ in range(2):  # what is finished still says what was remarked of it
        assert cli.main(words) == 0
        assert f"of 3 patients: {PASSED_OVER}" in capsys.readouterr().out
    assert json.loads(out.with_suffix(".settings.json").read_text())["notes"] == [f"of 3 patients: {PASSED_OVER}"]


def test_evaluate_tells_those_of_the_truth_and_of_the_predictions(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = tmp_path / "drawn"
    for id, case in ((id, Cohort.open(people)[id]) for id in Cohort.open(people).ids):
        masks = {"Bone_Mandible": case.mask("Bone_Mandible"), "LeftParotid": case.mask("Parotid_L"), "Parotid_L": case.mask("Parotid_L")}
        patient(drawn / id, case.without_structures().with_masks(masks))
    words = ["evaluate", str(people), "--predictions", str(drawn), "--out", str(tmp_path / "out"), "--overlays", "none", "--engine", "here"]
    assert cli.main([*words, "--structures", "Bone_Mandible"]) == 0
    told, said = capsys.readouterr().out, (tmp_path / "out" / "summary.txt").read_text()
    for text in (told, said):
        assert f"note: of 3 patients: {PASSED_OVER}" in text
        assert "note: of 3 patients: drawn: 'LeftParotid' and 'Parotid_L' both mean Parotid_L" in text
        assert "JANE" not in text


def test_training_tells_and_records_them(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ContourSettings(
        ("Bone_Mandible",), net_options={"widths": (4, 8, 8)}, spacing_mm=(6.0, 5.0, 5.0), window=(16, 16, 16), draws=2
    )
    recipe = TrainSettings(epochs=1, batch=2, validation=0.34, threads=1)
    for _ in range(2):  # the second begins where the first ended: remarks are no other run
        fit(ContourTask(settings), read_cases(Cohort.open(people)), tmp_path / "run", recipe)
        assert f"of 3 patients: {PASSED_OVER}\n" in capsys.readouterr().err
        assert json.loads((tmp_path / "run" / "settings.json").read_text())["notes"] == [f"of 3 patients: {PASSED_OVER}"]
