"""``oncontour train contour``, ``assess``, ``risk``, ``adapt`` and ``synthesize``: a cohort becomes a model file."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from oncontour.adapt.choose import finish as adapted
from oncontour.adapt.simulate import TITLE
from oncontour.adapt.task import AdaptSettings, AdaptTask
from oncontour.commands.made_images import with_made
from oncontour.contour import thresholds
from oncontour.contour.from_cohort import ContourWishes
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.core.assessment import Calibration
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.errors import GeometryError, InputError
from oncontour.files import write_text
from oncontour.learn.card import Card
from oncontour.learn.fit import fit, held_back
from oncontour.learn.train_settings import TrainSettings
from oncontour.ops.body import unknown_region
from oncontour.quality.calibrate import after_training
from oncontour.quality.inputs import AssessSettings, calibration_of
from oncontour.quality.task import AssessTask
from oncontour.risk.feature_selection import Selection
from oncontour.risk.inputs import Patient
from oncontour.risk.task import SIMULATED, RiskSettings, RiskTask, prepared
from oncontour.synthesize.inputs import SynthesizeSettings, mr_of
from oncontour.synthesize.task import SynthesizeTask
from oncontour.synthesize.task import finish as synthesized

if TYPE_CHECKING:
    from oncontour.io.cohort import Cohort

RISK_TRAINING = TrainSettings(epochs=30, batch=32, learning_rate=3e-3, weight_decay=1e-2, validation=0.15)
"""Of a risk model, by default."""
SYNTHESIS_TRAINING = TrainSettings(
    epochs=40,
    batch=1,
    learning_rate=2e-4,
    schedule="linear",
    weight_decay=0.0,
    gradient_limit=0.0,
    validation=0.2,
    keep="best",
)
"""Of a synthesis model, by default: rate, schedule and batch as in Zhu et al. 2017."""
_OPTIONS = {
    "out": "folder of the run",
    "training": "how it is trained",
    "name": "of the model file",
    "data": "what it is trained on, for the card",
    "licence": "of the weights, for the card",
    "limits": "what the model is not for, for the card",
    "region": 'of the body the model is for: "head and neck", "thorax", "abdomen and pelvis" or "limb"; a CT that plainly shows another is '
    "then refused",
    "epochs": "instead of training.epochs",
    "devices": "processes, instead of training.devices",
    "seed": "instead of training.seed",
}
"""What the options mean that trainings have in common."""
_Command = TypeVar("_Command", bound=Callable[..., str])


def _explained(command: _Command) -> _Command:
    """``command`` with its ``_OPTIONS`` explained at the end of its docstring, which the help is made of; what it says itself stays."""
    said = inspect.getdoc(command) or ""
    names = [name for name in inspect.signature(command).parameters if name in _OPTIONS and f"\n    {name}: " not in said]
    command.__doc__ = "\n".join([said, *(f"    {name}: {_OPTIONS[name]}" for name in names)])
    return command


def read_cases(cohort: Cohort, *, tell: bool = True) -> Iterator[Case]:
    """The cases of a cohort one by one; one that cannot be read is named on stderr and skipped. With ``tell`` as ``telling``."""
    return telling(_readable(cohort)) if tell else _readable(cohort)


def telling(cases: Iterator[Case]) -> Iterator[Case]:
    """``cases``; at the end what was remarked on reading them goes to stderr, a line for those of whom the same was."""
    notes: dict[str, tuple[str, ...]] = {}
    for case in cases:
        notes[case.id] = case.notes
        yield case
    sys.stderr.write("".join(f"{line}\n" for line in grouped(notes)))


def _readable(cohort: Cohort) -> Iterator[Case]:
    for patient in cohort.ids:
        try:
            yield cohort[patient]
        except (InputError, GeometryError) as error:
            sys.stderr.write(f"{patient} was left out: {error}\n")


def changed(training: TrainSettings, **instead: int | None) -> TrainSettings:
    """``training`` with those of ``instead`` that are told."""
    return TrainSettings(**asdict(training) | {key: value for key, value in instead.items() if value is not None})


def _tell_unknown(region: str) -> None:
    """Say on stderr, before the training, that ``region`` is none that a CT could be checked for."""
    if told := unknown_region(region):
        sys.stderr.write(f"warning: --region: {told}\n")


def _complete(settings: ContourSettings, patients: Cohort) -> ContourSettings:
    """The settings with what was left out chosen from the patients, each choice told on stderr."""
    if not isinstance(settings, ContourWishes):
        return settings
    done, told = settings.chosen(read_cases(patients, tell=False))
    sys.stderr.writelines(f"{line}\n" for line in told)
    return done


@_explained
def contour(
    cohort: Path,
    *,
    out: Path,
    settings: ContourWishes = ContourWishes(),  # noqa: B008  (frozen: one value for all calls)
    training: TrainSettings = TrainSettings(),  # noqa: B008
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

    Structures, spacing and window are chosen from the cohort where they are not given, and what was chosen is printed first.
    Writes OUT/NAME.safetensors (the model, its card in the header), OUT/metrics.csv, OUT/tensorboard and a checkpoint after every epoch.
    Started again with the same OUT it goes on from the last whole epoch, to the same curve.

    Examples:
      oncontour train contour COHORT --out runs/ours
      oncontour train contour COHORT --out runs/neck --config examples/hn-organs.yaml
      oncontour train contour COHORT --out runs/cord --settings.structures SpinalCord --epochs 20
      oncontour train contour COHORT --out runs/neck --config examples/hn-organs.yaml --devices 2
      oncontour train contour COHORT --out runs/ours --config examples/hn-organs.yaml --start hn-organs --epochs 10

    Args:
        cohort: folder with one folder a patient, or a CSV with columns patient,path; what patients are called there goes into the
            model's card
        settings: what the model is: structures, net, grid, windows, loss, augmentation
        start: a finished model (file or shipped name) of the same net and structures whose weights to begin with
    """
    from oncontour.io.cohort import Cohort

    training, patients = changed(training, epochs=epochs, devices=devices, seed=seed), Cohort.open(cohort)
    _tell_unknown(region)
    chosen = _complete(settings, patients)
    task = ContourTask(chosen)
    cases, made_by = with_made(read_cases(patients), chosen)
    outcome = fit(
        task,
        cases,
        out,
        training,
        name=name,
        data=data,
        licence=licence,
        limits=limits,
        region=region,
        start=start,
        finish=lambda *done: {**thresholds.finish(*done), **made_by},
    )
    return str(outcome)


