"""A cohort on two Ray nodes, a worker and then a node of which are killed, equals one process bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from oncontour.commands.cohort import OneByOne
from oncontour.commands.cohort_spread import spread
from oncontour.commands.cohort_table import Table
from oncontour.commands.run import run
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.errors import ConfigError
from oncontour.learn.task import save_model
from oncontour.many import Many
from tests.clusters import HEAD, OTHER, two_nodes
from tests.commands.cohort_works import Deadly, Noting
from tests.needs import ray
from tests.phantoms import NECK, cohort


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Gives the environment of who may enter."""
    with two_nodes() as entry:
        yield entry


def _figures(out: Path) -> dict[str, object]:
    """What a result is but for times: every mask's bytes, and the record."""
    told = json.loads((out / "report.json").read_text())
    for key in ("created", "timings_s", "peak_memory_mb", "digest"):
        del told[key]
    del told["files"]["report.html"]
    return {"record": told, **{path.name: path.read_bytes() for path in sorted((out / "masks").iterdir())}}


def test_a_worker_and_a_node_killed_change_no_bit(cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    torch.manual_seed(0)
    model = tmp_path / "drawer.safetensors"
    settings = ContourSettings(NECK, net="unet3d", net_options={"widths": (4, 8)}, spacing_mm=(6, 5, 5), window=(16, 24, 24))
    save_model(ContourTask(settings), model)
    people = cohort(tmp_path / "people", 16, shape=(16, 24, 24))
    paths = {one.name: one for one in sorted(people.iterdir())}
    asked = {"model": [str(model)], "any_region": True, "assess": False, "backend": "torch", "threads": 1}

    def work(out: Path) -> OneByOne:
        return OneByOne(run, asked, {"ct_folder": paths}, {id: out / id for id in paths}, "report.json", "")

    spread(work(tmp_path / "one"), tuple(paths), Many(engine="here"), Table(tmp_path / "one"))
    deadly = Deadly(work(tmp_path / "two"), tmp_path, "phantom-002", OTHER)
    became = spread(deadly, tuple(paths), Many(engine="ray"), Table(tmp_path / "two"))
    assert became.failed == {}
    assert became.done == tuple(paths)
    assert (tmp_path / "worker").exists()
    assert (tmp_path / "node").exists()
    assert [_figures(tmp_path / "two" / id) == _figures(tmp_path / "one" / id) for id in paths] == 16 * [True]
    loads: dict[str, int] = {}
    for one in became.outcomes.values():
        loads[one.worker] = loads.get(one.worker, 0) + one.loaded
    assert set(loads.values()) == {1}


def test_one_that_kills_its_worker_is_listed(cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in cluster.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)  # where relative paths begin, on every node
    became = spread(Noting(Path(), {"killer": 99}), ("p1", "killer", "p2"), Many(engine="ray"), Table(tmp_path))
    assert (tmp_path / "p1.txt").exists()
    assert became.done == ("p1", "p2")
    assert "was killed, 3 times" in became.failed["killer"]


def test_no_cluster_is_entered_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray()
    monkeypatch.setenv("RAY_ADDRESS", f"{HEAD}:6399")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="without a token runs anybody's programs"):
        spread(Noting(tmp_path), ("p1",), Many(engine="ray"), Table(tmp_path))
