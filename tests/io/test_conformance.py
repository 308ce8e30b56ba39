"""RTSTRUCT -> mask for seven analytic solids through real DICOM: every patient position, oblique, tilted, not square, 1 mm then 3 mm.

Truth: the solids' own coverage in the frame of the slices. Between slices 3 mm apart nothing is drawn, so there the truth is what the
slices show: the section on each true slice, weighted by its slab.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncontour.core.case import Case
from oncontour.core.contours import Contours, Slices
from oncontour.core.geometry import Geometry
from oncontour.io.dicom.rtstruct import read_rtstruct, slices_of, write_rtstruct
from oncontour.io.dicom.series import read_series
from oncontour.raster import fill, rasterise
from tests.dicom_cases import PATIENT_POSITIONS, make_series
from tests.raster.test_raster import PLANES, SOLIDS, area_mm2, dice

ONE_THEN_THREE = (*np.arange(-40.5, 0.0), *np.arange(2.5, 42.0, 3.0))
VARIATIONS: dict[str, dict[str, Any]] = {
    **{position: {"patient_position": position} for position in PATIENT_POSITIONS},
    "440x512": {"rows": 440, "columns": 512},
    "oblique": {"row": (0.8, 0.6, 0.0), "column": (-0.48, 0.64, 0.6)},
    "tilted": {"tilt_deg": 15.0},
    "uneven": {"offsets": ONE_THEN_THREE},
    "uneven, feet first prone": {"offsets": ONE_THEN_THREE, "patient_position": "FFP"},
}


def in_patient(points: np.ndarray, slices: Slices) -> np.ndarray:
    """Points of the slices' own frame (along rows, columns, normal) in the patient."""
    return points @ np.array([slices.row, slices.column, slices.normal])


def own_frame(grid: Geometry, slices: Slices) -> Geometry:
    """The same voxels, placed in the slices' own frame."""
    turn = np.eye(4)
    turn[:3, :3] = np.array([slices.row, slices.column, slices.normal])
    return Geometry(grid.shape, turn @ grid.affine)


def sections(solid: Any, slices: Slices) -> Contours:
    """The solid's analytic section on every slice, placed in the patient."""
    return Contours(tuple(in_patient(p, slices) for z in slices.offsets_mm for p in solid.contours_at(z)))


@pytest.fixture(params=VARIATIONS)
def patient(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Case, dict[str, Contours]]:
    series = {"rows": 84, "columns": 90, "offsets": tuple(PLANES), "image": lambda p: np.zeros(p.shape[:-1]), **VARIATIONS[request.param]}
    make_series(tmp_path / "ct", **series)
    volume, source, _ = read_series(tmp_path / "ct")
    slices = slices_of(source)
    drawn = {name: sections(solid, slices) for name, solid in SOLIDS.items()}
    case = Case("solids", {"ct": volume}, contours=drawn, source=source)
    path = write_rtstruct(case, tmp_path / "rtstruct.dcm")
    found, notes = read_rtstruct(path, source=source)
    assert notes == ()
    return request.param, case, found


def test_seven_solids(patient: tuple[str, Case, dict[str, Contours]]) -> None:
    variation, case, found = patient
    slices = slices_of(case.source)
    upright = own_frame(case.geometry, slices)
    slabs = np.diff(slices.slabs_mm, axis=1)[:, 0]
    for name, solid in SOLIDS.items():
        mask = fill(found[name], case.geometry)
        limit = 0.98 if name == "straw" else 0.995
        if "uneven" in variation:
            assert on_the_slices(mask.array, solid, upright, slices, slabs) >= limit, name
            summed = sum(section_mm2(found[name], at, slices) * slab for at, slab in zip(slices.offsets_mm, slabs, strict=True))
            assert rasterise(found[name], case.geometry).volume_cc * 1000 == pytest.approx(summed, rel=5e-3), name
        else:
            truth = solid.mask(upright)
            assert dice(mask, type(truth)(truth.array, case.geometry)) >= limit, name
            assert rasterise(found[name], case.geometry).volume_cc * 1000 == pytest.approx(solid.volume_mm3, rel=5e-3), name


def on_the_slices(mask: np.ndarray, solid: Any, upright: Geometry, slices: Slices, slabs: np.ndarray) -> float:
    """DSC over the true slices, each weighted by its slab."""
    both = each = 0.0
    for at, slab in zip(slices.offsets_mm, slabs, strict=True):
        k = int(np.rint((at - upright.origin_mm[2]) / upright.spacing_mm[0]))
        sheets = upright.crop((k, 0, 0), (k + 1, *upright.shape[1:])).resample((1e-3, *upright.spacing_mm[1:]))
        thin = sheets.crop((500, 0, 0), (501, *upright.shape[1:]))
        truth = solid.mask(thin).array[0]
        both += slab * (mask[k] & truth).sum()
        each += slab * (mask[k].sum() + truth.sum())
    return 2 * both / each


def section_mm2(contours: Contours, at: float, slices: Slices) -> float:
    """Area drawn on one slice, holes taken off (nested loops)."""
    here = sorted((area_mm2(p) for p in contours if abs(float(p[0] @ slices.normal) - at) < 1e-3), reverse=True)
    return float(sum(area if n % 2 == 0 else -area for n, area in enumerate(here)))
