"""Contours of a cohort as files: a bad patient stops no other and is no success, and nothing lands outside OUT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oncontour.cli import main
from oncontour.commands.predict import predict
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import CohortError, IncompleteError, InputError, OutputError
from oncontour.io.image.nifti import write_image
from oncontour.many import Many
from oncontour.phantom import head_neck
from tests.commands.test_pipeline import make_model
from tests.phantoms import patient

HERE = Many(engine="here")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    make_model(folder / "net.safetensors")
    for name in "abc":
        patient(folder / "cohort" / name, head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))
    elsewhere = Geometry.regular((4, 4, 4))
    other = Volume(np.zeros(elsewhere.shape, np.uint8), elsewhere)
    write_image(other, folder / "cohort" / "a" / "masks" / "Larynx.nii.gz")  # of no concern: the CT alone is looked at
    (folder / "cohort" / "b" / "ct.nii.gz").write_bytes(b"no image")
    for name in "ac":
        write_image(other, folder / "cohort" / name / "segmented" / "x.nii.gz")
    return folder


def test_a_patient_that_cannot_be_drawn_is_named_and_no_success(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "predict",
        str(cohort / "cohort"),
        "--model",
        str(cohort / "net.safetensors"),
        "--out",
        str(tmp_path),
        "--seen",
        "--engine",
        "here",
    ]
    assert main(words) == IncompleteError.exit_code == InputError.exit_code
    told = capsys.readouterr()
    assert told.out.startswith("net: 2 of 3 patients drawn")
    assert "b was left out: not a NIfTI file" in told.err
    assert "of 2 patients: passed over: image files in [...]" in told.err
    assert "Larynx" not in told.err
    assert "not drawn: b by net" in told.err
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [".cohort", "a", "c", "confidence.csv"]


@pytest.mark.parametrize("id", ["..", "../../thesis", "study/7"])
def test_no_patient_is_drawn_outside_its_folder(cohort: Path, tmp_path: Path, id: str) -> None:
    (cohort / "people.csv").write_text(f"patient,path\n{id},cohort/a\n")
    with pytest.raises(CohortError, match="cannot be the name of a folder"):
        predict(cohort / "people.csv", model=[str(cohort / "net.safetensors")], out=tmp_path / "out", seen=True, threads=1, many=HERE)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_one_left_among_the_chances_stands_in_no_way(cohort: Path, tmp_path: Path) -> None:
    (cohort / "people.csv").write_text("patient,path\na,cohort/a\n")
    words = {"model": [str(cohort / "net.safetensors")], "out": tmp_path, "seen": True, "threads": 1, "chances": True, "many": HERE}
    predict(cohort / "people.csv", **words)
    drawn = tmp_path / "net" / "a"
    (drawn / "chances").rename(drawn / ".chances.k1ll3d.part")
    predict(cohort / "people.csv", **words)
    assert sorted(path.name for path in drawn.iterdir()) == ["chances", "masks"]


def test_a_folder_with_other_things_is_not_replaced(cohort: Path, tmp_path: Path) -> None:
    (cohort / "people.csv").write_text("patient,path\na,cohort/a\n")
    (tmp_path / "net" / "a").mkdir(parents=True)
    (tmp_path / "net" / "a" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        predict(cohort / "people.csv", model=[str(cohort / "net.safetensors")], out=tmp_path, seen=True, threads=1, many=HERE)
    assert (tmp_path / "net" / "a" / "thesis.tex").read_text() == "mine"


def test_workers_and_shards_draw_what_one_process_draws_and_a_shard_is_not_drawn_again(cohort: Path, tmp_path: Path) -> None:
    (cohort / "people.csv").write_text("patient,path\na,cohort/a\nc,cohort/c\n")
    words = {"model": [str(cohort / "net.safetensors")], "seen": True}
    predict(cohort / "people.csv", **words, out=tmp_path / "one", many=HERE)
    predict(cohort / "people.csv", **words, out=tmp_path / "two", many=Many(jobs=1, shard="2/2"))
    first = (tmp_path / "two/net/c/masks").stat().st_mtime_ns
    assert "net: 2 of 2 patients drawn" in predict(cohort / "people.csv", **words, out=tmp_path / "two", many=HERE)
    assert (tmp_path / "two/net/c/masks").stat().st_mtime_ns == first
    kept = [
        {str(p.relative_to(out)): p.read_bytes() for p in out.glob("net/[a-z]*/**/*.gz")} for out in (tmp_path / "one", tmp_path / "two")
    ]
    assert len(kept[0]) == 2 * len(list((tmp_path / "one/net/a/masks").iterdir()))
    assert kept[0] == kept[1]
    assert (tmp_path / "one/net/confidence.csv").read_text() == (tmp_path / "two/net/confidence.csv").read_text()
