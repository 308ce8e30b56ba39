"""An evaluation's figures in a card: the numbers of the table, the same weights, and no figures of something else."""

import pytest
import torch

from oncontour.cli import main
from oncontour.commands.stamp import figures, stamp
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.errors import InputError
from oncontour.learn.card import checked_card
from oncontour.learn.task import load_task, save_model
from tests.phantoms import cohort

SETTINGS = ContourSettings(
    structures=("Bone_Mandible", "Brainstem"), net_options={"widths": (4, 8)}, spacing_mm=(6.0, 5.0, 5.0), window=(16, 24, 24)
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A model, and what evaluating it left."""
    folder = tmp_path_factory.mktemp("judged")
    torch.manual_seed(0)
    save_model(ContourTask(SETTINGS), folder / "tiny.safetensors")
    patients = cohort(folder / "patients", 2)
    words = ["evaluate", str(patients), "--model", str(folder / "tiny.safetensors"), "--out", str(folder / "out"), "--overlays", "none"]
    assert main([*words, "--engine", "here"]) == 0
    return folder


def test_the_card_holds_the_table_and_the_weights_stay(judged, capsys):
    out = judged / "stamped.safetensors"
    words = ["stamp", str(judged / "tiny.safetensors"), str(judged / "out"), "--out", str(out), "--tested_on", "two phantoms"]
    assert main([*words, "--limits", "a trial"]) == 0
    before, after = checked_card(judged / "tiny.safetensors"), checked_card(out)
    assert after.sha256 == before.sha256, "the same weights have the same hash"
    assert after.metrics["tested_on"] == "two phantoms"
    assert f"tiny,{before.sha256}" in (judged / "out" / "methods.csv").read_text()
    assert after.metrics["DSC"] == figures(judged / "out" / "summary.csv", "tiny")
    assert after.limits == "a trial"
    a, b = (load_task(path).net.state_dict() for path in (judged / "tiny.safetensors", out))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert out.name in capsys.readouterr().out


def test_figures_of_other_weights_are_not_stamped(judged, tmp_path):
    """Two runs leave two files of one name: the second is "tiny-2" in the evaluation, and a third was not judged at all."""
    for name, seed in (("second", 1), ("third", 2)):
        torch.manual_seed(seed)
        save_model(ContourTask(SETTINGS), tmp_path / name / "tiny.safetensors")
    rows = ["tiny,DSC,Brainstem,2,0.8,0.7,0.9,0", "tiny-2,DSC,Brainstem,2,0.5,0.4,0.6,0"]
    (tmp_path / "summary.csv").write_text("\n".join(["method,metric,structure,n,mean,low,high,missed", *rows]) + "\n")
    judged_weights = {"tiny": judged / "tiny.safetensors", "tiny-2": tmp_path / "second" / "tiny.safetensors"}
    told = [f"{name},{checked_card(path).sha256}" for name, path in judged_weights.items()]
    (tmp_path / "methods.csv").write_text("\n".join(["method,sha256", *told]) + "\n")
    stamp(str(tmp_path / "second" / "tiny.safetensors"), tmp_path, out=tmp_path / "x.safetensors", tested_on="two phantoms")
    assert checked_card(tmp_path / "x.safetensors").metrics["DSC"]["Brainstem"]["mean"] == 0.5
    with pytest.raises(InputError, match="not the weights"):
        stamp(str(tmp_path / "third" / "tiny.safetensors"), tmp_path, out=tmp_path / "y.safetensors", tested_on="two phantoms")
    assert not (tmp_path / "y.safetensors").exists()


def test_the_mean_of_structures_by_pencil(tmp_path):
    rows = ["a,DSC,4,0.8,0.7,0.9,0", "b,DSC,2,0.5,0.4,0.6,1", "a,HD,4,3,2,4,0", "all,DSC,4,0.7,0.6,0.8,0"]
    text = "method,structure,metric,n,mean,low,high,missed\n" + "".join(f"m,{row}\n" for row in rows)
    (tmp_path / "summary.csv").write_text(text)
    found = figures(tmp_path / "summary.csv", "m")
    assert found["mean_of_structures"] == 0.65
    assert found["b"] == {"mean": 0.5, "interval_95": [0.4, 0.6], "patients": 2, "missed": 1}
    with pytest.raises(InputError, match="judged no 'other'"):
        figures(tmp_path / "summary.csv", "other")


def test_a_folder_that_is_no_evaluation(judged, tmp_path):
    with pytest.raises(InputError, match=r"summary\.csv"):
        stamp(str(judged / "tiny.safetensors"), tmp_path, out=tmp_path / "x.safetensors", tested_on="nobody")
    assert not (tmp_path / "x.safetensors").exists()
