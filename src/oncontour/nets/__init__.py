"""The networks. Torch in, torch out; no net knows a patient.

The family's contract. A net is an ``nn.Module`` made as ``Net(in_channels, out_channels, **options)`` with

* ``dims``     2 or 3: it takes (n, in_channels, j, i) or (n, in_channels, k, j, i);
* ``divisor``  every spatial size must be a multiple of it (ValueError with the size to pad to otherwise);
* ``forward``  returns logits (n, out_channels, same spatial sizes). No sigmoid or softmax inside.

A new net is one file and one row here; ``tests/test_every_net.py`` then tests it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from oncontour.classes import class_of

if TYPE_CHECKING:
    from torch import nn

NETS: dict[str, str] = {
    "deeplab": "oncontour.nets.deeplab:DeepLabV3Plus",
    "unet": "oncontour.nets.unet:UNet",
    "unet3d": "oncontour.nets.unet:UNet3d",
    "resunet": "oncontour.nets.residual:ResidualUNet",
    "quality": "oncontour.nets.quality:QualityNet",
    "quality_cnn": "oncontour.nets.quality:QualityCNN",
    "dosefusion": "oncontour.nets.dosefusion:DoseFusion",
    "crossstitch": "oncontour.nets.crossstitch:CrossStitch",
    "cyclegan": "oncontour.nets.cyclegan:ResnetGenerator",
}

Upsample = Literal["deconv", "pre", "resize_conv"]
"""How the generator of ``cyclegan`` comes back to the size of its input:

deconv       two transposed convolutions (Zhu et al. 2017)
pre          the input is enlarged twofold first; after two convolutions of stride 2 one transposed convolution is left (first reading)
resize_conv  nearest neighbour and convolution; a transposed convolution is left for the last step, as the slides say that memory forces
             (second reading; Odena et al. 2016), or none (``last_deconv`` False)
"""
GENERATOR_DIVISOR = 4
"""The ``divisor`` of ``cyclegan``."""


def make_net(name: str, in_channels: int, out_channels: int, **options: object) -> nn.Module:
    """Net ``name``: a row of NETS, or an outside ``module:Class`` that the user named (``oncontour.classes``).

    Raises ModelError for an unknown name or option.
    """
    from oncontour.errors import ModelError

    try:
        made: nn.Module = class_of(name, NETS, "net")(in_channels, out_channels, **options)
    except TypeError as error:
        raise ModelError(f"net {name!r} does not take these options {options} ({error})") from error
    return made


def check_size(shape: tuple[int, ...], divisor: int) -> None:
    """Raise ValueError when a spatial size is not a multiple of ``divisor``, naming the size to pad to."""
    if any(n % divisor for n in shape):
        want = tuple(-(-n // divisor) * divisor for n in shape)
        raise ValueError(f"spatial size {shape} must be a multiple of {divisor}: pad to {want}")
