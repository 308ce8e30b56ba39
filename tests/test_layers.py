"""Imports point downwards, and the crafts stay strangers: the contracts of pyproject.toml hold."""

from __future__ import annotations

import ast
import subprocess
import sys
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
        ("SimpleITK", ("io", "ops/align.py")),
        ("lightning", ("train.py", "reproduce")),
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
    return found
