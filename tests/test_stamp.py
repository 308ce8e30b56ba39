"""An evaluation's figures in a card: the numbers of the table, the same weights, and no figures of something else."""

import pytest
import torch

from oncontour.card import checked_card
from oncontour.cli import main
from oncontour.errors import InputError
from oncontour.evaluate.stamp import figures, stamp
from oncontour.tasks.contour import ContourSettings, ContourTask
from oncontour.tasks.task import load_task, save_model
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
    assert main(words) == 0
    return folder


def test_the_card_holds_the_table_and_the_weights_stay(judged, capsys):
    out = judged / "stamped.safetensors"
    words = ["stamp", str(judged / "tiny.safetensors"), str(judged / "out"), "--out", str(out), "--tested_on", "two phantoms"]
    assert main([*words, "--limits", "a trial"]) == 0
    before, after = checked_card(judged / "tiny.safetensors"), checked_card(out)
    assert after.sha256 == before.sha256, "the same weights have the same hash"
    assert after.metrics["tested_on"] == "two phantoms"
    assert after.metrics["DSC"] == figures(judged / "out" / "summary.csv", "tiny")
    assert after.limits == "a trial"
    a, b = (load_task(path).net.state_dict() for path in (judged / "tiny.safetensors", out))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert out.name in capsys.readouterr().out


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
