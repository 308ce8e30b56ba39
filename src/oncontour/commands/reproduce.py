"""``oncontour reproduce``: a paper's method repeated on a cohort.

A paper's module may use other commands, so it lies above them, and is imported by its name in ``PAPERS``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from oncontour.errors import ConfigError

PAPERS: dict[str, str] = {
    "deeplab-npc-2020": "oncontour.reproduce.deeplab_npc_2020:reproduce",
    "pseudomri-2021": "oncontour.reproduce.pseudomri_2021:reproduce",
    "crossstitch-2020": "oncontour.reproduce.crossstitch_2020:reproduce",
    "quality-2026": "oncontour.reproduce.quality_2026:reproduce",
    "dosiomics-2025": "oncontour.reproduce.dosiomics_2025:reproduce",
}
"""key -> "module:function"; the function takes (cohort, out, **settings) and gives the text to print."""


def reproduce(paper: str, cohort: Path, *, out: Path, settings: dict[str, Any] | None = None) -> str:
    """Repeat a paper on a cohort: train its method and its baseline, test on patients kept apart, print its table beside ours.

    COHORT holds the folders train/ and validation/ (or test/), each with one folder a patient. Started again with the same OUT, trainings
    go on where they stopped. OUT gets measured.csv (one row a patient, method and metric), table.md, the models and their logs.

    Examples:
      oncontour reproduce deeplab-npc-2020 COHORT --out runs/npc
      oncontour reproduce deeplab-npc-2020 COHORT --out runs/npc --config papers/deeplab-npc-2020/run.yaml

    Args:
        paper: one of the keys under papers/
        cohort: folder with train/ and validation/
        out: folder of the results
        settings: the paper's own settings, see its run.yaml
    """
    if paper not in PAPERS:
        raise ConfigError(f"no paper {paper!r}", hint=f"choose one of {sorted(PAPERS)}")
    module, _, function = PAPERS[paper].partition(":")
    text: str = getattr(import_module(module), function)(Path(cohort), Path(out), **(settings or {}))
    return text
