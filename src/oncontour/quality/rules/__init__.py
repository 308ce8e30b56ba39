"""Rule checks: what is plainly odd about a structure, found without any model, in anybody's contours.

    stack.py   gap, isolated slice, stray, island, sliver   finding.py  codes, and a structure measured once
    place.py   outside the body, left/right, overlap, cut   ranges.py   volume and position against a cohort, as JSON
                                                            pieces.py   in how many pieces an organ comes, as CSV

``findings(case)`` gives a list for every structure, empty where nothing is odd. A finding is a reason to look, not a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from oncontour.core.assessment import Finding
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import OncontourError
from oncontour.ops.body import in_words
from oncontour.ops.pieces import shipped_pieces
from oncontour.quality.rules import place
from oncontour.quality.rules.finding import CODES, OF_PLACE, Seen, see
from oncontour.quality.rules.ranges import (
    Range,
    Ranges,
    positions,
    ranges_of,
    read_ranges,
    shipped_ranges,
    volume,
    write_ranges,
)
from oncontour.quality.rules.stack import stack
from oncontour.sides import other_side

__all__ = [
    "CODES",
    "OF_PLACE",
    "Range",
    "Ranges",
    "findings",
    "findings_or_why",
    "ranges_of",
    "read_ranges",
    "shipped_ranges",
    "unchecked",
    "write_ranges",
]


def findings(case: Case, names: Sequence[str] | None = None, ranges: Ranges | None = None) -> dict[str, list[Finding]]:
    """What is odd about each of ``names`` (default: every structure of the case), in the order of CODES; an empty list where nothing is.

    All structures of the case take part (partners, overlaps, positions), whichever are asked for. ``ranges``: what volumes and positions
    are usual; default the shipped ones, ``Ranges()`` for none; those of another part of the body than the CT shows are left aside.
    Slices are planes of the case's grid along k. What could not be checked, and why, ``unchecked`` tells.
    Raises InputError for a structure that the case does not have.
    """
    known = shipped_ranges() if ranges is None else ranges
    usual = Ranges() if known.elsewhere(case) else known
    pieces = {} if shipped_ranges().elsewhere(case) else shipped_pieces()
    wanted = list(case.structures if names is None else names)
    everything = {name: see(case, name) for name in dict.fromkeys((*wanted, *case.structures))}
    body = place.body_of(case)
    sides = {name: _side(case, seen, everything, body) for name, seen in everything.items() if seen is not None}
    stacks = {name: list(stack(seen, pieces)) for name, seen in everything.items() if seen is not None}
    misplaced = {name for name in stacks if sides[name] or any(one.code == "stray" for one in stacks[name])}
    shared, odd = place.overlaps(everything), positions(everything, usual, misplaced)
    out = {}
    for name in wanted:
        seen, off = everything[name], place.beyond(case, name)
        found = [off] if off else []
        if seen is None:
            found = found or [Finding("empty", _nothing(case, name))]
        else:
            found += stacks[name]
            if body is not None:
                found += place.outside(seen, body)
            found += sides[name] + list(volume(seen, usual)) + odd.get(name, []) + shared.get(name, [])
            found += place.cut(seen, known.goes_on(name))
        out[name] = sorted(found, key=lambda one: list(CODES).index(one.code))
    return out


def findings_or_why(case: Case, names: Sequence[str] | None = None) -> dict[str, list[Finding]]:
    """``findings``; where they cannot be made, the reason as the finding ``unchecked`` of every structure."""
    try:
        return findings(case, names)
    except OncontourError as error:
        told = Finding("unchecked", f"The rule checks could not be made: {error}")
        return {name: [told] for name in (case.structures if names is None else names)}


def unchecked(case: Case, names: Sequence[str] | None = None, ranges: Ranges | None = None) -> list[str]:
    """What ``findings`` could not look at, and why: sentences; none where everything was checked."""
    usual = shipped_ranges() if ranges is None else ranges
    wanted = list(case.structures if names is None else names)
    said = []
    why = place.no_body(case)
    if why:
        said.append(f"Outside the body: not checked, as {why}.")
    elsewhere = usual.elsewhere(case)
    unknown = [name for name in wanted if name not in usual.structures]
    if elsewhere:
        theirs, here = in_words(usual.region), in_words(elsewhere)
        said.append(f"Usual volume and position: not known here. They were measured in CTs of {theirs}, and this one shows {here}.")
    elif unknown:
        said.append(f"Usual volume and position: not known for {', '.join(unknown)}.")
    return said


def _nothing(case: Case, name: str) -> str:
    """Why a structure has no voxel."""
    contours = case.contours.get(name)
    if contours is not None and len(contours):
        return f"{name} was drawn so small that no voxel of the image lies in it."
    return f"{name} is there by name and has no contour."


def _side(case: Case, seen: Seen, everything: dict[str, Seen | None], body: Volume | None) -> list[Finding]:
    mate = other_side(seen.name)
    if not mate:
        return []
    return list(place.side(seen, everything.get(mate), place.midline_mm(case, seen, everything, body)))
