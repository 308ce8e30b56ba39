"""Dosiomics: all IBSI features of a structure on an image, dose or CT.

    row = extract(case.images["dose"], case.mask("Esophagus"), DOSE)

``extract`` gives a flat dict of short names (``names.words`` and ``names.code`` translate) to numbers, always the same names for the same
settings. A feature that is not defined on a region is NaN; which ones and why is told where each family is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.radiomics.discretise import Levels, fixed_bin_number, fixed_bin_size
from oncontour.radiomics.filters.response import respond
from oncontour.radiomics.filters.settings import Filter
from oncontour.radiomics.intensity import histogram, local_peaks, statistics, volume_histogram
from oncontour.radiomics.morphology import morphology
from oncontour.radiomics.names import DIRECTED, FAMILIES
from oncontour.radiomics.region import Processing, Region, box_of, interpolate, prepare
from oncontour.radiomics.texture import Grey, texture


@dataclass(frozen=True)
class Settings:
    """Everything that decides a feature's value.

    ``bin_width`` (Gy or HU) or ``bins``: fixed bin size or fixed bin number, one of them; ``ivh_width`` or ``ivh_bins``: bin width, or
    number of bins, of the intensity-volume histogram, neither for whole numbers as they are; ``families``: keys of names.FAMILIES;
    ``aggregations``: keys of names.DIRECTED.
    """

    processing: Processing = field(default_factory=Processing)
    bin_width: float | None = None
    bins: int | None = None
    ivh_width: float | None = None
    ivh_bins: int | None = None
    families: tuple[str, ...] = tuple(FAMILIES)
    aggregations: tuple[str, ...] = ("3D_comb",)

    def __post_init__(self) -> None:
        if (self.bin_width is None) == (self.bins is None):
            raise ConfigError(f"give either a bin width or a number of bins, not {self.bin_width} and {self.bins}")
        if self.ivh_width is not None and self.ivh_bins is not None:
            told = f"not {self.ivh_width} and {self.ivh_bins}"
            raise ConfigError(f"the intensity-volume histogram has bins of a width or a number of bins, {told}")
        for name, known in (("families", FAMILIES), ("aggregations", DIRECTED)):
            unknown = [word for word in getattr(self, name) if word not in known]
            if unknown or not getattr(self, name):
                raise ConfigError(f"{name} {list(getattr(self, name))}: there are {', '.join(known)}")


DOSE = Settings(Processing((3.0, 3.0, 3.0), keep=(0.0, None)), bin_width=1.0, ivh_width=0.1)
"""Dose in Gy: 3 mm voxels, bins of 1 Gy from 0 Gy, nothing left out."""
CT = Settings(Processing((3.0, 3.0, 3.0), whole=True, keep=(-1000.0, 3000.0)), bin_width=25.0)
"""CT in HU: 3 mm voxels, whole HU, -1000 to 3000, bins of 25 HU."""
RESPONSE_BINS = 32


def extract(image: Volume, mask: Volume, settings: Settings, grid: Geometry | None = None) -> dict[str, float]:
    """Features of ``mask`` in ``image`` by short name. ``grid`` as in ``region.prepare``, which tells what is raised."""
    return measure(prepare(image, mask, settings.processing, grid), settings)


def measure(region: Region, settings: Settings) -> dict[str, float]:
    """Features of a region that is already interpolated and re-segmented."""
    families, out = settings.families, dict[str, float]()
    levels = discretise(region, settings)
    if "morph" in families:
        out |= morphology(region)
    if "loc" in families:
        out |= local_peaks(region)
    if "stat" in families:
        out |= statistics(region.values)
    if "ih" in families:
        out |= histogram(levels)
    if "ivh" in families:
        out |= _volume_histogram(region, settings)
    return out | texture(grey_levels(region, levels), families, settings.aggregations)


def filtered(image: Volume, processing: Processing, asked: Filter) -> Volume:
    """The response of the whole of ``image``, interpolated as ``processing`` says, to a filter; for ``Region.seen``."""
    grid = image.geometry.resample(processing.spacing_mm) if processing.spacing_mm else image.geometry
    values = interpolate(image, grid, processing.interpolation, fill=None)
    return Volume(respond(np.rint(values) if processing.whole else values, grid.spacing_mm, asked), grid)


def of_response(settings: Settings) -> Settings:
    """``settings`` for an image's response to a filter, whose numbers have another unit: a number of bins (32 unless said), from the least
    to the greatest response, 1000 in the intensity-volume histogram, and no shape. Raises ConfigError where shape alone is asked for.
    """
    families = tuple(family for family in settings.families if family != "morph")
    if not families:
        raise ConfigError("shape (morph) does not depend on the image: a filtered one has no features of it", hint="ask for other families")
    processing = replace(settings.processing, whole=False, keep=(None, None), outliers_sd=None)
    bins = settings.bins or RESPONSE_BINS
    return replace(settings, processing=processing, bin_width=None, bins=bins, ivh_width=None, ivh_bins=1000, families=families)


def _volume_histogram(region: Region, settings: Settings) -> dict[str, float]:
    """With a number of bins, intensities stand for their levels 1 to ``ivh_bins`` (IBSI 3.5, arbitrary intensity units)."""
    if settings.ivh_bins is None:
        return volume_histogram(region.values, settings.processing.limits, settings.ivh_width)
    return volume_histogram(fixed_bin_number(region.values, settings.ivh_bins), (1.0, settings.ivh_bins), None)


def discretise(region: Region, settings: Settings) -> Levels:
    """Grey levels of the intensity mask's voxels. Fixed bins start at the lower end of the re-segmentation range where there is one."""
    if settings.bins is not None:
        return fixed_bin_number(region.values, settings.bins)
    assert settings.bin_width is not None
    return fixed_bin_size(region.values, settings.bin_width, settings.processing.limits[0])


def grey_levels(region: Region, levels: Levels) -> Grey:
    """``levels`` of the intensity mask's voxels, in their places, cut to the structure."""
    if not region.morphological.any():
        return Grey(np.zeros((1, 1, 1), np.uint16), np.zeros((1, 1, 1), bool))
    cut = box_of(region.morphological)
    inside = region.intensity[cut]
    placed = np.zeros(inside.shape, np.uint16)
    placed[inside] = levels
    return Grey(placed, region.morphological[cut])
