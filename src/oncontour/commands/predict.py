"""What several contour models draw in many patients, kept as files: to judge them, and to learn contour quality from their mistakes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from oncontour.commands.cohort import made_of
from oncontour.commands.cohort_spread import spread
from oncontour.commands.cohort_table import Table
from oncontour.commands.cohort_work import Outcome
from oncontour.core.case import Case, LabelMasks
from oncontour.core.notes import NOT_OF_IMAGES, except_about, grouped
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, GeometryError, IncompleteError, InputError, ModelError
from oncontour.files import csv_text, sweep, write_text
from oncontour.io.image.layout import CHANCES, MASKS
from oncontour.many import Many
from oncontour.progress import Progress, part

if TYPE_CHECKING:
    from oncontour.contour.predict import Contourer
    from oncontour.io.cohort import Cohort

Backend = Literal["auto", "torch", "openvino"]
Sure = tuple[str, str, int, float]
"""patient, structure, slice, mean probability over the contour"""
CONFIDENCE = "confidence.csv"
"""Beside the patients: mean probability of the model over each slice's contour."""


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A contour model under a name of its own, perhaps with a wrong window; ``trained_on``: patients it must not be shown."""

    name: str
    contourer: Contourer
    trained_on: frozenset[str]


@dataclass(frozen=True)
class _Which:
    """Which segmenter, and how it draws: all that ``_load`` depends on."""

    model: str
    shift: float
    seen: bool
    overlap: float
    backend: Backend
    threads: int | None
    any_region: bool = False


@dataclass(frozen=True)
class Kept:
    """What is told of a patient whose contours were kept as files."""

    sure: tuple[Sure, ...]
    notes: tuple[str, ...]
    elsewhere: str
    """what the CT shows where that is plainly another part of the body than the model was made for, "" otherwise"""

    @classmethod
    def of(cls, said: str) -> Kept:
        """From the JSON of its fields."""
        told = json.loads(said)
        return cls(tuple((str(id), str(name), int(k), float(p)) for id, name, k, p in told["sure"]), (*told["notes"],), told["elsewhere"])


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
    backend: Backend = "auto",
    threads: int | None = None,
    many: Many = Many(),  # noqa: B008  (frozen: one value for all calls)
    progress: Progress | None = None,
) -> str:
    """Contour every patient of a cohort with several models: OUT/MODEL/PATIENT/masks/NAME.nii.gz.

    A patient that a model learned from is left out for that model, as its card names them: what is judged or learned from here is what the
    model does with patients that are new to it. A patient that was drawn already, by the same model in the same way, is not drawn again;
    when one cannot be drawn the others are, and the exit code is that of an error. confidence.csv beside the patients has the mean
    probability over each slice's contour; with --chances OUT/MODEL/PATIENT/chances/NAME.nii.gz has the probability of every voxel times
    255, one half at the contour. Contours are as the net gives them: nothing is tidied.

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
        threads: CPU threads of a worker for the nets; one unless said
        many: processes, shard and engine
        progress: called with the fraction done
    """
    from oncontour.io.cohort import Cohort

    patients = Cohort.open(cohort)
    asked = [_Which(name, by, seen, overlap, backend, threads or 1, any_region) for name in model for by in hu_shift or [0.0]]
    segmenters = [(which, _load(which)) for which in asked]
    names = [segmenter.name for _, segmenter in segmenters]
    if len(set(names)) != len(names):
        raise ConfigError(f"two models have one name among {names}", hint="rename one of the files")
    _check_folders(patients.ids, str(cohort))
    lines, failed = [], list[str]()
    for n, (which, segmenter) in enumerate(segmenters):
        step = part(progress, n / len(segmenters), (n + 1) / len(segmenters))
        said, bad = _drawn(segmenter, which, patients, out / segmenter.name, chances, many, step)
        lines += said
        failed += bad
    if failed:
        raise IncompleteError(f"not drawn: {'; '.join(failed)}; the others are in {out}", where=str(cohort), done="\n".join(lines))
    return "\n".join(lines)


def _drawn(
    segmenter: Segmenter, which: _Which, patients: Cohort, out: Path, chances: bool, many: Many, progress: Progress | None
) -> tuple[list[str], list[str]]:
    """What is to be said of one model's contours of all patients that are new to it, and who could not be drawn."""
    from oncontour.learn.card import notes as notes_of
    from oncontour.ops.body import drawn_elsewhere

    unseen = [id for id in patients.ids if id not in segmenter.trained_on]
    work = _Drawing(dict(patients.paths), which, segmenter.contourer.card.sha256, out, chances)
    for id in many.picked(unseen):
        if not work.is_there(id):
            _check_place(out / id)
    table = Table(out)
    became = spread(work, unseen, many, table, progress)
    _write_confidences(out / CONFIDENCE, unseen, table)
    kept = {id: Kept.of(became.outcomes[id].said) for id in became.done}
    sys.stderr.write("".join(f"{id} was left out: {why}\n" for id, why in became.failed.items()))
    sys.stderr.write("".join(f"{line}\n" for line in grouped({id: one.notes for id, one in kept.items()})))
    known = len(patients) - len(unseen)
    lines = [f"{segmenter.name}: {len(kept)} of {len(patients)} patients drawn, {known} left out as it learned from them"]
    lines += [f"{segmenter.name}: {note}" for note in (*became.in_other_hands, *notes_of(segmenter.contourer.card))]
    lines += drawn_elsewhere(segmenter.name, {id: one.elsewhere for id, one in kept.items() if one.elsewhere})
    return lines, [f"{id} by {segmenter.name}" for id in became.failed]


