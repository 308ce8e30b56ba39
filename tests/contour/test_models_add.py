"""``oncontour models add``: other people's nnU-Nets taken over once, and archives that would do harm refused.

The models are those of ``test_external``, made by hand so that what they must draw is known. What the real nnU-Net makes is tried in
``bench/nnunet.py``.
"""

from __future__ import annotations

import csv
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from oncontour.cli import find_command, main
from oncontour.commands.models_add import add
from oncontour.contour.external import archive
from oncontour.contour.external.base import load_tensors
from oncontour.contour.external.load import load_foreign
from oncontour.contour.external.totalsegmentator import tg263_of_classes, weights_of
from oncontour.contour.predict import load_contourer
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, LimitError, ModelError, OutputError
from oncontour.io.names import to_tg263
from oncontour.learn.added import added, models_folder
from oncontour.learn.card import find
from tests.contour.test_external import GRID, balls, check, nnunet_folder

TOTAL_FAST = "Dataset297_TotalSegmentator_total_3mm_1559subj"


@pytest.fixture
def case() -> Case:
    left, right = balls()
    return Case("drawn", {"ct": Volume(np.where(left, 250, np.where(right, -250, 0)).astype(np.int16), GRID)})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "oncontour" / "models"


def zipped(folder: Path, out: Path, *, inside: str = "") -> Path:
    """``folder`` as nnU-Net packs it: DATASET/TRAINER__PLANS__CONFIGURATION/..., deflated, with files that nobody needs."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(path, Path(inside) / folder.name / path.relative_to(folder))
        file.writestr(f"{inside}/{folder.name}/fold_0/progress.png", b"a picture")
        file.writestr(f"{inside}/{folder.name}/crossval_results_folds_0/postprocessing.pkl", b"a pickle")
    return out


def test_a_folder_is_taken_over_and_draws_the_same_by_its_name(tmp_path: Path, home: Path, case: Case) -> None:
    folder = nnunet_folder(tmp_path, changes={"dataset_name": "Dataset101_Neck"})
    done = add(folder)
    assert done.folder == home / "neck"
    assert done.named
    assert sorted(str(p.relative_to(done.folder)) for p in done.folder.rglob("*") if p.is_file()) == [
        "dataset.json",
        "fold_0/weights.safetensors",
        "oncontour.json",
        "plans.json",
    ], "no pickle is left"
    assert not [p for p in home.iterdir() if p.name.startswith(".")], "nothing is left of the work"
    assert added() == {"neck": done.folder}
    before, after = load_foreign(folder, backend="torch").predict(case), load_contourer("neck", backend="torch").predict(case)
    check(after, case)
    for name in before.masks:
        assert np.array_equal(before.masks[name].array, after.masks[name].array)
    assert after.segmentation is not None
    assert after.segmentation.model == "neck"


def test_a_zip_as_nnunet_exports_it_draws_from_the_command_line(
    tmp_path: Path, home: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    from oncontour.io import write
    from oncontour.io.image.nifti import read_image

    packed = zipped(nnunet_folder(tmp_path, changes={"dataset_name": "Dataset101_Neck"}), tmp_path / "x.zip", inside="Dataset101_Neck")
    assert main(["models", "add", str(packed), "--name", "ours"]) == 0
    said = capsys.readouterr().out
    assert str(home / "ours") in said
    assert "--model ours" in said
    assert "commission it before use" in said
    write(case, tmp_path / "case", format="nifti")
    assert main(["run", str(tmp_path / "case"), "--out", str(tmp_path / "out"), "--model", "ours", "--assess", "false"]) == 0
    left, _ = balls()
    drawn = read_image(tmp_path / "out" / "masks" / "Parotid_L.nii.gz").array > 0
    assert 2 * (drawn & left).sum() / (drawn.sum() + left.sum()) > 0.95


def test_weights_of_totalsegmentator_need_nothing_said(tmp_path: Path, home: Path, case: Case) -> None:
    """Its images are in RAS, its classes have names of TG-263, its licence is known; the model is called as the task is."""
    folder = nnunet_folder(tmp_path, axes=None, changes={"dataset_name": TOTAL_FAST})
    dataset = json.loads((folder / "dataset.json").read_text())
    labels = {"background": 0, "lung_upper_lobe_left": 1, "vertebrae_L5": 2}
    (folder / "dataset.json").write_text(json.dumps({**dataset, "labels": labels}))
    done = add(zipped(folder, tmp_path / f"{TOTAL_FAST}.zip", inside=TOTAL_FAST))
    assert done.name == "total_fast"
    assert done.structures == ("Lung_LUL", "vertebrae_L5")
    assert "open for any use" in done.licence
    model = load_foreign(done.folder, backend="torch").model
    assert model.prepare(case).geometry.axes.tolist() == [[0, 0, 1], [0, -1, 0], [-1, 0, 0]], "superior, anterior, right"
    assert model.labels == ("lung_upper_lobe_left", "vertebrae_L5")
    assert "Wasserthal" in model.card.data


def test_the_table_of_classes_is_whole_and_says_nothing_twice() -> None:
    """TotalSegmentator 2 has 117 classes in its task total, 2 in body; a name of TG-263 that our own table knows is the same one there."""
    from importlib import resources

    text = resources.files("oncontour.contour.external").joinpath("totalsegmentator.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len({row["class"] for row in rows}) == len(rows) == 117 + 2
    assert all(bool(row["name"]) != bool(row["remark"]) for row in rows)
    names = tg263_of_classes()
    assert len(set(names.values())) == len(names)
    assert [row["class"] for row in rows if to_tg263(row["class"]) not in (None, row["name"])] == []
    for row in rows:
        for word, side in (("left", "L"), ("right", "R")):
            if word in row["class"] and row["name"]:
                assert row["name"].endswith(f"_{side}") or row["name"].startswith(f"Lung_{side}"), row


def test_a_task_of_totalsegmentator_that_is_not_known_is_told() -> None:
    found = weights_of(["", "Dataset836_TotalSegmentator_new_1subj"])
    assert found is not None
    assert found.name == "totalsegmentator_new_1subj"
    assert "crop or mask" in found.remark
    assert "licence" in found.licence
    assert weights_of(["Dataset101_Neck"]) is None


def test_a_model_that_does_not_say_which_side_is_left_needs_axes(tmp_path: Path, home: Path) -> None:
    folder = nnunet_folder(tmp_path, axes=None, changes={"dataset_name": "Dataset101_Neck", "image_reader_writer": "SimpleITKIO"})
    with pytest.raises(ModelError, match=r"left could be right.*--axes"):
        add(folder)
    assert added() == {}
    assert add(folder, axes="SPL").structures == ("Parotid_L", "Parotid_R")
    assert json.loads((home / "neck" / "oncontour.json").read_text())["axes"] == "SPL"


def test_names_that_are_taken_and_models_that_are_several(tmp_path: Path, home: Path) -> None:
    folder = nnunet_folder(tmp_path, changes={"dataset_name": "Dataset101_Neck"})
    add(folder)
    with pytest.raises(OutputError, match=r"'neck' is there already"):
        add(folder)
    assert add(folder, overwrite=True).name == "neck"
    assert add(folder, to=tmp_path / "models").named is False
    with pytest.raises(ModelError, match="shipped model"):
        add(folder, name="hn-organs")
    for name in ("../neck", ".neck", "a/b", ""):
        with pytest.raises(ModelError, match="letters, digits"):
            add(folder, name=name or " ")
    (tmp_path / "both").mkdir()
    nnunet_folder(tmp_path / "both"), nnunet_folder(tmp_path / "both", dims=2)
    with pytest.raises(ModelError, match=r"2 models are here, of 2d, 3d_fullres.*--configuration"):
        add(tmp_path / "both")
    assert add(tmp_path / "both", configuration="2d", name="flat").name == "flat"
    with pytest.raises(ModelError, match="no trained nnU-Net v2"):
        add(tmp_path / "models" / "neck" / "fold_0")


def test_a_model_is_found_by_its_name_but_a_shipped_one_and_a_file_come_first(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("neck", "hn-organs"):
        (home / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neck").mkdir()
    assert find("neck") == home / "neck", "a folder of contours that the model drew does not hide it"
    assert find("hn-organs").suffix == ".safetensors"
    with pytest.raises(ModelError, match=r"did you mean neck\?"):
        find("nekc", "contour")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert models_folder() == Path.home() / ".local/share/oncontour/models"


def test_a_command_of_two_words_is_not_taken_for_the_one_of_its_first() -> None:
    assert find_command(["models", "add", "x.zip"]) == "models add"


# ---- archives that would do harm


def spoiled(tmp_path: Path, name: str, *, mode: int = 0o100644) -> Path:
    path = tmp_path / "spoiled.zip"
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(entry, "{}")
    return path


@pytest.mark.parametrize("name", ["../plans.json", "a/../../plans.json", "/tmp/plans.json", "C:/plans.json", "..\\plans.json"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, home: Path, name: str) -> None:
    with pytest.raises(FormatError, match="leads out of the folder"):
        add(spoiled(tmp_path, name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "spoiled.zip"]
    assert not any(home.iterdir())


def test_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="leads out of the folder"):
        add(spoiled(tmp_path, "m/plans.json", mode=stat.S_IFLNK | 0o777))


def test_a_giant_archive_is_refused_before_it_is_unpacked(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 2**20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/fold_0/checkpoint_final.pth", bytes(2**20 + 1))
    assert path.stat().st_size < 5000
    with pytest.raises(LimitError, match="unpacks to"):
        add(path)
    assert not any(home.iterdir())


@pytest.mark.parametrize("content", [b"no zip", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_of_a_model_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    with pytest.raises((FormatError, ModelError)) as caught:
        add(path)
    assert len(str(caught.value).splitlines()) == 1


def test_packed_tensors_are_refused_as_they_could_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"network_weights": {"a": torch.zeros(100)}}, path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert load_tensors(path)
    with pytest.raises(ModelError, match="packed"):
        load_tensors(packed)


def test_damaged_converted_weights_are_refused_in_a_sentence(tmp_path: Path) -> None:
    done = add(nnunet_folder(tmp_path, changes={"dataset_name": "Dataset101_Neck"}))
    path = done.folder / "fold_0" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="weights cannot be read") as caught:
        load_foreign(done.folder)
    assert "models add" in str(caught.value)


def test_what_was_added_is_listed_and_told_of(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(nnunet_folder(tmp_path, changes={"dataset_name": "Dataset101_Neck"}))
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert "hn-organs: contour" in listed
    assert "neck: contour, added" in listed
    assert main(["info", "neck"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("neck: contour")
    assert "Parotid_L" in told
    assert "commission it before use" in told
    (home / "neck" / "plans.json").unlink()
    assert main(["models", "list"]) == 0
    assert "neck: added, and cannot be used" in capsys.readouterr().out


def test_what_a_killed_one_unpacked_goes_as_the_next_begins(tmp_path: Path, home: Path) -> None:
    (home / ".unpacked.k1ll3d.part" / "Dataset101_Neck").mkdir(parents=True)
    packed = zipped(nnunet_folder(tmp_path, changes={"dataset_name": "Dataset101_Neck"}), tmp_path / "x.zip", inside="Dataset101_Neck")
    add(packed)
    assert [p.name for p in home.iterdir()] == ["neck"]
