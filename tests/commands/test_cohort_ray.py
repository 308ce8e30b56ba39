"""A cohort on two Ray nodes, a worker and then a node of which are killed, equals one process bit for bit."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
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
from tests.commands.cohort_works import Deadly, Noting
from tests.needs import ray
from tests.phantoms import NECK, cohort

ROOT = Path(__file__).parents[2]
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
PATIENT = {"RAY_gcs_server_port_wait_time_s": "120", "RAY_worker_register_timeout_seconds": "300", "RAY_health_check_timeout_ms": "60000"}
"""A machine with much else to do: a process is long in starting, and one that does not answer at once is not dead."""
NODE = ("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block")


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Two nodes on loopback with a token; gives the environment of who may enter."""
    command, port = ray(), _free_port()
    entry = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_ADDRESS": f"{HEAD}:{port}"}
    environment = {
        **os.environ,
        **entry,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "RAY_USAGE_STATS_ENABLED": "0",
    } | PATIENT
    del environment["RAY_ADDRESS"]
    head = [command, "start", "--head", f"--node-ip-address={HEAD}", f"--port={port}", "--include-dashboard=false", *NODE]
    other = [command, "start", f"--address={HEAD}:{port}", f"--node-ip-address={OTHER}", *NODE]
    nodes: list[subprocess.Popen[str]] = []
    try:
        for words in (head, other):
            assert any(_has_started(words, environment, nodes) for _ in range(3))
        yield entry
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def _has_started(words: list[str], environment: dict[str, str], nodes: list[subprocess.Popen[str]]) -> bool:
    """Whether a node that is started now comes to life: Ray itself gives it up after 30 s, which no setting changes."""
    node = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert node.stdout is not None
    if any("runtime started" in line for line in node.stdout):
        nodes.append(node)
        return True
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()
    return False


def _free_port() -> int:
    """Below 10002: Ray's workers have those above."""
    for port in range(6400, 7400):
        with socket.socket() as one:
            try:
                one.bind((HEAD, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


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
    became = spread(Noting(tmp_path, {"killer": 99}), ("p1", "killer", "p2"), Many(engine="ray"), Table(tmp_path))
    assert became.done == ("p1", "p2")
    assert "was killed, 3 times" in became.failed["killer"]


def test_no_cluster_is_entered_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray()
    monkeypatch.setenv("RAY_ADDRESS", f"{HEAD}:6399")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="without a token runs anybody's programs"):
        spread(Noting(tmp_path), ("p1",), Many(engine="ray"), Table(tmp_path))
