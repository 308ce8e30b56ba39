"""What several contour models draw in many patients, kept as files: to judge them, and to learn contour quality from their mistakes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from oncontour.core.case import Case, LabelMasks
from oncontour.core.notes import NOT_OF_IMAGES, except_about, grouped
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, GeometryError, IncompleteError, InputError, ModelError
from oncontour.files import csv_text, sweep, write_text
from oncontour.io.image.layout import CHANCES, MASKS
from oncontour.progress import Progress, part

if TYPE_CHECKING:
    from oncontour.contour.predict import Contourer
    from oncontour.io.cohort import Cohort

CONFIDENCE = "confidence.csv"
"""Beside the patients: mean probability of the model over each slice's contour."""


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A contour model under a name of its own, perhaps with a wrong window; ``trained_on``: patients it must not be shown."""

    name: str
    contourer: Contourer
    trained_on: frozenset[str]


def predict(
    cohort: Path,
    *,
    out: Path,
    model: list[str],
    hu_shift: list[float] | None = None,
    seen: bool = False,
    overlap: float = 0.25,
    chances: bool = False,
    any_region: bool = False,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Contour every patient of a cohort with several models: OUT/MODEL/PATIENT/masks/NAME.nii.gz.

    A patient that a model learned from is left out for that model, as its card names them: what is judged or learned from here is what the
    model does with patients that are new to it. A patient that was drawn already is not drawn again; when one cannot be drawn the others
    are, and the exit code is that of an error. confidence.csv beside the patients has the mean probability over each slice's contour; with
    --chances OUT/MODEL/PATIENT/chances/NAME.nii.gz has the probability of every voxel times 255, one half at the contour. Contours are as
    the net gives them: nothing is tidied.

    Examples:
        oncontour predict COHORT --model hn-organs --out CLAIMS --seen
        oncontour predict COHORT --model runs/a/model.safetensors --model runs/a/model-epoch5.safetensors --out CLAIMS
        oncontour predict COHORT --model runs/a/model.safetensors --hu_shift 0,80 --out CLAIMS

    Args:
        cohort: folder (or CSV) of patients with a CT
        out: folder for the contours, one folder a model
        model: name of a shipped model or path of a model file; again for several; folders are named by the files
        hu_shift: also draw with the model's grey-value window moved by so many HU (a wrong window makes other mistakes)
        seen: patients that the model learned from as well (then nothing may be concluded from them)
        overlap: of the windows that the net sees
        any_region: draw on CTs of another part of the body than the models were made for; such patients are not drawn otherwise
        chances: keep how likely the model thought each voxel, for quality models that learn from the segmenter's probability maps
        backend: what computes the nets
        threads: CPU threads for the nets
        progress: called with the fraction done
    """
    from oncontour.io.cohort import Cohort
    from oncontour.learn.card import notes as notes_of
    from oncontour.ops.body import drawn_elsewhere

    patients = Cohort.open(cohort)
    segmenters = [s for name in model for s in load(name, hu_shift or [0.0], seen=seen, overlap=overlap, backend=backend, threads=threads)]
    for segmenter in segmenters:
        segmenter.contourer.any_region = any_region
    if len({s.name for s in segmenters}) != len(segmenters):
        raise ConfigError(f"two models have one name among {[s.name for s in segmenters]}", hint="rename one of the files")
    _check_folders(patients.ids, str(cohort))
    lines, failed = [], list[str]()
    for n, segmenter in enumerate(segmenters):
        unseen = [id for id in patients.ids if id not in segmenter.trained_on]
        step = part(progress, n / len(segmenters), (n + 1) / len(segmenters))
        shown: dict[str, str] = {}
        drawn = draw(segmenter, patients, unseen, out / segmenter.name, step, chances=chances, failed=failed, elsewhere=shown)
        known = len(patients) - len(unseen)
        lines.append(f"{segmenter.name}: {drawn} of {len(patients)} patients drawn, {known} left out as it learned from them")
        lines += [f"{segmenter.name}: {note}" for note in notes_of(segmenter.contourer.card)]
        lines += drawn_elsewhere(segmenter.name, shown)
    if failed:
        raise IncompleteError(f"not drawn: {'; '.join(failed)}; the others are in {out}", where=str(cohort), done="\n".join(lines))
    return "\n".join(lines)


def _check_folders(ids: Sequence[str], where: str) -> None:
    """Raise CohortError for a patient that no folder can be called by: it would be drawn elsewhere, perhaps over what is there."""
    for id in ids:
        if Path(id).name != id or id == "..":
            raise CohortError(f"patient {id!r} cannot be the name of a folder", where=where, hint="call the patient otherwise in the CSV")


def load(
    model: str, shifts: Sequence[float], *, seen: bool, overlap: float, backend: Literal["auto", "torch", "openvino"], threads: int | None
) -> Iterator[Segmenter]:
    """The model once for every shift of its window. Raises ModelError for other people's models, and where the card does not say whom it
    learned from."""
    from oncontour.contour.predict import Contourer, load_contourer
    from oncontour.learn.card import find
    from oncontour.ops.tidy import Tidy

    for shift in shifts:
        contourer = load_contourer(model, backend=backend, rules=Tidy.off(), threads=threads)
        if not isinstance(contourer, Contourer):
            raise ModelError("only our own contour models", where=model, hint="draw with `oncontour run` and give the folder as --claims")
        made = contourer.card.made
        if not seen and "trained_on" not in made:
            raise ModelError(
                "the card does not say which patients the model learned from", where=model, hint="train it again, or use --seen"
            )
        settings = contourer.task.settings
        if settings.overlap:
            raise ModelError(
                "its structures may overlap, and how sure the model was is kept for one structure a voxel",
                where=model,
                hint="draw with `oncontour run` and give the folder as --claims",
            )
        if shift:
            low, high = settings.hu
            contourer.task.settings = replace(settings, hu=(low + shift, high + shift))
        contourer.overlap = overlap
        name = find(model).stem + (f"{shift:+g}HU" if shift else "")
        yield Segmenter(name, contourer, frozenset() if seen else frozenset(made["trained_on"]))