@_explained
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
    true DSC. The patients held back (training.validation) give the lower bound its error rate and the out-of-distribution detector its
    limit; hold back 40 or more. With settings.own it also learns from each segmenter's probability maps (contours drawn with
    `oncontour predict --chances`), and from no contour without, unless settings.channel_dropout teaches it to do without. It then has a
    bound for each set of maps that it may be given.

    Examples:
      oncontour train assess COHORT --claims CLAIMS --out runs/quality --config examples/hn-quality.yaml
      oncontour train assess COHORT --out runs/cord --settings.structures SpinalCord --settings.variants 8 --epochs 20

    Args:
        cohort: folder with one folder a patient with the true contours, or a CSV with columns patient,path; what patients are called
            there goes into the model's card
        settings: what the model is: structures, heads, net, window, generator
        claims: folder of segmenters' contours, SOURCE/PATIENT/masks/NAME.nii.gz; again for several
    """
    from oncontour.io.cohort import Cohort
    from oncontour.quality.segmenters import with_candidates

    training, task = changed(training, epochs=epochs, devices=devices, seed=seed), AssessTask(settings)
    _tell_unknown(region)
    cases = telling(with_candidates(read_cases(Cohort.open(cohort), tell=False), claims or [], probabilities=settings.own))
    outcome = fit(task, cases, out, training, name=name, data=data, licence=licence, limits=limits, region=region, finish=after_training)
    return "\n".join([*_no_bound(outcome.card), str(outcome)])


def _no_bound(card: Card) -> list[str]:
    """A sentence where a quality model was left without a lower bound."""
    made, coverage = calibration_of(card.made) or Calibration(patients=0), float(card.settings["coverage"])
    bounds = [made] if made.inputs is None else list(made.inputs.values())
    if any("all" in one.offsets for one in bounds):
        return []
    need, count = math.ceil(coverage / (1 - coverage) - 1e-9), max((one.patients or 0 for one in bounds), default=0)
    return [
        f"The model has no lower bound: {count} patients were held back, at least {need} are needed for {coverage:.0%}. "
        "Raise training.validation, or use oncontour calibrate."
    ]


def learned_from(patients: Sequence[Patient], toxicities: Sequence[str], training: TrainSettings) -> list[Patient]:
    """Those whom ``fit`` will learn a risk from (an outcome is known, and they are not held back): they alone choose and standardise."""
    known = [p for p in patients if any(name in p.outcomes for name in toxicities)]
    kept = held_back([p.original for p in known], training)
    return [p for p in known if p.original not in kept]


@_explained
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
        settings: what the model is: toxicities, organ, net, window, region, contrast
        selection: how dosiomic features are chosen
        hospital: only the patients of this hospital of the table
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
    usable = gather(table, Cohort.open(cohort), settings.view, features=settings.dosiomics)
    sys.stderr.writelines(f"{line}\n" for line in usable.remarks)
    patients, notes = usable.patients, [*usable.left_out]
    task = RiskTask(prepared(settings, learned_from(patients, settings.toxicities, training), selection))
    limits = " ".join(text for text in (SIMULATED if task.settings.simulated else "", limits) if text)
    known = [p for p in patients if any(name in p.outcomes for name in table.toxicities)]
    if len(known) < len(patients):
        notes.append(f"{len(patients) - len(known)} patients of whom no outcome is known teach nothing")
    done = fit(task, known, out, training, name=name, data=data, licence=licence, limits=limits, finish=RiskTask.finish)  # type: ignore[arg-type]
    write_text(out / "tripod.md", tripod(done.card, patients))
    head = [SIMULATED] if task.settings.simulated else []
    return "\n".join([*head, *notes, str(done)])


@_explained
def adapt(
    cohort: Path,
    *,
    out: Path,
    settings: AdaptSettings,
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
    """Train a model that carries the contours of a planning CT to the CT of the day and segments it at once.

    COHORT is a cohort of repeat visits (a folder a patient with folders visit-0, visit-1, ..., the first the planning visit; DICOM or
    NIfTI), split by patient; or one of single visits as for 'oncontour train contour', of which repeat visits are then SIMULATED, and the
    model says so. Started again with the same OUT it goes on from the last whole epoch, to the same curve. OUT/metrics.csv holds, beside
    the losses, what flows between the tasks of a cross-stitch net.

    Examples:
      oncontour train adapt COHORT --out runs/hn-adapt --config examples/hn-adapt.yaml
      oncontour train adapt COHORT --out runs/sedd --config examples/hn-adapt.yaml --settings.variant sedd --epochs 20

    Args:
        cohort: folder with one folder a patient; what patients are called there goes into the model's card
        settings: what the model is: structures, variant of the paper, mode, grid, losses, simulated visits
        region: of the body the model is for: "head and neck", "thorax", "abdomen and pelvis" or "limb"
        start: a finished model (file or shipped name) of the same variant and structures whose weights to begin with
    """
    from oncontour.adapt.visits import visits_in
    from oncontour.io.cohort import Cohort

    training, task = changed(training, epochs=epochs, devices=devices, seed=seed), AdaptTask(settings)
    _tell_unknown(region)
    patients = visits_in(cohort)
    cases = telling(_visits(patients)) if patients else read_cases(Cohort.open(cohort))
    outcome = fit(
        task, cases, out, training, name=name, data=data, licence=licence, limits=limits, region=region, start=start, finish=adapted
    )
    return "\n".join([TITLE.upper() if outcome.card.made.get("simulated_visits") else "", str(outcome)]).strip()


def _visits(patients: Mapping[str, Sequence[Path]]) -> Iterator[Case]:
    """The daily visits of each patient with the planning visit as ``prior``; one that cannot be read is named on stderr and skipped."""
    from oncontour.adapt.inputs import visit_case

    for name, (planning, *later) in patients.items():
        for visit in later:
            try:
                yield visit_case(name, planning, visit)
            except (InputError, GeometryError) as error:
                sys.stderr.write(f"{name}/{visit.name} was left out: {error}\n")


@_explained
def synthesize(
    ct_cohort: Path,
    mr_cohort: Path,
    *,
    out: Path,
    settings: SynthesizeSettings = SynthesizeSettings(),  # noqa: B008  (frozen: one value for all calls)
    training: TrainSettings = SYNTHESIS_TRAINING,
    name: str = "model",
    data: str = "",
    licence: str = "",
    limits: str = "",
    region: str = "",
    start: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> str:
    """Train a model that makes an image like a T1-weighted MR of a CT, from the CT of some and the MR of other patients.

    No pairs are needed and none are used: a CT never meets the MR of the same patient, told by the patient's name in both cohorts. The two
    may be one folder whose patients have both. What is watched, and by which the best epoch is kept, needs no pairs either. Started again
    with the same OUT it goes on from the last whole epoch, to the same curve. The image serves contouring; it is not for dose calculation.

    Examples:
      oncontour train synthesize CT_COHORT MR_COHORT --out runs/limb-t1 --config examples/limb-t1.yaml
      oncontour train synthesize COHORT COHORT --out runs/paper --settings.mode paper --settings.width 64

    Args:
        ct_cohort: folder (or CSV) of patients with a CT
        mr_cohort: folder (or CSV) of patients with a T1-weighted MR of the same part of the body
        settings: what the model is: mode, nets, losses, grid, window
        start: a finished model (file or shipped name) of the same nets whose generator to begin with
    """
    training = changed(training, epochs=epochs, seed=seed)
    _tell_unknown(region)
    task, cases = SynthesizeTask(settings), telling(_unpaired(ct_cohort, mr_cohort, apart=settings.apart))
    outcome = fit(
        task, cases, out, training, name=name, data=data, licence=licence, limits=limits, region=region, start=start, finish=synthesized
    )
    return str(outcome)


def _unpaired(ct_cohort: Path, mr_cohort: Path, *, apart: bool) -> Iterator[Case]:
    """Cases of one image each: the CT of the one cohort and the MR of the other; with ``apart`` those in both give either by turns."""
    from oncontour.io.cohort import Cohort

    ct, mr = Cohort.open(ct_cohort), Cohort.open(mr_cohort)
    by_turns = dict(zip([id for id in ct.ids if id in mr], ("ct", "mr") * len(ct), strict=False)) if apart else {}
    for cohort, kind in ((ct, "ct"), (mr, "mr")):
        for case in _readable(cohort.subset(id for id in cohort.ids if by_turns.get(id, kind) == kind)):
            image = case.images.get("ct") if kind == "ct" else mr_of(case)
            if image is None:
                sys.stderr.write(f"{case.id} was left out: no {kind.upper()} among the images {sorted(case.images)}\n")
            else:
                yield replace(case.without_structures(), images={kind: image})
