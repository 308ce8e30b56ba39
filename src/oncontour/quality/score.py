"""How right contours are, told without a truth: by a quality model where there is one, else by the rules alone.

load(model)            the model, the shipped one by default; None where none is shipped
score(case, model)     the case with ``scores["assess"]``
unscored(case, ...)    findings alone in that form
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from oncontour.core.case import Case
from oncontour.core.notes import some
from oncontour.learn.card import Card, card_words
from oncontour.learn.card import notes as card_notes
from oncontour.learn.engine import Backend, computed_with
from oncontour.progress import Progress
from oncontour.quality.rules import Finding

if TYPE_CHECKING:
    from oncontour.quality.predict import Assessor

DEFAULT_MODEL = "hn-quality"
"""The shipped quality model; it refuses what it was not made for."""
OPINION_MODEL = "hn-quality-opinion"
"""The shipped one that asks the contour model hn-organs for a second opinion: for contours that hn-organs did not draw."""
OWN_MODEL = "hn-quality-own"
"""The shipped one that knows how sure the drawing model was of each voxel: for what the shipped contour models draw in a run."""
BOTH_MODEL = "hn-quality-both"
"""The shipped one that knows both: for what other contour models draw in a run."""
UNTOLD = {OWN_MODEL: DEFAULT_MODEL, BOTH_MODEL: OPINION_MODEL}
"""Who judges instead where it is not known how sure the drawer was, and where the first is not installed."""
UNSURE = "how sure the drawing model was is not known of {}: {} judged all structures without."
ALONE = "{} drew these contours itself, and its own opinion is no second one: {} judged them without."
NO_BOUND = (
    "the second opinion comes from another version of {} than the bound was made with: no bound is given. Way out: oncontour calibrate."
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


def first_for(drawers: Sequence[str], known: Collection[str]) -> str:
    """Which of the shipped quality models judges best what these contour models draw, where ``known`` are the shipped ones.

    What those alone draw: the one that knows how sure they were. Other models of ours get a second opinion as well, without which it is no
    better about them, and its bound too bold (``papers/quality-2026``); other people's, that do not say how sure they were, the opinion
    alone. Where shipped ones and others draw, the one that needs neither.
    """
    from oncontour.learn.card import is_ours

    shipped_ones = [name for name in drawers if name in known]
    if len(shipped_ones) == len(drawers):
        return OWN_MODEL
    if shipped_ones:
        return DEFAULT_MODEL
    return BOTH_MODEL if all(map(is_ours, drawers)) else OPINION_MODEL


def score(
    case: Case, assessor: Assessor | None, progress: Progress | None = None, *, without: str = WITHOUT
) -> tuple[Case, list[dict[str, Any]]]:
    """(the case with ``scores["assess"]``, what is recorded of the model): without a model the findings of the rules alone, and
    ``without``, the sentence why.

    A shipped model that is to know how sure the drawer was, and is not told so of every structure, gives way to one that need not know
    (UNTOLD); any that asks for an opinion does where the asked model drew itself. ``scores["chances"]`` and ``["drawers"]`` (hashes of the
    models that drew, as ``commands.run.contour`` leaves them) have then served their turn.
    """
    if assessor is None:
        from oncontour.quality.rules import findings_or_why

        return without_drawers(case).with_scores({"assess": unscored(case, findings_or_why(case), without)}), []
    reasons: list[tuple[str, str]] = []
    shipped_as = is_shipped(assessor.card)
    unsure = assessor.unsure(case) if shipped_as in UNTOLD else []
    if unsure and (other := _instead(assessor, UNTOLD[shipped_as])) is not None:
        reasons.append((UNSURE, some(unsure)))
        assessor = other
    scored = assessor.predict(case, progress)
    opinion = scored.scores["assess"]["opinion"] or {}
    if opinion.get("drew") and (other := _instead(assessor, without_opinion(assessor))) is not None:
        reasons.append((ALONE, opinion["model"]))
        assessor, scored = other, other.predict(case, progress)
    elif "calibrated_with" in opinion:
        reasons.append((NO_BOUND, opinion["model"]))
    notes = [] if scored.scores["assess"]["refused"] else [reason.format(of, assessor.card.name) for reason, of in reasons]
    told = card_words(asdict(assessor.card))
    judge = {**told, **computed_with(assessor.backend, assessor.threads), "notes": [*told["notes"], *asker_notes(assessor), *notes]}
    return without_drawers(scored), [judge]


def asker_notes(assessor: Assessor) -> list[str]:
    """What is to be known of the file of the model that is asked for a second opinion; nothing where none is."""
    asked = assessor.asker
    return [] if asked is None else [f"{asked.card.name}, asked for a second opinion: {note}" for note in card_notes(asked.card)]


def is_shipped(card: Card) -> str:
    """The name of the shipped quality model with this card and these weights, by their hash; "" where it is none, whatever its name."""
    from oncontour.learn.card import read_card, shipped

    same = card.file_sha256 and card.name in shipped() and read_card(shipped()[card.name]).file_sha256 == card.file_sha256
    return card.name if same else ""


def without_opinion(assessor: Assessor) -> str:
    """The shipped model that is like this one and asks nobody for an opinion."""
    return OWN_MODEL if assessor.task.settings.own else DEFAULT_MODEL


def without_drawers(case: Case) -> Case:
    """The case without the chances of those who drew, and without who they were."""
    return replace(case, scores={name: value for name, value in case.scores.items() if name not in ("chances", "drawers")})


def _instead(assessor: Assessor, name: str) -> Assessor | None:
    """The shipped model ``name``, or else the plain one, to judge in the place of one that needs to know more."""
    other = load(first=name, backend=assessor.backend, threads=assessor.threads)
    return other if other is not None and other.task.settings.chances < assessor.task.settings.chances else None


def unscored(case: Case, found: Mapping[str, Sequence[Finding]], why: str) -> dict[str, Any]:
    """Findings alone in the form of ``scores["assess"]``: no model has scored anything, because of ``why`` (a sentence)."""
    structures = {}
    for name, told in found.items():
        held = np.flatnonzero(case.mask(name).array.any(axis=(1, 2))).tolist()
        slices = sorted({*held, *(k for one in told for k in one.slices)})
        nothing = dict.fromkeys(("dsc", "lower", "class", "surface_mm"))
        rows = [
            {"k": k, "z_mm": case.geometry.slice_z_mm(k), **nothing, "findings": [one.code for one in told if k in one.slices]}
            for k in slices
        ]
        structures[name] = {"scored": False, "why": why, "slices": rows, "findings": [one.as_dict() for one in told]}
    return {"model": None, "sha256": None, "refused": None, "coverage": None, "calibration": {}, "structures": structures, "error_maps": {}}
