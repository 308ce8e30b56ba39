"""Every consensus value of IBSI-1, one test each: the digital phantom, which is written out here, and CT configurations A to E."""

from __future__ import annotations

import csv
import re
from functools import cache

import numpy as np
import pytest
from docs import write_ibsi

from oncontour.io.image.nifti import read_image
from oncontour.radiomics.names import DIRECTED, FAMILIES, FEATURES, NO_CONSENSUS, UNDIRECTED, code, split, words
from tests.needs import lacking
from tests.radiomics.digital_phantom import IMAGE, MASK

DATA = write_ibsi.data_folder()
NO_DATA = f"no consensus values at {DATA / 'ibsi'}: set ONCONTOUR_DATA to the folder of real data"
COUNTS = {"digital phantom": (482, 5), "A": (406, 5), "B": (406, 5), "C": (270, 5), "D": (270, 5), "E": (270, 5)}
"""Rows of each consensus file with a value, and without one."""


def _rows() -> list[tuple[str, str]]:
    """(configuration, column) of every row of every file, before anything is computed."""
    found = []
    for name, configuration in write_ibsi.CONFIGURATIONS.items():
        path = DATA / "ibsi" / "reference-values" / configuration.values
        if path.is_file():
            with path.open(encoding="utf-8-sig", newline="") as stream:
                found += [(name, row["tag"]) for row in csv.DictReader(stream, delimiter=";") if row["tag"]]
    return found


ROWS = _rows()


@cache
def compared(name: str) -> dict[str, write_ibsi.Comparison]:
    return {row.name: row for row in write_ibsi.compare(DATA, name)}


PHANTOM = write_ibsi.CONFIGURATIONS["digital phantom"]
PRINTED = write_ibsi.printed(PHANTOM.title)


@cache
def of_the_phantom() -> dict[str, float]:
    return write_ibsi.compute(IMAGE, MASK, PHANTOM.settings)


@pytest.mark.parametrize(("column", "reference", "tolerance"), PRINTED, ids=[row[0] for row in PRINTED])
def test_consensus_on_the_digital_phantom(column: str, reference: str, tolerance: float) -> None:
    row = write_ibsi.Comparison(column, reference, tolerance, of_the_phantom()[column])
    assert row.agrees, f"{column}: consensus {row.reference} +- {row.tolerance}, ours {row.ours}"


def test_all_of_the_digital_phantom_is_printed() -> None:
    """482 values, and 5 features without one; three of them from the manual (arXiv 1612.07003v11, sections 3.1.2, 3.3.1 and 3.6.1)."""
    assert (sum(bool(reference) for _, reference, _ in PRINTED), sum(not reference for _, reference, _ in PRINTED)) == (482, 5)
    values = {name: reference for name, reference, _ in PRINTED}
    assert (values["morph_volume"], values["stat_mean"], values["cm_joint_max_3D_comb"]) == ("556", "2.15", "0.509")


@pytest.mark.parametrize(("configuration", "column"), ROWS or [("", "")], ids=[f"{a}-{b}" for a, b in ROWS] or ["no data"])
def test_consensus(configuration: str, column: str) -> None:
    if not ROWS:
        lacking(NO_DATA)
    row = compared(configuration)[column]
    assert row.agrees, f"{column}: consensus {row.reference} +- {row.tolerance}, ours {row.ours}"


def test_the_phantom_is_the_published_one() -> None:
    if not ROWS:
        lacking(NO_DATA)
    image, mask = (read_image(DATA / "ibsi" / name) for name in (PHANTOM.image, PHANTOM.mask))
    assert np.array_equal(image.array, IMAGE.array)
    assert np.array_equal(mask.binary().array, MASK.array)
    assert image.geometry == IMAGE.geometry


def test_no_row_is_left_out(record_property: pytest.RecordProperty) -> None:
    if not ROWS:
        lacking(NO_DATA)
    for name, (valued, empty) in COUNTS.items():
        rows = compared(name).values()
        assert (sum(bool(row.reference) for row in rows), sum(not row.reference for row in rows)) == (valued, empty)
        assert tuple(row.name for row in rows if not row.reference) == NO_CONSENSUS
        record_property(f"consensus values compared, {name}", valued)
    assert len(ROWS) == len(set(ROWS)) == 2104 + 30


def test_the_page_says_what_comes_out() -> None:
    """``python docs/write_ibsi.py`` brings it up to date."""
    if not ROWS:
        lacking(NO_DATA)
    assert write_ibsi.PAGE.read_text(encoding="utf-8") == write_ibsi.page(DATA, {name: [*compared(name).values()] for name in COUNTS})


def test_a_comparison_can_fail() -> None:
    assert write_ibsi.Comparison("x", "0.512", 0.0, 0.51249).agrees
    assert not write_ibsi.Comparison("x", "0.512", 0.0, 0.5126).agrees
    assert not write_ibsi.Comparison("x", "45985", 100.0, 45884.0).agrees
    assert write_ibsi.Comparison("x", "-1040", 20.0, -1022.0).agrees
    assert not write_ibsi.Comparison("x", "9.06E-05", 3.3e-6, 9.5e-5).agrees
    assert not write_ibsi.Comparison("x", "1", 0.0, float("nan")).agrees


# ---- names


def test_names_are_complete_and_differ() -> None:
    sizes = {"morph": 29, "loc": 2, "stat": 18, "ih": 23, "ivh": 7, "cm": 25, "rlm": 16, "szm": 16, "dzm": 16, "ngt": 5, "ngl": 17}
    assert {family: sum(f.family == family for f in FEATURES.values()) for family in FAMILIES} == sizes
    columns = [f"{f.tag}_{a}" if a else f.tag for f in FEATURES.values() for a in (*f.aggregations, *([""] if not f.aggregations else []))]
    assert len({code(name) for name in columns}) == len({words(name) for name in columns}) == len(columns)
    assert all(re.fullmatch(r"[0-9A-Z]{4}(\.[0-9A-Z]{4}){1,2}|P88C\.(BC2M|GBPN)\.\d\d", code(name)) for name in columns)


def test_a_name_in_three_ways() -> None:
    assert code("cm_joint_max_3D_comb") == "LFYI.GYBY.IAZD"
    assert words("cm_joint_max_3D_comb") == "grey level co-occurrence: joint maximum (3D, all merged)"
    assert code("szm_lze_2_5D") == "9SAK.48P8.62GR"
    assert code("morph_volume") == "HCUG.RNU0"
    assert split("rlm_glnu_norm_2_5D_avg") == (FEATURES["rlm_glnu_norm"], "2_5D_avg")
    for wrong in ("cm_joint_max", "cm_joint_max_3D", "szm_lze_3D_avg", "morph_volume_3D", "no_such"):
        with pytest.raises(KeyError):
            split(wrong)
    assert set(DIRECTED) & set(UNDIRECTED) == set()
