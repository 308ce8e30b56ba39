"""``oncontour info``: what a model file says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict

from oncontour.learn.card import checked_card, find, notes


def info(model: str) -> str:
    """What a model file says of itself, as JSON, card and weights checked against the hashes it states.

    Of a file made before a hash covered the card, ``notes`` say so.

    Examples:
        oncontour info hn-organs
        oncontour info runs/neck/model.safetensors

    Args:
        model: path of a model file, or the name of a shipped model
    """
    card = checked_card(find(model))
    told = asdict(card) | ({"notes": notes(card)} if notes(card) else {})
    return json.dumps(told, indent=1, ensure_ascii=False)
