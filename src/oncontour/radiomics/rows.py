"""The rows of one patient's structures: features of each image, of perturbed copies of it, and of what filters make of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import DoseError
from oncontour.radiomics.extract import Settings, filtered, measure, of_response
from oncontour.radiomics.filters.settings import Filter
from oncontour.radiomics.region import Region, prepare
from oncontour.radiomics.robustness import Perturbation, draws
from oncontour.radiomics.table import Row

SCHEMA = "oncontour-features-1"
MOST_GY = 300.0
"""A median dose above this in a structure is not in Gy."""
NOISE = {"dose": 0.3, "ct": 10.0}
"""Standard deviation of perturbing noise: Gy, HU."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What is computed of each patient; ``settings`` by image, in the order of the rows; each is seen through ``filters`` too."""

    settings: dict[str, Settings]
    structures: tuple[str, ...] | None
    perturb: int
    seed: int
    filters: tuple[Filter, ...] = ()

    def describe(self) -> dict[str, object]:
        """As JSON holds it; equal plans give equal descriptions."""
        told = {"schema": SCHEMA, "version": _version(), "structures": self.structures, "perturb": self.perturb, "seed": self.seed}
        filters = {one.name: {"filter": one.kind, **asdict(one)} for one in self.filters}
        settings = {k: asdict(v) for k, v in self.settings.items()}
        described: dict[str, object] = json.loads(json.dumps({**told, "settings": settings, "filters": filters}))
        return described


def _check_unit(values: Floats, structure: str) -> None:
    """Raise DoseError for numbers that cannot be Gy."""
    middle = float(np.median(values)) if values.size else 0.0
    if middle > MOST_GY:
        what = f"{structure} would receive {middle:.0f} Gy in the median: the numbers look like centigray"
        raise DoseError(what, hint="export the dose in Gy")


def _doubt(dose: Volume) -> str:
    """What a structure of little dose does not show, and the whole dose does."""
    highest = float(dose.array.max(initial=0))
    return f"the dose reaches {highest:.0f} Gy elsewhere: is it centigray?" if highest > MOST_GY else ""


def rows_of_image(case: Case, image: str, structures: Sequence[str], plan: Plan) -> dict[str, list[Row]]:
    """The rows of one image by structure; every filter sees it once."""
    rows = {name: list(_rows(case, name, image, plan)) for name in structures}
    for one in plan.filters:
        response = filtered(case.images[image], plan.settings[image].processing, one)
        for name in structures:
            rows[name].append(_filtered_row(case, name, image, plan.settings[image], one, response))
    return rows


def _rows(case: Case, structure: str, image: str, plan: Plan) -> Iterator[Row]:
    settings = plan.settings[image]
    volume, mask = case.images[image], case.mask(structure)
    doubt = _doubt(volume) if image == "dose" else ""
    changes = [Perturbation(), *(draws(plan.perturb, plan.seed, noise_sd=NOISE[image]) if plan.perturb else ())]
    for n, change in enumerate(changes):
        changed, moved, grid = change.apply(volume, mask, settings.processing.spacing_mm)
        region = prepare(changed, moved, settings.processing, grid)
        if image == "dose":
            _check_unit(region.values, structure)
        yield _row(structure, image, n, region, measure(region, settings), doubt)


def _filtered_row(case: Case, structure: str, image: str, settings: Settings, asked: Filter, response: Volume) -> Row:
    region = prepare(case.images[image], case.mask(structure), settings.processing).seen(response)
    return _row(structure, f"{image} {asked.name}", 0, region, measure(region, of_response(settings)), "")


def _row(structure: str, image: str, repetition: int, region: Region, values: dict[str, float], doubt: str) -> Row:
    voxels, used = int(region.morphological.sum()), int(region.intensity.sum())
    known = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return Row(structure, image, repetition, voxels, used, _remark(voxels, used, image) or doubt, known)


def _remark(voxels: int, used: int, image: str) -> str:
    if not voxels:
        return "no voxel inside: the structure is empty, smaller than a voxel, or outside the image"
    if not used:
        return f"no voxel with a known {image} in range"
    return f"{100 * (1 - used / voxels):.0f} % of the structure has no known {image} in range" if used < 0.95 * voxels else ""


def _version() -> str:
    try:
        return version("oncontour")
    except PackageNotFoundError:
        return "(not installed)"
