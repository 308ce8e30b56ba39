"""Contour models that see an MR-like image: the synthesis model that their card names makes it of the CT, where a case has none.

Capabilities do not know their siblings, so it is here that the one is handed to the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from oncontour.errors import GeometryError, InputError, ModelError

if TYPE_CHECKING:
    from oncontour.contour.inputs import ContourSettings
    from oncontour.contour.predict import Contourer
    from oncontour.core.case import Case
    from oncontour.learn.card import Card
    from oncontour.learn.predictor import Predictor
    from oncontour.synthesize.predict import Synthesizer


def making_images(contourer: Predictor) -> Predictor:
    """The contourer, with what makes the image that it sees; as it is where it sees none that is made.

    Raises ModelError where the synthesis model is not there, or is another than the contours were learned on.
    """
    from oncontour.contour.predict import Contourer

    if not isinstance(contourer, Contourer) or not contourer.task.settings.made_by:
        return contourer
    from oncontour.synthesize.inputs import MADE

    synthesizer = _loaded(contourer)

    def make(case: Case) -> tuple[Case, Sequence[str]]:
        made = synthesizer.make(case)
        name = synthesizer.card.name
        told = f"drawn on an image that {name} ({synthesizer.card.sha256[:12]}) made of the CT: synthetic, not acquired"
        return case.with_images({MADE: made.image}), (told, *(f"{name}: {text}" for text in made.warnings))

    return replace(contourer, maker=make)


def _loaded(contourer: Contourer) -> Synthesizer:
    from oncontour.synthesize.predict import Synthesizer

    settings, card = contourer.task.settings, contourer.card
    told = card.made.get("made_by")
    wanted = told if isinstance(told, Mapping) else {}
    try:
        found = Synthesizer.load(settings.made_by, backend=contourer.backend, threads=contourer.threads, any_region=contourer.any_region)
    except ModelError as error:
        raise ModelError(
            f"{card.name} sees an image that {wanted.get('model', settings.made_by)} makes of the CT: {error.what}",
            where=error.where,
            hint="put that model beside this one, or where it lay when this one was trained",
        ) from error
    if wanted and found.card.sha256 != wanted.get("sha256"):
        raise ModelError(
            f"{card.name} learned on images of {wanted.get('model')} with weights {str(wanted.get('sha256'))[:12]}, "
            f"and {found.card.name} there has weights {found.card.sha256[:12]}",
            where=settings.made_by,
            hint="put the model there that it learned with, or train the contour model again",
        )
    return found


def drawn_on_synthetic(case: Case) -> Case:
    """The case, all that is written of which says in DICOM that it is drawn on an image that was made (PS3.3 C.12.1.1, Synthetic Data)."""
    from oncontour.io.dicom.source import DicomSource

    if not isinstance(case.source, DicomSource):
        return case
    return replace(case, source=replace(case.source, series={**case.source.series, "SyntheticData": "YES"}))


def with_made(cases: Iterable[Case], settings: ContourSettings) -> tuple[Iterator[Case], dict[str, object]]:
    """(the cases, to each that has none the smr made by ``settings.made_by``; what the contour model's card keeps of that model)."""
    if not settings.made_by:
        return iter(cases), {}
    from oncontour.synthesize.predict import Synthesizer

    synthesizer = Synthesizer.load(settings.made_by)
    return _completed(cases, synthesizer), {"made_by": told_of(synthesizer.card)}


def told_of(card: Card) -> dict[str, str]:
    """What a contour model's card keeps of the synthesis model."""
    return {"model": card.name, "sha256": card.sha256}


def _completed(cases: Iterable[Case], synthesizer: Synthesizer) -> Iterator[Case]:
    from oncontour.synthesize.inputs import MADE

    for case in cases:
        try:
            yield case if MADE in case.images else synthesizer.predict(case)
        except (InputError, GeometryError) as error:
            sys.stderr.write(f"{case.id} was left out: {error}\n")
