"""Cohorts: folders and CSVs, lazily, split by patient."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, InputError
from oncontour.io.cohort import Cohort
from oncontour.io.folders import natural
from oncontour.io.image.nifti import write_image
from oncontour.io.patients import holds_patients, is_cohort
from tests.dicom_cases import make_series


def patients(folder: Path, *ids: str) -> Path:
    for id in ids:
        write_image(Volume(np.zeros((2, 3, 4), np.int16), Geometry.regular((2, 3, 4))), folder / id / "ct.nii.gz")
    return folder


def test_a_folder_of_patients_in_natural_order(tmp_path: Path) -> None:
    patients(tmp_path, "pt_10", "pt_2", "pt_1")
    (tmp_path / "LICENSE").write_text("x")
    (tmp_path / ".hidden").mkdir()
    cohort = Cohort.open(tmp_path)
    assert cohort.ids == ("pt_1", "pt_2", "pt_10") == tuple(cohort)
    assert len(cohort) == 3
    assert cohort["pt_2"].id == "pt_2"
    assert cohort["pt_2"].ct.array.shape == (2, 3, 4)
    with pytest.raises(CohortError, match="pt_3"):
        cohort["pt_3"]


def test_opening_reads_nothing(tmp_path: Path) -> None:
    patients(tmp_path, "a", "b")
    (tmp_path / "b/ct.nii.gz").write_bytes(b"broken")
    cohort = Cohort.open(tmp_path)
    assert cohort["a"].ct.array.size == 24
    with pytest.raises(InputError):
        cohort["b"]


def test_the_real_cohort(data: Path) -> None:
    cohort = Cohort.open(data / "openkbp/train")
    assert len(cohort) == 140
    assert cohort.ids[:3] == ("pt_1", "pt_2", "pt_3")
    with pytest.raises(CohortError, match="train, validation"):
        Cohort.open(data / "openkbp")
    with pytest.raises(CohortError, match="one patient"):
        Cohort.open(data / "openkbp/train/pt_1")


def test_a_csv_with_splits(tmp_path: Path) -> None:
    patients(tmp_path / "here", "a", "b", "c")
    table = tmp_path / "cohort.csv"
    table.write_text("\ufeffpatient,path,split\nP2,here/b,test\nP1,here/a,train\nP10,here/c,train\n", encoding="utf-8")
    cohort = Cohort.open(table)
    assert cohort.ids == ("P1", "P2", "P10")
    assert cohort.part("train").ids == ("P1", "P10")
    assert cohort["P2"].id == "P2"
    assert cohort.path("P2") == tmp_path / "here/b"
    with pytest.raises(CohortError, match="no patient of split 'tune'"):
        cohort.part("tune")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "columns"),
        ("patient,place\na,b\n", "columns"),
        ("patient,path\n", "no patients"),
        ("patient,path\na,a\na,b\n", "line 3.*"),
        ("patient,path\na,a\nb,a\n", "already"),
        ("patient,path\na,none\n", "relative to the CSV"),
        ("patient,path\na,\n", "filled"),
        ('patient,path\n"a,a\n', "CSV"),
        ("patient,path\n\0,a\n", "printed"),
        ("patient,path\na,\0\n", "printed"),
    ],
)
def test_csvs_with_faults(tmp_path: Path, text: str, word: str) -> None:
    patients(tmp_path, "a", "b")
    table = tmp_path / "cohort.csv"
    table.write_text(text)
    with pytest.raises(CohortError, match=word):
        Cohort.open(table)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no such"):
        Cohort.open(tmp_path / "none")
    with pytest.raises(CohortError, match="no patients"):
        Cohort.open(tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 60), st.lists(st.floats(0.1, 1), min_size=1, max_size=4), st.integers(0, 99), st.booleans())
def test_splits_are_disjoint_and_repeatable(count: int, weights: list[float], seed: int, whole: bool) -> None:
    cohort = Cohort({f"p{n}": Path(f"p{n}") for n in range(count)})
    fractions = [w / sum(weights) * (1.0 if whole else 0.9) for w in weights]
    try:
        parts = cohort.split(fractions, seed)
    except CohortError:
        assert count * min(fractions) < 1.5
        return
    ids = [id for part in parts for id in part.ids]
    assert len(set(ids)) == len(ids) <= count
    if whole:
        assert len(ids) == count
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * count) < 1 + 1e-9
    assert [p.ids for p in cohort.split(fractions, seed)] == [p.ids for p in parts]


@pytest.mark.parametrize("fractions", [[], [0.5, 0.6], [0, 1], [-0.1, 0.2], [float("nan")]])
def test_fractions_that_cannot_be(fractions: list[float]) -> None:
    with pytest.raises(ConfigError):
        Cohort({"a": Path("a")}).split(fractions, 0)


def test_too_few_patients_for_a_split() -> None:
    with pytest.raises(CohortError, match="empty"):
        Cohort({"a": Path("a")}).split((0.5, 0.5), 0)


def test_a_cohort_travels_between_processes(tmp_path: Path) -> None:
    cohort = Cohort.open(patients(tmp_path, "a", "b"))
    again = pickle.loads(pickle.dumps(cohort))
    assert again.ids == cohort.ids
    assert again["a"].id == "a"


def test_what_is_a_cohort(tmp_path: Path) -> None:
    patients(tmp_path / "many", "a", "b")
    for number in (1, 2):
        make_series(tmp_path / f"clinic/{number}/ct", rows=4, columns=4, offsets=(0, 1), patient_id=f"patient {number}")
        make_series(tmp_path / f"one/{number}", rows=4, columns=4, offsets=(0, 1), patient_id="the same")
    assert is_cohort(tmp_path / "many")
    assert is_cohort(tmp_path / "clinic")
    patients(tmp_path / "study/train", "c")
    assert is_cohort(tmp_path / "study")  # of cohorts: ``Cohort.open`` says which there are
    assert not is_cohort(tmp_path / "one")
    assert not is_cohort(tmp_path / "many/a")
    assert not is_cohort(tmp_path / "none")


def test_only_what_can_be_nothing_else_is_many_patients_without_being_told(tmp_path: Path) -> None:
    """A messy patient stays one: several series, another's file beside them, a copy as images."""
    patients(tmp_path / "many", "a", "b")
    for number in (1, 2):
        make_series(tmp_path / f"clinic/{number}/ct", rows=4, columns=4, offsets=(0, 1), patient_id=f"patient {number}")
        make_series(tmp_path / f"one/{number}", rows=4, columns=4, offsets=(0, 1), patient_id="the same")
    make_series(tmp_path / "copied/ct", rows=4, columns=4, offsets=(0, 1), patient_id="x")
    patients(tmp_path / "copied", "as-images")
    (tmp_path / "clinic.csv").write_text("patient,path\n1,clinic/1\n")
    assert [holds_patients(tmp_path / name) for name in ("many", "clinic", "clinic.csv")] == [True, True, True]
    assert [holds_patients(tmp_path / name) for name in ("one", "copied", "many/a", "clinic/1", "none")] == 5 * [False]
    (tmp_path / "clinic/3").mkdir()
    assert not holds_patients(tmp_path / "clinic")


def test_natural_order() -> None:
    assert sorted(["pt_10", "pt_9", "Pt_1", "a2b10", "a2b9", "2"], key=natural) == ["2", "a2b9", "a2b10", "Pt_1", "pt_9", "pt_10"]
