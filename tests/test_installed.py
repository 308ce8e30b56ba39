"""The wheel, and the image that the Dockerfile makes of it: what a clinic installs, which is not a checkout.

No Docker runs here. The Dockerfile's RUN lines are run one by one, and this differs from an image:

- 'python' and 'oncontour' are those of a fresh virtual environment. Beside pip it holds the distributions that the wheel declares as its
  dependencies, and theirs, linked from the environment of the tests; pip resolves them there, without an index.
- The image's folders /tmp, /var and /home lie in a temporary folder.
- 'useradd' needs root and is left out: the lines run as whoever runs the tests.
- No connection can be made: Python's sockets refuse.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

NO_NETWORK = "import socket\nsocket.socket.connect = socket.getaddrinfo = lambda *a, **k: 1 / 0\n"
FOLDERS = re.compile(r"(?<![\w.-])/(?=tmp|var|home)")
"""Where an absolute folder of the image begins."""


@dataclass(frozen=True)
class Image:
    """What running the Dockerfile without Docker gave: its ``lines`` as (instruction, rest), the folder that stands for /, the environment
    variables, and what each RUN said."""

    lines: list[tuple[str, str]]
    root: Path
    environment: dict[str, str]
    said: dict[str, str]

    def run(self, command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        shell = ["bash", "-euo", "pipefail", "-c", command]
        return subprocess.run(shell, cwd=cwd or self.root, env=self.environment, capture_output=True, text=True, check=False)

    def told(self, instruction: str) -> list[str]:
        return [rest for one, rest in self.lines if one == instruction]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as 'make wheel' does, from a copy (building leaves folders behind), without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."]
    subprocess.run(command, cwd=folder, check=True)
    (found,) = folder.glob("dist/*.whl")
    return found


@pytest.fixture(scope="module")
def image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The Dockerfile run line by line, as said above."""
    root = tmp_path_factory.mktemp("image")
    for name in ("tmp", "home/oncontour", "var/cache", "no-network"):
        (root / name).mkdir(parents=True)
    (root / "no-network" / "sitecustomize.py").write_text(NO_NETWORK)
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
    (site,) = (root / "venv").glob("lib/python*/site-packages")
    for distribution in needed(wheel):
        link(distribution, site)
    environment = {
        **{"PATH": f"{root / 'venv' / 'bin'}:{os.environ['PATH']}", "HOME": str(root / "home/oncontour"), "LANG": "C.UTF-8"},
        **{"PYTHONPATH": str(root / "no-network"), "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"},
    }
    made = Image(instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")), root, environment, {})
    for instruction, rest in made.lines:
        here = FOLDERS.sub(f"{root}/", rest)
        if instruction == "ENV":
            environment.update(re.findall(r"(\w+)=(\S+)", here))
        elif instruction == "COPY":
            source, target = here.split()
            (copied,) = wheel.parent.parent.glob(source)
            shutil.copy(copied, target)
        elif instruction == "RUN" and not rest.startswith("useradd "):
            done = made.run(here)
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
            made.said[rest] = done.stdout
    return made


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in their order."""
    whole = text.replace("\\\n", " ").splitlines()
    lines = [line.strip().partition(" ") for line in whole if line.strip() and not line.startswith("#")]
    return [(instruction, rest.strip()) for instruction, _, rest in lines]


def needed(wheel: Path) -> Iterator[metadata.Distribution]:
    """What the wheel declares that it needs without extras, and what these need, as it is installed here."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(file.read(name).decode())
    left, seen = [(line, frozenset({""})) for line in told.get_all("Requires-Dist", [])], set()
    while left:
        line, extras = left.pop()
        one = Requirement(line)
        if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        known = (canonicalize_name(one.name), frozenset(one.extras))
        if known in seen:
            continue
        seen.add(known)
        distribution = metadata.distribution(one.name)
        yield distribution
        left += [(more, frozenset({"", *one.extras})) for more in distribution.requires or []]


def link(distribution: metadata.Distribution, site: Path) -> None:
    """What a distribution has in its site-packages, in another."""
    for name in {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}:
        if not (site / name).exists():
            (site / name).symlink_to(Path(str(distribution.locate_file(name))))


def test_the_wheel_holds_what_the_checkout_does(wheel: Path) -> None:
    """Each file of the package, also those that are no Python: pages, tables, weights, the mean patient."""
    package = ROOT / "src" / "oncontour"
    there = {
        path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if name.startswith("oncontour/")}
    assert there == held


def test_the_image_is_the_program_alone_and_not_run_as_root(image: Image) -> None:
    assert image.told("FROM") == ["python:3.11-slim"]
    assert image.told("ENTRYPOINT") == ['["oncontour"]']
    order = [one for one, _ in image.lines]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert image.told("USER") == ["oncontour"]
    assert image.told("COPY") == ["dist/oncontour-*.whl /tmp/"]
    assert (ROOT / ".dockerignore").read_text().split() == ["*", "!dist/*.whl"]


def test_what_is_built_is_tried_on_a_patient_without_a_network(image: Image) -> None:
    """The last RUN line contours the mean patient, judges it and its dose by what the wheel brings, and leaves no patient in the image."""
    said = image.said[image.told("RUN")[-1]]
    for words in ("places to look at", "PTV_7000 V93% >= 99 %", "PyTorch is not installed", "The page opens on "):
        assert words in said
    assert list((image.root / "tmp").iterdir()) == []


def test_it_is_the_installed_program_that_runs(image: Image) -> None:
    """And later containers, of whatever user, find what was compiled and may add to it."""
    where = image.run("python -c 'import oncontour; print(oncontour.__file__)'").stdout
    assert Path(where.strip()).is_relative_to(image.root / "venv")
    cache = image.root / "var/cache/oncontour"
    assert list(cache.rglob("*.nbi"))
    assert all(path.stat().st_mode & 0o022 == 0o022 for path in (cache, *cache.rglob("*")))


def test_the_core_is_small(wheel: Path) -> None:
    """What ``pip install`` of the wheel brings, its dependencies among it and no extras: at most 800 MB, no torch."""
    found = {one.metadata["Name"]: one for one in needed(wheel)}
    sizes = {name: sum(size_of(one.locate_file(path)) for path in one.files or []) / 1e6 for name, one in found.items()}
    with zipfile.ZipFile(wheel) as file:
        sizes["oncontour"] = sum(one.file_size for one in file.infolist()) / 1e6
    told = ", ".join(f"{name} {size:.0f}" for name, size in sorted(sizes.items(), key=lambda one: -one[1]) if size >= 10)
    print(f"installed: {sum(sizes.values()):.0f} MB ({told})")  # noqa: T201
    assert sum(sizes.values()) <= 800, told
    assert {"torch", "monai", "lightning", "SimpleITK", "pyarrow", "highdicom"} & set(sizes) == set()


def size_of(path: object) -> int:
    one = Path(str(path))
    return one.stat().st_size if one.is_file() else 0


def test_what_needs_torch_says_so(image: Image) -> None:
    done = image.run(f"oncontour train contour {image.root} --out {image.root}/out")
    assert done.returncode == 2
    assert done.stderr.startswith("oncontour: this needs torch, which is not installed. Way out: pip install 'oncontour[train]'")


def test_the_entry_point_explains_itself(image: Image) -> None:
    (entry,), (words,) = image.told("ENTRYPOINT"), image.told("CMD")
    done = image.run(" ".join(json.loads(entry) + json.loads(words)))
    assert done.returncode == 0
    assert "run" in done.stdout
