"""Left and right in TG-263 names: a side is a word of its own, L or R, after the first (Parotid_L, Lens_R_PRV).

``ops.augment`` goes farther and mirrors a side anywhere in any name, as one that it misses would be taught as the other.
"""

from __future__ import annotations

from typing import Literal


def side_of(name: str) -> Literal["L", "R", ""]:
    """The side that a name says; "" for what has none (VB_L: the lumbar vertebrae)."""
    at = _side_at(name)
    return "" if not at else "L" if name.split("_")[at] == "L" else "R"


def other_side(name: str) -> str:
    """The structure of the other side (Parotid_L -> Parotid_R, Lens_R_PRV -> Lens_L_PRV); "" for what has no side."""
    at, words = _side_at(name), name.split("_")
    return "_".join([*words[:at], "R" if words[at] == "L" else "L", *words[at + 1 :]]) if at else ""


def _side_at(name: str) -> int:
    """Where the last side stands among a name's words; 0 where none does."""
    words = name.split("_")
    return 0 if words[0] == "VB" else next((n for n in range(len(words) - 1, 0, -1) if words[n] in ("L", "R")), 0)
