"""The names of DVH figures, parsed: ``D95%``, ``D2cc``, ``D0.03cc``, ``V20Gy``, ``V95%``, ``CV21Gy[cc]``, ``DC700cc``, ``Dmean``.

``D`` asks for a dose: the least that the best irradiated x % or x cc receive. ``V`` asks for a volume: what receives at least x Gy, or
x % of the prescription. ``DC`` (the most that the least irradiated x receive) and ``CV`` (what receives less than x) are their complements.
The unit of the answer may stand in brackets as in TG-263 (Mayo et al., IJROBP 2018;100:1057-1066): ``[Gy]``, ``[cc]``, ``[%]``. Without
brackets a dose is in Gy, and a volume in % of the structure. ``D95`` is ``D95%``, and ``V20`` is ``V20Gy``; ``V95`` and more may as well be
percent of a prescription and are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oncontour.errors import ConfigError

_NAME = re.compile(r"(DC|CV|D|V)\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|cc|cm3|gy|cgy)?\s*(?:\[(%|cc|gy)\])?", re.IGNORECASE)
_WHOLE = re.compile(r"d?[ _]?(mean|min|max|median|near-?max|near-?min)(?:\[(gy|%)\])?", re.IGNORECASE)
MOST_BARE_GY = 85.0
"""A volume at this dose and more says its unit: V95 usually means 95 % of the prescription."""
_UNITS = {"%": "%", "cc": "cc", "cm3": "cc", "gy": "Gy", "cgy": "cGy"}
_HINT = "write D95%, D2cc, V20Gy, V20Gy[cc], V95%, CV21Gy[cc], DC700cc, Dmean, Dmin, Dmax or Dmedian"


@dataclass(frozen=True)
class Figure:
    """``kind`` "D", "DC", "V", "CV", "mean", "min" or "max"; ``at`` x, in ``at_unit`` "%", "cc" or "Gy", "" where there is none.

    ``unit`` is that of the answer: "Gy", "cc" or "%".
    """

    kind: str
    at: float
    at_unit: str
    unit: str

    def __str__(self) -> str:
        usual = "%" if self.kind in ("V", "CV") else "Gy"
        shown = f"{self.kind}{self.at:g}{self.at_unit}" if self.at_unit else f"D{self.kind}"
        return shown + ("" if self.unit == usual else f"[{self.unit}]")

    @property
    def needs_prescription(self) -> bool:
        """Whether it is told in percent of the prescription."""
        volume = self.kind in ("V", "CV")
        return (volume and self.at_unit == "%") or (not volume and self.unit == "%")


def parse(name: str) -> Figure:
    """The figure that ``name`` spells. Raises ConfigError where it spells none."""
    text = name.strip()
    whole = _WHOLE.fullmatch(text)
    if whole:
        return _whole(whole.group(1).lower().replace("-", ""), _UNITS[(whole.group(2) or "gy").lower()])
    match = _NAME.fullmatch(text)
    if not match:
        raise ConfigError(f"{name!r} is no figure of a DVH", hint=_HINT)
    kind, at = match.group(1).upper(), float(match.group(2))
    volume = kind in ("V", "CV")
    at_unit = _UNITS[(match.group(3) or ("gy" if volume else "%")).lower()]
    unit = _UNITS[(match.group(4) or ("%" if volume else "gy")).lower()]
    if volume and not match.group(3) and at >= MOST_BARE_GY:
        raise ConfigError(f"{name!r} may be {at:g} Gy or {at:g} % of the prescription", hint=f"write V{at:g}Gy or V{at:g}%")
    if at_unit == "cGy":
        at, at_unit = at / 100, "Gy"
    if (at_unit == "cc") if volume else (at_unit == "Gy"):
        raise ConfigError(f"{name!r}: {kind} is asked at {'a dose' if volume else 'a volume'}, not at {at:g} {at_unit}", hint=_HINT)
    if (unit == "Gy") if volume else (unit == "cc"):
        raise ConfigError(f"{name!r}: {kind} is told in {'cc or %' if volume else 'Gy or %'}, not in {unit}", hint=_HINT)
    if not volume and at_unit == "%" and at > 100:
        raise ConfigError(f"{name!r}: a structure has no {at:g} % of its volume", hint=_HINT)
    return Figure(kind, at, at_unit, unit)


def _whole(word: str, unit: str) -> Figure:
    """Median, near-maximum and near-minimum are D50%, D2% and D98% (ICRU 83, 3.6)."""
    as_dose = {"median": 50.0, "nearmax": 2.0, "nearmin": 98.0}
    return Figure("D", as_dose[word], "%", unit) if word in as_dose else Figure(word, 0.0, "", unit)
