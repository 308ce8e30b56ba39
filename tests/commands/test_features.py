"""``oncontour features``: one table of a cohort, whatever is wrong with one patient; resumed, not repeated."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from oncontour import cli
from oncontour.commands.features import features
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, ConfigError, OutputError
from oncontour.many import Many
from oncontour.radiomics.table import BEFORE
from tests.phantoms import patient as write_patient

HERE = Many(engine="here")

GRID = Geometry.regular((8, 14, 14), (3.0, 3.0, 3.0))


def block(j: int, i: int, size: int = 6) -> Volume:
    mask = np.zeros(GRID.shape, bool)
    mask[1:7, j : j + size, i : i + size] = True
    return Volume(mask, GRID)


def person(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    at = np.indices(GRID.shape)
    dose = Volume((10 * seed + 2 * at[2] + rng.normal(0, 1, GRID.shape)).astype(np.float32), GRID)
    ct = Volume(np.round(rng.normal(40, 15 + 5 * seed, GRID.shape)).astype(np.int16), GRID)
    masks = {"Esophagus": block(4, 4, 4 + seed % 3), "Larynx": block(1, 7, 3)}
    return Case(f"p{seed}", {"ct": ct, "dose": dose}, masks if seed % 2 else {"Esophagus": masks["Esophagus"]})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for seed in (1, 2, 3):
        write_patient(folder / f"p{seed}", person(seed))
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def parts(out: Path) -> dict[str, int]:
    """Patient -> when its part was written."""
    return {json.loads(p.read_text())["patient"]: p.stat().st_mtime_ns for p in out.with_name(out.name + ".parts").glob("*.json")}


def test_only_an_earlier_table_is_replaced(cohort: Path, tmp_path: Path) -> None:
    listed, outcomes = tmp_path / "cohort.csv", tmp_path / "outcomes.parquet"
    listed.write_text(f"patient,path\np1,{cohort / 'p1'}\n")
    outcomes.write_bytes(b"years of work")
    for out in (listed, outcomes):
        before = out.read_bytes()
        with pytest.raises(OutputError, match="no table of features"):
            features(listed, out=out, families=["stat"], many=HERE)
        assert out.read_bytes() == before
    for name in ("f.csv", "f.parquet"):
        for perturb in (2, 0):
            told = features(listed, out=tmp_path / name, families=["stat"], structures=["Larynx"], perturb=perturb, many=HERE)
        assert "f.robustness.csv is of an earlier run" in told


def test_a_row_for_each_patient_structure_and_image(cohort: Path, tmp_path: Path) -> None:
    told = features(cohort, out=tmp_path / "f.csv", many=HERE)
    rows = table(tmp_path / "f.csv")
    assert [(r["patient"], r["structure"], r["image"]) for r in rows] == [
        (patient, structure, image)
        for patient, structures in (("p1", ("Esophagus", "Larynx")), ("p2", ("Esophagus",)), ("p3", ("Esophagus", "Larynx")))
        for structure in structures
        for image in ("dose", "ct")
    ]
    assert told.startswith("174 features of 10 regions in 3 patients (0 of them from an earlier run)")
    assert tuple(rows[0])[: len(BEFORE)] == BEFORE
    assert int(rows[0]["voxels"]) == 6 * 5 * 5
    dose = person(1).images["dose"].array[person(1).masks["Esophagus"].array]
    assert float(rows[0]["stat_mean"]) == pytest.approx(dose.mean(), rel=1e-6)
    columns = table(tmp_path / "f.columns.csv")
    assert [c["column"] for c in columns] == [*rows[0]][len(BEFORE) :]
    said = {"column": "cm_corr_3D_comb", "short": "cm_corr_3D_comb", "ibsi": "LFYI.NI2N.IAZD"}
    assert {**said, "words": "grey level co-occurrence: correlation (3D, all merged)"} in columns
    settings = json.loads((tmp_path / "f.settings.json").read_text())
    assert settings["settings"]["dose"]["bin_width"] == 1.0
    assert settings["settings"]["ct"]["processing"]["keep"] == [-1000.0, 3000.0]


def test_a_second_run_computes_only_what_is_missing_or_changed(cohort: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "people", tmp_path / "f.csv"
    shutil.copytree(cohort, folder)
    features(folder, out=out, families=["stat"], many=HERE)
    first, before = table(out), parts(out)
    assert "(3 of them from an earlier run)" in features(folder, out=out, families=["stat"], many=HERE)
    assert (table(out), parts(out)) == (first, before)
    write_patient(folder / "p2", person(5))
    write_patient(folder / "p4", person(4))
    assert "(2 of them from an earlier run)" in features(folder, out=out, families=["stat"], many=HERE)
    after = parts(out)
    assert {id for id in after if after[id] == before.get(id)} == {"p1", "p3"}
    assert len(table(out)) == 14
    assert "(0 of them" in features(folder, out=out, families=["stat"], bin_gy=2.0, many=HERE)
    next(out.with_name("f.csv.parts").glob("*.json")).write_text("{ half a")
    assert "(3 of them" in features(folder, out=out, families=["stat"], bin_gy=2.0, many=HERE)


def test_filters_add_a_row_an_image_and_are_recorded(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    words = ["log:sigma_mm=3", "laws:energy=2"]
    features(cohort, out=out, structures=["Esophagus"], families=["stat", "morph"], images=["dose"], filters=words, many=HERE)
    rows = table(out)
    first = [row for row in rows if row["patient"] == rows[0]["patient"]]
    assert [row["image"] for row in first] == ["dose", *(f"dose {word}" for word in words)]
    assert all(row["stat_mean"] for row in first)
    assert len({row["voxels_used"] for row in first}) == 1
    assert [bool(row["morph_volume"]) for row in first] == [True, False, False]
    told = json.loads(out.with_suffix(".settings.json").read_text())["filters"]
    assert told["log:sigma_mm=3"] == {
        "filter": "log",
        "boundary": "mirror",
        "by_slice": False,
        "sigma_mm": 3.0,
        "cut_sd": 4.0,
        "riesz": "",
    }
    config = tmp_path / "features.yaml"
    config.write_text(f"cohort: {cohort}\nout: {tmp_path / 'yaml.csv'}\nstructures: [Esophagus]\nfamilies: [stat, morph]\nimages: [dose]\n")
    config.write_text(config.read_text() + f"filters: {json.dumps(words)}\njobs: 1\n")
    assert cli.main(["features", "--config", str(config)]) == 0
    assert table(tmp_path / "yaml.csv") == rows


def test_one_bad_patient_never_stops_the_rest(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "people", tmp_path / "f.csv"
    shutil.copytree(cohort, folder)
    (folder / "p2" / "dose.nii.gz").write_bytes(b"not an image")
    centigray = person(3)
    write_patient(folder / "p3", centigray.with_images({"dose": centigray.images["dose"].map(lambda gy: 100 * gy)}))
    assert cli.main(["features", str(folder), "--out", str(out), "--families", "stat,ih", "--engine", "here"]) == CohortError.exit_code
    told = capsys.readouterr().err
    assert "2 of 3 patients could not be used (p2: " in told
    assert "p3: Esophagus would receive 4" in told
    assert "the numbers look like centigray" in told
    sentences = [line for line in told.splitlines() if not line.startswith("features: ")]  # of progress, where it takes seconds
    assert len(sentences) == 1
    assert {row["patient"] for row in table(out)} == {"p1"}
    write_patient(folder / "p2", person(2))
    write_patient(folder / "p3", person(3))
    assert "(1 of them from an earlier run)" in features(folder, out=out, families=["stat", "ih"], many=HERE)


def test_centigray_is_doubted_where_the_structure_itself_receives_little(tmp_path: Path) -> None:
    one = person(1)
    dose = one.images["dose"].map(lambda gy: np.where(gy == gy.max(), 7000.0, gy).astype(np.float32))
    write_patient(tmp_path / "people" / "p1", one.with_images({"dose": dose}))
    told = features(tmp_path / "people", out=tmp_path / "f.csv", structures=["Esophagus"], images=["dose"], families=["loc"], many=HERE)
    assert "Esophagus, dose: the dose reaches 7000 Gy elsewhere: is it centigray?" in told


def test_everybody_bad_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    write_patient(folder / "p1", Case("p1", {"ct": person(1).ct}, {"Esophagus": block(4, 4)}))
    with pytest.raises(CohortError, match=r"p1: neither dose among the images \['ct'\].*nothing was written"):
        features(folder, out=tmp_path / "f.csv", images=["dose"], many=HERE)
    with pytest.raises(CohortError, match="none of Brainstem"):
        features(folder, out=tmp_path / "f.csv", structures=["Brainstem"], many=HERE)
    assert not (tmp_path / "f.csv").exists()


def test_what_cannot_be_computed_is_an_empty_cell_and_a_remark(tmp_path: Path) -> None:
    """A structure of one voxel, one beyond the dose, and one half beyond it; a constant dose."""
    small = GRID.crop((0, 0, 0), (8, 14, 7))
    dose = Volume(np.full(small.shape, 50.0, np.float32), small)
    one = np.zeros(GRID.shape, bool)
    one[3, 3, 3] = True
    masks = {"Esophagus": Volume(one, GRID), "Larynx": block(4, 8, 5), "Brainstem": block(4, 4, 6)}
    write_patient(tmp_path / "people" / "p1", Case("p1", {"ct": person(1).ct, "dose": dose}, masks))
    told = features(tmp_path / "people", out=tmp_path / "f.csv", spacing_mm=0, many=HERE)
    rows = {(r["structure"], r["image"]): r for r in table(tmp_path / "f.csv")}
    lone = rows["Esophagus", "dose"]
    assert (lone["voxels"], lone["remark"], lone["cm_contrast_3D_comb"], lone["morph_pca_elongation"]) == ("1", "", "", "")
    assert float(lone["stat_mean"]) == 50
    away = rows["Larynx", "dose"]
    assert (away["remark"], away["voxels_used"], away["stat_mean"]) == ("no voxel with a known dose in range", "0", "")
    assert float(away["morph_vol_approx"]) == 6 * 5 * 5 * 27
    assert rows["Brainstem", "dose"]["remark"] == "50 % of the structure has no known dose in range"
    assert (rows["Brainstem", "dose"]["cm_corr_3D_comb"], rows["Brainstem", "dose"]["morph_moran_i"]) == ("", "")
    assert "Larynx, dose: no voxel with a known dose in range" in told


def test_robustness_beside_the_table(cohort: Path, tmp_path: Path) -> None:
    features(cohort, out=tmp_path / "f.csv", families=["stat", "morph"], perturb=3, many=HERE)
    rows = {(r["structure"], r["image"], r["column"]): r for r in table(tmp_path / "f.robustness.csv")}
    mean = rows["Esophagus", "dose", "stat_mean"]
    assert (mean["patients"], mean["repetitions"]) == ("3", "3")
    assert 0.8 < float(mean["icc_1_1"]) <= 1
    assert float(mean["low_1_1"]) < float(mean["icc_1_1"]) < float(mean["high_1_1"])
    assert rows["Larynx", "ct", "stat_mean"]["patients"] == "2"
    plain = table(tmp_path / "f.csv")
    features(cohort, out=tmp_path / "g.csv", families=["stat", "morph"], many=HERE)
    assert plain == table(tmp_path / "g.csv")
    assert not (tmp_path / "g.robustness.csv").exists()


def test_names_of_columns(cohort: Path, tmp_path: Path) -> None:
    for names, column in (("code", "9SAK.5QRC.8QNN"), ("words", "grey level size zone: small zone emphasis (2D, averaged over slices)")):
        features(cohort, out=tmp_path / "f.csv", families=["szm"], aggregations=["2D_comb"], names=names, many=HERE)  # type: ignore[arg-type]
        assert column in table(tmp_path / "f.csv")[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "f.xlsx"], "not '.xlsx'"),
        (["--out", "f.csv", "--perturb", "1"], "two perturbations or more"),
        (["--out", "f.csv", "--jobs", "-1"], "processes are counted"),
        (["--out", "f.csv", "--spacing_mm", "-3"], "0.1 mm or more"),
        (["--out", "f.csv", "--bin_gy", "0"], "wider than 0"),
        (["--out", "f.csv", "--images", "mr"], "not on 'mr'"),
        (["--out", "f.csv", "--families", "glcm"], "there are morph"),
        (["--out", "f.csv", "--aggregations", "3D"], "there are 2D_avg"),
        (["--out", "f.csv", "--filters", "log:sigma=3"], "sigma_mm"),
        (["--out", "f.csv", "--filters", "log", "--families", "morph"], "does not depend on the image"),
        (["--out", "f.csv", "--filters", "log", "--perturb", "2"], "leave out --filters or --perturb"),
    ],
)
def test_mistakes(words: list[str], says: str, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.chdir(tmp_path)
    assert cli.main(["features", str(cohort), *words]) == ConfigError.exit_code
    assert says in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_bins_in_the_wrong_unit_are_said_for_each_patient(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"3 of 3 patients.*grey levels, more than 1024.*nothing was written"):
        features(cohort, out=tmp_path / "f.csv", bin_gy=0.001, images=["dose"], many=HERE)


def test_parquet_holds_what_the_csv_holds(tmp_path: Path) -> None:
    """Every value bit for bit, undefined ones as null; numbers are numbers; columns say what they are; resumed as the CSV is."""
    small = GRID.crop((0, 0, 0), (8, 14, 7))
    dose = Volume(np.full(small.shape, 50.0, np.float32), small)
    for seed in (1, 2):
        write_patient(tmp_path / "people" / f"p{seed}", person(seed))
    write_patient(tmp_path / "people" / "p3", Case("p3", {"ct": person(3).ct, "dose": dose}, {"Larynx": block(4, 8, 5)}))
    words = ["features", str(tmp_path / "people"), "--engine", "here"]
    assert cli.main([*words, "--out", str(tmp_path / "f.parquet")]) == 0
    assert cli.main([*words, "--out", str(tmp_path / "f.csv")]) == 0
    found = parquet.read_table(tmp_path / "f.parquet")
    written = table(tmp_path / "f.csv")
    assert found.column_names == [*written[0]]
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in found.to_pylist()] == written
    assert any(row["stat_mean"] is None for row in found.to_pylist())
    kinds = {name: str(found.schema.field(name).type) for name in found.column_names}
    assert [kinds[name] for name in BEFORE] == ["string", "string", "string", "int64", "int64", "string"]
    assert set(kinds.values()) == {"string", "int64", "double"}
    said = found.schema.field("morph_volume").metadata
    assert said == {b"ibsi": b"HCUG.RNU0", b"words": b"morphology: volume of the mesh, mm3"}
    assert json.loads(found.schema.metadata[b"oncontour"])["settings"]["dose"]["bin_width"] == 1.0
    assert (tmp_path / "f.columns.csv").exists()
    write_patient(tmp_path / "people" / "p4", person(4))
    assert "(3 of them from an earlier run)" in features(tmp_path / "people", out=tmp_path / "f.parquet", many=HERE)
    again = parquet.read_table(tmp_path / "f.parquet")
    assert again.slice(0, found.num_rows).equals(found)
    assert {row["patient"] for row in again.to_pylist()} == {"p1", "p2", "p3", "p4"}


# ---- processes


def test_processes_give_what_one_gives(cohort: Path, tmp_path: Path) -> None:
    features(cohort, out=tmp_path / "one.csv", families=["stat", "cm"], many=HERE)
    features(cohort, out=tmp_path / "two.csv", families=["stat", "cm"], many=Many(jobs=2))
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "two.csv").read_text()
