"""Which folders of a cohort are repeat visits of its patients; told by their names alone, without torch."""

from __future__ import annotations

import re
from pathlib import Path

from oncontour.errors import CohortError
from oncontour.io.folders import natural

_VISIT = re.compile(r"visit-(\d+)")


def visits_in(folder: Path) -> dict[str, list[Path]]:
    """Patient -> folders of its visits by number, the planning visit first; empty where this is no cohort of visits.

    Raises CohortError where some of the folders are patients with visits and others are not, or a patient has one visit alone.
    """
    if not folder.is_dir():
        return {}
    found: dict[str, list[Path]] = {}
    others: list[str] = []
    for patient in sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural(p.name)):
        visits = sorted((p for p in patient.iterdir() if p.is_dir() and _VISIT.fullmatch(p.name)), key=lambda p: natural(p.name))
        if visits:
            found[patient.name] = visits
        else:
            others.append(patient.name)
    alone = [name for name, visits in found.items() if len(visits) < 2]
    if found and (others or alone):
        wrong, what = others or alone, "no visits" if others else "one visit alone"
        raise CohortError(
            f"{len(wrong)} of {len(found) + len(others)} patients have {what} ({', '.join(wrong[:3])})",
            where=str(folder),
            hint="give each patient's folder a folder visit-0 for the planning visit and visit-1, visit-2, ... for later ones",
        )
    return found
