"""NTCP: the formulas against a pencil, the published models against the examples worked out for them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from oncontour.dose.dvh import DVH
from oncontour.dose.ntcp import MODELS, Lkb, applicable, lkb
from oncontour.errors import ConfigError, InputError


def even(name: str, gy: float, cc: float = 10.0) -> DVH:
    """A structure that receives ``gy`` throughout."""
    return DVH(name, np.array([gy]), np.array([cc]), gy)


def head_and_neck(**gy: float) -> dict[str, DVH]:
    return {name: even(name, value) for name, value in gy.items()}


def test_formulas() -> None:
    """Phi(1) = 0.841345 and Phi(-1.959964) = 0.025."""
    assert lkb(50, 50, 0.2) == 0.5
    assert lkb(60, 50, 0.2) == pytest.approx(0.841345, abs=1e-6)
    assert lkb(50 * (1 - 0.2 * 1.959964), 50, 0.2) == pytest.approx(0.025, abs=1e-6)
    assert math.isnan(lkb(math.nan, 50, 0.2))
    for wrong in ((0, 0.2), (50, 0), (50, math.nan)):
        with pytest.raises(ConfigError, match="above 0"):
            lkb(20, *wrong)


@pytest.mark.parametrize(
    ("name", "structure", "td50", "m", "n"),
    [
        ("esophagitis-g2-belderbos-2005", "Esophagus", 47.0, 0.36, 0.69),
        ("esophagitis-g2-zehentmayr-2015", "Esophagus", 32.8, 0.48, 1.0),
        ("esophagus-late-chen-2013", "Esophagus", 76.1, 0.03, 0.03),
        ("pneumonitis-seppenwoolde-2003", "Lungs", 30.8, 0.37, 1.0),
    ],
)
def test_the_published_dose_slope_and_volume_effect(name: str, structure: str, td50: float, m: float, n: float) -> None:
    """TD50, m and n of the abstracts. One m above TD50 is Phi(1) = 0.841345; where half of an organ has a dose, its EUD is 0.5^n of it."""
    model = MODELS[name]
    assert model.probability({structure: even(structure, td50)}) == pytest.approx(0.5)
    assert model.probability({structure: even(structure, td50 * (1 + m))}) == pytest.approx(0.841345, abs=1e-6)
    gy = td50 / 0.5**n
    half = DVH(structure, np.array([0, 0, gy, gy]), np.array([20, 10, 10, 10]), gy / 2)
    assert model.probability({structure: half}) == pytest.approx(0.5, abs=1e-6)


def test_belderbos_by_hand() -> None:
    """Half the oesophagus at 60 Gy, half at 0: EUD = 60 * 0.5^0.69 = 37.193; t = (37.193 - 47) / 16.92 = -0.5796; Phi = 0.2811."""
    half = DVH("Esophagus", np.array([0, 0, 60, 60]), np.array([20, 10, 10, 10]), 30.0)
    assert MODELS["esophagitis-g2-belderbos-2005"].probability({"Esophagus": half}) == pytest.approx(0.2811, abs=2e-4)


def test_xerostomia_example() -> None:
    """30 and 20 Gy in the parotids, 50 Gy in the submandibular glands, nothing at baseline: 0.40."""
    dvhs = head_and_neck(Parotid_L=30, Parotid_R=20, Glnd_Submand_L=50, Glnd_Submand_R=50)
    model = MODELS["xerostomia-g2-lipp"]
    assert model.probability(dvhs, {"baseline_xerostomia": "none"}) == pytest.approx(0.40, abs=0.005)
    assert model.probability(dvhs, {"baseline_xerostomia": "mild"}) == pytest.approx(expit(-0.3942 + 0.4950), abs=1e-4)
    assert model.needs == ("Parotid_L", "Parotid_R", "Glnd_Submand_L", "Glnd_Submand_R", "baseline_xerostomia")


@pytest.mark.parametrize(
    ("grade", "without", "added"),
    [
        (2, -2.2951 + 0.0996 * (5 + 4) + 0.0182 * 50, {"none": 0, "mild": 0.4950, "moderate": 1.2070, "severe": 1.2070}),
        (3, -3.7286 + 0.0855 * (5 + 4) + 0.0156 * 50, {"none": 0, "mild": 0.4249, "moderate": 1.0361, "severe": 1.0361}),
    ],
)
def test_xerostomia_by_hand(grade: int, without: float, added: dict[str, float]) -> None:
    """25 and 16 Gy in the parotids, whose roots are 5 and 4, and 50 Gy in the submandibular glands; coefficients of the LIPP."""
    dvhs = head_and_neck(Parotid_L=25, Parotid_R=16, Glnd_Submand_L=50, Glnd_Submand_R=50)
    for before, more in added.items():
        found = MODELS[f"xerostomia-g{grade}-lipp"].probability(dvhs, {"baseline_xerostomia": before})
        assert found == pytest.approx(1 / (1 + math.exp(-(without + more))), abs=1e-6), before


def test_dysphagia_example() -> None:
    """Pharynx, oral cavity 45 Gy, constrictors 55, 50 and 35 Gy: 0.25."""
    dvhs = head_and_neck(Cavity_Oral=45, Musc_Constrict_S=55, Musc_Constrict_M=50, Musc_Constrict_I=35)
    facts = {"baseline_dysphagia_grade": 0, "site": "pharynx"}
    assert MODELS["dysphagia-g2-lipp"].probability(dvhs, facts) == pytest.approx(0.25, abs=0.005)
    with_two = [MODELS["dysphagia-g2-lipp"].probability(dvhs, {**facts, "baseline_dysphagia_grade": two}) for two in (2, 2.0, "2")]
    by_hand = 1.35 + 1.298 + 0.475 + 0.4655 - 4.0536 - 0.6281 + 0.9382
    assert with_two == [pytest.approx(expit(by_hand), abs=1e-6)] * 3, "a grade of 2.0 is 2"


@pytest.mark.parametrize(
    ("grade", "without", "before", "site"),
    [
        (
            2,
            -4.0536 + 0.0300 * 40 + 0.0236 * 60 + 0.0095 * 50 + 0.0133 * 30,
            (0, 0, 0.9382, 1.29, 1.29, 1.29),
            {"oral cavity": 0, "pharynx": -0.6281, "larynx": -0.7711},
        ),
        (
            3,
            -7.6174 + 0.0259 * 40 + 0.0203 * 60 + 0.0303 * 50 + 0.0341 * 30,
            (0, 0, 0.5738, 1.4718, 1.4718, 1.4718),
            {"oral cavity": 0, "pharynx": 0.0387, "larynx": -0.5303},
        ),
    ],
)
def test_dysphagia_by_hand(grade: int, without: float, before: tuple[float, ...], site: dict[str, float]) -> None:
    """Oral cavity 40 Gy, constrictors 60, 50 and 30 Gy; coefficients of the LIPP."""
    dvhs = head_and_neck(Cavity_Oral=40, Musc_Constrict_S=60, Musc_Constrict_M=50, Musc_Constrict_I=30)
    for baseline, more in enumerate(before):
        for place, offset in site.items():
            facts = {"baseline_dysphagia_grade": baseline, "site": place}
            found = MODELS[f"dysphagia-g{grade}-lipp"].probability(dvhs, facts)
            assert found == pytest.approx(1 / (1 + math.exp(-(without + more + offset))), abs=1e-6), facts


def test_both_lungs_are_one_organ() -> None:
    """10 cc at 10 Gy and 30 cc at 20 Gy have a mean of 17.5 Gy."""
    model = MODELS["pneumonitis-seppenwoolde-2003"]
    pair = {"Lung_L": even("Lung_L", 10, 10), "Lung_R": even("Lung_R", 20, 30)}
    assert model.probability(pair) == pytest.approx(model.probability({"Lungs": even("Lungs", 17.5)}))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"needs Esophagus; there are Lung_L"):
        MODELS["esophagitis-g2-belderbos-2005"].probability({"Lung_L": even("Lung_L", 10)})
    with pytest.raises(InputError, match=r"needs Lung_R \(or Lungs\)"):
        MODELS["pneumonitis-seppenwoolde-2003"].probability({"Lung_L": even("Lung_L", 10)})
    dvhs = head_and_neck(Parotid_L=30, Parotid_R=20, Glnd_Submand_L=50, Glnd_Submand_R=50)
    with pytest.raises(InputError, match="baseline_xerostomia, which is not known"):
        MODELS["xerostomia-g3-lipp"].probability(dvhs)
    with pytest.raises(InputError, match=r"is 'bad'.*give one of none, mild"):
        MODELS["xerostomia-g3-lipp"].probability(dvhs, {"baseline_xerostomia": "bad"})
    nowhere = DVH("Esophagus", np.empty(0), np.empty(0), np.nan, missing_cc=3)
    with pytest.raises(InputError, match="outside the dose grid"):
        MODELS["esophagitis-g2-belderbos-2005"].probability({"Esophagus": nowhere})


def test_applicable_gives_those_that_have_all() -> None:
    found = applicable({"Esophagus": even("Esophagus", 40)})
    assert list(found) == ["esophagitis-g2-belderbos-2005", "esophagitis-g2-zehentmayr-2015", "esophagus-late-chen-2013"]
    assert applicable({}) == {}


def test_every_model_says_where_it_comes_from() -> None:
    for name, model in MODELS.items():
        assert name == model.name
        assert all((model.endpoint, model.cohort, model.source, model.status, model.dose, model.needs))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([m for m in MODELS.values() if isinstance(m, Lkb)]), st.floats(0, 90), st.floats(0, 90))
def test_more_dose_is_no_less_risk(model: Lkb, one: float, other: float) -> None:
    low, high = sorted((one, other))
    name = model.part.alternatives[0] if model.part.alternatives else model.part.structures[0]
    assert 0 <= model.probability({name: even(name, low)}) <= model.probability({name: even(name, high)}) <= 1
