"""Every reference of IBSI-2, one test each: 33 response maps of digital phantoms, 323 statistics of a CT seen through filters."""

from __future__ import annotations

import pytest
from docs import ibsi2, write_ibsi

from tests.needs import lacking

DATA = write_ibsi.data_folder()
NO_DATA = f"no references at {DATA / 'ibsi2'}: set ONCONTOUR_DATA to the folder of real data"
ROWS = ibsi2.references(DATA)


@pytest.mark.parametrize("name", ibsi2.MAPS)
def test_response_map(name: str) -> None:
    if not ROWS:
        lacking(NO_DATA)
    assert ibsi2.off(DATA, name) <= 0.01


VALUED = [row for row in ROWS if row.value]


@pytest.mark.parametrize("row", VALUED or [None], ids=[f"{row.filter}-{row.feature}" for row in VALUED] or ["no data"])
def test_feature_value(row: ibsi2.Reference | None) -> None:
    if row is None:
        lacking(NO_DATA)
    ours = ibsi2.values(DATA, row.filter)[row.feature]
    assert ibsi2.agrees(row, ours), f"{row.feature}: consensus {row.value} +- {row.tolerance}, ours {ours}"


def test_no_reference_is_left_out() -> None:
    if not ROWS:
        lacking(NO_DATA)
    maps = {path.name.removesuffix("-ValidCRM.nii.gz").replace("_", ".") for path in (DATA / "ibsi2" / "response-maps").glob("*.nii.gz")}
    assert maps == set(ibsi2.MAPS)
    assert len(maps) == 33
    assert len(VALUED) == 323
    assert [(row.filter, row.feature) for row in ROWS if not row.value] == [("8.B", "stat_qcod")]
    assert {row.filter for row in ROWS} == set(ibsi2.VALUES)


def test_a_comparison_can_fail() -> None:
    assert ibsi2.agrees(ibsi2.Reference("1.A", "stat_mean", "-47", "4.6"), -42.4)
    assert not ibsi2.agrees(ibsi2.Reference("1.A", "stat_mean", "-47", "4.6"), -42.3)
    assert not ibsi2.agrees(ibsi2.Reference("1.A", "stat_mean", "-47", "4.6"), float("nan"))
