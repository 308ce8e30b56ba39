"""A small phantom, and a contour model that draws in it."""

import pytest
import torch

from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.learn.task import save_model
from oncontour.phantom import head_neck
from tests.phantoms import NECK, SMALL_GRID


@pytest.fixture(scope="module")
def case():
    return head_neck(3, *SMALL_GRID)


@pytest.fixture(scope="module")
def drawer(tmp_path_factory):
    """A contour model that was never trained: it draws whatever it draws, but always the same."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("drawer") / "drawer.safetensors"
    s = ContourSettings(NECK, net="unet3d", net_options={"widths": (4, 8)}, spacing_mm=(6, 5, 5), window=(16, 24, 24))
    save_model(ContourTask(s), path)
    return path
