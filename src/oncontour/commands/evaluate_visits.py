"""``oncontour evaluate`` of a cohort of repeat visits: models that adapt beside doing nothing and registration without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from oncontour.adapt.predict import Adapter
from oncontour.adapt.simulate import TITLE
from oncontour.adapt.unlearned import Nothing, Optimised
from oncontour.core.notes import some
from oncontour.core.structure_kinds import is_target
from oncontour.evaluate.judge import Predictor, judge
from oncontour.evaluate.tables import as_csv
from oncontour.evaluate.visit_claims import claims
from oncontour.evaluate.visits import FieldRow, Visits, Watched, by_patient, fields_by_patient
from oncontour.evaluate.write import write
from oncontour.files import write_text
from oncontour.learn.card import Card
from oncontour.metrics.stats import bootstrap_mean

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
    progress: Callable[[float], None] | None = None,
) -> str:
    """Judge models that adapt on daily visits; writes the tables of every evaluation with the patient as the unit, OUT/fields.csv (one line
    a visit and method) and OUT/claims.txt, and gives all as text.

    ``folders``: patient -> folders of its visits, the planning visit first. ``structures``: those of the models by default, without a model
    all that are no targets. Raises CohortError where no visit could be judged, ModelError for a model that does not adapt.
    """
    adapters = {_unique(Path(model).stem, models[:n]): Adapter.load(model) for n, model in enumerate(models)}
    visits = Visits(folders)
    wanted = list(structures) or list(dict.fromkeys(name for one in adapters.values() for name in one.card.structures)) or _organs(visits)
    watched = [Watched(NOTHING, Nothing()), Watched(OPTIMISED, Optimised()), *(Watched(name, one) for name, one in adapters.items())]
    methods: dict[str, Predictor] = {}
    for one in watched:
        task = adapters[one.name].task if one.name in adapters else None
        methods |= one.predictors(registers=task is None or task.registers, segments=task is not None and task.segments)
    found = by_patient(judge(visits, methods, structures=wanted, tolerance_mm=tolerance_mm, progress=progress))
    fields = [row for one in watched for row in one.rows]
    weights = {name: next((a.card.sha256 for key, a in adapters.items() if name.split(", ")[0] == key), "") for name in methods}
    said = write(found, out, overlays="none", weights=weights, remarks=_remarks(adapters, folders))
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
    return f"{text}\n\n{said}\n{FIELDS} and {CLAIMS} too"


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
