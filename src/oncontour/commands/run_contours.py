"""Which models contour a CT in ``oncontour run``, what they draw, and how right it is: contours come back, whatever the judges can do.

load_segmenters(...)   the models that are named, or default_model(case), the shipped one for the region of the body
contour(case, ...)     the case with what they draw
judge(case, ...)       that case with its ``assessment``: by the quality model, else by the rules alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from oncontour.core.case import Case
from oncontour.errors import ConfigError, ModelError, did_you_mean
from oncontour.learn.card import card_words, find, offered, read_card, shipped
from oncontour.learn.card import notes as card_notes
from oncontour.learn.engine import Backend
from oncontour.libraries import failure
from oncontour.ops.body import check_shown, in_words, region, region_of
from oncontour.ops.tidy import Tidy
from oncontour.progress import Progress, part
from oncontour.quality import score as scoring
from oncontour.result import pseudonym

if TYPE_CHECKING:
    from oncontour.core.prediction import Segmentation
    from oncontour.learn.predictor import Predictor
    from oncontour.quality.predict import Assessor

DEFAULT_MODELS: dict[str, str] = {"head_neck": "hn-organs"}
"""Region of the body (``ops.body.region``) -> the shipped model that is used without being asked for."""


def load_segmenters(
    names: Sequence[str],
    structures: Sequence[str] | None = None,
    *,
    backend: Backend = "auto",
    rules: Tidy | None = None,
    threads: int | None = None,
    trust: bool = False,
    any_region: bool = False,
) -> list[Predictor]:
    """Our own models (files or shipped names) or somebody else's, ready to contour; none for no names. ``trust`` lets one run that is a
    program, ``any_region`` draw on another part of the body than they were made for.

    Raises ConfigError where one of ``structures`` is drawn by none of them; for no names, by none that may be chosen for a CT.
    """
    from oncontour.contour.predict import Contourer, anywhere, load_contourer
    from oncontour.learn.resident import once

    def load(name: str) -> Predictor:
        one = _load_trusted(name, backend, rules, threads) if trust else None
        drawer = anywhere(one or load_contourer(name, backend=backend, rules=rules, threads=threads), any_region)
        return _making_images(drawer) if isinstance(drawer, Contourer) and drawer.task.settings.made_by else drawer

    loaded = [once(("contour", name, backend, rules, threads, trust, any_region), partial(load, name)) for name in names]
    unasked = [read_card(shipped()[name]) for name in DEFAULT_MODELS.values() if name in offered("contour")]
    _assign([list(card.structures) for card in ([one.card for one in loaded] or unasked)], structures)
    return loaded


def _making_images(contourer: Predictor) -> Predictor:
    """The contourer, with the synthesis model that its card names."""
    from oncontour.commands.made_images import making_images

    return making_images(contourer)


def _load_trusted(name: str, backend: Backend, rules: Tidy | None, threads: int | None) -> Predictor | None:
    """Somebody else's model, which may be a program; None where it is ours."""
    from oncontour.contour.external.load import is_foreign, load_foreign

    path = find(name, "contour")
    return load_foreign(path, trust=True, backend=backend, rules=rules, threads=threads) if is_foreign(path) else None


def default_model(case: Case) -> str:
    """The shipped model for the region that the CT shows. Raises ModelError, naming what there is, where none fits."""
    seen, contourers = region(case.ct), offered("contour")
    name = DEFAULT_MODELS.get(seen.name, "")
    if name in contourers:
        return name
    there, what = ", ".join(contourers) or "none", in_words(seen.name)
    raise ModelError(
        f"no shipped model is made for this CT, which shows: {what} ({'; '.join(seen.reasons)}); shipped models: {there}",
        where=f"case {pseudonym(case)}",
        hint="name a model that was made for it with --model NAME_OR_FILE, or train one with 'oncontour train contour'; "
        f"{_anyhow(contourers)}",
    )


def _anyhow(contourers: Sequence[str]) -> str:
    """How a shipped model draws on a CT that it was not made for."""
    return f"a shipped one draws all the same with both --model {contourers[0]} and --any_region" if contourers else "none is shipped"


def region_words(case: Case, segmenters: Sequence[Predictor], any_region: bool) -> tuple[str, list[str]]:
    """(what the page says first where a model draws on another part of the body than it was made for, "" where none does; doubts). Raises
    InputError for such a model without ``any_region``, before any has drawn."""
    cards = [one.card for one in segmenters if region_of(one.card.region)]
    if not any_region:
        for card in cards:
            check_shown(case.ct, card.region, card.name)
    seen = region(case.ct) if cards else None
    strangers = [card for card in cards if seen is not None and seen.excludes(region_of(card.region))]
    if seen is not None and strangers:
        models = " and ".join(f"{card.name} is for {card.region}" for card in strangers)
        return f"Drawn on a CT that the model was not made for: it shows {in_words(seen.name)}, and {models}.", []
    if seen is not None and seen.name == "unknown":
        models = " and ".join(f"{card.name} is for {card.region}" for card in cards)
        return "", [f"Which part of the body the CT shows cannot be told ({seen.reasons[0]}); {models}."]
    return "", []


