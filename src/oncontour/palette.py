"""Colours that stay apart for colour-blind eyes, on a grey image and on white paper.

The first seven are those of Okabe and Ito (2008, "Color Universal Design"), the dark blue lightened to be seen on a CT; the rest follow
Tol's "bright" and "light" schemes (2021). After twelve they repeat.
"""

from __future__ import annotations

Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 178, 131),
    (240, 228, 66),
    (224, 102, 26),
    (214, 130, 178),
    (84, 132, 232),
    (170, 221, 119),
    (238, 102, 119),
    (153, 221, 255),
    (200, 160, 255),
    (221, 204, 160),
)


def colour_of(position: int) -> Colour:
    """The colour of the structure at ``position`` in a case's order."""
    return COLOURS[position % len(COLOURS)]
