"""Bring docs/map.md up to date: of each file its own first sentence, else the line that the map has; none for files that are gone.

python docs/write_map.py
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAP = ROOT / "docs" / "map.md"
FOLDERS = ("src/oncontour", "bench", "examples", "papers", "docs")
TOP = (
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "Dockerfile",
    "pyproject.toml",
    "constraints.txt",
    ".ci/run",
)
USUAL = {
    ".safetensors": "a shipped model; `oncontour info` prints its card",
    "published.csv": "the paper's own table, with page",
    "measured.csv": "ours, number by number",
}
"""Ending of a name -> its line, for files that cannot speak for themselves."""
LINE = re.compile(r"^- `([^`]+)`: (.+)$", re.MULTILINE)


def files() -> list[str]:
    """Every file that has a line on the map (tests mirror src and speak for themselves)."""
    found = {path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    kept = (p for p in found if not any(part.startswith((".", "__pycache__")) for part in p.parts))
    return sorted([*TOP, *(path.as_posix() for path in kept)])


def first_sentence(name: str) -> str:
    """What a file says of itself: the first sentence of its docstring or of the comment on top."""
    path = ROOT / name
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        return re.split(r"(?<!et al)\.\s", " ".join(text.split("\n\n")[0].split()) + " ")[0].rstrip(": ")
    if path.suffix in (".yaml", ".yml"):
        return next((line[2:].rstrip(".: ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), "")
    if path.suffix == ".md" and path.parent.parent.name == "papers":
        return "what is faithful to the paper, what differs, and the tables side by side"
    return next((line for ending, line in USUAL.items() if name.endswith(ending)), "")


def write() -> list[str]:
    """Rewrite the list; gives the files that have nothing to say and need a line by hand."""
    text = MAP.read_text(encoding="utf-8")
    head, lines = text.split("\n## ", 1)[0].rstrip(), dict(LINE.findall(text))
    groups: dict[str, list[str]] = {}
    for name in files():
        folder = name.rpartition("/")[0]
        groups.setdefault("The checkout" if folder in ("", ".ci") else folder, []).append(name)
    order = sorted(groups, key=lambda group: (group != "The checkout", not group.startswith("src"), group))
    out, silent = [head], []
    for group in order:
        out += ["", f"## {group}", ""]
        for name in groups[group]:
            line = first_sentence(name) or lines.get(name)
            silent += [] if line else [name]
            out.append(f"- `{name}`: {line}")
    MAP.write_text("\n".join(out) + "\n", encoding="utf-8")
    return silent


if __name__ == "__main__":
    silent = write()
    sys.exit(f"these need a line by hand: {', '.join(silent)}" if silent else 0)
