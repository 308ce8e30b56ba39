"""Simulated outcomes: what no DVH can see, by mirror; the best AUC, by counting; and everything from its seed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import dvh
from oncontour.errors import ConfigError, DoseError, InputError
from oncontour.risk.virtual_patients import (
    HOSPITALS,
    Anatomy,
    Exposure,
    Hospital,
    Toxicity,
    Truth,
    Virtual,
    bayes_auc,
    draw,
    exposure,
    record,
    ring_share,
    seen_by_dvh,
    wall_gy,
)


def tube(gradient_gy=10.0, level_gy=40.0):
    """A square tube of 6 x 6 voxels of 2 mm along z, in a dose that rises to the patient's left by ``gradient_gy`` a cm."""
    grid = Geometry.regular((10, 30, 30), (3, 2, 2), (-29, -29, 0))
    mask = np.zeros(grid.shape, bool)
    mask[2:8, 12:18, 12:18] = True
    x = grid.points(np.stack(np.indices(grid.shape), axis=-1))[..., 0]
    dose = (level_gy + gradient_gy * x / 10).astype(np.float32)
    return Case(
        "p1",
        {"ct": Volume(np.zeros(grid.shape, np.int16), grid), "dose": Volume(np.maximum(dose, 0), grid)},
        {"Esophagus": Volume(mask, grid)},
    )


def test_the_wall_term_by_pencil_and_in_the_mirror():
    """Half centres lie 3 voxels = 6 mm apart: 6 Gy at 10 Gy a cm."""
    case, tox = tube(), Toxicity()
    plain = exposure(Anatomy.of(case, ["Esophagus"]), tox)
    assert plain.wall_gy == pytest.approx(6.0, abs=1e-4)
    turned = exposure(Anatomy.of(case, ["Esophagus"]).treated(Virtual("p1", mirrored=True)), tox)
    assert turned.wall_gy == pytest.approx(-6.0, abs=1e-4)
    assert turned.ntcp == pytest.approx(plain.ntcp, abs=1e-9)
    assert turned.figures == pytest.approx(plain.figures, abs=1e-6), "no DVH sees the mirror"
    assert plain.ntcp == pytest.approx(stats.norm.cdf((plain.figures["Dmean"] - 32.8) / (0.48 * 32.8)), abs=1e-6)


def test_the_ring_by_pencil():
    inside = np.ones((3, 4, 5), bool)
    gy = np.full((3, 4, 5), 60.0)
    gy[1] = 20.0
    gy[2, :, :2] = 20.0
    assert ring_share(inside, gy) == pytest.approx(1 / 3, abs=1e-3), "only the first slice is hot all round"
    assert wall_gy(inside, gy) == pytest.approx((60 - 20) / 3), "left of slice 3 is hot: columns 3, 4 against 0, 1"
    assert wall_gy(np.zeros((2, 3, 3), bool), np.ones((2, 3, 3))) == 0


def test_what_a_virtual_patient_s_dose_is():
    case = tube()
    one = Virtual("p1", 3, scale=0.5, shift_mm=(4.0, 0.0, 0.0)).apply(case)
    assert one.id == "p1-v003"
    assert one.facts["original"] == "p1"
    moved = one.images["dose"].to(case.geometry).array
    assert moved[5, 15, 17] == pytest.approx(0.5 * case.images["dose"].array[5, 15, 15], abs=1e-3), "the dose moved 4 mm to the left"
    assert (one.mask("Esophagus").array == case.mask("Esophagus").array).all()
    mirrored = Virtual("p1", mirrored=True).apply(replace(case, masks={**case.masks, "Parotid_L": case.masks["Esophagus"]}))
    assert set(mirrored.structures) == {"Esophagus", "Parotid_R"}
    here = dvh(mirrored.images["dose"], mirrored.mask("Esophagus")).mean_gy
    assert here == pytest.approx(dvh(case.images["dose"], case.mask("Esophagus")).mean_gy, abs=1e-4)


def test_noise_and_grid_are_recorded_but_not_true():
    case = tube(0.0)
    rough = Virtual("p1", noise_gy=2.0, grid_mm=5.0, seed=1)
    seen = rough.recorded_dose(case.images["dose"])
    assert seen.geometry.spacing_mm == pytest.approx((5, 5, 5))
    assert seen.array.std() == pytest.approx(2.0, rel=0.1)
    assert (rough.recorded_dose(case.images["dose"]).array == seen.array).all()
    assert rough.true_dose(case.images["dose"]).array.std() == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="made of a dose"):
        rough.apply(Case("x", {"ct": case.images["ct"]}))


