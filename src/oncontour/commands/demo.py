"""The main job on one patient whose truth is known: a real one where there are data, else the mean patient; the first line says which."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oncontour.commands import demo_week
from oncontour.commands import run as pipeline
from oncontour.commands.risk import load as load_risk
from oncontour.core.case import Case
from oncontour.errors import ConfigError, InputError
from oncontour.io.dicom.patient_write import check_replaceable
from oncontour.libraries import is_installed
from oncontour.progress import Progress
from oncontour.result import PAGE, check_out

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible")
"""What the patient must have contours of, so that the table has no gaps."""

REAL = "pt_222"
"""The validation patient of OpenKBP that is shown: with every organ and usual voxels, and contoured by hn-organs about as well as most
(docs/write_demo_patient.py chooses, docs/demo_patients.csv has the figures of all)."""
MEAN_SAYS = (
    "This is not a person: it is the mean of {patients} public head-and-neck patients (OpenKBP){bent}. The model that contours it learned "
    "from all but one of these patients, and the other models from most of them, so the DSC measures nothing but that the demo works."
)
REAL_SAYS = "A public patient, {id} of the validation set of OpenKBP: the models used here never learned from it."

Source = Literal["auto", "data", "mean"]

GOALS = Path(__file__).with_name("demo_goals.yaml")
"""Those of examples/goals-head-neck.yaml."""
RISK_MODEL = "esophagitis-simulated"
"""Shown here, and nowhere unasked: it learned from outcomes that were made up, and every line of it says so."""
RISK = (
    "The risk is there to show what a report holds: no public patients have both dose and outcome, so its model learned from simulated "
    "outcomes and says nothing of anybody. Train one on yours: oncontour train risk COHORT --outcomes OUTCOMES.csv --out RUN; "
    "then oncontour run ... --risk RUN/model.safetensors"
)
WITHOUT_TORCH = (
    "PyTorch is not installed, so the risk and the simulated week later are left out: pip install 'oncontour[train]' brings what they need"
)


@dataclass(frozen=True, eq=False)
class Patient:
    """Whom the demo shows: the case, who it is in words, and the sentence that stands first on the page and in report.json."""

    case: Case
    who: str
    about: str


@dataclass(frozen=True)
class FirstPlace:
    """The place that the page opens on: a structure and its slice ``k`` of the grid of the CT, its number on the page, and how much of that
    slice is wrong, by the truth: drawn and not so, or so and not drawn."""

    name: str
    k: int
    number: int
    wrong_cm2: float

    def __str__(self) -> str:
        told = f"The page opens on {self.name}, slice {self.number}: {self.wrong_cm2:.1f} cm² of the contour are wrong there"
        return f"{told}, by the truth, which is drawn dashed beside it (the models do not know it)."


@dataclass(frozen=True, eq=False)
class Shown:
    """What the demo has to show: the result of its run, what is said of it at the end, and the first place to look at; None: there is none,
    or it is a structure as a whole, or one that has no truth."""

    result: pipeline.Result
    said: tuple[str, ...]
    first: FirstPlace | None = None

    def __str__(self) -> str:
        return "\n\n".join([str(self.result), *self.said])


def demo(
    *,
    out: Path = Path("demo-out"),
    source: Source = "auto",
    seed: int | None = None,
    risk: str = RISK_MODEL,
    week: bool = True,
    progress: Progress | None = None,
) -> Shown:
    """Contour one patient whose truth is known, exactly as a clinic would, and show how well it went and where to look.

    Where $ONCONTOUR_DATA, else ../shared/data, holds openkbp/validation, the patient is a real one of that set, which the models never
    learned from. Elsewhere it is the mean patient that is shipped: the mean of 24 public patients, of all but one of whom the model that
    contours it learned, so that its DSC measures nothing but that the demo works. The first line and the page say which. No network is
    used. The patient is written as DICOM (CT, targets, RTDOSE), and 'oncontour run' does the rest. At the end stand a table (structure,
    volume, DSC against the truth), the places that deserve a person's time, worst first, what the dose gives to each structure, which
    clinical goals it meets, the risk, how much is truly wrong at the first of the places, and where the report is. Then the patient comes
    again a simulated week later: 'oncontour adapt' carries contours and dose to that CT, in OUT/week.

    Examples:
        oncontour demo
        oncontour demo --out some-folder --source mean
        oncontour demo --seed 3

    Args:
        out: folder in which dicom, truth and result are put; those of an earlier demo are replaced, anything else never
        source: where the patient comes from: data (a real one), mean (the mean patient); auto: data where there are any
        seed: of the mean patient, which it then shows: each from 1 on bends it into another patient; 0 is the mean itself
        risk: a risk model, made by 'oncontour train risk', to tell the patient's risk by; by default one
            of simulated outcomes, which says so
        week: show the patient a simulated week later too; it needs the extra train, as the risk does; without it that of
            an earlier demo goes
        progress: called with the fraction done
    """
    dicom, truth, result = out / "dicom", out / "truth", out / "result"
    _check_ours(dicom, truth, result)
    demo_week.check_ours(out)
    whole = all(map(is_installed, ("torch", "monai"))) or risk != RISK_MODEL
    if whole:
        load_risk(risk)
    shown = patient(source, seed)
    _say(f"Patient: {shown.who}")
    demo_week.clear(out)
    write_patient(shown.case, dicom, truth)
    _say(f"Written as DICOM: {dicom}. What a clinic would type: oncontour run {dicom} --out {result} --goals {GOALS}")
    done = pipeline.run(
        dicom, out=result, truth=truth, goals=GOALS, risk=risk if whole else None, about=shown.about, overwrite=True, progress=progress
    )
    first = first_place(done.case, shown.case)
    last = f"Open this in a browser, and press N for the next place to look at: {result / PAGE}"
    said = [WITHOUT_TORCH if not whole else RISK] if risk == RISK_MODEL else []
    said += [*((str(first),) if first else ()), last]
    if week and whole:
        planning, daily, later = demo_week.folders(out)
        _say(f"A simulated week later. What a clinic would type: oncontour adapt {planning} {daily} --out {later}")
        demo_week.week_later(shown.case, out)
        said.insert(-1, f"The same patient a simulated week later, with planned contours and dose on the CT of that day: {later / PAGE}")
    return Shown(done, tuple(said), first)


def first_place(drawn: Case, truth: Case) -> FirstPlace | None:
    """The first of the places to look at of ``drawn``, and how much of it is wrong by ``truth``, another case of the patient."""
    from oncontour.report.export import slice_number
    from oncontour.report.review import spots, strips

    found = spots(strips(drawn))
    if not found or found[0].k is None or found[0].name not in truth.structures:
        return None
    name, k, grid = found[0].name, found[0].k, drawn.geometry
    wrong = drawn.mask(name).array[k] ^ truth.mask(name, grid).array[k]
    return FirstPlace(name, k, slice_number(grid, k), float(wrong.sum()) * grid.spacing_mm[1] * grid.spacing_mm[2] / 100)


def _check_ours(dicom: Path, truth: Path, result: Path) -> None:
    """Raise OutputError, before anything is written, where one of these folders holds what no demo made."""
    check_out(result, (), pipeline.FILES, overwrite=True, of="the demo's patient")
    for folder in (dicom, truth):
        check_replaceable(folder)
    demo_week.check_made_by_demo((result, dicom, truth), bool(demo_week.about(result)))


def patient(source: Source = "auto", seed: int | None = None) -> Patient:
    """Whom the demo shows. Raises InputError where ``source`` is data and there are none, ConfigError for a seed of a real patient."""
    if seed is not None and source == "data":
        raise ConfigError("a seed is for the mean patient, and a real one was asked for", hint="leave out --seed, or use --source mean")
    if seed is None and source in ("auto", "data"):
        for folder in _validation_folders():
            case = _with_all_organs(folder)
            if case is not None:
                who = f"real, {case.id} of the OpenKBP validation set, from {folder}"
                return Patient(case, who, REAL_SAYS.format(id=case.id))
    if source == "data":
        raise InputError(
            "no patient with every organ in openkbp/validation of $ONCONTOUR_DATA or of ../shared/data",
            hint="set ONCONTOUR_DATA to a folder that holds openkbp/validation, or use --source mean",
        )
    return _mean(seed or 0)


def _mean(seed: int) -> Patient:
    from oncontour.phantom.mean import PATIENTS, mean_patient

    bent = f", bent at random (seed {seed})" if seed else ""
    who = f"not a person: the mean of {PATIENTS} public patients (OpenKBP){bent}"
    return Patient(mean_patient(seed), who, MEAN_SAYS.format(patients=PATIENTS, bent=bent))


def write_patient(case: Case, dicom: Path, truth: Path) -> None:
    """As DICOM what a planner has before the organs are drawn: images, dose and targets; all structures in the NIfTI layout."""
    from oncontour.core.structure_kinds import is_target
    from oncontour.io import write

    targets = {name: case.mask(name) for name in case.structures if is_target(name)}
    images = case.without_structures()
    write(images.with_masks(targets) if targets else images, dicom, format="dicom")
    write(case, truth, format="nifti")


def _validation_folders() -> Iterator[Path]:
    named = os.environ.get("ONCONTOUR_DATA")
    for root in (named, "../shared/data"):
        if root and (Path(root) / "openkbp/validation").is_dir():
            yield Path(root) / "openkbp/validation"


def _with_all_organs(folder: Path) -> Case | None:
    """REAL, else the first patient of a cohort that has every organ; None where none has."""
    from oncontour.io.cohort import Cohort

    cohort = Cohort.open(folder)
    for name in sorted(cohort.ids, key=lambda id: id != REAL):
        case = cohort[name]
        if set(ORGANS) <= set(case.structures):
            return case
    return None


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
