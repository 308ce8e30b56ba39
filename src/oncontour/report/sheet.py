"""What stands on the two sheets that are printed and signed: structures, places, goals and versions, each cut where a sheet is full."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from oncontour.report.structures import Row

Told = Mapping[str, Any]
"""What report.json holds, or what the review says (JSON)."""
MOST_STRUCTURES, MOST_PLACES, MOST_WARNINGS, MOST_GOALS, KEY_IMAGES = 26, 8, 4, 12, 4
"""Lines that fit on the sheets beside each other; what is left out is counted there."""


def printed(record: Told, review: Told | None, table: Sequence[Row]) -> dict[str, object]:
    """The words of the sheets, for the template."""
    spots = [] if review is None else review["spots"]
    goals = (record.get("dose") or {}).get("goals", [])
    return {
        "who": record.get("label") or record["case"],
        "structures": [_line(row) for row in table[:MOST_STRUCTURES]],
        "places": [{**spot, "where": where(spot), "id": _id(place=spot)} for spot in spots[:MOST_PLACES]],
        "goals": goals[:MOST_GOALS],
        "warnings": record["warnings"][:MOST_WARNINGS],
        "left_out": _left_out(
            structures=len(table) - MOST_STRUCTURES,
            places=len(spots) - MOST_PLACES,
            goals=len(goals) - MOST_GOALS,
            warnings=len(record["warnings"]) - MOST_WARNINGS,
        ),
        "images": KEY_IMAGES,
    }


def key_places(review: Told | None) -> list[dict[str, object]]:
    """The places whose worst slice is shown, with a line under each picture."""
    spots = [] if review is None else review["spots"]
    shown = [(n, spot) for n, spot in enumerate(spots, start=1) if spot["at"] is not None][:KEY_IMAGES]
    return [{"at": s["at"], "name": s["name"], "text": f"{n}. {s['name']}, slice {s['at'] + 1}{_wrong(s)}"} for n, s in shown]


def where(spot: Told) -> str:
    """The slices of a place, as the viewer counts them."""
    if spot["first"] is None:
        return "as a whole"
    return f"slice {spot['first'] + 1}" if spot["first"] == spot["last"] else f"slices {spot['first'] + 1} to {spot['last'] + 1}"


def _wrong(spot: Told) -> str:
    return "" if spot["wrong_cm2"] is None else f", about {spot['wrong_cm2']:.1f} cm² wrong"


def _line(row: Row) -> dict[str, object]:
    return {**row.as_dict(), "id": json.dumps({"about": "structure", "structure": row.name})}


def _id(place: Told) -> str:
    first, last = place["of"]
    return json.dumps({"about": "place", "structure": place["name"], "first": first, "last": last, "codes": list(place["codes"])})


def _left_out(**counts: int) -> str:
    """What the sheets have no room for, in words."""
    more = [f"{count} more {what}" for what, count in counts.items() if count > 0]
    return f"Not on these sheets: {', '.join(more)}; report.html has all." if more else ""
