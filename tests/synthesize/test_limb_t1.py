"""The shipped synthesis model: of its example, for limbs alone, and as good on patients kept apart as its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oncontour.core.case import Case
from oncontour.documents import read_yaml
from oncontour.errors import InputError
from oncontour.io import read
from oncontour.learn.build import settings_from
from oncontour.learn.card import find, read_card
from oncontour.phantom import head_neck
from oncontour.reproduce.pseudomri_2021 import kept_apart, planned
from oncontour.reproduce.pseudomri_rows import FAIR, GANS, TEXTBOOK, of_synthesizer, pair_of, simple_rows
from oncontour.reproduce.pseudomri_tables import judged_pair
from oncontour.synthesize.inputs import SynthesizeSettings
from oncontour.synthesize.predict import Synthesizer
from tests.synthesize.test_fidelity import limb

ROOT = Path(__file__).parents[2]


def test_it_is_small_and_is_what_its_example_says() -> None:
    told, card = read_yaml(ROOT / "examples" / "limb-t1.yaml"), read_card(find("limb-t1"))
    assert find("limb-t1").stat().st_size <= 12e6
    assert settings_from(card, SynthesizeSettings) == SynthesizeSettings(**told["settings"])
    assert {name: getattr(card, name) for name in ("name", "region", "data", "licence", "limits")} == {
        name: told[name] for name in ("name", "region", "data", "licence", "limits")
    }
    assert {name: value for name, value in told["settings"].items() if name in GANS[FAIR]} | {"mode": "fair"} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in GANS[FAIR].items()
    }


def test_it_learned_from_none_who_are_kept_apart() -> None:
    plan = planned(read_yaml(ROOT / "papers" / "pseudomri-2021" / "run.yaml")["settings"])
    made = read_card(find("limb-t1")).made
    learned = {*made["trained_on"], *made["held_back_patients"]}
    test = ("STS_004", "STS_007", "STS_016", "STS_017", "STS_030", "STS_042")
    assert kept_apart(sorted({*learned, *test}), plan) == test
    assert not learned & {*test, *plan.left_out}
    assert len(learned) == 20


def test_a_phantom_of_a_limb_gets_bright_fat_and_another_region_is_refused() -> None:
    made = Synthesizer.load("limb-t1", backend="torch", threads=1).make(Case("x", {"ct": limb()}))
    assert made.fidelity.fat_over_muscle > 2
    assert made.fidelity.body_dice > 0.97
    with pytest.raises(InputError, match="head and neck"):
        Synthesizer.load("limb-t1").make(Case("x", {"ct": head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)).ct}))


def test_on_a_patient_kept_apart_it_beats_the_textbook_s_edges(data: Path) -> None:
    case = read(data / "sts-ct-mr" / "STS_042")
    pair = pair_of(case, SynthesizeSettings(spacing_mm=(3.27, 1.5, 1.5), correct_bias=False))
    ours = judged_pair("limb-t1", pair, of_synthesizer(Synthesizer.load("limb-t1", threads=1))(pair))
    curve = judged_pair(TEXTBOOK, pair, simple_rows([pair])[TEXTBOOK](pair))
    assert ours.gradient_correlation > curve.gradient_correlation + 0.01
    assert ours.fat_over_muscle > 1
    assert ours.ct_body_dice >= 0.97
    assert np.isfinite(ours.mae)
