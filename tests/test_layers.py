"""Imports point downwards, and the crafts stay strangers: the contracts of pyproject.toml hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "oncontour"


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("pydicom", ("io",)),
        ("highdicom", ("io",)),
        ("SimpleITK", ()),
        ("gdcm", ()),
        ("lightning", ("learn/fit.py", "learn/callbacks.py", "reproduce")),
        ("jsonargparse", ("cli.py",)),
        ("jinja2", ("report",)),
        ("pickle", ()),
        ("socket", ()),
        ("urllib", ()),
        ("requests", ()),
    ],
)
def test_a_library_lives_in_one_place(library: str, allowed: tuple[str, ...]) -> None:
    strangers = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if library in _imports(path) and not path.relative_to(SOURCE).as_posix().startswith(allowed or ("none",))
    ]
    assert strangers == []


UNSEEN = {
    "pillow": "pydicom's decoder of baseline JPEG",
    "pyjpegls": "pydicom's decoder of JPEG-LS",
    "pylibjpeg": "pydicom's decoder of JPEG 2000",
    "pylibjpeg-openjpeg": "the library behind it",
    "tensorboard": "Lightning writes training curves with it",
}
"""Needed, though no file of ours imports them."""


def test_what_is_imported_is_declared_and_what_is_declared_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared, optional = (_names(some) for some in (project["dependencies"], project["optional-dependencies"]["onnx"]))
    known = {module: {_plain(name) for name in names} for module, names in packages_distributions().items()}
    imported = set().union(*(_imports(path) for path in SOURCE.rglob("*.py"))) - {"oncontour", *sys.stdlib_module_names}
    assert sorted(module for module in imported if not known.get(module, set()) & (declared | optional)) == []
    used = set().union(*(known[module] for module in imported))
    assert declared - used == set(UNSEEN)
    assert _names((ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()) >= declared


def test_the_lowest_versions_are_the_declared_bounds() -> None:
    """``constraints-lowest.txt``, which the CI installs, has every dependency at the bound that pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines() if "==" in line)
    pinned = {_plain(name): version for name, version in pinned.items()}
    asked = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
    bounds = {_plain(name): bound for name, bound in (re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", one).groups() for one in asked)}
    assert len(bounds) == len(asked)
    assert {name: pinned[name] for name in bounds} == bounds


def _names(requirements: Iterable[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9][\w.-]*", one) for one in requirements)
    return {_plain(one.group()) for one in found if one}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("part", ["metrics", "io", "report", "ops", "dose"])
def test_needs_no_torch(part: str) -> None:
    assert [path.name for path in (SOURCE / part).rglob("*.py") if "torch" in _imports(path)] == []


def _imports(path: Path) -> set[str]:
    """First words of everything a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("import_module", "__import__"):
            found |= {str(word.value).split(".")[0] for word in node.args[:1] if isinstance(word, ast.Constant)}
    return found
