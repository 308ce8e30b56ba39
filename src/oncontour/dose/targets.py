"""What is prescribed to targets, and how well they receive it.

gy = prescribed(case.structures, 66)        PTV_7000 -> 70, CTV -> 66
covered(dose, dvhs, gy)["PTV_7000"].d95_gy
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from oncontour.core.structure_kinds import is_target
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH
from oncontour.dose.indices import conformity, homogeneity
from oncontour.errors import DoseError

MOST_GY = 300.0
"""A median above this in a structure is no dose in Gy."""
FAR_OFF = 20.0
"""How many times a target's prescription its median may be before the numbers are taken for centigray."""
NESTED = (("GTV", "IGTV"), ("CTV", "ICTV"), ("ITV",), ("PTV",))
"""Targets, each within the next (ICRU Report 83)."""
MOST_TOLD_GY = 150.0
"""No target gets more: PTV_6000x30 is 60 Gy in 30 fractions, though TG-263 has a fraction's dose before the x."""
_TOLD = re.compile(r"_(\d+(?:[.p]\d+)?)(c?gy)?(?:x(\d{1,2})(?!\d))?", re.IGNORECASE)
"""A dose at the end of a target's name: number, unit, and times how many fractions (TG-263, section on target volumes)."""


@dataclass(frozen=True)
class Target:
    """A target with a prescription. ``homogeneity`` is that of ICRU 83; the conformity indices are those of the isodose of 95 %.

    They are NaN where the isodose is meant to enclose another target too: one that is prescribed more, or as much and is no part of this
    one (ICRU 83: GTV within CTV within ITV within PTV).
    """

    prescription_gy: float
    v95_percent: float
    d95_gy: float
    homogeneity: float
    paddick: float
    rtog: float
    gradient: float


def prescribed(names: Sequence[str], prescription_gy: float | None) -> dict[str, float]:
    """Target -> Gy: as its TG-263 name tells (``_told_gy``), else ``prescription_gy``."""
    told = {name: _told_gy(name) or prescription_gy for name in filter(is_target, names)}
    return {name: gy for name, gy in told.items() if gy}


def _told_gy(name: str) -> float | None:
    """The dose in a target's name, None where there is none or several: cGy in three to five digits, or with a unit.

    A dose a fraction is multiplied; what would then be more than MOST_TOLD_GY is taken as the whole (PTV_6000x30). Digits of cGy go before
    Gy, which may be a fraction's (PTV_2Gy_7000); of several in Gy nobody knows which is the whole.

    >>> [_told_gy(name) for name in ("PTV_7000", "PTV_50p4Gy", "PTV_Liver_2000x3", "PTV_Liver_20Gyx3", "PTV_20210304", "PTV_2Gy_70Gy")]
    [70.0, 50.4, 60.0, 60.0, None, None]
    """
    in_cgy, in_gy = [], []
    for number, unit, fractions in _TOLD.findall(name):
        if unit.lower() == "gy":
            in_gy.append(_whole(float(number.lower().replace("p", ".")), fractions))
        elif unit or re.match(r"\d{3,5}(?!\d)", number):  # a point after cGy is the number of a copy (PTV_7000.1)
            in_cgy.append(_whole(float(re.split(r"[.p]", number, flags=re.IGNORECASE)[0]) / 100, fractions))
    return in_cgy[0] if in_cgy else in_gy[0] if len(in_gy) == 1 else None


def _whole(gy: float, fractions: str) -> float:
    """``gy`` in each of so many ``fractions`` ("" for one), unless that is more than anybody gives."""
    whole = gy * int(fractions or 1)
    return whole if whole <= MOST_TOLD_GY else gy


def check_unit(dvhs: Mapping[str, DVH], prescriptions: Mapping[str, float]) -> None:
    """Raise DoseError where a median cannot be Gy: FAR_OFF times what is prescribed, or more than MOST_GY in other structures."""
    for name, one in dvhs.items():
        middle = one.dose_to_percent(50)
        limit = FAR_OFF * prescriptions[name] if name in prescriptions else MOST_GY
        if middle > limit:
            of = f", prescribed are {prescriptions[name]:g} Gy" if name in prescriptions else ""
            raise DoseError(
                f"{name} would receive {middle:.0f} Gy in the median{of}: the numbers look like centigray",
                where=f"structure {name}",
                hint="if they are, say so with --unit cGy",
            )


def doubts(dvhs: Mapping[str, DVH], prescriptions: Mapping[str, float]) -> Iterator[str]:
    """A sentence on each target whose median is less than half its prescription, or more than one and a half times it."""
    for name, gy in prescriptions.items():
        middle = dvhs[name].dose_to_percent(50)
        if middle < gy / 2 or middle > 1.5 * gy:
            yield f"{name} receives {middle:.1f} Gy in the median, prescribed are {gy:g} Gy: is this the whole treatment's dose, in Gy?"


def covered(dose: Volume, dvhs: Mapping[str, DVH], prescriptions: Mapping[str, float]) -> dict[str, Target]:
    """What each target with a prescription (Gy) receives; those that have no dose are left out."""
    out = {}
    for name, gy in prescriptions.items():
        one, isodose = dvhs[name], 0.95 * gy
        if not one.dosed_cc:
            continue
        shape = (math.nan, math.nan, math.nan)
        if not any(other != name and _goes_beyond(other, its_gy, name, gy) for other, its_gy in prescriptions.items()):
            found = conformity(dose, one, isodose)
            shape = found.paddick, found.rtog, found.gradient
        out[name] = Target(gy, one.percent_above(isodose), one.dose_to_percent(95), homogeneity(one), *shape)
    return out


def _goes_beyond(other: str, other_gy: float, name: str, gy: float) -> bool:
    """Whether the isodose of target ``name`` must enclose ``other`` as well."""
    rank = [next(n for n, kinds in enumerate(NESTED) if one.upper().startswith(kinds)) for one in (other, name)]
    return other_gy > gy or (other_gy == gy and rank[0] >= rank[1])
