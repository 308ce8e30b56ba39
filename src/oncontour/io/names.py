"""Structure names: what people write, and the name that TG-263 has for it.

Source: Mayo et al., "Standardizing Nomenclatures in Radiation Oncology", AAPM report TG-263 (2018). Names and aliases of organs are rows
of ``tg263.csv``; sides and targets (PTV70, GTV-1) follow TG-263's rules and are worked out. Nothing is guessed: a name that no rule
fits keeps its own and is listed as unmapped by whoever reads it.
*Differs:* TG-263 leaves it to the clinic what a target's number means; PTV70 is taken as 70 Gy and written PTV_7000 (cGy).
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

_SIDES = {
    "L": "l left lt lft li links linke linker linkes gauche sin sinistra sx izq izquierda",
    "R": "r right rt rgt re rechts rechte rechter rechtes droit droite dex destra dx der derecha",
}
_SIDE_OF = {word: side for side, words in _SIDES.items() for word in words.split()}
_ONLY_AT_AN_END = 3
"""Side words this short count as the first or the last word only: what lies between may be anything."""
_GLUED = re.compile(r".*[^aeiou]")
"""What a side of one or two letters may be glued to. After a vowel the letters are as often an ending: submandibular, cochlear, retinal;
parotider and lunger are both glands and both lungs."""
_TARGET = re.compile(r"(igtv|ictv|itv|gtv|ctv|ptv)(sb|par|p|n|v)?(?![a-z])_?(.*)")
_NUMBER = re.compile(r"(?:(\d)_)?(\d+(?:\.\d+)?)_?(gy|cgy)?")
_LEVELS = {"high": "High", "mid": "Mid", "low": "Low"}


@dataclass(frozen=True)
class _Organ:
    name: str
    paired: bool
    kind: str


def to_tg263(name: str) -> str | None:
    """The TG-263 name of what someone called ``name``, None where no rule fits.

    >>> [to_tg263(name) for name in ("LeftParotid", "PAROTIS LINKS", "Spinal-Cord", "cord prv 5mm", "PTV 70 Gy", "GTV-1")]
    ['Parotid_L', 'Parotid_L', 'SpinalCord', 'SpinalCord_PRV05', 'PTV_7000', 'GTV1']
    >>> [to_tg263(name) for name in ("Parotid", "Parotid L+R", "dose 80[%]")]
    [None, None, None]
    """
    plain = _without_accents(name)
    return _target(plain) or _organ(plain)


def meant(name: str, known: Sequence[str]) -> str | None:
    """Which of ``known`` somebody means by ``name``: the one spelled so, else the only one that is but for capitals, else the one of the
    same TG-263 name; None where there is none, or not one alone.

    >>> meant("parotid_l", ["Parotid_L", "Parotid_R"]), meant("left parotid", ["Parotid_L"]), meant("parotid", ["Parotid_L", "Parotid_R"])
    ('Parotid_L', 'Parotid_L', None)
    """
    if name in known:
        return name
    same = [one for one in known if one.casefold() == name.casefold()]
    if len(same) != 1:
        standard = to_tg263(name)
        same = [one for one in known if standard is not None and one == standard]
    return same[0] if len(same) == 1 else None


def interpreted_type(tg263: str) -> str:
    """RTROIInterpretedType (DICOM PS3.3 C.8.8.8) of a TG-263 name: ORGAN, PTV, CTV, GTV, EXTERNAL, ...; "" where the name is not known."""
    target = re.match(r"I?(GTV|CTV|PTV)(?![a-z]{2})|ITV(?![a-z])", tg263)
    if target:
        return target.group(1) or "CTV"
    base = re.sub(r"_PRV\d*$", "", tg263)
    organ = _table().get(_key(re.sub(r"_[LR]$", "", base))) or _table().get(_key(base))
    if organ is None:
        return ""
    return "AVOIDANCE" if base != tg263 else organ.kind


def _without_accents(name: str) -> str:
    spelled = name.replace("ß", "ss").replace("æ", "ae").replace("œ", "oe").replace("Œ", "OE")
    return "".join(c for c in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(c)).strip()


def _words(plain: str) -> list[str]:
    """In lower case, cut at everything that is no letter or digit, and where camel case begins a word."""
    cut = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return [word.lower() for word in re.split(r"[\W_]+", cut) if word]


def _key(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


@cache
def _table() -> dict[str, _Organ]:
    """Alias without spaces, in lower case -> organ."""
    rows = csv.DictReader(resources.files("oncontour.io").joinpath("tg263.csv").read_text(encoding="utf-8").splitlines())
    table: dict[str, _Organ] = {}
    for row in rows:
        organ = _Organ(row["name"], row["paired"] == "yes", row["kind"])
        for alias in (row["name"], *filter(None, row["aliases"].split("|"))):
            table.setdefault(_key(alias), organ)
    return table


# ---- organs


def _organ(plain: str) -> str | None:
    words, margin = _without_margin(_words(plain))
    if margin is None or not words:
        return None
    whole = _table().get("".join(words))
    if whole and not whole.paired:
        return whole.name + margin
    found = _sided(words) or _glued("".join(words))
    return found + margin if found else None


def _without_margin(words: list[str]) -> tuple[list[str], str | None]:
    """The words without a planning margin, and the margin as TG-263 writes it: "" for none, None where it cannot be read."""
    joined = " ".join(words)
    found = re.search(r"\bprv(?: ?(\d{1,2}) ?(?:mm)?)?\b(?: (\d{1,2}) ?(?:mm)?$)?", joined)
    if not found:
        return words, ""
    rest = (joined[: found.start()] + " " + joined[found.end() :]).split()
    size = found.group(1) or found.group(2)
    if any(word.isdigit() for word in rest):
        return rest, None
    return rest, f"_PRV{int(size):02d}" if size else "_PRV"


def _sided(words: list[str]) -> str | None:
    """The organ with its side where exactly one side is said."""
    last = len(words) - 1
    at = [n for n, word in enumerate(words) if word in _SIDE_OF and (len(word) > _ONLY_AT_AN_END or n in (0, last))]
    sides = {_SIDE_OF[words[n]] for n in at}
    if len(sides) != 1:
        return None
    organ = _table().get("".join(word for n, word in enumerate(words) if n not in at))
    return f"{organ.name}_{sides.pop()}" if organ and organ.paired else None


def _glued(joined: str) -> str | None:
    """The same where the side is written without a space: parotidl, leftparotid. Two readings are none."""
    readings = set()
    for word, side in _SIDE_OF.items():
        before, after = joined.removesuffix(word), joined.removeprefix(word)
        rests = [after] if len(word) <= 2 and not _GLUED.fullmatch(before) else [after, before]
        organs = [_table().get(rest) for rest in rests if rest != joined]
        readings |= {f"{organ.name}_{side}" for organ in organs if organ and organ.paired}
    return readings.pop() if len(readings) == 1 else None


# ---- targets


def _target(plain: str) -> str | None:
    joined = re.sub(r"(?<=\d),(?=\d)", ".", plain.replace(" ", "_").lower())
    found = _TARGET.fullmatch(re.sub(r"[^a-z0-9.]+", "_", joined).strip("_"))
    if not found:
        return None
    kind, place, rest = found.groups()
    name = kind.upper() + (place or "")
    if not rest:
        return name
    return f"{name}_{_LEVELS[rest]}" if rest in _LEVELS else _with_number(name, rest)


def _with_number(name: str, rest: str) -> str | None:
    found = _NUMBER.fullmatch(rest)
    if not found:
        return None
    index, number, unit = found.groups()
    dose = _dose_cgy(float(number), unit)
    if dose is not None:
        return f"{name}{index or ''}_{dose}"
    whole = number.isdigit() and unit is None and index is None and 1 <= int(number) <= 9
    return f"{name}{int(number)}" if whole else None


def _dose_cgy(number: float, unit: str | None) -> int | None:
    """Dose in cGy; without a unit 20 to 99.99 is Gy and 1000 to 9999 cGy, anything else is no dose."""
    if unit == "cgy" or (unit is None and 1000 <= number <= 9999):
        return round(number)
    return round(number * 100) if unit == "gy" or 20 <= number < 100 else None
