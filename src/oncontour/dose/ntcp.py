"""Normal tissue complication probability: Lyman-Kutcher-Burman and logistic models, and the published ones that could be verified.

    MODELS["esophagitis-g2-belderbos-2005"].probability({"Esophagus": one})
    lkb(one.geud_gy(1 / 0.69), td50_gy=47, m=0.36)

``MODELS`` holds only models whose every coefficient was read in the publication or its abstract, or in software that ports the published
instrument; each says which (``status``). What could not be verified, or is incomplete as published (a dose of 50 % risk without a slope,
odds ratios without an intercept), is not here. None of them is a medical device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scipy.special import expit

from oncontour.dose.dvh import DVH, together
from oncontour.errors import ConfigError, InputError

ABSTRACT = "parameters read in the abstract"
MISSING = 0.05
"""Part of an organ that may lie outside the dose for a published model to be told of it."""
PORTED = "coefficients read in software that ports the instrument (LIPP, PSI sheet 3.0)"


def lkb(eud_gy: float, td50_gy: float, m: float) -> float:
    """Phi((EUD - TD50) / (m TD50)): the probit of Lyman (Radiat Res 1985;104:S13) on the EUD of Kutcher and Burman, (sum v D^(1/n))^n.

    NaN for NaN. Raises ConfigError for TD50 or m that is not positive.
    """
    if not (td50_gy > 0 and m > 0):
        raise ConfigError(f"an LKB model needs TD50 and m above 0, not {td50_gy} Gy and {m}")
    return 0.5 * math.erfc(-(eud_gy - td50_gy) / (m * td50_gy) / math.sqrt(2))


# ---- models


@dataclass(frozen=True)
class Part:
    """A dose that a model asks for: ``figure`` of ``structures`` (put together where there are several).

    ``alternatives`` are names of one structure that is the same as all of them together.
    """

    structures: tuple[str, ...]
    figure: str = "Dmean"
    alternatives: tuple[str, ...] = ()

    def of(self, dvhs: Mapping[str, DVH]) -> DVH:
        """The DVH. Raises InputError, naming what is not there."""
        for name in self.alternatives:
            if name in dvhs:
                return dvhs[name]
        absent = [name for name in self.structures if name not in dvhs]
        if absent:
            other = f" (or {', '.join(self.alternatives)})" if self.alternatives else ""
            raise InputError(f"the model needs {', '.join(absent)}{other}; there are {', '.join(dvhs) or 'no structures'}")
        parts = [dvhs[name] for name in self.structures]
        one = parts[0] if len(parts) == 1 else together(parts, " + ".join(self.structures))
        if not one.dosed_cc:
            raise InputError(one.note or f"{one.name} has no dose")
        return one


@dataclass(frozen=True)
class Term:
    """``coefficient`` times the dose figure of ``part``, or times its square root; for ``root`` over several parts, the sum of roots."""

    coefficient: float
    parts: tuple[Part, ...]
    root: bool = False

    def value(self, dvhs: Mapping[str, DVH]) -> float:
        doses = [part.of(dvhs).figure(part.figure) for part in self.parts]
        return self.coefficient * sum(math.sqrt(gy) if self.root else gy for gy in doses)


def fact_key(given: object) -> str:
    """A fact as the tables of the models spell it: a grade of 2.0 is 2."""
    return f"{given:g}" if isinstance(given, float) else str(given)


@dataclass(frozen=True)
class Factor:
    """A fact of the patient, and what each of its values adds to the predictor."""

    fact: str
    values: Mapping[str, float]

    def value(self, facts: Mapping[str, object]) -> float:
        given = facts.get(self.fact)
        key = fact_key(given)
        if given is None or key not in self.values:
            told = "is not known" if given is None else f"is {given!r}"
            raise InputError(f"the model needs {self.fact}, which {told}", hint=f"give one of {', '.join(self.values)}")
        return self.values[key]


@dataclass(frozen=True)
class Model(ABC):
    """What every published model says of itself. ``endpoint`` what it predicts; ``cohort`` whom it was made from; ``source``; ``status``.

    ``dose`` says which dose it was fitted to, as far as that is known: where it is not, the dose is taken as it is given.
    """

    name: str
    endpoint: str
    cohort: str
    source: str
    status: str
    dose: str

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Structures and facts that it asks for."""

    @abstractmethod
    def probability(self, dvhs: Mapping[str, DVH], facts: Mapping[str, object] | None = None) -> float:
        """The risk in [0, 1]. Raises InputError for a structure or a fact that is missing, or a structure without dose."""


