"""The settings of every reference of IBSI-2, and ours beside it: response maps of phase 1, feature values of phase 2.

The settings are those of the reference manual (arXiv 2006.05470, sections on reference data sets). Its padding of phase 2 is left to the
implementation: mirrored here, periodic for Simoncelli's wavelet, whose consensus values are met that way alone.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from oncontour.core.volume import Volume
from oncontour.io.image.nifti import read_image
from oncontour.radiomics.extract import filtered
from oncontour.radiomics.filters.response import respond
from oncontour.radiomics.filters.settings import FILTERS, parse
from oncontour.radiomics.intensity import statistics
from oncontour.radiomics.region import Processing, Region, prepare

_LAWS_A, _LAWS_B, _LAWS_C = (
    "laws:kernels=E5L5S5:boundary=zero",
    "laws:kernels=E3W5R5",
    "laws:kernels=L5S5:by_slice=true",
)
_GABOR_A, _GABOR_B = "gabor:sigma_mm=10:lambda_mm=4:gamma=0.5:boundary=zero", "gabor:sigma_mm=20:lambda_mm=8:gamma=2.5"
MAPS: dict[str, tuple[str, str]] = {
    "1.a.1": ("checkerboard", "mean:support=15:boundary=zero"),
    "1.a.2": ("checkerboard", "mean:support=15:boundary=nearest"),
    "1.a.3": ("checkerboard", "mean:support=15:boundary=periodic"),
    "1.a.4": ("checkerboard", "mean:support=15"),
    "1.b.1": ("impulse", "mean:support=15:boundary=zero:by_slice=true"),
    "2.a": ("impulse", "log:sigma_mm=3:boundary=zero"),
    "2.b": ("checkerboard", "log:sigma_mm=5"),
    "2.c": ("checkerboard", "log:sigma_mm=5:by_slice=true"),
    "3.a.1": ("impulse", f"{_LAWS_A}:pool=none:energy=0"),
    "3.a.2": ("impulse", f"{_LAWS_A}:energy=0"),
    "3.a.3": ("impulse", _LAWS_A),
    "3.b.1": ("checkerboard", f"{_LAWS_B}:pool=none:energy=0"),
    "3.b.2": ("checkerboard", f"{_LAWS_B}:energy=0"),
    "3.b.3": ("checkerboard", _LAWS_B),
    "3.c.1": ("checkerboard", f"{_LAWS_C}:pool=none:energy=0"),
    "3.c.2": ("checkerboard", f"{_LAWS_C}:energy=0"),
    "3.c.3": ("checkerboard", _LAWS_C),
    "4.a.1": ("impulse", f"{_GABOR_A}:theta_deg=60:step_deg=0"),
    "4.a.2": ("impulse", f"{_GABOR_A}:step_deg=45:planes=true"),
    "4.b.1": ("sphere", f"{_GABOR_B}:theta_deg=225:step_deg=0"),
    "4.b.2": ("sphere", f"{_GABOR_B}:planes=true"),
    "5.a.1": ("impulse", "wavelet:family=db2:bands=LHL:pool=none:boundary=zero"),
    "5.a.2": ("impulse", "wavelet:family=db2:bands=LHL:boundary=zero"),
    "6.a.1": ("sphere", "wavelet:family=coif1:bands=HHL:pool=none:boundary=periodic"),
    "6.a.2": ("sphere", "wavelet:family=coif1:bands=HHL:boundary=periodic"),
    "7.a.1": ("checkerboard", "wavelet:family=haar:bands=LLL:level=2"),
    "7.a.2": ("checkerboard", "wavelet:family=haar:bands=HHH:level=2"),
    "8.a.1": ("checkerboard", "simoncelli"),
    "8.a.2": ("checkerboard", "simoncelli:level=2"),
    "8.a.3": ("checkerboard", "simoncelli:level=3"),
    "9.a": ("impulse", "log:sigma_mm=3:riesz=100:boundary=zero"),
    "9.b.1": ("sphere", "log:sigma_mm=3:riesz=020:boundary=zero"),
    "10.b.1": ("pattern_1", "simoncelli:riesz=020:boundary=nearest"),
}
"""Reference response map -> (digital phantom, filter)."""
VALUES: dict[str, str] = {
    "1.A": "",
    "2.A": "mean:by_slice=true",
    "3.A": "log:by_slice=true",
    "4.A": "laws:kernels=L5E5:by_slice=true",
    "5.A": "gabor",
    "6.A": "wavelet:bands=LH:by_slice=true",
    "7.A": "wavelet:bands=HH:level=2:by_slice=true",
    "8.A": "simoncelli:by_slice=true",
    "9.A": "simoncelli:level=2:by_slice=true",
    "1.B": "",
    "2.B": "mean",
    "3.B": "log",
    "4.B": "laws",
    "5.B": "gabor:planes=true",
    "6.B": "wavelet",
    "7.B": "wavelet:bands=HHH:level=2",
    "8.B": "simoncelli",
    "9.B": "simoncelli:level=2",
}
"""Filter of phase 2 -> how it is written; none for the image itself."""
PROCESSING = {
    "A": Processing(keep=(-1000.0, 400.0)),
    "B": Processing((1.0, 1.0, 1.0), "cubic", whole=True, keep=(-1000.0, 400.0)),
}
TOLERANCE = 0.01
"""Of the range of a reference response map: how far off any voxel may be."""


def off(data: Path, name: str) -> float:
    """How far ours is from reference response map ``name`` where it is furthest, as a part of the map's range."""
    phantom, word = MAPS[name]
    image = read_image(data / "ibsi2" / "digital-phantom" / "nifti" / phantom / "image" / f"{phantom}.nii.gz")
    wanted = read_image(data / "ibsi2" / "response-maps" / f"{name.replace('.', '_')}-ValidCRM.nii.gz").array
    ours = respond(image.array, image.geometry.spacing_mm, parse(word))
    return float(np.abs(ours - wanted).max() / np.ptp(wanted))


