"""``oncontour evaluate``: contours judged against the truth of a cohort."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.commands.cohort import digest, planned
from oncontour.commands.cohort_table import FOLDER
from oncontour.commands.evaluate_cohort import Judging, Panels, Told, check_all, decides, judged, pictures_in
from oncontour.commands.evaluate_methods import Asked, Contours, patients_at
from oncontour.core.notes import some
from oncontour.errors import CohortError, ConfigError, OutputError
from oncontour.evaluate.predictions import MapPredictions, Predictions
from oncontour.many import Many
from oncontour.progress import Progress, tell

if TYPE_CHECKING:
    from oncontour.evaluate.found import Judged
    from oncontour.evaluate.judge import Predictor
    from oncontour.io.cohort import Cohort
    from oncontour.learn.card import Card


def evaluate(
    cohort: Path,
    *,
    out: Path,
    model: list[str] | None = None,
    predictions: list[Path] | None = None,
    labels: Path | None = None,
    structures: list[str] | None = None,
    tolerance_mm: float = 2.0,
    overlays: Literal["none", "three", "all"] = "three",
    any_region: bool = False,
    threads: int | None = None,
    many: Many = Many(),  # noqa: B008  (frozen: one value for all calls)
    progress: Progress | None = None,
) -> str:
    """Judge contours against the truth of a cohort: tables with intervals and tests, box plots, overlays.

    The truth is what the patients of COHORT come with; models never see it. Give --model or --predictions again to compare several:
    paired tests then stand beside the tables. OUT gets metrics.csv (one number a line), summary.csv, comparisons.csv, failures.csv,
    methods.csv (which weights each method has), box plots and overlays as PNG and SVG. One patient that cannot be read does not stop the
    others: it is named, everything is written, and the exit code is that of an error. OUT is a new folder or holds an earlier evaluation,
    which is replaced. Started again with the same words it judges those alone who are new, changed or could not be judged; what was found
    of the others waits in OUT/.cohort, which may be deleted when all is done.

    Where FOLDER holds label maps, one file a patient (PATIENT.nii.gz), as nnU-Net and TotalSegmentator write them, --labels says what
    their numbers mean: {"Parotid_L": 1, ...}, {"1": "Parotid_L", ...} or nnU-Net's dataset.json. A number that
    it does not name is left out, with a note.

    Where COHORT is one of repeat visits (a folder a patient with folders visit-0, the planning visit, visit-1, ...), --model names models
    that adapt. They are judged on the later visits with the patient as the unit, beside doing nothing and registration without training,
    and what is claimed of them is printed with its tests. Visits of 'oncontour simulate visits' bring their true deformation: fields are
    then judged in mm too.

    A missed structure counts: DSC 0 and an infinite distance. One that was not contoured in the truth does not. Empty in both is nothing
    to judge. Intervals resample patients; p-values are never printed below what the number of patients allows.

    Examples:
        oncontour evaluate COHORT --model hn-organs --out OUT
        oncontour evaluate COHORT --predictions FOLDER --out OUT --structures Parotid_L,Parotid_R
        oncontour evaluate COHORT --predictions LABEL_MAPS --labels dataset.json --out OUT
        oncontour evaluate VISITS --model hn-adapt --out OUT
        oncontour evaluate COHORT --model new.safetensors --model old.safetensors --out OUT --tolerance_mm 3
        oncontour evaluate COHORT --model hn-organs --out OUT --shard 2/8 --jobs 16

    Args:
        cohort: folder (or CSV) of patients with a CT and contours, or one such patient
        out: folder for the results
        model: name of a shipped model or path of a model file
        predictions: folder with one folder of contours a patient (masks or RTSTRUCT), named as in COHORT; with --labels also a folder with
            one label map a patient
        labels: JSON file with the names of a label map's numbers
        structures: only these structures (TG-263 names, separated by commas); one that is never predicted then counts as missed
        tolerance_mm: what surface DSC and added path length forgive
        overlays: pictures of the best, median and worst patient, of all, or none
        any_region: let models draw on CTs of another part of the body than they were made for; such patients fail otherwise
        threads: CPU threads of a worker; one unless said, and all there are for one patient alone
        many: processes, shard and engine
        progress: called with the fraction done
    """
    from oncontour.adapt.visits import visits_in
    from oncontour.learn.resident import kept

    if visited := visits_in(cohort):
        return _visits(visited, model or [], predictions or [], out, structures or [], tolerance_mm, threads or 1, many, progress)
    patients, several = patients_at(cohort, many.is_asked)
    asked = Asked(tuple(model or ()), tuple(predictions or ()), labels, several, any_region, threads or (1 if several else None))
    with kept():  # what is loaded now, to be looked at before any work, serves engine "here" too
        methods = asked.methods()
        _check_anybody(patients, methods)
        _check_tolerance(tolerance_mm)
        _check_out(out)
        finds = Contours(dict(patients.paths), asked, tuple(structures or ()), tolerance_mm, overlays != "none")
        write = partial(_written, finds, methods, patients.ids, out, overlays)
        if several:
            return judged(_work(finds, methods, out), tuple(methods), out, many, write, progress)
        one = finds(patients.ids[0])
        tell(progress, 1.0)
        said, failures = write([one], {one.patient: one.panels}, ())
        check_all(failures, "1 patient", out / "failures.csv", said)
        return said


def _work(finds: Contours, methods: Mapping[str, Predictor], out: Path) -> Judging:
    """What is to be done of each patient, and what that is made of: files of the patient and its predictions, and all that was asked."""
    asked = finds.asked
    plan = {
        "methods": [[name, decides(_card(one))] for name, one in methods.items()],
        "labels": asked.labels,
        "structures": finds.structures,
        "tolerance_mm": finds.tolerance_mm,
        "any_region": asked.any_region,
        "threads": asked.threads,
        "look": finds.look,
    }
    drawn = [one for one in methods.values() if isinstance(one, Predictions | MapPredictions)]
    files = {id: [path, *(there for one in drawn if (there := one.files.get(id)))] for id, path in finds.paths.items()}
    return Judging(finds, files, digest(planned("evaluate", plan)), pictures_in(out) if finds.look else None)


def _written(
    finds: Contours,
    methods: Mapping[str, Predictor],
    ids: Sequence[str],
    out: Path,
    overlays: Literal["none", "three", "all"],
    found: Sequence[Judged],
    panels: Panels,
    remarks: Sequence[str],
) -> Told:
    """Write the evaluation of all who were judged. Raises CohortError where nobody was."""
    from oncontour.evaluate.found import gathered
    from oncontour.evaluate.write import write
    from oncontour.learn.card import notes

    evaluation = gathered(found, tuple(methods), finds.structures, finds.tolerance_mm)
    cards = {name: _card(one) for name, one in methods.items()}
    of_file = {name: [] if card is None else notes(card) for name, card in cards.items()}
    unnamed = {name: {one.patient: one.unnamed.get(name, ()) for one in found} for name in methods}
    of_method = {name: [*of_file[name], *_remarks(one, ids, unnamed[name])] for name, one in methods.items()}
    weights = {name: card.sha256 if card else "" for name, card in cards.items()}
    told = [*(f"{name}: {line}" for name, lines in of_method.items() for line in lines), *remarks]
    return write(evaluation, out, overlays=overlays, weights=weights, remarks=told, panels=panels), evaluation.failures


def _visits(
    folders: Mapping[str, list[Path]],
    models: list[str],
    predictions: list[Path],
    out: Path,
    structures: list[str],
    tolerance_mm: float,
    threads: int,
    many: Many,
    progress: Progress | None,
) -> str:
    """As ``evaluate``, of a cohort of repeat visits. Raises ConfigError where contours were given to be judged on them."""
    from oncontour.commands.evaluate_visits import evaluate_visits

    if predictions:
        raise ConfigError(
            "on repeat visits models that adapt are judged, and --predictions gives contours",
            hint="give --model, or judge the contours on a cohort of the daily visits alone",
        )
    _check_tolerance(tolerance_mm)
    _check_out(out)
    return evaluate_visits(
        folders, models, out, structures=structures, tolerance_mm=tolerance_mm, threads=threads, many=many, progress=progress
    )


def _check_tolerance(tolerance_mm: float) -> None:
    if not 0 <= tolerance_mm < math.inf:
        raise ConfigError(f"a tolerance is a number of 0 mm or more, not {tolerance_mm}")


def _check_out(out: Path) -> None:
    """Refuse, before hours of work, a folder that cannot be written or holds anything that no evaluation put there."""
    from oncontour.files import check_writable

    check_writable(out)
    named = re.compile(
        r"(metrics|summary|failures|comparisons|methods|fields)\.csv|(summary|claims)\.txt|boxplots(-more)?\.(png|svg)|overlays"
    )
    there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    strangers = [name for name in there if name != FOLDER and not named.fullmatch(name)]
    if strangers:
        raise OutputError(
            f"the folder holds other things ({', '.join(strangers[:3])})", where=str(out), hint="name another folder as --out"
        )


def _check_anybody(patients: Cohort, methods: Mapping[str, Predictor]) -> None:
    """Raise CohortError, before anything is read, for predictions of nobody who is to be judged."""
    for name, one in methods.items():
        if isinstance(one, Predictions | MapPredictions) and not one.only and not set(one.cases) & set(patients.ids):
            raise CohortError(
                f"nobody of the cohort is predicted: the patients are {some(patients.ids)}; predicted are {some(one.cases)}",
                where=name,
                hint="name the folders or files of the predictions as the patients are named",
            )


def _card(predictor: Predictor) -> Card | None:
    """What is known of a model; None of contours that came as they are."""
    card: Card | None = getattr(predictor, "card", None)
    return card


def _remarks(predictor: Predictor, ids: Sequence[str], unnamed: Mapping[str, Sequence[int]]) -> list[str]:
    if isinstance(predictor, MapPredictions):
        return predictor.remarks(ids, unnamed)
    return predictor.remarks(ids) if isinstance(predictor, Predictions) else []