@dataclass(frozen=True)
class Lkb(Model):
    """Lyman-Kutcher-Burman with ``td50_gy``, ``m``, ``n`` on the EUD of ``part``; intervals as published (95 %), None where not told."""

    part: Part
    td50_gy: float
    m: float
    n: float
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        return self.part.structures

    def probability(self, dvhs: Mapping[str, DVH], facts: Mapping[str, object] | None = None) -> float:
        return lkb(self.part.of(dvhs).geud_gy(1 / self.n), self.td50_gy, self.m)


@dataclass(frozen=True)
class Logistic(Model):
    """``intercept`` plus dose ``terms`` plus ``factors`` of the patient, through the logistic function."""

    intercept: float
    terms: tuple[Term, ...]
    factors: tuple[Factor, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        structures = [name for term in self.terms for part in term.parts for name in part.structures]
        return tuple(dict.fromkeys([*structures, *(factor.fact for factor in self.factors)]))

    def probability(self, dvhs: Mapping[str, DVH], facts: Mapping[str, object] | None = None) -> float:
        doses = sum(term.value(dvhs) for term in self.terms)
        return float(expit(self.intercept + doses + sum(factor.value(facts or {}) for factor in self.factors)))


def organs() -> tuple[str, ...]:
    """Structures that a published model may ask for, other names of them too."""
    parts = []
    for model in MODELS.values():
        if isinstance(model, Lkb):
            parts.append(model.part)
        elif isinstance(model, Logistic):
            parts += [part for term in model.terms for part in term.parts]
    return tuple(dict.fromkeys(name for part in parts for name in (*part.structures, *part.alternatives)))


def asked_facts() -> dict[str, tuple[str, ...]]:
    """Fact that a published model may ask for -> the values that it knows."""
    return {f.fact: tuple(f.values) for model in MODELS.values() if isinstance(model, Logistic) for f in model.factors}


def dosed(dvhs: Mapping[str, DVH]) -> dict[str, DVH]:
    """Those whose dose is known as a whole, but for MISSING: the mean of a part is not that of the organ."""
    return {name: one for name, one in dvhs.items() if one.dosed_cc and one.missing_cc <= MISSING * one.volume_cc}


def applicable(dvhs: Mapping[str, DVH], facts: Mapping[str, object] | None = None) -> dict[str, float]:
    """The probability by every model of ``MODELS`` that has all it asks for."""
    out = {}
    for name, model in MODELS.items():
        try:
            out[name] = model.probability(dvhs, facts)
        except InputError:
            continue
    return out


# ---- the published ones

_ESOPHAGUS = Part(("Esophagus",))
_LUNGS = Part(("Lung_L", "Lung_R"), alternatives=("Lungs",))
_SUBMANDIBULAR = Part(("Glnd_Submand_L", "Glnd_Submand_R"))
_AS_GIVEN = "the abstract does not tell alpha/beta: the dose is taken as given"
PHYSICAL = "physical mean doses"


def _lipp(
    name: str,
    endpoint: str,
    intercept: float,
    terms: Sequence[Term],
    factors: Sequence[Factor],
) -> Logistic:
    cohort = "head and neck cancer, primary radiotherapy"
    source = "Dutch national indication protocol for proton therapy (LIPP), head and neck"
    return Logistic(name, endpoint, cohort, source, PORTED, PHYSICAL, intercept, tuple(terms), tuple(factors))


def _xerostomia(grade: Literal[2, 3], intercept: float, parotid: float, submandibular: float, some: float, much: float) -> Logistic:
    glands = Term(parotid, (Part(("Parotid_L",)), Part(("Parotid_R",))), root=True)
    baseline = Factor("baseline_xerostomia", {"none": 0.0, "mild": some, "moderate": much, "severe": much})
    endpoint = f"xerostomia grade {grade} or more, 6 months after"
    return _lipp(f"xerostomia-g{grade}-lipp", endpoint, intercept, (glands, Term(submandibular, (_SUBMANDIBULAR,))), (baseline,))


def _dysphagia(
    grade: Literal[2, 3],
    intercept: float,
    doses: tuple[float, float, float, float],
    baseline: tuple[float, float],
    site: tuple[float, float],
) -> Logistic:
    organs = ("Cavity_Oral", "Musc_Constrict_S", "Musc_Constrict_M", "Musc_Constrict_I")
    terms = [Term(coefficient, (Part((organ,)),)) for organ, coefficient in zip(organs, doses, strict=True)]
    before = Factor(
        "baseline_dysphagia_grade", {"0": 0.0, "1": 0.0, "2": baseline[0], "3": baseline[1], "4": baseline[1], "5": baseline[1]}
    )
    where = Factor("site", {"oral cavity": 0.0, "pharynx": site[0], "larynx": site[1]})
    endpoint = f"dysphagia grade {grade} or more"
    return _lipp(f"dysphagia-g{grade}-lipp", endpoint, intercept, terms, (before, where))


_LISTED: tuple[Model, ...] = (
    Lkb(
        "esophagitis-g2-belderbos-2005",
        "acute esophagitis grade 2 or more",
        "119 of 156 patients with lung cancer, those without concurrent chemotherapy (27 % events among all 156)",
        "Belderbos et al. 2005",
        ABSTRACT,
        _AS_GIVEN,
        _ESOPHAGUS,
        47.0,
        0.36,
        0.69,
        {"td50_gy": (41, 60), "n": (0.18, 6.3), "m": (0.25, 0.55)},
    ),
    Lkb(
        "esophagitis-g2-zehentmayr-2015",
        "acute esophagitis grade 2 or more",
        "66 patients with lung cancer, accelerated radiotherapy, 23 events",
        "Zehentmayr et al., Radiat Oncol 2015, doi 10.1186/s13014-015-0429-1",
        ABSTRACT,
        _AS_GIVEN,
        _ESOPHAGUS,
        32.8,
        0.48,
        1.0,
    ),
    Lkb(
        "esophagus-late-chen-2013",
        "severe late toxicity of the esophagus",
        "lung cancer, 66 Gy in 24 fractions with concurrent chemotherapy",
        "Chen et al. 2013, PMID 24074814",
        ABSTRACT,
        _AS_GIVEN,
        _ESOPHAGUS,
        76.1,
        0.03,
        0.03,
        {"td50_gy": (73.2, 78.6)},
    ),
    Lkb(
        "pneumonitis-seppenwoolde-2003",
        "radiation pneumonitis",
        "lung cancer",
        "Seppenwoolde et al. 2003",
        ABSTRACT,
        _AS_GIVEN,
        _LUNGS,
        30.8,
        0.37,
        1.0,
    ),
    _xerostomia(2, -2.2951, 0.0996, 0.0182, 0.4950, 1.2070),
    _xerostomia(3, -3.7286, 0.0855, 0.0156, 0.4249, 1.0361),
    _dysphagia(2, -4.0536, (0.0300, 0.0236, 0.0095, 0.0133), (0.9382, 1.29), (-0.6281, -0.7711)),
    _dysphagia(3, -7.6174, (0.0259, 0.0203, 0.0303, 0.0341), (0.5738, 1.4718), (0.0387, -0.5303)),
)
MODELS: dict[str, Model] = {model.name: model for model in _LISTED}
"""name -> model."""