@dataclass(frozen=True)
class Reference:
    """A consensus value of phase 2 as its file has it; empty where it has none."""

    filter: str
    feature: str
    value: str
    tolerance: str


def references(data: Path) -> list[Reference]:
    """Every row of the file of phase 2; none where it is absent."""
    path = data / "ibsi2" / "reference-values" / "reference_values.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    return [Reference(row["filter_id"], row["feature_tag"], row["consensus_value"], row["tolerance"]) for row in rows]


@cache
def values(data: Path, name: str) -> dict[str, float]:
    """Our statistics of the CT phantom seen through filter ``name`` of phase 2."""
    image, processing, region = _phantom(data, name[-1])
    return statistics((region.seen(filtered(image, processing, parse(VALUES[name]))) if VALUES[name] else region).values)


@cache
def _phantom(data: Path, configuration: str) -> tuple[Volume, Processing, Region]:
    folder, processing = data / "ibsi2" / "ct-phantom" / "nifti", PROCESSING[configuration]
    image, mask = (read_image(folder / name) for name in ("image/phantom.nii.gz", "mask/mask.nii.gz"))
    return image, processing, prepare(image, mask.binary(), processing)


def tables(data: Path) -> list[str]:
    """What docs/ibsi.md says of IBSI-2."""
    apart = {name: off(data, name) for name in MAPS}
    rows = [(row, values(data, row.filter)[row.feature]) for row in references(data) if row.value]
    met = sum(agrees(row, ours) for row, ours in rows)
    close = sum(value <= TOLERANCE for value in apart.values())
    lines = [
        "## Filters (IBSI-2)",
        "",
        "The same initiative agreed on convolutional filters (manual: arXiv 2006.05470): on response maps of digital phantoms, every",
        "voxel of which may be off by 1 % of the map's range (phase 1), and on statistics of a CT of a lung tumour seen through filters",
        "(phase 2).",
        "`docs/ibsi2.py` holds the settings of each; `tests/radiomics/test_ibsi2.py` compares every map and every value.",
        "",
        f"**{close} of {len(apart)} response maps and {met} of {len(rows)} feature values are met.** Ours is rounded to the digits of the",
        "consensus before it is compared. One value of phase 2 has no consensus (quartile coefficient of dispersion of filter 8.B).",
        "",
        "A filter is written as below, in `oncontour features --filters` and in YAML: its name and the settings that differ from the",
        "defaults. Defaults: "
        + "; ".join(f"`{kind}`: " + ", ".join(f"{k} {v}" for k, v in asdict(FILTERS[kind]()).items() if v != "") for kind in FILTERS)
        + ".",
        "",
        "| reference map | phantom | filter | furthest off, % of the range | met |",
        "|---|---|---|---:|---|",
    ]
    for name, (phantom, word) in MAPS.items():
        lines.append(f"| {name} | {phantom} | `{word}` | {100 * apart[name]:.2f} | {'yes' if apart[name] <= TOLERANCE else '**no**'} |")
    lines += ["", "| filter | written | values | met |", "|---|---|---:|---:|"]
    for name, word in VALUES.items():
        mine = [(row, ours) for row, ours in rows if row.filter == name]
        lines.append(f"| {name} | {f'`{word}`' if word else 'none'} | {len(mine)} | {sum(agrees(row, ours) for row, ours in mine)} |")
    return lines


def agrees(row: Reference, ours: float) -> bool:
    """Whether ours, in three digits, or as many as the consensus has, lies within the tolerance."""
    wanted = float(row.value)
    digits = max(3, len(row.value.lower().split("e")[0].strip("-").lstrip("0.").replace(".", "").rstrip("0")))
    return abs(float(f"{ours:.{digits - 1}e}") - wanted) <= float(row.tolerance) + 1e-9 * abs(wanted)
