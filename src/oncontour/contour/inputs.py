"""What a contour model is, as its card keeps it, and on which grid its net sees a CT: what training and predicting share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError
from oncontour.learn.build import check_grid
from oncontour.ops.augment import Ranges, mirrored

SYNTHETIC = "smr"
"""What a case calls the MR-like image that is made of its CT."""


@dataclass(frozen=True)
class ContourSettings:
    """What makes a contouring model; kept in its card, so that the file alone rebuilds it."""

    structures: tuple[str, ...]
    """TG-263 names, one output each"""
    net: str = "unet3d"
    """a row of NETS"""
    net_options: dict[str, Any] = field(default_factory=dict)
    """the net's own options, such as output_stride or widths"""
    images: tuple[str, ...] = ("ct",)
    """what the net sees, one channel after another: ct, or another image of the case such as smr, an MR-like one that is made of the CT;
    one of them twice costs what two cost and tells nothing more"""
    made_by: str = ""
    """the synthesis model (file or shipped name) that makes the smr of a case that has none"""
    signal: tuple[float, float] = (0.0, 1300.0)
    """signal from black to white of images that are no CT; fat has 1000 in an smr"""
    neighbours: int = 0
    """2D nets: so many slices on either side ride along as channels (0 is 2D, 1 and more 2.5D)"""
    spacing_mm: tuple[float, float, float] = (2.5, 4.0, 4.0)
    """working grid (k, j, i)"""
    spacing_tolerance: float = 0.35
    """a CT whose spacing is within this fraction of ``spacing_mm`` on every axis is taken as it is, unresampled"""
    window: tuple[int, int, int] = (64, 64, 64)
    """voxels (k, j, i) the net sees at once; k is 1 for 2D nets"""
    hu: tuple[float, float] = (-300.0, 500.0)
    """grey values from black to white"""
    loss: Literal["dice_bce", "paper"] = "dice_bce"
    """"paper": 1 - DSC alone (Xue et al. 2020)"""
    hardest: float = 1.0
    """part of a window's voxels, the worst first, over which a structure's cross-entropy is averaged; below 1 stray voxels cost more"""
    slices: Literal["balanced", "all", "target"] = "balanced"
    """what an epoch draws: windows balanced over structures; every slice; or every slice that bears a structure"""
    draws: int = 200
    """windows or slices an epoch; 0 with "all" or "target": every one once"""
    augment: Ranges = field(default_factory=Ranges)
    """how far training windows are turned, zoomed, shifted and shaded"""
    mask_body: bool = True
    """predicting: what lies outside the patient becomes air first, unless the CT was masked before we got it"""
    mirror: bool = False
    """predicting: the mean of what the net says of the image and of its mirror image, sides swapped back; twice the time"""
    threshold: float | tuple[float, ...] = 0.5
    """probability from which a voxel is inside: one, or one for each structure"""
    overlap: bool | None = None
    """true: structures may overlap (a GTV in its PTV, a lens in an eye), each is drawn whole; false: a voxel that several reach goes to the
    likeliest alone; left out: likewise, and training refuses patients whose structures overlap"""
    tune_threshold: bool = False
    """after training, choose the threshold of each structure from the patients held back (``contour/thresholds.py``)"""

    def __post_init__(self) -> None:
        for name in ("structures", "images", "signal", "spacing_mm", "window", "hu"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.structures or len(set(self.structures)) != len(self.structures) or len(self.structures) > 32:
            raise ConfigError(f"a model contours 1 to 32 different structures, not {list(self.structures)}")
        check_grid(self.spacing_mm, self.window, self.neighbours)
        if not 1 <= len(self.images) <= 4 or not all(self.images):
            raise ConfigError(f"a net sees 1 to 4 images, not {list(self.images)}", hint="images: [ct], [smr], or [ct, smr]")
        if self.made_by and SYNTHETIC not in self.images:
            raise ConfigError(f"{self.made_by} makes an smr, which is not among the images {list(self.images)}", hint="leave out made_by")
        for what, span in (("HU", self.hu), ("signal", self.signal)):
            if not (np.isfinite(span).all() and len(span) == 2 and span[0] < span[1]):
                raise ConfigError(f"the {what} range runs from low to high, not {span}")
        if self.draws < 0 or not self.spacing_tolerance >= 0:
            raise ConfigError(f"draws and spacing_tolerance are 0 or more, not {self.draws} and {self.spacing_tolerance}")
        if not isinstance(self.threshold, float | int):
            object.__setattr__(self, "threshold", tuple(self.threshold))
        each = self.thresholds
        if len(each) != len(self.structures) or not all(0 < t < 1 for t in each):
            raise ConfigError(f"threshold is a probability, or one for each of {len(self.structures)} structures, not {self.threshold}")
        if self.mirror and mirrored(self.structures) is None:
            raise ConfigError(f"one side of a pair is missing among {list(self.structures)}, so mirror must stay off")
        if not 0 < self.hardest <= 1:
            raise ConfigError(f"hardest is a part of the voxels, above 0 and up to 1, not {self.hardest}")

    @property
    def channels(self) -> int:
        """Input channels of the net."""
        return len(self.images) * (1 + 2 * self.neighbours)

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """(1, channels, ...): what the net sees at once."""
        return (1, self.channels, *(self.window[1:] if self.flat else self.window))

    @property
    def others(self) -> tuple[str, ...]:
        """The images beside the CT, each once."""
        return tuple(dict.fromkeys(name for name in self.images if name != "ct"))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each structure."""
        return self.threshold if isinstance(self.threshold, tuple) else (self.threshold,) * len(self.structures)

    @property
    def flat(self) -> bool:
        """Whether the net sees slices, not volumes."""
        return self.window[0] == 1

    def working_grid(self, geometry: Geometry) -> Geometry:
        """The grid the net sees a case on: upright (S, P, L), the case's own voxels where they are near ``spacing_mm``, else resampled."""
        upright = geometry.reorient()
        ratio = np.asarray(upright.spacing_mm) / np.asarray(self.spacing_mm)
        if (np.abs(ratio[self.flat :] - 1) <= self.spacing_tolerance).all():
            return upright
        slice_mm = upright.spacing_mm[0] if self.flat else self.spacing_mm[0]
        return upright.resample([slice_mm, *self.spacing_mm[1:]])


def image_of(case: Case, name: str) -> Volume:
    """The image that the net is to see. Raises InputError where the case lacks it."""
    if name not in case.images:
        hint = "settings.made_by names the synthesis model that makes it" if name == SYNTHETIC else "give the case with it"
        raise InputError(f"no image {name!r}, only {', '.join(case.images) or 'none'}", where=f"case {case.id}", hint=hint)
    return case.images[name]