@dataclass(frozen=True)
class _Drawing:
    """What one model draws, patient by patient, into ``out``. ``weights``: their hash."""

    paths: Mapping[str, Path]
    which: _Which
    weights: str
    out: Path
    chances: bool

    def __call__(self, id: str) -> Outcome:
        from oncontour.io.cohort import Cohort
        from oncontour.learn.resident import once

        segmenter = once(("predict", self.which), lambda: _load(self.which))
        kept = draw_one(segmenter, Cohort({id: self.paths[id]}, str(self.paths[id])), id, self.out, chances=self.chances)
        return Outcome(id, said=json.dumps(asdict(kept), ensure_ascii=False))

    def made_of(self, id: str) -> str:
        from oncontour import __version__

        told = {**asdict(self.which), "model": self.weights, "seen": None, "version": __version__}
        return made_of([self.paths[id]], json.dumps(told, sort_keys=True))

    def is_there(self, id: str) -> bool:
        return _is_drawn(self.out / id, self.chances)


def _is_drawn(folder: Path, chances: bool) -> bool:
    return (folder / (CHANCES if chances else MASKS)).is_dir()


def _check_place(folder: Path) -> None:
    """Raise OutputError where the folder of a patient holds other things."""
    from oncontour.io.dicom.patient_write import check_replaceable

    sweep(folder / CHANCES)  # what a killed run left
    check_replaceable(folder, (CHANCES,))


def _write_confidences(path: Path, ids: Sequence[str], table: Table) -> None:
    """Write how sure the model was of every patient of whom that is known by now, other shards' too; of patients of other cohorts what was
    there stays. The last of several drivers that end tells of all: each looks once more whether others ended while it wrote."""
    told = -1
    while True:
        known = {id: Kept.of(found.said).sure for id in ids if (found := table.found(id)) and not found.why}
        if not known or len(known) == told:
            return
        told = len(known)
        others = [row for row in _confidences(path) if row[0] not in known]
        _write_rows(path, [*others, *(row for rows in known.values() for row in rows)])


def _write_rows(path: Path, rows: Sequence[Sure]) -> None:
    told = [(patient, name, k, f"{p:.4f}") for patient, name, k, p in rows]
    write_text(path, csv_text([("patient", "structure", "k", "probability"), *told]))


def _check_folders(ids: Sequence[str], where: str) -> None:
    """Raise CohortError for a patient that no folder can be called by: it would be drawn elsewhere, perhaps over what is there."""
    for id in ids:
        if Path(id).name != id or id == "..":
            raise CohortError(f"patient {id!r} cannot be the name of a folder", where=where, hint="call the patient otherwise in the CSV")


def load(model: str, shifts: Sequence[float], *, seen: bool, overlap: float, backend: Backend, threads: int | None) -> Iterator[Segmenter]:
    """The model once for every shift of its window. Raises ModelError as ``_load``."""
    for shift in shifts:
        yield _load(_Which(model, shift, seen, overlap, backend, threads))


