"""A Ray cluster of two nodes on this machine, for tests."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.needs import ray

ROOT = Path(__file__).parents[1]
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
PATIENT = {"RAY_gcs_server_port_wait_time_s": "120", "RAY_worker_register_timeout_seconds": "300", "RAY_health_check_timeout_ms": "60000"}
"""A machine with much else to do: a process is long in starting, and one that does not answer at once is not dead."""
NODE = ("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block")


@contextmanager
def two_nodes(one: str = HEAD, two: str = OTHER) -> Iterator[dict[str, str]]:
    """Two nodes on loopback with a token, while this lasts; gives the environment of who may enter. Clusters that may be there at the same
    time have addresses of their own."""
    command, port = ray(), _free_port(one)
    entry = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_ADDRESS": f"{one}:{port}"}
    environment = {
        **os.environ,
        **entry,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
        "RAY_USAGE_STATS_ENABLED": "0",
    } | PATIENT
    del environment["RAY_ADDRESS"]
    head = [command, "start", "--head", f"--node-ip-address={one}", f"--port={port}", "--include-dashboard=false", *NODE]
    other = [command, "start", f"--address={one}:{port}", f"--node-ip-address={two}", *NODE]
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


def _free_port(address: str) -> int:
    """Below 10002: Ray's workers have those above. Ray takes a port on all addresses: those of two clusters begin apart."""
    first = 6000 + 100 * int(address.rpartition(".")[2])
    for port in range(first, first + 100):
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
