"""The mean patient: what is shipped, where it comes from, and that a seed gives another patient and the same one again."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from oncontour.commands import demo
from oncontour.contour.predict import load_contourer
from oncontour.errors import ConfigError
from oncontour.metrics.overlap import dsc
from oncontour.phantom import mean
from oncontour.phantom.mean import mean_patient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/oncontour/phantom/mean_patient"


def test_it_is_a_head_and_neck_with_every_organ_a_target_and_a_dose() -> None:
    case = mean_patient()
    assert set(demo.ORGANS) | {"PTV_7000"} <= set(case.structures)
    assert case.geometry.spacing_mm == (2.5, 4.0, 4.0)
    assert case.geometry.is_axial
    left, right = (case.geometry.points(np.argwhere(case.mask(name).array).mean(axis=0))[0] for name in ("Parotid_L", "Parotid_R"))
    assert left - right > 60, "left is the patient's left, +x"
    high, low = (case.geometry.points(np.argwhere(case.mask(name).array).mean(axis=0))[2] for name in ("Brainstem", "Esophagus"))
    assert high - low > 100, "superior is +z"
    target = case.images["dose"].array[case.mask("PTV_7000").array]
    assert 69 < float(np.median(target)) < 74
    outside = case.ct.array == mean.AIR_HU
    assert 0.5 < outside.mean() < 0.9
    assert not any((case.mask(name).array & outside).any() for name in case.structures)


def test_a_seed_is_another_patient_and_the_same_again() -> None:
    zero, one, again, two = (mean_patient(seed) for seed in (0, 1, 1, 2))
    assert np.array_equal(one.ct.array, again.ct.array)
    assert np.array_equal(one.images["dose"].array, again.images["dose"].array)
    for name in demo.ORGANS:
        assert np.array_equal(one.mask(name).array, again.mask(name).array)
        assert not np.array_equal(one.mask(name).array, two.mask(name).array)
        assert not np.array_equal(one.mask(name).array, zero.mask(name).array)
        assert 0.6 < one.mask(name).array.sum() / zero.mask(name).array.sum() < 1.6
    assert {case.id for case in (zero, one, two)} == {"mean-patient-000", "mean-patient-001", "mean-patient-002"}
    with pytest.raises(ConfigError, match="at least 0, not -1"):
        mean_patient(-1)


def test_it_is_small_and_holds_no_objects() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {"mean.npz", "LICENSE", "ORIGIN.md"}
    assert sum(files.values()) <= 1_500_000
    with np.load(FOLDER / "mean.npz", allow_pickle=False) as held:
        assert {key: held[key].dtype.kind for key in held} == {
            "ct": "i", "dose": "u", "planes": "u", "names": "U", "spacing_mm": "f", "origin_mm": "f",
        }  # fmt: skip


def test_its_origin_is_told_in_full() -> None:
    told = " ".join(mean.origin().split())
    assert len(re.findall(r"\bpt_\d+\b", told.split("OpenKBP:")[0])) == mean.PATIENTS == 24
    for words in ("Not a person", "Babier", "Medical Physics 48, 2021", "MIT", "write_mean_patient.py"):
        assert words in told
    made_from = set(re.findall(r"pt_\d+", told.split("OpenKBP:")[0]))
    (held,) = made_from & set(load_contourer("hn-organs").card.made["held_back_patients"])
    assert f"`hn-organs` learned from all but one of these patients ({held} was held back)" in told
    assert "by the root mean square of the difference one is (pt_119, 126 HU against 155 HU of pt_232)" in told
    assert "That correlation decides was chosen after both had been seen." in told
    near, other = (float(value) for value in re.findall(r"pt_\d+, at (\d\.\d+)", told))
    assert near <= other < 0.9, "its nearest training patient correlates no better than the nearest patient it holds nothing of"
    assert (FOLDER / "LICENSE").read_text(encoding="utf-8").startswith("MIT License\n\nCopyright (c) 2021 Aaron Babier")


def test_hn_organs_finds_the_organs() -> None:
    case = mean_patient()
    drawn = load_contourer("hn-organs", threads=1).predict(case.without_structures())
    scores = {name: dsc(drawn.mask(name), case.mask(name)) for name in demo.ORGANS}
    assert sum(scores.values()) / len(scores) >= 0.78, scores
    assert min(scores.values()) > 0.6, scores
