"""The 2D residual U-Net, from MONAI (Kerfoot et al., STACOM 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.unet import UNet as MonaiUNet
from torch import Tensor, nn

from oncontour.nets import check_size


class ResidualUNet(nn.Module):
    """MONAI's U-Net with ``units`` residual sub-units a level, batch norm, strides of 2 between ``widths``."""

    dims = 2

    def __init__(self, in_channels: int, out_channels: int, *, widths: Sequence[int] = (32, 64, 128, 256), units: int = 2) -> None:
        super().__init__()
        self.divisor = 2 ** (len(widths) - 1)
        self.net = MonaiUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=tuple(widths),
            strides=(2,) * (len(widths) - 1),
            num_res_units=units,
            norm="batch",
        )

    def forward(self, x: Tensor) -> Tensor:
        check_size(tuple(x.shape[2:]), self.divisor)
        logits: Tensor = self.net(x)
        return logits