def draw(
    segmenter: Segmenter,
    patients: Cohort,
    ids: Sequence[str],
    out: Path,
    progress: Progress | None = None,
    *,
    chances: bool = False,
    failed: list[str] | None = None,
    elsewhere: dict[str, str] | None = None,
) -> int:
    """Draw the patients ``ids`` into ``out``, with ``chances`` how likely each voxel was too; gives how many are there in the end.

    One that cannot be read, or lies on no grid, is named on stderr and in ``failed``. ``elsewhere`` gets what the CT shows of those drawn
    now whose CT plainly shows another part of the body than the model was made for. Raises OutputError where the folder of a patient
    holds other things.
    """
    from oncontour.io.dicom.patient_write import check_replaceable
    from oncontour.io.image.layout import write_layout
    from oncontour.ops.body import elsewhere as shown_elsewhere
    from oncontour.quality.segmenters import write_probabilities

    rows = _confidences(out / CONFIDENCE)
    done, remarks = 0, dict[str, tuple[str, ...]]()
    for n, id in enumerate(ids):
        if not (out / id / (CHANCES if chances else MASKS)).is_dir():
            sweep(out / id / CHANCES)  # what a killed run left
            check_replaceable(out / id)
            try:
                case = patients.read(id, lenient=True)  # its own structures and dose are not asked for
                remarks[id] = tuple(except_about(case.facts.get("notes", ()), *NOT_OF_IMAGES))
                drawn, sure, likely = drawn_alone(segmenter.contourer, case, chances=chances)
            except (InputError, GeometryError) as error:
                sys.stderr.write(f"{id} was left out: {error}\n")
                if failed is not None:
                    failed.append(f"{id} by {segmenter.name}")
                continue
            if elsewhere is not None and (shown := shown_elsewhere(case.ct, segmenter.contourer.card.region)):
                elsewhere[id] = shown
            # The folder last: it says that the patient is done.
            rows = [row for row in rows if row[0] != id] + sure
            told = [(patient, name, k, f"{p:.4f}") for patient, name, k, p in rows]
            write_text(out / CONFIDENCE, csv_text([("patient", "structure", "k", "probability"), *told]))
            write_layout(drawn, out / id)
            if likely:
                write_probabilities(likely, out / id)
        done += 1
        if progress is not None:
            progress((n + 1) / len(ids))
    sys.stderr.write("".join(f"{line}\n" for line in grouped(remarks)))
    return done


def drawn_alone(
    contourer: Contourer, case: Case, *, chances: bool = False
) -> tuple[Case, list[tuple[str, str, int, float]], Mapping[str, Volume]]:
    """(a case of the drawn masks alone, rows of confidence: patient, structure, slice, mean probability over the contour; and, with
    ``chances``, structure -> probability times 255 on the grid the net works on, one half at the contour). Raises InputError for
    a CT of another part of the body than the model was made for, unless it may draw anywhere."""
    from oncontour.contour.probabilities import by_structure
    from oncontour.ops.body import check_shown
    from oncontour.ops.windows import stitch_labels

    s, bare = contourer.task.settings, case.without_structures()
    if not contourer.any_region:
        check_shown(case.ct, contourer.card.region, contourer.card.name)
    if chances:
        contourer.check_small(s.working_grid(case.geometry))
    stitched = stitch_labels(
        contourer.answer,
        contourer.image(bare, s.working_grid(case.geometry)),
        len(s.structures),
        window=s.window,
        overlap=contourer.overlap,
        target=case.geometry,
        mode="sigmoid",
        threshold=s.threshold,
        blend="gaussian" if chances else "auto",
        dims=2 if s.flat else 3,
        context=s.neighbours,
        pad=-1.0,
        confidence=True,
        chances=chances,
    )
    masks = LabelMasks(stitched.labels, s.structures)
    sure = stitched.confidence
    rows = [] if sure is None else [row for name in masks for row in _sure(case.id, name, masks[name], sure)]
    likely = {} if stitched.chances is None else by_structure(stitched.chances, s.structures, s.thresholds)
    return Case(case.id, masks=dict(masks)), rows, likely


def _sure(patient: str, name: str, mask: Volume, sure: Volume) -> Iterator[tuple[str, str, int, float]]:
    count = mask.array.sum(axis=(1, 2))
    for k in np.flatnonzero(count):
        yield patient, name, int(k), float(sure.array[k][mask.array[k]].astype(np.float64).mean())


def _confidences(path: Path) -> list[tuple[str, str, int, float]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [(row["patient"], row["structure"], int(row["k"]), float(row["probability"])) for row in csv.DictReader(stream)]


def confidences(folder: Path) -> dict[tuple[str, str, int], float]:
    """(patient, structure, slice) -> mean probability, of what ``predict`` drew into ``folder``; empty where there is none."""
    return {(patient, structure, k): p for patient, structure, k, p in _confidences(folder / CONFIDENCE)}
