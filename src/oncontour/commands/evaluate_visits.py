"""``oncontour evaluate`` of a cohort of repeat visits: models that adapt beside doing nothing and registration without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from oncontour.adapt.predict import Adapter
from oncontour.adapt.simulate import TITLE
from oncontour.adapt.unlearned import Nothing, Optimised
from oncontour.commands.cohort import digest, planned
from oncontour.commands.evaluate_cohort import Judging, Panels, Told, decides, judged
from oncontour.core.notes import some
from oncontour.core.structure_kinds import is_target
from oncontour.evaluate.found import FieldRow, Judged, gathered
from oncontour.evaluate.judge import Predictor, judge_one
from oncontour.evaluate.tables import as_csv
from oncontour.evaluate.visit_claims import claims
from oncontour.evaluate.visits import Visits, Watched, by_patient, fields_by_patient
from oncontour.evaluate.write import write
from oncontour.files import write_text
from oncontour.learn.card import Card
from oncontour.learn.resident import kept, once
from oncontour.many import Many
from oncontour.metrics.stats import bootstrap_mean
from oncontour.progress import Progress

NOTHING, OPTIMISED = "nothing", "instance optimisation"
LIMIT_MM = 1.8
FIELDS, CLAIMS = "fields.csv", "claims.txt"


def evaluate_visits(
    folders: Mapping[str, Sequence[Path]],
    models: Sequence[str],
    out: Path,
    *,
    structures: Sequence[str] = (),
    tolerance_mm: float = 2.0,
    threads: int = 1,
    many: Many = Many(),  # noqa: B008  (frozen: one value for all calls)
    progress: Progress | None = None,
) -> str:
    """Judge models that adapt on daily visits; writes the tables of every evaluation with the patient as the unit, OUT/fields.csv (one line
    a visit and method) and OUT/claims.txt, and gives all as text.

    ``folders``: patient -> folders of its visits, the planning visit first. ``structures``: those of the models by default, without a model
    all that are no targets. ``many``: who works on the visits. Raises CohortError where no visit could be judged, IncompleteError, when all
    is written, where some could not be, ModelError for a model that does not adapt.
    """
    visits = Visits(folders)
    with kept():
        adapters = _adapters(tuple(models))
        known = list(dict.fromkeys(name for one in adapters.values() for name in one.card.structures))
        wanted = tuple(structures) or tuple(known or _organs(visits))
        finds = Adapting(visits, tuple(models), wanted, tolerance_mm, threads)
        cards = [[name, decides(one.card)] for name, one in adapters.items()]
        plan = {"models": cards, "structures": wanted, "tolerance_mm": tolerance_mm, "threads": threads}
        work = Judging(finds, visits.files, digest(planned("evaluate visits", plan)), unit="visit")
        methods = tuple(_predictors(_watched(adapters), adapters))
        write = partial(_written, finds, adapters, methods, out)
        return judged(work, methods, out, many, write, progress)


@dataclass(frozen=True)
class Adapting:
    """What the models, doing nothing and registration make of a visit, judged visit by visit."""

    visits: Visits
    models: tuple[str, ...]
    structures: tuple[str, ...]
    tolerance_mm: float
    threads: int

    def __call__(self, id: str) -> Judged:
        import torch

        adapters = _adapters(self.models)
        watched, before = _watched(adapters), torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            found = judge_one(
                self.visits,
                id,
                _predictors(watched, adapters),
                structures=self.structures,
                tolerance_mm=self.tolerance_mm,
                threads=self.threads,
            )
        finally:
            torch.set_num_threads(before)
        return replace(found, fields=tuple(row for one in watched for row in one.rows))


def _adapters(models: tuple[str, ...]) -> dict[str, Adapter]:
    """Name -> model, loaded once where the process keeps models. Raises ModelError for one that does not adapt."""

    def load() -> dict[str, Adapter]:
        return {_unique(Path(model).stem, models[:n]): Adapter.load(model) for n, model in enumerate(models)}

    return once(("evaluate visits", models), load)


def _watched(adapters: Mapping[str, Adapter]) -> list[Watched]:
    return [Watched(NOTHING, Nothing()), Watched(OPTIMISED, Optimised()), *(Watched(name, one) for name, one in adapters.items())]


def _predictors(watched: Sequence[Watched], adapters: Mapping[str, Adapter]) -> dict[str, Predictor]:
    """Name -> output of a method; a model has one or two."""
    methods: dict[str, Predictor] = {}
    for one in watched:
        task = adapters[one.name].task if one.name in adapters else None
        methods |= one.predictors(registers=task is None or task.registers, segments=task is not None and task.segments)
    return methods


def _written(
    finds: Adapting,
    adapters: Mapping[str, Adapter],
    methods: Sequence[str],
    out: Path,
    visits: Sequence[Judged],
    _: Panels,
    remarks: Sequence[str],
) -> Told:
    """Write the evaluation of all visits that were judged. Raises CohortError where none was."""
    evaluation = gathered(visits, methods, finds.structures, finds.tolerance_mm)
    found = by_patient(evaluation)
    every = [row for one in visits for row in one.fields]
    fields = [row for name in (NOTHING, OPTIMISED, *adapters) for row in every if row.method == name]
    weights = {name: next((a.card.sha256 for key, a in adapters.items() if name.split(", ")[0] == key), "") for name in methods}
    said = write(found, out, overlays="none", weights=weights, remarks=[*_remarks(adapters, finds.visits.folders), *remarks])
    told = [
        str(claim)
        for name, one in adapters.items()
        if one.task.registers
        for claim in claims(found, fields, name, (NOTHING, OPTIMISED), NOTHING, LIMIT_MM)
    ]
    simulated = any(not np.isnan(row.error_mm) for row in fields)
    head = [TITLE.upper(), f"A mean field error of at most {LIMIT_MM} mm is asked for at amplitude 0.8.", ""] if simulated else []
    text = "\n".join([*head, *field_lines(fields), "", *(told or ["no model that finds fields was given: nothing is claimed"])])
    write_text(out / FIELDS, as_csv(fields, FieldRow))
    write_text(out / CLAIMS, text + "\n")
    return f"{text}\n\n{said}\n{FIELDS} and {CLAIMS} too", evaluation.failures


def field_lines(fields: Sequence[FieldRow]) -> list[str]:
    """A line for each method: error in mm with its interval over patients, folding, CPU seconds a visit."""
    lines = []
    for name in dict.fromkeys(row.method for row in fields):
        mine = [row for row in fields if row.method == name]
        error = fields_by_patient(mine, name)
        mean = bootstrap_mean(list(error.values()), list(error))
        words = f"field error {mean.mean:.2f} mm [{mean.low:.2f} to {mean.high:.2f}]" if error else "true field not known"
        folded, seconds = (np.array([getattr(row, what) for row in mine]) for what in ("folding_percent", "seconds"))
        lines.append(f"{name}: {words}, folding {np.nanmean(folded):.3f} %, {np.nanmean(seconds):.1f} CPU s a visit, {len(mine)} visits")
    return lines


def _organs(visits: Visits) -> list[str]:
    """What the visits are contoured with and that is no target."""
    return list(dict.fromkeys(name for id in visits.ids for name in visits[id].structures if not is_target(name)))


def _unique(name: str, earlier: Sequence[str]) -> str:
    """``name``, with a number where one of the models before it is called so too."""
    same = sum(Path(model).stem == name for model in earlier)
    return f"{name}-{same + 1}" if same else name


def _remarks(adapters: Mapping[str, Adapter], folders: Mapping[str, Sequence[Path]]) -> list[str]:
    cards: dict[str, Card] = {name: one.card for name, one in adapters.items()}
    known = {name: sorted(set(card.made.get("trained_on", ())) & set(folders)) for name, card in cards.items()}
    said = [
        f"{name} learned from {len(ids)} of these patients ({some(ids)}): it is not judged fairly" for name, ids in known.items() if ids
    ]
    return ["patients are the unit: figures are means over a patient's visits", *said]
