"""The threshold of each structure: found where a pencil says it is, kept at 0.5 where nothing is gained, and carried by the file."""

import numpy as np
import pytest
import torch

from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer, load_contourer
from oncontour.contour.task import ContourTask
from oncontour.contour.thresholds import finish
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.learn.task import save_model

NAMES = ("Bone_Mandible", "Brainstem", "Larynx")


class Straight(torch.nn.Module):
    """The HU window itself, -1 to 1, as the logit of every structure times 2: 200 HU is a logit of 2."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv3d(1, 3, 1)
        torch.nn.init.constant_(self.head.weight, 2.0)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(x)


def task(**more):
    made = ContourTask(
        ContourSettings(
            NAMES,
            net_options={"widths": (4, 8)},
            spacing_mm=(4, 4, 4),
            window=(16, 16, 16),
            hu=(-200, 200),
            mask_body=False,
            tune_threshold=True,
            **more,
        )
    )
    made.net = Straight().eval()
    return made


def patient(number, structures):
    """A ball whose HU fall from 200 at the centre to -200: structure ``n`` is where they exceed a level of its own."""
    grid = Geometry.regular((16, 16, 16), (4.0, 4.0, 4.0))
    k, j, i = np.indices(grid.shape) - 7.5
    hu = np.clip(200 - 50 * np.sqrt(k**2 + j**2 + i**2) + number, -1000, 200).astype(np.int16)
    masks = {name: Volume(hu > level, grid) for name, level in structures.items()}
    return Case(f"p{number}", {"ct": Volume(hu, grid)}, masks)


def test_each_structure_gets_the_threshold_at_which_its_edge_lies():
    """Probability 0.73 is a logit of 1: 100 HU of a window of -200 to 200 whose ends are logits of -2 and 2."""
    made = task()
    samples = [s for n in range(2) for s in made.samples(patient(n, {"Bone_Mandible": 100, "Brainstem": 0}))]
    told = finish(made, [], samples)["thresholds"]
    # Brainstem is drawn where no other is more probable; every structure has the same scores here, so the first to reach wins.
    assert made.settings.threshold[0] == 0.73
    assert made.settings.threshold[2] == 0.5
    assert told["Bone_Mandible"]["at_threshold"] > 0.97 > told["Bone_Mandible"]["at_half"]
    assert told["Bone_Mandible"]["patients"] == 2
    assert told["Larynx"] == {"patients": 0, "at_half": 0.0, "at_threshold": 0.0}


def test_patients_that_were_learned_from_are_asked_only_where_too_few_were_held_back():
    made = task()
    held = made.samples(patient(0, {"Bone_Mandible": 100}))
    train = [s for n in range(1, 13) for s in made.samples(patient(n, {"Bone_Mandible": 100} | ({"Larynx": 0} if n == 12 else {})))]
    told = finish(made, train, held)["thresholds"]
    assert told["Bone_Mandible"]["patients"] == 10
    assert told["Larynx"]["patients"] == 1


def test_without_the_setting_nothing_is_chosen():
    plain = ContourTask(ContourSettings(NAMES, net_options={"widths": (4, 8)}, window=(16, 16, 16)))
    assert finish(plain, [], []) == {}
    assert plain.settings.threshold == 0.5


def test_a_model_s_thresholds_travel_with_its_file(tmp_path):
    """A structure whose threshold is out of reach is drawn nowhere, another at its own."""
    made = ContourTask(
        ContourSettings(
            NAMES[:2], net_options={"widths": (4, 8)}, spacing_mm=(4, 4, 4), window=(16, 16, 16), threshold=[0.999999, 0.000001]
        )
    )
    file = tmp_path / "m.safetensors"
    save_model(made, file)
    contourer = load_contourer(file, backend="torch")
    assert isinstance(contourer, Contourer)
    assert contourer.task.settings.threshold == (0.999999, 1e-6)
    found = contourer.predict(patient(0, {"Brainstem": 0}).without_structures())
    assert not found.mask("Bone_Mandible").array.any()
    assert found.mask("Brainstem").array.any()


@pytest.mark.parametrize("threshold", [0.0, 1.0, [0.5, 0.5], [0.5, 0.5, 1.5]])
def test_thresholds_are_probabilities_one_for_each(threshold):
    with pytest.raises(ConfigError, match="threshold is a probability"):
        ContourSettings(NAMES, threshold=threshold)
