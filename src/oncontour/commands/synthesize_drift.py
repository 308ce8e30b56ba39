"""Which organs drifted between a CT and the image made of it: the segmenter for the region, and what became of what it draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import OncontourError
from oncontour.learn.card import Card, offered
from oncontour.learn.engine import Backend
from oncontour.ops.body import in_words, region
from oncontour.synthesize.drift import Drift, Limits, Segment, Verdict, drift, judged, shipped_limits

_NOT_JUDGED = Verdict(None, ())


@dataclass(frozen=True)
class Drifted:
    """What is known of drift: ``organs``, the ``verdict`` by the ``segmenter`` and its ``limits``; ``why``: what is not known, and why."""

    why: str = ""
    organs: tuple[Drift, ...] = ()
    verdict: Verdict = _NOT_JUDGED
    segmenter: Card | None = None
    limits: Limits | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence of each organ that drifted."""
        return tuple(f"DRIFT: {reason}" for reason in self.verdict.reasons) if self.verdict.flagged else ()


def measured(case: Case, made: Volume, *, model: str | None = None, backend: Backend = "auto", threads: int | None = None) -> Drifted:
    """The drift in ``made`` of the organs that a frozen segmenter draws on the CT.

    ``model``: a contour model of CT, by name or path; by default the shipped one for the region that the CT shows. Where there is none, or
    it finds nothing, ``why`` says so. Raises ModelError for a named model that draws no contours.
    """
    from oncontour.commands.run_contours import DEFAULT_MODELS

    seen = region(case.ct)
    name = model or DEFAULT_MODELS.get(seen.name, "")
    if not name or (model is None and name not in offered("contour")):
        return Drifted(f"not measured, as no segmenter is shipped that draws organs of this region ({in_words(seen.name)})")
    segment, card = frozen_segmenter(name, backend=backend, threads=threads, any_region=model is not None)
    try:
        organs = drift(case.ct, made, segment)
    except OncontourError as error:
        return Drifted(f"not measured: {error.what}", segmenter=card)
    limits = shipped_limits(card.sha256)
    if not organs:
        return Drifted(f"not measured, as {card.name} finds none of its organs in the CT", segmenter=card, limits=limits)
    why = "" if limits is not None else f"measured and not judged: no limits were calibrated for {card.name}"
    return Drifted(why, organs, judged(organs, limits), card, limits)


def frozen_segmenter(
    model: str, *, backend: Backend = "auto", threads: int | None = None, any_region: bool = False
) -> tuple[Segment, Card]:
    """A contour model of CT as a function from CT to masks, and its card."""
    from oncontour.contour.predict import anywhere, load_contourer

    contourer = anywhere(load_contourer(model, backend=backend, threads=threads), any_region)

    def segment(hu: Volume) -> Mapping[str, Volume]:
        drawn = contourer.predict(Case("image", {"ct": hu}))
        return {name: drawn.mask(name) for name in contourer.card.structures}

    return segment, contourer.card