def test_draws_follow_their_seed_and_their_hospital():
    home = HOSPITALS[0]
    assert draw(home, "a", 1, 0) == draw(home, "a", 1, 0)
    assert draw(home, "a", 1, 0) != draw(home, "a", 2, 0)
    assert draw(home, "a", 1, 0) != draw(replace(home, name="other"), "a", 1, 0)
    many = [draw(home, f"p{n}", 0, 0) for n in range(400)]
    assert np.mean([v.mirrored for v, _ in many]) == pytest.approx(0.5, abs=0.08)
    assert np.std([v.shift_mm[2] for v, _ in many]) == pytest.approx(8, rel=0.15)
    assert {f["chemo"] for _, f in many} == {0, 1}


def test_the_bayes_auc_by_counting():
    """Risks 0.2, 0.5, 0.5, 0.9: every ordered pair weighed by the chance of its outcomes."""
    r = np.array([0.2, 0.5, 0.5, 0.9])
    top = bottom = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                weight = r[i] * (1 - r[j])
                bottom += weight
                top += weight * (0.5 if r[i] == r[j] else float(r[i] > r[j]))
    assert bayes_auc(r) == pytest.approx(top / bottom)
    assert bayes_auc(np.full(5, 0.3)) == pytest.approx(0.5)
    assert np.isnan(bayes_auc(np.array([0.5])))


def test_no_score_beats_the_true_risk():
    rng = np.random.default_rng(0)
    risk = rng.beta(1, 2, 3000)
    had = record(risk, Hospital(), 3) > 0.5
    from oncontour.metrics.classify import auc

    assert auc(risk, had) == pytest.approx(bayes_auc(risk), abs=0.02)
    assert auc(risk + 0.2 * rng.normal(size=3000), had) < auc(risk, had)


def test_prevalence_missing_and_wrong_are_as_asked():
    hospital = Hospital(prevalence=0.4, missing=0.25, wrong=0.1)
    predictors = np.random.default_rng(0).normal(size=4000) * 2
    truth, risk = Truth(Toxicity()).at(hospital, predictors)
    true = 1 / (1 + np.exp(-(predictors + truth.intercepts["home"])))
    assert true.mean() == pytest.approx(0.4, abs=1e-6)
    assert risk == pytest.approx(true * 0.9 + (1 - true) * 0.1)
    had = record(risk, hospital, 0)
    assert np.isnan(had).mean() == pytest.approx(0.25, abs=0.03)
    assert np.nanmean(had) == pytest.approx(risk.mean(), abs=0.03)


def test_the_predictor_by_pencil():
    truth = Truth(Toxicity(wall=2, ring=1, chemo=0.7, age=0.15)).fitted([Exposure(0.5, 3.0, 0.2, {}), Exposure(0.5, -3.0, 0.6, {})])
    assert truth.wall_sd_gy == pytest.approx(3.0)
    assert truth.ring == pytest.approx((0.4, 0.2))
    one = truth.predictor(Exposure(0.25, 1.5, 0.6, {}), {"chemo": 1, "age": 70})
    assert one == pytest.approx(np.log(1 / 3) + 2 * 0.5 + 1 + 0.7 + 0.15)


def test_how_much_a_dvh_knows():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(500, 3))
    assert seen_by_dvh(table @ [1, 2, 0], table) == pytest.approx(1)
    assert abs(seen_by_dvh(rng.normal(size=500), table)) < 0.03


def test_what_cannot_be_simulated_is_refused():
    case = tube()
    with pytest.raises(InputError, match="no structure 'Larynx'"):
        Anatomy.of(case, ["Larynx"])
    with pytest.raises(InputError, match="no dose"):
        Anatomy.of(Case("x", {"ct": case.images["ct"]}, case.masks), ["Esophagus"])
    with pytest.raises(DoseError, match="outside the dose grid"):
        exposure(Anatomy.of(case, ["Esophagus"]).treated(Virtual("p1", shift_mm=(500, 0, 0))), Toxicity())
    with pytest.raises(ConfigError, match="no published model"):
        Toxicity(model="x")
    with pytest.raises(ConfigError, match="out of range"):
        Hospital(prevalence=1.5)
    with pytest.raises(ConfigError, match="out of range"):
        Hospital(scale=(1.0, 0.5))


def test_a_real_patient_in_the_mirror(data):
    """OpenKBP pt_201: mirrored, every dose figure stays and the wall term changes its sign."""
    from oncontour.io import read

    case = read(data / "openkbp" / "validation" / "pt_201")
    patient = Anatomy.of(case, ["Esophagus"])
    plain, turned = (exposure(patient.treated(Virtual("pt_201", mirrored=m)), Toxicity()) for m in (False, True))
    assert turned.figures == pytest.approx(plain.figures, abs=1e-3)
    assert turned.wall_gy == pytest.approx(-plain.wall_gy, abs=1e-3)
    assert abs(plain.wall_gy) > 0.1
    assert plain.figures["Dmean"] == pytest.approx(21.0, abs=0.5)
