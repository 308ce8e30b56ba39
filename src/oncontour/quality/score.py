"""How right contours are, told without a truth: by a quality model where there is one, else by the rules alone.

load(model)            the model, the shipped one by default; None where none is shipped
score(case, model)     the case with its ``assessment``
unscored(case, ...)    an assessment of the rules' findings alone
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from oncontour.core.assessment import Assessment, Finding
from oncontour.core.case import Case
from oncontour.core.notes import some
from oncontour.learn.card import Card, card_words
from oncontour.learn.card import notes as card_notes
from oncontour.learn.engine import Backend, computed_with
from oncontour.progress import Progress
from oncontour.quality.rules import findings_or_why, unchecked
from oncontour.quality.slice_scores import not_scored

if TYPE_CHECKING:
    from oncontour.quality.predict import Assessor

DEFAULT_MODEL = "hn-quality"
"""The shipped quality model; it refuses what it was not made for."""
OPINION_MODEL = "hn-quality-opinion"
"""The shipped one that also sees the probability maps of a reference model, hn-organs: for contours that hn-organs did not draw."""
OWN_MODEL = "hn-quality-own"
"""The shipped one that also sees the segmenter's own probability maps: for what the shipped contour models draw in a run."""
BOTH_MODEL = "hn-quality-both"
"""The shipped one that sees both: for what other contour models draw in a run."""
UNTOLD = {OWN_MODEL: DEFAULT_MODEL, BOTH_MODEL: OPINION_MODEL}
"""Which model scores instead where the segmenter's probability maps are missing, or the first is not installed."""
NO_MAPS = "the segmenter's probability maps are missing for {}: {} judged all structures without them."
OWN_REFERENCE = "{} drew these contours itself and cannot be their reference: {} judged them without one."
NO_BOUND = (
    "the reference probabilities come from another version of {} than the bound was made with: no bound is given. "
    "Way out: oncontour calibrate."
)
WITHOUT = "No quality model is installed: only the rules have looked at these contours."


def load(model: str | None = None, *, first: str = DEFAULT_MODEL, backend: Backend = "auto", threads: int | None = None) -> Assessor | None:
    """The quality model ``model`` (a file or a shipped name), by default the shipped one; None where none is named and none is shipped.

    ``first``: which of the shipped ones it is by default, where it is there. Raises ModelError where the model is made for something else.
    """
    from oncontour.learn.card import shipped

    offered = [name for name in (first, UNTOLD.get(first, ""), DEFAULT_MODEL) if name in shipped()]
    if model is None and not offered:
        return None
    from oncontour.quality.predict import load_assessor

    return load_assessor(model or offered[0], backend=backend, threads=threads)


def first_for(segmenters: Sequence[str], known: Collection[str]) -> str:
    """Which of the shipped quality models judges best what these contour models draw, where ``known`` are the shipped ones.

    What those alone draw: the one that sees their probability maps. For other models of ours a reference model is asked as well, without
    which it is no better about them, and its bound too high (``papers/quality-2026``); for other people's, which give no probability maps,
    the reference model alone. Where shipped ones and others draw, the one that needs neither.
    """
    from oncontour.learn.card import is_ours

    shipped_ones = [name for name in segmenters if name in known]
    if len(shipped_ones) == len(segmenters):
        return OWN_MODEL
    if shipped_ones:
        return DEFAULT_MODEL
    return BOTH_MODEL if all(map(is_ours, segmenters)) else OPINION_MODEL


def score(
    case: Case, assessor: Assessor | None, progress: Progress | None = None, *, without: str = WITHOUT
) -> tuple[Case, list[dict[str, object]]]:
    """(the case with its ``assessment``, what is recorded of the model): without a model the findings of the rules alone, and
    ``without``, the sentence why.

    A shipped model that needs the segmenter's probability maps, and has not those of every structure, gives way to one that does not
    (UNTOLD); any that asks a reference model does where that model drew these contours itself. The case that comes back is without
    ``probabilities`` and ``segmented_by``.
    """
    if assessor is None:
        return replace(without_segmenters(case), assessment=unscored(case, findings_or_why(case), without)), []
    reasons: list[tuple[str, str]] = []
    shipped_as = is_shipped(assessor.card)
    missing = assessor.without_maps(case) if shipped_as in UNTOLD else []
    if missing and (other := _instead(assessor, UNTOLD[shipped_as])) is not None:
        reasons.append((NO_MAPS, some(missing)))
        assessor = other
    scored = assessor.predict(case, progress)
    reference = None if scored.assessment is None else scored.assessment.reference
    if reference is not None and reference.drew and (other := _instead(assessor, without_reference(assessor))) is not None:
        reasons.append((OWN_REFERENCE, reference.model))
        assessor, scored = other, other.predict(case, progress)
    elif reference is not None and reference.calibrated_with is not None:
        reasons.append((NO_BOUND, reference.model))
    refused = scored.assessment is not None and scored.assessment.refused
    notes = [] if refused else [reason.format(of, assessor.card.name) for reason, of in reasons]
    notes = [*card_notes(assessor.card), *asker_notes(assessor), *notes]
    judge = {**card_words(assessor.card), **computed_with(assessor.backend, assessor.threads), "notes": notes}
    return without_segmenters(scored), [judge]


def asker_notes(assessor: Assessor) -> list[str]:
    """What is to be known of the file of the reference model; nothing where none is asked."""
    asked = assessor.asker
    return [] if asked is None else [f"{asked.card.name}, the reference model: {note}" for note in card_notes(asked.card)]


def is_shipped(card: Card) -> str:
    """The name of the shipped quality model with this card and these weights, by their hash; "" where it is none, whatever its name."""
    from oncontour.learn.card import read_card, shipped

    same = card.file_sha256 and card.name in shipped() and read_card(shipped()[card.name]).file_sha256 == card.file_sha256
    return card.name if same else ""


def without_reference(assessor: Assessor) -> str:
    """The shipped model that is like this one and asks no reference model."""
    return OWN_MODEL if assessor.task.settings.own else DEFAULT_MODEL


def without_segmenters(case: Case) -> Case:
    """The case without its segmenters' probability maps, and without which segmenters they were."""
    return replace(case, probabilities={}, segmented_by=None)


def _instead(assessor: Assessor, name: str) -> Assessor | None:
    """The shipped model ``name``, or else the plain one, to score in the place of one that needs more inputs."""
    other = load(first=name, backend=assessor.backend, threads=assessor.threads)
    return other if other is not None and other.task.settings.probability_maps < assessor.task.settings.probability_maps else None


def unscored(case: Case, found: Mapping[str, Sequence[Finding]], why: str) -> Assessment:
    """An assessment of findings alone (structure -> what the rules found): no model has scored, because of ``why`` (a sentence)."""
    structures = {name: not_scored(case, name, why, told) for name, told in found.items()}
    return Assessment(structures, unchecked=tuple(unchecked(case, list(structures))))
