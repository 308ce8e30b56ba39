"""The main job on one patient whose truth is known: real data where there is any, else a phantom, and the first line says which."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from oncontour import pipeline
from oncontour.case import Case
from oncontour.errors import InputError
from oncontour.progress import Progress
from oncontour.result import PAGE

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible")
"""What the patient must have contours of, so that the table has no gaps."""

REPOSITORY = "https://github.com/ababier/open-kbp"
PUBLISHED = "provided-data/validation-pats/pt_201"
"""A patient of the published validation set (never trained on) that has all seven organs."""
GIT_TIMEOUT_S = 90

Source = Literal["auto", "data", "git", "phantom"]

RISK_MODEL = "esophagitis-simulated"
"""Shown here, and nowhere unasked: it learned from outcomes that were made up, and every line of it says so."""
RISK = (
    "The risk is there to show what a report holds: no public patients have both dose and outcome, so its model learned from simulated "
    "outcomes and says nothing of anybody. Train one on yours: oncontour train risk COHORT --outcomes OUTCOMES.csv --out RUN; "
    "then oncontour run ... --risk RUN/model.safetensors"
)


@dataclass(frozen=True, eq=False)
class Shown:
    """What the demo has to show: the result of its run, and what is said of it at the end."""

    result: pipeline.Result
    said: tuple[str, ...]

    def __str__(self) -> str:
        return "\n\n".join([str(self.result), *self.said])


def demo(*, out: Path = Path("demo-out"), source: Source = "auto", risk: str = RISK_MODEL, progress: Progress | None = None) -> Shown:
    """Contour one patient whose truth is known, exactly as a clinic would, and show how well it went and where to look.

    The patient is a real one (OpenKBP validation set) from $ONCONTOUR_DATA, else from ../shared/data, else from the public OpenKBP
    repository by git, else the built-in phantom; the first line says which. It is written as DICOM (CT, the planner's targets, RTDOSE), and
    'oncontour run' does the rest. At the end stand a table (structure, volume, DSC against the truth), the places that deserve a person's
    time, worst first, what the dose gives to each structure, and where the report is.

    Examples:
        oncontour demo
        oncontour demo --out some-folder --source phantom

    Args:
        out: folder in which dicom, truth and result are put; those of an earlier demo are replaced
        source: where the patient comes from; auto: the first of the three that has one
        risk: a risk model, made by 'oncontour train risk', to tell the patient's risk by; by default one
            of simulated outcomes, which says so
        progress: called with the fraction done
    """
    case, words = patient(source)
    _say(f"Patient: {words}")
    dicom, truth, result = out / "dicom", out / "truth", out / "result"
    write_patient(case, dicom, truth)
    _say(f"Written as DICOM: {dicom}. What a clinic would type: oncontour run {dicom} --out {result}")
    pipeline.guard(result, dicom, overwrite=True)
    model = None if words.startswith("real") else [pipeline.DEFAULT_MODELS["head_neck"]]
    done = pipeline.run(dicom, out=result, model=model, truth=truth, risk=risk, overwrite=True, progress=progress)
    last = f"Open this in a browser, and press N for the next place to look at: {result / PAGE}"
    return Shown(done, (RISK, last) if risk == RISK_MODEL else (last,))


def patient(source: Source = "auto") -> tuple[Case, str]:
    """The patient of the demo and, in words, who it is. Raises InputError where ``source`` has none."""
    found: Case | None = None
    if source in ("auto", "data"):
        for folder in _validation_folders():
            found, words = _with_all_organs(folder)
            if found is not None:
                return found, words
    if source in ("auto", "git"):
        found = _from_git()
        if found is not None:
            return found, f"real, {found.id} of the OpenKBP validation set, fetched from {REPOSITORY}"
    if source in ("auto", "phantom"):
        from oncontour.phantom import head_neck

        return head_neck(), "not real: the built-in head-and-neck phantom, as no patient data was found"
    raise InputError(
        f"no patient from source {source!r}", hint="set ONCONTOUR_DATA to a folder that holds openkbp/validation, or use --source phantom"
    )


def write_patient(case: Case, dicom: Path, truth: Path) -> None:
    """As DICOM what a planner has before the organs are drawn: images, dose and targets; all structures in the NIfTI layout."""
    from oncontour.io import write
    from oncontour.ops.checks import is_target

    targets = {name: case.mask(name) for name in case.structures if is_target(name)}
    images = case.without_structures()
    write(images.with_masks(targets) if targets else images, dicom, format="dicom")
    write(case, truth, format="nifti")


def _validation_folders() -> Iterator[Path]:
    named = os.environ.get("ONCONTOUR_DATA")
    for root in (named, "../shared/data"):
        if root and (Path(root) / "openkbp/validation").is_dir():
            yield Path(root) / "openkbp/validation"


def _with_all_organs(folder: Path) -> tuple[Case | None, str]:
    """The first patient of a cohort that has every organ."""
    from oncontour.io.cohort import Cohort

    cohort = Cohort.open(folder)
    for name in cohort.ids:
        case = cohort[name]
        if set(ORGANS) <= set(case.structures):
            return case, f"real, {name} of the OpenKBP validation set, from {folder}"
    return None, ""


def _from_git() -> Case | None:
    """One published patient, and nothing else of the repository; None where git or the network fail."""
    from oncontour.io import read

    with tempfile.TemporaryDirectory(prefix="oncontour-demo-") as name:
        clone = Path(name) / "open-kbp"
        commands = (
            ["git", "clone", "--quiet", "--depth", "1", "--filter=blob:none", "--sparse", REPOSITORY, str(clone)],
            ["git", "-C", str(clone), "sparse-checkout", "set", PUBLISHED],
        )
        _say("Fetching a public patient by git ...", sys.stderr)
        try:
            for command in commands:
                quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
                subprocess.run(command, check=True, capture_output=True, timeout=GIT_TIMEOUT_S, env=quiet, stdin=subprocess.DEVNULL)
            return read(clone / PUBLISHED)
        except (OSError, subprocess.SubprocessError, InputError):
            return None


def _say(line: str, stream: TextIO | None = None) -> None:
    out = stream or sys.stdout
    out.write(line + "\n")
    out.flush()
