"""``oncontour evaluate``: contours judged against the truth of a cohort."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.core.notes import some
from oncontour.errors import CohortError, ConfigError, IncompleteError, InputError, OutputError
from oncontour.evaluate.predictions import MapPredictions, Predictions
from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.evaluate.judge import Predictor
    from oncontour.io.cohort import Cohort
    from oncontour.io.image.labelmap import Labels
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
    progress: Progress | None = None,
) -> str:
    """Judge contours against the truth of a cohort: tables with intervals and tests, box plots, overlays.

    The truth is what the patients of COHORT come with; models never see it. Give --model or --predictions again to compare several:
    paired tests then stand beside the tables. OUT gets metrics.csv (one number a line), summary.csv, comparisons.csv, failures.csv,
    methods.csv (which weights each method has), box plots and overlays as PNG and SVG. One patient that cannot be read does not stop the
    others: it is named, everything is written, and the exit code is that of an error. OUT is a new folder or holds an earlier evaluation,
    which is replaced.

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
        progress: called with the fraction done
    """
    from oncontour.adapt.inputs import visits_in
    from oncontour.evaluate.judge import judge
    from oncontour.evaluate.write import write
    from oncontour.learn.card import notes

    if visited := visits_in(cohort):
        return _visits(visited, model or [], predictions or [], out, structures or [], tolerance_mm, progress)
    patients, several = _patients(cohort)
    methods = _methods(model or [], predictions or [], several, any_region, labels)
    _check_anybody(patients, methods)
    _check_tolerance(tolerance_mm)
    _check_out(out)
    found = judge(patients, methods, structures=structures or (), tolerance_mm=tolerance_mm, look=overlays != "none", progress=progress)
    cards: dict[str, Card | None] = {name: getattr(one, "card", None) for name, one in methods.items()}
    of_file = {name: [] if card is None else notes(card) for name, card in cards.items()}
    remarks = [f"{name}: {line}" for name, one in methods.items() for line in (*of_file[name], *_remarks(one, patients.ids))]
    weights = {name: card.sha256 if card else "" for name, card in cards.items()}
    said = write(found, out, overlays=overlays, weights=weights, remarks=remarks)
    failed = list(dict.fromkeys(failure.patient for failure in found.failures))
    if failed:
        raise IncompleteError(
            f"{len(failed)} of {len(patients)} patients could not be judged ({', '.join(failed[:10])}{', ...' if failed[10:] else ''}); "
            "the tables are of the others",
            where=str(out / "failures.csv"),
            done=said,
        )
    return said


def _visits(
    folders: Mapping[str, list[Path]],
    models: list[str],
    predictions: list[Path],
    out: Path,
    structures: list[str],
    tolerance_mm: float,
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
    return evaluate_visits(folders, models, out, structures=structures, tolerance_mm=tolerance_mm, progress=progress)


def _check_tolerance(tolerance_mm: float) -> None:
    if not (tolerance_mm >= 0):
        raise ConfigError(f"a tolerance is 0 mm or more, not {tolerance_mm}")


def _check_out(out: Path) -> None:
    """Refuse, before hours of work, a folder that cannot be written or holds anything that no evaluation put there."""
    from oncontour.files import check_writable

    check_writable(out)
    named = re.compile(
        r"(metrics|summary|failures|comparisons|methods|fields)\.csv|(summary|claims)\.txt|boxplots(-more)?\.(png|svg)|overlays"
    )
    strangers = sorted(path.name for path in out.iterdir() if not named.fullmatch(path.name)) if out.exists() else []
    if strangers:
        raise OutputError(
            f"the folder holds other things ({', '.join(strangers[:3])})", where=str(out), hint="name another folder as --out"
        )


def _patients(path: Path) -> tuple[Cohort, bool]:
    """The patients at ``path`` and whether it is a cohort (else it is one patient)."""
    from oncontour.io.cohort import Cohort
    from oncontour.io.folders import check_patient
    from oncontour.io.patients import is_cohort

    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path), hint="check the path of the cohort")
    several = is_cohort(path)
    if not several:
        check_patient(path)
    return (Cohort.open(path) if several else Cohort({path.resolve().name: path}, str(path))), several


def _methods(models: list[str], predictions: list[Path], several: bool, any_region: bool, labels: Path | None) -> dict[str, Predictor]:
    """Name -> predictor; files that are called the same get a number. ``several``: predictions are a cohort as the truth is."""
    if not models and not predictions:
        raise ConfigError("nothing to judge: neither --model nor --predictions was given")
    drawn = _predictions(predictions, several, labels)
    named: list[tuple[str, Predictor]] = []
    for model in models:
        from oncontour.commands.made_images import making_images
        from oncontour.contour.predict import anywhere, load_contourer

        named.append((Path(model).stem, making_images(anywhere(load_contourer(model), any_region))))
    out: dict[str, Predictor] = {}
    for name, predictor in [*named, *drawn]:
        number = 2
        unique = name
        while unique in out:
            unique, number = f"{name}-{number}", number + 1
        out[unique] = predictor
    return out


def _predictions(folders: list[Path], several: bool, labels: Path | None) -> list[tuple[str, Predictor]]:
    """(name, predictor) of each folder: label maps where ``labels`` are given and image files lie in it, else contours by patient.

    Raises ConfigError for labels that name nothing, and for label maps whose numbers nobody names.
    """
    from oncontour.io.cohort import Cohort
    from oncontour.io.image.label_folder import flat_folder
    from oncontour.io.image.labelmap import read_labels

    names = None if labels is None else read_labels(labels)
    named: list[tuple[str, Predictor]] = []
    for folder in folders:
        flat = folder.is_file() or flat_folder(folder)
        if names is not None and flat:
            named.append((_called(folder), _maps(folder, names, several)))
            continue
        if several and flat and folder.is_dir():
            raise ConfigError(
                f"image files lie here side by side ({flat}), and no folders of patients",
                where=str(folder),
                hint="where each is the label map of a patient, name its numbers: --labels labels.json, or nnU-Net's dataset.json",
            )
        cohort = Cohort.open(folder) if several else _patients(folder)[0]
        named.append((_called(folder), Predictions(cohort, only=not several and len(cohort) == 1)))
    if names is not None and not any(isinstance(one, MapPredictions) for _, one in named):
        raise ConfigError(
            "the numbers of label maps are named, and no --predictions holds label maps",
            where=names.where,
            hint="give --predictions a folder with one image file a patient, or leave out --labels",
        )
    return named


def _maps(folder: Path, labels: Labels, several: bool) -> MapPredictions:
    from oncontour.io.image.label_folder import LabelFolder

    maps = LabelFolder.open(folder, labels)
    return MapPredictions(maps, only=not several and len(maps.paths) == 1)


def _called(path: Path) -> str:
    """What a folder or file of predictions is called in the tables."""
    from oncontour.io.image.layout import stem

    return stem(path) if path.is_file() else path.resolve().name


def _check_anybody(patients: Cohort, methods: Mapping[str, Predictor]) -> None:
    """Raise CohortError, before anything is read, for predictions of nobody who is to be judged."""
    for name, one in methods.items():
        if isinstance(one, Predictions | MapPredictions) and not one.only and not set(one.cases) & set(patients.ids):
            raise CohortError(
                f"nobody of the cohort is predicted: the patients are {some(patients.ids)}; predicted are {some(one.cases)}",
                where=name,
                hint="name the folders or files of the predictions as the patients are named",
            )


def _remarks(predictor: Predictor, ids: Sequence[str]) -> list[str]:
    return predictor.remarks(ids) if isinstance(predictor, Predictions | MapPredictions) else []
