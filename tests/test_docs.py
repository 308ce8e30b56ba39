"""The documentation is true: every file is on the map, every command, module, task and net is named, every shown command runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs import write_map, write_notebook

from oncontour.cli import COMMANDS
from oncontour.io.dicom import elements, encapsulated, scan
from oncontour.learn import TASKS
from oncontour.nets import NETS

ROOT = Path(__file__).parents[1]
MAP = ROOT / "docs" / "map.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_file_is_on_the_map_and_nothing_else() -> None:
    """``python docs/write_map.py`` brings it up to date."""
    on_map = re.findall(r"^- `([^`]+)`: \S", MAP.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(write_map.files()) == sorted(on_map)


def test_the_map_says_of_a_file_what_the_file_says_of_itself() -> None:
    lines = dict(write_map.LINE.findall(MAP.read_text(encoding="utf-8")))
    stale = {name: lines[name] for name in lines if (own := write_map.first_sentence(name)) and lines[name] != own}
    assert stale == {}, "python docs/write_map.py brings it up to date"


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"`oncontour {name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*TASKS, *NETS])
def test_every_task_and_net_is_named_in_the_docs(name: str) -> None:
    assert any(f"`{name}`" in page.read_text(encoding="utf-8") for page in PAGES)


def test_the_conformance_statement_names_every_sop_class_and_transfer_syntax() -> None:
    statement = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    known = [*scan.IMAGE_CLASSES, *scan.OBJECT_CLASSES, *elements.NATIVE, *encapsulated.ENCAPSULATED]
    assert [uid for uid in known if not re.search(rf"{re.escape(uid)}(?![\d.])", statement)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


SHOWN = re.compile(r"(?:^ *(?:\$ )?|(?<=`))(oncontour [^\n`]+(?:\n[^\n`]+(?=`))?)", re.MULTILINE)
"""A command in a line of its own, or between backticks, which may go on in the next line."""


def shown(page: Path) -> list[str]:
    return [" ".join(command.split()) for command in SHOWN.findall(page.read_text(encoding="utf-8"))]


def test_pages_show_commands() -> None:
    """As many at least as there are commands: else the pattern finds nothing, and the next test looks at nothing."""
    assert sum(len(shown(page)) for page in PAGES) >= len(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_exist(page: Path) -> None:
    """Every ``oncontour ...`` that a page shows names a command, and options that it has."""
    from oncontour import cli

    for line in shown(page):
        words = line.split("#")[0].split()[1:]
        if words[0].isupper() or words[0].startswith("-"):
            continue
        name = cli.find_command(words)
        if name is None and len(words) == 1:  # "oncontour train" stands for all that begin so
            continue
        assert name, line
        options = {option for action in cli.parser_of(name)._actions for option in action.option_strings}
        unknown = [word.split("=")[0] for word in words if word.startswith("--") and word.split("=")[0] not in options]
        assert unknown == [], line


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```bash runnable" in page.read_text(encoding="utf-8")], ids=lambda page: page.name
)
def test_runnable_blocks_run(page: Path, tmp_path: Path) -> None:
    """Blocks marked ``bash runnable`` run from top to bottom in one empty folder, each ending with exit code 0."""
    blocks = re.findall(r"^```bash runnable\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "TMPDIR": str(tmp_path),
    }
    folder = tmp_path / "work"
    folder.mkdir()
    for block in blocks:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{block}\n{ended.stdout}\n{ended.stderr}"


def test_the_cells_of_the_notebook_run_and_show_what_they_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python docs/write_notebook.py`` keeps what they show."""
    monkeypatch.chdir(tmp_path)
    kept = json.loads(write_notebook.NOTEBOOK.read_text(encoding="utf-8"))
    done = write_notebook.run(kept)
    said = [[one for cell in book["cells"] for one in cell.get("outputs", [])] for book in (kept, done)]
    assert [one["output_type"] for one in said[1]] == [one["output_type"] for one in said[0]]
    assert said[1][0]["data"]["text/plain"] == said[0][0]["data"]["text/plain"]


def test_what_was_measured_names_the_commit_it_was_measured_at() -> None:
    """Every section of bench/results.md, and each commit is one that this history has."""
    sections = (ROOT / "bench" / "results.md").read_text(encoding="utf-8").split("\n## ")[1:]
    commits = [re.match(r"[\w-]+\n\nCommit (\w{7,}), \d{4}-\d\d-\d\d\.\n", section) for section in sections]
    assert sections
    assert [section.split("\n")[0] for section, commit in zip(sections, commits, strict=True) if commit is None] == []
    shallow = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True, check=False)
    if shallow.stdout.strip() != "false":
        pytest.skip("no whole git history here: an archive of the sources, or a shallow clone")
    for commit in {found.group(1) for found in commits if found}:
        known = subprocess.run(["git", "merge-base", "--is-ancestor", commit, "HEAD"], cwd=ROOT, capture_output=True, check=False)
        assert known.returncode == 0, commit
