"""How torch's threads wait for each other is said before torch is loaded, and not over what somebody asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAYS = "import os, sys; {imports}; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize("imports", ["import oncontour.adapt", "from oncontour.commands import demo"])
@pytest.mark.parametrize(
    ("asked", "told"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")], ids=str
)
def test_threads_do_not_turn_for_long(imports: str, asked: dict[str, str], told: str) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", SAYS.format(imports=imports)]
    ended = subprocess.run(command, env=plain | asked, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", told]