def _load(which: _Which) -> Segmenter:
    """Raises ModelError for other people's models, for structures that may overlap, and where the card does not say whom the model learned
    from."""
    from oncontour.commands.made_images import making_images
    from oncontour.contour.predict import Contourer, load_contourer
    from oncontour.learn.card import find
    from oncontour.ops.tidy import Tidy

    model = which.model
    contourer = making_images(load_contourer(model, backend=which.backend, rules=Tidy.off(), threads=which.threads))
    if not isinstance(contourer, Contourer):
        raise ModelError("only our own contour models", where=model, hint="draw with `oncontour run` and give the folder as --claims")
    made = contourer.card.made
    if not which.seen and "trained_on" not in made:
        raise ModelError("the card does not say which patients the model learned from", where=model, hint="train it again, or use --seen")
    settings = contourer.task.settings
    if settings.overlap:
        raise ModelError(
            "its structures may overlap, and how sure the model was is kept for one structure a voxel",
            where=model,
            hint="draw with `oncontour run` and give the folder as --claims",
        )
    if which.shift:
        low, high = settings.hu
        contourer.task.settings = replace(settings, hu=(low + which.shift, high + which.shift))
    contourer.overlap, contourer.any_region = which.overlap, which.any_region
    name = find(model).stem + (f"{which.shift:+g}HU" if which.shift else "")
    return Segmenter(name, contourer, frozenset() if which.seen else frozenset(made["trained_on"]))


def draw(segmenter: Segmenter, patients: Cohort, ids: Sequence[str], out: Path, *, chances: bool = False) -> None:
    """Draw the patients ``ids`` into ``out`` in this process, but those that are there, with ``chances`` how likely each voxel was too.

    One that cannot be read, or lies on no grid, is named on stderr. Raises OutputError where the folder of a patient holds other things.
    """
    rows, remarks = _confidences(out / CONFIDENCE), dict[str, tuple[str, ...]]()
    for id in ids:
        if _is_drawn(out / id, chances):
            continue
        _check_place(out / id)
        try:
            kept = draw_one(segmenter, patients, id, out, chances=chances)
        except (InputError, GeometryError) as error:
            sys.stderr.write(f"{id} was left out: {error}\n")
            continue
        remarks[id] = kept.notes
        rows = [row for row in rows if row[0] != id] + list(kept.sure)
        _write_rows(out / CONFIDENCE, rows)
    sys.stderr.write("".join(f"{line}\n" for line in grouped(remarks)))


def draw_one(segmenter: Segmenter, patients: Cohort, id: str, out: Path, *, chances: bool = False) -> Kept:
    """Draw patient ``id`` into OUT/ID. Raises what reading raises, InputError as ``drawn_alone``, OutputError as ``_check_place``."""
    from oncontour.io.image.layout import write_layout
    from oncontour.ops.body import elsewhere
    from oncontour.quality.segmenters import write_probabilities

    case = patients.read(id, lenient=True)  # its own structures and dose are not asked for
    notes = tuple(str(note) for note in except_about(case.facts.get("notes", ()), *NOT_OF_IMAGES))
    drawn, sure, likely = drawn_alone(segmenter.contourer, case, chances=chances)
    _check_place(out / id)
    write_layout(drawn, out / id)
    if likely:
        write_probabilities(likely, out / id)
    return Kept(tuple(sure), notes, elsewhere(case.ct, segmenter.contourer.card.region))


def drawn_alone(contourer: Contourer, case: Case, *, chances: bool = False) -> tuple[Case, list[Sure], Mapping[str, Volume]]:
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


def _sure(patient: str, name: str, mask: Volume, sure: Volume) -> Iterator[Sure]:
    count = mask.array.sum(axis=(1, 2))
    for k in np.flatnonzero(count):
        yield patient, name, int(k), float(sure.array[k][mask.array[k]].astype(np.float64).mean())


def _confidences(path: Path) -> list[Sure]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [(row["patient"], row["structure"], int(row["k"]), float(row["probability"])) for row in csv.DictReader(stream)]


def confidences(folder: Path) -> dict[tuple[str, str, int], float]:
    """(patient, structure, slice) -> mean probability, of what ``predict`` drew into ``folder``; empty where there is none."""
    return {(patient, structure, k): p for patient, structure, k, p in _confidences(folder / CONFIDENCE)}
