"""``oncontour train contour``, ``train assess`` and ``train risk``: a cohort becomes a model file."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oncontour.contour.task import ContourSettings, ContourTask
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.errors import GeometryError, InputError
from oncontour.files import write_text
from oncontour.learn.card import Card
from oncontour.learn.fit import fit, held_back
from oncontour.learn.train_settings import TrainSettings
from oncontour.ops.body import unknown_region
from oncontour.quality.task import AssessSettings, AssessTask
from oncontour.risk.feature_selection import Selection
from oncontour.risk.inputs import Patient
from oncontour.risk.task import SIMULATED, RiskSettings, RiskTask, prepared

RISK_TRAINING = TrainSettings(epochs=30, batch=32, learning_rate=3e-3, weight_decay=1e-2, validation=0.15)
"""Of a risk model, by default."""


def read_cases(cohort: Any, *, tell: bool = True) -> Iterator[Case]:
    """The cases of a cohort one by one; one that cannot be read is named on stderr and skipped. With ``tell`` as ``telling``."""
    return telling(_readable(cohort)) if tell else _readable(cohort)


def telling(cases: Iterator[Case]) -> Iterator[Case]:
    """``cases``; at the end what was remarked on reading them goes to stderr, a line for those of whom the same was."""
    notes: dict[str, tuple[str, ...]] = {}
    for case in cases:
        notes[case.id] = tuple(case.facts.get("notes", ()))
        yield case
    sys.stderr.write("".join(f"{line}\n" for line in grouped(notes)))


def _readable(cohort: Any) -> Iterator[Case]:
    for patient in cohort.ids:
        try:
            yield cohort[patient]
        except (InputError, GeometryError) as error:
            sys.stderr.write(f"{patient} was left out: {error}\n")


def changed(training: TrainSettings, **instead: int | None) -> TrainSettings:
    """``training`` with those of ``instead`` that are told."""
    told: dict[str, Any] = {key: value for key, value in instead.items() if value is not None}
    return replace(training, **told)


def _tell_unknown(region: str) -> None:
    """Say on stderr, before the training, that ``region`` is none that a CT could be checked for."""
    if told := unknown_region(region):
        sys.stderr.write(f"warning: --region: {told}\n")


def contour(
    cohort: Path,
    *,
    out: Path,
    settings: ContourSettings,
    training: TrainSettings = TrainSettings(),  # noqa: B008  (frozen: one value for all calls)
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    region: str = "",
    start: str | None = None,
    epochs: int | None = None,
    devices: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a contouring model on a cohort: a folder (or CSV) of patients as DICOM CT + RTSTRUCT, NIfTI or OpenKBP CSV.

    Writes OUT/NAME.safetensors (the model, its card in the header), OUT/metrics.csv, OUT/tensorboard and a checkpoint after every epoch.
    Started again with the same OUT it goes on from the last whole epoch, to the same curve.

    Examples:
      oncontour train contour COHORT --out runs/neck --config examples/hn-organs.yaml
      oncontour train contour COHORT --out runs/cord --settings.structures SpinalCord --epochs 20
      oncontour train contour COHORT --out runs/neck --config examples/hn-organs.yaml --devices 2
      oncontour train contour COHORT --out runs/ours --config examples/hn-organs.yaml --start hn-organs --epochs 10

    Args:
        cohort: folder with one folder a patient, or a CSV with columns patient,path; what patients are called there goes into the
            model's card
        out: folder of the run
        settings: what the model is: structures, net, grid, windows, loss, augmentation
        training: how it is trained
        name: of the model file
        data: what it is trained on, for the card
        licence: of the weights, for the card
        limits: what the model is not for, for the card
        region: of the body the model is for: "head and neck", "thorax", "abdomen and pelvis" or "limb"; a CT that plainly shows another is
            then refused
        start: a finished model (file or shipped name) of the same net and structures whose weights to begin with
        epochs: instead of training.epochs
        devices: processes, instead of training.devices
        seed: instead of training.seed
    """
    from oncontour.io.cohort import Cohort

    training, task = changed(training, epochs=epochs, devices=devices, seed=seed), ContourTask(settings)
    patients = Cohort.open(cohort)
    _tell_unknown(region)
    outcome = fit(
        task, read_cases(patients), out, training, name=name, data=data, licence=licence, limits=limits, region=region, start=start
    )
    return str(outcome)


