"""What ``train contour`` takes from the cohort where it is not given: structures, spacing, window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.contour.from_cohort import ContourWishes, window_for
from oncontour.contour.inputs import ContourSettings
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.learn.card import read_card
from tests.phantoms import cohort


def case(id: str, *names: str, spacing_mm: tuple[float, float, float] = (3.0, 2.0, 2.0), shape: tuple[int, int, int] = (8, 20, 24)) -> Case:
    grid = Geometry.regular(shape, spacing_mm)
    return Case(id, {"ct": Volume(np.zeros(shape, np.int16), grid)}, {name: Volume(np.ones(shape, bool), grid) for name in names})


def test_organs_that_half_of_the_patients_have_are_chosen_and_targets_are_not() -> None:
    cases = [
        case("a", "Parotid_L", "PTV_7000", "ring"),
        case("b", "SpinalCord", "Parotid_L", "PTV_7000", "ring"),
        case("c", "Brainstem", "Parotid_L", "PTV_7000", "ring"),
        case("d", "SpinalCord", "External", "ring"),
    ]
    settings, told = ContourWishes(window=(16, 16, 16)).chosen(cases)
    assert settings.structures == ("Parotid_L", "SpinalCord")
    assert told[0] == "settings.structures Parotid_L,SpinalCord: organs that at least half of 4 patients have"
    assert "PTV_7000 (3 of 4)" in told[1]
    assert "Brainstem (1 of 4)" in told[1]
    with pytest.raises(ConfigError, match=r"no organ .* ring \(1 of 1\).*--settings\.structures"):
        ContourWishes().chosen([case("a", "ring")])
    with pytest.raises(ConfigError, match="no patient"):
        ContourWishes().chosen([])


def test_the_spacing_is_the_median_of_each_axis_whichever_way_files_run() -> None:
    grids = [(3.0, 1.0, 1.0), (2.0, 0.9, 0.9), (5.0, 1.2, 1.2)]
    cases = [case(str(n), "Parotid_L", spacing_mm=grid) for n, grid in enumerate(grids)]
    lying = cases[0].geometry.reorient([(1, 0, 0), (0, 0, -1), (0, 1, 0)])
    cases[0] = Case("0", {"ct": cases[0].ct.to(lying)}, {"Parotid_L": cases[0].masks["Parotid_L"].to(lying)})
    settings, told = ContourWishes(window=(16, 16, 16)).chosen(cases)
    assert settings.spacing_mm == (3.0, 1.0, 1.0)
    assert told[-1] == "settings.spacing_mm 3,1,1: the median of 3 patients"


def test_the_window_is_a_cube_in_mm_that_the_patient_and_the_net_allow() -> None:
    """64^3 voxels of 3 x 1 x 1 mm are a cube of (3 * 64^3)^(1/3) = 92.3 mm: 30.8 x 92.3 x 92.3 voxels."""
    assert window_for((3.0, 1.0, 1.0), (120, 512, 512), 16, flat=False) == (32, 96, 96)
    assert window_for((1.0, 1.0, 1.0), (120, 512, 512), 16, flat=False) == (64, 64, 64)
    # 20 slices are 32 with the divisor; sqrt(64^3 / 32) = 90.5 is left for the others.
    assert window_for((1.0, 1.0, 1.0), (20, 512, 512), 16, flat=False) == (32, 96, 96)
    assert window_for((3.0, 1.0, 1.0), (120, 512, 512), 16, flat=True) == (1, 256, 256)
    assert window_for((3.0, 1.0, 1.0), (120, 100, 512), 16, flat=True) == (1, 112, 512), "65536 / 112 = 585, the patient has 512"
    assert window_for((5.0, 5.0, 5.0), (8, 10, 12), 16, flat=False) == (32, 16, 16), "one side of two at the net's coarsest"


def test_what_is_given_is_left_as_it_is() -> None:
    wishes = ContourWishes(("ring", "PTV_7000"), spacing_mm=(4.0, 4.0, 4.0), window=(16, 32, 32), draws=7)
    settings, told = wishes.chosen([])
    assert (settings, told) == (ContourSettings(("ring", "PTV_7000"), spacing_mm=(4.0, 4.0, 4.0), window=(16, 32, 32), draws=7), ())
    with pytest.raises(ConfigError, match="three spacings"):
        ContourWishes(spacing_mm=(0.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="HU range"):
        ContourWishes(hu=(5.0, 5.0))


def test_a_training_prints_what_it_chose_and_keeps_it_in_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients = cohort(tmp_path / "cohort", 3)
    words = ["--settings.net_options", '{"widths": [2, 2, 2]}', "--settings.draws", "2", "--epochs", "1", "--training.threads", "1"]
    assert main(["train", "contour", str(patients), "--out", str(tmp_path / "run"), *words]) == 0
    said = capsys.readouterr().err
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert f"settings.structures {','.join(card.structures)}: " in said
    assert "settings.spacing_mm 6,5,5: the median of 3 patients" in said
    assert card.spacing_mm == [6.0, 5.0, 5.0]
    assert "Parotid_L" in card.structures
    assert not [name for name in card.structures if name.startswith(("PTV", "CTV", "GTV", "External"))]
    assert f"settings.window {','.join(map(str, card.settings['window']))}: " in said
