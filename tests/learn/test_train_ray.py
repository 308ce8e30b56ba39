"""Trained by Ray Train on two nodes: the model, card and curve of two processes without it; what goes wrong is told in the same words."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oncontour.cli import main
from oncontour.learn.card import checked_card
from oncontour.learn.task import load_task
from tests.clusters import two_nodes
from tests.needs import ray_train
from tests.phantoms import cohort


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Gives the environment of who may enter."""
    ray_train()
    with two_nodes("127.0.0.4", "127.0.0.5") as entry:
        yield entry


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("people") / "people", 3, shape=(16, 24, 24))


def words(people: str, out: str, *more: str) -> list[str]:
    net = ["--settings.net_options", '{"widths": [4, 8]}', "--settings.window", "[8,16,16]", "--settings.spacing_mm", "[6,5,5]"]
    task = ["--settings.structures", '["Bone_Mandible"]', "--settings.draws", "8", *net]
    recipe = ["--training.batch", "2", "--training.threads", "1", "--training.validation", "0.34", "--epochs", "2"]
    return ["train", "contour", people, "--out", out, *task, *recipe, *more]


def curve(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_ray_workers_train_the_model_of_two_processes(
    cluster: dict[str, str], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(people.parent)  # relative paths lead from here, on every node
    out = os.path.relpath(tmp_path / "ray")
    assert main(words("people", out, "--devices", "2", "--engine", "ray")) == 0
    told = capfd.readouterr()
    assert "trained in" in told.out
    assert [line.split("  ")[0] for line in told.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    command = [sys.executable, "-m", "oncontour.cli", *words(str(people), str(tmp_path / "ddp"), "--devices", "2")]
    subprocess.run(command, check=True, capture_output=True)
    ours, theirs = (load_task(tmp_path / run / "model.safetensors").net.state_dict() for run in ("ray", "ddp"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert curve(tmp_path / "ray") == curve(tmp_path / "ddp")
    card, other = (checked_card(tmp_path / run / "model.safetensors") for run in ("ray", "ddp"))
    assert card == replace(other, file_sha256=card.file_sha256)
    assert card.made["training"]["devices"] == 2
    assert sorted(path.name for path in (tmp_path / "ray").iterdir()) == sorted(path.name for path in (tmp_path / "ddp").iterdir())


def test_what_a_worker_refuses_is_told_in_its_words(
    cluster: dict[str, str], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    out = tmp_path / "out"
    assert main(words(str(people), str(out), "--settings.structures", '["Nothing"]', "--engine", "ray")) == 4
    told = capfd.readouterr().err
    assert told.startswith("oncontour: no case has anything to learn from")
    assert told.count("\n") == 1
    assert not out.exists()
    assert main(words(str(people), str(out), "--training.nodes", "3", "--engine", "ray")) == 2
    assert "3 workers of 1 CPU are to train together, and the nodes of the Ray cluster hold 2" in capfd.readouterr().err
    assert main(words(str(people), str(out), "--training.accelerator", "gpu", "--engine", "ray")) == 2
    assert "1 worker of 1 CPU and 1 GPU are to train together, and the nodes of the Ray cluster hold 0" in capfd.readouterr().err


def test_no_cluster_is_trained_on_that_nobody_names(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(words(str(people), str(tmp_path / "out"), "--engine", "ray")) == 2
    told = capsys.readouterr().err
    assert "ray" in told.lower()
    assert "Way out" in told
    assert not (tmp_path / "out").exists()
