"""Left and right in TG-263 names: a side is a word of its own, L or R, after the first (Parotid_L, Lens_R_PRV)."""

from __future__ import annotations


def other_side(name: str) -> str:
    """The structure of the other side (Parotid_L -> Parotid_R, Lens_R_PRV -> Lens_L_PRV); "" for what has no side."""
    words = name.split("_")
    at = _side_at(words)
    return "_".join([*words[:at], "R" if words[at] == "L" else "L", *words[at + 1 :]]) if at else ""


def wants_left(name: str) -> bool:
    """Whether a name says left; False for right and for what has no side."""
    words = name.split("_")
    at = _side_at(words)
    return bool(at) and words[at] == "L"


def _side_at(words: list[str]) -> int:
    """Where the last side stands among a name's words; 0 where none does."""
    return next((n for n in range(len(words) - 1, 0, -1) if words[n] in ("L", "R")), 0)