def contour(
    case: Case,
    segmenters: Sequence[Predictor],
    structures: Sequence[str] | None = None,
    *,
    chances: bool = False,
    progress: Progress | None = None,
) -> tuple[Case, list[dict[str, Any]]]:
    """The case with what the ``segmenters`` (of ``load_segmenters``) draw (and none of the contours it came with), and what is recorded of
    each model.

    ``segmented_by`` has the hashes of those that drew. ``chances`` keeps what our own models thought before they decided, as
    ``probabilities``: structure -> probability times 255. Where two models offer one structure the first has it. Raises ModelError
    for a structure that none offers, InputError for a CT of another part of the body than one of ours was made for.
    """
    from oncontour.contour.predict import keeping_probabilities

    wanted = _assign([list(one.card.structures) for one in segmenters], structures)
    bare = scoring.without_segmenters(case.without_structures())
    drawn, records = bare, list[dict[str, Any]]()
    for n, (one, names) in enumerate(zip(segmenters, wanted, strict=True)):
        if not names:
            continue
        predicted = keeping_probabilities(one, chances).predict(
            bare, progress=part(progress, n / len(segmenters), (n + 1) / len(segmenters))
        )
        whole = len(names) == len(predicted.masks)
        drawn = drawn.with_masks(predicted.masks if whole else {name: predicted.masks[name] for name in names})
        if predicted.probabilities:
            drawn = replace(drawn, probabilities={**drawn.probabilities, **{name: predicted.probabilities[name] for name in names}})
        done = predicted.segmentation
        notes = [*card_notes(one.card), *(() if done is None else done.notes)]
        records.append({**card_words(one.card), **_recorded(done), "structures": list(names), "notes": notes})
    if any(record.get("synthetic") for record in records):
        from oncontour.commands.made_images import drawn_on_synthetic

        drawn = drawn_on_synthetic(drawn)
    return replace(drawn, segmented_by=tuple(record["sha256"] for record in records)), records


def _recorded(segmentation: Segmentation | None) -> dict[str, object]:
    """How a model drew, as ``report.json`` holds it: without what is not known of the model."""
    if segmentation is None:
        return {}
    held = {key: value for key, value in asdict(segmentation).items() if value not in (None, "", {})}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in held.items()}


def _assign(offered: Sequence[Sequence[str]], wanted: Sequence[str] | None) -> list[list[str]]:
    """Which structures each model draws."""
    every = list(dict.fromkeys(name for names in offered for name in names))
    if wanted is not None:
        from oncontour.io.names import meant

        wanted = [meant(name, every) or name for name in wanted]
    missing = [name for name in wanted or () if name not in every]
    if missing:
        raise ConfigError(
            f"no model draws {', '.join(name or repr(name) for name in missing)}",
            hint=f"{did_you_mean(missing[0], every)}choose among {', '.join(every)}",
        )
    left = [name for name in every if wanted is None or name in wanted]
    out = []
    for names in offered:
        mine = [name for name in names if name in left]
        left = [name for name in left if name not in mine]
        out.append(mine)
    return out


# ---- quality


def shipped_assessor(failed: list[str], backend: Backend, threads: int | None) -> Assessor | None:
    """The shipped quality model; where it cannot be used the rules look alone, and ``failed`` gets why."""
    try:
        return scoring.load(backend=backend, threads=threads)
    except Exception as error:
        failed.append(failure("The shipped quality model could not be used, only the rules have looked", error))
        return None


def sees_own(assessor: Assessor | None) -> bool:
    """Whether the quality model sees what the segmenters themselves thought."""
    return assessor is not None and assessor.task.settings.own


def judge(drawn: Case, assessor: Assessor | None, failed: list[str], progress: Progress | None = None) -> tuple[Case, list[dict[str, Any]]]:
    """As ``quality.score.score``; contours that could not be judged, for whatever reason, are there all the same, and ``failed`` gets why.

    What a quality model cannot do the rules do alone.
    """
    bare = scoring.without_segmenters(drawn)
    try:
        return scoring.score(drawn, assessor, progress)
    except Exception as error:
        failed.append(failure("No slice was judged by the quality model", error))
    try:
        return scoring.score(bare, None, without="The quality model failed: only the rules have looked at these contours.")
    except Exception as error:
        failed.append(failure("Not assessed", error))
        return bare, []
