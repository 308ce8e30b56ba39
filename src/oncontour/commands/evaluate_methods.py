"""What ``oncontour evaluate`` judges: models and folders of contours as methods by name, and what they draw of one patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour.errors import ConfigError, InputError
from oncontour.evaluate.predictions import MapPredictions, Predictions

if TYPE_CHECKING:
    from oncontour.evaluate.found import Judged
    from oncontour.evaluate.judge import Predictor
    from oncontour.io.cohort import Cohort
    from oncontour.io.image.labelmap import Labels


@dataclass(frozen=True)
class Asked:
    """Which methods are judged, and how they draw: all that ``methods`` depends on. ``several``: predictions are a cohort as the truth is;
    ``threads``: of a worker, None for all there are."""

    models: tuple[str, ...]
    predictions: tuple[Path, ...]
    labels: Path | None
    several: bool
    any_region: bool
    threads: int | None

    def methods(self) -> dict[str, Predictor]:
        """Name -> predictor, loaded once where the process keeps models. Raises ConfigError where nothing is asked for, and what reading
        models and folders raises."""
        from oncontour.learn.resident import once

        return once(("evaluate", self), lambda: _methods(self))


@dataclass(frozen=True)
class Contours:
    """What the methods draw, judged patient by patient. ``look``: keep what overlays show."""

    paths: Mapping[str, Path]
    asked: Asked
    structures: tuple[str, ...]
    tolerance_mm: float
    look: bool

    def __call__(self, id: str) -> Judged:
        from oncontour.evaluate.judge import judge_one
        from oncontour.io.cohort import Cohort

        methods = self.asked.methods()
        found = judge_one(
            Cohort({id: self.paths[id]}, str(self.paths[id])),
            id,
            methods,
            structures=self.structures,
            tolerance_mm=self.tolerance_mm,
            threads=self.asked.threads or 0,
            look=self.look,
        )
        unnamed = {name: one.unnamed(id) for name, one in methods.items() if isinstance(one, MapPredictions)}
        return replace(found, unnamed={name: numbers for name, numbers in unnamed.items() if numbers})


def patients_at(path: Path, several: bool = False) -> tuple[Cohort, bool]:
    """The patients at ``path`` and whether it is a cohort (else it is one patient).

    Raises CohortError where ``several`` says that it is one and it is not.
    """
    from oncontour.io.cohort import Cohort
    from oncontour.io.folders import check_patient
    from oncontour.io.patients import is_cohort

    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path), hint="check the path of the cohort")
    several = several or is_cohort(path)
    if not several:
        check_patient(path)
    return (Cohort.open(path) if several else Cohort({path.resolve().name: path}, str(path))), several


def _methods(asked: Asked) -> dict[str, Predictor]:
    """Name -> predictor; files that are called the same get a number."""
    if not asked.models and not asked.predictions:
        raise ConfigError("nothing to judge: neither --model nor --predictions was given")
    drawn = _predictions(asked.predictions, asked.several, asked.labels)
    named: list[tuple[str, Predictor]] = []
    for model in asked.models:
        from oncontour.commands.made_images import making_images
        from oncontour.contour.predict import anywhere, load_contourer

        named.append((Path(model).stem, making_images(anywhere(load_contourer(model, threads=asked.threads), asked.any_region))))
    out: dict[str, Predictor] = {}
    for name, predictor in [*named, *drawn]:
        number = 2
        unique = name
        while unique in out:
            unique, number = f"{name}-{number}", number + 1
        out[unique] = predictor
    return out


def _predictions(folders: Sequence[Path], several: bool, labels: Path | None) -> list[tuple[str, Predictor]]:
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
        cohort = Cohort.open(folder) if several else patients_at(folder)[0]
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