def assess(
    cohort: Path,
    *,
    out: Path,
    settings: AssessSettings,
    claims: list[Path] | None = None,
    training: TrainSettings = TrainSettings(),  # noqa: B008  (frozen: one value for all calls)
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    region: str = "",
    epochs: int | None = None,
    devices: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a contour quality model: how right is each slice of a contour, told from the CT and the contour alone?

    It learns from contours that real segmenters drew (--claims: a folder with one folder of patients a segmenter, as `oncontour predict`
    makes it, of patients that the segmenter did not learn from) and from clinical errors made by a generator, each slice labelled by its
    true DSC. The patients held back (training.validation) give the lower bound its error rate and the gate its limit; hold back 40 or more.
    With settings.own it also learns from how sure each segmenter was: claims drawn with `oncontour predict --chances`, and those alone.

    Examples:
      oncontour train assess COHORT --claims CLAIMS --out runs/quality --config examples/hn-quality.yaml
      oncontour train assess COHORT --out runs/cord --settings.structures SpinalCord --settings.variants 8 --epochs 20

    Args:
        cohort: folder with one folder a patient with the true contours, or a CSV with columns patient,path; what patients are called
            there goes into the model's card
        out: folder of the run
        settings: what the model is: structures, heads, net, window, generator
        claims: folder of segmenters' contours, SOURCE/PATIENT/masks/NAME.nii.gz; again for several
        training: how it is trained
        name: of the model file
        data: what it is trained on, for the card
        licence: of the weights, for the card
        limits: what the model is not for, for the card
        region: of the body the model is for: "head and neck", "thorax", "abdomen and pelvis" or "limb"; a CT that plainly shows another is
            then refused
        epochs: instead of training.epochs
        devices: processes, instead of training.devices
        seed: instead of training.seed
    """
    from oncontour.io.cohort import Cohort
    from oncontour.quality.segmenters import with_claims

    training, task = changed(training, epochs=epochs, devices=devices, seed=seed), AssessTask(settings)
    _tell_unknown(region)
    cases = telling(with_claims(read_cases(Cohort.open(cohort), tell=False), claims or [], chances=settings.own))
    outcome = fit(task, cases, out, training, name=name, data=data, licence=licence, limits=limits, region=region)
    return "\n".join([*_no_bound(outcome.card), str(outcome)])


def _no_bound(card: Card) -> list[str]:
    """A sentence where a quality model was left without a lower bound."""
    made, coverage = card.made.get("calibration", {}), float(card.settings["coverage"])
    if "all" in made.get("offsets", {}):
        return []
    need = math.ceil(coverage / (1 - coverage) - 1e-9)
    return [
        f"The model has no lower bound: {made.get('patients', 0)} patients were held back, at least {need} are needed for {coverage:.0%}. "
        "Raise training.validation, or use oncontour calibrate."
    ]


def learned_from(patients: Sequence[Patient], toxicities: Sequence[str], training: TrainSettings) -> list[Patient]:
    """Those whom ``fit`` will learn a risk from (an outcome is known, and they are not held back): they alone choose and standardise."""
    known = [p for p in patients if any(name in p.outcomes for name in toxicities)]
    kept = held_back([p.original for p in known], training)
    return [p for p in known if p.original not in kept]


def risk(
    cohort: Path,
    *,
    outcomes: Path,
    out: Path,
    settings: RiskSettings,
    selection: Selection = Selection(),  # noqa: B008  (frozen: one value for all calls)
    training: TrainSettings = RISK_TRAINING,
    hospital: str | None = None,
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    epochs: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a risk model on a cohort with dose and contours, and a table of outcomes.

    OUTCOMES is a CSV: a column patient (a folder of the cohort), a column of 0 and 1 for each toxicity (empty where nobody knows), columns
    of facts. Tables made by 'oncontour simulate outcomes' are taken alike; the model then says that its outcomes were simulated wherever it
    is used. Dosiomic features are chosen, and everything is standardised, by the training patients. Patients held back
    (training.validation; virtual patients of one original stay together) watch the loss and recalibrate the probabilities.
    Writes OUT/NAME.safetensors, OUT/tripod.md (what a reader must know of the model) and logs.

    Examples:
        oncontour train risk COHORT --outcomes OUT/outcomes.csv --out runs/risk --hospital home --settings.facts chemo,age
        oncontour train risk COHORT --outcomes outcomes.csv --out runs/risk --settings.toxicities esophagitis_g2 --epochs 40

    Args:
        cohort: folder with one folder a patient (images, structures, dose), or a CSV with columns patient,path
        outcomes: table of outcomes and facts
        out: folder of the run
        settings: what the model is: toxicities, organ, net, window, region, contrast
        selection: how dosiomic features are chosen
        training: how it is trained
        hospital: only the patients of this hospital of the table
        name: of the model file
        data: what it is trained on, for the card
        licence: of the weights, for the card
        limits: what the model is not for, for the card
        epochs: instead of training.epochs
        seed: instead of training.seed
    """
    from oncontour.io.cohort import Cohort
    from oncontour.report.tripod import tripod
    from oncontour.risk.cohort import gather
    from oncontour.risk.outcome_table import read_outcomes

    table = read_outcomes(outcomes, settings.toxicities, settings.facts)
    table = table if hospital is None else table.of(hospital)
    settings = replace(settings, toxicities=table.toxicities)
    training = changed(training, epochs=epochs, seed=seed)
    RiskTask(settings)  # refuses settings that cannot be before patients are read
    patients, notes = gather(table, Cohort.open(cohort), settings.view, features=settings.dosiomics)
    task = RiskTask(prepared(settings, learned_from(patients, settings.toxicities, training), selection))
    limits = " ".join(text for text in (SIMULATED if task.settings.simulated else "", limits) if text)
    known = [p for p in patients if any(name in p.outcomes for name in table.toxicities)]
    if len(known) < len(patients):
        notes.append(f"{len(patients) - len(known)} patients of whom no outcome is known teach nothing")
    done = fit(task, known, out, training, name=name, data=data, licence=licence, limits=limits)  # type: ignore[arg-type]
    write_text(out / "tripod.md", tripod(done.card, patients))
    head = [SIMULATED] if task.settings.simulated else []
    return "\n".join([*head, *notes, str(done)])
