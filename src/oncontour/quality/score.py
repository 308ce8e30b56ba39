"""How right contours are, told without a truth: by a quality model where there is one, else by the rules alone.

load(model)            the model, the shipped one by default; None where none is shipped
score(case, model)     the case with its ``assessment``
unscored(case, ...)    an assessment of the rules' findings alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour.core.assessment import Assessment, Finding
from oncontour.core.case import Case
from oncontour.errors import ModelError
from oncontour.learn.card import card_words
from oncontour.learn.card import notes as card_notes
from oncontour.learn.engine import Backend, computed_with
from oncontour.progress import Progress
from oncontour.quality.rules import findings_or_why, unchecked
from oncontour.quality.slice_scores import not_scored

if TYPE_CHECKING:
    from oncontour.quality.predict import Assessor

DEFAULT_MODEL = "hn-quality"
"""The shipped quality model; it refuses what it was not made for."""
REPLACED = ("hn-quality-own", "hn-quality-opinion", "hn-quality-both")
"""Shipped quality models of earlier versions, whose place DEFAULT_MODEL took."""
NO_BOUND = (
    "the reference probabilities come from another version of {} than the bound was made with: no bound is given where they were used. "
    "Way out: oncontour calibrate."
)
WITHOUT = "No quality model is installed: only the rules have looked at these contours."


def load(model: str | None = None, *, backend: Backend = "auto", threads: int | None = None) -> Assessor | None:
    """The quality model ``model`` (a file or a shipped name), by default the shipped one; None where none is named and none is shipped.

    Raises ModelError where the model is made for something else, and for the names of REPLACED.
    """
    from oncontour.learn.card import shipped

    if model in REPLACED and not Path(model).exists():
        raise ModelError(
            f"{DEFAULT_MODEL} took the place of {model}: it uses the probability maps that there are",
            where=model,
            hint=f"name {DEFAULT_MODEL}, or leave the model out",
        )
    if model is None and DEFAULT_MODEL not in shipped():
        return None
    from oncontour.learn.resident import once
    from oncontour.quality.predict import load_assessor

    name = model or DEFAULT_MODEL
    return once(("assess", name, backend, threads), lambda: load_assessor(name, backend=backend, threads=threads))


def score(
    case: Case, assessor: Assessor | None, progress: Progress | None = None, *, without: str = WITHOUT
) -> tuple[Case, list[dict[str, object]]]:
    """(the case with its ``assessment``, what is recorded of the model): without a model the findings of the rules alone, and
    ``without``, the sentence why. The case that comes back is without ``probabilities`` and ``segmented_by``."""
    if assessor is None:
        return replace(without_segmenters(case), assessment=unscored(case, findings_or_why(case), without)), []
    scored = assessor.predict(case, progress)
    told = scored.assessment
    reference = None if told is None or told.refused else told.reference
    notes = [*card_notes(assessor.card), *reference_notes(assessor)]
    notes += [NO_BOUND.format(reference.model)] if reference is not None and reference.calibrated_with is not None else []
    return without_segmenters(scored), [{**card_words(assessor.card), **computed_with(assessor.backend, assessor.threads), "notes": notes}]


def reference_notes(assessor: Assessor) -> list[str]:
    """What is to be known of the file of the reference model; nothing where none is asked."""
    asked = assessor.reference_model
    return [] if asked is None else [f"{asked.card.name}, the reference model: {note}" for note in card_notes(asked.card)]


def without_segmenters(case: Case) -> Case:
    """The case without its segmenters' probability maps, and without which segmenters they were."""
    return replace(case, probabilities={}, segmented_by=None)


def unscored(case: Case, found: Mapping[str, Sequence[Finding]], why: str) -> Assessment:
    """An assessment of findings alone (structure -> what the rules found): no model has scored, because of ``why`` (a sentence)."""
    structures = {name: not_scored(case, name, why, told) for name, told in found.items()}
    return Assessment(structures, unchecked=tuple(unchecked(case, list(structures))))
