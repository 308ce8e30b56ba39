"""Every bench in this folder, one after the other, into bench/results.md: what was printed, on which machine, at which commit.

python bench/all.py [NAME ...]      by default all; names without .py, whose sections alone are then made anew
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.md"


def main() -> int:
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if path.stem != "all" and not path.stem.startswith("_"))
    head = f"# Measured\n\n{machine()}\n\nMade by `python bench/all.py`; what each bench does stands at the head of its file.\n"
    parts = sections() if sys.argv[1:] else {}
    failed = 0
    for name in names:
        print(f"--- {name}", flush=True)
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py")], capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        said = (
            done.stdout.strip()
            if done.returncode == 0
            else f"{done.stdout.strip()}\nended with status {done.returncode}: {last_line(done.stderr)}"
        )
        print(said, flush=True)
        parts[name] = f"## {name}\n\n{made_at()}\n\n```\n{said.replace(str(HERE.parent), '.')}\n```\n"
        RESULTS.write_text("\n".join([head, *(parts[key] for key in sorted(parts))]), encoding="utf-8")
    return 1 if failed else 0


def sections() -> dict[str, str]:
    """bench -> its section in the results that are there."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    return {part.split("\n", 1)[0]: "## " + part.rstrip() + "\n" for part in text.split("\n## ")[1:]}


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing said"])[-1]


def machine() -> str:
    """Processor, cores, memory, load and software, in one paragraph."""
    cpu = next(
        (line.split(":")[1].strip() for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")), platform.processor()
    )
    memory = next((int(line.split()[1]) / 1e6 for line in _text("/proc/meminfo").splitlines() if line.startswith("MemTotal")), 0.0)
    hardware = f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GB, load {os.getloadavg()[0]:.1f} at the start"
    return f"{hardware}; {platform.system()}, Python {platform.python_version()}."


def made_at() -> str:
    """Commit and day of one section: others may be older, where some benches alone were run again."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    changed = " with changes" if _git("status", "--porcelain", "--untracked-files=no", "--", "../src") else ""
    return f"Commit {commit}{changed}, {datetime.now(UTC):%Y-%m-%d}."


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


if __name__ == "__main__":
    sys.exit(main())
