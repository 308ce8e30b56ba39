"""``oncontour info``: what a model file says of itself."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from oncontour.learn.card import Card, checked_card, find, notes


def info(model: str, *, json: bool = False) -> str:
    """What a model file says of itself in a few lines, card and weights checked against the hashes it states.

    Of a file made before a hash covered the card, notes say so. Of somebody else's model, which states no hashes, its files are told of.

    Examples:
        oncontour info hn-organs
        oncontour info runs/neck/model.safetensors --json

    Args:
        model: path of a model file or folder, or the name of a shipped or an added model
        json: the whole card, as JSON
    """
    card = _card(find(model))
    if not json:
        return "\n".join(_summary(card))
    told = asdict(card) | ({"notes": notes(card)} if notes(card) else {})
    return json_.dumps(told, indent=1, ensure_ascii=False)


def _card(path: Path) -> Card:
    if not path.is_dir():
        return checked_card(path)
    from oncontour.contour.external.load import described

    return described(path)


def _summary(card: Card) -> Iterator[str]:
    yield f"{card.name}: {card.task}" + (f", {card.region}" if card.region else "")
    if card.structures:
        yield f"  structures: {', '.join(card.structures)}"
    if card.spacing_mm:
        yield f"  works at (k, j, i): {' x '.join(f'{mm:g}' for mm in card.spacing_mm)} mm"
    for title, text in (("learned from", card.data), ("licence", card.licence), ("not for", card.limits)):
        if text:
            yield f"  {title}: {text}"
    for name, value in card.metrics.items():
        if not isinstance(value, Mapping | list):
            yield f"  {name}: {value:.3g}" if isinstance(value, float) else f"  {name}: {value}"
    yield f"  weights: {card.sha256[:12]}"
    yield from (f"  note: {note}" for note in notes(card))
    yield f"  everything: oncontour info {card.name} --json"
